#include "tools/common/volume_url.h"
#include "base/pure/attr.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int kfs_volume_url_path(const char *url, char *buf, size_t cap, struct kfs_err *err)
{
    if (strncmp(url, "mysql://", 8) == 0) {
        if (strlen(url) >= cap || strpbrk(url, "\n "))
            return KFS_FAIL(err, EINVAL, "volume URL '%.200s' is too long or has blanks in it", url);
        strcpy(buf, url);
        return 0;
    }
    if (strncmp(url, "sqlite:", 7) != 0)
        return KFS_FAIL(err, EINVAL, "unknown scheme in volume URL '%s'; use 'sqlite:PATH', 'mysql://USER@HOST:PORT/DATABASE' or a name from the configuration file",
                        url);
    const char *path = url + 7;
    if (!*path || path[strlen(path) - 1] == '/')
        return KFS_FAIL(err, EINVAL, "volume URL '%s' names no file; use 'sqlite:PATH'", url);
    if (strchr(path, '\n'))
        return KFS_FAIL(err, EINVAL, "volume URL contains a line break");

    /* The file may not exist yet: only its directory is made real, unless the file itself is a symlink. */
    char dir[KFS_PATH_MAX], real[KFS_PATH_MAX];
    if (realpath(path, real)) {
        if (strlen(real) >= cap)
            return KFS_FAIL(err, ENAMETOOLONG, "path of the database is too long: '%.200s'", path);
        strcpy(buf, real);
        return 0;
    }
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    int n = snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (n < 0 || (size_t)n >= sizeof dir)
        return KFS_FAIL(err, ENAMETOOLONG, "path of the database is too long: '%.200s'", path);
    if (!realpath(dir, real))
        return KFS_FAIL(err, errno, "directory of database '%s' cannot be used: %s", path, strerror(errno));
    n = snprintf(buf, cap, "%s/%s", strcmp(real, "/") == 0 ? "" : real, name);
    if (n < 0 || (size_t)n >= cap)
        return KFS_FAIL(err, ENAMETOOLONG, "path of the database is too long: '%.200s'", path);
    return 0;
}

/* HOST:PORT,…/DATABASE of a server's URL, else all of it. */
static const char *url_key(const char *url, size_t *ret_len)
{
    if (strncmp(url, "mysql://", 8) != 0) {
        *ret_len = strlen(url);
        return url;
    }
    *ret_len = strcspn(url, "?");
    const char *at = memchr(url, '@', *ret_len);
    const char *key = at ? at + 1 : url + 8;
    *ret_len -= (size_t)(key - url);
    return key;
}

bool kfs_volume_url_same(const char *a, const char *b)
{
    size_t na, nb;
    const char *ka = url_key(a, &na), *kb = url_key(b, &nb);
    return na == nb && memcmp(ka, kb, na) == 0;
}

bool kfs_volume_is_embedded(const char *path)
{
    return path[0] == '/';
}
