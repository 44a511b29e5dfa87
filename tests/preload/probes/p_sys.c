/* tests/preload/probes/p_sys.c — calls by number through syscall(2), and libc functions that few programs use */
#include "probe.h"
#include <fts.h>
#include <ftw.h>
#include <poll.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <aio.h>
#include <utime.h>

#ifdef SYS_open
CASE(old_numbers)
{
    int fd = F((int)syscall(SYS_open, "a", O_CREAT | O_RDWR, 0640));
    R(write(fd, "old", 3));
    R(close(fd));
    F((int)syscall(SYS_creat, "b", 0600));
    R(syscall(SYS_mkdir, "d", 0750));
    R(syscall(SYS_mkdir, "d", 0750));
    R(syscall(SYS_symlink, "a", "l"));
    R(syscall(SYS_link, "a", "d/h"));
    R(syscall(SYS_rename, "b", "d/b"));
    R(syscall(SYS_mknod, "p", S_IFIFO | 0600, 0));
    R(syscall(SYS_chmod, "a", 0604));
    R(syscall(SYS_chown, "a", getuid(), getgid()));
    R(syscall(SYS_lchown, "l", getuid(), getgid()));
    struct utimbuf t = {1000, 2000};
    R(syscall(SYS_utime, "a", &t));
    struct stat s;
    R(syscall(SYS_stat, "l", &s));
    printf("%ld %ld %lld\n", (long)s.st_atime, (long)s.st_mtime, (long long)s.st_size);
    struct timeval tv[2] = {{3000, 500}, {4000, 600}};
    R(syscall(SYS_utimes, "a", tv));
    R(syscall(SYS_lstat, "l", &s));
    T(S_ISLNK(s.st_mode));
    R(syscall(SYS_futimesat, AT_FDCWD, "d/b", tv));
    R(syscall(SYS_stat, "d/b", &s));
    printf("%ld %ld\n", (long)s.st_atime, (long)s.st_mtime);
    char buf[64] = "";
    R(syscall(SYS_readlink, "l", buf, sizeof buf));
    puts(buf);
    R(syscall(SYS_access, "a", R_OK));
    R(syscall(SYS_access, "none", R_OK));
    R(syscall(SYS_dup2, F(open("a", O_RDONLY)), 77));
    catfd(77);
    R(syscall(SYS_unlink, "p"));
    R(syscall(SYS_rmdir, "d"));
    R(syscall(SYS_unlink, "d/b"));
    R(syscall(SYS_unlink, "d/h"));
    R(syscall(SYS_rmdir, "d"));
    st("a");
    st("l");
    st("d");
}
CASE(getdents_old)
{
    for (int i = 0; i < 300; i++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s%03d", i % 9, "abcdefghi", i);
        put(name, "");
    }
    Q(mkdir("sub", 0755));
    Q(symlink("sub", "way"));
    int fd = F(open(".", O_RDONLY | O_DIRECTORY));
    char buf[1024];
    long n, count = 0, files = 0, dirs = 0, links = 0, sum = 0;
    while ((n = syscall(SYS_getdents, fd, buf, sizeof buf)) > 0)
        for (long at = 0; at < n;) {
            unsigned short len;
            memcpy(&len, buf + at + 16, 2);
            const char *name = buf + at + 18;
            char type = buf[at + len - 1];
            count++;
            files += type == DT_REG;
            dirs += type == DT_DIR;
            links += type == DT_LNK;
            sum += (long)strlen(name);
            at += len;
        }
    printf("%ld: %ld entries, %ld files, %ld directories, %ld links, %ld letters\n", n, count, files, dirs, links, sum);
}
#endif
CASE(numbers)
{
    put("f", "by number");
    int fd = F(open("f", O_RDWR));
    struct statfs fs;
    R(syscall(SYS_statfs, "f", &fs));
    R(syscall(SYS_fstatfs, fd, &fs));
    char buf[64] = "";
    R(syscall(SYS_setxattr, "f", "user.a", "one", 3, 0));
    R(syscall(SYS_lsetxattr, "f", "user.b", "three", 5, 0));
    R(syscall(SYS_fsetxattr, fd, "user.c", "x", 1, 0));
    R(syscall(SYS_getxattr, "f", "user.a", buf, sizeof buf));
    R(syscall(SYS_lgetxattr, "f", "user.b", buf, sizeof buf));
    R(syscall(SYS_fgetxattr, fd, "user.c", buf, sizeof buf));
    T(syscall(SYS_listxattr, "f", NULL, 0) == syscall(SYS_llistxattr, "f", NULL, 0));
    T(syscall(SYS_flistxattr, fd, NULL, 0) == syscall(SYS_listxattr, "f", NULL, 0));
    R(syscall(SYS_removexattr, "f", "user.a"));
    R(syscall(SYS_lremovexattr, "f", "user.b"));
    R(syscall(SYS_fremovexattr, fd, "user.c"));
    R(syscall(SYS_getxattr, "f", "user.c", buf, sizeof buf));
    R(syscall(SYS_truncate, "f", 4));
    R(syscall(SYS_fchmod, fd, 0600));
    R(syscall(SYS_chdir, "none"));
    Q(mkdir("d", 0755));
    R(syscall(SYS_chdir, "d"));
    R(syscall(SYS_newfstatat, AT_FDCWD, "../f", &(struct stat){0}, 0));
    R(syscall(SYS_chdir, ".."));
    int in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    R(syscall(SYS_inotify_add_watch, in, "f", IN_MODIFY) > 0);
    R(syscall(SYS_inotify_add_watch, in, "none", IN_MODIFY));
    int dir = F(open(".", O_RDONLY | O_DIRECTORY));
    R(syscall(SYS_mkdirat, dir, "e", 0700));
    R(syscall(SYS_mknodat, dir, "e/f", S_IFREG | 0600, 0));
    R(syscall(SYS_symlinkat, "f", dir, "e/l"));
    R(syscall(SYS_linkat, dir, "f", dir, "e/h", 0));
    R(syscall(SYS_readlinkat, dir, "e/l", buf, sizeof buf));
    R(syscall(SYS_fchmodat, dir, "e/f", 0640));
    R(syscall(SYS_fchownat, dir, "e/f", getuid(), getgid(), 0));
    struct timespec ts[2] = {{5, 6}, {7, 8}};
    R(syscall(SYS_utimensat, dir, "e/f", ts, 0));
    R(syscall(SYS_utimensat, fd, NULL, ts, 0));
    st("e/f");
    st("f");
    cat("f");
}
CASE(newer_numbers)
{
    put("f", "contents");
    struct {
        uint64_t flags, mode, resolve;
    } how = {O_RDONLY, 0, 0};
    int fd = F((int)syscall(437, AT_FDCWD, "f", &how, sizeof how));
    catfd(fd);
    how.flags = O_CREAT | O_RDWR;
    how.mode = 0600;
    F((int)syscall(437, AT_FDCWD, "g", &how, sizeof how));
    R(syscall(437, AT_FDCWD, "f", &how, 8));
    st("g");
    R(syscall(439, AT_FDCWD, "f", W_OK, AT_EACCESS));
    R(syscall(452, AT_FDCWD, "g", 0640, 0));
    st("g");
    T(syscall(451, fd, (uint64_t[2]){0, 4096}, (uint64_t[5]){0}, 0) == 0 || errno == ENOSYS || errno == EOPNOTSUPP); /* cachestat */
    int pidfd = (int)syscall(434, getpid(), 0);
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    int again = pidfd < 0 ? dup(dir) : (int)syscall(438, pidfd, dir, 0);
    T(openat(again, "f", O_RDONLY) >= 0);
    /* What a volume does not serve looks like an older kernel, or works. */
    char buf[64];
    struct {
        uint64_t value;
        uint32_t size, flags;
    } x = {(uint64_t)(uintptr_t)buf, sizeof buf, 0};
    T(syscall(464, AT_FDCWD, "f", 0, "user.none", &x, sizeof x) == -1 && (errno == ENOSYS || errno == ENODATA));
    T(syscall(465, AT_FDCWD, "f", 0, buf, sizeof buf) >= 0 || errno == ENOSYS);
    T(syscall(464, AT_FDCWD, "none", 0, "user.none", &x, sizeof x) == -1 && (errno == ENOSYS || errno == ENOENT));
    char attr[24] = "";
    T(syscall(468, AT_FDCWD, "f", attr, sizeof attr, 0) == 0 || errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOTTY);
}
CASE(numbers_through_host_symlinks)
{
    char way[] = "/tmp/probe-XXXXXX", path[64];
    N(mkdtemp(way));
    snprintf(path, sizeof path, "%s/way", way);
    Q(symlink(here, path));
    put("f", "behind");
    snprintf(path, sizeof path, "%s/way/f", way);
    struct stat s;
    int fd = F((int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY));
    catfd(fd);
    R(syscall(SYS_newfstatat, AT_FDCWD, path, &s, 0));
    R(syscall(SYS_truncate, path, 3));
    cat("f");
    snprintf(path, sizeof path, "%s/way/none", way);
    R(syscall(SYS_newfstatat, AT_FDCWD, path, &s, 0));
    R(syscall(SYS_mkdirat, AT_FDCWD, path, 0700));
    R(syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR));
    snprintf(path, sizeof path, "%s/none", way);
    R(syscall(SYS_newfstatat, AT_FDCWD, path, &s, 0));
    snprintf(path, sizeof path, "%s/way", way);
    R(unlink(path));
    R(rmdir(way));
}
CASE(daemon_leaves)
{
    put("f", "where we were");
    int p[2];
    Q(pipe(p));
    fflush(stdout);
    if (fork() == 0) {
        int r = daemon(0, 1);
        char cwd[PATH_MAX] = "", line[PATH_MAX + 64];
        Q(!getcwd(cwd, sizeof cwd));
        int n = snprintf(line, sizeof line, "%d %s f: %d etc: %d\n", r, cwd, access("f", F_OK), access("etc", F_OK));
        Q(write(p[1], line, (size_t)n));
        _exit(0);
    }
    close(p[1]);
    char buf[PATH_MAX + 64];
    ssize_t n, all = 0;
    while ((n = read(p[0], buf + all, sizeof buf - (size_t)all)) > 0)
        all += n;
    fwrite(buf, 1, (size_t)all, stdout);
    wait(NULL);
}
static int seen_here, seen_there;
static int looks(const char *path, const struct stat *s, int type, struct FTW *f)
{
    (void)s, (void)type;
    struct stat now;
    if (stat(path + f->base, &now) == 0) /* FTW_CHDIR: the name alone is enough */
        seen_there++;
    if (access("here", F_OK) == 0)
        seen_here++;
    return 0;
}
/* libc changes the working directory inside while it walks a host tree. */
CASE(host_trees_from_here)
{
    char tree[] = "/tmp/probe-XXXXXX", path[64];
    N(mkdtemp(tree));
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/d%d", tree, i);
        Q(mkdir(path, 0755));
        snprintf(path, sizeof path, "%s/d%d/f", tree, i);
        put(path, "x");
    }
    put("here", "");
    R(nftw(tree, looks, 8, FTW_PHYS | FTW_CHDIR));
    printf("%d found, %d of here\n", seen_there, seen_here);
    char *roots[] = {tree, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL, NULL);
    FTSENT *e;
    int files = 0;
    while ((e = fts_read(fts)))
        if (e->fts_info == FTS_F) {
            struct stat s;
            files += stat(e->fts_accpath, &s) == 0 && s.st_size == 1;
            Q(unlink(e->fts_accpath));
        } else if (e->fts_info == FTS_DP) {
            Q(rmdir(e->fts_accpath));
        }
    R(fts_close(fts));
    printf("%d files\n", files);
    R(access(tree, F_OK));
    R(access("here", F_OK));
    R(nftw("none", looks, 8, 0));
}
CASE(rare_functions)
{
    put("f", "0123456789");
    put("g", "");
    struct stat s;
    Q(stat("f", &s));
    T(ftok("f", 'a') == (key_t)((unsigned)'a' << 24 | (unsigned)(s.st_dev & 0xff) << 16 | (unsigned)(s.st_ino & 0xffff)));
    T(ftok("f", 'a') != ftok("f", 'b'));
    R(ftok("none", 1));
    int dir = F(open(".", O_RDONLY | O_DIRECTORY));
    char buf[4096];
    off_t base = -1;
    T(getdirentries(dir, buf, sizeof buf, &base) > 0);
    printf("base %lld\n", (long long)base);
    R(getdirentries(dir, buf, sizeof buf, &base));
    int fd = F(open("f", O_RDONLY));
    R(getdirentries(fd, buf, sizeof buf, &base));
    int fan = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY);
    T(fan < 0 || fanotify_mark(fan, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "none") < 0);
}
CASE(the_kernels_own)
{
    put("f", "0123456789");
    int fd = F(open("f", O_RDWR)), to = F(open("g", O_RDWR | O_CREAT, 0600));
    R(lockf(fd, F_LOCK, 0));
    R(lockf(fd, F_ULOCK, 0));
    R(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
    R(readahead(fd, 0, 4096));
    R(copy_file_range(fd, &(off_t){2}, to, NULL, 4, 0));
    R(sendfile(to, fd, &(off_t){0}, 3));
    int p[2];
    Q(pipe(p));
    R(splice(fd, &(off_t){5}, p[1], NULL, 5, 0));
    R(splice(p[0], NULL, to, NULL, 5, 0));
    catfd(to);
    char buf[16] = "";
    struct aiocb cb = {.aio_fildes = fd, .aio_buf = buf, .aio_nbytes = 4, .aio_offset = 6};
    R(aio_read(&cb));
    while (aio_error(&cb) == EINPROGRESS)
        aio_suspend(&(const struct aiocb *){&cb}, 1, NULL);
    R(aio_return(&cb));
    puts(buf);
    memcpy(buf, "written", 7);
    cb.aio_nbytes = 7;
    cb.aio_offset = 0;
    cb.aio_fildes = to;
    R(aio_write(&cb));
    while (aio_error(&cb) == EINPROGRESS)
        aio_suspend(&(const struct aiocb *){&cb}, 1, NULL);
    R(aio_return(&cb));
    R(aio_fsync(O_SYNC, &cb));
    while (aio_error(&cb) == EINPROGRESS)
        aio_suspend(&(const struct aiocb *){&cb}, 1, NULL);
    R(aio_return(&cb));
    R(close(to));
    cat("g");
    struct pollfd pf = {fd, POLLIN | POLLOUT, 0};
    R(poll(&pf, 1, 0));
    printf("%x\n", (unsigned)pf.revents);
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN};
    R(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    R(isatty(fd));
    N(ttyname(fd));
}

PROBE_MAIN
