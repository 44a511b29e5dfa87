/* base/buf.h — bytes that grow
 *
 * What     A growable byte buffer, always NUL-terminated behind its length, with printf and JSON string appenders.
 * Model    A failed allocation is sticky: the buffer stays as it was, every later append fails too, so a writer may append many
 *          times and look at the result of the last one (or at `failed`) only.
 * Owner    The struct owns data; kfs_buf_release frees. data is NULL before the first append: kfs_buf_str never is.
 * Threads  One at a time.
 * Errors   -ENOMEM.
 */
#ifndef KFS_BASE_BUF_H
#define KFS_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct kfs_buf {
    char *data;
    size_t len, cap;
    bool failed;
};

void kfs_buf_init(struct kfs_buf *b);
void kfs_buf_release(struct kfs_buf *b); /* as after init; NULL is fine */
void kfs_buf_clear(struct kfs_buf *b);   /* length 0, memory kept, failure forgotten */
int kfs_buf_reserve(struct kfs_buf *b, size_t more); /* room for `more` bytes beyond len */
int kfs_buf_append(struct kfs_buf *b, const void *data, size_t len);
int kfs_buf_append_str(struct kfs_buf *b, const char *s);
int kfs_buf_printf(struct kfs_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *kfs_buf_str(const struct kfs_buf *b); /* valid until the next change */

/* Append s as a JSON string with its quotes. Valid UTF-8 passes through; controls, quotes and backslashes are escaped;
 * each byte XX that is not part of valid UTF-8 becomes \u00XX. */
int kfs_buf_json_string(struct kfs_buf *b, const char *s, size_t len);

#endif
