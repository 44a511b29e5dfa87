/* test_driver.c — the contract of the object drivers, on the driver `file` */
#include "blockstore/driver.h"
#include "tests/unit/blockstore/store_util.h"
#include <pthread.h>

struct drv_rig {
    char dir[512], url[600];
    struct kfs_drv *d;
};

static void drv_rig_open(struct drv_rig *r)
{
    tmp_make(r->dir, sizeof r->dir);
    snprintf(r->url, sizeof r->url, "file:%s/a/b", r->dir);
    ASSERT_OK(kfs_drv_open(r->url, NULL, true, &r->d, &kerr), kerr);
}

static void drv_rig_close(struct drv_rig *r)
{
    kfs_drv_close(r->d);
    tmp_remove(r->dir);
}

TEST(driver_url)
{
    struct kfs_drv *d = NULL;
    ASSERT_EQ(kfs_drv_open("ftp://x", NULL, false, &d, &kerr), -EINVAL);
    ASSERT_EQ(kfs_drv_open("file", NULL, false, &d, &kerr), -EINVAL);
    ASSERT_EQ(kfs_drv_open("file:x", NULL, false, &d, &kerr), -EINVAL);
    ASSERT_EQ(kfs_drv_open("file:/does/not/exist", NULL, false, &d, &kerr), -ENOENT);
    ASSERT(strstr(kerr.msg, "/does/not/exist"));
    struct drv_rig r;
    drv_rig_open(&r);
    ASSERT_STR(kfs_drv_url(r.d), r.url);
    ASSERT(!kfs_drv_is_remote(r.d));
    drv_rig_close(&r);
}

TEST(driver_put_and_get)
{
    struct drv_rig r;
    char buf[32];
    size_t got = 0;
    uint64_t size = 0;
    int64_t mtime = 0;
    drv_rig_open(&r);
    ASSERT_EQ(kfs_drv_get(r.d, "o/x", 0, buf, 1, &got, NULL, &kerr), -ENOENT);
    ASSERT(strstr(kerr.msg, "o/x"));
    ASSERT_OK(kfs_drv_put(r.d, "o/x", "0123456789", 10, KFS_DRV_DURABLE, &kerr), kerr);
    ASSERT_OK(kfs_drv_get(r.d, "o/x", 0, buf, sizeof buf, &got, &size, &kerr), kerr);
    ASSERT(got == 10 && size == 10 && memcmp(buf, "0123456789", 10) == 0);
    ASSERT_OK(kfs_drv_get(r.d, "o/x", 3, buf, 4, &got, &size, &kerr), kerr);
    ASSERT(got == 4 && size == 10 && memcmp(buf, "3456", 4) == 0);
    ASSERT_OK(kfs_drv_get(r.d, "o/x", KFS_DRV_TAIL, buf, 3, &got, &size, &kerr), kerr);
    ASSERT(got == 3 && memcmp(buf, "789", 3) == 0);
    ASSERT_OK(kfs_drv_get(r.d, "o/x", KFS_DRV_TAIL, buf, 20, &got, &size, &kerr), kerr);
    ASSERT_EQ(got, 10);
    ASSERT_EQ(kfs_drv_get(r.d, "o/x", 11, buf, 1, &got, NULL, &kerr), -ERANGE);
    ASSERT_EQ(kfs_drv_put(r.d, "o/x", "new", 3, KFS_DRV_NEW, &kerr), -EEXIST);
    ASSERT_OK(kfs_drv_put(r.d, "o/y", "new", 3, KFS_DRV_NEW, &kerr), kerr);
    ASSERT_OK(kfs_drv_put(r.d, "o/x", "another", 7, 0, &kerr), kerr);
    ASSERT_OK(kfs_drv_head(r.d, "o/x", &size, &mtime, &kerr), kerr);
    ASSERT(size == 7 && mtime > 0);
    ASSERT_OK(kfs_drv_delete(r.d, "o/x", &kerr), kerr);
    ASSERT_OK(kfs_drv_delete(r.d, "o/x", &kerr), kerr);
    ASSERT_EQ(kfs_drv_head(r.d, "o/x", &size, &mtime, &kerr), -ENOENT);
    ASSERT_EQ(kfs_drv_put(r.d, "", "x", 1, 0, &kerr), -EINVAL);
    struct kfs_drv_stats st;
    kfs_drv_stats(r.d, &st);
    ASSERT(st.requests[KFS_DRV_PUT] == 4 && st.requests[KFS_DRV_DELETE] == 2 && st.sent_bytes == 10 + 3 + 3 + 7);
    drv_rig_close(&r);
}

