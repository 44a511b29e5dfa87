#include "tools/common/volume.h"
#include "tests/unit/kfsd/client.h"
#include "base/pure/arrival.h"
#include <pthread.h>

#define MIB (1u << 20)

static struct client c;

static void run_kfsd(const char *more)
{
    FILE *f = fopen(in_dir("conf"), "w");
    ASSERT(f != NULL);
    fprintf(f, "stream_bytes = 1M\n%s\n", more);
    fclose(f);
    const char *line = start_with("--config", in_dir("conf"), NULL);
    if (strncmp(line, "ok ", 3) != 0)
        KT_FAIL("kfsd did not start: %s", line);
    ASSERT_EQ(hello(&c), 0);
}

static void begin(const char *more)
{
    set_up();
    run_kfsd(more);
}

static void again(int sig, const char *more)
{
    bye(&c);
    stop(sig);
    run_kfsd(more);
}

static void end(void)
{
    bye(&c);
    tear_down();
}

static unsigned char *pattern(uint64_t size, uint64_t seed)
{
    unsigned char *p = malloc(size);
    for (uint64_t i = 0; i < size; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        p[i] = (unsigned char)(seed >> 56);
    }
    return p;
}

/* A file that is not in the cache. */
static void put_cold(const char *path, const unsigned char *data, size_t size)
{
    int fd = k_open(&c, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ASSERT(fd >= 0);
    kfs_ino_t ino = last.rep.attr.ino;
    ASSERT_EQ(write(fd, data, size), size);
    ASSERT_EQ(k_close(&c, fd, ino), 0);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "evict", NULL), 0);
}

struct standin {
    int fd, partial;
    kfs_ino_t ino;
    uint64_t version, key, size;
    const struct kfs_arrival *map;
};

static int open_flags(struct client *k, const char *path, int oflags, uint32_t flags)
{
    last = (struct call){.q.op = KFS_OP_OPEN, .q.ino = KFS_INO_ROOT, .q.oflags = (uint32_t)oflags, .q.flags = flags, .path = path};
    int r = transact(k, &last);
    return r < 0 ? r : last.fd;
}

static struct standin standin_open(const char *path)
{
    struct standin s = {.fd = open_flags(&c, path, O_RDONLY, KFS_WIRE_STANDIN), .partial = -1};
    ASSERT(s.fd >= 0);
    ASSERT_EQ(last.rep.value, KFS_OPEN_STANDIN);
    s.ino = last.rep.attr.ino;
    s.version = last.rep.attr.version;
    s.size = last.rep.attr.size_bytes;
    char self[64], link[128];
    unsigned long long ino, version, key;
    snprintf(self, sizeof self, "/proc/self/fd/%d", s.fd);
    ssize_t n = readlink(self, link, sizeof link - 1);
    ASSERT(n > 0);
    link[n] = 0;
    ASSERT_EQ(sscanf(link, KFS_STANDIN_PREFIX "%llx-%llx-%llx (deleted)", &ino, &version, &key), 3);
    ASSERT_EQ(ino, s.ino);
    ASSERT_EQ(version, s.version);
    s.key = key;
    return s;
}

static int arrival(struct client *k, struct standin *s)
{
    last = (struct call){.q.op = KFS_OP_ARRIVAL, .q.ino = s->ino, .q.value = s->version, .q.value2 = s->key};
    int r = transact(k, &last);
    if (r < 0)
        return r;
    ASSERT(last.fd >= 0 && last.fd2 >= 0);
    size_t bytes = kfs_arrival_bytes(s->size);
    ASSERT(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, last.fd, 0) == MAP_FAILED);
    s->map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, last.fd, 0);
    ASSERT(s->map != MAP_FAILED);
    close(last.fd);
    s->partial = last.fd2;
    ASSERT_EQ(fcntl(s->partial, F_GETFL) & O_ACCMODE, O_RDONLY);
    ASSERT_EQ(s->map->magic, KFS_ARRIVAL_MAGIC);
    ASSERT_EQ(s->map->ino, s->ino);
    ASSERT_EQ(s->map->content_version, s->version);
    ASSERT_EQ(s->map->size_bytes, s->size);
    return 0;
}

