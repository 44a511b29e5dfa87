/* blockstore/store.h — what the files of the store share; nobody outside blockstore/ includes it
 *
 * Threads  struct kfs_store is constant after open, but for `index` and `packs`, which have their
 *          own locks.
 */
#ifndef KFS_BLOCKSTORE_STORE_H
#define KFS_BLOCKSTORE_STORE_H

#include "blockstore/blockstore.h"
#include "blockstore/driver.h"
#include "blockstore/object.h"
#include <pthread.h>
#include <sys/types.h>

#define KFS_STORE_MARKER         "kfs-volume"
#define KFS_STORE_MARKER_VERSION 1u

/* --- frame.c: bytes of frames ----------------------------------------------------------------- */
void kfs_blk_hash(const void *data, size_t len, uint8_t ret_hash[KFS_HASH_BYTES]);
/* Of several pieces in a row. */
struct kfs_blk_piece {
    const void *data;
    size_t len;
};
void kfs_blk_hash_pieces(const struct kfs_blk_piece *v, size_t count,
                         uint8_t ret_hash[KFS_HASH_BYTES]);
bool kfs_blk_is_zero(const void *data, size_t len);
/* Exactly len bytes at off. Short: -ENODATA. */
int kfs_blk_pread_all(int fd, void *buf, size_t len, uint64_t off);
/* Up to len bytes; less only at the end of the file. Count or -errno. */
ssize_t kfs_blk_pread_most(int fd, void *buf, size_t len, uint64_t off);
int kfs_blk_pwrite_all(int fd, const void *buf, size_t len, uint64_t off);

/* --- codec.c: compression by trial ------------------------------------------------------------ */
/* Compress len bytes into out (room for len). The codec; *ret_len: what is to be stored. With
 * KFS_CODEC_PLAIN nothing useful is in out: it would have gained too little. */
uint32_t kfs_blk_compress(const void *plain, size_t len, void *out, size_t *ret_len);
/* Exactly plain_len bytes into plain. -EIO: not what it should be. */
int kfs_blk_decompress(const void *stored, size_t stored_len, void *plain, size_t plain_len);

/* --- seal.c: encryption ----------------------------------------------------------------------- */
#define KFS_SEAL_INDEX UINT32_MAX /* frame number that stands for the index */
int kfs_blk_random(void *buf, size_t len);
/* The key of one object. */
int kfs_blk_object_key(const uint8_t data_key[KFS_KEY_BYTES], const uint8_t salt[KFS_SALT_BYTES],
                       uint64_t object, const char volume[KFS_VOLUME_ID_MAX + 1],
                       uint8_t ret_key[KFS_KEY_BYTES]);
/* len bytes from in to out (may be the same); the tag goes behind them in out. */
int kfs_blk_seal(const uint8_t key[KFS_KEY_BYTES], uint32_t number, const void *aad, size_t aad_len,
                 const void *in, size_t len, void *out);
/* The reverse: sealed_len includes the tag. -EIO: forged or damaged. */
int kfs_blk_unseal(const uint8_t key[KFS_KEY_BYTES], uint32_t number, const void *aad,
                   size_t aad_len, const void *in, size_t sealed_len, void *out);

/* --- index.c: parsed indexes and the cache of them -------------------------------------------- */
/* Of one object, whatever its version. Shared, constant, counted. */
struct kfs_blk_index {
    unsigned refs; /* atomic */
    uint32_t count;
    uint64_t object, object_bytes;
    bool sealed;
    uint8_t key[KFS_KEY_BYTES]; /* of the object, when sealed */
    uint64_t *plain_off;        /* count + 1 sums of plain lengths */
    struct kfs_object_entry entries[];
};
/* Empty, with one reference and room for count entries. */
struct kfs_blk_index *kfs_blk_index_new(uint64_t object, uint32_t count);
void kfs_blk_index_sum(struct kfs_blk_index *idx); /* entries are filled: fill plain_off */
struct kfs_blk_index *kfs_blk_index_ref(struct kfs_blk_index *idx);
void kfs_blk_index_unref(struct kfs_blk_index *idx); /* NULL is fine */
/* The frame that holds plain offset `off`; -1: the object has none. */
int64_t kfs_blk_index_find(const struct kfs_blk_index *idx, uint64_t off);

