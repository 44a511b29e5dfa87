/* The driver on bad days: a real server behind a proxy that breaks things (tests/s3/faultproxy.py). Each fault ends in the right bytes or its errno. */
#include "base/log.h"
#include "blockstore/driver.h"
#include "tests/unit/blockstore/s3_server.h"
#include <pthread.h>

static struct kfs_err err;
static pid_t proxy;
static struct kfs_drv *drv;

enum { LEN = 1 << 20 };
static char data[LEN], back[LEN];

static void data_make(void)
{
    uint64_t x = 7;
    for (size_t i = 0; i < LEN; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        data[i] = (char)(x >> 56);
    }
}

static void faults_end(void)
{
    kfs_drv_close(drv);
    drv = NULL;
    s3_stop(proxy);
    proxy = 0;
}

/* A proxy with these options, and the driver behind it. */
static void faults_begin(const char *option, const char *value, const char *option2, const char *value2, const char *settings, double budget_s)
{
    char program[] = "/usr/bin/python3", script[] = "tests/s3/faultproxy.py", port[16], up[16], log[300], url[200];
    int upstream = s3_server(), at = 0;
    data_make();
    s3_environment();
    kfs_log_level_set(KFS_LOG_ERROR);
    faults_end(); /* of a case that failed */
    snprintf(up, sizeof up, "%d", upstream);
    snprintf(log, sizeof log, "%s/proxy.log", s3_dir_make());
    for (int i = 0; i < 20 && !proxy; i++) {
        at = s3_free_port();
        snprintf(port, sizeof port, "%d", at);
        char *argv[] = {program, script, port, up, (char *)(uintptr_t)option, (char *)(uintptr_t)value, (char *)(uintptr_t)option2, (char *)(uintptr_t)value2,
                        (char[]){"--rate"}, (char[]){"0.25"}, NULL};
        proxy = s3_spawn(argv, at, log);
    }
    if (!proxy)
        KT_FAIL("the proxy does not start; see %s", log);
    snprintf(url, sizeof url, "s3://kfs/faults?endpoint=http://127.0.0.1:%d", at);
    struct kfs_drv_options o = {.settings = settings, .retry_budget_s = budget_s};
    err = (struct kfs_err){0};
    ASSERT_OK(kfs_drv_open(url, &o, false, &drv, &err), err);
}

static void plan(const char *text)
{
    faults_begin("--plan", text, "--seed", "1", "stall_ms=400\nhedge=off\n", 30);
}

static struct kfs_drv_stats stats(void)
{
    struct kfs_drv_stats s;
    kfs_drv_stats(drv, &s);
    return s;
}

static size_t progress_last;
static bool progress_right;

static void progress(struct kfs_drv_req *q, size_t have)
{
    progress_right = progress_right && have > progress_last && memcmp(q->buf, data, have) == 0;
    progress_last = have;
}

/* Put, then get: the faults of the plan are in between. */
static void round_trip(const char *faults)
{
    plan(faults);
    struct kfs_drv_req q = {.op = KFS_DRV_GET, .len = LEN, .buf = back, .progress = progress, .key = "k"};
    memset(back, 0, LEN);
    progress_last = 0;
    progress_right = true;
    int rc = kfs_drv_put(drv, "k", data, LEN, 0, &err);
    if (rc < 0)
        KT_FAIL("%s: put: %s", faults, err.msg);
    if (kfs_drv_run(drv, &q) < 0)
        KT_FAIL("%s: get: %s", faults, q.err.msg);
    if (q.got != LEN || q.value_bytes != LEN || memcmp(back, data, LEN) != 0)
        KT_FAIL("%s: %zu bytes, or wrong ones", faults, q.got);
    if (!progress_right || progress_last != LEN)
        KT_FAIL("%s: progress ended at %zu, or told what was not there", faults, progress_last);
    /* What dies on a kept connection before a byte of an answer is sent again by curl itself, unseen. */
    if (stats().attempts <= 2 && !strstr(faults, ":reset") && !strstr(faults, ":lost"))
        KT_FAIL("%s: the fault did not happen", faults);
    faults_end();
}

