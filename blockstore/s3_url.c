/* blockstore/s3_url.c — URL and settings of the driver `s3`; the manual is blockstore/driver_s3.h */
#include "blockstore/cred.h"
#include "blockstore/driver_s3.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool fits(char *to, size_t cap, const char *from)
{
    size_t n = strlen(from);
    if (n >= cap)
        return false;
    memcpy(to, from, n + 1);
    return true;
}

static int bad(struct kfs_err *err, const char *name, const char *value, const char *allowed)
{
    return KFS_FAIL(err, EINVAL, "%s '%.120s' cannot be used; allowed: %s", name, value, allowed);
}

/* A host, perhaps with port and path; nothing that could hold a password. */
static bool is_http_url(const char *s)
{
    const char *host = strncmp(s, "http://", 7) == 0 ? s + 7 : strncmp(s, "https://", 8) == 0 ? s + 8 : NULL;
    if (!host || !*host || *host == '/' || *host == ':')
        return false;
    for (const char *c = host; *c; c++)
        if ((unsigned char)*c <= ' ' || strchr("@?#\"\\", *c))
            return false;
    return true;
}

static bool number(const char *s, long min, long max, long *ret)
{
    char *end;
    errno = 0;
    long v = strtol(s, &end, 10);
    if (errno || end == s || *end || v < min || v > max)
        return false;
    *ret = v;
    return true;
}

/* Which of the words (NULL at the end) value is, or -1. */
static int word(const char *value, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(value, words[i]) == 0)
            return i;
    return -1;
}

static bool is_secret(const char *name)
{
    static const char *const NAMES[] = {"access_key", "access_key_id", "secret", "secret_key", "secret_access_key", "token", "session_token", "password",
                                        "aws_access_key_id", "aws_secret_access_key", "aws_session_token", NULL};
    for (int i = 0; NAMES[i]; i++)
        if (strcasecmp(name, NAMES[i]) == 0)
            return true;
    return false;
}

static int no_secret(struct kfs_err *err)
{
    return KFS_FAIL(err, EINVAL,
                    "a store's URL and settings hold no secrets: they are kept in the volume and shown in messages; set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY for kfsd, or write profile=NAME for a profile of ~/.aws/credentials");
}

static int text_set(char *to, size_t cap, const char *name, const char *value, struct kfs_err *err)
{
    return *value && fits(to, cap, value) ? 0 : bad(err, name, value, "1 to a few hundred characters");
}

