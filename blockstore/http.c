#include "blockstore/http.h"
#include "base/clock.h"
#include <curl/curl.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EASY_MAX 256               /* handles kept for later */
#define RECEIVE_BYTES (256 * 1024) /* one callback's worth: fewer turns than curl's 16 KiB, still within a core's cache */
#define SEND_BYTES (256 * 1024)
#define TURN_MAX_MS 1000

struct kfs_http {
    CURLM *multi;
    pthread_t thread;
    kfs_http_tick tick;
    void *arg;
    struct kfs_http_options o;
    char *ca_file, *proxy;
    bool stop; /* atomic */
    CURL *idle[EASY_MAX];
    size_t idle_count;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global;

static void global_init(void)
{
    global = curl_global_init(CURL_GLOBAL_DEFAULT);
}

bool kfs_http_is_loopback(const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0 ||
           (strncasecmp(host, "localhost", 9) == 0 && strchr(":/", host[9]));
}

/* --- one exchange ---------------------------------------------------------------------------------- */

static size_t on_header(char *data, size_t one, size_t n, void *arg)
{
    struct kfs_http_xfer *x = arg;
    (void)one;
    size_t len = n;
    while (len && (data[len - 1] == '\n' || data[len - 1] == '\r'))
        len--;
    if (x->on_head)
        x->on_head(x, data, len);
    return n;
}

static size_t on_write(char *data, size_t one, size_t n, void *arg)
{
    struct kfs_http_xfer *x = arg;
    (void)one;
    size_t r = x->on_body ? x->on_body(x, data, n) : n;
    return r == KFS_HTTP_PAUSE ? CURL_WRITEFUNC_PAUSE : r == n ? n : n + 1;
}

static size_t on_read(char *to, size_t one, size_t cap, void *arg)
{
    struct kfs_http_xfer *x = arg;
    size_t done = 0;
    (void)one;
    if (x->may_send && x->priv.iov < x->body_count && !x->may_send(x))
        return CURL_READFUNC_PAUSE;
    while (done < cap && x->priv.iov < x->body_count) {
        const struct iovec *v = &x->body[x->priv.iov];
        size_t n = v->iov_len - x->priv.off;
        n = n < cap - done ? n : cap - done;
        memcpy(to + done, (const char *)v->iov_base + x->priv.off, n);
        done += n;
        x->priv.off += n;
        if (x->priv.off == v->iov_len) {
            x->priv.iov++;
            x->priv.off = 0;
        }
    }
    if (x->on_sent && done)
        x->on_sent(x, done);
    return done;
}

/* A kept connection that turns out dead is replaced by curl, which then starts the body again. */
static int on_seek(void *arg, curl_off_t off, int origin)
{
    struct kfs_http_xfer *x = arg;
    if (origin != SEEK_SET || off < 0)
        return CURL_SEEKFUNC_FAIL;
    uint64_t left = (uint64_t)off;
    x->priv.iov = 0;
    while (x->priv.iov < x->body_count && left >= x->body[x->priv.iov].iov_len)
        left -= x->body[x->priv.iov++].iov_len;
    if (x->priv.iov == x->body_count && left)
        return CURL_SEEKFUNC_FAIL;
    x->priv.off = (size_t)left;
    return CURL_SEEKFUNC_OK;
}

/* Header lines may hold a session token. */
static void lines_free(struct curl_slist *l)
{
    for (struct curl_slist *i = l; i; i = i->next)
        OPENSSL_cleanse(i->data, strlen(i->data));
    curl_slist_free_all(l);
}

static bool lines_add(struct curl_slist **l, const char *line)
{
    struct curl_slist *n = curl_slist_append(*l, line);
    if (n)
        *l = n;
    return n != NULL;
}

static bool options_set(CURL *e, const struct kfs_http_options *o, const char *url)
{
    long version = o->version == KFS_HTTP_1   ? CURL_HTTP_VERSION_1_1
                   : o->version == KFS_HTTP_2 ? (strncmp(url, "https:", 6) == 0 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
                                              : CURL_HTTP_VERSION_2TLS;
    bool ok = curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK;
    (void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(e, CURLOPT_USERAGENT, "kfs/" KFS_VERSION);
    (void)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L); /* a signature is for one host and path */
    (void)curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    (void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, version);
    (void)curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 30L);
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 10L);
    (void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(o->connect_ms ? o->connect_ms : 10000));
    (void)curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, o->insecure ? 0L : 1L);
    (void)curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, o->insecure ? 0L : 2L);
    if (o->ca_file)
        ok = ok && curl_easy_setopt(e, CURLOPT_CAINFO, o->ca_file) == CURLE_OK;
    if (kfs_http_is_loopback(url))
        ok = ok && curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK;
    else if (o->proxy)
        ok = ok && curl_easy_setopt(e, CURLOPT_PROXY, o->proxy) == CURLE_OK;
    return ok;
}

