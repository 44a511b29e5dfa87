#include "tools/common/endpoint.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/rand.h"
#include "tools/common/lockfile.h"
#include "tools/common/volume_url.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define REACH_MS 5000    /* how long an owner may be unreachable: it is starting to listen, or ending */
#define STARTING_MS 60000 /* how long an owner may take to say who it is: recovery reads what was live */
#define HELLO_S 30
#define BUSY_MAX 10
#define STARTS_MAX 3 /* a kfsd that starts and is gone again each time is broken, not unlucky */

/* ---- which volume? ---------------------------------------------------------------------------------------------- */

static int names_join(const struct kfs_conf *conf, char *buf, size_t cap)
{
    size_t n = 0;
    buf[0] = '\0';
    for (size_t i = 0; conf && i < conf->volume_count && n < cap; i++)
        n += (size_t)snprintf(buf + n, cap - n, "%s%s", i ? ", " : "", conf->volumes[i].name);
    return buf[0] != '\0';
}

static int path_real(const char *url, const char *path, char *buf, size_t cap, struct kfs_err *err)
{
    char dir[KFS_PATH_MAX], real[KFS_PATH_MAX];
    size_t len = strlen(path);
    if (!len || path[len - 1] == '/' || strchr(path, '\n'))
        return KFS_FAIL(err, EINVAL, "volume '%s' names no database file; write sqlite:/path/of/file.db", url);
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return KFS_FAIL(err, EINVAL, "volume '%s' names a directory; write sqlite:/path/of/file.db", url);
    int n;
    if (realpath(path, real)) {
        n = snprintf(buf, cap, "%s", real);
    } else {
        /* A database that is still to be made: only its directory can be made real. */
        if ((size_t)snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".") >= sizeof dir)
            return KFS_FAIL(err, ENAMETOOLONG, "path of database '%.200s' is too long", path);
        if (!realpath(dir, real))
            return KFS_FAIL(err, errno, "cannot use directory '%s' of volume '%s': %s; create it with mkdir, or correct the URL", dir, url,
                            strerror(errno));
        n = snprintf(buf, cap, "%s/%s", real[1] ? real : "", name);
    }
    if (n < 0 || (size_t)n >= cap)
        return KFS_FAIL(err, ENAMETOOLONG, "path of database '%.200s' is too long; at most %zu bytes", path, cap - 1);
    return 0;
}

int kfs_endpoint_resolve(const struct kfs_conf *conf, const char *volume, struct kfs_endpoint *ret, struct kfs_err *err)
{
    const char *url = volume;
    if (!strchr(volume, ':')) {
        char names[200];
        url = conf ? kfs_conf_volume_url(conf, volume) : NULL;
        if (!url && names_join(conf, names, sizeof names))
            return KFS_FAIL(err, EINVAL, "no volume '%.200s' in the configuration; it has: %s; or write a URL such as sqlite:/path.db", volume,
                            names);
        if (!url)
            return KFS_FAIL(err, EINVAL,
                            "no volume '%.200s' in the configuration; write a URL such as sqlite:/path.db, or add a [volume %.60s] section",
                            volume, volume);
    }
    struct kfs_endpoint e = {0};
    if (strncmp(url, "mysql://", 8) == 0) {
        int r = kfs_volume_url_path(url, e.path, sizeof e.path, err);
        (void)snprintf(e.url, sizeof e.url, "%s", e.path);
        if (r == 0)
            *ret = e;
        return r;
    }
    if (strncmp(url, "sqlite:", 7) != 0)
        return KFS_FAIL(err, EINVAL,
                        "volume '%.200s': unknown scheme '%.*s'; use sqlite:/path.db, mysql://USER@HOST:PORT/DATABASE or a name from the configuration", url,
                        (int)strcspn(url, ":"), url);
    int rc = path_real(url, url + 7, e.path, sizeof e.path - sizeof "sqlite:", err);
    if (rc < 0)
        return rc;
    (void)snprintf(e.url, sizeof e.url, "sqlite:%.*s", (int)(sizeof e.url - sizeof "sqlite:"), e.path);
    *ret = e;
    return 0;
}

int kfs_program_dir(char *buf, size_t cap, struct kfs_err *err)
{
    char exe[KFS_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n < 0 && access("/proc/self", F_OK) < 0)
        return KFS_FAIL(err, errno ? errno : ENOENT,
                        "no /proc here: KFS recognises its descriptors through /proc/self/fd; mount it: mount -t proc proc /proc");
    if (n < 0)
        return KFS_FAIL(err, errno, "cannot read '/proc/self/exe': %s", strerror(errno));
    exe[n] = '\0';
    char *slash = strrchr(exe, '/');
    if (!slash || (size_t)(slash - exe) >= cap)
        return KFS_FAIL(err, ENAMETOOLONG, "path of this program '%.200s' is too long", exe);
    *slash = '\0';
    (void)snprintf(buf, cap, "%s", exe[0] ? exe : "/");
    return 0;
}

