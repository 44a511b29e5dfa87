/* preload/prefix.c — is this path ours?
 *
 * Quick test  kfs_pre_maybe compares the first bytes of absolute paths with the prefixes, and looks for ".." (a word at a time): both are the only ways by which
 *             a host path can spell a volume without a symlink, besides a start directory inside or above one and the /proc names of descriptors.
 * Walker      walk() goes through the host's part of a path component by component, in text; before a ".." and, when asked, at each component it looks for host
 *             symlinks. It stops at a prefix: the rest belongs to the volume untouched, since ".." and symlinks inside are for the volume to resolve.
 */
#include "preload/guard.h"
#include "preload/shim.h"
#include "preload/real.h"
#include "base/pure/path.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct kfs_cwd kfs_pre_cwd;

static unsigned char second_byte[256]; /* may stand after the leading '/' of a path of interest */
static unsigned char last_byte[256];   /* may begin the last component of a prefix */
static bool on_host;                   /* some prefix exists on the host as well: hidden by us, but symlinks lead there */
static uint64_t cwd_count = 2;         /* another one after each chdir */
static kfs_ino_t cwd_parent;           /* of a cwd inside a volume, when it was entered: ".." still leads there after the directory was removed */
static bool cwd_below;                 /* the cwd lies in such a hidden directory */

void kfs_pre_prefix_init(void)
{
    for (int i = 0; i < kfs_pre_vol_count; i++)
        second_byte[(unsigned char)kfs_pre_vols[i].m.prefix[1]] = 1;
    second_byte['/'] = second_byte['.'] = 1;
    second_byte['p'] = second_byte['d'] = 1; /* /proc/self/fd, /dev/fd */
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        struct stat st;
        const char *prefix = kfs_pre_vols[i].m.prefix;
        last_byte[(unsigned char)strrchr(prefix, '/')[1]] = 1;
        on_host |= kfs_sys_fstatat(KFS_SYS_FDCWD, prefix, &st, 0) == 0;
    }
}

/* --- quick test ------------------------------------------------------------------------------------------------------ */
#define ONES 0x0101010101010101ULL
#define HIGHS 0x8080808080808080ULL

static inline uint64_t zero_bytes(uint64_t w)
{
    return (w - ONES) & ~w & HIGHS;
}

/* The first look at a path goes to its end: everything afterwards may read it plainly. */
enum scan { SCAN_PLAIN, SCAN_DOTS, SCAN_KERNEL }; /* has no ".."; may have; cannot be read, or is too long for any path: the kernel says so */

/* Aligned words never cross a page; what lies behind the NUL can only make the answer "may have". */
__attribute__((no_sanitize_address)) static inline enum scan scan(const char *s)
{
    uintptr_t a = (uintptr_t)s & ~(uintptr_t)7, end = a + KFS_PATH_MAX + 8;
    unsigned skip = (unsigned)((uintptr_t)s & 7) * 8;
    uint64_t bad = 0, w = kfs_guard_load((const void *)a, &bad);
    w |= skip ? (1ULL << skip) - 1 : 0; /* bytes before the string: 0xff */
    uint64_t carry = 0, found = 0;
    for (;;) {
        uint64_t dots = zero_bytes(w ^ (ONES * '.'));
        found |= dots & (dots << 8 | carry);
        if (zero_bytes(w)) /* also after a fault */
            return KFS_UNLIKELY(bad) ? SCAN_KERNEL : found ? SCAN_DOTS : SCAN_PLAIN;
        carry = dots >> 56;
        a += 8;
        if (KFS_UNLIKELY(a == end))
            return SCAN_KERNEL;
        w = kfs_guard_load((const void *)a, &bad);
    }
}

static bool has_dotdot(const char *s)
{
    return scan(s) != SCAN_PLAIN;
}

static inline bool starts(const char *s, const char *with, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] != with[i])
            return false;
    return true;
}

