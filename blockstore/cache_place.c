/* blockstore/cache_place.c — cache directories: claiming one, its health, making it anew
 *
 * CACHE is flock'ed by the one process that uses it. Anything in the directory that does not look
 * like ours is left alone; a directory that has something in it but no `id` is refused, because t/
 * and d/ are about to be emptied.
 *
 * Health   A failed operation says what is wrong (kfs_cache_place_failed): no new content goes there, and that is logged once. Every few seconds a probe
 *          looks at the directory, writes a block through to the disk, reads it back and unlinks it; when that works again, the directory is used again.
 *          Reading what is in there goes on in any state, each file on its own merits.
 * Anew     A directory that was removed is made again, and dup'ed onto the descriptors of the old one: whoever is in the middle of something works in
 *          the one or in the other, and finds nothing in the worst case.
 */
#include "blockstore/cache_dir.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/pure/hash.h"
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
#include <time.h>
#include <unistd.h>

#define ID_LINE_MAX    127
#define PROBE_EVERY_NS 3000000000ULL
#define PROBE_BYTES    4096u
#define FREE_MIN_BYTES (16ULL << 20) /* on the disk of a directory that was full, before it is used again; or a sixteenth */

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
    for (char *q = path + 1;; q++) {
        if (*q && *q != '/')
            continue;
        char keep = *q;
        *q = 0;
        if (mkdir(path, 0700) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            return KFS_FAIL(err, errno,
                            "cannot create cache directory '%s': %s; choose another one", path,
                            strerror(errno));
        *q = keep;
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
int kfs_cache_empty_dir(int fd, int depth)
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
            rc = kfs_cache_empty_dir(sub, depth - 1);
        if (sub >= 0 && rc == 0 && unlinkat(fd, e->d_name, AT_REMOVEDIR) < 0)
            rc = -errno;
    }
    closedir(d);
    return rc;
}

