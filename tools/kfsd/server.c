#include "tools/kfsd/arrive.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/pure/mounts.h"
#include "blockstore/limit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

#define WORKERS_MIN 4
#define WORKERS_MAX 64
#define SEND_TIMEOUT_S 5
#define STATS_BYTES 4096u
#define STOP_WAIT_MS 30000
#define PARKED_MAX 2048 /* waits for bytes at a time; more wait their turn */
#define MAPS_MAX 32

enum kind { LISTENER, CONN };

struct listener {
    enum kind kind;
    int fd;
    struct kfsd_vol *vol; /* NULL: HELLO names the volume */
    struct listener *next;
};

struct kfsd_conn {
    enum kind kind;
    int fd;
    struct kfsd_vol *vol, *of_listener;
    struct kfs_cred cred;
    pid_t pid;
    struct kfsd_conn *next, **prev; /* conns_lock */
    uint64_t client[2], busy_seq;   /* conns_lock */
    struct kfs_wire_stats *stats;
    uint64_t touches_seen; /* conns_lock */
    uint64_t maps[MAPS_MAX]; /* serials of the arrival maps it was given; a ring */
    unsigned map_count;
};

static pthread_mutex_t conns_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kfsd_conn *conns;
static struct listener *listeners;
static atomic_uint workers, idle, parked;

/* ---- connections -------------------------------------------------------------------------------------------------------- */

static int peer_ids(int fd, struct kfs_cred *c, pid_t *ret_pid)
{
    struct ucred u;
    socklen_t len = sizeof u;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) < 0)
        return -errno;
    *c = (struct kfs_cred){.uid = u.uid, .gid = u.gid};
    *ret_pid = u.pid;
    kfs_auto_free gid_t *groups = malloc(65536 * sizeof *groups);
    len = 65536 * sizeof *groups;
    if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
        return 0; /* old kernel: no supplementary groups, which can only deny */
    for (size_t i = 0; i < len / sizeof *groups && c->group_count < KFS_GROUPS_MAX; i++)
        c->groups[c->group_count++] = groups[i];
    return 0;
}

static void take_touches(struct kfsd_conn *c);

static void conn_end(struct kfsd_conn *c)
{
    pthread_mutex_lock(&conns_lock);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    if (c->stats && c->vol) {
        take_touches(c);
        for (int i = 0; i < KFS_TIER_COUNT; i++)
            atomic_fetch_add(&c->vol->stats_ended[i], __atomic_load_n(&c->stats->calls[i], __ATOMIC_RELAXED));
        atomic_fetch_sub(&c->vol->clients, 1);
    }
    pthread_mutex_unlock(&conns_lock);
    if (c->stats)
        munmap(c->stats, STATS_BYTES);
    close(c->fd);
    free(c);
    atomic_store(&kfsd.idle_since_ns, kfs_clock_mono_ns());
    atomic_fetch_sub(&kfsd.conn_count, 1);
}