static inline bool proc_maybe(const char *p)
{
    if (p[1] == 'd')
        return starts(p, "/dev/fd/", 8) || starts(p, "/dev/std", 8);
    if (!starts(p, "/proc/", 6))
        return false;
    p += 6;
    if (starts(p, "self/", 5))
        p += 5;
    else if (starts(p, "thread-self/", 12))
        p += 12;
    else if (*p < '0' || *p > '9')
        return false;
    else
        return true;
    return starts(p, "fd/", 3) || starts(p, "cwd", 3) || *p == '/' || *p == '.';
}

/* Could this spell the prefix? Up to the first difference they agree; a doubled slash or a "." there keeps it open. */
static inline bool prefix_maybe(const char *p, const struct kfs_mount *m)
{
    for (size_t i = 1; i < m->prefix_len; i++)
        if (p[i] != m->prefix[i])
            return p[i - 1] == '/' && (p[i] == '/' || p[i] == '.');
    char c = p[m->prefix_len];
    return c == '/' || c == 0;
}

/* Does the path name the last component of a prefix? Without it no walk over host directories steps into one, unless by a symlink. */
static bool names_prefix(const char *p)
{
    while (*p) {
        while (*p == '/')
            p++;
        if (last_byte[(unsigned char)*p])
            for (int i = 0; i < kfs_pre_vol_count; i++) {
                const struct kfs_mount *m = &kfs_pre_vols[i].m;
                const char *last = m->prefix + m->prefix_len;
                while (last[-1] != '/')
                    last--;
                size_t n = (size_t)(m->prefix + m->prefix_len - last), k = 0;
                while (k < n && p[k] == last[k])
                    k++;
                if (k == n && (p[n] == '/' || !p[n]))
                    return true;
            }
        while (*p && *p != '/')
            p++;
    }
    return false;
}

static inline bool absolute_maybe(const char *p, bool dots)
{
    if (KFS_UNLIKELY(second_byte[(unsigned char)p[1]])) {
        for (int i = 0; i < kfs_pre_vol_count; i++)
            if (prefix_maybe(p, &kfs_pre_vols[i].m))
                return true;
        if ((p[1] == 'p' || p[1] == 'd') && proc_maybe(p))
            return true;
    }
    return KFS_UNLIKELY(dots) && names_prefix(p);
}

bool kfs_pre_near_prefix(const char *path)
{
    size_t n = strlen(path);
    if (n == 1)
        return true;
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        const struct kfs_mount *m = &kfs_pre_vols[i].m;
        if (kfs_path_under(m->prefix, path, n) || kfs_path_under(path, m->prefix, m->prefix_len))
            return true;
    }
    return false;
}

/* --- descriptors' names ------------------------------------------------------------------------------------------------ */
static bool digits_get(const char **p, int *ret)
{
    long v = 0;
    const char *s = *p;
    if (*s < '0' || *s > '9')
        return false;
    for (; *s >= '0' && *s <= '9' && v < 100000000; s++)
        v = v * 10 + (*s - '0');
    *p = s;
    *ret = (int)v;
    return true;
}

static const char *slashes(const char *p)
{
    while (*p == '/')
        p++;
    return p;
}

static const char *proc_self(const char *path)
{
    int pid;
    if (!starts(path, "/proc/", 6))
        return NULL;
    const char *p = slashes(path + 6);
    if (starts(p, "self/", 5))
        return slashes(p + 5);
    if (starts(p, "thread-self/", 12))
        return slashes(p + 12);
    if (digits_get(&p, &pid) && *p == '/' && pid == kfs_sys_getpid())
        return slashes(p);
    return NULL;
}

