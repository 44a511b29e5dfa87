#include "preload/libs.h"

#include "preload/real.h"
#include "preload/shim.h"
#include "base/pure/sys.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOUND_MAX 64

/* --- ELF ---------------------------------------------------------------------------------------------------------------- */

/* Bytes [off, off + n) of the image, or NULL. */
static const void *image_at(const struct kfs_image *m, uint64_t off, uint64_t n)
{
    return off <= m->bytes && n <= m->bytes - off ? m->map + off : NULL;
}

/* The string at a DT_ value, or NULL. */
static const char *image_string(const struct kfs_image *m, uint64_t off)
{
    if (off >= m->strings_bytes)
        return NULL;
    const char *s = m->strings + off;
    return memchr(s, '\0', m->strings_bytes - off) ? s : NULL;
}

static bool image_strings(struct kfs_image *m, const Elf64_Phdr *ph, size_t n)
{
    uint64_t addr = 0, size = 0;
    for (size_t i = 0; i < m->dyn_n; i++) {
        if (m->dyn[i].d_tag == DT_STRTAB)
            addr = m->dyn[i].d_un.d_ptr;
        else if (m->dyn[i].d_tag == DT_STRSZ)
            size = m->dyn[i].d_un.d_val;
    }
    for (size_t i = 0; i < n; i++) {
        if (ph[i].p_type != PT_LOAD || addr < ph[i].p_vaddr ||
            addr - ph[i].p_vaddr >= ph[i].p_filesz)
            continue;
        m->strings = image_at(m, ph[i].p_offset + (addr - ph[i].p_vaddr), size);
        m->strings_bytes = size;
        return m->strings != NULL;
    }
    return false;
}

bool kfs_image_open(struct kfs_image *m, int fd)
{
    struct stat st;
    if (kfs_sys_fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(Elf64_Ehdr))
        return false;
    long p = kfs_sys_mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p < 0 && p > -4096)
        return false;
    *m = (struct kfs_image){.map = (const char *)p, .bytes = (size_t)st.st_size};
    const Elf64_Ehdr *eh = (const void *)m->map;
    if (memcmp(eh->e_ident, ELFMAG, SELFMAG) != 0 || eh->e_ident[EI_CLASS] != ELFCLASS64 ||
        eh->e_phentsize != sizeof(Elf64_Phdr) || (eh->e_phoff & 7))
        return true;
    const Elf64_Phdr *ph = image_at(m, eh->e_phoff, (uint64_t)eh->e_phnum * sizeof *ph);
    for (size_t i = 0; ph && i < eh->e_phnum; i++) {
        if (ph[i].p_type != PT_DYNAMIC || (ph[i].p_offset & 7))
            continue;
        m->dyn = image_at(m, ph[i].p_offset, ph[i].p_filesz);
        m->dyn_n = m->dyn ? ph[i].p_filesz / sizeof *m->dyn : 0;
        for (size_t n = 0; n < m->dyn_n; n++)
            if (m->dyn[n].d_tag == DT_NULL)
                m->dyn_n = n;
        if (!image_strings(m, ph, eh->e_phnum))
            m->dyn_n = 0;
        break;
    }
    return true;
}

void kfs_image_close(struct kfs_image *m)
{
    kfs_sys_munmap((void *)(uintptr_t)m->map, m->bytes);
}

const char *kfs_image_needed(const struct kfs_image *m, size_t i)
{
    for (size_t n = 0; n < m->dyn_n; n++) {
        if (m->dyn[n].d_tag != DT_NEEDED)
            continue;
        const char *s = image_string(m, m->dyn[n].d_un.d_val);
        if (!s || !*s || strchr(s, '/'))
            continue;
        if (i-- == 0)
            return s;
    }
    return NULL;
}