static int set(struct kfs_s3_conf *c, const char *name, const char *v, struct kfs_err *err)
{
    static const char *const STYLE[] = {"auto", "path", "virtual", NULL}, *const HTTP[] = {"auto", "1", "2", NULL}, *const YES[] = {"no", "yes", NULL},
                             *const PAYLOAD[] = {"signed", "unsigned", NULL}, *const SUM[] = {"none", "sha256", NULL}, *const HEDGE[] = {"auto", "off", NULL};
    long n;
    int w;
    if (is_secret(name))
        return no_secret(err);
    if (strcmp(name, "endpoint") == 0) {
        if (!is_http_url(v) || !fits(c->endpoint, sizeof c->endpoint, v))
            return strchr(v, '@') ? no_secret(err) : bad(err, name, v, "http://HOST:PORT or https://HOST, without a password");
        size_t len = strlen(c->endpoint);
        while (len && c->endpoint[len - 1] == '/')
            c->endpoint[--len] = '\0';
        return 0;
    }
    if (strcmp(name, "proxy") == 0) {
        if (!is_http_url(v) || !fits(c->proxy, sizeof c->proxy, v))
            return strchr(v, '@') ? no_secret(err) : bad(err, name, v, "http://HOST:PORT or https://HOST:PORT, without a password");
        return 0;
    }
    if (strcmp(name, "region") == 0) {
        c->has_region = true;
        return strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == strlen(v)
                   ? text_set(c->region, sizeof c->region, name, v, err)
                   : bad(err, name, v, "letters, digits, '-'");
    }
    if (strcmp(name, "profile") == 0)
        return text_set(c->profile, sizeof c->profile, name, v, err);
    if (strcmp(name, "ca_file") == 0)
        return *v == '/' ? text_set(c->ca_file, sizeof c->ca_file, name, v, err) : bad(err, name, v, "the absolute path of a PEM file");
    if (strcmp(name, "style") == 0) {
        if ((w = word(v, STYLE)) < 0)
            return bad(err, name, v, "auto, path, virtual");
        c->style_set = w > 0;
        c->path_style = w == 1;
        return 0;
    }
    if (strcmp(name, "insecure") == 0) {
        if ((w = word(v, YES)) < 0)
            return bad(err, name, v, "no, yes");
        c->insecure = w == 1;
        return 0;
    }
    if (strcmp(name, "http") == 0) {
        if ((w = word(v, HTTP)) < 0)
            return bad(err, name, v, "auto, 1, 2");
        c->http = (enum kfs_http_version)w;
        return 0;
    }
    if (strcmp(name, "payload") == 0) {
        if ((w = word(v, PAYLOAD)) < 0)
            return bad(err, name, v, "signed, unsigned");
        c->unsigned_payload = w == 1;
        return 0;
    }
    if (strcmp(name, "checksum") == 0) {
        if ((w = word(v, SUM)) < 0)
            return bad(err, name, v, "none, sha256");
        c->checksum = w == 1;
        return 0;
    }
    if (strcmp(name, "hedge") == 0) {
        if ((w = word(v, HEDGE)) < 0)
            return bad(err, name, v, "auto, off");
        c->hedge_off = w == 1;
        return 0;
    }
    if (strcmp(name, "connect_ms") == 0 || strcmp(name, "stall_ms") == 0) {
        if (!number(v, 10, 3600000, &n))
            return bad(err, name, v, "milliseconds from 10 to 3600000");
        *(*name == 'c' ? &c->connect_ms : &c->stall_ms) = (unsigned)n;
        return 0;
    }
    if (strcmp(name, "clock_offset_s") == 0) {
        if (!number(v, -1000000000, 1000000000, &n))
            return bad(err, name, v, "seconds");
        c->clock_offset_s = (int)n;
        return 0;
    }
    return KFS_FAIL(err, EINVAL,
                    "'%.60s' is no setting of an S3 store; there are: endpoint, region, style, profile, ca_file, insecure, proxy, http, payload, checksum, hedge, "
                    "connect_ms, stall_ms, clock_offset_s",
                    name);
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* len bytes of s, decoded, to buf. False: too long, not decodable, or a control character. */
static bool decode(const char *s, size_t len, char *buf, size_t cap)
{
    size_t o = 0;
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)s[i];
        if (c == '%') {
            int hi = i + 1 < len ? hex(s[i + 1]) : -1, lo = i + 2 < len ? hex(s[i + 2]) : -1;
            if (hi < 0 || lo < 0)
                return false;
            c = hi * 16 + lo;
            i += 2;
        }
        if (c < 0x20 || c == 0x7f || o + 1 >= cap)
            return false;
        buf[o++] = (char)c;
    }
    buf[o] = '\0';
    return true;
}

static int pairs_set(struct kfs_s3_conf *c, const char *s, const char *separators, bool encoded, struct kfs_err *err)
{
    while (*s) {
        size_t len = strcspn(s, separators), eq = 0;
        char name[64], value[1100];
        while (eq < len && s[eq] != '=')
            eq++;
        if (len) {
            if (eq == len || eq >= sizeof name)
                return KFS_FAIL(err, EINVAL, "'%.*s' is no setting; write name=value", (int)(len < 60 ? len : 60), s);
            memcpy(name, s, eq);
            name[eq] = '\0';
            const char *v = s + eq + 1;
            size_t n = len - eq - 1;
            if (encoded ? !decode(v, n, value, sizeof value) : n >= sizeof value)
                return KFS_FAIL(err, EINVAL, "the value of '%s' cannot be read; it is at most %zu characters, '%%' stands as %%25", name, sizeof value - 1);
            if (!encoded) {
                memcpy(value, v, n);
                value[n] = '\0';
            }
            int rc = set(c, name, value, err);
            if (rc < 0)
                return rc;
        }
        s += len + (s[len] != '\0');
    }
    return 0;
}

