/* preload/do_stdio.c — streams on genuine descriptors, temporary names
 *
 * What     fopen and freopen open the descriptor themselves and let libc make the stream on it; all other stream calls stay libc's. fclose commits a writer
 *          between the flush and the close. mkstemp & co. choose names and create them exclusively, as libc does inside itself.
 * Memory   tempnam's result is malloc'ed, by contract. Streams are allocated by libc.
 */
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- modes ---------------------------------------------------------------------------------------------------------- */

struct mode {
    int flags;       /* of open(2) */
    bool at_end; /* "a" begins at the end; "a+" reads from the start */
    const char *ccs; /* ",ccs=…" or NULL */
    char text[64];   /* the mode without 'x', for a second opening */
};

static bool mode_parse(const char *text, struct mode *ret)
{
    *ret = (struct mode){0};
    switch (text[0]) {
    case 'r':
        ret->flags = O_RDONLY;
        break;
    case 'w':
        ret->flags = O_WRONLY | O_CREAT | O_TRUNC;
        break;
    case 'a':
        ret->flags = O_WRONLY | O_CREAT | O_APPEND;
        break;
    default:
        return false;
    }
    size_t n = 0;
    ret->text[n++] = text[0];
    for (const char *p = text + 1; *p; p++) {
        if (*p == ',') {
            ret->ccs = p;
            break;
        }
        if (*p == '+')
            ret->flags = (ret->flags & ~O_ACCMODE) | O_RDWR;
        else if (*p == 'x')
            ret->flags |= O_EXCL;
        else if (*p == 'e')
            ret->flags |= O_CLOEXEC;
        if (*p != 'x' && n < 8)
            ret->text[n++] = *p;
    }
    for (const char *p = ret->ccs; p && *p && n < sizeof ret->text - 1; p++)
        ret->text[n++] = *p;
    ret->text[n] = '\0';
    ret->at_end = text[0] == 'a' && (ret->flags & O_ACCMODE) == O_WRONLY;
    return true;
}

static void fd_drop(int fd)
{
    kfs_pre_fd_unknown(fd);
    kfs_sys_close(fd);
}

/* A wide-character encoding can only be given where libc opens a name itself. */
static FILE *stream_ccs(int fd, const struct mode *m)
{
    char name[32] = "/proc/self/fd/";
    size_t n = strlen(name), digits = 1;
    for (int v = fd; v >= 10; v /= 10)
        digits++;
    name[n + digits] = '\0';
    for (int v = fd; digits--; v /= 10)
        name[n + digits] = (char)('0' + v % 10);
    FILE *f = kfs_real.fopen(name, m->text);
    if (f)
        kfs_pre_fd_unknown(fileno(f));
    return f;
}

static FILE *open_loc(struct kfs_loc *loc, const char *text)
{
    struct mode m;
    if (!mode_parse(text, &m)) {
        errno = EINVAL;
        return NULL;
    }
    long fd = kfs_pre_open_loc(loc, m.flags, 0666, 0);
    if (fd == KFS_PRE_GO_HOST)
        return kfs_real.fopen(loc->host, text);
    if (fd < 0) {
        errno = (int)-fd;
        return NULL;
    }
    FILE *f = m.ccs ? stream_ccs((int)fd, &m) : kfs_real.fdopen((int)fd, m.text);
    if (!f || m.ccs) {
        int saved = errno;
        fd_drop((int)fd);
        errno = saved;
        return f;
    }
    if (m.at_end) /* as fopen: ftell tells the end */
        kfs_sys3(SYS_lseek, fd, 0, SEEK_END);
    return f;
}

FILE *kfs_do_fopen(const char *path, const char *mode)
{
    struct kfs_loc loc;
    int w = kfs_pre_where(AT_FDCWD, path, &loc);
    if (w < 0) {
        errno = -w;
        return NULL;
    }
    if (w == KFS_HOST)
        return kfs_real.fopen(path, mode);
    if (w == KFS_HOST_AT)
        return kfs_real.fopen(loc.host, mode);
    return open_loc(&loc, mode);
}

/* --- closing ---------------------------------------------------------------------------------------------------------- */

