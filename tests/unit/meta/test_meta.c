/* meta: format and open, names, links, permissions, attributes, xattrs, replay, orphans. */
#include "tests/unit/meta/fixture.h"

#include "meta/schema.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* --- volume ---------------------------------------------------------------------------------------------------- */

TEST(volume_format_and_open)
{
    struct kfs_meta_volume v = {.name = "train", .store = "file:/objects"};
    fx_new_path();
    ASSERT_OK(kfs_meta_format(fx_path, &v, 7, 8, &fx_err), fx_err);
    ASSERT_EQ(strlen(v.id), 36);
    ASSERT_EQ(kfs_meta_format(fx_path, &v, 7, 8, &fx_err), -EEXIST);
    kfs_meta_close(fx_m);
    fx_open();
    const struct kfs_meta_volume *got = kfs_meta_volume(fx_m);
    ASSERT_STR(got->id, v.id);
    ASSERT_STR(got->name, "train");
    ASSERT_STR(got->store, "file:/objects");
    ASSERT_EQ(got->schema, KFS_META_SCHEMA);
    ASSERT(got->created_s > 1500000000);
    struct kfs_attr a = fx_attr(KFS_INO_ROOT);
    ASSERT_EQ(a.mode, S_IFDIR | 0755);
    ASSERT_EQ(a.uid, 7);
    ASSERT_EQ(a.gid, 8);
    ASSERT_EQ(a.nlink, 2);
    ASSERT_EQ(a.parent, KFS_INO_ROOT);
    ASSERT_EQ(a.size_bytes, 4096);
    ASSERT_EQ(a.blocks, 8);
}

TEST(volume_format_of_an_empty_file)
{
    struct kfs_meta_volume v = {.id = "given", .store = "file:/o"};
    close(open(fx_new_path(), O_CREAT | O_WRONLY, 0600));
    kfs_meta_close(fx_m);
    fx_m = NULL;
    ASSERT_EQ(kfs_meta_open(fx_path, &fx_m, &fx_err), -ENOENT);
    ASSERT(strstr(fx_err.msg, "is empty") != NULL);
    ASSERT_OK(kfs_meta_format(fx_path, &v, 0, 0, &fx_err), fx_err);
    fx_open();
    ASSERT_STR(kfs_meta_volume(fx_m)->id, "given");
}

TEST(volume_open_of_what_is_none)
{
    fx_needs_file();
    struct kfs_meta *m = NULL;
    char want[1200];
    fx_new_path();
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -ENOENT);
    snprintf(want, sizeof want, "database '%s' does not exist; create it with 'kfs format sqlite:%s' or 'kfs-run --create'", fx_path, fx_path);
    want[sizeof fx_err.msg - 1] = 0;
    ASSERT_STR(fx_err.msg, want);
    ASSERT_EQ(kfs_meta_open(fx_dir, &m, &fx_err), -EISDIR);
    ASSERT(strstr(fx_err.msg, "is a directory") != NULL);
    struct kfs_meta_volume v = {.store = "x"};
    ASSERT_EQ(kfs_meta_format(fx_dir, &v, 0, 0, &fx_err), -EISDIR);
    ASSERT_EQ(kfs_meta_format("/does/not/exist/x.db", &v, 0, 0, &fx_err), -ENOENT);
    ASSERT(strstr(fx_err.msg, "'/does/not/exist/x.db'") != NULL);
    ASSERT_EQ(kfs_meta_open("/dev/null", &m, &fx_err), -EINVAL);

    int fd = open(fx_path, O_CREAT | O_WRONLY, 0600);
    for (int i = 0; i < 500; i++)
        ASSERT_EQ(write(fd, "this is text, not tables\n", 25), 25);
    close(fd);
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -EIO);
    ASSERT(strstr(fx_err.msg, "is not a SQLite database") != NULL);
    ASSERT_EQ(kfs_meta_format(fx_path, &v, 0, 0, &fx_err), -EIO);
    ASSERT(m == NULL);
}

static void raw(const char *sql)
{
    struct kfs_db *db;
    ASSERT_OK(kfs_db_open(fx_path, true, &db, &fx_err), fx_err);
    int rc = kfs_db_script(db, sql, &fx_err);
    kfs_db_close(db);
    ASSERT_OK(rc, fx_err);
}

TEST(volume_open_of_a_foreign_database_changes_nothing)
{
    struct kfs_meta *m = NULL;
    struct kfs_meta_volume v = {.store = "x"};
    fx_new_path();
    raw("CREATE TABLE accounts(id INTEGER)");
    struct stat before, after;
    if (!fx_server())
        ASSERT_EQ(stat(fx_path, &before), 0);
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -EINVAL);
    ASSERT(strstr(fx_err.msg, "of another program") != NULL);
    ASSERT_EQ(kfs_meta_format(fx_path, &v, 0, 0, &fx_err), -EINVAL);
    if (fx_server())
        return;
    ASSERT_EQ(stat(fx_path, &after), 0);
    ASSERT_EQ(before.st_size, after.st_size);
    ASSERT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

TEST(volume_open_of_a_newer_schema)
{
    struct kfs_meta *m = NULL;
    fx_fresh();
    kfs_meta_close(fx_m);
    fx_m = NULL;
    raw("UPDATE volume SET `schema`=99");
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -ENOTSUP);
    ASSERT(strstr(fx_err.msg, "schema 99") != NULL && strstr(fx_err.msg, "use a newer KFS") != NULL);
    raw("UPDATE volume SET `schema`=0");
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -ENOTSUP);
    raw("DELETE FROM volume"); /* on a server that is how a format looks which was cut off */
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), fx_server() ? -ENOENT : -EIO);
    raw("INSERT INTO volume VALUES(1,2,'i','n','s',5); DELETE FROM inode");
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -EIO);
    ASSERT(strstr(fx_err.msg, "root directory is missing") != NULL);
}

TEST(volume_open_of_a_truncated_file)
{
    fx_needs_file();
    struct kfs_meta *m = NULL;
    fx_fresh();
    char name[32];
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "file-number-%d", i);
        (void)fx_make(1, name, S_IFREG | 0644);
    }
    kfs_meta_close(fx_m);
    fx_m = NULL;
    struct stat st;
    ASSERT_EQ(stat(fx_path, &st), 0);
    ASSERT_EQ(truncate(fx_path, st.st_size / 2), 0);
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -EIO);
    ASSERT(strstr(fx_err.msg, "is damaged") != NULL);
    ASSERT_EQ(truncate(fx_path, 50), 0);
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -EIO);
}

TEST(volume_with_overwritten_pages_fails_with_text)
{
    fx_needs_file();
    fx_fresh();
    char name[32];
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "file-number-%d", i);
        (void)fx_make(1, name, S_IFREG | 0644);
    }
    kfs_meta_close(fx_m);
    fx_m = NULL;
    int fd = open(fx_path, O_WRONLY);
    struct stat st;
    ASSERT_EQ(fstat(fd, &st), 0);
    static char junk[4096];
    memset(junk, 0x5a, sizeof junk);
    /* All pages but the first 24 (schema, roots). */
    for (off_t at = 24 * 4096; at < st.st_size; at += 4096)
        ASSERT_EQ(pwrite(fd, junk, sizeof junk, at), 4096);
    close(fd);
    int rc = kfs_meta_open(fx_path, &fx_m, &fx_err);
    struct kfs_attr a;
    for (int i = 0; rc >= 0 && i < 3000; i++) {
        snprintf(name, sizeof name, "file-number-%d", i);
        rc = kfs_meta_lookup(fx_m, 1, name, strlen(name), &a, &fx_err);
    }
    ASSERT_EQ(rc, -EIO);
    ASSERT(strstr(fx_err.msg, "is damaged") != NULL);
}

