/* tests/unit/meta/fixture.h — a fresh volume for each case, short names for the calls, and the invariants in SQL
 *
 * With $KFS_TEST_MYSQL ("mysql://USER@HOST:PORT") the same cases run on a server of the MySQL protocol, each volume in a database of its own; those about files
 * say fx_needs_file().
 */
#ifndef KFS_TESTS_UNIT_META_FIXTURE_H
#define KFS_TESTS_UNIT_META_FIXTURE_H

#include "base/pure/wire.h"
#include "meta/db.h"
#include "meta/meta.h"
#include "tests/unit/kt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char fx_dir[256], fx_path[512];
static struct kfs_meta *fx_m;
static struct kfs_err fx_err;
static pid_t fx_owner;

__attribute__((unused)) static void fx_remove_all(void)
{
    if (getpid() != fx_owner)
        return;
    kfs_meta_close(fx_m);
    fx_m = NULL;
    DIR *d = opendir(fx_dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        (void)unlinkat(dirfd(d), e->d_name, 0);
        if (e->d_name[0] != '.')
            (void)unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    }
    if (d)
        closedir(d);
    (void)rmdir(fx_dir);
}

static const char *fx_server(void)
{
    return getenv("KFS_TEST_MYSQL");
}

/* The case is about files: nothing of it is left on a server. */
#define fx_needs_file()                                                                            \
    do {                                                                                           \
        if (fx_server())                                                                           \
            return;                                                                                \
    } while (0)

/* A new, empty database on the server. */
static const char *fx_new_database(int n)
{
    char sql[256], system[256];
    struct kfs_db *db;
    snprintf(system, sizeof system, "%s/mysql", fx_server());
    ASSERT_OK(kfs_db_open(system, false, &db, &fx_err), fx_err);
    snprintf(sql, sizeof sql, "DROP DATABASE IF EXISTS kfs_%d_%d; CREATE DATABASE kfs_%d_%d", getpid(), n - 1, getpid(), n);
    ASSERT_OK(kfs_db_script(db, sql, &fx_err), fx_err);
    kfs_db_close(db);
    snprintf(fx_path, sizeof fx_path, "%s/kfs_%d_%d", fx_server(), getpid(), n);
    return fx_path;
}

