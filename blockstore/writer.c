/* blockstore/writer.c — a large object, written frame by frame
 *
 * Model    Frames are put together in part buffers of the store. A full one gets on its way while the next is filled; what fits into one part goes by a
 *          single PUT. All parts but the last are equally long: some services insist on it. There are KFS_PARTS_MAX buffers in a store: who needs one
 *          more waits for the network, and holds none meanwhile.
 */
#include "blockstore/store.h"
#include "base/fault.h"
#include "blockstore/keys.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- header, index, trailer --------------------------------------------------------------------- */

int kfs_blk_tables_begin(const struct kfs_store *s, uint64_t object, struct kfs_blk_tables *ret, struct kfs_err *err)
{
    struct kfs_blk_tables t = {.h = {.version = KFS_OBJECT_VERSION, .object = object}, .t = {.object = object}};
    memcpy(t.h.magic, KFS_OBJECT_MAGIC, sizeof t.h.magic);
    memcpy(t.t.magic, KFS_OBJECT_END_MAGIC, sizeof t.t.magic);
    memcpy(t.h.volume, s->volume, strlen(s->volume));
    memcpy(t.t.volume, s->volume, strlen(s->volume));
    if (s->keys) {
        t.sealed = true;
        t.h.flags = t.t.flags = KFS_OBJECT_SEALED;
        t.t.key_id = kfs_keyring_current(s->keys);
        int rc = kfs_blk_random(t.t.salt, sizeof t.t.salt);
        if (rc == 0)
            rc = kfs_blk_object_key(kfs_keyring_find(s->keys, t.t.key_id), t.t.salt, object, t.t.volume, t.key);
        if (rc < 0)
            return KFS_FAIL(err, -rc, "cannot make a key for an object: %s", strerror(-rc));
    }
    *ret = t;
    return 0;
}

size_t kfs_blk_tables_len(const struct kfs_blk_tables *t, uint32_t count)
{
    return count * sizeof(struct kfs_object_entry) + (t->sealed ? KFS_TAG_BYTES : 0) + sizeof t->t;
}

int kfs_blk_tables_end(struct kfs_blk_tables *t, const struct kfs_object_entry *entries, uint32_t count, uint64_t at, void *out)
{
    size_t len = count * sizeof *entries;
    unsigned char *p = out;
    t->t.index_off = at;
    t->t.index_len = len + (t->sealed ? KFS_TAG_BYTES : 0);
    t->t.frame_count = count;
    size_t known = offsetof(struct kfs_object_trailer, hash);
    if (!t->sealed)
        memcpy(p, entries, len);
    else if (kfs_blk_seal(t->key, KFS_SEAL_INDEX, &t->t, known, entries, len, p) < 0)
        return -EIO;
    kfs_blk_hash_pieces((struct kfs_blk_piece[]){{&t->h, sizeof t->h}, {p, t->t.index_len}, {&t->t, known}}, 3, t->t.hash);
    memcpy(p + t->t.index_len, &t->t, sizeof t->t);
    return 0;
}

/* --- part buffers -------------------------------------------------------------------------------- */

#define PART_ROOM (KFS_PART_BYTES + KFS_FRAME_BYTES + 65536u) /* a frame that crosses the end, the tables */

struct part {
    struct part *next;
    struct kfs_blk_writer *w;
    size_t used;
    struct kfs_drv_req q;
    unsigned char buf[];
};

struct kfs_blk_parts {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned in_use;
    struct part *free; /* kept while others are in use: fresh memory costs a page fault each 4 KiB */
};

struct kfs_blk_parts *kfs_blk_parts_new(void)
{
    struct kfs_blk_parts *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->cond, NULL);
    return p;
}

static void parts_drop_locked(struct kfs_blk_parts *p)
{
    while (p->free) {
        struct part *next = p->free->next;
        free(p->free);
        p->free = next;
    }
}

void kfs_blk_parts_free(struct kfs_blk_parts *p)
{
    if (!p)
        return;
    parts_drop_locked(p);
    pthread_cond_destroy(&p->cond);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static struct part *part_take(struct kfs_blk_parts *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->in_use >= KFS_PARTS_MAX)
        pthread_cond_wait(&p->cond, &p->lock);
    struct part *t = p->free;
    if (t)
        p->free = t->next;
    else
        t = malloc(sizeof *t + PART_ROOM);
    if (t) {
        p->in_use++;
        t->used = 0;
    }
    pthread_mutex_unlock(&p->lock);
    return t;
}

static void part_give(struct kfs_blk_parts *p, struct part *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&p->lock);
    t->next = p->free;
    p->free = t;
    if (--p->in_use == 0)
        parts_drop_locked(p);
    pthread_cond_signal(&p->cond);
    pthread_mutex_unlock(&p->lock);
}

