/* Objects: how many extents name each, and what becomes of those that nobody names. */
#include "meta/internal.h"

#include <errno.h>
#include <stdlib.h>

#define COLLECTED_KEEP_S 86400      /* no commit is under way for a day */
#define COLLECTED_EXPIRE_EVERY 8192 /* deletions between two sweeps: each looks at every row */
#define GAP_ROWS 16384              /* known ids looked at in one go: others wait for the lock meanwhile */

int kfs_object_ref(struct kfs_meta *m, uint64_t object, int64_t by, int64_t len, bool made,
                   struct kfs_err *err)
{
    int rc = kfs_db_exec(m->db, KFS_SQL_OBJECT_REF,
                         DB_ARGS(DB_I(by), DB_I(len), DB_I(made ? len : 0), DB_I(object)), err);
    if (rc == 0)
        return KFS_FAIL(err, EINVAL, "object %llu is named by an extent, but not known",
                        (unsigned long long)object);
    return rc < 0 ? rc : 0;
}

static int any_row(struct kfs_meta *m, enum kfs_sql id, uint64_t object, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, id, DB_ARGS(DB_I(object)), &row, err);
    kfs_db_done(row);
    return rc;
}

int kfs_object_check(struct kfs_meta *m, uint64_t object, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_GARBAGE_GET, DB_ARGS(DB_I(object)), &row, err);
    bool stale = rc == 1 && kfs_db_int(row, 0);
    kfs_db_done(row);
    if (rc == 0)
        stale = (rc = any_row(m, KFS_SQL_COLLECTED_GET, object, err)) == 1;
    if (rc < 0)
        return rc;
    return stale ? KFS_FAIL(err, ESTALE, "object %llu was collected before its commit; write it anew",
                            (unsigned long long)object)
                 : 0;
}

int kfs_object_add(struct kfs_meta *m, uint64_t object, uint64_t bytes, struct kfs_err *err)
{
    int rc = any_row(m, KFS_SQL_OBJECT_GET, object, err);
    if (rc)
        return rc < 0 ? rc : 0;
    struct kfs_row *row;
    rc = kfs_db_first(m->db, KFS_SQL_GARBAGE_GET, DB_ARGS(DB_I(object)), &row, err);
    bool buried = rc == 1;
    int64_t plain = buried ? kfs_db_int(row, 2) : 0;
    kfs_db_done(row);
    if (rc >= 0 && buried)
        rc = kfs_db_exec(m->db, KFS_SQL_GARBAGE_DROP, DB_ARGS(DB_I(object)), err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_OBJECT_ADD, DB_ARGS(DB_I(object), DB_I(bytes), DB_I(plain)),
                         err);
    return rc < 0 ? rc : 0;
}

int kfs_lost_add(struct kfs_lost *l, uint64_t object, struct kfs_err *err)
{
    if (l->count && l->objects[l->count - 1] == object)
        return 0;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        uint64_t *more = realloc(l->objects, cap * sizeof *more);
        if (!more)
            return KFS_FAIL(err, ENOMEM, "out of memory for a list of objects");
        l->objects = more;
        l->cap = cap;
    }
    l->objects[l->count++] = object;
    return 0;
}

static struct kfs_meta_object object_row(struct kfs_row *row)
{
    return (struct kfs_meta_object){.id = (uint64_t)kfs_db_int(row, 0),
                                    .bytes = (uint64_t)kfs_db_int(row, 1),
                                    .plain = (uint64_t)kfs_db_int(row, 2),
                                    .live = (uint64_t)kfs_db_int(row, 3),
                                    .refs = (uint64_t)kfs_db_int(row, 4)};
}

static int bury(struct kfs_meta *m, uint64_t object, struct kfs_err *err)
{
    struct kfs_row *row;
    struct kfs_meta_object o = {.refs = 1};
    int rc = kfs_db_first(m->db, KFS_SQL_OBJECT_GET, DB_ARGS(DB_I(object)), &row, err);
    if (rc == 1)
        o = object_row(row);
    kfs_db_done(row);
    if (rc < 0 || o.refs)
        return rc;
    rc = kfs_db_exec(m->db, KFS_SQL_OBJECT_DROP, DB_ARGS(DB_I(object)), err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_GARBAGE_ADD,
                         DB_ARGS(DB_I(object), DB_I(m->now.tv_sec), DB_I(o.bytes), DB_I(o.plain)),
                         err);
    return rc;
}

int kfs_lost_bury(struct kfs_meta *m, const struct kfs_lost *l, struct kfs_err *err)
{
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < l->count; i++)
        rc = bury(m, l->objects[i], err);
    return rc < 0 ? rc : 0;
}

/* --- what others ask ---------------------------------------------------------------------------------------------- */

int kfs_meta_objects(struct kfs_meta *m, uint64_t after, struct kfs_meta_object *ret, size_t cap,
                     struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int n = 0;
    int rc = kfs_db_first(m->db, KFS_SQL_OBJECT_LIST, DB_ARGS(DB_I(after), DB_I(cap)), &row, err);
    struct kfs_row *first = row;
    for (; rc == 1 && (size_t)n < cap; rc = kfs_db_next(m->db, row, err))
        ret[n++] = object_row(row);
    kfs_db_done(first);
    (void)pthread_mutex_unlock(&m->lock);
    return rc < 0 ? rc : n;
}

