#include "tests/unit/kfsd/client.h"
#include "base/pure/shm_layout.h"
#include <pthread.h>

static struct client c;

static void begin(void)
{
    set_up();
    start();
    ASSERT_EQ(hello(&c), 0);
}

static void again(int sig)
{
    bye(&c);
    stop(sig);
    start();
    ASSERT_EQ(hello(&c), 0);
}

static void end(void)
{
    bye(&c);
    tear_down();
}

TEST(create_write_close_reopen_in_new_kfsd)
{
    begin();
    ASSERT_EQ(put(&c, "a", "hello"), 0);
    ASSERT_EQ(last.rep.attr.size_bytes, 5);
    ASSERT_EQ(simple(&c, KFS_OP_MKDIR, "d", 0755), 0);
    ASSERT_EQ(put(&c, "d/empty", ""), 0);
    ASSERT_STR(get(&c, "a"), "hello");
    again(SIGTERM);
    ASSERT_STR(get(&c, "a"), "hello");
    ASSERT_EQ(k_stat(&c, "d/empty"), 0);
    ASSERT_EQ(last.rep.attr.size_bytes, 0);
    /* without the cache: from the objects */
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "a"), "hello");
    end();
}

TEST(big_file_survives_eviction)
{
    begin();
    int fd = k_open(&c, "big", O_RDWR | O_CREAT, 0644);
    ASSERT(fd >= 0);
    kfs_ino_t ino = last.rep.attr.ino;
    static char block[1 << 20];
    for (int i = 0; i < 5; i++) {
        memset(block, 'a' + i, sizeof block);
        ASSERT_EQ(pwrite(fd, block, sizeof block, (off_t)i * 3 << 20), sizeof block);
    }
    ASSERT_EQ(k_close(&c, fd, ino), 0);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    fd = k_open(&c, "big", O_RDONLY, 0);
    ASSERT(fd >= 0);
    for (int i = 0; i < 5; i++) {
        ASSERT_EQ(pread(fd, block, sizeof block, (off_t)i * 3 << 20), sizeof block);
        ASSERT(block[0] == 'a' + i && block[sizeof block - 1] == 'a' + i);
    }
    char hole[16] = "x";
    ASSERT_EQ(pread(fd, hole, 16, 2 << 20), 16);
    ASSERT(hole[0] == 0);
    close(fd);
    end();
}

TEST(kill_9_with_live_file_loses_nothing)
{
    begin();
    int fd = k_open(&c, "log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    ASSERT(fd >= 0);
    ASSERT_EQ(write(fd, "one\n", 4), 4);
    again(SIGKILL);
    /* our descriptor goes on, and what it wrote before and after is there */
    ASSERT_EQ(write(fd, "two\n", 4), 4);
    ASSERT_STR(get(&c, "log"), "one\ntwo\n");
    close(fd);
    until_status(&c, "\"live\":0");
    again(SIGKILL);
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "log"), "one\ntwo\n");
    end();
}

TEST(killed_writer_is_committed)
{
    begin();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct client mine;
        if (hello(&mine) != 0)
            _exit(1);
        int fd = k_open(&mine, "k", O_WRONLY | O_CREAT, 0644);
        if (fd < 0 || write(fd, "killed", 6) != 6)
            _exit(1);
        raise(SIGKILL);
    }
    int status;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT(WIFSIGNALED(status));
    until_status(&c, "\"live\":0");
    again(SIGKILL);
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "k"), "killed");
    end();
}

TEST(child_that_knows_nothing_of_kfs_inherits_fd)
{
    begin();
    int fd = k_open(&c, "out", O_WRONLY | O_CREAT, 0644);
    ASSERT(fd >= 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd, 1);
        execl("/bin/sh", "sh", "-c", "echo from the child", (char *)NULL);
        _exit(127);
    }
    close(fd); /* without CLOSE: the kernel's last close is the child's */
    int status;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "out"), "from the child\n");
    end();
}

TEST(mapped_store_after_close_is_committed)
{
    begin();
    int fd = k_open(&c, "m", O_RDWR | O_CREAT, 0644);
    ASSERT(fd >= 0);
    kfs_ino_t ino = last.rep.attr.ino;
    ASSERT_EQ(ftruncate(fd, 8192), 0);
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ASSERT(p != MAP_FAILED);
    strcpy(p, "before");
    usleep(50000);
    ASSERT_EQ(k_close(&c, fd, ino), 0);
    strcpy(p, "after"); /* the page is dirty already: no time moves */
    munmap(p, 8192);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "m"), "after");
    end();
}

