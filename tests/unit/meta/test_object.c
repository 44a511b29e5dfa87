/* meta: objects that several inodes share, commits in batches, the same bytes elsewhere, collecting, and what schema 1 becomes. */
#include "tests/unit/meta/fixture.h"

#include <sqlite3.h>
#include <stdlib.h>

#define MIB (1ULL << 20)

static uint64_t new_object(void)
{
    uint64_t id = 0;
    ASSERT_OK(kfs_meta_object_id(fx_m, &id, &fx_err), fx_err);
    return id;
}

static struct kfs_meta_object object_of(uint64_t id)
{
    struct kfs_meta_object o = {0};
    int n = kfs_meta_objects(fx_m, id - 1, &o, 1, &fx_err);
    ASSERT_OK(n, fx_err);
    return n == 1 && o.id == id ? o : (struct kfs_meta_object){0};
}

static bool is_garbage(uint64_t object)
{
    struct kfs_meta_garbage g;
    int n = kfs_meta_garbage_list(fx_m, 0, object - 1, &g, 1, &fx_err);
    ASSERT_OK(n, fx_err);
    return n == 1 && g.id == object;
}

/* A delta that makes a file of `len` bytes out of one frame in `object`. Static parts: one a call site at a time is in use per slot. */
struct member {
    struct kfs_content_delta d;
    struct kfs_extent x;
    uint64_t object, bytes;
};
static struct member *member_make(struct member *t, uint64_t object, uint64_t object_off, uint64_t len)
{
    memset(t, 0, sizeof *t);
    t->x = (struct kfs_extent){.off = 0, .len = len, .object = object, .object_off = object_off};
    t->object = object;
    t->bytes = 8 * MIB;
    t->d.changed = true;
    t->d.size_bytes = len;
    t->d.blocks = (len + 511) / 512;
    t->d.extents = &t->x;
    t->d.extent_count = 1;
    t->d.objects = &t->object;
    t->d.object_bytes = &t->bytes;
    t->d.object_count = 1;
    return t;
}

static int commit_member(kfs_ino_t ino, uint64_t object, uint64_t object_off, uint64_t len)
{
    static struct member t;
    return kfs_meta_commit(fx_m, ino, &member_make(&t, object, object_off, len)->d, 100, 7, NULL, &fx_err);
}

TEST(object_shared_by_many_inodes_lives_as_long_as_one_names_it)
{
    fx_fresh();
    kfs_ino_t f[3] = {fx_make(1, "a", S_IFREG | 0644), fx_make(1, "b", S_IFREG | 0644), fx_make(1, "c", S_IFREG | 0644)};
    uint64_t pack = new_object();
    ASSERT_OK(commit_member(f[0], pack, 0, 5000), fx_err);
    ASSERT_OK(commit_member(f[1], pack, 5000, 70001), fx_err);
    ASSERT_OK(commit_member(f[2], pack, 75001, 9), fx_err);
    struct kfs_meta_object o = object_of(pack);
    ASSERT(o.bytes == 8 * MIB && o.refs == 3 && o.live == 75010 && o.plain == 75010);
    fx_check();
    ASSERT_OK(commit_member(f[0], new_object(), 0, 4), fx_err);
    ASSERT_OK(commit_member(f[2], new_object(), 0, 4), fx_err);
    o = object_of(pack);
    ASSERT(o.refs == 1 && o.live == 70001 && o.plain == 75010);
    ASSERT(!is_garbage(pack));
    fx_check();
    ASSERT_OK(commit_member(f[1], new_object(), 0, 4), fx_err);
    ASSERT(is_garbage(pack));
    ASSERT_EQ(object_of(pack).id, 0);
    fx_check();
}

TEST(object_shrinking_extent_takes_live_bytes_away)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t o = new_object();
    ASSERT_OK(commit_member(f, o, 0, 8 * MIB), fx_err);
    struct kfs_content_delta *d = calloc(1, sizeof *d);
    d->changed = true;
    d->size_bytes = 3 * MIB + 17;
    ASSERT_OK(kfs_meta_commit(fx_m, f, d, 1, 1, NULL, &fx_err), fx_err);
    struct kfs_meta_object r = object_of(o);
    ASSERT(r.live == 3 * MIB + 17 && r.refs == 1 && r.plain == 8 * MIB);
    struct kfs_extent hole = {.off = MIB, .len = MIB};
    d->extents = &hole;
    d->extent_count = 1;
    ASSERT_OK(kfs_meta_commit(fx_m, f, d, 1, 1, NULL, &fx_err), fx_err);
    r = object_of(o);
    ASSERT(r.live == 2 * MIB + 17 && r.refs == 2 && r.plain == 8 * MIB);
    fx_check();
    free(d);
}

