#include "base/pure/mounts.h"

#include "base/pure/path.h"
#include <errno.h>
#include <string.h>

/* The three characters that separate, and how they are written inside a field. */
static const char *escape_of(char c)
{
    return c == '%' ? "%25" : c == ';' ? "%3B" : c == '|' ? "%7C" : NULL;
}

/* Decode up to an unescaped '|', ';' or NUL into buf. The number of bytes, or -1: too long, or an escape that is none of the three. */
static long field_get(const char **cursor, char *buf, size_t cap)
{
    const char *p = *cursor;
    size_t n = 0;
    while (*p && *p != '|' && *p != ';') {
        char c = *p++;
        if (c == '%') {
            c = p[0] == '2' && p[1] == '5'                                  ? '%'
                : p[0] == '3' && (p[1] == 'B' || p[1] == 'b')               ? ';'
                : p[0] == '7' && (p[1] == 'C' || p[1] == 'c')               ? '|'
                                                                            : '\0';
            if (!c)
                return -1;
            p += 2;
        }
        if (n + 1 >= cap)
            return -1;
        buf[n++] = c;
    }
    buf[n] = '\0';
    *cursor = p;
    return (long)n;
}

static bool prefix_ok(const char *prefix, size_t len)
{
    char norm[sizeof((struct kfs_mount *)0)->prefix];
    return len > 1 && kfs_path_normalise(prefix, norm, sizeof norm) == (int)len &&
           memcmp(prefix, norm, len) == 0;
}

/* Lines, each an absolute path. */
static bool dirs_ok(const char *p)
{
    for (const char *end; *p; p = end + 1)
        if (*p != '/' || !(end = strchr(p, '\n')))
            return false;
    return true;
}

static bool entry_get(const char **cursor, struct kfs_mount *m)
{
    char commit[16];
    struct {
        char *buf;
        size_t cap;
        long len;
    } f[6] = {{m->prefix, sizeof m->prefix, 0},
              {m->socket, sizeof m->socket, 0},
              {m->cache_dir, sizeof m->cache_dir, 0},
              {m->url, sizeof m->url, 0},
              {commit, sizeof commit, 0},
              {m->more_dirs, sizeof m->more_dirs, 0}};
    m->more_dirs[0] = 0;
    for (int i = 0; i < 6; i++) {
        f[i].len = field_get(cursor, f[i].buf, f[i].cap);
        bool more = **cursor == '|';
        if (f[i].len < 0 || (i < 4 && !more) || (i == 5 && more))
            return false;
        if (!more)
            break;
        ++*cursor;
    }
    m->prefix_len = (size_t)f[0].len;
    m->cache_dir_len = (size_t)f[2].len;
    m->session = strcmp(commit, "session") == 0;
    return prefix_ok(m->prefix, m->prefix_len) && (m->session || strcmp(commit, "close") == 0) && dirs_ok(m->more_dirs);
}

int kfs_mounts_next(const char **cursor, struct kfs_mount *ret)
{
    while (**cursor == ';')
        ++*cursor;
    if (!**cursor)
        return 0;
    if (entry_get(cursor, ret))
        return 1;
    *cursor += strlen(*cursor);
    return -EINVAL;
}

/* Append s to buf[*n]; escaped unless raw. */
static bool put(char *buf, size_t cap, size_t *n, const char *s, bool raw)
{
    for (; *s; s++) {
        const char *esc = raw ? NULL : escape_of(*s);
        size_t k = esc ? 3 : 1;
        if (*n + k >= cap)
            return false;
        memcpy(buf + *n, esc ? esc : s, k);
        *n += k;
    }
    return true;
}

int kfs_mounts_append(char *buf, size_t cap, const struct kfs_mount *m)
{
    size_t start = strlen(buf), n = start;
    bool ok = (start == 0 || put(buf, cap, &n, ";", true)) && put(buf, cap, &n, m->prefix, false) &&
              put(buf, cap, &n, "|", true) && put(buf, cap, &n, m->socket, false) &&
              put(buf, cap, &n, "|", true) && put(buf, cap, &n, m->cache_dir, false) &&
              put(buf, cap, &n, "|", true) && put(buf, cap, &n, m->url, false) &&
              put(buf, cap, &n, "|", true) &&
              put(buf, cap, &n, m->session ? "session" : "close", true) &&
              (!m->more_dirs[0] || (put(buf, cap, &n, "|", true) && put(buf, cap, &n, m->more_dirs, false)));
    if (!ok)
        n = start;
    buf[n] = '\0';
    return ok ? 0 : -ENAMETOOLONG;
}
