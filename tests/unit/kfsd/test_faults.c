/* kfsd is killed at each of its fault points in turn, in the middle of a script of changes; the client goes on as the shim does: it reconnects and sends the
 * same request again. At the end the tree must be what it is without any fault, byte for byte, also without the cache. */
#include "tests/unit/kfsd/client.h"

static struct client c;

static const char *const points[] = {
    "op.before",       "op.before_answer", "answer.before",   "create.before",   "create.after",   "open.live",      "fill.begin",
    "fill.before_end", "commit.before",    "commit.objects",  "commit.meta",     "settle.committed", "settle.renamed", "unlink.before",
    "unlink.after",    "rename.before",    "rename.after",    "link.before",     "link.after",     "setattr.before", "setattr.after",
    "xattr.before",    "xattr.after",      "orphan.before",   "orphan.dropped",
    "cache.fill.end",  "cache.to_clean",  "meta.commit.before", "meta.commit.after", "store.object.renamed", "store.object.rename", "store.object.write",
    "meta.commit",
};

static void restart(void)
{
    uint64_t id[2] = {c.id[0], c.id[1]}, seq = c.seq;
    close(c.fd);
    close(c.segment_fd);
    close(c.stats_fd);
    int status = stop(SIGKILL);
    ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    unsetenv("KFS_FAULT");
    start();
    ASSERT_EQ(hello(&c), 0);
    memcpy(c.id, id, sizeof id);
    c.seq = seq;
}

/* The request again and again until it is answered. */
static int sure(struct call *k)
{
    int r = transact(&c, k);
    while (r == -1000) {
        restart();
        k->q.flags |= KFS_WIRE_RETRY;
        r = transact(&c, k);
    }
    return r;
}

static struct call k;

static int op(enum kfs_wire_op o, const char *path, const char *path2, uint64_t value)
{
    k = (struct call){.q.op = (uint16_t)o, .q.ino = KFS_INO_ROOT, .q.ino2 = KFS_INO_ROOT, .q.mode = 0755, .q.value = value, .path = path, .path2 = path2};
    return sure(&k);
}

static void write_file(const char *path, int flags, const char *text, size_t repeat, off_t at)
{
    k = (struct call){.q.op = KFS_OP_OPEN, .q.ino = KFS_INO_ROOT, .q.mode = 0644, .q.oflags = (uint32_t)flags, .path = path};
    ASSERT_EQ(sure(&k), 0);
    int fd = k.fd;
    kfs_ino_t ino = k.rep.attr.ino;
    for (size_t i = 0; i < repeat; i++)
        ASSERT_EQ(pwrite(fd, text, strlen(text), at + (off_t)(i * strlen(text))), strlen(text));
    k = (struct call){.q.op = KFS_OP_CLOSE, .q.ino = ino};
    ASSERT_EQ(sure(&k), 0);
    close(fd);
}

static void settled(void)
{
    for (int i = 0; i < 1000; i++) {
        k = (struct call){.q.op = KFS_OP_CONTROL, .path = "status"};
        ASSERT_EQ(sure(&k), 0);
        if (strstr(k.out, "\"live\":0") && strstr(k.out, "\"orphans\":0"))
            return;
        usleep(10000);
    }
    KT_FAIL("never settled: %s", k.out);
}

static void evict(void)
{
    k = (struct call){.q.op = KFS_OP_CONTROL, .path = "evict"};
    ASSERT_EQ(sure(&k), 0);
}

static void expect(const char *path, const char *text, size_t repeat)
{
    k = (struct call){.q.op = KFS_OP_OPEN, .q.ino = KFS_INO_ROOT, .q.oflags = O_RDONLY, .path = path};
    ASSERT_EQ(sure(&k), 0);
    int fd = k.fd;
    size_t len = strlen(text);
    char b[64];
    for (size_t i = 0; i < repeat; i++) {
        ASSERT_EQ(pread(fd, b, len, (off_t)(i * len)), len);
        ASSERT(memcmp(b, text, len) == 0);
    }
    ASSERT_EQ(pread(fd, b, 1, (off_t)(repeat * len)), 0);
    close(fd);
}

