/* tests/preload/probes/p_open.c — open(2) and its relatives */
#include "probe.h"

static const struct {
    int flag;
    const char *name;
} extra[] = {{0, ""},
             {O_CREAT, "|CREAT"},
             {O_CREAT | O_EXCL, "|CREAT|EXCL"},
             {O_TRUNC, "|TRUNC"},
             {O_CREAT | O_TRUNC, "|CREAT|TRUNC"},
             {O_APPEND, "|APPEND"},
             {O_DIRECTORY, "|DIRECTORY"},
             {O_NOFOLLOW, "|NOFOLLOW"},
             {O_CREAT | O_NOFOLLOW, "|CREAT|NOFOLLOW"},
             {O_DIRECTORY | O_NOFOLLOW, "|DIRECTORY|NOFOLLOW"},
             {O_PATH, "|PATH"},
             {O_PATH | O_NOFOLLOW, "|PATH|NOFOLLOW"},
             {O_PATH | O_DIRECTORY, "|PATH|DIRECTORY"},
             {O_CLOEXEC | O_NONBLOCK, "|CLOEXEC|NONBLOCK"}};
static const char *const targets[] = {"missing", "file", "dir", "to-file", "to-dir", "dangling", "loop", "file/", "dir/", "missing/", "file/x", "dir/x", "no/x", "to-dir/x", "dir/.", "dir/..", ""};

static void lay(void)
{
    put("file", "0123456789");
    Q(mkdir("dir", 0755));
    Q(symlink("file", "to-file"));
    Q(symlink("dir", "to-dir"));
    Q(symlink("absent", "dangling"));
    Q(symlink("loop", "loop"));
}
static void unlay(void)
{
    const char *const names[] = {"missing", "file", "to-file", "to-dir", "dangling", "loop", "absent", "dir/x"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(names[i]);
    rmdir("dir");
}
static void matrix(int acc, const char *acc_name)
{
    for (size_t e = 0; e < sizeof extra / sizeof *extra; e++)
        for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
            lay();
            int fd = open(targets[t], acc | extra[e].flag, 0640);
            int err = errno;
            printf("open(%s, %s%s) = ", targets[t], acc_name, extra[e].name);
            if (fd < 0) {
                printf("%s\n", strerrorname_np(err));
            } else {
                struct stat s;
                fstat(fd, &s);
                int fl = fcntl(fd, F_GETFL);
                printf("ok mode %o size %lld fl %x cloexec %d", s.st_mode, S_ISDIR(s.st_mode) ? 0LL : (long long)s.st_size,
                       fl & (S_ISDIR(s.st_mode) ? O_PATH : O_ACCMODE | O_APPEND | O_NONBLOCK | O_PATH), fcntl(fd, F_GETFD));
                if (S_ISREG(s.st_mode) && !(fl & O_PATH)) {
                    char b[4];
                    printf(" write %zd", write(fd, "ab", 2));
                    printf(" read %zd", pread(fd, b, 4, 0));
                }
                printf(" close %d\n", close(fd));
            }
            unlay();
        }
}
CASE(matrix_rdonly) { matrix(O_RDONLY, "RDONLY"); }
CASE(matrix_wronly) { matrix(O_WRONLY, "WRONLY"); }
CASE(matrix_rdwr) { matrix(O_RDWR, "RDWR"); }

