/* blockstore/commit.c — what of this file is not stored yet?
 *
 * Model    Frame by frame: data (by SEEK_DATA) is read once into a buffer, and what is hashed,
 *          compared and stored is that buffer, so a writer that goes on meanwhile can make the
 *          result a mixture of old and new bytes, never an object whose checksum is wrong. Whoever
 *          commits a file that is still written must commit it again; the caller knows by mtime and
 *          probes. A frame is unchanged if the old content of its range is exactly one whole object
 *          frame with the same hash, and what the file has beyond that is zeros. Anything else is
 *          stored anew: a wrong "changed" costs a megabyte, a wrong "unchanged" would cost the
 *          data. The file may shrink under our eyes: what is missing reads as zeros, up to the size
 *          seen at the start.
 * Where    New frames are held back until they pass the size for packs; then they, and all that
 *          follow, go to large objects. If they never do, they go into the current pack together.
 */
#include "blockstore/store.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HELD UINT64_MAX /* "object" of extents whose frames are held back; object_off counts from the first of them */

struct kfs_commit {
    struct kfs_store *s;
    struct kfs_commit_options o;
    struct kfs_content_delta *d;
    size_t extent_cap, object_cap;
    struct kfs_blk_writer **writers; /* one an object of d, in order; NULL: it is safe */
    struct kfs_blk_pack *pack;

    /* While it is begun. */
    int fd;
    uint64_t size;
    const struct kfs_content *old;
    size_t old_at; /* first old extent that ends behind the frame under way */
    unsigned char *buf, *packed; /* a frame: plain, and compressed */
    struct kfs_blk_index *index; /* the last one used; NULL none */
    struct kfs_blk_writer *w;    /* of the last object, while frames go into it */
    struct held {
        unsigned char *data; /* stored frames, back to back */
        size_t used, room;
        struct kfs_blk_frame *v; /* v[i].stored is set at the end: data moves */
        size_t count, cap;
        uint64_t plain;
    } held;
    bool large; /* nothing is held back any more */
    struct kfs_err *err;
};

static int no_memory(struct kfs_commit *k)
{
    return KFS_FAIL(k->err, ENOMEM, "cannot commit a file: out of memory");
}

/* --- the delta -------------------------------------------------------------------------------- */

/* Add a range to the delta, or lengthen the last one. Called in rising order of off. */
static int emit(struct kfs_commit *k, uint64_t off, uint64_t len, uint64_t object, uint64_t object_off)
{
    struct kfs_content_delta *d = k->d;
    struct kfs_extent *last = d->extent_count ? &d->extents[d->extent_count - 1] : NULL;
    if (last && last->off + last->len == off && last->object == object &&
        (object == 0 || last->object_off + last->len == object_off)) {
        last->len += len;
        return 0;
    }
    if (d->extent_count == k->extent_cap) {
        size_t cap = k->extent_cap ? k->extent_cap * 2 : 16;
        struct kfs_extent *p = realloc(d->extents, cap * sizeof *p);
        if (!p)
            return no_memory(k);
        d->extents = p;
        k->extent_cap = cap;
    }
    d->extents[d->extent_count++] = (struct kfs_extent){off, len, object, object_off};
    return 0;
}

static int note_object(struct kfs_commit *k, uint64_t object)
{
    struct kfs_content_delta *d = k->d;
    if (d->object_count == k->object_cap) {
        size_t cap = k->object_cap ? k->object_cap * 2 : 4;
        uint64_t *ids = realloc(d->objects, cap * sizeof *ids);
        if (!ids)
            return no_memory(k);
        d->objects = ids;
        uint64_t *bytes = realloc(d->object_bytes, cap * sizeof *bytes);
        if (!bytes)
            return no_memory(k);
        d->object_bytes = bytes;
        struct kfs_blk_writer **writers = realloc(k->writers, cap * sizeof(struct kfs_blk_writer *));
        if (!writers)
            return no_memory(k);
        k->writers = writers;
        k->object_cap = cap;
    }
    d->objects[d->object_count] = object;
    k->writers[d->object_count] = NULL;
    d->object_bytes[d->object_count++] = 0;
    return 0;
}

