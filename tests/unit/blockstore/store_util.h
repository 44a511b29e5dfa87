/* tests/unit/blockstore/store_util.h — a store in a temporary directory, and the metadata's part of
 * a commit in miniature */
#ifndef KFS_TESTS_UNIT_BLOCKSTORE_STORE_UTIL_H
#define KFS_TESTS_UNIT_BLOCKSTORE_STORE_UTIL_H

#include "blockstore/blockstore.h"
#include "tests/unit/kt.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VOLUME "0b5a9d7e-3c1f-4f64-9d0e-5a7a3c9b1e42"

static struct kfs_err kerr;

static void tmp_make(char *buf, size_t cap)
{
    const char *base = getenv("TMPDIR");
    snprintf(buf, cap, "%s/kfs-unit-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(buf))
        KT_FAIL("mkdtemp %s: %s", buf, strerror(errno));
}

static int tmp_rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void tmp_remove(const char *dir)
{
    nftw(dir, tmp_rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct rig {
    char dir[512], url[600], path[600];
    struct kfs_store *s;
    int fd;
    uint64_t next_id;
    struct kfs_content c; /* what the metadata would know */
};

static __attribute__((unused)) void rig_open(struct rig *r)
{
    memset(r, 0, sizeof *r);
    tmp_make(r->dir, sizeof r->dir);
    snprintf(r->url, sizeof r->url, "file:%s/store", r->dir);
    ASSERT_OK(kfs_store_format(r->url, VOLUME, &kerr), kerr);
    ASSERT_OK(kfs_store_open(r->url, VOLUME, &r->s, &kerr), kerr);
    snprintf(r->path, sizeof r->path, "%s/file", r->dir);
    r->fd = open(r->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(r->fd >= 0);
    r->c.is_inline = true;
}

static __attribute__((unused)) void rig_close(struct rig *r)
{
    kfs_content_release(&r->c);
    kfs_store_close(r->s);
    close(r->fd);
    tmp_remove(r->dir);
}

/* A store that has forgotten every index. */
static __attribute__((unused)) void rig_reopen(struct rig *r)
{
    kfs_store_close(r->s);
    r->s = NULL;
    ASSERT_OK(kfs_store_open(r->url, VOLUME, &r->s, &kerr), kerr);
}

static int rig_new_id(void *arg, uint64_t *ret_id, struct kfs_err *err)
{
    (void)err;
    *ret_id = ++((struct rig *)arg)->next_id;
    return 0;
}

static void put_piece(struct kfs_extent *v, size_t *n, const struct kfs_extent *e, uint64_t from,
                      uint64_t to)
{
    if (from < to)
        v[(*n)++] =
            (struct kfs_extent){from, to - from, e->object, e->object_off + (from - e->off)};
}

/* What kfs_meta_commit does to the content map. */
static void rig_apply(struct rig *r, struct kfs_content_delta *d)
{
    struct kfs_content *c = &r->c;
    c->size_bytes = d->size_bytes;
    if (!d->changed)
        return;
    struct kfs_content n = {.size_bytes = d->size_bytes};
    if (d->to_inline) {
        n.is_inline = true;
        n.inline_len = d->inline_len;
        n.inline_data = malloc(d->inline_len + 1);
        memcpy(n.inline_data, d->inline_data, d->inline_len);
    } else {
        n.extents = calloc((c->extent_count + 1) * (d->extent_count + 1) + d->extent_count + 8,
                           sizeof *n.extents);
        size_t di = 0;
        for (size_t i = 0; i < c->extent_count; i++) {
            const struct kfs_extent *e = &c->extents[i];
            uint64_t at = e->off, end = e->off + e->len;
            for (size_t k = 0; k < d->extent_count; k++) {
                uint64_t a = d->extents[k].off, b = a + d->extents[k].len;
                if (b <= at || a >= end)
                    continue;
                put_piece(n.extents, &n.extent_count, e, at, a);
                at = b;
            }
            put_piece(n.extents, &n.extent_count, e, at, end);
        }
        for (di = 0; di < d->extent_count; di++)
            if (d->extents[di].object)
                n.extents[n.extent_count++] = d->extents[di];
        for (size_t i = 1; i < n.extent_count; i++) /* insertion sort */
            for (size_t k = i; k && n.extents[k].off < n.extents[k - 1].off; k--) {
                struct kfs_extent t = n.extents[k];
                n.extents[k] = n.extents[k - 1];
                n.extents[k - 1] = t;
            }
        size_t keep = 0;
        for (size_t i = 0; i < n.extent_count; i++) {
            struct kfs_extent e = n.extents[i];
            if (e.off >= n.size_bytes)
                continue;
            if (e.len > n.size_bytes - e.off)
                e.len = n.size_bytes - e.off;
            n.extents[keep++] = e;
        }
        n.extent_count = keep;
    }
    kfs_content_release(c);
    *c = n;
}

/* Commit and apply. Returns how many objects were written; *ret_changed may be NULL. */
static __attribute__((unused)) size_t rig_commit(struct rig *r, bool *ret_changed)
{
    struct kfs_content_delta d;
    ASSERT_OK(kfs_store_commit(r->s, r->fd, &r->c, rig_new_id, r, false, &d, &kerr), kerr);
    for (size_t i = 1; i < d.extent_count; i++)
        ASSERT(d.extents[i].off >= d.extents[i - 1].off + d.extents[i - 1].len);
    for (size_t i = 0; i < d.object_count; i++)
        ASSERT(d.object_bytes[i] > 64 + 56 + 136);
    size_t n = d.object_count;
    if (ret_changed)
        *ret_changed = d.changed;
    rig_apply(r, &d);
    kfs_content_delta_release(&d);
    return n;
}

/* Fill a second file from the map and compare it byte by byte with the first. */
static __attribute__((unused)) void rig_compare(struct rig *r)
{
    char path[700];
    snprintf(path, sizeof path, "%s/copy", r->dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(fd >= 0);
    ASSERT_OK(kfs_store_fill(r->s, &r->c, fd, &kerr), kerr);
    struct stat a, b;
    ASSERT(fstat(r->fd, &a) == 0 && fstat(fd, &b) == 0);
    ASSERT_EQ(a.st_size, b.st_size);
    static unsigned char x[1 << 20], y[1 << 20];
    for (off_t off = 0; off < a.st_size; off += sizeof x) {
        ssize_t n = pread(r->fd, x, sizeof x, off);
        ASSERT_EQ(pread(fd, y, sizeof y, off), n);
        if (memcmp(x, y, (size_t)n) != 0)
            KT_FAIL("bytes differ in the megabyte at %lld", (long long)off);
    }
    close(fd);
    unlink(path);
}

/* In a child: a file system of its own at dir, gone with the child. False: not permitted here. */
static __attribute__((unused)) bool small_fs(const char *dir, const char *options)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", dir, "tmpfs", 0, options) == 0;
}

/* Run fn(arg) in a child; its exit code: 0 fine, 77 not possible here, else the number of the check
 * that failed. */
static __attribute__((unused)) int in_child(void (*fn)(void *arg), void *arg)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        fn(arg);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return 255;
    return WEXITSTATUS(status);
}
#define CHILD_CHECK(number, x)                                                                     \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            printf("  check %d in the child is false: %s (%s)\n", number, #x, kerr.msg);           \
            fflush(stdout);                                                                        \
            _exit(number);                                                                         \
        }                                                                                          \
    } while (0)

static __attribute__((unused)) void fill_pattern(unsigned char *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        p[i] = (unsigned char)(seed >> 56);
    }
}

#endif
