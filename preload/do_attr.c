/* preload/do_attr.c — stat, access, chmod, chown, times, truncate, statfs, pathconf, xattrs */
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>
#include "preload/libc_gaps.h"

#define KFS_STATFS_MAGIC 0x4b465331 /* "KFS1" */

static void call_init(struct kfs_call *c, enum kfs_wire_op op)
{
    memset(c, 0, offsetof(struct kfs_call, rep));
    c->req.op = (uint16_t)op;
}

/* --- finding out ----------------------------------------------------------------------------------------------------- */
static bool complete(const struct kfs_attr *a)
{
    return !(a->flags & KFS_ATTR_LIVE) || !S_ISREG(a->mode);
}

long kfs_pre_attr_at(struct kfs_loc *loc, bool follow, struct kfs_attr *ret)
{
    struct kfs_call c;
    int r = kfs_pre_lookup(loc, follow, ret);
    if (r < 0)
        return r;
    if (r == 1 && complete(ret))
        return 0;
    call_init(&c, KFS_OP_LOOKUP);
    c.req.flags = follow ? 0 : KFS_WIRE_NOFOLLOW;
    long s = kfs_pre_rpc_at(loc, &c);
    if (s == 0)
        *ret = c.rep.attr;
    return s;
}

/* Attributes of an open descriptor. An inode that is open for writing somewhere: size, blocks and mtime are the kernel's, which st holds. */
static long attr_fd(const struct kfs_fdinfo *i, const struct stat *st, struct kfs_attr *ret)
{
    /* A stand-in's descriptor says nothing of the file: kfsd knows all. */
    if (!kfs_pre_attr(i->vol, i->ino, ret) || (i->standin && (ret->flags & KFS_ATTR_LIVE))) {
        struct kfs_call c;
        call_init(&c, KFS_OP_LOOKUP);
        c.req.ino = i->ino;
        long r = kfs_pre_rpc(i->vol, &c);
        if (r == -ENOENT && S_ISFIFO(st->st_mode)) { /* removed; nobody counts who has it open */
            *ret = (struct kfs_attr){.ino = i->ino, .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid};
            return 0;
        }
        if (r < 0)
            return r;
        *ret = c.rep.attr;
    } else {
        kfs_pre_count(KFS_TIER_SHM);
    }
    if (!S_ISREG(ret->mode) || i->standin || !(i->writer || (ret->flags & KFS_ATTR_LIVE)))
        return 0;
    ret->size_bytes = (uint64_t)st->st_size;
    ret->blocks = (uint64_t)st->st_blocks;
    ret->mtime_s = st->st_mtim.tv_sec;
    ret->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
    bool newer = st->st_ctim.tv_sec > ret->ctime_s || (st->st_ctim.tv_sec == ret->ctime_s && st->st_ctim.tv_nsec > (long)ret->ctime_ns);
    if (newer && (st->st_mtim.tv_sec > ret->ctime_s || (st->st_mtim.tv_sec == ret->ctime_s && st->st_mtim.tv_nsec > (long)ret->ctime_ns))) {
        ret->ctime_s = st->st_ctim.tv_sec;
        ret->ctime_ns = (uint32_t)st->st_ctim.tv_nsec;
    }
    return 0;
}

static int stat_fill(const struct kfs_vol *v, const struct kfs_attr *a, struct stat *st)
{
    if (!kfs_guard_can_write(st, sizeof *st))
        return -EFAULT;
    memset(st, 0, sizeof *st);
    st->st_dev = v->dev;
    st->st_ino = a->ino;
    st->st_mode = a->mode;
    st->st_nlink = a->nlink;
    st->st_uid = a->uid;
    st->st_gid = a->gid;
    st->st_rdev = a->rdev;
    st->st_size = (off_t)a->size_bytes;
    st->st_blksize = 4096;
    st->st_blocks = (blkcnt_t)a->blocks;
    st->st_atim = (struct timespec){a->atime_s, a->atime_ns};
    st->st_mtim = (struct timespec){a->mtime_s, a->mtime_ns};
    st->st_ctim = (struct timespec){a->ctime_s, a->ctime_ns};
    return 0;
}

static void statx_time(struct statx_timestamp *t, int64_t s, uint32_t ns)
{
    t->tv_sec = s;
    t->tv_nsec = ns;
}

