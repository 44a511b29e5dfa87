/* blockstore/readahead.h — what a reader will ask for next, by what it asked for so far
 *
 * Model    One struct kfs_readahead a reader. It is told only of frames that were missing: what was read ahead well is read without a word, so the next thing
 *          heard from a reader in step is the first frame beyond what was read ahead, or one that is still under way. Patterns: forward (from the start of the
 *          file at the first request, elsewhere at the second in a row), backward, strided (at the third with the same step), random (nothing is read ahead).
 *          Each confirmation doubles the window, up to `cap` or, if that is more, to what was read in this run (twice that, while it is below 128 frames):
 *          so what is fetched in vain is bounded by what was used.
 * Threads  The caller's lock.
 */
#ifndef KFS_BLOCKSTORE_READAHEAD_H
#define KFS_BLOCKSTORE_READAHEAD_H

#include <stdint.h>

enum kfs_readahead_mode { KFS_AHEAD_NEW, KFS_AHEAD_RANDOM, KFS_AHEAD_FORWARD, KFS_AHEAD_BACKWARD, KFS_AHEAD_STRIDED };

struct kfs_readahead {
    uint64_t reader, used; /* the table's: whose, and when last */
    enum kfs_readahead_mode mode;
    int64_t first, last; /* frames of the last request */
    int64_t step;        /* from the first frame of one request to that of the next */
    int64_t ahead;       /* forward: the first frame not read ahead; backward: the lowest one that is; strided: the furthest start */
    int64_t window;      /* frames */
    int64_t run;         /* frames read since the pattern holds */
};

/* `count` groups of `len` frames, the first from `at` on, each next `step` further; some may lie outside the file. */
struct kfs_ahead {
    int64_t at, step, len, count;
};
/* A request for frames first..last. *ret: what to read ahead now (count 0: nothing). cap: frames that the link holds. */
void kfs_readahead_step(struct kfs_readahead *r, int64_t first, int64_t last, int64_t cap, struct kfs_ahead *ret);

#endif
