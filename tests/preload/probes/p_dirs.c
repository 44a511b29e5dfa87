/* tests/preload/probes/p_dirs.c — reading directories, and what libc builds on it */
#include "probe.h"
#include <fnmatch.h>
#include <ftw.h>
#include <glob.h>

static void lay(void)
{
    char n[32];
    for (int i = 0; i < 40; i++) {
        snprintf(n, sizeof n, "f%02d.%s", i, i % 3 ? "txt" : "dat");
        put(n, n);
    }
    Q(mkdir("sub", 0755));
    Q(mkdir("sub/deep", 0755));
    put("sub/one", "1");
    put("sub/deep/two", "2");
    Q(symlink("sub", "lsub"));
    Q(symlink("absent", "broken"));
    put(".hidden", "");
}
CASE(readdir_family)
{
    lay();
    ls(".");
    ls("sub");
    ls("lsub");
    ls("none");
    ls("f01.txt");
    ls("sub/..");
    ls("");
    DIR *d = opendir(".");
    int n = 0, right = 1;
    struct dirent *e;
    while ((e = readdir(d))) {
        n++;
        struct stat s;
        if (lstat(e->d_name, &s) || (strcmp(e->d_name, "..") && s.st_ino != e->d_ino))
            right = 0;
        if (e->d_type != DT_UNKNOWN && e->d_type != IFTODT(s.st_mode))
            right = 0;
    }
    printf("%d entries\n", n);
    T(right);
    R(errno);
    T(readdir(d) == NULL);
    rewinddir(d);
    int again = 0;
    while (readdir(d))
        again++;
    T(again == n);
    T(dirfd(d) >= 0);
    struct stat s;
    R(fstat(dirfd(d), &s));
    R(fstatat(dirfd(d), "sub/one", &s, 0));
    R(closedir(d));
}
CASE(positions)
{
    lay();
    DIR *d = opendir(".");
    long pos[64];
    char *name[64];
    int n = 0;
    struct dirent *e;
    for (;;) {
        pos[n] = telldir(d);
        e = readdir(d);
        if (!e || n == 63)
            break;
        name[n++] = strdup(e->d_name);
    }
    printf("%d\n", n);
    int wrong = 0;
    for (int i = n - 1; i >= 0; i -= 3) {
        seekdir(d, pos[i]);
        e = readdir(d);
        if (!e || strcmp(e->d_name, name[i]))
            wrong++;
    }
    printf("%d wrong positions\n", wrong);
    rewinddir(d);
    e = readdir(d);
    T(e && !strcmp(e->d_name, name[0]));
    closedir(d);
}
CASE(readdir_r_and_64)
{
    lay();
    DIR *d = opendir("sub");
    struct dirent64 *e;
    int n = 0;
    while ((e = readdir64(d)))
        n++;
    printf("%d\n", n);
    rewinddir(d);
    n = 0;
    struct dirent one, *got;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    while (!readdir_r(d, &one, &got) && got)
        n++;
#pragma GCC diagnostic pop
    printf("%d\n", n);
    closedir(d);
}
CASE(fdopendir_calls)
{
    lay();
    int fd = F(open("sub", O_RDONLY | O_DIRECTORY));
    DIR *d = N(fdopendir(fd));
    T(dirfd(d) == fd);
    int n = 0;
    while (readdir(d))
        n++;
    printf("%d\n", n);
    R(closedir(d));
    R(fcntl(fd, F_GETFD));
    fd = open("f01.txt", O_RDONLY);
    N(fdopendir(fd));
    N(fdopendir(9999));
    close(fd);
    /* dup'ed from another stream, as rm and fts do */
    d = opendir(".");
    int dup1 = dup(dirfd(d));
    DIR *d2 = N(fdopendir(dup1));
    closedir(d);
    rewinddir(d2);
    n = 0;
    while (readdir(d2))
        n++;
    printf("%d\n", n);
    R(closedir(d2));
    int o = open("sub", O_RDONLY);
    d = fdopendir(openat(o, "deep", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct dirent *e;
    while ((e = readdir(d)))
        if (e->d_name[0] != '.')
            puts(e->d_name);
    closedir(d);
}
CASE(changes_while_open)
{
    lay();
    DIR *d = opendir("sub");
    int n = 0;
    while (readdir(d))
        n++;
    put("sub/new", "");
    rewinddir(d);
    int m = 0;
    while (readdir(d))
        m++;
    T(m == n + 1);
    closedir(d);
    d = opendir("sub");
    R(rename("sub", "moved"));
    m = 0;
    while (readdir(d))
        m++;
    T(m == n + 1);
    struct stat s;
    R(fstatat(dirfd(d), "one", &s, 0));
    closedir(d);
    Q(mkdir("gone", 0755));
    d = opendir("gone");
    R(rmdir("gone"));
    m = 0;
    rewinddir(d);
    while (readdir(d))
        m++;
    printf("%d entries of a removed directory\n", m);
    closedir(d);
}
CASE(getdents_by_number)
{
    lay();
    int fd = open("sub", O_RDONLY | O_DIRECTORY);
    char buf[4096];
    int n = 0;
    long r;
    while ((r = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0)
        for (long at = 0; at < r; at += *(unsigned short *)(buf + at + 16))
            n++;
    printf("%d entries, end %ld\n", n, r);
    R(lseek(fd, 0, SEEK_SET));
    T(syscall(SYS_getdents64, fd, buf, sizeof buf) > 0);
    r = getdents64(fd, buf, 4);
    T(r <= 0);
    char b[4];
    int fresh = open("sub", O_RDONLY);
    R(read(fresh, b, 4));
    R(pread(fresh, b, 4, 0));
    R(write(fresh, b, 4));
    F(open("sub", O_WRONLY));
    F(open("sub", O_RDWR));
    close(fd);
}
static int only_txt(const struct dirent *e)
{
    return !fnmatch("*.txt", e->d_name, 0);
}
CASE(scandir_calls)
{
    lay();
    struct dirent **list;
    int n = scandir(".", &list, only_txt, alphasort);
    printf("%d:", n);
    for (int i = 0; i < n; i++)
        printf(" %s", list[i]->d_name);
    puts("");
    n = scandir("sub", &list, NULL, versionsort);
    printf("%d:", n);
    for (int i = 0; i < n; i++)
        printf(" %s", list[i]->d_name);
    puts("");
    R(scandir("none", &list, NULL, alphasort));
    R(scandir("f01.txt", &list, NULL, alphasort));
    int d = open(".", O_RDONLY);
    n = scandirat(d, "sub", &list, NULL, alphasort);
    printf("%d\n", n);
}
CASE(glob_calls)
{
    lay();
    static const char *const pats[] = {"*", "f0*", "*.dat", "*/*", "sub/*/t*", "lsub/*", ".*", "none*", "f0[1-3]*", "{a,sub}/one", "sub/", "*/", "f01.txt", "broken", "./f0?.txt"};
    const int flags[] = {0, GLOB_MARK, GLOB_NOCHECK | GLOB_BRACE, GLOB_ONLYDIR, GLOB_PERIOD};
    for (size_t i = 0; i < sizeof pats / sizeof *pats; i++)
        for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
            glob_t g;
            int r = glob(pats[i], flags[k], NULL, &g);
            printf("glob %s %d: %d", pats[i], flags[k], r);
            if (!r) {
                for (size_t j = 0; j < g.gl_pathc; j++)
                    printf(" %s", g.gl_pathv[j]);
                globfree(&g);
            }
            puts("");
        }
    char p[PATH_MAX + 16];
    glob_t g;
    snprintf(p, sizeof p, "%s/s*/*", here);
    R(glob(p, 0, NULL, &g));
    for (size_t j = 0; j < g.gl_pathc; j++)
        puts(g.gl_pathv[j] + strlen(here));
    snprintf(p, sizeof p, "%s*", here);
    R(glob(p, 0, NULL, &g));
    T(g.gl_pathc >= 1);
}
static char *seen[256];
static size_t seen_count;
static int on_visit(const char *p, const struct stat *s, int type, struct FTW *f)
{
    char *line;
    if (asprintf(&line, "%s type %d level %d size %lld", p, type, f->level, S_ISREG(s->st_mode) ? (long long)s->st_size : 0) > 0 && seen_count < 256)
        seen[seen_count++] = line;
    return 0;
}
static int on_visit_old(const char *p, const struct stat *s, int type)
{
    struct FTW f = {0};
    return on_visit(p, s, type, &f);
}
static void show_seen(void)
{
    qsort(seen, seen_count, sizeof *seen, probe_by_name);
    for (size_t i = 0; i < seen_count; i++)
        puts(seen[i]);
    seen_count = 0;
}
CASE(nftw_calls)
{
    lay();
    const int flags[] = {0, FTW_PHYS, FTW_PHYS | FTW_DEPTH, FTW_PHYS | FTW_CHDIR, FTW_PHYS | FTW_MOUNT};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        printf("flags %d: %d\n", flags[i], nftw(".", on_visit, 8, flags[i]));
        show_seen();
    }
    R(ftw("sub", on_visit_old, 4));
    show_seen();
    R(nftw("none", on_visit, 8, 0));
    R(nftw("sub", on_visit, 1, FTW_PHYS));
    show_seen();
}
CASE(big_directory)
{
    char n[300];
    memset(n, 'n', sizeof n);
    for (int i = 0; i < 600; i++) {
        snprintf(n + 200, 20, "%05d", i);
        if (mkdir(n, 0755))
            printf("%s\n", strerrorname_np(errno));
    }
    DIR *d = opendir(".");
    int count = 0;
    long mid = -1;
    struct dirent *e;
    char *after = NULL;
    while ((e = readdir(d))) {
        if (++count == 300)
            mid = telldir(d);
        if (count == 301)
            after = strdup(e->d_name);
    }
    printf("%d\n", count);
    seekdir(d, mid);
    e = readdir(d);
    T(e && after && !strcmp(e->d_name, after));
    int rest = 1;
    while (readdir(d))
        rest++;
    printf("%d\n", rest);
    closedir(d);
    struct stat s;
    Q(stat(".", &s));
    printf("links %lu\n", (unsigned long)s.st_nlink);
}
PROBE_MAIN
