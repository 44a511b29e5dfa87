/* blockstore/cache_file.c — opening the cache, and the moves of files between f/, w/ and t/
 */
#include "blockstore/cache_dir.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <xxhash.h>

#define TMPFS_MAGIC 0x01021994
#define RAMFS_MAGIC 0x858458f6
#define COPY_BYTES  (1u << 20)

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

/* --- open and close --------------------------------------------------------------------------- */

static void place_init(struct kfs_cache_place *p, unsigned number, uint64_t cap_bytes, uint64_t cap_files)
{
    p->number = number;
    p->dir_fd = p->f_fd = p->t_fd = p->d_fd = p->p_fd = -1;
    p->cap_bytes = cap_bytes;
    p->cap_files = cap_files;
}

static struct kfs_cache *cache_new(const char *volume_id, const struct kfs_cache_options *o)
{
    struct kfs_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    snprintf(c->volume_id, sizeof c->volume_id, "%s", volume_id);
    c->options = *o;
    c->w_fd = c->n_fd = -1;
    place_init(&c->places[0], 0, o->cap_bytes, o->cap_files);
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->live_lock, NULL);
    pthread_mutex_init(&c->memory_lock, NULL);
    pthread_mutex_init(&c->heal_lock, NULL);
    pthread_mutex_init(&c->log_lock, NULL);
    pthread_mutex_init(&c->keeper_lock, NULL);
    pthread_mutex_init(&c->dead_lock, NULL);
    pthread_cond_init(&c->keeper_wake, NULL);
    kfs_map_init(&c->kept);
    if (kfs_cache_index_init(c) < 0) {
        kfs_cache_close(c);
        return NULL;
    }
    return c;
}

int kfs_cache_open_with(const char *dir, const char *volume_id, const struct kfs_cache_options *o, struct kfs_cache **ret_c, bool *ret_rebooted,
                        struct kfs_err *err)
{
    struct kfs_cache *c = cache_new(volume_id, o);
    if (!c)
        return KFS_FAIL(err, ENOMEM, "open cache directory '%s': out of memory", dir);
    struct kfs_cache_place *p = &c->places[0];
    int rc = kfs_cache_place_open(c, p, dir, ret_rebooted, err);
    if (rc < 0) {
        kfs_cache_close(c);
        return rc;
    }
    atomic_store(&c->place_count, 1);
    struct statfs fs;
    c->on_tmpfs = fstatfs(c->w_fd, &fs) == 0 && ((unsigned long)fs.f_type == TMPFS_MAGIC ||
                                                 (unsigned long)fs.f_type == RAMFS_MAGIC);
    kfs_cache_trim(c, p, 0);
    *ret_c = c;
    return 0;
}

int kfs_cache_open(const char *dir, const char *volume_id, uint64_t cap_bytes,
                   struct kfs_cache **ret_c, bool *ret_rebooted, struct kfs_err *err)
{
    const struct kfs_cache_options o = {.cap_bytes = cap_bytes};
    return kfs_cache_open_with(dir, volume_id, &o, ret_c, ret_rebooted, err);
}

static int check_more(const struct kfs_cache *c, const char *dir, struct kfs_err *err)
{
    char all[KFS_CACHE_DIRS_MAX];
    if (dir[0] != '/' || strchr(dir, '\n'))
        return KFS_FAIL(err, EINVAL, "cache directory '%.200s' is not absolute, or has a line break in it; give a path that starts with '/'", dir);
    kfs_cache_more_dirs(c, all);
    if (atomic_load(&c->place_count) == KFS_CACHE_PLACES_MAX || strlen(all) + strlen(dir) + 2 > sizeof all)
        return KFS_FAIL(err, E2BIG, "cache directory '%.200s' is one too many; %d are possible, whose names have less than %d bytes", dir,
                        KFS_CACHE_PLACES_MAX, KFS_CACHE_DIRS_MAX);
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++)
        if (strcmp(c->places[i].dir, dir) == 0)
            return KFS_FAIL(err, EEXIST, "cache directory '%s' is there twice; remove one", dir);
    return 0;
}

