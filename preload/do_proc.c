/* preload/do_proc.c — exec in all its forms, posix_spawn, identities
 *
 * What     A program in a volume runs from its cache file; a script's "#!" line is read here, since the kernel could not find the script by its KFS path. Every
 *          environment that goes to a new program gets back what makes KFS work in it: our library in LD_PRELOAD, and the KFS_ variables of this process's start.
 * Model    plan_make turns (path, argv) into what the kernel is given: the host's path, or the cache file's, with argv extended by the interpreters. The
 *          application's call is done with it as is. What is the host's goes through untouched; only when it fails with ENOENT do we look whether a
 *          host symlink or a host script's interpreter leads into a volume.
 *          What must reach the new program's start only (its name for ps, libraries of volumes for ld.so) travels in LD_LIBRARY_PATH and KFS_EXEC and is taken
 *          out of the environment again by our constructor there.
 * Memory   No malloc. New argv and envp live on the stack, or in a mapping when they are large; nothing of them is left when the call fails.
 * Signal   Async-signal-safe, and fit for vfork children: nothing process-wide is written.
 * Absent   Set-user-id bits of files in a volume have no effect. $ORIGIN and /proc/self/exe are the cache file's (docs/internals/exec.md).
 */
#include "preload/libs.h"
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "preload/standin.h"
#include "base/pure/sys.h"
#include <elf.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

/* --- what a child's environment must have ------------------------------------------------------------------------------- */

#define MARK "KFS_EXEC="
#define LIBPATH "LD_LIBRARY_PATH="
#define OWN_MAX 32
#define OWN_BYTES 131072

static struct {
    int count;
    const char *lib;            /* our entry of LD_PRELOAD, as it was; NULL: not preloaded that way */
    const char *other;          /* where the library for programs of the other libc would lie */
    const char *var[OWN_MAX];   /* "KFS_…=…" */
    size_t used;
    char text[OWN_BYTES];       /* copies: programs overwrite the start environment to set their title */
} own;

static const char *own_copy(const char *s, size_t n)
{
    if (n + 1 > sizeof own.text - own.used)
        return NULL;
    char *to = own.text + own.used;
    memcpy(to, s, n);
    to[n] = '\0';
    own.used += n + 1;
    return to;
}

static const char *const lib_names[] = {"libkfs.so", "libkfs-musl.so"};

/* 1 + the index of the library's name; 0: another library. */
static int lib_kind(const char *s, size_t n)
{
    for (int i = 0; i < 2; i++) {
        size_t k = strlen(lib_names[i]);
        if (n >= k && memcmp(s + n - k, lib_names[i], k) == 0 && (n == k || s[n - k - 1] == '/'))
            return i + 1;
    }
    return 0;
}

/* The same directory's library for the other libc. */
static void other_note(const char *lib, size_t n, int kind)
{
    char path[KFS_PATH_MAX];
    size_t dir = n - strlen(lib_names[kind - 1]);
    const char *name = lib_names[2 - kind];
    if (dir + strlen(name) >= sizeof path)
        return;
    memcpy(path, lib, dir);
    strcpy(path + dir, name);
    own.other = own_copy(path, strlen(path));
}

/* Next entry of an LD_PRELOAD value: length, 0 at the end; moves *s behind it. */
static size_t preload_next(const char **s, const char **ret)
{
    const char *p = *s;
    while (*p == ':' || *p == ' ')
        p++;
    *ret = p;
    while (*p && *p != ':' && *p != ' ')
        p++;
    *s = p;
    return (size_t)(p - *ret);
}

static bool is_mark(const char *e)
{
    return strncmp(e, MARK, sizeof MARK - 1) == 0;
}

static void own_read(void)
{
    for (char **e = environ; e && *e; e++) {
        if (strncmp(*e, "KFS_", 4) == 0 && own.count < OWN_MAX && !is_mark(*e)) {
            const char *c = own_copy(*e, strlen(*e));
            if (c)
                own.var[own.count++] = c;
        } else if (strncmp(*e, "LD_PRELOAD=", 11) == 0) {
            const char *p = *e + 11, *entry;
            size_t n;
            while (!own.lib && (n = preload_next(&p, &entry)))
                if (lib_kind(entry, n)) {
                    own.lib = own_copy(entry, n);
                    other_note(entry, n, lib_kind(entry, n));
                }
        }
    }
}

/* --- what the exec before us left for this process alone ------------------------------------------------------------------ */

static void title_set(const char *name)
{
    if (name && *name)
        prctl(PR_SET_NAME, name);
}

static void environ_remove(char **at)
{
    for (; *at; at++)
        at[0] = at[1];
}

/* LD_LIBRARY_PATH as it was: without our directory, or gone when it was not there ('a'). ld.so has its copy. */
static void libpath_restore(const char *dir, size_t n, bool absent)
{
    for (char **e = environ; n && *e; e++) {
        if (strncmp(*e, LIBPATH, sizeof LIBPATH - 1) != 0)
            continue;
        char *value = *e + sizeof LIBPATH - 1;
        if (strncmp(value, dir, n) != 0)
            return;
        if (absent) {
            environ_remove(e);
            return;
        }
        const char *rest = value + n;
        rest += *rest == ':';
        memmove(value, rest, strlen(rest) + 1);
        return;
    }
}

/* "KFS_EXEC=e|s PID|a|p DIR|TITLE": e is for the process PID, s for its child; a: LD_LIBRARY_PATH was absent. Others' marks came through a program without us. */
static bool mark_take(const char *text)
{
    char kind = *text++;
    long pid = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        pid = pid * 10 + (*text - '0');
    if (pid != (kind == 's' ? getppid() : getpid()) || text[0] != '|' || (text[1] != 'a' && text[1] != 'p'))
        return false;
    const char *dir = text + 2, *bar = strchrnul(dir, '|');
    libpath_restore(dir, (size_t)(bar - dir), text[1] == 'a');
    title_set(*bar ? bar + 1 : "");
    return true;
}

/* A program of ours was started under the name of its cache file: give it its own name in ps and top. */
static void title_own(void)
{
    const char *file = (const char *)getauxval(AT_EXECFN);
    struct kfs_fdinfo i;
    char link[KFS_PATH_MAX];
    if (!file || !kfs_pre_vol_count)
        return;
    if (strncmp(file, "/proc/self/fd/", 14) == 0) {
        long n = kfs_sys_readlinkat(AT_FDCWD, "/proc/self/exe", link, sizeof link - 1);
        if (n <= 0)
            return;
        link[n] = '\0';
        file = link;
    }
    if (kfs_pre_cache_name(file, strlen(file), &i))
        title_set(program_invocation_short_name);
}