static bool xfer_set(struct kfs_http *h, CURL *e, struct kfs_http_xfer *x, struct curl_slist **lines)
{
    bool ok = options_set(e, &h->o, x->url);
    for (int i = 0; i < x->header_count; i++)
        ok = ok && lines_add(lines, x->headers[i]);
    /* Waiting for "100 Continue" would cost a round trip for each body. */
    ok = ok && lines_add(lines, "Expect:") && lines_add(lines, "Accept:");
    ok = ok && curl_easy_setopt(e, CURLOPT_HTTPHEADER, *lines) == CURLE_OK;
    (void)curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    (void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, x->text);
    (void)curl_easy_setopt(e, CURLOPT_PRIVATE, x);
    (void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(e, CURLOPT_HEADERDATA, x);
    (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_write);
    (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, x);
    if (x->fresh_connection)
        (void)curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
    if (x->head_only) {
        (void)curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (x->has_body) {
        (void)curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, (long)(x->body_len > 65536 ? SEND_BYTES : 65536));
        (void)curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->body_len);
        (void)curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
        (void)curl_easy_setopt(e, CURLOPT_READDATA, x);
        (void)curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
        (void)curl_easy_setopt(e, CURLOPT_SEEKDATA, x);
    }
    if (!x->head_only)
        ok = ok && curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method) == CURLE_OK;
    return ok;
}

/* The exchange's handle leaves it; what it knew goes into x. */
static void xfer_release(struct kfs_http *h, struct kfs_http_xfer *x)
{
    CURL *e = x->priv.easy;
    long n = 0;
    (void)curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &x->http_status);
    (void)curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &n);
    x->os_errno = (int)n;
    lines_free(x->priv.lines);
    x->priv.lines = NULL;
    x->priv.easy = NULL;
    if (h->idle_count == EASY_MAX) {
        curl_easy_cleanup(e);
        return;
    }
    curl_easy_reset(e);
    h->idle[h->idle_count++] = e;
}

int kfs_http_start(struct kfs_http *h, struct kfs_http_xfer *x)
{
    CURL *e = h->idle_count ? h->idle[--h->idle_count] : curl_easy_init();
    struct curl_slist *lines = NULL;
    x->code = 0;
    x->http_status = 0;
    x->os_errno = 0;
    x->text[0] = '\0';
    memset(&x->priv, 0, sizeof x->priv);
    if (!e)
        return -ENOMEM;
    if (!xfer_set(h, e, x, &lines) || curl_multi_add_handle(h->multi, e) != CURLM_OK) {
        lines_free(lines);
        curl_easy_cleanup(e);
        return -ENOMEM;
    }
    x->priv.easy = e;
    x->priv.lines = lines;
    x->priv.h = h;
    return 0;
}

void kfs_http_stop(struct kfs_http *h, struct kfs_http_xfer *x)
{
    if (!x->priv.easy)
        return;
    (void)curl_multi_remove_handle(h->multi, x->priv.easy);
    xfer_release(h, x);
}

void kfs_http_resume(struct kfs_http_xfer *x)
{
    if (x->priv.easy)
        (void)curl_easy_pause(x->priv.easy, CURLPAUSE_CONT);
}

/* --- the thread ------------------------------------------------------------------------------------ */

static void done_collect(struct kfs_http *h)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left));) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURL *e = m->easy_handle;
        CURLcode code = m->data.result;
        struct kfs_http_xfer *x = NULL;
        (void)curl_easy_getinfo(e, CURLINFO_PRIVATE, &x);
        (void)curl_multi_remove_handle(h->multi, e);
        x->code = (int)code;
        xfer_release(h, x);
        if (code != CURLE_OK && !x->text[0])
            (void)snprintf(x->text, sizeof x->text, "%s", curl_easy_strerror(code));
        x->on_done(x);
    }
}

static void *run(void *arg)
{
    struct kfs_http *h = arg;
    while (!__atomic_load_n(&h->stop, __ATOMIC_ACQUIRE)) {
        int running;
        uint64_t now = kfs_clock_mono_ns(), due = h->tick(h->arg, now);
        (void)curl_multi_perform(h->multi, &running);
        done_collect(h);
        now = kfs_clock_mono_ns();
        uint64_t again = h->tick(h->arg, now);
        due = again < due ? again : due;
        int ms = due <= now ? 0 : due - now > TURN_MAX_MS * 1000000ull ? TURN_MAX_MS : (int)((due - now + 999999) / 1000000);
        if (curl_multi_poll(h->multi, NULL, 0, ms, NULL) != CURLM_OK) {
            const struct timespec nap = {0, 1000000};
            (void)nanosleep(&nap, NULL);
        }
    }
    return NULL;
}

void kfs_http_wake(struct kfs_http *h)
{
    (void)curl_multi_wakeup(h->multi);
}

