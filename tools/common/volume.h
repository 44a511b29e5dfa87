/* tools/common/volume.h — an opened volume: lock + metadata + store + cache directory + session record
 *
 * What     Joins meta and blockstore, which do not know each other. kfsd serves one of these; `kfs format` and `kfs fsck` use it without serving.
 * Model    A volume URL is "sqlite:PATH" or "mysql://…" (meta/db_mysql.c); the database file names everything else: PATH.lock, PATH.objects (default store), and, in its settings, the
 *          cache directory of the last session. Opening takes the lock, so there is one opener at a time on any node that shares the file.
 *          Settings used here: "session" = "open EPOCH" while open, "clean" after a regular end; "cache_dir" = the cache directory of the last session.
 * Owner    struct kfs_volume belongs to the caller of open; kfs_volume_close frees all of it.
 * Threads  The parts are thread-safe by their own contracts; open, close and switch_cache are one thread's.
 * Blocks   Yes.
 * Errors   -errno + err with what, where, cure. -EBUSY: another kfsd has it (err names it).
 */
#ifndef KFS_TOOLS_COMMON_VOLUME_H
#define KFS_TOOLS_COMMON_VOLUME_H

#include "base/err.h"
#include "base/pure/attr.h"
#include "blockstore/blockstore.h"
#include "blockstore/keys.h"
#include "blockstore/cache_file.h"
#include "meta/meta.h"
#include "tools/common/lockfile.h"
#include "tools/common/volume_url.h"


struct kfs_volume {
    char url[KFS_VOLUME_URL_MAX + 8];
    char path[KFS_VOLUME_URL_MAX]; /* of the database, absolute; or the URL of its server */
    char id[40];
    uint64_t epoch; /* of this opening; random, never 0 */
    struct kfs_lock *lock;
    struct kfs_meta *meta;
    struct kfs_store *store;
    struct kfs_cache *cache; /* NULL when opened without */
    struct kfs_cache_options cache_options; /* of the first directory */
    uint64_t cap_bytes, cap_files;          /* of others that have none of their own */
    char cache_parent[1024];                /* of the first, from the configuration; "": none */
    char *cache_dirs;                       /* all of them, as the configuration has them */
    bool unclean;                    /* the last session did not end regularly */
    bool rebooted;                   /* the node was booted since: live files went to lost/ */
    char cache_wanted[KFS_PATH_MAX]; /* an explicit directory to move to once the old one holds no live file; "" = none */
};

struct kfs_volume_options {
    const char *cache_dir;    /* explicit, or NULL for the default */
    /* As cache_dir of the configuration has it, for any number of volumes: each gets the directories PATH/ID. cache_dir takes the place of the first. */
    const char *cache_parents; /* NULL or "": none */
    struct kfs_cache_options cache; /* cap_bytes 0: 10 GiB. Caps are those of directories without their own */
    bool without_cache;       /* fsck: metadata and objects only */
    const char *key_file;     /* secret of an encrypted volume; NULL or "": see tools/common/secret.h */
    bool ask;                 /* for the secret on the terminal, if need be */
    struct kfs_store_options store; /* its keys are filled in here */
};

/* Make a new volume. store_url NULL: "file:PATH.objects". -EEXIST: there is one already. ret may be NULL. */
int kfs_volume_format(const char *url, const char *store_url, const char *name, struct kfs_meta_volume *ret, struct kfs_err *err);
/* The same, with content encrypted from the start: keys that `secret` unlocks. NULL: not encrypted. */
int kfs_volume_format_with(const char *url, const char *store_url, const char *name, const struct kfs_secret *secret, struct kfs_meta_volume *ret,
                           struct kfs_err *err);
/* The keys record of an encrypted volume: into the settings, and as a copy into the store. get: -ENOENT: not encrypted. */
int kfs_volume_keys_get(struct kfs_meta *m, struct kfs_buf *ret, struct kfs_err *err);
int kfs_volume_keys_set(struct kfs_meta *m, const char *store_url, const char *record, struct kfs_err *err);

int kfs_volume_open(const char *url, const struct kfs_volume_options *o, struct kfs_volume **ret_v, struct kfs_err *err);
/* Move to v->cache_wanted. The caller has recovered everything live in the present directory. */
int kfs_volume_switch_cache(struct kfs_volume *v, struct kfs_err *err);
/* clean: everything live was committed and settled; the next session need not wait or recover. */
void kfs_volume_close(struct kfs_volume *v, bool clean);

#endif
