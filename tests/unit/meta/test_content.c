/* meta: content. Extents against a model, inline transitions, objects and garbage. */
#include "tests/unit/meta/fixture.h"

static struct kfs_content_delta delta;

static uint64_t new_object(void)
{
    uint64_t id = 0;
    ASSERT_OK(kfs_meta_object_id(fx_m, &id, &fx_err), fx_err);
    return id;
}

static int known(uint64_t object)
{
    int rc = kfs_meta_object_known(fx_m, object, &fx_err);
    ASSERT_OK(rc, fx_err);
    return rc;
}

static bool is_garbage(uint64_t object)
{
    struct kfs_meta_garbage g;
    int n = kfs_meta_garbage_list(fx_m, 0, object - 1, &g, 1, &fx_err);
    ASSERT_OK(n, fx_err);
    return n == 1 && g.id == object;
}

static struct kfs_attr commit_inline(kfs_ino_t ino, const char *text)
{
    struct kfs_attr a;
    memset(&delta, 0, sizeof delta);
    delta.changed = delta.to_inline = true;
    delta.inline_len = (uint32_t)strlen(text);
    delta.size_bytes = strlen(text);
    delta.blocks = delta.size_bytes ? 8 : 0;
    memcpy(delta.inline_data, text, strlen(text));
    ASSERT_OK(kfs_meta_commit(fx_m, ino, &delta, 100, 7, &a, &fx_err), fx_err);
    return a;
}

static int commit_extents(kfs_ino_t ino, uint64_t size, struct kfs_extent *x, size_t count, uint64_t object)
{
    uint64_t bytes = 12345;
    memset(&delta, 0, sizeof delta);
    delta.changed = true;
    delta.size_bytes = size;
    delta.blocks = size / 512;
    delta.extents = x;
    delta.extent_count = count;
    delta.objects = &object;
    delta.object_bytes = &bytes;
    delta.object_count = object != 0;
    return kfs_meta_commit(fx_m, ino, &delta, 100, 7, NULL, &fx_err);
}

TEST(content_of_a_new_file_is_empty)
{
    struct kfs_content c = {0};
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    ASSERT(c.is_inline && c.inline_len == 0 && c.size_bytes == 0 && c.inline_data && c.extent_count == 0);
    kfs_content_release(&c);
    ASSERT_EQ(kfs_meta_content_get(fx_m, 1, &c, &fx_err), -EISDIR);
    ASSERT_EQ(kfs_meta_content_get(fx_m, fx_make(1, "l", S_IFLNK), &c, &fx_err), -EINVAL);
    ASSERT_EQ(kfs_meta_content_get(fx_m, 99999, &c, &fx_err), -ENOENT);
}

TEST(content_inline_and_back)
{
    struct kfs_content c = {0};
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    struct kfs_attr a = commit_inline(f, "hello");
    ASSERT_EQ(a.version, 1);
    ASSERT_EQ(a.size_bytes, 5);
    ASSERT_EQ(a.blocks, 8);
    ASSERT_EQ(a.mtime_s, 100);
    ASSERT_EQ(a.mtime_ns, 7);
    ASSERT(a.ctime_s > 1500000000);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    ASSERT(c.is_inline && c.inline_len == 5 && memcmp(c.inline_data, "hello", 5) == 0);
    kfs_content_release(&c);
    fx_check();
    uint64_t o = new_object();
    struct kfs_extent x = {.off = 0, .len = 9999, .object = o};
    ASSERT_OK(commit_extents(f, 9999, &x, 1, o), fx_err);
    ASSERT_EQ(fx_attr(f).version, 2);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    ASSERT(!c.is_inline && !c.inline_data && c.extent_count == 1 && c.size_bytes == 9999);
    ASSERT(c.extents[0].object == o && c.extents[0].len == 9999);
    kfs_content_release(&c);
    fx_check();
    ASSERT_EQ(known(o), 1);
    ASSERT(!is_garbage(o));
    (void)commit_inline(f, "x");
    ASSERT(is_garbage(o));
    ASSERT_EQ(known(o), 1); /* until it is forgotten */
    (void)commit_inline(f, "");
    ASSERT_EQ(fx_attr(f).size_bytes, 0);
    fx_check();
    ASSERT_OK(kfs_meta_garbage_forget(fx_m, &o, 1, &fx_err), fx_err);
    ASSERT_EQ(known(o), 0);
    ASSERT(!is_garbage(o));
}

