/* Content: which bytes of a file lie where, and which objects nobody needs any more. */
#include "base/cleanup.h"
#include "meta/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* --- reading --------------------------------------------------------------------------------------------------- */

static int inline_get(struct kfs_meta *m, kfs_ino_t ino, struct kfs_content *c, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_INLINE_GET, DB_ARGS(DB_I(ino)), &row, err);
    if (rc <= 0)
        return rc;
    size_t len;
    const void *data = kfs_db_bytes(row, 0, &len);
    if (len != c->size_bytes || len > KFS_INLINE_MAX) {
        rc = KFS_FAIL(err, EIO, "database '%s' is damaged: inode %llu has %llu bytes, but %zu inline",
                      kfs_db_path(m->db), (unsigned long long)ino,
                      (unsigned long long)c->size_bytes, len);
    } else {
        c->inline_data = malloc(len + 1);
        if (!c->inline_data) {
            rc = KFS_FAIL(err, ENOMEM, "out of memory for inode %llu", (unsigned long long)ino);
        } else {
            if (len)
                memcpy(c->inline_data, data, len);
            c->inline_len = (uint32_t)len;
            c->is_inline = true;
        }
    }
    kfs_db_done(row);
    return rc;
}

static struct kfs_extent extent_row(struct kfs_row *row)
{
    struct kfs_extent e = {.off = (uint64_t)kfs_db_int(row, 0),
                           .len = (uint64_t)kfs_db_int(row, 1),
                           .object = (uint64_t)kfs_db_int(row, 2),
                           .object_off = (uint64_t)kfs_db_int(row, 3)};
    return e;
}

static int extents_get(struct kfs_meta *m, kfs_ino_t ino, struct kfs_extent **ret, size_t *ret_count,
                       struct kfs_err *err)
{
    kfs_auto_free struct kfs_extent *all = NULL;
    size_t count = 0, cap = 0;
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_EXTENT_LIST, DB_ARGS(DB_I(ino)), &row, err);
    struct kfs_row *first = row;
    for (; rc == 1; rc = kfs_db_next(m->db, row, err)) {
        if (count == cap) {
            cap = cap ? cap * 2 : 8;
            struct kfs_extent *more = realloc(all, cap * sizeof *all);
            if (!more) {
                rc = KFS_FAIL(err, ENOMEM, "out of memory for inode %llu", (unsigned long long)ino);
                break;
            }
            all = more;
        }
        all[count++] = extent_row(row);
    }
    kfs_db_done(first);
    if (rc < 0)
        return rc;
    *ret = kfs_steal(&all);
    *ret_count = count;
    return 0;
}

static int content_get_locked(struct kfs_meta *m, kfs_ino_t ino, struct kfs_content *c,
                              struct kfs_err *err)
{
    struct kfs_attr a;
    int rc = kfs_inode_get(m, ino, &a, err);
    if (rc < 0)
        return rc;
    if (!S_ISREG(a.mode))
        return S_ISDIR(a.mode) ? -EISDIR : -EINVAL;
    c->size_bytes = a.size_bytes;
    rc = inline_get(m, ino, c, err);
    if (rc == 0)
        rc = extents_get(m, ino, &c->extents, &c->extent_count, err);
    return rc < 0 ? rc : 0;
}

int kfs_meta_content_get(struct kfs_meta *m, kfs_ino_t ino, struct kfs_content *ret_c,
                         struct kfs_err *err)
{
    struct kfs_content c = {0};
    (void)pthread_mutex_lock(&m->lock);
    int rc = content_get_locked(m, ino, &c, err);
    (void)pthread_mutex_unlock(&m->lock);
    if (rc < 0) {
        kfs_content_release(&c);
        return rc;
    }
    /* An empty file is the shortest inline one, whether or not it ever had content. */
    if (c.size_bytes == 0 && !c.is_inline) {
        c.inline_data = calloc(1, 1);
        if (!c.inline_data)
            return KFS_FAIL(err, ENOMEM, "out of memory for inode %llu", (unsigned long long)ino);
        c.is_inline = true;
    }
    *ret_c = c;
    return 0;
}

