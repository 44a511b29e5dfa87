#include "base/conf.h"

#include "base/cleanup.h"
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum conf_type { TYPE_PATH, TYPE_PATHS, TYPE_SIZE, TYPE_SECONDS, TYPE_ROWS, TYPE_CHOICE };

static const struct {
    const char *name;
    enum conf_type type;
    const char *def, *allowed, *doc;
} keys[] = {
#define CONF_KEY(id, key, type, def, allowed, doc) {#key, TYPE_##type, def, allowed, doc},
#include "base/conf_keys.def"
#undef CONF_KEY
};

#define ROWS_MIN 64u
#define ROWS_MAX (1u << 28)

/* Digits and what follows them. 0 or -EINVAL (no digits, or beyond 64 bits). */
static int parse_number(const char *text, uint64_t *ret_n, const char **ret_unit)
{
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    uint64_t n = 0;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
            return -EINVAL;
    while (*text == ' ')
        text++;
    *ret_n = n;
    *ret_unit = text;
    return 0;
}

int kfs_conf_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    uint64_t n;
    const char *unit;
    if (parse_number(text, &n, &unit) < 0)
        return -EINVAL;
    if (*unit) {
        const char *u = strchr(units, toupper((unsigned char)*unit));
        if (!u || (unit[1] && strcmp(unit + 1, "iB") != 0))
            return -EINVAL;
        if (__builtin_mul_overflow(n, 1ULL << (10 * (u - units + 1)), &n))
            return -EINVAL;
    }
    *ret_bytes = n;
    return 0;
}

static int parse_seconds(const char *text, uint64_t *ret_s)
{
    uint64_t n;
    const char *unit;
    if (parse_number(text, &n, &unit) < 0)
        return -EINVAL;
    uint64_t factor = strcmp(unit, "h") == 0                 ? 3600
                      : strcmp(unit, "m") == 0               ? 60
                      : strcmp(unit, "s") == 0 || *unit == 0 ? 1
                                                             : 0;
    if (!factor || n > 1000000000u / factor)
        return -EINVAL;
    *ret_s = n * factor;
    return 0;
}

static int parse_rows(const char *text, uint64_t *ret_n)
{
    const char *unit;
    if (parse_number(text, ret_n, &unit) < 0 || *unit)
        return -EINVAL;
    return *ret_n >= ROWS_MIN && *ret_n <= ROWS_MAX && (*ret_n & (*ret_n - 1)) == 0 ? 0 : -EINVAL;
}

/* Index of text among the words of "a|b|c". */
static int parse_choice(const char *text, const char *allowed, uint64_t *ret_n)
{
    size_t len = strlen(text);
    for (uint64_t i = 0;; i++) {
        size_t word = strcspn(allowed, "|");
        if (word == len && memcmp(allowed, text, len) == 0) {
            *ret_n = i;
            return 0;
        }
        if (!allowed[word])
            return -EINVAL;
        allowed += word + 1;
    }
}