TEST(object_back_from_garbage_by_a_late_commit)
{
    fx_fresh();
    kfs_ino_t a = fx_make(1, "a", S_IFREG | 0644), b = fx_make(1, "b", S_IFREG | 0644);
    uint64_t pack = new_object();
    ASSERT_OK(commit_member(a, pack, 0, 1000), fx_err);
    ASSERT_OK(commit_member(a, new_object(), 0, 4), fx_err);
    ASSERT(is_garbage(pack));
    ASSERT_OK(commit_member(b, pack, 1000, 500), fx_err); /* was in the same pack all the time */
    ASSERT(!is_garbage(pack));
    struct kfs_meta_object o = object_of(pack);
    ASSERT(o.refs == 1 && o.live == 500 && o.plain == 1500);
    fx_check();
}

TEST(object_collected_cannot_be_named_by_a_late_commit)
{
    fx_fresh();
    kfs_ino_t a = fx_make(1, "a", S_IFREG | 0644), b = fx_make(1, "b", S_IFREG | 0644);
    uint64_t pack = new_object();
    ASSERT_OK(commit_member(a, pack, 0, 1000), fx_err);
    ASSERT_OK(commit_member(a, new_object(), 0, 4), fx_err);
    uint64_t ids[2] = {pack, pack + 1};
    ASSERT_EQ(kfs_meta_garbage_doom(fx_m, ids, 2, &fx_err), 1); /* the other one is in use */
    ASSERT_EQ(ids[0], pack);
    ASSERT_EQ(commit_member(b, pack, 1000, 500), -ESTALE);
    ASSERT(is_garbage(pack));
    ASSERT_OK(kfs_meta_garbage_forget(fx_m, ids, 1, &fx_err), fx_err);
    ASSERT_EQ(commit_member(b, pack, 1000, 500), -ESTALE);
    ASSERT_EQ(kfs_meta_object_known(fx_m, pack, &fx_err), 0);
    ASSERT_EQ(fx_attr(b).version, 0);
    fx_check();
}

TEST(commit_many_each_has_its_own_result)
{
    static struct member m[6];
    struct kfs_meta_commit_item t[6];
    memset(t, 0, sizeof t);
    fx_fresh();
    uint64_t pack = new_object();
    for (int i = 0; i < 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        t[i] = (struct kfs_meta_commit_item){.ino = fx_make(1, name, S_IFREG | 0644), .mtime_s = 50 + i};
        t[i].delta = &member_make(&m[i], pack, (uint64_t)i * 1000, 1000)->d;
    }
    t[1].ino = 999999;
    t[2].ino = 1;
    m[3].x.off = 77;
    m[4].x.object = pack + 1000; /* never heard of: shows only while it is done */
    kfs_meta_commit_many(fx_m, t, 6);
    const int want[6] = {0, -ENOENT, -EISDIR, -EINVAL, -EINVAL, 0};
    for (int i = 0; i < 6; i++)
        ASSERT_EQ(t[i].result, want[i]);
    ASSERT(t[0].attr.version == 1 && t[0].attr.size_bytes == 1000 && t[5].attr.mtime_s == 55);
    ASSERT(strstr(t[4].err.msg, "not known") != NULL);
    struct kfs_meta_object o = object_of(pack);
    ASSERT(o.refs == 2 && o.live == 2000 && o.plain == 2000);
    ASSERT_EQ(fx_attr(t[0].ino).version, 1);
    fx_check();
}

/* --- the same bytes elsewhere ------------------------------------------------------------------------------------ */

