/* preload/do_stream.c — libc's streams on files that are still arriving
 *
 * What     A stream reads inside libc, by calls that nobody can see. Those on names are opened with genuine descriptors, fdopen settles; what is left is standard
 *          input that was a stand-in when the program started, so each call that may read settles first. Until the process has had a stand-in these
 *          calls cost one test.
 */
#include "preload/real.h"
#include "preload/standin.h"

/* No <stdio.h>: it makes macros of some of these names. */
typedef struct _IO_FILE FILE;
extern FILE *stdin;
int fileno(FILE *f);

/* 0, or -errno: then libc's read fails with EBADF, and errno is what was the reason. */
static long ready(FILE *f)
{
    int saved = errno;
    int fd = fileno(f);
    errno = saved;
    return fd >= 0 && (unsigned)fd < KFS_FD_NUMBERS && kfs_pre_fd_states[fd] == KFS_FD_STATE_STANDIN ? kfs_pre_settle(fd) : 0;
}

FILE *kfs_do_fdopen(int fd, const char *mode)
{
    long r = kfs_pre_settle(fd);
    if (r < 0) {
        errno = (int)-r;
        return NULL;
    }
    return kfs_real.fdopen(fd, mode);
}

#define STREAM(ret, name, params, args, f)                                                                                         \
    ret kfs_do_##name params                                                                                                       \
    {                                                                                                                              \
        long e_ = ready(f);                                                                                                        \
        ret r_ = kfs_real.name args;                                                                                               \
        if (e_ < 0)                                                                                                                \
            errno = (int)-e_;                                                                                                      \
        return r_;                                                                                                                 \
    }

STREAM(size_t, fread, (void *buf, size_t size, size_t n, FILE *f), (buf, size, n, f), f)
STREAM(size_t, fread_unlocked, (void *buf, size_t size, size_t n, FILE *f), (buf, size, n, f), f)
STREAM(size_t, __fread_chk, (void *buf, size_t room, size_t size, size_t n, FILE *f), (buf, room, size, n, f), f)
STREAM(size_t, __fread_unlocked_chk, (void *buf, size_t room, size_t size, size_t n, FILE *f), (buf, room, size, n, f), f)
STREAM(char *, fgets, (char *buf, int n, FILE *f), (buf, n, f), f)
STREAM(char *, fgets_unlocked, (char *buf, int n, FILE *f), (buf, n, f), f)
STREAM(char *, __fgets_chk, (char *buf, size_t room, int n, FILE *f), (buf, room, n, f), f)
STREAM(char *, __fgets_unlocked_chk, (char *buf, size_t room, int n, FILE *f), (buf, room, n, f), f)
STREAM(int, fgetc, (FILE *f), (f), f)
STREAM(int, fgetc_unlocked, (FILE *f), (f), f)
STREAM(int, getc, (FILE *f), (f), f)
STREAM(int, getc_unlocked, (FILE *f), (f), f)
STREAM(int, getchar, (void), (), stdin)
STREAM(int, getchar_unlocked, (void), (), stdin)
STREAM(int, getw, (FILE *f), (f), f)
STREAM(char *, gets, (char *buf), (buf), stdin)
STREAM(char *, __gets_chk, (char *buf, size_t room), (buf, room), stdin)
STREAM(ssize_t, getdelim, (char **line, size_t *cap, int delim, FILE *f), (line, cap, delim, f), f)
STREAM(ssize_t, getline, (char **line, size_t *cap, FILE *f), (line, cap, f), f)
STREAM(int, __uflow, (FILE *f), (f), f)
STREAM(int, __underflow, (FILE *f), (f), f)
STREAM(unsigned, fgetwc, (FILE *f), (f), f)
STREAM(unsigned, fgetwc_unlocked, (FILE *f), (f), f)
STREAM(unsigned, getwc, (FILE *f), (f), f)
STREAM(unsigned, getwc_unlocked, (FILE *f), (f), f)
STREAM(unsigned, getwchar, (void), (), stdin)
STREAM(unsigned, getwchar_unlocked, (void), (), stdin)
STREAM(unsigned, __wuflow, (FILE *f), (f), f)
STREAM(unsigned, __wunderflow, (FILE *f), (f), f)
STREAM(wchar_t *, fgetws, (wchar_t *buf, int n, FILE *f), (buf, n, f), f)
STREAM(wchar_t *, fgetws_unlocked, (wchar_t *buf, int n, FILE *f), (buf, n, f), f)
STREAM(wchar_t *, __fgetws_chk, (wchar_t *buf, size_t room, int n, FILE *f), (buf, room, n, f), f)
STREAM(wchar_t *, __fgetws_unlocked_chk, (wchar_t *buf, size_t room, int n, FILE *f), (buf, room, n, f), f)
STREAM(int, fseek, (FILE *f, long off, int whence), (f, off, whence), f)
STREAM(int, fseeko, (FILE *f, off_t off, int whence), (f, off, whence), f)
STREAM(long, ftell, (FILE *f), (f), f)
STREAM(off_t, ftello, (FILE *f), (f), f)
STREAM(int, fgetpos, (FILE *f, void *pos), (f, pos), f)
STREAM(int, fsetpos, (FILE *f, const void *pos), (f, pos), f)

#define SCAN(vname, type)                                                                                                          \
    STREAM(int, vname, (FILE *f, const type *format, va_list ap), (f, format, ap), f)
#define SCAN_STDIN(vname, type) STREAM(int, vname, (const type *format, va_list ap), (format, ap), stdin)
SCAN(vfscanf, char)
SCAN(__isoc99_vfscanf, char)
SCAN(__isoc23_vfscanf, char)
SCAN(vfwscanf, wchar_t)
SCAN(__isoc99_vfwscanf, wchar_t)
SCAN(__isoc23_vfwscanf, wchar_t)
SCAN_STDIN(vscanf, char)
SCAN_STDIN(__isoc99_vscanf, char)
SCAN_STDIN(__isoc23_vscanf, char)
SCAN_STDIN(vwscanf, wchar_t)
SCAN_STDIN(__isoc99_vwscanf, wchar_t)
SCAN_STDIN(__isoc23_vwscanf, wchar_t)

void kfs_do_rewind(FILE *f)
{
    (void)ready(f);
    kfs_real.rewind(f);
}
