/* preload/inline.c — find `syscall` instructions, and lead them to us */
#include "preload/inline.h"
#include "preload/insn.h"
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/hash.h"
#include "base/pure/sys.h"
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>

#if defined __x86_64__
#include <cpuid.h>
#include <emmintrin.h>

#define SERVED_MAX 1024
#define PAGE 4096u

/* For inline_x86_64.S. */
uint64_t kfs_inline_served[SERVED_MAX / 64] __attribute__((visibility("hidden"))); /* bit N: number N may be ours */
uint64_t kfs_inline_state_bytes __attribute__((visibility("hidden")));             /* room for vector registers, a multiple of 64 */
uint32_t kfs_inline_state_mask __attribute__((visibility("hidden")));              /* which, for xsave; 0: fxsave */
uint32_t kfs_inline_state_compact __attribute__((visibility("hidden")));           /* the processor has xsavec, which leaves out what is not in use */
void *kfs_inline_dlopen_real __attribute__((visibility("hidden")));
void kfs_inline_entry(void) __attribute__((visibility("hidden")));
uintptr_t kfs_inline_gadget(uintptr_t at) __attribute__((visibility("hidden")));

static bool on;

/* --- the function around an address: .eh_frame_hdr -------------------------------------------------------------------------- */

struct object {
    uintptr_t base;
    const uint8_t *hdr; /* PT_GNU_EH_FRAME */
    size_t hdr_bytes;
    const int32_t *table; /* pairs: first address, its entry; both relative to hdr */
    size_t count;
};

static int32_t read_i32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The usual encodings only: a pointer of 4 bytes, a count of 4 bytes, a table of 4-byte pairs relative to the header. */
static bool frames_open(struct object *o)
{
    const uint8_t *h = o->hdr;
    if (!h || o->hdr_bytes < 12 || h[0] != 1 || h[1] != 0x1b || h[2] != 0x03 || h[3] != 0x3b)
        return false;
    o->count = (size_t)(uint32_t)read_i32(h + 8);
    o->table = (const int32_t *)(const void *)(h + 12);
    return o->count && o->count <= (o->hdr_bytes - 12) / 8;
}

/* [*ret_first, *ret_end) of the function that contains `at`. */
static bool function_find(const struct object *o, const uint8_t *at, const uint8_t **ret_first, const uint8_t **ret_end)
{
    size_t low = 0, high = o->count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (o->hdr + o->table[2 * mid] <= at)
            low = mid;
        else
            high = mid;
    }
    const uint8_t *first = o->hdr + o->table[2 * low], *entry = o->hdr + o->table[2 * low + 1];
    if (first > at || read_i32(entry) < 12)
        return false;
    /* length, CIE, first address relative to its own place, number of bytes */
    if (entry + 8 + read_i32(entry + 8) != first)
        return false;
    const uint8_t *end = first + (uint32_t)read_i32(entry + 12);
    *ret_first = first;
    *ret_end = end;
    return at + 2 <= end;
}

/* --- a site ------------------------------------------------------------------------------------------------------------------- */

#define BEFORE_MAX 4
#define AFTER_MAX 3
#define NUMBER_REACH 10 /* instructions between the number and the call */
#define JUMP_BYTES 5

struct site {
    const uint8_t *before[BEFORE_MAX]; /* instructions in front, the nearest first; NULL: no further one can be moved */
    const uint8_t *call;
    const uint8_t *after[AFTER_MAX + 1]; /* ends: call + 2, and behind each instruction that can be moved */
    const uint8_t *first, *end;          /* what is replaced */
};

/* Walk from the function's beginning. False: the bytes are no instruction, or one that need not change. */
static bool site_read(struct site *s, const uint8_t *first, const uint8_t *end, const uint8_t *call)
{
    struct kfs_insn i;
    uint32_t number = 0;
    int age = NUMBER_REACH + 1;
    const uint8_t *p = first;
    memset(s->before, 0, sizeof s->before);
    while (p < call) {
        if (!kfs_insn_read(p, (size_t)(end - p), &i))
            return false;
        memmove(s->before + 1, s->before, (BEFORE_MAX - 1) * sizeof *s->before);
        s->before[0] = p;
        if (i.fixed || (p[0] == 0x0f && p[1] == 0x05))
            memset(s->before, 0, sizeof s->before);
        age++;
        if (i.sets_eax) {
            number = i.value;
            age = 0;
        }
        p += i.length;
    }
    if (p != call || (age <= NUMBER_REACH && !kfs_sys_served(number)))
        return false;
    s->call = call;
    memset(s->after, 0, sizeof s->after);
    s->after[0] = p = call + 2;
    for (int k = 1; k <= AFTER_MAX && p < end; k++) {
        if (!kfs_insn_read(p, (size_t)(end - p), &i) || i.fixed || (p[0] & 0xfe) == 0xc2 || (p[0] == 0x0f && p[1] == 0x05))
            break; /* a return ends the block */
        s->after[k] = p += i.length;
    }
    return true;
}

