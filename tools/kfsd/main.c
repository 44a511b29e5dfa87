#include "tools/kfsd/arrive.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/pure/mounts.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SHM_RING_PER_NAME 256u /* bytes for listings, which take what their names need; untouched memory costs nothing */
#define PRIVATE_LOG_BYTES (1 << 20) /* then a private kfsd begins its log anew */

struct kfsd kfsd = {.opt = {.linger_s = -1, .ready_fd = -1}, .epfd = -1};

static const char usage_text[] =
    "usage: kfsd [OPTION]... VOLUME_URL...\n"
    "\n"
    "Serves KFS volumes to the programs of this node. kfs-run starts a private one by itself; start one by hand to serve\n"
    "several users, or to keep a volume open between runs.\n"
    "\n"
    "VOLUME_URL is sqlite:PATH (a database on a local disk), mysql://USER@HOST:PORT/DATABASE (MariaDB, MySQL; its password from ?password_file=FILE or\n"
    "$KFS_MYSQL_PASSWORD), or the name of a volume in the configuration file.\n"
    "\n"
    "  --create           make the volume if its database does not exist (objects go to PATH.objects)\n"
    "  --private          serve this user alone; end some seconds after the last client\n"
    "  --linger SECONDS   how long a private kfsd outlives its last client (configuration: linger_s)\n"
    "  --commit MODE      close: close(2) returns when the content is committed (default); session: soon after\n"
    "  --cache-dir DIR    where the content of files in use lies; one volume only (configuration: cache_dir)\n"
    "  --run-dir DIR      where the socket is made (default: /run/kfs, or for a private one $XDG_RUNTIME_DIR/kfs, /run/user/UID/kfs or /tmp/kfs-UID)\n"
    "  --socket PATH      the socket itself; with several volumes they share it\n"
    "  --key-file FILE    passphrase or RSA key (PEM) of encrypted volumes (configuration: key_file; or $KFS_KEY_FILE, or the passphrase in $KFS_PASSPHRASE)\n"
    "  --config FILE      read this configuration instead of the default ones\n"
    "  --log FILE         append log lines to FILE instead of standard error (a private one without a terminal: beside its socket)\n"
    "  --foreground       stay in the terminal's session: SIGHUP ends it too (kfsd never forks; systemd needs nothing special)\n"
    "  --ready-fd N       write one line to descriptor N when ready: ok SOCKET CACHE_DIR, error: WHY or busy: WHO\n"
    "  --help             this text\n"
    "\n"
    "SIGTERM and SIGINT end it after everything written is committed. Killed in any other way, the next kfsd finds what was\n"
    "not yet committed in the cache directory and commits it.\n"
    "\n"
    "examples:\n"
    "  kfsd --create sqlite:/srv/kfs/main.db\n"
    "  kfsd --foreground --socket /run/kfs.sock main\n"
    "\n"
    "exit codes: 0 ended regularly, 1 failure, 2 wrong usage\n";

/* ---- telling the starter ------------------------------------------------------------------------------------------------ */

static void ready_say(const char *text)
{
    if (kfsd.opt.ready_fd < 0)
        return;
    char line[KFS_PATH_MAX * 2 + 16];
    int n = snprintf(line, sizeof line, "%s", text);
    for (int i = 0; i < n; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n] = '\n';
    (void)!write(kfsd.opt.ready_fd, line, (size_t)n + 1);
    close(kfsd.opt.ready_fd);
    kfsd.opt.ready_fd = -1;
}

static int fail(int exit_code, int rc, const struct kfs_err *err)
{
    char line[512];
    const char *msg = err->code ? err->msg : strerror(-rc);
    snprintf(line, sizeof line, "%s: %s", rc == -EBUSY ? "busy" : "error", strncmp(msg, "busy: ", 6) == 0 ? msg + 6 : msg);
    ready_say(line);
    if (kfsd.opt.log)
        kfs_log(KFS_LOG_ERROR, "%s", line);
    fprintf(stderr, "kfsd: %s\n", line);
    return exit_code;
}

/* ---- arguments ----------------------------------------------------------------------------------------------------------- */

