/* blockstore/cache_file.h — the node's cache directory: one sparse file per inode in use
 *
 * What     Names, moves and probes of cache files; what is where, what goes first, and what to do when a directory fails. No metadata, no objects: it is told
 *          inode numbers and versions.
 * Layout   CACHE/id        volume id + boot id, one line each
 *          CACHE/f/XX/INO-VERSION   clean, whole content; mode 0600, plus x bits for executables
 *          CACHE/w/INO     live content (open for writing, or orphan); the local journal
 *          CACHE/t/…       being filled; emptied at start
 *          CACHE/p/INO-VERSION      large content that is arriving: known to the fetch path alone, becomes f/XX/INO-VERSION by rename when whole
 *          CACHE/d/…       dead directories; emptied at start
 *          CACHE/index     what is in f/ (docs/format.md)
 *          CACHE/lost/…    live files found after a power cut or damage, kept for a human
 *          (hex without leading zeros; see base/pure/wire.h). CACHE is mode 0700.
 *          Further directories have id, index, f, t, p and d.
 * Model    A directory that is full, read-only, failing or gone is served past: a warning once, no new content, and a look every few seconds. With none left,
 *          content that is read lies in memory, up to a cap; writing fails with the first directory's errno.
 *          f -> w by rename before the first writer gets a descriptor; w -> f by rename when no writer is left and the content is committed. Files are
 *          never truncated or punched by the cache itself, only unlinked (P4).
 * Threads  Any thread; per-inode order is the caller's business.
 * Errors   -errno + err naming the path and the cure.
 */
#ifndef KFS_BLOCKSTORE_CACHE_FILE_H
#define KFS_BLOCKSTORE_CACHE_FILE_H

#include "base/err.h"
#include "base/pure/attr.h"
#include "base/pure/mounts.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct kfs_cache;

#define KFS_CACHE_PLACES_MAX 8
#define KFS_CACHE_DIRS_MAX   KFS_MORE_DIRS_MAX /* bytes of all directories beyond the first, as kfs_cache_more_dirs has them */

/* Cached content of an earlier session may have rotted, or (after a power cut) never have reached the disk. Hashes are taken in the background when content
 * becomes clean. SAMPLED: one file in sixteen has one and is compared at its first use; one that is wrong discredits its whole directory. FULL: all are
 * compared at their first use, what has none is dropped; only then is anything kept over a reboot. */
enum kfs_cache_verify { KFS_CACHE_VERIFY_NONE, KFS_CACHE_VERIFY_SAMPLED, KFS_CACHE_VERIFY_FULL };

struct kfs_cache_options {
    uint64_t cap_bytes, cap_files; /* of clean content in the first directory; 0: none */
    enum kfs_cache_verify verify;
    uint64_t memory_bytes; /* how much content may lie in memory when no directory can take it; 0: none */
};

/* Make or check the directory, empty t/ and d/. The directory of another volume: -EINVAL. After a reboot (boot id differs) f/ is dropped (see above) and
 * w/ goes to lost/, because unsynced local files prove nothing after a power cut; *ret_rebooted tells. */
int kfs_cache_open_with(const char *dir, const char *volume_id, const struct kfs_cache_options *o, struct kfs_cache **ret_c, bool *ret_rebooted,
                        struct kfs_err *err);
int kfs_cache_open(const char *dir, const char *volume_id, uint64_t cap_bytes, struct kfs_cache **ret_c, bool *ret_rebooted, struct kfs_err *err);
/* Another directory for clean and arriving content, with caps of its own. One that cannot be used now is tried again later, and *err says why: 0 all the
 * same. -E2BIG: too many; -EEXIST: it is one of them; -EINVAL: not absolute. Before other threads use c. */
int kfs_cache_add_dir(struct kfs_cache *c, const char *dir, uint64_t cap_bytes, uint64_t cap_files, struct kfs_err *err);
/* The thread that scans, hashes, looks after directories that failed. Without it kfs_cache_keep does a round of that. */
int kfs_cache_start(struct kfs_cache *c, struct kfs_err *err);
void kfs_cache_keep(struct kfs_cache *c);
void kfs_cache_close(struct kfs_cache *c); /* stops the thread; NULL is fine */
const char *kfs_cache_dir(const struct kfs_cache *c); /* the first */
/* The others, each ended by a newline: what the shim needs to recognise descriptors. buf: KFS_CACHE_DIRS_MAX bytes. */
void kfs_cache_more_dirs(const struct kfs_cache *c, char *buf);
int kfs_cache_dir_fd(const struct kfs_cache *c); /* of the first; the cache's own */
bool kfs_cache_on_tmpfs(const struct kfs_cache *c);
/* Has somebody removed the first directory or one of its parts, or put something else in its place? */
bool kfs_cache_gone(const struct kfs_cache *c);
/* Make it anew, if so. Live files, which have no name any more, are kept by descriptors: they stay live, kfs_cache_open_live finds them, and the caller
 * should commit them now. 1: made anew (watches on it are to be set again); 0: nothing to do; -errno: it cannot be made. */
