/* tests/missed/raw.c — stat of argv[1] by a system call of its own, past the shim: what missed must report */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static long raw(long n, long a, long b, long c, long d)
{
#if defined __x86_64__
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return n;
#else
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
#endif
}

int main(int argc, char **argv)
{
    struct stat st;
    for (int i = 1; i < argc; i++)
        raw(SYS_newfstatat, AT_FDCWD, (long)argv[i], (long)&st, 0);
    return 0;
}