/* Does a branch of the function lead behind s->first and before s->end? */
static bool branched_into(const struct site *s, const uint8_t *first, const uint8_t *end)
{
    struct kfs_insn i;
    for (const uint8_t *p = first; p < end; p += i.length) {
        if (!kfs_insn_read(p, (size_t)(end - p), &i))
            return true;
        const uint8_t *to = p + i.target;
        if (i.branch && to > s->first && to < s->end)
            return true;
    }
    return false;
}

/* Choose what is replaced: five bytes or more. */
static bool site_choose(struct site *s, const uint8_t *first, const uint8_t *end)
{
    for (int a = 0; a <= AFTER_MAX && s->after[a]; a++) {
        for (int b = 0; b <= BEFORE_MAX && (b == 0 || s->before[b - 1]); b++) {
            s->first = b ? s->before[b - 1] : s->call;
            s->end = s->after[a];
            if (s->end - s->first >= JUMP_BYTES && !branched_into(s, first, end))
                return true;
        }
    }
    return false;
}

/* --- pages of jumps --------------------------------------------------------------------------------------------------------------- */

#define NEAR (1L << 30) /* well inside the reach of a jump */
#define PIECE_MAX 128

static struct {
    uint8_t *page; /* the last one: entries are added as long as it is near enough */
    size_t used;
} jumps;

static bool near(const uint8_t *a, const uint8_t *b)
{
    long d = a - b;
    return d > -NEAR && d < NEAR;
}