static int swap_one(kfs_ino_t ino, uint64_t version, const struct kfs_content *old, const struct kfs_extent *x, size_t count, uint64_t object)
{
    uint64_t bytes = 4321;
    struct kfs_meta_swap s = {.ino = ino, .version = version, .old = old, .extents = x, .extent_count = count, .objects = &object,
                              .object_bytes = &bytes, .object_count = object != 0};
    kfs_meta_content_swap(fx_m, &s, 1);
    fx_err = s.err;
    return s.result;
}

TEST(swap_moves_extents_and_buries_the_old)
{
    struct kfs_content c = {0};
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t a = new_object(), b = new_object(), n = new_object();
    ASSERT_OK(commit_member(f, a, 0, 4 * MIB), fx_err);
    static struct member t;
    member_make(&t, b, 0, MIB);
    t.x.off = 2 * MIB;
    t.d.size_bytes = 4 * MIB;
    ASSERT_OK(kfs_meta_commit(fx_m, f, &t.d, 1, 1, NULL, &fx_err), fx_err);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    ASSERT_EQ(c.extent_count, 3);
    struct kfs_attr before = fx_attr(f);
    struct kfs_extent x = {.off = 0, .len = 4 * MIB, .object = n};
    ASSERT_OK(swap_one(f, before.version, &c, &x, 1, n), fx_err);
    struct kfs_attr after = fx_attr(f);
    ASSERT_EQ(memcmp(&before, &after, sizeof after), 0);
    ASSERT(is_garbage(a) && is_garbage(b));
    struct kfs_meta_object o = object_of(n);
    ASSERT(o.refs == 1 && o.live == 4 * MIB && o.plain == 4 * MIB && o.bytes == 4321);
    fx_check();
    /* What it was given as old is old now. */
    ASSERT_EQ(swap_one(f, before.version, &c, &x, 1, n), -ESTALE);
    kfs_content_release(&c);
    fx_check();
}

TEST(swap_of_changed_content_changes_nothing)
{
    struct kfs_content c = {0};
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t a = new_object(), n = new_object();
    ASSERT_OK(commit_member(f, a, 0, 1000), fx_err);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    struct kfs_extent x = {.off = 0, .len = 1000, .object = n, .object_off = 333};
    ASSERT_EQ(swap_one(f, 0, &c, &x, 1, n), -ESTALE);
    ASSERT_EQ(swap_one(f + 1, 1, &c, &x, 1, n), -ENOENT);
    x.len = 1001; /* beyond the end */
    ASSERT_EQ(swap_one(f, 1, &c, &x, 1, n), -EINVAL);
    x.len = 1000;
    c.extents[0].object_off = 1;
    ASSERT_EQ(swap_one(f, 1, &c, &x, 1, n), -ESTALE);
    c.extents[0].object_off = 0;
    ASSERT_EQ(kfs_meta_object_known(fx_m, n, &fx_err), 0);
    ASSERT_OK(swap_one(f, 1, &c, &x, 1, n), fx_err);
    kfs_content_release(&c);
    fx_check();
}

TEST(swap_moves_inline_content_into_a_pack)
{
    struct kfs_content c = {0};
    struct kfs_content_delta *d = calloc(1, sizeof *d);
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    d->changed = d->to_inline = true;
    d->size_bytes = d->inline_len = 5;
    memcpy(d->inline_data, "hello", 5);
    ASSERT_OK(kfs_meta_commit(fx_m, f, d, 1, 1, NULL, &fx_err), fx_err);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    uint64_t n = new_object();
    struct kfs_extent x = {.off = 0, .len = 5, .object = n, .object_off = 12345};
    c.inline_data[0] = 'x';
    ASSERT_EQ(swap_one(f, 1, &c, &x, 1, n), -ESTALE);
    c.inline_data[0] = 'h';
    ASSERT_OK(swap_one(f, 1, &c, &x, 1, n), fx_err);
    kfs_content_release(&c);
    ASSERT_OK(kfs_meta_content_get(fx_m, f, &c, &fx_err), fx_err);
    ASSERT(!c.is_inline && c.extent_count == 1 && c.extents[0].object == n && c.extents[0].object_off == 12345);
    kfs_content_release(&c);
    fx_check();
    free(d);
}

