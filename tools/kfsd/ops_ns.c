#include "tools/kfsd/kfsd.h"
#include "base/fault.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* Parents got new times and perhaps another nlink. pub held. */
static void refresh_parents(struct kfsd_vol *v, kfs_ino_t a, kfs_ino_t b)
{
    struct kfs_attr attr;
    (void)kfsd_attr_refresh_locked(v, a, &attr, NULL);
    if (b != a)
        (void)kfsd_attr_refresh_locked(v, b, &attr, NULL);
}

static int create(struct kfsd_req *r, uint32_t mode, uint64_t rdev, const char *target, int if_slash)
{
    struct kfsd_walk w;
    int rc = kfsd_walk(r, r->w->ino, r->path, 0, &w);
    if (rc < 0)
        return rc;
    if (!r->path[0])
        return -ENOENT;
    if (w.found)
        return -EEXIST;
    if (w.slash && if_slash)
        return if_slash;
    struct kfsd_vol *v = r->vol;
    struct kfs_attr a;
    KFS_FAULT("create.before");
    pthread_mutex_lock(&v->pub);
    rc = kfs_meta_create(v->meta, r->cred, w.parent, w.name, w.name_len, mode, rdev, target, &r->op, 0, &a, &r->err);
    KFS_FAULT("create.after");
    if (rc == 0 || rc == -EEXIST) {
        kfsd_attr_publish_locked(v, &a);
        kfs_shm_put_dent(v->shm, w.parent, w.name, w.name_len, a.ino);
    }
    if (rc == 0) {
        if (target)
            kfs_shm_put_link(v->shm, a.ino, target, strlen(target));
        refresh_parents(v, w.parent, w.parent);
        r->rep.attr = a;
    }
    pthread_mutex_unlock(&v->pub);
    return rc;
}

int kfsd_op_mkdir(struct kfsd_req *r)
{
    uint32_t mode = r->w->mode & ~r->w->umask & 01777;
    return create(r, S_IFDIR | mode, 0, NULL, 0);
}

int kfsd_op_symlink(struct kfsd_req *r)
{
    char target[KFS_PATH_MAX];
    if (r->data_len == 0)
        return -ENOENT;
    if (r->data_len >= sizeof target)
        return -ENAMETOOLONG;
    if (memchr(r->data, 0, r->data_len))
        return -EINVAL;
    memcpy(target, r->data, r->data_len);
    target[r->data_len] = 0;
    return create(r, S_IFLNK | 0777, 0, target, -ENOENT);
}

int kfsd_op_mknod(struct kfsd_req *r)
{
    uint32_t type = r->w->mode & S_IFMT, mode = r->w->mode & ~r->w->umask & 07777;
    switch (type) {
    case 0:
    case S_IFREG:
        return create(r, S_IFREG | mode, 0, NULL, -ENOENT);
    case S_IFIFO:
    case S_IFSOCK:
        return create(r, type | mode, 0, NULL, -ENOENT);
    case S_IFCHR:
    case S_IFBLK:
        return r->cred->uid ? -EPERM : create(r, type | mode, r->w->value, NULL, -ENOENT);
    case S_IFDIR:
        return -EPERM;
    default:
        return -EINVAL;
    }
}

/* After a removal or replacement. No lock held. */
static void removed(struct kfsd_vol *v, const struct kfs_attr *a)
{
    if (!a->ino || a->nlink)
        return;
    if (S_ISFIFO(a->mode) || S_ISSOCK(a->mode))
        kfs_cache_node_drop(v->cache, a->ino);
    kfsd_file_unlinked(v, a);
}

int kfsd_op_unlink(struct kfsd_req *r)
{
    bool rmdir = r->w->value & AT_REMOVEDIR;
    struct kfsd_walk w;
    int rc = kfsd_walk(r, r->w->ino, r->path, 0, &w);
    if (rc < 0)
        return rc;
    if (!r->path[0])
        return -ENOENT;
    if (w.last == KFSD_LAST_DOT)
        return rmdir ? -EINVAL : -EISDIR;
    if (w.last == KFSD_LAST_DOTDOT)
        return rmdir ? -ENOTEMPTY : -EISDIR;
    if (w.last != KFSD_LAST_NAME)
        return rmdir ? -EBUSY : -EISDIR;
    if (!w.found)
        return -ENOENT;
    if (!rmdir && w.slash)
        return S_ISDIR(w.attr.mode) ? -EISDIR : -ENOTDIR;
    struct kfsd_vol *v = r->vol;
    struct kfs_attr a = {0};
    KFS_FAULT("unlink.before");
    pthread_mutex_lock(&v->pub);
    if (r->w->value2) {
        /* Only this inode is meant, not what has taken its name since. */
        rc = kfs_meta_lookup(v->meta, w.parent, w.name, w.name_len, &a, &r->err);
        if (rc == 0 && a.ino != r->w->value2)
            rc = -ENOENT;
    }
    if (rc == 0)
        rc = kfs_meta_unlink(v->meta, r->cred, w.parent, w.name, w.name_len, rmdir, &r->op, &a, &r->err);
    KFS_FAULT("unlink.after");
    if (rc == 0) {
        kfs_shm_put_dent(v->shm, w.parent, w.name, w.name_len, 0);
        kfsd_attr_publish_locked(v, &a);
        refresh_parents(v, w.parent, w.parent);
        r->rep.attr = a;
    }
    pthread_mutex_unlock(&v->pub);
    if (rc == 0)
        removed(v, &a);
    return rc;
}

