/* blockstore/marker.c — whose store is this? Making, opening and closing a store
 *
 * Format   DIR/kfs-volume is two lines of text: "kfs-volume 1" (the format's version) and the
 *          volume id. Opening checks it, so that a store that is not mounted, or that was swapped
 *          for another one, is noticed before a single object is missed.
 */
#include "blockstore/store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directory in a store URL, or NULL: not one of ours. */
static const char *url_dir(const char *url)
{
    if (strncmp(url, "file:", 5) != 0 || url[5] != '/')
        return NULL;
    const char *dir = url + 5;
    while (dir[1] == '/')
        dir++;
    return dir;
}

static int check_args(const char *url, const char *volume_id, const char **ret_dir,
                      struct kfs_err *err)
{
    size_t len = strlen(volume_id);
    if (len == 0 || len > KFS_VOLUME_ID_MAX || strpbrk(volume_id, "\n/"))
        return KFS_FAIL(err, EINVAL,
                        "volume id '%s' is not usable; give 1 to %d characters without '/'",
                        volume_id, KFS_VOLUME_ID_MAX);
    *ret_dir = url_dir(url);
    if (!*ret_dir)
        return KFS_FAIL(err, EINVAL,
                        "store '%s' is of an unknown kind; write 'file:/absolute/directory'", url);
    return 0;
}

static int make_dirs(const char *dir, struct kfs_err *err)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s", dir) >= sizeof path)
        return KFS_FAIL(err, ENAMETOOLONG,
                        "store directory '%.200s…' is too long; choose a shorter one", dir);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char keep = *p;
        *p = 0;
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return KFS_FAIL(err, errno, "cannot create store directory '%s': %s", path,
                            strerror(errno));
        *p = keep;
        if (!keep)
            return 0;
    }
}

/* The marker's volume id into ret_id. -ENOENT: no marker. -EINVAL: not one this version can read.
 * */
static int marker_read(int dir_fd, const char *dir, char ret_id[KFS_VOLUME_ID_MAX + 1],
                       struct kfs_err *err)
{
    int fd = openat(dir_fd, KFS_STORE_MARKER, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    if (fd < 0)
        return KFS_FAIL(err, errno, "cannot read '%s/" KFS_STORE_MARKER "': %s", dir,
                        strerror(errno));
    char text[128] = {0};
    ssize_t n = kfs_blk_pread_most(fd, text, sizeof text - 1, 0);
    close(fd);
    if (n < 0)
        return KFS_FAIL(err, (int)-n, "cannot read '%s/" KFS_STORE_MARKER "': %s", dir,
                        strerror((int)-n));
    unsigned version = 0;
    char id[KFS_VOLUME_ID_MAX + 1];
    static_assert(KFS_VOLUME_ID_MAX == 39, "the width in the format below");
    if (sscanf(text, "kfs-volume %u\n%39[^\n]", &version, id) < 1 || version == 0)
        return KFS_FAIL(err, EINVAL, "'%s/" KFS_STORE_MARKER "' is damaged; restore it from a copy",
                        dir);
    if (version > KFS_STORE_MARKER_VERSION)
        return KFS_FAIL(err, EINVAL,
                        "store '%s' has format %u, this version knows up to %u; use a newer KFS",
                        dir, version, KFS_STORE_MARKER_VERSION);
    if (sscanf(text, "kfs-volume %u\n%39[^\n]", &version, id) != 2)
        return KFS_FAIL(err, EINVAL, "'%s/" KFS_STORE_MARKER "' is damaged; restore it from a copy",
                        dir);
    memcpy(ret_id, id, sizeof id);
    return 0;
}

static int marker_write(int dir_fd, const char *dir, const char *volume_id, struct kfs_err *err)
{
    static const char tmp[] = KFS_STORE_MARKER ".new";
    char text[128];
    int len =
        snprintf(text, sizeof text, "kfs-volume %u\n%s\n", KFS_STORE_MARKER_VERSION, volume_id);
    int fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = fd < 0 ? -errno : kfs_blk_pwrite_all(fd, text, (size_t)len, 0);
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (rc == 0 && renameat(dir_fd, tmp, dir_fd, KFS_STORE_MARKER) < 0)
        rc = -errno;
    if (rc == 0 && fsync(dir_fd) < 0 && errno != EINVAL)
        rc = -errno;
    if (rc < 0) {
        unlinkat(dir_fd, tmp, 0);
        return KFS_FAIL(err, -rc, "cannot write '%s/" KFS_STORE_MARKER "': %s", dir, strerror(-rc));
    }
    return 0;
}

static int format_in(int dir_fd, const char *dir, const char *volume_id, struct kfs_err *err)
{
    char id[KFS_VOLUME_ID_MAX + 1];
    int rc = marker_read(dir_fd, dir, id, err);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && strcmp(id, volume_id) != 0)
        return KFS_FAIL(err, EEXIST, "store '%s' belongs to volume '%s'; choose another directory",
                        dir, id);
    static const char *const subs[] = {"o", "tmp"};
    for (size_t i = 0; i < 2; i++)
        if (mkdirat(dir_fd, subs[i], 0700) < 0 && errno != EEXIST)
            return KFS_FAIL(err, errno, "cannot create '%s/%s': %s", dir, subs[i], strerror(errno));
    return rc == 0 ? 0 : marker_write(dir_fd, dir, volume_id, err);
}

