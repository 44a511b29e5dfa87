/* preload/do_sock.c — Unix sockets whose address is a path in a volume
 *
 * Model    The volume has the socket's inode; the kernel's socket stands for it in CACHE/n (blockstore/cache_node.c says by which names). bind makes the
 *          inode, then binds there; connect and sendto ask the metadata for permission and get a descriptor of the kernel's node, whose name below
 *          /proc/self/fd is the address that the kernel sees. The kernel remembers the address of bind: getsockname and getpeername put back the program's.
 * Limits   Only kfsd's own user can bind. accept, recvfrom and recvmsg tell the kernel's address of a bound peer, which sendto takes as well.
 */
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define PATH_OFF offsetof(struct sockaddr_un, sun_path)
#define NODE_NAME_MAX 32 /* "INO.b" */

/* The path of a Unix socket address, if it is one that may be ours. path: sizeof(struct sockaddr_un) + 1 bytes. */
static bool sock_path(const struct sockaddr *addr, unsigned len, char *path)
{
    if (!kfs_pre_vol_count || len <= PATH_OFF || len > sizeof(struct sockaddr_un) || !kfs_guard_can_read(addr, len) || addr->sa_family != AF_UNIX)
        return false;
    const struct sockaddr_un *u = (const void *)addr;
    if (!u->sun_path[0])
        return false;
    memcpy(path, u->sun_path, len - PATH_OFF);
    path[len - PATH_OFF] = 0;
    return kfs_pre_maybe(AT_FDCWD, path);
}

/* 0, or -ENAMETOOLONG. */
static long address_make(struct sockaddr_un *u, unsigned *ret_len, const char *path)
{
    size_t n = strlen(path);
    if (n >= sizeof u->sun_path)
        return -ENAMETOOLONG;
    memset(u, 0, sizeof *u);
    u->sun_family = AF_UNIX;
    memcpy(u->sun_path, path, n + 1);
    *ret_len = (unsigned)(PATH_OFF + n + 1);
    return 0;
}

static char *put_text(char *at, const char *text)
{
    size_t n = strlen(text);
    memcpy(at, text, n + 1);
    return at + n;
}

static char *put_fd_name(char *at, int fd)
{
    char digits[12];
    int n = 0;
    unsigned u = (unsigned)fd;
    at = put_text(at, "/proc/self/fd/");
    do
        digits[n++] = (char)('0' + u % 10);
    while (u /= 10);
    while (n)
        *at++ = digits[--n];
    *at = 0;
    return at;
}

static void put_node(char *at, kfs_ino_t ino, const char *end)
{
    char digits[16];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[ino & 15];
    while (ino >>= 4);
    while (n)
        *at++ = digits[--n];
    put_text(at, end);
}

/* --- bind ------------------------------------------------------------------------------------------------------------------- */
/* Bind fd in CACHE/n. The directory's own name, or, where an address cannot hold it, its descriptor's. 0 or -errno. */
static long bind_node(int fd, int dir, const struct kfs_vol *v, kfs_ino_t ino, const char *given)
{
    char node[NODE_NAME_MAX], bound[NODE_NAME_MAX], text[NODE_NAME_MAX], path[KFS_PATH_MAX + NODE_NAME_MAX + 8];
    struct sockaddr_un u;
    unsigned len = 0;
    put_node(node, ino, "");
    put_node(bound, ino, ".b");
    put_node(text, ino, ".n");
    char *at = put_text(put_text(path, v->m.cache_dir), "/n/");
    put_text(at, bound);
    if (address_make(&u, &len, path) < 0) {
        at = put_text(put_fd_name(path, dir), "/");
        put_text(at, bound);
        long r = address_make(&u, &len, path);
        if (r < 0)
            return r;
    }
    if (kfs_real.bind(fd, (const struct sockaddr *)&u, len) < 0)
        return -errno;
    (void)kfs_sys3(SYS_fchmodat, dir, (long)bound, 0666);
    (void)kfs_sys3(SYS_symlinkat, (long)given, dir, (long)text);
    (void)kfs_sys3(SYS_unlinkat, dir, (long)node, 0); /* of an open between the two steps */
    return kfs_sys6(SYS_linkat, dir, (long)bound, dir, (long)node, 0, 0);
}

