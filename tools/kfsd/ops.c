#include "tools/kfsd/kfsd.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/rand.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    bool changes;
} ops[KFS_OP_END] = {
#define WIRE_OP(op, number, alters, doc) [number] = {.name = #op, .changes = alters},
#include "base/pure/wire_ops.def"
#undef WIRE_OP
};

static kfsd_handler *handler_of(unsigned op)
{
    switch (op) {
    case KFS_OP_HELLO: return kfsd_conn_hello;
    case KFS_OP_LOOKUP: return kfsd_op_lookup;
    case KFS_OP_OPEN: return kfsd_op_open;
    case KFS_OP_CLOSE: return kfsd_op_close;
    case KFS_OP_FSYNC: return kfsd_op_fsync;
    case KFS_OP_READDIR: return kfsd_op_readdir;
    case KFS_OP_MKDIR: return kfsd_op_mkdir;
    case KFS_OP_UNLINK: return kfsd_op_unlink;
    case KFS_OP_RENAME: return kfsd_op_rename;
    case KFS_OP_LINK: return kfsd_op_link;
    case KFS_OP_SYMLINK: return kfsd_op_symlink;
    case KFS_OP_MKNOD: return kfsd_op_mknod;
    case KFS_OP_READLINK: return kfsd_op_readlink;
    case KFS_OP_SETATTR: return kfsd_op_setattr;
    case KFS_OP_GETXATTR: return kfsd_op_getxattr;
    case KFS_OP_LISTXATTR: return kfsd_op_listxattr;
    case KFS_OP_SETXATTR: return kfsd_op_setxattr;
    case KFS_OP_REMOVEXATTR: return kfsd_op_removexattr;
    case KFS_OP_STATFS: return kfsd_op_statfs;
    case KFS_OP_PATHOF: return kfsd_op_pathof;
    case KFS_OP_CONTROL: return kfsd_op_control;
    case KFS_OP_ARRIVAL: return kfsd_op_arrival;
    case KFS_OP_WANT: return kfsd_op_want;
    case KFS_OP_SETTLE: return kfsd_op_settle;
    default: return NULL;
    }
}

const char *kfsd_op_name(unsigned op)
{
    return op < KFS_OP_END && ops[op].name ? ops[op].name : "?";
}

/* The segment of a predecessor that did not end regularly may still be trusted by its readers: nothing changes before they have lost faith in it. */
static void wait_ready(const struct kfsd_vol *v)
{
    for (uint64_t now; (now = kfs_clock_mono_ns()) < v->ready_ns;)
        usleep((useconds_t)((v->ready_ns - now) / 1000 + 1));
}

/* What became of a re-sent request? 1: r->rep holds the recorded answer. */
static int replay(struct kfsd_req *r)
{
    /* The first one may still be running, on the connection that its client gave up. */
    while (kfsd_client_busy(r->w->client, r->w->seq, r->conn))
        usleep(1000);
    struct kfs_op_result res;
    int rc = kfs_meta_op_find(r->vol->meta, &r->op, &res, &r->err);
    if (rc <= 0)
        return rc;
    if (res.status < 0)
        return res.status;
    r->rep.value = res.value;
    if (r->w->op == KFS_OP_OPEN) {
        int flags = (int)kfs_wire_oflags(r->w->oflags) & ~(O_CREAT | O_EXCL | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY) | O_DIRECTORY);
        rc = kfsd_file_open(r->vol, res.ino, flags, &r->fds[0], &r->err);
        if (rc < 0)
            return rc;
        r->rep.value |= ((int)r->w->oflags & O_ACCMODE) != O_RDONLY ? KFS_OPEN_WRITER : 0;
        struct stat st;
        if (fstat(r->fds[0], &st) == 0) {
            r->rep.dev = st.st_dev;
            r->rep.cache_ino = st.st_ino;
        }
    }
    if (res.ino && kfsd_attr_get(r->vol, res.ino, &r->rep.attr, NULL) < 0)
        memset(&r->rep.attr, 0, sizeof r->rep.attr); /* gone meanwhile: it was there when the answer was due */
    return 1;
}

static void give_back_fds(struct kfsd_req *r)
{
    for (int i = 0; i < KFS_WIRE_FDS_MAX; i++) {
        if (r->fds[i] >= 0 && !r->fd_borrowed[i])
            close(r->fds[i]);
        r->fds[i] = -1;
        r->fd_borrowed[i] = false;
    }
}

#define RETRY_US_MIN 1000u
#define RETRY_US_MAX 500000u

/* Run a request; again when the database says so, or cannot be reached: the program waits as for a slow disk, up to rpc_wait_s. A change whose COMMIT may or
 * may not have taken place is looked up under its id before it runs again. */
static int run_patiently(struct kfsd_req *r, kfsd_handler *run, bool changes)
{
    uint64_t until = 0;
    unsigned pause_us = RETRY_US_MIN;
    for (int rc = run(r);;) {
        if (rc != -EAGAIN || !r->err.transient)
            return rc;
        uint64_t now = kfs_clock_mono_ns();
        if (!until)
            until = now + (uint64_t)kfs_conf_number(&kfsd.conf, KFS_CONF_RPC_WAIT_S) * 1000000000u;
        if (now >= until || atomic_load(&kfsd.stop)) {
            r->err.transient = false;
            return -EIO;
        }
        static struct kfs_log_limit limit;
        kfs_log_limited(&limit, KFS_LOG_WARN, "%s of '%s' waits: %s", kfsd_op_name(r->w->op), r->vol ? r->vol->v->url : "?", r->err.msg);
        usleep(pause_us / 2 + (unsigned)(kfs_rand_u64() % (pause_us / 2 + 1)));
        pause_us = pause_us * 2 < RETRY_US_MAX ? pause_us * 2 : RETRY_US_MAX;
        give_back_fds(r);
        r->out_len = 0;
        r->err = (struct kfs_err){0};
        rc = changes && r->w->seq ? replay(r) : 0;
        if (rc > 0)
            return 0;
        if (rc == 0)
            rc = run(r);
    }
}

void kfsd_op_run(struct kfsd_req *r)
{
    unsigned op = r->w->op;
    kfsd_handler *run = handler_of(op);
    int rc = -ENOSYS;
    if (run && (r->vol || op == KFS_OP_HELLO)) {
        if (r->vol)
            atomic_fetch_add_explicit(&r->vol->ops[op], 1, memory_order_relaxed);
        rc = 0;
        if (ops[op].changes) {
            wait_ready(r->vol);
            if ((r->w->flags & KFS_WIRE_RETRY) && r->w->seq)
                rc = replay(r);
        }
        KFS_FAULT("op.before");
        rc = rc == 0 ? run_patiently(r, run, ops[op].changes) : rc > 0 ? 0 : rc;
    }
    /* Whoever closes or syncs learns that his data is not stored; everybody else is served by the next kfsd. */
    if ((rc == -ENOENT || rc == -EIO) && r->vol && op != KFS_OP_CLOSE && op != KFS_OP_FSYNC)
        kfsd_cache_check(r->vol);
    if (r->err.code && (rc == -EIO || rc == -ENOSPC || rc == -EUCLEAN)) {
        static struct kfs_log_limit limit;
        kfs_log_limited(&limit, KFS_LOG_ERROR, "%s failed: %s", kfsd_op_name(op), r->err.msg);
    }
    r->rep.status = rc;
    if (rc < 0 && rc != KFS_WIRE_ESCAPE_ABS && rc != KFS_WIRE_ESCAPE_UP && op != KFS_OP_CONTROL)
        r->out_len = 0;
    KFS_FAULT("op.before_answer");
}
