#include "blockstore/sigv4.h"
#include "base/cleanup.h"
#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ALGORITHM "AWS4-HMAC-SHA256"
#define TAIL "/aws4_request"
#define EXPIRES_MAX 604800u

static const char HEX[] = "0123456789abcdef", HEX_UPPER[] = "0123456789ABCDEF";

static void hex_of(const unsigned char *bytes, size_t n, char *ret)
{
    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = HEX[bytes[i] >> 4];
        ret[2 * i + 1] = HEX[bytes[i] & 15];
    }
    ret[2 * n] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void kfs_sigv4_date(time_t at, char ret[KFS_SIGV4_DATE_MAX])
{
    struct tm tm = {0};
    (void)gmtime_r(&at, &tm);
    if (!strftime(ret, KFS_SIGV4_DATE_MAX, "%Y%m%dT%H%M%SZ", &tm))
        ret[0] = '\0';
}

int kfs_sigv4_hash(const struct iovec *iov, int count, char ret_hex[65])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD_CTX *x = EVP_MD_CTX_new();
    bool ok = x && EVP_DigestInit_ex(x, EVP_sha256(), NULL);
    for (int i = 0; ok && i < count; i++)
        ok = EVP_DigestUpdate(x, iov[i].iov_base, iov[i].iov_len);
    ok = ok && EVP_DigestFinal_ex(x, md, &n) && n == 32;
    EVP_MD_CTX_free(x);
    if (!ok)
        return -ENOMEM;
    hex_of(md, n, ret_hex);
    return 0;
}

/* --- canonical forms ----------------------------------------------------------------------------- */

static bool unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c ? c : ' ');
}

static int encode_byte(struct kfs_buf *out, unsigned char c, bool keep_slash)
{
    if (unreserved(c) || (keep_slash && c == '/'))
        return kfs_buf_append(out, &c, 1);
    char e[3] = {'%', HEX_UPPER[c >> 4], HEX_UPPER[c & 15]};
    return kfs_buf_append(out, e, 3);
}

int kfs_sigv4_encode(struct kfs_buf *out, const char *s, size_t len, bool keep_slash)
{
    for (size_t i = 0; i < len; i++)
        (void)encode_byte(out, (unsigned char)s[i], keep_slash);
    return out->failed ? -ENOMEM : 0;
}

/* Decoded and encoded again, so that "a%2fb" and "a%2Fb" are one, and what was left bare is encoded. */
static int recode(struct kfs_buf *out, const char *s, size_t len, bool keep_slash)
{
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)s[i];
        if (c == '%') {
            int hi = i + 1 < len ? hex_value(s[i + 1]) : -1, lo = i + 2 < len ? hex_value(s[i + 2]) : -1;
            if (hi < 0 || lo < 0)
                return -EINVAL;
            c = hi * 16 + lo;
            i += 2;
            /* An encoded slash is part of a name, not a separator. */
            if (c == '/' && keep_slash) {
                (void)kfs_buf_append_str(out, "%2F");
                continue;
            }
        }
        (void)encode_byte(out, (unsigned char)c, keep_slash);
    }
    return out->failed ? -ENOMEM : 0;
}

struct param {
    size_t at, eq, end; /* name [at, eq), '=', value up to end: in the buffer of encoded parameters */
};

static int param_compare(const void *a, const void *b, void *text)
{
    const struct param *p = a, *q = b;
    const char *t = text;
    size_t n = p->eq - p->at, m = q->eq - q->at;
    int d = memcmp(t + p->at, t + q->at, n < m ? n : m);
    if (d == 0)
        d = (n > m) - (n < m);
    if (d)
        return d;
    n = p->end - p->eq, m = q->end - q->eq;
    d = memcmp(t + p->eq, t + q->eq, n < m ? n : m);
    return d ? d : (n > m) - (n < m);
}

