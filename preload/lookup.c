/* preload/lookup.c — tier 1: from a path to attributes through shared memory
 *
 * No system call. Each row is validated by its sequence lock; the segment's heartbeat is looked at before and after the walk, so the whole answer lies inside
 * kfsd's life (design, section 3). Whatever is not there, or leaves the volume, is "not known": kfsd answers.
 */
#include "preload/shim.h"
#include "base/pure/path.h"
#include <string.h>
#include <sys/stat.h>

#define UNKNOWN 0

struct walk {
    const struct kfs_shm_header *shm;
    const struct kfs_cred *cred;
    kfs_ino_t root;
    struct kfs_attr at; /* of the directory (at the end: the object) reached */
    const char *rest;
    int hops;
    char text[KFS_PATH_MAX]; /* holds rest after a symlink */
};

/* w->rest becomes target/rest. */
static int expand(struct walk *w, kfs_ino_t link)
{
    char target[KFS_SHM_TARGET_MAX + 1];
    int n = kfs_shm_link_get(w->shm, link, target);
    if (n <= 0 || target[0] == '/')
        return UNKNOWN;
    if (++w->hops > KFS_SYMLOOP_MAX)
        return -ELOOP;
    size_t left = strlen(w->rest);
    if ((size_t)n + left + 2 > sizeof w->text)
        return -ENAMETOOLONG;
    memmove(w->text + n + 1, w->rest, left + 1);
    memcpy(w->text, target, (size_t)n);
    w->text[n] = left ? '/' : 0;
    w->rest = w->text;
    return 1;
}

static int up(struct walk *w)
{
    if (w->at.ino == w->root || !w->at.parent)
        return UNKNOWN;
    return kfs_shm_attr_get(w->shm, w->at.parent, &w->at) ? 1 : UNKNOWN;
}

/* One component. 1: w->at is the child (or the same directory, with rest changed by a symlink). */
static int step(struct walk *w, const char *name, size_t len, bool follow_it)
{
    struct kfs_attr child;
    kfs_ino_t ino;
    if (!S_ISDIR(w->at.mode))
        return -ENOTDIR;
    if (!kfs_perm_ok(w->cred, w->at.mode, w->at.uid, w->at.gid, 1))
        return -EACCES;
    if (name[0] == '.' && len == 1)
        return 1;
    if (name[0] == '.' && len == 2 && name[1] == '.')
        return up(w);
    if (len > KFS_NAME_MAX)
        return -ENAMETOOLONG;
    int d = kfs_shm_dent_get(w->shm, w->at.ino, name, len, &ino);
    if (d == KFS_DENT_EMPTY)
        d = kfs_shm_list_find(w->shm, w->at.ino, name, len, &ino);
    if (d == KFS_DENT_ABSENT)
        return -ENOENT;
    if (d != KFS_DENT_PRESENT || !kfs_shm_attr_get(w->shm, ino, &child))
        return UNKNOWN;
    if (follow_it && S_ISLNK(child.mode))
        return expand(w, ino);
    w->at = child;
    return 1;
}

static int walk_all(struct walk *w, bool follow)
{
    const char *name;
    size_t len;
    bool must_dir = false; /* a trailing slash, also before a symlink that was followed */
    while ((name = kfs_path_next(&w->rest, &len))) {
        bool slash = name[len] == '/';
        must_dir |= slash && !*w->rest;
        int r = step(w, name, len, *w->rest || slash || follow);
        if (r != 1)
            return r;
    }
    return must_dir && !S_ISDIR(w->at.mode) ? -ENOTDIR : 1;
}

int kfs_pre_lookup(const struct kfs_loc *loc, bool follow, struct kfs_attr *ret)
{
    struct kfs_vol *v = loc->vol;
    struct walk w;
    if (KFS_UNLIKELY(!__atomic_load_n(&v->attached, __ATOMIC_ACQUIRE)) && kfs_pre_attach(v) < 0)
        return UNKNOWN;
    w.shm = __atomic_load_n(&v->shm, __ATOMIC_ACQUIRE);
    if (!w.shm || kfs_pre_in_vfork || !kfs_shm_fresh(w.shm, kfs_pre_now_ns(true)))
        return UNKNOWN;
    if (!kfs_shm_attr_get(w.shm, loc->base, &w.at))
        return UNKNOWN;
    w.cred = kfs_pre_cred();
    w.root = v->root;
    w.rest = loc->rel;
    w.hops = loc->hops;
    int r = walk_all(&w, follow);
    if (r == UNKNOWN || !kfs_shm_fresh(w.shm, kfs_pre_now_ns(true)))
        return UNKNOWN;
    if (r == 1)
        *ret = w.at;
    kfs_pre_count(KFS_TIER_SHM);
    return r;
}

int kfs_pre_attr(struct kfs_vol *v, kfs_ino_t ino, struct kfs_attr *ret)
{
    struct kfs_attr a;
    if (KFS_UNLIKELY(!__atomic_load_n(&v->attached, __ATOMIC_ACQUIRE)) && kfs_pre_attach(v) < 0)
        return UNKNOWN;
    const struct kfs_shm_header *shm = __atomic_load_n(&v->shm, __ATOMIC_ACQUIRE);
    if (!shm || kfs_pre_in_vfork || !kfs_shm_attr_get(shm, ino, &a) || !kfs_shm_fresh(shm, kfs_pre_now_ns(true)))
        return UNKNOWN;
    *ret = a;
    return 1;
}
