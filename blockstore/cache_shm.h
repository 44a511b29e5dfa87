/* blockstore/cache_shm.h — the only writer of the shared-memory segment (base/pure/shm_layout.h)
 *
 * Threads  Any thread; one lock inside. Every put and drop is complete for readers when the call returns.
 * Model    A full bucket replaces its row that was written longest ago. Names or targets that are too long are dropped instead of put.
 * Blocks   No.
 */
#ifndef KFS_BLOCKSTORE_CACHE_SHM_H
#define KFS_BLOCKSTORE_CACHE_SHM_H

#include "base/err.h"
#include "base/pure/attr.h"
#include <stdbool.h>
#include <stddef.h>

struct kfs_shm;
struct kfs_shm_header;

/* How large a segment is. Rows: powers of two, at least KFS_SHM_WAYS. ring_bytes: for listings; memory is used as far as it is written. */
struct kfs_shm_sizes {
    uint64_t dent_rows, attr_rows, link_rows, list_rows, ring_bytes;
};
/* Makes the memfd, maps it, seals it (FUTURE_WRITE, SHRINK, GROW, SEAL; mode 0444). */
int kfs_shm_create(uint64_t epoch, const struct kfs_shm_sizes *sizes, struct kfs_shm **ret_s, struct kfs_err *err);
void kfs_shm_free(struct kfs_shm *s);
int kfs_shm_reader_fd(struct kfs_shm *s); /* a read-only descriptor to pass on; owned by s */
const struct kfs_shm_header *kfs_shm_header(const struct kfs_shm *s);
void kfs_shm_beat(struct kfs_shm *s, uint64_t now_ns); /* renew the heartbeat */

void kfs_shm_put_dent(struct kfs_shm *s, uint64_t parent, const char *name, size_t len, uint64_t ino); /* ino 0: the name is absent */
void kfs_shm_drop_dent(struct kfs_shm *s, uint64_t parent, const char *name, size_t len);
void kfs_shm_put_attr(struct kfs_shm *s, const struct kfs_attr *a);
void kfs_shm_drop_attr(struct kfs_shm *s, uint64_t ino);
void kfs_shm_put_link(struct kfs_shm *s, uint64_t ino, const char *target, size_t len);


/* The whole listing of a directory: `count` records as in READDIR's answer (struct kfs_wire_dirent and name), in the byte order of the names, back to back.
 * True: published. False: larger than a quarter of the ring. put_dent and drop_dent drop a listing that they contradict. */
bool kfs_shm_put_list(struct kfs_shm *s, uint64_t dir, const void *records, size_t bytes, uint32_t count);
void kfs_shm_drop_list(struct kfs_shm *s, uint64_t dir);

#endif
