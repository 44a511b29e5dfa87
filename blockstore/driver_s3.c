/* blockstore/driver_s3.c — requests of a driver made into calls of an S3 server; the manual is blockstore/driver_s3.h */
#include "blockstore/driver_s3.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/rand.h"
#include "blockstore/s3.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REQUESTS_MAX 32u
#define BUDGET_S 60.0
#define DELETE_MAX 1000u
#define PARTS_MAX 10000u

static struct kfs_s3 *self(struct kfs_drv *d)
{
    return (struct kfs_s3 *)d;
}

/* --- calls --------------------------------------------------------------------------------------------------- */

/* A call for a key below the prefix (NULL: for the bucket). */
static struct kfs_s3_call *call_new(struct kfs_s3 *d, const char *method, const char *verb, const char *key)
{
    struct kfs_s3_call *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->method = method;
    c->verb = verb;
    if (key)
        (void)snprintf(c->key, sizeof c->key, "%s%s", d->conf.prefix, key);
    memcpy(c->payload, KFS_SIGV4_EMPTY, sizeof KFS_SIGV4_EMPTY);
    kfs_buf_init(&c->reply);
    return c;
}

static void call_free(struct kfs_s3_call *c)
{
    if (!c)
        return;
    kfs_buf_release(&c->reply);
    free(c);
}

static void call_freep(struct kfs_s3_call **c)
{
    call_free(*c);
}
#define auto_call kfs_auto(call_freep) struct kfs_s3_call

static int no_memory(struct kfs_err *err)
{
    return KFS_FAIL(err, ENOMEM, "out of memory");
}

