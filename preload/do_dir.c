/* preload/do_dir.c — directory streams, getdents64, scandir, glob, nftw
 *
 * What     A DIR of ours is a slot of a pool: its address tells it from libc's. Entries come in batches out of the listing in shared memory, or by READDIR; a
 *          directory whose listing is there is opened without a system call, and gets its descriptor when dirfd asks for it. The cursor is the last name, so memory
 *          does not grow with the directory and names that vanish or appear meanwhile disturb nothing.
 * Model    Position = number of entries returned, "." and ".." (0 and 1) included; d_off is the position after the entry. seekdir goes to a position inside the
 *          current batch or to one that telldir told lately (its name is remembered) directly; to any other one from the start.
 *          getdents64 keeps its position where the kernel keeps it, in the open file description of the dead directory: dup, fork and lseek are right for nothing.
 * Calls    glob and nftw work on mixed trees through the exported functions by their names: whatever is the host's goes to the host.
 * Memory   malloc only for scandir's result, which the caller frees by contract.
 * Threads  One lock a stream (a spin: holders do one round trip at most), as libc's has one.
 */
#include "preload/guard.h"
#include "preload/mempool.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "preload/libc_gaps.h"

#define MARKS 8
#define FD_NONE (-1)
#define FD_LATER (-2) /* nobody asked for it yet: dirfd opens it */

struct mark {
    long pos;
    char name[KFS_NAME_MAX + 1];
};

struct stream {
    int lock;
    int fd; /* FD_NONE (walks), FD_LATER */
    struct kfs_vol *vol;
    kfs_ino_t ino, parent; /* parent 0: not asked yet */
    long pos;              /* of the next entry */
    long batch_pos;        /* position of the first record in buf */
    uint32_t len, off;     /* bytes in buf; next record */
    bool end;              /* nothing comes after buf */
    bool gone;             /* the directory was removed */
    char before[KFS_NAME_MAX + 1]; /* the name before the batch */
    char last[KFS_NAME_MAX + 1];   /* the name before pos; "" at the start */
    unsigned mark_next;
    struct mark marks[MARKS];
    struct dirent ent; /* what readdir returns */
    char buf[KFS_WIRE_DATA_MAX];
};
static_assert(sizeof(struct stream) <= 18 * 4096, "a slot holds a stream");
static_assert(sizeof(struct dirent) == sizeof(struct dirent64), "readdir64 is readdir");

static struct kfs_pool pool = {.slot_bytes = 18 * 4096};

static struct stream *ours(void *dir)
{
    return kfs_pool_owns(&pool, dir) ? dir : NULL;
}

static void lock(struct stream *s)
{
    while (__atomic_exchange_n(&s->lock, 1, __ATOMIC_ACQUIRE))
        kfs_sys3(SYS_sched_yield, 0, 0, 0);
}

static void unlock(struct stream *s)
{
    __atomic_store_n(&s->lock, 0, __ATOMIC_RELEASE);
}

/* --- the stream ------------------------------------------------------------------------------------------------- */

static void stream_start(struct stream *s)
{
    s->pos = s->batch_pos = 0;
    s->len = s->off = 0;
    s->end = s->gone = false;
    s->before[0] = s->last[0] = '\0';
}

static struct stream *stream_new(struct kfs_vol *vol, kfs_ino_t ino, int fd)
{
    struct stream *s = kfs_pool_get(&pool);
    if (!s)
        return NULL;
    s->lock = 0;
    s->fd = fd;
    s->vol = vol;
    s->ino = ino;
    s->parent = 0;
    s->mark_next = 0;
    for (unsigned i = 0; i < MARKS; i++)
        s->marks[i].pos = -1;
    stream_start(s);
    return s;
}

static void stream_free(struct stream *s)
{
    kfs_pool_put(&pool, s);
}

static void fd_close(int fd)
{
    kfs_pre_fd_unknown(fd);
    kfs_sys_close(fd);
}

/* Inode of "..". A directory that is gone has none: its own number does. */
static kfs_ino_t parent_of(struct stream *s)
{
    if (s->parent)
        return s->parent;
    struct kfs_attr a = {0};
    if (kfs_pre_attr(s->vol, s->ino, &a) != 1) {
        struct kfs_call c = {.path = ""};
        c.req.op = KFS_OP_LOOKUP;
        c.req.ino = s->ino;
        if (kfs_pre_rpc(s->vol, &c) == 0)
            a = c.rep.attr;
    }
    s->parent = a.parent ? a.parent : s->ino;
    return s->parent;
}

