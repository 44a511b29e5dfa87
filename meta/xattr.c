/* Extended attributes. */
#include "base/cleanup.h"
#include "meta/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define LIST_MAX 65536 /* XATTR_LIST_MAX of Linux: a longer list could not be read */

enum space { SPACE_USER, SPACE_TRUSTED, SPACE_SECURITY };

/* -EOPNOTSUPP: not ours (system.*: no ACLs); -ERANGE: too long; -EINVAL: nothing behind the prefix. */
static int space_of(const char *name, enum space *ret)
{
    static const struct {
        const char *prefix;
        enum space space;
    } known[] = {
        {"user.", SPACE_USER}, {"trusted.", SPACE_TRUSTED}, {"security.", SPACE_SECURITY}};
    size_t len = strlen(name);
    if (len == 0 || len > KFS_XATTR_NAME_MAX)
        return -ERANGE;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].prefix);
        if (strncmp(name, known[i].prefix, n) == 0) {
            *ret = known[i].space;
            return len > n ? 0 : -EINVAL;
        }
    }
    return -EOPNOTSUPP;
}

/* As xattr_permission() of Linux. */
static int may(const struct kfs_cred *cred, const struct kfs_attr *a, enum space space, bool write)
{
    switch (space) {
    case SPACE_TRUSTED:
        if (cred->uid != 0)
            return write ? -EPERM : -ENODATA;
        return 0;
    case SPACE_SECURITY:
        return write && cred->uid != 0 ? -EPERM : 0;
    case SPACE_USER:
        break;
    }
    /* The bits of symlinks and special files say nothing about who may store data there, so nobody may. */
    if (!S_ISREG(a->mode) && !S_ISDIR(a->mode))
        return write ? -EPERM : -ENODATA;
    if (write && S_ISDIR(a->mode) && (a->mode & S_ISVTX) && cred->uid != 0 && cred->uid != a->uid)
        return -EPERM;
    return kfs_perm_ok(cred, a->mode, a->uid, a->gid, write ? 2 : 4) ? 0 : -EACCES;
}

static int get_locked(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino,
                      const char *name, enum space space, void *buf, size_t cap,
                      struct kfs_err *err)
{
    struct kfs_attr a;
    int rc = kfs_inode_get(m, ino, &a, err);
    if (rc == 0)
        rc = may(cred, &a, space, false);
    if (rc < 0)
        return rc;
    struct kfs_row *row;
    rc = kfs_db_first(m->db, KFS_SQL_XATTR_GET, DB_ARGS(DB_I(ino), DB_B(name, strlen(name))), &row,
                      err);
    if (rc <= 0)
        return rc < 0 ? rc : -ENODATA;
    size_t len;
    const void *value = kfs_db_bytes(row, 0, &len);
    rc = cap != 0 && len > cap ? -ERANGE : (int)len;
    if (cap != 0 && rc > 0)
        memcpy(buf, value, len);
    kfs_db_done(row);
    return rc;
}

int kfs_meta_xattr_get(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino,
                       const char *name, void *buf, size_t cap, struct kfs_err *err)
{
    enum space space;
    int rc = space_of(name, &space);
    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&m->lock);
    rc = get_locked(m, kfs_cred_or_root(cred), ino, name, space, buf, cap, err);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static int list_locked(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, char *buf,
                       size_t cap, struct kfs_err *err)
{
    struct kfs_attr a;
    int rc = kfs_inode_get(m, ino, &a, err);
    if (rc < 0)
        return rc;
    struct kfs_row *row;
    size_t total = 0;
    rc = kfs_db_first(m->db, KFS_SQL_XATTR_LIST, DB_ARGS(DB_I(ino)), &row, err);
    struct kfs_row *first = row;
    for (; rc == 1; rc = kfs_db_next(m->db, row, err)) {
        size_t len;
        const char *name = kfs_db_bytes(row, 0, &len);
        if (cred->uid != 0 && len > 8 && memcmp(name, "trusted.", 8) == 0)
            continue;
        if (cap != 0) {
            if (total + len + 1 > cap) {
                rc = -ERANGE;
                break;
            }
            memcpy(buf + total, name, len);
            buf[total + len] = '\0';
        }
        total += len + 1;
    }
    kfs_db_done(first);
    return rc < 0 ? rc : (int)total;
}

