/* test_cache_shm.c — the segment's writer against its readers */
#include "blockstore/cache_shm.h"
#include "base/pure/shm_layout.h"
#include "tests/unit/kt.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct kfs_err kerr;

/* Reader's view of a segment: mapped read-only through the descriptor that clients get. */
static const struct kfs_shm_header *view(struct kfs_shm *s, size_t *ret_bytes)
{
    struct stat st;
    int fd = kfs_shm_reader_fd(s);
    ASSERT(fstat(fd, &st) == 0);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT(p != MAP_FAILED);
    ASSERT(kfs_shm_header_ok(p, (uint64_t)st.st_size));
    *ret_bytes = (size_t)st.st_size;
    return p;
}

static struct kfs_shm *make(uint64_t dent, uint64_t attr, uint64_t link)
{
    struct kfs_shm *s = NULL;
    ASSERT_OK(kfs_shm_create(77, &(struct kfs_shm_sizes){dent, attr, link, 16, 8192}, &s, &kerr), kerr);
    return s;
}

TEST(shm_put_get_replace_drop)
{
    struct kfs_shm *s = make(64, 64, 64);
    size_t bytes;
    const struct kfs_shm_header *h = view(s, &bytes);
    uint64_t ino = 0;
    char buf[KFS_SHM_TARGET_MAX + 1], name[300];
    ASSERT_EQ(h->epoch, 77);
    ASSERT(kfs_shm_header(s)->epoch == 77);
    ASSERT(!kfs_shm_fresh(h, 10000000000ULL));
    kfs_shm_beat(s, 10000000000ULL);
    ASSERT(kfs_shm_fresh(h, 10000000001ULL));
    ASSERT_EQ(kfs_shm_dent_get(h, 1, "a", 1, &ino), KFS_DENT_EMPTY);
    kfs_shm_put_dent(s, 1, "a", 1, 5);
    ASSERT_EQ(kfs_shm_dent_get(h, 1, "a", 1, &ino), KFS_DENT_PRESENT);
    ASSERT_EQ(ino, 5);
    ASSERT_EQ(kfs_shm_dent_get(h, 2, "a", 1, &ino), KFS_DENT_EMPTY);
    kfs_shm_put_dent(s, 1, "a", 1, 6);
    ASSERT_EQ(kfs_shm_dent_get(h, 1, "a", 1, &ino), KFS_DENT_PRESENT);
    ASSERT_EQ(ino, 6);
    kfs_shm_put_dent(s, 1, "a", 1, 0);
    ASSERT_EQ(kfs_shm_dent_get(h, 1, "a", 1, &ino), KFS_DENT_ABSENT);
    kfs_shm_drop_dent(s, 1, "a", 1);
    ASSERT_EQ(kfs_shm_dent_get(h, 1, "a", 1, &ino), KFS_DENT_EMPTY);
    kfs_shm_drop_dent(s, 1, "never", 5);
    memset(name, 'n', sizeof name);
    kfs_shm_put_dent(s, 1, name, KFS_SHM_NAME_MAX, 9);
    ASSERT_EQ(kfs_shm_dent_get(h, 1, name, KFS_SHM_NAME_MAX, &ino), KFS_DENT_PRESENT);
    kfs_shm_put_dent(s, 1, name, KFS_SHM_NAME_MAX + 1, 9);
    ASSERT_EQ(kfs_shm_dent_get(h, 1, name, KFS_SHM_NAME_MAX + 1, &ino), KFS_DENT_EMPTY);
    kfs_shm_drop_dent(s, 1, name, KFS_SHM_NAME_MAX + 1);

    struct kfs_attr a = {.ino = 5, .size_bytes = 10, .mode = 0100644}, got;
    ASSERT(!kfs_shm_attr_get(h, 5, &got));
    kfs_shm_put_attr(s, &a);
    ASSERT(kfs_shm_attr_get(h, 5, &got) && got.size_bytes == 10);
    a.size_bytes = 11;
    kfs_shm_put_attr(s, &a);
    ASSERT(kfs_shm_attr_get(h, 5, &got) && memcmp(&got, &a, sizeof a) == 0);
    kfs_shm_drop_attr(s, 5);
    ASSERT(!kfs_shm_attr_get(h, 5, &got));

    ASSERT_EQ(kfs_shm_link_get(h, 8, buf), -1);
    kfs_shm_put_link(s, 8, "../x", 4);
    ASSERT_EQ(kfs_shm_link_get(h, 8, buf), 4);
    ASSERT_STR(buf, "../x");
    kfs_shm_put_link(s, 8, name,
                     KFS_SHM_TARGET_MAX + 1); /* too long: what was there is no longer said */
    ASSERT_EQ(kfs_shm_link_get(h, 8, buf), -1);
    kfs_shm_put_link(s, 8, name, KFS_SHM_TARGET_MAX);
    ASSERT_EQ(kfs_shm_link_get(h, 8, buf), KFS_SHM_TARGET_MAX);
    void *unmap;
    memcpy(&unmap, &h, sizeof unmap);
    munmap(unmap, bytes);
    kfs_shm_free(s);
}