__attribute__((constructor(102))) static void start(void)
{
    KFS_PRE_READY();
    own_read();
    title_own();
    for (char **e = environ; e && *e; e++) {
        if (!is_mark(*e))
            continue;
        char *mark = *e;
        environ_remove(e);
        mark_take(mark + sizeof MARK - 1);
        break;
    }
}

static size_t name_len(const char *var)
{
    return (size_t)(strchrnul(var, '=') - var);
}

/* Our library is there, and not the other one. */
static bool has_lib(const char *value)
{
    const char *entry;
    size_t n;
    while ((n = preload_next(&value, &entry)))
        if (strlen(own.lib) == n && memcmp(entry, own.lib, n) == 0)
            return true;
    return false;
}

/* What envp lacks, and what the new program's start needs. */
struct repair {
    size_t count;        /* entries of envp */
    uint32_t missing;    /* bit i: own.var[i] */
    bool preload;        /* LD_PRELOAD must change */
    const char *lib;     /* our entry in it: own.lib or own.other */
    const char *old;     /* its value, or NULL */
    const char *libpath; /* LD_LIBRARY_PATH, or NULL */
    const char *libdir;  /* to be put before it; "" none */
    const char *title;   /* the name for ps; "" as it comes */
    bool spawn;          /* the program runs in a child */
    size_t bytes;        /* room that env_repair needs; 0: envp is good as it is */
};

static void env_check(char *const envp[], struct repair *ret)
{
    *ret = (struct repair){.libdir = "", .title = "", .lib = own.lib};
    if (!own.count || !kfs_pre_vol_count)
        return;
    ret->missing = own.count == 32 ? ~0u : (1u << own.count) - 1;
    ret->preload = own.lib != NULL;
    for (; envp && envp[ret->count]; ret->count++) {
        const char *e = envp[ret->count];
        if (strncmp(e, "LD_PRELOAD=", 11) == 0 && !ret->old) {
            ret->old = e + 11;
            ret->preload = own.lib && !has_lib(e + 11);
        } else if (strncmp(e, LIBPATH, sizeof LIBPATH - 1) == 0 && !ret->libpath) {
            ret->libpath = e + sizeof LIBPATH - 1;
        }
        if (strncmp(e, "KFS_", 4) != 0)
            continue;
        for (int i = 0; i < own.count; i++) {
            size_t n = name_len(own.var[i]);
            if (strncmp(e, own.var[i], n) == 0 && e[n] == '=')
                ret->missing &= ~(1u << i);
        }
    }
}

/* All is known: how much room? */
static size_t env_room(struct repair *r)
{
    bool mark = *r->libdir || *r->title;
    if (!own.count || (!r->missing && !r->preload && !mark))
        return r->bytes = 0;
    r->bytes = (r->count + (size_t)own.count + 4) * sizeof(char *) + 16;
    if (r->preload)
        r->bytes += (r->old ? strlen(r->old) : 0) + strlen(r->lib) + 16;
    if (mark)
        r->bytes += 2 * strlen(r->libdir) + (r->libpath ? strlen(r->libpath) : 0) + strlen(r->title) + 64;
    return r->bytes;
}

static char *put_number(char *p, long v)
{
    char digits[20];
    int n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while ((v /= 10));
    while (n)
        *p++ = digits[--n];
    return p;
}

static char *put_preload(char *p, const struct repair *r)
{
    p = stpcpy(p, "LD_PRELOAD=");
    const char *old = r->old, *entry;
    size_t n;
    while (old && (n = preload_next(&old, &entry))) {
        if (lib_kind(entry, n))
            continue;
        memcpy(p, entry, n);
        p += n;
        *p++ = ':';
    }
    return stpcpy(p, r->lib) + 1;
}

static char *put_libpath(char *p, const struct repair *r)
{
    p = stpcpy(stpcpy(p, LIBPATH), r->libdir);
    if (r->libpath && *r->libpath)
        p = stpcpy(stpcpy(p, ":"), r->libpath);
    return p + 1;
}

static void put_mark(char *p, const struct repair *r)
{
    p = stpcpy(p, r->spawn ? MARK "s" : MARK "e");
    p = put_number(p, kfs_sys_getpid());
    p = stpcpy(p, r->libpath ? "|p" : "|a");
    stpcpy(stpcpy(stpcpy(p, r->libdir), "|"), r->title);
}

/* mem: env_room bytes. The new array. */
static char *const *env_repair(char *const envp[], const struct repair *r, void *mem)
{
    char **out = mem;
    char *text = (char *)(out + r->count + (size_t)own.count + 4);
    char *preload = NULL, *libpath = NULL;
    size_t n = 0;
    if (r->preload) {
        preload = text;
        text = put_preload(text, r);
    }
    if (*r->libdir) {
        libpath = text;
        text = put_libpath(text, r);
    }
    for (size_t i = 0; i < r->count; i++) {
        if (preload && strncmp(envp[i], "LD_PRELOAD=", 11) == 0) {
            out[n++] = preload;
            preload = NULL;
        } else if (libpath && strncmp(envp[i], LIBPATH, sizeof LIBPATH - 1) == 0) {
            out[n++] = libpath;
            libpath = NULL;
        } else if (!is_mark(envp[i])) {
            out[n++] = envp[i];
        }
    }
    if (preload)
        out[n++] = preload;
    if (libpath)
        out[n++] = libpath;
    for (int i = 0; i < own.count; i++)
        if (r->missing & (1u << i))
            out[n++] = (char *)(uintptr_t)own.var[i];
    if (*r->libdir || *r->title) {
        put_mark(text, r);
        out[n++] = text;
    }
    out[n] = NULL;
    return out;
}

/* --- room for arrays ---------------------------------------------------------------------------------------------------- */

#define STACK_ROOM 32768u

static void *pages_get(size_t bytes)
{
    long r =
        kfs_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return r < 0 && r > -4096 ? NULL : (void *)r;
}

/* On the caller's stack when small; else a mapping, which a successful exec takes away (in a vfork child: which the parent keeps; that is rare and bounded). */
#define ROOM_GET(bytes) ((bytes) <= STACK_ROOM ? __builtin_alloca((bytes) + 16) : pages_get(bytes))

static void room_free(void *room, size_t bytes)
{
    if (bytes > STACK_ROOM && room)
        kfs_sys_munmap(room, bytes);
}

/* --- from a path to what the kernel gets ------------------------------------------------------------------------------------ */

#define NEST_MAX 5      /* interpreters of interpreters: as the kernel */
#define LINE_BYTES 256  /* BINPRM_BUF_SIZE */
#define HEAD_MAX (1 + 2 * NEST_MAX + 2)

