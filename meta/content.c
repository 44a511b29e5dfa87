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
    /* An empty file is the shortest inline one, whether or not it ever had content. */
    if (rc >= 0 && c->size_bytes == 0 && !c->is_inline) {
        c->is_inline = true;
        c->inline_data = calloc(1, 1);
        if (!c->inline_data)
            rc = KFS_FAIL(err, ENOMEM, "out of memory for inode %llu", (unsigned long long)ino);
    }
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
    *ret_c = c;
    return 0;
}

/* --- extents of one inode -------------------------------------------------------------------------------------- */

static int extent_add(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_extent *e, bool made,
                      struct kfs_err *err)
{
    int rc = kfs_db_exec(
        m->db, KFS_SQL_EXTENT_ADD,
        DB_ARGS(DB_I(ino), DB_I(e->off), DB_I(e->len), DB_I(e->object), DB_I(e->object_off)), err);
    return rc < 0 ? rc : kfs_object_ref(m, e->object, 1, (int64_t)e->len, made, err);
}

static int extent_drop(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_extent *e, struct kfs_lost *l,
                       struct kfs_err *err)
{
    int rc = kfs_db_exec(m->db, KFS_SQL_EXTENT_DROP, DB_ARGS(DB_I(ino), DB_I(e->off)), err);
    if (rc >= 0)
        rc = kfs_object_ref(m, e->object, -1, -(int64_t)e->len, false, err);
    if (rc >= 0)
        rc = kfs_lost_add(l, e->object, err);
    return rc;
}

/* Take [off, end) out of one extent that overlaps it: what lies before stays, what lies behind becomes an extent of its own. */
static int extent_punch(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_extent *e, uint64_t off,
                        uint64_t end, struct kfs_lost *l, struct kfs_err *err)
{
    uint64_t e_end = e->off + e->len;
    int rc = 0;
    if (e_end > end) {
        struct kfs_extent tail = {.off = end,
                                  .len = e_end - end,
                                  .object = e->object,
                                  .object_off = e->object_off + (end - e->off)};
        rc = extent_add(m, ino, &tail, false, err);
    }
    if (rc < 0)
        return rc;
    if (e->off >= off)
        return extent_drop(m, ino, e, l, err);
    rc = kfs_db_exec(m->db, KFS_SQL_EXTENT_CUT,
                     DB_ARGS(DB_I(off - e->off), DB_I(ino), DB_I(e->off)), err);
    if (rc >= 0) /* the tail counted its own part */
        rc = kfs_object_ref(m, e->object, 0, -(int64_t)(e_end - off), false, err);
    return rc < 0 ? rc : 0;
}

/* Make [off, end) a hole. From the back: each step looks at the last extent that begins before `end`. */
static int punch(struct kfs_meta *m, kfs_ino_t ino, uint64_t off, uint64_t end, struct kfs_lost *l,
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

/* A map's extents: sorted, within a file, starting where frames start. (In an object they start anywhere: packs hold frames of less than full length.) */
static int extents_check(const struct kfs_extent *x, size_t count, bool holes, struct kfs_err *err)
{
    uint64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        const struct kfs_extent *e = &x[i];
        if (e->len == 0 || e->off < end || e->off > INT64_MAX || e->len > INT64_MAX - e->off ||
            e->object_off > INT64_MAX || e->off % KFS_FRAME_BYTES || (!e->object && !holes))
            return KFS_FAIL(err, EINVAL,
                            "extent %zu of a commit (at %llu, %llu bytes) is out of order or not "
                            "aligned",
                            i, (unsigned long long)e->off, (unsigned long long)e->len);
        end = e->off + e->len;
    }
    return 0;
}

/* Whatever can be wrong with a delta is found before anything is changed. */
static int delta_check(struct kfs_meta *m, const struct kfs_content_delta *d, struct kfs_err *err)
{
    if (d->size_bytes > INT64_MAX)
        return -EFBIG;
    if (d->to_inline && (d->inline_len != d->size_bytes || d->inline_len > KFS_INLINE_MAX))
        return KFS_FAIL(err, EINVAL, "a commit of %u inline bytes says that the size is %llu",
                        d->inline_len, (unsigned long long)d->size_bytes);
    int rc = d->to_inline ? 0 : extents_check(d->extents, d->extent_count, true, err);
    for (size_t i = 0; rc >= 0 && i < d->object_count; i++)
        rc = kfs_object_check(m, d->objects[i], err);
    return rc;
}

