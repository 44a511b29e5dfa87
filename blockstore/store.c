/* blockstore/store.c — a store on a driver: whose it is, and the objects in it by id
 *
 * Marker   "kfs-volume" is two lines of text: "kfs-volume 1" (the format's version) and the volume id. Opening checks it, so that a store that is not
 *          mounted, or that was swapped for another one, is noticed before a single object is missed.
 * Key      "o/XX/HASH-ID": HASH is 16 hex digits of xxh3-64 of the volume id with the object id as seed, ID the object id in 16 hex digits, XX the
 *          first two digits of HASH. HASH spreads the objects over directories and over the partitions of an object service; ID makes the
 *          key reversible. All keys have the same length, so none is a directory of another.
 */
#include "blockstore/store.h"
#include "base/cleanup.h"
#include "blockstore/keys.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define PACK_BYTES_DEFAULT      (8u << 20)
#define PACK_BYTES_MAX          (64u << 20)
#define PACK_FILE_BYTES_DEFAULT (1u << 20)
#define AT_ONCE                 1000 /* ids of one batch delete */

/* --- keys -------------------------------------------------------------------------------------- */

void kfs_store_key(const struct kfs_store *s, uint64_t object, char *buf)
{
    uint64_t hash = XXH3_64bits_withSeed(s->volume, strlen(s->volume), object);
    snprintf(buf, 64, "%02x/%016" PRIx64 "-%016" PRIx64, (unsigned)(hash >> 56), hash, object);
}

void kfs_blk_key(const struct kfs_store *s, uint64_t object, char *buf)
{
    memcpy(buf, KFS_STORE_OBJECT_PREFIX, sizeof KFS_STORE_OBJECT_PREFIX - 1);
    kfs_store_key(s, object, buf + sizeof KFS_STORE_OBJECT_PREFIX - 1);
}

uint64_t kfs_blk_key_object(const struct kfs_store *s, const char *key)
{
    char want[KFS_DRV_KEY_MAX];
    if (strlen(key) != KFS_STORE_KEY_LEN)
        return 0;
    uint64_t object = strtoull(key + KFS_STORE_KEY_LEN - 16, NULL, 16);
    kfs_blk_key(s, object, want);
    return strcmp(want, key) == 0 ? object : 0;
}

/* --- objects ----------------------------------------------------------------------------------- */

int kfs_blk_object_get(struct kfs_store *s, uint64_t object, uint64_t off, void *buf, size_t len, size_t *ret_got, uint64_t *ret_bytes,
                       struct kfs_err *err)
{
    char key[KFS_DRV_KEY_MAX];
    struct kfs_err e = {0};
    size_t got = 0;
    kfs_blk_key(s, object, key);
    int rc = kfs_drv_get(s->drv, key, off, buf, len, &got, ret_bytes, &e);
    if (rc == -ENOENT)
        return KFS_FAIL(err, EIO, "object '%s' is missing in '%s'; restore it from a copy", key + 2, s->url);
    if (rc == -ERANGE || (rc == 0 && off != KFS_DRV_TAIL && got < len))
        return kfs_blk_damaged(s, object, "it is cut off", err);
    if (rc < 0)
        return KFS_FAIL(err, -rc, "object '%s': %s", key + 2, e.msg);
    if (ret_got)
        *ret_got = got;
    return 0;
}

int kfs_store_delete(struct kfs_store *s, uint64_t object, struct kfs_err *err)
{
    return kfs_store_delete_many(s, &object, 1, err);
}

int kfs_store_delete_many(struct kfs_store *s, const uint64_t *objects, size_t count, struct kfs_err *err)
{
    char text[KFS_DRV_KEY_MAX];
    for (size_t i = 0; i < count; i++)
        kfs_blk_index_cache_drop(&s->index, objects[i]);
    if (count == 1) {
        kfs_blk_key(s, objects[0], text);
        return kfs_drv_delete(s->drv, text, err);
    }
    size_t room = count < AT_ONCE ? count : AT_ONCE;
    kfs_auto_free char *keys = malloc(room * KFS_DRV_KEY_MAX + 1);
    kfs_auto_free const char **list = malloc(room * sizeof *list + 1);
    if (!keys || !list)
        return KFS_FAIL(err, ENOMEM, "cannot delete objects: out of memory");
    int first = 0;
    for (size_t at = 0; at < count; at += room) {
        size_t n = count - at < room ? count - at : room;
        for (size_t i = 0; i < n; i++) {
            kfs_blk_key(s, objects[at + i], keys + i * KFS_DRV_KEY_MAX);
            list[i] = keys + i * KFS_DRV_KEY_MAX;
        }
        int rc = kfs_drv_delete_many(s->drv, list, n, first ? NULL : err);
        if (first == 0)
            first = rc;
    }
    return first;
}

