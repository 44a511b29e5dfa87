/* tools/kfsd/kfsd.h — what the parts of the daemon share
 *
 * What     main.c (arguments, life), server.c (sockets, workers, clients), ops*.c (one handler a wire operation), resolve.c (path walk), openfile.c
 *          (live files, commit, fill), arrive.c and neighbours.c (content on its way into the cache), standin.c (descriptors of arriving files), watch.c (last closes, sweep), house.c (housekeeping), publish.c (metadata to segment), control.c (JSON for people), crash.c.
 *
 * Model    struct kfsd_vol is one served volume. The publish lock `pub` orders the segment: whoever changes metadata, or publishes what it read from
 *          there, does both under `pub`; so no slow thread can publish what a later change has replaced. Never held over object I/O.
 *          struct kfsd_file is an inode under management: live (its truth is w/INO), an orphan, or just being filled.
 *
 * Locks    kfsd_file.lock -> kfsd_arrival.finish -> kfsd_vol.pub -> kfsd_vol.table; arrive_lock is a leaf; and `evicted` and the one in kfsd_standins alone. The callback of evictions only takes `evicted`: it may come from inside
 *          any call of the cache, also under the others.
 *
 * Threads  Workers (4..64, and those who wait for bytes), per volume: a watcher, 2 settlers, an arriver, a housekeeper; one heart for all volumes; main waits for signals.
 */
#ifndef KFS_TOOLS_KFSD_KFSD_H
#define KFS_TOOLS_KFSD_KFSD_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/map.h"
#include "base/pure/perm.h"
#include "base/pure/shm_layout.h"
#include "base/pure/wire.h"
#include "blockstore/cache_shm.h"
#include "tools/common/volume.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>

#define KFSD_RACY_NS 20000000LL /* kernel file times are coarse: a change this soon after a look may carry the same time */
#define KFSD_EVICTED_MAX 4096
#define KFSD_LISTED 1024u

struct kfsd_vol;
struct kfsd_house;

/* An inode under management. `refs`, `queued`, `orphan`, `next` belong to vol->table; the rest to `lock`. `live` changes only under lock + pub and may be
 * read under either. */
struct kfsd_file {
    kfs_ino_t ino;
    unsigned refs;
    bool queued; /* in the settlers' queue, which holds a reference */
    bool live;   /* content is w/INO */
    bool orphan; /* nlink 0: goes when nobody has it open */
    struct kfsd_file *next;
    _Atomic uint64_t retry_ns; /* the sweep leaves it alone until then */
    uint64_t orphan_ns; /* since when */

    pthread_mutex_t lock;
    /* What w/INO looked like when it was last the same as what is committed. */
    struct {
        bool valid;
        bool trusted; /* taken while nobody had it open for writing: no page of it was mapped dirty */
        int64_t size, taken_ns;
        struct timespec mtime, ctime;
    } base;
    atomic_bool want_commit; /* commit=session: a writer closed it */
    unsigned backoff_ms;
};

struct kfsd_vol {
    struct kfsd_vol *next;
    struct kfs_volume *v;
    struct kfs_meta *meta;
    struct kfs_store *store;
    struct kfs_cache *cache;
    int cache_fd; /* of the first cache directory; the cache's own */
    struct kfs_shm *shm;
    const struct kfs_shm_header *seg;
    uint64_t dev;
    bool session;              /* default commit mode */
    uint64_t start_ns, ready_ns; /* no change is answered before ready_ns */
    uint64_t first_object;     /* ids below are of earlier lives */
    pthread_mutex_t pub;
    atomic_bool store_dirty;   /* objects written but not synced */
    atomic_bool stop;

    pthread_mutex_t table; /* files, queue, refs */
    pthread_cond_t work;
    struct kfs_map files;
    struct kfsd_file *queue, **queue_last;
    atomic_uint live_count;    /* live files and orphans */
    atomic_uint failed_count;  /* commits that failed since start */
    atomic_ulong commit_count; /* commits that changed content since start */
    atomic_ulong stored_bytes; /* what they wrote to objects and inline, as stored */

    pthread_mutex_t evicted;
    struct {
        kfs_ino_t ino;
        uint64_t version;
    } evicted_list[KFSD_EVICTED_MAX];
    unsigned evicted_count;

    struct kfsd_standins *standins;