/* Records must lie inside buf and hold names that fit: nothing that comes over the socket is believed. */
static bool batch_ok(const struct stream *s)
{
    for (uint32_t off = 0; off < s->len;) {
        struct kfs_wire_dirent e;
        if (s->len - off < sizeof e)
            return false;
        memcpy(&e, s->buf + off, sizeof e);
        off += (uint32_t)sizeof e;
        if (e.name_len == 0 || e.name_len > s->len - off)
            return false;
        off += e.name_len;
    }
    return true;
}

/* The segment of a volume, if it may be trusted now. */
static const struct kfs_shm_header *segment(struct kfs_vol *v)
{
    if (KFS_UNLIKELY(!__atomic_load_n(&v->attached, __ATOMIC_ACQUIRE)) && kfs_pre_attach(v) < 0)
        return NULL;
    const struct kfs_shm_header *shm = __atomic_load_n(&v->shm, __ATOMIC_ACQUIRE);
    return shm && !kfs_pre_in_vfork && kfs_shm_fresh(shm, kfs_pre_now_ns(true)) ? shm : NULL;
}

static void batch_begin(struct stream *s)
{
    s->batch_pos = s->pos > 2 ? s->pos : 2;
    memcpy(s->before, s->last, sizeof s->before);
}

/* How many bytes of the listing from record `first` on fit into buf, whole records; *ret_end: they are the rest. False: the listing is another's by now. */
static bool listing_fit(const struct kfs_shm_view *l, uint32_t first, size_t room, uint32_t *ret_from, uint32_t *ret_bytes, bool *ret_end)
{
    uint32_t from, to;
    if (!kfs_shm_view_at(l, first, &from))
        return false;
    uint32_t lo = first, hi = l->count; /* record lo begins where the bytes still fit */
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (!kfs_shm_view_at(l, mid, &to) || to < from)
            return false;
        if (to - from <= room)
            lo = mid;
        else
            hi = mid - 1;
    }
    if (!kfs_shm_view_at(l, lo, &to) || to < from || to - from > room)
        return false;
    *ret_from = from;
    *ret_bytes = to - from;
    *ret_end = lo == l->count;
    return true;
}

/* The next batch out of shared memory. False: it is not there, kfsd has to be asked. */
static bool batch_shm(struct stream *s)
{
    const struct kfs_shm_header *shm = segment(s->vol);
    struct kfs_attr dir;
    struct kfs_shm_view l;
    uint32_t first = 0, from, bytes;
    bool end, same = false;
    uint64_t ino;
    if (!shm || !kfs_shm_attr_get(shm, s->ino, &dir) || dir.nlink == 0 || !kfs_shm_list_get(shm, s->ino, &l))
        return false;
    if (s->last[0] && !kfs_shm_view_find(&l, s->last, strlen(s->last), &first, &same, &ino))
        return false;
    if (!listing_fit(&l, first + same, sizeof s->buf, &from, &bytes, &end))
        return false;
    memcpy(s->buf, l.blob + from, bytes);
    if (!kfs_shm_view_ok(&l) || !kfs_shm_fresh(shm, kfs_pre_now_ns(true)))
        return false;
    s->len = bytes;
    s->off = 0;
    if (!batch_ok(s)) {
        s->len = 0;
        return false;
    }
    s->parent = dir.parent;
    s->end = end;
    batch_begin(s);
    kfs_pre_count(KFS_TIER_SHM);
    return true;
}

static long batch_fetch(struct stream *s)
{
    if (batch_shm(s))
        return 0;
    struct kfs_call c = {.path = "", .path2 = s->last};
    c.req.op = KFS_OP_READDIR;
    c.req.ino = s->ino;
    c.reply = s->buf;
    c.reply_cap = sizeof s->buf;
    s->len = s->off = 0;
    long r = kfs_pre_rpc(s->vol, &c);
    if (r < 0)
        return r;
    if (c.rep.attr.ino == s->ino) {
        if (c.rep.attr.nlink == 0)
            return -ENOENT;
        s->parent = c.rep.attr.parent;
    }
    s->len = (uint32_t)c.reply_len;
    if (!batch_ok(s)) {
        s->len = 0;
        return -EIO;
    }
    s->end = c.rep.value == 1 || s->len == 0;
    batch_begin(s);
    return 0;
}