/* --- large objects ------------------------------------------------------------------------------ */

/* Objects whose parts have all arrived are completed meanwhile, while those of later ones are on their way. */
static int reap(struct kfs_commit *k, bool all)
{
    struct kfs_content_delta *d = k->d;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < d->own_count; i++) {
        struct kfs_blk_writer *w = k->writers[i];
        if (!w || (!all && !kfs_blk_writer_is_sent(w)))
            continue;
        k->writers[i] = NULL;
        rc = kfs_blk_writer_wait(w, &d->object_bytes[i], k->err);
    }
    return rc;
}

static int object_end(struct kfs_commit *k)
{
    if (!k->w)
        return 0;
    struct kfs_blk_writer *w = k->w;
    k->w = NULL;
    int rc = kfs_blk_writer_end(w, k->o.durable, k->err);
    if (rc < 0) {
        kfs_blk_writer_abort(w);
        return rc;
    }
    k->writers[k->d->object_count - 1] = w;
    return reap(k, false);
}

static int object_begin(struct kfs_commit *k)
{
    uint64_t object = 0;
    int rc = k->o.new_id(k->o.arg, &object, k->err);
    if (rc == 0)
        rc = note_object(k, object);
    if (rc < 0)
        return rc;
    k->d->own_count = k->d->object_count;
    return kfs_blk_writer_begin(k->s, object, &k->w, k->err);
}

/* To the object under way, or a new one. *ret_object, *ret_off: where it is. */
static int frame_large(struct kfs_commit *k, const struct kfs_blk_frame *f, uint64_t *ret_object,
                       uint64_t *ret_off)
{
    int rc = 0;
    if (k->w && kfs_blk_writer_count(k->w) == KFS_LARGE_FRAMES_MAX)
        rc = object_end(k);
    if (rc == 0 && !k->w)
        rc = object_begin(k);
    if (rc < 0)
        return rc;
    *ret_object = k->d->objects[k->d->object_count - 1];
    *ret_off = kfs_blk_writer_plain(k->w);
    return kfs_blk_writer_add(k->w, &f->e, f->stored, f->stored_len, k->err);
}

/* --- held back ---------------------------------------------------------------------------------- */

static int hold(struct kfs_commit *k, const struct kfs_blk_frame *f)
{
    struct held *h = &k->held;
    if (h->used + f->stored_len > h->room) {
        size_t room = h->room ? h->room * 2 : f->stored_len;
        while (room < h->used + f->stored_len)
            room *= 2;
        unsigned char *data = realloc(h->data, room);
        if (!data)
            return no_memory(k);
        h->data = data;
        h->room = room;
    }
    if (h->count == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 1;
        struct kfs_blk_frame *v = realloc(h->v, cap * sizeof *v);
        if (!v)
            return no_memory(k);
        h->v = v;
        h->cap = cap;
    }
    memcpy(h->data + h->used, f->stored, f->stored_len);
    h->v[h->count++] = *f;
    h->used += f->stored_len;
    h->plain += f->e.plain_len;
    return 0;
}

static void held_place(struct held *h)
{
    size_t at = 0;
    for (size_t i = 0; i < h->count; at += h->v[i++].stored_len)
        h->v[i].stored = h->data + at;
}

/* The frames held back have got their place. */
static void held_found(struct kfs_commit *k, uint64_t object, uint64_t off)
{
    for (size_t i = 0; i < k->d->extent_count; i++) {
        struct kfs_extent *e = &k->d->extents[i];
        if (e->object != HELD)
            continue;
        e->object = object;
        e->object_off += off;
    }
}

