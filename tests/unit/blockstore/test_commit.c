/* test_commit.c — commit and fill against a model, at the edges, and at random */
#include "tests/unit/blockstore/store_util.h"
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

#define MIB (1u << 20)

static void put(struct rig *r, uint64_t off, size_t n, uint64_t seed)
{
    unsigned char *p = malloc(n);
    fill_pattern(p, n, seed);
    ASSERT_EQ(pwrite(r->fd, p, n, (off_t)off), (ssize_t)n);
    free(p);
}

static void settle(struct rig *r)
{
    bool changed = true;
    rig_commit(r, NULL);
    rig_compare(r);
    ASSERT_EQ(rig_commit(r, &changed), 0); /* nothing more to do */
    ASSERT(!changed);
}

TEST(commit_sizes_at_the_edges)
{
    static const uint64_t sizes[] = {0,       1,   4095,    4096,    4097,        100000,
                                     MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 77};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct rig r;
        rig_open(&r);
        if (sizes[i])
            put(&r, 0, sizes[i], i);
        settle(&r);
        ASSERT_EQ(r.c.is_inline, sizes[i] <= KFS_INLINE_MAX);
        rig_close(&r);
    }
}

TEST(commit_inline_to_extents_and_back)
{
    struct rig r;
    rig_open(&r);
    put(&r, 0, 4000, 1);
    settle(&r);
    put(&r, 4000, 3 * MIB, 2);
    settle(&r);
    ASSERT(!r.c.is_inline);
    ASSERT(ftruncate(r.fd, 10) == 0);
    settle(&r);
    ASSERT(r.c.is_inline && r.c.extent_count == 0);
    put(&r, 3, 2, 9); /* same size, other bytes */
    settle(&r);
    ASSERT(ftruncate(r.fd, 0) == 0);
    settle(&r);
    rig_close(&r);
}

TEST(commit_writes_only_what_differs)
{
    struct rig r;
    struct kfs_content_delta d;
    rig_open(&r);
    put(&r, 0, 8 * MIB, 1);
    ASSERT_EQ(rig_commit(&r, NULL), 1);
    put(&r, 3 * MIB + 5, 10, 2);
    ASSERT_OK(kfs_store_commit(r.s, r.fd, &r.c, rig_new_id, &r, true, &d, &kerr), kerr);
    ASSERT_EQ(d.extent_count, 1);
    ASSERT_EQ(d.extents[0].off, 3 * MIB);
    ASSERT_EQ(d.extents[0].len, MIB);
    ASSERT(d.object_bytes[0] < MIB + 300);
    rig_apply(&r, &d);
    kfs_content_delta_release(&d);
    rig_compare(&r);
    put(&r, 8 * MIB, 100, 3); /* append: a short tail frame */
    ASSERT_OK(kfs_store_commit(r.s, r.fd, &r.c, rig_new_id, &r, false, &d, &kerr), kerr);
    ASSERT_EQ(d.extents[0].len, 100);
    rig_apply(&r, &d);
    kfs_content_delta_release(&d);
    ASSERT(ftruncate(r.fd, 9 * MIB) == 0); /* grows by zeros: nothing is stored */
    bool changed;
    ASSERT_EQ(rig_commit(&r, &changed), 0);
    ASSERT(changed);
    rig_compare(&r);
    ASSERT(ftruncate(r.fd, 2 * MIB) == 0); /* shrinks to a frame border: nothing is stored */
    ASSERT_EQ(rig_commit(&r, &changed), 0);
    ASSERT(changed);
    rig_compare(&r);
    ASSERT(ftruncate(r.fd, 2 * MIB - 9) == 0); /* shrinks inside a frame: that frame is */
    ASSERT_EQ(rig_commit(&r, &changed), 1);
    settle(&r);
    rig_close(&r);
}

TEST(commit_zeros_become_holes)
{
    struct rig r;
    rig_open(&r);
    put(&r, 0, 4 * MIB, 1);
    settle(&r);
    unsigned char *z = calloc(1, 2 * MIB);
    ASSERT_EQ(pwrite(r.fd, z, 2 * MIB, MIB), 2 * MIB);
    free(z);
    ASSERT_EQ(rig_commit(&r, NULL), 0);
    rig_compare(&r);
    ASSERT_EQ(r.c.extent_count, 2);
    ASSERT(fallocate(r.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * MIB) == 0 ||
           errno == EOPNOTSUPP);
    settle(&r);
    rig_close(&r);
}

