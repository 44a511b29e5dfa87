/* preload/libs.h — shared libraries that lie in a volume
 *
 * What     ld.so opens files with system calls of its own, so it finds nothing in a volume. What a program or a library needs is found here, by ld.so's rules:
 *          DT_NEEDED names along DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH, with $ORIGIN meaning the directory as the application names it.
 * Model    For a program to be started: a directory of symlinks, CACHE/t/l-HASH, name -> cache file, to be put in front of LD_LIBRARY_PATH. HASH is of the names
 *          and inodes; a new version of a library changes a link, not the directory. kfsd empties t/ when it starts.
 * Blocks   Round trips; a few file operations in the cache directory.
 * Signal   Async-signal-safe; fit for vfork children.
 * Absent   Applications of another user than kfsd's: they cannot reach the cache directory. Names with a slash in DT_NEEDED. 32-bit programs.
 */
#ifndef KFS_PRELOAD_LIBS_H
#define KFS_PRELOAD_LIBS_H

#include "base/pure/attr.h"
#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* A 64-bit ELF file, mapped; nothing in it is believed: every access is checked. dyn_n 0: not such a file, or it needs nothing. */
struct kfs_image {
    const char *map;
    size_t bytes;
    const char *strings;
    size_t strings_bytes;
    const Elf64_Dyn *dyn;
    size_t dyn_n;
};
bool kfs_image_open(struct kfs_image *m, int fd);
void kfs_image_close(struct kfs_image *m);
/* The i-th DT_NEEDED name; NULL: no more. */
const char *kfs_image_needed(const struct kfs_image *m, size_t i);
/* DT_RUNPATH, or else DT_RPATH with *ret_rpath; NULL: none. */
const char *kfs_image_dirs(const struct kfs_image *m, bool *ret_rpath);

/* One entry (n bytes) of a search path and a name: $ORIGIN is the directory of `origin`. False: too long. */
bool kfs_libs_candidate(const char *origin, const char *dir, size_t n, const char *name, char buf[KFS_PATH_MAX]);
/* Does a search path have a directory that may lie in a volume? */
bool kfs_libs_maybe(const char *dirs);

/* What program `path` (open as fd) needs from volumes, given LD_LIBRARY_PATH (may be NULL). 1: dir is to be searched first; 0: nothing. */
int kfs_libs_gather(int fd, const char *path, const char *libpath, char dir[KFS_PATH_MAX]);

#pragma GCC visibility pop

#endif
