/* base/conf.h — the configuration file
 *
 * What     `key = value` lines, `[volume NAME]` sections with `url = URL`, `#` to the end of a line. Keys: base/conf_keys.def, one row each.
 * Model    Every key has a value from the start (its default). Loading a file replaces those it names; volumes with the same name are replaced.
 *          A file that contains an error changes nothing.
 * Owner    struct kfs_conf; kfs_conf_release frees. Strings returned live until the next load or release.
 * Threads  One at a time while loading, then read-only.
 * Errors   -EINVAL + err with file, line, key and what is allowed; -ENOENT: no such file; other -errno of reading it.
 */
#ifndef KFS_BASE_CONF_H
#define KFS_BASE_CONF_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kfs_conf_key {
#define CONF_KEY(id, key, type, def, allowed, doc) KFS_CONF_##id,
#include "base/conf_keys.def"
#undef CONF_KEY
    KFS_CONF_COUNT
};

struct kfs_conf_value {
    char *text;      /* as a string: PATH with ~ replaced, PATHS one a line, CHOICE the word, others as written */
    uint64_t number; /* SIZE bytes, SECONDS, ROWS; of CHOICE the index of the word */
    char *origin;    /* "default" or "FILE:LINE" */
};
struct kfs_conf_volume {
    char *name, *url, *origin;
};
struct kfs_conf {
    struct kfs_conf_value values[KFS_CONF_COUNT];
    struct kfs_conf_volume *volumes;
    size_t volume_count;
};

/* All defaults. -ENOMEM. */
int kfs_conf_init(struct kfs_conf *c, struct kfs_err *err);
void kfs_conf_release(struct kfs_conf *c);

/* Read one file on top of what c has. */
int kfs_conf_load(struct kfs_conf *c, const char *path, struct kfs_err *err);
/* Init, then read $KFS_CONFIG if that is set (it must exist), else /etc/kfs/kfs.conf and, over it, ~/.config/kfs/kfs.conf, as far as they exist. */
int kfs_conf_load_default(struct kfs_conf *c, struct kfs_err *err);
/* Set one key as a line of a file would; origin is for messages ("--cache-bytes"). */
int kfs_conf_set(struct kfs_conf *c, const char *key, const char *value, const char *origin, struct kfs_err *err);

const char *kfs_conf_text(const struct kfs_conf *c, enum kfs_conf_key key); /* never NULL */
uint64_t kfs_conf_number(const struct kfs_conf *c, enum kfs_conf_key key);
/* One line of a PATHS value: its path, and what follows it, "bytes=SIZE" and "files=NUMBER" in any order. Moves *cursor behind it. 1: filled; 0: no more;
 * -EINVAL. */
struct kfs_conf_dir {
    char path[4096];
    bool has_bytes, has_files;
    uint64_t bytes, files;
};
int kfs_conf_dir_next(const char **cursor, struct kfs_conf_dir *ret);
const char *kfs_conf_volume_url(const struct kfs_conf *c, const char *name); /* NULL: no such volume */

/* For listings: the key's name and documentation. */
const char *kfs_conf_key_name(enum kfs_conf_key key);
const char *kfs_conf_key_doc(enum kfs_conf_key key);

/* "10G" and the like: digits, then nothing or one of K M G T (or KiB, MiB, …). 0 or -EINVAL. */
int kfs_conf_parse_size(const char *text, uint64_t *ret_bytes);

#endif