static int statx_fill(const struct kfs_vol *v, const struct kfs_attr *a, struct statx *x)
{
    if (!kfs_guard_can_write(x, sizeof *x))
        return -EFAULT;
    memset(x, 0, sizeof *x);
    x->stx_mask = STATX_BASIC_STATS | STATX_BTIME;
    x->stx_blksize = 4096;
    x->stx_nlink = a->nlink;
    x->stx_uid = a->uid;
    x->stx_gid = a->gid;
    x->stx_mode = (uint16_t)a->mode;
    x->stx_ino = a->ino;
    x->stx_size = a->size_bytes;
    x->stx_blocks = a->blocks;
    statx_time(&x->stx_atime, a->atime_s, a->atime_ns);
    statx_time(&x->stx_btime, a->btime_s, a->btime_ns);
    statx_time(&x->stx_ctime, a->ctime_s, a->ctime_ns);
    statx_time(&x->stx_mtime, a->mtime_s, a->mtime_ns);
    x->stx_rdev_major = major(a->rdev);
    x->stx_rdev_minor = minor(a->rdev);
    x->stx_dev_major = major(v->dev);
    x->stx_dev_minor = minor(v->dev);
    x->stx_attributes_mask = 0;
    return 0;
}

/* The object that (dirfd, path, flags) of a *at call names, with AT_EMPTY_PATH. KFS_OURS: *ret, *ret_vol. KFS_HOST: the real call as it came; KFS_HOST_AT: on
 * loc->host; -errno. */
static long attr_of(int dirfd, const char *path, int flags, struct kfs_loc *loc, struct kfs_attr *ret, struct kfs_vol **ret_vol)
{
    bool follow = !(flags & AT_SYMLINK_NOFOLLOW);
    if ((flags & AT_EMPTY_PATH) && (!path || !*path)) {
        struct kfs_fdinfo i;
        struct stat st;
        if (dirfd == AT_FDCWD) {
            path = ".";
        } else {
            if (!kfs_pre_fd_stat(dirfd, &i, &st))
                return KFS_HOST;
            long r = attr_fd(&i, &st, ret);
            *ret_vol = i.vol;
            return r < 0 ? r : KFS_OURS;
        }
    }
    int w = follow ? kfs_pre_where(dirfd, path, loc) : kfs_pre_where_nofollow(dirfd, path, loc);
    if (w != KFS_OURS)
        return w;
    long r = kfs_pre_attr_at(loc, follow, ret);
    *ret_vol = loc->vol;
    return r < 0 ? r : r == 1 ? KFS_HOST_AT : KFS_OURS;
}

int kfs_do_fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
    struct kfs_loc loc;
    struct kfs_attr a;
    struct kfs_vol *v;
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH))
        return (int)kfs_pre_ret(-EINVAL);
    long r = attr_of(dirfd, path, flags, &loc, &a, &v);
    if (r == KFS_HOST)
        return kfs_real.fstatat(dirfd, path, st, flags);
    if (r == KFS_HOST_AT)
        return kfs_real.fstatat(AT_FDCWD, loc.host, st, flags & ~AT_EMPTY_PATH);
    if (r < 0)
        return (int)kfs_pre_ret(r);
    return (int)kfs_pre_ret(stat_fill(v, &a, st));
}

int kfs_do_stat(const char *path, struct stat *st)
{
    return kfs_do_fstatat(AT_FDCWD, path, st, 0);
}

int kfs_do_lstat(const char *path, struct stat *st)
{
    return kfs_do_fstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

int kfs_do_fstat(int fd, struct stat *st)
{
    struct kfs_fdinfo i;
    struct stat k;
    struct kfs_attr a;
    if (!kfs_pre_fd_stat(fd, &i, &k))
        return kfs_real.fstat(fd, st);
    long r = attr_fd(&i, &k, &a);
    if (r < 0)
        return (int)kfs_pre_ret(r);
    return (int)kfs_pre_ret(stat_fill(i.vol, &a, st));
}

int kfs_do_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
    struct kfs_loc loc;
    struct kfs_attr a;
    struct kfs_vol *v;
    const int known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
    if ((flags & ~known) || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE || (mask & STATX__RESERVED))
        return (int)kfs_pre_ret(-EINVAL);
    long r = attr_of(dirfd, path, flags, &loc, &a, &v);
    if (r == KFS_HOST)
        return kfs_real.statx(dirfd, path, flags, mask, stx);
    if (r == KFS_HOST_AT)
        return kfs_real.statx(AT_FDCWD, loc.host, flags & ~AT_EMPTY_PATH, mask, stx);
    if (r < 0)
        return (int)kfs_pre_ret(r);
    return (int)kfs_pre_ret(statx_fill(v, &a, stx));
}

