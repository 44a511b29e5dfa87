#include "blockstore/readahead.h"
#include "tests/unit/kt.h"

static struct kfs_readahead r;
static struct kfs_ahead a;

static void step(int64_t first, int64_t last)
{
    kfs_readahead_step(&r, first, last, 16, &a);
}

/* How many frames are read ahead in all, when every frame that is here is not asked for. */
static int64_t reads(const int64_t *frames, int count, int64_t *ret_asked)
{
    static unsigned char here[4096];
    int64_t ahead = 0;
    memset(&r, 0, sizeof r);
    memset(here, 0, sizeof here);
    *ret_asked = 0;
    for (int i = 0; i < count; i++) {
        if (here[frames[i]])
            continue;
        ++*ret_asked;
        here[frames[i]] = 1;
        step(frames[i], frames[i]);
        for (int64_t g = 0; g < a.count; g++)
            for (int64_t k = 0; k < a.len; k++) {
                int64_t at = a.at + g * a.step + k;
                if (at >= 0 && at < 4096 && !here[at]) {
                    here[at] = 1;
                    ahead++;
                }
            }
    }
    return ahead;
}

TEST(forward_asks_ever_less_often)
{
    static int64_t f[1000];
    int64_t asked;
    for (int i = 0; i < 1000; i++)
        f[i] = i;
    ASSERT(reads(f, 1000, &asked) >= 1000 - asked);
    ASSERT(asked < 40);
    /* From the middle too, once it is seen. */
    for (int i = 0; i < 1000; i++)
        f[i] = 2000 + i;
    (void)reads(f, 1000, &asked);
    ASSERT(asked < 40);
}

TEST(backward_and_strided_are_seen)
{
    static int64_t f[1000];
    int64_t asked;
    for (int i = 0; i < 1000; i++)
        f[i] = 2000 - i;
    int64_t ahead = reads(f, 1000, &asked);
    ASSERT(asked < 200);
    ASSERT(ahead <= 1040);
    for (int i = 0; i < 500; i++)
        f[i] = 5 + 7 * i;
    ahead = reads(f, 500, &asked);
    ASSERT(asked < 100);
    ASSERT(ahead + asked <= 500 + 64); /* nothing between the strides */
    for (int i = 0; i < 500; i++)
        f[i] = 4000 - 7 * i;
    (void)reads(f, 500, &asked);
    ASSERT(asked < 100);
}

TEST(random_reads_nothing_ahead)
{
    static int64_t f[500];
    uint64_t seed = 42;
    int64_t asked;
    for (int i = 0; i < 500; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        f[i] = (int64_t)(seed >> 52);
    }
    int64_t ahead = reads(f, 500, &asked);
    ASSERT(asked > 300);
    ASSERT(ahead * 5 <= asked); /* at most 1.2 of what was asked for */
}

TEST(a_jump_ends_the_window_and_a_repeat_changes_nothing)
{
    memset(&r, 0, sizeof r);
    for (int64_t i = 0; i < 40; i++)
        step(i, i);
    ASSERT_EQ(r.mode, KFS_AHEAD_FORWARD);
    int64_t window = r.window;
    step(39, 39);
    ASSERT_EQ(r.window, window);
    ASSERT_EQ(a.count, 0);
    step(3000, 3000);
    ASSERT_EQ(r.mode, KFS_AHEAD_RANDOM);
    ASSERT_EQ(a.count, 0);
    step(100, 100);
    ASSERT_EQ(a.count, 0);
    step(101, 101);
    ASSERT_EQ(r.mode, KFS_AHEAD_FORWARD);
    ASSERT(a.count == 1 && a.at == 102 && a.len == 4);
}

KT_MAIN
