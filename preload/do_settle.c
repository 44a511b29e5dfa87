/* preload/do_settle.c — calls that need more of a file that is still arriving than its bytes
 *
 * What     Each waits until the file is whole and its number has the genuine descriptor (preload/standin.h), then does the real call. What the kernel
 *          is given in memory that we do not see (libaio, io_uring) makes the process one without stand-ins.
 */
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/standin.h"
#include "base/pure/sys.h"
#include <aio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* The real call on what is the kernel's now; a failure to get there is the call's. */
#define SETTLED(fd, call)                                                                                                          \
    ({                                                                                                                             \
        long settled_ = kfs_pre_settle(fd);                                                                                        \
        settled_ < 0 ? kfs_pre_ret(settled_) : (call);                                                                             \
    })

void *kfs_do_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
    long r = flags & MAP_ANONYMOUS ? 0 : kfs_pre_settle(fd);
    if (r < 0) {
        errno = (int)-r;
        return MAP_FAILED;
    }
    return kfs_real.mmap(addr, len, prot, flags, fd, off);
}

ssize_t kfs_do_sendfile(int out, int in, off_t *off, size_t n)
{
    return SETTLED(in, kfs_real.sendfile(out, in, off, n));
}

ssize_t kfs_do_splice(int in, off_t *in_off, int out, off_t *out_off, size_t n, unsigned flags)
{
    return SETTLED(in, kfs_real.splice(in, in_off, out, out_off, n, flags));
}

ssize_t kfs_do_copy_file_range(int in, off_t *in_off, int out, off_t *out_off, size_t n, unsigned flags)
{
    return SETTLED(in, kfs_real.copy_file_range(in, in_off, out, out_off, n, flags));
}

int kfs_do_flock(int fd, int op)
{
    return (int)SETTLED(fd, kfs_real.flock(fd, op));
}

int kfs_do_lockf(int fd, int op, off_t len)
{
    return (int)SETTLED(fd, kfs_real.lockf(fd, op, len));
}

int kfs_do_ioctl(int fd, unsigned long request, void *arg)
{
    switch ((unsigned)request) {
    case FIONREAD:
    case FIOCLEX:
    case FIONCLEX:
    case FIONBIO:
    case TCGETS: /* isatty, of every program that opens a file by stdio or Python */
    case TIOCGWINSZ:
        return kfs_real.ioctl(fd, request, arg);
    default:
        return (int)SETTLED(fd, kfs_real.ioctl(fd, request, arg));
    }
}

/* A hint: who reads is ahead of it. */
ssize_t kfs_do_readahead(int fd, off_t off, size_t n)
{
    struct kfs_fdinfo i;
    return kfs_pre_fd_look_standin(fd, &i) ? 0 : kfs_real.readahead(fd, off, n);
}

/* --- asynchronous ------------------------------------------------------------------------------------------------------------------ */
int kfs_do_aio_read(struct aiocb *cb)
{
    return (int)SETTLED(cb->aio_fildes, kfs_real.aio_read(cb));
}

int kfs_do_lio_listio(int mode, struct aiocb *const list[], int count, struct sigevent *event)
{
    for (int n = 0; n < count; n++) {
        long r = list[n] && list[n]->aio_lio_opcode == LIO_READ ? kfs_pre_settle(list[n]->aio_fildes) : 0;
        if (r < 0)
            return (int)kfs_pre_ret(r);
    }
    return kfs_real.lio_listio(mode, list, count, event);
}

static long no_more_standins(void)
{
    if (!kfs_pre_vol_count)
        return 0;
    kfs_pre_standin_never();
    return kfs_pre_settle_all(false);
}

/* Functions of libraries that may come late; they return -errno. */
#define LATE_LIBRARY(name, args)                                                                                                   \
    ({                                                                                                                             \
        long late_ = no_more_standins();                                                                                           \
        __typeof(kfs_real.name) f_ = (__typeof(kfs_real.name))kfs_pre_real_find(#name);                                            \
        late_ < 0 ? (int)late_ : f_ ? f_ args : -ENOSYS;                                                                           \
    })

int kfs_do_io_setup(int count, void *context)
{
    return LATE_LIBRARY(io_setup, (count, context));
}

int kfs_do_io_queue_init(int count, void *context)
{
    return LATE_LIBRARY(io_queue_init, (count, context));
}

int kfs_do_io_uring_queue_init(unsigned entries, void *ring, unsigned flags)
{
    return LATE_LIBRARY(io_uring_queue_init, (entries, ring, flags));
}

int kfs_do_io_uring_queue_init_params(unsigned entries, void *ring, void *params)
{
    return LATE_LIBRARY(io_uring_queue_init_params, (entries, ring, params));
}

int kfs_do_io_uring_queue_init_mem(unsigned entries, void *ring, void *params, void *buf, size_t size)
{
    return LATE_LIBRARY(io_uring_queue_init_mem, (entries, ring, params, buf, size));
}

/* --- sending ----------------------------------------------------------------------------------------------------------------------- */
/* The receiver may be a program without us. */
static long sent(const struct msghdr *m)
{
    if (!m || !kfs_guard_can_read(m, sizeof *m) || !m->msg_control || !kfs_guard_can_read(m->msg_control, m->msg_controllen))
        return 0;
    const char *p = m->msg_control, *end = p + m->msg_controllen;
    while (p + sizeof(struct cmsghdr) <= end) {
        const struct cmsghdr *h = (const void *)p;
        if (h->cmsg_len < CMSG_LEN(0) || h->cmsg_len > (size_t)(end - p))
            return 0;
        const int *fds = (const void *)(p + CMSG_LEN(0));
        size_t count = h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS ? (h->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
        for (size_t i = 0; i < count; i++) {
            long r = kfs_pre_settle(fds[i]);
            if (r < 0)
                return r;
        }
        p += CMSG_ALIGN(h->cmsg_len);
    }
    return 0;
}

ssize_t kfs_do_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    long r = sent(msg);
    return r < 0 ? kfs_pre_ret(r) : kfs_real.sendmsg(fd, msg, flags);
}

int kfs_do_sendmmsg(int fd, struct mmsghdr *msgs, unsigned count, int flags)
{
    for (unsigned i = 0; i < count && kfs_guard_can_read(&msgs[i], sizeof msgs[i]); i++) {
        long r = sent(&msgs[i].msg_hdr);
        if (r < 0)
            return (int)kfs_pre_ret(r);
    }
    return kfs_real.sendmmsg(fd, msgs, count, flags);
}
