/* tools/common/volume_url.h — the URLs of volumes, without opening anything
 *
 * What     "sqlite:PATH" and "mysql://…" (meta/db_mysql.c). Apart from volume.h, so that kfs-run, which every program's start waits for, needs no library but libc.
 * Threads  Any. Blocks: a look at the directory of a path.
 */
#ifndef KFS_TOOLS_COMMON_VOLUME_URL_H
#define KFS_TOOLS_COMMON_VOLUME_URL_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>

#define KFS_VOLUME_URL_MAX 1024

/* "sqlite:PATH" -> absolute PATH; "mysql://…" stays as it is (the file need not exist, its directory must). -EINVAL: unknown or unsupported scheme, with the cure in err. */
int kfs_volume_url_path(const char *url, char *buf, size_t cap, struct kfs_err *err);

/* Do both name the same volume? Of a server's URL its hosts and database count, not user and options. */
bool kfs_volume_url_same(const char *a, const char *b);
bool kfs_volume_is_embedded(const char *path); /* a database file here, not a server */

#endif