static uint8_t *page_near(const uint8_t *at)
{
    uintptr_t from = (uintptr_t)at & -(uintptr_t)PAGE;
    for (uintptr_t step = 1UL << 16; step < (uintptr_t)NEAR; step *= 2)
        for (int side = 0; side < 2; side++) {
            uintptr_t hint = side ? from + step : from - step;
            if (!side && step > from)
                continue;
            long r = kfs_sys_mmap((void *)hint, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if ((unsigned long)r > -(unsigned long)PAGE) /* -errno */
                return NULL;
            uint8_t *page = (uint8_t *)r;
            if (near(page, at))
                return page;
            kfs_sys_munmap(page, PAGE);
        }
    return NULL;
}

static long protect(const void *page, size_t bytes, int prot)
{
    return kfs_sys3(SYS_mprotect, (long)page, (long)bytes, prot);
}

static uint8_t *put(uint8_t *to, const void *bytes, size_t n)
{
    memcpy(to, bytes, n);
    return to + n;
}

static uint8_t *put_i32(uint8_t *to, long v)
{
    int32_t w = (int32_t)v;
    return put(to, &w, sizeof w);
}

/* The instructions that take the site's place, at p. The stack below %rsp may be in use. */
static uint8_t *piece_write(uint8_t *p, const struct site *s, uint8_t *const *slot)
{
    static const uint8_t down[] = {0x48, 0x8d, 0x64, 0x24, 0x80};                   /* lea -128(%rsp), %rsp */
    static const uint8_t up[] = {0x48, 0x8d, 0xa4, 0x24, 0x80, 0x00, 0x00, 0x00};   /* lea 128(%rsp), %rsp */
    static const uint8_t over[] = {0xeb, sizeof up + 2};                            /* jmp: over the next two */
    static const uint8_t call[] = {0x0f, 0x05};
    p = put(p, s->first, (size_t)(s->call - s->first));
    p = put(p, down, sizeof down);
    p = put(p, (const uint8_t[]){0xff, 0x15}, 2); /* call *slot(%rip); goes on 10 bytes further when the call is the kernel's */
    p = put_i32(p, (const uint8_t *)slot - (p + 4));
    p = put(p, up, sizeof up);
    p = put(p, over, sizeof over);
    p = put(p, up, sizeof up);
    p = put(p, call, sizeof call);
    p = put(p, s->call + 2, (size_t)(s->end - (s->call + 2)));
    *p++ = 0xe9;
    return put_i32(p, s->end - (p + 4));
}

static uint8_t *piece_make(const struct site *s)
{
    if (!jumps.page || !near(jumps.page, s->call) || jumps.used + PIECE_MAX > PAGE) {
        jumps.page = page_near(s->call);
        if (!jumps.page)
            return NULL;
        void (*entry)(void) = kfs_inline_entry;
        memcpy(jumps.page, &entry, sizeof entry);
        jumps.used = 64;
    } else if (protect(jumps.page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) < 0) { /* other threads may be in it */
        return NULL;
    }
    uint8_t *piece = jumps.page + jumps.used;
    uint8_t *end = piece_write(piece, s, (uint8_t *const *)(void *)jumps.page);
    jumps.used += (size_t)(end - piece + 15) & ~15ul;
    return protect(jumps.page, PAGE, PROT_READ | PROT_EXEC) == 0 ? piece : NULL;
}

static bool site_change(const struct site *s)
{
    uint8_t *piece = piece_make(s), bytes[JUMP_BYTES] = {0xe9};
    if (!piece)
        return false;
    uint8_t *first = (uint8_t *)(uintptr_t)s->first, *page = (uint8_t *)((uintptr_t)first & -(uintptr_t)PAGE);
    size_t n = (size_t)(((uintptr_t)s->end + PAGE - 1) & -(uintptr_t)PAGE) - (uintptr_t)page;
    put_i32(bytes + 1, piece - (s->first + JUMP_BYTES));
    if (protect(page, n, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
        return false;
    memcpy(first, bytes, JUMP_BYTES);
    memset(first + JUMP_BYTES, 0xcc, (size_t)(s->end - s->first) - JUMP_BYTES);
    (void)protect(page, n, PROT_READ | PROT_EXEC);
    return true;
}

/* --- before the first site is changed ---------------------------------------------------------------------------------------------------- */

#define STATE_X87_TO_AVX512 0xe7u

/* What the processor saves of the vector registers, and where it puts it. */
static void state_find(void)
{
    unsigned a, b, c, d, low, high;
    kfs_inline_state_bytes = 512;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    unsigned mask = low & STATE_X87_TO_AVX512, bytes = 512 + 64;
    for (unsigned i = 2; i < 8; i++)
        if ((mask & (1u << i)) && __get_cpuid_count(0xd, i, &a, &b, &c, &d) && b + a > bytes)
            bytes = b + a;
    kfs_inline_state_mask = mask;
    kfs_inline_state_compact = __get_cpuid_count(0xd, 1, &a, &b, &c, &d) && (a & 2);
    kfs_inline_state_bytes = (bytes + 63) & ~63u;
}

/* cpuid is slow in virtual machines: not for those that need it not. */
static void entry_prepare(void)
{
    if (kfs_inline_state_bytes)
        return;
    for (long n = 0; n < SERVED_MAX; n++)
        if (kfs_sys_served(n))
            kfs_inline_served[n / 64] |= 1ULL << (n % 64);
    state_find();
}

/* --- searching ------------------------------------------------------------------------------------------------------------------------ */

/* Sites by their distance from the object's base, as they go into the note. */
struct notes {
    size_t n;
    bool full;
    char text[4000];
};

static void note_add(struct notes *t, uintptr_t off)
{
    char digits[16];
    int k = 0;
    if (t->n + sizeof digits + 2 > sizeof t->text) {
        t->full = true;
        return;
    }
    do
        digits[k++] = "0123456789abcdef"[off & 15];
    while ((off >>= 4));
    while (k)
        t->text[t->n++] = digits[--k];
    t->text[t->n++] = ',';
}

static bool candidate(const struct object *o, const uint8_t *at)
{
    struct site s;
    const uint8_t *first, *end;
    if (!function_find(o, at, &first, &end) || !site_read(&s, first, end, at))
        return false;
    if (site_choose(&s, first, end)) {
        entry_prepare();
        (void)site_change(&s);
    }
    return true;
}

static void found(const struct object *o, const uint8_t *at, struct notes *t)
{
    if (candidate(o, at))
        note_add(t, (uintptr_t)at - o->base);
}

static void search(const struct object *o, const uint8_t *p, size_t n, struct notes *t)
{
    const uint8_t *end = p + n;
    const __m128i a = _mm_set1_epi8(0x0f), b = _mm_set1_epi8(0x05);
    for (; end - p >= 17; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p), y = _mm_loadu_si128((const __m128i *)(const void *)(p + 1));
        unsigned hits = (unsigned)_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(x, a), _mm_cmpeq_epi8(y, b)));
        for (; hits; hits &= hits - 1)
            found(o, p + __builtin_ctz(hits), t);
    }
    for (; end - p >= 2; p++)
        if (p[0] == 0x0f && p[1] == 0x05)
            found(o, p, t);
}

