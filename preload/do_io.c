/* preload/do_io.c — open, close, dup, fcntl, close_range, fsync and kin, umask, received descriptors, syscall() */
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "preload/standin.h"
#include "base/pure/sys.h"
#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "preload/libc_gaps.h"

#define ACCESS(flags) ((flags)&O_ACCMODE)
#define TMPFILE_BIT (O_TMPFILE & ~O_DIRECTORY)

/* --- umask ------------------------------------------------------------------------------------------------------------- */
static int umask_known = -1; /* the process's, or -1 */

/* "Umask:\t0022" in /proc/self/status: reading it any other way would change it for a moment. */
static int umask_read(void)
{
    char buf[256];
    long fd = kfs_sys_openat(KFS_SYS_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 022;
    long n = kfs_sys_read((int)fd, buf, sizeof buf - 1);
    kfs_sys_close((int)fd);
    buf[n > 0 ? n : 0] = 0;
    const char *p = strstr(buf, "Umask:");
    if (!p)
        return 022;
    int v = 0;
    for (p += 6; *p == '\t' || *p == ' '; p++)
        ;
    for (; *p >= '0' && *p <= '7'; p++)
        v = v * 8 + (*p - '0');
    return v & 0777;
}

uint32_t kfs_pre_umask(void)
{
    int v = __atomic_load_n(&umask_known, __ATOMIC_RELAXED);
    if (v >= 0 && !kfs_pre_in_vfork)
        return (uint32_t)v;
    v = umask_read();
    if (!kfs_pre_in_vfork)
        __atomic_store_n(&umask_known, v, __ATOMIC_RELAXED);
    return (uint32_t)v;
}

mode_t kfs_do_umask(mode_t mask)
{
    mode_t old = kfs_real.umask(mask);
    if (!kfs_pre_in_vfork)
        __atomic_store_n(&umask_known, (int)(mask & 0777), __ATOMIC_RELAXED);
    return old;
}

/* --- opening --------------------------------------------------------------------------------------------------------------- */
static void hex_put(char **p, uint64_t v, int min_digits)
{
    char d[16];
    int n = 0;
    do
        d[n++] = "0123456789abcdef"[v & 15];
    while ((v >>= 4) || n < min_digits);
    while (n)
        *(*p)++ = d[--n];
}

/* The directory that a says, and its length; 0: we have not been told of it. */
static size_t clean_dir(const struct kfs_vol *v, const struct kfs_attr *a, const char **ret)
{
    uint32_t k = (a->flags & KFS_ATTR_DIR_MASK) >> KFS_ATTR_DIR_SHIFT;
    *ret = v->m.cache_dir;
    if (k == 0)
        return v->m.cache_dir_len;
    const char *p = kfs_pre_more_dirs(v), *end;
    for (; (end = strchr(p, '\n')); p = end + 1)
        if (--k == 0) {
            *ret = p;
            return (size_t)(end - p);
        }
    return 0;
}

/* CACHE/f/XX/INO-VERSION (blockstore/cache_file.h). */
static bool clean_name(const struct kfs_vol *v, const struct kfs_attr *a, char *p)
{
    const char *dir;
    size_t n = clean_dir(v, a, &dir);
    if (!n)
        return false;
    memcpy(p, dir, n);
    p += n;
    memcpy(p, "/f/", 3);
    p += 3;
    hex_put(&p, a->ino & 255, 2);
    *p++ = '/';
    hex_put(&p, a->ino, 1);
    *p++ = '-';
    hex_put(&p, a->version, 1);
    *p = 0;
    return true;
}

/* Open the clean cache file ourselves. fd, or -errno: ask kfsd. */
static long open_clean(struct kfs_vol *v, const struct kfs_attr *a, int flags)
{
    char name[KFS_MORE_DIRS_MAX + 64];
    static_assert(sizeof v->m.cache_dir <= KFS_MORE_DIRS_MAX, "either fits");
    if (!clean_name(v, a, name))
        return -ENOENT;
    long fd = kfs_sys_openat(KFS_SYS_FDCWD, name, flags & ~O_NOFOLLOW, 0);
    if (fd == -EPERM && (flags & O_NOATIME))
        fd = kfs_sys_openat(KFS_SYS_FDCWD, name, flags & ~(O_NOFOLLOW | O_NOATIME), 0);
    if (fd < 0)
        return fd;
    struct kfs_fdinfo i = {.vol = v, .ino = a->ino, .dev = v->cache_dev, .cache_ino = a->cache_ino, .kind = KFS_FD_FILE};
    kfs_pre_fd_set((int)fd, &i);
    kfs_pre_count(KFS_TIER_KERNEL);
    kfs_pre_touched(v, a->ino);
    return fd;
}

/* What shared memory knows about this open: an fd, an error, or 1: ask kfsd. */
static long open_quick(struct kfs_loc *loc, int flags, uint32_t wire_flags)
{
    struct kfs_attr a;
    bool create = flags & O_CREAT;
    if (flags & TMPFILE_BIT)
        return 1;
    int r = kfs_pre_lookup(loc, !(flags & O_NOFOLLOW) && !(create && (flags & O_EXCL)), &a);
    if (r == 0)
        return 1;
    if (r < 0)
        return create && r == -ENOENT ? 1 : r;
    if (create && (flags & O_EXCL))
        return -EEXIST;
    if (S_ISLNK(a.mode))
        return flags & O_PATH ? 1 : (flags & O_DIRECTORY) ? -ENOTDIR : -ELOOP;
    if (S_ISDIR(a.mode))
        return !(flags & O_PATH) && (create || ACCESS(flags) != O_RDONLY) ? -EISDIR : 1;
    if (flags & O_DIRECTORY)
        return -ENOTDIR;
    bool plain = !(flags & (O_CREAT | O_TRUNC | O_PATH | O_DIRECT)) && ACCESS(flags) == O_RDONLY;
    if (!plain || !S_ISREG(a.mode))
        return 1;
    unsigned want = wire_flags & KFS_WIRE_EXEC ? 1 : 4;
    if (!kfs_perm_ok(kfs_pre_cred(), a.mode, a.uid, a.gid, want))
        return -EACCES;
    struct kfs_vol *v = loc->vol;
    if (!(a.flags & KFS_ATTR_CACHED) || (a.flags & KFS_ATTR_LIVE) || !(v->flags & KFS_HELLO_DIRECT))
        return 1;
    long fd = open_clean(v, &a, flags);
    return fd >= 0 || fd == -EMFILE || fd == -ENFILE ? fd : 1;
}

/* "name/" with O_CREAT is EISDIR whatever the name is, once its directory is reached. error: what the plain answer would be. */
static long slash_error(struct kfs_loc *loc, long error)
{
    struct kfs_attr a;
    char text[KFS_PATH_MAX];
    size_t n = strlen(loc->rel);
    while (n && loc->rel[n - 1] == '/')
        n--;
    memcpy(text, loc->rel, n);
    text[n] = 0;
    struct kfs_loc l;
    l.vol = loc->vol;
    l.base = loc->base;
    l.rel = text;
    l.hops = loc->hops;
    return kfs_pre_attr_at(&l, false, &a) == 0 ? -EISDIR : error;
}

static bool slash_at_end(const char *rel)
{
    size_t n = strlen(rel);
    return n && rel[n - 1] == '/';
}

/* Its link says what it stands for. */
static long open_standin(int fd)
{
    struct kfs_fdinfo i;
    kfs_pre_fd_unknown(fd);
    long r = kfs_pre_fd_look_standin(fd, &i) ? kfs_pre_standin_opened(fd, &i) : -EIO;
    if (r < 0) {
        kfs_pre_fd_unknown(fd);
        kfs_sys_close(fd);
    }
    return r < 0 ? r : fd;
}

static long open_done(struct kfs_loc *loc, struct kfs_call *c, int flags)
{
    int fd = c->fds[0];
    if (c->fds[1] >= 0)
        kfs_sys_close(c->fds[1]);
    if (fd < 0)
        return -EMFILE; /* the kernel drops a descriptor that does not fit */
    if ((c->rep.value & KFS_OPEN_NODE) && !(flags & O_PATH)) {
        char name[KFS_PATH_MAX];
        kfs_pre_fd_path(fd, name, sizeof name);
        int node = kfs_real.openat(AT_FDCWD, name, flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW), 0); /* may wait for the other end */
        int e = errno;
        kfs_sys_close(fd);
        if (node < 0)
            return -e;
        fd = node;
        flags |= O_CLOEXEC; /* it is as it was asked for */
    }
    if (!(flags & O_CLOEXEC))
        kfs_sys_fcntl(fd, F_SETFD, 0);
    if ((c->rep.value & KFS_OPEN_DIR) && !(flags & O_PATH) && (flags & (O_APPEND | O_NONBLOCK)))
        kfs_sys_fcntl(fd, F_SETFL, flags & (O_APPEND | O_NONBLOCK));
    if (c->rep.value & KFS_OPEN_STANDIN)
        return open_standin(fd);
    struct kfs_fdinfo i = {.vol = loc->vol, .ino = c->rep.attr.ino, .dev = c->rep.dev, .cache_ino = c->rep.cache_ino};
    i.kind = c->rep.value & KFS_OPEN_DIR ? KFS_FD_DIR : KFS_FD_FILE;
    i.writer = c->rep.value & KFS_OPEN_WRITER;
    kfs_pre_fd_set(fd, &i);
    return fd;
}

