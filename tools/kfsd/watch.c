#include "tools/kfsd/arrive.h"
#include "base/clock.h"
#include "base/fault.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SWEEP_MS 1000
#define BATCH_MS 20
#define DIR_ORPHAN_NS (60ULL * 1000000000)

/* ---- settlers ----------------------------------------------------------------------------------------------------------- */

static struct kfsd_file *next_job(struct kfsd_vol *v)
{
    pthread_mutex_lock(&v->table);
    while (!v->queue && !atomic_load(&v->stop))
        pthread_cond_wait(&v->work, &v->table);
    struct kfsd_file *f = atomic_load(&v->stop) ? NULL : v->queue;
    if (f) {
        v->queue = f->next;
        if (!v->queue)
            v->queue_last = &v->queue;
        f->queued = false;
    }
    pthread_mutex_unlock(&v->table);
    return f;
}

static void *settler_main(void *arg)
{
    struct kfsd_vol *v = arg;
    for (struct kfsd_file *f; (f = next_job(v));) {
        (void)kfsd_file_settle(v, f);
        kfsd_file_put(v, f);
    }
    return NULL;
}

/* ---- the watcher: last closes, and each second whatever was missed ----------------------------------------------------------- */

/* Somebody removed the cache directory. It is there again; live files have lost their names, but not their content, which the cache keeps hold of: what is
 * not yet committed is committed now, because it would not outlive this kfsd. */
void kfsd_cache_check(struct kfsd_vol *v)
{
    static struct kfs_log_limit limit;
    struct kfs_err err = {0};
    int r = kfs_cache_heal(v->cache, &err);
    if (r < 0)
        kfs_log_limited(&limit, KFS_LOG_ERROR, "'%s': cache directory '%s' was removed and cannot be made anew: %s; nothing can be written until that works",
                        v->v->url, kfs_cache_dir(v->cache), err.code ? err.msg : strerror(-r));
    if (r <= 0)
        return;
    if (v->watch_fd >= 0)
        (void)kfs_cache_watch_again(v->cache, v->watch_fd);
    atomic_store(&v->rescue, true);
    uint64_t one = 1;
    if (v->threads_on)
        (void)!write(v->rescue_fd, &one, sizeof one);
}

/* Commit what lives on by descriptors alone. */
static void rescue(struct kfsd_vol *v)
{
    struct kfs_err err = {0};
    unsigned n = 0;
    if (!atomic_exchange(&v->rescue, false))
        return;
    int r = kfsd_flush(v, false, &n, &err);
    if (r < 0)
        kfs_log(KFS_LOG_ERROR, "'%s': after the removal of its cache directory not everything could be committed: %s; it is tried again", v->v->url,
                err.code ? err.msg : strerror(-r));
    else
        kfs_log(KFS_LOG_INFO, "'%s': after the removal of its cache directory %u live files were committed", v->v->url, n);
}

static void sweep(struct kfsd_vol *v)
{
    size_t n;
    struct kfsd_file **all = kfsd_file_all(v, &n);
    uint64_t now = kfs_clock_mono_ns();
    for (size_t i = 0; all && i < n; i++) {
        struct kfsd_file *f = all[i];
        pthread_mutex_lock(&v->table);
        bool live = __atomic_load_n(&f->live, __ATOMIC_ACQUIRE);
        bool due = live ? atomic_load(&f->retry_ns) <= now : f->orphan && now - f->orphan_ns > DIR_ORPHAN_NS;
        pthread_mutex_unlock(&v->table);
        if (due)
            kfsd_settle_later(v, f->ino);
        kfsd_file_put(v, f);
    }
    free(all);
}

static void take_events(struct kfsd_vol *v, struct kfs_cache_events *ev)
{
    kfs_ino_t ino;
    while (kfs_cache_watch_next(v->watch_fd, ev, &ino) == 1) {
        if (ino == 0)
            sweep(v); /* events were lost */
        else
            kfsd_settle_later(v, ino);
    }
}

static void *watcher_main(void *arg)
{
    struct kfsd_vol *v = arg;
    struct kfs_cache_events *ev = calloc(1, sizeof *ev);
    uint64_t next_sweep = kfs_clock_mono_ns() + SWEEP_MS * 1000000ULL;
    while (ev && !atomic_load(&v->stop)) {
        uint64_t now = kfs_clock_mono_ns();
        if (now >= next_sweep) {
            kfsd_cache_check(v);
            rescue(v);
            sweep(v);
            kfsd_standin_sweep(v);
            kfsd_house_tick(v);
            next_sweep = now + SWEEP_MS * 1000000ULL;
        }
        struct pollfd p[3] = {{.fd = v->watch_fd, .events = POLLIN}, {.fd = v->wake_fd, .events = POLLIN}, {.fd = v->rescue_fd, .events = POLLIN}};
        if (poll(p, 3, (int)((next_sweep - now) / 1000000) + 1) <= 0)
            continue;
        uint64_t told;
        if (p[2].revents & POLLIN && read(v->rescue_fd, &told, sizeof told) > 0)
            rescue(v);
        if (p[0].revents & POLLIN) {
            /* The kernel tells of a close just before it takes the writer off its count: a moment later the probe sees it. A stream of closes is
             * settled in batches beside its application instead of in turn with it. And with commit=session, temporary files that are written,
             * closed and removed at once never reach the store. */
            usleep(BATCH_MS * 1000);
            take_events(v, ev);
        }
    }
    free(ev);
    return NULL;
}

int kfsd_watch_start(struct kfsd_vol *v, struct kfs_err *err)
{
    v->watch_fd = kfs_cache_watch(v->cache, err);
    if (v->watch_fd < 0) {
        /* As a rule the user's inotify limit: last closes are then seen by the sweep alone. */
        kfs_log(KFS_LOG_WARN, "'%s': no watch on the cache directory (%s); last closes are noticed up to a second late", v->v->url,
                err->code ? err->msg : strerror(-v->watch_fd));
        *err = (struct kfs_err){0};
        v->watch_fd = -1;
    }
    v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    v->rescue_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->wake_fd < 0 || v->rescue_fd < 0)
        return KFS_FAIL(err, errno, "eventfd: %s", strerror(errno));
    int r = pthread_create(&v->watcher, NULL, watcher_main, v);
    for (int i = 0; r == 0 && i < 2; i++)
        r = pthread_create(&v->settlers[i], NULL, settler_main, v);
    if (r)
        return KFS_FAIL(err, r, "cannot start a thread: %s", strerror(r));
    v->threads_on = true;
    return 0;
}

void kfsd_watch_stop(struct kfsd_vol *v)
{
    if (!v->threads_on)
        return;
    pthread_mutex_lock(&v->table);
    atomic_store(&v->stop, true);
    pthread_cond_broadcast(&v->work);
    pthread_mutex_unlock(&v->table);
    uint64_t one = 1;
    (void)!write(v->wake_fd, &one, sizeof one);
    pthread_join(v->watcher, NULL);
    pthread_join(v->settlers[0], NULL);
    pthread_join(v->settlers[1], NULL);
    v->threads_on = false;
    close(v->wake_fd);
    close(v->rescue_fd);
    if (v->watch_fd >= 0)
        close(v->watch_fd);
}
