/* tests/unit/kfsd/client.h — a kfsd of one's own, and one request at a time to it
 *
 * Model    Each case has a directory below $TMPDIR with database, objects, cache and socket; kfsd is a child, ended by its process id.
 * Absent   Everything clever that the shim does: no retry, no shared memory.
 */
#ifndef KFS_TESTS_UNIT_KFSD_CLIENT_H
#define KFS_TESTS_UNIT_KFSD_CLIENT_H
#pragma GCC diagnostic ignored "-Wunused-function" /* each test uses what it needs */

#include "base/pure/wire.h"
#include "tests/unit/kt.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];
static pid_t daemon_pid;
static bool node; /* start kfsd for everybody */

struct client {
    int fd;
    uint64_t id[2], seq;
    struct kfs_wire_hello hello;
    int segment_fd, stats_fd;
};

struct call {
    struct kfs_wire_req q;
    const char *path, *path2;
    const void *data;
    size_t data_len;
    struct kfs_wire_rep rep;
    char out[KFS_WIRE_DATA_MAX + 1];
    int fd, fd2;
};

static char *in_dir(const char *name)
{
    static char buf[8][512];
    static int n;
    char *b = buf[n++ & 7];
    snprintf(b, sizeof buf[0], "%s/%s", dir, name);
    return b;
}

static const char *kfsd_path(void)
{
    static char path[4096];
    if (getenv("KFS_TEST_KFSD"))
        return getenv("KFS_TEST_KFSD");
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
    path[n > 0 ? n : 0] = 0;
    for (int i = 0; i < 3 && strrchr(path, '/'); i++)
        *strrchr(path, '/') = 0;
    strcat(path, "/bin/kfsd");
    return path;
}

/* Start kfsd with these extra arguments (ended by NULL); returns its ready line. */
static const char *start_with(const char *first, ...)
{
    static char line[8192];
    const char *args[24] = {kfsd_path(), node ? "--create" : "--private", "--create", "--linger", "60", "--run-dir", dir, "--log", in_dir("log")};
    int n = 9, pipe_fd[2];
    va_list ap;
    va_start(ap, first);
    for (const char *a = first; a; a = va_arg(ap, const char *))
        args[n++] = a;
    va_end(ap);
    char url[600], ready[16];
    snprintf(url, sizeof url, "sqlite:%s", in_dir("v.db"));
    ASSERT(pipe(pipe_fd) == 0);
    snprintf(ready, sizeof ready, "%d", pipe_fd[1]);
    args[n++] = "--ready-fd";
    args[n++] = ready;
    args[n++] = url;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(pipe_fd[0]);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(open(in_dir("stderr"), O_WRONLY | O_CREAT | O_APPEND, 0600), 2);
        setenv("HOME", dir, 1);
        unsetenv("XDG_CACHE_HOME");
        unsetenv("XDG_RUNTIME_DIR");
        union {
            const char **in;
            char *const *out;
        } cast = {args};
        execv(args[0], cast.out);
        _exit(127);
    }
    close(pipe_fd[1]);
    size_t len = 0;
    for (ssize_t got; len < sizeof line - 1 && (got = read(pipe_fd[0], line + len, sizeof line - 1 - len)) > 0;)
        len += (size_t)got;
    close(pipe_fd[0]);
    line[len] = 0;
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, "ok ", 3) == 0)
        daemon_pid = pid;
    else
        waitpid(pid, NULL, 0);
    return line;
}

static int rm_one(const char *p, const struct stat *st, int type, struct FTW *f)
{
    (void)st, (void)type, (void)f;
    return remove(p);
}

/* End it: signal 0 = leave it alone. Returns its wait status. */
static int stop(int sig)
{
    int status = -1;
    if (daemon_pid > 0) {
        kill(daemon_pid, sig);
        waitpid(daemon_pid, &status, 0);
    }
    daemon_pid = 0;
    return status;
}

static void set_up(void)
{
    if (access(kfsd_path(), X_OK) < 0)
        SKIP("kfsd is not built");
    stop(SIGKILL); /* of a case that failed */
    if (dir[0])
        nftw(dir, rm_one, 32, FTW_DEPTH | FTW_PHYS);
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/kfsd-test-XXXXXX", tmp && strlen(tmp) < 60 ? tmp : "/tmp");
    ASSERT(mkdtemp(dir) != NULL);
}

/* What a sanitizer, or kfsd's own crash handler, said. */
static void check_stderr(void)
{
    static char text[65536];
    const char *const files[] = {"stderr", "log"};
    for (int i = 0; i < 2; i++) {
        int fd = open(in_dir(files[i]), O_RDONLY);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = 0;
        if (strstr(text, "Sanitizer") || strstr(text, "runtime error:") || strstr(text, "kfsd: crash"))
            KT_FAIL("kfsd: %s", text);
    }
}

static void tear_down(void)
{
    check_stderr();
    stop(SIGTERM);
    check_stderr();
    nftw(dir, rm_one, 32, FTW_DEPTH | FTW_PHYS);
    dir[0] = 0;
}

static const char *start(void)
{
    const char *line = start_with(NULL, NULL);
    if (strncmp(line, "ok ", 3) != 0)
        KT_FAIL("kfsd did not start: %s", line);
    return line;
}

static const char *socket_path(void)
{
    static __thread char path[512];
    DIR *d = opendir(dir);
    path[0] = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (strlen(e->d_name) > 5 && strcmp(e->d_name + strlen(e->d_name) - 5, ".sock") == 0)
            snprintf(path, sizeof path, "%s/%.200s", dir, e->d_name);
    if (d)
        closedir(d);
    return path;
}

