/* tools/common/elf.h — can the shim be preloaded into this program?
 *
 * What     Reads a program's first bytes and says whether the dynamic loader will honour LD_PRELOAD for it, and why not.
 * Model    Served: a dynamic executable of this machine's architecture whose loader is glibc's or musl's, without setuid, setgid or file
 *          capabilities. A `#!` script is what its interpreter is; `env NAME` is what NAME is.
 * Threads  Any.
 * Absent   Whether the program makes system calls without libc, except for Go, which says what it is.
 */
#ifndef KFS_TOOLS_COMMON_ELF_H
#define KFS_TOOLS_COMMON_ELF_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct kfs_elf_report {
    bool servable;
    bool musl;           /* needs libkfs-musl.so */
    char path[4096];     /* what was judged last: the program or its interpreter */
    char reason[512];    /* one line: why, or what it is */
    char advice[512];    /* what to do about it; "" when servable */
};

/* Judge CMD (looked up in $PATH when it has no slash). Always fills *ret. */
void kfs_elf_check(const char *cmd, struct kfs_elf_report *ret);

/* Would the dynamic loader of this machine take PATH as a library? It only warns about one that it cannot load, and runs the program
 * without. 0, or -errno (-EACCES, -ENOEXEC, …) with the reason. */
int kfs_elf_library_check(const char *path, struct kfs_err *err);

/* Find CMD as execvp would. 0 and its path in buf, or -errno (-ENOENT, -EACCES). */
int kfs_elf_find(const char *cmd, char *buf, size_t cap);

#endif