TEST(commit_more_than_one_object)
{
    struct rig r;
    rig_open(&r);
    for (unsigned i = 0; i < 70; i++)
        put(&r, (uint64_t)i * MIB, MIB, i + 1);
    ASSERT_EQ(rig_commit(&r, NULL), 2); /* 64 MiB an object */
    settle(&r);
    rig_close(&r);
}

TEST(commit_sparse_3gib_is_quick)
{
    struct rig r;
    rig_open(&r);
    struct timespec a, b;
    ASSERT(ftruncate(r.fd, 3LL << 30) == 0);
    put(&r, 0, 10, 1);
    put(&r, (1ULL << 30) + 12345, 3000000, 2);
    put(&r, (3ULL << 30) - 7, 7, 3);
    clock_gettime(CLOCK_MONOTONIC, &a);
    ASSERT_EQ(rig_commit(&r, NULL), 1);
    bool changed;
    rig_commit(&r, &changed);
    ASSERT(!changed);
    int fd = open(r.path, O_RDWR | O_CLOEXEC);
    ASSERT_OK(kfs_store_fill(r.s, &r.c, fd, &kerr), kerr);
    clock_gettime(CLOCK_MONOTONIC, &b);
    ASSERT(b.tv_sec - a.tv_sec < 3);
    struct stat st;
    ASSERT(fstat(fd, &st) == 0 && st.st_size == 3LL << 30);
    ASSERT(st.st_blocks < 16 * 2048);
    unsigned char got[7], want[7];
    fill_pattern(want, 7, 3);
    ASSERT_EQ(pread(fd, got, 7, (3LL << 30) - 7), 7);
    ASSERT(memcmp(got, want, 7) == 0);
    close(fd);
    rig_close(&r);
}

static void random_edit(struct rig *r, unsigned *seed)
{
    struct stat st;
    fstat(r->fd, &st);
    uint64_t max = 6 * MIB, off = (uint64_t)rand_r(seed) % max;
    size_t n = 1 + (size_t)rand_r(seed) % (rand_r(seed) % 3 ? 9000 : 2 * MIB);
    switch (rand_r(seed) % 9) {
    case 0:
        ASSERT(ftruncate(r->fd, (off_t)off) == 0);
        break;
    case 1:
        ASSERT(ftruncate(r->fd, (off_t)(off % 6000)) == 0);
        break;
    case 2:
        ASSERT(ftruncate(r->fd, (off_t)(off / MIB * MIB)) == 0);
        break;
    case 3:
        put(r, (uint64_t)st.st_size, n, off);
        break;
    case 4:
        (void)!fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)n);
        break;
    case 5:
        put(r, off / MIB * MIB, MIB, off);
        break;
    case 6: { /* explicit zeros */
        void *z = calloc(1, n);
        ASSERT_EQ(pwrite(r->fd, z, n, (off_t)off), (ssize_t)n);
        free(z);
        break;
    }
    default:
        put(r, off, n, off + 1);
    }
}

TEST(commit_random_edits)
{
    for (unsigned seed = 1; seed <= 6; seed++) {
        struct rig r;
        unsigned state = seed;
        rig_open(&r);
        for (int i = 0; i < 40; i++) {
            for (int k = rand_r(&state) % 4; k >= 0; k--)
                random_edit(&r, &state);
            if (i % 10 == 9)
                rig_reopen(&r);
            rig_commit(&r, NULL);
            rig_compare(&r);
        }
        settle(&r);
        rig_close(&r);
    }
}

static int failing_id(void *arg, uint64_t *ret_id, struct kfs_err *err)
{
    struct rig *r = arg;
    if (r->next_id >= 2)
        return KFS_FAIL(err, EIO, "no more ids");
    *ret_id = ++r->next_id;
    return 0;
}

static int count_one(void *arg, uint64_t object, uint64_t bytes)
{
    (void)object, (void)bytes;
    ++*(int *)arg;
    return 0;
}

