#include "preload/standin.h"
#include "preload/guard.h"
#include "preload/real.h"
#include "base/pure/arrival.h"
#include "base/pure/sys.h"
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#define SLOTS 1024u
#define PROBE 16u
#define WANT_BYTES (4u << 20)     /* waited for at once: the rest is fetched meanwhile, by read-ahead */
#define DROP_BYTES (64u << 20)    /* copied out of a mapping before its pages are given back to the kernel's cache alone */
#define READ_MAX 0x7ffff000L      /* of one read, as in the kernel */
#define IOV_MAX_COUNT 1024
#define HANDOVER_TRIES 5000       /* of a millisecond: another process is between its two lseeks */

/* --- mappings ---------------------------------------------------------------------------------------------------------------- */
/* word: users * 4 + state. A slot is BUSY while it is filled or emptied; LEAVING goes with its last user. */
enum { EMPTY, BUSY, READY, LEAVING };
#define STATE(word) ((word)&3)

struct mapping {
    uint64_t word;
    struct kfs_vol *vol;
    uint64_t ino, version;
    const char *file;
    const struct kfs_arrival *map;
    size_t file_bytes, map_bytes;
    uint64_t copied, told; /* hints, unlocked: since the last give-back; window + 1 that kfsd heard of last */
};
static struct mapping *slots; /* SLOTS of them */

static bool is_error(long address)
{
    return (unsigned long)address > -4096UL;
}

