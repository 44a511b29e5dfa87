/* preload/do_path.c — realpath, the working directory, chroot
 *
 * What     The kernel's cwd inside a volume is a dead directory, so getcwd asks kfsd for the directory's path of now. chdir opens the directory and moves the
 *          kernel there: children inherit it whatever becomes of their environment.
 * Memory   malloc only for results that the caller frees by contract.
 * Vfork    A vfork child has a cwd of its own but our variables in common with the parent: it changes the kernel's cwd only, and asks the kernel for it.
 */
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/path.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- getcwd ----------------------------------------------------------------------------------------------------------- */

/* Path of a directory of ours as the application names it. Length without the NUL, or -errno. */
static long path_of(struct kfs_vol *vol, kfs_ino_t ino, char buf[KFS_PATH_MAX])
{
    char rel[KFS_PATH_MAX];
    struct kfs_call c = {.path = "", .reply = rel, .reply_cap = sizeof rel - 1};
    c.req.op = KFS_OP_PATHOF;
    c.req.ino = ino;
    long r = kfs_pre_rpc(vol, &c);
    if (r < 0)
        return r;
    size_t n = c.reply_len;
    while (n && (rel[n - 1] == '/' || rel[n - 1] == '\0'))
        n--;
    if (vol->m.prefix_len + n >= KFS_PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(buf, vol->m.prefix, vol->m.prefix_len);
    memcpy(buf + vol->m.prefix_len, rel, n);
    buf[vol->m.prefix_len + n] = '\0';
    return (long)(vol->m.prefix_len + n);
}

static struct kfs_cwd cwd_now(void)
{
    struct kfs_cwd cwd = kfs_pre_cwd;
    struct kfs_loc loc;
    if (!kfs_pre_in_vfork)
        return cwd;
    bool in = kfs_pre_where(AT_FDCWD, ".", &loc) == KFS_OURS;
    return (struct kfs_cwd){.vol = in ? loc.vol : NULL, .ino = in ? loc.base : 0};
}

char *kfs_do_getcwd(char *buf, size_t size)
{
    struct kfs_cwd cwd = cwd_now();
    if (!cwd.vol)
        return kfs_real.getcwd(buf, size);
    if (buf && size == 0) {
        errno = EINVAL;
        return NULL;
    }
    char path[KFS_PATH_MAX];
    long n = path_of(cwd.vol, cwd.ino, path);
    if (n < 0) {
        errno = (int)-n;
        return NULL;
    }
    if (size && (size_t)n >= size) {
        errno = ERANGE;
        return NULL;
    }
    if (!buf && !(buf = malloc(size ? size : (size_t)n + 1)))
        return NULL;
    if (!kfs_guard_can_write(buf, (size_t)n + 1)) {
        errno = EFAULT;
        return NULL;
    }
    memcpy(buf, path, (size_t)n + 1);
    return buf;
}

char *kfs_do_getwd(char *buf)
{
    if (!cwd_now().vol)
        return kfs_real.getwd(buf);
    if (!buf) {
        errno = EINVAL;
        return NULL;
    }
    return kfs_do_getcwd(buf, KFS_PATH_MAX);
}

char *kfs_do_get_current_dir_name(void)
{
    const char *pwd = getenv("PWD");
    if (!cwd_now().vol && (!pwd || !kfs_pre_maybe(AT_FDCWD, pwd)))
        return kfs_real.get_current_dir_name();
    struct stat here, there;
    if (pwd && *pwd == '/' && stat(".", &here) == 0 && stat(pwd, &there) == 0 &&
        here.st_dev == there.st_dev && here.st_ino == there.st_ino)
        return strdup(pwd);
    return kfs_do_getcwd(NULL, 0);
}

/* --- chdir -------------------------------------------------------------------------------------------------------------- */

/* Move the kernel's cwd to a directory of ours. */
static long chdir_loc(struct kfs_loc *loc)
{
    struct kfs_attr a;
    long fd = kfs_pre_attr_at(loc, true, &a);
    if (fd == 0 && !S_ISDIR(a.mode))
        return -ENOTDIR;
    if (fd == 0 && !kfs_perm_ok(kfs_pre_cred(), a.mode, a.uid, a.gid, 1))
        return -EACCES; /* reading is not asked for: O_PATH */
    if (fd >= 0)
        fd = fd == 1 ? KFS_PRE_GO_HOST : kfs_pre_open_loc(loc, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0);
    if (fd == KFS_PRE_GO_HOST)
        return kfs_real.chdir(loc->host) == 0 ? 0 : -errno;
    if (fd < 0)
        return fd;
    long r = kfs_sys_fchdir((int)fd);
    kfs_pre_fd_unknown((int)fd);
    kfs_sys_close((int)fd);
    return r;
}

static int chdir_done(long r)
{
    if (r < 0)
        return (int)kfs_pre_ret(r);
    kfs_pre_cwd_refresh();
    return 0;
}

static long chdir_at(int w, const char *path, struct kfs_loc *loc)
{
    if (w < 0)
        return w;
    if (w == KFS_OURS)
        return chdir_loc(loc);
    return kfs_real.chdir(w == KFS_HOST_AT ? loc->host : path) == 0 ? 0 : -errno;
}

int kfs_do_chdir(const char *path)
{
    int saved = errno;
    struct kfs_loc loc;
    if (!kfs_pre_vol_count)
        return kfs_real.chdir(path);
    int w = kfs_pre_maybe(AT_FDCWD, path) ? kfs_pre_where(AT_FDCWD, path, &loc) : KFS_HOST;
    long r = chdir_at(w, path, &loc);
    if (r == -ENOENT && w == KFS_HOST) {
        w = kfs_pre_host_symlink(AT_FDCWD, path, true, &loc);
        if (w > KFS_HOST)
            r = chdir_at(w, path, &loc);
    }
    if (r == 0)
        errno = saved;
    return chdir_done(r);
}

int kfs_do_fchdir(int fd)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd_maybe(fd) || !kfs_pre_fd(fd, &i)) {
        int r = kfs_real.fchdir(fd);
        if (r == 0 && kfs_pre_vol_count)
            kfs_pre_cwd_refresh();
        return r;
    }
    if (i.kind != KFS_FD_DIR)
        return (int)kfs_pre_ret(-ENOTDIR);
    struct kfs_call c = {.path = ""};
    c.req.op = KFS_OP_LOOKUP;
    c.req.ino = i.ino;
    c.req.value = 1; /* search permission: the dead directory knows nothing of it */
    long r = kfs_pre_rpc(i.vol, &c);
    if (r < 0 && r != -ENOENT) /* a removed directory may still be entered through its descriptor */
        return (int)kfs_pre_ret(r);
    return chdir_done(kfs_sys_fchdir(fd));
}

