/* Inodes: rows to records and back, attributes, orphans, counting. */
#include "base/pure/wire.h"
#include "meta/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 1000000 /* more levels than a real tree has: a loop in a damaged database ends here */

void kfs_inode_row(struct kfs_row *row, struct kfs_attr *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->ino = (uint64_t)kfs_db_int(row, 0);
    ret->mode = (uint32_t)kfs_db_int(row, 1);
    ret->nlink = (uint32_t)kfs_db_int(row, 2);
    ret->uid = (uint32_t)kfs_db_int(row, 3);
    ret->gid = (uint32_t)kfs_db_int(row, 4);
    ret->rdev = (uint64_t)kfs_db_int(row, 5);
    ret->size_bytes = (uint64_t)kfs_db_int(row, 6);
    ret->blocks = (uint64_t)kfs_db_int(row, 7);
    ret->version = (uint64_t)kfs_db_int(row, 8);
    ret->flags = (uint32_t)kfs_db_int(row, 9);
    ret->parent = (uint64_t)kfs_db_int(row, 10);
    ret->atime_s = kfs_db_int(row, 11);
    ret->atime_ns = (uint32_t)kfs_db_int(row, 12);
    ret->mtime_s = kfs_db_int(row, 13);
    ret->mtime_ns = (uint32_t)kfs_db_int(row, 14);
    ret->ctime_s = kfs_db_int(row, 15);
    ret->ctime_ns = (uint32_t)kfs_db_int(row, 16);
    ret->btime_s = kfs_db_int(row, 17);
    ret->btime_ns = (uint32_t)kfs_db_int(row, 18);
}

int kfs_inode_get(struct kfs_meta *m, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_INODE_GET, DB_ARGS(DB_I(ino)), &row, err);
    if (rc == 1)
        kfs_inode_row(row, ret);
    kfs_db_done(row);
    return rc == 1 ? 0 : rc == 0 ? -ENOENT : rc;
}

int kfs_inode_get_dir(struct kfs_meta *m, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err)
{
    int rc = kfs_inode_get(m, ino, ret, err);
    if (rc < 0)
        return rc;
    if (!S_ISDIR(ret->mode))
        return -ENOTDIR;
    return ret->nlink ? 0 : -ENOENT;
}

int kfs_inode_add(struct kfs_meta *m, const struct kfs_attr *a, const char *name, size_t len,
                  struct kfs_err *err)
{
    int rc = kfs_db_exec(
        m->db, KFS_SQL_INODE_ADD,
        DB_ARGS(DB_I(a->ino), DB_I(a->mode), DB_I(a->nlink), DB_I(a->uid), DB_I(a->gid),
                DB_I(a->rdev), DB_I(a->size_bytes), DB_I(a->blocks), DB_I(a->version),
                DB_I(a->flags), DB_I(a->parent), DB_I(a->atime_s), DB_I(a->atime_ns),
                DB_I(a->mtime_s), DB_I(a->mtime_ns), DB_I(a->ctime_s), DB_I(a->ctime_ns),
                DB_I(a->btime_s), DB_I(a->btime_ns), name ? DB_B(name, len) : DB_NULL),
        err);
    m->inodes_added++;
    return rc < 0 ? rc : 0;
}

/* An UPDATE by key that finds no row means that the tables contradict each other. */
static int one_row(struct kfs_meta *m, int rc, kfs_ino_t ino, struct kfs_err *err)
{
    if (rc == 0)
        return KFS_FAIL(err, EIO, "database '%s' is damaged: inode %llu is missing",
                        kfs_db_path(m->db), (unsigned long long)ino);
    return rc < 0 ? rc : 0;
}

int kfs_inode_put(struct kfs_meta *m, const struct kfs_attr *a, struct kfs_err *err)
{
    int rc = kfs_db_exec(m->db, KFS_SQL_INODE_PUT,
                         DB_ARGS(DB_I(a->mode), DB_I(a->nlink), DB_I(a->uid), DB_I(a->gid),
                                 DB_I(a->size_bytes), DB_I(a->blocks), DB_I(a->version),
                                 DB_I(a->flags), DB_I(a->atime_s), DB_I(a->atime_ns),
                                 DB_I(a->mtime_s), DB_I(a->mtime_ns), DB_I(a->ctime_s),
                                 DB_I(a->ctime_ns), DB_I(a->ino)),
                         err);
    return one_row(m, rc, a->ino, err);
}

