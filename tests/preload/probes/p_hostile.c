/* tests/preload/probes/p_hostile.c — what no honest program does: bad pointers, impossible names and numbers, descriptors pulled away */
#include "tests/preload/probes/probe.h"
#pragma GCC diagnostic ignored "-Wnonnull"
#pragma GCC diagnostic ignored "-Wcast-function-type"
#pragma GCC diagnostic ignored "-Wformat-truncation"
#pragma GCC diagnostic ignored "-Wstringop-overread"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#include <pthread.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <stdbool.h>
#include <sys/uio.h>
#include <sys/xattr.h>

/* --- pointers ------------------------------------------------------------------------------------------------------------- */
static char *hole;         /* a page that cannot be read */
static char *const low = (char *)8, *const odd = (char *)0x0123456789abcdef, *const high = (char *)-4096;

/* A path that begins in a good page and goes on in the hole. */
static char *half(const char *text)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = strlen(text);
    char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(p + page, page, PROT_NONE);
    return memcpy(p + page - n, text, n);
}

static void holes(void)
{
    hole = mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void paths_at(const char *what, char *p)
{
    struct stat s;
    struct statvfs v;
    char b[16];
    printf("%s\n", what);
    F(open(p, O_RDONLY));
    F(open(p, O_CREAT | O_RDWR, 0644));
    F(openat(AT_FDCWD, p, O_RDONLY));
    F(creat(p, 0644));
    R(stat(p, &s));
    R(lstat(p, &s));
    R(fstatat(AT_FDCWD, p, &s, 0));
    R(statvfs(p, &v));
    R(access(p, F_OK));
    R(mkdir(p, 0755));
    R(rmdir(p));
    R(unlink(p));
    R(rename(p, "x"));
    R(rename("here", p));
    R(link("here", p));
    R(link(p, "x"));
    R(symlink(p, "x"));
    R(symlink("x", p));
    R(readlink(p, b, sizeof b));
    R(chmod(p, 0644));
    R(chown(p, 0, 0));
    R(lchown(p, 0, 0));
    R(truncate(p, 0));
    R(utimensat(AT_FDCWD, p, NULL, 0));
    R(mkfifo(p, 0644));
    R(chdir(p));
    R(getxattr(p, "user.a", b, sizeof b));
    R(setxattr(p, "user.a", "v", 1, 0));
    R(setxattr("here", p, "v", 1, 0));
    R(listxattr(p, b, sizeof b));
    N(fopen(p, "r"));
    R(execv(p, (char *[]){(char[]){"x"}, NULL}));
    R(execvp("true", (char **)p));
    R(execve("/bin/true", (char *[]){p, NULL}, NULL));
    R(execve("/bin/true", (char *[]){(char[]){"x"}, NULL}, (char **)p));
}

CASE(unreadable_paths)
{
    holes();
    put("here", "x");
    paths_at("an unmapped page", hole);
    paths_at("the middle of an unmapped page", hole + 77);
    paths_at("a low address", low);
    paths_at("no address at all", odd);
    paths_at("the kernel's half", high);
    cat("here");
    ls(".");
}

CASE(paths_that_end_in_a_hole)
{
    holes();
    put("here", "x");
    char text[PATH_MAX];
    snprintf(text, sizeof text, "%s/here", here);
    paths_at("a whole name of ours", half(text));
    snprintf(text, sizeof text, "%s/", here);
    paths_at("a directory of ours", half(text));
    paths_at("one letter", half("x"));
    paths_at("dots", half("../../.."));
    paths_at("a host path", half("/usr/bin/"));
    cat("here");
}

CASE(good_paths_at_the_end_of_a_page)
{
    char text[PATH_MAX];
    struct stat s;
    put("here", "x");
    int n = snprintf(text, sizeof text, "%s/here", here);
    char *p = half("");
    p = memcpy(p - n - 1, text, (size_t)n + 1);
    R(stat(p, &s));
    R(stat(p + n - 4, &s));
    R(stat(p + n, &s));
    F(open(p, O_RDONLY));
}

/* Where calls put their results, and what they read besides names. */
static void results_at(const char *what, char *p)
{
    char path[PATH_MAX];
    struct timespec t[2] = {{1, 0}, {2, 0}};
    printf("%s\n", what);
    snprintf(path, sizeof path, "%s/here", here);
    R(stat(path, (struct stat *)p));
    R(lstat(path, (struct stat *)p));
    R(lstat("link", (struct stat *)p));
    R(fstatat(AT_FDCWD, path, (struct stat *)p, 0));
    R(statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, (struct statx *)p));
    R(readlink("link", p, 100));
    R(readlinkat(AT_FDCWD, "link", p, 100));
    R(utimensat(AT_FDCWD, path, (struct timespec *)p, 0));
    R(utimensat(AT_FDCWD, path, t, 0));
    R(getxattr(path, "user.a", p, 100));
    R(listxattr(path, p, 100));
    R(setxattr(path, "user.b", p, 10, 0));
    int fd = open(path, O_RDWR);
    R(fstat(fd, (struct stat *)p));
    R(fgetxattr(fd, "user.a", p, 100));
    R(futimens(fd, (struct timespec *)p));
    R(read(fd, p, 10));
    R(write(fd, p, 10));
    R(pread(fd, p, 10, 0));
    R(readv(fd, (struct iovec *)p, 1));
    close(fd);
    fd = open(here, O_RDONLY | O_DIRECTORY);
    R(fstat(fd, (struct stat *)p));
    R(syscall(SYS_getdents64, fd, p, 1000));
    R(syscall(SYS_getcwd, p, 1000));
    close(fd);
}

