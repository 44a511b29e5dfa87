/* blockstore/blockstore.h — bytes in objects: the contract of the store
 *
 * What     Immutable objects of checksummed frames on a driver (blockstore/driver.h), the filling of a cache file from a file's content map, and the
 *          commit: comparing a cache file with what is stored and writing what differs.
 * Model    An object is written once under a key derived from the volume id and the object id, complete or not at all. Every frame read is verified
 *          (xxh3-128) before a byte of it is used. Format to the byte: blockstore/object.h.
 *          Small content goes into packs that many files share; large content into objects of its own (64 MiB at most) by parts that are on their
 *          way while the next are being read.
 * Threads  Any thread. Blocks: yes.
 * Errors   -errno + err with the object's key. EIO: damaged or missing object. ENOKEY: encrypted, and the key is not known. ENOSPC and EDQUOT of the
 *          store pass through.
 */
#ifndef KFS_BLOCKSTORE_BLOCKSTORE_H
#define KFS_BLOCKSTORE_BLOCKSTORE_H

#include "base/err.h"
#include "base/extent.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kfs_store;
struct kfs_drv;
struct kfs_drv_options;
struct kfs_keyring;

/* 0, NULL and false: the defaults. */
struct kfs_store_options {
    bool no_compression;
    uint64_t pack_bytes;      /* a pack is sealed when it holds this much (8 MiB; at most 64) */
    uint64_t pack_file_bytes; /* new content of a commit up to this goes into a pack (1 MiB) */
    struct kfs_keyring *keys; /* the store's from kfs_store_open_with's success on; see blockstore/keys.h */
    const struct kfs_drv_options *driver;
};

/* Make an empty store for a volume: url "file:/absolute/dir" (created if missing) or "s3://…". Writes the marker that says whose it is.
 * -EEXIST: another volume's marker is there. */
int kfs_store_format(const char *url, const char *volume_id, struct kfs_err *err);
int kfs_store_format_with(const char *url, const char *volume_id, const struct kfs_store_options *o, struct kfs_err *err);
/* Open; checks the marker. Errors: store vanished (directory or marker missing), marker of another volume: what, where, cure. */
int kfs_store_open(const char *url, const char *volume_id, struct kfs_store **ret_s, struct kfs_err *err);
int kfs_store_open_with(const char *url, const char *volume_id, const struct kfs_store_options *o, struct kfs_store **ret_s, struct kfs_err *err);
void kfs_store_close(struct kfs_store *s);
const char *kfs_store_url(const struct kfs_store *s);
struct kfs_drv *kfs_store_driver(struct kfs_store *s); /* for its statistics and housekeeping; the store's */

/* Key of an object ("XX/hex…"), for messages and fsck. buf: 64 bytes. */
void kfs_store_key(const struct kfs_store *s, uint64_t object, char *buf);
int kfs_store_delete(struct kfs_store *s, uint64_t object, struct kfs_err *err); /* absent is fine */
int kfs_store_delete_many(struct kfs_store *s, const uint64_t *objects, size_t count, struct kfs_err *err);
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

/* --- commit -------------------------------------------------------------------------------------
 * Compare the file fd with `old` (what is committed) and write what differs: see kfs_content_delta. The size is that of fd at the start.
 * A file of at most KFS_INLINE_MAX bytes goes inline. Frames of zeros become holes. Frame hashes of old objects come from their indexes (cached); a
 * damaged old index means "differs".
 *
 * In two phases: begin reads and compares the file and gets what is new on its way; wait returns when all of it is safe. Between the two the file
 * may be closed and others begun: small files that are begun together share one pack. New object ids come from new_id. */
typedef int (*kfs_store_new_id)(void *arg, uint64_t *ret_id, struct kfs_err *err);
struct kfs_commit_options {
    kfs_ino_t ino; /* whose content it is: noted in the object; 0: not said */
    bool durable;  /* what is written survives a power cut when wait returns; packs are sealed at once */
    kfs_store_new_id new_id;
    void *arg;
};
struct kfs_commit;
int kfs_store_commit_begin(struct kfs_store *s, int fd, const struct kfs_content *old, const struct kfs_commit_options *o, struct kfs_commit **ret_k,
                           struct kfs_err *err);
/* Frees k, whatever the result. On failure no object of its own stays behind; a pack may, for garbage collection. */
int kfs_store_commit_wait(struct kfs_commit *k, struct kfs_content_delta *ret_delta, struct kfs_err *err);
void kfs_store_commit_abort(struct kfs_commit *k); /* instead of wait; NULL is fine */
/* The metadata refused the delta: delete the objects that are its own. */
void kfs_store_commit_undo(struct kfs_store *s, const struct kfs_content_delta *d);
/* Both phases. */
int kfs_store_commit(struct kfs_store *s, int fd, const struct kfs_content *old, kfs_store_new_id new_id, void *arg, bool durable,
                     struct kfs_content_delta *ret_delta, struct kfs_err *err);

#endif
