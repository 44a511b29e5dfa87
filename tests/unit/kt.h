/* tests/unit/kt.h — the tiny test harness of the unit tests
 *
 * TEST(name) { … } registers a case; KT_MAIN runs all (or those whose name contains argv[1]) and prints one line each.
 * A failed check prints both values and ends the case; SKIP(why) ends it as skipped. Exit code 1 if any case failed.
 * The last line is "kt: N passed, N failed, N skipped".
 */
#ifndef KFS_TESTS_UNIT_KT_H
#define KFS_TESTS_UNIT_KT_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kt_case {
    const char *name;
    void (*run)(void);
    struct kt_case *next;
};
static struct kt_case *kt_first, **kt_last = &kt_first;
static jmp_buf kt_out;
enum { KT_FAILED = 1, KT_SKIPPED = 2 };

#define TEST(id)                                                                                   \
    static void kt_run_##id(void);                                                                 \
    static struct kt_case kt_case_##id = {#id, kt_run_##id, NULL};                                 \
    __attribute__((constructor)) static void kt_register_##id(void)                                \
    {                                                                                              \
        *kt_last = &kt_case_##id;                                                                  \
        kt_last = &kt_case_##id.next;                                                              \
    }                                                                                              \
    static void kt_run_##id(void)

#define KT_FAIL(...) (printf("  %s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), puts(""), longjmp(kt_out, KT_FAILED))
#define SKIP(...) (printf("  skipped: "), printf(__VA_ARGS__), puts(""), longjmp(kt_out, KT_SKIPPED))
#define ASSERT(x)                                                                                  \
    do {                                                                                           \
        if (!(x))                                                                                  \
            KT_FAIL("false: %s", #x);                                                              \
    } while (0)
#define ASSERT_EQ(a, b)                                                                            \
    do {                                                                                           \
        long long kt_a = (long long)(a), kt_b = (long long)(b);                                    \
        if (kt_a != kt_b)                                                                          \
            KT_FAIL("%s = %lld, but %s = %lld", #a, kt_a, #b, kt_b);                               \
    } while (0)
#define ASSERT_STR(a, b)                                                                           \
    do {                                                                                           \
        const char *kt_a = (a), *kt_b = (b);                                                       \
        if (strcmp(kt_a, kt_b) != 0)                                                               \
            KT_FAIL("%s = '%s', but %s = '%s'", #a, kt_a, #b, kt_b);                               \
    } while (0)
/* Result code with the error text: rc is evaluated once; err is a struct kfs_err. */
#define ASSERT_OK(rc, err)                                                                         \
    do {                                                                                           \
        long long kt_a = (long long)(rc);                                                          \
        if (kt_a < 0)                                                                              \
            KT_FAIL("%s = %lld (%s)", #rc, kt_a, (err).msg);                                       \
    } while (0)

static int kt_main(int argc, char **argv)
{
    static int passed, failed, skipped; /* static: they live across longjmp */
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (struct kt_case *volatile c = kt_first; c; c = c->next) {
        if (argc > 1 && !strstr(c->name, argv[1]))
            continue;
        int how = setjmp(kt_out);
        if (how == 0) {
            c->run();
            passed++;
        } else if (how == KT_SKIPPED) {
            skipped++;
        } else {
            failed++;
        }
        printf("%s %s\n", how == 0 ? "ok  " : how == KT_SKIPPED ? "skip" : "FAIL", c->name);
    }
    printf("kt: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed != 0;
}
#define KT_MAIN                                                                                    \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return kt_main(argc, argv);                                                                \
    }

#endif
