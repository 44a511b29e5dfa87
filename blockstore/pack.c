/* blockstore/pack.c — frames of many small files in one object
 *
 * Model    There is one current pack, which everybody adds to. It is sealed (nothing more goes in, its PUT gets on its way) when it is full; when somebody
 *          waits for it and no PUT of a pack is under way, so that nobody waits idly; when it is PACK_AGE_NS old; and at once when it is
 *          to be durable. So files that are closed while a PUT is under way share the next one, and a lone file does not wait for company.
 *          Sealing happens in the thread of whoever waits or fills; the driver's thread only tells of the end.
 * Memory   Packs under way hold at most UNDER_WAY_MAX bytes; whoever wants to add more waits.
 */
#include "blockstore/store.h"
#include "base/clock.h"
#include "base/fault.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PACK_AGE_NS   100000000ULL
#define UNDER_WAY_MAX (40u << 20)
#define FIRST_ROOM    (256u << 10)

enum pack_state { PACK_OPEN, PACK_SEALED, PACK_DONE };

/* Fields belong to packs->lock; between sealing and done the sealing thread and the driver own buf and entries. */
struct kfs_blk_pack {
    struct kfs_store *s;
    unsigned refs; /* who added and did not wait yet, the current pointer, the PUT */
    enum pack_state state;
    bool durable;
    uint64_t object, born_ns, plain, bytes;
    unsigned char *buf; /* the object from its header on */
    size_t used, room;
    struct kfs_object_entry *entries;
    uint32_t count, entry_room;
    struct kfs_blk_tables tables;
    struct kfs_blk_index *index;
    struct kfs_drv_req q;
    int status;
    struct kfs_err err;
};

struct kfs_blk_packs {
    pthread_mutex_t lock;
    pthread_cond_t cond; /* monotonic clock */
    struct kfs_blk_pack *current;
    unsigned under_way;
    size_t under_way_bytes;
};

int kfs_blk_packs_new(struct kfs_store *s, struct kfs_err *err)
{
    struct kfs_blk_packs *p = calloc(1, sizeof *p);
    if (!p)
        return KFS_FAIL(err, ENOMEM, "open store '%s': out of memory", s->url);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->cond, &a);
    pthread_condattr_destroy(&a);
    s->packs = p;
    return 0;
}

static void unref_locked(struct kfs_blk_pack *p)
{
    if (--p->refs > 0)
        return;
    kfs_blk_index_unref(p->index);
    free(p->buf);
    free(p->entries);
    explicit_bzero(&p->tables.key, sizeof p->tables.key);
    free(p);
}

void kfs_blk_packs_free(struct kfs_store *s)
{
    if (!s->packs)
        return;
    if (s->packs->current) /* begun, and given up by all */
        unref_locked(s->packs->current);
    pthread_cond_destroy(&s->packs->cond);
    pthread_mutex_destroy(&s->packs->lock);
    free(s->packs);
    s->packs = NULL;
}

/* --- filling -------------------------------------------------------------------------------------- */

static int grow(void *pp, size_t size, size_t want)
{
    void *more = realloc(*(void **)pp, size * want);
    if (!more)
        return -ENOMEM;
    *(void **)pp = more;
    return 0;
}

static int make_room(struct kfs_blk_pack *p, size_t bytes, uint32_t entries)
{
    size_t want = p->used + bytes;
    uint32_t count = p->count + entries;
    int rc = 0;
    if (want > p->room) {
        size_t room = p->room ? p->room : FIRST_ROOM;
        while (room < want)
            room *= 2;
        rc = grow(&p->buf, 1, room);
        p->room = rc == 0 ? room : p->room;
    }
    if (rc == 0 && count > p->entry_room) {
        uint32_t room = p->entry_room ? p->entry_room : 64;
        while (room < count)
            room *= 2;
        rc = grow(&p->entries, sizeof *p->entries, room);
        p->entry_room = rc == 0 ? room : p->entry_room;
    }
    return rc;
}

