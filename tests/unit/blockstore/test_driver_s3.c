/* Every call of the driver against a real S3 server. What goes wrong on the way is tests/s3's matter. */
#include "base/clock.h"
#include "blockstore/driver.h"
#include "blockstore/limit.h"
#include "tests/unit/blockstore/s3_server.h"
#include <pthread.h>

static struct kfs_err err;

static struct kfs_drv *open_with(const char *prefix, const char *more, const char *settings)
{
    char url[400];
    struct kfs_drv *d;
    struct kfs_drv_options o = {.settings = settings, .retry_budget_s = 20};
    int port = s3_server();
    s3_environment();
    err = (struct kfs_err){0};
    snprintf(url, sizeof url, "s3://kfs/%s?endpoint=http://127.0.0.1:%d%s", prefix, port, more);
    ASSERT_OK(kfs_drv_open(url, &o, false, &d, &err), err);
    return d;
}

static char *pattern(size_t n, unsigned seed)
{
    char *p = malloc(n + 1);
    uint64_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        p[i] = (char)(x >> 56);
    }
    return p;
}

TEST(put_get_head_delete)
{
    struct kfs_drv *d = open_with("a/b", "", NULL);
    static char back[1 << 20];
    char *data = pattern(1 << 20, 1);
    size_t got;
    uint64_t bytes;
    int64_t mtime;
    ASSERT(kfs_drv_is_remote(d));
    ASSERT_EQ(kfs_drv_head(d, "x/1", &bytes, &mtime, &err), -ENOENT);
    ASSERT_EQ(kfs_drv_get(d, "x/1", 0, back, sizeof back, &got, &bytes, &err), -ENOENT);
    ASSERT_OK(kfs_drv_put(d, "x/1", data, 1 << 20, 0, &err), err);
    ASSERT_OK(kfs_drv_head(d, "x/1", &bytes, &mtime, &err), err);
    ASSERT_EQ(bytes, 1 << 20);
    ASSERT(mtime > 1600000000);
    ASSERT_OK(kfs_drv_get(d, "x/1", 0, back, sizeof back, &got, &bytes, &err), err);
    ASSERT_EQ(got, 1 << 20);
    ASSERT_EQ(bytes, 1 << 20);
    ASSERT_EQ(memcmp(back, data, 1 << 20), 0);
    ASSERT_OK(kfs_drv_delete(d, "x/1", &err), err);
    ASSERT_OK(kfs_drv_delete(d, "x/1", &err), err);
    ASSERT_EQ(kfs_drv_head(d, "x/1", &bytes, &mtime, &err), -ENOENT);
    kfs_drv_close(d);
    free(data);
}

TEST(ranges)
{
    struct kfs_drv *d = open_with("r", "", NULL);
    static const struct { uint64_t off; size_t len, got; } ROWS[] = {
        {0, 1, 1}, {0, 1000, 1000}, {0, 2000, 1000}, {999, 1, 1}, {999, 50, 1}, {100, 300, 300}, {KFS_DRV_TAIL, 10, 10}, {KFS_DRV_TAIL, 5000, 1000},
    };
    char *data = pattern(1000, 2), back[8192];
    size_t got;
    uint64_t bytes;
    ASSERT_OK(kfs_drv_put(d, "k", data, 1000, 0, &err), err);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        ASSERT_OK(kfs_drv_get(d, "k", ROWS[i].off, back, ROWS[i].len, &got, &bytes, &err), err);
        ASSERT_EQ(got, ROWS[i].got);
        ASSERT_EQ(bytes, 1000);
        size_t at = ROWS[i].off == KFS_DRV_TAIL ? 1000 - got : ROWS[i].off;
        ASSERT_EQ(memcmp(back, data + at, got), 0);
    }
    ASSERT_EQ(kfs_drv_get(d, "k", 1000, back, 1, &got, &bytes, &err), -ERANGE);
    ASSERT_EQ(kfs_drv_get(d, "k", 5000000000u, back, 1, &got, &bytes, &err), -ERANGE);
    ASSERT_OK(kfs_drv_get(d, "k", 0, back, 0, &got, &bytes, &err), err);
    ASSERT_EQ(got, 0);
    ASSERT_EQ(bytes, 1000);
    kfs_drv_close(d);
    free(data);
}