TEST(shm_full_bucket_replaces_the_oldest)
{
    struct kfs_shm *s = make(4, 4, 4); /* one bucket each */
    const struct kfs_shm_header *h = kfs_shm_header(s);
    struct kfs_attr got;
    for (uint64_t ino = 1; ino <= 4; ino++)
        kfs_shm_put_attr(s, &(struct kfs_attr){.ino = ino});
    kfs_shm_put_attr(s, &(struct kfs_attr){.ino = 1, .size_bytes = 2}); /* 1 is young again */
    kfs_shm_put_attr(s, &(struct kfs_attr){.ino = 5});
    ASSERT(!kfs_shm_attr_get(h, 2, &got));
    ASSERT(kfs_shm_attr_get(h, 1, &got) && kfs_shm_attr_get(h, 3, &got) &&
           kfs_shm_attr_get(h, 4, &got) && kfs_shm_attr_get(h, 5, &got));
    kfs_shm_drop_attr(s, 4); /* a free way is taken before any other */
    kfs_shm_put_attr(s, &(struct kfs_attr){.ino = 6});
    ASSERT(kfs_shm_attr_get(h, 1, &got) && kfs_shm_attr_get(h, 3, &got) &&
           kfs_shm_attr_get(h, 5, &got) && kfs_shm_attr_get(h, 6, &got));
    kfs_shm_put_attr(s, &(struct kfs_attr){.ino = 3, .size_bytes = 9}); /* in place: never twice */
    ASSERT(kfs_shm_attr_get(h, 3, &got) && got.size_bytes == 9);
    kfs_shm_free(s);
}

TEST(shm_sizes_are_checked)
{
    struct kfs_shm *s = NULL;
    ASSERT_EQ(kfs_shm_create(1, &(struct kfs_shm_sizes){3, 4, 4, 4, 4096}, &s, &kerr), -EINVAL);
    ASSERT_EQ(kfs_shm_create(1, &(struct kfs_shm_sizes){4, 0, 4, 4, 4096}, &s, &kerr), -EINVAL);
    ASSERT_EQ(kfs_shm_create(1, &(struct kfs_shm_sizes){4, 4, 6, 4, 4096}, &s, &kerr), -EINVAL);
    ASSERT_EQ(kfs_shm_create(1, &(struct kfs_shm_sizes){4, 4, 4, 5, 4096}, &s, &kerr), -EINVAL);
    kfs_shm_free(NULL);
}

TEST(shm_readers_cannot_write)
{
    struct kfs_shm *s = make(64, 64, 64);
    int fd = kfs_shm_reader_fd(s);
    struct stat st;
    char path[64];
    ASSERT(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0444);
    ASSERT_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    ASSERT(write(fd, "x", 1) < 0);
    ASSERT(ftruncate(fd, 10) < 0);
    ASSERT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT(p != MAP_FAILED);
    ASSERT(mprotect(p, 4096, PROT_READ | PROT_WRITE) < 0);
    munmap(p, 4096);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rw = open(path, O_RDWR | O_CLOEXEC);
    if (rw >= 0) { /* root may open it; the seals stand */
        ASSERT(write(rw, "x", 1) < 0 && errno == EPERM);
        ASSERT(ftruncate(rw, 10) < 0 && errno == EPERM);
        ASSERT(ftruncate(rw, 1 << 30) < 0 && errno == EPERM);
        ASSERT(fallocate(rw, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0);
        ASSERT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0) == MAP_FAILED);
        ASSERT(fcntl(rw, F_ADD_SEALS, F_SEAL_WRITE) < 0);
        close(rw);
    }
    kfs_shm_put_dent(s, 1, "a", 1, 5); /* the writer's mapping lives on */
    kfs_shm_free(s);
}

struct race {
    struct kfs_shm *s;
    bool stop;
    long torn, hits;
};

