/* base/pure/perm.h — may these ids do that to this file?
 *
 * What     The POSIX permission check, one place for the shim (shared memory) and kfsd (everything else).
 * Model    uid 0 may read, write and search everything, and execute a regular file if any x bit is set.
 * Threads  Pure functions of their arguments.
 * Absent   ACLs: system.posix_acl_* xattrs answer EOPNOTSUPP.
 */
#ifndef KFS_BASE_PURE_PERM_H
#define KFS_BASE_PURE_PERM_H

#include "base/pure/attr.h"
#include <stdbool.h>
#include <sys/stat.h>

#define KFS_GROUPS_MAX 64 /* supplementary groups that count; more are ignored, which can only deny */

struct kfs_cred {
    uint32_t uid, gid;
    uint32_t group_count;
    uint32_t groups[KFS_GROUPS_MAX];
};

static inline bool kfs_perm_in_group(const struct kfs_cred *c, uint32_t gid)
{
    if (c->gid == gid)
        return true;
    for (uint32_t i = 0; i < c->group_count; i++)
        if (c->groups[i] == gid)
            return true;
    return false;
}

/* `want` is a mask of 4 (read), 2 (write), 1 (execute or search), as R_OK, W_OK, X_OK. */
static inline bool kfs_perm_ok(const struct kfs_cred *c, uint32_t mode, uint32_t uid, uint32_t gid,
                               unsigned want)
{
    if (c->uid == 0)
        return !(want & 1) || S_ISDIR(mode) || (mode & 0111);
    unsigned bits = mode & 7;
    if (c->uid == uid)
        bits = (mode >> 6) & 7;
    else if (kfs_perm_in_group(c, gid))
        bits = (mode >> 3) & 7;
    return (bits & want) == want;
}

/* A name in a sticky directory may be removed by the file's owner, the directory's owner and root. */
static inline bool kfs_perm_sticky_ok(const struct kfs_cred *c, const struct kfs_attr *dir,
                                      const struct kfs_attr *victim)
{
    return !(dir->mode & S_ISVTX) || c->uid == 0 || c->uid == dir->uid || c->uid == victim->uid;
}

#endif