static int delta_apply(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_content_delta *d,
                       struct kfs_lost *l, struct kfs_err *err)
{
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < d->object_count; i++) {
        rc = kfs_object_add(m, d->objects[i], d->object_bytes[i], err);
        /* One that every extent of this commit leaves out is garbage from the start. */
        if (rc >= 0)
            rc = kfs_lost_add(l, d->objects[i], err);
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
            rc = extent_add(m, ino, e, true, err);
    }
    if (rc >= 0)
        rc = punch(m, ino, d->size_bytes, INT64_MAX, l, err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_INLINE_DROP, DB_ARGS(DB_I(ino)), err);
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

/* A commit in two steps: `commit_look` changes nothing, so that one that cannot be does not hurt others of its transaction. 1: there is something to do. */
static int commit_look(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_content_delta *d,
                       int64_t mtime_s, uint32_t mtime_ns, struct kfs_attr *a, struct kfs_err *err)
{
    int rc = kfs_inode_get(m, ino, a, err);
    if (rc < 0)
        return rc;
    if (!S_ISREG(a->mode))
        return S_ISDIR(a->mode) ? -EISDIR : -EINVAL;
    if (!d->changed)
        return a->mtime_s != mtime_s || a->mtime_ns != mtime_ns;
    rc = delta_check(m, d, err);
    return rc < 0 ? rc : 1;
}

static int commit_apply(struct kfs_meta *m, const struct kfs_content_delta *d, struct kfs_attr *a,
                        int64_t mtime_s, uint32_t mtime_ns, struct kfs_err *err)
{
    if (d->changed) {
        struct kfs_lost l = {0};
        int rc = delta_apply(m, a->ino, d, &l, err);
        if (rc >= 0)
            rc = kfs_lost_bury(m, &l, err);
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
    rc = commit_look(m, ino, delta, mtime_s, mtime_ns, &a, err);
    if (rc == 1)
        rc = commit_apply(m, delta, &a, mtime_s, mtime_ns, err);
    rc = kfs_tx_end(m, rc, err);
    if (rc >= 0 && ret_attr)
        *ret_attr = a;
    return rc < 0 ? rc : 0;
}

/* All in one transaction. False: it failed as a whole, and nothing of it happened. */
static bool commit_together(struct kfs_meta *m, struct kfs_meta_commit_item *items, size_t count)
{
    if (kfs_tx_begin(m, NULL) < 0)
        return false;
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        struct kfs_meta_commit_item *t = &items[i];
        t->err = (struct kfs_err){0};
        t->result = commit_look(m, t->ino, t->delta, t->mtime_s, t->mtime_ns, &t->attr, &t->err);
        if (t->result == 1)
            t->result = rc = commit_apply(m, t->delta, &t->attr, t->mtime_s, t->mtime_ns, &t->err);
        if (t->result > 0)
            t->result = 0;
    }
    return kfs_tx_end(m, rc, NULL) >= 0;
}

void kfs_meta_commit_many(struct kfs_meta *m, struct kfs_meta_commit_item *items, size_t count)
{
    if (commit_together(m, items, count))
        return;
    /* Something went wrong that looking did not show: one by one, so that it meets only those whom it concerns. */
    for (size_t i = 0; i < count; i++) {
        struct kfs_meta_commit_item *t = &items[i];
        t->err = (struct kfs_err){0};
        t->result = kfs_meta_commit(m, t->ino, t->delta, t->mtime_s, t->mtime_ns, &t->attr, &t->err);
    }
}

/* --- the same bytes elsewhere ------------------------------------------------------------------------------------ */

static bool content_same(const struct kfs_content *a, const struct kfs_content *b)
{
    if (a->size_bytes != b->size_bytes || a->is_inline != b->is_inline)
        return false;
    if (a->is_inline)
        return a->inline_len == b->inline_len &&
               memcmp(a->inline_data, b->inline_data, a->inline_len) == 0;
    if (a->extent_count != b->extent_count)
        return false;
    for (size_t i = 0; i < a->extent_count; i++) {
        const struct kfs_extent *x = &a->extents[i], *y = &b->extents[i];
        if (x->off != y->off || x->len != y->len || x->object != y->object ||
            x->object_off != y->object_off)
            return false;
    }
    return true;
}

