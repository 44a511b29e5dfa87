/* blockstore/fill.c — from objects to a file, every byte verified on the way */
#include "blockstore/store.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u /* runs of zeros of at least this, aligned, stay holes in the file */

struct reader {
    struct kfs_store *s;
    struct kfs_blk_index *index; /* of the object being read; NULL: none */
    unsigned char *stored, *plain; /* a frame each */
};

static int reader_open(struct reader *r, uint64_t object, struct kfs_err *err)
{
    if (r->index && r->index->object == object)
        return 0;
    kfs_blk_index_unref(r->index);
    r->index = NULL;
    return kfs_blk_index_get(r->s, object, &r->index, err);
}

static int reader_init(struct reader *r, struct kfs_store *s, struct kfs_err *err)
{
    *r = (struct reader){.s = s, .stored = malloc(KFS_FRAME_BYTES + KFS_TAG_BYTES), .plain = malloc(KFS_FRAME_BYTES)};
    return r->stored && r->plain ? 0 : KFS_FAIL(err, ENOMEM, "cannot read an object: out of memory");
}

static void reader_release(struct reader *r)
{
    kfs_blk_index_unref(r->index);
    free(r->stored);
    free(r->plain);
}

/* Frame i into r->plain, verified. */
static int reader_frame(struct reader *r, uint32_t i, struct kfs_err *err)
{
    const struct kfs_object_entry *e = &r->index->entries[i];
    int rc = kfs_blk_object_get(r->s, r->index->object, e->off, r->stored, e->stored_len, NULL, NULL, err);
    return rc < 0 ? rc : kfs_blk_frame_decode(r->s, r->index, i, r->stored, r->plain, err);
}

/* Write what is not zero, so that a sparse file comes back sparse. */
static int write_sparse(int fd, const unsigned char *buf, size_t len, uint64_t off)
{
    size_t at = 0;
    while (at < len) {
        size_t end = at;
        while (end < len) {
            size_t n = len - end < BLOCK_BYTES ? len - end : BLOCK_BYTES;
            if (kfs_blk_is_zero(buf + end, n))
                break;
            end += n;
        }
        if (end > at) {
            int rc = kfs_blk_pwrite_all(fd, buf + at, end - at, off + at);
            if (rc < 0)
                return rc;
            at = end;
        } else {
            at += BLOCK_BYTES;
        }
    }
    return 0;
}

static int fd_failed(int rc, struct kfs_err *err)
{
    return KFS_FAIL(err, -rc, "cannot fill a cache file: %s%s", strerror(-rc),
                    rc == -ENOSPC ? "; make room where the cache directory lies" : "");
}

static int beyond_object(const struct kfs_store *s, uint64_t object, struct kfs_err *err)
{
    char key[64];
    kfs_store_key(s, object, key);
    return KFS_FAIL(err, EIO, "object '%s' in '%s' is shorter than the metadata says; check the volume", key, s->url);
}

static int fill_extent(struct reader *r, const struct kfs_extent *e, int fd, struct kfs_err *err)
{
    int rc = reader_open(r, e->object, err);
    for (uint64_t pos = 0; rc == 0 && pos < e->len;) {
        int64_t i = kfs_blk_index_find(r->index, e->object_off + pos);
        if (i < 0 || r->index->plain_off[i] != e->object_off + pos)
            return beyond_object(r->s, e->object, err);
        uint64_t want = r->index->entries[i].plain_len;
        if (want > e->len - pos)
            want = e->len - pos;
        rc = reader_frame(r, (uint32_t)i, err);
        if (rc < 0)
            return rc;
        int wrote = write_sparse(fd, r->plain, want, e->off + pos);
        if (wrote < 0)
            return fd_failed(wrote, err);
        pos += want;
    }
    return rc;
}