struct plan {
    bool ours;                 /* something on the way was in a volume: file, head and fd are valid */
    const char *libpath;       /* the new program's LD_LIBRARY_PATH, or NULL */
    int fd;                    /* of the program, CLOEXEC; -1 when it is the host's */
    int head_n;
    const char *head[HEAD_MAX]; /* replaces argv[0] */
    char file[KFS_PATH_MAX];   /* what to execute */
    char script[512];          /* "/dev/fd/N" of a script given by descriptor */
    char libdir[KFS_PATH_MAX]; /* see kfs_libs_gather; "" none */
    char line[NEST_MAX + 1][LINE_BYTES];
};

static void fd_drop(int fd)
{
    if (fd < 0)
        return;
    kfs_pre_fd_unknown(fd);
    kfs_sys_close(fd);
}

static void fd_name(int fd, const char *dir, char *buf)
{
    char digits[12];
    size_t n = strlen(dir), k = 0;
    memcpy(buf, dir, n);
    do
        digits[k++] = (char)('0' + fd % 10);
    while ((fd /= 10));
    while (k)
        buf[n++] = digits[--k];
    buf[n] = '\0';
}

/* Parse "#! interpreter [one argument]" in place, as the kernel does. -ENOEXEC: no usable line. */
static long line_parse(char *line, size_t len, const char **ret_interp, const char **ret_arg)
{
    char *nl = memchr(line + 2, '\n', len - 2);
    char *end = nl ? nl : line + len;
    char *p = line + 2;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    char *name = p;
    while (p < end && *p && *p != ' ' && *p != '\t')
        p++;
    if (p == name || (p == end && !nl && len == LINE_BYTES))
        return -ENOEXEC; /* none, or cut off */
    char *name_end = p;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *ret_arg = end > p && *p ? p : NULL;
    *ret_interp = name;
    *end = '\0';
    *name_end = '\0';
    return 0;
}

/* argv: [interp, arg?, script name] take the place of argv[0]. */
static void head_put(struct plan *p, const char *interp, const char *arg, const char *script)
{
    int n = arg ? 2 : 1, keep = p->head_n > 0 ? p->head_n - 1 : 0;
    for (int i = keep; i > 0; i--)
        p->head[n + i] = p->head[i];
    p->head[0] = interp;
    if (arg)
        p->head[1] = arg;
    p->head[n] = script;
    p->head_n = n + 1 + keep;
}

