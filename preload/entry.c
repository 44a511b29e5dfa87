/* preload/entry.c — the functions that applications call, made from calls.def
 *
 * What     Every exported name: one quick test, then the real function with the arguments untouched, or kfs_do_NAME.
 * Cost     Not ours: a load, a compare and a test of the path's first bytes or of one table byte; descriptor calls end in a jump.
 * Late     A path that is the host's and does not exist there may lead through a host symlink into a volume: only after ENOENT is that looked at.
 * Include  No header of libc that declares these functions: some rename them.
 * Signal   Async-signal-safe where libc's function is.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include "preload/real.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* FORWARD rows drop version numbers */

#pragma GCC visibility push(hidden)
extern int kfs_pre_state;
void kfs_pre_init(void);
bool kfs_pre_maybe(int dirfd, const char *path);
bool kfs_pre_fd_maybe(int fd);
void kfs_pre_fd_not(int fd);
void kfs_pre_fd_unknown(int fd);
#pragma GCC visibility pop
#ifdef __GLIBC__
void __chk_fail(void) __attribute__((noreturn));
#else /* fortified names are glibc's: nobody calls them */
#define __chk_fail() __builtin_trap()
#endif

#define KFS_AT_FDCWD (-100)
#define KFS_O_CREAT 0100
#define KFS_O_TMPFILE_BIT 020000000
#define KFS_O_PATH_BIT 010000000
#if defined __aarch64__
#define KFS_O_DIRECTORY_BIT 040000
#else
#define KFS_O_DIRECTORY_BIT 0200000
#endif
#define KFS_REALPATH_MAX 4096
#define KFS_F_GETFL 3
#define KFS_MAP_FAILED ((void *)-1)

#define KFS_EXPORT __attribute__((visibility("default")))
#define KFS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define KFS_READY()                                                                                \
    do {                                                                                           \
        if (KFS_UNLIKELY(__atomic_load_n(&kfs_pre_state, __ATOMIC_ACQUIRE) != 2))                  \
            kfs_pre_init();                                                                        \
    } while (0)

/* Keys of calls.def: the quick test, and what to try after a failure that may be ours. */
#define TEST_PATH(p) kfs_pre_maybe(KFS_AT_FDCWD, (p))
#define TEST_LPATH(p) TEST_PATH(p)
#define TEST_TPATH(p) TEST_PATH(p)
#define TEST_AT(d, p) kfs_pre_maybe((d), (p))
#define TEST_LAT(d, p) TEST_AT(d, p)
#define TEST_PATH2(a, b) (TEST_PATH(a) || TEST_PATH(b))
#define TEST_AT2(d1, p1, d2, p2) (TEST_AT(d1, p1) || TEST_AT(d2, p2))
#define TEST_FD(fd) kfs_pre_fd_maybe(fd)
#define TEST_FD2(a, b) (kfs_pre_fd_maybe(a) || kfs_pre_fd_maybe(b))
#define TEST_SFD(fd) ((unsigned)(fd) < KFS_FD_NUMBERS && kfs_pre_fd_states[fd] == KFS_FD_STATE_STANDIN)
#define TEST_UFD(fd) ((unsigned)(fd) < KFS_FD_NUMBERS && (kfs_pre_fd_states[fd] == KFS_FD_STATE_STANDIN || kfs_pre_fd_states[fd] == KFS_FD_STATE_UNKNOWN))
#define TEST_SEEN() KFS_UNLIKELY(kfs_pre_standin_seen)
#define TEST_ALWAYS true

#define LATE_PATH(p) (errno == ENOENT && kfs_pre_late(KFS_AT_FDCWD, (p), true))
#define LATE_LPATH(p) (errno == ENOENT && kfs_pre_late(KFS_AT_FDCWD, (p), false))
#define LATE_TPATH(p) false
#define LATE_AT(d, p) (errno == ENOENT && kfs_pre_late((d), (p), true))
#define LATE_LAT(d, p) (errno == ENOENT && kfs_pre_late((d), (p), false))
#define LATE_PATH2(a, b) (LATE_LPATH(a) || LATE_LPATH(b))
#define LATE_AT2(d1, p1, d2, p2) (LATE_LAT(d1, p1) || LATE_LAT(d2, p2))
#define LATE_FD(fd) false
#define LATE_FD2(a, b) false
#define LATE_SFD(fd) ((errno == EBADF || errno == EINVAL || errno == EACCES) && kfs_pre_standin_late(fd))
#define LATE_UFD(fd) false
#define LATE_SEEN() false
#define LATE_ALWAYS false

static inline bool failed(long r, long value)
{
    return r == value;
}
#define FAILED(r) failed((long)(r), _Generic((r), int: -1L, long: -1L, default: 0L))

static inline size_t chk(size_t wanted, size_t room)
{
    if (KFS_UNLIKELY(wanted > room))
        __chk_fail();
    return wanted;
}
#define KFS_CHK(wanted, room) chk((wanted), (room))
#define KFS_CHKP(ptr, wanted, room) ((ptr) ? (chk((wanted), (room)), (ptr)) : NULL)

