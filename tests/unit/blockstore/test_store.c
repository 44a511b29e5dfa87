/* test_store.c — markers, keys, damage */
#include "tests/unit/blockstore/store_util.h"

#define OTHER "11111111-2222-3333-4444-555555555555"

TEST(store_open_checks_the_marker)
{
    struct rig r;
    struct kfs_store *s = NULL;
    char path[700];
    rig_open(&r);
    ASSERT_STR(kfs_store_url(r.s), r.url);
    ASSERT_OK(kfs_store_format(r.url, VOLUME, &kerr), kerr); /* again: fine */
    ASSERT_EQ(kfs_store_format(r.url, OTHER, &kerr), -EEXIST);
    ASSERT_EQ(kfs_store_open(r.url, OTHER, &s, &kerr), -EINVAL);
    ASSERT(strstr(kerr.msg, VOLUME) && strstr(kerr.msg, OTHER));
    snprintf(path, sizeof path, "%s/store/kfs-volume", r.dir);
    int fd = open(path, O_WRONLY | O_TRUNC);
    ASSERT(write(fd, "kfs-volume 9\nx\n", 15) == 15);
    close(fd);
    ASSERT_EQ(kfs_store_open(r.url, VOLUME, &s, &kerr), -EINVAL);
    ASSERT(strstr(kerr.msg, "newer"));
    ASSERT(truncate(path, 3) == 0);
    ASSERT_EQ(kfs_store_open(r.url, VOLUME, &s, &kerr), -EINVAL);
    ASSERT(unlink(path) == 0);
    ASSERT_EQ(kfs_store_open(r.url, VOLUME, &s, &kerr), -ENOENT);
    ASSERT(strstr(kerr.msg, "kfs-volume"));
    ASSERT_EQ(kfs_store_open("file:/does/not/exist", VOLUME, &s, &kerr), -ENOENT);
    ASSERT_EQ(kfs_store_open("s3:bucket", VOLUME, &s, &kerr), -EINVAL);
    ASSERT_EQ(kfs_store_open("file:relative", VOLUME, &s, &kerr), -EINVAL);
    ASSERT_EQ(kfs_store_open(r.url, "an id that is much too long for the header of an object", &s, &kerr), -EINVAL);
    rig_close(&r);
}

struct seen {
    uint64_t sum;
    int n;
};

static int see(void *arg, uint64_t object, uint64_t bytes)
{
    struct seen *s = arg;
    s->sum += object;
    s->n++;
    return bytes > 0 ? 0 : -1;
}

TEST(store_each_finds_ids_and_ignores_strangers)
{
    struct rig r;
    struct seen seen = {0};
    char path[800], key[64], other[64];
    rig_open(&r);
    for (unsigned i = 0; i < 50; i++) {
        ASSERT(ftruncate(r.fd, 0) == 0 && ftruncate(r.fd, 5000) == 0);
        ASSERT(pwrite(r.fd, &i, sizeof i, 100) == sizeof i && pwrite(r.fd, "x", 1, 4999) == 1);
        ASSERT_EQ(rig_commit(&r, NULL), 1);
    }
    kfs_store_key(r.s, 7, key);
    snprintf(path, sizeof path, "%s/store/o/%.2s/stranger", r.dir, key);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    ASSERT_EQ(kfs_store_each(r.s, see, &seen, &kerr), 0);
    ASSERT_EQ(seen.n, 50);
    ASSERT_EQ(seen.sum, 50 * 51 / 2);
    ASSERT_OK(kfs_store_verify(r.s, 7, &kerr), kerr);
    ASSERT_OK(kfs_store_delete(r.s, 7, &kerr), kerr);
    ASSERT_OK(kfs_store_delete(r.s, 7, &kerr), kerr);
    ASSERT_EQ(kfs_store_verify(r.s, 7, &kerr), -EIO);
    ASSERT(strstr(kerr.msg, key));
    /* an object under another's name */
    char from[800];
    kfs_store_key(r.s, 8, other);
    snprintf(from, sizeof from, "%s/store/o/%s", r.dir, other);
    snprintf(path, sizeof path, "%s/store/o/%s", r.dir, key);
    ASSERT(link(from, path) == 0);
    ASSERT_EQ(kfs_store_verify(r.s, 7, &kerr), -EIO);
    uint64_t total, avail;
    ASSERT_OK(kfs_store_statfs(r.s, &total, &avail, &kerr), kerr);
    ASSERT(total >= avail && total > 0);
    ASSERT_OK(kfs_store_sync(r.s, &kerr), kerr);
    rig_close(&r);
}

