/* blockstore/driver.h — bytes under a key: the interface of the object drivers (`file`, `s3`)
 *
 * What     A driver keeps immutable values under short ASCII keys. It knows nothing of frames, packs or volumes. One value is written once, complete or
 *          not at all; readers see whole values or none. Keys are relative to the URL's prefix; their characters are [0-9a-z/._-]; no key is a
 *          directory prefix of another (the caller's promise).
 * Model    Requests are asynchronous: fill a struct kfs_drv_req, submit it, `done` is called exactly once, from a thread of the driver. Many requests run
 *          at once; their order is by priority, then first come first served. Retries, back-off, hedging and the adaptation of concurrency happen inside
 *          the driver: what arrives in `done` is final. The kfs_drv_* calls with plain names below are the same, waiting.
 * Owner    The request and everything it points to belong to the caller and stay put until `done` was called. `done` may free the request.
 * Threads  Any thread. `progress` and `done` run on the driver's thread: short, no waiting, no other driver call that waits.
 * Blocks   submit: no. The waiting forms: yes.
 * Errors   status is 0 or -errno and err says what, where (URL and key) and the cure; never a credential. ENOENT no such key · EEXIST conditional put, it is
 *          there · EACCES refused (403, wrong signature, clock skew, expired credentials that could not be renewed) · ERANGE range outside the value ·
 *          EIO damaged or incomplete after all retries · ETIMEDOUT, EHOSTUNREACH, ECONNREFUSED the far end could not be reached within the retry
 *          budget · ENOSPC, EDQUOT, EROFS of the store · ECANCELED.
 */
#ifndef KFS_BLOCKSTORE_DRIVER_H
#define KFS_BLOCKSTORE_DRIVER_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct kfs_drv;

#define KFS_DRV_KEY_MAX 128
#define KFS_DRV_IOV_MAX 64
#define KFS_DRV_PART_MIN (5u << 20) /* every part of an upload but the last has at least this */

enum kfs_drv_op { KFS_DRV_GET, KFS_DRV_PUT, KFS_DRV_HEAD, KFS_DRV_DELETE, KFS_DRV_PART };
enum kfs_drv_priority { KFS_DRV_WAITING, KFS_DRV_AHEAD, KFS_DRV_WARM }; /* a reader waits · read-ahead, write-back · background */

#define KFS_DRV_TAIL UINT64_MAX /* GET, off: the last len bytes (all of them, if it has fewer) */
/* flags */
#define KFS_DRV_NEW 1u     /* PUT: only if the key is absent, else -EEXIST */
#define KFS_DRV_DURABLE 2u /* PUT, upload: survives a power cut of the far end when done (S3: always) */

struct kfs_drv_upload;

struct kfs_drv_req {
    enum kfs_drv_op op;
    enum kfs_drv_priority priority;
    unsigned flags;
    char key[KFS_DRV_KEY_MAX];
    uint64_t off; /* GET: start, or KFS_DRV_TAIL */
    size_t len;   /* GET: bytes wanted, and room in buf */
    void *buf;    /* GET */
    struct iovec iov[KFS_DRV_IOV_MAX]; /* PUT, PART: the bytes; untouched by the driver */
    int iov_count;
    struct kfs_drv_upload *upload; /* PART */
    unsigned part;                 /* PART: 1, 2, … */
    uint64_t part_off;             /* PART: where its bytes lie in the whole value */
    /* GET: bytes [0, have) of buf are here. Rises; a retry never takes back what was told (the driver goes on behind it by a ranged GET with If-Match).
     * May be NULL. */
    void (*progress)(struct kfs_drv_req *q, size_t have);
    void (*done)(struct kfs_drv_req *q);
    void *arg;

    int status;
    size_t got;           /* GET: bytes in buf; less than len only where the value ends */
    uint64_t value_bytes; /* GET, HEAD: size of the whole value */
    int64_t mtime_s;      /* HEAD */
    struct kfs_err err;
    struct { struct kfs_drv_req *next; void *p; uint64_t n[6]; } priv; /* the driver's */
};

/* What a driver's owner may set; 0 or NULL means the default. Byte rates: see blockstore/limit.h; drivers take from kfs_limit_upload and
 * kfs_limit_download what they send and receive, so that a change is felt at once. */
