#include "tools/kfsd/safetensors.c"
#include "tests/unit/kt.h"

static struct kfs_range got[8];

static size_t parse(const char *json, uint64_t file_bytes)
{
    return kfsd_safetensors_ranges(json, strlen(json), file_bytes, got, 8);
}

TEST(tensors_in_header_order_and_neighbours_as_one)
{
    const char *json = "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[100,200]}, \"c\":{\"data_offsets\" : [ 200 , 250 ]},"
                       "\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,100]},\"__metadata__\":{\"format\":\"pt\"}}";
    uint64_t base = 8 + strlen(json);
    ASSERT_EQ(parse(json, base + 250), 2);
    ASSERT_EQ(got[0].off, base + 100);
    ASSERT_EQ(got[0].len, 150);
    ASSERT_EQ(got[1].off, base);
    ASSERT_EQ(got[1].len, 100);
}

TEST(what_is_no_header_gives_nothing)
{
    const char *const bad[] = {"", "{}", "[\"data_offsets\":[0,1]]", "{\"data_offsets\":[1,0]}", "{\"data_offsets\":[0,99999999]}", "{\"data_offsets\":[0,",
                               "{\"data_offsets\"", "{\"data_offsets\":[99999999999999999999999,1]}", "{\"data_offsets\":[-1,5]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (parse(bad[i], 1000))
            KT_FAIL("'%s' gives ranges", bad[i]);
}

TEST(no_more_than_fit)
{
    static char json[4096] = "{";
    for (int i = 0; i < 40; i++)
        snprintf(json + strlen(json), sizeof json - strlen(json), "\"t%d\":{\"data_offsets\":[%d,%d]},", i, i * 10, i * 10 + 5);
    ASSERT_EQ(parse(json, 1 << 20), 8);
}

KT_MAIN