static int want(struct client *k, const struct standin *s, uint64_t off, uint64_t len)
{
    last = (struct call){.q.op = KFS_OP_WANT, .q.ino = s->ino, .q.value = s->version, .q.ino2 = s->key, .q.value2 = off, .q.size_bytes = len};
    return transact(k, &last);
}

static int settle(struct client *k, const struct standin *s)
{
    last = (struct call){.q.op = KFS_OP_SETTLE, .q.ino = s->ino, .q.value = s->version, .q.value2 = s->key, .q.oflags = O_RDONLY};
    int r = transact(k, &last);
    return r < 0 ? r : last.fd;
}

static void standin_end(struct standin *s)
{
    if (s->map)
        munmap((void *)(uintptr_t)s->map, kfs_arrival_bytes(s->size));
    if (s->partial >= 0)
        close(s->partial);
    close(s->fd);
}

static void same(int fd, const unsigned char *data, uint64_t off, size_t len)
{
    unsigned char *got = malloc(len);
    ssize_t n = pread(fd, got, len, (off_t)off);
    bool ok = n == (ssize_t)len && memcmp(got, data + off, len) == 0;
    free(got);
    if (!ok)
        KT_FAIL("%zu bytes at %llu differ (read gave %zd)", len, (unsigned long long)off, n);
}

static unsigned frames_here(const struct standin *s)
{
    unsigned n = 0;
    for (uint64_t i = 0; i < s->map->frame_count; i++)
        n += (unsigned)kfs_arrival_has(s->map, i);
    return n;
}

TEST(standin_is_read_while_it_arrives_and_settled)
{
    begin("");
    size_t size = 20 * MIB + 777;
    unsigned char *data = pattern(size, 1);
    put_cold("f", data, size);
    struct standin s = standin_open("f");
    ASSERT_EQ(s.size, size);
    ASSERT_EQ(arrival(&c, &s), 0);
    ASSERT_EQ(frames_here(&s), 0);
    ASSERT_EQ(want(&c, &s, 7 * MIB + 5, 10), 0);
    ASSERT_EQ(last.rep.value, 0);
    ASSERT(kfs_arrival_has(s.map, 7));
    same(s.partial, data, 7 * MIB, MIB);
    /* Out of the middle: nobody can tell what comes next. */
    ASSERT_EQ(frames_here(&s), 1);
    ASSERT_EQ(want(&c, &s, 20 * MIB, 777), 0);
    same(s.partial, data, 20 * MIB, 777);
    ASSERT_EQ(want(&c, &s, size, 100), 0);
    int fd = settle(&c, &s);
    ASSERT(fd >= 0);
    same(fd, data, 0, size);
    ASSERT_EQ(frames_here(&s), 21);
    ASSERT_EQ(s.map->state, KFS_ARRIVAL_WHOLE);
    close(fd);
    fd = open_flags(&c, "f", O_RDONLY, KFS_WIRE_STANDIN);
    ASSERT(fd >= 0);
    ASSERT_EQ(last.rep.value, 0); /* whole: a genuine descriptor */
    ASSERT(last.rep.attr.flags & KFS_ATTR_CACHED);
    close(fd);
    standin_end(&s);
    free(data);
    end();
}