TEST(one_fault_then_the_right_bytes)
{
    static const char *const PUTS[] = {"error500", "error503", "slowdown", "slowdown_after", "toomany", "reset", "lost", "late500", "mute", "flip_up", "skew",
                                       "garbage", "hugehead"};
    static const char *const GETS[] = {"error500",    "error503", "slowdown", "toomany", "reset",   "lost",    "reset_mid", "short",
                                       "less",        "stall",    "mute",     "skew",    "garbage", "hugehead", "other_range"};
    char text[100];
    for (size_t i = 0; i < sizeof PUTS / sizeof *PUTS; i++) {
        snprintf(text, sizeof text, "PUT:1:%s", PUTS[i]);
        round_trip(text);
    }
    for (size_t i = 0; i < sizeof GETS / sizeof *GETS; i++) {
        snprintf(text, sizeof text, "GET:1:%s", GETS[i]);
        round_trip(text);
    }
}

TEST(faults_in_a_row)
{
    round_trip("GET:1:short,GET:2:reset_mid,GET:3:less,GET:4:error503,GET:5:stall,PUT:1:lost,PUT:2:error500,PUT:3:reset");
}

/* What is here already is not fetched again. */
TEST(a_get_goes_on_behind_what_it_has)
{
    plan("GET:1:reset_mid,GET:2:reset_mid");
    size_t got;
    ASSERT_OK(kfs_drv_put(drv, "k", data, LEN, 0, &err), err);
    ASSERT_OK(kfs_drv_get(drv, "k", 0, back, LEN, &got, NULL, &err), err);
    ASSERT_EQ(memcmp(back, data, LEN), 0);
    ASSERT_EQ(stats().attempts, 4);
    ASSERT(stats().received_bytes < LEN + 65536);
    faults_end();
}

/* The first answer's ETag is wrong, so If-Match fails: everything comes again, and is compared. */
TEST(a_wrong_etag_costs_one_more_get)
{
    plan("GET:1:short");
    ASSERT_OK(kfs_drv_put(drv, "k", data, LEN, 0, &err), err);
    faults_end();
    plan("GET:1:etag,GET:2:reset_mid");
    size_t got;
    ASSERT_OK(kfs_drv_get(drv, "k", 0, back, LEN, &got, NULL, &err), err); /* a wrong ETag alone harms nobody */
    ASSERT_EQ(stats().attempts, 1);
    ASSERT_OK(kfs_drv_get(drv, "k", 0, back, LEN, &got, NULL, &err), err);
    ASSERT_EQ(memcmp(back, data, LEN), 0);
    faults_end();
}

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

/* While a get is under way the value is replaced: -EIO, never a mixture. */
static size_t replace_at;
static void replace(struct kfs_drv_req *q, size_t have)
{
    (void)q;
    if (have >= LEN / 4)
        __atomic_store_n(&replace_at, have, __ATOMIC_RELEASE);
}

TEST(a_value_that_changes_is_an_error)
{
    plan("GET:1:stall");
    struct tally t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
    struct kfs_drv_req q = {.op = KFS_DRV_GET, .len = LEN, .buf = back, .progress = replace, .done = tally_done, .arg = &t, .key = "k"};
    static char other[LEN];
    replace_at = 0;
    ASSERT_OK(kfs_drv_put(drv, "k", data, LEN, 0, &err), err);
    kfs_drv_submit(drv, &q);
    while (!__atomic_load_n(&replace_at, __ATOMIC_ACQUIRE))
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    ASSERT_OK(kfs_drv_put(drv, "k", other, LEN, 0, &err), err);
    tally_wait(&t);
    ASSERT_EQ(q.status, -EIO);
    ASSERT(strstr(q.err.msg, "changed"));
    faults_end();
}

/* A conditional put whose answer is lost knows its own success; another's is another's. */
TEST(a_conditional_put_is_done_once)
{
    char b[10];
    size_t got;
    plan("PUT:1:lost,PUT:4:late500,PUT:6:reset");
    (void)kfs_drv_delete(drv, "new", &err);
    (void)kfs_drv_delete(drv, "new2", &err);
    ASSERT_OK(kfs_drv_put(drv, "new", "one", 3, KFS_DRV_NEW, &err), err);
    ASSERT_EQ(kfs_drv_put(drv, "new", "two", 3, KFS_DRV_NEW, &err), -EEXIST);
    ASSERT_OK(kfs_drv_put(drv, "new2", "abc", 3, KFS_DRV_NEW, &err), err);
    ASSERT_EQ(kfs_drv_put(drv, "new", "six", 3, KFS_DRV_NEW, &err), -EEXIST);
    ASSERT_OK(kfs_drv_get(drv, "new", 0, b, sizeof b, &got, NULL, &err), err);
    ASSERT_EQ(got, 3);
    ASSERT_EQ(memcmp(b, "one", 3), 0);
    faults_end();
}

