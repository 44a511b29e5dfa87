/* preload/guard.c — faults of guarded instructions, and what the application may see of their handler
 *
 * Model    The kernel's handler of SIGSEGV and SIGBUS is ours while the application has the default or a handler of its own; what it asked for stands in `apps`. A fault
 *          elsewhere is the application's: its handler is called as the kernel would have called it (its flags and mask are in force), or the default is put
 *          back and the instruction runs into it again, so that a core file shows the place.
 * Vfork    The child's dispositions are its own, `apps` is not: it gets what it asks for directly.
 */
#include "preload/guard.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <signal.h>
#include <string.h>
#include <ucontext.h>

struct row {
    int32_t at, next;
};
extern const struct row __start_kfs_guard[] __attribute__((visibility("hidden")));
extern const struct row __stop_kfs_guard[] __attribute__((visibility("hidden")));

struct app {
    kfs_sighandler handler;
    int flags;
    sigset_t mask;
};
static struct app apps[2]; /* SIGSEGV, SIGBUS */

static struct app *app_of(int sig)
{
    return &apps[sig == SIGBUS];
}

/* --- strings -------------------------------------------------------------------------------------------------------------- */
__attribute__((no_sanitize_address)) long kfs_guard_strlen(const char *s, size_t cap)
{
    const uint64_t ones = 0x0101010101010101ULL, highs = 0x8080808080808080ULL;
    uintptr_t a = (uintptr_t)s & ~(uintptr_t)7;
    unsigned skip = (unsigned)((uintptr_t)s & 7) * 8;
    uint64_t bad = 0, w = kfs_guard_load((const void *)a, &bad);
    w |= skip ? (1ULL << skip) - 1 : 0;
    for (;;) {
        if (KFS_UNLIKELY(bad))
            return -EFAULT;
        uint64_t zeros = (w - ones) & ~w & highs;
        if (zeros) {
            size_t n = a + (unsigned)__builtin_ctzll(zeros) / 8 - (uintptr_t)s;
            return (long)(n < cap ? n : cap);
        }
        a += 8;
        if (a - (uintptr_t)s >= cap)
            return (long)cap;
        w = kfs_guard_load((const void *)a, &bad);
    }
}

/* --- the handler ------------------------------------------------------------------------------------------------------------ */
static bool go_on(ucontext_t *u)
{
#if defined __x86_64__
    uintptr_t at = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
#else
    uintptr_t at = u->uc_mcontext.pc;
#endif
    size_t count = ((uintptr_t)__stop_kfs_guard - (uintptr_t)__start_kfs_guard) / sizeof(struct row);
    const struct row *r = __start_kfs_guard;
    for (size_t i = 0; i < count; i++, r++) {
        if ((uintptr_t)&r->at + (uintptr_t)(intptr_t)r->at != at)
            continue;
        uintptr_t next = (uintptr_t)&r->next + (uintptr_t)(intptr_t)r->next;
#if defined __x86_64__
        u->uc_mcontext.gregs[REG_RIP] = (greg_t)next;
        u->uc_mcontext.gregs[REG_RAX] = 0;
        u->uc_mcontext.gregs[REG_RDX] = 1;
#else
        u->uc_mcontext.pc = next;
        u->uc_mcontext.regs[9] = 0;
        u->uc_mcontext.regs[10] = 1;
#endif
        return true;
    }
    return false;
}

