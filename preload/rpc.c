/* preload/rpc.c — one request, one answer
 *
 * Connections  A pool of CONNS slots for the process. A slot is taken by one compare-and-swap on a word that holds the owner's pid and a busy bit, so a
 *              signal handler or another thread finds another slot, and after fork the child sees that a slot's pid is not its own and takes it over. All busy, or
 *              in a vfork child: a connection for this call alone. Each slot has a client id of its own, with its own sequence numbers.
 * Descriptors  Sockets live at high numbers, close-on-exec, and are checked by inode before use: the application may have closed or reused the number.
 * Loss         The request is sent again with KFS_WIRE_RETRY on a new connection under the same client id, for up to RPC_WAIT_NS; kfsd is started when the
 *              volume is served alone (design, section 5).
 */
#include "preload/guard.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define CONNS 8
#define RPC_WAIT_NS (30 * 1000000000ULL)
#define START_EVERY_NS 1000000000ULL
#define BACKOFF_MIN_NS 1000000
#define BACKOFF_MAX_NS 100000000

struct conn {
    uint64_t owner; /* pid << 1 | busy; 0 never used */
    uint64_t client[2];
    uint64_t seq;
    uint64_t sock_ino;
    struct kfs_vol *vol;
    int fd; /* -1 none */
};
static struct conn pool[CONNS] = {[0 ... CONNS - 1] = {.fd = -1}};

extern char **environ;
static uint64_t start_next_ns; /* not before: another start of kfsd */

/* --- sockets ------------------------------------------------------------------------------------------------------- */
static void client_new(struct conn *c)
{
    if (kfs_sys3(SYS_getrandom, (long)c->client, sizeof c->client, 0) != (long)sizeof c->client) {
        c->client[0] = kfs_hash_u64(kfs_pre_now_ns(false));
        c->client[1] = kfs_hash_u64((uint64_t)kfs_sys_gettid() ^ (uintptr_t)c);
    }
    c->seq = 0;
}

static bool conn_alive(const struct conn *c)
{
    struct stat st;
    return c->fd >= 0 && kfs_sys_fstat(c->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == c->sock_ino;
}

static void conn_close(struct conn *c)
{
    if (conn_alive(c))
        kfs_sys_close(c->fd);
    c->fd = -1;
}

/* Out of the way of programs that count on low numbers; never below 3. */
static long fd_high(int fd)
{
    struct rlimit lim = {1024, 1024};
    kfs_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&lim);
    long top = lim.rlim_cur < 1024 ? (long)lim.rlim_cur : 1024;
    long r = kfs_sys_fcntl(fd, F_DUPFD_CLOEXEC, top > 67 ? top - 64 : 3);
    if (r < 0 && fd < 3)
        r = kfs_sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (r < 0)
        return fd;
    kfs_sys_close(fd);
    return r;
}

static long sock_connect(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, path, strlen(path) + 1);
    long fd = kfs_sys3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long r;
    do
        r = kfs_sys3(SYS_connect, fd, (long)&a, sizeof a);
    while (r == -EINTR);
    if (r < 0 && r != -EISCONN) {
        kfs_sys_close((int)fd);
        return r;
    }
    return fd_high((int)fd);
}

/* --- messages --------------------------------------------------------------------------------------------------------- */
static long msg_send(int fd, struct kfs_call *c)
{
    struct iovec iov[4] = {
        {&c->req, sizeof c->req},
        {(void *)(uintptr_t)c->path, c->req.path_len},
        {(void *)(uintptr_t)c->path2, c->req.path2_len},
        {(void *)(uintptr_t)c->data, c->req.data_len},
    };
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 4};
    long r;
    do
        r = kfs_sys3(SYS_sendmsg, fd, (long)&m, MSG_NOSIGNAL);
    while (r == -EINTR);
    return r < 0 ? r : r == (long)c->req.len ? 0 : -EPIPE;
}

static void fds_close(struct kfs_call *c)
{
    for (int i = 0; i < KFS_WIRE_FDS_MAX; i++) {
        if (c->fds[i] >= 0)
            kfs_sys_close(c->fds[i]);
        c->fds[i] = -1;
    }
}

