/* blockstore/fetch.c — the engine: from targets to ranged GETs, and from bytes to checked frames; model: blockstore/fetch_engine.h
 *
 * Memory   Bytes of gets (flying or not yet decoded) are at most BUDGET, and WAITING_MORE above that for those that somebody waits for.
 */
#include "blockstore/fetch_engine.h"
#include "base/clock.h"
#include "base/log.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB            ((size_t)1 << 20)
#define BUDGET         (80 * MIB)
#define WAITING_MORE   (32 * MIB)
#define RANGE_MAX      (8 * MIB)
#define LOW_LATENCY_NS 5000000u  /* below this, few long ranges are as fast as many short ones, and cheaper at both ends */
#define FAILURES_MAX   2         /* fetches of a frame that fails its check, before its readers hear of it */
#define TRIM_S         5         /* buffers go back to the kernel after so long without work */

/* --- buffers ---------------------------------------------------------------------------------- */

/* Bytes arrive in memory that was written before: taking it new from the kernel each time costs as much as copying them. */
#define BUF_SLACK ((size_t)64 << 10) /* stored frames may be a little longer than plain ones */

static size_t buf_size(unsigned class)
{
    return (((size_t)64 << 10) << class) + BUF_SLACK;
}

static unsigned buf_class(size_t bytes)
{
    unsigned c = 0;
    while (c + 1 < FETCH_BUF_CLASSES && buf_size(c) < bytes)
        c++;
    return c;
}

