/* test_cache_file.c — the cache directory: opening, moves, probes, dead directories, eviction */
#include "blockstore/cache_file.h"
#include "tests/unit/blockstore/store_util.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct den {
    char dir[512], path[700];
    struct kfs_cache *c;
    bool rebooted;
};

static void den_open(struct den *d, uint64_t cap)
{
    memset(d, 0, sizeof *d);
    signal(SIGIO, SIG_IGN);
    tmp_make(d->dir, sizeof d->dir);
    snprintf(d->path, sizeof d->path, "%s/cache", d->dir);
    ASSERT_OK(kfs_cache_open(d->path, VOLUME, cap, &d->c, &d->rebooted, &kerr), kerr);
}

static void den_reopen(struct den *d, uint64_t cap)
{
    kfs_cache_close(d->c);
    d->c = NULL;
    ASSERT_OK(kfs_cache_open(d->path, VOLUME, cap, &d->c, &d->rebooted, &kerr), kerr);
}

static void den_close(struct den *d)
{
    kfs_cache_close(d->c);
    tmp_remove(d->dir);
}

static bool present(struct den *d, const char *name)
{
    char path[900];
    snprintf(path, sizeof path, "%s/%s", d->path, name);
    return access(path, F_OK) == 0;
}

/* A clean file of n bytes. */
static void add_clean(struct den *d, kfs_ino_t ino, uint64_t version, size_t n)
{
    char name[64], *p = calloc(1, n + 1);
    int fd;
    memset(p, 'x', n);
    ASSERT_OK(kfs_cache_fill_begin(d->c, ino, 0, false, name, &fd, &kerr), kerr);
    ASSERT_EQ(write(fd, p, n), (ssize_t)n);
    ASSERT_OK(kfs_cache_fill_end(d->c, name, ino, version, false, &kerr), kerr);
    close(fd);
    free(p);
}

TEST(cache_removed_is_gone)
{
    struct den d;
    char path[900], other[900];
    static const char *const subs[] = {"f", "w", "t", "d"};
    for (size_t i = 0; i < sizeof subs / sizeof *subs; i++) {
        den_open(&d, 0);
        ASSERT(!kfs_cache_gone(d.c));
        snprintf(path, sizeof path, "%s/%s", d.path, subs[i]);
        ASSERT_EQ(rmdir(path), 0);
        ASSERT(kfs_cache_gone(d.c));
        den_close(&d);
    }
    den_open(&d, 0);
    snprintf(other, sizeof other, "%s.moved", d.path);
    ASSERT_EQ(rename(d.path, other), 0);
    ASSERT(kfs_cache_gone(d.c));
    ASSERT_EQ(mkdir(d.path, 0700), 0);
    ASSERT(kfs_cache_gone(d.c));
    ASSERT_EQ(rmdir(d.path), 0);
    ASSERT_EQ(rename(other, d.path), 0);
    ASSERT(!kfs_cache_gone(d.c));
    den_close(&d);
}

TEST(cache_open_makes_and_keeps)
{
    struct den d;
    struct kfs_cache *other = NULL;
    bool rebooted;
    struct stat st;
    den_open(&d, 0);
    ASSERT(!d.rebooted);
    ASSERT(stat(d.path, &st) == 0 && (st.st_mode & 07777) == 0700);
    ASSERT_EQ(kfs_cache_open(d.path, VOLUME, 0, &other, &rebooted, &kerr), -EBUSY);
    add_clean(&d, 0x1234, 5, 100);
    int fd;
    ASSERT_OK(kfs_cache_create_live(d.c, 0xabc, &fd, &kerr), kerr);
    close(fd);
    char path[900];
    snprintf(path, sizeof path, "%s/t/junk", d.path);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    snprintf(path, sizeof path, "%s/d/77", d.path);
    mkdir(path, 0700);
    den_reopen(&d, 0);
    ASSERT(!d.rebooted && !present(&d, "t/junk") && !present(&d, "d/77"));
    ASSERT(present(&d, "f/34/1234-5") && present(&d, "w/abc"));
    ASSERT(kfs_cache_used_bytes(d.c) > 0);
    kfs_cache_close(d.c);
    d.c = NULL;
    ASSERT_EQ(kfs_cache_open(d.path, "another-volume", 0, &d.c, &rebooted, &kerr), -EINVAL);
    ASSERT(strstr(kerr.msg, VOLUME));
    den_close(&d);
}