TEST(swap_many_spares_those_that_can)
{
    enum { N = 4 };
    struct kfs_content c[N] = {{0}};
    struct kfs_extent x[N];
    struct kfs_meta_swap s[N];
    kfs_ino_t f[N];
    fx_fresh();
    uint64_t old = new_object(), n = new_object(), bytes = 99;
    for (int i = 0; i < N; i++) {
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        f[i] = fx_make(1, name, S_IFREG | 0644);
        ASSERT_OK(commit_member(f[i], old, (uint64_t)i * 100, 100), fx_err);
        ASSERT_OK(kfs_meta_content_get(fx_m, f[i], &c[i], &fx_err), fx_err);
        x[i] = (struct kfs_extent){.off = 0, .len = 100, .object = n, .object_off = (uint64_t)i * 100};
        s[i] = (struct kfs_meta_swap){.ino = f[i], .version = 1, .old = &c[i], .extents = &x[i], .extent_count = 1, .objects = &n,
                                      .object_bytes = &bytes, .object_count = 1};
    }
    ASSERT_OK(commit_member(f[1], new_object(), 0, 7), fx_err); /* a writer was faster */
    x[2].object = n + 500;                                      /* unknown: shows while it is done */
    kfs_meta_content_swap(fx_m, s, N);
    ASSERT_EQ(s[0].result, 0);
    ASSERT_EQ(s[1].result, -ESTALE);
    ASSERT_EQ(s[2].result, -EINVAL);
    ASSERT_EQ(s[3].result, 0);
    ASSERT(object_of(n).refs == 2 && object_of(n).live == 200 && object_of(old).refs == 1);
    for (int i = 0; i < N; i++)
        kfs_content_release(&c[i]);
    fx_check();
}

/* --- random commits, overwrites, unlinks, swaps against a recount ------------------------------------------------------ */

static void random_commit(kfs_ino_t ino, unsigned *seed, uint64_t pack)
{
    static struct member t;
    if (rand_r(seed) % 5 == 0) {
        memset(&t, 0, sizeof t);
        t.d.changed = t.d.to_inline = true;
        t.d.size_bytes = t.d.inline_len = (uint32_t)rand_r(seed) % 64;
    } else if (rand_r(seed) % 2) {
        member_make(&t, pack, (uint64_t)rand_r(seed) % (4 * MIB), 1 + (uint64_t)rand_r(seed) % MIB);
    } else {
        member_make(&t, new_object(), 0, 1 + (uint64_t)rand_r(seed) % MIB);
        t.x.off = (uint64_t)(rand_r(seed) % 8) * MIB;
        if (rand_r(seed) % 2) { /* not at the end: whole frames */
            t.x.len = MIB;
            t.d.size_bytes = t.x.off + 3 * MIB;
        } else {
            t.d.size_bytes = t.x.off + t.x.len;
        }
    }
    ASSERT_OK(kfs_meta_commit(fx_m, ino, &t.d, rand_r(seed) % 100, 0, NULL, &fx_err), fx_err);
}

/* The same bytes elsewhere: each extent gets a part of one new object. Now and then with a stale version. */
static void random_swap(kfs_ino_t ino, unsigned *seed)
{
    struct kfs_content c = {0};
    ASSERT_OK(kfs_meta_content_get(fx_m, ino, &c, &fx_err), fx_err);
    uint64_t n = new_object(), at = 0;
    struct kfs_extent *x = calloc(c.extent_count + 1, sizeof *x);
    size_t count = c.is_inline ? c.inline_len > 0 : c.extent_count;
    for (size_t i = 0; i < count; i++) {
        x[i] = c.is_inline ? (struct kfs_extent){.len = c.inline_len} : c.extents[i];
        x[i].object = n;
        x[i].object_off = at;
        at += x[i].len;
    }
    bool stale = rand_r(seed) % 4 == 0;
    int rc = swap_one(ino, fx_attr(ino).version + stale, &c, x, count, count ? n : 0);
    ASSERT_EQ(rc, stale ? -ESTALE : 0);
    free(x);
    kfs_content_release(&c);
}

static void random_collect(unsigned *seed)
{
    struct kfs_meta_garbage g[8];
    uint64_t ids[8];
    int n = kfs_meta_garbage_list(fx_m, 0, 0, g, 1 + (size_t)rand_r(seed) % 8, &fx_err);
    ASSERT_OK(n, fx_err);
    for (int i = 0; i < n; i++)
        ids[i] = g[i].id;
    n = kfs_meta_garbage_doom(fx_m, ids, (size_t)n, &fx_err);
    ASSERT_OK(n, fx_err);
    ASSERT_OK(kfs_meta_garbage_forget(fx_m, ids, (size_t)n, &fx_err), fx_err);
}

