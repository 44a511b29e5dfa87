/* tests/preload/probes/p_inline.c — system calls by the program's own instructions, which no function of libc sees (x86-64; elsewhere nothing) */
#include "probe.h"
#include <pthread.h>
#include <linux/openat2.h>

#if defined __x86_64__
/* As a compiler writes it: the number is a constant before the instruction. */
#define RAW4(number, a, b, c, d)                                                                                                   \
    ({                                                                                                                             \
        long raw_r;                                                                                                                \
        register long raw_d __asm__("r10") = (long)(d);                                                                            \
        __asm__ volatile("syscall" : "=a"(raw_r) : "a"((long)(number)), "D"((long)(a)), "S"((long)(b)), "d"((long)(c)), "r"(raw_d) \
                         : "rcx", "r11", "memory");                                                                                \
        raw_r;                                                                                                                     \
    })
/* By a function that is told the number. */
static __attribute__((noinline)) long raw(long n, long a, long b, long c, long d, long e, long f)
{
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return r;
}
/* -errno becomes what R prints. */
#define K(x)                                                                                                                       \
    ({                                                                                                                             \
        long raw_k = (long)(x);                                                                                                    \
        probe_result(#x, raw_k < 0 ? -1 : raw_k, raw_k < 0 ? (int)-raw_k : 0);                                                     \
        raw_k;                                                                                                                     \
    })

static __attribute__((noinline)) long in_open(const char *path, int flags)
{
    return RAW4(SYS_openat, AT_FDCWD, path, flags, 0644);
}
static __attribute__((noinline)) long in_rename(const char *a, const char *b)
{
    return RAW4(SYS_renameat, AT_FDCWD, a, AT_FDCWD, b);
}
static __attribute__((noinline)) long in_unlink(const char *path)
{
    return RAW4(SYS_unlinkat, AT_FDCWD, path, 0, 0);
}
static __attribute__((noinline)) long in_stat(const char *path, struct stat *st)
{
    return RAW4(SYS_newfstatat, AT_FDCWD, path, st, 0);
}
static __attribute__((noinline)) long in_close(int fd)
{
    return RAW4(SYS_close, fd, 0, 0, 0);
}

static void make(const char *path, const char *text)
{
    long fd = in_open(path, O_CREAT | O_WRONLY | O_TRUNC);
    if (fd < 0) {
        K(fd);
        return;
    }
    if (write((int)fd, text, strlen(text)) < 0)
        perror("write");
    K(in_close((int)fd));
}

CASE(files)
{
    struct stat s;
    make("a", "inline");
    catfd((int)in_open("a", O_RDONLY));
    K(in_stat("a", &s));
    printf("%lld %o\n", (long long)s.st_size, s.st_mode);
    K(in_rename("a", "b"));
    K(in_stat("a", &s));
    K(in_rename("none", "b"));
    K(raw(SYS_renameat2, AT_FDCWD, (long)"b", AT_FDCWD, (long)"c", 1, 0));
    K(raw(SYS_mkdir, (long)"d", 0755, 0, 0, 0, 0));
    K(raw(SYS_mkdirat, AT_FDCWD, (long)"d", 0755, 0, 0, 0));
    K(raw(SYS_linkat, AT_FDCWD, (long)"c", AT_FDCWD, (long)"d/h", 0, 0));
    K(raw(SYS_symlink, (long)"c", (long)"l", 0, 0, 0, 0));
    char text[64] = "";
    K(raw(SYS_readlink, (long)"l", (long)text, sizeof text, 0, 0, 0));
    puts(text);
    K(in_unlink("d/h"));
    K(raw(SYS_unlinkat, AT_FDCWD, (long)"d", AT_REMOVEDIR, 0, 0, 0));
    K(in_unlink("none"));
    K(in_open("none/x", O_RDONLY));
    K(in_stat((const char *)1, &s));
    struct open_how how = {.flags = O_RDONLY};
    long fd = raw(SYS_openat2, AT_FDCWD, (long)"c", (long)&how, sizeof how, 0, 0);
    T(fd >= 0);
    K(raw(SYS_fchmod, fd, 0600, 0, 0, 0, 0));
    K(raw(SYS_close, fd, 0, 0, 0, 0, 0));
    st("c");
    ls(".");
}

CASE(what_is_not_ours)
{
    T(raw(SYS_getpid, 0, 0, 0, 0, 0, 0) == getpid());
    K(raw(5000, 0, 0, 0, 0, 0, 0));
    K(raw(-1, 0, 0, 0, 0, 0, 0));
    T(in_open("/etc/passwd", O_RDONLY) >= 0);
    K(in_close(-1));
    char b[4] = "";
    int p[2];
    R(pipe(p));
    K(raw(SYS_write, p[1], (long)"abc", 3, 0, 0, 0));
    K(raw(SYS_read, p[0], (long)b, 3, 0, 0, 0));
    puts(b);
    errno = 77;
    in_unlink("none");
    T(errno == 77);
}

static void *thread(void *arg)
{
    char a[32], b[32];
    long bad = 0;
    for (int i = 0; i < 50; i++) {
        struct stat s;
        sprintf(a, "t%ld-%d", (long)arg, i);
        sprintf(b, "u%ld-%d", (long)arg, i);
        long fd = in_open(a, O_CREAT | O_WRONLY);
        bad += fd < 0 || write((int)fd, a, strlen(a)) != (ssize_t)strlen(a) || in_close((int)fd) || in_rename(a, b) ||
               in_stat(b, &s) || s.st_size != (off_t)strlen(a) || in_stat(a, &s) != -ENOENT || (i & 1 ? in_unlink(b) : 0);
    }
    return (void *)bad;
}

CASE(threads)
{
    pthread_t t[4];
    void *bad;
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, thread, (void *)i);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], &bad);
        T(bad == NULL);
    }
    ls(".");
}