/* --- prototypes ----------------------------------------------------------------------------------------------- */
#define CALL(ret, name, params, args, key, disposition, note) KFS_EXPORT ret name params;
#define VCALL(name, params, args, key, disposition, note) KFS_EXPORT void name params;
#define HAND(ret, name, params, disposition, note) KFS_EXPORT ret name params;
#define FORWARD(ret, name, params, target, args, note) KFS_EXPORT ret name params;
#define ALIAS(name, target, note)
#define PASS(name, note)
#define SKIP(name, note)
#include "preload/calls.def"
#undef CALL
#undef VCALL
#undef HAND
#undef FORWARD

/* --- the variadic ones ------------------------------------------------------------------------------------------ */
/* The mode is there only when a file may be created: callers may leave it out otherwise. */
static inline mode_t mode_of(int flags, va_list ap)
{
    bool creates = (flags & KFS_O_CREAT) || (flags & KFS_O_TMPFILE_BIT);
    return creates ? va_arg(ap, mode_t) : 0;
}

/* A read-only open may be a directory above a prefix: "unknown" lets the next *at call look. */
static inline void opened(int fd, int flags)
{
    if (fd < 0)
        return;
    if (KFS_UNLIKELY(flags & (KFS_O_DIRECTORY_BIT | KFS_O_PATH_BIT)))
        kfs_pre_fd_unknown(fd);
    else
        kfs_pre_fd_not(fd);
}

static inline int x_open(const char *path, int flags, mode_t mode)
{
    KFS_READY();
    if (KFS_UNLIKELY(TEST_PATH(path)))
        return kfs_do_open(path, flags, mode);
    int fd = kfs_real.open(path, flags, mode);
    if (KFS_UNLIKELY(fd < 0 && LATE_PATH(path))) {
        fd = kfs_do_open(path, flags, mode);
        kfs_pre_late_end();
        return fd;
    }
    opened(fd, flags);
    return fd;
}

static inline int x_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    KFS_READY();
    if (KFS_UNLIKELY(TEST_AT(dirfd, path)))
        return kfs_do_openat(dirfd, path, flags, mode);
    int fd = kfs_real.openat(dirfd, path, flags, mode);
    if (KFS_UNLIKELY(fd < 0 && LATE_AT(dirfd, path))) {
        fd = kfs_do_openat(dirfd, path, flags, mode);
        kfs_pre_late_end();
        return fd;
    }
    opened(fd, flags);
    return fd;
}

KFS_EXPORT int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return x_open(path, flags, mode);
}

KFS_EXPORT int openat(int dirfd, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    return x_openat(dirfd, path, flags, mode);
}

/* The third argument travels as a pointer: wide enough for every command. F_DUPFD and F_DUPFD_CLOEXEC make descriptors. */
KFS_EXPORT int fcntl(int fd, int cmd, ...)
{
    va_list ap;
    va_start(ap, cmd);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    KFS_READY();
    if (KFS_UNLIKELY((cmd == 0 || cmd == 1030 || TEST_SFD(fd)) && kfs_pre_fd_maybe(fd)))
        return kfs_do_fcntl(fd, cmd, arg);
    int r = kfs_real.fcntl(fd, cmd, arg);
    bool odd = (r < 0 && errno == EBADF) || (cmd == KFS_F_GETFL && r >= 0 && (r & 3) == 3);
    return KFS_UNLIKELY(odd) && kfs_pre_standin_late(fd) ? kfs_do_fcntl(fd, cmd, arg) : r;
}

KFS_EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    KFS_READY();
    if (KFS_UNLIKELY(TEST_SFD(fd)))
        return kfs_do_ioctl(fd, request, arg);
    return kfs_real.ioctl(fd, request, arg);
}

KFS_EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
    KFS_READY();
    if (KFS_UNLIKELY(TEST_SFD(fd)))
        return kfs_do_mmap(addr, len, prot, flags, fd, off);
    void *r = kfs_real.mmap(addr, len, prot, flags, fd, off);
    return KFS_UNLIKELY(r == KFS_MAP_FAILED && errno == EACCES) && kfs_pre_standin_late(fd) ? kfs_do_mmap(addr, len, prot, flags, fd, off) : r;
}

/* Streams whose descriptor is a stand-in. */
#define SCAN(name, vname, type)                                                                    \
    KFS_EXPORT int name(struct _IO_FILE *f, const type *format, ...)                               \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, format);                                                                      \
        KFS_READY();                                                                               \
        int r = TEST_SEEN() ? kfs_do_##vname(f, format, ap) : kfs_real.vname(f, format, ap);       \
        va_end(ap);                                                                                \
        return r;                                                                                  \
    }
