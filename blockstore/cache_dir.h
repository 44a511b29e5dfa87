/* blockstore/cache_dir.h — what the files of the cache share; only cache_*.c include it
 *
 * Files    cache_place.c (directories: claiming, health, making anew), cache_file.c (moves of files), cache_live.c (w/), cache_partial.c (p/),
 *          cache_index.c (what is where), cache_evict.c (what goes first), cache_log.c (the index on disk), cache_keeper.c (the background thread),
 *          cache_memory.c (content when no directory is left), cache_dead.c, cache_node.c, cache_lease.c, cache_watch.c.
 * Threads  Numbers of descriptors are constant once a place is open; a directory made anew is dup'ed onto them. `health` is atomic. What else is
 *          guarded by which lock stands at the fields. Order: heal_lock -> log_lock -> lock; the others are never held together with any. No callback runs
 *          under a lock, and object or file content is never read or written under one.
 */
#ifndef KFS_BLOCKSTORE_CACHE_DIR_H
#define KFS_BLOCKSTORE_CACHE_DIR_H

#include "blockstore/cache_file.h"
#include "base/map.h"
#include <pthread.h>
#include <stdatomic.h>

#define KFS_CACHE_DEAD_MAX                                                                         \
    256 /* descriptors of dead directories kept; an inode beyond these gets a new dead directory */
#define KFS_CACHE_NAME_MAX 64
#define KFS_CACHE_MEMORY   KFS_CACHE_PLACES_MAX /* in the role of a place's number */

/* A clean file in f/. In the hash chain of its inode and in one of its place's two queues. */
struct kfs_cache_entry {
    kfs_ino_t ino;
    uint64_t version;
    uint64_t bytes;   /* allocated, when it became clean; clean files do not change */
    uint64_t hash[2]; /* xxh3-128 of the content, when HASHED */
    struct kfs_cache_entry *chain;
    struct kfs_cache_entry *newer, *older;
    uint8_t place, queue, uses, flags;
};
enum { KFS_CACHE_SMALL, KFS_CACHE_MAIN, KFS_CACHE_QUEUES };
#define KFS_CACHE_USES_MAX 3
/* kfs_cache_entry.flags */
#define KFS_CACHE_FRESH   1u /* whoever it was brought for has not opened it yet: that open is no reuse */
#define KFS_CACHE_HASHED  2u
#define KFS_CACHE_CHECK   4u /* of an earlier session: its hash is compared before its first use */

struct kfs_cache_queue {
    struct kfs_cache_entry *newest, *oldest;
    uint64_t bytes;
};

/* Inodes that were evicted lately. Direct-mapped: a collision forgets the older one. */
struct kfs_cache_ghost {
    uint32_t tag, when;
};

struct kfs_cache_log;

/* One cache directory. */
struct kfs_cache_place {
    char *dir; /* as the kernel shows it in /proc/self/fd: absolute, without symlinks */
    unsigned number;
    int dir_fd, f_fd, t_fd, d_fd, p_fd; /* -1: never opened so far */
    atomic_int health;                  /* enum kfs_cache_health */
    /* the rest: kfs_cache.lock */
    int error;         /* that made it unhealthy */
    uint64_t probe_ns; /* when to look again */
    uint64_t cap_bytes, cap_files; /* 0: none */
    uint64_t used_bytes, files, partial_bytes;
    struct kfs_cache_queue queues[KFS_CACHE_QUEUES];
    bool scan;      /* the index may not know all of f/ */
    bool distrust;  /* a sample was wrong: what an earlier session left is dropped */
    struct kfs_cache_log *log; /* NULL: none could be opened */
};

/* A known file in p/. */
struct kfs_cache_partial {
    kfs_ino_t ino;
    uint64_t version;
    uint64_t bytes; /* that it will have */
    unsigned place;
    int fd; /* in memory; else -1 */
    struct kfs_cache_partial *next;
};

struct kfs_cache_dead {
    kfs_ino_t ino; /* 0: free */
    int fd;
    uint64_t used;
};

#define KFS_CACHE_HASH_QUEUE 4096

struct kfs_cache {
    char volume_id[128];
    struct kfs_cache_options options; /* caps: of the first place */
    struct kfs_cache_place places[KFS_CACHE_PLACES_MAX]; /* the first has the live files */
    atomic_uint place_count;
    int w_fd, n_fd; /* in the first place */
    bool on_tmpfs;
    uint64_t counter; /* of names in t/; atomic */