static void entry_fill(struct dirent *d, uint64_t ino, uint8_t type, const char *name, size_t len,
                       long next_pos)
{
    size_t bytes = offsetof(struct dirent, d_name) + len + 1;
    d->d_ino = (ino_t)ino;
    d->d_off = next_pos;
    d->d_reclen = (unsigned short)((bytes + 7) & ~(size_t)7);
    d->d_type = type;
    memcpy(d->d_name, name, len);
    memset(d->d_name + len, 0, d->d_reclen - offsetof(struct dirent, d_name) - len);
}

/* 1: *d filled; 0: the end; -errno. */
static long stream_next(struct stream *s, struct dirent *d)
{
    if (s->pos == 0 && s->len == 0 && !s->end) { /* the first batch also says whether the directory is still there */
        long r = batch_fetch(s);
        if (r < 0 && r != -ENOENT)
            return r;
        s->gone = r == -ENOENT;
        s->end = s->end || s->gone;
    }
    if (s->gone) /* not even "." */
        return 0;
    if (s->pos == 0) {
        entry_fill(d, s->ino, DT_DIR, ".", 1, ++s->pos);
        return 1;
    }
    if (s->pos == 1) {
        entry_fill(d, parent_of(s), DT_DIR, "..", 2, ++s->pos);
        return 1;
    }
    while (s->off >= s->len) {
        if (s->end)
            return 0;
        long r = batch_fetch(s);
        if (r == -ENOENT) { /* removed meanwhile: an empty directory, as libc has it */
            s->end = true;
            return 0;
        }
        if (r < 0)
            return r;
    }
    struct kfs_wire_dirent e;
    memcpy(&e, s->buf + s->off, sizeof e);
    const char *name = s->buf + s->off + sizeof e;
    s->off += (uint32_t)sizeof e + e.name_len;
    s->pos++;
    memcpy(s->last, name, e.name_len);
    s->last[e.name_len] = '\0';
    entry_fill(d, e.ino, e.type, name, e.name_len, s->pos);
    return 1;
}

static void mark_set(struct stream *s)
{
    if (s->pos <= 2)
        return;
    struct mark *m = NULL;
    for (unsigned i = 0; i < MARKS && !m; i++)
        if (s->marks[i].pos == s->pos)
            m = &s->marks[i];
    if (!m)
        m = &s->marks[s->mark_next++ % MARKS];
    m->pos = s->pos;
    memcpy(m->name, s->last, sizeof m->name);
}

static bool mark_go(struct stream *s, long pos)
{
    for (unsigned i = 0; i < MARKS; i++) {
        if (s->marks[i].pos != pos)
            continue;
        s->pos = s->batch_pos = pos;
        memcpy(s->last, s->marks[i].name, sizeof s->last);
        s->len = s->off = 0;
        s->end = false;
        return true;
    }
    return false;
}

static void stream_seek(struct stream *s, long pos)
{
    if (pos == s->pos)
        return;
    if (s->len && pos >= s->batch_pos && s->batch_pos >= 2) { /* perhaps inside the batch */
        s->pos = s->batch_pos;
        s->off = 0;
        memcpy(s->last, s->before, sizeof s->last);
    } else if (mark_go(s, pos)) {
        return;
    } else {
        stream_start(s);
    }
    while (s->pos < pos) {
        if (s->off >= s->len && s->pos >= 2 && mark_go(s, pos))
            return;
        if (stream_next(s, &s->ent) != 1)
            return;
    }
}

/* --- the directory calls ------------------------------------------------------------------------------------------ */

/* A stream on fd, which it takes over; NULL and errno. */
static struct stream *stream_on(int fd)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i) || i.kind != KFS_FD_DIR) {
        errno = ENOTDIR;
        return NULL;
    }
    struct stream *s = stream_new(i.vol, i.ino, fd);
    if (!s)
        errno = ENOMEM;
    return s;
}

/* The stream of an open that our side served, or NULL and errno. *ret_host: open loc->host instead. */
static struct stream *open_loc(struct kfs_loc *loc, bool *ret_host)
{
    *ret_host = false;
    long fd = kfs_pre_open_loc(loc, O_RDONLY | O_NONBLOCK | O_DIRECTORY | O_CLOEXEC, 0, 0);
    if (fd == KFS_PRE_GO_HOST) {
        *ret_host = true;
        return NULL;
    }
    if (fd < 0) {
        errno = (int)-fd;
        return NULL;
    }
    struct stream *s = stream_on((int)fd);
    if (!s)
        fd_close((int)fd);
    return s;
}