/* --- access --------------------------------------------------------------------------------------------------------------- */
int kfs_do_faccessat(int dirfd, const char *path, int mode, int flags)
{
    struct kfs_loc loc;
    struct kfs_attr a;
    struct kfs_vol *v;
    if ((mode & ~7) || (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)))
        return (int)kfs_pre_ret(-EINVAL);
    long r = attr_of(dirfd, path, flags & ~AT_EACCESS, &loc, &a, &v);
    if (r == KFS_HOST)
        return kfs_real.faccessat(dirfd, path, mode, flags);
    if (r == KFS_HOST_AT)
        return kfs_real.faccessat(AT_FDCWD, loc.host, mode, flags & ~AT_EMPTY_PATH);
    if (r < 0)
        return (int)kfs_pre_ret(r);
    if (mode && !kfs_perm_ok(flags & AT_EACCESS ? kfs_pre_cred() : kfs_pre_cred_real(), a.mode, a.uid, a.gid, (unsigned)mode))
        return (int)kfs_pre_ret(-EACCES);
    return 0;
}

int kfs_do_access(const char *path, int mode)
{
    return kfs_do_faccessat(AT_FDCWD, path, mode, 0);
}

int kfs_do_euidaccess(const char *path, int mode)
{
    return kfs_do_faccessat(AT_FDCWD, path, mode, AT_EACCESS);
}

/* --- statfs, pathconf ------------------------------------------------------------------------------------------------------- */
static long statfs_get(struct kfs_loc *loc, struct kfs_wire_statfs *ret)
{
    struct kfs_call c;
    call_init(&c, KFS_OP_STATFS);
    c.reply = ret;
    c.reply_cap = sizeof *ret;
    long r = kfs_pre_rpc_at(loc, &c);
    return r != 0 ? r : c.reply_len == sizeof *ret ? 0 : -EIO;
}

static int statfs_fill(const struct kfs_wire_statfs *f, struct statfs *st)
{
    if (!kfs_guard_can_write(st, sizeof *st))
        return -EFAULT;
    memset(st, 0, sizeof *st);
    st->f_type = KFS_STATFS_MAGIC;
    st->f_bsize = (long)f->block_bytes;
    st->f_frsize = (long)f->block_bytes;
    st->f_blocks = f->blocks;
    st->f_bfree = st->f_bavail = f->blocks_free;
    st->f_files = f->files;
    st->f_ffree = f->files_free;
    memcpy(&st->f_fsid, &f->fsid, sizeof st->f_fsid);
    st->f_namelen = KFS_NAME_MAX;
    st->f_flags = 0x20; /* "flags are valid" */
    return 0;
}

static int statvfs_fill(const struct kfs_wire_statfs *f, struct statvfs *st)
{
    if (!kfs_guard_can_write(st, sizeof *st))
        return -EFAULT;
    memset(st, 0, sizeof *st);
    st->f_bsize = st->f_frsize = f->block_bytes;
    st->f_blocks = f->blocks;
    st->f_bfree = st->f_bavail = f->blocks_free;
    st->f_files = f->files;
    st->f_ffree = st->f_favail = f->files_free;
    st->f_fsid = f->fsid;
    st->f_namemax = KFS_NAME_MAX;
    return 0;
}

/* As attr_of: KFS_OURS with *ret filled, or where else. */
static long statfs_path(const char *path, struct kfs_loc *loc, struct kfs_wire_statfs *ret)
{
    struct kfs_attr a;
    int w = kfs_pre_where(AT_FDCWD, path, loc);
    if (w != KFS_OURS)
        return w;
    long r = kfs_pre_attr_at(loc, true, &a);
    if (r != 0)
        return r < 0 ? r : KFS_HOST_AT;
    loc->base = loc->vol->root;
    loc->rel = "";
    r = statfs_get(loc, ret);
    return r < 0 ? r : KFS_OURS;
}

static long statfs_fd(int fd, struct kfs_wire_statfs *ret)
{
    struct kfs_fdinfo i;
    struct kfs_loc loc;
    if (!kfs_pre_fd(fd, &i))
        return KFS_HOST;
    loc.vol = i.vol;
    loc.base = i.vol->root; /* also for removed files */
    loc.rel = "";
    loc.hops = 0;
    long r = statfs_get(&loc, ret);
    return r < 0 ? r : KFS_OURS;
}

int kfs_do_statfs(const char *path, struct statfs *st)
{
    struct kfs_loc loc;
    struct kfs_wire_statfs f;
    long r = statfs_path(path, &loc, &f);
    if (r == KFS_HOST || r == KFS_HOST_AT)
        return kfs_real.statfs(r == KFS_HOST ? path : loc.host, st);
    return (int)kfs_pre_ret(r > 0 ? statfs_fill(&f, st) : r);
}