static bool is_code(const ElfW(Phdr) *h)
{
    return h->p_type == PT_LOAD && (h->p_flags & (PF_R | PF_W | PF_X)) == (PF_R | PF_X);
}

/* --- what was found in an object is noted in the cache directory ------------------------------------------------------------------------ */
/* CACHE/t/i-HASH is a symlink whose target lists the sites; HASH is of the file's identity and the object's segments. A note is a hint: what it lists is read as
 * carefully as if it had been searched for. kfsd empties the directory when it starts. */

static bool note_name(const struct dl_phdr_info *d, char name[KFS_PATH_MAX])
{
    const struct kfs_mount *m = &kfs_pre_vols[0].m;
    const char *file = d->dlpi_name && *d->dlpi_name ? d->dlpi_name : "/proc/self/exe";
    struct stat st;
    if (m->cache_dir_len + 32 >= KFS_PATH_MAX || kfs_sys_fstatat(KFS_SYS_FDCWD, file, &st, 0) < 0)
        return false;
    uint64_t id[] = {st.st_dev, st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
    uint64_t hash = kfs_hash((const char *)id, sizeof id, 1);
    hash = kfs_hash((const char *)d->dlpi_phdr, d->dlpi_phnum * sizeof *d->dlpi_phdr, hash);
    memcpy(name, m->cache_dir, m->cache_dir_len);
    char *p = stpcpy(name + m->cache_dir_len, "/t/i-");
    for (int i = 0; i < 16; i++, hash >>= 4)
        *p++ = "0123456789abcdef"[hash & 15];
    *p = '\0';
    return true;
}

static bool in_code(const struct dl_phdr_info *d, uintptr_t off)
{
    for (int i = 0; i < d->dlpi_phnum; i++)
        if (is_code(&d->dlpi_phdr[i]) && off >= d->dlpi_phdr[i].p_vaddr && off - d->dlpi_phdr[i].p_vaddr + 2 <= d->dlpi_phdr[i].p_memsz)
            return true;
    return false;
}

/* False: no note. "-" is one of nothing. */
static bool note_follow(const struct dl_phdr_info *d, const struct object *o, const char *name, struct notes *t)
{
    long n = kfs_sys_readlinkat(KFS_SYS_FDCWD, name, t->text, sizeof t->text);
    if (n <= 0 || n >= (long)sizeof t->text)
        return false;
    uintptr_t off = 0;
    for (const char *p = t->text; p < t->text + n; p++) {
        char c = *p;
        if (c == ',') {
            if (in_code(d, off) && o->hdr && ((const uint8_t *)o->base)[off] == 0x0f && ((const uint8_t *)o->base)[off + 1] == 0x05)
                (void)candidate(o, (const uint8_t *)o->base + off);
            off = 0;
        } else {
            off = off * 16 + (uintptr_t)(c >= 'a' ? c - 'a' + 10 : c - '0');
        }
    }
    return true;
}

static void note_write(struct notes *t, const char *name)
{
    if (t->full)
        return;
    if (!t->n)
        t->text[t->n++] = '-';
    t->text[t->n] = '\0';
    (void)kfs_sys3(SYS_symlinkat, (long)t->text, KFS_SYS_FDCWD, (long)name);
}

static bool contains(const struct dl_phdr_info *d, uintptr_t at)
{
    for (int i = 0; at && i < d->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &d->dlpi_phdr[i];
        if (h->p_type == PT_LOAD && at - (d->dlpi_addr + h->p_vaddr) < h->p_memsz)
            return true;
    }
    return false;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Ours, ld.so, the vdso, and the parts of libc: what they do inside is their wrappers' business. */
static bool left_alone(const struct dl_phdr_info *d)
{
    static const char *const names[] = {"libc.so", "ld-linux", "ld-musl", "libpthread.so", "libpthread-", "librt.so", "libm.so", "libdl.so"};
    const char *name = base_name(d->dlpi_name ? d->dlpi_name : "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return contains(d, (uintptr_t)&on) || contains(d, (uintptr_t)kfs_inline_dlopen_real) || contains(d, getauxval(AT_BASE)) ||
           contains(d, getauxval(AT_SYSINFO_EHDR));
}

static void object_look(const struct dl_phdr_info *d)
{
    struct object o = {.base = d->dlpi_addr};
    struct notes t;
    char name[KFS_PATH_MAX];
    if (left_alone(d))
        return;
    for (int i = 0; i < d->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &d->dlpi_phdr[i];
        if (h->p_type != PT_GNU_EH_FRAME)
            continue;
        o.hdr = (const uint8_t *)(o.base + h->p_vaddr);
        o.hdr_bytes = h->p_memsz;
    }
    if (!frames_open(&o))
        return;
    bool named = note_name(d, name);
    if (named && note_follow(d, &o, name, &t))
        return;
    t.n = 0;
    t.full = false;
    for (int i = 0; i < d->dlpi_phnum; i++)
        if (is_code(&d->dlpi_phdr[i]))
            search(&o, (const uint8_t *)(o.base + d->dlpi_phdr[i].p_vaddr), d->dlpi_phdr[i].p_memsz, &t);
    if (named)
        note_write(&t, name);
}

/* Objects are listed in the order in which they came; one that goes makes us look at all the others again, where nothing is left to change. */
static struct {
    unsigned long long adds, subs;
    int pid; /* who is looking; a forked child waits for nobody */
} seen;

struct look {
    size_t index, skip;
};

static int each(struct dl_phdr_info *d, size_t bytes, void *arg)
{
    (void)bytes;
    struct look *l = arg;
    if (l->index == 0) {
        l->skip = d->dlpi_subs == seen.subs ? (size_t)(seen.adds - seen.subs) : 0;
        if (d->dlpi_adds == seen.adds && d->dlpi_subs == seen.subs)
            return 1;
        seen.adds = d->dlpi_adds;
        seen.subs = d->dlpi_subs;
    }
    if (l->index++ >= l->skip)
        object_look(d);
    return 0;
}

void kfs_inline_loaded(void)
{
    if (!on || kfs_pre_in_vfork)
        return;
    struct look l = {0};
    int pid = kfs_sys_getpid(), none = 0;
    while (!__atomic_compare_exchange_n(&seen.pid, &none, pid, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        if (none == pid) {
            kfs_sys3(SYS_sched_yield, 0, 0, 0);
            none = 0;
        }
    }
    dl_iterate_phdr(each, &l);
    __atomic_store_n(&seen.pid, 0, __ATOMIC_RELEASE);
}

/* --- start ----------------------------------------------------------------------------------------------------------------------------- */

static bool shadow_stack(void)
{
    uint64_t features = 0;
    return kfs_sys3(SYS_arch_prctl, 0x5005 /* ARCH_SHSTK_STATUS */, (long)&features, 0) == 0 && (features & 1);
}

void kfs_inline_start(const char *setting)
{
    if (on || (setting && strcmp(setting, "off") == 0) || shadow_stack())
        return;
    kfs_inline_dlopen_real = (void *)kfs_real.dlopen;
    on = true;
    kfs_inline_loaded();
}

/* A `ret` near `at`, which is in our caller's code: real dlopen is to return there. 0: none. */
uintptr_t kfs_inline_gadget(uintptr_t at)
{
    if (!kfs_inline_dlopen_real)
        kfs_inline_dlopen_real = (void *)kfs_real.dlopen;
    if (!on || kfs_pre_in_vfork)
        return 0;
    const uint8_t *p = (const uint8_t *)at;
    size_t left = PAGE - (at & (PAGE - 1));
    const uint8_t *ret = memchr(p, 0xc3, left);
    if (!ret)
        ret = memchr(p - (PAGE - left), 0xc3, PAGE);
    return (uintptr_t)ret;
}

#else

void kfs_inline_start(const char *setting)
{
    (void)setting;
}

void kfs_inline_loaded(void) {}

void *kfs_inline_dlopen(const char *file, int flags)
{
    return kfs_real.dlopen(file, flags);
}

#endif
