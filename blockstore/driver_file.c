/* blockstore/driver_file.c — the driver `file`: a value is a file DIR/KEY
 *
 * Writing  Into DIR/tmp under a name of its own, flock'ed while the writer lives, then renamed: a reader sees whole values or none, and whoever sweeps
 *          the store can tell a dead writer's file from a living one's. Directories on the way to a key are made when they are first needed.
 * Threads  Waiting requests run in their caller's thread; submitted ones in a few threads that start when they are first needed.
 */
#include "blockstore/driver_ops.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "blockstore/limit.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define TMP          "tmp"
#define THREADS_MAX  8       /* a disk's queue is full with fewer; a network file system hides little more latency */
#define STEP         (1u << 20) /* progress is told, and byte rates are kept, this often */
#define PRIORITIES   3

/* `lock` guards the queues, the threads' counts and `stop`; counters are atomic, the rest is constant after open. */
struct file_drv {
    struct kfs_drv drv;
    char *dir; /* absolute */
    int dir_fd;
    uint64_t tmp_counter;
    uint64_t requests[5], sent_bytes, received_bytes;

    pthread_mutex_t lock;
    pthread_cond_t work;
    struct kfs_drv_req *first[PRIORITIES], **last[PRIORITIES];
    pthread_t threads[THREADS_MAX];
    unsigned thread_count, thread_max, idle, running, queued;
    bool stop;
};

struct file_upload {
    struct kfs_drv_upload up;
    int fd;
    char tmp_name[64];
};

static struct file_drv *of(struct kfs_drv *d)
{
    return (struct file_drv *)d;
}

static int failed(const struct file_drv *d, int rc, const char *what, const char *key, struct kfs_err *err)
{
    return KFS_FAIL(err, -rc, "cannot %s '%s' in '%s': %s", what, key, d->dir, strerror(-rc));
}

/* --- files and directories -------------------------------------------------------------------- */

/* The directories of key that are not there yet. */
static int make_parents(const struct file_drv *d, const char *key)
{
    char path[KFS_DRV_KEY_MAX];
    snprintf(path, sizeof path, "%s", key);
    for (char *p = path; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        if (mkdirat(d->dir_fd, path, 0700) < 0 && errno != EEXIST)
            return -errno;
    }
    return 0;
}