long kfs_pre_open_loc(struct kfs_loc *loc, int flags, uint32_t mode, uint32_t wire_flags)
{
    struct kfs_call c;
    long r = open_quick(loc, flags, wire_flags);
    if ((flags & O_CREAT) && r < 0 && slash_at_end(loc->rel))
        r = slash_error(loc, r);
    if (r != 1)
        return r;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_OPEN;
    c.req.flags = wire_flags | (flags & O_NOFOLLOW ? KFS_WIRE_NOFOLLOW : 0);
    c.req.oflags = kfs_wire_oflags((uint32_t)flags);
    if (flags & (O_CREAT | TMPFILE_BIT)) {
        c.req.mode = mode & 07777;
        c.req.umask = kfs_pre_umask();
    }
    r = kfs_pre_rpc_at(loc, &c);
    if (r == 1)
        return KFS_PRE_GO_HOST;
    if ((flags & O_CREAT) && (r == -ENOTDIR || r == -EEXIST) && slash_at_end(loc->rel))
        r = slash_error(loc, r);
    return r < 0 ? r : open_done(loc, &c, flags);
}

static long real_open(int dirfd, const char *path, int flags, uint32_t mode)
{
    int fd = kfs_real.openat(dirfd, path, flags, mode);
    if (fd < 0)
        return -errno;
    if (flags & (O_DIRECTORY | O_PATH))
        kfs_pre_fd_unknown(fd);
    else
        kfs_pre_fd_not(fd);
    return fd;
}