int kfs_cache_add_dir(struct kfs_cache *c, const char *dir, uint64_t cap_bytes, uint64_t cap_files, struct kfs_err *err)
{
    int rc = check_more(c, dir, err);
    if (rc < 0)
        return rc;
    unsigned number = atomic_load(&c->place_count);
    struct kfs_cache_place *p = &c->places[number];
    bool rebooted = false;
    place_init(p, number, cap_bytes, cap_files);
    p->dir = strdup(dir);
    rc = p->dir ? kfs_cache_place_open(c, p, dir, &rebooted, err) : -ENOMEM;
    if (rc == 0 && (rc = check_more(c, p->dir, err)) < 0) /* the same by another name */
        kfs_cache_place_close(p);
    if (rc == -ENOMEM || rc == -EEXIST) {
        free(p->dir);
        p->dir = NULL;
        return rc;
    }
    if (rc < 0 && !kfs_cache_place_failed(c, p, rc))
        (void)kfs_cache_place_failed(c, p, -ESTALE);
    atomic_store(&c->place_count, number + 1);
    if (rc == 0)
        kfs_cache_trim(c, p, 0);
    return 0;
}

void kfs_cache_close(struct kfs_cache *c)
{
    if (!c)
        return;
    kfs_cache_stop(c);
    unsigned count = atomic_load(&c->place_count);
    for (unsigned i = 0; i < count; i++)
        if (c->places[i].dir_fd >= 0)
            kfs_cache_log_close(c, &c->places[i], !c->places[i].scan);
    kfs_cache_dead_clear(c);
    kfs_cache_partial_release(c);
    kfs_cache_memory_release(c);
    kfs_cache_live_release(c);
    kfs_cache_index_clear(c);
    for (unsigned i = 0; i < KFS_CACHE_PLACES_MAX; i++) {
        if (c->places[i].dir)
            kfs_cache_place_close(&c->places[i]);
        free(c->places[i].dir);
    }
    if (c->w_fd >= 0)
        close(c->w_fd);
    if (c->n_fd >= 0)
        close(c->n_fd);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->live_lock);
    pthread_mutex_destroy(&c->memory_lock);
    pthread_mutex_destroy(&c->heal_lock);
    pthread_mutex_destroy(&c->log_lock);
    pthread_mutex_destroy(&c->keeper_lock);
    pthread_mutex_destroy(&c->dead_lock);
    pthread_cond_destroy(&c->keeper_wake);
    free(c);
}

const char *kfs_cache_dir(const struct kfs_cache *c)
{
    return c->places[0].dir;
}

int kfs_cache_dir_fd(const struct kfs_cache *c)
{
    return c->places[0].dir_fd;
}

void kfs_cache_more_dirs(const struct kfs_cache *c, char *buf)
{
    size_t n = 0;
    buf[0] = 0;
    for (unsigned i = 1; i < atomic_load(&c->place_count); i++)
        n += (size_t)snprintf(buf + n, KFS_CACHE_DIRS_MAX - n, "%s\n", c->places[i].dir);
}

bool kfs_cache_on_tmpfs(const struct kfs_cache *c)
{
    return c->on_tmpfs;
}

/* --- files ------------------------------------------------------------------------------------ */

