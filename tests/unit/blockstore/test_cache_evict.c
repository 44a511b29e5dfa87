/* test_cache_evict.c — what eviction keeps: measured against least-recently-used, over the same accesses; caps of files; files in use */
#include "blockstore/cache_file.h"
#include "tests/unit/blockstore/store_util.h"
#include <signal.h>

static struct kfs_cache *cache_make(char *dir, size_t cap, const struct kfs_cache_options *o)
{
    char path[700];
    struct kfs_cache *c = NULL;
    bool rebooted;
    signal(SIGIO, SIG_IGN);
    tmp_make(dir, cap);
    snprintf(path, sizeof path, "%s/cache", dir);
    ASSERT_OK(kfs_cache_open_with(path, VOLUME, o, &c, &rebooted, &kerr), kerr);
    return c;
}

static void fill(struct kfs_cache *c, kfs_ino_t ino, size_t bytes)
{
    char name[64];
    int fd;
    ASSERT_OK(kfs_cache_fill_begin(c, ino, bytes, false, name, &fd, &kerr), kerr);
    ASSERT(ftruncate(fd, (off_t)bytes) == 0 && pwrite(fd, "x", 1, 0) == 1);
    ASSERT_OK(kfs_cache_fill_end(c, name, ino, 1, false, &kerr), kerr);
    close(fd);
}

/* As a reader does it: found, or brought in and opened. */
static bool access_one(struct kfs_cache *c, kfs_ino_t ino)
{
    int fd = kfs_cache_open_clean(c, ino, 1, O_RDONLY);
    bool hit = fd >= 0;
    if (!hit) {
        fill(c, ino, 1);
        fd = kfs_cache_open_clean(c, ino, 1, O_RDONLY);
    }
    ASSERT(fd >= 0);
    close(fd);
    return hit;
}

/* Least recently used, for comparison. */
struct lru {
    kfs_ino_t inos[512]; /* newest first */
    size_t count, cap;
};

static bool lru_access(struct lru *l, kfs_ino_t ino)
{
    size_t i = 0;
    while (i < l->count && l->inos[i] != ino)
        i++;
    bool hit = i < l->count;
    if (!hit && l->count < l->cap)
        l->count++;
    if (!hit)
        i = l->count - 1;
    memmove(l->inos + 1, l->inos, i * sizeof *l->inos);
    l->inos[0] = ino;
    return hit;
}

static uint64_t seed;

static uint64_t next_random(void)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return seed >> 33;
}

struct ratios {
    double ours, lru;
};

/* hot: so many files, used at random; scan: between two of those, so many files that are used once. */
static struct ratios measure(unsigned hot, unsigned scan, unsigned rounds)
{
    char dir[512];
    const struct kfs_cache_options o = {.cap_files = 400};
    struct kfs_cache *c = cache_make(dir, sizeof dir, &o);
    struct lru l = {.cap = 400};
    unsigned ours = 0, lru = 0, counted = 0;
    kfs_ino_t once = 1 << 20;
    seed = 7;
    for (unsigned i = 0; i < rounds; i++) {
        kfs_ino_t ino = 1 + next_random() % hot;
        bool a = access_one(c, ino), b = lru_access(&l, ino);
        if (i > rounds / 4) { /* warm by then */
            ours += a;
            lru += b;
            counted++;
        }
        for (unsigned k = 0; k < scan; k++, once++) {
            (void)access_one(c, once);
            (void)lru_access(&l, once);
        }
    }
    kfs_cache_close(c);
    tmp_remove(dir);
    struct ratios r = {(double)ours / counted, (double)lru / counted};
    printf("     hot set of %u, %u files read once for each use: hit ratio of the hot set %.3f, least-recently-used %.3f\n", hot, scan, r.ours, r.lru);
    return r;
}