static int usage_error(const char *what, const char *about)
{
    struct kfs_err err = {0};
    KFS_FAIL(&err, EINVAL, "%s%s%s%s; try 'kfsd --help'", what, about ? " '" : "", about ? about : "", about ? "'" : "");
    return fail(2, -EINVAL, &err);
}

static bool parse_seconds(const char *text, double *ret)
{
    char *end;
    double s = strtod(text, &end);
    if (end == text || *end || !(s >= 0) || s > 1e9)
        return false;
    *ret = s;
    return true;
}

/* -1: go on; otherwise the exit code. */
static int parse_args(int argc, char **argv)
{
    enum { CONFIG = 256, FOREGROUND, PRIVATE, CREATE, CACHE_DIR, RUN_DIR, SOCKET, LINGER, COMMIT, READY_FD, LOG, KEY_FILE, HELP };
    static const struct option longs[] = {
        {"config", 1, NULL, CONFIG},       {"foreground", 0, NULL, FOREGROUND}, {"private", 0, NULL, PRIVATE}, {"create", 0, NULL, CREATE},
        {"cache-dir", 1, NULL, CACHE_DIR}, {"run-dir", 1, NULL, RUN_DIR},       {"socket", 1, NULL, SOCKET},   {"linger", 1, NULL, LINGER},
        {"commit", 1, NULL, COMMIT},       {"ready-fd", 1, NULL, READY_FD},     {"log", 1, NULL, LOG},         {"help", 0, NULL, HELP},
        {"key-file", 1, NULL, KEY_FILE},
        {NULL, 0, NULL, 0},
    };
    struct kfsd_options *o = &kfsd.opt;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        char *end;
        switch (c) {
        case CONFIG: o->config = optarg; break;
        case FOREGROUND: o->foreground = true; break;
        case PRIVATE: o->private_ = true; break;
        case CREATE: o->create = true; break;
        case CACHE_DIR: o->cache_dir = optarg; break;
        case RUN_DIR: o->run_dir = optarg; break;
        case SOCKET: o->socket = optarg; break;
        case LOG: o->log = optarg; break;
        case KEY_FILE: o->key_file = optarg; break;
        case LINGER:
            if (!parse_seconds(optarg, &o->linger_s))
                return usage_error("--linger needs a number of seconds, not", optarg);
            break;
        case COMMIT:
            if (strcmp(optarg, "close") != 0 && strcmp(optarg, "session") != 0)
                return usage_error("--commit is 'close' or 'session', not", optarg);
            o->commit = optarg;
            break;
        case READY_FD:
            o->ready_fd = (int)strtol(optarg, &end, 10);
            if (end == optarg || *end || o->ready_fd < 0 || fcntl(o->ready_fd, F_GETFD) < 0) {
                o->ready_fd = -1;
                return usage_error("--ready-fd needs an open descriptor, not", optarg);
            }
            break;
        case 'h':
        case HELP:
            fputs(usage_text, stdout);
            return fflush(stdout) == 0 ? 0 : 1;
        default:
            return usage_error("unknown option or missing argument:", argv[optind - 1]);
        }
    }
    if (optind == argc)
        return usage_error("no volume given: name one as sqlite:PATH", NULL);
    const char *const paths[] = {o->cache_dir, o->run_dir, o->socket, o->log};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (paths[i] && paths[i][0] != '/')
            return usage_error("not an absolute path:", paths[i]);
    if (o->cache_dir && argc - optind > 1)
        return usage_error("--cache-dir serves one volume; set cache_dir in the configuration file for several", NULL);
    return -1;
}

/* ---- becoming a daemon ---------------------------------------------------------------------------------------------------- */

static void close_inherited(void)
{
    int keep = kfsd.opt.ready_fd;
    if (keep < 3) {
        (void)syscall(SYS_close_range, 3u, ~0u, 0u);
        return;
    }
    (void)fcntl(keep, F_SETFD, FD_CLOEXEC);
    if (keep > 3)
        (void)syscall(SYS_close_range, 3u, (unsigned)keep - 1, 0u);
    if (syscall(SYS_close_range, (unsigned)keep + 1, ~0u, 0u) < 0)
        for (int fd = 3; fd < 4096; fd++)
            if (fd != keep)
                (void)close(fd);
}