/* f/XX is made when it is first needed. */
static int make_clean_dir(const struct kfs_cache_place *p, kfs_ino_t ino)
{
    char sub[4];
    snprintf(sub, sizeof sub, "%02x", (unsigned)(ino & 255));
    return mkdirat(p->f_fd, sub, 0700) < 0 && errno != EEXIST ? -errno : 0;
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
static int move_to_clean(struct kfs_cache *c, struct kfs_cache_place *p, int from_fd, const char *from, kfs_ino_t ino,
                         uint64_t version)
{
    char to[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(to, ino, version);
    int rc = rename_once(from_fd, from, p->f_fd, to, true);
    if (rc == -ENOENT) {
        rc = make_clean_dir(p, ino);
        if (rc == 0)
            rc = rename_once(from_fd, from, p->f_fd, to, true);
    }
    if (rc == 0)
        kfs_cache_index_add(c, p, ino, version);
    return rc;
}

static int create_once(struct kfs_cache_place *p, int at, const char *name)
{
    char point[32];
    snprintf(point, sizeof point, "cache.create.%u", p->number);
    int rc = KFS_FAULT_ERR(point);
    if (rc < 0)
        return rc;
    int fd = openat(at, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

int kfs_cache_file_create(struct kfs_cache *c, struct kfs_cache_place *p, const int *at, const char *name)
{
    int fd = create_once(p, *at, name);
    if (fd == -ENOENT && kfs_cache_place_gone(c, p) && kfs_cache_place_heal(c, p, NULL) > 0)
        fd = create_once(p, *at, name);
    /* A full disk: a part of what can be fetched again goes, and more if that is not enough. */
    for (uint64_t bytes = 1 << 20, files = 1; (fd == -ENOSPC || fd == -EDQUOT) && files; bytes *= 4) {
        kfs_cache_evict_place(c, p, bytes, &files);
        fd = create_once(p, *at, name);
    }
    if (fd < 0) {
        (void)kfs_cache_place_failed(c, p, fd);
        return fd;
    }
    if (fchmod(fd, 0600) < 0) { /* whatever the umask took */
        int rc = -errno;
        unlinkat(*at, name, 0);
        close(fd);
        return rc;
    }
    return fd;
}

int kfs_cache_file_hash(int fd, uint64_t ret[2])
{
    kfs_auto_free char *buf = malloc(COPY_BYTES);
    XXH3_state_t *x = XXH3_createState();
    int rc = buf && x && XXH3_128bits_reset(x) == XXH_OK ? 0 : -ENOMEM;
    ssize_t n = 0;
    for (off_t at = 0; rc == 0 && (n = pread(fd, buf, COPY_BYTES, at)) > 0; at += n)
        (void)XXH3_128bits_update(x, buf, (size_t)n);
    if (rc == 0 && n < 0)
        rc = -errno;
    if (rc == 0) {
        XXH128_hash_t h = XXH3_128bits_digest(x);
        ret[0] = h.low64;
        ret[1] = h.high64;
    }
    XXH3_freeState(x);
    return rc;
}

/* Data of one stretch; holes stay. */
static int copy_data(int from, int to, off_t at, off_t end, char *buf)
{
    while (at < end) {
        size_t want = end - at < (off_t)COPY_BYTES ? (size_t)(end - at) : COPY_BYTES;
        ssize_t n = pread(from, buf, want, at);
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = pwrite(to, buf + done, (size_t)(n - done), at + done)) < 0)
                return -errno;
        at += n;
    }
    return 0;
}

static int copy_file(int from, int to)
{
    struct stat st;
    kfs_auto_free char *buf = malloc(COPY_BYTES);
    if (!buf || fstat(from, &st) < 0)
        return buf ? -errno : -ENOMEM;
    if (ftruncate(to, st.st_size) < 0 || fchmod(to, st.st_mode & 0700) < 0)
        // cppcheck-suppress memleak ; kfs_auto_free
        return -errno;
    for (off_t at = 0; at < st.st_size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? 0 : copy_data(from, to, at, st.st_size, buf);
        off_t hole = lseek(from, data, SEEK_HOLE);
        int rc = copy_data(from, to, data, hole < 0 ? st.st_size : hole, buf);
        if (rc < 0)
            return rc;
        at = hole < 0 ? st.st_size : hole;
    }
    return 0;
}

static void temp_name(struct kfs_cache *c, kfs_ino_t ino, char *buf)
{
    snprintf(buf, KFS_CACHE_NAME_MAX, "%" PRIx64 ".%" PRIu64, ino, __atomic_add_fetch(&c->counter, 1, __ATOMIC_RELAXED));
}

int kfs_cache_file_copy_live(struct kfs_cache *c, int from_fd, kfs_ino_t ino)
{
    struct kfs_cache_place *home = &c->places[0];
    char temp[KFS_CACHE_NAME_MAX];
    struct stat st;
    temp_name(c, ino, temp);
    kfs_auto_fd int fd = kfs_cache_file_create(c, home, &home->t_fd, temp);
    if (fd < 0)
        return fd;
    int rc = copy_file(from_fd, fd);
    if (rc == 0 && fstat(from_fd, &st) == 0)
        (void)futimens(fd, (struct timespec[2]){st.st_atim, st.st_mtim});
    if (rc == 0)
        rc = kfs_cache_file_publish(c, home, home->t_fd, temp, ino, 0, true);
    if (rc < 0)
        unlinkat(home->t_fd, temp, 0);
    return rc;
}

int kfs_cache_file_publish(struct kfs_cache *c, struct kfs_cache_place *p, int from_fd, const char *from, kfs_ino_t ino,
                           uint64_t version, bool live)
{
    char to[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(to, ino);
    int rc;
    if (!live) {
        rc = move_to_clean(c, p, from_fd, from, ino, version);
    } else if (p == &c->places[0]) {
        rc = rename_once(from_fd, from, c->w_fd, to, false);
        if (rc == 0)
            kfs_cache_live_keep(c, ino);
    } else {
        kfs_auto_fd int fd = openat(from_fd, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        rc = fd < 0 ? -errno : kfs_cache_file_copy_live(c, fd, ino);
        if (rc == 0)
            unlinkat(from_fd, from, 0);
    }
    if (rc < 0)
        (void)kfs_cache_place_failed(c, p, rc);
    else
        kfs_cache_memory_drop(c, ino);
    return rc;
}

/* --- clean files ------------------------------------------------------------------------------ */

static int open_in(struct kfs_cache *c, unsigned place, kfs_ino_t ino, uint64_t version, int flags)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(name, ino, version);
    int fd = openat(c->places[place].f_fd, name, flags | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

/* Is the content of an earlier session what it was? What is not, goes. */
static bool check_old(struct kfs_cache *c, const struct kfs_cache_entry *e)
{
    struct kfs_cache_place *p = &c->places[e->place];
    kfs_auto_fd int fd = open_in(c, e->place, e->ino, e->version, O_RDONLY);
    uint64_t hash[2];
    bool hashed = e->flags & KFS_CACHE_HASHED;
    int rc = fd < 0 ? fd : hashed ? kfs_cache_file_hash(fd, hash) : -ENODATA;
    bool right = rc == 0 && memcmp(hash, e->hash, sizeof hash) == 0;
    pthread_mutex_lock(&c->lock);
    if (hashed && fd >= 0) {
        c->stats.checked_files++;
        c->stats.wrong_files += !right;
        p->distrust = p->distrust || !right;
    }
    pthread_mutex_unlock(&c->lock);
    if (right) {
        kfs_cache_index_checked(c, e->ino, e->version);
        return true;
    }
    if (hashed && fd >= 0)
        kfs_log(KFS_LOG_WARN, "cache directory '%s': the content of inode %" PRIx64 " is not what it was (%s): %s", p->dir, e->ino,
                rc < 0 ? strerror(-rc) : "another hash",
                c->options.verify == KFS_CACHE_VERIFY_SAMPLED ? "it is fetched again, and so is all that an earlier session left there" : "it is fetched again");
    (void)kfs_cache_drop_clean(c, e->ino, e->version);
    return false;
}

/* The place where (ino, version) lies and may be used; -ENOENT. */
static int usable_place(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, bool touch, bool *ret_sure)
{
    struct kfs_cache_entry check = {0};
    int at = kfs_cache_index_find(c, ino, version, touch, ret_sure, &check);
    if (at < 0 || check.ino == 0)
        return at;
    return check_old(c, &check) ? at : -ENOENT;
}

/* Not in the index, which does not know everything yet. */
static int open_unknown(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags)
{
    if (c->options.verify == KFS_CACHE_VERIFY_FULL)
        return -ENOENT; /* there is no hash of it */
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++) {
        int fd = c->places[i].f_fd < 0 ? -ENOENT : open_in(c, i, ino, version, flags);
        if (fd < 0 && fd != -EINVAL)
            continue;
        kfs_cache_index_add(c, &c->places[i], ino, version);
        return fd;
    }
    return -ENOENT;
}

int kfs_cache_open_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags)
{
    bool sure = false;
    int at = usable_place(c, ino, version, true, &sure);
    int fd = at >= 0 ? open_in(c, (unsigned)at, ino, version, flags) : -ENOENT;
    if (at >= 0 && (fd == -ENOENT || fd == -EIO || fd == -ESTALE)) { /* somebody removed it, or it cannot be read any more */
        kfs_cache_index_remove(c, ino, version);
        fd = -ENOENT;
        sure = true;
    }
    if (fd == -ENOENT && !sure)
        fd = open_unknown(c, ino, version, flags);
    if (fd == -ENOENT)
        fd = kfs_cache_memory_open(c, ino, version, flags);
    return fd;
}

bool kfs_cache_find_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, uint64_t *ret_st_ino, unsigned *ret_dir)
{
    char name[KFS_CACHE_NAME_MAX];
    struct kfs_cache_entry check = {0};
    struct stat st;
    bool sure;
    int at = kfs_cache_index_find(c, ino, version, false, &sure, &check);
    if (at < 0 || check.ino)
        return false;
    kfs_cache_name_clean(name, ino, version);
    if (fstatat(c->places[at].f_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT)
            kfs_cache_index_remove(c, ino, version);
        return false;
    }
    *ret_st_ino = st.st_ino;
    *ret_dir = (unsigned)at;
    return true;
}

int kfs_cache_path_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, char *buf, size_t cap)
{
    char name[KFS_CACHE_NAME_MAX];
    bool sure;
    int at = kfs_cache_index_find(c, ino, version, false, &sure, NULL);
    if (at < 0)
        return at;
    kfs_cache_name_clean(name, ino, version);
    snprintf(buf, cap, "%s/f/%s", c->places[at].dir, name);
    return 0;
}

int kfs_cache_drop_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    bool sure;
    int at = kfs_cache_index_find(c, ino, version, false, &sure, NULL);
    kfs_cache_memory_drop(c, ino);
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++)
        if (at == (int)i || !sure)
            kfs_cache_unlink_clean(c, i, ino, version);
    kfs_cache_index_remove(c, ino, version);
    return 0;
}

