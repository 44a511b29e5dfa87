/* base/pure/arrival.h — a large file that is still arriving: what kfsd shows of it to the shim
 *
 * What     One map per (inode, version), in a sealed memfd that kfsd writes and the shim maps read-only: which frames of the partial cache file
 *          (CACHE/p/INO-VERSION) hold content. Beside it the client gets a read-only descriptor of the partial file, which it maps.
 * Layout   struct kfs_arrival, then (frame_count + 63) / 64 words of 64 bits: bit i % 64 of word i / 64 is set when frame i (KFS_FRAME_BYTES of the
 *          file from i * KFS_FRAME_BYTES) is whole in the partial file. Host byte order.
 * Model    Bits only go from 0 to 1. kfsd writes the bytes of the frame, then sets the bit with release order; a reader that sees the bit with acquire
 *          order sees the bytes. `state` WHOLE: every bit is set. FAILED: `error` (an errno) is what a read of a missing frame gives until kfsd tries again
 *          (WANT does). A map is never reused for another version.
 * Bad input  The shim checks magic, version, ino, size and that the map's bytes cover frame_count before it uses anything.
 */
#ifndef KFS_BASE_PURE_ARRIVAL_H
#define KFS_BASE_PURE_ARRIVAL_H

#include "base/pure/attr.h"
#include "base/pure/hash.h"
#include <string.h>

#define KFS_ARRIVAL_MAGIC 0x3152414bu /* "KAR1" */
#define KFS_ARRIVAL_VERSION 1u

enum kfs_arrival_state { KFS_ARRIVAL_ARRIVING, KFS_ARRIVAL_WHOLE, KFS_ARRIVAL_FAILED };

struct kfs_arrival {
    uint32_t magic, version;
    uint64_t ino, content_version, size_bytes, frame_count;
    uint32_t state; /* enum kfs_arrival_state; atomic */
    int32_t error;  /* atomic */
    uint64_t reserved[2];
    uint64_t words[]; /* atomic */
};
static_assert(sizeof(struct kfs_arrival) == 64, "arrival layout");

static inline uint64_t kfs_arrival_frames(uint64_t size_bytes)
{
    return size_bytes / KFS_FRAME_BYTES + (size_bytes % KFS_FRAME_BYTES != 0);
}
static inline uint64_t kfs_arrival_bytes(uint64_t size_bytes)
{
    return sizeof(struct kfs_arrival) + (kfs_arrival_frames(size_bytes) + 63) / 64 * 8;
}
static inline int kfs_arrival_has(const struct kfs_arrival *a, uint64_t frame)
{
    return (int)(__atomic_load_n(&a->words[frame / 64], __ATOMIC_ACQUIRE) >> (frame % 64) & 1);
}

/* The stand-in: a sealed memfd of the file's size, reopened with access mode 3, so that lseek and fstat's size are right and every read, write and map that
 * the shim does not serve fails with EBADF or EACCES. Its link in /proc/self/fd reads "/memfd:kfs-INO-VERSION-KEY (deleted)" (lower-case hex, no leading
 * zeros). One memfd and one open file description for each open, so the description can be told by the memfd's inode, and by KEY.
 *
 * KEY      16 bits of the volume (kfs_standin_volume), then 48 random bits: who knows it has, or had, the descriptor.
 * Offset   The file's offset is the stand-in's own: shared over dup, fork and SCM_RIGHTS as any. A read claims its bytes by lseek(fd, n, SEEK_CUR).
 * Settling SETTLE gives the one genuine description that takes the place of this stand-in, the same one to every process that shares it; kfsd made it with
 *          O_APPEND, which means "not yet". The process whose lseek(standin, KFS_STANDIN_SETTLED, SEEK_CUR) succeeds has ended the stand-in: what comes
 *          back less KFS_STANDIN_SETTLED is the offset, which it sets in the genuine one, and then the status flags, O_APPEND gone. A second such lseek
 *          overflows and fails, so there is exactly one; the others wait until O_APPEND is gone. A claim that comes back at or above
 *          KFS_STANDIN_SETTLED is void: the reader settles and goes on with the genuine descriptor. */
#define KFS_STANDIN_PREFIX "/memfd:kfs-"
#define KFS_STANDIN_SETTLED (1LL << 62)

/* SETTLE's size_bytes */
#define KFS_SETTLE_AGAIN 1u /* the stand-in was ended by somebody: -ESTALE unless kfsd still has its genuine description */

static inline uint64_t kfs_standin_volume(const char *volume_id)
{
    return kfs_hash(volume_id, strlen(volume_id), 0) & 0xffffULL << 48;
}

#endif
