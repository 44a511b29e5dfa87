#include "base/map.h"

#include "base/pure/hash.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void kfs_map_init(struct kfs_map *m)
{
    memset(m, 0, sizeof *m);
}

void kfs_map_release(struct kfs_map *m)
{
    if (!m)
        return;
    free(m->slots);
    kfs_map_init(m);
}

/* The slot of key, or the empty one where it would go. There is always an empty one. */
static size_t find(const struct kfs_map *m, uint64_t key)
{
    size_t i = (size_t)kfs_hash_u64(key) & (m->cap - 1);
    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

void *kfs_map_get(const struct kfs_map *m, uint64_t key)
{
    return m->cap ? m->slots[find(m, key)].value : NULL;
}

static int grow(struct kfs_map *m)
{
    struct kfs_map bigger = {.cap = m->cap ? m->cap * 2 : 16, .count = m->count};
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].value)
            bigger.slots[find(&bigger, m->slots[i].key)] = m->slots[i];
    free(m->slots);
    *m = bigger;
    return 0;
}

int kfs_map_put(struct kfs_map *m, uint64_t key, void *value, void **ret_old)
{
    assert(value);
    if ((m->count + 1) * 4 > m->cap * 3) {
        int rc = grow(m);
        if (rc < 0)
            return rc;
    }
    size_t i = find(m, key);
    void *old = m->slots[i].value;
    if (!old)
        m->count++;
    m->slots[i] = (struct kfs_map_slot){key, value};
    if (ret_old)
        *ret_old = old;
    return 0;
}

void *kfs_map_remove(struct kfs_map *m, uint64_t key)
{
    if (!m->cap)
        return NULL;
    size_t mask = m->cap - 1, hole = find(m, key);
    void *old = m->slots[hole].value;
    if (!old)
        return NULL;
    /* Close the gap: move back every follower whose home does not lie behind the hole. */
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = (size_t)kfs_hash_u64(m->slots[i].key) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct kfs_map_slot){0, NULL};
    m->count--;
    return old;
}

void *kfs_map_next(const struct kfs_map *m, size_t *cursor, uint64_t *ret_key)
{
    while (*cursor < m->cap) {
        const struct kfs_map_slot *s = &m->slots[(*cursor)++];
        if (s->value) {
            if (ret_key)
                *ret_key = s->key;
            return s->value;
        }
    }
    return NULL;
}
