/* base/pure/sys.h — raw system calls by name
 *
 * What     Thin functions over the architecture's kfs_sys3/4/6. Results are the kernel's: -errno on failure, errno untouched.
 * Why      Code in a stranger's process must not come back to the functions that it replaces, nor disturb errno or thread cancellation.
 */
#ifndef KFS_BASE_PURE_SYS_H
#define KFS_BASE_PURE_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#if defined __x86_64__
#include "base/pure/sys_x86_64.h"
#elif defined __aarch64__
#include "base/pure/sys_aarch64.h"
#else
#error "no raw system calls for this architecture"
#endif

#define KFS_SYS_FDCWD (-100)

static inline long kfs_sys_openat(int dirfd, const char *path, int flags, unsigned mode)
{
    return kfs_sys4(SYS_openat, dirfd, (long)path, flags, (long)mode);
}
static inline long kfs_sys_close(int fd)
{
    return kfs_sys3(SYS_close, fd, 0, 0);
}
static inline long kfs_sys_read(int fd, void *buf, size_t n)
{
    return kfs_sys3(SYS_read, fd, (long)buf, (long)n);
}
static inline long kfs_sys_pread(int fd, void *buf, size_t n, long off)
{
    return kfs_sys4(SYS_pread64, fd, (long)buf, (long)n, off);
}
static inline long kfs_sys_write(int fd, const void *buf, size_t n)
{
    return kfs_sys3(SYS_write, fd, (long)buf, (long)n);
}
/* st: struct stat, which is the kernel's on these architectures. */
static inline long kfs_sys_fstat(int fd, void *st)
{
    return kfs_sys3(SYS_fstat, fd, (long)st, 0);
}
static inline long kfs_sys_fstatat(int dirfd, const char *path, void *st, int flags)
{
    return kfs_sys4(SYS_newfstatat, dirfd, (long)path, (long)st, flags);
}
static inline long kfs_sys_readlinkat(int dirfd, const char *path, char *buf, size_t cap)
{
    return kfs_sys4(SYS_readlinkat, dirfd, (long)path, (long)buf, (long)cap);
}
static inline long kfs_sys_fcntl(int fd, int cmd, long arg)
{
    return kfs_sys3(SYS_fcntl, fd, cmd, arg);
}
static inline long kfs_sys_dup3(int from, int to, int flags)
{
    return kfs_sys3(SYS_dup3, from, to, flags);
}
static inline long kfs_sys_mmap(void *addr, size_t len, int prot, int flags, int fd, long off)
{
    return kfs_sys6(SYS_mmap, (long)addr, (long)len, prot, flags, fd, off);
}
static inline long kfs_sys_munmap(void *addr, size_t len)
{
    return kfs_sys3(SYS_munmap, (long)addr, (long)len, 0);
}
static inline long kfs_sys_fchdir(int fd)
{
    return kfs_sys3(SYS_fchdir, fd, 0, 0);
}
static inline long kfs_sys_chdir(const char *path)
{
    return kfs_sys3(SYS_chdir, (long)path, 0, 0);
}
static inline int kfs_sys_getpid(void)
{
    return (int)kfs_sys3(SYS_getpid, 0, 0, 0);
}
static inline int kfs_sys_gettid(void)
{
    return (int)kfs_sys3(SYS_gettid, 0, 0, 0);
}

#endif
