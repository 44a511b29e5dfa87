/* blockstore/fetch_engine.h — what fetch.c (objects, gets, decoders) and fill.c (files that arrive) share; nobody else includes it
 *
 * Model    Three layers under one lock.
 *          A *fill* knows the state of each of its frames (a slot). What it wants becomes a *target*: "these plain bytes of that object, to this place".
 *          An *object* exists while something is wanted of it. Until its index is known its targets wait in `early`; then each is hung to a *frame*,
 *          which is idle, queued (in one of three queues, by priority) or flying. Fills that want the same frame share it: that is the single flight.
 *          A *get* is one ranged GET for frames that lie side by side and are all queued. Each frame is checked, decoded and written by a decoder the
 *          moment its bytes are here, from the get's own buffer.
 *
 *              missing --kfs_fetch_want--> queued, flying --kfs_fetch_arrived(0)--> present
 *                 ^                              '--------kfs_fetch_arrived(-errno)--> failed --want, fill_all--> missing
 *
 * Priority A get is built around the oldest frame of the best queue and takes along what lies behind it, whatever its priority: a waiting reader's frame is
 *          the first of its get, and read-ahead costs it nothing.
 * Locks    engine.lock is a leaf: neither the driver nor a callback is called under it. Functions named _locked need it.
 */
#ifndef KFS_BLOCKSTORE_FETCH_ENGINE_H
#define KFS_BLOCKSTORE_FETCH_ENGINE_H

#include "base/map.h"
#include "blockstore/fetch.h"
#include "blockstore/readahead.h"
#include "blockstore/store.h"
#include <pthread.h>

#define FETCH_PRIORITIES   3
#define FETCH_DECODERS_MAX 4
#define FETCH_BUF_CLASSES  8 /* 64 KiB … 8 MiB */

struct fetch_target {
    struct fetch_target *next;
    struct kfs_fill *fill;  /* holds `inner` of it */
    uint64_t slot, frame;   /* of the fill; frame of the file */
    uint64_t plain_off;     /* in the object */
    uint32_t len;           /* plain bytes, at most KFS_FRAME_BYTES */
    uint32_t skip;          /* where they start in the object's frame */
};

enum fetch_frame_state { FETCH_IDLE, FETCH_QUEUED, FETCH_FLYING };
struct fetch_frame {
    struct fetch_frame *next, *prev; /* queued: in the queue of its priority */
    struct fetch_target *targets;
    struct fetch_object *object;
    uint8_t state, priority, failures;
};

struct fetch_object {
    uint64_t id;
    unsigned frames_busy; /* not idle */
    unsigned gets;        /* that carry its frames or its index */
    enum { FETCH_INDEX_NONE, FETCH_INDEX_LOADING, FETCH_INDEX_KNOWN } index_state;
    uint8_t early_priority, index_failures;
    struct fetch_target *early, **early_last;
    struct kfs_blk_index *index;
    struct fetch_frame *frames; /* index->count */
};

struct fetch_get {
    struct kfs_drv_req q;
    struct fetch_get *next; /* in `todo` or `jobs` */
    struct kfs_fetch *e;
    struct fetch_object *object;
    bool is_index, is_done, has_job;
    bool cancelled, pinned, over; /* while the engine closes: being cancelled, which free must wait for */
    struct fetch_get *fly_next, **fly_at; /* in `flying`, until it is freed */
    uint32_t first, count;             /* frames */
    uint32_t here, taken, finished;    /* of count: arrived, begun, ended */
    size_t next_end;                   /* bytes of buf that make the next frame whole */
    uint64_t sent_ns, first_byte_ns;
};

struct fetch_buf {
    struct fetch_buf *next;
};

struct kfs_fetch {
    struct kfs_store *store;
    struct kfs_drv *drv;