/* --- filling ---------------------------------------------------------------------------------- */

static int fill_in(struct kfs_cache *c, unsigned place, const char *temp, char *ret_name)
{
    struct kfs_cache_place *p = &c->places[place];
    int fd = kfs_cache_file_create(c, p, &p->t_fd, temp);
    if (fd >= 0)
        snprintf(ret_name, KFS_CACHE_NAME_MAX, "%u:%s", place, temp);
    return fd;
}

/* The name has the bytes that are reserved, and a descriptor: the caller's is closed before the end. */
static int fill_in_memory(struct kfs_cache *c, kfs_ino_t ino, uint64_t bytes, char *ret_name)
{
    int fd = kfs_cache_memory_new(c, ino, bytes);
    int own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own >= 0) {
        snprintf(ret_name, KFS_CACHE_NAME_MAX, "m:%" PRIu64 ":%d", bytes, own);
        return fd;
    }
    int rc = fd < 0 ? fd : -errno;
    if (fd >= 0) {
        kfs_cache_memory_give_back(c, bytes);
        close(fd);
    }
    return rc;
}

static int memory_fill_over(struct kfs_cache *c, const char *name)
{
    int own = -1;
    uint64_t bytes = 0;
    if (sscanf(name, "m:%" SCNu64 ":%d", &bytes, &own) == 2)
        kfs_cache_memory_give_back(c, bytes);
    return own;
}