/* The canonical query, without the parameter `skip` (NULL: all). */
static int query_canonical(struct kfs_buf *out, const char *query, const char *skip)
{
    struct param p[KFS_SIGV4_HEADERS_MAX];
    size_t count = 0, skip_len = skip ? strlen(skip) : 0;
    struct kfs_buf text;
    int rc = 0;
    kfs_buf_init(&text);
    for (const char *s = query ? query : ""; *s && rc == 0;) {
        size_t len = strcspn(s, "&"), name = 0;
        while (name < len && s[name] != '=')
            name++;
        if (len > 0 && !(skip && name == skip_len && strncmp(s, skip, name) == 0)) {
            if (count == KFS_SIGV4_HEADERS_MAX) {
                rc = -E2BIG;
                break;
            }
            p[count].at = text.len;
            rc = recode(&text, s, name, false);
            p[count].eq = text.len;
            (void)kfs_buf_append(&text, "=", 1);
            if (rc == 0 && name < len)
                rc = recode(&text, s + name + 1, len - name - 1, false);
            p[count++].end = text.len;
        }
        s += len + (s[len] == '&');
    }
    if (rc == 0 && count)
        qsort_r(p, count, sizeof *p, param_compare, text.data);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (i)
            (void)kfs_buf_append(out, "&", 1);
        (void)kfs_buf_append(out, text.data + p[i].at, p[i].end - p[i].at);
    }
    if (rc == 0 && (text.failed || out->failed))
        rc = -ENOMEM;
    kfs_buf_release(&text);
    return rc;
}

static int header_compare(const void *a, const void *b)
{
    const struct kfs_sigv4_header *const *x = a, *const *y = b;
    int d = strcasecmp((*x)->name, (*y)->name);
    return d ? d : (*x > *y) - (*x < *y); /* repeated headers keep their order */
}

static void value_append(struct kfs_buf *out, const char *v)
{
    bool blank = false, some = false;
    for (; *v; v++) {
        if (*v == ' ' || *v == '\t') {
            blank = true;
            continue;
        }
        if (blank && some)
            (void)kfs_buf_append(out, " ", 1);
        (void)kfs_buf_append(out, v, 1);
        blank = false;
        some = true;
    }
}

static void lower_append(struct kfs_buf *out, const char *s)
{
    for (; *s; s++) {
        char c = (char)tolower((unsigned char)*s);
        (void)kfs_buf_append(out, &c, 1);
    }
}

/* "name:value\n" for each to out, "a;b;c" to names. h is sorted. */
static void headers_canonical(const struct kfs_sigv4_header **h, size_t count, struct kfs_buf *out, struct kfs_buf *names)
{
    for (size_t i = 0; i < count; i++) {
        bool again = i && strcasecmp(h[i]->name, h[i - 1]->name) == 0;
        if (again) {
            (void)kfs_buf_append(out, ",", 1);
        } else {
            if (i) {
                (void)kfs_buf_append(out, "\n", 1);
                (void)kfs_buf_append(names, ";", 1);
            }
            lower_append(out, h[i]->name);
            lower_append(names, h[i]->name);
            (void)kfs_buf_append(out, ":", 1);
        }
        value_append(out, h[i]->value);
    }
    (void)kfs_buf_append(out, "\n", 1);
}

/* SHA-256 of the canonical request. names becomes the list of signed headers. */
static int request_hash(const struct kfs_sigv4_request *r, const struct kfs_sigv4_header **h, size_t count, const char *payload, const char *skip,
                        struct kfs_buf *names, char ret_hex[65])
{
    struct kfs_buf b;
    kfs_buf_init(&b);
    (void)kfs_buf_printf(&b, "%s\n", r->method);
    int rc = recode(&b, r->path, strlen(r->path), true);
    (void)kfs_buf_append(&b, "\n", 1);
    if (rc == 0)
        rc = query_canonical(&b, r->query, skip);
    (void)kfs_buf_append(&b, "\n", 1);
    if (rc == 0) {
        qsort(h, count, sizeof *h, header_compare);
        headers_canonical(h, count, &b, names);
        (void)kfs_buf_printf(&b, "\n%s\n%s", kfs_buf_str(names), payload);
        struct iovec iov = {b.data, b.len};
        rc = b.failed || names->failed ? -ENOMEM : kfs_sigv4_hash(&iov, 1, ret_hex);
    }
    kfs_buf_release(&b);
    return rc;
}

/* --- signatures ---------------------------------------------------------------------------------- */

static bool hmac(const void *key, size_t key_len, const char *text, unsigned char ret[32])
{
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    bool ok = HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), out, &n) && n == 32;
    memcpy(ret, out, 32);
    OPENSSL_cleanse(out, sizeof out);
    return ok;
}