/* A new path for a database in the test's directory. */
__attribute__((unused)) static const char *fx_new_path(void)
{
    static int n;
    if (fx_server())
        return fx_new_database(++n);
    if (!fx_dir[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(fx_dir, sizeof fx_dir, "%s/kfs-meta.XXXXXX", tmp && *tmp ? tmp : "/tmp");
        ASSERT(mkdtemp(fx_dir) != NULL);
        fx_owner = getpid();
        atexit(fx_remove_all);
    }
    snprintf(fx_path, sizeof fx_path, "%s/%d.db", fx_dir, n++);
    return fx_path;
}

__attribute__((unused)) static void fx_open(void)
{
    memset(&fx_err, 0, sizeof fx_err);
    ASSERT_OK(kfs_meta_open(fx_path, &fx_m, &fx_err), fx_err);
}

/* A formatted, open volume; its root belongs to root with mode 0777, so that every user may do something there. */
__attribute__((unused)) static void fx_fresh(void)
{
    struct kfs_meta_volume v = {.name = "t", .store = "file:/nowhere"};
    struct kfs_meta_setattr s = {.valid = KFS_SET_MODE, .mode = 0777};
    kfs_meta_close(fx_m);
    fx_m = NULL;
    fx_new_path();
    ASSERT_OK(kfs_meta_format(fx_path, &v, 0, 0, &fx_err), fx_err);
    fx_open();
    ASSERT_OK(kfs_meta_setattr(fx_m, NULL, 1, &s, NULL, NULL, &fx_err), fx_err);
}

__attribute__((unused)) static int fx_rules(struct kfs_db *db)
{
    static const char *const empty[] = {
        /* (1), (2) names and link counts */
        "SELECT * FROM inode i WHERE mode & 61440 <> 16384 AND nlink <> (SELECT count(*) FROM dentry d WHERE d.ino=i.ino)",
        "SELECT * FROM inode i WHERE mode & 61440 = 16384 AND nlink > 0 AND nlink <> 2 + (SELECT count(*) FROM dentry d JOIN inode c ON "
        "c.ino=d.ino WHERE d.parent=i.ino AND c.mode & 61440 = 16384)",
        "SELECT * FROM dentry d LEFT JOIN inode i ON i.ino=d.ino WHERE i.ino IS NULL",
        "SELECT * FROM dentry d LEFT JOIN inode i ON i.ino=d.parent WHERE i.ino IS NULL OR i.mode & 61440 <> 16384 OR i.nlink=0",
        "SELECT * FROM dentry d JOIN inode i ON i.ino=d.ino WHERE d.type <> (i.mode & 61440) >> 12",
        /* a directory has one name, and knows it */
        "SELECT * FROM inode i WHERE mode & 61440 = 16384 AND nlink > 0 AND ino <> 1 AND NOT EXISTS (SELECT 1 FROM dentry d WHERE "
        "d.parent=i.parent AND d.name=i.name AND d.ino=i.ino)",
        "SELECT d.ino FROM dentry d JOIN inode i ON i.ino=d.ino WHERE i.mode & 61440 = 16384 GROUP BY d.ino HAVING count(*) > 1",
        "SELECT * FROM inode WHERE (mode & 61440 = 16384) <> (name IS NOT NULL)",
        /* (3) orphans */
        "SELECT * FROM orphan o LEFT JOIN inode i ON i.ino=o.ino WHERE i.ino IS NULL OR i.nlink <> 0",
        "SELECT * FROM inode WHERE nlink=0 AND ino NOT IN (SELECT ino FROM orphan)",
        /* (4) extents */
        "SELECT * FROM extent a JOIN extent b ON a.ino=b.ino AND b.off > a.off AND b.off < a.off + a.len",
        "SELECT * FROM extent e LEFT JOIN inode i ON i.ino=e.ino WHERE i.ino IS NULL OR e.off + e.len > i.size OR e.len <= 0",
        "SELECT * FROM inline n LEFT JOIN inode i ON i.ino=n.ino WHERE i.ino IS NULL OR length(n.data) <> i.size",
        "SELECT * FROM inline WHERE ino IN (SELECT ino FROM extent)",
        /* (5) objects */
        "SELECT * FROM object o WHERE refs = 0 OR refs <> (SELECT count(*) FROM extent e WHERE e.object=o.id)",
        "SELECT * FROM object o WHERE live <> (SELECT sum(len) FROM extent e WHERE e.object=o.id) OR plain < live",
        "SELECT * FROM extent WHERE object NOT IN (SELECT id FROM object)",
        "SELECT * FROM collected WHERE id IN (SELECT id FROM object UNION ALL SELECT id FROM garbage)",
        "SELECT * FROM garbage WHERE id IN (SELECT id FROM object)",
        /* left-overs */
        "SELECT * FROM symlink s LEFT JOIN inode i ON i.ino=s.ino WHERE i.ino IS NULL OR i.size <> length(s.target)",
        "SELECT * FROM inode WHERE mode & 61440 = 40960 AND ino NOT IN (SELECT ino FROM symlink)",
        "SELECT * FROM xattr x LEFT JOIN inode i ON i.ino=x.ino WHERE i.ino IS NULL",
        "SELECT * FROM inode i WHERE (flags & 4 <> 0) <> EXISTS (SELECT 1 FROM xattr x WHERE x.ino=i.ino)",
        "SELECT * FROM inode WHERE ino >= (SELECT next FROM counter WHERE name='inode')",
        "SELECT * FROM object WHERE id >= (SELECT next FROM counter WHERE name='object')",
    };
    int broken = 0;
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        char sql[1024];
        int64_t found = 1;
        snprintf(sql, sizeof sql, "SELECT EXISTS(%s)", empty[i]);
        struct kfs_err err = {0};
        int rc = kfs_db_query_int(db, sql, &found, &err);
        if (rc < 0 || found) {
            printf("  broken: %s %s\n", empty[i], err.msg);
            broken++;
        }
    }
    int64_t sound = 1;
    if (!fx_server() && (kfs_db_query_int(db, "SELECT count(*)=1 FROM pragma_integrity_check WHERE integrity_check='ok'", &sound, NULL) < 0 || !sound)) {
        printf("  broken: integrity_check\n");
        broken++;
    }
    return broken;
}