TEST(only_large_cold_files_for_those_who_can_are_standins)
{
    begin("");
    unsigned char *data = pattern(3 * MIB, 2);
    put_cold("small", data, MIB);
    int fd = open_flags(&c, "small", O_RDONLY, KFS_WIRE_STANDIN);
    ASSERT(fd >= 0);
    ASSERT_EQ(last.rep.value, 0);
    same(fd, data, 0, MIB);
    close(fd);
    const struct { int oflags; uint32_t flags; } plain[] = {
        {O_RDONLY, 0}, {O_RDONLY | O_PATH, KFS_WIRE_STANDIN}, {O_RDWR, KFS_WIRE_STANDIN}, {O_RDONLY, KFS_WIRE_STANDIN | KFS_WIRE_EXEC}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        put_cold("large", data, 3 * MIB);
        if (plain[i].flags & KFS_WIRE_EXEC) {
            last = (struct call){.q.op = KFS_OP_SETATTR, .q.ino = KFS_INO_ROOT, .q.valid = KFS_SET_MODE, .q.mode = 0755, .path = "large"};
            ASSERT_EQ(transact(&c, &last), 0);
        }
        fd = open_flags(&c, "large", plain[i].oflags, plain[i].flags);
        ASSERT(fd >= 0);
        ASSERT_EQ(last.rep.value & KFS_OPEN_STANDIN, 0);
        if (!(plain[i].oflags & O_PATH))
            same(fd, data, 0, 3 * MIB);
        close(fd);
        until_status(&c, "\"live\":0");
    }
    again(SIGTERM, "");
    FILE *f = fopen(in_dir("conf"), "w");
    fprintf(f, "stream_bytes = 0\n");
    fclose(f);
    bye(&c);
    stop(SIGTERM);
    ASSERT(strncmp(start_with("--config", in_dir("conf"), NULL), "ok ", 3) == 0);
    ASSERT_EQ(hello(&c), 0);
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    fd = open_flags(&c, "large", O_RDONLY, KFS_WIRE_STANDIN);
    ASSERT(fd >= 0);
    ASSERT_EQ(last.rep.value, 0);
    same(fd, data, 0, 3 * MIB);
    close(fd);
    free(data);
    end();
}

TEST(a_new_kfsd_goes_on_with_standins_of_the_one_that_was_killed)
{
    begin("");
    size_t size = 6 * MIB;
    unsigned char *data = pattern(size, 3);
    put_cold("f", data, size);
    struct standin s = standin_open("f"), t = standin_open("f");
    ASSERT(s.key != t.key);
    ASSERT_EQ(arrival(&c, &s), 0);
    ASSERT_EQ(want(&c, &s, 3 * MIB, 1), 0);
    again(SIGKILL, "");
    same(s.partial, data, 3 * MIB, MIB); /* what was here still is */
    ASSERT_EQ(want(&c, &s, 4 * MIB, 1), 0);
    ASSERT_EQ(last.rep.value, 1); /* but the map is a dead one's */
    struct standin u = s;
    ASSERT_EQ(arrival(&c, &u), 0);
    ASSERT(kfs_arrival_has(u.map, 4));
    ASSERT_EQ(want(&c, &u, 5 * MIB, 1), 0);
    ASSERT_EQ(last.rep.value, 0);
    same(u.partial, data, 4 * MIB, 2 * MIB);
    int fd = settle(&c, &t);
    ASSERT(fd >= 0);
    same(fd, data, 0, size);
    close(fd);
    /* Whole already: the map says so. */
    again(SIGTERM, "");
    struct standin w = t;
    ASSERT_EQ(arrival(&c, &w), 0);
    ASSERT_EQ(w.map->state, KFS_ARRIVAL_WHOLE);
    ASSERT_EQ(frames_here(&w), 6);
    standin_end(&u);
    standin_end(&w);
    munmap((void *)(uintptr_t)s.map, kfs_arrival_bytes(size));
    close(s.partial);
    free(data);
    end();
}

