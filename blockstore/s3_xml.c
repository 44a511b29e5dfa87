#include "blockstore/s3_xml.h"
#include "base/cleanup.h"
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <expat.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* --- memory of the parser: it may hold credentials, so it is wiped ---------------------------------- */

struct chunk {
    size_t len;
    max_align_t data[];
};

static void *wiped_malloc(size_t n)
{
    struct chunk *c = n < SIZE_MAX / 2 ? malloc(sizeof *c + n) : NULL;
    if (!c)
        return NULL;
    c->len = n;
    return c->data;
}

static void wiped_free(void *p)
{
    if (!p)
        return;
    struct chunk *c = (struct chunk *)(void *)((char *)p - offsetof(struct chunk, data));
    OPENSSL_cleanse(c->data, c->len);
    free(c);
}

static void *wiped_realloc(void *p, size_t n)
{
    void *q = wiped_malloc(n);
    if (q && p) {
        struct chunk *c = (struct chunk *)(void *)((char *)p - offsetof(struct chunk, data));
        memcpy(q, p, c->len < n ? c->len : n);
        wiped_free(p);
    }
    return q;
}

/* --- walking ----------------------------------------------------------------------------------------- */

#define PATH_MAX_ 256

struct walk {
    XML_Parser parser;
    kfs_xml_cb cb;
    void *arg;
    int rc;
    int depth;
    size_t path_len[KFS_XML_DEPTH_MAX]; /* before each level's name */
    char path[PATH_MAX_];
    size_t path_end;
    bool leaf; /* since the last start: text belongs to it */
    size_t text_len;
    char text[KFS_XML_TEXT_MAX + 1];
};

static void stop(struct walk *w, int rc)
{
    if (w->rc == 0)
        w->rc = rc;
    (void)XML_StopParser(w->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attrs)
{
    struct walk *w = arg;
    (void)attrs;
    const char *colon = strrchr(name, ':');
    name = colon ? colon + 1 : name;
    size_t n = strlen(name);
    if (w->rc)
        return;
    if (w->depth == KFS_XML_DEPTH_MAX || w->path_end + n + 2 > sizeof w->path) {
        stop(w, -E2BIG);
        return;
    }
    w->path_len[w->depth++] = w->path_end;
    if (w->path_end)
        w->path[w->path_end++] = '/';
    memcpy(w->path + w->path_end, name, n + 1);
    w->path_end += n;
    w->leaf = true;
    w->text_len = 0;
}

static void XMLCALL on_text(void *arg, const XML_Char *s, int len)
{
    struct walk *w = arg;
    if (w->rc || !w->leaf)
        return;
    if ((size_t)len > KFS_XML_TEXT_MAX - w->text_len) {
        stop(w, -E2BIG);
        return;
    }
    memcpy(w->text + w->text_len, s, (size_t)len);
    w->text_len += (size_t)len;
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
    struct walk *w = arg;
    (void)name;
    if (w->rc || w->depth == 0)
        return;
    const char *t = w->text;
    size_t n = w->leaf ? w->text_len : 0;
    while (n && isspace((unsigned char)*t)) {
        t++;
        n--;
    }
    while (n && isspace((unsigned char)t[n - 1]))
        n--;
    w->text[(t - w->text) + (ptrdiff_t)n] = '\0';
    int rc = w->cb(w->arg, w->path, t, n);
    w->path_end = w->path_len[--w->depth];
    w->path[w->path_end] = '\0';
    w->leaf = false;
    if (rc)
        stop(w, rc);
}

/* A document type is where entities come from. */
static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *sys, const XML_Char *pub, int internal)
{
    (void)name, (void)sys, (void)pub, (void)internal;
    stop(arg, -EBADMSG);
}

int kfs_xml_each(const char *xml, size_t len, kfs_xml_cb cb, void *arg)
{
    static const XML_Memory_Handling_Suite memory = {wiped_malloc, wiped_realloc, wiped_free};
    if (len > KFS_XML_BYTES_MAX)
        return -E2BIG;
    struct walk *w = calloc(1, sizeof *w);
    XML_Parser p = w ? XML_ParserCreate_MM(NULL, &memory, NULL) : NULL;
    if (!p) {
        free(w);
        return -ENOMEM;
    }
    w->parser = p;
    w->cb = cb;
    w->arg = arg;
    XML_SetUserData(p, w);
    XML_SetElementHandler(p, on_start, on_end);
    XML_SetCharacterDataHandler(p, on_text);
    XML_SetStartDoctypeDeclHandler(p, on_doctype);
    enum XML_Status status = XML_Parse(p, xml, (int)len, 1);
    int rc = w->rc ? w->rc : status == XML_STATUS_OK ? 0 : XML_GetErrorCode(p) == XML_ERROR_NO_MEMORY ? -ENOMEM : -EBADMSG;
    XML_ParserFree(p);
    OPENSSL_cleanse(w, sizeof *w);
    free(w);
    return rc;
}