/* The last word of text that is NAME=VALUE of ours: cut off. 1, 0 (there is none), -EINVAL. */
static int dir_setting(char *text, struct kfs_conf_dir *d)
{
    size_t n = strlen(text);
    while (n && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    char *word = text + n;
    while (word > text && !isspace((unsigned char)word[-1]))
        word--;
    bool bytes = strncmp(word, "bytes=", 6) == 0;
    if (word == text || (!bytes && strncmp(word, "files=", 6) != 0))
        return 0;
    if (kfs_conf_parse_size(word + 6, bytes ? &d->bytes : &d->files) < 0)
        return -EINVAL;
    *(bytes ? &d->has_bytes : &d->has_files) = true;
    *word = '\0';
    return 1;
}

int kfs_conf_dir_next(const char **cursor, struct kfs_conf_dir *ret)
{
    size_t n = strcspn(*cursor, "\n");
    if (!n)
        return 0;
    memset(ret, 0, sizeof *ret);
    if (n >= sizeof ret->path)
        return -EINVAL;
    memcpy(ret->path, *cursor, n);
    *cursor += n + ((*cursor)[n] == '\n');
    int rc;
    while ((rc = dir_setting(ret->path, ret)) == 1)
        ;
    return rc < 0 ? rc : ret->path[0] == '/' ? 1 : -EINVAL;
}

/* -EINVAL: not allowed. *ret_text is allocated. */
static int value_parse(int key, const char *value, char **ret_text, uint64_t *ret_number)
{
    int rc = 0;
    *ret_number = 0;
    *ret_text = NULL;
    switch (keys[key].type) {
    case TYPE_PATH:
    case TYPE_PATHS: {
        struct kfs_conf_dir *d;
        const char *home = getenv("HOME");
        if (value[0] == '~' && value[1] == '/' && home && home[0] == '/') {
            char *text;
            if (asprintf(&text, "%s%s", home, value + 1) < 0)
                return -ENOMEM;
            *ret_text = text;
            value = text;
        }
        if (value[0] && value[0] != '/')
            rc = -EINVAL;
        if (rc == 0 && value[0] && keys[key].type == TYPE_PATHS) {
            const char *cursor = value;
            d = malloc(sizeof *d);
            for (rc = d ? 1 : -ENOMEM; rc == 1;)
                rc = kfs_conf_dir_next(&cursor, d);
            free(d);
        }
        if (*ret_text && rc < 0) {
            free(*ret_text);
            *ret_text = NULL;
        }
        if (*ret_text)
            return 0;
        break;
    }
    case TYPE_SIZE:
        rc = kfs_conf_parse_size(value, ret_number);
        break;
    case TYPE_SECONDS:
        rc = parse_seconds(value, ret_number);
        break;
    case TYPE_ROWS:
        rc = parse_rows(value, ret_number);
        break;
    case TYPE_CHOICE:
        rc = parse_choice(value, keys[key].allowed, ret_number);
        break;
    }
    if (rc < 0)
        return rc;
    *ret_text = strdup(value);
    return *ret_text ? 0 : -ENOMEM;
}

static int key_find(const char *name)
{
    for (int i = 0; i < KFS_CONF_COUNT; i++)
        if (strcmp(keys[i].name, name) == 0)
            return i;
    return -1;
}

static int unknown_key(const char *origin, const char *key, struct kfs_err *err)
{
    char list[512] = "";
    size_t n = 0;
    for (int i = 0; i < KFS_CONF_COUNT && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", keys[i].name);
    return KFS_FAIL(err, EINVAL, "%s: unknown key '%.64s'; known are %s", origin, key, list);
}

int kfs_conf_set(struct kfs_conf *c, const char *key, const char *value, const char *origin,
                 struct kfs_err *err)
{
    int k = key_find(key);
    if (k < 0)
        return unknown_key(origin, key, err);
    kfs_auto_free char *text = NULL;
    uint64_t number;
    int rc = value_parse(k, value, &text, &number);
    if (rc == -EINVAL)
        return KFS_FAIL(err, EINVAL, "%s: '%s' cannot be '%.100s'; allowed: %s", origin, key, value,
                        keys[k].allowed);
    kfs_auto_free char *from = rc < 0 ? NULL : strdup(origin);
    if (!from)
        return KFS_FAIL(err, ENOMEM, "%s: out of memory", origin);
    struct kfs_conf_value *v = &c->values[k];
    free(v->text);
    free(v->origin);
    v->text = kfs_steal(&text);
    v->origin = kfs_steal(&from);
    v->number = number;
    return 0;
}

int kfs_conf_init(struct kfs_conf *c, struct kfs_err *err)
{
    memset(c, 0, sizeof *c);
    for (int i = 0; i < KFS_CONF_COUNT; i++) {
        int rc = kfs_conf_set(c, keys[i].name, keys[i].def, "default", err);
        if (rc < 0) {
            kfs_conf_release(c);
            return rc;
        }
    }
    return 0;
}

static void volume_release(struct kfs_conf_volume *v)
{
    free(v->name);
    free(v->url);
    free(v->origin);
}

void kfs_conf_release(struct kfs_conf *c)
{
    if (!c)
        return;
    for (int i = 0; i < KFS_CONF_COUNT; i++) {
        free(c->values[i].text);
        free(c->values[i].origin);
    }
    for (size_t i = 0; i < c->volume_count; i++)
        volume_release(&c->volumes[i]);
    free(c->volumes);
    memset(c, 0, sizeof *c);
}

/* Copy src over the values and volumes of dst, which takes what it can use; src is left to be released. */
static int merge(struct kfs_conf *dst, struct kfs_conf *src)
{
    struct kfs_conf_volume *all =
        calloc(dst->volume_count + src->volume_count + 1, sizeof *all);
    if (!all)
        return -ENOMEM;
    for (int i = 0; i < KFS_CONF_COUNT; i++)
        if (src->values[i].text) {
            struct kfs_conf_value old = dst->values[i];
            dst->values[i] = src->values[i];
            src->values[i] = old;
        }
    size_t n = 0;
    for (size_t i = 0; i < dst->volume_count; i++) {
        if (kfs_conf_volume_url(src, dst->volumes[i].name))
            volume_release(&dst->volumes[i]);
        else
            all[n++] = dst->volumes[i];
    }
    for (size_t i = 0; i < src->volume_count; i++)
        all[n++] = src->volumes[i];
    src->volume_count = 0;
    free(dst->volumes);
    dst->volumes = all;
    dst->volume_count = n;
    return 0;
}

static char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1]))
        s[--n] = '\0';
    return s;
}