TEST(empty_value)
{
    struct kfs_drv *d = open_with("e", "", NULL);
    char back[10];
    size_t got = 1;
    uint64_t bytes = 1;
    ASSERT_OK(kfs_drv_put(d, "k", "", 0, 0, &err), err);
    ASSERT_OK(kfs_drv_get(d, "k", 0, back, sizeof back, &got, &bytes, &err), err);
    ASSERT_EQ(got, 0);
    ASSERT_EQ(bytes, 0);
    got = bytes = 1;
    ASSERT_OK(kfs_drv_get(d, "k", KFS_DRV_TAIL, back, sizeof back, &got, &bytes, &err), err);
    ASSERT_EQ(got, 0);
    ASSERT_EQ(bytes, 0);
    kfs_drv_close(d);
}

TEST(new_only_when_absent)
{
    struct kfs_drv *d = open_with("n", "", NULL);
    char back[10];
    size_t got;
    ASSERT_OK(kfs_drv_put(d, "marker", "one", 3, KFS_DRV_NEW, &err), err);
    ASSERT_EQ(kfs_drv_put(d, "marker", "two", 3, KFS_DRV_NEW, &err), -EEXIST);
    ASSERT_OK(kfs_drv_get(d, "marker", 0, back, sizeof back, &got, NULL, &err), err);
    ASSERT_EQ(got, 3);
    ASSERT_EQ(memcmp(back, "one", 3), 0);
    ASSERT_OK(kfs_drv_put(d, "marker", "three", 5, 0, &err), err);
    kfs_drv_close(d);
}

struct seen {
    char keys[4000][40];
    size_t count, stop_at;
    uint64_t bytes;
};

static int see(void *arg, const char *key, uint64_t bytes, int64_t mtime_s)
{
    struct seen *s = arg;
    ASSERT(mtime_s > 1600000000);
    snprintf(s->keys[s->count++], sizeof s->keys[0], "%s", key);
    s->bytes += bytes;
    return s->count == s->stop_at ? 77 : 0;
}

TEST(list_and_delete_many)
{
    enum { N = 2300 };
    struct kfs_drv *d = open_with("l/deep", "", NULL);
    struct kfs_drv *root = open_with("l", "", NULL);
    static struct seen s;
    static char names[N][40];
    static const char *keys[N + 1];
    static struct kfs_drv_req q[N];
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "%02x/%05d", i % 16, i);
        keys[i] = names[i];
        ASSERT_OK(kfs_drv_put(d, names[i], names[i], (size_t)(i % 7), 0, &err), err);
    }
    (void)q;
    ASSERT_OK(kfs_drv_put(d, "other", "x", 1, 0, &err), err);
    ASSERT_OK(kfs_drv_list(d, "", NULL, see, &s, &err), err);
    ASSERT_EQ(s.count, N + 1);
    for (size_t i = 1; i < s.count; i++)
        ASSERT(strcmp(s.keys[i - 1], s.keys[i]) < 0);
    memset(&s, 0, sizeof s);
    ASSERT_OK(kfs_drv_list(d, "0f/", NULL, see, &s, &err), err);
    ASSERT_EQ(s.count, N / 16);
    ASSERT_EQ(strncmp(s.keys[0], "0f/00015", 8), 0);
    memset(&s, 0, sizeof s);
    ASSERT_OK(kfs_drv_list(d, "0f/", "0f/01000", see, &s, &err), err);
    ASSERT(strcmp(s.keys[0], "0f/01000") > 0);
    memset(&s, 0, sizeof s);
    s.stop_at = 3;
    ASSERT_EQ(kfs_drv_list(d, "", NULL, see, &s, &err), 77);
    ASSERT_EQ(s.count, 3);
    memset(&s, 0, sizeof s);
    ASSERT_OK(kfs_drv_list(root, "deep/00/", NULL, see, &s, &err), err);
    ASSERT_EQ(s.count, (N + 15) / 16);
    keys[N] = "not/there";
    ASSERT_OK(kfs_drv_delete_many(d, keys, N + 1, &err), err);
    memset(&s, 0, sizeof s);
    ASSERT_OK(kfs_drv_list(d, "", NULL, see, &s, &err), err);
    ASSERT_EQ(s.count, 1);
    ASSERT_STR(s.keys[0], "other");
    memset(&s, 0, sizeof s);
    ASSERT_OK(kfs_drv_list(d, "nothing/", NULL, see, &s, &err), err);
    ASSERT_EQ(s.count, 0);
    kfs_drv_close(d);
    kfs_drv_close(root);
}