/* --- references to objects ------------------------------------------------------------------------------------- */

static int object_ref(struct kfs_meta *m, uint64_t object, int64_t by, struct kfs_err *err)
{
    int rc = kfs_db_exec(m->db, KFS_SQL_OBJECT_REF, DB_ARGS(DB_I(by), DB_I(object)), err);
    if (rc == 0)
        return KFS_FAIL(err, EINVAL, "object %llu is named by an extent, but not known",
                        (unsigned long long)object);
    return rc < 0 ? rc : 0;
}

/* If nothing names the object any more, it goes to the garbage list. */
static int object_bury(struct kfs_meta *m, uint64_t object, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_OBJECT_DEAD, DB_ARGS(DB_I(object)), &row, err);
    kfs_db_done(row);
    if (rc <= 0)
        return rc;
    rc = kfs_db_exec(m->db, KFS_SQL_OBJECT_DROP, DB_ARGS(DB_I(object)), err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_GARBAGE_ADD, DB_ARGS(DB_I(object), DB_I(m->now.tv_sec)), err);
    return rc < 0 ? rc : 0;
}

/* --- extents of one inode -------------------------------------------------------------------------------------- */

/* Objects that lost a reference: buried at the end, because the same commit may give them another. */
struct lost {
    uint64_t *objects;
    size_t count, cap;
};

static int lost_add(struct lost *l, uint64_t object, struct kfs_err *err)
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

static int extent_add(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_extent *e,
                      struct kfs_err *err)
{
    int rc = kfs_db_exec(
        m->db, KFS_SQL_EXTENT_ADD,
        DB_ARGS(DB_I(ino), DB_I(e->off), DB_I(e->len), DB_I(e->object), DB_I(e->object_off)), err);
    return rc < 0 ? rc : object_ref(m, e->object, 1, err);
}

static int extent_drop(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_extent *e, struct lost *l,
                       struct kfs_err *err)
{
    int rc = kfs_db_exec(m->db, KFS_SQL_EXTENT_DROP, DB_ARGS(DB_I(ino), DB_I(e->off)), err);
    if (rc >= 0)
        rc = object_ref(m, e->object, -1, err);
    if (rc >= 0)
        rc = lost_add(l, e->object, err);
    return rc;
}

/* Take [off, end) out of one extent that overlaps it: what lies before stays, what lies behind becomes an extent of its own. */
static int extent_punch(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_extent *e, uint64_t off,
                        uint64_t end, struct lost *l, struct kfs_err *err)
{
    uint64_t e_end = e->off + e->len;
    int rc = 0;
    if (e_end > end) {
        struct kfs_extent tail = {.off = end,
                                  .len = e_end - end,
                                  .object = e->object,
                                  .object_off = e->object_off + (end - e->off)};
        rc = extent_add(m, ino, &tail, err);
    }
    if (rc < 0)
        return rc;
    if (e->off >= off)
        return extent_drop(m, ino, e, l, err);
    rc = kfs_db_exec(m->db, KFS_SQL_EXTENT_CUT,
                     DB_ARGS(DB_I(off - e->off), DB_I(ino), DB_I(e->off)), err);
    return rc < 0 ? rc : 0;
}

/* Make [off, end) a hole. From the back: each step looks at the last extent that begins before `end`. */
static int punch(struct kfs_meta *m, kfs_ino_t ino, uint64_t off, uint64_t end, struct lost *l,
                 struct kfs_err *err)
{
    for (uint64_t before = end;;) {
        struct kfs_row *row;
        int rc = kfs_db_first(m->db, KFS_SQL_EXTENT_LAST, DB_ARGS(DB_I(ino), DB_I(before)), &row,
                              err);
        if (rc <= 0)
            return rc;
        struct kfs_extent e = extent_row(row);
        kfs_db_done(row);
        if (e.off + e.len <= off)
            return 0;
        rc = extent_punch(m, ino, &e, off, end, l, err);
        if (rc < 0)
            return rc;
        before = e.off;
    }
}

