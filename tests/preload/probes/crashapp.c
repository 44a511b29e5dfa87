/* tests/preload/probes/crashapp.c — a program with a model of what its files must be
 *
 * crashapp run DIR STOP ROUNDS   rounds of reads, writes, renames, listings, links, attributes; ends after ROUNDS, or when file STOP exists (and at
 *                                least 3 are done; ROUNDS 0: no limit). Prints "rounds N". The first call with another answer than on a sound
 *                                file system ends it with a line that says which.
 * crashapp check DIR N           the tree must be exactly what N rounds leave behind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { STATICS = 24, SLOTS = 8, LISTED = 60, BIG = 3 << 20 };
static int at_round = -1;
static unsigned char want[BIG], got[BIG + 1];

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    int e = errno;
    va_list a;
    printf("round %d: ", at_round);
    va_start(a, format);
    vprintf(format, a);
    va_end(a);
    printf(" (errno %s)\n", strerrorname_np(e));
    fflush(stdout);
    _exit(1);
}
#define MUST(call)                                                                                 \
    ({                                                                                             \
        errno = 0;                                                                                 \
        long must_r = (long)(call);                                                                \
        if (must_r < 0)                                                                            \
            fail("%s", #call);                                                                     \
        must_r;                                                                                    \
    })

/* Content number n of `size` bytes. */
static void pattern(unsigned n, size_t size)
{
    unsigned x = n * 2654435761u + 12345;
    for (size_t i = 0; i < size; i++) {
        if (i % 64 == 0)
            x = x * 1664525u + 1013904223u;
        want[i] = (unsigned char)(x >> 24) ^ (unsigned char)i;
    }
}
static size_t size_of(unsigned n)
{
    static const size_t sizes[] = {0, 10, 4096, 4097, 60000, 1 << 20, 100, BIG - 7};
    return sizes[n % (sizeof sizes / sizeof *sizes)];
}
static void check_fd(int fd, const char *path, size_t size)
{
    size_t have = 0;
    ssize_t n;
    while (have <= size && (n = read(fd, got + have, size + 1 - have)) != 0) {
        if (n < 0)
            fail("read %s", path);
        have += (size_t)n;
    }
    if (have != size)
        fail("%s has %zu bytes, not %zu", path, have, size);
    for (size_t i = 0; i < size; i++)
        if (want[i] != got[i])
            fail("%s differs at byte %zu", path, i);
}
static void check_file(const char *path, unsigned n)
{
    pattern(n, size_of(n));
    int fd = (int)MUST(open(path, O_RDONLY));
    struct stat st;
    MUST(fstat(fd, &st));
    if ((size_t)st.st_size != size_of(n))
        fail("fstat %s says %lld, not %zu", path, (long long)st.st_size, size_of(n));
    check_fd(fd, path, size_of(n));
    MUST(close(fd));
    MUST(stat(path, &st));
    if ((size_t)st.st_size != size_of(n))
        fail("stat %s says %lld, not %zu", path, (long long)st.st_size, size_of(n));
}
static void write_file(const char *path, unsigned n, int flags)
{
    pattern(n, size_of(n));
    int fd = (int)MUST(open(path, O_CREAT | O_WRONLY | flags, 0644));
    for (size_t at = 0; at < size_of(n);) {
        size_t part = size_of(n) - at > 300000 ? 300000 : size_of(n) - at;
        at += (size_t)MUST(write(fd, want + at, part));
    }
    MUST(close(fd));
}
static void absent(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0 || errno != ENOENT)
        fail("%s should not exist", path);
}
static int count(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        fail("opendir %s", dir);
    int n = 0;
    struct dirent *e;
    errno = 0;
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    if (errno)
        fail("readdir %s", dir);
    MUST(closedir(d));
    return n;
}
static void set_up(void)
{
    char p[64];
    static const char *const dirs[] = {"s", "w", "r", "l", "e", "x", "h"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        MUST(mkdir(dirs[i], 0755));
    for (unsigned i = 0; i < STATICS; i++) {
        snprintf(p, sizeof p, "s/%u", i);
        write_file(p, i, O_EXCL);
    }
    for (int i = 0; i < LISTED; i++) {
        snprintf(p, sizeof p, "l/name-%02d", i);
        write_file(p, 1, O_EXCL);
    }
    write_file("r/a", 3, O_EXCL);
    write_file("h/one", 4, O_EXCL);
    MUST(mkdir("r/da", 0755));
    write_file("r/da/inner", 1, O_EXCL);
}
static void round_of(int r)
{
    char p[64], q[64], line[32];
    struct stat st;
    at_round = r;
    unsigned u = (unsigned)r;
    /* reading */
    for (unsigned k = 0; k < 4; k++) {
        snprintf(p, sizeof p, "s/%u", (u * 5 + k) % STATICS);
        check_file(p, (u * 5 + k) % STATICS);
    }
    /* write to a temporary name, close, rename over */
    snprintf(p, sizeof p, "w/%u.tmp", u % SLOTS);
    snprintf(q, sizeof q, "w/%u", u % SLOTS);
    write_file(p, u, O_EXCL);
    MUST(rename(p, q));
    absent(p);
    check_file(q, u);
    /* renaming back and forth, a file and a directory */
    MUST(r % 2 ? rename("r/b", "r/a") : rename("r/a", "r/b"));
    absent(r % 2 ? "r/b" : "r/a");
    check_file(r % 2 ? "r/a" : "r/b", 3);
    MUST(r % 2 ? rename("r/db", "r/da") : rename("r/da", "r/db"));
    check_file(r % 2 ? "r/da/inner" : "r/db/inner", 1);
    /* listing */
    int n = count("l");
    if (n != LISTED)
        fail("l lists %d names, not %d", n, LISTED);
    /* exclusive creation, one log that is appended to */
    snprintf(p, sizeof p, "e/%d", r);
    write_file(p, u % 5, O_EXCL);
    if (open(p, O_CREAT | O_EXCL | O_WRONLY, 0600) >= 0 || errno != EEXIST)
        fail("a second O_EXCL of %s", p);
    int fd = (int)MUST(open("log", O_CREAT | O_WRONLY | O_APPEND, 0644));
    int len = snprintf(line, sizeof line, "line %d\n", r);
    if (MUST(write(fd, line, (size_t)len)) != len)
        fail("short append");
    if (r % 3 == 0)
        MUST(fsync(fd));
    MUST(close(fd));
    /* links */
    MUST(link("h/one", "h/two"));
    MUST(stat("h/one", &st));
    if (st.st_nlink != 2)
        fail("h/one has %d links", (int)st.st_nlink);
    MUST(unlink("h/two"));
    MUST(stat("h/one", &st));
    if (st.st_nlink != 1)
        fail("h/one has %d links", (int)st.st_nlink);
    MUST(symlink("one", "h/sym"));
    check_file("h/sym", 4);
    MUST(unlink("h/sym"));
    /* directories */
    snprintf(p, sizeof p, "x/d%d", r);
    MUST(mkdir(p, 0700));
    if (r % 2)
        MUST(rmdir(p));
    /* attributes */
    MUST(chmod("h/one", r % 2 ? 0600 : 0644));
    MUST(stat("h/one", &st));
    if ((st.st_mode & 0777) != (r % 2 ? 0600 : 0644))
        fail("mode of h/one is %o", st.st_mode);
    snprintf(line, sizeof line, "%d", r);
    MUST(setxattr("h/one", "user.round", line, strlen(line), 0));
    memset(q, 0, sizeof q);
    MUST(getxattr("h/one", "user.round", q, sizeof q - 1));
    if (strcmp(q, line))
        fail("xattr says %s", q);
    struct timespec t[2] = {{1000 + r, 0}, {2000 + r, r}};
    MUST(utimensat(AT_FDCWD, "h/one", t, 0));
    /* overwriting in the middle, growing, cutting */
    fd = (int)MUST(open("middle", O_CREAT | O_RDWR, 0644));
    MUST(pwrite(fd, &r, sizeof r, (r % 300) * 8192));
    MUST(close(fd));
    MUST(truncate("middle", 300 * 8192));
    /* unlinked while open */
    fd = (int)MUST(open("orphan", O_CREAT | O_EXCL | O_RDWR, 0600));
    pattern(u + 4, size_of(u + 4));
    for (size_t at = 0; at < size_of(u + 4);)
        at += (size_t)MUST(write(fd, want + at, size_of(u + 4) - at));
    MUST(unlink("orphan"));
    MUST(lseek(fd, 0, SEEK_SET));
    check_fd(fd, "orphan", size_of(u + 4));
    MUST(close(fd));
    absent("orphan");
}
static void check(int rounds)
{
    char p[64], line[32], have[32];
    struct stat st;
    for (unsigned i = 0; i < STATICS; i++) {
        snprintf(p, sizeof p, "s/%u", i);
        check_file(p, i);
    }
    for (int i = 0; i < SLOTS; i++) {
        snprintf(p, sizeof p, "w/%d", i);
        int last = rounds - 1 - (rounds - 1 - i + 8 * SLOTS) % SLOTS;
        if (last < 0)
            absent(p);
        else
            check_file(p, (unsigned)last);
    }
    int n = count("w");
    if (n != (rounds < SLOTS ? rounds : SLOTS))
        fail("w lists %d names", n);
    check_file(rounds % 2 ? "r/b" : "r/a", 3);
    check_file(rounds % 2 ? "r/db/inner" : "r/da/inner", 1);
    if (count("r") != 2 || count("l") != LISTED || count("h") != 1)
        fail("names in r, l, h: %d %d %d", count("r"), count("l"), count("h"));
    if (count("e") != rounds)
        fail("e lists %d names, not %d", count("e"), rounds);
    for (int r = 0; r < rounds; r++) {
        snprintf(p, sizeof p, "e/%d", r);
        check_file(p, (unsigned)r % 5);
    }
    FILE *f = fopen("log", "r");
    for (int r = 0; r < rounds; r++) {
        snprintf(line, sizeof line, "line %d\n", r);
        if (!f || !fgets(have, sizeof have, f) || strcmp(line, have))
            fail("the log lacks %s", line);
    }
    if (f && fgets(have, sizeof have, f))
        fail("the log has too much: %s", have);
    if (f)
        fclose(f);
    if (count("x") != (rounds + 1) / 2)
        fail("x lists %d names", count("x"));
    MUST(stat("h/one", &st));
    if (rounds && (st.st_nlink != 1 || st.st_mtim.tv_sec != 2000 + rounds - 1 || st.st_mtim.tv_nsec != rounds - 1 || (st.st_mode & 0777) != (rounds % 2 ? 0644 : 0600)))
        fail("h/one: links %d mode %o mtime %lld", (int)st.st_nlink, st.st_mode, (long long)st.st_mtim.tv_sec);
    int fd = rounds ? (int)MUST(open("middle", O_RDONLY)) : -1;
    for (int r = rounds > 300 ? rounds - 300 : 0; r < rounds; r++) {
        int v = -1;
        MUST(pread(fd, &v, sizeof v, (r % 300) * 8192));
        if (v != r)
            fail("middle holds %d at %d", v, r);
    }
    absent("orphan");
    n = count(".");
    if (n != 7 + (rounds ? 2 : 0))
        fail("%d names at the top", n);
    puts("exactly as it must be");
}
int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: crashapp run DIR STOP ROUNDS | check DIR ROUNDS\n");
        return 2;
    }
    if (!strcmp(argv[1], "check")) {
        MUST(chdir(argv[2]));
        check(atoi(argv[3]));
        return 0;
    }
    int limit = argc > 4 ? atoi(argv[4]) : 0, r = 0;
    struct stat st;
    MUST(mkdir(argv[2], 0755));
    MUST(chdir(argv[2]));
    set_up();
    while ((!limit || r < limit) && (r < 3 || stat(argv[3], &st)))
        round_of(r++);
    printf("rounds %d\n", r);
    return 0;
}
