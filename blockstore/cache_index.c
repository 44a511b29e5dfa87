/* blockstore/cache_index.c — what lies in f/, and where
 *
 * Model    A hash by inode, one entry an inode: of several versions the highest stays. It comes from CACHE/index (cache_log.c); where that may not say
 *          everything, a scan in the background adds what is missing, and until then a file that is not known is looked for by name. A file that is known
 *          and is not there is noticed when it is opened.
 *          used_bytes counts the allocated bytes of clean files only: live files cannot be evicted, so the caps are no business of theirs.
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
#include <sys/statvfs.h>
#include <unistd.h>

#define SAMPLE 16 /* one file in so many has a hash with KFS_CACHE_VERIFY_SAMPLED */

int kfs_cache_index_init(struct kfs_cache *c)
{
    c->bucket_count = 1024;
    c->buckets = calloc(c->bucket_count, sizeof *c->buckets);
    c->ghosts = calloc(c->bucket_count, sizeof *c->ghosts);
    return c->buckets && c->ghosts ? 0 : -ENOMEM;
}

void kfs_cache_index_clear(struct kfs_cache *c)
{
    for (size_t i = 0; c->buckets && i < c->bucket_count; i++)
        for (struct kfs_cache_entry *e = c->buckets[i], *next; e; e = next) {
            next = e->chain;
            free(e);
        }
    free(c->buckets);
    free(c->ghosts);
    c->buckets = NULL;
    c->ghosts = NULL;
}

/* --- the hash --------------------------------------------------------------------------------- */

struct kfs_cache_entry **kfs_cache_index_slot_locked(struct kfs_cache *c, kfs_ino_t ino)
{
    struct kfs_cache_entry **p = &c->buckets[kfs_hash_u64(ino) & (c->bucket_count - 1)];
    while (*p && (*p)->ino != ino)
        p = &(*p)->chain;
    return p;
}

/* Chains stay short. Without memory for a larger table they grow; nothing breaks. Ghosts are forgotten: few, and soon replaced. */
static void grow_locked(struct kfs_cache *c)
{
    size_t count = c->bucket_count * 2;
    struct kfs_cache_entry **buckets = calloc(count, sizeof *buckets);
    struct kfs_cache_ghost *ghosts = calloc(count, sizeof *ghosts);
    if (!buckets || !ghosts) {
        free(buckets);
        free(ghosts);
        return;
    }
    for (size_t i = 0; i < c->bucket_count; i++)
        for (struct kfs_cache_entry *e = c->buckets[i], *next; e; e = next) {
            next = e->chain;
            struct kfs_cache_entry **p = &buckets[kfs_hash_u64(e->ino) & (count - 1)];
            e->chain = *p;
            *p = e;
        }
    free(c->buckets);
    free(c->ghosts);
    c->buckets = buckets;
    c->ghosts = ghosts;
    c->bucket_count = count;
}

void kfs_cache_index_attach_locked(struct kfs_cache *c, struct kfs_cache_entry *e)
{
    struct kfs_cache_place *p = &c->places[e->place];
    if (c->entry_count >= c->bucket_count)
        grow_locked(c);
    struct kfs_cache_entry **slot = kfs_cache_index_slot_locked(c, e->ino);
    e->chain = NULL;
    *slot = e;
    kfs_cache_queue_push_locked(c, e, e->queue);
    p->used_bytes += e->bytes;
    p->files++;
    c->entry_count++;
}

void kfs_cache_index_detach_locked(struct kfs_cache *c, struct kfs_cache_entry **slot)
{
    struct kfs_cache_entry *e = *slot;
    struct kfs_cache_place *p = &c->places[e->place];
    *slot = e->chain;
    kfs_cache_queue_unlink_locked(c, e);
    p->used_bytes -= e->bytes;
    p->files--;
    c->entry_count--;
}

/* --- changes ---------------------------------------------------------------------------------- */

void kfs_cache_unlink_clean(struct kfs_cache *c, unsigned place, kfs_ino_t ino, uint64_t version)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_clean(name, ino, version);
    if (c->places[place].f_fd >= 0)
        unlinkat(c->places[place].f_fd, name, 0);
}

