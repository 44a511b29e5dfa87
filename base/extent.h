/* base/extent.h — where a file's bytes are: the currency between meta (which stores it) and blockstore (which fills it)
 *
 * Model    A file's content is either inline bytes (size <= KFS_INLINE_MAX, possibly 0) or a sorted list of non-overlapping extents;
 *          what no extent covers up to size is a hole (zeros). Extents start at multiples of KFS_FRAME_BYTES in the file, and at the start of
 *          a frame in the object.
 */
#ifndef KFS_BASE_EXTENT_H
#define KFS_BASE_EXTENT_H

#include "base/pure/attr.h"
#include <stdbool.h>
#include <stddef.h>

struct kfs_extent {
    uint64_t off;        /* in the file */
    uint64_t len;        /* bytes of the file covered */
    uint64_t object;     /* id; 0 = hole (only in a delta) */
    uint64_t object_off; /* plain offset inside the object: where one of its frames starts */
};

/* The committed content of one inode. Owner: the struct; kfs_content_release frees. */
struct kfs_content {
    uint64_t size_bytes;
    bool is_inline;
    uint32_t inline_len; /* == size_bytes when is_inline */
    unsigned char *inline_data;
    struct kfs_extent *extents;
    size_t extent_count;
};
void kfs_content_release(struct kfs_content *c);

/* What a commit changes. to_inline: the new content is exactly inline_data. Otherwise: each range in extents replaces whatever covered it
 * (object 0: becomes a hole), then everything at or beyond size_bytes is dropped, and inline bytes go. Sorted, not overlapping. */
struct kfs_content_delta {
    uint64_t size_bytes;
    uint64_t blocks; /* new st_blocks, of 512 bytes */
    bool changed;    /* false: content is as committed; nothing to do */
    bool to_inline;
    uint32_t inline_len;
    unsigned char inline_data[KFS_INLINE_MAX];
    struct kfs_extent *extents;
    size_t extent_count;
    uint64_t *objects; /* every object written to, and its stored size: for roll-back and accounting */
    uint64_t *object_bytes;
    size_t object_count;
    size_t own_count; /* objects[0, own_count) hold this file alone; those behind are packs that other files share */
};
void kfs_content_delta_release(struct kfs_content_delta *d);

#endif
