/* preload/mempool.h — fixed-size slots from mapped memory
 *
 * What     Memory for things that outlive a call (directory streams), without the application's malloc.
 * Model    Chunks of KFS_POOL_SLOTS slots, mapped when needed, never unmapped: a slot's address tells for ever that it is one. Pages that nobody
 *          touched cost nothing. A free slot keeps its old bytes.
 * Threads  Lock-free: one bit a slot, taken and given back by atomic operations.
 * Signal   Async-signal-safe.
 * Fork     The child has its own copy. A vfork child may take and give back slots: the bits are the parent's, and consistent.
 */
#ifndef KFS_PRELOAD_MEMPOOL_H
#define KFS_PRELOAD_MEMPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KFS_POOL_SLOTS 128u
#define KFS_POOL_CHUNKS 64u

struct kfs_pool {
    size_t slot_bytes; /* constant; a multiple of 4096 */
    struct kfs_pool_chunk {
        void *base; /* NULL until mapped */
        uint64_t used[KFS_POOL_SLOTS / 64];
    } chunks[KFS_POOL_CHUNKS];
};

/* A slot, or NULL: no memory. */
void *kfs_pool_get(struct kfs_pool *p);
void kfs_pool_put(struct kfs_pool *p, void *slot);
/* Is this the start of a slot of the pool? */
bool kfs_pool_owns(const struct kfs_pool *p, const void *ptr);

#endif