static bool bucket_ok(const char *b)
{
    size_t n = strlen(b);
    if (n < 3 || n > 63 || *b == '.' || *b == '-')
        return false;
    for (; *b; b++)
        if (!((*b >= 'a' && *b <= 'z') || (*b >= 'A' && *b <= 'Z') || (*b >= '0' && *b <= '9') || strchr(".-_", *b)))
            return false;
    return true;
}

/* No empty, "." or ".." components: servers and proxies disagree about them. */
static bool prefix_ok(const char *p)
{
    while (*p) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && *p == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n + (p[n] != '\0');
    }
    return true;
}

static int place_parse(const char *url, struct kfs_s3_conf *c, struct kfs_err *err)
{
    const char *s = url + strlen("s3://");
    size_t len = strcspn(s, "?"), name = 0;
    while (name < len && s[name] != '/')
        name++;
    if (memchr(s, '@', name) || memchr(s, ':', name))
        return no_secret(err);
    if (!decode(s, name, c->bucket, sizeof c->bucket) || !bucket_ok(c->bucket))
        return KFS_FAIL(err, EINVAL, "'%.*s' is no bucket; write s3://BUCKET/PREFIX", (int)(name < 100 ? name : 100), s);
    while (name < len && s[name] == '/')
        name++;
    while (len > name && s[len - 1] == '/')
        len--;
    if (!decode(s + name, len - name, c->prefix, sizeof c->prefix - 1) || !prefix_ok(c->prefix))
        return KFS_FAIL(err, EINVAL, "prefix '%.*s' cannot be used; it has no empty, '.' or '..' parts and at most %zu bytes", (int)(len - name < 150 ? len - name : 150),
                        s + name, sizeof c->prefix - 2);
    if (c->prefix[0])
        (void)strcat(c->prefix, "/");
    const char *query = strchr(s, '?');
    return query ? pairs_set(c, query + 1, "&", true, err) : 0;
}

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* What neither URL nor settings say. */
static int defaults_set(struct kfs_s3_conf *c, struct kfs_err *err)
{
    const char *profile = c->profile[0] ? c->profile : NULL, *v;
    char text[1024];
    int rc = 0;
    if (!c->endpoint[0]) {
        v = env("AWS_ENDPOINT_URL_S3") ? env("AWS_ENDPOINT_URL_S3") : env("AWS_ENDPOINT_URL");
        if (!v && kfs_cred_profile_setting(profile, "endpoint_url", text, sizeof text))
            v = text;
        rc = v ? set(c, "endpoint", v, err) : 0;
    }
    if (rc == 0 && !c->region[0]) {
        v = env("AWS_REGION") ? env("AWS_REGION") : env("AWS_DEFAULT_REGION");
        if (!v && kfs_cred_profile_setting(profile, "region", text, sizeof text))
            v = text;
        rc = v ? set(c, "region", v, err) : 0;
        if (!v)
            (void)fits(c->region, sizeof c->region, "us-east-1");
    }
    if (rc == 0 && !c->style_set) {
        const char *at = strstr(c->endpoint, ".amazonaws.com");
        c->path_style = (c->endpoint[0] && !at) || strchr(c->bucket, '.');
    }
    return rc;
}

int kfs_s3_conf_parse(const char *url, const char *settings, struct kfs_s3_conf *ret, struct kfs_err *err)
{
    struct kfs_s3_conf c = {.connect_ms = 5000, .stall_ms = 15000};
    if (strncmp(url, "s3://", 5) != 0)
        return KFS_FAIL(err, EINVAL, "store '%.200s' is not understood; write s3://BUCKET/PREFIX", url);
    int rc = place_parse(url, &c, err);
    if (rc == 0 && settings)
        rc = pairs_set(&c, settings, "\r\n", false, err);
    if (rc == 0)
        rc = defaults_set(&c, err);
    if (rc < 0)
        return rc;
    *ret = c;
    return 0;
}
