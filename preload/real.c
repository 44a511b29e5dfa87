/* preload/real.c — find the functions behind ours in the loaded objects' symbol tables */
#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/stat.h>

struct kfs_real kfs_real;

extern ElfW(Dyn) _DYNAMIC[] __attribute__((visibility("hidden")));

/* The loaded objects: a list for debuggers. */
#ifdef __GLIBC__
#define LOADED (_r_debug.r_map)
#else
extern struct r_debug *_dl_debug_addr;
#define LOADED (_dl_debug_addr->r_map)
#endif

typedef void *__attribute__((may_alias)) slot_t; /* a member of kfs_real, whatever its function type */

struct want {
    const char *name;
    slot_t *slot;
};

/* One object's symbol table, by its GNU hash. */
struct object {
    const ElfW(Sym) *sym;
    const char *str;
    const uint16_t *versym;
    const uint32_t *buckets, *chain;
    const uint64_t *bloom;
    uint32_t bucket_count, first, bloom_words, bloom_shift;
    uintptr_t base;
};

static uint32_t gnu_hash(const char *s)
{
    uint32_t h = 5381;
    for (; *s; s++)
        h = h * 33 + (unsigned char)*s;
    return h;
}

/* ld.so relocates the pointers of most dynamic sections in place, but not of read-only ones (the vdso's). */
static const void *dyn_ptr(uintptr_t base, ElfW(Addr) p)
{
    return (const void *)(p < base ? base + p : p);
}

static bool object_open(uintptr_t base, const ElfW(Dyn) *dyn, struct object *ret)
{
    const uint32_t *hash = NULL;
    struct object o = {.base = base};
    for (; dyn && dyn->d_tag != DT_NULL; dyn++) {
        if (dyn->d_tag == DT_SYMTAB)
            o.sym = dyn_ptr(base, dyn->d_un.d_ptr);
        else if (dyn->d_tag == DT_STRTAB)
            o.str = dyn_ptr(base, dyn->d_un.d_ptr);
        else if (dyn->d_tag == DT_VERSYM)
            o.versym = dyn_ptr(base, dyn->d_un.d_ptr);
        else if (dyn->d_tag == DT_GNU_HASH)
            hash = dyn_ptr(base, dyn->d_un.d_ptr);
    }
    if (!o.sym || !o.str || !hash || !hash[0])
        return false;
    o.bucket_count = hash[0];
    o.first = hash[1];
    o.bloom_words = hash[2];
    o.bloom_shift = hash[3];
    o.bloom = (const uint64_t *)(hash + 4);
    o.buckets = (const uint32_t *)(o.bloom + o.bloom_words);
    o.chain = o.buckets + o.bucket_count;
    *ret = o;
    return true;
}

/* Not strcmp: a sanitizer's may be in its place and not ready yet. */
static bool same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* The default version if there is one, else a hidden (old) one. */
static void *object_find(const struct object *o, const char *name, uint32_t hash)
{
    uint64_t word = o->bloom[(hash / 64) & (o->bloom_words - 1)];
    uint64_t mask = (1ULL << (hash % 64)) | (1ULL << ((hash >> o->bloom_shift) % 64));
    if ((word & mask) != mask)
        return NULL;
    uint32_t i = o->buckets[hash % o->bucket_count];
    if (i < o->first)
        return NULL;
    const ElfW(Sym) *old = NULL;
    for (;; i++) {
        uint32_t h = o->chain[i - o->first];
        const ElfW(Sym) *s = &o->sym[i];
        if ((h | 1) == (hash | 1) && s->st_shndx != SHN_UNDEF && same(o->str + s->st_name, name)) {
            old = s;
            if (!o->versym || !(o->versym[i] & 0x8000))
                break;
        }
        if (h & 1)
            break;
    }
    if (!old)
        return NULL;
    uintptr_t addr = o->base + old->st_value;
    if (ELF64_ST_TYPE(old->st_info) == STT_GNU_IFUNC)
        addr = ((uintptr_t(*)(void))addr)();
    return (void *)addr;
}

static long nosys(void)
{
    errno = ENOSYS;
    return -1;
}

static void *nosys_ptr(void)
{
    errno = ENOSYS;
    return NULL;
}

/* --- what older libcs lack: the system call itself ---------------------------------------------------------------- */
static int raw_stat(const char *path, struct stat *st)
{
    return (int)kfs_pre_ret(kfs_sys_fstatat(KFS_SYS_FDCWD, path, st, 0));
}
static int raw_lstat(const char *path, struct stat *st)
{
    return (int)kfs_pre_ret(kfs_sys_fstatat(KFS_SYS_FDCWD, path, st, 0x100));
}
static int raw_fstat(int fd, struct stat *st)
{
    return (int)kfs_pre_ret(kfs_sys_fstat(fd, st));
}
static int raw_fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
    return (int)kfs_pre_ret(kfs_sys_fstatat(dirfd, path, st, flags));
}
static int raw_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
    return (int)kfs_pre_ret(kfs_sys6(SYS_statx, dirfd, (long)path, flags, mask, (long)stx, 0));
}
static int raw_renameat2(int d1, const char *a, int d2, const char *b, unsigned flags)
{
    return (int)kfs_pre_ret(kfs_sys6(SYS_renameat2, d1, (long)a, d2, (long)b, flags, 0));
}
static int raw_mknodat(int dirfd, const char *path, mode_t mode, dev_t dev)
{
    return (int)kfs_pre_ret(kfs_sys4(SYS_mknodat, dirfd, (long)path, mode, (long)dev));
}
static int raw_mknod(const char *path, mode_t mode, dev_t dev)
{
    return raw_mknodat(KFS_SYS_FDCWD, path, mode, dev);
}
static int raw_close_range(unsigned first, unsigned last, int flags)
{
    return (int)kfs_pre_ret(kfs_sys3(436, first, last, flags));
}
static void raw_closefrom(int first)
{
    kfs_sys3(436, first < 0 ? 0 : first, ~0U, 0);
}
static ssize_t raw_getdents64(int fd, void *buf, size_t size)
{
    return kfs_pre_ret(kfs_sys3(SYS_getdents64, fd, (long)buf, (long)size));
}
static int raw_execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)
{
    return (int)kfs_pre_ret(kfs_sys6(SYS_execveat, dirfd, (long)path, (long)argv, (long)envp, flags, 0));
}

