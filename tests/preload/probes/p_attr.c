/* tests/preload/probes/p_attr.c — modes, owners, times, xattrs, permissions */
#include "probe.h"
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

static void show_times(const char *p)
{
    struct stat s;
    if (lstat(p, &s)) {
        printf("%s: %s\n", p, strerrorname_np(errno));
        return;
    }
    printf("%s: atime %lld.%09ld mtime %lld.%09ld\n", p, s.st_atim.tv_sec > 1600000000 ? 1LL : (long long)s.st_atim.tv_sec,
           s.st_atim.tv_sec > 1600000000 ? 0 : s.st_atim.tv_nsec, s.st_mtim.tv_sec > 1600000000 ? 1LL : (long long)s.st_mtim.tv_sec,
           s.st_mtim.tv_sec > 1600000000 ? 0 : s.st_mtim.tv_nsec);
}
CASE(chmod_calls)
{
    put("f", "abc");
    Q(mkdir("d", 0755));
    Q(symlink("f", "l"));
    for (int m = 0; m <= 07777; m += 0123) {
        if (chmod("f", (mode_t)m) || chmod("d", (mode_t)m))
            printf("%o: %s\n", m, strerrorname_np(errno));
        st("f");
        st("d");
    }
    R(chmod("l", 0644));
    st("f");
    st("l");
    R(chmod("none", 0));
    R(chmod("f/", 0));
    R(chmod("", 0));
    int fd = open("f", O_RDONLY), d = open("d", O_RDONLY);
    R(fchmod(fd, 0711));
    st("f");
    R(fchmod(d, 0700));
    st("d");
    R(fchmod(9999, 0700));
    R(fchmodat(AT_FDCWD, "f", 0600, 0));
    R(fchmodat(d, "../f", 0601, 0));
    st("f");
    R(fchmodat(AT_FDCWD, "f", 0600, 0x8000));
    R(fchmodat(AT_FDCWD, "f", 0602, AT_SYMLINK_NOFOLLOW));
    st("f");
    R(chmod("f", S_IFREG | 0640));
    st("f");
}
CASE(chown_calls)
{
    put("f", "abc");
    Q(symlink("f", "l"));
    Q(mkdir("d", 0755));
    if (geteuid()) {
        R(chown("f", 0, (gid_t)-1));
        R(chown("f", (uid_t)-1, (gid_t)-1));
        R(chown("f", getuid(), getgid()));
        return;
    }
    R(chown("f", 1000, 1001));
    st("f");
    R(chown("f", (uid_t)-1, 7));
    st("f");
    R(chown("f", 8, (gid_t)-1));
    st("f");
    R(lchown("l", 5, 6));
    st("l");
    st("f");
    R(chown("l", 9, 10));
    st("f");
    int fd = open("f", O_RDWR), d = open("d", O_RDONLY);
    R(fchown(fd, 11, 12));
    R(fchown(d, 13, 14));
    st("f");
    st("d");
    R(fchownat(d, "../f", 15, 16, 0));
    R(fchownat(AT_FDCWD, "l", 17, 18, AT_SYMLINK_NOFOLLOW));
    R(fchownat(fd, "", 19, 20, AT_EMPTY_PATH));
    st("f");
    st("l");
    R(chown("none", 1, 1));
    R(fchown(9999, 1, 1));
    /* suid and sgid go with a change of owner, but not of directories, and not sgid without x */
    Q(chmod("f", 06755));
    R(chown("f", 21, 22));
    st("f");
    Q(chmod("f", 06644));
    R(chown("f", 23, 24));
    st("f");
    Q(chmod("d", 06755));
    R(chown("d", 23, 24));
    st("d");
    /* … and with a write by somebody without privilege */
    R(chown("f", 1, 1));
    st("f");
}
CASE(utimes_calls)
{
    put("f", "abc");
    Q(symlink("f", "l"));
    struct timespec t[2] = {{1, 2}, {3, 4}};
    R(utimensat(AT_FDCWD, "f", t, 0));
    show_times("f");
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_sec = 50;
    R(utimensat(AT_FDCWD, "f", t, 0));
    show_times("f");
    t[0] = (struct timespec){60, 61};
    t[1].tv_nsec = UTIME_OMIT;
    R(utimensat(AT_FDCWD, "f", t, 0));
    show_times("f");
    t[0].tv_nsec = UTIME_NOW;
    t[1] = (struct timespec){70, 999999999};
    R(utimensat(AT_FDCWD, "f", t, 0));
    show_times("f");
    t[1].tv_nsec = 1000000000;
    R(utimensat(AT_FDCWD, "f", t, 0));
    t[1] = (struct timespec){-5, 500};
    t[0] = (struct timespec){-6, 600};
    R(utimensat(AT_FDCWD, "f", t, 0));
    show_times("f");
    t[1] = (struct timespec){1500000000, 1};
    t[0] = (struct timespec){1500000001, 2};
    R(utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW));
    show_times("l");
    show_times("f");
    R(utimensat(AT_FDCWD, "f", NULL, 0));
    show_times("f");
    R(utimensat(AT_FDCWD, "none", t, 0));
    R(utimensat(9999, "f", t, 0));
    R(utimensat(AT_FDCWD, "f", t, 0x4000));
    int fd = open("f", O_RDONLY);
    R(futimens(fd, t));
    show_times("f");
    const char *volatile nil = NULL;
    R(utimensat(fd, nil, t, 0));
    R(utimensat(fd, "", t, AT_EMPTY_PATH));
    struct timeval v[2] = {{100, 200}, {300, 400}};
    R(utimes("f", v));
    show_times("f");
    v[0].tv_usec = 1000000;
    R(utimes("f", v));
    v[0] = (struct timeval){101, 201};
    R(lutimes("l", v));
    show_times("l");
    R(futimes(fd, v));
    show_times("f");
    v[0].tv_sec = 777;
    R(futimesat(AT_FDCWD, "f", v));
    show_times("f");
