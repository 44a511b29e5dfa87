/* tests/preload/probes/arriving.c — a large file is read while it arrives: what the calls on its descriptor answer
 *
 * arriving DIR CASE: works on DIR/big, lines "%07d\n" of 0…, LINES of them, which nobody has read yet. tests/preload/arriving.sh makes it anew and cold for
 * each case. arriving list: the cases. What is printed must be as in a plain directory.
 */
#include <aio.h>
#include <stdbool.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <wchar.h>
#include "probe.h"

#define LINE 8
#define LINES 900000
#define SIZE (LINES * (long)LINE)
#pragma GCC diagnostic ignored "-Wnonnull" /* bad pointers are what is tried */
extern char **environ;
static char buf[1 << 20];

static int big(int flags)
{
    return F(open("big", O_RDONLY | flags));
}

/* Is it what the file has at `off`? */
static bool right(const char *p, size_t n, long off)
{
    char line[16];
    for (size_t i = 0; i < n; i++) {
        long at = off + (long)i;
        if (i == 0 || at % LINE == 0)
            snprintf(line, sizeof line, "%07ld\n", at / LINE % 10000000);
        if (p[i] != line[at % LINE])
            return false;
    }
    return true;
}

static void reads(const char *what, int fd, size_t n, long want_off)
{
    ssize_t r = read(fd, buf, n);
    printf("%s: read %zd %s\n", what, r, r < 0 ? strerrorname_np(errno) : right(buf, (size_t)r, want_off) ? "right" : "WRONG");
}

static void preads(int fd, size_t n, long off)
{
    ssize_t r = pread(fd, buf, n, off);
    printf("pread %zu at %ld: %zd %s\n", n, off, r, r < 0 ? strerrorname_np(errno) : right(buf, (size_t)r, off) ? "right" : "WRONG");
}

static void reads_rest(const char *what, int fd, long off)
{
    bool good = true;
    ssize_t r;
    while ((r = read(fd, buf, 100000)) > 0) {
        good = good && right(buf, (size_t)r, off);
        off += r;
    }
    printf("%s: up to %ld, %s, last %zd\n", what, off, good ? "right" : "WRONG", r);
}