CASE(unwritable_results)
{
    holes();
    put("here", "content");
    Q(symlink("here", "link"));
    Q(setxattr("here", "user.a", "value", 5, 0));
    struct stat s;
    Q(stat("here", &s));
    Q(lstat("link", &s));
    results_at("an unmapped page", hole);
    results_at("a low address", low);
    results_at("no address at all", odd);
    results_at("a page that ends", half("1234567"));
    cat("here");
}

/* A program's own handler goes on seeing its own faults. */
static volatile sig_atomic_t own_faults;
static void *volatile own_at;
static void own_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    own_faults += sig;
    own_at = info->si_addr;
    mprotect(hole, 4096, PROT_READ | PROT_WRITE);
}
CASE(own_fault_handler)
{
    struct sigaction a = {.sa_sigaction = own_fault, .sa_flags = SA_SIGINFO}, old, now;
    struct stat s;
    holes();
    R(sigaction(SIGSEGV, NULL, &old));
    T(old.sa_handler == SIG_DFL);
    R(sigaction(SIGSEGV, &a, &old));
    T(old.sa_handler == SIG_DFL);
    R(sigaction(SIGSEGV, NULL, &now));
    T(now.sa_sigaction == own_fault);
    R(stat(hole, &s));
    T(own_faults == 0);
    *(volatile char *)hole = 1;
    T(own_faults == SIGSEGV);
    T(own_at == hole);
    T(signal(SIGSEGV, SIG_DFL) == (void (*)(int))own_fault);
    T(signal(SIGSEGV, SIG_DFL) == SIG_DFL);
    R(stat(hole + 8192, &s));
}
CASE(own_faults_kill)
{
    holes();
    struct stat s;
    CHILD("reading", R(stat(hole, &s)); fflush(stdout); *(volatile char *)hole);
    CHILD("raised", raise(SIGSEGV));
    CHILD("sent", kill(getpid(), SIGSEGV); pause());
    CHILD("bus error sent", raise(SIGBUS));
    CHILD("ignored", signal(SIGSEGV, SIG_IGN); R(raise(SIGSEGV)); T(signal(SIGSEGV, SIG_DFL) == SIG_IGN));
    CHILD("a result into a mapped file that ends", {
        int fd = open("short", O_RDWR | O_CREAT, 0644);
        char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        R(stat(".", (struct stat *)p));
        R(stat(p, &s));
    });
}

/* --- names ------------------------------------------------------------------------------------------------------------------ */
static char *chain(char *buf, const char *part, size_t len, const char *end)
{
    size_t k = strlen(part), n = 0;
    while (n + k + strlen(end) <= len) {
        memcpy(buf + n, part, k);
        n += k;
    }
    strcpy(buf + n, end);
    return buf;
}