/* A stream without a descriptor, when shared memory has the listing: no system call. NULL: open it. */
static struct stream *open_listed(struct kfs_loc *loc)
{
    struct kfs_attr a;
    struct kfs_shm_view l;
    if (kfs_pre_lookup(loc, true, &a) != 1 || !S_ISDIR(a.mode) || a.nlink == 0 || !kfs_perm_ok(kfs_pre_cred(), a.mode, a.uid, a.gid, 4))
        return NULL;
    const struct kfs_shm_header *shm = segment(loc->vol);
    return shm && kfs_shm_list_get(shm, a.ino, &l) ? stream_new(loc->vol, a.ino, FD_LATER) : NULL;
}

static struct __dirstream *dir_of(struct stream *s)
{
    return (struct __dirstream *)(void *)s;
}

struct __dirstream *kfs_do_opendir(const char *path)
{
    struct kfs_loc loc;
    int w = kfs_pre_where(AT_FDCWD, path, &loc);
    if (w < 0) {
        errno = -w;
        return NULL;
    }
    if (w == KFS_HOST)
        return kfs_real.opendir(path);
    if (w == KFS_HOST_AT)
        return kfs_real.opendir(loc.host);
    bool host;
    struct stream *s = open_listed(&loc);
    if (s)
        return dir_of(s);
    s = open_loc(&loc, &host);
    return host ? kfs_real.opendir(loc.host) : dir_of(s);
}

struct __dirstream *kfs_do_fdopendir(int fd)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i))
        return kfs_real.fdopendir(fd);
    long fl = kfs_sys_fcntl(fd, F_GETFL, 0);
    if (fl < 0 || (fl & O_PATH)) {
        errno = EBADF;
        return NULL;
    }
    struct stream *s = stream_on(fd);
    if (s)
        kfs_sys_fcntl(fd, F_SETFD, FD_CLOEXEC); /* as libc's */
    return dir_of(s);
}

int kfs_do_closedir(struct __dirstream *dir)
{
    struct stream *s = ours(dir);
    if (!s) {
        if (dir)
            kfs_pre_fd_unknown(kfs_real.dirfd(dir));
        return kfs_real.closedir(dir);
    }
    int fd = s->fd;
    stream_free(s);
    if (fd >= 0)
        fd_close(fd);
    return 0;
}

struct dirent *kfs_do_readdir(struct __dirstream *dir)
{
    struct stream *s = ours(dir);
    if (!s)
        return kfs_real.readdir(dir);
    lock(s);
    long r = stream_next(s, &s->ent);
    unlock(s);
    if (r < 0)
        errno = (int)-r;
    return r == 1 ? &s->ent : NULL;
}

int kfs_do_readdir_r(struct __dirstream *dir, struct dirent *entry, struct dirent **result)
{
    struct stream *s = ours(dir);
    if (!s)
        return kfs_real.readdir_r(dir, entry, result);
    lock(s);
    long r = stream_next(s, &s->ent);
    if (r == 1)
        memcpy(entry, &s->ent, s->ent.d_reclen);
    unlock(s);
    *result = r == 1 ? entry : NULL;
    return r < 0 ? (int)-r : 0;
}

void kfs_do_rewinddir(struct __dirstream *dir)
{
    struct stream *s = ours(dir);
    if (!s) {
        kfs_real.rewinddir(dir);
        return;
    }
    lock(s);
    stream_start(s);
    unlock(s);
}

void kfs_do_seekdir(struct __dirstream *dir, long pos)
{
    struct stream *s = ours(dir);
    if (!s) {
        kfs_real.seekdir(dir, pos);
        return;
    }
    lock(s);
    stream_seek(s, pos);
    unlock(s);
}

long kfs_do_telldir(struct __dirstream *dir)
{
    struct stream *s = ours(dir);
    if (!s)
        return kfs_real.telldir(dir);
    lock(s);
    long pos = s->pos;
    mark_set(s);
    unlock(s);
    return pos;
}

int kfs_do_dirfd(struct __dirstream *dir)
{
    struct stream *s = ours(dir);
    if (!s)
        return kfs_real.dirfd(dir);
    lock(s);
    if (s->fd == FD_LATER) {
        struct kfs_loc loc = {.vol = s->vol, .base = s->ino, .rel = ""};
        long fd = kfs_pre_open_loc(&loc, O_RDONLY | O_NONBLOCK | O_DIRECTORY | O_CLOEXEC, 0, 0);
        if (fd < 0)
            errno = (int)-fd;
        else
            s->fd = (int)fd;
    } else if (s->fd == FD_NONE) {
        errno = EINVAL;
    }
    int fd = s->fd;
    unlock(s);
    return fd < 0 ? -1 : fd;
}

