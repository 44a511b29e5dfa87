/* test_store.c — markers, keys, damage */
#include "blockstore/object.h"
#include "tests/unit/blockstore/store_util.h"
#include <sys/mman.h>
#include <xxhash.h>

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
    ASSERT_EQ(kfs_store_open("ftp:bucket", VOLUME, &s, &kerr), -EINVAL);
    ASSERT_EQ(kfs_store_open("file:relative", VOLUME, &s, &kerr), -EINVAL);
    ASSERT_EQ(
        kfs_store_open(r.url, "an id that is much too long for the header of an object", &s, &kerr),
        -EINVAL);
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
    ASSERT_EQ(d->len, 64 + 5000 + 56 + 136);
}

/* Store `len` bytes as the object, forget all indexes, fill. 1: the right bytes came; 0: -EIO.
 * Anything else fails the test. */
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

/* Objects that an attacker or a bug made: the checksums are right, the numbers are not. */
struct forged {
    struct kfs_object_header h;
    struct kfs_object_entry e;
    struct kfs_object_trailer t;
};

static int forged_try(struct damage *d, const struct forged *f)
{
    static unsigned char bytes[8192];
    struct kfs_object_trailer t = f->t;
    unsigned char all[sizeof f->h + sizeof f->e + offsetof(struct kfs_object_trailer, hash)];
    memcpy(all, &f->h, sizeof f->h);
    memcpy(all + sizeof f->h, &f->e, sizeof f->e);
    memcpy(all + sizeof f->h + sizeof f->e, &f->t, offsetof(struct kfs_object_trailer, hash));
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits(all, sizeof all));
    memcpy(t.hash, c.digest, sizeof t.hash);
    memcpy(bytes, d->object, d->len);
    memcpy(bytes, &f->h, sizeof f->h);
    memcpy(bytes + 64 + 5000, &f->e, sizeof f->e);
    memcpy(bytes + d->len - sizeof t, &t, sizeof t);
    return damage_try(d, bytes, d->len);
}

TEST(store_forged_numbers_are_refused)
{
    static struct damage d;
    static const uint64_t odd[] = {0,          1,
                                   2,          63,
                                   64,         65,
                                   66,         4999,
                                   5000,       5001,
                                   5063,       5065,
                                   1 << 20,    (1 << 20) + 1,
                                   0x7fffffff, 0xfffffff8,
                                   0xffffffff, 1ULL << 32,
                                   INT64_MAX,  UINT64_MAX - 39,
                                   UINT64_MAX};
    struct forged good, f;
    damage_open(&d);
    memcpy(&good.h, d.object, sizeof good.h);
    memcpy(&good.e, d.object + 64 + 5000, sizeof good.e);
    memcpy(&good.t, d.object + d.len - sizeof good.t, sizeof good.t);
    ASSERT_EQ(forged_try(&d, &good), 1);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        for (int field = 0; field < 15; field++) {
            f = good;
            switch (field) {
            case 0:
                f.t.frame_count = (uint32_t)odd[i];
                break;
            case 1:
                f.h.version = (uint32_t)odd[i];
                break;
            case 2:
                f.h.object = odd[i];
                break;
            case 3:
                f.e.off = odd[i];
                break;
            case 4:
                f.e.stored_len = (uint32_t)odd[i];
                break;
            case 5:
                f.e.plain_len = (uint32_t)odd[i];
                break;
            case 6:
                f.e.codec = (uint32_t)odd[i];
                break;
            case 7:
                f.e.flags = (uint32_t)odd[i];
                break;
            case 8:
                f.t.index_off = odd[i];
                break;
            case 9:
                f.t.index_len = odd[i];
                break;
            case 10:
                f.t.flags = f.h.flags = (uint32_t)odd[i];
                break;
            case 11:
                f.t.reserved = (uint32_t)odd[i];
                break;
            case 12:
                f.t.object = f.h.object = odd[i];
                break;
            case 13:
                f.t.volume[i % sizeof f.t.volume] ^= 1;
                break;
            default:
                f.e.stored_len = f.e.plain_len = (uint32_t)odd[i];
                break;
            }
            if (memcmp(&f, &good, sizeof f) != 0 && forged_try(&d, &f) != 0)
                KT_FAIL("field %d = %llu was believed", field, (unsigned long long)odd[i]);
        }
    }
    rig_close(&d.r);
}