/* Every field of a row says the same number; a mixture is a torn row. */
static void *race_read(void *arg)
{
    struct race *r = arg;
    const struct kfs_shm_header *h = kfs_shm_header(r->s);
    long torn = 0, hits = 0;
    while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
        for (uint64_t ino = 1; ino <= 12; ino++) {
            struct kfs_attr a;
            char buf[KFS_SHM_TARGET_MAX + 1];
            uint64_t child;
            if (kfs_shm_attr_get(h, ino, &a)) {
                hits++;
                torn += a.ino != ino || a.size_bytes != a.version || a.parent != a.version ||
                        (uint64_t)a.mtime_s != a.version;
            }
            int n = kfs_shm_link_get(h, ino, buf);
            for (int i = 1; i < n; i++)
                torn += buf[i] != buf[0];
            torn += n >= 0 && n != 100 + buf[0] % 100;
            char name[8];
            size_t len = (size_t)snprintf(name, sizeof name, "n%u", (unsigned)ino);
            int st = kfs_shm_dent_get(h, ino, name, len, &child);
            torn += (st == KFS_DENT_PRESENT && child % 100 != ino) ||
                    (st == KFS_DENT_ABSENT && child != 0);
        }
    }
    __atomic_add_fetch(&r->torn, torn, __ATOMIC_RELAXED);
    __atomic_add_fetch(&r->hits, hits, __ATOMIC_RELAXED);
    return NULL;
}

TEST(shm_no_torn_row_under_a_writer)
{
#ifdef __SANITIZE_THREAD__
    SKIP("a sequence lock is a data race by design: readers discard what they raced with");
#endif
    struct race r = {.s = make(8, 8, 8)};
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, race_read, &r), 0);
    for (uint64_t i = 1; i < 300000; i++) {
        uint64_t ino = 1 + i % 12;
        char text[256], name[8];
        kfs_shm_put_attr(
            r.s,
            &(struct kfs_attr){
                .ino = ino, .size_bytes = i, .version = i, .parent = i, .mtime_s = (int64_t)i});
        char ch = (char)(1 + i % 100);
        memset(text, ch, sizeof text);
        kfs_shm_put_link(r.s, ino, text, (size_t)(100 + ch % 100));
        size_t len = (size_t)snprintf(name, sizeof name, "n%u", (unsigned)ino);
        kfs_shm_put_dent(r.s, ino, name, len, i % 3 ? i * 100 + ino : 0);
        if (i % 7 == 0)
            kfs_shm_drop_attr(r.s, ino);
    }
    __atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    ASSERT_EQ(r.torn, 0);
    ASSERT(r.hits > 0);
    kfs_shm_free(r.s);
}


/* --- listings ------------------------------------------------------------------------------------ */

/* The names "n000", "n001", … of a directory, each with the inode number base + its place. */
static size_t records(char *buf, uint32_t count, uint64_t base)
{
    size_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        char name[8];
        struct kfs_wire_dirent e = {.ino = base + i, .type = 8, .name_len = 4};
        snprintf(name, sizeof name, "n%03u", i % 1000);
        memcpy(buf + n, &e, sizeof e);
        memcpy(buf + n + sizeof e, name, 4);
        n += sizeof e + 4;
    }
    return n;
}

