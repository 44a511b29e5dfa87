/* kfs-run's prefixes: which are taken, and what is said about the others. */
#include "tests/unit/kt.h"
#include "tools/kfs-run/options.c"

static void bad(struct run_options *o, const char *arg, const char *text)
{
    struct kfs_err err = {0};
    int before = o->at_count, rc = run_at_add(o, arg, &err);
    if (rc != -EINVAL || !strstr(err.msg, text) || o->at_count != before)
        KT_FAIL("'%.60s': %d '%s'; expected %d and '%s'", arg, rc, err.msg, -EINVAL, text);
}

TEST(at_refuses)
{
    struct run_options o = {.linger_s = -1};
    struct kfs_err err = {0};
    bad(&o, "", "is not PREFIX=VOLUME");
    bad(&o, "/data", "is not PREFIX=VOLUME");
    bad(&o, "=sqlite:x", "is not PREFIX=VOLUME");
    bad(&o, "/data=", "is not PREFIX=VOLUME");
    bad(&o, "data=sqlite:x", "not absolute");
    bad(&o, "./data=sqlite:x", "not absolute");
    bad(&o, "/=sqlite:x", "root directory");
    bad(&o, "//=sqlite:x", "root directory");
    bad(&o, "/data/..=sqlite:x", "root directory");
    bad(&o, "/data/=sqlite:x", "write '/data'");
    bad(&o, "//data=sqlite:x", "write '/data'");
    bad(&o, "/a/./b=sqlite:x", "write '/a/b'");
    bad(&o, "/a/../b=sqlite:x", "write '/b'");
    char long_prefix[2000] = "/";
    memset(long_prefix + 1, 'p', 1500);
    strcat(long_prefix, "=sqlite:x");
    bad(&o, long_prefix, "bytes long");
    ASSERT_OK(run_at_add(&o, "/data=sqlite:x=y", &err), err);
    ASSERT_STR(o.at[0].prefix, "/data");
    ASSERT_STR(o.at[0].volume, "sqlite:x=y");
    bad(&o, "/data=sqlite:z", "given twice");
    bad(&o, "/data/in=sqlite:z", "nested");
    ASSERT_OK(run_at_add(&o, "/database=sqlite:z", &err), err);
    ASSERT_OK(run_at_add(&o, "/deep/er=sqlite:z", &err), err);
    bad(&o, "/deep=sqlite:z", "nested");
}

TEST(at_count)
{
    struct run_options o = {.linger_s = -1};
    struct kfs_err err = {0};
    for (int i = 0; i < KFS_MOUNTS_MAX; i++) {
        char arg[32];
        snprintf(arg, sizeof arg, "/p%d=sqlite:x", i);
        ASSERT_OK(run_at_add(&o, arg, &err), err);
    }
    bad(&o, "/more=sqlite:x", "more than 16 prefixes");
}

KT_MAIN