TEST(volume_unreadable_or_read_only)
{
    fx_needs_file();
    if (geteuid() == 0) {
        /* root may read everything: look through the eyes of another user, in a child */
        fx_fresh();
        kfs_meta_close(fx_m);
        fx_m = NULL;
        ASSERT_EQ(chmod(fx_path, 0600), 0);
        ASSERT_EQ(chmod(fx_dir, 0755), 0);
        pid_t pid = fork();
        if (pid == 0) {
            struct kfs_meta *m;
            struct kfs_err e = {0};
            if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
                _exit(9);
            int rc = kfs_meta_open(fx_path, &m, &e);
            _exit(rc == -EACCES && strstr(e.msg, "check its owner and mode") ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_EQ(status, 0);
        return;
    }
    fx_fresh();
    kfs_meta_close(fx_m);
    fx_m = NULL;
    struct kfs_meta *m;
    ASSERT_EQ(chmod(fx_path, 0400), 0);
    ASSERT_EQ(kfs_meta_open(fx_path, &m, &fx_err), -EACCES);
    ASSERT(strstr(fx_err.msg, "check its owner and mode") != NULL);
}

TEST(volume_open_twice_is_refused)
{
    fx_fresh();
    pid_t pid = fork();
    if (pid == 0) {
        struct kfs_meta *m;
        struct kfs_err e = {0};
        int rc = kfs_meta_open(fx_path, &m, &e);
        _exit(rc == -EAGAIN && e.transient && strstr(e.msg, "in use by another process") ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
}

TEST(volume_schema_text_is_the_file)
{
    FILE *f = fopen("meta/schema.sql", "r");
    if (!f)
        SKIP("not run from the root of the tree");
    static char text[65536];
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    ASSERT_STR(kfs_schema_sql, text);
}

TEST(volume_settings)
{
    char buf[64] = "untouched";
    fx_fresh();
    ASSERT_EQ(kfs_meta_setting_get(fx_m, "k", buf, sizeof buf, &fx_err), -ENOENT);
    ASSERT_STR(buf, "untouched");
    ASSERT_OK(kfs_meta_setting_set(fx_m, "k", "one", &fx_err), fx_err);
    ASSERT_OK(kfs_meta_setting_set(fx_m, "k", "two", &fx_err), fx_err);
    ASSERT_OK(kfs_meta_sync(fx_m, &fx_err), fx_err);
    fx_check();
    ASSERT_OK(kfs_meta_setting_get(fx_m, "k", buf, sizeof buf, &fx_err), fx_err);
    ASSERT_STR(buf, "two");
    ASSERT_EQ(kfs_meta_setting_get(fx_m, "k", buf, 3, &fx_err), -ERANGE);
    ASSERT_OK(kfs_meta_setting_set(fx_m, "k", "", &fx_err), fx_err);
    ASSERT_OK(kfs_meta_setting_get(fx_m, "k", buf, sizeof buf, &fx_err), fx_err);
    ASSERT_STR(buf, "");
}

TEST(volume_usage)
{
    struct kfs_meta_usage u, again;
    fx_fresh();
    ASSERT_OK(kfs_meta_usage(fx_m, &u, &fx_err), fx_err);
    ASSERT_EQ(u.inodes, 1);
    ASSERT_EQ(u.bytes, 0);
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    (void)fx_make(1, "l", S_IFLNK);
    static struct kfs_content_delta d = {.changed = true, .to_inline = true, .inline_len = 100, .size_bytes = 100};
    ASSERT_OK(kfs_meta_commit(fx_m, f, &d, 1, 0, NULL, &fx_err), fx_err);
    ASSERT_EQ(fx_unlink(NULL, 1, "l", false), 0);
    ASSERT_OK(kfs_meta_usage(fx_m, &u, &fx_err), fx_err);
    ASSERT_EQ(u.inodes, 3);
    ASSERT_EQ(u.bytes, 100);
    fx_check();
    ASSERT_OK(kfs_meta_usage(fx_m, &again, &fx_err), fx_err);
    ASSERT_EQ(again.inodes, u.inodes);
    ASSERT_EQ(again.bytes, u.bytes);
    ASSERT_EQ(fx_unlink(NULL, 1, "f", false), 0);
    ASSERT_OK(kfs_meta_orphan_purge(fx_m, f, &fx_err), fx_err);
    ASSERT_OK(kfs_meta_usage(fx_m, &u, &fx_err), fx_err);
    ASSERT_EQ(u.inodes, 2);
    ASSERT_EQ(u.bytes, 0);
}

/* --- names ----------------------------------------------------------------------------------------------------- */

TEST(names_valid_and_not)
{
    struct kfs_attr a;
    char longest[300];
    memset(longest, 'n', sizeof longest);
    fx_fresh();
    ASSERT_EQ(kfs_meta_lookup(fx_m, 1, longest, 256, &a, &fx_err), -ENAMETOOLONG);
    ASSERT_EQ(kfs_meta_lookup(fx_m, 1, "", 0, &a, &fx_err), -EINVAL);
    ASSERT_EQ(kfs_meta_lookup(fx_m, 1, ".", 1, &a, &fx_err), -EINVAL);
    ASSERT_EQ(kfs_meta_lookup(fx_m, 1, "..", 2, &a, &fx_err), -EINVAL);
    ASSERT_EQ(kfs_meta_lookup(fx_m, 1, "a/b", 3, &a, &fx_err), -EINVAL);
    ASSERT_EQ(kfs_meta_lookup(fx_m, 1, "a\0b", 3, &a, &fx_err), -EINVAL);
    ASSERT_EQ(kfs_meta_create(fx_m, NULL, 1, longest, 256, S_IFREG, 0, NULL, NULL, 0, &a, &fx_err), -ENAMETOOLONG);
    ASSERT_OK(kfs_meta_create(fx_m, NULL, 1, longest, 255, S_IFREG, 0, NULL, NULL, 0, &a, &fx_err), fx_err);
    kfs_ino_t ino = a.ino;
    ASSERT_OK(kfs_meta_lookup(fx_m, 1, longest, 255, &a, &fx_err), fx_err);
    ASSERT_EQ(a.ino, ino);
    const char bytes[] = "\xff\xfe\x01 \n\xc3\x28...";
    ino = fx_make(1, bytes, S_IFDIR | 0755);
    ASSERT_EQ(fx_ino(1, bytes), ino);
    char path[64];
    ASSERT_EQ(kfs_meta_path_of(fx_m, ino, path, sizeof path, &fx_err), strlen(bytes) + 1);
    ASSERT_STR(path + 1, bytes);
    ASSERT_EQ(fx_ino(1, "FF"), 0);
    (void)fx_make(1, "ff", S_IFREG);
    ASSERT_EQ(fx_ino(1, "FF"), 0); /* names differ by case */
    fx_check();
}

TEST(lookup_in_what_is_no_directory)
{
    struct kfs_attr a;
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    ASSERT_EQ(kfs_meta_lookup(fx_m, f, "x", 1, &a, &fx_err), -ENOTDIR);
    ASSERT_EQ(kfs_meta_lookup(fx_m, 999999, "x", 1, &a, &fx_err), -ENOENT);
    ASSERT_EQ(kfs_meta_lookup(fx_m, 1, "x", 1, &a, &fx_err), -ENOENT);
    ASSERT_EQ(kfs_meta_getattr(fx_m, 999999, &a, &fx_err), -ENOENT);
    ASSERT_EQ(fx_make_as(NULL, f, "x", S_IFREG, &a), -ENOTDIR);
    ASSERT_EQ(fx_make_as(NULL, 999999, "x", S_IFREG, &a), -ENOENT);
}

TEST(create_each_type)
{
    struct kfs_attr a;
    struct kfs_cred c = fx_user(10, 20);
    fx_fresh();
    ASSERT_OK(fx_make_as(&c, 1, "reg", S_IFREG | 04640, &a), fx_err);
    ASSERT_EQ(a.mode, S_IFREG | 04640);
    ASSERT_EQ(a.uid, 10);
    ASSERT_EQ(a.gid, 20);
    ASSERT_EQ(a.nlink, 1);
    ASSERT_EQ(a.size_bytes, 0);
    ASSERT_EQ(a.parent, 0);
    ASSERT(a.mtime_s > 1500000000 && a.btime_s == a.mtime_s && a.ctime_ns == a.atime_ns);
    struct kfs_attr got = fx_attr(a.ino);
    ASSERT_EQ(memcmp(&got, &a, sizeof a), 0);
    ASSERT_OK(fx_make_as(&c, 1, "dir", S_IFDIR | 0750, &a), fx_err);
    ASSERT_EQ(a.nlink, 2);
    ASSERT_EQ(a.size_bytes, 4096);
    ASSERT_EQ(a.blocks, 8);
    ASSERT_EQ(a.parent, 1);
    ASSERT_EQ(fx_attr(1).nlink, 3);
    ASSERT_OK(fx_make_as(&c, 1, "lnk", S_IFLNK | 0644, &a), fx_err);
    ASSERT_EQ(a.mode, S_IFLNK | 0777);
    ASSERT_EQ(a.size_bytes, 6);
    ASSERT_EQ(a.blocks, 0);
    char buf[KFS_PATH_MAX];
    ASSERT_EQ(kfs_meta_readlink(fx_m, a.ino, buf, &fx_err), 6);
    ASSERT_STR(buf, "target");
    ASSERT_EQ(kfs_meta_readlink(fx_m, 1, buf, &fx_err), -EINVAL);
    ASSERT_EQ(kfs_meta_readlink(fx_m, 999999, buf, &fx_err), -ENOENT);
    ASSERT_OK(fx_make_as(&c, 1, "fifo", S_IFIFO | 0600, &a), fx_err);
    ASSERT_OK(fx_make_as(&c, 1, "sock", S_IFSOCK | 0600, &a), fx_err);
    ASSERT_EQ(fx_make_as(&c, 1, "chr", S_IFCHR | 0600, &a), -EPERM);
    ASSERT_OK(kfs_meta_create(fx_m, NULL, 1, "chr", 3, S_IFCHR | 0600, 0x103, NULL, NULL, 0, &a, &fx_err), fx_err);
    ASSERT_EQ(fx_attr(a.ino).rdev, 0x103);
    ASSERT_EQ(fx_make_as(&c, 1, "bad", 0170000, &a), -EINVAL);
    fx_check();
}

TEST(create_existing_tells_what_is_there)
{
    struct kfs_attr a = {0};
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    memset(&fx_err, 0, sizeof fx_err);
    ASSERT_EQ(fx_make_as(NULL, 1, "f", S_IFDIR | 0755, &a), -EEXIST);
    ASSERT_EQ(a.ino, f);
    ASSERT_EQ(fx_err.code, 0); /* an answer, not a failure */
    ASSERT_EQ(fx_attr(1).nlink, 2);
}

TEST(create_symlink_targets)
{
    struct kfs_attr a;
    static char target[5000], buf[KFS_PATH_MAX];
    memset(target, 't', sizeof target);
    fx_fresh();
    target[4096] = 0;
    ASSERT_EQ(kfs_meta_create(fx_m, NULL, 1, "l", 1, S_IFLNK, 0, target, NULL, 0, &a, &fx_err), -ENAMETOOLONG);
    target[4095] = 0;
    ASSERT_OK(kfs_meta_create(fx_m, NULL, 1, "l", 1, S_IFLNK, 0, target, NULL, 0, &a, &fx_err), fx_err);
    ASSERT_EQ(kfs_meta_readlink(fx_m, a.ino, buf, &fx_err), 4095);
    ASSERT_STR(buf, target);
    ASSERT_EQ(kfs_meta_create(fx_m, NULL, 1, "e", 1, S_IFLNK, 0, "", NULL, 0, &a, &fx_err), -ENOENT);
    fx_check();
}

TEST(create_in_setgid_directory)
{
    struct kfs_attr a;
    struct kfs_cred in = fx_user(10, 20), out = fx_user(11, 21);
    fx_fresh();
    in.group_count = 1;
    in.groups[0] = 77;
    kfs_ino_t d = fx_make(1, "d", S_IFDIR | 0777);
    ASSERT_EQ(fx_chown(NULL, d, -1, 77), 0);
    ASSERT_EQ(fx_chmod(NULL, d, 02777), 0);
    ASSERT_OK(fx_make_as(&in, d, "sub", S_IFDIR | 0755, &a), fx_err);
    ASSERT_EQ(a.gid, 77);
    ASSERT_EQ(a.mode & 07777, 02755);
    ASSERT_OK(fx_make_as(&in, d, "prog", S_IFREG | 02755, &a), fx_err);
    ASSERT_EQ(a.mode & 07777, 02755);
    ASSERT_OK(fx_make_as(&out, d, "prog2", S_IFREG | 02755, &a), fx_err);
    ASSERT_EQ(a.gid, 77);
    ASSERT_EQ(a.mode & 07777, 0755);
    ASSERT_OK(fx_make_as(&out, 1, "plain", S_IFREG | 02755, &a), fx_err);
    ASSERT_EQ(a.gid, 21);
    ASSERT_EQ(a.mode & 07777, 02755);
    fx_check();
}

TEST(link_and_unlink_count)
{
    struct kfs_attr a;
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644), d = fx_make(1, "d", S_IFDIR | 0755);
    ASSERT_EQ(fx_link(NULL, f, d, "g"), 0);
    ASSERT_EQ(fx_attr(f).nlink, 2);
    ASSERT_EQ(fx_link(NULL, f, d, "g"), -EEXIST);
    ASSERT_EQ(fx_link(NULL, d, 1, "d2"), -EPERM);
    ASSERT_EQ(fx_link(NULL, f, f, "x"), -ENOTDIR);
    ASSERT_EQ(fx_link(NULL, 999999, 1, "x"), -ENOENT);
    ASSERT_EQ(fx_unlink(NULL, 1, "f", true), -ENOTDIR);
    ASSERT_EQ(fx_unlink(NULL, 1, "d", false), -EISDIR);
    ASSERT_EQ(fx_unlink(NULL, 1, "d", true), -ENOTEMPTY);
    ASSERT_EQ(fx_unlink(NULL, 1, "nothing", false), -ENOENT);
    ASSERT_EQ(kfs_meta_unlink(fx_m, NULL, 1, "f", 1, false, NULL, &a, &fx_err), 0);
    ASSERT_EQ(a.nlink, 1);
    ASSERT_EQ(fx_unlink(NULL, d, "g", false), 0);
    ASSERT_EQ(fx_attr(f).nlink, 0);
    ASSERT_EQ(fx_link(NULL, f, 1, "again"), -ENOENT); /* no way back */
    ASSERT_EQ(kfs_meta_unlink(fx_m, NULL, 1, "d", 1, true, NULL, &a, &fx_err), 0);
    ASSERT_EQ(a.nlink, 0);
    ASSERT_EQ(fx_attr(1).nlink, 2);
    ASSERT_EQ(fx_make_as(NULL, d, "x", S_IFREG, &a), -ENOENT); /* in a removed directory */
    ASSERT_EQ(fx_link(NULL, f, d, "x"), -ENOENT);
    fx_check();
}

TEST(nlink_overflow)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    kfs_meta_close(fx_m);
    fx_m = NULL;
    raw("UPDATE inode SET nlink=2147483647");
    fx_open();
    struct kfs_attr a;
    ASSERT_EQ(fx_link(NULL, f, 1, "g"), -EMLINK);
    ASSERT_EQ(fx_make_as(NULL, 1, "d", S_IFDIR, &a), -EMLINK);
}

TEST(times_of_parents_and_inodes)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644);
    struct kfs_meta_setattr old = {.valid = KFS_SET_MTIME | KFS_SET_ATIME, .mtime_s = 5, .mtime_ns = 6, .atime_s = -7, .atime_ns = 8};
    struct kfs_attr a;
#define AGE() ASSERT_OK(kfs_meta_setattr(fx_m, NULL, 1, &old, NULL, &a, &fx_err), fx_err)
    AGE();
    ASSERT_EQ(a.mtime_s, 5);
    ASSERT_EQ(a.mtime_ns, 6);
    ASSERT_EQ(a.atime_s, -7);
    ASSERT_EQ(a.atime_ns, 8);
    ASSERT(fx_attr(1).ctime_s > 1500000000);
    (void)fx_make(1, "g", S_IFREG);
    ASSERT(fx_attr(1).mtime_s > 5);
    AGE();
    ASSERT_EQ(fx_link(NULL, f, 1, "h"), 0);
    ASSERT(fx_attr(1).mtime_s > 5);
    AGE();
    ASSERT_EQ(fx_unlink(NULL, 1, "h", false), 0);
    ASSERT(fx_attr(1).mtime_s > 5);
    AGE();
    ASSERT_EQ(fx_rename(NULL, 1, "f", 1, "i", 0), 0);
    ASSERT(fx_attr(1).mtime_s > 5);
    AGE();
    ASSERT_EQ(fx_unlink(NULL, 1, "nothing", false), -ENOENT); /* what fails changes nothing */
    ASSERT_EQ(fx_attr(1).mtime_s, 5);
#undef AGE
}

