/* tools/kfsd/control.c — what kfsd tells people
 *
 * CONTROL: path = command, path2 = argument. The answer is one JSON object; of a failure it is {"error": text} with the status -errno.
 *   status         the volume, this kfsd, its cache, clients, live files, tiers
 *   stats          counters: tiers, operations, commits (that changed content, that failed) and what they stored
 *   info PATH      inode, attributes, version, where its bytes are, cache level (none, file, live), rows in shared memory. The symlink itself
 *   explain PATH   in words: what would serve a stat and an open of it now, and why
 *   flush          commit everything live, durably
 *   cache          cache directories: state, contents, limits; hits and misses
 *   evict          drop clean cache files; argument: bytes to keep (default 0)
 *   config         every key with its value and where it comes from
 *   set KEY=VALUE  change a key that can change while kfsd runs; kfsd's own user and root only
 *   gc OPTIONS     start a collection of garbage (see kfsd_house_gc): its number, to ask for with
 *   job NUMBER     state, progress and result. Both for kfsd's own user and root only
 * Anybody who may connect may ask; evict and flush change nothing that a user can see. PATH is walked with the caller's permissions.
 */
#include "tools/kfsd/kfsd.h"
#include "blockstore/fetch.h"
#include "base/buf.h"
#include "base/clock.h"
#include "blockstore/limit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER_MAX (KFS_WIRE_DATA_MAX - 256)

static void put_str(struct kfs_buf *b, const char *key, const char *value)
{
    kfs_buf_json_string(b, key, strlen(key));
    kfs_buf_append_str(b, ":");
    kfs_buf_json_string(b, value, strlen(value));
}

static void put_u64(struct kfs_buf *b, const char *key, uint64_t value)
{
    kfs_buf_printf(b, ",\"%s\":%llu", key, (unsigned long long)value);
}

static const char *yes(bool b)
{
    return b ? "true" : "false";
}

static void put_tiers(struct kfs_buf *b, struct kfsd_vol *v)
{
    uint64_t t[KFS_TIER_COUNT];
    kfsd_stats_sum(v, t);
    kfs_buf_printf(b, ",\"tiers\":{\"shm\":%llu,\"kernel\":%llu,\"kfsd\":%llu}", (unsigned long long)t[KFS_TIER_SHM],
                   (unsigned long long)t[KFS_TIER_KERNEL], (unsigned long long)t[KFS_TIER_KFSD]);
}

static void put_commits(struct kfs_buf *b, struct kfsd_vol *v)
{
    put_u64(b, "commits", atomic_load(&v->commit_count));
    put_u64(b, "failed_commits", atomic_load(&v->failed_count));
    put_u64(b, "stored_bytes", atomic_load(&v->stored_bytes));
}

static void put_ops(struct kfs_buf *b, struct kfsd_vol *v)
{
    kfs_buf_append_str(b, ",\"ops\":{");
    bool first = true;
    for (unsigned op = 1; op < KFS_OP_END; op++) {
        unsigned long n = atomic_load(&v->ops[op]);
        if (!n)
            continue;
        kfs_buf_printf(b, "%s\"%s\":%lu", first ? "" : ",", kfsd_op_name(op), n);
        first = false;
    }
    kfs_buf_append_str(b, "}");
}

/* Live files whose cache file differs from what is committed, or may. */
static void count_live(struct kfsd_vol *v, unsigned *ret_live, unsigned *ret_uncommitted, unsigned *ret_orphans)
{
    size_t n;
    struct kfsd_file **all = kfsd_file_all(v, &n);
    *ret_live = *ret_uncommitted = *ret_orphans = 0;
    for (size_t i = 0; all && i < n; i++) {
        struct kfsd_file *f = all[i];
        pthread_mutex_lock(&v->table);
        bool orphan = f->orphan;
        pthread_mutex_unlock(&v->table);
        if (orphan) {
            ++*ret_orphans;
        } else if (__atomic_load_n(&f->live, __ATOMIC_ACQUIRE)) {
            ++*ret_live;
            bool clean = false;
            if (pthread_mutex_trylock(&f->lock) == 0) {
                struct stat st;
                clean = f->base.valid && kfs_cache_stat_live(v->cache, f->ino, &st) == 0 && st.st_size == f->base.size &&
                        st.st_mtim.tv_sec == f->base.mtime.tv_sec && st.st_mtim.tv_nsec == f->base.mtime.tv_nsec;
                pthread_mutex_unlock(&f->lock);
            }
            *ret_uncommitted += !clean;
        }
        kfsd_file_put(v, f);
    }
    free(all);
}

