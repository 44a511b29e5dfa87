/* base/pure/wire.h — messages between a client and kfsd
 *
 * What     Frames over a Unix SOCK_SEQPACKET socket: one request, one answer, in turn. A message is one packet.
 * Format   Request: struct kfs_wire_req, then path (path_len bytes), path2 (path2_len), data (data_len), no padding, no NUL.
 *          Answer: struct kfs_wire_rep, then data (data_len); descriptors by SCM_RIGHTS. Host byte order: both ends are one machine.
 *          len is the whole message; it must equal what was received, or the receiver drops the connection.
 * Model    First message is HELLO. A connection has at most one request under way. A client that lost its connection
 *          re-sends the same seq with KFS_WIRE_RETRY on a new one, under the same client id.
 * Identity kfsd takes uid, gid and groups from SO_PEERCRED/SO_PEERGROUPS of the connection, so a process that changes its
 *          identity opens a new connection.
 * Errors   status 0 or -errno, or one of the KFS_WIRE_ESCAPE_* values: the path leaves the volume, the client goes on itself.
 */
#ifndef KFS_BASE_PURE_WIRE_H
#define KFS_BASE_PURE_WIRE_H

#include "base/pure/attr.h"
#include "base/pure/hash.h"
#include "base/pure/mounts.h"
#include <string.h>

#define KFS_WIRE_MAGIC 0x3157464bu /* "KFW1" */
#define KFS_WIRE_VERSION 1u
#define KFS_WIRE_DATA_MAX 65536u
#define KFS_WIRE_MSG_MAX (sizeof(struct kfs_wire_req) + 2u * KFS_PATH_MAX + KFS_WIRE_DATA_MAX)
#define KFS_WIRE_FDS_MAX 2

enum kfs_wire_op {
#define WIRE_OP(name, number, changes, doc) KFS_OP_##name = number,
#include "base/pure/wire_ops.def"
#undef WIRE_OP
    KFS_OP_END
};

/* kfs_wire_req.flags */
#define KFS_WIRE_RETRY 1u    /* this (client, seq) may have been executed before */
#define KFS_WIRE_NOFOLLOW 2u /* the last component of path is not followed */
#define KFS_WIRE_EXEC 4u     /* OPEN: for execve or dlopen-like use; needs x permission */
#define KFS_WIRE_SESSION 8u  /* CLOSE: commit mode session: answer at once */
#define KFS_WIRE_STANDIN 16u /* OPEN: the client can take a stand-in (base/pure/arrival.h) for a large file that is not here yet */

/* kfs_wire_req.valid, of SETATTR */
#define KFS_SET_MODE 1u
#define KFS_SET_UID 2u
#define KFS_SET_GID 4u
#define KFS_SET_ATIME 8u
#define KFS_SET_MTIME 16u
#define KFS_SET_SIZE 32u
#define KFS_SET_ATIME_NOW 64u
#define KFS_SET_MTIME_NOW 128u

struct kfs_wire_req {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint32_t len;
    uint32_t flags;
    uint64_t client[2]; /* random, chosen by the connection's process */
    uint64_t seq;       /* rising per client; 0 = not remembered */
    uint64_t ino, ino2;
    uint64_t value, value2; /* see the operation */
    uint64_t size_bytes;    /* SETATTR */
    int64_t atime_s, mtime_s;
    uint32_t atime_ns, mtime_ns;
    uint32_t valid; /* KFS_SET_* */
    uint32_t oflags; /* of open(2), see kfs_wire_oflags */
    uint32_t mode, umask;
    uint32_t uid, gid; /* SETATTR: the new owner */
    uint32_t path_len, path2_len, data_len;
    uint32_t reserved;
};
static_assert(sizeof(struct kfs_wire_req) == 144, "request layout");

/* Flags of open(2) to the wire's numbers, and back: those of x86-64, so that programs of another architecture (under an emulator) can share a kfsd. */
static inline uint32_t kfs_wire_oflags(uint32_t oflags)
{
#if defined __aarch64__ /* O_DIRECTORY and O_DIRECT, O_NOFOLLOW and O_LARGEFILE have changed places */
    return (oflags & ~0x3c000u) | (oflags & 0x30000u) >> 2 | (oflags & 0xc000u) << 2;
#else
    return oflags;
#endif
}

/* kfs_wire_rep.status beyond -errno: path resolution leaves the volume; data = the path to go on with. */
/* For operations on two names value says which one escaped (1 or 2). A symlink that is followed as the last component escapes like any other. */
#define KFS_WIRE_ESCAPE_ABS (-10001) /* data: an absolute host path (target of an absolute symlink + what was left) */
#define KFS_WIRE_ESCAPE_UP (-10002)  /* data: what is left after ".." at the root, relative to the prefix's parent */

