#include "blockstore/cred.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "blockstore/s3_xml.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES (256u << 10)
#define ANSWER_MAX_BYTES (64u << 10)
#define TOKEN_MAX 8192
#define FILE_LOOK_S 60   /* how often a file of keys is looked at */
#define RENEW_BEFORE_S 300
#define PAUSE_MAX_S 60

/* --- pages for secrets --------------------------------------------------------------------------------- */

static void *secret_map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, bytes, MADV_DONTDUMP);
    (void)mlock(p, bytes); /* a limit may forbid it; then swap is the administrator's matter */
    return p;
}

static void secret_unmap(void *p, size_t bytes)
{
    if (!p)
        return;
    OPENSSL_cleanse(p, bytes);
    (void)munmap(p, bytes);
}

struct snapshot {
    struct kfs_cred_snapshot pub; /* first */
    unsigned refs;                /* under the owner's lock */
    char access_key[129], secret[257], token[TOKEN_MAX];
};

static struct snapshot *snapshot_new(void)
{
    struct snapshot *s = secret_map(sizeof *s);
    if (!s)
        return NULL;
    s->refs = 1;
    s->pub.keys = (struct kfs_sigv4_keys){s->access_key, s->secret, s->token};
    return s;
}

static void snapshot_free(struct snapshot *s)
{
    secret_unmap(s, sizeof *s);
}

/* --- the environment ----------------------------------------------------------------------------------- */

static const char *const TAKEN[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"};
#define TAKEN_COUNT (sizeof TAKEN / sizeof *TAKEN)
static char *taken[TAKEN_COUNT]; /* in one page, for the life of the process */

void kfs_cred_env_take(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < TAKEN_COUNT; i++) {
        const char *v = getenv(TAKEN[i]);
        bytes += v ? strlen(v) + 1 : 0;
    }
    char *p = bytes ? secret_map(bytes) : NULL;
    for (size_t i = 0; p && i < TAKEN_COUNT; i++) {
        char *v = getenv(TAKEN[i]);
        if (!v)
            continue;
        size_t n = strlen(v);
        memcpy(p, v, n + 1);
        OPENSSL_cleanse(v, n);
        (void)unsetenv(TAKEN[i]);
        taken[i] = p;
        p += n + 1;
    }
}

/* NULL: not set, or empty. */
static const char *env(const char *name)
{
    const char *v = getenv(name);
    for (size_t i = 0; !v && i < TAKEN_COUNT; i++)
        if (strcmp(TAKEN[i], name) == 0)
            v = taken[i];
    return v && *v ? v : NULL;
}

static bool put(char *to, size_t cap, const char *from)
{
    size_t n = strlen(from);
    if (n >= cap)
        return false;
    memcpy(to, from, n + 1);
    return true;
}

/* --- files ---------------------------------------------------------------------------------------------- */

/* A whole small file, NUL behind, in a page for secrets of FILE_MAX_BYTES; NULL with errno. */
static char *file_read(const char *path)
{
    kfs_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *buf = fd < 0 ? NULL : secret_map(FILE_MAX_BYTES);
    size_t len = 0;
    if (!buf)
        return NULL;
    for (;;) {
        ssize_t n = read(fd, buf + len, FILE_MAX_BYTES - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || len + (size_t)n >= FILE_MAX_BYTES - 1) {
            int e = n < 0 ? errno : EFBIG;
            secret_unmap(buf, FILE_MAX_BYTES);
            errno = e;
            return NULL;
        }
        if (n == 0)
            return buf;
        len += (size_t)n;
    }
}

static bool aws_file(const char *variable, const char *name, char *ret, size_t cap)
{
    const char *v = env(variable), *home = env("HOME");
    if (v)
        return put(ret, cap, v);
    const struct passwd *pw = home ? NULL : getpwuid(getuid());
    home = home ? home : pw ? pw->pw_dir : NULL;
    int n = home ? snprintf(ret, cap, "%s/.aws/%s", home, name) : -1;
    return n > 0 && (size_t)n < cap;
}

struct ini {
    char *buf, *at;
};