static int dial(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%.107s", socket_path());
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Status, or -1000 when the connection was lost. */
static int transact(struct client *c, struct call *k)
{
    char msg[sizeof(struct kfs_wire_req) + 2 * KFS_PATH_MAX + KFS_WIRE_DATA_MAX];
    k->q.magic = KFS_WIRE_MAGIC;
    k->q.version = KFS_WIRE_VERSION;
    k->q.client[0] = c->id[0];
    k->q.client[1] = c->id[1];
    if (!k->q.seq)
        k->q.seq = ++c->seq;
    k->q.path_len = (uint32_t)(k->path ? strlen(k->path) : 0);
    k->q.path2_len = (uint32_t)(k->path2 ? strlen(k->path2) : 0);
    k->q.data_len = (uint32_t)k->data_len;
    k->q.len = (uint32_t)sizeof k->q + k->q.path_len + k->q.path2_len + k->q.data_len;
    size_t n = 0;
    memcpy(msg, &k->q, sizeof k->q);
    n += sizeof k->q;
    if (k->path)
        memcpy(msg + n, k->path, k->q.path_len);
    n += k->q.path_len;
    if (k->path2)
        memcpy(msg + n, k->path2, k->q.path2_len);
    n += k->q.path2_len;
    if (k->data_len)
        memcpy(msg + n, k->data, k->data_len);
    n += k->data_len;
    k->fd = k->fd2 = -1;
    if (send(c->fd, msg, n, MSG_NOSIGNAL) != (ssize_t)n)
        return -1000;
    union {
        char buf[CMSG_SPACE(sizeof(int) * 2)];
        struct cmsghdr align;
    } control;
    struct iovec iov[2] = {{&k->rep, sizeof k->rep}, {k->out, sizeof k->out - 1}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
    if (got < (ssize_t)sizeof k->rep)
        return -1000;
    k->out[got - (ssize_t)sizeof k->rep] = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        int fds[2] = {-1, -1};
        memcpy(fds, CMSG_DATA(h), h->cmsg_len - CMSG_LEN(0));
        k->fd = fds[0];
        k->fd2 = fds[1];
    }
    return k->rep.status;
}

static int hello_to(struct client *c, const char *volume)
{
    static uint64_t next_id = 1;
    struct call k;
    memset(c, 0, sizeof *c);
    c->fd = dial();
    if (c->fd < 0)
        return -1000;
    c->id[0] = (uint64_t)getpid();
    c->id[1] = __atomic_fetch_add(&next_id, 1, __ATOMIC_RELAXED);
    k = (struct call){.q.op = KFS_OP_HELLO, .path = volume};
    int r = transact(c, &k);
    if (r == 0)
        memcpy(&c->hello, k.out, sizeof c->hello);
    c->segment_fd = k.fd;
    c->stats_fd = k.fd2;
    return r;
}

static int hello(struct client *c)
{
    return hello_to(c, NULL);
}

static void bye(struct client *c)
{
    close(c->fd);
    close(c->segment_fd);
    close(c->stats_fd);
}

static struct call last; /* of the helpers below */

static int simple(struct client *c, enum kfs_wire_op op, const char *path, uint32_t mode)
{
    last = (struct call){.q.op = (uint16_t)op, .q.ino = KFS_INO_ROOT, .q.mode = mode, .path = path};
    return transact(c, &last);
}

/* The descriptor, or -errno. */
static int k_open(struct client *c, const char *path, int flags, uint32_t mode)
{
    last = (struct call){.q.op = KFS_OP_OPEN, .q.ino = KFS_INO_ROOT, .q.mode = mode, .q.oflags = (uint32_t)flags, .path = path};
    int r = transact(c, &last);
    return r < 0 ? r : last.fd;
}

static int k_stat(struct client *c, const char *path)
{
    last = (struct call){.q.op = KFS_OP_LOOKUP, .q.ino = KFS_INO_ROOT, .q.flags = KFS_WIRE_NOFOLLOW, .path = path};
    return transact(c, &last);
}

static int k_ino(struct client *c, enum kfs_wire_op op, kfs_ino_t ino)
{
    last = (struct call){.q.op = (uint16_t)op, .q.ino = ino};
    return transact(c, &last);
}

static int k_close(struct client *c, int fd, kfs_ino_t ino)
{
    int r = k_ino(c, KFS_OP_CLOSE, ino);
    close(fd);
    return r;
}

static int k_rename(struct client *c, const char *from, const char *to, uint64_t flags)
{
    last = (struct call){.q.op = KFS_OP_RENAME, .q.ino = KFS_INO_ROOT, .q.ino2 = KFS_INO_ROOT, .q.value = flags, .path = from, .path2 = to};
    return transact(c, &last);
}

/* Write a whole file the way an application does. */
static int put(struct client *c, const char *path, const char *text)
{
    int fd = k_open(c, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return fd;
    kfs_ino_t ino = last.rep.attr.ino;
    ASSERT_EQ(write(fd, text, strlen(text)), strlen(text));
    return k_close(c, fd, ino);
}

static const char *get(struct client *c, const char *path)
{
    static char text[65536];
    int fd = k_open(c, path, O_RDONLY, 0);
    if (fd < 0) {
        snprintf(text, sizeof text, "open: %d", fd);
        return text;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static int control(struct client *c, const char *command, const char *arg)
{
    last = (struct call){.q.op = KFS_OP_CONTROL, .path = command, .path2 = arg};
    return transact(c, &last);
}

/* Poll until the status text contains `what`: 10 s at most. */
static void until_status(struct client *c, const char *what)
{
    for (int i = 0; i < 1000; i++) {
        ASSERT_EQ(control(c, "status", NULL), 0);
        if (strstr(last.out, what))
            return;
        usleep(10000);
    }
    KT_FAIL("status never said %s: %s", what, last.out);
}

#endif
