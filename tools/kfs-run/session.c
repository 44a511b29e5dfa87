#include "tools/kfs-run/run.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What somebody sends to us is meant for CMD. Signals of the terminal reach CMD by themselves: both are in its process group. */
static const int FORWARDED[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGCONT, SIGTSTP};

static void signals_block(sigset_t *ret_old)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < sizeof FORWARDED / sizeof *FORWARDED; i++)
        (void)sigaddset(&set, FORWARDED[i]);
    (void)sigprocmask(SIG_BLOCK, &set, ret_old);
}

/* Stop with CMD, so that whoever waits for us sees a stopped job; go on with it. */
static void stop_with(pid_t child)
{
    (void)kill(getpid(), SIGSTOP);
    (void)kill(child, SIGCONT);
}

/* CMD's wait status. All signals of signals_block are blocked. */
static int child_wait(pid_t child)
{
    sigset_t set;
    (void)sigprocmask(SIG_BLOCK, NULL, &set);
    for (;;) {
        int status;
        pid_t pid = waitpid(child, &status, WNOHANG | WUNTRACED);
        if (pid == child && WIFSTOPPED(status)) {
            stop_with(child);
            continue;
        }
        if (pid == child || (pid < 0 && errno != EINTR))
            return pid == child ? status : 0;
        siginfo_t si;
        int sig = sigwaitinfo(&set, &si);
        if (sig > 0 && sig != SIGCHLD && si.si_code != SI_KERNEL)
            (void)kill(child, sig);
    }
}

/* Returns how many of the session's volumes could not be brought up to date. */
static int volumes_sync(const struct run_mounts *m, const struct kfs_conf *conf, const struct run_options *o)
{
    int failed = 0;
    for (int i = 0; i < m->count; i++) {
        if (!m->m[i].session)
            continue;
        struct kfs_err err = {0};
        struct kfs_endpoint e;
        struct kfs_client c;
        const struct kfs_endpoint_options eo = {.cache_dir = o->cache_dir, .run_dir = o->run_dir, .linger_s = o->linger_s};
        int rc = kfs_endpoint_resolve(conf, m->m[i].url, &e, &err);
        if (rc == 0)
            rc = kfs_endpoint_find(conf, &e, &eo, &c, &err);
        if (rc == 0) {
            rc = kfs_client_sync(&c, &err);
            kfs_client_close(&c);
        }
        if (rc < 0) {
            (void)fprintf(stderr, "kfs-run: volume at '%s': %s\n", m->m[i].prefix, err.msg);
            failed++;
        }
    }
    return failed;
}

static void end_by(int sig)
{
    const struct rlimit none = {0, 0}; /* the core, if any, was CMD's */
    sigset_t set;
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)signal(sig, SIG_DFL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, sig);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    (void)kill(getpid(), sig);
}

int run_session(char **cmd, const struct run_mounts *m, const struct kfs_conf *conf, const struct run_options *o)
{
    sigset_t old;
    signals_block(&old);
    /* An ignored SIGCHLD, inherited, would keep CMD's status from us; CMD itself gets it back. */
    void (*chld)(int) = signal(SIGCHLD, SIG_DFL);
    pid_t child = fork();
    if (child < 0) {
        (void)fprintf(stderr, "kfs-run: fork: %s\n", strerror(errno));
        return 1;
    }
    if (child == 0) {
        (void)signal(SIGCHLD, chld);
        (void)sigprocmask(SIG_SETMASK, &old, NULL);
        _exit(run_exec(cmd, m));
    }
    int status = child_wait(child);
    int failed = volumes_sync(m, conf, o);
    if (WIFSIGNALED(status)) {
        end_by(WTERMSIG(status));
        return 128 + WTERMSIG(status);
    }
    int code = WEXITSTATUS(status);
    return code ? code : failed ? 1 : 0;
}