/* What does this name lead to now? pub held. */
static void republish_name(struct kfsd_vol *v, kfs_ino_t parent, const char *name, size_t len)
{
    struct kfs_attr a;
    int rc = kfs_meta_lookup(v->meta, parent, name, len, &a, NULL);
    if (rc == 0) {
        kfsd_attr_publish_locked(v, &a);
        kfs_shm_put_dent(v->shm, parent, name, len, a.ino);
    } else if (rc == -ENOENT) {
        kfs_shm_put_dent(v->shm, parent, name, len, 0);
    } else {
        kfs_shm_drop_dent(v->shm, parent, name, len);
    }
}

static int rename_check(const struct kfsd_walk *from, const struct kfsd_walk *to, uint64_t flags)
{
    if (from->last != KFSD_LAST_NAME || to->last != KFSD_LAST_NAME)
        return -EBUSY;
    if (!from->found)
        return -ENOENT;
    if ((flags & RENAME_NOREPLACE) && to->found)
        return -EEXIST;
    if ((flags & RENAME_EXCHANGE) && !to->found)
        return -ENOENT;
    if (!S_ISDIR(from->attr.mode) && (from->slash || (to->slash && !(flags & RENAME_EXCHANGE))))
        return -ENOTDIR;
    if ((flags & RENAME_EXCHANGE) && to->slash && !S_ISDIR(to->attr.mode))
        return -ENOTDIR;
    return 0;
}

int kfsd_op_rename(struct kfsd_req *r)
{
    uint64_t flags = r->w->value;
    if ((flags & ~(uint64_t)(RENAME_NOREPLACE | RENAME_EXCHANGE)) || flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    if (!r->path[0] || !r->path2[0])
        return -ENOENT;
    struct kfsd_walk from, to;
    int rc = kfsd_walk(r, r->w->ino, r->path, 0, &from);
    if (rc < 0)
        return rc;
    rc = kfsd_walk(r, r->w->ino2, r->path2, 0, &to);
    if (rc == KFS_WIRE_ESCAPE_ABS || rc == KFS_WIRE_ESCAPE_UP) {
        /* Which of the two names it was, value tells: 2 = the second. */
        r->rep.value = 2;
        return rc;
    }
    if (rc < 0)
        return rc;
    rc = rename_check(&from, &to, flags);
    if (rc < 0)
        return rc;
    struct kfsd_vol *v = r->vol;
    struct kfs_attr moved = {0}, replaced = {0};
    KFS_FAULT("rename.before");
    pthread_mutex_lock(&v->pub);
    rc = kfs_meta_rename(v->meta, r->cred, from.parent, from.name, from.name_len, to.parent, to.name, to.name_len, (unsigned)flags, &r->op,
                         &moved, &replaced, &r->err);
    KFS_FAULT("rename.after");
    if (rc == 0) {
        republish_name(v, from.parent, from.name, from.name_len);
        republish_name(v, to.parent, to.name, to.name_len);
        if (replaced.ino && replaced.ino != moved.ino)
            kfsd_attr_publish_locked(v, &replaced);
        refresh_parents(v, from.parent, to.parent);
        kfsd_attr_complete_locked(v, &moved);
        r->rep.attr = moved;
    }
    pthread_mutex_unlock(&v->pub);
    if (rc == 0 && !(flags & RENAME_EXCHANGE) && replaced.ino != moved.ino)
        removed(v, &replaced);
    return rc;
}

int kfsd_op_link(struct kfsd_req *r)
{
    struct kfsd_walk from, to;
    int rc = kfsd_walk_found(r, r->w->ino, r->path, r->w->flags & KFS_WIRE_NOFOLLOW ? 0 : KFSD_WALK_FOLLOW, &from);
    if (rc < 0)
        return rc;
    if (S_ISDIR(from.attr.mode))
        return -EPERM;
    if (!r->path2[0])
        return -ENOENT;
    rc = kfsd_walk(r, r->w->ino2, r->path2, 0, &to);
    if (rc == KFS_WIRE_ESCAPE_ABS || rc == KFS_WIRE_ESCAPE_UP)
        r->rep.value = 2;
    if (rc < 0)
        return rc;
    if (to.found)
        return -EEXIST;
    if (to.slash)
        return -ENOENT;
    struct kfsd_vol *v = r->vol;
    struct kfs_attr a;
    KFS_FAULT("link.before");
    pthread_mutex_lock(&v->pub);
    rc = kfs_meta_link(v->meta, r->cred, from.attr.ino, to.parent, to.name, to.name_len, &r->op, &a, &r->err);
    KFS_FAULT("link.after");
    if (rc == 0) {
        kfsd_file_linked_locked(v, a.ino);
        kfsd_attr_publish_locked(v, &a);
        kfs_shm_put_dent(v->shm, to.parent, to.name, to.name_len, a.ino);
        refresh_parents(v, to.parent, to.parent);
        r->rep.attr = a;
    }
    pthread_mutex_unlock(&v->pub);
    return rc;
}
