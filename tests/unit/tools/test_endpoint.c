/* What a user may call a volume, and what is said about everything else. */
#include "base/cleanup.h"
#include "tests/unit/kt.h"
#include "tools/common/endpoint.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static void bad(const struct kfs_conf *conf, const char *volume, int code, const char *text)
{
    struct kfs_endpoint e;
    struct kfs_err err = {0};
    int rc = kfs_endpoint_resolve(conf, volume, &e, &err);
    if (rc != -code || !strstr(err.msg, text))
        KT_FAIL("'%s': %d '%s'; expected %d and '%s'", volume, rc, err.msg, -code, text);
}

TEST(endpoint_resolve_refuses)
{
    bad(NULL, "s3:bucket", EINVAL, "unknown scheme 's3'");
    bad(NULL, "sqlite", EINVAL, "no volume 'sqlite'");
    bad(NULL, "mysql:db", EINVAL, "unknown scheme 'mysql'");
    bad(NULL, "mysql://u@h:1/a b", EINVAL, "has blanks in it");
    bad(NULL, "sqlite:", EINVAL, "names no database file");
    bad(NULL, "sqlite:/tmp/", EINVAL, "names no database file");
    bad(NULL, "sqlite:/tmp/..", EINVAL, "names a directory");
    bad(NULL, "sqlite:/tmp/a\nb", EINVAL, "names no database file");
    bad(NULL, "sqlite:/nosuchdir/x.db", ENOENT, "'/nosuchdir/'");
    bad(NULL, "", EINVAL, "no volume ''");
    char deep[1200] = "sqlite:/tmp/";
    memset(deep + 12, 'x', 1100);
    bad(NULL, deep, ENAMETOOLONG, "too long");
}

TEST(endpoint_resolve_makes_absolute)
{
    char dir[] = "/tmp/kfs-endpoint.XXXXXX", cwd[4096], want[128], real[128], link[128];
    struct kfs_endpoint e;
    struct kfs_err err = {0};
    ASSERT(mkdtemp(dir));
    ASSERT(getcwd(cwd, sizeof cwd));
    ASSERT_EQ(chdir(dir), 0);
    snprintf(want, sizeof want, "sqlite:%s/v.db", dir);
    ASSERT_OK(kfs_endpoint_resolve(NULL, "sqlite:v.db", &e, &err), err);
    ASSERT_STR(e.url, want);
    ASSERT_STR(e.path, want + 7);
    ASSERT_OK(kfs_endpoint_resolve(NULL, "sqlite:.././/../tmp/../tmp/v.db" + 0, &e, &err), err);
    ASSERT_STR(e.url, "sqlite:/tmp/v.db");
    /* Two names of one database are one volume. */
    snprintf(real, sizeof real, "%s/real.db", dir);
    snprintf(link, sizeof link, "%s/link.db", dir);
    FILE *f = fopen(real, "w");
    ASSERT(f);
    fclose(f);
    ASSERT_EQ(symlink("real.db", link), 0);
    ASSERT_OK(kfs_endpoint_resolve(NULL, "sqlite:link.db", &e, &err), err);
    ASSERT_STR(e.path, real);
    unlink(link);
    unlink(real);
    ASSERT_EQ(chdir(cwd), 0);
    rmdir(dir);
}

TEST(endpoint_resolve_names)
{
    char path[] = "/tmp/kfs-endpoint-conf.XXXXXX";
    struct kfs_conf conf;
    struct kfs_endpoint e;
    struct kfs_err err = {0};
    kfs_auto_fd int fd = mkstemp(path);
    ASSERT(fd >= 0);
    const char text[] = "[volume team]\nurl = sqlite:/tmp/team.db\n[volume far]\nurl = ftp://x\n";
    ASSERT_EQ(write(fd, text, sizeof text - 1), sizeof text - 1);
    ASSERT_OK(kfs_conf_init(&conf, &err), err);
    ASSERT_OK(kfs_conf_load(&conf, path, &err), err);
    unlink(path);
    ASSERT_OK(kfs_endpoint_resolve(&conf, "team", &e, &err), err);
    ASSERT_STR(e.url, "sqlite:/tmp/team.db");
    bad(&conf, "steam", EINVAL, "it has: team, far");
    bad(&conf, "far", EINVAL, "unknown scheme 'ftp'");
    kfs_conf_release(&conf);
}

TEST(endpoint_missing_database)
{
    struct kfs_endpoint e;
    struct kfs_err err = {0};
    struct kfs_client c;
    const struct kfs_endpoint_options o = {.linger_s = -1};
    ASSERT_OK(kfs_endpoint_resolve(NULL, "sqlite:/tmp/kfs-no-such.db", &e, &err), err);
    ASSERT_EQ(kfs_endpoint_find(NULL, &e, &o, &c, &err), -ENOENT);
    ASSERT_STR(err.msg, "database '/tmp/kfs-no-such.db' does not exist; create it with 'kfs format sqlite:/tmp/kfs-no-such.db' or 'kfs-run --create'");
}

TEST(endpoint_socket_path_too_long)
{
    char path[200] = "/tmp/";
    struct kfs_client c;
    struct kfs_err err = {0};
    memset(path + 5, 's', 150);
    ASSERT_EQ(kfs_client_open(path, NULL, &c, &err), -ENAMETOOLONG);
    ASSERT(strstr(err.msg, "longer than 107 bytes"));
    ASSERT_EQ(kfs_client_open("/tmp/kfs-no-such.sock", NULL, &c, &err), -ENOENT);
}

static void preload(const char *in, const char *want)
{
    char buf[64];
    kfs_preload_without_shim(in, buf, sizeof buf);
    ASSERT_STR(buf, want);
}

TEST(preload_without_shim)
{
    preload(NULL, "");
    preload("", "");
    preload("/a/libkfs.so", "");
    preload("libkfs.so", "");
    preload("/a/libasan.so:/b/libkfs.so", "/a/libasan.so");
    preload("/a/libkfs.so /b/x.so::/c/libkfs.so.1", "/b/x.so:/c/libkfs.so.1");
    preload("/a/mylibkfs.so", "/a/mylibkfs.so");
}

KT_MAIN