/* --- asynchronous --- */

struct tally {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int left;
};

static void tally_done(struct kfs_drv_req *q)
{
    struct tally *t = q->arg;
    pthread_mutex_lock(&t->lock);
    if (--t->left == 0)
        pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->lock);
}

static void tally_wait(struct tally *t)
{
    pthread_mutex_lock(&t->lock);
    while (t->left)
        pthread_cond_wait(&t->cond, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

TEST(upload_in_parts)
{
    enum { PART = 5 << 20, PARTS = 4, LAST = 12345 };
    struct kfs_drv *d = open_with("u", "", NULL);
    struct tally t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PARTS};
    static struct kfs_drv_req q[PARTS];
    size_t all = PART * (PARTS - 1) + LAST, got;
    uint64_t bytes;
    char *data = pattern(all, 3), *back = malloc(all);
    struct kfs_drv_upload *u;
    ASSERT_OK(kfs_drv_upload_begin(d, "big", &u, &err), err);
    for (int i = PARTS - 1; i >= 0; i--) {
        size_t off = (size_t)i * PART, len = i == PARTS - 1 ? LAST : PART;
        q[i] = (struct kfs_drv_req){.op = KFS_DRV_PART, .upload = u, .part = (unsigned)i + 1, .part_off = off, .done = tally_done, .arg = &t, .iov_count = 2};
        q[i].iov[0] = (struct iovec){data + off, 1000};
        q[i].iov[1] = (struct iovec){data + off + 1000, len - 1000};
        kfs_drv_submit(d, &q[i]);
    }
    tally_wait(&t);
    for (int i = 0; i < PARTS; i++)
        ASSERT_OK(q[i].status, q[i].err);
    ASSERT_EQ(kfs_drv_head(d, "big", &bytes, NULL, &err), -ENOENT);
    ASSERT_OK(kfs_drv_upload_finish(u, KFS_DRV_DURABLE, &err), err);
    ASSERT_OK(kfs_drv_get(d, "big", 0, back, all, &got, &bytes, &err), err);
    ASSERT_EQ(got, all);
    ASSERT_EQ(bytes, all);
    ASSERT_EQ(memcmp(back, data, all), 0);

    /* aborted: nothing is left; forgotten: the sweep finds it */
    ASSERT_OK(kfs_drv_upload_begin(d, "gone", &u, &err), err);
    q[0] = (struct kfs_drv_req){.op = KFS_DRV_PART, .upload = u, .part = 1, .iov_count = 1, .iov = {{data, 100}}};
    ASSERT_OK(kfs_drv_run(d, &q[0]), q[0].err);
    kfs_drv_upload_abort(u);
    ASSERT_EQ(kfs_drv_head(d, "gone", &bytes, NULL, &err), -ENOENT);
    ASSERT_EQ(kfs_drv_upload_sweep(d, -10, &err), 0);
    ASSERT_OK(kfs_drv_upload_begin(d, "lost", &u, &err), err);
    ASSERT_EQ(kfs_drv_upload_sweep(d, 3600, &err), 0);
    ASSERT_EQ(kfs_drv_upload_sweep(d, -10, &err), 1);
    kfs_drv_upload_abort(u);
    ASSERT_OK(kfs_drv_upload_begin(d, "nothing", &u, &err), err);
    ASSERT_OK(kfs_drv_upload_finish(u, 0, &err), err);
    ASSERT_OK(kfs_drv_head(d, "nothing", &bytes, NULL, &err), err);
    ASSERT_EQ(bytes, 0);
    kfs_drv_close(d);
    free(data);
    free(back);
}

static size_t progress_last;
static bool progress_right;
static const char *progress_data;

static void progress(struct kfs_drv_req *q, size_t have)
{
    progress_right = progress_right && have > progress_last && memcmp(q->buf, progress_data, have) == 0;
    progress_last = have;
}

TEST(many_at_once_and_progress)
{
    enum { N = 200, LEN = 300000 };
    struct kfs_drv *d = open_with("m", "", NULL);
    static struct kfs_drv_req q[N];
    struct tally t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, N};
    char *data = pattern(LEN + N, 4), *back = malloc((size_t)N * LEN);
    for (int i = 0; i < N; i++) {
        q[i] = (struct kfs_drv_req){.op = KFS_DRV_PUT, .priority = (enum kfs_drv_priority)(i % 3), .done = tally_done, .arg = &t, .iov_count = 1};
        snprintf(q[i].key, sizeof q[i].key, "m/%d", i);
        q[i].iov[0] = (struct iovec){data + i, LEN};
        kfs_drv_submit(d, &q[i]);
    }
    tally_wait(&t);
    t.left = N;
    for (int i = 0; i < N; i++) {
        ASSERT_OK(q[i].status, q[i].err);
        q[i] = (struct kfs_drv_req){.op = KFS_DRV_GET, .priority = (enum kfs_drv_priority)(i % 3), .done = tally_done, .arg = &t, .len = LEN,
                                    .buf = back + (size_t)i * LEN};
        snprintf(q[i].key, sizeof q[i].key, "m/%d", i);
        kfs_drv_submit(d, &q[i]);
    }
    tally_wait(&t);
    for (int i = 0; i < N; i++) {
        ASSERT_OK(q[i].status, q[i].err);
        ASSERT_EQ(q[i].got, LEN);
        ASSERT_EQ(memcmp(back + (size_t)i * LEN, data + i, LEN), 0);
    }
    struct kfs_drv_stats st;
    kfs_drv_stats(d, &st);
    ASSERT_EQ(st.requests[KFS_DRV_GET], N);
    ASSERT_EQ(st.requests[KFS_DRV_PUT], N);
    ASSERT(st.sent_bytes >= (uint64_t)N * LEN && st.received_bytes >= (uint64_t)N * LEN);
    struct kfs_drv_req g = {.op = KFS_DRV_GET, .len = LEN, .buf = back, .progress = progress, .key = "m/7"};
    memset(back, 0, LEN);
    progress_data = data + 7;
    progress_last = 0;
    progress_right = true;
    ASSERT_OK(kfs_drv_run(d, &g), g.err);
    ASSERT(progress_right);
    ASSERT_EQ(progress_last, LEN);
    kfs_drv_close(d);
    free(data);
    free(back);
}

