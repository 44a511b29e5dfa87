/* preload/shim.h — what the parts of libkfs.so share
 *
 * What     The shim's own vocabulary: mounts, locations, descriptors, one round trip. Whatever serves a call (do_*.c) stands on these.
 * Rules    No malloc, no stdio, no lock held over a real call, no thread, no libc call that could come back to us: kernel calls are raw
 *          (base/pure/sys_*.h, results are -errno). errno is set only at the outermost layer (kfs_pre_ret) and kept on success.
 * Signal   Everything here is async-signal-safe. Large buffers: at most 3 paths (12 KiB) of stack per call.
 * Fork     The child keeps mappings and tables; connections are per process (pid check on each round trip).
 * Vfork    While kfs_pre_in_vfork is set (thread-local) nothing process-wide is written; a round trip uses a connection of its own.
 */
#ifndef KFS_PRELOAD_SHIM_H
#define KFS_PRELOAD_SHIM_H

#include "base/pure/attr.h"
#include "base/pure/mounts.h"
#include "base/pure/perm.h"
#include "base/pure/shm_layout.h"
#include "base/pure/wire.h"
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

#define KFS_LIKELY(x) __builtin_expect(!!(x), 1)
#define KFS_UNLIKELY(x) __builtin_expect(!!(x), 0)

extern __thread int kfs_pre_in_vfork __attribute__((tls_model("initial-exec")));

/* ---- init.c: set-up -------------------------------------------------------------------------------------------- */
/* Resolve real functions and read KFS_AT, once; cheap when done. Every exported function calls it through KFS_PRE_READY(). */
extern int kfs_pre_state; /* 0 not yet, 1 in progress (this thread), 2 ready */
void kfs_pre_init(void);
#define KFS_PRE_READY()                                                                                                            \
    do {                                                                                                                           \
        if (KFS_UNLIKELY(kfs_pre_state != 2))                                                                                      \
            kfs_pre_init();                                                                                                        \
    } while (0)
/* -errno → errno and -1; anything else passes. */
static inline long kfs_pre_ret(long r)
{
    if (r < 0 && r > -4096) {
        errno = (int)-r;
        return -1;
    }
    return r;
}

/* ---- attach.c: volumes ----------------------------------------------------------------------------------------- */
struct kfs_vol {
    struct kfs_mount m;                /* from KFS_AT; constant after init */
    const struct kfs_shm_header *shm;  /* NULL before the first attach; replaced when a new kfsd appears (old mappings stay) */
    uint64_t epoch;
    uint64_t dev; /* st_dev shown */
    kfs_ino_t root;
    uint32_t flags; /* KFS_HELLO_* */
    int index;      /* in kfs_pre_vols */
    int attached;
    uint64_t cache_dev; /* st_dev of cache files, 0 before the first attach */
    uint64_t standin_tag; /* kfs_standin_volume of its id */
    int wrote;          /* this process had a writer here */
    const char *more_dirs; /* further cache directories, each ended by a newline, as kfsd said; NULL: those of m */
};
static inline const char *kfs_pre_more_dirs(const struct kfs_vol *v)
{
    const char *more = __atomic_load_n(&v->more_dirs, __ATOMIC_ACQUIRE);
    return more ? more : v->m.more_dirs;
}
extern struct kfs_vol kfs_pre_vols[KFS_MOUNTS_MAX];
extern int kfs_pre_vol_count;
/* Make sure that HELLO was exchanged (segment mapped, dev known). 0 or -errno. */
int kfs_pre_attach(struct kfs_vol *v);
/* The caller's ids, cached; forget after setuid & co. */
const struct kfs_cred *kfs_pre_cred(void);
const struct kfs_cred *kfs_pre_cred_real(void); /* with the real ids, as access(2) goes by */
void kfs_pre_cred_forget(void); /* also drops pooled connections, so that kfsd sees the new ids */
void kfs_pre_count(enum kfs_tier tier); /* one call served by this tier */
void kfs_pre_touched(const struct kfs_vol *v, kfs_ino_t ino); /* a cache file was opened by name: kfsd hears of it, for eviction */