static struct mapping *slots_get(void)
{
    struct mapping *s = __atomic_load_n(&slots, __ATOMIC_ACQUIRE);
    if (s || kfs_pre_in_vfork)
        return s;
    long p = kfs_sys_mmap(NULL, SLOTS * sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (is_error(p))
        return NULL;
    if (__atomic_compare_exchange_n(&slots, &s, (struct mapping *)p, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return (struct mapping *)p;
    kfs_sys_munmap((void *)p, SLOTS * sizeof *s);
    return s;
}

static void unmap(const struct mapping *m)
{
    kfs_sys_munmap((void *)(uintptr_t)m->file, m->file_bytes);
    kfs_sys_munmap((void *)(uintptr_t)m->map, m->map_bytes);
}

static bool map_good(const struct kfs_arrival *a, size_t bytes, const struct kfs_fdinfo *i)
{
    return a->magic == KFS_ARRIVAL_MAGIC && a->version == KFS_ARRIVAL_VERSION && a->ino == i->ino && a->content_version == i->version && a->size_bytes &&
           a->size_bytes <= INT64_MAX && a->frame_count == kfs_arrival_frames(a->size_bytes) && bytes >= kfs_arrival_bytes(a->size_bytes);
}

static long map_one(int fd, size_t bytes)
{
    struct stat st;
    if (fd < 0 || kfs_sys_fstat(fd, &st) < 0 || (uint64_t)st.st_size < bytes)
        return -EIO;
    return kfs_sys_mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
}

static long map_pair(const int fds[2], const struct kfs_fdinfo *i, struct mapping *ret)
{
    struct stat st;
    if (fds[0] < 0 || kfs_sys_fstat(fds[0], &st) < 0 || st.st_size < (off_t)sizeof(struct kfs_arrival))
        return -EIO;
    long a = map_one(fds[0], (size_t)st.st_size);
    if (is_error(a))
        return a;
    const struct kfs_arrival *map = (const struct kfs_arrival *)a;
    long f = map_good(map, (size_t)st.st_size, i) ? map_one(fds[1], map->size_bytes) : -EIO;
    if (is_error(f)) {
        kfs_sys_munmap((void *)a, (size_t)st.st_size);
        return f;
    }
    *ret = (struct mapping){.vol = i->vol, .ino = i->ino, .version = i->version, .file = (const char *)f, .map = map};
    ret->file_bytes = map->size_bytes;
    ret->map_bytes = (size_t)st.st_size;
    return 0;
}

/* Ask kfsd for the pair and map it. */
static long arrival(const struct kfs_fdinfo *i, struct mapping *ret)
{
    struct kfs_call c;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_ARRIVAL;
    c.req.ino = i->ino;
    c.req.value = i->version;
    c.req.value2 = i->key;
    long r = kfs_pre_rpc(i->vol, &c);
    if (r == 0)
        r = map_pair(c.fds, i, ret);
    for (int n = 0; n < 2; n++)
        if (c.fds[n] >= 0)
            kfs_sys_close(c.fds[n]);
    return r;
}

static size_t slot_first(const struct kfs_fdinfo *i)
{
    return (size_t)(kfs_hash_u64(i->ino ^ kfs_hash_u64(i->version + (uint64_t)i->vol->index)) % SLOTS);
}

/* One user more of a slot that is READY, or NULL. */
static struct mapping *slot_use(struct mapping *m, const struct kfs_fdinfo *i)
{
    uint64_t w = __atomic_load_n(&m->word, __ATOMIC_ACQUIRE);
    while (STATE(w) == READY && m->ino == i->ino && m->version == i->version && m->vol == i->vol)
        if (__atomic_compare_exchange_n(&m->word, &w, w + 4, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            if (m->ino == i->ino && m->version == i->version && m->vol == i->vol)
                return m;
            __atomic_fetch_sub(&m->word, 4, __ATOMIC_ACQ_REL); /* it was emptied and filled in between */
            return NULL;
        }
    return NULL;
}

static void slot_leave(struct mapping *m)
{
    uint64_t w = __atomic_sub_fetch(&m->word, 4, __ATOMIC_ACQ_REL);
    if (w != LEAVING || !__atomic_compare_exchange_n(&m->word, &w, BUSY, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    unmap(m);
    __atomic_store_n(&m->word, EMPTY, __ATOMIC_RELEASE);
}

/* No new user finds it; its mapping goes with the last one. */
static void slot_doom(struct mapping *m)
{
    uint64_t w = __atomic_load_n(&m->word, __ATOMIC_ACQUIRE);
    while (STATE(w) == READY)
        if (__atomic_compare_exchange_n(&m->word, &w, (w | 3) + 4, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            slot_leave(m);
            return;
        }
}

static struct mapping *slot_find(const struct kfs_fdinfo *i)
{
    struct mapping *s = slots_get();
    for (size_t n = 0, at = s ? slot_first(i) : 0; s && n < PROBE; n++) {
        struct mapping *m = slot_use(&s[(at + n) % SLOTS], i);
        if (m)
            return m;
    }
    return NULL;
}

/* Put a fresh mapping into the table; NULL: no slot. */
static struct mapping *slot_put(const struct kfs_fdinfo *i, const struct mapping *fresh)
{
    struct mapping *s = kfs_pre_in_vfork ? NULL : slots_get();
    for (size_t n = 0, at = s ? slot_first(i) : 0; s && n < PROBE; n++) {
        struct mapping *m = &s[(at + n) % SLOTS];
        uint64_t none = EMPTY;
        if (!__atomic_compare_exchange_n(&m->word, &none, BUSY, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        uint64_t *word = &m->word;
        memcpy((char *)m + sizeof *word, (const char *)fresh + sizeof *word, sizeof *m - sizeof *word);
        __atomic_store_n(word, READY + 4, __ATOMIC_RELEASE);
        return m;
    }
    return NULL;
}

/* The mapping of this content: a slot, or *own when there is none to be had. */
static long mapping_get(const struct kfs_fdinfo *i, struct mapping *own, struct mapping **ret)
{
    if ((*ret = slot_find(i)))
        return 0;
    long r = arrival(i, own);
    if (r < 0)
        return r;
    *ret = slot_put(i, own);
    if (!*ret)
        *ret = own;
    return 0;
}

static void mapping_put(struct mapping *m, const struct mapping *own)
{
    if (m == own)
        unmap(m);
    else
        slot_leave(m);
}

void kfs_pre_standin_closed(int fd)
{
    if ((unsigned)fd >= KFS_FD_NUMBERS || kfs_pre_fd_states[fd] != KFS_FD_STATE_STANDIN || kfs_pre_in_vfork)
        return;
    struct kfs_fdinfo i;
    if (!kfs_pre_fd(fd, &i) || !i.standin || kfs_pre_fd_standin_elsewhere(fd))
        return;
    struct mapping *m = slot_find(&i);
    if (!m)
        return;
    slot_doom(m);
    slot_leave(m);
}

/* --- settling ---------------------------------------------------------------------------------------------------------------- */
/* Ours is the stand-in's end, or somebody else's: then wait until he has set the offset. 0 or -errno. */
static long handover(int fd, int genuine)
{
    long at = kfs_sys3(SYS_lseek, fd, KFS_STANDIN_SETTLED, SEEK_CUR);
    if (at >= KFS_STANDIN_SETTLED) {
        long flags = kfs_sys_fcntl(fd, F_GETFL, 0) & (O_NONBLOCK | O_NOATIME);
        kfs_sys3(SYS_lseek, genuine, at - KFS_STANDIN_SETTLED, SEEK_SET);
        long r = kfs_sys_fcntl(genuine, F_SETFL, flags);
        return r == -EPERM ? kfs_sys_fcntl(genuine, F_SETFL, flags & ~(long)O_NOATIME) : r;
    }
    for (int n = 0; n < HANDOVER_TRIES; n++) {
        long flags = kfs_sys_fcntl(genuine, F_GETFL, 0);
        if (flags < 0 || !(flags & O_APPEND))
            return flags < 0 ? flags : 0;
        kfs_sys4(SYS_nanosleep, (long)&(struct timespec){.tv_nsec = 1000000}, 0, 0, 0);
    }
    return -EIO; /* whoever ended it has died in between: the offset is lost */
}

static long settle_call(int fd, const struct kfs_fdinfo *i, int *ret_genuine)
{
    struct kfs_call c;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_SETTLE;
    c.req.ino = i->ino;
    c.req.value = i->version;
    c.req.value2 = i->key;
    c.req.size_bytes = kfs_sys3(SYS_lseek, fd, 0, SEEK_CUR) >= KFS_STANDIN_SETTLED ? KFS_SETTLE_AGAIN : 0;
    c.req.oflags = kfs_wire_oflags((uint32_t)(kfs_sys_fcntl(fd, F_GETFL, 0) & (O_NONBLOCK | O_NOATIME)));
    long r = kfs_pre_rpc(i->vol, &c);
    if (r < 0)
        return r;
    if (c.fds[1] >= 0)
        kfs_sys_close(c.fds[1]);
    *ret_genuine = c.fds[0];
    return c.fds[0] < 0 ? -EMFILE : 0;
}

/* Is fd still this very stand-in? Another thread may have settled or closed it while we waited. */
static bool still(int fd, const struct kfs_fdinfo *i)
{
    struct stat st;
    return kfs_sys_fstat(fd, &st) == 0 && st.st_dev == i->dev && st.st_ino == i->cache_ino;
}

long kfs_pre_settle_info(int fd, const struct kfs_fdinfo *i)
{
    int genuine;
    struct stat st;
    long r = settle_call(fd, i, &genuine);
    if (r < 0)
        return still(fd, i) ? r : 0;
    r = still(fd, i) ? handover(fd, genuine) : -ESRCH;
    long cloexec = kfs_sys_fcntl(fd, F_GETFD, 0);
    if (r == 0 && (cloexec < 0 || !still(fd, i) || kfs_sys_fstat(genuine, &st) < 0))
        r = -ESRCH;
    if (r == 0) {
        kfs_pre_standin_closed(fd);
        r = kfs_sys_dup3(genuine, fd, cloexec & FD_CLOEXEC ? O_CLOEXEC : 0);
    }
    kfs_sys_close(genuine);
    if (r < 0)
        return r == -ESRCH ? 0 : r;
    struct kfs_fdinfo now = {.vol = i->vol, .ino = i->ino, .dev = st.st_dev, .cache_ino = st.st_ino, .kind = KFS_FD_FILE};
    kfs_pre_fd_set(fd, &now);
    return 0;
}

long kfs_pre_settle(int fd)
{
    struct kfs_fdinfo i;
    return kfs_pre_fd_look_standin(fd, &i) ? kfs_pre_settle_info(fd, &i) : 0;
}

long kfs_pre_settle_all(bool only_kept)
{
    long worst = 0;
    for (int fd = kfs_pre_fd_standin_next(0); fd >= 0; fd = kfs_pre_fd_standin_next(fd + 1)) {
        if (only_kept && (kfs_sys_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC))
            continue;
        long r = kfs_pre_settle(fd);
        worst = worst ? worst : r;
    }
    return worst;
}

bool kfs_pre_standin_late(int fd)
{
    struct kfs_fdinfo i;
    return kfs_pre_fd_look_standin(fd, &i);
}

/* --- who may have one ----------------------------------------------------------------------------------------------------------- */
static int never; /* descriptors of this process go to the kernel in memory that we do not see */

bool kfs_pre_standin_may(int oflags)
{
    const int other = O_CREAT | O_TRUNC | O_PATH | O_DIRECT | O_DIRECTORY | O_TMPFILE | O_EXCL;
    return (oflags & O_ACCMODE) == O_RDONLY && !(oflags & other) && !__atomic_load_n(&never, __ATOMIC_RELAXED);
}

void kfs_pre_standin_never(void)
{
    if (!kfs_pre_in_vfork)
        __atomic_store_n(&never, 1, __ATOMIC_RELAXED);
}

/* Does "/proc/self/fd" show a ring of io_uring? */
static bool has_ring(void)
{
    char buf[2048] __attribute__((aligned(8))), link[32];
    long dir = kfs_sys_openat(KFS_SYS_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), n;
    bool found = false;
    if (dir < 0)
        return false;
    while (!found && (n = kfs_sys3(SYS_getdents64, dir, (long)buf, sizeof buf)) > 0) {
        for (long at = 0; at < n && !found;) {
            const struct dirent64 *d = (const void *)(buf + at);
            long len = kfs_sys_readlinkat((int)dir, d->d_name, link, sizeof link);
            found = len == 21 && memcmp(link, "anon_inode:[io_uring]", 21) == 0;
            at += d->d_reclen;
        }
    }
    kfs_sys_close((int)dir);
    return found;
}

long kfs_pre_standin_opened(int fd, const struct kfs_fdinfo *i)
{
    if (!has_ring())
        return 0;
    kfs_pre_standin_never();
    return kfs_pre_settle_info(fd, i);
}

/* --- what is present ------------------------------------------------------------------------------------------------------------ */
/* How many of the n bytes from off on are here, without a gap? */
static size_t present(const struct kfs_arrival *a, uint64_t off, size_t n)
{
    uint64_t frame = off / KFS_FRAME_BYTES, end = off;
    while (end < off + n && frame < a->frame_count && kfs_arrival_has(a, frame))
        end = ++frame * KFS_FRAME_BYTES;
    return end > off + n ? n : (size_t)(end > off ? end - off : 0);
}

/* 0: ask kfsd again or look; 1: by a new map; -errno. */
static long want(const struct kfs_fdinfo *i, uint64_t off, uint64_t n)
{
    struct kfs_call c;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_WANT;
    c.req.ino = i->ino;
    c.req.ino2 = i->key;
    c.req.value = i->version;
    c.req.value2 = off;
    c.req.size_bytes = n;
    long r = kfs_pre_rpc(i->vol, &c);
    return r < 0 ? r : c.rep.value == 1;
}

/* Read-ahead needs to know where a reader is that goes straight on and finds everything: once a window. */
static void tell(const struct kfs_fdinfo *i, struct mapping *m, uint64_t off)
{
    uint64_t window = off / WANT_BYTES + 1;
    if (__atomic_load_n(&m->told, __ATOMIC_RELAXED) + 1 != window)
        return;
    __atomic_store_n(&m->told, window, __ATOMIC_RELAXED);
    (void)want(i, off, 1);
}

/* The kernel's cache keeps the pages; this process need not count them as its own for ever. */
static void copied(struct mapping *m, size_t n)
{
    if (__atomic_add_fetch(&m->copied, n, __ATOMIC_RELAXED) < DROP_BYTES)
        return;
    __atomic_store_n(&m->copied, 0, __ATOMIC_RELAXED);
    kfs_sys3(SYS_madvise, (long)m->file, (long)m->file_bytes, MADV_DONTNEED);
}

/* Copy n bytes from off on to the caller. How many; -errno: none. */
static long copy_out(const struct kfs_fdinfo *i, char *to, size_t n, uint64_t off)
{
    struct mapping own, *m;
    size_t done = 0;
    int idle = 0;
    long r = mapping_get(i, &own, &m);
    if (r < 0)
        return r;
    if (off >= m->file_bytes)
        n = 0;
    else if (n > m->file_bytes - off)
        n = (size_t)(m->file_bytes - off);
    while (done < n && r == 0) {
        size_t have = present(m->map, off + done, n - done);
        if (!have) {
            uint64_t rest = n - done;
            r = want(i, off + done, rest < WANT_BYTES ? rest : WANT_BYTES);
            __atomic_store_n(&m->told, (off + done) / WANT_BYTES + 1, __ATOMIC_RELAXED);
            if (r == 1) {
                if (m != &own)
                    slot_doom(m);
                mapping_put(m, &own);
                r = mapping_get(i, &own, &m);
                if (r < 0)
                    return done ? (long)done : r;
            }
            if (r == 0 && ++idle > 100)
                r = -EIO; /* it says that they are here, and they are not */
            continue;
        }
        idle = 0;
        if (__atomic_load_n(&m->map->state, __ATOMIC_ACQUIRE) != KFS_ARRIVAL_WHOLE)
            tell(i, m, off + done);
        size_t got = kfs_guard_copy(to + done, m->file + off + done, have);
        copied(m, got);
        done += got;
        if (got < have)
            r = kfs_guard_can_read(m->file + off + done, 1) ? -EFAULT : -EIO;
    }
    mapping_put(m, &own);
    return done ? (long)done : r;
}

/* --- reads ------------------------------------------------------------------------------------------------------------------------ */
/* Somebody changes the file: what a reader sees from now on is the cache file's. */
static bool changed(const struct kfs_fdinfo *i)
{
    struct kfs_attr a;
    if (!kfs_pre_attr(i->vol, i->ino, &a)) {
        struct kfs_call c;
        memset(&c, 0, offsetof(struct kfs_call, rep));
        c.req.op = KFS_OP_LOOKUP;
        c.req.ino = i->ino;
        if (kfs_pre_rpc(i->vol, &c) < 0)
            return false; /* no name any more, or nobody to ask: the content is what it was */
        a = c.rep.attr;
    }
    return (a.flags & KFS_ATTR_LIVE) || a.version != i->version;
}

static bool whole(const struct kfs_fdinfo *i)
{
    struct mapping *m = slot_find(i);
    bool yes = m && __atomic_load_n(&m->map->state, __ATOMIC_ACQUIRE) == KFS_ARRIVAL_WHOLE;
    if (m)
        slot_leave(m);
    return yes;
}

/* Is this number to be served by us? 1: yes, *ret and the file's size. 0: it is the kernel's now. -errno. */
static long serving(int fd, struct kfs_fdinfo *ret, uint64_t *ret_size)
{
    struct stat st;
    if (!kfs_pre_fd_look_standin(fd, ret) || kfs_sys_fstat(fd, &st) < 0)
        return 0;
    *ret_size = (uint64_t)st.st_size;
    if (changed(ret)) {
        long r = kfs_pre_settle_info(fd, ret);
        return r < 0 ? r : 0;
    }
    return whole(ret) && kfs_pre_settle_info(fd, ret) == 0 ? 0 : 1;
}

struct want_list {
    const struct iovec *iov;
    int count;
    size_t bytes;
};

/* As the kernel checks it. The list is copied by nobody: it is read once more when it is used. */
static long list_check(const struct iovec *iov, int count, struct want_list *ret)
{
    if (count < 0 || count > IOV_MAX_COUNT)
        return -EINVAL;
    if (!kfs_guard_can_read(iov, (size_t)count * sizeof *iov))
        return -EFAULT;
    *ret = (struct want_list){iov, count, 0};
    for (int n = 0; n < count; n++) {
        if (iov[n].iov_len > (size_t)INT64_MAX - ret->bytes)
            return -EINVAL;
        ret->bytes += iov[n].iov_len;
    }
    if (ret->bytes > READ_MAX)
        ret->bytes = READ_MAX;
    return 0;
}

static long list_copy(const struct kfs_fdinfo *i, const struct want_list *l, size_t n, uint64_t off)
{
    size_t done = 0;
    for (int k = 0; k < l->count && done < n; k++) {
        size_t part = l->iov[k].iov_len < n - done ? l->iov[k].iov_len : n - done;
        long r = part ? copy_out(i, l->iov[k].iov_base, part, off + done) : 0;
        if (r < 0)
            return done ? (long)done : r;
        done += (size_t)r;
        if ((size_t)r < part)
            break;
    }
    return (long)done;
}

/* Take n bytes at the shared offset for this call: how many there are, *ret_off where. -ESTALE: the stand-in has been ended. */
static long claim(int fd, size_t n, uint64_t size, uint64_t *ret_off)
{
    long at = kfs_sys3(SYS_lseek, fd, (long)n, SEEK_CUR);
    if (at < 0)
        return at;
    if (at >= KFS_STANDIN_SETTLED)
        return -ESTALE;
    uint64_t off = (uint64_t)at - n;
    size_t have = off >= size ? 0 : size - off < n ? (size_t)(size - off) : n;
    if (have < n)
        kfs_sys3(SYS_lseek, fd, (long)have - (long)n, SEEK_CUR);
    *ret_off = off;
    return (long)have;
}

/* *ret_kernel: the number is the kernel's (now), go on there. */
static long read_list(int fd, const struct want_list *l, long at, bool *ret_kernel)
{
    struct kfs_fdinfo i;
    uint64_t size, off;
    *ret_kernel = false;
    long r = serving(fd, &i, &size);
    if (r <= 0) {
        *ret_kernel = r == 0;
        return r;
    }
    if (at >= 0)
        return (uint64_t)at >= size ? 0 : list_copy(&i, l, l->bytes, (uint64_t)at);
    long n = claim(fd, l->bytes, size, &off);
    if (n == -ESTALE) {
        r = kfs_pre_settle_info(fd, &i);
        *ret_kernel = r == 0;
        return r;
    }
    if (n <= 0)
        return n;
    r = list_copy(&i, l, (size_t)n, off);
    if (r < n)
        kfs_sys3(SYS_lseek, fd, (r < 0 ? 0 : r) - n, SEEK_CUR);
    return r;
}

#define CURRENT (-1L)

static long read_one(int fd, void *buf, size_t n, long at, bool *ret_kernel)
{
    struct iovec v = {buf, n > (size_t)READ_MAX ? (size_t)READ_MAX : n};
    struct want_list l = {&v, 1, v.iov_len};
    return read_list(fd, &l, at, ret_kernel);
}

ssize_t kfs_do_read(int fd, void *buf, size_t n)
{
    bool kernel;
    long r = read_one(fd, buf, n, CURRENT, &kernel);
    return kernel ? kfs_real.read(fd, buf, n) : kfs_pre_ret(r);
}

ssize_t kfs_do_pread(int fd, void *buf, size_t n, off_t off)
{
    bool kernel;
    if (off < 0)
        return kfs_pre_ret(-EINVAL);
    long r = read_one(fd, buf, n, off, &kernel);
    return kernel ? kfs_real.pread(fd, buf, n, off) : kfs_pre_ret(r);
}

ssize_t kfs_do_readv(int fd, const struct iovec *iov, int count)
{
    bool kernel;
    struct want_list l;
    long r = list_check(iov, count, &l);
    if (r == 0)
        r = read_list(fd, &l, CURRENT, &kernel);
    else
        kernel = false;
    return kernel ? kfs_real.readv(fd, iov, count) : kfs_pre_ret(r);
}

ssize_t kfs_do_preadv(int fd, const struct iovec *iov, int count, off_t off)
{
    bool kernel = false;
    struct want_list l;
    long r = off < 0 ? -EINVAL : list_check(iov, count, &l);
    if (r == 0)
        r = read_list(fd, &l, off, &kernel);
    return kernel ? kfs_real.preadv(fd, iov, count, off) : kfs_pre_ret(r);
}

ssize_t kfs_do_preadv2(int fd, const struct iovec *iov, int count, off_t off, int flags)
{
    if (flags) { /* promises about the page cache are the kernel's */
        long r = kfs_pre_settle(fd);
        return r < 0 ? kfs_pre_ret(r) : kfs_real.preadv2(fd, iov, count, off, flags);
    }
    if (off == -1)
        return kfs_do_readv(fd, iov, count);
    return kfs_do_preadv(fd, iov, count, off);
}

/* --- the offset -------------------------------------------------------------------------------------------------------------------- */
/* Each move is relative, so that it cannot undo a settling by somebody else: -ESTALE then. */
static long seek(int fd, off_t off, int whence, uint64_t size)
{
    for (;;) {
        long at = kfs_sys3(SYS_lseek, fd, 0, SEEK_CUR), to;
        if (at < 0 || at >= KFS_STANDIN_SETTLED)
            return at < 0 ? at : -ESTALE;
        long from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? at : (long)size;
        if (__builtin_add_overflow(from, off, &to))
            return -EINVAL;
        if (to < 0 || to >= KFS_STANDIN_SETTLED)
            return -EINVAL;
        if (to == at)
            return at;
        long r = kfs_sys3(SYS_lseek, fd, to - at, SEEK_CUR);
        if (r >= KFS_STANDIN_SETTLED)
            return -ESTALE;
        if (r == to || (whence == SEEK_CUR && r >= 0))
            return r;
    }
}

off_t kfs_do_lseek(int fd, off_t off, int whence)
{
    struct kfs_fdinfo i;
    struct stat st;
    if (!kfs_pre_fd_look_standin(fd, &i) || kfs_sys_fstat(fd, &st) < 0) {
        (void)kfs_pre_fd(fd, &i); /* known from now on */
        return kfs_real.lseek(fd, off, whence);
    }
    bool known = whence == SEEK_SET || whence == SEEK_CUR || whence == SEEK_END;
    long r = !known || (whence == SEEK_END && changed(&i)) ? -ESTALE : seek(fd, off, whence, (uint64_t)st.st_size);
    if (r != -ESTALE)
        return kfs_pre_ret(r);
    r = kfs_pre_settle_info(fd, &i);
    return r < 0 ? kfs_pre_ret(r) : kfs_real.lseek(fd, off, whence);
}