    /* arrive.c, neighbours.c: under arrive_lock, a leaf */
    uint64_t stream_bytes;     /* larger files are given out as stand-ins; 0: never */
    pthread_mutex_t arrive_lock;
    pthread_cond_t arrive_work;
    struct kfs_map arrivals;   /* by inode: struct kfsd_arrival, a chain of versions */
    size_t arrival_count;
    struct kfsd_arrival *arrive_first, **arrive_last; /* whole, for the arriver */
    struct kfsd_neighbours *neighbours;
    bool neighbours_due, arrive_stop, arriver_on;
    pthread_t arriver;
    struct kfsd_listed {
        kfs_ino_t dir;
        int64_t mtime_s;
        uint32_t mtime_ns;
    } listed[KFSD_LISTED]; /* directories that somebody began to list; under pub */

    int watch_fd, wake_fd;
    int rescue_fd; /* the cache directory was removed, and is there again */
    atomic_bool rescue;
    pthread_t watcher, settlers[2];
    struct kfsd_house *house;
    bool threads_on;

    char socket[KFS_PATH_MAX];
    atomic_ulong ops[KFS_OP_END];
    atomic_ulong stats_ended[KFS_TIER_COUNT];
    atomic_uint clients;
};

struct kfsd_conn;

struct kfsd_options {
    const char *config, *cache_dir, *run_dir, *socket, *log, *commit, *key_file;
    bool foreground, private_, create;
    double linger_s;
    int ready_fd;
};

struct kfsd {
    struct kfsd_options opt;
    struct kfs_conf conf;
    struct kfsd_vol *vols;
    unsigned vol_count;
    int epfd;
    atomic_bool stop; /* no new request is taken */
    atomic_uint busy; /* requests being worked on */
    atomic_uint conn_count;
    atomic_ullong idle_since_ns; /* when the last connection went */
};
extern struct kfsd kfsd;

/* ---- one request ------------------------------------------------------------------------------------------------- */
struct kfsd_req {
    struct kfsd_vol *vol;
    struct kfsd_conn *conn;
    const struct kfs_wire_req *w;
    char path[KFS_PATH_MAX + 1], path2[KFS_PATH_MAX + 1]; /* NUL-terminated copies */
    const unsigned char *data;
    size_t data_len;
    const struct kfs_cred *cred;
    struct kfs_opid op;

    /* the answer */
    struct kfs_wire_rep rep;
    unsigned char *out; /* KFS_WIRE_DATA_MAX bytes */
    size_t out_len;
    int fds[KFS_WIRE_FDS_MAX]; /* -1: none */
    bool fd_borrowed[KFS_WIRE_FDS_MAX]; /* not closed after sending */
    bool drop; /* no answer: the connection ends, and the next kfsd is asked */
    struct kfs_err err;
};

/* ops.c. Runs a checked request; the status goes into rep. */
void kfsd_op_run(struct kfsd_req *r);
const char *kfsd_op_name(unsigned op);
typedef int kfsd_handler(struct kfsd_req *r);
kfsd_handler kfsd_op_lookup, kfsd_op_readdir, kfsd_op_readlink, kfsd_op_setattr, kfsd_op_getxattr, kfsd_op_listxattr, kfsd_op_setxattr,
    kfsd_op_removexattr, kfsd_op_statfs, kfsd_op_pathof;                                                /* ops_attr.c */
kfsd_handler kfsd_op_mkdir, kfsd_op_unlink, kfsd_op_rename, kfsd_op_link, kfsd_op_symlink, kfsd_op_mknod; /* ops_ns.c */
kfsd_handler kfsd_op_open, kfsd_op_close, kfsd_op_fsync;                                                /* ops_open.c */
kfsd_handler kfsd_op_arrival, kfsd_op_want, kfsd_op_settle;                                             /* arrive.c */
kfsd_handler kfsd_op_control;                                                                           /* control.c */

/* ---- resolve.c ----------------------------------------------------------------------------------------------------- */
#define KFSD_WALK_FOLLOW 1u       /* the last component's symlink */
#define KFSD_WALK_SLASH_FOLLOW 2u /* it is also followed when a slash comes after it */
struct kfsd_walk {
    kfs_ino_t parent;     /* of the last component; 0 when the path has none ("", ".", "..") */
    char name[KFS_NAME_MAX + 1];
    size_t name_len;
    bool found;           /* attr is filled; otherwise the last name does not exist */
    bool slash;           /* a slash came after the last name */
    enum { KFSD_LAST_NAME, KFSD_LAST_SELF, KFSD_LAST_DOT, KFSD_LAST_DOTDOT } last;
    struct kfs_attr attr; /* complete: live files merged */
};
/* Walk r's path from ino. 0: *ret filled (found or not). -errno, or KFS_WIRE_ESCAPE_* with r->out set. */
int kfsd_walk(struct kfsd_req *r, kfs_ino_t ino, const char *path, unsigned flags, struct kfsd_walk *ret);
/* The same for things that must exist: -ENOENT, and -ENOTDIR for "file/". */
int kfsd_walk_found(struct kfsd_req *r, kfs_ino_t ino, const char *path, unsigned flags, struct kfsd_walk *ret);