static int do_status(struct kfsd_req *r, struct kfs_buf *b)
{
    struct kfsd_vol *v = r->vol;
    const struct kfs_meta_volume *m = kfs_meta_volume(v->meta);
    struct kfs_meta_usage u = {0};
    int rc = kfs_meta_usage(v->meta, &u, &r->err);
    if (rc < 0)
        return rc;
    unsigned live, uncommitted, orphans;
    count_live(v, &live, &uncommitted, &orphans);
    kfs_buf_append_str(b, "{\"volume\":{");
    put_str(b, "id", v->v->id);
    kfs_buf_append_str(b, ",");
    put_str(b, "name", m->name);
    kfs_buf_append_str(b, ",");
    put_str(b, "url", v->v->url);
    kfs_buf_append_str(b, ",");
    put_str(b, "store", m->store);
    put_u64(b, "created_s", (uint64_t)m->created_s);
    put_u64(b, "schema", m->schema);
    put_u64(b, "inodes", u.inodes);
    put_u64(b, "bytes", u.bytes);
    kfs_buf_printf(b, "},\"kfsd\":{\"pid\":%d,\"uid\":%u,\"private\":%s", (int)getpid(), geteuid(), yes(kfsd.opt.private_));
    kfs_buf_printf(b, ",\"epoch\":\"%016llx\",\"uptime_s\":%llu,\"linger_s\":%g,", (unsigned long long)v->v->epoch,
                   (unsigned long long)((kfs_clock_mono_ns() - v->start_ns) / 1000000000), kfsd.opt.linger_s);
    put_str(b, "socket", v->socket);
    kfs_buf_append_str(b, ",");
    put_str(b, "commit", v->session ? "session" : "close");
    kfs_buf_append_str(b, "},\"cache\":{");
    put_str(b, "dir", kfs_cache_dir(v->cache));
    put_u64(b, "used_bytes", kfs_cache_used_bytes(v->cache));
    struct kfs_cache_stats cs;
    kfs_cache_stats_get(v->cache, &cs);
    put_u64(b, "cap_bytes", cs.dirs[0].cap_bytes);
    kfs_buf_printf(b, ",\"tmpfs\":%s}", yes(kfs_cache_on_tmpfs(v->cache)));
    put_u64(b, "clients", atomic_load(&v->clients));
    put_u64(b, "live", live);
    put_u64(b, "uncommitted", uncommitted);
    put_u64(b, "orphans", orphans);
    put_commits(b, v);
    put_tiers(b, v);
    put_ops(b, v);
    return kfs_buf_append_str(b, "}");
}

static void put_limit(struct kfs_buf *b, const char *name, struct kfs_limit *l)
{
    struct kfs_limit_stats s;
    kfs_limit_stats(l, &s);
    kfs_buf_printf(b, ",\"%s\":{\"bytes\":%llu,\"limit_bytes_per_s\":%llu,\"waited_ms\":%llu}", name, (unsigned long long)s.taken_bytes,
                   (unsigned long long)s.bytes_per_s, (unsigned long long)(s.waited_ns / 1000000));
}

