/* blockstore/readahead.c — patterns of readers; pure arithmetic */
#include "blockstore/readahead.h"

#define WINDOW_FIRST 2    /* frames beyond the very first one of a file */
#define WINDOW_NEXT  4    /* when a pattern shows elsewhere */
#define WINDOW_MAX   1024
#define WINDOW_BUSY  128 /* up to this a window may be twice what was read: it keeps a short link busy with long ranges */
#define GROUP        4 /* frames of one backward step: the nearest come first */
#define STRIDES_MAX  64

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Is the request where the pattern said? */
static int in_step(const struct kfs_readahead *r, int64_t first, int64_t last)
{
    int64_t moved = first - r->first;
    switch (r->mode) {
    case KFS_AHEAD_FORWARD:
        return moved > 0 && first <= r->ahead;
    case KFS_AHEAD_BACKWARD:
        return moved < 0 && last + 1 >= r->ahead;
    case KFS_AHEAD_STRIDED:
        return moved != 0 && moved % r->step == 0 && moved / r->step > 0 && moved / r->step <= (r->ahead - r->first) / r->step + 1;
    default:
        return 0;
    }
}

static void begin(struct kfs_readahead *r, enum kfs_readahead_mode mode, int64_t ahead, int64_t window)
{
    r->mode = mode;
    r->ahead = ahead;
    r->window = window;
    r->run = 0;
}

/* A request out of step: does another pattern show? */
static void look_anew(struct kfs_readahead *r, int64_t first, int64_t last)
{
    int64_t moved = first - r->first;
    if (first == r->last + 1)
        begin(r, KFS_AHEAD_FORWARD, last + 1, WINDOW_NEXT);
    else if (last + 1 == r->first)
        begin(r, KFS_AHEAD_BACKWARD, first, WINDOW_NEXT);
    else if (moved != 0 && moved == r->step)
        begin(r, KFS_AHEAD_STRIDED, first, WINDOW_NEXT);
    else
        begin(r, KFS_AHEAD_RANDOM, 0, 0);
    r->step = moved;
}

static void forward(struct kfs_readahead *r, int64_t last, struct kfs_ahead *ret)
{
    if (r->ahead <= last)
        r->ahead = last + 1;
    int64_t end = last + 1 + r->window;
    /* In halves of the window, so that ranges stay long. */
    if (r->ahead - (last + 1) > r->window / 2)
        return;
    *ret = (struct kfs_ahead){.at = r->ahead, .step = end - r->ahead, .len = end - r->ahead, .count = 1};
    r->ahead = end;
}

static void backward(struct kfs_readahead *r, int64_t first, struct kfs_ahead *ret)
{
    if (r->ahead > first)
        r->ahead = first;
    int64_t low = first > r->window ? first - r->window : 0;
    if (low >= r->ahead || first - r->ahead > r->window / 2)
        return;
    int64_t count = (r->ahead - low + GROUP - 1) / GROUP;
    *ret = (struct kfs_ahead){.at = r->ahead - GROUP, .step = -GROUP, .len = GROUP, .count = count};
    r->ahead = r->ahead - count * GROUP;
}

static void strided(struct kfs_readahead *r, int64_t first, int64_t last, struct kfs_ahead *ret)
{
    int64_t len = last - first + 1, want = least(STRIDES_MAX, r->window / len > 0 ? r->window / len : 1);
    int64_t have = (r->ahead - first) / r->step;
    if (have < 0)
        have = 0;
    if (have > want / 2)
        return;
    *ret = (struct kfs_ahead){.at = first + (have + 1) * r->step, .step = r->step, .len = len, .count = want - have};
    r->ahead = first + want * r->step;
}

void kfs_readahead_step(struct kfs_readahead *r, int64_t first, int64_t last, int64_t cap, struct kfs_ahead *ret)
{
    *ret = (struct kfs_ahead){0};
    if (r->mode != KFS_AHEAD_NEW && first == r->first && last == r->last)
        return; /* the same again, perhaps after a failure */
    if (r->mode == KFS_AHEAD_NEW) {
        begin(r, first == 0 ? KFS_AHEAD_FORWARD : KFS_AHEAD_RANDOM, last + 1, WINDOW_FIRST);
    } else if (in_step(r, first, last)) {
        r->run += r->mode == KFS_AHEAD_FORWARD ? first - r->first : last - first + 1;
        int64_t fair = least(2 * r->run, WINDOW_BUSY);
        r->window = least(least(r->window * 2, WINDOW_MAX), r->run > cap ? r->run : cap > fair ? cap : fair);
    } else {
        look_anew(r, first, last);
    }
    r->first = first;
    r->last = last;
    if (r->mode == KFS_AHEAD_FORWARD)
        forward(r, last, ret);
    else if (r->mode == KFS_AHEAD_BACKWARD)
        backward(r, first, ret);
    else if (r->mode == KFS_AHEAD_STRIDED)
        strided(r, first, last, ret);
}
