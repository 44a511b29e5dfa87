/* tests/fuzz/fuzz_segment.c — any bytes as a segment: the reader stays inside it, and what it gives is well-formed
 *
 * Input    One byte: 0 the header as it comes; else the header is made plausible, so that the rows are read. Then the segment.
 */
#include "tests/fuzz/scratch.h"
#include "base/pure/shm_layout.h"

static void plausible(struct kfs_shm_header *h, uint64_t bytes, uint8_t shape)
{
    const uint64_t room = bytes - sizeof *h, rows = 4ULL << (shape & 1);
    h->magic = KFS_SHM_MAGIC;
    h->version = KFS_SHM_VERSION;
    h->header_bytes = sizeof *h;
    h->segment_bytes = bytes;
    h->dent_rows = h->attr_rows = h->link_rows = rows;
    h->dent_off = sizeof *h;
    h->attr_off = sizeof *h + (room / 3 & ~63ULL);
    h->link_off = bytes - rows * sizeof(struct kfs_shm_link);
    h->link_off &= ~63ULL;
    h->list_rows = rows;
    h->list_off = sizeof *h + (room / 2 & ~63ULL);
    h->ring_off = sizeof *h;
    h->ring_bytes = room & ~63ULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + sizeof(struct kfs_shm_header))
        return 0;
    size_t bytes = size - 1;
    void *map = NULL;
    if (posix_memalign(&map, 64, bytes))
        return 0;
    memcpy(map, data + 1, bytes);
    struct kfs_shm_header *h = map;
    if (data[0] && bytes > sizeof *h + 8 * sizeof(struct kfs_shm_link))
        plausible(h, bytes, data[0]);
    if (kfs_shm_header_ok(h, bytes)) {
        static const char *const names[] = {"a", "b", "name", "", "a-name-that-is-longer-than-a-row-can-hold-a-name-that-is-longer-than-a-row-can-hold-a-name-that-is-longer"};
        char target[KFS_SHM_TARGET_MAX + 1];
        struct kfs_attr a;
        uint64_t ino;
        for (uint64_t parent = 0; parent < 4; parent++)
            for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                int d = kfs_shm_dent_get(h, parent, names[i], strlen(names[i]), &ino);
                (void)d;
            }
        /* Also what the rows themselves claim to be about. */
        const struct kfs_shm_dent *d = (const void *)((const char *)h + h->dent_off);
        for (uint64_t i = 0; i < h->dent_rows && i < 64; i++) {
            size_t n = d[i].name_len <= KFS_SHM_NAME_MAX ? d[i].name_len : KFS_SHM_NAME_MAX;
            (void)kfs_shm_dent_get(h, d[i].parent, d[i].name, n, &ino);
        }
        const struct kfs_shm_attr *t = (const void *)((const char *)h + h->attr_off);
        for (uint64_t i = 0; i < h->attr_rows && i < 64; i++)
            if (kfs_shm_attr_get(h, t[i].attr.ino, &a))
                MUST(a.ino == t[i].attr.ino);
        const struct kfs_shm_link *l = (const void *)((const char *)h + h->link_off);
        for (uint64_t i = 0; i < h->link_rows && i < 64; i++) {
            int n = kfs_shm_link_get(h, l[i].ino, target);
            MUST(n <= KFS_SHM_TARGET_MAX && (n < 0 || target[n] == 0));
        }
        const struct kfs_shm_list *w = (const void *)((const char *)h + h->list_off);
        for (uint64_t i = 0; i < h->list_rows && i < 64; i++)
            for (size_t n = 0; n < sizeof names / sizeof *names; n++)
                (void)kfs_shm_list_find(h, w[i].dir, names[n], strlen(names[n]), &ino);
    }
    free(map);
    return 0;
}