TEST(cancel)
{
    enum { N = 64, LEN = 4 << 20 };
    struct kfs_drv *d = open_with("c", "", NULL);
    static struct kfs_drv_req q[N];
    struct tally t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, N};
    char *data = pattern(LEN, 5), *back = malloc((size_t)N * LEN);
    int cancelled = 0;
    ASSERT_OK(kfs_drv_put(d, "k", data, LEN, 0, &err), err);
    for (int i = 0; i < N; i++) {
        q[i] = (struct kfs_drv_req){.op = KFS_DRV_GET, .len = LEN, .buf = back + (size_t)i * LEN, .done = tally_done, .arg = &t, .key = "k"};
        kfs_drv_submit(d, &q[i]);
    }
    for (int i = 0; i < N; i += 2)
        kfs_drv_cancel(d, &q[i]);
    tally_wait(&t);
    for (int i = 0; i < N; i++) {
        if (q[i].status == -ECANCELED && i % 2 == 0) {
            cancelled++;
            continue;
        }
        ASSERT_OK(q[i].status, q[i].err);
        ASSERT_EQ(memcmp(back + (size_t)i * LEN, data, LEN), 0);
    }
    ASSERT(cancelled > 0);
    kfs_drv_cancel(d, &q[0]); /* long done: nothing happens */
    kfs_drv_close(d);
    free(data);
    free(back);
}

TEST(byte_rates)
{
    enum { LEN = 4 << 20, RATE = 16 << 20 };
    struct kfs_drv *d = open_with("rate", "", NULL);
    char *data = pattern(LEN, 6), *back = malloc(LEN);
    size_t got;
    uint64_t at = kfs_clock_mono_ns();
    kfs_limit_set(&kfs_limit_upload, RATE);
    ASSERT_OK(kfs_drv_put(d, "k", data, LEN, 0, &err), err);
    ASSERT(kfs_clock_mono_ns() - at > 80000000u); /* a quarter of a second, less what a bucket holds and its last debt */
    kfs_limit_set(&kfs_limit_upload, 0);
    at = kfs_clock_mono_ns();
    kfs_limit_set(&kfs_limit_download, RATE);
    ASSERT_OK(kfs_drv_get(d, "k", 0, back, LEN, &got, NULL, &err), err);
    ASSERT(kfs_clock_mono_ns() - at > 80000000u);
    kfs_limit_set(&kfs_limit_download, 0);
    ASSERT_EQ(memcmp(back, data, LEN), 0);
    kfs_drv_close(d);
    free(data);
    free(back);
}

