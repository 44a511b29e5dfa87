/* preload/fdtab.c — what we remember about descriptors
 *
 * Model    The kernel is the truth (docs/design.md, section 3): a descriptor is ours if /proc/self/fd/N leads into a cache directory, or to content in memory. One byte per number
 *          remembers the answer; for ours a row remembers which inode. A row is believed only while the kernel's fstat says the same (device, inode), so
 *          numbers that were closed and used again behind our back are noticed.
 * States   UNKNOWN look; HOST not ours, but perhaps a directory above a prefix; NOT not ours at all; ABOVE a host directory from which a prefix can be
 *          reached; OURS see the row; STANDIN likewise, a file that is still arriving.
 * Threads  Byte and row are written without a lock: row first, byte last (release). A torn row fails the fstat check and is looked at anew.
 */
#include "preload/real.h"
#include "preload/shim.h"
#include "preload/standin.h"
#include "base/pure/arrival.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define FD_MAX KFS_FD_NUMBERS /* numbers beyond are looked at on each use */

enum { UNKNOWN = KFS_FD_STATE_UNKNOWN, HOST, NOT, ABOVE, OURS, STANDIN = KFS_FD_STATE_STANDIN };
static_assert(OURS < STANDIN, "states");

unsigned char kfs_pre_fd_states[FD_MAX];
int kfs_pre_standin_seen;
static int standin_top = -1; /* no higher number is a stand-in, as far as the table knows */

struct row {
    uint64_t ino, dev, cache_ino, version, key;
    uint8_t vol, kind, writer;
};
static struct row *rows; /* FD_MAX of them, address space only until used */

