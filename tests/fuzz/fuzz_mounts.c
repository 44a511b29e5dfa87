/* tests/fuzz/fuzz_mounts.c — any KFS_AT: what is decoded is whole, and written again it reads the same */
#include "tests/fuzz/scratch.h"
#include "base/pure/mounts.h"
#include "base/pure/path.h"
#include <stdbool.h>

static void written_again(const struct kfs_mount *m)
{
    static char text[3 * sizeof *m];
    struct kfs_mount again;
    text[0] = 0;
    MUST(kfs_mounts_append(text, sizeof text, m) == 0);
    const char *at = text;
    MUST(kfs_mounts_next(&at, &again) == 1 && !*at);
    MUST(strcmp(again.prefix, m->prefix) == 0 && strcmp(again.socket, m->socket) == 0 && strcmp(again.cache_dir, m->cache_dir) == 0 &&
         strcmp(again.url, m->url) == 0 && again.session == m->session && strcmp(again.more_dirs, m->more_dirs) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), norm[4096];
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    const char *at = text;
    struct kfs_mount m;
    int r;
    while ((r = kfs_mounts_next(&at, &m)) == 1) {
        MUST(at <= text + size);
        MUST(m.prefix_len == strlen(m.prefix) && m.cache_dir_len == strlen(m.cache_dir));
        MUST(m.prefix[0] == '/' && m.prefix_len > 1);
        written_again(&m);
    }
    MUST(r == 0 || !*at);
    r = kfs_path_normalise(text, norm, sizeof norm);
    MUST(r < (int)sizeof norm && (r < 0 || (norm[0] == '/' && (size_t)r == strlen(norm))));
    free(text);
    return 0;
}