TEST(unlinked_while_open_stays_until_last_close)
{
    begin();
    ASSERT_EQ(put(&c, "o", "orphan"), 0);
    int fd = k_open(&c, "o", O_RDWR, 0);
    ASSERT(fd >= 0);
    kfs_ino_t ino = last.rep.attr.ino;
    ASSERT_EQ(simple(&c, KFS_OP_UNLINK, "o", 0), 0);
    ASSERT_EQ(k_stat(&c, "o"), -ENOENT);
    again(SIGKILL);
    char b[16] = "";
    ASSERT_EQ(pread(fd, b, 15, 0), 6);
    ASSERT_STR(b, "orphan");
    ASSERT_EQ(k_ino(&c, KFS_OP_LOOKUP, ino), 0);
    ASSERT_EQ(last.rep.attr.nlink, 0);
    ASSERT_EQ(k_close(&c, fd, ino), 0);
    until_status(&c, "\"orphans\":0");
    ASSERT_EQ(k_ino(&c, KFS_OP_LOOKUP, ino), -ENOENT);
    end();
}

TEST(tmpfile_gets_a_name)
{
    begin();
    int fd = k_open(&c, "", O_RDWR | O_TMPFILE, 0600);
    ASSERT(fd >= 0);
    kfs_ino_t ino = last.rep.attr.ino;
    ASSERT_EQ(last.rep.attr.nlink, 0);
    ASSERT_EQ(write(fd, "tmp", 3), 3);
    last = (struct call){.q.op = KFS_OP_LINK, .q.ino = ino, .q.ino2 = KFS_INO_ROOT, .path2 = "named"};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT_EQ(last.rep.attr.nlink, 1);
    ASSERT_EQ(k_close(&c, fd, ino), 0);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "named"), "tmp");
    end();
}

TEST(rename_unlink_readdir)
{
    begin();
    ASSERT_EQ(simple(&c, KFS_OP_MKDIR, "d", 0755), 0);
    kfs_ino_t d = last.rep.attr.ino;
    ASSERT_EQ(put(&c, "d/a", "A"), 0);
    ASSERT_EQ(put(&c, "d/b", "B"), 0);
    ASSERT_EQ(k_stat(&c, "d/c"), -ENOENT);
    ASSERT_EQ(k_rename(&c, "d/a", "d/c", 0), 0);
    ASSERT_EQ(k_stat(&c, "d/a"), -ENOENT);
    ASSERT_STR(get(&c, "d/c"), "A");
    ASSERT_EQ(k_rename(&c, "d/c", "d/b", 1 /* RENAME_NOREPLACE */), -EEXIST);
    ASSERT_EQ(k_rename(&c, "d/c", "d/b", 2 /* RENAME_EXCHANGE */), 0);
    ASSERT_STR(get(&c, "d/b"), "A");
    ASSERT_EQ(k_rename(&c, "d/c", "d/b", 0), 0);
    ASSERT_STR(get(&c, "d/b"), "B");
    ASSERT_EQ(k_rename(&c, "d", "d/x", 0), -EINVAL);
    ASSERT_EQ(k_ino(&c, KFS_OP_READDIR, d), 0);
    ASSERT_EQ(last.rep.value, 1);
    ASSERT_EQ(last.rep.data_len, sizeof(struct kfs_wire_dirent) + 1);
    ASSERT(last.out[sizeof(struct kfs_wire_dirent)] == 'b');
    last = (struct call){.q.op = KFS_OP_UNLINK, .q.ino = KFS_INO_ROOT, .q.value = AT_REMOVEDIR, .path = "d"};
    ASSERT_EQ(transact(&c, &last), -ENOTEMPTY);
    ASSERT_EQ(simple(&c, KFS_OP_UNLINK, "d", 0), -EISDIR);
    ASSERT_EQ(simple(&c, KFS_OP_UNLINK, "d/b", 0), 0);
    last = (struct call){.q.op = KFS_OP_UNLINK, .q.ino = KFS_INO_ROOT, .q.value = AT_REMOVEDIR, .path = "d/"};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT_EQ(k_stat(&c, "d"), -ENOENT);
    end();
}