const char *kfs_image_dirs(const struct kfs_image *m, bool *ret_rpath)
{
    const char *rpath = NULL;
    *ret_rpath = false;
    for (size_t i = 0; i < m->dyn_n; i++) {
        if (m->dyn[i].d_tag == DT_RUNPATH)
            return image_string(m, m->dyn[i].d_un.d_val);
        if (m->dyn[i].d_tag == DT_RPATH)
            rpath = image_string(m, m->dyn[i].d_un.d_val);
    }
    *ret_rpath = rpath != NULL;
    return rpath;
}

/* --- search paths ----------------------------------------------------------------------------------------------------------- */

static size_t origin_token(const char *d, size_t n)
{
    if (n >= 7 && memcmp(d, "$ORIGIN", 7) == 0)
        return 7;
    return n >= 9 && memcmp(d, "${ORIGIN}", 9) == 0 ? 9 : 0;
}

bool kfs_libs_candidate(const char *origin, const char *dir, size_t n, const char *name,
                        char buf[KFS_PATH_MAX])
{
    const char *slash = strrchr(origin, '/');
    size_t at = 0, k = strlen(name), origin_n = slash ? (size_t)(slash - origin) : 1;
    while (n) {
        size_t token = origin_token(dir, n), put = token ? origin_n : 1;
        if (at + put >= KFS_PATH_MAX)
            return false;
        memcpy(buf + at, !token ? dir : slash ? origin : ".", put);
        at += put;
        dir += token ? token : 1;
        n -= token ? token : 1;
    }
    if (at + k + 2 > KFS_PATH_MAX)
        return false;
    if (at)
        buf[at++] = '/';
    memcpy(buf + at, name, k + 1);
    return true;
}

bool kfs_libs_maybe(const char *dirs)
{
    char dir[KFS_PATH_MAX];
    for (const char *d = dirs; d && *d;) {
        size_t n = strcspn(d, ":;");
        if (n < sizeof dir) {
            memcpy(dir, d, n);
            memcpy(dir + n, n ? "" : ".", n ? 1 : 2);
            if (kfs_pre_maybe(AT_FDCWD, dir))
                return true;
        }
        d += n;
        d += *d != '\0';
    }
    return false;
}

/* --- what a program needs ----------------------------------------------------------------------------------------------------- */

struct found {
    kfs_ino_t ino;
    char name[KFS_NAME_MAX + 1];
    char path[KFS_PATH_MAX];   /* as the application would name it */
    char target[KFS_PATH_MAX]; /* the cache file */
};

struct gather {
    const char *libpath;
    size_t n;
    struct kfs_vol *vol; /* of the first one: its cache directory holds the links */
    struct found found[FOUND_MAX];
};

static bool gathered(const struct gather *g, const char *name)
{
    for (size_t i = 0; i < g->n; i++)
        if (strcmp(g->found[i].name, name) == 0)
            return true;
    return false;
}

/* Does path exist? 1 in a volume, and taken; 2 on the host: ld.so finds it; 0 no. */
static int take(struct gather *g, const char *name, const char *path)
{
    struct kfs_loc loc;
    struct kfs_fdinfo i;
    struct found *f = &g->found[g->n];
    int w = kfs_pre_maybe(AT_FDCWD, path) ? kfs_pre_where(AT_FDCWD, path, &loc) : KFS_HOST;
    if (w == KFS_HOST || w == KFS_HOST_AT)
        return kfs_sys3(SYS_faccessat, AT_FDCWD, (long)(w == KFS_HOST ? path : loc.host), F_OK) == 0 ? 2 : 0;
    long fd = w < 0 ? w : kfs_pre_open_loc(&loc, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, 0);
    if (fd < 0)
        return 0;
    bool ok = kfs_pre_fd((int)fd, &i) && i.kind == KFS_FD_FILE && strlen(name) <= KFS_NAME_MAX;
    if (ok) {
        kfs_pre_fd_path((int)fd, f->target, sizeof f->target);
        ok = strncmp(f->target, "/proc/", 6) != 0;
    }
    kfs_pre_fd_unknown((int)fd);
    kfs_sys_close((int)fd);
    if (!ok)
        return 0;
    f->ino = i.ino;
    strcpy(f->name, name);
    strcpy(f->path, path);
    g->n++;
    if (!g->vol)
        g->vol = i.vol;
    return 1;
}