/* --- getdents64 ----------------------------------------------------------------------------------------------------- */

/* Streams that getdents64 will probably go on with: taken out while in use, so that nobody shares one. */
static struct stream *parked[4];

static struct stream *parked_take(const struct kfs_fdinfo *i, long pos)
{
    for (size_t n = 0; n < 4; n++) {
        struct stream *s = __atomic_exchange_n(&parked[n], NULL, __ATOMIC_ACQ_REL);
        if (!s)
            continue;
        if (s->vol == i->vol && s->ino == i->ino && s->pos == pos)
            return s;
        struct stream *none = NULL;
        if (!__atomic_compare_exchange_n(&parked[n], &none, s, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED))
            stream_free(s);
    }
    return NULL;
}

static void parked_put(struct stream *s)
{
    for (size_t n = 0; n < 4; n++) {
        struct stream *none = NULL;
        if (__atomic_compare_exchange_n(&parked[n], &none, s, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return;
    }
    static unsigned turn;
    unsigned n = __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % 4;
    struct stream *old = __atomic_exchange_n(&parked[n], s, __ATOMIC_ACQ_REL);
    if (old)
        stream_free(old);
}

/* Whole records into buf. Bytes, 0 at the end, -errno. */
static long dents_fill(struct stream *s, char *buf, size_t size)
{
    size_t n = 0;
    for (;;) {
        long pos = s->pos;
        uint32_t off = s->off;
        long r = stream_next(s, &s->ent);
        if (r <= 0)
            return n ? (long)n : r;
        if (s->ent.d_reclen > size - n) { /* the next call's: put it back */
            s->pos = pos;
            if (pos >= 2)
                s->off = s->batch_pos == pos ? 0 : off;
            return n ? (long)n : -EINVAL;
        }
        if (!kfs_guard_can_write(buf + n, s->ent.d_reclen))
            return n ? (long)n : -EFAULT;
        memcpy(buf + n, &s->ent, s->ent.d_reclen);
        n += s->ent.d_reclen;
    }
}

ssize_t kfs_do_getdirentries(int fd, char *buf, size_t size, off_t *base)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i))
        return kfs_real.getdirentries(fd, buf, size, base);
    off_t pos = kfs_sys3(SYS_lseek, fd, 0, SEEK_CUR);
    ssize_t n = kfs_do_getdents64(fd, buf, size);
    if (n >= 0)
        *base = pos;
    return n;
}

ssize_t kfs_do_getdents64(int fd, void *buf, size_t size)
{
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i))
        return kfs_real.getdents64(fd, buf, size);
    if (i.kind != KFS_FD_DIR)
        return kfs_pre_ret(-ENOTDIR);
    long pos = kfs_sys3(SYS_lseek, fd, 0, SEEK_CUR);
    if (pos < 0)
        return kfs_pre_ret(pos);
    struct stream *s = parked_take(&i, pos);
    if (!s) {
        s = stream_new(i.vol, i.ino, FD_NONE);
        if (!s)
            return kfs_pre_ret(-ENOMEM);
        stream_seek(s, pos);
    }
    int room = (int)size; /* as the kernel takes it */
    long n = dents_fill(s, buf, room < 0 ? 0 : (size_t)room);
    if (n > 0) {
        kfs_sys3(SYS_lseek, fd, s->pos, SEEK_SET);
        parked_put(s);
    } else {
        stream_free(s);
    }
    return kfs_pre_ret(n);
}

/* --- scandir ---------------------------------------------------------------------------------------------------------- */

struct found {
    struct dirent **v;
    size_t n, cap;
};

static bool found_add(struct found *f, const struct dirent *d)
{
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 16;
        struct dirent **v = realloc(f->v, cap * sizeof *v);
        if (!v)
            return false;
        f->v = v;
        f->cap = cap;
    }
    struct dirent *copy = malloc(d->d_reclen);
    if (!copy)
        return false;
    memcpy(copy, d, d->d_reclen);
    f->v[f->n++] = copy;
    return true;
}

static void found_free(struct found *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->v[i]);
    free(f->v);
}

/* 0 or -errno. */
static long found_fill(struct found *f, struct stream *s, int (*filter)(const struct dirent *))
{
    struct dirent d;
    for (;;) {
        long r = stream_next(s, &d);
        if (r <= 0)
            return r;
        if (filter && !filter(&d))
            continue;
        if (!found_add(f, &d))
            return -ENOMEM;
    }
}

typedef int (*compare_fn)(const struct dirent **, const struct dirent **);