/* --- commit ---------------------------------------------------------------------------------------------------- */

static int delta_check(const struct kfs_content_delta *d, struct kfs_err *err)
{
    if (d->size_bytes > INT64_MAX)
        return -EFBIG;
    if (d->to_inline) {
        if (d->inline_len != d->size_bytes || d->inline_len > KFS_INLINE_MAX)
            return KFS_FAIL(err, EINVAL, "a commit of %u inline bytes says that the size is %llu",
                            d->inline_len, (unsigned long long)d->size_bytes);
        return 0;
    }
    uint64_t end = 0;
    for (size_t i = 0; i < d->extent_count; i++) {
        const struct kfs_extent *e = &d->extents[i];
        if (e->len == 0 || e->off < end || e->off > INT64_MAX || e->len > INT64_MAX - e->off ||
            e->off % KFS_FRAME_BYTES || e->object_off > INT64_MAX)
            return KFS_FAIL(err, EINVAL,
                            "extent %zu of a commit (at %llu, %llu bytes) is out of order or not "
                            "aligned",
                            i, (unsigned long long)e->off, (unsigned long long)e->len);
        end = e->off + e->len;
    }
    return 0;
}

static int delta_apply(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_content_delta *d,
                       struct lost *l, struct kfs_err *err)
{
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < d->object_count; i++) {
        rc = kfs_db_exec(m->db, KFS_SQL_OBJECT_ADD,
                         DB_ARGS(DB_I(d->objects[i]), DB_I(d->object_bytes[i])), err);
        /* A pack that other files brought and have left again in the meantime is wanted once more. */
        if (rc >= 0 && i >= d->own_count)
            rc = kfs_db_exec(m->db, KFS_SQL_GARBAGE_DROP, DB_ARGS(DB_I(d->objects[i])), err);
        /* One that every extent of this commit leaves out is garbage from the start. */
        if (rc >= 0)
            rc = lost_add(l, d->objects[i], err);
    }
    if (rc < 0)
        return rc;
    if (d->to_inline) {
        rc = punch(m, ino, 0, INT64_MAX, l, err);
        if (rc >= 0)
            rc = d->inline_len ? kfs_db_exec(m->db, KFS_SQL_INLINE_SET,
                                             DB_ARGS(DB_I(ino), DB_B(d->inline_data, d->inline_len)),
                                             err)
                               : kfs_db_exec(m->db, KFS_SQL_INLINE_DROP, DB_ARGS(DB_I(ino)), err);
        return rc;
    }
    for (size_t i = 0; rc >= 0 && i < d->extent_count; i++) {
        const struct kfs_extent *e = &d->extents[i];
        rc = punch(m, ino, e->off, e->off + e->len, l, err);
        if (rc >= 0 && e->object)
            rc = extent_add(m, ino, e, err);
    }
    if (rc >= 0)
        rc = punch(m, ino, d->size_bytes, INT64_MAX, l, err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_INLINE_DROP, DB_ARGS(DB_I(ino)), err);
    return rc;
}

static int bury_all(struct kfs_meta *m, const struct lost *l, struct kfs_err *err)
{
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < l->count; i++)
        rc = object_bury(m, l->objects[i], err);
    return rc;
}

static bool older(int64_t s, uint32_t ns, int64_t than_s, uint32_t than_ns)
{
    return s < than_s || (s == than_s && ns < than_ns);
}

/* The inode changed when it was written, not when that was committed: programs remember the ctime of the moment before close (git's index). A store
 * through a mapping that moved no mtime counts from now. */
