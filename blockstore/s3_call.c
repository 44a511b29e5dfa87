/* blockstore/s3_call.c — running calls: signing, retries, hedges, how many at once */
#include "blockstore/s3.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "blockstore/limit.h"
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS 1000000ull
#define BACKOFF_MS 50u
#define BACKOFF_MAX_MS 5000u
#define KEYS_PAUSE_MS 200u /* between looks for newer keys */
#define CUT_EVERY_NS (500 * MS)
#define ERROR_BYTES_MAX (64u << 10)
#define HEDGE_MIN_NS (20 * MS)
#define HEDGE_MID_MIN_NS (400 * MS)
#define HEDGE_WINDOW 20u      /* hedges over which their use is judged */
#define HEDGE_PAUSE_GETS 2000u
#define SKEW_S 60

#define ADD(field, n) ((void)__atomic_add_fetch(&(field), (n), __ATOMIC_RELAXED))

struct kfs_s3_attempt {
    struct kfs_http_xfer x;
    struct kfs_s3 *d;
    struct kfs_s3_call *c;
    struct kfs_s3_attempt *next; /* of running */
    struct kfs_s3_head head;
    struct kfs_buf lines;  /* header lines, each with its NUL */
    char *url;
    struct kfs_buf body;   /* of errors and XML */
    uint64_t started_ns, last_ns, generation;
    size_t pos;      /* GET: where its next byte goes in q->buf */
    uint64_t skip;   /* GET: bytes of the answer before the range */
    uint64_t resume_ns; /* no more bytes before that: the node's byte rate */
    bool accepted, complete, hedge, dead, paused;
    const char *fault; /* why we broke it off */
};

static void queue_init(struct kfs_s3_queue *q)
{
    if (!q->last)
        q->last = &q->first;
}

static void queue_back(struct kfs_s3_queue *q, struct kfs_s3_call *c)
{
    queue_init(q);
    c->next = NULL;
    *q->last = c;
    q->last = &c->next;
}

static void queue_front(struct kfs_s3_queue *q, struct kfs_s3_call *c)
{
    queue_init(q);
    c->next = q->first;
    if (!q->first)
        q->last = &c->next;
    q->first = c;
}

static struct kfs_s3_call *queue_take(struct kfs_s3_queue *q)
{
    struct kfs_s3_call *c = q->first;
    if (c && !(q->first = c->next))
        q->last = &q->first;
    return c;
}

/* --- messages ---------------------------------------------------------------------------------------------- */

int kfs_s3_message(struct kfs_s3 *d, struct kfs_s3_call *c, int rc, const char *why, const char *cure)
{
    char tries[40] = "", id[90] = "";
    if (c->attempts > 1)
        (void)snprintf(tries, sizeof tries, " (%u attempts)", c->attempts);
    if (c->head.request_id[0])
        (void)snprintf(id, sizeof id, ", request %s", c->head.request_id);
    (void)KFS_FAIL(&c->err, -rc, "cannot %s '%.120s' in '%.120s': %.160s%s%s%s%s", c->verb, c->key[0] ? c->key : d->conf.bucket, d->base.url, why, tries, id,
                   cure ? "; " : "", cure ? cure : "");
    return rc;
}

/* --- ending a call ----------------------------------------------------------------------------------------- */

static void attempt_free(struct kfs_s3_attempt *a)
{
    if (a->lines.data)
        OPENSSL_cleanse(a->lines.data, a->lines.len); /* a session token, perhaps */
    kfs_buf_release(&a->lines);
    kfs_buf_release(&a->body);
    free(a->url);
    free(a);
}

static void attempt_unlink(struct kfs_s3_attempt *a)
{
    struct kfs_s3_attempt **p = &a->d->running;
    while (*p && *p != a)
        p = &(*p)->next;
    if (*p)
        *p = a->next;
    for (int i = 0; i < 2; i++)
        if (a->c && a->c->a[i] == a)
            a->c->a[i] = NULL;
}

static void attempt_stop(struct kfs_s3_attempt *a)
{
    kfs_http_stop(a->d->http, &a->x);
    attempt_unlink(a);
    attempt_free(a);
}

/* The final answer. */
static void finish(struct kfs_s3 *d, struct kfs_s3_call *c, int status)
{
    bool active = c->a[0] || c->a[1];
    for (int i = 0; i < 2; i++)
        if (c->a[i])
            attempt_stop(c->a[i]);
    if (active)
        d->active--;
    c->status = status;
    if (c->q)
        ADD(d->requests[c->q->op], 1);
    c->done(c);
    pthread_mutex_lock(&d->lock);
    if (--d->outstanding == 0)
        pthread_cond_broadcast(&d->idle);
    pthread_mutex_unlock(&d->lock);
}

static void delay(struct kfs_s3 *d, struct kfs_s3_call *c, uint64_t due_ns)
{
    c->due_ns = due_ns;
    c->next = d->delayed;
    d->delayed = c;
}

/* --- the range of a GET ------------------------------------------------------------------------------------- */