    pthread_mutex_t lock;
    pthread_cond_t work;   /* decoders: jobs or the end */
    pthread_cond_t idle;   /* close: nothing is under way */
    struct kfs_map objects;
    struct { struct fetch_frame *first, *last; } queue[FETCH_PRIORITIES];
    uint64_t queued_bytes;
    struct fetch_get *todo, **todo_last; /* built, to be submitted as soon as the lock is free */
    struct fetch_get *jobs, **jobs_last; /* have frames to decode */
    struct fetch_get *flying;            /* every get */
    struct kfs_fill *alls, **alls_last;  /* whole fills with slots left to queue */
    unsigned running, limit;             /* gets at the driver */
    uint64_t bytes_held;                 /* of gets */
    uint64_t ttfb_ns, bytes_per_s;       /* moving averages */
    uint64_t rtt_ns;                     /* the least time to a first byte of late */
    uint64_t rate_since_ns, rate_bytes;
    uint64_t gets, bytes, again;
    bool threads_on, stop;
    unsigned plugs; /* only waiting readers are served */
    unsigned decoder_count, decoders_idle;
    pthread_t decoders[FETCH_DECODERS_MAX];

    pthread_mutex_t buf_lock;
    struct fetch_buf *buf_free[FETCH_BUF_CLASSES];
    uint64_t buf_free_bytes;
};

enum fetch_slot_state { FETCH_SLOT_MISSING, FETCH_SLOT_WANTED, FETCH_SLOT_PRESENT, FETCH_SLOT_FAILED };
#define FETCH_READERS 16

struct fetch_waiter {
    struct fetch_waiter *next;
    uint64_t first, last; /* frames of the file */
    uint64_t pending;     /* of them not present */
    int rc;
    struct kfs_err err;
};

struct kfs_fill {
    struct kfs_fetch *e;
    kfs_ino_t ino;
    uint64_t version;
    struct kfs_content content;
    uint64_t *slot_base; /* extent_count + 1: the first slot of each extent; only frames in extents have slots */
    uint8_t *slots;      /* enum fetch_slot_state */
    uint64_t left;       /* slots not present */
    uint64_t wanted;     /* slots in state WANTED */
    int fd;              /* -1 once whole */
    pthread_mutex_t write; /* the kernel lets one write to a file at a time: waiting here costs nothing, there a processor */
    struct kfs_arrival *arrival;
    void (*on_whole)(void *arg, struct kfs_fill *f);
    void *arg;

    unsigned refs;  /* the callers' */
    unsigned inner; /* targets, waiters, the callers together, deliveries */
    bool cancelled, whole, calling; /* calling: in on_whole */
    pthread_cond_t changed;
    struct fetch_waiter *waiters;
    struct kfs_readahead *readers; /* FETCH_READERS, or NULL */
    uint64_t tick;

    bool all, in_alls;
    uint8_t all_priority;
    struct kfs_range *first;
    size_t first_count, first_at;
    uint64_t first_pos, cursor; /* next: offset in first[first_at]; slot */
    struct kfs_fill *next_all;
    unsigned failed; /* slots that failed since the last fill_all */
    struct kfs_err err;
};

/* --- fetch.c ---------------------------------------------------------------------------------- */
int kfs_fetch_start_threads_locked(struct kfs_fetch *e);
/* Takes over t (its fill's `inner` was raised for it). -ENOMEM: not taken. */
int kfs_fetch_want_locked(struct kfs_fetch *e, uint64_t object, struct fetch_target *t, unsigned priority);
void kfs_fetch_raise_locked(struct kfs_fetch *e, uint64_t object, uint64_t plain_off, unsigned priority);
int64_t kfs_fetch_window_locked(const struct kfs_fetch *e); /* frames that the link holds */
/* Give up the lock, after starting what can be started. */
void kfs_fetch_unlock(struct kfs_fetch *e);

/* --- fill.c ----------------------------------------------------------------------------------- */
/* One frame has come (rc 0, written) or not. May give up the lock for a callback and take it again. Frees t. */
void kfs_fetch_arrived_locked(struct kfs_fetch *e, struct fetch_target *t, int rc, const struct kfs_err *err);
/* Queue more of the whole fills. */
void kfs_fetch_refill_locked(struct kfs_fetch *e);
int kfs_fetch_write(int fd, const void *plain, size_t len, uint64_t off); /* runs of zeros stay holes */

#endif
