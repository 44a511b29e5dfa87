/* blockstore/cache_partial.c — p/: content that is arriving
 *
 * Model    A partial file is known from create (or adopt) to finish or drop, and counts with the size that it will have: room is made before the first
 *          byte comes, so that an arriving file does not push out others in the middle. It is never evicted. Where no directory can take it, it lies in
 *          memory: then its size is reserved there (cache_memory.c). What earlier sessions left in p/ is
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

/* The partial file becomes known. *fd >= 0: in memory; taken over. */
static int note(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t bytes, unsigned place, int fd)
{
    struct kfs_cache_partial *n = malloc(sizeof *n);
    if (!n)
        return -ENOMEM;
    *n = (struct kfs_cache_partial){.ino = ino, .version = version, .bytes = bytes, .place = place, .fd = fd};
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_partial **p = find_locked(c, ino, version);
    int rc = *p ? -EEXIST : 0;
    if (rc == 0) {
        *p = n;
        if (place < KFS_CACHE_MEMORY)
            c->places[place].partial_bytes += bytes;
    }
    pthread_mutex_unlock(&c->lock);
    if (rc < 0)
        free(n);
    else if (place < KFS_CACHE_MEMORY)
        kfs_cache_trim(c, &c->places[place], 0);
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
        if (n->place < KFS_CACHE_MEMORY)
            c->places[n->place].partial_bytes += bytes - before;
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
        if (n->place < KFS_CACHE_MEMORY)
            c->places[n->place].partial_bytes -= n->bytes;
    }
    pthread_mutex_unlock(&c->lock);
    if (n && n->place == KFS_CACHE_MEMORY) {
        kfs_cache_memory_give_back(c, n->bytes);
        close(n->fd);
    }
    free(n);
}

/* The place of a known one, or -ENOENT; *ret_fd: in memory, a descriptor of the caller's. */
static int place_of(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int *ret_fd)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_partial *n = *find_locked(c, ino, version);
    int at = n ? (int)n->place : -ENOENT;
    if (at == KFS_CACHE_MEMORY) {
        *ret_fd = fcntl(n->fd, F_DUPFD_CLOEXEC, 0);
        if (*ret_fd < 0)
            at = -errno;
    }
    pthread_mutex_unlock(&c->lock);
    return at;
}

static int create_in(struct kfs_cache *c, unsigned at, const char *name)
{
    struct kfs_cache_place *p = &c->places[at];
    unlinkat(p->p_fd, name, 0); /* unknown: of an earlier session */
    return kfs_cache_file_create(c, p, &p->p_fd, name);
}

static int create_in_memory(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t bytes, int *ret_fd)
{
    int fd = kfs_cache_memory_new(c, ino, bytes);
    if (fd < 0)
        return fd;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int rc = own < 0 ? -errno : note(c, ino, version, bytes, KFS_CACHE_MEMORY, own);
    if (rc == 0) {
        *ret_fd = fd;
        return 0;
    }
    kfs_cache_memory_give_back(c, bytes);
    close(fd);
    if (own >= 0)
        close(own);
    return rc;
}

int kfs_cache_partial_create(struct kfs_cache *c, kfs_ino_t ino, uint64_t version,
                             uint64_t size_bytes, int *ret_fd, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    unsigned tried = 0;
    int at, fd = -ENOENT, known = -1, rc = -EIO;
    partial_name(name, ino, version);
    if (place_of(c, ino, version, &known) >= 0) {
        if (known >= 0)
            close(known);
        return KFS_FAIL(err, EEXIST, "cannot begin '%s': it is arriving already", name);
    }
    kfs_cache_missed(c);
    for (; (at = kfs_cache_place_choose(c, ino, size_bytes, tried)) >= 0; tried |= 1u << at)
        if ((rc = note(c, ino, version, size_bytes, (unsigned)at, -1)) < 0)
            return KFS_FAIL(err, -rc, "cannot begin '%s/p/%s': %s", c->places[at].dir, name, strerror(-rc));
        else if ((fd = rc = create_in(c, (unsigned)at, name)) >= 0)
            break;
        else
            forget(c, ino, version);
    if (at < 0) {
        int why = rc;
        rc = create_in_memory(c, ino, version, size_bytes, &fd);
        if (rc < 0 && rc != -EEXIST)
            rc = why != -EIO ? why : c->places[0].error ? -c->places[0].error : rc;
    }
    if (rc < 0)
        return KFS_FAIL(err, -rc, "cannot create '%s/p/%s': %s%s", c->places[0].dir, name, strerror(-rc),
                        rc == -ENOSPC ? "; make room where the cache directory lies" : "");
    *ret_fd = fd;
    return 0;
}

