/* base/conf: the configuration file. */
#include "base/conf.h"
#include "tests/unit/kt.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static char file[256];

static const char *write_conf(const char *text)
{
    const char *dir = getenv("TMPDIR");
    snprintf(file, sizeof file, "%s/kfs-conf.XXXXXX", dir && *dir ? dir : "/tmp");
    int fd = mkstemp(file);
    ASSERT(fd >= 0);
    ASSERT_EQ(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return file;
}

TEST(conf_defaults)
{
    struct kfs_conf c;
    struct kfs_err e = {0};
    ASSERT_OK(kfs_conf_init(&c, &e), e);
    ASSERT_STR(kfs_conf_text(&c, KFS_CONF_CACHE_DIR), "");
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_CACHE_BYTES), 10LL << 30);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_LINGER_S), 10);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_SHM_NAMES), 131072);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_RPC_WAIT_S), 30);
    ASSERT_STR(kfs_conf_text(&c, KFS_CONF_COMMIT), "close");
    ASSERT_STR(c.values[KFS_CONF_COMMIT].origin, "default");
    for (int i = 0; i < KFS_CONF_COUNT; i++)
        ASSERT(*kfs_conf_key_name(i) && *kfs_conf_key_doc(i));
    kfs_conf_release(&c);
    kfs_conf_release(NULL);
}

TEST(conf_file_sets_keys_and_volumes)
{
    struct kfs_conf c;
    struct kfs_err e = {0};
    ASSERT_OK(kfs_conf_init(&c, &e), e);
    setenv("HOME", "/home/somebody", 1);
    write_conf("# a comment\n\n cache_bytes =  512M   # half a gigabyte\ncache_dir=~/c#ache\n"
               "linger_s = 2 m\ncommit = session\nshm_names=64\n"
               "[volume train]\nurl = sqlite:/v/train.db\n[ volume ]\n");
    ASSERT_EQ(kfs_conf_load(&c, file, &e), -EINVAL); /* the last line is wrong, so nothing changes */
    unlink(file);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_SHM_NAMES), 131072);
    ASSERT_EQ(c.volume_count, 0);
    write_conf("# a comment\n\n cache_bytes =  512M   # half a gigabyte\ncache_dir=~/c#ache\n"
               "linger_s = 2 m\ncommit = session\nshm_names=64\n"
               "[volume train]\nurl = sqlite:/v/train.db\n[volume eval]\n  url=sqlite:/v/eval.db");
    ASSERT_OK(kfs_conf_load(&c, file, &e), e);
    unlink(file);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_CACHE_BYTES), 512LL << 20);
    ASSERT_STR(kfs_conf_text(&c, KFS_CONF_CACHE_DIR), "/home/somebody/c#ache");
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_LINGER_S), 120);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_COMMIT), 1);
    ASSERT_STR(kfs_conf_text(&c, KFS_CONF_COMMIT), "session");
    ASSERT_STR(kfs_conf_text(&c, KFS_CONF_LOG_LEVEL), "info"); /* not in the file */
    ASSERT_STR(kfs_conf_volume_url(&c, "train"), "sqlite:/v/train.db");
    ASSERT_STR(kfs_conf_volume_url(&c, "eval"), "sqlite:/v/eval.db");
    ASSERT(kfs_conf_volume_url(&c, "other") == NULL);
    char want[300];
    snprintf(want, sizeof want, "%s:5", file);
    ASSERT_STR(c.values[KFS_CONF_LINGER_S].origin, want);

    write_conf("linger_s = 0\n[volume train]\nurl = sqlite:/w/train.db\n");
    ASSERT_OK(kfs_conf_load(&c, file, &e), e);
    unlink(file);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_LINGER_S), 0);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_SHM_NAMES), 64); /* of the first file */
    ASSERT_STR(kfs_conf_volume_url(&c, "train"), "sqlite:/w/train.db");
    ASSERT_EQ(c.volume_count, 2);
    kfs_conf_release(&c);
}

/* The file is refused, and the text says what. */
static void refused_one(const char *text, int line, const char *word)
{
    struct kfs_conf c;
    struct kfs_err e = {0};
    ASSERT_OK(kfs_conf_init(&c, &e), e);
    write_conf(text);
    int rc = kfs_conf_load(&c, file, &e);
    unlink(file);
    kfs_conf_release(&c);
    ASSERT_EQ(rc, -EINVAL);
    char where[300];
    snprintf(where, sizeof where, "%s:%d: ", file, line);
    if (strncmp(e.msg, where, strlen(where)) != 0 || !strstr(e.msg, word))
        KT_FAIL("'%s' does not say '%s' and '%s'", e.msg, where, word);
}

TEST(conf_cache_directories)
{
    struct kfs_conf c;
    struct kfs_err e = {0};
    struct kfs_conf_dir d;
    ASSERT_OK(kfs_conf_init(&c, &e), e);
    const char *cursor = kfs_conf_text(&c, KFS_CONF_CACHE_DIR);
    ASSERT_EQ(kfs_conf_dir_next(&cursor, &d), 0);
    setenv("HOME", "/home/x", 1);
    write_conf("cache_dir = /a dir/b\ncache_dir = ~/fast  bytes=20G files=1000 # fast\ncache_dir=/c files=5\n");
    ASSERT_OK(kfs_conf_load(&c, file, &e), e);
    ASSERT_OK(kfs_conf_load(&c, file, &e), e); /* a later file replaces all of them */
    cursor = kfs_conf_text(&c, KFS_CONF_CACHE_DIR);
    ASSERT_EQ(kfs_conf_dir_next(&cursor, &d), 1);
    ASSERT_STR(d.path, "/a dir/b");
    ASSERT(!d.has_bytes && !d.has_files);
    ASSERT_EQ(kfs_conf_dir_next(&cursor, &d), 1);
    ASSERT_STR(d.path, "/home/x/fast");
    ASSERT(d.has_bytes && d.has_files && d.bytes == 20ULL << 30 && d.files == 1000);
    ASSERT_EQ(kfs_conf_dir_next(&cursor, &d), 1);
    ASSERT_STR(d.path, "/c");
    ASSERT(!d.has_bytes && d.has_files && d.files == 5);
    ASSERT_EQ(kfs_conf_dir_next(&cursor, &d), 0);
    unlink(file);
    kfs_conf_release(&c);
}

