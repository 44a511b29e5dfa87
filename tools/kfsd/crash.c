#include "tools/kfsd/kfsd.h"
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int crash_fd = 2;

static void on_crash(int sig)
{
    static const char head[] = "kfsd: crash, signal ";
    char num[4] = {(char)('0' + sig / 10), (char)('0' + sig % 10), '\n', 0};
    (void)!write(crash_fd, head, sizeof head - 1);
    (void)!write(crash_fd, num, 3);
    void *frames[48];
    int n = backtrace(frames, 48);
    backtrace_symbols_fd(frames, n, crash_fd);
    /* SA_RESETHAND: the default action comes next, with the true signal. */
    raise(sig);
}

void kfsd_crash_init(void)
{
    /* The first call loads libgcc and allocates: not in the handler. */
    void *warm[2];
    (void)backtrace(warm, 2);
    if (kfsd.opt.log) {
        int fd = open(kfsd.opt.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0)
            crash_fd = fd;
    }
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    (void)sigaltstack(&ss, NULL);
    struct sigaction sa = {.sa_handler = on_crash, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER | SA_ONSTACK)};
    const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++)
        (void)sigaction(sigs[i], &sa, NULL);
}
