/* tests/preload/probes/p_life.c — what happens to a process while it works on files: children of every kind, signals, threads that end, exits without close */
#include "tests/preload/probes/probe.h"
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/time.h>

extern char **environ;

static bool same(const char *path, const char *text)
{
    char b[8192];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, b, sizeof b);
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(text) && memcmp(b, text, (size_t)n) == 0;
}

/* A commit by the kernel's last close comes a moment after the process's end. */
static void cat_later(const char *path, const char *text)
{
    for (int i = 0; i < 1000 && !same(path, text); i++)
        usleep(10000);
    cat(path);
}

/* --- children -------------------------------------------------------------------------------------------------------------------- */
static int in_clone(void *arg)
{
    put(arg, "from a clone");
    struct stat s;
    return stat(arg, &s) || s.st_size != 12;
}
CASE(clones)
{
    static char stack[1 << 17] __attribute__((aligned(16)));
    R(chdir(here));
    ended("clone", clone(in_clone, stack + sizeof stack, SIGCHLD, "clone"));
    ended("clone, memory shared, parent waits", clone(in_clone, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, "shared"));
    ended("clone, files shared", clone(in_clone, stack + sizeof stack, CLONE_FILES | CLONE_FS | SIGCHLD, "files"));
    cat("clone");
    cat("shared");
    cat("files");
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "echo vfork >v; exec cat v >w", NULL);
        _exit(9);
    }
    ended("vfork", pid);
    cat("w");
    char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"pwd >p && test -s p && echo spawned >s"}, NULL};
    Q(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ));
    ended("spawn", pid);
    cat("s");
    Q(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, (char *[]){NULL}));
    ended("spawn, no environment", pid);
    CHILD("exec, no environment", execve("/bin/sh", (char *[]){(char[]){"sh"}, (char[]){"-c"}, (char[]){"echo bare >e"}, NULL}, (char *[]){NULL}));
    CHILD("exec, NULL environment", execve("/bin/sh", (char *[]){(char[]){"sh"}, (char[]){"-c"}, (char[]){"echo null >n"}, NULL}, NULL));
    CHILD("env -i", execl("/usr/bin/env", "env", "-i", "/bin/sh", "-c", "echo i >i", NULL));
    CHILD("clearenv", clearenv(); execl("/bin/sh", "sh", "-c", "echo c >c", NULL));
    cat("e");
    cat("n");
    cat("i");
    cat("c");
    Q(system("echo system >y"));
    cat("y");
}

CASE(daemons)
{
    int done[2];
    Q(pipe(done));
    put("log", "start ");
    CHILD("first fork", {
        setsid();
        if (fork() == 0) {
            close(done[0]);
            for (int fd = 0; fd < 3; fd++)
                close(fd);
            int null = open("/dev/null", O_RDWR);
            Q(dup(null));
            Q(dup(null));
            int fd = open("log", O_WRONLY | O_APPEND);
            Q(chdir("/"));
            Q(write(fd, "daemon", 6));
            char name[PATH_MAX + 8];
            snprintf(name, sizeof name, "%s/pid", here);
            put(name, "1");
            close(fd);
            Q(write(done[1], "x", 1));
            _exit(0);
        }
        _exit(0);
    });
    close(done[1]);
    char c;
    R(read(done[0], &c, 1));
    cat("log");
    cat("pid");
}

CASE(closed_at_start)
{
    for (int k = 0; k < 8; k++) {
        CHILD("shell without some of 0-2", {
            for (int fd = 0; fd < 3; fd++)
                if (k & 1 << fd)
                    close(fd);
            execl("/bin/sh", "sh", "-c", "echo line >f; cat <f >g; ls . >h; cat g h >>all", NULL);
        });
    }
    cat("all");
    CHILD("a file becomes 0", {
        close(0);
        int fd = open("f", O_RDONLY);
        T(fd == 0);
        struct stat s;
        R(fstat(0, &s));
        execl("/bin/sh", "sh", "-c", "cat >zero", NULL);
    });
    cat("zero");
}

static void *files_of_thread(void *arg)
{
    char name[32];
    struct stat s;
    snprintf(name, sizeof name, "t%d", (int)(uintptr_t)arg);
    for (int i = 0; i < 150; i++) {
        put(name, "thread");
        if (stat(name, &s) || !same(name, "thread"))
            printf("thread %d: lost\n", (int)(uintptr_t)arg);
    }
    return NULL;
}
CASE(threads_that_fork)
{
    pthread_t t[3];
    int bad = 0, s;
    put("t0", "thread"); /* some children look for it, perhaps before its thread began */
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, files_of_thread, (void *)i);
    for (int i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(30);
            char name[32];
            snprintf(name, sizeof name, "c%d", i);
            put(name, "child");
            if (i % 4 == 0)
                execl("/bin/sh", "sh", "-c", "test -s t0 -o -e t0", NULL);
            _exit(!same(name, "child"));
        }
        waitpid(pid, &s, 0);
        bad += s != 0;
    }
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    R(bad);
    ls(".");
}