    pthread_mutex_t lock;
    struct kfs_cache_entry **buckets; /* bucket_count is a power of two */
    size_t bucket_count, entry_count;
    struct kfs_cache_ghost *ghosts; /* as many as buckets; NULL: no memory */
    uint32_t evictions;             /* the ghosts' clock */
    struct kfs_cache_partial *partials;
    struct {
        kfs_ino_t ino;
        uint64_t version;
    } to_hash[KFS_CACHE_HASH_QUEUE];
    unsigned to_hash_at, to_hash_count;
    struct kfs_cache_stats stats; /* counters only */
    void (*on_evict)(void *arg, kfs_ino_t ino, uint64_t version);
    void *on_evict_arg;

    pthread_mutex_t live_lock;
    struct kfs_map kept; /* inode -> descriptor + 1 (O_PATH) of its live file */
    unsigned kept_max;

    pthread_mutex_t memory_lock;
    struct kfs_cache_memory *memory;
    uint64_t memory_bytes;

    pthread_mutex_t heal_lock;
    unsigned heals, heals_told; /* heal_lock: of the first directory */

    pthread_mutex_t log_lock; /* the index on disk is written */

    pthread_mutex_t keeper_lock;
    pthread_cond_t keeper_wake;
    pthread_t keeper;
    bool keeper_on, keeper_stop;

    pthread_mutex_t dead_lock;
    uint64_t dead_tick;
    struct kfs_cache_dead dead[KFS_CACHE_DEAD_MAX];
};

/* Names (see base/pure/wire.h). buf: KFS_CACHE_NAME_MAX bytes. */
void kfs_cache_name_clean(char *buf, kfs_ino_t ino,
                          uint64_t version);       /* "XX/INO-VERSION", below f/ */
void kfs_cache_name_ino(char *buf, kfs_ino_t ino); /* "INO" */
/* Lower-case hex without leading zeros from *s to the first other character; moves *s there. False:
 * not such a number, or 0. */
bool kfs_cache_parse_hex(const char **s, uint64_t *ret);
bool kfs_cache_parse_version(const char *s, uint64_t *ret); /* to the end of s; may be 0 */

/* cache_place.c */
int kfs_cache_place_open(struct kfs_cache *c, struct kfs_cache_place *p, const char *dir, bool *ret_rebooted, struct kfs_err *err);
void kfs_cache_place_close(struct kfs_cache_place *p);
/* An operation in p failed with rc (-errno): if that says something about the directory, it is not used for new content until a probe succeeds.
 * True: another place may do better. */
bool kfs_cache_place_failed(struct kfs_cache *c, struct kfs_cache_place *p, int rc);
/* Where should new content of this size go? -1: no directory is left. tried: bits of places that will not do. */
int kfs_cache_place_choose(struct kfs_cache *c, kfs_ino_t ino, uint64_t bytes, unsigned tried);
static inline bool kfs_cache_place_ok(struct kfs_cache_place *p)
{
    return atomic_load_explicit(&p->health, memory_order_acquire) == KFS_CACHE_OK;
}
void kfs_cache_place_probe(struct kfs_cache *c, struct kfs_cache_place *p); /* look again, if it is time */
/* Writing a file in p failed with rc, which may or may not be p's fault: looks whether it can be written. True as above. */
bool kfs_cache_place_suspect(struct kfs_cache *c, struct kfs_cache_place *p, int rc);
bool kfs_cache_place_gone(const struct kfs_cache *c, const struct kfs_cache_place *p);
int kfs_cache_place_heal(struct kfs_cache *c, struct kfs_cache_place *p, struct kfs_err *err); /* 1: it was gone and is made anew */
int kfs_cache_empty_dir(int fd, int depth); /* everything below directory fd */

/* cache_file.c. Errors without text. */
/* New and empty below a directory of p, O_RDWR, 0600. Where p is full, clean files go; where p is gone, it is made anew. */
int kfs_cache_file_create(struct kfs_cache *c, struct kfs_cache_place *p, const int *at, const char *name);
/* From below from_fd, in p, to f/ (and into the index) or, live, to w/. */
int kfs_cache_file_publish(struct kfs_cache *c, struct kfs_cache_place *p, int from_fd, const char *from, kfs_ino_t ino,
                           uint64_t version, bool live);
/* The same for content that has no name where it could be renamed from. */
int kfs_cache_file_copy_live(struct kfs_cache *c, int from_fd, kfs_ino_t ino);
int kfs_cache_file_hash(int fd, uint64_t ret[2]);

/* cache_live.c: descriptors of live files, kept in case that somebody removes w/ */
void kfs_cache_live_keep(struct kfs_cache *c, kfs_ino_t ino);
bool kfs_cache_live_forget(struct kfs_cache *c, kfs_ino_t ino); /* true: there was one */
void kfs_cache_live_release(struct kfs_cache *c);

