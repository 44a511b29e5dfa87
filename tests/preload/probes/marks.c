/* tests/preload/probes/marks.c — stretches of calls between marks that strace shows as write(-1, "MARK…")
 *
 * marks warm DIR     stat, lstat, access, readlink and failing opens of 300 warm names in DIR, five rounds
 * marks outside DIR  many kinds of calls on a host directory
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void mark(const char *name)
{
    if (write(-1, name, strlen(name)) >= 0)
        abort();
}
static int warm(const char *dir)
{
    static char names[300][4096];
    char none[4096], link[4096], b[64];
    struct stat s;
    snprintf(none, sizeof none, "%s/none", dir);
    snprintf(link, sizeof link, "%s/link", dir);
    if (chdir(dir)) {
        perror(dir);
        return 1;
    }
    for (int i = 0; i < 300; i++) {
        snprintf(names[i], sizeof names[i], "%s/d%d/f%d", dir, i % 10, i);
        if (stat(names[i], &s)) {
            perror(names[i]);
            return 1;
        }
    }
    long failed = 0;
    for (int round = 0; round < 6; round++) {
        if (round)
            mark("MARK");
        for (int i = 0; i < 300; i++) {
            failed += stat(names[i], &s) != 0 || s.st_size != 5;
            failed += lstat(names[i], &s) != 0 || !S_ISREG(s.st_mode);
            failed += access(names[i], R_OK) != 0;
            failed += fstatat(AT_FDCWD, names[i] + strlen(dir) + 1, &s, 0) != 0; /* relative to the cwd */
            failed += stat(none, &s) != -1 || errno != ENOENT;
            failed += open(none, O_RDONLY) != -1 || errno != ENOENT;
            failed += readlink(link, b, sizeof b) != 5;
            failed += stat(link, &s) != 0;
        }
    }
    mark("END");
    printf("failed %ld\n", failed);
    return failed != 0;
}
static void say(const char *what, long r)
{
    printf("%s %ld %d\n", what, r, r == -1 ? errno : 0);
}
static int outside(const char *dir)
{
    char p[4096], q[4096], b[256];
    struct stat s;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    printf("start\n");
    mark("MARK");
    snprintf(p, sizeof p, "%s/a", dir);
    snprintf(q, sizeof q, "%s/b", dir);
    int fd = open(p, O_CREAT | O_RDWR, 0644);
    say("open", fd);
    say("write", write(fd, "0123456789", 10));
    say("pread", pread(fd, b, 4, 2));
    say("lseek", lseek(fd, 0, SEEK_SET));
    say("fstat", fstat(fd, &s));
    int d = dup(fd);
    say("dup", d);
    say("dup2", dup2(fd, 20));
    say("fcntl", fcntl(fd, F_DUPFD, 30));
    say("close", close(d));
    say("close", close(20));
    say("close again", close(20));
    say("stat", stat(p, &s));
    say("lstat none", lstat(q, &s));
    say("access", access(p, X_OK));
    say("rename", rename(p, q));
    say("link", link(q, p));
    say("symlink", symlink("x", p));
    say("unlink", unlink(p));
    say("symlink", symlink("x", p));
    say("readlink", readlink(p, b, sizeof b));
    say("unlink", unlink(p));
    say("mkdir", mkdir(p, 0755));
    int df = open(dir, O_RDONLY | O_DIRECTORY);
    say("open dir", df);
    unsigned long long how[3] = {O_RDONLY, 0, 0};
    int f2 = (int)syscall(437 /* openat2 */, df, "b", how, sizeof how);
    say("openat2", f2);
    say("close", close(f2));
    say("openat", openat(df, "none", O_RDONLY));
    say("fstatat", fstatat(df, "b", &s, 0));
    say("chdir", chdir(p));
    say("getcwd", getcwd(b, sizeof b) != NULL);
    say("relative", open("../b", O_RDONLY));
    say("fchdir", fchdir(df));
    say("rmdir", rmdir(p));
    void *m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    say("mmap", m != MAP_FAILED);
    say("munmap", munmap(m, 4096));
    FILE *f = fopen(q, "r");
    say("fopen", fileno(f));
    say("fgets", fgets(b, sizeof b, f) != NULL);
    say("fclose", fclose(f));
    DIR *o = opendir(dir);
    int n = 0;
    while (readdir(o))
        n++;
    say("readdir", n);
    closedir(o);
    say("ftruncate", ftruncate(fd, 3));
    say("truncate none", truncate(p, 3));
    say("chmod", chmod(q, 0600));
    say("utimensat", utimensat(AT_FDCWD, q, NULL, 0));
    pid_t c = fork();
    if (!c)
        _exit(stat(q, &s) ? 1 : 5);
    int st = 0;
    say("wait", waitpid(c, &st, 0) == c);
    say("status", st);
    say("close", close(fd));
    say("unlink", unlink(q));
    mark("END");
    return fflush(stdout) != 0;
}
int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    return !strcmp(argv[1], "warm") ? warm(argv[2]) : outside(argv[2]);
}