int kfs_do_scandirat(int dirfd, const char *path, struct dirent ***list,
                     int (*filter)(const struct dirent *), compare_fn compare)
{
    struct kfs_loc loc;
    int w = kfs_pre_where(dirfd, path, &loc);
    if (w < 0)
        return (int)kfs_pre_ret(w);
    if (w == KFS_HOST)
        return kfs_real.scandirat(dirfd, path, list, filter, compare);
    if (w == KFS_HOST_AT)
        return kfs_real.scandirat(AT_FDCWD, loc.host, list, filter, compare);
    bool host = false;
    struct stream *s = open_listed(&loc);
    if (!s)
        s = open_loc(&loc, &host);
    if (host)
        return kfs_real.scandirat(AT_FDCWD, loc.host, list, filter, compare);
    if (!s)
        return -1;
    int saved = errno;
    struct found f = {0};
    long r = found_fill(&f, s, filter);
    kfs_do_closedir(dir_of(s));
    if (r == 0 && !f.v && !(f.v = malloc(sizeof *f.v))) /* free(list) must work on an empty result */
        r = -ENOMEM;
    if (r < 0) {
        found_free(&f);
        return (int)kfs_pre_ret(r);
    }
    if (compare && f.n > 1)
        qsort(f.v, f.n, sizeof *f.v, (int (*)(const void *, const void *))(void *)compare);
    errno = saved;
    *list = f.v;
    return (int)f.n;
}

int kfs_do_scandir(const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
                   compare_fn compare)
{
    return kfs_do_scandirat(AT_FDCWD, path, list, filter, compare);
}

/* --- glob --------------------------------------------------------------------------------------------------------------- */

#ifdef GLOB_ALTDIRFUNC
static void *glob_opendir(const char *path)
{
    return opendir(path);
}

static struct dirent *glob_readdir(void *dir)
{
    return readdir(dir);
}

static void glob_closedir(void *dir)
{
    closedir(dir);
}

/* A pattern may meet a prefix anywhere ("/d*"), so libc's glob always calls back when there are volumes. */
int kfs_do_glob(const char *pattern, int flags, int (*errfunc)(const char *, int), void *result)
{
    glob_t *g = result;
    if (kfs_pre_vol_count == 0 || (flags & GLOB_ALTDIRFUNC) || !g)
        return kfs_real.glob(pattern, flags, errfunc, result);
    g->gl_opendir = glob_opendir;
    g->gl_readdir = glob_readdir;
    g->gl_closedir = glob_closedir;
    g->gl_stat = stat;
    g->gl_lstat = lstat;
    int r = kfs_real.glob(pattern, flags | GLOB_ALTDIRFUNC, errfunc, result);
    g->gl_flags &= ~GLOB_ALTDIRFUNC;
    return r;
}
#else
int kfs_do_glob(const char *pattern, int flags, int (*errfunc)(const char *, int), void *result)
{
    return kfs_real.glob(pattern, flags, errfunc, result);
}
#endif

/* --- ftw, nftw ------------------------------------------------------------------------------------------------------------ */

struct seen {
    uint64_t dev, ino; /* ino 0: free */
};

struct walk {
    int (*fn3)(const char *, const struct stat *, int);
    int (*fn4)(const char *, const struct stat *, int, struct FTW *);
    int flags;
    dev_t dev; /* of the start */
    struct FTW at;
    struct seen *seen; /* open addressing, at most half full */
    size_t seen_n, seen_cap;
    size_t len;
    char path[KFS_PATH_MAX];
};

static void *pages(size_t bytes)
{
    long r =
        kfs_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return r < 0 && r > -4096 ? NULL : (void *)r;
}

static bool seen_put(struct seen *v, size_t cap, uint64_t dev, uint64_t ino)
{
    for (size_t i = (size_t)kfs_hash_u64(ino ^ (dev << 40)) & (cap - 1);; i = (i + 1) & (cap - 1)) {
        if (v[i].ino == ino && v[i].dev == dev)
            return false;
        if (v[i].ino)
            continue;
        v[i] = (struct seen){dev, ino};
        return true;
    }
}

/* 1: new; 0: been there; -1 and errno. */
static int seen_add(struct walk *w, const struct stat *st)
{
    if (w->seen_n * 2 >= w->seen_cap) {
        size_t cap = w->seen_cap ? w->seen_cap * 2 : 1024;
        struct seen *v = pages(cap * sizeof *v);
        if (!v) {
            errno = ENOMEM;
            return -1;
        }
        for (size_t i = 0; i < w->seen_cap; i++)
            if (w->seen[i].ino)
                seen_put(v, cap, w->seen[i].dev, w->seen[i].ino);
        if (w->seen)
            kfs_sys_munmap(w->seen, w->seen_cap * sizeof *v);
        w->seen = v;
        w->seen_cap = cap;
    }
    if (!seen_put(w->seen, w->seen_cap, st->st_dev, st->st_ino))
        return 0;
    w->seen_n++;
    return 1;
}

