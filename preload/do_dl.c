/* preload/do_dl.c — dlopen of libraries in a volume
 *
 * What     ld.so opens files with system calls of its own, so it is given the cache file's name. What the library needs (DT_NEEDED) and finds beside it in the
 *          volume (DT_RUNPATH, DT_RPATH, $ORIGIN) is loaded first in the same way: ld.so then recognises it by its DT_SONAME and does not search.
 * Names    Same user: the cache file's own path, which never names anything else. Else /proc/self/fd/N with a descriptor that stays open for ever, because ld.so
 *          takes a name that it has seen for the same library; N is of a copy in memory where the cache file cannot be opened again by name.
 * Tail     What is not ours goes to the real dlopen by a jump: it looks at its return address for the caller's RUNPATH. So no variable of kfs_do_dlopen may
 *          have its address taken.
 * Absent   Libraries that ld.so itself looks for: DT_NEEDED of programs and of host libraries, LD_LIBRARY_PATH, names without a slash.
 */
#include "preload/inline.h"
#include "preload/libs.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOT_OURS ((void *)-1)
#define DEPTH_MAX 12
#define NS_NONE (-2) /* dlopen: the caller's namespace */

/* --- libraries that were opened through a descriptor ---------------------------------------------------------------------- */

#define KEPT_MAX 1024
static struct kept {
    uint64_t dev, ino; /* ino 0: free */
    int fd;
} kept[KEPT_MAX];

static int kept_find(uint64_t dev, uint64_t ino)
{
    for (int i = 0; i < KEPT_MAX; i++) {
        uint64_t have = __atomic_load_n(&kept[i].ino, __ATOMIC_ACQUIRE);
        if (!have)
            return -1;
        if (have == ino && kept[i].dev == dev)
            return kept[i].fd;
    }
    return -1;
}

static bool kept_has(int fd)
{
    for (int i = 0; i < KEPT_MAX && __atomic_load_n(&kept[i].ino, __ATOMIC_ACQUIRE); i++)
        if (kept[i].fd == fd)
            return true;
    return false;
}

static void kept_add(int fd, const struct stat *of)
{
    static int next;
    if (kept_has(fd))
        return;
    int i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
    if (i >= KEPT_MAX)
        return; /* its descriptor stays open all the same */
    kept[i].dev = of->st_dev;
    kept[i].fd = fd;
    __atomic_store_n(&kept[i].ino, of->st_ino, __ATOMIC_RELEASE);
}

static void fd_drop(int fd)
{
    kfs_pre_fd_unknown(fd);
    kfs_sys_close(fd);
}

static long fd_high(long fd)
{
    struct rlimit lim = {1024, 1024};
    kfs_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&lim);
    long from = lim.rlim_cur < 1024 ? (long)lim.rlim_cur / 2 : 512;
    long high = kfs_sys_fcntl((int)fd, F_DUPFD_CLOEXEC, from);
    if (high < 0)
        return fd;
    fd_drop((int)fd);
    return high;
}

static void fd_name(int fd, char *buf)
{
    static const char dir[] = "/proc/self/fd/";
    char digits[12];
    size_t n = sizeof dir - 1, k = 0;
    memcpy(buf, dir, n);
    do
        digits[k++] = (char)('0' + fd % 10);
    while ((fd /= 10));
    while (k)
        buf[n++] = digits[--k];
    buf[n] = '\0';
}

/* Another user's descriptor can be read but not opened again by name, which is what ld.so does: a copy in memory can. Takes fd over. */
static int readable(int fd, const struct stat *st)
{
    char name[32];
    fd_name(fd, name);
    if (kfs_sys3(SYS_faccessat, AT_FDCWD, (long)name, R_OK) == 0)
        return fd;
    long copy = kfs_sys3(SYS_memfd_create, (long)"library", 1 /* MFD_CLOEXEC */, 0);
    if (copy < 0)
        return fd;
    long off = 0, n = 1;
    while (n > 0 && off < st->st_size)
        n = kfs_sys4(SYS_sendfile, copy, fd, (long)&off, st->st_size - off);
    if (off < st->st_size) {
        kfs_sys_close((int)copy);
        return fd;
    }
    fd_drop(fd);
    return (int)copy;
}

/* A name for ld.so that means this file and never another. Takes fd over: the descriptor that must stay open if the load succeeds (of
 * *ret_st), or -1: none. */
static int name_lasting(int fd, char *buf, size_t cap, struct stat *ret_st)
{
    kfs_pre_fd_path(fd, buf, cap);
    /* A live file, w/INO, will be renamed, and its content may change under that name. */
    if (strncmp(buf, "/proc/self/fd/", 14) != 0 && strstr(buf, "/w/") == NULL)
        return -1;
    kfs_sys_fstat(fd, ret_st);
    int have = kept_find(ret_st->st_dev, ret_st->st_ino);
    if (have >= 0)
        fd_drop(fd);
    else
        have = (int)fd_high(readable(fd, ret_st));
    fd_name(have, buf);
    return have;
}

