#include "tools/kfsd/kfsd.h"
#include "base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
/* kfs_shm_: the sequence lock copies a row while it may be written, and throws the copy away if it was: that is its point. conn_end: a connection is handed
 * from worker to worker by epoll's one shot, an order that the tool does not see. */
const char *__tsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "race:kfs_shm_\nrace:conn_end\n";
}
#endif

/* The cache file of a live inode speaks for size, blocks and mtime. ctime follows mtime: the cache file's own ctime also moves when kfsd renames it
 * or mirrors a mode, which nobody should see. */
static bool merge_live(struct kfsd_vol *v, struct kfs_attr *a)
{
    struct stat st;
    if (kfs_cache_stat_live(v->cache, a->ino, &st) < 0)
        return false;
    a->size_bytes = (uint64_t)st.st_size;
    a->blocks = (uint64_t)st.st_blocks;
    a->mtime_s = st.st_mtim.tv_sec;
    a->mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
    struct timespec now = kfs_clock_real(), m = st.st_mtim;
    if (m.tv_sec < now.tv_sec || (m.tv_sec == now.tv_sec && m.tv_nsec <= now.tv_nsec))
        kfsd_ts_newer(&a->ctime_s, &a->ctime_ns, m);
    a->cache_ino = st.st_ino;
    return true;
}

void kfsd_attr_complete_locked(struct kfsd_vol *v, struct kfs_attr *a)
{
    a->flags &= ~(KFS_ATTR_LIVE | KFS_ATTR_CACHED | KFS_ATTR_DIR_MASK);
    a->cache_ino = 0;
    if (!S_ISREG(a->mode))
        return;
    if (kfsd_file_is_live(v, a->ino)) {
        a->flags |= KFS_ATTR_LIVE;
        (void)merge_live(v, a);
        return;
    }
    unsigned dir;
    if (kfs_cache_find_clean(v->cache, a->ino, a->version, &a->cache_ino, &dir))
        a->flags |= KFS_ATTR_CACHED | dir << KFS_ATTR_DIR_SHIFT;
}

void kfsd_attr_publish_locked(struct kfsd_vol *v, struct kfs_attr *a)
{
    kfsd_attr_complete_locked(v, a);
    kfs_shm_put_attr(v->shm, a);
}

int kfsd_attr_refresh_locked(struct kfsd_vol *v, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err)
{
    int r = kfs_meta_getattr(v->meta, ino, ret, err);
    if (r == 0)
        kfsd_attr_publish_locked(v, ret);
    else if (r == -ENOENT)
        kfs_shm_drop_attr(v->shm, ino);
    return r;
}

int kfsd_attr_get(struct kfsd_vol *v, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err)
{
    if (kfs_shm_attr_get(v->seg, ino, ret) && !(ret->flags & KFS_ATTR_LIVE))
        return 0;
    pthread_mutex_lock(&v->pub);
    int r;
    if (kfs_shm_attr_get(v->seg, ino, ret)) {
        /* Under pub the row is the truth but for the cache file: no need to ask the database. */
        if (ret->flags & KFS_ATTR_LIVE && (!kfsd_file_is_live(v, ino) || !merge_live(v, ret)))
            r = kfsd_attr_refresh_locked(v, ino, ret, err);
        else
            r = 0;
    } else {
        r = kfsd_attr_refresh_locked(v, ino, ret, err);
    }
    pthread_mutex_unlock(&v->pub);
    return r;
}

