/* Which programs can be served: every kind that the check tells apart, built from bytes. */
#include "tests/unit/kt.h"
#include "tools/common/elf.h"
#include <elf.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static void path_make(char *buf, const char *name)
{
    if (!dir[0]) {
        strcpy(dir, "/tmp/kfs-elf.XXXXXX");
        if (!mkdtemp(dir))
            KT_FAIL("mkdtemp: %s", strerror(errno));
    }
    snprintf(buf, 128, "%s/%s", dir, name);
}

/* A file of these bytes and this mode. */
static void file_make(char *path, const void *data, size_t len, mode_t mode)
{
    path_make(path, "prog");
    unlink(path);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0 || chmod(path, mode) < 0)
        KT_FAIL("write %s: %s", path, strerror(errno));
}

static void one(const void *data, size_t len, mode_t mode, bool servable, const char *reason)
{
    char path[128];
    struct kfs_elf_report r;
    file_make(path, data, len, mode);
    kfs_elf_check(path, &r);
    unlink(path);
    if (r.servable != servable || !strstr(r.reason, reason))
        KT_FAIL("servable %d, because '%s'; expected %d and '%s'", r.servable, r.reason, servable, reason);
    if (!servable && !r.advice[0])
        KT_FAIL("no advice for '%s'", r.reason);
}

struct image {
    Elf64_Ehdr eh;
    Elf64_Phdr ph[2];
    char bytes[128];
};

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#define LOADER "/lib64/ld-linux-x86-64.so.2"
#else
#define MACHINE EM_AARCH64
#define LOADER "/lib/ld-linux-aarch64.so.1"
#endif

static struct image image_make(const char *loader)
{
    struct image m;
    memset(&m, 0, sizeof m);
    memcpy(m.eh.e_ident, ELFMAG, SELFMAG);
    m.eh.e_ident[EI_CLASS] = ELFCLASS64;
    m.eh.e_ident[EI_DATA] = ELFDATA2LSB;
    m.eh.e_type = ET_DYN;
    m.eh.e_machine = MACHINE;
    m.eh.e_phoff = offsetof(struct image, ph);
    m.eh.e_phentsize = sizeof(Elf64_Phdr);
    m.eh.e_phnum = 2;
    if (loader) {
        m.ph[0].p_type = PT_INTERP;
        m.ph[0].p_offset = offsetof(struct image, bytes);
        m.ph[0].p_filesz = strlen(loader) + 1;
        strcpy(m.bytes, loader);
    }
    return m;
}

static void image_one(struct image m, bool servable, const char *reason)
{
    one(&m, sizeof m, 0755, servable, reason);
}

TEST(elf_dynamic_glibc)
{
    image_one(image_make(LOADER), true, "dynamic, glibc");
}

TEST(elf_static)
{
    image_one(image_make(NULL), false, "statically linked");
}

TEST(elf_musl)
{
    bool here = access("/lib/ld-musl-x86_64.so.1", F_OK) == 0;
    image_one(image_make("/lib/ld-musl-x86_64.so.1"), here, here ? "dynamic, musl" : "does not exist");
}

TEST(elf_unknown_loader)
{
    image_one(image_make("/system/bin/linker64"), false, "neither glibc's nor musl's");
}

TEST(elf_loader_missing)
{
    image_one(image_make("/nowhere/ld-linux-x86-64.so.2"), false, "does not exist");
}

TEST(elf_other_machine)
{
    struct image m = image_make(LOADER);
    m.eh.e_machine = EM_RISCV;
    image_one(m, false, "another architecture (riscv)");
    m = image_make(LOADER);
    m.eh.e_ident[EI_CLASS] = ELFCLASS32;
    m.eh.e_machine = EM_386;
    image_one(m, false, "32-bit");
}

TEST(elf_go_program)
{
    struct image m = image_make(LOADER);
    const Elf64_Nhdr nh = {.n_namesz = 4, .n_descsz = 4, .n_type = 4};
    char *note = m.bytes + 64;
    memcpy(note, &nh, sizeof nh);
    memcpy(note + sizeof nh, "Go\0", 4);
    m.ph[1].p_type = PT_NOTE;
    m.ph[1].p_offset = offsetof(struct image, bytes) + 64;
    m.ph[1].p_filesz = 20;
    image_one(m, false, "Go program");
}

TEST(elf_not_a_program)
{
    struct image m = image_make(LOADER);
    m.eh.e_type = ET_REL;
    image_one(m, false, "not an executable");
    m = image_make(LOADER);
    m.eh.e_phoff = UINT64_MAX - 3;
    image_one(m, false, "cut off");
    m = image_make(LOADER);
    m.ph[0].p_filesz = 100000;
    image_one(m, false, "not readable");
    one("\177ELF", 4, 0755, false, "neither");
    one("", 0, 0755, false, "neither");
    one("hello", 5, 0755, false, "neither");
}

TEST(elf_not_executable)
{
    struct image m = image_make(LOADER);
    one(&m, sizeof m, 0644, false, "not executable");
}

TEST(elf_setuid)
{
    struct image m = image_make(LOADER);
    one(&m, sizeof m, 04755, false, "setuid");
    one(&m, sizeof m, 02755, false, "setgid");
}

TEST(elf_scripts)
{
    one("#!/bin/sh\n", 10, 0755, true, "dynamic, glibc");
    one("#! /usr/bin/env sh\n", 19, 0755, true, "dynamic, glibc");
    one("#!/usr/bin/env -S FOO=1 sh -e\n", 30, 0755, true, "dynamic, glibc");
    one("#!/no/such/interpreter\n", 23, 0755, false, "'/no/such/interpreter' does not exist");
    one("#!/usr/bin/env nosuchprogram\n", 29, 0755, false, "not in PATH");
    one("#!\n", 3, 0755, false, "names no interpreter");
}

TEST(elf_script_of_itself)
{
    char path[128], text[160];
    path_make(path, "prog");
    int n = snprintf(text, sizeof text, "#!%s\n", path);
    one(text, (size_t)n, 0755, false, "too deeply");
}

TEST(elf_missing)
{
    struct kfs_elf_report r;
    kfs_elf_check("nosuchprogram", &r);
    ASSERT(!r.servable);
    ASSERT_STR(r.reason, "not found in PATH");
    kfs_elf_check("/nosuchprogram", &r);
    ASSERT_STR(r.reason, "does not exist");
    kfs_elf_check("", &r);
    ASSERT(!r.servable);
    kfs_elf_check("/tmp", &r);
    ASSERT_STR(r.reason, "not a regular file");
}

__attribute__((destructor)) static void clean(void)
{
    if (dir[0])
        rmdir(dir);
}

KT_MAIN
