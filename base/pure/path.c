#include "base/pure/path.h"

#include <errno.h>
#include <string.h>

const char *kfs_path_next(const char **cursor, size_t *ret_len)
{
    const char *p = *cursor;
    while (*p == '/')
        p++;
    if (!*p) {
        *cursor = p;
        return NULL;
    }
    const char *start = p;
    while (*p && *p != '/')
        p++;
    *ret_len = (size_t)(p - start);
    while (*p == '/')
        p++;
    *cursor = p;
    return start;
}

int kfs_path_normalise(const char *path, char *buf, size_t cap)
{
    if (path[0] != '/')
        return -EINVAL;
    size_t n = 0, len;
    const char *c;
    while ((c = kfs_path_next(&path, &len))) {
        if (len == 1 && c[0] == '.')
            continue;
        if (len == 2 && c[0] == '.' && c[1] == '.') {
            while (n && buf[--n] != '/')
                ;
            continue;
        }
        if (cap < 2 || len > cap - 2 || n > cap - 2 - len)
            return -ENAMETOOLONG;
        buf[n++] = '/';
        memcpy(buf + n, c, len);
        n += len;
    }
    if (n == 0) {
        if (cap < 2)
            return -ENAMETOOLONG;
        buf[n++] = '/';
    }
    buf[n] = '\0';
    return (int)n;
}

bool kfs_path_under(const char *path, const char *prefix, size_t prefix_len)
{
    if (prefix_len == 1 && prefix[0] == '/')
        return path[0] == '/';
    return strncmp(path, prefix, prefix_len) == 0 &&
           (path[prefix_len] == '\0' || path[prefix_len] == '/');
}
