#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kfs_buf_init(struct kfs_buf *b)
{
    memset(b, 0, sizeof *b);
}

void kfs_buf_release(struct kfs_buf *b)
{
    if (!b)
        return;
    free(b->data);
    kfs_buf_init(b);
}

void kfs_buf_clear(struct kfs_buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

int kfs_buf_reserve(struct kfs_buf *b, size_t more)
{
    if (b->failed)
        return -ENOMEM;
    if (more >= SIZE_MAX / 2 - b->len) {
        b->failed = true;
        return -ENOMEM;
    }
    size_t need = b->len + more + 1;
    if (need <= b->cap)
        return 0;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap *= 2;
    char *data = realloc(b->data, cap);
    if (!data) {
        b->failed = true;
        return -ENOMEM;
    }
    if (!b->data)
        data[0] = '\0';
    b->data = data;
    b->cap = cap;
    return 0;
}

int kfs_buf_append(struct kfs_buf *b, const void *data, size_t len)
{
    int rc = kfs_buf_reserve(b, len);
    if (rc < 0)
        return rc;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return 0;
}

int kfs_buf_append_str(struct kfs_buf *b, const char *s)
{
    return kfs_buf_append(b, s, strlen(s));
}

int kfs_buf_printf(struct kfs_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
        return -ENOMEM;
    }
    int rc = kfs_buf_reserve(b, (size_t)n);
    if (rc < 0)
        return rc;
    va_start(ap, fmt);
    (void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

const char *kfs_buf_str(const struct kfs_buf *b)
{
    return b->data ? b->data : "";
}

/* Length of the valid UTF-8 sequence at s (as RFC 3629: no overlong forms, no surrogates, at most U+10FFFF), else 0. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    size_t need = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (left < need)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return need;
}

int kfs_buf_json_string(struct kfs_buf *b, const char *s, size_t len)
{
    (void)kfs_buf_append(b, "\"", 1);
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)s[i];
        size_t n = utf8_len((const unsigned char *)s + i, len - i);
        if (n == 0 || c < 0x20 || c == 0x7f) {
            (void)kfs_buf_printf(b, "\\u%04x", c);
            n = 1;
        } else if (c == '"' || c == '\\') {
            const char pair[2] = {'\\', (char)c};
            (void)kfs_buf_append(b, pair, 2);
        } else {
            (void)kfs_buf_append(b, s + i, n);
        }
        i += n;
    }
    return kfs_buf_append(b, "\"", 1);
}
