/* preload/insn.h — how long an x86-64 instruction is
 *
 * What     Enough of the encoding to walk through compiled code from the beginning of a function: lengths, where a branch goes, and whether the bytes mean the same elsewhere.
 * Absent   What compilers do not emit (XOP, 3DNow!, 16-bit branches, SSE4a's extrq): such an instruction is not known, and the walk ends.
 * Signal   Async-signal-safe; pure functions of the bytes.
 */
#ifndef KFS_PRELOAD_INSN_H
#define KFS_PRELOAD_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kfs_insn {
    unsigned length;
    bool branch;     /* relative: target is valid */
    bool fixed;      /* means something else at another address: a branch, or an operand relative to it */
    bool call;       /* a branch that comes back */
    int64_t target;  /* of a branch: distance from the instruction's first byte */
    bool sets_eax;   /* mov $value, %eax */
    uint32_t value;
};

/* The instruction at p, n bytes being there. False: not known, or cut off. */
bool kfs_insn_read(const uint8_t *p, size_t n, struct kfs_insn *ret);

#endif
