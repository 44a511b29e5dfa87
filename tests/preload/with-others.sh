#!/usr/bin/env bash
# tests/preload/with-others.sh — other preloaded libraries before and behind libkfs.so: allocators, an interposer of file calls, AddressSanitizer
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
lib=$KFS_LIB
[ -e "${KFS_BIN%/bin}/lib/libkfs.so" ] && lib=$(realpath "${KFS_BIN%/bin}/lib/libkfs.so")

# What everybody must be able to do: threads that allocate and open, fork, exec, streams, directories.
cat >"$T/work.c" <<'C'
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static void *thread(void *arg)
{
    for (int i = 0; i < 50; i++) {
        char name[64], *text = malloc(1000 + (size_t)i);
        snprintf(name, sizeof name, "t%ld-%d", (long)arg, i);
        memset(text, 'x', 1000);
        FILE *f = fopen(name, "w");
        if (!f || fwrite(text, 1, 1000, f) != 1000 || fclose(f))
            perror(name);
        free(text);
    }
    return NULL;
}
int main(int argc, char **argv)
{
    if (argc > 2) {
        struct stat st;
        if (stat("by-child", &st))
            return 2;
        printf("executed\n");
        return 0;
    }
    if (mkdir(argv[1], 0755) || chdir(argv[1]))
        return 1;
    pthread_t t[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, thread, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    int n = 0;
    long bytes = 0;
    struct dirent *e;
    DIR *d = opendir(".");
    while (d && (e = readdir(d))) {
        struct stat st;
        n++;
        if (!stat(e->d_name, &st) && S_ISREG(st.st_mode))
            bytes += st.st_size;
    }
    closedir(d);
    printf("%d entries, %ld bytes\n", n, bytes);
    char *real = realpath("t0-0", NULL), *cwd = getcwd(NULL, 0);
    printf("%s %d\n", strrchr(real, '/'), strncmp(real, cwd, strlen(cwd)));
    free(real);
    free(cwd);
    fflush(stdout);
    pid_t p = fork();
    if (p == 0) {
        char *b = malloc(100000);
        int fd = open("by-child", O_CREAT | O_WRONLY, 0644);
        memset(b, 1, 100000);
        _exit(write(fd, b, 100000) != 100000 || close(fd));
    }
    int st;
    waitpid(p, &st, 0);
    printf("child %d, size %d\n", st, stat("by-child", &(struct stat){0}));
    fflush(stdout);
    execl(argv[0], argv[0], argv[1], "again", NULL);
    return 1;
}
C
if ! cc -O1 -o "$T/work" "$T/work.c" -lpthread 2>"$T/cc.err"; then
    t_fail with-others "cannot be compiled: $(head -1 "$T/cc.err")"
    exit 1
fi
"$T/work" "$T/plain/w" >"$T/want" 2>&1

# order NAME LD_PRELOAD PROGRAM: as without; the shim is where it was put
order() {
    t_wanted "$1" || return 0
    if [ -n "$KFS_PLAIN" ]; then
        "$3" "$P/$1" >"$T/got" 2>&1
    else
        krun env LD_PRELOAD="$2" "$3" "$P/$1" >"$T/got" 2>&1
    fi
    local rc=$?
    t_check "$1" "[ $rc = 0 ] && cmp -s $T/want $T/got" "code $rc"
    cmp -s "$T/want" "$T/got" || diff -a "$T/want" "$T/got" | t_note 15
}
around() { # NAME LIBRARY
    order "$1-first" "$2:$lib" "$T/work"
    order "$1-behind" "$lib:$2" "$T/work"
    # kfs-run adds itself to what is there already.
    if [ -z "$KFS_PLAIN" ]; then
        LD_PRELOAD=$2 krun "$T/work" "$P/$1-outside" >"$T/got" 2>&1
        t_check "$1-set-before-kfs-run" "cmp -s $T/want $T/got" "$(diff -a "$T/want" "$T/got" | head -3 | tr '\n' ' ')"
    fi
}
found() { # FILE…: the first that the loader's directories have
    local f d
    for f in "$@"; do
        for d in /usr/lib/*-linux-gnu /usr/lib64 /usr/lib; do
            [ -e "$d/$f" ] && echo "$d/$f" && return 0
        done
    done
    return 1
}

for allocator in jemalloc:libjemalloc.so.2 tcmalloc:libtcmalloc_minimal.so.4 mimalloc:libmimalloc.so.2 mimalloc:libmimalloc.so.2.0; do
    name=${allocator%%:*}
    if file=$(found "${allocator#*:}"); then
        [ -z "${seen_:-}" ] || [ "$seen_" != "$name" ] || continue
        around "$name" "$file"
        seen_=$name
    elif [ "$allocator" != mimalloc:libmimalloc.so.2 ]; then
        [ "${seen_:-}" = "$name" ] || t_skip "$name" "${allocator#*:} is not installed"
    fi
done

# Somebody else's library that stands in for the same calls and hands them on.
cat >"$T/spy.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
static unsigned long calls;
#define REAL(ret, name, ...) static ret (*real)(__VA_ARGS__); if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name); calls++
int open(const char *p, int fl, ...) { va_list ap; va_start(ap, fl); mode_t m = fl & O_CREAT ? va_arg(ap, mode_t) : 0; va_end(ap); REAL(int, open, const char *, int, ...); return real(p, fl, m); }
int stat(const char *p, struct stat *s) { REAL(int, stat, const char *, struct stat *); return real(p, s); }
FILE *fopen(const char *p, const char *m) { REAL(FILE *, fopen, const char *, const char *); return real(p, m); }
int close(int fd) { REAL(int, close, int); return real(fd); }
char *realpath(const char *p, char *b) { REAL(char *, realpath, const char *, char *); return real(p, b); }
__attribute__((destructor)) static void end(void) { const char *to = getenv("SPY_TO"); if (to && calls) { FILE *f = fopen(to, "a"); if (f) { fprintf(f, "%lu\n", calls); fclose(f); } } }
C
if cc -O1 -shared -fPIC -o "$T/spy.so" "$T/spy.c" -ldl 2>"$T/cc.err"; then
    export SPY_TO=$T/spied
    around another-interposer "$T/spy.so"
    t_check another-interposer-was-asked "[ -s $T/spied ] || [ -n \"\$KFS_PLAIN\" ]"
    unset SPY_TO
else
    t_fail another-interposer "cannot be compiled: $(head -1 "$T/cc.err")"
fi

# AddressSanitizer in the program wants to be first in the list of libraries: linked statically, as one of the program's libraries behind the shim, or in
# LD_PRELOAD before it. It goes on finding what it is for.
export ASAN_OPTIONS=detect_leaks=0
if cc -O1 -g -fsanitize=address -static-libasan -o "$T/asan-static" "$T/work.c" -lpthread 2>/dev/null && "$T/asan-static" "$T/plain/as" >"$T/asan.out" 2>&1; then
    order asan-static "$lib" "$T/asan-static"
else
    t_skip asan-static "the compiler has no static libasan that runs here"
fi
if cc -O1 -g -fsanitize=address -o "$T/asan" "$T/work.c" -lpthread 2>/dev/null && "$T/asan" "$T/plain/ad" >"$T/asan.out" 2>&1; then
    if [ -z "$KFS_PLAIN" ]; then
        krun "$T/asan" "$P/asan" >"$T/got" 2>&1
        t_check asan "cmp -s $T/want $T/got" "$(head -3 "$T/got" | tr '\n' ' ')"
    fi
    printf '%s\n' '#include <fcntl.h>' '#include <stdlib.h>' '#include <unistd.h>' \
        'int main(int c, char **v) { char *b = calloc(1, 10); int fd = open(v[c - 1], O_CREAT | O_RDWR, 0600); return write(fd, b, 11) != 11; }' >"$T/bug.c"
    cc -w -O0 -g -fsanitize=address -o "$T/bug" "$T/bug.c"
    krun "$T/bug" "$P/bug" >"$T/got" 2>&1
    t_check asan-finds-bugs "grep -q heap-buffer-overflow $T/got" "$(head -3 "$T/got" | tr '\n' ' ')"
    asan=$(realpath "$(cc -print-file-name=libasan.so)")
    order asan-preloaded "$asan:$lib" "$T/asan"
else
    t_skip asan "the compiler has no libasan that runs here"
fi
kfs_done
