/* tools/kfsd/safetensors.h — the order in which a safetensors file is read
 *
 * What     Such a file starts with the length of its header (8 bytes, little-endian), then the header: a JSON object that says for each tensor which bytes
 *          behind the header are its own. Loaders go through it in its order, so that is the order to fetch in.
 * Bad input  Anything that is not such a header gives no ranges: then the file comes in the order of its bytes.
 */
#ifndef KFS_TOOLS_KFSD_SAFETENSORS_H
#define KFS_TOOLS_KFSD_SAFETENSORS_H

#include "blockstore/fetch.h"

#define KFSD_SAFETENSORS_HEADER_MAX (16u << 20)

/* Ranges of the tensors in header order, at most max; neighbours become one. 0: this is no header. json need not end with NUL. */
size_t kfsd_safetensors_ranges(const char *json, size_t len, uint64_t file_bytes, struct kfs_range *ret, size_t max);
/* Ask for all of f in that order, if its first bytes say that it is such a file. Waits for those. fd: of the file that f fills. */
void kfsd_safetensors_first(struct kfs_fill *f, int fd, uint64_t file_bytes);

#endif