#define SCAN_STDIN(name, vname, type)                                                              \
    KFS_EXPORT int name(const type *format, ...)                                                   \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, format);                                                                      \
        KFS_READY();                                                                               \
        int r = TEST_SEEN() ? kfs_do_##vname(format, ap) : kfs_real.vname(format, ap);             \
        va_end(ap);                                                                                \
        return r;                                                                                  \
    }
SCAN(fscanf, vfscanf, char)
SCAN(__isoc99_fscanf, __isoc99_vfscanf, char)
SCAN(__isoc23_fscanf, __isoc23_vfscanf, char)
SCAN(fwscanf, vfwscanf, wchar_t)
SCAN(__isoc99_fwscanf, __isoc99_vfwscanf, wchar_t)
SCAN(__isoc23_fwscanf, __isoc23_vfwscanf, wchar_t)
SCAN_STDIN(scanf, vscanf, char)
SCAN_STDIN(__isoc99_scanf, __isoc99_vscanf, char)
SCAN_STDIN(__isoc23_scanf, __isoc23_vscanf, char)
SCAN_STDIN(wscanf, vwscanf, wchar_t)
SCAN_STDIN(__isoc99_wscanf, __isoc99_vwscanf, wchar_t)
SCAN_STDIN(__isoc23_wscanf, __isoc23_vwscanf, wchar_t)

KFS_EXPORT long syscall(long number, ...)
{
    long a[6];
    va_list ap;
    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    KFS_READY();
    return kfs_do_syscall(number, a);
}

KFS_EXPORT mode_t umask(mode_t mask)
{
    KFS_READY();
    return kfs_do_umask(mask);
}

/* Count and collect: argv lives in the caller's frame, as in libc. */
#define COLLECT(argv, arg, ap)                                                                     \
    size_t count_ = 1;                                                                             \
    va_start(ap, arg);                                                                             \
    for (const char *s_ = arg; s_; s_ = va_arg(ap, const char *))                                  \
        count_++;                                                                                  \
    va_end(ap);                                                                                    \
    const char **argv = __builtin_alloca(count_ * sizeof *argv);                                   \
    va_start(ap, arg);                                                                             \
    argv[0] = arg;                                                                                 \
    for (size_t i_ = 1; i_ < count_; i_++)                                                         \
        argv[i_] = va_arg(ap, const char *)

static inline char *const *args_of(const char **argv)
{
    return (char *const *)(uintptr_t)argv;
}

KFS_EXPORT int execl(const char *path, const char *arg, ...)
{
    va_list ap;
    COLLECT(argv, arg, ap);
    va_end(ap);
    KFS_READY();
    return kfs_do_execv(path, args_of(argv));
}

KFS_EXPORT int execlp(const char *file, const char *arg, ...)
{
    va_list ap;
    COLLECT(argv, arg, ap);
    va_end(ap);
    KFS_READY();
    return kfs_do_execvp(file, args_of(argv));
}

KFS_EXPORT int execle(const char *path, const char *arg, ...)
{
    va_list ap;
    COLLECT(argv, arg, ap);
    char *const *envp = va_arg(ap, char *const *);
    va_end(ap);
    KFS_READY();
    return kfs_do_execve(path, args_of(argv), envp);
}

/* Of a program that has no such function itself. The sanitizer's library comes behind us in the list, where it sees what reaches libc. */
KFS_EXPORT const char *__asan_default_options(void)
{
    return "verify_asan_link_order=0";
}

/* --- the rest, by macro ------------------------------------------------------------------------------------------- */
#define CALL(ret, name, params, args, key, disposition, note)                                      \
    static inline ret x_##name params                                                              \
    {                                                                                              \
        KFS_READY();                                                                               \
        if (KFS_UNLIKELY(TEST_##key))                                                              \
            return kfs_do_##name args;                                                             \
        ret r_ = kfs_real.name args;                                                               \
        if (KFS_UNLIKELY(FAILED(r_)) && LATE_##key) {                                              \
            r_ = kfs_do_##name args;                                                               \
            kfs_pre_late_end();                                                                    \
        }                                                                                          \
        return r_;                                                                                 \
    }                                                                                              \
    KFS_EXPORT ret name params                                                                     \
    {                                                                                              \
        return x_##name args;                                                                      \
    }
#define VCALL(name, params, args, key, disposition, note)                                          \
    KFS_EXPORT void name params                                                                    \
    {                                                                                              \
        KFS_READY();                                                                               \
        if (KFS_UNLIKELY(TEST_##key))                                                              \
            kfs_do_##name args;                                                                    \
        else                                                                                       \
            kfs_real.name args;                                                                    \
    }
#define HAND(ret, name, params, disposition, note)
#define FORWARD(ret, name, params, target, args, note)                                             \
    KFS_EXPORT ret name params                                                                     \
    {                                                                                              \
        return x_##target args;                                                                    \
    }
#undef ALIAS
#define ALIAS(name, target, note) KFS_EXPORT extern __typeof(target) name __attribute__((alias(#target)));
#include "preload/calls.def"