/* The next "key = value" of [section]; both NUL-terminated in the buffer. Lines that are indented belong to a key's group and are left out. */
static bool ini_next(struct ini *f, const char *section, const char *also, bool *in, char **ret_key, char **ret_value)
{
    while (*f->at) {
        char *line = f->at, *end = line + strcspn(line, "\r\n");
        f->at = end + strspn(end, "\r\n");
        bool indented = *line == ' ' || *line == '\t';
        *end = '\0';
        while (end > line && (end[-1] == ' ' || end[-1] == '\t'))
            *--end = '\0';
        if (*line == '[' && end > line && end[-1] == ']') {
            end[-1] = '\0';
            char *name = line + 1 + strspn(line + 1, " \t");
            *in = strcmp(name, section) == 0 || (also && strcmp(name, also) == 0);
            continue;
        }
        char *eq = strchr(line, '=');
        if (!*in || indented || *line == '#' || *line == ';' || !eq)
            continue;
        char *k = eq;
        while (k > line && (k[-1] == ' ' || k[-1] == '\t'))
            k--;
        *k = '\0';
        *ret_key = line;
        *ret_value = eq + 1 + strspn(eq + 1, " \t");
        return true;
    }
    return false;
}

static const char *profile_name(const char *profile)
{
    const char *p = profile ? profile : env("AWS_PROFILE");
    return p ? p : "default";
}

/* Calls cb for each key of the profile in both files; config first, so that the file of credentials wins. */
static void profile_each(const char *profile, void (*cb)(void *arg, const char *key, const char *value), void *arg)
{
    static const struct { const char *variable, *name; } FILES[] = {{"AWS_CONFIG_FILE", "config"}, {"AWS_SHARED_CREDENTIALS_FILE", "credentials"}};
    char path[1024], section[300];
    for (int i = 0; i < 2; i++) {
        struct ini f;
        bool in = false;
        char *key, *value;
        (void)snprintf(section, sizeof section, "profile %s", profile);
        if (!aws_file(FILES[i].variable, FILES[i].name, path, sizeof path) || !(f.buf = file_read(path)))
            continue;
        f.at = f.buf;
        while (ini_next(&f, profile, i == 0 ? section : NULL, &in, &key, &value))
            cb(arg, key, value);
        secret_unmap(f.buf, FILE_MAX_BYTES);
    }
}

struct setting {
    const char *name;
    char *ret;
    size_t cap;
    bool found;
};

static void setting_cb(void *arg, const char *key, const char *value)
{
    struct setting *s = arg;
    if (strcmp(key, s->name) == 0 && *value)
        s->found = put(s->ret, s->cap, value);
}

bool kfs_cred_profile_setting(const char *profile, const char *name, char *ret, size_t cap)
{
    struct setting s = {.name = name, .ret = ret, .cap = cap};
    profile_each(profile_name(profile), setting_cb, &s);
    return s.found;
}

/* --- sources ---------------------------------------------------------------------------------------------- */

enum source { FROM_ENV, FROM_WEB, FROM_PROFILE, FROM_CONTAINER, FROM_INSTANCE, SOURCES };

struct kfs_cred {
    char *profile, *region; /* as given, or NULL */
    struct kfs_http_options http;
    char *ca_file, *proxy;
    enum source source;
    char name[200];
    /* under lock */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct snapshot *now;
    uint64_t wanted; /* a generation that was refused; looked after when it is that of `now` */
    uint64_t looked; /* the last generation that was looked after without finding another */
    bool stop, threaded;
    pthread_t thread;
    /* the thread's */
    int64_t file_stamp[2];
};

static int http_failed(struct kfs_err *err, const char *what, int status, const char *body, size_t len)
{
    struct kfs_s3_error e;
    if (status < 0)
        return KFS_WRAP(err, "cannot get credentials from %s", what);
    (void)kfs_s3_error_read(body, len, &e);
    return KFS_FAIL(err, EACCES, "cannot get credentials from %s: HTTP status %d%s%s%s%s", what, status, e.code[0] ? ", " : "", e.code, e.message[0] ? ": " : "",
                    e.message);
}

