/* blockstore/cache_file.c — the cache directory: opening it, and the moves of files between f/, w/
 * and t/
 *
 * CACHE is flock'ed by the one process that uses it. Anything in the directory that does not look
 * like ours is left alone; a directory that has something in it but no `id` is refused, because t/
 * and d/ are about to be emptied.
 */
#include "blockstore/cache_dir.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define TMPFS_MAGIC 0x01021994
#define RAMFS_MAGIC 0x858458f6
#define ID_LINE_MAX 127

/* --- names ------------------------------------------------------------------------------------ */

void kfs_cache_name_clean(char *buf, kfs_ino_t ino, uint64_t version)
{
    snprintf(buf, KFS_CACHE_NAME_MAX, "%02x/%" PRIx64 "-%" PRIx64, (unsigned)(ino & 255), ino,
             version);
}

void kfs_cache_name_ino(char *buf, kfs_ino_t ino)
{
    snprintf(buf, KFS_CACHE_NAME_MAX, "%" PRIx64, ino);
}

bool kfs_cache_parse_hex(const char **s, uint64_t *ret)
{
    const char *p = *s;
    uint64_t v = 0;
    if (*p == '0')
        return false;
    for (; p - *s < 16; p++) {
        if (*p >= '0' && *p <= '9')
            v = v << 4 | (uint64_t)(*p - '0');
        else if (*p >= 'a' && *p <= 'f')
            v = v << 4 | (uint64_t)(*p - 'a' + 10);
        else
            break;
    }
    *s = p;
    *ret = v;
    return v != 0;
}

bool kfs_cache_parse_version(const char *s, uint64_t *ret)
{
    if (s[0] == '0' && s[1] == 0) {
        *ret = 0;
        return true;
    }
    return kfs_cache_parse_hex(&s, ret) && *s == 0;
}

/* --- directories ------------------------------------------------------------------------------ */

static int make_parents(const char *dir, struct kfs_err *err)
{
    char path[PATH_MAX];
    if (dir[0] != '/')
        return KFS_FAIL(
            err, EINVAL,
            "cache directory '%.200s' is not absolute; give a path that starts with '/'", dir);
    if ((size_t)snprintf(path, sizeof path, "%s", dir) >= sizeof path)
        return KFS_FAIL(err, ENAMETOOLONG,
                        "cache directory '%.200s…' is too long; choose a shorter one", dir);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char keep = *p;
        *p = 0;
        if (mkdir(path, 0700) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            return KFS_FAIL(err, errno,
                            "cannot create cache directory '%s': %s; choose another one", path,
                            strerror(errno));
        *p = keep;
        if (!keep)
            return 0;
    }
}

static DIR *dir_stream(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        close(fd);
    return d;
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

static bool dir_is_empty(int fd)
{
    DIR *d = dir_stream(fd, ".");
    bool empty = d != NULL;
    for (struct dirent *e; empty && (e = readdir(d));)
        empty = is_dots(e->d_name);
    if (d)
        closedir(d);
    return empty;
}

/* Remove everything below directory fd; depth bounds the recursion: the cache's own trees have two
 * levels. */
static int empty_dir(int fd, int depth)
{
    DIR *d = dir_stream(fd, ".");
    if (!d)
        return -errno;
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        if (is_dots(e->d_name) || unlinkat(fd, e->d_name, 0) == 0 || errno == ENOENT)
            continue;
        rc = -errno;
        kfs_auto_fd int sub =
            depth > 0 ? openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
        if (sub >= 0)
            rc = empty_dir(sub, depth - 1);
        if (sub >= 0 && rc == 0 && unlinkat(fd, e->d_name, AT_REMOVEDIR) < 0)
            rc = -errno;
    }
    closedir(d);
    return rc;
}

static int open_sub(struct kfs_cache *c, const char *name, int *ret_fd, struct kfs_err *err)
{
    if (mkdirat(c->dir_fd, name, 0700) < 0 && errno != EEXIST)
        return KFS_FAIL(err, errno, "cannot create '%s/%s': %s", c->dir, name, strerror(errno));
    *ret_fd = openat(c->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (*ret_fd < 0)
        return KFS_FAIL(err, errno, "cannot open '%s/%s': %s; remove it", c->dir, name,
                        strerror(errno));
    return 0;
}

/* --- whose cache is it? ----------------------------------------------------------------------- */

/* The kernel's name of this boot; "none" where /proc is missing, which then counts as the same boot
 * as before. */
static void read_boot_id(char *buf, size_t cap)
{
    kfs_auto_fd int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, cap - 1);
    buf[n > 0 ? n : 0] = 0;
    buf[strcspn(buf, "\n")] = 0;
    if (!buf[0])
        snprintf(buf, cap, "none");
}

