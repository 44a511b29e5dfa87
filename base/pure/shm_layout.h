/* base/pure/shm_layout.h — the shared-memory segment that kfsd publishes and applications read
 *
 * What     One sealed memfd per (volume, kfsd life): a header, a dentry table, an attribute table, a symlink table, a table of whole listings and
 *          the ring that holds their bytes. kfsd (blockstore/cache_shm.c) is the only writer; readers (the shim; kfsd itself) use the functions at the end.
 *
 * Model    Four set-associative hash tables of fixed-size rows; KFS_SHM_WAYS consecutive rows form a bucket, the bucket
 *          of a key is hash & (rows/WAYS - 1). A row is a cache line group with its own sequence word. The tables are a
 *          cache: a missing row means "unknown", never "absent"; absence is a published row (KFS_DENT_ABSENT).
 *
 * Invariants
 *   (1) A row that a reader validates was true at some moment between the reader's first and last look at it.
 *   (2) kfsd replaces or clears every row that a change makes untrue before it answers the request that made the change.
 *   (3) A listing is complete: a name that is not in it does not exist. Every change of a name drops the listing that contradicts it in the same call.
 *   (4) Rows never hold pointers; every length is re-checked by the reader after validation and before use.
 *
 * Sequence lock
 *   Writer: seq+1 (odd, relaxed); release fence; payload; seq+1 (even, release). Only one writer thread at a time (kfsd's lock).
 *   Reader: load seq (acquire); odd: retry a few times, then "unknown"; copy the payload; acquire fence; load seq again: changed: retry.
 *   A kfsd killed in the middle of a row leaves it odd for ever: readers say "unknown" and go to kfsd, which answers from a new segment.
 *
 * Listings
 *   A row of the listing table says where in the ring the bytes lie: `count` offsets of 32 bits (from the start of the blob), then as many records in the byte
 *   order of their names, each a struct kfs_wire_dirent with its name behind it. A reader uses them in place, checks every offset against `bytes`, and
 *   believes what it found if the row's sequence word is afterwards what it was. The writer changes that word before it writes over the bytes.
 *
 * Heartbeat
 *   beat_ns is CLOCK_MONOTONIC, renewed every KFS_SHM_BEAT_MS by kfsd. A reader trusts the segment while now - beat_ns is below
 *   KFS_SHM_VALID_MS. A kfsd that starts after an unclean end waits KFS_SHM_VALID_MS before its first change (design, section 3).
 *
 * Threads  Readers: any thread, any signal handler, after fork. No system call but the vdso clock.
 */
#ifndef KFS_BASE_PURE_SHM_LAYOUT_H
#define KFS_BASE_PURE_SHM_LAYOUT_H

#include "base/pure/attr.h"
#include "base/pure/hash.h"
#include "base/pure/wire.h"
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define KFS_SHM_MAGIC 0x3153464b4d48534bULL
#define KFS_SHM_VERSION 2u
#define KFS_SHM_WAYS 4u
#define KFS_SHM_BEAT_MS 50
#define KFS_SHM_VALID_MS 500
#define KFS_SHM_NAME_MAX 95    /* longer names are not published: kfsd answers */
#define KFS_SHM_TARGET_MAX 239 /* longer symlink targets are not published */

struct kfs_shm_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t epoch;        /* of the kfsd that writes; also in every HELLO answer */
    uint64_t dent_off;     /* byte offsets from the start of the segment */
    uint64_t attr_off;
    uint64_t link_off;
    uint64_t dent_rows;    /* powers of two, multiples of KFS_SHM_WAYS */
    uint64_t attr_rows;
    uint64_t link_rows;
    uint64_t segment_bytes;
    uint64_t list_off, list_rows;
    uint64_t ring_off, ring_bytes; /* the listings' bytes */
    uint8_t pad[16];
    uint64_t beat_ns;      /* own cache line: the only word that changes when nothing happens */
    uint8_t pad2[56];
};
static_assert(offsetof(struct kfs_shm_header, beat_ns) == 128, "beat_ns on its own line");
static_assert(sizeof(struct kfs_shm_header) == 192, "header layout");