/* ---- publish.c ------------------------------------------------------------------------------------------------------- */
/* Merge what the cache knows into attributes fresh from meta, and publish them. pub held. */
void kfsd_attr_publish_locked(struct kfsd_vol *v, struct kfs_attr *a);
void kfsd_attr_complete_locked(struct kfsd_vol *v, struct kfs_attr *a); /* merge only */
/* From meta, merged and published. pub held. */
int kfsd_attr_refresh_locked(struct kfsd_vol *v, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err);
/* From the segment when it knows and the file is not live, else refreshed. */
int kfsd_attr_get(struct kfsd_vol *v, kfs_ino_t ino, struct kfs_attr *ret, struct kfs_err *err);
/* 0: *ret filled; -ENOENT. */
int kfsd_child_get(struct kfsd_vol *v, kfs_ino_t parent, const char *name, size_t len, struct kfs_attr *ret, struct kfs_err *err);
int kfsd_link_get(struct kfsd_vol *v, kfs_ino_t ino, char *buf, struct kfs_err *err); /* KFS_PATH_MAX bytes; length */
void kfsd_on_evict(void *vol, kfs_ino_t ino, uint64_t version);
int kfsd_heart_start(void);
void kfsd_heart_stop(void);

/* ---- openfile.c ------------------------------------------------------------------------------------------------------ */
struct kfsd_file *kfsd_file_get(struct kfsd_vol *v, kfs_ino_t ino); /* NULL: out of memory */
void kfsd_file_put(struct kfsd_vol *v, struct kfsd_file *f);
bool kfsd_file_is_live(struct kfsd_vol *v, kfs_ino_t ino);      /* a hint without pub */
/* Each file under management at this moment, referenced. Free the array; put each. */
struct kfsd_file **kfsd_file_all(struct kfsd_vol *v, size_t *ret_count);
void kfsd_settle_later(struct kfsd_vol *v, kfs_ino_t ino);
void kfsd_cache_check(struct kfsd_vol *v); /* makes a removed cache directory anew, and sees after what is live */

/* A descriptor for the client on a regular file. oflags: as of open(2), permission already checked. */
int kfsd_file_open(struct kfsd_vol *v, kfs_ino_t ino, int oflags, int *ret_fd, struct kfs_err *err);
/* The same for a client that can take a stand-in: *ret_standin tells whether it is one, and then *ret_attr is of just that content. */
int kfsd_file_open_standin(struct kfsd_vol *v, kfs_ino_t ino, int oflags, int *ret_fd, bool *ret_standin, struct kfs_attr *ret_attr, struct kfs_err *err);
/* A new open file description of what fd is open on, also if it has no name any more. */
int kfsd_reopen(int fd, int flags);
/* Make the empty live file of an inode that was created in this publish section. pub held; the inode is unknown to everybody else. */
int kfsd_file_create_locked(struct kfsd_vol *v, const struct kfs_attr *a, int oflags, bool orphan, int *ret_fd, struct kfs_err *err);
int kfsd_file_truncate(struct kfsd_vol *v, kfs_ino_t ino, uint64_t size, struct kfs_err *err);
int kfsd_file_set_mtime(struct kfsd_vol *v, kfs_ino_t ino, const struct kfs_meta_setattr *s, const struct kfs_cred *cred, const struct kfs_opid *op,
                        struct kfs_attr *ret, struct kfs_err *err);
void kfsd_file_set_mode(struct kfsd_vol *v, const struct kfs_attr *a); /* mirror x bits on the cache file */
/* Commit for CLOSE, FSYNC: 0 or -errno. Not live: 0 at once. */
int kfsd_file_commit(struct kfsd_vol *v, kfs_ino_t ino, bool durable, struct kfs_err *err);
int kfsd_file_want_commit(struct kfsd_vol *v, kfs_ino_t ino); /* session: soon */
int kfsd_flush(struct kfsd_vol *v, bool durable, unsigned *ret_count, struct kfs_err *err);
int kfsd_sync(struct kfsd_vol *v, struct kfs_err *err); /* what is committed survives a power cut */
/* An inode lost its last name / got one again. No lock held / pub held. */
void kfsd_file_unlinked(struct kfsd_vol *v, const struct kfs_attr *a);
void kfsd_file_linked_locked(struct kfsd_vol *v, kfs_ino_t ino);
/* 0: settled or gone; 1: somebody still has it open; -errno. */
int kfsd_file_settle(struct kfsd_vol *v, struct kfsd_file *f);
int kfsd_recover(struct kfsd_vol *v, struct kfs_err *err);
unsigned kfsd_uncommitted(struct kfsd_vol *v);