static void held_clear(struct kfs_commit *k)
{
    free(k->held.data);
    free(k->held.v);
    k->held = (struct held){0};
}

static int held_to_large(struct kfs_commit *k)
{
    struct held *h = &k->held;
    uint64_t object = 0, off = 0;
    k->large = true;
    held_place(h);
    for (size_t i = 0; i < h->count; i++) {
        int rc = frame_large(k, &h->v[i], &object, &off);
        if (rc < 0)
            return rc;
    }
    /* They are fewer than one object holds: the first one's place is 0. */
    held_found(k, object, 0);
    held_clear(k);
    return 0;
}

static int held_to_pack(struct kfs_commit *k)
{
    struct held *h = &k->held;
    uint64_t object = 0, off = 0;
    if (h->count == 0)
        return 0;
    held_place(h);
    int rc = kfs_blk_pack_add(k->s, h->v, h->count, k->o.durable, k->o.new_id, k->o.arg, &k->pack,
                              &object, &off, k->err);
    if (rc == 0)
        rc = note_object(k, object);
    if (rc < 0)
        return rc;
    held_found(k, object, off);
    held_clear(k);
    return 0;
}

/* --- new frames ---------------------------------------------------------------------------------- */

static int store_frame(struct kfs_commit *k, uint64_t off, size_t n)
{
    struct kfs_blk_frame f = {.e = {.plain_len = (uint32_t)n, .ino = k->o.ino, .file_off = off},
                              .stored = k->buf,
                              .stored_len = n};
    kfs_blk_hash(k->buf, n, f.e.hash);
    if (k->s->compress && !k->packed && !(k->packed = malloc(KFS_FRAME_BYTES)))
        return no_memory(k);
    if (k->s->compress)
        f.e.codec = kfs_blk_compress(k->buf, n, k->packed, &f.stored_len);
    if (f.e.codec != KFS_CODEC_PLAIN)
        f.stored = k->packed;
    uint64_t object = HELD, object_off = k->held.plain;
    int rc = 0;
    if (!k->large && (k->held.plain + n > k->s->pack_file_bytes || k->held.count == KFS_LARGE_FRAMES_MAX))
        rc = held_to_large(k);
    if (rc == 0)
        rc = k->large ? frame_large(k, &f, &object, &object_off) : hold(k, &f);
    return rc < 0 ? rc : emit(k, off, n, object, object_off);
}

/* --- comparing -------------------------------------------------------------------------------- */

/* The old extent that covers `off`, or NULL. off only rises during a commit. */
static const struct kfs_extent *old_extent(struct kfs_commit *k, uint64_t off)
{
    const struct kfs_content *o = k->old;
    while (k->old_at < o->extent_count &&
           o->extents[k->old_at].off + o->extents[k->old_at].len <= off)
        k->old_at++;
    return k->old_at < o->extent_count && o->extents[k->old_at].off <= off ? &o->extents[k->old_at]
                                                                           : NULL;
}

