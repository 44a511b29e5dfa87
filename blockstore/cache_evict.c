/* blockstore/cache_evict.c — what is in f/, how much it is, and what goes first
 *
 * Model    A hash by inode (one entry an inode: of several versions the highest stays) and one list
 *          from newest to oldest use. used_bytes counts the allocated bytes of clean files only:
 *          live files cannot be evicted, so the cap is no business of theirs. Unlinking is safe at
 *          any time: whoever has the file open or mapped keeps it (P4).
 */
#include "blockstore/cache_dir.h"
#include "base/pure/hash.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int kfs_cache_index_init(struct kfs_cache *c)
{
    c->bucket_count = 1024;
    c->buckets = calloc(c->bucket_count, sizeof *c->buckets);
    return c->buckets ? 0 : -ENOMEM;
}

void kfs_cache_index_clear(struct kfs_cache *c)
{
    for (struct kfs_cache_entry *e = c->newest, *next; e; e = next) {
        next = e->older;
        free(e);
    }
    free(c->buckets);
    c->newest = c->oldest = NULL;
    c->buckets = NULL;
}

/* --- list and hash ---------------------------------------------------------------------------- */

static void lru_unlink_locked(struct kfs_cache *c, struct kfs_cache_entry *e)
{
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
}

static void lru_push_locked(struct kfs_cache *c, struct kfs_cache_entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static struct kfs_cache_entry **slot_locked(struct kfs_cache *c, kfs_ino_t ino)
{
    struct kfs_cache_entry **p = &c->buckets[kfs_hash_u64(ino) & (c->bucket_count - 1)];
    while (*p && (*p)->ino != ino)
        p = &(*p)->chain;
    return p;
}

static void detach_locked(struct kfs_cache *c, struct kfs_cache_entry **slot)
{
    struct kfs_cache_entry *e = *slot;
    *slot = e->chain;
    lru_unlink_locked(c, e);
    c->used_bytes -= e->bytes;
    c->entry_count--;
}

/* Chains stay short. Without memory for a larger table they grow; nothing breaks. */
static void grow_locked(struct kfs_cache *c)
{
    size_t count = c->bucket_count * 2;
    struct kfs_cache_entry **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return;
    free(c->buckets);
    c->buckets = buckets;
    c->bucket_count = count;
    for (struct kfs_cache_entry *e = c->newest; e; e = e->older) {
        struct kfs_cache_entry **p = &c->buckets[kfs_hash_u64(e->ino) & (count - 1)];
        e->chain = *p;
        *p = e;
    }
}

static void attach_locked(struct kfs_cache *c, struct kfs_cache_entry *e)
{
    if (c->entry_count >= c->bucket_count)
        grow_locked(c);
    struct kfs_cache_entry **slot = slot_locked(c, e->ino);
    e->chain = NULL;
    *slot = e;
    lru_push_locked(c, e);
    c->used_bytes += e->bytes;
    c->entry_count++;
}

/* --- eviction --------------------------------------------------------------------------------- */

static void unlink_clean(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(name, ino, version);
    unlinkat(c->f_fd, name, 0);
}

/* Take entries from the old end until used <= target; `keep` (may be NULL) stays. Returns them
 * chained by `chain`. The files are unlinked under the lock, so that nobody adds the same name
 * between the index's forgetting it and its end. */
static struct kfs_cache_entry *evict_locked(struct kfs_cache *c, uint64_t target,
                                            const struct kfs_cache_entry *keep)
{
    struct kfs_cache_entry *gone = NULL;
    for (struct kfs_cache_entry *e = c->oldest, *newer;
         e && (c->used_bytes > target || target == 0); e = newer) {
        newer = e->newer;
        if (e == keep)
            continue;
        detach_locked(c, slot_locked(c, e->ino));
        unlink_clean(c, e->ino, e->version);
        e->chain = gone;
        gone = e;
    }
    return gone;
}

/* Tell and free, without the lock. */
static uint64_t report_gone(struct kfs_cache *c, struct kfs_cache_entry *gone)
{
    uint64_t bytes = 0;
    for (struct kfs_cache_entry *next; gone; gone = next) {
        next = gone->chain;
        bytes += gone->bytes;
        if (c->on_evict)
            c->on_evict(c->on_evict_arg, gone->ino, gone->version);
        free(gone);
    }
    return bytes;
}

int64_t kfs_cache_evict(struct kfs_cache *c, uint64_t target_bytes)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *gone = evict_locked(c, target_bytes, NULL);
    pthread_mutex_unlock(&c->lock);
    return (int64_t)report_gone(c, gone);
}