int kfs_cache_fill_begin(struct kfs_cache *c, kfs_ino_t ino, uint64_t bytes, bool live, char *ret_name, int *ret_fd,
                         struct kfs_err *err)
{
    char temp[KFS_CACHE_NAME_MAX - 16];
    unsigned tried = 0;
    int fd = -EIO, at;
    snprintf(temp, sizeof temp, "%" PRIx64 ".%" PRIu64, ino, __atomic_add_fetch(&c->counter, 1, __ATOMIC_RELAXED));
    if (live) {
        fd = fill_in(c, 0, temp, ret_name);
    } else {
        kfs_cache_missed(c);
        for (; (at = kfs_cache_place_choose(c, ino, bytes, tried)) >= 0; tried |= 1u << at)
            if ((fd = fill_in(c, (unsigned)at, temp, ret_name)) >= 0 || fd == -EMFILE || fd == -ENFILE)
                break;
        if (at < 0) {
            int why = fd, error = c->places[0].error;
            fd = fill_in_memory(c, ino, bytes, ret_name);
            if (fd < 0)
                fd = why != -EIO ? why : error ? -error : fd;
        }
    }
    if (fd < 0)
        return KFS_FAIL(err, -fd, "cannot create '%s/t/%s': %s%s", c->places[0].dir, temp, strerror(-fd),
                        fd == -ENOSPC ? "; make room where the cache directory lies" : "");
    *ret_fd = fd;
    return 0;
}

