#include "tools/kfsd/arrive.h"
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN_TRIES 64
#define BACKOFF_MS_MAX 30000

/* ---- the table ------------------------------------------------------------------------------------------------------ */

struct kfsd_file *kfsd_file_get(struct kfsd_vol *v, kfs_ino_t ino)
{
    pthread_mutex_lock(&v->table);
    struct kfsd_file *f = kfs_map_get(&v->files, ino);
    if (!f && (f = calloc(1, sizeof *f))) {
        f->ino = ino;
        pthread_mutex_init(&f->lock, NULL);
        if (kfs_map_put(&v->files, ino, f, NULL) < 0) {
            pthread_mutex_destroy(&f->lock);
            free(f);
            f = NULL;
        }
    }
    if (f)
        f->refs++;
    pthread_mutex_unlock(&v->table);
    return f;
}

void kfsd_file_put(struct kfsd_vol *v, struct kfsd_file *f)
{
    if (!f)
        return;
    pthread_mutex_lock(&v->table);
    if (--f->refs == 0 && !__atomic_load_n(&f->live, __ATOMIC_ACQUIRE) && !f->orphan) {
        kfs_map_remove(&v->files, f->ino);
        pthread_mutex_destroy(&f->lock);
        free(f);
    }
    pthread_mutex_unlock(&v->table);
}

bool kfsd_file_is_live(struct kfsd_vol *v, kfs_ino_t ino)
{
    pthread_mutex_lock(&v->table);
    struct kfsd_file *f = kfs_map_get(&v->files, ino);
    bool live = f && __atomic_load_n(&f->live, __ATOMIC_ACQUIRE);
    pthread_mutex_unlock(&v->table);
    return live;
}

struct kfsd_file **kfsd_file_all(struct kfsd_vol *v, size_t *ret_count)
{
    *ret_count = 0;
    pthread_mutex_lock(&v->table);
    struct kfsd_file **all = malloc((v->files.count + 1) * sizeof *all), *f;
    size_t cursor = 0;
    while (all && (f = kfs_map_next(&v->files, &cursor, NULL))) {
        f->refs++;
        all[(*ret_count)++] = f;
    }
    pthread_mutex_unlock(&v->table);
    return all;
}

static void queue_locked(struct kfsd_vol *v, struct kfsd_file *f)
{
    if (f->queued)
        return;
    f->queued = true;
    f->refs++;
    f->next = NULL;
    *v->queue_last = f;
    v->queue_last = &f->next;
    pthread_cond_signal(&v->work);
}

void kfsd_settle_later(struct kfsd_vol *v, kfs_ino_t ino)
{
    pthread_mutex_lock(&v->table);
    struct kfsd_file *f = kfs_map_get(&v->files, ino);
    if (f)
        queue_locked(v, f);
    pthread_mutex_unlock(&v->table);
}

/* pub held. */
static void set_live(struct kfsd_vol *v, struct kfsd_file *f, bool live)
{
    if (f->live == live)
        return;
    __atomic_store_n(&f->live, live, __ATOMIC_RELEASE);
    if (live)
        atomic_fetch_add(&v->live_count, 1);
    else
        atomic_fetch_sub(&v->live_count, 1);
}

static bool is_orphan(struct kfsd_vol *v, const struct kfsd_file *f)
{
    pthread_mutex_lock(&v->table);
    bool orphan = f->orphan;
    pthread_mutex_unlock(&v->table);
    return orphan;
}

static void set_orphan(struct kfsd_vol *v, struct kfsd_file *f, bool orphan)
{
    pthread_mutex_lock(&v->table);
    f->orphan = orphan;
    f->orphan_ns = kfs_clock_mono_ns();
    pthread_mutex_unlock(&v->table);
}

unsigned kfsd_uncommitted(struct kfsd_vol *v)
{
    return atomic_load(&v->live_count);
}

/* ---- the baseline --------------------------------------------------------------------------------------------------- */

/* A file may carry any time, also one whose nanoseconds do not fit: the ends are far enough from now to be as good. */
static int64_t ts_ns(struct timespec t)
{
    const int64_t early = -4000000000, late = 9000000000;
    int64_t s = t.tv_sec < early ? early : t.tv_sec > late ? late : t.tv_sec;
    return s * 1000000000LL + t.tv_nsec;
}

