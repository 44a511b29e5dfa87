#include "tools/kfsd/kfsd.h"
#include "base/buf.h"
#include "base/fault.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static int walk_op(struct kfsd_req *r, struct kfsd_walk *w)
{
    return kfsd_walk_found(r, r->w->ino, r->path, r->w->flags & KFS_WIRE_NOFOLLOW ? 0 : KFSD_WALK_FOLLOW, w);
}

int kfsd_op_lookup(struct kfsd_req *r)
{
    struct kfsd_walk w;
    int rc = walk_op(r, &w);
    if (rc < 0)
        return rc;
    if (r->w->value && !kfs_perm_ok(r->cred, w.attr.mode, w.attr.uid, w.attr.gid, (unsigned)(r->w->value & 7)))
        return -EACCES;
    r->rep.attr = w.attr;
    return 0;
}

/* ---- directories ------------------------------------------------------------------------------------------------------ */

struct listing {
    struct kfsd_req *r;
    kfs_ino_t dir;
    uint32_t count;
};

static int list_one(void *arg, const char *name, size_t len, const struct kfs_attr *attr)
{
    struct listing *l = arg;
    struct kfsd_req *r = l->r;
    struct kfs_wire_dirent e = {.ino = attr->ino, .type = (uint8_t)IFTODT(attr->mode), .name_len = (uint8_t)len};
    if (r->out_len + sizeof e + len > KFS_WIRE_DATA_MAX)
        return 1;
    memcpy(r->out + r->out_len, &e, sizeof e);
    memcpy(r->out + r->out_len + sizeof e, name, len);
    r->out_len += sizeof e + len;
    l->count++;
    /* Under pub what the segment has is the truth: only what it lacks is looked up in the cache and put. */
    struct kfsd_vol *v = r->vol;
    struct kfs_attr a = *attr;
    if (!kfs_shm_attr_get(v->seg, attr->ino, &a)) {
        a = *attr;
        kfsd_attr_publish_locked(v, &a);
    }
    uint64_t ino;
    if (kfs_shm_dent_get(v->seg, l->dir, name, len, &ino) != KFS_DENT_PRESENT || ino != attr->ino)
        kfs_shm_put_dent(v->shm, l->dir, name, len, attr->ino);
    return 0;
}

#define LIST_PUBLISH_MAX 65536u /* entries: they are read in one go, and changes wait meanwhile */

struct whole {
    struct kfs_buf records;
    uint32_t count;
    bool failed;
};

static int whole_one(void *arg, const char *name, size_t len, const struct kfs_attr *attr)
{
    struct whole *w = arg;
    struct kfs_wire_dirent e = {.ino = attr->ino, .type = (uint8_t)IFTODT(attr->mode), .name_len = (uint8_t)len};
    w->failed = w->count >= LIST_PUBLISH_MAX || kfs_buf_append(&w->records, &e, sizeof e) < 0 || kfs_buf_append(&w->records, name, len) < 0;
    w->count++;
    return w->failed;
}

/* Somebody begins to list the directory. Has one done so before, and nothing changed since? Whoever lists again and again finds the listing in shared memory. */
static bool listed_again(struct kfsd_vol *v, const struct kfs_attr *dir)
{
    struct kfsd_listed *l = &v->listed[kfs_hash_u64(dir->ino) % KFSD_LISTED];
    bool again = l->dir == dir->ino && l->mtime_s == dir->mtime_s && l->mtime_ns == dir->mtime_ns;
    *l = (struct kfsd_listed){dir->ino, dir->mtime_s, dir->mtime_ns};
    return again;
}

/* Publish the whole listing: that of r's answer if it is whole. pub held. */
static void list_publish(struct kfsd_req *r, const struct listing *l, const struct kfs_attr *dir, bool end)
{
    struct kfsd_vol *v = r->vol;
    struct kfs_shm_view view;
    if (kfs_shm_list_get(v->seg, dir->ino, &view))
        return;
    if (end) {
        (void)kfs_shm_put_list(v->shm, dir->ino, r->out, r->out_len, l->count);
        return;
    }
    if (!listed_again(v, dir))
        return;
    struct whole w = {0};
    bool all = false;
    if (kfs_meta_readdir(v->meta, dir->ino, "", 0, whole_one, &w, &all, NULL) == 0 && all && !w.failed)
        (void)kfs_shm_put_list(v->shm, dir->ino, w.records.data, w.records.len, w.count);
    kfs_buf_release(&w.records);
}