static void put_fetch(struct kfs_buf *b, struct kfsd_vol *v)
{
    struct kfs_fetch_stats st;
    kfs_fetch_stats(v->store, &st);
    kfs_buf_printf(b, ",\"fetch\":{\"gets\":%llu", (unsigned long long)st.gets);
    put_u64(b, "bytes", st.bytes);
    put_u64(b, "again", st.again);
    put_u64(b, "first_byte_us", st.ttfb_ns / 1000);
    put_u64(b, "bytes_per_s", st.bytes_per_s);
    put_u64(b, "held_bytes", st.held_bytes);
    kfs_buf_append_str(b, "}");
}

static int do_stats(struct kfsd_req *r, struct kfs_buf *b)
{
    struct kfsd_vol *v = r->vol;
    kfs_buf_printf(b, "{\"clients\":%u", atomic_load(&v->clients));
    put_commits(b, v);
    put_tiers(b, v);
    put_ops(b, v);
    put_limit(b, "upload", &kfs_limit_upload);
    put_limit(b, "download", &kfs_limit_download);
    put_fetch(b, v);
    return kfs_buf_append_str(b, "}");
}

/* ---- info, explain ---------------------------------------------------------------------------------------------------- */

static const char *type_word(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "directory";
    case S_IFLNK: return "symlink";
    case S_IFIFO: return "fifo";
    case S_IFSOCK: return "socket";
    case S_IFCHR: return "character device";
    case S_IFBLK: return "block device";
    default: return "unknown";
    }
}

static const char *cache_level(const struct kfs_attr *a)
{
    return a->flags & KFS_ATTR_LIVE ? "live" : a->flags & KFS_ATTR_CACHED ? "file" : "none";
}

static void cache_name(const struct kfsd_vol *v, const struct kfs_attr *a, char *buf, size_t cap)
{
    if (a->flags & KFS_ATTR_LIVE)
        snprintf(buf, cap, "%s/w/%llx", kfs_cache_dir(v->cache), (unsigned long long)a->ino);
    else if (a->flags & KFS_ATTR_CACHED)
        (void)kfs_cache_path_clean(v->cache, a->ino, a->version, buf, cap);
    else
        buf[0] = 0;
}

static int argument_walk(struct kfsd_req *r, unsigned flags, struct kfsd_walk *w)
{
    const char *path = r->path2;
    while (*path == '/')
        path++;
    int rc = kfsd_walk_found(r, r->w->ino ? r->w->ino : KFS_INO_ROOT, path, flags, w);
    if (rc < 0)
        r->out_len = 0;
    return rc;
}

static int put_content(struct kfsd_req *r, struct kfs_buf *b, const struct kfs_attr *a)
{
    struct kfs_content c = {0};
    int rc = kfs_meta_content_get(r->vol->meta, a->ino, &c, &r->err);
    if (rc < 0)
        return rc;
    kfs_buf_printf(b, ",\"content\":{\"size_bytes\":%llu,\"inline\":%s,\"extents\":[", (unsigned long long)c.size_bytes, yes(c.is_inline));
    bool cut = false;
    for (size_t i = 0; i < c.extent_count && !cut; i++) {
        const struct kfs_extent *e = &c.extents[i];
        char key[64] = "";
        kfs_store_key(r->vol->store, e->object, key);
        kfs_buf_printf(b, "%s{\"off\":%llu,\"len\":%llu,\"object\":%llu,\"object_off\":%llu,", i ? "," : "", (unsigned long long)e->off,
                       (unsigned long long)e->len, (unsigned long long)e->object, (unsigned long long)e->object_off);
        put_str(b, "key", key);
        kfs_buf_append_str(b, "}");
        cut = b->len > ANSWER_MAX - 8192 && i + 1 < c.extent_count;
    }
    kfs_buf_append_str(b, cut ? "],\"truncated\":true}" : "]}");
    kfs_content_release(&c);
    return 0;
}