static void release(struct kfs_http *h)
{
    for (size_t i = 0; i < h->idle_count; i++)
        curl_easy_cleanup(h->idle[i]);
    if (h->multi)
        (void)curl_multi_cleanup(h->multi);
    free(h->ca_file);
    free(h->proxy);
    free(h);
}

/* Signals are for other threads; a broken connection's SIGPIPE is for nobody. */
static int thread_start(struct kfs_http *h)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&h->thread, NULL, run, h);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0)
        (void)pthread_setname_np(h->thread, "kfs-http");
    return -rc;
}

int kfs_http_open(const struct kfs_http_options *o, kfs_http_tick tick, void *arg, struct kfs_http **ret_h, struct kfs_err *err)
{
    (void)pthread_once(&once, global_init);
    struct kfs_http *h = global == CURLE_OK ? calloc(1, sizeof *h) : NULL;
    if (!h)
        return KFS_FAIL(err, ENOMEM, "cannot start HTTP: %s", global == CURLE_OK ? "out of memory" : curl_easy_strerror(global));
    h->o = *o;
    h->tick = tick;
    h->arg = arg;
    h->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
    h->proxy = o->proxy ? strdup(o->proxy) : NULL;
    h->o.ca_file = h->ca_file;
    h->o.proxy = h->proxy;
    h->multi = curl_multi_init();
    int rc = h->multi && !h->ca_file == !o->ca_file && !h->proxy == !o->proxy ? 0 : -ENOMEM;
    if (rc == 0) {
        (void)curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
        (void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)(o->connections_max ? o->connections_max : 64));
        rc = thread_start(h);
    }
    if (rc < 0) {
        release(h);
        return KFS_FAIL(err, -rc, "cannot start HTTP: %s", strerror(-rc));
    }
    *ret_h = h;
    return 0;
}

void kfs_http_close(struct kfs_http *h)
{
    if (!h)
        return;
    __atomic_store_n(&h->stop, true, __ATOMIC_RELEASE);
    kfs_http_wake(h);
    (void)pthread_join(h->thread, NULL);
    release(h);
}

/* --- what failures mean ---------------------------------------------------------------------------- */

int kfs_http_errno(int code, int os_errno, bool *ret_again)
{
    *ret_again = true;
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return -EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
        return os_errno == EHOSTUNREACH || os_errno == ENETUNREACH ? -EHOSTUNREACH : os_errno == ETIMEDOUT ? -ETIMEDOUT : -ECONNREFUSED;
    case CURLE_OPERATION_TIMEDOUT:
        return -ETIMEDOUT;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        *ret_again = false;
        return -EACCES;
    case CURLE_URL_MALFORMAT:
    case CURLE_NOT_BUILT_IN:
    case CURLE_BAD_FUNCTION_ARGUMENT:
        *ret_again = false;
        return -EINVAL;
    default:
        return -EIO;
    }
}

/* --- a single exchange, waiting -------------------------------------------------------------------- */

struct fetch {
    char *buf;
    size_t cap, len;
    bool over;
};

static size_t fetch_write(char *data, size_t one, size_t n, void *arg)
{
    struct fetch *f = arg;
    (void)one;
    if (n > f->cap - 1 - f->len) {
        f->over = true;
        return 0;
    }
    memcpy(f->buf + f->len, data, n);
    f->len += n;
    return n;
}

int kfs_http_fetch(const char *method, const char *url, const char *const *headers, const char *body, const struct kfs_http_options *o, unsigned seconds,
                   char *buf, size_t cap, size_t *ret_len, struct kfs_err *err)
{
    (void)pthread_once(&once, global_init);
    struct fetch f = {.buf = buf, .cap = cap};
    struct curl_slist *lines = NULL;
    char text[CURL_ERROR_SIZE] = "";
    CURL *e = global == CURLE_OK ? curl_easy_init() : NULL;
    bool ok = e && options_set(e, o, url) && lines_add(&lines, "Accept:");
    for (; ok && headers && *headers; headers++)
        ok = lines_add(&lines, *headers);
    if (ok) {
        (void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, lines);
        (void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, text);
        (void)curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)seconds);
        (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, fetch_write);
        (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, &f);
        if (body)
            (void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, body);
        (void)curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
    }
    CURLcode code = ok ? curl_easy_perform(e) : CURLE_OUT_OF_MEMORY;
    long status = 0, os = 0;
    if (e) {
        (void)curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &os);
        curl_easy_cleanup(e);
    }
    lines_free(lines);
    buf[f.len] = '\0';
    if (code != CURLE_OK) {
        bool again;
        int rc = f.over ? -E2BIG : kfs_http_errno((int)code, (int)os, &again);
        return KFS_FAIL(err, -rc, "cannot %s '%.200s': %s", method, url, f.over ? "the answer is too large" : text[0] ? text : curl_easy_strerror(code));
    }
    *ret_len = f.len;
    return (int)status;
}