/* Open what path names, for execution. >= 0: a descriptor, *ret_ours; 0 > -errno; -EXDEV: the host's, and nobody looks into it. */
static long program_open(int dirfd, const char *path, int oflags, bool peek, char *host,
                         bool *ret_ours)
{
    struct kfs_loc loc;
    *ret_ours = false;
    int w = kfs_pre_maybe(dirfd, path) ? kfs_pre_where(dirfd, path, &loc) : KFS_HOST;
    if (w == KFS_HOST && peek) {
        int late = kfs_pre_host_symlink(dirfd, path, !(oflags & O_NOFOLLOW), &loc);
        w = late > KFS_HOST ? late : KFS_HOST;
    }
    if (w < 0)
        return w;
    if (w == KFS_OURS) {
        long fd = kfs_pre_open_loc(&loc, O_RDONLY | O_CLOEXEC | O_NONBLOCK | oflags, 0, KFS_WIRE_EXEC);
        if (fd != KFS_PRE_GO_HOST) {
            *ret_ours = fd >= 0;
            return fd;
        }
        w = KFS_HOST_AT;
    }
    if (w == KFS_HOST && !peek)
        return -EXDEV;
    const char *name = w == KFS_HOST_AT ? loc.host : path;
    size_t n = strlen(name);
    if (n >= KFS_PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(host, name, n + 1);
    long fd = kfs_sys_openat(w == KFS_HOST_AT ? AT_FDCWD : dirfd, name,
                             O_RDONLY | O_CLOEXEC | O_NONBLOCK | oflags, 0);
    return fd == -EACCES ? -EXDEV : fd; /* executable, not readable: no script, the kernel's business */
}

/* One file on the way is open as fd, named `name`: a script (1: *ret_next is its interpreter), or the program itself (0). -errno. */
static long program_look(struct plan *p, int fd, bool ours, int depth, const char *name,
                         const char **ret_next)
{
    struct stat st;
    const char *arg;
    if (ours)
        p->ours = true;
    if (kfs_sys_fstat(fd, &st) < 0)
        return -EIO;
    if (!S_ISREG(st.st_mode))
        return -EACCES;
    char *line = p->line[depth];
    long n = kfs_sys_pread(fd, line, LINE_BYTES, 0);
    if (n < 2 || line[0] != '#' || line[1] != '!')
        return 0;
    if (depth == NEST_MAX)
        return -ELOOP;
    long r = line_parse(line, (size_t)n, ret_next, &arg);
    if (r < 0)
        return 0; /* the kernel says ENOEXEC itself */
    char self[32];
    fd_name(fd, "/proc/self/fd/", self);
    if (!ours && kfs_sys3(SYS_faccessat, AT_FDCWD, (long)self, X_OK) < 0)
        return -EACCES; /* of ours kfsd has asked */
    head_put(p, *ret_next, arg, name);
    return 1;
}

/* The rest of the way, beginning with an open file. */
static long plan_follow(struct plan *p, long fd, bool ours, const char *name, bool peek)
{
    const char *next;
    for (int depth = 0;; depth++) {
        long r = program_look(p, (int)fd, ours, depth, name, &next);
        if (r < 0) {
            fd_drop((int)fd);
            return r;
        }
        if (r == 0) { /* the program */
            if ((ours || kfs_libs_maybe(p->libpath)) && !kfs_libs_gather((int)fd, name, p->libpath, p->libdir))
                p->libdir[0] = '\0';
            if (!ours) {
                fd_drop((int)fd); /* p->file is its host name */
                return 0;
            }
            p->fd = (int)fd;
            kfs_pre_fd_path((int)fd, p->file, sizeof p->file);
            return 0;
        }
        fd_drop((int)fd);
        name = next;
        fd = program_open(AT_FDCWD, name, 0, peek, p->file, &ours);
        if (fd == -EXDEV) {
            size_t n = strlen(name);
            memcpy(p->file, name, n + 1); /* at most a line */
            return 0;
        }
        if (fd < 0)
            return fd;
    }
}

static void plan_init(struct plan *p, char *const argv[], const char *libpath)
{
    p->ours = false;
    p->libpath = libpath;
    p->libdir[0] = '\0';
    p->fd = -1;
    p->head_n = argv && argv[0] ? 1 : 0;
    p->head[0] = p->head_n ? argv[0] : NULL;
}

/* 0: p->ours says whether p is to be used. -errno: the answer, when p->ours. name: what a script's interpreter is told. peek: also look into files of
 * the host. */
static long plan_make(struct plan *p, int dirfd, const char *path, const char *name,
                      char *const argv[], int oflags, bool peek)
{
    bool ours;
    plan_init(p, argv, p->libpath);
    long fd = program_open(dirfd, path, oflags, peek, p->file, &ours);
    if (fd == -EXDEV)
        return 0;
    if (fd < 0) {
        p->ours = true;
        return fd;
    }
    bool moved = !ours && strcmp(p->file, path) != 0; /* out of the volume: the kernel would not find it by the given name */
    long r = plan_follow(p, fd, ours, name, peek);
    p->ours = p->ours || moved;
    return r;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* --- whose libc ------------------------------------------------------------------------------------------------------------------- */

/* 1: the program open as fd has musl's loader; 0: another one. 2: a script, *ret_next its interpreter. -1: none, or not to be seen. */
static int loader_look(int fd, char ret_next[LINE_BYTES])
{
    union {
        Elf64_Ehdr eh;
        char text[LINE_BYTES];
    } head;
    const char *name, *arg;
    long n = kfs_sys_pread(fd, &head, sizeof head, 0);
    if (n > 2 && head.text[0] == '#' && head.text[1] == '!') {
        if (line_parse(head.text, (size_t)n, &name, &arg) < 0)
            return -1;
        strcpy(ret_next, name);
        return 2;
    }
    if (n < (long)sizeof head.eh || memcmp(head.text, ELFMAG, SELFMAG) != 0 || head.eh.e_phentsize != sizeof(Elf64_Phdr))
        return -1;
    for (unsigned i = 0; i < head.eh.e_phnum; i++) {
        Elf64_Phdr ph;
        char loader[LINE_BYTES];
        if (kfs_sys_pread(fd, &ph, sizeof ph, (long)(head.eh.e_phoff + i * sizeof ph)) != sizeof ph)
            return -1;
        if (ph.p_type != PT_INTERP)
            continue;
        if (ph.p_filesz >= sizeof loader || kfs_sys_pread(fd, loader, ph.p_filesz, (long)ph.p_offset) != (long)ph.p_filesz)
            return -1;
        loader[ph.p_filesz] = '\0';
        return strncmp(base_name(loader), "ld-musl", 7) == 0;
    }
    return -1;
}

static bool other_exists(void)
{
    return own.lib && own.other && kfs_sys3(SYS_faccessat, AT_FDCWD, (long)own.other, R_OK) == 0;
}

/* Where the library exists for both libcs, the new program gets that for its own. fd: of the program; -1: open path. */
static void lib_choose(struct repair *need, int fd, int dirfd, const char *path)
{
    char next[LINE_BYTES];
    if (!other_exists())
        return;
    int kind = fd >= 0 ? loader_look(fd, next) : 2;
    for (int depth = 0; kind == 2 && depth <= NEST_MAX; depth++) {
        bool first = fd < 0 && depth == 0;
        long at = kfs_sys_openat(first ? dirfd : AT_FDCWD, first ? path : next, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
        if (at < 0)
            return;
        kind = loader_look((int)at, next);
        kfs_sys_close((int)at);
    }
    if (kind != 0 && kind != 1)
        return;
    const char *lib = lib_kind(own.lib, strlen(own.lib)) == 1 + kind ? own.lib : own.other;
    if (lib != need->lib) {
        need->lib = lib;
        need->preload = true;
    }
}

/* --- files that are still arriving ----------------------------------------------------------------------------------------------- */

/* Does a note of the program, open as fd, say that it was made by Go? Its reads do not go through libc. */
static bool is_go(int fd, const Elf64_Phdr *note)
{
    struct {
        Elf64_Nhdr head;
        char name[4];
    } n;
    return note->p_filesz >= sizeof n && kfs_sys_pread(fd, &n, sizeof n, (long)note->p_offset) == sizeof n && n.head.n_namesz == 4 &&
           memcmp(n.name, "Go\0", 4) == 0;
}

/* May its privileges be raised? Then ld.so ignores LD_PRELOAD. */
static bool is_raised(int fd)
{
    struct stat st;
    char cap[64];
    return kfs_sys_fstat(fd, &st) < 0 || (st.st_mode & (S_ISUID | S_ISGID)) ||
           kfs_sys4(SYS_fgetxattr, fd, (long)"security.capability", (long)cap, sizeof cap) > 0;
}

/* Will the program have this library, and read through it? kind: of its loader. */
static bool reads_by_us(int fd, int kind)
{
    Elf64_Ehdr eh;
    bool lib = own.lib && (lib_kind(own.lib, strlen(own.lib)) == 1 + kind || other_exists());
    if (!lib || is_raised(fd) || kfs_sys_pread(fd, &eh, sizeof eh, 0) != sizeof eh)
        return false;
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        Elf64_Phdr ph;
        if (kfs_sys_pread(fd, &ph, sizeof ph, (long)(eh.e_phoff + i * sizeof ph)) != sizeof ph || (ph.p_type == PT_NOTE && is_go(fd, &ph)))
            return false;
    }
    return true;
}

static bool program_reads_by_us(int fd, int dirfd, const char *path)
{
    char next[LINE_BYTES];
    long at = fd >= 0 ? kfs_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3) : kfs_sys_openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    for (int depth = 0; at >= 0 && depth <= NEST_MAX; depth++) {
        int kind = loader_look((int)at, next);
        bool yes = (kind == 0 || kind == 1) && reads_by_us((int)at, kind);
        kfs_sys_close((int)at);
        if (kind != 2)
            return yes;
        at = kfs_sys_openat(AT_FDCWD, next, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    }
    return false;
}

/* A program that cannot read them gets no stand-ins. 0 or -errno. only_kept: those that are close-on-exec do not matter. */
static long standins_leave(int fd, int dirfd, const char *path, bool only_kept)
{
    if (!kfs_pre_standin_seen || kfs_pre_fd_standin_next(0) < 0 || program_reads_by_us(fd, dirfd, path))
        return 0;
    return kfs_pre_settle_all(only_kept);
}

/* --- executing ------------------------------------------------------------------------------------------------------------------ */

static size_t args_count(char *const argv[])
{
    size_t n = 0;
    while (argv && argv[n])
        n++;
    return n;
}

static size_t args_bytes(const struct plan *p, char *const argv[])
{
    return (args_count(argv) + (size_t)p->head_n + 1) * sizeof(char *);
}

static char *const *args_make(const struct plan *p, char *const argv[], void *room)
{
    char **out = room;
    size_t n = 0;
    for (int i = 0; i < p->head_n; i++)
        out[n++] = (char *)(uintptr_t)p->head[i];
    for (size_t i = 1, have = args_count(argv); i < have; i++)
        out[n++] = argv[i];
    out[n] = NULL;
    return out;
}

/* What goes along with the plan into the environment. The kernel names a process by the file that was asked for; ours would be named by a cache file, a script by its interpreter. */
static void plan_env(const struct plan *p, const char *path, struct repair *need)
{
    need->libdir = p->libdir;
    if (!p->ours)
        return;
    const char *name = base_name(path), *argv0 = p->head_n ? base_name(p->head[0]) : "";
    bool script = p->head_n > 1; /* argv[0] is an interpreter's */
    if ((script || strcmp(name, argv0) != 0) && strlen(name) <= KFS_NAME_MAX)
        need->title = name;
}

/* Give the plan to the kernel. -errno. */
static long plan_exec(const struct plan *p, char *const argv[], char *const envp[], struct repair *need)
{
    lib_choose(need, p->fd, AT_FDCWD, p->file);
    long left = standins_leave(p->fd, AT_FDCWD, p->file, true);
    if (left < 0)
        return left;
    size_t bytes = args_bytes(p, argv), env_bytes = env_room(need);
    void *room = ROOM_GET(bytes);
    void *env_mem = env_bytes ? ROOM_GET(env_bytes) : NULL;
    long r = -E2BIG;
    if (room && (env_mem || !env_bytes)) {
        char *const *args = args_make(p, argv, room);
        char *const *env = env_bytes ? env_repair(envp, need, env_mem) : envp;
        kfs_real.execve(p->file, args, env);
        r = -errno;
        if (r == -ENOENT && p->fd >= 0) { /* the cache file was renamed (w/ to f/) or evicted meanwhile; its descriptor still leads there */
            char name[32];
            fd_name(p->fd, "/proc/self/fd/", name);
            kfs_real.execve(name, args, env);
            r = -errno;
        }
    }
    room_free(room, bytes);
    room_free(env_mem, env_bytes);
    return r;
}

enum how { HOW_PATH, HOW_AT, HOW_FD };

/* The application's own call, with what its environment needs. -errno. */
static long host_exec(enum how how, int dirfd, const char *path, char *const argv[], char *const envp[],
                      int flags, struct repair *need)
{
    lib_choose(need, how == HOW_FD ? dirfd : -1, dirfd, path);
    long left = standins_leave(how == HOW_FD ? dirfd : -1, dirfd, path, true);
    if (left < 0)
        return left;
    size_t bytes = env_room(need);
    void *mem = bytes ? ROOM_GET(bytes) : NULL;
    if (bytes && !mem)
        return -E2BIG;
    char *const *env = bytes ? env_repair(envp, need, mem) : envp;
    if (how == HOW_PATH)
        kfs_real.execve(path, argv, env);
    else if (how == HOW_AT)
        kfs_real.execveat(dirfd, path, argv, env, flags);
    else
        kfs_real.fexecve(dirfd, argv, env);
    long r = -errno;
    room_free(mem, bytes);
    return r;
}

/* A host program with a volume in its LD_LIBRARY_PATH. */
static void host_libs(struct plan *p, int dirfd, const char *path, struct repair *need)
{
    if (!kfs_libs_maybe(need->libpath))
        return;
    long fd = kfs_sys_openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (kfs_libs_gather((int)fd, path, need->libpath, p->libdir))
        need->libdir = p->libdir;
    kfs_sys_close((int)fd);
}

/* What the kernel tells an interpreter about a script: "/dev/fd/N/path" when it was named relative to a descriptor. */
static const char *script_name(struct plan *p, int dirfd, const char *path)
{
    if (dirfd == AT_FDCWD || path[0] == '/')
        return path;
    fd_name(dirfd, "/dev/fd/", p->script);
    size_t n = strlen(p->script), k = strlen(path);
    if (n + 1 + k >= sizeof p->script)
        return path;
    p->script[n] = '/';
    memcpy(p->script + n + 1, path, k + 1);
    return p->script;
}

/* execveat with a repaired environment. -errno. */
/* Can the strings of argv or envp be read, up to its NULL? */
static bool vector_ok(char *const v[])
{
    for (; v; v++) {
        if (!kfs_guard_can_read(v, sizeof *v))
            return false;
        if (!*v)
            break;
        if (kfs_guard_strlen(*v, OWN_BYTES) < 0)
            return false;
    }
    return true;
}

static long exec_at(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)
{
    struct plan p;
    struct repair need;
    enum how how = dirfd == AT_FDCWD && !flags ? HOW_PATH : HOW_AT;
    long len = kfs_pre_vol_count ? kfs_guard_strlen(path, KFS_PATH_MAX) : 0;
    if (len < 0 || (kfs_pre_vol_count && (!vector_ok(argv) || (envp != environ && !vector_ok(envp))))) {
        (void)(how == HOW_PATH ? kfs_real.execve(path, argv, envp) : kfs_real.execveat(dirfd, path, argv, envp, flags));
        return -errno; /* EFAULT, unless another error comes first */
    }
    env_check(envp, &need);
    if (len == 0)
        return host_exec(how, dirfd, path, argv, envp, flags, &need);
    int oflags = (flags & AT_SYMLINK_NOFOLLOW) ? O_NOFOLLOW : 0;
    const char *name = script_name(&p, dirfd, path);
    p.libpath = need.libpath;
    long r = plan_make(&p, dirfd, path, name, argv, oflags, false);
    if (!p.ours) {
        host_libs(&p, dirfd, path, &need);
        r = host_exec(how, dirfd, path, argv, envp, flags, &need);
        if (r != -ENOENT && r != -EACCES && r != -ENOTDIR)
            return r;
        long again = plan_make(&p, dirfd, path, name, argv, oflags, true);
        if (!p.ours || again == -ENOENT)
            return r;
        r = again;
    }
    plan_env(&p, path, &need);
    if (r == 0)
        r = plan_exec(&p, argv, envp, &need);
    fd_drop(p.fd);
    return r;
}

int kfs_do_execve(const char *path, char *const argv[], char *const envp[])
{
    return (int)kfs_pre_ret(exec_at(AT_FDCWD, path, argv, envp, 0));
}

int kfs_do_execv(const char *path, char *const argv[])
{
    return kfs_do_execve(path, argv, environ);
}

/* A descriptor of ours: the inode is opened again for execution, which also asks for the permission. */
static long exec_fd(int fd, char *const argv[], char *const envp[])
{
    struct kfs_fdinfo i;
    struct repair need;
    struct plan p;
    env_check(envp, &need);
    if (!kfs_pre_fd_maybe(fd) || !kfs_pre_fd(fd, &i))
        return host_exec(HOW_FD, fd, NULL, argv, envp, 0, &need);
    struct kfs_loc loc = {.vol = i.vol, .base = i.ino, .rel = ""};
    plan_init(&p, argv, need.libpath);
    fd_name(fd, "/dev/fd/", p.script);
    long r = kfs_pre_open_loc(&loc, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, KFS_WIRE_EXEC);
    if (r == KFS_PRE_GO_HOST)
        r = -EACCES;
    if (r >= 0)
        r = plan_follow(&p, r, true, p.script, false);
    if (r == 0 && p.head_n > 1 && (kfs_sys_fcntl(fd, F_GETFD, 0) & FD_CLOEXEC))
        r = -ENOENT; /* the interpreter could not open the script: the kernel says so beforehand, too */
    if (r == 0)
        r = plan_exec(&p, argv, envp, &need);
    fd_drop(p.fd);
    return r;
}

int kfs_do_fexecve(int fd, char *const argv[], char *const envp[])
{
    if (!kfs_pre_vol_count || fd < 0 || !argv || !envp || !vector_ok(argv) || !vector_ok(envp))
        return kfs_real.fexecve(fd, argv, envp);
    return (int)kfs_pre_ret(exec_fd(fd, argv, envp));
}

int kfs_do_execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)
{
    if (kfs_pre_vol_count && path && kfs_guard_strlen(path, 1) == 0 && (flags & AT_EMPTY_PATH) && kfs_pre_fd_maybe(dirfd))
        return kfs_do_fexecve(dirfd, argv, envp);
    return (int)kfs_pre_ret(exec_at(dirfd, path, argv, envp, flags));
}

/* --- the search along PATH ---------------------------------------------------------------------------------------------------------- */

static const char *env_path(void)
{
    for (char **e = environ; e && *e; e++)
        if (strncmp(*e, "PATH=", 5) == 0)
            return *e + 5;
    return "/bin:/usr/bin"; /* libc's confstr(_CS_PATH) */
}

/* Next candidate for file in *path; false: none left, or (-ENAMETOOLONG in *ret_err) too long. */
static bool path_next(const char **path, const char *file, char buf[KFS_PATH_MAX])
{
    size_t k = strlen(file);
    while (*path) {
        const char *dir = *path, *end = strchrnul(dir, ':');
        size_t n = (size_t)(end - dir);
        *path = *end ? end + 1 : NULL;
        if (n + 1 + k >= KFS_PATH_MAX)
            continue;
        memcpy(buf, dir, n);
        if (n) /* an empty entry is the working directory */
            buf[n++] = '/';
        memcpy(buf + n, file, k + 1);
        return true;
    }
    return false;
}

/* A file that is no program is a shell script. */
static long exec_sh(const char *file, char *const argv[], char *const envp[])
{
    size_t count = args_count(argv), bytes = (count + 3) * sizeof(char *);
    char **args = ROOM_GET(bytes);
    if (!args)
        return -E2BIG;
    args[0] = (char *)(uintptr_t) "/bin/sh";
    args[1] = (char *)(uintptr_t)file;
    for (size_t i = 1; i < count; i++)
        args[i + 1] = argv[i];
    args[count > 1 ? count + 1 : 2] = NULL;
    long r = exec_at(AT_FDCWD, args[0], args, envp, 0);
    room_free(args, bytes);
    return r;
}

static long exec_or_sh(const char *file, char *const argv[], char *const envp[])
{
    long r = exec_at(AT_FDCWD, file, argv, envp, 0);
    return r == -ENOEXEC ? exec_sh(file, argv, envp) : r;
}

/* Libc's rules: EACCES is remembered, what means "not here" goes on, anything else ends the search. */
static long exec_search(const char *file, char *const argv[], char *const envp[])
{
    char name[KFS_PATH_MAX];
    const char *path = env_path();
    bool denied = false;
    if (!*file)
        return -ENOENT;
    if (strchr(file, '/'))
        return exec_or_sh(file, argv, envp);
    if (strlen(file) > KFS_NAME_MAX)
        return -ENAMETOOLONG;
    while (path_next(&path, file, name)) {
        long r = exec_or_sh(name, argv, envp);
        switch (r) {
        case -EACCES:
            denied = true;
            break;
        case -ENOENT:
        case -ESTALE:
        case -ENOTDIR:
        case -ENODEV:
        case -ETIMEDOUT:
            break;
        default:
            return r;
        }
    }
    return denied ? -EACCES : -ENOENT;
}

int kfs_do_execvpe(const char *file, char *const argv[], char *const envp[])
{
    if (!kfs_pre_vol_count || !file)
        return kfs_real.execvpe(file, argv, envp);
    return (int)kfs_pre_ret(exec_search(file, argv, envp));
}

int kfs_do_execvp(const char *file, char *const argv[])
{
    return kfs_do_execvpe(file, argv, environ);
}

/* --- posix_spawn ------------------------------------------------------------------------------------------------------------------------ */
/* File actions run inside libc, in the child. Paths of ours are therefore opened when they are added, and become dup2 and fchdir actions. */

#define ACTIONS_MAX 64
#define ACTION_FDS 16
#define CWD_NONE (-1)
#define CWD_HOST (-2)

struct actions {
    const void *key; /* the application's object; NULL: free */
    int fd_count;
    int fds[ACTION_FDS]; /* to be closed with it */
    int err;             /* an open failed: what posix_spawn is to answer */
    int cwd;             /* where relative paths of later actions and of the program begin: a descriptor, CWD_NONE or CWD_HOST */
};
static struct actions actions[ACTIONS_MAX];

static struct actions *actions_get(const void *key, bool make)
{
    for (int i = 0; key && i < ACTIONS_MAX; i++)
        if (__atomic_load_n(&actions[i].key, __ATOMIC_ACQUIRE) == key)
            return &actions[i];
    for (int i = 0; key && make && i < ACTIONS_MAX; i++) {
        const void *none = NULL;
        if (!__atomic_compare_exchange_n(&actions[i].key, &none, key, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED))
            continue;
        actions[i].fd_count = 0;
        actions[i].err = 0;
        actions[i].cwd = CWD_NONE;
        return &actions[i];
    }
    return NULL;
}

static void actions_drop(const void *key)
{
    struct actions *a = actions_get(key, false);
    if (!a)
        return;
    for (int i = 0; i < a->fd_count; i++) {
        kfs_pre_before_close(a->fds[i]);
        fd_drop(a->fds[i]);
    }
    a->fd_count = 0;
    __atomic_store_n(&a->key, NULL, __ATOMIC_RELEASE);
}

/* Out of the way of the numbers that actions name. */
static long fd_high(long fd)
{
    struct rlimit lim = {1024, 1024};
    kfs_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&lim);
    long from = lim.rlim_cur < 1024 ? (long)lim.rlim_cur / 2 : 512;
    long high = kfs_sys_fcntl((int)fd, F_DUPFD_CLOEXEC, from);
    if (high < 0)
        return fd;
    kfs_pre_fd_dup((int)fd, (int)high);
    fd_drop((int)fd);
    return high;
}