/* What fclose and freopen owe a writer of ours: everything out of the buffer, then the commit. 0 or -errno; *ret_fd the descriptor if there is one. */
static long commit_stream(FILE *f, int *ret_fd)
{
    int saved = errno;
    int fd = fileno(f);
    errno = saved;
    *ret_fd = fd;
    struct kfs_fdinfo i;
    if (fd < 0 || !kfs_pre_fd_maybe(fd) || !kfs_pre_fd(fd, &i) || !i.writer)
        return 0;
    long r = fflush(f) == 0 ? 0 : -errno;
    long c = kfs_pre_before_close(fd);
    errno = saved;
    return r < 0 ? r : c;
}

int kfs_do_fclose(FILE *f)
{
    int fd;
    long r = commit_stream(f, &fd);
    if (fd >= 0)
        kfs_pre_fd_unknown(fd);
    int e = kfs_real.fclose(f);
    if (r < 0) {
        errno = (int)-r;
        return EOF;
    }
    return e;
}

/* --- freopen ------------------------------------------------------------------------------------------------------------ */

/* Put our descriptor under a stream that libc has just reopened on /dev/null: libc forgets buffers and state, the number stays. */
static FILE *reopen_on(FILE *f, const struct mode *m, int fd)
{
    FILE *r = kfs_real.freopen("/dev/null", m->text, f);
    if (!r) {
        fd_drop(fd);
        return NULL;
    }
    int n = fileno(r);
    long e = kfs_sys_dup3(fd, n, m->flags & O_CLOEXEC);
    if (e < 0) {
        fd_drop(fd);
        kfs_real.fclose(r);
        errno = (int)-e;
        return NULL;
    }
    kfs_pre_fd_dup(fd, n);
    fd_drop(fd);
    if (m->at_end)
        kfs_sys3(SYS_lseek, n, 0, SEEK_END);
    return r;
}

static FILE *reopen_failed(FILE *f, int err)
{
    kfs_do_fclose(f);
    errno = err;
    return NULL;
}

/* Whose is the new path? A failed freopen has closed the stream, so a host symlink into a volume is looked for before, not after. */
static int reopen_where(const char *path, struct kfs_loc *loc)
{
    if (kfs_pre_maybe(AT_FDCWD, path))
        return kfs_pre_where(AT_FDCWD, path, loc);
    struct stat st;
    if (!kfs_pre_vol_count || kfs_sys_fstatat(AT_FDCWD, path, &st, 0) != -ENOENT)
        return KFS_HOST;
    return kfs_pre_host_symlink(AT_FDCWD, path, true, loc);
}

static FILE *reopen_host(const char *path, const char *mode, FILE *f, int fd)
{
    if (fd >= 0)
        kfs_pre_fd_unknown(fd);
    FILE *r = kfs_real.freopen(path, mode, f);
    if (r)
        kfs_pre_fd_unknown(fileno(r));
    return r;
}

FILE *kfs_do_freopen(const char *path, const char *mode, FILE *f)
{
    struct kfs_loc loc;
    struct kfs_fdinfo i;
    struct mode m;
    int fd;
    long committed = commit_stream(f, &fd);
    if (committed < 0)
        return reopen_failed(f, (int)-committed);
    int w = KFS_HOST;
    if (path) {
        w = reopen_where(path, &loc);
    } else if (fd >= 0 && kfs_pre_fd_maybe(fd) && kfs_pre_fd(fd, &i)) { /* the same inode in another mode */
        loc = (struct kfs_loc){.vol = i.vol, .base = i.ino, .rel = ""};
        w = KFS_OURS;
    }
    if (w < 0)
        return reopen_failed(f, -w);
    if (w == KFS_HOST)
        return reopen_host(path, mode, f, fd);
    if (w == KFS_HOST_AT)
        return reopen_host(loc.host, mode, f, fd);
    if (!mode_parse(mode, &m))
        return reopen_failed(f, EINVAL);
    long n = kfs_pre_open_loc(&loc, m.flags, 0666, 0);
    if (n == KFS_PRE_GO_HOST)
        return reopen_host(loc.host, mode, f, fd);
    if (n < 0)
        return reopen_failed(f, (int)-n);
    if (fd >= 0)
        kfs_pre_fd_unknown(fd);
    return reopen_on(f, &m, (int)n);
}

/* --- temporary files ------------------------------------------------------------------------------------------------------ */

/* Made in libc's P_tmpdir, which is the host's. */
FILE *kfs_do_tmpfile(void)
{
    FILE *f = kfs_real.tmpfile();
    if (f)
        kfs_pre_fd_unknown(fileno(f));
    return f;
}

#define LETTERS 6
#define TRIES (62 * 62 * 62)

