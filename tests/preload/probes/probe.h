/* tests/preload/probes/probe.h — the harness of the probe programs
 *
 * A probe prints what calls answered, in words that do not depend on the file system below: results, errno names, contents; no inode numbers, no
 * times of now. tests/preload/probes.sh runs it in a plain directory (the oracle) and in KFS and compares case by case.
 *
 * CASE(name) { … } runs in a process of its own, in an empty directory DIR/name (its cwd; absolute in `here`), with an alarm against hangs.
 * R(call) prints the result, F(call) is for descriptors (their number is not shown), Q(call) runs without a word.
 */
#ifndef KFS_TESTS_PROBE_H
#define KFS_TESTS_PROBE_H
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __GLIBC__
#include "tests/preload/probes/probe_musl.h"
#endif

struct probe_case {
    const char *name;
    void (*run)(void);
    struct probe_case *next;
};
static struct probe_case *probe_first, **probe_last = &probe_first;
static char here[PATH_MAX]; /* absolute path of the case's directory */
static char top[PATH_MAX] __attribute__((unused));  /* of the probe's directory */
static char self[PATH_MAX]; /* the probe's own program */

#define CASE(id)                                                                                   \
    static void probe_run_##id(void);                                                              \
    static struct probe_case probe_case_##id = {#id, probe_run_##id, NULL};                        \
    __attribute__((constructor)) static void probe_register_##id(void)                             \
    {                                                                                              \
        *probe_last = &probe_case_##id;                                                            \
        probe_last = &probe_case_##id.next;                                                        \
    }                                                                                              \
    static void probe_run_##id(void)

#define UNUSED __attribute__((unused))

