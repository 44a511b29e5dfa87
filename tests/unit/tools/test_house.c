/* tools/common: housekeeping on a real database and a real store. */
#include "tools/common/house.h"
#include "tests/unit/kt.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[256], db[300], url[300];
static struct kfs_err err;
static struct kfs_house h;
static uint64_t used[8]; /* what the pretended fills read; 0 ends it */
static pid_t owner;

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void take_down(void)
{
    if (getpid() != owner)
        return;
    kfs_store_close(h.store);
    kfs_meta_close(h.meta);
    h.store = NULL;
    h.meta = NULL;
    (void)nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int in_use(void *arg, int (*cb)(void *cb_arg, uint64_t object), void *cb_arg)
{
    (void)arg;
    int rc = 0;
    for (size_t i = 0; rc == 0 && used[i]; i++)
        rc = cb(cb_arg, used[i]);
    return rc;
}

static void session_open(void)
{
    ASSERT_OK(kfs_meta_open(db, &h.meta, &err), err);
    ASSERT_OK(kfs_store_open(url, kfs_meta_volume(h.meta)->id, &h.store, &err), err);
    ASSERT_OK(kfs_meta_object_id(h.meta, &h.first_object, &err), err);
}

static void fresh(void)
{
    struct kfs_meta_volume v = {.name = "t"};
    if (owner)
        take_down();
    else
        atexit(take_down);
    owner = getpid();
    memset(&h, 0, sizeof h);
    memset(used, 0, sizeof used);
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/kfs-house.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    ASSERT(mkdtemp(dir) != NULL);
    snprintf(db, sizeof db, "%s/v.db", dir);
    snprintf(url, sizeof url, "file:%s/store", dir);
    snprintf(v.store, sizeof v.store, "%s", url);
    ASSERT_OK(kfs_meta_format(db, &v, 0, 0, &err), err);
    ASSERT_OK(kfs_store_format(url, v.id, &err), err);
    session_open();
    h.each_in_use = in_use;
}

static void session_again(void)
{
    kfs_store_close(h.store);
    kfs_meta_close(h.meta);
    session_open();
}

static int new_id(void *arg, uint64_t *ret, struct kfs_err *e)
{
    (void)arg;
    return kfs_meta_object_id(h.meta, ret, e);
}

static int count_one(void *arg, uint64_t object, uint64_t bytes)
{
    (void)object, (void)bytes;
    ++*(int *)arg;
    return 0;
}

static int stored(void)
{
    int n = 0;
    ASSERT_OK(kfs_store_each(h.store, count_one, &n, &err), err);
    return n;
}

static kfs_ino_t file_make(const char *name)
{
    struct kfs_attr a;
    ASSERT_OK(kfs_meta_create(h.meta, NULL, 1, name, strlen(name), S_IFREG | 0644, 0, NULL, NULL, 0, &a, &err), err);
    return a.ino;
}

/* New content for a file, in an object of its own. ino 0: the object is written, but the transaction never comes. */
static uint64_t write_object(kfs_ino_t ino, char fill)
{
    char path[300];
    static char bytes[20000];
    memset(bytes, fill, sizeof bytes);
    snprintf(path, sizeof path, "%s/content", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(fd >= 0 && write(fd, bytes, sizeof bytes) == sizeof bytes);
    struct kfs_content none = {.is_inline = true};
    struct kfs_content_delta *d = calloc(1, sizeof *d);
    ASSERT_OK(kfs_store_commit(h.store, fd, &none, new_id, NULL, false, d, &err), err);
    close(fd);
    uint64_t object = d->objects[0];
    if (ino)
        ASSERT_OK(kfs_meta_commit(h.meta, ino, d, 1, 1, NULL, &err), err);
    kfs_content_delta_release(d);
    free(d);
    return object;
}

static struct kfs_gc_result gc(struct kfs_gc_options o)
{
    struct kfs_gc_result r;
    ASSERT_OK(kfs_house_gc(&h, &o, &r, &err), err);
    return r;
}

TEST(gc_deletes_what_nothing_names_and_nothing_else)
{
    fresh();
    kfs_ino_t f = file_make("f"), g = file_make("g");
    uint64_t keep = write_object(f, 'a');
    (void)write_object(g, 'b');
    uint64_t last = write_object(g, 'c'); /* the one before is garbage now */
    ASSERT_EQ(stored(), 3);
    struct kfs_gc_result r = gc((struct kfs_gc_options){.grace_s = 0, .dry_run = true});
    ASSERT(r.objects == 1 && r.bytes > 0 && r.waiting == 0);
    ASSERT_EQ(stored(), 3);
    r = gc((struct kfs_gc_options){.grace_s = 3600});
    ASSERT(r.objects == 0 && r.waiting == 1 && r.waiting_bytes > 0);
    ASSERT_EQ(stored(), 3);
    r = gc((struct kfs_gc_options){.grace_s = 0});
    ASSERT_EQ(r.objects, 1);
    ASSERT_EQ(stored(), 2);
    ASSERT_OK(kfs_store_verify(h.store, keep, &err), err);
    ASSERT_OK(kfs_store_verify(h.store, last, &err), err);
    ASSERT_EQ(gc((struct kfs_gc_options){.grace_s = 0}).objects, 0);
}

TEST(gc_spares_what_a_fill_may_still_read)
{
    fresh();
    kfs_ino_t f = file_make("f");
    used[0] = write_object(f, 'a');
    (void)write_object(f, 'b');
    (void)write_object(f, 'c');
    struct kfs_gc_result r = gc((struct kfs_gc_options){.grace_s = 0});
    ASSERT(r.objects == 1 && r.in_use == 1);
    ASSERT_OK(kfs_store_verify(h.store, used[0], &err), err);
    used[0] = 0;
    ASSERT_EQ(gc((struct kfs_gc_options){.grace_s = 0}).objects, 1);
    ASSERT_EQ(stored(), 1);
}

TEST(gc_more_than_one_batch)
{
    fresh();
    kfs_ino_t f = file_make("f");
    struct kfs_content_delta *d = calloc(1, sizeof *d);
    uint64_t id, bytes = 10;
    for (int i = 0; i < 2500; i++) { /* named and given up, without bytes in the store: deleting them is fine */
        ASSERT_OK(kfs_meta_object_id(h.meta, &id, &err), err);
        struct kfs_extent x = {.len = 1, .object = id};
        *d = (struct kfs_content_delta){.size_bytes = 1, .changed = true, .extents = &x, .extent_count = 1, .objects = &id, .object_bytes = &bytes, .object_count = 1};
        ASSERT_OK(kfs_meta_commit(h.meta, f, d, 1, 1, NULL, &err), err);
    }
    free(d);
    struct kfs_gc_result r = gc((struct kfs_gc_options){.grace_s = 0, .dry_run = true});
    ASSERT(r.objects == 2499 && r.bytes == 24990);
    r = gc((struct kfs_gc_options){.grace_s = 0});
    ASSERT(r.objects == 2499 && r.bytes == 24990);
}

TEST(gc_stopped_goes_on_next_time)
{
    atomic_bool stop = true;
    struct kfs_gc_options o = {.grace_s = 0};
    struct kfs_gc_result r;
    fresh();
    kfs_ino_t f = file_make("f");
    (void)write_object(f, 'a');
    (void)write_object(f, 'b');
    h.stop = &stop;
    ASSERT_EQ(kfs_house_gc(&h, &o, &r, &err), -ECANCELED);
    ASSERT_EQ(stored(), 2);
    stop = false;
    ASSERT_EQ(gc(o).objects, 1);
    ASSERT_EQ(stored(), 1);
}

TEST(gc_full_finds_what_is_in_no_table)
{
    fresh();
    kfs_ino_t f = file_make("f");
    uint64_t keep = write_object(f, 'a');
    (void)write_object(0, 'x');
    struct kfs_gc_result r = gc((struct kfs_gc_options){.full = true});
    ASSERT(r.listed == 2 && r.unknown == 0); /* of this session: may be under way */
    ASSERT_EQ(stored(), 2);
    session_again();
    r = gc((struct kfs_gc_options){.full = true, .dry_run = true});
    ASSERT(r.listed == 2 && r.unknown == 1 && r.unknown_bytes > 0);
    ASSERT_EQ(stored(), 2);
    r = gc((struct kfs_gc_options){.full = true});
    ASSERT_EQ(r.unknown, 1);
    ASSERT_EQ(stored(), 1);
    ASSERT_OK(kfs_store_verify(h.store, keep, &err), err);
}

TEST(session_leaves_nothing_in_the_store_after_a_crash)
{
    uint64_t from = 0, n = 0;
    fresh();
    ASSERT_OK(kfs_house_session_begin(&h, false, &from, &err), err);
    ASSERT_EQ(from, h.first_object);
    uint64_t first = from;
    kfs_ino_t f = file_make("f");
    uint64_t keep = write_object(f, 'a');
    (void)write_object(0, 'x');
    (void)write_object(0, 'y');
    session_again(); /* no end: as after a crash */
    ASSERT_OK(kfs_house_session_begin(&h, true, &from, &err), err);
    ASSERT_EQ(from, first);
    uint64_t under_way = write_object(0, 'z'); /* the new session's: is let be */
    session_again();                           /* and another crash, before anybody looked */
    ASSERT_OK(kfs_house_session_begin(&h, true, &from, &err), err);
    ASSERT_EQ(from, first);
    uint64_t mine = write_object(0, 'm');
    ASSERT_EQ(stored(), 5);
    ASSERT_OK(kfs_house_session_sweep(&h, from, &n, &err), err);
    ASSERT(n >= 3);
    ASSERT_EQ(stored(), 2);
    ASSERT_OK(kfs_store_verify(h.store, keep, &err), err);
    ASSERT_OK(kfs_store_verify(h.store, mine, &err), err);
    ASSERT_EQ(kfs_store_verify(h.store, under_way, NULL), -EIO);
    /* A regular end: nothing is unsure. */
    ASSERT_OK(kfs_house_session_end(&h, &err), err);
    session_again();
    ASSERT_OK(kfs_house_session_begin(&h, false, &from, &err), err);
    ASSERT_EQ(from, h.first_object);
}

TEST(session_of_a_database_without_the_setting)
{
    uint64_t from = 0;
    fresh();
    ASSERT_OK(kfs_house_session_begin(&h, true, &from, &err), err);
    ASSERT_EQ(from, 1); /* written by an earlier version, which crashed */
    fresh();
    ASSERT_OK(kfs_meta_setting_set(h.meta, "objects_unsure_from", "99999999999999999999999", &err), err);
    ASSERT_OK(kfs_house_session_begin(&h, true, &from, &err), err);
    ASSERT_EQ(from, h.first_object);
}

KT_MAIN