/* Keep fd until the actions are destroyed. */
static long actions_keep(const void *key, long fd)
{
    struct actions *a = actions_get(key, true);
    if (!a || a->fd_count == ACTION_FDS) {
        fd_drop((int)fd);
        return -ENOMEM;
    }
    fd = fd_high(fd);
    a->fds[a->fd_count++] = (int)fd;
    return fd;
}

/* Where a path of an action is: dirfd for it, or false: in a directory of the host that only the child will know. */
static bool actions_start(const void *key, const char *path, int *ret_dirfd)
{
    const struct actions *a = actions_get(key, false);
    *ret_dirfd = AT_FDCWD;
    if (!a || path[0] == '/' || a->cwd == CWD_NONE)
        return true;
    *ret_dirfd = a->cwd;
    return a->cwd != CWD_HOST;
}

/* Open for an action: a kept descriptor; -EXDEV: the host's. */
static long actions_open(const void *key, const char *path, int oflags, uint32_t mode, uint32_t wire)
{
    struct kfs_loc loc;
    int dirfd;
    if (!kfs_pre_vol_count || !path || !actions_start(key, path, &dirfd))
        return -EXDEV;
    int w = kfs_pre_maybe(dirfd, path) ? kfs_pre_where(dirfd, path, &loc) : KFS_HOST;
    if (w == KFS_HOST) {
        struct stat st;
        if (kfs_sys_fstatat(dirfd, path, &st, 0) == -ENOENT)
            w = kfs_pre_host_symlink(dirfd, path, true, &loc);
    }
    if (w < 0)
        return w;
    if (w == KFS_HOST)
        return -EXDEV;
    long fd = KFS_PRE_GO_HOST;
    if (w == KFS_OURS)
        fd = kfs_pre_open_loc(&loc, oflags | O_CLOEXEC, mode, wire);
    if (fd == KFS_PRE_GO_HOST)
        fd = kfs_sys_openat(AT_FDCWD, loc.host, oflags | O_CLOEXEC, mode);
    return fd < 0 ? fd : actions_keep(key, fd);
}

