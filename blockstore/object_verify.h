/* blockstore/object_verify.h — one object alone: is every byte of it what it should be?
 *
 * What     For whoever has a file of a store, or a copy of an object from a bucket, and nothing else. The volume and the object id are taken from the object
 *          itself. A sealed object needs the volume's keys.
 * Errors   -EIO: damaged, and err says where. -ENOKEY: sealed, and no key fits. -errno of reading the file.
 */
#ifndef KFS_BLOCKSTORE_OBJECT_VERIFY_H
#define KFS_BLOCKSTORE_OBJECT_VERIFY_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kfs_keyring;

struct kfs_object_report {
    char volume[40];
    char key[64]; /* where it lies in its store, below "o/" */
    uint64_t object, bytes, plain_bytes, zstd_frames, owners;
    uint32_t version, frames, key_id;
};

/* What the object says of itself, without a check beyond the lengths: whose it is, and with which key it is sealed (key_id 0: not). */
int kfs_object_peek(const char *path, struct kfs_object_report *ret, struct kfs_err *err);
/* Read and check all of it. keys: NULL if there are none. */
int kfs_object_verify(const char *path, struct kfs_keyring *keys, struct kfs_object_report *ret, struct kfs_err *err);
/* Frame by frame: what the index says. Called after all of it was checked. */
typedef void (*kfs_object_frame_cb)(void *arg, uint32_t frame, uint64_t ino, uint64_t file_off, uint32_t plain_len, uint32_t stored_len, bool zstd);
int kfs_object_each_frame(const char *path, struct kfs_keyring *keys, kfs_object_frame_cb cb, void *arg, struct kfs_err *err);

#endif
