/* blockstore/cache_memory.c — content in memory, when no cache directory can take it
 *
 * Model    One memfd a version of an inode, sealed when it is whole: nobody can write it, whatever access a descriptor has. Clients get descriptors of their
 *          own, read-only; the shim knows them by their name in /proc/self/fd (base/pure/wire.h). All together stay below options.memory_bytes: where a
 *          new one would pass that, those go that nobody has open or mapped (a write lease tells); if that is not enough, the reader is
 *          refused. An inode has one entry: newer content replaces older.
 */
#include "blockstore/cache_dir.h"
#include "base/cleanup.h"
#include "base/pure/wire.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct kfs_cache_memory {
    kfs_ino_t ino;
    uint64_t version, bytes;
    int fd;
    struct kfs_cache_memory *next; /* newest first */
};

static void gone_locked(struct kfs_cache *c, struct kfs_cache_memory **at)
{
    struct kfs_cache_memory *m = *at;
    *at = m->next;
    c->memory_bytes -= m->bytes;
    close(m->fd);
    free(m);
}

static bool in_use(int fd)
{
    if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
        (void)fcntl(fd, F_SETLEASE, F_UNLCK);
        return false;
    }
    return true;
}

/* Oldest first: the list is short, each entry is a whole file of a failing node. */
static bool make_room_locked(struct kfs_cache *c, uint64_t bytes)
{
    while (c->memory_bytes + bytes > c->options.memory_bytes) {
        struct kfs_cache_memory **oldest = NULL;
        for (struct kfs_cache_memory **at = &c->memory; *at; at = &(*at)->next)
            if (!in_use((*at)->fd))
                oldest = at;
        if (!oldest)
            return false;
        gone_locked(c, oldest);
    }
    return true;
}

int kfs_cache_memory_new(struct kfs_cache *c, kfs_ino_t ino, uint64_t bytes)
{
    char name[96];
    pthread_mutex_lock(&c->memory_lock);
    bool room = bytes <= c->options.memory_bytes && c->options.memory_bytes && make_room_locked(c, bytes);
    if (room)
        c->memory_bytes += bytes;
    pthread_mutex_unlock(&c->memory_lock);
    if (!room)
        return -ENOSPC;
    snprintf(name, sizeof name, KFS_MEMORY_NAME "%" PRIx64 "-%" PRIx64, ino, kfs_memory_volume(c->volume_id));
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0)
        return fd;
    int rc = -errno;
    kfs_cache_memory_give_back(c, bytes);
    return rc;
}

void kfs_cache_memory_give_back(struct kfs_cache *c, uint64_t bytes)
{
    pthread_mutex_lock(&c->memory_lock);
    c->memory_bytes -= bytes;
    pthread_mutex_unlock(&c->memory_lock);
}

void kfs_cache_memory_take(struct kfs_cache *c, uint64_t bytes)
{
    pthread_mutex_lock(&c->memory_lock);
    c->memory_bytes += bytes;
    pthread_mutex_unlock(&c->memory_lock);
}

int kfs_cache_memory_add(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int fd)
{
    struct stat st;
    char path[64];
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    /* A description open for writing would forbid execve. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_RDONLY | O_CLOEXEC);
    struct kfs_cache_memory *m = own < 0 ? NULL : malloc(sizeof *m);
    int rc = own < 0 ? -errno : !m ? -ENOMEM : fstat(own, &st) < 0 ? -errno : 0;
    if (rc < 0) {
        free(m);
        if (own >= 0)
            close(own);
        return rc;
    }
    kfs_cache_memory_drop(c, ino);
    *m = (struct kfs_cache_memory){.ino = ino, .version = version, .bytes = (uint64_t)st.st_blocks * 512, .fd = own};
    pthread_mutex_lock(&c->memory_lock);
    bool room = make_room_locked(c, m->bytes);
    if (room) {
        m->next = c->memory;
        c->memory = m;
        c->memory_bytes += m->bytes;
    }
    pthread_mutex_unlock(&c->memory_lock);
    if (room)
        return 0;
    close(own);
    free(m);
    return -ENOSPC;
}

int kfs_cache_memory_open(struct kfs_cache *c, kfs_ino_t ino, uint64_t version, int flags)
{
    char path[64];
    int rc = -ENOENT;
    pthread_mutex_lock(&c->memory_lock);
    for (struct kfs_cache_memory *m = c->memory; m; m = m->next) {
        if (m->ino != ino || m->version != version)
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", m->fd);
        int fd = open(path, (flags & ~(O_ACCMODE | O_DIRECT | O_TRUNC | O_NOFOLLOW)) | O_RDONLY | O_CLOEXEC);
        rc = fd < 0 ? -errno : fd;
        break;
    }
    pthread_mutex_unlock(&c->memory_lock);
    return rc;
}

void kfs_cache_memory_drop(struct kfs_cache *c, kfs_ino_t ino)
{
    pthread_mutex_lock(&c->memory_lock);
    for (struct kfs_cache_memory **at = &c->memory; *at;)
        if ((*at)->ino == ino)
            gone_locked(c, at);
        else
            at = &(*at)->next;
    pthread_mutex_unlock(&c->memory_lock);
}

void kfs_cache_memory_release(struct kfs_cache *c)
{
    while (c->memory)
        gone_locked(c, &c->memory);
}