/* --- signals ------------------------------------------------------------------------------------------------------------------------ */
static volatile sig_atomic_t handled, wrong;
static char in_handler[PATH_MAX + 16];
static void on_timer(int sig)
{
    int e = errno;
    struct stat s;
    char b[8];
    (void)sig;
    handled++;
    int fd = open(in_handler, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || write(fd, "handler", 7) != 7 || pread(fd, b, 7, 0) != 7 || memcmp(b, "handler", 7) || fstat(fd, &s) || s.st_size != 7)
        wrong++;
    if (fd >= 0 && close(fd))
        wrong++;
    if (stat(in_handler, &s) || s.st_size != 7 || access("/usr", X_OK))
        wrong++;
    errno = e;
}
CASE(storm_of_signals)
{
    struct sigaction a = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    struct itimerval t = {{0, 1500}, {0, 1500}};
    struct stat s;
    int bad = 0, rounds = 0;
    char b[16];
    snprintf(in_handler, sizeof in_handler, "%s/by-handler", here);
    sigaction(SIGALRM, &a, NULL);
    time_t end = time(NULL) + 3;
    setitimer(ITIMER_REAL, &t, NULL);
    while (time(NULL) < end) {
        int fd = open("main", O_RDWR | O_CREAT | O_TRUNC, 0644);
        bad += fd < 0 || write(fd, "main text", 9) != 9 || pread(fd, b, 9, 0) != 9 || memcmp(b, "main text", 9);
        bad += close(fd) != 0;
        bad += stat("main", &s) != 0 || s.st_size != 9;
        bad += rename("main", "other") != 0 || unlink("other") != 0;
        DIR *d = opendir(".");
        bad += !d;
        while (d && readdir(d))
            ;
        if (d)
            closedir(d);
        errno = 77;
        bad += stat("none", &s) != -1 || errno != ENOENT;
        rounds++;
    }
    t = (struct itimerval){0};
    setitimer(ITIMER_REAL, &t, NULL);
    R(bad);
    R(wrong);
    T(handled > 20 && rounds > 5);
    cat(in_handler);
}

/* --- threads that end ----------------------------------------------------------------------------------------------------------------- */
static void *forever(void *arg)
{
    char b[64];
    struct stat s;
    for (;;) {
        int fd = open(arg, O_RDWR | O_CREAT, 0644);
        if (fd < 0)
            continue;
        Q(write(fd, "text", 4));
        Q(pread(fd, b, 4, 0));
        stat(arg, &s);
        close(fd);
    }
    return NULL;
}
CASE(threads_cancelled)
{
    for (int i = 0; i < 40; i++) {
        pthread_t t;
        char name[32];
        void *r;
        snprintf(name, sizeof name, "t%d", i % 4);
        pthread_create(&t, NULL, forever, name);
        usleep((useconds_t)(i * 137 % 4000));
        pthread_cancel(t);
        pthread_join(t, &r);
        if (r != PTHREAD_CANCELED)
            puts("not cancelled");
    }
    put("after", "works");
    cat("after");
    for (int i = 0; i < 10; i++) { /* more than there are connections */
        struct stat s;
        Q(mkdir("d", 0755));
        Q(stat("d", &s));
        Q(rmdir("d"));
    }
    ls(".");
}