bool kfs_pre_magic(const char *path, int *ret_fd, const char **ret_rest)
{
    int fd;
    const char *p;
    if (!path || path[0] != '/' || (path[1] != 'p' && path[1] != 'd'))
        return false;
    if (starts(path, "/dev/std", 8)) {
        static const char *const names[] = {"in", "out", "err"};
        for (fd = 0; fd < 3; fd++)
            if (strcmp(path + 8, names[fd]) == 0) {
                *ret_fd = fd;
                *ret_rest = path + strlen(path);
                return true;
            }
        return false;
    }
    if (starts(path, "/dev/fd/", 8)) {
        p = slashes(path + 8);
    } else {
        p = proc_self(path);
        if (!p)
            return false;
        if (starts(p, "cwd", 3) && (p[3] == 0 || p[3] == '/')) {
            *ret_fd = AT_FDCWD;
            *ret_rest = p + 3;
            return true;
        }
        if (!starts(p, "fd/", 3))
            return false;
        p = slashes(p + 3);
    }
    if (!digits_get(&p, &fd) || (*p && *p != '/'))
        return false;
    *ret_fd = fd;
    *ret_rest = p;
    return true;
}

/* --- the walker ------------------------------------------------------------------------------------------------------------ */
/* Put `target/rest` into loc->host, from where rest may come itself. */
static int put_target(struct kfs_loc *loc, const char *target, size_t target_len, const char *rest)
{
    size_t n = strlen(rest);
    if (target_len + 1 + n + 1 > sizeof loc->host)
        return -ENAMETOOLONG;
    memmove(loc->host + target_len + 1, rest, n + 1);
    memcpy(loc->host, target, target_len);
    loc->host[target_len] = '/';
    if (!n)
        loc->host[target_len] = 0;
    return 0;
}

static struct kfs_vol *vol_at(const char *path, size_t len)
{
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        const struct kfs_mount *m = &kfs_pre_vols[i].m;
        if (m->prefix_len == len && memcmp(m->prefix, path, len) == 0)
            return &kfs_pre_vols[i];
    }
    return NULL;
}

/* The volume whose prefix the path begins with, as it is spelled. */
static struct kfs_vol *vol_before(const char *path)
{
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        const struct kfs_mount *m = &kfs_pre_vols[i].m;
        if (starts(path, m->prefix, m->prefix_len) && (path[m->prefix_len] == '/' || !path[m->prefix_len]))
            return &kfs_pre_vols[i];
    }
    return NULL;
}

struct walk {
    char at[KFS_PATH_MAX]; /* where we are: normalised, no trailing slash; "" is the root */
    size_t len;
    size_t real; /* that much of it came from the kernel: no symlinks */
    const char *rest;
    bool moved; /* a host symlink was followed: the result has another name */
};

/* The target of the symlink at w->at into buf; 0 none. */
static long link_at(struct walk *w, char *buf)
{
    w->at[w->len] = 0;
    long n = w->len ? kfs_sys_readlinkat(KFS_SYS_FDCWD, w->at, buf, KFS_PATH_MAX - 1) : 0;
    return n > 0 ? n : 0;
}

/* w->at is a symlink with this target: go there. */
static int follow_link(struct walk *w, struct kfs_loc *loc, const char *target, size_t n)
{
    if (++loc->hops > KFS_SYMLOOP_MAX)
        return -ELOOP;
    int r = put_target(loc, target, n, w->rest);
    if (r < 0)
        return r;
    w->rest = loc->host;
    w->moved = true;
    if (target[0] == '/')
        w->len = 0;
    else
        while (w->len && w->at[--w->len] != '/')
            ;
    w->real = w->len < w->real ? w->len : w->real;
    return 0;
}

static int go_up(struct walk *w, struct kfs_loc *loc, bool *ret_again, const char *comp)
{
    char target[KFS_PATH_MAX];
    long n = w->len > w->real ? link_at(w, target) : 0;
    *ret_again = false;
    if (n) { /* "link/..": the parent of where it leads */
        w->rest = comp;
        *ret_again = true;
        return follow_link(w, loc, target, (size_t)n);
    }
    while (w->len && w->at[--w->len] != '/')
        ;
    w->real = w->len < w->real ? w->len : w->real;
    return 0;
}