long kfs_pre_open(int dirfd, const char *path, int flags, uint32_t mode)
{
    struct kfs_loc loc;
    bool last = !(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    int w = last ? kfs_pre_where(dirfd, path, &loc) : kfs_pre_where_nofollow(dirfd, path, &loc);
    if (w == KFS_OURS) {
        long r = kfs_pre_open_loc(&loc, flags, mode, kfs_pre_standin_may(flags) ? KFS_WIRE_STANDIN : 0);
        if (r != KFS_PRE_GO_HOST)
            return r;
        w = KFS_HOST_AT;
    }
    if (w < 0)
        return w;
    int saved = errno;
    long r = w == KFS_HOST ? real_open(dirfd, path, flags, mode) : real_open(AT_FDCWD, loc.host, flags, mode);
    errno = saved;
    return r;
}

int kfs_do_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    return (int)kfs_pre_ret(kfs_pre_open(dirfd, path, flags, mode));
}

int kfs_do_open(const char *path, int flags, mode_t mode)
{
    return kfs_do_openat(AT_FDCWD, path, flags, mode);
}

int kfs_do_creat(const char *path, mode_t mode)
{
    return kfs_do_openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* --- closing ------------------------------------------------------------------------------------------------------------------ */
static long commit(const struct kfs_fdinfo *i)
{
    struct kfs_call c;
    if (!i->writer || i->vol->m.session || kfs_pre_in_vfork)
        return 0;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_CLOSE;
    c.req.ino = i->ino;
    return kfs_pre_rpc(i->vol, &c);
}

long kfs_pre_before_close(int fd)
{
    struct kfs_fdinfo i;
    return !kfs_pre_fd_reader(fd) && kfs_pre_fd(fd, &i) ? commit(&i) : 0;
}

int kfs_do_close(int fd)
{
    long r = kfs_pre_before_close(fd);
    kfs_pre_standin_closed(fd);
    kfs_pre_fd_not(fd);
    int c = kfs_real.close(fd);
    return r < 0 ? (int)kfs_pre_ret(r) : c;
}

int kfs_do_dup(int fd)
{
    struct kfs_fdinfo i;
    bool ours = kfs_pre_fd(fd, &i);
    int r = kfs_real.dup(fd);
    if (r >= 0 && ours)
        kfs_pre_fd_dup(fd, r);
    else if (r >= 0)
        kfs_pre_fd_not(r);
    return r;
}

/* Before `to` is replaced by `from`: commit what it writes. */
static void replaced(int from, int to)
{
    if (from == to || !kfs_pre_fd_maybe(to) || kfs_sys_fcntl(from, F_GETFD, 0) < 0)
        return;
    (void)kfs_pre_before_close(to); /* an error cannot be told here: kfsd logs it */
    kfs_pre_standin_closed(to);
}

static void replaced_by(int from, int to)
{
    struct kfs_fdinfo i;
    if (from == to)
        return;
    if (kfs_pre_fd(from, &i))
        kfs_pre_fd_dup(from, to);
    else
        kfs_pre_fd_not(to);
}

int kfs_do_dup2(int from, int to)
{
    replaced(from, to);
    int r = kfs_real.dup2(from, to);
    if (r >= 0)
        replaced_by(from, to);
    return r;
}

int kfs_do_dup3(int from, int to, int flags)
{
    replaced(from, to);
    int r = kfs_real.dup3(from, to, flags);
    if (r >= 0)
        replaced_by(from, to);
    return r;
}

/* What needs more than a stand-in. */
static bool fcntl_settles(int cmd)
{
    switch (cmd) {
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
    case F_SETLEASE:
    case F_GETLEASE:
        return true;
    default:
        return false;
    }
}

int kfs_do_fcntl(int fd, int cmd, void *arg)
{
    struct kfs_fdinfo i;
    if (fcntl_settles(cmd)) {
        long s = kfs_pre_settle(fd);
        return s < 0 ? (int)kfs_pre_ret(s) : kfs_real.fcntl(fd, cmd, arg);
    }
    bool dups = (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) && kfs_pre_fd(fd, &i);
    int r = kfs_real.fcntl(fd, cmd, arg);
    if (r >= 0 && dups)
        kfs_pre_fd_dup(fd, r);
    else if (r >= 0 && (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC))
        kfs_pre_fd_not(r);
    if (cmd == F_GETFL && r >= 0 && (r & O_ACCMODE) == O_ACCMODE && kfs_pre_fd_look_standin(fd, &i))
        r &= ~O_ACCMODE; /* as it was opened: for reading */
    return r;
}

#define CLOSE_RANGE_CLOEXEC_BIT 4

/* Commit the writers that a range holds. Bounded by the soft limit's highest open number in practice: numbers beyond are looked at through /proc only once. */
static void range_before(unsigned first, unsigned last)
{
    if (!kfs_pre_vol_count || kfs_pre_in_vfork)
        return;
    unsigned end = last < (1u << 20) - 1 ? last : (1u << 20) - 1;
    for (unsigned fd = first; fd <= end; fd++) {
        if (fd % 64 == 0 && fd + 64 <= end + 1) {
            const uint64_t *w = (const void *)(kfs_pre_fd_states + fd);
            if (!(w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7])) {
                fd += 63; /* never seen: what is open there is committed by kfsd when the kernel closes it */
                continue;
            }
        }
        if (kfs_pre_fd_states[fd] && kfs_pre_fd_maybe((int)fd)) {
            (void)kfs_pre_before_close((int)fd);
            kfs_pre_standin_closed((int)fd);
            kfs_pre_fd_unknown((int)fd);
        }
    }
}

