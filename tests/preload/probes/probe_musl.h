/* tests/preload/probes/probe_musl.h — for probes built with musl: the calls that its library lacks, as their system calls; where it has no such
 * thing, a neighbour that works everywhere */
#ifndef KFS_TESTS_PROBE_MUSL_H
#define KFS_TESTS_PROBE_MUSL_H
#include "preload/libc_gaps.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define strerrorname_np strerror
#define canonicalize_file_name(path) realpath(path, NULL)
#define scandirat(dirfd, path, list, filter, compare) \
    (fchdir(dirfd) ? -1 : scandir(path, list, filter, compare))
#define RWF_DSYNC 2
#define CLOSE_RANGE_CLOEXEC 4
#define GLOB_BRACE 0
#define GLOB_ONLYDIR 0
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define STATX_ALL 0xfffu
#define getdents64(fd, buf, n) syscall(SYS_getdents64, fd, buf, n)
#define close_range(a, b, flags) (int)syscall(SYS_close_range, a, b, flags)
#define closefrom(a) (void)syscall(SYS_close_range, a, ~0u, 0)
#define preadv2(fd, v, n, off, flags) preadv(fd, v, n, off)
#define pwritev2(fd, v, n, off, flags) pwritev(fd, v, n, off)
#define renameat2(d1, a, d2, b, flags) (int)syscall(SYS_renameat2, d1, a, d2, b, flags)
#define statx(d, path, flags, mask, x) (int)syscall(SYS_statx, d, path, flags, mask, x)
#define execveat(d, path, argv, envp, flags) (int)syscall(SYS_execveat, d, path, argv, envp, flags)
#define fcloseall() fflush(NULL)
#endif