static bool slash_at_end(const char *p)
{
    return *p && p[strlen(p) - 1] == '/';
}

static void name_in_all(const char *what, const char *p)
{
    struct stat s;
    char b[16];
    printf("%s\n", what);
#define A(call)                                                                                    \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long a_ = (long)(call);                                                                    \
        probe_result(#call, a_, errno);                                                            \
    } while (0)
    A(stat(p, &s));
    A(lstat(p, &s));
    A(open(p, O_RDONLY) < 0 ? -1 : 0);
    if (!slash_at_end(p))
        A(open(p, O_RDONLY | O_CREAT, 0644) < 0 ? -1 : 0);
    A(access(p, F_OK));
    A(mkdir(p, 0755));
    A(rmdir(p));
    A(unlink(p));
    A(rename("here", p));
    A(rename(p, "there"));
    A(link("here", p));
    A(symlink("x", p));
    A(readlink(p, b, sizeof b));
    A(truncate(p, 1));
    A(chmod(p, 0600));
    A(chdir(p));
    A(opendir(p) ? 0 : -1);
    A(getxattr(p, "user.a", b, sizeof b));
    Q(chdir(here));
}

CASE(long_names)
{
    char b[3 * PATH_MAX], name[300];
    put("here", "x");
    memset(name, 'n', 256);
    name[256] = 0;
    name_in_all("256 bytes", name);
    snprintf(b, sizeof b, "%s/%s", here, name);
    name_in_all("256 bytes, absolute", b);
    snprintf(b, sizeof b, "%s/", name);
    name_in_all("256 bytes and a slash", b);
    snprintf(b, sizeof b, "%s/../here", name);
    name_in_all("256 bytes and back", b);
    name[255] = 0;
    name_in_all("255 bytes", name);
    Q(rename("there", "here"));
    name_in_all("4097 bytes of one name", chain(b, "x", 4097, ""));
    name_in_all("4096 bytes", chain(b, "./", 4096, ""));
    name_in_all("4097 bytes", chain(b, "./", 4097, "/"));
    name_in_all("4095 bytes", chain(b, "./", 4091, "here"));
    name_in_all("12000 bytes of slashes", chain(b, "/", 12000, "here"));
    ls(".");
}

CASE(dots_without_end)
{
    char b[PATH_MAX];
    struct stat s;
    put("here", "x");
    Q(mkdir("d", 0755));
    R(stat(chain(b, "../", 3000, "here"), &s));
    R(stat(chain(b, "../", 4095, ""), &s));
    R(stat(chain(b, "d/../", 4000, "here"), &s));
    R(stat(chain(b, "d/./../", 4000, "here"), &s));
    R(stat(chain(b, "no/../", 4000, "here"), &s));
    R(stat(chain(b, "here/../", 4000, "here"), &s));
    snprintf(b, sizeof b, "%s/d/../../%s/here", here, strrchr(here, '/') + 1);
    R(stat(b, &s));
    R(stat(chain(b, "../", 3000, "etc/passwd"), &s));
    F(open(chain(b, "../", 3000, "usr"), O_RDONLY));
    F(open("/..//../.././usr/../usr", O_RDONLY));
}

CASE(symlinks_without_end)
{
    char a[32], b[PATH_MAX];
    struct stat s;
    Q(symlink("self", "self"));
    Q(symlink("two", "one"));
    Q(symlink("one", "two"));
    Q(symlink("grow/x", "grow"));
    snprintf(b, sizeof b, "%s/abs", here);
    Q(symlink(b, "abs"));
    put("l0", "end");
    for (int i = 1; i <= 41; i++) {
        snprintf(a, sizeof a, "l%d", i);
        snprintf(b, sizeof b, "l%d", i - 1);
        Q(symlink(b, a));
    }
    for (int i = 0; i < 2; i++) { /* the second time from what is known */
        R(stat("self", &s));
        R(stat("self/x", &s));
        R(stat("one", &s));
        R(stat("grow", &s));
        R(stat("abs", &s));
        F(open("abs", O_RDONLY | O_CREAT, 0644));
        R(lstat("self", &s));
        R(stat("l40", &s));
        R(stat("l41", &s));
        F(open("l40", O_RDONLY));
        F(open("l41", O_RDONLY));
        R(chdir("self"));
        R(truncate("one", 0));
        N(realpath("self", NULL));
        N(realpath("l41", NULL));
    }
}