int kfs_do_close_range(unsigned first, unsigned last, int flags)
{
    if (!(flags & CLOSE_RANGE_CLOEXEC_BIT) && first <= last)
        range_before(first, last);
    return kfs_real.close_range(first, last, flags);
}

void kfs_do_closefrom(int first)
{
    range_before(first < 0 ? 0 : (unsigned)first, ~0U);
    kfs_real.closefrom(first);
}

/* --- durability -------------------------------------------------------------------------------------------------------------------- */
static long fsync_ino(struct kfs_vol *v, kfs_ino_t ino)
{
    struct kfs_call c;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_FSYNC;
    c.req.ino = ino;
    return kfs_pre_rpc(v, &c);
}

long kfs_pre_fsync_all(bool written_only)
{
    long worst = 0;
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        struct kfs_vol *v = &kfs_pre_vols[i];
        if (!__atomic_load_n(&v->attached, __ATOMIC_ACQUIRE) || (written_only && !__atomic_load_n(&v->wrote, __ATOMIC_RELAXED)))
            continue;
        long r = fsync_ino(v, 0);
        worst = r < 0 ? r : worst;
    }
    return worst;
}

int kfs_do_fsync(int fd)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i))
        return kfs_real.fsync(fd);
    if (kfs_sys_fcntl(fd, F_GETFL, 0) & O_PATH)
        return (int)kfs_pre_ret(-EBADF);
    return (int)kfs_pre_ret(fsync_ino(i.vol, i.ino));
}