/* --- who may, and where --- */

TEST(wrong_key_is_refused)
{
    struct kfs_drv *d;
    size_t got;
    char b[4];
    char url[200];
    int port = s3_server();
    s3_environment();
    setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-it-is", 1);
    snprintf(url, sizeof url, "s3://kfs/w?endpoint=http://127.0.0.1:%d", port);
    ASSERT_OK(kfs_drv_open(url, NULL, false, &d, &err), err);
    ASSERT_EQ(kfs_drv_get(d, "k", 0, b, 4, &got, NULL, &err), -EACCES);
    ASSERT(strstr(err.msg, "secret key is wrong"));
    ASSERT(!strstr(err.msg, "wrong-secret-it-is"));
    ASSERT_EQ(kfs_drv_head(d, "k", NULL, NULL, &err), -EACCES);
    ASSERT_EQ(kfs_drv_put(d, "k", "x", 1, 0, &err), -EACCES);
    kfs_drv_close(d);
    setenv("AWS_ACCESS_KEY_ID", "nobody", 1);
    ASSERT_OK(kfs_drv_open(url, NULL, false, &d, &err), err);
    if (kfs_drv_put(d, "k", "x", 1, 0, &err) != -EACCES)
        KT_FAIL("an unknown key gives: %s", err.msg);
    kfs_drv_close(d);
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    ASSERT_EQ(kfs_drv_open(url, NULL, false, &d, &err), -EACCES);
    ASSERT(strstr(err.msg, "AWS_ACCESS_KEY_ID"));
}

TEST(no_bucket)
{
    char url[200], b[4];
    struct kfs_drv *d;
    size_t got;
    int port = s3_server();
    s3_environment();
    snprintf(url, sizeof url, "s3://no-such-bucket/w?endpoint=http://127.0.0.1:%d", port);
    ASSERT_OK(kfs_drv_open(url, NULL, false, &d, &err), err);
    ASSERT_EQ(kfs_drv_get(d, "k", 0, b, 4, &got, NULL, &err), -ENXIO);
    ASSERT_EQ(kfs_drv_put(d, "k", "x", 1, 0, &err), -ENXIO);
    kfs_drv_close(d);
}

TEST(nobody_there)
{
    char url[200], b[4];
    struct kfs_drv *d;
    struct kfs_drv_options o = {.retry_budget_s = 0.3};
    size_t got;
    s3_environment();
    snprintf(url, sizeof url, "s3://kfs/w?endpoint=http://127.0.0.1:%d", s3_free_port());
    ASSERT_OK(kfs_drv_open(url, &o, false, &d, &err), err);
    ASSERT_EQ(kfs_drv_get(d, "k", 0, b, 4, &got, NULL, &err), -ECONNREFUSED);
    kfs_drv_close(d);
    ASSERT_OK(kfs_drv_open("s3://kfs/w?endpoint=http://no-such-host.invalid", &o, false, &d, &err), err);
    ASSERT_EQ(kfs_drv_get(d, "k", 0, b, 4, &got, NULL, &err), -EHOSTUNREACH);
    kfs_drv_close(d);
}

TEST(region_is_found_and_the_clock_corrected)
{
    struct kfs_drv *d = open_with("reg", "&region=eu-far-away-7", NULL);
    char b[4];
    size_t got;
    ASSERT_OK(kfs_drv_put(d, "k", "abc", 3, 0, &err), err);
    kfs_drv_close(d);
    d = open_with("reg", "", "clock_offset_s=-7200\n");
    ASSERT_OK(kfs_drv_get(d, "k", 0, b, 4, &got, NULL, &err), err);
    ASSERT_EQ(got, 3);
    struct kfs_drv_stats st;
    kfs_drv_stats(d, &st);
    ASSERT_EQ(st.attempts, 2);
    ASSERT_OK(kfs_drv_head(d, "k", NULL, NULL, &err), err);
    kfs_drv_stats(d, &st);
    ASSERT_EQ(st.attempts, 3); /* once is enough */
    kfs_drv_close(d);
}

