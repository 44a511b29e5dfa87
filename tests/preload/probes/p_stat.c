/* tests/preload/probes/p_stat.c — the stat family and path spellings */
#include "probe.h"
#include <dlfcn.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

static void lay(void)
{
    put("file", "0123456789");
    Q(chmod("file", 0640));
    Q(mkdir("dir", 0750));
    put("dir/in", "x");
    Q(mkdir("dir/sub", 0755));
    Q(symlink("file", "link"));
    Q(symlink("dir", "dlink"));
    Q(symlink("absent", "broken"));
}
static const char *const names[] = {"file", "dir", "link", "dlink", "broken", "none", "file/", "dir/", "link/", "dlink/", "broken/", "dir/in", "dlink/in", "./file", ".//file", "././/dir///in",
                                    "dir/../file", "dir/sub/../in", "dir/sub/../../file", "dlink/../file", "file/..", "file/.", "none/..", "none/../file", "dir/.", "dir/..", ".", "..", "../", "./", "dir//", "dir/sub/..", ""};

CASE(spellings)
{
    lay();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat s;
        char what[64];
        int r = stat(names[i], &s);
        snprintf(what, sizeof what, "stat '%s'", names[i]);
        show_stat(what, r, &s);
        r = lstat(names[i], &s);
        snprintf(what, sizeof what, "lstat '%s'", names[i]);
        show_stat(what, r, &s);
        printf("access '%s' %d\n", names[i], access(names[i], F_OK) ? errno : 0);
        /* The same absolutely, with every slash doubled, and from a directory's descriptor. */
        char p[PATH_MAX * 2 + 64];
        snprintf(p, sizeof p, "%s/%s", here, names[i]);
        printf("  absolute %d", stat(p, &s) ? errno : 0);
        char q[sizeof p * 2];
        size_t n = 0;
        for (const char *c = p; *c; c++) {
            q[n++] = *c;
            if (*c == '/')
                q[n++] = '/';
        }
        q[n] = 0;
        printf(" doubled %d", stat(q, &s) ? errno : 0);
        snprintf(p, sizeof p, "/..%s/./%s", here, names[i]);
        printf(" dotted %d", stat(p, &s) ? errno : 0);
        snprintf(p, sizeof p, "/usr/..%s/%s", here, names[i]);
        printf(" by /usr/.. %d\n", stat(p, &s) ? errno : 0);
    }
}
CASE(old_symbols)
{
    lay();
    static const char *const syms[] = {"__xstat", "__lxstat", "__xstat64", "__lxstat64"};
    for (size_t i = 0; i < 4; i++) {
        int (*f)(int, const char *, struct stat *) = (int (*)(int, const char *, struct stat *))dlsym(RTLD_DEFAULT, syms[i]);
        if (!f)
            continue;
        struct stat s;
        int r = f(1, "link", &s);
        show_stat(syms[i], r, &s);
        r = f(1, "none", &s);
        show_stat(syms[i], r, &s);
    }
    int (*fx)(int, int, struct stat *) = (int (*)(int, int, struct stat *))dlsym(RTLD_DEFAULT, "__fxstat");
    int (*fxat)(int, int, const char *, struct stat *, int) = (int (*)(int, int, const char *, struct stat *, int))dlsym(RTLD_DEFAULT, "__fxstatat");
    struct stat s;
    int fd = open("file", O_RDONLY);
    if (fx) {
        int r = fx(1, fd, &s);
        show_stat("__fxstat", r, &s);
    }
    if (fxat) {
        int r = fxat(1, AT_FDCWD, "link", &s, AT_SYMLINK_NOFOLLOW);
        show_stat("__fxstatat", r, &s);
    }
    struct stat64 s64;
    R(stat64("file", &s64));
    R(lstat64("link", &s64));
    T(S_ISLNK(s64.st_mode));
    R(fstat64(fd, &s64));
    R(fstatat64(AT_FDCWD, "dir", &s64, 0));
    T(S_ISDIR(s64.st_mode));
}
static void show_statx(const char *what, int r, const struct statx *x)
{
    if (r) {
        printf("%s: %s\n", what, strerrorname_np(errno));
        return;
    }
    printf("%s: mode %o links %u owner %u:%u size %llu basic %d\n", what, x->stx_mode, x->stx_nlink, x->stx_uid, x->stx_gid,
           S_ISDIR(x->stx_mode) ? 0ULL : (unsigned long long)x->stx_size, (x->stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
}
CASE(statx_calls)
{
    lay();
    struct statx x;
    struct stat s;
    int r = statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &x);
    show_statx("file", r, &x);
    Q(stat("file", &s));
    T(x.stx_ino == s.st_ino && makedev(x.stx_dev_major, x.stx_dev_minor) == s.st_dev);
    T(x.stx_mtime.tv_sec == s.st_mtim.tv_sec && x.stx_mtime.tv_nsec == (uint32_t)s.st_mtim.tv_nsec);
    r = statx(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, STATX_ALL, &x);
    show_statx("link", r, &x);
    r = statx(AT_FDCWD, "none", 0, STATX_ALL, &x);
    show_statx("none", r, &x);
    int d = open("dir", O_RDONLY);
    r = statx(d, "in", AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &x);
    show_statx("in", r, &x);
    r = statx(d, "", AT_EMPTY_PATH, STATX_ALL, &x);
    show_statx("dirfd", r, &x);
    r = statx(d, "", 0, STATX_ALL, &x);
    show_statx("empty", r, &x);
    r = statx(9999, "in", 0, STATX_ALL, &x);
    show_statx("bad fd", r, &x);
    int f = open("file", O_RDONLY);
    r = statx(f, "", AT_EMPTY_PATH, STATX_ALL, &x);
    show_statx("fd", r, &x);
    r = (int)syscall(SYS_statx, AT_FDCWD, "file", 0, STATX_ALL, &x);
    show_statx("by number", r, &x);
}
CASE(long_names)
{
    char n[300], p[PATH_MAX + 300];
    memset(n, 'a', sizeof n);
    n[255] = 0;
    struct stat s;
    put(n, "255");
    R(stat(n, &s));
    cat(n);
    R(mkdir(n, 0700));
    R(unlink(n));
    R(mkdir(n, 0700));
    snprintf(p, sizeof p, "%s/%s", n, n);
    put(p, "deep");
    R(lstat(p, &s));
    R(unlink(p));
    R(rmdir(n));
    n[255] = 'a';
    n[256] = 0;
    R(stat(n, &s));
    R(mkdir(n, 0700));
    F(open(n, O_CREAT | O_WRONLY, 0600));
    R(symlink("x", n));
    R(unlink(n));
    put("f", "");
    R(rename("f", n));
    R(link("f", n));
    R(access(n, F_OK));
    R(chmod(n, 0600));
    N(opendir(n));
    R(truncate(n, 0));
    /* PATH_MAX: 4095 bytes and the NUL are allowed, one more is not. */
    size_t base = 0;
    for (base = 0; base < 4095; base += 2)
        memcpy(p + base, "./", 2);
    memcpy(p + 4095 - 1, "f", 2);
    printf("length %zu\n", strlen(p));
    R(stat(p, &s));
    memcpy(p + 4095, "f", 2);
    printf("length %zu\n", strlen(p));
    R(stat(p, &s));
    F(open(p, O_RDONLY));
    R(unlink(p));
    R(rename(p, "g"));
    R(rename("f", p));
    memset(p, '/', 4096);
    p[4096] = 0;
    R(stat(p, &s));
    p[4095] = 0;
    R(stat(p, &s));
    char long_target[4200];
    memset(long_target, 't', sizeof long_target);
    for (int i = 100; i < 4200; i += 100)
        long_target[i] = '/';
    long_target[4095] = 0;
    R(symlink(long_target, "l4095"));
    R(lstat("l4095", &s));
    printf("size %lld\n", (long long)s.st_size);
    char back[5000];
    R(readlink("l4095", back, sizeof back));
    long_target[4095] = 't';
    long_target[4096] = 0;
    R(symlink(long_target, "l4096"));
    R(symlink("", "lempty"));
}
CASE(deep_tree)
{
    /* Deeper than PATH_MAX by steps of chdir. */
    char n[202];
    memset(n, 'd', 200);
    n[200] = 0;
    int depth = 0;
    for (; depth < 25; depth++)
        if (mkdir(n, 0755) || chdir(n)) {
            printf("at %d: %s\n", depth, strerrorname_np(errno));
            break;
        }
    put("bottom", "of the sea");
    cat("bottom");
    char cwd[8192];
    char *c = getcwd(cwd, sizeof cwd);
    T(!c || strlen(cwd) > 5000); /* too long for a system call: the whole, or an error */
    Q(unlink("bottom"));
    for (; depth > 0; depth--)
        if (chdir("..") || rmdir(n)) {
            printf("up at %d: %s\n", depth, strerrorname_np(errno));
            break;
        }
    ls(".");
}
CASE(loops)
{
    char a[16], b[16];
    put("s0", "end");
    for (int i = 1; i <= 45; i++) {
        snprintf(a, sizeof a, "s%d", i - 1);
        snprintf(b, sizeof b, "s%d", i);
        Q(symlink(a, b));
    }
    struct stat s;
    R(stat("s39", &s));
    R(stat("s40", &s));
    R(stat("s41", &s));
    R(lstat("s45", &s));
    Q(symlink("x", "y"));
    Q(symlink("y", "x"));
    R(stat("x", &s));
    R(lstat("x", &s));
    R(stat("x/z", &s));
    F(open("x", O_RDONLY));
    F(open("x", O_CREAT | O_RDWR, 0600));
    R(chmod("x", 0600));
    R(unlink("x"));
    Q(symlink(".", "dot"));
    R(stat("dot/dot/dot/dot/s0", &s));
    R(mkdir("y/z", 0700));
}
CASE(bad_pointers)
{
    struct stat s;
    put("f", "abc");
    char *volatile bad = (char *)8;
    R(syscall(SYS_faccessat, AT_FDCWD, bad, F_OK));
    R(stat(bad, &s));
    F(open(bad, O_RDONLY));
    R(access(bad, F_OK));
    R(unlink(bad));
    R(mkdir(bad, 0700));
    R(rename("f", bad));
    R(rename(bad, "f"));
    R(chdir(bad));
    char *volatile nil = NULL;
    F(open(nil, O_RDONLY));
    R(symlink(bad, "x"));
    R(link(bad, "x"));
    R(link("f", bad));
    N(opendir(bad));
    N(fopen(bad, "r"));
    int fd = open("f", O_RDONLY);
    R(read(fd, bad, 3));
    cat("f");
}
/* In the kernel's half, and no address at all. */
CASE(far_pointers)
{
    struct stat s;
    put("f", "abc");
    char *volatile far[] = {(char *)UINTPTR_MAX, (char *)(UINTPTR_MAX << 40), (char *)0x4141414141414141};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        char *bad = far[i];
        R(stat(bad, &s));
        R(fstatat(AT_FDCWD, bad, &s, 0));
        F(open(bad, O_RDONLY));
        R(access(bad, F_OK));
        R(chmod(bad, 0600));
        R(chown(bad, 0, 0));
        R(truncate(bad, 0));
        R(unlink(bad));
        R(rmdir(bad));
        R(mkdir(bad, 0700));
        R(mkfifo(bad, 0600));
        R(rename("f", bad));
        R(rename(bad, "f"));
        R(chdir(bad));
        R(symlink(bad, "x"));
        R(symlink("x", bad));
        R(link(bad, "x"));
        R(link("f", bad));
    }
    ls(".");
}
CASE(odd_names)
{
    const char *const odd[] = {"\xff\xfe", "a\nb", "tab\there", " ", "  lead", "trail ", "quote\"s", "back\\slash", "*?[", "-rf", "~", "...", "\x01\x7f", "\xc3\xa9t\xc3\xa9", "e\xcc\x81", ".hidden", "a:b", "%s%n"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        put(odd[i], odd[i]);
        struct stat s;
        int r = stat(odd[i], &s);
        show_bytes(odd[i], (ssize_t)strlen(odd[i]));
        show_stat("  ", r, &s);
    }
    DIR *d = opendir(".");
    struct dirent *e;
    char *got[64];
    size_t n = 0;
    while ((e = readdir(d)))
        got[n++] = strdup(e->d_name);
    closedir(d);
    qsort(got, n, sizeof *got, probe_by_name);
    for (size_t i = 0; i < n; i++)
        show_bytes(got[i], (ssize_t)strlen(got[i]));
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        R(unlink(odd[i]));
    ls(".");
    /* Case matters. */
    put("Case", "upper");
    put("case", "lower");
    cat("Case");
    cat("case");
}
CASE(times)
{
    struct stat a, b;
    put("f", "abc");
    Q(stat("f", &a));
    T(a.st_mtim.tv_sec > 1600000000);
    /* A write moves mtime and ctime, a chmod only ctime, a new name in a directory the directory's. */
    struct timespec old[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
    R(utimensat(AT_FDCWD, "f", old, 0));
    Q(stat("f", &b));
    printf("atime %lld.%09ld mtime %lld.%09ld\n", (long long)b.st_atim.tv_sec, b.st_atim.tv_nsec, (long long)b.st_mtim.tv_sec, b.st_mtim.tv_nsec);
    Q(chmod("f", 0600));
    Q(stat("f", &b));
    T(b.st_mtim.tv_sec == 1100000000 && b.st_mtim.tv_nsec == 987654321);
    T(b.st_ctim.tv_sec > 1600000000);
    int fd = open("f", O_WRONLY | O_APPEND);
    Q(write(fd, "d", 1));
    close(fd);
    Q(stat("f", &b));
    T(b.st_mtim.tv_sec > 1600000000);
    R(utimensat(AT_FDCWD, "f", old, 0));
    fd = open("f", O_WRONLY);
    close(fd);
    Q(stat("f", &b));
    T(b.st_mtim.tv_sec == 1100000000 && b.st_mtim.tv_nsec == 987654321);
    fd = open("f", O_RDWR);
    Q(fstat(fd, &b));
    T(b.st_mtim.tv_sec == 1100000000 && b.st_mtim.tv_nsec == 987654321);
    struct timespec t2[2] = {{5, 6}, {7, 8}};
    R(futimens(fd, t2));
    Q(fstat(fd, &b));
    printf("atime %lld.%09ld mtime %lld.%09ld\n", (long long)b.st_atim.tv_sec, b.st_atim.tv_nsec, (long long)b.st_mtim.tv_sec, b.st_mtim.tv_nsec);
    close(fd);
    Q(stat("f", &b));
    printf("after close mtime %lld.%09ld\n", (long long)b.st_mtim.tv_sec, b.st_mtim.tv_nsec);
    fd = open("f", O_RDWR | O_TRUNC);
    close(fd);
    Q(stat("f", &b));
    T(b.st_mtim.tv_sec > 1600000000 && b.st_size == 0);
    Q(mkdir("d", 0755));
    R(utimensat(AT_FDCWD, "d", old, 0));
    put("d/x", "");
    Q(stat("d", &b));
    T(b.st_mtim.tv_sec > 1600000000);
    R(utimensat(AT_FDCWD, "d", old, 0));
    Q(unlink("d/x"));
    Q(stat("d", &b));
    T(b.st_mtim.tv_sec > 1600000000);
}
CASE(statvfs_calls)
{
    struct statvfs v;
    struct statfs f;
    put("f", "x");
    R(statvfs("f", &v));
    T(v.f_bsize > 0 && v.f_frsize > 0 && v.f_blocks > 0 && v.f_namemax == 255);
    T(v.f_bfree <= v.f_blocks);
    R(statfs(".", &f));
    T(f.f_bsize > 0 && f.f_blocks > 0 && f.f_namelen == 255);
    int fd = open("f", O_RDONLY), d = open(".", O_RDONLY);
    R(fstatvfs(fd, &v));
    T(v.f_namemax == 255);
    R(fstatfs(d, &f));
    R(statvfs("none", &v));
    R(statfs("f/x", &f));
    R(pathconf(".", _PC_NAME_MAX));
    R(pathconf("none", _PC_NAME_MAX));
    R(fpathconf(fd, _PC_NAME_MAX));
    R(pathconf("f", _PC_PATH_MAX));
}
CASE(sparse_blocks)
{
    int fd = F(open("s", O_CREAT | O_RDWR, 0600));
    R(pwrite(fd, "end", 3, 3LL << 30));
    R(close(fd));
    struct stat s;
    R(stat("s", &s));
    printf("size %lld\n", (long long)s.st_size);
    T(s.st_blocks < 4096);
    T(s.st_blksize >= 512);
    put("data", "some content here");
    fd = open("data", O_RDWR);
    for (int i = 0; i < 64; i++)
        Q(write(fd, here, 1000));
    fsync(fd);
    close(fd);
    R(stat("data", &s));
    T(s.st_blocks >= 100);
    fd = open("s", O_RDONLY);
    char b[4] = "";
    R(pread(fd, b, 3, 3LL << 30));
    printf("%s\n", b);
    R(pread(fd, b, 3, 1LL << 30));
    T(b[0] == 0 && b[1] == 0 && b[2] == 0);
}
PROBE_MAIN
