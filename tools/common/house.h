/* tools/common/house.h — housekeeping of a volume: what needs metadata and objects together
 *
 * What     Garbage collection, and what sessions that crashed left behind (house_gc.c). kfsd runs it in the background, and when it is asked.
 * Model    All of it goes on beside readers and writers. Every step is whole by itself and leaves nothing that the next run does not find again, so a job may end
 *          at any point (stop, crash) and be started again.
 *          An object is deleted only if no extent names it, the grace time since then has passed, no fill may still read it, and the metadata that
 *          says so is durable; from that moment no commit can name it again.
 * Owner    Everything belongs to the caller.
 * Threads  One job at a time per volume.
 * Blocks   Yes, for long. `stop` ends a job within a few requests; the result then counts what was done.
 * Errors   -errno + err; -ECANCELED: stopped.
 */
#ifndef KFS_TOOLS_COMMON_HOUSE_H
#define KFS_TOOLS_COMMON_HOUSE_H

#include "blockstore/blockstore.h"
#include "meta/meta.h"
#include <stdatomic.h>

struct kfs_house {
    struct kfs_meta *meta;
    struct kfs_store *store;
    uint64_t first_object; /* ids from here on may be under way in this session */
    /* Each object that a fill may still read, whoever named it. NULL: there are no fills. */
    int (*each_in_use)(void *arg, int (*cb)(void *cb_arg, uint64_t object), void *cb_arg);
    void *arg;
    const atomic_bool *stop; /* NULL: never */

    /* For whoever watches; written by the job. */
    const char *_Atomic phase;
    atomic_ullong done, total; /* total 0: not known */
};

static inline bool kfs_house_stopped(const struct kfs_house *h)
{
    return h->stop && atomic_load(h->stop);
}

/* --- garbage ---------------------------------------------------------------------------------------------------- */

#define KFS_HOUSE_UPLOAD_AGE_S 86400 /* unfinished uploads older than this are nobody's */

struct kfs_gc_options {
    int64_t grace_s;
    bool dry_run;
    bool full;    /* list the store, too: objects of databases that were lost, of crashed uploads, of deletions that failed */
    bool uploads; /* abort unfinished uploads of writers that died */
};
struct kfs_gc_result {
    uint64_t objects, bytes;         /* deleted (dry_run: would be) */
    uint64_t waiting, waiting_bytes; /* garbage within its grace time */
    uint64_t in_use;                 /* spared because a fill may still read them */
    uint64_t listed;                 /* full: objects in the store */
    uint64_t unknown, unknown_bytes; /* full: of those, named by nothing: deleted (dry_run: would be) */
    uint64_t uploads;                /* aborted */
};
int kfs_house_gc(struct kfs_house *h, const struct kfs_gc_options *o, struct kfs_gc_result *ret, struct kfs_err *err);

/* What sessions that ended in a crash may have left. The setting "objects_unsure_from" names the first object id that such a session used; "0": nothing is
 * unsure. begin: at the start of a session whose first id is h->first_object, before any object is written; unclean: what is known of the last one if the
 * setting is not there yet. sweep deletes all ids that nothing knows between the two. end: the session ended regularly. */
int kfs_house_session_begin(struct kfs_house *h, bool unclean, uint64_t *ret_from, struct kfs_err *err);
int kfs_house_session_sweep(struct kfs_house *h, uint64_t from, uint64_t *ret_count, struct kfs_err *err);
int kfs_house_session_end(struct kfs_house *h, struct kfs_err *err);

#endif