static void *load(long ns, const char *file, int flags)
{
    return ns == NS_NONE ? kfs_real.dlopen(file, flags) : kfs_real.dlmopen(ns, file, flags);
}

/* --- loading ------------------------------------------------------------------------------------------------------------------- */

struct chain { /* from the library in hand up to the one that was asked for */
    const struct chain *up;
    const char *path; /* as the application names it */
    const char *dirs;
    int depth;
};

static void *load_ours(long ns, const char *path, int flags, const struct chain *up);

/* Find `name` in the directories of c and load it when it lies in a volume. True: found there, or on the host where ld.so will find it. */
static bool need_in(long ns, const char *name, const struct chain *c, const struct chain *self)
{
    char path[KFS_PATH_MAX];
    for (const char *d = c->dirs; d && *d;) {
        size_t n = strcspn(d, ":");
        if (n && kfs_libs_candidate(c->path, d, n, name, path) && access(path, F_OK) == 0) {
            if (kfs_pre_maybe(AT_FDCWD, path)) {
                void *h = load_ours(ns, path, RTLD_LAZY | RTLD_LOCAL, self);
                /* Not closed: the library in hand takes its own reference when it is loaded, and libraries like these are not unloaded in practice. */
                (void)h;
            }
            return true;
        }
        d += n;
        d += *d == ':';
    }
    return false;
}

static void needs_load(long ns, const struct kfs_image *m, const struct chain *self)
{
    const char *name;
    for (size_t i = 0; (name = kfs_image_needed(m, i)); i++)
        for (const struct chain *c = self; c; c = c->up)
            if (need_in(ns, name, c, self))
                break;
}

static bool in_chain(const struct chain *c, const char *path)
{
    for (; c; c = c->up)
        if (strcmp(c->path, path) == 0)
            return true;
    return false;
}

/* The library at `path`, open as fd, which is taken over. */
static void *load_fd(long ns, const char *path, int fd, int flags, const struct chain *up)
{
    char name[KFS_PATH_MAX];
    struct kfs_image m;
    struct stat st = {0};
    bool rpath;
    struct chain self = {.up = up, .path = path, .depth = up ? up->depth + 1 : 0};
    if (!(flags & RTLD_NOLOAD) && self.depth < DEPTH_MAX && kfs_image_open(&m, fd)) {
        self.dirs = kfs_image_dirs(&m, &rpath);
        needs_load(ns, &m, &self);
        kfs_image_close(&m);
    }
    int keep = name_lasting(fd, name, sizeof name, &st);
    void *h = load(ns, name, flags);
    if (keep < 0)
        fd_drop(fd);
    else if (h)
        kept_add(keep, &st);
    else if (!kept_has(keep))
        fd_drop(keep);
    return h;
}

/* NOT_OURS, the handle, or NULL with libc's dlerror set. */
__attribute__((noinline)) static void *load_ours(long ns, const char *path, int flags,
                                                 const struct chain *up)
{
    struct kfs_loc loc;
    if (in_chain(up, path))
        return NULL;
    int w = kfs_pre_where(AT_FDCWD, path, &loc);
    if (w < 0 || w == KFS_HOST)
        return NOT_OURS; /* ld.so finds the error, and the words for it */
    long fd = KFS_PRE_GO_HOST;
    if (w == KFS_OURS)
        fd = kfs_pre_open_loc(&loc, O_RDONLY | O_CLOEXEC, 0, 0);
    if (fd == KFS_PRE_GO_HOST)
        return load(ns, loc.host, flags);
    if (fd == -ENOENT)
        return NOT_OURS;
    if (fd < 0) /* ld.so's message names the reason that opening this gives: ENOENT, EACCES … as near as it can be said */
        return load(ns, path, flags);
    return load_fd(ns, path, (int)fd, flags, up);
}

/* What is not ours goes to the real function by a jump. */
void *kfs_do_dlopen(const char *file, int flags)
{
    if (!file || !kfs_pre_vol_count)
        return kfs_real.dlopen(file, flags);
    if (!strchr(file, '/') || !kfs_pre_maybe(AT_FDCWD, file))
        return kfs_inline_dlopen(file, flags);
    void *h = load_ours(NS_NONE, file, flags, NULL);
    if (h == NOT_OURS)
        return kfs_inline_dlopen(file, flags);
    kfs_inline_loaded();
    return h;
}

void *kfs_do_dlmopen(long ns, const char *file, int flags)
{
    if (!file || !kfs_pre_vol_count || !strchr(file, '/'))
        return kfs_real.dlmopen(ns, file, flags);
    void *h = load_ours(ns, file, flags, NULL);
    if (h == NOT_OURS)
        return kfs_real.dlmopen(ns, file, flags);
    kfs_inline_loaded();
    return h;
}