void kfs_preload_without_shim(const char *preload, char *buf, size_t cap)
{
    size_t n = 0;
    buf[0] = '\0';
    for (const char *p = preload ? preload : ""; *p;) {
        size_t len = strcspn(p, ": ");
        const char *base = p;
        for (size_t i = 0; i < len; i++)
            if (p[i] == '/')
                base = p + i + 1;
        static const char *const names[] = {"libkfs.so", "libkfs-musl.so"};
        bool ours = false;
        for (int i = 0; i < 2; i++)
            ours |= (size_t)(p + len - base) == strlen(names[i]) && strncmp(base, names[i], strlen(names[i])) == 0;
        if (len && !ours && n + len + 2 < cap) {
            if (n)
                buf[n++] = ':';
            memcpy(buf + n, p, len);
            n += len;
            buf[n] = '\0';
        }
        p += len + (p[len] != '\0');
    }
}

/* ---- talking ------------------------------------------------------------------------------------------------------ */

void kfs_client_close(struct kfs_client *c)
{
    if (!c || c->fd < 0)
        return;
    (void)close(c->fd);
    c->fd = -1;
}

static int send_request(struct kfs_client *c, enum kfs_wire_op op, kfs_ino_t ino, const char *path, const char *path2)
{
    size_t n1 = path ? strlen(path) : 0, n2 = path2 ? strlen(path2) : 0;
    if (n1 >= KFS_PATH_MAX || n2 >= KFS_PATH_MAX)
        return -ENAMETOOLONG;
    struct kfs_wire_req q = {.magic = KFS_WIRE_MAGIC,
                             .version = KFS_WIRE_VERSION,
                             .op = (uint16_t)op,
                             .len = (uint32_t)(sizeof q + n1 + n2),
                             .client = {c->client[0], c->client[1]},
                             .seq = ++c->seq,
                             .ino = ino,
                             .path_len = (uint32_t)n1,
                             .path2_len = (uint32_t)n2};
    char msg[sizeof q + 2 * KFS_PATH_MAX];
    memcpy(msg, &q, sizeof q);
    if (n1)
        memcpy(msg + sizeof q, path, n1);
    if (n2)
        memcpy(msg + sizeof q + n1, path2, n2);
    for (;;) {
        ssize_t n = send(c->fd, msg, q.len, MSG_NOSIGNAL);
        if (n >= 0)
            return n == (ssize_t)q.len ? 0 : -EPROTO;
        if (errno != EINTR)
            return -errno;
    }
}

/* Descriptors that come with an answer are not for us: they are closed. */
static void fds_close(struct msghdr *mh)
{
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
            (void)close(fd);
        }
    }
}

