/* tools/common/lockfile.h — who on this node has this volume open?
 *
 * What     PATH.lock beside a database. The one kfsd that has the volume open holds flock(LOCK_EX) on it for life; its lines say who that is.
 *          Of a database on a server it lies in a directory of the user's, /var/tmp/kfs-UID or the like; between nodes the server decides (meta/db_mysql.c).
 * Model    The lock is the truth, the text is a hint: the kernel drops the lock with the process, however it ends. The text is written after the lock
 *          is held, so a reader that finds the lock held but no text met the owner in its first milliseconds (`starting`).
 * Format   One "key value" a line: pid, uid, user, socket, cache_dir, host.
 * Owner    struct kfs_lock: the opener's; kfs_lock_release frees. struct kfs_lock_owner is plain data.
 * Threads  Any thread, each with its own structs.
 * Blocks   Local disk only.
 */
#ifndef KFS_TOOLS_COMMON_LOCKFILE_H
#define KFS_TOOLS_COMMON_LOCKFILE_H

#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct kfs_lock;

struct kfs_lock_owner {
    bool held;     /* a live process holds the lock */
    bool starting; /* held, but it has not said yet who it is */
    pid_t pid;
    uid_t uid;
    char user[64];
    char socket[108];
    char cache_dir[1024];
    char host[256];
};

/* Take the lock of database `db_path`. -EBUSY: somebody else's; err says whose. Other errors name the directory or file and the cure. */
int kfs_lock_acquire(const char *db_path, const char *url, struct kfs_lock **ret_l, struct kfs_err *err);
/* Say who holds it: call once the socket and the cache directory are known (again when they change). */
int kfs_lock_describe(struct kfs_lock *l, const char *socket, const char *cache_dir, struct kfs_err *err);
void kfs_lock_release(struct kfs_lock *l); /* NULL is fine; the file stays */

/* Who holds the lock of db_path? 0 (also when nobody does, or there never was a lock file: held false), or -errno when it cannot be read. */
int kfs_lock_read(const char *db_path, struct kfs_lock_owner *ret, struct kfs_err *err);

#endif