TEST(big_directory_is_listed_in_parts)
{
    begin();
    char name[300];
    for (int i = 0; i < 700; i++) {
        snprintf(name, sizeof name, "%0200d", i);
        ASSERT_EQ(simple(&c, KFS_OP_MKNOD, name, S_IFREG | 0644), 0);
    }
    int seen = 0;
    char after[300] = "";
    for (bool over = false; !over;) {
        static struct call k;
        k = (struct call){.q.op = KFS_OP_READDIR, .q.ino = KFS_INO_ROOT, .path2 = after};
        ASSERT_EQ(transact(&c, &k), 0);
        over = k.rep.value;
        for (size_t at = 0; at < k.rep.data_len; seen++) {
            struct kfs_wire_dirent e;
            memcpy(&e, k.out + at, sizeof e);
            memcpy(after, k.out + at + sizeof e, e.name_len);
            after[e.name_len] = 0;
            ASSERT_EQ(atoi(after), seen);
            ASSERT_EQ(e.type, DT_REG);
            at += sizeof e + e.name_len;
        }
    }
    ASSERT_EQ(seen, 700);
    end();
}

static int symlink_to(const char *target, const char *path)
{
    last = (struct call){.q.op = KFS_OP_SYMLINK, .q.ino = KFS_INO_ROOT, .path = path, .data = target, .data_len = strlen(target)};
    return transact(&c, &last);
}

static int stat_follow(const char *path)
{
    last = (struct call){.q.op = KFS_OP_LOOKUP, .q.ino = KFS_INO_ROOT, .path = path};
    return transact(&c, &last);
}

TEST(paths_walk_as_posix_says)
{
    begin();
    ASSERT_EQ(simple(&c, KFS_OP_MKDIR, "d/", 0755), 0);
    ASSERT_EQ(simple(&c, KFS_OP_MKDIR, "d", 0755), -EEXIST);
    ASSERT_EQ(simple(&c, KFS_OP_MKDIR, "d/..", 0755), -EEXIST);
    ASSERT_EQ(put(&c, "d/f", "f"), 0);
    ASSERT_EQ(symlink_to("d/f", "rel"), 0);
    ASSERT_EQ(symlink_to("/etc/passwd", "abs"), 0);
    ASSERT_EQ(symlink_to("d", "dl"), 0);
    ASSERT_EQ(symlink_to("../../up", "d/up"), 0);
    ASSERT_EQ(symlink_to("loop", "loop"), 0);
    ASSERT_EQ(symlink_to("newfile", "dangling"), 0);
    ASSERT_STR(get(&c, "rel"), "f");
    ASSERT_STR(get(&c, "dl/f"), "f");
    ASSERT_STR(get(&c, "dl/../d/./f"), "f");
    ASSERT_EQ(stat_follow("d/f/"), -ENOTDIR);
    ASSERT_EQ(stat_follow("d/f/x"), -ENOTDIR);
    ASSERT_EQ(stat_follow("rel/"), -ENOTDIR);
    ASSERT_EQ(stat_follow("dl/"), 0);
    ASSERT(S_ISDIR(last.rep.attr.mode));
    ASSERT_EQ(k_stat(&c, "dl"), 0);
    ASSERT(S_ISLNK(last.rep.attr.mode));
    ASSERT_EQ(k_stat(&c, "dl/"), 0);
    ASSERT(S_ISDIR(last.rep.attr.mode));
    ASSERT_EQ(stat_follow("loop"), -ELOOP);
    ASSERT_EQ(stat_follow("abs"), KFS_WIRE_ESCAPE_ABS);
    ASSERT_STR(last.out, "/etc/passwd");
    ASSERT_EQ(stat_follow("abs/x/y"), KFS_WIRE_ESCAPE_ABS);
    ASSERT_STR(last.out, "/etc/passwd/x/y");
    ASSERT_EQ(stat_follow("d/up"), KFS_WIRE_ESCAPE_UP);
    ASSERT_STR(last.out, "up");
    ASSERT_EQ(stat_follow("d/../.."), KFS_WIRE_ESCAPE_UP);
    ASSERT_STR(last.out, "");
    char longname[300];
    memset(longname, 'n', 256);
    longname[256] = 0;
    ASSERT_EQ(k_stat(&c, longname), -ENAMETOOLONG);
    ASSERT_EQ(put(&c, longname + 1, "255"), 0);
    ASSERT_STR(get(&c, longname + 1), "255");
    ASSERT_EQ(k_open(&c, "x/", O_WRONLY | O_CREAT, 0644), -EISDIR);
    ASSERT_EQ(k_open(&c, "d", O_WRONLY, 0), -EISDIR);
    ASSERT_EQ(k_open(&c, "d/f", O_RDONLY | O_DIRECTORY, 0), -ENOTDIR);
    ASSERT_EQ(k_open(&c, "rel", O_RDONLY | O_NOFOLLOW, 0), -ELOOP);
    ASSERT_EQ(k_open(&c, "d/f", O_WRONLY | O_CREAT | O_EXCL, 0644), -EEXIST);
    ASSERT_EQ(k_open(&c, "dangling", O_WRONLY | O_CREAT | O_EXCL, 0644), -EEXIST);
    ASSERT_EQ(put(&c, "dangling", "made"), 0);
    ASSERT_STR(get(&c, "newfile"), "made");
    int fd = k_open(&c, "d", O_RDONLY | O_DIRECTORY, 0);
    ASSERT(fd >= 0);
    char proc[64], link[512] = "";
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    ASSERT(readlink(proc, link, sizeof link - 1) > 0);
    ASSERT(strstr(link, "/d/") && strstr(link, " (deleted)"));
    close(fd);
    end();
}