static bool ts_same(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool base_same(const struct kfsd_file *f, const struct stat *st)
{
    return f->base.valid && f->base.size == st->st_size && ts_same(f->base.mtime, st->st_mtim) &&
           ts_same(f->base.ctime, st->st_ctim);
}

static void base_set(struct kfsd_file *f, const struct stat *st, int64_t taken_ns, bool trusted)
{
    f->base.valid = true;
    f->base.trusted = trusted;
    f->base.size = st->st_size;
    f->base.mtime = st->st_mtim;
    f->base.ctime = st->st_ctim;
    f->base.taken_ns = taken_ns;
}

/* Certainly as committed? A page that was written through a shared mapping stays writable until it is written back, so later stores move no time: with
 * `deep` only a baseline that was taken while there was no writer proves anything. */
static bool certainly_clean(const struct kfsd_vol *v, const struct kfsd_file *f, const struct stat *st, bool deep)
{
    if (!base_same(f, st) || kfs_cache_on_tmpfs(v->cache) || (deep && !f->base.trusted))
        return false;
    /* A store in the tick of the look would carry the same mtime. */
    return f->base.taken_ns - ts_ns(st->st_mtim) > KFSD_RACY_NS;
}

/* The cache file's times moved by our own hand: take the new ones over, if it was as committed before. */
static void base_refresh(struct kfsd_file *f, const struct stat *before, const struct stat *after)
{
    if (base_same(f, before)) {
        f->base.mtime = after->st_mtim;
        f->base.ctime = after->st_ctim;
    } else {
        f->base.valid = false;
    }
}

static void live_name(kfs_ino_t ino, char *buf, size_t cap)
{
    snprintf(buf, cap, "w/%llx", (unsigned long long)ino);
}

/* ---- filling -------------------------------------------------------------------------------------------------------- */

int kfsd_reopen(int fd, int flags)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int again = open(self, flags | O_CLOEXEC);
    return again < 0 ? -errno : again;
}

/* Bring the committed content into w/. The file's lock is held, so there is no commit meanwhile. */
static int fill_live(struct kfsd_vol *v, const struct kfs_attr *a, struct kfs_err *err)
{
    int r = -ENOENT;
    for (int i = 0; (r == -ENOENT || r == -ERESTART) && i < OPEN_TRIES; i++) {
        struct kfsd_arrival *x;
        r = kfsd_arrive_begin(v, a, 0, &x, err);
        if (r < 0)
            return r;
        kfsd_park(true);
        r = kfsd_arrive_wait(v, x, err);
        kfsd_park(false);
        kfsd_arrive_put(v, x);
        if (r == 0)
            r = kfs_cache_to_live(v->cache, a->ino, a->version); /* -ENOENT: evicted in between */
    }
    return r == -ERESTART ? -EIO : r;
}

/* ---- becoming live -------------------------------------------------------------------------------------------------- */

static int stat_live(struct kfsd_vol *v, kfs_ino_t ino, struct stat *st)
{
    return kfs_cache_stat_live(v->cache, ino, st);
}

static int create_empty(struct kfsd_vol *v, const struct kfs_attr *a, struct kfs_err *err)
{
    int fd;
    int r = kfs_cache_create_live(v->cache, a->ino, &fd, err);
    if (r < 0)
        return r;
    if (a->mode & 0111)
        r = kfs_cache_set_exec(fd, a->mode);
    /* The metadata's mtime: a file that is closed empty then needs no transaction. */
    (void)futimens(fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, {.tv_sec = a->mtime_s, .tv_nsec = a->mtime_ns}});
    close(fd);
    return r;
}

/* f->lock held. emptied: the caller truncates it at once, so old content that is not here is not fetched. *ret_bare: w/INO is such an empty stand-in,
 * to be dropped again (unlive) if the truncation fails. */
static int make_live(struct kfsd_vol *v, struct kfsd_file *f, bool emptied, bool *ret_bare, struct kfs_err *err)
{
    *ret_bare = false;
    if (f->live)
        return 0;
    struct kfs_attr a;
    int r = kfs_meta_getattr(v->meta, f->ino, &a, err);
    if (r < 0)
        return r;
    if (!S_ISREG(a.mode))
        return -EINVAL;
    bool filled = true;
    r = kfs_cache_to_live(v->cache, f->ino, a.version);
    if (r == -ENOENT) {
        filled = !emptied;
        if (emptied)
            kfsd_arrive_leave(v, f->ino);
        r = emptied ? create_empty(v, &a, err) : fill_live(v, &a, err);
    }
    if (r < 0)
        return r;
    KFS_FAULT("open.live");
    struct stat st;
    f->base.valid = false;
    if (filled) {
        /* Descriptors from /proc, stat by static children: they should see the file's mtime. */
        struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = a.mtime_s, .tv_nsec = a.mtime_ns}};
        (void)kfs_cache_times_live(v->cache, f->ino, t);
        int64_t now = ts_ns(kfs_clock_real());
        if (stat_live(v, f->ino, &st) == 0 && (uint64_t)st.st_size == a.size_bytes)
            base_set(f, &st, now, true);
    }
    f->backoff_ms = 0;
    f->retry_ns = 0;
    pthread_mutex_lock(&v->pub);
    set_live(v, f, true);
    r = kfsd_attr_refresh_locked(v, f->ino, &a, err);
    if (r == 0 && a.nlink == 0)
        set_orphan(v, f, true);
    pthread_mutex_unlock(&v->pub);
    *ret_bare = !filled;
    return r;
}