static void script(void)
{
    ASSERT_EQ(op(KFS_OP_MKDIR, "d", NULL, 0), 0);
    write_file("d/small", O_WRONLY | O_CREAT | O_EXCL, "small", 1, 0);
    write_file("d/big", O_WRONLY | O_CREAT, "0123456789abcdef", 20000, 0);
    settled();
    evict();
    write_file("d/big", O_WRONLY, "0123456789abcdef", 100, 20000 * 16); /* filled first */
    write_file("d/old", O_WRONLY | O_CREAT, "old", 1, 0);
    write_file("d/tmp", O_WRONLY | O_CREAT | O_TRUNC, "new", 1, 0);
    ASSERT_EQ(op(KFS_OP_RENAME, "d/tmp", "d/old", 0), 0);
    ASSERT_EQ(op(KFS_OP_LINK, "d/small", "d/second", 0), 0);
    k = (struct call){.q.op = KFS_OP_SETATTR, .q.ino = KFS_INO_ROOT, .path = "d/second", .q.valid = KFS_SET_MODE | KFS_SET_MTIME, .q.mode = 0711,
                      .q.mtime_s = 77};
    ASSERT_EQ(sure(&k), 0);
    k = (struct call){.q.op = KFS_OP_SETXATTR, .q.ino = KFS_INO_ROOT, .path = "d", .path2 = "user.x", .data = "y", .data_len = 1};
    ASSERT_EQ(sure(&k), 0);
    write_file("d/gone", O_WRONLY | O_CREAT, "gone", 1, 0);
    ASSERT_EQ(op(KFS_OP_UNLINK, "d/gone", NULL, 0), 0);
    settled();
}

static void verify(void)
{
    for (int round = 0; round < 2; round++) {
        expect("d/small", "small", 1);
        expect("d/second", "small", 1);
        expect("d/big", "0123456789abcdef", 20100);
        expect("d/old", "new", 1);
        ASSERT_EQ(op(KFS_OP_LOOKUP, "d/second", NULL, 0), 0);
        ASSERT_EQ(k.rep.attr.nlink, 2);
        ASSERT_EQ(k.rep.attr.mtime_s, 77);
        ASSERT_EQ(k.rep.attr.mode & 07777, 0711);
        ASSERT_EQ(op(KFS_OP_LOOKUP, "d/tmp", NULL, 0), -ENOENT);
        ASSERT_EQ(op(KFS_OP_LOOKUP, "d/gone", NULL, 0), -ENOENT);
        ASSERT_EQ(op(KFS_OP_GETXATTR, "d", "user.x", 0), 0);
        ASSERT_EQ(op(KFS_OP_LOOKUP, "d", NULL, 0), 0);
        ASSERT_EQ(k.rep.attr.nlink, 2);
        settled();
        evict();
    }
    /* nothing was set aside */
    char lost[KFS_PATH_MAX + 8];
    snprintf(lost, sizeof lost, "%s/lost", c.hello.cache_dir);
    DIR *d = opendir(lost);
    for (struct dirent *e; d && (e = readdir(d));)
        ASSERT(e->d_name[0] == '.');
    if (d)
        closedir(d);
}

/* Passages before the script begins: HELLO, and the transactions of a start. */
static int first_passage(const char *point)
{
    return strncmp(point, "meta.", 5) == 0 ? 8 : strncmp(point, "op.", 3) == 0 || strncmp(point, "answer.", 7) == 0 ? 1 : 0;
}

/* Does this kfsd have fault points? A killed start proves it. */
static bool has_faults(void)
{
    set_up();
    setenv("KFS_FAULT", "op.before:1", 1);
    start();
    bool has = hello(&c) == -1000;
    unsetenv("KFS_FAULT");
    stop(SIGKILL);
    return has;
}

TEST(kfsd_killed_at_each_point_loses_nothing)
{
    if (!has_faults())
        SKIP("kfsd is built without fault points");
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        for (int nth = 1; nth <= 4; nth += 3) {
            char fault[64];
            set_up();
            start();
            stop(SIGTERM); /* formatted */
            snprintf(fault, sizeof fault, "%s:%d", points[i], first_passage(points[i]) + nth);
            setenv("KFS_FAULT", fault, 1);
            start();
            printf("  %s\n", fault);
            ASSERT_EQ(hello(&c), 0);
            script();
            verify();
            unsetenv("KFS_FAULT");
            bye(&c);
            tear_down();
        }
    }
}

TEST(failed_commit_is_told_and_tried_again)
{
    if (!has_faults())
        SKIP("kfsd is built without fault points");
    set_up();
    setenv("KFS_FAULT", "commit.store:1:errno=ENOSPC", 1);
    start();
    unsetenv("KFS_FAULT");
    ASSERT_EQ(hello(&c), 0);
    ASSERT_EQ(put(&c, "f", "kept"), -ENOSPC);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "f"), "kept");
    bye(&c);
    tear_down();
}

KT_MAIN