int kfs_do_fstatfs(int fd, struct statfs *st)
{
    struct kfs_wire_statfs f;
    long r = statfs_fd(fd, &f);
    if (r == KFS_HOST)
        return kfs_real.fstatfs(fd, st);
    return (int)kfs_pre_ret(r > 0 ? statfs_fill(&f, st) : r);
}

int kfs_do_statvfs(const char *path, struct statvfs *st)
{
    struct kfs_loc loc;
    struct kfs_wire_statfs f;
    long r = statfs_path(path, &loc, &f);
    if (r == KFS_HOST || r == KFS_HOST_AT)
        return kfs_real.statvfs(r == KFS_HOST ? path : loc.host, st);
    return (int)kfs_pre_ret(r > 0 ? statvfs_fill(&f, st) : r);
}

int kfs_do_fstatvfs(int fd, struct statvfs *st)
{
    struct kfs_wire_statfs f;
    long r = statfs_fd(fd, &f);
    if (r == KFS_HOST)
        return kfs_real.fstatvfs(fd, st);
    return (int)kfs_pre_ret(r > 0 ? statvfs_fill(&f, st) : r);
}

static long conf(int name)
{
    switch (name) {
    case _PC_LINK_MAX:
        return 2147483647;
    case _PC_NAME_MAX:
        return KFS_NAME_MAX;
    case _PC_PATH_MAX:
    case _PC_PIPE_BUF:
    case _PC_REC_MIN_XFER_SIZE:
    case _PC_REC_XFER_ALIGN:
    case _PC_ALLOC_SIZE_MIN:
        return 4096;
    case _PC_MAX_CANON:
    case _PC_MAX_INPUT:
        return 255;
    case _PC_CHOWN_RESTRICTED:
    case _PC_NO_TRUNC:
    case _PC_SYNC_IO:
    case _PC_2_SYMLINKS:
        return 1;
    case _PC_VDISABLE:
        return 0;
    case _PC_FILESIZEBITS:
        return 64;
    case _PC_PRIO_IO:
    case _PC_ASYNC_IO:
    case _PC_SOCK_MAXBUF:
    case _PC_REC_INCR_XFER_SIZE:
    case _PC_REC_MAX_XFER_SIZE:
    case _PC_SYMLINK_MAX:
        return -1; /* no limit, or not supported: errno as it was */
    default:
        errno = EINVAL;
        return -1;
    }
}

long kfs_do_pathconf(const char *path, int name)
{
    struct kfs_loc loc;
    struct kfs_attr a;
    struct kfs_vol *v;
    long r = attr_of(AT_FDCWD, path, 0, &loc, &a, &v);
    if (r == KFS_HOST || r == KFS_HOST_AT)
        return kfs_real.pathconf(r == KFS_HOST ? path : loc.host, name);
    return r < 0 ? kfs_pre_ret(r) : conf(name);
}

long kfs_do_fpathconf(int fd, int name)
{
    struct kfs_fdinfo i;
    return kfs_pre_fd(fd, &i) ? conf(name) : kfs_real.fpathconf(fd, name);
}

/* --- changing attributes -------------------------------------------------------------------------------------------------------- */
static bool path_only(int fd)
{
    long fl = kfs_sys_fcntl(fd, F_GETFL, 0);
    return fl >= 0 && (fl & O_PATH);
}

/* Programs that copy set the mode and the owner that a file has anyway. Within a tick of the kernel's file clock after the last change not even
 * ctime could tell that it was done again. */
#define SAME_TICK_NS 10000000

static bool changes_nothing(const struct kfs_fdinfo *i, const struct kfs_wire_req *q)
{
    struct kfs_attr a;
    if (q->op != KFS_OP_SETATTR || !q->valid || (q->valid & ~(KFS_SET_MODE | KFS_SET_UID | KFS_SET_GID)) || !kfs_pre_attr(i->vol, i->ino, &a))
        return false;
    const struct kfs_cred *me = kfs_pre_cred();
    if ((me->uid != 0 && me->uid != a.uid) || (a.mode & (S_ISUID | S_ISGID)))
        return false;
    int64_t age_ns = (int64_t)kfs_pre_file_time_ns() - (a.ctime_s * 1000000000LL + a.ctime_ns);
    if (age_ns > SAME_TICK_NS || age_ns < -SAME_TICK_NS)
        return false;
    return (!(q->valid & KFS_SET_MODE) || q->mode == (a.mode & 07777)) && (!(q->valid & KFS_SET_UID) || q->uid == a.uid) &&
           (!(q->valid & KFS_SET_GID) || q->gid == a.gid);
}

