/* test_limit.c — byte rates */
#include "blockstore/limit.h"
#include "blockstore/driver.h"
#include "base/clock.h"
#include "tests/unit/blockstore/store_util.h"
#include <pthread.h>

#define S 1000000000ULL

TEST(limit_zero_is_none)
{
    struct kfs_limit l = KFS_LIMIT_INIT;
    struct kfs_limit_stats st;
    ASSERT_EQ(kfs_limit_take_at(&l, 1ULL << 40, 5 * S), 0);
    ASSERT_EQ(kfs_limit_take_at(&l, 1ULL << 40, 5 * S), 0);
    kfs_limit_stats(&l, &st);
    ASSERT_EQ(st.taken_bytes, 2ULL << 40);
    ASSERT_EQ(st.waited_ns, 0);
}

TEST(limit_takes_turns)
{
    struct kfs_limit l = KFS_LIMIT_INIT;
    kfs_limit_set(&l, 1000);
    uint64_t now = 100 * S;
    ASSERT_EQ(kfs_limit_take_at(&l, 100, now), 0);         /* the burst */
    ASSERT_EQ(kfs_limit_take_at(&l, 500, now), 0);         /* goes into debt */
    ASSERT_EQ(kfs_limit_take_at(&l, 500, now), S / 2);     /* pays for it */
    ASSERT_EQ(kfs_limit_take_at(&l, 1, now), S);           /* in the order of asking */
    ASSERT_EQ(kfs_limit_take_at(&l, 1, now + 2 * S), 0);
    /* However long it was idle, no more than the burst is there. */
    now += 1000 * S;
    ASSERT_EQ(kfs_limit_take_at(&l, 100, now), 0);
    ASSERT_EQ(kfs_limit_take_at(&l, 100, now), 0);
    ASSERT_EQ(kfs_limit_take_at(&l, 1, now), S / 10);
    /* The sum over a long time is the rate. */
    uint64_t at = now + 10 * S, first = at, sum = 0;
    while (at < first + 60 * S) {
        at += kfs_limit_take_at(&l, 333, at);
        sum += 333;
    }
    ASSERT(sum >= 60 * 1000 && sum <= 60 * 1000 + 100 + 2 * 333);
    ASSERT_EQ(kfs_limit_take_at(&l, UINT64_MAX, at) > 0, 1); /* no overflow */
    ASSERT(kfs_limit_take_at(&l, 1, at) > 1000 * S);
}

TEST(limit_change_forgives)
{
    struct kfs_limit l = KFS_LIMIT_INIT;
    kfs_limit_set(&l, 1);
    (void)kfs_limit_take_at(&l, 1000000, 100 * S);
    ASSERT(kfs_limit_take_at(&l, 1, 100 * S) > 900000 * S);
    kfs_limit_set(&l, 1000);
    ASSERT_EQ(kfs_limit_rate(&l), 1000);
    ASSERT_EQ(kfs_limit_take_at(&l, 1, 100 * S), 0);
    kfs_limit_set(&l, 0);
    ASSERT_EQ(kfs_limit_take_at(&l, 1000000, 100 * S), 0);
}

static void *wait_long(void *arg)
{
    kfs_limit_wait(arg, 1);
    return NULL;
}

TEST(limit_change_wakes_who_waits)
{
    struct kfs_limit l = KFS_LIMIT_INIT;
    struct kfs_limit_stats st = {0};
    pthread_t t;
    kfs_limit_set(&l, 1);
    kfs_limit_wait(&l, 1000000); /* at once, and eleven days of debt */
    ASSERT_EQ(pthread_create(&t, NULL, wait_long, &l), 0);
    while (!st.waited_ns)
        kfs_limit_stats(&l, &st);
    kfs_limit_set(&l, 0);
    ASSERT_EQ(pthread_join(t, NULL), 0);
}

/* The driver for directories holds to the process's rates: 4 MiB beyond the burst at 20 MiB/s are 200 ms each way. */
TEST(limit_driver_file)
{
    char dir[512], url[600], *p = calloc(1, 4 << 20);
    struct kfs_drv *d = NULL;
    size_t got;
    tmp_make(dir, sizeof dir);
    snprintf(url, sizeof url, "file:%s/store", dir);
    ASSERT_OK(kfs_drv_open(url, NULL, true, &d, &kerr), kerr);
    kfs_limit_set(&kfs_limit_upload, 20 << 20);
    kfs_limit_set(&kfs_limit_download, 20 << 20);
    uint64_t t0 = kfs_clock_mono_ns();
    ASSERT_OK(kfs_drv_put(d, "a/1", p, 4 << 20, 0, &kerr), kerr);
    ASSERT_OK(kfs_drv_put(d, "a/2", p, 4 << 20, 0, &kerr), kerr);
    uint64_t t1 = kfs_clock_mono_ns();
    ASSERT_OK(kfs_drv_get(d, "a/1", 0, p, 4 << 20, &got, NULL, &kerr), kerr);
    ASSERT_OK(kfs_drv_get(d, "a/2", 0, p, 4 << 20, &got, NULL, &kerr), kerr);
    uint64_t t2 = kfs_clock_mono_ns();
    struct kfs_limit_stats up, down;
    kfs_limit_stats(&kfs_limit_upload, &up);
    kfs_limit_stats(&kfs_limit_download, &down);
    ASSERT_EQ(up.taken_bytes, 8 << 20);
    ASSERT_EQ(down.taken_bytes, 8 << 20);
    /* 8 MiB less the burst and the last step, which goes into debt, at 20 MiB/s */
    ASSERT(t1 - t0 >= S * (8 - 2 - 1) / 20 && t2 - t1 >= S * (8 - 2 - 1) / 20);
    kfs_limit_set(&kfs_limit_upload, 0);
    kfs_limit_set(&kfs_limit_download, 0);
    kfs_drv_close(d);
    tmp_remove(dir);
    free(p);
}

KT_MAIN
