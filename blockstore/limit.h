/* blockstore/limit.h — byte rates: how fast this process sends to and receives from objects
 *
 * What     A token bucket. Whoever moves bytes takes them from the bucket first and is told how long to wait before it moves them. Two buckets are the
 *          process's own: what drivers send and receive, over all volumes.
 * Model    Takers are served in the order in which they ask. A bucket that was idle holds KFS_LIMIT_BURST_MS worth of its rate; one that is asked for more
 *          than it holds goes into debt, so a request of any size passes whole and the next one pays. Rate 0: no limit.
 *          Move bytes in steps of about a MiB, so that a change of the rate is felt soon and one taker does not keep others for long.
 * Threads  Any thread, also kfs_limit_set. Blocks: kfs_limit_wait alone.
 */
#ifndef KFS_BLOCKSTORE_LIMIT_H
#define KFS_BLOCKSTORE_LIMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define KFS_LIMIT_BURST_MS 100

/* Of `lock`: all of it. */
struct kfs_limit {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* the rate */
    uint64_t bytes_per_s;
    uint64_t paid_ns; /* monotonic: when everything taken so far is paid for */
    uint64_t taken_bytes, waited_ns;
};
#define KFS_LIMIT_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0, 0}

extern struct kfs_limit kfs_limit_upload, kfs_limit_download;

/* At any time. Debts at the old rate are forgiven; those who wait go on at once. */
void kfs_limit_set(struct kfs_limit *l, uint64_t bytes_per_s);
uint64_t kfs_limit_rate(struct kfs_limit *l);
/* Take bytes: the nanoseconds to wait before they may move (0: now). For event loops. */
uint64_t kfs_limit_take(struct kfs_limit *l, uint64_t bytes);
/* Take bytes and wait until they may move. */
void kfs_limit_wait(struct kfs_limit *l, uint64_t bytes);
/* The same with the clock from outside; for tests. */
uint64_t kfs_limit_take_at(struct kfs_limit *l, uint64_t bytes, uint64_t now_ns);

struct kfs_limit_stats {
    uint64_t bytes_per_s, taken_bytes;
    uint64_t waited_ns; /* sum over all takers; 0 while there is no limit */
};
void kfs_limit_stats(struct kfs_limit *l, struct kfs_limit_stats *ret);

#endif
