/* blockstore/fill.c — from objects to a file, every byte verified on the way */
#include "blockstore/store.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u /* runs of zeros of at least this, aligned, stay holes in the file */

static void reader_close(struct kfs_blk_reader *r)
{
    if (r->object)
        close(r->fd);
    r->object = 0;
}

static int reader_open(struct kfs_blk_reader *r, uint64_t object, bool trust_cache,
                       struct kfs_err *err)
{
    if (r->object == object)
        return 0;
    reader_close(r);
    int fd = kfs_blk_object_open(r->s, object, err);
    if (fd < 0)
        return fd;
    if (!trust_cache || !kfs_blk_index_cache_get(&r->s->index, object, &r->index)) {
        int rc = kfs_blk_index_load(r->s, object, fd, &r->index, err);
        if (rc < 0) {
            close(fd);
            return rc;
        }
        kfs_blk_index_cache_put(&r->s->index, object, &r->index);
    }
    r->object = object;
    r->fd = fd;
    return 0;
}

int kfs_blk_reader_frame(struct kfs_blk_reader *r, uint32_t i, void *buf, struct kfs_err *err)
{
    const struct kfs_object_entry *e = &r->index.entries[i];
    char key[64];
    int rc = kfs_blk_pread_all(r->fd, buf, e->plain_len, e->off);
    if (rc < 0 && rc != -ENODATA) {
        kfs_store_key(r->s, r->object, key);
        return KFS_FAIL(err, -rc, "cannot read object '%s' in '%s': %s", key, r->s->dir,
                        strerror(-rc));
    }
    uint8_t hash[KFS_HASH_BYTES];
    if (rc == 0) {
        kfs_blk_hash(buf, e->plain_len, hash);
        if (memcmp(hash, e->hash, sizeof hash) == 0)
            return 0;
    }
    kfs_store_key(r->s, r->object, key);
    return KFS_FAIL(err, EIO, "object '%s' is damaged: frame %u %s; restore it in '%s' from a copy",
                    key, i, rc == 0 ? "fails its checksum" : "is cut off", r->s->dir);
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

static int fill_extent(struct kfs_blk_reader *r, const struct kfs_extent *e, int fd,
                       unsigned char *buf, struct kfs_err *err)
{
    int rc = reader_open(r, e->object, true, err);
    for (uint64_t pos = 0; rc == 0 && pos < e->len; pos += KFS_FRAME_BYTES) {
        uint64_t want = e->len - pos < KFS_FRAME_BYTES ? e->len - pos : KFS_FRAME_BYTES;
        uint64_t i = (e->object_off + pos) / KFS_FRAME_BYTES;
        if (i >= r->index.count || want > r->index.entries[i].plain_len) {
            char key[64];
            kfs_store_key(r->s, e->object, key);
            return KFS_FAIL(
                err, EIO, "object '%s' in '%s' is shorter than the metadata says; check the volume",
                key, r->s->dir);
        }
        rc = kfs_blk_reader_frame(r, (uint32_t)i, buf, err);
        if (rc < 0)
            return rc;
        int wrote = write_sparse(fd, buf, want, e->off + pos);
        if (wrote < 0)
            return fd_failed(wrote, err);
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
             e->object_off % KFS_FRAME_BYTES == 0 && e->object_off <= (uint64_t)INT64_MAX &&
             e->off <= c->size_bytes && e->len <= c->size_bytes - e->off;
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
    unsigned char *buf = malloc(KFS_FRAME_BYTES);
    if (!buf)
        return KFS_FAIL(err, ENOMEM, "cannot fill a cache file: out of memory");
    struct kfs_blk_reader r = {.s = s, .fd = -1};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->extent_count; i++)
        rc = fill_extent(&r, &c->extents[i], fd, buf, err);
    reader_close(&r);
    free(buf);
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

int kfs_store_verify(struct kfs_store *s, uint64_t object, struct kfs_err *err)
{
    unsigned char *buf = malloc(KFS_FRAME_BYTES);
    if (!buf)
        return KFS_FAIL(err, ENOMEM, "cannot verify an object: out of memory");
    struct kfs_blk_reader r = {.s = s, .fd = -1};
    int rc = reader_open(&r, object, false, err);
    for (uint32_t i = 0; rc == 0 && i < r.index.count; i++)
        rc = kfs_blk_reader_frame(&r, i, buf, err);
    reader_close(&r);
    free(buf);
    if (rc == -EIO)
        kfs_blk_index_cache_drop(
            &s->index,
            object); /* so that a commit does not take the damaged object for a good one */
    return rc;
}