static int env_load(struct kfs_cred *c, struct snapshot *s, struct kfs_err *err)
{
    const char *a = env("AWS_ACCESS_KEY_ID"), *k = env("AWS_SECRET_ACCESS_KEY"), *t = env("AWS_SESSION_TOKEN");
    (void)c;
    if (!a && !k)
        return -ENOENT;
    if (!a || !k)
        return KFS_FAIL(err, EACCES, "credentials in the environment are not complete: %s is not set", a ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    if (!put(s->access_key, sizeof s->access_key, a) || !put(s->secret, sizeof s->secret, k) || !put(s->token, sizeof s->token, t ? t : ""))
        return KFS_FAIL(err, EACCES, "credentials in the environment are too long");
    return 0;
}

static void blanks_trim(char *s)
{
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1]))
        s[--n] = '\0';
}

/* AssumeRoleWithWebIdentity with the token that file holds now. It goes in the body: a URL might be logged somewhere. */
static int web_identity(struct kfs_cred *c, const char *role, const char *file, const char *session, struct snapshot *s, struct kfs_err *err)
{
    static const char *const HEADERS[] = {"Content-Type: application/x-www-form-urlencoded", NULL};
    char url[400], name[64];
    char *token = file_read(file);
    if (!token)
        return KFS_FAIL(err, EACCES, "cannot read web identity token file '%.200s': %s", file, strerror(errno));
    blanks_trim(token);
    const char *at = env("AWS_ENDPOINT_URL_STS");
    if (at)
        (void)snprintf(url, sizeof url, "%s", at);
    else
        (void)snprintf(url, sizeof url, "https://sts.%s.amazonaws.com/", c->region ? c->region : "us-east-1");
    (void)snprintf(name, sizeof name, "kfs-%016llx", (unsigned long long)kfs_rand_u64());
    struct kfs_buf q;
    kfs_buf_init(&q);
    size_t len = 0;
    char *body = secret_map(ANSWER_MAX_BYTES);
    (void)kfs_buf_reserve(&q, strlen(token) * 3 + strlen(role) * 3 + 1024); /* no copies of it left behind by growing */
    (void)kfs_buf_append_str(&q, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=");
    (void)kfs_sigv4_encode(&q, role, strlen(role), false);
    (void)kfs_buf_append_str(&q, "&RoleSessionName=");
    (void)kfs_sigv4_encode(&q, session ? session : name, strlen(session ? session : name), false);
    (void)kfs_buf_append_str(&q, "&WebIdentityToken=");
    (void)kfs_sigv4_encode(&q, token, strlen(token), false);
    int rc = q.failed || !body ? -ENOMEM : kfs_http_fetch("POST", url, HEADERS, q.data, &c->http, 20, body, ANSWER_MAX_BYTES, &len, err);
    if (rc == 200)
        rc = kfs_s3_credentials_read(body, len, s->access_key, sizeof s->access_key, s->secret, sizeof s->secret, s->token, sizeof s->token,
                                     &s->pub.expires_s) == 0
                 ? 0
                 : KFS_FAIL(err, EACCES, "cannot get credentials from '%.200s': its answer is not understood", url);
    else if (rc != -ENOMEM)
        rc = http_failed(err, url, rc, body, len);
    if (q.data)
        OPENSSL_cleanse(q.data, q.len);
    kfs_buf_release(&q);
    secret_unmap(body, ANSWER_MAX_BYTES);
    secret_unmap(token, FILE_MAX_BYTES);
    return rc;
}

static int web_load(struct kfs_cred *c, struct snapshot *s, struct kfs_err *err)
{
    const char *file = env("AWS_WEB_IDENTITY_TOKEN_FILE"), *role = env("AWS_ROLE_ARN");
    if (!file || !role)
        return -ENOENT;
    return web_identity(c, role, file, env("AWS_ROLE_SESSION_NAME"), s, err);
}

struct profile {
    struct snapshot *s;
    char role[300], file[1024], session[100];
    const char *unknown;
    bool any, too_long;
};

static void profile_cb(void *arg, const char *key, const char *value)
{
    struct profile *p = arg;
    bool ok = true;
    p->any = true;
    if (strcmp(key, "aws_access_key_id") == 0)
        ok = put(p->s->access_key, sizeof p->s->access_key, value);
    else if (strcmp(key, "aws_secret_access_key") == 0)
        ok = put(p->s->secret, sizeof p->s->secret, value);
    else if (strcmp(key, "aws_session_token") == 0)
        ok = put(p->s->token, sizeof p->s->token, value);
    else if (strcmp(key, "role_arn") == 0)
        ok = put(p->role, sizeof p->role, value);
    else if (strcmp(key, "web_identity_token_file") == 0)
        ok = put(p->file, sizeof p->file, value);
    else if (strcmp(key, "role_session_name") == 0)
        ok = put(p->session, sizeof p->session, value);
    else if (strcmp(key, "credential_process") == 0)
        p->unknown = "credential_process";
    else if (strcmp(key, "source_profile") == 0)
        p->unknown = "source_profile";
    else if (strcmp(key, "sso_session") == 0 || strcmp(key, "sso_start_url") == 0)
        p->unknown = "sso_session";
    p->too_long |= !ok;
}

static int profile_load(struct kfs_cred *c, struct snapshot *s, struct kfs_err *err)
{
    const char *name = profile_name(c->profile);
    struct profile p = {.s = s};
    profile_each(name, profile_cb, &p);
    if (p.too_long)
        return KFS_FAIL(err, EACCES, "profile '%.100s' has a value that is too long", name);
    if (s->access_key[0] && s->secret[0])
        return 0;
    if (p.role[0] && p.file[0])
        return web_identity(c, p.role, p.file, p.session[0] ? p.session : NULL, s, err);
    if (p.unknown)
        return KFS_FAIL(err, EACCES, "profile '%.100s' uses %s, which is not supported; give it aws_access_key_id and aws_secret_access_key", name, p.unknown);
    if (c->profile || env("AWS_PROFILE"))
        return KFS_FAIL(err, EACCES, "%s '%.100s' in ~/.aws/credentials or ~/.aws/config; add aws_access_key_id and aws_secret_access_key to it",
                        p.any ? "there are no keys in profile" : "there is no profile", name);
    return -ENOENT;
}

/* The string value of "name" in a flat JSON object. */
static bool json_string(const char *json, const char *name, char *to, size_t cap)
{
    size_t n = strlen(name), o = 0;
    const char *s = json;
    for (; (s = strchr(s, '"')); s++) {
        if (strncmp(s + 1, name, n) != 0 || s[n + 1] != '"')
            continue;
        const char *v = s + n + 2;
        v += strspn(v, " \t\r\n");
        if (*v != ':')
            continue;
        v += 1 + strspn(v + 1, " \t\r\n");
        if (*v != '"')
            return false;
        for (v++; *v && *v != '"'; v++) {
            if (*v == '\\' && (v[1] == '/' || v[1] == '\\' || v[1] == '"'))
                v++;
            else if (*v == '\\')
                return false;
            if (o + 1 >= cap)
                return false;
            to[o++] = *v;
        }
        to[o] = '\0';
        return *v == '"';
    }
    return false;
}

static int json_keys(const char *json, const char *from, struct snapshot *s, struct kfs_err *err)
{
    char date[40];
    if (!json_string(json, "AccessKeyId", s->access_key, sizeof s->access_key) || !json_string(json, "SecretAccessKey", s->secret, sizeof s->secret))
        return KFS_FAIL(err, EACCES, "cannot get credentials from %.200s: its answer is not understood", from);
    if (!json_string(json, "Token", s->token, sizeof s->token))
        s->token[0] = '\0';
    if (json_string(json, "Expiration", date, sizeof date))
        (void)kfs_s3_time_parse(date, &s->pub.expires_s);
    return 0;
}

/* One GET (or PUT) of a small text; 0 when its status is 200. */
static int small_fetch(struct kfs_cred *c, const char *method, const char *url, const char *header, unsigned seconds, char *buf, struct kfs_err *err)
{
    const char *const headers[] = {header, NULL};
    struct kfs_http_options o = c->http;
    size_t len;
    char none[1] = "";
    o.connect_ms = 1000;
    o.proxy = none; /* what answers here is next to us */
    int rc = kfs_http_fetch(method, url, headers, NULL, &o, seconds, buf, ANSWER_MAX_BYTES, &len, err);
    return rc == 200 ? 0 : http_failed(err, url, rc, buf, rc < 0 ? 0 : len);
}

static bool container_allowed(const char *url)
{
    return strncmp(url, "https://", 8) == 0 || (strncmp(url, "http://", 7) == 0 && (kfs_http_is_loopback(url) || strncmp(url + 7, "169.254.170.2", 13) == 0 ||
                                                                                    strncmp(url + 7, "[fd00:ec2::23]", 14) == 0));
}

static int container_load(struct kfs_cred *c, struct snapshot *s, struct kfs_err *err)
{
    const char *relative = env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), *full = env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *file = env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), *token = env("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    char url[600];
    if (!relative && !full)
        return -ENOENT;
    (void)snprintf(url, sizeof url, "%s%s", relative ? "http://169.254.170.2" : "", relative ? relative : full);
    if (!container_allowed(url))
        return KFS_FAIL(err, EACCES, "credentials at '%.200s' are not asked for: allowed are https and addresses of this node", url);
    char *page = secret_map(ANSWER_MAX_BYTES), *header = secret_map(FILE_MAX_BYTES), *text = file ? file_read(file) : NULL;
    int rc = page && header ? 0 : -ENOMEM;
    if (rc == 0 && file && !text)
        rc = KFS_FAIL(err, EACCES, "cannot read token file '%.200s': %s", file, strerror(errno));
    if (text)
        blanks_trim(text);
    if (rc == 0) {
        const char *t = text ? text : token;
        if (t)
            (void)snprintf(header, FILE_MAX_BYTES, "Authorization: %s", t);
        rc = small_fetch(c, "GET", url, t ? header : NULL, 5, page, err);
    }
    if (rc == 0)
        rc = json_keys(page, url, s, err);
    secret_unmap(page, ANSWER_MAX_BYTES);
    secret_unmap(header, FILE_MAX_BYTES);
    secret_unmap(text, FILE_MAX_BYTES);
    return rc;
}