TEST(object_counts_hold_over_random_commits_unlinks_and_swaps)
{
    enum { FILES = 12 };
    unsigned seed = 7;
    kfs_ino_t f[FILES];
    char name[8];
    fx_fresh();
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%d", i);
        f[i] = fx_make(1, name, S_IFREG | 0644);
    }
    uint64_t pack = new_object();
    for (int step = 0; step < 2500; step++) {
        int i = rand_r(&seed) % FILES, what = rand_r(&seed) % 10;
        if (rand_r(&seed) % 16 == 0)
            pack = new_object();
        snprintf(name, sizeof name, "%d", i);
        if (what < 6)
            random_commit(f[i], &seed, pack);
        else if (what < 8)
            random_swap(f[i], &seed);
        else if (what < 9)
            pack = new_object(), random_collect(&seed);
        else {
            ASSERT_EQ(fx_unlink(NULL, 1, name, false), 0);
            ASSERT_OK(kfs_meta_orphan_purge(fx_m, f[i], &fx_err), fx_err);
            f[i] = fx_make(1, name, S_IFREG | 0644);
        }
        if (step % 250 == 249)
            fx_check(); /* recounts in SQL */
    }
}

/* --- ids that a crash may have left ----------------------------------------------------------------------------------- */

TEST(object_gaps_are_the_unknown_ids)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    uint64_t id[6];
    for (int i = 0; i < 6; i++)
        id[i] = new_object();
    ASSERT_OK(commit_member(f, id[1], 0, 10), fx_err);
    ASSERT_OK(commit_member(f, id[2], 0, 10), fx_err); /* [1] is garbage */
    ASSERT_OK(kfs_meta_garbage_forget(fx_m, &id[1], 1, &fx_err), fx_err);
    ASSERT_OK(commit_member(f, id[4], 0, 10), fx_err); /* [2] too */
    uint64_t from = id[0], got[8];
    ASSERT_EQ(kfs_meta_object_gaps(fx_m, &from, id[5] + 1, got, 8, &fx_err), 3);
    ASSERT(got[0] == id[0] && got[1] == id[3] && got[2] == id[5] && from == id[5] + 1);
    /* in small steps */
    from = id[0];
    ASSERT_EQ(kfs_meta_object_gaps(fx_m, &from, id[5] + 1, got, 2, &fx_err), 2);
    ASSERT(got[0] == id[0] && got[1] == id[3] && from > id[3] && from <= id[5]);
    ASSERT_EQ(kfs_meta_object_gaps(fx_m, &from, id[5] + 1, got, 2, &fx_err), 1);
    ASSERT(got[0] == id[5] && from == id[5] + 1);
    ASSERT_EQ(kfs_meta_object_gaps(fx_m, &from, id[5] + 1, got, 2, &fx_err), 0);
    from = id[0] + 1;
    ASSERT_EQ(kfs_meta_object_gaps(fx_m, &from, id[0] + 1, got, 2, &fx_err), 0);
}

/* --- from schema 1 ---------------------------------------------------------------------------------------------------- */

