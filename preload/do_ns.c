/* preload/do_ns.c — names: mkdir, unlink, rename, link, symlink, readlink, mknod; and what takes a path but is no file call: watches, handles */
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static void call_init(struct kfs_call *c, enum kfs_wire_op op)
{
    memset(c, 0, offsetof(struct kfs_call, rep));
    c->req.op = (uint16_t)op;
}

/* An operation on one name whose last component is never followed. KFS_OURS: done; KFS_HOST: as it came; KFS_HOST_AT: on loc->host; -errno. */
static long name_call(int dirfd, const char *path, struct kfs_call *c, struct kfs_loc *loc)
{
    int w = kfs_pre_where_nofollow(dirfd, path, loc);
    if (w != KFS_OURS)
        return w;
    c->req.flags |= KFS_WIRE_NOFOLLOW;
    long r = kfs_pre_rpc_at(loc, c);
    return r < 0 ? r : r == 1 ? KFS_HOST_AT : KFS_OURS;
}

/* --- one name --------------------------------------------------------------------------------------------------------- */
int kfs_do_mkdirat(int dirfd, const char *path, mode_t mode)
{
    struct kfs_loc loc;
    struct kfs_call c;
    call_init(&c, KFS_OP_MKDIR);
    c.req.mode = mode & 07777;
    c.req.umask = kfs_pre_umask();
    long r = name_call(dirfd, path, &c, &loc);
    if (r == KFS_HOST)
        return kfs_real.mkdirat(dirfd, path, mode);
    if (r == KFS_HOST_AT)
        return kfs_real.mkdirat(AT_FDCWD, loc.host, mode);
    return r < 0 ? (int)kfs_pre_ret(r) : 0;
}

int kfs_do_mkdir(const char *path, mode_t mode)
{
    return kfs_do_mkdirat(AT_FDCWD, path, mode);
}

/* -errno, 0, KFS_HOST_AT (loc->host), or 1000: the real call as it came. */
static long remove_at(int dirfd, const char *path, int flags, struct kfs_loc *loc)
{
    struct kfs_call c;
    call_init(&c, KFS_OP_UNLINK);
    c.req.value = (uint64_t)flags;
    int w = kfs_pre_where_nofollow(dirfd, path, loc);
    if (w < 0)
        return w;
    if (w == KFS_HOST)
        return 1000;
    if (w == KFS_HOST_AT)
        return w;
    if (!*loc->rel && loc->base == loc->vol->root)
        return flags & AT_REMOVEDIR ? -EBUSY : -EISDIR;
    c.req.flags = KFS_WIRE_NOFOLLOW;
    long r = kfs_pre_rpc_at(loc, &c);
    return r == 1 ? KFS_HOST_AT : r;
}

int kfs_do_unlinkat(int dirfd, const char *path, int flags)
{
    struct kfs_loc loc;
    if (flags & ~AT_REMOVEDIR)
        return (int)kfs_pre_ret(-EINVAL);
    long r = remove_at(dirfd, path, flags, &loc);
    if (r == 1000)
        return kfs_real.unlinkat(dirfd, path, flags);
    if (r == KFS_HOST_AT)
        return kfs_real.unlinkat(AT_FDCWD, loc.host, flags);
    return (int)kfs_pre_ret(r);
}

int kfs_do_unlink(const char *path)
{
    return kfs_do_unlinkat(AT_FDCWD, path, 0);
}

