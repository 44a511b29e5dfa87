/* preload/guard.h — the application's memory, without trusting its pointers
 *
 * What     A kernel answers EFAULT to a bad pointer; so do we, without asking one. The few instructions that touch the application's memory first stand in a
 *          table (section kfs_guard): when one faults, the handler of SIGSEGV and SIGBUS in guard.c goes on behind it with "bad" set. No cost otherwise.
 * Model    Touch first, use afterwards: what was readable a moment ago is read plainly. Memory that another thread unmaps in between, argv and envp of exec,
 *          and what a libc function would read itself, are the program's own fault, as with libc.
 * Signal   Async-signal-safe. While SIGSEGV is ignored, blocked, or handled by a program that was there before us, a fault is the program's.
 */
#ifndef KFS_PRELOAD_GUARD_H
#define KFS_PRELOAD_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* Rows: where the instruction is, where to go on; both relative to the word itself. On a fault GUARD_VALUE becomes 0 and GUARD_BAD 1. */
#define GUARDED(instruction)                                                                                                       \
    "771: " instruction "\n772:\n"                                                                                                 \
    ".pushsection kfs_guard,\"a\"\n.balign 4\n.long 771b - .\n.long 772b - .\n.popsection\n"

typedef uint64_t __attribute__((may_alias)) kfs_guard_word;

#if defined __x86_64__
/* The aligned word at p; *bad becomes 1 when there is none. */
static inline uint64_t kfs_guard_load(const void *p, uint64_t *bad)
{
    uint64_t w;
    __asm__ volatile(GUARDED("movq %2, %0") : "=&a"(w), "+d"(*bad) : "m"(*(const kfs_guard_word *)p));
    return w;
}
static inline void kfs_guard_load_byte(const char *p, uint64_t *bad)
{
    uint64_t w;
    __asm__ volatile(GUARDED("movzbl %2, %k0") : "=&a"(w), "+d"(*bad) : "m"(*p));
}
static inline void kfs_guard_store_zero(char *p, uint64_t *bad)
{
    uint64_t w;
    __asm__ volatile(GUARDED("movb $0, %2") : "=&a"(w), "+d"(*bad), "=m"(*p));
}
/* Copy n bytes; how many before either side faulted. */
static inline size_t kfs_guard_copy(char *to, const char *from, size_t n)
{
    uint64_t w, bad = 0;
    size_t left = n;
    __asm__ volatile(GUARDED("rep movsb") : "=&a"(w), "+d"(bad), "+D"(to), "+S"(from), "+c"(left) : : "memory");
    return n - left;
}
#else
static inline uint64_t kfs_guard_load(const void *p, uint64_t *bad)
{
    register uint64_t w __asm__("x9"), b __asm__("x10") = *bad;
    __asm__ volatile(GUARDED("ldr %0, %2") : "=&r"(w), "+r"(b) : "Q"(*(const kfs_guard_word *)p));
    *bad = b;
    return w;
}
static inline void kfs_guard_load_byte(const char *p, uint64_t *bad)
{
    register uint64_t w __asm__("x9"), b __asm__("x10") = *bad;
    __asm__ volatile(GUARDED("ldrb %w0, %2") : "=&r"(w), "+r"(b) : "Q"(*p));
    *bad = b;
}
static inline void kfs_guard_store_zero(char *p, uint64_t *bad)
{
    register uint64_t w __asm__("x9"), b __asm__("x10") = *bad;
    __asm__ volatile(GUARDED("strb wzr, %2") : "=&r"(w), "+r"(b), "=Q"(*p));
    *bad = b;
}
/* A word at a time, bytes at the end and where a word does not go. */
static inline size_t kfs_guard_copy(char *to, const char *from, size_t n)
{
    register uint64_t w __asm__("x9"), b __asm__("x10") = 0;
    size_t done = 0;
    for (; done + 8 <= n; done += 8) {
        __asm__ volatile(GUARDED("ldr %0, %2") : "=&r"(w), "+r"(b) : "Q"(*(const kfs_guard_word *)(from + done)));
        if (b)
            break;
        __asm__ volatile(GUARDED("str %0, %2") : "+r"(w), "+r"(b), "=Q"(*(kfs_guard_word *)(to + done)));
        if (b)
            break;
    }
    for (b = 0; done < n; done++) {
        __asm__ volatile(GUARDED("ldrb %w0, %2") : "=&r"(w), "+r"(b) : "Q"(from[done]));
        if (b)
            break;
        __asm__ volatile(GUARDED("strb %w0, %2") : "+r"(w), "+r"(b), "=Q"(to[done]));
        if (b)
            break;
    }
    return done;
}
#endif

#define KFS_GUARD_PAGE 4096u /* the smallest: a touch each is enough */

/* Can the n bytes be read? */
static inline bool kfs_guard_can_read(const void *p, size_t n)
{
    uint64_t bad = 0;
    const char *s = p;
    if (!n)
        return true;
    for (size_t i = 0; i < n && !bad; i += KFS_GUARD_PAGE)
        kfs_guard_load_byte(s + i, &bad);
    if (!bad)
        kfs_guard_load_byte(s + n - 1, &bad);
    return !bad;
}

/* Can the n bytes be written? Some of them are zero afterwards. */
static inline bool kfs_guard_can_write(void *p, size_t n)
{
    uint64_t bad = 0;
    char *s = p;
    if (!n)
        return true;
    for (size_t i = 0; i < n && !bad; i += KFS_GUARD_PAGE)
        kfs_guard_store_zero(s + i, &bad);
    if (!bad)
        kfs_guard_store_zero(s + n - 1, &bad);
    return !bad;
}

/* Length of a string; `cap` when it is that long or longer; -EFAULT when it ends nowhere. */
long kfs_guard_strlen(const char *s, size_t cap);

/* Take over the two signals as far as nobody has them. Idempotent. */
void kfs_guard_init(void);

#pragma GCC visibility pop

#endif