int kfs_xml_escape(struct kfs_buf *out, const char *s)
{
    for (; *s; s++) {
        const char *e = *s == '&' ? "&amp;" : *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '"' ? "&quot;" : *s == '\r' ? "&#13;" : NULL;
        if (e)
            (void)kfs_buf_append_str(out, e);
        else
            (void)kfs_buf_append(out, s, 1);
    }
    return out->failed ? -ENOMEM : 0;
}

/* --- values ------------------------------------------------------------------------------------------ */

static bool fits(char *to, size_t cap, const char *from, size_t len)
{
    if (len >= cap || memchr(from, '\0', len))
        return false;
    memcpy(to, from, len);
    to[len] = '\0';
    return true;
}

/* For messages: cut where it must be, and without control characters. */
static void cut(char *to, size_t cap, const char *from, size_t len)
{
    size_t n = len < cap - 1 ? len : cap - 1;
    for (size_t i = 0; i < n; i++)
        to[i] = (unsigned char)from[i] < 0x20 || from[i] == 0x7f ? ' ' : from[i];
    to[n] = '\0';
}

static bool number(const char *s, size_t len, uint64_t *ret)
{
    uint64_t v = 0;
    if (len == 0 || len > 20)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned d = (unsigned)(unsigned char)s[i] - '0';
        if (d > 9 || v > (UINT64_MAX - d) / 10)
            return false;
        v = v * 10 + d;
    }
    *ret = v;
    return true;
}

bool kfs_s3_time_parse(const char *s, int64_t *ret_s)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd";
    int v[6] = {0}, field = 0;
    for (size_t i = 0; i < sizeof form - 1; i++) {
        bool digit = s[i] >= '0' && s[i] <= '9';
        if (form[i] == 'd' ? !digit : s[i] != form[i])
            return false;
        if (digit)
            v[field] = v[field] * 10 + (s[i] - '0');
        else
            field++;
    }
    struct tm tm = {.tm_year = v[0] - 1900, .tm_mon = v[1] - 1, .tm_mday = v[2], .tm_hour = v[3], .tm_min = v[4], .tm_sec = v[5]};
    *ret_s = (int64_t)timegm(&tm);
    return true;
}

static const char *last_of(const char *path)
{
    const char *s = strrchr(path, '/');
    return s ? s + 1 : path;
}

/* --- documents --------------------------------------------------------------------------------------- */

static int error_cb(void *arg, const char *path, const char *text, size_t len)
{
    static const struct { const char *name; size_t off, cap; } FIELDS[] = {
        {"Code", offsetof(struct kfs_s3_error, code), sizeof((struct kfs_s3_error *)0)->code},
        {"Message", offsetof(struct kfs_s3_error, message), sizeof((struct kfs_s3_error *)0)->message},
        {"Region", offsetof(struct kfs_s3_error, region), sizeof((struct kfs_s3_error *)0)->region},
        {"Endpoint", offsetof(struct kfs_s3_error, endpoint), sizeof((struct kfs_s3_error *)0)->endpoint},
        {"RequestId", offsetof(struct kfs_s3_error, request_id), sizeof((struct kfs_s3_error *)0)->request_id},
    };
    /* "Error/Code"; of a token service "ErrorResponse/Error/Code" */
    const char *e = strncmp(path, "ErrorResponse/", 14) == 0 ? path + 14 : path;
    if (strncmp(e, "Error/", 6) != 0)
        return 0;
    for (size_t i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++)
        if (strcmp(e + 6, FIELDS[i].name) == 0)
            cut((char *)arg + FIELDS[i].off, FIELDS[i].cap, text, len);
    return 0;
}

int kfs_s3_error_read(const char *xml, size_t len, struct kfs_s3_error *ret)
{
    memset(ret, 0, sizeof *ret);
    return kfs_xml_each(xml, len, error_cb, ret);
}

