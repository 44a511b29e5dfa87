/* blockstore/index.c — the index of an object: reading it with distrust, and remembering it */
#include "blockstore/store.h"
#include "base/pure/hash.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- reading ---------------------------------------------------------------------------------- */

static int damaged(const struct kfs_store *s, uint64_t object, const char *what,
                   struct kfs_err *err)
{
    char key[64];
    kfs_store_key(s, object, key);
    return KFS_FAIL(err, EIO, "object '%s' is damaged: %s; restore it in '%s' from a copy", key,
                    what, s->dir);
}

/* What is wrong with the entries, or NULL. Invariants (2), (4), (5) of object.h. */
static const char *entries_fault(const struct kfs_object_entry *e, uint32_t count,
                                 uint64_t index_off)
{
    uint64_t at = sizeof(struct kfs_object_header);
    for (uint32_t i = 0; i < count; i++, e++) {
        if (e->codec == KFS_CODEC_ZSTD)
            return "a frame is compressed with zstd, which this version does not read";
        if (e->codec != KFS_CODEC_PLAIN || e->reserved)
            return "a frame has an unknown codec";
        if (e->plain_len == 0 || e->plain_len > KFS_FRAME_BYTES ||
            (i + 1 < count && e->plain_len != KFS_FRAME_BYTES))
            return "a frame has an impossible length";
        if (e->off != at || e->stored_len != e->plain_len)
            return "its frames do not lie back to back";
        at += e->stored_len;
    }
    return at == index_off ? NULL : "its frames do not end where its index starts";
}

static const char *header_fault(const struct kfs_store *s, uint64_t object,
                                const struct kfs_object_header *h)
{
    char volume[sizeof h->volume] = {0};
    memcpy(volume, s->volume, strlen(s->volume));
    if (memcmp(h->magic, KFS_OBJECT_MAGIC, sizeof h->magic) != 0)
        return "it does not start as an object";
    if (h->version != KFS_OBJECT_VERSION)
        return "its format version is unknown to this version";
    if (memcmp(h->volume, volume, sizeof volume) != 0)
        return "it belongs to another volume";
    if (h->object != object)
        return "it carries the id of another object";
    if (h->frame_count == 0 || h->frame_count > KFS_OBJECT_FRAMES_MAX)
        return "it has an impossible number of frames";
    return NULL;
}

int kfs_blk_index_load(const struct kfs_store *s, uint64_t object, int fd,
                       struct kfs_blk_index *ret, struct kfs_err *err)
{
    struct stat st;
    struct kfs_object_header h;
    struct kfs_object_trailer t;
    if (fstat(fd, &st) < 0 || st.st_size < (off_t)KFS_OBJECT_BYTES_MIN)
        return damaged(s, object, "it is too short", err);
    uint64_t size = (uint64_t)st.st_size;
    if (kfs_blk_pread_all(fd, &h, sizeof h, 0) < 0)
        return damaged(s, object, "its header cannot be read", err);
    const char *fault = header_fault(s, object, &h);
    if (fault)
        return damaged(s, object, fault, err);
    if (kfs_blk_pread_all(fd, &t, sizeof t, size - sizeof t) < 0)
        return damaged(s, object, "its trailer cannot be read", err);
    if (memcmp(t.magic, KFS_OBJECT_END_MAGIC, sizeof t.magic) != 0)
        return damaged(s, object, "it does not end as an object (truncated?)", err);
    uint64_t index_len = h.frame_count * sizeof(struct kfs_object_entry);
    if (t.index_len != index_len || size < sizeof h + index_len + sizeof t ||
        t.index_off != size - sizeof t - index_len)
        return damaged(s, object, "its index does not lie where its size says", err);
    struct kfs_blk_index idx = {.count = h.frame_count};
    if (kfs_blk_pread_all(fd, idx.entries, index_len, t.index_off) < 0)
        return damaged(s, object, "its index cannot be read", err);
    uint8_t hash[KFS_HASH_BYTES];
    kfs_blk_hash2(&h, sizeof h, idx.entries, index_len, hash);
    if (memcmp(hash, t.hash, sizeof hash) != 0)
        return damaged(s, object, "the checksum of its index differs", err);
    fault = entries_fault(idx.entries, idx.count, t.index_off);
    if (fault)
        return damaged(s, object, fault, err);
    *ret = idx;
    return 0;
}

int kfs_blk_index_get(struct kfs_store *s, uint64_t object, struct kfs_blk_index *ret,
                      struct kfs_err *err)
{
    if (kfs_blk_index_cache_get(&s->index, object, ret))
        return 0;
    int fd = kfs_blk_object_open(s, object, err);
    if (fd < 0)
        return fd;
    int rc = kfs_blk_index_load(s, object, fd, ret, err);
    close(fd);
    if (rc == 0)
        kfs_blk_index_cache_put(&s->index, object, ret);
    return rc;
}

/* --- remembering ------------------------------------------------------------------------------ */

void kfs_blk_index_cache_init(struct kfs_blk_index_cache *c)
{
    pthread_mutex_init(&c->lock, NULL);
}

void kfs_blk_index_cache_clear(struct kfs_blk_index_cache *c)
{
    for (size_t i = 0; i < KFS_BLK_INDEX_SETS; i++)
        for (size_t k = 0; k < KFS_BLK_INDEX_WAYS; k++)
            free(c->slots[i][k].entries);
    pthread_mutex_destroy(&c->lock);
}

static struct kfs_blk_index_slot *find_locked(struct kfs_blk_index_cache *c, uint64_t object,
                                              bool or_oldest)
{
    struct kfs_blk_index_slot *set = c->slots[kfs_hash_u64(object) % KFS_BLK_INDEX_SETS],
                              *oldest = set;
    for (size_t k = 0; k < KFS_BLK_INDEX_WAYS; k++) {
        if (set[k].object == object)
            return &set[k];
        if (set[k].used < oldest->used)
            oldest = &set[k];
    }
    return or_oldest ? oldest : NULL;
}

bool kfs_blk_index_cache_get(struct kfs_blk_index_cache *c, uint64_t object,
                             struct kfs_blk_index *ret)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_blk_index_slot *slot = find_locked(c, object, false);
    if (slot) {
        slot->used = ++c->tick;
        ret->count = slot->count;
        memcpy(ret->entries, slot->entries, slot->count * sizeof *slot->entries);
    }
    pthread_mutex_unlock(&c->lock);
    return slot != NULL;
}

void kfs_blk_index_cache_put(struct kfs_blk_index_cache *c, uint64_t object,
                             const struct kfs_blk_index *idx)
{
    struct kfs_object_entry *copy = malloc(idx->count * sizeof *copy);
    if (!copy)
        return; /* a cache may forget */
    memcpy(copy, idx->entries, idx->count * sizeof *copy);
    pthread_mutex_lock(&c->lock);
    struct kfs_blk_index_slot *slot = find_locked(c, object, true);
    free(slot->entries);
    *slot = (struct kfs_blk_index_slot){
        .object = object, .used = ++c->tick, .count = idx->count, .entries = copy};
    pthread_mutex_unlock(&c->lock);
}

void kfs_blk_index_cache_drop(struct kfs_blk_index_cache *c, uint64_t object)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_blk_index_slot *slot = find_locked(c, object, false);
    if (slot) {
        free(slot->entries);
        *slot = (struct kfs_blk_index_slot){0};
    }
    pthread_mutex_unlock(&c->lock);
}
