/* blockstore/fetch.h — the one fetch path: frames from objects into cache files
 *
 * What     A struct kfs_fill is one version of one file that is arriving in a partial file. Readers say which range they want now; read-ahead and whole
 *          fills say what may come later. The engine coalesces frames into ranged GETs, runs as many at once as the driver allows, verifies, decrypts and
 *          decompresses each frame the moment it is here, writes it, and wakes whoever waits for it.
 * Model    Each frame of a fill is missing, under way, present or failed; it goes to under way once (single flight over all readers of the node).
 *          Priority: a waiting reader before read-ahead before a whole fill. A frame that fails its check is fetched once more, then its waiters get -EIO
 *          with the object's key; the next want tries again. Index reads are single-flight as well.
 *          Read-ahead is by pattern per (fill, reader): sequential, strided, backwards, random; the window grows to what the link can carry in a round trip.
 *          Holes and inline content are present from the start.
 * Owner    kfs_fill_start takes over the content map and the descriptors' duplicates; refs by kfs_fill_ref / unref.
 * Threads  Any thread. One engine per store: a few decoders; the driver's threads feed them. Callbacks run on a decoder.
 * Blocks   want and wait: until present, failed, or cancelled by kfs_fill_cancel (EINTR).
 */
#ifndef KFS_BLOCKSTORE_FETCH_H
#define KFS_BLOCKSTORE_FETCH_H

#include "base/err.h"
#include "base/extent.h"
#include "base/pure/arrival.h"
#include "blockstore/driver.h"

struct kfs_store;
struct kfs_fill;

/* file_fd: an empty read-write file, sized here. arrival: the map to keep true (kfs_arrival_bytes(size), zeroed, header filled here), or NULL.
 * *c is emptied. on_whole: once, when the last frame is here (or at once, before return, when nothing is missing); may be NULL. */
int kfs_fill_start(struct kfs_store *s, struct kfs_content *c, kfs_ino_t ino, uint64_t version, int file_fd, struct kfs_arrival *arrival,
                   void (*on_whole)(void *arg, struct kfs_fill *f), void *arg, struct kfs_fill **ret_f, struct kfs_err *err);
struct kfs_fill *kfs_fill_ref(struct kfs_fill *f);
/* The last one stops what is not under way, and waits for on_whole, which therefore must not call it. NULL is fine. */
void kfs_fill_unref(struct kfs_fill *f);
void kfs_fill_cancel(struct kfs_fill *f); /* waiters get -EINTR; nothing new starts */

/* A reader needs [off, off + len) now: present when 0 is returned. What was present already is told for the sake of read-ahead. reader: any number that tells readers of one fill apart (read-ahead is per reader; 0: no
 * read-ahead). Beyond the end counts as present. */
int kfs_fill_want(struct kfs_fill *f, uint64_t reader, uint64_t off, uint64_t len, struct kfs_err *err);
/* Bring all of it, in layout order or in the order of `first` (ranges to start with, e.g. by a safetensors header), at this priority; does not wait. */
struct kfs_range { uint64_t off, len; };
void kfs_fill_all(struct kfs_fill *f, const struct kfs_range *first, size_t count, enum kfs_drv_priority p);
int kfs_fill_wait(struct kfs_fill *f, struct kfs_err *err); /* until whole */
bool kfs_fill_is_whole(const struct kfs_fill *f);
int kfs_fill_state(struct kfs_fill *f); /* 1 whole, 0 on its way, -errno of a frame that could not be had */
/* Ids of the objects it may still read: garbage collection spares them. cb != 0 stops. */
int kfs_fill_each_object(struct kfs_fill *f, int (*cb)(void *arg, uint64_t object), void *arg);

struct kfs_fetch_stats {
    uint64_t gets, bytes;      /* that ended, index reads among them */
    uint64_t again;            /* frames fetched a second time, because they failed their check */
    uint64_t ttfb_ns, bytes_per_s; /* moving averages: until the first byte, and what the link carried */
    uint64_t held_bytes;       /* of memory at this moment */
};
void kfs_fetch_stats(struct kfs_store *s, struct kfs_fetch_stats *ret);

/* What is read ahead between plug and unplug is looked at as a whole, so that fills asked for one by one share long ranges. They nest. */
void kfs_fetch_plug(struct kfs_store *s);
void kfs_fetch_unplug(struct kfs_store *s);
/* Whose frames an object holds, as its index says (a hint: what the metadata says now is another matter). May wait for the index. cb != 0 stops, and is
 * returned. */
typedef int (*kfs_fetch_owner_cb)(void *arg, kfs_ino_t ino, uint64_t file_off, uint64_t plain_off, uint32_t plain_len);
int kfs_fetch_each_owner(struct kfs_store *s, uint64_t object, kfs_fetch_owner_cb cb, void *arg, struct kfs_err *err);

#endif
