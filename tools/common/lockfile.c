#include "tools/common/lockfile.h"
#include "base/pure/attr.h"
#include "base/pure/hash.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct kfs_lock {
    int fd;
    char path[KFS_PATH_MAX];
};

/* A database on a server has no place on this node: a directory of the user's takes the lock files. */
static int server_lock_path(const char *url, char *buf, size_t cap, struct kfs_err *err)
{
    static const char *const parents[] = {"/var/tmp", "/tmp", "/dev/shm"};
    /* Hosts and database are the volume; the rest of the URL is how to get there. */
    const char *hosts = url + strlen("mysql://"), *at = strchr(hosts, '@');
    hosts = at ? at + 1 : hosts;
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
        char dir[64];
        struct stat st;
        (void)snprintf(dir, sizeof dir, "%s/kfs-%u", parents[i], geteuid());
        (void)mkdir(dir, 0700);
        if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022) || access(dir, W_OK | X_OK) < 0)
            continue;
        int n = snprintf(buf, cap, "%s/%016llx.lock", dir, (unsigned long long)kfs_hash(hosts, strcspn(hosts, "?"), 0));
        return n < 0 || (size_t)n >= cap ? -ENAMETOOLONG : 0;
    }
    return KFS_FAIL(err, EACCES, "no directory for the lock file of '%s': /var/tmp, /tmp and /dev/shm cannot be used; make one of them writable", url);
}

static int lock_path(const char *db_path, char *buf, size_t cap, struct kfs_err *err)
{
    if (strncmp(db_path, "mysql://", 8) == 0)
        return server_lock_path(db_path, buf, cap, err);
    int n = snprintf(buf, cap, "%s.lock", db_path);
    if (n < 0 || (size_t)n >= cap)
        return KFS_FAIL(err, ENAMETOOLONG, "path of the database is too long: '%.200s'", db_path);
    return 0;
}

static void user_name(uid_t uid, char *buf, size_t cap)
{
    char mem[4096];
    struct passwd pw, *found = NULL;
    if (getpwuid_r(uid, &pw, mem, sizeof mem, &found) == 0 && found)
        snprintf(buf, cap, "%s", found->pw_name);
    else
        snprintf(buf, cap, "%u", uid);
}

static void parse_line(struct kfs_lock_owner *o, const char *key, const char *value)
{
    if (strcmp(key, "pid") == 0)
        o->pid = (pid_t)strtol(value, NULL, 10);
    else if (strcmp(key, "uid") == 0)
        o->uid = (uid_t)strtoul(value, NULL, 10);
    else if (strcmp(key, "user") == 0)
        snprintf(o->user, sizeof o->user, "%s", value);
    else if (strcmp(key, "socket") == 0)
        snprintf(o->socket, sizeof o->socket, "%s", value);
    else if (strcmp(key, "cache_dir") == 0)
        snprintf(o->cache_dir, sizeof o->cache_dir, "%s", value);
    else if (strcmp(key, "host") == 0)
        snprintf(o->host, sizeof o->host, "%s", value);
}

static void parse(int fd, struct kfs_lock_owner *o)
{
    char text[4096];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return;
    text[n] = 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *sp = strchr(line, ' ');
        if (!sp)
            continue;
        *sp = 0;
        parse_line(o, line, sp + 1);
    }
}

static int busy(int fd, const char *url, struct kfs_err *err)
{
    struct kfs_lock_owner o = {0};
    parse(fd, &o);
    if (!o.pid)
        return KFS_FAIL(err, EBUSY, "volume '%s' is being opened by another kfsd", url);
    return KFS_FAIL(err, EBUSY, "volume '%s' is open by kfsd %d of user %s", url, (int)o.pid, o.user[0] ? o.user : "?");
}

int kfs_lock_acquire(const char *db_path, const char *url, struct kfs_lock **ret_l, struct kfs_err *err)
{
    char path[KFS_PATH_MAX];
    int r = lock_path(db_path, path, sizeof path, err);
    if (r < 0)
        return r;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 && errno == EACCES) {
        /* Somebody else's lock file: readable is enough to say whose the volume is. */
        int e = errno;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0) {
            r = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK ? busy(fd, url, err) : 0;
            close(fd);
            if (r < 0)
                return r;
        }
        errno = e;
        fd = -1;
    }
    if (fd < 0)
        return KFS_FAIL(err, errno, "cannot write lock file '%s': %s; make its directory and the file writable for this user", path,
                        strerror(errno));
    /* A reader (kfs_lock_read) holds a shared lock for an instant: a few more tries tell it from an owner. */
    r = flock(fd, LOCK_EX | LOCK_NB);
    for (int i = 0; r < 0 && errno == EWOULDBLOCK && i < 5; i++) {
        usleep(10000);
        r = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (r < 0) {
        if (errno == EWOULDBLOCK)
            r = busy(fd, url, err);
        else
            r = KFS_FAIL(err, errno, "cannot lock '%s': %s; the file system must support flock", path, strerror(errno));
        close(fd);
        return r;
    }
    /* Whoever looks for the volume's kfsd must be able to read it, whatever our umask. */
    (void)fchmod(fd, 0644);
    /* What the last owner wrote is no longer true, and must not be read as ours. */
    if (ftruncate(fd, 0) < 0) {
        r = KFS_FAIL(err, errno, "cannot write lock file '%s': %s", path, strerror(errno));
        close(fd);
        return r;
    }
    struct kfs_lock *l = calloc(1, sizeof *l);
    if (!l) {
        close(fd);
        return KFS_FAIL(err, ENOMEM, "out of memory");
    }
    l->fd = fd;
    snprintf(l->path, sizeof l->path, "%s", path);
    *ret_l = l;
    return 0;
}

int kfs_lock_describe(struct kfs_lock *l, const char *socket, const char *cache_dir, struct kfs_err *err)
{
    char text[4096], user[64], host[256] = "?";
    user_name(geteuid(), user, sizeof user);
    (void)gethostname(host, sizeof host - 1);
    int n = snprintf(text, sizeof text, "pid %d\nuid %u\nuser %s\nsocket %s\ncache_dir %s\nhost %s\n", (int)getpid(), geteuid(), user,
                     socket, cache_dir, host);
    if (n < 0 || (size_t)n >= sizeof text)
        return KFS_FAIL(err, ENAMETOOLONG, "lock file '%s': socket or cache directory path too long", l->path);
    if (ftruncate(l->fd, 0) < 0 || pwrite(l->fd, text, (size_t)n, 0) != n)
        return KFS_FAIL(err, errno ? errno : EIO, "cannot write lock file '%s': %s", l->path, strerror(errno));
    return 0;
}

void kfs_lock_release(struct kfs_lock *l)
{
    if (!l)
        return;
    /* The file stays: unlinking it would let two owners lock two files of one name. */
    (void)!ftruncate(l->fd, 0);
    close(l->fd);
    free(l);
}

int kfs_lock_read(const char *db_path, struct kfs_lock_owner *ret, struct kfs_err *err)
{
    char path[KFS_PATH_MAX];
    int r = lock_path(db_path, path, sizeof path, err);
    if (r < 0)
        return r;
    struct kfs_lock_owner o = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        *ret = o;
        return 0;
    }
    if (fd < 0)
        return KFS_FAIL(err, errno, "cannot read lock file '%s': %s", path, strerror(errno));
    /* A shared lock asks without disturbing: two askers never see each other as owner. */
    if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
        o.held = errno == EWOULDBLOCK;
        parse(fd, &o);
        o.starting = o.held && (!o.pid || !o.socket[0]);
    }
    close(fd);
    *ret = o;
    return 0;
}
