/* tests/missed/missed.c — finds file calls that reached the kernel although they were the shim's to serve
 *
 * What     missed REPORT PREFIX CACHE CMD [ARG…] runs CMD, with all its children, under ptrace and appends to REPORT one line for each system call that
 *            - names a path below PREFIX, directly or relative to its working directory or a descriptor, or
 *            - names a path relative to a dead directory of CACHE (a directory of a volume), or
 *            - asks a descriptor of CACHE for what only the metadata knows (mode, owner, xattrs, listing, file system, durability).
 *          A line: call, path, program, where the system call instruction is, what the stack names first (object+offset, innermost first).
 * Model    The shim's own system calls name cache files and /proc alone, so whatever names a KFS path at the kernel was not served. Not reported:
 *            - calls on descriptors made by libkfs.so itself: it looks at dead directories and cache files to recognise them;
 *            - its question whether the host has a directory where the prefix is (for host symlinks that lead there);
 *            - fstat of a regular file by libc's streams: they use st_blksize and st_size, which are right on a genuine descriptor;
 *            - kfsd, when a program of the test starts one: the cache is its own;
 *            - host symlinks: the path is taken as it is written. The kernel's ENOENT for them is what makes the shim look.
 * Speed    A seccomp filter stops only the calls of the table below.
 * Processes  CMD's real parent passes on its exit code; the tracer is a process beside it that lives until the last descendant is gone (a kfsd started
 *          meanwhile outlives CMD), with no descriptor of the caller's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined __x86_64__
#define ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "missed knows x86-64 and arm64"
#endif

/* Arguments: p = path, relative to the working directory · d = directory descriptor, the next one is its path · f = descriptor · - = neither. */
struct call {
    int nr;
    const char *name, *args;
};
#define C(name, args) {SYS_##name, #name, args}
static const struct call calls[] = {
#ifdef SYS_open
    C(open, "p"), C(creat, "p"), C(stat, "p"), C(lstat, "p"), C(access, "p"), C(mkdir, "p"), C(rmdir, "p"), C(unlink, "p"), C(readlink, "p"),
    C(chmod, "p"), C(chown, "p"), C(lchown, "p"), C(rename, "pp"), C(link, "pp"), C(symlink, "-p"), C(mknod, "p"), C(utime, "p"), C(utimes, "p"),
    C(futimesat, "d"), C(getdents, "f"),
#endif
    C(openat, "d"), C(openat2, "d"), C(newfstatat, "d"), C(statx, "d"), C(faccessat, "d"), C(faccessat2, "d"), C(mkdirat, "d"), C(unlinkat, "d"),
    C(readlinkat, "d"), C(fchmodat, "d"), C(fchownat, "d"), C(symlinkat, "-d"), C(mknodat, "d"), C(utimensat, "d"), C(name_to_handle_at, "d"),
    C(linkat, "d-d"), C(renameat2, "d-d"), C(execveat, "d"), C(execve, "p"), C(truncate, "p"), C(chdir, "p"), C(chroot, "p"), C(statfs, "p"),
    C(getxattr, "p"), C(lgetxattr, "p"), C(setxattr, "p"), C(lsetxattr, "p"), C(listxattr, "p"), C(llistxattr, "p"), C(removexattr, "p"),
    C(lremovexattr, "p"), C(inotify_add_watch, "-p"), C(fanotify_mark, "---d"), C(acct, "p"), C(swapon, "p"), C(mount, "-p"), C(umount2, "p"),
    C(pivot_root, "pp"), C(quotactl, "-p"),
#ifdef SYS_renameat
    C(renameat, "d-d"),
#endif
#ifdef SYS_fchmodat2
    C(fchmodat2, "d"),
#endif
#ifdef SYS_open_tree
    C(open_tree, "d"), C(move_mount, "d-d"), C(fspick, "d"),
#endif
    C(fstat, "f"), C(fchmod, "f"), C(fchown, "f"), C(fgetxattr, "f"), C(fsetxattr, "f"), C(flistxattr, "f"), C(fremovexattr, "f"),
    C(getdents64, "f"), C(fstatfs, "f"), C(fchdir, "f"), C(fsync, "f"), C(fdatasync, "f"), C(syncfs, "f"),
};
enum { NCALLS = sizeof calls / sizeof *calls };

static int report_fd;
static const char *prefix, *cache;
static size_t prefix_len, cache_len;