/* Close, check every invariant in plain SQL, open again. */
__attribute__((unused)) static void fx_check(void)
{
    kfs_meta_close(fx_m);
    fx_m = NULL;
    struct kfs_db *db;
    ASSERT_OK(kfs_db_open(fx_path, false, &db, &fx_err), fx_err);
    int broken = fx_rules(db);
    kfs_db_close(db);
    ASSERT_EQ(broken, 0);
    fx_open();
}

__attribute__((unused)) static struct kfs_cred fx_user(uint32_t uid, uint32_t gid)
{
    struct kfs_cred c = {.uid = uid, .gid = gid};
    return c;
}

__attribute__((unused)) static int fx_make_as(const struct kfs_cred *c, kfs_ino_t parent, const char *name, uint32_t mode, struct kfs_attr *ret)
{
    return kfs_meta_create(fx_m, c, parent, name, strlen(name), mode, 0, S_ISLNK(mode) ? "target" : NULL, NULL, 0, ret, &fx_err);
}

/* As root, must work; the inode number. */
__attribute__((unused)) static kfs_ino_t fx_make(kfs_ino_t parent, const char *name, uint32_t mode)
{
    struct kfs_attr a;
    ASSERT_OK(fx_make_as(NULL, parent, name, mode, &a), fx_err);
    return a.ino;
}

__attribute__((unused)) static struct kfs_attr fx_attr(kfs_ino_t ino)
{
    struct kfs_attr a;
    ASSERT_OK(kfs_meta_getattr(fx_m, ino, &a, &fx_err), fx_err);
    return a;
}

/* The inode under a name; 0: none. */
__attribute__((unused)) static kfs_ino_t fx_ino(kfs_ino_t parent, const char *name)
{
    struct kfs_attr a;
    int rc = kfs_meta_lookup(fx_m, parent, name, strlen(name), &a, &fx_err);
    if (rc == -ENOENT)
        return 0;
    ASSERT_OK(rc, fx_err);
    return a.ino;
}

__attribute__((unused)) static int fx_unlink(const struct kfs_cred *c, kfs_ino_t parent, const char *name, bool dir)
{
    struct kfs_attr a;
    return kfs_meta_unlink(fx_m, c, parent, name, strlen(name), dir, NULL, &a, &fx_err);
}

__attribute__((unused)) static int fx_rename(const struct kfs_cred *c, kfs_ino_t p, const char *n, kfs_ino_t p2, const char *n2, unsigned flags)
{
    struct kfs_attr a, b;
    return kfs_meta_rename(fx_m, c, p, n, strlen(n), p2, n2, strlen(n2), flags, NULL, &a, &b, &fx_err);
}

__attribute__((unused)) static int fx_link(const struct kfs_cred *c, kfs_ino_t ino, kfs_ino_t p, const char *n)
{
    struct kfs_attr a;
    return kfs_meta_link(fx_m, c, ino, p, n, strlen(n), NULL, &a, &fx_err);
}

__attribute__((unused)) static int fx_chmod(const struct kfs_cred *c, kfs_ino_t ino, uint32_t mode)
{
    struct kfs_meta_setattr s = {.valid = KFS_SET_MODE, .mode = mode};
    return kfs_meta_setattr(fx_m, c, ino, &s, NULL, NULL, &fx_err);
}

/* -1: leave. */
__attribute__((unused)) static int fx_chown(const struct kfs_cred *c, kfs_ino_t ino, long uid, long gid)
{
    struct kfs_meta_setattr s = {.valid = (uid >= 0 ? KFS_SET_UID : 0) | (gid >= 0 ? KFS_SET_GID : 0), .uid = (uint32_t)uid, .gid = (uint32_t)gid};
    return kfs_meta_setattr(fx_m, c, ino, &s, NULL, NULL, &fx_err);
}

#endif