/* 1: may be done. */
static int swap_look(struct kfs_meta *m, const struct kfs_meta_swap *s, struct kfs_err *err)
{
    struct kfs_attr a;
    struct kfs_content now = {0};
    int rc = kfs_inode_get(m, s->ino, &a, err);
    if (rc >= 0)
        rc = content_get_locked(m, s->ino, &now, err);
    if (rc >= 0 && (a.version != s->version || !content_same(&now, s->old)))
        rc = -ESTALE;
    if (rc >= 0)
        rc = extents_check(s->extents, s->extent_count, false, err);
    const struct kfs_extent *last = s->extent_count ? &s->extents[s->extent_count - 1] : NULL;
    if (rc >= 0 && last && last->off + last->len > a.size_bytes)
        rc = KFS_FAIL(err, EINVAL, "a new content map of inode %llu reaches beyond its end",
                      (unsigned long long)s->ino);
    for (size_t i = 0; rc >= 0 && i < s->object_count; i++)
        rc = kfs_object_check(m, s->objects[i], err);
    kfs_content_release(&now);
    return rc < 0 ? rc : 1;
}

static bool extent_is_of(const struct kfs_extent *e, const struct kfs_meta_swap *s)
{
    for (size_t i = 0; i < s->object_count; i++)
        if (s->objects[i] == e->object)
            return true;
    return false;
}

static int swap_apply(struct kfs_meta *m, const struct kfs_meta_swap *s, struct kfs_err *err)
{
    struct kfs_lost l = {0};
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < s->object_count; i++) {
        rc = kfs_object_add(m, s->objects[i], s->object_bytes[i], err);
        if (rc >= 0)
            rc = kfs_lost_add(&l, s->objects[i], err);
    }
    if (rc >= 0)
        rc = punch(m, s->ino, 0, INT64_MAX, &l, err);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_INLINE_DROP, DB_ARGS(DB_I(s->ino)), err);
    for (size_t i = 0; rc >= 0 && i < s->extent_count; i++)
        rc = extent_add(m, s->ino, &s->extents[i], extent_is_of(&s->extents[i], s), err);
    if (rc >= 0)
        rc = kfs_lost_bury(m, &l, err);
    free(l.objects);
    return rc;
}

static bool swap_together(struct kfs_meta *m, struct kfs_meta_swap *swaps, size_t count)
{
    struct kfs_err err = {0};
    int rc = kfs_tx_begin(m, &err);
    bool begun = rc >= 0;
    for (size_t i = 0; i < count; i++) {
        struct kfs_meta_swap *s = &swaps[i];
        s->err = (struct kfs_err){0};
        s->result = rc < 0 ? rc : swap_look(m, s, &s->err);
        if (s->result == 1)
            s->result = rc = swap_apply(m, s, &s->err);
        if (s->result > 0)
            s->result = 0;
    }
    if (begun)
        rc = kfs_tx_end(m, rc, &err);
    for (size_t i = 0; rc < 0 && i < count; i++)
        if (swaps[i].result >= 0) {
            swaps[i].result = rc;
            swaps[i].err = err;
        }
    return rc >= 0;
}

void kfs_meta_content_swap(struct kfs_meta *m, struct kfs_meta_swap *swaps, size_t count)
{
    if (swap_together(m, swaps, count) || count == 1)
        return;
    for (size_t i = 0; i < count; i++)
        (void)swap_together(m, &swaps[i], 1);
}

/* --- all of it goes ------------------------------------------------------------------------------------------------ */

int kfs_content_drop(struct kfs_meta *m, kfs_ino_t ino, struct kfs_err *err)
{
    struct kfs_lost l = {0};
    int rc = punch(m, ino, 0, INT64_MAX, &l, err);
    if (rc >= 0)
        rc = kfs_lost_bury(m, &l, err);
    free(l.objects);
    if (rc >= 0)
        rc = kfs_db_exec(m->db, KFS_SQL_INLINE_DROP, DB_ARGS(DB_I(ino)), err);
    return rc < 0 ? rc : 0;
}