static void die(const char *what)
{
    fprintf(stderr, "missed: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* --- what the tracee knows ------------------------------------------------------------------------------------------ */

/* A string of the tracee, page by page. False: unreadable, or too long for a path. */
static bool peek_string(pid_t tid, uint64_t addr, char *out, size_t cap)
{
    for (size_t n = 0; n + 1 < cap;) {
        size_t want = 4096 - (size_t)((addr + n) & 4095);
        if (want > cap - 1 - n)
            want = cap - 1 - n;
        struct iovec to = {out + n, want}, from = {(void *)(uintptr_t)(addr + n), want};
        ssize_t got = process_vm_readv(tid, &to, 1, &from, 1, 0);
        if (got <= 0)
            return false;
        if (memchr(out + n, 0, (size_t)got))
            return true;
        n += (size_t)got;
    }
    return false;
}

static bool link_of(pid_t tid, const char *what, char *out, size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", tid, what);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, path, out, cap - 1);
    out[n < 0 ? 0 : n] = '\0';
    return n >= 0;
}

/* Where dirfd leads: the kernel's name. */
static bool dir_of(pid_t tid, int dirfd, char *out, size_t cap)
{
    char what[32] = "cwd";
    if (dirfd != AT_FDCWD)
        snprintf(what, sizeof what, "fd/%d", dirfd);
    return link_of(tid, what, out, cap);
}

struct map {
    uint64_t from, to, offset;
    char name[256];
};

/* Executable mappings of the process. */
static size_t maps_of(pid_t tid, struct map *maps, size_t cap)
{
    char path[64], line[512], perms[8];
    snprintf(path, sizeof path, "/proc/%d/maps", tid);
    FILE *f = fopen(path, "r");
    size_t n = 0;
    while (f && n < cap && fgets(line, sizeof line, f)) {
        struct map *m = &maps[n];
        unsigned long from, to, offset;
        int at = 0;
        if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %n", &from, &to, perms, &offset, &at) < 4 || perms[2] != 'x')
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(m->name, sizeof m->name, "%s", at && line[at] ? line + at : "?");
        m->from = from;
        m->to = to;
        m->offset = offset;
        n++;
    }
    if (f)
        fclose(f);
    return n;
}

static const struct map *map_at(const struct map *maps, size_t n, uint64_t addr)
{
    for (size_t i = 0; i < n; i++)
        if (addr >= maps[i].from && addr < maps[i].to)
            return &maps[i];
    return NULL;
}

static size_t put_site(char *out, size_t cap, const struct map *m, uint64_t addr)
{
    const char *base = m ? strrchr(m->name, '/') : NULL;
    int n = snprintf(out, cap, "%s+0x%llx", m ? (base ? base + 1 : m->name) : "?", (unsigned long long)(m ? addr - m->from + m->offset : addr));
    return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}

/* --- is it ours? ----------------------------------------------------------------------------------------------------- */

static bool under(const char *path, const char *top, size_t len)
{
    return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* "/d/INO…", "/f/…" or "/w/INO" of a kernel's name below CACHE/VOLUME; NULL: none of a cache. */
static const char *in_cache(const char *name)
{
    if (!under(name, cache, cache_len) || name[cache_len] == '\0')
        return NULL;
    const char *below = strchr(name + cache_len + 1, '/');
    return below && below[1] && strchr("dfw", below[1]) && below[2] == '/' ? below : NULL;
}

/* base/path without doubled slashes, "." and ".."; no symlink is followed. */
static void normalise(const char *base, const char *path, char out[8192])
{
    char all[8192];
    snprintf(all, sizeof all, "%s/%s", path[0] == '/' ? "" : base, path);
    size_t n = 0;
    for (char *at = all; *at;) {
        size_t len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.') {
            while (n && out[--n] != '/')
                ;
        } else if (len && !(len == 1 && at[0] == '.')) {
            out[n++] = '/';
            memcpy(out + n, at, len);
            n += len;
        }
        at += len + (at[len] == '/');
    }
    out[n] = '\0';
}

static bool ours_at(pid_t tid, int dirfd, const char *path, char shown[8192])
{
    char dir[4096] = "";
    if (path[0] != '/') {
        if (!dir_of(tid, dirfd, dir, sizeof dir))
            return false;
        const char *below = in_cache(dir);
        if (below && below[1] == 'd') {
            snprintf(shown, 8192, "%.64s %s", below, path);
            return true;
        }
    }
    normalise(dir, path, shown);
    return under(shown, prefix, prefix_len);
}

static bool ours_fd(pid_t tid, const char *call, int fd, char shown[8192])
{
    char to[4096];
    const char *below = dir_of(tid, fd, to, sizeof to) ? in_cache(to) : NULL;
    if (!below || (below[1] != 'd' && strcmp(call, "fstat") == 0))
        return false;
    snprintf(shown, 8192, "%.256s", below);
    return true;
}

/* --- one stop ---------------------------------------------------------------------------------------------------------- */

static void report(pid_t tid, const struct call *c, const char *path, bool by_fd, const struct __ptrace_syscall_info *info)
{
    static struct map maps[2048];
    size_t n = maps_of(tid, maps, 2048);
    const struct map *at = map_at(maps, n, info->instruction_pointer);
    if (at && strstr(at->name, "/libkfs.so") && (by_fd || strcmp(path, prefix) == 0))
        return;
    char line[10240], exe[4096] = "?";
    link_of(tid, "exe", exe, sizeof exe);
    const char *base = strrchr(exe, '/');
    if (base && strcmp(base, "/kfsd") == 0)
        return;
    size_t len = (size_t)snprintf(line, sizeof line - 1024, "%s %.4096s (%.128s) at ", c->name, path, base ? base + 1 : exe);
    len += put_site(line + len, sizeof line - len, at, info->instruction_pointer);
    uint64_t words[256];
    struct iovec to = {words, sizeof words}, from = {(void *)(uintptr_t)info->stack_pointer, sizeof words};
    ssize_t got = process_vm_readv(tid, &to, 1, &from, 1, 0);
    for (ssize_t i = 0, shown = 0; i < got / 8 && shown < 5 && len < sizeof line - 300; i++) {
        const struct map *m = map_at(maps, n, words[i]);
        if (!m)
            continue;
        line[len++] = ' ';
        len += put_site(line + len, sizeof line - len, m, words[i]);
        shown++;
    }
    line[len++] = '\n';
    if (write(report_fd, line, len) != (ssize_t)len)
        die("write the report");
}

static void inspect(pid_t tid)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) < 0 || info.op != PTRACE_SYSCALL_INFO_SECCOMP)
        return;
    const struct call *c = NULL;
    for (int i = 0; i < NCALLS && !c; i++)
        if (calls[i].nr == (int)info.seccomp.nr)
            c = &calls[i];
    if (!c)
        return;
    char path[4200], shown[8192];
    for (int i = 0; c->args[i]; i++) {
        uint64_t arg = info.seccomp.args[i];
        int dirfd = AT_FDCWD;
        switch (c->args[i]) {
        case 'f':
            if ((int)arg >= 0 && ours_fd(tid, c->name, (int)arg, shown)) /* AT_FDCWD means nothing here */
                report(tid, c, shown, true, &info);
            continue;
        case 'd':
            dirfd = (int)arg;
            arg = info.seccomp.args[i + 1];
            if (arg == 0 || (peek_string(tid, arg, path, sizeof path) && path[0] == '\0')) { /* the descriptor itself */
                bool looks = c->nr == SYS_newfstatat || c->nr == SYS_statx;
                if (ours_fd(tid, looks ? "fstat" : c->name, dirfd, shown))
                    report(tid, c, shown, true, &info);
                continue;
            }
            break;
        case 'p':
            break;
        default:
            continue;
        }
        if (peek_string(tid, arg, path, sizeof path) && path[0] && ours_at(tid, dirfd, path, shown))
            report(tid, c, shown, false, &info);
    }
}