/* cache_index.c */
struct kfs_cache_entry **kfs_cache_index_slot_locked(struct kfs_cache *c, kfs_ino_t ino);
int kfs_cache_index_init(struct kfs_cache *c);
void kfs_cache_index_clear(struct kfs_cache *c);
void kfs_cache_index_attach_locked(struct kfs_cache *c, struct kfs_cache_entry *e);
void kfs_cache_index_detach_locked(struct kfs_cache *c, struct kfs_cache_entry **slot);
/* (ino, version) is in p's f/ now: other versions of ino are unlinked, and others' files if that
 * passes a cap. */
void kfs_cache_index_add(struct kfs_cache *c, struct kfs_cache_place *p, kfs_ino_t ino, uint64_t version);
void kfs_cache_index_remove(struct kfs_cache *c, kfs_ino_t ino, uint64_t version);
/* The place of (ino, version), as far as is known: its number, or -ENOENT. *ret_sure: nothing else can be true. check, if not NULL: its hash has to be
 * compared first; *check is filled. touch: this is a use. */
int kfs_cache_index_find(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, bool touch, bool *ret_sure, struct kfs_cache_entry *check);
void kfs_cache_index_checked(struct kfs_cache *c, kfs_ino_t ino, uint64_t version);
void kfs_cache_index_hashed(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, const uint64_t hash[2]);
/* Everything of p is unknown from now on (its directory was replaced). */
void kfs_cache_index_drop_place(struct kfs_cache *c, struct kfs_cache_place *p);
/* What lies in f/XX and is not known becomes known; of several versions the highest stays. -errno. */
int kfs_cache_index_scan(struct kfs_cache *c, struct kfs_cache_place *p, unsigned xx, struct kfs_err *err);
void kfs_cache_unlink_clean(struct kfs_cache *c, unsigned place, kfs_ino_t ino, uint64_t version);
bool kfs_cache_index_wants_hash(const struct kfs_cache *c, kfs_ino_t ino, uint64_t version);

/* cache_evict.c */
void kfs_cache_queue_push_locked(struct kfs_cache *c, struct kfs_cache_entry *e, unsigned queue);
void kfs_cache_queue_unlink_locked(struct kfs_cache *c, struct kfs_cache_entry *e);
bool kfs_cache_ghost_known_locked(const struct kfs_cache *c, kfs_ino_t ino);
/* Make used and arriving bytes and files of p fit its caps again. keep: an inode that stays, or 0. */
void kfs_cache_trim(struct kfs_cache *c, struct kfs_cache_place *p, kfs_ino_t keep);
/* Unlink about so many bytes of p, those that nobody has open first. Returns bytes (not files that had none). *ret_files may be NULL. */
uint64_t kfs_cache_evict_place(struct kfs_cache *c, struct kfs_cache_place *p, uint64_t bytes, uint64_t *ret_files);

/* cache_log.c: the index on disk */
/* Read CACHE/index into the index. 1: complete; 0: it may be incomplete, a scan is needed; what could be read is there. checked: entries need no check. */
int kfs_cache_log_open(struct kfs_cache *c, struct kfs_cache_place *p, bool checked);
void kfs_cache_log_add_locked(struct kfs_cache *c, const struct kfs_cache_entry *e);
void kfs_cache_log_remove_locked(struct kfs_cache *c, const struct kfs_cache_entry *e);
void kfs_cache_log_flush(struct kfs_cache *c, struct kfs_cache_place *p); /* what is buffered; compaction, when it pays */
/* complete: it says all, and the next session need not scan. */
void kfs_cache_log_close(struct kfs_cache *c, struct kfs_cache_place *p, bool complete);

/* cache_memory.c: content in memory, when no directory is left */
/* A descriptor to be filled, or -errno. Its bytes are reserved until they are given back: in the moment of adding it, or when it fails. */
int kfs_cache_memory_new(struct kfs_cache *c, kfs_ino_t ino, uint64_t bytes);
void kfs_cache_memory_give_back(struct kfs_cache *c, uint64_t bytes);
void kfs_cache_memory_take(struct kfs_cache *c, uint64_t bytes); /* reserved again, whether or not there is room */
int kfs_cache_memory_add(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int fd); /* it is whole; fd stays the caller's */
int kfs_cache_memory_open(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags);
void kfs_cache_memory_drop(struct kfs_cache *c, kfs_ino_t ino); /* its content has changed, or is in a directory again */
void kfs_cache_memory_release(struct kfs_cache *c);

void kfs_cache_missed(struct kfs_cache *c);
void kfs_cache_stop(struct kfs_cache *c); /* cache_keeper.c */
void kfs_cache_dead_clear(struct kfs_cache *c);
void kfs_cache_partial_release(struct kfs_cache *c);

#endif
