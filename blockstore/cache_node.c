/* blockstore/cache_node.c — FIFOs and sockets: the kernel's node that stands for one of a volume
 *
 * Model    n/INO is the kernel's FIFO or socket of that inode, made when it is first opened; permission was asked of the metadata before, so its
 *          mode lets everybody in, and nobody but kfsd's user reaches it by name. A bound socket is made by its binder (preload/do_sock.c): n/INO.b
 *          is the name that it was bound to, n/INO another link of it, n/INO.n a symlink whose text is the address as the program gave it.
 */
#include "blockstore/cache_dir.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int kfs_cache_node(struct kfs_cache *c, kfs_ino_t ino, uint32_t type, struct kfs_err *err)
{
    char name[KFS_CACHE_NAME_MAX];
    kfs_cache_name_ino(name, ino);
    int fd = openat(c->n_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        if (mknodat(c->n_fd, name, (type & S_IFMT) | 0600, 0) < 0 && errno != EEXIST)
            return KFS_FAIL(err, errno, "cannot make '%s/n/%s': %s", c->places[0].dir, name, strerror(errno));
        fd = openat(c->n_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0)
        return KFS_FAIL(err, errno, "cannot open '%s/n/%s': %s", c->places[0].dir, name, strerror(errno));
    /* The mode is whatever the umask left. Whoever finds it so mends it: another thread may have made the node a moment ago and not come this far. */
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 0666) != 0666 && fchmodat(c->n_fd, name, 0666, 0) < 0 && errno != ENOENT) {
        int e = errno;
        close(fd);
        return KFS_FAIL(err, e, "cannot open '%s/n/%s' to all: %s", c->places[0].dir, name, strerror(e));
    }
    return fd;
}

void kfs_cache_node_drop(struct kfs_cache *c, kfs_ino_t ino)
{
    static const char *const ends[] = {"", ".b", ".n"};
    char name[KFS_CACHE_NAME_MAX], full[KFS_CACHE_NAME_MAX + 4];
    kfs_cache_name_ino(name, ino);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(full, sizeof full, "%s%s", name, ends[i]);
        (void)unlinkat(c->n_fd, full, 0);
    }
}

int kfs_cache_each_node(struct kfs_cache *c, kfs_cache_each_cb cb, void *arg)
{
    int fd = openat(c->n_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int e = errno;
        if (fd >= 0)
            close(fd);
        return -e;
    }
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        const char *p = e->d_name;
        uint64_t ino;
        if (kfs_cache_parse_hex(&p, &ino) && (*p == 0 || *p == '.'))
            rc = cb(arg, ino);
    }
    closedir(d);
    return rc;
}