static void accept_one(struct listener *l)
{
    static struct kfs_log_limit limit;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            kfs_log_limited(&limit, KFS_LOG_ERROR, "cannot accept a client: %s", strerror(errno));
            usleep(10000);
        }
        return;
    }
    struct kfsd_conn *c = calloc(1, sizeof *c);
    if (!c || peer_ids(fd, &c->cred, &c->pid) < 0) {
        free(c);
        close(fd);
        return;
    }
    /* A client that does not read its answers must not keep a worker. */
    const struct timeval send_timeout = {.tv_sec = SEND_TIMEOUT_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send_timeout, sizeof send_timeout);
    c->kind = CONN;
    c->fd = fd;
    c->of_listener = l->vol;
    atomic_fetch_add(&kfsd.conn_count, 1);
    pthread_mutex_lock(&conns_lock);
    c->next = conns;
    c->prev = &conns;
    if (conns)
        conns->prev = &c->next;
    conns = c;
    pthread_mutex_unlock(&conns_lock);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = c};
    if (epoll_ctl(kfsd.epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
        conn_end(c);
}

bool kfsd_client_busy(const uint64_t client[2], uint64_t seq, const struct kfsd_conn *except)
{
    bool busy = false;
    pthread_mutex_lock(&conns_lock);
    for (struct kfsd_conn *c = conns; c && !busy; c = c->next)
        busy = c != except && c->busy_seq == seq && c->client[0] == client[0] && c->client[1] == client[1];
    pthread_mutex_unlock(&conns_lock);
    return busy;
}

void kfsd_stats_sum(struct kfsd_vol *v, uint64_t ret[KFS_TIER_COUNT])
{
    pthread_mutex_lock(&conns_lock);
    for (int i = 0; i < KFS_TIER_COUNT; i++)
        ret[i] = atomic_load(&v->stats_ended[i]);
    for (struct kfsd_conn *c = conns; c; c = c->next)
        for (int i = 0; c->stats && c->vol == v && i < KFS_TIER_COUNT; i++)
            ret[i] += __atomic_load_n(&c->stats->calls[i], __ATOMIC_RELAXED);
    pthread_mutex_unlock(&conns_lock);
}

/* Which cache files did this client open by name since the last look? A busy one has overwritten some: the rest is a fair sample. conns_lock held. */
static void take_touches(struct kfsd_conn *c)
{
    uint64_t n = __atomic_load_n(&c->stats->touch_count, __ATOMIC_ACQUIRE), seen = c->touches_seen;
    if (n == seen)
        return;
    uint64_t first = n - seen > KFS_WIRE_TOUCHED ? n - KFS_WIRE_TOUCHED : seen;
    for (uint64_t i = first; i != n; i++) {
        uint64_t touch = __atomic_load_n(&c->stats->touched[i % KFS_WIRE_TOUCHED], __ATOMIC_RELAXED);
        for (struct kfsd_vol *v = kfsd.vols; v; v = v->next)
            if (kfs_wire_touch(v->dev, 0) >> 48 == touch >> 48)
                kfs_cache_touch(v->cache, touch & 0xffffffffffffULL);
    }
    /* A page of a client that counts nonsense harms the figures, nothing else. */
    kfs_cache_hits(c->vol->cache, n > seen ? n - seen : 0);
    c->touches_seen = n;
}

void kfsd_touches(void)
{
    pthread_mutex_lock(&conns_lock);
    for (struct kfsd_conn *c = conns; c; c = c->next)
        if (c->stats && c->vol)
            take_touches(c);
    pthread_mutex_unlock(&conns_lock);
}

/* ---- HELLO ---------------------------------------------------------------------------------------------------------------- */

static struct kfsd_vol *volume_named(const char *name, struct kfsd_vol *only)
{
    for (struct kfsd_vol *v = kfsd.vols; v; v = v->next) {
        if (only && v != only)
            continue;
        if (!*name ? (only || !kfsd.vols->next) : strcmp(name, v->v->id) == 0 || kfs_volume_url_same(name, v->v->url))
            return v;
    }
    return NULL;
}

/* One page a connection. Sealed: a client that shrank it would end kfsd with SIGBUS. */
static int stats_page(struct kfsd_conn *c)
{
    kfs_auto_fd int fd = memfd_create("kfs-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, STATS_BYTES) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    void *page = mmap(NULL, STATS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    pthread_mutex_lock(&conns_lock);
    c->stats = page;
    atomic_fetch_add(&c->vol->clients, 1);
    pthread_mutex_unlock(&conns_lock);
    return kfs_steal_fd(&fd);
}

int kfsd_conn_hello(struct kfsd_req *r)
{
    struct kfsd_conn *c = r->conn;
    if (c->stats)
        return -EALREADY;
    struct kfsd_vol *v = volume_named(r->path, c->of_listener);
    if (!v)
        return -ENODEV;
    c->vol = v;
    int page = stats_page(c);
    if (page < 0)
        return page;
    struct kfs_wire_hello h = {
        .epoch = v->v->epoch,
        .dev = v->dev,
        .segment_bytes = v->seg->segment_bytes,
        .root_ino = KFS_INO_ROOT,
        .uid = c->cred.uid,
        .gid = c->cred.gid,
    };
    if (c->cred.uid == geteuid())
        h.flags |= KFS_HELLO_DIRECT;
    if (v->session)
        h.flags |= KFS_HELLO_SESSION;
    snprintf(h.volume_id, sizeof h.volume_id, "%s", v->v->id);
    snprintf(h.cache_dir, sizeof h.cache_dir, "%s", kfs_cache_dir(v->cache));
    kfs_cache_more_dirs(v->cache, h.more_dirs);
    h.cache_dir_len = (uint32_t)strlen(h.cache_dir);
    memcpy(r->out, &h, sizeof h);
    r->out_len = sizeof h;
    r->fds[0] = kfs_shm_reader_fd(v->shm);
    r->fd_borrowed[0] = true;
    r->fds[1] = page;
    return kfsd_attr_get(v, KFS_INO_ROOT, &r->rep.attr, &r->err);
}

/* ---- messages -------------------------------------------------------------------------------------------------------------- */

struct scratch { /* a worker's buffers */
    unsigned char in[sizeof(struct kfs_wire_req) + 2 * KFS_PATH_MAX + KFS_WIRE_DATA_MAX + 1];
    unsigned char out[KFS_WIRE_DATA_MAX + KFS_PATH_MAX];
    struct kfsd_req req;
};

/* What is wrong with the message? NULL: nothing. */
static const char *check(const struct kfs_wire_req *q, size_t got, const unsigned char *body)
{
    if (got < sizeof *q)
        return "too short";
    if (q->magic != KFS_WIRE_MAGIC)
        return "wrong magic";
    if (q->version != KFS_WIRE_VERSION)
        return "another protocol version";
    if (q->len != got)
        return "length field and message differ";
    if (q->path_len > KFS_PATH_MAX || q->path2_len > KFS_PATH_MAX || q->data_len > KFS_WIRE_DATA_MAX)
        return "a part is too long";
    if ((uint64_t)sizeof *q + q->path_len + q->path2_len + q->data_len != got)
        return "parts do not add up";
    if (memchr(body, 0, (size_t)q->path_len + q->path2_len))
        return "NUL in a path";
    if (q->op >= KFS_OP_END || q->op == 0 || kfsd_op_name(q->op)[0] == '?')
        return "unknown operation";
    return NULL;
}

static void close_received(struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            close(fd);
        }
    }
}