static int do_info(struct kfsd_req *r, struct kfs_buf *b)
{
    struct kfsd_vol *v = r->vol;
    struct kfsd_walk w;
    uint64_t dummy;
    /* What the segment knows before the walk teaches it. */
    int rc = argument_walk(r, 0, &w);
    if (rc < 0)
        return rc;
    const struct kfs_attr *a = &w.attr;
    struct kfs_attr row;
    bool attr_row = kfs_shm_attr_get(v->seg, a->ino, &row);
    bool dent_row = w.parent && kfs_shm_dent_get(v->seg, w.parent, w.name, w.name_len, &dummy) == KFS_DENT_PRESENT;
    char file[KFS_PATH_MAX + 64];
    cache_name(v, a, file, sizeof file);
    kfs_buf_append_str(b, "{");
    put_str(b, "path", r->path2);
    put_u64(b, "inode", a->ino);
    kfs_buf_append_str(b, ",");
    put_str(b, "type", type_word(a->mode));
    put_u64(b, "version", a->version);
    kfs_buf_printf(b,
                   ",\"attr\":{\"mode\":\"%o\",\"nlink\":%u,\"uid\":%u,\"gid\":%u,\"size_bytes\":%llu,\"blocks\":%llu,\"rdev\":%llu,"
                   "\"atime\":%lld.%09u,\"mtime\":%lld.%09u,\"ctime\":%lld.%09u,\"btime\":%lld.%09u,\"xattrs\":%s}",
                   a->mode, a->nlink, a->uid, a->gid, (unsigned long long)a->size_bytes, (unsigned long long)a->blocks,
                   (unsigned long long)a->rdev, (long long)a->atime_s, a->atime_ns, (long long)a->mtime_s, a->mtime_ns,
                   (long long)a->ctime_s, a->ctime_ns, (long long)a->btime_s, a->btime_ns, yes(a->flags & KFS_ATTR_XATTRS));
    if (S_ISREG(a->mode))
        rc = put_content(r, b, a);
    if (S_ISLNK(a->mode)) {
        char target[KFS_PATH_MAX];
        if (kfsd_link_get(v, a->ino, target, NULL) >= 0) {
            kfs_buf_append_str(b, ",");
            put_str(b, "target", target);
        }
    }
    kfs_buf_append_str(b, ",");
    put_str(b, "cache", cache_level(a));
    kfs_buf_append_str(b, ",");
    put_str(b, "cache_file", file);
    kfs_buf_printf(b, ",\"shm\":{\"dentry\":%s,\"attr\":%s}}", yes(dent_row), yes(attr_row));
    return rc;
}

