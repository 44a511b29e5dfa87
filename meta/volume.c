/* A volume's database as a whole: format, open, close, settings, durability. */
#include "base/cleanup.h"
#include "base/rand.h"
#include "meta/internal.h"
#include "meta/schema.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

const struct kfs_cred kfs_cred_root = {0};

/* The file's size, or -errno with text. */
static int64_t file_check(const char *path, struct kfs_err *err)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        if (errno == ENOENT)
            return KFS_FAIL(err, ENOENT,
                            "database '%s' does not exist; create it with 'kfs format sqlite:%s' "
                            "or 'kfs-run --create'",
                            path, path);
        return KFS_FAIL(err, errno, "cannot look at database '%s': %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode))
        return KFS_FAIL(err, EISDIR,
                        "'%s' is a directory, not a database; name a file in it, such as '%s/kfs.db'",
                        path, path);
    if (!S_ISREG(st.st_mode))
        return KFS_FAIL(err, EINVAL, "'%s' is not a regular file, so it cannot be a database; name "
                                     "another file",
                        path);
    if (faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) < 0)
        return KFS_FAIL(err, errno,
                        "cannot read and write database '%s': %s; check its owner and mode", path,
                        strerror(errno));
    return st.st_size;
}

static int format_fill(struct kfs_meta *m, struct kfs_meta_volume *v, uint32_t uid, uint32_t gid,
                       struct kfs_err *err)
{
    int rc = kfs_db_create_tables(m->db, kfs_schema_sql, err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_COUNTER_SET,
                         DB_ARGS(DB_T("inode"), DB_I(KFS_INO_ROOT + 1)), err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_COUNTER_SET, DB_ARGS(DB_T("object"), DB_I(1)), err);
    struct timespec now = kfs_meta_now();
    struct kfs_attr root = {.ino = KFS_INO_ROOT,
                            .parent = KFS_INO_ROOT,
                            .mode = S_IFDIR | 0755,
                            .nlink = 2,
                            .uid = uid,
                            .gid = gid,
                            .size_bytes = 4096,
                            .blocks = 8,
                            .atime_s = now.tv_sec,
                            .mtime_s = now.tv_sec,
                            .ctime_s = now.tv_sec,
                            .btime_s = now.tv_sec,
                            .atime_ns = (uint32_t)now.tv_nsec,
                            .mtime_ns = (uint32_t)now.tv_nsec,
                            .ctime_ns = (uint32_t)now.tv_nsec,
                            .btime_ns = (uint32_t)now.tv_nsec};
    if (rc >= 0)
        rc = kfs_inode_add(m, &root, "", 0, err);
    /* Last: on an engine whose DDL is not part of the transaction, a database without this row is one whose format was cut off. */
    return rc < 0 ? rc
                  : kfs_db_exec(m->db, KFS_SQL_VOLUME_ADD,
                                DB_ARGS(DB_I(KFS_META_SCHEMA), DB_T(v->id), DB_T(v->name),
                                        DB_T(v->store), DB_I(v->created_s)),
                                err);
}

int kfs_meta_format(const char *path, struct kfs_meta_volume *v, uint32_t uid, uint32_t gid,
                    struct kfs_err *err)
{
    struct stat st;
    if (!kfs_db_is_url(path) && stat(path, &st) == 0) {
        int64_t size = file_check(path, err);
        if (size < 0)
            return (int)size;
    }
    struct kfs_meta m = {0};
    int rc = kfs_db_open(path, true, &m.db, err);
    if (rc < 0)
        return rc;
    struct kfs_meta_volume made = *v;
    if (!made.id[0])
        kfs_uuid_make(made.id);
    made.created_s = kfs_meta_now().tv_sec;
    made.schema = KFS_META_SCHEMA;
    /* In one transaction of the rollback journal: a format that is killed leaves an empty file, which may be formatted again. */
    rc = kfs_db_begin(m.db, err);
    if (rc >= 0) {
        rc = kfs_db_identify(m.db, err);
        if (rc == 1)
            rc = KFS_FAIL(err, EEXIST,
                          "database '%s' has a volume already; open it, or name another file", path);
        if (rc == 0)
            rc = format_fill(&m, &made, uid, gid, err);
        if (rc < 0)
            kfs_db_rollback(m.db);
        else
            rc = kfs_db_commit(m.db, err);
    }
    kfs_db_close(m.db);
    if (rc < 0)
        return rc;
    *v = made;
    return 0;
}

static void copy_text(struct kfs_row *row, int column, char *ret, size_t cap)
{
    size_t len;
    const void *p = kfs_db_bytes(row, column, &len);
    if (len >= cap)
        len = cap - 1;
    if (len)
        memcpy(ret, p, len);
    ret[len] = '\0';
}

static int upgrade(struct kfs_meta *m, struct kfs_err *err)
{
    while (m->volume.schema < KFS_META_SCHEMA) {
        const char *sql = kfs_schema_upgrade(m->volume.schema);
        if (!sql)
            return KFS_FAIL(err, ENOTSUP,
                            "database '%s' has schema %u, which this KFS (schema %d) cannot upgrade; "
                            "open it once with a KFS in between",
                            kfs_db_path(m->db), m->volume.schema, KFS_META_SCHEMA);
        int rc = kfs_db_begin(m->db, err);
        if (rc < 0)
            return rc;
        rc = kfs_db_script(m->db, sql, err);
        if (rc >= 0)
            rc = kfs_db_exec(m->db, KFS_SQL_VOLUME_UPGRADE, DB_ARGS(DB_I(m->volume.schema + 1)), err);
        if (rc < 0) {
            kfs_db_rollback(m->db);
            return rc;
        }
        rc = kfs_db_commit(m->db, err);
        if (rc < 0)
            return rc;
        m->volume.schema++;
    }
    return 0;
}