static ssize_t receive(struct kfsd_conn *c, struct scratch *s)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * 253)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = s->in, .iov_len = sizeof s->in};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf};
    ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    if (m.msg_controllen)
        close_received(&m);
    return m.msg_flags & MSG_TRUNC ? (ssize_t)sizeof s->in : n;
}

static void close_answer(struct kfsd_req *r)
{
    for (int i = 0; i < KFS_WIRE_FDS_MAX; i++)
        if (r->fds[i] >= 0 && !r->fd_borrowed[i])
            close(r->fds[i]);
}

static int send_answer(struct kfsd_conn *c, struct kfsd_req *r)
{
    struct iovec iov[2] = {{.iov_base = &r->rep, .iov_len = sizeof r->rep}, {.iov_base = r->out, .iov_len = r->out_len}};
    union {
        char buf[CMSG_SPACE(sizeof(int) * KFS_WIRE_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = r->out_len ? 2 : 1};
    int fds[KFS_WIRE_FDS_MAX];
    uint32_t n = 0;
    for (int i = 0; i < KFS_WIRE_FDS_MAX; i++)
        if (r->rep.status == 0 && r->fds[i] >= 0)
            fds[n++] = r->fds[i];
    if (n) {
        memset(&control, 0, sizeof control);
        m.msg_control = control.buf;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int) * n);
        memcpy(CMSG_DATA(h), fds, sizeof(int) * n);
    }
    r->rep.magic = KFS_WIRE_MAGIC;
    r->rep.version = KFS_WIRE_VERSION;
    r->rep.op = r->w->op;
    r->rep.seq = r->w->seq;
    r->rep.data_len = (uint32_t)r->out_len;
    r->rep.fd_count = n;
    r->rep.len = (uint32_t)(sizeof r->rep + r->out_len);
    ssize_t sent;
    do
        sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    close_answer(r);
    return sent == (ssize_t)r->rep.len ? 0 : -1;
}

static void set_busy(struct kfsd_conn *c, const struct kfs_wire_req *q, uint64_t seq)
{
    pthread_mutex_lock(&conns_lock);
    c->client[0] = q->client[0];
    c->client[1] = q->client[1];
    c->busy_seq = seq;
    pthread_mutex_unlock(&conns_lock);
}