static uint64_t file_bytes(struct kfs_cache *c, unsigned place, kfs_ino_t ino, uint64_t version)
{
    char name[KFS_CACHE_NAME_MAX];
    struct stat st;
    kfs_cache_name_clean(name, ino, version);
    return fstatat(c->places[place].f_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

bool kfs_cache_index_wants_hash(const struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    return c->options.verify == KFS_CACHE_VERIFY_FULL ||
           (c->options.verify == KFS_CACHE_VERIFY_SAMPLED && kfs_hash_u64(ino ^ version << 32) % SAMPLE == 0);
}

/* A full queue loses the newest: that file goes unchecked (or, with FULL, does not outlive this session). */
static void hash_later_locked(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    if (c->to_hash_count == KFS_CACHE_HASH_QUEUE || !kfs_cache_index_wants_hash(c, ino, version))
        return;
    unsigned i = (c->to_hash_at + c->to_hash_count++) % KFS_CACHE_HASH_QUEUE;
    c->to_hash[i].ino = ino;
    c->to_hash[i].version = version;
}

void kfs_cache_index_add(struct kfs_cache *c, struct kfs_cache_place *p, kfs_ino_t ino, uint64_t version)
{
    struct kfs_cache_entry *e = calloc(1, sizeof *e), *old = NULL;
    uint64_t bytes = file_bytes(c, p->number, ino, version);
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry **slot = kfs_cache_index_slot_locked(c, ino);
    if (*slot) {
        old = *slot;
        kfs_cache_log_remove_locked(c, old);
        kfs_cache_index_detach_locked(c, slot);
        if (old->version != version || old->place != p->number)
            kfs_cache_unlink_clean(c, old->place, ino, old->version);
    }
    if (!e) { /* no memory: reuse the old entry, or go without accounting until the next start */
        e = old;
        old = NULL;
    }
    if (e) {
        bool known = kfs_cache_ghost_known_locked(c, ino) || (old && old->queue == KFS_CACHE_MAIN);
        *e = (struct kfs_cache_entry){.ino = ino,
                                      .version = version,
                                      .bytes = bytes,
                                      .place = (uint8_t)p->number,
                                      .queue = known ? KFS_CACHE_MAIN : KFS_CACHE_SMALL,
                                      .flags = KFS_CACHE_FRESH};
        c->stats.returned_files += known && !old;
        kfs_cache_index_attach_locked(c, e);
        kfs_cache_log_add_locked(c, e);
        hash_later_locked(c, ino, version);
    }
    pthread_mutex_unlock(&c->lock);
    free(old);
    kfs_cache_trim(c, p, ino); /* the new one itself is about to be used */
}

void kfs_cache_index_remove(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry **slot = kfs_cache_index_slot_locked(c, ino), *e = *slot;
    if (e && e->version == version) {
        kfs_cache_log_remove_locked(c, e);
        kfs_cache_index_detach_locked(c, slot);
    } else {
        e = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    free(e);
}

void kfs_cache_index_drop_place(struct kfs_cache *c, struct kfs_cache_place *p)
{
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->bucket_count; i++)
        for (struct kfs_cache_entry **slot = &c->buckets[i]; *slot;) {
            struct kfs_cache_entry *e = *slot;
            if (e->place != p->number) {
                slot = &e->chain;
                continue;
            }
            kfs_cache_index_detach_locked(c, slot);
            free(e);
        }
    pthread_mutex_unlock(&c->lock);
}

/* --- questions -------------------------------------------------------------------------------- */

static void used_locked(struct kfs_cache *c, struct kfs_cache_entry *e)
{
    if (e->flags & KFS_CACHE_FRESH)
        e->flags &= (uint8_t)~KFS_CACHE_FRESH;
    else if (e->uses < KFS_CACHE_USES_MAX)
        e->uses++;
    c->stats.hits++;
}

static bool sure_locked(const struct kfs_cache *c)
{
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++)
        if (c->places[i].scan)
            return false;
    return true;
}

int kfs_cache_index_find(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, bool touch, bool *ret_sure, struct kfs_cache_entry *check)
{
    int at = -ENOENT;
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *e = *kfs_cache_index_slot_locked(c, ino);
    *ret_sure = sure_locked(c);
    if (e && e->version == version) {
        at = e->place;
        *ret_sure = true;
        if (touch)
            used_locked(c, e);
        /* Where a sample was wrong, what has no hash has to go. */
        if (check && (e->flags & KFS_CACHE_CHECK) &&
            (e->flags & KFS_CACHE_HASHED || c->options.verify == KFS_CACHE_VERIFY_FULL || c->places[at].distrust))
            *check = *e;
    }
    pthread_mutex_unlock(&c->lock);
    return at;
}

void kfs_cache_index_checked(struct kfs_cache *c, kfs_ino_t ino, uint64_t version)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *e = *kfs_cache_index_slot_locked(c, ino);
    if (e && e->version == version)
        e->flags &= (uint8_t)~KFS_CACHE_CHECK;
    pthread_mutex_unlock(&c->lock);
}

void kfs_cache_index_hashed(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, const uint64_t hash[2])
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *e = *kfs_cache_index_slot_locked(c, ino);
    if (e && e->version == version) {
        memcpy(e->hash, hash, sizeof e->hash);
        e->flags |= KFS_CACHE_HASHED;
        c->stats.hashed_files++;
        kfs_cache_log_add_locked(c, e);
    }
    pthread_mutex_unlock(&c->lock);
}

void kfs_cache_touch(struct kfs_cache *c, kfs_ino_t ino)
{
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *e = *kfs_cache_index_slot_locked(c, ino);
    if (e) {
        e->flags &= (uint8_t)~KFS_CACHE_FRESH; /* who opens by name was not the one it was brought for */
        if (e->uses < KFS_CACHE_USES_MAX)
            e->uses++;
    }
    pthread_mutex_unlock(&c->lock);
}

