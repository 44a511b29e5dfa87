/* base: errors, buffers, log, map, random, faults, clean-up. */
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/extent.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/map.h"
#include "base/rand.h"
#include "tests/unit/kt.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(err_set_formats_and_returns_negative)
{
    struct kfs_err e = {0};
    ASSERT_EQ(KFS_FAIL(&e, ENOENT, "no '%s'", "x"), -ENOENT);
    ASSERT_EQ(e.code, ENOENT);
    ASSERT_STR(e.msg, "no 'x'");
    ASSERT_EQ(KFS_FAIL((struct kfs_err *)NULL, EIO, "nobody reads %d", 1), -EIO);
}

TEST(err_wrap_puts_context_before)
{
    struct kfs_err e = {0};
    (void)KFS_FAIL(&e, ENOSPC, "disk full");
    ASSERT_EQ(KFS_WRAP(&e, "write '%s'", "a"), -ENOSPC);
    ASSERT_STR(e.msg, "write 'a': disk full");
    struct kfs_err none = {0};
    ASSERT_EQ(KFS_WRAP(&none, "alone"), -EIO);
    ASSERT_STR(none.msg, "alone");
    ASSERT_EQ(KFS_WRAP((struct kfs_err *)NULL, "x"), -EIO);
}

TEST(err_wrap_of_long_texts_stays_inside)
{
    struct kfs_err e = {0};
    char big[2000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    (void)KFS_FAIL(&e, EIO, "%s", big);
    for (int i = 0; i < 20; i++)
        (void)KFS_WRAP(&e, "context %d", i);
    ASSERT_EQ(strlen(e.msg), sizeof e.msg - 1);
    ASSERT(strncmp(e.msg, "context 19: context 18: ", 24) == 0);
    (void)KFS_WRAP(&e, "%s", big);
    ASSERT(strlen(e.msg) < sizeof e.msg);
    (void)KFS_FAIL(&e, EIO, "again: %.20s", e.msg);
    ASSERT(strncmp(e.msg, "again: aaa", 10) == 0);
}

TEST(buf_grows_and_ends_with_nul)
{
    struct kfs_buf b;
    kfs_buf_init(&b);
    ASSERT_STR(kfs_buf_str(&b), "");
    for (int i = 0; i < 1000; i++)
        ASSERT_EQ(kfs_buf_printf(&b, "%d,", i), 0);
    ASSERT_EQ(b.len, 10 * 2 + 90 * 3 + 900 * 4);
    ASSERT_EQ(b.data[b.len], 0);
    ASSERT_EQ(kfs_buf_append(&b, "", 0), 0);
    kfs_buf_clear(&b);
    ASSERT_STR(kfs_buf_str(&b), "");
    ASSERT_EQ(kfs_buf_reserve(&b, (size_t)-1), -ENOMEM);
    ASSERT_EQ(kfs_buf_append_str(&b, "x"), -ENOMEM); /* sticky */
    kfs_buf_release(&b);
    kfs_buf_release(NULL);
}

static void json_one(const char *in, size_t len, const char *want)
{
    struct kfs_buf b;
    kfs_buf_init(&b);
    int rc = kfs_buf_json_string(&b, in, len);
    char got[256];
    snprintf(got, sizeof got, "%s", kfs_buf_str(&b));
    kfs_buf_release(&b);
    ASSERT_EQ(rc, 0);
    ASSERT_STR(got, want);
}

TEST(buf_json_escapes)
{
    json_one("plain", 5, "\"plain\"");
    json_one("", 0, "\"\"");
    json_one("a\"b\\c", 5, "\"a\\\"b\\\\c\"");
    json_one("\n\t\0\x7f", 4, "\"\\u000a\\u0009\\u0000\\u007f\"");
    json_one("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
    json_one("\xff" "a\xc3", 3, "\"\\u00ffa\\u00c3\"");            /* stray and cut off */
    json_one("\xc0\x80", 2, "\"\\u00c0\\u0080\"");                  /* overlong */
    json_one("\xed\xa0\x80", 3, "\"\\u00ed\\u00a0\\u0080\"");       /* surrogate */
    json_one("\xf4\x90\x80\x80", 4, "\"\\u00f4\\u0090\\u0080\\u0080\""); /* beyond U+10FFFF */
}

TEST(map_against_an_array)
{
    struct kfs_map m;
    kfs_map_init(&m);
    static int slots[512];
    static bool in[512];
    unsigned seed = 1;
    size_t count = 0;
    memset(in, 0, sizeof in);
    for (int step = 0; step < 200000; step++) {
        unsigned k = (unsigned)rand_r(&seed) % 512;
        uint64_t key = (uint64_t)k * 0x100000001ULL; /* key 0 is a key, too */
        if (rand_r(&seed) & 1) {
            void *old = &seed;
            ASSERT_EQ(kfs_map_put(&m, key, &slots[k], &old), 0);
            ASSERT(old == (in[k] ? &slots[k] : NULL));
            count += !in[k];
            in[k] = true;
        } else {
            ASSERT(kfs_map_remove(&m, key) == (in[k] ? &slots[k] : NULL));
            count -= in[k];
            in[k] = false;
        }
        ASSERT_EQ(m.count, count);
        unsigned q = (unsigned)rand_r(&seed) % 512;
        ASSERT(kfs_map_get(&m, (uint64_t)q * 0x100000001ULL) == (in[q] ? &slots[q] : NULL));
    }
    size_t cursor = 0, seen = 0;
    uint64_t key;
    void *v;
    while ((v = kfs_map_next(&m, &cursor, &key))) {
        ASSERT(v == &slots[key / 0x100000001ULL]);
        seen++;
    }
    ASSERT_EQ(seen, count);
    kfs_map_release(&m);
    ASSERT(kfs_map_get(&m, 1) == NULL);
    ASSERT(kfs_map_remove(&m, 1) == NULL);
}

TEST(rand_and_uuid_differ)
{
    char a[40], b[40];
    kfs_uuid_make(a);
    kfs_uuid_make(b);
    ASSERT_EQ(strlen(a), 36);
    ASSERT(strcmp(a, b) != 0);
    ASSERT_EQ(a[14], '4');
    ASSERT(kfs_rand_u64() != kfs_rand_u64());
    unsigned char big[1000] = {0};
    kfs_rand_bytes(big, sizeof big);
    int zeros = 0;
    for (size_t i = 0; i < sizeof big; i++)
        zeros += big[i] == 0;
    ASSERT(zeros < 100);
}

TEST(clock_goes_forward)
{
    uint64_t a = kfs_clock_mono_ns(), b = kfs_clock_mono_ns();
    ASSERT(b >= a);
    uint64_t coarse = kfs_clock_mono_coarse_ns();
    ASSERT(coarse + 1000000000u > a);
    ASSERT(kfs_clock_real().tv_sec > 1500000000);
}

TEST(cleanup_closes_and_keeps_errno)
{
    int copy;
    {
        kfs_auto_fd int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        kfs_auto_free char *p = strdup("x");
        ASSERT(fd >= 0 && p);
        copy = fd;
        errno = EDOM;
    }
    ASSERT_EQ(errno, EDOM);
    ASSERT_EQ(fcntl(copy, F_GETFD), -1);
    int keep;
    {
        kfs_auto_fd int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        keep = kfs_steal_fd(&fd);
        ASSERT_EQ(fd, -1);
    }
    ASSERT(fcntl(keep, F_GETFD) >= 0);
    close(keep);
    char *p = strdup("y");
    char *q = kfs_steal(&p);
    ASSERT(p == NULL);
    ASSERT_STR(q, "y");
    free(q);
}

TEST(content_release_takes_empty_and_null)
{
    kfs_content_release(NULL);
    kfs_content_delta_release(NULL);
    struct kfs_content c = {.inline_data = malloc(1), .extents = malloc(10)};
    kfs_content_release(&c);
    ASSERT(c.inline_data == NULL && c.extents == NULL);
    static struct kfs_content_delta d;
    d.objects = malloc(8);
    d.object_count = 1;
    kfs_content_delta_release(&d);
    ASSERT(d.objects == NULL && d.object_count == 0);
}

/* --- log ------------------------------------------------------------------------------------------------------- */

static void temp_file(char *path, size_t cap)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, cap, "%s/kfs-base.XXXXXX", dir && *dir ? dir : "/tmp");
    int fd = mkstemp(path);
    ASSERT(fd >= 0);
    close(fd);
}