struct keys {
    char text[256];
    int stop_at, n;
};

static int add_key(void *arg, const char *key, uint64_t bytes, int64_t mtime_s)
{
    struct keys *k = arg;
    if (bytes != 1 || mtime_s == 0)
        return -EIO;
    strcat(strcat(k->text, key), " ");
    return ++k->n == k->stop_at ? 7 : 0;
}

TEST(driver_list_in_byte_order)
{
    static const char *const keys[] = {"o/b", "a", "o-1", "o/a/2", "o/a/1", "o/a-", "o0", "p/q/r"};
    struct drv_rig r;
    drv_rig_open(&r);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        ASSERT_OK(kfs_drv_put(r.d, keys[i], "x", 1, 0, &kerr), kerr);
    struct keys k = {0};
    ASSERT_EQ(kfs_drv_list(r.d, "", NULL, add_key, &k, &kerr), 0);
    ASSERT_STR(k.text, "a o-1 o/a- o/a/1 o/a/2 o/b o0 p/q/r ");
    k = (struct keys){0};
    ASSERT_EQ(kfs_drv_list(r.d, "o/", "o/a/1", add_key, &k, &kerr), 0);
    ASSERT_STR(k.text, "o/a/2 o/b ");
    k = (struct keys){0};
    ASSERT_EQ(kfs_drv_list(r.d, "o/a", NULL, add_key, &k, &kerr), 0);
    ASSERT_STR(k.text, "o/a- o/a/1 o/a/2 ");
    k = (struct keys){.stop_at = 2};
    ASSERT_EQ(kfs_drv_list(r.d, "", "a", add_key, &k, &kerr), 7);
    ASSERT_STR(k.text, "o-1 o/a- ");
    ASSERT_OK(kfs_drv_delete_many(r.d, keys, sizeof keys / sizeof *keys, &kerr), kerr);
    k = (struct keys){0};
    ASSERT_EQ(kfs_drv_list(r.d, "", NULL, add_key, &k, &kerr), 0);
    ASSERT_EQ(k.n, 0);
    drv_rig_close(&r);
}

/* --- many at once ----------------------------------------------------------------------------- */

#define MANY 200
struct many {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned done, failed, cancelled;
    struct kfs_drv_req q[MANY];
    char buf[MANY][4096];
};

static void many_done(struct kfs_drv_req *q)
{
    struct many *m = q->arg;
    pthread_mutex_lock(&m->lock);
    m->done++;
    m->failed += q->status < 0 && q->status != -ECANCELED;
    m->cancelled += q->status == -ECANCELED;
    pthread_cond_signal(&m->cond);
    pthread_mutex_unlock(&m->lock);
}