TEST(content_hole_only)
{
    struct kfs_content c = {0};
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    ASSERT_OK(commit_extents(f, 3ULL << 30, NULL, 0, 0), fx_err);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    ASSERT(!c.is_inline && c.extent_count == 0 && c.size_bytes == 3ULL << 30);
    kfs_content_release(&c);
    fx_check();
}

TEST(content_unchanged_moves_only_the_time)
{
    struct kfs_attr a;
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    (void)commit_inline(f, "hello");
    struct kfs_attr before = fx_attr(f);
    memset(&delta, 0, sizeof delta);
    ASSERT_OK(kfs_meta_commit(fx_m, f, &delta, 100, 7, &a, &fx_err), fx_err);
    ASSERT_EQ(memcmp(&a, &before, sizeof a), 0);
    ASSERT_OK(kfs_meta_commit(fx_m, f, &delta, 200, 8, &a, &fx_err), fx_err);
    ASSERT_EQ(a.version, before.version);
    ASSERT_EQ(a.size_bytes, 5);
    ASSERT_EQ(a.mtime_s, 200);
    ASSERT_EQ(a.mtime_ns, 8);
}

TEST(content_commit_refuses)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t o = new_object();
    struct kfs_extent x = {.off = 0, .len = 100, .object = o};
    ASSERT_EQ(commit_extents(99999, 100, &x, 1, o), -ENOENT);
    ASSERT_EQ(known(o), 0);
    ASSERT_EQ(commit_extents(1, 100, &x, 1, o), -EISDIR);
    x.off = 1;
    ASSERT_EQ(commit_extents(f, 100, &x, 1, o), -EINVAL);
    x.off = 0;
    x.object_off = 1ULL << 63;
    ASSERT_EQ(commit_extents(f, 100, &x, 1, o), -EINVAL);
    x.object_off = 0;
    x.len = 0;
    ASSERT_EQ(commit_extents(f, 100, &x, 1, o), -EINVAL);
    struct kfs_extent two[2] = {{0, 3 << 20, o, 0}, {2 << 20, 1 << 20, o, 0}};
    ASSERT_EQ(commit_extents(f, 4 << 20, two, 2, o), -EINVAL); /* overlap */
    x.len = 100;
    x.object = o + 1000; /* never heard of */
    ASSERT_EQ(commit_extents(f, 100, &x, 1, 0), -EINVAL);
    ASSERT_EQ(fx_attr(f).version, 0);
    ASSERT_EQ(known(o), 0); /* nothing of the failed ones stayed */
    fx_check();
}

TEST(content_object_that_no_extent_keeps_is_garbage_at_once)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t o = new_object();
    struct kfs_extent x = {.off = 8 << 20, .len = 1 << 20, .object = o};
    ASSERT_OK(commit_extents(f, 1 << 20, &x, 1, o), fx_err); /* beyond the size */
    ASSERT(is_garbage(o));
    fx_check();
}

TEST(content_split_and_shared_object)
{
    struct kfs_content c = {0};
    const uint64_t mib = 1 << 20;
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t a = new_object(), b = new_object();
    struct kfs_extent x = {.off = 0, .len = 10 * mib, .object = a};
    ASSERT_OK(commit_extents(f, 10 * mib, &x, 1, a), fx_err);
    x = (struct kfs_extent){.off = 4 * mib, .len = 2 * mib, .object = b};
    ASSERT_OK(commit_extents(f, 10 * mib, &x, 1, b), fx_err);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    ASSERT_EQ(c.extent_count, 3);
    ASSERT(c.extents[0].off == 0 && c.extents[0].len == 4 * mib && c.extents[0].object == a);
    ASSERT(c.extents[1].off == 4 * mib && c.extents[1].len == 2 * mib && c.extents[1].object == b);
    ASSERT(c.extents[2].off == 6 * mib && c.extents[2].len == 4 * mib && c.extents[2].object_off == 6 * mib);
    kfs_content_release(&c);
    fx_check();
    /* the first part goes, then the last: only then is `a` garbage */
    x = (struct kfs_extent){.off = 0, .len = 4 * mib, .object = 0};
    ASSERT_OK(commit_extents(f, 10 * mib, &x, 1, 0), fx_err);
    ASSERT(!is_garbage(a));
    fx_check();
    ASSERT_OK(commit_extents(f, 5 * mib + 1, NULL, 0, 0), fx_err);
    ASSERT(is_garbage(a));
    ASSERT(!is_garbage(b));
    ASSERT_OK(commit_extents(f, 4 * mib, NULL, 0, 0), fx_err);
    ASSERT(is_garbage(b));
    fx_check();
}

