/* blockstore/cache_log.c — the index of f/ on disk: CACHE/index
 *
 * Format   A header of 64 bytes, then records of 64 bytes, host byte order; docs/format.md has both to the byte. A record says that a file was added (or
 *          hashed: a later record replaces an earlier one) or went. Each carries a checksum seeded with the header's generation, so that what an older
 *          index left behind in the same blocks is not taken for a record.
 * Model    Written behind: records are collected and appended a second later at most. A regular end writes the whole index in the order of the queues into a
 *          new file and marks it complete; the start takes the mark away. An index without the mark is read as far as its records are right, and
 *          what it does not know is found by a scan in the background: it never has to be waited for, and it may be lost.
 *          It may also name files that are gone: whoever opens one finds out.
 * Size     When more than half of the records are out of date, it is written anew, by the background thread.
 */
#include "blockstore/cache_dir.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/rand.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC          "KFSCIDX1"
#define READ_RECORDS   4096u
#define COMPACT_EXCESS 8192u

struct header {
    char magic[8];
    uint32_t version, record_bytes;
    uint64_t generation; /* random */
    uint64_t complete;   /* 1: it says all that f/ holds */
    uint64_t records;    /* when complete */
    uint64_t reserved[2];
    uint64_t check; /* xxh3-64 of the bytes before */
};
static_assert(sizeof(struct header) == 64, "index header");

enum { ADD = 1, REMOVE = 2 };

struct record {
    uint8_t kind, queue, uses, flags; /* flags: KFS_CACHE_HASHED or 0 */
    uint32_t reserved;
    uint64_t ino, version, bytes;
    uint64_t hash[2];
    uint64_t reserved2;
    uint64_t check; /* xxh3-64 of the bytes before, seeded with the generation */
};
static_assert(sizeof(struct record) == 64, "index record");

/* kfs_cache.lock guards it; whoever writes to fd, or replaces the log, holds log_lock. */
struct kfs_cache_log {
    int fd; /* O_APPEND; -1: this directory takes no index */
    uint64_t generation, records;
    struct kfs_buf pending;
};

static uint64_t header_check(const struct header *h)
{
    return XXH3_64bits(h, offsetof(struct header, check));
}

static uint64_t record_check(const struct record *r, uint64_t generation)
{
    return XXH3_64bits_withSeed(r, offsetof(struct record, check), generation);
}

static int write_all(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const char *)data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        done += (size_t)n;
    }
    return 0;
}

static int header_write(int fd, uint64_t generation, bool complete, uint64_t records)
{
    struct header h = {.version = 1, .record_bytes = sizeof(struct record), .generation = generation, .complete = complete, .records = records};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.check = header_check(&h);
    return pwrite(fd, &h, sizeof h, 0) == (ssize_t)sizeof h ? 0 : errno ? -errno : -ENOSPC;
}

static bool header_ok(const struct header *h)
{
    return memcmp(h->magic, MAGIC, sizeof h->magic) == 0 && h->version == 1 && h->record_bytes == sizeof(struct record) && h->check == header_check(h);
}

/* --- records ---------------------------------------------------------------------------------- */

static void record_make(const struct kfs_cache_entry *e, int kind, uint64_t generation, struct record *ret)
{
    *ret = (struct record){.kind = (uint8_t)kind,
                           .queue = e->queue,
                           .uses = e->uses,
                           .flags = e->flags & KFS_CACHE_HASHED,
                           .ino = e->ino,
                           .version = e->version,
                           .bytes = e->bytes,
                           .hash = {e->hash[0], e->hash[1]}};
    ret->check = record_check(ret, generation);
}

static void append_locked(struct kfs_cache *c, const struct kfs_cache_entry *e, int kind)
{
    struct kfs_cache_log *l = c->places[e->place].log;
    struct record r;
    if (!l)
        return;
    record_make(e, kind, l->generation, &r);
    if (kfs_buf_append(&l->pending, &r, sizeof r) == 0)
        l->records++;
}

void kfs_cache_log_add_locked(struct kfs_cache *c, const struct kfs_cache_entry *e)
{
    append_locked(c, e, ADD);
}