static int hex_value(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void base64(const unsigned char *md, int n, char *ret)
{
    (void)EVP_EncodeBlock((unsigned char *)ret, md, n);
}

/* What is sent, and its hash: made in the caller's thread, so that the event thread never is. */
static int body_set(struct kfs_s3 *d, struct kfs_s3_call *c, const struct iovec *iov, int count)
{
    unsigned char md[32];
    c->has_body = true;
    c->body = iov;
    c->body_count = count;
    for (int i = 0; i < count; i++)
        c->body_len += iov[i].iov_len;
    if (d->conf.unsigned_payload && !d->conf.checksum) {
        memcpy(c->payload, KFS_SIGV4_UNSIGNED, sizeof KFS_SIGV4_UNSIGNED);
        return 0;
    }
    int rc = kfs_sigv4_hash(iov, count, c->payload);
    for (int i = 0; rc == 0 && i < 32; i++)
        md[i] = (unsigned char)(hex_value(c->payload[2 * i]) << 4 | hex_value(c->payload[2 * i + 1]));
    if (rc == 0)
        base64(md, 32, c->sum);
    if (d->conf.unsigned_payload)
        memcpy(c->payload, KFS_SIGV4_UNSIGNED, sizeof KFS_SIGV4_UNSIGNED);
    return rc;
}

/* The result of a call that was waited for. */
static int result(const struct kfs_s3_call *c, struct kfs_err *err)
{
    if (c->status < 0 && err)
        *err = c->err;
    return c->status;
}

static int not_understood(struct kfs_s3 *d, struct kfs_s3_call *c, int rc, struct kfs_err *err)
{
    c->status = kfs_s3_message(d, c, rc == -ENOMEM ? -ENOMEM : -EIO, rc == -ENOMEM ? "out of memory" : "the server's answer is not understood", NULL);
    return result(c, err);
}

/* --- requests ------------------------------------------------------------------------------------------------ */

static void part_done(struct kfs_s3_call *c)
{
    struct kfs_s3_upload *u = (struct kfs_s3_upload *)c->q->upload;
    struct kfs_s3_part p = {.bytes = c->body_len};
    unsigned n = c->q->part;
    memcpy(p.etag, c->head.etag, sizeof p.etag);
    pthread_mutex_lock(&u->lock);
    if (n > u->part_count) {
        struct kfs_s3_part *more = realloc(u->parts, n * sizeof *more);
        if (!more) {
            pthread_mutex_unlock(&u->lock);
            c->status = KFS_FAIL(&c->err, ENOMEM, "out of memory");
            return;
        }
        memset(more + u->part_count, 0, (n - u->part_count) * sizeof *more);
        u->parts = more;
        u->part_count = n;
    }
    u->parts[n - 1] = p;
    pthread_mutex_unlock(&u->lock);
}

static void request_done(struct kfs_s3_call *c)
{
    struct kfs_drv_req *q = c->q;
    struct kfs_s3 *d = c->arg;
    if (c->status == 0 && q->op == KFS_DRV_PART)
        part_done(c);
    q->status = c->status;
    if (c->status < 0)
        q->err = c->err;
    if (c->status == 0 && c->ranged) {
        q->got = c->have;
        q->value_bytes = c->total;
    } else if (c->status == 0 && c->head_only) {
        q->got = 0;
        q->value_bytes = c->head.has_length ? c->head.length : 0;
        q->mtime_s = c->head.modified_s;
    }
    /* A cancel that comes too late finds nothing. */
    pthread_mutex_lock(&d->lock);
    q->priv.p = NULL;
    pthread_mutex_unlock(&d->lock);
    call_free(c);
    q->done(q);
}

static void get_set(struct kfs_s3_call *c, struct kfs_drv_req *q)
{
    q->got = 0;
    c->ranged = q->len > 0;
    if (c->ranged)
        return;
    c->method = "HEAD"; /* nothing but the size */
    c->head_only = true;
}

static int put_set(struct kfs_s3 *d, struct kfs_s3_call *c, const struct kfs_drv_req *q)
{
    c->if_absent = q->op == KFS_DRV_PUT && q->flags & KFS_DRV_NEW;
    if (c->if_absent)
        (void)snprintf(c->mark, sizeof c->mark, "%016" PRIx64 "%016" PRIx64, kfs_rand_u64(), kfs_rand_u64());
    return body_set(d, c, q->iov, q->iov_count);
}

static int part_set(struct kfs_s3 *d, struct kfs_s3_call *c, const struct kfs_drv_req *q)
{
    const struct kfs_s3_upload *u = (const struct kfs_s3_upload *)q->upload;
    struct kfs_buf b;
    if (!u || q->part == 0 || q->part > PARTS_MAX)
        return -EINVAL;
    kfs_buf_init(&b);
    (void)kfs_buf_printf(&b, "partNumber=%u&uploadId=", q->part);
    (void)kfs_sigv4_encode(&b, u->id, strlen(u->id), false);
    int rc = b.failed ? -ENOMEM : b.len >= sizeof c->query ? -E2BIG : 0;
    if (rc == 0)
        memcpy(c->query, b.data, b.len + 1);
    kfs_buf_release(&b);
    return rc ? rc : put_set(d, c, q);
}

static const struct { const char *method, *verb; } OPS[] = {
    [KFS_DRV_GET] = {"GET", "get"},          [KFS_DRV_PUT] = {"PUT", "put"},        [KFS_DRV_HEAD] = {"HEAD", "look at"},
    [KFS_DRV_DELETE] = {"DELETE", "delete"}, [KFS_DRV_PART] = {"PUT", "put part of"},
};

static void s3_submit(struct kfs_drv *drv, struct kfs_drv_req *q)
{
    struct kfs_s3 *d = self(drv);
    const char *key = q->op == KFS_DRV_PART && q->upload ? q->upload->key : q->key;
    struct kfs_s3_call *c = call_new(d, OPS[q->op].method, OPS[q->op].verb, key);
    q->status = 0;
    q->priv.p = NULL;
    if (c) {
        c->q = q;
        c->priority = q->priority;
        c->head_only = q->op == KFS_DRV_HEAD;
        c->done = request_done;
        c->arg = d;
    }
    if (!c) {
        q->status = no_memory(&q->err);
        q->done(q);
        return;
    }
    if (q->op == KFS_DRV_GET)
        get_set(c, q);
    else if (q->op == KFS_DRV_PUT)
        c->broken = put_set(d, c, q);
    else if (q->op == KFS_DRV_PART)
        c->broken = part_set(d, c, q);
    q->priv.p = c;
    kfs_s3_submit(d, c);
}

static void s3_cancel(struct kfs_drv *drv, struct kfs_drv_req *q)
{
    struct kfs_s3 *d = self(drv);
    pthread_mutex_lock(&d->lock);
    struct kfs_s3_call *c = q->priv.p;
    if (c)
        __atomic_store_n(&c->cancel, true, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&d->lock);
    if (!c)
        return;
    __atomic_store_n(&d->cancelled, true, __ATOMIC_RELEASE);
    kfs_http_wake(d->http);
}

/* --- batch deletion -------------------------------------------------------------------------------------------- */

struct batch {
    struct kfs_s3 *d;
    unsigned failed;
    char key[KFS_S3_KEY_MAX + 1], why[300];
    bool denied;
};

static int delete_failed(void *arg, const char *key, const char *code, const char *message)
{
    struct batch *b = arg;
    if (strcmp(code, "NoSuchKey") == 0)
        return 0;
    if (b->failed++ == 0) {
        (void)snprintf(b->key, sizeof b->key, "%s", key);
        (void)snprintf(b->why, sizeof b->why, "%s: %s", code, message);
    }
    b->denied |= strcmp(code, "AccessDenied") == 0;
    return 0;
}

/* One DeleteObjects. *ret_failed of them the server could not delete. -EOPNOTSUPP: it knows no such call. */
static int delete_batch(struct kfs_s3 *d, const char *const *keys, size_t count, struct batch *b, struct kfs_err *err)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char md5[40];
    struct kfs_buf x;
    auto_call *c = call_new(d, "POST", "delete objects of", NULL);
    kfs_buf_init(&x);
    (void)kfs_buf_append_str(&x, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for (size_t i = 0; i < count; i++) {
        (void)kfs_buf_append_str(&x, "<Object><Key>");
        (void)kfs_xml_escape(&x, d->conf.prefix);
        (void)kfs_xml_escape(&x, keys[i]);
        (void)kfs_buf_append_str(&x, "</Key></Object>");
    }
    (void)kfs_buf_append_str(&x, "</Delete>");
    struct iovec iov = {x.data, x.len};
    int rc = !c || x.failed ? no_memory(err) : 0;
    if (rc == 0) {
        (void)snprintf(c->query, sizeof c->query, "delete=");
        /* The one call that AWS refuses without a checksum of its body; MD5 is what every server takes. */
        if (EVP_Digest(x.data, x.len, md, &n, EVP_md5(), NULL) && n == 16) {
            base64(md, 16, md5);
            c->md5 = md5;
        }
        c->reads_xml = true;
        rc = body_set(d, c, &iov, 1) < 0 ? no_memory(err) : kfs_s3_wait(d, c);
        if (rc < 0 && rc != -ENOMEM)
            (void)result(c, err);
    }
    if (rc == 0) {
        int r = kfs_s3_deleted_read(c->reply.data ? c->reply.data : "", c->reply.len, delete_failed, b);
        if (r < 0 && c->reply.len > 0) /* some servers say nothing when all went well */
            rc = not_understood(d, c, r, err);
    }
    kfs_buf_release(&x);
    return rc;
}

static int delete_each(struct kfs_s3 *d, const char *const *keys, size_t count, struct kfs_err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = kfs_drv_delete(&d->base, keys[i], err);
    return rc;
}

static int s3_delete_many(struct kfs_drv *drv, const char *const *keys, size_t count, struct kfs_err *err)
{
    struct kfs_s3 *d = self(drv);
    for (size_t at = 0; at < count;) {
        size_t n = count - at < DELETE_MAX ? count - at : DELETE_MAX;
        struct batch b = {.d = d};
        struct kfs_err e = {0};
        int rc = n == 1 ? kfs_drv_delete(drv, keys[at], err) : delete_batch(d, keys + at, n, &b, &e);
        if (rc == -EOPNOTSUPP)
            rc = delete_each(d, keys + at, n, err);
        else if (rc < 0 && n > 1 && err)
            *err = e;
        if (rc < 0)
            return rc;
        if (b.failed) /* one by one, with retries and the right message */
            rc = delete_each(d, keys + at, n, err);
        if (rc < 0)
            return rc;
        at += n;
    }
    return 0;
}

/* --- listing --------------------------------------------------------------------------------------------------- */

struct listing {
    kfs_drv_list_cb cb;
    void *arg;
    const char *prefix; /* of the driver; cut off */
    size_t prefix_len, skip_len;
    const char *skip;   /* a server that knows no start-after lists from the start */
};

static int list_object(void *arg, const char *key, uint64_t bytes, int64_t mtime_s)
{
    struct listing *l = arg;
    if (strncmp(key, l->prefix, l->prefix_len) != 0)
        return -EBADMSG;
    if (l->skip && strcmp(key, l->skip) <= 0)
        return 0;
    if (!key[l->prefix_len])
        return 0; /* a "directory" of the prefix itself, made by other tools */
    return l->cb(l->arg, key + l->prefix_len, bytes, mtime_s);
}

static int query_add(struct kfs_buf *b, const char *name, const char *value)
{
    (void)kfs_buf_printf(b, "%s%s=", b->len ? "&" : "", name);
    return kfs_sigv4_encode(b, value, strlen(value), false);
}

static int query_take(struct kfs_s3_call *c, struct kfs_buf *b)
{
    if (b->failed || b->len >= sizeof c->query)
        return b->failed ? -ENOMEM : -E2BIG;
    memcpy(c->query, b->data, b->len + 1);
    return 0;
}

/* One page; 1: there is more. */
static int list_page(struct kfs_s3 *d, const char *full, const char *after, struct kfs_s3_list *page, struct kfs_err *err)
{
    auto_call *c = call_new(d, "GET", "list", NULL);
    struct kfs_buf b;
    if (!c)
        return no_memory(err);
    kfs_buf_init(&b);
    char token[sizeof page->next];
    memcpy(token, page->next, sizeof token);
    if (token[0])
        (void)query_add(&b, "continuation-token", token);
    (void)query_add(&b, "encoding-type", "url");
    (void)query_add(&b, "list-type", "2");
    (void)query_add(&b, "prefix", full);
    if (after && !token[0])
        (void)query_add(&b, "start-after", after);
    c->reads_xml = true;
    int rc = query_take(c, &b);
    kfs_buf_release(&b);
    if (rc < 0)
        return KFS_FAIL(err, -rc, "cannot list '%s': %s", full, strerror(-rc));
    if (kfs_s3_wait(d, c) < 0)
        return result(c, err);
    rc = kfs_s3_list_read(c->reply.data ? c->reply.data : "", c->reply.len, page);
    if (rc == -EBADMSG || rc == -E2BIG || (rc == 0 && page->truncated && (!page->next[0] || strcmp(page->next, token) == 0)))
        return not_understood(d, c, rc ? rc : -EBADMSG, err);
    return rc ? rc : page->truncated;
}

static int s3_list(struct kfs_drv *drv, const char *prefix, const char *after, kfs_drv_list_cb cb, void *arg, struct kfs_err *err)
{
    struct kfs_s3 *d = self(drv);
    char full[KFS_S3_KEY_MAX + 1], behind[KFS_S3_KEY_MAX + 1];
    (void)snprintf(full, sizeof full, "%s%s", d->conf.prefix, prefix ? prefix : "");
    (void)snprintf(behind, sizeof behind, "%s%s", d->conf.prefix, after ? after : "");
    struct listing l = {.cb = cb, .arg = arg, .prefix = d->conf.prefix, .prefix_len = strlen(d->conf.prefix), .skip = after ? behind : NULL};
    struct kfs_s3_list *page = calloc(1, sizeof *page);
    if (!page)
        return no_memory(err);
    page->object = list_object;
    page->arg = &l;
    int rc;
    do {
        rc = list_page(d, full, l.skip, page, err);
    } while (rc == 1);
    free(page);
    return rc;
}

/* --- uploads in parts -------------------------------------------------------------------------------------------- */

static void upload_free(struct kfs_s3_upload *u)
{
    (void)pthread_mutex_destroy(&u->lock);
    free(u->parts);
    free(u);
}

static int s3_upload_begin(struct kfs_drv *drv, const char *key, struct kfs_drv_upload **ret_u, struct kfs_err *err)
{
    struct kfs_s3 *d = self(drv);
    if (!*key || strlen(key) >= KFS_DRV_KEY_MAX)
        return KFS_FAIL(err, EINVAL, "key '%.150s' is not usable; it needs 1 to %d characters", key, KFS_DRV_KEY_MAX - 1);
    auto_call *c = call_new(d, "POST", "begin to upload", key);
    struct kfs_s3_upload *u = calloc(1, sizeof *u);
    if (!c || !u) {
        free(u);
        return no_memory(err);
    }
    (void)pthread_mutex_init(&u->lock, NULL);
    u->base.drv = drv;
    (void)snprintf(u->base.key, sizeof u->base.key, "%s", key);
    (void)snprintf(c->query, sizeof c->query, "uploads=");
    c->has_body = true; /* POST has one, be it empty */
    c->reads_xml = true;
    int rc = kfs_s3_wait(d, c) < 0 ? result(c, err) : 0;
    if (rc == 0) {
        int r = kfs_s3_upload_id_read(c->reply.data ? c->reply.data : "", c->reply.len, u->id, sizeof u->id);
        rc = r < 0 ? not_understood(d, c, r, err) : 0;
    }
    if (rc < 0) {
        upload_free(u);
        return rc;
    }
    *ret_u = &u->base;
    return 0;
}

static int upload_query(struct kfs_s3_call *c, const char *id, const char *more)
{
    struct kfs_buf b;
    kfs_buf_init(&b);
    (void)kfs_buf_append_str(&b, more);
    (void)query_add(&b, "uploadId", id);
    int rc = query_take(c, &b);
    kfs_buf_release(&b);
    return rc;
}

static int upload_delete(struct kfs_s3 *d, const char *full_key, const char *id, struct kfs_err *err)
{
    auto_call *c = call_new(d, "DELETE", "abort the upload of", NULL);
    if (!c)
        return no_memory(err);
    (void)snprintf(c->key, sizeof c->key, "%s", full_key);
    int rc = upload_query(c, id, "");
    if (rc < 0)
        return KFS_FAIL(err, -rc, "cannot abort the upload of '%.200s': %s", full_key, strerror(-rc));
    rc = kfs_s3_wait(d, c);
    return rc == -ENOENT ? 0 : result(c, err);
}

static void upload_full_key(const struct kfs_s3_upload *u, char *buf, size_t cap)
{
    (void)snprintf(buf, cap, "%s%s", self(u->base.drv)->conf.prefix, u->base.key);
}

static void s3_upload_abort(struct kfs_drv_upload *up)
{
    struct kfs_s3_upload *u = (struct kfs_s3_upload *)up;
    char full[KFS_S3_KEY_MAX + 1];
    struct kfs_err err = {0};
    upload_full_key(u, full, sizeof full);
    if (upload_delete(self(up->drv), full, u->id, &err) < 0)
        kfs_log(KFS_LOG_WARN, "s3: %s; it is swept later", err.msg);
    upload_free(u);
}

static uint64_t upload_bytes(const struct kfs_s3_upload *u)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < u->part_count; i++)
        n += u->parts[i].bytes;
    return n;
}

