/* preload/init.c — set-up, on the first call or before main, whichever comes first
 *
 * Allocates nothing and calls nothing that could: the first call may come from inside a malloc's own start. A signal handler that interrupts set-up in the
 * same thread repeats it (every step gives the same result); another thread waits.
 */
#include "preload/guard.h"
#include "preload/inline.h"
#include "preload/shim.h"
#include "preload/real.h"
#include "base/pure/sys.h"
#include <string.h>
#include <time.h>

__thread int kfs_pre_in_vfork __attribute__((tls_model("initial-exec")));
int kfs_pre_state;
int (*kfs_pre_vdso_clock)(int, struct timespec *);
struct kfs_vol kfs_pre_vols[KFS_MOUNTS_MAX];
int kfs_pre_vol_count;

extern char **environ;
static int init_tid;

static uint64_t clock_ns(int clock)
{
    struct timespec t = {0};
    if (!kfs_pre_vdso_clock || kfs_pre_vdso_clock(clock, &t) != 0)
        kfs_sys3(SYS_clock_gettime, clock, (long)&t, 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t kfs_pre_now_ns(bool coarse)
{
    return clock_ns(coarse ? CLOCK_MONOTONIC_COARSE : CLOCK_MONOTONIC);
}

uint64_t kfs_pre_file_time_ns(void)
{
    return clock_ns(CLOCK_REALTIME_COARSE);
}

static const char *env_value(const char *name)
{
    size_t n = strlen(name);
    for (char **e = environ; e && *e; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

static void read_mounts(void)
{
    const char *at = env_value(KFS_ENV_AT);
    int count = 0;
    while (at && count < KFS_MOUNTS_MAX) {
        struct kfs_vol *v = &kfs_pre_vols[count];
        if (kfs_mounts_next(&at, &v->m) != 1)
            break;
        v->root = KFS_INO_ROOT;
        v->index = count++;
    }
    kfs_pre_vol_count = count;
}

static void init_once(void)
{
    kfs_pre_real_init();
    if (!environ)
        return; /* before libc's own start: the next call reads the environment */
    read_mounts();
    kfs_pre_prefix_init();
    if (kfs_pre_vol_count) {
        kfs_guard_init();
        kfs_pre_cwd_refresh();
    }
    __atomic_store_n(&kfs_pre_state, 2, __ATOMIC_RELEASE);
    struct kfs_fdinfo in;
    (void)kfs_pre_fd_look_standin(0, &in); /* stdin's stream reads inside libc: do_stream.c must know */
}

void kfs_pre_init(void)
{
    int tid = kfs_sys_gettid(), none = 0;
    if (__atomic_compare_exchange_n(&kfs_pre_state, &none, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&init_tid, tid, __ATOMIC_RELEASE);
    } else if (__atomic_load_n(&init_tid, __ATOMIC_ACQUIRE) != tid) {
        /* Bounded: a process forked in the middle of another thread's set-up has nobody to wait for. */
        for (int i = 0; i < 20000; i++) {
            if (__atomic_load_n(&kfs_pre_state, __ATOMIC_ACQUIRE) == 2)
                return;
            kfs_sys3(SYS_sched_yield, 0, 0, 0);
        }
    }
    init_once();
}

__attribute__((constructor(101))) static void start(void)
{
    KFS_PRE_READY();
    if (kfs_pre_vol_count)
        kfs_inline_start(env_value(KFS_ENV_INLINE));
}