static int id_write(struct kfs_cache *c, const char *volume_id, const char *boot,
                    struct kfs_err *err)
{
    kfs_auto_fd int fd =
        openat(c->dir_fd, "id.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = fd < 0 || dprintf(fd, "%s\n%s\n", volume_id, boot) < 0 || fsync(fd) < 0 ? -errno : 0;
    if (rc == 0 && renameat(c->dir_fd, "id.new", c->dir_fd, "id") < 0)
        rc = -errno;
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot write '%s/id': %s", c->dir, strerror(-rc)) : 0;
}

/* 1: read, *ret_boot filled. 0: there is none. */
static int id_check(struct kfs_cache *c, const char *volume_id, char ret_boot[ID_LINE_MAX + 1],
                    struct kfs_err *err)
{
    kfs_auto_fd int fd = openat(c->dir_fd, "id", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return 0;
    char text[2 * ID_LINE_MAX + 2] = {0}, id[ID_LINE_MAX + 1];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        return KFS_FAIL(err, errno, "cannot read '%s/id': %s", c->dir, strerror(errno));
    static_assert(ID_LINE_MAX == 127, "the widths in the format below");
    if (sscanf(text, "%127[^\n]\n%127[^\n]", id, ret_boot) != 2)
        return KFS_FAIL(err, EINVAL,
                        "'%s/id' is damaged; save what lies in '%s/w', then remove the directory",
                        c->dir, c->dir);
    if (strcmp(id, volume_id) != 0)
        return KFS_FAIL(err, EINVAL,
                        "cache directory '%s' belongs to volume '%s'; choose another one", c->dir,
                        id);
    return 1;
}

/* Owner and mode. An empty directory is ours to set right; one in use with other bits is a mistake
 * that a human made. */
static int check_access(struct kfs_cache *c, struct kfs_err *err)
{
    struct stat st;
    if (fstat(c->dir_fd, &st) < 0)
        return KFS_FAIL(err, errno, "cannot look at cache directory '%s': %s", c->dir,
                        strerror(errno));
    if (st.st_uid != geteuid())
        return KFS_FAIL(
            err, EACCES,
            "cache directory '%s' belongs to uid %u, not to us (uid %u); choose another one",
            c->dir, (unsigned)st.st_uid, (unsigned)geteuid());
    if ((st.st_mode & 0700) != 0700)
        return KFS_FAIL(
            err, EACCES,
            "cache directory '%s' is not readable and writable (mode %04o); run 'chmod 700' on it",
            c->dir, (unsigned)(st.st_mode & 07777));
    if (!(st.st_mode & 077))
        return 0;
    if (!dir_is_empty(c->dir_fd))
        return KFS_FAIL(err, EACCES,
                        "cache directory '%s' is open to others (mode %04o); run 'chmod 700' on it",
                        c->dir, (unsigned)(st.st_mode & 07777));
    if (fchmod(c->dir_fd, 0700) < 0)
        return KFS_FAIL(err, errno, "cannot set the mode of cache directory '%s': %s", c->dir,
                        strerror(errno));
    return 0;
}

/* Names in /proc/self/fd are what the shim compares with, so ours must be the kernel's spelling. */
static int canonical_dir(struct kfs_cache *c, const char *dir, struct kfs_err *err)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", c->dir_fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n > 0)
        path[n] = 0;
    else if (!realpath(dir, path))
        return KFS_FAIL(err, errno, "cannot resolve cache directory '%s': %s", dir,
                        strerror(errno));
    char *copy = strdup(path);
    if (!copy)
        return KFS_FAIL(err, ENOMEM, "open cache directory '%s': out of memory", dir);
    free(c->dir);
    c->dir = copy;
    return 0;
}

/* A predecessor that was killed gives up its descriptors one by one, this one perhaps after the
 * volume's lock: wait a moment before complaining. */
static int lock_dir(struct kfs_cache *c, struct kfs_err *err)
{
    for (int i = 0; flock(c->dir_fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return 0; /* no locks on this file system: the volume's lock has to do */
        if (i == 100)
            return KFS_FAIL(err, EBUSY,
                            "cache directory '%s' is in use by another kfsd; choose another one",
                            c->dir);
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    return 0;
}

static int claim(struct kfs_cache *c, const char *dir, struct kfs_err *err)
{
    c->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->dir_fd < 0)
        return KFS_FAIL(err, errno, "cannot open cache directory '%s': %s; choose another one", dir,
                        strerror(errno));
    int rc = canonical_dir(c, dir, err);
    if (rc == 0)
        rc = check_access(c, err);
    if (rc < 0)
        return rc;
    return lock_dir(c, err);
}

/* --- reboot ----------------------------------------------------------------------------------- */

/* w/INO -> lost/INO-SECONDS[.N], never over something that is there. */
static int lose_one(struct kfs_cache *c, int lost_fd, const char *name, long long now)
{
    char to[512];
    for (int i = 0; i < 1000; i++) {
        if (i)
            snprintf(to, sizeof to, "%s-%lld.%d", name, now, i);
        else
            snprintf(to, sizeof to, "%s-%lld", name, now);
        struct stat st;
        if (fstatat(lost_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
            continue; /* the directory is flock'ed: nobody makes the name between look and rename */
        return renameat(c->w_fd, name, lost_fd, to) < 0 ? -errno : 0;
    }
    return -EEXIST;
}

static int lose_live(struct kfs_cache *c, struct kfs_err *err)
{
    kfs_auto_fd int lost_fd = -1;
    int rc = open_sub(c, "lost", &lost_fd, err);
    if (rc < 0)
        return rc;
    DIR *d = dir_stream(c->w_fd, ".");
    if (!d)
        return KFS_FAIL(err, errno, "cannot list '%s/w': %s", c->dir, strerror(errno));
    for (struct dirent *e; rc == 0 && (e = readdir(d));)
        if (!is_dots(e->d_name))
            rc = lose_one(c, lost_fd, e->d_name, (long long)time(NULL));
    closedir(d);
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot move a file from '%s/w' to '%s/lost': %s", c->dir,
                             c->dir, strerror(-rc))
                  : 0;
}

/* --- open and close --------------------------------------------------------------------------- */

static int empty_sub(struct kfs_cache *c, int fd, const char *name, struct kfs_err *err)
{
    int rc = empty_dir(fd, 2);
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot empty '%s/%s': %s", c->dir, name, strerror(-rc)) : 0;
}

static int open_all(struct kfs_cache *c, const char *dir, const char *volume_id, bool *ret_rebooted,
                    struct kfs_err *err)
{
    char boot[ID_LINE_MAX + 1], old_boot[ID_LINE_MAX + 1];
    int rc = make_parents(dir, err);
    if (rc == 0)
        rc = claim(c, dir, err);
    if (rc < 0)
        return rc;
    unlinkat(c->dir_fd, "id.new", 0);
    int known = id_check(c, volume_id, old_boot, err);
    if (known < 0)
        return known;
    if (!known && !dir_is_empty(c->dir_fd))
        return KFS_FAIL(
            err, EINVAL,
            "'%s' is not empty and not a cache directory of KFS; choose an empty or new one",
            c->dir);
    read_boot_id(boot, sizeof boot);
    /* The id comes first: a directory that has anything of ours in it has an id. */
    if (!known && (rc = id_write(c, volume_id, boot, err)) < 0)
        return rc;
    struct {
        const char *name;
        int *fd;
    } subs[] = {{"f", &c->f_fd}, {"w", &c->w_fd}, {"t", &c->t_fd}, {"d", &c->d_fd}, {"n", &c->n_fd}, {"p", &c->p_fd}};
    for (size_t i = 0; i < sizeof subs / sizeof *subs; i++)
        if ((rc = open_sub(c, subs[i].name, subs[i].fd, err)) < 0)
            return rc;
    if ((rc = empty_sub(c, c->t_fd, "t", err)) < 0 || (rc = empty_sub(c, c->d_fd, "d", err)) < 0)
        return rc;
    bool rebooted = known && strcmp(boot, old_boot) != 0;
    if (rebooted) {
        /* The new boot id is written last: interrupted, all of this is done again. */
        if ((rc = lose_live(c, err)) < 0 || (rc = empty_sub(c, c->f_fd, "f", err)) < 0 ||
            (rc = empty_sub(c, c->n_fd, "n", err)) < 0 || (rc = empty_sub(c, c->p_fd, "p", err)) < 0 ||
            (rc = id_write(c, volume_id, boot, err)) < 0)
            return rc;
    }
    struct statfs fs;
    c->on_tmpfs = fstatfs(c->w_fd, &fs) == 0 && ((unsigned long)fs.f_type == TMPFS_MAGIC ||
                                                 (unsigned long)fs.f_type == RAMFS_MAGIC);
    rc = kfs_cache_index_scan(c, err);
    if (rc == 0)
        *ret_rebooted = rebooted;
    return rc;
}

int kfs_cache_open(const char *dir, const char *volume_id, uint64_t cap_bytes,
                   struct kfs_cache **ret_c, bool *ret_rebooted, struct kfs_err *err)
{
    struct kfs_cache *c = calloc(1, sizeof *c);
    if (!c)
        return KFS_FAIL(err, ENOMEM, "open cache directory '%s': out of memory", dir);
    c->dir_fd = c->f_fd = c->w_fd = c->t_fd = c->d_fd = c->n_fd = c->p_fd = -1;
    c->cap_bytes = cap_bytes;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->dead_lock, NULL);
    int rc = kfs_cache_index_init(c);
    if (rc < 0)
        rc = KFS_FAIL(err, -rc, "open cache directory '%s': out of memory", dir);
    else
        rc = open_all(c, dir, volume_id, ret_rebooted, err);
    if (rc < 0) {
        kfs_cache_close(c);
        return rc;
    }
    *ret_c = c;
    return 0;
}

void kfs_cache_close(struct kfs_cache *c)
{
    if (!c)
        return;
    kfs_cache_dead_clear(c);
    kfs_cache_partial_release(c);
    kfs_cache_index_clear(c);
    const int fds[] = {c->f_fd, c->w_fd, c->t_fd, c->d_fd, c->n_fd, c->p_fd, c->dir_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->dead_lock);
    free(c->dir);
    free(c);
}

const char *kfs_cache_dir(const struct kfs_cache *c)
{
    return c->dir;
}

bool kfs_cache_on_tmpfs(const struct kfs_cache *c)
{
    return c->on_tmpfs;
}

bool kfs_cache_gone(const struct kfs_cache *c)
{
    const int fds[] = {c->f_fd, c->w_fd, c->t_fd, c->d_fd, c->n_fd, c->p_fd};
    struct stat here, there;
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fstat(fds[i], &here) == 0 && here.st_nlink == 0)
            return true;
    if (fstat(c->dir_fd, &here) < 0)
        return false;
    if (stat(c->dir, &there) < 0)
        return errno == ENOENT || errno == ENOTDIR;
    return here.st_dev != there.st_dev || here.st_ino != there.st_ino;
}

/* --- files ------------------------------------------------------------------------------------ */

/* f/XX is made when it is first needed. */
static int make_clean_dir(struct kfs_cache *c, kfs_ino_t ino)
{
    char sub[4];
    snprintf(sub, sizeof sub, "%02x", (unsigned)(ino & 255));
    return mkdirat(c->f_fd, sub, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int rename_once(int from_fd, const char *from, int to_fd, const char *to, bool replace)
{
    if (renameat2(from_fd, from, to_fd, to, replace ? 0 : RENAME_NOREPLACE) == 0)
        return 0;
    if (replace || errno != EINVAL)
        return -errno;
    /* A file system without RENAME_NOREPLACE: the process has the directory for itself, so looking
     * first is enough. */
    struct stat st;
    if (fstatat(to_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return renameat(from_fd, from, to_fd, to) < 0 ? -errno : 0;
}

/* Into f/, and into the index. */
static int move_to_clean(struct kfs_cache *c, int from_fd, const char *from, kfs_ino_t ino,
                         uint64_t version)
{
    char to[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(to, ino, version);
    int rc = rename_once(from_fd, from, c->f_fd, to, true);
    if (rc == -ENOENT) {
        rc = make_clean_dir(c, ino);
        if (rc == 0)
            rc = rename_once(from_fd, from, c->f_fd, to, true);
    }
    if (rc == 0)
        kfs_cache_index_add(c, ino, version);
    return rc;
}

/* openat that, where the disk is full, unlinks what the cache can fetch again and tries once more.
 * */
int kfs_cache_file_create(struct kfs_cache *c, int at, const char *name)
{
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(at, name, flags, 0600);
    if (fd < 0 && (errno == ENOSPC || errno == EDQUOT)) {
        kfs_cache_evict(c, 0);
        fd = openat(at, name, flags, 0600);
    }
    if (fd < 0)
        return -errno;
    if (fchmod(fd, 0600) < 0) { /* whatever the umask took */
        int rc = -errno;
        unlinkat(at, name, 0);
        close(fd);
        return rc;
    }
    return fd;
}

int kfs_cache_file_publish(struct kfs_cache *c, int from_fd, const char *from, kfs_ino_t ino,
                           uint64_t version, bool live)
{
    char to[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(to, ino);
    return live ? rename_once(from_fd, from, c->w_fd, to, false)
                : move_to_clean(c, from_fd, from, ino, version);
}

int kfs_cache_open_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(name, ino, version);
    int fd = openat(c->f_fd, name, flags | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    kfs_cache_touch(c, ino);
    return fd;
}

int kfs_cache_open_live(struct kfs_cache *c, kfs_ino_t ino, int flags)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    int fd = openat(c->w_fd, name, flags | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

int kfs_cache_fill_begin(struct kfs_cache *c, kfs_ino_t ino, char *ret_name, int *ret_fd,
                         struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    snprintf(name, sizeof name, "%" PRIx64 ".%" PRIu64, ino,
             __atomic_add_fetch(&c->counter, 1, __ATOMIC_RELAXED));
    int fd = kfs_cache_file_create(c, c->t_fd, name);
    if (fd < 0)
        return KFS_FAIL(err, -fd, "cannot create '%s/t/%s': %s%s", c->dir, name, strerror(-fd),
                        fd == -ENOSPC ? "; make room where the cache directory lies" : "");
    memcpy(ret_name, name, sizeof name);
    *ret_fd = fd;
    return 0;
}

int kfs_cache_fill_end(struct kfs_cache *c, const char *name, kfs_ino_t ino, uint64_t version,
                       bool live, struct kfs_err *err)
{
    char to[KFS_CACHE_NAME_MAX];
    KFS_FAULT("cache.fill.end");
    kfs_cache_name_ino(to, ino);
    int rc = kfs_cache_file_publish(c, c->t_fd, name, ino, version, live);
    if (rc == -EEXIST)
        return KFS_FAIL(err, EEXIST, "'%s/w/%s' is there already: it is not overwritten", c->dir,
                        to);
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot move '%s/t/%s' to its place: %s", c->dir, name,
                             strerror(-rc))
                  : 0;
}

void kfs_cache_fill_abort(struct kfs_cache *c, const char *name)
{
    unlinkat(c->t_fd, name, 0);
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
    uint64_t used_bytes = kfs_cache_used_bytes(c);
    if (used_bytes > 0)
        (void)kfs_cache_evict(c, used_bytes > 2 * room_bytes ? used_bytes - 2 * room_bytes : 0);
}

int kfs_cache_create_live(struct kfs_cache *c, kfs_ino_t ino, int *ret_fd, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    int fd = kfs_cache_file_create(c, c->w_fd, name);
    if (fd < 0)
        return KFS_FAIL(err, -fd, "cannot create '%s/w/%s': %s%s", c->dir, name, strerror(-fd),
                        fd == -ENOSPC ? "; make room where the cache directory lies" : "");
    make_room(c);
    *ret_fd = fd;
    return 0;
}

int kfs_cache_to_live(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    char from[KFS_CACHE_NAME_MAX], to[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(from, ino, version);
    kfs_cache_name_ino(to, ino);
    int rc = rename_once(c->f_fd, from, c->w_fd, to, false);
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
    return move_to_clean(c, c->w_fd, from, ino, version);
}

int kfs_cache_drop_live(struct kfs_cache *c, kfs_ino_t ino)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    return unlinkat(c->w_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int kfs_cache_drop_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(name, ino, version);
    if (unlinkat(c->f_fd, name, 0) < 0 && errno != ENOENT)
        return -errno;
    kfs_cache_index_remove(c, ino, version);
    return 0;
}

int kfs_cache_set_exec(int fd, uint32_t inode_mode)
{
    mode_t want = inode_mode & 0111 ? 0711 : 0600;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((st.st_mode & 07777) == want)
        return 0; /* a chmod would move ctime, by which a clean file is known */
    return fchmod(fd, want) < 0 ? -errno : 0;
}

int kfs_cache_each_live(struct kfs_cache *c, kfs_cache_each_cb cb, void *arg, struct kfs_err *err)
{
    DIR *d = dir_stream(c->w_fd, ".");
    if (!d)
        return KFS_FAIL(err, errno, "cannot list '%s/w': %s", c->dir, strerror(errno));
    int rc = 0;
    while (rc == 0) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e) {
            rc =
                errno ? KFS_FAIL(err, errno, "cannot list '%s/w': %s", c->dir, strerror(errno)) : 0;
            break;
        }
        const char *p = e->d_name;
        uint64_t ino;
        if (kfs_cache_parse_hex(&p, &ino) && *p == 0)
            rc = cb(arg, ino);
    }
    closedir(d);
    return rc;
}