/* --- uploads --- */

static int upload(const char *key)
{
    static char part[2][5 << 20];
    struct kfs_drv_upload *u;
    for (int i = 0; i < 5; i++) {
        memcpy(part[0] + (size_t)i * LEN, data, LEN);
        memcpy(part[1] + (size_t)i * LEN, data, LEN);
    }
    int rc = kfs_drv_upload_begin(drv, key, &u, &err);
    for (unsigned i = 0; rc == 0 && i < 2; i++) {
        struct kfs_drv_req q = {.op = KFS_DRV_PART, .upload = u, .part = i + 1, .part_off = i * sizeof part[0], .iov_count = 1};
        q.iov[0] = (struct iovec){part[i], i ? 1000 : sizeof part[0]};
        rc = kfs_drv_run(drv, &q);
        if (rc < 0) {
            err = q.err;
            kfs_drv_upload_abort(u);
        }
    }
    return rc ? rc : kfs_drv_upload_finish(u, 0, &err);
}

TEST(uploads)
{
    static const char *const PLANS[] = {"POST:1:late500", "POST:1:badxml", "PUT:1:lost",  "PUT:1:etag",   "PUT:2:flip_up",   "POST:2:lost",
                                        "POST:2:late500", "POST:2:badxml", "POST:2:mute", "POST:2:reset", "PUT:1+:etag"};
    for (size_t i = 0; i < sizeof PLANS / sizeof *PLANS; i++) {
        uint64_t bytes = 0;
        plan(PLANS[i]);
        (void)kfs_drv_delete(drv, "big", &err);
        if (upload("big") < 0)
            KT_FAIL("%s: %s", PLANS[i], err.msg);
        ASSERT_OK(kfs_drv_head(drv, "big", &bytes, NULL, &err), err);
        ASSERT_EQ(bytes, (5 << 20) + 1000);
        ASSERT(kfs_drv_upload_sweep(drv, -10, &err) <= 1); /* a begin whose answer was lost leaves one */
        ASSERT_EQ(kfs_drv_upload_sweep(drv, -10, &err), 0);
        faults_end();
    }
}

/* --- what does not heal --- */

TEST(what_lasts_has_its_errno)
{
    static const struct { const char *plan; int rc; const char *says; } ROWS[] = {
        {"*:1+:error503", -EIO, "503"},       {"*:1+:reset", -EIO, "attempts"},        {"*:1+:mute", -ETIMEDOUT, "nothing moved"},
        {"*:1+:denied", -EACCES, "denied"},   {"*:1+:expired", -EACCES, "Expired"},    {"*:1+:missing", -ENOENT, "NoSuchKey"},
        {"*:1+:region", -EIO, "region"},      {"*:1+:garbage", -EIO, "attempts"},      {"*:1+:skew", -EACCES, "clock"},
        {"*:1+:stall", -ETIMEDOUT, "nothing moved"},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        size_t got;
        plan("");
        ASSERT_OK(kfs_drv_put(drv, "k", data, LEN, 0, &err), err);
        faults_end();
        faults_begin("--plan", ROWS[i].plan, "--seed", "1", "stall_ms=200\nhedge=off\n", 1);
        err = (struct kfs_err){0};
        int rc = kfs_drv_get(drv, "k", 0, back, 1 << 10, &got, NULL, &err);
        if (rc != ROWS[i].rc || !strcasestr(err.msg, ROWS[i].says))
            KT_FAIL("%s: %d '%s', not %d with '%s'", ROWS[i].plan, rc, err.msg, ROWS[i].rc, ROWS[i].says);
        ASSERT(!strstr(err.msg, S3_SECRET));
        faults_end();
    }
}

static int count_one(void *arg, const char *key, uint64_t bytes, int64_t mtime_s)
{
    (void)key, (void)bytes, (void)mtime_s;
    ++*(int *)arg;
    return 0;
}