static void letters_put(char *x)
{
    static const char set[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    uint64_t v = 0;
    if (kfs_sys3(SYS_getrandom, (long)&v, sizeof v, 0) != (long)sizeof v) {
        long ts[2] = {0};
        kfs_sys3(SYS_clock_gettime, 1, (long)ts, 0);
        v = kfs_hash_u64((uint64_t)ts[0] * 1000000007u + (uint64_t)ts[1] + (uint64_t)kfs_sys_gettid());
    }
    for (int i = 0; i < LETTERS; i++, v /= 62)
        x[i] = set[v % 62];
}

enum temp { TEMP_FILE, TEMP_DIR, TEMP_NAME };

/* One try with the name in `path`: >= 0 done (a descriptor for TEMP_FILE), -EEXIST: another name, else -errno. */
static long temp_try(enum temp kind, const char *path, int flags)
{
    if (kind == TEMP_FILE) {
        int fd = open(path, (flags & ~O_ACCMODE) | O_RDWR | O_CREAT | O_EXCL, 0600);
        return fd >= 0 ? fd : -errno;
    }
    if (kind == TEMP_DIR)
        return mkdir(path, 0700) == 0 ? 0 : -errno;
    struct stat st;
    if (lstat(path, &st) == 0)
        return -EEXIST;
    return errno == ENOENT ? 0 : -errno;
}

/* The template is put back only whole: another thread or a signal handler never sees a name that was not tried. */
static long temp_make(enum temp kind, char *template, int suffixlen, int flags)
{
    char path[KFS_PATH_MAX];
    size_t len = strlen(template);
    if (suffixlen < 0 || len < (size_t)suffixlen + LETTERS)
        return -EINVAL;
    size_t at = len - (size_t)suffixlen - LETTERS;
    if (memcmp(template + at, "XXXXXX", LETTERS) != 0)
        return -EINVAL;
    if (len >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, template, len + 1);
    kfs_pre_late_end(); /* each call made here looks at host symlinks itself */
    for (int i = 0; i < TRIES; i++) {
        letters_put(path + at);
        long r = temp_try(kind, path, flags);
        if (r == -EEXIST)
            continue;
        memcpy(template + at, path + at, LETTERS); /* also when it failed, as libc's */
        return r;
    }
    return -EEXIST;
}

int kfs_do_mkostemps(char *template, int suffixlen, int flags)
{
    int saved = errno;
    long r = temp_make(TEMP_FILE, template, suffixlen, flags);
    if (r >= 0)
        errno = saved;
    return (int)kfs_pre_ret(r);
}

int kfs_do_mkstemp(char *template)
{
    return kfs_do_mkostemps(template, 0, 0);
}

int kfs_do_mkostemp(char *template, int flags)
{
    return kfs_do_mkostemps(template, 0, flags);
}

int kfs_do_mkstemps(char *template, int suffixlen)
{
    return kfs_do_mkostemps(template, suffixlen, 0);
}

char *kfs_do_mkdtemp(char *template)
{
    int saved = errno;
    long r = temp_make(TEMP_DIR, template, 0, 0);
    errno = r < 0 ? (int)-r : saved;
    return r < 0 ? NULL : template;
}

char *kfs_do_mktemp(char *template)
{
    int saved = errno;
    long r = temp_make(TEMP_NAME, template, 0, 0);
    errno = r < 0 ? (int)-r : saved;
    if (r < 0)
        template[0] = '\0';
    return template;
}

static bool is_dir(const char *path)
{
    struct stat st;
    return path && *path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *kfs_do_tempnam(const char *dir, const char *prefix)
{
    char name[KFS_PATH_MAX];
    const char *env = secure_getenv("TMPDIR");
    const char *d = is_dir(env) ? env : is_dir(dir) ? dir : is_dir(P_tmpdir) ? P_tmpdir : NULL;
    if (!kfs_pre_vol_count || !d)
        return kfs_real.tempnam(dir, prefix);
    size_t n = strlen(d), p = prefix && *prefix ? strnlen(prefix, 5) : 4;
    while (n > 1 && d[n - 1] == '/')
        n--;
    if (n + 1 + p + LETTERS >= sizeof name) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    memcpy(name, d, n);
    name[n++] = '/';
    memcpy(name + n, prefix && *prefix ? prefix : "file", p);
    memcpy(name + n + p, "XXXXXX", LETTERS + 1);
    long r = temp_make(TEMP_NAME, name, 0, 0);
    if (r < 0) {
        errno = (int)-r;
        return NULL;
    }
    return strdup(name);
}