TEST(removed_and_overwritten_files_are_read_to_their_end)
{
    begin("download_bytes_per_s = 20M");
    size_t size = 8 * MIB;
    unsigned char *data = pattern(size, 4);
    put_cold("gone", data, size);
    put_cold("over", data, size);
    struct standin g = standin_open("gone"), o = standin_open("over");
    ASSERT_EQ(simple(&c, KFS_OP_UNLINK, "gone", 0), 0);
    ASSERT_EQ(put(&c, "over", "new"), 0);
    ASSERT_EQ(arrival(&c, &o), 0);
    ASSERT_EQ(want(&c, &o, 0, size), 0);
    same(o.partial, data, 0, size);
    ASSERT_STR(get(&c, "over"), "new");
    int fd = settle(&c, &o);
    ASSERT(fd >= 0);
    same(fd, data, 0, size);
    close(fd);
    fd = settle(&c, &g);
    ASSERT(fd >= 0);
    same(fd, data, 0, size);
    close(fd);
    standin_end(&g);
    standin_end(&o);
    /* Nobody has them any more: the inode goes, with its cache file. */
    until_status(&c, "\"orphans\":0");
    last = (struct call){.q.op = KFS_OP_LOOKUP, .q.ino = g.ino};
    for (int i = 0; i < 1000 && transact(&c, &last) != -ENOENT; i++) {
        usleep(10000);
        last = (struct call){.q.op = KFS_OP_LOOKUP, .q.ino = g.ino};
    }
    ASSERT_EQ(last.rep.status, -ENOENT);
    ASSERT_STR(get(&c, "over"), "new");
    free(data);
    end();
}

TEST(what_is_nowhere_any_more_is_estale)
{
    begin("");
    size_t size = 3 * MIB;
    unsigned char *data = pattern(size, 5);
    put_cold("f", data, size);
    struct standin s = standin_open("f");
    ASSERT_EQ(put(&c, "f", "new"), 0);
    again(SIGKILL, "");
    ASSERT_EQ(want(&c, &s, 0, 1), -ESTALE);
    ASSERT_EQ(settle(&c, &s), -ESTALE);
    ASSERT_EQ(arrival(&c, &s), -ESTALE);
    struct standin none = s;
    none.ino = 0x7777;
    ASSERT_EQ(want(&c, &none, 0, 1), -ESTALE);
    none.key ^= 1ULL << 60; /* another volume's */
    ASSERT_EQ(want(&c, &none, 0, 1), -ESTALE);
    ASSERT_STR(get(&c, "f"), "new");
    standin_end(&s);
    free(data);
    end();
}

/* Flip a byte in the middle of the largest object. */
static char damaged_path[1024];
static off_t damaged_size;
static int largest(const char *p, const struct stat *st, int type, struct FTW *f)
{
    (void)f;
    if (type == FTW_F && st->st_size > damaged_size) {
        damaged_size = st->st_size;
        snprintf(damaged_path, sizeof damaged_path, "%s", p);
    }
    return 0;
}

TEST(a_damaged_frame_is_eio_and_the_others_are_read)
{
    begin("");
    size_t size = 8 * MIB;
    unsigned char *data = pattern(size, 6);
    put_cold("f", data, size);
    damaged_size = 0;
    nftw(in_dir("v.db.objects"), largest, 16, FTW_PHYS);
    ASSERT(damaged_size > (off_t)size);
    int fd = open(damaged_path, O_RDWR);
    ASSERT(fd >= 0);
    unsigned char byte, flipped;
    ASSERT_EQ(pread(fd, &byte, 1, 3 * MIB + 1000), 1);
    flipped = byte ^ 4;
    ASSERT_EQ(pwrite(fd, &flipped, 1, 3 * MIB + 1000), 1);
    struct standin s = standin_open("f");
    ASSERT_EQ(arrival(&c, &s), 0);
    ASSERT_EQ(want(&c, &s, 3 * MIB, 1), -EIO);
    ASSERT_EQ(s.map->state, KFS_ARRIVAL_FAILED);
    ASSERT_EQ(s.map->error, EIO);
    ASSERT_EQ(want(&c, &s, 2 * MIB, 1), 0);
    ASSERT_EQ(want(&c, &s, 4 * MIB, 4 * MIB), 0);
    ASSERT_EQ(settle(&c, &s), -EIO);
    same(s.partial, data, 4 * MIB, 4 * MIB);
    /* The object is put right: the next try finds it so. */
    ASSERT_EQ(pwrite(fd, &byte, 1, 3 * MIB + 1000), 1);
    close(fd);
    ASSERT_EQ(want(&c, &s, 3 * MIB, 1), 0);
    same(s.partial, data, 2 * MIB, 6 * MIB);
    fd = settle(&c, &s);
    ASSERT(fd >= 0);
    same(fd, data, 0, size);
    close(fd);
    standin_end(&s);
    free(data);
    end();
}