int kfs_meta_garbage_list(struct kfs_meta *m, int64_t grace_s, uint64_t after,
                          struct kfs_meta_garbage *ret, size_t cap, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int n = 0;
    int rc = kfs_db_first(m->db, KFS_SQL_GARBAGE_LIST,
                          DB_ARGS(DB_I(after), DB_I(kfs_meta_now().tv_sec - grace_s), DB_I(cap)),
                          &row, err);
    struct kfs_row *first = row;
    for (; rc == 1 && (size_t)n < cap; rc = kfs_db_next(m->db, row, err))
        ret[n++] = (struct kfs_meta_garbage){.id = (uint64_t)kfs_db_int(row, 0),
                                             .since_s = kfs_db_int(row, 1),
                                             .doomed = kfs_db_int(row, 2) != 0,
                                             .bytes = (uint64_t)kfs_db_int(row, 3)};
    kfs_db_done(first);
    (void)pthread_mutex_unlock(&m->lock);
    return rc < 0 ? rc : n;
}

int kfs_meta_garbage_sum(struct kfs_meta *m, int64_t grace_s, uint64_t *ret_count,
                         uint64_t *ret_bytes, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_GARBAGE_SUM,
                          DB_ARGS(DB_I(kfs_meta_now().tv_sec - grace_s)), &row, err);
    if (rc == 1) {
        *ret_count = (uint64_t)kfs_db_int(row, 0);
        *ret_bytes = (uint64_t)kfs_db_int(row, 1);
    }
    kfs_db_done(row);
    (void)pthread_mutex_unlock(&m->lock);
    return rc < 0 ? rc : 0;
}

int kfs_meta_garbage_doom(struct kfs_meta *m, uint64_t *ids, size_t count, struct kfs_err *err)
{
    size_t kept = 0;
    int rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = kfs_db_exec(m->db, KFS_SQL_GARBAGE_DOOM, DB_ARGS(DB_I(ids[i])), err);
        if (rc > 0)
            ids[kept++] = ids[i];
    }
    rc = kfs_tx_end(m, rc, err);
    if (rc >= 0 && kept)
        rc = kfs_meta_sync(m, err);
    return rc < 0 ? rc : (int)kept;
}

int kfs_meta_garbage_forget(struct kfs_meta *m, const uint64_t *ids, size_t count,
                            struct kfs_err *err)
{
    int rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = kfs_db_exec(m->db, KFS_SQL_GARBAGE_DROP, DB_ARGS(DB_I(ids[i])), err);
        if (rc >= 0)
            rc = kfs_db_exec(m->db, KFS_SQL_COLLECTED_ADD,
                             DB_ARGS(DB_I(ids[i]), DB_I(m->now.tv_sec)), err);
        if (rc >= 0 && m->collected_stored++ % COLLECTED_EXPIRE_EVERY == 0)
            rc = kfs_db_exec(m->db, KFS_SQL_COLLECTED_EXPIRE,
                             DB_ARGS(DB_I(m->now.tv_sec - COLLECTED_KEEP_S)), err);
    }
    rc = kfs_tx_end(m, rc, err);
    return rc < 0 ? rc : 0;
}

int kfs_meta_object_known(struct kfs_meta *m, uint64_t id, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_OBJECT_KNOWN, DB_ARGS(DB_I(id), DB_I(id)), &row, err);
    kfs_db_done(row);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

/* Ids from *from up to `known`, as far as there is room. */
static bool gap_take(uint64_t *from, uint64_t known, uint64_t *ids, size_t cap, size_t *n)
{
    while (*from < known && *n < cap)
        ids[(*n)++] = (*from)++;
    return *from == known;
}

int kfs_meta_object_gaps(struct kfs_meta *m, uint64_t *from, uint64_t to, uint64_t *ids, size_t cap,
                         struct kfs_err *err)
{
    size_t n = 0;
    uint64_t at = *from;
    if (at >= to || cap == 0)
        return 0;
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_OBJECT_IDS, DB_ARGS(DB_I(at), DB_I(to), DB_I(at), DB_I(to), DB_I(at), DB_I(to)), &row, err);
    struct kfs_row *first = row;
    for (int seen = 0; rc == 1 && seen < GAP_ROWS; seen++, rc = kfs_db_next(m->db, row, err)) {
        uint64_t known = (uint64_t)kfs_db_int(row, 0);
        if (known < at)
            continue;
        if (!gap_take(&at, known, ids, cap, &n))
            break;
        at = known + 1;
    }
    kfs_db_done(first);
    if (rc == 0)
        (void)gap_take(&at, to, ids, cap, &n);
    (void)pthread_mutex_unlock(&m->lock);
    if (rc < 0)
        return rc;
    *from = at;
    return (int)n;
}
