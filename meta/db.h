/* meta/db.h — a database as KFS uses it: one interface, two engines (SQLite, the MySQL protocol)
 *
 * What     A connection to one database, the statements of meta/sql.def by number, transactions, and the engine's failures as -errno with the
 *          database's name and the cure.
 * Where    A path is a SQLite file. "mysql://USER@HOST:PORT[,HOST2:PORT2…]/DATABASE[?key=value&…]" is a server; keys and where its password comes from:
 *          meta/db_mysql.c.
 * SQLite   WAL with locking_mode=EXCLUSIVE: this process alone has the file, and no shared-memory file is needed. synchronous=NORMAL: a commit is
 *          atomic and survives the death of the process; kfs_db_sync makes it survive a power cut.
 * MySQL    READ COMMITTED. Durability is the server's (innodb_flush_log_at_trx_commit); kfs_db_sync has nothing to add. A connection that was lost outside
 *          of a transaction is made again at the next statement, with the next host of the list that may be written; within one, the transaction is gone:
 *          -EAGAIN, transient. A COMMIT whose answer was lost: -EAGAIN, transient, and kfs_db_outcome_unknown says so; who wants to know asks for the id of
 *          the operation (kfs_meta_op_find).
 * SQL      Statements keep to the common subset of SQLite, MariaDB, MySQL, TiDB and OceanBase: no generated keys, foreign keys, triggers, sequences,
 *          RETURNING; names are bytes; identifiers that are reserved somewhere stand in backquotes. Types in DDL: INTEGER (64 bits, signed), NAME (up to 255
 *          bytes), TEXT (up to 1024 bytes), BLOB; the driver translates. tests/lint/sql-subset.sh reads meta/sql.def and meta/schema.sql for it.
 * Owner    Bytes of a row are valid until the next step or done of that row.
 * Threads  One at a time, except kfs_db_sync's waiting part (see there).
 * Errors   ENOSPC (full), EAGAIN (in use, lock conflict, lost connection; transient: the transaction may run again), EIO (damaged, or the disk fails), EACCES,
 *          EROFS, ENOMEM, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH.
 */
#ifndef KFS_META_DB_H
#define KFS_META_DB_H

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

/* create: make the file if missing. Changes nothing in a database that is there: its caller looks first whether it is ours. */
int kfs_db_open(const char *where, bool create, struct kfs_db **ret_db, struct kfs_err *err);
int kfs_db_configure(struct kfs_db *db, struct kfs_err *err); /* SQLite: to WAL, and the other modes of the model */
void kfs_db_close(struct kfs_db *db);                         /* checkpoints, removes the WAL; NULL is fine */
const char *kfs_db_path(const struct kfs_db *db);             /* for messages: without a secret */
bool kfs_db_is_url(const char *where);                        /* a server, not a file */

/* Whose tables are there? 1: those of a KFS volume; 0: there are no tables at all; -EINVAL and text: another program's. */
int kfs_db_identify(struct kfs_db *db, struct kfs_err *err);
/* Make the tables (meta/schema.sql) and mark them as ours. SQLite: part of the transaction under way. MySQL: DDL commits by itself, so it may run again. */
int kfs_db_create_tables(struct kfs_db *db, const char *schema, struct kfs_err *err);

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

/* Run to the end. The number of rows changed (of an UPDATE: matched), or -errno. */
int kfs_db_exec(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args, size_t arg_count,
                struct kfs_err *err);
/* The same statement with many rows of parameters, args_per_row each, in order: one round trip where the engine and the statement (INSERT or REPLACE … VALUES)
 * allow, else one after the other. The number of rows changed, or -errno. */
int kfs_db_exec_rows(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args,
                     size_t args_per_row, size_t row_count, struct kfs_err *err);
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
/* Did the last commit fail in a way that leaves open whether it took place? */
bool kfs_db_outcome_unknown(const struct kfs_db *db);

/* Statements that run once; several in one text. */
int kfs_db_script(struct kfs_db *db, const char *sql, struct kfs_err *err);
int kfs_db_query_int(struct kfs_db *db, const char *sql, int64_t *ret_n, struct kfs_err *err);

/* Durability in two steps, so that the wait needs no lock: *ret_fd (owned by db) is the WAL's descriptor, or -1 when there is nothing to wait for;
 * fdatasync on it makes every transaction durable that was committed before. */
int kfs_db_wal_fd(struct kfs_db *db, int *ret_fd, struct kfs_err *err);
int kfs_db_sync(struct kfs_db *db, struct kfs_err *err); /* both steps */

/* Engine and version, for people: "SQLite 3.40.1", "MariaDB 10.11.19 at HOST:PORT". */
const char *kfs_db_engine(struct kfs_db *db);

#endif