static int receive_answer(struct kfs_client *c, enum kfs_wire_op op, struct kfs_wire_rep *rep, char *data, size_t cap)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * KFS_WIRE_FDS_MAX)];
    } control;
    struct iovec iov[2] = {{rep, sizeof *rep}, {data, cap}};
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do {
        n = recvmsg(c->fd, &mh, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    fds_close(&mh);
    if (n == 0)
        return -ECONNRESET;
    if ((size_t)n < sizeof *rep || (mh.msg_flags & MSG_TRUNC) || rep->magic != KFS_WIRE_MAGIC || rep->len != (size_t)n ||
        rep->data_len != (size_t)n - sizeof *rep || rep->op != op || rep->seq != c->seq)
        return -EPROTO;
    return 0;
}

/* One exchange. 0: *rep and data are filled; else the connection failed. */
static int exchange(struct kfs_client *c, enum kfs_wire_op op, kfs_ino_t ino, const char *path, const char *path2, struct kfs_wire_rep *rep,
                    char *data, size_t cap, struct kfs_err *err)
{
    if (c->fd < 0)
        return KFS_FAIL(err, ENOTCONN, "not connected to kfsd");
    int rc = send_request(c, op, ino, path, path2);
    if (rc == 0)
        rc = receive_answer(c, op, rep, data, cap);
    if (rc == -EPROTO)
        return KFS_FAIL(err, EPROTO, "kfsd's answer is not understood; is it of another version than this program?");
    if (rc < 0)
        return KFS_FAIL(err, -rc, "connection to kfsd lost: %s; its log says why", strerror(-rc));
    return 0;
}

int kfs_client_call(struct kfs_client *c, enum kfs_wire_op op, kfs_ino_t ino, const char *path, const char *path2, struct kfs_buf *ret_data,
                    struct kfs_err *err)
{
    struct kfs_wire_rep rep;
    kfs_auto_free char *data = malloc(KFS_WIRE_DATA_MAX);
    if (!data)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    int rc = exchange(c, op, ino, path, path2, &rep, data, KFS_WIRE_DATA_MAX, err);
    if (rc < 0)
        return rc;
    if (ret_data && kfs_buf_append(ret_data, data, rep.data_len) < 0)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    return rep.status;
}

/* The text of {"error": "…"}. False: it is something else. */
static bool error_text(const char *json, char *buf, size_t cap)
{
    static const char KEY[] = "{\"error\":";
    if (strncmp(json, KEY, sizeof KEY - 1) != 0)
        return false;
    const char *p = json + sizeof KEY - 1;
    p += strspn(p, " ");
    if (*p++ != '"')
        return false;
    size_t n = 0;
    for (; *p && *p != '"' && n + 1 < cap; p++) {
        if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
            p++;
        buf[n++] = *p;
    }
    buf[n] = '\0';
    return n > 0;
}

int kfs_client_control(struct kfs_client *c, const char *command, const char *argument, struct kfs_buf *ret_json, struct kfs_err *err)
{
    struct kfs_err lost = {0};
    int rc = kfs_client_call(c, KFS_OP_CONTROL, 0, command, argument, ret_json, &lost);
    if (rc >= 0)
        return rc;
    if (lost.code) {
        if (err)
            *err = lost;
        return rc;
    }
    const char *about = argument && *argument ? argument : command;
    if (rc < -4095)
        return KFS_FAIL(err, EXDEV, "'%s' leads out of the volume through a symlink; name what it points to", about);
    char text[sizeof err->msg];
    if (error_text(kfs_buf_str(ret_json), text, sizeof text) && argument && *argument && !strstr(text, argument))
        return KFS_FAIL(err, -rc, "'%s': %s", argument, text);
    if (error_text(kfs_buf_str(ret_json), text, sizeof text))
        return KFS_FAIL(err, -rc, "%s", text);
    return KFS_FAIL(err, -rc, "%s '%s': %s", command, about, strerror(-rc));
}

int kfs_client_sync(struct kfs_client *c, struct kfs_err *err)
{
    struct kfs_err lost = {0};
    int rc = kfs_client_call(c, KFS_OP_FSYNC, 0, NULL, NULL, NULL, &lost);
    if (rc >= 0)
        return 0;
    if (lost.code) {
        if (err)
            *err = lost;
        return rc;
    }
    return KFS_FAIL(err, -rc, "not everything could be stored: %s; kfsd's log names the files, 'kfs flush' tries again", strerror(-rc));
}

int kfs_client_open(const char *socket_path, const char *url, struct kfs_client *ret, struct kfs_err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(socket_path) > KFS_SOCKET_PATH_MAX)
        return KFS_FAIL(err, ENAMETOOLONG, "socket path '%s' is longer than %d bytes; choose a shorter run directory", socket_path,
                        KFS_SOCKET_PATH_MAX);
    memcpy(sa.sun_path, socket_path, strlen(socket_path) + 1);
    kfs_auto_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return KFS_FAIL(err, errno, "cannot make a socket: %s", strerror(errno));
    const struct timeval limit = {.tv_sec = HELLO_S}, none = {0};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    int rc;
    do {
        rc = connect(fd, (const struct sockaddr *)&sa, sizeof sa);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return KFS_FAIL(err, errno, "cannot connect to kfsd at '%s': %s", socket_path, strerror(errno));

    struct kfs_client c = {.fd = fd};
    kfs_rand_bytes(c.client, sizeof c.client);
    struct kfs_wire_rep rep;
    rc = exchange(&c, KFS_OP_HELLO, 0, url, NULL, &rep, (char *)&c.hello, sizeof c.hello, err);
    if (rc < 0)
        return rc;
    if (rep.status < 0)
        return KFS_FAIL(err, -rep.status, "kfsd at '%s' refuses this connection: %s", socket_path, strerror(-rep.status));
    if (rep.data_len != sizeof c.hello || !memchr(c.hello.cache_dir, 0, sizeof c.hello.cache_dir) || !memchr(c.hello.more_dirs, 0, sizeof c.hello.more_dirs) ||
        !memchr(c.hello.volume_id, 0, sizeof c.hello.volume_id))
        return KFS_FAIL(err, EPROTO, "kfsd's answer at '%s' is not understood; is it of another version than this program?", socket_path);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    c.fd = kfs_steal_fd(&fd);
    *ret = c;
    return 0;
}

/* ---- starting a private kfsd --------------------------------------------------------------------------------------- */

/* In the process that becomes kfsd: nothing of the caller's may be held or inherited. ready becomes descriptor 3. */
static void detach(int ready)
{
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        (void)dup2(null, fd);
    if (ready != 3)
        (void)dup2(ready, 3);
    (void)fcntl(3, F_SETFD, 0);
    if (syscall(SYS_close_range, 4u, ~0u, 0u) < 0)
        for (int fd = 4; fd < 4096; fd++)
            (void)close(fd);
    (void)!chdir("/");
    sigset_t none;
    (void)sigemptyset(&none);
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    char preload[KFS_PATH_MAX];
    kfs_preload_without_shim(getenv("LD_PRELOAD"), preload, sizeof preload);
    if (preload[0])
        (void)setenv("LD_PRELOAD", preload, 1);
    else
        (void)unsetenv("LD_PRELOAD");
    (void)unsetenv(KFS_ENV_AT);
    (void)unsetenv(KFS_ENV_RUN);
}

static void daemon_exec(const char *program, const struct kfs_endpoint *e, const struct kfs_endpoint_options *o, int ready)
{
    char linger[16];
    (void)snprintf(linger, sizeof linger, "%d", o->linger_s);
    const char *argv[20] = {program, "--private", "--ready-fd", "3"};
    int n = 4;
    if (o->create)
        argv[n++] = "--create";
    if (o->cache_dir)
        argv[n++] = "--cache-dir", argv[n++] = o->cache_dir;
    if (o->run_dir)
        argv[n++] = "--run-dir", argv[n++] = o->run_dir;
    if (o->socket)
        argv[n++] = "--socket", argv[n++] = o->socket;
    if (o->linger_s >= 0)
        argv[n++] = "--linger", argv[n++] = linger;
    argv[n++] = e->url;
    detach(ready);
    union {
        const char **in;
        char *const *out;
    } cast = {argv};
    (void)execv(program, cast.out);
    (void)dprintf(3, "error: cannot run '%s': %s; kfsd must lie beside kfs-run\n", program, strerror(errno));
}

/* The first line from kfsd, or "" when it ended without one. */
static void ready_line(int fd, char *buf, size_t cap)
{
    size_t n = 0;
    while (n + 1 < cap && !memchr(buf, '\n', n)) {
        ssize_t got = read(fd, buf + n, cap - 1 - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    buf[n] = '\0';
    buf[strcspn(buf, "\n")] = '\0';
}

/* 1: it serves. 0: somebody else was faster. Negative: it cannot, err says why. */
static int daemon_start(const struct kfs_endpoint *e, const struct kfs_endpoint_options *o, struct kfs_err *err)
{
    char program[KFS_PATH_MAX], line[KFS_PATH_MAX];
    int rc = kfs_program_dir(program, sizeof program - sizeof "/kfsd", err);
    if (rc < 0)
        return rc;
    (void)strcat(program, "/kfsd");
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return KFS_FAIL(err, errno, "cannot make a pipe: %s", strerror(errno));
    kfs_auto_fd int from = pipe_fds[0];
    kfs_auto_fd int to = pipe_fds[1];
    pid_t child = fork();
    if (child < 0)
        return KFS_FAIL(err, errno, "cannot start kfsd: fork: %s", strerror(errno));
    if (child == 0) {
        /* The second fork gives kfsd to init, so that it is nobody's zombie. */
        (void)setsid();
        if (fork() == 0)
            daemon_exec(program, e, o, to);
        _exit(0);
    }
    (void)close(kfs_steal_fd(&to));
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    ready_line(from, line, sizeof line);
    if (strncmp(line, "ok ", 3) == 0)
        return 1;
    if (strncmp(line, "busy: ", 6) == 0) {
        (void)KFS_FAIL(err, EBUSY, "%s", line + 6);
        return 0;
    }
    if (strncmp(line, "error: ", 7) == 0)
        return KFS_FAIL(err, EIO, "%s", line + 7);
    return KFS_FAIL(err, EIO, "kfsd for volume '%s' ended before it was ready; run '%s --foreground %s' to see why", e->url, program, e->url);
}

/* ---- finding ---------------------------------------------------------------------------------------------------------- */

static int refused(const struct kfs_endpoint *e, const struct kfs_lock_owner *o, struct kfs_err *err)
{
    return KFS_FAIL(err, EACCES,
                    "volume '%s' is open by kfsd %d of user '%s', which does not serve this user; ask '%s' to end it, or to run a node daemon",
                    e->url, (int)o->pid, o->user, o->user);
}

/* The node's daemon, when the lock file cannot be read: it must be the one that serves this volume. */
static int node_find(const struct kfs_conf *conf, struct kfs_endpoint *e, struct kfs_client *ret_c)
{
    const char *socket_path = conf ? kfs_conf_text(conf, KFS_CONF_SOCKET) : "";
    if (!*socket_path || strlen(socket_path) > KFS_SOCKET_PATH_MAX)
        return -ENOENT;
    int rc = kfs_client_open(socket_path, e->url, ret_c, NULL);
    if (rc < 0)
        return rc;
    (void)snprintf(e->socket, sizeof e->socket, "%s", socket_path);
    return 0;
}

/* 1: connected. 0: try again. */
static int owner_connect(struct kfs_endpoint *e, const struct kfs_lock_owner *o, struct kfs_client *ret_c, struct kfs_err *err)
{
    struct kfs_err why = {0};
    int rc = kfs_client_open(o->socket, e->url, ret_c, &why);
    /* In a container the same database may have another path: a daemon with one volume needs no name for it. */
    if (rc == -ENODEV)
        rc = kfs_client_open(o->socket, NULL, ret_c, &why);
    if (rc == 0) {
        (void)snprintf(e->socket, sizeof e->socket, "%s", o->socket);
        return 1;
    }
    if (rc == -EACCES || rc == -EPERM)
        return o->uid == geteuid() ? KFS_FAIL(err, -rc, "%s", why.msg) : refused(e, o, err);
    if (rc == -EPROTO)
        return KFS_FAIL(err, -rc, "volume '%s', kfsd %d: %s", e->url, (int)o->pid, why.msg);
    (void)KFS_FAIL(err, -rc, "volume '%s' is open by kfsd %d of user '%s' on host '%s', but it cannot be reached: %.180s", e->url, (int)o->pid,
                   o->user, o->host, why.msg);
    return 0;
}

static int start_or_say_why(const struct kfs_endpoint *e, const struct kfs_endpoint_options *o, int *starts, struct kfs_err *err)
{
    struct stat st;
    if (!o->create && kfs_volume_is_embedded(e->path) && stat(e->path, &st) < 0 && errno == ENOENT)
        return KFS_FAIL(err, ENOENT, "database '%s' does not exist; create it with 'kfs format %s' or 'kfs-run --create'", e->path, e->url);
    if (*starts == STARTS_MAX)
        return KFS_FAIL(err, EIO, "kfsd for volume '%s' was started %d times and did not stay; its log says why", e->url, STARTS_MAX);
    int rc = daemon_start(e, o, err);
    *starts += rc == 1;
    return rc;
}

int kfs_endpoint_find(const struct kfs_conf *conf, struct kfs_endpoint *e, const struct kfs_endpoint_options *o, struct kfs_client *ret_c,
                      struct kfs_err *err)
{
    uint64_t since = kfs_clock_mono_ns();
    struct kfs_err why = {0};
    int starts = 0, busy = 0;
    for (;;) {
        struct kfs_lock_owner owner;
        int rc = kfs_lock_read(e->path, &owner, &why);
        if (rc == -EACCES && node_find(conf, e, ret_c) == 0)
            return 0;
        if (rc == 0 && owner.held && !owner.starting) {
            rc = owner_connect(e, &owner, ret_c, &why);
            if (rc == 1)
                return 0;
        } else if (rc == 0 && !owner.held) {
            rc = start_or_say_why(e, o, &starts, &why);
            if (rc == 1)
                continue;
            /* Busy, but nobody has the volume: it is something else that is in use, and kfsd has said what. */
            if (rc == 0 && ++busy == BUSY_MAX)
                rc = -why.code;
        }
        uint64_t waited_ms = (kfs_clock_mono_ns() - since) / 1000000;
        if (rc == 0 && waited_ms > (owner.starting ? STARTING_MS : REACH_MS))
            rc = why.code ? -why.code : KFS_FAIL(&why, EBUSY, "volume '%s' is being opened by another kfsd, which does not get ready", e->url);
        if (rc < 0) {
            if (err)
                *err = why;
            return rc;
        }
        (void)poll(NULL, 0, busy ? 50 : 10);
    }
}