/* What the server says the parts' ETags are, for those of the size that was sent. */
static int part_listed(void *arg, unsigned number, const char *etag, uint64_t bytes)
{
    struct kfs_s3_upload *u = arg;
    if (number > u->part_count || u->parts[number - 1].bytes != bytes)
        return 0;
    (void)snprintf(u->parts[number - 1].etag, sizeof u->parts[number - 1].etag, "%s", etag);
    return 0;
}

static int parts_ask(struct kfs_s3 *d, struct kfs_s3_upload *u, struct kfs_err *err)
{
    struct kfs_s3_list *page = calloc(1, sizeof *page);
    int rc = page ? 1 : no_memory(err);
    for (char at[300] = ""; rc == 1;) {
        auto_call *c = call_new(d, "GET", "list the parts of", u->base.key);
        page->part = part_listed;
        page->arg = u;
        if (at[0])
            (void)snprintf(at, sizeof at, "part-number-marker=%.200s", page->next);
        rc = !c ? no_memory(err) : upload_query(c, u->id, at) < 0 ? no_memory(err) : kfs_s3_wait(d, c) < 0 ? result(c, err) : 0;
        if (rc == 0) {
            int r = kfs_s3_list_read(c->reply.data ? c->reply.data : "", c->reply.len, page);
            rc = r < 0 ? not_understood(d, c, r, err) : page->truncated && page->next[0];
        }
        at[0] = '.';
        at[1] = '\0';
    }
    free(page);
    return rc;
}

