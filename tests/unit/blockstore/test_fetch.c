/* The engine over a driver that can be slow, held, wrong and broken. Bytes come from the file driver behind it. */
#include "blockstore/driver_ops.h"
#include "blockstore/fetch.h"
#include "blockstore/store.h"
#include "tests/unit/blockstore/store_util.h"
#include <pthread.h>

#define MIB     (1u << 20)
#define LOG_MAX 4096

struct seen {
    char key[KFS_DRV_KEY_MAX];
    uint64_t off;
    size_t len;
    enum kfs_drv_priority priority;
};

static struct {
    struct kfs_drv drv;
    struct kfs_drv *behind;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t threads[8];
    struct kfs_drv_req *first[3], **last[3];
    unsigned running, limit, thread_count;
    bool stop;
    bool hold;          /* nothing is begun */
    bool hold_tail;     /* of long GETs only the first 1.5 MiB come, as long as this is set */
    int fail_data;      /* -errno for every GET that is no index */
    int flips;          /* so many data GETs have a flipped bit in their first frame; -1: all */
    struct seen log[LOG_MAX];
    unsigned count;
    uint64_t data_bytes;
} t = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void serve(struct kfs_drv_req *q)
{
    bool tail = q->off == KFS_DRV_TAIL;
    struct kfs_err err = {0};
    q->status = kfs_drv_get(t.behind, q->key, q->off, q->buf, q->len, &q->got, &q->value_bytes, &err);
    q->err = err;
    pthread_mutex_lock(&t.lock);
    if (!tail && t.fail_data) {
        q->status = t.fail_data;
        q->got = 0;
        memset(q->buf, 0, q->len);
    }
    if (!tail && q->status == 0 && t.flips) {
        ((unsigned char *)q->buf)[100] ^= 8;
        t.flips -= t.flips > 0;
    }
    size_t shown = 0;
    while (!tail && q->status == 0 && q->progress && shown < q->got) {
        size_t step = q->got - shown < 300000 ? q->got - shown : 300000;
        while (t.hold_tail && shown + step > MIB + MIB / 2)
            pthread_cond_wait(&t.changed, &t.lock);
        pthread_mutex_unlock(&t.lock);
        shown += step;
        q->progress(q, shown);
        pthread_mutex_lock(&t.lock);
    }
    pthread_mutex_unlock(&t.lock);
}

static void *server(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&t.lock);
    for (;;) {
        int p = 0;
        while (p < 3 && !t.first[p])
            p++;
        if (t.stop)
            break;
        if (p == 3 || t.hold) {
            pthread_cond_wait(&t.changed, &t.lock);
            continue;
        }
        struct kfs_drv_req *q = t.first[p];
        t.first[p] = q->priv.next;
        if (!t.first[p])
            t.last[p] = &t.first[p];
        pthread_mutex_unlock(&t.lock);
        serve(q);
        pthread_mutex_lock(&t.lock);
        t.running--;
        pthread_mutex_unlock(&t.lock);
        q->done(q);
        pthread_mutex_lock(&t.lock);
    }
    pthread_mutex_unlock(&t.lock);
    return NULL;
}

