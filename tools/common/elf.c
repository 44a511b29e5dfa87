#include "tools/common/elf.h"
#include "base/cleanup.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SCRIPT_DEPTH_MAX 5 /* as many as the kernel follows, and one */

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#define MACHINE_NAME "x86-64"
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#define MACHINE_NAME "aarch64"
#else
#error "this architecture needs its ELF machine number here"
#endif

static const char ADVICE_FD[] =
    "give it files another way: it can use descriptors that it inherits ('kfs-run … -- sh -c \"PROGRAM < /data/file\"'), or copies outside the volume";

static void judge(struct kfs_elf_report *r, bool servable, const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void judge(struct kfs_elf_report *r, bool servable, const char *advice, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(r->reason, sizeof r->reason, fmt, ap);
    va_end(ap);
    r->servable = servable;
    (void)snprintf(r->advice, sizeof r->advice, "%s", servable ? "" : advice);
}

int kfs_elf_find(const char *cmd, char *buf, size_t cap)
{
    if (!*cmd)
        return -ENOENT;
    if (strchr(cmd, '/'))
        return (size_t)snprintf(buf, cap, "%s", cmd) >= cap ? -ENAMETOOLONG
               : access(cmd, F_OK) < 0                      ? -errno
                                                            : 0;
    const char *p = getenv("PATH");
    if (!p)
        p = "/usr/local/bin:/usr/bin:/bin";
    int rc = -ENOENT;
    for (;;) {
        size_t n = strcspn(p, ":");
        /* An empty element is the working directory. */
        int len = n ? snprintf(buf, cap, "%.*s/%s", (int)n, p, cmd) : snprintf(buf, cap, "./%s", cmd);
        struct stat st;
        if (len > 0 && (size_t)len < cap && stat(buf, &st) == 0 && S_ISREG(st.st_mode)) {
            if (access(buf, X_OK) == 0)
                return 0;
            rc = -EACCES;
        }
        if (!p[n])
            return rc;
        p += n + 1;
    }
}

/* ---- ELF ---------------------------------------------------------------------------------------------------------- */

static bool read_at(int fd, uint64_t off, void *buf, size_t len)
{
    return off <= INT64_MAX && pread(fd, buf, len, (off_t)off) == (ssize_t)len;
}

/* Go's linker leaves a note named "Go": such a program makes its system calls itself. */
static bool note_is_go(int fd, const Elf64_Phdr *ph)
{
    char data[256];
    size_t n = ph->p_filesz < sizeof data ? (size_t)ph->p_filesz : sizeof data;
    if (!read_at(fd, ph->p_offset, data, n))
        return false;
    for (size_t at = 0; at + sizeof(Elf64_Nhdr) + 4 <= n;) {
        Elf64_Nhdr nh;
        memcpy(&nh, data + at, sizeof nh);
        if (nh.n_namesz == 4 && memcmp(data + at + sizeof nh, "Go\0", 4) == 0)
            return true;
        if (nh.n_namesz > n || nh.n_descsz > n)
            return false;
        at += sizeof nh + ((nh.n_namesz + 3u) & ~3u) + ((nh.n_descsz + 3u) & ~3u);
    }
    return false;
}

static void judge_loader(struct kfs_elf_report *r, const char *loader)
{
    const char *base = strrchr(loader, '/');
    base = base ? base + 1 : loader;
    r->musl = strncmp(base, "ld-musl", 7) == 0;
    if (!r->musl && strncmp(base, "ld-linux", 8) != 0 && strncmp(base, "ld64", 4) != 0)
        judge(r, false, "use a glibc build of the program", "its loader '%.200s' is neither glibc's nor musl's", loader);
    else if (access(loader, F_OK) < 0)
        judge(r, false, "install the libc that it was built for", "its loader '%.200s' does not exist", loader);
    else
        judge(r, true, "", "dynamic, %s, " MACHINE_NAME, r->musl ? "musl" : "glibc");
}

static void judge_elf(int fd, const Elf64_Ehdr *eh, struct kfs_elf_report *r)
{
    char loader[512] = "";
    bool go = false;
    if (eh->e_phentsize != sizeof(Elf64_Phdr) || (eh->e_type != ET_EXEC && eh->e_type != ET_DYN)) {
        judge(r, false, "is the file whole?", "an ELF file, but not an executable");
        return;
    }
    for (unsigned i = 0; i < eh->e_phnum; i++) {
        Elf64_Phdr ph;
        if (!read_at(fd, eh->e_phoff + (uint64_t)i * sizeof ph, &ph, sizeof ph)) {
            judge(r, false, "is the file whole?", "a damaged ELF file: program headers are cut off");
            return;
        }
        if (ph.p_type == PT_NOTE && note_is_go(fd, &ph))
            go = true;
        if (ph.p_type != PT_INTERP)
            continue;
        if (ph.p_filesz < 2 || ph.p_filesz > sizeof loader || !read_at(fd, ph.p_offset, loader, (size_t)ph.p_filesz) ||
            loader[ph.p_filesz - 1]) {
            judge(r, false, "is the file whole?", "a damaged ELF file: the loader's name is not readable");
            return;
        }
    }
    if (go)
        judge(r, false, ADVICE_FD, "a Go program%s: it makes system calls without libc, where no preloaded library sees them",
              loader[0] ? "" : " (static)");
    else if (!loader[0])
        judge(r, false, ADVICE_FD, "statically linked: there is no dynamic loader that could load libkfs.so");
    else
        judge_loader(r, loader);
}

static const char *machine_name(unsigned machine, char *buf, size_t cap)
{
    switch (machine) {
    case EM_386:
        return "i386";
    case EM_X86_64:
        return "x86-64";
    case EM_ARM:
        return "arm";
    case EM_AARCH64:
        return "aarch64";
    case EM_RISCV:
        return "riscv";
    case EM_PPC64:
        return "ppc64";
    case EM_S390:
        return "s390";
    default:
        (void)snprintf(buf, cap, "machine %u", machine);
        return buf;
    }
}

/* ---- scripts ------------------------------------------------------------------------------------------------------- */

static void check_file(const char *path, int depth, struct kfs_elf_report *r);

static void judge_script(char *line, int depth, struct kfs_elf_report *r)
{
    line[strcspn(line, "\r\n")] = '\0';
    char *save = NULL;
    char *interpreter = strtok_r(line + 2, " \t", &save);
    if (!interpreter) {
        judge(r, false, "write its first line as '#!/path/of/interpreter'", "a script whose '#!' line names no interpreter");
        return;
    }
    const char *base = strrchr(interpreter, '/');
    char found[4096];
    if (base && strcmp(base, "/env") == 0) {
        char *word = strtok_r(NULL, " \t", &save);
        while (word && (word[0] == '-' || strchr(word, '=')))
            word = strtok_r(NULL, " \t", &save);
        if (word) {
            if (kfs_elf_find(word, found, sizeof found) < 0) {
                judge(r, false, "install it, or correct PATH", "a script for '%.200s', which is not in PATH", word);
                return;
            }
            interpreter = found;
        }
    }
    if (access(interpreter, F_OK) < 0) {
        judge(r, false, "install it, or correct the script's first line", "a script whose interpreter '%.200s' does not exist",
              interpreter);
        return;
    }
    check_file(interpreter, depth + 1, r);
}

/* ---- files ----------------------------------------------------------------------------------------------------------- */

static void judge_content(int fd, int depth, struct kfs_elf_report *r)
{
    union {
        Elf64_Ehdr eh;
        unsigned char ident[EI_NIDENT];
        char text[256];
    } head;
    memset(&head, 0, sizeof head);
    ssize_t n = pread(fd, &head, sizeof head - 1, 0);
    if (n < 0) {
        judge(r, false, "make the file readable to check it", "cannot read it: %s", strerror(errno));
        return;
    }
    if (n >= 2 && memcmp(head.text, "#!", 2) == 0) {
        judge_script(head.text, depth, r);
        return;
    }
    if (n < (ssize_t)sizeof(Elf32_Ehdr) || memcmp(head.ident, ELFMAG, SELFMAG) != 0) {
        judge(r, false, "if it is a shell script, begin it with '#!/bin/sh'", "neither an ELF program nor a '#!' script");
        return;
    }
    char buf[32];
    unsigned machine = head.eh.e_machine; /* at the same place in both classes */
    if (head.ident[EI_CLASS] != ELFCLASS64 || head.ident[EI_DATA] != ELFDATA2LSB || machine != MACHINE)
        judge(r, false, "use a " MACHINE_NAME " build of the program", "built for another architecture (%s%s); libkfs.so is for " MACHINE_NAME,
              machine_name(machine, buf, sizeof buf), head.ident[EI_CLASS] == ELFCLASS32 ? ", 32-bit" : "");
    else if (n < (ssize_t)sizeof(Elf64_Ehdr))
        judge(r, false, "is the file whole?", "a damaged ELF file: its header is cut off");
    else
        judge_elf(fd, &head.eh, r);
}

static void check_file(const char *path, int depth, struct kfs_elf_report *r)
{
    (void)snprintf(r->path, sizeof r->path, "%s", path);
    if (depth > SCRIPT_DEPTH_MAX) {
        judge(r, false, "name a program as interpreter", "scripts as interpreters of scripts, too deeply");
        return;
    }
    struct stat st;
    kfs_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 ? stat(path, &st) < 0 : fstat(fd, &st) < 0) {
        judge(r, false, "check its name", "cannot look at it: %s", strerror(errno));
        return;
    }
    if (!S_ISREG(st.st_mode))
        judge(r, false, "name a program", "not a regular file");
    else if (!(st.st_mode & 0111))
        judge(r, false, "chmod +x it, or name its interpreter", "not executable");
    else if (st.st_mode & (S_ISUID | S_ISGID))
        judge(r, false, "run a copy without these bits, as the user who may do what it does",
              "set%sid: the dynamic loader ignores LD_PRELOAD for whoever is not its owner", st.st_mode & S_ISUID ? "u" : "g");
    else if (getxattr(path, "security.capability", NULL, 0) > 0)
        judge(r, false, "run a copy without them (cp drops them)",
              "has file capabilities: the dynamic loader ignores LD_PRELOAD for it");
    else if (fd < 0)
        judge(r, false, "make the file readable to check it", "cannot read it");
    else
        judge_content(fd, depth, r);
}

