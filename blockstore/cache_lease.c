/* blockstore/cache_lease.c — has anybody this file open?
 *
 * Model    The kernel grants a read lease on a descriptor opened O_RDONLY only while nobody has the
 *          file open for writing, by descriptor or by a shared mapping, and a write lease only
 *          while nobody else has it open at all. Asking for the lease and giving it back at once is
 *          the probe.
 *          - Somebody who opens the file inside that moment breaks the lease: he waits the
 *            microseconds until it is given back, and the holder is sent SIGIO, whose default
 *            action is to end the process. A process that probes must ignore SIGIO; kfsd does so
 *            before anything else.
 *          - fd must have an open file description of its own: one that was passed to a client is
 *            the client's too, and is not counted.
 *          - Leases need the file's owner or CAP_LEASE.
 *          Where there are no leases (network file systems), /proc is searched: slower, blind for
 *          processes of other users, yet never wrong about those it sees.
 *          On overlayfs a mapping holds the file of the layer below, which the lease on ours does
 *          not see: a lease that was granted there is confirmed by a look through all mappings.
 */
#include "blockstore/cache_dir.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define OVERLAYFS_MAGIC 0x794c7630

/* --- /proc ------------------------------------------------------------------------------------ */

struct probe {
    struct stat st;
    int own_fd;      /* of this process: does not count */
    bool write_only; /* only descriptors and mappings that can write count */
    bool on_overlay; /* mappings may show the device of the layer below, under the same number */
};

/* One that is O_PATH is no user, as for a lease: the cache keeps such ones itself. */
static bool fd_counts(int proc_fd, const char *pid, const char *fd, bool write_only)
{
    char path[64], line[128];
    snprintf(path, sizeof path, "%.16s/fdinfo/%.16s", pid, fd);
    int info = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    FILE *f = info < 0 ? NULL : fdopen(info, "r");
    unsigned flags = O_RDONLY;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "flags: %o", &flags) == 1)
            break;
    if (f)
        fclose(f);
    else if (info >= 0)
        close(info);
    return !(flags & O_PATH) && (!write_only || (flags & O_ACCMODE) != O_RDONLY);
}

static bool pid_has_fd(const struct probe *p, int proc_fd, const char *pid)
{
    char path[32];
    snprintf(path, sizeof path, "%.16s/fd", pid);
    int dir = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = dir < 0 ? NULL : fdopendir(dir);
    if (!d) {
        if (dir >= 0)
            close(dir);
        return false;
    }
    bool own = strtol(pid, NULL, 10) == getpid(), found = false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        struct stat st;
        if (e->d_name[0] == '.' || (own && strtol(e->d_name, NULL, 10) == p->own_fd))
            continue;
        found = fstatat(dirfd(d), e->d_name, &st, 0) == 0 && st.st_dev == p->st.st_dev &&
                st.st_ino == p->st.st_ino &&
                fd_counts(proc_fd, pid, e->d_name, p->write_only);
    }
    closedir(d);
    return found;
}

static bool pid_has_map(const struct probe *p, int proc_fd, const char *pid)
{
    char path[32], line[4096 + 256];
    snprintf(path, sizeof path, "%.16s/maps", pid);
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char perms[5];
        unsigned maj, min;
        uint64_t ino;
        found = sscanf(line, "%*x-%*x %4s %*x %x:%x %" SCNu64, perms, &maj, &min, &ino) == 4 &&
                ino == p->st.st_ino && (p->on_overlay || makedev(maj, min) == p->st.st_dev) &&
                (!p->write_only || (perms[1] == 'w' && perms[3] == 's'));
    }
    if (f)
        fclose(f);
    else if (fd >= 0)
        close(fd);
    return found;
}

static bool is_overlay(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (unsigned long)fs.f_type == OVERLAYFS_MAGIC;
}

static int proc_probe(int own_fd, bool write_only, bool maps_only)
{
    struct probe p = {.own_fd = own_fd, .write_only = write_only, .on_overlay = is_overlay(own_fd)};
    if (fstat(own_fd, &p.st) < 0)
        return -errno;
    DIR *d = opendir("/proc");
    if (!d)
        return -errno;
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(d));)
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            found = (!maps_only && pid_has_fd(&p, dirfd(d), e->d_name)) ||
                    pid_has_map(&p, dirfd(d), e->d_name);
    closedir(d);
    return found;
}

/* --- leases ----------------------------------------------------------------------------------- */

static int probe(int fd, int lease)
{
    if (fcntl(fd, F_SETLEASE, lease) == 0) {
        (void)fcntl(fd, F_SETLEASE, F_UNLCK);
        return is_overlay(fd) ? proc_probe(fd, lease == F_RDLCK, true) : 0;
    }
    if (errno == EAGAIN)
        return 1;
    if (errno == EBADF)
        return -errno;
    return proc_probe(fd, lease == F_RDLCK, false);
}

int kfs_cache_has_writer(int fd)
{
    return probe(fd, F_RDLCK);
}

int kfs_cache_has_user(int fd)
{
    return probe(fd, F_WRLCK);
}