static UNUSED void probe_result(const char *what, long r, int e)
{
    if (r == -1)
        printf("%s = -1 %s\n", what, strerrorname_np(e) ? strerrorname_np(e) : "?");
    else
        printf("%s = %ld\n", what, r);
}
#define R(x)                                                                                       \
    ({                                                                                             \
        errno = 0;                                                                                 \
        long probe_r = (long)(x);                                                                  \
        probe_result(#x, probe_r, errno);                                                          \
        probe_r;                                                                                   \
    })
/* A descriptor or a pointer: only whether it worked. */
#define F(x)                                                                                       \
    ({                                                                                             \
        errno = 0;                                                                                 \
        int probe_f = (x);                                                                         \
        probe_result(#x, probe_f < 0 ? -1 : 0, errno);                                             \
        probe_f;                                                                                   \
    })
#define N(x)                                                                                       \
    ({                                                                                             \
        errno = 0;                                                                                 \
        __auto_type probe_p = (x);                                                                 \
        probe_result(#x, probe_p ? 0 : -1, errno);                                                 \
        probe_p;                                                                                   \
    })
#define Q(x) ((void)!(x))
/* A fact that must hold on any file system; shown with its truth. */
#define T(x) printf("%s: %s\n", #x, (x) ? "yes" : "no")

static UNUSED void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        printf("put %s: %s\n", path, strerror(errno));
    if (fd >= 0 && close(fd))
        printf("put %s: close: %s\n", path, strerror(errno));
}
static UNUSED void show_bytes(const char *buf, ssize_t n)
{
    putchar('"');
    for (ssize_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)buf[i];
        if (c < ' ' || c >= 127 || c == '"' || c == '\\')
            printf("\\%03o", c);
        else
            putchar(c);
    }
    puts("\"");
}
static UNUSED void cat(const char *path)
{
    char buf[512];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf);
    printf("cat %s: ", path);
    if (n < 0)
        puts(strerrorname_np(errno));
    else
        show_bytes(buf, n);
    if (fd >= 0)
        close(fd);
}
/* What pread gives from an open descriptor. */
static UNUSED void catfd(int fd)
{
    char buf[512];
    ssize_t n = pread(fd, buf, sizeof buf, 0);
    printf("fd holds ");
    if (n < 0)
        puts(strerrorname_np(errno));
    else
        show_bytes(buf, n);
}
static UNUSED void show_stat(const char *what, int r, const struct stat *st)
{
    int e = errno;
    if (r) {
        printf("%s: %s\n", what, strerrorname_np(e));
        return;
    }
    const char *kind = S_ISREG(st->st_mode)    ? "file"
                       : S_ISDIR(st->st_mode)  ? "dir"
                       : S_ISLNK(st->st_mode)  ? "symlink"
                       : S_ISFIFO(st->st_mode) ? "fifo"
                       : S_ISSOCK(st->st_mode) ? "socket"
                       : S_ISCHR(st->st_mode)  ? "char"
                       : S_ISBLK(st->st_mode)  ? "block"
                                               : "?";
    printf("%s: %s %04o links %lu owner %u:%u", what, kind, st->st_mode & 07777, (unsigned long)st->st_nlink, st->st_uid, st->st_gid);
    if (!S_ISDIR(st->st_mode))
        printf(" size %lld", (long long)st->st_size);
    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
        printf(" rdev %llx", (unsigned long long)st->st_rdev);
    puts("");
}
static UNUSED void st(const char *path)
{
    struct stat s;
    int r = lstat(path, &s);
    show_stat(path, r, &s);
}
static UNUSED int probe_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}
static UNUSED void ls(const char *path)
{
    DIR *d = opendir(path);
    printf("ls %s:", path);
    if (!d) {
        printf(" %s\n", strerrorname_np(errno));
        return;
    }
    char *names[4096];
    size_t n = 0;
    struct dirent *e;
    while ((e = readdir(d)) && n < 4096)
        names[n++] = strdup(e->d_name);
    closedir(d);
    if (n)
        qsort(names, n, sizeof *names, probe_by_name);
    for (size_t i = 0; i < n; i++)
        printf(" %s", names[i]);
    puts("");
}
/* Wait for a child and say how it ended. */
static UNUSED void ended(const char *what, pid_t pid)
{
    int s = 0;
    if (pid < 0 || waitpid(pid, &s, 0) < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else if (WIFEXITED(s))
        printf("%s: exit %d\n", what, WEXITSTATUS(s));
    else
        printf("%s: signal %d\n", what, WTERMSIG(s));
}
#define CHILD(what, ...)                                                                           \
    do {                                                                                           \
        fflush(stdout);                                                                            \
        pid_t probe_pid = fork();                                                                  \
        if (probe_pid == 0) {                                                                      \
            __VA_ARGS__;                                                                                \
            fflush(stdout);                                                                        \
            _exit(0);                                                                              \
        }                                                                                          \
        ended(what, probe_pid);                                                                    \
    } while (0)

static UNUSED int probe_main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIR [CASE]\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    umask(022);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0)
        self[n] = 0;
    if (mkdir(argv[1], 0755) && errno != EEXIST) {
        fprintf(stderr, "mkdir %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    snprintf(top, sizeof top, "%s", argv[1]);
    for (struct probe_case *c = probe_first; c; c = c->next) {
        if (argc > 2 && strcmp(c->name, argv[2]))
            continue;
        printf("# case %s\n", c->name);
        if (snprintf(here, sizeof here, "%s/%s", argv[1], c->name) >= (int)sizeof here)
            return 1;
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            if (mkdir(here, 0755))
                printf("mkdir: %s\n", strerrorname_np(errno));
            if (chdir(here))
                printf("chdir: %s\n", strerrorname_np(errno));
            c->run();
            fflush(stdout);
            _exit(0);
        }
        int s = 0;
        if (pid < 0 || waitpid(pid, &s, 0) < 0)
            printf("fork: %s\n", strerrorname_np(errno));
        else if (s)
            printf("\nthe case ended with status 0x%x\n", s);
    }
    return fflush(stdout) != 0;
}
#define PROBE_MAIN                                                                                 \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return probe_main(argc, argv);                                                             \
    }
#endif