uint64_t kfs_cache_used_bytes(struct kfs_cache *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t used = c->used_bytes;
    pthread_mutex_unlock(&c->lock);
    return used;
}

void kfs_cache_touch(struct kfs_cache *c, kfs_ino_t ino)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *e = *slot_locked(c, ino);
    if (e && e != c->newest) {
        lru_unlink_locked(c, e);
        lru_push_locked(c, e);
    }
    pthread_mutex_unlock(&c->lock);
}

void kfs_cache_on_evict(struct kfs_cache *c, void (*fn)(void *arg, kfs_ino_t ino, uint64_t version),
                        void *arg)
{
    pthread_mutex_lock(&c->lock);
    c->on_evict = fn;
    c->on_evict_arg = arg;
    pthread_mutex_unlock(&c->lock);
}

/* Below the cap by a tenth, so that each new file does not evict again. Arriving files count, but cannot go. */
static struct kfs_cache_entry *trim_locked(struct kfs_cache *c, const struct kfs_cache_entry *keep)
{
    if (!c->cap_bytes || c->used_bytes + c->partial_bytes <= c->cap_bytes)
        return NULL;
    uint64_t target = c->cap_bytes - c->cap_bytes / 10;
    return evict_locked(c, target > c->partial_bytes ? target - c->partial_bytes : 0, keep);
}

void kfs_cache_index_trim(struct kfs_cache *c)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *gone = trim_locked(c, NULL);
    pthread_mutex_unlock(&c->lock);
    report_gone(c, gone);
}

/* --- changes ---------------------------------------------------------------------------------- */

static uint64_t file_bytes(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    char name[KFS_CACHE_NAME_MAX];
    struct stat st;
    kfs_cache_name_clean(name, ino, version);
    return fstatat(c->f_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

void kfs_cache_index_add(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    struct kfs_cache_entry *e = calloc(1, sizeof *e), *gone = NULL, *old = NULL;
    uint64_t bytes = file_bytes(c, ino, version);
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry **slot = slot_locked(c, ino);
    if (*slot) {
        old = *slot;
        detach_locked(c, slot);
        if (old->version != version)
            unlink_clean(c, ino, old->version);
    }
    if (!e) { /* no memory: reuse the old entry, or go without accounting until the next start */
        e = old;
        old = NULL;
    }
    if (e) {
        *e = (struct kfs_cache_entry){.ino = ino, .version = version, .bytes = bytes};
        attach_locked(c, e);
        gone = trim_locked(c, e); /* the new one itself is about to be used */
    }
    pthread_mutex_unlock(&c->lock);
    free(old);
    report_gone(c, gone);
}

void kfs_cache_index_remove(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry **slot = slot_locked(c, ino), *e = *slot;
    if (e && e->version == version)
        detach_locked(c, slot);
    else
        e = NULL;
    pthread_mutex_unlock(&c->lock);
    free(e);
}

/* --- the state at open ------------------------------------------------------------------------ */

/* "INO-VERSION" below f/XX */
static bool parse_clean(const char *name, unsigned xx, kfs_ino_t *ret_ino, uint64_t *ret_version)
{
    const char *p = name;
    if (!kfs_cache_parse_hex(&p, ret_ino) || (*ret_ino & 255) != xx || *p++ != '-')
        return false;
    return kfs_cache_parse_version(p, ret_version);
}

static void scan_one(struct kfs_cache *c, unsigned xx, const char *name)
{
    kfs_ino_t ino;
    uint64_t version;
    if (!parse_clean(name, xx, &ino, &version))
        return;
    struct kfs_cache_entry *e = *slot_locked(c, ino); /* one thread: nobody has the handle yet */
    if (e && e->version > version)
        unlink_clean(c, ino, version);
    else
        kfs_cache_index_add(c, ino, version);
}

int kfs_cache_index_scan(struct kfs_cache *c, struct kfs_err *err)
{
    for (unsigned xx = 0; xx < 256; xx++) {
        char sub[4];
        snprintf(sub, sizeof sub, "%02x", xx);
        int fd = openat(c->f_fd, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 && errno == ENOENT)
            continue;
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        if (!d) {
            int rc =
                KFS_FAIL(err, errno, "cannot list '%s/f/%s': %s", c->dir, sub, strerror(errno));
            if (fd >= 0)
                close(fd);
            return rc;
        }
        for (struct dirent *e; (e = readdir(d));)
            scan_one(c, xx, e->d_name);
        closedir(d);
    }
    return 0;
}