static int volume_read(struct kfs_meta *m, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_VOLUME_GET, NULL, 0, &row, err);
    if (rc == 0)
        return KFS_FAIL(err, EIO, "database '%s' is damaged: it does not say which volume it is; "
                                  "restore a backup",
                        kfs_db_path(m->db));
    if (rc < 0)
        return rc;
    m->volume.schema = (uint32_t)kfs_db_int(row, 0);
    copy_text(row, 1, m->volume.id, sizeof m->volume.id);
    copy_text(row, 2, m->volume.name, sizeof m->volume.name);
    copy_text(row, 3, m->volume.store, sizeof m->volume.store);
    m->volume.created_s = kfs_db_int(row, 4);
    kfs_db_done(row);
    if (m->volume.schema > KFS_META_SCHEMA)
        return KFS_FAIL(err, ENOTSUP,
                        "database '%s' has schema %u, but this KFS understands up to %d; use a newer "
                        "KFS",
                        kfs_db_path(m->db), m->volume.schema, KFS_META_SCHEMA);
    return 0;
}

static int open_checked(struct kfs_meta *m, struct kfs_err *err)
{
    int rc = kfs_db_identify(m->db, err);
    if (rc == 0)
        return KFS_FAIL(err, ENOENT,
                        "database '%s' is empty; create a volume in it with 'kfs format %s%s' "
                        "or 'kfs-run --create'",
                        kfs_db_path(m->db), kfs_db_is_url(kfs_db_path(m->db)) ? "" : "sqlite:",
                        kfs_db_path(m->db));
    if (rc > 0)
        rc = volume_read(m, err);
    if (rc >= 0)
        rc = kfs_db_configure(m->db, err);
    if (rc >= 0)
        rc = upgrade(m, err);
    struct kfs_attr root;
    if (rc >= 0)
        rc = kfs_inode_get(m, KFS_INO_ROOT, &root, err);
    if (rc == -ENOENT)
        rc = KFS_FAIL(err, EIO, "database '%s' is damaged: its root directory is missing; restore a "
                                "backup",
                      kfs_db_path(m->db));
    return rc;
}

int kfs_meta_open(const char *path, struct kfs_meta **ret_m, struct kfs_err *err)
{
    int64_t size = kfs_db_is_url(path) ? 0 : file_check(path, err);
    if (size < 0)
        return (int)size;
    struct kfs_meta *m = calloc(1, sizeof *m);
    if (!m)
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", path);
    (void)pthread_mutex_init(&m->lock, NULL);
    m->inos.counter = "inode";
    m->objects.counter = "object";
    int rc = kfs_db_open(path, false, &m->db, err);
    if (rc >= 0)
        rc = open_checked(m, err);
    if (rc < 0) {
        kfs_meta_close(m);
        return rc;
    }
    *ret_m = m;
    return 0;
}

void kfs_meta_close(struct kfs_meta *m)
{
    if (!m)
        return;
    kfs_db_close(m->db);
    (void)pthread_mutex_destroy(&m->lock);
    free(m);
}

const struct kfs_meta_volume *kfs_meta_volume(const struct kfs_meta *m)
{
    return &m->volume;
}

int kfs_meta_sync(struct kfs_meta *m, struct kfs_err *err)
{
    /* The wait for the disk is outside the lock. A checkpoint meanwhile is harmless: it makes the database durable before it reuses the WAL. */
    (void)pthread_mutex_lock(&m->lock);
    int fd;
    int rc = kfs_db_wal_fd(m->db, &fd, err);
    (void)pthread_mutex_unlock(&m->lock);
    if (rc < 0)
        return rc;
    if (fd >= 0 && fdatasync(fd) < 0)
        return KFS_FAIL(err, errno, "cannot make database '%s' durable: %s; check the disk",
                        kfs_db_path(m->db), strerror(errno));
    return 0;
}

int kfs_meta_setting_get(struct kfs_meta *m, const char *key, char *buf, size_t cap,
                         struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_SETTING_GET, DB_ARGS(DB_T(key)), &row, err);
    size_t len;
    if (rc == 1) {
        (void)kfs_db_bytes(row, 0, &len);
        if (len < cap)
            copy_text(row, 0, buf, cap);
        rc = len < cap ? 0 : -ERANGE;
    } else if (rc == 0) {
        rc = -ENOENT;
    }
    kfs_db_done(row);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

int kfs_meta_setting_set(struct kfs_meta *m, const char *key, const char *value,
                         struct kfs_err *err)
{
    int rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    rc = kfs_db_exec(m->db, KFS_SQL_SETTING_SET, DB_ARGS(DB_T(key), DB_T(value)), err);
    rc = kfs_tx_end(m, rc, err);
    return rc < 0 ? rc : 0;
}