int kfs_store_format(const char *url, const char *volume_id, struct kfs_err *err)
{
    const char *dir;
    int rc = check_args(url, volume_id, &dir, err);
    if (rc == 0)
        rc = make_dirs(dir, err);
    if (rc < 0)
        return rc;
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return KFS_FAIL(err, errno, "cannot open store directory '%s': %s", dir, strerror(errno));
    rc = format_in(dir_fd, dir, volume_id, err);
    close(dir_fd);
    return rc;
}

/* Open and check the three directories of s. */
static int open_dirs(struct kfs_store *s, struct kfs_err *err)
{
    s->dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0 && errno == ENOENT)
        return KFS_FAIL(err, ENOENT, "store '%s' does not exist; mount or restore it", s->dir);
    if (s->dir_fd < 0)
        return KFS_FAIL(err, errno, "cannot open store '%s': %s", s->dir, strerror(errno));
    char id[KFS_VOLUME_ID_MAX + 1];
    int rc = marker_read(s->dir_fd, s->dir, id, err);
    if (rc == -ENOENT)
        return KFS_FAIL(err, ENOENT,
                        "store '%s' is not there: the directory has no '" KFS_STORE_MARKER
                        "'; mount or restore it",
                        s->dir);
    if (rc < 0)
        return rc;
    if (strcmp(id, s->volume) != 0)
        return KFS_FAIL(err, EINVAL,
                        "store '%s' belongs to volume '%s', not to '%s'; mount the right one",
                        s->dir, id, s->volume);
    s->o_fd = openat(s->dir_fd, "o", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->o_fd < 0)
        return KFS_FAIL(err, errno, "cannot open '%s/o': %s; restore it from a copy", s->dir,
                        strerror(errno));
    if (mkdirat(s->dir_fd, "tmp", 0700) < 0 && errno != EEXIST && errno != EROFS)
        return KFS_FAIL(err, errno, "cannot create '%s/tmp': %s", s->dir, strerror(errno));
    s->tmp_fd = openat(s->dir_fd, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->tmp_fd < 0)
        return KFS_FAIL(err, errno, "cannot open '%s/tmp': %s; create it", s->dir, strerror(errno));
    return 0;
}

int kfs_store_open(const char *url, const char *volume_id, struct kfs_store **ret_s,
                   struct kfs_err *err)
{
    const char *dir;
    int rc = check_args(url, volume_id, &dir, err);
    if (rc < 0)
        return rc;
    struct kfs_store *s = calloc(1, sizeof *s);
    if (!s)
        return KFS_FAIL(err, ENOMEM, "open store '%s': out of memory", url);
    s->dir_fd = s->o_fd = s->tmp_fd = -1;
    kfs_blk_index_cache_init(&s->index);
    s->url = strdup(url);
    s->dir = strdup(dir);
    memcpy(s->volume, volume_id, strlen(volume_id));
    rc = s->url && s->dir ? open_dirs(s, err)
                          : KFS_FAIL(err, ENOMEM, "open store '%s': out of memory", url);
    if (rc < 0) {
        kfs_store_close(s);
        return rc;
    }
    kfs_blk_tmp_clean(s);
    *ret_s = s;
    return 0;
}

void kfs_store_close(struct kfs_store *s)
{
    if (!s)
        return;
    const int fds[] = {s->dir_fd, s->o_fd, s->tmp_fd};
    for (size_t i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    kfs_blk_index_cache_clear(&s->index);
    free(s->url);
    free(s->dir);
    free(s);
}

const char *kfs_store_url(const struct kfs_store *s)
{
    return s->url;
}