/* SETATTR (or any operation without a name) on an open descriptor of ours. 0 or -errno; 1: not ours. o_path: may an O_PATH descriptor do it? */
static long call_fd(int fd, struct kfs_call *c, bool o_path)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i))
        return 1;
    if (!o_path && path_only(fd))
        return -EBADF;
    if (changes_nothing(&i, &c->req)) {
        kfs_pre_count(KFS_TIER_SHM);
        return 0;
    }
    c->req.ino = i.ino;
    c->path = NULL;
    return kfs_pre_rpc(i.vol, c);
}

/* The same for what a *at call names. KFS_OURS: done. */
static long call_at(int dirfd, const char *path, int flags, struct kfs_call *c, struct kfs_loc *loc)
{
    bool follow = !(flags & AT_SYMLINK_NOFOLLOW);
    long r;
    if ((flags & AT_EMPTY_PATH) && path && !*path) {
        if (dirfd != AT_FDCWD) {
            r = call_fd(dirfd, c, true);
            return r == 1 ? KFS_HOST : r < 0 ? r : KFS_OURS;
        }
        path = ".";
    }
    int w = follow ? kfs_pre_where(dirfd, path, loc) : kfs_pre_where_nofollow(dirfd, path, loc);
    if (w != KFS_OURS)
        return w;
    if (!follow)
        c->req.flags |= KFS_WIRE_NOFOLLOW;
    r = kfs_pre_rpc_at(loc, c);
    return r < 0 ? r : r == 1 ? KFS_HOST_AT : KFS_OURS;
}

static void mode_call(struct kfs_call *c, mode_t mode)
{
    call_init(c, KFS_OP_SETATTR);
    c->req.valid = KFS_SET_MODE;
    c->req.mode = mode & 07777;
}

int kfs_do_fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
    struct kfs_loc loc;
    struct kfs_call c;
    long r;
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return (int)kfs_pre_ret(-EINVAL);
    if (flags & AT_SYMLINK_NOFOLLOW) { /* a symlink's mode cannot be changed */
        struct kfs_attr a;
        struct kfs_vol *v;
        r = attr_of(dirfd, path, flags, &loc, &a, &v);
        if (r == KFS_OURS && S_ISLNK(a.mode))
            return (int)kfs_pre_ret(-EOPNOTSUPP);
    }
    mode_call(&c, mode);
    r = call_at(dirfd, path, flags, &c, &loc);
    if (r == KFS_HOST)
        return kfs_real.fchmodat(dirfd, path, mode, flags);
    if (r == KFS_HOST_AT)
        return kfs_real.fchmodat(AT_FDCWD, loc.host, mode, flags);
    return r < 0 ? (int)kfs_pre_ret(r) : 0;
}

int kfs_do_chmod(const char *path, mode_t mode)
{
    return kfs_do_fchmodat(AT_FDCWD, path, mode, 0);
}

int kfs_do_lchmod(const char *path, mode_t mode)
{
    return kfs_do_fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW);
}

int kfs_do_fchmod(int fd, mode_t mode)
{
    struct kfs_call c;
    mode_call(&c, mode);
    long r = call_fd(fd, &c, false);
    return r == 1 ? kfs_real.fchmod(fd, mode) : (int)kfs_pre_ret(r);
}

static void owner_call(struct kfs_call *c, uid_t uid, gid_t gid)
{
    call_init(c, KFS_OP_SETATTR);
    c->req.uid = uid;
    c->req.gid = gid;
    c->req.valid = (uid != (uid_t)-1 ? KFS_SET_UID : 0) | (gid != (gid_t)-1 ? KFS_SET_GID : 0);
}

int kfs_do_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
    struct kfs_loc loc;
    struct kfs_call c;
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return (int)kfs_pre_ret(-EINVAL);
    owner_call(&c, uid, gid);
    long r = call_at(dirfd, path, flags, &c, &loc);
    if (r == KFS_HOST)
        return kfs_real.fchownat(dirfd, path, uid, gid, flags);
    if (r == KFS_HOST_AT)
        return kfs_real.fchownat(AT_FDCWD, loc.host, uid, gid, flags & ~AT_EMPTY_PATH);
    return r < 0 ? (int)kfs_pre_ret(r) : 0;
}

int kfs_do_chown(const char *path, uid_t uid, gid_t gid)
{
    return kfs_do_fchownat(AT_FDCWD, path, uid, gid, 0);
}