struct list_read {
    struct kfs_s3_list *l;
    bool encoded, root;
    /* of the item that is being read */
    bool has_key, has_size;
    char key[3 * 1024 + 1], id[1024], etag[128];
    uint64_t size, number;
    int64_t time_s;
};

static void item_clear(struct list_read *r)
{
    r->has_key = r->has_size = false;
    r->key[0] = r->id[0] = r->etag[0] = '\0';
    r->size = r->number = 0;
    r->time_s = 0;
}

/* "a%2Fb+c" as encoding-type=url has it, in place. */
static bool url_decode(char *s)
{
    char *o = s;
    for (; *s; s++) {
        if (*s != '%') {
            *o++ = *s == '+' ? ' ' : *s;
            continue;
        }
        int v = 0;
        for (int i = 1; i <= 2; i++) {
            char c = (char)(s[i] | 0x20);
            if (s[i] >= '0' && s[i] <= '9')
                v = v * 16 + s[i] - '0';
            else if (c >= 'a' && c <= 'f')
                v = v * 16 + c - 'a' + 10;
            else
                return false;
        }
        if (v == 0)
            return false;
        *o++ = (char)v;
        s += 2;
    }
    *o = '\0';
    return true;
}

static int item_end(struct list_read *r, const char *what)
{
    struct kfs_s3_list *l = r->l;
    int rc = 0;
    if (strcmp(what, "Part") == 0) {
        if (r->number == 0 || r->number > 10000 || !r->etag[0] || !r->has_size)
            return -EBADMSG;
        return l->part ? l->part(l->arg, (unsigned)r->number, r->etag, r->size) : 0;
    }
    if (!r->has_key || (r->encoded && !url_decode(r->key)))
        return -EBADMSG;
    if (strcmp(what, "Contents") == 0) {
        if (!r->has_size)
            return -EBADMSG;
        rc = l->object ? l->object(l->arg, r->key, r->size, r->time_s) : 0;
    } else {
        if (!r->id[0])
            return -EBADMSG;
        rc = l->upload ? l->upload(l->arg, r->key, r->id, r->time_s) : 0;
    }
    return rc;
}

static int item_field(struct list_read *r, const char *name, const char *text, size_t len)
{
    if (strcmp(name, "Key") == 0) {
        r->has_key = true;
        return fits(r->key, sizeof r->key, text, len) ? 0 : -E2BIG;
    }
    if (strcmp(name, "UploadId") == 0)
        return fits(r->id, sizeof r->id, text, len) ? 0 : -E2BIG;
    if (strcmp(name, "ETag") == 0)
        return fits(r->etag, sizeof r->etag, text, len) ? 0 : -E2BIG;
    if (strcmp(name, "PartNumber") == 0)
        return number(text, len, &r->number) ? 0 : -EBADMSG;
    if (strcmp(name, "Size") == 0) {
        r->has_size = number(text, len, &r->size);
        return r->has_size ? 0 : -EBADMSG;
    }
    if (strcmp(name, "LastModified") == 0 || strcmp(name, "Initiated") == 0)
        (void)kfs_s3_time_parse(text, &r->time_s);
    return 0;
}

static int list_cb(void *arg, const char *path, const char *text, size_t len)
{
    struct list_read *r = arg;
    struct kfs_s3_list *l = r->l;
    size_t top = strcspn(path, "/");
    bool known = (top == 16 && strncmp(path, "ListBucketResult", top) == 0) || (top == 26 && strncmp(path, "ListMultipartUploadsResult", top) == 0) ||
                 (top == 15 && strncmp(path, "ListPartsResult", top) == 0);
    if (!known)
        return -EBADMSG;
    r->root = true;
    if (!path[top])
        return 0;
    const char *s = path + top + 1, *slash = strchr(s, '/'), *name = last_of(s);
    if (slash) {
        size_t n = (size_t)(slash - s);
        bool item = (n == 8 && strncmp(s, "Contents", n) == 0) || (n == 6 && strncmp(s, "Upload", n) == 0) || (n == 4 && strncmp(s, "Part", n) == 0);
        return item && name == slash + 1 ? item_field(r, name, text, len) : 0;
    }
    if (strcmp(s, "Contents") == 0 || strcmp(s, "Upload") == 0 || strcmp(s, "Part") == 0) {
        int rc = item_end(r, s);
        item_clear(r);
        return rc;
    }
    if (strcmp(s, "IsTruncated") == 0)
        l->truncated = strcmp(text, "true") == 0;
    else if (strcmp(s, "EncodingType") == 0)
        r->encoded = strcmp(text, "url") == 0;
    else if (strcmp(s, "NextContinuationToken") == 0 || strcmp(s, "NextKeyMarker") == 0 || strcmp(s, "NextPartNumberMarker") == 0)
        return fits(l->next, sizeof l->next, text, len) ? 0 : -E2BIG;
    else if (strcmp(s, "NextUploadIdMarker") == 0)
        return fits(l->next_id, sizeof l->next_id, text, len) ? 0 : -E2BIG;
    return 0;
}