/* The signature of a canonical request's hash, in hex. */
static int signature(const char *secret, const char *date, const char *region, const char *service, const char *hash, char ret_hex[65])
{
    char first[300], day[9], text[400];
    unsigned char k[32], sig[32];
    int n = snprintf(first, sizeof first, "AWS4%s", secret);
    int m = snprintf(text, sizeof text, ALGORITHM "\n%s\n%.8s/%s/%s" TAIL "\n%s", date, date, region, service, hash);
    int rc = n < 0 || (size_t)n >= sizeof first || m < 0 || (size_t)m >= sizeof text ? -E2BIG : 0;
    (void)snprintf(day, sizeof day, "%.8s", date);
    if (rc == 0 && !(hmac(first, (size_t)n, day, k) && hmac(k, 32, region, k) && hmac(k, 32, service, k) && hmac(k, 32, "aws4_request", k) &&
                     hmac(k, 32, text, sig)))
        rc = -ENOMEM;
    OPENSSL_cleanse(first, sizeof first);
    OPENSSL_cleanse(k, sizeof k);
    if (rc == 0)
        hex_of(sig, 32, ret_hex);
    return rc;
}

static int header_list(const struct kfs_sigv4_request *r, const struct kfs_sigv4_header **h)
{
    if (r->header_count > KFS_SIGV4_HEADERS_MAX)
        return -E2BIG;
    for (size_t i = 0; i < r->header_count; i++)
        h[i] = &r->headers[i];
    return 0;
}

int kfs_sigv4_sign(const struct kfs_sigv4_request *r, const struct kfs_sigv4_scope *scope, const struct kfs_sigv4_keys *keys, time_t at, struct kfs_buf *out)
{
    const struct kfs_sigv4_header *h[KFS_SIGV4_HEADERS_MAX];
    char date[KFS_SIGV4_DATE_MAX], hash[65], sig[65];
    struct kfs_buf names;
    kfs_buf_init(&names);
    kfs_sigv4_date(at, date);
    int rc = header_list(r, h);
    if (rc == 0)
        rc = request_hash(r, h, r->header_count, r->payload, NULL, &names, hash);
    if (rc == 0)
        rc = signature(keys->secret, date, scope->region, scope->service, hash, sig);
    if (rc == 0)
        rc = kfs_buf_printf(out, ALGORITHM " Credential=%s/%.8s/%s/%s" TAIL ", SignedHeaders=%s, Signature=%s", keys->access_key, date, scope->region,
                            scope->service, kfs_buf_str(&names), sig);
    kfs_buf_release(&names);
    return rc;
}

static void query_add(struct kfs_buf *q, const char *name, const char *value)
{
    (void)kfs_buf_printf(q, "%s%s=", q->len ? "&" : "", name);
    (void)kfs_sigv4_encode(q, value, strlen(value), false);
}

/* The list of signed headers, needed in the query before the canonical request can be made. */
static void names_of(const struct kfs_sigv4_header **h, size_t count, struct kfs_buf *names)
{
    qsort(h, count, sizeof *h, header_compare);
    for (size_t i = 0; i < count; i++) {
        if (i && strcasecmp(h[i]->name, h[i - 1]->name) == 0)
            continue;
        if (i)
            (void)kfs_buf_append(names, ";", 1);
        lower_append(names, h[i]->name);
    }
}

