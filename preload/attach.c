/* preload/attach.c — volumes: the segment, the caller's ids, counters
 *
 * Each new connection's HELLO says which life of kfsd (epoch) it talks to. A new epoch brings a new segment; the old mapping stays, since another thread may be
 * reading it: its heartbeat has stopped, so it is not believed any more.
 */
#include "preload/shim.h"
#include "base/pure/arrival.h"
#include "base/pure/sys.h"
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static struct kfs_wire_stats *stats;

static void *map_fd(int fd, size_t min_bytes, int prot, uint64_t *ret_bytes)
{
    struct stat st;
    if (fd < 0 || kfs_sys_fstat(fd, &st) < 0 || st.st_size < (off_t)min_bytes)
        return NULL;
    long p = kfs_sys_mmap(NULL, (size_t)st.st_size, prot, MAP_SHARED, fd, 0);
    if (p < 0 && p > -4096)
        return NULL;
    *ret_bytes = (uint64_t)st.st_size;
    return (void *)p;
}

static void take_stats(int fd)
{
    uint64_t bytes;
    struct kfs_wire_stats *none = NULL;
    if (fd < 0 || __atomic_load_n(&stats, __ATOMIC_RELAXED))
        return;
    struct kfs_wire_stats *p = map_fd(fd, sizeof *p, PROT_READ | PROT_WRITE, &bytes);
    if (p && !__atomic_compare_exchange_n(&stats, &none, p, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        kfs_sys_munmap(p, bytes);
}

/* Whoever reads the old ones at this moment may go on: they stay mapped. */
static void take_more_dirs(struct kfs_vol *v, const struct kfs_wire_hello *h)
{
    if (!memchr(h->more_dirs, 0, sizeof h->more_dirs) || strcmp(h->more_dirs, kfs_pre_more_dirs(v)) == 0)
        return;
    long p = kfs_sys_mmap(NULL, sizeof h->more_dirs, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p < 0 && p > -4096)
        return;
    memcpy((void *)p, h->more_dirs, sizeof h->more_dirs);
    __atomic_store_n(&v->more_dirs, (const char *)p, __ATOMIC_RELEASE);
}

static void take_segment(struct kfs_vol *v, const struct kfs_wire_hello *h, int fd)
{
    uint64_t bytes;
    struct stat st;
    struct kfs_shm_header *p = map_fd(fd, sizeof *p, PROT_READ, &bytes);
    if (p && (!kfs_shm_header_ok(p, bytes) || p->epoch != h->epoch)) {
        kfs_sys_munmap(p, bytes);
        p = NULL;
    }
    v->dev = h->dev;
    v->flags = h->flags;
    take_more_dirs(v, h);
    v->standin_tag = memchr(h->volume_id, 0, sizeof h->volume_id) ? kfs_standin_volume(h->volume_id) : 0;
    if (kfs_sys_fstatat(KFS_SYS_FDCWD, v->m.cache_dir, &st, 0) == 0)
        v->cache_dev = st.st_dev;
    else
        v->flags &= ~KFS_HELLO_DIRECT;
    __atomic_store_n(&v->epoch, h->epoch, __ATOMIC_RELAXED);
    __atomic_store_n(&v->shm, p, __ATOMIC_RELEASE);
    __atomic_store_n(&v->attached, 1, __ATOMIC_RELEASE);
}

int kfs_pre_hello(struct kfs_vol *v, const struct kfs_wire_hello *h, int segment_fd, int stats_fd)
{
    int r = h->root_ino == v->root ? 0 : -EPROTO;
    if (r == 0 && !kfs_pre_in_vfork) {
        if (!__atomic_load_n(&v->attached, __ATOMIC_ACQUIRE) || __atomic_load_n(&v->epoch, __ATOMIC_RELAXED) != h->epoch)
            take_segment(v, h, segment_fd);
        take_stats(stats_fd);
    }
    if (segment_fd >= 0)
        kfs_sys_close(segment_fd);
    if (stats_fd >= 0)
        kfs_sys_close(stats_fd);
    return r;
}

int kfs_pre_attach(struct kfs_vol *v)
{
    if (__atomic_load_n(&v->attached, __ATOMIC_ACQUIRE))
        return 0;
    if (kfs_pre_in_vfork)
        return -EAGAIN;
    return kfs_pre_connect(v);
}

void kfs_pre_count(enum kfs_tier tier)
{
    struct kfs_wire_stats *s = __atomic_load_n(&stats, __ATOMIC_RELAXED);
    if (s && !kfs_pre_in_vfork)
        __atomic_store_n(&s->calls[tier], s->calls[tier] + 1, __ATOMIC_RELAXED);
}

void kfs_pre_touched(const struct kfs_vol *v, kfs_ino_t ino)
{
    struct kfs_wire_stats *s = __atomic_load_n(&stats, __ATOMIC_RELAXED);
    if (!s || kfs_pre_in_vfork)
        return;
    /* Threads may share a slot, and one use is lost: kfsd wants to know what is hot, not how hot. */
    uint64_t n = __atomic_load_n(&s->touch_count, __ATOMIC_RELAXED);
    __atomic_store_n(&s->touched[n % KFS_WIRE_TOUCHED], kfs_wire_touch(v->dev, ino), __ATOMIC_RELAXED);
    __atomic_store_n(&s->touch_count, n + 1, __ATOMIC_RELEASE);
}

/* --- the caller's ids ----------------------------------------------------------------------------------------------- */
static struct kfs_cred cred, cred_real; /* effective ids; real ones, as access(2) goes by */
static int cred_known;

static uint32_t groups_get(uint32_t *groups)
{
    long n = kfs_sys3(SYS_getgroups, KFS_GROUPS_MAX, (long)groups, 0);
    if (n >= 0)
        return (uint32_t)n;
    n = kfs_sys3(SYS_getgroups, 0, 0, 0);
    if (n <= 0)
        return 0;
    size_t bytes = (size_t)n * sizeof *groups;
    long p = kfs_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p < 0 && p > -4096)
        return 0;
    n = kfs_sys3(SYS_getgroups, n, p, 0);
    if (n > KFS_GROUPS_MAX)
        n = KFS_GROUPS_MAX;
    if (n > 0)
        memcpy(groups, (const void *)p, (size_t)n * sizeof *groups);
    kfs_sys_munmap((void *)p, bytes);
    return n > 0 ? (uint32_t)n : 0;
}

const struct kfs_cred *kfs_pre_cred(void)
{
    if (KFS_LIKELY(__atomic_load_n(&cred_known, __ATOMIC_ACQUIRE)))
        return &cred;
    struct kfs_cred c;
    c.uid = (uint32_t)kfs_sys3(SYS_geteuid, 0, 0, 0);
    c.gid = (uint32_t)kfs_sys3(SYS_getegid, 0, 0, 0);
    c.group_count = groups_get(c.groups);
    size_t bytes = offsetof(struct kfs_cred, groups) + c.group_count * sizeof c.groups[0];
    memcpy(&cred, &c, bytes);
    c.uid = (uint32_t)kfs_sys3(SYS_getuid, 0, 0, 0);
    c.gid = (uint32_t)kfs_sys3(SYS_getgid, 0, 0, 0);
    memcpy(&cred_real, &c, bytes);
    __atomic_store_n(&cred_known, 1, __ATOMIC_RELEASE);
    return &cred;
}

const struct kfs_cred *kfs_pre_cred_real(void)
{
    kfs_pre_cred();
    return &cred_real;
}

void kfs_pre_cred_forget(void)
{
    if (kfs_pre_in_vfork)
        return; /* the child's ids: its calls go to kfsd on connections of their own */
    __atomic_store_n(&cred_known, 0, __ATOMIC_RELEASE);
    kfs_pre_rpc_drop();
}