int kfs_inode_touch(struct kfs_meta *m, struct kfs_attr *dir, struct kfs_err *err)
{
    dir->mtime_s = dir->ctime_s = m->now.tv_sec;
    dir->mtime_ns = dir->ctime_ns = (uint32_t)m->now.tv_nsec;
    int rc = kfs_db_exec(m->db, KFS_SQL_INODE_TOUCH,
                         DB_ARGS(DB_I(dir->nlink), DB_I(dir->mtime_s), DB_I(dir->mtime_ns),
                                 DB_I(dir->ctime_s), DB_I(dir->ctime_ns), DB_I(dir->ino)),
                         err);
    return one_row(m, rc, dir->ino, err);
}

int kfs_inode_place(struct kfs_meta *m, struct kfs_attr *dir, kfs_ino_t parent, const char *name,
                    size_t len, struct kfs_err *err)
{
    dir->parent = parent;
    int rc = kfs_db_exec(m->db, KFS_SQL_INODE_PLACE,
                         DB_ARGS(DB_I(parent), DB_B(name, len), DB_I(dir->ino)), err);
    return one_row(m, rc, dir->ino, err);
}

int kfs_inode_unname(struct kfs_meta *m, struct kfs_attr *a, struct kfs_err *err)
{
    a->nlink = S_ISDIR(a->mode) || a->nlink == 0 ? 0 : a->nlink - 1;
    a->ctime_s = m->now.tv_sec;
    a->ctime_ns = (uint32_t)m->now.tv_nsec;
    int rc = kfs_inode_put(m, a, err);
    if (rc >= 0 && a->nlink == 0)
        rc = kfs_db_exec(m->db, KFS_SQL_ORPHAN_ADD, DB_ARGS(DB_I(a->ino), DB_I(0)), err);
    return rc < 0 ? rc : 0;
}

int kfs_inode_below(struct kfs_meta *m, kfs_ino_t ino, kfs_ino_t top, struct kfs_err *err)
{
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        if (ino == top)
            return 1;
        if (ino == KFS_INO_ROOT)
            return 0;
        struct kfs_row *row;
        int rc = kfs_db_first(m->db, KFS_SQL_INODE_UP, DB_ARGS(DB_I(ino)), &row, err);
        kfs_ino_t parent = rc == 1 ? (kfs_ino_t)kfs_db_int(row, 0) : 0;
        kfs_db_done(row);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return one_row(m, 0, ino, err);
        ino = parent;
    }
    return KFS_FAIL(err, EIO, "database '%s' is damaged: directory %llu is its own ancestor",
                    kfs_db_path(m->db), (unsigned long long)ino);
}

