/* meta/meta.h — who is called what, and where its bytes are: the contract of the metadata engine
 *
 * What     Names, attributes, symlinks, xattrs and content maps of one volume, in SQL. Nothing here touches file content but the
 *          inline bytes that ride in a row.
 * Model    Every call is one transaction and atomic: it happens whole or not at all, also when the process is killed. Invariants:
 *            (1) a name exists at most once per parent; (2) nlink(file) = number of its names, nlink(dir) = 2 + subdirectories;
 *            (3) an inode with nlink 0 is an orphan: kept until kfs_meta_orphan_purge; (4) extents of an inode never overlap;
 *            (5) an object that no extent names any more is in the garbage list in the same transaction; (6) an object's live bytes are the sum of the
          extents that name it.
 *          Permission: changing calls take the caller's ids and check write+search on the parents, sticky bits and ownership as POSIX says.
 *          cred NULL: kfsd itself, which may do everything. Walking a path (search permission on the way) is the caller's business.
 *          Times: mtime/ctime of parents and inodes are set to now as POSIX asks.
 * Replay   A changing call takes `op` (may be NULL or op->seq 0: not remembered). Its result is stored under it in the same transaction:
 *          one row per client. kfs_meta_op_find tells what became of it.
 *          Only successes are stored: a failed call changed nothing, so it may simply run again.
 * Threads  Any thread; one lock inside. No callback may call back into meta.
 * Blocks   Yes: SQL, disk.
 * Errors   -errno. ENOENT, EEXIST, ENOTEMPTY, EPERM, EACCES… are answers (err untouched); EIO with text in err is a failure.
 *          names: 1..255 bytes, no '/', no NUL, not "." or ".."; -ENAMETOOLONG beyond, -EINVAL otherwise.
 */
#ifndef KFS_META_META_H
#define KFS_META_META_H

#include "base/err.h"
#include "base/extent.h"
#include "base/pure/attr.h"
#include "base/pure/perm.h"
#include <stddef.h>

struct kfs_meta;

#define KFS_META_SCHEMA 2 /* version of the tables; a database of a newer one is refused, of an older one upgraded */

struct kfs_opid {
    uint64_t client[2];
    uint64_t seq;
};
struct kfs_op_result {
    int32_t status; /* 0 or -errno */
    uint64_t ino;
    uint64_t value; /* as kfs_wire_rep.value */
};

struct kfs_meta_volume {
    char id[40];   /* uuid text */
    char name[64];
    char store[1024]; /* store URL: "file:/absolute/dir" */
    int64_t created_s;
    uint32_t schema;
};

/* Create the tables in a database file that does not exist yet (or is empty). The root belongs to uid/gid with mode 0755. v->id is
 * filled in if empty. -EEXIST: there is a volume already. */
int kfs_meta_format(const char *path, struct kfs_meta_volume *v, uint32_t uid, uint32_t gid, struct kfs_err *err);

/* Open. Errors name the file, what is wrong and the cure: -ENOENT missing or empty (may be formatted), -EINVAL another program's, -EIO damaged or no
 * database, -ENOTSUP newer schema, -EACCES, -EISDIR, -EAGAIN (transient) open elsewhere. The caller holds the volume's
 * lock: this process is the only opener. */
int kfs_meta_open(const char *path, struct kfs_meta **ret_m, struct kfs_err *err);
void kfs_meta_close(struct kfs_meta *m); /* checkpoints; NULL is fine */
const struct kfs_meta_volume *kfs_meta_volume(const struct kfs_meta *m);

/* Settings: short text values by key (session records, config of the volume). -ENOENT: not set (buf untouched). */
int kfs_meta_setting_get(struct kfs_meta *m, const char *key, char *buf, size_t cap, struct kfs_err *err);
int kfs_meta_setting_set(struct kfs_meta *m, const char *key, const char *value, struct kfs_err *err);

/* All committed transactions survive a power cut after this returns 0. */
int kfs_meta_sync(struct kfs_meta *m, struct kfs_err *err);

/* 1: op is known, *ret filled. 0: never executed. */
int kfs_meta_op_find(struct kfs_meta *m, const struct kfs_opid *op, struct kfs_op_result *ret, struct kfs_err *err);

int kfs_meta_lookup(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len, struct kfs_attr *ret, struct kfs_err *err);
int kfs_meta_getattr(struct kfs_meta *m, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err);

/* Entries of a directory in byte order of their names, after `after` (after_len 0: from the start); "." and ".." are not among them.
 * Stops when cb returns non-zero (that entry does not count as given). *ret_end: no more follow. -ENOTDIR, -ENOENT. */
typedef int (*kfs_meta_dirent_cb)(void *arg, const char *name, size_t len, const struct kfs_attr *attr);
int kfs_meta_readdir(struct kfs_meta *m, kfs_ino_t dir, const char *after, size_t after_len, kfs_meta_dirent_cb cb, void *arg,
                     bool *ret_end, struct kfs_err *err);