#define KFS_DENT_EMPTY 0
#define KFS_DENT_PRESENT 1
#define KFS_DENT_ABSENT 2 /* the name does not exist */

struct kfs_shm_dent { /* 128 bytes */
    uint32_t seq;
    uint8_t state; /* KFS_DENT_* */
    uint8_t name_len;
    uint8_t pad[2];
    uint64_t parent;
    uint64_t ino; /* 0 when ABSENT */
    uint64_t hash;
    char name[KFS_SHM_NAME_MAX + 1];
};
static_assert(sizeof(struct kfs_shm_dent) == 128, "dent layout");

struct kfs_shm_attr { /* 192 bytes: three lines */
    uint32_t seq;
    uint32_t state; /* 0 empty, 1 present */
    struct kfs_attr attr;
    uint8_t pad[192 - 8 - 128];
};
static_assert(sizeof(struct kfs_shm_attr) == 192, "attr row layout");

struct kfs_shm_link { /* 256 bytes */
    uint32_t seq;
    uint8_t state;
    uint8_t target_len;
    uint8_t pad[2];
    uint64_t ino;
    char target[KFS_SHM_TARGET_MAX + 1];
};
static_assert(sizeof(struct kfs_shm_link) == 256, "link row layout");

struct kfs_shm_list { /* 64 bytes */
    uint32_t seq;
    uint32_t state; /* 0 empty, 1 present */
    uint64_t dir;
    uint64_t off; /* in the ring; a multiple of 8 */
    uint32_t bytes, count;
    uint8_t pad[32];
};
static_assert(sizeof(struct kfs_shm_list) == 64, "listing row layout");

static inline uint64_t kfs_shm_dent_hash(uint64_t parent, const char *name, size_t len)
{
    return kfs_hash(name, len, parent);
}

/* True if `h` (segment_bytes long, mapped) is a segment that this code can read. */
static inline bool kfs_shm_header_ok(const struct kfs_shm_header *h, uint64_t mapped_bytes)
{
    if (mapped_bytes < sizeof *h || h->magic != KFS_SHM_MAGIC || h->version != KFS_SHM_VERSION ||
        h->header_bytes != sizeof *h || h->segment_bytes > mapped_bytes)
        return false;
    const uint64_t rows[4] = {h->dent_rows, h->attr_rows, h->link_rows, h->list_rows};
    const uint64_t off[4] = {h->dent_off, h->attr_off, h->link_off, h->list_off};
    const uint64_t size[4] = {sizeof(struct kfs_shm_dent), sizeof(struct kfs_shm_attr),
                              sizeof(struct kfs_shm_link), sizeof(struct kfs_shm_list)};
    if ((h->ring_off & 63) || h->ring_off > h->segment_bytes || h->ring_bytes > h->segment_bytes - h->ring_off)
        return false;
    for (int i = 0; i < 4; i++) {
        if (rows[i] < KFS_SHM_WAYS || (rows[i] & (rows[i] - 1)) || rows[i] > (1ULL << 32) ||
            (off[i] & 63) || off[i] > h->segment_bytes ||
            rows[i] * size[i] > h->segment_bytes - off[i])
            return false;
    }
    return true;
}

/* now_ns: CLOCK_MONOTONIC(_COARSE). */
static inline bool kfs_shm_fresh(const struct kfs_shm_header *h, uint64_t now_ns)
{
    uint64_t beat = __atomic_load_n(&h->beat_ns, __ATOMIC_ACQUIRE);
    /* The coarse clock may lie a tick behind the writer's: a beat in the near future is fresh. */
    return (int64_t)(now_ns - beat) < (int64_t)KFS_SHM_VALID_MS * 1000000;
}