/* "[volume NAME]": a new volume without a URL yet. */
static int section_begin(struct kfs_conf *c, char *line, const char *origin, struct kfs_err *err)
{
    size_t n = strlen(line);
    char *name = line + 1;
    if (line[n - 1] == ']')
        line[n - 1] = '\0';
    if (n < 2 || strncmp(name, "volume", 6) != 0 || !isspace((unsigned char)name[6]))
        return KFS_FAIL(err, EINVAL, "%s: unknown section '[%.64s'; allowed: [volume NAME]", origin,
                        name);
    name = trim(name + 6);
    if (!*name || strpbrk(name, "/:[] \t") || strlen(name) > 63)
        return KFS_FAIL(err, EINVAL,
                        "%s: '%.64s' cannot name a volume; allowed: 1 to 63 characters other than "
                        "'/', ':', brackets and blanks",
                        origin, name);
    if (kfs_conf_volume_url(c, name))
        return KFS_FAIL(err, EINVAL, "%s: volume '%s' is there twice; remove one section", origin,
                        name);
    struct kfs_conf_volume *all =
        realloc(c->volumes, (c->volume_count + 1) * sizeof *all);
    if (!all)
        return KFS_FAIL(err, ENOMEM, "%s: out of memory", origin);
    c->volumes = all;
    struct kfs_conf_volume v = {strdup(name), strdup(""), strdup(origin)};
    all[c->volume_count++] = v;
    return v.name && v.url && v.origin ? 0 : KFS_FAIL(err, ENOMEM, "%s: out of memory", origin);
}

static int volume_key(struct kfs_conf_volume *v, const char *key, const char *value,
                      const char *origin, struct kfs_err *err)
{
    if (strcmp(key, "url") != 0)
        return KFS_FAIL(err, EINVAL, "%s: unknown key '%.64s' in volume '%s'; allowed: url", origin,
                        key, v->name);
    if (!strchr(value, ':'))
        return KFS_FAIL(err, EINVAL,
                        "%s: 'url' cannot be '%.100s'; allowed: a volume URL such as "
                        "sqlite:/absolute/path.db",
                        origin, value);
    char *url = strdup(value);
    if (!url)
        return KFS_FAIL(err, ENOMEM, "%s: out of memory", origin);
    free(v->url);
    v->url = url;
    return 0;
}

static int line_parse(struct kfs_conf *c, char *line, const char *origin, struct kfs_err *err)
{
    line = trim(line);
    /* A '#' begins a comment at the start of a line and behind a blank: inside a word it belongs to a path or URL. */
    for (char *h = line; (h = strchr(h, '#')); h++)
        if (h == line || isspace((unsigned char)h[-1])) {
            *h = '\0';
            break;
        }
    line = trim(line);
    if (!*line)
        return 0;
    if (*line == '[')
        return section_begin(c, line, origin, err);
    char *eq = strchr(line, '=');
    if (!eq)
        return KFS_FAIL(err, EINVAL,
                        "%s: '%.100s' is neither 'key = value' nor '[volume NAME]' nor a comment",
                        origin, line);
    *eq = '\0';
    char *key = trim(line), *value = trim(eq + 1);
    if (c->volume_count)
        return volume_key(&c->volumes[c->volume_count - 1], key, value, origin, err);
    int k = key_find(key);
    const char *have = k >= 0 && keys[k].type == TYPE_PATHS ? c->values[k].text : NULL; /* of an earlier line of this file */
    kfs_auto_free char *before = have && *have ? strdup(have) : NULL, *both = NULL;
    int rc = kfs_conf_set(c, key, value, origin, err);
    if (rc < 0 || !before)
        return rc;
    if (asprintf(&both, "%s\n%s", before, c->values[k].text) < 0) {
        both = NULL;
        return KFS_FAIL(err, ENOMEM, "%s: out of memory", origin);
    }
    return kfs_conf_set(c, key, both, origin, err);
}