int kfs_meta_xattr_list(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, char *buf,
                        size_t cap, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    int rc = list_locked(m, kfs_cred_or_root(cred), ino, buf, cap, err);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

/* The inode's side of a change: ctime, and the flag that says whether there is any. */
static int changed(struct kfs_meta *m, struct kfs_attr *a, bool any, struct kfs_err *err)
{
    a->flags = any ? a->flags | KFS_ATTR_XATTRS : a->flags & ~(uint32_t)KFS_ATTR_XATTRS;
    a->ctime_s = m->now.tv_sec;
    a->ctime_ns = (uint32_t)m->now.tv_nsec;
    return kfs_inode_put(m, a, err);
}

/* Room for one more name of this length? */
static int list_room(struct kfs_meta *m, kfs_ino_t ino, size_t name_len, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_XATTR_NAMES_LEN, DB_ARGS(DB_I(ino)), &row, err);
    int64_t used = rc == 1 ? kfs_db_int(row, 0) : 0;
    kfs_db_done(row);
    if (rc < 0)
        return rc;
    return (uint64_t)used + name_len + 1 > LIST_MAX ? -ENOSPC : 0;
}

struct xattr_set {
    const struct kfs_cred *cred;
    kfs_ino_t ino;
    const char *name;
    size_t name_len;
    enum space space;
    const void *value;
    size_t len;
    int flags;
};

static int set_locked(struct kfs_meta *m, const struct xattr_set *x, struct kfs_err *err)
{
    struct kfs_attr a;
    int rc = kfs_inode_get(m, x->ino, &a, err);
    if (rc == 0)
        rc = may(x->cred, &a, x->space, true);
    if (rc < 0)
        return rc;
    struct kfs_row *row;
    rc = kfs_db_first(m->db, KFS_SQL_XATTR_GET, DB_ARGS(DB_I(x->ino), DB_B(x->name, x->name_len)),
                      &row, err);
    kfs_db_done(row);
    if (rc < 0)
        return rc;
    bool there = rc == 1;
    if (there && (x->flags & XATTR_CREATE))
        return -EEXIST;
    if (!there && (x->flags & XATTR_REPLACE))
        return -ENODATA;
    if (!there) {
        rc = list_room(m, x->ino, x->name_len, err);
        if (rc < 0)
            return rc;
    }
    rc = there ? kfs_db_exec(m->db, KFS_SQL_XATTR_SET,
                             DB_ARGS(DB_B(x->value, x->len), DB_I(x->ino),
                                     DB_B(x->name, x->name_len)),
                             err)
               : kfs_db_exec(m->db, KFS_SQL_XATTR_ADD,
                             DB_ARGS(DB_I(x->ino), DB_B(x->name, x->name_len),
                                     DB_B(x->value, x->len)),
                             err);
    return rc < 0 ? rc : changed(m, &a, true, err);
}

int kfs_meta_xattr_set(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino,
                       const char *name, const void *value, size_t len, int flags,
                       const struct kfs_opid *op, struct kfs_err *err)
{
    struct xattr_set x = {.cred = kfs_cred_or_root(cred),
                          .ino = ino,
                          .name = name,
                          .name_len = strlen(name),
                          .value = value,
                          .len = len,
                          .flags = flags};
    if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) || flags == (XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    int rc = space_of(name, &x.space);
    if (rc < 0)
        return rc;
    if (len > KFS_XATTR_VALUE_MAX)
        return -E2BIG;
    rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    rc = set_locked(m, &x, err);
    if (rc >= 0)
        rc = kfs_op_store(m, op, ino, 0, err);
    return kfs_tx_end(m, rc, err);
}

static int remove_locked(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino,
                         const char *name, enum space space, struct kfs_err *err)
{
    struct kfs_attr a;
    int rc = kfs_inode_get(m, ino, &a, err);
    if (rc == 0)
        rc = may(cred, &a, space, true);
    if (rc < 0)
        return rc;
    rc = kfs_db_exec(m->db, KFS_SQL_XATTR_DROP, DB_ARGS(DB_I(ino), DB_B(name, strlen(name))), err);
    if (rc <= 0)
        return rc < 0 ? rc : -ENODATA;
    struct kfs_row *row;
    rc = kfs_db_first(m->db, KFS_SQL_XATTR_ANY, DB_ARGS(DB_I(ino)), &row, err);
    kfs_db_done(row);
    return rc < 0 ? rc : changed(m, &a, rc == 1, err);
}

int kfs_meta_xattr_remove(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino,
                          const char *name, const struct kfs_opid *op, struct kfs_err *err)
{
    enum space space;
    int rc = space_of(name, &space);
    if (rc >= 0)
        rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    rc = remove_locked(m, kfs_cred_or_root(cred), ino, name, space, err);
    if (rc >= 0)
        rc = kfs_op_store(m, op, ino, 0, err);
    return kfs_tx_end(m, rc, err);
}