void kfs_cache_log_remove_locked(struct kfs_cache *c, const struct kfs_cache_entry *e)
{
    append_locked(c, e, REMOVE);
}

/* A record that was read. */
static void apply_locked(struct kfs_cache *c, struct kfs_cache_place *p, const struct record *r, bool checked)
{
    struct kfs_cache_entry **slot = kfs_cache_index_slot_locked(c, r->ino), *e = *slot;
    if (r->kind != ADD) {
        if (e && e->version == r->version && e->place == p->number) {
            kfs_cache_index_detach_locked(c, slot);
            free(e);
        }
        return;
    }
    if (e && (e->place != p->number || e->version > r->version))
        return;
    if (e)
        kfs_cache_index_detach_locked(c, slot);
    else if (!(e = malloc(sizeof *e)))
        return;
    *e = (struct kfs_cache_entry){.ino = r->ino,
                                  .version = r->version,
                                  .bytes = r->bytes,
                                  .hash = {r->hash[0], r->hash[1]},
                                  .place = (uint8_t)p->number,
                                  .queue = r->queue < KFS_CACHE_QUEUES ? r->queue : KFS_CACHE_SMALL,
                                  .uses = r->uses < KFS_CACHE_USES_MAX ? r->uses : KFS_CACHE_USES_MAX,
                                  .flags = (uint8_t)((r->flags & KFS_CACHE_HASHED) | (checked ? 0 : KFS_CACHE_CHECK))};
    kfs_cache_index_attach_locked(c, e);
}

/* Up to the first record that is wrong. *ret_whole: there was none. */
static uint64_t read_records(struct kfs_cache *c, struct kfs_cache_place *p, int fd, uint64_t generation, bool checked, bool *ret_whole)
{
    kfs_auto_free struct record *buf = malloc(READ_RECORDS * sizeof *buf);
    uint64_t count = 0;
    *ret_whole = false;
    for (off_t at = sizeof(struct header); buf;) {
        ssize_t n = pread(fd, buf, READ_RECORDS * sizeof *buf, at);
        if (n <= 0) {
            *ret_whole = n == 0;
            return count;
        }
        size_t have = (size_t)n / sizeof *buf;
        pthread_mutex_lock(&c->lock);
        for (size_t i = 0; i < have; i++) {
            if (buf[i].check != record_check(&buf[i], generation) || buf[i].ino == 0) {
                pthread_mutex_unlock(&c->lock);
                return count;
            }
            apply_locked(c, p, &buf[i], checked);
            count++;
        }
        pthread_mutex_unlock(&c->lock);
        if ((size_t)n % sizeof *buf)
            return count;
        at += n;
    }
    return count;
}

/* --- open, flush, close ----------------------------------------------------------------------- */

static struct kfs_cache_log *log_new(int fd, uint64_t generation)
{
    struct kfs_cache_log *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->fd = fd;
    l->generation = generation;
    kfs_buf_init(&l->pending);
    return l;
}

static void log_free(struct kfs_cache_log *l)
{
    if (l->fd >= 0)
        close(l->fd);
    kfs_buf_release(&l->pending);
    free(l);
}

/* An empty one, in the place of whatever is there. */
static struct kfs_cache_log *log_create(struct kfs_cache_place *p, const char *name)
{
    uint64_t generation = 0;
    kfs_rand_bytes(&generation, sizeof generation);
    int fd = openat(p->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && (header_write(fd, generation, false, 0) < 0 || lseek(fd, 0, SEEK_END) < 0)) {
        close(fd);
        fd = -1;
    }
    struct kfs_cache_log *l = log_new(fd, generation);
    if (!l && fd >= 0)
        close(fd);
    return l;
}

