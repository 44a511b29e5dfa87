/* base/err.h — negative errno for the machine, a caller-owned record for the human
 *
 * What     struct kfs_err carries the text of a failure upwards; the int result is what code decides by.
 * Model    Expected answers (-ENOENT, -EEXIST, -EAGAIN) do not format. Callers add context with KFS_WRAP; only the
 *          outermost layer (request handler, main) prints or logs, once. On success err is not modified.
 * Owner    Fixed buffer in the caller's frame; nothing to free. err may be NULL.
 */
#ifndef KFS_BASE_ERR_H
#define KFS_BASE_ERR_H

#include <stdbool.h>

struct kfs_err {
    int code;       /* errno, positive; 0 = none */
    bool transient; /* worth another try */
    const char *file;
    int line;
    char msg[360];
};

/* Returns -code. Formats only if err. */
int kfs_err_set(struct kfs_err *err, int code, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Put "context: " before what err says; returns -err->code (or -EIO when none is set). */
int kfs_err_wrap(struct kfs_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define KFS_FAIL(err, code, ...) kfs_err_set((err), (code), __FILE__, __LINE__, __VA_ARGS__)
#define KFS_WRAP(err, ...) kfs_err_wrap((err), __VA_ARGS__)

#endif
