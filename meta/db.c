/* meta/db.c — to the engine that a database's name stands for */
#include "meta/db_ops.h"

#include <string.h>

const char *const kfs_sql_texts[KFS_SQL_COUNT] = {
#define SQL(id, text) [KFS_SQL_##id] = text,
#include "meta/sql.def"
#undef SQL
};

bool kfs_db_is_url(const char *where)
{
    return strncmp(where, "mysql://", 8) == 0;
}

int kfs_db_open(const char *where, bool create, struct kfs_db **ret_db, struct kfs_err *err)
{
    const struct kfs_db_ops *ops = kfs_db_is_url(where) ? &kfs_db_mysql : &kfs_db_sqlite;
    return ops->open(where, create, ret_db, err);
}

int kfs_db_configure(struct kfs_db *db, struct kfs_err *err)
{
    return db->ops->configure(db, err);
}

void kfs_db_close(struct kfs_db *db)
{
    if (db)
        db->ops->close(db);
}

const char *kfs_db_path(const struct kfs_db *db)
{
    return db->name;
}

int kfs_db_identify(struct kfs_db *db, struct kfs_err *err)
{
    return db->ops->identify(db, err);
}

int kfs_db_create_tables(struct kfs_db *db, const char *schema, struct kfs_err *err)
{
    return db->ops->create_tables(db, schema, err);
}

int kfs_db_exec(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args, size_t arg_count,
                struct kfs_err *err)
{
    return db->ops->exec_rows(db, id, args, arg_count, 1, err);
}

int kfs_db_exec_rows(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args,
                     size_t args_per_row, size_t row_count, struct kfs_err *err)
{
    return row_count ? db->ops->exec_rows(db, id, args, args_per_row, row_count, err) : 0;
}

int kfs_db_first(struct kfs_db *db, enum kfs_sql id, const struct kfs_db_arg *args,
                 size_t arg_count, struct kfs_row **ret_row, struct kfs_err *err)
{
    *ret_row = NULL;
    return db->ops->first(db, id, args, arg_count, ret_row, err);
}

int kfs_db_next(struct kfs_db *db, struct kfs_row *row, struct kfs_err *err)
{
    return db->ops->next(db, row, err);
}

void kfs_db_done(struct kfs_row *row)
{
    if (row)
        row->ops->done(row);
}

int64_t kfs_db_int(struct kfs_row *row, int column)
{
    return row->ops->get_int(row, column);
}

const void *kfs_db_bytes(struct kfs_row *row, int column, size_t *ret_len)
{
    return row->ops->get_bytes(row, column, ret_len);
}

int kfs_db_begin(struct kfs_db *db, struct kfs_err *err)
{
    db->outcome_unknown = false;
    return db->ops->begin(db, err);
}

int kfs_db_commit(struct kfs_db *db, struct kfs_err *err)
{
    return db->ops->commit(db, err);
}

void kfs_db_rollback(struct kfs_db *db)
{
    db->ops->rollback(db);
}

bool kfs_db_outcome_unknown(const struct kfs_db *db)
{
    return db->outcome_unknown;
}

int kfs_db_script(struct kfs_db *db, const char *sql, struct kfs_err *err)
{
    return db->ops->script(db, sql, err);
}

int kfs_db_query_int(struct kfs_db *db, const char *sql, int64_t *ret_n, struct kfs_err *err)
{
    return db->ops->query_int(db, sql, ret_n, err);
}

int kfs_db_wal_fd(struct kfs_db *db, int *ret_fd, struct kfs_err *err)
{
    return db->ops->wal_fd(db, ret_fd, err);
}

int kfs_db_sync(struct kfs_db *db, struct kfs_err *err)
{
    return db->ops->sync(db, err);
}

const char *kfs_db_engine(struct kfs_db *db)
{
    return db->ops->engine(db);
}