/* The tables as the first version made them, with a file of two extents, one that shares nothing, and garbage. */
static const char schema_1[] =
    "CREATE TABLE volume (one INTEGER PRIMARY KEY, schema INTEGER NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, store TEXT NOT NULL,"
    " created_s INTEGER NOT NULL);"
    "CREATE TABLE setting (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE counter (name TEXT NOT NULL PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE inode (ino INTEGER PRIMARY KEY, mode INTEGER NOT NULL, nlink INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,"
    " rdev INTEGER NOT NULL, size INTEGER NOT NULL, blocks INTEGER NOT NULL, version INTEGER NOT NULL, flags INTEGER NOT NULL,"
    " parent INTEGER NOT NULL, atime_s INTEGER NOT NULL, atime_ns INTEGER NOT NULL, mtime_s INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
    " ctime_s INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, btime_s INTEGER NOT NULL, btime_ns INTEGER NOT NULL, name BLOB);"
    "CREATE TABLE dentry (parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, type INTEGER NOT NULL,"
    " PRIMARY KEY (parent, name)) WITHOUT ROWID;"
    "CREATE TABLE orphan (ino INTEGER PRIMARY KEY, linkable INTEGER NOT NULL);"
    "CREATE TABLE symlink (ino INTEGER PRIMARY KEY, target BLOB NOT NULL);"
    "CREATE TABLE xattr (ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (ino, name)) WITHOUT ROWID;"
    "CREATE TABLE inline (ino INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE extent (ino INTEGER NOT NULL, off INTEGER NOT NULL, len INTEGER NOT NULL, object INTEGER NOT NULL,"
    " object_off INTEGER NOT NULL, PRIMARY KEY (ino, off)) WITHOUT ROWID;"
    "CREATE TABLE object (id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, refs INTEGER NOT NULL);"
    "CREATE TABLE garbage (id INTEGER PRIMARY KEY, since INTEGER NOT NULL);"
    "CREATE TABLE opdone (client BLOB NOT NULL PRIMARY KEY, seq INTEGER NOT NULL, status INTEGER NOT NULL, ino INTEGER NOT NULL,"
    " value INTEGER NOT NULL, at_s INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO volume VALUES(1,1,'3f0b8a3e-1111-4222-8333-444455556666','old','file:/nowhere',1700000000);"
    "INSERT INTO setting VALUES('session','clean');"
    "INSERT INTO counter VALUES('inode',4097),('object',4097);"
    "INSERT INTO inode VALUES(1,16877,2,0,0,0,4096,8,0,0,1,1,0,1,0,1,0,1,0,x''),"
    "(2,33188,1,0,0,0,6291556,0,3,0,0,1,0,1,0,1,0,1,0,NULL),(3,33188,1,0,0,0,5,0,1,0,0,1,0,1,0,1,0,1,0,NULL);"
    "INSERT INTO dentry VALUES(1,CAST('big' AS BLOB),2,8),(1,CAST('small' AS BLOB),3,8);"
    "INSERT INTO inline VALUES(3,CAST('hello' AS BLOB));"
    "INSERT INTO extent VALUES(2,0,2097152,10,0),(2,2097152,1048576,11,0),(2,3145728,3145828,10,3145728);"
    "INSERT INTO object VALUES(10,6292044,2),(11,1048720,1);"
    "INSERT INTO garbage VALUES(9,1700000000);";

TEST(schema_1_is_upgraded_at_open)
{
    struct kfs_content c = {0};
    struct kfs_meta_garbage g[2];
    fx_needs_file();
    kfs_meta_close(fx_m);
    fx_m = NULL;
    sqlite3 *db = NULL;
    ASSERT_EQ(sqlite3_open(fx_new_path(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, "PRAGMA application_id=1262900017", NULL, NULL, NULL), SQLITE_OK);
    char *text = NULL;
    ASSERT(sqlite3_exec(db, schema_1, NULL, NULL, &text) == SQLITE_OK || (printf("  %s\n", text), 0));
    sqlite3_close(db);
    fx_open();
    ASSERT_EQ(kfs_meta_volume(fx_m)->schema, 2);
    struct kfs_meta_object o = object_of(10);
    ASSERT(o.bytes == 6292044 && o.refs == 2 && o.live == 2097152 + 3145828);
    ASSERT(o.plain >= 6291556 && o.plain < 6291556 + 1024);
    ASSERT(object_of(11).live == MIB && object_of(11).plain == MIB);
    ASSERT_EQ(kfs_meta_garbage_list(fx_m, 0, 0, g, 2, &fx_err), 1);
    ASSERT(g[0].id == 9 && !g[0].doomed);
    ASSERT_OK(kfs_meta_content_get(fx_m, 2, &c, &fx_err), fx_err);
    ASSERT_EQ(c.extent_count, 3);
    kfs_content_release(&c);
    ASSERT_EQ(fx_ino(1, "small"), 3);
    fx_check(); /* closes and opens: the second opening finds schema 2 */
    ASSERT_OK(commit_member(2, new_object(), 0, 100), fx_err);
    ASSERT(is_garbage(10) && is_garbage(11));
    fx_check();
}

KT_MAIN