static int do_explain(struct kfsd_req *r, struct kfs_buf *b)
{
    struct kfsd_vol *v = r->vol;
    struct kfsd_walk w;
    int rc = argument_walk(r, KFSD_WALK_FOLLOW, &w);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    const struct kfs_attr *a = &w.attr;
    const char *stat_tier, *stat_why, *open_tier, *open_why;
    if (rc == -ENOENT) {
        stat_tier = open_tier = "shm";
        stat_why = open_why = "the name does not exist, and shared memory says so";
        if (w.name_len > KFS_SHM_NAME_MAX) {
            stat_tier = open_tier = "kfsd";
            stat_why = open_why = "the name does not exist; it is too long for shared memory, so kfsd is asked each time";
        }
    } else {
        stat_tier = "shm";
        stat_why = "its name and attributes are published in shared memory";
        if (w.name_len > KFS_SHM_NAME_MAX)
            stat_tier = "kfsd", stat_why = "its name is too long for shared memory, so kfsd is asked each time";
        else if (a->flags & KFS_ATTR_LIVE)
            stat_tier = "kfsd", stat_why = "it is live (open for writing): size and times are the cache file's, so kfsd is asked";
        if (!S_ISREG(a->mode))
            open_tier = "kfsd", open_why = S_ISDIR(a->mode) ? "kfsd passes a descriptor that stands for the directory" : "it has no content";
        else if (a->flags & KFS_ATTR_LIVE)
            open_tier = "kfsd", open_why = "it is live: kfsd opens the cache file in w/ and passes the descriptor";
        else if (a->flags & KFS_ATTR_CACHED)
            open_tier = r->cred->uid == geteuid() ? "kernel" : "kfsd",
            open_why = r->cred->uid == geteuid() ? "its whole content is in the cache: the program opens the cache file itself"
                                                 : "its whole content is in the cache; another user's kfsd opens it and passes the descriptor";
        else
            open_tier = "kfsd", open_why = "its content is not in the cache: kfsd fetches it from the store first";
    }
    kfs_buf_append_str(b, "{");
    put_str(b, "path", r->path2);
    kfs_buf_printf(b, ",\"exists\":%s,\"stat\":{", yes(rc == 0));
    put_str(b, "tier", stat_tier);
    kfs_buf_append_str(b, ",");
    put_str(b, "why", stat_why);
    kfs_buf_append_str(b, "},\"open\":{");
    put_str(b, "tier", open_tier);
    kfs_buf_append_str(b, ",");
    put_str(b, "why", open_why);
    kfs_buf_append_str(b, "},\"write\":{");
    put_str(b, "tier", "kfsd");
    kfs_buf_append_str(b, ",");
    put_str(b, "why",
            v->session ? "kfsd makes it live and passes the descriptor; writes are the kernel's; the commit follows soon after close"
                       : "kfsd makes it live and passes the descriptor; writes are the kernel's; close commits");
    if (rc == 0) {
        kfs_buf_append_str(b, "},");
        put_str(b, "cache", cache_level(a));
        return kfs_buf_append_str(b, "}");
    }
    return kfs_buf_append_str(b, "}}");
}

/* ---- flush, evict, config ------------------------------------------------------------------------------------------------ */

static int do_flush(struct kfsd_req *r, struct kfs_buf *b)
{
    unsigned n = 0, live, uncommitted, orphans;
    int rc = kfsd_flush(r->vol, true, &n, &r->err);
    if (rc < 0)
        return rc;
    count_live(r->vol, &live, &uncommitted, &orphans);
    return kfs_buf_printf(b, "{\"committed\":%u,\"live\":%u,\"uncommitted\":%u}", n, live, uncommitted);
}

static void put_cache_dir(struct kfs_buf *b, const struct kfs_cache_dir_stats *d, bool first)
{
    kfs_buf_append_str(b, first ? "{" : ",{");
    put_str(b, "dir", d->dir);
    kfs_buf_append_str(b, ",");
    put_str(b, "state", kfs_cache_health_word(d->health));
    if (d->error) {
        kfs_buf_append_str(b, ",");
        put_str(b, "why", strerror(d->error));
    }
    put_u64(b, "used_bytes", d->used_bytes);
    put_u64(b, "cap_bytes", d->cap_bytes);
    put_u64(b, "files", d->files);
    put_u64(b, "cap_files", d->cap_files);
    put_u64(b, "arriving_bytes", d->arriving_bytes);
    put_u64(b, "free_bytes", d->free_bytes);
    put_u64(b, "free_files", d->free_files);
    kfs_buf_printf(b, ",\"scanning\":%s}", yes(d->scanning));
}

static int do_cache(struct kfsd_req *r, struct kfs_buf *b)
{
    struct kfs_cache_stats *s = malloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    kfs_cache_stats_get(r->vol->cache, s);
    kfs_buf_append_str(b, "{\"directories\":[");
    for (unsigned i = 0; i < s->dir_count; i++)
        put_cache_dir(b, &s->dirs[i], i == 0);
    kfs_buf_printf(b, "],\"hits\":%llu", (unsigned long long)s->hits);
    put_u64(b, "misses", s->misses);
    kfs_buf_printf(b, ",\"hit_ratio\":%.4f", s->hits + s->misses ? (double)s->hits / (double)(s->hits + s->misses) : 0.0);
    put_u64(b, "evicted_files", s->evicted_files);
    put_u64(b, "evicted_bytes", s->evicted_bytes);
    put_u64(b, "returned_files", s->returned_files);
    put_u64(b, "hashed_files", s->hashed_files);
    put_u64(b, "checked_files", s->checked_files);
    put_u64(b, "wrong_files", s->wrong_files);
    put_u64(b, "memory_bytes", s->memory_bytes);
    put_u64(b, "memory_cap_bytes", s->memory_cap_bytes);
    free(s);
    return kfs_buf_append_str(b, "}");
}