static int sync_dir(const struct file_drv *d, const char *name)
{
    kfs_auto_fd int fd = openat(d->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

/* Each directory on the way to key: which of them are new is not known, and it is cheap for the others. */
static int sync_parents(const struct file_drv *d, const char *key)
{
    char path[KFS_DRV_KEY_MAX];
    snprintf(path, sizeof path, "%s", key);
    int rc = 0;
    for (char *slash; rc == 0 && (slash = strrchr(path, '/'));) {
        *slash = 0;
        rc = sync_dir(d, path);
    }
    return rc < 0 ? rc : sync_dir(d, ".");
}

static int tmp_open(struct file_drv *d, char *ret_name, size_t cap)
{
    for (int tries = 0;; tries++) {
        snprintf(ret_name, cap, TMP "/%d-%" PRIu64 "-%" PRIx64, (int)getpid(), __atomic_add_fetch(&d->tmp_counter, 1, __ATOMIC_RELAXED),
                 (uint64_t)time(NULL));
        int fd = openat(d->dir_fd, ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            (void)flock(fd, LOCK_EX | LOCK_NB); /* where locks are missing, a clean-up may cost a retry, never a byte */
            return fd;
        }
        if (tries == 8 || (errno != ENOENT && errno != EEXIST))
            return -errno;
        if (errno == ENOENT && mkdirat(d->dir_fd, TMP, 0700) < 0 && errno != EEXIST)
            return -errno;
    }
}

/* renameat, or with `new` the same for a name that must be free. */
static int give_name(const struct file_drv *d, const char *tmp, const char *key, bool new)
{
    if (!new)
        return renameat(d->dir_fd, tmp, d->dir_fd, key) < 0 ? -errno : 0;
    if (linkat(d->dir_fd, tmp, d->dir_fd, key, 0) < 0)
        return -errno;
    (void)unlinkat(d->dir_fd, tmp, 0);
    return 0;
}

/* The written file becomes the value. Closes fd; on failure nothing stays behind. */
static int value_finish(const struct file_drv *d, int fd, const char *tmp, const char *key, unsigned flags)
{
    bool durable = flags & KFS_DRV_DURABLE, named = false;
    int rc = durable && fdatasync(fd) < 0 ? -errno : 0;
    if (rc == 0)
        rc = KFS_FAULT_ERR("store.object.rename");
    if (rc == 0)
        rc = give_name(d, tmp, key, flags & KFS_DRV_NEW);
    if (rc == -ENOENT) {
        rc = make_parents(d, key);
        if (rc == 0)
            rc = give_name(d, tmp, key, flags & KFS_DRV_NEW);
    }
    named = rc == 0;
    KFS_FAULT("store.object.renamed");
    if (rc == 0 && durable)
        rc = sync_parents(d, key);
    /* Network file systems report a full disk or quota only at close. */
    if (close(fd) < 0 && errno != EINTR && rc == 0)
        rc = -errno;
    if (rc < 0)
        (void)unlinkat(d->dir_fd, named ? key : tmp, 0);
    return rc;
}

static int write_all(int fd, const struct iovec *iov, int count, uint64_t off, uint64_t *ret_bytes)
{
    for (int i = 0; i < count; i++) {
        for (size_t done = 0; done < iov[i].iov_len;) {
            size_t step = iov[i].iov_len - done < STEP ? iov[i].iov_len - done : STEP;
            kfs_limit_wait(&kfs_limit_upload, step);
            ssize_t n = pwrite(fd, (const char *)iov[i].iov_base + done, step, (off_t)(off + done));
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return n < 0 ? -errno : -ENOSPC; /* 0 cannot happen for regular files; never loop on it */
            done += (size_t)n;
        }
        off += iov[i].iov_len;
        *ret_bytes += iov[i].iov_len;
    }
    return 0;
}

/* --- requests --------------------------------------------------------------------------------- */

static int do_get(struct file_drv *d, struct kfs_drv_req *q)
{
    kfs_auto_fd int fd = openat(d->dir_fd, q->key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return errno == ENOENT ? KFS_FAIL(&q->err, ENOENT, "'%s' is missing in '%s'", q->key, d->dir) : failed(d, -errno, "open", q->key, &q->err);
    if (!S_ISREG(st.st_mode))
        return KFS_FAIL(&q->err, EIO, "'%s' in '%s' is not a file; remove it", q->key, d->dir);
    uint64_t size = (uint64_t)st.st_size, off = q->off;
    q->value_bytes = size;
    if (off == KFS_DRV_TAIL)
        off = size > q->len ? size - q->len : 0;
    else if (off > size || (off == size && q->len))
        return KFS_FAIL(&q->err, ERANGE, "'%s' in '%s' has only %" PRIu64 " bytes; check the volume", q->key, d->dir, size);
    while (q->got < q->len) {
        size_t step = q->len - q->got < STEP ? q->len - q->got : STEP;
        kfs_limit_wait(&kfs_limit_download, step);
        ssize_t n = pread(fd, (char *)q->buf + q->got, step, (off_t)(off + q->got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(d, -errno, "read", q->key, &q->err);
        if (n == 0)
            break;
        q->got += (size_t)n;
        if (q->progress)
            q->progress(q, q->got);
    }
    __atomic_fetch_add(&d->received_bytes, q->got, __ATOMIC_RELAXED);
    return 0;
}

static int do_put(struct file_drv *d, struct kfs_drv_req *q)
{
    char tmp[64];
    uint64_t bytes = 0;
    int fd = tmp_open(d, tmp, sizeof tmp);
    if (fd < 0)
        return failed(d, fd, "write", q->key, &q->err);
    int rc = KFS_FAULT_ERR("store.object.write");
    if (rc == 0)
        rc = write_all(fd, q->iov, q->iov_count, 0, &bytes);
    if (rc < 0) {
        close(fd);
        (void)unlinkat(d->dir_fd, tmp, 0);
    } else {
        rc = value_finish(d, fd, tmp, q->key, q->flags);
    }
    __atomic_fetch_add(&d->sent_bytes, bytes, __ATOMIC_RELAXED);
    return rc < 0 ? failed(d, rc, "write", q->key, &q->err) : 0;
}

static int do_part(struct file_drv *d, struct kfs_drv_req *q)
{
    struct file_upload *u = (struct file_upload *)q->upload;
    uint64_t bytes = 0;
    int rc = KFS_FAULT_ERR("store.object.write");
    if (rc == 0)
        rc = write_all(u->fd, q->iov, q->iov_count, q->part_off, &bytes);
    __atomic_fetch_add(&d->sent_bytes, bytes, __ATOMIC_RELAXED);
    return rc < 0 ? failed(d, rc, "write", u->up.key, &q->err) : 0;
}

static int do_head(struct file_drv *d, struct kfs_drv_req *q)
{
    struct stat st;
    if (fstatat(d->dir_fd, q->key, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? KFS_FAIL(&q->err, ENOENT, "'%s' is missing in '%s'", q->key, d->dir) : failed(d, -errno, "look at", q->key, &q->err);
    q->value_bytes = (uint64_t)st.st_size;
    q->mtime_s = st.st_mtim.tv_sec;
    return 0;
}

static int do_delete(struct file_drv *d, struct kfs_drv_req *q)
{
    if (unlinkat(d->dir_fd, q->key, 0) == 0)
        return 0;
    return errno == ENOENT ? -ENOENT : failed(d, -errno, "delete", q->key, &q->err);
}

static void file_run(struct kfs_drv *base, struct kfs_drv_req *q)
{
    static int (*const doers[])(struct file_drv *d, struct kfs_drv_req *q) = {
        [KFS_DRV_GET] = do_get, [KFS_DRV_PUT] = do_put, [KFS_DRV_HEAD] = do_head, [KFS_DRV_DELETE] = do_delete, [KFS_DRV_PART] = do_part};
    struct file_drv *d = of(base);
    q->got = 0;
    q->err = (struct kfs_err){0};
    q->status = doers[q->op](d, q);
    __atomic_fetch_add(&d->requests[q->op], 1, __ATOMIC_RELAXED);
}

/* --- the threads ------------------------------------------------------------------------------ */

static struct kfs_drv_req *take_locked(struct file_drv *d)
{
    for (int p = 0; p < PRIORITIES; p++) {
        struct kfs_drv_req *q = d->first[p];
        if (!q)
            continue;
        d->first[p] = q->priv.next;
        if (!d->first[p])
            d->last[p] = &d->first[p];
        d->queued--;
        return q;
    }
    return NULL;
}

static void *thread_main(void *arg)
{
    struct file_drv *d = arg;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        struct kfs_drv_req *q = take_locked(d);
        if (!q && d->stop)
            break;
        if (!q) {
            d->idle++;
            pthread_cond_wait(&d->work, &d->lock);
            d->idle--;
            continue;
        }
        d->running++;
        pthread_mutex_unlock(&d->lock);
        file_run(&d->drv, q);
        q->done(q);
        pthread_mutex_lock(&d->lock);
        d->running--;
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static void file_submit(struct kfs_drv *base, struct kfs_drv_req *q)
{
    struct file_drv *d = of(base);
    int p = q->priority < PRIORITIES ? (int)q->priority : PRIORITIES - 1;
    pthread_mutex_lock(&d->lock);
    if (d->queued >= d->idle && d->thread_count < d->thread_max && pthread_create(&d->threads[d->thread_count], NULL, thread_main, d) == 0)
        d->thread_count++;
    bool any = d->thread_count > 0;
    if (any) {
        q->priv.next = NULL;
        *d->last[p] = q;
        d->last[p] = &q->priv.next;
        d->queued++;
        pthread_cond_signal(&d->work);
    }
    pthread_mutex_unlock(&d->lock);
    if (!any) { /* no thread can be had: slow is better than never */
        file_run(base, q);
        q->done(q);
    }
}

static void file_cancel(struct kfs_drv *base, struct kfs_drv_req *q)
{
    struct file_drv *d = of(base);
    struct kfs_drv_req *found = NULL;
    pthread_mutex_lock(&d->lock);
    for (int p = 0; p < PRIORITIES && !found; p++)
        for (struct kfs_drv_req **at = &d->first[p]; *at; at = &(*at)->priv.next) {
            if (*at != q)
                continue;
            found = q;
            *at = q->priv.next;
            if (!*at)
                d->last[p] = at;
            d->queued--;
            break;
        }
    pthread_mutex_unlock(&d->lock);
    if (!found)
        return; /* under way, or done */
    q->status = KFS_FAIL(&q->err, ECANCELED, "request for '%s' was given up", q->key);
    q->done(q);
}

/* --- uploads ---------------------------------------------------------------------------------- */

static int file_upload_begin(struct kfs_drv *base, const char *key, struct kfs_drv_upload **ret_u, struct kfs_err *err)
{
    struct file_drv *d = of(base);
    struct file_upload *u = calloc(1, sizeof *u);
    if (!u || strlen(key) >= sizeof u->up.key) {
        free(u);
        return KFS_FAIL(err, u ? EINVAL : ENOMEM, "cannot write '%.150s': %s", key, u ? "the key is too long" : "out of memory");
    }
    u->up.drv = base;
    snprintf(u->up.key, sizeof u->up.key, "%s", key);
    u->fd = tmp_open(d, u->tmp_name, sizeof u->tmp_name);
    if (u->fd < 0) {
        int rc = u->fd;
        free(u);
        return failed(d, rc, "write", key, err);
    }
    *ret_u = &u->up;
    return 0;
}

static int file_upload_finish(struct kfs_drv_upload *up, unsigned flags, struct kfs_err *err)
{
    struct file_upload *u = (struct file_upload *)up;
    struct file_drv *d = of(up->drv);
    int rc = value_finish(d, u->fd, u->tmp_name, up->key, flags);
    if (rc < 0)
        (void)failed(d, rc, "write", up->key, err);
    free(u);
    return rc;
}

static void file_upload_abort(struct kfs_drv_upload *up)
{
    struct file_upload *u = (struct file_upload *)up;
    (void)unlinkat(of(up->drv)->dir_fd, u->tmp_name, 0);
    close(u->fd);
    free(u);
}

/* A stream over directory `name` of the store, or NULL with errno. */
static DIR *dir_open(const struct file_drv *d, const char *name)
{
    int fd = openat(d->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *s = fd < 0 ? NULL : fdopendir(fd);
    if (!s && fd >= 0)
        close(fd);
    return s;
}

static bool is_dead(int fd, int64_t age_s)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || (age_s > 0 && time(NULL) - st.st_mtim.tv_sec < age_s))
        return false;
    return flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static int64_t file_upload_sweep(struct kfs_drv *base, int64_t age_s, struct kfs_err *err)
{
    struct file_drv *d = of(base);
    int64_t count = 0;
    DIR *s = dir_open(d, TMP);
    if (!s)
        return errno == ENOENT ? 0 : failed(d, -errno, "list", TMP, err);
    for (struct dirent *e; (e = readdir(s));) {
        if (e->d_name[0] == '.')
            continue;
        kfs_auto_fd int fd = openat(dirfd(s), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && is_dead(fd, age_s) && unlinkat(dirfd(s), e->d_name, 0) == 0)
            count++;
    }
    closedir(s);
    return count;
}

/* --- the directory as a whole ----------------------------------------------------------------- */

static int file_delete_many(struct kfs_drv *base, const char *const *keys, size_t count, struct kfs_err *err)
{
    int first = 0;
    for (size_t i = 0; i < count; i++) {
        int rc = kfs_drv_delete(base, keys[i], first ? NULL : err);
        if (first == 0)
            first = rc;
    }
    return first;
}

struct listing {
    struct file_drv *d;
    const char *prefix, *after;
    kfs_drv_list_cb cb;
    void *arg;
    struct kfs_err *err;
};

struct names {
    char **v;
    size_t count, cap;
};

static void names_release(struct names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->v[i]);
    free(n->v);
}

/* A directory counts as its name with a slash: that is how its keys sort among the others. */
static int names_add(struct names *n, const char *name, bool is_dir)
{
    if (n->count == n->cap) {
        size_t cap = n->cap ? n->cap * 2 : 64;
        char **v = realloc(n->v, cap * sizeof *v);
        if (!v)
            return -ENOMEM;
        n->v = v;
        n->cap = cap;
    }
    char *copy = NULL;
    if (asprintf(&copy, "%s%s", name, is_dir ? "/" : "") < 0)
        return -ENOMEM;
    n->v[n->count++] = copy;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_read(const struct listing *l, const char *dir, struct names *ret)
{
    DIR *s = dir_open(l->d, *dir ? dir : ".");
    if (!s)
        return errno == ENOENT ? 0 : -errno;
    int rc = 0;
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(s);
        if (!e) {
            rc = -errno;
            break;
        }
        struct stat st;
        if (e->d_name[0] == '.' || (!*dir && strcmp(e->d_name, TMP) == 0) || fstatat(dirfd(s), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
            continue;
        rc = names_add(ret, e->d_name, S_ISDIR(st.st_mode));
        if (rc < 0)
            break;
    }
    closedir(s);
    if (rc == 0 && ret->count)
        qsort(ret->v, ret->count, sizeof *ret->v, by_name);
    return rc;
}

static int list_dir(const struct listing *l, const char *dir);

/* path: a key, or a directory with its slash. */
static int list_one(const struct listing *l, const char *path)
{
    size_t len = strlen(path), plen = strlen(l->prefix), both = len < plen ? len : plen;
    bool is_dir = path[len - 1] == '/';
    if (memcmp(path, l->prefix, both) != 0 || (!is_dir && len < plen))
        return 0;
    if (is_dir) /* all of its keys are at or before `after` when it sorts before it and is no beginning of it */
        return l->after && strcmp(path, l->after) < 0 && strncmp(path, l->after, len) != 0 ? 0 : list_dir(l, path);
    struct stat st;
    if ((l->after && strcmp(path, l->after) <= 0) || fstatat(l->d->dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0; /* deleted while we looked */
    return l->cb(l->arg, path, (uint64_t)st.st_size, st.st_mtim.tv_sec);
}

static int list_dir(const struct listing *l, const char *dir)
{
    struct names n = {0};
    char path[KFS_DRV_KEY_MAX * 2];
    int rc = names_read(l, dir, &n);
    if (rc < 0)
        rc = failed(l->d, rc, "list", *dir ? dir : ".", l->err);
    for (size_t i = 0; rc == 0 && i < n.count; i++)
        if ((size_t)snprintf(path, sizeof path, "%s%s", dir, n.v[i]) < KFS_DRV_KEY_MAX) /* longer ones are none of our keys */
            rc = list_one(l, path);
    names_release(&n);
    return rc;
}

static int file_list(struct kfs_drv *base, const char *prefix, const char *after, kfs_drv_list_cb cb, void *arg, struct kfs_err *err)
{
    struct listing l = {.d = of(base), .prefix = prefix ? prefix : "", .after = after, .cb = cb, .arg = arg, .err = err};
    return list_dir(&l, "");
}

static int file_sync(struct kfs_drv *base, struct kfs_err *err)
{
    struct file_drv *d = of(base);
    return syncfs(d->dir_fd) < 0 ? KFS_FAIL(err, errno, "cannot sync store '%s': %s", d->dir, strerror(errno)) : 0;
}

static int file_statfs(struct kfs_drv *base, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes, struct kfs_err *err)
{
    struct file_drv *d = of(base);
    struct statvfs v;
    if (fstatvfs(d->dir_fd, &v) < 0)
        return KFS_FAIL(err, errno, "cannot ask store '%s' for its free space: %s", d->dir, strerror(errno));
    *ret_total_bytes = (uint64_t)v.f_blocks * v.f_frsize;
    *ret_free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}

static void file_stats(struct kfs_drv *base, struct kfs_drv_stats *ret)
{
    struct file_drv *d = of(base);
    *ret = (struct kfs_drv_stats){.limit = d->thread_max};
    for (int i = 0; i < 5; i++) {
        ret->requests[i] = __atomic_load_n(&d->requests[i], __ATOMIC_RELAXED);
        ret->attempts += ret->requests[i];
    }
    ret->sent_bytes = __atomic_load_n(&d->sent_bytes, __ATOMIC_RELAXED);
    ret->received_bytes = __atomic_load_n(&d->received_bytes, __ATOMIC_RELAXED);
    pthread_mutex_lock(&d->lock);
    ret->running = d->running;
    pthread_mutex_unlock(&d->lock);
}

/* --- open and close --------------------------------------------------------------------------- */

static int make_dirs(const char *dir, struct kfs_err *err)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s", dir) >= sizeof path)
        return KFS_FAIL(err, ENAMETOOLONG, "store directory '%.200s…' is too long; choose a shorter one", dir);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char keep = *p;
        *p = 0;
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return KFS_FAIL(err, errno, "cannot create store directory '%s': %s", path, strerror(errno));
        *p = keep;
        if (!keep)
            return 0;
    }
}

static void file_close(struct kfs_drv *base)
{
    struct file_drv *d = of(base);
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < d->thread_count; i++)
        pthread_join(d->threads[i], NULL);
    pthread_cond_destroy(&d->work);
    pthread_mutex_destroy(&d->lock);
    if (d->dir_fd >= 0)
        close(d->dir_fd);
    free(d->drv.url);
    free(d->dir);
    free(d);
}

static int file_open(const char *url, const struct kfs_drv_options *o, bool create, struct kfs_drv **ret_d, struct kfs_err *err)
{
    const char *dir = url + strlen("file:");
    if (*dir != '/')
        return KFS_FAIL(err, EINVAL, "store '%s' names no absolute directory; write 'file:/absolute/directory'", url);
    while (dir[1] == '/')
        dir++;
    int rc = create ? make_dirs(dir, err) : 0;
    if (rc < 0)
        return rc;
    struct file_drv *d = calloc(1, sizeof *d);
    if (!d)
        return KFS_FAIL(err, ENOMEM, "open store '%s': out of memory", url);
    d->drv.ops = &kfs_drv_file;
    d->dir_fd = -1;
    d->thread_max = o->requests_max && o->requests_max < THREADS_MAX ? o->requests_max : THREADS_MAX;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    for (int p = 0; p < PRIORITIES; p++)
        d->last[p] = &d->first[p];
    d->drv.url = strdup(url);
    d->dir = strdup(dir);
    if (!d->drv.url || !d->dir) {
        rc = KFS_FAIL(err, ENOMEM, "open store '%s': out of memory", url);
    } else {
        d->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (d->dir_fd < 0)
            rc = errno == ENOENT ? KFS_FAIL(err, ENOENT, "store '%s' does not exist; mount or restore it", dir)
                                 : KFS_FAIL(err, errno, "cannot open store '%s': %s", dir, strerror(errno));
    }
    if (rc < 0) {
        file_close(&d->drv);
        return rc;
    }
    *ret_d = &d->drv;
    return 0;
}

const struct kfs_drv_ops kfs_drv_file = {
    .scheme = "file",
    .open = file_open,
    .close = file_close,
    .run = file_run,
    .submit = file_submit,
    .cancel = file_cancel,
    .delete_many = file_delete_many,
    .list = file_list,
    .sync = file_sync,
    .statfs = file_statfs,
    .upload_begin = file_upload_begin,
    .upload_finish = file_upload_finish,
    .upload_abort = file_upload_abort,
    .upload_sweep = file_upload_sweep,
    .stats = file_stats,
};
