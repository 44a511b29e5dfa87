/* JSON for people; and JSON that is none. */
#include "tests/unit/kt.h"
#include "tools/kfs/show.c"

static void one(const char *json, const char *want)
{
    struct kfs_buf out;
    kfs_buf_init(&out);
    bool ok = kfs_show_json(json, strlen(json), &out);
    char got[2048];
    snprintf(got, sizeof got, "%s", ok ? kfs_buf_str(&out) : "(no)");
    kfs_buf_release(&out);
    ASSERT_STR(got, want);
}

TEST(show_objects)
{
    one("{\"a\":1,\"long\":\"text\",\"t\":true,\"f\":false,\"n\":null}", "a:    1\nlong: text\nt:    yes\nf:    no\nn:    -\n");
    one("{\"used_bytes\":1536,\"small_bytes\":5}", "used_bytes:  1536 (1.5 KiB)\nsmall_bytes: 5\n");
    one("{\"o\":{\"x\":-1.5e3},\"e\":{}}", "o:\n  x: -1.5e3\ne:\n  (none)\n");
    one(" { \"a\" : [ 1 , \"b\" ] , \"e\" : [ ] } ", "a:\n  1\n  b\ne:\n  (none)\n");
}

TEST(show_tables)
{
    one("{\"t\":[{\"a\":1,\"bb\":\"x\"},{\"a\":\"longer\",\"c\":2,\"n\":[1,{\"q\":2}]}]}", "t:\n  a       bb  c\n  1       x\n  longer      2\n");
}

TEST(show_several_volumes)
{
    one("[{\"a\":1},{\"a\":2}]", "a: 1\n\na: 2\n");
}

TEST(show_keeps_controls_visible)
{
    one("{\"p\":\"a\\u001b[31m\\n\\\"\\\\/\"}", "p: a\\u001b[31m\\n\"\\/\n");
}

TEST(show_refuses)
{
    static const char *const wrong[] = {"", "{", "}", "{\"a\"}", "{\"a\":}", "{\"a\":1", "{\"a\":1}x", "[1", "\"a", "{\"a\":\"\\u12\"}", "{\"a\":\"\\q\"}", "{1:2}", "{\"t\":[{\"a\":1},2]}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        one(wrong[i], "(no)");
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 99);
    deep[199] = 0;
    one(deep, "(no)");
    one("{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}}}}}}}}}", "(no)");
}

KT_MAIN