static void parts_xml(const struct kfs_s3_upload *u, struct kfs_buf *x)
{
    (void)kfs_buf_append_str(x, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (unsigned i = 0; i < u->part_count; i++) {
        if (!u->parts[i].etag[0])
            continue;
        (void)kfs_buf_printf(x, "<Part><PartNumber>%u</PartNumber><ETag>", i + 1);
        (void)kfs_xml_escape(x, u->parts[i].etag);
        (void)kfs_buf_append_str(x, "</ETag></Part>");
    }
    (void)kfs_buf_append_str(x, "</CompleteMultipartUpload>");
}

/* One CompleteMultipartUpload, with its retries. *ret_unsure: an earlier attempt may have done it. */
static int upload_complete(struct kfs_s3 *d, struct kfs_s3_upload *u, unsigned flags, char *ret_code, size_t cap, bool *ret_unsure, struct kfs_err *err)
{
    auto_call *c = call_new(d, "POST", "finish the upload of", u->base.key);
    struct kfs_buf x;
    kfs_buf_init(&x);
    parts_xml(u, &x);
    struct iovec iov = {x.data, x.len};
    int rc = !c || x.failed || upload_query(c, u->id, "") < 0 || body_set(d, c, &iov, 1) < 0 ? no_memory(err) : 0;
    if (rc == 0) {
        c->reads_xml = true;
        c->if_absent = flags & KFS_DRV_NEW;
        rc = kfs_s3_wait(d, c) < 0 ? result(c, err) : 0;
        (void)snprintf(ret_code, cap, "%s", c->said.code);
        *ret_unsure = c->unsure;
    }
    kfs_buf_release(&x);
    return rc;
}

static int upload_empty(struct kfs_s3_upload *u, unsigned flags, struct kfs_err *err)
{
    struct kfs_drv *drv = u->base.drv;
    char key[KFS_DRV_KEY_MAX];
    memcpy(key, u->base.key, sizeof key);
    s3_upload_abort(&u->base);
    return kfs_drv_put(drv, key, "", 0, flags, err);
}

static int s3_upload_finish(struct kfs_drv_upload *up, unsigned flags, struct kfs_err *err)
{
    struct kfs_s3_upload *u = (struct kfs_s3_upload *)up;
    struct kfs_s3 *d = self(up->drv);
    char code[64] = "";
    bool unsure = false;
    struct kfs_err e = {0};
    if (u->part_count == 0)
        return upload_empty(u, flags, err);
    int rc = upload_complete(d, u, flags, code, sizeof code, &unsure, &e);
    /* A part's answer may have had a damaged ETag: what counts is what the server has. */
    if (rc < 0 && (strcmp(code, "InvalidPart") == 0 || strcmp(code, "InvalidPartOrder") == 0) && parts_ask(d, u, NULL) == 0)
        rc = upload_complete(d, u, flags, code, sizeof code, &unsure, &e);
    /* A second try of what was done already finds no upload, or its own value. */
    uint64_t bytes = 0;
    if ((rc == -ENOENT || rc == -EEXIST) && unsure && kfs_drv_head(&d->base, u->base.key, &bytes, NULL, NULL) == 0 && bytes == upload_bytes(u))
        rc = 0;
    if (rc == 0) {
        upload_free(u);
        return 0;
    }
    if (rc == -ENOENT)
        rc = KFS_FAIL(&e, EIO, "cannot finish the upload of '%s' in '%s': its parts are gone", u->base.key, d->base.url);
    if (err)
        *err = e;
    s3_upload_abort(up);
    return rc;
}

struct sweep {
    struct kfs_s3 *d;
    int64_t before_s, count;
    int rc;
    struct kfs_err err;
};

static int sweep_upload(void *arg, const char *key, const char *id, int64_t begun_s)
{
    struct sweep *s = arg;
    if (begun_s == 0 || begun_s > s->before_s || strncmp(key, s->d->conf.prefix, strlen(s->d->conf.prefix)) != 0)
        return 0;
    int rc = upload_delete(s->d, key, id, &s->err);
    if (rc == 0)
        s->count++;
    else if (s->rc == 0)
        s->rc = rc;
    return 0;
}

static int64_t s3_upload_sweep(struct kfs_drv *drv, int64_t age_s, struct kfs_err *err)
{
    struct kfs_s3 *d = self(drv);
    struct sweep s = {.d = d, .before_s = (int64_t)time(NULL) - age_s};
    struct kfs_s3_list *page = calloc(1, sizeof *page);
    int rc = page ? 1 : no_memory(err);
    while (rc == 1) {
        auto_call *c = call_new(d, "GET", "list unfinished uploads of", NULL);
        struct kfs_buf b;
        kfs_buf_init(&b);
        (void)query_add(&b, "encoding-type", "url");
        if (page->next[0])
            (void)query_add(&b, "key-marker", page->next);
        (void)query_add(&b, "prefix", d->conf.prefix);
        if (page->next[0] && page->next_id[0])
            (void)query_add(&b, "upload-id-marker", page->next_id);
        (void)query_add(&b, "uploads", "");
        page->upload = sweep_upload;
        page->arg = &s;
        char old[sizeof page->next + sizeof page->next_id];
        (void)snprintf(old, sizeof old, "%s%s", page->next, page->next_id);
        rc = !c || query_take(c, &b) < 0 ? no_memory(err) : kfs_s3_wait(d, c) < 0 ? result(c, err) : 0;
        kfs_buf_release(&b);
        if (rc == 0) {
            int r = kfs_s3_list_read(c->reply.data ? c->reply.data : "", c->reply.len, page);
            char now[sizeof old];
            (void)snprintf(now, sizeof now, "%s%s", page->next, page->next_id);
            rc = r < 0 ? not_understood(d, c, r, err) : page->truncated && strcmp(now, old) != 0;
        }
    }
    free(page);
    if (rc == 0 && s.rc < 0 && err)
        *err = s.err;
    return rc < 0 ? rc : s.rc < 0 ? s.rc : s.count;
}

/* --- the driver as a whole --------------------------------------------------------------------------------------- */

static int s3_sync(struct kfs_drv *drv, struct kfs_err *err)
{
    (void)drv, (void)err;
    return 0; /* what a server has confirmed is safe */
}

static int s3_statfs(struct kfs_drv *drv, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes, struct kfs_err *err)
{
    (void)drv, (void)ret_total_bytes, (void)ret_free_bytes;
    return KFS_FAIL(err, EOPNOTSUPP, "a bucket has no size");
}

static void s3_stats(struct kfs_drv *drv, struct kfs_drv_stats *ret)
{
    struct kfs_s3 *d = self(drv);
#define GET(field) __atomic_load_n(&d->field, __ATOMIC_RELAXED)
    for (int i = 0; i < 5; i++)
        ret->requests[i] = GET(requests[i]);
    ret->attempts = GET(attempts);
    ret->retries = GET(retries);
    ret->hedges = GET(hedges);
    ret->hedges_won = GET(hedges_won);
    ret->sent_bytes = GET(sent_bytes);
    ret->received_bytes = GET(received_bytes);
    ret->running = GET(stat_running);
    ret->limit = GET(stat_limit);
#undef GET
}

static void release(struct kfs_s3 *d)
{
    kfs_http_close(d->http);
    kfs_cred_close(d->cred);
    (void)pthread_mutex_destroy(&d->lock);
    (void)pthread_cond_destroy(&d->idle);
    free(d->base.url);
    free(d);
}

static void s3_close(struct kfs_drv *drv)
{
    struct kfs_s3 *d = self(drv);
    pthread_mutex_lock(&d->lock);
    while (d->outstanding)
        pthread_cond_wait(&d->idle, &d->lock);
    pthread_mutex_unlock(&d->lock);
    release(d);
}

static int parts_open(struct kfs_s3 *d, struct kfs_err *err)
{
    struct kfs_http_options h = {.ca_file = d->conf.ca_file[0] ? d->conf.ca_file : NULL,
                                 .proxy = d->conf.proxy[0] ? d->conf.proxy : NULL,
                                 .insecure = d->conf.insecure,
                                 .version = d->conf.http,
                                 .connections_max = 2 * d->requests_max + 8,
                                 .connect_ms = d->conf.connect_ms};
    struct kfs_cred_options o = {.profile = d->conf.profile[0] ? d->conf.profile : NULL, .region = d->conf.region, .http = h};
    o.http.ca_file = NULL; /* that is the store's; STS has a certificate of its own */
    o.http.insecure = false;
    o.http.version = KFS_HTTP_AUTO;
    int rc = kfs_cred_open(&o, &d->cred, err);
    if (rc == 0)
        rc = kfs_http_open(&h, kfs_s3_tick, d, &d->http, err);
    return rc < 0 ? KFS_WRAP(err, "cannot use store '%.150s'", d->base.url) : 0;
}

static int s3_open(const char *url, const struct kfs_drv_options *o, bool create, struct kfs_drv **ret_d, struct kfs_err *err)
{
    (void)create; /* a bucket is never created */
    struct kfs_s3 *d = calloc(1, sizeof *d);
    if (!d)
        return no_memory(err);
    (void)pthread_mutex_init(&d->lock, NULL);
    (void)pthread_cond_init(&d->idle, NULL);
    d->base.ops = &kfs_drv_s3;
    d->base.url = strdup(url);
    d->requests_max = o->requests_max ? o->requests_max : REQUESTS_MAX;
    d->limit = d->requests_max;
    d->stat_limit = d->requests_max;
    d->budget_ns = (uint64_t)((o->retry_budget_s > 0 ? o->retry_budget_s : BUDGET_S) * 1e9);
    int rc = d->base.url ? kfs_s3_conf_parse(url, o->settings, &d->conf, err) : no_memory(err);
    if (rc == 0) {
        d->clock_offset = d->conf.clock_offset_s;
        rc = parts_open(d, err);
    }
    if (rc < 0) {
        release(d);
        return rc;
    }
    *ret_d = &d->base;
    return 0;
}

const struct kfs_drv_ops kfs_drv_s3 = {
    .scheme = "s3",
    .remote = true,
    .open = s3_open,
    .close = s3_close,
    .submit = s3_submit,
    .cancel = s3_cancel,
    .delete_many = s3_delete_many,
    .list = s3_list,
    .sync = s3_sync,
    .statfs = s3_statfs,
    .upload_begin = s3_upload_begin,
    .upload_finish = s3_upload_finish,
    .upload_abort = s3_upload_abort,
    .upload_sweep = s3_upload_sweep,
    .stats = s3_stats,
};
