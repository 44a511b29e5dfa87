/* base/pure/sys_aarch64.h — raw system calls, 64-bit ARM
 *
 * What     kfs_sys6: number and six words in, the kernel's answer out (-errno on failure). errno is not touched.
 * Signal   Async-signal-safe, usable before libc is set up and in a vfork child. Not a cancellation point.
 * Include  through base/pure/sys.h.
 */
#ifndef KFS_BASE_PURE_SYS_AARCH64_H
#define KFS_BASE_PURE_SYS_AARCH64_H

static inline long kfs_sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
}

static inline long kfs_sys4(long n, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory", "cc");
    return x0;
}

static inline long kfs_sys3(long n, long a, long b, long c)
{
    return kfs_sys4(n, a, b, c, 0);
}

/* clone(CLONE_VM | CLONE_VFORK) and execve in the child, which runs on `stack_top` and writes nothing but that. Pid, or -errno of clone;
 * a failed execve exits 127. */
static inline long kfs_sys_spawn(const char *path, char *const argv[], char *const envp[], void *stack_top)
{
    register long x8 __asm__("x8") = 220;
    register long x0 __asm__("x0") = 0x4100;
    register long x1 __asm__("x1") = (long)stack_top;
    register long x2 __asm__("x2") = 0;
    register long x3 __asm__("x3") = 0;
    register long x4 __asm__("x4") = 0;
    register long x9 __asm__("x9") = (long)path;
    register long x10 __asm__("x10") = (long)argv;
    register long x11 __asm__("x11") = (long)envp;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x0, x9\n\t"
                     "mov x1, x10\n\t"
                     "mov x2, x11\n\t"
                     "mov x8, #221\n\t"
                     "svc #0\n\t"
                     "mov x0, #127\n\t"
                     "mov x8, #94\n\t"
                     "svc #0\n\t"
                     "brk #0\n"
                     "1:"
                     : "+r"(x0), "+r"(x8)
                     : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x9), "r"(x10), "r"(x11)
                     : "memory", "cc");
    return x0;
}

#endif