void kfs_elf_check(const char *cmd, struct kfs_elf_report *ret)
{
    char path[4096];
    memset(ret, 0, sizeof *ret);
    int rc = kfs_elf_find(cmd, path, sizeof path);
    if (rc < 0) {
        (void)snprintf(ret->path, sizeof ret->path, "%s", cmd);
        if (rc == -ENOENT && !strchr(cmd, '/'))
            judge(ret, false, "check its name and PATH", "not found in PATH");
        else if (rc == -ENOENT)
            judge(ret, false, "check its name", "does not exist");
        else
            judge(ret, false, "chmod +x it, or name its interpreter", "not executable: %s", strerror(-rc));
        return;
    }
    check_file(path, 0, ret);
}

int kfs_elf_library_check(const char *path, struct kfs_err *err)
{
    Elf64_Ehdr eh;
    struct stat st;
    memset(&eh, 0, sizeof eh);
    kfs_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        return KFS_FAIL(err, errno, "cannot open library '%.250s': %s; make it readable", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return KFS_FAIL(err, ENOEXEC, "library '%.250s' is not a regular file; build it with 'make', or install KFS whole", path);
    ssize_t n = pread(fd, &eh, sizeof eh, 0);
    if (n < 0)
        return KFS_FAIL(err, errno, "cannot read library '%.250s': %s", path, strerror(errno));
    if (n >= EI_NIDENT && memcmp(eh.e_ident, ELFMAG, SELFMAG) == 0 && n == sizeof eh &&
        (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB || eh.e_machine != MACHINE))
        return KFS_FAIL(err, ENOEXEC, "library '%.250s' is not for " MACHINE_NAME "; install KFS of this architecture", path);
    uint64_t size = (uint64_t)st.st_size;
    bool whole = n == sizeof eh && memcmp(eh.e_ident, ELFMAG, SELFMAG) == 0 && eh.e_type == ET_DYN && eh.e_phnum > 0 && eh.e_shoff <= size &&
                 (uint64_t)eh.e_shnum * eh.e_shentsize <= size - eh.e_shoff;
    if (!whole)
        return KFS_FAIL(err, ENOEXEC, "library '%.250s' is damaged; build it with 'make', or install KFS whole", path);
    return 0;
}