static void commit_ctime(struct kfs_meta *m, struct kfs_attr *a, bool changed, int64_t mtime_s, uint32_t mtime_ns)
{
    int64_t s = mtime_s, now_s = m->now.tv_sec;
    uint32_t ns = mtime_ns, now_ns = (uint32_t)m->now.tv_nsec;
    if (older(now_s, now_ns, s, ns) || (changed && a->mtime_s == s && a->mtime_ns == ns))
        s = now_s, ns = now_ns;
    if (older(a->ctime_s, a->ctime_ns, s, ns))
        a->ctime_s = s, a->ctime_ns = ns;
}

static int commit_locked(struct kfs_meta *m, const struct kfs_content_delta *d, struct kfs_attr *a,
                         int64_t mtime_s, uint32_t mtime_ns, struct kfs_err *err)
{
    if (!S_ISREG(a->mode))
        return S_ISDIR(a->mode) ? -EISDIR : -EINVAL;
    if (!d->changed && a->mtime_s == mtime_s && a->mtime_ns == mtime_ns)
        return 0;
    if (d->changed) {
        struct lost l = {0};
        int rc = delta_check(d, err);
        if (rc >= 0)
            rc = delta_apply(m, a->ino, d, &l, err);
        if (rc >= 0)
            rc = bury_all(m, &l, err);
        free(l.objects);
        if (rc < 0)
            return rc;
        m->bytes_added += (int64_t)(d->size_bytes - a->size_bytes);
        a->version++;
        a->size_bytes = d->size_bytes;
        a->blocks = d->blocks;
    }
    commit_ctime(m, a, d->changed, mtime_s, mtime_ns);
    a->mtime_s = mtime_s;
    a->mtime_ns = mtime_ns;
    return kfs_inode_put(m, a, err);
}

int kfs_meta_commit(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_content_delta *delta,
                    int64_t mtime_s, uint32_t mtime_ns, struct kfs_attr *ret_attr,
                    struct kfs_err *err)
{
    int rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    struct kfs_attr a;
    rc = kfs_inode_get(m, ino, &a, err);
    if (rc >= 0)
        rc = commit_locked(m, delta, &a, mtime_s, mtime_ns, err);
    rc = kfs_tx_end(m, rc, err);
    if (rc >= 0 && ret_attr)
        *ret_attr = a;
    return rc < 0 ? rc : 0;
}

int kfs_content_drop(struct kfs_meta *m, kfs_ino_t ino, struct kfs_err *err)
{
    struct lost l = {0};
    int rc = punch(m, ino, 0, INT64_MAX, &l, err);
    if (rc >= 0)
        rc = bury_all(m, &l, err);
    free(l.objects);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_INLINE_DROP, DB_ARGS(DB_I(ino)), err);
    return rc < 0 ? rc : 0;
}

/* --- garbage --------------------------------------------------------------------------------------------------- */

int kfs_meta_garbage_list(struct kfs_meta *m, int64_t grace_s, uint64_t *ids, size_t cap,
                          struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int n = 0;
    int rc = kfs_db_first(m->db, KFS_SQL_GARBAGE_LIST,
                          DB_ARGS(DB_I(kfs_meta_now().tv_sec - grace_s), DB_I(cap)), &row, err);
    struct kfs_row *first = row;
    for (; rc == 1 && (size_t)n < cap; rc = kfs_db_next(m->db, row, err))
        ids[n++] = (uint64_t)kfs_db_int(row, 0);
    kfs_db_done(first);
    (void)pthread_mutex_unlock(&m->lock);
    /* Whoever asks is about to delete them. A power cut must not bring back the extents that named them. */
    if (rc >= 0 && n)
        rc = kfs_meta_sync(m, err);
    return rc < 0 ? rc : n;
}

int kfs_meta_garbage_forget(struct kfs_meta *m, const uint64_t *ids, size_t count,
                            struct kfs_err *err)
{
    int rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        rc = kfs_db_exec(m->db, KFS_SQL_GARBAGE_DROP, DB_ARGS(DB_I(ids[i])), err);
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