static void submit(struct kfs_drv *d, struct kfs_drv_req *q)
{
    (void)d;
    pthread_mutex_lock(&t.lock);
    q->priv.next = NULL;
    q->status = 0;
    q->got = 0;
    *t.last[q->priority] = q;
    t.last[q->priority] = &q->priv.next;
    t.running++;
    if (t.count < LOG_MAX) {
        struct seen *s = &t.log[t.count++];
        memcpy(s->key, q->key, sizeof s->key);
        s->off = q->off;
        s->len = q->len;
        s->priority = q->priority;
    }
    if (q->off != KFS_DRV_TAIL)
        t.data_bytes += q->len;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

static void cancel(struct kfs_drv *d, struct kfs_drv_req *q)
{
    (void)d, (void)q; /* too late, always */
}

static void stats(struct kfs_drv *d, struct kfs_drv_stats *ret)
{
    (void)d;
    pthread_mutex_lock(&t.lock);
    *ret = (struct kfs_drv_stats){.running = t.running, .limit = t.limit};
    pthread_mutex_unlock(&t.lock);
}

static const struct kfs_drv_ops test_ops = {.scheme = "test", .submit = submit, .cancel = cancel, .stats = stats};

static void set(bool *flag, bool value)
{
    pthread_mutex_lock(&t.lock);
    *flag = value;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

static struct rig r;

static void up(uint64_t size, unsigned limit)
{
    rig_open(&r);
    unsigned char *p = malloc(size);
    fill_pattern(p, size, 11);
    ASSERT_EQ(pwrite(r.fd, p, size, 0), size);
    free(p);
    rig_commit(&r, NULL);
    rig_reopen(&r);
    t.drv = (struct kfs_drv){&test_ops, (char *)(uintptr_t)"test:"};
    t.behind = r.s->drv;
    t.limit = limit;
    t.stop = t.hold = t.hold_tail = false;
    t.fail_data = t.flips = 0;
    t.count = t.running = 0;
    t.data_bytes = 0;
    for (int i = 0; i < 3; i++) {
        t.first[i] = NULL;
        t.last[i] = &t.first[i];
    }
    t.thread_count = limit < 8 ? limit : 8;
    for (unsigned i = 0; i < t.thread_count; i++)
        ASSERT_EQ(pthread_create(&t.threads[i], NULL, server, NULL), 0);
    kfs_fetch_close(r.s->fetch);
    ASSERT_OK(kfs_fetch_open(r.s, &t.drv, &r.s->fetch, &kerr), kerr);
}

static void down(void)
{
    kfs_fetch_close(r.s->fetch);
    r.s->fetch = NULL;
    set(&t.stop, true);
    for (unsigned i = 0; i < t.thread_count; i++)
        pthread_join(t.threads[i], NULL);
    rig_close(&r);
}

static struct kfs_content copy_map(void)
{
    struct kfs_content c = r.c;
    c.extents = malloc(c.extent_count * sizeof *c.extents + 1);
    memcpy(c.extents, r.c.extents, c.extent_count * sizeof *c.extents);
    return c;
}

struct goal {
    struct kfs_fill *f;
    int fd;
    struct kfs_arrival *map;
    unsigned whole; /* calls of on_whole; atomic */
};

static void on_whole(void *arg, struct kfs_fill *f)
{
    (void)f;
    __atomic_fetch_add(&((struct goal *)arg)->whole, 1, __ATOMIC_RELAXED);
}

static void goal_open(struct goal *g, int number)
{
    char path[700];
    struct kfs_content c = copy_map();
    memset(g, 0, sizeof *g);
    snprintf(path, sizeof path, "%s/goal%d", r.dir, number);
    g->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(g->fd >= 0);
    g->map = calloc(1, kfs_arrival_bytes(c.size_bytes));
    ASSERT_OK(kfs_fill_start(r.s, &c, 5, 7, g->fd, g->map, on_whole, g, &g->f, &kerr), kerr);
    ASSERT(c.extents == NULL);
}

static void goal_close(struct goal *g)
{
    kfs_fill_unref(g->f);
    close(g->fd);
    free(g->map);
}

static void same_bytes(const struct goal *g, uint64_t off, size_t len)
{
    unsigned char *a = malloc(len), *b = malloc(len);
    ssize_t n = pread(g->fd, a, len, (off_t)off), m = pread(r.fd, b, len, (off_t)off);
    int differ = n != m || memcmp(a, b, (size_t)n) != 0;
    free(a);
    free(b);
    if (differ)
        KT_FAIL("%zu bytes at %llu differ", len, (unsigned long long)off);
}

/* Wait for an event that another thread brings about. */
#define UNTIL(x)                                                                                   \
    do {                                                                                           \
        while (!(x))                                                                               \
            usleep(1000);                                                                          \
    } while (0)

static bool queued(unsigned at_least)
{
    pthread_mutex_lock(&t.lock);
    bool yes = t.count >= at_least;
    pthread_mutex_unlock(&t.lock);
    return yes;
}

TEST(two_files_of_the_same_object_fetch_it_once)
{
    uint64_t size = 20 * MIB + 5;
    up(size, 4);
    struct goal a, b;
    set(&t.hold, true);
    goal_open(&a, 1);
    goal_open(&b, 2);
    kfs_fill_all(a.f, NULL, 0, KFS_DRV_AHEAD);
    kfs_fill_all(b.f, NULL, 0, KFS_DRV_WAITING);
    set(&t.hold, false);
    ASSERT_OK(kfs_fill_wait(a.f, &kerr), kerr);
    ASSERT_OK(kfs_fill_wait(b.f, &kerr), kerr);
    same_bytes(&a, 0, size);
    same_bytes(&b, 0, size);
    ASSERT(t.data_bytes >= size && t.data_bytes < size + 1000);
    ASSERT_EQ(kfs_fill_state(a.f), 1);
    UNTIL(__atomic_load_n(&a.whole, __ATOMIC_RELAXED) && __atomic_load_n(&b.whole, __ATOMIC_RELAXED));
    ASSERT_EQ(a.whole, 1);
    ASSERT_EQ(a.map->state, KFS_ARRIVAL_WHOLE);
    goal_close(&a);
    goal_close(&b);
    down();
}

TEST(a_whole_fill_comes_in_long_ranges_that_do_not_overlap)
{
    uint64_t size = 40 * MIB;
    up(size, 4);
    struct goal g;
    goal_open(&g, 1);
    kfs_fill_all(g.f, NULL, 0, KFS_DRV_AHEAD);
    ASSERT_OK(kfs_fill_wait(g.f, &kerr), kerr);
    same_bytes(&g, 0, size);
    unsigned data = 0;
    for (unsigned i = 0; i < t.count; i++) {
        data += t.log[i].off != KFS_DRV_TAIL;
        ASSERT(t.log[i].len <= 8 * MIB + 1000);
        for (unsigned k = 0; k < i; k++)
            if (strcmp(t.log[i].key, t.log[k].key) == 0 && t.log[i].off != KFS_DRV_TAIL && t.log[k].off != KFS_DRV_TAIL)
                ASSERT(t.log[i].off >= t.log[k].off + t.log[k].len || t.log[k].off >= t.log[i].off + t.log[i].len);
    }
    ASSERT(data <= 14);
    goal_close(&g);
    down();
}

struct reader {
    struct goal *g;
    uint64_t off, len, id;
    int rc;
    bool ended; /* atomic */
    struct kfs_err err;
    pthread_t thread;
};

static void *read_main(void *arg)
{
    struct reader *x = arg;
    x->rc = kfs_fill_want(x->g->f, x->id, x->off, x->len, &x->err);
    __atomic_store_n(&x->ended, true, __ATOMIC_RELEASE);
    return NULL;
}

static void reader_begin(struct reader *x, struct goal *g, uint64_t off, uint64_t len)
{
    *x = (struct reader){.g = g, .off = off, .len = len};
    ASSERT_EQ(pthread_create(&x->thread, NULL, read_main, x), 0);
}

TEST(a_waiting_reader_comes_before_a_whole_fill)
{
    up(60 * MIB, 1);
    struct goal g;
    struct reader x;
    goal_open(&g, 1);
    ASSERT_OK(kfs_fill_want(g.f, 0, 0, 1, &kerr), kerr); /* the index is known now */
    set(&t.hold, true);
    unsigned before = t.count;
    kfs_fill_all(g.f, NULL, 0, KFS_DRV_AHEAD);
    reader_begin(&x, &g, 50 * MIB, 1);
    UNTIL(queued(before + 2)); /* one of the whole fill at the driver, and the reader's behind or before it */
    struct seen *s = &t.log[t.count - 1];
    ASSERT_EQ(s->priority, KFS_DRV_WAITING);
    ASSERT(s->off >= 50 * MIB && s->off < 50 * MIB + 1000);
    set(&t.hold, false);
    pthread_join(x.thread, NULL);
    ASSERT_OK(x.rc, x.err);
    ASSERT_OK(kfs_fill_wait(g.f, &kerr), kerr);
    same_bytes(&g, 0, 60 * MIB);
    goal_close(&g);
    down();
}

TEST(a_frame_is_there_before_its_range_has_ended)
{
    up(6 * MIB, 2);
    struct goal g;
    struct reader x;
    goal_open(&g, 1);
    set(&t.hold_tail, true);
    reader_begin(&x, &g, 0, 5 * MIB); /* one range */
    UNTIL(kfs_arrival_has(g.map, 0));
    ASSERT_OK(kfs_fill_want(g.f, 0, 0, MIB, &kerr), kerr);
    same_bytes(&g, 0, MIB);
    ASSERT(!__atomic_load_n(&x.ended, __ATOMIC_ACQUIRE));
    set(&t.hold_tail, false);
    pthread_join(x.thread, NULL);
    ASSERT_OK(x.rc, x.err);
    same_bytes(&g, 0, 5 * MIB);
    goal_close(&g);
    down();
}

TEST(a_flipped_bit_is_fetched_once_more)
{
    up(4 * MIB, 2);
    struct goal g;
    goal_open(&g, 1);
    t.flips = 1;
    ASSERT_OK(kfs_fill_want(g.f, 0, MIB, 1, &kerr), kerr);
    same_bytes(&g, MIB, MIB);
    struct kfs_fetch_stats st;
    kfs_fetch_stats(r.s, &st);
    ASSERT_EQ(st.again, 1);
    /* What stays wrong is an error with the object's key; when it is right again, so is the next read. */
    t.flips = -1;
    struct kfs_err err = {0};
    ASSERT_EQ(kfs_fill_want(g.f, 0, 2 * MIB, 1, &err), -EIO);
    char key[64];
    kfs_store_key(r.s, r.c.extents[0].object, key);
    ASSERT(strstr(err.msg, key) != NULL);
    ASSERT_EQ(g.map->state, KFS_ARRIVAL_FAILED);
    ASSERT_EQ(g.map->error, EIO);
    ASSERT(!kfs_arrival_has(g.map, 2));
    t.flips = 0;
    ASSERT_OK(kfs_fill_want(g.f, 0, 2 * MIB, 1, &kerr), kerr);
    same_bytes(&g, 2 * MIB, MIB);
    ASSERT_EQ(g.map->state, KFS_ARRIVAL_ARRIVING);
    goal_close(&g);
    down();
}

TEST(failures_of_the_driver_reach_the_reader_and_end_with_it)
{
    up(4 * MIB, 2);
    struct goal g;
    goal_open(&g, 1);
    const struct { int from, to; } table[] = {{-ETIMEDOUT, -ETIMEDOUT}, {-EACCES, -EACCES}, {-ENOENT, -EIO}, {-ERANGE, -EIO}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        t.fail_data = table[i].from;
        struct kfs_err err = {0};
        ASSERT_EQ(kfs_fill_want(g.f, 0, 0, 2 * MIB, &err), table[i].to);
        ASSERT(err.code == -table[i].to && err.msg[0]);
        kfs_fill_all(g.f, NULL, 0, KFS_DRV_AHEAD);
        ASSERT_EQ(kfs_fill_wait(g.f, &err), table[i].to);
        ASSERT_EQ(kfs_fill_state(g.f), table[i].to);
        struct kfs_fetch_stats st;
        do /* others that fail the same way are still under way */
            kfs_fetch_stats(r.s, &st);
        while (st.held_bytes);
    }
    t.fail_data = 0;
    kfs_fill_all(g.f, NULL, 0, KFS_DRV_AHEAD);
    ASSERT_OK(kfs_fill_wait(g.f, &kerr), kerr);
    same_bytes(&g, 0, 4 * MIB);
    goal_close(&g);
    down();
}

TEST(cancel_wakes_who_waits_and_starts_nothing)
{
    up(30 * MIB, 1);
    struct goal g;
    struct reader x;
    goal_open(&g, 1);
    ASSERT_OK(kfs_fill_want(g.f, 0, 0, 1, &kerr), kerr);
    set(&t.hold, true);
    kfs_fill_all(g.f, NULL, 0, KFS_DRV_AHEAD);
    reader_begin(&x, &g, 20 * MIB, 1);
    UNTIL(queued(3));
    kfs_fill_cancel(g.f);
    pthread_join(x.thread, NULL);
    ASSERT_EQ(x.rc, -EINTR);
    ASSERT_EQ(kfs_fill_want(g.f, 0, 25 * MIB, 1, &kerr), -EINTR);
    unsigned at_cancel = t.count;
    set(&t.hold, false);
    goal_close(&g);
    down(); /* waits for what was under way */
    ASSERT_EQ(t.count, at_cancel);
    ASSERT_EQ(g.whole, 0);
}

TEST(random_reads_fetch_their_frames_and_no_more)
{
    up(64 * MIB, 4);
    struct goal g;
    goal_open(&g, 1);
    uint64_t seed = 3, asked = 0;
    bool was[64] = {false};
    for (int i = 0; i < 24; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t frame = (seed >> 58) & 63;
        asked += !was[frame];
        was[frame] = true;
        ASSERT_OK(kfs_fill_want(g.f, 9, frame * MIB + 4096, 4096, &kerr), kerr);
        same_bytes(&g, frame * MIB + 4096, 4096);
    }
    ASSERT(t.data_bytes * 10 <= asked * MIB * 15); /* a few in a row may look like a sequence in so small a file */
    goal_close(&g);
    down();
}

static struct goal shared;
static uint64_t held_most; /* atomic */

static void *busy_reader(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg + 77;
    for (int i = 0; i < 12; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t off = (seed >> 33) % (255 * MIB);
        struct kfs_err err = {0};
        if (kfs_fill_want(shared.f, (uint64_t)(uintptr_t)arg + 1, off, 100000, &err) < 0)
            return arg ? arg : (void *)1;
        struct kfs_fetch_stats st;
        kfs_fetch_stats(r.s, &st);
        uint64_t most = __atomic_load_n(&held_most, __ATOMIC_RELAXED);
        while (st.held_bytes > most && !__atomic_compare_exchange_n(&held_most, &most, st.held_bytes, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
    }
    return NULL;
}

TEST(memory_is_bounded_with_64_readers_and_a_whole_fill)
{
    up(256 * MIB, 64);
    goal_open(&shared, 1);
    held_most = 0;
    pthread_t th[64];
    kfs_fill_all(shared.f, NULL, 0, KFS_DRV_WARM);
    for (uintptr_t i = 0; i < 64; i++)
        ASSERT_EQ(pthread_create(&th[i], NULL, busy_reader, (void *)i), 0);
    void *bad = NULL;
    for (int i = 0; i < 64; i++) {
        void *got;
        pthread_join(th[i], &got);
        bad = got ? got : bad;
    }
    ASSERT(bad == NULL);
    ASSERT(held_most > 0 && held_most <= 122 * MIB);
    ASSERT_OK(kfs_fill_wait(shared.f, &kerr), kerr);
    for (uint64_t at = 0; at < 256; at += 32)
        same_bytes(&shared, at * MIB, 32 * MIB);
    ASSERT(t.data_bytes < 257ull * MIB);
    goal_close(&shared);
    down();
}

struct ids {
    uint64_t id[4];
    int count;
};

static int add_id(void *arg, uint64_t id)
{
    struct ids *a = arg;
    a->id[a->count++] = id;
    return 0;
}

TEST(objects_still_needed_are_told)
{
    up(2 * MIB, 1);
    struct goal g;
    goal_open(&g, 1);
    struct ids a = {.count = 0};
    ASSERT_EQ(kfs_fill_each_object(g.f, add_id, &a), 0);
    ASSERT_EQ(a.count, 1);
    ASSERT_EQ(a.id[0], r.c.extents[0].object);
    kfs_fill_all(g.f, NULL, 0, KFS_DRV_AHEAD);
    ASSERT_OK(kfs_fill_wait(g.f, &kerr), kerr);
    a.count = 0;
    ASSERT_EQ(kfs_fill_each_object(g.f, add_id, &a), 0);
    ASSERT_EQ(a.count, 0);
    goal_close(&g);
    down();
}

TEST(first_ranges_come_first)
{
    up(60 * MIB, 1);
    struct goal g;
    goal_open(&g, 1);
    ASSERT_OK(kfs_fill_want(g.f, 0, 0, 1, &kerr), kerr);
    const struct kfs_range first[] = {{40 * MIB, 2 * MIB}, {20 * MIB, 100}, {1ull << 60, 5}};
    unsigned from = t.count;
    kfs_fill_all(g.f, first, 3, KFS_DRV_AHEAD);
    ASSERT_OK(kfs_fill_wait(g.f, &kerr), kerr);
    ASSERT(t.log[from].off >= 40 * MIB && t.log[from].off < 41 * MIB);
    same_bytes(&g, 0, 60 * MIB);
    goal_close(&g);
    down();
}

KT_MAIN