static int instance_load(struct kfs_cred *c, struct snapshot *s, struct kfs_err *err)
{
    const char *off = env("AWS_EC2_METADATA_DISABLED"), *at = env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    char url[600], base[300], role[200];
    if (off && strcasecmp(off, "true") == 0)
        return -ENOENT;
    (void)snprintf(base, sizeof base, "%s", at ? at : "http://169.254.169.254");
    blanks_trim(base);
    if (base[0] && base[strlen(base) - 1] == '/')
        base[strlen(base) - 1] = '\0';
    char *page = secret_map(ANSWER_MAX_BYTES), *header = secret_map(ANSWER_MAX_BYTES);
    int rc = page && header ? 0 : -ENOMEM;
    if (rc == 0) {
        (void)snprintf(url, sizeof url, "%s/latest/api/token", base);
        rc = small_fetch(c, "PUT", url, "X-aws-ec2-metadata-token-ttl-seconds: 21600", 2, page, err);
    }
    if (rc == 0) {
        blanks_trim(page);
        (void)snprintf(header, ANSWER_MAX_BYTES, "X-aws-ec2-metadata-token: %s", page);
        (void)snprintf(url, sizeof url, "%s/latest/meta-data/iam/security-credentials/", base);
        rc = small_fetch(c, "GET", url, header, 5, page, err);
    }
    if (rc == 0) {
        (void)snprintf(role, sizeof role, "%.*s", (int)strcspn(page, "\r\n"), page);
        (void)snprintf(url, sizeof url, "%s/latest/meta-data/iam/security-credentials/%s", base, role);
        rc = small_fetch(c, "GET", url, header, 5, page, err);
    }
    if (rc == 0)
        rc = json_keys(page, url, s, err);
    secret_unmap(page, ANSWER_MAX_BYTES);
    secret_unmap(header, ANSWER_MAX_BYTES);
    return rc;
}