static size_t read_all(const char *path, char *buf, size_t cap)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(buf, 1, cap - 1, f) : 0;
    if (f)
        fclose(f);
    buf[n] = 0;
    return n;
}

TEST(log_escapes_and_filters)
{
    char path[256], text[8192], big[5000];
    temp_file(path, sizeof path);
    ASSERT_EQ(kfs_log_open(path), 0);
    kfs_log_level_set(KFS_LOG_INFO);
    kfs_log(KFS_LOG_DEBUG, "not this");
    errno = EDOM;
    kfs_log(KFS_LOG_WARN, "file '%s'", "a\nforged error 1 line\x1b[31m\\");
    ASSERT_EQ(errno, EDOM);
    memset(big, 'z', sizeof big - 1);
    big[sizeof big - 1] = 0;
    kfs_log(KFS_LOG_ERROR, "%s", big);
    ASSERT_EQ(kfs_log_open(NULL), 0);
    size_t n = read_all(path, text, sizeof text);
    unlink(path);
    ASSERT(strstr(text, "not this") == NULL);
    ASSERT(strstr(text, "'a\\nforged error 1 line\\x1b[31m\\\\'\n") != NULL);
    char who[40];
    snprintf(who, sizeof who, "Z warn %d file", (int)getpid());
    ASSERT(strstr(text, who) != NULL);
    ASSERT_EQ(text[n - 1], '\n');
    int lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    ASSERT_EQ(lines, 2);
    ASSERT_EQ(kfs_log_open("/does/not/exist/log"), -ENOENT);
}

