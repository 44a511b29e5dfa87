/* base/rand.h — unpredictable bytes from the kernel
 *
 * Threads  Any.
 * Blocks   Only in the first seconds after the machine's boot. A kernel that gives no random bytes at all ends the process: going on
 *          with guessable client ids would be worse.
 */
#ifndef KFS_BASE_RAND_H
#define KFS_BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

void kfs_rand_bytes(void *buf, size_t len);
uint64_t kfs_rand_u64(void);
/* A version 4 UUID as text, NUL-terminated. */
void kfs_uuid_make(char ret[40]);

#endif