typedef int (*load_fn)(struct kfs_cred *c, struct snapshot *s, struct kfs_err *err);
static const struct {
    load_fn load; /* -ENOENT without text: this source is not configured */
    const char *name;
} FROM[SOURCES] = {
    [FROM_ENV] = {env_load, "the environment"},          [FROM_WEB] = {web_load, "the web identity of the environment"},
    [FROM_PROFILE] = {profile_load, "profile"},          [FROM_CONTAINER] = {container_load, "the container's credentials"},
    [FROM_INSTANCE] = {instance_load, "the instance's metadata"},
};

static int load(struct kfs_cred *c, enum source from, struct snapshot **ret, struct kfs_err *err)
{
    struct snapshot *s = snapshot_new();
    int rc = s ? FROM[from].load(c, s, err) : -ENOMEM;
    if (rc < 0) {
        snapshot_free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

/* --- renewal ---------------------------------------------------------------------------------------------- */

/* When to look again: seconds from now. */
static int64_t look_in_s(const struct kfs_cred *c, const struct snapshot *s)
{
    int64_t now = (int64_t)time(NULL), in = c->source == FROM_PROFILE ? FILE_LOOK_S : 3600;
    if (s->pub.expires_s) {
        int64_t left = s->pub.expires_s - now, early = left / 4 < RENEW_BEFORE_S ? left / 4 : RENEW_BEFORE_S;
        int64_t until = left - early;
        in = until < in ? until : in;
    }
    return in < 1 ? 1 : in;
}

static bool same_keys(const struct snapshot *a, const struct snapshot *b)
{
    return strcmp(a->access_key, b->access_key) == 0 && strcmp(a->secret, b->secret) == 0 && strcmp(a->token, b->token) == 0;
}

/* Static keys of a file: nothing to renew, unless the file is another. */
static bool file_changed(struct kfs_cred *c)
{
    static const struct { const char *variable, *name; } FILES[] = {{"AWS_CONFIG_FILE", "config"}, {"AWS_SHARED_CREDENTIALS_FILE", "credentials"}};
    bool changed = false;
    for (int i = 0; i < 2; i++) {
        char path[1024];
        struct stat st;
        int64_t stamp = -1;
        if (aws_file(FILES[i].variable, FILES[i].name, path, sizeof path) && stat(path, &st) == 0)
            stamp = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec + (int64_t)st.st_ino;
        changed |= stamp != c->file_stamp[i];
        c->file_stamp[i] = stamp;
    }
    return changed;
}

/* One look. False: it failed. Called and returns with the lock held. */
static bool renew(struct kfs_cred *c)
{
    struct snapshot *fresh = NULL, *old = c->now;
    uint64_t generation = old->pub.generation;
    bool asked = c->wanted == generation;
    pthread_mutex_unlock(&c->lock);
    struct kfs_err err = {0};
    bool changed = c->source != FROM_PROFILE || file_changed(c) || asked || old->pub.expires_s;
    int rc = changed ? load(c, c->source, &fresh, &err) : 0;
    if (rc < 0) {
        static struct kfs_log_limit limit;
        kfs_log_limited(&limit, KFS_LOG_WARN, "s3: credentials from %s could not be renewed: %s", c->name, err.msg[0] ? err.msg : strerror(-rc));
    }
    pthread_mutex_lock(&c->lock);
    if (fresh && !same_keys(fresh, old)) {
        fresh->pub.generation = generation + 1;
        c->now = fresh;
        if (--old->refs == 0)
            snapshot_free(old);
        return true;
    }
    if (fresh) {
        old->pub.expires_s = fresh->pub.expires_s;
        snapshot_free(fresh);
    }
    if (asked)
        c->looked = generation;
    return rc == 0;
}

static void *renew_thread(void *arg)
{
    struct kfs_cred *c = arg;
    int64_t pause = 1;
    bool ok = true;
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += ok ? look_in_s(c, c->now) : pause;
        bool asked = c->wanted == c->now->pub.generation && c->looked != c->wanted;
        if (!asked && pthread_cond_timedwait(&c->cond, &c->lock, &until) == 0)
            continue;
        if (c->stop)
            break;
        ok = renew(c);
        pause = ok ? 1 : pause * 2 < PAUSE_MAX_S ? pause * 2 : PAUSE_MAX_S;
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* --- the interface ------------------------------------------------------------------------------------------ */

static int none_found(struct kfs_err *err, const struct kfs_err *last)
{
    return KFS_FAIL(err, EACCES,
                    "there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or add a profile to ~/.aws/credentials%s%.120s%s",
                    last->msg[0] ? " (" : "", last->msg, last->msg[0] ? ")" : "");
}

static int find(struct kfs_cred *c, struct kfs_err *err)
{
    struct kfs_err last = {0};
    int from = c->profile ? FROM_PROFILE : 0, to = c->profile ? FROM_PROFILE + 1 : SOURCES;
    for (int i = from; i < to; i++) {
        struct kfs_err e = {0};
        int rc = load(c, (enum source)i, &c->now, &e);
        if (rc == 0) {
            c->source = (enum source)i;
            (void)snprintf(c->name, sizeof c->name, i == FROM_PROFILE ? "%s '%.100s'" : "%s", FROM[i].name, profile_name(c->profile)); // NOLINT
            c->now->pub.generation = 1;
            return 0;
        }
        if (rc == -ENOMEM)
            return KFS_FAIL(err, ENOMEM, "out of memory");
        /* Where nothing else is configured, the instance is only a guess: its silence is not the reason. */
        if (rc != -ENOENT && i != FROM_INSTANCE) {
            if (err)
                *err = e;
            return -EACCES;
        }
        if (rc != -ENOENT)
            last = e;
    }
    return none_found(err, &last);
}

static void release(struct kfs_cred *c)
{
    if (c->now)
        snapshot_free(c->now);
    free(c->profile);
    free(c->region);
    free(c->ca_file);
    free(c->proxy);
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_cond_destroy(&c->cond);
    free(c);
}

static bool dup_or_null(const char *s, char **ret)
{
    *ret = s ? strdup(s) : NULL;
    return !s == !*ret;
}

int kfs_cred_open(const struct kfs_cred_options *o, struct kfs_cred **ret_c, struct kfs_err *err)
{
    struct kfs_cred *c = calloc(1, sizeof *c);
    if (!c)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->cond, NULL);
    bool ok = dup_or_null(o->profile, &c->profile) && dup_or_null(o->region, &c->region) && dup_or_null(o->http.ca_file, &c->ca_file) &&
              dup_or_null(o->http.proxy, &c->proxy);
    c->http = o->http;
    c->http.ca_file = c->ca_file;
    c->http.proxy = c->proxy;
    (void)file_changed(c); /* the stamps of what is read now */
    int rc = ok ? find(c, err) : KFS_FAIL(err, ENOMEM, "out of memory");
    if (rc == 0 && c->source != FROM_ENV) {
        sigset_t all, old;
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = -pthread_create(&c->thread, NULL, renew_thread, c);
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
        c->threaded = rc == 0;
        if (rc < 0)
            (void)KFS_FAIL(err, -rc, "cannot start a thread: %s", strerror(-rc));
    }
    if (rc < 0) {
        release(c);
        return rc;
    }
    *ret_c = c;
    return 0;
}

void kfs_cred_close(struct kfs_cred *c)
{
    if (!c)
        return;
    if (c->threaded) {
        pthread_mutex_lock(&c->lock);
        c->stop = true;
        pthread_cond_signal(&c->cond);
        pthread_mutex_unlock(&c->lock);
        (void)pthread_join(c->thread, NULL);
    }
    release(c);
}

const struct kfs_cred_snapshot *kfs_cred_get(struct kfs_cred *c)
{
    pthread_mutex_lock(&c->lock);
    struct snapshot *s = c->now;
    s->refs++;
    pthread_mutex_unlock(&c->lock);
    return &s->pub;
}

void kfs_cred_put(struct kfs_cred *c, const struct kfs_cred_snapshot *pub)
{
    struct snapshot *s = (struct snapshot *)(uintptr_t)pub;
    if (!s)
        return;
    pthread_mutex_lock(&c->lock);
    bool last = --s->refs == 0;
    pthread_mutex_unlock(&c->lock);
    if (last)
        snapshot_free(s);
}

int kfs_cred_refresh(struct kfs_cred *c, uint64_t generation)
{
    pthread_mutex_lock(&c->lock);
    int r = c->now->pub.generation > generation ? 1 : !c->threaded || c->looked == generation ? -1 : 0;
    if (r == 0) {
        c->wanted = generation;
        pthread_cond_signal(&c->cond);
    }
    pthread_mutex_unlock(&c->lock);
    return r;
}

const char *kfs_cred_source(const struct kfs_cred *c)
{
    return c->name;
}
