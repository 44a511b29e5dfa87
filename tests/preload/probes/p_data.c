/* tests/preload/probes/p_data.c — content: sizes, holes, mappings, copies, offsets, locks */
#include "probe.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

static long long size_of(const char *p)
{
    struct stat s;
    return stat(p, &s) ? -errno : (long long)s.st_size;
}
CASE(truncate_calls)
{
    put("f", "0123456789");
    R(truncate("f", 4));
    cat("f");
    R(truncate("f", 8));
    cat("f");
    R(truncate("f", -1));
    R(truncate("none", 1));
    Q(mkdir("d", 0755));
    R(truncate("d", 1));
    R(truncate("f/", 1));
    Q(symlink("f", "l"));
    R(truncate("l", 2));
    cat("f");
    R(truncate64("f", 3));
    int fd = open("f", O_RDWR), r = open("f", O_RDONLY), d = open("d", O_RDONLY);
    R(ftruncate(fd, 6));
    printf("%lld\n", size_of("f"));
    catfd(r);
    R(ftruncate(r, 1));
    R(ftruncate(d, 1));
    R(ftruncate(fd, -1));
    R(ftruncate(fd, 1LL << 40));
    printf("%lld\n", size_of("f"));
    R(ftruncate(fd, 0));
    R(truncate("f", 5));
    catfd(r);
    close(fd);
    catfd(r);
    printf("%lld\n", size_of("f"));
}
CASE(fallocate_and_holes)
{
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    R(posix_fallocate(fd, 0, 100000));
    printf("%lld\n", size_of("f"));
    R(fallocate(fd, 0, 100000, 1000));
    R(fallocate(fd, FALLOC_FL_KEEP_SIZE, 200000, 1000));
    printf("%lld\n", size_of("f"));
    char b[8192];
    memset(b, 'x', sizeof b);
    R(pwrite(fd, b, sizeof b, 0));
    R(pwrite(fd, b, sizeof b, 65536));
    R(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
    R(pread(fd, b, 8192, 0));
    T(b[0] == 'x' && b[4095] == 'x' && b[4096] == 0 && b[8191] == 0);
    R(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    R(readahead(fd, 0, 4096));
    R(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
    R(close(fd));
    fd = open("f", O_RDONLY);
    R(pread(fd, b, 8192, 0));
    T(b[0] == 'x' && b[4095] == 'x' && b[4096] == 0 && b[8191] == 0);
    close(fd);
    fd = open("s", O_CREAT | O_RDWR, 0644);
    R(ftruncate(fd, 4 << 20));
    memset(b, 'y', sizeof b);
    R(pwrite(fd, b, 4096, 1 << 20));
    R(lseek(fd, 0, SEEK_DATA));
    R(lseek(fd, 0, SEEK_HOLE));
    R(lseek(fd, 1 << 20, SEEK_HOLE));
    R(lseek(fd, 2 << 20, SEEK_DATA));
    R(close(fd));
    fd = open("s", O_RDONLY);
    R(lseek(fd, 0, SEEK_DATA));
    R(lseek(fd, 1 << 20, SEEK_HOLE));
    R(lseek(fd, 2 << 20, SEEK_DATA));
    R(lseek(fd, 5 << 20, SEEK_DATA));
    R(lseek(fd, -1, SEEK_SET));
    R(lseek(fd, 0, 77));
}
CASE(mappings)
{
    char b[16];
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    R(ftruncate(fd, 8192));
    char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    T(m != MAP_FAILED);
    strcpy(m, "by the mapping");
    R(pread(fd, b, 14, 0));
    show_bytes(b, 14);
    R(pwrite(fd, "BY", 2, 0));
    show_bytes(m, 14);
    R(msync(m, 8192, MS_SYNC));
    R(close(fd));
    strcpy(m + 4096, "after close");
    R(msync(m, 8192, MS_SYNC));
    R(munmap(m, 8192));
    fd = open("f", O_RDONLY);
    R(pread(fd, b, 12, 4096));
    show_bytes(b, 11);
    m = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
    T(m != MAP_FAILED);
    show_bytes(m, 14);
    T(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    T(p != MAP_FAILED);
    strcpy(p, "private");
    show_bytes(m, 14);
    R(pread(fd, b, 14, 0));
    show_bytes(b, 14);
    int w = open("f", O_RDWR);
    R(pwrite(w, "shared", 6, 0));
    show_bytes(m, 14);
    close(w);
    show_bytes(m, 14);
    close(fd);
    CHILD("child", show_bytes(m, 14); show_bytes(p, 7));
    fd = open("f", O_RDWR);
    char *s = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    CHILD("child writes", strcpy(s, "the child's"));
    show_bytes(s, 11);
    munmap(s, 8192);
    cat("f") /* the first 512 bytes */;
    munmap(m, 8192);
    munmap(p, 8192);
    int d = open(".", O_RDONLY);
    T(mmap(NULL, 4096, PROT_READ, MAP_SHARED, d, 0) == MAP_FAILED && errno == ENODEV);
}
CASE(copies)
{
    char b[64];
    put("a", "0123456789abcdef");
    int in = open("a", O_RDWR), out = open("b", O_CREAT | O_RDWR, 0644);
    off_t off = 4;
    R(sendfile(out, in, &off, 6));
    printf("%lld\n", (long long)off);
    R(sendfile(out, in, NULL, 100));
    R(sendfile(out, in, NULL, 100));
    cat("b");
    loff_t i = 0, o = 2;
    R(copy_file_range(in, &i, out, &o, 5, 0));
    cat("b");
    int pipes[2];
    Q(pipe(pipes));
    i = 1;
    R(splice(in, &i, pipes[1], NULL, 7, 0));
    R(read(pipes[0], b, sizeof b));
    show_bytes(b, 7);
    R(write(pipes[1], "from a pipe", 11));
    o = 20;
    R(splice(pipes[0], NULL, out, &o, 11, 0));
    cat("b");
    struct iovec v[2] = {{b, 3}, {b + 10, 3}};
    R(lseek(in, 0, SEEK_SET));
    R(readv(in, v, 2));
    show_bytes(b, 3);
    show_bytes(b + 10, 3);
    R(writev(out, v, 2));
    R(preadv(in, v, 2, 10));
    R(pwritev(out, v, 2, 40));
    R(preadv2(in, v, 2, -1, 0));
    R(pwritev2(out, v, 2, 50, RWF_DSYNC));
    cat("b");
    /* A host file on one side. */
    FILE *host = tmpfile();
    off = 0;
    R(sendfile(fileno(host), in, &off, 16));
    Q(lseek(fileno(host), 0, SEEK_SET));
    off = 0;
    R(lseek(out, 0, SEEK_SET));
    R(sendfile(out, fileno(host), &off, 16));
    cat("b");
    R(fsync(out));
    R(fdatasync(out));
    R(syncfs(out));
    R(close(out));
    R(close(in));
    cat("b");
}
CASE(shared_offsets)
{
    char b[16];
    put("f", "abcdefghij");
    int a = open("f", O_RDWR), c = dup(a), other = open("f", O_RDONLY);
    R(read(a, b, 2));
    R(read(c, b, 2));
    show_bytes(b, 2);
    R(read(other, b, 2));
    show_bytes(b, 2);
    CHILD("child reads", char x[4]; R(read(a, x, 2)); show_bytes(x, 2));
    R(read(a, b, 2));
    show_bytes(b, 2);
    int h = dup2(a, 100);
    R(h);
    R(lseek(100, 0, SEEK_CUR));
    R(dup3(a, 101, O_CLOEXEC));
    R(fcntl(101, F_GETFD));
    R(fcntl(100, F_GETFD));
    R(dup2(9999, 50));
    R(dup2(a, a) == a ? 0 : -1);
    R(dup3(a, a, 0));
    R(fcntl(a, F_DUPFD, 120));
    R(fcntl(a, F_DUPFD_CLOEXEC, 120));
    R(fcntl(121, F_GETFD));
    R(close(a));
    R(read(120, b, 2));
    show_bytes(b, 2);
    /* dup2 over one of ours, and of ours over a host descriptor */
    int host = open("/etc/passwd", O_RDONLY), mine = open("f", O_RDONLY);
    struct stat s1, s2;
    Q(fstat(mine, &s1));
    R(dup2(mine, host) == host ? 0 : -1);
    R(fstat(host, &s2));
    T(s1.st_ino == s2.st_ino && s1.st_dev == s2.st_dev);
    int host2 = open("/etc/passwd", O_RDONLY);
    R(dup2(host2, mine) == mine ? 0 : -1);
    R(fstat(mine, &s2));
    T(s1.st_ino != s2.st_ino || s1.st_dev != s2.st_dev);
    R(close_range(100, ~0U, 0));
    R(fcntl(120, F_GETFD));
    T(fcntl(other, F_GETFD) >= 0);
    R(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC));
    T(fcntl(other, F_GETFD) == FD_CLOEXEC);
    closefrom(3);
    R(fcntl(other, F_GETFD));
    cat("f");
    int n = open("f", O_RDONLY);
    T(n == 3);
    put("g", "after closefrom");
    cat("g");
}
CASE(writers_closed_by_others)
{
    /* Descriptors that end by dup2, close_range, exit and exec: content is there after. */
    int fd = open("a", O_CREAT | O_WRONLY, 0644);
    Q(write(fd, "by dup2", 7));
    Q(dup2(0, fd));
    cat("a");
    fd = open("b", O_CREAT | O_WRONLY, 0644);
    Q(write(fd, "by close_range", 14));
    Q(close_range((unsigned)fd, (unsigned)fd, 0));
    cat("b");
    CHILD("exit", fd = open("c", O_CREAT | O_WRONLY, 0644); Q(write(fd, "by exit", 7)));
    cat("c");
    CHILD("exec", fd = open("d", O_CREAT | O_WRONLY | O_CLOEXEC, 0644); Q(write(fd, "by exec", 7)); execl("/bin/true", "true", NULL));
    cat("d");
    CHILD("kill", fd = open("e", O_CREAT | O_WRONLY, 0644); Q(write(fd, "by kill", 7)); kill(getpid(), SIGKILL));
    cat("e");
    fd = open("g", O_CREAT | O_WRONLY, 0644);
    Q(write(fd, "raw close", 9));
    syscall(SYS_close, fd);
    cat("g");
    FILE *f = fopen("h", "w");
    fputs("by fclose", f);
    fclose(f);
    cat("h");
}
CASE(append_by_two)
{
    fflush(stdout);
    pid_t p[2];
    for (int w = 0; w < 2; w++) {
        p[w] = fork();
        if (!p[w]) {
            int fd = open("log", O_CREAT | O_WRONLY | O_APPEND, 0644);
            for (int i = 0; i < 500; i++) {
                char line[32];
                int n = snprintf(line, sizeof line, "%d %04d\n", w, i);
                Q(write(fd, line, (size_t)n));
                if (i % 50 == 0) {
                    close(fd);
                    fd = open("log", O_WRONLY | O_APPEND);
                }
            }
            close(fd);
            _exit(0);
        }
    }
    ended("first", p[0]);
    ended("second", p[1]);
    FILE *f = fopen("log", "r");
    char line[64];
    int next[2] = {0, 0}, wrong = 0, w, i;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%d %d", &w, &i) != 2 || w < 0 || w > 1 || i != next[w]++)
            wrong++;
    printf("%d %d wrong %d size %lld\n", next[0], next[1], wrong, size_of("log"));
}
CASE(exclusive_creators)
{
    /* Of many creators of a name exactly one wins. */
    fflush(stdout);
    for (int round = 0; round < 10; round++) {
        char n[16];
        snprintf(n, sizeof n, "lock%d", round);
        pid_t p[4];
        for (int i = 0; i < 4; i++) {
            p[i] = fork();
            if (!p[i])
                _exit(open(n, O_CREAT | O_EXCL | O_WRONLY, 0600) >= 0);
        }
        int won = 0;
        for (int i = 0; i < 4; i++) {
            int s;
            waitpid(p[i], &s, 0);
            won += WEXITSTATUS(s);
        }
        printf("%d won\n", won);
    }
}
CASE(locks)
{
    put("f", "0123456789");
    int fd = open("f", O_RDWR);
    R(flock(fd, LOCK_EX));
    CHILD("other flock", int g = open("f", O_RDWR); R(flock(g, LOCK_EX | LOCK_NB)); R(flock(g, LOCK_SH | LOCK_NB)));
    R(flock(fd, LOCK_SH));
    CHILD("other shared", int g = open("f", O_RDONLY); R(flock(g, LOCK_SH | LOCK_NB)); R(flock(g, LOCK_EX | LOCK_NB)));
    R(flock(fd, LOCK_UN));
    CHILD("free", int g = open("f", O_RDONLY); R(flock(g, LOCK_EX | LOCK_NB)));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
    R(fcntl(fd, F_SETLK, &l));
    CHILD("record lock", int g = open("f", O_RDWR); struct flock m = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0}; R(fcntl(g, F_SETLK, &m));
          R(fcntl(g, F_GETLK, &m)); printf("type %d start %lld len %lld\n", m.l_type, (long long)m.l_start, (long long)m.l_len); T(m.l_pid == getppid());
          m = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 0}; R(fcntl(g, F_SETLK, &m)));
    R(lockf(fd, F_ULOCK, 0));
    l.l_type = F_UNLCK;
    R(fcntl(fd, F_SETLK, &l));
    struct flock o = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    R(fcntl(fd, F_OFD_SETLK, &o));
    CHILD("open file description lock", int g = open("f", O_RDWR); struct flock m = {.l_type = F_RDLCK, .l_whence = SEEK_SET}; R(fcntl(g, F_OFD_SETLK, &m)); R(fcntl(g, F_SETLK, &m)));
    int ro = open("f", O_RDONLY);
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
    R(fcntl(ro, F_SETLK, &l));
    int d = open(".", O_RDONLY);
    R(flock(d, LOCK_EX));
    CHILD("directory", int g = open(".", O_RDONLY); R(flock(g, LOCK_EX | LOCK_NB) == 0 || errno == EWOULDBLOCK ? 0 : -1));
    /* A lock is waited for and handed over. */
    Q(flock(fd, LOCK_UN));
    o.l_type = F_UNLCK;
    Q(fcntl(fd, F_OFD_SETLK, &o));
    int go[2];
    Q(pipe(go));
    fflush(stdout);
    pid_t p = fork();
    if (!p) {
        int g = open("f", O_RDWR);
        Q(flock(g, LOCK_EX));
        Q(write(go[1], "x", 1));
        Q(pwrite(g, "child", 5, 0));
        _exit(0);
    }
    char c;
    Q(read(go[0], &c, 1));
    R(flock(fd, LOCK_EX));
    cat("f");
    ended("holder", p);
}
CASE(poll_and_select)
{
    put("f", "x");
    int fd = open("f", O_RDWR);
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    R(poll(&p, 1, 0));
    printf("%x\n", (unsigned)p.revents);
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(fd, &r);
    FD_SET(fd, &w);
    R(select(fd + 1, &r, &w, NULL, NULL));
    int e = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN};
    R(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev));
    R(isatty(fd));
    int fl = fcntl(fd, F_GETFL);
    R(fcntl(fd, F_SETFL, fl | O_APPEND));
    R(write(fd, "y", 1));
    cat("f");
    R(lseek(fd, 0, SEEK_SET));
    R(write(fd, "z", 1));
    cat("f");
    int v = 0;
    R(ioctl(fd, FIONREAD, &v));
}
CASE(large_content)
{
    /* Across frames and chunks: overwrite in the middle, compare after close. */
    enum { MB = 1 << 20 };
    char *buf = malloc(MB);
    int fd = open("big", O_CREAT | O_RDWR, 0644);
    for (int i = 0; i < 9; i++) {
        for (int k = 0; k < MB; k++)
            buf[k] = (char)(i * 31 + k * 7 + (k >> 8));
        if (write(fd, buf, MB) != MB)
            puts(strerrorname_np(errno));
    }
    R(close(fd));
    fd = open("big", O_RDWR);
    R(pwrite(fd, "middle", 6, 4 * MB + 12345));
    R(pwrite(fd, "border", 6, 3 * MB - 3));
    R(pwrite(fd, "far", 3, 12 * MB));
    R(ftruncate(fd, 12 * MB + 2));
    R(close(fd));
    fd = open("big", O_RDONLY);
    uint64_t h = 1469598103934665603u;
    ssize_t n;
    while ((n = read(fd, buf, MB)) > 0)
        for (ssize_t k = 0; k < n; k++)
            h = (h ^ (unsigned char)buf[k]) * 1099511628211u;
    printf("%016llx %lld\n", (unsigned long long)h, size_of("big"));
    R(truncate("big", 5 * MB));
    close(fd);
    fd = open("big", O_RDWR | O_APPEND);
    R(write(fd, "tail", 4));
    R(close(fd));
    fd = open("big", O_RDONLY);
    R(pread(fd, buf, 10, 5 * MB - 2));
    show_bytes(buf, 10);
    /* Far out, past 64 MiB borders and 3 GiB. */
    int s = open("sparse", O_CREAT | O_RDWR, 0644);
    const long long at[] = {0, 64LL * MB - 2, 128LL * MB, 1024LL * MB + 5, 3072LL * MB};
    for (size_t i = 0; i < 5; i++)
        R(pwrite(s, "island", 6, at[i]));
    R(close(s));
    s = open("sparse", O_RDONLY);
    for (size_t i = 0; i < 5; i++) {
        R(pread(s, buf, 8, at[i]));
        show_bytes(buf, 6);
    }
    printf("%lld\n", size_of("sparse"));
    R(lseek(s, 70LL * MB, SEEK_DATA));
}
CASE(small_sizes)
{
    /* Around the inline limit and block sizes, rewritten to smaller and larger. */
    const int sizes[] = {0, 1, 511, 4095, 4096, 4097, 5000, 65536, 100, 4096, 0, 4097, 4095};
    char *b = malloc(70000);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(b, 'a' + (int)i, 70000);
        int fd = open("f", O_CREAT | O_TRUNC | O_RDWR, 0644);
        if (write(fd, b, (size_t)sizes[i]) != sizes[i])
            puts("short");
        close(fd);
        fd = open("f", O_RDONLY);
        memset(b, 0, 70000);
        ssize_t n = read(fd, b, 70000);
        int same = 1;
        for (ssize_t k = 0; k < n; k++)
            same &= b[k] == 'a' + (int)i;
        printf("%d: %zd %d %lld\n", sizes[i], n, same, size_of("f"));
        close(fd);
    }
}
PROBE_MAIN