TEST(odd_prefixes)
{
    static const char *const PREFIXES[] = {"", "p", "with%20blank", "%C3%A4%C3%B6", "a+b", "x%25y", "t~!*'()", "semi;colon,comma", "amp&ersand"};
    for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++) {
        struct kfs_drv *d = open_with(PREFIXES[i], "", NULL);
        static struct seen s;
        char b[8];
        size_t got;
        memset(&s, 0, sizeof s);
        ASSERT_OK(kfs_drv_put(d, "odd/k", "abc", 3, 0, &err), err);
        ASSERT_OK(kfs_drv_get(d, "odd/k", 0, b, 8, &got, NULL, &err), err);
        ASSERT_EQ(got, 3);
        ASSERT_OK(kfs_drv_list(d, "odd/", NULL, see, &s, &err), err);
        ASSERT_EQ(s.count, 1);
        ASSERT_STR(s.keys[0], "odd/k");
        const char *keys[] = {"odd/k", "odd/l"};
        ASSERT_OK(kfs_drv_delete_many(d, keys, 2, &err), err);
        ASSERT_EQ(kfs_drv_head(d, "odd/k", NULL, NULL, &err), -ENOENT);
        kfs_drv_close(d);
    }
}

TEST(unsigned_payload_and_checksums)
{
    static const char *const SETTINGS[] = {"payload=unsigned\n", "checksum=sha256\n", "payload=unsigned\nchecksum=sha256\n", "http=1\nhedge=off\n"};
    for (size_t i = 0; i < sizeof SETTINGS / sizeof *SETTINGS; i++) {
        struct kfs_drv *d = open_with("set", "", SETTINGS[i]);
        char b[8];
        size_t got;
        ASSERT_OK(kfs_drv_put(d, "k", "abcdef", 6, 0, &err), err);
        ASSERT_OK(kfs_drv_get(d, "k", 0, b, 8, &got, NULL, &err), err);
        ASSERT_EQ(got, 6);
        kfs_drv_close(d);
    }
}

TEST(urls)
{
    static const struct { const char *url, *settings, *says; } ROWS[] = {
        {"s3://", NULL, "no bucket"},
        {"s3://ab", NULL, "no bucket"},
        {"s3:bucket", NULL, "s3://BUCKET"},
        {"s3://AKIA:secret@bucket/x", NULL, "no secrets"},
        {"s3://bucket/x?secret_key=abc", NULL, "no secrets"},
        {"s3://bucket/x?endpoint=http://u:p@host", NULL, "no secrets"},
        {"s3://bucket/x", "session_token=abc", "no secrets"},
        {"s3://bucket/x?colour=red", NULL, "no setting"},
        {"s3://bucket/x?style=square", NULL, "auto, path, virtual"},
        {"s3://bucket/x?insecure=perhaps", NULL, "no, yes"},
        {"s3://bucket/x?endpoint=ftp://host", NULL, "http://HOST"},
        {"s3://bucket/a//b", NULL, "prefix"},
        {"s3://bucket/a/../b", NULL, "prefix"},
        {"s3://bucket/a%0ab", NULL, "prefix"},
        {"s3://bucket/x?region=a%ZZ", NULL, "cannot be read"},
        {"s3://bucket/x", "stall_ms=1\n", "milliseconds"},
        {"s3://bucket/x", "region\n", "name=value"},
    };
    s3_environment();
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct kfs_drv *d = NULL;
        struct kfs_drv_options o = {.settings = ROWS[i].settings};
        err = (struct kfs_err){0};
        ASSERT_EQ(kfs_drv_open(ROWS[i].url, &o, false, &d, &err), -EINVAL);
        if (!strstr(err.msg, ROWS[i].says))
            KT_FAIL("'%s': '%s' does not say '%s'", ROWS[i].url, err.msg, ROWS[i].says);
        ASSERT(!strstr(err.msg, "abc") && !strstr(err.msg, "AKIA"));
    }
}

KT_MAIN
