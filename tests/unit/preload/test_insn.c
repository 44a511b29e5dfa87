/* Lengths of x86-64 instructions: a table, and all of libc as objdump reads it. */
#include "preload/insn.c"
#include "tests/unit/kt.h"
#include <stdio.h>

static const struct {
    const char *hex;
    unsigned length; /* 0: not known */
    const char *flags; /* f: fixed, b: branch, e: sets eax */
} rows[] = {
    {"0f05", 2, ""},
    {"b808010000", 5, "e"},
    {"48b80102030405060708", 10, ""},
    {"66b80200", 4, ""},
    {"66c70424d204", 6, ""},
    {"c3", 1, ""},
    {"c20800", 3, ""},
    {"e800000000", 5, "fb"},
    {"66e80000", 0, ""},
    {"eb10", 2, "fb"},
    {"0f8510000000", 6, "fb"},
    {"ff1500000000", 6, "f"},
    {"ffd0", 2, "f"},
    {"ffe0", 2, "f"},
    {"ffc0", 2, ""},
    {"ff30", 2, ""},
    {"488b0500000000", 7, "f"},
    {"488b442410", 5, ""},
    {"488b042510000000", 8, ""},
    {"488d8424c8000000", 8, ""},
    {"4889e5", 3, ""},
    {"f6c101", 3, ""},
    {"f7d8", 2, ""},
    {"f7c100000001", 6, ""},
    {"66f7c10001", 5, ""},
    {"69c910270000", 6, ""},
    {"6bc90a", 3, ""},
    {"c8100000", 4, ""},
    {"a00102030405060708", 9, ""},
    {"67a001020304", 6, ""},
    {"660f1f840000000000", 9, ""},
    {"f3480fb8c0", 5, ""},
    {"660f3a0fc108", 6, ""},
    {"660f70c0ee", 5, ""},
    {"660f6f0500000000", 8, "f"},
    {"0fbae007", 4, ""},
    {"c5f877", 3, ""},
    {"c5fd6f442420", 6, ""},
    {"c4e37d39c101", 6, ""},
    {"c4e279580500000000", 9, "f"},
    {"62f17c48104104", 7, ""},
    {"62f37d483bc101", 7, ""},
    {"64488b042528000000", 9, ""},
    {"f0480fb10f", 5, ""},
    {"8f00", 2, ""},
    {"8fe978", 0, ""},
    {"06", 0, ""},
    {"0f0b", 2, ""},
    {"0f24", 0, ""},
    {"48", 0, ""},
    {"66", 0, ""},
    {"488b", 0, ""},
    {"b80801", 0, ""},
    {"0f85100000", 0, ""},
};

static size_t bytes_of(const char *hex, uint8_t *to)
{
    size_t n = 0;
    for (; hex[0] && hex[1]; hex += 2, n++)
        to[n] = (uint8_t)strtoul((char[]){hex[0], hex[1], 0}, NULL, 16);
    return n;
}

TEST(table)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t b[16];
        struct kfs_insn got;
        size_t n = bytes_of(rows[i].hex, b);
        bool ok = kfs_insn_read(b, n, &got);
        char flags[4] = "", *p = flags;
        if (ok && got.fixed)
            *p++ = 'f';
        if (ok && got.branch)
            *p++ = 'b';
        if (ok && got.sets_eax)
            *p++ = 'e';
        *p = '\0';
        if ((ok ? got.length : 0) != rows[i].length || strcmp(flags, rows[i].flags) != 0)
            KT_FAIL("%s: length %u, flags '%s'; wanted %u, '%s'", rows[i].hex, ok ? got.length : 0, flags, rows[i].length, rows[i].flags);
        /* Cut off anywhere it is not known, and nothing behind the end is read. */
        for (size_t k = 0; ok && k < got.length; k++) {
            uint8_t *cut = malloc(k + !k);
            memcpy(cut, b, k);
            struct kfs_insn part;
            bool known = kfs_insn_read(cut, k, &part);
            free(cut);
            ASSERT(!known);
        }
    }
}

TEST(branches)
{
    uint8_t b[16];
    struct kfs_insn i;
    ASSERT(kfs_insn_read(b, bytes_of("ebfe", b), &i));
    ASSERT_EQ(i.target, 0);
    ASSERT(kfs_insn_read(b, bytes_of("0f8400010000", b), &i));
    ASSERT_EQ(i.target, 0x106);
    ASSERT(kfs_insn_read(b, bytes_of("e9fbffffff", b), &i));
    ASSERT_EQ(i.target, 0);
}

#if defined __x86_64__
/* "  addr:\tbytes \ttext": the bytes of one instruction, or 0. */
static size_t objdump_line(const char *line, uint8_t b[32])
{
    const char *p = strstr(line, ":\t");
    size_t n = 0;
    if (line[0] != ' ' || !p || !strchr(p + 2, '\t') || strstr(line, "(bad)"))
        return 0;
    for (p += 2; n < 15 && p[0] != ' ' && p[0] != '\t' && p[2] == ' '; p += 3)
        b[n++] = (uint8_t)strtoul((char[]){p[0], p[1], 0}, NULL, 16);
    return n;
}

TEST(as_objdump_reads_libc)
{
    char line[4096];
    unsigned long total = 0;
    FILE *f = popen("objdump -d -w $(ldd $(command -v sh) | sed -n 's/.*libc\\.so[^ ]* => \\([^ ]*\\).*/\\1/p') 2>/dev/null", "r");
    ASSERT(f != NULL);
    while (fgets(line, sizeof line, f)) {
        uint8_t b[32] = {0};
        struct kfs_insn i;
        size_t n = objdump_line(line, b);
        if (!n)
            continue;
        total++;
        if (!kfs_insn_read(b, n, &i) || i.length != n)
            KT_FAIL("length %u, wanted %zu: %s", i.length, n, line);
    }
    pclose(f);
    if (total < 10000)
        SKIP("no objdump, or no libc found");
}
#endif

KT_MAIN