int kfs_do_fdatasync(int fd)
{
    struct kfs_fdinfo i;
    return kfs_pre_fd(fd, &i) ? kfs_do_fsync(fd) : kfs_real.fdatasync(fd);
}

int kfs_do_syncfs(int fd)
{
    struct kfs_fdinfo i;
    return kfs_pre_fd(fd, &i) ? (int)kfs_pre_ret(fsync_ino(i.vol, 0)) : kfs_real.syncfs(fd);
}

void kfs_do_sync(void)
{
    kfs_pre_fsync_all(false);
    kfs_real.sync();
}

int kfs_do_msync(void *addr, size_t len, int flags)
{
    int r = kfs_real.msync(addr, len, flags);
    if (r < 0 || !(flags & MS_SYNC))
        return r;
    return (int)kfs_pre_ret(kfs_pre_fsync_all(true));
}

/* --- received descriptors ---------------------------------------------------------------------------------------------------------------- */
static void received(const struct msghdr *m)
{
    const char *p = m->msg_control, *end = p + m->msg_controllen;
    while (p && p + sizeof(struct cmsghdr) <= end) {
        const struct cmsghdr *h = (const void *)p;
        if (h->cmsg_len < CMSG_LEN(0) || h->cmsg_len > (size_t)(end - p))
            return;
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
            const int *fds = (const void *)(p + CMSG_LEN(0));
            for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
                kfs_pre_fd_unknown(fds[i]);
        }
        p += CMSG_ALIGN(h->cmsg_len);
    }
}

