#include "tools/kfsd/safetensors.h"
#include "base/cleanup.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANGES_MAX 4096u
static const char key[] = "\"data_offsets\"";

static const char *skip(const char *p, const char *end, char c)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p < end && *p == c ? p + 1 : NULL;
}

static const char *number(const char *p, const char *end, uint64_t *ret)
{
    uint64_t n = 0;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    const char *first = p;
    for (; p < end && *p >= '0' && *p <= '9' && n < UINT64_MAX / 10 - 10; p++)
        n = n * 10 + (uint64_t)(*p - '0');
    *ret = n;
    return p == first ? NULL : p;
}

/* "data_offsets" : [ A , B ] */
static const char *offsets(const char *p, const char *end, uint64_t *ret_a, uint64_t *ret_b)
{
    p = skip(p, end, ':');
    p = p ? skip(p, end, '[') : NULL;
    p = p ? number(p, end, ret_a) : NULL;
    p = p ? skip(p, end, ',') : NULL;
    p = p ? number(p, end, ret_b) : NULL;
    return p ? skip(p, end, ']') : NULL;
}

size_t kfsd_safetensors_ranges(const char *json, size_t len, uint64_t file_bytes, struct kfs_range *ret, size_t max)
{
    const char *end = json + len, *p = skip(json, end, '{');
    uint64_t base = 8 + (uint64_t)len;
    size_t n = 0;
    while (p && p < end && (p = memmem(p, (size_t)(end - p), key, sizeof key - 1))) {
        uint64_t a, b;
        const char *next = offsets(p + sizeof key - 1, end, &a, &b);
        p += sizeof key - 1;
        if (!next)
            continue;
        p = next;
        if (a >= b || base > file_bytes || b > file_bytes - base)
            continue;
        if (n && ret[n - 1].off + ret[n - 1].len == base + a)
            ret[n - 1].len += b - a;
        else if (n < max)
            ret[n++] = (struct kfs_range){base + a, b - a};
        else
            break;
    }
    return n;
}

void kfsd_safetensors_first(struct kfs_fill *f, int fd, uint64_t file_bytes)
{
    unsigned char start[9];
    uint64_t len = 0;
    if (file_bytes < sizeof start || kfs_fill_want(f, 0, 0, sizeof start, NULL) < 0 || pread(fd, start, sizeof start, 0) != sizeof start)
        return;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | start[i];
    if (start[8] != '{' || len < 2 || len > KFSD_SAFETENSORS_HEADER_MAX || len > file_bytes - 8 || kfs_fill_want(f, 0, 8, len, NULL) < 0)
        return;
    kfs_auto_free char *json = malloc(len);
    kfs_auto_free struct kfs_range *ranges = malloc(RANGES_MAX * sizeof *ranges);
    if (!json || !ranges || pread(fd, json, len, 8) != (ssize_t)len)
        return;
    size_t n = kfsd_safetensors_ranges(json, len, file_bytes, ranges, RANGES_MAX);
    if (n)
        kfs_fill_all(f, ranges, n, KFS_DRV_AHEAD);
}