/* How much of an object's tail to ask for: enough for the index of some 250 frames. */
#define KFS_OBJECT_TAIL_GUESS 16384u
/* Check and parse an object's last tail_len bytes. 0: *ret has a reference. 1: more of the tail is
 * needed, *ret_need bytes. -EIO: damaged. -ENOKEY: sealed with a key that s does not have. */
int kfs_blk_index_parse(const struct kfs_store *s, uint64_t object, const void *tail,
                        size_t tail_len, uint64_t object_bytes, size_t *ret_need,
                        struct kfs_blk_index **ret, struct kfs_err *err);
/* From the cache, else by GET. */
int kfs_blk_index_get(struct kfs_store *s, uint64_t object, struct kfs_blk_index **ret,
                      struct kfs_err *err);
/* Frame i from its stored bytes into plain (room for plain_len): unsealed, decompressed, hash
 * checked. -EIO: damaged. */
int kfs_blk_frame_decode(const struct kfs_store *s, const struct kfs_blk_index *idx, uint32_t i,
                         const void *stored, void *plain, struct kfs_err *err);
/* "object 'KEY' is damaged: WHAT; restore it …". Returns -EIO. */
int kfs_blk_damaged(const struct kfs_store *s, uint64_t object, const char *what,
                    struct kfs_err *err);

/* Set-associative, so that finding and replacing need no list; bounded in bytes as well. */
#define KFS_BLK_INDEX_SETS      2048
#define KFS_BLK_INDEX_WAYS      4
#define KFS_BLK_INDEX_BYTES_MAX (24u << 20)
struct kfs_blk_index_slot {
    struct kfs_blk_index *idx; /* NULL: empty */
    uint64_t used;             /* tick of the last look */
};
struct kfs_blk_index_cache {
    pthread_mutex_t lock;
    uint64_t tick;
    size_t bytes, hand;
    struct kfs_blk_index_slot slots[KFS_BLK_INDEX_SETS][KFS_BLK_INDEX_WAYS];
};
void kfs_blk_index_cache_init(struct kfs_blk_index_cache *c);
void kfs_blk_index_cache_clear(struct kfs_blk_index_cache *c);
struct kfs_blk_index *kfs_blk_index_cache_get(struct kfs_blk_index_cache *c,
                                              uint64_t object); /* a reference, or NULL */
void kfs_blk_index_cache_put(struct kfs_blk_index_cache *c, struct kfs_blk_index *idx);
void kfs_blk_index_cache_drop(struct kfs_blk_index_cache *c, uint64_t object);

/* --- store.c ----------------------------------------------------------------------------------- */
struct kfs_blk_packs;
struct kfs_blk_parts;
struct kfs_fetch;
struct kfs_store {
    char *url;
    struct kfs_drv *drv;
    char volume[KFS_VOLUME_ID_MAX + 1];
    bool compress;
    uint64_t pack_bytes, pack_file_bytes;
    struct kfs_keyring *keys; /* NULL: not encrypted */
    struct kfs_blk_index_cache index;
    struct kfs_blk_packs *packs; /* pack.c */
    struct kfs_blk_parts *parts; /* writer.c */
    struct kfs_fetch *fetch;     /* fetch.c */
};

#define KFS_STORE_OBJECT_PREFIX "o/"
#define KFS_STORE_KEY_LEN       38 /* "o/XX/" + 16 + "-" + 16 */
/* The driver's key of an object: KFS_DRV_KEY_MAX bytes. */
void kfs_blk_key(const struct kfs_store *s, uint64_t object, char *buf);
/* The id in a driver's key, or 0: not an object of this volume. */
uint64_t kfs_blk_key_object(const struct kfs_store *s, const char *key);
/* Bytes [off, off + len) of an object, all of them. off KFS_DRV_TAIL: up to len; *ret_got,
 * *ret_bytes (the object's size) may be NULL. A missing or cut object is -EIO. */
int kfs_blk_object_get(struct kfs_store *s, uint64_t object, uint64_t off, void *buf, size_t len,
                       size_t *ret_got, uint64_t *ret_bytes, struct kfs_err *err);