/* ---- standin.c ------------------------------------------------------------------------------------------------------- */
/* Stand-ins (base/pure/arrival.h): their descriptors, who may ask by them, and the genuine description that takes a stand-in's place. A stand-in is known
 * until its last descriptor is closed anywhere (inotify on the memfd). Those of an earlier kfsd are met when somebody asks by them. */
struct kfsd_standins;
struct kfsd_arrival;
int kfsd_standins_start(struct kfsd_vol *v, struct kfs_err *err);
void kfsd_standins_stop(struct kfsd_vol *v);
/* A new one, for a client that has permission. oflags: of the open. */
int kfsd_standin_make(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version, uint64_t size_bytes, int oflags, int *ret_fd, struct kfs_err *err);
/* May r's client ask for (ino, version) by this key? 0; -ESTALE: a key of something else; -EACCES. */
int kfsd_standin_check(struct kfsd_req *r, kfs_ino_t ino, uint64_t version, uint64_t key);
/* SETTLE, once the content is whole (x): a descriptor on the genuine description of `key`, opened now unless it is known. */
int kfsd_standin_settle(struct kfsd_req *r, struct kfsd_arrival *x, kfs_ino_t ino, uint64_t version, uint64_t key, int oflags, bool again, int *ret_fd);
/* How many stand-ins of this content (version 0: of any version) are open on the node. */
unsigned kfsd_standin_count(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version);
void kfsd_standin_sweep(struct kfsd_vol *v); /* forget those that are closed; also done by the other calls */

/* ---- watch.c --------------------------------------------------------------------------------------------------------- */
int kfsd_watch_start(struct kfsd_vol *v, struct kfs_err *err);
void kfsd_watch_stop(struct kfsd_vol *v);

/* ---- house.c --------------------------------------------------------------------------------------------------------- */
int kfsd_house_start(struct kfsd_vol *v, struct kfs_err *err); /* before the first object of this session is written */
int kfsd_house_run(struct kfsd_vol *v, struct kfs_err *err);   /* its thread */
void kfsd_house_halt(struct kfsd_vol *v);                      /* no work from now on; waits for what is under way */
void kfsd_house_stop(struct kfsd_vol *v, bool clean);          /* clean: everything is committed, nothing was left behind */
void kfsd_house_tick(struct kfsd_vol *v);                      /* each second */
/* Start a collection; options: words "delete", "full", "grace=SECONDS". *ret_id: to ask for it. -EBUSY: one is under way. */
int kfsd_house_gc(struct kfsd_vol *v, char *options, unsigned *ret_id, struct kfs_err *err);
/* State and progress as JSON: {"job", "state", "phase", "done", "total", "error", "result"}. A job that nobody asks for ends after half a minute. */
int kfsd_house_job_show(struct kfsd_vol *v, unsigned id, struct kfs_buf *b, struct kfs_err *err);

/* ---- server.c -------------------------------------------------------------------------------------------------------- */
int kfsd_server_listen(const char *path, struct kfsd_vol *v, struct kfs_err *err); /* v NULL: HELLO names the volume */
int kfsd_server_start(struct kfs_err *err);
void kfsd_server_stop(void); /* waits for the requests under way */
void kfsd_touches(void); /* uses of cache files that clients opened themselves, to the cache */
void kfsd_stats_sum(struct kfsd_vol *v, uint64_t ret[KFS_TIER_COUNT]);
bool kfsd_client_busy(const uint64_t client[2], uint64_t seq, const struct kfsd_conn *except);
/* Around a wait for bytes from far away, which must not keep others from being served: the number of workers may grow by those who wait. */
void kfsd_park(bool begin);
/* Was this connection given this arrival's map? learn: it is now. A connection remembers the last few, and may forget. */
bool kfsd_conn_knows(struct kfsd_conn *c, uint64_t serial, bool learn);
/* HELLO: bind the connection. */
int kfsd_conn_hello(struct kfsd_req *r);

/* ---- control.c: settings that may change while kfsd runs ---------------------------------------------------------------- */
void kfsd_conf_apply(void);

/* ---- crash.c --------------------------------------------------------------------------------------------------------- */
void kfsd_crash_init(void);

static inline void kfsd_ts_newer(int64_t *s, uint32_t *ns, struct timespec t)
{
    if (t.tv_sec > *s || (t.tv_sec == *s && t.tv_nsec > (long)*ns)) {
        *s = t.tv_sec;
        *ns = (uint32_t)t.tv_nsec;
    }
}

#endif