/* --- readdir --------------------------------------------------------------------------------------------------- */

struct listing {
    char last[256];
    size_t last_len;
    int count, stop_after;
    bool sorted;
};

static int list_cb(void *arg, const char *name, size_t len, const struct kfs_attr *attr)
{
    struct listing *l = arg;
    if (l->count == l->stop_after)
        return 1;
    size_t n = len < l->last_len ? len : l->last_len;
    int c = memcmp(l->last, name, n);
    if (l->last_len && (c > 0 || (c == 0 && l->last_len >= len)))
        l->sorted = false;
    memcpy(l->last, name, len);
    l->last_len = len;
    l->count += attr->ino != 0;
    return 0;
}

TEST(readdir_pages_with_deletions_in_between)
{
    fx_fresh();
    kfs_ino_t d = fx_make(1, "d", S_IFDIR | 0755);
    char name[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "%05d", (i * 2731) % 5000);
        (void)fx_make(d, name, S_IFREG | 0644);
    }
    struct listing l = {.sorted = true};
    bool end = false;
    int total = 0, pages = 0;
    while (!end) {
        l.count = 0;
        l.stop_after = 97;
        ASSERT_OK(kfs_meta_readdir(fx_m, d, l.last, l.last_len, list_cb, &l, &end, &fx_err), fx_err);
        total += l.count;
        pages++;
        /* Every other page, the cursor's own name goes; every tenth page something new comes, before and behind the cursor. */
        ASSERT_EQ(l.last_len, 5);
        snprintf(name, sizeof name, "%.5s", l.last);
        if (pages % 2)
            ASSERT_EQ(fx_unlink(NULL, d, name, false), 0);
        if (pages % 10 == 0) {
            snprintf(name, sizeof name, "%.5s+", l.last);
            (void)fx_make(d, name, S_IFREG);
            snprintf(name, sizeof name, "!%d", pages);
            (void)fx_make(d, name, S_IFREG);
        }
    }
    ASSERT(l.sorted);
    ASSERT_EQ(pages, 52);
    ASSERT_EQ(total, 5000 + 5); /* those with '+' come right behind the cursor */
    fx_check();
}