CASE(forked_child)
{
    make("a", "parent");
    pid_t pid = fork();
    if (!pid) {
        if (in_rename("a", "b") || in_unlink("none") != -ENOENT)
            _exit(1);
        if (!fork()) {
            make("c", "grandchild");
            fflush(stdout);
            _exit(0);
        }
        wait(NULL);
        _exit(0);
    }
    int status;
    R(waitpid(pid, &status, 0) == pid);
    R(status);
    ls(".");
}

CASE(signals_blocked)
{
    sigset_t all, now;
    sigfillset(&all);
    R(sigprocmask(SIG_BLOCK, &all, NULL));
    make("a", "blocked");
    K(in_rename("a", "b"));
    K(in_rename("a", "b"));
    R(sigprocmask(SIG_SETMASK, NULL, &now));
    R(sigismember(&now, SIGSYS));
    R(sigismember(&now, SIGSEGV));
    ls(".");
}

static void on_signal(int sig)
{
    long fd = in_open(sig == SIGUSR1 ? "one" : "two", O_CREAT | O_WRONLY);
    in_close((int)fd);
}

CASE(in_a_handler)
{
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    R(sigaltstack(&ss, NULL));
    R(sigaction(SIGUSR1, &sa, NULL));
    R(sigaction(SIGSYS, &sa, NULL));
    raise(SIGUSR1);
    raise(SIGSYS);
    ls(".");
}

CASE(execute)
{
    make("go", "#!/bin/sh\necho \"ran $1 $V\"\n");
    R(chmod("go", 0755));
    fflush(stdout);
    char *argv[] = {"go", "it", NULL}, *envp[] = {"V=v", "PATH=/usr/bin:/bin", NULL};
    if (!fork()) {
        raw(SYS_execve, (long)"./go", (long)argv, (long)envp, 0, 0, 0);
        _exit(9);
    }
    int status;
    wait(&status);
    R(status);
    K(RAW4(SYS_execve, "./none", argv, envp, 0));
}

/* A kernel leaves every register but three as it was, flags, vectors and the 128 bytes below the stack's end included. */
__asm__(".text\n.globl leaves_alone\n.type leaves_alone, @function\n"
        "leaves_alone:\n.cfi_startproc\n"
        "movq $0x1111, -8(%rsp)\nmovq $0x2222, -120(%rsp)\n"
        "movq $0x3333, %r8\nmovq $0x4444, %r9\nmovq $0x5555, %r10\n"
        "movq %r8, %xmm0\nmovq %r9, %xmm7\nmovq %r10, %xmm15\n"
        "movl $262, %eax\nstc\n"
        "syscall\n"
        "setc %cl\nmovzbl %cl, %ecx\n"
        "cmpq $1, %rcx\njne 1f\n"
        "cmpq $0x1111, -8(%rsp)\njne 1f\ncmpq $0x2222, -120(%rsp)\njne 1f\n"
        "cmpq $0x3333, %r8\njne 1f\ncmpq $0x4444, %r9\njne 1f\ncmpq $0x5555, %r10\njne 1f\n"
        "movq %xmm0, %rcx\ncmpq %r8, %rcx\njne 1f\nmovq %xmm7, %rcx\ncmpq %r9, %rcx\njne 1f\nmovq %xmm15, %rcx\ncmpq %r10, %rcx\njne 1f\n"
        "cmpq $-100, %rdi\njne 1f\n"
        "ret\n1: movq $-4096, %rax\nret\n"
        ".cfi_endproc\n.size leaves_alone, .-leaves_alone\n");
long leaves_alone(long dirfd, const char *path, struct stat *st);

/* A branch to the instruction itself: nothing there may change. close(-1), twice. */
__asm__(".text\n.globl looped\n.type looped, @function\n"
        "looped:\n.cfi_startproc\n"
        "movl $2, %esi\nmovl $-1, %edi\nmovl $3, %eax\n"
        "1: syscall\nmovl $3, %eax\ndecl %esi\njnz 1b\n"
        "ret\n.cfi_endproc\n.size looped, .-looped\n");
long looped(void);

CASE(registers)
{
    struct stat s = {0};
    make("a", "12345");
    for (int i = 0; i < 3; i++)
        K(leaves_alone(AT_FDCWD, "a", &s));
    K(s.st_size);
    R(looped());
}
#else
CASE(files)
{
    puts("no such instructions here");
}
#endif

PROBE_MAIN
