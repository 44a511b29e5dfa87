/* blockstore/object_file.c — the driver `file`: an object is a file DIR/o/XX/HASH-ID
 *
 * Key      HASH is 16 hex digits of xxh3-64 of the volume id with the object id as seed, ID the
 *          object id in 16 hex digits, XX the first two digits of HASH. HASH spreads the objects
 *          over 256 directories (and over the partitions of an object service); ID makes the key
 *          reversible. All keys have the same length, so none is a directory of another.
 * Writing  Into DIR/tmp under a name of its own, flock'ed while the writer lives, then renamed: a
 *          reader sees whole objects or none, and whoever opens the store can tell a dead writer's
 *          file from a living one's.
 */
#include "blockstore/store.h"
#include "base/fault.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define KEY_LEN 36 /* "XX/" + 16 + "-" + 16 */

void kfs_store_key(const struct kfs_store *s, uint64_t object, char *buf)
{
    uint64_t hash = XXH3_64bits_withSeed(s->volume, strlen(s->volume), object);
    snprintf(buf, 64, "%02x/%016" PRIx64 "-%016" PRIx64, (unsigned)(hash >> 56), hash, object);
}

int kfs_blk_object_open(const struct kfs_store *s, uint64_t object, struct kfs_err *err)
{
    char key[64];
    kfs_store_key(s, object, key);
    int fd = openat(s->o_fd, key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0)
        return fd;
    if (errno == ENOENT)
        return KFS_FAIL(err, EIO, "object '%s' is missing in '%s'; restore it from a copy", key,
                        s->dir);
    return KFS_FAIL(err, errno, "cannot open object '%s' in '%s': %s", key, s->dir,
                    strerror(errno));
}

