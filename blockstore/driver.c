/* blockstore/driver.c — which driver serves a URL, and the waiting forms of its requests */
#include "blockstore/driver_ops.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const struct kfs_drv_ops *const drivers[] = {&kfs_drv_file, &kfs_drv_s3};

static const struct kfs_drv_ops *find(const char *url)
{
    const char *colon = strchr(url, ':');
    size_t len = colon ? (size_t)(colon - url) : 0;
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++)
        if (strlen(drivers[i]->scheme) == len && strncmp(drivers[i]->scheme, url, len) == 0)
            return drivers[i];
    return NULL;
}

int kfs_drv_open(const char *url, const struct kfs_drv_options *o, bool create, struct kfs_drv **ret_d, struct kfs_err *err)
{
    static const struct kfs_drv_options defaults;
    const struct kfs_drv_ops *ops = find(url);
    if (ops)
        return ops->open(url, o ? o : &defaults, create, ret_d, err);
    return KFS_FAIL(err, EINVAL, "store '%s' is of an unknown kind; write 'file:/absolute/directory' or 's3://bucket/prefix'", url);
}

void kfs_drv_close(struct kfs_drv *d)
{
    if (d)
        d->ops->close(d);
}

const char *kfs_drv_url(const struct kfs_drv *d)
{
    return d->url;
}

bool kfs_drv_is_remote(const struct kfs_drv *d)
{
    return d->ops->remote;
}

void kfs_drv_submit(struct kfs_drv *d, struct kfs_drv_req *q)
{
    assert(q->done && memchr(q->key, 0, sizeof q->key));
    d->ops->submit(d, q);
}

void kfs_drv_cancel(struct kfs_drv *d, struct kfs_drv_req *q)
{
    d->ops->cancel(d, q);
}

/* --- waiting ---------------------------------------------------------------------------------- */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

static void wake(struct kfs_drv_req *q)
{
    struct waiter *w = q->arg;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

int kfs_drv_run(struct kfs_drv *d, struct kfs_drv_req *q)
{
    if (d->ops->run) {
        d->ops->run(d, q);
        return q->status;
    }
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    q->done = wake;
    q->arg = &w; // cppcheck-suppress autoVariables ; done has been called before w goes
    kfs_drv_submit(d, q);
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    pthread_cond_destroy(&w.cond);
    pthread_mutex_destroy(&w.lock);
    return q->status;
}

int kfs_drv_req_key(struct kfs_drv_req *q, const char *key, struct kfs_err *err)
{
    size_t len = strlen(key);
    if (len == 0 || len >= sizeof q->key)
        return KFS_FAIL(err, EINVAL, "key '%.150s' is not usable; it needs 1 to %d characters", key, KFS_DRV_KEY_MAX - 1);
    memcpy(q->key, key, len + 1);
    return 0;
}

/* The result of a request that was waited for. */
static int result(const struct kfs_drv_req *q, struct kfs_err *err)
{
    if (q->status < 0 && err)
        *err = q->err;
    return q->status;
}

int kfs_drv_get(struct kfs_drv *d, const char *key, uint64_t off, void *buf, size_t len, size_t *ret_got, uint64_t *ret_value_bytes, struct kfs_err *err)
{
    struct kfs_drv_req q = {.op = KFS_DRV_GET, .off = off, .buf = buf, .len = len};
    int rc = kfs_drv_req_key(&q, key, err);
    if (rc == 0) {
        (void)kfs_drv_run(d, &q);
        rc = result(&q, err);
    }
    if (rc < 0)
        return rc;
    *ret_got = q.got;
    if (ret_value_bytes)
        *ret_value_bytes = q.value_bytes;
    return 0;
}

int kfs_drv_put(struct kfs_drv *d, const char *key, const void *buf, size_t len, unsigned flags, struct kfs_err *err)
{
    struct kfs_drv_req q = {.op = KFS_DRV_PUT, .flags = flags, .iov_count = 1};
    q.iov[0] = (struct iovec){(void *)(uintptr_t)buf, len};
    int rc = kfs_drv_req_key(&q, key, err);
    if (rc < 0)
        return rc;
    (void)kfs_drv_run(d, &q);
    return result(&q, err);
}

int kfs_drv_head(struct kfs_drv *d, const char *key, uint64_t *ret_bytes, int64_t *ret_mtime_s, struct kfs_err *err)
{
    struct kfs_drv_req q = {.op = KFS_DRV_HEAD};
    int rc = kfs_drv_req_key(&q, key, err);
    if (rc == 0) {
        (void)kfs_drv_run(d, &q);
        rc = result(&q, err);
    }
    if (rc < 0)
        return rc;
    if (ret_bytes)
        *ret_bytes = q.value_bytes;
    if (ret_mtime_s)
        *ret_mtime_s = q.mtime_s;
    return 0;
}

int kfs_drv_delete(struct kfs_drv *d, const char *key, struct kfs_err *err)
{
    struct kfs_drv_req q = {.op = KFS_DRV_DELETE};
    int rc = kfs_drv_req_key(&q, key, err);
    if (rc < 0)
        return rc;
    (void)kfs_drv_run(d, &q);
    return q.status == -ENOENT ? 0 : result(&q, err);
}

/* --- passed on -------------------------------------------------------------------------------- */

int kfs_drv_delete_many(struct kfs_drv *d, const char *const *keys, size_t count, struct kfs_err *err)
{
    return d->ops->delete_many(d, keys, count, err);
}

int kfs_drv_list(struct kfs_drv *d, const char *prefix, const char *after, kfs_drv_list_cb cb, void *arg, struct kfs_err *err)
{
    return d->ops->list(d, prefix, after, cb, arg, err);
}

int kfs_drv_sync(struct kfs_drv *d, struct kfs_err *err)
{
    return d->ops->sync(d, err);
}

int kfs_drv_statfs(struct kfs_drv *d, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes, struct kfs_err *err)
{
    return d->ops->statfs(d, ret_total_bytes, ret_free_bytes, err);
}

int kfs_drv_upload_begin(struct kfs_drv *d, const char *key, struct kfs_drv_upload **ret_u, struct kfs_err *err)
{
    return d->ops->upload_begin(d, key, ret_u, err);
}

int kfs_drv_upload_finish(struct kfs_drv_upload *u, unsigned flags, struct kfs_err *err)
{
    return u->drv->ops->upload_finish(u, flags, err);
}

void kfs_drv_upload_abort(struct kfs_drv_upload *u)
{
    if (u)
        u->drv->ops->upload_abort(u);
}

int64_t kfs_drv_upload_sweep(struct kfs_drv *d, int64_t age_s, struct kfs_err *err)
{
    return d->ops->upload_sweep(d, age_s, err);
}

void kfs_drv_stats(struct kfs_drv *d, struct kfs_drv_stats *ret)
{
    d->ops->stats(d, ret);
}
