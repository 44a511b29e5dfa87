/* blockstore/codec.c — compression by trial
 *
 * Model    Most of what lies in object stores is compressed already. Two samples tell for a fraction
 *          of the cost; what gains under 5 % is stored plain, because every reader would pay for it.
 */
#include "blockstore/store.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define LEVEL        1 /* several times as fast as a network; higher levels gain a few percent */
#define SAMPLE_BYTES 4096u
#define SAMPLE_FROM  (16u * SAMPLE_BYTES) /* shorter content is its own sample */

/* One pair of contexts a thread: making one costs as much as compressing 100 KiB. */
struct contexts {
    ZSTD_CCtx *c;
    ZSTD_DCtx *d;
};
static pthread_key_t contexts_key;
static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;
static __thread struct contexts *mine;

static void contexts_free(void *arg)
{
    struct contexts *x = arg;
    ZSTD_freeCCtx(x->c);
    ZSTD_freeDCtx(x->d);
    free(x);
}

static void contexts_init(void)
{
    (void)pthread_key_create(&contexts_key, contexts_free);
}

static struct contexts *contexts(void)
{
    if (mine)
        return mine;
    (void)pthread_once(&contexts_once, contexts_init);
    struct contexts *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->c = ZSTD_createCCtx();
    x->d = ZSTD_createDCtx();
    if (!x->c || !x->d || pthread_setspecific(contexts_key, x) != 0) {
        contexts_free(x);
        return NULL;
    }
    return mine = x;
}

static bool is_gain(size_t plain, size_t packed)
{
    return packed < plain - plain / 20;
}

static bool sample_gains(ZSTD_CCtx *c, const unsigned char *p, size_t len)
{
    unsigned char out[ZSTD_COMPRESSBOUND(SAMPLE_BYTES)];
    size_t sum = 0;
    for (size_t i = 0; i < 2; i++) {
        size_t n = ZSTD_compressCCtx(c, out, sizeof out, p + (len - SAMPLE_BYTES) / 3 * (i + 1), SAMPLE_BYTES, LEVEL);
        sum += ZSTD_isError(n) ? SAMPLE_BYTES : n;
    }
    /* A sample sees no repetition beyond itself: it may gain a little less than the whole. */
    return sum < 2 * SAMPLE_BYTES - SAMPLE_BYTES / 20;
}

uint32_t kfs_blk_compress(const void *plain, size_t len, void *out, size_t *ret_len)
{
    struct contexts *x = contexts();
    *ret_len = len;
    if (!x || len < 64 || (len >= SAMPLE_FROM && !sample_gains(x->c, plain, len)))
        return KFS_CODEC_PLAIN;
    size_t n = ZSTD_compressCCtx(x->c, out, len, plain, len, LEVEL);
    if (ZSTD_isError(n) || !is_gain(len, n))
        return KFS_CODEC_PLAIN;
    *ret_len = n;
    return KFS_CODEC_ZSTD;
}

int kfs_blk_decompress(const void *stored, size_t stored_len, void *plain, size_t plain_len)
{
    struct contexts *x = contexts();
    if (!x)
        return -ENOMEM;
    size_t n = ZSTD_decompressDCtx(x->d, plain, plain_len, stored, stored_len);
    return !ZSTD_isError(n) && n == plain_len ? 0 : -EIO;
}