TEST(overwrite_append_truncate_times)
{
    begin();
    ASSERT_EQ(put(&c, "f", "0123456789"), 0);
    uint64_t v1 = last.rep.attr.version;
    int fd = k_open(&c, "f", O_RDWR, 0);
    kfs_ino_t ino = last.rep.attr.ino;
    ASSERT_EQ(pwrite(fd, "XX", 2, 4), 2);
    ASSERT_EQ(k_close(&c, fd, ino), 0);
    ASSERT(last.rep.attr.version > v1);
    ASSERT_STR(get(&c, "f"), "0123XX6789");
    last = (struct call){.q.op = KFS_OP_SETATTR, .q.ino = KFS_INO_ROOT, .path = "f", .q.valid = KFS_SET_SIZE, .q.size_bytes = 5};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT_EQ(last.rep.attr.size_bytes, 5);
    fd = k_open(&c, "f", O_WRONLY | O_APPEND, 0);
    ASSERT_EQ(write(fd, "end", 3), 3);
    ASSERT_EQ(k_stat(&c, "f"), 0);
    ASSERT_EQ(last.rep.attr.size_bytes, 8);
    ASSERT(last.rep.attr.flags & KFS_ATTR_LIVE);
    last = (struct call){.q.op = KFS_OP_SETATTR, .q.ino = ino, .q.valid = KFS_SET_MTIME | KFS_SET_MODE, .q.mtime_s = 12345, .q.mtime_ns = 678,
                         .q.mode = 0755};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT_EQ(last.rep.attr.mtime_s, 12345);
    struct stat st;
    ASSERT_EQ(fstat(fd, &st), 0);
    ASSERT_EQ(st.st_mtim.tv_nsec, 678);
    ASSERT(st.st_mode & 0111);
    ASSERT_EQ(k_close(&c, fd, ino), 0);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_EQ(k_stat(&c, "f"), 0);
    ASSERT_EQ(last.rep.attr.mtime_s, 12345);
    ASSERT_EQ(last.rep.attr.mtime_ns, 678);
    ASSERT_STR(get(&c, "f"), "0123Xend");
    end();
}