int kfsd_op_readdir(struct kfsd_req *r)
{
    struct kfsd_walk w;
    int rc = kfsd_walk_found(r, r->w->ino, r->path, KFSD_WALK_FOLLOW, &w);
    if (rc < 0)
        return rc;
    if (!S_ISDIR(w.attr.mode))
        return -ENOTDIR;
    if (!kfs_perm_ok(r->cred, w.attr.mode, w.attr.uid, w.attr.gid, 4))
        return -EACCES;
    if (w.attr.nlink == 0) {
        r->rep.value = 1; /* removed: empty, as the kernel says */
        r->rep.attr = w.attr;
        return 0;
    }
    struct listing l = {.r = r, .dir = w.attr.ino};
    bool end = false;
    r->out_len = 0;
    pthread_mutex_lock(&r->vol->pub);
    rc = kfs_meta_readdir(r->vol->meta, w.attr.ino, r->path2, strlen(r->path2), list_one, &l, &end, &r->err);
    if (rc == 0 && !r->path2[0])
        list_publish(r, &l, &w.attr, end);
    pthread_mutex_unlock(&r->vol->pub);
    if (rc < 0)
        return rc;
    r->rep.value = end;
    r->rep.attr = w.attr;
    return 0;
}

int kfsd_op_readlink(struct kfsd_req *r)
{
    struct kfsd_walk w;
    int rc = kfsd_walk_found(r, r->w->ino, r->path, 0, &w);
    if (rc < 0)
        return rc;
    if (!S_ISLNK(w.attr.mode))
        return -EINVAL;
    char target[KFS_PATH_MAX];
    int n = kfsd_link_get(r->vol, w.attr.ino, target, &r->err);
    if (n < 0)
        return n;
    memcpy(r->out, target, (size_t)n);
    r->out_len = (size_t)n;
    r->rep.attr = w.attr;
    return 0;
}

int kfsd_op_pathof(struct kfsd_req *r)
{
    char path[KFS_PATH_MAX];
    int n = kfs_meta_path_of(r->vol->meta, r->w->ino, path, sizeof path, &r->err);
    if (n < 0)
        return n;
    memcpy(r->out, path, (size_t)n);
    r->out_len = (size_t)n;
    return 0;
}

/* ---- attributes ------------------------------------------------------------------------------------------------------- */

static int set_size(struct kfsd_req *r, const struct kfs_attr *a)
{
    if (S_ISDIR(a->mode))
        return -EISDIR;
    if (!S_ISREG(a->mode))
        return -EINVAL;
    if (!kfs_perm_ok(r->cred, a->mode, a->uid, a->gid, 2))
        return -EACCES;
    return kfsd_file_truncate(r->vol, a->ino, r->w->size_bytes, &r->err);
}

