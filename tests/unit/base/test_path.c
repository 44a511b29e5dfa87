/* base/pure: lexical paths and the KFS_AT variable. */
#include "base/pure/mounts.h"
#include "base/pure/path.h"
#include "tests/unit/kt.h"

#include <errno.h>

static void normalise_one(const char *in, const char *want)
{
    char buf[256];
    int n = kfs_path_normalise(in, buf, sizeof buf);
    if (n < 0)
        KT_FAIL("'%s' gives %d", in, n);
    ASSERT_STR(buf, want);
    ASSERT_EQ(n, strlen(want));
}

TEST(path_normalise)
{
    normalise_one("/", "/");
    normalise_one("///", "/");
    normalise_one("/a", "/a");
    normalise_one("/a/", "/a");
    normalise_one("//a//b///", "/a/b");
    normalise_one("/a/./b/.", "/a/b");
    normalise_one("/a/b/..", "/a");
    normalise_one("/a/..", "/");
    normalise_one("/..", "/");
    normalise_one("/../../a", "/a");
    normalise_one("/a/../../b", "/b");
    normalise_one("/...", "/...");
    normalise_one("/..a/.b", "/..a/.b");
    normalise_one("/aa/bbb/../c", "/aa/c");
}

TEST(path_normalise_refuses)
{
    char buf[8];
    ASSERT_EQ(kfs_path_normalise("a/b", buf, sizeof buf), -EINVAL);
    ASSERT_EQ(kfs_path_normalise("", buf, sizeof buf), -EINVAL);
    ASSERT_EQ(kfs_path_normalise("/123456", buf, 8), 7);
    ASSERT_EQ(kfs_path_normalise("/1234567", buf, 8), -ENAMETOOLONG);
    ASSERT_EQ(kfs_path_normalise("/1/2/3/4", buf, 8), -ENAMETOOLONG);
    ASSERT_EQ(kfs_path_normalise("/1/2/3/..", buf, 8), 4);
    ASSERT_EQ(kfs_path_normalise("/", buf, 1), -ENAMETOOLONG);
    ASSERT_EQ(kfs_path_normalise("/", buf, 0), -ENAMETOOLONG);
    ASSERT_EQ(kfs_path_normalise("/", buf, 2), 1);
}

TEST(path_next_walks)
{
    const char *c = "//ab/./c//";
    size_t len;
    const char *p = kfs_path_next(&c, &len);
    ASSERT(p && len == 2 && memcmp(p, "ab", 2) == 0);
    p = kfs_path_next(&c, &len);
    ASSERT(p && len == 1 && p[0] == '.');
    ASSERT_STR(c, "c//");
    p = kfs_path_next(&c, &len);
    ASSERT(p && len == 1 && p[0] == 'c');
    ASSERT_STR(c, "");
    ASSERT(kfs_path_next(&c, &len) == NULL);
    ASSERT(kfs_path_next(&c, &len) == NULL);
}

TEST(path_under)
{
    ASSERT(kfs_path_under("/data", "/data", 5));
    ASSERT(kfs_path_under("/data/x", "/data", 5));
    ASSERT(!kfs_path_under("/database", "/data", 5));
    ASSERT(!kfs_path_under("/dat", "/data", 5));
    ASSERT(!kfs_path_under("/", "/data", 5));
    ASSERT(kfs_path_under("/x", "/", 1));
}

static struct kfs_mount mount_make(const char *prefix, const char *url, bool session)
{
    struct kfs_mount m = {.session = session};
    snprintf(m.prefix, sizeof m.prefix, "%s", prefix);
    snprintf(m.socket, sizeof m.socket, "/run/kfs.sock");
    snprintf(m.cache_dir, sizeof m.cache_dir, "/var/cache/k%%;|s");
    snprintf(m.url, sizeof m.url, "%s", url);
    return m;
}

TEST(mounts_round_trip)
{
    char buf[4096] = "";
    struct kfs_mount a = mount_make("/data", "sqlite:/a;b|c%.db", false);
    struct kfs_mount b = mount_make("/mnt/two|;%", "sqlite:/x", true), got;
    snprintf(b.more_dirs, sizeof b.more_dirs, "/x|y\n/z;z%%\n");
    ASSERT_EQ(kfs_mounts_append(buf, sizeof buf, &a), 0);
    ASSERT_EQ(kfs_mounts_append(buf, sizeof buf, &b), 0);
    const char *c = buf;
    ASSERT_EQ(kfs_mounts_next(&c, &got), 1);
    ASSERT_STR(got.prefix, "/data");
    ASSERT_EQ(got.prefix_len, 5);
    ASSERT_STR(got.url, a.url);
    ASSERT_STR(got.cache_dir, a.cache_dir);
    ASSERT_EQ(got.cache_dir_len, strlen(a.cache_dir));
    ASSERT(!got.session);
    ASSERT_STR(got.more_dirs, "");
    ASSERT_EQ(kfs_mounts_next(&c, &got), 1);
    ASSERT_STR(got.prefix, b.prefix);
    ASSERT_STR(got.socket, b.socket);
    ASSERT_STR(got.more_dirs, b.more_dirs);
    ASSERT(got.session);
    ASSERT_EQ(kfs_mounts_next(&c, &got), 0);
}

static void malformed_one(const char *text)
{
    struct kfs_mount m;
    const char *c = text;
    int rc = kfs_mounts_next(&c, &m);
    if (rc != -EINVAL)
        KT_FAIL("'%s' gives %d", text, rc);
    ASSERT_EQ(kfs_mounts_next(&c, &m), 0);
}

TEST(mounts_malformed)
{
    malformed_one("/d|s|c|u|close|/a\n/b");
    malformed_one("/d|s|c|u|close|/a\nb\n");
    malformed_one("/d|s|c|u|close|/a\n|more");
    malformed_one("x");
    malformed_one("/d|s|c|u");
    malformed_one("/d|s|c|u|close|more");
    malformed_one("/d|s|c|u|often");
    malformed_one("d|s|c|u|close");
    malformed_one("/|s|c|u|close");
    malformed_one("|s|c|u|close");
    malformed_one("/d/|s|c|u|close");
    malformed_one("/d/../e|s|c|u|close");
    malformed_one("/d|s|c%|u|close");
    malformed_one("/d|s|c%2|u|close");
    malformed_one("/d|s|c%41|u|close;/e|s|c|u|close");
    char big[300];
    snprintf(big, sizeof big, "/d|%0200d|c|u|close", 1); /* a socket path too long for the kernel */
    malformed_one(big);
    struct kfs_mount m;
    const char *c = "";
    ASSERT_EQ(kfs_mounts_next(&c, &m), 0);
}

TEST(mounts_append_full_buffer_changes_nothing)
{
    char buf[64] = "";
    struct kfs_mount a = mount_make("/d", "u:1", false);
    ASSERT_EQ(kfs_mounts_append(buf, sizeof buf, &a), 0);
    char before[64];
    memcpy(before, buf, sizeof before);
    ASSERT_EQ(kfs_mounts_append(buf, sizeof buf, &a), -ENAMETOOLONG);
    ASSERT_STR(buf, before);
    size_t need = strlen(buf) + 1;
    buf[0] = 0;
    ASSERT_EQ(kfs_mounts_append(buf, need, &a), 0);
    buf[0] = 0;
    ASSERT_EQ(kfs_mounts_append(buf, need - 1, &a), -ENAMETOOLONG);
}

KT_MAIN