TEST(segment_answers_and_follows_changes)
{
    begin();
    const struct kfs_shm_header *h = mmap(NULL, c.hello.segment_bytes, PROT_READ, MAP_SHARED, c.segment_fd, 0);
    ASSERT(h != MAP_FAILED && kfs_shm_header_ok(h, c.hello.segment_bytes));
    ASSERT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, c.segment_fd, 0) == MAP_FAILED);
    uint64_t ino = 0;
    ASSERT_EQ(k_stat(&c, "s"), -ENOENT);
    ASSERT_EQ(kfs_shm_dent_get(h, KFS_INO_ROOT, "s", 1, &ino), KFS_DENT_ABSENT);
    ASSERT_EQ(put(&c, "s", "shared"), 0);
    ASSERT_EQ(kfs_shm_dent_get(h, KFS_INO_ROOT, "s", 1, &ino), KFS_DENT_PRESENT);
    until_status(&c, "\"live\":0");
    struct kfs_attr a;
    ASSERT(kfs_shm_attr_get(h, ino, &a));
    ASSERT_EQ(a.size_bytes, 6);
    ASSERT(a.flags & KFS_ATTR_CACHED);
    ASSERT(c.hello.flags & KFS_HELLO_DIRECT);
    char path[5000];
    snprintf(path, sizeof path, "%s/f/%02x/%llx-%llx", c.hello.cache_dir, (unsigned)(ino & 255), (unsigned long long)ino,
             (unsigned long long)a.version);
    struct stat st;
    ASSERT_EQ(stat(path, &st), 0);
    ASSERT_EQ(st.st_ino, a.cache_ino);
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    for (int i = 0; i < 500 && (a.flags & KFS_ATTR_CACHED); i++) {
        usleep(10000);
        ASSERT(kfs_shm_attr_get(h, ino, &a));
    }
    ASSERT(!(a.flags & KFS_ATTR_CACHED));
    ASSERT_EQ(simple(&c, KFS_OP_UNLINK, "s", 0), 0);
    ASSERT_EQ(kfs_shm_dent_get(h, KFS_INO_ROOT, "s", 1, &ino), KFS_DENT_ABSENT);
    munmap((void *)(uintptr_t)h, c.hello.segment_bytes);
    end();
}

TEST(retried_request_is_not_done_twice)
{
    begin();
    static struct call k;
    k = (struct call){.q.op = KFS_OP_MKDIR, .q.ino = KFS_INO_ROOT, .q.mode = 0755, .path = "once"};
    ASSERT_EQ(transact(&c, &k), 0);
    kfs_ino_t ino = k.rep.attr.ino;
    uint64_t id[2] = {c.id[0], c.id[1]};
    again(SIGKILL);
    memcpy(c.id, id, sizeof id);
    k.q.flags = KFS_WIRE_RETRY;
    ASSERT_EQ(transact(&c, &k), 0);
    ASSERT_EQ(k.rep.attr.ino, ino);
    k.q.flags = 0;
    k.q.seq++;
    ASSERT_EQ(transact(&c, &k), -EEXIST);
    k = (struct call){.q.op = KFS_OP_OPEN, .q.ino = KFS_INO_ROOT, .q.mode = 0644, .q.oflags = O_WRONLY | O_CREAT | O_EXCL, .q.seq = 100, .path = "x"};
    ASSERT_EQ(transact(&c, &k), 0);
    close(k.fd);
    memcpy(id, c.id, sizeof id);
    again(SIGKILL);
    memcpy(c.id, id, sizeof id);
    k.q.flags = KFS_WIRE_RETRY;
    ASSERT_EQ(transact(&c, &k), 0);
    ASSERT(k.fd >= 0 && (k.rep.value & KFS_OPEN_WRITER));
    close(k.fd);
    end();
}

TEST(garbage_messages_only_lose_their_connection)
{
    begin();
    struct kfs_wire_req good = {.magic = KFS_WIRE_MAGIC, .version = KFS_WIRE_VERSION, .op = KFS_OP_HELLO, .len = sizeof good};
    for (int i = 0; i < 12; i++) {
        char msg[70000];
        memset(msg, 0xa5, sizeof msg);
        struct kfs_wire_req q = good;
        size_t n = sizeof q;
        switch (i) {
        case 0: n = 3; q.magic = 1; break;
        case 1: q.magic ^= 1; break;
        case 2: q.version++; break;
        case 3: q.len++; break;
        case 4: q.path_len = 0xffffffff; break;
        case 5: q.path_len = 5, q.path2_len = 0xfffffffb; break;
        case 6: q.op = 999; break;
        case 7: q.op = 0; break;
        case 8: q.op = KFS_OP_LOOKUP; break; /* before HELLO */
        case 9: n = sizeof msg, q.len = (uint32_t)n, q.data_len = (uint32_t)(n - sizeof q); break;
        case 10: n += 4, q.len += 4, q.path_len = 4; memset(msg + sizeof q, 0, 4); break;
        case 11: q.op = KFS_OP_END; break;
        }
        memcpy(msg, &q, n < sizeof q ? n : sizeof q);
        int fd = dial();
        ASSERT(fd >= 0);
        ASSERT_EQ(send(fd, msg, n, MSG_NOSIGNAL), n);
        char b[64];
        ASSERT_EQ(recv(fd, b, sizeof b, 0), 0);
        close(fd);
    }
    /* random messages after a good HELLO */
    srandom(7);
    for (int i = 0; i < 300; i++) {
        struct client g;
        ASSERT_EQ(hello(&g), 0);
        unsigned char msg[600];
        size_t n = (size_t)(random() % 600) + 1;
        for (size_t j = 0; j < n; j++)
            msg[j] = (unsigned char)random();
        struct kfs_wire_req q;
        memcpy(&q, msg, sizeof q < n ? sizeof q : n);
        if (n > sizeof q && i % 2) {
            q.magic = KFS_WIRE_MAGIC, q.version = KFS_WIRE_VERSION, q.len = (uint32_t)n, q.op = (uint16_t)(1 + random() % (KFS_OP_END - 1));
            q.path_len = (uint32_t)(n - sizeof q), q.path2_len = q.data_len = 0;
            memcpy(msg, &q, sizeof q);
        }
        ASSERT_EQ(send(g.fd, msg, n, MSG_NOSIGNAL), n);
        shutdown(g.fd, SHUT_WR);
        char b[4096];
        while (recv(g.fd, b, sizeof b, 0) > 0)
            ;
        bye(&g);
    }
    ASSERT_EQ(put(&c, "alive", "yes"), 0);
    ASSERT_STR(get(&c, "alive"), "yes");
    end();
}