static void clean_process(void)
{
    /* The standard descriptors exist, so that no file of ours ever gets their numbers. */
    for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2;)
        ;
    close_inherited();
    sigset_t none;
    sigemptyset(&none);
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGIO, SIG_IGN); /* broken leases */
    (void)signal(SIGHUP, kfsd.opt.foreground ? SIG_DFL : SIG_IGN); /* with --foreground it is waited for, see main */
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of one commit */
    (void)unsetenv("LD_PRELOAD");
    (void)unsetenv(KFS_ENV_AT);
    umask(077);
    (void)prctl(PR_SET_DUMPABLE, 0);
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
    }
}

/* ---- where sockets go -------------------------------------------------------------------------------------------------------- */

/* A directory that only we can write, made if needed: nobody may put a socket of his own in our place. A node's daemon lets others look for its socket. */
static int run_dir_try(const char *dir, bool strict)
{
    mode_t others = kfsd.opt.private_ ? 0 : 055;
    if (mkdir(dir, 0700) == 0) {
        if (others && chmod(dir, 0700 | others) < 0)
            return -errno;
    } else if (errno != EEXIST) {
        return -errno;
    }
    struct stat st;
    if (lstat(dir, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    if (strict && (st.st_uid != geteuid() || (st.st_mode & 077 & ~others)))
        return -EPERM;
    return access(dir, W_OK | X_OK) < 0 ? -errno : 0;
}

static int run_dir_choose(const struct kfsd_vol *v, char *buf, size_t cap, struct kfs_err *err)
{
    const char *given = kfsd.opt.run_dir ? kfsd.opt.run_dir : kfs_conf_text(&kfsd.conf, KFS_CONF_RUN_DIR);
    if (*given) {
        int r = run_dir_try(given, false);
        if (r < 0)
            return KFS_FAIL(err, -r, "cannot use run directory '%s': %s; give another with --run-dir", given, strerror(-r));
        snprintf(buf, cap, "%s", given);
        return 0;
    }
    const char *xdg = getenv("XDG_RUNTIME_DIR"), *tmp = getenv("TMPDIR");
    char dir[KFS_PATH_MAX];
    for (int i = 0; i < 5; i++) {
        dir[0] = 0;
        if (i == 0 && !kfsd.opt.private_)
            snprintf(dir, sizeof dir, "/run/kfs");
        else if (i == 1 && xdg && xdg[0] == '/')
            snprintf(dir, sizeof dir, "%s/kfs", xdg);
        else if (i == 2)
            snprintf(dir, sizeof dir, "/run/user/%u/kfs", geteuid());
        else if (i == 3)
            snprintf(dir, sizeof dir, "/tmp/kfs-%u", geteuid());
        else if (i == 4 && tmp && tmp[0] == '/')
            snprintf(dir, sizeof dir, "%s/kfs-%u", tmp, geteuid());
        if (dir[0] && strlen(dir) + 24 <= KFS_SOCKET_PATH_MAX && run_dir_try(dir, true) == 0) {
            snprintf(buf, cap, "%s", dir);
            return 0;
        }
    }
    if (!kfs_volume_is_embedded(v->v->path))
        return KFS_FAIL(err, EACCES, "no directory for the socket of '%s'; give one with --run-dir", v->v->url);
    snprintf(buf, cap, "%s", v->v->path);
    *strrchr(buf, '/') = 0;
    return 0;
}

static int socket_of(struct kfsd_vol *v, struct kfs_err *err)
{
    const char *conf = kfs_conf_text(&kfsd.conf, KFS_CONF_SOCKET);
    if (kfsd.opt.socket || (!kfsd.opt.private_ && *conf)) {
        snprintf(v->socket, sizeof v->socket, "%s", kfsd.opt.socket ? kfsd.opt.socket : conf);
    } else {
        char dir[KFS_PATH_MAX];
        int r = run_dir_choose(v, dir, sizeof dir, err);
        if (r < 0)
            return r;
        snprintf(v->socket, sizeof v->socket, "%.3000s/%016llx.sock", dir,
                 (unsigned long long)kfs_hash(v->v->path, strlen(v->v->path), 0));
    }
    if (strlen(v->socket) > KFS_SOCKET_PATH_MAX)
        return KFS_FAIL(err, ENAMETOOLONG, "socket path '%.200s' is longer than %d bytes; choose a shorter directory with --run-dir", v->socket,
                        KFS_SOCKET_PATH_MAX);
    return 0;
}

/* What kfs-run starts has no terminal: it logs (and, should it crash, says where) beside its socket. */
static void log_beside_socket(const struct kfsd_vol *v)
{
    struct stat st;
    if (fstat(STDERR_FILENO, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        return; /* not /dev/null: somebody reads it */
    size_t len = strlen(v->socket);
    if (len > 5 && strcmp(v->socket + len - 5, ".sock") == 0)
        len -= 5;
    char path[KFS_PATH_MAX];
    snprintf(path, sizeof path, "%.*s.log", (int)len, v->socket);
    kfs_auto_fd int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    if (st.st_size > PRIVATE_LOG_BYTES)
        (void)!ftruncate(fd, 0);
    (void)dup2(fd, STDERR_FILENO);
}

/* ---- volumes ------------------------------------------------------------------------------------------------------------------ */

static const char *url_of(const char *arg, struct kfs_err *err)
{
    if (strchr(arg, ':'))
        return arg;
    const char *url = kfs_conf_volume_url(&kfsd.conf, arg);
    if (!url)
        KFS_FAIL(err, EINVAL, "no volume '%s' in the configuration file; use 'sqlite:PATH', or add a section [volume %s]", arg, arg);
    return url;
}

static int format_if_missing(const char *url, struct kfs_err *err)
{
    char path[KFS_VOLUME_URL_MAX];
    int r = kfs_volume_url_path(url, path, sizeof path, err);
    struct stat st;
    if (r < 0 || !kfs_volume_is_embedded(path) || (stat(path, &st) == 0 && st.st_size > 0))
        return r; /* on a server a volume is made by 'kfs format', which is told where its objects go */
    struct kfs_meta_volume made;
    r = kfs_volume_format(url, NULL, NULL, &made, err);
    if (r == -EEXIST) {
        *err = (struct kfs_err){0};
        return 0;
    }
    if (r == 0)
        kfs_log(KFS_LOG_INFO, "volume '%s' created, objects in '%s'", url, made.store);
    return r;
}

static int cache_attach(struct kfsd_vol *v, struct kfs_err *err)
{
    v->cache = v->v->cache;
    v->cache_fd = kfs_cache_dir_fd(v->cache);
    kfs_cache_on_evict(v->cache, kfsd_on_evict, v);
    return kfs_cache_start(v->cache, err);
}

/* Commit what the last session left; then move to the directory that was asked for, if that is another one. */
static int recover(struct kfsd_vol *v, struct kfs_err *err)
{
    int r = kfsd_recover(v, err);
    if (r < 0 || !v->v->cache_wanted[0])
        return r;
    if (kfsd_uncommitted(v)) {
        kfs_log(KFS_LOG_WARN, "'%s': cache directory stays '%s', because files in it are still open; '%s' is used from the next start on",
                v->v->url, kfs_cache_dir(v->cache), v->v->cache_wanted);
        return 0;
    }
    r = kfs_volume_switch_cache(v->v, err);
    if (r == 0)
        r = cache_attach(v, err);
    return r == 0 ? kfsd_recover(v, err) : r;
}

static void vol_init(struct kfsd_vol *v)
{
    v->cache_fd = -1;
    v->queue_last = &v->queue;
    pthread_mutex_init(&v->pub, NULL);
    pthread_mutex_init(&v->table, NULL);
    pthread_mutex_init(&v->evicted, NULL);
    pthread_cond_init(&v->work, NULL);
    kfs_map_init(&v->files);
    pthread_mutex_init(&v->arrive_lock, NULL);
    pthread_cond_init(&v->arrive_work, NULL);
    kfs_map_init(&v->arrivals);
    v->arrive_last = &v->arrive_first;
    v->start_ns = kfs_clock_mono_ns();
}

static int vol_open(struct kfsd_vol *v, const char *arg, struct kfs_err *err)
{
    vol_init(v);
    const char *url = url_of(arg, err);
    int r = url ? 0 : -EINVAL;
    if (r == 0 && kfsd.opt.create)
        r = format_if_missing(url, err);
    const struct kfs_volume_options o = {
        .cache_dir = kfsd.opt.cache_dir,
        .cache_parents = kfs_conf_text(&kfsd.conf, KFS_CONF_CACHE_DIR),
        .cache = {.cap_bytes = kfs_conf_number(&kfsd.conf, KFS_CONF_CACHE_BYTES),
                  .cap_files = kfs_conf_number(&kfsd.conf, KFS_CONF_CACHE_FILES),
                  .verify = (enum kfs_cache_verify)kfs_conf_number(&kfsd.conf, KFS_CONF_CACHE_VERIFY),
                  .memory_bytes = kfs_conf_number(&kfsd.conf, KFS_CONF_CACHE_MEMORY)},
        .key_file = kfsd.opt.key_file ? kfsd.opt.key_file : kfs_conf_text(&kfsd.conf, KFS_CONF_KEY_FILE),
        .ask = kfsd.opt.foreground && isatty(STDIN_FILENO),
        .store = {.no_compression = strcmp(kfs_conf_text(&kfsd.conf, KFS_CONF_COMPRESS), "none") == 0,
                  .pack_bytes = kfs_conf_number(&kfsd.conf, KFS_CONF_PACK_BYTES),
                  .pack_file_bytes = kfs_conf_number(&kfsd.conf, KFS_CONF_PACK_FILE_BYTES)},
    };
    if (r == 0)
        r = kfs_volume_open(url, &o, &v->v, err);
    if (r < 0)
        return r;
    v->start_ns = kfs_clock_mono_ns();
    v->ready_ns = v->v->unclean ? v->start_ns + KFS_SHM_VALID_MS * 1000000ULL : 0;
    v->meta = v->v->meta;
    v->store = v->v->store;
    v->session = strcmp(kfsd.opt.commit ? kfsd.opt.commit : kfs_conf_text(&kfsd.conf, KFS_CONF_COMMIT), "session") == 0;
    v->dev = makedev(0, 0xf0000 | (kfs_hash(v->v->id, strlen(v->v->id), 0) & 0xffff));
    if (v->v->rebooted)
        kfs_log(KFS_LOG_WARN, "'%s': the node was started anew; files that were open then are kept in '%s/lost'", v->v->url,
                kfs_cache_dir(v->v->cache));
    uint64_t rows = kfs_conf_number(&kfsd.conf, KFS_CONF_SHM_NAMES);
    uint64_t few = rows / 8 < 64 ? 64 : rows / 8;
    const struct kfs_shm_sizes sizes = {.dent_rows = rows, .attr_rows = rows, .link_rows = few, .list_rows = few, .ring_bytes = rows * SHM_RING_PER_NAME};
    r = kfs_shm_create(v->v->epoch, &sizes, &v->shm, err);
    if (r < 0)
        return r;
    v->seg = kfs_shm_header(v->shm);
    r = socket_of(v, err);
    if (r < 0)
        return r;
    if (kfsd.opt.private_ && !kfsd.opt.log)
        log_beside_socket(v);
    r = kfs_meta_object_id(v->meta, &v->first_object, err);
    if (r == 0)
        r = kfsd_house_start(v, err);
    if (r == 0)
        r = cache_attach(v, err);
    if (r == 0)
        r = kfsd_standins_start(v, err);
    v->stream_bytes = kfs_conf_number(&kfsd.conf, KFS_CONF_STREAM_BYTES);
    if (r == 0)
        r = kfsd_arrive_start(v, err);
    if (r == 0)
        r = recover(v, err);
    return r;
}

static int vol_listen(struct kfsd_vol *v, struct kfs_err *err)
{
    bool shared = kfsd.vol_count > 1 && kfsd.vols->next && strcmp(kfsd.vols->socket, kfsd.vols->next->socket) == 0;
    int r = 0;
    if (!shared)
        r = kfsd_server_listen(v->socket, v, err);
    else if (v == kfsd.vols)
        r = kfsd_server_listen(v->socket, NULL, err);
    if (r == 0)
        r = kfsd_watch_start(v, err);
    if (r == 0)
        r = kfsd_house_run(v, err);
    if (r == 0)
        r = kfs_lock_describe(v->v->lock, v->socket, kfs_cache_dir(v->cache), err);
    return r;
}

/* Everything live is committed; what has no writer is settled. */
static bool vol_settle_all(struct kfsd_vol *v)
{
    size_t n;
    struct kfsd_file **all = kfsd_file_all(v, &n);
    bool clean = all != NULL;
    for (size_t i = 0; all && i < n; i++) {
        if (all[i]->live || all[i]->orphan) {
            int r = kfsd_file_settle(v, all[i]);
            if (r == 1 && kfsd_file_commit(v, all[i]->ino, false, NULL) < 0)
                clean = false;
            if (r < 0)
                clean = false;
        }
        kfsd_file_put(v, all[i]);
    }
    free(all);
    return clean;
}

static void vol_close(struct kfsd_vol *v)
{
    if (!v->v)
        return;
    kfsd_watch_stop(v);
    kfsd_house_halt(v); /* it asks the arrivals what they read */
    kfsd_arrive_stop(v);
    kfsd_standins_stop(v);
    bool clean = v->cache && vol_settle_all(v);
    if (!clean && v->cache)
        kfs_log(KFS_LOG_WARN, "'%s': ended with uncommitted files in '%s/w'; the next kfsd commits them", v->v->url, kfs_cache_dir(v->cache));
    kfsd_house_stop(v, clean);
    /* Whatever is still live is found and committed by the next one; our segment is dead either way, so the end counts as regular, unless that of an
     * unclean predecessor may still be trusted. */
    kfs_volume_close(v->v, v->shm != NULL && v->cache != NULL && kfs_clock_mono_ns() >= v->ready_ns);
    v->v = NULL;
}

/* ---- the life of the process ------------------------------------------------------------------------------------------------- */

static bool idle_long_enough(void)
{
    if (!kfsd.opt.private_ || atomic_load(&kfsd.conn_count))
        return false;
    uint64_t idle = kfs_clock_mono_ns() - atomic_load(&kfsd.idle_since_ns);
    if ((double)idle < kfsd.opt.linger_s * 1e9)
        return false;
    for (struct kfsd_vol *v = kfsd.vols; v; v = v->next)
        if (kfsd_uncommitted(v))
            return false;
    return true;
}

static void wait_for_end(const sigset_t *ends)
{
    const struct timespec tick = {.tv_nsec = 100000000};
    for (;;) {
        int sig = sigtimedwait(ends, NULL, kfsd.opt.private_ ? &tick : NULL);
        if (sig > 0) {
            kfs_log(KFS_LOG_INFO, "signal %d: ending", sig);
            return;
        }
        if (idle_long_enough())
            return;
    }
}

static void remove_sockets(void)
{
    for (struct kfsd_vol *v = kfsd.vols; v; v = v->next)
        if (v->socket[0])
            (void)unlink(v->socket);
}

static int serve(struct kfs_err *err)
{
    int r = 0;
    for (struct kfsd_vol *v = kfsd.vols; v && r == 0; v = v->next)
        r = vol_listen(v, err);
    if (r == 0)
        r = kfsd_heart_start();
    if (r == 0)
        r = kfsd_server_start(err);
    return r;
}

static int run(int argc, char **argv, const sigset_t *ends)
{
    struct kfs_err err = {0};
    kfsd.epfd = epoll_create1(EPOLL_CLOEXEC);
    if (kfsd.epfd < 0)
        return fail(1, KFS_FAIL(&err, errno, "epoll: %s", strerror(errno)), &err);
    struct kfsd_vol **last = &kfsd.vols;
    int r = 0;
    for (int i = optind; i < argc && r == 0; i++) {
        struct kfsd_vol *v = calloc(1, sizeof *v);
        if (!v)
            return fail(1, -ENOMEM, &err);
        *last = v;
        last = &v->next;
        kfsd.vol_count++;
        r = vol_open(v, argv[i], &err);
    }
    if (r == 0)
        r = serve(&err);
    if (r == 0) {
        char line[KFS_PATH_MAX * 2];
        snprintf(line, sizeof line, "ok %s %.3900s", kfsd.vols->socket, kfs_cache_dir(kfsd.vols->cache));
        ready_say(line);
        for (struct kfsd_vol *v = kfsd.vols; v; v = v->next)
            kfs_log(KFS_LOG_INFO, "serving '%s' on '%s', cache in '%s'%s", v->v->url, v->socket, kfs_cache_dir(v->cache),
                    v->v->unclean ? " (after an unclean end)" : "");
        wait_for_end(ends);
        remove_sockets();
    }
    kfsd_server_stop();
    kfsd_heart_stop();
    for (struct kfsd_vol *v = kfsd.vols; v; v = v->next)
        vol_close(v);
    if (r == 0)
        return 0;
    return fail(r == -EINVAL && err.code && (strstr(err.msg, "volume URL") || strstr(err.msg, "not in this build") || strstr(err.msg, "no volume")) ? 2 : 1, r,
                &err);
}

static int configure(struct kfs_err *err)
{
    int r;
    if (kfsd.opt.config) {
        r = kfs_conf_init(&kfsd.conf, err);
        if (r == 0)
            r = kfs_conf_load(&kfsd.conf, kfsd.opt.config, err);
        if (r == -ENOENT && !err->code)
            KFS_FAIL(err, ENOENT, "configuration file '%s' does not exist", kfsd.opt.config);
    } else {
        r = kfs_conf_load_default(&kfsd.conf, err);
    }
    if (r < 0)
        return r;
    enum kfs_log_level level;
    if (kfs_log_level_parse(kfs_conf_text(&kfsd.conf, KFS_CONF_LOG_LEVEL), &level))
        kfs_log_level_set(level);
    if (kfsd.opt.linger_s < 0)
        kfsd.opt.linger_s = (double)kfs_conf_number(&kfsd.conf, KFS_CONF_LINGER_S);
    if (kfsd.opt.log) {
        r = kfs_log_open(kfsd.opt.log);
        if (r < 0)
            return KFS_FAIL(err, -r, "cannot write log file '%s': %s", kfsd.opt.log, strerror(-r));
    }
    return 0;
}

/* Relative URLs mean the directory we were started in; afterwards we stand in none. */
static char **absolute_urls(int argc, char **argv, struct kfs_err *err)
{
    for (int i = optind; i < argc; i++) {
        if (!strchr(argv[i], ':'))
            continue;
        char path[KFS_VOLUME_URL_MAX];
        if (kfs_volume_url_path(argv[i], path, sizeof path, err) < 0)
            return NULL;
        char *url = NULL;
        if (asprintf(&url, "%s%s", kfs_volume_is_embedded(path) ? "sqlite:" : "", path) < 0)
            return NULL;
        argv[i] = url;
    }
    return argv;
}

int main(int argc, char **argv)
{
    int code = parse_args(argc, argv);
    if (code >= 0)
        return code;
    clean_process();
    struct kfs_err err = {0};
    if (!absolute_urls(argc, argv, &err))
        return fail(err.code == EINVAL ? 2 : 1, -(err.code ? err.code : ENOMEM), &err);
    int r = configure(&err);
    if (r < 0)
        return fail(r == -EINVAL ? 2 : 1, r, &err);
    if (kfsd.opt.private_ && !kfsd.opt.foreground)
        (void)setsid();
    (void)!chdir("/");
    kfsd_crash_init();
    kfsd_conf_apply();
    /* Commits take and give back a frame's buffer each: do not return it to the kernel in between. */
    (void)mallopt(M_MMAP_THRESHOLD, 8 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 64 << 20);
    (void)mallopt(M_ARENA_MAX, 4);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    if (kfsd.opt.foreground)
        sigaddset(&ends, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
    return run(argc, argv, &ends);
}