static struct row *rows_get(bool make)
{
    struct row *r = __atomic_load_n(&rows, __ATOMIC_ACQUIRE);
    if (r || !make)
        return r;
    long p = kfs_sys_mmap(NULL, FD_MAX * sizeof *r, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p < 0 && p > -4096)
        return NULL;
    if (__atomic_compare_exchange_n(&rows, &r, (struct row *)p, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return (struct row *)p;
    kfs_sys_munmap((void *)p, FD_MAX * sizeof *r);
    return r;
}

static inline int state_of(int fd)
{
    return (unsigned)fd < FD_MAX ? __atomic_load_n(&kfs_pre_fd_states[fd], __ATOMIC_ACQUIRE) : UNKNOWN;
}

static void state_set(int fd, int state)
{
    if ((unsigned)fd < FD_MAX && !kfs_pre_in_vfork)
        __atomic_store_n(&kfs_pre_fd_states[fd], (unsigned char)state, __ATOMIC_RELEASE);
}

bool kfs_pre_fd_maybe(int fd)
{
    if (!kfs_pre_vol_count || fd < 0)
        return false;
    int s = state_of(fd);
    return s == UNKNOWN || s == OURS || s == STANDIN;
}

bool kfs_pre_fd_at_maybe(int fd)
{
    return kfs_pre_vol_count && fd >= 0 && state_of(fd) != NOT;
}

bool kfs_pre_fd_reader(int fd)
{
    const struct row *r = rows_get(false);
    int s = state_of(fd);
    return (s == OURS && r && !r[fd].writer) || s == STANDIN;
}

/* There are stand-ins in this process, up to this number. */
static void standin_note(int fd)
{
    __atomic_store_n(&kfs_pre_standin_seen, 1, __ATOMIC_RELAXED);
    int top = __atomic_load_n(&standin_top, __ATOMIC_RELAXED);
    while (fd > top && !__atomic_compare_exchange_n(&standin_top, &top, fd, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

void kfs_pre_fd_set(int fd, const struct kfs_fdinfo *i)
{
    if (i->writer && !kfs_pre_in_vfork)
        __atomic_store_n(&i->vol->wrote, 1, __ATOMIC_RELAXED);
    if ((unsigned)fd >= FD_MAX || kfs_pre_in_vfork)
        return;
    struct row *r = rows_get(true);
    if (!r) {
        state_set(fd, UNKNOWN);
        return;
    }
    r[fd] = (struct row){i->ino, i->dev, i->cache_ino, i->version, i->key, (uint8_t)i->vol->index, i->kind, i->writer};
    if (i->standin)
        standin_note(fd);
    state_set(fd, i->standin ? STANDIN : OURS);
}

void kfs_pre_fd_not(int fd)
{
    state_set(fd, HOST);
}

void kfs_pre_fd_unknown(int fd)
{
    state_set(fd, UNKNOWN);
}

void kfs_pre_fd_dup(int from, int to)
{
    struct row *r = rows_get(false);
    int s = state_of(from);
    if ((s == OURS || s == STANDIN) && r && (unsigned)to < FD_MAX && !kfs_pre_in_vfork)
        r[to] = r[from];
    if (s == STANDIN)
        standin_note(to);
    state_set(to, (unsigned)from < FD_MAX ? s : UNKNOWN);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */
/* "/proc/self/fd/N"; cap >= 32. */
static void fd_link_name(int fd, char *buf)
{
    char digits[12];
    int n = 0;
    unsigned u = (unsigned)fd;
    do
        digits[n++] = (char)('0' + u % 10);
    while (u /= 10);
    memcpy(buf, "/proc/self/fd/", 14);
    buf += 14;
    while (n)
        *buf++ = digits[--n];
    *buf = 0;
}

static size_t hex_get(const char *p, size_t len, uint64_t *ret)
{
    uint64_t v = 0;
    size_t i = 0;
    for (; i < len && i < 16; i++) {
        char c = p[i];
        unsigned d = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 16;
        if (d == 16)
            break;
        v = v << 4 | d;
    }
    *ret = v;
    return i;
}

/* What follows "CACHE/": "f/XX/INO-VERSION", "w/INO", "d/INO" or "n/INO", each perhaps with " (deleted)". */
static int cache_rest(const char *p, size_t len, struct kfs_fdinfo *ret)
{
    uint64_t version;
    size_t n;
    if (len < 3 || p[1] != '/')
        return 0;
    char sort = p[0];
    p += 2;
    len -= 2;
    if (sort == 'f') {
        if (len < 4 || p[2] != '/')
            return 0;
        p += 3;
        len -= 3;
    } else if (sort != 'w' && sort != 'd' && sort != 'n') {
        return 0;
    }
    n = hex_get(p, len, &ret->ino);
    if (!n)
        return 0;
    p += n;
    len -= n;
    if (sort == 'f') {
        if (!len || *p != '-' || !(n = hex_get(p + 1, len - 1, &version)))
            return 0;
        p += n + 1;
        len -= n + 1;
    }
    if (len && !(len == 10 && memcmp(p, " (deleted)", 10) == 0))
        return 0;
    ret->kind = sort == 'd' ? KFS_FD_DIR : KFS_FD_FILE;
    return 1;
}

static int below_dir(const char *dir, size_t n, const char *name, size_t len, struct kfs_fdinfo *ret)
{
    return len > n + 1 && name[n] == '/' && memcmp(name, dir, n) == 0 && cache_rest(name + n + 1, len - n - 1, ret);
}

int kfs_pre_cache_name(const char *name, size_t len, struct kfs_fdinfo *ret)
{
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        struct kfs_vol *v = &kfs_pre_vols[i];
        int ours = below_dir(v->m.cache_dir, v->m.cache_dir_len, name, len, ret);
        const char *p = kfs_pre_more_dirs(v), *end;
        for (; !ours && (end = strchr(p, '\n')); p = end + 1)
            ours = below_dir(p, (size_t)(end - p), name, len, ret);
        if (ours) {
            ret->vol = v;
            return 1;
        }
    }
    return 0;
}

/* "/memfd:kfsm-INO-VOLUME (deleted)": content in memory, of a volume that we have. */
static int memory_name(const char *name, size_t len, struct kfs_fdinfo *ret)
{
    static const char prefix[] = "/memfd:" KFS_MEMORY_NAME;
    size_t n = sizeof prefix - 1, digits;
    uint64_t ino, tag;
    if (len < n || memcmp(name, prefix, n) != 0 || !(digits = hex_get(name + n, len - n, &ino)))
        return 0;
    n += digits;
    if (n >= len || name[n++] != '-' || !(digits = hex_get(name + n, len - n, &tag)))
        return 0;
    n += digits;
    if (len - n != 10 || memcmp(name + n, " (deleted)", 10) != 0)
        return 0;
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        struct kfs_vol *v = &kfs_pre_vols[i];
        if (kfs_pre_attach(v) < 0 || v->standin_tag >> 48 != tag)
            continue;
        *ret = (struct kfs_fdinfo){.vol = v, .ino = ino, .kind = KFS_FD_FILE};
        return 1;
    }
    return 0;
}

/* "/memfd:kfs-INO-VERSION-KEY (deleted)", open with access mode 3, of a volume that we have. */
static int standin_name(int fd, const char *name, size_t len, struct kfs_fdinfo *ret)
{
    size_t n = sizeof KFS_STANDIN_PREFIX - 1;
    uint64_t part[3];
    if (len < n || memcmp(name, KFS_STANDIN_PREFIX, n) != 0)
        return 0;
    for (int i = 0; i < 3; i++) {
        size_t digits = hex_get(name + n, len - n, &part[i]);
        n += digits;
        if (!digits || n >= len || name[n++] != "-- "[i])
            return 0;
    }
    if (len - n != 9 || memcmp(name + n, "(deleted)", 9) != 0 || (kfs_sys_fcntl(fd, F_GETFL, 0) & (O_ACCMODE | O_PATH)) != O_ACCMODE)
        return 0;
    for (int i = 0; i < kfs_pre_vol_count; i++) {
        struct kfs_vol *v = &kfs_pre_vols[i];
        if (kfs_pre_attach(v) < 0 || v->standin_tag != (part[2] & 0xffffULL << 48))
            continue;
        *ret = (struct kfs_fdinfo){.vol = v, .ino = part[0], .kind = KFS_FD_FILE, .standin = true, .version = part[1], .key = part[2]};
        return 1;
    }
    return 0;
}

/* Ask the kernel where fd leads. 1 ours, 0 not; the table learns it. */
static int look(int fd, struct kfs_fdinfo *ret, const struct stat *st)
{
    char name[32], link[KFS_PATH_MAX];
    bool dir = S_ISDIR(st->st_mode);
    if (!dir && !S_ISREG(st->st_mode) && !S_ISFIFO(st->st_mode) && !S_ISSOCK(st->st_mode)) {
        state_set(fd, NOT);
        return 0;
    }
    fd_link_name(fd, name);
    long n = kfs_sys_readlinkat(KFS_SYS_FDCWD, name, link, sizeof link - 1);
    if (n <= 0)
        return 0;
    link[n] = 0;
    *ret = (struct kfs_fdinfo){0};
    if (!kfs_pre_cache_name(link, (size_t)n, ret) &&
        (dir || (!standin_name(fd, link, (size_t)n, ret) && !memory_name(link, (size_t)n, ret)))) {
        state_set(fd, !dir ? NOT : kfs_pre_near_prefix(link) ? ABOVE : NOT);
        return 0;
    }
    long fl = kfs_sys_fcntl(fd, F_GETFL, 0);
    ret->dev = st->st_dev;
    ret->cache_ino = st->st_ino;
    ret->writer = !ret->standin && S_ISREG(st->st_mode) && fl >= 0 && (fl & O_ACCMODE) != O_RDONLY && !(fl & O_PATH);
    kfs_pre_fd_set(fd, ret);
    return 1;
}

int kfs_pre_fd_stat(int fd, struct kfs_fdinfo *ret, struct stat *st)
{
    if (!kfs_pre_vol_count || fd < 0)
        return 0;
    int s = state_of(fd);
    if (s != UNKNOWN && s != OURS && s != STANDIN)
        return 0;
    if (kfs_sys_fstat(fd, st) < 0)
        return 0;
    struct row *r = rows_get(false);
    if ((s == OURS || s == STANDIN) && r) {
        struct row c = r[fd];
        if (c.cache_ino == st->st_ino && c.dev == st->st_dev && c.vol < kfs_pre_vol_count) {
            *ret = (struct kfs_fdinfo){&kfs_pre_vols[c.vol], c.ino, c.dev, c.cache_ino, c.kind, c.writer, s == STANDIN, c.version, c.key};
            return 1;
        }
    }
    return look(fd, ret, st);
}

bool kfs_pre_fd_look_standin(int fd, struct kfs_fdinfo *ret)
{
    struct stat st;
    if (!kfs_pre_vol_count || fd < 0 || kfs_sys_fstat(fd, &st) < 0)
        return false;
    if (state_of(fd) == STANDIN)
        return kfs_pre_fd_stat(fd, ret, &st) && ret->standin;
    if (!S_ISREG(st.st_mode) || (st.st_mode & 07777) || st.st_nlink)
        return false; /* no memfd of kfsd's: not worth a look */
    return look(fd, ret, &st) && ret->standin;
}

bool kfs_pre_fd_standin_elsewhere(int fd)
{
    const struct row *r = rows_get(false);
    if (!r || (unsigned)fd >= FD_MAX)
        return false;
    for (int n = 0; n <= __atomic_load_n(&standin_top, __ATOMIC_RELAXED); n++)
        if (n != fd && state_of(n) == STANDIN && r[n].ino == r[fd].ino && r[n].version == r[fd].version && r[n].vol == r[fd].vol)
            return true;
    return false;
}

int kfs_pre_fd_standin_next(int fd)
{
    for (int top = __atomic_load_n(&standin_top, __ATOMIC_RELAXED); fd <= top; fd++)
        if (state_of(fd) == STANDIN)
            return fd;
    return -1;
}

int kfs_pre_fd(int fd, struct kfs_fdinfo *ret)
{
    struct stat st;
    return kfs_pre_fd_stat(fd, ret, &st);
}

bool kfs_pre_fd_above(int fd)
{
    struct kfs_fdinfo i;
    struct stat st;
    int s = state_of(fd);
    if (s == ABOVE)
        return true;
    if (s == NOT || fd < 0 || kfs_sys_fstat(fd, &st) < 0)
        return false;
    look(fd, &i, &st);
    if ((unsigned)fd < FD_MAX && !kfs_pre_in_vfork)
        return state_of(fd) == ABOVE;
    char name[32], link[KFS_PATH_MAX];
    fd_link_name(fd, name);
    long n = kfs_sys_readlinkat(KFS_SYS_FDCWD, name, link, sizeof link - 1);
    if (n <= 0)
        return false;
    link[n] = 0;
    return kfs_pre_near_prefix(link);
}

void kfs_pre_fd_path(int fd, char *buf, size_t cap)
{
    char name[32];
    struct kfs_fdinfo i;
    fd_link_name(fd, name);
    long n = kfs_sys_readlinkat(KFS_SYS_FDCWD, name, buf, cap - 1);
    if (n > 0 && (size_t)n < cap) {
        buf[n] = 0;
        if (kfs_pre_cache_name(buf, (size_t)n, &i) && i.vol->flags & KFS_HELLO_DIRECT && buf[n - 1] != ')')
            return;
    }
    memcpy(buf, name, strlen(name) + 1);
}
