/* tests/fuzz/fuzz_wire.c — any messages to kfsd: each is answered well-formed, or the connection is dropped; kfsd goes on
 *
 * What     kfsd's own code, from the packet to the volume and back, in one process: no listener, no workers, a volume in a scratch directory that grows
 *          from input to input (what one left behind is a state that the next one meets).
 * Input    Records, each a connection's next message: how[1], then as struct record says, then path, path2, data. how bit 0: as it is, without repair;
 *          otherwise magic, version, operation and lengths are made right, so that the handlers are reached. Bit 1: another user. Bit 2: a new connection.
 */
#include "tests/fuzz/scratch.h"
int kfsd_main(int argc, char **argv);
#define main kfsd_main
#define serve volumes_serve
#include "tools/kfsd/main.c"
#undef main
#undef serve
#include "tools/kfsd/server.c"

static struct kfsd_vol *vol;
static struct scratch *room;

static void set_up(void)
{
    struct kfs_err err = {0};
    static char url[300], cache[300];
    if (vol)
        return;
    snprintf(url, sizeof url, "sqlite:%s/v.db", scratch());
    snprintf(cache, sizeof cache, "%s/cache", scratch());
    (void)setenv("KFS_CONFIG", "/dev/null", 1);
    kfsd.opt.ready_fd = -1;
    kfsd.opt.cache_dir = cache;
    kfsd.opt.run_dir = scratch_dir;
    kfsd.opt.create = true;
    kfs_log_level_set(KFS_LOG_ERROR);
    MUST(kfs_conf_init(&kfsd.conf, &err) == 0);
    kfsd.epfd = epoll_create1(EPOLL_CLOEXEC);
    vol = calloc(1, sizeof *vol);
    room = malloc(sizeof *room);
    MUST(vol && room && kfsd.epfd >= 0);
    kfsd.vols = vol;
    kfsd.vol_count = 1;
    if (vol_open(vol, url, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
}

struct pair {
    struct kfsd_conn *c;
    int fd; /* the client's end */
};

static void pair_open(struct pair *p, bool other_user)
{
    int fds[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    struct kfsd_conn *c = calloc(1, sizeof *c);
    MUST(c);
    c->kind = CONN;
    c->fd = fds[0];
    c->of_listener = vol;
    c->cred.uid = other_user ? 1000 : geteuid();
    c->cred.gid = other_user ? 1000 : getegid();
    atomic_fetch_add(&kfsd.conn_count, 1);
    c->next = conns;
    c->prev = &conns;
    if (conns)
        conns->prev = &c->next;
    conns = c;
    p->c = c;
    p->fd = fds[1];
}

static void pair_close(struct pair *p)
{
    conn_end(p->c);
    close(p->fd);
}

/* What came back. The answer's form does not depend on the question's. */
static void answer_check(int fd, const struct kfs_wire_req *q)
{
    static unsigned char buf[sizeof(struct kfs_wire_rep) + KFS_WIRE_DATA_MAX + KFS_PATH_MAX];
    union {
        char buf[CMSG_SPACE(sizeof(int) * 16)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof buf};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf};
    struct kfs_wire_rep rep;
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    MUST(n >= (ssize_t)sizeof rep && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)));
    memcpy(&rep, buf, sizeof rep);
    MUST(rep.magic == KFS_WIRE_MAGIC && rep.op == q->op && rep.seq == q->seq && rep.len == (uint32_t)n && rep.len == sizeof rep + rep.data_len);
    MUST(rep.status == 0 || (rep.status < 0 && rep.status > -4096) || rep.status == KFS_WIRE_ESCAPE_ABS || rep.status == KFS_WIRE_ESCAPE_UP);
    uint32_t fds = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        fds += (uint32_t)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    MUST(fds == rep.fd_count && fds <= KFS_WIRE_FDS_MAX);
    close_received(&m);
}

static bool take(const uint8_t **p, size_t *left, void *to, size_t n)
{
    if (*left < n)
        return false;
    memcpy(to, *p, n);
    *p += n;
    *left -= n;
    return true;
}

struct record { /* small numbers: mutations meet each other's names and inodes */
    uint8_t op, flags, ino, ino2, valid, path_len, path2_len, data_len;
    uint8_t seq, mode_hi, value_hi, size_hi;
    uint16_t mode, oflags, umask, value;
    uint32_t size;
} __attribute__((packed));

static void fill(struct kfs_wire_req *q, const struct record *r)
{
    *q = (struct kfs_wire_req){.magic = KFS_WIRE_MAGIC, .version = KFS_WIRE_VERSION, .client = {1, 2}, .seq = r->seq};
    q->op = (uint16_t)(1 + r->op % (KFS_OP_END - 1));
    q->flags = r->flags;
    q->ino = r->ino < 250 ? r->ino : ~0ULL >> (r->ino & 3);
    q->ino2 = r->ino2 < 250 ? r->ino2 : ~0ULL >> (r->ino2 & 3);
    q->value = r->value | (uint64_t)r->value_hi << 56;
    q->value2 = r->value & 15;
    q->size_bytes = r->size | (uint64_t)r->size_hi << 56;
    q->atime_s = (int64_t)((uint64_t)r->value_hi << 56 | r->size);
    q->mtime_s = q->atime_s;
    q->atime_ns = q->mtime_ns = r->size;
    q->valid = r->valid;
    q->oflags = r->oflags | (uint32_t)r->value_hi << 16;
    q->mode = r->mode | (uint32_t)r->mode_hi << 24;
    q->umask = r->umask;
    q->uid = r->value & 1 ? 1000 : 0;
    q->gid = r->value & 2 ? ~0U : 1000;
}

/* One message from the input into buf. Its length, 0: the input is over. */
static size_t message(const uint8_t **p, size_t *left, uint8_t how, unsigned char *buf, size_t cap)
{
    struct record r;
    struct kfs_wire_req q;
    if (how & 1) {
        uint16_t n;
        if (!take(p, left, &n, sizeof n))
            return 0;
        size_t want = n % cap;
        want = want < *left ? want : *left;
        return take(p, left, buf, want) ? want : 0;
    }
    if (!take(p, left, &r, sizeof r))
        return 0;
    fill(&q, &r);
    q.path_len = r.path_len < *left ? r.path_len : (uint32_t)*left;
    size_t rest = *left - q.path_len;
    q.path2_len = r.path2_len < rest ? r.path2_len : (uint32_t)rest;
    rest -= q.path2_len;
    q.data_len = r.data_len < rest ? r.data_len : (uint32_t)rest;
    size_t body = (size_t)q.path_len + q.path2_len + q.data_len;
    q.len = (uint32_t)(sizeof q + body);
    memcpy(buf, &q, sizeof q);
    return take(p, left, buf + sizeof q, body) ? sizeof q + body : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char buf[4096];
    struct pair p;
    uint8_t how;
    set_up();
    pair_open(&p, false);
    p.c->vol = vol;
    for (int count = 0; count < 32 && take(&data, &size, &how, 1); count++) {
        size_t n = message(&data, &size, how, buf, sizeof buf);
        if (!n)
            break;
        if (how & 4) {
            pair_close(&p);
            pair_open(&p, how & 2);
            p.c->vol = how & 8 ? NULL : vol;
            if (p.c->vol)
                atomic_fetch_add(&vol->clients, 1);
        }
        struct kfs_wire_req q = {0};
        memcpy(&q, buf, n < sizeof q ? n : sizeof q);
        MUST(send(p.fd, buf, n, MSG_NOSIGNAL) == (ssize_t)n);
        if (serve(p.c, room)) {
            answer_check(p.fd, &q);
        } else {
            pair_close(&p);
            pair_open(&p, false);
            p.c->vol = vol;
        }
    }
    pair_close(&p);
    return 0;
}