TEST(readdir_edges)
{
    struct listing l = {.stop_after = 100, .sorted = true};
    bool end = false;
    fx_fresh();
    ASSERT_OK(kfs_meta_readdir(fx_m, 1, NULL, 0, list_cb, &l, &end, &fx_err), fx_err);
    ASSERT(end && l.count == 0);
    kfs_ino_t f = fx_make(1, "f", S_IFREG);
    ASSERT_EQ(kfs_meta_readdir(fx_m, f, NULL, 0, list_cb, &l, &end, &fx_err), -ENOTDIR);
    ASSERT_EQ(kfs_meta_readdir(fx_m, 99999, NULL, 0, list_cb, &l, &end, &fx_err), -ENOENT);
    l.stop_after = 0;
    ASSERT_OK(kfs_meta_readdir(fx_m, 1, NULL, 0, list_cb, &l, &end, &fx_err), fx_err);
    ASSERT(!end && l.count == 0);
    l.stop_after = 1;
    ASSERT_OK(kfs_meta_readdir(fx_m, 1, NULL, 0, list_cb, &l, &end, &fx_err), fx_err);
    ASSERT(end && l.count == 1);
    kfs_ino_t d = fx_make(1, "d", S_IFDIR);
    ASSERT_EQ(fx_unlink(NULL, 1, "d", true), 0);
    ASSERT_OK(kfs_meta_readdir(fx_m, d, NULL, 0, list_cb, &l, &end, &fx_err), fx_err); /* removed, but open: empty */
    ASSERT(end);
}

/* --- path_of --------------------------------------------------------------------------------------------------- */

TEST(path_of_directories)
{
    static char buf[KFS_PATH_MAX];
    fx_fresh();
    ASSERT_EQ(kfs_meta_path_of(fx_m, 1, buf, sizeof buf, &fx_err), 1);
    ASSERT_STR(buf, "/");
    kfs_ino_t a = fx_make(1, "a", S_IFDIR), b = fx_make(a, "bb", S_IFDIR), c = fx_make(b, "c", S_IFDIR);
    ASSERT_EQ(kfs_meta_path_of(fx_m, c, buf, sizeof buf, &fx_err), 7);
    ASSERT_STR(buf, "/a/bb/c");
    ASSERT_EQ(kfs_meta_path_of(fx_m, c, buf, 8, &fx_err), 7);
    ASSERT_EQ(kfs_meta_path_of(fx_m, c, buf, 7, &fx_err), -ERANGE);
    ASSERT_EQ(kfs_meta_path_of(fx_m, 1, buf, 1, &fx_err), -ERANGE);
    ASSERT_EQ(fx_rename(NULL, a, "bb", 1, "moved", 0), 0);
    ASSERT_EQ(kfs_meta_path_of(fx_m, c, buf, sizeof buf, &fx_err), 8);
    ASSERT_STR(buf, "/moved/c");
    ASSERT_EQ(fx_unlink(NULL, b, "c", true), 0);
    ASSERT_EQ(kfs_meta_path_of(fx_m, c, buf, sizeof buf, &fx_err), -ENOENT);
    ASSERT_EQ(kfs_meta_path_of(fx_m, 99999, buf, sizeof buf, &fx_err), -ENOENT);
    ASSERT_EQ(kfs_meta_path_of(fx_m, fx_make(1, "f", S_IFREG), buf, sizeof buf, &fx_err), -ENOTDIR);
    char name[128];
    memset(name, 'x', sizeof name);
    kfs_ino_t deep = 1;
    struct kfs_attr at;
    int rc = 0;
    for (int i = 0; i < 40 && rc >= 0; i++) {
        ASSERT_OK(kfs_meta_create(fx_m, NULL, deep, name, 127, S_IFDIR, 0, NULL, NULL, 0, &at, &fx_err), fx_err);
        deep = at.ino;
        rc = kfs_meta_path_of(fx_m, deep, buf, sizeof buf, &fx_err);
        ASSERT_EQ(rc, i < 31 ? (i + 1) * 128 : -ERANGE);
    }
    fx_check();
}

/* --- permissions ----------------------------------------------------------------------------------------------- */

TEST(permission_matrix_of_the_parent)
{
    /* For each mode of the directory as its owner sees it: what may be done in it. */
    struct kfs_cred c = fx_user(10, 20);
    struct kfs_attr a;
    fx_fresh();
    kfs_ino_t d = fx_make(1, "d", S_IFDIR | 0777);
    ASSERT_EQ(fx_chown(NULL, d, 10, 20), 0);
    kfs_ino_t f = fx_make(1, "outside", S_IFREG | 0666);
    for (uint32_t bits = 0; bits < 8; bits++) {
        ASSERT_EQ(fx_chmod(NULL, d, bits << 6), 0);
        bool x = bits & 1, w = bits & 2;
        int want = x && w ? 0 : -EACCES;
        (void)fx_make(d, "there", S_IFREG | 0666);
        (void)fx_make(d, "sub", S_IFDIR | 0777);
        ASSERT_EQ(fx_make_as(&c, d, "new", S_IFREG | 0644, &a), want);
        ASSERT_EQ(fx_make_as(&c, d, "new2", S_IFDIR | 0755, &a), want);
        ASSERT_EQ(fx_make_as(&c, d, "new3", S_IFLNK, &a), want);
        ASSERT_EQ(fx_make_as(&c, d, "there", S_IFREG | 0644, &a), x ? -EEXIST : -EACCES);
        ASSERT_EQ(kfs_meta_create(fx_m, &c, d, NULL, 0, S_IFREG | 0600, 0, NULL, NULL, 0, &a, &fx_err), want);
        ASSERT_EQ(fx_link(&c, f, d, "hard"), want);
        ASSERT_EQ(fx_link(&c, f, d, "there"), x ? -EEXIST : -EACCES);
        ASSERT_EQ(fx_unlink(&c, d, "nothing", false), x ? -ENOENT : -EACCES);
        ASSERT_EQ(fx_rename(&c, d, "there", 1, "out", 0), want);
        ASSERT_EQ(fx_rename(&c, 1, w && x ? "out" : "outside", d, "in", 0), want);
        if (w && x)
            ASSERT_EQ(fx_rename(NULL, d, "in", 1, "out", 0), 0);
        ASSERT_EQ(fx_rename(&c, d, "sub", d, "sub2", 0), want);
        if (w && x)
            ASSERT_EQ(fx_rename(NULL, d, "sub2", d, "sub", 0), 0);
        ASSERT_EQ(fx_unlink(&c, d, "sub", true), want);
        /* as root: everything */
        const char *const names[] = {"new", "new3", "hard", "there"};
        for (size_t i = 0; i < 4; i++)
            (void)fx_unlink(NULL, d, names[i], false);
        (void)fx_unlink(NULL, d, "new2", true);
        (void)fx_unlink(NULL, d, "sub", true);
        (void)fx_unlink(NULL, 1, "out", false);
    }
    fx_check();
}

