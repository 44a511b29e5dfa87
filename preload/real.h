/* preload/real.h — the functions behind ours
 *
 * What     kfs_real.NAME is the next definition of NAME after libkfs.so (another preload's or libc's), for every CALL, VCALL and HAND row of
 *          calls.def; and the prototypes of kfs_do_NAME, the bodies that serve a call when it is ours.
 * Model    Found once, by walking the loaded objects' symbol tables (real.c): no dlsym, so no allocation, no lock and no left-over dlerror. Never NULL
 *          after kfs_pre_init: what this libc lacks is a raw system call or fails with ENOSYS.
 * Bodies   kfs_do_NAME is called with the application's arguments when the row's key says "perhaps ours"; it calls kfs_real.NAME itself when it turns out
 *          otherwise. It returns as the libc function does, errno set.
 * Types    LP64 only: the 64 variants are the same functions. Opaque types of libc are void *.
 */
#ifndef KFS_PRELOAD_REAL_H
#define KFS_PRELOAD_REAL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma GCC visibility push(hidden)

struct stat;
struct statx;
struct statfs;
struct statvfs;
struct dirent;
struct timeval;
struct timespec;
struct utimbuf;
struct msghdr;
struct mmsghdr;
struct sockaddr;
struct file_handle;
struct open_how;
struct aiocb;
struct FTW;
struct iovec;
struct sigevent;
struct __dirstream;
struct _IO_FILE;
struct sigaction;
typedef void (*kfs_sighandler)(int);

#define ALIAS(name, target, note)
#define FORWARD(ret, name, params, target, args, note)
#define PASS(name, note)
#define SKIP(name, note)

struct kfs_real {
#define CALL(ret, name, params, args, key, disposition, note) ret(*name) params;
#define VCALL(name, params, args, key, disposition, note) void(*name) params;
#define HAND(ret, name, params, disposition, note) ret(*name) params;
#include "preload/calls.def"
#undef CALL
#undef VCALL
#undef HAND
};
extern struct kfs_real kfs_real;

#define CALL(ret, name, params, args, key, disposition, note) ret kfs_do_##name params;
#define VCALL(name, params, args, key, disposition, note) void kfs_do_##name params;
#define HAND(ret, name, params, disposition, note)
#include "preload/calls.def"
#undef CALL
#undef VCALL
#undef HAND
#undef ALIAS
#undef FORWARD
#undef PASS
#undef SKIP

/* HAND rows, with their variable arguments collected. execl, execlp and execle end in kfs_do_execv, kfs_do_execvp and kfs_do_execve. */
int kfs_do_open(const char *path, int flags, mode_t mode);
int kfs_do_openat(int dirfd, const char *path, int flags, mode_t mode);
int kfs_do_fcntl(int fd, int cmd, void *arg);
void *kfs_do_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int kfs_do_ioctl(int fd, unsigned long request, void *arg);
mode_t kfs_do_umask(mode_t mask);
long kfs_do_syscall(long number, const long a[6]);

/* A function of a library that may have been loaded since: NULL: nobody has it. */
void *kfs_pre_real_find(const char *name);

/* Fill kfs_real. Idempotent, allocation-free. */
void kfs_pre_real_init(void);

/* fdtab.c: what is known of a descriptor number, and the two states that entry.c's quick tests look for. */
#define KFS_FD_NUMBERS (1 << 20)
enum { KFS_FD_STATE_UNKNOWN = 0, KFS_FD_STATE_STANDIN = 5 };
extern unsigned char kfs_pre_fd_states[];
extern int kfs_pre_standin_seen; /* this process has, or had, a stand-in */
/* A call that no stand-in serves failed: is the descriptor one that the table does not know? errno is kept when not. */
bool kfs_pre_standin_late(int fd);

/* entry.c, for paths that failed with ENOENT on the host: does a symlink lead into a volume? True: kfs_pre_where looks at host symlinks until kfs_pre_late_end. */
bool kfs_pre_late(int dirfd, const char *path, bool follow_last);
void kfs_pre_late_end(void);

#pragma GCC visibility pop

#endif