TEST(store_verify_reads_every_byte)
{
    struct rig r;
    char key[64], path[800];
    unsigned char *p = malloc(3 << 20);
    rig_open(&r);
    fill_pattern(p, 3 << 20, 5);
    ASSERT_EQ(pwrite(r.fd, p, 3 << 20, 0), 3 << 20);
    free(p);
    rig_commit(&r, NULL);
    ASSERT_OK(kfs_store_verify(r.s, 1, &kerr), kerr);
    kfs_store_key(r.s, 1, key);
    snprintf(path, sizeof path, "%s/store/o/%s", r.dir, key);
    int fd = open(path, O_RDWR);
    struct stat st;
    ASSERT(fstat(fd, &st) == 0);
    off_t places[] = {0, 8, 12, 16, 30, 63, 64, 1 << 20, st.st_size - 200, st.st_size - 1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        unsigned char b;
        ASSERT(pread(fd, &b, 1, places[i]) == 1);
        b ^= 4;
        ASSERT(pwrite(fd, &b, 1, places[i]) == 1);
        if (kfs_store_verify(r.s, 1, &kerr) != -EIO)
            KT_FAIL("the byte at %lld flipped, and nobody noticed", (long long)places[i]);
        b ^= 4;
        ASSERT(pwrite(fd, &b, 1, places[i]) == 1);
    }
    close(fd);
    ASSERT_OK(kfs_store_verify(r.s, 1, &kerr), kerr);
    rig_close(&r);
}

TEST(store_fill_distrusts_the_map)
{
    static struct damage d;
    damage_open(&d);
    struct kfs_extent good = d.r.c.extents[0];
    struct kfs_extent bad[] = {
        {0, 5000, 1, KFS_FRAME_BYTES}, /* frame 1 of 1 */
        {0, 5000, 1, 1},               /* not at a frame */
        {0, 5000, 1, UINT64_MAX / KFS_FRAME_BYTES * KFS_FRAME_BYTES},
        {0, 5001, 1, 0},   /* beyond the file */
        {4096, 904, 1, 0}, /* not at a frame of the file */
        {0, 5000, 99, 0},  /* no such object */
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
    struct kfs_content longer = {
        .size_bytes = 3 * KFS_FRAME_BYTES, .extents = two, .extent_count = 1};
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

static int seen_any(void *arg, uint64_t object, uint64_t bytes)
{
    (void)arg, (void)object, (void)bytes;
    return 1;
}

static void full_store(void *arg)
{
    const char *dir = arg;
    char url[700], path[700];
    struct rig r = {.fd = -1};
    struct kfs_content_delta d;
    if (!small_fs(dir, "size=3m"))
        _exit(77);
    snprintf(url, sizeof url, "file:%s/store", dir);
    CHILD_CHECK(1, kfs_store_format(url, VOLUME, &kerr) == 0);
    CHILD_CHECK(2, kfs_store_open(url, VOLUME, &r.s, &kerr) == 0);
    r.fd = memfd_create("file", MFD_CLOEXEC);
    static unsigned char noise[1 << 20];
    fill_pattern(noise, sizeof noise, 1);
    for (unsigned i = 0; i < 10; i++)
        CHILD_CHECK(3, pwrite(r.fd, noise, sizeof noise, (off_t)i << 20) == sizeof noise);
    struct kfs_content old = {.is_inline = true};
    CHILD_CHECK(5, kfs_store_commit(r.s, r.fd, &old, rig_new_id, &r, true, &d, &kerr) == -ENOSPC);
    CHILD_CHECK(6, strstr(kerr.msg, "object '") != NULL);
    CHILD_CHECK(7, kfs_store_each(r.s, seen_any, NULL, &kerr) == 0); /* nothing left behind */
    snprintf(path, sizeof path, "ls %s/store/tmp | grep -q .", dir);
    CHILD_CHECK(8, system(path) != 0);
    CHILD_CHECK(9, ftruncate(r.fd, 1 << 20) == 0); /* what fits still goes in */
    CHILD_CHECK(10, kfs_store_commit(r.s, r.fd, &old, rig_new_id, &r, true, &d, &kerr) == 0);
    kfs_content_delta_release(&d);
    kfs_store_close(r.s);
}

TEST(store_full)
{
    char dir[512];
    tmp_make(dir, sizeof dir);
    int rc = in_child(full_store, dir);
    tmp_remove(dir);
    if (rc == 77)
        SKIP("needs the right to mount");
    ASSERT_EQ(rc, 0);
}

KT_MAIN
