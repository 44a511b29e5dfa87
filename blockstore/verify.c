/* blockstore/verify.c — one whole object, read and checked */
#include "blockstore/store.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
