/* blockstore/object.h — the object format, to the byte
 *
 * What     One object holds frames: of one file (a large object), or of many small ones (a pack).
 *          It is written once, under a name that nobody knew before, and never changed. Whoever
 *          has the bytes alone (and the volume's key, if it is sealed) can check and read them;
 *          docs/format.md says the same for a reader without this code.
 *
 * Layout   All integers little-endian, nothing is padded or aligned beyond what is shown.
 *
 *            0             header   64 bytes    struct kfs_object_header
 *            64            frame 0              stored_len bytes each, back to back
 *                          frame 1
 *                          …
 *            index_off     index    56 bytes a frame, in order   struct kfs_object_entry;
 *                                   sealed objects: encrypted, 16 bytes more
 *            size - 136    trailer  136 bytes   struct kfs_object_trailer
 *
 * Model    The object's plain content is the concatenation of its plain frames, each of 1 byte to
 *          KFS_FRAME_BYTES. An extent names a plain offset; the frame is found by binary search
 *          over the sums of plain lengths. The trailer says all that a reader needs, so one GET
 *          of the object's tail brings the index. Invariants, all checked by kfs_blk_index_parse
 *          before a length is used:
 *            (1) 1 <= frame_count <= KFS_OBJECT_FRAMES_MAX
 *            (2) entry[0].off == 64; entry[i+1].off == entry[i].off + entry[i].stored_len; the last
 *                one ends at index_off
 *            (3) index_off + index_len + 136 == size of the object; index_len is that of
 *                frame_count entries
 *            (4) 1 <= plain_len <= KFS_FRAME_BYTES; stored_len (less the tag) <= plain_len, equal
 *                for codec plain, 1 at least
 *            (5) trailer.volume and trailer.object are those the reader asked for: an object copied
 *                to a wrong name is damage. The header says the same as the trailer.
 *            (6) reserved fields and unknown flags are 0
 *          No byte of the object is unaccounted for: the trailer's hash covers header, stored index
 *          and trailer, an entry's hash covers its frame's plain bytes.
 *
 * Codecs   plain, zstd (one frame of RFC 8878 each). Then, in sealed objects, AES-256-GCM.
 *
 * Sealed   A volume has data keys of 32 bytes, each with an id (blockstore/keys.h). Each object has
 *          a random salt; its own key is HKDF-SHA256(key = data key, salt, info = "kfs object 2" |
 *          object id (8 bytes) | volume (40 bytes)). Frame i is encrypted with nonce = i (4 bytes,
 *          little-endian) and 8 zeros, the index with nonce 0xffffffff and 8 zeros and the
 *          trailer's first 112 bytes as additional data; 16 bytes of tag follow the ciphertext.
 *
 * Version 1 is still read: a header with frame_count, entries of 40 bytes, a trailer of 40 bytes,
 *          all frames plain, every frame but the last of KFS_FRAME_BYTES.
 *
 * Hashes   XXH3 128 bits, seed 0, in the canonical (big-endian) representation of 16 bytes. They
 *          find damage, not forgery: that is what sealing is for.
 */
#ifndef KFS_BLOCKSTORE_OBJECT_H
#define KFS_BLOCKSTORE_OBJECT_H

#include "base/pure/attr.h"
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "objects are read in place, as little-endian");

#define KFS_OBJECT_VERSION   2u
#define KFS_OBJECT_MAGIC     "KFSOBJ\r\n" /* a transfer that rewrites line ends is noticed at once */
#define KFS_OBJECT_END_MAGIC "KFSEN2\r\n"
/* 64 MiB of the smallest content that does not ride in the metadata (KFS_INLINE_MAX + 1). */
#define KFS_OBJECT_FRAMES_MAX 16384u
#define KFS_LARGE_FRAMES_MAX  64u /* frames of a large object */
#define KFS_VOLUME_ID_MAX     39
#define KFS_HASH_BYTES        16
#define KFS_SALT_BYTES        32
#define KFS_KEY_BYTES         32
#define KFS_TAG_BYTES         16

#define KFS_CODEC_PLAIN 0u
#define KFS_CODEC_ZSTD  1u

#define KFS_OBJECT_SEALED 1u /* flag: frames and index are encrypted */

struct kfs_object_header {
    char magic[8];
    uint32_t version;
    uint32_t flags; /* version 1: the number of frames */
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
    uint32_t flags; /* 0 */
    uint64_t ino;   /* whose bytes these were when they were written; 0: not said */
    uint64_t file_off;
    uint8_t hash[KFS_HASH_BYTES]; /* of the plain bytes */
};
static_assert(sizeof(struct kfs_object_entry) == 56, "index entry layout");
static_assert(offsetof(struct kfs_object_entry, hash) == 40, "index entry layout");

struct kfs_object_trailer {
    uint64_t index_off;
    uint64_t index_len;
    uint32_t frame_count;
    uint32_t flags;
    uint64_t object;
    char volume[KFS_VOLUME_ID_MAX + 1];
    uint32_t key_id; /* of the data key; 0: not sealed */
    uint32_t reserved;
    uint8_t salt[KFS_SALT_BYTES]; /* zeros: not sealed */
    uint8_t hash[KFS_HASH_BYTES]; /* of the header, the stored index, the trailer up to here */
    char magic[8];
};
static_assert(sizeof(struct kfs_object_trailer) == 136, "trailer layout");
static_assert(offsetof(struct kfs_object_trailer, salt) == 80, "trailer layout");
static_assert(offsetof(struct kfs_object_trailer, hash) == 112, "trailer layout");

#define KFS_OBJECT_BYTES_MIN                                                                       \
    (sizeof(struct kfs_object_header) + 1 + sizeof(struct kfs_object_entry) +                      \
     sizeof(struct kfs_object_trailer))

/* --- version 1, only read ---------------------------------------------------------------------- */
#define KFS_OBJECT1_END_MAGIC  "KFSEND\r\n"
#define KFS_OBJECT1_FRAMES_MAX 64u

struct kfs_object1_entry {
    uint64_t off;
    uint32_t stored_len, plain_len, codec, reserved;
    uint8_t hash[KFS_HASH_BYTES];
};
static_assert(sizeof(struct kfs_object1_entry) == 40, "index entry layout, version 1");

struct kfs_object1_trailer {
    uint64_t index_off, index_len;
    uint8_t hash[KFS_HASH_BYTES]; /* of the header, then the index */
    char magic[8];
};
static_assert(sizeof(struct kfs_object1_trailer) == 40, "trailer layout, version 1");

#endif