/* ---- prefix.c: is this path ours? ------------------------------------------------------------------------------- */
enum kfs_where {
    KFS_HOST = 0,    /* not ours: the real call with the arguments as they came */
    KFS_OURS = 1,    /* vol, base, rel are set */
    KFS_HOST_AT = 2, /* not ours, but under another name: the real call with AT_FDCWD (or plain) and loc->host */
};
struct kfs_loc {
    struct kfs_vol *vol;
    kfs_ino_t base;  /* directory inode that rel is relative to */
    const char *rel; /* no leading slash; "" = base itself. Points into the caller's path or into host[] */
    int hops;        /* escapes so far; KFS_SYMLOOP_MAX ends in -ELOOP */
    char host[KFS_PATH_MAX];
};
/* The quick test of entry.c: false = certainly the host's (a few ns: first bytes, "..", cwd and dirfd state). */
bool kfs_pre_maybe(int dirfd, const char *path);
/* The full answer. A kfs_where, or -errno (-EFAULT for unreadable path pointers where cheap, -ENAMETOOLONG, -ENOENT for ""). Handles absolute paths under
 * a prefix in any spelling ("//", "/./", "/../"), relative paths with a cwd inside a volume or above a prefix, dirfds of ours and host dirfds
 * above a prefix, ".." out of the volume, /proc/self/fd/N/… and /proc/self/cwd/… of ours. */
int kfs_pre_where(int dirfd, const char *path, struct kfs_loc *loc);
/* kfsd said that the path escapes: status KFS_WIRE_ESCAPE_*, data the rest. Sets *loc anew; returns a kfs_where or -errno. */
int kfs_pre_escape(struct kfs_loc *loc, int status, const char *data, size_t len);
/* The real call failed with ENOENT (or ENOTDIR/ELOOP): does a host symlink on the way lead into a volume? Same answers as kfs_pre_where; KFS_HOST = no. */
int kfs_pre_host_symlink(int dirfd, const char *path, bool follow_last, struct kfs_loc *loc);

/* The cwd inside a volume: vol NULL when the cwd is the host's. */
struct kfs_cwd {
    struct kfs_vol *vol;
    kfs_ino_t ino;
    bool above; /* host cwd that is an ancestor of some prefix */
};
extern struct kfs_cwd kfs_pre_cwd;
void kfs_pre_cwd_refresh(void); /* look at the kernel's cwd (readlink /proc/self/cwd); at start and after every chdir */

/* ---- lookup.c: tier 1 ------------------------------------------------------------------------------------------- */
/* Walk loc through shared memory. 1: *ret filled. -ENOENT, -EACCES, -ENOTDIR, -ELOOP, -ENAMETOOLONG: the answer. 0: not known here; ask kfsd.
 * LIVE attributes are returned as they are: the caller looks at ret->flags. parent_write: also wants to know if… (no) */
int kfs_pre_lookup(const struct kfs_loc *loc, bool follow, struct kfs_attr *ret);
/* Attributes of one inode from shared memory: 1 or 0. */
int kfs_pre_attr(struct kfs_vol *v, kfs_ino_t ino, struct kfs_attr *ret);

/* ---- rpc.c: tier 3 ---------------------------------------------------------------------------------------------- */
struct kfs_call {
    struct kfs_wire_req req; /* op, flags, ino, … by the caller; magic, lens, ids by rpc */
    const char *path, *path2; /* NUL-terminated or NULL */
    const void *data;
    size_t data_len;
    void *reply; /* room for the answer's data (may be NULL) */
    size_t reply_cap;
    struct kfs_wire_rep rep; /* filled */
    size_t reply_len;        /* bytes in reply */
    int fds[KFS_WIRE_FDS_MAX]; /* received (CLOEXEC), -1 if none; the caller owns them */
};
/* One request and its answer; reconnects, re-sends and restarts kfsd as design section 5 says. Returns rep.status, or -EIO/-ETIMEDOUT… when kfsd cannot be
 * reached for rpc_wait. Data longer than reply_cap: -ERANGE. fds it does not want are closed. */
long kfs_pre_rpc(struct kfs_vol *v, struct kfs_call *c);
/* The same for an operation on loc (req.ino and path are set from it): goes on through escapes into other volumes. Returns the status (0 or -errno), or
 * 1 with loc as KFS_HOST_AT: the path is the host's after all, do the real call on loc->host. */
long kfs_pre_rpc_at(struct kfs_loc *loc, struct kfs_call *c);

/* ---- fdtab.c: whose descriptor? ---------------------------------------------------------------------------------- */
enum kfs_fd_kind { KFS_FD_FILE = 1, KFS_FD_DIR = 2 };
struct kfs_fdinfo {
    struct kfs_vol *vol;
    kfs_ino_t ino;
    uint64_t dev, cache_ino; /* of the kernel's descriptor */
    uint8_t kind;            /* enum kfs_fd_kind */
    bool writer;             /* open for writing: CLOSE before close */
    bool standin;            /* a file that is still arriving (base/pure/arrival.h): */
    uint64_t version, key;   /* of the stand-in */
};
/* False = certainly not ours, from the table alone (1-2 ns). True: ask kfs_pre_fd. */
bool kfs_pre_fd_maybe(int fd);
/* 1: ours, *ret filled and checked against the kernel (one fstat). 0: not ours (remembered). */
int kfs_pre_fd(int fd, struct kfs_fdinfo *ret);
void kfs_pre_fd_set(int fd, const struct kfs_fdinfo *i); /* a descriptor that we opened */
void kfs_pre_fd_not(int fd);     /* known to be the host's (just opened by a real call) */
void kfs_pre_fd_unknown(int fd); /* look again at the next use */
void kfs_pre_fd_dup(int from, int to);

