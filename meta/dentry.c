/* Names: looking up, listing, making, linking, removing, and the way back up. Renames: meta/rename.c. */
#include "meta/internal.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

int kfs_name_check(const char *name, size_t len)
{
    if (len > KFS_NAME_MAX)
        return -ENAMETOOLONG;
    if (len == 0 || memchr(name, '/', len) || memchr(name, '\0', len) ||
        (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
        return -EINVAL;
    return 0;
}

int kfs_dentry_get(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len,
                   struct kfs_attr *ret, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_DENTRY_GET, DB_ARGS(DB_I(parent), DB_B(name, len)), &row,
                          err);
    if (rc == 1)
        kfs_inode_row(row, ret);
    kfs_db_done(row);
    return rc;
}

int kfs_dentry_add(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len,
                   const struct kfs_attr *a, struct kfs_err *err)
{
    int rc = kfs_db_exec(
        m->db, KFS_SQL_DENTRY_ADD,
        DB_ARGS(DB_I(parent), DB_B(name, len), DB_I(a->ino), DB_I(IFTODT(a->mode))), err);
    return rc < 0 ? rc : 0;
}

int kfs_dentry_set(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len,
                   const struct kfs_attr *a, struct kfs_err *err)
{
    int rc = kfs_db_exec(
        m->db, KFS_SQL_DENTRY_SET,
        DB_ARGS(DB_I(a->ino), DB_I(IFTODT(a->mode)), DB_I(parent), DB_B(name, len)), err);
    return rc < 0 ? rc : 0;
}

int kfs_dentry_drop(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len,
                    struct kfs_err *err)
{
    int rc =
        kfs_db_exec(m->db, KFS_SQL_DENTRY_DROP, DB_ARGS(DB_I(parent), DB_B(name, len)), err);
    return rc < 0 ? rc : 0;
}

int kfs_dentry_any(struct kfs_meta *m, kfs_ino_t dir, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_DENTRY_ANY, DB_ARGS(DB_I(dir)), &row, err);
    kfs_db_done(row);
    return rc;
}

/* A name in a directory, or what the directory is instead: 0, -ENOENT, -ENOTDIR. */
static int lookup_locked(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len,
                         struct kfs_attr *ret, struct kfs_err *err)
{
    int rc = kfs_dentry_get(m, parent, name, len, ret, err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    struct kfs_attr dir;
    rc = kfs_inode_get_dir(m, parent, &dir, err);
    return rc < 0 ? rc : -ENOENT;
}

int kfs_meta_lookup(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len,
                    struct kfs_attr *ret, struct kfs_err *err)
{
    int rc = kfs_name_check(name, len);
    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&m->lock);
    struct kfs_attr a;
    rc = lookup_locked(m, parent, name, len, &a, err);
    (void)pthread_mutex_unlock(&m->lock);
    if (rc == 0)
        *ret = a;
    return rc;
}

/* Rows taken from the database at once: its memory does not grow with the directory. */
#define READDIR_PAGE 1024

/* 0: the page was given away, `last` is its last name, *ret_more: there may be another page. 1: cb stopped. */
static int readdir_page(struct kfs_meta *m, kfs_ino_t dir, const char *after, size_t after_len,
                        kfs_meta_dirent_cb cb, void *arg, unsigned char *last, size_t *ret_last_len,
                        bool *ret_more, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_DENTRY_LIST,
                          DB_ARGS(DB_I(dir), DB_B(after, after_len), DB_I(READDIR_PAGE)), &row, err);
    struct kfs_row *first = row;
    unsigned given = 0;
    bool stop = false;
    for (; rc == 1 && !stop; rc = stop ? 0 : kfs_db_next(m->db, row, err)) {
        struct kfs_attr a;
        size_t len;
        kfs_inode_row(row, &a);
        const char *name = kfs_db_bytes(row, KFS_INODE_COLUMNS, &len);
        stop = cb(arg, name, len, &a) != 0;
        if (!stop) {
            given++;
            *ret_last_len = len < KFS_NAME_MAX ? len : KFS_NAME_MAX;
            memcpy(last, name, *ret_last_len);
        }
    }
    kfs_db_done(first);
    *ret_more = given == READDIR_PAGE;
    return rc < 0 ? rc : stop;
}