int kfs_store_delete(struct kfs_store *s, uint64_t object, struct kfs_err *err)
{
    char key[64];
    kfs_store_key(s, object, key);
    kfs_blk_index_cache_drop(&s->index, object);
    if (unlinkat(s->o_fd, key, 0) < 0 && errno != ENOENT)
        return KFS_FAIL(err, errno, "cannot delete object '%s' in '%s': %s", key, s->dir,
                        strerror(errno));
    return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

static int write_failed(struct kfs_blk_writer *w, int rc, struct kfs_err *err)
{
    char key[64];
    kfs_store_key(w->s, w->object, key);
    kfs_blk_writer_abort(w);
    return KFS_FAIL(err, -rc, "cannot write object '%s' in '%s': %s", key, w->s->dir,
                    strerror(-rc));
}

int kfs_blk_writer_begin(struct kfs_blk_writer *w, struct kfs_store *s, uint64_t object,
                         struct kfs_err *err)
{
    w->s = s;
    w->object = object;
    w->at = sizeof(struct kfs_object_header);
    w->index.count = 0;
    snprintf(w->tmp_name, sizeof w->tmp_name, "%016" PRIx64 "-%d-%" PRIu64, object, (int)getpid(),
             __atomic_add_fetch(&s->tmp_counter, 1, __ATOMIC_RELAXED));
    w->fd = openat(s->tmp_fd, w->tmp_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (w->fd < 0)
        return write_failed(w, -errno, err);
    (void)flock(
        w->fd,
        LOCK_EX | LOCK_NB); /* where locks are missing, a clean-up may cost a retry, never a byte */
    return 0;
}

int kfs_blk_writer_add(struct kfs_blk_writer *w, const void *plain, size_t len, struct kfs_err *err)
{
    assert(w->fd >= 0 && w->index.count < KFS_OBJECT_FRAMES_MAX && len > 0 &&
           len <= KFS_FRAME_BYTES);
    int rc = KFS_FAULT_ERR("store.object.write");
    if (rc == 0)
        rc = kfs_blk_pwrite_all(w->fd, plain, len, w->at);
    if (rc < 0)
        return write_failed(w, rc, err);
    struct kfs_object_entry *e = &w->index.entries[w->index.count++];
    *e = (struct kfs_object_entry){.off = w->at,
                                   .stored_len = (uint32_t)len,
                                   .plain_len = (uint32_t)len,
                                   .codec = KFS_CODEC_PLAIN};
    kfs_blk_hash(plain, len, e->hash);
    w->at += len;
    return 0;
}

/* Index, trailer and header. *ret_bytes: the object's size. */
static int write_tables(struct kfs_blk_writer *w, uint64_t *ret_bytes)
{
    size_t index_len = w->index.count * sizeof w->index.entries[0];
    struct kfs_object_header h = {
        .version = KFS_OBJECT_VERSION, .frame_count = w->index.count, .object = w->object};
    struct kfs_object_trailer t = {.index_off = w->at, .index_len = index_len};
    memcpy(h.magic, KFS_OBJECT_MAGIC, sizeof h.magic);
    memcpy(h.volume, w->s->volume, strlen(w->s->volume));
    memcpy(t.magic, KFS_OBJECT_END_MAGIC, sizeof t.magic);
    kfs_blk_hash2(&h, sizeof h, w->index.entries, index_len, t.hash);
    char tail[sizeof w->index.entries + sizeof t];
    memcpy(tail, w->index.entries, index_len);
    memcpy(tail + index_len, &t, sizeof t);
    int rc = kfs_blk_pwrite_all(w->fd, tail, index_len + sizeof t, w->at);
    if (rc == 0)
        rc = kfs_blk_pwrite_all(w->fd, &h, sizeof h, 0);
    *ret_bytes = w->at + index_len + sizeof t;
    return rc;
}

static int sync_dir(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
    close(fd);
    return rc;
}

/* Give the temporary file its name. The directory XX is made when it is first needed. */
static int rename_to_key(struct kfs_blk_writer *w, bool durable)
{
    char key[64], sub[3];
    kfs_store_key(w->s, w->object, key);
    memcpy(sub, key, 2);
    sub[2] = 0;
    bool made = false;
    if (renameat(w->s->tmp_fd, w->tmp_name, w->s->o_fd, key) < 0) {
        if (errno != ENOENT)
            return -errno;
        made = mkdirat(w->s->o_fd, sub, 0700) == 0;
        if (!made && errno != EEXIST)
            return -errno;
        if (renameat(w->s->tmp_fd, w->tmp_name, w->s->o_fd, key) < 0)
            return -errno;
    }
    w->tmp_name[0] = 0;
    /* EEXIST above can mean that another thread made XX and has not synced it yet: syncing o/ is
     * cheap, so a durable write always does. */
    int rc = durable ? sync_dir(w->s->o_fd, sub) : 0;
    if (rc == 0 && durable)
        rc = sync_dir(w->s->o_fd, ".");
    if (rc < 0)
        unlinkat(w->s->o_fd, key, 0);
    return rc;
}

int kfs_blk_writer_finish(struct kfs_blk_writer *w, bool durable, uint64_t *ret_bytes,
                          struct kfs_err *err)
{
    uint64_t bytes;
    int rc = write_tables(w, &bytes);
    if (rc == 0 && durable && fdatasync(w->fd) < 0)
        rc = -errno;
    if (rc == 0)
        rc = KFS_FAULT_ERR("store.object.rename");
    if (rc == 0)
        rc = rename_to_key(w, durable);
    KFS_FAULT("store.object.renamed");
    if (rc < 0)
        return write_failed(w, rc, err);
    /* Network file systems report a full disk or quota only at close. */
    rc = close(w->fd) < 0 && errno != EINTR ? -errno : 0;
    w->fd = -1;
    if (rc < 0) {
        (void)kfs_store_delete(w->s, w->object, NULL);
        return write_failed(w, rc, err);
    }
    kfs_blk_index_cache_put(&w->s->index, w->object, &w->index);
    *ret_bytes = bytes;
    return 0;
}

void kfs_blk_writer_abort(struct kfs_blk_writer *w)
{
    if (w->fd >= 0) {
        if (w->tmp_name[0])
            unlinkat(w->s->tmp_fd, w->tmp_name, 0);
        close(w->fd);
    }
    w->fd = -1;
}

/* --- the directory as a whole ----------------------------------------------------------------- */

/* A stream over directory `name` below `at`, or NULL with errno. */
static DIR *dir_open(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        close(fd);
    return d;
}

void kfs_blk_tmp_clean(struct kfs_store *s)
{
    DIR *d = dir_open(s->tmp_fd, ".");
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        int fd = openat(s->tmp_fd, e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
            unlinkat(s->tmp_fd, e->d_name, 0);
        close(fd);
    }
    if (d)
        closedir(d);
}

/* The id in a file name of directory XX, or 0: not an object of this volume. */
static uint64_t id_of(const struct kfs_store *s, unsigned xx, const char *name)
{
    char want[64], have[64];
    if (strlen(name) != KEY_LEN - 3)
        return 0;
    uint64_t object = strtoull(name + 17, NULL, 16);
    kfs_store_key(s, object, want);
    snprintf(have, sizeof have, "%02x/%s", xx, name);
    return strcmp(want, have) == 0 ? object : 0;
}

static int each_in(struct kfs_store *s, unsigned xx, DIR *d, kfs_store_each_cb cb, void *arg,
                   struct kfs_err *err)
{
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e && errno)
            return KFS_FAIL(err, errno, "cannot list '%s/o/%02x': %s", s->dir, xx, strerror(errno));
        if (!e)
            return 0;
        uint64_t object = id_of(s, xx, e->d_name);
        struct stat st;
        if (object == 0 || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(st.st_mode))
            continue;
        int rc = cb(arg, object, (uint64_t)st.st_size);
        if (rc)
            return rc;
    }
}

int kfs_store_each(struct kfs_store *s, kfs_store_each_cb cb, void *arg, struct kfs_err *err)
{
    for (unsigned xx = 0; xx < 256; xx++) {
        char sub[3];
        snprintf(sub, sizeof sub, "%02x", xx);
        DIR *d = dir_open(s->o_fd, sub);
        if (!d && errno == ENOENT)
            continue;
        if (!d)
            return KFS_FAIL(err, errno, "cannot list '%s/o/%s': %s", s->dir, sub, strerror(errno));
        int rc = each_in(s, xx, d, cb, arg, err);
        closedir(d);
        if (rc)
            return rc;
    }
    return 0;
}

int kfs_store_sync(struct kfs_store *s, struct kfs_err *err)
{
    if (syncfs(s->dir_fd) < 0)
        return KFS_FAIL(err, errno, "cannot sync store '%s': %s", s->dir, strerror(errno));
    return 0;
}

int kfs_store_statfs(struct kfs_store *s, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes,
                     struct kfs_err *err)
{
    struct statvfs v;
    if (fstatvfs(s->dir_fd, &v) < 0)
        return KFS_FAIL(err, errno, "cannot ask store '%s' for its free space: %s", s->dir,
                        strerror(errno));
    *ret_total_bytes = (uint64_t)v.f_blocks * v.f_frsize;
    *ret_free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}