TEST(cache_open_after_reboot)
{
    struct den d;
    char path[900], cmd[64] = VOLUME "\nan-older-boot\n";
    int fd;
    den_open(&d, 0);
    add_clean(&d, 0x1234, 5, 100);
    ASSERT_OK(kfs_cache_create_live(d.c, 0xabc, &fd, &kerr), kerr);
    close(fd);
    snprintf(path, sizeof path, "%s/id", d.path);
    fd = open(path, O_WRONLY | O_TRUNC);
    ASSERT(write(fd, cmd, strlen(cmd)) > 0);
    close(fd);
    den_reopen(&d, 0);
    ASSERT(d.rebooted && !present(&d, "w/abc") && !present(&d, "f/34/1234-5"));
    ASSERT_EQ(kfs_cache_used_bytes(d.c), 0);
    snprintf(path, sizeof path, "ls %s/lost | grep -q '^abc-'", d.path);
    ASSERT_EQ(system(path), 0);
    den_reopen(&d, 0);
    ASSERT(!d.rebooted);
    den_close(&d);
}

TEST(cache_open_refuses_what_is_not_ours)
{
    struct den d;
    struct kfs_cache *c = NULL;
    bool rebooted;
    char path[900];
    den_open(&d, 0);
    kfs_cache_close(d.c);
    d.c = NULL;
    chmod(d.path, 0755);
    ASSERT_EQ(kfs_cache_open(d.path, VOLUME, 0, &c, &rebooted, &kerr), -EACCES);
    ASSERT(strstr(kerr.msg, "chmod 700"));
    chmod(d.path, 0500);
    ASSERT_EQ(kfs_cache_open(d.path, VOLUME, 0, &c, &rebooted, &kerr), -EACCES);
    chmod(d.path, 0);
    ASSERT_EQ(kfs_cache_open(d.path, VOLUME, 0, &c, &rebooted, &kerr), -EACCES);
    chmod(d.path, 0700);
    snprintf(path, sizeof path, "%s/file", d.dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    ASSERT_EQ(kfs_cache_open(path, VOLUME, 0, &c, &rebooted, &kerr), -ENOTDIR);
    ASSERT_EQ(kfs_cache_open(d.dir, VOLUME, 0, &c, &rebooted, &kerr),
              -EINVAL); /* holds other things */
    ASSERT_EQ(kfs_cache_open("relative", VOLUME, 0, &c, &rebooted, &kerr), -EINVAL);
    if (geteuid() == 0) {
        ASSERT(chown(d.path, 12345, 0) == 0);
        ASSERT_EQ(kfs_cache_open(d.path, VOLUME, 0, &c, &rebooted, &kerr), -EACCES);
        ASSERT(strstr(kerr.msg, "12345"));
        ASSERT(chown(d.path, 0, 0) == 0);
    }
    snprintf(path, sizeof path, "%s/id", d.path);
    ASSERT(truncate(path, 4) == 0);
    ASSERT_EQ(kfs_cache_open(d.path, VOLUME, 0, &c, &rebooted, &kerr), -EINVAL);
    snprintf(path, sizeof path, "%s/new", d.dir);
    mkdir(path, 0777);
    ASSERT_OK(kfs_cache_open(path, VOLUME, 0, &d.c, &rebooted, &kerr), kerr); /* empty: set right */
    den_close(&d);
}

static int sum_inos(void *arg, kfs_ino_t ino)
{
    *(uint64_t *)arg += ino;
    return 0;
}

TEST(cache_moves)
{
    struct den d;
    char name[64];
    int fd, fd2;
    uint64_t sum = 0;
    struct stat a, b;
    den_open(&d, 0);
    ASSERT_EQ(kfs_cache_open_clean(d.c, 0x2ff, 1, O_RDONLY), -ENOENT);
    ASSERT_EQ(kfs_cache_to_live(d.c, 0x2ff, 1), -ENOENT);
    ASSERT_OK(kfs_cache_fill_begin(d.c, 0x2ff, 0, false, name, &fd, &kerr), kerr);
    ASSERT_EQ(write(fd, "abc", 3), 3);
    ASSERT_OK(kfs_cache_fill_end(d.c, name, 0x2ff, 1, false, &kerr), kerr);
    ASSERT(present(&d, "f/ff/2ff-1"));
    fd2 = kfs_cache_open_clean(d.c, 0x2ff, 1, O_RDONLY);
    ASSERT(fd2 >= 0 && fstat(fd, &a) == 0 && fstat(fd2, &b) == 0 && a.st_ino == b.st_ino);
    ASSERT(fcntl(fd2, F_GETFD) & FD_CLOEXEC);
    close(fd2);
    ASSERT_OK(kfs_cache_to_live(d.c, 0x2ff, 1), kerr);
    ASSERT(present(&d, "w/2ff") && !present(&d, "f/ff/2ff-1"));
    ASSERT_EQ(kfs_cache_used_bytes(d.c), 0);
    ASSERT_EQ(kfs_cache_each_live(d.c, sum_inos, &sum, &kerr), 0);
    ASSERT_EQ(sum, 0x2ff);
    ASSERT_EQ(kfs_cache_create_live(d.c, 0x2ff, &fd2, &kerr), -EEXIST);
    ASSERT_OK(kfs_cache_fill_begin(d.c, 0x2ff, 0, false, name, &fd2, &kerr), kerr);
    ASSERT_EQ(kfs_cache_fill_end(d.c, name, 0x2ff, 9, true, &kerr),
              -EEXIST); /* live data is never overwritten */
    kfs_cache_fill_abort(d.c, name);
    close(fd2);
    ASSERT_OK(kfs_cache_to_clean(d.c, 0x2ff, 2), kerr);
    add_clean(&d, 0x2ff, 3, 10); /* a newer version: the older one goes */
    ASSERT(present(&d, "f/ff/2ff-3") && !present(&d, "f/ff/2ff-2"));
    ASSERT_EQ(pread(fd, name, 3, 0), 3); /* whoever holds it keeps it */
    close(fd);
    ASSERT_OK(kfs_cache_drop_clean(d.c, 0x2ff, 3), kerr);
    ASSERT_EQ(kfs_cache_used_bytes(d.c), 0);
    ASSERT_OK(kfs_cache_drop_live(d.c, 0x99), kerr);
    fd = -1;
    ASSERT_OK(kfs_cache_create_live(d.c, 1, &fd, &kerr), kerr);
    ASSERT_OK(kfs_cache_set_exec(fd, 0100755), kerr);
    ASSERT(fstat(fd, &a) == 0 && (a.st_mode & 07777) == 0711);
    ASSERT_OK(kfs_cache_set_exec(fd, 0100644), kerr);
    ASSERT(fstat(fd, &a) == 0 && (a.st_mode & 07777) == 0600);
    close(fd);
    ASSERT_OK(kfs_cache_drop_live(d.c, 1), kerr);
    ASSERT(!present(&d, "w/1"));
    den_close(&d);
}

/* An index that was not completed, as a crash leaves it. */
static void make_unclean(struct den *d)
{
    char path[900];
    uint64_t zero = 0;
    snprintf(path, sizeof path, "%s/index", d->path);
    int fd = open(path, O_WRONLY);
    ASSERT(fd >= 0 && pwrite(fd, &zero, 8, 56) == 8); /* the checksum of its header */
    close(fd);
}

TEST(cache_scan_keeps_the_newest_version)
{
    struct den d;
    char from[900], to[900];
    den_open(&d, 0);
    add_clean(&d, 0x51, 0x12, 10);
    snprintf(from, sizeof from, "%s/f/51/51-12", d.path);
    snprintf(to, sizeof to, "%s/f/51/51-13", d.path);
    ASSERT(link(from, to) == 0);
    snprintf(to, sizeof to, "%s/f/51/not-ours", d.path);
    ASSERT(link(from, to) == 0);
    kfs_cache_close(d.c);
    make_unclean(&d);
    ASSERT_OK(kfs_cache_open(d.path, VOLUME, 0, &d.c, &d.rebooted, &kerr), kerr);
    ASSERT(present(&d, "f/51/51-12")); /* nobody waits for the scan */
    kfs_cache_keep(d.c);
    ASSERT(present(&d, "f/51/51-13") && !present(&d, "f/51/51-12") && present(&d, "f/51/not-ours"));
    den_close(&d);
}

/* A child that opens (and maybe maps) the file and holds it until the pipe closes. */
struct holder {
    pid_t pid;
    int go, ready;
};

static void hold(struct holder *h, struct kfs_cache *c, kfs_ino_t ino, int flags, bool only_map)
{
    int go[2], ready[2];
    ASSERT(pipe(go) == 0 && pipe(ready) == 0);
    h->pid = fork();
    ASSERT(h->pid >= 0);
    if (h->pid == 0) {
        close(go[1]);
        int fd = kfs_cache_open_live(c, ino, flags);
        char b = 0;
        if (only_map) {
            int prot = (flags & O_ACCMODE) == O_RDWR ? PROT_READ | PROT_WRITE : PROT_READ;
            if (mmap(NULL, 4096, prot, MAP_SHARED, fd, 0) == MAP_FAILED)
                _exit(1);
            close(fd);
        }
        (void)!write(ready[1], "r", 1);
        (void)!read(go[0], &b, 1);
        _exit(fd < 0);
    }
    char b;
    close(go[0]);
    close(ready[1]);
    ASSERT_EQ(read(ready[0], &b, 1), 1);
    h->go = go[1];
    h->ready = ready[0];
}

static void let_go(struct holder *h)
{
    int status;
    close(h->go);
    close(h->ready);
    ASSERT_EQ(waitpid(h->pid, &status, 0), h->pid);
    ASSERT_EQ(status, 0);
}

TEST(cache_probes_by_lease)
{
    struct den d;
    struct holder h;
    int fd;
    den_open(&d, 0);
    ASSERT_OK(kfs_cache_create_live(d.c, 7, &fd, &kerr), kerr);
    ASSERT(ftruncate(fd, 4096) == 0);
    int ro = kfs_cache_open_live(d.c, 7, O_RDONLY);
    ASSERT_EQ(kfs_cache_has_writer(ro), 1); /* fd */
    close(fd);
    ASSERT_EQ(kfs_cache_has_writer(ro), 0);
    ASSERT_EQ(kfs_cache_has_user(ro), 0);
    /* The child inherits descriptions that this process holds; `ro` shared with a child is still
     * one description. */
    hold(&h, d.c, 7, O_RDONLY, false);
    ASSERT_EQ(kfs_cache_has_writer(ro), 0);
    ASSERT_EQ(kfs_cache_has_user(ro), 1);
    let_go(&h);
    hold(&h, d.c, 7, O_RDWR, false);
    ASSERT_EQ(kfs_cache_has_writer(ro), 1);
    let_go(&h);
    hold(&h, d.c, 7, O_RDWR, true);
    ASSERT_EQ(kfs_cache_has_writer(ro), 1);
    ASSERT_EQ(kfs_cache_has_user(ro), 1);
    let_go(&h);
    hold(&h, d.c, 7, O_RDONLY, true);
    ASSERT_EQ(kfs_cache_has_writer(ro), 0);
    ASSERT_EQ(kfs_cache_has_user(ro), 1);
    let_go(&h);
    hold(&h, d.c, 7, O_RDWR, false);
    kill(h.pid, SIGKILL); /* a killed writer is no writer */
    waitpid(h.pid, NULL, 0);
    close(h.go);
    close(h.ready);
    ASSERT_EQ(kfs_cache_has_writer(ro), 0);
    ASSERT_EQ(kfs_cache_has_user(ro), 0);
    close(ro);
    ASSERT_EQ(kfs_cache_has_writer(ro), -EBADF);
    den_close(&d);
}

static void probe_on_overlay(void *arg)
{
    char m[700], options[2400];
    if (!small_fs(arg, "size=4m"))
        _exit(77);
    for (const char *const *n = (const char *const[]){"l", "u", "w", "m", NULL}; *n; n++) {
        snprintf(m, sizeof m, "%s/%s", (char *)arg, *n);
        mkdir(m, 0755);
    }
    snprintf(options, sizeof options, "lowerdir=%s/l,upperdir=%s/u,workdir=%s/w", (char *)arg,
             (char *)arg, (char *)arg);
    if (mount("overlay", m, "overlay", 0, options) < 0)
        _exit(77);
    setenv("TMPDIR", m, 1);
    fflush(stdout);
    dup2(STDERR_FILENO, STDOUT_FILENO); /* our own last line shall be the last one on stdout */
    execl("/proc/self/exe", "test_cache_file", "cache_probes_by_lease", NULL);
}

/* Containers: the cache directory may well lie on an overlay. */
TEST(cache_probes_on_an_overlay)
{
    char dir[512];
    tmp_make(dir, sizeof dir);
    int rc = in_child(probe_on_overlay, dir);
    tmp_remove(dir);
    if (rc == 77)
        SKIP("needs the right to mount an overlay");
    ASSERT_EQ(rc, 0);
}

/* In a process that may not take leases, because the file is another user's. Exit code: how far it
 * came. */
static void probe_without_leases(struct kfs_cache *c)
{
    int ro = kfs_cache_open_live(c, 8, O_RDONLY), ro2 = kfs_cache_open_live(c, 8, O_RDONLY);
    int rw = kfs_cache_open_live(c, 8, O_RDWR);
    if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
        _exit(1);
    prctl(PR_SET_DUMPABLE, 1); /* /proc/self stays readable after the change of uid */
    if (fcntl(ro, F_SETLEASE, F_RDLCK) == 0 || errno != EACCES)
        _exit(2);
    if (kfs_cache_has_writer(ro) != 1)
        _exit(3);
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0);
    close(rw);
    if (p == MAP_FAILED || kfs_cache_has_writer(ro) != 1)
        _exit(4);
    munmap(p, 4096);
    if (kfs_cache_has_writer(ro) != 0 || kfs_cache_has_user(ro) != 1)
        _exit(5);
    close(ro2);
    _exit(kfs_cache_has_user(ro) == 0 ? 0 : 6);
}