TEST(log_levels_parse)
{
    enum kfs_log_level l = KFS_LOG_INFO;
    ASSERT(kfs_log_level_parse("debug", &l) && l == KFS_LOG_DEBUG);
    ASSERT(kfs_log_level_parse("error", &l) && l == KFS_LOG_ERROR);
    ASSERT(!kfs_log_level_parse("loud", &l) && l == KFS_LOG_ERROR);
}

TEST(log_limited_counts_what_it_leaves_out)
{
    char path[256], text[8192];
    static struct kfs_log_limit state;
    temp_file(path, sizeof path);
    ASSERT_EQ(kfs_log_open(path), 0);
    for (int i = 0; i < 100; i++)
        kfs_log_limited(&state, KFS_LOG_ERROR, "flood %d", i);
    state.next_ns = 0; /* as if a second had passed */
    kfs_log_limited(&state, KFS_LOG_ERROR, "after");
    ASSERT_EQ(kfs_log_open(NULL), 0);
    (void)read_all(path, text, sizeof text);
    unlink(path);
    ASSERT(strstr(text, "flood 0\n") != NULL);
    ASSERT(strstr(text, "flood 1\n") == NULL);
    ASSERT(strstr(text, "after (99 more like this)\n") != NULL);
}

static void *log_thread(void *arg)
{
    for (int i = 0; i < 200; i++)
        kfs_log(KFS_LOG_ERROR, "%s", (const char *)arg);
    return NULL;
}

TEST(log_lines_of_threads_do_not_mix)
{
    char path[256];
    static char text[400000];
    temp_file(path, sizeof path);
    ASSERT_EQ(kfs_log_open(path), 0);
    static char words[4][101];
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        memset(words[i], 'a' + i, 100);
        ASSERT_EQ(pthread_create(&t[i], NULL, log_thread, words[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    ASSERT_EQ(kfs_log_open(NULL), 0);
    (void)read_all(path, text, sizeof text);
    unlink(path);
    int lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        const char *word = strrchr(line, ' ') + 1;
        ASSERT_EQ(strlen(word), 100);
        ASSERT_EQ(strspn(word, (char[]){word[0], 0}), 100);
    }
    ASSERT_EQ(lines, 800);
}

/* --- fault: the variable is read once a process, so each case is a child --------------------------------------- */

static int fault_child(const char *spec, const char *name, int passages)
{
    pid_t pid = fork();
    if (pid == 0) {
        setenv("KFS_FAULT", spec, 1);
        (void)close(STDERR_FILENO);
        int rc = 0;
        for (int i = 0; i < passages; i++)
            rc = kfs_fault_hit(name);
        _exit(-rc);
    }
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

TEST(fault_kills_at_the_nth_passage)
{
    ASSERT_EQ(fault_child("a.b:3", "a.b", 2), 0);
    ASSERT_EQ(fault_child("a.b:3", "a.b", 3), 1000 + SIGKILL);
    ASSERT_EQ(fault_child("a.b", "a.b", 1), 1000 + SIGKILL);
    ASSERT_EQ(fault_child("a.b:1", "a.c", 5), 0);
    ASSERT_EQ(fault_child("", "a.c", 5), 0);
}

TEST(fault_returns_errno)
{
    ASSERT_EQ(fault_child("a.b:2:errno=EIO", "a.b", 1), 0);
    ASSERT_EQ(fault_child("a.b:2:errno=EIO", "a.b", 2), EIO);
    ASSERT_EQ(fault_child("a.b:2:errno=EIO", "a.b", 3), 0);
    ASSERT_EQ(fault_child("a.b:2+:errno=ENOSPC", "a.b", 3), ENOSPC);
    ASSERT_EQ(fault_child("a.b:0", "a.b", 1), 2);            /* not understood */
    ASSERT_EQ(fault_child("a.b:1:errno=EWHAT", "a.b", 1), 2);
}

KT_MAIN