/* libc changes the directory inside. */
int kfs_do_daemon(int nochdir, int noclose)
{
    int r = kfs_real.daemon(nochdir, noclose);
    if (r == 0 && kfs_pre_vol_count)
        kfs_pre_cwd_refresh();
    return r;
}

/* A process root is the kernel's: no dead directory can stand for it. */
int kfs_do_chroot(const char *path)
{
    struct kfs_loc loc;
    int w = kfs_pre_where(AT_FDCWD, path, &loc);
    if (w < 0)
        return (int)kfs_pre_ret(w);
    if (w == KFS_OURS)
        return (int)kfs_pre_ret(geteuid() ? -EPERM : -EOPNOTSUPP);
    int r = kfs_real.chroot(w == KFS_HOST_AT ? loc.host : path);
    if (r == 0)
        kfs_pre_cwd_refresh();
    return r;
}

/* --- realpath ------------------------------------------------------------------------------------------------------------- */

/* Walks like libc's: `out` is the real path so far, `todo` what is left; readlink by its exported name serves both sides. */
struct real {
    char out[KFS_PATH_MAX];
    size_t n; /* 0 = the root */
    char todo[KFS_PATH_MAX];
    int links;
};

/* Put a symlink's target before the rest of todo. 0 or -errno. */
static long real_link(struct real *r, const char *rest, const char *target, size_t len)
{
    if (++r->links > KFS_SYMLOOP_MAX)
        return -ELOOP;
    size_t left = strlen(rest);
    if (len + 1 + left >= sizeof r->todo)
        return -ENAMETOOLONG;
    memmove(r->todo + len + 1, rest, left + 1);
    memcpy(r->todo, target, len);
    r->todo[len] = '/';
    if (left == 0) /* no slash that was not there: the target may be a file */
        r->todo[len] = '\0';
    return 0;
}