static bool search(struct gather *g, const char *origin, const char *dirs, const char *name)
{
    char path[KFS_PATH_MAX];
    for (const char *d = dirs; d && *d;) {
        size_t n = strcspn(d, ":;");
        if (kfs_libs_candidate(origin, d, n, name, path) && take(g, name, path))
            return true;
        d += n;
        d += *d != '\0';
    }
    return false;
}

/* Everything that the file needs itself. */
static void needs(struct gather *g, int fd, const char *path)
{
    struct kfs_image m;
    bool rpath;
    if (!kfs_image_open(&m, fd))
        return;
    const char *dirs = kfs_image_dirs(&m, &rpath), *name;
    for (size_t i = 0; (dirs || g->libpath) && g->n < FOUND_MAX && (name = kfs_image_needed(&m, i)); i++) {
        if (gathered(g, name) || (rpath && search(g, path, dirs, name)))
            continue;
        if (!search(g, path, g->libpath, name) && !rpath)
            search(g, path, dirs, name);
    }
    kfs_image_close(&m);
}

static void put_hex(char *p, uint64_t v)
{
    for (int i = 15; i >= 0; i--, v >>= 4)
        p[i] = "0123456789abcdef"[v & 15];
    p[16] = '\0';
}

/* name -> target in directory dir, replacing what is there at once. */
static bool link_put(int dir, const struct found *f)
{
    char now[KFS_PATH_MAX], tmp[32] = ".new-";
    size_t n = strlen(f->target);
    if (kfs_sys_readlinkat(dir, f->name, now, sizeof now) == (long)n && memcmp(now, f->target, n) == 0)
        return true;
    put_hex(tmp + 5, (uint64_t)kfs_sys_gettid());
    kfs_sys3(SYS_unlinkat, dir, (long)tmp, 0);
    if (kfs_sys3(SYS_symlinkat, (long)f->target, dir, (long)tmp) < 0)
        return false;
    return kfs_sys6(SYS_renameat2, dir, (long)tmp, dir, (long)f->name, 0, 0) == 0;
}

static int links_make(const struct gather *g, char dir[KFS_PATH_MAX])
{
    const struct kfs_mount *m = &g->vol->m;
    uint64_t hash = 0;
    for (size_t i = 0; i < g->n; i++) {
        hash = kfs_hash(g->found[i].name, strlen(g->found[i].name), hash);
        hash = kfs_hash_u64(g->found[i].ino ^ hash);
    }
    if (m->cache_dir_len + 32 >= KFS_PATH_MAX)
        return 0;
    memcpy(dir, m->cache_dir, m->cache_dir_len);
    memcpy(dir + m->cache_dir_len, "/t/l-", 5);
    put_hex(dir + m->cache_dir_len + 5, hash);
    kfs_sys3(SYS_mkdirat, AT_FDCWD, (long)dir, 0700);
    long fd = kfs_sys_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    bool ok = true;
    for (size_t i = 0; i < g->n; i++)
        ok = link_put((int)fd, &g->found[i]) && ok;
    kfs_sys_close((int)fd);
    return ok;
}

int kfs_libs_gather(int fd, const char *path, const char *libpath, char dir[KFS_PATH_MAX])
{
    long p = kfs_sys_mmap(NULL, sizeof(struct gather), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p < 0 && p > -4096)
        return 0;
    struct gather *g = (struct gather *)p;
    g->libpath = libpath && *libpath ? libpath : NULL;
    needs(g, fd, path);
    for (size_t i = 0; i < g->n; i++) { /* what is found joins the list */
        long lib = kfs_sys_openat(AT_FDCWD, g->found[i].target, O_RDONLY | O_CLOEXEC, 0);
        if (lib < 0)
            continue;
        needs(g, (int)lib, g->found[i].path);
        kfs_sys_close((int)lib);
    }
    int r = g->n ? links_make(g, dir) : 0;
    kfs_sys_munmap(g, sizeof *g);
    return r;
}
