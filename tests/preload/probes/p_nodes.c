/* tests/preload/probes/p_nodes.c — FIFOs and Unix sockets: names in the file system that join processes */
#include "probe.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

/* --- FIFOs ---------------------------------------------------------------------------------------------------------------------- */
CASE(fifo_between_processes)
{
    R(mkfifo("p", 0640));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open("p", O_WRONLY);
        Q(write(fd, "hello", 5));
        _exit(fd < 0);
    }
    int fd = F(open("p", O_RDONLY));
    char buf[16];
    ssize_t n = read(fd, buf, sizeof buf);
    show_bytes(buf, n);
    R(read(fd, buf, sizeof buf));
    ended("writer", pid);
    struct stat s;
    int r = fstat(fd, &s);
    show_stat("fstat", r, &s);
    R(lseek(fd, 0, SEEK_SET));
    R(ftruncate(fd, 0));
    R(fchmod(fd, 0600));
    st("p");
    R(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    R(fcntl(fd, F_GETFD));
    R(unlink("p"));
    r = fstat(fd, &s);
    T(r == 0 && S_ISFIFO(s.st_mode) && s.st_nlink == 0);
    R(close(fd));
    ls(".");
}
CASE(fifo_opens)
{
    R(mkfifo("p", 0640));
    F(open("p", O_WRONLY | O_NONBLOCK));
    int r = F(open("p", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    R(fcntl(r, F_GETFD));
    int w = F(open("p", O_WRONLY | O_NONBLOCK | O_CREAT | O_TRUNC, 0600));
    F(open("p", O_WRONLY | O_CREAT | O_EXCL, 0600));
    F(open("p", O_RDONLY | O_DIRECTORY));
    R(write(w, "abc", 3));
    char buf[8];
    R(read(r, buf, sizeof buf));
    R(read(r, buf, sizeof buf));
    struct pollfd p = {.fd = r, .events = POLLIN};
    R(poll(&p, 1, 0));
    R(rename("p", "q"));
    R(link("q", "z"));
    int w2 = F(open("z", O_WRONLY | O_NONBLOCK));
    R(write(w2, "xyz", 3));
    R(read(r, buf, sizeof buf));
    close(w);
    close(w2);
    R(poll(&p, 1, 0));
    T((p.revents & POLLHUP) != 0);
    int rw = F(open("q", O_RDWR));
    R(write(rw, "1", 1));
    int o = F(open("q", O_PATH));
    struct stat s;
    int k = fstat(o, &s);
    show_stat("O_PATH", k, &s);
    FILE *f = fopen("q", "r+");
    T(f != NULL);
    Q(f && fclose(f));
}
CASE(fifo_inherited)
{
    R(mkfifo("p", 0640));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "echo from a shell > p", (char *)NULL);
        _exit(127);
    }
    FILE *f = popen("cat < p", "r");
    char line[64] = "";
    Q(fgets(line, sizeof line, f));
    fputs(line, stdout);
    R(pclose(f));
    ended("writer", pid);
}
/* --- sockets ------------------------------------------------------------------------------------------------------------------------ */
static struct sockaddr_un at(const char *path)
{
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    snprintf(u.sun_path, sizeof u.sun_path, "%s", path);
    return u;
}
static int bound(int type, const char *path)
{
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    struct sockaddr_un u = at(path);
    R(bind(fd, (struct sockaddr *)&u, sizeof u));
    return fd;
}
static int connected(int type, const char *path)
{
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    struct sockaddr_un u = at(path);
    R(connect(fd, (struct sockaddr *)&u, sizeof u));
    return fd;
}
static void name_is(const char *what, int (*f)(int, struct sockaddr *, socklen_t *), int fd)
{
    struct sockaddr_un u;
    socklen_t n = sizeof u;
    memset(&u, 0, sizeof u);
    int r = f(fd, (struct sockaddr *)&u, &n);
    printf("%s: %d family %d length %u ", what, r, u.sun_family, n);
    show_bytes(u.sun_path, n > 2 ? (ssize_t)strnlen(u.sun_path, sizeof u.sun_path) : 0);
    char c[8] = "";
    n = 5;
    R(f(fd, (struct sockaddr *)c, &n));
    printf("  short: length %u ", n);
    show_bytes(c + 2, 3);
}
CASE(socket_stream)
{
    int s = bound(SOCK_STREAM, "s");
    st("s");
    name_is("getsockname", getsockname, s);
    connected(SOCK_STREAM, "s");
    R(listen(s, 4));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int c = connected(SOCK_STREAM, "s");
        name_is("getpeername", getpeername, c);
        name_is("getsockname of one without", getsockname, c);
        Q(write(c, "ping", 4));
        fflush(stdout);
        _exit(0);
    }
    int a = accept(s, NULL, NULL);
    char buf[8];
    show_bytes(buf, read(a, buf, sizeof buf));
    ended("client", pid);
    bound(SOCK_STREAM, "s");
    struct sockaddr_un u = at("other");
    R(bind(s, (struct sockaddr *)&u, sizeof u));
    st("other");
    R(rename("s", "t"));
    connected(SOCK_STREAM, "s");
    connected(SOCK_STREAM, "t");
    Q(mkdir("d", 0755));
    Q(symlink("../t", "d/l"));
    connected(SOCK_STREAM, "d/l");
    bound(SOCK_STREAM, "d/l");
    close(s);
    connected(SOCK_STREAM, "t");
    F(open("t", O_RDWR));
    struct stat x;
    int o = F(open("t", O_PATH));
    int r = fstat(o, &x);
    show_stat("O_PATH", r, &x);
    R(unlink("t"));
    connected(SOCK_STREAM, "t");
    ls(".");
    put("file", "x");
    connected(SOCK_STREAM, "file");
    connected(SOCK_STREAM, "d");
    connected(SOCK_STREAM, "none/s");
    bound(SOCK_STREAM, "file/s");
    bound(SOCK_STREAM, "none/s");
    int n = open("/dev/null", O_RDONLY);
    R(bind(n, (struct sockaddr *)&u, sizeof u));
    st("other");
    Q(mknod("made", S_IFSOCK | 0600, 0));
    connected(SOCK_STREAM, "made");
    bound(SOCK_STREAM, "made");
}
CASE(socket_datagrams)
{
    char path[PATH_MAX + 8];
    int a = bound(SOCK_DGRAM, "a"), b = bound(SOCK_DGRAM, "b");
    struct sockaddr_un u = at("b"), from;
    R(sendto(a, "one", 3, 0, (struct sockaddr *)&u, sizeof u));
    char buf[8];
    socklen_t n = sizeof from;
    R(recvfrom(b, buf, sizeof buf, 0, (struct sockaddr *)&from, &n));
    R(sendto(b, "back", 4, 0, (struct sockaddr *)&from, n));
    show_bytes(buf, recv(a, buf, sizeof buf, 0));
    u = at("none");
    R(sendto(a, "x", 1, 0, (struct sockaddr *)&u, sizeof u));
    int c = connected(SOCK_DGRAM, "b");
    R(send(c, "two", 3, 0));
    show_bytes(buf, recv(b, buf, sizeof buf, 0));
    connected(SOCK_STREAM, "b");
    snprintf(path, sizeof path, "%s/abs", here);
    bound(SOCK_DGRAM, path);
    st("abs");
    Q(chmod("b", 0));
    if (geteuid())
        connected(SOCK_DGRAM, "b");
    R(unlink("b"));
    R(send(c, "x", 1, 0));
    show_bytes(buf, recv(b, buf, sizeof buf, 0));
}
PROBE_MAIN