static int do_evict(struct kfsd_req *r, struct kfs_buf *b)
{
    uint64_t keep = 0;
    if (r->path2[0] && kfs_conf_parse_size(r->path2, &keep) < 0)
        return KFS_FAIL(&r->err, EINVAL, "'%s' is not a size; use bytes, or K, M, G, T", r->path2);
    int64_t freed = kfs_cache_evict(r->vol->cache, keep);
    if (freed < 0)
        return (int)freed;
    return kfs_buf_printf(b, "{\"freed_bytes\":%lld,\"used_bytes\":%llu}", (long long)freed,
                          (unsigned long long)kfs_cache_used_bytes(r->vol->cache));
}

/* The texts of kfsd.conf, which `set` replaces. */
static pthread_mutex_t conf_lock = PTHREAD_MUTEX_INITIALIZER;

void kfsd_conf_apply(void)
{
    kfs_limit_set(&kfs_limit_upload, kfs_conf_number(&kfsd.conf, KFS_CONF_UPLOAD_RATE));
    kfs_limit_set(&kfs_limit_download, kfs_conf_number(&kfsd.conf, KFS_CONF_DOWNLOAD_RATE));
}

static int do_set(struct kfsd_req *r, struct kfs_buf *b)
{
    static const enum kfs_conf_key keys[] = {KFS_CONF_UPLOAD_RATE, KFS_CONF_DOWNLOAD_RATE, KFS_CONF_CACHE_BYTES, KFS_CONF_CACHE_FILES};
    char *value = strchr(r->path2, '=');
    if (r->cred->uid != 0 && r->cred->uid != geteuid())
        return KFS_FAIL(&r->err, EPERM, "settings are changed by uid %u, to whom this kfsd belongs, or by root", geteuid());
    if (!value)
        return KFS_FAIL(&r->err, EINVAL, "'%.100s' is not KEY=VALUE", r->path2);
    *value++ = 0;
    bool known = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        known = known || strcmp(r->path2, kfs_conf_key_name(keys[i])) == 0;
    if (!known)
        return KFS_FAIL(&r->err, EINVAL, "'%.64s' cannot change while kfsd runs; upload_bytes_per_s, download_bytes_per_s, cache_bytes and cache_files can", r->path2);
    pthread_mutex_lock(&conf_lock);
    int rc = kfs_conf_set(&kfsd.conf, r->path2, value, "kfs config set", &r->err);
    if (rc == 0) {
        kfsd_conf_apply();
        if (strncmp(r->path2, "cache_", 6) == 0)
            kfs_cache_caps_set(r->vol->cache, kfs_conf_number(&kfsd.conf, KFS_CONF_CACHE_BYTES), kfs_conf_number(&kfsd.conf, KFS_CONF_CACHE_FILES));
    }
    pthread_mutex_unlock(&conf_lock);
    if (rc < 0)
        return rc;
    kfs_log(KFS_LOG_INFO, "%s is %s now", r->path2, value);
    kfs_buf_append_str(b, "{");
    put_str(b, r->path2, value);
    return kfs_buf_append_str(b, "}");
}

