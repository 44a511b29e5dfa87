/* base/pure/path.h — lexical path rules
 *
 * Threads  Pure functions of their arguments; async-signal-safe; no allocation.
 */
#ifndef KFS_BASE_PURE_PATH_H
#define KFS_BASE_PURE_PATH_H

#include "base/pure/attr.h"
#include <stdbool.h>
#include <stddef.h>

/* Next component of *cursor: returns its start, *ret_len its length, moves *cursor behind it and behind the slashes that follow
 * it. NULL: none left. "." is returned like any other; the caller decides. */
const char *kfs_path_next(const char **cursor, size_t *ret_len);

/* Purely lexical: collapse "//", "/./", "x/.." of an absolute path into buf (cap bytes). Length, or -ENAMETOOLONG,
 * or -EINVAL when not absolute. ".." above "/" stays "/". A trailing slash goes. */
int kfs_path_normalise(const char *path, char *buf, size_t cap);

/* True if `path` is `prefix` or lies below it; both normalised. */
bool kfs_path_under(const char *path, const char *prefix, size_t prefix_len);

#endif