TEST(permission_by_group_and_others)
{
    struct kfs_cred group = fx_user(11, 5), other = fx_user(12, 6);
    struct kfs_attr a;
    fx_fresh();
    group.group_count = 2;
    group.groups[0] = 9;
    group.groups[1] = 20;
    kfs_ino_t d = fx_make(1, "d", S_IFDIR | 0);
    ASSERT_EQ(fx_chown(NULL, d, 10, 20), 0);
    ASSERT_EQ(fx_chmod(NULL, d, 0730), 0);
    ASSERT_EQ(fx_make_as(&group, d, "g", S_IFREG, &a), 0);
    ASSERT_EQ(fx_make_as(&other, d, "o", S_IFREG, &a), -EACCES);
    ASSERT_EQ(fx_chmod(NULL, d, 0703), 0); /* the group's bits count for its members, even when others may more */
    ASSERT_EQ(fx_make_as(&group, d, "g2", S_IFREG, &a), -EACCES);
    ASSERT_EQ(fx_make_as(&other, d, "o", S_IFREG, &a), 0);
}

TEST(permission_sticky)
{
    struct kfs_cred owner = fx_user(10, 20), dirowner = fx_user(11, 20), other = fx_user(12, 20);
    struct kfs_attr a;
    fx_fresh();
    kfs_ino_t d = fx_make(1, "d", S_IFDIR | 0777), e = fx_make(1, "e", S_IFDIR | 0777);
    ASSERT_EQ(fx_chown(NULL, d, 11, 20), 0);
    ASSERT_EQ(fx_chmod(NULL, d, 01777), 0);
    ASSERT_OK(fx_make_as(&owner, d, "f", S_IFREG | 0666, &a), fx_err);
    ASSERT_OK(fx_make_as(&other, d, "mine", S_IFREG | 0666, &a), fx_err);
    ASSERT_EQ(fx_unlink(&other, d, "f", false), -EPERM);
    ASSERT_EQ(fx_rename(&other, d, "f", d, "g", 0), -EPERM);
    ASSERT_EQ(fx_rename(&other, d, "f", e, "g", 0), -EPERM);
    ASSERT_EQ(fx_rename(&other, d, "mine", d, "f", 0), -EPERM); /* would remove f */
    ASSERT_EQ(fx_rename(&other, d, "mine", d, "f", 2), -EPERM);
    ASSERT_EQ(fx_rename(&owner, d, "f", d, "g", 0), 0);
    ASSERT_EQ(fx_unlink(&dirowner, d, "g", false), 0);
    ASSERT_EQ(fx_unlink(NULL, d, "mine", false), 0);
    /* a directory of somebody else between sticky directories */
    ASSERT_EQ(fx_chmod(NULL, e, 01777), 0);
    ASSERT_OK(fx_make_as(&owner, d, "sub", S_IFDIR | 0755, &a), fx_err);
    ASSERT_EQ(fx_rename(&other, d, "sub", e, "sub", 0), -EPERM);
    ASSERT_EQ(fx_rename(&dirowner, d, "sub", e, "sub", 0), -EACCES); /* its ".." needs write permission on it */
    ASSERT_EQ(fx_rename(&dirowner, d, "sub", d, "sub2", 0), 0);      /* its parent stays */
    ASSERT_EQ(fx_rename(&owner, d, "sub2", e, "sub", 0), 0);
    fx_check();
}

TEST(permission_chmod)
{
    struct kfs_cred owner = fx_user(10, 20), other = fx_user(11, 20);
    struct kfs_attr a;
    fx_fresh();
    ASSERT_OK(fx_make_as(&owner, 1, "f", S_IFREG | 0644, &a), fx_err);
    ASSERT_EQ(fx_chmod(&other, a.ino, 0600), -EPERM);
    ASSERT_EQ(fx_chmod(&owner, a.ino, 06755), 0);
    ASSERT_EQ(fx_attr(a.ino).mode, S_IFREG | 06755);
    ASSERT_EQ(fx_chown(NULL, a.ino, -1, 99), 0);
    ASSERT_EQ(fx_chmod(&owner, a.ino, 02755), 0); /* not in group 99: no setgid */
    ASSERT_EQ(fx_attr(a.ino).mode, S_IFREG | 0755);
    ASSERT_EQ(fx_chmod(NULL, a.ino, 07777), 0);
    ASSERT_EQ(fx_attr(a.ino).mode, S_IFREG | 07777);
    ASSERT_EQ(fx_chmod(NULL, fx_make(1, "l", S_IFLNK), 0600), -EOPNOTSUPP);
    ASSERT_EQ(fx_chmod(NULL, 99999, 0600), -ENOENT);
}

TEST(permission_chown_and_set_id_bits)
{
    struct kfs_cred owner = fx_user(10, 20), other = fx_user(11, 20);
    struct kfs_attr a;
    fx_fresh();
    owner.group_count = 1;
    owner.groups[0] = 30;
    ASSERT_OK(fx_make_as(&owner, 1, "f", S_IFREG | 06755, &a), fx_err);
    ASSERT_EQ(fx_chown(&owner, a.ino, 11, -1), -EPERM); /* nothing is given away */
    ASSERT_EQ(fx_chown(&owner, a.ino, -1, 99), -EPERM);
    ASSERT_EQ(fx_attr(a.ino).mode & 07777, 06755);
    ASSERT_EQ(fx_chown(&other, a.ino, -1, 20), -EPERM);
    ASSERT_EQ(fx_chown(&other, a.ino, 10, -1), -EPERM);
    ASSERT_EQ(fx_chown(&owner, a.ino, 10, 30), 0);
    struct kfs_attr b = fx_attr(a.ino);
    ASSERT_EQ(b.gid, 30);
    ASSERT_EQ(b.mode & 07777, 0755); /* set-id bits go */
    ASSERT_EQ(fx_chmod(NULL, a.ino, 06755), 0);
    ASSERT_EQ(fx_chown(NULL, a.ino, 12, 13), 0);
    b = fx_attr(a.ino);
    ASSERT_EQ(b.uid, 12);
    ASSERT_EQ(b.gid, 13);
    ASSERT_EQ(b.mode & 07777, 0755); /* root's as well */
    ASSERT_EQ(fx_chmod(NULL, a.ino, 06644), 0);
    ASSERT_EQ(fx_chown(NULL, a.ino, 12, 13), 0);
    ASSERT_EQ(fx_attr(a.ino).mode & 07777, 02644); /* setgid without group execution is no set-id */
    kfs_ino_t d = fx_make(1, "d", S_IFDIR | 02755);
    ASSERT_EQ(fx_chown(NULL, d, 12, 13), 0);
    ASSERT_EQ(fx_attr(d).mode & 07777, 02755); /* a directory keeps it */
}