TEST(shm_listing_tells_what_is_there_and_what_is_not)
{
    struct kfs_shm *s = make(64, 64, 8);
    const struct kfs_shm_header *h = kfs_shm_header(s);
    char buf[2048];
    uint64_t ino = 9;
    ASSERT_EQ(kfs_shm_list_find(h, 1, "n000", 4, &ino), KFS_DENT_EMPTY);
    ASSERT(kfs_shm_put_list(s, 1, buf, records(buf, 20, 100), 20));
    for (uint32_t i = 0; i < 20; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%03u", i);
        ASSERT_EQ(kfs_shm_list_find(h, 1, name, 4, &ino), KFS_DENT_PRESENT);
        ASSERT_EQ(ino, 100 + i);
    }
    static const char *const none[] = {"", "a", "n", "n00", "n0000", "n020", "z"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        ASSERT_EQ(kfs_shm_list_find(h, 1, none[i], strlen(none[i]), &ino), KFS_DENT_ABSENT);
    ASSERT_EQ(kfs_shm_list_find(h, 2, "n000", 4, &ino), KFS_DENT_EMPTY);
    ASSERT(kfs_shm_put_list(s, 3, NULL, 0, 0)); /* an empty directory is known as well */
    ASSERT_EQ(kfs_shm_list_find(h, 3, "x", 1, &ino), KFS_DENT_ABSENT);
    kfs_shm_free(s);
}

TEST(shm_listing_goes_when_a_name_contradicts_it)
{
    struct kfs_shm *s = make(64, 64, 8);
    const struct kfs_shm_header *h = kfs_shm_header(s);
    char buf[2048], lengthy[KFS_SHM_NAME_MAX + 2];
    uint64_t ino;
    size_t n = records(buf, 20, 100);
    memset(lengthy, 'x', sizeof lengthy);
    struct {
        const char *name;
        size_t len;
        uint64_t ino;
        bool stays;
    } put[] = {{"n003", 4, 103, true}, {"none", 4, 0, true},  {"n003", 4, 7, false},
               {"n003", 4, 0, false},  {"new", 3, 50, false}, {lengthy, sizeof lengthy, 50, false}};
    for (size_t i = 0; i < sizeof put / sizeof *put; i++) {
        ASSERT(kfs_shm_put_list(s, 1, buf, n, 20));
        kfs_shm_put_dent(s, 1, put[i].name, put[i].len, put[i].ino);
        ASSERT_EQ(kfs_shm_list_find(h, 1, "n004", 4, &ino) != KFS_DENT_EMPTY, put[i].stays);
    }
    ASSERT(kfs_shm_put_list(s, 1, buf, n, 20));
    kfs_shm_drop_dent(s, 1, "n003", 4);
    ASSERT_EQ(kfs_shm_list_find(h, 1, "n004", 4, &ino), KFS_DENT_EMPTY);
    kfs_shm_free(s);
}

TEST(shm_listing_records_are_checked)
{
    struct kfs_shm *s = make(64, 64, 8);
    char buf[2048];
    size_t n = records(buf, 20, 100);
    ASSERT(!kfs_shm_put_list(s, 1, buf, n, 19));
    ASSERT(!kfs_shm_put_list(s, 1, buf, n, 21));
    ASSERT(!kfs_shm_put_list(s, 1, buf, n - 1, 20));
    char *large = calloc(1, 4096);
    ASSERT(!kfs_shm_put_list(s, 1, large, 2000, 100)); /* more than a quarter of the ring */
    free(large);
    kfs_shm_free(s);
}

TEST(shm_listings_take_each_others_place_in_the_ring)
{
    struct kfs_shm *s = make(64, 64, 8);
    const struct kfs_shm_header *h = kfs_shm_header(s);
    char buf[2048];
    for (uint64_t round = 0; round < 2000; round++) {
        uint64_t dir = 1 + round * 7 % 13, ino;
        uint32_t count = (uint32_t)(1 + round * 5 % 50);
        ASSERT(kfs_shm_put_list(s, dir, buf, records(buf, count, dir * 1000), count));
        unsigned known = 0;
        for (uint64_t d = 1; d <= 13; d++) {
            int st = kfs_shm_list_find(h, d, "n000", 4, &ino);
            ASSERT(st == KFS_DENT_EMPTY || (st == KFS_DENT_PRESENT && ino == d * 1000));
            known += st == KFS_DENT_PRESENT;
        }
        ASSERT(known >= 1);
    }
    kfs_shm_free(s);
}

static void *race_list(void *arg)
{
    struct race *r = arg;
    const struct kfs_shm_header *h = kfs_shm_header(r->s);
    long torn = 0, hits = 0;
    while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
        for (uint64_t dir = 1; dir <= 13; dir++) {
            uint64_t ino = 0;
            int st = kfs_shm_list_find(h, dir, "n000", 4, &ino);
            hits += st == KFS_DENT_PRESENT;
            torn += st == KFS_DENT_ABSENT || (st == KFS_DENT_PRESENT && ino != dir * 1000);
        }
    }
    __atomic_add_fetch(&r->torn, torn, __ATOMIC_RELAXED);
    __atomic_add_fetch(&r->hits, hits, __ATOMIC_RELAXED);
    return NULL;
}

TEST(shm_no_foreign_listing_under_a_writer)
{
#ifdef __SANITIZE_THREAD__
    SKIP("a sequence lock is a data race by design: readers discard what they raced with");
#endif
    struct race r = {.s = make(64, 64, 8)};
    pthread_t t[2];
    char buf[2048];
    for (int i = 0; i < 2; i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, race_list, &r), 0);
    for (uint64_t round = 0; round < 300000; round++) {
        uint64_t dir = 1 + round * 7 % 13;
        uint32_t count = (uint32_t)(1 + round * 5 % 50);
        ASSERT(kfs_shm_put_list(r.s, dir, buf, records(buf, count, dir * 1000), count));
    }
    __atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    ASSERT_EQ(r.torn, 0);
    ASSERT(r.hits > 0);
    kfs_shm_free(r.s);
}

KT_MAIN
