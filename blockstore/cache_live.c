/* blockstore/cache_live.c — w/: the live files
 *
 * Kept     For each live file a descriptor (O_PATH: no user of the file, no writer, seen by no probe) is kept. Should somebody remove w/ or a file in it,
 *          the content is still reached through it, is committed from it, and is lost only if kfsd ends before. As many as half of the descriptors that
 *          the process may have.
 */
#include "blockstore/cache_dir.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* --- kept descriptors ------------------------------------------------------------------------- */

static void *fd_box(int fd)
{
    return (void *)(uintptr_t)((unsigned)fd + 1);
}

static int fd_unbox(const void *box)
{
    return (int)(uintptr_t)box - 1;
}

static unsigned kept_max(void)
{
    struct rlimit r;
    return getrlimit(RLIMIT_NOFILE, &r) < 0 ? 256 : r.rlim_cur > 1u << 20 ? 1u << 19 : (unsigned)(r.rlim_cur / 2);
}

void kfs_cache_live_keep(struct kfs_cache *c, kfs_ino_t ino)
{
    char name[KFS_CACHE_NAME_MAX];
    void *old = NULL;
    kfs_cache_name_ino(name, ino);
    int fd = openat(c->w_fd, name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    pthread_mutex_lock(&c->live_lock);
    if (!c->kept_max)
        c->kept_max = kept_max();
    bool put = c->kept.count < c->kept_max && kfs_map_put(&c->kept, ino, fd_box(fd), &old) == 0;
    pthread_mutex_unlock(&c->live_lock);
    if (!put)
        close(fd);
    if (old)
        close(fd_unbox(old));
}

bool kfs_cache_live_forget(struct kfs_cache *c, kfs_ino_t ino)
{
    pthread_mutex_lock(&c->live_lock);
    void *box = kfs_map_remove(&c->kept, ino);
    pthread_mutex_unlock(&c->live_lock);
    if (box)
        close(fd_unbox(box));
    return box != NULL;
}

void kfs_cache_live_release(struct kfs_cache *c)
{
    void *box;
    size_t cursor = 0;
    while ((box = kfs_map_next(&c->kept, &cursor, NULL)))
        close(fd_unbox(box));
    kfs_map_release(&c->kept);
}

/* Another descriptor of the same file, which may have no name. */
static int open_kept(struct kfs_cache *c, kfs_ino_t ino, int flags)
{
    char path[64];
    pthread_mutex_lock(&c->live_lock);
    void *box = kfs_map_get(&c->kept, ino);
    int fd = -1, rc = -ENOENT;
    if (box) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd_unbox(box));
        fd = open(path, (flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL)) | O_CLOEXEC);
        rc = fd < 0 ? -errno : fd;
    }
    pthread_mutex_unlock(&c->live_lock);
    return rc;
}

/* --- files ------------------------------------------------------------------------------------ */

int kfs_cache_open_live(struct kfs_cache *c, kfs_ino_t ino, int flags)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    int fd = openat(c->w_fd, name, flags | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0)
        return fd;
    return errno == ENOENT ? open_kept(c, ino, flags) : -errno;
}

int kfs_cache_stat_live(struct kfs_cache *c, kfs_ino_t ino, struct stat *ret)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    if (fstatat(c->w_fd, name, ret, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    if (errno != ENOENT)
        return -errno;
    kfs_auto_fd int fd = open_kept(c, ino, O_PATH);
    return fd < 0 ? fd : fstat(fd, ret) < 0 ? -errno : 0;
}

int kfs_cache_times_live(struct kfs_cache *c, kfs_ino_t ino, const struct timespec times[2])
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    if (utimensat(c->w_fd, name, times, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    if (errno != ENOENT)
        return -errno;
    kfs_auto_fd int fd = open_kept(c, ino, O_RDONLY);
    return fd < 0 ? fd : futimens(fd, times) < 0 ? -errno : 0;
}

/* Writers fill their file without us, so nobody can make room for them in the moment when the disk is full: clean files
 * go while at least this much (or an eighth of a small disk) is not free. */
#define ROOM_BYTES (64ULL << 20)

static void make_room(struct kfs_cache *c)
{
    struct statvfs fs;
    if (fstatvfs(c->w_fd, &fs) < 0)
        return;
    uint64_t total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t room_bytes = total_bytes / 8 < ROOM_BYTES ? total_bytes / 8 : ROOM_BYTES;
    if (free_bytes >= room_bytes)
        return;
    (void)kfs_cache_evict_place(c, &c->places[0], 2 * room_bytes, NULL);
}

int kfs_cache_create_live(struct kfs_cache *c, kfs_ino_t ino, int *ret_fd, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    int fd = kfs_cache_file_create(c, &c->places[0], &c->w_fd, name);
    if (fd < 0)
        return KFS_FAIL(err, -fd, "cannot create '%s/w/%s': %s%s", c->places[0].dir, name, strerror(-fd),
                        fd == -ENOSPC ? "; make room where the cache directory lies" : "");
    kfs_cache_live_keep(c, ino);
    make_room(c);
    *ret_fd = fd;
    return 0;
}

int kfs_cache_to_live(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    char from[KFS_CACHE_NAME_MAX];
    struct stat st;
    /* An open like any other: it is checked, found while the index does not know it yet, and noticed if it has gone. */
    kfs_auto_fd int fd = kfs_cache_open_clean(c, ino, version, O_RDONLY);
    if (fd < 0)
        return fd;
    bool sure;
    int at = kfs_cache_index_find(c, ino, version, false, &sure, NULL);
    if (at < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0) { /* in memory */
        int rc = kfs_cache_file_copy_live(c, fd, ino);
        return rc == -ENOENT ? -EIO : rc;
    }
    kfs_cache_name_clean(from, ino, version);
    int rc = kfs_cache_file_publish(c, &c->places[at], c->places[at].f_fd, from, ino, version, true);
    if (rc == 0) {
        kfs_cache_index_remove(c, ino, version);
        make_room(c);
    }
    return rc;
}

int kfs_cache_to_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    char from[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(from, ino);
    KFS_FAULT("cache.to_clean");
    int rc = kfs_cache_file_publish(c, &c->places[0], c->w_fd, from, ino, version, false);
    bool kept = (rc == 0 || rc == -ENOENT) && kfs_cache_live_forget(c, ino);
    return rc == -ENOENT && kept ? 0 : rc; /* it had lost its name: committed, and not cached */
}

int kfs_cache_drop_live(struct kfs_cache *c, kfs_ino_t ino)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    int rc = unlinkat(c->w_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
    if (rc == 0)
        (void)kfs_cache_live_forget(c, ino);
    return rc;
}

static DIR *fdopendir_at(int at)
{
    int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        close(fd);
    return d;
}

int kfs_cache_each_live(struct kfs_cache *c, kfs_cache_each_cb cb, void *arg, struct kfs_err *err)
{
    DIR *d = fdopendir_at(c->w_fd);
    if (!d)
        return KFS_FAIL(err, errno, "cannot list '%s/w': %s", c->places[0].dir, strerror(errno));
    int rc = 0;
    while (rc == 0) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e) {
            rc =
                errno ? KFS_FAIL(err, errno, "cannot list '%s/w': %s", c->places[0].dir, strerror(errno)) : 0;
            break;
        }
        const char *p = e->d_name;
        uint64_t ino;
        if (!kfs_cache_parse_hex(&p, &ino) || *p)
            continue;
        kfs_cache_live_keep(c, ino);
        rc = cb(arg, ino);
    }
    closedir(d);
    return rc;
}