static void unlive(struct kfsd_vol *v, struct kfsd_file *f)
{
    struct kfs_attr a;
    pthread_mutex_lock(&v->pub);
    (void)kfs_cache_drop_live(v->cache, f->ino);
    set_live(v, f, false);
    (void)kfsd_attr_refresh_locked(v, f->ino, &a, NULL);
    pthread_mutex_unlock(&v->pub);
}

/* ---- opening -------------------------------------------------------------------------------------------------------- */

/* What of the client's flags belongs to the open file description. */
static int kernel_flags(int oflags, bool keep_trunc)
{
    int keep = O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC | O_DIRECT | O_NOATIME | O_ASYNC | O_PATH | (keep_trunc ? O_TRUNC : 0);
    int flags = oflags & keep;
    if (oflags & O_PATH)
        flags &= O_PATH;
    return flags | O_CLOEXEC | O_NOCTTY;
}

static int open_live_fd(struct kfsd_vol *v, kfs_ino_t ino, int flags)
{
    int fd = kfs_cache_open_live(v->cache, ino, flags);
    if (fd == -EINVAL && (flags & O_DIRECT)) /* the cache's file system has none: a hint that cannot be had */
        fd = kfs_cache_open_live(v->cache, ino, flags & ~O_DIRECT);
    return fd;
}

static int open_clean_fd(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version, int flags)
{
    int fd = kfs_cache_open_clean(v->cache, ino, version, flags);
    if (fd == -EINVAL && (flags & O_DIRECT))
        fd = kfs_cache_open_clean(v->cache, ino, version, flags & ~O_DIRECT);
    return fd;
}

static int open_write(struct kfsd_vol *v, kfs_ino_t ino, int oflags, int *ret_fd, struct kfs_err *err)
{
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return -ENOMEM;
    pthread_mutex_lock(&f->lock);
    bool trunc = oflags & O_TRUNC, bare;
    int r = make_live(v, f, trunc, &bare, err);
    if (r == 0 && trunc && (oflags & O_ACCMODE) == O_RDONLY) {
        /* O_RDONLY|O_TRUNC truncates on Linux, but leaves no writer whose close would be seen. */
        int fd = kfs_cache_open_live(v->cache, ino, O_WRONLY | O_TRUNC | O_CLOEXEC);
        r = fd < 0 ? fd : 0;
        if (fd >= 0)
            close(fd);
    }
    if (r == 0) {
        int fd = open_live_fd(v, ino, kernel_flags(oflags, (oflags & O_ACCMODE) != O_RDONLY));
        if (fd < 0)
            r = fd;
        else
            *ret_fd = fd;
        if (trunc)
            f->base.valid = false;
    }
    if (r < 0 && bare)
        unlive(v, f);
    pthread_mutex_unlock(&f->lock);
    if (r < 0)
        kfsd_settle_later(v, ino);
    kfsd_file_put(v, f);
    return r;
}

/* What an open for reading is to give, and gave. */
struct opening {
    int flags;
    bool may_standin, is_standin;
    int fd;
    struct kfs_attr attr; /* of the stand-in */
};

/* Not in the cache, or not in this version. The fetch is shared by all who ask, and not waited for under the file's lock: what comes of it is looked at
 * again. A large file that may be given out as a stand-in is. */
static int fill_clean(struct kfsd_vol *v, kfs_ino_t ino, struct opening *o, struct kfs_err *err)
{
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return -ENOMEM;
    struct kfsd_arrival *x = NULL;
    pthread_mutex_lock(&f->lock);
    int r = f->live ? -EAGAIN : kfs_meta_getattr(v->meta, ino, &o->attr, err);
    if (r == 0)
        r = o->fd = open_clean_fd(v, ino, o->attr.version, o->flags);
    if (r >= 0) {
        struct kfs_attr a;
        pthread_mutex_lock(&v->pub);
        if (kfs_meta_getattr(v->meta, ino, &a, NULL) == 0)
            kfsd_attr_publish_locked(v, &a);
        pthread_mutex_unlock(&v->pub);
        r = 0;
    } else if (r == -ENOENT && o->attr.ino == ino) {
        r = kfsd_arrive_begin(v, &o->attr, 0, &x, err);
    }
    pthread_mutex_unlock(&f->lock);
    if (x && o->may_standin) {
        r = kfsd_arrive_standin(v, x, o->flags, &o->fd, err);
        o->is_standin = r == 0;
    }
    if (x && (!o->may_standin || r == -EOPNOTSUPP)) {
        kfsd_park(true);
        r = kfsd_arrive_wait(v, x, err);
        kfsd_park(false);
        if (r == 0)
            r = o->fd = kfsd_arrive_open(x, o->flags);
        if (r == -ERESTART)
            r = -EAGAIN;
    }
    kfsd_arrive_put(v, x);
    kfsd_file_put(v, f);
    return r < 0 ? r : 0;
}