TEST(store_open_removes_dead_writers_files)
{
    struct rig r;
    char path[800];
    rig_open(&r);
    snprintf(path, sizeof path, "%s/store/tmp/left-over", r.dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    rig_reopen(&r);
    ASSERT(access(path, F_OK) < 0);
    rig_close(&r);
}

/* A two-frame object is too large to flip byte by byte; a one-frame one shows every field. */
struct damage {
    struct rig r;
    char path[800], copy[800];
    unsigned char object[8192], plain[5000];
    size_t len;
};

static void damage_open(struct damage *d)
{
    char key[64];
    rig_open(&d->r);
    fill_pattern(d->plain, sizeof d->plain, 3);
    ASSERT(pwrite(d->r.fd, d->plain, sizeof d->plain, 0) == sizeof d->plain);
    ASSERT_EQ(rig_commit(&d->r, NULL), 1);
    kfs_store_key(d->r.s, 1, key);
    snprintf(d->path, sizeof d->path, "%s/store/o/%s", d->r.dir, key);
    snprintf(d->copy, sizeof d->copy, "%s/copy", d->r.dir);
    int fd = open(d->path, O_RDONLY);
    d->len = (size_t)read(fd, d->object, sizeof d->object);
    close(fd);
    ASSERT_EQ(d->len, 64 + 5000 + 40 + 40);
}

/* Store `len` bytes as the object, forget all indexes, fill. 1: the right bytes came; 0: -EIO. Anything else fails the test. */
static int damage_try(struct damage *d, const unsigned char *bytes, size_t len)
{
    int fd = open(d->path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    ASSERT_EQ(write(fd, bytes, len), (ssize_t)len);
    close(fd);
    rig_reopen(&d->r);
    fd = open(d->copy, O_RDWR | O_CREAT | O_TRUNC, 0600);
    int rc = kfs_store_fill(d->r.s, &d->r.c, fd, &kerr);
    unsigned char got[5001];
    ssize_t n = pread(fd, got, sizeof got, 0);
    close(fd);
    if (rc == -EIO) {
        ASSERT(strstr(kerr.msg, "object '"));
        ASSERT_EQ(n, 0);
        return 0;
    }
    ASSERT_OK(rc, kerr);
    ASSERT_EQ(n, 5000);
    ASSERT(memcmp(got, d->plain, 5000) == 0);
    return 1;
}

TEST(store_every_flipped_byte_is_found)
{
    static struct damage d;
    damage_open(&d);
    ASSERT_EQ(damage_try(&d, d.object, d.len), 1);
    for (size_t i = 0; i < d.len; i++) {
        d.object[i] ^= (unsigned char)(1u << (i % 8));
        if (damage_try(&d, d.object, d.len) != 0)
            KT_FAIL("byte %zu flipped, and nobody noticed", i);
        d.object[i] ^= (unsigned char)(1u << (i % 8));
    }
    rig_close(&d.r);
}

TEST(store_every_truncation_is_found)
{
    static struct damage d;
    damage_open(&d);
    for (size_t n = 0; n < d.len; n++)
        ASSERT_EQ(damage_try(&d, d.object, n), 0);
    unsigned char longer[8192] = {0};
    memcpy(longer, d.object, d.len);
    ASSERT_EQ(damage_try(&d, longer, d.len + 1), 0);
    ASSERT_EQ(damage_try(&d, longer, sizeof longer), 0);
    rig_close(&d.r);
}

TEST(store_fill_distrusts_the_map)
{
    static struct damage d;
    damage_open(&d);
    struct kfs_extent good = d.r.c.extents[0];
    struct kfs_extent bad[] = {
        {0, 5000, 1, KFS_FRAME_BYTES},              /* frame 1 of 1 */
        {0, 5000, 1, 1},                            /* not at a frame */
        {0, 5000, 1, UINT64_MAX / KFS_FRAME_BYTES * KFS_FRAME_BYTES},
        {0, 5001, 1, 0},                            /* beyond the file */
        {4096, 904, 1, 0},                          /* not at a frame of the file */
        {0, 5000, 99, 0},                           /* no such object */
        {0, 5000, 0, 0},
        {0, 0, 1, 0},
        {0, UINT64_MAX, 1, 0},
        {UINT64_MAX / KFS_FRAME_BYTES * KFS_FRAME_BYTES, KFS_FRAME_BYTES, 1, 0},
    };
    int fd = open(d.copy, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        d.r.c.extents[0] = bad[i];
        if (kfs_store_fill(d.r.s, &d.r.c, fd, &kerr) != -EIO)
            KT_FAIL("extent %zu was believed", i);
    }
    struct kfs_extent two[2] = {good, good};
    struct kfs_content c = {.size_bytes = 5000, .extents = two, .extent_count = 2};
    ASSERT_EQ(kfs_store_fill(d.r.s, &c, fd, &kerr), -EIO);
    struct kfs_content longer = {.size_bytes = 3 * KFS_FRAME_BYTES, .extents = two, .extent_count = 1};
    two[0].len = 5001; /* inside the file, outside the object */
    ASSERT_EQ(kfs_store_fill(d.r.s, &longer, fd, &kerr), -EIO);
    two[0].len = 2 * KFS_FRAME_BYTES;
    ASSERT_EQ(kfs_store_fill(d.r.s, &longer, fd, &kerr), -EIO);
    two[0].len = 100; /* a part of a frame is fine */
    ASSERT_OK(kfs_store_fill(d.r.s, &longer, fd, &kerr), kerr);
    struct kfs_content odd = {.size_bytes = 10, .is_inline = true, .inline_len = 9};
    ASSERT_EQ(kfs_store_fill(d.r.s, &odd, fd, &kerr), -EIO);
    d.r.c.extents[0] = good;
    ASSERT_OK(kfs_store_fill(d.r.s, &d.r.c, fd, &kerr), kerr);
    ASSERT_OK(kfs_store_fill(d.r.s, &d.r.c, fd, &kerr), kerr); /* the same file again */
    close(fd);
    rig_close(&d.r);
}

KT_MAIN