static void prepare(struct kfsd_conn *c, struct scratch *s, const struct kfs_wire_req *q)
{
    struct kfsd_req *r = &s->req;
    const unsigned char *body = s->in + sizeof *q;
    r->vol = c->vol;
    r->conn = c;
    r->w = q;
    memcpy(r->path, body, q->path_len);
    r->path[q->path_len] = 0;
    memcpy(r->path2, body + q->path_len, q->path2_len);
    r->path2[q->path2_len] = 0;
    r->data = body + q->path_len + q->path2_len;
    r->data_len = q->data_len;
    r->cred = &c->cred;
    r->op = (struct kfs_opid){.client = {q->client[0], q->client[1]}, .seq = q->seq};
    memset(&r->rep, 0, sizeof r->rep);
    r->out = s->out;
    r->out_len = 0;
    r->fds[0] = r->fds[1] = -1;
    r->fd_borrowed[0] = r->fd_borrowed[1] = false;
    r->drop = false;
    r->err = (struct kfs_err){0};
}

/* One message. False: the connection is to be dropped. */
static bool serve(struct kfsd_conn *c, struct scratch *s)
{
    static struct kfs_log_limit limit;
    ssize_t n = receive(c, s);
    if (n == -EAGAIN || n == -EINTR)
        return true;
    if (n <= 0)
        return false;
    struct kfs_wire_req q;
    memset(&q, 0, sizeof q);
    memcpy(&q, s->in, (size_t)n < sizeof q ? (size_t)n : sizeof q);
    const char *wrong = check(&q, (size_t)n, s->in + sizeof q);
    if (!wrong && !c->vol && q.op != KFS_OP_HELLO)
        wrong = "no HELLO first";
    if (wrong) {
        kfs_log_limited(&limit, KFS_LOG_WARN, "bad message from process %d of uid %u: %s; connection dropped", (int)c->pid, c->cred.uid,
                        wrong);
        return false;
    }
    prepare(c, s, &q);
    set_busy(c, &q, q.seq);
    kfsd_op_run(&s->req);
    set_busy(c, &q, 0);
    if (s->req.rep.status != 0)
        memset(&s->req.rep.attr, 0, sizeof s->req.rep.attr);
    if (s->req.drop) {
        close_answer(&s->req);
        return false;
    }
    KFS_FAULT("answer.before");
    return send_answer(c, &s->req) == 0;
}

/* ---- workers ------------------------------------------------------------------------------------------------------------------ */

static void *worker_main(void *arg);

static int spawn(void)
{
    pthread_t t;
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&a, 512 * 1024);
    atomic_fetch_add(&workers, 1);
    int r = pthread_create(&t, &a, worker_main, NULL);
    if (r)
        atomic_fetch_sub(&workers, 1);
    pthread_attr_destroy(&a);
    return -r;
}

/* Somebody must be left to wait for the next request. */
static void spawn_more(void)
{
    unsigned waiting = atomic_load(&parked);
    if (atomic_load(&workers) < WORKERS_MAX + (waiting < PARKED_MAX ? waiting : PARKED_MAX))
        (void)spawn();
}

void kfsd_park(bool begin)
{
    if (!begin) {
        atomic_fetch_sub(&parked, 1);
        return;
    }
    atomic_fetch_add(&parked, 1);
    if (atomic_load(&idle) == 0)
        spawn_more();
}

bool kfsd_conn_knows(struct kfsd_conn *c, uint64_t serial, bool learn)
{
    for (unsigned i = 0; i < MAPS_MAX; i++)
        if (c->maps[i] == serial)
            return true;
    if (learn)
        c->maps[c->map_count++ % MAPS_MAX] = serial;
    return false;
}

static void handle(struct epoll_event *ev, struct scratch *s)
{
    if (*(enum kind *)ev->data.ptr == LISTENER) {
        struct listener *l = ev->data.ptr;
        accept_one(l);
        struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = l};
        (void)epoll_ctl(kfsd.epfd, EPOLL_CTL_MOD, l->fd, &again);
        return;
    }
    struct kfsd_conn *c = ev->data.ptr;
    if (!serve(c, s)) {
        conn_end(c);
        return;
    }
    struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = c};
    if (epoll_ctl(kfsd.epfd, EPOLL_CTL_MOD, c->fd, &again) < 0)
        conn_end(c);
}