int kfs_cache_heal(struct kfs_cache *c, struct kfs_err *err);

enum kfs_cache_health { KFS_CACHE_OK, KFS_CACHE_FULL, KFS_CACHE_READONLY, KFS_CACHE_FAILING, KFS_CACHE_GONE };
const char *kfs_cache_health_word(enum kfs_cache_health h);
struct kfs_cache_dir_stats {
    const char *dir;
    enum kfs_cache_health health;
    int error; /* that made it so */
    bool scanning;
    uint64_t cap_bytes, cap_files, used_bytes, files, arriving_bytes, free_bytes, free_files; /* free: of the file system */
};
struct kfs_cache_stats {
    unsigned dir_count;
    struct kfs_cache_dir_stats dirs[KFS_CACHE_PLACES_MAX];
    uint64_t hits, misses; /* opens of clean content, fills; see kfs_cache_hits */
    uint64_t evicted_files, evicted_bytes, returned_files; /* returned: fetched again soon after */
    uint64_t checked_files, wrong_files, hashed_files;
    uint64_t memory_bytes, memory_cap_bytes, kept_live;
};
void kfs_cache_stats_get(struct kfs_cache *c, struct kfs_cache_stats *ret);
void kfs_cache_hits(struct kfs_cache *c, uint64_t count); /* opens that did not come here */
void kfs_cache_caps_set(struct kfs_cache *c, uint64_t cap_bytes, uint64_t cap_files); /* of the first directory, at any time */

/* Open a clean file of exactly this version: a use of it. -ENOENT: not cached. flags: O_RDONLY etc. | O_CLOEXEC. May lie in memory (a sealed memfd, O_RDONLY
 * whatever the flags say; see base/pure/wire.h for its name). */
int kfs_cache_open_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags);
/* Is it there for a client that opens it by name? Its st_ino and the number of its directory (0: the first, k: line k of kfs_cache_more_dirs). */
bool kfs_cache_find_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t *ret_st_ino, unsigned *ret_dir);
int kfs_cache_path_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, char *buf, size_t cap); /* for people; -ENOENT */
int kfs_cache_open_live(struct kfs_cache *c, kfs_ino_t ino, int flags); /* w/INO; -ENOENT */
struct stat;
int kfs_cache_stat_live(struct kfs_cache *c, kfs_ino_t ino, struct stat *ret);
struct timespec;
int kfs_cache_times_live(struct kfs_cache *c, kfs_ino_t ino, const struct timespec times[2]); /* as futimens */

/* A new, empty file in t/ to be filled, in the directory that suits it (live: in the first); then publish it as clean or live. fd stays open (read-write);
 * the caller closes it. bytes: what it will have, about. name: at least 64 bytes. suspect: writing it failed with
 * rc; true: once it is aborted, beginning again may do better, because its directory was the reason and is not used any more, or has room now. */
int kfs_cache_fill_begin(struct kfs_cache *c, kfs_ino_t ino, uint64_t bytes, bool live, char *ret_name, int *ret_fd, struct kfs_err *err);
int kfs_cache_fill_end(struct kfs_cache *c, const char *name, kfs_ino_t ino, uint64_t version, bool live, struct kfs_err *err);
void kfs_cache_fill_abort(struct kfs_cache *c, const char *name);
bool kfs_cache_fill_suspect(struct kfs_cache *c, const char *name, int rc);
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
bool kfs_cache_partial_suspect(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int rc); /* as kfs_cache_fill_suspect */
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
int kfs_cache_watch_again(struct kfs_cache *c, int fd); /* after kfs_cache_heal */
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

/* Unlink clean files, those first that are worth least (see cache_evict.c), until used <= target (0 = all). Returns bytes freed. Called by itself when above
 * a cap or where the disk is full. Whoever has one open keeps it. */
int64_t kfs_cache_evict(struct kfs_cache *c, uint64_t target_bytes);
uint64_t kfs_cache_used_bytes(struct kfs_cache *c); /* over all directories */
uint64_t kfs_cache_room_bytes(struct kfs_cache *c); /* what can come without anything having to go, as far as the caps say */
void kfs_cache_touch(struct kfs_cache *c, kfs_ino_t ino); /* it was used: for eviction */
/* Told of every clean file that eviction unlinks, so that the segment stops naming it. May be called from any thread inside kfs_cache_*. */
void kfs_cache_on_evict(struct kfs_cache *c, void (*fn)(void *arg, kfs_ino_t ino, uint64_t version), void *arg);

#endif