/* --- fetch.c: the fetch path ------------------------------------------------------------------- */
/* Its threads start with the first fill. */
int kfs_fetch_open(struct kfs_store *s, struct kfs_drv *d, struct kfs_fetch **ret_e,
                   struct kfs_err *err);
void kfs_fetch_close(struct kfs_fetch *e); /* no fill is left; NULL is fine */

/* --- writer.c: one object, written frame by frame ---------------------------------------------- */
/* Header, index and trailer of an object around its frames. */
struct kfs_blk_tables {
    struct kfs_object_header h;
    struct kfs_object_trailer t;
    bool sealed;
    uint8_t key[KFS_KEY_BYTES];
};
/* Header and what is known of the trailer; takes a salt and the current key if the store has one. */
int kfs_blk_tables_begin(const struct kfs_store *s, uint64_t object, struct kfs_blk_tables *ret,
                         struct kfs_err *err);
/* Bytes that kfs_blk_tables_end writes for `count` frames. */
size_t kfs_blk_tables_len(const struct kfs_blk_tables *t, uint32_t count);
/* Index and trailer to `out`; at: where they lie in the object. */
int kfs_blk_tables_end(struct kfs_blk_tables *t, const struct kfs_object_entry *entries,
                       uint32_t count, uint64_t at, void *out);

#define KFS_PART_BYTES (8u << 20) /* of an upload */
#define KFS_PARTS_MAX  8          /* part buffers of a store: 64 MiB under way at once */

struct kfs_blk_parts *kfs_blk_parts_new(void);
void kfs_blk_parts_free(struct kfs_blk_parts *p);

struct kfs_blk_writer;
/* A large object. Blocks while too many parts are under way. */
int kfs_blk_writer_begin(struct kfs_store *s, uint64_t object, struct kfs_blk_writer **ret_w,
                         struct kfs_err *err);
/* stored: as compressed by `codec`, not sealed. e: plain_len, codec, hash, ino and file_off are
 * set. */
int kfs_blk_writer_add(struct kfs_blk_writer *w, const struct kfs_object_entry *e,
                       const void *stored, size_t stored_len, struct kfs_err *err);
uint32_t kfs_blk_writer_count(const struct kfs_blk_writer *w);
uint64_t kfs_blk_writer_plain(const struct kfs_blk_writer *w); /* plain bytes so far */
/* No frame follows: the rest gets on its way. */
int kfs_blk_writer_end(struct kfs_blk_writer *w, bool durable, struct kfs_err *err);
bool kfs_blk_writer_is_sent(struct kfs_blk_writer *w); /* ended, and no part is under way: to wait is quick */
/* Until the object is safe. Frees w, whatever the result; on failure nothing stays behind. */
int kfs_blk_writer_wait(struct kfs_blk_writer *w, uint64_t *ret_bytes, struct kfs_err *err);
void kfs_blk_writer_abort(struct kfs_blk_writer *w); /* at any time instead; NULL is fine */

/* --- pack.c: frames of many files in one object ------------------------------------------------- */
struct kfs_blk_pack;
struct kfs_blk_frame { /* compressed, not sealed; e as for kfs_blk_writer_add */
    struct kfs_object_entry e;
    const void *stored;
    size_t stored_len;
};
int kfs_blk_packs_new(struct kfs_store *s, struct kfs_err *err);
void kfs_blk_packs_free(struct kfs_store *s); /* no commit is under way */
/* Put frames into the current pack, all into one. *ret_pack has a reference. *ret_object, *ret_off:
 * the plain offset of the first; the others follow. Blocks while too much is under way. */
int kfs_blk_pack_add(struct kfs_store *s, const struct kfs_blk_frame *v, size_t count, bool durable,
                     kfs_store_new_id new_id, void *arg, struct kfs_blk_pack **ret_pack,
                     uint64_t *ret_object, uint64_t *ret_off, struct kfs_err *err);
/* Until the pack is safe; gives the reference back. */
int kfs_blk_pack_wait(struct kfs_store *s, struct kfs_blk_pack *p, uint64_t *ret_bytes,
                      struct kfs_err *err);
/* Not interested any more: the reference goes back; what was put in stays in. NULL is fine. */
void kfs_blk_pack_leave(struct kfs_store *s, struct kfs_blk_pack *p);

#endif
