/* blockstore/cache_file.h — the node's cache directory: one sparse file per inode in use
 *
 * What     Names, moves and probes of cache files. No metadata, no objects: it is told inode numbers and versions.
 * Layout   CACHE/id        volume id + boot id, one line each
 *          CACHE/f/XX/INO-VERSION   clean, whole content; mode 0600, plus x bits for executables
 *          CACHE/w/INO     live content (open for writing, or orphan); the local journal
 *          CACHE/t/…       being filled; emptied at start
 *          CACHE/p/INO-VERSION      large content that is arriving: known to the fetch path alone, becomes f/XX/INO-VERSION by rename when whole
 *          CACHE/d/…       dead directories; emptied at start
 *          CACHE/lost/…    live files found after a power cut or damage, kept for a human
 *          (hex without leading zeros; see base/pure/wire.h). CACHE is mode 0700.
 * Model    f -> w by rename before the first writer gets a descriptor; w -> f by rename when no writer is left and the content is committed. Files are
 *          never truncated or punched by the cache itself, only unlinked (P4).
 * Threads  Any thread; per-inode order is the caller's business.
 * Errors   -errno + err naming the path and the cure.
 */
#ifndef KFS_BLOCKSTORE_CACHE_FILE_H
#define KFS_BLOCKSTORE_CACHE_FILE_H

#include "base/err.h"
#include "base/pure/attr.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct kfs_cache;

/* Make or check the directory, empty t/ and d/. The directory of another volume: -EINVAL. After a reboot (boot id differs) f/ is dropped and w/ goes to
 * lost/, because unsynced local files prove nothing after a power cut; *ret_rebooted tells. */
int kfs_cache_open(const char *dir, const char *volume_id, uint64_t cap_bytes, struct kfs_cache **ret_c, bool *ret_rebooted, struct kfs_err *err);
void kfs_cache_close(struct kfs_cache *c);
const char *kfs_cache_dir(const struct kfs_cache *c);
bool kfs_cache_on_tmpfs(const struct kfs_cache *c);
/* Has somebody removed the directory or one of its parts, or put something else in its place? Nothing can be cached then. */
bool kfs_cache_gone(const struct kfs_cache *c);

/* Open a clean file of exactly this version. -ENOENT: not cached. flags: O_RDONLY etc. | O_CLOEXEC. */
int kfs_cache_open_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags);
int kfs_cache_open_live(struct kfs_cache *c, kfs_ino_t ino, int flags); /* w/INO; -ENOENT */

/* A new, empty file in t/ to be filled; then publish it as clean or live. fd stays open (read-write); the caller closes it.
 * exec_bits: 0111 if the inode has any x bit, else 0. name: at least 64 bytes. */
int kfs_cache_fill_begin(struct kfs_cache *c, kfs_ino_t ino, char *ret_name, int *ret_fd, struct kfs_err *err);
int kfs_cache_fill_end(struct kfs_cache *c, const char *name, kfs_ino_t ino, uint64_t version, bool live, struct kfs_err *err);
void kfs_cache_fill_abort(struct kfs_cache *c, const char *name);
int kfs_cache_create_live(struct kfs_cache *c, kfs_ino_t ino, int *ret_fd, struct kfs_err *err); /* new empty w/INO, O_RDWR */

int kfs_cache_to_live(struct kfs_cache *c, kfs_ino_t ino, uint64_t version); /* f -> w; -ENOENT */
int kfs_cache_to_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version); /* w -> f, older versions of ino unlinked */
int kfs_cache_drop_live(struct kfs_cache *c, kfs_ino_t ino);
int kfs_cache_drop_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version);
/* Mirror the inode's x bits (any -> 0711, none -> 0600), so that the kernel lets it be executed. */
int kfs_cache_set_exec(int fd, uint32_t inode_mode);

/* Has anybody the file open for writing (descriptor or shared mapping)? 1, 0, or -errno. fd: O_RDONLY, ours. Falls back to a look through /proc
 * where leases are not supported. */