/* Content changed by somebody else than root: as the kernel does. */
static void drop_suid(struct kfsd_req *r, kfs_ino_t ino)
{
    struct kfs_attr a;
    if (r->cred->uid == 0 || kfsd_attr_get(r->vol, ino, &a, NULL) < 0)
        return;
    uint32_t drop = a.mode & S_ISUID;
    if ((a.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
        drop |= S_ISGID;
    if (!drop)
        return;
    const struct kfs_cred root = {0};
    const struct kfs_meta_setattr s = {.valid = KFS_SET_MODE, .mode = a.mode & 07777 & ~drop};
    pthread_mutex_lock(&r->vol->pub);
    if (kfs_meta_setattr(r->vol->meta, &root, ino, &s, NULL, &a, NULL) == 0)
        kfsd_attr_publish_locked(r->vol, &a);
    pthread_mutex_unlock(&r->vol->pub);
}

int kfsd_op_setattr(struct kfsd_req *r)
{
    const struct kfs_wire_req *q = r->w;
    struct kfsd_vol *v = r->vol;
    struct kfsd_walk w;
    int rc = walk_op(r, &w);
    if (rc < 0)
        return rc;
    const struct kfs_meta_setattr s = {
        .valid = q->valid & (KFS_SET_MODE | KFS_SET_UID | KFS_SET_GID | KFS_SET_ATIME | KFS_SET_MTIME | KFS_SET_ATIME_NOW | KFS_SET_MTIME_NOW),
        .mode = q->mode & 07777,
        .uid = q->uid,
        .gid = q->gid,
        .atime_s = q->atime_s,
        .mtime_s = q->mtime_s,
        .atime_ns = q->atime_ns,
        .mtime_ns = q->mtime_ns,
    };
    if (s.atime_ns > 999999999 || s.mtime_ns > 999999999)
        return -EINVAL;
    struct kfs_attr a = w.attr;
    /* On an open file doing it again does the same: nothing to remember. A path may lead elsewhere the second time. */
    const struct kfs_opid *op = q->path_len ? &r->op : NULL;
    KFS_FAULT("setattr.before");
    if ((s.valid & (KFS_SET_MTIME | KFS_SET_MTIME_NOW)) && S_ISREG(a.mode)) {
        rc = kfsd_file_set_mtime(v, a.ino, &s, r->cred, op, &a, &r->err);
    } else if (s.valid) {
        pthread_mutex_lock(&v->pub);
        rc = kfs_meta_setattr(v->meta, r->cred, a.ino, &s, op, &a, &r->err);
        if (rc == 0)
            kfsd_attr_publish_locked(v, &a);
        pthread_mutex_unlock(&v->pub);
    }
    KFS_FAULT("setattr.after");
    if (rc == 0 && (s.valid & (KFS_SET_MODE | KFS_SET_UID | KFS_SET_GID)) && ((a.mode ^ w.attr.mode) & 0111))
        kfsd_file_set_mode(v, &a);
    if (rc == 0 && (q->valid & KFS_SET_SIZE)) {
        rc = set_size(r, &a);
        if (rc == 0)
            drop_suid(r, a.ino);
        if (rc == 0)
            rc = kfsd_attr_get(v, a.ino, &a, &r->err);
    }
    if (rc == 0)
        r->rep.attr = a;
    return rc;
}

/* ---- xattrs ----------------------------------------------------------------------------------------------------------- */

static int xattr_name_ok(const struct kfsd_req *r)
{
    size_t len = strlen(r->path2);
    return len == 0 || len > KFS_XATTR_NAME_MAX ? -ERANGE : 0;
}

int kfsd_op_getxattr(struct kfsd_req *r)
{
    struct kfsd_walk w;
    int rc = xattr_name_ok(r);
    if (rc == 0)
        rc = walk_op(r, &w);
    if (rc < 0)
        return rc;
    rc = kfs_meta_xattr_get(r->vol->meta, r->cred, w.attr.ino, r->path2, r->out, KFS_WIRE_DATA_MAX, &r->err);
    if (rc < 0)
        return rc;
    r->out_len = (size_t)rc;
    return 0;
}

int kfsd_op_listxattr(struct kfsd_req *r)
{
    struct kfsd_walk w;
    int rc = walk_op(r, &w);
    if (rc < 0)
        return rc;
    rc = kfs_meta_xattr_list(r->vol->meta, r->cred, w.attr.ino, (char *)r->out, KFS_WIRE_DATA_MAX, &r->err);
    if (rc < 0)
        return rc;
    r->out_len = (size_t)rc;
    return 0;
}

static int xattr_change(struct kfsd_req *r, bool set)
{
    struct kfsd_walk w;
    int rc = xattr_name_ok(r);
    if (rc == 0)
        rc = walk_op(r, &w);
    if (rc < 0)
        return rc;
    struct kfsd_vol *v = r->vol;
    KFS_FAULT("xattr.before");
    pthread_mutex_lock(&v->pub);
    rc = set ? kfs_meta_xattr_set(v->meta, r->cred, w.attr.ino, r->path2, r->data, r->data_len, (int)r->w->value, &r->op, &r->err)
             : kfs_meta_xattr_remove(v->meta, r->cred, w.attr.ino, r->path2, &r->op, &r->err);
    KFS_FAULT("xattr.after");
    if (rc == 0)
        rc = kfsd_attr_refresh_locked(v, w.attr.ino, &r->rep.attr, &r->err);
    pthread_mutex_unlock(&v->pub);
    return rc;
}

int kfsd_op_setxattr(struct kfsd_req *r)
{
    return xattr_change(r, true);
}

int kfsd_op_removexattr(struct kfsd_req *r)
{
    return xattr_change(r, false);
}

/* ---- the whole volume ---------------------------------------------------------------------------------------------------- */

int kfsd_op_statfs(struct kfsd_req *r)
{
    uint64_t total = 0, left = 0;
    struct kfs_meta_usage u = {0};
    int rc = kfs_store_statfs(r->vol->store, &total, &left, &r->err);
    if (rc == 0)
        rc = kfs_meta_usage(r->vol->meta, &u, &r->err);
    if (rc < 0)
        return rc;
    struct kfs_wire_statfs s = {
        .block_bytes = 4096,
        .blocks = total / 4096,
        .blocks_free = left / 4096,
        .files = u.inodes + (1ULL << 32),
        .files_free = 1ULL << 32,
        .fsid = r->vol->dev,
    };
    memcpy(r->out, &s, sizeof s);
    r->out_len = sizeof s;
    return 0;
}
