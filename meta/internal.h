/* meta/internal.h — what the files of meta share
 *
 * Model    A changing call is: kfs_tx_begin (takes the lock), work, kfs_tx_end (commits if the work's result is >= 0, else rolls back; gives the lock back).
 *          A reading call takes the lock only. Functions named *_locked, and all of kfs_inode_*, kfs_dentry_*, kfs_object_*, kfs_lost_*, need it held.
 * Locks    kfs_meta.lock guards every field but `volume`, which is constant after open. sync_lock: see kfs_meta_sync.
 */
#ifndef KFS_META_INTERNAL_H
#define KFS_META_INTERNAL_H

#include "meta/db.h"
#include "meta/meta.h"

#include <pthread.h>
#include <time.h>

/* Numbers are taken from the database in blocks of this many; each block is made durable before its first number goes out, so that a power cut
 * cannot bring a number back. */
#define KFS_ID_BLOCK 4096u
#define KFS_NLINK_MAX 0x7fffffffu

struct kfs_id_pool {
    const char *counter; /* row of table counter */
    uint64_t next, end;
};

struct kfs_meta {
    pthread_mutex_t lock;
    struct kfs_db *db;
    struct kfs_id_pool inos, objects;
    struct timespec now;         /* of the transaction under way */
    int64_t inodes_added;        /* by the transaction under way */
    int64_t bytes_added;
    bool usage_known;            /* counted once at the first question, kept in step from then on */
    struct kfs_meta_usage usage;
    unsigned ops_stored, collected_stored;
    struct kfs_meta_volume volume;
};

/* meta/txn.c */
int kfs_tx_begin(struct kfs_meta *m, struct kfs_err *err); /* on failure the lock is free again */
int kfs_tx_end(struct kfs_meta *m, int rc, struct kfs_err *err);
/* Take a number. Not inside a transaction (a roll-back would take the block back), but with the lock held. */
int kfs_id_take_locked(struct kfs_meta *m, struct kfs_id_pool *pool, uint64_t *ret_id,
                       struct kfs_err *err);
int kfs_op_store(struct kfs_meta *m, const struct kfs_opid *op, uint64_t ino, uint64_t value,
                 struct kfs_err *err);
/* Now, by the clock that the kernel gives its own files, so that "newer than" holds between them and ours. */
struct timespec kfs_meta_now(void);

/* meta/inode.c */
void kfs_inode_row(struct kfs_row *row, struct kfs_attr *ret); /* from columns 0..18 */
#define KFS_INODE_COLUMNS 19
int kfs_inode_get(struct kfs_meta *m, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err); /* -ENOENT */
/* A directory that still has a name: -ENOENT, -ENOTDIR. */
int kfs_inode_get_dir(struct kfs_meta *m, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err);
/* name: of a directory, else NULL. */
int kfs_inode_add(struct kfs_meta *m, const struct kfs_attr *a, const char *name, size_t len, struct kfs_err *err);
int kfs_inode_put(struct kfs_meta *m, const struct kfs_attr *a, struct kfs_err *err); /* all but parent and name */
int kfs_inode_touch(struct kfs_meta *m, struct kfs_attr *dir, struct kfs_err *err);   /* an entry changed: times = now; nlink as in *dir */
int kfs_inode_place(struct kfs_meta *m, struct kfs_attr *dir, kfs_ino_t parent, const char *name, size_t len, struct kfs_err *err);
/* The inode lost a name: ctime, nlink (a directory's goes to 0), orphan if it was the last. */
int kfs_inode_unname(struct kfs_meta *m, struct kfs_attr *a, struct kfs_err *err);
/* 1: `ino` is `top` or lies below it; 0: not. */
int kfs_inode_below(struct kfs_meta *m, kfs_ino_t ino, kfs_ino_t top, struct kfs_err *err);

/* meta/dentry.c */
int kfs_name_check(const char *name, size_t len);
/* 1: *ret filled; 0: no such name. */
int kfs_dentry_get(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len, struct kfs_attr *ret, struct kfs_err *err);
int kfs_dentry_add(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len, const struct kfs_attr *a, struct kfs_err *err);
int kfs_dentry_set(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len, const struct kfs_attr *a, struct kfs_err *err);
int kfs_dentry_drop(struct kfs_meta *m, kfs_ino_t parent, const char *name, size_t len, struct kfs_err *err);
int kfs_dentry_any(struct kfs_meta *m, kfs_ino_t dir, struct kfs_err *err); /* 1: has entries, 0: empty */

/* meta/object.c. lost: objects that lost a reference; buried at the end, because the same transaction may give them another. */
struct kfs_lost {
    uint64_t *objects;
    size_t count, cap;
};
/* An extent of `len` bytes more (by 1), one less (by -1), or one that became shorter (by 0, len < 0) names the object. made: it is a commit's new one. */
int kfs_object_ref(struct kfs_meta *m, uint64_t object, int64_t by, int64_t len, bool made, struct kfs_err *err);
/* Can a commit name this object? -ESTALE: it was collected. Changes nothing. */
int kfs_object_check(struct kfs_meta *m, uint64_t object, struct kfs_err *err);
int kfs_object_add(struct kfs_meta *m, uint64_t object, uint64_t bytes, struct kfs_err *err); /* no-op if known; back from the garbage list */
int kfs_lost_add(struct kfs_lost *l, uint64_t object, struct kfs_err *err);
int kfs_lost_bury(struct kfs_meta *m, const struct kfs_lost *l, struct kfs_err *err); /* those without references go to the garbage list */

/* meta/content.c: everything of an inode's content goes, its objects to the garbage list. */
int kfs_content_drop(struct kfs_meta *m, kfs_ino_t ino, struct kfs_err *err);

/* Whom to check for: no credentials means kfsd itself, which may do everything. */
extern const struct kfs_cred kfs_cred_root;
static inline const struct kfs_cred *kfs_cred_or_root(const struct kfs_cred *c)
{
    return c ? c : &kfs_cred_root;
}

#endif