TEST(permission_utimens)
{
    struct kfs_cred owner = fx_user(10, 20), other = fx_user(11, 21);
    struct kfs_attr a;
    fx_fresh();
    ASSERT_OK(fx_make_as(&owner, 1, "f", S_IFREG | 0644, &a), fx_err);
    const uint32_t given = KFS_SET_ATIME | KFS_SET_MTIME, now = KFS_SET_ATIME_NOW | KFS_SET_MTIME_NOW;
    struct kfs_meta_setattr s = {.valid = given, .atime_s = 1, .mtime_s = 2, .mtime_ns = 999999999};
    ASSERT_EQ(kfs_meta_setattr(fx_m, &other, a.ino, &s, NULL, NULL, &fx_err), -EPERM);
    ASSERT_EQ(kfs_meta_setattr(fx_m, &owner, a.ino, &s, NULL, &a, &fx_err), 0);
    ASSERT_EQ(a.mtime_ns, 999999999);
    s.valid = given | now;
    ASSERT_EQ(kfs_meta_setattr(fx_m, &other, a.ino, &s, NULL, NULL, &fx_err), -EACCES);
    ASSERT_EQ(fx_chmod(NULL, a.ino, 0666), 0);
    ASSERT_EQ(kfs_meta_setattr(fx_m, &other, a.ino, &s, NULL, &a, &fx_err), 0);
    ASSERT(a.mtime_s > 2 && a.atime_s > 2);
    s.valid = KFS_SET_MTIME_NOW; /* one alone needs the owner */
    ASSERT_EQ(kfs_meta_setattr(fx_m, &other, a.ino, &s, NULL, NULL, &fx_err), -EPERM);
    s.valid = now | KFS_SET_ATIME;
    ASSERT_EQ(kfs_meta_setattr(fx_m, &other, a.ino, &s, NULL, NULL, &fx_err), 0);
    s.valid = KFS_SET_MTIME;
    s.mtime_ns = 1000000000;
    ASSERT_EQ(kfs_meta_setattr(fx_m, &owner, a.ino, &s, NULL, NULL, &fx_err), -EINVAL);
    s.valid = 0;
    ASSERT_EQ(kfs_meta_setattr(fx_m, &other, a.ino, &s, NULL, &a, &fx_err), 0); /* nothing asked */
    s.valid = KFS_SET_MODE | KFS_SET_MTIME;
    s.mode = 0600;
    ASSERT_EQ(kfs_meta_setattr(fx_m, &owner, a.ino, &s, NULL, NULL, &fx_err), -EINVAL);
    ASSERT_EQ(fx_attr(a.ino).mode & 07777, 0666); /* all or nothing */
}

/* --- xattrs ---------------------------------------------------------------------------------------------------- */

TEST(xattr_life)
{
    struct kfs_cred owner = fx_user(10, 20), other = fx_user(11, 21);
    struct kfs_attr at;
    char buf[256];
    fx_fresh();
    ASSERT_OK(fx_make_as(&owner, 1, "f", S_IFREG | 0640, &at), fx_err);
    kfs_ino_t f = at.ino;
#define SET(c, n, v, fl) kfs_meta_xattr_set(fx_m, c, f, n, v, strlen(v), fl, NULL, &fx_err)
#define GET(c, n, cap) kfs_meta_xattr_get(fx_m, c, f, n, buf, cap, &fx_err)
    ASSERT_EQ(GET(&owner, "user.a", 100), -ENODATA);
    ASSERT_EQ(kfs_meta_xattr_list(fx_m, &owner, f, buf, 100, &fx_err), 0);
    ASSERT_EQ(SET(&owner, "user.a", "one", XATTR_REPLACE), -ENODATA);
    ASSERT_EQ(SET(&owner, "user.a", "one", XATTR_CREATE), 0);
    ASSERT_EQ(fx_attr(f).flags, KFS_ATTR_XATTRS);
    ASSERT_EQ(SET(&owner, "user.a", "two", XATTR_CREATE), -EEXIST);
    ASSERT_EQ(SET(&owner, "user.a", "two!", XATTR_REPLACE), 0);
    ASSERT_EQ(SET(&owner, "user.empty", "", 0), 0);
    ASSERT_EQ(GET(&owner, "user.a", 0), 4);
    ASSERT_EQ(GET(&owner, "user.a", 3), -ERANGE);
    ASSERT_EQ(GET(&owner, "user.a", 4), 4);
    ASSERT_EQ(memcmp(buf, "two!", 4), 0);
    ASSERT_EQ(GET(&owner, "user.empty", 10), 0);
    ASSERT_EQ(GET(&other, "user.a", 10), -EACCES);
    ASSERT_EQ(SET(&other, "user.b", "x", 0), -EACCES);
    ASSERT_EQ(SET(&owner, "trusted.t", "x", 0), -EPERM);
    ASSERT_EQ(SET(&owner, "security.s", "x", 0), -EPERM);
    ASSERT_EQ(SET(NULL, "trusted.t", "x", 0), 0);
    ASSERT_EQ(SET(NULL, "security.s", "x", 0), 0);
    ASSERT_EQ(GET(&owner, "trusted.t", 10), -ENODATA);
    ASSERT_EQ(GET(&owner, "security.s", 10), 1);
    ASSERT_EQ(SET(NULL, "system.posix_acl_access", "x", 0), -EOPNOTSUPP);
    ASSERT_EQ(GET(NULL, "system.posix_acl_access", 10), -EOPNOTSUPP);
    ASSERT_EQ(SET(NULL, "nonsense", "x", 0), -EOPNOTSUPP);
    ASSERT_EQ(SET(NULL, "user.", "x", 0), -EINVAL);
    ASSERT_EQ(SET(NULL, "user.x", "x", 3), -EINVAL);
    int n = kfs_meta_xattr_list(fx_m, &owner, f, buf, sizeof buf, &fx_err);
    ASSERT_EQ(n, 7 + 11 + 11);
    ASSERT_EQ(memcmp(buf, "security.s\0user.a\0user.empty\0", 29), 0);
    ASSERT_EQ(kfs_meta_xattr_list(fx_m, NULL, f, buf, 0, &fx_err), 29 + 10);
    ASSERT_EQ(kfs_meta_xattr_list(fx_m, NULL, f, buf, 38, &fx_err), -ERANGE);
    fx_check();
    const char *const names[] = {"user.a", "user.empty", "trusted.t", "security.s"};
    ASSERT_EQ(kfs_meta_xattr_remove(fx_m, &other, f, "user.a", NULL, &fx_err), -EACCES);
    for (int i = 0; i < 4; i++) {
        ASSERT_EQ(fx_attr(f).flags, KFS_ATTR_XATTRS);
        ASSERT_EQ(kfs_meta_xattr_remove(fx_m, NULL, f, names[i], NULL, &fx_err), 0);
    }
    ASSERT_EQ(fx_attr(f).flags, 0);
    ASSERT_EQ(kfs_meta_xattr_remove(fx_m, NULL, f, "user.a", NULL, &fx_err), -ENODATA);
    /* limits */
    static char big[KFS_XATTR_VALUE_MAX + 1], got[KFS_XATTR_VALUE_MAX];
    memset(big, 'v', sizeof big);
    ASSERT_EQ(kfs_meta_xattr_set(fx_m, NULL, f, "user.big", big, sizeof big, 0, NULL, &fx_err), -E2BIG);
    ASSERT_EQ(kfs_meta_xattr_set(fx_m, NULL, f, "user.big", big, KFS_XATTR_VALUE_MAX, 0, NULL, &fx_err), 0);
    ASSERT_EQ(kfs_meta_xattr_get(fx_m, NULL, f, "user.big", got, sizeof got, &fx_err), KFS_XATTR_VALUE_MAX);
    ASSERT_EQ(memcmp(got, big, sizeof got), 0);
    char name[300];
    memset(name, 'n', sizeof name);
    memcpy(name, "user.", 5);
    name[256] = 0;
    ASSERT_EQ(SET(NULL, name, "x", 0), -ERANGE);
    name[255] = 0;
    ASSERT_EQ(SET(NULL, name, "x", 0), 0);
    /* nothing of user.* on symlinks and special files */
    f = fx_make(1, "l", S_IFLNK);
    ASSERT_EQ(SET(NULL, "user.a", "x", 0), -EPERM);
    ASSERT_EQ(GET(NULL, "user.a", 10), -ENODATA);
    ASSERT_EQ(SET(NULL, "trusted.a", "x", 0), 0);
    f = 99999;
    ASSERT_EQ(SET(NULL, "user.a", "x", 0), -ENOENT);
    fx_check();
#undef SET
#undef GET
}