TEST(content_garbage_waits_for_its_grace)
{
    struct kfs_meta_garbage g[4];
    uint64_t count, bytes;
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t o = new_object();
    struct kfs_extent x = {.off = 0, .len = 100, .object = o};
    ASSERT_OK(commit_extents(f, 100, &x, 1, o), fx_err);
    ASSERT_EQ(fx_unlink(NULL, 1, "f", false), 0);
    ASSERT_EQ(kfs_meta_garbage_list(fx_m, 0, 0, g, 4, &fx_err), 0); /* an orphan's content lives */
    ASSERT_OK(kfs_meta_orphan_purge(fx_m, f, &fx_err), fx_err);
    ASSERT_EQ(kfs_meta_garbage_list(fx_m, 3600, 0, g, 4, &fx_err), 0);
    ASSERT_OK(kfs_meta_garbage_sum(fx_m, 3600, &count, &bytes, &fx_err), fx_err);
    ASSERT_EQ(count + bytes, 0);
    ASSERT_EQ(kfs_meta_garbage_list(fx_m, 0, 0, g, 4, &fx_err), 1);
    ASSERT(g[0].id == o && g[0].bytes == 12345 && !g[0].doomed && g[0].since_s > 1500000000);
    ASSERT_EQ(kfs_meta_garbage_list(fx_m, 0, o, g, 4, &fx_err), 0); /* behind it */
    ASSERT_OK(kfs_meta_garbage_sum(fx_m, 0, &count, &bytes, &fx_err), fx_err);
    ASSERT(count == 1 && bytes == 12345);
    fx_check();
}

/* --- random deltas against a model ------------------------------------------------------------------------------ */

#define UNIT 65536u             /* the model's grain; 16 units a frame */
#define UNITS (24u * 16u)
#define FILES 3

struct model {
    uint64_t size; /* in units, or bytes when inline */
    bool is_inline;
    char text[64];
    uint64_t object[UNITS]; /* 0: hole */
    uint64_t object_unit[UNITS];
};
static struct model models[FILES];

static void model_check(kfs_ino_t ino, const struct model *m)
{
    struct kfs_content c = {0};
    ASSERT_OK(kfs_meta_content_get(fx_m, ino, &c, &fx_err), fx_err);
    if (m->is_inline) {
        ASSERT_EQ(c.size_bytes, strlen(m->text));
        ASSERT_EQ(c.extent_count, 0);
        ASSERT(c.is_inline && memcmp(c.inline_data, m->text, strlen(m->text)) == 0);
    } else {
        ASSERT_EQ(c.size_bytes, m->size * UNIT);
        ASSERT_EQ(c.is_inline, m->size == 0);
        uint64_t u = 0;
        for (size_t i = 0; i < c.extent_count; i++) {
            const struct kfs_extent *e = &c.extents[i];
            ASSERT_EQ(e->off % UNIT + e->len % UNIT + e->object_off % KFS_FRAME_BYTES + e->off % KFS_FRAME_BYTES, 0);
            for (; u < e->off / UNIT; u++)
                ASSERT_EQ(m->object[u], 0);
            for (; u < (e->off + e->len) / UNIT; u++) {
                ASSERT_EQ(m->object[u], e->object);
                ASSERT_EQ(m->object_unit[u], (e->object_off + u * UNIT - e->off) / UNIT);
            }
        }
        for (; u < UNITS; u++)
            ASSERT_EQ(m->object[u], 0);
    }
    kfs_content_release(&c);
}

