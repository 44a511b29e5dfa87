/* blockstore/frame.c — hashing, comparing and moving the bytes of frames */
#include "blockstore/store.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static void hash_store(XXH128_hash_t h, uint8_t ret_hash[KFS_HASH_BYTES])
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, h);
    static_assert(sizeof c.digest == KFS_HASH_BYTES, "canonical xxh3-128");
    memcpy(ret_hash, c.digest, KFS_HASH_BYTES);
}

void kfs_blk_hash(const void *data, size_t len, uint8_t ret_hash[KFS_HASH_BYTES])
{
    hash_store(XXH3_128bits(data, len), ret_hash);
}

void kfs_blk_hash_pieces(const struct kfs_blk_piece *v, size_t count,
                         uint8_t ret_hash[KFS_HASH_BYTES])
{
    XXH3_state_t st;
    XXH3_INITSTATE(&st);
    XXH3_128bits_reset(&st);
    for (size_t i = 0; i < count; i++)
        XXH3_128bits_update(&st, v[i].data, v[i].len);
    hash_store(XXH3_128bits_digest(&st), ret_hash);
}

bool kfs_blk_is_zero(const void *data, size_t len)
{
    const unsigned char *p = data;
    size_t head = len < 16 ? len : 16;
    for (size_t i = 0; i < head; i++)
        if (p[i])
            return false;
    /* The first 16 bytes are zero: the rest is if each byte equals the one 16 before it. */
    return len <= 16 || memcmp(p, p + 16, len - 16) == 0;
}

ssize_t kfs_blk_pread_most(int fd, void *buf, size_t len, uint64_t off)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int kfs_blk_pread_all(int fd, void *buf, size_t len, uint64_t off)
{
    ssize_t n = kfs_blk_pread_most(fd, buf, len, off);
    if (n < 0)
        return (int)n;
    return (size_t)n == len ? 0 : -ENODATA;
}

int kfs_blk_pwrite_all(int fd, const void *buf, size_t len, uint64_t off)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENOSPC; /* cannot happen for regular files; never loop on it */
        done += (size_t)n;
    }
    return 0;
}