TEST(conf_errors_say_where_and_what_is_allowed)
{
    refused_one("\ncolour = red\n", 2, "known are cache_dir, cache_bytes");
    refused_one("commit = never\n", 1, "allowed: close|session");
    refused_one("commit = clos\n", 1, "allowed: close|session");
    refused_one("cache_bytes = many\n", 1, "bytes, with K, M, G or T");
    refused_one("cache_bytes = 99999999999T\n", 1, "cache_bytes");
    refused_one("cache_bytes = 10GX\n", 1, "cache_bytes");
    refused_one("shm_names = 1000\n", 1, "a power of two");
    refused_one("shm_names = 32\n", 1, "a power of two");
    refused_one("cache_dir = relative\n", 1, "an absolute path");
    refused_one("cache_dir = /a\ncache_dir = b\n", 2, "an absolute path");
    refused_one("cache_dir = /a bytes=many\n", 1, "bytes=SIZE");
    refused_one("cache_verify = never\n", 1, "none|sampled|full");
    refused_one("linger_s = -1\n", 1, "seconds");
    refused_one("linger_s = 5d\n", 1, "seconds");
    refused_one("what is this\n", 1, "neither");
    refused_one("[group x]\n", 1, "[volume NAME]");
    refused_one("[volume a/b]\n", 1, "cannot name a volume");
    refused_one("[volume a]\nurl = x:1\n[volume a]\n", 3, "twice");
    refused_one("[volume a]\nuri = x:1\n", 2, "allowed: url");
    refused_one("[volume a]\nurl = nothing\n", 2, "a volume URL");
    refused_one("[volume a]\n", 1, "has no url");
    refused_one("[volume a]\nurl = x:1\nlinger_s = 1\n", 3, "allowed: url");
    refused_one("[\n", 1, "unknown section");
    refused_one("= 3\n", 1, "unknown key");
}

TEST(conf_load_missing_and_unreadable)
{
    struct kfs_conf c;
    struct kfs_err e = {0};
    ASSERT_OK(kfs_conf_init(&c, &e), e);
    ASSERT_EQ(kfs_conf_load(&c, "/does/not/exist.conf", &e), -ENOENT);
    ASSERT(strstr(e.msg, "'/does/not/exist.conf'") != NULL);
    ASSERT_EQ(kfs_conf_load(&c, "/tmp", &e), -EISDIR);
    kfs_conf_release(&c);
}

TEST(conf_load_default_finds_its_files)
{
    struct kfs_conf c;
    struct kfs_err e = {0};
    char home[256], path[400];
    const char *dir = getenv("TMPDIR");
    snprintf(home, sizeof home, "%s/kfs-home.XXXXXX", dir && *dir ? dir : "/tmp");
    ASSERT(mkdtemp(home) != NULL);
    setenv("HOME", home, 1);
    unsetenv("KFS_CONFIG");
    ASSERT_OK(kfs_conf_load_default(&c, &e), e); /* no file at all is fine */
    kfs_conf_release(&c);
    snprintf(path, sizeof path, "%s/.config", home);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/.config/kfs", home);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/.config/kfs/kfs.conf", home);
    FILE *f = fopen(path, "w");
    fputs("rpc_wait_s = 7\n", f);
    fclose(f);
    ASSERT_OK(kfs_conf_load_default(&c, &e), e);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_RPC_WAIT_S), 7);
    kfs_conf_release(&c);
    write_conf("rpc_wait_s = 8\n");
    setenv("KFS_CONFIG", file, 1);
    ASSERT_OK(kfs_conf_load_default(&c, &e), e);
    ASSERT_EQ(kfs_conf_number(&c, KFS_CONF_RPC_WAIT_S), 8);
    kfs_conf_release(&c);
    unlink(file);
    ASSERT_EQ(kfs_conf_load_default(&c, &e), -ENOENT);
    unsetenv("KFS_CONFIG");
    unlink(path);
    *strrchr(path, '/') = 0;
    rmdir(path);
    *strrchr(path, '/') = 0;
    rmdir(path);
    rmdir(home);
}

TEST(conf_sizes)
{
    uint64_t n = 0;
    ASSERT_EQ(kfs_conf_parse_size("0", &n), 0);
    ASSERT_EQ(n, 0);
    ASSERT_EQ(kfs_conf_parse_size("4k", &n), 0);
    ASSERT_EQ(n, 4096);
    ASSERT_EQ(kfs_conf_parse_size("3 GiB", &n), 0);
    ASSERT_EQ(n, 3LL << 30);
    ASSERT_EQ(kfs_conf_parse_size("", &n), -EINVAL);
    ASSERT_EQ(kfs_conf_parse_size("-1", &n), -EINVAL);
    ASSERT_EQ(kfs_conf_parse_size("1.5G", &n), -EINVAL);
    ASSERT_EQ(kfs_conf_parse_size("18446744073709551616", &n), -EINVAL);
}

KT_MAIN