TEST(xattrs_and_control)
{
    begin();
    ASSERT_EQ(put(&c, "f", "x"), 0);
    last = (struct call){.q.op = KFS_OP_SETXATTR, .q.ino = KFS_INO_ROOT, .path = "f", .path2 = "user.k", .data = "val", .data_len = 3};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT(last.rep.attr.flags & KFS_ATTR_XATTRS);
    last = (struct call){.q.op = KFS_OP_GETXATTR, .q.ino = KFS_INO_ROOT, .path = "f", .path2 = "user.k"};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT_STR(last.out, "val");
    last = (struct call){.q.op = KFS_OP_REMOVEXATTR, .q.ino = KFS_INO_ROOT, .path = "f", .path2 = "user.k"};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT(!(last.rep.attr.flags & KFS_ATTR_XATTRS));
    until_status(&c, "\"live\":0");
    ASSERT_EQ(control(&c, "info", "/f"), 0);
    ASSERT(strstr(last.out, "\"inline\":true") && strstr(last.out, "\"cache\":\"file\""));
    ASSERT_EQ(control(&c, "explain", "/f"), 0);
    ASSERT(strstr(last.out, "\"tier\":\"kernel\""));
    ASSERT_EQ(control(&c, "info", "/nothing"), -ENOENT);
    ASSERT(strstr(last.out, "\"error\""));
    ASSERT_EQ(control(&c, "flush", NULL), 0);
    ASSERT_EQ(control(&c, "config", NULL), 0);
    ASSERT(strstr(last.out, "cache_bytes"));
    ASSERT_EQ(control(&c, "stats", NULL), 0);
    ASSERT_EQ(control(&c, "nonsense", NULL), -EINVAL);
    ASSERT_EQ(simple(&c, KFS_OP_STATFS, "", 0), 0);
    ASSERT_EQ(last.rep.data_len, sizeof(struct kfs_wire_statfs));
    end();
}

TEST(second_kfsd_is_told_who_has_the_volume)
{
    begin();
    pid_t first = daemon_pid;
    const char *line = start_with(NULL, NULL);
    char want[64];
    snprintf(want, sizeof want, "is open by kfsd %d of user", (int)first);
    ASSERT_EQ(strncmp(line, "busy: ", 6), 0);
    ASSERT(strstr(line, want) != NULL);
    end();
}

TEST(private_kfsd_ends_after_linger)
{
    set_up();
    const char *line = start_with("--linger", "0.3", NULL);
    ASSERT_EQ(strncmp(line, "ok ", 3), 0);
    ASSERT_EQ(hello(&c), 0);
    int fd = k_open(&c, "f", O_WRONLY | O_CREAT, 0644);
    ASSERT(fd >= 0);
    bye(&c);
    usleep(700000); /* long over, but the file is open */
    ASSERT_EQ(waitpid(daemon_pid, NULL, WNOHANG), 0);
    ASSERT_EQ(write(fd, "late", 4), 4);
    close(fd);
    int status = -1;
    ASSERT_EQ(waitpid(daemon_pid, &status, 0), daemon_pid);
    daemon_pid = 0;
    ASSERT_EQ(status, 0);
    ASSERT_STR(socket_path(), "");
    start();
    ASSERT_EQ(hello(&c), 0);
    ASSERT_STR(get(&c, "f"), "late");
    end();
}

