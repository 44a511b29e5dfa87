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
 */
#include "blockstore/store.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct commit {
    struct kfs_store *s;
    int fd;
    uint64_t size;
    const struct kfs_content *old;
    size_t old_at; /* first old extent that ends behind the frame under way */
    kfs_store_new_id new_id;
    void *new_id_arg;
    bool durable;
    unsigned char *buf;
    struct kfs_blk_writer w;
    uint64_t index_object; /* whose index is in `index`; 0 none */
    struct kfs_blk_index index;
    struct kfs_content_delta *d;
    size_t extent_cap, object_cap;
    struct kfs_err *err;
};

static int no_memory(struct commit *k)
{
    return KFS_FAIL(k->err, ENOMEM, "cannot commit a file: out of memory");
}

/* --- the delta -------------------------------------------------------------------------------- */

/* Add a range to the delta, or lengthen the last one. Called in rising order of off. */
static int emit(struct commit *k, uint64_t off, uint64_t len, uint64_t object, uint64_t object_off)
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

static int note_object(struct commit *k, uint64_t object)
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
        k->object_cap = cap;
    }
    d->objects[d->object_count] = object;
    d->object_bytes[d->object_count++] = 0;
    return 0;
}

/* --- new frames ------------------------------------------------------------------------------- */

static int finish_object(struct commit *k)
{
    if (k->w.fd < 0)
        return 0;
    return kfs_blk_writer_finish(&k->w, k->durable, &k->d->object_bytes[k->d->object_count - 1],
                                 k->err);
}

static int store_frame(struct commit *k, uint64_t off, size_t n)
{
    int rc = 0;
    if (k->w.fd >= 0 && k->w.index.count == KFS_OBJECT_FRAMES_MAX)
        rc = finish_object(k);
    if (rc == 0 && k->w.fd < 0) {
        uint64_t object = 0;
        rc = k->new_id(k->new_id_arg, &object, k->err);
        if (rc == 0)
            rc = note_object(k, object);
        if (rc == 0)
            rc = kfs_blk_writer_begin(&k->w, k->s, object, k->err);
    }
    uint64_t object_off = (uint64_t)k->w.index.count * KFS_FRAME_BYTES;
    if (rc == 0)
        rc = kfs_blk_writer_add(&k->w, k->buf, n, k->err);
    return rc < 0 ? rc : emit(k, off, n, k->w.object, object_off);
}

/* --- comparing -------------------------------------------------------------------------------- */

/* The old extent that covers `off`, or NULL. off only rises during a commit. */
static const struct kfs_extent *old_extent(struct commit *k, uint64_t off)
{
    const struct kfs_content *o = k->old;
    while (k->old_at < o->extent_count &&
           o->extents[k->old_at].off + o->extents[k->old_at].len <= off)
        k->old_at++;
    return k->old_at < o->extent_count && o->extents[k->old_at].off <= off ? &o->extents[k->old_at]
                                                                           : NULL;
}

/* The old range [a, b) has become a hole: say so where it was none. */
static int emit_holes(struct commit *k, uint64_t a, uint64_t b)
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

static bool frame_same(struct commit *k, uint64_t off, size_t n)
{
    const struct kfs_extent *e = old_extent(k, off);
    if (!e)
        return false;
    uint64_t rel = off - e->off, object_off = e->object_off + rel, i = object_off / KFS_FRAME_BYTES;
    uint64_t covered = e->len - rel < KFS_FRAME_BYTES ? e->len - rel : KFS_FRAME_BYTES;
    if (object_off % KFS_FRAME_BYTES)
        return false;
    if (k->index_object != e->object) {
        k->index_object = 0;
        if (kfs_blk_index_get(k->s, e->object, &k->index, NULL) < 0)
            return false; /* damaged or missing: what we have here may be the only good copy */
        k->index_object = e->object;
    }
    if (i >= k->index.count || k->index.entries[i].plain_len != covered || n < covered)
        return false;
    uint8_t hash[KFS_HASH_BYTES];
    kfs_blk_hash(k->buf, covered, hash);
    return memcmp(hash, k->index.entries[i].hash, sizeof hash) == 0 &&
           kfs_blk_is_zero(k->buf + covered, n - covered);
}

static int read_range(struct commit *k, uint64_t off, size_t n)
{
    ssize_t got = kfs_blk_pread_most(k->fd, k->buf, n, off);
    if (got < 0)
        return KFS_FAIL(k->err, (int)-got, "cannot read a cache file: %s", strerror((int)-got));
    memset(k->buf + got, 0, n - (size_t)got);
    return 0;
}

static int commit_frame(struct commit *k, uint64_t off)
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
static void next_data(struct commit *k, uint64_t off, uint64_t *ret_data, uint64_t *ret_end)
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

static int walk(struct commit *k)
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

static int commit_inline(struct commit *k)
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

static int commit_extents(struct commit *k)
{
    int rc = walk(k);
    if (rc == 0)
        rc = finish_object(k);
    if (rc == 0)
        k->d->changed = k->d->extent_count > 0 || k->old->size_bytes != k->size;
    return rc;
}

static int run(struct commit *k)
{
    struct stat st;
    if (fstat(k->fd, &st) < 0)
        return KFS_FAIL(k->err, errno, "cannot read a cache file: %s", strerror(errno));
    k->size = k->d->size_bytes = (uint64_t)st.st_size;
    k->buf = malloc(KFS_FRAME_BYTES);
    if (!k->buf)
        return no_memory(k);
    int rc = k->size <= KFS_INLINE_MAX ? commit_inline(k) : commit_extents(k);
    /* Asked last: a file system that allocates late knows more now. */
    k->d->blocks = rc == 0 && fstat(k->fd, &st) == 0 ? (uint64_t)st.st_blocks : 0;
    return rc;
}

int kfs_store_commit(struct kfs_store *s, int fd, const struct kfs_content *old,
                     kfs_store_new_id new_id, void *arg, bool durable,
                     struct kfs_content_delta *ret_delta, struct kfs_err *err)
{
    struct kfs_content_delta *d = calloc(1, sizeof *d);
    struct commit *k = calloc(1, sizeof *k);
    int rc;
    if (!d || !k) {
        rc = KFS_FAIL(err, ENOMEM, "cannot commit a file: out of memory");
    } else {
        *k = (struct commit){.s = s,
                             .fd = fd,
                             .old = old,
                             .new_id = new_id,
                             .new_id_arg = arg,
                             .durable = durable,
                             .d = d,
                             .err = err};
        k->w.fd = -1;
        rc = run(k);
        kfs_blk_writer_abort(&k->w);
        free(k->buf);
    }
    if (rc == 0) {
        *ret_delta = *d;
    } else if (d) {
        for (size_t i = 0; i < d->object_count; i++)
            (void)kfs_store_delete(s, d->objects[i],
                                   NULL); /* what stays behind is found by kfs_store_each */
        kfs_content_delta_release(d);
    }
    free(k);
    free(d);
    return rc;
}
