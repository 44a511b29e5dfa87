/* blockstore/http.h — HTTP exchanges over libcurl's multi interface, one event thread
 *
 * What     Runs any number of exchanges at once over connections that are kept and reused: HTTP/1.1, and HTTP/2 where the far end speaks it. Knows
 *          nothing of S3, of retries or of priorities: its owner decides all that in `tick`.
 * Model    One thread per struct kfs_http. It calls tick once per turn; tick starts and stops exchanges, and says when it wants to be called again at the
 *          latest. kfs_http_wake makes it run now. An exchange that was started ends with on_done, exactly once, unless it is stopped.
 * Owner    struct kfs_http_xfer and everything it points to is the caller's and stays put from start to on_done or stop. Header lines are copied, and
 *          their copies wiped.
 * Threads  kfs_http_wake: any. start, stop, resume, and all callbacks: the event thread. start and stop not from within on_head and on_body.
 * Blocks   Callbacks must not. kfs_http_fetch blocks: it is for the few small exchanges outside the event thread.
 * TLS      Certificates are always checked, against the system's authorities or ca_file, unless `insecure` was asked for.
 * Proxy    The given one, else the environment's (http_proxy, https_proxy, no_proxy); never for a loopback address.
 * Errors   code is a CURLcode; kfs_http_errno makes a negative errno of it.
 */
#ifndef KFS_BLOCKSTORE_HTTP_H
#define KFS_BLOCKSTORE_HTTP_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct kfs_http;

#define KFS_HTTP_HEADERS_MAX 24
#define KFS_HTTP_PAUSE ((size_t)-1) /* from on_body: keep this data, ask again after kfs_http_resume */

enum kfs_http_version { KFS_HTTP_AUTO, KFS_HTTP_1, KFS_HTTP_2 };

struct kfs_http_options {
    const char *ca_file, *proxy; /* NULL: the system's */
    bool insecure;
    enum kfs_http_version version;
    unsigned connections_max; /* kept open */
    unsigned connect_ms;      /* how long to try to connect, TLS included */
};

struct kfs_http_xfer {
    const char *method, *url;
    const char *headers[KFS_HTTP_HEADERS_MAX]; /* "Name: value"; "Name:" leaves out what curl would send */
    int header_count;
    const struct iovec *body; /* sent when has_body; body_len is their sum */
    int body_count;
    uint64_t body_len;
    bool has_body;
    bool head_only;        /* HEAD: the answer has no body whatever its headers say */
    bool fresh_connection; /* not one that is there already */

    /* One header line without its end; a status line begins a new answer. */
    void (*on_head)(struct kfs_http_xfer *x, const char *line, size_t len);
    /* len, KFS_HTTP_PAUSE, or anything else to break off (code: CURLE_WRITE_ERROR) */
    size_t (*on_body)(struct kfs_http_xfer *x, const char *data, size_t len);
    bool (*may_send)(struct kfs_http_xfer *x);            /* false: not until kfs_http_resume; may be NULL */
    void (*on_sent)(struct kfs_http_xfer *x, size_t len); /* body bytes on their way; may be NULL */
    void (*on_done)(struct kfs_http_xfer *x);
    void *arg;

    int code;         /* CURLcode */
    long http_status; /* 0: no answer */
    int os_errno;
    char text[256]; /* what went wrong, for people */

    struct { void *easy, *lines; int iov; size_t off; struct kfs_http *h; bool no_proxy; } priv;
};

/* Called on the event thread; returns the monotonic time of its next call at the latest (UINT64_MAX: only when something happens). */
typedef uint64_t (*kfs_http_tick)(void *arg, uint64_t now_ns);

int kfs_http_open(const struct kfs_http_options *o, kfs_http_tick tick, void *arg, struct kfs_http **ret_h, struct kfs_err *err);
void kfs_http_close(struct kfs_http *h); /* nothing is running any more; NULL is fine */
void kfs_http_wake(struct kfs_http *h);

int kfs_http_start(struct kfs_http *h, struct kfs_http_xfer *x); /* -ENOMEM: on_done will not come */
void kfs_http_stop(struct kfs_http *h, struct kfs_http_xfer *x); /* no on_done; the connection is given up */
void kfs_http_resume(struct kfs_http_xfer *x);

/* Negative errno of an exchange that failed below HTTP; *ret_again: another try may help. */
int kfs_http_errno(int code, int os_errno, bool *ret_again);
bool kfs_http_is_loopback(const char *url);

/* One small exchange, waiting, at most seconds. *ret_len bytes of the answer's body in buf (more than cap - 1: -E2BIG), NUL behind. headers: NULL at the end.
 * The HTTP status, or -errno with err. */
int kfs_http_fetch(const char *method, const char *url, const char *const *headers, const char *body, const struct kfs_http_options *o, unsigned seconds,
                   char *buf, size_t cap, size_t *ret_len, struct kfs_err *err);

#endif
