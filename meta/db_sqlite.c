/* meta/db_sqlite.c — the embedded engine */
#include "meta/db_ops.h"

#include "base/cleanup.h"
#include "meta/schema.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Pages of WAL (4 KiB each) at which a commit also checkpoints. Each checkpoint costs two fsyncs, so fewer, larger ones make a stream of creates
 * several times faster than SQLite's 1000; 32 MiB is replayed in well under a second after a crash. */
#define WAL_PAGES 8192

struct statement {
    struct kfs_row row;
    sqlite3_stmt *s;
};

struct lite {
    struct kfs_db db;
    sqlite3 *sql;
    struct statement stmts[KFS_SQL_COUNT];
    sqlite3_stmt *begin, *commit, *rollback;
    int wal_fd;
    char path[];
};

static struct lite *lite(struct kfs_db *db)
{
    return (struct lite *)(void *)db;
}

static sqlite3_stmt *stmt(struct kfs_row *row)
{
    return ((struct statement *)(void *)row)->s;
}

/* -errno of SQLite's result `rc`, with text. */
static int fail(struct lite *db, int rc, struct kfs_err *err)
{
    int sys = db->sql ? sqlite3_system_errno(db->sql) : 0;
    const char *what = db->sql ? sqlite3_errmsg(db->sql) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return KFS_FAIL(err, ENOSPC, "no space left for database '%s'; free some on its file system",
                        db->path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED: {
        int code = KFS_FAIL(err, EAGAIN,
                            "database '%s' is in use by another process; end it, or use its kfsd",
                            db->path);
        if (err)
            err->transient = true;
        return code;
    }
    case SQLITE_NOTADB:
        return KFS_FAIL(err, EIO,
                        "'%s' is not a SQLite database, or its first page is damaged; check the "
                        "path, or restore a backup",
                        db->path);
    case SQLITE_CORRUPT:
        return KFS_FAIL(err, EIO,
                        "database '%s' is damaged (%s); stop using it, keep a copy, and restore a "
                        "backup or rescue it with 'sqlite3 %s .recover'",
                        db->path, what, db->path);
    case SQLITE_READONLY:
        return KFS_FAIL(err, EROFS, "database '%s' cannot be written; check the permissions of the "
                                    "file and of its directory",
                        db->path);
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return KFS_FAIL(err, sys ? sys : EACCES,
                        "cannot open database '%s': %s; check the permissions of the file and of "
                        "its directory",
                        db->path, sys ? strerror(sys) : what);
    case SQLITE_NOMEM:
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", db->path);
    case SQLITE_IOERR:
        if (sys == ENOSPC || sys == EDQUOT)
            return KFS_FAIL(err, sys, "no space left for database '%s'; free some on its file system",
                            db->path);
        return KFS_FAIL(err, EIO, "cannot read or write database '%s': %s; check the disk", db->path,
                        sys ? strerror(sys) : what);
    default:
        return KFS_FAIL(err, EIO, "database '%s': %s (%d)", db->path, what, rc);
    }
}