/* New inode under a new name. mode carries the type (S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, …) and the bits with umask applied.
 * A setgid parent gives its gid, and setgid to directories. target: of a symlink (1..4095 bytes).
 * If the name exists: -EEXIST and *ret_attr = what is there. name NULL: an O_TMPFILE inode (nlink 0) whose parent only gives gid and permission. */
int kfs_meta_create(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t parent, const char *name, size_t len, uint32_t mode,
                    uint64_t rdev, const char *target, const struct kfs_opid *op, uint64_t op_value, struct kfs_attr *ret_attr,
                    struct kfs_err *err);

int kfs_meta_link(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, kfs_ino_t parent, const char *name, size_t len,
                  const struct kfs_opid *op, struct kfs_attr *ret_attr, struct kfs_err *err);

/* rmdir: the name must be an empty directory (-ENOTDIR, -ENOTEMPTY); otherwise it must not be a directory (-EISDIR).
 * *ret_attr: the inode after the removal (nlink 0: orphan now; directories too, until purged). */
int kfs_meta_unlink(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t parent, const char *name, size_t len, bool rmdir,
                    const struct kfs_opid *op, struct kfs_attr *ret_attr, struct kfs_err *err);

/* As renameat2: flags 0, RENAME_NOREPLACE, RENAME_EXCHANGE. A directory never goes below itself (-EINVAL). Two names of one inode: nothing happens.
 * *ret_moved: the inode moved; *ret_replaced: what was replaced or exchanged, after the call (ino 0: none). */
int kfs_meta_rename(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t parent, const char *name, size_t len, kfs_ino_t parent2,
                    const char *name2, size_t len2, unsigned flags, const struct kfs_opid *op, struct kfs_attr *ret_moved,
                    struct kfs_attr *ret_replaced, struct kfs_err *err);

/* `valid`: KFS_SET_MODE|UID|GID|ATIME|MTIME (|*_NOW). Ownership rules as chmod(2), chown(2) (clearing of setuid bits included), utimensat(2).
 * Size is not set here: it belongs to a commit. */
struct kfs_meta_setattr {
    uint32_t valid, mode, uid, gid;
    int64_t atime_s, mtime_s;
    uint32_t atime_ns, mtime_ns;
};
int kfs_meta_setattr(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, const struct kfs_meta_setattr *s,
                     const struct kfs_opid *op, struct kfs_attr *ret_attr, struct kfs_err *err);

/* Target into buf (KFS_PATH_MAX bytes, NUL-terminated). Length or -EINVAL (not a symlink). */
int kfs_meta_readlink(struct kfs_meta *m, kfs_ino_t ino, char *buf, struct kfs_err *err);

/* Path of a directory from the root ("/a/b"; "/" for the root). Length, or -ENOENT when removed, -ERANGE. */
int kfs_meta_path_of(struct kfs_meta *m, kfs_ino_t dir, char *buf, size_t cap, struct kfs_err *err);

/* xattrs. Permission (file's own r/w for user.*, root for trusted.* and security.*) is checked here. -ENODATA, -EEXIST, -EOPNOTSUPP (system.*), -E2BIG.
 * get/list: length of the value; copies only if it fits in cap, else -ERANGE; cap 0 asks for the length. */
int kfs_meta_xattr_get(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, const char *name, void *buf, size_t cap, struct kfs_err *err);
int kfs_meta_xattr_list(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, char *buf, size_t cap, struct kfs_err *err);
int kfs_meta_xattr_set(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, const char *name, const void *value, size_t len,
                       int flags, const struct kfs_opid *op, struct kfs_err *err);
int kfs_meta_xattr_remove(struct kfs_meta *m, const struct kfs_cred *cred, kfs_ino_t ino, const char *name, const struct kfs_opid *op,
                          struct kfs_err *err);

/* Content. get: what is committed, for filling a cache file or comparing. */
int kfs_meta_content_get(struct kfs_meta *m, kfs_ino_t ino, struct kfs_content *ret_c, struct kfs_err *err);

/* Apply a delta: version + 1, size, blocks, mtime = the given one, ctime = that too unless it is newer already. Set-id bits stay: that is setattr's.
 * Several inodes may name one object (a pack): each delta that uses it lists it in `objects`, with the stored size of the whole.
 * -ENOENT: the inode is gone. -ESTALE: an object of the delta was collected meanwhile (it had lost all its names, and the grace time went by): write the
 * bytes anew. In both cases the caller deletes new objects that nobody else names. delta->changed false: only mtime is updated (if different), version stays. */
int kfs_meta_commit(struct kfs_meta *m, kfs_ino_t ino, const struct kfs_content_delta *delta, int64_t mtime_s, uint32_t mtime_ns,
                    struct kfs_attr *ret_attr, struct kfs_err *err);