/* The map comes from a database: nothing in it is believed before it is checked. */
static int check_content(const struct kfs_content *c, struct kfs_err *err)
{
    bool ok = c->size_bytes <= (uint64_t)INT64_MAX;
    if (c->is_inline) {
        ok = ok && c->inline_len == c->size_bytes && c->inline_len <= KFS_INLINE_MAX &&
             (c->inline_len == 0 || c->inline_data);
        return ok ? 0
                  : KFS_FAIL(err, EIO,
                             "content map is damaged: inline bytes do not match the size; check "
                             "the volume");
    }
    uint64_t end = 0;
    for (size_t i = 0; ok && i < c->extent_count; i++) {
        const struct kfs_extent *e = &c->extents[i];
        ok = e->object != 0 && e->len > 0 && e->off >= end && e->off % KFS_FRAME_BYTES == 0 &&
             e->object_off <= (uint64_t)INT64_MAX && e->off <= c->size_bytes && e->len <= c->size_bytes - e->off;
        end = ok ? e->off + e->len : end;
    }
    return ok ? 0
              : KFS_FAIL(err, EIO,
                         "content map is damaged: an extent overlaps or lies outside the file; "
                         "check the volume");
}

static int fill_checked(struct kfs_store *s, const struct kfs_content *c, int fd,
                        struct kfs_err *err)
{
    /* To nothing first: a fill that failed half-way, for lack of room say, can be tried again on
     * the same file. */
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)c->size_bytes) < 0)
        return fd_failed(-errno, err);
    if (c->is_inline) {
        int rc = c->inline_len ? kfs_blk_pwrite_all(fd, c->inline_data, c->inline_len, 0) : 0;
        return rc < 0 ? fd_failed(rc, err) : 0;
    }
    if (c->extent_count == 0)
        return 0;
    struct reader r;
    int rc = reader_init(&r, s, err);
    for (size_t i = 0; rc == 0 && i < c->extent_count; i++)
        rc = fill_extent(&r, &c->extents[i], fd, err);
    reader_release(&r);
    return rc;
}

int kfs_store_fill(struct kfs_store *s, const struct kfs_content *c, int fd, struct kfs_err *err)
{
    int rc = check_content(c, err);
    if (rc < 0)
        return rc;
    rc = fill_checked(s, c, fd, err);
    if (rc < 0)
        (void)!ftruncate(fd, 0); /* nobody shall take a part for the whole */
    return rc;
}

/* The header of a large object is in nobody's tail. */
static int verify_header(struct kfs_store *s, uint64_t object, bool sealed, struct kfs_err *err)
{
    struct kfs_object_header h = {0};
    char volume[sizeof h.volume] = {0};
    memcpy(volume, s->volume, strlen(s->volume));
    int rc = kfs_blk_object_get(s, object, 0, &h, sizeof h, NULL, NULL, err);
    bool known = h.version == 1 || (h.version == KFS_OBJECT_VERSION && h.flags == (sealed ? KFS_OBJECT_SEALED : 0));
    if (rc == 0 && (!known || memcmp(h.magic, KFS_OBJECT_MAGIC, sizeof h.magic) != 0 || h.object != object ||
                    memcmp(h.volume, volume, sizeof volume) != 0))
        rc = kfs_blk_damaged(s, object, "it does not start as an object", err);
    return rc;
}

int kfs_store_verify(struct kfs_store *s, uint64_t object, struct kfs_err *err)
{
    struct reader r;
    kfs_blk_index_cache_drop(&s->index, object); /* what is there now counts */
    int rc = reader_init(&r, s, err);
    if (rc == 0)
        rc = reader_open(&r, object, err);
    if (rc == 0)
        rc = verify_header(s, object, r.index->sealed, err);
    for (uint32_t i = 0; rc == 0 && i < r.index->count; i++)
        rc = reader_frame(&r, i, err);
    reader_release(&r);
    if (rc == -EIO) /* so that a commit does not take the damaged object for a good one */
        kfs_blk_index_cache_drop(&s->index, object);
    return rc;
}
