/* preload/do_fts.c — libc's file tree walker (fts_open and kin)
 *
 * What     A walker of our own for trees that begin in or near a volume: libc's calls the kernel directly. It works through the exported functions by their names, so a
 *          mixed tree is served as well. A FTS of ours is a slot of a pool: its address tells it from libc's.
 * Model    4.4BSD's: entries are read a directory at a time, sorted by the caller's function, visited depth first. FTSENT and FTS are libc's public structures.
 * Absent   The working directory never changes (as with FTS_NOCHDIR); fts_accpath is right all the same, since it is the whole path. Paths beyond PATH_MAX: ENAMETOOLONG.
 * Memory   Entries are malloc'ed, as libc's are.
 */
#include "preload/mempool.h"
#include "preload/real.h"
#include "preload/shim.h"
#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAMES_ONLY 0x100 /* in fts_options: the child list was built by fts_children(FTS_NAMEONLY) */
#define STOPPED 0x200
#define OPTIONS 0xff

enum build { BUILD_CHILD, BUILD_NAMES, BUILD_READ };

struct walker {
    FTS pub;
    char path[KFS_PATH_MAX + KFS_NAME_MAX + 2];
};

static struct kfs_pool pool = {.slot_bytes = 8192};
static_assert(sizeof(struct walker) <= 8192, "a slot holds a walker");

static struct walker *ours(void *fts)
{
    return kfs_pool_owns(&pool, fts) ? fts : NULL;
}

/* --- entries ------------------------------------------------------------------------------------------------------------ */

static FTSENT *entry_new(struct walker *w, const char *name, size_t len)
{
    size_t at = (sizeof(FTSENT) + len + 15) & ~(size_t)15;
    FTSENT *e = malloc(at + sizeof(struct stat));
    if (!e)
        return NULL;
    memset(e, 0, at);
    memcpy(e->fts_name, name, len);
    e->fts_namelen = (unsigned short)len;
    e->fts_path = w->pub.fts_path;
    e->fts_statp = (w->pub.fts_options & FTS_NOSTAT) ? NULL : (struct stat *)(void *)((char *)e + at);
    e->fts_instr = FTS_NOINSTR;
    return e;
}

static void entries_free(FTSENT *e)
{
    while (e) {
        FTSENT *next = e->fts_link;
        free(e);
        e = next;
    }
}

static unsigned short entry_look(struct walker *w, FTSENT *e, bool follow)
{
    struct stat room = {0};
    struct stat *st = e->fts_statp ? e->fts_statp : &room;
    int r;
    if ((w->pub.fts_options & FTS_LOGICAL) || follow) {
        r = stat(e->fts_accpath, st);
        if (r < 0) {
            int saved = errno;
            if (lstat(e->fts_accpath, st) == 0) {
                errno = 0;
                return FTS_SLNONE;
            }
            errno = saved;
        }
    } else {
        r = lstat(e->fts_accpath, st);
    }
    if (r < 0) {
        e->fts_errno = errno;
        memset(st, 0, sizeof *st);
        return FTS_NS;
    }
    if (S_ISDIR(st->st_mode)) {
        e->fts_dev = st->st_dev;
        e->fts_ino = st->st_ino;
        e->fts_nlink = st->st_nlink;
        const char *n = e->fts_name;
        if (n[0] == '.' && (n[1] == '\0' || (n[1] == '.' && n[2] == '\0')))
            return FTS_DOT;
        for (FTSENT *t = e->fts_parent; t->fts_level >= FTS_ROOTLEVEL; t = t->fts_parent) {
            if (t->fts_ino != e->fts_ino || t->fts_dev != e->fts_dev)
                continue;
            e->fts_cycle = t;
            return FTS_DC;
        }
        return FTS_D;
    }
    return S_ISLNK(st->st_mode) ? FTS_SL : S_ISREG(st->st_mode) ? FTS_F : FTS_DEFAULT;
}

static FTSENT *entries_sort(struct walker *w, FTSENT *head, size_t n)
{
    FTSENT **v = malloc(n * sizeof *v);
    if (!v)
        return head;
    size_t i = 0;
    for (FTSENT *e = head; e; e = e->fts_link)
        v[i++] = e;
    qsort(v, n, sizeof *v, (int (*)(const void *, const void *))(void *)w->pub.fts_compar);
    for (i = 0; i + 1 < n; i++)
        v[i]->fts_link = v[i + 1];
    v[n - 1]->fts_link = NULL;
    head = v[0];
    free(v);
    return head;
}