struct each {
    struct kfs_store *s;
    kfs_store_each_cb cb;
    void *arg;
};

static int each_key(void *arg, const char *key, uint64_t bytes, int64_t mtime_s)
{
    struct each *e = arg;
    (void)mtime_s;
    uint64_t object = kfs_blk_key_object(e->s, key);
    return object ? e->cb(e->arg, object, bytes) : 0;
}

int kfs_store_each(struct kfs_store *s, kfs_store_each_cb cb, void *arg, struct kfs_err *err)
{
    struct each e = {s, cb, arg};
    return kfs_drv_list(s->drv, KFS_STORE_OBJECT_PREFIX, NULL, each_key, &e, err);
}

int kfs_store_sync(struct kfs_store *s, struct kfs_err *err)
{
    return kfs_drv_sync(s->drv, err);
}

int kfs_store_statfs(struct kfs_store *s, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes, struct kfs_err *err)
{
    return kfs_drv_statfs(s->drv, ret_total_bytes, ret_free_bytes, err);
}

/* --- the marker -------------------------------------------------------------------------------- */

static int check_id(const char *volume_id, struct kfs_err *err)
{
    size_t len = strlen(volume_id);
    if (len == 0 || len > KFS_VOLUME_ID_MAX || strpbrk(volume_id, "\n/"))
        return KFS_FAIL(err, EINVAL, "volume id '%s' is not usable; give 1 to %d characters without '/'", volume_id, KFS_VOLUME_ID_MAX);
    return 0;
}

/* The marker's volume id into ret_id. -ENOENT: no marker. -EINVAL: not one this version can read. */
static int marker_read(struct kfs_drv *d, char ret_id[KFS_VOLUME_ID_MAX + 1], struct kfs_err *err)
{
    char text[128] = {0};
    size_t got = 0;
    const char *where = kfs_drv_url(d);
    int rc = kfs_drv_get(d, KFS_STORE_MARKER, 0, text, sizeof text - 1, &got, NULL, err);
    if (rc < 0 && rc != -ERANGE)
        return rc;
    unsigned version = 0;
    char id[KFS_VOLUME_ID_MAX + 1];
    static_assert(KFS_VOLUME_ID_MAX == 39, "the width in the format below");
    int n = sscanf(text, "kfs-volume %u\n%39[^\n]", &version, id);
    if (n >= 1 && version > KFS_STORE_MARKER_VERSION)
        return KFS_FAIL(err, EINVAL, "store '%s' has format %u, this version knows up to %u; use a newer KFS", where, version,
                        KFS_STORE_MARKER_VERSION);
    if (n != 2 || version == 0)
        return KFS_FAIL(err, EINVAL, "'" KFS_STORE_MARKER "' in '%s' is damaged; restore it from a copy", where);
    memcpy(ret_id, id, sizeof id);
    return 0;
}

static int marker_write(struct kfs_drv *d, const char *volume_id, struct kfs_err *err)
{
    char text[128];
    int len = snprintf(text, sizeof text, "kfs-volume %u\n%s\n", KFS_STORE_MARKER_VERSION, volume_id);
    return kfs_drv_put(d, KFS_STORE_MARKER, text, (size_t)len, KFS_DRV_DURABLE | KFS_DRV_NEW, err);
}

static int marker_make(struct kfs_drv *d, const char *volume_id, struct kfs_err *err)
{
    char id[KFS_VOLUME_ID_MAX + 1];
    struct kfs_err e = {0};
    int rc = marker_read(d, id, &e);
    if (rc == -ENOENT)
        return marker_write(d, volume_id, err);
    if (rc < 0) {
        if (err)
            *err = e;
        return rc;
    }
    if (strcmp(id, volume_id) != 0)
        return KFS_FAIL(err, EEXIST, "store '%s' belongs to volume '%s'; choose another place", kfs_drv_url(d), id);
    return 0;
}