/* It is in the cache, and shared memory does not say so: it was looked for, or checked. */
static void publish_cached(struct kfsd_vol *v, kfs_ino_t ino)
{
    struct kfs_attr a;
    pthread_mutex_lock(&v->pub);
    if (kfs_shm_attr_get(v->seg, ino, &a))
        kfsd_attr_publish_locked(v, &a);
    pthread_mutex_unlock(&v->pub);
}

static int open_read(struct kfsd_vol *v, kfs_ino_t ino, struct opening *o, struct kfs_err *err)
{
    int r = -EAGAIN;
    for (int i = 0; r == -EAGAIN && i < OPEN_TRIES; i++) {
        if (i > 4)
            usleep(1000);
        if (kfsd_file_is_live(v, ino)) {
            r = o->fd = open_live_fd(v, ino, o->flags);
            if (r == -ENOENT)
                r = -EAGAIN; /* settled in between */
            continue;
        }
        struct kfs_attr a;
        r = kfsd_attr_get(v, ino, &a, err);
        if (r < 0)
            return r;
        r = o->fd = a.flags & KFS_ATTR_LIVE ? -EAGAIN : open_clean_fd(v, ino, a.version, o->flags);
        if (r >= 0 && !(a.flags & KFS_ATTR_CACHED))
            publish_cached(v, ino);
        else if (r == -ENOENT)
            r = fill_clean(v, ino, o, err);
    }
    if (r == -EAGAIN)
        return KFS_FAIL(err, EIO, "inode %llx: the cache cannot keep it; raise cache_bytes", (unsigned long long)ino);
    return r < 0 ? r : 0;
}

int kfsd_file_open_standin(struct kfsd_vol *v, kfs_ino_t ino, int oflags, int *ret_fd, bool *ret_standin, struct kfs_attr *ret_attr, struct kfs_err *err)
{
    bool plain = !(oflags & (O_PATH | O_TRUNC)) && (oflags & O_ACCMODE) == O_RDONLY;
    if (ret_standin)
        *ret_standin = false;
    if (!plain && !(oflags & O_PATH))
        return open_write(v, ino, oflags, ret_fd, err);
    struct opening o = {.flags = kernel_flags(oflags, false), .may_standin = plain && ret_standin, .fd = -1};
    int r = open_read(v, ino, &o, err);
    if (r < 0)
        return r;
    *ret_fd = o.fd;
    if (o.is_standin) {
        *ret_standin = true;
        *ret_attr = o.attr;
    }
    return 0;
}

int kfsd_file_open(struct kfsd_vol *v, kfs_ino_t ino, int oflags, int *ret_fd, struct kfs_err *err)
{
    return kfsd_file_open_standin(v, ino, oflags, ret_fd, NULL, NULL, err);
}

int kfsd_file_create_locked(struct kfsd_vol *v, const struct kfs_attr *a, int oflags, bool orphan, int *ret_fd, struct kfs_err *err)
{
    struct kfsd_file *f = kfsd_file_get(v, a->ino);
    if (!f)
        return -ENOMEM;
    int r = create_empty(v, a, err);
    if (r < 0) {
        kfsd_file_put(v, f);
        return r;
    }
    int fd = open_live_fd(v, a->ino, kernel_flags(oflags, false));
    if (fd < 0) {
        (void)kfs_cache_drop_live(v->cache, a->ino);
        kfsd_file_put(v, f);
        return fd;
    }
    /* Nobody else can know the inode yet, so its lock need not be taken (that would turn the lock order round). The baseline stays invalid: the
     * metadata's mtime and the cache file's differ, and the first commit brings them together. */
    set_live(v, f, true);
    if (orphan)
        set_orphan(v, f, true);
    *ret_fd = fd;
    kfsd_file_put(v, f);
    return 0;
}

/* ---- committing ------------------------------------------------------------------------------------------------------ */

static int new_object(void *arg, uint64_t *ret_id, struct kfs_err *err)
{
    struct kfsd_vol *v = arg;
    return kfs_meta_object_id(v->meta, ret_id, err);
}

static int commit_meta(struct kfsd_vol *v, struct kfsd_file *f, const struct kfs_content_delta *d, const struct stat *st, struct kfs_err *err)
{
    struct kfs_attr a;
    pthread_mutex_lock(&v->pub);
    int r = 0;
    /* A file that is as committed and carries the mtime of the metadata changes nothing: no transaction. */
    if (!d->changed) {
        r = kfs_meta_getattr(v->meta, f->ino, &a, err);
        if (r < 0 || (a.mtime_s == st->st_mtim.tv_sec && a.mtime_ns == (uint32_t)st->st_mtim.tv_nsec))
            goto out;
    }
    r = kfs_meta_commit(v->meta, f->ino, d, st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec, &a, err);
    if (r == 0)
        kfsd_attr_publish_locked(v, &a);
out:
    pthread_mutex_unlock(&v->pub);
    return r;
}