int kfs_cache_log_open(struct kfs_cache *c, struct kfs_cache_place *p, bool checked)
{
    struct header h;
    bool whole = false;
    uint64_t records = 0;
    struct kfs_cache_log *l;
    int fd = openat(p->dir_fd, "index", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && (errno == EROFS || errno == EACCES))
        fd = openat(p->dir_fd, "index", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && (pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h || !header_ok(&h))) {
        close(fd);
        fd = -1;
    }
    if (fd < 0) {
        l = log_create(p, "index");
    } else {
        records = read_records(c, p, fd, h.generation, checked, &whole);
        off_t end = (off_t)(sizeof h + records * sizeof(struct record));
        whole = whole && h.complete == 1 && h.records == records;
        /* A tail that is damaged would hide what is appended behind it. */
        if (header_write(fd, h.generation, false, 0) < 0 || ftruncate(fd, end) < 0 || lseek(fd, end, SEEK_SET) < 0) {
            close(fd);
            fd = -1;
        }
        l = log_new(fd, h.generation);
        if (!l && fd >= 0)
            close(fd);
    }
    if (!l)
        return -ENOMEM;
    l->records = records;
    pthread_mutex_lock(&c->lock);
    p->log = l;
    pthread_mutex_unlock(&c->lock);
    return whole;
}

/* Each entry of p as a record, oldest first, so that reading them makes the same queues. */
static uint64_t snapshot_locked(struct kfs_cache_place *p, uint64_t generation, struct kfs_buf *b)
{
    uint64_t count = 0;
    for (unsigned q = 0; q < KFS_CACHE_QUEUES; q++)
        for (const struct kfs_cache_entry *e = p->queues[q].oldest; e; e = e->newer) {
            struct record r;
            record_make(e, ADD, generation, &r);
            if (kfs_buf_append(b, &r, sizeof r) < 0)
                return 0;
            count++;
        }
    return count;
}

/* The whole index into a new file, which takes the place of the old one. */
static int rewrite(struct kfs_cache *c, struct kfs_cache_place *p, bool complete)
{
    struct kfs_cache_log *n = log_create(p, "index.new"), *old = NULL;
    if (!n || n->fd < 0) {
        if (n)
            log_free(n);
        return -EIO;
    }
    struct kfs_buf all;
    kfs_buf_init(&all);
    pthread_mutex_lock(&c->lock);
    uint64_t count = snapshot_locked(p, n->generation, &all);
    bool ok = count == p->files;
    n->records = count;
    if (ok && p->log) { /* what comes from here on goes to the new one */
        old = p->log;
        p->log = n;
    }
    pthread_mutex_unlock(&c->lock);
    int rc = ok ? write_all(n->fd, all.data, all.len) : -ENOMEM;
    kfs_buf_release(&all);
    if (rc == 0 && complete)
        rc = header_write(n->fd, n->generation, true, count);
    if (rc == 0 && renameat(p->dir_fd, "index.new", p->dir_fd, "index") < 0)
        rc = -errno;
    if (rc < 0) {
        unlinkat(p->dir_fd, "index.new", 0);
        unlinkat(p->dir_fd, "index", 0); /* it would lack what the new one was told */
    }
    if (old)
        log_free(old);
    else
        log_free(n);
    return rc;
}

static void flush(struct kfs_cache *c, struct kfs_cache_place *p)
{
    struct kfs_buf out;
    kfs_buf_init(&out);
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_log *l = p->log;
    bool compact = l && l->records > 2 * p->files + COMPACT_EXCESS;
    int fd = l ? l->fd : -1;
    if (l && !compact) {
        struct kfs_buf empty = out;
        out = l->pending;
        l->pending = empty;
    }
    pthread_mutex_unlock(&c->lock);
    if (compact)
        (void)rewrite(c, p, false);
    else if (out.len && fd >= 0)
        (void)write_all(fd, out.data, out.len);
    kfs_buf_release(&out);
}

void kfs_cache_log_flush(struct kfs_cache *c, struct kfs_cache_place *p)
{
    pthread_mutex_lock(&c->log_lock);
    flush(c, p);
    pthread_mutex_unlock(&c->log_lock);
}

void kfs_cache_log_close(struct kfs_cache *c, struct kfs_cache_place *p, bool complete)
{
    pthread_mutex_lock(&c->log_lock);
    bool whole = complete && rewrite(c, p, true) == 0;
    if (!whole)
        flush(c, p);
    pthread_mutex_lock(&c->lock);
    struct kfs_cache_log *l = p->log;
    p->log = NULL;
    pthread_mutex_unlock(&c->lock);
    if (l)
        log_free(l);
    pthread_mutex_unlock(&c->log_lock);
}
