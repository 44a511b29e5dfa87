/* base/pure/mounts.h — the KFS_AT environment variable: which prefixes this process has
 *
 * What     kfs-run writes it, the shim reads it (and puts it back into every child's environment).
 * Format   Entries separated by ';', fields by '|', in this order:
 *            prefix | socket | cache directory | volume URL | commit ("close" or "session") [ | further cache directories, each ended by a newline ]
 *          '%', ';' and '|' inside a field are written %25, %3B, %7C. Prefixes are absolute, normalised, not "/", not nested.
 * Threads  Pure functions of their arguments.
 */
#ifndef KFS_BASE_PURE_MOUNTS_H
#define KFS_BASE_PURE_MOUNTS_H

#include "base/pure/attr.h"
#include <stdbool.h>
#include <stddef.h>

#define KFS_ENV_AT "KFS_AT"
#define KFS_ENV_RUN "KFS_RUN" /* absolute path of kfs-run, to start a private kfsd again */
#define KFS_MOUNTS_MAX 16
#define KFS_SOCKET_PATH_MAX 107
#define KFS_MORE_DIRS_MAX 2048

struct kfs_mount {
    char prefix[1024];
    size_t prefix_len;
    char socket[KFS_SOCKET_PATH_MAX + 1];
    char cache_dir[1024];
    size_t cache_dir_len;
    char url[1024];
    bool session;
    char more_dirs[KFS_MORE_DIRS_MAX];
};

/* Decode one entry starting at *cursor; moves *cursor behind it. 1: filled; 0: no more; -EINVAL: malformed (rest ignored). */
int kfs_mounts_next(const char **cursor, struct kfs_mount *ret);

/* Append an entry to buf (NUL-terminated, cap bytes). 0 or -ENAMETOOLONG. */
int kfs_mounts_append(char *buf, size_t cap, const struct kfs_mount *m);

#endif