static void commit_failed(struct kfsd_vol *v, struct kfsd_file *f, int r, const struct kfs_err *err)
{
    static struct kfs_log_limit limit;
    f->backoff_ms = f->backoff_ms ? f->backoff_ms * 2 : 500;
    if (f->backoff_ms > BACKOFF_MS_MAX)
        f->backoff_ms = BACKOFF_MS_MAX;
    f->retry_ns = kfs_clock_mono_ns() + f->backoff_ms * 1000000ULL;
    f->base.valid = false;
    atomic_fetch_add(&v->failed_count, 1);
    kfs_log_limited(&limit, KFS_LOG_ERROR, "commit of inode %llx of '%s' failed: %s; its content stays in '%s/w/%llx' and is tried again",
                    (unsigned long long)f->ino, v->v->url, err->code ? err->msg : strerror(-r), kfs_cache_dir(v->cache),
                    (unsigned long long)f->ino);
}

static int store(struct kfsd_vol *v, struct kfsd_file *f, int fd, const struct kfs_content *old, bool durable, struct kfs_content_delta *d,
                 struct kfs_err *err)
{
    const struct kfs_commit_options o = {.ino = f->ino, .durable = durable, .new_id = new_object, .arg = v};
    struct kfs_commit *k;
    int r = kfs_store_commit_begin(v->store, fd, old, &o, &k, err);
    return r < 0 ? r : kfs_store_commit_wait(k, d, err);
}

/* Of a pack that several files share, the file's own bytes count. */
static void commit_counted(struct kfsd_vol *v, const struct kfs_content_delta *d)
{
    uint64_t bytes = d->to_inline ? d->inline_len : d->object_count > d->own_count ? d->size_bytes : 0;
    for (size_t i = 0; i < d->own_count; i++)
        bytes += d->object_bytes[i];
    atomic_fetch_add_explicit(&v->commit_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&v->stored_bytes, bytes, memory_order_relaxed);
}