static int file_parse(struct kfs_conf *c, FILE *f, const char *path, struct kfs_err *err)
{
    kfs_auto_free char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = 0;
    for (unsigned number = 1; rc == 0 && (errno = 0, n = getline(&line, &cap, f)) >= 0; number++) {
        char origin[300];
        (void)snprintf(origin, sizeof origin, "%s:%u", path, number);
        if (strlen(line) != (size_t)n)
            rc = KFS_FAIL(err, EINVAL, "%s: line contains a NUL byte", origin);
        else
            rc = line_parse(c, line, origin, err);
    }
    if (rc == 0 && ferror(f))
        rc = KFS_FAIL(err, errno ? errno : EIO, "cannot read configuration '%s': %s", path,
                      strerror(errno));
    for (size_t i = 0; rc == 0 && i < c->volume_count; i++)
        if (!c->volumes[i].url[0])
            rc = KFS_FAIL(err, EINVAL, "%s: volume '%s' has no url; add 'url = sqlite:/path.db'",
                          c->volumes[i].origin, c->volumes[i].name);
    return rc;
}

int kfs_conf_load(struct kfs_conf *c, const char *path, struct kfs_err *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return KFS_FAIL(err, errno, "cannot read configuration '%s': %s", path, strerror(errno));
    struct kfs_conf fresh = {0};
    int rc = file_parse(&fresh, f, path, err);
    (void)fclose(f);
    if (rc == 0) {
        rc = merge(c, &fresh);
        if (rc < 0)
            (void)KFS_FAIL(err, ENOMEM, "out of memory for configuration '%s'", path);
    }
    kfs_conf_release(&fresh);
    return rc;
}

static int load_if_there(struct kfs_conf *c, const char *path, struct kfs_err *err)
{
    if (access(path, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
        return 0;
    return kfs_conf_load(c, path, err);
}

int kfs_conf_load_default(struct kfs_conf *c, struct kfs_err *err)
{
    int rc = kfs_conf_init(c, err);
    if (rc < 0)
        return rc;
    const char *named = getenv("KFS_CONFIG"), *home = getenv("HOME");
    if (named && *named) {
        rc = kfs_conf_load(c, named, err);
    } else {
        rc = load_if_there(c, "/etc/kfs/kfs.conf", err);
        kfs_auto_free char *own = NULL;
        if (rc == 0 && home && *home) {
            if (asprintf(&own, "%s/.config/kfs/kfs.conf", home) < 0) {
                own = NULL;
                rc = KFS_FAIL(err, ENOMEM, "out of memory for the configuration");
            } else {
                rc = load_if_there(c, own, err);
            }
        }
    }
    if (rc < 0)
        kfs_conf_release(c);
    return rc;
}

const char *kfs_conf_text(const struct kfs_conf *c, enum kfs_conf_key key)
{
    return c->values[key].text ? c->values[key].text : "";
}

uint64_t kfs_conf_number(const struct kfs_conf *c, enum kfs_conf_key key)
{
    return c->values[key].number;
}

const char *kfs_conf_volume_url(const struct kfs_conf *c, const char *name)
{
    for (size_t i = 0; i < c->volume_count; i++)
        if (strcmp(c->volumes[i].name, name) == 0)
            return c->volumes[i].url;
    return NULL;
}

const char *kfs_conf_key_name(enum kfs_conf_key key)
{
    return keys[key].name;
}

const char *kfs_conf_key_doc(enum kfs_conf_key key)
{
    return keys[key].doc;
}