/* --- the writer ----------------------------------------------------------------------------------- */

/* One thread's, but for pending, status and err, which `lock` guards. */
struct kfs_blk_writer {
    struct kfs_store *s;
    uint64_t object;
    char key[KFS_DRV_KEY_MAX];
    struct kfs_blk_tables tables;
    struct kfs_blk_index *index; /* being filled: count rises */
    uint64_t at, plain;          /* where the next frame goes; plain bytes so far */
    struct part *part;           /* being filled */
    unsigned part_count;         /* on their way or done */
    struct kfs_drv_upload *upload;
    bool ended, durable;

    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned pending;
    int status;
    struct kfs_err err;
};

static int writer_failed(const struct kfs_blk_writer *w, int rc, const char *why, struct kfs_err *err)
{
    return KFS_FAIL(err, -rc, "object '%s': %s", w->key + sizeof KFS_STORE_OBJECT_PREFIX - 1, why && *why ? why : strerror(-rc));
}

static int part_new(struct kfs_blk_writer *w, struct kfs_err *err)
{
    w->part = part_take(w->s->parts);
    return w->part ? 0 : writer_failed(w, -ENOMEM, "out of memory", err);
}

int kfs_blk_writer_begin(struct kfs_store *s, uint64_t object, struct kfs_blk_writer **ret_w, struct kfs_err *err)
{
    struct kfs_blk_writer *w = calloc(1, sizeof *w);
    if (!w || !(w->index = kfs_blk_index_new(object, KFS_LARGE_FRAMES_MAX))) {
        free(w);
        return KFS_FAIL(err, ENOMEM, "cannot write an object: out of memory");
    }
    w->s = s;
    w->object = object;
    w->index->count = 0;
    kfs_blk_key(s, object, w->key);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
    int rc = kfs_blk_tables_begin(s, object, &w->tables, err);
    if (rc == 0)
        rc = part_new(w, err);
    if (rc < 0) {
        kfs_blk_writer_abort(w);
        return rc;
    }
    w->index->sealed = w->tables.sealed;
    memcpy(w->index->key, w->tables.key, sizeof w->index->key);
    memcpy(w->part->buf, &w->tables.h, sizeof w->tables.h);
    w->at = w->part->used = sizeof w->tables.h;
    *ret_w = w;
    return 0;
}

