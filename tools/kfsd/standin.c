#include "tools/kfsd/arrive.h"
#include "base/cleanup.h"
#include "base/pure/arrival.h"
#include "base/rand.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNWATCHED_MAX 1024 /* genuine descriptions kept for stand-ins whose end nobody tells */
#define KEEP_OFLAGS (O_NONBLOCK | O_NOATIME | O_SYNC | O_DSYNC | O_ASYNC)

struct standin {
    uint64_t key, version;
    kfs_ino_t ino;
    int wd;      /* -1: of an earlier kfsd, or there is no watch */
    int genuine; /* -1: not settled */
};

struct kfsd_standins {
    pthread_mutex_t lock;
    struct kfs_map by_key, by_wd; /* wd + 1 */
    int watch_fd;                 /* -1: none */
    uint64_t volume;
    unsigned unwatched;
};

int kfsd_standins_start(struct kfsd_vol *v, struct kfs_err *err)
{
    struct kfsd_standins *s = calloc(1, sizeof *s);
    if (!s)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    pthread_mutex_init(&s->lock, NULL);
    kfs_map_init(&s->by_key);
    kfs_map_init(&s->by_wd);
    s->volume = kfs_standin_volume(v->v->id);
    s->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (s->watch_fd < 0)
        kfs_log(KFS_LOG_WARN, "'%s': inotify: %s; settled descriptors of arriving files are kept longer than needed", v->v->url, strerror(errno));
    v->standins = s;
    return 0;
}

static void drop_locked(struct kfsd_standins *s, struct standin *t)
{
    kfs_map_remove(&s->by_key, t->key);
    if (t->wd >= 0)
        kfs_map_remove(&s->by_wd, (uint64_t)t->wd + 1);
    else
        s->unwatched--;
    if (t->genuine >= 0)
        close(t->genuine);
    free(t);
}

void kfsd_standins_stop(struct kfsd_vol *v)
{
    struct kfsd_standins *s = v->standins;
    if (!s)
        return;
    size_t cursor = 0;
    for (struct standin *t; (t = kfs_map_next(&s->by_key, &cursor, NULL));) {
        if (t->genuine >= 0)
            close(t->genuine);
        free(t);
    }
    kfs_map_release(&s->by_key);
    kfs_map_release(&s->by_wd);
    if (s->watch_fd >= 0)
        close(s->watch_fd);
    pthread_mutex_destroy(&s->lock);
    free(s);
    v->standins = NULL;
}

/* Each stand-in is one description: its close is the end. The watch keeps the memfd's inode, so it goes as well. */
static void closed_locked(struct kfsd_standins *s)
{
    union {
        struct inotify_event e;
        char buf[4096];
    } u;
    ssize_t n;
    while (s->watch_fd >= 0 && (n = read(s->watch_fd, u.buf, sizeof u.buf)) > 0) {
        struct inotify_event e;
        for (ssize_t at = 0; at + (ssize_t)sizeof e <= n; at += (ssize_t)(sizeof e + e.len)) {
            memcpy(&e, u.buf + at, sizeof e);
            struct standin *t = e.wd >= 0 && (e.mask & IN_CLOSE_NOWRITE) ? kfs_map_get(&s->by_wd, (uint64_t)e.wd + 1) : NULL;
            if (!t)
                continue;
            (void)inotify_rm_watch(s->watch_fd, t->wd);
            drop_locked(s, t);
        }
    }
}

static void lock(struct kfsd_standins *s)
{
    pthread_mutex_lock(&s->lock);
    closed_locked(s);
}

void kfsd_standin_sweep(struct kfsd_vol *v)
{
    lock(v->standins);
    pthread_mutex_unlock(&v->standins->lock);
}

/* Of those whose end nobody tells, any one goes when there are too many. */
static void thin_locked(struct kfsd_standins *s)
{
    size_t cursor = 0;
    struct standin *t;
    while (s->unwatched >= UNWATCHED_MAX && (t = kfs_map_next(&s->by_key, &cursor, NULL))) {
        if (t->wd >= 0)
            continue;
        drop_locked(s, t);
        cursor = 0;
    }
}

static struct standin *add_locked(struct kfsd_standins *s, kfs_ino_t ino, uint64_t version, uint64_t key, int wd)
{
    if (wd < 0)
        thin_locked(s);
    struct standin *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    *t = (struct standin){.key = key, .version = version, .ino = ino, .wd = wd, .genuine = -1};
    if (kfs_map_put(&s->by_key, key, t, NULL) < 0 || (wd >= 0 && kfs_map_put(&s->by_wd, (uint64_t)wd + 1, t, NULL) < 0)) {
        kfs_map_remove(&s->by_key, key);
        free(t);
        return NULL;
    }
    s->unwatched += wd < 0;
    return t;
}