static void *buf_take(struct kfs_fetch *e, size_t bytes)
{
    unsigned c = buf_class(bytes);
    size_t size = buf_size(c);
    assert(bytes <= size);
    pthread_mutex_lock(&e->buf_lock);
    struct fetch_buf *b = e->buf_free[c];
    if (b) {
        e->buf_free[c] = b->next;
        e->buf_free_bytes -= size;
    }
    pthread_mutex_unlock(&e->buf_lock);
    if (b)
        return b;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void buf_give(struct kfs_fetch *e, void *p, size_t bytes)
{
    if (!p)
        return;
    unsigned c = buf_class(bytes);
    size_t size = buf_size(c);
    pthread_mutex_lock(&e->buf_lock);
    bool keep = e->buf_free_bytes + size <= BUDGET;
    if (keep) {
        struct fetch_buf *b = p;
        b->next = e->buf_free[c];
        e->buf_free[c] = b;
        e->buf_free_bytes += size;
    }
    pthread_mutex_unlock(&e->buf_lock);
    if (!keep)
        (void)munmap(p, size);
}

static void buf_trim(struct kfs_fetch *e)
{
    struct fetch_buf *all[FETCH_BUF_CLASSES];
    pthread_mutex_lock(&e->buf_lock);
    memcpy(all, e->buf_free, sizeof all);
    memset(e->buf_free, 0, sizeof e->buf_free);
    e->buf_free_bytes = 0;
    pthread_mutex_unlock(&e->buf_lock);
    for (unsigned c = 0; c < FETCH_BUF_CLASSES; c++)
        for (struct fetch_buf *b = all[c], *next; b; b = next) {
            next = b->next;
            (void)munmap(b, buf_size(c));
        }
}

/* --- objects ---------------------------------------------------------------------------------- */

static struct fetch_object *object_get_locked(struct kfs_fetch *e, uint64_t id)
{
    struct fetch_object *o = kfs_map_get(&e->objects, id);
    if (o)
        return o;
    o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    o->id = id;
    o->early_last = &o->early;
    if (kfs_map_put(&e->objects, id, o, NULL) < 0) {
        free(o);
        return NULL;
    }
    return o;
}

static void object_put_locked(struct kfs_fetch *e, struct fetch_object *o)
{
    if (o->early || o->frames_busy || o->gets)
        return;
    kfs_map_remove(&e->objects, o->id);
    kfs_blk_index_unref(o->index);
    free(o->frames);
    free(o);
}

static void frame_enqueue_locked(struct kfs_fetch *e, struct fetch_frame *f, unsigned priority)
{
    f->state = FETCH_QUEUED;
    f->priority = (uint8_t)priority;
    f->next = NULL;
    f->prev = e->queue[priority].last;
    *(f->prev ? &f->prev->next : &e->queue[priority].first) = f;
    e->queue[priority].last = f;
}

static void frame_dequeue_locked(struct kfs_fetch *e, struct fetch_frame *f)
{
    *(f->prev ? &f->prev->next : &e->queue[f->priority].first) = f->next;
    *(f->next ? &f->next->prev : &e->queue[f->priority].last) = f->prev;
    f->next = f->prev = NULL;
}

static uint32_t frame_number(const struct fetch_frame *f)
{
    return (uint32_t)(f - f->object->frames);
}

static uint64_t frame_stored(const struct fetch_frame *f)
{
    return f->object->index->entries[frame_number(f)].stored_len;
}

static void frame_idle_locked(struct fetch_frame *f)
{
    f->state = FETCH_IDLE;
    f->failures = 0;
    f->object->frames_busy--;
}

/* Every target of a list ends with rc. The list must be nobody else's any more. */
static void targets_end_locked(struct kfs_fetch *e, struct fetch_target *t, int rc, const struct kfs_err *err)
{
    for (struct fetch_target *next; t; t = next) {
        next = t->next;
        kfs_fetch_arrived_locked(e, t, rc, err);
    }
}

/* Hang a target to its frame. The index is known. */
static void target_attach_locked(struct kfs_fetch *e, struct fetch_object *o, struct fetch_target *t, unsigned priority)
{
    int64_t i = kfs_blk_index_find(o->index, t->plain_off);
    uint64_t skip = i < 0 ? 0 : t->plain_off - o->index->plain_off[i];
    if (i < 0 || t->len > o->index->entries[i].plain_len - skip) {
        struct kfs_err err = {0};
        char key[KFS_DRV_KEY_MAX];
        kfs_store_key(e->store, o->id, key);
        int rc = KFS_FAIL(&err, EIO, "object '%s' in '%s' is shorter than the metadata says; check the volume", key, kfs_store_url(e->store));
        t->next = NULL;
        targets_end_locked(e, t, rc, &err);
        return;
    }
    struct fetch_frame *f = &o->frames[i];
    t->skip = (uint32_t)skip;
    t->next = f->targets;
    f->targets = t;
    if (f->state == FETCH_IDLE) {
        f->object = o;
        o->frames_busy++;
        frame_enqueue_locked(e, f, priority);
        e->queued_bytes += o->index->entries[i].stored_len;
    } else if (f->state == FETCH_QUEUED && priority < f->priority) {
        frame_dequeue_locked(e, f);
        frame_enqueue_locked(e, f, priority);
    }
}

/* The index has come: early targets find their frames. */
static int object_index_locked(struct kfs_fetch *e, struct fetch_object *o, struct kfs_blk_index *ix)
{
    o->frames = calloc(ix->count, sizeof *o->frames);
    if (!o->frames)
        return -ENOMEM;
    o->index = ix;
    o->index_state = FETCH_INDEX_KNOWN;
    struct fetch_target *t = o->early;
    o->early = NULL;
    o->early_last = &o->early;
    o->gets++; /* stays while its targets are looked at */
    for (struct fetch_target *next; t; t = next) {
        next = t->next;
        target_attach_locked(e, o, t, o->early_priority);
    }
    o->gets--;
    return 0;
}

static struct fetch_get *get_make_locked(struct kfs_fetch *e, struct fetch_object *o, size_t bytes, unsigned priority)
{
    struct fetch_get *g = calloc(1, sizeof *g);
    void *buf = g ? buf_take(e, bytes) : NULL;
    if (!buf) {
        free(g);
        return NULL;
    }
    g->e = e;
    g->object = o;
    g->q.op = KFS_DRV_GET;
    g->q.priority = (enum kfs_drv_priority)priority;
    g->q.buf = buf;
    g->q.len = bytes;
    g->q.arg = g;
    kfs_blk_key(e->store, o->id, g->q.key);
    o->gets++;
    e->running++;
    e->bytes_held += bytes;
    *e->todo_last = g;
    e->todo_last = &g->next;
    g->fly_next = e->flying;
    g->fly_at = &e->flying;
    if (g->fly_next)
        g->fly_next->fly_at = &g->fly_next;
    e->flying = g;
    return g;
}

static void get_progress(struct kfs_drv_req *q, size_t have);
static void get_done(struct kfs_drv_req *q);

static int index_ask_locked(struct kfs_fetch *e, struct fetch_object *o, size_t bytes)
{
    struct fetch_get *g = get_make_locked(e, o, bytes, o->early_priority);
    if (!g)
        return -ENOMEM;
    g->is_index = true;
    g->q.off = KFS_DRV_TAIL;
    g->q.done = get_done;
    o->index_state = FETCH_INDEX_LOADING;
    return 0;
}

int kfs_fetch_want_locked(struct kfs_fetch *e, uint64_t id, struct fetch_target *t, unsigned priority)
{
    struct fetch_object *o = object_get_locked(e, id);
    if (!o)
        return -ENOMEM;
    int rc = 0;
    if (o->index_state == FETCH_INDEX_NONE && !o->early) {
        o->early_priority = (uint8_t)priority;
        struct kfs_blk_index *ix = kfs_blk_index_cache_get(&e->store->index, id);
        if (ix)
            rc = object_index_locked(e, o, ix);
        else
            rc = index_ask_locked(e, o, KFS_OBJECT_TAIL_GUESS);
        if (rc < 0 && ix)
            kfs_blk_index_unref(ix);
    }
    if (rc < 0) {
        object_put_locked(e, o);
        return rc;
    }
    if (o->index_state == FETCH_INDEX_KNOWN) {
        o->gets++;
        target_attach_locked(e, o, t, priority);
        o->gets--;
        object_put_locked(e, o);
        return 0;
    }
    t->next = NULL;
    *o->early_last = t;
    o->early_last = &t->next;
    if (priority < o->early_priority)
        o->early_priority = (uint8_t)priority;
    return 0;
}

void kfs_fetch_raise_locked(struct kfs_fetch *e, uint64_t id, uint64_t plain_off, unsigned priority)
{
    struct fetch_object *o = kfs_map_get(&e->objects, id);
    if (!o)
        return;
    if (o->index_state != FETCH_INDEX_KNOWN) {
        if (priority < o->early_priority)
            o->early_priority = (uint8_t)priority;
        return;
    }
    int64_t i = kfs_blk_index_find(o->index, plain_off);
    struct fetch_frame *f = i < 0 ? NULL : &o->frames[i];
    if (f && f->state == FETCH_QUEUED && priority < f->priority) {
        frame_dequeue_locked(e, f);
        frame_enqueue_locked(e, f, priority);
    }
}

/* --- gets ------------------------------------------------------------------------------------- */

/* Long enough to keep the link busy with the requests that may run, short enough to let all of them run. */
static size_t range_bytes_locked(const struct kfs_fetch *e)
{
    if (e->rtt_ns < LOW_LATENCY_NS)
        return RANGE_MAX;
    unsigned slots = e->limit > e->running ? e->limit - e->running : 1;
    size_t share = e->queued_bytes / slots, most = BUDGET / (e->limit ? e->limit : 1);
    most = most < 2 * MIB ? 2 * MIB : most > RANGE_MAX ? RANGE_MAX : most;
    return share < MIB ? MIB : share > most ? most : share;
}

int64_t kfs_fetch_window_locked(const struct kfs_fetch *e)
{
    uint64_t bytes = 2 * (e->bytes_per_s / 1000) * (e->rtt_ns / 1000) / 1000;
    int64_t frames = (int64_t)(bytes / KFS_FRAME_BYTES) + 1;
    return frames < 16 ? 16 : frames > 128 ? 128 : frames;
}

/* Targets of fills that nobody wants any more need not be fetched. */
static bool frame_forsaken_locked(struct kfs_fetch *e, struct fetch_frame *f)
{
    for (struct fetch_target *t = f->targets; t; t = t->next)
        if (!t->fill->cancelled)
            return false;
    frame_dequeue_locked(e, f);
    e->queued_bytes -= frame_stored(f);
    struct fetch_target *t = f->targets;
    f->targets = NULL;
    frame_idle_locked(f);
    f->object->gets++;
    targets_end_locked(e, t, -ECANCELED, NULL);
    f->object->gets--;
    object_put_locked(e, f->object);
    return true;
}

static bool is_queued(const struct fetch_object *o, uint32_t i)
{
    return o->frames[i].state == FETCH_QUEUED;
}

/* A get around frame f. -ENOMEM: nothing has changed. */
static int get_build_locked(struct kfs_fetch *e, struct fetch_frame *f)
{
    struct fetch_object *o = f->object;
    const struct kfs_object_entry *x = o->index->entries;
    uint32_t first = frame_number(f), end = first + 1;
    uint64_t bytes = x[first].stored_len, most = range_bytes_locked(e);
    for (; end < o->index->count && is_queued(o, end) && bytes + x[end].stored_len <= most; end++)
        bytes += x[end].stored_len;
    /* What lies before it makes a waiting reader wait: not for those. */
    while (f->priority != KFS_DRV_WAITING && first > 0 && is_queued(o, first - 1) && bytes + x[first - 1].stored_len <= most)
        bytes += x[--first].stored_len;
    struct fetch_get *g = get_make_locked(e, o, bytes, f->priority);
    if (!g)
        return -ENOMEM;
    g->first = first;
    g->count = end - first;
    g->q.off = x[first].off;
    g->next_end = x[first].stored_len;
    g->q.progress = get_progress;
    g->q.done = get_done;
    for (uint32_t i = first; i < end; i++) {
        frame_dequeue_locked(e, &o->frames[i]);
        o->frames[i].state = FETCH_FLYING;
    }
    e->queued_bytes -= bytes;
    return 0;
}

static void pump_locked(struct kfs_fetch *e)
{
    kfs_fetch_refill_locked(e);
    unsigned priorities = e->plugs ? KFS_DRV_WAITING + 1 : FETCH_PRIORITIES;
    for (unsigned p = 0; p < priorities; p++)
        for (struct fetch_frame *f; (f = e->queue[p].first);) {
            if (frame_forsaken_locked(e, f))
                continue;
            /* The driver serves waiting readers first, so these may queue there. */
            bool waiting = p == KFS_DRV_WAITING;
            unsigned most = e->limit + (waiting ? 8 : 0);
            if (e->running >= most || (e->bytes_held && e->bytes_held + frame_stored(f) > BUDGET + (waiting ? WAITING_MORE : 0)))
                return;
            if (get_build_locked(e, f) < 0) {
                if (e->running)
                    return; /* the end of another get tries again */
                /* Without memory and with nothing under way that would come back: say so. */
                frame_dequeue_locked(e, f);
                e->queued_bytes -= frame_stored(f);
                struct fetch_target *t = f->targets;
                f->targets = NULL;
                frame_idle_locked(f);
                f->object->gets++;
                targets_end_locked(e, t, -ENOMEM, NULL);
                f->object->gets--;
                object_put_locked(e, f->object);
            }
        }
}

void kfs_fetch_unlock(struct kfs_fetch *e)
{
    for (;;) {
        pump_locked(e);
        struct fetch_get *g = e->todo;
        e->todo = NULL;
        e->todo_last = &e->todo;
        pthread_mutex_unlock(&e->lock);
        if (!g)
            return;
        for (struct fetch_get *next; g; g = next) {
            next = g->next;
            g->next = NULL;
            g->sent_ns = kfs_clock_mono_ns();
            kfs_drv_submit(e->drv, &g->q);
        }
        struct kfs_drv_stats st = {0};
        kfs_drv_stats(e->drv, &st);
        pthread_mutex_lock(&e->lock);
        e->limit = st.limit ? st.limit : 1;
    }
}

static void job_post_locked(struct kfs_fetch *e, struct fetch_get *g)
{
    if (!g->has_job) {
        g->has_job = true;
        g->next = NULL;
        *e->jobs_last = g;
        e->jobs_last = &g->next;
    }
    if (e->decoders_idle)
        pthread_cond_signal(&e->work);
}

static void first_byte_locked(struct kfs_fetch *e, struct fetch_get *g)
{
    if (g->first_byte_ns)
        return;
    g->first_byte_ns = kfs_clock_mono_ns();
    uint64_t took = g->first_byte_ns - g->sent_ns;
    e->ttfb_ns = e->ttfb_ns ? (e->ttfb_ns * 7 + took) / 8 : took;
    /* Waiting in the far end's queue, or for a processor, is not distance. */
    e->rtt_ns += e->rtt_ns / 256;
    if (!e->rtt_ns || took < e->rtt_ns)
        e->rtt_ns = took;
}

static void count_bytes_locked(struct kfs_fetch *e, size_t bytes)
{
    uint64_t now = kfs_clock_mono_ns(), took = now - e->rate_since_ns;
    e->rate_bytes += bytes;
    if (took < 50000000)
        return;
    uint64_t rate = e->rate_bytes * 1000 / (took / 1000000);
    /* The most that was seen, slowly forgotten: a link that was not asked for more is not slow. */
    e->bytes_per_s = rate > e->bytes_per_s ? rate : e->bytes_per_s - e->bytes_per_s / 32;
    e->rate_bytes = 0;
    e->rate_since_ns = now;
}

/* Frames of g whose bytes are all in [0, have). */
static bool advance_locked(struct fetch_get *g, size_t have)
{
    bool more = false;
    while (g->here < g->count && g->next_end <= have) {
        g->here++;
        more = true;
        if (g->here < g->count)
            g->next_end += g->object->index->entries[g->first + g->here].stored_len;
    }
    return more;
}

static void get_progress(struct kfs_drv_req *q, size_t have)
{
    struct fetch_get *g = q->arg;
    struct kfs_fetch *e = g->e;
    /* next_end and here are changed by this thread alone: the driver calls for one request from one thread at a time. */
    if (g->first_byte_ns && (have < g->next_end || g->here == g->count))
        return;
    pthread_mutex_lock(&e->lock);
    first_byte_locked(e, g);
    if (advance_locked(g, have))
        job_post_locked(e, g);
    pthread_mutex_unlock(&e->lock);
}

static void get_done(struct kfs_drv_req *q)
{
    struct fetch_get *g = q->arg;
    struct kfs_fetch *e = g->e;
    pthread_mutex_lock(&e->lock);
    if (q->status == 0) {
        first_byte_locked(e, g);
        count_bytes_locked(e, q->got);
        if (!g->is_index)
            (void)advance_locked(g, q->got);
    }
    g->is_done = true;
    e->running--;
    e->gets++;
    e->bytes += q->got;
    job_post_locked(e, g);
    kfs_fetch_unlock(e);
}

/* --- decoders --------------------------------------------------------------------------------- */

static void get_free_locked(struct kfs_fetch *e, struct fetch_get *g)
{
    struct fetch_object *o = g->object;
    g->over = true;
    if (g->pinned)
        return;
    *g->fly_at = g->fly_next;
    if (g->fly_next)
        g->fly_next->fly_at = g->fly_at;
    e->bytes_held -= g->q.len;
    buf_give(e, g->q.buf, g->q.len);
    free(g);
    o->gets--;
    object_put_locked(e, o);
    if (!e->running && !e->bytes_held)
        pthread_cond_broadcast(&e->idle);
}

/* An object that is named by the metadata and not there is damage. */
static int get_error(struct fetch_get *g, struct kfs_err *err)
{
    int rc = g->q.status;
    *err = g->q.err;
    if (rc == 0 || rc == -ERANGE || rc == -ENOENT) {
        char key[KFS_DRV_KEY_MAX];
        kfs_store_key(g->e->store, g->object->id, key);
        *err = (struct kfs_err){0};
        return KFS_FAIL(err, EIO, "object '%s' in '%s' is %s; restore it from a copy", key, kfs_store_url(g->e->store),
                        rc == -ENOENT ? "missing" : "damaged: it is cut off");
    }
    if (!err->code)
        KFS_FAIL(err, -rc, "cannot read object '%s' in '%s': %s", g->q.key, kfs_store_url(g->e->store), strerror(-rc));
    return rc;
}

static void early_fail_locked(struct kfs_fetch *e, struct fetch_object *o, int rc, const struct kfs_err *err)
{
    struct fetch_target *t = o->early;
    o->early = NULL;
    o->early_last = &o->early;
    o->index_state = FETCH_INDEX_NONE;
    o->index_failures = 0;
    targets_end_locked(e, t, rc, err);
}

static void index_job_locked(struct kfs_fetch *e, struct fetch_get *g)
{
    struct fetch_object *o = g->object;
    struct kfs_err err = {0};
    struct kfs_blk_index *ix = NULL;
    size_t need = 0;
    int rc = g->q.status;
    pthread_mutex_unlock(&e->lock);
    if (rc < 0)
        rc = get_error(g, &err);
    else
        rc = kfs_blk_index_parse(e->store, o->id, g->q.buf, g->q.got, g->q.value_bytes, &need, &ix, &err);
    if (rc == 0)
        kfs_blk_index_cache_put(&e->store->index, ix);
    pthread_mutex_lock(&e->lock);
    if (rc == 0) {
        rc = object_index_locked(e, o, ix);
        if (rc < 0)
            kfs_blk_index_unref(ix);
    } else if (rc > 0) {
        rc = index_ask_locked(e, o, need);
    } else if (rc == -EIO && g->q.status == 0 && ++o->index_failures < FAILURES_MAX) {
        rc = index_ask_locked(e, o, g->q.len);
    }
    if (rc < 0)
        early_fail_locked(e, o, rc, &err);
    get_free_locked(e, g);
}

/* Write the frame to everybody who wants it, also those who come while it is written. */
static void deliver_locked(struct kfs_fetch *e, struct fetch_frame *f, const unsigned char *plain, int rc, const struct kfs_err *err)
{
    while (f->targets) {
        struct fetch_target *t = f->targets;
        f->targets = t->next;
        struct kfs_err werr = {0};
        int wrote = rc;
        if (rc == 0 && t->fill->cancelled) {
            wrote = -ECANCELED;
        } else if (rc == 0) {
            int fd = t->fill->fd;
            pthread_mutex_unlock(&e->lock);
            pthread_mutex_lock(&t->fill->write);
            wrote = kfs_fetch_write(fd, plain + t->skip, t->len, t->frame * KFS_FRAME_BYTES);
            pthread_mutex_unlock(&t->fill->write);
            if (wrote < 0)
                KFS_FAIL(&werr, -wrote, "cannot fill a cache file: %s%s", strerror(-wrote),
                         wrote == -ENOSPC ? "; make room where the cache directory lies" : "");
            pthread_mutex_lock(&e->lock);
        }
        kfs_fetch_arrived_locked(e, t, wrote, rc == 0 ? &werr : err);
    }
    frame_idle_locked(f);
}

/* What is stored as it is needs no second place. */
static int frame_decode(struct kfs_fetch *e, const struct kfs_blk_index *ix, uint32_t i, const void *stored, void *scratch, const void **ret_plain,
                        struct kfs_err *err)
{
    const struct kfs_object_entry *x = &ix->entries[i];
    if (ix->sealed || x->codec != KFS_CODEC_PLAIN) {
        if (!scratch)
            return -ENOMEM;
        *ret_plain = scratch;
        return kfs_blk_frame_decode(e->store, ix, i, stored, scratch, err);
    }
    uint8_t hash[KFS_HASH_BYTES];
    kfs_blk_hash(stored, x->plain_len, hash);
    *ret_plain = stored;
    return memcmp(hash, x->hash, sizeof hash) == 0 ? 0 : kfs_blk_damaged(e->store, ix->object, "a frame fails its checksum", err);
}

static void frame_job_locked(struct kfs_fetch *e, struct fetch_get *g, uint32_t k, unsigned char *scratch)
{
    struct fetch_object *o = g->object;
    uint32_t i = g->first + k;
    struct fetch_frame *f = &o->frames[i];
    const struct kfs_blk_index *ix = o->index;
    struct kfs_err err = {0};
    const void *plain = NULL;
    int rc;
    if (k < g->here) {
        pthread_mutex_unlock(&e->lock);
        rc = frame_decode(e, ix, i, (unsigned char *)g->q.buf + (ix->entries[i].off - g->q.off), scratch, &plain, &err);
        pthread_mutex_lock(&e->lock);
        if (rc == -EIO && ++f->failures < FAILURES_MAX) {
            static struct kfs_log_limit limit;
            kfs_log_limited(&limit, KFS_LOG_WARN, "%s; fetched again", err.msg);
            e->again++;
            frame_enqueue_locked(e, f, f->priority);
            e->queued_bytes += frame_stored(f);
            return;
        }
    } else {
        rc = get_error(g, &err);
    }
    deliver_locked(e, f, plain, rc, &err);
}

/* One frame, or the end of a get. */
static void job_locked(struct kfs_fetch *e, struct fetch_get *g, unsigned char *scratch)
{
    if (g->is_index) {
        index_job_locked(e, g);
        return;
    }
    uint32_t k = g->taken++, ready = g->is_done ? g->count : g->here;
    if (g->taken < ready)
        job_post_locked(e, g);
    frame_job_locked(e, g, k, scratch);
    /* In the list of jobs once more: whoever takes it from there frees it. */
    if (++g->finished == g->count && g->is_done && !g->has_job)
        get_free_locked(e, g);
}

static struct fetch_get *job_take_locked(struct kfs_fetch *e)
{
    struct fetch_get *g = e->jobs;
    e->jobs = g->next;
    if (!e->jobs)
        e->jobs_last = &e->jobs;
    g->next = NULL;
    g->has_job = false;
    return g;
}

static void *decoder_main(void *arg)
{
    struct kfs_fetch *e = arg;
    unsigned char *scratch = malloc(KFS_FRAME_BYTES);
    pthread_mutex_lock(&e->lock);
    while (!e->stop || e->jobs) {
        if (!e->jobs) {
            struct timespec until = kfs_clock_real();
            until.tv_sec += TRIM_S;
            e->decoders_idle++;
            int rc = pthread_cond_timedwait(&e->work, &e->lock, &until);
            e->decoders_idle--;
            if (rc == ETIMEDOUT && !e->bytes_held && e->buf_free_bytes) {
                pthread_mutex_unlock(&e->lock);
                buf_trim(e);
                pthread_mutex_lock(&e->lock);
            }
            continue;
        }
        struct fetch_get *g = job_take_locked(e);
        /* All frames taken before done came, or nothing new here: its post was for what is over. */
        if (!g->is_index && g->taken >= (g->is_done ? g->count : g->here)) {
            if (g->is_done && g->finished == g->count)
                get_free_locked(e, g);
        } else {
            job_locked(e, g, scratch);
        }
        kfs_fetch_unlock(e);
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    free(scratch);
    return NULL;
}

void kfs_fetch_stats(struct kfs_store *s, struct kfs_fetch_stats *ret)
{
    struct kfs_fetch *e = s->fetch;
    pthread_mutex_lock(&e->lock);
    *ret = (struct kfs_fetch_stats){e->gets, e->bytes, e->again, e->ttfb_ns, e->bytes_per_s, e->bytes_held};
    pthread_mutex_unlock(&e->lock);
}

void kfs_fetch_plug(struct kfs_store *s)
{
    pthread_mutex_lock(&s->fetch->lock);
    s->fetch->plugs++;
    pthread_mutex_unlock(&s->fetch->lock);
}

void kfs_fetch_unplug(struct kfs_store *s)
{
    pthread_mutex_lock(&s->fetch->lock);
    s->fetch->plugs--;
    kfs_fetch_unlock(s->fetch);
}

int kfs_fetch_each_owner(struct kfs_store *s, uint64_t object, kfs_fetch_owner_cb cb, void *arg, struct kfs_err *err)
{
    struct kfs_blk_index *ix;
    int rc = kfs_blk_index_get(s, object, &ix, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < ix->count; i++)
        rc = cb(arg, ix->entries[i].ino, ix->entries[i].file_off, ix->plain_off[i], ix->entries[i].plain_len);
    kfs_blk_index_unref(ix);
    return rc;
}

/* --- life ------------------------------------------------------------------------------------- */

int kfs_fetch_start_threads_locked(struct kfs_fetch *e)
{
    if (e->threads_on)
        return 0;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned want = cpus < 2 ? 2 : cpus > FETCH_DECODERS_MAX ? FETCH_DECODERS_MAX : (unsigned)cpus;
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setstacksize(&a, 256 * 1024);
    int rc = 0;
    while (rc == 0 && e->decoder_count < want) {
        rc = pthread_create(&e->decoders[e->decoder_count], &a, decoder_main, e);
        if (rc == 0)
            e->decoder_count++;
    }
    pthread_attr_destroy(&a);
    e->threads_on = e->decoder_count > 0;
    return e->threads_on ? 0 : -rc;
}

int kfs_fetch_open(struct kfs_store *s, struct kfs_drv *d, struct kfs_fetch **ret_e, struct kfs_err *err)
{
    struct kfs_fetch *e = calloc(1, sizeof *e);
    if (!e)
        return KFS_FAIL(err, ENOMEM, "open the fetch path: out of memory");
    e->store = s;
    e->drv = d;
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->buf_lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->idle, NULL);
    kfs_map_init(&e->objects);
    e->todo_last = &e->todo;
    e->jobs_last = &e->jobs;
    e->alls_last = &e->alls;
    e->rate_since_ns = kfs_clock_mono_ns();
    struct kfs_drv_stats st = {0};
    kfs_drv_stats(d, &st);
    e->limit = st.limit ? st.limit : 1;
    *ret_e = e;
    return 0;
}

/* What is on its way when nobody needs it any more may take minutes: a far end that does not answer, a byte rate. */
static void cancel_all_locked(struct kfs_fetch *e)
{
    for (struct fetch_get *g = e->flying; g;) {
        if (g->cancelled || g->is_done) {
            g = g->fly_next;
            continue;
        }
        g->cancelled = g->pinned = true;
        pthread_mutex_unlock(&e->lock);
        kfs_drv_cancel(e->drv, &g->q);
        pthread_mutex_lock(&e->lock);
        g->pinned = false;
        if (g->over)
            get_free_locked(e, g);
        g = e->flying;
    }
}

void kfs_fetch_close(struct kfs_fetch *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    cancel_all_locked(e);
    while (e->running || e->bytes_held || e->jobs || e->todo)
        pthread_cond_wait(&e->idle, &e->lock);
    e->stop = true;
    pthread_cond_broadcast(&e->work);
    pthread_mutex_unlock(&e->lock);
    for (unsigned i = 0; i < e->decoder_count; i++)
        pthread_join(e->decoders[i], NULL);
    buf_trim(e);
    kfs_map_release(&e->objects);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->idle);
    pthread_mutex_destroy(&e->lock);
    pthread_mutex_destroy(&e->buf_lock);
    free(e);
}
