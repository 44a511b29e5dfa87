/* meta/db_sqlite.h — SQLite as KFS uses it
 *
 * What     A connection to one database file, prepared statements by number (meta/sql.def), transactions, and SQLite's failures as -errno with
 *          the file's name and the cure.
 * Model    WAL with locking_mode=EXCLUSIVE: this process alone has the file, and no shared-memory file is needed. synchronous=NORMAL: a commit is
 *          atomic and survives the death of the process; kfs_db_sync makes it survive a power cut.
 * Owner    Bytes of a row are valid until the next step or done of that row.
 * Threads  One at a time, except kfs_db_sync's waiting part (see there).
 * Errors   ENOSPC (full), EAGAIN (in use by another process; transient), EIO (damaged, or the disk fails), EACCES, EROFS, ENOMEM.
 */
#ifndef KFS_META_DB_SQLITE_H
#define KFS_META_DB_SQLITE_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kfs_db;
struct kfs_row; /* a running statement, standing on a row */

enum kfs_sql {
#define SQL(id, text) KFS_SQL_##id,
#include "meta/sql.def"
#undef SQL
    KFS_SQL_COUNT
};

/* create: make the file if missing. Changes nothing in a file that is there: its caller looks first whether it is ours. */
int kfs_db_open(const char *path, bool create, struct kfs_db **ret_db, struct kfs_err *err);
int kfs_db_configure(struct kfs_db *db, struct kfs_err *err); /* to WAL, and the other modes of the model */
void kfs_db_close(struct kfs_db *db); /* checkpoints, removes the WAL */
const char *kfs_db_path(const struct kfs_db *db);

/* One parameter. Bytes and text are borrowed until the statement is done. */
struct kfs_db_arg {
    enum { KFS_DB_INT, KFS_DB_BLOB, KFS_DB_TEXT, KFS_DB_NULL } type;
    int64_t number;
    const void *bytes;
    size_t len;
};
#define DB_I(n) ((struct kfs_db_arg){KFS_DB_INT, (int64_t)(n), NULL, 0})
#define DB_B(p, n) ((struct kfs_db_arg){KFS_DB_BLOB, 0, (p), (n)})
#define DB_T(s) ((struct kfs_db_arg){KFS_DB_TEXT, 0, (s), 0})
#define DB_NULL ((struct kfs_db_arg){KFS_DB_NULL, 0, NULL, 0})
#define DB_ARGS(...)                                                                               \
    ((const struct kfs_db_arg[]){__VA_ARGS__}),                                                    \
        (sizeof((const struct kfs_db_arg[]){__VA_ARGS__}) / sizeof(struct kfs_db_arg))

/* Run to the end. The number of rows changed, or -errno. */
int kfs_db_exec(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args, size_t arg_count,
                struct kfs_err *err);
/* First row: 1 and *ret_row set (the caller calls kfs_db_done); 0: no row; -errno. */
int kfs_db_first(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args,
                 size_t arg_count, struct kfs_row **ret_row, struct kfs_err *err);
/* Next row: 1, 0 or -errno; kfs_db_done is still the caller's. */
int kfs_db_next(struct kfs_db *db, struct kfs_row *row, struct kfs_err *err);
void kfs_db_done(struct kfs_row *row); /* NULL is fine */

int64_t kfs_db_int(struct kfs_row *row, int column);
const void *kfs_db_bytes(struct kfs_row *row, int column, size_t *ret_len); /* NULL if empty */

int kfs_db_begin(struct kfs_db *db, struct kfs_err *err);
int kfs_db_commit(struct kfs_db *db, struct kfs_err *err); /* on failure everything is rolled back */
void kfs_db_rollback(struct kfs_db *db);

/* Statements that run once. */
int kfs_db_script(struct kfs_db *db, const char *sql, struct kfs_err *err);
int kfs_db_query_int(struct kfs_db *db, const char *sql, int64_t *ret_n, struct kfs_err *err);

/* Durability in two steps, so that the wait needs no lock: *ret_fd (owned by db) is the WAL's descriptor, or -1 when nothing was ever written; fdatasync on
 * it makes every transaction durable that was committed before. */
int kfs_db_wal_fd(struct kfs_db *db, int *ret_fd, struct kfs_err *err);
int kfs_db_sync(struct kfs_db *db, struct kfs_err *err); /* both steps */

#endif