TEST(session_mode_commits_after_close)
{
    set_up();
    const char *line = start_with("--commit", "session", NULL);
    ASSERT_EQ(strncmp(line, "ok ", 3), 0);
    ASSERT_EQ(hello(&c), 0);
    ASSERT(c.hello.flags & KFS_HELLO_SESSION);
    ASSERT_EQ(put(&c, "f", "soon"), 0);
    until_status(&c, "\"live\":0");
    ASSERT_EQ(put(&c, "g", "killed"), 0);
    again(SIGKILL);
    ASSERT_EQ(control(&c, "evict", NULL), 0);
    ASSERT_STR(get(&c, "f"), "soon");
    ASSERT_STR(get(&c, "g"), "killed");
    end();
}

/* Run in a child as uid and gid 65534; every failed check there is a failed case here. */
static int as_nobody(int (*run)(struct client *mine))
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct client mine;
        if (setgid(65534) < 0 || setuid(65534) < 0 || hello(&mine) != 0)
            _exit(99);
        _exit(run(&mine));
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define CHECK(n, x)                                                                                \
    do {                                                                                           \
        if (!(x))                                                                                  \
            return n;                                                                              \
    } while (0)

static int nobody_script(struct client *mine)
{
    CHECK(1, !(mine->hello.flags & KFS_HELLO_DIRECT) && mine->hello.uid == 65534);
    CHECK(2, k_stat(mine, "secret/f") == -EACCES);
    CHECK(3, k_stat(mine, "secret") == 0);
    CHECK(4, k_open(mine, "private", O_RDONLY, 0) == -EACCES);
    CHECK(5, k_open(mine, "public", O_WRONLY, 0) == -EACCES);
    CHECK(6, k_open(mine, "new", O_WRONLY | O_CREAT, 0644) == -EACCES);
    CHECK(7, strcmp(get(mine, "public"), "all") == 0);
    CHECK(8, simple(mine, KFS_OP_UNLINK, "public", 0) == -EACCES);
    CHECK(9, put(mine, "tmp/mine", "m") == 0 && last.rep.attr.uid == 65534);
    CHECK(10, simple(mine, KFS_OP_UNLINK, "tmp/roots", 0) == -EPERM);
    last = (struct call){.q.op = KFS_OP_SETATTR, .q.ino = KFS_INO_ROOT, .path = "public", .q.valid = KFS_SET_SIZE};
    CHECK(11, transact(mine, &last) == -EACCES);
    last = (struct call){.q.op = KFS_OP_SETATTR, .q.ino = KFS_INO_ROOT, .path = "public", .q.valid = KFS_SET_MODE, .q.mode = 0666};
    CHECK(12, transact(mine, &last) == -EPERM);
    CHECK(13, simple(mine, KFS_OP_MKNOD, "tmp/dev", S_IFBLK | 0600) == -EPERM);
    last = (struct call){.q.op = KFS_OP_READDIR, .q.ino = KFS_INO_ROOT, .path = "secret"};
    CHECK(14, transact(mine, &last) == -EACCES);
    int fd = k_open(mine, "tmp/new", O_RDWR | O_CREAT | O_EXCL, 0);
    CHECK(15, fd >= 0); /* its own mode does not matter for the open that makes it */
    CHECK(16, k_open(mine, "tmp/new", O_RDONLY, 0) == -EACCES);
    return 0;
}

TEST(other_users_get_what_their_ids_allow)
{
    if (getuid() != 0)
        SKIP("needs root to become somebody else");
    set_up();
    chmod(dir, 0755);
    node = true;
    start();
    node = false;
    ASSERT_EQ(hello(&c), 0);
    ASSERT_EQ(simple(&c, KFS_OP_MKDIR, "secret", 0700), 0);
    ASSERT_EQ(put(&c, "secret/f", "x"), 0);
    ASSERT_EQ(put(&c, "public", "all"), 0);
    ASSERT_EQ(put(&c, "private", "root"), 0);
    last = (struct call){.q.op = KFS_OP_SETATTR, .q.ino = KFS_INO_ROOT, .path = "private", .q.valid = KFS_SET_MODE, .q.mode = 0600};
    ASSERT_EQ(transact(&c, &last), 0);
    ASSERT_EQ(simple(&c, KFS_OP_MKDIR, "tmp", 01777), 0);
    ASSERT_EQ(put(&c, "tmp/roots", "r"), 0);
    ASSERT_EQ(as_nobody(nobody_script), 0);
    end();
}