/* --- ends ------------------------------------------------------------------------------------------------------------------------------- */
static void at_exit_writer(void)
{
    FILE *f = fopen("exit", "w");
    fputs("by atexit", f); /* flushed by libc after us */
    put("exit2", "closed");
}
CASE(ends_without_close)
{
    CHILD("atexit", fflush(stdout); atexit(at_exit_writer); exit(3));
    cat_later("exit", "by atexit");
    cat("exit2");
    CHILD("_exit", {
        int fd = open("a", O_WRONLY | O_CREAT, 0644);
        Q(write(fd, "bytes a", 7));
        _exit(4);
    });
    cat_later("a", "bytes a");
    signal(SIGABRT, SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    CHILD("abort", {
        int fd = open("b", O_WRONLY | O_CREAT, 0644);
        Q(write(fd, "bytes b", 7));
        FILE *f = fopen("b2", "w");
        fputs("flushed", f);
        fflush(f);
        fputs("lost", f);
        abort();
    });
    cat_later("b", "bytes b");
    cat_later("b2", "flushed");
    CHILD("kill", {
        int fd = open("c", O_RDWR | O_CREAT, 0644);
        Q(ftruncate(fd, 7));
        char *p = mmap(NULL, 7, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        memcpy(p, "bytes c", 7);
        raise(SIGKILL);
    });
    cat_later("c", "bytes c");
    CHILD("exec with an open writer", {
        int fd = open("d", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        Q(write(fd, "bytes d", 7));
        execl("/bin/true", "true", NULL);
    });
    cat_later("d", "bytes d");
}

/* --- limits ----------------------------------------------------------------------------------------------------------------------------- */
CASE(no_descriptor_left)
{
    struct rlimit l = {64, 64};
    struct stat s;
    int fd, n = 0, last = -1;
    put("here", "x");
    Q(stat("here", &s));
    setrlimit(RLIMIT_NOFILE, &l);
    while ((fd = open("here", O_RDONLY)) >= 0 && n < 100) {
        last = fd;
        n++;
    }
    T(errno == EMFILE);
    T(n > 20 && n < 64);
    R(stat("here", &s));
    R(access("here", R_OK));
    F(open("here", O_RDONLY));
    close(last);
    F(open("here", O_RDONLY));
    closefrom(3);
    cat("here");
}
static void leak(int count)
{
    int bad = 0;
    struct stat s;
    for (int i = 0; i < count; i++) {
        int fd = open("here", O_RDONLY);
        if (fd < 0 || (i % 64 == 0 && (fstat(fd, &s) || s.st_size != 1)))
            bad++;
    }
    R(bad);
    R(stat("here", &s));
    put("new", "written among many");
    cat("new");
    CHILD("a child of that", cat("new"); R(stat("here", &s)));
    CHILD("a program of that", execl("/bin/sh", "sh", "-c", "cat <new >newer", NULL));
    cat("newer");
    Q(close_range(3, ~0U, 0));
    cat("new");
}
CASE(descriptors_leak)
{
    struct rlimit l;
    put("here", "x");
    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = l.rlim_max > 1000000 ? 1000000 : l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
    leak(l.rlim_cur > 20100 ? 20000 : 700);
}
CASE(high_numbers)
{
    struct rlimit l = {1000000, 1000000};
    struct stat s;
    put("here", "x");
    if (setrlimit(RLIMIT_NOFILE, &l) && (getrlimit(RLIMIT_NOFILE, &l), l.rlim_cur < 2000)) {
        puts("limit is low");
        return;
    }
    int high = (int)l.rlim_cur - 1, fd = open("here", O_RDWR);
    T(dup2(fd, high) == high);
    R(fstat(high, &s));
    T(s.st_size == 1);
    R(write(high, "yy", 2));
    R(fchmod(high, 0600));
    R(close(high));
    R(fstat(high, &s));
    int d = open(".", O_RDONLY);
    T(dup2(d, high) == high);
    F(openat(high, "here", O_RDONLY));
    R(fstatat(high, "here", &s, 0));
    cat("here");
}

/* --- identities (tests/preload/probes.sh runs these with a kfsd of the node) ---------------------------------------------------------------- */
CASE(identities)
{
    if (geteuid() != 0) {
        puts("not root");
        return;
    }
    gid_t extra = 4242;
    struct stat s;
    put("secret", "x");
    Q(chmod("secret", 0600));
    put("group", "g");
    Q(chown("group", 0, 4242));
    Q(chmod("group", 0040));
    Q(chmod(".", 0777));
    R(seteuid(65534));
    F(open("secret", O_RDONLY));
    F(open("group", O_RDONLY));
    put("by-nobody", "n");
    R(access("secret", R_OK)); /* goes by the real user */
    R(seteuid(0));
    F(open("secret", O_RDONLY));
    R(setgroups(1, &extra));
    R(seteuid(65534));
    F(open("group", O_RDONLY));
    R(seteuid(0));
    R(setgroups(0, NULL));
    R(setegid(65534));
    R(seteuid(65534));
    F(open("group", O_RDONLY));
    R(stat("by-nobody", &s));
    put("by-nobody-2", "n");
    R(seteuid(0));
    R(setegid(0));
    F(open("secret", O_RDONLY));
    put("by-root", "r");
    CHILD("for good", {
        R(setgroups(0, NULL));
        R(setresgid(65534, 65534, 65534));
        R(setresuid(65534, 65534, 65534));
        F(open("secret", O_RDONLY));
        R(access("secret", R_OK));
        put("by-child", "c");
        R(seteuid(0));
    });
    st("by-nobody");
    st("by-nobody-2");
    st("by-root");
    st("by-child");
}

PROBE_MAIN