/* "PLACE:NAME"; NULL: in memory. */
static struct kfs_cache_place *fill_place(struct kfs_cache *c, const char *name, const char **ret_temp)
{
    *ret_temp = name + 2;
    return name[0] >= '0' && name[0] < '0' + KFS_CACHE_PLACES_MAX && name[1] == ':' ? &c->places[name[0] - '0'] : NULL;
}

int kfs_cache_fill_end(struct kfs_cache *c, const char *name, kfs_ino_t ino, uint64_t version,
                       bool live, struct kfs_err *err)
{
    const char *temp;
    struct kfs_cache_place *p = fill_place(c, name, &temp);
    KFS_FAULT("cache.fill.end");
    if (!p) {
        kfs_auto_fd int fd = memory_fill_over(c, name);
        int rc = fd < 0 ? -EBADF : live ? kfs_cache_file_copy_live(c, fd, ino) : kfs_cache_memory_add(c, ino, version, fd);
        return rc < 0 ? KFS_FAIL(err, -rc, "inode %" PRIx64 " cannot be kept in memory: %s", ino, strerror(-rc)) : 0;
    }
    int rc = kfs_cache_file_publish(c, p, p->t_fd, temp, ino, version, live);
    if (rc == -EEXIST)
        return KFS_FAIL(err, EEXIST, "'%s/w/%" PRIx64 "' is there already: it is not overwritten", p->dir, ino);
    return rc < 0 ? KFS_FAIL(err, -rc, "cannot move '%s/t/%s' to its place: %s", p->dir, temp,
                             strerror(-rc))
                  : 0;
}

void kfs_cache_fill_abort(struct kfs_cache *c, const char *name)
{
    const char *temp;
    struct kfs_cache_place *p = fill_place(c, name, &temp);
    kfs_auto_fd int fd = p ? -1 : memory_fill_over(c, name);
    if (p)
        unlinkat(p->t_fd, temp, 0);
}

bool kfs_cache_fill_suspect(struct kfs_cache *c, const char *name, int rc)
{
    const char *temp;
    struct kfs_cache_place *p = fill_place(c, name, &temp);
    return p && kfs_cache_place_suspect(c, p, rc);
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