int kfs_cache_partial_adopt(struct kfs_cache *c, kfs_ino_t ino, uint64_t version,
                            uint64_t size_bytes, int *ret_fd, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    unsigned at = 0;
    int fd = -1;
    partial_name(name, ino, version);
    for (; fd < 0 && at < atomic_load(&c->place_count); at++)
        fd = openat(c->places[at].p_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -ENOENT;
    int rc = note(c, ino, version, size_bytes, at - 1, -1);
    if (rc < 0) {
        close(fd);
        return KFS_FAIL(err, -rc, "cannot adopt '%s/p/%s': %s", c->places[at - 1].dir, name, strerror(-rc));
    }
    *ret_fd = fd;
    return 0;
}

int kfs_cache_partial_open(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_auto_fd int memory = -1;
    int at = place_of(c, ino, version, &memory), fd = -1;
    if (at == KFS_CACHE_MEMORY) {
        snprintf(name, sizeof name, "/proc/self/fd/%d", memory);
        fd = open(name, (flags & ~(O_DIRECT | O_NOFOLLOW)) | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
    }
    partial_name(name, ino, version);
    if (at >= 0)
        fd = openat(c->places[at].p_fd, name, flags | O_CLOEXEC | O_NOFOLLOW);
    return at < 0 ? at : fd < 0 ? -errno : fd;
}

static bool is_in_memory(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_partial *n = *find_locked(c, ino, version);
    bool memory = n && n->place == KFS_CACHE_MEMORY;
    pthread_mutex_unlock(&c->lock);
    return memory;
}

/* In its place, under its own name. */
static int publish(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, bool live)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_auto_fd int memory = -1;
    int at = place_of(c, ino, version, &memory);
    if (at < 0)
        return at;
    if (at == KFS_CACHE_MEMORY)
        return live ? kfs_cache_file_copy_live(c, memory, ino) : kfs_cache_memory_add(c, ino, version, memory);
    partial_name(name, ino, version);
    return kfs_cache_file_publish(c, &c->places[at], c->places[at].p_fd, name, ino, version, live);
}

int kfs_cache_partial_finish(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, bool live,
                             struct kfs_err *err)
{
    KFS_FAULT("cache.partial.finish");
    uint64_t bytes = recount(c, ino, version, 0); /* not twice while it changes its place */
    bool memory = is_in_memory(c, ino, version);
    if (memory)
        kfs_cache_memory_give_back(c, bytes);
    int rc = publish(c, ino, version, live);
    if (rc == 0) {
        forget(c, ino, version);
        return 0;
    }
    if (memory)
        kfs_cache_memory_take(c, bytes);
    (void)recount(c, ino, version, bytes);
    return KFS_FAIL(err, -rc, "cannot move the arrived content of inode %" PRIx64 " to its place: %s", ino, strerror(-rc));
}

static void unlink_partial(struct kfs_cache *c, unsigned at, kfs_ino_t ino, uint64_t version)
{
    char name[KFS_CACHE_NAME_MAX];
    partial_name(name, ino, version);
    if (c->places[at].p_fd >= 0)
        unlinkat(c->places[at].p_fd, name, 0);
}

void kfs_cache_partial_drop(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    for (unsigned at = 0; at < atomic_load(&c->place_count); at++)
        unlink_partial(c, at, ino, version);
    forget(c, ino, version);
}

bool kfs_cache_partial_suspect(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int rc)
{
    kfs_auto_fd int memory = -1;
    int at = place_of(c, ino, version, &memory);
    return at >= 0 && at < KFS_CACHE_MEMORY && kfs_cache_place_suspect(c, &c->places[at], rc);
}

static int each_in(struct kfs_cache_place *place, kfs_cache_partial_cb cb, void *arg)
{
    int fd = openat(place->p_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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

int kfs_cache_partial_each(struct kfs_cache *c, kfs_cache_partial_cb cb, void *arg)
{
    int rc = 0;
    for (unsigned at = 0; rc == 0 && at < atomic_load(&c->place_count); at++)
        if (c->places[at].p_fd >= 0)
            rc = each_in(&c->places[at], cb, arg);
    return rc;
}

static int drop_unknown(void *arg, kfs_ino_t ino, uint64_t version)
{
    struct kfs_cache *c = arg;
    pthread_mutex_lock(&c->lock);
    bool known = *find_locked(c, ino, version) != NULL;
    pthread_mutex_unlock(&c->lock);
    for (unsigned at = 0; !known && at < atomic_load(&c->place_count); at++)
        unlink_partial(c, at, ino, version);
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
        if (n->fd >= 0)
            close(n->fd);
        free(n);
    }
    c->partials = NULL;
}