/* EncodingType may stand behind what it is about. */
static int encoding_cb(void *arg, const char *path, const char *text, size_t len)
{
    bool *encoded = arg;
    (void)len;
    if (strcmp(last_of(path), "EncodingType") == 0 && strchr(path, '/') && !strchr(strchr(path, '/') + 1, '/'))
        *encoded = strcmp(text, "url") == 0;
    return 0;
}

int kfs_s3_list_read(const char *xml, size_t len, struct kfs_s3_list *l)
{
    struct list_read *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->l = l;
    l->truncated = false;
    l->next[0] = l->next_id[0] = '\0';
    int rc = kfs_xml_each(xml, len, encoding_cb, &r->encoded);
    if (rc == 0)
        rc = kfs_xml_each(xml, len, list_cb, r);
    free(r);
    return rc;
}

struct find {
    const char *path;
    char *to;
    size_t cap;
    bool found;
};

static int find_cb(void *arg, const char *path, const char *text, size_t len)
{
    struct find *f = arg;
    if (strcmp(path, f->path) != 0)
        return 0;
    f->found = len > 0;
    return fits(f->to, f->cap, text, len) ? 0 : -E2BIG;
}

int kfs_s3_upload_id_read(const char *xml, size_t len, char *ret_id, size_t cap)
{
    struct find f = {.path = "InitiateMultipartUploadResult/UploadId", .to = ret_id, .cap = cap};
    int rc = kfs_xml_each(xml, len, find_cb, &f);
    return rc < 0 ? rc : f.found ? 0 : -EBADMSG;
}

struct deleted {
    kfs_s3_deleted_cb failed;
    void *arg;
    bool root;
    char key[1025], code[64], message[200];
};

static int deleted_cb(void *arg, const char *path, const char *text, size_t len)
{
    struct deleted *d = arg;
    if (strncmp(path, "DeleteResult", 12) != 0)
        return -EBADMSG;
    d->root = true;
    if (strcmp(path, "DeleteResult/Error/Key") == 0)
        return fits(d->key, sizeof d->key, text, len) ? 0 : -E2BIG;
    if (strcmp(path, "DeleteResult/Error/Code") == 0)
        cut(d->code, sizeof d->code, text, len);
    if (strcmp(path, "DeleteResult/Error/Message") == 0)
        cut(d->message, sizeof d->message, text, len);
    if (strcmp(path, "DeleteResult/Error") != 0)
        return 0;
    int rc = d->failed(d->arg, d->key, d->code, d->message);
    d->key[0] = d->code[0] = d->message[0] = '\0';
    return rc;
}

int kfs_s3_deleted_read(const char *xml, size_t len, kfs_s3_deleted_cb failed, void *arg)
{
    struct deleted d = {.failed = failed, .arg = arg};
    int rc = kfs_xml_each(xml, len, deleted_cb, &d);
    return rc ? rc : d.root ? 0 : -EBADMSG;
}

struct credentials {
    struct find f[3];
    int64_t expires_s;
};

static int credentials_cb(void *arg, const char *path, const char *text, size_t len)
{
    struct credentials *c = arg;
    const char *s = strstr(path, "Credentials/");
    if (!s)
        return 0;
    s += strlen("Credentials/");
    for (int i = 0; i < 3; i++)
        if (strcmp(s, c->f[i].path) == 0) {
            c->f[i].found = len > 0;
            return fits(c->f[i].to, c->f[i].cap, text, len) ? 0 : -E2BIG;
        }
    if (strcmp(s, "Expiration") == 0)
        (void)kfs_s3_time_parse(text, &c->expires_s);
    return 0;
}