/* Where w->at is a prefix: ours. links: look at every component; last: also at the last one. */
static int walk(struct walk *w, struct kfs_loc *loc, bool links, bool last)
{
    char target[KFS_PATH_MAX];
    size_t n;
    for (;;) {
        struct kfs_vol *v = w->len ? vol_at(w->at, w->len) : NULL;
        if (v) {
            loc->vol = v;
            loc->base = v->root;
            loc->rel = slashes(w->rest);
            return KFS_OURS;
        }
        w->rest = slashes(w->rest);
        const char *comp = w->rest;
        const char *name = kfs_path_next(&w->rest, &n);
        if (!name)
            return KFS_HOST;
        if (n == 1 && name[0] == '.')
            continue;
        if (n == 2 && name[0] == '.' && name[1] == '.') {
            bool again;
            int r = go_up(w, loc, &again, comp);
            if (r < 0)
                return r;
            continue;
        }
        if (w->len + n + 2 > sizeof w->at)
            return -ENAMETOOLONG;
        w->at[w->len] = '/';
        memcpy(w->at + w->len + 1, name, n);
        w->len += n + 1;
        if (!links || (!last && !*w->rest))
            continue;
        if (vol_at(w->at, w->len))
            continue;
        long t = link_at(w, target);
        int r = t ? follow_link(w, loc, target, (size_t)t) : 0;
        if (r < 0)
            return r;
    }
}

/* Where the walk ended, as a host path in loc->host. */
static int host_at(struct walk *w, struct kfs_loc *loc)
{
    if (!w->len)
        w->at[w->len++] = '/';
    memcpy(loc->host, w->at, w->len);
    loc->host[w->len] = 0;
    return KFS_HOST_AT;
}

/* Start of a relative walk: the host path of dirfd (or the cwd). False: it is no host directory, or cannot be named. */
static bool start_at(struct walk *w, int dirfd)
{
    static const char fd_dir[] = "/proc/self/fd/";
    char name[32] = "/proc/self/cwd";
    if (dirfd != AT_FDCWD) {
        char digits[12];
        int n = 0;
        unsigned u = (unsigned)dirfd;
        char *p = name + sizeof fd_dir - 1;
        memcpy(name, fd_dir, sizeof fd_dir);
        do
            digits[n++] = (char)('0' + u % 10);
        while (u /= 10);
        while (n)
            *p++ = digits[--n];
        *p = 0;
    }
    long n = kfs_sys_readlinkat(KFS_SYS_FDCWD, name, w->at, sizeof w->at - 1);
    if (n <= 0 || w->at[0] != '/')
        return false;
    w->real = w->len = n == 1 ? 0 : (size_t)n;
    return true;
}

/* --- host symlinks ------------------------------------------------------------------------------------------------------------ */
#define PLAIN_ROWS 512
#define PLAIN_VALID_NS 1000000000ULL /* a symlink that another process makes may be overlooked that long, after a miss beside it */
static struct {
    uint64_t hash, until_ns;
} plain[PLAIN_ROWS];

static bool plain_known(uint64_t hash, uint64_t now)
{
    unsigned at = (unsigned)hash & (PLAIN_ROWS - 1);
    return __atomic_load_n(&plain[at].hash, __ATOMIC_RELAXED) == hash && now < __atomic_load_n(&plain[at].until_ns, __ATOMIC_RELAXED);
}

static bool plain_note(uint64_t hash, uint64_t now)
{
    unsigned at = (unsigned)hash & (PLAIN_ROWS - 1);
    if (!kfs_pre_in_vfork) {
        __atomic_store_n(&plain[at].until_ns, now + PLAIN_VALID_NS, __ATOMIC_RELAXED);
        __atomic_store_n(&plain[at].hash, hash, __ATOMIC_RELAXED);
    }
    return true;
}

/* Where an open directory or file of the host really lies: below a prefix? */
static bool fd_hidden(int fd)
{
    struct walk w;
    if (!start_at(&w, fd))
        return false;
    w.at[w.len] = 0;
    for (int i = 0; i < kfs_pre_vol_count; i++)
        if (kfs_path_under(w.at, kfs_pre_vols[i].m.prefix, kfs_pre_vols[i].m.prefix_len))
            return true;
    return false;
}