/* --- the path buffer --------------------------------------------------------------------------------------------------------- */

static size_t dir_len(const FTSENT *e)
{
    return e->fts_path[e->fts_pathlen - 1] == '/' ? e->fts_pathlen - 1u : e->fts_pathlen;
}

/* Parent's path, a slash, the name. */
static void path_put(struct walker *w, const FTSENT *e)
{
    size_t n = e->fts_parent->fts_level < FTS_ROOTLEVEL ? 0 : dir_len(e->fts_parent);
    if (n || e->fts_parent->fts_level >= FTS_ROOTLEVEL)
        w->path[n++] = '/';
    memcpy(w->path + n, e->fts_name, e->fts_namelen + 1u);
}

/* A start becomes the current entry: its path is the argument, its name the last part of it. */
static void root_load(struct walker *w, FTSENT *e)
{
    memcpy(w->path, e->fts_name, e->fts_namelen + 1u);
    e->fts_pathlen = e->fts_namelen;
    char *slash = strrchr(e->fts_name, '/');
    if (slash && (slash != e->fts_name || slash[1])) {
        size_t n = strlen(++slash);
        memmove(e->fts_name, slash, n + 1);
        e->fts_namelen = (unsigned short)n;
    }
    e->fts_accpath = e->fts_path = w->path;
    w->pub.fts_dev = e->fts_dev;
}

/* --- reading a directory --------------------------------------------------------------------------------------------------------- */

/* 0, or an errno. */
static int entries_read(struct walker *w, FTSENT *cur, DIR *d, enum build type, FTSENT **ret, size_t *ret_n)
{
    FTSENT **tail = ret;
    const struct dirent *de;
    size_t at = dir_len(cur);
    bool lazy = (w->pub.fts_options & FTS_NOSTAT) && (w->pub.fts_options & FTS_PHYSICAL);
    w->path[at++] = '/';
    while ((errno = 0, de = readdir(d))) {
        size_t n = strlen(de->d_name);
        bool dots = de->d_name[0] == '.' && (n == 1 || (n == 2 && de->d_name[1] == '.'));
        if (dots && !(w->pub.fts_options & FTS_SEEDOT))
            continue;
        if (at + n >= KFS_PATH_MAX)
            return ENAMETOOLONG;
        FTSENT *e = entry_new(w, de->d_name, n);
        if (!e)
            return ENOMEM;
        e->fts_level = (short)(cur->fts_level + 1);
        e->fts_parent = cur;
        e->fts_pathlen = (unsigned short)(at + n);
        e->fts_accpath = e->fts_path;
        memcpy(w->path + at, de->d_name, n + 1);
        bool plain = lazy && de->d_type != DT_DIR && de->d_type != DT_UNKNOWN;
        e->fts_info = type == BUILD_NAMES || plain ? FTS_NSOK : entry_look(w, e, false);
        *tail = e;
        tail = &e->fts_link;
        ++*ret_n;
    }
    return errno;
}

static FTSENT *build(struct walker *w, enum build type)
{
    FTSENT *cur = w->pub.fts_cur, *head = NULL;
    size_t n = 0;
    DIR *d = opendir(cur->fts_accpath);
    if (!d) {
        if (type == BUILD_READ) {
            cur->fts_info = FTS_DNR;
            cur->fts_errno = errno;
        }
        return NULL;
    }
    int err = entries_read(w, cur, d, type, &head, &n);
    closedir(d);
    w->path[cur->fts_pathlen] = '\0';
    if (err) {
        entries_free(head);
        cur->fts_info = FTS_ERR;
        cur->fts_errno = err;
        if (err == ENOMEM || err == ENAMETOOLONG)
            w->pub.fts_options |= STOPPED;
        errno = err;
        return NULL;
    }
    if (n == 0) {
        if (type == BUILD_READ)
            cur->fts_info = FTS_DP;
        return NULL;
    }
    return w->pub.fts_compar && n > 1 ? entries_sort(w, head, n) : head;
}

/* --- the calls ------------------------------------------------------------------------------------------------------------------------ */

