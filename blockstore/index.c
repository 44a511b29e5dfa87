/* blockstore/index.c — the index of an object: reading it with distrust, and remembering it */
#include "blockstore/store.h"
#include "base/cleanup.h"
#include "base/pure/hash.h"
#include "blockstore/keys.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- the parsed form -------------------------------------------------------------------------- */

struct kfs_blk_index *kfs_blk_index_new(uint64_t object, uint32_t count)
{
    struct kfs_blk_index *idx =
        malloc(sizeof *idx + count * sizeof idx->entries[0] + (count + 1) * sizeof *idx->plain_off);
    if (!idx)
        return NULL;
    memset(idx, 0, sizeof *idx);
    idx->refs = 1;
    idx->object = object;
    idx->count = count;
    idx->plain_off = (uint64_t *)(void *)&idx->entries[count];
    return idx;
}

void kfs_blk_index_sum(struct kfs_blk_index *idx)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < idx->count; i++) {
        idx->plain_off[i] = sum;
        sum += idx->entries[i].plain_len;
    }
    idx->plain_off[idx->count] = sum;
}

struct kfs_blk_index *kfs_blk_index_ref(struct kfs_blk_index *idx)
{
    (void)__atomic_add_fetch(&idx->refs, 1, __ATOMIC_RELAXED);
    return idx;
}

