/* base/pure/attr.h — what a file is: the attribute record shared by segment, wire and metadata
 *
 * What     One fixed-size, pointer-free record. The same bytes lie in shared memory and travel over the socket.
 * Model    Little-endian, 8-byte aligned, 128 bytes; changes need a new KFS_WIRE_VERSION and KFS_SHM_VERSION.
 */
#ifndef KFS_BASE_PURE_ATTR_H
#define KFS_BASE_PURE_ATTR_H

#include <assert.h>
#include <stdint.h>

typedef uint64_t kfs_ino_t;

#define KFS_INO_ROOT 1ULL
#define KFS_NAME_MAX 255
#define KFS_PATH_MAX 4096 /* with the NUL, as in POSIX */
#define KFS_SYMLOOP_MAX 40
#define KFS_INLINE_MAX 4096
#define KFS_FRAME_BYTES (1u << 20)
#define KFS_CHUNK_BYTES (64u << 20)
#define KFS_XATTR_VALUE_MAX 65536
#define KFS_XATTR_NAME_MAX 255

/* kfs_attr.flags */
#define KFS_ATTR_LIVE 1u   /* open for writing: size, times and blocks are the cache file's; ask kfsd or fstat */
#define KFS_ATTR_CACHED 2u /* content is whole and clean in CACHE/f/XX/INO-VERSION, whose inode is cache_ino */
#define KFS_ATTR_DIR_SHIFT 8 /* of CACHED: which cache directory, 0..7 (0: CACHE) */
#define KFS_ATTR_DIR_MASK 0x700u
#define KFS_ATTR_XATTRS 4u /* has at least one xattr; clear means getxattr is ENODATA without asking */

struct kfs_attr {
    kfs_ino_t ino;
    uint64_t size_bytes;
    uint64_t blocks;  /* of 512 bytes, as st_blocks */
    uint64_t version; /* of the content; raised by every commit */
    int64_t atime_s, mtime_s, ctime_s, btime_s;
    uint32_t atime_ns, mtime_ns, ctime_ns, btime_ns;
    uint32_t mode; /* type and permission bits, as st_mode */
    uint32_t nlink;
    uint32_t uid, gid;
    uint64_t rdev;      /* of device nodes, else 0 */
    uint64_t cache_ino; /* st_ino of the cache file when CACHED, else 0 */
    uint32_t flags;     /* KFS_ATTR_* */
    uint32_t reserved;
    uint64_t parent; /* of a directory: its parent's inode (the root's is itself); else 0 */
};
static_assert(sizeof(struct kfs_attr) == 128, "attr layout");

#endif
