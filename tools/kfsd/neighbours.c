#include "tools/kfsd/arrive.h"
#include "base/clock.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Packs hold what was written together, and what was written together is as a rule read together. The first file of a pack that is missing is fetched
 * alone; the second within a minute says that this is a scan, a directory or an epoch, and brings the rest in a few long ranges instead of a request each. */

#define SLOTS     4096u /* packs remembered, one a slot: 32 GiB of small files on their way through */
#define SOON_NS   60000000000ULL
#define QUEUE_MAX 256u

struct pack_slot {
    uint64_t object;
    kfs_ino_t ino; /* of the miss */
    uint64_t at_ns;
    bool fetched;
};

struct kfsd_neighbours { /* arrive_lock */
    struct pack_slot slots[SLOTS];
    uint64_t queue[QUEUE_MAX];
    unsigned count;
};

void kfsd_neighbours_miss(struct kfsd_vol *v, kfs_ino_t ino, const struct kfs_content *c)
{
    uint64_t object = c->extents[0].object, now = kfs_clock_mono_ns();
    pthread_mutex_lock(&v->arrive_lock);
    struct kfsd_neighbours *n = v->neighbours;
    if (!n)
        n = v->neighbours = calloc(1, sizeof *n);
    struct pack_slot *s = n ? &n->slots[kfs_hash_u64(object) % SLOTS] : NULL;
    if (s && s->object == object && now - s->at_ns < SOON_NS) {
        /* Missed again although it was fetched: the cache does not hold them; once more when this has been quiet for a while. */
        if (s->ino != ino && !s->fetched && n->count < QUEUE_MAX) {
            s->fetched = true;
            s->at_ns = now;
            n->queue[n->count++] = object;
            v->neighbours_due = true;
            pthread_cond_signal(&v->arrive_work);
        }
    } else if (s) {
        *s = (struct pack_slot){.object = object, .ino = ino, .at_ns = now};
    }
    pthread_mutex_unlock(&v->arrive_lock);
}

struct batch {
    struct kfsd_vol *v;
    struct kfsd_arrival **list;
    size_t count, cap;
    uint64_t object, room;
};

static bool is_coming(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version)
{
    struct kfsd_arrival *x = kfsd_arrive_find(v, ino, version);
    kfsd_arrive_put(v, x);
    return x != NULL;
}

/* Is the owner that the pack names still made of just these bytes? */
static int check_owner(struct batch *b, kfs_ino_t ino, uint64_t plain_off, uint32_t plain_len, struct kfs_attr *ret)
{
    struct kfsd_vol *v = b->v;
    struct kfs_content c = {0};
    pthread_mutex_lock(&v->pub);
    int r = kfs_meta_getattr(v->meta, ino, ret, NULL);
    if (r == 0 && (!S_ISREG(ret->mode) || ret->nlink == 0 || ret->size_bytes != plain_len || kfsd_file_is_live(v, ino)))
        r = -ENOENT;
    if (r == 0)
        kfsd_attr_complete_locked(v, ret);
    if (r == 0 && (ret->flags & KFS_ATTR_CACHED || is_coming(v, ino, ret->version)))
        r = -EEXIST;
    if (r == 0)
        r = kfs_meta_content_get(v->meta, ino, &c, NULL);
    pthread_mutex_unlock(&v->pub);
    if (r == 0 && (c.extent_count != 1 || c.extents[0].object != b->object || c.extents[0].object_off != plain_off || c.extents[0].off != 0 ||
                   c.size_bytes != plain_len))
        r = -ENOENT;
    kfs_content_release(&c);
    return r;
}

static int each_owner(void *arg, kfs_ino_t ino, uint64_t file_off, uint64_t plain_off, uint32_t plain_len)
{
    struct batch *b = arg;
    struct kfsd_vol *v = b->v;
    struct kfs_attr a;
    if (__atomic_load_n(&v->arrive_stop, __ATOMIC_ACQUIRE))
        return 1;
    if (!ino || file_off || plain_len > b->room || check_owner(b, ino, plain_off, plain_len, &a) < 0)
        return 0;
    if (b->count == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 64;
        struct kfsd_arrival **more = realloc(b->list, cap * sizeof *more);
        if (!more)
            return 1;
        b->list = more;
        b->cap = cap;
    }
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return 1;
    /* Somebody busy with it will bring it in himself, or change it. */
    if (pthread_mutex_trylock(&f->lock) == 0) {
        if (!f->live && kfsd_arrive_begin(v, &a, KFSD_ARRIVE_NEIGHBOUR, &b->list[b->count], NULL) == 0) {
            b->count++;
            b->room -= plain_len;
        }
        pthread_mutex_unlock(&f->lock);
    }
    kfsd_file_put(v, f);
    return 0;
}

static void fetch_rest(struct kfsd_vol *v, uint64_t object)
{
    struct batch b = {.v = v, .object = object};
    b.room = kfs_cache_room_bytes(v->cache);
    /* Asked for all at once, so that they travel in long ranges. */
    kfs_fetch_plug(v->store);
    (void)kfs_fetch_each_owner(v->store, object, each_owner, &b, NULL);
    for (size_t i = 0; i < b.count; i++)
        kfsd_arrive_ahead(b.list[i]);
    kfs_fetch_unplug(v->store);
    for (size_t i = 0; i < b.count; i++)
        kfsd_arrive_put(v, b.list[i]);
    free(b.list);
}

void kfsd_neighbours_run(struct kfsd_vol *v)
{
    for (;;) {
        pthread_mutex_lock(&v->arrive_lock);
        struct kfsd_neighbours *n = v->neighbours;
        bool any = n && n->count && !v->arrive_stop;
        uint64_t object = any ? n->queue[0] : 0;
        if (any)
            memmove(n->queue, n->queue + 1, --n->count * sizeof *n->queue);
        /* Files that are whole go first: their readers wait for nothing else. */
        v->neighbours_due = n && n->count;
        bool posts = v->arrive_first != NULL;
        pthread_mutex_unlock(&v->arrive_lock);
        if (!any)
            return;
        fetch_rest(v, object);
        if (posts)
            return;
    }
}

void kfsd_neighbours_release(struct kfsd_vol *v)
{
    free(v->neighbours);
    v->neighbours = NULL;
}