#define KFS_SHM_TRIES 8

/* Copy `bytes` of row `src` (whose first word is its sequence) to `dst`. False: being written, or torn each time. */
static inline bool kfs_shm_row_read(void *dst, const void *src, size_t bytes)
{
    const uint32_t *seq = src;
    for (int i = 0; i < KFS_SHM_TRIES; i++) {
        uint32_t before = __atomic_load_n(seq, __ATOMIC_ACQUIRE);
        if (before & 1)
            continue;
        memcpy(dst, src, bytes);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(seq, __ATOMIC_RELAXED) == before)
            return true;
    }
    return false;
}

/* KFS_DENT_PRESENT (*ret_ino set), KFS_DENT_ABSENT, or KFS_DENT_EMPTY: not known here. */
static inline int kfs_shm_dent_get(const struct kfs_shm_header *h, uint64_t parent, const char *name,
                                   size_t len, uint64_t *ret_ino)
{
    if (len > KFS_SHM_NAME_MAX)
        return KFS_DENT_EMPTY;
    uint64_t hash = kfs_shm_dent_hash(parent, name, len);
    const struct kfs_shm_dent *row =
        (const struct kfs_shm_dent *)((const char *)h + h->dent_off) +
        (hash & (h->dent_rows / KFS_SHM_WAYS - 1)) * KFS_SHM_WAYS;
    for (unsigned i = 0; i < KFS_SHM_WAYS; i++, row++) {
        if (__atomic_load_n(&row->hash, __ATOMIC_RELAXED) != hash)
            continue;
        struct kfs_shm_dent d;
        if (!kfs_shm_row_read(&d, row, sizeof d))
            return KFS_DENT_EMPTY;
        if (d.state != KFS_DENT_EMPTY && d.hash == hash && d.parent == parent && d.name_len == len &&
            memcmp(d.name, name, len) == 0) {
            *ret_ino = d.ino;
            return d.state;
        }
    }
    return KFS_DENT_EMPTY;
}

static inline bool kfs_shm_attr_get(const struct kfs_shm_header *h, uint64_t ino, struct kfs_attr *ret)
{
    const struct kfs_shm_attr *row = (const struct kfs_shm_attr *)((const char *)h + h->attr_off) +
                                     (kfs_hash_u64(ino) & (h->attr_rows / KFS_SHM_WAYS - 1)) * KFS_SHM_WAYS;
    for (unsigned i = 0; i < KFS_SHM_WAYS; i++, row++) {
        if (__atomic_load_n(&row->attr.ino, __ATOMIC_RELAXED) != ino)
            continue;
        struct kfs_shm_attr a;
        if (!kfs_shm_row_read(&a, row, offsetof(struct kfs_shm_attr, pad)))
            return false;
        if (a.state == 1 && a.attr.ino == ino) {
            *ret = a.attr;
            return true;
        }
    }
    return false;
}

/* Symlink target into buf (KFS_SHM_TARGET_MAX + 1 bytes, NUL-terminated). Length, or -1: not known here. */
static inline int kfs_shm_link_get(const struct kfs_shm_header *h, uint64_t ino, char *buf)
{
    const struct kfs_shm_link *row = (const struct kfs_shm_link *)((const char *)h + h->link_off) +
                                     (kfs_hash_u64(ino) & (h->link_rows / KFS_SHM_WAYS - 1)) * KFS_SHM_WAYS;
    for (unsigned i = 0; i < KFS_SHM_WAYS; i++, row++) {
        if (__atomic_load_n(&row->ino, __ATOMIC_RELAXED) != ino)
            continue;
        struct kfs_shm_link l;
        if (!kfs_shm_row_read(&l, row, sizeof l))
            return -1;
        if (l.state == 1 && l.ino == ino && l.target_len <= KFS_SHM_TARGET_MAX) {
            memcpy(buf, l.target, l.target_len);
            buf[l.target_len] = 0;
            return l.target_len;
        }
    }
    return -1;
}

