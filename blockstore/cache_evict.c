/* blockstore/cache_evict.c — what goes first: S3-FIFO over whole files
 *
 * Model    Two queues a place. A file that is new waits in `small`, which is kept to a tenth of what is cached; used again while it waits there, it moves to
 *          `main`, else it goes, and is remembered as a ghost. A file that comes back while its ghost is remembered starts in `main`. There, each use
 *          (at most three count) buys one more round. So a scan of any length passes through `small` and leaves `main` alone; tests/unit/blockstore/
 *          test_cache_evict.c measures that against least-recently-used.
 *          No list is touched by a use, which is a counter: uses by programs that open cache files themselves come in later, and sampled.
 *          Somebody who has a file open keeps it (P4), so unlinking it is safe at any time, but frees nothing: such files go last. A lease tells; it is
 *          refused at once while somebody has the file open.
 */
#include "blockstore/cache_dir.h"
#include "base/pure/hash.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define SMALL_SHARE 10 /* `small` is kept to used / SMALL_SHARE */
#define BUSY_MAX    64 /* files in use that one search passes over; looking for another one costs a few microseconds each */

/* --- queues ----------------------------------------------------------------------------------- */

void kfs_cache_queue_push_locked(struct kfs_cache *c, struct kfs_cache_entry *e, unsigned queue)
{
    struct kfs_cache_queue *q = &c->places[e->place].queues[queue];
    e->queue = (uint8_t)queue;
    e->newer = NULL;
    e->older = q->newest;
    *(q->newest ? &q->newest->newer : &q->oldest) = e;
    q->newest = e;
    q->bytes += e->bytes;
}

void kfs_cache_queue_unlink_locked(struct kfs_cache *c, struct kfs_cache_entry *e)
{
    struct kfs_cache_queue *q = &c->places[e->place].queues[e->queue];
    *(e->newer ? &e->newer->older : &q->newest) = e->older;
    *(e->older ? &e->older->newer : &q->oldest) = e->newer;
    q->bytes -= e->bytes;
}

static void requeue_locked(struct kfs_cache *c, struct kfs_cache_entry *e, unsigned queue)
{
    kfs_cache_queue_unlink_locked(c, e);
    kfs_cache_queue_push_locked(c, e, queue);
}

/* --- ghosts ----------------------------------------------------------------------------------- */

static struct kfs_cache_ghost *ghost_of(const struct kfs_cache *c, kfs_ino_t ino, uint32_t *ret_tag)
{
    uint64_t h = kfs_hash_u64(ino ^ 0x6768);
    *ret_tag = (uint32_t)(h >> 32) | 1;
    return &c->ghosts[h & (c->bucket_count - 1)];
}

/* As long as there are files in the cache, a ghost is remembered: longer than its file would have stayed with twice the room. */
bool kfs_cache_ghost_known_locked(const struct kfs_cache *c, kfs_ino_t ino)
{
    uint32_t tag;
    const struct kfs_cache_ghost *g = ghost_of(c, ino, &tag);
    return g->tag == tag && c->evictions - g->when <= c->entry_count;
}

static void ghost_add_locked(struct kfs_cache *c, kfs_ino_t ino)
{
    uint32_t tag;
    struct kfs_cache_ghost *g = ghost_of(c, ino, &tag);
    *g = (struct kfs_cache_ghost){.tag = tag, .when = ++c->evictions};
}

/* --- who goes --------------------------------------------------------------------------------- */

static bool in_use(struct kfs_cache *c, const struct kfs_cache_entry *e)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(name, e->ino, e->version);
    int fd = openat(c->places[e->place].f_fd, name, O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    bool used = fcntl(fd, F_SETLEASE, F_WRLCK) < 0 && errno == EAGAIN;
    if (!used)
        (void)fcntl(fd, F_SETLEASE, F_UNLCK);
    close(fd);
    return used;
}

static struct kfs_cache_entry *next_locked(struct kfs_cache_place *p, kfs_ino_t keep)
{
    const struct kfs_cache_queue *small = &p->queues[KFS_CACHE_SMALL], *all = &p->queues[KFS_CACHE_MAIN];
    bool small_first = small->oldest && (!all->oldest || small->bytes > p->used_bytes / SMALL_SHARE);
    struct kfs_cache_entry *e = small_first ? small->oldest : all->oldest;
    if (e && e->ino == keep) /* it alone in this queue: the other one */
        e = e->newer ? e->newer : small_first ? all->oldest : small->oldest;
    return e && e->ino != keep ? e : NULL;
}

