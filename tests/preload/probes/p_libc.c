/* tests/preload/probes/p_libc.c — calls that libc makes inside itself: stdio, temporary files, realpath, getcwd */
#include "probe.h"
#include <dlfcn.h>
#include <libgen.h>
#include <spawn.h>
#include <wchar.h>

CASE(fopen_modes)
{
    static const char *const modes[] = {"r", "r+", "w", "w+", "a", "a+", "wx", "w+x", "re", "rb", "r+b", "ab", "q", ""};
    static const char *const paths[] = {"file", "none", "dir", "file/", "no/x", "link", "broken"};
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
        for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
            put("file", "0123456789");
            Q(mkdir("dir", 0755));
            Q(symlink("file", "link"));
            Q(symlink("made", "broken"));
            FILE *f = fopen(paths[p], modes[m]);
            printf("fopen(%s, %s): %s", paths[p], modes[m], f ? "ok" : strerrorname_np(errno));
            if (f) {
                char b[8] = "";
                int w = fprintf(f, "ab");
                printf(" printf %d", w);
                rewind(f);
                size_t n = fread(b, 1, 4, f);
                printf(" read %zu '%s' cloexec %d fl %x", n, b, fcntl(fileno(f), F_GETFD), fcntl(fileno(f), F_GETFL) & (O_ACCMODE | O_APPEND));
                printf(" close %d", fclose(f));
            }
            puts("");
            st(paths[p]);
            unlink("none");
            unlink("made");
            unlink("link");
            unlink("broken");
        }
}
CASE(stdio_content)
{
    FILE *f = N(fopen("f", "w"));
    for (int i = 0; i < 5000; i++)
        fprintf(f, "line %d\n", i);
    struct stat s;
    R(fflush(f));
    R(stat("f", &s));
    printf("size %lld\n", (long long)s.st_size);
    R(fclose(f));
    f = fopen("f", "r+");
    char line[64];
    int n = 0;
    while (fgets(line, sizeof line, f))
        n++;
    printf("%d lines\n", n);
    R(fseek(f, 100, SEEK_SET));
    R(ftell(f));
    R(fputs("HERE", f));
    R(fseek(f, -5, SEEK_END));
    N(fgets(line, sizeof line, f));
    printf("%s", line);
    R(fclose(f));
    int fd = open("f", O_RDONLY);
    Q(pread(fd, line, 10, 98));
    show_bytes(line, 10);
    f = N(fdopen(fd, "r"));
    N(fgets(line, sizeof line, f));
    printf("%s", line);
    R(fileno(f) == fd ? 0 : -1);
    R(fclose(f));
    R(fcntl(fd, F_GETFD));
    char *l = NULL;
    size_t cap = 0;
    f = fopen64("f", "r");
    R(getline(&l, &cap, f));
    R(getdelim(&l, &cap, '2', f));
    R(fseeko(f, 0, SEEK_END));
    T(ftello(f) == s.st_size);
    R(fgetc(f));
    T(feof(f) != 0);
    R(fclose(f));
    f = fopen("f", "a");
    R(fputs("tail\n", f));
    R(fclose(f));
    R(stat("f", &s));
    printf("size %lld\n", (long long)s.st_size);
    /* wide and unlocked ways */
    f = fopen("w", "w");
    R(fwprintf(f, L"wide %d\n", 5));
    R(fclose(f));
    cat("w");
    f = fopen("w", "r,ccs=UTF-8");
    T(f != NULL);
    if (f)
        fclose(f);
}
CASE(freopen_calls)
{
    put("in", "from a file\n");
    FILE *f = N(fopen("in", "r"));
    f = N(freopen("out", "w", f));
    fprintf(f, "reopened");
    f = N(freopen("in", "r", f));
    char line[64];
    N(fgets(line, sizeof line, f));
    printf("%s", line);
    R(fclose(f));
    cat("out");
    f = fopen("in", "r");
    f = freopen("none/x", "w", f);
    T(f == NULL);
    fflush(stdout);
    CHILD("stdout into a file", N(freopen("log", "w", stdout)); puts("goes into the log"); Q(system("echo and from a child")));
    cat("log");
    CHILD("mode change", FILE *g = fopen("in", "r"); g = freopen(NULL, "r", g); printf("%s\n", g ? "ok" : strerrorname_np(errno)));
}
CASE(errors_of_streams)
{
    put("f", "x");
    FILE *f = fopen("f", "r");
    R(fputc('a', f));
    T(ferror(f) != 0);
    R(fclose(f));
    f = fopen("f", "w");
    close(fileno(f));
    fputs("lost", f);
    R(fclose(f));
    f = fopen("f", "w");
    fputs("kept", f);
    R(fclose(f));
    cat("f");
    f = fopen("f", "r");
    int fd = fileno(f);
    R(lseek(fd, 2, SEEK_SET));
    printf("%c\n", fgetc(f));
    fclose(f);
    f = fopen("g", "w");
    setvbuf(f, NULL, _IONBF, 0);
    fputs("unbuffered", f);
    cat("g");
    fclose(f);
    CHILD("flushed at exit", f = fopen("h", "w"); fputs("by exit", f); exit(0));
    cat("h");
    CHILD("not flushed at _exit", f = fopen("i", "w"); fputs("by exit", f); _exit(0));
    cat("i");
    CHILD("all at once", f = fopen("j", "w"); fputs("by fflush", f); fflush(NULL); _exit(0));
    cat("j");
    CHILD("fcloseall", f = fopen("k", "w"); fputs("by fcloseall", f); fcloseall(); _exit(0));
    cat("k");
}
CASE(temporary_files)
{
    char a[] = "tmp-XXXXXX", b[] = "tmp-XXXXXX.ext", c[] = "dir-XXXXXX", bad[] = "tmp-XXXX", no[] = "none/XXXXXX", nod[] = "none/XXXXXX";
    int fd = F(mkstemp(a));
    R(write(fd, "temp", 4));
    catfd(fd);
    close(fd);
    T(strcmp(a, "tmp-XXXXXX") != 0);
    struct stat s;
    Q(stat(a, &s));
    printf("%o\n", s.st_mode);
    Q(unlink(a));
    fd = F(mkstemps(b, 4));
    close(fd);
    T(!strcmp(b + strlen(b) - 4, ".ext"));
    Q(unlink(b));
    N(mkdtemp(c));
    Q(stat(c, &s));
    printf("%o\n", s.st_mode);
    Q(rmdir(c));
    F(mkstemp(bad));
    F(mkstemp(no));
    N(mkdtemp(nod));
    char abs[PATH_MAX + 16];
    snprintf(abs, sizeof abs, "%s/abs-XXXXXX", here);
    fd = F(mkostemp(abs, O_CLOEXEC));
    printf("cloexec %d\n", fcntl(fd, F_GETFD));
    close(fd);
    T(!access(abs, F_OK));
    Q(unlink(abs));
    char e[] = "ext-XXXXXXyy";
    fd = F(mkostemps(e, 2, O_APPEND));
    close(fd);
    Q(unlink(e));
    /* Many at once must all differ. */
    int differ = 1;
    for (int i = 0; i < 100; i++) {
        char t[] = "m-XXXXXX";
        fd = mkstemp(t);
        if (fd < 0)
            differ = 0;
        close(fd);
        Q(unlink(t));
    }
    T(differ);
    Q(setenv("TMPDIR", here, 1));
    FILE *f = N(tmpfile());
    if (f) {
        fputs("nameless", f);
        rewind(f);
        char line[16];
        N(fgets(line, sizeof line, f));
        puts(line);
        fclose(f);
    }
    char *t = tempnam(here, "pre");
    T(t && !strncmp(t, here, strlen(here)));
    ls(".");
}
static void show_real(const char *p)
{
    char b[PATH_MAX];
    errno = 0;
    char *r = realpath(p, b);
    printf("realpath '%s': ", p);
    if (!r)
        puts(strerrorname_np(errno));
    else if (!strncmp(r, here, strlen(here)))
        printf("HERE%s\n", r + strlen(here));
    else if (!strncmp(r, top, strlen(top)))
        printf("TOP%s\n", r + strlen(top));
    else
        puts(r);
    char *m = realpath(p, NULL);
    if (!m != !r || (m && strcmp(m, r)))
        puts("  differs when allocated");
    free(m);
}
CASE(realpath_calls)
{
    put("f", "x");
    Q(mkdir("d", 0755));
    Q(mkdir("d/e", 0755));
    Q(symlink("d/e", "l"));
    Q(symlink("absent", "broken"));
    Q(symlink("self", "self"));
    char abs[PATH_MAX + 16];
    snprintf(abs, sizeof abs, "%s/d", here);
    Q(symlink(abs, "abs"));
    Q(symlink("/etc", "out"));
    static const char *const p[] = {"f", ".", "..", "d/e", "l", "l/..", "abs/e", "broken", "self", "none", "f/", "f/x", "d/", "d//e/./../e", "", "out/passwd", "/etc/passwd", "/", "l/../../f"};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        show_real(p[i]);
    snprintf(abs, sizeof abs, "%s/d/../l", here);
    char *r = N(canonicalize_file_name(abs));
    if (r)
        puts(r + strlen(here));
    N(realpath(NULL, NULL));
}
CASE(working_directory)
{
    char b[PATH_MAX];
    T(getcwd(b, sizeof b) && !strcmp(b, here));
    Q(mkdir("d", 0755));
    Q(mkdir("d/e", 0755));
    put("d/e/f", "relative");
    Q(symlink("d", "l"));
    R(chdir("l/e"));
    N(getcwd(b, sizeof b));
    puts(b + strlen(here));
    cat("f");
    R(chdir(".."));
    N(getcwd(b, sizeof b));
    puts(b + strlen(here));
    N(getcwd(b, 3));
    char *g = getcwd(NULL, 0);
    T(g && !strcmp(g, b + 0) == !strcmp(g, b));
    puts(g ? g + strlen(here) : "NULL");
    g = get_current_dir_name();
    T(g && strstr(g, "/d") != NULL);
    R(chdir("none"));
    R(chdir("e/f"));
    R(chdir(""));
    int fd = open("e", O_RDONLY);
    R(fchdir(fd));
    N(getcwd(b, sizeof b));
    puts(b + strlen(here));
    int f = open("f", O_RDONLY);
    R(fchdir(f));
    R(fchdir(9999));
    R(rename("../../d", "../../moved"));
    N(getcwd(b, sizeof b));
    puts(b + strlen(here));
    cat("f");
    CHILD("child", N(getcwd(b, sizeof b)); puts(b + strlen(here)); cat("f"));
    fflush(stdout);
    Q(system("cat f; echo; cat ../e/f; echo; pwd -P | sed 's/.*working_directory//'"));
    R(chdir("/"));
    N(getcwd(b, sizeof b));
    puts(b);
    R(chdir(here));
    R(chdir("/usr"));
    int d = open(here, O_RDONLY);
    R(fchdir(d));
    st("moved");
    R(chdir("../../../../../../../../../../../../../usr"));
    N(getcwd(b, sizeof b));
    puts(b);
    R(chdir(here));
    char l[PATH_MAX];
    ssize_t n = readlink("/proc/self/cwd", l, sizeof l - 1);
    l[n > 0 ? n : 0] = 0;
    T(n > 0 && !strcmp(l, here));
}
CASE(proc_names)
{
    /* Names below /proc/self of files here. */
    put("f", "by descriptor");
    int fd = open("f", O_RDWR);
    char p[64], l[PATH_MAX];
    snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
    cat(p);
    snprintf(p, sizeof p, "/dev/fd/%d", fd);
    int g = F(open(p, O_RDONLY));
    catfd(g);
    struct stat a, b;
    R(stat(p, &a));
    R(fstat(fd, &b));
    T(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
    R(truncate(p, 2));
    catfd(fd);
    R(chmod(p, 0600));
    st("f");
    int d = open(".", O_RDONLY | O_DIRECTORY);
    snprintf(p, sizeof p, "/proc/self/fd/%d", d);
    ssize_t n = readlink(p, l, sizeof l - 1);
    l[n > 0 ? n : 0] = 0;
    T(n > 0 && !strcmp(l, here));
    snprintf(p, sizeof p, "/proc/self/fd/%d/f", d);
    R(stat(p, &a));
    T(a.st_ino == b.st_ino);
    R(stat("/proc/self/cwd/f", &a));
    T(a.st_ino == b.st_ino);
    snprintf(p, sizeof p, "/proc/self/fd/%d/new", d);
    put(p, "via proc");
    Q(unlink("new") == 0 ? puts("made") : puts("not made"));
}
PROBE_MAIN