int kfs_sigv4_presign(const struct kfs_sigv4_request *r, const struct kfs_sigv4_scope *scope, const struct kfs_sigv4_keys *keys, time_t at, unsigned expires_s,
                      struct kfs_buf *out)
{
    const struct kfs_sigv4_header *h[KFS_SIGV4_HEADERS_MAX];
    char date[KFS_SIGV4_DATE_MAX], hash[65], sig[65], expires[16], credential[400];
    struct kfs_buf q, names, again;
    kfs_buf_init(&q);
    kfs_buf_init(&names);
    kfs_buf_init(&again);
    kfs_sigv4_date(at, date);
    int rc = expires_s == 0 || expires_s > EXPIRES_MAX ? -EINVAL : header_list(r, h);
    if (rc == 0) {
        names_of(h, r->header_count, &names);
        (void)snprintf(expires, sizeof expires, "%u", expires_s);
        (void)snprintf(credential, sizeof credential, "%s/%.8s/%s/%s" TAIL, keys->access_key, date, scope->region, scope->service);
        (void)kfs_buf_append_str(&q, r->query ? r->query : "");
        query_add(&q, "X-Amz-Algorithm", ALGORITHM);
        query_add(&q, "X-Amz-Credential", credential);
        query_add(&q, "X-Amz-Date", date);
        query_add(&q, "X-Amz-Expires", expires);
        if (keys->token && *keys->token)
            query_add(&q, "X-Amz-Security-Token", keys->token);
        query_add(&q, "X-Amz-SignedHeaders", kfs_buf_str(&names));
        struct kfs_sigv4_request signed_r = *r;
        signed_r.query = kfs_buf_str(&q);
        rc = request_hash(&signed_r, h, r->header_count, r->payload ? r->payload : KFS_SIGV4_UNSIGNED, NULL, &again, hash);
    }
    if (rc == 0)
        rc = signature(keys->secret, date, scope->region, scope->service, hash, sig);
    if (rc == 0)
        rc = q.failed ? -ENOMEM : kfs_buf_printf(out, "%s&X-Amz-Signature=%s", kfs_buf_str(&q), sig);
    kfs_buf_release(&q);
    kfs_buf_release(&names);
    kfs_buf_release(&again);
    return rc;
}

/* --- verifying ----------------------------------------------------------------------------------- */

/* What a signed request says about its signature, from either form. */
struct claim {
    char credential[400], names[2048], signature[80], date[32], token[4096], expires[16];
    /* parts of credential */
    char access_key[129], day[9], region[65], service[65];
};

static bool copy(char *to, size_t cap, const char *from, size_t len)
{
    if (len >= cap)
        return false;
    memcpy(to, from, len);
    to[len] = '\0';
    return true;
}

static const char *header_find(const struct kfs_sigv4_request *r, const char *name)
{
    for (size_t i = 0; i < r->header_count; i++)
        if (strcasecmp(r->headers[i].name, name) == 0)
            return r->headers[i].value;
    return NULL;
}

/* The decoded value of query parameter `name`. */
static bool query_find(const char *query, const char *name, char *ret, size_t cap)
{
    size_t n = strlen(name);
    for (const char *s = query ? query : ""; *s;) {
        size_t len = strcspn(s, "&");
        if (len > n && strncmp(s, name, n) == 0 && s[n] == '=') {
            size_t o = 0;
            for (size_t i = n + 1; i < len; i++) {
                int c = (unsigned char)s[i];
                if (c == '%') {
                    int hi = i + 1 < len ? hex_value(s[i + 1]) : -1, lo = i + 2 < len ? hex_value(s[i + 2]) : -1;
                    c = hi < 0 || lo < 0 ? 0 : hi * 16 + lo;
                    i += 2;
                }
                if (c == 0 || o + 1 >= cap)
                    return false;
                ret[o++] = (char)c;
            }
            ret[o] = '\0';
            return true;
        }
        s += len + (s[len] == '&');
    }
    return false;
}

static bool claim_from_header(const char *value, struct claim *c)
{
    static const struct { const char *name; size_t off, cap; } FIELDS[] = {
        {"Credential=", offsetof(struct claim, credential), sizeof c->credential},
        {"SignedHeaders=", offsetof(struct claim, names), sizeof c->names},
        {"Signature=", offsetof(struct claim, signature), sizeof c->signature},
    };
    unsigned seen = 0;
    const char *s = value + strlen(ALGORITHM);
    for (;;) {
        s += strspn(s, " ,\t");
        if (!*s)
            break;
        size_t len = strcspn(s, ", \t"), i = 0;
        for (; i < 3; i++) {
            size_t n = strlen(FIELDS[i].name);
            if (len > n && strncmp(s, FIELDS[i].name, n) == 0) {
                if (seen & 1u << i || !copy((char *)c + FIELDS[i].off, FIELDS[i].cap, s + n, len - n))
                    return false;
                seen |= 1u << i;
                break;
            }
        }
        if (i == 3)
            return false;
        s += len;
    }
    return seen == 7;
}