TEST(cache_probes_without_leases)
{
    struct den d;
    int fd, status;
    if (geteuid() != 0)
        SKIP("needs root, to become somebody else");
    den_open(&d, 0);
    ASSERT_OK(kfs_cache_create_live(d.c, 8, &fd, &kerr), kerr);
    ASSERT(ftruncate(fd, 4096) == 0);
    close(fd);
    pid_t pid = fork();
    if (pid == 0)
        probe_without_leases(d.c);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(WEXITSTATUS(status), 0);
    den_close(&d);
}

TEST(cache_watch_reports_closing_writers)
{
    struct den d;
    struct kfs_cache_events ev = {.len = 0};
    kfs_ino_t ino = 0;
    int fd;
    den_open(&d, 0);
    int w = kfs_cache_watch(d.c, &kerr);
    ASSERT_OK(w, kerr);
    ASSERT_EQ(kfs_cache_watch_next(w, &ev, &ino), 0);
    ASSERT_OK(kfs_cache_create_live(d.c, 0xbeef, &fd, &kerr), kerr);
    int ro = kfs_cache_open_live(d.c, 0xbeef, O_RDONLY);
    close(ro);
    ASSERT_EQ(kfs_cache_watch_next(w, &ev, &ino), 0);
    close(fd);
    ASSERT_EQ(kfs_cache_watch_next(w, &ev, &ino), 1);
    ASSERT_EQ(ino, 0xbeef);
    ASSERT_EQ(kfs_cache_watch_next(w, &ev, &ino), 0);
    add_clean(&d, 0x100, 1, 10);
    ASSERT_OK(kfs_cache_to_live(d.c, 0x100, 1), kerr);
    fd = kfs_cache_open_live(d.c, 0x100, O_RDWR);
    pid_t pid = fork(); /* a killed process is reported too */
    if (pid == 0)
        for (;;)
            pause();
    close(fd);
    ASSERT_EQ(kfs_cache_watch_next(w, &ev, &ino), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ASSERT_EQ(kfs_cache_watch_next(w, &ev, &ino), 1);
    ASSERT_EQ(ino, 0x100);
    close(w);
    den_close(&d);
}

TEST(cache_dead_directories)
{
    struct den d;
    struct stat a, b;
    char link[64], to[900], want[900];
    den_open(&d, 0);
    int fd = kfs_cache_dead_dir(d.c, 0x42, &kerr), fd2 = kfs_cache_dead_dir(d.c, 0x42, &kerr);
    ASSERT_OK(fd, kerr);
    ASSERT_OK(fd2, kerr);
    ASSERT(fstat(fd, &a) == 0 && fstat(fd2, &b) == 0 && a.st_ino == b.st_ino && S_ISDIR(a.st_mode));
    int fds[] = {fd, fd2};
    for (int i = 0; i < 2; i++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fds[i]);
        ssize_t n = readlink(link, to, sizeof to - 1);
        ASSERT(n > 0);
        to[n] = 0;
        snprintf(want, sizeof want, "%s/d/42 (deleted)", kfs_cache_dir(d.c));
        ASSERT_STR(to, want);
        ASSERT(openat(fds[i], "x", O_CREAT | O_RDWR, 0600) < 0 && errno == ENOENT);
        ASSERT(mkdirat(fds[i], "x", 0700) < 0 && errno == ENOENT);
        ASSERT(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    }
    ASSERT(!present(&d, "d/42"));
    close(fd);
    close(fd2);
    for (kfs_ino_t ino = 1; ino < 600; ino++) { /* more than are kept */
        fd = kfs_cache_dead_dir(d.c, ino, &kerr);
        ASSERT_OK(fd, kerr);
        close(fd);
    }
    den_close(&d);
}

struct evicted {
    int n;
    kfs_ino_t last;
};

static void note_evict(void *arg, kfs_ino_t ino, uint64_t version)
{
    struct evicted *e = arg;
    (void)version;
    e->n++;
    e->last = ino;
}

TEST(cache_eviction)
{
    struct den d;
    struct evicted e = {0};
    int fd;
    den_open(&d, 0);
    kfs_cache_on_evict(d.c, note_evict, &e);
    for (kfs_ino_t ino = 1; ino <= 10; ino++)
        add_clean(&d, ino, 1, 100000);
    uint64_t used = kfs_cache_used_bytes(d.c);
    ASSERT(used >= 1000000);
    ASSERT_OK(kfs_cache_create_live(d.c, 50, &fd, &kerr), kerr);
    close(fd);
    kfs_cache_touch(d.c, 1);
    close(kfs_cache_open_clean(d.c, 2, 1, O_RDONLY)); /* by whom it was brought for */
    close(kfs_cache_open_clean(d.c, 2, 1, O_RDONLY)); /* again */
    ASSERT(kfs_cache_evict(d.c, used / 2) > 0);
    ASSERT_EQ(e.n, 5);
    ASSERT(present(&d, "f/01/1-1") && present(&d, "f/02/2-1") && !present(&d, "f/03/3-1") &&
           !present(&d, "f/07/7-1") && present(&d, "f/0a/a-1"));
    ASSERT(kfs_cache_evict(d.c, 0) > 0);
    ASSERT_EQ(kfs_cache_used_bytes(d.c), 0);
    ASSERT_EQ(e.n, 10);
    ASSERT(present(&d, "w/32")); /* never live files */
    ASSERT_EQ(kfs_cache_evict(d.c, 0), 0);
    den_reopen(&d, 500000);
    kfs_cache_on_evict(d.c, note_evict, &e);
    for (kfs_ino_t ino = 1; ino <= 3000; ino++) {
        add_clean(&d, ino, 1, ino % 500 == 0 ? 900000 : 4000);
        ASSERT(kfs_cache_used_bytes(d.c) <= 500000 || ino % 500 == 0);
        fd = kfs_cache_open_clean(d.c, ino, 1,
                                  O_RDONLY); /* the newest is always there, however large */
        ASSERT(fd >= 0);
        close(fd);
    }
    den_close(&d);
}

struct partials {
    struct kfs_cache *c;
    unsigned count;
    uint64_t sum;
};

static int count_partial(void *arg, kfs_ino_t ino, uint64_t version)
{
    struct partials *p = arg;
    p->count++;
    p->sum += ino * 1000 + version;
    return 0;
}

static unsigned partial_count(struct den *d)
{
    struct partials p = {.c = d->c};
    ASSERT_OK(kfs_cache_partial_each(d->c, count_partial, &p), kerr);
    return p.count;
}

TEST(cache_partial_becomes_whole)
{
    struct den d;
    int fd, fd2;
    struct stat a, b;
    char text[4] = "";
    den_open(&d, 100000);
    for (kfs_ino_t ino = 1; ino <= 10; ino++)
        add_clean(&d, ino, 1, 8000);
    ASSERT_OK(kfs_cache_partial_create(d.c, 0x99, 7, 60000, &fd, &kerr), kerr);
    ASSERT(present(&d, "p/99-7"));
    /* Room is made for what it will be. */
    ASSERT(kfs_cache_used_bytes(d.c) <= 40000 && !present(&d, "f/01/1-1") && present(&d, "f/0a/a-1"));
    ASSERT_EQ(kfs_cache_partial_create(d.c, 0x99, 7, 1, &fd2, &kerr), -EEXIST);
    ASSERT_EQ(kfs_cache_partial_open(d.c, 0x99, 8, O_RDONLY), -ENOENT);
    ASSERT_EQ(kfs_cache_open_clean(d.c, 0x99, 7, O_RDONLY), -ENOENT);
    fd2 = kfs_cache_partial_open(d.c, 0x99, 7, O_RDONLY);
    ASSERT(fd2 >= 0);
    ASSERT_EQ(pwrite(fd, "abc", 3, 0), 3);
    ASSERT_EQ(partial_count(&d), 1);
    ASSERT(kfs_cache_evict(d.c, 0) > 0 && present(&d, "p/99-7"));
    ASSERT_OK(kfs_cache_partial_finish(d.c, 0x99, 7, false, &kerr), kerr);
    ASSERT(!present(&d, "p/99-7") && present(&d, "f/99/99-7"));
    ASSERT_EQ(pread(fd2, text, 3, 0), 3);
    ASSERT_STR(text, "abc");
    ASSERT(fstat(fd2, &a) == 0);
    close(fd);
    close(fd2);
    fd = kfs_cache_open_clean(d.c, 0x99, 7, O_RDONLY);
    ASSERT(fd >= 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino);
    close(fd);
    ASSERT(kfs_cache_used_bytes(d.c) > 0);

    /* To w/, where a live file is never replaced. */
    ASSERT_OK(kfs_cache_create_live(d.c, 0x42, &fd, &kerr), kerr);
    close(fd);
    ASSERT_OK(kfs_cache_partial_create(d.c, 0x42, 1, 10, &fd, &kerr), kerr);
    close(fd);
    ASSERT_EQ(kfs_cache_partial_finish(d.c, 0x42, 1, true, &kerr), -EEXIST);
    ASSERT(present(&d, "p/42-1"));
    ASSERT_EQ(kfs_cache_drop_live(d.c, 0x42), 0);
    ASSERT_OK(kfs_cache_partial_finish(d.c, 0x42, 1, true, &kerr), kerr);
    ASSERT(present(&d, "w/42"));
    ASSERT_EQ(kfs_cache_partial_finish(d.c, 0x42, 1, true, &kerr), -ENOENT);
    /* What is over does not count any more: the whole cap is there for others. */
    kfs_cache_evict(d.c, 0);
    for (kfs_ino_t ino = 1; ino <= 10; ino++)
        add_clean(&d, ino, 1, 8000);
    ASSERT(present(&d, "f/01/1-1"));
    den_close(&d);
}

TEST(cache_partial_of_an_earlier_session)
{
    struct den d;
    int fd;
    den_open(&d, 0);
    for (kfs_ino_t ino = 1; ino <= 3; ino++) {
        ASSERT_OK(kfs_cache_partial_create(d.c, ino, 0, 100, &fd, &kerr), kerr);
        ASSERT_EQ(write(fd, "old", 3), 3);
        close(fd);
    }
    kfs_cache_partial_drop(d.c, 3, 0);
    ASSERT_EQ(partial_count(&d), 2);
    den_reopen(&d, 0);
    ASSERT_EQ(partial_count(&d), 2);
    ASSERT_EQ(kfs_cache_partial_adopt(d.c, 3, 0, 100, &fd, &kerr), -ENOENT);
    ASSERT_OK(kfs_cache_partial_adopt(d.c, 1, 0, 100, &fd, &kerr), kerr);
    char text[4] = "";
    ASSERT_EQ(pread(fd, text, 3, 0), 3);
    ASSERT_STR(text, "old");
    close(fd);
    ASSERT_EQ(kfs_cache_partial_adopt(d.c, 1, 0, 100, &fd, &kerr), -EEXIST);
    ASSERT_OK(kfs_cache_partial_clear(d.c), kerr);
    ASSERT(present(&d, "p/1-0") && !present(&d, "p/2-0"));
    /* One that nobody adopted is begun anew. */
    den_reopen(&d, 0);
    ASSERT_OK(kfs_cache_partial_create(d.c, 1, 0, 100, &fd, &kerr), kerr);
    ASSERT_EQ(lseek(fd, 0, SEEK_END), 0);
    close(fd);
    den_close(&d);
}

static void full_cache(void *arg)
{
    const char *dir = arg;
    char path[700], name[64];
    struct kfs_cache *c = NULL;
    bool rebooted;
    int fd, held = -1;
    if (!small_fs(dir, "size=4m,nr_inodes=300"))
        _exit(77);
    snprintf(path, sizeof path, "%s/cache", dir);
    CHILD_CHECK(1, kfs_cache_open(path, VOLUME, 0, &c, &rebooted, &kerr) == 0);
    CHILD_CHECK(2, kfs_cache_on_tmpfs(c));
    for (kfs_ino_t ino = 1; ino <= 1000; ino++) { /* more files than fit: the oldest give way */
        CHILD_CHECK(3, kfs_cache_fill_begin(c, ino << 8, 0, false, name, &fd, &kerr) == 0);
        CHILD_CHECK(4, kfs_cache_fill_end(c, name, ino << 8, 1, false, &kerr) == 0);
        if (ino == 1)
            held = fd;
        else
            close(fd);
    }
    CHILD_CHECK(5, held >= 0 && pwrite(held, "still mine", 10, 0) == 10);
    for (kfs_ino_t ino = 1; ino <= 1000; ino++) { /* live files do not */
        int rc = kfs_cache_create_live(c, ino, &fd, &kerr);
        if (rc == -ENOSPC) {
            CHILD_CHECK(6, strstr(kerr.msg, "make room") && ino > 200);
            CHILD_CHECK(7, kfs_cache_open_live(c, 1, O_RDONLY) >= 0);
            return;
        }
        CHILD_CHECK(8, rc == 0);
        close(fd);
    }
    _exit(9);
}

TEST(cache_full)
{
    char dir[512];
    tmp_make(dir, sizeof dir);
    int rc = in_child(full_cache, dir);
    tmp_remove(dir);
    if (rc == 77)
        SKIP("needs the right to mount");
    ASSERT_EQ(rc, 0);
}

KT_MAIN