/* all: whatever its uses, and whether or not somebody has it open. NULL: nothing is left that may go. */
static struct kfs_cache_entry *victim_locked(struct kfs_cache *c, struct kfs_cache_place *p, kfs_ino_t keep, bool all)
{
    unsigned busy = 0;
    for (uint64_t rounds = (KFS_CACHE_USES_MAX + 2) * (p->files + 1); rounds; rounds--) {
        struct kfs_cache_entry *e = next_locked(p, keep);
        if (!e || all)
            return e;
        if (e->uses) {
            e->uses = e->queue == KFS_CACHE_SMALL ? 0 : (uint8_t)(e->uses - 1);
            requeue_locked(c, e, KFS_CACHE_MAIN);
        } else if (busy < BUSY_MAX && busy < p->files && in_use(c, e)) {
            busy++;
            requeue_locked(c, e, KFS_CACHE_MAIN);
        } else {
            return e;
        }
    }
    return next_locked(p, keep);
}

/* Take one out and unlink it. The file is unlinked under the lock, so that nobody adds the same name between the index's forgetting it and its end. */
static struct kfs_cache_entry *evict_one_locked(struct kfs_cache *c, struct kfs_cache_place *p, kfs_ino_t keep, bool all)
{
    struct kfs_cache_entry *e = victim_locked(c, p, keep, all);
    if (!e)
        return NULL;
    if (e->queue == KFS_CACHE_SMALL)
        ghost_add_locked(c, e->ino);
    kfs_cache_log_remove_locked(c, e);
    kfs_cache_index_detach_locked(c, kfs_cache_index_slot_locked(c, e->ino));
    kfs_cache_unlink_clean(c, e->place, e->ino, e->version);
    c->stats.evicted_files++;
    c->stats.evicted_bytes += e->bytes;
    return e;
}

static uint64_t report(struct kfs_cache *c, struct kfs_cache_entry *e)
{
    uint64_t bytes = e->bytes;
    if (c->on_evict)
        c->on_evict(c->on_evict_arg, e->ino, e->version);
    free(e);
    return bytes;
}

static bool over_locked(const struct kfs_cache_place *p)
{
    return (p->cap_bytes && p->used_bytes + p->partial_bytes > p->cap_bytes) || (p->cap_files && p->files > p->cap_files);
}

void kfs_cache_trim(struct kfs_cache *c, struct kfs_cache_place *p, kfs_ino_t keep)
{
    struct kfs_cache_entry *e;
    do {
        pthread_mutex_lock(&c->lock);
        e = over_locked(p) ? evict_one_locked(c, p, keep, false) : NULL;
        pthread_mutex_unlock(&c->lock);
        if (e)
            (void)report(c, e);
    } while (e);
}

uint64_t kfs_cache_evict_place(struct kfs_cache *c, struct kfs_cache_place *p, uint64_t bytes, uint64_t *ret_files)
{
    uint64_t gone = 0, files = 0;
    struct kfs_cache_entry *e;
    do {
        pthread_mutex_lock(&c->lock);
        e = gone < bytes ? evict_one_locked(c, p, 0, false) : NULL;
        pthread_mutex_unlock(&c->lock);
        if (e) {
            gone += report(c, e);
            files++;
        }
    } while (e);
    if (ret_files)
        *ret_files = files;
    return gone;
}

int64_t kfs_cache_evict(struct kfs_cache *c, uint64_t target_bytes)
{
    uint64_t gone = 0;
    for (;;) {
        struct kfs_cache_place *most = &c->places[0];
        struct kfs_cache_entry *e = NULL;
        uint64_t used = 0;
        pthread_mutex_lock(&c->lock);
        for (unsigned i = 0; i < atomic_load(&c->place_count); i++) {
            used += c->places[i].used_bytes;
            if (c->places[i].used_bytes > most->used_bytes || !most->files)
                most = &c->places[i];
        }
        if (used > target_bytes || target_bytes == 0)
            e = evict_one_locked(c, most, 0, target_bytes == 0);
        pthread_mutex_unlock(&c->lock);
        if (!e)
            return (int64_t)gone;
        gone += report(c, e);
    }
}

void kfs_cache_on_evict(struct kfs_cache *c, void (*fn)(void *arg, kfs_ino_t ino, uint64_t version),
                        void *arg)
{
    pthread_mutex_lock(&c->lock);
    c->on_evict = fn;
    c->on_evict_arg = arg;
    pthread_mutex_unlock(&c->lock);
}

void kfs_cache_caps_set(struct kfs_cache *c, uint64_t cap_bytes, uint64_t cap_files)
{
    pthread_mutex_lock(&c->lock);
    c->places[0].cap_bytes = cap_bytes;
    c->places[0].cap_files = cap_files;
    pthread_mutex_unlock(&c->lock);
    kfs_cache_trim(c, &c->places[0], 0);
}