int kfs_do_lchown(const char *path, uid_t uid, gid_t gid)
{
    return kfs_do_fchownat(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
}

int kfs_do_fchown(int fd, uid_t uid, gid_t gid)
{
    struct kfs_call c;
    owner_call(&c, uid, gid);
    long r = call_fd(fd, &c, false);
    return r == 1 ? kfs_real.fchown(fd, uid, gid) : (int)kfs_pre_ret(r);
}

/* --- times ------------------------------------------------------------------------------------------------------------------------- */
/* 1: nothing to do; 0; -EINVAL. */
static long times_call(struct kfs_call *c, const struct timespec *t)
{
    call_init(c, KFS_OP_SETATTR);
    if (!t) {
        c->req.valid = KFS_SET_ATIME | KFS_SET_MTIME | KFS_SET_ATIME_NOW | KFS_SET_MTIME_NOW;
        return 0;
    }
    if (!kfs_guard_can_read(t, 2 * sizeof *t))
        return -EFAULT;
    for (int i = 0; i < 2; i++) {
        long ns = t[i].tv_nsec;
        if (ns != UTIME_NOW && ns != UTIME_OMIT && (ns < 0 || ns > 999999999))
            return -EINVAL;
        if (ns == UTIME_OMIT)
            continue;
        c->req.valid |= i ? KFS_SET_MTIME : KFS_SET_ATIME;
        if (ns == UTIME_NOW)
            c->req.valid |= i ? KFS_SET_MTIME_NOW : KFS_SET_ATIME_NOW;
    }
    c->req.atime_s = t[0].tv_sec;
    c->req.mtime_s = t[1].tv_sec;
    c->req.atime_ns = c->req.valid & KFS_SET_ATIME_NOW ? 0 : (uint32_t)t[0].tv_nsec;
    c->req.mtime_ns = c->req.valid & KFS_SET_MTIME_NOW ? 0 : (uint32_t)t[1].tv_nsec;
    if (!(c->req.valid & KFS_SET_ATIME))
        c->req.atime_ns = 0;
    if (!(c->req.valid & KFS_SET_MTIME))
        c->req.mtime_ns = 0;
    return c->req.valid ? 0 : 1;
}

int kfs_do_futimens(int fd, const struct timespec *times)
{
    struct kfs_call c;
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i))
        return kfs_real.futimens(fd, times);
    long r = times_call(&c, times);
    if (r != 0)
        return r == 1 ? 0 : (int)kfs_pre_ret(r);
    return (int)kfs_pre_ret(call_fd(fd, &c, false));
}

int kfs_do_utimensat(int dirfd, const char *path, const struct timespec *times, int flags)
{
    struct kfs_loc loc;
    struct kfs_call c;
    if (!path)
        return (int)kfs_pre_ret(-EINVAL); /* only the system call takes it */
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return (int)kfs_pre_ret(-EINVAL);
    long r = times_call(&c, times);
    if (r != 0)
        return r == 1 ? 0 : (int)kfs_pre_ret(r);
    r = call_at(dirfd, path, flags, &c, &loc);
    if (r == KFS_HOST)
        return kfs_real.utimensat(dirfd, path, times, flags);
    if (r == KFS_HOST_AT)
        return kfs_real.utimensat(AT_FDCWD, loc.host, times, flags & ~AT_EMPTY_PATH);
    return r < 0 ? (int)kfs_pre_ret(r) : 0;
}

/* timeval to timespec. False: out of range. */
static bool times_of(const struct timeval *tv, struct timespec *ts)
{
    for (int i = 0; i < 2; i++) {
        if (tv[i].tv_usec < 0 || tv[i].tv_usec > 999999)
            return false;
        ts[i] = (struct timespec){tv[i].tv_sec, tv[i].tv_usec * 1000};
    }
    return true;
}

static int utimes_at(int dirfd, const char *path, const struct timeval *tv, int flags)
{
    struct timespec ts[2];
    if (tv && !times_of(tv, ts))
        return (int)kfs_pre_ret(-EINVAL);
    return kfs_do_utimensat(dirfd, path, tv ? ts : NULL, flags);
}

int kfs_do_utimes(const char *path, const struct timeval *times)
{
    return utimes_at(AT_FDCWD, path, times, 0);
}