int kfs_cache_has_writer(int fd);
/* Has anybody but fd the file open at all? */
int kfs_cache_has_user(int fd);

/* Partial files: p/INO-VERSION, large content that is arriving (base/pure/arrival.h). create: new and empty, O_RDWR; size_bytes: what it will be, for which
 * room is made now; -EEXIST: it is arriving already. ret_fd is the caller's. finish: it is whole; renamed to f/ (or w/, live: -EEXIST if there is one), its
 * descriptors stay good; on failure it is still partial. drop: unlinked, whatever its state. A partial file is never evicted and never given to a client
 * for more than reading. */
int kfs_cache_partial_create(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t size_bytes, int *ret_fd, struct kfs_err *err);
int kfs_cache_partial_open(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags); /* another descriptor; -ENOENT */
int kfs_cache_partial_finish(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, bool live, struct kfs_err *err);
void kfs_cache_partial_drop(struct kfs_cache *c, kfs_ino_t ino, uint64_t version);
/* What lies in p/, known or left by an earlier session. cb != 0 stops, and is returned; it may drop or adopt what it is told of. */
typedef int (*kfs_cache_partial_cb)(void *arg, kfs_ino_t ino, uint64_t version);
int kfs_cache_partial_each(struct kfs_cache *c, kfs_cache_partial_cb cb, void *arg);
/* Go on with a file of an earlier session (same boot): its frames have to be checked before they count. -ENOENT: there is none; -EEXIST: known. */
int kfs_cache_partial_adopt(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t size_bytes, int *ret_fd, struct kfs_err *err);
int kfs_cache_partial_clear(struct kfs_cache *c); /* unlink what earlier sessions left and nobody adopted; kfsd calls it once, at start */

/* Live files present: the local journal. */
typedef int (*kfs_cache_each_cb)(void *arg, kfs_ino_t ino);
int kfs_cache_each_live(struct kfs_cache *c, kfs_cache_each_cb cb, void *arg, struct kfs_err *err);
/* inotify descriptor (non-blocking) that reports closes of writers in w/; parse with kfs_cache_watch_next: 1 *ret_ino set (0: events were lost), 0 none. */
int kfs_cache_watch(struct kfs_cache *c, struct kfs_err *err);
struct kfs_cache_events { char buf[4096] __attribute__((aligned(8))); size_t len, at; };
int kfs_cache_watch_next(int fd, struct kfs_cache_events *ev, kfs_ino_t *ret_ino);

/* A new descriptor (own open file description) of the dead directory for ino. */
int kfs_cache_dead_dir(struct kfs_cache *c, kfs_ino_t ino, struct kfs_err *err);
/* Likewise an O_PATH descriptor of a removed symlink, for O_PATH | O_NOFOLLOW on a symlink. */
int kfs_cache_dead_link(struct kfs_cache *c, kfs_ino_t ino, struct kfs_err *err);

/* An O_PATH descriptor of the kernel's FIFO or socket (type: S_IFIFO, S_IFSOCK) that stands for ino; made if it is not there. */
int kfs_cache_node(struct kfs_cache *c, kfs_ino_t ino, uint32_t type, struct kfs_err *err);
void kfs_cache_node_drop(struct kfs_cache *c, kfs_ino_t ino); /* its inode is gone */
int kfs_cache_each_node(struct kfs_cache *c, kfs_cache_each_cb cb, void *arg); /* an inode may come more than once */

/* Unlink clean files, least recently used first, until used <= target (0 = all). Returns bytes freed. Called by itself when above the cap. */
int64_t kfs_cache_evict(struct kfs_cache *c, uint64_t target_bytes);
uint64_t kfs_cache_used_bytes(struct kfs_cache *c);
void kfs_cache_touch(struct kfs_cache *c, kfs_ino_t ino); /* used now: for eviction order */
/* Told of every clean file that eviction unlinks, so that the segment stops naming it. May be called from any thread inside kfs_cache_*. */
void kfs_cache_on_evict(struct kfs_cache *c, void (*fn)(void *arg, kfs_ino_t ino, uint64_t version), void *arg);

#endif