/* --- numbers ------------------------------------------------------------------------------------------------------------------ */
CASE(negative_sizes)
{
    char b[64];
    put("here", "content");
    int fd = open("here", O_RDWR);
    R(truncate("here", -1));
    R(ftruncate(fd, -1));
    R(truncate("here", LONG_MIN));
    R(posix_fallocate(fd, 0, -1));
    R(fallocate(fd, 0, -1, 10));
    R(fallocate(fd, 0, 0, 0));
    R(pread(fd, b, 10, -1));
    R(pwrite(fd, "x", 1, -1));
    R(lseek(fd, -1, SEEK_SET));
    R(lseek(fd, 0, 77));
    R(read(fd, b, (size_t)-1) < 0 ? -1 : 0);
    R(readv(fd, &(struct iovec){b, (size_t)-1}, 1));
    R(readv(fd, &(struct iovec){b, 1}, -1));
    R(readlink("here", b, 0));
    Q(symlink("x", "link"));
    R(readlink("link", b, 0));
    R(readlink("link", b, 1));
    R(readlinkat(AT_FDCWD, "link", b, (size_t)-1 >> 1));
    R(getxattr("here", "user.none", b, (size_t)-1));
    R(setxattr("here", "user.a", "v", 70000, 0));
    R(setxattr("here", "user.a", "v", (size_t)-1, 0));
    R(setxattr("here", "user.a", "v", 1, 77));
    R(setxattr("here", "", "v", 1, 0));
    R(utimensat(AT_FDCWD, "here", (struct timespec[2]){{0, -5}, {0, 0}}, 0));
    R(utimensat(AT_FDCWD, "here", (struct timespec[2]){{0, 1000000000}, {0, 0}}, 0));
    N(getcwd(b, 1));
    R(syscall(SYS_getdents64, fd, b, 64));
    int d = open(here, O_RDONLY | O_DIRECTORY);
    R(syscall(SYS_getdents64, d, b, 3));
    R(syscall(SYS_getdents64, d, b, -1) < 0 ? -1 : 0);
    R(renameat2(AT_FDCWD, "here", AT_FDCWD, "x", 0xffff));
    R(unlinkat(AT_FDCWD, "here", 0xffff));
    R(fstatat(AT_FDCWD, "here", &(struct stat){0}, 0xf000000));
    R(linkat(AT_FDCWD, "here", AT_FDCWD, "y", 0xf000000));
    R(faccessat(AT_FDCWD, "here", 0xff, 0));
    R(mknod("n", 0170000, 0));
    cat("here");
    ls(".");
}

CASE(forged_descriptors)
{
    struct stat s;
    char b[16];
    static const int fds[] = {-1, -2, -100, -101, 777, 1023, 1 << 20, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        int fd = fds[i];
        printf("%d\n", fd);
        R(fstat(fd, &s));
        R(read(fd, b, 1));
        R(write(fd, b, 1));
        R(lseek(fd, 0, SEEK_SET));
        R(fsync(fd));
        R(ftruncate(fd, 0));
        R(fchmod(fd, 0600));
        R(fchdir(fd));
        R(fchown(fd, 0, 0));
        R(futimens(fd, NULL));
        R(fgetxattr(fd, "user.a", b, 1));
        F(dup(fd));
        R(fcntl(fd, F_GETFD));
        if (fd != AT_FDCWD) {
            F(openat(fd, "x", O_RDONLY));
            R(fstatat(fd, "x", &s, 0));
            R(mkdirat(fd, "x", 0755));
            R(unlinkat(fd, "x", 0));
            R(renameat(fd, "x", AT_FDCWD, "y"));
        }
        N(fdopendir(fd));
        R(close(fd));
    }
    T(fstatat(777, here, &s, 0) == 0);
}

