/* preload/do_syscall.c — system calls that a program makes itself: by syscall(), or by an instruction of its own (inline.h)
 *
 * What     The same answers as the wrappers', in two spellings: kfs_do_syscall as libc's function gives them, kfs_inline_call as the kernel does.
 * Model    served() sorts the numbers by what their arguments are; what it does not name is the kernel's, untouched.
 * Signal   Async-signal-safe where the wrapper of that call is.
 */
#include "preload/guard.h"
#include "preload/inline.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "preload/standin.h"
#include "base/pure/sys.h"
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "preload/libc_gaps.h"

#define P(i) ((char *)a[i])
#define I(i) ((int)a[i])

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* Newer than many headers; the same numbers on all architectures. */
enum {
    NR_io_uring_setup = 425,
    NR_open_tree = 428,
    NR_move_mount = 429,
    NR_fspick = 433,
    NR_mount_setattr = 442,
    NR_setxattrat = 463,
    NR_getxattrat = 464,
    NR_listxattrat = 465,
    NR_removexattrat = 466,
    NR_open_tree_attr = 467,
    NR_file_getattr = 468,
    NR_file_setattr = 469,
};

static long straight(long number, const long a[6])
{
    return kfs_pre_ret(kfs_sys6(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

/* The wrappers' two questions: before the kernel was asked, and after it said ENOENT (`late`), when a host symlink may lead into a volume. */
static bool perhaps(int dirfd, const char *path, bool late)
{
    return late ? path && kfs_pre_late(dirfd, path, true) : kfs_pre_maybe(dirfd, path);
}

/* What is not served of a volume: the answer of a kernel that is too old for it, after which programs take the older calls. */
static bool sys_unknown(int dirfd, const char *path, long *ret)
{
    struct kfs_loc loc;
    struct kfs_fdinfo i;
    bool ours = path && *path ? kfs_pre_where(dirfd, path, &loc) == KFS_OURS : kfs_pre_fd(dirfd, &i);
    if (ours)
        *ret = kfs_pre_ret(-ENOSYS);
    return ours;
}

/* The numbers whose first words are (dirfd, path). True: *ret is the answer. */
static bool sys_at(long n, const long a[6], bool late, long *ret)
{
    if (!perhaps(I(0), P(1), late))
        return false;
    switch (n) {
    case SYS_openat:
        *ret = kfs_do_openat(I(0), P(1), I(2), (mode_t)a[3]);
        return true;
    case SYS_openat2:
        *ret = kfs_do_openat2(I(0), P(1), (const struct open_how *)a[2], (size_t)a[3]);
        return true;
#ifdef SYS_futimesat
    case SYS_futimesat:
        *ret = kfs_do_futimesat(I(0), P(1), (const struct timeval *)a[2]);
        return true;
#endif
    case NR_open_tree:
    case NR_move_mount:
    case NR_fspick:
    case NR_mount_setattr:
    case NR_setxattrat:
    case NR_getxattrat:
    case NR_listxattrat:
    case NR_removexattrat:
    case NR_open_tree_attr:
    case NR_file_getattr:
    case NR_file_setattr:
        return sys_unknown(I(0), P(1), ret);
    case SYS_newfstatat:
        *ret = kfs_do_fstatat(I(0), P(1), (struct stat *)a[2], I(3));
        return true;
    case SYS_statx:
        *ret = kfs_do_statx(I(0), P(1), I(2), (unsigned)a[3], (struct statx *)a[4]);
        return true;
    case SYS_faccessat:
        *ret = kfs_do_faccessat(I(0), P(1), I(2), 0);
        return true;
    case SYS_faccessat2:
        *ret = kfs_do_faccessat(I(0), P(1), I(2), I(3));
        return true;
    case SYS_fchmodat:
        *ret = kfs_do_fchmodat(I(0), P(1), (mode_t)a[2], 0);
        return true;
    case SYS_fchmodat2:
        *ret = kfs_do_fchmodat(I(0), P(1), (mode_t)a[2], I(3));
        return true;
    case SYS_fchownat:
        *ret = kfs_do_fchownat(I(0), P(1), (uid_t)a[2], (gid_t)a[3], I(4));
        return true;
    case SYS_utimensat:
        *ret = !P(1) ? kfs_do_futimens(I(0), (const struct timespec *)a[2]) : kfs_do_utimensat(I(0), P(1), (const struct timespec *)a[2], I(3));
        return true;
    case SYS_mkdirat:
        *ret = kfs_do_mkdirat(I(0), P(1), (mode_t)a[2]);
        return true;
    case SYS_mknodat:
        *ret = kfs_do_mknodat(I(0), P(1), (mode_t)a[2], (dev_t)a[3]);
        return true;
    case SYS_unlinkat:
        *ret = kfs_do_unlinkat(I(0), P(1), I(2));
        return true;
    case SYS_readlinkat:
        *ret = kfs_do_readlinkat(I(0), P(1), P(2), (size_t)a[3]);
        return true;
    case SYS_name_to_handle_at:
        *ret = kfs_do_name_to_handle_at(I(0), P(1), (struct file_handle *)a[2], (int *)a[3], I(4));
        return true;
    default:
        return false;
    }
}

static bool sys_names2(long n, const long a[6], bool late, long *ret)
{
    switch (n) {
    case SYS_symlinkat:
        if (!perhaps(I(1), P(2), late))
            return false;
        *ret = kfs_do_symlinkat(P(0), I(1), P(2));
        return true;
#ifdef SYS_renameat
    case SYS_renameat:
#endif
    case SYS_renameat2:
        if (!perhaps(I(0), P(1), late) && !perhaps(I(2), P(3), late))
            return false;
        *ret = kfs_do_renameat2(I(0), P(1), I(2), P(3), n == SYS_renameat2 ? (unsigned)a[4] : 0);
        return true;
#ifdef SYS_rename
    case SYS_rename:
    case SYS_link:
        if (!perhaps(AT_FDCWD, P(0), late) && !perhaps(AT_FDCWD, P(1), late))
            return false;
        *ret = n == SYS_rename ? kfs_do_rename(P(0), P(1)) : kfs_do_link(P(0), P(1));
        return true;
    case SYS_symlink:
        if (!perhaps(AT_FDCWD, P(1), late))
            return false;
        *ret = kfs_do_symlink(P(0), P(1));
        return true;
#endif
    case SYS_inotify_add_watch:
        if (!perhaps(AT_FDCWD, P(1), late))
            return false;
        *ret = kfs_do_inotify_add_watch(I(0), P(1), (uint32_t)a[2]);
        return true;
    case SYS_fanotify_mark:
        if (!perhaps(I(3), P(4), late))
            return false;
        *ret = kfs_do_fanotify_mark(I(0), (unsigned)a[1], (uint64_t)a[2], I(3), P(4));
        return true;
    case SYS_linkat:
        if (!perhaps(I(0), P(1), late) && !perhaps(I(2), P(3), late))
            return false;
        *ret = kfs_do_linkat(I(0), P(1), I(2), P(3), I(4));
        return true;
    default:
        return false;
    }
}

/* Calls on one plain path; the older ones where the architecture has them. */
static bool sys_path(long n, const long a[6], bool late, long *ret)
{
    if (!perhaps(AT_FDCWD, P(0), late))
        return false;
    switch (n) {
#ifdef SYS_open
    case SYS_open:
        *ret = kfs_do_open(P(0), I(1), (mode_t)a[2]);
        return true;
    case SYS_creat:
        *ret = kfs_do_creat(P(0), (mode_t)a[1]);
        return true;
    case SYS_stat:
        *ret = kfs_do_stat(P(0), (struct stat *)a[1]);
        return true;
    case SYS_lstat:
        *ret = kfs_do_lstat(P(0), (struct stat *)a[1]);
        return true;
    case SYS_access:
        *ret = kfs_do_access(P(0), I(1));
        return true;
    case SYS_mkdir:
        *ret = kfs_do_mkdir(P(0), (mode_t)a[1]);
        return true;
    case SYS_rmdir:
        *ret = kfs_do_rmdir(P(0));
        return true;
    case SYS_unlink:
        *ret = kfs_do_unlink(P(0));
        return true;
    case SYS_readlink:
        *ret = kfs_do_readlink(P(0), P(1), (size_t)a[2]);
        return true;
    case SYS_chmod:
        *ret = kfs_do_chmod(P(0), (mode_t)a[1]);
        return true;
    case SYS_chown:
        *ret = kfs_do_chown(P(0), (uid_t)a[1], (gid_t)a[2]);
        return true;
    case SYS_lchown:
        *ret = kfs_do_lchown(P(0), (uid_t)a[1], (gid_t)a[2]);
        return true;
    case SYS_mknod:
        *ret = kfs_do_mknod(P(0), (mode_t)a[1], (dev_t)a[2]);
        return true;
    case SYS_utime:
        *ret = kfs_do_utime(P(0), (const struct utimbuf *)a[1]);
        return true;
    case SYS_utimes:
        *ret = kfs_do_utimes(P(0), (const struct timeval *)a[1]);
        return true;
#endif
    case SYS_truncate:
        *ret = kfs_do_truncate(P(0), a[1]);
        return true;
    case SYS_statfs:
        *ret = kfs_do_statfs(P(0), (struct statfs *)a[1]);
        return true;
    case SYS_chroot:
        *ret = kfs_do_chroot(P(0));
        return true;
    case SYS_getxattr:
        *ret = kfs_do_getxattr(P(0), P(1), P(2), (size_t)a[3]);
        return true;
    case SYS_lgetxattr:
        *ret = kfs_do_lgetxattr(P(0), P(1), P(2), (size_t)a[3]);
        return true;
    case SYS_setxattr:
        *ret = kfs_do_setxattr(P(0), P(1), P(2), (size_t)a[3], I(4));
        return true;
    case SYS_lsetxattr:
        *ret = kfs_do_lsetxattr(P(0), P(1), P(2), (size_t)a[3], I(4));
        return true;
    case SYS_listxattr:
        *ret = kfs_do_listxattr(P(0), P(1), (size_t)a[2]);
        return true;
    case SYS_llistxattr:
        *ret = kfs_do_llistxattr(P(0), P(1), (size_t)a[2]);
        return true;
    case SYS_removexattr:
        *ret = kfs_do_removexattr(P(0), P(1));
        return true;
    case SYS_lremovexattr:
        *ret = kfs_do_lremovexattr(P(0), P(1));
        return true;
    default:
        return false;
    }
}

#ifdef SYS_getdents
/* A record of getdents64 as getdents has it: the name a byte earlier, the type in the last byte; the length is the same. */
static long dirent_to_old(char *record)
{
    struct dirent *d = (struct dirent *)(void *)record;
    unsigned char type = d->d_type;
    size_t head = offsetof(struct dirent, d_type);
    memmove(record + head, d->d_name, strlen(d->d_name) + 1);
    record[d->d_reclen - 1] = (char)type;
    return d->d_reclen;
}
#endif

static bool sys_fd(long n, const long a[6], long *ret)
{
    if (!kfs_pre_fd_maybe(I(0)))
        return false;
    switch (n) {
    case SYS_close:
        *ret = kfs_do_close(I(0));
        return true;
    case SYS_fstat:
        *ret = kfs_do_fstat(I(0), (struct stat *)a[1]);
        return true;
    case SYS_fsync:
    case SYS_fdatasync:
        *ret = kfs_do_fsync(I(0));
        return true;
    case SYS_syncfs:
        *ret = kfs_do_syncfs(I(0));
        return true;
    case SYS_getdents64:
        *ret = kfs_do_getdents64(I(0), P(1), (size_t)a[2]);
        return true;
#ifdef SYS_getdents
    case SYS_getdents:
        *ret = kfs_do_getdents64(I(0), P(1), (size_t)a[2]);
        for (long at = 0; at < *ret;)
            at += dirent_to_old(P(1) + at);
        return true;
#endif
    case SYS_fstatfs:
        *ret = kfs_do_fstatfs(I(0), (struct statfs *)a[1]);
        return true;
    case SYS_fgetxattr:
        *ret = kfs_do_fgetxattr(I(0), P(1), P(2), (size_t)a[3]);
        return true;
    case SYS_fsetxattr:
        *ret = kfs_do_fsetxattr(I(0), P(1), P(2), (size_t)a[3], I(4));
        return true;
    case SYS_flistxattr:
        *ret = kfs_do_flistxattr(I(0), P(1), (size_t)a[2]);
        return true;
    case SYS_fremovexattr:
        *ret = kfs_do_fremovexattr(I(0), P(1));
        return true;
    case SYS_fchmod:
        *ret = kfs_do_fchmod(I(0), (mode_t)a[1]);
        return true;
    case SYS_fchown:
        *ret = kfs_do_fchown(I(0), (uid_t)a[1], (gid_t)a[2]);
        return true;
    case SYS_dup:
        *ret = kfs_do_dup(I(0));
        return true;
    case SYS_fcntl:
        *ret = kfs_do_fcntl(I(0), I(1), P(2));
        return true;
    default:
        return false;
    }
}

/* A ring, or a queue of libaio's: what goes through it is not seen. */
static long no_standins(long n, const long a[6])
{
    long r;
    kfs_pre_standin_never();
    r = kfs_pre_settle_all(false);
    return r < 0 ? kfs_pre_ret(r) : straight(n, a);
}

/* Process-wide state, and what makes or takes descriptors unseen. */
static bool sys_other(long n, const long a[6], long *ret)
{
    switch (n) {
    case SYS_io_setup:
    case NR_io_uring_setup:
        *ret = no_standins(n, a);
        return true;
    case SYS_close_range:
        *ret = kfs_do_close_range((unsigned)a[0], (unsigned)a[1], I(2));
        return true;
    case SYS_dup3:
        *ret = kfs_do_dup3(I(0), I(1), I(2));
        return true;
#ifdef SYS_dup2
    case SYS_dup2:
        *ret = kfs_do_dup2(I(0), I(1));
        return true;
#endif
    case SYS_chdir:
        *ret = kfs_do_chdir(P(0));
        return true;
    case SYS_fchdir:
        *ret = kfs_do_fchdir(I(0));
        return true;
    case SYS_umask:
        *ret = kfs_do_umask((mode_t)a[0]);
        return true;
    case SYS_execve:
        *ret = kfs_do_execve(P(0), (char *const *)a[1], (char *const *)a[2]);
        return true;
    case SYS_execveat:
        *ret = kfs_do_execveat(I(0), P(1), (char *const *)a[2], (char *const *)a[3], I(4));
        return true;
    case SYS_getcwd: /* the system call's result is the length */
        *ret = kfs_do_getcwd(P(0), (size_t)a[1]) ? (long)strlen(P(0)) + 1 : -1;
        return true;
    case SYS_setuid:
    case SYS_setgid:
    case SYS_setreuid:
    case SYS_setregid:
    case SYS_setresuid:
    case SYS_setresgid:
    case SYS_setgroups:
    case SYS_setfsuid:
    case SYS_setfsgid:
        *ret = straight(n, a);
        kfs_pre_cred_forget();
        return true;
    case SYS_bind:
        *ret = kfs_do_bind(I(0), (const struct sockaddr *)a[1], (unsigned)a[2]);
        return true;
    case SYS_connect:
        *ret = kfs_do_connect(I(0), (const struct sockaddr *)a[1], (unsigned)a[2]);
        return true;
    case SYS_sendto:
        *ret = kfs_do_sendto(I(0), P(1), (size_t)a[2], I(3), (const struct sockaddr *)a[4], (unsigned)a[5]);
        return true;
    case SYS_getsockname:
        *ret = kfs_do_getsockname(I(0), (struct sockaddr *)a[1], (unsigned *)a[2]);
        return true;
    case SYS_getpeername:
        *ret = kfs_do_getpeername(I(0), (struct sockaddr *)a[1], (unsigned *)a[2]);
        return true;
    case SYS_recvmsg:
        *ret = kfs_do_recvmsg(I(0), (struct msghdr *)a[1], I(2));
        return true;
    case SYS_recvmmsg:
        *ret = kfs_do_recvmmsg(I(0), (struct mmsghdr *)a[1], (unsigned)a[2], I(3), (struct timespec *)a[4]);
        return true;
    case SYS_pidfd_getfd:
        *ret = kfs_do_pidfd_getfd(I(0), I(1), (unsigned)a[2]);
        return true;
    default:
        return false;
    }
}

/* --- which are ours ------------------------------------------------------------------------------------------------------------- */

enum sort { SORT_KERNELS, SORT_AT, SORT_NAMES2, SORT_FD, SORT_PATH, SORT_OTHER, SORT_STANDIN };

static enum sort sort_of(long n)
{
    switch (n) {
    case SYS_openat:
    case SYS_openat2:
    case SYS_newfstatat:
    case SYS_statx:
    case SYS_faccessat:
    case SYS_faccessat2:
    case SYS_fchmodat:
    case SYS_fchmodat2:
    case SYS_fchownat:
    case SYS_utimensat:
    case SYS_mkdirat:
    case SYS_mknodat:
    case SYS_unlinkat:
    case SYS_readlinkat:
    case SYS_name_to_handle_at:
#ifdef SYS_futimesat
    case SYS_futimesat:
#endif
    case NR_open_tree:
    case NR_move_mount:
    case NR_fspick:
    case NR_mount_setattr:
    case NR_setxattrat:
    case NR_getxattrat:
    case NR_listxattrat:
    case NR_removexattrat:
    case NR_open_tree_attr:
    case NR_file_getattr:
    case NR_file_setattr:
        return SORT_AT;
    case SYS_symlinkat:
    case SYS_renameat2:
    case SYS_linkat:
    case SYS_inotify_add_watch:
    case SYS_fanotify_mark:
#ifdef SYS_rename
    case SYS_rename:
    case SYS_link:
    case SYS_symlink:
#endif
#ifdef SYS_renameat
    case SYS_renameat:
#endif
        return SORT_NAMES2;
    case SYS_close:
    case SYS_fstat:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_syncfs:
    case SYS_getdents64:
#ifdef SYS_getdents
    case SYS_getdents:
#endif
    case SYS_fstatfs:
    case SYS_fgetxattr:
    case SYS_fsetxattr:
    case SYS_flistxattr:
    case SYS_fremovexattr:
    case SYS_fchmod:
    case SYS_fchown:
    case SYS_dup:
    case SYS_fcntl:
        return SORT_FD;
    case SYS_truncate:
#ifdef SYS_open
    case SYS_open:
    case SYS_creat:
    case SYS_stat:
    case SYS_lstat:
    case SYS_access:
    case SYS_mkdir:
    case SYS_rmdir:
    case SYS_unlink:
    case SYS_readlink:
    case SYS_chmod:
    case SYS_chown:
    case SYS_lchown:
    case SYS_mknod:
    case SYS_utime:
    case SYS_utimes:
#endif
    case SYS_statfs:
    case SYS_chroot:
    case SYS_getxattr:
    case SYS_lgetxattr:
    case SYS_setxattr:
    case SYS_lsetxattr:
    case SYS_listxattr:
    case SYS_llistxattr:
    case SYS_removexattr:
    case SYS_lremovexattr:
        return SORT_PATH;
    case SYS_close_range:
    case SYS_dup3:
#ifdef SYS_dup2
    case SYS_dup2:
#endif
    case SYS_chdir:
    case SYS_fchdir:
    case SYS_umask:
    case SYS_execve:
    case SYS_execveat:
    case SYS_getcwd:
    case SYS_setuid:
    case SYS_setgid:
    case SYS_setreuid:
    case SYS_setregid:
    case SYS_setresuid:
    case SYS_setresgid:
    case SYS_setgroups:
    case SYS_setfsuid:
    case SYS_setfsgid:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_bind:
    case SYS_connect:
    case SYS_sendto:
    case SYS_getsockname:
    case SYS_getpeername:
    case SYS_pidfd_getfd:
    case SYS_io_setup:
    case NR_io_uring_setup:
        return SORT_OTHER;
    case SYS_read:
    case SYS_pread64:
    case SYS_readv:
    case SYS_preadv:
    case SYS_preadv2:
    case SYS_lseek:
    case SYS_mmap:
    case SYS_sendfile:
    case SYS_splice:
    case SYS_copy_file_range:
    case SYS_flock:
    case SYS_ioctl:
    case SYS_readahead:
    case SYS_sendmsg:
    case SYS_sendmmsg:
        return SORT_STANDIN;
    default:
        return SORT_KERNELS;
    }
}

/* The descriptor that may be a stand-in. */
static int standin_fd(long n, const long a[6])
{
    return I(n == SYS_mmap ? 4 : n == SYS_sendfile ? 1 : 0);
}

/* Calls that are the kernel's, but for a file that is still arriving. */
static bool sys_standin(long n, const long a[6], long *ret)
{
    if (n == SYS_sendmsg || n == SYS_sendmmsg) {
        if (!kfs_pre_standin_seen)
            return false;
        *ret = n == SYS_sendmsg ? kfs_do_sendmsg(I(0), (const struct msghdr *)a[1], I(2)) : kfs_do_sendmmsg(I(0), (struct mmsghdr *)a[1], (unsigned)a[2], I(3));
        return true;
    }
    int fd = standin_fd(n, a);
    unsigned state = (unsigned)fd < KFS_FD_NUMBERS ? kfs_pre_fd_states[fd] : KFS_FD_STATE_UNKNOWN + 1;
    if (state != KFS_FD_STATE_STANDIN && !(n == SYS_lseek && state == KFS_FD_STATE_UNKNOWN))
        return false;
    switch (n) {
    case SYS_read:
        *ret = kfs_do_read(fd, P(1), (size_t)a[2]);
        return true;
    case SYS_pread64:
        *ret = kfs_do_pread(fd, P(1), (size_t)a[2], a[3]);
        return true;
    case SYS_readv:
        *ret = kfs_do_readv(fd, (const struct iovec *)a[1], I(2));
        return true;
    case SYS_preadv: /* the offset's upper half is nothing on these architectures */
        *ret = kfs_do_preadv(fd, (const struct iovec *)a[1], I(2), a[3]);
        return true;
    case SYS_preadv2:
        *ret = kfs_do_preadv2(fd, (const struct iovec *)a[1], I(2), a[3], I(5));
        return true;
    case SYS_lseek:
        *ret = kfs_do_lseek(fd, a[1], I(2));
        return true;
    case SYS_mmap:
        *ret = (long)kfs_do_mmap(P(0), (size_t)a[1], I(2), I(3), fd, a[5]);
        return true;
    case SYS_sendfile:
        *ret = kfs_do_sendfile(I(0), fd, (off_t *)a[2], (size_t)a[3]);
        return true;
    case SYS_splice:
        *ret = kfs_do_splice(fd, (off_t *)a[1], I(2), (off_t *)a[3], (size_t)a[4], (unsigned)a[5]);
        return true;
    case SYS_copy_file_range:
        *ret = kfs_do_copy_file_range(fd, (off_t *)a[1], I(2), (off_t *)a[3], (size_t)a[4], (unsigned)a[5]);
        return true;
    case SYS_flock:
        *ret = kfs_do_flock(fd, I(1));
        return true;
    case SYS_ioctl:
        *ret = kfs_do_ioctl(fd, (unsigned long)a[1], P(2));
        return true;
    case SYS_readahead:
        *ret = kfs_do_readahead(fd, a[1], (size_t)a[2]);
        return true;
    default:
        return false;
    }
}

static bool served(long n, const long a[6], bool late, long *ret)
{
    switch (sort_of(n)) {
    case SORT_AT:
        return sys_at(n, a, late, ret);
    case SORT_NAMES2:
        return sys_names2(n, a, late, ret);
    case SORT_PATH:
        return sys_path(n, a, late, ret);
    case SORT_FD:
        return !late && sys_fd(n, a, ret);
    case SORT_OTHER:
        return !late && sys_other(n, a, ret);
    case SORT_STANDIN:
        return !late && sys_standin(n, a, ret);
    default:
        return false;
    }
}

bool kfs_sys_served(long number)
{
    return sort_of(number) != SORT_KERNELS;
}

long kfs_do_syscall(long number, const long a[6])
{
    long ret;
    if (kfs_pre_vol_count && served(number, a, false, &ret))
        return ret;
    ret = kfs_real.syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (KFS_UNLIKELY(ret == -1) && errno == ENOENT && kfs_pre_vol_count) {
        long again;
        if (served(number, a, true, &again))
            ret = again;
        else
            errno = ENOENT;
        kfs_pre_late_end();
    }
    bool odd = ret == -1 && (errno == EBADF || errno == EINVAL || errno == EACCES) && kfs_pre_vol_count && sort_of(number) == SORT_STANDIN;
    if (KFS_UNLIKELY(odd) && kfs_pre_standin_late(standin_fd(number, a)))
        (void)served(number, a, false, &ret);
    return ret;
}

long kfs_inline_call(long number, const long a[6])
{
    int saved = errno;
    long r = kfs_do_syscall(number, a);
    if (r == -1)
        r = -errno;
    errno = saved;
    return r;
}
