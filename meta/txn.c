/* Transactions, number pools, remembered operations. */
#include "meta/internal.h"

#include "base/clock.h"
#include "base/fault.h"
#include <errno.h>
#include <string.h>

#define OP_KEEP_S 86400       /* clients re-send within seconds; a day is beyond any pause */
#define OP_EXPIRE_EVERY 65536 /* stored operations between two sweeps: each looks at every row */

struct timespec kfs_meta_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return t;
}

int kfs_tx_begin(struct kfs_meta *m, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    int rc = kfs_db_begin(m->db, err);
    if (rc < 0) {
        (void)pthread_mutex_unlock(&m->lock);
        return rc;
    }
    m->now = kfs_meta_now();
    m->inodes_added = m->bytes_added = 0;
    return 0;
}

int kfs_tx_end(struct kfs_meta *m, int rc, struct kfs_err *err)
{
    if (rc >= 0) {
        KFS_FAULT("meta.commit.before");
        int fault = KFS_FAULT_ERR("meta.commit");
        int result = fault ? KFS_FAIL(err, -fault, "fault point meta.commit") : 0;
        if (fault)
            kfs_db_rollback(m->db);
        else
            result = kfs_db_commit(m->db, err);
        KFS_FAULT("meta.commit.after");
        if (result < 0)
            rc = result;
    } else {
        kfs_db_rollback(m->db);
    }
    if (rc >= 0 && m->usage_known) {
        m->usage.inodes += (uint64_t)m->inodes_added;
        m->usage.bytes += (uint64_t)m->bytes_added;
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int pool_refill(struct kfs_meta *m, struct kfs_id_pool *pool, struct kfs_err *err)
{
    int rc = kfs_db_begin(m->db, err);
    if (rc < 0)
        return rc;
    struct kfs_row *row;
    rc = kfs_db_first(m->db, KFS_SQL_COUNTER_GET, DB_ARGS(DB_T(pool->counter)), &row, err);
    uint64_t first = rc == 1 ? (uint64_t)kfs_db_int(row, 0) : 0;
    kfs_db_done(row);
    if (rc == 0 || (rc == 1 && first == 0))
        rc = KFS_FAIL(err, EIO, "database '%s' is damaged: counter '%s' is missing",
                      kfs_db_path(m->db), pool->counter);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_COUNTER_SET,
                         DB_ARGS(DB_T(pool->counter), DB_I(first + KFS_ID_BLOCK)), err);
    if (rc < 0) {
        kfs_db_rollback(m->db);
        return rc;
    }
    rc = kfs_db_commit(m->db, err);
    if (rc >= 0)
        rc = kfs_db_sync(m->db, err);
    if (rc < 0)
        return rc;
    pool->next = first;
    pool->end = first + KFS_ID_BLOCK;
    return 0;
}

int kfs_id_take_locked(struct kfs_meta *m, struct kfs_id_pool *pool, uint64_t *ret_id,
                       struct kfs_err *err)
{
    if (pool->next == pool->end) {
        int rc = pool_refill(m, pool, err);
        if (rc < 0)
            return rc;
    }
    *ret_id = pool->next++;
    return 0;
}

int kfs_meta_object_id(struct kfs_meta *m, uint64_t *ret_id, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    int rc = kfs_id_take_locked(m, &m->objects, ret_id, err);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

int kfs_op_store(struct kfs_meta *m, const struct kfs_opid *op, uint64_t ino, uint64_t value,
                 struct kfs_err *err)
{
    if (!op || op->seq == 0)
        return 0;
    int rc = kfs_db_exec(m->db, KFS_SQL_OP_SET,
                         DB_ARGS(DB_B(op->client, sizeof op->client), DB_I(op->seq), DB_I(0),
                                 DB_I(ino), DB_I(value), DB_I(m->now.tv_sec)),
                         err);
    if (rc >= 0 && ++m->ops_stored % OP_EXPIRE_EVERY == 0)
        rc = kfs_db_exec(m->db, KFS_SQL_OP_EXPIRE, DB_ARGS(DB_I(m->now.tv_sec - OP_KEEP_S)), err);
    return rc < 0 ? rc : 0;
}

int kfs_meta_op_find(struct kfs_meta *m, const struct kfs_opid *op, struct kfs_op_result *ret,
                     struct kfs_err *err)
{
    if (!op || op->seq == 0)
        return 0;
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_OP_GET,
                          DB_ARGS(DB_B(op->client, sizeof op->client), DB_I(op->seq)), &row, err);
    if (rc == 1) {
        ret->status = (int32_t)kfs_db_int(row, 0);
        ret->ino = (uint64_t)kfs_db_int(row, 1);
        ret->value = (uint64_t)kfs_db_int(row, 2);
    }
    kfs_db_done(row);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}