/* The kernel's own structure. */
struct ksigaction {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

static long k_sigaction(int sig, const struct ksigaction *act, struct ksigaction *old)
{
    return kfs_sys4(SYS_rt_sigaction, sig, (long)act, (long)old, 8);
}

static void handler(int sig, siginfo_t *info, void *context)
{
    if (info->si_code > 0 && go_on(context)) {
        if (app_of(sig)->flags & (int)SA_RESETHAND)
            kfs_guard_init(); /* that was not the one which the application waits for */
        return;
    }
    kfs_sighandler h = __atomic_load_n(&app_of(sig)->handler, __ATOMIC_RELAXED);
    if (h && h != (kfs_sighandler)SIG_IGN) {
        union {
            kfs_sighandler plain;
            void (*info)(int, siginfo_t *, void *);
        } f = {h};
        f.info(sig, info, context);
        return;
    }
    struct ksigaction dfl = {0};
    (void)k_sigaction(sig, &dfl, NULL);
    if (info->si_code <= 0) /* sent: once more, to be met when this handler returns */
        (void)kfs_sys3(SYS_tgkill, kfs_sys_getpid(), kfs_sys_gettid(), sig);
}

#if defined __x86_64__
#define K_SA_RESTORER 0x04000000ul
__asm__(".text\n.align 16\n.hidden kfs_guard_return\n.globl kfs_guard_return\n.type kfs_guard_return,@function\n"
        "kfs_guard_return: movq $15, %rax\nsyscall\n.size kfs_guard_return, .-kfs_guard_return\n");
void kfs_guard_return(void) __attribute__((visibility("hidden")));
#define K_RETURN ((uintptr_t)kfs_guard_return)
#else
#define K_SA_RESTORER 0ul
#define K_RETURN ((uintptr_t)0)
#endif

static bool is_ours(int sig)
{
    struct ksigaction k;
    return k_sigaction(sig, NULL, &k) == 0 && k.handler == (uintptr_t)handler;
}

/* The kernel's action becomes ours, under what the application asked for. */
static long install(int sig)
{
    const struct app *a = app_of(sig);
    struct ksigaction k = {.handler = (uintptr_t)handler, .restorer = K_RETURN};
    bool has = a->handler && a->handler != (kfs_sighandler)SIG_IGN;
    k.flags = (has ? (unsigned long)(unsigned)a->flags : (unsigned long)SA_ONSTACK) | SA_SIGINFO | K_SA_RESTORER;
    if (has)
        memcpy(&k.mask, &a->mask, sizeof k.mask);
    return k_sigaction(sig, &k, NULL);
}

void kfs_guard_init(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct ksigaction k;
        if (k_sigaction(signals[i], NULL, &k) == 0 && k.handler == (uintptr_t)SIG_DFL)
            (void)install(signals[i]);
    }
}

/* --- what the application sees -------------------------------------------------------------------------------------------------- */
static void app_get(int sig, struct sigaction *ret)
{
    const struct app *a = app_of(sig);
    memset(ret, 0, sizeof *ret);
    ret->sa_handler = a->handler;
    ret->sa_flags = a->flags;
    ret->sa_mask = a->mask;
}

static int act_on(int sig, const struct sigaction *act, struct sigaction *old)
{
    struct sigaction seen;
    struct app *a = app_of(sig);
    bool ours = is_ours(sig);
    if (ours)
        app_get(sig, &seen);
    else if (kfs_real.sigaction(sig, NULL, &seen) < 0)
        return -1;
    if (act) {
        struct app asked = {act->sa_handler, act->sa_flags, act->sa_mask};
        bool ignore = act->sa_handler == SIG_IGN; /* survives exec: it has to be the kernel's */
        struct app before = *a;
        *a = asked;
        if (!ignore && install(sig) < 0) {
            *a = before;
            return kfs_real.sigaction(sig, act, old);
        }
        if (ignore && kfs_real.sigaction(sig, act, NULL) < 0)
            return -1;
    }
    if (old)
        *old = seen;
    return 0;
}

int kfs_do_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    if ((sig != SIGSEGV && sig != SIGBUS) || !kfs_pre_vol_count)
        return kfs_real.sigaction(sig, act, old);
    if (!kfs_pre_in_vfork)
        return act_on(sig, act, old);
    bool ours = is_ours(sig);
    int r = kfs_real.sigaction(sig, act, old);
    if (r == 0 && old && ours)
        app_get(sig, old);
    return r;
}

kfs_sighandler kfs_do_signal(int sig, kfs_sighandler h)
{
    if ((sig != SIGSEGV && sig != SIGBUS) || !kfs_pre_vol_count || h == (kfs_sighandler)SIG_ERR)
        return kfs_real.signal(sig, h); // cppcheck-suppress CastIntegerToAddressAtReturn
    struct sigaction act = {.sa_flags = SA_RESTART}, old;
    act.sa_handler = h;
    uint64_t mask = 1ULL << (sig - 1);
    memcpy(&act.sa_mask, &mask, sizeof mask);
    old.sa_handler = SIG_ERR;
    (void)kfs_do_sigaction(sig, &act, &old);
    return old.sa_handler;
}