/* The old range [a, b) has become a hole: say so where it was none. */
static int emit_holes(struct kfs_commit *k, uint64_t a, uint64_t b)
{
    (void)old_extent(k, a);
    for (size_t i = k->old_at; i < k->old->extent_count && k->old->extents[i].off < b; i++) {
        const struct kfs_extent *e = &k->old->extents[i];
        uint64_t from = e->off > a ? e->off : a, to = e->off + e->len < b ? e->off + e->len : b;
        int rc = from < to ? emit(k, from, to - from, 0, 0) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool frame_same(struct kfs_commit *k, uint64_t off, size_t n)
{
    const struct kfs_extent *e = old_extent(k, off);
    if (!e)
        return false;
    uint64_t rel = off - e->off, object_off = e->object_off + rel;
    uint64_t covered = e->len - rel < KFS_FRAME_BYTES ? e->len - rel : KFS_FRAME_BYTES;
    if (!k->index || k->index->object != e->object) {
        kfs_blk_index_unref(k->index);
        k->index = NULL;
        if (kfs_blk_index_get(k->s, e->object, &k->index, NULL) < 0)
            return false; /* damaged or missing: what we have here may be the only good copy */
    }
    int64_t i = kfs_blk_index_find(k->index, object_off);
    if (i < 0 || k->index->plain_off[i] != object_off ||
        k->index->entries[i].plain_len != covered || n < covered)
        return false;
    uint8_t hash[KFS_HASH_BYTES];
    kfs_blk_hash(k->buf, covered, hash);
    return memcmp(hash, k->index->entries[i].hash, sizeof hash) == 0 &&
           kfs_blk_is_zero(k->buf + covered, n - covered);
}

static int read_range(struct kfs_commit *k, uint64_t off, size_t n)
{
    ssize_t got = kfs_blk_pread_most(k->fd, k->buf, n, off);
    if (got < 0)
        return KFS_FAIL(k->err, (int)-got, "cannot read a cache file: %s", strerror((int)-got));
    memset(k->buf + got, 0, n - (size_t)got);
    return 0;
}

static int commit_frame(struct kfs_commit *k, uint64_t off)
{
    size_t n = k->size - off < KFS_FRAME_BYTES ? (size_t)(k->size - off) : KFS_FRAME_BYTES;
    int rc = read_range(k, off, n);
    if (rc < 0)
        return rc;
    if (kfs_blk_is_zero(k->buf, n))
        return emit_holes(k, off, off + n);
    return frame_same(k, off, n) ? 0 : store_frame(k, off, n);
}

/* --- walking ---------------------------------------------------------------------------------- */

/* Next data at or behind off, and where it ends; both at most size. File systems that do not tell
 * have data everywhere. */
static void next_data(struct kfs_commit *k, uint64_t off, uint64_t *ret_data, uint64_t *ret_end)
{
    *ret_data = off;
    *ret_end = k->size;
    off_t data = lseek(k->fd, (off_t)off, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
        *ret_data = k->size;
        return;
    }
    if (data < (off_t)off)
        return;
    *ret_data = (uint64_t)data < k->size ? (uint64_t)data : k->size;
    off_t hole = lseek(k->fd, data, SEEK_HOLE);
    if (hole > data && (uint64_t)hole < k->size)
        *ret_end = (uint64_t)hole;
}

static int walk(struct kfs_commit *k)
{
    uint64_t off = 0;
    int rc = 0;
    while (rc == 0 && off < k->size) {
        uint64_t data, end;
        next_data(k, off, &data, &end);
        if (data >= k->size)
            return emit_holes(k, off, k->size);
        uint64_t first = data - data % KFS_FRAME_BYTES;
        rc = emit_holes(k, off, first);
        for (off = first; rc == 0 && off < end; off += KFS_FRAME_BYTES)
            rc = commit_frame(k, off);
    }
    return rc;
}

static int commit_inline(struct kfs_commit *k)
{
    struct kfs_content_delta *d = k->d;
    const struct kfs_content *o = k->old;
    size_t n = (size_t)k->size;
    int rc = read_range(k, 0, n);
    if (rc < 0)
        return rc;
    d->to_inline = true;
    d->inline_len = (uint32_t)n;
    memcpy(d->inline_data, k->buf, n);
    bool same_bytes =
        n == 0 || (o->is_inline && o->inline_len == n && memcmp(o->inline_data, k->buf, n) == 0);
    d->changed = o->size_bytes != n || !same_bytes;
    return 0;
}

static int commit_extents(struct kfs_commit *k)
{
    int rc = walk(k);
    if (rc == 0)
        rc = object_end(k);
    if (rc == 0)
        rc = held_to_pack(k);
    if (rc == 0)
        k->d->changed = k->d->extent_count > 0 || k->old->size_bytes != k->size;
    return rc;
}

static int run(struct kfs_commit *k)
{
    struct stat st;
    if (fstat(k->fd, &st) < 0)
        return KFS_FAIL(k->err, errno, "cannot read a cache file: %s", strerror(errno));
    k->size = k->d->size_bytes = (uint64_t)st.st_size;
    k->buf = malloc(k->size < KFS_FRAME_BYTES ? (size_t)k->size + 1 : KFS_FRAME_BYTES);
    if (!k->buf)
        return no_memory(k);
    int rc = k->size <= KFS_INLINE_MAX ? commit_inline(k) : commit_extents(k);
    /* Asked last: a file system that allocates late knows more now. */
    k->d->blocks = rc == 0 && fstat(k->fd, &st) == 0 ? (uint64_t)st.st_blocks : 0;
    return rc;
}

static void run_end(struct kfs_commit *k)
{
    held_clear(k);
    kfs_blk_index_unref(k->index);
    free(k->buf);
    free(k->packed);
    k->index = NULL;
    k->buf = k->packed = NULL;
    k->fd = -1;
    k->old = NULL;
    k->err = NULL;
}

/* --- the interface -------------------------------------------------------------------------------- */

int kfs_store_commit_begin(struct kfs_store *s, int fd, const struct kfs_content *old,
                           const struct kfs_commit_options *o, struct kfs_commit **ret_k,
                           struct kfs_err *err)
{
    struct kfs_commit *k = calloc(1, sizeof *k);
    if (!k || !(k->d = calloc(1, sizeof *k->d))) {
        free(k);
        return KFS_FAIL(err, ENOMEM, "cannot commit a file: out of memory");
    }
    k->s = s;
    k->o = *o;
    k->fd = fd;
    k->old = old;
    k->err = err;
    int rc = run(k);
    run_end(k);
    if (rc < 0) {
        kfs_store_commit_abort(k);
        return rc;
    }
    *ret_k = k;
    return 0;
}

void kfs_store_commit_undo(struct kfs_store *s, const struct kfs_content_delta *d)
{
    if (d->own_count)
        (void)kfs_store_delete_many(s, d->objects, d->own_count, NULL); /* what stays behind is found by kfs_store_each */
}

void kfs_store_commit_abort(struct kfs_commit *k)
{
    if (!k)
        return;
    kfs_blk_writer_abort(k->w);
    for (size_t i = 0; i < k->d->own_count; i++) {
        if (!k->writers[i])
            continue;
        kfs_blk_writer_abort(k->writers[i]);
    }
    kfs_blk_pack_leave(k->s, k->pack);
    kfs_store_commit_undo(k->s, k->d);
    kfs_content_delta_release(k->d);
    free(k->writers);
    free(k->d);
    free(k);
}

int kfs_store_commit_wait(struct kfs_commit *k, struct kfs_content_delta *ret_delta,
                          struct kfs_err *err)
{
    struct kfs_blk_pack *pack = k->pack;
    k->err = err;
    int rc = reap(k, true);
    k->pack = NULL;
    if (pack && rc == 0)
        rc = kfs_blk_pack_wait(k->s, pack, &k->d->object_bytes[k->d->object_count - 1], err);
    else
        kfs_blk_pack_leave(k->s, pack);
    if (rc < 0) {
        kfs_store_commit_abort(k);
        return rc;
    }
    *ret_delta = *k->d;
    free(k->writers);
    free(k->d);
    free(k);
    return 0;
}

int kfs_store_commit(struct kfs_store *s, int fd, const struct kfs_content *old,
                     kfs_store_new_id new_id, void *arg, bool durable,
                     struct kfs_content_delta *ret_delta, struct kfs_err *err)
{
    struct kfs_commit_options o = {.durable = durable, .new_id = new_id, .arg = arg};
    struct kfs_commit *k = NULL;
    int rc = kfs_store_commit_begin(s, fd, old, &o, &k, err);
    return rc < 0 ? rc : kfs_store_commit_wait(k, ret_delta, err);
}