static void trace(pid_t child, int go)
{
    const unsigned long opts = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SEIZE, child, 0, opts) < 0)
        die("seize the program");
    if (write(go, "g", 1) != 1)
        die("let the program go");
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    report_fd = fcntl(report_fd, F_DUPFD, 3);
    dup2(report_fd, 3);
    report_fd = 3;
    syscall(SYS_close_range, 4, ~0U, 0);
    for (;;) {
        int st;
        pid_t tid = waitpid(-1, &st, __WALL);
        if (tid < 0 && errno == EINTR)
            continue;
        if (tid < 0)
            _exit(0);
        if (!WIFSTOPPED(st))
            continue;
        int event = st >> 16, sig = WSTOPSIG(st);
        bool stopping = sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
        if (event == PTRACE_EVENT_SECCOMP)
            inspect(tid);
        if (event == PTRACE_EVENT_STOP && stopping)
            ptrace(PTRACE_LISTEN, tid, 0, 0);
        else
            ptrace(PTRACE_CONT, tid, 0, event ? 0 : sig);
    }
}

/* --- the program --------------------------------------------------------------------------------------------------------- */

static void filter_install(void)
{
    struct sock_filter f[NCALLS + 5];
    size_t n = 0;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 0, NCALLS + 1);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < NCALLS; i++)
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i].nr, (uint8_t)(NCALLS - i), 0);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    struct sock_fprog prog = {(unsigned short)n, f};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0)
        return;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
        die("install the filter");
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: missed REPORT PREFIX CACHE CMD [ARG…]\n");
        return 125;
    }
    prefix = argv[2];
    prefix_len = strlen(prefix);
    cache = argv[3];
    cache_len = strlen(cache);
    int go[2];
    if (pipe(go) < 0)
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        char c;
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        close(go[1]);
        if (read(go[0], &c, 1) != 1)
            _exit(125);
        close(go[0]);
        filter_install();
        execvp(argv[4], argv + 4);
        int e = errno;
        fprintf(stderr, "missed: '%s': %s\n", argv[4], strerror(e));
        _exit(e == ENOENT ? 127 : 126);
    }
    pid_t tracer = fork();
    if (tracer < 0)
        die("fork");
    if (tracer == 0) {
        report_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (report_fd < 0)
            die(argv[1]);
        setsid();
        trace(child, go[1]);
    }
    close(go[0]);
    close(go[1]);
    int st;
    while (waitpid(child, &st, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(st)) {
        signal(WTERMSIG(st), SIG_DFL);
        kill(getpid(), WTERMSIG(st));
    }
    return WEXITSTATUS(st);
}
