/* blockstore/s3.h — what the files of the driver `s3` share; only s3_*.c and driver_s3.c include it
 *
 * Model    A *call* is one thing asked of the server until it has its final answer; an *attempt* is one exchange for it. A call has one attempt at a time, or
 *          two while it is hedged. driver_s3.c makes calls of requests and puts calls together; s3_call.c runs them.
 *            submitted → [ready] → running → finished
 *                           ↑         ↓ failed, worth another try
 *                           └──── delayed
 * Threads  `lock` protects what stands below it in struct kfs_s3; what stands below "event thread" is that thread's alone, as are calls from submission to
 *          `done`. Everything else is constant after open.
 */
#ifndef KFS_BLOCKSTORE_S3_H
#define KFS_BLOCKSTORE_S3_H

#include "base/buf.h"
#include "blockstore/cred.h"
#include "blockstore/driver_ops.h"
#include "blockstore/driver_s3.h"
#include "blockstore/http.h"
#include "blockstore/s3_xml.h"
#include "blockstore/sigv4.h"
#include <pthread.h>

#define KFS_S3_KEY_MAX 1024 /* with the prefix */
#define KFS_S3_SAMPLES 256

struct kfs_s3;
struct kfs_s3_attempt;

struct kfs_s3_call {
    /* asked: set before submission */
    const char *method, *verb; /* "GET", "get": for messages */
    char key[KFS_S3_KEY_MAX + 1]; /* with the prefix; "" : the bucket itself */
    char query[2048];             /* encoded; "" : none */
    const struct iovec *body;
    int body_count;
    uint64_t body_len;
    bool has_body, if_absent, head_only;
    const char *md5;     /* Content-MD5, or NULL */
    char payload[65];    /* SHA-256 of the body, or "UNSIGNED-PAYLOAD" */
    char sum[48];        /* the same in base64, or "" */
    enum kfs_drv_priority priority;
    struct kfs_drv_req *q;                 /* the request; NULL: a call of the driver's own */
    void (*done)(struct kfs_s3_call *c);   /* event thread; may free c */
    void *arg;
    bool reads_xml;                        /* a 200 may hold an <Error> */
    int broken;                            /* -errno: could not even be made; it only needs its `done` */

    /* GET of a range: where in the value q->buf begins (known after the first answer, when the tail was asked for) */
    bool ranged, started;
    uint64_t start, total;
    size_t want, have;
    char etag[128];
    bool compare; /* the ETag changed: what is here already must come again the same */

    /* the answer */
    int status;
    struct kfs_err err;
    struct kfs_s3_head head;
    struct kfs_s3_error said;
    struct kfs_buf reply;

    /* event thread */
    struct kfs_s3_call *next;
    struct kfs_s3_attempt *a[2];
    uint64_t first_ns, due_ns, refused_generation;
    unsigned attempts, moves;
    bool cancel; /* under lock */
    unsigned skews; /* corrections of the clock */
    bool unsure, checking;
    char mark[33];
};

struct kfs_s3_queue {
    struct kfs_s3_call *first, **last;
};

struct kfs_s3 {
    struct kfs_drv base; /* first */
    struct kfs_s3_conf conf; /* conf.region: event thread */
    struct kfs_http *http;
    struct kfs_cred *cred;
    unsigned requests_max;
    uint64_t budget_ns;

    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct kfs_s3_queue in;
    unsigned outstanding;
    bool cancelled; /* some call's cancel was set */

    /* event thread */
    struct kfs_s3_queue ready[3];
    struct kfs_s3_call *delayed;
    struct kfs_s3_attempt *running;
    unsigned active;      /* calls with an attempt */
    double limit;         /* of active */
    uint64_t cut_ns;      /* when limit was halved last */
    int64_t clock_offset; /* of the server, seconds */
    uint64_t samples[KFS_S3_SAMPLES]; /* ns to the first byte */
    unsigned sample_count, hedges_recent, hedges_won_recent, gets_since;
    uint64_t hedge_ns, hedge_off_until; /* in numbers of GETs */
    uint64_t gets;

    /* atomic */
    uint64_t requests[5], attempts, retries, hedges, hedges_won, sent_bytes, received_bytes;
    unsigned stat_running, stat_limit;
};

struct kfs_s3_upload {
    struct kfs_drv_upload base; /* first */
    char id[1024];
    pthread_mutex_t lock;
    struct kfs_s3_part {
        char etag[128];
        uint64_t bytes;
    } *parts; /* [number - 1] */
    unsigned part_count;
};

/* s3_call.c */
uint64_t kfs_s3_tick(void *arg, uint64_t now_ns);
void kfs_s3_submit(struct kfs_s3 *d, struct kfs_s3_call *c);
/* Submit and wait: c->status. */
int kfs_s3_wait(struct kfs_s3 *d, struct kfs_s3_call *c);
int kfs_s3_message(struct kfs_s3 *d, struct kfs_s3_call *c, int rc, const char *why, const char *cure);

#endif