int kfs_do_lutimes(const char *path, const struct timeval *times)
{
    return utimes_at(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

int kfs_do_futimesat(int dirfd, const char *path, const struct timeval *times)
{
    return path ? utimes_at(dirfd, path, times, 0) : kfs_do_futimes(dirfd, times); /* as the kernel: the descriptor itself */
}

int kfs_do_futimes(int fd, const struct timeval *times)
{
    struct timespec ts[2];
    if (times && !times_of(times, ts))
        return (int)kfs_pre_ret(-EINVAL);
    return kfs_do_futimens(fd, times ? ts : NULL);
}

int kfs_do_utime(const char *path, const struct utimbuf *times)
{
    struct timespec ts[2];
    if (times) {
        ts[0] = (struct timespec){times->actime, 0};
        ts[1] = (struct timespec){times->modtime, 0};
    }
    return kfs_do_utimensat(AT_FDCWD, path, times ? ts : NULL, 0);
}

int kfs_do_truncate(const char *path, off_t size)
{
    struct kfs_loc loc;
    struct kfs_call c;
    if (size < 0)
        return (int)kfs_pre_ret(-EINVAL);
    call_init(&c, KFS_OP_SETATTR);
    c.req.valid = KFS_SET_SIZE;
    c.req.size_bytes = (uint64_t)size;
    long r = call_at(AT_FDCWD, path, 0, &c, &loc);
    if (r == KFS_HOST || r == KFS_HOST_AT)
        return kfs_real.truncate(r == KFS_HOST ? path : loc.host, size);
    return r < 0 ? (int)kfs_pre_ret(r) : 0;
}

/* --- extended attributes -------------------------------------------------------------------------------------------------------------- */
struct xcall {
    struct kfs_call c;
    int fd; /* or -1: path */
    const char *path;
    bool follow;
    char host[KFS_PATH_MAX]; /* after KFS_HOST_AT */
};

/* What reading attribute NAME of an object without any answers: kfsd's space_of() and -ENODATA. */
static long none_of(const char *name)
{
    static const char known[][10] = {"user.", "trusted.", "security."};
    long n = kfs_guard_strlen(name, KFS_XATTR_NAME_MAX + 1);
    if (n <= 0 || n > KFS_XATTR_NAME_MAX)
        return n < 0 ? n : -ERANGE;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t k = strlen(known[i]);
        if (strncmp(name, known[i], k) == 0)
            return (size_t)n > k ? -ENODATA : -EINVAL;
    }
    return -EOPNOTSUPP;
}

/* Does shared memory say that the object has no xattrs at all (and that it may be read)? 1 yes; 0 ask kfsd; -errno. */
static long none_quick(struct kfs_loc *loc, bool follow)
{
    struct kfs_attr a;
    int r = kfs_pre_lookup(loc, follow, &a);
    if (r <= 0)
        return r;
    return !(a.flags & KFS_ATTR_XATTRS) && kfs_perm_ok(kfs_pre_cred(), a.mode, a.uid, a.gid, 4);
}

static void xcall_init(struct xcall *x, enum kfs_wire_op op, int fd, const char *path, bool follow, const char *name)
{
    call_init(&x->c, op);
    x->fd = fd;
    x->path = path;
    x->follow = follow;
    x->c.path2 = name;
}

/* KFS_OURS: done; KFS_HOST, KFS_HOST_AT (x->host); -errno. reading: answer `none` when there are no xattrs. */
static long xcall_do(struct xcall *x, bool reading, long none)
{
    struct kfs_loc loc;
    struct kfs_fdinfo i;
    long r;
    if (x->fd >= 0) {
        if (!kfs_pre_fd(x->fd, &i))
            return KFS_HOST;
        if (path_only(x->fd))
            return -EBADF;
        if (!reading && none < 0)
            return none; /* a name that no file can have: copying programs try ACLs on each */
        loc.vol = i.vol;
        loc.base = i.ino;
        loc.rel = "";
        loc.hops = 0;
    } else {
        int w = x->follow ? kfs_pre_where(AT_FDCWD, x->path, &loc) : kfs_pre_where_nofollow(AT_FDCWD, x->path, &loc);
        if (w == KFS_HOST_AT)
            memcpy(x->host, loc.host, strlen(loc.host) + 1);
        if (w != KFS_OURS)
            return w;
    }
    r = reading ? none_quick(&loc, x->follow) : 0;
    if (r < 0)
        return r;
    if (r == 1) {
        x->c.rep.data_len = 0;
        return none < 0 ? none : KFS_OURS;
    }
    if (!x->follow)
        x->c.req.flags |= KFS_WIRE_NOFOLLOW;
    r = kfs_pre_rpc_at(&loc, &x->c);
    if (r == 1) {
        memcpy(x->host, loc.host, strlen(loc.host) + 1);
        return KFS_HOST_AT;
    }
    return r < 0 ? r : KFS_OURS;
}

static ssize_t xattr_get(struct xcall *x, const char *name, void *value, size_t size)
{
    long none = name ? none_of(name) : 0;
    if (none == -ERANGE || none == -EFAULT)
        return none;
    x->c.reply = size ? value : NULL;
    x->c.reply_cap = size;
    long r = xcall_do(x, true, none);
    if (r == KFS_HOST || r == KFS_HOST_AT)
        return r - 10000;
    return r < 0 ? r : (ssize_t)x->c.rep.data_len;
}

#define GO_HOST (KFS_HOST - 10000)
#define GO_HOST_AT (KFS_HOST_AT - 10000)

static const char *host_name(const struct xcall *x, const char *path, ssize_t r)
{
    return r == GO_HOST ? path : x->host;
}

ssize_t kfs_do_getxattr(const char *path, const char *name, void *value, size_t size)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_GETXATTR, -1, path, true, name);
    ssize_t r = xattr_get(&x, name, value, size);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.getxattr(host_name(&x, path, r), name, value, size) : kfs_pre_ret(r);
}