/* The first bytes of a 2xx: are they what was asked for? NULL, or what is wrong. */
static const char *accept_range(struct kfs_s3_attempt *a)
{
    struct kfs_s3_call *c = a->c;
    const struct kfs_s3_head *h = &a->head;
    const struct kfs_drv_req *q = c->q;
    uint64_t total = h->status == 206 ? h->total : h->length;
    if (h->status == 206 ? !h->has_range : !h->has_length)
        return "the answer does not say which bytes it has";
    if (!c->started) {
        c->start = q->off == KFS_DRV_TAIL ? (total > q->len ? total - q->len : 0) : q->off;
        if (c->start > total || (c->start == total && total > 0))
            return "the range lies outside the value";
        c->total = total;
        c->want = total - c->start < q->len ? (size_t)(total - c->start) : q->len;
        memcpy(c->etag, h->etag, sizeof c->etag);
        c->started = true;
    } else if (total != c->total) {
        return "the value's size is another than before";
    } else if (c->compare) {
        memcpy(c->etag, h->etag, sizeof c->etag);
    }
    uint64_t first = c->start + a->pos;
    if (h->status == 206 && h->first != first)
        return "the answer has another range than was asked for";
    a->skip = h->status == 206 ? 0 : first;
    a->accepted = true;
    return NULL;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* How long first bytes take. */
static void sample(struct kfs_s3 *d, uint64_t ns)
{
    uint64_t sorted[KFS_S3_SAMPLES];
    d->samples[d->sample_count++ % KFS_S3_SAMPLES] = ns;
    if (d->sample_count < 64 || d->sample_count % 32)
        return;
    size_t n = d->sample_count < KFS_S3_SAMPLES ? d->sample_count : KFS_S3_SAMPLES;
    memcpy(sorted, d->samples, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_u64);
    uint64_t p95 = sorted[n * 95 / 100];
    d->hedge_ns = 2 * p95 > HEDGE_MIN_NS ? 2 * p95 : HEDGE_MIN_NS;
}

/* Bytes of the range, the next ones of this attempt. Another attempt may have brought them already. */
static bool range_take(struct kfs_s3_attempt *a, const char *data, size_t n)
{
    struct kfs_s3_call *c = a->c;
    char *buf = c->q->buf;
    if (c->compare && a->pos < c->have) {
        size_t both = c->have - a->pos < n ? c->have - a->pos : n;
        if (memcmp(buf + a->pos, data, both) != 0) {
            a->fault = "the value changed while it was read";
            return false;
        }
    }
    if (a->pos + n > c->have) {
        size_t old = c->have - a->pos;
        memcpy(buf + c->have, data + old, n - old);
        c->have = a->pos + n;
        /* Whoever brings something new is the one to go on; the other's connection is given up. */
        struct kfs_s3_attempt *other = c->a[0] == a ? c->a[1] : c->a[0];
        if (other)
            other->dead = true;
        if (c->q->progress)
            c->q->progress(c->q, c->have);
    }
    a->pos += n;
    return true;
}

static size_t range_body(struct kfs_s3_attempt *a, const char *data, size_t n)
{
    struct kfs_s3_call *c = a->c;
    size_t all = n;
    if (!a->accepted) {
        sample(a->d, a->last_ns - a->started_ns);
        a->fault = accept_range(a);
        if (a->fault)
            return 0;
    }
    if (a->skip) {
        size_t s = a->skip < n ? (size_t)a->skip : n;
        a->skip -= s;
        data += s;
        n -= s;
    }
    size_t room = c->want - a->pos;
    if (n > room) { /* fine where the range was ignored and the whole value comes */
        if (a->head.status == 206)
            a->fault = "the answer has more bytes than were asked for";
        else if (range_take(a, data, room))
            a->complete = true;
        return 0;
    }
    return n == 0 || range_take(a, data, n) ? all : 0;
}

/* --- what curl calls --------------------------------------------------------------------------------------- */

static void on_head(struct kfs_http_xfer *x, const char *line, size_t len)
{
    struct kfs_s3_attempt *a = x->arg;
    a->last_ns = kfs_clock_mono_ns();
    kfs_s3_head_line(&a->head, line, len);
}

static size_t on_body(struct kfs_http_xfer *x, const char *data, size_t n)
{
    struct kfs_s3_attempt *a = x->arg;
    if (a->dead)
        return 0;
    a->last_ns = kfs_clock_mono_ns();
    if (a->last_ns < a->resume_ns) {
        a->paused = true;
        return KFS_HTTP_PAUSE;
    }
    uint64_t wait = kfs_limit_take(&kfs_limit_download, n);
    a->resume_ns = wait ? a->last_ns + wait : 0;
    ADD(a->d->received_bytes, n);
    if (a->c->ranged && a->head.status / 100 == 2)
        return range_body(a, data, n);
    size_t max = a->head.status / 100 == 2 ? KFS_XML_BYTES_MAX : ERROR_BYTES_MAX;
    if (a->body.len + n > max) {
        a->fault = "the answer is too large";
        return 0;
    }
    return kfs_buf_append(&a->body, data, n) == 0 ? n : 0;
}

static bool may_send(struct kfs_http_xfer *x)
{
    struct kfs_s3_attempt *a = x->arg;
    a->paused = kfs_clock_mono_ns() < a->resume_ns;
    return !a->paused;
}

static void on_sent(struct kfs_http_xfer *x, size_t n)
{
    struct kfs_s3_attempt *a = x->arg;
    uint64_t wait = kfs_limit_take(&kfs_limit_upload, n);
    a->last_ns = kfs_clock_mono_ns();
    a->resume_ns = wait ? a->last_ns + wait : 0;
    ADD(a->d->sent_bytes, n);
}

/* --- making an attempt --------------------------------------------------------------------------------------- */

/* Scheme and host of the requests, and what stands before the key. */
static void place(const struct kfs_s3_conf *f, char *root, size_t root_cap, char *host, size_t host_cap, struct kfs_buf *path)
{
    char at[400];
    if (f->endpoint[0])
        (void)snprintf(at, sizeof at, "%s", f->endpoint);
    else
        (void)snprintf(at, sizeof at, "https://s3.%s.amazonaws.com%s", f->region, strncmp(f->region, "cn-", 3) == 0 ? ".cn" : "");
    char *name = strstr(at, "://") + 3, *base = strchr(name, '/'), *port = strrchr(name, ':');
    bool tls = at[4] == 's';
    if (base)
        (void)kfs_buf_append_str(path, base);
    if (base)
        *base = '\0';
    if (port && strcmp(port, tls ? ":443" : ":80") == 0)
        *port = '\0';
    (void)snprintf(host, host_cap, "%s%s%s", f->path_style ? "" : f->bucket, f->path_style ? "" : ".", name);
    (void)snprintf(root, root_cap, "%s://%s", tls ? "https" : "http", host);
    if (f->path_style)
        (void)kfs_buf_printf(path, "/%s", f->bucket);
}

struct wanted {
    char date[KFS_SIGV4_DATE_MAX], range[64], host[700], root[720];
    struct kfs_sigv4_header h[16];
    size_t count;
};

static void want_header(struct wanted *w, const char *name, const char *value)
{
    w->h[w->count++] = (struct kfs_sigv4_header){name, value};
}

static void range_header(const struct kfs_s3_call *c, const struct kfs_s3_attempt *a, struct wanted *w)
{
    const struct kfs_drv_req *q = c->q;
    if (!c->started && q->off == KFS_DRV_TAIL) {
        (void)snprintf(w->range, sizeof w->range, "bytes=-%zu", q->len);
    } else {
        uint64_t first = c->started ? c->start + a->pos : q->off;
        uint64_t last = c->started ? c->start + c->want - 1 : q->len - 1 > UINT64_MAX - 1 - q->off ? UINT64_MAX - 1 : q->off + q->len - 1;
        (void)snprintf(w->range, sizeof w->range, "bytes=%" PRIu64 "-%" PRIu64, first, last > INT64_MAX ? (uint64_t)INT64_MAX : last);
    }
    want_header(w, "range", w->range);
    if (c->started && !c->compare && c->etag[0])
        want_header(w, "if-match", c->etag);
}

static void headers_want(struct kfs_s3 *d, struct kfs_s3_call *c, const struct kfs_s3_attempt *a, const struct kfs_sigv4_keys *keys, time_t at, struct wanted *w)
{
    bool sends = c->has_body && !c->checking;
    kfs_sigv4_date(at, w->date);
    want_header(w, "host", w->host);
    want_header(w, "x-amz-date", w->date);
    want_header(w, "x-amz-content-sha256", sends ? c->payload : KFS_SIGV4_EMPTY);
    if (keys->token[0])
        want_header(w, "x-amz-security-token", keys->token);
    if (c->ranged)
        range_header(c, a, w);
    if (!sends)
        return;
    if (c->if_absent)
        want_header(w, "if-none-match", "*");
    if (c->mark[0])
        want_header(w, "x-amz-meta-kfs-put", c->mark);
    if (c->md5)
        want_header(w, "content-md5", c->md5);
    if (d->conf.checksum && c->sum[0])
        want_header(w, "x-amz-checksum-sha256", c->sum);
}

static int lines_make(struct kfs_s3_attempt *a, const struct wanted *w, const char *authorization)
{
    size_t at[KFS_HTTP_HEADERS_MAX];
    int n = 0;
    (void)kfs_buf_reserve(&a->lines, 12288); /* growing would leave copies of a token behind */
    for (size_t i = 0; i < w->count; i++) {
        if (strcmp(w->h[i].name, "host") == 0)
            continue; /* curl makes the same one */
        at[n++] = a->lines.len;
        (void)kfs_buf_printf(&a->lines, "%s: %s", w->h[i].name, w->h[i].value);
        (void)kfs_buf_append(&a->lines, "", 1);
    }
    at[n++] = a->lines.len;
    (void)kfs_buf_printf(&a->lines, "Authorization: %s", authorization);
    (void)kfs_buf_append(&a->lines, "", 1);
    if (a->lines.failed)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        a->x.headers[i] = a->lines.data + at[i];
    a->x.header_count = n;
    return 0;
}

static int attempt_sign(struct kfs_s3 *d, struct kfs_s3_call *c, struct kfs_s3_attempt *a)
{
    struct kfs_buf path, authorization, url;
    struct wanted w = {.count = 0};
    kfs_buf_init(&path);
    kfs_buf_init(&authorization);
    kfs_buf_init(&url);
    place(&d->conf, w.root, sizeof w.root, w.host, sizeof w.host, &path);
    if (c->key[0] || !path.len)
        (void)kfs_buf_append(&path, "/", 1);
    (void)kfs_sigv4_encode(&path, c->key, strlen(c->key), true);
    (void)kfs_buf_printf(&url, "%s%s%s%s", w.root, kfs_buf_str(&path), c->query[0] ? "?" : "", c->query);
    const struct kfs_cred_snapshot *s = kfs_cred_get(d->cred);
    time_t at = time(NULL) + (time_t)d->clock_offset;
    a->generation = s->generation;
    headers_want(d, c, a, &s->keys, at, &w);
    const char *method = c->checking ? "HEAD" : c->method;
    struct kfs_sigv4_request r = {
        .method = method, .path = kfs_buf_str(&path), .query = c->query, .headers = w.h, .header_count = w.count, .payload = w.h[2].value};
    struct kfs_sigv4_scope scope = {d->conf.region, "s3"};
    int rc = path.failed || url.failed ? -ENOMEM : kfs_sigv4_sign(&r, &scope, &s->keys, at, &authorization);
    if (rc == 0)
        rc = lines_make(a, &w, kfs_buf_str(&authorization));
    kfs_cred_put(d->cred, s);
    if (rc == 0) {
        a->url = url.data;
        url.data = NULL;
    }
    kfs_buf_release(&path);
    kfs_buf_release(&authorization);
    kfs_buf_release(&url);
    return rc;
}

static void on_done(struct kfs_http_xfer *x);

static int attempt_start(struct kfs_s3 *d, struct kfs_s3_call *c, bool hedge, uint64_t now)
{
    struct kfs_s3_attempt *a = calloc(1, sizeof *a);
    if (!a)
        return -ENOMEM;
    kfs_buf_init(&a->lines);
    kfs_buf_init(&a->body);
    a->d = d;
    a->c = c;
    a->hedge = hedge;
    a->started_ns = a->last_ns = now;
    a->pos = c->compare ? 0 : c->have;
    int rc = attempt_sign(d, c, a);
    bool sends = c->has_body && !c->checking;
    a->x.method = c->checking ? "HEAD" : c->method;
    a->x.url = a->url;
    a->x.has_body = sends;
    a->x.body = sends ? c->body : NULL;
    a->x.body_count = sends ? c->body_count : 0;
    a->x.body_len = sends ? c->body_len : 0;
    a->x.head_only = c->head_only || c->checking;
    a->x.fresh_connection = hedge && d->conf.http != KFS_HTTP_1;
    a->x.on_head = on_head;
    a->x.on_body = on_body;
    a->x.may_send = may_send;
    a->x.on_sent = on_sent;
    a->x.on_done = on_done;
    a->x.arg = a;
    if (rc == 0)
        rc = kfs_http_start(d->http, &a->x);
    if (rc < 0) {
        attempt_free(a);
        return rc;
    }
    a->next = d->running;
    d->running = a;
    c->a[hedge ? 1 : 0] = a;
    c->attempts++;
    ADD(d->attempts, 1);
    return 0;
}

/* --- what an answer means ---------------------------------------------------------------------------------- */

struct verdict {
    int rc;
    bool again, at_once, slow;
    uint32_t wait_ms;
    const char *cure;
    char why[200];
};

static bool is_one_of(const char *code, const char *const *codes)
{
    for (; *codes; codes++)
        if (strcmp(code, *codes) == 0)
            return true;
    return false;
}

static void judge_transport(const struct kfs_s3_attempt *a, struct verdict *v)
{
    v->rc = kfs_http_errno(a->x.code, a->x.os_errno, &v->again);
    (void)snprintf(v->why, sizeof v->why, "%.190s", a->fault ? a->fault : a->x.text);
    if (v->rc == -EACCES)
        v->cure = "check the server's certificate, or name its authority with ca_file=";
    else if (v->rc == -EHOSTUNREACH || v->rc == -ECONNREFUSED)
        v->cure = "check the endpoint, and whether the server runs";
    if (a->fault && strcmp(a->fault, "the value changed while it was read") == 0)
        v->again = false;
}

static const char *const KEYS[] = {"ExpiredToken",          "InvalidToken",         "TokenRefreshRequired", "InvalidAccessKeyId",
                                   "SignatureDoesNotMatch", "InvalidClientTokenId", "RequestExpired",       "XAdminUserNotFound", NULL};

/* The region or the clock was wrong, or keys are not taken any more: what a changed signature can mend. True: it is handled. */
static bool judge_signature(struct kfs_s3 *d, struct kfs_s3_attempt *a, struct verdict *v)
{
    struct kfs_s3_call *c = a->c;
    const char *code = c->said.code, *region = a->head.region[0] ? a->head.region : c->said.region;
    int status = a->head.status;
    if (region[0] && strcmp(region, d->conf.region) != 0 && (status == 301 || status == 307 || status == 400 || status == 403) && c->moves < 2) {
        kfs_log(KFS_LOG_INFO, "s3: bucket '%s' is in region '%s', not '%s'; region=%s in its URL saves a request", d->conf.bucket, region, d->conf.region, region);
        (void)snprintf(d->conf.region, sizeof d->conf.region, "%s", region);
        c->moves++;
        v->again = v->at_once = true;
        return true;
    }
    if (status != 400 && status != 401 && status != 403 && !is_one_of(code, KEYS))
        return false;
    int64_t off = a->head.date_s ? a->head.date_s - (int64_t)time(NULL) : d->clock_offset, by = off - d->clock_offset;
    bool skewed = strcmp(code, "RequestTimeTooSkewed") == 0;
    if (c->skews < 3 && a->head.date_s && (by > SKEW_S || by < -SKEW_S) && (skewed || status == 403)) {
        kfs_log(KFS_LOG_WARN, "s3: the clock is %" PRId64 " s %s that of '%s'; requests are signed with the server's time from now on; set this node's clock",
                by < 0 ? -by : by, by < 0 ? "ahead of" : "behind", d->base.url);
        d->clock_offset = off;
        c->skews++;
        v->again = v->at_once = true;
        return true;
    }
    if (skewed) {
        v->cure = "set this node's clock";
        return false;
    }
    /* HEAD has no body to say why. */
    if (!is_one_of(code, KEYS) && !(code[0] == '\0' && a->x.head_only && status != 401))
        return false;
    int r = kfs_cred_refresh(d->cred, a->generation);
    if (r >= 0) {
        v->again = true;
        v->at_once = r > 0;
        v->wait_ms = KEYS_PAUSE_MS;
        return true;
    }
    return false;
}

static void judge_status(struct kfs_s3 *d, struct kfs_s3_attempt *a, struct verdict *v)
{
    static const char *const SLOW[] = {"SlowDown", "TooManyRequests", "RequestLimitExceeded", "ThrottlingException", "ServiceUnavailable", NULL};
    static const char *const AGAIN[] = {"InternalError", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "BadDigest",
                                        "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "ConnectionClosed", NULL};
    static const char *const FULL[] = {"XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity", NULL};
    static const char *const ABSENT[] = {"", "NoSuchKey", "NoSuchUpload", "NotFound", "NoSuchVersion", NULL};
    static const char *const QUOTA[] = {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", NULL};
    struct kfs_s3_call *c = a->c;
    const char *code = c->said.code;
    int s = a->head.status;
    (void)snprintf(v->why, sizeof v->why, "HTTP status %d%s%s%s%.110s", s, code[0] ? " " : "", code, c->said.message[0] ? ": " : "", c->said.message);
    v->wait_ms = a->head.retry_after_ms;
    v->slow = s == 503 || s == 429 || is_one_of(code, SLOW);
    if (v->slow || s == 500 || s == 502 || s == 504 || s == 408 || is_one_of(code, AGAIN)) {
        v->rc = -EIO;
        v->again = true;
        return;
    }
    v->rc = -EIO;
    if (judge_signature(d, a, v)) {
        v->rc = -EACCES;
        return;
    }
    if (s == 507 || is_one_of(code, FULL)) {
        v->rc = -ENOSPC;
    } else if (is_one_of(code, QUOTA)) {
        v->rc = -EDQUOT;
    } else if (s == 401 || s == 403 || is_one_of(code, KEYS) || (s == 400 && a->x.head_only)) {
        v->rc = -EACCES;
        if (!v->cure)
            v->cure = strcmp(code, "SignatureDoesNotMatch") == 0 ? "the secret key is wrong" : "check keys and permissions of this user";
    } else if (s == 404) {
        bool bucket = strcmp(code, "NoSuchBucket") == 0;
        v->rc = bucket ? -ENXIO : is_one_of(code, ABSENT) ? -ENOENT : -EIO;
        v->cure = bucket ? "check bucket and endpoint; buckets are not created" : NULL;
    } else if (s == 301 || s == 307) {
        v->cure = "the bucket is in another region: add region= to the URL";
    } else if (s == 405 || s == 501) {
        v->rc = -EOPNOTSUPP;
    } else if (s == 409) {
        v->again = true;
    } else if (s == 412) {
        v->rc = -EEXIST;
    } else if (s == 413) {
        v->rc = -EFBIG;
    } else if (s == 416) {
        v->rc = -ERANGE;
    } else if (s < 400) {
        v->again = true; /* nothing that S3 says */
    }
}

/* 2xx: is everything here? */
static void judge_success(struct kfs_s3 *d, struct kfs_s3_attempt *a, struct verdict *v)
{
    struct kfs_s3_call *c = a->c;
    (void)d;
    if (c->ranged) {
        a->fault = a->accepted ? NULL : accept_range(a);
        if (!a->fault && a->pos < c->want)
            a->fault = "the answer has fewer bytes than it said";
    } else if (c->reads_xml) {
        if (a->body.len && kfs_s3_error_read(a->body.data, a->body.len, &c->said) < 0)
            a->fault = "the answer is no XML";
        else if (c->said.code[0]) { /* the status was sent before the work was done */
            a->head.status = strcmp(c->said.code, "InternalError") == 0 ? 500 : strcmp(c->said.code, "SlowDown") == 0 ? 503 : 400;
            judge_status(d, a, v);
            return;
        }
    }
    if (a->fault) {
        v->rc = -EIO;
        v->again = true;
        (void)snprintf(v->why, sizeof v->why, "%s", a->fault);
    }
}

/* Status codes that are no failures here. True: c goes on or has ended. */
static bool judge_special(struct kfs_s3 *d, struct kfs_s3_attempt *a, struct verdict *v)
{
    struct kfs_s3_call *c = a->c;
    int s = a->head.status;
    bool get = c->ranged;
    (void)d;
    if (get && s == 412 && c->started) {
        if (!c->compare) {
            c->compare = true;
            v->again = v->at_once = true;
            v->rc = -EIO;
            return true;
        }
    } else if (get && s == 416 && !c->started && (c->q->off == 0 || c->q->off == KFS_DRV_TAIL)) {
        c->started = true; /* only an empty value has no first byte and no last one */
        c->total = c->want = 0;
        v->rc = 0;
        return true;
    } else if (s == 412 && c->mark[0] && !c->checking) {
        /* Is it ours? An earlier attempt may have done it, or curl, which sends again by itself where a kept connection turns out dead. */
        c->checking = true;
        v->again = v->at_once = true;
        v->rc = -EEXIST;
        return true;
    } else if (c->checking && s / 100 == 2) {
        v->rc = strcmp(a->head.put_mark, c->mark) == 0 ? 0 : -EEXIST;
        (void)snprintf(v->why, sizeof v->why, "it is there already");
        return true;
    } else if (c->checking && s == 404) {
        c->checking = false; /* gone meanwhile: put it */
        v->again = v->at_once = true;
        v->rc = -EEXIST;
        return true;
    }
    return false;
}

static void judge(struct kfs_s3 *d, struct kfs_s3_attempt *a, struct verdict *v)
{
    struct kfs_s3_call *c = a->c;
    c->head = a->head;
    memset(&c->said, 0, sizeof c->said);
    bool answered = a->x.code == CURLE_OK || a->complete;
    /* An error's status counts even where its body broke off. */
    if (!answered && (a->head.status < 300 || a->x.code == CURLE_OPERATION_TIMEDOUT)) {
        judge_transport(a, v);
        return;
    }
    if (a->head.status / 100 != 2)
        (void)kfs_s3_error_read(a->body.data ? a->body.data : "", a->body.len, &c->said);
    if (judge_special(d, a, v))
        return;
    if (a->head.status / 100 == 2)
        judge_success(d, a, v);
    else
        judge_status(d, a, v);
}

/* --- after an attempt ---------------------------------------------------------------------------------------- */

static void limit_adapt(struct kfs_s3 *d, bool slow, uint64_t now)
{
    if (!slow) {
        d->limit += 1 / d->limit;
        if (d->limit > d->requests_max)
            d->limit = d->requests_max;
        return;
    }
    if (now - d->cut_ns < CUT_EVERY_NS)
        return;
    static struct kfs_log_limit log_limit;
    d->cut_ns = now;
    d->limit = d->limit / 2 < 1 ? 1 : d->limit / 2;
    kfs_log_limited(&log_limit, KFS_LOG_INFO, "s3: '%s' asks for less: now %u requests at once", d->base.url, (unsigned)d->limit);
}

static void hedge_result(struct kfs_s3 *d, bool won)
{
    if (won) {
        d->hedges_won_recent++;
        ADD(d->hedges_won, 1);
    }
    if (d->hedges_recent < HEDGE_WINDOW)
        return;
    if (d->hedges_won_recent * 4 < d->hedges_recent)
        d->hedge_off_until = d->gets + HEDGE_PAUSE_GETS;
    d->hedges_recent = d->hedges_won_recent = 0;
}

/* Full jitter: anywhere between nothing and the bound, so that those who failed together do not come back together. */
static uint64_t pause_ns(unsigned attempts, uint32_t at_least_ms)
{
    unsigned shift = attempts > 8 ? 7 : attempts - 1;
    uint64_t bound = (uint64_t)BACKOFF_MS << shift;
    bound = bound < BACKOFF_MAX_MS ? bound : BACKOFF_MAX_MS;
    uint64_t ns = kfs_rand_u64() % (bound * MS + 1);
    return at_least_ms ? at_least_ms * MS + ns / 4 : ns;
}

static void again(struct kfs_s3 *d, struct kfs_s3_call *c, const struct verdict *v, uint64_t now)
{
    uint64_t wait = v->at_once ? 0 : pause_ns(c->attempts, v->wait_ms);
    d->active--;
    ADD(d->retries, 1);
    if (!v->at_once)
        c->unsure = true;
    if (wait == 0) {
        queue_front(&d->ready[c->priority], c);
        return;
    }
    kfs_log(KFS_LOG_DEBUG, "s3: %s '%s': %s; again in %u ms", c->verb, c->key, v->why, (unsigned)(wait / MS));
    delay(d, c, now + wait);
}

/* a is over, and no longer among the running. */
static void attempt_over(struct kfs_s3_attempt *a)
{
    struct kfs_s3 *d = a->d;
    struct kfs_s3_call *c = a->c;
    struct verdict v = {.rc = 0};
    uint64_t now = kfs_clock_mono_ns();
    bool other = c->a[0] || c->a[1];
    judge(d, a, &v);
    if (v.slow || v.rc == 0)
        limit_adapt(d, v.slow, now);
    if (v.rc < 0 && v.again && other) { /* it may still get there */
        if (a->hedge)
            hedge_result(d, false);
        attempt_free(a);
        return;
    }
    if (a->hedge)
        hedge_result(d, v.rc == 0);
    if (v.rc == 0) {
        kfs_buf_release(&c->reply);
        c->reply = a->body;
        kfs_buf_init(&a->body);
    }
    bool in_time = v.at_once ? c->attempts < 50 : now - c->first_ns < d->budget_ns;
    attempt_free(a);
    if (v.rc < 0 && v.again && in_time && !__atomic_load_n(&c->cancel, __ATOMIC_RELAXED)) {
        again(d, c, &v, now);
        return;
    }
    if (v.rc < 0)
        (void)kfs_s3_message(d, c, v.rc, v.why, v.cure);
    if (!other)
        d->active--;
    finish(d, c, v.rc);
}

static void on_done(struct kfs_http_xfer *x)
{
    struct kfs_s3_attempt *a = x->arg;
    attempt_unlink(a);
    if (a->dead)
        attempt_free(a);
    else
        attempt_over(a);
}

/* --- the turn of the event thread ------------------------------------------------------------------------------ */

static void calls_take(struct kfs_s3 *d)
{
    pthread_mutex_lock(&d->lock);
    struct kfs_s3_call *c = d->in.first;
    d->in.first = NULL;
    d->in.last = &d->in.first;
    pthread_mutex_unlock(&d->lock);
    while (c) {
        struct kfs_s3_call *next = c->next;
        queue_back(&d->ready[c->priority], c);
        c = next;
    }
}

static void cancelled(struct kfs_s3 *d, struct kfs_s3_call *c)
{
    (void)kfs_s3_message(d, c, -ECANCELED, "cancelled", NULL);
    finish(d, c, -ECANCELED);
}

static bool is_cancelled(const struct kfs_s3_call *c)
{
    return __atomic_load_n(&c->cancel, __ATOMIC_RELAXED);
}

static void cancels_look(struct kfs_s3 *d)
{
    if (!__atomic_exchange_n(&d->cancelled, false, __ATOMIC_ACQ_REL))
        return;
    for (int p = 0; p < 3; p++) {
        struct kfs_s3_queue old = d->ready[p];
        memset(&d->ready[p], 0, sizeof d->ready[p]);
        for (struct kfs_s3_call *c = old.first, *next; c; c = next) {
            next = c->next;
            if (is_cancelled(c))
                cancelled(d, c);
            else
                queue_back(&d->ready[p], c);
        }
    }
    struct kfs_s3_call *waiting = d->delayed;
    d->delayed = NULL;
    for (struct kfs_s3_call *next; waiting; waiting = next) {
        next = waiting->next;
        if (is_cancelled(waiting))
            cancelled(d, waiting);
        else
            delay(d, waiting, waiting->due_ns);
    }
    for (struct kfs_s3_attempt *a = d->running; a;) {
        if (is_cancelled(a->c)) {
            cancelled(d, a->c);
            a = d->running; /* its attempts are gone from the list */
        } else {
            a = a->next;
        }
    }
}

static uint64_t delayed_take(struct kfs_s3 *d, uint64_t now)
{
    uint64_t due = UINT64_MAX;
    struct kfs_s3_call *c = d->delayed;
    d->delayed = NULL;
    for (struct kfs_s3_call *next; c; c = next) {
        next = c->next;
        if (c->due_ns <= now) {
            queue_front(&d->ready[c->priority], c);
            continue;
        }
        due = c->due_ns < due ? c->due_ns : due;
        delay(d, c, c->due_ns);
    }
    return due;
}

/* When a second GET would be due for this attempt; UINT64_MAX: never. */
static uint64_t hedge_due(const struct kfs_s3 *d, const struct kfs_s3_attempt *a)
{
    const struct kfs_s3_call *c = a->c;
    if (d->conf.hedge_off || !d->hedge_ns || !c->ranged || c->priority == KFS_DRV_WARM || c->a[1] || c->compare || a->paused ||
        d->gets < d->hedge_off_until || d->limit < d->requests_max || __atomic_load_n(&d->hedges, __ATOMIC_RELAXED) * 20 > d->gets)
        return UINT64_MAX;
    if (!a->accepted)
        return a->started_ns + d->hedge_ns;
    uint64_t mid = 4 * d->hedge_ns > HEDGE_MID_MIN_NS ? 4 * d->hedge_ns : HEDGE_MID_MIN_NS;
    return a->last_ns + mid;
}

static uint64_t stall_due(const struct kfs_s3 *d, const struct kfs_s3_attempt *a)
{
    uint64_t ns = d->conf.stall_ms * MS;
    return a->last_ns + (a->c->reads_xml ? 4 * ns : ns); /* putting parts together takes a server time */
}

static void stalled(struct kfs_s3_attempt *a)
{
    kfs_http_stop(a->d->http, &a->x);
    attempt_unlink(a);
    a->x.code = CURLE_OPERATION_TIMEDOUT;
    (void)snprintf(a->x.text, sizeof a->x.text, "nothing moved for %u ms", a->d->conf.stall_ms);
    attempt_over(a);
}

/* One attempt that needs something now; false: none does, *ret_due is when one will. */
static bool running_look_one(struct kfs_s3 *d, uint64_t now, uint64_t *ret_due)
{
    *ret_due = UINT64_MAX;
    for (struct kfs_s3_attempt *a = d->running; a; a = a->next) {
        uint64_t stall = stall_due(d, a), hedge = hedge_due(d, a);
        if (a->dead) {
            if (a->hedge)
                hedge_result(d, false);
            attempt_stop(a);
            return true;
        }
        if (a->paused) {
            if (a->resume_ns > now) {
                *ret_due = a->resume_ns < *ret_due ? a->resume_ns : *ret_due;
                continue;
            }
            a->paused = false;
            a->last_ns = now;
            kfs_http_resume(&a->x); /* may call on_body, which may pause it again */
            return true;
        }
        if (stall <= now) {
            stalled(a);
            return true;
        }
        if (hedge <= now && attempt_start(d, a->c, true, now) == 0) {
            d->hedges_recent++;
            ADD(d->hedges, 1);
            return true;
        }
        *ret_due = stall < *ret_due ? stall : *ret_due;
        if (hedge > now)
            *ret_due = hedge < *ret_due ? hedge : *ret_due;
    }
    return false;
}

/* How many may run when one of this priority is to start. */
static unsigned allowed(const struct kfs_s3 *d, int priority)
{
    unsigned n = (unsigned)d->limit;
    n = n ? n : 1;
    return priority == KFS_DRV_WAITING ? n + (n + 3) / 4 : n;
}

static void calls_start(struct kfs_s3 *d, uint64_t now)
{
    for (int p = 0; p < 3; p++) {
        while (d->ready[p].first && d->active < allowed(d, p)) {
            struct kfs_s3_call *c = queue_take(&d->ready[p]);
            if (!c->first_ns)
                c->first_ns = now;
            if (c->ranged && c->attempts == 0)
                d->gets++;
            int rc = c->broken ? c->broken : attempt_start(d, c, false, now);
            if (rc == 0) {
                d->active++;
                continue;
            }
            (void)kfs_s3_message(d, c, rc, strerror(-rc), NULL);
            finish(d, c, rc);
        }
    }
}

uint64_t kfs_s3_tick(void *arg, uint64_t now)
{
    struct kfs_s3 *d = arg;
    uint64_t due;
    calls_take(d);
    cancels_look(d);
    while (running_look_one(d, now, &due)) {
    }
    uint64_t delayed = delayed_take(d, now);
    calls_start(d, now);
    if (d->running) {
        while (running_look_one(d, now, &due)) {
        }
    }
    __atomic_store_n(&d->stat_running, d->active, __ATOMIC_RELAXED);
    __atomic_store_n(&d->stat_limit, allowed(d, KFS_DRV_AHEAD), __ATOMIC_RELAXED);
    return delayed < due ? delayed : due;
}

/* --- other threads ------------------------------------------------------------------------------------------ */

void kfs_s3_submit(struct kfs_s3 *d, struct kfs_s3_call *c)
{
    pthread_mutex_lock(&d->lock);
    d->outstanding++;
    bool first = !d->in.first;
    queue_back(&d->in, c);
    pthread_mutex_unlock(&d->lock);
    if (first)
        kfs_http_wake(d->http);
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

static void waiter_done(struct kfs_s3_call *c)
{
    struct waiter *w = c->arg;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

int kfs_s3_wait(struct kfs_s3 *d, struct kfs_s3_call *c)
{
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    c->done = waiter_done;
    c->arg = &w; // cppcheck-suppress autoVariables ; w outlives the call
    kfs_s3_submit(d, c);
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    (void)pthread_mutex_destroy(&w.lock);
    (void)pthread_cond_destroy(&w.cond);
    return c->status;
}
