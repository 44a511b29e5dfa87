#include "preload/mempool.h"

#include "base/pure/sys.h"
#include <sys/mman.h>

static void *chunk_map(struct kfs_pool *p, struct kfs_pool_chunk *c)
{
    void *base = __atomic_load_n(&c->base, __ATOMIC_ACQUIRE);
    if (base)
        return base;
    size_t bytes = p->slot_bytes * KFS_POOL_SLOTS;
    long r = kfs_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r < 0 && r > -4096)
        return NULL;
    void *fresh = (void *)r;
    if (__atomic_compare_exchange_n(&c->base, &base, fresh, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return fresh;
    kfs_sys_munmap(fresh, bytes); /* another thread was faster */
    return base;
}

static void *chunk_get(struct kfs_pool *p, struct kfs_pool_chunk *c)
{
    char *base = chunk_map(p, c);
    if (!base)
        return NULL;
    for (size_t w = 0; w < KFS_POOL_SLOTS / 64; w++) {
        uint64_t used = __atomic_load_n(&c->used[w], __ATOMIC_RELAXED);
        while (~used) {
            unsigned bit = (unsigned)__builtin_ctzll(~used);
            if (__atomic_compare_exchange_n(&c->used[w], &used, used | (1ULL << bit), false,
                                            __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                return base + (w * 64 + bit) * p->slot_bytes;
        }
    }
    return NULL;
}

void *kfs_pool_get(struct kfs_pool *p)
{
    for (size_t i = 0; i < KFS_POOL_CHUNKS; i++) {
        void *slot = chunk_get(p, &p->chunks[i]);
        if (slot)
            return slot;
    }
    return NULL;
}

/* Chunk and slot number of ptr; false: not a slot. Chunks are mapped in order, so the first empty one ends the search. */
static bool find(const struct kfs_pool *p, const void *ptr, size_t *ret_chunk, size_t *ret_slot)
{
    for (size_t i = 0; i < KFS_POOL_CHUNKS; i++) {
        uintptr_t base = (uintptr_t)__atomic_load_n(&p->chunks[i].base, __ATOMIC_ACQUIRE);
        if (!base)
            return false;
        uintptr_t off = (uintptr_t)ptr - base;
        if (off >= p->slot_bytes * KFS_POOL_SLOTS)
            continue;
        *ret_chunk = i;
        *ret_slot = off / p->slot_bytes;
        return off % p->slot_bytes == 0;
    }
    return false;
}

void kfs_pool_put(struct kfs_pool *p, void *slot)
{
    size_t c, n;
    if (!slot || !find(p, slot, &c, &n))
        return;
    __atomic_fetch_and(&p->chunks[c].used[n / 64], ~(1ULL << (n % 64)), __ATOMIC_RELEASE);
}

bool kfs_pool_owns(const struct kfs_pool *p, const void *ptr)
{
    size_t c, n;
    return ptr && find(p, ptr, &c, &n);
}