struct waiter {
    struct client k;
    struct standin s;
    uint64_t off;
    int result;
    pthread_t thread;
};

static void *wait_for(void *arg)
{
    struct waiter *w = arg;
    struct call k = {.q.op = KFS_OP_WANT, .q.ino = w->s.ino, .q.value = w->s.version, .q.ino2 = w->s.key, .q.value2 = w->off, .q.size_bytes = 1};
    w->result = transact(&w->k, &k);
    return NULL;
}

#define WAITERS 100

TEST(many_who_wait_do_not_keep_others_from_being_served)
{
    begin("");
    size_t size = 4 * MIB;
    unsigned char *data = pattern(size, 7);
    put_cold("f", data, size);
    ASSERT_EQ(control(&c, "set", "download_bytes_per_s=1"), 0);
    struct standin s = standin_open("f");
    static struct waiter w[WAITERS];
    for (int i = 0; i < WAITERS; i++) {
        ASSERT_EQ(hello(&w[i].k), 0);
        w[i].s = s;
        w[i].off = (uint64_t)(i % 4) * MIB;
        ASSERT_EQ(pthread_create(&w[i].thread, NULL, wait_for, &w[i]), 0);
    }
    for (int i = 0; i < 1000; i++) {
        ASSERT_EQ(control(&c, "stats", NULL), 0);
        if (strstr(last.out, "\"WANT\":100"))
            break;
        usleep(10000);
    }
    ASSERT(strstr(last.out, "\"WANT\":100"));
    ASSERT_EQ(put(&c, "other", "served"), 0);
    ASSERT_STR(get(&c, "other"), "served");
    ASSERT_EQ(control(&c, "set", "download_bytes_per_s=0"), 0);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(w[i].thread, NULL);
        ASSERT_EQ(w[i].result, 0);
        bye(&w[i].k);
    }
    ASSERT_EQ(arrival(&c, &s), 0);
    same(s.partial, data, 0, size);
    standin_end(&s);
    free(data);
    end();
}

TEST(an_ending_kfsd_leaves_its_waiters_to_the_next)
{
    begin("");
    size_t size = 4 * MIB;
    unsigned char *data = pattern(size, 8);
    put_cold("f", data, size);
    ASSERT_EQ(control(&c, "set", "download_bytes_per_s=1"), 0);
    struct standin s = standin_open("f");
    ASSERT_EQ(want(&c, &s, 2 * MIB, 1), 0); /* goes into debt */
    static struct waiter w;
    memset(&w, 0, sizeof w);
    ASSERT_EQ(hello(&w.k), 0);
    w.s = s;
    ASSERT_EQ(pthread_create(&w.thread, NULL, wait_for, &w), 0);
    for (int i = 0; i < 1000; i++) {
        ASSERT_EQ(control(&c, "stats", NULL), 0);
        if (strstr(last.out, "\"WANT\":2"))
            break;
        usleep(10000);
    }
    again(SIGTERM, "");
    pthread_join(w.thread, NULL);
    ASSERT_EQ(w.result, -1000); /* no answer: ask again */
    bye(&w.k);
    ASSERT_EQ(want(&c, &s, 0, 1), 0);
    standin_end(&s);
    free(data);
    end();
}