static int marker_check(struct kfs_drv *d, const char *volume_id, struct kfs_err *err)
{
    char id[KFS_VOLUME_ID_MAX + 1];
    int rc = marker_read(d, id, err);
    if (rc == -ENOENT)
        return KFS_FAIL(err, ENOENT, "store '%s' is not there: it has no '" KFS_STORE_MARKER "'; mount or restore it", kfs_drv_url(d));
    if (rc == 0 && strcmp(id, volume_id) != 0)
        return KFS_FAIL(err, EINVAL, "store '%s' belongs to volume '%s', not to '%s'; give the right one", kfs_drv_url(d), id, volume_id);
    return rc;
}

/* --- making, opening, closing ------------------------------------------------------------------- */

int kfs_store_format_with(const char *url, const char *volume_id, const struct kfs_store_options *o, struct kfs_err *err)
{
    struct kfs_drv *d = NULL;
    int rc = check_id(volume_id, err);
    if (rc == 0)
        rc = kfs_drv_open(url, o ? o->driver : NULL, true, &d, err);
    if (rc == 0)
        rc = marker_make(d, volume_id, err);
    kfs_drv_close(d);
    return rc;
}

int kfs_store_format(const char *url, const char *volume_id, struct kfs_err *err)
{
    return kfs_store_format_with(url, volume_id, NULL, err);
}

static int open_parts(struct kfs_store *s, const struct kfs_store_options *o, struct kfs_err *err)
{
    s->compress = !o->no_compression;
    s->pack_bytes = o->pack_bytes ? o->pack_bytes : PACK_BYTES_DEFAULT;
    if (s->pack_bytes > PACK_BYTES_MAX)
        s->pack_bytes = PACK_BYTES_MAX;
    s->pack_file_bytes = o->pack_file_bytes ? o->pack_file_bytes : PACK_FILE_BYTES_DEFAULT;
    if (s->pack_file_bytes > s->pack_bytes)
        s->pack_file_bytes = s->pack_bytes;
    s->keys = o->keys;
    s->parts = kfs_blk_parts_new();
    if (!s->url || !s->parts)
        return KFS_FAIL(err, ENOMEM, "open store '%s': out of memory", kfs_drv_url(s->drv));
    int rc = kfs_blk_packs_new(s, err);
    if (rc == 0)
        rc = kfs_fetch_open(s, s->drv, &s->fetch, err);
    if (rc == 0)
        rc = marker_check(s->drv, s->volume, err);
    /* What writers that died left half-written. Of a remote store others may be writing: housekeeping looks at ages there. */
    if (rc == 0 && !kfs_drv_is_remote(s->drv))
        (void)kfs_drv_upload_sweep(s->drv, 0, NULL);
    return rc;
}

int kfs_store_open_with(const char *url, const char *volume_id, const struct kfs_store_options *o, struct kfs_store **ret_s, struct kfs_err *err)
{
    static const struct kfs_store_options defaults;
    int rc = check_id(volume_id, err);
    if (rc < 0)
        return rc;
    o = o ? o : &defaults;
    struct kfs_store *s = calloc(1, sizeof *s);
    if (!s)
        return KFS_FAIL(err, ENOMEM, "open store '%s': out of memory", url);
    kfs_blk_index_cache_init(&s->index);
    memcpy(s->volume, volume_id, strlen(volume_id));
    s->url = strdup(url);
    rc = kfs_drv_open(url, o->driver, false, &s->drv, err);
    if (rc == 0)
        rc = open_parts(s, o, err);
    if (rc < 0) {
        s->keys = NULL; /* still the caller's */
        kfs_store_close(s);
        return rc;
    }
    *ret_s = s;
    return 0;
}

int kfs_store_open(const char *url, const char *volume_id, struct kfs_store **ret_s, struct kfs_err *err)
{
    return kfs_store_open_with(url, volume_id, NULL, ret_s, err);
}

void kfs_store_close(struct kfs_store *s)
{
    if (!s)
        return;
    kfs_fetch_close(s->fetch);
    kfs_drv_close(s->drv);
    kfs_blk_packs_free(s);
    kfs_blk_parts_free(s->parts);
    kfs_blk_index_cache_clear(&s->index);
    kfs_keyring_free(s->keys);
    free(s->url);
    free(s);
}

const char *kfs_store_url(const struct kfs_store *s)
{
    return s->url;
}

struct kfs_drv *kfs_store_driver(struct kfs_store *s)
{
    return s->drv;
}