static void many_wait(struct many *m)
{
    pthread_mutex_lock(&m->lock);
    while (m->done < MANY)
        pthread_cond_wait(&m->cond, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

static void many_submit(struct many *m, struct kfs_drv *d, enum kfs_drv_op op)
{
    m->done = m->failed = m->cancelled = 0;
    for (unsigned i = 0; i < MANY; i++) {
        m->q[i] = (struct kfs_drv_req){.op = op, .priority = i % 3, .done = many_done, .arg = m, .len = 4096, .buf = m->buf[i], .iov_count = 2};
        snprintf(m->q[i].key, sizeof m->q[i].key, "o/%02x/%u", i % 7, i);
        m->q[i].iov[0] = (struct iovec){m->buf[i], 1000};
        m->q[i].iov[1] = (struct iovec){m->buf[i] + 1000, 3096};
        kfs_drv_submit(d, &m->q[i]);
    }
}

TEST(driver_many_requests_at_once)
{
    static struct many m = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct drv_rig r;
    drv_rig_open(&r);
    for (unsigned i = 0; i < MANY; i++)
        fill_pattern((unsigned char *)m.buf[i], 4096, i);
    many_submit(&m, r.d, KFS_DRV_PUT);
    many_wait(&m);
    ASSERT_EQ(m.failed, 0);
    memset(m.buf, 0, sizeof m.buf);
    many_submit(&m, r.d, KFS_DRV_GET);
    many_wait(&m);
    ASSERT_EQ(m.failed, 0);
    for (unsigned i = 0; i < MANY; i++) {
        unsigned char want[4096];
        fill_pattern(want, sizeof want, i);
        ASSERT(m.q[i].got == 4096 && memcmp(m.buf[i], want, sizeof want) == 0);
    }
    many_submit(&m, r.d, KFS_DRV_GET);
    for (unsigned i = 0; i < MANY; i++)
        kfs_drv_cancel(r.d, &m.q[i]);
    many_wait(&m); /* each is done exactly once, one way or the other */
    ASSERT_EQ(m.failed, 0);
    many_submit(&m, r.d, KFS_DRV_DELETE);
    kfs_drv_close(r.d); /* waits for them */
    ASSERT_EQ(m.done, MANY);
    ASSERT_EQ(m.failed, 0);
    ASSERT_OK(kfs_drv_open(r.url, NULL, false, &r.d, &kerr), kerr);
    struct keys k = {0};
    ASSERT_EQ(kfs_drv_list(r.d, "", NULL, add_key, &k, &kerr), 0);
    ASSERT_EQ(k.n, 0);
    drv_rig_close(&r);
}

TEST(driver_upload_in_parts)
{
    struct drv_rig r;
    struct kfs_drv_upload *u = NULL;
    uint64_t size = 0;
    char buf[8], first[] = "abcd", second[] = "ef";
    size_t got = 0;
    drv_rig_open(&r);
    ASSERT_OK(kfs_drv_upload_begin(r.d, "o/big", &u, &kerr), kerr);
    for (unsigned part = 2; part >= 1; part--) { /* in any order */
        struct kfs_drv_req q = {.op = KFS_DRV_PART, .upload = u, .part = part, .part_off = part == 1 ? 0 : 4, .iov_count = 1};
        q.iov[0] = part == 1 ? (struct iovec){first, 4} : (struct iovec){second, 2};
        ASSERT_EQ(kfs_drv_run(r.d, &q), 0);
        ASSERT_EQ(kfs_drv_head(r.d, "o/big", &size, NULL, &kerr), -ENOENT);
    }
    ASSERT_OK(kfs_drv_upload_finish(u, KFS_DRV_DURABLE, &kerr), kerr);
    ASSERT_OK(kfs_drv_get(r.d, "o/big", 0, buf, 8, &got, &size, &kerr), kerr);
    ASSERT(got == 6 && memcmp(buf, "abcdef", 6) == 0);
    ASSERT_OK(kfs_drv_upload_begin(r.d, "o/none", &u, &kerr), kerr);
    ASSERT_EQ(kfs_drv_upload_sweep(r.d, 0, &kerr), 0); /* its writer lives */
    kfs_drv_upload_abort(u);
    kfs_drv_upload_abort(NULL);
    ASSERT_EQ(kfs_drv_head(r.d, "o/none", &size, NULL, &kerr), -ENOENT);
    char path[700];
    snprintf(path, sizeof path, "%s/a/b/tmp/dead", r.dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    ASSERT_EQ(kfs_drv_upload_sweep(r.d, 3600, &kerr), 0); /* too young */
    ASSERT_EQ(kfs_drv_upload_sweep(r.d, 0, &kerr), 1);
    ASSERT(access(path, F_OK) < 0);
    drv_rig_close(&r);
}

KT_MAIN