void kfs_cache_hits(struct kfs_cache *c, uint64_t count)
{
    pthread_mutex_lock(&c->lock);
    c->stats.hits += count;
    pthread_mutex_unlock(&c->lock);
}

void kfs_cache_missed(struct kfs_cache *c)
{
    pthread_mutex_lock(&c->lock);
    c->stats.misses++;
    pthread_mutex_unlock(&c->lock);
}

uint64_t kfs_cache_used_bytes(struct kfs_cache *c)
{
    uint64_t used = 0;
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++)
        used += c->places[i].used_bytes;
    pthread_mutex_unlock(&c->lock);
    return used;
}

uint64_t kfs_cache_room_bytes(struct kfs_cache *c)
{
    uint64_t room = 0;
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < atomic_load(&c->place_count); i++) {
        const struct kfs_cache_place *p = &c->places[i];
        uint64_t used = p->used_bytes + p->partial_bytes;
        if (atomic_load(&p->health) != KFS_CACHE_OK || (p->cap_files && p->files >= p->cap_files))
            continue;
        uint64_t more = !p->cap_bytes ? UINT64_MAX : used < p->cap_bytes ? p->cap_bytes - used : 0;
        room = more > UINT64_MAX - room ? UINT64_MAX : room + more;
    }
    pthread_mutex_unlock(&c->lock);
    return room;
}

static void dir_stats_locked(struct kfs_cache_place *p, struct kfs_cache_dir_stats *ret)
{
    struct statvfs fs;
    *ret = (struct kfs_cache_dir_stats){.dir = p->dir,
                                        .health = (enum kfs_cache_health)atomic_load(&p->health),
                                        .error = p->error,
                                        .scanning = p->scan,
                                        .cap_bytes = p->cap_bytes,
                                        .cap_files = p->cap_files,
                                        .used_bytes = p->used_bytes,
                                        .files = p->files,
                                        .arriving_bytes = p->partial_bytes};
    if (p->f_fd >= 0 && fstatvfs(p->f_fd, &fs) == 0) {
        ret->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        ret->free_files = fs.f_favail;
    }
}

void kfs_cache_stats_get(struct kfs_cache *c, struct kfs_cache_stats *ret)
{
    pthread_mutex_lock(&c->lock);
    *ret = c->stats;
    ret->dir_count = atomic_load(&c->place_count);
    for (unsigned i = 0; i < ret->dir_count; i++)
        dir_stats_locked(&c->places[i], &ret->dirs[i]);
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_lock(&c->memory_lock);
    ret->memory_bytes = c->memory_bytes;
    ret->memory_cap_bytes = c->options.memory_bytes;
    pthread_mutex_unlock(&c->memory_lock);
    pthread_mutex_lock(&c->live_lock);
    ret->kept_live = c->kept.count;
    pthread_mutex_unlock(&c->live_lock);
}

/* --- what lies in f/ -------------------------------------------------------------------------- */

/* "INO-VERSION" below f/XX */
static bool parse_clean(const char *name, unsigned xx, kfs_ino_t *ret_ino, uint64_t *ret_version)
{
    const char *p = name;
    if (!kfs_cache_parse_hex(&p, ret_ino) || (*ret_ino & 255) != xx || *p++ != '-')
        return false;
    return kfs_cache_parse_version(p, ret_version);
}

static void scan_one(struct kfs_cache *c, struct kfs_cache_place *p, unsigned xx, const char *name)
{
    kfs_ino_t ino;
    uint64_t version;
    if (!parse_clean(name, xx, &ino, &version))
        return;
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_entry *e = *kfs_cache_index_slot_locked(c, ino);
    bool here = e && e->version == version && e->place == p->number;
    bool stale = e && !here && e->version >= version;
    /* Under the lock: the file is not one that is being moved here just now, under the same name. */
    if (stale)
        kfs_cache_unlink_clean(c, p->number, ino, version);
    pthread_mutex_unlock(&c->lock);
    if (!here && !stale && c->options.verify == KFS_CACHE_VERIFY_FULL)
        kfs_cache_unlink_clean(c, p->number, ino, version); /* nothing vouches for it */
    else if (!here && !stale)
        kfs_cache_index_add(c, p, ino, version);
}

int kfs_cache_index_scan(struct kfs_cache *c, struct kfs_cache_place *p, unsigned xx, struct kfs_err *err)
{
    char sub[4];
    snprintf(sub, sizeof sub, "%02x", xx);
    int fd = openat(p->f_fd, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return 0;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int rc = KFS_FAIL(err, errno, "cannot list '%s/f/%s': %s", p->dir, sub, strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    for (struct dirent *e; (e = readdir(d));)
        scan_one(c, p, xx, e->d_name);
    closedir(d);
    return 0;
}
