/* base/clock.h — what time it is
 *
 * What     Monotonic nanoseconds for deadlines and heartbeats, wall-clock time for files.
 * Threads  Any; async-signal-safe; no system call but the vdso's.
 */
#ifndef KFS_BASE_CLOCK_H
#define KFS_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t kfs_clock_ns_(clockid_t id)
{
    struct timespec t;
    (void)clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t kfs_clock_mono_ns(void)
{
    return kfs_clock_ns_(CLOCK_MONOTONIC);
}

/* Up to one tick (4 ms at HZ=250) behind, but cheaper. */
static inline uint64_t kfs_clock_mono_coarse_ns(void)
{
    return kfs_clock_ns_(CLOCK_MONOTONIC_COARSE);
}

static inline struct timespec kfs_clock_real(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return t;
}

#endif
