#include "tools/common/volume.h"
#include "base/conf.h"
#include "base/log.h"
#include "blockstore/driver.h"
#include "tools/common/secret.h"
#include "base/rand.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define CACHE_CAP_DEFAULT (10ULL << 30)

static const char *scheme_of(const char *path)
{
    return kfs_volume_is_embedded(path) ? "sqlite:" : "";
}

static void unlink_database(const char *path)
{
    char side[KFS_PATH_MAX];
    const char *const suffix[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        snprintf(side, sizeof side, "%s%s", path, suffix[i]);
        (void)unlink(side);
    }
}

static int store_format(const struct kfs_meta_volume *v, struct kfs_err *err)
{
    int r = kfs_store_format(v->store, v->id, err);
    if (r == -EEXIST && (!err || !err->code))
        KFS_FAIL(err, EEXIST, "store '%s' belongs to another volume; choose another directory", v->store);
    return r;
}

static int format_embedded(const char *path, struct kfs_meta_volume *v, struct kfs_err *err)
{
    int r = kfs_meta_format(path, v, geteuid(), getegid(), err);
    if (r == -EEXIST)
        return KFS_FAIL(err, EEXIST, "database '%s' already holds a volume; remove it first, or choose another path", path);
    if (r == 0) {
        r = store_format(v, err);
        if (r < 0)
            unlink_database(path);
    }
    return r;
}

/* What is in a database on a server cannot be taken back as a file can: the store comes first, and a store that its volume never came to may be formatted
 * again under the same id only, so a look at the database comes before it. */
static int format_on_server(const char *url, struct kfs_meta_volume *v, struct kfs_err *err)
{
    struct kfs_meta *m = NULL;
    struct kfs_err why = {0};
    int r = kfs_meta_open(url, &m, &why);
    kfs_meta_close(m);
    if (r == 0)
        return KFS_FAIL(err, EEXIST, "database '%s' already holds a volume; choose another database", url);
    if (r != -ENOENT || !strstr(why.msg, "is empty")) {
        if (err)
            *err = why;
        return r;
    }
    kfs_uuid_make(v->id);
    r = store_format(v, err);
    return r < 0 ? r : kfs_meta_format(url, v, geteuid(), getegid(), err);
}

/* ---- keys ---------------------------------------------------------------------------------------------------------- */

int kfs_volume_keys_get(struct kfs_meta *m, struct kfs_buf *ret, struct kfs_err *err)
{
    if (kfs_buf_reserve(ret, KFS_KEYS_TEXT_MAX) < 0)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    int r = kfs_meta_setting_get(m, KFS_KEYS_SETTING, ret->data, KFS_KEYS_TEXT_MAX, err);
    if (r < 0) {
        ret->data[0] = 0;
        return r;
    }
    ret->len = strlen(ret->data);
    return 0;
}

int kfs_volume_keys_set(struct kfs_meta *m, const char *store_url, const char *record, struct kfs_err *err)
{
    struct kfs_drv *d = NULL;
    /* The copy first: a key that the metadata knew and the copy did not could be lost with the metadata. */
    int r = kfs_drv_open(store_url, NULL, false, &d, err);
    if (r == 0)
        r = kfs_drv_put(d, KFS_KEYS_KEY, record, strlen(record), KFS_DRV_DURABLE, err);
    kfs_drv_close(d);
    if (r == 0)
        r = kfs_meta_setting_set(m, KFS_KEYS_SETTING, record, err);
    return r < 0 ? r : kfs_meta_sync(m, err);
}

static int keys_make(const char *path, const struct kfs_meta_volume *v, const struct kfs_secret *secret, struct kfs_err *err)
{
    struct kfs_buf record;
    struct kfs_meta *m = NULL;
    kfs_buf_init(&record);
    int r = kfs_keys_create(v->id, secret, &record, err);
    if (r == 0)
        r = kfs_meta_open(path, &m, err);
    if (r == 0)
        r = kfs_volume_keys_set(m, v->store, kfs_buf_str(&record), err);
    kfs_meta_close(m);
    kfs_buf_release(&record);
    return r;
}