/* kfs_wire_rep.value of OPEN */
#define KFS_OPEN_CREATED 1u
#define KFS_OPEN_WRITER 2u /* a genuine fd open for writing: CLOSE before close */
#define KFS_OPEN_DIR 4u    /* the fd is a dead directory */
#define KFS_OPEN_NODE 8u   /* the fd (O_PATH) is the kernel's FIFO or socket: the client opens it through /proc/self/fd, where it may wait */
#define KFS_OPEN_STANDIN 16u /* the fd is a stand-in: base/pure/arrival.h; attr.version says of which content */

struct kfs_wire_rep {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint32_t len;
    int32_t status;
    uint64_t seq;
    uint64_t value;
    uint64_t dev; /* OPEN: st_dev and st_ino of the fd passed, for identity checks */
    uint64_t cache_ino;
    uint32_t data_len;
    uint32_t fd_count;
    struct kfs_attr attr;
};
static_assert(sizeof(struct kfs_wire_rep) == 56 + 128, "answer layout");

/* Data of the HELLO answer. */
struct kfs_wire_hello {
    uint64_t epoch;        /* differs for each life of kfsd */
    uint64_t dev;          /* st_dev that files of this volume show */
    uint64_t segment_bytes;
    uint64_t root_ino;
    uint32_t flags;        /* KFS_HELLO_* */
    uint32_t uid, gid;     /* of the peer, as kfsd sees it */
    uint32_t cache_dir_len;
    char volume_id[40];    /* uuid text, NUL-terminated */
    char cache_dir[KFS_PATH_MAX]; /* absolute; names under it identify genuine fds */
    char more_dirs[KFS_MORE_DIRS_MAX]; /* further directories with f/ and d/, each ended by a newline */
};
#define KFS_HELLO_DIRECT 1u  /* the client may open CACHE/f/XX/INO-VERSION itself (same user) */
#define KFS_HELLO_SESSION 2u /* the volume's default is commit=session */

/* One entry of READDIR's data: this header, the name, no padding. */
struct kfs_wire_dirent {
    uint64_t ino;
    uint8_t type; /* DT_* */
    uint8_t name_len;
} __attribute__((packed));

struct kfs_wire_statfs {
    uint64_t block_bytes, blocks, blocks_free, files, files_free, fsid;
};

/* The stats page: one per client process, written by the shim, read by kfsd. Plain counters, relaxed stores. */
enum kfs_tier { KFS_TIER_SHM, KFS_TIER_KERNEL, KFS_TIER_KFSD, KFS_TIER_COUNT };
#define KFS_WIRE_TOUCHED 32
struct kfs_wire_stats {
    uint64_t calls[KFS_TIER_COUNT];
    uint64_t touch_count; /* cache files opened by name so far; the last ones are in touched[(n - 1) % KFS_WIRE_TOUCHED], … */
    uint64_t touched[KFS_WIRE_TOUCHED]; /* kfs_wire_touch */
    uint64_t reserved[28];
};
/* A page is a process's, which may have several volumes: the low bits of the volume's st_dev stand above the inode. */
static inline uint64_t kfs_wire_touch(uint64_t dev, uint64_t ino)
{
    return dev << 48 | (ino & 0xffffffffffffULL);
}
static_assert(sizeof(struct kfs_wire_stats) == 512, "stats layout");

/* Cache file names, relative to the cache directory: shared by kfsd (which makes them) and the shim (which recognises them).
 *   f/XX/INO-VERSION   clean content; XX = low byte of INO; all numbers lower-case hex without leading zeros (XX: two digits)
 *   w/INO              live content (also orphans)
 *   d/INO              dead directories (removed at once: links read "… (deleted)")
 *   t/…                being filled
 *   p/INO-VERSION      arriving (base/pure/arrival.h)
 *   n/INO              FIFOs and sockets; n/INO.b, n/INO.n: see blockstore/cache_node.c
 */

/* Content in memory, when no cache directory can take it: the link of a genuine read-only descriptor reads "/memfd:kfsm-INO-VOLUME (deleted)", VOLUME as
 * below. */
#define KFS_MEMORY_NAME "kfsm-"
static inline uint64_t kfs_memory_volume(const char *volume_id)
{
    return kfs_hash(volume_id, strlen(volume_id), 0) >> 48;
}

#endif