TEST(xattr_list_has_a_limit)
{
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0640);
    char name[256];
    int rc = 0, n = 0;
    memset(name, 'n', sizeof name);
    memcpy(name, "user.", 5);
    name[255] = 0;
    for (; n < 300 && rc == 0; n++) {
        snprintf(name + 5, 8, "%07d", n);
        name[12] = 'n';
        rc = kfs_meta_xattr_set(fx_m, NULL, f, name, "x", 1, 0, NULL, &fx_err);
    }
    ASSERT_EQ(rc, -ENOSPC);
    ASSERT_EQ(n - 1, 256);
    ASSERT_EQ(kfs_meta_xattr_list(fx_m, NULL, f, NULL, 0, &fx_err), 65536);
}

/* --- replay ---------------------------------------------------------------------------------------------------- */

TEST(op_results_are_remembered)
{
    struct kfs_attr a, b;
    struct kfs_op_result r = {.status = 99};
    struct kfs_opid op = {{1, 2}, 1}, other = {{1, 3}, 1}, none = {{1, 2}, 0};
    fx_fresh();
    ASSERT_EQ(kfs_meta_op_find(fx_m, &op, &r, &fx_err), 0);
    ASSERT_OK(kfs_meta_create(fx_m, NULL, 1, "f", 1, S_IFREG, 0, NULL, &op, 42, &a, &fx_err), fx_err);
    kfs_meta_close(fx_m);
    fx_open();
    ASSERT_EQ(kfs_meta_op_find(fx_m, &op, &r, &fx_err), 1);
    ASSERT_EQ(r.status, 0);
    ASSERT_EQ(r.ino, a.ino);
    ASSERT_EQ(r.value, 42);
    ASSERT_EQ(kfs_meta_op_find(fx_m, &other, &r, &fx_err), 0);
    ASSERT_EQ(kfs_meta_op_find(fx_m, &none, &r, &fx_err), 0);
    ASSERT_EQ(kfs_meta_op_find(fx_m, NULL, &r, &fx_err), 0);
    /* a failure is not an execution */
    op.seq = 2;
    ASSERT_EQ(kfs_meta_create(fx_m, NULL, 1, "f", 1, S_IFREG, 0, NULL, &op, 1, &b, &fx_err), -EEXIST);
    ASSERT_EQ(kfs_meta_op_find(fx_m, &op, &r, &fx_err), 0);
    /* each kind of change, under rising numbers */
    struct kfs_meta_setattr s = {.valid = KFS_SET_MODE, .mode = 0600};
#define DONE(call)                                                                                 \
    op.seq++;                                                                                      \
    ASSERT_OK(call, fx_err);                                                                       \
    ASSERT_EQ(kfs_meta_op_find(fx_m, &op, &r, &fx_err), 1);                                        \
    ASSERT_EQ(r.ino, a.ino)
    DONE(kfs_meta_link(fx_m, NULL, a.ino, 1, "g", 1, &op, &b, &fx_err));
    DONE(kfs_meta_rename(fx_m, NULL, 1, "g", 1, 1, "h", 1, 0, &op, NULL, NULL, &fx_err));
    DONE(kfs_meta_rename(fx_m, NULL, 1, "h", 1, 1, "f", 1, 0, &op, NULL, NULL, &fx_err)); /* nothing happens, but it happened */
    DONE(kfs_meta_setattr(fx_m, NULL, a.ino, &s, &op, &b, &fx_err));
    DONE(kfs_meta_xattr_set(fx_m, NULL, a.ino, "user.a", "x", 1, 0, &op, &fx_err));
    DONE(kfs_meta_xattr_remove(fx_m, NULL, a.ino, "user.a", &op, &fx_err));
    DONE(kfs_meta_unlink(fx_m, NULL, 1, "h", 1, false, &op, &b, &fx_err));
#undef DONE
    op.seq--; /* one row a client: the one before is forgotten */
    ASSERT_EQ(kfs_meta_op_find(fx_m, &op, &r, &fx_err), 0);
    fx_check();
}

/* --- orphans --------------------------------------------------------------------------------------------------- */

TEST(orphan_life)
{
    struct kfs_attr a;
    kfs_ino_t inos[8];
    fx_fresh();
    kfs_ino_t f = fx_make(1, "f", S_IFREG | 0644), l = fx_make(1, "l", S_IFLNK), d = fx_make(1, "d", S_IFDIR);
    ASSERT_EQ(kfs_meta_xattr_set(fx_m, NULL, f, "user.a", "x", 1, 0, NULL, &fx_err), 0);
    static struct kfs_content_delta delta = {.changed = true, .to_inline = true, .inline_len = 3, .size_bytes = 3};
    ASSERT_OK(kfs_meta_commit(fx_m, f, &delta, 1, 0, NULL, &fx_err), fx_err);
    ASSERT_EQ(kfs_meta_orphan_list(fx_m, inos, 8, &fx_err), 0);
    ASSERT_EQ(kfs_meta_orphan_purge(fx_m, f, &fx_err), -EBUSY);
    ASSERT_EQ(fx_unlink(NULL, 1, "f", false), 0);
    ASSERT_EQ(fx_unlink(NULL, 1, "l", false), 0);
    ASSERT_EQ(fx_unlink(NULL, 1, "d", true), 0);
    ASSERT_EQ(kfs_meta_orphan_list(fx_m, inos, 8, &fx_err), 3);
    ASSERT_EQ(kfs_meta_orphan_list(fx_m, inos, 2, &fx_err), 2);
    ASSERT_EQ(inos[0], f);
    /* an orphan still works: attributes, content, xattrs */
    ASSERT_EQ(fx_chmod(NULL, f, 0600), 0);
    ASSERT_OK(kfs_meta_commit(fx_m, f, &delta, 2, 0, &a, &fx_err), fx_err);
    ASSERT_EQ(a.nlink, 0);
    ASSERT_EQ(kfs_meta_xattr_set(fx_m, NULL, f, "user.b", "x", 1, 0, NULL, &fx_err), 0);
    fx_check(); /* also over a restart */
    ASSERT_OK(kfs_meta_orphan_purge(fx_m, f, &fx_err), fx_err);
    ASSERT_OK(kfs_meta_orphan_purge(fx_m, l, &fx_err), fx_err);
    ASSERT_OK(kfs_meta_orphan_purge(fx_m, d, &fx_err), fx_err);
    ASSERT_EQ(kfs_meta_orphan_purge(fx_m, f, &fx_err), -ENOENT);
    ASSERT_EQ(kfs_meta_getattr(fx_m, f, &a, &fx_err), -ENOENT);
    ASSERT_EQ(kfs_meta_orphan_list(fx_m, inos, 8, &fx_err), 0);
    fx_check();
}

TEST(orphan_of_tmpfile_gets_its_first_name)
{
    struct kfs_attr a;
    kfs_ino_t inos[8];
    struct kfs_cred c = fx_user(10, 20);
    fx_fresh();
    struct kfs_attr root = fx_attr(1);
    ASSERT_OK(kfs_meta_create(fx_m, &c, 1, NULL, 0, S_IFREG | 0600, 0, NULL, NULL, 0, &a, &fx_err), fx_err);
    ASSERT_EQ(a.nlink, 0);
    ASSERT_EQ(fx_attr(1).mtime_ns, root.mtime_ns);
    ASSERT_EQ(kfs_meta_orphan_list(fx_m, inos, 8, &fx_err), 1);
    fx_check();
    ASSERT_EQ(fx_link(&c, a.ino, 1, "named"), 0);
    ASSERT_EQ(fx_attr(a.ino).nlink, 1);
    ASSERT_EQ(kfs_meta_orphan_list(fx_m, inos, 8, &fx_err), 0);
    ASSERT_EQ(kfs_meta_orphan_purge(fx_m, a.ino, &fx_err), -EBUSY);
    ASSERT_EQ(kfs_meta_create(fx_m, &c, 1, NULL, 0, S_IFDIR, 0, NULL, NULL, 0, &a, &fx_err), -EINVAL);
    fx_check();
}

/* --- numbers, walking ------------------------------------------------------------------------------------------ */

TEST(ids_never_come_twice)
{
    uint64_t id, last = 0;
    kfs_ino_t last_ino = 1;
    fx_fresh();
    for (int life = 0; life < 3; life++) {
        for (int i = 0; i < 5000; i++) {
            ASSERT_OK(kfs_meta_object_id(fx_m, &id, &fx_err), fx_err);
            ASSERT(id > last);
            last = id;
        }
        struct kfs_attr a;
        ASSERT_OK(kfs_meta_create(fx_m, NULL, 1, NULL, 0, S_IFREG, 0, NULL, NULL, 0, &a, &fx_err), fx_err);
        ASSERT(a.ino > last_ino);
        last_ino = a.ino;
        ASSERT_OK(kfs_meta_orphan_purge(fx_m, a.ino, &fx_err), fx_err); /* the highest number is free again, and not taken */
        fx_check();
    }
}