static int do_config(struct kfsd_req *r, struct kfs_buf *b)
{
    (void)r;
    pthread_mutex_lock(&conf_lock);
    kfs_buf_append_str(b, "{\"config\":[");
    for (int k = 0; k < KFS_CONF_COUNT; k++) {
        kfs_buf_append_str(b, k ? ",{" : "{");
        put_str(b, "key", kfs_conf_key_name((enum kfs_conf_key)k));
        kfs_buf_append_str(b, ",");
        put_str(b, "value", kfs_conf_text(&kfsd.conf, (enum kfs_conf_key)k));
        kfs_buf_append_str(b, ",");
        put_str(b, "origin", kfsd.conf.values[k].origin ? kfsd.conf.values[k].origin : "default");
        kfs_buf_append_str(b, "}");
    }
    pthread_mutex_unlock(&conf_lock);
    kfs_buf_append_str(b, "],\"volumes\":[");
    bool cut = false;
    for (size_t i = 0; i < kfsd.conf.volume_count && !cut; i++) {
        const struct kfs_conf_volume *cv = &kfsd.conf.volumes[i];
        kfs_buf_append_str(b, i ? ",{" : "{");
        put_str(b, "name", cv->name);
        kfs_buf_append_str(b, ",");
        put_str(b, "url", cv->url);
        kfs_buf_append_str(b, "}");
        cut = b->len > ANSWER_MAX - 8192 && i + 1 < kfsd.conf.volume_count;
    }
    return kfs_buf_append_str(b, cut ? "],\"truncated\":true}" : "]}");
}

/* ---- housekeeping ---------------------------------------------------------------------------------------------------------- */

static int owner_only(struct kfsd_req *r)
{
    if (r->cred->uid == 0 || r->cred->uid == geteuid())
        return 0;
    return KFS_FAIL(&r->err, EPERM, "housekeeping is for uid %u, to whom this kfsd belongs, and for root", geteuid());
}

static int do_gc(struct kfsd_req *r, struct kfs_buf *b)
{
    unsigned id = 0;
    int rc = owner_only(r);
    if (rc == 0)
        rc = kfsd_house_gc(r->vol, r->path2, &id, &r->err);
    return rc < 0 ? rc : kfs_buf_printf(b, "{\"job\":%u}", id);
}

static int do_job(struct kfsd_req *r, struct kfs_buf *b)
{
    int rc = owner_only(r);
    return rc < 0 ? rc : kfsd_house_job_show(r->vol, (unsigned)strtoul(r->path2, NULL, 10), b, &r->err);
}

int kfsd_op_control(struct kfsd_req *r)
{
    static const struct {
        const char *name;
        int (*run)(struct kfsd_req *r, struct kfs_buf *b);
    } commands[] = {
        {"status", do_status}, {"info", do_info},   {"explain", do_explain}, {"flush", do_flush},
        {"evict", do_evict},   {"config", do_config}, {"stats", do_stats}, {"set", do_set},
        {"gc", do_gc},         {"job", do_job},       {"cache", do_cache},
    };
    struct kfs_buf b;
    kfs_buf_init(&b);
    int rc = KFS_FAIL(&r->err, EINVAL, "unknown command '%.100s'; use status, info, explain, flush, cache, evict, config, set, stats, gc or job", r->path);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(r->path, commands[i].name) == 0) {
            r->err = (struct kfs_err){0};
            rc = commands[i].run(r, &b);
            break;
        }
    }
    if (rc >= 0 && b.failed)
        rc = -ENOMEM;
    if (rc >= 0 && b.len > KFS_WIRE_DATA_MAX)
        rc = KFS_FAIL(&r->err, E2BIG, "answer too long");
    if (rc < 0) {
        kfs_buf_clear(&b);
        kfs_buf_append_str(&b, "{\"error\":");
        const char *text = r->err.code       ? r->err.msg
                           : rc <= -10000 ? "the path leads out of the volume through a symlink"
                                             : strerror(-rc);
        kfs_buf_json_string(&b, text, strlen(text));
        kfs_buf_append_str(&b, "}");
    }
    r->out_len = b.failed ? 0 : b.len;
    memcpy(r->out, kfs_buf_str(&b), r->out_len);
    kfs_buf_release(&b);
    return rc < 0 ? rc : 0;
}