void kfs_blk_index_unref(struct kfs_blk_index *idx)
{
    if (!idx || __atomic_sub_fetch(&idx->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    explicit_bzero(idx->key, sizeof idx->key);
    free(idx);
}

int64_t kfs_blk_index_find(const struct kfs_blk_index *idx, uint64_t off)
{
    uint32_t lo = 0, hi = idx->count;
    if (off >= idx->plain_off[idx->count])
        return -1;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (idx->plain_off[mid] <= off)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* --- parsing ----------------------------------------------------------------------------------- */

int kfs_blk_damaged(const struct kfs_store *s, uint64_t object, const char *what,
                    struct kfs_err *err)
{
    char key[64];
    kfs_store_key(s, object, key);
    return KFS_FAIL(err, EIO, "object '%s' is damaged: %s; restore it in '%s' from a copy", key,
                    what, s->url);
}

/* What is wrong with the entries, or NULL. Invariants (2), (4), (6) of object.h. */
static const char *entries_fault(const struct kfs_object_entry *e, uint32_t count, bool sealed,
                                 uint64_t index_off)
{
    uint64_t at = sizeof(struct kfs_object_header);
    uint32_t tag = sealed ? KFS_TAG_BYTES : 0;
    for (uint32_t i = 0; i < count; i++, e++) {
        if (e->codec > KFS_CODEC_ZSTD || e->flags)
            return "a frame has an unknown codec";
        if (e->plain_len == 0 || e->plain_len > KFS_FRAME_BYTES || e->stored_len <= tag ||
            e->stored_len - tag > e->plain_len ||
            (e->codec == KFS_CODEC_PLAIN && e->stored_len - tag != e->plain_len))
            return "a frame has an impossible length";
        if (e->off != at)
            return "its frames do not lie back to back";
        at += e->stored_len;
    }
    return at == index_off ? NULL : "its frames do not end where its index starts";
}

static void volume_text(const struct kfs_store *s, char ret[KFS_VOLUME_ID_MAX + 1])
{
    memset(ret, 0, KFS_VOLUME_ID_MAX + 1);
    memcpy(ret, s->volume, strlen(s->volume));
}

static const char *names_fault(const struct kfs_store *s, uint64_t object, const char *volume,
                               uint64_t id)
{
    char want[KFS_VOLUME_ID_MAX + 1];
    volume_text(s, want);
    if (memcmp(volume, want, sizeof want) != 0)
        return "it belongs to another volume";
    return id == object ? NULL : "it carries the id of another object";
}

/* Version 1: no place but the header says how many frames there are and whose they are, so the
 * whole of a small object, or header and tail of a large one, are needed. Its objects are at most
 * 64 frames: the tail guess always holds index and trailer. */
static int parse1(const struct kfs_store *s, uint64_t object, const struct kfs_object_header *h,
                  const unsigned char *tail, size_t tail_len, uint64_t object_bytes,
                  struct kfs_blk_index **ret, struct kfs_err *err)
{
    struct kfs_object1_trailer t;
    uint32_t count = h->flags;
    memcpy(&t, tail + tail_len - sizeof t, sizeof t);
    if (memcmp(h->magic, KFS_OBJECT_MAGIC, sizeof h->magic) != 0 || h->version != 1)
        return kfs_blk_damaged(s, object, "it does not start as an object", err);
    const char *fault = names_fault(s, object, h->volume, h->object);
    if (fault)
        return kfs_blk_damaged(s, object, fault, err);
    if (count == 0 || count > KFS_OBJECT1_FRAMES_MAX)
        return kfs_blk_damaged(s, object, "it has an impossible number of frames", err);
    size_t index_len = count * sizeof(struct kfs_object1_entry);
    if (t.index_len != index_len || object_bytes < sizeof *h + index_len + sizeof t ||
        t.index_off != object_bytes - sizeof t - index_len || tail_len < index_len + sizeof t)
        return kfs_blk_damaged(s, object, "its index does not lie where its size says", err);
    const unsigned char *entries = tail + tail_len - sizeof t - index_len;
    uint8_t hash[KFS_HASH_BYTES];
    kfs_blk_hash_pieces((struct kfs_blk_piece[]){{h, sizeof *h}, {entries, index_len}}, 2, hash);
    if (memcmp(hash, t.hash, sizeof hash) != 0)
        return kfs_blk_damaged(s, object, "the checksum of its index differs", err);
    struct kfs_blk_index *idx = kfs_blk_index_new(object, count);
    if (!idx)
        return KFS_FAIL(err, ENOMEM, "cannot read an object: out of memory");
    for (uint32_t i = 0; i < count; i++) {
        struct kfs_object1_entry e;
        memcpy(&e, entries + i * sizeof e, sizeof e);
        idx->entries[i] = (struct kfs_object_entry){.off = e.off,
                                                    .stored_len = e.stored_len,
                                                    .plain_len = e.plain_len,
                                                    .codec = e.codec,
                                                    .flags = e.reserved};
        memcpy(idx->entries[i].hash, e.hash, sizeof e.hash);
        if (i + 1 < count && e.plain_len != KFS_FRAME_BYTES)
            fault = "a frame has an impossible length";
        if (e.codec != KFS_CODEC_PLAIN)
            fault = "a frame has an unknown codec";
    }
    if (!fault)
        fault = entries_fault(idx->entries, count, false, t.index_off);
    if (fault) {
        kfs_blk_index_unref(idx);
        return kfs_blk_damaged(s, object, fault, err);
    }
    idx->object_bytes = object_bytes;
    kfs_blk_index_sum(idx);
    *ret = idx;
    return 0;
}

/* Entries from their stored form. */
static int entries_open(const struct kfs_store *s, struct kfs_blk_index *idx,
                        const struct kfs_object_trailer *t, const unsigned char *stored,
                        struct kfs_err *err)
{
    size_t len = idx->count * sizeof idx->entries[0];
    if (!(t->flags & KFS_OBJECT_SEALED)) {
        memcpy(idx->entries, stored, len);
        return 0;
    }
    char key[64];
    kfs_store_key(s, idx->object, key);
    const uint8_t *data_key = kfs_keyring_find(s->keys, t->key_id);
    if (!data_key)
        return KFS_FAIL(err, ENOKEY,
                        "object '%s' is encrypted with key %u, which is not known; give the "
                        "volume's secret with --key-file",
                        key, t->key_id);
    idx->sealed = true;
    if (kfs_blk_object_key(data_key, t->salt, idx->object, t->volume, idx->key) < 0 ||
        kfs_blk_unseal(idx->key, KFS_SEAL_INDEX, t, offsetof(struct kfs_object_trailer, hash),
                       stored, len + KFS_TAG_BYTES, idx->entries) < 0)
        return kfs_blk_damaged(s, idx->object, "its index cannot be decrypted", err);
    return 0;
}

/* What is wrong with a trailer, or NULL. */
static const char *trailer_fault(const struct kfs_store *s, uint64_t object,
                                 const struct kfs_object_trailer *t, uint64_t object_bytes)
{
    const char *fault = names_fault(s, object, t->volume, t->object);
    if (fault)
        return fault;
    if ((t->flags & ~KFS_OBJECT_SEALED) || t->reserved)
        return "it has features that this version does not know";
    if (t->frame_count == 0 || t->frame_count > KFS_OBJECT_FRAMES_MAX)
        return "it has an impossible number of frames";
    uint64_t index_len = t->frame_count * sizeof(struct kfs_object_entry) +
                         (t->flags & KFS_OBJECT_SEALED ? KFS_TAG_BYTES : 0);
    if (t->index_len != index_len ||
        object_bytes < sizeof(struct kfs_object_header) + index_len + sizeof *t ||
        t->index_off != object_bytes - sizeof *t - index_len)
        return "its index does not lie where its size says";
    return NULL;
}

static int parse2(const struct kfs_store *s, uint64_t object, const unsigned char *tail,
                  size_t tail_len, uint64_t object_bytes, size_t *ret_need,
                  struct kfs_blk_index **ret, struct kfs_err *err)
{
    struct kfs_object_trailer t;
    if (tail_len < sizeof t)
        return kfs_blk_damaged(s, object, "it is too short", err);
    memcpy(&t, tail + tail_len - sizeof t, sizeof t);
    const char *fault = trailer_fault(s, object, &t, object_bytes);
    if (fault)
        return kfs_blk_damaged(s, object, fault, err);
    size_t index_len = (size_t)t.index_len;
    if (tail_len < index_len + sizeof t) {
        *ret_need = index_len + sizeof t;
        return 1;
    }
    struct kfs_object_header h = {
        .version = KFS_OBJECT_VERSION, .flags = t.flags, .object = object};
    memcpy(h.magic, KFS_OBJECT_MAGIC, sizeof h.magic);
    volume_text(s, h.volume);
    if (tail_len == object_bytes && memcmp(tail, &h, sizeof h) != 0)
        return kfs_blk_damaged(s, object, "it does not start as an object", err);
    const unsigned char *stored = tail + tail_len - sizeof t - index_len;
    uint8_t hash[KFS_HASH_BYTES];
    kfs_blk_hash_pieces(
        (struct kfs_blk_piece[]){{&h, sizeof h},
                                 {stored, index_len},
                                 {&t, offsetof(struct kfs_object_trailer, hash)}},
        3, hash);
    if (memcmp(hash, t.hash, sizeof hash) != 0)
        return kfs_blk_damaged(s, object, "the checksum of its index differs", err);
    struct kfs_blk_index *idx = kfs_blk_index_new(object, t.frame_count);
    if (!idx)
        return KFS_FAIL(err, ENOMEM, "cannot read an object: out of memory");
    int rc = entries_open(s, idx, &t, stored, err);
    if (rc == 0) {
        fault = entries_fault(idx->entries, idx->count, idx->sealed, t.index_off);
        rc = fault ? kfs_blk_damaged(s, object, fault, err) : 0;
    }
    if (rc < 0) {
        kfs_blk_index_unref(idx);
        return rc;
    }
    idx->object_bytes = object_bytes;
    kfs_blk_index_sum(idx);
    *ret = idx;
    return 0;
}

int kfs_blk_index_parse(const struct kfs_store *s, uint64_t object, const void *tail,
                        size_t tail_len, uint64_t object_bytes, size_t *ret_need,
                        struct kfs_blk_index **ret, struct kfs_err *err)
{
    const unsigned char *p = tail;
    struct kfs_object_header h;
    if (tail_len > object_bytes || tail_len < KFS_OBJECT_BYTES_MIN - 112)
        return kfs_blk_damaged(s, object, "it is too short", err);
    if (memcmp(p + tail_len - 8, KFS_OBJECT_END_MAGIC, 8) == 0)
        return parse2(s, object, p, tail_len, object_bytes, ret_need, ret, err);
    if (memcmp(p + tail_len - 8, KFS_OBJECT1_END_MAGIC, 8) != 0)
        return kfs_blk_damaged(s, object, "it does not end as an object (truncated?)", err);
    if (tail_len < object_bytes) {
        *ret_need = (size_t)object_bytes; /* the header is needed: at most some 64 MiB */
        return object_bytes <= (KFS_OBJECT1_FRAMES_MAX + 1) * (uint64_t)KFS_FRAME_BYTES
                   ? 1
                   : kfs_blk_damaged(s, object, "it is too long", err);
    }
    memcpy(&h, p, sizeof h);
    return parse1(s, object, &h, p, tail_len, object_bytes, ret, err);
}

/* Version 1 by two reads: of a large object only header and tail, put together. */
static int load1(struct kfs_store *s, uint64_t object, const unsigned char *tail, size_t tail_len,
                 uint64_t object_bytes, struct kfs_blk_index **ret, struct kfs_err *err)
{
    struct kfs_object_header h;
    int rc = kfs_blk_object_get(s, object, 0, &h, sizeof h, NULL, NULL, err);
    return rc < 0 ? rc : parse1(s, object, &h, tail, tail_len, object_bytes, ret, err);
}

static int load(struct kfs_store *s, uint64_t object, struct kfs_blk_index **ret,
                struct kfs_err *err)
{
    size_t got = 0, need = 0;
    uint64_t bytes = 0;
    kfs_auto_free unsigned char *tail = malloc(KFS_OBJECT_TAIL_GUESS);
    if (!tail)
        return KFS_FAIL(err, ENOMEM, "cannot read an object: out of memory");
    int rc = kfs_blk_object_get(s, object, KFS_DRV_TAIL, tail, KFS_OBJECT_TAIL_GUESS, &got, &bytes,
                                err);
    if (rc < 0)
        return rc;
    rc = kfs_blk_index_parse(s, object, tail, got, bytes, &need, ret, err);
    if (rc != 1)
        return rc;
    if (memcmp(tail + got - 8, KFS_OBJECT1_END_MAGIC, 8) == 0)
        return load1(s, object, tail, got, bytes, ret, err);
    free(tail);
    tail = malloc(need);
    if (!tail)
        return KFS_FAIL(err, ENOMEM, "cannot read an object: out of memory");
    rc = kfs_blk_object_get(s, object, KFS_DRV_TAIL, tail, need, &got, &bytes, err);
    if (rc == 0)
        rc = kfs_blk_index_parse(s, object, tail, got, bytes, &need, ret, err);
    return rc == 1 ? kfs_blk_damaged(s, object, "it changed while it was read", err) : rc;
}

int kfs_blk_index_get(struct kfs_store *s, uint64_t object, struct kfs_blk_index **ret,
                      struct kfs_err *err)
{
    *ret = kfs_blk_index_cache_get(&s->index, object);
    if (*ret)
        return 0;
    int rc = load(s, object, ret, err);
    if (rc == 0)
        kfs_blk_index_cache_put(&s->index, *ret);
    return rc;
}

/* --- frames ------------------------------------------------------------------------------------ */

static int frame_fault(const struct kfs_store *s, const struct kfs_blk_index *idx, uint32_t i,
                       const char *what, struct kfs_err *err)
{
    char key[64];
    kfs_store_key(s, idx->object, key);
    return KFS_FAIL(err, EIO, "object '%s' is damaged: frame %u %s; restore it in '%s' from a copy",
                    key, i, what, s->url);
}

int kfs_blk_frame_decode(const struct kfs_store *s, const struct kfs_blk_index *idx, uint32_t i,
                         const void *stored, void *plain, struct kfs_err *err)
{
    const struct kfs_object_entry *e = &idx->entries[i];
    kfs_auto_free void *opened = NULL;
    size_t len = e->stored_len;
    if (idx->sealed) {
        len -= KFS_TAG_BYTES;
        void *to = plain;
        if (e->codec != KFS_CODEC_PLAIN && !(to = opened = malloc(len)))
            return KFS_FAIL(err, ENOMEM, "cannot read an object: out of memory");
        if (kfs_blk_unseal(idx->key, i, NULL, 0, stored, e->stored_len, to) < 0)
            return frame_fault(s, idx, i, "cannot be decrypted", err);
        stored = to;
    }
    if (e->codec == KFS_CODEC_ZSTD) {
        int rc = kfs_blk_decompress(stored, len, plain, e->plain_len);
        if (rc == -ENOMEM)
            return KFS_FAIL(err, ENOMEM, "cannot read an object: out of memory");
        if (rc < 0)
            return frame_fault(s, idx, i, "cannot be decompressed", err);
    } else if (stored != plain) {
        memcpy(plain, stored, e->plain_len);
    }
    uint8_t hash[KFS_HASH_BYTES];
    kfs_blk_hash(plain, e->plain_len, hash);
    if (memcmp(hash, e->hash, sizeof hash) != 0)
        return frame_fault(s, idx, i, "fails its checksum", err);
    return 0;
}

/* --- remembering ------------------------------------------------------------------------------ */

static size_t index_bytes(const struct kfs_blk_index *idx)
{
    return sizeof *idx + idx->count * (sizeof idx->entries[0] + sizeof *idx->plain_off);
}

void kfs_blk_index_cache_init(struct kfs_blk_index_cache *c)
{
    pthread_mutex_init(&c->lock, NULL);
}

static void slot_clear_locked(struct kfs_blk_index_cache *c, struct kfs_blk_index_slot *slot)
{
    if (slot->idx)
        c->bytes -= index_bytes(slot->idx);
    kfs_blk_index_unref(slot->idx);
    *slot = (struct kfs_blk_index_slot){0};
}

void kfs_blk_index_cache_clear(struct kfs_blk_index_cache *c)
{
    for (size_t i = 0; i < KFS_BLK_INDEX_SETS; i++)
        for (size_t k = 0; k < KFS_BLK_INDEX_WAYS; k++)
            slot_clear_locked(c, &c->slots[i][k]);
    pthread_mutex_destroy(&c->lock);
}

static struct kfs_blk_index_slot *find_locked(struct kfs_blk_index_cache *c, uint64_t object,
                                              bool or_oldest)
{
    struct kfs_blk_index_slot *set = c->slots[kfs_hash_u64(object) % KFS_BLK_INDEX_SETS],
                              *oldest = set;
    for (size_t k = 0; k < KFS_BLK_INDEX_WAYS; k++) {
        if (set[k].idx && set[k].idx->object == object)
            return &set[k];
        if (set[k].used < oldest->used)
            oldest = &set[k];
    }
    return or_oldest ? oldest : NULL;
}

struct kfs_blk_index *kfs_blk_index_cache_get(struct kfs_blk_index_cache *c, uint64_t object)
{
    struct kfs_blk_index *idx = NULL;
    pthread_mutex_lock(&c->lock);
    struct kfs_blk_index_slot *slot = find_locked(c, object, false);
    if (slot) {
        slot->used = ++c->tick;
        idx = kfs_blk_index_ref(slot->idx);
    }
    pthread_mutex_unlock(&c->lock);
    return idx;
}

/* The hand goes round over the slots: what was not looked at for a whole round of looks goes. */
static void shrink_locked(struct kfs_blk_index_cache *c)
{
    const size_t all = KFS_BLK_INDEX_SETS * KFS_BLK_INDEX_WAYS;
    for (size_t steps = 0; c->bytes > KFS_BLK_INDEX_BYTES_MAX && steps < 2 * all; steps++) {
        c->hand = (c->hand + 1) % all;
        struct kfs_blk_index_slot *slot =
            &c->slots[c->hand / KFS_BLK_INDEX_WAYS][c->hand % KFS_BLK_INDEX_WAYS];
        if (slot->idx && (steps >= all || slot->used + 64 < c->tick))
            slot_clear_locked(c, slot);
    }
}

void kfs_blk_index_cache_put(struct kfs_blk_index_cache *c, struct kfs_blk_index *idx)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_blk_index_slot *slot = find_locked(c, idx->object, true);
    slot_clear_locked(c, slot);
    c->bytes += index_bytes(idx);
    *slot = (struct kfs_blk_index_slot){.idx = kfs_blk_index_ref(idx), .used = ++c->tick};
    shrink_locked(c);
    pthread_mutex_unlock(&c->lock);
}

void kfs_blk_index_cache_drop(struct kfs_blk_index_cache *c, uint64_t object)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_blk_index_slot *slot = find_locked(c, object, false);
    if (slot)
        slot_clear_locked(c, slot);
    pthread_mutex_unlock(&c->lock);
}
