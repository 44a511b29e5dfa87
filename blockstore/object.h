/* blockstore/object.h — the object format, to the byte
 *
 * What     One object holds up to KFS_OBJECT_FRAMES_MAX frames of one commit. It is written once,
 *          under a name that nobody knew before, and never changed. Whoever has the bytes alone can
 *          check and read them; docs/format.md says the same for a reader without this code.
 *
 * Layout   All integers little-endian, nothing is padded or aligned beyond what is shown.
 *
 *            0            header   64 bytes   struct kfs_object_header
 *            64           frame 0             stored_len bytes each, back to back
 *                         frame 1
 *                         …
 *            index_off    index    40 bytes a frame, in order   struct kfs_object_entry
 *            size - 40    trailer  40 bytes   struct kfs_object_trailer
 *
 * Model    The object's plain content is the concatenation of its plain frames; every frame but the
 *          last is exactly KFS_FRAME_BYTES plain, so plain offset P lies in frame P /
 *          KFS_FRAME_BYTES. Invariants, all checked by kfs_blk_index_load before a length is used:
 *            (1) 1 <= frame_count <= KFS_OBJECT_FRAMES_MAX
 *            (2) entry[0].off == 64; entry[i+1].off == entry[i].off + entry[i].stored_len; the last
 *                one ends at index_off
 *            (3) index_off + index_len + 40 == size of the object; index_len == 40 * frame_count
 *            (4) plain_len == KFS_FRAME_BYTES but for the last frame, which has 1..KFS_FRAME_BYTES
 *            (5) codec 0: stored_len == plain_len
 *            (6) header.volume and header.object are those the reader asked for: an object copied
 *                to a wrong name is damage
 *          By (2) and (3) no byte of the object is unaccounted for, and all are checked: the
 *          trailer's hash covers header and index, an entry's hash covers its frame's plain bytes,
 *          the trailer's own fields follow from (3).
 *
 * Hashes   XXH3 128 bits, seed 0, in the canonical (big-endian) representation of 16 bytes. They
 *          find damage, not forgery.
 */
#ifndef KFS_BLOCKSTORE_OBJECT_H
#define KFS_BLOCKSTORE_OBJECT_H

#include "base/pure/attr.h"
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "objects are read in place, as little-endian");

#define KFS_OBJECT_VERSION 1u
#define KFS_OBJECT_MAGIC   "KFSOBJ\r\n" /* a transfer that rewrites line ends is noticed at once */
#define KFS_OBJECT_END_MAGIC  "KFSEND\r\n"
#define KFS_OBJECT_FRAMES_MAX (KFS_CHUNK_BYTES / KFS_FRAME_BYTES)
#define KFS_VOLUME_ID_MAX     39
#define KFS_HASH_BYTES        16

#define KFS_CODEC_PLAIN 0u
#define KFS_CODEC_ZSTD  1u /* reserved: not written, and refused by name when read */

struct kfs_object_header {
    char magic[8];
    uint32_t version;
    uint32_t frame_count;
    uint64_t object;
    char volume[KFS_VOLUME_ID_MAX + 1]; /* NUL-padded text */
};
static_assert(sizeof(struct kfs_object_header) == 64, "header layout");
static_assert(offsetof(struct kfs_object_header, object) == 16, "header layout");
static_assert(offsetof(struct kfs_object_header, volume) == 24, "header layout");

struct kfs_object_entry {
    uint64_t off; /* of the stored bytes, from the start of the object */
    uint32_t stored_len;
    uint32_t plain_len;
    uint32_t codec;
    uint32_t reserved;            /* 0 */
    uint8_t hash[KFS_HASH_BYTES]; /* of the plain bytes */
};
static_assert(sizeof(struct kfs_object_entry) == 40, "index entry layout");
static_assert(offsetof(struct kfs_object_entry, hash) == 24, "index entry layout");

struct kfs_object_trailer {
    uint64_t index_off;
    uint64_t index_len;
    uint8_t hash[KFS_HASH_BYTES]; /* of the header, then the index */
    char magic[8];
};
static_assert(sizeof(struct kfs_object_trailer) == 40, "trailer layout");
static_assert(offsetof(struct kfs_object_trailer, magic) == 32, "trailer layout");

#define KFS_OBJECT_BYTES_MIN                                                                       \
    (sizeof(struct kfs_object_header) + 1 + sizeof(struct kfs_object_entry) +                      \
     sizeof(struct kfs_object_trailer))

#endif