static int current_new_locked(struct kfs_store *s, kfs_store_new_id new_id, void *arg, struct kfs_err *err)
{
    struct kfs_blk_pack *p = calloc(1, sizeof *p);
    if (!p)
        return KFS_FAIL(err, ENOMEM, "cannot write an object: out of memory");
    p->s = s;
    p->refs = 1;
    int rc = new_id(arg, &p->object, err);
    if (rc == 0)
        rc = kfs_blk_tables_begin(s, p->object, &p->tables, err);
    if (rc == 0 && make_room(p, sizeof p->tables.h, 1) < 0)
        rc = KFS_FAIL(err, ENOMEM, "cannot write an object: out of memory");
    if (rc < 0) {
        unref_locked(p);
        return rc;
    }
    memcpy(p->buf, &p->tables.h, sizeof p->tables.h);
    p->used = sizeof p->tables.h;
    p->born_ns = kfs_clock_mono_ns();
    s->packs->current = p;
    return 0;
}

/* Room for the tag of a sealed frame is left behind each frame. */
static void append_locked(struct kfs_blk_pack *p, const struct kfs_blk_frame *f)
{
    struct kfs_object_entry *e = &p->entries[p->count++];
    *e = f->e;
    e->off = p->used;
    e->stored_len = (uint32_t)(f->stored_len + (p->tables.sealed ? KFS_TAG_BYTES : 0));
    memcpy(p->buf + p->used, f->stored, f->stored_len);
    p->used += e->stored_len;
    p->plain += e->plain_len;
}

/* --- sealing -------------------------------------------------------------------------------------- */

static void finish_locked(struct kfs_blk_pack *p, int status, const struct kfs_err *err)
{
    struct kfs_blk_packs *k = p->s->packs;
    p->status = status;
    p->err = *err;
    p->state = PACK_DONE;
    free(p->buf);
    p->buf = NULL;
    k->under_way--;
    k->under_way_bytes -= p->room;
    if (status == 0 && p->index)
        kfs_blk_index_cache_put(&p->s->index, p->index);
    pthread_cond_broadcast(&k->cond);
    unref_locked(p);
}

static void put_done(struct kfs_drv_req *q)
{
    struct kfs_blk_pack *p = q->arg;
    struct kfs_blk_packs *k = p->s->packs;
    pthread_mutex_lock(&k->lock);
    finish_locked(p, q->status, &q->err);
    pthread_mutex_unlock(&k->lock);
}

/* Encrypt in place, add index and trailer, remember the index. There is room. No lock: nobody else touches a sealed pack. */
static int complete(struct kfs_blk_pack *p)
{
    for (uint32_t i = 0; p->tables.sealed && i < p->count; i++) {
        unsigned char *at = p->buf + p->entries[i].off;
        if (kfs_blk_seal(p->tables.key, i, NULL, 0, at, p->entries[i].stored_len - KFS_TAG_BYTES, at) < 0)
            return -EIO;
    }
    int rc = kfs_blk_tables_end(&p->tables, p->entries, p->count, p->used, p->buf + p->used);
    p->used += kfs_blk_tables_len(&p->tables, p->count);
    p->bytes = p->used;
    p->index = kfs_blk_index_new(p->object, p->count);
    if (p->index) {
        memcpy(p->index->entries, p->entries, p->count * sizeof *p->entries);
        memcpy(p->index->key, p->tables.key, sizeof p->index->key);
        p->index->sealed = p->tables.sealed;
        p->index->object_bytes = p->bytes;
        kfs_blk_index_sum(p->index);
    }
    return rc;
}