/* One random delta, to the file and to the model. New objects are added to `made`. */
static void random_step(kfs_ino_t ino, struct model *m, unsigned *seed, uint64_t *made, size_t *made_count)
{
    struct kfs_extent x[8];
    size_t count = 0;
    if (rand_r(seed) % 12 == 0) {
        memset(m, 0, sizeof *m);
        m->is_inline = true;
        snprintf(m->text, sizeof m->text, "%.*s", rand_r(seed) % 30, "abcdefghijklmnopqrstuvwxyz012345");
        (void)commit_inline(ino, m->text);
        return;
    }
    m->is_inline = false;
    uint64_t size = (uint64_t)rand_r(seed) % (UNITS + 1);
    if (rand_r(seed) % 2 && m->size > 0)
        size = m->size;
    uint64_t object = rand_r(seed) % 4 ? new_object() : 0, object_unit = 0;
    uint64_t frames = (size + 15) / 16;
    for (uint64_t fr = 0; fr < frames && count < 8; fr += 1 + (uint64_t)rand_r(seed) % 6) {
        uint64_t n = 1 + (uint64_t)rand_r(seed) % 5;
        uint64_t from = fr * 16, to = (fr + n) * 16 < size ? (fr + n) * 16 : size;
        bool hole = !object || rand_r(seed) % 4 == 0;
        x[count++] = (struct kfs_extent){from * UNIT, (to - from) * UNIT, hole ? 0 : object, hole ? 0 : object_unit * UNIT};
        for (uint64_t u = from; u < to; u++) {
            m->object[u] = hole ? 0 : object;
            m->object_unit[u] = hole ? 0 : object_unit + (u - from);
        }
        object_unit += hole ? 0 : n * 16;
        fr += n - 1;
    }
    for (uint64_t u = size; u < UNITS; u++)
        m->object[u] = m->object_unit[u] = 0;
    m->size = size;
    if (object)
        made[(*made_count)++] = object;
    ASSERT_OK(commit_extents(ino, size * UNIT, x, count, object), fx_err);
}

TEST(content_random_deltas_against_a_model)
{
    static uint64_t made[4000];
    static struct kfs_meta_garbage garbage[4000];
    size_t made_count = 0;
    unsigned seed = 42;
    kfs_ino_t inos[FILES];
    fx_fresh();
    memset(models, 0, sizeof models);
    for (int i = 0; i < FILES; i++) {
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        inos[i] = fx_make(1, name, S_IFREG | 0644);
        models[i].is_inline = true;
    }
    for (int step = 0; step < 3000; step++) {
        int i = rand_r(&seed) % FILES;
        random_step(inos[i], &models[i], &seed, made, &made_count);
        model_check(inos[i], &models[i]);
        if (step % 750 == 749)
            fx_check();
    }
    /* An object is garbage exactly if no unit of any model names it. */
    int n = kfs_meta_garbage_list(fx_m, 0, 0, garbage, 4000, &fx_err);
    size_t g = 0;
    for (size_t k = 0; k < made_count; k++) {
        bool used = false;
        for (int i = 0; i < FILES; i++)
            for (unsigned u = 0; u < UNITS; u++)
                used |= models[i].object[u] == made[k];
        bool listed = g < (size_t)n && garbage[g].id == made[k]; /* both rise */
        g += listed;
        ASSERT_EQ(listed, !used);
        ASSERT_EQ(known(made[k]), 1);
    }
    ASSERT_EQ(g, n);
    /* Everything goes: everything is garbage. */
    for (int i = 0; i < FILES; i++) {
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        ASSERT_EQ(fx_unlink(NULL, 1, name, false), 0);
        ASSERT_OK(kfs_meta_orphan_purge(fx_m, inos[i], &fx_err), fx_err);
    }
    ASSERT_EQ(kfs_meta_garbage_list(fx_m, 0, 0, garbage, 4000, &fx_err), made_count);
    ASSERT_OK(kfs_meta_garbage_forget(fx_m, made, made_count, &fx_err), fx_err);
    ASSERT_EQ(kfs_meta_garbage_list(fx_m, 0, 0, garbage, 4000, &fx_err), 0);
    fx_check();
}

KT_MAIN