static long bind_loc(int fd, struct kfs_loc *loc, const char *given)
{
    struct kfs_call c;
    char path[KFS_PATH_MAX + 8];
    long r = kfs_pre_attach(loc->vol);
    if (r < 0)
        return r;
    if (!(loc->vol->flags & KFS_HELLO_DIRECT))
        return -EOPNOTSUPP;
    memset(&c, 0, offsetof(struct kfs_call, rep));
    c.req.op = KFS_OP_MKNOD;
    c.req.flags = KFS_WIRE_NOFOLLOW;
    c.req.mode = S_IFSOCK | 0777;
    c.req.umask = kfs_pre_umask();
    r = kfs_pre_rpc_at(loc, &c);
    if (r != 0)
        return r == -EEXIST ? -EADDRINUSE : r;
    kfs_ino_t ino = c.rep.attr.ino;
    put_text(put_text(path, loc->vol->m.cache_dir), "/n");
    long dir = kfs_sys_openat(KFS_SYS_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    r = dir < 0 ? dir : bind_node(fd, (int)dir, loc->vol, ino, given);
    if (dir >= 0)
        kfs_sys_close((int)dir);
    if (r < 0) { /* no socket, or bound already: then there is no name either */
        memset(&c, 0, offsetof(struct kfs_call, rep));
        c.req.op = KFS_OP_UNLINK;
        c.req.flags = KFS_WIRE_NOFOLLOW;
        c.req.value2 = ino;
        (void)kfs_pre_rpc_at(loc, &c);
    }
    return r;
}

int kfs_do_bind(int fd, const struct sockaddr *addr, unsigned len)
{
    char path[sizeof(struct sockaddr_un) + 8];
    struct kfs_loc loc;
    struct sockaddr_un u;
    if (!sock_path(addr, len, path))
        return kfs_real.bind(fd, addr, len);
    long r = kfs_pre_where_nofollow(AT_FDCWD, path, &loc);
    if (r == KFS_HOST)
        return kfs_real.bind(fd, addr, len);
    if (r == KFS_OURS) {
        r = bind_loc(fd, &loc, path);
        if (r <= 0)
            return (int)kfs_pre_ret(r);
    }
    if (r >= 0)
        r = address_make(&u, &len, loc.host);
    return r < 0 ? (int)kfs_pre_ret(r) : kfs_real.bind(fd, (const struct sockaddr *)&u, len);
}

/* --- connect, sendto ------------------------------------------------------------------------------------------------------------ */
/* The address for the kernel into u, and a descriptor that it needs, -1 for none. 0; 1: the address as it came; -errno. */
static long reach(const struct sockaddr *addr, unsigned len, struct sockaddr_un *u, unsigned *ret_len, int *ret_fd)
{
    char path[sizeof(struct sockaddr_un) + 8], name[64];
    struct kfs_loc loc;
    struct kfs_call c;
    *ret_fd = -1;
    if (!sock_path(addr, len, path))
        return 1;
    long r = kfs_pre_where(AT_FDCWD, path, &loc);
    if (r == KFS_HOST)
        return 1;
    if (r == KFS_OURS) {
        memset(&c, 0, offsetof(struct kfs_call, rep));
        c.req.op = KFS_OP_LOOKUP;
        c.req.value = 2; /* W_OK */
        r = kfs_pre_rpc_at(&loc, &c);
        if (r == 0 && !S_ISSOCK(c.rep.attr.mode))
            r = -ECONNREFUSED;
        if (r == 0) {
            loc.base = c.rep.attr.ino;
            loc.rel = "";
            r = kfs_pre_open_loc(&loc, O_PATH | O_CLOEXEC, 0, 0);
            if (r >= 0) {
                *ret_fd = (int)r;
                put_fd_name(name, (int)r);
                return address_make(u, ret_len, name);
            }
        }
    }
    return r < 0 ? r : address_make(u, ret_len, loc.host);
}

static void reached(int fd)
{
    if (fd < 0)
        return;
    kfs_pre_fd_not(fd);
    kfs_sys_close(fd);
}

int kfs_do_connect(int fd, const struct sockaddr *addr, unsigned len)
{
    struct sockaddr_un u;
    unsigned n;
    int node;
    long r = reach(addr, len, &u, &n, &node);
    if (r != 0)
        return r == 1 ? kfs_real.connect(fd, addr, len) : (int)kfs_pre_ret(r);
    int done = kfs_real.connect(fd, (const struct sockaddr *)&u, n);
    reached(node);
    return done;
}

ssize_t kfs_do_sendto(int fd, const void *buf, size_t size, int flags, const struct sockaddr *addr, unsigned len)
{
    struct sockaddr_un u;
    unsigned n;
    int node;
    long r = addr ? reach(addr, len, &u, &n, &node) : 1;
    if (r != 0)
        return r == 1 ? kfs_real.sendto(fd, buf, size, flags, addr, len) : (ssize_t)kfs_pre_ret(r);
    ssize_t done = kfs_real.sendto(fd, buf, size, flags, (const struct sockaddr *)&u, n);
    reached(node);
    return done;
}

/* --- names -------------------------------------------------------------------------------------------------------------------------- */
/* Where in u the path is that bind_node made ("…/n/INO.b"): the program's own takes its place. Returns the new length. */
static unsigned put_back(struct sockaddr_un *u, unsigned len)
{
    char path[sizeof u->sun_path + 1], name[KFS_PATH_MAX + sizeof path], text[sizeof u->sun_path + 1];
    memcpy(path, u->sun_path, sizeof u->sun_path);
    path[sizeof u->sun_path] = 0;
    size_t n = strlen(path);
    char *slash = strrchr(path, '/');
    if (!slash || n < 4 || path[n - 2] != '.' || path[n - 1] != 'b')
        return len;
    path[n - 1] = 'n';
    bool by_fd = strncmp(path, "/proc/self/fd/", 14) == 0;
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        char *at = put_text(put_text(name, kfs_pre_vols[i].m.cache_dir), "/n");
        if (!by_fd && ((size_t)(slash - path) != (size_t)(at - name) || memcmp(path, name, (size_t)(at - name)) != 0))
            continue;
        put_text(at, slash);
        long got = kfs_sys_readlinkat(KFS_SYS_FDCWD, name, text, sizeof u->sun_path);
        if (got <= 0)
            continue;
        text[got] = 0;
        memset(u->sun_path, 0, sizeof u->sun_path);
        memcpy(u->sun_path, text, (size_t)got);
        return (unsigned)(PATH_OFF + (size_t)got + ((size_t)got < sizeof u->sun_path));
    }
    return len;
}

static int name_of(int (*real)(int, struct sockaddr *, unsigned *), int fd, struct sockaddr *addr, unsigned *len)
{
    union {
        struct sockaddr_storage any;
        struct sockaddr_un u;
    } name;
    unsigned n = sizeof name;
    if (!kfs_pre_vol_count || !kfs_guard_can_read(len, sizeof *len) || *len > INT_MAX)
        return real(fd, addr, len);
    memset(&name, 0, sizeof name);
    if (real(fd, (struct sockaddr *)&name, &n) < 0)
        return -1;
    if (name.any.ss_family == AF_UNIX && n > PATH_OFF && n <= sizeof name.u)
        n = put_back(&name.u, n);
    if (!kfs_guard_can_write(addr, n < *len ? n : *len))
        return (int)kfs_pre_ret(-EFAULT);
    memcpy(addr, &name, n < *len ? n : *len);
    *len = n;
    return 0;
}

int kfs_do_getsockname(int fd, struct sockaddr *addr, unsigned *len)
{
    return name_of(kfs_real.getsockname, fd, addr, len);
}

int kfs_do_getpeername(int fd, struct sockaddr *addr, unsigned *len)
{
    return name_of(kfs_real.getpeername, fd, addr, len);
}