/* The add call succeeds, as it does on the host; the spawn fails. */
static int actions_failed(const void *key, long r)
{
    struct actions *a = actions_get(key, true);
    if (!a)
        return (int)-r;
    if (!a->err)
        a->err = (int)-r;
    return 0;
}

int kfs_do_posix_spawn_file_actions_addopen(void *fa, int fd, const char *path, int oflag,
                                            mode_t mode)
{
    long n = actions_open(fa, path, oflag, mode, 0);
    if (n == -EXDEV)
        return kfs_real.posix_spawn_file_actions_addopen(fa, fd, path, oflag, mode);
    if (n < 0)
        return actions_failed(fa, n);
    int r = posix_spawn_file_actions_adddup2(fa, (int)n, fd);
    if (r == 0 && (oflag & O_CLOEXEC)) /* as after the real action: gone at the exec */
        r = posix_spawn_file_actions_addclose(fa, fd);
    return r;
}

int kfs_do_posix_spawn_file_actions_addchdir_np(void *fa, const char *path)
{
    long n = actions_open(fa, path, O_PATH | O_DIRECTORY, 0, KFS_WIRE_EXEC);
    if (n < 0 && n != -EXDEV)
        return actions_failed(fa, n);
    struct actions *a = kfs_pre_vol_count ? actions_get(fa, true) : NULL;
    if (a)
        a->cwd = n == -EXDEV ? CWD_HOST : (int)n;
    if (n == -EXDEV)
        return kfs_real.posix_spawn_file_actions_addchdir_np(fa, path);
    return kfs_real.posix_spawn_file_actions_addfchdir_np(fa, (int)n);
}