static int lite_script(struct kfs_db *base, const char *sql, struct kfs_err *err)
{
    struct lite *db = lite(base);
    int rc = sqlite3_exec(db->sql, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail(db, rc, err);
}

static int lite_query_int(struct kfs_db *base, const char *sql, int64_t *ret_n, struct kfs_err *err)
{
    struct lite *db = lite(base);
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db->sql, sql, -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        *ret_n = sqlite3_column_int64(s, 0);
    int result = rc == SQLITE_ROW ? 0 : rc == SQLITE_DONE ? -ENOENT : fail(db, rc, err);
    (void)sqlite3_finalize(s);
    return result;
}

static int lite_identify(struct kfs_db *base, struct kfs_err *err)
{
    int64_t id = 0, tables = 0;
    int rc = lite_query_int(base, "PRAGMA application_id", &id, err);
    if (rc >= 0)
        rc = lite_query_int(base, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (rc < 0)
        return rc;
    if (id == 0 && tables == 0)
        return 0;
    if (id != KFS_META_APPLICATION_ID)
        return KFS_FAIL(err, EINVAL,
                        "'%s' is a SQLite database of another program, not a KFS volume; name "
                        "another file",
                        base->name);
    return 1;
}

static int lite_create_tables(struct kfs_db *base, const char *schema, struct kfs_err *err)
{
    char id[64];
    (void)snprintf(id, sizeof id, "PRAGMA application_id=%d", KFS_META_APPLICATION_ID);
    int rc = lite_script(base, id, err);
    return rc < 0 ? rc : lite_script(base, schema, err);
}

static const char pragmas[] = "PRAGMA journal_mode=WAL;"
                              "PRAGMA synchronous=NORMAL;"
                              "PRAGMA foreign_keys=OFF;"
                              "PRAGMA temp_store=MEMORY;"
                              "PRAGMA cell_size_check=ON;"
                              "PRAGMA cache_size=-65536;"; /* 64 MiB */

static void lite_close(struct kfs_db *base)
{
    struct lite *db = lite(base);
    for (int i = 0; i < KFS_SQL_COUNT; i++)
        (void)sqlite3_finalize(db->stmts[i].s);
    (void)sqlite3_finalize(db->begin);
    (void)sqlite3_finalize(db->commit);
    (void)sqlite3_finalize(db->rollback);
    (void)sqlite3_close(db->sql);
    if (db->wal_fd >= 0)
        (void)close(db->wal_fd);
    free(db);
}

static int lite_open(const char *path, bool create, struct kfs_db **ret_db, struct kfs_err *err)
{
    struct lite *db = calloc(1, sizeof *db + strlen(path) + 1);
    if (!db)
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", path);
    strcpy(db->path, path);
    db->db.ops = &kfs_db_sqlite;
    db->db.name = db->path;
    db->wal_fd = -1;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                (create ? SQLITE_OPEN_CREATE : 0);
    /* "./" keeps names that SQLite gives a meaning of their own (":memory:", "") names of files. */
    kfs_auto_free char *file = NULL;
    if (asprintf(&file, "%s%s", path[0] == '/' ? "" : "./", path) < 0) {
        file = NULL;
        lite_close(&db->db);
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", path);
    }
    int rc = sqlite3_open_v2(file, &db->sql, flags, NULL);
    /* Only this process may have the file, so a lock means that another wrongly has it: two seconds, for one that is just ending. */
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(db->sql, 2000);
    /* Before anything is read: a WAL first read in exclusive mode needs no shared-memory file. */
    if (rc == SQLITE_OK && !create)
        rc = sqlite3_exec(db->sql, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        int result = fail(db, rc, err);
        lite_close(&db->db);
        return result;
    }
    *ret_db = &db->db;
    return 0;
}

static int lite_configure(struct kfs_db *base, struct kfs_err *err)
{
    struct lite *db = lite(base);
    int rc = sqlite3_exec(db->sql, pragmas, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_wal_autocheckpoint(db->sql, WAL_PAGES);
    return rc == SQLITE_OK ? 0 : fail(db, rc, err);
}

/* --- statements ------------------------------------------------------------------------------------------------- */

static int prepare(struct lite *db, const char *text, sqlite3_stmt **slot, struct kfs_err *err)
{
    if (*slot)
        return 0;
    int rc = sqlite3_prepare_v3(db->sql, text, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
    return rc == SQLITE_OK ? 0 : fail(db, rc, err);
}

static int bind(sqlite3_stmt *s, int n, const struct kfs_db_arg *a)
{
    switch (a->type) {
    case KFS_DB_INT:
        return sqlite3_bind_int64(s, n, a->number);
    case KFS_DB_BLOB:
        /* An empty value is a value: a NULL pointer would bind NULL. */
        if (a->len == 0)
            return sqlite3_bind_zeroblob(s, n, 0);
        return sqlite3_bind_blob64(s, n, a->bytes, a->len, SQLITE_STATIC);
    case KFS_DB_TEXT:
        return sqlite3_bind_text(s, n, a->bytes, -1, SQLITE_STATIC);
    case KFS_DB_NULL:
        break;
    }
    return sqlite3_bind_null(s, n);
}

static int start(struct lite *db, enum kfs_sql id, const struct kfs_db_arg *args, size_t arg_count,
                 struct statement **ret, struct kfs_err *err)
{
    struct statement *st = &db->stmts[id];
    int rc = prepare(db, kfs_sql_texts[id], &st->s, err);
    if (rc < 0)
        return rc;
    st->row.ops = &kfs_db_sqlite;
    assert((int)arg_count == sqlite3_bind_parameter_count(st->s));
    for (size_t i = 0; i < arg_count; i++) {
        rc = bind(st->s, (int)i + 1, &args[i]);
        if (rc != SQLITE_OK)
            return fail(db, rc, err);
    }
    *ret = st;
    return 0;
}

static int lite_next(struct kfs_db *base, struct kfs_row *row, struct kfs_err *err)
{
    int rc = sqlite3_step(stmt(row));
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : fail(lite(base), rc, err);
}

static void lite_done(struct kfs_row *row)
{
    (void)sqlite3_reset(stmt(row));
}

static int exec_one(struct lite *db, enum kfs_sql id, const struct kfs_db_arg *args,
                    size_t arg_count, struct kfs_err *err)
{
    struct statement *st;
    int rc = start(db, id, args, arg_count, &st, err);
    if (rc < 0)
        return rc;
    rc = sqlite3_step(st->s);
    int result = rc == SQLITE_DONE || rc == SQLITE_ROW ? sqlite3_changes(db->sql) : fail(db, rc, err);
    (void)sqlite3_reset(st->s);
    return result;
}

static int lite_exec_rows(struct kfs_db *base, enum kfs_sql id, const struct kfs_db_arg *args,
                          size_t args_per_row, size_t row_count, struct kfs_err *err)
{
    int changed = 0;
    for (size_t i = 0; i < row_count; i++) {
        int rc = exec_one(lite(base), id, args + i * args_per_row, args_per_row, err);
        if (rc < 0)
            return rc;
        changed += rc;
    }
    return changed;
}

static int lite_first(struct kfs_db *base, enum kfs_sql id, const struct kfs_db_arg *args,
                      size_t arg_count, struct kfs_row **ret_row, struct kfs_err *err)
{
    struct statement *st;
    int rc = start(lite(base), id, args, arg_count, &st, err);
    if (rc < 0)
        return rc;
    rc = lite_next(base, &st->row, err);
    if (rc == 1)
        *ret_row = &st->row;
    else
        (void)sqlite3_reset(st->s);
    return rc;
}

static int64_t lite_int(struct kfs_row *row, int column)
{
    return sqlite3_column_int64(stmt(row), column);
}

static const void *lite_bytes(struct kfs_row *row, int column, size_t *ret_len)
{
    const void *p = sqlite3_column_blob(stmt(row), column);
    *ret_len = (size_t)sqlite3_column_bytes(stmt(row), column);
    return p;
}

/* --- transactions ----------------------------------------------------------------------------------------------- */

static int run(struct lite *db, const char *text, sqlite3_stmt **slot, struct kfs_err *err)
{
    int rc = prepare(db, text, slot, err);
    if (rc < 0)
        return rc;
    rc = sqlite3_step(*slot);
    int result = rc == SQLITE_DONE ? 0 : fail(db, rc, err);
    (void)sqlite3_reset(*slot);
    return result;
}

static int lite_begin(struct kfs_db *db, struct kfs_err *err)
{
    return run(lite(db), "BEGIN IMMEDIATE", &lite(db)->begin, err);
}

static void lite_rollback(struct kfs_db *db)
{
    /* A full disk or an I/O error may have rolled back already. */
    if (!sqlite3_get_autocommit(lite(db)->sql))
        (void)run(lite(db), "ROLLBACK", &lite(db)->rollback, NULL);
}

static int lite_commit(struct kfs_db *db, struct kfs_err *err)
{
    int rc = run(lite(db), "COMMIT", &lite(db)->commit, err);
    if (rc < 0)
        lite_rollback(db);
    return rc;
}

/* The names of database and WAL themselves must survive, too. */
static int sync_directory(const char *path, struct kfs_err *err)
{
    kfs_auto_free char *copy = strdup(path);
    if (!copy)
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", path);
    kfs_auto_fd int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return KFS_FAIL(err, errno, "cannot make the directory of database '%s' durable: %s", path,
                        strerror(errno));
    return 0;
}

static int lite_wal_fd(struct kfs_db *base, int *ret_fd, struct kfs_err *err)
{
    struct lite *db = lite(base);
    if (db->wal_fd < 0) {
        /* A second descriptor of the WAL is safe: SQLite's file locks lie on the database file, and the WAL keeps its name while it is open.
         * SQLite's own names are absolute, whatever the working directory is by now. */
        const char *file = sqlite3_db_filename(db->sql, "main");
        const char *name = sqlite3_filename_wal(file);
        kfs_auto_fd int fd = open(name, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
            return KFS_FAIL(err, errno, "cannot open '%s': %s", name, strerror(errno));
        if (fd >= 0) {
            int rc = sync_directory(file, err);
            if (rc < 0)
                return rc;
            db->wal_fd = kfs_steal_fd(&fd);
        }
    }
    *ret_fd = db->wal_fd;
    return 0;
}

static int lite_sync(struct kfs_db *db, struct kfs_err *err)
{
    int fd;
    int rc = lite_wal_fd(db, &fd, err);
    if (rc < 0)
        return rc;
    if (fd >= 0 && fdatasync(fd) < 0)
        return KFS_FAIL(err, errno, "cannot make database '%s' durable: %s; check the disk",
                        db->name, strerror(errno));
    return 0;
}

static const char *lite_engine(struct kfs_db *db)
{
    (void)db;
    return "SQLite " SQLITE_VERSION;
}

const struct kfs_db_ops kfs_db_sqlite = {
    .open = lite_open,
    .configure = lite_configure,
    .close = lite_close,
    .identify = lite_identify,
    .create_tables = lite_create_tables,
    .exec_rows = lite_exec_rows,
    .first = lite_first,
    .next = lite_next,
    .done = lite_done,
    .get_int = lite_int,
    .get_bytes = lite_bytes,
    .begin = lite_begin,
    .commit = lite_commit,
    .rollback = lite_rollback,
    .script = lite_script,
    .query_int = lite_query_int,
    .wal_fd = lite_wal_fd,
    .sync = lite_sync,
    .engine = lite_engine,
};