static void fds_take(struct kfs_call *c, struct msghdr *m)
{
    struct cmsghdr *h = CMSG_FIRSTHDR(m);
    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
        return;
    size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    const int *p = (const int *)(const void *)CMSG_DATA(h);
    for (size_t i = 0; i < n && i < KFS_WIRE_FDS_MAX; i++)
        c->fds[i] = p[i];
}

/* 0: c->rep, c->reply and c->fds are filled. -EPIPE and the like: the connection is lost. */
static long msg_recv(int fd, struct kfs_call *c)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(KFS_WIRE_FDS_MAX * sizeof(int))];
    } ctl;
    struct iovec iov[2] = {{&c->rep, sizeof c->rep}, {c->reply, c->reply ? c->reply_cap : 0}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &ctl, .msg_controllen = sizeof ctl};
    long r;
    do {
        m.msg_controllen = sizeof ctl;
        m.msg_flags = 0;
        r = kfs_sys3(SYS_recvmsg, fd, (long)&m, MSG_CMSG_CLOEXEC);
    } while (r == -EINTR);
    if (r <= 0)
        return r < 0 ? r : -EPIPE;
    fds_take(c, &m);
    const struct kfs_wire_rep *p = &c->rep;
    size_t got = (size_t)r - sizeof *p;
    bool whole = !(m.msg_flags & MSG_TRUNC);
    if ((size_t)r < sizeof *p || p->magic != KFS_WIRE_MAGIC || p->op != c->req.op || p->seq != c->req.seq || p->len != sizeof *p + p->data_len ||
        (whole && got != p->data_len) || (!whole && got >= p->data_len)) {
        fds_close(c);
        return -EPIPE;
    }
    c->reply_len = got;
    return 0;
}

static long exchange(struct conn *cn, struct kfs_call *c)
{
    c->req.client[0] = cn->client[0];
    c->req.client[1] = cn->client[1];
    long r = msg_send(cn->fd, c);
    return r < 0 ? r : msg_recv(cn->fd, c);
}

static void req_complete(struct kfs_call *c)
{
    struct kfs_wire_req *q = &c->req;
    q->magic = KFS_WIRE_MAGIC;
    q->version = KFS_WIRE_VERSION;
    q->path_len = c->path ? (uint32_t)strlen(c->path) : 0;
    q->path2_len = c->path2 ? (uint32_t)strlen(c->path2) : 0;
    q->data_len = c->data ? (uint32_t)c->data_len : 0;
    q->len = (uint32_t)sizeof *q + q->path_len + q->path2_len + q->data_len;
}

/* --- connecting ------------------------------------------------------------------------------------------------------- */
__attribute__((noinline)) static long hello(struct conn *cn, struct kfs_vol *v)
{
    struct kfs_wire_hello h;
    struct kfs_call c;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_HELLO;
    h.more_dirs[0] = 0;
    c.path = v->m.url; /* one socket may serve several volumes; and a socket of another volume must not do */
    c.reply = &h;
    c.reply_cap = sizeof h;
    c.fds[0] = c.fds[1] = -1;
    req_complete(&c);
    long r = exchange(cn, &c);
    if (r == 0)
        r = c.rep.status;
    if (r == 0 && c.reply_len < offsetof(struct kfs_wire_hello, cache_dir))
        r = -EPROTO;
    if (r < 0) {
        fds_close(&c);
        return r;
    }
    return kfs_pre_hello(v, &h, c.fds[0], c.fds[1]);
}

static long conn_open(struct conn *cn, struct kfs_vol *v)
{
    struct stat st;
    conn_close(cn);
    long fd = sock_connect(v->m.socket);
    if (fd < 0)
        return fd;
    if (kfs_sys_fstat((int)fd, &st) < 0)
        return -EBADF;
    cn->fd = (int)fd;
    cn->sock_ino = st.st_ino;
    cn->vol = v;
    long r = hello(cn, v);
    if (r < 0)
        conn_close(cn);
    return r;
}

static uint64_t owner_word(bool busy)
{
    return (uint64_t)kfs_sys_getpid() << 1 | busy;
}