int kfs_do_rmdir(const char *path)
{
    return kfs_do_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int kfs_do_remove(const char *path)
{
    struct kfs_loc loc;
    long r = remove_at(AT_FDCWD, path, 0, &loc);
    if (r == -EISDIR)
        r = remove_at(AT_FDCWD, path, AT_REMOVEDIR, &loc);
    if (r == 1000 || r == KFS_HOST_AT)
        return kfs_real.remove(r == 1000 ? path : loc.host);
    return (int)kfs_pre_ret(r);
}

int kfs_do_mknodat(int dirfd, const char *path, mode_t mode, dev_t dev)
{
    struct kfs_loc loc;
    struct kfs_call c;
    mode_t type = mode & S_IFMT ? mode & S_IFMT : S_IFREG;
    if (type != S_IFREG && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO && type != S_IFSOCK)
        return (int)kfs_pre_ret(type == S_IFDIR ? -EPERM : -EINVAL);
    call_init(&c, KFS_OP_MKNOD);
    c.req.mode = type | (mode & 07777);
    c.req.umask = kfs_pre_umask();
    c.req.value = dev;
    long r = name_call(dirfd, path, &c, &loc);
    if (r == KFS_HOST)
        return kfs_real.mknodat(dirfd, path, mode, dev);
    if (r == KFS_HOST_AT)
        return kfs_real.mknodat(AT_FDCWD, loc.host, mode, dev);
    return r < 0 ? (int)kfs_pre_ret(r) : 0;
}

int kfs_do_mknod(const char *path, mode_t mode, dev_t dev)
{
    return kfs_do_mknodat(AT_FDCWD, path, mode, dev);
}

int kfs_do_mkfifoat(int dirfd, const char *path, mode_t mode)
{
    return kfs_do_mknodat(dirfd, path, (mode & 07777) | S_IFIFO, 0);
}

int kfs_do_mkfifo(const char *path, mode_t mode)
{
    return kfs_do_mkfifoat(AT_FDCWD, path, mode);
}

int kfs_do_symlinkat(const char *target, int dirfd, const char *path)
{
    struct kfs_loc loc;
    struct kfs_call c;
    long n = kfs_guard_strlen(target, KFS_PATH_MAX);
    if (n <= 0 || n >= KFS_PATH_MAX)
        return (int)kfs_pre_ret(n < 0 ? n : n ? -ENAMETOOLONG : -ENOENT);
    call_init(&c, KFS_OP_SYMLINK);
    c.data = target;
    c.data_len = (size_t)n;
    long r = name_call(dirfd, path, &c, &loc);
    if (r == KFS_HOST)
        return kfs_real.symlinkat(target, dirfd, path);
    if (r == KFS_HOST_AT)
        return kfs_real.symlinkat(target, AT_FDCWD, loc.host);
    return r < 0 ? (int)kfs_pre_ret(r) : 0;
}

int kfs_do_symlink(const char *target, const char *path)
{
    return kfs_do_symlinkat(target, AT_FDCWD, path);
}

/* --- two names ------------------------------------------------------------------------------------------------------------ */
/* An operation on two names of one volume; either may escape. 0, -errno (-EXDEV when they part), or 1: both are the host's. */
static long names_call(struct kfs_loc *a, struct kfs_loc *b, int wa, int wb, struct kfs_call *c)
{
    char text[KFS_PATH_MAX];
    for (;;) {
        if (wa < 0 || wb < 0)
            return wa < 0 ? wa : wb;
        if (wa != KFS_OURS && wb != KFS_OURS)
            return 1;
        if (wa != wb || a->vol != b->vol)
            return -EXDEV;
        c->req.ino = a->base;
        c->path = a->rel;
        c->req.ino2 = b->base;
        c->path2 = b->rel;
        c->reply = text;
        c->reply_cap = sizeof text;
        long r = kfs_pre_rpc(a->vol, c);
        if (r != KFS_WIRE_ESCAPE_ABS && r != KFS_WIRE_ESCAPE_UP)
            return r;
        if (c->rep.value == 2)
            wb = kfs_pre_escape(b, (int)r, text, c->reply_len);
        else
            wa = kfs_pre_escape(a, (int)r, text, c->reply_len);
    }
}

/* What the real call gets for a name: the caller's words, or loc->host. */
struct real_name {
    int dirfd;
    const char *path;
};
static struct real_name real_name(int w, const struct kfs_loc *loc, int dirfd, const char *path)
{
    return w == KFS_HOST ? (struct real_name){dirfd, path} : (struct real_name){AT_FDCWD, loc->host};
}

/* Before "different file systems": is the host's name one at all? */
static long parted(long error, int w, int dirfd, const char *path)
{
    bool bad = error == -EXDEV && w == KFS_HOST && path[0] != '/' && dirfd != AT_FDCWD && kfs_sys_fcntl(dirfd, F_GETFD, 0) == -EBADF;
    return bad ? -EBADF : error;
}

static bool root_itself(const struct kfs_loc *l, int w)
{
    return w == KFS_OURS && !*l->rel && l->base == l->vol->root;
}

int kfs_do_renameat2(int fromfd, const char *from, int tofd, const char *to, unsigned flags)
{
    struct kfs_loc a, b;
    struct kfs_call c;
    int wa = kfs_pre_where_nofollow(fromfd, from, &a), wb = kfs_pre_where_nofollow(tofd, to, &b);
    if (wa == KFS_HOST && wb == KFS_HOST)
        return kfs_real.renameat2(fromfd, from, tofd, to, flags);
    if ((flags & ~3u) || flags == 3)
        return (int)kfs_pre_ret(-EINVAL);
    if (root_itself(&a, wa) || root_itself(&b, wb))
        return (int)kfs_pre_ret(wa == wb ? -EBUSY : -EXDEV);
    call_init(&c, KFS_OP_RENAME);
    c.req.value = flags;
    c.req.flags = KFS_WIRE_NOFOLLOW;
    long r = names_call(&a, &b, wa, wb, &c);
    if (r == -ENAMETOOLONG && wa == KFS_OURS) { /* the first name is looked at first */
        struct kfs_attr attr;
        long first = kfs_pre_attr_at(&a, false, &attr);
        r = first < 0 ? first : r;
    }
    if (r != 1)
        return (int)kfs_pre_ret(parted(parted(r, wa, fromfd, from), wb, tofd, to));
    struct real_name na = real_name(wa == KFS_OURS ? KFS_HOST_AT : wa, &a, fromfd, from), nb = real_name(wb == KFS_OURS ? KFS_HOST_AT : wb, &b, tofd, to);
    return kfs_real.renameat2(na.dirfd, na.path, nb.dirfd, nb.path, flags);
}

int kfs_do_renameat(int fromfd, const char *from, int tofd, const char *to)
{
    struct kfs_loc loc;
    /* Not renameat2 where both stay on the host: old kernels and file systems lack it. */
    if (kfs_pre_where_nofollow(fromfd, from, &loc) == KFS_HOST && kfs_pre_where_nofollow(tofd, to, &loc) == KFS_HOST)
        return kfs_real.renameat(fromfd, from, tofd, to);
    return kfs_do_renameat2(fromfd, from, tofd, to, 0);
}

int kfs_do_rename(const char *from, const char *to)
{
    return kfs_do_renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int kfs_do_linkat(int fromfd, const char *from, int tofd, const char *to, int flags)
{
    struct kfs_loc a, b;
    struct kfs_call c;
    struct kfs_fdinfo i;
    if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
        return (int)kfs_pre_ret(-EINVAL);
    bool follow = flags & AT_SYMLINK_FOLLOW;
    int wa;
    if ((flags & AT_EMPTY_PATH) && from && !*from) {
        wa = kfs_pre_fd(fromfd, &i) ? KFS_OURS : KFS_HOST;
        a.vol = i.vol;
        a.base = i.ino;
        a.rel = "";
        a.hops = 0;
    } else {
        wa = follow ? kfs_pre_where(fromfd, from, &a) : kfs_pre_where_nofollow(fromfd, from, &a);
    }
    int wb = kfs_pre_where_nofollow(tofd, to, &b);
    if (wa == KFS_HOST && wb == KFS_HOST)
        return kfs_real.linkat(fromfd, from, tofd, to, flags);
    call_init(&c, KFS_OP_LINK);
    c.req.flags = follow ? 0 : KFS_WIRE_NOFOLLOW;
    long r = names_call(&a, &b, wa, wb, &c);
    if (r != 1)
        return (int)kfs_pre_ret(parted(parted(r, wa, fromfd, from), wb, tofd, to));
    struct real_name na = real_name(wa == KFS_OURS ? KFS_HOST_AT : wa, &a, fromfd, from), nb = real_name(wb == KFS_OURS ? KFS_HOST_AT : wb, &b, tofd, to);
    return kfs_real.linkat(na.dirfd, na.path, nb.dirfd, nb.path, flags & ~AT_EMPTY_PATH);
}

int kfs_do_link(const char *from, const char *to)
{
    return kfs_do_linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* --- readlink ------------------------------------------------------------------------------------------------------------------ */
/* The path of an inode as the application sees it, into buf. Length or -errno. */
static long path_of(struct kfs_vol *v, kfs_ino_t ino, char *buf, size_t cap)
{
    char text[KFS_PATH_MAX];
    struct kfs_call c;
    call_init(&c, KFS_OP_PATHOF);
    c.req.ino = ino;
    c.reply = text;
    c.reply_cap = sizeof text;
    long r = kfs_pre_rpc(v, &c);
    if (r < 0)
        return r;
    size_t n = c.reply_len == 1 || c.reply_len > sizeof text ? 0 : c.reply_len, p = v->m.prefix_len; /* "/" is the prefix itself */
    size_t first = p < cap ? p : cap, second = n < cap - first ? n : cap - first;
    if (!kfs_guard_can_write(buf, first + second))
        return -EFAULT;
    memcpy(buf, v->m.prefix, first);
    memcpy(buf + first, text, second);
    return (long)(first + second);
}

/* "/proc/self/fd/N" and "/proc/self/cwd" of ours. Length, -errno, or -1000: none of ours. */
static long magic_read(const char *path, char *buf, size_t cap)
{
    int fd;
    const char *rest;
    struct kfs_fdinfo i;
    if (!kfs_pre_magic(path, &fd, &rest) || *rest)
        return -1000;
    if (fd == AT_FDCWD) {
        if (!kfs_pre_cwd.vol)
            return -1000;
        i.vol = kfs_pre_cwd.vol;
        i.ino = kfs_pre_cwd.ino;
    } else if (!kfs_pre_fd(fd, &i)) {
        return -1000;
    }
    long r = path_of(i.vol, i.ino, buf, cap);
    return r == -EFAULT ? kfs_pre_ret(r) : r < 0 ? -1000 : r; /* removed, or a file without a known name: as the kernel reads it */
}

ssize_t kfs_do_readlinkat(int dirfd, const char *path, char *buf, size_t cap)
{
    struct kfs_loc loc;
    struct kfs_attr a;
    struct kfs_call c;
    if ((int)cap <= 0) /* the kernel's length is an int */
        return kfs_pre_ret(-EINVAL);
    if (path) {
        long m = magic_read(path, buf, cap);
        if (m != -1000)
            return m;
    }
    struct kfs_fdinfo i;
    int w;
    if (path && !*path && dirfd != AT_FDCWD) { /* an O_PATH descriptor of a symlink */
        if (!kfs_pre_fd(dirfd, &i))
            return kfs_real.readlinkat(dirfd, path, buf, cap);
        loc.vol = i.vol;
        loc.base = i.ino;
        loc.rel = "";
        loc.hops = 0;
        w = KFS_OURS;
    } else {
        w = kfs_pre_where_nofollow(dirfd, path, &loc);
    }
    if (w == KFS_HOST)
        return kfs_real.readlinkat(dirfd, path, buf, cap);
    if (w == KFS_HOST_AT)
        return kfs_real.readlinkat(AT_FDCWD, loc.host, buf, cap);
    if (w < 0)
        return kfs_pre_ret(w);
    int k = kfs_pre_lookup(&loc, false, &a);
    if (k < 0 || (k == 1 && !S_ISLNK(a.mode)))
        return kfs_pre_ret(k < 0 ? k : -EINVAL);
    char text[KFS_PATH_MAX];
    const struct kfs_shm_header *shm = __atomic_load_n(&loc.vol->shm, __ATOMIC_ACQUIRE);
    long n = k == 1 && shm ? kfs_shm_link_get(shm, a.ino, text) : -1;
    if (n < 0) {
        call_init(&c, KFS_OP_READLINK);
        c.req.flags = KFS_WIRE_NOFOLLOW;
        c.reply = text;
        c.reply_cap = sizeof text;
        long r = kfs_pre_rpc_at(&loc, &c);
        if (r == 1)
            return kfs_real.readlinkat(AT_FDCWD, loc.host, buf, cap);
        if (r < 0)
            return kfs_pre_ret(r);
        n = (long)c.reply_len;
    }
    size_t take = (size_t)n < cap ? (size_t)n : cap;
    if (!kfs_guard_can_write(buf, take))
        return kfs_pre_ret(-EFAULT);
    memcpy(buf, text, take);
    return (ssize_t)take;
}

ssize_t kfs_do_readlink(const char *path, char *buf, size_t cap)
{
    return kfs_do_readlinkat(AT_FDCWD, path, buf, cap);
}

/* --- no file calls ----------------------------------------------------------------------------------------------------------------- */
int kfs_do_inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    struct kfs_loc loc;
    struct kfs_attr a;
    char name[KFS_PATH_MAX];
    int w = kfs_pre_where(AT_FDCWD, path, &loc);
    long r = w == KFS_OURS ? kfs_pre_attr_at(&loc, !(mask & IN_DONT_FOLLOW), &a) : w;
    if (w == KFS_HOST)
        return kfs_real.inotify_add_watch(fd, path, mask);
    if (w == KFS_HOST_AT || (w == KFS_OURS && r == 1))
        return kfs_real.inotify_add_watch(fd, loc.host, mask);
    if (r < 0)
        return (int)kfs_pre_ret(r);
    if (!S_ISREG(a.mode))
        return (int)kfs_pre_ret(mask & IN_ONLYDIR && !S_ISDIR(a.mode) ? -ENOTDIR : -EOPNOTSUPP);
    if (mask & IN_ONLYDIR)
        return (int)kfs_pre_ret(-ENOTDIR);
    long file = kfs_pre_open_loc(&loc, O_RDONLY | O_CLOEXEC, 0, 0);
    if (file < 0)
        return (int)kfs_pre_ret(file == KFS_PRE_GO_HOST ? -ENOENT : file);
    kfs_pre_fd_path((int)file, name, sizeof name);
    int wd = kfs_real.inotify_add_watch(fd, name, mask & ~(uint32_t)IN_DONT_FOLLOW);
    int saved = errno;
    kfs_pre_fd_not((int)file);
    kfs_sys_close((int)file);
    errno = saved;
    return wd;
}

int kfs_do_name_to_handle_at(int dirfd, const char *path, struct file_handle *handle, int *mount_id, int flags)
{
    struct kfs_loc loc;
    struct kfs_fdinfo i;
    if ((flags & AT_EMPTY_PATH) && path && !*path)
        return kfs_pre_fd(dirfd, &i) ? (int)kfs_pre_ret(-EOPNOTSUPP) : kfs_real.name_to_handle_at(dirfd, path, handle, mount_id, flags);
    int w = flags & AT_SYMLINK_FOLLOW ? kfs_pre_where(dirfd, path, &loc) : kfs_pre_where_nofollow(dirfd, path, &loc);
    if (w == KFS_HOST)
        return kfs_real.name_to_handle_at(dirfd, path, handle, mount_id, flags);
    if (w == KFS_HOST_AT)
        return kfs_real.name_to_handle_at(AT_FDCWD, loc.host, handle, mount_id, flags);
    return (int)kfs_pre_ret(w < 0 ? w : -EOPNOTSUPP);
}

int kfs_do_fanotify_mark(int fd, unsigned flags, uint64_t mask, int dirfd, const char *path)
{
    struct kfs_loc loc;
    struct kfs_fdinfo i;
    if (!path)
        return kfs_pre_fd(dirfd, &i) ? (int)kfs_pre_ret(-EOPNOTSUPP) : kfs_real.fanotify_mark(fd, flags, mask, dirfd, path);
    int w = kfs_pre_where(dirfd, path, &loc);
    if (w == KFS_HOST)
        return kfs_real.fanotify_mark(fd, flags, mask, dirfd, path);
    if (w == KFS_HOST_AT)
        return kfs_real.fanotify_mark(fd, flags, mask, AT_FDCWD, loc.host);
    return (int)kfs_pre_ret(w < 0 ? w : -EOPNOTSUPP);
}