static void walker_free(struct walker *w)
{
    FTSENT *e = w->pub.fts_cur;
    while (e && e->fts_level >= FTS_ROOTLEVEL) { /* what is left beside and above the current entry */
        FTSENT *next = e->fts_link ? e->fts_link : e->fts_parent;
        free(e);
        e = next;
    }
    free(e);
    entries_free(w->pub.fts_child);
    kfs_pool_put(&pool, w);
}

/* The starts, in a list. -1 and errno. */
static int roots_make(struct walker *w, char *const *argv, FTSENT *top, FTSENT **ret)
{
    size_t n = 0;
    FTSENT *head = NULL, **tail = &head;
    for (; *argv; argv++, n++) {
        size_t len = strlen(*argv);
        FTSENT *e = len && len < KFS_PATH_MAX ? entry_new(w, *argv, len) : NULL;
        if (!e) {
            errno = !len ? ENOENT : len >= KFS_PATH_MAX ? ENAMETOOLONG : ENOMEM;
            entries_free(head);
            return -1;
        }
        e->fts_level = FTS_ROOTLEVEL;
        e->fts_parent = top;
        e->fts_accpath = e->fts_name;
        e->fts_info = entry_look(w, e, w->pub.fts_options & FTS_COMFOLLOW);
        if (e->fts_info == FTS_DOT)
            e->fts_info = FTS_D;
        *tail = e;
        tail = &e->fts_link;
    }
    *ret = w->pub.fts_compar && n > 1 ? entries_sort(w, head, n) : head;
    return 0;
}

static FTS *walker_open(char *const *argv, int options, int (*compar)(const FTSENT **, const FTSENT **))
{
    if (options & ~OPTIONS) {
        errno = EINVAL;
        return NULL;
    }
    struct walker *w = kfs_pool_get(&pool);
    if (!w) {
        errno = ENOMEM;
        return NULL;
    }
    memset(w, 0, sizeof *w);
    w->pub.fts_path = w->path;
    w->pub.fts_pathlen = sizeof w->path;
    w->pub.fts_compar = (__typeof__(w->pub.fts_compar))(void *)compar;
    w->pub.fts_options = options | FTS_NOCHDIR;
    w->pub.fts_rfd = -1;
    FTSENT *top = entry_new(w, "", 0), *start = entry_new(w, "", 0);
    if (!top || !start) {
        free(top);
        free(start);
        kfs_pool_put(&pool, w);
        errno = ENOMEM;
        return NULL;
    }
    top->fts_level = FTS_ROOTPARENTLEVEL;
    start->fts_level = FTS_ROOTLEVEL;
    start->fts_parent = top;
    start->fts_info = FTS_INIT;
    w->pub.fts_cur = start;
    if (roots_make(w, argv, top, &start->fts_link) < 0) {
        int saved = errno;
        walker_free(w);
        errno = saved;
        return NULL;
    }
    return &w->pub;
}

/* The directory was given: into it, or past it. NULL: cur itself is the answer. */
static FTSENT *descend(struct walker *w, FTSENT *e, int instr)
{
    if (instr == FTS_SKIP || ((w->pub.fts_options & FTS_XDEV) && e->fts_dev != w->pub.fts_dev)) {
        entries_free(w->pub.fts_child);
        w->pub.fts_child = NULL;
        e->fts_info = FTS_DP;
        return NULL;
    }
    if (w->pub.fts_child && (w->pub.fts_options & NAMES_ONLY)) {
        entries_free(w->pub.fts_child);
        w->pub.fts_child = NULL;
    }
    w->pub.fts_options &= ~NAMES_ONLY;
    FTSENT *child = w->pub.fts_child ? w->pub.fts_child : build(w, BUILD_READ);
    w->pub.fts_child = NULL;
    return child;
}