int kfs_meta_getattr(struct kfs_meta *m, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    int rc = kfs_inode_get(m, ino, ret, err);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

/* --- setattr --------------------------------------------------------------------------------------------------- */

/* chown(2): who may, and that set-id bits of anything but a directory do not survive it, not even root's. */
static int set_owner(const struct kfs_cred *cred, const struct kfs_meta_setattr *s,
                     struct kfs_attr *a)
{
    bool owner = cred->uid == a->uid;
    if ((s->valid & KFS_SET_UID) && cred->uid != 0 && !(owner && s->uid == a->uid))
        return -EPERM;
    if ((s->valid & KFS_SET_GID) && cred->uid != 0 &&
        !(owner && (s->gid == a->gid || kfs_perm_in_group(cred, s->gid))))
        return -EPERM;
    if (!S_ISDIR(a->mode)) {
        bool alien = cred->uid != 0 && !kfs_perm_in_group(cred, a->gid);
        a->mode &= ~(uint32_t)S_ISUID;
        /* Without group execution setgid means something else (mandatory locking), and stays. */
        if ((a->mode & S_IXGRP) || alien)
            a->mode &= ~(uint32_t)S_ISGID;
    }
    if (s->valid & KFS_SET_UID)
        a->uid = s->uid;
    if (s->valid & KFS_SET_GID)
        a->gid = s->gid;
    return 0;
}

static int set_mode(const struct kfs_cred *cred, const struct kfs_meta_setattr *s,
                    uint32_t owner_before, struct kfs_attr *a)
{
    if (cred->uid != 0 && cred->uid != owner_before)
        return -EPERM;
    if (S_ISLNK(a->mode))
        return -EOPNOTSUPP;
    a->mode = (a->mode & S_IFMT) | (s->mode & 07777);
    if (cred->uid != 0 && !kfs_perm_in_group(cred, a->gid))
        a->mode &= ~(uint32_t)S_ISGID;
    return 0;
}

/* utimensat(2): the owner may set anything; who may write may set both to now. */
static int set_times(struct kfs_meta *m, const struct kfs_cred *cred,
                     const struct kfs_meta_setattr *s, const struct kfs_attr *before,
                     struct kfs_attr *a)
{
    const uint32_t both_now = KFS_SET_ATIME_NOW | KFS_SET_MTIME_NOW;
    if (cred->uid != 0 && cred->uid != before->uid) {
        if ((s->valid & both_now) != both_now)
            return -EPERM;
        if (!kfs_perm_ok(cred, before->mode, before->uid, before->gid, 2))
            return -EACCES;
    }
    const uint32_t now_ns = (uint32_t)m->now.tv_nsec;
    if (s->valid & (KFS_SET_ATIME | KFS_SET_ATIME_NOW)) {
        bool now = s->valid & KFS_SET_ATIME_NOW;
        if (!now && s->atime_ns >= 1000000000u)
            return -EINVAL;
        a->atime_s = now ? m->now.tv_sec : s->atime_s;
        a->atime_ns = now ? now_ns : s->atime_ns;
    }
    if (s->valid & (KFS_SET_MTIME | KFS_SET_MTIME_NOW)) {
        bool now = s->valid & KFS_SET_MTIME_NOW;
        if (!now && s->mtime_ns >= 1000000000u)
            return -EINVAL;
        a->mtime_s = now ? m->now.tv_sec : s->mtime_s;
        a->mtime_ns = now ? now_ns : s->mtime_ns;
    }
    return 0;
}

#define SET_TIMES (KFS_SET_ATIME | KFS_SET_MTIME | KFS_SET_ATIME_NOW | KFS_SET_MTIME_NOW)
#define SET_ANY (KFS_SET_MODE | KFS_SET_UID | KFS_SET_GID | SET_TIMES)

static int setattr_locked(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino,
                          const struct kfs_meta_setattr *s, struct kfs_attr *a, struct kfs_err *err)
{
    int rc = kfs_inode_get(m, ino, a, err);
    if (rc < 0 || !(s->valid & SET_ANY))
        return rc;
    const struct kfs_attr before = *a;
    if (s->valid & (KFS_SET_UID | KFS_SET_GID))
        rc = set_owner(cred, s, a);
    if (rc == 0 && (s->valid & KFS_SET_MODE))
        rc = set_mode(cred, s, before.uid, a);
    if (rc == 0 && (s->valid & SET_TIMES))
        rc = set_times(m, cred, s, &before, a);
    if (rc < 0)
        return rc;
    a->ctime_s = m->now.tv_sec;
    a->ctime_ns = (uint32_t)m->now.tv_nsec;
    return kfs_inode_put(m, a, err);
}

int kfs_meta_setattr(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino,
                     const struct kfs_meta_setattr *s, const struct kfs_opid *op,
                     struct kfs_attr *ret_attr, struct kfs_err *err)
{
    int rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    struct kfs_attr a;
    rc = setattr_locked(m, kfs_cred_or_root(cred), ino, s, &a, err);
    if (rc >= 0)
        rc = kfs_op_store(m, op, ino, 0, err);
    rc = kfs_tx_end(m, rc, err);
    if (rc >= 0 && ret_attr)
        *ret_attr = a;
    return rc;
}

/* --- symlinks, orphans, counting ------------------------------------------------------------------------------- */

int kfs_meta_readlink(struct kfs_meta *m, kfs_ino_t ino, char *buf, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_SYMLINK_GET, DB_ARGS(DB_I(ino)), &row, err);
    if (rc == 1) {
        size_t len;
        const void *target = kfs_db_bytes(row, 0, &len);
        if (len == 0 || len >= KFS_PATH_MAX) {
            rc = KFS_FAIL(err, EIO, "database '%s' is damaged: symlink %llu has no valid target",
                          kfs_db_path(m->db), (unsigned long long)ino);
        } else {
            memcpy(buf, target, len);
            buf[len] = '\0';
            rc = (int)len;
        }
        kfs_db_done(row);
    } else if (rc == 0) {
        struct kfs_attr a;
        rc = kfs_inode_get(m, ino, &a, err);
        if (rc == 0)
            rc = -EINVAL;
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

int kfs_meta_orphan_list(struct kfs_meta *m, kfs_ino_t *inos, size_t cap, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_row *row;
    int n = 0;
    int rc = kfs_db_first(m->db, KFS_SQL_ORPHAN_LIST, DB_ARGS(DB_I(cap)), &row, err);
    struct kfs_row *first = row;
    for (; rc == 1 && (size_t)n < cap; rc = kfs_db_next(m->db, row, err))
        inos[n++] = (kfs_ino_t)kfs_db_int(row, 0);
    kfs_db_done(first);
    (void)pthread_mutex_unlock(&m->lock);
    return rc < 0 ? rc : n;
}

static int purge_locked(struct kfs_meta *m, kfs_ino_t ino, struct kfs_err *err)
{
    static const enum kfs_sql drops[] = {KFS_SQL_SYMLINK_DROP, KFS_SQL_XATTR_DROP_ALL,
                                         KFS_SQL_ORPHAN_DROP, KFS_SQL_INODE_DROP};
    struct kfs_attr a;
    int rc = kfs_inode_get(m, ino, &a, err);
    if (rc < 0)
        return rc;
    if (a.nlink)
        return -EBUSY;
    if (S_ISREG(a.mode)) {
        rc = kfs_content_drop(m, ino, err);
        m->bytes_added -= (int64_t)a.size_bytes;
    }
    for (size_t i = 0; rc >= 0 && i < sizeof drops / sizeof *drops; i++)
        rc = kfs_db_exec(m->db, drops[i], DB_ARGS(DB_I(ino)), err);
    m->inodes_added--;
    return rc < 0 ? rc : 0;
}

int kfs_meta_orphan_purge(struct kfs_meta *m, kfs_ino_t ino, struct kfs_err *err)
{
    int rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    return kfs_tx_end(m, purge_locked(m, ino, err), err);
}

int kfs_meta_usage(struct kfs_meta *m, struct kfs_meta_usage *ret, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    int rc = 0;
    if (!m->usage_known) {
        struct kfs_row *row;
        rc = kfs_db_first(m->db, KFS_SQL_USAGE, NULL, 0, &row, err);
        if (rc == 1) {
            m->usage.inodes = (uint64_t)kfs_db_int(row, 0);
            m->usage.bytes = (uint64_t)kfs_db_int(row, 1);
            m->usage_known = true;
        }
        kfs_db_done(row);
    }
    if (m->usage_known)
        *ret = m->usage;
    (void)pthread_mutex_unlock(&m->lock);
    return rc < 0 ? rc : 0;
}

#define EACH_PAGE 1024 /* rows taken from the database at once */

/* The inodes behind *at. 0: *ret_more, *at moved on; else what cb said, or -errno. */
static int each_page(struct kfs_meta *m, kfs_ino_t *at, kfs_meta_inode_cb cb, void *arg,
                     bool *ret_more, struct kfs_err *err)
{
    struct kfs_row *row;
    int stop = 0, given = 0;
    int rc = kfs_db_first(m->db, KFS_SQL_INODE_EACH, DB_ARGS(DB_I(*at), DB_I(EACH_PAGE)), &row, err);
    struct kfs_row *first = row;
    for (; rc == 1; rc = stop ? 0 : kfs_db_next(m->db, row, err)) {
        struct kfs_attr a;
        kfs_inode_row(row, &a);
        *at = a.ino;
        given++;
        stop = cb(arg, &a);
    }
    kfs_db_done(first);
    *ret_more = given == EACH_PAGE;
    return rc < 0 ? rc : stop;
}

int kfs_meta_each_inode(struct kfs_meta *m, kfs_meta_inode_cb cb, void *arg, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    kfs_ino_t at = 0;
    bool more = true;
    int rc = 0;
    while (rc == 0 && more)
        rc = each_page(m, &at, cb, arg, &more, err);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}