/* --- descriptors pulled away ------------------------------------------------------------------------------------------------------ */
static void still_works(const char *name)
{
    struct stat s;
    put(name, name);
    cat(name);
    R(stat(name, &s));
    R(rename(name, "moved"));
    R(unlink("moved"));
    ls(".");
}

CASE(all_descriptors_closed)
{
    put("here", "x");
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    still_works("a");
    for (int fd = 3; fd < 1024; fd++)
        syscall(SYS_close, fd);
    still_works("b");
    R(close_range(3, ~0U, 0));
    still_works("c");
    R(syscall(SYS_close_range, 3, ~0U, 0));
    still_works("d");
    closefrom(3);
    still_works("e");
}

CASE(numbers_used_again)
{
    struct stat s;
    char b[16] = "";
    put("one", "1");
    put("two", "two");
    int fd = open("one", O_RDWR);
    syscall(SYS_close, fd);
    int host = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR);
    T(host == fd);
    R(fstat(fd, &s));
    T(S_ISCHR(s.st_mode));
    R(write(fd, "lost", 4));
    R(fsync(fd) < 0 ? -1 : 0);
    syscall(SYS_close, fd);
    F(open("two", O_RDONLY));
    R(fstat(fd, &s));
    T(s.st_size == 3);
    R(read(fd, b, 10));
    int pipes[2];
    R(pipe(pipes));
    syscall(SYS_dup3, pipes[0], fd, 0);
    R(fstat(fd, &s));
    T(S_ISFIFO(s.st_mode));
    R(fchmod(fd, 0600));
    int d = open(here, O_RDONLY | O_DIRECTORY);
    syscall(SYS_dup3, pipes[0], d, 0);
    F(openat(d, "one", O_RDONLY));
    R(fstatat(d, "one", &s, 0));
    R(mkdirat(d, "x", 0755));
    N(fdopendir(d));
    ls(".");
    cat("one");
}

CASE(everything_replaced)
{
    struct stat s;
    int null = open("/dev/null", O_RDWR), sockets[2];
    put("here", "x");
    Q(!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
    for (int fd = 3; fd < 1024; fd++)
        if (fd != null && fd != sockets[0])
            dup2(null, fd);
    for (int i = 0; i < 3; i++)
        R(stat("here", &s));
    cat("here");
    F(open("new", O_WRONLY | O_CREAT, 0644));
    for (int fd = 10; fd < 1024; fd++) /* sockets, as ours are */
        if (fd != sockets[0])
            syscall(SYS_dup3, sockets[0], fd, 0);
    close(3);
    close(4);
    close(5);
    cat("here");
    R(rename("here", "there"));
    ls(".");
}

/* --- threads ------------------------------------------------------------------------------------------------------------------------ */
static volatile bool over;
static void *closer(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    while (!over) {
        int fd = 3 + rand_r(&seed) % 30;
        if (seed & 64)
            syscall(SYS_close, fd);
        else
            close(fd);
    }
    return NULL;
}
static void *worker(void *arg)
{
    char name[32], b[8];
    struct stat s;
    snprintf(name, sizeof name, "f%d", (int)(uintptr_t)arg);
    for (int i = 0; i < 400; i++) {
        int fd = open(name, O_RDWR | O_CREAT, 0644);
        Q(write(fd, "text", 4));
        fstat(fd, &s);
        Q(read(fd, b, sizeof b));
        stat(name, &s);
        close(fd);
        int d = open(".", O_RDONLY);
        fstatat(d, name, &s, 0);
        close(d);
        DIR *dir = i % 8 ? NULL : opendir(".");
        while (dir && readdir(dir))
            ;
        if (dir)
            closedir(dir);
    }
    return NULL;
}
CASE(closed_under_way)
{
    pthread_t t[5];
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, worker, (void *)(i + 1));
    pthread_create(&t[3], NULL, closer, (void *)11);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    over = true;
    pthread_join(t[3], NULL);
    syscall(SYS_close_range, 3, ~0U, 0);
    still_works("after");
}

PROBE_MAIN
