/* blockstore/cache_keeper.c — the cache's background thread
 *
 * What     Each second: writes the index behind, hashes what became clean, looks at directories that failed, removes what a reboot left. At start, where the
 *          index may not say everything: the scan of f/, one subdirectory at a time.
 */
#include "blockstore/cache_dir.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MS 1000

static bool stopping(struct kfs_cache *c)
{
    pthread_mutex_lock(&c->keeper_lock);
    bool stop = c->keeper_stop;
    pthread_mutex_unlock(&c->keeper_lock);
    return stop;
}

/* --- scan ------------------------------------------------------------------------------------- */

static bool wants_scan(struct kfs_cache *c, struct kfs_cache_place *p)
{
    pthread_mutex_lock(&c->lock);
    bool scan = p->scan && p->f_fd >= 0;
    pthread_mutex_unlock(&c->lock);
    return scan;
}

static void scan(struct kfs_cache *c, struct kfs_cache_place *p)
{
    struct kfs_err err = {0};
    uint64_t t0 = kfs_clock_mono_ns(), before = p->files;
    for (unsigned xx = 0; xx < 256; xx++) {
        if (stopping(c))
            return;
        if (kfs_cache_index_scan(c, p, xx, &err) < 0) {
            (void)kfs_cache_place_failed(c, p, -err.code);
            return; /* again in the next round */
        }
    }
    pthread_mutex_lock(&c->lock);
    p->scan = false;
    uint64_t after = p->files;
    pthread_mutex_unlock(&c->lock);
    kfs_log(KFS_LOG_INFO, "cache directory '%s' was looked through in %" PRIu64 " ms: %" PRIu64 " files, %" PRIu64 " of them not in its index", p->dir,
            (kfs_clock_mono_ns() - t0) / 1000000, after, after > before ? after - before : 0);
}

/* --- hashes ----------------------------------------------------------------------------------- */

static bool next_to_hash(struct kfs_cache *c, kfs_ino_t *ret_ino, uint64_t *ret_version)
{
    pthread_mutex_lock(&c->lock);
    bool any = c->to_hash_count > 0;
    if (any) {
        *ret_ino = c->to_hash[c->to_hash_at].ino;
        *ret_version = c->to_hash[c->to_hash_at].version;
        c->to_hash_at = (c->to_hash_at + 1) % KFS_CACHE_HASH_QUEUE;
        c->to_hash_count--;
    }
    pthread_mutex_unlock(&c->lock);
    return any;
}

static void hash_new(struct kfs_cache *c)
{
    kfs_ino_t ino;
    uint64_t version, hash[2];
    char name[KFS_CACHE_NAME_MAX];
    while (next_to_hash(c, &ino, &version)) {
        bool sure;
        int at = kfs_cache_index_find(c, ino, version, false, &sure, NULL);
        kfs_cache_name_clean(name, ino, version);
        kfs_auto_fd int fd = at < 0 ? -1 : openat(c->places[at].f_fd, name, O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && kfs_cache_file_hash(fd, hash) == 0)
            kfs_cache_index_hashed(c, ino, version, hash);
    }
}

/* --- what a reboot left ----------------------------------------------------------------------- */

static void remove_old(struct kfs_cache_place *p)
{
    int fd = openat(p->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, "old.", 4) != 0)
            continue;
        kfs_auto_fd int old = openat(p->dir_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (old >= 0 && kfs_cache_empty_dir(old, 2) == 0)
            (void)unlinkat(p->dir_fd, e->d_name, AT_REMOVEDIR);
    }
    closedir(d);
}

/* --- rounds ----------------------------------------------------------------------------------- */

static void round_of(struct kfs_cache *c, bool first)
{
    hash_new(c);
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++) {
        struct kfs_cache_place *p = &c->places[i];
        kfs_cache_place_probe(c, p);
        if (p->dir_fd < 0)
            continue;
        if (first)
            remove_old(p);
        if (wants_scan(c, p))
            scan(c, p);
        kfs_cache_log_flush(c, p);
    }
}

void kfs_cache_keep(struct kfs_cache *c)
{
    round_of(c, true);
}

static void *keeper_main(void *arg)
{
    struct kfs_cache *c = arg;
    for (bool first = true;; first = false) {
        round_of(c, first);
        struct timespec until = kfs_clock_real();
        until.tv_sec += ROUND_MS / 1000;
        pthread_mutex_lock(&c->keeper_lock);
        while (!c->keeper_stop && pthread_cond_timedwait(&c->keeper_wake, &c->keeper_lock, &until) == 0)
            ;
        bool stop = c->keeper_stop;
        pthread_mutex_unlock(&c->keeper_lock);
        if (stop)
            return NULL;
    }
}

int kfs_cache_start(struct kfs_cache *c, struct kfs_err *err)
{
    int rc = pthread_create(&c->keeper, NULL, keeper_main, c);
    if (rc)
        return KFS_FAIL(err, rc, "cannot start a thread: %s", strerror(rc));
    c->keeper_on = true;
    return 0;
}

void kfs_cache_stop(struct kfs_cache *c)
{
    if (!c->keeper_on)
        return;
    pthread_mutex_lock(&c->keeper_lock);
    c->keeper_stop = true;
    pthread_cond_signal(&c->keeper_wake);
    pthread_mutex_unlock(&c->keeper_lock);
    pthread_join(c->keeper, NULL);
    c->keeper_on = false;
    if (c->options.verify == KFS_CACHE_VERIFY_FULL) /* what has no hash does not outlive this session */
        hash_new(c);
}
