#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int kfs_err_set(struct kfs_err *err, int code, const char *file, int line, const char *fmt, ...)
{
    if (!err)
        return -code;
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    /* Formatted aside first: an argument may be err->msg itself. */
    char msg[sizeof err->msg];
    (void)vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    memcpy(err->msg, msg, sizeof msg);
    err->code = code;
    err->transient = false;
    err->file = file;
    err->line = line;
    errno = saved;
    return -code;
}

int kfs_err_wrap(struct kfs_err *err, const char *fmt, ...)
{
    if (!err)
        return -EIO;
    int saved = errno;
    char msg[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if (err->code == 0) {
        err->code = EIO;
        err->msg[0] = '\0';
    }
    /* "context: " moves what err says to the right; what does not fit any more falls off its end. */
    size_t len = (size_t)n < sizeof msg - 3 ? (size_t)n : sizeof msg - 3;
    memcpy(msg + len, ": ", 3);
    if (err->msg[0])
        len += 2;
    size_t rest = strnlen(err->msg, sizeof msg - 1 - len);
    memmove(err->msg + len, err->msg, rest);
    memcpy(err->msg, msg, len);
    err->msg[len + rest] = '\0';
    errno = saved;
    return -err->code;
}