static int commit_once(struct kfsd_vol *v, struct kfsd_file *f, bool deep, bool alone, bool durable, struct kfs_err *ret_err)
{
    struct kfs_err local = {0}, *err = ret_err ? ret_err : &local;
    kfs_auto_fd int fd = kfs_cache_open_live(v->cache, f->ino, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return KFS_FAIL(err, -fd, "open '%s/w/%llx': %s", kfs_cache_dir(v->cache), (unsigned long long)f->ino, strerror(-fd));
    int64_t now = ts_ns(kfs_clock_real());
    struct stat st;
    if (fstat(fd, &st) < 0)
        return KFS_FAIL(err, errno, "fstat: %s", strerror(errno));
    if (certainly_clean(v, f, &st, deep)) {
        f->want_commit = false;
        return 0;
    }
    KFS_FAULT("commit.before");
    struct kfs_content old = {0};
    struct kfs_content_delta *d = calloc(1, sizeof *d);
    int r = d ? kfs_meta_content_get(v->meta, f->ino, &old, err) : -ENOMEM;
    if (r == 0)
        r = KFS_FAULT_ERR("commit.store");
    if (r == 0)
        r = store(v, f, fd, &old, durable, d, err);
    if (r == 0) {
        KFS_FAULT("commit.objects");
        if (d->object_count && !durable)
            atomic_store(&v->store_dirty, true);
        r = commit_meta(v, f, d, &st, err);
        KFS_FAULT("commit.meta");
        if (r == -ENOENT || r == -ESTALE)
            kfs_store_commit_undo(v->store, d);
        else if (r == 0 && d->changed)
            commit_counted(v, d);
    }
    kfs_content_release(&old);
    if (d)
        kfs_content_delta_release(d);
    free(d);
    if (r < 0) {
        commit_failed(v, f, r, err);
        return r;
    }
    f->want_commit = false;
    f->backoff_ms = 0;
    f->retry_ns = 0;
    base_set(f, &st, now, alone);
    return 0;
}

/* Make what w/INO holds the committed content. f->lock held; deep: see certainly_clean; alone: nobody has it open for writing. */
static int commit(struct kfsd_vol *v, struct kfsd_file *f, bool deep, bool alone, bool durable, struct kfs_err *ret_err)
{
    int r = commit_once(v, f, deep, alone, durable, ret_err);
    if (r != -ESTALE)
        return r;
    /* A pack that lost its other files was collected before this commit got to its transaction: it took longer than the grace time. */
    if (ret_err)
        *ret_err = (struct kfs_err){0};
    return commit_once(v, f, deep, alone, durable, ret_err);
}

int kfsd_file_commit(struct kfsd_vol *v, kfs_ino_t ino, bool durable, struct kfs_err *err)
{
    if (!kfsd_file_is_live(v, ino))
        return 0;
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return -ENOMEM;
    pthread_mutex_lock(&f->lock);
    /* Nobody will ever find an orphan again: its content need not go anywhere. */
    int r = f->live && !is_orphan(v, f) ? commit(v, f, durable, false, durable, err) : 0;
    pthread_mutex_unlock(&f->lock);
    kfsd_file_put(v, f);
    return r;
}

int kfsd_file_want_commit(struct kfsd_vol *v, kfs_ino_t ino)
{
    if (!kfsd_file_is_live(v, ino))
        return 0;
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return -ENOMEM;
    atomic_store(&f->want_commit, true);
    kfsd_file_put(v, f);
    return 0;
}

int kfsd_sync(struct kfsd_vol *v, struct kfs_err *err)
{
    if (atomic_exchange(&v->store_dirty, false)) {
        int r = kfs_store_sync(v->store, err);
        if (r < 0) {
            atomic_store(&v->store_dirty, true);
            return r;
        }
    }
    return kfs_meta_sync(v->meta, err);
}

int kfsd_flush(struct kfsd_vol *v, bool durable, unsigned *ret_count, struct kfs_err *err)
{
    size_t n;
    struct kfsd_file **all = kfsd_file_all(v, &n);
    if (!all)
        return -ENOMEM;
    int first = 0;
    unsigned count = 0;
    for (size_t i = 0; i < n; i++) {
        struct kfsd_file *f = all[i];
        pthread_mutex_lock(&f->lock);
        if (f->live && !is_orphan(v, f)) {
            struct kfs_err e = {0};
            int r = commit(v, f, true, false, false, &e);
            if (r == 0) {
                count++;
            } else if (first == 0) {
                first = r;
                if (err)
                    *err = e;
            }
        }
        pthread_mutex_unlock(&f->lock);
        kfsd_settle_later(v, f->ino);
        kfsd_file_put(v, f);
    }
    free(all);
    if (durable) {
        int r = kfsd_sync(v, first ? NULL : err);
        if (first == 0)
            first = r;
    }
    if (ret_count)
        *ret_count = count;
    return first;
}

static void to_lost(struct kfsd_vol *v, kfs_ino_t ino)
{
    char from[32], to[64];
    live_name(ino, from, sizeof from);
    snprintf(to, sizeof to, "lost/%llx-unknown", (unsigned long long)ino);
    (void)mkdirat(v->cache_fd, "lost", 0700);
    if (renameat(v->cache_fd, from, v->cache_fd, to) == 0)
        kfs_log(KFS_LOG_WARN, "live file of inode %llx, which '%s' does not know: kept as '%s/%s'", (unsigned long long)ino, v->v->url,
                kfs_cache_dir(v->cache), to);
}

/* ---- settling: the last writer is gone ------------------------------------------------------------------------------ */

static int settle_orphan(struct kfsd_vol *v, struct kfsd_file *f)
{
    struct kfs_attr a;
    /* Somebody reads it while it arrives: it stays until he has it, or has gone. */
    kfsd_arrive_leave(v, f->ino);
    if (kfsd_arrive_in_use(v, f->ino))
        return 1;
    if (!f->live) {
        /* Readers may have the clean file open: it stays as long as they do. */
        if (kfs_meta_getattr(v->meta, f->ino, &a, NULL) == 0 && S_ISREG(a.mode) && kfs_cache_to_live(v->cache, f->ino, a.version) == 0) {
            f->base.valid = false;
            pthread_mutex_lock(&v->pub);
            set_live(v, f, true);
            (void)kfsd_attr_refresh_locked(v, f->ino, &a, NULL);
            pthread_mutex_unlock(&v->pub);
        }
    }
    if (f->live) {
        int fd = kfs_cache_open_live(v->cache, f->ino, O_RDONLY | O_CLOEXEC);
        int used = fd < 0 ? 0 : kfs_cache_has_user(fd);
        if (fd >= 0)
            close(fd);
        if (used)
            return used;
    }
    KFS_FAULT("orphan.before");
    int r = 0;
    pthread_mutex_lock(&v->pub);
    if (kfs_meta_getattr(v->meta, f->ino, &a, NULL) == 0 && a.nlink > 0) {
        /* Linked again while we looked. */
        set_orphan(v, f, false);
        r = 1;
    } else {
        (void)kfs_cache_drop_live(v->cache, f->ino);
        KFS_FAULT("orphan.dropped");
        (void)kfs_meta_orphan_purge(v->meta, f->ino, NULL);
        kfs_shm_drop_attr(v->shm, f->ino);
        set_live(v, f, false);
        set_orphan(v, f, false);
    }
    pthread_mutex_unlock(&v->pub);
    return r;
}

static int settle_live(struct kfsd_vol *v, struct kfsd_file *f)
{
    int fd = kfs_cache_open_live(v->cache, f->ino, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fd;
    int used = kfs_cache_has_writer(fd);
    close(fd);
    if (used < 0)
        return used;
    if (used) {
        if (atomic_load(&f->want_commit)) {
            int r = commit(v, f, false, false, false, NULL);
            if (r < 0)
                return r;
        }
        return 1;
    }
    int r = commit(v, f, true, true, false, NULL);
    if (r == -ENOENT && kfs_meta_getattr(v->meta, f->ino, &(struct kfs_attr){0}, NULL) == -ENOENT) {
        to_lost(v, f->ino);
        pthread_mutex_lock(&v->pub);
        set_live(v, f, false);
        pthread_mutex_unlock(&v->pub);
        return 0;
    }
    if (r < 0)
        return r;
    KFS_FAULT("settle.committed");
    struct kfs_attr a;
    pthread_mutex_lock(&v->pub);
    r = kfs_meta_getattr(v->meta, f->ino, &a, NULL);
    if (r == 0 && a.nlink > 0) {
        r = kfs_cache_to_clean(v->cache, f->ino, a.version);
        KFS_FAULT("settle.renamed");
        if (r == 0) {
            set_live(v, f, false);
            kfsd_attr_publish_locked(v, &a);
        }
    }
    pthread_mutex_unlock(&v->pub);
    return r;
}

int kfsd_file_settle(struct kfsd_vol *v, struct kfsd_file *f)
{
    pthread_mutex_lock(&f->lock);
    int r = is_orphan(v, f) ? settle_orphan(v, f) : f->live ? settle_live(v, f) : 0;
    pthread_mutex_unlock(&f->lock);
    return r;
}

/* ---- names come and go ------------------------------------------------------------------------------------------------ */

void kfsd_file_unlinked(struct kfsd_vol *v, const struct kfs_attr *a)
{
    struct kfsd_file *f = kfsd_file_get(v, a->ino);
    if (!f)
        return; /* the next start purges it */
    pthread_mutex_lock(&v->table);
    f->orphan = true;
    f->orphan_ns = kfs_clock_mono_ns();
    /* Removed directories have users that nobody can count (a cwd): the sweep lets them go after a while. */
    if (!S_ISDIR(a->mode))
        queue_locked(v, f);
    pthread_mutex_unlock(&v->table);
    kfsd_file_put(v, f);
}

void kfsd_file_linked_locked(struct kfsd_vol *v, kfs_ino_t ino)
{
    pthread_mutex_lock(&v->table);
    struct kfsd_file *f = kfs_map_get(&v->files, ino);
    if (f) {
        f->orphan = false;
        queue_locked(v, f);
    }
    pthread_mutex_unlock(&v->table);
}

/* ---- attributes that touch the cache file ------------------------------------------------------------------------------ */

int kfsd_file_truncate(struct kfsd_vol *v, kfs_ino_t ino, uint64_t size, struct kfs_err *err)
{
    if (size > INT64_MAX)
        return -EFBIG;
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return -ENOMEM;
    pthread_mutex_lock(&f->lock);
    bool bare;
    int r = make_live(v, f, size == 0, &bare, err);
    if (r == 0) {
        int fd = kfs_cache_open_live(v->cache, ino, O_WRONLY | O_CLOEXEC);
        r = fd < 0 ? fd : ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
        if (fd >= 0) {
            /* A truncation to the same size is a change of mtime all the same. */
            if (r == 0)
                (void)futimens(fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}});
            close(fd);
        }
        f->base.valid = false;
    }
    if (r < 0 && bare)
        unlive(v, f);
    if (r == 0 && !is_orphan(v, f))
        r = commit(v, f, false, false, false, err);
    pthread_mutex_unlock(&f->lock);
    kfsd_settle_later(v, ino);
    kfsd_file_put(v, f);
    return r;
}

