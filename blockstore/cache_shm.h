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
#include <stddef.h>

struct kfs_shm;
struct kfs_shm_header;

/* Rows: powers of two. Makes the memfd, maps it, seals it (FUTURE_WRITE, SHRINK, GROW, SEAL; mode 0444). */
int kfs_shm_create(uint64_t epoch, uint64_t dent_rows, uint64_t attr_rows, uint64_t link_rows, struct kfs_shm **ret_s, struct kfs_err *err);
void kfs_shm_free(struct kfs_shm *s);
int kfs_shm_reader_fd(struct kfs_shm *s); /* a read-only descriptor to pass on; owned by s */
const struct kfs_shm_header *kfs_shm_header(const struct kfs_shm *s);
void kfs_shm_beat(struct kfs_shm *s, uint64_t now_ns); /* renew the heartbeat */

void kfs_shm_put_dent(struct kfs_shm *s, uint64_t parent, const char *name, size_t len, uint64_t ino); /* ino 0: the name is absent */
void kfs_shm_drop_dent(struct kfs_shm *s, uint64_t parent, const char *name, size_t len);
void kfs_shm_put_attr(struct kfs_shm *s, const struct kfs_attr *a);
void kfs_shm_drop_attr(struct kfs_shm *s, uint64_t ino);
void kfs_shm_put_link(struct kfs_shm *s, uint64_t ino, const char *target, size_t len);

#endif