/* Ours now, or NULL. Prefer a slot that is connected to v. */
static struct conn *pool_take(struct kfs_vol *v)
{
    uint64_t mine = owner_word(true);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < CONNS; i++) {
            struct conn *c = &pool[i];
            uint64_t w = __atomic_load_n(&c->owner, __ATOMIC_ACQUIRE);
            bool foreign = w >> 1 != mine >> 1;
            if (!foreign && (w & 1))
                continue;
            bool fits = !foreign && c->fd >= 0 && c->vol == v;
            if ((round == 0 && !fits) || (round == 1 && !foreign && c->fd >= 0))
                continue;
            if (!__atomic_compare_exchange_n(&c->owner, &w, mine, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
                continue;
            if (foreign) { /* the parent's socket, or none */
                conn_close(c);
                client_new(c);
            }
            if (c->fd >= 0 && (c->vol != v || !conn_alive(c)))
                conn_close(c);
            return c;
        }
    }
    return NULL;
}

static void pool_give(struct conn *c)
{
    __atomic_store_n(&c->owner, owner_word(false), __ATOMIC_RELEASE);
}

void kfs_pre_rpc_drop(void)
{
    if (kfs_pre_in_vfork)
        return;
    uint64_t mine = owner_word(false);
    for (int i = 0; i < CONNS; i++) {
        struct conn *c = &pool[i];
        uint64_t w = mine;
        if (!__atomic_compare_exchange_n(&c->owner, &w, mine | 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        conn_close(c);
        pool_give(c);
    }
}

/* --- starting kfsd again ----------------------------------------------------------------------------------------------- */
static const char *env_find(const char *name, size_t n)
{
    for (char **e = environ; e && *e; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

/* The environment as it is, without what would load us into kfs-run. */
static void env_without_preload(const char **env, size_t cap)
{
    size_t n = 0;
    for (char **e = environ; e && *e && n + 1 < cap; e++)
        if (strncmp(*e, "LD_PRELOAD=", 11) != 0)
            env[n++] = *e;
    env[n] = NULL;
}

__attribute__((noinline)) static void kfsd_start(struct kfs_vol *v)
{
    const char *run = env_find(KFS_ENV_RUN, sizeof KFS_ENV_RUN - 1);
    if (!run || run[0] != '/' || (strncmp(v->m.url, "sqlite:", 7) != 0 && strncmp(v->m.url, "mysql:", 6) != 0))
        return;
    uint64_t now = kfs_pre_now_ns(false), next = __atomic_load_n(&start_next_ns, __ATOMIC_RELAXED);
    if (now < next || kfs_pre_in_vfork)
        return;
    if (!__atomic_compare_exchange_n(&start_next_ns, &next, now + START_EVERY_NS, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    char stack[4096] __attribute__((aligned(16)));
    const char *env[512];
    const char *argv[] = {"kfs-run", "--start", v->m.url, "--socket", v->m.socket, "--cache", v->m.cache_dir, NULL};
    env_without_preload(env, sizeof env / sizeof *env);
    long pid = kfs_sys_spawn(run, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env, stack + sizeof stack);
    if (pid <= 0)
        return;
    long r;
    do
        r = kfs_sys4(SYS_wait4, pid, 0, 0x40000000 /* __WALL */, 0);
    while (r == -EINTR);
}

/* Worth another try within the time? Sleeps a little. */
static bool wait_more(struct kfs_vol *v, long error, uint64_t *deadline_ns, long *backoff_ns)
{
    switch (error) {
    case -ECONNREFUSED:
    case -ENOENT:
    case -EPIPE:
    case -ECONNRESET:
    case -EAGAIN: /* the listener's queue is full */
    case -ESHUTDOWN:
    case -ENOTCONN:
        break;
    default:
        return false;
    }
    uint64_t now = kfs_pre_now_ns(false);
    if (!*deadline_ns) {
        *deadline_ns = now + RPC_WAIT_NS;
        *backoff_ns = BACKOFF_MIN_NS;
    }
    if (now > *deadline_ns)
        return false;
    if (error == -ECONNREFUSED || error == -ENOENT)
        kfsd_start(v);
    struct timespec t = {0, *backoff_ns};
    kfs_sys4(SYS_nanosleep, (long)&t, 0, 0, 0);
    *backoff_ns = *backoff_ns * 2 > BACKOFF_MAX_NS ? BACKOFF_MAX_NS : *backoff_ns * 2;
    return true;
}

/* --- the round trip ------------------------------------------------------------------------------------------------------ */
/* c NULL: only connect. 0 when an answer is there. */
static long converse(struct conn *cn, struct kfs_vol *v, struct kfs_call *c)
{
    uint64_t deadline_ns = 0;
    long backoff_ns = 0, r;
    for (;;) {
        bool fresh = cn->fd < 0;
        r = fresh ? conn_open(cn, v) : 0;
        if (r == 0)
            r = c ? exchange(cn, c) : 0;
        if (r == 0)
            return 0;
        if (cn->fd >= 0) { /* it may have been done */
            conn_close(cn);
            if (c)
                c->req.flags |= KFS_WIRE_RETRY;
            if (!fresh && !deadline_ns)
                continue; /* an idle connection that was closed long ago: at once on a new one */
        }
        if (!wait_more(v, r, &deadline_ns, &backoff_ns))
            return r == -ENOENT || r == -ECONNREFUSED || r == -EPIPE ? -EIO : r;
    }
}

static long with_conn(struct kfs_vol *v, struct kfs_call *c)
{
    struct conn own = {.fd = -1};
    struct conn *cn = kfs_pre_in_vfork ? NULL : pool_take(v);
    if (!cn) {
        cn = &own;
        client_new(cn);
    }
    if (c) {
        c->req.seq = ++cn->seq;
        c->req.flags &= ~KFS_WIRE_RETRY;
    }
    long r = converse(cn, v, c);
    if (cn == &own)
        conn_close(cn);
    else
        pool_give(cn);
    return r;
}

int kfs_pre_connect(struct kfs_vol *v)
{
    return (int)with_conn(v, NULL);
}

long kfs_pre_rpc(struct kfs_vol *v, struct kfs_call *c)
{
    for (int i = 0; i < KFS_WIRE_FDS_MAX; i++)
        c->fds[i] = -1;
    c->reply_len = 0;
    if (c->data_len > KFS_WIRE_DATA_MAX)
        return -E2BIG;
    if (c->data && !kfs_guard_can_read(c->data, c->data_len))
        return -EFAULT;
    req_complete(c);
    long r = with_conn(v, c);
    if (r < 0)
        return r;
    kfs_pre_count(KFS_TIER_KFSD);
    bool gives = c->req.op == KFS_OP_OPEN || c->req.op == KFS_OP_ARRIVAL || c->req.op == KFS_OP_SETTLE;
    if (!gives || c->rep.status != 0)
        fds_close(c);
    if (c->rep.status == 0 && c->rep.data_len > c->reply_len && c->reply)
        return -ERANGE;
    return c->rep.status;
}

long kfs_pre_rpc_at(struct kfs_loc *loc, struct kfs_call *c)
{
    char room[KFS_PATH_MAX]; /* an escape's path may come where the caller has no room */
    void *reply = c->reply;
    size_t cap = c->reply_cap;
    bool small = !reply || cap < sizeof room;
    for (;;) {
        if (small) {
            c->reply = room;
            c->reply_cap = sizeof room;
        }
        c->req.ino = loc->base;
        c->path = loc->rel;
        long r = kfs_pre_rpc(loc->vol, c);
        const char *data = c->reply;
        c->reply = reply;
        c->reply_cap = cap;
        if (r != KFS_WIRE_ESCAPE_ABS && r != KFS_WIRE_ESCAPE_UP) {
            if (small && reply && r >= 0) {
                if (!kfs_guard_can_write(reply, c->reply_len < cap ? c->reply_len : cap))
                    return -EFAULT;
                memcpy(reply, data, c->reply_len < cap ? c->reply_len : cap);
                if (c->rep.data_len > cap)
                    r = -ERANGE;
                c->reply_len = c->reply_len < cap ? c->reply_len : cap;
            }
            return r == -ERANGE && !reply ? 0 : r;
        }
        r = kfs_pre_escape(loc, (int)r, data, c->reply_len);
        if (r != KFS_OURS)
            return r == KFS_HOST_AT ? 1 : r < 0 ? r : -ENOENT;
    }
}
