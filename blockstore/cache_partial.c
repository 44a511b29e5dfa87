/* blockstore/cache_partial.c — p/: content that is arriving
 *
 * Model    A partial file is known from create (or adopt) to finish or drop, and counts with the size that it will have: room is made before the first
 *          byte comes, so that an arriving file does not push out others in the middle. It is never evicted. What earlier sessions left in p/ is
 *          unknown until it is adopted.
 */
#include "blockstore/cache_dir.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void partial_name(char *buf, kfs_ino_t ino, uint64_t version)
{
    snprintf(buf, KFS_CACHE_NAME_MAX, "%" PRIx64 "-%" PRIx64, ino, version);
}

static struct kfs_cache_partial **find_locked(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    struct kfs_cache_partial **p = &c->partials;
    while (*p && ((*p)->ino != ino || (*p)->version != version))
        p = &(*p)->next;
    return p;
}

static int note(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t bytes)
{
    struct kfs_cache_partial *n = malloc(sizeof *n);
    if (!n)
        return -ENOMEM;
    *n = (struct kfs_cache_partial){.ino = ino, .version = version, .bytes = bytes};
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_partial **p = find_locked(c, ino, version);
    int rc = *p ? -EEXIST : 0;
    if (rc == 0) {
        *p = n;
        c->partial_bytes += bytes;
    }
    pthread_mutex_unlock(&c->lock);
    if (rc < 0)
        free(n);
    else
        kfs_cache_index_trim(c);
    return rc;
}

/* Returns what it counted with before. */
static uint64_t recount(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t bytes)
{
    uint64_t before = 0;
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_partial *n = *find_locked(c, ino, version);
    if (n) {
        before = n->bytes;
        n->bytes = bytes;
        c->partial_bytes += bytes - before;
    }
    pthread_mutex_unlock(&c->lock);
    return before;
}

static void forget(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_partial **p = find_locked(c, ino, version), *n = *p;
    if (n) {
        *p = n->next;
        c->partial_bytes -= n->bytes;
    }
    pthread_mutex_unlock(&c->lock);
    free(n);
}

int kfs_cache_partial_create(struct kfs_cache *c, kfs_ino_t ino, uint64_t version,
                             uint64_t size_bytes, int *ret_fd, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    partial_name(name, ino, version);
    int rc = note(c, ino, version, size_bytes);
    if (rc < 0)
        return KFS_FAIL(err, -rc, "cannot begin '%s/p/%s': %s", c->dir, name, strerror(-rc));
    unlinkat(c->p_fd, name, 0); /* unknown: of an earlier session */
    int fd = kfs_cache_file_create(c, c->p_fd, name);
    if (fd < 0) {
        forget(c, ino, version);
        return KFS_FAIL(err, -fd, "cannot create '%s/p/%s': %s%s", c->dir, name, strerror(-fd),
                        fd == -ENOSPC ? "; make room where the cache directory lies" : "");
    }
    *ret_fd = fd;
    return 0;
}

int kfs_cache_partial_adopt(struct kfs_cache *c, kfs_ino_t ino, uint64_t version,
                            uint64_t size_bytes, int *ret_fd, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    partial_name(name, ino, version);
    int fd = openat(c->p_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int rc = note(c, ino, version, size_bytes);
    if (rc < 0) {
        close(fd);
        return KFS_FAIL(err, -rc, "cannot adopt '%s/p/%s': %s", c->dir, name, strerror(-rc));
    }
    *ret_fd = fd;
    return 0;
}

int kfs_cache_partial_open(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags)
{
    char name[KFS_CACHE_NAME_MAX];
    partial_name(name, ino, version);
    int fd = openat(c->p_fd, name, flags | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

int kfs_cache_partial_finish(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, bool live,
                             struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    partial_name(name, ino, version);
    KFS_FAULT("cache.partial.finish");
    uint64_t bytes = recount(c, ino, version, 0); /* not twice while it changes its place */
    int rc = kfs_cache_file_publish(c, c->p_fd, name, ino, version, live);
    if (rc < 0)
        (void)recount(c, ino, version, bytes);
    if (rc < 0)
        return KFS_FAIL(err, -rc, "cannot move '%s/p/%s' to its place: %s", c->dir, name,
                        strerror(-rc));
    forget(c, ino, version);
    return 0;
}

void kfs_cache_partial_drop(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    char name[KFS_CACHE_NAME_MAX];
    partial_name(name, ino, version);
    unlinkat(c->p_fd, name, 0);
    forget(c, ino, version);
}

int kfs_cache_partial_each(struct kfs_cache *c, kfs_cache_partial_cb cb, void *arg)
{
    int fd = openat(c->p_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        const char *p = e->d_name;
        uint64_t ino, version;
        if (kfs_cache_parse_hex(&p, &ino) && *p++ == '-' && kfs_cache_parse_version(p, &version))
            rc = cb(arg, ino, version);
    }
    closedir(d);
    return rc;
}

static int drop_unknown(void *arg, kfs_ino_t ino, uint64_t version)
{
    struct kfs_cache *c = arg;
    char name[KFS_CACHE_NAME_MAX];
    pthread_mutex_lock(&c->lock);
    bool known = *find_locked(c, ino, version) != NULL;
    pthread_mutex_unlock(&c->lock);
    if (known)
        return 0;
    partial_name(name, ino, version);
    unlinkat(c->p_fd, name, 0);
    return 0;
}

int kfs_cache_partial_clear(struct kfs_cache *c)
{
    return kfs_cache_partial_each(c, drop_unknown, c);
}

void kfs_cache_partial_release(struct kfs_cache *c)
{
    for (struct kfs_cache_partial *n = c->partials, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    c->partials = NULL;
}
