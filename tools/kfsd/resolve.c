#include "tools/kfsd/kfsd.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The walk's own copy of the path: symlink targets are put before what is left. */
struct route {
    char buf[2][KFS_PATH_MAX + 1];
    int cur;
    const char *at;
};

static int escape(struct kfsd_req *r, int status, const char *head, size_t head_len, const char *rest)
{
    size_t rest_len = strlen(rest);
    bool slash = head_len && rest_len && head[head_len - 1] != '/';
    if (head_len + slash + rest_len >= KFS_PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(r->out, head, head_len);
    if (slash)
        r->out[head_len] = '/';
    memcpy(r->out + head_len + slash, rest, rest_len);
    r->out_len = head_len + slash + rest_len;
    return status;
}

/* `rest` begins behind the slashes after the link; keep a trailing slash ("link/" must stay a directory). */
static int splice(struct route *p, const char *target, size_t target_len, const char *rest, bool slash)
{
    size_t rest_len = strlen(rest);
    if (target_len + slash + rest_len >= KFS_PATH_MAX)
        return -ENAMETOOLONG;
    char *next = p->buf[!p->cur];
    memcpy(next, target, target_len);
    if (slash)
        next[target_len] = '/';
    memcpy(next + target_len + slash, rest, rest_len + 1);
    p->cur = !p->cur;
    p->at = next;
    return 0;
}

/* A removed directory keeps its way up, as in the kernel. */
static int parent_of(struct kfsd_req *r, struct kfs_attr *dir)
{
    return kfsd_attr_get(r->vol, dir->parent, dir, &r->err);
}

static int follow(struct kfsd_req *r, struct route *p, const struct kfs_attr *link, const char *rest, bool slash, unsigned *hops)
{
    if (++*hops > KFS_SYMLOOP_MAX)
        return -ELOOP;
    char target[KFS_PATH_MAX];
    int n = kfsd_link_get(r->vol, link->ino, target, &r->err);
    if (n < 0)
        return n;
    if (target[0] != '/')
        return splice(p, target, (size_t)n, rest, slash);
    if (slash && !*rest)
        rest = "/"; /* "link/": the slash goes on */
    return escape(r, KFS_WIRE_ESCAPE_ABS, target, (size_t)n, rest);
}

int kfsd_walk(struct kfsd_req *r, kfs_ino_t ino, const char *path, unsigned flags, struct kfsd_walk *w)
{
    if (strlen(path) >= KFS_PATH_MAX)
        return -ENAMETOOLONG;
    memset(w, 0, sizeof *w);
    struct route p = {.cur = 0};
    strcpy(p.buf[0], path);
    p.at = p.buf[0];
    unsigned hops = 0;
    struct kfs_attr cur;
    int rc = kfsd_attr_get(r->vol, ino, &cur, &r->err);
    if (rc < 0)
        return rc;
    w->last = KFSD_LAST_SELF;
    if (*p.at)
        while (*p.at == '/') /* relative by contract: leading slashes mean nothing */
            p.at++;
    while (*p.at) {
        size_t len = strcspn(p.at, "/");
        const char *name = p.at, *rest = name + len;
        while (*rest == '/')
            rest++;
        bool slash = name[len] == '/', final = !*rest;
        if (len > KFS_NAME_MAX)
            return S_ISDIR(cur.mode) ? -ENAMETOOLONG : -ENOTDIR;
        if (!S_ISDIR(cur.mode))
            return -ENOTDIR;
        if (!kfs_perm_ok(r->cred, cur.mode, cur.uid, cur.gid, 1))
            return -EACCES;
        w->slash = slash;
        p.at = rest;
        if (len == 1 && name[0] == '.') {
            w->last = KFSD_LAST_DOT;
            w->parent = 0;
            continue;
        }
        if (len == 2 && name[0] == '.' && name[1] == '.') {
            w->last = KFSD_LAST_DOTDOT;
            w->parent = 0;
            if (cur.ino == KFS_INO_ROOT)
                return escape(r, KFS_WIRE_ESCAPE_UP, "", 0, rest);
            rc = parent_of(r, &cur);
            if (rc < 0)
                return rc;
            continue;
        }
        struct kfs_attr child;
        rc = kfsd_child_get(r->vol, cur.ino, name, len, &child, &r->err);
        if (rc < 0 && (rc != -ENOENT || !final))
            return rc;
        if (rc == 0 && S_ISLNK(child.mode) &&
            (!final || (flags & KFSD_WALK_FOLLOW) || (slash && (flags & KFSD_WALK_SLASH_FOLLOW)))) {
            rc = follow(r, &p, &child, rest, slash, &hops);
            if (rc < 0)
                return rc;
            continue;
        }
        w->last = KFSD_LAST_NAME;
        w->parent = cur.ino;
        memcpy(w->name, name, len);
        w->name[len] = 0;
        w->name_len = len;
        if (rc == -ENOENT) {
            w->found = false;
            w->attr = cur;
            return 0;
        }
        cur = child;
    }
    w->found = true;
    w->attr = cur;
    return 0;
}

int kfsd_walk_found(struct kfsd_req *r, kfs_ino_t ino, const char *path, unsigned flags, struct kfsd_walk *w)
{
    int rc = kfsd_walk(r, ino, path, flags | KFSD_WALK_SLASH_FOLLOW, w);
    if (rc < 0)
        return rc;
    if (!w->found)
        return -ENOENT;
    if (w->slash && !S_ISDIR(w->attr.mode))
        return -ENOTDIR;
    return 0;
}