TEST(lists_and_batches)
{
    static const char *const keys[] = {"lb/1", "lb/2", "lb/3"};
    int n = 0;
    plan("GET:1:badxml,GET:2:short,GET:3:error503,POST:1:slowdown,POST:2:late500,PUT:2:late500");
    for (int i = 0; i < 3; i++)
        ASSERT_OK(kfs_drv_put(drv, keys[i], "x", 1, 0, &err), err);
    ASSERT_OK(kfs_drv_list(drv, "lb/", NULL, count_one, &n, &err), err);
    ASSERT_EQ(n, 3);
    ASSERT_OK(kfs_drv_delete_many(drv, keys, 3, &err), err);
    n = 0;
    ASSERT_OK(kfs_drv_list(drv, "lb/", NULL, count_one, &n, &err), err);
    ASSERT_EQ(n, 0);
    faults_end();
}

/* --- concurrency --- */

enum { MANY = 150, SMALL = 40000 };
static struct kfs_drv_req many[MANY];

static void many_run(enum kfs_drv_op op)
{
    struct tally t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, MANY};
    static char bufs[MANY][SMALL];
    for (int i = 0; i < MANY; i++) {
        many[i] = (struct kfs_drv_req){.op = op, .priority = (enum kfs_drv_priority)(i % 3), .done = tally_done, .arg = &t};
        snprintf(many[i].key, sizeof many[i].key, "many/%d", i);
        if (op == KFS_DRV_PUT) {
            many[i].iov_count = 1;
            many[i].iov[0] = (struct iovec){data + i, SMALL};
        } else {
            memset(bufs[i], 0, SMALL);
            many[i].buf = bufs[i];
            many[i].len = SMALL;
        }
        kfs_drv_submit(drv, &many[i]);
    }
    tally_wait(&t);
    for (int i = 0; i < MANY; i++) {
        if (many[i].status < 0)
            KT_FAIL("%s", many[i].err.msg);
        if (op == KFS_DRV_GET)
            ASSERT(many[i].got == SMALL && memcmp(bufs[i], data + i, SMALL) == 0);
    }
}

TEST(slowdown_lowers_concurrency_and_success_raises_it)
{
    plan("*:20:slowdown,*:21:slowdown,*:22:slowdown,*:23:slowdown");
    unsigned least = 1000;
    struct tally t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, MANY};
    for (int i = 0; i < MANY; i++) {
        many[i] = (struct kfs_drv_req){.op = KFS_DRV_PUT, .done = tally_done, .arg = &t, .iov_count = 1, .iov = {{data, SMALL}}};
        snprintf(many[i].key, sizeof many[i].key, "many/%d", i);
        kfs_drv_submit(drv, &many[i]);
    }
    for (bool over = false; !over;) {
        unsigned limit = stats().limit;
        least = limit < least ? limit : least;
        pthread_mutex_lock(&t.lock);
        over = t.left == 0;
        pthread_mutex_unlock(&t.lock);
        nanosleep(&(struct timespec){0, 200000}, NULL);
    }
    ASSERT(least <= 17);
    for (int i = 0; i < 20 && stats().limit < 32; i++)
        many_run(KFS_DRV_PUT);
    ASSERT_EQ(stats().limit, 32);
    faults_end();
}

TEST(a_hedge_helps_when_one_answer_is_late)
{
    faults_begin("--plan", "GET:200:mute,GET:230:stall", "--seed", "1", "stall_ms=10000\n", 30);
    many_run(KFS_DRV_PUT);
    many_run(KFS_DRV_GET);
    many_run(KFS_DRV_GET);
    struct kfs_drv_stats s = stats();
    ASSERT(s.hedges >= 1);
    ASSERT(s.hedges_won >= 1);
    ASSERT(s.hedges * 20 <= s.attempts + 20);
    faults_end();
}

TEST(any_mixture_by_seed)
{
    static const char *const SEEDS[] = {"1", "2", "3"};
    for (size_t i = 0; i < sizeof SEEDS / sizeof *SEEDS; i++) {
        faults_begin("--faults", "error500,error503,slowdown,toomany,reset,lost,late500,reset_mid,short,less,other_range,etag,stall,mute,flip_up,garbage", "--seed",
                     SEEDS[i], "stall_ms=300\n", 60);
        many_run(KFS_DRV_PUT);
        many_run(KFS_DRV_GET);
        int n = 0;
        ASSERT_OK(kfs_drv_list(drv, "many/", NULL, count_one, &n, &err), err);
        ASSERT_EQ(n, MANY);
        ASSERT_OK(upload("big"), err);
        ASSERT(stats().retries > 20);
        faults_end();
    }
}

KT_MAIN
