/* tests/fuzz/fuzz_object.c — any bytes as an object of the store: refused, or its frames are read within their bounds
 *
 * Input    One byte: bit 0 the checksums of the index are made right, bit 1 the magics, ids and the place of the index too. Then the object.
 */
#include "tests/fuzz/scratch.h"
#include "blockstore/store.h"
#include <errno.h>
#include <fcntl.h>

#define VOLUME "0b5a9d7e-3c1f-4f64-9d0e-5a7a3c9b1e42"
#define OBJECT 7u

static struct kfs_store *store;

static void set_up(void)
{
    char url[300], key[64];
    struct kfs_err err = {0};
    if (store)
        return;
    snprintf(url, sizeof url, "file:%s/store", scratch());
    MUST(kfs_store_format(url, VOLUME, &err) == 0);
    MUST(kfs_store_open(url, VOLUME, &store, &err) == 0);
    kfs_store_key(store, OBJECT, key);
    key[2] = 0;
    (void)mkdirat(store->o_fd, key, 0700);
    key[2] = '/';
    int fd = openat(store->o_fd, key, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    MUST(fd >= 0);
    close(fd);
}

static int object_open(int flags)
{
    char key[64];
    kfs_store_key(store, OBJECT, key);
    int fd = openat(store->o_fd, key, flags | O_CLOEXEC);
    MUST(fd >= 0);
    return fd;
}

static void repair(uint8_t *b, size_t n, uint8_t how)
{
    struct kfs_object_header h;
    struct kfs_object_trailer t;
    if (n < KFS_OBJECT_BYTES_MIN)
        return;
    memcpy(&h, b, sizeof h);
    memcpy(&t, b + n - sizeof t, sizeof t);
    if (how & 2) {
        memcpy(h.magic, KFS_OBJECT_MAGIC, sizeof h.magic);
        memcpy(t.magic, KFS_OBJECT_END_MAGIC, sizeof t.magic);
        memset(h.volume, 0, sizeof h.volume);
        memcpy(h.volume, VOLUME, strlen(VOLUME));
        h.version = KFS_OBJECT_VERSION;
        h.object = OBJECT;
        h.frame_count = 1 + h.frame_count % 4;
        t.index_len = h.frame_count * sizeof(struct kfs_object_entry);
        if (n < sizeof h + t.index_len + sizeof t)
            return;
        t.index_off = n - sizeof t - t.index_len;
    }
    if ((how & 1) && t.index_off <= n && t.index_len <= n - t.index_off)
        kfs_blk_hash2(&h, sizeof h, b + t.index_off, t.index_len, t.hash);
    memcpy(b, &h, sizeof h);
    memcpy(b + n - sizeof t, &t, sizeof t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t frame[KFS_FRAME_BYTES];
    static struct kfs_blk_index idx;
    set_up();
    if (size < 1 || size > (1 << 20))
        return 0;
    uint8_t *b = malloc(size);
    if (!b)
        return 0;
    memcpy(b, data + 1, size - 1);
    repair(b, size - 1, data[0]);
    int fd = object_open(O_RDWR | O_TRUNC);
    MUST(kfs_blk_pwrite_all(fd, b, size - 1, 0) == 0);
    struct kfs_err err = {0};
    int r = kfs_blk_index_load(store, OBJECT, fd, &idx, &err);
    MUST(r == 0 || (r == -EIO && err.msg[0]));
    close(fd);
    struct kfs_blk_reader reader = {.s = store, .fd = -1};
    if (r == 0) {
        reader.object = OBJECT;
        reader.fd = object_open(O_RDONLY);
        reader.index = idx;
        for (uint32_t i = 0; i < idx.count && i < 8; i++)
            (void)kfs_blk_reader_frame(&reader, i, frame, &err);
        close(reader.fd);
    }
    err = (struct kfs_err){0};
    (void)kfs_store_verify(store, OBJECT, &err);
    kfs_blk_index_cache_drop(&store->index, OBJECT);
    free(b);
    return 0;
}
