/* base/cleanup.h — what a function acquires, it gives back on every way out
 *
 * What     kfs_auto_fd and kfs_auto_free before a local variable's declaration; kfs_auto(f) for any other clean-up function;
 *          kfs_steal and kfs_steal_fd where ownership leaves the function.
 *
 *              kfs_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
 *              if (fd < 0)
 *                  return -errno;
 *              …
 *              *ret_fd = kfs_steal_fd(&fd);
 *
 * Errors   Clean-up preserves errno.
 * Absent   longjmp skips clean-ups.
 */
#ifndef KFS_BASE_CLEANUP_H
#define KFS_BASE_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void kfs_cleanup_fd(const int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd);
        errno = saved;
    }
}

/* The argument is the address of a pointer of any type. */
static inline void kfs_cleanup_free(void *p)
{
    int saved = errno;
    free(*(void **)p);
    errno = saved;
}

/* f takes the address of the variable. */
#define kfs_auto(f) __attribute__((cleanup(f)))
#define kfs_auto_fd kfs_auto(kfs_cleanup_fd)
#define kfs_auto_free kfs_auto(kfs_cleanup_free)

/* The pointer's value; the variable becomes NULL. */
#define kfs_steal(pp)                                                                              \
    ({                                                                                             \
        __typeof__(*(pp)) kfs_stolen = *(pp);                                                      \
        *(pp) = NULL;                                                                              \
        kfs_stolen;                                                                                \
    })

static inline int kfs_steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

#endif
