/* tests/preload/probes/p_names.c — what changes names: link, symlink, unlink, rmdir, mkdir, rename */
#include "probe.h"

CASE(hard_links)
{
    put("a", "one");
    R(link("a", "b"));
    st("a");
    st("b");
    R(link("a", "b"));
    R(link("none", "c"));
    Q(mkdir("d", 0755));
    R(link("d", "e"));
    R(link("a", "d"));
    R(link("a", "d/"));
    R(link("a", "d/x/y"));
    R(link("a/", "f"));
    R(link("a", "d/c"));
    st("d/c");
    int fd = open("b", O_WRONLY | O_APPEND);
    Q(write(fd, " two", 4));
    close(fd);
    cat("a");
    cat("d/c");
    R(unlink("a"));
    st("b");
    cat("b");
    Q(chmod("b", 0600));
    st("d/c");
    Q(symlink("b", "s"));
    R(link("s", "s2"));
    st("s2");
    R(linkat(AT_FDCWD, "s", AT_FDCWD, "s3", AT_SYMLINK_FOLLOW));
    st("s3");
    R(linkat(AT_FDCWD, "b", AT_FDCWD, "x", 0x10000000));
    R(linkat(AT_FDCWD, "", AT_FDCWD, "x", 0));
    fd = open("b", O_RDONLY);
    char p[64];
    snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
    R(linkat(AT_FDCWD, p, AT_FDCWD, "viaproc", AT_SYMLINK_FOLLOW));
    st("viaproc");
    close(fd);
    Q(symlink("absent", "dang"));
    R(link("dang", "dang2"));
    st("dang2");
    ls(".");
}
CASE(symlinks)
{
    put("f", "content");
    Q(mkdir("d", 0755));
    put("d/g", "inner");
    R(symlink("f", "l"));
    R(symlink("f", "l"));
    R(symlink("f", "d"));
    R(symlink("x", "none/l"));
    R(symlink("x", "f/l"));
    R(symlink("x", "new/"));
    st("l");
    cat("l");
    char b[64];
    memset(b, '#', sizeof b);
    R(readlink("l", b, sizeof b));
    show_bytes(b, 3);
    R(readlink("l", b, 0));
    R(readlink("f", b, sizeof b));
    R(readlink("d", b, sizeof b));
    R(readlink("none", b, sizeof b));
    R(readlink("l/", b, sizeof b));
    Q(symlink("a-long-target-name", "t"));
    R(readlink("t", b, 6));
    show_bytes(b, 8);
    Q(symlink("../symlinks/d/g", "up"));
    cat("up");
    char abs[PATH_MAX + 8];
    snprintf(abs, sizeof abs, "%s/d", here);
    Q(symlink(abs, "abs"));
    cat("abs/g");
    R(unlink("abs/g"));
    ls("d");
    ls("abs");
    R(rmdir("abs"));
    R(unlink("abs/"));
    R(unlink("abs"));
    Q(symlink("new", "creates"));
    put("creates", "made through a link");
    cat("new");
    st("new");
    R(mkdir("creates", 0700));
    Q(symlink("newdir", "mk"));
    R(mkdir("mk", 0700));
    R(mkdir("mk/", 0700));
    ls(".");
}
CASE(symlinks_across)
{
    /* To the host and back: absolute targets, and ".." past the top. */
    char host[] = "/tmp/kfs-probe-XXXXXX";
    if (!mkdtemp(host)) {
        puts("no host directory");
        return;
    }
    char p[PATH_MAX + 64], q[PATH_MAX + 64];
    snprintf(p, sizeof p, "%s/file", host);
    put(p, "on the host");
    R(symlink(p, "out"));
    printf("cat out: ");
    char b[32] = "";
    int fd = open("out", O_RDONLY);
    R(read(fd, b, sizeof b));
    puts(b);
    close(fd);
    R(symlink(host, "outdir"));
    fd = F(open("outdir/file", O_RDWR | O_APPEND));
    R(write(fd, "!", 1));
    close(fd);
    fd = F(open("outdir/created", O_CREAT | O_WRONLY, 0600));
    close(fd);
    struct stat s;
    snprintf(q, sizeof q, "%s/created", host);
    R(stat(q, &s));
    R(stat("outdir/../../etc/passwd", &s));
    R(access("outdir/none", F_OK));
    /* A host symlink into here, as the last component and in the middle. */
    snprintf(q, sizeof q, "%s/in", host);
    R(symlink(here, q));
    put("inside", "seen from the host");
    snprintf(q, sizeof q, "%s/in/inside", host);
    fd = F(open(q, O_RDONLY));
    memset(b, 0, sizeof b);
    R(read(fd, b, sizeof b - 1));
    puts(b);
    close(fd);
    R(stat(q, &s));
    R(lstat(q, &s));
    R(access(q, R_OK));
    snprintf(q, sizeof q, "%s/in/fresh", host);
    fd = F(open(q, O_CREAT | O_WRONLY, 0640));
    R(write(fd, "new", 3));
    close(fd);
    cat("fresh");
    R(unlink(q));
    snprintf(q, sizeof q, "%s/in", host);
    N(opendir(q));
    R(chdir(q));
    st("inside");
    Q(chdir(here));
    R(stat(q, &s));
    T(S_ISDIR(s.st_mode));
    R(lstat(q, &s));
    T(S_ISLNK(s.st_mode));
    /* Renames and links over the border. */
    put("mv", "to move");
    snprintf(q, sizeof q, "%s/mv", host);
    R(rename("mv", q) == 0 || errno == EXDEV ? 0 : -1);
    R(link("inside", q) == 0 || errno == EXDEV || errno == EEXIST ? 0 : -1);
    snprintf(q, sizeof q, "rm -rf %s", host);
    Q(system(q));
    st("inside");
}
CASE(dotdot_out)
{
    /* Up out of everything by relative paths. */
    char p[PATH_MAX * 3] = "";
    for (int i = 0; i < 40; i++)
        strcat(p, "../");
    strcat(p, "etc/passwd");
    struct stat s;
    R(stat(p, &s));
    T(S_ISREG(s.st_mode));
    int fd = F(open(p, O_RDONLY));
    close(fd);
    char abs[PATH_MAX + 64];
    snprintf(abs, sizeof abs, "%s/../../../../../../../../../../../../etc/passwd", here);
    R(stat(abs, &s));
    int d = open(".", O_RDONLY);
    R(fstatat(d, p, &s, 0));
    N(opendir("../../../../../../../../../../../../../../etc"));
    Q(symlink("../../../../../../../../../../../../../../../../etc/passwd", "esc"));
    R(stat("esc", &s));
    T(S_ISREG(s.st_mode));
}
CASE(unlink_matrix)
{
    put("f", "");
    Q(mkdir("d", 0755));
    Q(mkdir("full", 0755));
    put("full/x", "");
    Q(symlink("d", "l"));
    static const char *const n[] = {"none", "f/", "f/x", "d", "d/", ".", "..", "d/.", "full", "full/..", "l/", "", "none/x"};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        printf("unlink '%s' %s", n[i], unlink(n[i]) ? strerrorname_np(errno) : "ok");
        if (strcmp(n[i], "d") && strcmp(n[i], "d/"))
            printf(" rmdir %s", rmdir(n[i]) ? strerrorname_np(errno) : "ok");
        printf(" remove %s", strcmp(n[i], "d") && strcmp(n[i], "d/") ? (remove(n[i]) ? strerrorname_np(errno) : "ok") : "-");
        printf(" unlinkat %s\n", unlinkat(AT_FDCWD, n[i], 0x40) ? strerrorname_np(errno) : "ok");
    }
    R(rmdir("f"));
    R(rmdir("l"));
    R(rmdir("full"));
    R(rmdir("d/"));
    R(rmdir("d"));
    R(unlink("f"));
    R(unlink("f"));
    R(unlink("l"));
    R(unlink("full/x"));
    R(remove("full"));
    ls(".");
    char abs[PATH_MAX];
    snprintf(abs, sizeof abs, "%s", here);
    Q(mkdir("cwd", 0700));
    Q(chdir("cwd"));
    R(rmdir(strcat(abs, "/cwd")));
    struct stat s;
    R(stat(".", &s));
    R(stat("x", &s));
    F(open("x", O_CREAT | O_WRONLY, 0600));
    R(mkdir("x", 0700));
    N(getcwd(abs, sizeof abs));
    R(chdir(".."));
}
CASE(mkdir_matrix)
{
    put("f", "");
    Q(mkdir("d", 0755));
    Q(symlink("nowhere", "l"));
    static const char *const n[] = {"d", "d/", "f", "f/", "f/x", "none/x", "a/", "b//", "c/.", ".", "..", "", "d/new/", "l", "l/", "d/../e"};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        printf("mkdir '%s' %s\n", n[i], mkdir(n[i], 0755) ? strerrorname_np(errno) : "ok");
    ls(".");
    struct stat s;
    Q(stat(".", &s));
    printf("links %lu\n", (unsigned long)s.st_nlink);
    Q(rmdir("a"));
    Q(stat(".", &s));
    printf("links %lu\n", (unsigned long)s.st_nlink);
}
CASE(unlink_while_open)
{
    int fd = F(open("f", O_CREAT | O_RDWR, 0600)), r = F(open("f", O_RDONLY));
    R(write(fd, "still here", 10));
    R(unlink("f"));
    ls(".");
    struct stat s;
    show_stat("fstat", fstat(fd, &s), &s);
    catfd(r);
    R(write(fd, "!", 1));
    catfd(r);
    R(ftruncate(fd, 5));
    catfd(r);
    R(fchmod(fd, 0644));
    show_stat("fstat", fstat(r, &s), &s);
    put("f", "another");
    catfd(r);
    cat("f");
    char p[64];
    snprintf(p, sizeof p, "/proc/self/fd/%d", r);
    int again = F(open(p, O_RDONLY));
    catfd(again);
    close(again);
    R(close(fd));
    catfd(r);
    R(close(r));
    cat("f");
    fd = open("g", O_CREAT | O_RDWR, 0600);
    Q(write(fd, "map", 3));
    char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    R(unlink("g"));
    close(fd);
    show_bytes(m, 3);
    m[0] = 'M';
    show_bytes(m, 3);
    CHILD("child", show_bytes(m, 3));
}
/* List (or remove) everything below a directory, without leaving the process. */
static void below(const char *dir, int removing)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    char *names[64];
    size_t n = 0;
    struct dirent *e;
    while ((e = readdir(d)) && n < 64)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            names[n++] = strdup(e->d_name);
    closedir(d);
    if (n)
        qsort(names, n, sizeof *names, probe_by_name);
    for (size_t i = 0; i < n; i++) {
        char p[600];
        struct stat s;
        snprintf(p, sizeof p, "%.300s/%.255s", dir, names[i]);
        free(names[i]);
        int r = lstat(p, &s);
        if (!removing)
            printf(" %s%s", p, r ? "?" : S_ISDIR(s.st_mode) ? "/" : S_ISLNK(s.st_mode) ? "@" : "");
        if (!r && S_ISDIR(s.st_mode))
            below(p, removing);
        if (removing && remove(p))
            printf("remove %s: %s\n", p, strerrorname_np(errno));
    }
}
static void rename_one(const char *a, const char *b, unsigned flags)
{
    /* A fresh tree for each pair. */
    put("file", "file");
    put("file2", "file2");
    Q(link("file", "hard"));
    Q(mkdir("empty", 0755));
    Q(mkdir("empty2", 0755));
    Q(mkdir("full", 0755));
    put("full/x", "x");
    Q(mkdir("full/sub", 0755));
    Q(symlink("file", "link"));
    Q(symlink("absent", "broken"));
    Q(symlink("full", "dlink"));
    int r = flags == ~0u ? rename(a, b) : renameat2(AT_FDCWD, a, AT_FDCWD, b, flags);
    printf("rename %s -> %s %x: %s", a, b, flags, r ? strerrorname_np(errno) : "ok");
    if (!r) {
        puts("");
        below(".", 0);
        struct stat s;
        printf("\n  links of file: %lu, of .: ", stat("file2", &s) ? 0 : (unsigned long)s.st_nlink);
        Q(stat(".", &s));
        printf("%lu", (unsigned long)s.st_nlink);
        if (!stat("full", &s))
            printf(" full %lu", (unsigned long)s.st_nlink);
    }
    puts("");
    below(".", 1);
}
static const char *const rn[] = {"file", "file2", "hard", "empty", "empty2", "full", "link", "broken", "dlink", "none", "file/", "empty/", "dlink/", "none/", "full/sub", "full/sub/in", "none/x", "file/x", "."};
CASE(rename_matrix)
{
    fflush(stdout);
    for (size_t i = 0; i < sizeof rn / sizeof *rn; i++)
        for (size_t j = 0; j < sizeof rn / sizeof *rn; j++) {
            if ((i * 7 + j * 3) % 2 && i > 5 && j > 10)
                continue;
            rename_one(rn[i], rn[j], ~0u);
        }
}
CASE(rename_flags)
{
    static const char *const n[] = {"file", "empty", "full", "link", "none", "full/sub"};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        for (size_t j = 0; j < sizeof n / sizeof *n; j++) {
            rename_one(n[i], n[j], RENAME_NOREPLACE);
            rename_one(n[i], n[j], RENAME_EXCHANGE);
        }
    rename_one("file", "file2", RENAME_NOREPLACE | RENAME_EXCHANGE);
    rename_one("file", "file2", 0x80);
    rename_one("file", "file2", 0);
}
CASE(rename_over_open)
{
    put("old", "old content");
    put("new", "new content");
    int fd = open("old", O_RDONLY), w = open("new", O_RDWR);
    R(rename("new", "old"));
    catfd(fd);
    cat("old");
    R(pwrite(w, "NEW", 3, 0));
    cat("old");
    struct stat s;
    show_stat("replaced", fstat(fd, &s), &s);
    show_stat("moved", fstat(w, &s), &s);
    R(close(w));
    R(close(fd));
    cat("old");
    ls(".");
    /* The classic: write to a temporary name, rename over, many times. */
    for (int i = 0; i < 20; i++) {
        char b[16];
        snprintf(b, sizeof b, "round %d", i);
        put("tmp", b);
        if (rename("tmp", "old"))
            printf("round %d: %s\n", i, strerrorname_np(errno));
    }
    cat("old");
    /* Renamed while being written. */
    fd = open("p", O_CREAT | O_WRONLY, 0600);
    Q(write(fd, "be", 2));
    R(rename("p", "q"));
    Q(write(fd, "fore", 4));
    close(fd);
    cat("q");
    Q(mkdir("d", 0755));
    R(rename("q", "d/q"));
    cat("d/q");
    R(rename("d", "e"));
    cat("e/q");
}
CASE(renameat_calls)
{
    Q(mkdir("a", 0755));
    Q(mkdir("b", 0755));
    put("a/f", "moved");
    int a = open("a", O_RDONLY), b = open("b", O_RDONLY);
    R(renameat(a, "f", b, "g"));
    cat("b/g");
    R(renameat(b, "g", AT_FDCWD, "h"));
    cat("h");
    R(renameat(9999, "h", AT_FDCWD, "i"));
    R(renameat(AT_FDCWD, "h", 9999, "i"));
    R(linkat(AT_FDCWD, "h", a, "linked", 0));
    cat("a/linked");
    R(unlinkat(a, "linked", 0));
    R(unlinkat(AT_FDCWD, "b", AT_REMOVEDIR));
    R(renameat(AT_FDCWD, "h", b, "gone"));
    ls(".");
}
CASE(many_names)
{
    char n[32];
    for (int i = 0; i < 2500; i++) {
        snprintf(n, sizeof n, "name-%05d", i);
        int fd = open(n, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0) {
            printf("%s: %s\n", n, strerrorname_np(errno));
            return;
        }
        close(fd);
    }
    DIR *d = opendir(".");
    int count = 0;
    struct dirent *e;
    while ((e = readdir(d)))
        count += e->d_name[0] == 'n';
    printf("%d\n", count);
    /* Removing while reading: each name is seen once. */
    rewinddir(d);
    int removed = 0;
    while ((e = readdir(d)))
        if (e->d_name[0] == 'n' && !unlink(e->d_name))
            removed++;
    printf("%d removed\n", removed);
    closedir(d);
    ls(".");
}
PROBE_MAIN