/* ---- standin.c: files that are still arriving: see preload/standin.h -------------------------------------------------- */

/* ---- do_io.c: opening, shared by stdio, exec, mkstemp, … ---------------------------------------------------------- */
/* open(2) on a location. Returns the fd (>= 0) or -errno, or KFS_PRE_GO_HOST: do the real call on loc->host. */
#define KFS_PRE_GO_HOST (-5000L)
long kfs_pre_open_loc(struct kfs_loc *loc, int flags, uint32_t mode, uint32_t wire_flags);
/* open(2) by path from anywhere: our side or the real one. -errno. */
long kfs_pre_open(int dirfd, const char *path, int flags, uint32_t mode);
/* What close(2) must do before the number goes: commit a writer. 0 or -errno (the descriptor is still open). */
long kfs_pre_before_close(int fd);
uint32_t kfs_pre_umask(void);
/* A name for the kernel that leads to the content of this open genuine fd: the cache file's own path (same user) or /proc/self/fd/N. cap >= KFS_PATH_MAX. */
void kfs_pre_fd_path(int fd, char *buf, size_t cap);

/* ---- inside the core (init.c, prefix.c, fdtab.c, lookup.c, rpc.c, do_attr.c) ------------------------------------------ */
struct stat;
struct timespec;
extern int (*kfs_pre_vdso_clock)(int, struct timespec *); /* NULL: use the system call */
uint64_t kfs_pre_now_ns(bool coarse);                      /* CLOCK_MONOTONIC or CLOCK_MONOTONIC_COARSE */
uint64_t kfs_pre_file_time_ns(void); /* CLOCK_REALTIME as the kernel stamps files: coarse */
void kfs_pre_prefix_init(void);
/* kfs_pre_fd and the kernel's fstat of it in one. */
int kfs_pre_fd_stat(int fd, struct kfs_fdinfo *ret, struct stat *ret_st);
/* For *at calls with a host dirfd: may relative paths lead below a prefix? */
bool kfs_pre_fd_at_maybe(int fd);
bool kfs_pre_fd_above(int fd); /* classified: a host directory above (or, on the host, at or below) a prefix */
/* Is it a stand-in, whatever the table says? */
bool kfs_pre_fd_look_standin(int fd, struct kfs_fdinfo *ret);
/* Has another number of the table a stand-in of the same content? fd: one that the table has as a stand-in. */
bool kfs_pre_fd_standin_elsewhere(int fd);
int kfs_pre_fd_standin_next(int fd); /* the first number from fd on that the table has as a stand-in, or -1 */
/* The table says: ours, and no writer. Not checked against the kernel: good for deciding that a close has nothing to commit. */
bool kfs_pre_fd_reader(int fd);
/* A kernel path (as /proc/self/fd/N reads) that names something in a cache directory: 1 and vol, ino, kind set; else 0. */
int kfs_pre_cache_name(const char *name, size_t len, struct kfs_fdinfo *ret);
/* Is this absolute host path an ancestor of a prefix, or a prefix, or below one? */
bool kfs_pre_near_prefix(const char *path);
/* "/proc/self/fd/N", "/dev/fd/N", "/dev/stdin", "/proc/self/cwd" and their other spellings. True: *ret_fd (AT_FDCWD for cwd) and *ret_rest (behind it). */
bool kfs_pre_magic(const char *path, int *ret_fd, const char **ret_rest);
/* As kfs_pre_where for calls that do not follow the last component: a magic link itself is the host's. */
int kfs_pre_where_nofollow(int dirfd, const char *path, struct kfs_loc *loc);
/* LOOKUP through tier 1, else 3: 0 and *ret, -errno, or 1: the host's, at loc->host. */
long kfs_pre_attr_at(struct kfs_loc *loc, bool follow, struct kfs_attr *ret);
/* HELLO answered on a new connection: take over segment and stats page (both may be -1; closed here). */
int kfs_pre_hello(struct kfs_vol *v, const struct kfs_wire_hello *h, int segment_fd, int stats_fd);
void kfs_pre_rpc_drop(void); /* close pooled connections */
int kfs_pre_connect(struct kfs_vol *v); /* one connection and HELLO, kept in the pool */
long kfs_pre_fsync_all(bool written_only);

#pragma GCC visibility pop

#endif