ssize_t kfs_do_recvmsg(int fd, struct msghdr *msg, int flags)
{
    ssize_t r = kfs_real.recvmsg(fd, msg, flags);
    if (r >= 0 && msg->msg_controllen && kfs_pre_vol_count)
        received(msg);
    return r;
}

int kfs_do_recvmmsg(int fd, struct mmsghdr *msgs, unsigned count, int flags, struct timespec *timeout)
{
    int r = kfs_real.recvmmsg(fd, msgs, count, flags, timeout);
    for (int i = 0; i < r && kfs_pre_vol_count; i++)
        if (msgs[i].msg_hdr.msg_controllen)
            received(&msgs[i].msg_hdr);
    return r;
}

/* libc's thread knows only the cache file. So a copy of the request, without its notification, goes first: it ends when everything queued before it
 * has ended. Then comes the commit, and then the request itself, for what the caller will ask of it. The copy has a page of its own, which stays when
 * anything failed: the thread may look at it once more until it gives up libc's lock, which the second request takes. */
int kfs_do_aio_fsync(int op, struct aiocb *cb)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd_maybe(cb->aio_fildes) || !kfs_pre_fd(cb->aio_fildes, &i) || i.kind == KFS_FD_DIR)
        return kfs_real.aio_fsync(op, cb);
    long page = kfs_sys_mmap(NULL, sizeof(struct aiocb), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct aiocb *first = page < 0 ? NULL : (struct aiocb *)page;
    if (!first)
        return (int)kfs_pre_ret(-EAGAIN);
    memcpy(first, cb, sizeof *first);
    first->aio_sigevent.sigev_notify = SIGEV_NONE;
    if (kfs_real.aio_fsync(op, first) < 0) {
        int saved = errno;
        kfs_sys_munmap(first, sizeof *first);
        errno = saved;
        return -1;
    }
    int e;
    while ((e = __atomic_load_n(&first->__error_code, __ATOMIC_ACQUIRE)) == EINPROGRESS)
        kfs_sys4(SYS_nanosleep, (long)&(struct timespec){.tv_nsec = 200000}, 0, 0, 0); /* libc offers nothing to wait on that it has in all versions */
    if (e)
        return (int)kfs_pre_ret(-e);
    if (kfs_do_fsync(cb->aio_fildes) < 0)
        return -1;
    int r = kfs_real.aio_fsync(op, cb);
    if (r == 0)
        kfs_sys_munmap(first, sizeof *first);
    return r;
}

int kfs_do_pidfd_getfd(int pidfd, int fd, unsigned flags)
{
    int r = kfs_real.pidfd_getfd(pidfd, fd, flags);
    if (r >= 0)
        kfs_pre_fd_unknown(r);
    return r;
}

/* RESOLVE_* promises are the kernel's: callers fall back to openat. */
int kfs_do_openat2(int dirfd, const char *path, const struct open_how *how, size_t size)
{
    struct kfs_loc loc;
    const uint64_t *word = (const void *)how; /* flags, mode, resolve */
    if (kfs_pre_where(dirfd, path, &loc) == KFS_HOST)
        return kfs_real.openat2(dirfd, path, how, size);
    if (size < 24 || !kfs_guard_can_read(how, 24))
        return (int)kfs_pre_ret(size < 24 && how ? -EINVAL : -EFAULT);
    if (size > 24 || word[2] || word[0] > INT32_MAX || word[1] > 07777)
        return (int)kfs_pre_ret(-ENOSYS);
    return kfs_do_openat(dirfd, path, (int)word[0], (mode_t)word[1]);
}