#ifdef __GLIBC__
    v[0].tv_sec = 778;
    R(futimesat(fd, NULL, v));
    R(futimesat(-1, NULL, v));
    show_times("f");
#endif
    struct utimbuf u = {12, 34};
    R(utime("f", &u));
    show_times("f");
    R(utime("f", NULL));
    show_times("f");
    Q(mkdir("d", 0755));
    R(utimes("d", v));
    show_times("d");
    int d = open("d", O_RDONLY);
    t[0].tv_sec = 9;
    R(futimens(d, t));
    show_times("d");
}
CASE(xattrs)
{
    put("f", "abc");
    Q(mkdir("d", 0755));
    Q(symlink("f", "l"));
    char b[256];
    R(setxattr("f", "user.a", "value", 5, 0));
    memset(b, 0, sizeof b);
    R(getxattr("f", "user.a", b, sizeof b));
    show_bytes(b, 5);
    R(getxattr("f", "user.a", b, 0));
    R(getxattr("f", "user.a", b, 2));
    R(getxattr("f", "user.none", b, sizeof b));
    R(getxattr("none", "user.a", b, sizeof b));
    R(setxattr("f", "user.a", "other", 5, XATTR_CREATE));
    R(setxattr("f", "user.b", "other", 5, XATTR_REPLACE));
    R(setxattr("f", "user.a", "xy", 2, XATTR_REPLACE));
    R(setxattr("f", "user.b", "", 0, XATTR_CREATE));
    R(getxattr("f", "user.b", b, sizeof b));
    R(getxattr("f", "user.a", b, sizeof b));
    R(setxattr("f", "user.a", "v", 1, 77));
    R(setxattr("f", "user.", "v", 1, 0));
    R(setxattr("f", "noprefix", "v", 1, 0));
    R(setxattr("f", "", "v", 1, 0));
    char longname[400];
    memset(longname, 'n', sizeof longname);
    memcpy(longname, "user.", 5);
    longname[255] = 0;
    R(setxattr("f", longname, "v", 1, 0));
    R(removexattr("f", longname));
    longname[255] = 'n';
    longname[256] = 0;
    R(setxattr("f", longname, "v", 1, 0));
    static char big[70000];
    memset(big, 'v', sizeof big);
    R(setxattr("f", "user.big", big, 1000, 0));
    R(getxattr("f", "user.big", big, sizeof big));
    R(removexattr("f", "user.big"));
    R(setxattr("f", "user.big", big, 65537, 0));
    ssize_t n = R(listxattr("f", b, sizeof b));
    R(listxattr("f", b, 0));
    R(listxattr("f", b, 3));
    int has_a = 0, has_b = 0;
    n = listxattr("f", b, sizeof b);
    for (ssize_t i = 0; i < n; i += (ssize_t)strlen(b + i) + 1) {
        has_a |= !strcmp(b + i, "user.a");
        has_b |= !strcmp(b + i, "user.b");
    }
    T(has_a && has_b);
    R(getxattr("l", "user.a", b, sizeof b));
    R(lgetxattr("l", "user.a", b, sizeof b));
    R(lsetxattr("l", "user.a", "v", 1, 0));
    R(llistxattr("l", b, sizeof b));
    R(listxattr("l", b, sizeof b));
    R(lremovexattr("l", "user.a"));
    int fd = open("f", O_RDWR), d = open("d", O_RDONLY);
    R(fsetxattr(fd, "user.fd", "12", 2, 0));
    R(fgetxattr(fd, "user.fd", b, sizeof b));
    R(flistxattr(fd, b, sizeof b));
    R(fremovexattr(fd, "user.fd"));
    R(fremovexattr(fd, "user.fd"));
    R(fsetxattr(d, "user.dir", "dir", 3, 0));
    R(fgetxattr(d, "user.dir", b, sizeof b));
    R(getxattr("d", "user.dir", b, sizeof b));
    R(fgetxattr(9999, "user.a", b, sizeof b));
    R(removexattr("f", "user.a"));
    R(removexattr("f", "user.a"));
    R(removexattr("none", "user.a"));
    R(getxattr("f", "security.none", b, sizeof b));
    if (!geteuid()) {
        R(setxattr("f", "trusted.t", "1", 1, 0));
        R(getxattr("f", "trusted.t", b, sizeof b));
        R(removexattr("f", "trusted.t"));
    }
    R(rename("f", "g"));
    R(getxattr("g", "user.b", b, sizeof b));
    R(link("g", "h"));
    R(getxattr("h", "user.b", b, sizeof b));
}
CASE(umask_calls)
{
    const int m[] = {0, 07, 027, 0177, 0777, 022};
    for (size_t i = 0; i < sizeof m / sizeof *m; i++) {
        printf("before %o\n", umask((mode_t)m[i]));
        char n[16];
        snprintf(n, sizeof n, "f%zu", i);
        close(open(n, O_CREAT | O_WRONLY, 0666));
        st(n);
        n[0] = 'd';
        Q(mkdir(n, 0777));
        st(n);
        n[0] = 'p';
        R(mkfifo(n, 0666));
        st(n);
        n[0] = 's';
        FILE *f = fopen(n, "w");
        if (f)
            fclose(f);
        st(n);
    }
}
CASE(setgid_directories)
{
    Q(mkdir("d", 0755));
    if (!geteuid())
        R(chown("d", (uid_t)-1, 4242));
    R(chmod("d", 02775));
    st("d");
    put("d/f", "x");
    st("d/f");
    R(mkdir("d/sub", 0755));
    st("d/sub");
    Q(symlink("f", "d/l"));
    st("d/l");
    int fd = open("d/x", O_CREAT | O_WRONLY, 02775);
    close(fd);
    st("d/x");
    put("outer", "x");
    R(rename("outer", "d/moved"));
    st("d/moved");
    R(mkfifo("d/p", 0600));
    st("d/p");
}
static void become(uid_t uid, gid_t gid)
{
    Q(setgroups(0, NULL));
    Q(setresgid(gid, gid, gid));
    Q(setresuid(uid, uid, uid));
}
static void lay_for_others(void)
{
    umask(0);
    put("r", "readable");
    Q(chmod("r", 0644));
    put("w", "writable");
    Q(chmod("w", 0622));
    put("rw", "both");
    Q(chmod("rw", 0666));
    put("none", "no");
    Q(chmod("none", 0600));
    put("x", "#!/bin/sh\necho ran\n");
    Q(chmod("x", 0711));
    put("mine", "owned");
    Q(chown("mine", 65534, 65534));
    Q(chmod("mine", 0070));
    put("group", "group");
    Q(chown("group", 0, 65534));
    Q(chmod("group", 0060));
    Q(mkdir("open", 0777));
    put("open/f", "f");
    Q(mkdir("sticky", 01777));
    put("sticky/f", "root's");
    put("sticky/theirs", "theirs");
    Q(chown("sticky/theirs", 65534, 65534));
    Q(mkdir("listable", 0744));
    put("listable/f", "f");
    Q(mkdir("passable", 0711));
    put("passable/f", "f");
    Q(mkdir("closed", 0700));
    put("closed/f", "f");
    Q(mkdir("closed/d", 0777));
    put("closed/d/f", "f");
    Q(symlink("closed/f", "into"));
    Q(chmod(".", 0755));
}
static void as_other(void)
{
    static const char *const files[] = {"r", "w", "rw", "none", "x", "mine", "group", "open/f", "sticky/f", "sticky/theirs", "listable/f", "passable/f", "closed/f", "closed/d/f", "into"};
    struct stat s;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        printf("%s:", files[i]);
        printf(" stat %s", stat(files[i], &s) ? strerrorname_np(errno) : "ok");
        for (int m = 0; m < 8; m++)
            printf(" %d%s", m, access(files[i], m) ? strerrorname_np(errno) : "ok");
        printf(" eaccess %s", faccessat(AT_FDCWD, files[i], R_OK, AT_EACCESS) ? strerrorname_np(errno) : "ok");
        const int acc[] = {O_RDONLY, O_WRONLY, O_RDWR};
        for (int a = 0; a < 3; a++) {
            int fd = open(files[i], acc[a]);
            printf(" open%d %s", acc[a], fd < 0 ? strerrorname_np(errno) : "ok");
            close(fd);
        }
        printf(" trunc %s", truncate(files[i], 1) ? strerrorname_np(errno) : "ok");
        printf(" chmod %s", chmod(files[i], 0644) ? strerrorname_np(errno) : "ok");
        printf(" chown %s", chown(files[i], 0, 0) ? strerrorname_np(errno) : "ok");
        struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}}, set[2] = {{1, 1}, {1, 1}};
        printf(" now %s", utimensat(AT_FDCWD, files[i], now, 0) ? strerrorname_np(errno) : "ok");
        printf(" set %s", utimensat(AT_FDCWD, files[i], set, 0) ? strerrorname_np(errno) : "ok");
        printf(" xattr %s\n", setxattr(files[i], "user.o", "1", 1, 0) ? strerrorname_np(errno) : "ok");
    }
    static const char *const dirs[] = {".", "open", "sticky", "listable", "passable", "closed", "closed/d"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        char p[64], q[64];
        printf("%s:", dirs[i]);
        DIR *d = opendir(dirs[i]);
        printf(" list %s", d ? "ok" : strerrorname_np(errno));
        if (d)
            closedir(d);
        printf(" chdir %s", chdir(dirs[i]) ? strerrorname_np(errno) : "ok");
        Q(chdir(here));
        snprintf(p, sizeof p, "%s/new", dirs[i]);
        int fd = open(p, O_CREAT | O_WRONLY, 0644);
        printf(" create %s", fd < 0 ? strerrorname_np(errno) : "ok");
        close(fd);
        snprintf(q, sizeof q, "%s/newer", dirs[i]);
        printf(" rename %s", rename(p, q) ? strerrorname_np(errno) : "ok");
        printf(" unlink %s", unlink(q) ? strerrorname_np(errno) : "ok");
        printf(" mkdir %s", mkdir(p, 0755) ? strerrorname_np(errno) : "ok");
        printf(" rmdir %s", rmdir(p) ? strerrorname_np(errno) : "ok");
        printf(" symlink %s", symlink("x", p) ? strerrorname_np(errno) : "ok");
        printf(" link %s", link("rw", q) ? strerrorname_np(errno) : "ok");
        printf(" absent %s", stat("open/absent", &s) ? strerrorname_np(errno) : "ok");
        snprintf(p, sizeof p, "%s/f", dirs[i]);
        printf(" remove-f %s", unlink(p) ? strerrorname_np(errno) : "ok");
        snprintf(p, sizeof p, "%s/absent", dirs[i]);
        printf(" absent %s\n", stat(p, &s) ? strerrorname_np(errno) : "ok");
    }
    R(unlink("sticky/f"));
    R(rename("sticky/f", "sticky/g"));
    R(rename("sticky/theirs", "sticky/f"));
    R(unlink("sticky/theirs"));
    R(rename("open/f", "open/g"));
    R(rmdir("closed"));
    fflush(stdout);
    R(execl("x", "x", NULL));
}
CASE(as_another_user)
{
    if (geteuid()) {
        puts("only root can become another user");
        return;
    }
    lay_for_others();
    CHILD("other", become(65534, 65534); as_other());
    CHILD("same group", become(1234, 65534); struct stat s; R(access("group", R_OK | W_OK)); R(stat("closed/f", &s)); R(access("mine", R_OK)); R(access("r", W_OK)));
    CHILD("supplementary group", gid_t g = 65534; Q(setgroups(1, &g)); Q(setresgid(77, 77, 77)); Q(setresuid(1234, 1234, 1234));
          R(access("group", R_OK | W_OK)); R(access("mine", R_OK)); int fd = F(open("group", O_RDWR)); close(fd));
    CHILD("effective only", Q(setgroups(0, NULL)); R(setegid(65534)); R(seteuid(65534)); R(access("none", R_OK)); F(open("none", O_RDONLY));
          R(faccessat(AT_FDCWD, "none", R_OK, AT_EACCESS)); struct stat s; R(stat("closed/f", &s)); R(seteuid(0)); R(stat("closed/f", &s)); F(open("none", O_RDONLY)));
    st("sticky");
}
CASE(owner_of_new_files)
{
    if (geteuid()) {
        puts("only root can become another user");
        return;
    }
    umask(0);
    Q(mkdir("d", 0777));
    CHILD("other", become(65534, 65533); put("d/f", "x"); Q(mkdir("d/sub", 0755)); Q(symlink("f", "d/l")); st("d/f"); st("d/sub"); st("d/l");
          Q(chmod("d/f", 06777)); st("d/f"); int fd = open("d/f", O_WRONLY); Q(write(fd, "y", 1)); close(fd); st("d/f");
          R(chown("d/f", 65534, 65533)); R(chown("d/f", 65534, 0)); R(chown("d/f", 0, 65533)));
    st("d/f");
    put("d/f2", "suid");
    Q(chmod("d/f2", 06777));
    CHILD("other writes", become(65534, 65533); int fd = open("d/f2", O_WRONLY); Q(write(fd, "y", 1)); close(fd));
    st("d/f2");
}
CASE(access_calls)
{
    put("f", "x");
    Q(chmod("f", 0600));
    R(access("f", R_OK | W_OK));
    R(access("f", X_OK));
    R(access("f", 8));
    R(faccessat(AT_FDCWD, "f", R_OK, 0));
    R(faccessat(AT_FDCWD, "f", X_OK, 0));
    R(faccessat(AT_FDCWD, "f", F_OK, AT_SYMLINK_NOFOLLOW));
    R(faccessat(AT_FDCWD, "f", F_OK, 0x4000));
    R(euidaccess("f", R_OK));
    R(eaccess("f", X_OK));
    Q(symlink("absent", "l"));
    R(access("l", F_OK));
    R(faccessat(AT_FDCWD, "l", F_OK, AT_SYMLINK_NOFOLLOW));
    int d = open(".", O_RDONLY);
    R(faccessat(d, "f", W_OK, 0));
    R(faccessat(9999, "f", W_OK, 0));
    Q(mkdir("d", 0));
    R(access("d", X_OK));
    R(access("d", R_OK));
    R(access(".", R_OK | W_OK | X_OK));
    Q(chmod("f", 0010));
    R(access("f", X_OK));
}
CASE(nodes)
{
    R(mkfifo("p", 0640));
    st("p");
    R(mkfifo("p", 0640));
    R(mkfifoat(AT_FDCWD, "p2", 0600));
    st("p2");
    R(mknod("plain", S_IFREG | 0600, 0));
    st("plain");
    R(mknod("bad", S_IFDIR | 0600, 0));
    R(mknod("sock", S_IFSOCK | 0600, 0));
    st("sock");
    if (!geteuid()) {
        R(mknod("null", S_IFCHR | 0600, (1 << 8) | 3));
        st("null");
        R(mknodat(AT_FDCWD, "blk", S_IFBLK | 0600, (7 << 8) | 0));
        st("blk");
    }
    R(rename("p", "q"));
    R(chmod("q", 0611));
    R(link("q", "r"));
    st("r");
    R(unlink("q"));
    struct stat s;
    R(stat("r", &s));
    T(S_ISFIFO(s.st_mode));
    DIR *d = opendir(".");
    struct dirent *e;
    int types_right = 1;
    while ((e = readdir(d))) {
        struct stat t;
        if (!lstat(e->d_name, &t) && e->d_type != DT_UNKNOWN && e->d_type != IFTODT(t.st_mode))
            types_right = 0;
    }
    T(types_right);
}
PROBE_MAIN
