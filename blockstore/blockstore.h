/* blockstore/blockstore.h — bytes in objects: the contract of the store
 *
 * What     Immutable objects of checksummed frames in a directory (driver `file`; S3 is the same contract), the filling of a cache file from a
 *          file's content map, and the commit: comparing a cache file with what is stored and writing what differs.
 * Model    An object is written once under a key derived from the volume id and the object id, complete or not at all (temporary name, rename).
 *          Every frame read is verified (xxh3-128) before a byte of it is used. Format to the byte: blockstore/object.h.
 * Threads  Any thread. Blocks: yes.
 * Errors   -errno + err with the object's key. EIO: damaged or missing object. ENOSPC and EDQUOT of the store pass through.
 */
#ifndef KFS_BLOCKSTORE_BLOCKSTORE_H
#define KFS_BLOCKSTORE_BLOCKSTORE_H

#include "base/err.h"
#include "base/extent.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kfs_store;

/* Make an empty store for a volume: url "file:/absolute/dir" (created if missing). Writes the marker object that says whose it is.
 * -EEXIST: another volume's marker is there. */
int kfs_store_format(const char *url, const char *volume_id, struct kfs_err *err);
/* Open; checks the marker. Errors: store vanished (directory or marker missing), marker of another volume: what, where, cure. */
int kfs_store_open(const char *url, const char *volume_id, struct kfs_store **ret_s, struct kfs_err *err);
void kfs_store_close(struct kfs_store *s);
const char *kfs_store_url(const struct kfs_store *s);

/* Key of an object ("XX/hex…"), for messages and fsck. buf: 64 bytes. */
void kfs_store_key(const struct kfs_store *s, uint64_t object, char *buf);
int kfs_store_delete(struct kfs_store *s, uint64_t object, struct kfs_err *err); /* absent is fine */
/* Each object present; for finding left-overs. */
typedef int (*kfs_store_each_cb)(void *arg, uint64_t object, uint64_t bytes);
int kfs_store_each(struct kfs_store *s, kfs_store_each_cb cb, void *arg, struct kfs_err *err);
/* Make everything written so far survive a power cut. */
int kfs_store_sync(struct kfs_store *s, struct kfs_err *err);
int kfs_store_statfs(struct kfs_store *s, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes, struct kfs_err *err);
/* Read and check one whole object. */
int kfs_store_verify(struct kfs_store *s, uint64_t object, struct kfs_err *err);

/* Fill the empty file fd with c: ftruncate to size, holes stay holes, every frame verified. */
int kfs_store_fill(struct kfs_store *s, const struct kfs_content *c, int fd, struct kfs_err *err);

/* Compare the file fd with `old` (what is committed) and write what differs: see kfs_content_delta. The size is that of fd at the start.
 * New object ids come from `new_id`. On failure no object stays behind. durable: objects are fsync'ed before return.
 * A file whose non-hole content fits KFS_INLINE_MAX as a whole (size <= KFS_INLINE_MAX) goes inline. Frames of zeros become holes.
 * Frame hashes of old objects come from their indexes (cached); a damaged old index means "differs". */
typedef int (*kfs_store_new_id)(void *arg, uint64_t *ret_id, struct kfs_err *err);
int kfs_store_commit(struct kfs_store *s, int fd, const struct kfs_content *old, kfs_store_new_id new_id, void *arg, bool durable,
                     struct kfs_content_delta *ret_delta, struct kfs_err *err);

#endif