static unsigned objects_read(void)
{
    ASSERT_EQ(control(&c, "stats", NULL), 0);
    const char *p = strstr(last.out, "\"fetch\":{\"gets\":");
    ASSERT(p != NULL);
    return (unsigned)strtoul(p + strlen("\"fetch\":{\"gets\":"), NULL, 10);
}

enum { SMALL = 200, SMALL_BYTES = 20000 };

static int new_id(void *arg, uint64_t *ret_id, struct kfs_err *err)
{
    return kfs_meta_object_id(arg, ret_id, err);
}

/* Many small files in as few packs as can be, as by a session that writes them together. No kfsd has the volume open. */
static void write_packed(const unsigned char *data)
{
    static struct kfs_commit *k[SMALL];
    static struct kfs_attr a[SMALL];
    struct kfs_err err = {0};
    struct kfs_volume *v = NULL;
    char url[600], name[32];
    snprintf(url, sizeof url, "sqlite:%s", in_dir("v.db"));
    const struct kfs_volume_options o = {.without_cache = true};
    ASSERT_OK(kfs_volume_open(url, &o, &v, &err), err);
    const struct kfs_commit_options how = {.new_id = new_id, .arg = v->meta};
    for (int i = 0; i < SMALL; i++) {
        struct kfs_content none = {.is_inline = true};
        snprintf(name, sizeof name, "s%d", i);
        ASSERT_OK(kfs_meta_create(v->meta, NULL, KFS_INO_ROOT, name, strlen(name), S_IFREG | 0644, 0, NULL, NULL, 0, &a[i], &err), err);
        int fd = open(in_dir("content"), O_RDWR | O_CREAT | O_TRUNC, 0600);
        ASSERT_EQ(write(fd, data + i, SMALL_BYTES), SMALL_BYTES);
        struct kfs_commit_options each = how;
        each.ino = a[i].ino;
        ASSERT_OK(kfs_store_commit_begin(v->store, fd, &none, &each, &k[i], &err), err);
        close(fd);
    }
    for (int i = 0; i < SMALL; i++) {
        struct kfs_content_delta *d = calloc(1, sizeof *d);
        ASSERT_OK(kfs_store_commit_wait(k[i], d, &err), err);
        ASSERT_OK(kfs_meta_commit(v->meta, a[i].ino, d, 1700000000, 0, &a[i], &err), err);
        kfs_content_delta_release(d);
        free(d);
    }
    kfs_volume_close(v, true);
}

TEST(small_files_bring_their_pack_along)
{
    begin("");
    bye(&c);
    stop(SIGTERM);
    unsigned char *data = pattern(SMALL_BYTES + SMALL, 9);
    write_packed(data);
    run_kfsd("");
    unsigned before = objects_read();
    char name[32];
    for (int i = 0; i < SMALL; i++) {
        int n = i * 67 % SMALL;
        snprintf(name, sizeof name, "s%d", n);
        int fd = k_open(&c, name, O_RDONLY, 0);
        ASSERT(fd >= 0);
        same(fd, data + n, 0, SMALL_BYTES);
        close(fd);
    }
    unsigned gets = objects_read() - before;
    printf("  %u gets for %d files\n", gets, SMALL);
    ASSERT(gets < SMALL); /* how many fewer depends on who is quicker, this reader or the neighbours */
    /* No byte comes twice: what was stored, and the indexes. */
    const char *p = strstr(last.out, "\"bytes\":");
    ASSERT(p && strtoull(p + 8, NULL, 10) < (uint64_t)SMALL * SMALL_BYTES * 105 / 100);
    /* One that was written meanwhile is not taken from the pack. */
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_EQ(put(&c, "s7", "changed"), 0);
    for (int n = 0; n < 20; n++) {
        snprintf(name, sizeof name, "s%d", n);
        if (n == 7)
            ASSERT_STR(get(&c, name), "changed");
        else
            ASSERT(get(&c, name)[0] == (char)data[n]);
    }
    ASSERT_STR(get(&c, "s7"), "changed");
    free(data);
    end();
}

KT_MAIN