static void real_up(struct real *r)
{
    while (r->n && r->out[--r->n] != '/')
        ;
    r->out[r->n] = '\0';
}

/* The directories above a prefix need not exist on the host. */
static bool above_prefix(const struct real *r)
{
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        const struct kfs_mount *m = &kfs_pre_vols[i].m;
        if (r->n < m->prefix_len && kfs_path_under(m->prefix, r->out, r->n))
            return true;
    }
    return false;
}

/* The component is no symlink: it must exist, and be a directory when something (or a slash) follows. */
static long real_check(struct real *r, bool must_be_dir)
{
    struct stat st;
    if (!must_be_dir)
        return 0; /* readlink said EINVAL: it is there */
    if (stat(r->out, &st) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static long real_walk(struct real *r)
{
    char target[KFS_PATH_MAX];
    const char *at = r->todo;
    for (;;) {
        size_t len;
        while (*at == '/')
            at++;
        const char *name = at;
        while (*at && *at != '/')
            at++;
        len = (size_t)(at - name);
        if (len == 0)
            return 0;
        if (len == 1 && name[0] == '.')
            continue;
        if (len == 2 && name[0] == '.' && name[1] == '.') {
            real_up(r);
            continue;
        }
        if (r->n + 1 + len >= sizeof r->out)
            return -ENAMETOOLONG;
        size_t before = r->n;
        r->out[r->n++] = '/';
        memcpy(r->out + r->n, name, len);
        r->n += len;
        r->out[r->n] = '\0';
        ssize_t t = readlink(r->out, target, sizeof target);
        if (t < 0) {
            long e = errno == EINVAL ? real_check(r, *at == '/') : -errno;
            if (e && !(e == -ENOENT && above_prefix(r)))
                return e;
            continue;
        }
        if ((size_t)t >= sizeof target)
            return -ENAMETOOLONG;
        long e = real_link(r, at, target, (size_t)t);
        if (e)
            return e;
        at = r->todo;
        if (target[0] == '/')
            before = 0;
        r->n = before;
        r->out[r->n] = '\0';
    }
}

static long real_start(struct real *r, const char *path)
{
    r->n = 0;
    r->links = 0;
    r->out[0] = '\0';
    size_t len = strlen(path);
    if (len == 0)
        return -ENOENT;
    if (len >= sizeof r->todo)
        return -ENAMETOOLONG;
    memcpy(r->todo, path, len + 1);
    if (path[0] == '/')
        return 0;
    if (!getcwd(r->out, sizeof r->out))
        return -errno;
    r->n = r->out[1] ? strlen(r->out) : 0;
    return 0;
}

char *kfs_do_realpath(const char *path, char *resolved)
{
    if (!path) {
        errno = EINVAL;
        return NULL;
    }
    int saved = errno;
    struct real r;
    kfs_pre_late_end(); /* each call made here looks at host symlinks itself */
    long e = real_start(&r, path);
    if (e == 0)
        e = real_walk(&r);
    if (r.n == 0 && (e == 0 || path[0] == '/')) {
        r.out[r.n++] = '/';
        r.out[r.n] = '\0';
    }
    if (resolved && (e == 0 || e == -ENOENT || e == -EACCES))
        memcpy(resolved, r.out, r.n + 1); /* on failure: the name that failed, as libc's does */
    errno = e < 0 ? (int)-e : saved;
    if (e < 0)
        return NULL;
    return resolved ? resolved : strdup(r.out);
}

char *kfs_do_canonicalize_file_name(const char *path)
{
    return kfs_do_realpath(path, NULL);
}

/* The key of System V IPC: 8 bits of the id, 8 of the device, 16 of the inode, as libc makes it. */
int kfs_do_ftok(const char *path, int id)
{
    struct stat s;
    if (stat(path, &s) < 0)
        return -1;
    return (int)((uint32_t)id << 24 | (uint32_t)(s.st_dev & 0xff) << 16 | (uint32_t)(s.st_ino & 0xffff));
}