struct kfs_drv_options {
    unsigned requests_max;           /* at once (default 32) */
    double retry_budget_s;           /* a request is given up after (default 60) */
    const char *settings;            /* s3: text of "key=value" lines, see blockstore/driver_s3.h */
};

/* "file:/absolute/dir" or "s3://bucket/prefix?…". create: make the directory (a bucket is never created). -EINVAL: unknown scheme or bad URL. */
int kfs_drv_open(const char *url, const struct kfs_drv_options *o, bool create, struct kfs_drv **ret_d, struct kfs_err *err);
void kfs_drv_close(struct kfs_drv *d); /* waits for what is under way; NULL is fine */
const char *kfs_drv_url(const struct kfs_drv *d); /* for messages: no secret in it */
bool kfs_drv_is_remote(const struct kfs_drv *d);  /* a request costs a round trip over a network */

void kfs_drv_submit(struct kfs_drv *d, struct kfs_drv_req *q);
void kfs_drv_cancel(struct kfs_drv *d, struct kfs_drv_req *q); /* done comes, with -ECANCELED or the result */
int kfs_drv_run(struct kfs_drv *d, struct kfs_drv_req *q);     /* submit and wait: returns q->status; q->done and q->arg are not the caller's */
int kfs_drv_req_key(struct kfs_drv_req *q, const char *key, struct kfs_err *err); /* set q->key; -EINVAL: too long */

/* The waiting forms. get: *ret_got bytes; ret_value_bytes may be NULL. */
int kfs_drv_get(struct kfs_drv *d, const char *key, uint64_t off, void *buf, size_t len, size_t *ret_got, uint64_t *ret_value_bytes, struct kfs_err *err);
int kfs_drv_put(struct kfs_drv *d, const char *key, const void *buf, size_t len, unsigned flags, struct kfs_err *err);
int kfs_drv_head(struct kfs_drv *d, const char *key, uint64_t *ret_bytes, int64_t *ret_mtime_s, struct kfs_err *err);
int kfs_drv_delete(struct kfs_drv *d, const char *key, struct kfs_err *err); /* absent is fine */
/* Any number of keys, in as few requests as the far end allows; absent ones are fine. */
int kfs_drv_delete_many(struct kfs_drv *d, const char *const *keys, size_t count, struct kfs_err *err);
/* Each key that starts with prefix and lies behind `after` (NULL: all), in byte order. cb != 0 stops, and is returned. */
typedef int (*kfs_drv_list_cb)(void *arg, const char *key, uint64_t bytes, int64_t mtime_s);
int kfs_drv_list(struct kfs_drv *d, const char *prefix, const char *after, kfs_drv_list_cb cb, void *arg, struct kfs_err *err);
int kfs_drv_sync(struct kfs_drv *d, struct kfs_err *err);
int kfs_drv_statfs(struct kfs_drv *d, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes, struct kfs_err *err); /* s3: -EOPNOTSUPP */

/* A value in parts (multipart upload). begin waits; parts are requests of op KFS_DRV_PART, any number at once; then finish or abort, which wait. The
 * value appears at finish. Nothing of it stays behind after abort. */
int kfs_drv_upload_begin(struct kfs_drv *d, const char *key, struct kfs_drv_upload **ret_u, struct kfs_err *err);
int kfs_drv_upload_finish(struct kfs_drv_upload *u, unsigned flags, struct kfs_err *err); /* frees u, whatever the result */
void kfs_drv_upload_abort(struct kfs_drv_upload *u);                                     /* frees u; NULL is fine */
/* Uploads begun more than age_s ago and never finished (of writers that died): abort them. Returns how many. */
int64_t kfs_drv_upload_sweep(struct kfs_drv *d, int64_t age_s, struct kfs_err *err);

struct kfs_drv_stats {
    uint64_t requests[5]; /* by kfs_drv_op, final ones */
    uint64_t attempts, retries, hedges, hedges_won;
    uint64_t sent_bytes, received_bytes;
    unsigned running, limit; /* requests at once: now, and allowed at present */
};
void kfs_drv_stats(struct kfs_drv *d, struct kfs_drv_stats *ret);

#endif
