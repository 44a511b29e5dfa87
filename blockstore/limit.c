#include "blockstore/limit.h"
#include "base/clock.h"
#include <time.h>

struct kfs_limit kfs_limit_upload = KFS_LIMIT_INIT, kfs_limit_download = KFS_LIMIT_INIT;

void kfs_limit_set(struct kfs_limit *l, uint64_t bytes_per_s)
{
    pthread_mutex_lock(&l->lock);
    if (l->bytes_per_s != bytes_per_s) {
        l->bytes_per_s = bytes_per_s;
        l->paid_ns = 0;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
}

uint64_t kfs_limit_rate(struct kfs_limit *l)
{
    pthread_mutex_lock(&l->lock);
    uint64_t rate = l->bytes_per_s;
    pthread_mutex_unlock(&l->lock);
    return rate;
}

static uint64_t take_locked(struct kfs_limit *l, uint64_t bytes, uint64_t now_ns)
{
    const uint64_t burst_ns = KFS_LIMIT_BURST_MS * 1000000ULL;
    l->taken_bytes += bytes;
    if (!l->bytes_per_s)
        return 0;
    uint64_t full_ns = now_ns > burst_ns ? now_ns - burst_ns : 0; /* a bucket idle for longer is full, no more */
    uint64_t start_ns = l->paid_ns > full_ns ? l->paid_ns : full_ns;
    __uint128_t cost_ns = (__uint128_t)bytes * 1000000000u / l->bytes_per_s;
    const uint64_t century_ns = 3155760000ULL * 1000000000u;
    l->paid_ns = start_ns + (cost_ns > century_ns ? century_ns : (uint64_t)cost_ns);
    if (l->paid_ns > now_ns + century_ns)
        l->paid_ns = now_ns + century_ns;
    uint64_t wait_ns = start_ns > now_ns ? start_ns - now_ns : 0;
    l->waited_ns += wait_ns;
    return wait_ns;
}

uint64_t kfs_limit_take_at(struct kfs_limit *l, uint64_t bytes, uint64_t now_ns)
{
    pthread_mutex_lock(&l->lock);
    uint64_t wait_ns = take_locked(l, bytes, now_ns);
    pthread_mutex_unlock(&l->lock);
    return wait_ns;
}

uint64_t kfs_limit_take(struct kfs_limit *l, uint64_t bytes)
{
    return kfs_limit_take_at(l, bytes, kfs_clock_mono_ns());
}

void kfs_limit_wait(struct kfs_limit *l, uint64_t bytes)
{
    pthread_mutex_lock(&l->lock);
    uint64_t wait_ns = take_locked(l, bytes, kfs_clock_mono_ns()), rate = l->bytes_per_s;
    if (wait_ns) {
        struct timespec until = kfs_clock_real();
        uint64_t ns = (uint64_t)until.tv_nsec + wait_ns % 1000000000u;
        until.tv_sec += (time_t)(wait_ns / 1000000000u + ns / 1000000000u);
        until.tv_nsec = (long)(ns % 1000000000u);
        while (l->bytes_per_s == rate && pthread_cond_timedwait(&l->changed, &l->lock, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&l->lock);
}

void kfs_limit_stats(struct kfs_limit *l, struct kfs_limit_stats *ret)
{
    pthread_mutex_lock(&l->lock);
    *ret = (struct kfs_limit_stats){l->bytes_per_s, l->taken_bytes, l->waited_ns};
    pthread_mutex_unlock(&l->lock);
}