/* "AKID/20130524/us-east-1/s3/aws4_request" */
static bool credential_split(struct claim *c)
{
    const char *part[5];
    size_t len[5];
    const char *end = c->credential + strlen(c->credential);
    for (int i = 4; i > 0; i--) { /* from behind: an access key may contain slashes */
        const char *s = end;
        while (s > c->credential && s[-1] != '/')
            s--;
        if (s == c->credential)
            return false;
        part[i] = s;
        len[i] = (size_t)(end - s);
        end = s - 1;
    }
    part[0] = c->credential;
    len[0] = (size_t)(end - c->credential);
    return len[0] > 0 && len[1] == 8 && len[4] == 12 && memcmp(part[4], "aws4_request", 12) == 0 && copy(c->access_key, sizeof c->access_key, part[0], len[0]) &&
           copy(c->day, sizeof c->day, part[1], len[1]) && copy(c->region, sizeof c->region, part[2], len[2]) &&
           copy(c->service, sizeof c->service, part[3], len[3]);
}

static bool date_parse(const char *s, time_t *ret)
{
    struct tm tm = {0};
    if (strlen(s) != 16 || s[8] != 'T' || s[15] != 'Z')
        return false;
    for (int i = 0; i < 15; i++)
        if (i != 8 && (s[i] < '0' || s[i] > '9'))
            return false;
#define TWO(i) ((s[i] - '0') * 10 + s[(i) + 1] - '0')
    tm.tm_year = TWO(0) * 100 + TWO(2) - 1900;
    tm.tm_mon = TWO(4) - 1;
    tm.tm_mday = TWO(6);
    tm.tm_hour = TWO(9);
    tm.tm_min = TWO(11);
    tm.tm_sec = TWO(13);
#undef TWO
    *ret = timegm(&tm);
    return true;
}

static bool is_signed(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = names; *s;) {
        size_t len = strcspn(s, ";");
        if (len == n && strncasecmp(s, name, n) == 0)
            return true;
        s += len + (s[len] == ';');
    }
    return false;
}

/* The received headers that the claim lists. False: one is missing, or one that must be signed is not listed. */
static bool headers_signed(const struct kfs_sigv4_request *r, const struct claim *c, const struct kfs_sigv4_header **h, size_t *ret_count)
{
    size_t count = 0, listed = 0;
    for (size_t i = 0; i < r->header_count; i++) {
        const char *name = r->headers[i].name;
        if (is_signed(c->names, name)) {
            if (count == KFS_SIGV4_HEADERS_MAX)
                return false;
            h[count++] = &r->headers[i];
        } else if (strncasecmp(name, "x-amz-", 6) == 0 || strcasecmp(name, "host") == 0) {
            return false; /* what changes the meaning of a request is signed */
        }
    }
    for (const char *s = c->names; *s;) {
        size_t len = strcspn(s, ";");
        bool found = false;
        for (size_t i = 0; i < count && !found; i++)
            found = strlen(h[i]->name) == len && strncasecmp(h[i]->name, s, len) == 0;
        if (!found)
            return false;
        listed++;
        s += len + (s[len] == ';');
    }
    *ret_count = count;
    return listed > 0 && is_signed(c->names, "host");
}

/* Fills c from whichever form is there. */
static enum kfs_sigv4_verdict claim_read(const struct kfs_sigv4_request *r, struct claim *c, struct kfs_sigv4_found *found)
{
    const char *auth = header_find(r, "authorization"), *date, *payload, *token;
    char algorithm[40];
    if (auth) {
        size_t n = strlen(ALGORITHM);
        if (strncmp(auth, ALGORITHM, n) != 0 || (auth[n] != ' ' && auth[n] != '\t') || !claim_from_header(auth, c))
            return KFS_SIGV4_MALFORMED;
        date = header_find(r, "x-amz-date");
        payload = header_find(r, "x-amz-content-sha256");
        token = header_find(r, "x-amz-security-token");
        if (!date || !payload || !copy(c->date, sizeof c->date, date, strlen(date)) ||
            !copy(found->payload, sizeof found->payload, payload, strlen(payload)) || (token && !copy(c->token, sizeof c->token, token, strlen(token))))
            return KFS_SIGV4_MALFORMED;
        return KFS_SIGV4_OK;
    }
    if (!query_find(r->query, "X-Amz-Algorithm", algorithm, sizeof algorithm))
        return KFS_SIGV4_ANONYMOUS;
    found->presigned = true;
    if (strcmp(algorithm, ALGORITHM) != 0 || !query_find(r->query, "X-Amz-Credential", c->credential, sizeof c->credential) ||
        !query_find(r->query, "X-Amz-Date", c->date, sizeof c->date) || !query_find(r->query, "X-Amz-Expires", c->expires, sizeof c->expires) ||
        !query_find(r->query, "X-Amz-SignedHeaders", c->names, sizeof c->names) ||
        !query_find(r->query, "X-Amz-Signature", c->signature, sizeof c->signature))
        return KFS_SIGV4_MALFORMED;
    (void)query_find(r->query, "X-Amz-Security-Token", c->token, sizeof c->token);
    payload = header_find(r, "x-amz-content-sha256");
    if (!copy(found->payload, sizeof found->payload, payload ? payload : KFS_SIGV4_UNSIGNED, strlen(payload ? payload : KFS_SIGV4_UNSIGNED)))
        return KFS_SIGV4_MALFORMED;
    return KFS_SIGV4_OK;
}