/* Does this host directory, by symlinks, lie in one that a prefix hides? */
static bool dir_hidden(int dirfd, const char *path, size_t len, uint64_t seed, uint64_t now)
{
    char dir[KFS_PATH_MAX];
    uint64_t hash = kfs_hash(path, len, seed);
    if (len >= sizeof dir || (seed && plain_known(hash, now)))
        return false;
    memcpy(dir, path, len);
    dir[len] = 0;
    long fd = kfs_sys_openat(dirfd, dir, O_PATH | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool hidden = fd_hidden((int)fd);
    kfs_sys_close((int)fd);
    if (!hidden && seed)
        plain_note(hash, now);
    return hidden;
}

/* Only when a prefix exists on the host as well: the kernel would follow a host symlink into the directory that the prefix hides, so that must be known
 * before the call. Answers are kept for a second by the path's hash; system directories are taken to hold no such symlinks. */
__attribute__((noinline)) static bool leads_hidden(int dirfd, const char *path)
{
    char c;
    bool absolute = path[0] == '/';
    if (absolute && (starts(path, "/usr/", 5) || starts(path, "/lib", 4) || starts(path, "/proc/", 6) || starts(path, "/sys/", 5) || starts(path, "/dev/", 5)))
        return false;
    size_t len = strnlen(path, KFS_PATH_MAX);
    uint64_t seed = absolute ? 1 : dirfd == AT_FDCWD ? cwd_count : 0, now = kfs_pre_now_ns(true);
    uint64_t hash = kfs_hash(path, len, seed);
    if (!len || (seed && plain_known(hash, now)))
        return false;
    long r = kfs_sys_readlinkat(dirfd, path, &c, 1);
    if (r > 0)
        return dir_hidden(dirfd, path, len, seed, now);
    const char *slash = strrchr(path, '/');
    if (slash && slash != path && dir_hidden(dirfd, path, (size_t)(slash - path), seed, now))
        return true;
    if (r == -EINVAL && seed)
        plain_note(hash, now);
    return false;
}

static inline bool spells_prefix(int dirfd, const char *path, bool dots)
{
    if (path[0] == '/')
        return absolute_maybe(path, dots);
    if (dirfd == AT_FDCWD)
        return kfs_pre_cwd.vol || kfs_pre_in_vfork || ((kfs_pre_cwd.above || dots) && (cwd_below || names_prefix(path)));
    if (kfs_pre_fd_maybe(dirfd))
        return true;
    return (kfs_pre_fd_at_maybe(dirfd) || dots) && (on_host || names_prefix(path));
}

bool kfs_pre_maybe(int dirfd, const char *path)
{
    if (!kfs_pre_vol_count)
        return false;
    if (!path)
        return dirfd != AT_FDCWD && kfs_pre_fd_maybe(dirfd);
    enum scan s = scan(path);
    if (KFS_UNLIKELY(s == SCAN_KERNEL))
        return false;
    return spells_prefix(dirfd, path, s == SCAN_DOTS) || (KFS_UNLIKELY(on_host) && leads_hidden(dirfd, path));
}

/* The process's, or in a vfork child, which may have its own and must not write, a fresh look. */
static struct kfs_cwd cwd_look(void)
{
    char link[KFS_PATH_MAX];
    struct kfs_fdinfo i;
    struct kfs_cwd cwd = {0};
    long n = kfs_sys_readlinkat(KFS_SYS_FDCWD, "/proc/self/cwd", link, sizeof link - 1);
    if (n <= 0)
        return cwd;
    link[n] = 0;
    if (kfs_pre_cache_name(link, (size_t)n, &i) && i.kind == KFS_FD_DIR) {
        cwd.vol = i.vol;
        cwd.ino = i.ino;
    } else {
        cwd.above = kfs_pre_near_prefix(link);
    }
    return cwd;
}

static struct kfs_cwd cwd_now(void)
{
    return kfs_pre_in_vfork ? cwd_look() : kfs_pre_cwd;
}

void kfs_pre_cwd_refresh(void)
{
    struct kfs_cwd cwd = cwd_look();
    if (kfs_pre_in_vfork)
        return;
    kfs_pre_cwd = cwd;
    cwd_below = cwd.above && on_host;
    cwd_count++;
    struct kfs_attr a;
    bool known = cwd.vol && __atomic_load_n(&cwd.vol->attached, __ATOMIC_ACQUIRE) && kfs_pre_attr(cwd.vol, cwd.ino, &a);
    cwd_parent = known ? a.parent : 0;
}

static int where_magic(int fd, const char *rest, struct kfs_loc *loc)
{
    struct kfs_fdinfo i;
    if (fd == AT_FDCWD) {
        struct kfs_cwd cwd = cwd_now();
        if (!cwd.vol)
            return KFS_HOST;
        loc->vol = cwd.vol;
        loc->base = cwd.ino;
    } else {
        if (!kfs_pre_fd(fd, &i))
            return KFS_HOST;
        if (*rest && i.kind != KFS_FD_DIR)
            return -ENOTDIR;
        loc->vol = i.vol;
        loc->base = i.ino;
    }
    loc->rel = slashes(rest);
    return KFS_OURS;
}

static __thread int late __attribute__((tls_model("initial-exec"))); /* 0, 1 links on the way, 2 also the last */

/* "..[/…]" from a working directory that was removed. */
static bool up_from_removed(const struct kfs_cwd *cwd, const char *path, struct kfs_loc *loc)
{
    struct kfs_attr a;
    struct kfs_call c;
    if (path[0] != '.' || path[1] != '.' || (path[2] && path[2] != '/') || !cwd_parent || kfs_pre_in_vfork)
        return false;
    if (kfs_pre_attr(cwd->vol, cwd->ino, &a) && a.nlink)
        return false;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_LOOKUP;
    c.req.ino = cwd->ino;
    c.path = "..";
    if (kfs_pre_rpc(cwd->vol, &c) != -ENOENT)
        return false;
    loc->vol = cwd->vol;
    loc->base = cwd_parent;
    loc->rel = slashes(path + 2);
    return true;
}

static int where_relative(int dirfd, const char *path, struct kfs_loc *loc, struct walk *w, bool links)
{
    struct kfs_fdinfo i;
    if (dirfd == AT_FDCWD) {
        struct kfs_cwd cwd = cwd_now();
        if (cwd.vol && up_from_removed(&cwd, path, loc))
            return KFS_OURS;
        if (cwd.vol) {
            loc->vol = cwd.vol;
            loc->base = cwd.ino;
            loc->rel = path;
            return KFS_OURS;
        }
        if (!cwd.above && !links && !has_dotdot(path))
            return KFS_HOST;
    } else {
        if (kfs_pre_fd(dirfd, &i)) {
            if (i.kind != KFS_FD_DIR)
                return -ENOTDIR;
            loc->vol = i.vol;
            loc->base = i.ino;
            loc->rel = path;
            return KFS_OURS;
        }
        if (!kfs_pre_fd_above(dirfd) && !links && !has_dotdot(path))
            return KFS_HOST;
    }
    return start_at(w, dirfd) ? 1000 : KFS_HOST;
}

static int where(int dirfd, const char *path, struct kfs_loc *loc, bool links, bool last)
{
    struct walk w;
    int fd;
    const char *rest;
    loc->hops = 0;
    long len = kfs_guard_strlen(path, KFS_PATH_MAX);
    if (len <= 0 || len >= KFS_PATH_MAX)
        return len < 0 ? -EFAULT : len ? -ENAMETOOLONG : -ENOENT;
    w.len = w.real = 0;
    w.rest = path;
    w.moved = false;
    if (path[0] != '/') {
        int r = where_relative(dirfd, path, loc, &w, links);
        if (r != 1000)
            return r;
    } else if (kfs_pre_magic(path, &fd, &rest)) {
        return where_magic(fd, rest, loc);
    }
    struct kfs_vol *v = path[0] == '/' ? vol_before(path) : NULL;
    if (v) {
        loc->vol = v;
        loc->base = v->root;
        loc->rel = slashes(path + v->m.prefix_len);
        return KFS_OURS;
    }
    int r = walk(&w, loc, links, last);
    if (r == -ELOOP || r == -ENAMETOOLONG)
        return KFS_HOST; /* the kernel finds the same */
    return r;
}

int kfs_pre_where(int dirfd, const char *path, struct kfs_loc *loc)
{
    return where(dirfd, path, loc, late > 0 || on_host, late > 1 || on_host);
}

int kfs_pre_where_nofollow(int dirfd, const char *path, struct kfs_loc *loc)
{
    int fd;
    const char *rest;
    if (kfs_guard_strlen(path, KFS_PATH_MAX) < 0)
        return -EFAULT;
    if (kfs_pre_magic(path, &fd, &rest) && !*rest)
        return KFS_HOST;
    return where(dirfd, path, loc, late > 0 || on_host, false);
}

int kfs_pre_escape(struct kfs_loc *loc, int status, const char *data, size_t len)
{
    struct walk w;
    char text[KFS_PATH_MAX];
    if (++loc->hops > KFS_SYMLOOP_MAX)
        return -ELOOP;
    if (len >= sizeof text)
        return -ENAMETOOLONG;
    memcpy(text, data, len);
    text[len] = 0;
    memcpy(loc->host, text, len + 1);
    w.len = w.real = 0;
    w.rest = loc->host;
    w.moved = true;
    if (status == KFS_WIRE_ESCAPE_UP) {
        w.len = loc->vol->m.prefix_len;
        memcpy(w.at, loc->vol->m.prefix, w.len);
        while (w.len && w.at[--w.len] != '/')
            ;
    } else {
        int fd;
        const char *rest;
        if (kfs_pre_magic(loc->host, &fd, &rest)) {
            int r = where_magic(fd, rest, loc);
            return r == KFS_HOST ? KFS_HOST_AT : r;
        }
    }
    int r = walk(&w, loc, true, false);
    return r == KFS_HOST ? host_at(&w, loc) : r;
}

int kfs_pre_host_symlink(int dirfd, const char *path, bool follow_last, struct kfs_loc *loc)
{
    return where(dirfd, path, loc, true, follow_last);
}

/* --- after ENOENT ------------------------------------------------------------------------------------------------------------ */
/* The parent exists on the host and does not lie below a prefix there: only the last component can lead away. */
static bool parent_plain(const char *path, size_t len)
{
    char dir[KFS_PATH_MAX];
    uint64_t now = kfs_pre_now_ns(true), hash = kfs_hash(path, len, 1);
    if (plain_known(hash, now))
        return true;
    memcpy(dir, path, len);
    dir[len] = 0;
    if (!on_host) { /* no directory of the host hides behind a prefix: one that exists here is the host's */
        char c;
        if (kfs_sys_readlinkat(KFS_SYS_FDCWD, dir, &c, 1) != -EINVAL)
            return false;
        return plain_note(hash, now);
    }
    long fd = kfs_sys_openat(KFS_SYS_FDCWD, dir, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool hidden = fd_hidden((int)fd);
    kfs_sys_close((int)fd);
    if (hidden)
        return false;
    return plain_note(hash, now);
}

bool kfs_pre_late(int dirfd, const char *path, bool follow_last)
{
    struct kfs_loc loc;
    char buf[8];
    if (!kfs_pre_vol_count || late || !path || !*path)
        return false;
    if (!follow_last || kfs_sys_readlinkat(dirfd, path, buf, sizeof buf) < 0) {
        const char *slash = strrchr(path, '/');
        if (path[0] != '/' && !slash)
            return false; /* in a host directory, and not a symlink */
        if (path[0] == '/' && (slash == path || (slash[1] && parent_plain(path, (size_t)(slash - path)))))
            return false;
    }
    if (kfs_pre_host_symlink(dirfd, path, follow_last, &loc) != KFS_OURS)
        return false;
    late = follow_last ? 2 : 1;
    return true;
}

void kfs_pre_late_end(void)
{
    late = 0;
}