int kfsd_file_set_mtime(struct kfsd_vol *v, kfs_ino_t ino, const struct kfs_meta_setattr *s, const struct kfs_cred *cred, const struct kfs_opid *op,
                        struct kfs_attr *ret, struct kfs_err *err)
{
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return -ENOMEM;
    pthread_mutex_lock(&f->lock);
    pthread_mutex_lock(&v->pub);
    int r = kfs_meta_setattr(v->meta, cred, ino, s, op, ret, err);
    if (r == 0) {
        struct stat before, after;
        if (f->live && stat_live(v, ino, &before) == 0) {
            struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = ret->mtime_s, .tv_nsec = ret->mtime_ns}};
            if (kfs_cache_times_live(v->cache, ino, t) == 0 && stat_live(v, ino, &after) == 0)
                base_refresh(f, &before, &after);
        }
        kfsd_attr_publish_locked(v, ret);
    }
    pthread_mutex_unlock(&v->pub);
    pthread_mutex_unlock(&f->lock);
    kfsd_file_put(v, f);
    return r;
}

void kfsd_file_set_mode(struct kfsd_vol *v, const struct kfs_attr *a)
{
    if (!S_ISREG(a->mode))
        return;
    struct kfsd_file *f = kfsd_file_get(v, a->ino);
    if (!f)
        return;
    pthread_mutex_lock(&f->lock);
    int fd = f->live ? kfs_cache_open_live(v->cache, a->ino, O_RDONLY | O_CLOEXEC)
                     : kfs_cache_open_clean(v->cache, a->ino, a->version, O_RDONLY | O_CLOEXEC);
    struct stat before, after;
    if (fd >= 0) {
        bool have = fstat(fd, &before) == 0;
        if (!have || ((before.st_mode & 0111) != 0) != ((a->mode & 0111) != 0)) {
            (void)kfs_cache_set_exec(fd, a->mode);
            if (have && f->live && fstat(fd, &after) == 0)
                base_refresh(f, &before, &after);
        }
        close(fd);
    }
    pthread_mutex_unlock(&f->lock);
    kfsd_file_put(v, f);
}

