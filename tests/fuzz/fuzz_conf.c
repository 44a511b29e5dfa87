/* tests/fuzz/fuzz_conf.c — any configuration file: it is taken, or refused with a message and nothing changed */
#include "tests/fuzz/scratch.h"
#include "base/conf.h"
#include <errno.h>

static uint64_t sum_of(const struct kfs_conf *c)
{
    uint64_t h = c->volume_count;
    for (int i = 0; i < KFS_CONF_COUNT; i++) {
        h = h * 31 + kfs_conf_number(c, (enum kfs_conf_key)i);
        for (const char *s = kfs_conf_text(c, (enum kfs_conf_key)i); *s; s++)
            h = h * 31 + (unsigned char)*s;
    }
    return h;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[300];
    snprintf(path, sizeof path, "%s/conf", scratch());
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f))
        return 0;
    struct kfs_conf c;
    struct kfs_err err = {0};
    MUST(kfs_conf_init(&c, &err) == 0);
    uint64_t before = sum_of(&c), bytes;
    int r = kfs_conf_load(&c, path, &err);
    MUST(r == 0 || (r == -EINVAL && err.code && err.msg[0] && sum_of(&c) == before));
    for (size_t i = 0; i < c.volume_count; i++)
        MUST(kfs_conf_volume_url(&c, c.volumes[i].name));
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)(size < 31 ? size : 31), (const char *)data);
    (void)kfs_conf_parse_size(word, &bytes);
    kfs_conf_release(&c);
    return 0;
}