ssize_t kfs_do_lgetxattr(const char *path, const char *name, void *value, size_t size)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_GETXATTR, -1, path, false, name);
    ssize_t r = xattr_get(&x, name, value, size);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.lgetxattr(host_name(&x, path, r), name, value, size) : kfs_pre_ret(r);
}

ssize_t kfs_do_fgetxattr(int fd, const char *name, void *value, size_t size)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_GETXATTR, fd, NULL, true, name);
    ssize_t r = xattr_get(&x, name, value, size);
    return r == GO_HOST ? kfs_real.fgetxattr(fd, name, value, size) : kfs_pre_ret(r);
}

ssize_t kfs_do_listxattr(const char *path, char *list, size_t size)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_LISTXATTR, -1, path, true, NULL);
    ssize_t r = xattr_get(&x, NULL, list, size);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.listxattr(host_name(&x, path, r), list, size) : kfs_pre_ret(r);
}

ssize_t kfs_do_llistxattr(const char *path, char *list, size_t size)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_LISTXATTR, -1, path, false, NULL);
    ssize_t r = xattr_get(&x, NULL, list, size);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.llistxattr(host_name(&x, path, r), list, size) : kfs_pre_ret(r);
}

ssize_t kfs_do_flistxattr(int fd, char *list, size_t size)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_LISTXATTR, fd, NULL, true, NULL);
    ssize_t r = xattr_get(&x, NULL, list, size);
    return r == GO_HOST ? kfs_real.flistxattr(fd, list, size) : kfs_pre_ret(r);
}

/* setxattr and removexattr. */
static long xattr_change(struct xcall *x, const char *name, const void *value, size_t size, int flags)
{
    long none = none_of(name);
    if (none == -ERANGE || none == -EFAULT)
        return none;
    if (size > KFS_XATTR_VALUE_MAX)
        return -E2BIG;
    x->c.data = value;
    x->c.data_len = size;
    x->c.req.value = (uint64_t)flags;
    long r = xcall_do(x, false, none == -EOPNOTSUPP ? none : 0);
    return r == KFS_HOST || r == KFS_HOST_AT ? r - 10000 : r < 0 ? r : 0;
}

int kfs_do_setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_SETXATTR, -1, path, true, name);
    long r = xattr_change(&x, name, value, size, flags);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.setxattr(host_name(&x, path, r), name, value, size, flags) : (int)kfs_pre_ret(r);
}

int kfs_do_lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_SETXATTR, -1, path, false, name);
    long r = xattr_change(&x, name, value, size, flags);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.lsetxattr(host_name(&x, path, r), name, value, size, flags) : (int)kfs_pre_ret(r);
}

int kfs_do_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_SETXATTR, fd, NULL, true, name);
    long r = xattr_change(&x, name, value, size, flags);
    return r == GO_HOST ? kfs_real.fsetxattr(fd, name, value, size, flags) : (int)kfs_pre_ret(r);
}

int kfs_do_removexattr(const char *path, const char *name)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_REMOVEXATTR, -1, path, true, name);
    long r = xattr_change(&x, name, NULL, 0, 0);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.removexattr(host_name(&x, path, r), name) : (int)kfs_pre_ret(r);
}

int kfs_do_lremovexattr(const char *path, const char *name)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_REMOVEXATTR, -1, path, false, name);
    long r = xattr_change(&x, name, NULL, 0, 0);
    return r == GO_HOST || r == GO_HOST_AT ? kfs_real.lremovexattr(host_name(&x, path, r), name) : (int)kfs_pre_ret(r);
}

int kfs_do_fremovexattr(int fd, const char *name)
{
    struct xcall x;
    xcall_init(&x, KFS_OP_REMOVEXATTR, fd, NULL, true, name);
    long r = xattr_change(&x, name, NULL, 0, 0);
    return r == GO_HOST ? kfs_real.fremovexattr(fd, name) : (int)kfs_pre_ret(r);
}