static enum kfs_sigv4_verdict times_check(const struct claim *c, const struct kfs_sigv4_verifier *v, bool presigned)
{
    time_t at;
    if (!date_parse(c->date, &at) || strncmp(c->date, c->day, 8) != 0)
        return KFS_SIGV4_MALFORMED;
    if (!presigned)
        return at > v->now + (time_t)v->skew_s || at < v->now - (time_t)v->skew_s ? KFS_SIGV4_SKEWED : KFS_SIGV4_OK;
    char *end;
    errno = 0;
    unsigned long s = strtoul(c->expires, &end, 10);
    if (errno || *end || c->expires[0] < '0' || c->expires[0] > '9' || s == 0 || s > EXPIRES_MAX)
        return KFS_SIGV4_MALFORMED;
    if (at > v->now + (time_t)v->skew_s)
        return KFS_SIGV4_SKEWED;
    return v->now > at + (time_t)s ? KFS_SIGV4_EXPIRED : KFS_SIGV4_OK;
}

static enum kfs_sigv4_verdict verify(const struct kfs_sigv4_request *r, const struct kfs_sigv4_verifier *v, struct claim *c, struct kfs_sigv4_found *found)
{
    const struct kfs_sigv4_header *h[KFS_SIGV4_HEADERS_MAX];
    size_t count = 0;
    char hash[65], sig[65], secret[257];
    enum kfs_sigv4_verdict verdict = claim_read(r, c, found);
    if (verdict != KFS_SIGV4_OK)
        return verdict;
    if (!credential_split(c) || !headers_signed(r, c, h, &count))
        return KFS_SIGV4_MALFORMED;
    memcpy(found->access_key, c->access_key, sizeof found->access_key);
    memcpy(found->region, c->region, sizeof found->region);
    verdict = times_check(c, v, found->presigned);
    if (verdict != KFS_SIGV4_OK)
        return verdict;
    if (strcmp(c->service, v->scope.service) != 0 || (v->scope.region && strcmp(c->region, v->scope.region) != 0))
        return KFS_SIGV4_WRONG_SCOPE;
    if (!v->secret(v->arg, c->access_key, c->token, secret, sizeof secret))
        return KFS_SIGV4_UNKNOWN_KEY;
    struct kfs_buf names;
    kfs_buf_init(&names);
    int rc = request_hash(r, h, count, found->payload, found->presigned ? "X-Amz-Signature" : NULL, &names, hash);
    if (rc == 0)
        rc = signature(secret, c->date, c->region, c->service, hash, sig);
    OPENSSL_cleanse(secret, sizeof secret);
    kfs_buf_release(&names);
    if (rc < 0)
        return KFS_SIGV4_MALFORMED;
    return strlen(c->signature) == 64 && CRYPTO_memcmp(c->signature, sig, 64) == 0 ? KFS_SIGV4_OK : KFS_SIGV4_WRONG;
}

enum kfs_sigv4_verdict kfs_sigv4_verify(const struct kfs_sigv4_request *r, const struct kfs_sigv4_verifier *v, struct kfs_sigv4_found *ret_found)
{
    struct claim c = {0};
    memset(ret_found, 0, sizeof *ret_found);
    enum kfs_sigv4_verdict verdict = verify(r, v, &c, ret_found);
    OPENSSL_cleanse(&c, sizeof c);
    return verdict;
}