/* A listing that is being looked at. */
struct kfs_shm_view {
    const struct kfs_shm_list *row;
    const char *blob;
    uint32_t seq, bytes, count;
};

/* True: *ret shows the whole listing of directory ino. What is then taken out of it counts only after kfs_shm_view_ok. */
static inline bool kfs_shm_list_get(const struct kfs_shm_header *h, uint64_t ino, struct kfs_shm_view *ret)
{
    const struct kfs_shm_list *row = (const struct kfs_shm_list *)((const char *)h + h->list_off) +
                                     (kfs_hash_u64(ino) & (h->list_rows / KFS_SHM_WAYS - 1)) * KFS_SHM_WAYS;
    for (unsigned i = 0; i < KFS_SHM_WAYS; i++, row++) {
        if (__atomic_load_n(&row->dir, __ATOMIC_RELAXED) != ino)
            continue;
        struct kfs_shm_list l;
        if (!kfs_shm_row_read(&l, row, offsetof(struct kfs_shm_list, pad)))
            return false;
        if (l.state != 1 || l.dir != ino || (l.off & 7) || l.off > h->ring_bytes || l.bytes > h->ring_bytes - l.off ||
            l.count > l.bytes / sizeof(uint32_t))
            continue;
        *ret = (struct kfs_shm_view){row, (const char *)h + h->ring_off + l.off, l.seq, l.bytes, l.count};
        return true;
    }
    return false;
}

/* Was it the listing all the time since kfs_shm_list_get? */
static inline bool kfs_shm_view_ok(const struct kfs_shm_view *v)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&v->row->seq, __ATOMIC_RELAXED) == v->seq;
}

/* Where record i begins; i == count: the end of the last. False: the bytes are another's by now. */
static inline bool kfs_shm_view_at(const struct kfs_shm_view *v, uint32_t i, uint32_t *ret_off)
{
    uint32_t off = v->bytes;
    if (i < v->count)
        memcpy(&off, v->blob + (size_t)i * sizeof off, sizeof off);
    *ret_off = off;
    return off <= v->bytes && off >= v->count * sizeof off;
}

/* The first record whose name is not before (after: is behind) `name`; count if there is none. *ret_same: it has that name. False: see above. */
static inline bool kfs_shm_view_find(const struct kfs_shm_view *v, const char *name, size_t len, uint32_t *ret_i, bool *ret_same, uint64_t *ret_ino)
{
    uint32_t lo = 0, hi = v->count;
    *ret_same = false;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2, off;
        struct kfs_wire_dirent e;
        if (!kfs_shm_view_at(v, mid, &off) || v->bytes - off < sizeof e)
            return false;
        memcpy(&e, v->blob + off, sizeof e);
        if (e.name_len > v->bytes - off - sizeof e)
            return false;
        int order = memcmp(v->blob + off + sizeof e, name, e.name_len < len ? e.name_len : len);
        if (order == 0)
            order = (e.name_len > len) - (e.name_len < len);
        if (order == 0) {
            *ret_i = mid;
            *ret_same = true;
            *ret_ino = e.ino;
            return true;
        }
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *ret_i = lo;
    return true;
}

/* As kfs_shm_dent_get, out of the listing of the parent: KFS_DENT_EMPTY when there is none. */
static inline int kfs_shm_list_find(const struct kfs_shm_header *h, uint64_t parent, const char *name, size_t len, uint64_t *ret_ino)
{
    struct kfs_shm_view v;
    uint32_t i;
    bool same;
    uint64_t ino = 0;
    if (!kfs_shm_list_get(h, parent, &v) || !kfs_shm_view_find(&v, name, len, &i, &same, &ino) || !kfs_shm_view_ok(&v))
        return KFS_DENT_EMPTY;
    *ret_ino = ino;
    return same ? KFS_DENT_PRESENT : KFS_DENT_ABSENT;
}

#endif
