/* tests/fuzz/scratch.h — what the fuzzers share: a directory of their own, removed at the end */
#ifndef KFS_TESTS_FUZZ_SCRATCH_H
#define KFS_TESTS_FUZZ_SCRATCH_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char scratch_dir[256];

static inline int scratch_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void scratch_remove(void)
{
    if (scratch_dir[0])
        nftw(scratch_dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    scratch_dir[0] = 0;
}

/* Made at the first call. */
static inline const char *scratch(void)
{
    const char *base = getenv("TMPDIR");
    if (scratch_dir[0])
        return scratch_dir;
    snprintf(scratch_dir, sizeof scratch_dir, "%.200s/kfs-fuzz-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(scratch_dir)) {
        perror(scratch_dir);
        exit(1);
    }
    atexit(scratch_remove);
    return scratch_dir;
}

/* What must hold whatever the input is. */
#define MUST(x)                                                                                                                    \
    do {                                                                                                                           \
        if (!(x)) {                                                                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #x);                                                 \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

#endif
