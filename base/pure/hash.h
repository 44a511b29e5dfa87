/* base/pure/hash.h — the one hash for names and inode numbers
 *
 * What     A 64-bit non-cryptographic hash of a byte string with a seed, and a mixer for integers.
 * Model    Multiply-and-fold over 8-byte words. Values are only compared inside one node's memory, never stored.
 * Absent   Resistance to chosen collisions: a table that uses it must stay right (if slow) under any collision.
 */
#ifndef KFS_BASE_PURE_HASH_H
#define KFS_BASE_PURE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t kfs_hash_fold(uint64_t a, uint64_t b)
{
    __uint128_t p = (__uint128_t)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static inline uint64_t kfs_hash_u64(uint64_t x)
{
    return kfs_hash_fold(x ^ 0x9e3779b97f4a7c15ULL, 0xe7037ed1a0b428dbULL);
}

static inline uint64_t kfs_hash(const void *data, size_t len, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t h = seed ^ 0xa0761d6478bd642fULL ^ len;
    while (len >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = kfs_hash_fold(h ^ w, 0xe7037ed1a0b428dbULL);
        p += 8;
        len -= 8;
    }
    uint64_t w = 0;
    for (size_t i = 0; i < len; i++)
        w |= (uint64_t)p[i] << (8 * i);
    return kfs_hash_fold(h ^ w, 0x8ebc6af09c88c6e3ULL);
}

#endif