int kfs_s3_credentials_read(const char *xml, size_t len, char *ret_access, size_t access_cap, char *ret_secret, size_t secret_cap, char *ret_token,
                            size_t token_cap, int64_t *ret_expires_s)
{
    struct credentials c = {.f = {{"AccessKeyId", ret_access, access_cap, false},
                                  {"SecretAccessKey", ret_secret, secret_cap, false},
                                  {"SessionToken", ret_token, token_cap, false}}};
    int rc = kfs_xml_each(xml, len, credentials_cb, &c);
    if (rc < 0)
        return rc;
    *ret_expires_s = c.expires_s;
    return c.f[0].found && c.f[1].found && c.f[2].found ? 0 : -EBADMSG;
}

/* --- header lines -------------------------------------------------------------------------------------- */

/* "bytes 0-9/100", "bytes 0-9/STAR" (size unknown: not taken), "bytes STAR/100" */
static void range_read(struct kfs_s3_head *h, const char *v, size_t len)
{
    const char *end = v + len, *slash = memchr(v, '/', len), *dash;
    if (len < 7 || strncasecmp(v, "bytes ", 6) != 0 || !slash)
        return;
    uint64_t total, first, last;
    v += 6;
    if (!number(slash + 1, (size_t)(end - slash - 1), &total))
        return;
    if (slash - v == 1 && *v == '*') {
        h->range_unsatisfied = true;
        h->total = total;
        return;
    }
    dash = slash > v ? memchr(v, '-', (size_t)(slash - v)) : NULL;
    if (!dash || !number(v, (size_t)(dash - v), &first) || !number(dash + 1, (size_t)(slash - dash - 1), &last) || first > last || last >= total)
        return;
    h->has_range = true;
    h->first = first;
    h->last = last;
    h->total = total;
}

static int64_t date_read(const char *v, size_t len)
{
    char s[64];
    if (!fits(s, sizeof s, v, len))
        return 0;
    time_t t = curl_getdate(s, NULL);
    return t == (time_t)-1 ? 0 : (int64_t)t;
}

static void retry_read(struct kfs_s3_head *h, const char *v, size_t len)
{
    uint64_t s;
    if (number(v, len, &s)) {
        h->retry_after_ms = (uint32_t)(s < 3600 ? s * 1000 : 3600000);
        return;
    }
    int64_t at = date_read(v, len), from = h->date_s ? h->date_s : (int64_t)time(NULL);
    if (at > from)
        h->retry_after_ms = (uint32_t)(at - from < 3600 ? (at - from) * 1000 : 3600000);
}

static void status_read(struct kfs_s3_head *h, const char *line, size_t len)
{
    const char *s = memchr(line, ' ', len);
    uint64_t v;
    memset(h, 0, sizeof *h);
    if (s && len - (size_t)(s - line) >= 4 && number(s + 1, 3, &v))
        h->status = (int)v;
}

void kfs_s3_head_line(struct kfs_s3_head *h, const char *line, size_t len)
{
    if (len >= 5 && strncmp(line, "HTTP/", 5) == 0) {
        status_read(h, line, len);
        return;
    }
    const char *colon = memchr(line, ':', len);
    if (!colon)
        return;
    size_t n = (size_t)(colon - line), vn = len - n - 1;
    const char *v = colon + 1;
    while (vn && (*v == ' ' || *v == '\t')) {
        v++;
        vn--;
    }
    while (vn && (v[vn - 1] == ' ' || v[vn - 1] == '\t' || v[vn - 1] == '\r' || v[vn - 1] == '\n'))
        vn--;
#define IS(name) (n == sizeof(name) - 1 && strncasecmp(line, name, n) == 0)
    if (IS("content-length"))
        h->has_length = number(v, vn, &h->length);
    else if (IS("content-range"))
        range_read(h, v, vn);
    else if (IS("etag"))
        (void)fits(h->etag, sizeof h->etag, v, vn);
    else if (IS("date"))
        h->date_s = date_read(v, vn);
    else if (IS("last-modified"))
        h->modified_s = date_read(v, vn);
    else if (IS("retry-after"))
        retry_read(h, v, vn);
    else if (IS("x-amz-bucket-region"))
        (void)fits(h->region, sizeof h->region, v, vn);
    else if (IS("x-amz-request-id"))
        cut(h->request_id, sizeof h->request_id, v, vn);
    else if (IS("x-amz-meta-kfs-put"))
        cut(h->put_mark, sizeof h->put_mark, v, vn);
#undef IS
}
