/* Rename: every case of renameat2(2), in the kernel's order of checks. */
#include "meta/internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#endif

struct rename_end {
    const char *name;
    size_t len;
    struct kfs_attr *dir; /* both ends point to one record if it is one directory */
    struct kfs_attr what; /* ino 0: no such name */
};

struct rename {
    const struct kfs_cred *cred;
    unsigned flags;
    struct rename_end from, to;
    struct kfs_attr dirs[2];
};

static int dirs_get(struct kfs_meta *m, struct rename *r, kfs_ino_t from, kfs_ino_t to,
                    struct kfs_err *err)
{
    int rc = kfs_inode_get_dir(m, from, &r->dirs[0], err);
    if (rc >= 0 && from != to)
        rc = kfs_inode_get_dir(m, to, &r->dirs[1], err);
    r->from.dir = &r->dirs[0];
    r->to.dir = &r->dirs[from == to ? 0 : 1];
    return rc;
}

static int end_get(struct kfs_meta *m, const struct rename *r, struct rename_end *e,
                   struct kfs_err *err)
{
    if (!kfs_perm_ok(r->cred, e->dir->mode, e->dir->uid, e->dir->gid, 1))
        return -EACCES;
    e->what.ino = 0;
    int rc = kfs_dentry_get(m, e->dir->ino, e->name, e->len, &e->what, err);
    return rc < 0 ? rc : 0;
}

/* A directory must not go below itself, nor onto one that holds it. */
static int ancestry_check(struct kfs_meta *m, const struct rename *r, struct kfs_err *err)
{
    if (r->from.dir == r->to.dir)
        return 0;
    if (S_ISDIR(r->from.what.mode)) {
        int rc = kfs_inode_below(m, r->to.dir->ino, r->from.what.ino, err);
        if (rc != 0)
            return rc < 0 ? rc : -EINVAL;
    }
    if (r->to.what.ino && S_ISDIR(r->to.what.mode)) {
        int rc = kfs_inode_below(m, r->from.dir->ino, r->to.what.ino, err);
        if (rc != 0)
            return rc < 0 ? rc : (r->flags & RENAME_EXCHANGE) ? -EINVAL : -ENOTEMPTY;
    }
    return 0;
}

static int may_write(const struct rename *r, const struct kfs_attr *a)
{
    return kfs_perm_ok(r->cred, a->mode, a->uid, a->gid, 2) ? 0 : -EACCES;
}

static int may_remove(const struct rename *r, const struct rename_end *e)
{
    int rc = may_write(r, e->dir);
    if (rc == 0 && !kfs_perm_sticky_ok(r->cred, e->dir, &e->what))
        rc = -EPERM;
    return rc;
}

static int permission_check(const struct rename *r)
{
    bool exchange = r->flags & RENAME_EXCHANGE;
    bool from_dir = S_ISDIR(r->from.what.mode);
    int rc = may_remove(r, &r->from);
    if (rc < 0)
        return rc;
    rc = r->to.what.ino ? may_remove(r, &r->to) : may_write(r, r->to.dir);
    if (rc < 0)
        return rc;
    bool to_dir = r->to.what.ino && S_ISDIR(r->to.what.mode);
    if (r->to.what.ino && !exchange && from_dir != to_dir)
        return from_dir ? -ENOTDIR : -EISDIR;
    if (r->from.dir == r->to.dir)
        return 0;
    /* A directory that changes its parent has its ".." written. */
    if (from_dir)
        rc = may_write(r, &r->from.what);
    if (rc == 0 && exchange && to_dir)
        rc = may_write(r, &r->to.what);
    return rc;
}

/* Put `what` where `e` is: times, and for a directory the way back up and the link counts. */
static int settle(struct kfs_meta *m, struct kfs_attr *what, struct kfs_attr *old_dir,
                  const struct rename_end *e, struct kfs_err *err)
{
    what->ctime_s = m->now.tv_sec;
    what->ctime_ns = (uint32_t)m->now.tv_nsec;
    int rc = kfs_inode_put(m, what, err);
    if (rc < 0 || !S_ISDIR(what->mode))
        return rc;
    if (old_dir != e->dir) {
        old_dir->nlink--;
        e->dir->nlink++;
    }
    return kfs_inode_place(m, what, e->dir->ino, e->name, e->len, err);
}

