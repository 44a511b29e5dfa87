/* tests/bench/calls.c — how long calls take, in ns a call; prints one number
 *
 * calls stat DIR       warm stat of 100 directories with 100 files each (DIR/dN/fN)
 * calls inline DIR     the same stat by the program's own system call instruction (x86-64)
 * calls open DIR       open, read, close of the same files
 * calls absent DIR     stat of 10,000 names that are not there, in the same directories
 * calls readdir DIR    listing the 100 directories
 * calls walk DIR       listing DIR and all below, with a stat of every entry: ns an entry
 * calls big DIR        listing DIR itself, with any number of entries: ns an entry
 * calls outside FILE   fstat-free mix of calls on a host file: lseek, pread of one byte, close of a bad number, access
 * calls lseek FILE     lseek alone: the cheapest call that goes through the shim
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DIRS = 100, FILES = 100 };
static char (*names)[256];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
static void die(const char *what)
{
    perror(what);
    exit(1);
}
static void round_stat(void)
{
    struct stat s;
    for (int i = 0; i < DIRS * FILES; i++)
        if (stat(names[i], &s))
            die(names[i]);
}
static void round_inline(void)
{
#if defined __x86_64__
    struct stat s;
    for (int i = 0; i < DIRS * FILES; i++) {
        long r;
        register long flags __asm__("r10") = 0;
        __asm__ volatile("syscall" : "=a"(r) : "a"(262L), "D"(-100L), "S"(names[i]), "d"(&s), "r"(flags) : "rcx", "r11", "memory");
        if (r < 0)
            die(names[i]);
    }
#endif
}
static void round_open(void)
{
    char b[4096];
    for (int i = 0; i < DIRS * FILES; i += 5) {
        int fd = open(names[i], O_RDONLY);
        if (fd < 0 || read(fd, b, sizeof b) < 0 || close(fd))
            die(names[i]);
    }
}
static void round_absent(void)
{
    struct stat s;
    char p[300];
    for (int i = 0; i < DIRS * FILES; i++) {
        snprintf(p, sizeof p, "%s-", names[i]);
        if (!stat(p, &s))
            die(p);
    }
}
/* The number of entries below path. */
static long walk(const char *path, int with_stat)
{
    DIR *d = opendir(path);
    if (!d)
        die(path);
    long n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        n++;
        if (!with_stat)
            continue;
        char p[600];
        struct stat s;
        snprintf(p, sizeof p, "%s/%s", path, e->d_name);
        if (lstat(p, &s))
            die(p);
        if (S_ISDIR(s.st_mode))
            n += walk(p, with_stat);
    }
    closedir(d);
    return n;
}
static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static volatile off_t sink;
int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    double t[9];
    const char *what = argv[1];
    if (!strcmp(what, "lseek") || !strcmp(what, "outside")) {
        int fd = open(argv[2], O_RDONLY), n = 300000;
        char b;
        if (fd < 0)
            die(argv[2]);
        int calls = !strcmp(what, "lseek") ? 1 : 3;
        for (int r = 0; r < 9; r++) {
            double a = now();
            if (calls == 1)
                for (int i = 0; i < n; i++)
                    sink = lseek(fd, 0, SEEK_CUR);
            else
                for (int i = 0; i < n / 3; i++) {
                    sink = lseek(fd, 0, SEEK_SET);
                    sink = pread(fd, &b, 1, 0);
                    sink = access("/usr", F_OK);
                }
            t[r] = (now() - a) / n;
        }
    } else if (!strcmp(what, "walk") || !strcmp(what, "big")) {
        for (int r = -2; r < 9; r++) {
            double a = now();
            long n = walk(argv[2], !strcmp(what, "walk"));
            if (r >= 0)
                t[r] = (now() - a) / (double)n;
        }
    } else {
        names = calloc(DIRS * FILES, sizeof *names);
        for (int i = 0; i < DIRS * FILES; i++)
            snprintf(names[i], sizeof names[i], "%s/d%d/f%d", argv[2], i / FILES, i % FILES);
        round_stat();
        for (int r = 0; r < 9; r++) {
            double a = now();
            if (!strcmp(what, "stat")) {
                round_stat();
                t[r] = (now() - a) / (DIRS * FILES);
            } else if (!strcmp(what, "absent")) {
                round_absent();
                t[r] = (now() - a) / (DIRS * FILES);
            } else if (!strcmp(what, "inline")) {
                round_inline();
                t[r] = (now() - a) / (DIRS * FILES);
            } else if (!strcmp(what, "open")) {
                round_open();
                t[r] = (now() - a) / (DIRS * FILES / 5);
            } else {
                for (int d = 0; d < DIRS; d++) {
                    char p[300];
                    snprintf(p, sizeof p, "%s/d%d", argv[2], d);
                    DIR *o = opendir(p);
                    if (!o)
                        die(p);
                    while (readdir(o))
                        ;
                    closedir(o);
                }
                t[r] = (now() - a) / DIRS;
            }
        }
    }
    qsort(t, 9, sizeof *t, by_double);
    printf("%.1f\n", !strcmp(what, "lseek") || !strcmp(what, "outside") ? t[0] : t[4]);
    return 0;
}
