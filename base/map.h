/* base/map.h — from a 64-bit number to a pointer
 *
 * What     A hash table with open addressing (linear probing, no tombstones), growing by doubling; at most 3/4 full.
 * Owner    The table is the map's; the pointers are the caller's and never NULL.
 * Threads  One at a time.
 * Errors   -ENOMEM from put; everything else cannot fail.
 */
#ifndef KFS_BASE_MAP_H
#define KFS_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct kfs_map_slot {
    uint64_t key;
    void *value; /* NULL: empty */
};
struct kfs_map {
    struct kfs_map_slot *slots;
    size_t cap; /* a power of two, or 0 */
    size_t count;
};

void kfs_map_init(struct kfs_map *m);
void kfs_map_release(struct kfs_map *m);
void *kfs_map_get(const struct kfs_map *m, uint64_t key); /* NULL: not there */
/* Set key to value (not NULL). *ret_old (may be NULL): what was there before, or NULL. */
int kfs_map_put(struct kfs_map *m, uint64_t key, void *value, void **ret_old);
void *kfs_map_remove(struct kfs_map *m, uint64_t key); /* what was there, or NULL */
/* Each entry once, in no order: start with *cursor 0; the value, or NULL at the end. No put or remove in between. */
void *kfs_map_next(const struct kfs_map *m, size_t *cursor, uint64_t *ret_key);

#endif
