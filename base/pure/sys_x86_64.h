/* base/pure/sys_x86_64.h — raw system calls, x86-64
 *
 * What     kfs_sys6: number and six words in, the kernel's answer out (-errno on failure). errno is not touched.
 * Signal   Async-signal-safe, usable before libc is set up and in a vfork child. Not a cancellation point.
 * Include  through base/pure/sys.h.
 */
#ifndef KFS_BASE_PURE_SYS_X86_64_H
#define KFS_BASE_PURE_SYS_X86_64_H

static inline long kfs_sys6(long n, long a, long b, long c, long d, long e, long f)
{
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return ret;
}

static inline long kfs_sys4(long n, long a, long b, long c, long d)
{
    long ret;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return ret;
}

static inline long kfs_sys3(long n, long a, long b, long c)
{
    long ret;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return ret;
}

/* clone(CLONE_VM | CLONE_VFORK) and execve in the child, which runs on `stack_top` and writes nothing but that. Pid, or -errno of clone;
 * a failed execve exits 127. */
static inline long kfs_sys_spawn(const char *path, char *const argv[], char *const envp[], void *stack_top)
{
    long ret;
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    register const void *r12 __asm__("r12") = path;
    register const void *r13 __asm__("r13") = argv;
    register const void *r14 __asm__("r14") = envp;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "mov %%r12, %%rdi\n\t"
                     "mov %%r13, %%rsi\n\t"
                     "mov %%r14, %%rdx\n\t"
                     "mov $59, %%eax\n\t"
                     "syscall\n\t"
                     "mov $127, %%edi\n\t"
                     "mov $231, %%eax\n\t"
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(ret)
                     : "a"(56L), "D"(0x4100L), "S"(stack_top), "d"(0L), "r"(r10), "r"(r8), "r"(r12), "r"(r13), "r"(r14)
                     : "rcx", "r11", "memory");
    return ret;
}

#endif
