/* preload/standin.h — files that are read while they arrive
 *
 * What     A large file that is not here yet is opened as a stand-in (base/pure/arrival.h). Reads are served here: what is present is copied out of the
 *          partial file, which the process has mapped, for what is missing kfsd is asked to wait (WANT). Everything else first settles: the
 *          number gets the genuine descriptor, once the file is whole, and the kernel goes on.
 * Model    The offset is the stand-in's own in the kernel, so it is shared as any; a read claims its bytes by one lseek. Whoever settles ends the
 *          stand-in by one lseek too; the others that share it (dups, parent, child, receiver) see it at their next call and take the same
 *          genuine description, which kfsd keeps for them. Only the number of the call is exchanged.
 *          A file that somebody on the node opens for writing is settled at the next read, so that changes are seen as on a local file system.
 *          One mapping per (inode, version) in the process, in a table of slots; it goes with the last close that the table knows of.
 * Signal   Async-signal-safe; waits go on after a handler, as those for a disk do.
 * Fork     Mappings and numbers are the child's as well. A vfork child maps for each call anew.
 * Blocks   Until kfsd has the bytes, or says that they cannot be had.
 * Absent   Reads that reach the kernel past the shim: EBADF, never wrong bytes.
 */
#ifndef KFS_PRELOAD_STANDIN_H
#define KFS_PRELOAD_STANDIN_H

#include "preload/shim.h"

#pragma GCC visibility push(hidden)

/* The number becomes the genuine descriptor, with the same offset and flags. 0 (also when it is no stand-in any more), or -errno: it stays as it is. */
long kfs_pre_settle_info(int fd, const struct kfs_fdinfo *i);
/* The same for a number that may be one; what is no stand-in is left alone. errno is not touched. */
long kfs_pre_settle(int fd);
/* Each number that is one (only_kept: and stays open over exec). The first error. */
long kfs_pre_settle_all(bool only_kept);
/* This number is about to be closed or replaced. */
void kfs_pre_standin_closed(int fd);
/* Can the file be opened as a stand-in? oflags: of the open. False once the process gives descriptors to the kernel in memory that we do not see. */
bool kfs_pre_standin_may(int oflags);
void kfs_pre_standin_never(void); /* …which it does from now on */
/* An open has just given a stand-in: what may need more than that settles it. */
long kfs_pre_standin_opened(int fd, const struct kfs_fdinfo *i);

#pragma GCC visibility pop

#endif