/* *ret NULL: the volume is not encrypted. */
static int keys_open(struct kfs_volume *v, const struct kfs_volume_options *o, struct kfs_keyring **ret, struct kfs_err *err)
{
    struct kfs_buf record, secret;
    char prompt[300];
    kfs_buf_init(&record);
    kfs_buf_init(&secret);
    *ret = NULL;
    int r = kfs_volume_keys_get(v->meta, &record, err);
    if (r == 0) {
        snprintf(prompt, sizeof prompt, "passphrase of '%.200s'", v->url);
        r = kfs_secret_read(o->key_file, o->ask ? prompt : NULL, false, &secret, err);
        if (r == 0)
            r = kfs_keys_open(v->id, kfs_buf_str(&record), &(struct kfs_secret){secret.data, secret.len}, ret, err);
    } else if (r == -ENOENT) {
        r = 0;
    }
    kfs_secret_release(&secret);
    kfs_buf_release(&record);
    return r;
}

/* ---- making ---------------------------------------------------------------------------------------------------------- */

int kfs_volume_format(const char *url, const char *store_url, const char *name, struct kfs_meta_volume *ret, struct kfs_err *err)
{
    return kfs_volume_format_with(url, store_url, name, NULL, ret, err);
}

int kfs_volume_format_with(const char *url, const char *store_url, const char *name, const struct kfs_secret *secret, struct kfs_meta_volume *ret,
                           struct kfs_err *err)
{
    char path[KFS_VOLUME_URL_MAX];
    int r = kfs_volume_url_path(url, path, sizeof path, err);
    if (r < 0)
        return r;
    struct kfs_meta_volume v = {0};
    if (!store_url && !kfs_volume_is_embedded(path))
        return KFS_FAIL(err, EINVAL, "no store for the objects of '%s'; name one with --store", url);
    int n = store_url ? snprintf(v.store, sizeof v.store, "%s", store_url) : snprintf(v.store, sizeof v.store, "file:%s.objects", path);
    if (n < 0 || (size_t)n >= sizeof v.store)
        return KFS_FAIL(err, ENAMETOOLONG, "store URL is too long");
    const char *base = strrchr(path, '/');
    snprintf(v.name, sizeof v.name, "%.63s", name && *name ? name : base ? base + 1 : path);

    struct kfs_lock *lock = NULL;
    r = kfs_lock_acquire(path, url, &lock, err);
    if (r < 0)
        return r;
    r = kfs_volume_is_embedded(path) ? format_embedded(path, &v, err) : format_on_server(path, &v, err);
    if (r == 0 && secret) {
        r = keys_make(path, &v, secret, err);
        if (r < 0 && kfs_volume_is_embedded(path))
            unlink_database(path);
    }
    kfs_lock_release(lock);
    if (r == 0 && ret)
        *ret = v;
    return r;
}

/* ---- the cache directory ---------------------------------------------------------------------------------------- */

static bool holds_live(const char *dir)
{
    char w[KFS_PATH_MAX];
    snprintf(w, sizeof w, "%s/w", dir);
    DIR *d = opendir(w);
    if (!d)
        return false;
    bool any = false;
    for (struct dirent *e; !any && (e = readdir(d));)
        any = e->d_name[0] != '.';
    closedir(d);
    return any;
}

