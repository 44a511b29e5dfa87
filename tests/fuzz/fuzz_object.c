/* tests/fuzz/fuzz_object.c — any bytes as an object of the store: refused, or its frames are read within their bounds
 *
 * Input    One byte: bit 0 the checksums of the index are made right, bit 1 the magics, ids and the place of the index too; bit 2 as version 2,
 *          else 1; bit 3 it is also stored and verified from there. Then the object.
 */
#include "tests/fuzz/scratch.h"
#include "blockstore/store.h"
#include <errno.h>

#define VOLUME "0b5a9d7e-3c1f-4f64-9d0e-5a7a3c9b1e42"
#define OBJECT 7u

static struct kfs_store *store;

static void set_up(void)
{
    char url[300];
    struct kfs_err err = {0};
    if (store)
        return;
    snprintf(url, sizeof url, "file:%s/store", scratch());
    MUST(kfs_store_format(url, VOLUME, &err) == 0);
    MUST(kfs_store_open(url, VOLUME, &store, &err) == 0);
}

static void repair1(uint8_t *b, size_t n, uint8_t how, struct kfs_object_header *h)
{
    struct kfs_object1_trailer t;
    memcpy(&t, b + n - sizeof t, sizeof t);
    if (how & 2) {
        memcpy(t.magic, KFS_OBJECT1_END_MAGIC, sizeof t.magic);
        h->version = 1;
        h->flags = 1 + h->flags % 4;
        t.index_len = h->flags * sizeof(struct kfs_object1_entry);
        if (n < sizeof *h + t.index_len + sizeof t)
            return;
        t.index_off = n - sizeof t - t.index_len;
    }
    if ((how & 1) && t.index_off <= n && t.index_len <= n - t.index_off)
        kfs_blk_hash_pieces((struct kfs_blk_piece[]){{h, sizeof *h}, {b + t.index_off, t.index_len}}, 2, t.hash);
    memcpy(b + n - sizeof t, &t, sizeof t);
}

static void repair2(uint8_t *b, size_t n, uint8_t how, struct kfs_object_header *h)
{
    struct kfs_object_trailer t;
    if (n < sizeof *h + sizeof t)
        return;
    memcpy(&t, b + n - sizeof t, sizeof t);
    if (how & 2) {
        memcpy(t.magic, KFS_OBJECT_END_MAGIC, sizeof t.magic);
        memcpy(t.volume, h->volume, sizeof t.volume);
        t.object = OBJECT;
        t.flags = 0;
        t.reserved = 0;
        t.frame_count = 1 + t.frame_count % 4;
        t.index_len = t.frame_count * sizeof(struct kfs_object_entry);
        if (n < sizeof *h + t.index_len + sizeof t)
            return;
        t.index_off = n - sizeof t - t.index_len;
        h->version = KFS_OBJECT_VERSION;
        h->flags = 0;
    }
    if ((how & 1) && t.index_off <= n && t.index_len <= n - t.index_off)
        kfs_blk_hash_pieces(
            (struct kfs_blk_piece[]){{h, sizeof *h}, {b + t.index_off, t.index_len}, {&t, offsetof(struct kfs_object_trailer, hash)}}, 3, t.hash);
    memcpy(b + n - sizeof t, &t, sizeof t);
}

static void repair(uint8_t *b, size_t n, uint8_t how)
{
    struct kfs_object_header h;
    if (n < KFS_OBJECT_BYTES_MIN - 112)
        return;
    memcpy(&h, b, sizeof h);
    if (how & 2) {
        memcpy(h.magic, KFS_OBJECT_MAGIC, sizeof h.magic);
        memset(h.volume, 0, sizeof h.volume);
        memcpy(h.volume, VOLUME, strlen(VOLUME));
        h.object = OBJECT;
    }
    if (how & 4)
        repair2(b, n, how, &h);
    else
        repair1(b, n, how, &h);
    memcpy(b, &h, sizeof h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t frame[KFS_FRAME_BYTES];
    set_up();
    if (size < 1 || size > (1 << 20))
        return 0;
    size_t len = size - 1, need = 0;
    uint8_t *b = malloc(size);
    if (!b)
        return 0;
    memcpy(b, data + 1, len);
    repair(b, len, data[0]);
    struct kfs_err err = {0};
    struct kfs_blk_index *idx = NULL;
    /* The whole object, then only its tail, as a reader of a large one gets it. */
    int r = kfs_blk_index_parse(store, OBJECT, b, len, len, &need, &idx, &err);
    MUST(r == 0 || (r == -EIO && err.msg[0]));
    for (uint32_t i = 0; r == 0 && i < idx->count && i < 8; i++) {
        MUST(idx->entries[i].off <= len && idx->entries[i].stored_len <= len - idx->entries[i].off);
        (void)kfs_blk_frame_decode(store, idx, i, b + idx->entries[i].off, frame, &err);
    }
    kfs_blk_index_unref(idx);
    size_t tail = len / 2;
    idx = NULL;
    err = (struct kfs_err){0};
    r = kfs_blk_index_parse(store, OBJECT, b + len - tail, tail, len, &need, &idx, &err);
    MUST(r == 0 || (r == 1 && need > tail && need <= len) || (r == -EIO && err.msg[0]));
    kfs_blk_index_unref(idx);
    if (data[0] & 8) {
        char key[KFS_DRV_KEY_MAX];
        kfs_blk_key(store, OBJECT, key);
        MUST(kfs_drv_put(store->drv, key, b, len, 0, &err) == 0);
        err = (struct kfs_err){0};
        r = kfs_store_verify(store, OBJECT, &err);
        MUST(r == 0 || (r == -EIO && err.msg[0]));
    }
    free(b);
    return 0;
}
