/* blockstore/cache_dead.c — dead directories: a removed, empty kernel directory stands for a KFS
 * directory
 *
 * Model    One dead directory an inode, as long as its descriptor is among the KFS_CACHE_DEAD_MAX
 *          last used: then all descriptors of a KFS directory have the same st_ino, which programs
 *          compare. Each caller gets an open file description of its own (openat "."), because
 *          offsets belong to descriptions. Mode 0755: clients of other users may fchdir into it;
 *          nobody reaches it by name.
 */
#include "blockstore/cache_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_dead_in(struct kfs_cache *c, struct kfs_cache_place *p, const char *name)
{
    int rc = mkdirat(p->d_fd, name, 0755);
    if (rc < 0 && errno == EEXIST && unlinkat(p->d_fd, name, AT_REMOVEDIR) == 0)
        rc = mkdirat(p->d_fd, name, 0755);
    if (rc < 0 && errno == ENOENT && kfs_cache_place_gone(c, p) && kfs_cache_place_heal(c, p, NULL) > 0)
        rc = mkdirat(p->d_fd, name, 0755);
    if (rc < 0 && (errno == ENOSPC || errno == EDQUOT)) {
        (void)kfs_cache_evict_place(c, p, 1 << 20, NULL);
        rc = mkdirat(p->d_fd, name, 0755);
    }
    if (rc < 0)
        return -errno;
    int fd = openat(p->d_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    rc = fd < 0 || fchmod(fd, 0755) < 0 ? -errno : 0;
    if (unlinkat(p->d_fd, name, AT_REMOVEDIR) < 0 && rc == 0)
        rc = -errno;
    if (rc < 0 && fd >= 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

/* In the first directory; in another one, if that fails: it is recognised there as well. */
static int make_dead(struct kfs_cache *c, const char *name)
{
    int fd = make_dead_in(c, &c->places[0], name);
    for (unsigned i = 1; fd < 0 && fd != -EMFILE && fd != -ENFILE && i < atomic_load(&c->place_count); i++) {
        int other = kfs_cache_place_ok(&c->places[i]) ? make_dead_in(c, &c->places[i], name) : -1;
        if (other >= 0)
            fd = other;
    }
    if (fd < 0)
        (void)kfs_cache_place_failed(c, &c->places[0], fd);
    return fd;
}

static struct kfs_cache_dead *find_or_oldest_locked(struct kfs_cache *c, kfs_ino_t ino)
{
    struct kfs_cache_dead *oldest = &c->dead[0];
    for (size_t i = 0; i < KFS_CACHE_DEAD_MAX; i++) {
        struct kfs_cache_dead *d = &c->dead[i];
        if (d->ino == ino)
            return d;
        if (d->used < oldest->used)
            oldest = d;
    }
    return oldest;
}

static int dead_locked(struct kfs_cache *c, kfs_ino_t ino, const char *name)
{
    struct kfs_cache_dead *d = find_or_oldest_locked(c, ino);
    if (d->ino != ino || ino == 0) {
        int fd = make_dead(c, name);
        if (fd < 0)
            return fd;
        if (d->ino)
            close(d->fd);
        d->ino = ino;
        d->fd = fd;
    }
    d->used = ++c->dead_tick;
    int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int kfs_cache_dead_dir(struct kfs_cache *c, kfs_ino_t ino, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    pthread_mutex_lock(&c->dead_lock);
    int fd = dead_locked(c, ino, name);
    pthread_mutex_unlock(&c->dead_lock);
    if (fd < 0)
        return KFS_FAIL(err, -fd, "cannot make directory '%s/d/%s': %s", c->places[0].dir, name,
                        strerror(-fd));
    return fd;
}

int kfs_cache_dead_link(struct kfs_cache *c, kfs_ino_t ino, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    pthread_mutex_lock(&c->dead_lock);
    int rc = symlinkat("-", c->places[0].d_fd, name) < 0 ? -errno : 0;
    int fd = rc < 0 ? rc : openat(c->places[0].d_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (rc == 0) {
        rc = fd < 0 ? -errno : 0;
        (void)unlinkat(c->places[0].d_fd, name, 0);
    }
    pthread_mutex_unlock(&c->dead_lock);
    if (rc < 0)
        return KFS_FAIL(err, -rc, "cannot make symlink '%s/d/%s': %s", c->places[0].dir, name, strerror(-rc));
    return fd;
}

void kfs_cache_dead_clear(struct kfs_cache *c)
{
    for (size_t i = 0; i < KFS_CACHE_DEAD_MAX; i++)
        if (c->dead[i].ino)
            close(c->dead[i].fd);
}
