/* meta/db_ops.h — what one database engine implements; only db*.c include it
 *
 * Model    struct kfs_db and struct kfs_row are the first members of the engine's own. Contracts: meta/db.h.
 */
#ifndef KFS_META_DB_OPS_H
#define KFS_META_DB_OPS_H

#include "meta/db.h"

struct kfs_db_ops {
    int (*open)(const char *where, bool create, struct kfs_db **ret_db, struct kfs_err *err);
    int (*configure)(struct kfs_db *db, struct kfs_err *err);
    void (*close)(struct kfs_db *db);
    int (*identify)(struct kfs_db *db, struct kfs_err *err);
    int (*create_tables)(struct kfs_db *db, const char *schema, struct kfs_err *err);
    int (*exec_rows)(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args,
                     size_t args_per_row, size_t row_count, struct kfs_err *err);
    int (*first)(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args,
                 size_t arg_count, struct kfs_row **ret_row, struct kfs_err *err);
    int (*next)(struct kfs_db *db, struct kfs_row *row, struct kfs_err *err);
    void (*done)(struct kfs_row *row);
    int64_t (*get_int)(struct kfs_row *row, int column);
    const void *(*get_bytes)(struct kfs_row *row, int column, size_t *ret_len);
    int (*begin)(struct kfs_db *db, struct kfs_err *err);
    int (*commit)(struct kfs_db *db, struct kfs_err *err);
    void (*rollback)(struct kfs_db *db);
    int (*script)(struct kfs_db *db, const char *sql, struct kfs_err *err);
    int (*query_int)(struct kfs_db *db, const char *sql, int64_t *ret_n, struct kfs_err *err);
    int (*wal_fd)(struct kfs_db *db, int *ret_fd, struct kfs_err *err);
    int (*sync)(struct kfs_db *db, struct kfs_err *err);
    const char *(*engine)(struct kfs_db *db);
};

struct kfs_db {
    const struct kfs_db_ops *ops;
    char *name; /* kfs_db_path */
    bool outcome_unknown;
};

struct kfs_row {
    const struct kfs_db_ops *ops;
};

extern const struct kfs_db_ops kfs_db_sqlite, kfs_db_mysql;
extern const char *const kfs_sql_texts[KFS_SQL_COUNT];

#endif