static int raw_openat2(int dirfd, const char *path, const struct open_how *how, size_t size)
{
    return (int)kfs_pre_ret(kfs_sys4(437, dirfd, (long)path, (long)how, (long)size));
}
static int raw_pidfd_getfd(int pidfd, int fd, unsigned flags)
{
    return (int)kfs_pre_ret(kfs_sys3(438, pidfd, fd, flags));
}

#define RAW(name)                                                                                  \
    if (!kfs_real.name)                                                                            \
    kfs_real.name = raw_##name

static void fill_raw(void)
{
    RAW(stat);
    RAW(lstat);
    RAW(fstat);
    RAW(fstatat);
    RAW(statx);
    RAW(renameat2);
    RAW(mknod);
    RAW(mknodat);
    RAW(close_range);
    RAW(closefrom);
    RAW(getdents64);
    RAW(execveat);
    RAW(openat2);
    RAW(pidfd_getfd);
}

#define IS_POINTER(ret) _Generic((ret){0}, int: 0, long: 0, unsigned: 0, default: 1)
static const struct row {
    struct want want;
    bool pointer;
} rows[] = {
#define CALL(ret, name, params, args, key, disposition, note) {{#name, (slot_t *)&kfs_real.name}, IS_POINTER(ret)},
#define VCALL(name, params, args, key, disposition, note) {{#name, (slot_t *)&kfs_real.name}, false},
#define HAND(ret, name, params, disposition, note) {{#name, (slot_t *)&kfs_real.name}, IS_POINTER(ret)},
#define ALIAS(name, target, note)
#define FORWARD(ret, name, params, target, args, note)
#define PASS(name, note)
#define SKIP(name, note)
#include "preload/calls.def"
};
#define ROWS (sizeof rows / sizeof *rows)

static unsigned find_in(const struct link_map *m, const uint32_t *hashes, unsigned missing)
{
    struct object o;
    if (m->l_ld == _DYNAMIC || !object_open(m->l_addr, m->l_ld, &o))
        return missing;
    for (size_t i = 0; i < ROWS && missing; i++) {
        if (*rows[i].want.slot)
            continue;
        void *f = object_find(&o, rows[i].want.name, hashes[i]);
        if (f) {
            *rows[i].want.slot = f;
            missing--;
        }
    }
    return missing;
}

void *kfs_pre_real_find(const char *name)
{
    struct object o;
    uint32_t hash = gnu_hash(name);
    for (const struct link_map *m = LOADED; m; m = m->l_next) {
        void *f = m->l_ld != _DYNAMIC && object_open(m->l_addr, m->l_ld, &o) ? object_find(&o, name, hash) : NULL;
        if (f)
            return f;
    }
    return NULL;
}

static void find_clock(const struct link_map *first)
{
    static const char *const names[] = {"__vdso_clock_gettime", "__kernel_clock_gettime"};
    for (const struct link_map *m = first; m; m = m->l_next) {
        struct object o;
        if (!m->l_name || strncmp(m->l_name, "linux-vdso", 10) != 0 || !object_open(m->l_addr, m->l_ld, &o))
            continue;
        for (int i = 0; i < 2; i++) {
            void *f = object_find(&o, names[i], gnu_hash(names[i]));
            if (f)
                kfs_pre_vdso_clock = (int (*)(int, struct timespec *))f;
        }
    }
}

void kfs_pre_real_init(void)
{
    uint32_t hashes[ROWS];
    unsigned missing = 0;
    for (size_t i = 0; i < ROWS; i++) {
        hashes[i] = gnu_hash(rows[i].want.name);
        missing += !*rows[i].want.slot;
    }
    const struct link_map *self = LOADED;
    while (self && self->l_ld != _DYNAMIC)
        self = self->l_next;
    /* As RTLD_NEXT: what was loaded behind us; when we were loaded late (dlopen), anything. */
    for (const struct link_map *m = self ? self->l_next : NULL; m && missing; m = m->l_next)
        missing = find_in(m, hashes, missing);
    for (const struct link_map *m = LOADED; m && missing; m = m->l_next)
        missing = find_in(m, hashes, missing);
    fill_raw();
    for (size_t i = 0; i < ROWS; i++)
        if (!*rows[i].want.slot)
            *rows[i].want.slot = rows[i].pointer ? (void *)nosys_ptr : (void *)nosys;
    if (!kfs_pre_vdso_clock)
        find_clock(LOADED);
}