/* The current pack gets on its way. The lock is given back meanwhile. */
static void seal_locked(struct kfs_store *s)
{
    struct kfs_blk_packs *k = s->packs;
    struct kfs_blk_pack *p = k->current;
    k->current = NULL; /* its reference is the PUT's now */
    p->state = PACK_SEALED;
    int rc = make_room(p, kfs_blk_tables_len(&p->tables, p->count), 0);
    k->under_way++;
    k->under_way_bytes += p->room;
    pthread_mutex_unlock(&k->lock);
    KFS_FAULT("pack.sealed");
    if (rc == 0)
        rc = complete(p);
    if (rc == 0) {
        p->q = (struct kfs_drv_req){.op = KFS_DRV_PUT,
                                    .priority = KFS_DRV_WAITING,
                                    .flags = p->durable ? KFS_DRV_DURABLE : 0,
                                    .iov_count = 1,
                                    .done = put_done,
                                    .arg = p};
        kfs_blk_key(s, p->object, p->q.key);
        p->q.iov[0] = (struct iovec){p->buf, p->used};
    }
    if (rc == 0)
        kfs_drv_submit(s->drv, &p->q);
    pthread_mutex_lock(&k->lock);
    if (rc < 0) {
        struct kfs_err e = {0};
        (void)KFS_FAIL(&e, -rc, "%s", strerror(-rc));
        finish_locked(p, rc, &e);
    }
}

/* --- the interface -------------------------------------------------------------------------------- */

int kfs_blk_pack_add(struct kfs_store *s, const struct kfs_blk_frame *v, size_t count, bool durable, kfs_store_new_id new_id, void *arg,
                     struct kfs_blk_pack **ret_pack, uint64_t *ret_object, uint64_t *ret_off, struct kfs_err *err)
{
    struct kfs_blk_packs *k = s->packs;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += v[i].stored_len + KFS_TAG_BYTES;
    int rc = 0;
    pthread_mutex_lock(&k->lock);
    while (k->under_way_bytes > UNDER_WAY_MAX)
        pthread_cond_wait(&k->cond, &k->lock);
    while (k->current && (k->current->used + bytes > s->pack_bytes || k->current->count + count > KFS_OBJECT_FRAMES_MAX))
        if (k->current->count)
            seal_locked(s); /* another thread may have begun the next one meanwhile */
        else
            break; /* one file that is larger than a pack */
    if (!k->current)
        rc = current_new_locked(s, new_id, arg, err);
    struct kfs_blk_pack *p = k->current;
    if (rc == 0 && make_room(p, bytes, (uint32_t)count) < 0)
        rc = KFS_FAIL(err, ENOMEM, "cannot write an object: out of memory");
    if (rc == 0) {
        *ret_pack = p;
        *ret_object = p->object;
        *ret_off = p->plain;
        p->refs++;
        p->durable = p->durable || durable;
        for (size_t i = 0; i < count; i++)
            append_locked(p, &v[i]);
        if (p->used >= s->pack_bytes - s->pack_bytes / 32)
            seal_locked(s);
    }
    pthread_mutex_unlock(&k->lock);
    return rc;
}

static bool due(const struct kfs_blk_pack *p)
{
    return p->durable || p->s->packs->under_way == 0 || kfs_clock_mono_ns() - p->born_ns >= PACK_AGE_NS;
}

static struct timespec age_end(const struct kfs_blk_pack *p)
{
    uint64_t at = p->born_ns + PACK_AGE_NS;
    return (struct timespec){.tv_sec = (time_t)(at / 1000000000), .tv_nsec = (long)(at % 1000000000)};
}

int kfs_blk_pack_wait(struct kfs_store *s, struct kfs_blk_pack *p, uint64_t *ret_bytes, struct kfs_err *err)
{
    struct kfs_blk_packs *k = s->packs;
    pthread_mutex_lock(&k->lock);
    while (p->state != PACK_DONE) {
        struct timespec until = age_end(p);
        if (p->state == PACK_SEALED)
            pthread_cond_wait(&k->cond, &k->lock);
        else if (due(p))
            seal_locked(s); /* open means current */
        else
            pthread_cond_timedwait(&k->cond, &k->lock, &until);
    }
    int rc = p->status;
    if (rc < 0) {
        char key[64];
        kfs_store_key(s, p->object, key);
        (void)KFS_FAIL(err, -rc, "object '%s': %s", key, p->err.msg);
    }
    *ret_bytes = p->bytes;
    unref_locked(p);
    pthread_mutex_unlock(&k->lock);
    return rc;
}

void kfs_blk_pack_leave(struct kfs_store *s, struct kfs_blk_pack *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&s->packs->lock);
    unref_locked(p);
    pthread_mutex_unlock(&s->packs->lock);
}