static int exchange_apply(struct kfs_meta *m, struct rename *r, struct kfs_err *err)
{
    struct rename_end *f = &r->from, *t = &r->to;
    int rc = kfs_dentry_set(m, f->dir->ino, f->name, f->len, &t->what, err);
    if (rc >= 0)
        rc = kfs_dentry_set(m, t->dir->ino, t->name, t->len, &f->what, err);
    if (rc >= 0)
        rc = settle(m, &f->what, f->dir, t, err);
    if (rc >= 0)
        rc = settle(m, &t->what, t->dir, f, err);
    return rc;
}

static int move_apply(struct kfs_meta *m, struct rename *r, struct kfs_err *err)
{
    struct rename_end *f = &r->from, *t = &r->to;
    int rc;
    if (t->what.ino) {
        if (S_ISDIR(t->what.mode)) {
            rc = kfs_dentry_any(m, t->what.ino, err);
            if (rc != 0)
                return rc < 0 ? rc : -ENOTEMPTY;
            t->dir->nlink--;
        }
        rc = kfs_dentry_set(m, t->dir->ino, t->name, t->len, &f->what, err);
        if (rc >= 0)
            rc = kfs_inode_unname(m, &t->what, err);
    } else {
        if (S_ISDIR(f->what.mode) && f->dir != t->dir && t->dir->nlink >= KFS_NLINK_MAX)
            return -EMLINK;
        rc = kfs_dentry_add(m, t->dir->ino, t->name, t->len, &f->what, err);
    }
    if (rc >= 0)
        rc = kfs_dentry_drop(m, f->dir->ino, f->name, f->len, err);
    if (rc >= 0)
        rc = settle(m, &f->what, f->dir, t, err);
    return rc;
}

static int rename_locked(struct kfs_meta *m, struct rename *r, kfs_ino_t parent, kfs_ino_t parent2,
                         struct kfs_err *err)
{
    int rc = dirs_get(m, r, parent, parent2, err);
    if (rc >= 0)
        rc = end_get(m, r, &r->from, err);
    if (rc >= 0)
        rc = end_get(m, r, &r->to, err);
    if (rc < 0)
        return rc;
    if (!r->from.what.ino)
        return -ENOENT;
    if ((r->flags & RENAME_NOREPLACE) && r->to.what.ino)
        return -EEXIST;
    if ((r->flags & RENAME_EXCHANGE) && !r->to.what.ino)
        return -ENOENT;
    rc = ancestry_check(m, r, err);
    if (rc < 0)
        return rc;
    /* Two names of one inode, or one name twice: POSIX wants nothing to happen. */
    if (r->from.what.ino == r->to.what.ino)
        return 0;
    rc = permission_check(r);
    if (rc < 0)
        return rc;
    rc = (r->flags & RENAME_EXCHANGE) ? exchange_apply(m, r, err) : move_apply(m, r, err);
    if (rc >= 0)
        rc = kfs_inode_touch(m, r->from.dir, err);
    if (rc >= 0 && r->to.dir != r->from.dir)
        rc = kfs_inode_touch(m, r->to.dir, err);
    return rc;
}

int kfs_meta_rename(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t parent,
                    const char *name, size_t len, kfs_ino_t parent2, const char *name2, size_t len2,
                    unsigned flags, const struct kfs_opid *op, struct kfs_attr *ret_moved,
                    struct kfs_attr *ret_replaced, struct kfs_err *err)
{
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
        flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    struct rename r = {.cred = kfs_cred_or_root(cred),
                       .flags = flags,
                       .from = {.name = name, .len = len},
                       .to = {.name = name2, .len = len2}};
    int rc = kfs_name_check(name, len);
    if (rc >= 0)
        rc = kfs_name_check(name2, len2);
    if (rc >= 0)
        rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    rc = rename_locked(m, &r, parent, parent2, err);
    if (rc >= 0)
        rc = kfs_op_store(m, op, r.from.what.ino, 0, err);
    rc = kfs_tx_end(m, rc, err);
    if (rc < 0)
        return rc;
    if (ret_moved)
        *ret_moved = r.from.what;
    if (ret_replaced) {
        *ret_replaced = r.to.what;
        if (r.to.what.ino == r.from.what.ino)
            ret_replaced->ino = 0;
    }
    return 0;
}
