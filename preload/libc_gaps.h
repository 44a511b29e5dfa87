/* preload/libc_gaps.h — what the headers of musl lack or rename
 *
 * What     The same sources make libkfs.so (glibc) and libkfs-musl.so. Included after libc's headers by the few files that need it; for glibc
 *          it is empty.
 */
#ifndef KFS_PRELOAD_LIBC_GAPS_H
#define KFS_PRELOAD_LIBC_GAPS_H

#ifndef __GLIBC__

#include <stdint.h>

/* Macros for the 64 spellings would rename rows of calls.def. */
#undef getdents64

#define __error_code __err /* of struct aiocb */

#ifndef FTW_ACTIONRETVAL /* glibc's own: no caller can ask for it */
#define FTW_ACTIONRETVAL 0
#define FTW_STOP 1
#define FTW_SKIP_SUBTREE 2
#define FTW_SKIP_SIBLINGS 3
#endif

#ifndef STATX_BASIC_STATS
#define STATX_BASIC_STATS 0x7ffu
#define STATX_BTIME 0x800u
struct statx_timestamp {
    int64_t tv_sec;
    uint32_t tv_nsec, pad;
};
struct statx {
    uint32_t stx_mask, stx_blksize;
    uint64_t stx_attributes;
    uint32_t stx_nlink, stx_uid, stx_gid;
    uint16_t stx_mode, pad0;
    uint64_t stx_ino, stx_size, stx_blocks, stx_attributes_mask;
    struct statx_timestamp stx_atime, stx_btime, stx_ctime, stx_mtime;
    uint32_t stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor;
    uint64_t spare[14];
};
_Static_assert(sizeof(struct statx) == 256, "the kernel's layout");
#endif
#ifndef STATX__RESERVED
#define STATX__RESERVED 0x80000000u
#endif
#ifndef AT_STATX_SYNC_TYPE
#define AT_STATX_SYNC_TYPE 0x6000
#endif

#endif
#endif