TEST(commit_failure_leaves_no_object)
{
    struct rig r;
    struct kfs_content_delta d;
    int n = 0;
    rig_open(&r);
    for (unsigned i = 0; i < 129; i++)
        put(&r, (uint64_t)i * MIB, 1, i + 1);
    ASSERT_EQ(kfs_store_commit(r.s, r.fd, &r.c, failing_id, &r, false, &d, &kerr), -EIO);
    ASSERT_EQ(kfs_store_each(r.s, count_one, &n, &kerr), 0);
    ASSERT_EQ(n, 0);
    rig_close(&r);
}

TEST(commit_damaged_old_object_is_stored_anew)
{
    struct rig r;
    char key[64], path[800];
    rig_open(&r);
    put(&r, 0, 2 * MIB, 1);
    rig_commit(&r, NULL);
    kfs_store_key(r.s, 1, key);
    snprintf(path, sizeof path, "%s/store/o/%s", r.dir, key);
    ASSERT(truncate(path, 5000) == 0);
    rig_reopen(&r);
    bool changed;
    ASSERT_EQ(rig_commit(&r, &changed), 1);
    ASSERT(changed);
    rig_compare(&r);
    rig_close(&r);
}

struct storm {
    int fd;
    bool stop;
};

static void *storm_run(void *arg)
{
    struct storm *s = arg;
    unsigned seed = 7;
    unsigned char buf[5000];
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        fill_pattern(buf, sizeof buf, seed);
        if (rand_r(&seed) % 8 == 0)
            (void)!ftruncate(s->fd, (off_t)rand_r(&seed) % (4 * MIB));
        (void)!pwrite(s->fd, buf, sizeof buf, (off_t)rand_r(&seed) % (4 * MIB));
    }
    return NULL;
}

TEST(commit_while_the_file_is_written)
{
    struct rig r;
    rig_open(&r);
    struct storm s = {.fd = r.fd};
    pthread_t t;
    ASSERT_EQ(pthread_create(&t, NULL, storm_run, &s), 0);
    char path[700];
    snprintf(path, sizeof path, "%s/copy", r.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int i = 0; i < 40; i++) {
        rig_commit(&r, NULL);
        ASSERT_OK(kfs_store_fill(r.s, &r.c, fd, &kerr),
                  kerr); /* a mixture, but one that verifies */
    }
    __atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
    pthread_join(t, NULL);
    close(fd);
    settle(&r);
    rig_close(&r);
}

/* A file that was removed while it was committed must not take its pack with it: the other files' bytes are in there. */
TEST(commit_undo_leaves_the_pack_to_those_who_share_it)
{
    struct rig r;
    rig_open(&r);
    const struct kfs_commit_options o = {.ino = 5, .new_id = rig_new_id, .arg = &r};
    static unsigned char bytes[9000];
    struct kfs_content_delta *d = calloc(2, sizeof *d);
    struct kfs_commit *k[2];
    for (int i = 0; i < 2; i++) {
        memset(bytes, 'a' + i, sizeof bytes);
        ASSERT_EQ(pwrite(r.fd, bytes, sizeof bytes, 0), sizeof bytes);
        ASSERT_OK(kfs_store_commit_begin(r.s, r.fd, &r.c, &o, &k[i], &kerr), kerr);
    }
    for (int i = 0; i < 2; i++)
        ASSERT_OK(kfs_store_commit_wait(k[i], &d[i], &kerr), kerr);
    ASSERT_EQ(d[0].objects[0], d[1].objects[0]);
    kfs_store_commit_undo(r.s, &d[0]);
    rig_reopen(&r);
    rig_apply(&r, &d[1]);
    ASSERT_OK(kfs_store_fill(r.s, &r.c, r.fd, &kerr), kerr);
    unsigned char back[sizeof bytes];
    ASSERT_EQ(pread(r.fd, back, sizeof back, 0), sizeof back);
    ASSERT_EQ(memcmp(back, bytes, sizeof back), 0);
    kfs_content_delta_release(&d[0]);
    kfs_content_delta_release(&d[1]);
    free(d);
    rig_close(&r);
}

KT_MAIN