static void part_done(struct kfs_drv_req *q)
{
    struct part *t = q->arg;
    struct kfs_blk_writer *w = t->w;
    int status = q->status;
    struct kfs_err err = q->err;
    part_give(w->s->parts, t);
    pthread_mutex_lock(&w->lock);
    if (status < 0 && w->status == 0) {
        w->status = status;
        w->err = err;
    }
    w->pending--;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

/* The first `len` bytes of the current part get on their way; nothing is current afterwards. */
static void part_submit(struct kfs_blk_writer *w, size_t len)
{
    struct part *t = w->part;
    w->part = NULL;
    t->w = w;
    t->q = (struct kfs_drv_req){.op = w->upload ? KFS_DRV_PART : KFS_DRV_PUT,
                                .priority = KFS_DRV_WAITING,
                                .flags = w->durable ? KFS_DRV_DURABLE : 0,
                                .iov_count = 1,
                                .upload = w->upload,
                                .part = ++w->part_count,
                                .part_off = (uint64_t)(w->part_count - 1) * KFS_PART_BYTES,
                                .done = part_done,
                                .arg = t};
    memcpy(t->q.key, w->key, sizeof w->key);
    t->q.iov[0] = (struct iovec){t->buf, len};
    pthread_mutex_lock(&w->lock);
    w->pending++;
    pthread_mutex_unlock(&w->lock);
    kfs_drv_submit(w->s->drv, &t->q);
}

/* The current part is full: send it, and go on with what is beyond it. */
static int part_flush(struct kfs_blk_writer *w, struct kfs_err *err)
{
    struct kfs_err e = {0};
    pthread_mutex_lock(&w->lock);
    int status = w->status;
    if (status < 0)
        e = w->err;
    pthread_mutex_unlock(&w->lock);
    if (status < 0) /* the rest would be in vain */
        return writer_failed(w, status, e.msg, err);
    if (!w->upload) {
        int rc = kfs_drv_upload_begin(w->s->drv, w->key, &w->upload, &e);
        if (rc < 0)
            return writer_failed(w, rc, e.msg, err);
    }
    KFS_FAULT("upload.part");
    size_t rest = w->part->used - KFS_PART_BYTES;
    void *carry = malloc(rest + 1);
    if (!carry)
        return writer_failed(w, -ENOMEM, "out of memory", err);
    memcpy(carry, w->part->buf + KFS_PART_BYTES, rest);
    part_submit(w, KFS_PART_BYTES);
    int rc = part_new(w, err);
    if (rc == 0) {
        memcpy(w->part->buf, carry, rest);
        w->part->used = rest;
    }
    free(carry);
    return rc;
}

int kfs_blk_writer_add(struct kfs_blk_writer *w, const struct kfs_object_entry *e, const void *stored, size_t stored_len, struct kfs_err *err)
{
    assert(w->index->count < KFS_LARGE_FRAMES_MAX && stored_len <= KFS_FRAME_BYTES);
    uint32_t i = w->index->count;
    unsigned char *to = w->part->buf + w->part->used;
    struct kfs_object_entry *mine = &w->index->entries[i];
    *mine = *e;
    mine->off = w->at;
    mine->stored_len = (uint32_t)(stored_len + (w->tables.sealed ? KFS_TAG_BYTES : 0));
    if (!w->tables.sealed)
        memcpy(to, stored, stored_len);
    else if (kfs_blk_seal(w->tables.key, i, NULL, 0, stored, stored_len, to) < 0)
        return writer_failed(w, -EIO, "cannot encrypt", err);
    w->index->count++;
    w->part->used += mine->stored_len;
    w->at += mine->stored_len;
    w->plain += mine->plain_len;
    return w->part->used > KFS_PART_BYTES ? part_flush(w, err) : 0;
}

uint32_t kfs_blk_writer_count(const struct kfs_blk_writer *w)
{
    return w->index->count;
}

uint64_t kfs_blk_writer_plain(const struct kfs_blk_writer *w)
{
    return w->plain;
}

int kfs_blk_writer_end(struct kfs_blk_writer *w, bool durable, struct kfs_err *err)
{
    w->ended = true;
    w->durable = durable;
    size_t len = kfs_blk_tables_len(&w->tables, w->index->count);
    if (kfs_blk_tables_end(&w->tables, w->index->entries, w->index->count, w->at, w->part->buf + w->part->used) < 0)
        return writer_failed(w, -EIO, "cannot encrypt", err);
    w->part->used += len;
    w->at += len;
    if (w->upload && w->part->used > KFS_PART_BYTES) {
        int rc = part_flush(w, err);
        if (rc < 0)
            return rc;
    }
    part_submit(w, w->part->used);
    return 0;
}

static void writer_free(struct kfs_blk_writer *w)
{
    part_give(w->s->parts, w->part);
    kfs_blk_index_unref(w->index);
    pthread_cond_destroy(&w->cond);
    pthread_mutex_destroy(&w->lock);
    explicit_bzero(&w->tables.key, sizeof w->tables.key);
    free(w);
}

static void wait_parts(struct kfs_blk_writer *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->pending)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

bool kfs_blk_writer_is_sent(struct kfs_blk_writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool sent = w->ended && w->pending == 0;
    pthread_mutex_unlock(&w->lock);
    return sent;
}

/* The plain sums lie behind room for KFS_LARGE_FRAMES_MAX entries: what is remembered is a copy of the right size. */
static void remember(struct kfs_blk_writer *w)
{
    struct kfs_blk_index *idx = kfs_blk_index_new(w->object, w->index->count);
    if (!idx)
        return; /* a cache may forget */
    memcpy(idx->entries, w->index->entries, idx->count * sizeof idx->entries[0]);
    memcpy(idx->key, w->index->key, sizeof idx->key);
    idx->sealed = w->index->sealed;
    idx->object_bytes = w->at;
    kfs_blk_index_sum(idx);
    kfs_blk_index_cache_put(&w->s->index, idx);
    kfs_blk_index_unref(idx);
}

int kfs_blk_writer_wait(struct kfs_blk_writer *w, uint64_t *ret_bytes, struct kfs_err *err)
{
    assert(w->ended);
    wait_parts(w);
    int rc = w->status;
    struct kfs_err e = w->err;
    if (rc == 0 && w->upload) {
        KFS_FAULT("upload.finish");
        rc = kfs_drv_upload_finish(w->upload, w->durable ? KFS_DRV_DURABLE : 0, &e);
        w->upload = NULL;
        KFS_FAULT("upload.finished");
    }
    if (rc < 0) {
        (void)writer_failed(w, rc, e.msg, err);
        kfs_blk_writer_abort(w);
        return rc;
    }
    remember(w);
    *ret_bytes = w->at;
    writer_free(w);
    return 0;
}

void kfs_blk_writer_abort(struct kfs_blk_writer *w)
{
    if (!w)
        return;
    wait_parts(w);
    kfs_drv_upload_abort(w->upload);
    if (w->part_count) /* a PUT whose answer was lost may have arrived all the same */
        (void)kfs_store_delete(w->s, w->object, NULL);
    writer_free(w);
}