static void *worker_main(void *arg)
{
    (void)arg;
    struct scratch *s = malloc(sizeof *s);
    bool quit = !s;
    while (!quit && !atomic_load(&kfsd.stop)) {
        struct epoll_event ev;
        atomic_fetch_add(&idle, 1);
        int n = epoll_wait(kfsd.epfd, &ev, 1, 10000);
        unsigned was_idle = atomic_fetch_sub(&idle, 1);
        if (n <= 0) {
            /* Grown for a burst: shrink again. */
            unsigned have = atomic_load(&workers);
            quit = n == 0 && have > WORKERS_MIN && atomic_compare_exchange_strong(&workers, &have, have - 1);
            if (quit) {
                free(s);
                return NULL;
            }
            continue;
        }
        atomic_fetch_add(&kfsd.busy, 1);
        if (was_idle == 1)
            spawn_more();
        if (!atomic_load(&kfsd.stop))
            handle(&ev, s);
        atomic_fetch_sub(&kfsd.busy, 1);
    }
    free(s);
    atomic_fetch_sub(&workers, 1);
    return NULL;
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------- */

/* A socket file nobody listens on is a leftover; a live one is somebody else's. */
static int clear_leftover(const char *path, const struct sockaddr_un *a, struct kfs_err *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : KFS_FAIL(err, errno, "socket '%s': %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return KFS_FAIL(err, EEXIST, "'%s' exists and is no socket; choose another with --socket", path);
    kfs_auto_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof *a) == 0)
        return KFS_FAIL(err, EADDRINUSE, "socket '%s' is in use by another kfsd; choose another with --socket", path);
    return unlink(path) < 0 && errno != ENOENT ? KFS_FAIL(err, errno, "remove old socket '%s': %s", path, strerror(errno)) : 0;
}

int kfsd_server_listen(const char *path, struct kfsd_vol *v, struct kfs_err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) > KFS_SOCKET_PATH_MAX)
        return KFS_FAIL(err, ENAMETOOLONG, "socket path '%s' is longer than %d bytes; choose a shorter directory with --run-dir", path,
                        KFS_SOCKET_PATH_MAX);
    strcpy(a.sun_path, path);
    int r = clear_leftover(path, &a, err);
    if (r < 0)
        return r;
    kfs_auto_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(path, kfsd.opt.private_ ? 0600 : 0666) < 0 || listen(fd, 512) < 0)
        return KFS_FAIL(err, errno, "cannot listen on socket '%s': %s; choose another directory with --run-dir", path, strerror(errno));
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    *l = (struct listener){.kind = LISTENER, .fd = kfs_steal_fd(&fd), .vol = v, .next = listeners};
    listeners = l;
    return 0;
}

int kfsd_server_start(struct kfs_err *err)
{
    atomic_store(&kfsd.idle_since_ns, kfs_clock_mono_ns());
    for (struct listener *l = listeners; l; l = l->next) {
        struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = l};
        if (epoll_ctl(kfsd.epfd, EPOLL_CTL_ADD, l->fd, &ev) < 0)
            return KFS_FAIL(err, errno, "epoll: %s", strerror(errno));
    }
    for (int i = 0; i < WORKERS_MIN; i++) {
        int r = spawn();
        if (r < 0)
            return KFS_FAIL(err, -r, "cannot start a thread: %s", strerror(-r));
    }
    return 0;
}

void kfsd_server_stop(void)
{
    atomic_store(&kfsd.stop, true);
    for (struct kfsd_vol *v = kfsd.vols; v; v = v->next)
        if (v->cache)
            kfsd_arrive_cancel(v);
    kfs_limit_set(&kfs_limit_download, 0); /* what is still on its way need not be waited for */
    for (int i = 0; i < STOP_WAIT_MS && atomic_load(&kfsd.busy); i++)
        usleep(1000);
    /* No worker touches a descriptor any more. */
    for (struct listener *l = listeners; l; l = l->next)
        close(l->fd);
}