CASE(modes_and_umask)
{
    const int modes[] = {0, 0777, 0666, 0644, 0600, 0400, 0200, 04755, 02755, 01777, 07777};
    const int masks[] = {0, 022, 077, 0777};
    for (size_t m = 0; m < sizeof masks / sizeof *masks; m++)
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
            char name[64];
            umask((mode_t)masks[m]);
            snprintf(name, sizeof name, "f-%03o-%04o", masks[m], modes[i]);
            int fd = open(name, O_CREAT | O_WRONLY | O_EXCL, modes[i]);
            if (fd >= 0) /* the creator may write whatever the mode says */
                printf("write %zd ", write(fd, "x", 1));
            close(fd);
            st(name);
            name[0] = 'd';
            mkdir(name, (mode_t)modes[i]);
            st(name);
        }
    umask(022);
}
CASE(creat_and_open64)
{
    int fd = F(creat("a", 0604));
    R(write(fd, "abc", 3));
    R(close(fd));
    st("a");
    fd = F(creat("a", 0777));
    R(close(fd));
    st("a");
    fd = F(open64("b", O_CREAT | O_RDWR, 0600));
    R(close(fd));
    fd = F(creat64("c", 0600));
    R(close(fd));
    fd = F(openat64(AT_FDCWD, "d", O_CREAT | O_RDWR, 0600));
    R(close(fd));
    ls(".");
}
CASE(excl_on_symlinks)
{
    Q(symlink("target", "l"));
    F(open("l", O_CREAT | O_EXCL | O_WRONLY, 0600));
    int fd = F(open("l", O_CREAT | O_WRONLY, 0600));
    R(write(fd, "1", 1));
    close(fd);
    st("target");
    F(open("l", O_CREAT | O_EXCL | O_WRONLY, 0600));
    F(open("l", O_RDONLY | O_NOFOLLOW));
}
CASE(tmpfile_flag)
{
    Q(mkdir("d", 0755));
    int fd = F(open("d", O_TMPFILE | O_RDWR, 0640));
    if (fd < 0)
        return;
    struct stat s;
    R(fstat(fd, &s));
    T(s.st_nlink == 0);
    printf("mode %o\n", s.st_mode);
    R(write(fd, "temporary", 9));
    ls("d");
    char p[64];
    snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
    R(linkat(AT_FDCWD, p, AT_FDCWD, "d/named", AT_SYMLINK_FOLLOW));
    R(close(fd));
    st("d/named");
    cat("d/named");
    F(open("d", O_TMPFILE | O_RDONLY, 0640));
    F(open("d/named", O_TMPFILE | O_RDWR, 0640));
    F(open("none", O_TMPFILE | O_RDWR, 0640));
    ls("d");
}
CASE(o_path)
{
    put("f", "content");
    Q(mkdir("d", 0755));
    put("d/g", "inner");
    char b[8];
    int fd = F(open("f", O_PATH));
    R(read(fd, b, 8));
    R(write(fd, "x", 1));
    struct stat s;
    show_stat("fstat", fstat(fd, &s), &s);
    R(fchmod(fd, 0600));
    R(ftruncate(fd, 0));
    R(close(fd));
    int dfd = F(open("d", O_PATH | O_DIRECTORY));
    fd = F(openat(dfd, "g", O_RDONLY));
    catfd(fd);
    R(close(fd));
    R(fstatat(dfd, "g", &s, 0));
    R(fchdir(dfd));
    cat("g");
    R(close(dfd));
    Q(chdir(here));
    Q(symlink("f", "l"));
    fd = F(open("l", O_PATH | O_NOFOLLOW));
    show_stat("fstat of the link", fstat(fd, &s), &s);
    memset(b, 0, sizeof b);
    R(readlinkat(fd, "", b, sizeof b));
    show_bytes(b, 1);
    R(fstatat(fd, "", &s, AT_EMPTY_PATH));
    T(S_ISLNK(s.st_mode));
    R(read(fd, b, 1));
    F(openat(fd, "x", O_RDONLY));
    R(fchdir(fd));
    R(fchownat(fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH));
    R(close(fd));
}
CASE(at_calls)
{
    Q(mkdir("d", 0755));
    Q(mkdir("d/e", 0755));
    int d = F(open("d", O_RDONLY | O_DIRECTORY)), e = F(openat(d, "e", O_RDONLY | O_DIRECTORY));
    int f = F(openat(e, "f", O_CREAT | O_RDWR, 0600));
    R(write(f, "deep", 4));
    R(close(f));
    f = F(openat(d, "e/f", O_RDONLY));
    catfd(f);
    R(close(f));
    f = F(openat(e, "../e/f", O_RDONLY));
    R(close(f));
    f = F(openat(e, "../../d/e/f", O_RDONLY));
    R(close(f));
    char abs[PATH_MAX + 16];
    snprintf(abs, sizeof abs, "%s/d/e/f", here);
    f = F(openat(-1, abs, O_RDONLY));
    R(close(f));
    F(openat(-1, "f", O_RDONLY));
    F(openat(9999, "f", O_RDONLY));
    int file = F(open("d/e/f", O_RDONLY));
    F(openat(file, "x", O_RDONLY));
    F(openat(file, "", O_RDONLY));
    struct stat s;
    R(fstatat(file, "", &s, AT_EMPTY_PATH));
    T(S_ISREG(s.st_mode));
    R(fstatat(d, "", &s, AT_EMPTY_PATH));
    R(fstatat(d, "", &s, 0));
    R(fstatat(AT_FDCWD, "", &s, AT_EMPTY_PATH));
    R(fstatat(d, "e", &s, 0x40000000));
    /* The descriptor still leads to the directory after a rename, and to nothing after its removal. */
    R(rename("d/e", "moved"));
    f = F(openat(e, "f", O_RDONLY));
    R(close(f));
    f = F(openat(e, "new", O_CREAT | O_WRONLY, 0600));
    R(close(f));
    ls("moved");
    R(unlinkat(e, "f", 0));
    R(unlinkat(e, "new", 0));
    R(unlinkat(AT_FDCWD, "moved", AT_REMOVEDIR));
    F(openat(e, "x", O_CREAT | O_WRONLY, 0600));
    R(fstat(e, &s));
    T(s.st_nlink == 0);
    R(close(e));
    R(close(d));
    R(mkdirat(AT_FDCWD, "m", 0700));
    R(mkdirat(9999, "m", 0700));
    R(symlinkat("t", AT_FDCWD, "s"));
    char t[8];
    R(readlinkat(AT_FDCWD, "s", t, 8));
}
CASE(by_number)
{
    int fd = F((int)syscall(SYS_openat, AT_FDCWD, "n", O_CREAT | O_RDWR, 0600));
    R(syscall(SYS_write, fd, "num", 3));
    R(syscall(SYS_close, fd));
    st("n");
    R(syscall(SYS_mkdirat, AT_FDCWD, "d", 0755));
    R(syscall(SYS_renameat2, AT_FDCWD, "n", AT_FDCWD, "d/n", 0));
    R(syscall(SYS_faccessat, AT_FDCWD, "d/n", R_OK));
    R(syscall(SYS_unlinkat, AT_FDCWD, "d/n", 0));
    R(syscall(SYS_unlinkat, AT_FDCWD, "d", AT_REMOVEDIR));
    ls(".");
}
CASE(openat2_call)
{
    /* Served, or refused as an older kernel does: programs then fall back. */
    put("n", "num");
    struct {
        uint64_t flags, mode, resolve;
    } how = {.flags = O_RDONLY};
    char b[4] = "";
    int fd = (int)syscall(437 /* openat2 */, AT_FDCWD, "n", &how, sizeof how);
    T((fd < 0 && errno == ENOSYS) || (read(fd, b, 3) == 3 && !strcmp(b, "num")));
}
CASE(lowest_number)
{
    /* Programs rely on it: close(0); open() gives 0. */
    put("f", "abc");
    int a = open("f", O_RDONLY), b = open("f", O_RDONLY);
    T(b > a);
    close(a);
    int c = open("f", O_RDONLY);
    T(c == a);
    close(0);
    int z = open("f", O_RDONLY);
    T(z == 0);
    int d = open(".", O_RDONLY | O_DIRECTORY);
    T(d == b + 1);
    char buf[4];
    R(read(0, buf, 3));
}
CASE(same_identity)
{
    put("f", "abc");
    Q(link("f", "g"));
    struct stat a, b, c, d;
    int fd = open("f", O_RDWR);
    R(stat("f", &a) | lstat("g", &b) | fstat(fd, &c) | stat(".", &d));
    T(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    T(a.st_ino == c.st_ino && a.st_dev == c.st_dev);
    T(a.st_dev == d.st_dev);
    int dfd = open(".", O_RDONLY);
    R(fstat(dfd, &c));
    T(c.st_ino == d.st_ino && c.st_dev == d.st_dev);
    DIR *dir = opendir(".");
    struct dirent *e;
    struct stat up;
    int name_right = 0, dot_right = 0, dotdot_right = 0;
    Q(stat("..", &up));
    while ((e = readdir(dir))) {
        name_right |= !strcmp(e->d_name, "f") && e->d_ino == a.st_ino;
        dot_right |= !strcmp(e->d_name, ".") && e->d_ino == d.st_ino;
        dotdot_right |= !strcmp(e->d_name, "..") && e->d_ino == up.st_ino;
    }
    T(name_right && dot_right && dotdot_right);
    closedir(dir);
    close(fd);
    R(stat("f", &c));
    T(c.st_ino == a.st_ino);
}
CASE(two_openers)
{
    int w = F(open("f", O_CREAT | O_RDWR, 0644)), r = F(open("f", O_RDONLY)), a = F(open("f", O_WRONLY | O_APPEND));
    R(write(w, "first ", 6));
    catfd(r);
    R(write(a, "second ", 7));
    catfd(r);
    R(pwrite(w, "F", 1, 0));
    catfd(r);
    struct stat s;
    R(stat("f", &s));
    printf("size %lld\n", (long long)s.st_size);
    int t = F(open("f", O_WRONLY | O_TRUNC));
    catfd(r);
    R(write(w, "Z", 1));
    R(fstat(r, &s));
    printf("size %lld\n", (long long)s.st_size);
    R(close(t));
    R(close(w));
    R(close(a));
    R(lseek(r, 0, SEEK_END));
    R(close(r));
}
CASE(permissions_of_open_files)
{
    /* An open descriptor goes on whatever happens to the mode. */
    int fd = F(open("f", O_CREAT | O_RDWR, 0600));
    R(fchmod(fd, 0));
    R(write(fd, "abc", 3));
    catfd(fd);
    R(close(fd));
    st("f");
}
PROBE_MAIN