static int walk_call(struct walk *w, const struct stat *st, int flag)
{
    if (w->fn4)
        return w->fn4(w->path, st, flag, &w->at);
    /* ftw knows fewer kinds. */
    if (flag == FTW_SL)
        flag = FTW_F;
    else if (flag == FTW_SLN)
        flag = FTW_NS;
    return w->fn3(w->path, st, flag);
}

/* What to name in calls: with FTW_CHDIR the working directory holds the object. */
static const char *walk_name(const struct walk *w)
{
    return (w->flags & FTW_CHDIR) ? w->path + w->at.base : w->path;
}

static int walk_dir(struct walk *w, const struct stat *st, int parent_fd);

static int walk_entry(struct walk *w, int parent_fd)
{
    struct stat st;
    int flag, result = 0;
    const char *name = walk_name(w);
    int r = (w->flags & FTW_PHYS) ? lstat(name, &st) : stat(name, &st);
    if (r < 0) {
        if (errno != EACCES && errno != ENOENT)
            return -1;
        flag = FTW_NS;
        if (!(w->flags & FTW_PHYS) && lstat(name, &st) == 0 && S_ISLNK(st.st_mode))
            flag = FTW_SLN;
    } else {
        flag = S_ISDIR(st.st_mode) ? FTW_D : S_ISLNK(st.st_mode) ? FTW_SL : FTW_F;
    }
    if (flag == FTW_NS || !(w->flags & FTW_MOUNT) || st.st_dev == w->dev) {
        if (flag != FTW_D) {
            result = walk_call(w, &st, flag);
        } else {
            int fresh = (w->flags & FTW_PHYS) ? 1 : seen_add(w, &st);
            result = fresh == 1 ? walk_dir(w, &st, parent_fd) : fresh;
        }
    }
    if ((w->flags & FTW_ACTIONRETVAL) && result == FTW_SKIP_SUBTREE)
        result = 0;
    return result;
}

static int walk_entries(struct walk *w, DIR *d)
{
    const struct dirent *e;
    int fd = (w->flags & FTW_CHDIR) ? dirfd(d) : -1;
    size_t base = (size_t)w->at.base;
    while ((errno = 0, e = readdir(d))) {
        size_t n = strlen(e->d_name);
        if (e->d_name[0] == '.' && (n == 1 || (n == 2 && e->d_name[1] == '.')))
            continue;
        if (base + n >= sizeof w->path) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(w->path + base, e->d_name, n + 1);
        w->len = base + n;
        int r = walk_entry(w, fd);
        if (r)
            return r;
    }
    return errno ? -1 : 0;
}

/* Our streams need no descriptor to go on: a deep walk does not run out of them. */
static void drop_fd(DIR *d)
{
    struct stream *s = ours(d);
    if (!s || s->fd < 0)
        return;
    fd_close(s->fd);
    s->fd = FD_NONE;
}

static int walk_dir(struct walk *w, const struct stat *st, int parent_fd)
{
    DIR *d = opendir(walk_name(w));
    if (!d)
        return errno == EACCES ? walk_call(w, st, FTW_DNR) : -1;
    int r = (w->flags & FTW_DEPTH) ? 0 : walk_call(w, st, FTW_D);
    if (r == 0 && (w->flags & FTW_CHDIR))
        r = fchdir(dirfd(d));
    if (r) {
        int saved = errno;
        closedir(d);
        errno = saved;
        return r;
    }
    if (!(w->flags & FTW_CHDIR))
        drop_fd(d);
    const int base = w->at.base;
    const size_t len = w->len;
    if (w->len + 1 >= sizeof w->path) {
        closedir(d);
        errno = ENAMETOOLONG;
        return -1;
    }
    if (w->path[w->len - 1] != '/')
        w->path[w->len++] = '/';
    w->at.base = (int)w->len;
    w->at.level++;
    r = walk_entries(w, d);
    int saved = errno;
    closedir(d);
    errno = saved;
    if ((w->flags & FTW_ACTIONRETVAL) && r == FTW_SKIP_SIBLINGS)
        r = 0;
    w->path[len] = '\0';
    w->len = len;
    w->at.level--;
    w->at.base = base;
    if (r == 0 && (w->flags & FTW_DEPTH))
        r = walk_call(w, st, FTW_DP);
    bool goes_on = r == 0 || ((w->flags & FTW_ACTIONRETVAL) && r != -1 && r != FTW_STOP);
    if (goes_on && (w->flags & FTW_CHDIR) && parent_fd >= 0 && fchdir(parent_fd) < 0)
        r = -1;
    return r;
}

