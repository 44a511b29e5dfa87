/* blockstore/keys.h — the data keys of an encrypted volume, and the secrets that unlock them
 *
 * What     A volume has data keys (32 random bytes each, ids 1, 2, …; the highest is used for new objects). They are encrypted by the volume's master key,
 *          and that once for each slot by a secret: a passphrase (scrypt) or the public part of an RSA key (OAEP with SHA-256). Whoever has one of
 *          the secrets can open the record. Rotation adds a data key; the objects stay as they are.
 * Format   The record is text, one item a line (docs/format.md). It lies in the metadata's settings under "keys" and, as a copy for whoever has lost the
 *          metadata, in the store under the key "kfs-keys".
 * Secret   Bytes of a file: a PEM text is an RSA key (the private part to open, either part to add a slot); anything else is a passphrase,
 *          without the line break at its end.
 * Threads  A keyring is constant. Blocks: scrypt takes some 100 ms.
 * Errors   -errno + err, never with a secret in it. -EKEYREJECTED: no slot opens with this secret. -EINVAL: bad record.
 */
#ifndef KFS_BLOCKSTORE_KEYS_H
#define KFS_BLOCKSTORE_KEYS_H

#include "base/buf.h"
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

struct kfs_keyring;

#define KFS_KEYS_SETTING  "keys"
#define KFS_KEYS_KEY      "kfs-keys"
#define KFS_KEYS_TEXT_MAX 65536

struct kfs_secret {
    const char *data;
    size_t len;
};

/* A record for a new volume: one data key, one slot. ret: initialised, empty. */
int kfs_keys_create(const char *volume_id, const struct kfs_secret *secret, struct kfs_buf *ret, struct kfs_err *err);
int kfs_keys_open(const char *volume_id, const char *record, const struct kfs_secret *secret, struct kfs_keyring **ret, struct kfs_err *err);
void kfs_keyring_free(struct kfs_keyring *k); /* NULL is fine */
/* KFS_KEY_BYTES bytes, or NULL: no such key. k NULL: none. */
const uint8_t *kfs_keyring_find(const struct kfs_keyring *k, uint32_t id);
uint32_t kfs_keyring_current(const struct kfs_keyring *k);

/* Changes: from record to ret (initialised, empty). opener: one of the secrets there are. */
int kfs_keys_add_slot(const char *volume_id, const char *record, const struct kfs_secret *opener, const struct kfs_secret *secret, struct kfs_buf *ret,
                      struct kfs_err *err);
/* -EBUSY: it is the last one. */
int kfs_keys_remove_slot(const char *volume_id, const char *record, uint32_t slot, struct kfs_buf *ret, struct kfs_err *err);
int kfs_keys_rotate(const char *volume_id, const char *record, const struct kfs_secret *opener, struct kfs_buf *ret, struct kfs_err *err);
/* Each slot: its number and what it is ("scrypt", "rsa FINGERPRINT"), then each data key (slot 0, "key ID"). */
typedef void (*kfs_keys_each_cb)(void *arg, uint32_t slot, const char *what);
int kfs_keys_each(const char *volume_id, const char *record, kfs_keys_each_cb cb, void *arg, struct kfs_err *err);

#endif