/* After e: its next sibling, or its directory once more. */
static FTSENT *advance(struct walker *w, FTSENT *e)
{
    for (;;) {
        FTSENT *next = e->fts_link, *parent = e->fts_parent;
        free(e);
        if (!next) {
            if (parent->fts_level == FTS_ROOTPARENTLEVEL) {
                free(parent);
                errno = 0;
                return w->pub.fts_cur = NULL;
            }
            w->path[parent->fts_pathlen] = '\0';
            parent->fts_info = parent->fts_errno ? FTS_ERR : FTS_DP;
            return w->pub.fts_cur = parent;
        }
        e = next;
        if (e->fts_level == FTS_ROOTLEVEL) {
            root_load(w, e);
            return w->pub.fts_cur = e;
        }
        if (e->fts_instr == FTS_SKIP)
            continue;
        path_put(w, e);
        if (e->fts_instr == FTS_FOLLOW) {
            e->fts_info = entry_look(w, e, true);
            e->fts_instr = FTS_NOINSTR;
        }
        return w->pub.fts_cur = e;
    }
}

static FTSENT *walker_read(struct walker *w)
{
    FTSENT *e = w->pub.fts_cur;
    if (!e || (w->pub.fts_options & STOPPED))
        return NULL;
    int instr = e->fts_instr;
    e->fts_instr = FTS_NOINSTR;
    if (instr == FTS_AGAIN) {
        e->fts_info = entry_look(w, e, false);
        return e;
    }
    if (instr == FTS_FOLLOW && (e->fts_info == FTS_SL || e->fts_info == FTS_SLNONE)) {
        e->fts_info = entry_look(w, e, true);
        return e;
    }
    if (e->fts_info == FTS_D) {
        FTSENT *child = descend(w, e, instr);
        if (!child)
            return (w->pub.fts_options & STOPPED) ? NULL : e;
        path_put(w, child);
        return w->pub.fts_cur = child;
    }
    return advance(w, e);
}

static FTSENT *walker_children(struct walker *w, int instr)
{
    FTSENT *e = w->pub.fts_cur;
    if (instr != 0 && instr != FTS_NAMEONLY) {
        errno = EINVAL;
        return NULL;
    }
    errno = 0;
    if (!e || (w->pub.fts_options & STOPPED))
        return NULL;
    if (e->fts_info == FTS_INIT)
        return e->fts_link;
    if (e->fts_info != FTS_D)
        return NULL;
    entries_free(w->pub.fts_child);
    if (instr == FTS_NAMEONLY)
        w->pub.fts_options |= NAMES_ONLY;
    else
        w->pub.fts_options &= ~NAMES_ONLY;
    return w->pub.fts_child = build(w, instr == FTS_NAMEONLY ? BUILD_NAMES : BUILD_CHILD);
}

/* Ours when a start may lie in a volume, above one, or behind a host symlink into one. */
static bool begins_ours(char *const *argv)
{
    struct kfs_loc loc;
    for (; kfs_pre_vol_count && argv && *argv; argv++) {
        if (kfs_pre_maybe(AT_FDCWD, *argv) || (**argv == '/' && kfs_pre_near_prefix(*argv)))
            return true;
        if (**argv && kfs_pre_host_symlink(AT_FDCWD, *argv, true, &loc) == KFS_OURS)
            return true;
    }
    return false;
}

void *kfs_do_fts_open(char *const *argv, int options, int (*compare)(const void **, const void **))
{
    /* libc's walk changes the working directory inside, and back: from a volume that would go unnoticed. */
    if (!begins_ours(argv) && (options & FTS_NOCHDIR || !kfs_pre_cwd.vol))
        return kfs_real.fts_open(argv, options, compare);
    return walker_open(argv, options, (int (*)(const FTSENT **, const FTSENT **))(void *)compare);
}

void *kfs_do_fts_read(void *fts)
{
    struct walker *w = ours(fts);
    return w ? walker_read(w) : kfs_real.fts_read(fts);
}

void *kfs_do_fts_children(void *fts, int instr)
{
    struct walker *w = ours(fts);
    return w ? walker_children(w, instr) : kfs_real.fts_children(fts, instr);
}

int kfs_do_fts_set(void *fts, void *entry, int instr)
{
    if (!ours(fts))
        return kfs_real.fts_set(fts, entry, instr);
    if (instr != 0 && instr != FTS_AGAIN && instr != FTS_FOLLOW && instr != FTS_NOINSTR && instr != FTS_SKIP) {
        errno = EINVAL;
        return 1;
    }
    ((FTSENT *)entry)->fts_instr = (unsigned short)instr;
    return 0;
}

int kfs_do_fts_close(void *fts)
{
    struct walker *w = ours(fts);
    if (!w)
        return kfs_real.fts_close(fts);
    walker_free(w);
    return 0;
}