static int walk_start(struct walk *w)
{
    struct stat st;
    const char *name = walk_name(w);
    int r = (w->flags & FTW_PHYS) ? lstat(name, &st) : stat(name, &st);
    if (r < 0) {
        if (!(w->flags & FTW_PHYS) && errno == ENOENT && lstat(name, &st) == 0 &&
            S_ISLNK(st.st_mode))
            return walk_call(w, &st, FTW_SLN);
        return -1;
    }
    w->dev = st.st_dev;
    if (!S_ISDIR(st.st_mode)) {
        r = walk_call(w, &st, S_ISLNK(st.st_mode) ? FTW_SL : FTW_F);
    } else {
        r = (w->flags & FTW_PHYS) ? 1 : seen_add(w, &st);
        if (r == 1)
            r = walk_dir(w, &st, -1);
    }
    if ((w->flags & FTW_ACTIONRETVAL) && (r == FTW_SKIP_SUBTREE || r == FTW_SKIP_SIBLINGS))
        r = 0;
    return r;
}

/* With FTW_CHDIR the walk starts in the directory that holds the start, and ends where it began. */
static int walk_run(struct walk *w)
{
    if (!(w->flags & FTW_CHDIR))
        return walk_start(w);
    int home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (home < 0)
        return -1;
    int r = 0;
    if (w->at.base > 0) {
        char dir[KFS_PATH_MAX];
        size_t n = (size_t)w->at.base;
        memcpy(dir, w->path, n);
        dir[n] = '\0';
        r = chdir(dir);
    }
    if (r == 0)
        r = walk_start(w);
    int saved = errno;
    if (fchdir(home) < 0 && r == 0) {
        saved = errno;
        r = -1;
    }
    close(home);
    errno = saved;
    return r;
}

static int walk(const char *path, int (*fn3)(const char *, const struct stat *, int),
                int (*fn4)(const char *, const struct stat *, int, struct FTW *), int flags)
{
    kfs_pre_late_end(); /* each call made here looks at host symlinks itself */
    size_t len = strlen(path);
    if (len == 0 || len >= KFS_PATH_MAX) {
        errno = len ? ENAMETOOLONG : ENOENT;
        return -1;
    }
    struct walk *w = pages(sizeof *w);
    if (!w) {
        errno = ENOMEM;
        return -1;
    }
    while (len > 1 && path[len - 1] == '/')
        len--;
    memcpy(w->path, path, len);
    w->len = len;
    while (len > 0 && path[len - 1] != '/')
        len--;
    w->at.base = (int)(len < w->len ? len : 0); /* "/" names itself */
    w->fn3 = fn3;
    w->fn4 = fn4;
    w->flags = flags;
    int r = walk_run(w);
    int saved = errno;
    if (w->seen)
        kfs_sys_munmap(w->seen, w->seen_cap * sizeof *w->seen);
    kfs_sys_munmap(w, sizeof *w);
    errno = saved;
    return r;
}

/* The walk goes by the exported functions, so it serves the host's trees as well: no need to find out whose the start is. */
int kfs_do_ftw(const char *path, int (*fn)(const char *, const struct stat *, int), int depth)
{
    (void)depth;
    return walk(path, fn, NULL, 0);
}

int kfs_do_nftw(const char *path, int (*fn)(const char *, const struct stat *, int, struct FTW *),
                int depth, int flags)
{
    if (flags & ~(FTW_PHYS | FTW_MOUNT | FTW_CHDIR | FTW_DEPTH | FTW_ACTIONRETVAL)) {
        errno = EINVAL;
        return -1;
    }
    /* libc's walk with FTW_CHDIR changes the working directory inside: unnoticed by us while fn runs. */
    bool host = !kfs_pre_maybe(AT_FDCWD, path) && !(flags & FTW_CHDIR && kfs_pre_vol_count);
    if (host) {
        int r = kfs_real.nftw(path, fn, depth, flags);
        if (r != -1 || errno != ENOENT || !kfs_pre_late(AT_FDCWD, path, true))
            return r;
    }
    return walk(path, NULL, fn, flags);
}