static int readdir_locked(struct kfs_meta *m, kfs_ino_t dir, const char *after, size_t after_len,
                          kfs_meta_dirent_cb cb, void *arg, bool *ret_end, struct kfs_err *err)
{
    struct kfs_attr a;
    int rc = kfs_inode_get(m, dir, &a, err);
    if (rc < 0)
        return rc;
    if (!S_ISDIR(a.mode))
        return -ENOTDIR;
    unsigned char names[2][KFS_NAME_MAX]; /* where one page begins, where it ends */
    bool more = true;
    *ret_end = false;
    for (unsigned page = 0; more; page++) {
        unsigned char *last = names[page % 2];
        size_t last_len = 0;
        rc = readdir_page(m, dir, after, after_len, cb, arg, last, &last_len, &more, err);
        if (rc < 0)
            return rc;
        if (rc == 1) /* the receiver is full */
            return 0;
        after = (const char *)last;
        after_len = last_len;
    }
    *ret_end = true;
    return 0;
}

int kfs_meta_readdir(struct kfs_meta *m, kfs_ino_t dir, const char *after, size_t after_len,
                     kfs_meta_dirent_cb cb, void *arg, bool *ret_end, struct kfs_err *err)
{
    (void)pthread_mutex_lock(&m->lock);
    int rc = readdir_locked(m, dir, after, after_len, cb, arg, ret_end, err);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

/* --- create ---------------------------------------------------------------------------------------------------- */

struct create {
    const struct kfs_cred *cred;
    const char *name;
    size_t len;
    uint32_t mode;
    uint64_t rdev;
    const char *target;
    size_t target_len;
    kfs_ino_t ino;
};

static int create_check(struct create *c)
{
    if (c->name) {
        int rc = kfs_name_check(c->name, c->len);
        if (rc < 0)
            return rc;
    }
    if ((c->mode & S_IFMT) == 0)
        c->mode |= S_IFREG;
    if (!c->name && !S_ISREG(c->mode))
        return -EINVAL;
    switch (c->mode & S_IFMT) {
    case S_IFLNK:
        c->target_len = c->target ? strlen(c->target) : 0;
        if (c->target_len == 0)
            return -ENOENT;
        if (c->target_len >= KFS_PATH_MAX)
            return -ENAMETOOLONG;
        c->mode = S_IFLNK | 0777;
        return 0;
    case S_IFREG:
    case S_IFDIR:
    case S_IFIFO:
    case S_IFSOCK:
        c->rdev = 0;
        return 0;
    case S_IFCHR:
    case S_IFBLK:
        return 0;
    default:
        return -EINVAL;
    }
}

/* The new inode's record: ids and setgid by the parent, times now. */
static struct kfs_attr create_attr(const struct kfs_meta *m, const struct create *c,
                                   const struct kfs_attr *dir)
{
    uint32_t now_ns = (uint32_t)m->now.tv_nsec;
    struct kfs_attr a = {.ino = c->ino,
                         .mode = c->mode & (S_IFMT | 07777),
                         .nlink = !c->name ? 0 : S_ISDIR(c->mode) ? 2 : 1,
                         .uid = c->cred->uid,
                         .gid = c->cred->gid,
                         .rdev = c->rdev,
                         .atime_s = m->now.tv_sec,
                         .mtime_s = m->now.tv_sec,
                         .ctime_s = m->now.tv_sec,
                         .btime_s = m->now.tv_sec,
                         .atime_ns = now_ns,
                         .mtime_ns = now_ns,
                         .ctime_ns = now_ns,
                         .btime_ns = now_ns};
    if (dir->mode & S_ISGID) {
        a.gid = dir->gid;
        if (S_ISDIR(a.mode))
            a.mode |= S_ISGID;
        else if ((a.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && c->cred->uid != 0 &&
                 !kfs_perm_in_group(c->cred, dir->gid))
            a.mode &= ~(uint32_t)S_ISGID; /* a group that the caller is not in must not get a set-id program */
    }
    if (S_ISDIR(a.mode)) {
        a.parent = dir->ino;
        a.size_bytes = 4096;
        a.blocks = 8;
    } else if (S_ISLNK(a.mode)) {
        a.size_bytes = c->target_len;
    }
    return a;
}

static int create_locked(struct kfs_meta *m, kfs_ino_t parent, const struct create *c,
                         struct kfs_attr *a, struct kfs_err *err)
{
    struct kfs_attr dir;
    int rc = kfs_inode_get_dir(m, parent, &dir, err);
    if (rc < 0)
        return rc;
    /* In Linux's order: search permission, then existence, then write permission. */
    if (!kfs_perm_ok(c->cred, dir.mode, dir.uid, dir.gid, 1))
        return -EACCES;
    if (c->name) {
        rc = kfs_dentry_get(m, parent, c->name, c->len, a, err);
        if (rc != 0)
            return rc < 0 ? rc : -EEXIST;
    }
    if (!kfs_perm_ok(c->cred, dir.mode, dir.uid, dir.gid, 2))
        return -EACCES;
    if ((S_ISCHR(c->mode) || S_ISBLK(c->mode)) && c->cred->uid != 0)
        return -EPERM;
    if (S_ISDIR(c->mode) && dir.nlink >= KFS_NLINK_MAX)
        return -EMLINK;

    *a = create_attr(m, c, &dir);
    rc = kfs_inode_add(m, a, S_ISDIR(a->mode) ? c->name : NULL, c->len, err);
    if (rc >= 0 && S_ISLNK(a->mode))
        rc = kfs_db_exec(m->db, KFS_SQL_SYMLINK_ADD,
                         DB_ARGS(DB_I(a->ino), DB_B(c->target, c->target_len)), err);
    if (rc < 0)
        return rc;
    if (!c->name) {
        rc = kfs_db_exec(m->db, KFS_SQL_ORPHAN_ADD, DB_ARGS(DB_I(a->ino), DB_I(1)), err);
        return rc < 0 ? rc : 0;
    }
    rc = kfs_dentry_add(m, parent, c->name, c->len, a, err);
    if (rc < 0)
        return rc;
    if (S_ISDIR(a->mode))
        dir.nlink++;
    return kfs_inode_touch(m, &dir, err);
}

int kfs_meta_create(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t parent,
                    const char *name, size_t len, uint32_t mode, uint64_t rdev, const char *target,
                    const struct kfs_opid *op, uint64_t op_value, struct kfs_attr *ret_attr,
                    struct kfs_err *err)
{
    struct create c = {.cred = kfs_cred_or_root(cred),
                       .name = name,
                       .len = len,
                       .mode = mode,
                       .rdev = rdev,
                       .target = target};
    int rc = create_check(&c);
    if (rc < 0)
        return rc;
    (void)pthread_mutex_lock(&m->lock);
    rc = kfs_id_take_locked(m, &m->inos, &c.ino, err);
    (void)pthread_mutex_unlock(&m->lock);
    if (rc >= 0)
        rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    struct kfs_attr a;
    rc = create_locked(m, parent, &c, &a, err);
    bool exists = rc == -EEXIST;
    if (rc >= 0)
        rc = kfs_op_store(m, op, c.ino, op_value, err);
    rc = kfs_tx_end(m, rc, err);
    if ((rc >= 0 || exists) && ret_attr)
        *ret_attr = a;
    return rc;
}

/* --- link, unlink ---------------------------------------------------------------------------------------------- */

struct target {
    const struct kfs_cred *cred;
    kfs_ino_t parent;
    const char *name;
    size_t len;
};

static int link_locked(struct kfs_meta *m, const struct target *t, kfs_ino_t ino,
                       struct kfs_attr *a, struct kfs_err *err)
{
    struct kfs_attr dir, there;
    int rc = kfs_inode_get(m, ino, a, err);
    if (rc >= 0)
        rc = kfs_inode_get_dir(m, t->parent, &dir, err);
    if (rc < 0)
        return rc;
    if (!kfs_perm_ok(t->cred, dir.mode, dir.uid, dir.gid, 1))
        return -EACCES;
    rc = kfs_dentry_get(m, t->parent, t->name, t->len, &there, err);
    if (rc != 0)
        return rc < 0 ? rc : -EEXIST;
    if (!kfs_perm_ok(t->cred, dir.mode, dir.uid, dir.gid, 2))
        return -EACCES;
    if (S_ISDIR(a->mode))
        return -EPERM;
    if (a->nlink >= KFS_NLINK_MAX)
        return -EMLINK;
    if (a->nlink == 0) {
        /* What has lost its last name cannot get one again; what O_TMPFILE made can get its first. */
        struct kfs_row *row;
        rc = kfs_db_first(m->db, KFS_SQL_ORPHAN_GET, DB_ARGS(DB_I(ino)), &row, err);
        bool linkable = rc == 1 && kfs_db_int(row, 0);
        kfs_db_done(row);
        if (!linkable)
            return rc < 0 ? rc : -ENOENT;
        rc = kfs_db_exec(m->db, KFS_SQL_ORPHAN_DROP, DB_ARGS(DB_I(ino)), err);
        if (rc < 0)
            return rc;
    }
    a->nlink++;
    a->ctime_s = m->now.tv_sec;
    a->ctime_ns = (uint32_t)m->now.tv_nsec;
    rc = kfs_inode_put(m, a, err);
    if (rc >= 0)
        rc = kfs_dentry_add(m, t->parent, t->name, t->len, a, err);
    if (rc >= 0)
        rc = kfs_inode_touch(m, &dir, err);
    return rc;
}

int kfs_meta_link(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, kfs_ino_t parent,
                  const char *name, size_t len, const struct kfs_opid *op,
                  struct kfs_attr *ret_attr, struct kfs_err *err)
{
    const struct target t = {kfs_cred_or_root(cred), parent, name, len};
    int rc = kfs_name_check(name, len);
    if (rc >= 0)
        rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    struct kfs_attr a;
    rc = link_locked(m, &t, ino, &a, err);
    if (rc >= 0)
        rc = kfs_op_store(m, op, ino, 0, err);
    rc = kfs_tx_end(m, rc, err);
    if (rc >= 0 && ret_attr)
        *ret_attr = a;
    return rc;
}

static int unlink_locked(struct kfs_meta *m, const struct target *t, bool rmdir, struct kfs_attr *a,
                         struct kfs_err *err)
{
    struct kfs_attr dir;
    int rc = kfs_inode_get_dir(m, t->parent, &dir, err);
    if (rc < 0)
        return rc;
    if (!kfs_perm_ok(t->cred, dir.mode, dir.uid, dir.gid, 1))
        return -EACCES;
    rc = kfs_dentry_get(m, t->parent, t->name, t->len, a, err);
    if (rc <= 0)
        return rc < 0 ? rc : -ENOENT;
    if (!kfs_perm_ok(t->cred, dir.mode, dir.uid, dir.gid, 2))
        return -EACCES;
    if (!kfs_perm_sticky_ok(t->cred, &dir, a))
        return -EPERM;
    if (rmdir && !S_ISDIR(a->mode))
        return -ENOTDIR;
    if (!rmdir && S_ISDIR(a->mode))
        return -EISDIR;
    if (rmdir) {
        rc = kfs_dentry_any(m, a->ino, err);
        if (rc != 0)
            return rc < 0 ? rc : -ENOTEMPTY;
        dir.nlink--;
    }
    rc = kfs_dentry_drop(m, t->parent, t->name, t->len, err);
    if (rc >= 0)
        rc = kfs_inode_unname(m, a, err);
    if (rc >= 0)
        rc = kfs_inode_touch(m, &dir, err);
    return rc;
}

int kfs_meta_unlink(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t parent,
                    const char *name, size_t len, bool rmdir, const struct kfs_opid *op,
                    struct kfs_attr *ret_attr, struct kfs_err *err)
{
    const struct target t = {kfs_cred_or_root(cred), parent, name, len};
    int rc = kfs_name_check(name, len);
    if (rc >= 0)
        rc = kfs_tx_begin(m, err);
    if (rc < 0)
        return rc;
    struct kfs_attr a;
    rc = unlink_locked(m, &t, rmdir, &a, err);
    if (rc >= 0)
        rc = kfs_op_store(m, op, a.ino, 0, err);
    rc = kfs_tx_end(m, rc, err);
    if (rc >= 0 && ret_attr)
        *ret_attr = a;
    return rc;
}

/* --- path_of --------------------------------------------------------------------------------------------------- */

/* Put "/NAME" of one directory before *at; *ino becomes its parent. */
static int path_step(struct kfs_meta *m, kfs_ino_t *ino, char *buf, size_t *at, struct kfs_err *err)
{
    struct kfs_row *row;
    int rc = kfs_db_first(m->db, KFS_SQL_INODE_UP, DB_ARGS(DB_I(*ino)), &row, err);
    if (rc <= 0)
        return rc < 0 ? rc : -ENOENT;
    size_t len;
    const void *name = kfs_db_bytes(row, 1, &len);
    if (!S_ISDIR((uint32_t)kfs_db_int(row, 3)))
        rc = -ENOTDIR;
    else if (kfs_db_int(row, 2) == 0 || len == 0)
        rc = -ENOENT;
    else if (*at < len + 1)
        rc = -ERANGE;
    else
        rc = 0;
    if (rc == 0) {
        *at -= len + 1;
        buf[*at] = '/';
        memcpy(buf + *at + 1, name, len);
        *ino = (kfs_ino_t)kfs_db_int(row, 0);
    }
    kfs_db_done(row);
    return rc;
}

int kfs_meta_path_of(struct kfs_meta *m, kfs_ino_t dir, char *buf, size_t cap, struct kfs_err *err)
{
    if (cap < 2)
        return -ERANGE;
    /* Filled from its end, since the way goes up; then moved to the front. Every step takes two bytes, so a loop ends in -ERANGE. */
    size_t at = cap - 1;
    int rc = 0;
    (void)pthread_mutex_lock(&m->lock);
    while (rc == 0 && dir != KFS_INO_ROOT)
        rc = path_step(m, &dir, buf, &at, err);
    (void)pthread_mutex_unlock(&m->lock);
    if (rc < 0)
        return rc;
    if (at == cap - 1)
        buf[--at] = '/';
    size_t len = cap - 1 - at;
    memmove(buf, buf + at, len);
    buf[len] = '\0';
    return (int)len;
}