/* The same for many inodes in one transaction. Each has its own result; those that fail leave the others as if they had not been there. */
struct kfs_meta_commit_item {
    kfs_ino_t ino;
    const struct kfs_content_delta *delta;
    int64_t mtime_s;
    uint32_t mtime_ns;
    int result; /* 0 or -errno, as of kfs_meta_commit */
    struct kfs_attr attr;
    struct kfs_err err;
};
void kfs_meta_commit_many(struct kfs_meta *m, struct kfs_meta_commit_item *items, size_t count);

/* The same bytes elsewhere (repacking, compaction): if the inode's content is still exactly `old` at this version, its inline bytes or extents become
 * `extents`; version, size and times stay. What only the old ones named becomes garbage. result: 0; -ESTALE: the content has changed, or an object of it was
 * collected, nothing happened; -ENOENT: the inode is gone. New objects that no item could use are the caller's to delete.
 * All items of a call are one transaction, each with its own result as above. */
struct kfs_meta_swap {
    kfs_ino_t ino;
    uint64_t version;
    const struct kfs_content *old;
    const struct kfs_extent *extents; /* the whole new map: sorted, not overlapping, no holes listed */
    size_t extent_count;
    const uint64_t *objects, *object_bytes; /* new ones among the objects of `extents`, as in a delta */
    size_t object_count;
    int result;
    struct kfs_err err;
};
void kfs_meta_content_swap(struct kfs_meta *m, struct kfs_meta_swap *swaps, size_t count);

/* Object ids: unique for ever in the volume, never 0; rising; reserved in blocks, so gaps are normal. */
int kfs_meta_object_id(struct kfs_meta *m, uint64_t *ret_id, struct kfs_err *err);

/* Objects in use with an id above `after`, in order of id. How many were written (<= cap); 0: no more. */
struct kfs_meta_object {
    uint64_t id;
    uint64_t bytes; /* stored size */
    uint64_t plain; /* bytes that commits ever named in it */
    uint64_t live;  /* bytes that extents name now */
    uint64_t refs;  /* extents that name it */
};
int kfs_meta_objects(struct kfs_meta *m, uint64_t after, struct kfs_meta_object *ret, size_t cap, struct kfs_err *err);

/* Objects that nothing names any more and that were so at least `grace_s` ago, in order of id, behind `after`. How many were written (<= cap). */
struct kfs_meta_garbage {
    uint64_t id, bytes;
    int64_t since_s;
    bool doomed;
};
int kfs_meta_garbage_list(struct kfs_meta *m, int64_t grace_s, uint64_t after, struct kfs_meta_garbage *ret, size_t cap, struct kfs_err *err);
int kfs_meta_garbage_sum(struct kfs_meta *m, int64_t grace_s, uint64_t *ret_count, uint64_t *ret_bytes, struct kfs_err *err);
/* These are about to be deleted from the store: from now on no commit can take them back (-ESTALE). Ids that are garbage no longer are taken out of `ids`;
 * returns how many are left. Durable on return: a power cut must not bring back the extents that named them. */
int kfs_meta_garbage_doom(struct kfs_meta *m, uint64_t *ids, size_t count, struct kfs_err *err);
/* They are deleted. */
int kfs_meta_garbage_forget(struct kfs_meta *m, const uint64_t *ids, size_t count, struct kfs_err *err);

/* Is this object named by an extent or by the garbage list? 1, 0 or -errno. For finding objects that a crash left behind. */
int kfs_meta_object_known(struct kfs_meta *m, uint64_t id, struct kfs_err *err);
/* Ids in [*from, to) that are not known and were not deleted lately: what a crash may have left in the store. Returns how many were written (<= cap) and
 * moves *from behind what was looked at; *from == to: that was all. */
int kfs_meta_object_gaps(struct kfs_meta *m, uint64_t *from, uint64_t to, uint64_t *ids, size_t cap, struct kfs_err *err);

/* Inodes with nlink 0. purge deletes one (its objects become garbage); -EBUSY if it has got a name again. */
int kfs_meta_orphan_list(struct kfs_meta *m, kfs_ino_t *inos, size_t cap, struct kfs_err *err);
int kfs_meta_orphan_purge(struct kfs_meta *m, kfs_ino_t ino, struct kfs_err *err);

struct kfs_meta_usage {
    uint64_t inodes, bytes; /* sum of sizes of regular files */
};
int kfs_meta_usage(struct kfs_meta *m, struct kfs_meta_usage *ret, struct kfs_err *err);

/* Walk every inode (fsck, tests). */
typedef int (*kfs_meta_inode_cb)(void *arg, const struct kfs_attr *attr);
int kfs_meta_each_inode(struct kfs_meta *m, kfs_meta_inode_cb cb, void *arg, struct kfs_err *err);

#endif
