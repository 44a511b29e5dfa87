#include "tools/kfsd/kfsd.h"
#include "base/fault.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CREATE_TRIES 8

static bool writes(int oflags)
{
    return !(oflags & O_PATH) && (oflags & O_ACCMODE) != O_RDONLY;
}

static unsigned wanted(const struct kfsd_req *r, int oflags)
{
    if (oflags & O_PATH)
        return 0;
    if (r->w->flags & KFS_WIRE_EXEC)
        return 1;
    unsigned want = (oflags & O_ACCMODE) == O_RDONLY ? 4u : (oflags & O_ACCMODE) == O_WRONLY ? 2u : 6u;
    return want | (oflags & O_TRUNC ? 2u : 0u);
}

/* The fd is in r->fds[0]: say what it is. */
static int answer(struct kfsd_req *r, const struct kfs_attr *a, uint64_t value)
{
    struct stat st;
    if (fstat(r->fds[0], &st) < 0)
        return -errno;
    r->rep.attr = *a;
    r->rep.value = value;
    r->rep.dev = st.st_dev;
    r->rep.cache_ino = st.st_ino;
    return 0;
}

static int open_dir(struct kfsd_req *r, const struct kfs_attr *a, int oflags)
{
    if (writes(oflags) || (oflags & O_TRUNC))
        return -EISDIR;
    int fd = kfs_cache_dead_dir(r->vol->cache, a->ino, &r->err);
    if (fd < 0)
        return fd;
    if (oflags & O_PATH) {
        /* A removed directory can be reached again only through its descriptor. */
        char self[64];
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        int path_fd = open(self, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (path_fd >= 0) {
            close(fd);
            fd = path_fd;
        }
    }
    r->fds[0] = fd;
    return answer(r, a, KFS_OPEN_DIR);
}

static int open_existing(struct kfsd_req *r, const struct kfs_attr *a, int oflags, bool nofollow)
{
    if (S_ISLNK(a->mode) && nofollow && (oflags & O_PATH) && !(oflags & O_DIRECTORY)) {
        r->fds[0] = kfs_cache_dead_link(r->vol->cache, a->ino, &r->err);
        return r->fds[0] < 0 ? r->fds[0] : answer(r, a, KFS_OPEN_DIR);
    }
    if (S_ISLNK(a->mode))
        return (oflags & O_DIRECTORY) ? -ENOTDIR : nofollow ? -ELOOP : -ENOENT;
    if ((oflags & O_DIRECTORY) && !S_ISDIR(a->mode))
        return -ENOTDIR;
    if ((oflags & O_CREAT) && S_ISDIR(a->mode))
        return -EISDIR;
    if (S_ISDIR(a->mode) && writes(oflags))
        return -EISDIR;
    unsigned want = wanted(r, oflags);
    if (want && !kfs_perm_ok(r->cred, a->mode, a->uid, a->gid, want))
        return -EACCES;
    if ((oflags & O_NOATIME) && r->cred->uid && r->cred->uid != a->uid)
        return -EPERM;
    if (S_ISDIR(a->mode))
        return open_dir(r, a, oflags);
    if (S_ISFIFO(a->mode) || (S_ISSOCK(a->mode) && (oflags & O_PATH))) {
        r->fds[0] = kfs_cache_node(r->vol->cache, a->ino, a->mode, &r->err);
        return r->fds[0] < 0 ? r->fds[0] : answer(r, a, KFS_OPEN_NODE);
    }
    if (!S_ISREG(a->mode))
        return -ENXIO;
    struct kfs_attr now = *a, arriving;
    bool can = (r->w->flags & KFS_WIRE_STANDIN) && !(r->w->flags & KFS_WIRE_EXEC), standin = false;
    int rc = can ? kfsd_file_open_standin(r->vol, a->ino, oflags, &r->fds[0], &standin, &arriving, &r->err)
                 : kfsd_file_open(r->vol, a->ino, oflags, &r->fds[0], &r->err);
    if (rc < 0)
        return rc;
    if (standin) {
        KFS_FAULT("open.standin");
        return answer(r, &arriving, KFS_OPEN_STANDIN);
    }
    if (writes(oflags) || (oflags & O_TRUNC) || !(now.flags & KFS_ATTR_CACHED)) {
        /* The kernel drops them at the first write, which we do not see. */
        if ((writes(oflags) || (oflags & O_TRUNC)) && r->cred->uid && (now.mode & (S_ISUID | S_ISGID))) {
            const struct kfs_cred root = {0};
            uint32_t drop = S_ISUID | ((now.mode & S_IXGRP) ? S_ISGID : 0u);
            const struct kfs_meta_setattr s = {.valid = KFS_SET_MODE, .mode = now.mode & 07777 & ~drop};
            pthread_mutex_lock(&r->vol->pub);
            if (kfs_meta_setattr(r->vol->meta, &root, now.ino, &s, NULL, &now, NULL) == 0)
                kfsd_attr_publish_locked(r->vol, &now);
            pthread_mutex_unlock(&r->vol->pub);
        }
        rc = kfsd_attr_get(r->vol, a->ino, &now, &r->err);
        if (rc < 0)
            return rc;
    }
    return answer(r, &now, writes(oflags) ? KFS_OPEN_WRITER : 0);
}

/* 0, -EEXIST when somebody else was faster, or -errno. */
static int create(struct kfsd_req *r, const struct kfsd_walk *w, int oflags)
{
    struct kfsd_vol *v = r->vol;
    uint32_t mode = S_IFREG | (r->w->mode & ~r->w->umask & 07777);
    uint64_t value = KFS_OPEN_CREATED | (writes(oflags) ? KFS_OPEN_WRITER : 0);
    struct kfs_attr a;
    KFS_FAULT("create.before");
    pthread_mutex_lock(&v->pub);
    int rc = kfs_meta_create(v->meta, r->cred, w->parent, w->name, w->name_len, mode, 0, NULL, &r->op, value, &a, &r->err);
    KFS_FAULT("create.after");
    if (rc == -EEXIST) {
        kfsd_attr_publish_locked(v, &a);
        kfs_shm_put_dent(v->shm, w->parent, w->name, w->name_len, a.ino);
    }
    struct kfs_attr gone = {0};
    if (rc == 0) {
        rc = kfsd_file_create_locked(v, &a, oflags, false, &r->fds[0], &r->err);
        if (rc < 0) {
            kfsd_cache_check(v); /* the next kfsd opens what is made */
            /* No room for its content: then the name should not be there either. */
            const struct kfs_cred root = {0};
            if (kfs_meta_unlink(v->meta, &root, w->parent, w->name, w->name_len, false, NULL, &gone, NULL) == 0 && gone.nlink == 0)
                (void)kfs_meta_orphan_purge(v->meta, gone.ino, NULL);
            kfs_shm_put_dent(v->shm, w->parent, w->name, w->name_len, 0);
        } else {
            kfsd_attr_publish_locked(v, &a);
            kfs_shm_put_dent(v->shm, w->parent, w->name, w->name_len, a.ino);
        }
        struct kfs_attr parent;
        (void)kfsd_attr_refresh_locked(v, w->parent, &parent, NULL);
    }
    pthread_mutex_unlock(&v->pub);
    return rc < 0 ? rc : answer(r, &a, value);
}

static int open_create(struct kfsd_req *r, int oflags)
{
    bool excl = oflags & O_EXCL, nofollow = excl || (oflags & O_NOFOLLOW) || (r->w->flags & KFS_WIRE_NOFOLLOW);
    if (oflags & O_DIRECTORY)
        return -EINVAL;
    int rc = -EEXIST;
    for (int i = 0; rc == -EEXIST && i < CREATE_TRIES; i++) {
        struct kfsd_walk w;
        rc = kfsd_walk(r, r->w->ino, r->path, nofollow ? 0 : KFSD_WALK_FOLLOW, &w);
        if (rc < 0)
            return rc;
        if (w.slash && w.last == KFSD_LAST_NAME)
            return -EISDIR;
        if (w.found) {
            if (excl && r->path[0])
                return -EEXIST;
            rc = open_existing(r, &w.attr, oflags, nofollow);
            if (rc != -ENOENT)
                return rc;
            rc = -EEXIST; /* removed in between: once more */
            continue;
        }
        rc = create(r, &w, oflags);
        if (rc == -EEXIST && excl)
            return rc;
    }
    return rc;
}

static int open_tmpfile(struct kfsd_req *r, int oflags)
{
    if (!writes(oflags))
        return -EINVAL;
    struct kfsd_walk w;
    int rc = kfsd_walk_found(r, r->w->ino, r->path, KFSD_WALK_FOLLOW, &w);
    if (rc < 0)
        return rc;
    if (!S_ISDIR(w.attr.mode))
        return -ENOTDIR;
    struct kfsd_vol *v = r->vol;
    uint32_t mode = S_IFREG | (r->w->mode & ~r->w->umask & 07777);
    struct kfs_attr a;
    KFS_FAULT("create.before");
    pthread_mutex_lock(&v->pub);
    rc = kfs_meta_create(v->meta, r->cred, w.attr.ino, NULL, 0, mode, 0, NULL, &r->op, KFS_OPEN_CREATED | KFS_OPEN_WRITER, &a, &r->err);
    KFS_FAULT("create.after");
    if (rc == 0) {
        rc = kfsd_file_create_locked(v, &a, oflags, true, &r->fds[0], &r->err);
        if (rc < 0)
            (void)kfs_meta_orphan_purge(v->meta, a.ino, NULL);
        else
            kfsd_attr_publish_locked(v, &a);
    }
    pthread_mutex_unlock(&v->pub);
    return rc < 0 ? rc : answer(r, &a, KFS_OPEN_CREATED | KFS_OPEN_WRITER);
}

int kfsd_op_open(struct kfsd_req *r)
{
    int oflags = (int)kfs_wire_oflags(r->w->oflags);
    if (oflags & O_PATH)
        oflags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    if ((oflags & O_TMPFILE) == O_TMPFILE)
        return open_tmpfile(r, oflags);
    if (oflags & O_CREAT)
        return open_create(r, oflags);
    bool nofollow = (oflags & O_NOFOLLOW) || (r->w->flags & KFS_WIRE_NOFOLLOW);
    int rc = -ENOENT;
    /* Twice: the segment may name an inode that was just replaced by a rename. */
    for (int i = 0; rc == -ENOENT && i < 2; i++) {
        struct kfsd_walk w;
        rc = kfsd_walk_found(r, r->w->ino, r->path, nofollow ? 0 : KFSD_WALK_FOLLOW, &w);
        if (rc < 0)
            return rc;
        rc = open_existing(r, &w.attr, oflags, nofollow);
    }
    return rc;
}

int kfsd_op_close(struct kfsd_req *r)
{
    struct kfsd_vol *v = r->vol;
    bool session = v->session || (r->w->flags & KFS_WIRE_SESSION);
    int rc = session ? kfsd_file_want_commit(v, r->w->ino) : kfsd_file_commit(v, r->w->ino, false, &r->err);
    if (rc < 0)
        return rc;
    if (kfsd_attr_get(v, r->w->ino, &r->rep.attr, NULL) < 0)
        memset(&r->rep.attr, 0, sizeof r->rep.attr); /* an orphan that is gone: closing is fine */
    return 0;
}

int kfsd_op_fsync(struct kfsd_req *r)
{
    struct kfsd_vol *v = r->vol;
    if (r->w->ino == 0)
        return kfsd_flush(v, true, NULL, &r->err);
    int rc = kfsd_file_commit(v, r->w->ino, true, &r->err);
    if (rc == 0)
        rc = kfsd_sync(v, &r->err);
    if (rc == 0 && kfsd_attr_get(v, r->w->ino, &r->rep.attr, NULL) < 0)
        memset(&r->rep.attr, 0, sizeof r->rep.attr);
    return rc;
}