TEST(two_volumes_share_a_socket)
{
    set_up();
    node = true;
    char second[600];
    snprintf(second, sizeof second, "sqlite:%s", in_dir("second.db"));
    const char *line = start_with("--socket", in_dir("both.sock"), second, NULL);
    node = false;
    ASSERT_EQ(strncmp(line, "ok ", 3), 0);
    struct client one, two;
    ASSERT_EQ(hello(&one), -ENODEV); /* which? */
    close(one.fd);
    char url[600];
    snprintf(url, sizeof url, "sqlite:%s", in_dir("v.db"));
    ASSERT_EQ(hello_to(&one, url), 0);
    ASSERT_EQ(hello_to(&two, second), 0);
    ASSERT(strcmp(one.hello.volume_id, two.hello.volume_id) != 0);
    ASSERT_EQ(put(&one, "f", "one"), 0);
    ASSERT_EQ(k_stat(&two, "f"), -ENOENT);
    bye(&one);
    bye(&two);
    tear_down();
}

/* The step that failed, or NULL. */
static const char *hammer(long me)
{
    struct client mine;
    if (hello(&mine) != 0)
        return "hello";
    struct call *q = calloc(1, sizeof *q);
    char name[64], text[64], back[64];
    for (int i = 0; i < 60; i++) {
        int shared = i % 3 == 0;
        snprintf(name, sizeof name, shared ? "shared%ld" : "own%ld-%d", shared ? (long)(i % 5) : me, i);
        int len = snprintf(text, sizeof text, "%ld writes %d", me, i);
        *q = (struct call){.q.op = KFS_OP_OPEN, .q.ino = KFS_INO_ROOT, .q.mode = 0644, .q.oflags = O_RDWR | O_CREAT | O_TRUNC, .path = name};
        if (transact(&mine, q) != 0)
            return "open";
        int fd = q->fd;
        kfs_ino_t ino = q->rep.attr.ino;
        if (pwrite(fd, text, (size_t)len, 0) != len)
            return "write";
        *q = (struct call){.q.op = KFS_OP_CLOSE, .q.ino = ino};
        int r = transact(&mine, q);
        close(fd);
        if (r != 0)
            return "close";
        if (!shared) {
            *q = (struct call){.q.op = KFS_OP_OPEN, .q.ino = KFS_INO_ROOT, .q.oflags = O_RDONLY, .path = name};
            if (transact(&mine, q) != 0 || pread(q->fd, back, sizeof back, 0) != len || memcmp(back, text, (size_t)len) != 0)
                return "read";
            close(q->fd);
        }
        if (!shared && i % 4 == 1) {
            char to[64];
            snprintf(to, sizeof to, "moved%ld", me);
            *q = (struct call){.q.op = KFS_OP_RENAME, .q.ino = KFS_INO_ROOT, .q.ino2 = KFS_INO_ROOT, .path = name, .path2 = to};
            if (transact(&mine, q) != 0)
                return "rename";
        }
        if (i % 7 == 0) {
            *q = (struct call){.q.op = KFS_OP_UNLINK, .q.ino = KFS_INO_ROOT, .path = name};
            r = transact(&mine, q);
            if (r != 0 && r != -ENOENT)
                return "unlink";
        }
        if (i % 10 == 5) {
            *q = (struct call){.q.op = KFS_OP_CONTROL, .path = "evict"};
            if (transact(&mine, q) != 0)
                return "evict";
        }
    }
    free(q);
    bye(&mine);
    return NULL;
}

static const char *hammered[8];

static void *hammer_main(void *arg)
{
    hammered[(long)arg] = hammer((long)arg);
    return NULL;
}

TEST(many_clients_at_once)
{
    begin();
    pthread_t t[8];
    for (long i = 0; i < 8; i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, hammer_main, (void *)i), 0);
    for (int i = 0; i < 8; i++) {
        pthread_join(t[i], NULL);
        ASSERT_STR(hammered[i] ? hammered[i] : "fine", "fine");
    }
    until_status(&c, "\"live\":0");
    until_status(&c, "\"orphans\":0");
    ASSERT_STR(strstr(get(&c, "moved3"), " writes "), " writes 53");
    end();
}

KT_MAIN
