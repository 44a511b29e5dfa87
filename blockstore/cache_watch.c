/* blockstore/cache_watch.c — hearing of writers that close
 *
 * inotify reports a close for the name under which the file lies at that moment, whoever opened it:
 * also for a killed process and for a static child that inherited the descriptor. A shared mapping
 * that outlives its descriptor is not reported; the lease probe knows of it.
 */
#include "blockstore/cache_dir.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

static int add_watch(struct kfs_cache *c, int fd)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/w", c->places[0].dir) >= sizeof path)
        return -ENAMETOOLONG;
    return inotify_add_watch(fd, path, IN_CLOSE_WRITE | IN_ONLYDIR) < 0 ? -errno : 0;
}

int kfs_cache_watch(struct kfs_cache *c, struct kfs_err *err)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return KFS_FAIL(err, errno, "cannot watch '%s/w': %s; raise fs.inotify.max_user_instances",
                        c->places[0].dir, strerror(errno));
    int rc = add_watch(c, fd);
    if (rc == 0)
        return fd;
    close(fd);
    return KFS_FAIL(err, -rc, "cannot watch '%s/w': %s; raise fs.inotify.max_user_watches", c->places[0].dir, strerror(-rc));
}

int kfs_cache_watch_again(struct kfs_cache *c, int fd)
{
    return add_watch(c, fd);
}

int kfs_cache_watch_next(int fd, struct kfs_cache_events *ev, kfs_ino_t *ret_ino)
{
    for (;;) {
        if (ev->at >= ev->len) {
            ssize_t n = read(fd, ev->buf, sizeof ev->buf);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0 && errno != EAGAIN)
                return -errno;
            if (n <= 0)
                return 0;
            ev->at = 0;
            ev->len = (size_t)n;
        }
        struct inotify_event e; /* the kernel hands over whole events only */
        const char *name = ev->buf + ev->at + sizeof e;
        memcpy(&e, ev->buf + ev->at, sizeof e);
        ev->at += sizeof e + e.len;
        uint64_t ino;
        if (e.mask & (IN_Q_OVERFLOW | IN_IGNORED)) {
            *ret_ino = 0;
            return 1;
        }
        if (e.len && kfs_cache_parse_hex(&name, &ino) && *name == 0) {
            *ret_ino = ino;
            return 1;
        }
    }
}