int kfs_do_posix_spawn_file_actions_addfchdir_np(void *fa, int fd)
{
    struct kfs_fdinfo i;
    if (kfs_pre_vol_count) {
        struct actions *a = actions_get(fa, true);
        if (a)
            a->cwd = kfs_pre_fd(fd, &i) ? fd : CWD_HOST;
    }
    return kfs_real.posix_spawn_file_actions_addfchdir_np(fa, fd);
}

int kfs_do_posix_spawn_file_actions_init(void *fa)
{
    actions_drop(fa);
    return kfs_real.posix_spawn_file_actions_init(fa);
}

int kfs_do_posix_spawn_file_actions_destroy(void *fa)
{
    actions_drop(fa);
    return kfs_real.posix_spawn_file_actions_destroy(fa);
}

struct spawn {
    pid_t *pid;
    const void *fa, *attr;
    char *const *argv;
    char *const *envp;
};

typedef int (*spawn_fn)(pid_t *, const char *, const void *, const void *, char *const[],
                        char *const[]);

/* The application's own call, with what its environment needs. Positive errno, as posix_spawn. */
static int host_spawn(spawn_fn fn, const struct spawn *s, const char *path, struct repair *need)
{
    lib_choose(need, -1, AT_FDCWD, path);
    long left = standins_leave(-1, AT_FDCWD, path, s->fa == NULL);
    if (left < 0)
        return (int)-left;
    size_t bytes = env_room(need);
    void *mem = bytes ? ROOM_GET(bytes) : NULL;
    if (bytes && !mem)
        return E2BIG;
    int r = fn(s->pid, path, s->fa, s->attr, s->argv, bytes ? env_repair(s->envp, need, mem) : s->envp);
    room_free(mem, bytes);
    return r;
}

static int plan_spawn(struct plan *p, const struct spawn *s, struct repair *need)
{
    lib_choose(need, p->fd, AT_FDCWD, p->file);
    long left = standins_leave(p->fd, AT_FDCWD, p->file, s->fa == NULL);
    if (left < 0)
        return (int)-left;
    size_t bytes = args_bytes(p, s->argv), env_bytes = env_room(need);
    void *room = ROOM_GET(bytes);
    void *env_mem = env_bytes ? ROOM_GET(env_bytes) : NULL;
    int r = E2BIG;
    if (p->fd >= 0)
        p->fd = (int)fd_high(p->fd);
    if (p->fd >= 0 && strncmp(p->file, "/proc/self/fd/", 14) == 0)
        fd_name(p->fd, "/proc/self/fd/", p->file);
    if (room && (env_mem || !env_bytes)) {
        char *const *args = args_make(p, s->argv, room);
        char *const *env = env_bytes ? env_repair(s->envp, need, env_mem) : s->envp;
        r = kfs_real.posix_spawn(s->pid, p->file, s->fa, s->attr, args, env);
        if (r == ENOENT && p->fd >= 0) { /* as in plan_exec */
            fd_name(p->fd, "/proc/self/fd/", p->file);
            r = kfs_real.posix_spawn(s->pid, p->file, s->fa, s->attr, args, env);
        }
    }
    room_free(room, bytes);
    room_free(env_mem, env_bytes);
    return r;
}