static int open_sub(struct kfs_cache_place *p, const char *name, int *ret_fd, struct kfs_err *err)
{
    if (mkdirat(p->dir_fd, name, 0700) < 0 && errno != EEXIST)
        return KFS_FAIL(err, errno, "cannot create '%s/%s': %s", p->dir, name, strerror(errno));
    *ret_fd = openat(p->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (*ret_fd < 0)
        return KFS_FAIL(err, errno, "cannot open '%s/%s': %s; remove it", p->dir, name,
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

static int id_write(struct kfs_cache_place *p, const char *volume_id, const char *boot,
                    struct kfs_err *err)
{
    kfs_auto_fd int fd =
        openat(p->dir_fd, "id.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = fd < 0 || dprintf(fd, "%s\n%s\n", volume_id, boot) < 0 || fsync(fd) < 0 ? -errno : 0;
    if (rc == 0 && renameat(p->dir_fd, "id.new", p->dir_fd, "id") < 0)
        rc = -errno;
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot write '%s/id': %s", p->dir, strerror(-rc)) : 0;
}

/* 1: read, *ret_boot filled. 0: there is none. */
static int id_check(struct kfs_cache_place *p, const char *volume_id, char ret_boot[ID_LINE_MAX + 1],
                    struct kfs_err *err)
{
    kfs_auto_fd int fd = openat(p->dir_fd, "id", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return 0;
    char text[2 * ID_LINE_MAX + 2] = {0}, id[ID_LINE_MAX + 1];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        return KFS_FAIL(err, errno, "cannot read '%s/id': %s", p->dir, strerror(errno));
    static_assert(ID_LINE_MAX == 127, "the widths in the format below");
    if (sscanf(text, "%127[^\n]\n%127[^\n]", id, ret_boot) != 2)
        return KFS_FAIL(err, EINVAL,
                        "'%s/id' is damaged; save what lies in '%s/w', then remove the directory",
                        p->dir, p->dir);
    if (strcmp(id, volume_id) != 0)
        return KFS_FAIL(err, EINVAL,
                        "cache directory '%s' belongs to volume '%s'; choose another one", p->dir,
                        id);
    return 1;
}

/* Owner and mode. An empty directory is ours to set right; one in use with other bits is a mistake
 * that a human made. */
static int check_access(struct kfs_cache_place *p, struct kfs_err *err)
{
    struct stat st;
    if (fstat(p->dir_fd, &st) < 0)
        return KFS_FAIL(err, errno, "cannot look at cache directory '%s': %s", p->dir,
                        strerror(errno));
    if (st.st_uid != geteuid())
        return KFS_FAIL(
            err, EACCES,
            "cache directory '%s' belongs to uid %u, not to us (uid %u); choose another one",
            p->dir, (unsigned)st.st_uid, (unsigned)geteuid());
    if ((st.st_mode & 0700) != 0700)
        return KFS_FAIL(
            err, EACCES,
            "cache directory '%s' is not readable and writable (mode %04o); run 'chmod 700' on it",
            p->dir, (unsigned)(st.st_mode & 07777));
    if (!(st.st_mode & 077))
        return 0;
    if (!dir_is_empty(p->dir_fd))
        return KFS_FAIL(err, EACCES,
                        "cache directory '%s' is open to others (mode %04o); run 'chmod 700' on it",
                        p->dir, (unsigned)(st.st_mode & 07777));
    if (fchmod(p->dir_fd, 0700) < 0)
        return KFS_FAIL(err, errno, "cannot set the mode of cache directory '%s': %s", p->dir,
                        strerror(errno));
    return 0;
}

/* Names in /proc/self/fd are what the shim compares with, so ours must be the kernel's spelling. */
static int canonical_dir(struct kfs_cache_place *p, const char *dir, struct kfs_err *err)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", p->dir_fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n > 0)
        path[n] = 0;
    else if (!realpath(dir, path))
        return KFS_FAIL(err, errno, "cannot resolve cache directory '%s': %s", dir,
                        strerror(errno));
    char *copy = strdup(path);
    if (!copy)
        return KFS_FAIL(err, ENOMEM, "open cache directory '%s': out of memory", dir);
    free(p->dir);
    p->dir = copy;
    return 0;
}

/* A predecessor that was killed gives up its descriptors one by one, this one perhaps after the
 * volume's lock: wait a moment before complaining. */
static int lock_dir(struct kfs_cache_place *p, struct kfs_err *err)
{
    for (int i = 0; flock(p->dir_fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return 0; /* no locks on this file system: the volume's lock has to do */
        if (i == 100)
            return KFS_FAIL(err, EBUSY,
                            "cache directory '%s' is in use by another kfsd; choose another one",
                            p->dir);
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    return 0;
}

static int claim(struct kfs_cache_place *p, const char *dir, struct kfs_err *err)
{
    p->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->dir_fd < 0)
        return KFS_FAIL(err, errno, "cannot open cache directory '%s': %s; choose another one", dir,
                        strerror(errno));
    int rc = canonical_dir(p, dir, err);
    if (rc == 0)
        rc = check_access(p, err);
    if (rc < 0)
        return rc;
    return lock_dir(p, err);
}

/* --- reboot ----------------------------------------------------------------------------------- */

/* w/INO -> lost/INO-SECONDS[.N], never over something that is there. */
static int lose_one(int w_fd, int lost_fd, const char *name, long long now)
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
        return renameat(w_fd, name, lost_fd, to) < 0 ? -errno : 0;
    }
    return -EEXIST;
}

static int lose_live(struct kfs_cache_place *p, int w_fd, struct kfs_err *err)
{
    kfs_auto_fd int lost_fd = -1;
    int rc = open_sub(p, "lost", &lost_fd, err);
    if (rc < 0)
        return rc;
    DIR *d = dir_stream(w_fd, ".");
    if (!d)
        return KFS_FAIL(err, errno, "cannot list '%s/w': %s", p->dir, strerror(errno));
    for (struct dirent *e; rc == 0 && (e = readdir(d));)
        if (!is_dots(e->d_name))
            rc = lose_one(w_fd, lost_fd, e->d_name, (long long)time(NULL));
    closedir(d);
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot move a file from '%s/w' to '%s/lost': %s", p->dir,
                             p->dir, strerror(-rc))
                  : 0;
}

/* --- open and close --------------------------------------------------------------------------- */

/* What an existing directory may refuse without being useless: content in it can still be read. */
static bool is_weakness(int rc)
{
    return rc == -EROFS || rc == -ENOSPC || rc == -EDQUOT || rc == -EIO;
}

static int empty_sub(struct kfs_cache *c, struct kfs_cache_place *p, int fd, const char *name, struct kfs_err *err)
{
    int rc = kfs_cache_empty_dir(fd, 2);
    if (is_weakness(rc)) {
        (void)kfs_cache_place_failed(c, p, rc);
        return 0;
    }
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot empty '%s/%s': %s", p->dir, name, strerror(-rc)) : 0;
}

/* f/ goes: under another name at once, in the background in truth. */
static int drop_clean(struct kfs_cache *c, struct kfs_cache_place *p, struct kfs_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "old.%lld.%d", (long long)time(NULL), (int)getpid());
    if (renameat(p->dir_fd, "f", p->dir_fd, name) < 0)
        return empty_sub(c, p, p->f_fd, "f", err);
    int fd = -1, rc = open_sub(p, "f", &fd, err);
    if (rc < 0)
        return rc;
    rc = dup3(fd, p->f_fd, O_CLOEXEC) < 0 ? -errno : 0;
    close(fd);
    (void)unlinkat(p->dir_fd, "index", 0);
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot open '%s/f': %s", p->dir, strerror(-rc)) : 0;
}

static bool is_home(const struct kfs_cache *c, const struct kfs_cache_place *p)
{
    return p == &c->places[0];
}

static int open_subs(struct kfs_cache *c, struct kfs_cache_place *p, struct kfs_err *err)
{
    struct {
        const char *name;
        int *fd;
    } subs[] = {{"f", &p->f_fd}, {"t", &p->t_fd}, {"d", &p->d_fd}, {"p", &p->p_fd}, {"w", &c->w_fd}, {"n", &c->n_fd}};
    size_t count = is_home(c, p) ? 6 : 4;
    for (size_t i = 0; i < count; i++) {
        int rc = open_sub(p, subs[i].name, subs[i].fd, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int after_reboot(struct kfs_cache *c, struct kfs_cache_place *p, struct kfs_err *err)
{
    int rc = is_home(c, p) ? lose_live(p, c->w_fd, err) : 0;
    if (rc == 0 && c->options.verify != KFS_CACHE_VERIFY_FULL)
        rc = drop_clean(c, p, err);
    if (rc == 0 && is_home(c, p))
        rc = empty_sub(c, p, c->n_fd, "n", err);
    return rc < 0 ? rc : empty_sub(c, p, p->p_fd, "p", err);
}

static int open_all(struct kfs_cache *c, struct kfs_cache_place *p, const char *dir, bool *ret_rebooted, struct kfs_err *err)
{
    char boot[ID_LINE_MAX + 1], old_boot[ID_LINE_MAX + 1];
    int rc = make_parents(dir, err);
    if (rc == 0)
        rc = claim(p, dir, err);
    if (rc < 0)
        return rc;
    unlinkat(p->dir_fd, "id.new", 0);
    int known = id_check(p, c->volume_id, old_boot, err);
    if (known < 0)
        return known;
    if (!known && !dir_is_empty(p->dir_fd))
        return KFS_FAIL(
            err, EINVAL,
            "'%s' is not empty and not a cache directory of KFS; choose an empty or new one",
            p->dir);
    read_boot_id(boot, sizeof boot);
    /* The id comes first: a directory that has anything of ours in it has an id. */
    if (!known && (rc = id_write(p, c->volume_id, boot, err)) < 0)
        return rc;
    if ((rc = open_subs(c, p, err)) < 0 || (rc = empty_sub(c, p, p->t_fd, "t", err)) < 0 ||
        (rc = empty_sub(c, p, p->d_fd, "d", err)) < 0)
        return rc;
    bool rebooted = known && strcmp(boot, old_boot) != 0;
    /* The new boot id is written last: interrupted, all of this is done again. */
    if (rebooted && ((rc = after_reboot(c, p, err)) < 0 || (rc = id_write(p, c->volume_id, boot, err)) < 0))
        return rc;
    rc = kfs_cache_log_open(c, p, known && c->options.verify == KFS_CACHE_VERIFY_NONE);
    p->scan = rc == 0 && known;
    *ret_rebooted = rebooted;
    return rc < 0 ? KFS_FAIL(err, -rc, "open cache directory '%s': %s", dir, strerror(-rc)) : 0;
}

int kfs_cache_place_open(struct kfs_cache *c, struct kfs_cache_place *p, const char *dir, bool *ret_rebooted, struct kfs_err *err)
{
    int rc = open_all(c, p, dir, ret_rebooted, err);
    if (rc < 0)
        kfs_cache_place_close(p);
    return rc;
}

void kfs_cache_place_close(struct kfs_cache_place *p)
{
    int *const fds[] = {&p->f_fd, &p->t_fd, &p->d_fd, &p->p_fd, &p->dir_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

/* --- health ----------------------------------------------------------------------------------- */

const char *kfs_cache_health_word(enum kfs_cache_health h)
{
    static const char *const words[] = {"ok", "full", "read-only", "failing", "gone"};
    return words[h];
}

/* What rc says about the directory it came from; OK: nothing. */
static enum kfs_cache_health diagnose(const struct kfs_cache *c, const struct kfs_cache_place *p, int rc)
{
    switch (-rc) {
    case ENOSPC:
    case EDQUOT: return KFS_CACHE_FULL;
    case EROFS:
    case EACCES:
    case EPERM: return KFS_CACHE_READONLY;
    case EIO:
    case ENXIO:
    case ENODEV:
    case ESHUTDOWN:
    case ETIMEDOUT:
    case EUCLEAN:
    case ENOTCONN: return KFS_CACHE_FAILING;
    case ESTALE: return KFS_CACHE_GONE;
    case ENOENT: return kfs_cache_place_gone(c, p) ? KFS_CACHE_GONE : KFS_CACHE_OK;
    default: return KFS_CACHE_OK;
    }
}

static bool any_ok(struct kfs_cache *c)
{
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++)
        if (kfs_cache_place_ok(&c->places[i]))
            return true;
    return false;
}

bool kfs_cache_place_failed(struct kfs_cache *c, struct kfs_cache_place *p, int rc)
{
    enum kfs_cache_health h = diagnose(c, p, rc);
    if (h == KFS_CACHE_OK)
        return false;
    pthread_mutex_lock(&c->lock);
    bool first = atomic_load(&p->health) == KFS_CACHE_OK;
    p->error = -rc;
    p->probe_ns = kfs_clock_mono_ns() + PROBE_EVERY_NS;
    atomic_store_explicit(&p->health, h, memory_order_release);
    pthread_mutex_unlock(&c->lock);
    if (first)
        kfs_log(KFS_LOG_WARN, "cache directory '%s' is %s (%s): it gets no new content until that is better%s", p->dir, kfs_cache_health_word(h),
                strerror(-rc), any_ok(c) ? "" : "; no other one is left: what is read lies in memory, and nothing can be written");
    return true;
}

static void recovered(struct kfs_cache *c, struct kfs_cache_place *p)
{
    pthread_mutex_lock(&c->lock);
    p->error = 0;
    atomic_store_explicit(&p->health, KFS_CACHE_OK, memory_order_release);
    pthread_mutex_unlock(&c->lock);
    kfs_log(KFS_LOG_INFO, "cache directory '%s' is used again", p->dir);
}

static bool is_link_gone(const char *dir, int dir_fd)
{
    struct stat here, there;
    if (fstat(dir_fd, &here) < 0)
        return false;
    if (stat(dir, &there) < 0)
        return errno == ENOENT || errno == ENOTDIR;
    return here.st_dev != there.st_dev || here.st_ino != there.st_ino;
}

bool kfs_cache_place_gone(const struct kfs_cache *c, const struct kfs_cache_place *p)
{
    const int fds[] = {p->f_fd, p->t_fd, p->d_fd, p->p_fd, is_home(c, p) ? c->w_fd : p->f_fd, is_home(c, p) ? c->n_fd : p->f_fd};
    struct stat st;
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fstat(fds[i], &st) == 0 && st.st_nlink == 0)
            return true;
    return is_link_gone(p->dir, p->dir_fd);
}

bool kfs_cache_gone(const struct kfs_cache *c)
{
    return kfs_cache_place_gone(c, &c->places[0]);
}

/* Write through to the disk and read back. */
static int try_write(struct kfs_cache *c, struct kfs_cache_place *p)
{
    unsigned char out[PROBE_BYTES], in[PROBE_BYTES];
    struct statvfs fs;
    (void)c;
    if (fstatvfs(p->t_fd, &fs) < 0)
        return -errno;
    uint64_t total = (uint64_t)fs.f_blocks * fs.f_frsize, avail = (uint64_t)fs.f_bavail * fs.f_frsize;
    bool was_full = atomic_load(&p->health) == KFS_CACHE_FULL;
    if (was_full && avail < (total / 16 < FREE_MIN_BYTES ? total / 16 : FREE_MIN_BYTES))
        return -ENOSPC;
    memset(out, 0x5a, sizeof out);
    unlinkat(p->t_fd, "probe", 0);
    kfs_auto_fd int fd = openat(p->t_fd, "probe", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = pwrite(fd, out, sizeof out, 0);
    int rc = n < 0 ? -errno : n != (ssize_t)sizeof out ? -ENOSPC : fdatasync(fd) < 0 ? -errno : 0;
    if (rc == 0 && (pread(fd, in, sizeof in, 0) != (ssize_t)sizeof in || memcmp(in, out, sizeof in) != 0))
        rc = -EIO;
    if (unlinkat(p->t_fd, "probe", 0) < 0 && rc == 0)
        rc = -errno;
    return rc;
}

bool kfs_cache_place_suspect(struct kfs_cache *c, struct kfs_cache_place *p, int rc)
{
    uint64_t files = 0;
    if (diagnose(c, p, rc) == KFS_CACHE_OK)
        return false;
    if (rc == -ENOSPC || rc == -EDQUOT)
        (void)kfs_cache_evict_place(c, p, FREE_MIN_BYTES * 4, &files);
    if (files)
        return true; /* there may be room now */
    int seen = rc == -ENOSPC || rc == -EDQUOT ? rc : try_write(c, p);
    return seen < 0 && kfs_cache_place_failed(c, p, seen);
}

/* --- a directory made anew -------------------------------------------------------------------- */

static void take_over(int *old, int *new)
{
    if (*new < 0)
        return;
    if (*old < 0) {
        *old = *new;
    } else {
        (void)dup3(*new, *old, O_CLOEXEC);
        close(*new);
    }
    *new = -1;
}

static int renew(struct kfs_cache *c, struct kfs_cache_place *p, struct kfs_err *err)
{
    char boot[ID_LINE_MAX + 1], old_boot[ID_LINE_MAX + 1];
    bool home = is_home(c, p);
    struct kfs_cache_place n = {.dir = strdup(p->dir), .number = p->number, .dir_fd = -1, .f_fd = -1, .t_fd = -1, .d_fd = -1, .p_fd = -1};
    int w_fd = -1, n_fd = -1;
    int rc = n.dir ? make_parents(p->dir, err) : -ENOMEM;
    bool moved = is_link_gone(p->dir, p->dir_fd); /* else something below it is missing, and it is ours */
    if (rc == 0 && moved)
        rc = claim(&n, p->dir, err);
    else if (rc == 0 && (n.dir_fd = fcntl(p->dir_fd, F_DUPFD_CLOEXEC, 0)) < 0)
        rc = -errno;
    if (rc == 0 && strcmp(n.dir, p->dir) != 0)
        rc = KFS_FAIL(err, ENOENT, "cache directory '%s' is '%s' now; start kfsd anew", p->dir, n.dir);
    int known = rc < 0 ? rc : id_check(&n, c->volume_id, old_boot, err);
    read_boot_id(boot, sizeof boot);
    if (known == 0)
        rc = dir_is_empty(n.dir_fd) ? id_write(&n, c->volume_id, boot, err)
                                    : KFS_FAIL(err, EINVAL, "'%s' is not empty and not a cache directory of KFS; move it away", p->dir);
    else if (known < 0)
        rc = known;
    struct {
        const char *name;
        int *fd;
    } subs[] = {{"f", &n.f_fd}, {"t", &n.t_fd}, {"d", &n.d_fd}, {"p", &n.p_fd}, {"w", &w_fd}, {"n", &n_fd}};
    for (size_t i = 0; rc == 0 && i < (home ? 6u : 4u); i++)
        rc = open_sub(&n, subs[i].name, subs[i].fd, err);
    if (rc == 0) {
        kfs_cache_log_close(c, p, false);
        kfs_cache_index_drop_place(c, p);
        take_over(&p->dir_fd, &n.dir_fd);
        take_over(&p->f_fd, &n.f_fd);
        take_over(&p->t_fd, &n.t_fd);
        take_over(&p->d_fd, &n.d_fd);
        take_over(&p->p_fd, &n.p_fd);
        if (home) {
            take_over(&c->w_fd, &w_fd);
            take_over(&c->n_fd, &n_fd);
        }
        int complete = kfs_cache_log_open(c, p, false);
        pthread_mutex_lock(&c->lock);
        p->scan = complete == 0;
        pthread_mutex_unlock(&c->lock);
    }
    kfs_cache_place_close(&n);
    if (w_fd >= 0)
        close(w_fd);
    if (n_fd >= 0)
        close(n_fd);
    free(n.dir);
    return rc;
}

/* 1: made anew, or somebody else has just done so. */
int kfs_cache_place_heal(struct kfs_cache *c, struct kfs_cache_place *p, struct kfs_err *err)
{
    pthread_mutex_lock(&c->heal_lock);
    bool gone = kfs_cache_place_gone(c, p);
    int rc = gone ? renew(c, p, err) : 0;
    if (gone && rc == 0 && is_home(c, p))
        c->heals++;
    pthread_mutex_unlock(&c->heal_lock);
    if (rc < 0 && !kfs_cache_place_failed(c, p, rc))
        (void)kfs_cache_place_failed(c, p, -ESTALE);
    if (rc < 0)
        return rc;
    if (gone)
        kfs_log(KFS_LOG_WARN, "cache directory '%s' was removed; it is made anew", p->dir);
    return 1;
}

int kfs_cache_heal(struct kfs_cache *c, struct kfs_err *err)
{
    struct kfs_cache_place *p = &c->places[0];
    if (kfs_cache_place_gone(c, p)) {
        int rc = kfs_cache_place_heal(c, p, err);
        if (rc < 0)
            return rc;
    }
    pthread_mutex_lock(&c->heal_lock);
    bool news = c->heals != c->heals_told;
    c->heals_told = c->heals;
    pthread_mutex_unlock(&c->heal_lock);
    if (news && !kfs_cache_place_ok(p))
        recovered(c, p);
    return news;
}

/* One of the directories beyond the first that could not be opened so far. */
static int open_late(struct kfs_cache *c, struct kfs_cache_place *p)
{
    bool rebooted;
    struct kfs_err err = {0};
    char *dir = strdup(p->dir);
    int rc = dir ? kfs_cache_place_open(c, p, dir, &rebooted, &err) : -ENOMEM;
    free(dir);
    return rc;
}

void kfs_cache_place_probe(struct kfs_cache *c, struct kfs_cache_place *p)
{
    uint64_t now = kfs_clock_mono_ns();
    bool home = is_home(c, p);
    if (kfs_cache_place_ok(p)) {
        /* Nothing may fail for long in one that nobody writes to. */
        if (!home && kfs_cache_place_gone(c, p))
            (void)kfs_cache_place_failed(c, p, -ESTALE);
        return;
    }
    pthread_mutex_lock(&c->lock);
    bool due = now >= p->probe_ns;
    if (due)
        p->probe_ns = now + PROBE_EVERY_NS;
    pthread_mutex_unlock(&c->lock);
    if (!due)
        return;
    struct kfs_err err = {0};
    int rc = p->dir_fd < 0 ? open_late(c, p) : 0;
    if (rc == 0 && home)
        rc = kfs_cache_gone(c) ? -ESTALE : 0; /* kfs_cache_heal is its owner's business: there are live files to see after */
    else if (rc == 0 && kfs_cache_place_gone(c, p))
        rc = kfs_cache_place_heal(c, p, &err) < 0 ? -ESTALE : 0;
    if (rc == 0)
        rc = try_write(c, p);
    if (rc == 0)
        recovered(c, p);
}

/* --- where new content goes ------------------------------------------------------------------- */

struct room {
    uint64_t cap, left; /* bytes */
    bool fits;
};

static struct room room_locked(const struct kfs_cache_place *p, uint64_t bytes)
{
    struct statvfs fs;
    uint64_t used = p->used_bytes + p->partial_bytes, avail = UINT64_MAX;
    struct room r = {.cap = p->cap_bytes};
    if (fstatvfs(p->f_fd, &fs) == 0) {
        avail = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (!r.cap || r.cap > used + avail)
            r.cap = used + avail;
    }
    r.left = r.cap > used ? r.cap - used : 0;
    r.fits = r.left >= bytes && (!p->cap_files || p->files < p->cap_files);
    return r;
}

/* The one with most room, as long as somewhere is some; then by a hash weighted with the caps, so that evictions are spread. */
int kfs_cache_place_choose(struct kfs_cache *c, kfs_ino_t ino, uint64_t bytes, unsigned tried)
{
    struct room rooms[KFS_CACHE_PLACES_MAX] = {0};
    unsigned count = atomic_load(&c->place_count), usable = 0;
    uint64_t sum = 0;
    int only = -1, best = -1;
    for (unsigned i = 0; i < count; i++)
        if (!(tried >> i & 1) && kfs_cache_place_ok(&c->places[i])) {
            usable |= 1u << i;
            only = only < 0 ? (int)i : only;
        }
    if (only < 0 || usable == 1u << only)
        return only;
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < count; i++) {
        if (!(usable >> i & 1))
            continue;
        rooms[i] = room_locked(&c->places[i], bytes);
        sum += rooms[i].cap >> 20;
        if (rooms[i].fits && (best < 0 || rooms[i].left > rooms[best].left))
            best = (int)i;
    }
    pthread_mutex_unlock(&c->lock);
    if (best >= 0)
        return best;
    uint64_t at = sum ? kfs_hash_u64(ino) % sum : 0;
    for (unsigned i = 0; i < count; i++) {
        if (!(usable >> i & 1))
            continue;
        if (at < rooms[i].cap >> 20)
            return (int)i;
        at -= rooms[i].cap >> 20;
    }
    return only;
}