int kfsd_child_get(struct kfsd_vol *v, kfs_ino_t parent, const char *name, size_t len, struct kfs_attr *ret, struct kfs_err *err)
{
    uint64_t ino = 0;
    int state = kfs_shm_dent_get(v->seg, parent, name, len, &ino);
    if (state == KFS_DENT_EMPTY)
        state = kfs_shm_list_find(v->seg, parent, name, len, &ino);
    if (state == KFS_DENT_ABSENT)
        return -ENOENT;
    if (state == KFS_DENT_PRESENT) {
        int r = kfsd_attr_get(v, ino, ret, err);
        if (r != -ENOENT)
            return r;
    }
    pthread_mutex_lock(&v->pub);
    int r = kfs_meta_lookup(v->meta, parent, name, len, ret, err);
    if (r == 0) {
        kfsd_attr_publish_locked(v, ret);
        kfs_shm_put_dent(v->shm, parent, name, len, ret->ino);
    } else if (r == -ENOENT) {
        kfs_shm_put_dent(v->shm, parent, name, len, 0);
    }
    pthread_mutex_unlock(&v->pub);
    return r;
}

int kfsd_link_get(struct kfsd_vol *v, kfs_ino_t ino, char *buf, struct kfs_err *err)
{
    int n = kfs_shm_link_get(v->seg, ino, buf);
    if (n >= 0)
        return n;
    /* A symlink's target never changes: nothing to order, but the row must not outlive a failed read. */
    n = kfs_meta_readlink(v->meta, ino, buf, err);
    if (n >= 0)
        kfs_shm_put_link(v->shm, ino, buf, (size_t)n);
    return n;
}

/* ---- evictions: withdrawn by the heart, because the callback may come from anywhere -------------------------------- */

void kfsd_on_evict(void *vol, kfs_ino_t ino, uint64_t version)
{
    struct kfsd_vol *v = vol;
    pthread_mutex_lock(&v->evicted);
    /* A full list loses entries: a stale CACHED flag only costs the reader a failed open before it asks kfsd. */
    if (v->evicted_count < KFSD_EVICTED_MAX) {
        v->evicted_list[v->evicted_count].ino = ino;
        v->evicted_list[v->evicted_count].version = version;
        __atomic_store_n(&v->evicted_count, v->evicted_count + 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&v->evicted);
}

static void withdraw_evicted(struct kfsd_vol *v)
{
    while (pthread_mutex_trylock(&v->pub) == 0) {
        pthread_mutex_lock(&v->evicted);
        bool any = v->evicted_count > 0;
        kfs_ino_t ino = 0;
        uint64_t version = 0;
        if (any) {
            __atomic_store_n(&v->evicted_count, v->evicted_count - 1, __ATOMIC_RELAXED);
            ino = v->evicted_list[v->evicted_count].ino;
            version = v->evicted_list[v->evicted_count].version;
        }
        pthread_mutex_unlock(&v->evicted);
        struct kfs_attr a;
        if (any && kfs_shm_attr_get(v->seg, ino, &a) && a.version == version)
            kfsd_attr_publish_locked(v, &a);
        pthread_mutex_unlock(&v->pub);
        if (!any)
            return;
    }
}

static pthread_t heart;
static atomic_bool heart_on;

static void *heart_main(void *arg)
{
    (void)arg;
    while (atomic_load(&heart_on)) {
        uint64_t now = kfs_clock_mono_ns();
        for (struct kfsd_vol *v = kfsd.vols; v; v = v->next) {
            kfs_shm_beat(v->shm, now);
            if (__atomic_load_n(&v->evicted_count, __ATOMIC_RELAXED))
                withdraw_evicted(v);
        }
        kfsd_touches();
        usleep(KFS_SHM_BEAT_MS * 1000);
    }
    return NULL;
}

int kfsd_heart_start(void)
{
    atomic_store(&heart_on, true);
    int r = pthread_create(&heart, NULL, heart_main, NULL);
    if (r)
        atomic_store(&heart_on, false);
    return -r;
}

void kfsd_heart_stop(void)
{
    if (!atomic_exchange(&heart_on, false))
        return;
    pthread_join(heart, NULL);
    /* Readers stop trusting these segments now, not half a second later: whoever comes next may change things at once. */
    for (struct kfsd_vol *v = kfsd.vols; v; v = v->next)
        kfs_shm_beat(v->shm, 0);
}
