/* tools/kfsd/arrive.h — content on its way into the cache
 *
 * What     A struct kfsd_arrival is one version of one inode that is being fetched: every fill of kfsd is one. A large one that a client can read while it
 *          arrives has a stand-in and a map (base/pure/arrival.h); a small one is waited for.
 * Model    In the table from begin to its end; whoever asks for the same version joins. `finish` moves the file to f/, once, when it is whole; if the inode
 *          has become live or another version meanwhile, the name goes and those who hold a stand-in keep the file by its descriptor.
 *          One with a map stays in the table while a stand-in of it is open: WANT and SETTLE come at any time. When none is and nobody has asked for a
 *          while, it goes; if it is not whole, what was fetched goes too.
 * Locks    kfsd_file.lock -> arrival.finish -> kfsd_vol.pub; kfsd_vol.arrive_lock is a leaf. begin needs kfsd_file.lock, so that there is one a version.
 * Threads  Any; per volume one arriver, which finishes what nobody waits for, fetches pack neighbours and clears away.
 */
#ifndef KFS_TOOLS_KFSD_ARRIVE_H
#define KFS_TOOLS_KFSD_ARRIVE_H

#include "blockstore/fetch.h"
#include "tools/kfsd/kfsd.h"

struct kfsd_arrival;

/* begin's flags */
#define KFSD_ARRIVE_STANDIN   1u /* with stand-in and map, however small (files above stream_bytes always have them) */
#define KFSD_ARRIVE_NEIGHBOUR 2u /* nobody waits: the arriver finishes it */

/* The arrival of exactly this version, begun if there is none. file lock held. put the reference. */
int kfsd_arrive_begin(struct kfsd_vol *v, const struct kfs_attr *a, unsigned flags, struct kfsd_arrival **ret, struct kfs_err *err);
struct kfsd_arrival *kfsd_arrive_find(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version); /* a reference, or NULL */
void kfsd_arrive_put(struct kfsd_vol *v, struct kfsd_arrival *x);
/* Wait until all of it is here, and move it to f/. -EAGAIN: it is whole, but no longer what the inode has; open again. */
/* -ERESTART: its cache directory has failed, and it is out of the table: begin again. */
int kfsd_arrive_wait(struct kfsd_vol *v, struct kfsd_arrival *x, struct kfs_err *err);
void kfsd_arrive_ahead(struct kfsd_arrival *x); /* ask for all of it as read-ahead; does not wait */
/* A new descriptor of the file, after wait: also if it is no longer in f/. */
int kfsd_arrive_open(struct kfsd_arrival *x, int flags);
/* A stand-in of it (tools/kfsd/standin.c). -EOPNOTSUPP: it has no map. */
int kfsd_arrive_standin(struct kfsd_vol *v, struct kfsd_arrival *x, int oflags, int *ret_fd, struct kfs_err *err);

/* The inode is about to become something else: what somebody may still read by a stand-in is fetched now. */
void kfsd_arrive_leave(struct kfsd_vol *v, kfs_ino_t ino);
/* May somebody still read this inode by a stand-in? */
bool kfsd_arrive_in_use(struct kfsd_vol *v, kfs_ino_t ino);
/* Every object that a fill may still read: garbage collection spares them. cb != 0 stops, and is returned. */
int kfsd_arrive_each_object(struct kfsd_vol *v, int (*cb)(void *arg, uint64_t object), void *arg);

int kfsd_arrive_start(struct kfsd_vol *v, struct kfs_err *err);
void kfsd_arrive_cancel(struct kfsd_vol *v); /* whoever waits, waits no longer */
void kfsd_arrive_stop(struct kfsd_vol *v);

/* neighbours.c: a small file of a pack was not in the cache. Thinks about fetching the others of the pack. */
void kfsd_neighbours_miss(struct kfsd_vol *v, kfs_ino_t ino, const struct kfs_content *c);
void kfsd_neighbours_run(struct kfsd_vol *v); /* the arriver's part */
void kfsd_neighbours_release(struct kfsd_vol *v);

#endif
