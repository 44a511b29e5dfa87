/* blockstore/cache_dir.h — what the files of the cache directory share; only cache_*.c include it
 *
 * Threads  The descriptors, dir and flags are constant after open. `lock` guards the index of clean
 *          files and its LRU list, `dead_lock` the dead directories. They are never held together,
 *          and no callback runs under either.
 */
#ifndef KFS_BLOCKSTORE_CACHE_DIR_H
#define KFS_BLOCKSTORE_CACHE_DIR_H

#include "blockstore/cache_file.h"
#include <pthread.h>

#define KFS_CACHE_DEAD_MAX                                                                         \
    256 /* descriptors of dead directories kept; an inode beyond these gets a new dead directory */
#define KFS_CACHE_NAME_MAX 64

/* A clean file in f/. In the hash chain of its inode and in the LRU list. */
struct kfs_cache_entry {
    kfs_ino_t ino;
    uint64_t version;
    uint64_t bytes; /* allocated, when it became clean; clean files do not change */
    struct kfs_cache_entry *chain;
    struct kfs_cache_entry *newer, *older;
};

struct kfs_cache_dead {
    kfs_ino_t ino; /* 0: free */
    int fd;
    uint64_t used;
};

/* A known file in p/. */
struct kfs_cache_partial {
    kfs_ino_t ino;
    uint64_t version;
    uint64_t bytes; /* that it will have */
    struct kfs_cache_partial *next;
};

struct kfs_cache {
    char *dir; /* as the kernel shows it in /proc/self/fd: absolute, without symlinks */
    int dir_fd, f_fd, w_fd, t_fd, d_fd, n_fd, p_fd;
    bool on_tmpfs;
    uint64_t cap_bytes; /* 0: none */
    uint64_t counter;   /* of names in t/; atomic */

    pthread_mutex_t lock;
    struct kfs_cache_entry **buckets; /* bucket_count is a power of two */
    size_t bucket_count, entry_count;
    struct kfs_cache_entry *newest, *oldest;
    uint64_t used_bytes;
    struct kfs_cache_partial *partials;
    uint64_t partial_bytes;
    void (*on_evict)(void *arg, kfs_ino_t ino, uint64_t version);
    void *on_evict_arg;

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

/* cache_file.c. Errors without text. */
int kfs_cache_file_create(struct kfs_cache *c, int at, const char *name); /* new and empty, O_RDWR, 0600 */
/* From below from_fd to f/ (and into the index) or, live, to w/. */
int kfs_cache_file_publish(struct kfs_cache *c, int from_fd, const char *from, kfs_ino_t ino,
                           uint64_t version, bool live);

/* cache_evict.c: the index of clean files */
int kfs_cache_index_init(struct kfs_cache *c);
void kfs_cache_index_clear(struct kfs_cache *c);
int kfs_cache_index_scan(struct kfs_cache *c, struct kfs_err *err); /* f/ as found at open */
/* (ino, version) is in f/ now: other versions of ino are unlinked, and others' files if that passes
 * the cap. */
void kfs_cache_index_add(struct kfs_cache *c, kfs_ino_t ino, uint64_t version);
void kfs_cache_index_remove(struct kfs_cache *c, kfs_ino_t ino, uint64_t version);

/* Make used and arriving bytes fit the cap again. */
void kfs_cache_index_trim(struct kfs_cache *c);

void kfs_cache_dead_clear(struct kfs_cache *c);
void kfs_cache_partial_release(struct kfs_cache *c);

#endif