static int spawn_path(const struct spawn *s, const char *path, struct repair *need)
{
    struct plan p;
    int dirfd;
    if (!actions_start(s->fa, path, &dirfd))
        return host_spawn(kfs_real.posix_spawn, s, path, need);
    p.libpath = need->libpath;
    long r = plan_make(&p, dirfd, path, path, s->argv, 0, false);
    if (!p.ours) {
        host_libs(&p, dirfd, path, need);
        int e = host_spawn(kfs_real.posix_spawn, s, path, need);
        if (e != ENOENT && e != EACCES && e != ENOTDIR)
            return e;
        r = plan_make(&p, dirfd, path, path, s->argv, 0, true);
        if (!p.ours || r == -ENOENT)
            return e;
    }
    plan_env(&p, path, need);
    int e = r < 0 ? (int)-r : plan_spawn(&p, s, need);
    fd_drop(p.fd);
    return e;
}

/* Does this candidate of a search exist as a program? It decides where the search ends. */
static bool spawn_found(const char *name, int *ret_err)
{
    struct stat st;
    if (stat(name, &st) < 0)
        return false;
    if (S_ISREG(st.st_mode) && access(name, X_OK) == 0)
        return true;
    *ret_err = EACCES;
    return false;
}

static bool path_maybe(const char *path)
{
    char dir[KFS_PATH_MAX];
    while (path_next(&path, "x", dir))
        if (kfs_pre_maybe(AT_FDCWD, dir))
            return true;
    return false;
}

static int spawn_search(const struct spawn *s, const char *file, struct repair *need)
{
    char name[KFS_PATH_MAX];
    const char *path = env_path();
    int err = ENOENT;
    if (strchr(file, '/') || !*file)
        return spawn_path(s, file, need);
    if (!path_maybe(path) && !kfs_libs_maybe(need->libpath) && !other_exists() && !kfs_pre_standin_seen)
        return host_spawn(kfs_real.posix_spawnp, s, file, need);
    while (path_next(&path, file, name))
        if (spawn_found(name, &err))
            return spawn_path(s, name, need);
    return err;
}

static int spawn(const struct spawn *s, const char *path, bool search)
{
    struct repair need;
    int saved = errno;
    const struct actions *a = actions_get(s->fa, false);
    if (a && a->err)
        return a->err;
    env_check(s->envp, &need);
    need.spawn = true;
    int r = search ? spawn_search(s, path, &need) : spawn_path(s, path, &need);
    errno = saved;
    return r;
}

int kfs_do_posix_spawn(pid_t *pid, const char *path, const void *fa, const void *attr,
                       char *const argv[], char *const envp[])
{
    if (!kfs_pre_vol_count || !path)
        return kfs_real.posix_spawn(pid, path, fa, attr, argv, envp);
    struct spawn s = {pid, fa, attr, argv, envp};
    return spawn(&s, path, false);
}

int kfs_do_posix_spawnp(pid_t *pid, const char *file, const void *fa, const void *attr,
                        char *const argv[], char *const envp[])
{
    if (!kfs_pre_vol_count || !file)
        return kfs_real.posix_spawnp(pid, file, fa, attr, argv, envp);
    struct spawn s = {pid, fa, attr, argv, envp};
    return spawn(&s, file, true);
}

/* libc gives the shell the environment of this process, which is the application's to shape. A shell of the other libc needs its own library: room for
 * an environment with that, or 0. */
static size_t shell_room(struct repair *need)
{
    if (!kfs_pre_vol_count || kfs_pre_in_vfork)
        return 0;
    (void)standins_leave(-1, AT_FDCWD, "/bin/sh", true);
    env_check(environ, need);
    lib_choose(need, -1, AT_FDCWD, "/bin/sh");
    return need->lib == own.lib ? 0 : env_room(need);
}

/* environ is exchanged for the length of the call: a setenv by another thread meanwhile is lost. That, or a shell that cannot start. */
int kfs_do_system(const char *command)
{
    struct repair need;
    char **env = environ;
    size_t bytes = shell_room(&need);
    void *mem = bytes ? ROOM_GET(bytes) : NULL;
    if (mem)
        environ = (char **)(uintptr_t)env_repair(env, &need, mem);
    int r = kfs_real.system(command);
    if (mem)
        environ = env;
    room_free(mem, bytes);
    return r;
}

struct _IO_FILE *kfs_do_popen(const char *command, const char *mode)
{
    struct repair need;
    char **env = environ;
    size_t bytes = shell_room(&need);
    void *mem = bytes ? ROOM_GET(bytes) : NULL;
    if (mem)
        environ = (char **)(uintptr_t)env_repair(env, &need, mem);
    struct _IO_FILE *f = kfs_real.popen(command, mode);
    if (mem)
        environ = env;
    room_free(mem, bytes);
    return f;
}

/* --- identities -------------------------------------------------------------------------------------------------------------------------- */
/* kfsd goes by the ids that the kernel tells it of a connection, so a change needs new ones. */

static int id_changed(int r)
{
    if (r == 0)
        kfs_pre_cred_forget();
    return r;
}

int kfs_do_setuid(uid_t uid)
{
    return id_changed(kfs_real.setuid(uid));
}

int kfs_do_seteuid(uid_t uid)
{
    return id_changed(kfs_real.seteuid(uid));
}

int kfs_do_setreuid(uid_t ruid, uid_t euid)
{
    return id_changed(kfs_real.setreuid(ruid, euid));
}

int kfs_do_setresuid(uid_t ruid, uid_t euid, uid_t suid)
{
    return id_changed(kfs_real.setresuid(ruid, euid, suid));
}

int kfs_do_setgid(gid_t gid)
{
    return id_changed(kfs_real.setgid(gid));
}

int kfs_do_setegid(gid_t gid)
{
    return id_changed(kfs_real.setegid(gid));
}

int kfs_do_setregid(gid_t rgid, gid_t egid)
{
    return id_changed(kfs_real.setregid(rgid, egid));
}

int kfs_do_setresgid(gid_t rgid, gid_t egid, gid_t sgid)
{
    return id_changed(kfs_real.setresgid(rgid, egid, sgid));
}

int kfs_do_setgroups(size_t count, const gid_t *groups)
{
    return id_changed(kfs_real.setgroups(count, groups));
}

int kfs_do_initgroups(const char *user, gid_t group)
{
    return id_changed(kfs_real.initgroups(user, group));
}

int kfs_do_setfsuid(uid_t uid)
{
    int r = kfs_real.setfsuid(uid);
    kfs_pre_cred_forget();
    return r;
}

int kfs_do_setfsgid(gid_t gid)
{
    int r = kfs_real.setfsgid(gid);
    kfs_pre_cred_forget();
    return r;
}