/* The memfd, with access mode 3. *ret_path leads to it while *ret_mem is open. */
static int memfd_make(kfs_ino_t ino, uint64_t version, uint64_t key, uint64_t size_bytes, int oflags, int *ret_mem, char path[32])
{
    char name[64];
    snprintf(name, sizeof name, "kfs-%llx-%llx-%llx", (unsigned long long)ino, (unsigned long long)version, (unsigned long long)key);
    kfs_auto_fd int mem = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (mem < 0 || ftruncate(mem, (off_t)size_bytes) < 0)
        return -errno;
    snprintf(path, 32, "/proc/self/fd/%d", mem);
    int fd = open(path, O_ACCMODE | O_CLOEXEC | (oflags & KEEP_OFLAGS));
    if (fd < 0)
        return -errno;
    if (fcntl(mem, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 || fchmod(mem, 0400) < 0) {
        int e = errno;
        close(fd);
        return -e;
    }
    *ret_mem = kfs_steal_fd(&mem);
    return fd;
}

int kfsd_standin_make(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version, uint64_t size_bytes, int oflags, int *ret_fd, struct kfs_err *err)
{
    struct kfsd_standins *s = v->standins;
    char path[32];
    kfs_auto_fd int mem = -1;
    uint64_t key = s->volume | (kfs_rand_u64() & ~(0xffffULL << 48));
    int fd = memfd_make(ino, version, key, size_bytes, oflags, &mem, path);
    if (fd < 0)
        return KFS_FAIL(err, -fd, "stand-in of inode %llx: %s", (unsigned long long)ino, strerror(-fd));
    lock(s);
    int wd = s->watch_fd >= 0 ? inotify_add_watch(s->watch_fd, path, IN_CLOSE_NOWRITE) : -1;
    struct standin *t = add_locked(s, ino, version, key, wd);
    pthread_mutex_unlock(&s->lock);
    (void)fchmod(mem, 0); /* nobody opens it anew through /proc, and then reads zeros */
    if (!t) {
        close(fd);
        return KFS_FAIL(err, ENOMEM, "out of memory");
    }
    *ret_fd = fd;
    return 0;
}

int kfsd_standin_check(struct kfsd_req *r, kfs_ino_t ino, uint64_t version, uint64_t key)
{
    struct kfsd_standins *s = r->vol->standins;
    if ((key & 0xffffULL << 48) != s->volume)
        return -ESTALE;
    lock(s);
    const struct standin *t = kfs_map_get(&s->by_key, key);
    bool known = t != NULL, same = t && t->ino == ino && t->version == version;
    pthread_mutex_unlock(&s->lock);
    if (known)
        return same ? 0 : -ESTALE;
    struct kfs_attr a;
    int rc = kfsd_attr_get(r->vol, ino, &a, NULL);
    if (rc < 0)
        return rc == -ENOENT ? -ESTALE : rc;
    return kfs_perm_ok(r->cred, a.mode, a.uid, a.gid, 4) ? 0 : -EACCES;
}

/* One more descriptor on the description that is there; -ENOENT: none. */
static int genuine_dup_locked(struct kfsd_standins *s, uint64_t key)
{
    const struct standin *t = kfs_map_get(&s->by_key, key);
    if (!t || t->genuine < 0)
        return -ENOENT;
    int fd = fcntl(t->genuine, F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? -errno : fd;
}

int kfsd_standin_settle(struct kfsd_req *r, struct kfsd_arrival *x, kfs_ino_t ino, uint64_t version, uint64_t key, int oflags, bool again, int *ret_fd)
{
    struct kfsd_standins *s = r->vol->standins;
    int rc = kfsd_standin_check(r, ino, version, key);
    if (rc < 0)
        return rc;
    lock(s);
    int fd = genuine_dup_locked(s, key);
    pthread_mutex_unlock(&s->lock);
    if (fd != -ENOENT || again) {
        *ret_fd = fd;
        return fd == -ENOENT ? -ESTALE : fd < 0 ? fd : 0;
    }
    kfs_auto_fd int opened = kfsd_arrive_open(x, O_RDONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | (oflags & KEEP_OFLAGS));
    if (opened < 0)
        return opened;
    lock(s);
    struct standin *t = kfs_map_get(&s->by_key, key);
    if (!t)
        t = add_locked(s, ino, version, key, -1);
    if (t && t->genuine < 0)
        t->genuine = kfs_steal_fd(&opened);
    fd = t ? genuine_dup_locked(s, key) : -ENOMEM;
    pthread_mutex_unlock(&s->lock);
    *ret_fd = fd;
    return fd < 0 ? fd : 0;
}

unsigned kfsd_standin_count(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version)
{
    struct kfsd_standins *s = v->standins;
    unsigned n = 0;
    size_t cursor = 0;
    lock(s);
    for (const struct standin *t; (t = kfs_map_next(&s->by_key, &cursor, NULL));)
        n += t->ino == ino && (!version || t->version == version) && t->wd >= 0;
    pthread_mutex_unlock(&s->lock);
    return n;
}