/* ---- recovery ----------------------------------------------------------------------------------------------------------- */

struct ino_list {
    kfs_ino_t *inos;
    size_t count, cap;
};

static int list_add(void *arg, kfs_ino_t ino)
{
    struct ino_list *l = arg;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        kfs_ino_t *more = realloc(l->inos, cap * sizeof *more);
        if (!more)
            return -ENOMEM;
        l->inos = more;
        l->cap = cap;
    }
    l->inos[l->count++] = ino;
    return 0;
}

static void recover_one(struct kfsd_vol *v, kfs_ino_t ino)
{
    struct kfs_attr a;
    int r = kfs_meta_getattr(v->meta, ino, &a, NULL);
    if (r == -ENOENT || (r == 0 && !S_ISREG(a.mode))) {
        to_lost(v, ino);
        return;
    }
    struct kfsd_file *f = kfsd_file_get(v, ino);
    if (!f)
        return;
    pthread_mutex_lock(&v->pub);
    set_live(v, f, true);
    set_orphan(v, f, r == 0 && a.nlink == 0);
    pthread_mutex_unlock(&v->pub);
    r = kfsd_file_settle(v, f);
    if (r == 1) {
        /* Its writers are still there: what they have written so far is committed now, the rest with their last close. */
        pthread_mutex_lock(&f->lock);
        if (f->live && !is_orphan(v, f))
            (void)commit(v, f, true, false, false, NULL);
        pthread_mutex_unlock(&f->lock);
    }
    kfsd_file_put(v, f);
}

static void purge_orphans(struct kfsd_vol *v)
{
    kfs_ino_t inos[256];
    size_t skip = 0;
    for (;;) {
        int n = kfs_meta_orphan_list(v->meta, inos, sizeof inos / sizeof *inos, NULL);
        size_t gone = 0;
        for (int i = 0; i < n; i++)
            if (!kfsd_file_is_live(v, inos[i]) && kfs_meta_orphan_purge(v->meta, inos[i], NULL) == 0)
                gone++;
        skip += gone;
        if (n < (int)(sizeof inos / sizeof *inos) || gone == 0)
            break;
    }
    if (skip)
        kfs_log(KFS_LOG_INFO, "'%s': %zu removed inodes of the last session purged", v->v->url, skip);
}

/* A node of the last session whose inode is gone. */
static int node_check(void *arg, kfs_ino_t ino)
{
    struct kfsd_vol *v = arg;
    struct kfs_attr a;
    int r = kfs_meta_getattr(v->meta, ino, &a, NULL);
    if (r == -ENOENT || (r == 0 && a.nlink == 0))
        kfs_cache_node_drop(v->cache, ino);
    return 0;
}

int kfsd_recover(struct kfsd_vol *v, struct kfs_err *err)
{
    struct ino_list l = {0};
    int r = kfs_cache_each_live(v->cache, list_add, &l, err);
    if (r >= 0) {
        for (size_t i = 0; i < l.count; i++)
            recover_one(v, l.inos[i]);
        if (l.count)
            kfs_log(KFS_LOG_INFO, "'%s': %zu live files of the last session found, %u still open or not yet committed", v->v->url, l.count,
                    kfsd_uncommitted(v));
        r = 0;
    }
    free(l.inos);
    if (r == 0) {
        purge_orphans(v);
        (void)kfs_cache_each_node(v->cache, node_check, v);
        (void)kfs_cache_partial_clear(v->cache);
    }
    return r;
}
