/* blockstore/store.h — what the files of the store share; nobody outside blockstore/ includes it
 *
 * Threads  struct kfs_store is constant after open, but for `index` (its own lock) and tmp_counter
 *          (atomic). Writers and readers belong to one thread each.
 */
#ifndef KFS_BLOCKSTORE_STORE_H
#define KFS_BLOCKSTORE_STORE_H

#include "blockstore/blockstore.h"
#include "blockstore/object.h"
#include <pthread.h>
#include <sys/types.h>

#define KFS_STORE_MARKER         "kfs-volume"
#define KFS_STORE_MARKER_VERSION 1u

/* --- frame.c: bytes of frames ----------------------------------------------------------------- */
void kfs_blk_hash(const void *data, size_t len, uint8_t ret_hash[KFS_HASH_BYTES]);
void kfs_blk_hash2(const void *a, size_t a_len, const void *b, size_t b_len,
                   uint8_t ret_hash[KFS_HASH_BYTES]);
bool kfs_blk_is_zero(const void *data, size_t len);
/* Exactly len bytes at off. Short: -ENODATA. */
int kfs_blk_pread_all(int fd, void *buf, size_t len, uint64_t off);
/* Up to len bytes; less only at the end of the file. Count or -errno. */
ssize_t kfs_blk_pread_most(int fd, void *buf, size_t len, uint64_t off);
int kfs_blk_pwrite_all(int fd, const void *buf, size_t len, uint64_t off);

/* --- index.c: parsed indexes and the cache of them -------------------------------------------- */
struct kfs_blk_index {
    uint32_t count;
    struct kfs_object_entry entries[KFS_OBJECT_FRAMES_MAX];
};

/* Set-associative, so that finding and replacing need no list. 4096 indexes: 256 GiB of large
 * files, or 4096 small ones. */
#define KFS_BLK_INDEX_SETS 1024
#define KFS_BLK_INDEX_WAYS 4
struct kfs_blk_index_slot {
    uint64_t object; /* 0: empty */
    uint64_t used;   /* tick of the last look */
    uint32_t count;
    struct kfs_object_entry *entries;
};
struct kfs_blk_index_cache {
    pthread_mutex_t lock;
    uint64_t tick;
    struct kfs_blk_index_slot slots[KFS_BLK_INDEX_SETS][KFS_BLK_INDEX_WAYS];
};
void kfs_blk_index_cache_init(struct kfs_blk_index_cache *c);
void kfs_blk_index_cache_clear(struct kfs_blk_index_cache *c);
bool kfs_blk_index_cache_get(struct kfs_blk_index_cache *c, uint64_t object,
                             struct kfs_blk_index *ret);
void kfs_blk_index_cache_put(struct kfs_blk_index_cache *c, uint64_t object,
                             const struct kfs_blk_index *idx);
void kfs_blk_index_cache_drop(struct kfs_blk_index_cache *c, uint64_t object);

/* Read and check header, index and trailer of an open object. -EIO: damaged. */
int kfs_blk_index_load(const struct kfs_store *s, uint64_t object, int fd,
                       struct kfs_blk_index *ret, struct kfs_err *err);
/* From the cache, else from the object. */
int kfs_blk_index_get(struct kfs_store *s, uint64_t object, struct kfs_blk_index *ret,
                      struct kfs_err *err);

/* --- object_file.c: objects in a directory ---------------------------------------------------- */
struct kfs_store {
    char *url;
    char *dir; /* absolute */
    char volume[KFS_VOLUME_ID_MAX + 1];
    int dir_fd, o_fd, tmp_fd;
    uint64_t tmp_counter;
    struct kfs_blk_index_cache index;
};

/* O_RDONLY descriptor of an object; -EIO when it is missing. */
int kfs_blk_object_open(const struct kfs_store *s, uint64_t object, struct kfs_err *err);
/* Remove what writers that died left in tmp/. */
void kfs_blk_tmp_clean(struct kfs_store *s);

struct kfs_blk_writer {
    struct kfs_store *s;
    uint64_t object;
    int fd; /* -1: nothing begun */
    char tmp_name[64];
    uint64_t at; /* where the next frame goes */
    struct kfs_blk_index index;
};
int kfs_blk_writer_begin(struct kfs_blk_writer *w, struct kfs_store *s, uint64_t object,
                         struct kfs_err *err);
int kfs_blk_writer_add(struct kfs_blk_writer *w, const void *plain, size_t len,
                       struct kfs_err *err);
/* Index, trailer, header, rename to the final name. Afterwards nothing is begun, whatever the
 * result. */
int kfs_blk_writer_finish(struct kfs_blk_writer *w, bool durable, uint64_t *ret_bytes,
                          struct kfs_err *err);
void kfs_blk_writer_abort(struct kfs_blk_writer *w);

/* --- fill.c: verified reading ----------------------------------------------------------------- */
struct kfs_blk_reader {
    struct kfs_store *s;
    uint64_t object; /* 0: none open */
    int fd;
    struct kfs_blk_index index;
};
/* Frame i into buf (KFS_FRAME_BYTES), verified. */
int kfs_blk_reader_frame(struct kfs_blk_reader *r, uint32_t i, void *buf, struct kfs_err *err);

#endif
