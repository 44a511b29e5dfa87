/* blockstore/keys.c — data keys and what unlocks them (docs/format.md has the record) */
#include "blockstore/keys.h"
#include "blockstore/object.h"
#include <stdlib.h>
#include <string.h>

struct kfs_keyring {
    uint32_t count; /* ids 1 to count */
    uint8_t (*keys)[KFS_KEY_BYTES];
};

const uint8_t *kfs_keyring_find(const struct kfs_keyring *k, uint32_t id)
{
    return k && id >= 1 && id <= k->count ? k->keys[id - 1] : NULL;
}

uint32_t kfs_keyring_current(const struct kfs_keyring *k)
{
    return k->count;
}

void kfs_keyring_free(struct kfs_keyring *k)
{
    if (!k)
        return;
    explicit_bzero(k->keys, k->count * sizeof *k->keys);
    free(k->keys);
    free(k);
}
