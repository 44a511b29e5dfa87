/* tests/preload/probes/p_proc.c — processes: fork, vfork, the nine forms of exec, posix_spawn, dlopen, descriptors on the way */
#include "probe.h"
#include <dlfcn.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>

extern char **environ;

static void copy_self(const char *to)
{
    char buf[65536];
    int in = open(self, O_RDONLY), out = open(to, O_CREAT | O_WRONLY, 0755);
    ssize_t n;
    while ((n = read(in, buf, sizeof buf)) > 0)
        if (write(out, buf, (size_t)n) != n)
            puts("copy_self failed");
    close(in);
    if (close(out))
        puts("copy_self: close failed");
}
static void lay(void)
{
    copy_self("prog");
    put("script", "#!/bin/sh\necho \"script $0 $*\" | sed \"s#$HERE#HERE#\"\ncat data\n");
    Q(chmod("script", 0755));
    put("chained", "#!./prog --helper chained\n");
    Q(chmod("chained", 0755));
    put("data", "data beside\n");
    put("notexec", "#!/bin/sh\necho no\n");
    put("noformat", "echo by the shell\n");
    Q(chmod("noformat", 0755));
    put("badinterp", "#!/no/such/interpreter\n");
    Q(chmod("badinterp", 0755));
    Q(mkdir("dir", 0755));
    Q(symlink("prog", "lprog"));
    Q(setenv("HERE", here, 1));
}
CASE(exec_forms)
{
    lay();
    char p[PATH_MAX + 16], path[PATH_MAX + 64];
    snprintf(p, sizeof p, "%s/prog", here);
    char *av[] = {"name", "--helper", "v", NULL};
    char *ev[] = {"ONLY=this", NULL};
    Q(snprintf(path, sizeof path, "%s:/usr/bin:/bin", here) > 0 ? setenv("PATH", path, 1) : 0);
    CHILD("execv", execv(p, av); puts(strerrorname_np(errno)));
    CHILD("execve", execve("./prog", av, environ); puts(strerrorname_np(errno)));
    CHILD("execvp", execvp("prog", av); puts(strerrorname_np(errno)));
    CHILD("execvpe", execvpe("prog", av, environ); puts(strerrorname_np(errno)));
    CHILD("execl", execl(p, "name", "--helper", "l", "more", NULL); puts(strerrorname_np(errno)));
    CHILD("execlp", execlp("prog", "name", "--helper", "lp", NULL); puts(strerrorname_np(errno)));
    CHILD("execle", execle("prog", "name", "--helper", "le", NULL, environ); puts(strerrorname_np(errno)));
    CHILD("fexecve", int fd = open("prog", O_RDONLY); fexecve(fd, av, environ); puts(strerrorname_np(errno)));
    CHILD("fexecve O_PATH", int fd = open("prog", O_PATH | O_CLOEXEC); fexecve(fd, av, environ); puts(strerrorname_np(errno)));
    CHILD("execveat", int d = open(".", O_RDONLY); execveat(d, "prog", av, environ, 0); puts(strerrorname_np(errno)));
    CHILD("execveat empty", int fd = open("prog", O_RDONLY); execveat(fd, "", av, environ, AT_EMPTY_PATH); puts(strerrorname_np(errno)));
    CHILD("small environment", execve("prog", av, ev); puts(strerrorname_np(errno)));
    CHILD("through a symlink", execv("lprog", av); puts(strerrorname_np(errno)));
}
CASE(exec_scripts)
{
    lay();
    char p[PATH_MAX + 16], path[PATH_MAX + 64];
    snprintf(p, sizeof p, "%s/script", here);
    Q(snprintf(path, sizeof path, "%s:/usr/bin:/bin", here) > 0 ? setenv("PATH", path, 1) : 0);
    char *av[] = {"name", "a", "b c", NULL};
    CHILD("execv", execv(p, av); puts(strerrorname_np(errno)));
    CHILD("execve", execve("./script", av, environ); puts(strerrorname_np(errno)));
    CHILD("execvp", execvp("script", av); puts(strerrorname_np(errno)));
    CHILD("execlp", execlp("script", "script", "x", NULL); puts(strerrorname_np(errno)));
    CHILD("interpreter here", execv("chained", av); puts(strerrorname_np(errno)));
    CHILD("no format execvp", execvp("./noformat", av); puts(strerrorname_np(errno)));
    CHILD("no format execv", execv("./noformat", av); puts(strerrorname_np(errno)));
    CHILD("system", Q(system("./script from system")));
    CHILD("shell cd", Q(system("cd dir && ../script from elsewhere 2>&1; sh ../script 2>&1; . ../noformat")));
    FILE *f = popen("./script piped; cat data", "r");
    char line[PATH_MAX];
    while (f && fgets(line, sizeof line, f))
        fputs(line, stdout);
    R(pclose(f));
    f = popen("cat > written", "w");
    fputs("into a pipe", f);
    R(pclose(f));
    cat("written");
}
CASE(exec_errors)
{
    lay();
    char *av[] = {"x", NULL};
    CHILD("none", R(execv("none", av)));
    CHILD("not executable", R(execv("notexec", av)));
    CHILD("directory", R(execv("dir", av)));
    CHILD("interpreter missing", R(execv("badinterp", av)));
    CHILD("through a file", R(execv("data/x", av)));
    CHILD("empty", R(execv("", av)));
    CHILD("not in PATH", R(execvp("no-such-program-anywhere", av)));
    CHILD("bad fd", R(fexecve(9999, av, environ)));
    CHILD("bad format", put("garbage", "\x7f" "ELFgarbage"); Q(chmod("garbage", 0755)); R(execv("garbage", av)));
    CHILD("no format execve", R(execve("./noformat", av, environ)));
    CHILD("execveat nofollow", R(execveat(AT_FDCWD, "lprog", av, environ, AT_SYMLINK_NOFOLLOW)));
    Q(chmod("prog", 0644));
    CHILD("x taken away", R(execv("./prog", av)));
    Q(chmod("prog", 0100));
    CHILD("x only", char *hv[] = {"x", "--helper", "x", NULL}; execv("./prog", hv); puts(strerrorname_np(errno)));
}
CASE(descriptors_over_exec)
{
    lay();
    int fd = open("data", O_RDWR), d = open("dir", O_RDONLY), c = open("data", O_RDONLY | O_CLOEXEC);
    char a[16], b[16], e[16];
    snprintf(a, sizeof a, "%d", fd);
    snprintf(b, sizeof b, "%d", d);
    snprintf(e, sizeof e, "%d", c);
    Q(lseek(fd, 5, SEEK_SET));
    CHILD("from the volume", execl("./prog", "prog", "--helper", "fds", a, b, e, NULL));
    CHILD("from the host", execl(self, "probe", "--helper", "fds", a, b, e, NULL));
    R(lseek(fd, 0, SEEK_CUR));
    cat("data");
    Q(chdir("dir"));
    CHILD("cwd", execl("../prog", "prog", "--helper", "cwd", NULL));
    CHILD("cwd, no environment", char *av[] = {"prog", "--helper", "cwd", NULL}; execve("../prog", av, environ));
}
CASE(vfork_and_spawn)
{
    lay();
    fflush(stdout);
    pid_t p = vfork();
    if (p == 0) {
        execl("./prog", "prog", "--helper", "vforked", NULL);
        _exit(99);
    }
    ended("vfork", p);
    p = vfork();
    if (p == 0) {
        int fd = open("by-vfork", O_CREAT | O_WRONLY, 0644);
        if (fd >= 0) {
            dup2(fd, 1);
            execl("/bin/echo", "echo", "out of vfork", NULL);
        }
        _exit(98);
    }
    ended("vfork with redirection", p);
    cat("by-vfork");
    p = vfork();
    if (p == 0) {
        execl("./none", "none", NULL);
        _exit(errno == ENOENT ? 7 : 8);
    }
    ended("vfork failing", p);
    char *av[] = {"prog", "--helper", "spawned", NULL};
    int r = posix_spawn(&p, "./prog", NULL, NULL, av, environ);
    printf("posix_spawn %d\n", r);
    if (!r)
        ended("spawn", p);
    char *sv[] = {"script", "by spawn", NULL};
    r = posix_spawn(&p, "./script", NULL, NULL, sv, environ);
    printf("posix_spawn of a script %d\n", r);
    if (!r)
        ended("spawn", p);
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s:/usr/bin:/bin", here);
    Q(setenv("PATH", path, 1));
    r = posix_spawnp(&p, "prog", NULL, NULL, av, environ);
    printf("posix_spawnp %d\n", r);
    if (!r)
        ended("spawnp", p);
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, "spawn-out", O_CREAT | O_WRONLY | O_TRUNC, 0640);
    posix_spawn_file_actions_addopen(&fa, 0, "data", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, 1, 2);
    char *cv[] = {"cat", "-", "none-such", NULL};
    r = posix_spawn(&p, "/bin/cat", &fa, NULL, cv, environ);
    printf("with actions %d\n", r);
    if (!r)
        ended("spawn", p);
    cat("spawn-out");
    st("spawn-out");
    posix_spawn_file_actions_destroy(&fa);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addchdir_np(&fa, "dir");
    char *pv[] = {"prog", "--helper", "cwd", NULL};
    char abs[PATH_MAX + 16];
    snprintf(abs, sizeof abs, "%s/prog", here);
    r = posix_spawn(&p, abs, &fa, NULL, pv, environ);
    printf("with chdir %d\n", r);
    if (!r)
        ended("spawn", p);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, "no/such", O_CREAT | O_WRONLY, 0640);
    printf("failing action %d\n", posix_spawn(&p, "/bin/true", &fa, NULL, cv, environ));
    printf("no program %d\n", posix_spawn(&p, "./none", NULL, NULL, av, environ));
    printf("not executable %d\n", posix_spawn(&p, "./data", NULL, NULL, av, environ));
    posix_spawn_file_actions_destroy(&fa);
}
CASE(passing_descriptors)
{
    put("f", "passed");
    Q(mkdir("d", 0755));
    put("d/g", "inside");
    int s[2];
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    fflush(stdout);
    pid_t p = fork();
    if (!p) {
        int fds[2] = {open("f", O_RDWR), open("d", O_RDONLY | O_DIRECTORY)};
        char c = 'x', ctl[CMSG_SPACE(sizeof fds)];
        memset(ctl, 0, sizeof ctl);
        struct iovec v = {&c, 1};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(h), fds, sizeof fds);
        _exit(sendmsg(s[1], &m, 0) != 1);
    }
    ended("sender", p);
    char c, ctl[CMSG_SPACE(2 * sizeof(int))];
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
    R(recvmsg(s[0], &m, 0));
    int fds[2];
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fds);
    catfd(fds[0]);
    struct stat a, b;
    R(fstat(fds[0], &a));
    R(stat("f", &b));
    T(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    R(write(fds[0], "PASSED", 6));
    R(close(fds[0]));
    cat("f");
    int g = F(openat(fds[1], "g", O_RDONLY));
    catfd(g);
    R(fchdir(fds[1]));
    cat("g");
}
static void *thread_main(void *arg)
{
    char n[32], b[32];
    for (int i = 0; i < 50; i++) {
        snprintf(n, sizeof n, "t%d-%d", *(int *)arg, i);
        put(n, n);
        int fd = open(n, O_RDONLY);
        ssize_t r = read(fd, b, sizeof b);
        close(fd);
        if (r != (ssize_t)strlen(n) || memcmp(b, n, (size_t)r))
            return "wrong content";
        struct stat s;
        if (stat(n, &s) || s.st_size != r)
            return "wrong stat";
        if (i % 2 && unlink(n))
            return "unlink";
    }
    return NULL;
}
CASE(threads)
{
    pthread_t t[8];
    int id[8];
    for (int i = 0; i < 8; i++) {
        id[i] = i;
        pthread_create(&t[i], NULL, thread_main, &id[i]);
    }
    for (int i = 0; i < 8; i++) {
        void *r;
        pthread_join(t[i], &r);
        puts(r ? (char *)r : "fine");
    }
    DIR *d = opendir(".");
    int n = 0;
    while (readdir(d))
        n++;
    printf("%d entries\n", n);
}
static volatile int ticks;
static void on_tick(int sig)
{
    (void)sig;
    int e = errno;
    struct stat s;
    ticks += !stat("f", &s) && s.st_size == 3;
    int fd = open("f", O_RDONLY);
    char b[3];
    ticks += fd >= 0 && read(fd, b, 3) == 3;
    close(fd);
    errno = e;
}
#include <sys/time.h>
CASE(signal_handlers)
{
    /* A handler that makes file calls, in the middle of file calls. */
    put("f", "abc");
    signal(SIGVTALRM, on_tick);
    struct itimerval iv = {{0, 1000}, {0, 1000}};
    struct sigaction sa = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &sa, NULL);
    alarm(0);
    setitimer(ITIMER_REAL, &iv, NULL);
    int wrong = 0;
    for (int i = 0; i < 300; i++) {
        char n[16];
        snprintf(n, sizeof n, "g%d", i % 10);
        put(n, "content");
        struct stat s;
        wrong += stat(n, &s) || s.st_size != 7;
        wrong += rename(n, "h") != 0;
    }
    iv = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &iv, NULL);
    printf("%d wrong, %s\n", wrong, ticks % 2 ? "a handler failed" : "handlers fine");
    alarm(60);
}
CASE(fork_with_files_open)
{
    /* As a data loader does: files and directories open, children read on their own. */
    char n[16];
    int fds[8];
    for (int i = 0; i < 8; i++) {
        snprintf(n, sizeof n, "s%d", i);
        put(n, n);
        fds[i] = open(n, O_RDONLY);
    }
    DIR *d = opendir(".");
    CHILD("first", for (int i = 0; i < 8; i++) catfd(fds[i]); put("c1", "child one"); int k = 0; while (readdir(d)) k++; printf("%d\n", k));
    CHILD("second", for (int i = 0; i < 8; i++) catfd(fds[7 - i]); put("c2", "child two"));
    cat("c1");
    cat("c2");
    CHILD("grandchild", CHILD("inner", put("c3", "grandchild")));
    cat("c3");
}
CASE(shared_objects)
{
    put("so.c", "int answer(void) { return 42; }\n");
    R(system("cc -shared -fPIC -o libanswer.so so.c"));
    char p[PATH_MAX + 32];
    snprintf(p, sizeof p, "%s/libanswer.so", here);
    void *h = dlopen(p, RTLD_NOW);
    printf("dlopen %s\n", h ? "ok" : "failed");
    if (h) {
        int (*f)(void) = (int (*)(void))dlsym(h, "answer");
        printf("%d\n", f ? f() : -1);
        Dl_info i;
        if (f && dladdr((void *)f, &i))
            T(strstr(i.dli_fname, "libanswer.so") != NULL || strstr(i.dli_fname, "/f/") != NULL || strstr(i.dli_fname, "/fd/") != NULL);
        R(dlclose(h));
    }
    h = dlopen("./libanswer.so", RTLD_LAZY);
    printf("relative %s\n", h ? "ok" : "failed");
    h = dlopen("./none.so", RTLD_LAZY);
    printf("missing %s\n", h ? "ok" : "failed");
    put("bad.so", "garbage");
    h = dlopen("./bad.so", RTLD_LAZY);
    printf("garbage %s\n", h ? "ok" : "failed");
}
static int helper(int argc, char **argv)
{
    printf("helper:");
    for (int i = 2; i < argc; i++)
        if (!strchr(argv[i], '/') || !getenv("HERE"))
            printf(" %s", argv[i]);
    if (getenv("ONLY"))
        printf(" ONLY=%s", getenv("ONLY"));
    puts("");
    if (!strcmp(argv[2], "fds")) {
        char b[32];
        int fd = atoi(argv[3]), d = atoi(argv[4]), c = atoi(argv[5]);
        ssize_t n = read(fd, b, 3);
        show_bytes(b, n > 0 ? n : 0);
        R(pwrite(fd, "DATA", 4, 0));
        int x = F(openat(d, "../data", O_RDONLY));
        catfd(x);
        R(fcntl(c, F_GETFD));
        struct stat s;
        show_stat("fd", fstat(fd, &s), &s);
    } else if (!strcmp(argv[2], "cwd")) {
        char b[PATH_MAX];
        const char *h = getenv("HERE");
        if (getcwd(b, sizeof b) && h && !strncmp(b, h, strlen(h)))
            puts(b + strlen(h));
        else
            puts("somewhere else");
        cat("../data");
    } else {
        struct stat s;
        R(stat("data", &s));
    }
    return 7;
}
int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--helper")) {
        int r = helper(argc, argv);
        fflush(stdout);
        return r;
    }
    if (argc > 1 && !strncmp(argv[1], "--helper ", 9)) { /* from a #! line */
        printf("interpreter of %s\n", strrchr(argv[2], '/') ? "a path" : argv[2]);
        return 8;
    }
    return probe_main(argc, argv);
}