TEST(evict_a_scan_leaves_the_hot_set)
{
    struct ratios calm = measure(300, 0, 3000), mild = measure(300, 1, 4000), hard = measure(300, 4, 4000), full = measure(380, 2, 4000);
    ASSERT(calm.ours > calm.lru - 0.01);
    ASSERT(mild.ours > 0.9 && mild.ours > mild.lru + 0.3);
    ASSERT(hard.ours > 0.8 && hard.ours > hard.lru + 0.5);
    ASSERT(full.ours > full.lru + 0.4);
}

/* One long scan, and the hot set is there as before. Uses by programs that open cache files themselves count. */
TEST(evict_one_long_scan)
{
    char dir[512];
    const struct kfs_cache_options o = {.cap_files = 400};
    struct kfs_cache *c = cache_make(dir, sizeof dir, &o);
    unsigned left = 0;
    for (kfs_ino_t ino = 1; ino <= 300; ino++) {
        fill(c, ino, 1);
        kfs_cache_touch(c, ino);
    }
    for (kfs_ino_t ino = 1 << 20; ino < (1 << 20) + 3000; ino++)
        (void)access_one(c, ino);
    struct kfs_cache_stats s;
    kfs_cache_stats_get(c, &s);
    ASSERT_EQ(s.dirs[0].files, 400);
    ASSERT_EQ(s.evicted_files, 2900);
    ASSERT_EQ(s.misses, 3300);
    for (kfs_ino_t ino = 1; ino <= 300; ino++) {
        int fd = kfs_cache_open_clean(c, ino, 1, O_RDONLY);
        left += fd >= 0;
        if (fd >= 0)
            close(fd);
    }
    ASSERT_EQ(left, 300);
    kfs_cache_close(c);
    tmp_remove(dir);
}

/* What somebody has open frees nothing when it is unlinked: others go first. */
TEST(evict_files_in_use_go_last)
{
    char dir[512];
    const struct kfs_cache_options o = {.cap_files = 50};
    struct kfs_cache *c = cache_make(dir, sizeof dir, &o);
    int held[10];
    for (kfs_ino_t ino = 1; ino <= 10; ino++) {
        fill(c, ino, 1);
        held[ino - 1] = kfs_cache_open_clean(c, ino, 1, O_RDONLY);
        ASSERT(held[ino - 1] >= 0);
    }
    for (kfs_ino_t ino = 100; ino < 400; ino++)
        fill(c, ino, 1);
    for (kfs_ino_t ino = 1; ino <= 10; ino++) {
        int fd = kfs_cache_open_clean(c, ino, 1, O_RDONLY);
        ASSERT(fd >= 0);
        close(fd);
    }
    /* But the caps hold, whoever has what open. */
    int many[60];
    for (kfs_ino_t ino = 1000; ino < 1060; ino++) {
        fill(c, ino, 1);
        many[ino - 1000] = kfs_cache_open_clean(c, ino, 1, O_RDONLY);
    }
    struct kfs_cache_stats s;
    kfs_cache_stats_get(c, &s);
    ASSERT_EQ(s.dirs[0].files, 50);
    for (int i = 0; i < 60; i++)
        close(many[i]);
    for (int i = 0; i < 10; i++)
        close(held[i]);
    kfs_cache_close(c);
    tmp_remove(dir);
}

TEST(evict_caps_change)
{
    char dir[512];
    const struct kfs_cache_options o = {.cap_bytes = 1 << 20};
    struct kfs_cache *c = cache_make(dir, sizeof dir, &o);
    for (kfs_ino_t ino = 1; ino <= 100; ino++)
        fill(c, ino, 4096);
    uint64_t one = kfs_cache_used_bytes(c) / 100;
    ASSERT(kfs_cache_room_bytes(c) == (1 << 20) - 100 * one);
    kfs_cache_caps_set(c, 10 * one, 0);
    ASSERT_EQ(kfs_cache_used_bytes(c), 10 * one);
    kfs_cache_caps_set(c, 0, 3);
    struct kfs_cache_stats s;
    kfs_cache_stats_get(c, &s);
    ASSERT_EQ(s.dirs[0].files, 3);
    kfs_cache_close(c);
    tmp_remove(dir);
}

KT_MAIN