static int count_cb(void *arg, const struct kfs_attr *attr)
{
    int *n = arg;
    ++*n;
    return attr->ino == 99999 ? -EINTR : 0;
}

TEST(each_inode_walks_all)
{
    int n = 0;
    fx_fresh();
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        (void)fx_make(1, name, S_IFREG);
    }
    ASSERT_EQ(fx_unlink(NULL, 1, "7", false), 0);
    ASSERT_OK(kfs_meta_each_inode(fx_m, count_cb, &n, &fx_err), fx_err);
    ASSERT_EQ(n, 51); /* the root and the orphan, too */
}

/* --- threads, full disks --------------------------------------------------------------------------------------- */

static void *thread_main(void *arg)
{
    struct kfs_err e = {0};
    struct kfs_attr a;
    char name[32];
    long id = (long)arg, bad = 0;
    for (int i = 0; i < 300; i++) {
        size_t n = (size_t)snprintf(name, sizeof name, "t%ld-%d", id, i);
        bad += kfs_meta_create(fx_m, NULL, 1, name, n, S_IFREG, 0, NULL, NULL, 0, &a, &e) < 0;
        bad += kfs_meta_lookup(fx_m, 1, name, n, &a, &e) < 0;
        bad += i % 100 == 50 && kfs_meta_sync(fx_m, &e) < 0;
        bad += i % 2 && kfs_meta_unlink(fx_m, NULL, 1, name, n, false, NULL, &a, &e) < 0;
        bad += i % 2 && kfs_meta_orphan_purge(fx_m, a.ino, &e) < 0;
    }
    return (void *)bad;
}

TEST(threads_share_a_volume)
{
    pthread_t t[4];
    fx_fresh();
    for (long i = 0; i < 4; i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, thread_main, (void *)i), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        ASSERT_EQ(pthread_join(t[i], &bad), 0);
        ASSERT_EQ((long)bad, 0);
    }
    struct kfs_meta_usage u;
    ASSERT_OK(kfs_meta_usage(fx_m, &u, &fx_err), fx_err);
    ASSERT_EQ(u.inodes, 1 + 4 * 150);
    fx_check();
}

/* In a child with a file system of its own: 77 means that this machine does not allow one. */
static int full_disk_child(void)
{
    struct kfs_meta *m = NULL;
    struct kfs_err e = {0};
    struct kfs_meta_volume v = {.store = "x"};
    struct kfs_attr a;
    char name[32], path[600], filler[600];
    if ((unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", fx_dir, "tmpfs", 0, "size=2m") < 0)
        return 77;
    snprintf(path, sizeof path, "%s/full.db", fx_dir);
    snprintf(filler, sizeof filler, "%s/filler", fx_dir);
    int fd = open(filler, O_CREAT | O_WRONLY, 0600);
    if (fd < 0 || ftruncate(fd, 0) < 0 || posix_fallocate(fd, 0, 1 << 20) != 0)
        return 2;
    close(fd);
    if (kfs_meta_format(path, &v, 0, 0, &e) < 0 || kfs_meta_open(path, &m, &e) < 0)
        return 3;
    int rc = 0, n = 0;
    for (; rc >= 0 && n < 20000; n++)
        rc = kfs_meta_create(m, NULL, 1, name, (size_t)snprintf(name, sizeof name, "f%d", n), S_IFREG, 0, NULL, NULL, 0, &a, &e);
    if (rc != -ENOSPC || !strstr(e.msg, "no space left for database"))
        return 4;
    /* What failed is not there; what was there is; with room again it goes on. */
    if (kfs_meta_lookup(m, 1, name, strlen(name), &a, &e) != -ENOENT || kfs_meta_lookup(m, 1, "f0", 2, &a, &e) < 0)
        return 5;
    if (unlink(filler) < 0 || kfs_meta_create(m, NULL, 1, name, strlen(name), S_IFREG, 0, NULL, NULL, 0, &a, &e) < 0)
        return 6;
    kfs_meta_close(m);
    return kfs_meta_open(path, &m, &e) < 0 || kfs_meta_lookup(m, 1, name, strlen(name), &a, &e) < 0 ? 7 : 0;
}

TEST(full_disk_is_enospc_and_loses_nothing)
{
    fx_fresh();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit(full_disk_child());
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        SKIP("no file system of one's own here");
    ASSERT_EQ(status >> 8, 0);
    ASSERT_EQ(status, 0);
}

/* --- killed in the middle -------------------------------------------------------------------------------------- */

/* Creates, renames, commits and removes for ever; says each finished round on the pipe. */
static void busy_child(int pipe_fd)
{
    struct kfs_meta *m = NULL;
    struct kfs_err e = {0};
    struct kfs_attr a;
    char name[32], name2[32];
    static struct kfs_content_delta d;
    if (kfs_meta_open(fx_path, &m, &e) < 0)
        _exit(3);
    for (uint32_t i = 0;; i++) {
        size_t n = (size_t)snprintf(name, sizeof name, "f%u", i), n2 = (size_t)snprintf(name2, sizeof name2, "g%u", i);
        uint64_t id, bytes = 10;
        struct kfs_extent x = {.off = 0, .len = 10};
        struct kfs_opid op = {{5, 6}, i + 1};
        if (kfs_meta_create(m, NULL, 1, name, n, i % 5 ? S_IFREG : S_IFDIR, 0, NULL, NULL, 0, &a, &e) < 0 || kfs_meta_object_id(m, &id, &e) < 0)
            _exit(4);
        x.object = id;
        d = (struct kfs_content_delta){.changed = true, .size_bytes = 10, .extents = &x, .extent_count = 1, .objects = &id, .object_bytes = &bytes, .object_count = 1};
        if (i % 5 && kfs_meta_commit(m, a.ino, &d, 1, 1, &a, &e) < 0)
            _exit(5);
        if (kfs_meta_rename(m, NULL, 1, name, n, 1, name2, n2, 0, &op, NULL, NULL, &e) < 0)
            _exit(6);
        if (i % 3 == 0 && kfs_meta_unlink(m, NULL, 1, name2, n2, i % 5 == 0, NULL, &a, &e) < 0)
            _exit(7);
        if (write(pipe_fd, &i, sizeof i) != sizeof i)
            _exit(8);
    }
}

TEST(killed_while_changing_leaves_a_whole_volume)
{
    for (int round = 0; round < 8; round++) {
        fx_fresh();
        kfs_meta_close(fx_m);
        fx_m = NULL;
        int p[2];
        ASSERT_EQ(pipe(p), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(p[0]);
            busy_child(p[1]);
        }
        close(p[1]);
        uint32_t last = 0, i;
        uint32_t enough = (uint32_t)(200 + 700 * round); /* the later rounds die behind a checkpoint */
        while (last < enough && read(p[0], &i, sizeof i) == sizeof i)
            last = i;
        ASSERT_EQ(kill(pid, SIGKILL), 0);
        while (read(p[0], &i, sizeof i) == sizeof i)
            last = i;
        close(p[0]);
        int status = 0;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT(WIFSIGNALED(status));
        ASSERT(last >= enough);
        fx_open();
        /* Everything that the child had reported is there, and what it had remembered. */
        char name[32];
        for (i = 0; i <= last; i++) {
            snprintf(name, sizeof name, "g%u", i);
            ASSERT_EQ(fx_ino(1, name) != 0, i % 3 != 0);
        }
        struct kfs_op_result r;
        struct kfs_opid op = {{5, 6}, last + 1}, next = {{5, 6}, last + 2};
        ASSERT_EQ(kfs_meta_op_find(fx_m, &op, &r, &fx_err) + kfs_meta_op_find(fx_m, &next, &r, &fx_err), 1);
        fx_check();
        uint64_t id, known = 1;
        ASSERT_OK(kfs_meta_object_id(fx_m, &id, &fx_err), fx_err);
        known = (uint64_t)kfs_meta_object_known(fx_m, id, &fx_err);
        ASSERT_EQ(known, 0);
    }
}

KT_MAIN