static int make_parents(char *dir)
{
    for (char *p = dir + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        int r = mkdir(dir, 0700);
        int e = errno;
        *p = '/';
        if (r < 0 && e != EEXIST && access(dir, F_OK) < 0 && e != EROFS && e != EACCES)
            return -e;
    }
    return mkdir(dir, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* Open `dir` as the cache if it can be created and written. */
static int cache_try(struct kfs_volume *v, const char *dir, struct kfs_err *err)
{
    char real[KFS_PATH_MAX];
    if (dir[0] != '/' || strlen(dir) >= 1000)
        return KFS_FAIL(err, EINVAL, "cache directory '%.200s' must be an absolute path of less than 1000 bytes", dir);
    snprintf(real, sizeof real, "%s", dir);
    size_t len = strlen(real);
    while (len > 1 && real[len - 1] == '/')
        real[--len] = 0;
    int r = make_parents(real);
    if (r < 0)
        return KFS_FAIL(err, -r, "cannot make cache directory '%s': %s; give another with --cache-dir", real, strerror(-r));
    /* Descriptors are recognised by the path that the kernel shows for them: it must be free of symlinks. */
    char clean[KFS_PATH_MAX];
    if (!realpath(real, clean))
        return KFS_FAIL(err, errno, "cannot use cache directory '%s': %s; give another with --cache-dir", real, strerror(errno));
    if (access(clean, R_OK | W_OK | X_OK) < 0 && errno != EROFS) /* what is cached there can be read at least */
        return KFS_FAIL(err, errno, "cannot write cache directory '%s': %s; give another with --cache-dir", clean, strerror(errno));
    bool rebooted = false;
    r = kfs_cache_open_with(clean, v->id, &v->cache_options, &v->cache, &rebooted, err);
    if (r < 0)
        return r;
    v->rebooted = v->rebooted || rebooted;
    r = kfs_meta_setting_set(v->meta, "cache_dir", clean, err);
    if (r < 0) {
        kfs_cache_close(v->cache);
        v->cache = NULL;
    }
    return r;
}

static int cache_default(struct kfs_volume *v, const char *recorded, struct kfs_err *err)
{
    char dir[6][KFS_PATH_MAX] = {{0}};
    int n = 0;
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (recorded[0] && access(recorded, F_OK) == 0)
        snprintf(dir[n++], KFS_PATH_MAX, "%s", recorded);
    if (xdg && xdg[0] == '/')
        snprintf(dir[n++], KFS_PATH_MAX, "%s/kfs/%s", xdg, v->id);
    if (home && home[0] == '/' && access(home, W_OK) == 0)
        snprintf(dir[n++], KFS_PATH_MAX, "%s/.cache/kfs/%s", home, v->id);
    snprintf(dir[n++], KFS_PATH_MAX, "/var/tmp/kfs-%u/%s", geteuid(), v->id);
    if (kfs_volume_is_embedded(v->path))
        snprintf(dir[n++], KFS_PATH_MAX, "%s.cache", v->path);
    struct kfs_err last = {0};
    for (int i = 0; i < n; i++) {
        last = (struct kfs_err){0};
        int r = cache_try(v, dir[i], &last);
        if (r == 0)
            return 0;
    }
    return KFS_FAIL(err, last.code ? last.code : EIO, "no usable cache directory: %s", last.msg);
}

static int cache_choose(struct kfs_volume *v, const char *explicit_dir, struct kfs_err *err)
{
    char recorded[KFS_PATH_MAX] = "";
    int r = kfs_meta_setting_get(v->meta, "cache_dir", recorded, sizeof recorded, err);
    if (r < 0 && r != -ENOENT)
        return r;
    if (!explicit_dir)
        return cache_default(v, recorded, err);
    char given[KFS_PATH_MAX], real[KFS_PATH_MAX];
    snprintf(given, sizeof given, "%s", explicit_dir);
    if (given[0] == '/' && make_parents(given) == 0 && realpath(given, real) && recorded[0] && strcmp(real, recorded) != 0 &&
        holds_live(recorded)) {
        /* Uncommitted files of the last session lie in the old directory: they come first. */
        r = cache_try(v, recorded, err);
        if (r == 0)
            snprintf(v->cache_wanted, sizeof v->cache_wanted, "%s", real);
        return r;
    }
    return cache_try(v, explicit_dir, err);
}

/* The directories beyond the first. One that cannot be used is no reason not to serve. */
static void cache_more(struct kfs_volume *v)
{
    const char *cursor = v->cache_dirs ? v->cache_dirs : "";
    struct kfs_conf_dir *d = malloc(sizeof *d);
    char dir[KFS_PATH_MAX];
    for (bool first = true; d && kfs_conf_dir_next(&cursor, d) == 1; first = false) {
        struct kfs_err err = {0};
        if (first)
            continue;
        snprintf(dir, sizeof dir, "%.1000s/%s", d->path, v->id);
        (void)kfs_cache_add_dir(v->cache, dir, d->has_bytes ? d->bytes : v->cap_bytes, d->has_files ? d->files : v->cap_files, &err);
        if (err.code)
            kfs_log(KFS_LOG_WARN, "'%s': %s", v->url, err.msg);
    }
    free(d);
}

/* What the configuration says about the first one. */
static void cache_settings(struct kfs_volume *v, const struct kfs_volume_options *o)
{
    const char *cursor = o->cache_parents ? o->cache_parents : "";
    struct kfs_conf_dir *d = malloc(sizeof *d);
    v->cache_options = o->cache;
    if (!v->cache_options.cap_bytes)
        v->cache_options.cap_bytes = CACHE_CAP_DEFAULT;
    v->cap_bytes = v->cache_options.cap_bytes;
    v->cap_files = v->cache_options.cap_files;
    if (d && kfs_conf_dir_next(&cursor, d) == 1) {
        snprintf(v->cache_parent, sizeof v->cache_parent, "%.1000s", d->path);
        if (d->has_bytes)
            v->cache_options.cap_bytes = d->bytes;
        if (d->has_files)
            v->cache_options.cap_files = d->files;
    }
    free(d);
    v->cache_dirs = strdup(o->cache_parents ? o->cache_parents : "");
}

int kfs_volume_switch_cache(struct kfs_volume *v, struct kfs_err *err)
{
    struct kfs_cache *old = v->cache;
    v->cache = NULL;
    int r = cache_try(v, v->cache_wanted, err);
    if (r < 0) {
        v->cache = old;
        return r;
    }
    kfs_cache_close(old);
    v->cache_wanted[0] = 0;
    cache_more(v);
    return 0;
}

/* ---- open, close -------------------------------------------------------------------------------------------------- */

static int session_begin(struct kfs_volume *v, struct kfs_err *err)
{
    char session[64] = "";
    int r = kfs_meta_setting_get(v->meta, "session", session, sizeof session, err);
    if (r < 0 && r != -ENOENT)
        return r;
    v->unclean = strncmp(session, "open", 4) == 0;
    while (v->epoch == 0)
        if (getrandom(&v->epoch, sizeof v->epoch, 0) != sizeof v->epoch)
            return KFS_FAIL(err, EIO, "no random numbers from the kernel");
    snprintf(session, sizeof session, "open %016llx", (unsigned long long)v->epoch);
    return kfs_meta_setting_set(v->meta, "session", session, err);
}

int kfs_volume_open(const char *url, const struct kfs_volume_options *o, struct kfs_volume **ret_v, struct kfs_err *err)
{
    struct kfs_volume *v = calloc(1, sizeof *v);
    if (!v)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    cache_settings(v, o);
    int r = kfs_volume_url_path(url, v->path, sizeof v->path, err);
    if (r < 0)
        goto out;
    snprintf(v->url, sizeof v->url, "%s%s", scheme_of(v->path), v->path);
    if (kfs_volume_is_embedded(v->path) && access(v->path, F_OK) < 0) {
        r = KFS_FAIL(err, errno, errno == ENOENT ? "database '%s' does not exist; create it with 'kfs format sqlite:%s' or 'kfs-run --create'"
                                                 : "cannot reach database '%s' (%s)",
                     v->path, errno == ENOENT ? v->path : strerror(errno));
        goto out;
    }
    r = kfs_lock_acquire(v->path, v->url, &v->lock, err);
    if (r < 0)
        goto out;
    r = kfs_meta_open(v->path, &v->meta, err);
    if (r < 0)
        goto out;
    snprintf(v->id, sizeof v->id, "%s", kfs_meta_volume(v->meta)->id);
    struct kfs_store_options so = o->store;
    r = keys_open(v, o, &so.keys, err);
    if (r < 0)
        goto out;
    r = kfs_store_open_with(kfs_meta_volume(v->meta)->store, v->id, &so, &v->store, err);
    if (r < 0) {
        kfs_keyring_free(so.keys);
        goto out;
    }
    if (!o->without_cache) {
        char below[KFS_PATH_MAX];
        const char *dir = o->cache_dir;
        if (!dir && v->cache_parent[0]) {
            snprintf(below, sizeof below, "%s/%s", v->cache_parent, v->id);
            dir = below;
        }
        r = cache_choose(v, dir, err);
        if (r < 0)
            goto out;
        if (!v->cache_wanted[0])
            cache_more(v);
        r = session_begin(v, err);
        if (r < 0)
            goto out;
    }
    *ret_v = v;
    return 0;
out:
    kfs_volume_close(v, false);
    return r;
}

void kfs_volume_close(struct kfs_volume *v, bool clean)
{
    if (!v)
        return;
    if (v->cache)
        kfs_cache_close(v->cache);
    if (v->store)
        kfs_store_close(v->store);
    if (v->meta && clean && v->epoch)
        (void)kfs_meta_setting_set(v->meta, "session", "clean", NULL);
    kfs_meta_close(v->meta);
    kfs_lock_release(v->lock);
    free(v->cache_dirs);
    free(v);
}