CASE(loop)
{
    int fd = big(0);
    reads_rest("loop", fd, 0);
    R(close(fd));
    R(read(fd, buf, 1));
}
CASE(one_read_of_all)
{
    char *all = malloc(SIZE + 100);
    int fd = big(0);
    T(read(fd, all, SIZE + 100) == SIZE);
    T(right(all, SIZE, 0));
    R(read(fd, all, 100));
}
CASE(random_places)
{
    int fd = big(O_CLOEXEC);
    unsigned x = 7;
    for (int i = 0; i < 40; i++) {
        x = x * 1664525u + 1013904223u;
        preads(fd, 1 + x % 70000, (long)(x % SIZE));
    }
    preads(fd, 100, SIZE - 50);
    preads(fd, 100, SIZE);
    preads(fd, 100, SIZE + 5000);
    preads(fd, 0, 0);
    preads(fd, 10, -1);
    preads(fd, 10, LONG_MAX);
    R(lseek(fd, 0, SEEK_CUR));
}
CASE(vectors)
{
    int fd = big(0);
    struct iovec v[4] = {{buf, 10}, {NULL, 0}, {buf + 10, 5000}, {buf + 5010, 600000}};
    R(readv(fd, v, 4));
    T(right(buf, 605010, 0));
    R(preadv(fd, v, 4, 3000000));
    T(right(buf, 605010, 3000000));
    R(preadv2(fd, v, 4, 100, 0));
    R(preadv2(fd, v, 4, -1, 0));
    T(right(buf, 605010, 605010));
    R(lseek(fd, 0, SEEK_CUR));
    volatile int less = -1, more = 1025;
    const struct iovec *volatile nowhere = (void *)8;
    R(readv(fd, v, less));
    R(readv(fd, v, more));
    R(readv(fd, v, 0));
    R(readv(fd, nowhere, 2));
    R(preadv(fd, v, 4, -5));
    R(preadv2(fd, v, 4, 0, 0x4000));
    v[1] = (struct iovec){buf, (size_t)-1};
    R(readv(fd, v, 4));
    v[1] = (struct iovec){(void *)8, 100};
    R(preadv(fd, v, 4, 0));
    R(preadv(fd, v, 4, SIZE - 15));
}
CASE(seeking)
{
    int fd = big(0);
    R(lseek(fd, 5000000, SEEK_SET));
    reads("in the middle", fd, 1000, 5000000);
    R(lseek(fd, -500, SEEK_CUR));
    reads("back", fd, 1000, 5000500);
    R(lseek(fd, -100, SEEK_END));
    reads("end", fd, 1000, SIZE - 100);
    reads("end", fd, 1000, SIZE);
    R(lseek(fd, 100, SEEK_END));
    reads("behind", fd, 1000, SIZE + 100);
    R(lseek(fd, 0, SEEK_CUR));
    R(lseek(fd, -1, SEEK_SET));
    R(lseek(fd, -SIZE * 2, SEEK_CUR));
    R(lseek(fd, LONG_MAX, SEEK_CUR));
    R(lseek(fd, 0, 77));
    R(lseek(fd, 0, SEEK_CUR));
    R(lseek(fd, 0, SEEK_SET));
    reads("start", fd, 1000, 0);
}
CASE(data_and_holes)
{
    int fd = big(0);
    R(lseek(fd, 10, SEEK_DATA));
    R(lseek(fd, 10, SEEK_HOLE));
    R(lseek(fd, SIZE, SEEK_DATA));
    R(lseek(fd, 0, SEEK_SET));
    reads("after", fd, 1000, 0);
}
CASE(duplicates_share_the_offset)
{
    int fd = big(0), d = F(dup(fd)), e = F(fcntl(fd, F_DUPFD_CLOEXEC, 70)), f = F(dup2(fd, 90));
    reads("fd", fd, 1000, 0);
    reads("dup", d, 1000, 1000);
    reads("fcntl", e, 1000, 2000);
    reads("dup2", f, 1000, 3000);
    R(fcntl(e, F_GETFD));
    R(fcntl(f, F_GETFD));
    T(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, d, 0) != MAP_FAILED); /* this number is the genuine one now */
    reads("dup", d, 1000, 4000);
    reads("fd", fd, 1000, 5000);
    R(close(fd));
    reads("fcntl", e, 1000, 6000);
    R(lseek(f, 0, SEEK_CUR));
    R(lseek(f, 100, SEEK_SET));
    reads("dup", d, 1000, 100);
    R(fcntl(e, F_GETFD));
}
CASE(number_unknown_to_the_shim)
{
    int fd = big(0);
    R(syscall(SYS_dup3, fd, 60, 0));
    int gap = F(open("/dev/null", O_RDONLY));
    R(close(gap));
    reads("first", fd, 1000, 0);
    reads("second", 60, 1000, 1000);
    R(lseek(60, 10, SEEK_CUR));
    reads("first", fd, 1000, 2010);
}
CASE(child_shares_the_offset)
{
    int fd = big(0);
    reads("parent", fd, 1000, 0);
    CHILD("child", reads("child", fd, 500, 1000));
    reads("parent", fd, 1000, 1500);
    CHILD("child that maps", {
        T(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED);
        reads("child", fd, 500, 2500);
    });
    reads("parent", fd, 1000, 3000);
    CHILD("child that seeks", R(lseek(fd, 7000, SEEK_SET)));
    reads("parent", fd, 1000, 7000);
    T(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED);
    CHILD("child after", reads("child", fd, 500, 8000));
    R(lseek(fd, 0, SEEK_CUR));
}
CASE(parent_settles_before_its_child_reads)
{
    int fd = big(0), p[2], q[2];
    Q(pipe(p));
    Q(pipe(q));
    reads("parent", fd, 1000, 0);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        Q(read(p[0], buf, 1));
        reads("child", fd, 1000, 1500);
        T(flock(fd, LOCK_SH) == 0);
        R(lseek(fd, 0, SEEK_CUR));
        fflush(stdout);
        Q(write(q[1], "x", 1));
        _exit(0);
    }
    R(flock(fd, LOCK_SH));
    reads("parent", fd, 500, 1000);
    fflush(stdout);
    Q(write(p[1], "x", 1));
    Q(read(q[0], buf, 1));
    reads("parent", fd, 1000, 2500);
    ended("child", pid);
}
CASE(bad_buffers)
{
    int fd = big(0);
    char *edge = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    R(munmap(edge + 4096, 4096));
    R(read(fd, NULL, 100));
    char *volatile nowhere = (char *)8; /* the compiler shall not know */
    R(read(fd, nowhere, 100));
    R(lseek(fd, 0, SEEK_CUR));
    R(read(fd, edge + 4096 - 50, 100));
    T(right(edge + 4096 - 50, 50, 0));
    R(lseek(fd, 0, SEEK_CUR));
    R(pread(fd, NULL, 100, SIZE));
    char *ro = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    R(read(fd, ro, 100));
    reads("after", fd, 1000, 50);
}
CASE(flags_and_locks)
{
    int fd = big(O_CLOEXEC | O_NONBLOCK);
    printf("flags %x\n", fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_APPEND));
    R(fcntl(fd, F_GETFD));
    reads("locked", fd, 100, 0);
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    R(fcntl(fd, F_SETLK, &l));
    printf("flags %x\n", fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_APPEND));
    R(fcntl(fd, F_GETFD));
    l.l_type = F_WRLCK;
    R(fcntl(fd, F_SETLK, &l));
    l.l_type = F_UNLCK;
    R(fcntl(fd, F_SETLK, &l));
    reads("locked", fd, 100, 100);
}
CASE(record_locks_of_another_kind)
{
    int fd = big(0);
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    R(fcntl(fd, F_OFD_SETLK, &l));
    R(lockf(fd, F_TEST, 10));
    int e = big(0);
    R(flock(e, LOCK_EX | LOCK_NB));
    R(flock(fd, LOCK_SH | LOCK_NB));
}
CASE(not_for_writing)
{
    int fd = big(0);
    R(write(fd, "x", 1));
    R(pwrite(fd, "x", 1, 0));
    R(ftruncate(fd, 10));
    R(fallocate(fd, 0, 0, 10));
    T(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
    reads("after", fd, 100, 0);
}
CASE(maps)
{
    int fd = big(0);
    struct stat s;
    R(fstat(fd, &s));
    char *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
    R(close(fd));
    T(p != MAP_FAILED && right(p, (size_t)s.st_size, 0));
    fd = big(0);
    p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 4096);
    T(p != MAP_FAILED && right(p, 8192, 4096));
    p[0] = 'x';
    T(mmap(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EINVAL);
    T(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 5) == MAP_FAILED && errno == EINVAL);
    R(pwrite(F(open("copy", O_CREAT | O_WRONLY, 0644)), p + 1, 1000, 0));
    reads("after", fd, 100, 0);
}
CASE(maps_anonymous)
{
    int fd = big(0);
    char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
    T(p != MAP_FAILED);
    p[0] = 1;
    reads("after", fd, 100, 0);
}
CASE(sent_to_a_socket)
{
    int fd = big(0), s[2];
    off_t at = 4000000;
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    reads("before", fd, 1000, 0);
    R(sendfile(s[0], fd, NULL, 5000));
    R(recv(s[1], buf, 5000, MSG_WAITALL));
    T(right(buf, 5000, 1000));
    R(sendfile(s[0], fd, &at, 5000));
    R(recv(s[1], buf, 5000, MSG_WAITALL));
    T(right(buf, 5000, 4000000));
    reads("after", fd, 1000, 6000);
}
CASE(copied_in_the_kernel)
{
    int fd = big(0), to = F(open("copy", O_CREAT | O_RDWR, 0644));
    off_t at = 1000;
    reads("before", fd, 1000, 0);
    R(copy_file_range(fd, NULL, to, NULL, 50000, 0));
    R(copy_file_range(fd, &at, to, NULL, 50000, 0));
    R(pread(to, buf, 200000, 0));
    T(right(buf, 50000, 1000) && right(buf + 50000, 50000, 1000));
    reads("after", fd, 1000, 51000);
}
CASE(spliced)
{
    int fd = big(0), p[2];
    Q(pipe(p));
    R(splice(fd, NULL, p[1], NULL, 3000, 0));
    R(read(p[0], buf, 3000));
    T(right(buf, 3000, 0));
    reads("after", fd, 1000, 3000);
}
CASE(what_it_is)
{
    int fd = big(0);
    struct stat s, t;
    struct statx x;
    struct statvfs v;
    char name[64];
    show_stat("fstat", fstat(fd, &s), &s);
    T(stat("big", &t) == 0 && s.st_ino == t.st_ino && s.st_dev == t.st_dev && s.st_mtim.tv_nsec == t.st_mtim.tv_nsec && s.st_blocks == t.st_blocks);
    R(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x));
    T(x.stx_size == SIZE && x.stx_ino == s.st_ino);
    R(faccessat(fd, "", R_OK, AT_EMPTY_PATH));
    R(fstatvfs(fd, &v));
    R(isatty(fd));
    int n = -1;
    R(ioctl(fd, FIONREAD, &n));
    printf("to be read: %d\n", n);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int again = F(open(name, O_RDONLY));
    reads("again", again, 1000, 0);
    reads("first", fd, 1000, 0);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    T(access(name, R_OK) == 0);
    R(fsync(fd));
    R(fdatasync(fd));
    R(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    R(posix_fadvise(fd, 0, 100000, POSIX_FADV_WILLNEED));
    R(readahead(fd, 0, 100000));
    R(fchmod(fd, 0600));
    show_stat("fstat", fstat(fd, &s), &s);
    reads("first", fd, 1000, 1000);
}
CASE(streams)
{
    char line[32];
    int fd = big(0);
    reads("before", fd, 800, 0);
    FILE *f = fdopen(fd, "r");
    R(ftell(f));
    T(f && fgets(line, sizeof line, f) && right(line, 8, 800));
    R(fseek(f, 0, SEEK_END));
    R(ftell(f));
    R(fclose(f));
    f = fopen("big", "r");
    T(f && fgets(line, sizeof line, f) && right(line, 8, 0));
    R(fseek(f, 4000000, SEEK_SET));
    T(fgets(line, sizeof line, f) && right(line, 8, 4000000));
    R(fclose(f));
}
static const char *const stdin_ways[] = {"getchar", "fread", "fgets", "getline", "scanf", "getc_unlocked", "read", "fseek", "getwchar"};
static void stdin_way(const char *way)
{
    char line[32], *more = NULL;
    size_t cap = 0;
    if (!strcmp(way, "getchar")) {
        R(getchar());
    } else if (!strcmp(way, "fread")) {
        R(fread(buf, 1, 100000, stdin));
        T(right(buf, 100000, 0));
    } else if (!strcmp(way, "fgets")) {
        T(fgets(line, sizeof line, stdin) && right(line, 8, 0));
    } else if (!strcmp(way, "getline")) {
        R(getline(&more, &cap, stdin));
    } else if (!strcmp(way, "scanf")) {
        int n = -1, m = -1;
        R(scanf("%d %d", &n, &m));
        printf("%d %d\n", n, m);
    } else if (!strcmp(way, "getc_unlocked")) {
        R(getc_unlocked(stdin));
    } else if (!strcmp(way, "read")) {
        reads("read", 0, 1000, 0);
    } else if (!strcmp(way, "fseek")) {
        R(fseek(stdin, 100, SEEK_SET));
        R(getchar());
    } else if (!strcmp(way, "getwchar")) {
        R(getwchar());
    }
    /* The stream's buffer is a copy of some size; afterwards the descriptor stands where the stream does. */
    R(fflush(stdin));
    R(lseek(0, 0, SEEK_CUR));
}
CASE(standard_input)
{
    for (size_t i = 0; i < sizeof stdin_ways / sizeof *stdin_ways; i++) {
        int fd = open("big", O_RDONLY);
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) {
            dup2(fd, 0);
            execl(self, self, here, "@stdin", stdin_ways[i], (char *)NULL);
            _exit(9);
        }
        ended(stdin_ways[i], pid);
        R(lseek(fd, 0, SEEK_CUR)); /* what the child has read is read for us */
        close(fd);
    }
}
CASE(executed_programs)
{
    int fd = big(0);
    char n[16];
    reads("before", fd, 1000, 0);
    snprintf(n, sizeof n, "%d", fd);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        execl(self, self, here, "@reads", n, "1000", (char *)NULL);
        _exit(9);
    }
    ended("exec", pid);
    reads("between", fd, 500, 2000);
    fflush(stdout);
    pid = vfork();
    if (!pid) {
        execl(self, self, here, "@reads", n, "2500", (char *)NULL);
        _exit(9);
    }
    ended("vfork, exec", pid);
    posix_spawn_file_actions_t a;
    posix_spawn_file_actions_init(&a);
    posix_spawn_file_actions_adddup2(&a, fd, 55);
    char *argv[] = {self, here, "@reads", "55", "3500", NULL};
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fflush(stdout);
    R(posix_spawn(&pid, self, &a, NULL, argv, environ));
    ended("spawn", pid);
    posix_spawn_file_actions_destroy(&a);
    char text[PATH_MAX + 100];
    snprintf(text, sizeof text, "head -c 8 <&%s", n);
    fcntl(fd, F_SETFD, 0);
    R(system(text));
    reads("after", fd, 500, 4508);
}
CASE(passed_on)
{
    int fd = big(0), s[2];
    Q(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    reads("sender", fd, 1000, 0);
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } ctl = {0};
    struct iovec v = {"x", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof ctl};
    ctl.align = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&ctl.align), &fd, sizeof fd);
    R(sendmsg(s[0], &m, 0));
    CHILD("receiver", {
        char c;
        int got;
        struct iovec w = {&c, 1};
        m.msg_iov = &w;
        R(recvmsg(s[1], &m, 0));
        memcpy(&got, CMSG_DATA(&ctl.align), sizeof got);
        reads("receiver", got, 1000, 1000);
    });
    reads("sender", fd, 1000, 2000);
}
CASE(asynchronous)
{
    int fd = big(0);
    struct aiocb a = {.aio_fildes = fd, .aio_buf = buf, .aio_nbytes = 5000, .aio_offset = 3000000}, b = a;
    const struct aiocb *list[] = {&a};
    R(aio_read(&a));
    while (aio_error(&a) == EINPROGRESS)
        aio_suspend(list, 1, NULL);
    R(aio_return(&a));
    T(right(buf, 5000, 3000000));
    fd = big(0);
    b.aio_fildes = fd;
    b.aio_lio_opcode = LIO_READ;
    struct aiocb *more[] = {&b};
    R(lio_listio(LIO_WAIT, more, 1, NULL));
    R(aio_return(&b));
    T(right(buf, 5000, 3000000));
}
static volatile sig_atomic_t alarms;
static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
}
CASE(signals_do_not_shorten_reads)
{
    struct sigaction act = {.sa_handler = on_alarm};
    struct itimerval t = {{0, 5000}, {0, 5000}};
    char *all = malloc(SIZE);
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &t, NULL);
    int fd = big(0);
    T(read(fd, all, SIZE) == SIZE);
    T(right(all, SIZE, 0));
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
}
static int shared = -1;
static long sum_of(const char *p, size_t n)
{
    long s = 0;
    for (size_t i = 0; i < n; i++)
        s += (unsigned char)p[i];
    return s;
}
static void *sequential(void *arg)
{
    char *p = malloc(50000);
    long *ret = arg;
    for (ssize_t n; (n = read(shared, p, 50000)) > 0;) {
        ret[0] += n;
        ret[1] += sum_of(p, (size_t)n);
    }
    free(p);
    return NULL;
}
static void *everywhere(void *arg)
{
    char *p = malloc(30000);
    unsigned x = (unsigned)*(long *)arg;
    long *ret = arg;
    ret[0] = 1;
    for (int i = 0; i < 60; i++) {
        x = x * 1664525u + 1013904223u;
        long off = x % (SIZE - 30000);
        if (pread(shared, p, 30000, off) != 30000 || !right(p, 30000, off))
            ret[0] = 0;
    }
    free(p);
    return NULL;
}
CASE(threads_read_every_byte_once)
{
    pthread_t t[6];
    long got[6][2] = {{0}}, n = 0, s = 0, want = 0;
    shared = big(0);
    for (int i = 0; i < 6; i++)
        pthread_create(&t[i], NULL, sequential, got[i]);
    for (int i = 0; i < 6; i++) {
        pthread_join(t[i], NULL);
        n += got[i][0];
        s += got[i][1];
    }
    printf("%ld bytes\n", n);
    lseek(shared, 0, SEEK_SET);
    for (ssize_t r; (r = read(shared, buf, sizeof buf)) > 0;)
        want += sum_of(buf, (size_t)r);
    T(s == want);
}
CASE(threads_read_everywhere)
{
    pthread_t t[12];
    long arg[12];
    shared = big(0);
    for (int i = 0; i < 12; i++) {
        arg[i] = i + 1;
        pthread_create(&t[i], NULL, everywhere, &arg[i]);
    }
    for (int i = 0; i < 12; i++) {
        pthread_join(t[i], NULL);
        printf("thread %d: %s\n", i, arg[i] ? "right" : "WRONG");
    }
}
CASE(one_thread_settles_while_others_read)
{
    pthread_t t[4];
    long got[4][2] = {{0}}, n = 0;
    shared = big(0);
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, sequential, got[i]);
    T(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, shared, 0) != MAP_FAILED);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        n += got[i][0];
    }
    printf("%ld bytes\n", n);
}
CASE(processes_read_every_byte_once)
{
    int fd = big(0), p[2];
    Q(pipe(p));
    fflush(stdout);
    pid_t pid[4];
    for (int i = 0; i < 4; i++)
        if (!(pid[i] = fork())) {
            long got[2] = {0};
            shared = fd;
            if (i == 2)
                Q(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED);
            sequential(got);
            Q(write(p[1], got, sizeof got));
            _exit(0);
        }
    long n = 0, got[2];
    for (int i = 0; i < 4; i++) {
        Q(read(p[0], got, sizeof got));
        n += got[0];
        ended("reader", pid[i]);
    }
    printf("%ld bytes\n", n);
    R(lseek(fd, 0, SEEK_CUR));
}
CASE(removed_while_open)
{
    int fd = big(0);
    struct stat s;
    reads("before", fd, 1000, 0);
    R(unlink("big"));
    reads("after", fd, 1000, 1000);
    show_stat("fstat", fstat(fd, &s), &s);
    reads_rest("the rest", fd, 2000);
}
CASE(replaced_while_open)
{
    int fd = big(0);
    reads("before", fd, 1000, 0);
    put("new", "new content\n");
    R(rename("new", "big"));
    cat("big");
    reads_rest("the rest", fd, 1000);
}
CASE(written_by_somebody)
{
    int fd = big(0), w;
    reads("before", fd, 1000, 0);
    w = F(open("big", O_WRONLY));
    R(pwrite(w, "NEW", 3, 1500));
    R(pread(fd, buf, 8, 1498));
    show_bytes(buf, 8);
    R(pwrite(w, "at the end", 10, SIZE));
    R(lseek(fd, -5, SEEK_END));
    R(read(fd, buf, 100));
    show_bytes(buf, 5);
    struct stat s;
    show_stat("fstat", fstat(fd, &s), &s);
    R(close(w));
    R(lseek(fd, 0, SEEK_CUR));
}
CASE(cut_off_by_somebody)
{
    int fd = big(0);
    reads("before", fd, 1000, 0);
    R(truncate("big", 1200));
    reads("after", fd, 1000, 1000);
    reads("at the end", fd, 1000, 1200);
    struct stat s;
    show_stat("fstat", fstat(fd, &s), &s);
}
CASE(numbers_used_again)
{
    int fd = big(0), other;
    reads("before", fd, 1000, 0);
    put("small", "small file");
    R(close(fd));
    other = F(open("small", O_RDONLY));
    R(read(other, buf, 100));
    fd = big(0);
    R(dup2(other, fd));
    R(lseek(fd, 0, SEEK_SET));
    R(read(fd, buf, 100));
    int third = big(0);
    R(syscall(SYS_dup3, other, third, 0));
    R(lseek(third, 0, SEEK_SET));
    R(read(third, buf, 100));
    R(close_range((unsigned)third, (unsigned)third, 0));
    R(read(third, buf, 100));
}
CASE(many_at_once)
{
    int fds[200];
    bool good = true;
    for (int i = 0; i < 200; i++)
        good = (fds[i] = open("big", O_RDONLY)) >= 0 && good;
    for (int i = 0; i < 200; i++)
        good = pread(fds[i], buf, 1000, i * 30000L) == 1000 && right(buf, 1000, i * 30000L) && good;
    T(good);
    for (int i = 0; i < 200; i++)
        close(fds[i]);
}
CASE(by_the_system_call)
{
    int fd = big(0);
    R(syscall(SYS_read, fd, buf, 1000));
    T(right(buf, 1000, 0));
    R(syscall(SYS_pread64, fd, buf, 1000, 5000L));
    T(right(buf, 1000, 5000));
    R(syscall(SYS_lseek, fd, 10L, SEEK_CUR));
    T(syscall(SYS_mmap, NULL, 4096L, PROT_READ, MAP_PRIVATE, fd, 0L) > 0);
    R(syscall(SYS_read, fd, buf, 1000));
    T(right(buf, 1000, 1010));
}

/* Not cases: what a case executes. */
static int helper(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[2], "@stdin")) {
        stdin_way(argv[3]);
        return 0;
    }
    if (argc == 5 && !strcmp(argv[2], "@reads")) {
        reads("executed", atoi(argv[3]), 1000, atol(argv[4]));
        return 0;
    }
    return 2;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (const struct probe_case *c = probe_first; c; c = c->next)
            puts(c->name);
        return 0;
    }
    if (argc < 3 || !realpath("/proc/self/exe", self) || chdir(argv[1]) || !getcwd(here, sizeof here))
        return 2;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (argv[2][0] == '@')
        return helper(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    for (const struct probe_case *c = probe_first; c; c = c->next)
        if (!strcmp(c->name, argv[2])) {
            alarm(100);
            c->run();
            return 0;
        }
    return 2;
}
