/* preload/inline.h — system calls that a program's own instructions make
 *
 * What     Some libraries have `syscall` instructions of their own (Rust's rustix, liburing): no function of libc is called, so no preloaded one either. Where such an
 *          instruction asks for one of the calls that we serve, it is replaced by a jump to a few instructions that ask us first.
 * Model    Looked at are the objects that ld.so has loaded: all at start, new ones behind each dlopen. The bytes 0f 05 may be part of something else; so the function
 *          around them, whose bounds .eh_frame tells, is read from its first instruction. Changed is a site only if that walk meets the bytes as an instruction,
 *          five bytes of neighbours can run elsewhere, and no branch of the function leads between them. The number is
 *          taken from the `mov $number, %eax` before it: sites that make other calls stay as they are.
 * Cost     Nothing for other calls; the code of each object is searched once, what was found is noted in the cache directory. A served site: about half a microsecond more than
 *          the function of libc. No signal, no mode of the kernel's: threads, forked children and blocked signals make no difference.
 * Owner    Pages of jumps are private mappings near the object; they stay when it is unloaded.
 * Absent   Code that is generated at run time, or mapped without ld.so; objects without .eh_frame_hdr (Go); ld.so and libc themselves; aarch64; processes
 *          with a shadow stack, or where the system forbids changing code (SELinux execmod): there such calls are the kernel's, as without this. KFS_INLINE=off likewise.
 */
#ifndef KFS_PRELOAD_INLINE_H
#define KFS_PRELOAD_INLINE_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

#define KFS_ENV_INLINE "KFS_INLINE"

/* do_syscall.c: is this one of the numbers that may be ours? */
bool kfs_sys_served(long number);
/* do_syscall.c: the call, answered as a kernel does; errno stays. */
long kfs_inline_call(long number, const long a[6]);

/* Once, when everything that the program starts with is loaded. `setting`: KFS_INLINE's value or NULL. */
void kfs_inline_start(const char *setting);
/* Objects that came since the last look. Takes ld.so's lock: only where dlopen was allowed. */
void kfs_inline_loaded(void);
/* The real dlopen, called so that it sees our caller's return address, and kfs_inline_loaded. Tail calls only. */
void *kfs_inline_dlopen(const char *file, int flags);

#pragma GCC visibility pop

#endif
