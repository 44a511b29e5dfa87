#!/usr/bin/env bash
# tests/preload/musl.sh — libkfs-musl.so: the probes built with musl, in a plain directory and in KFS; programs of both libcs that start each other
. "$(dirname "$0")/../lib/lib.sh"
cc=${MUSL_CC:-musl-gcc}
if ! t_have "$cc"; then
    t_skip musl "'$cc' is not installed (Debian: musl-tools)"
    exit 0
fi
if [ -z "$KFS_PLAIN" ] && [ ! -e "${KFS_BIN%/bin}/lib/libkfs-musl.so" ]; then
    t_skip musl "libkfs-musl.so is not built; run 'make' now that '$cc' is there"
    exit 0
fi
kfs_volume

left_out() { # PROBE/CASE: print why it cannot be the same here
    case $1 in
    p_dirs/glob_calls) echo "musl's glob cannot be told which directory functions to use" ;;
    # Where glibc answers otherwise than musl, KFS answers as glibc: no length for a name that does not exist, EINVAL for an empty buffer or mode, EBADF
    # for O_PATH, a shell for a program without a format.
    p_stat/statvfs_calls | p_names/symlinks | p_open/o_path | p_attr/utimes_calls | p_libc/fopen_modes | p_proc/exec_scripts)
        echo "KFS answers as glibc does" ;;
    p_dirs/nftw_calls) echo "musl walks a directory reached twice only once" ;;
    p_attr/as_another_user | p_attr/owner_of_new_files) echo "a private kfsd serves its own user alone" ;;
    *) return 1 ;;
    esac
}
case_of() { awk -v c="# case $2" '/^# case /{on = $0 == c} on' "$1"; }

for n in p_stat p_open p_data p_dirs p_names p_attr p_libc p_proc; do
    if ! (cd "$KFS_TOP" && "$cc" -std=gnu11 -D_GNU_SOURCE -I. -O1 -o "$T/$n" "tests/preload/probes/$n.c") 2>"$T/cc.err"; then
        t_fail "$n" "cannot be compiled: $(grep -m1 -E 'error|undefined' "$T/cc.err")"
        continue
    fi
    timeout -k 5 120 "$T/$n" "$T/plain/$n" >"$T/$n.plain.raw" 2>&1 </dev/null
    krun "$T/$n" "$P/$n" >"$T/$n.kfs.raw" 2>&1 </dev/null
    rc=$?
    sed "s#$T/plain/$n#DIR#g" "$T/$n.plain.raw" >"$T/$n.plain"
    sed "s#$P/$n#DIR#g" "$T/$n.kfs.raw" >"$T/$n.kfs"
    [ $rc -eq 0 ] || t_fail "$n" "ended with code $rc: $(tail -n 1 "$T/$n.kfs")"
    for c in $(sed -n 's/^# case //p' "$T/$n.plain"); do
        t_wanted "$n/$c" || continue
        if why=$(left_out "$n/$c"); then
            t_skip "$n/$c" "$why"
            continue
        fi
        case_of "$T/$n.plain" "$c" >"$T/a"
        case_of "$T/$n.kfs" "$c" >"$T/b"
        if cmp -s "$T/a" "$T/b"; then
            t_pass "$n/$c"
        else
            t_fail "$n/$c" "$(diff -a "$T/a" "$T/b" | grep -ac '^>') lines differ from a plain directory"
            diff -a -U1 --label plain --label KFS "$T/a" "$T/b" | t_note "${KFS_TEST_LINES:-25}"
        fi
    done
done

# Each program gets the library for its own libc, whoever starts it.
cat >"$T/writer.c" <<'C'
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
int main(int argc, char **argv)
{
    FILE *f = fopen(argv[1], "a");
    if (!f || fprintf(f, "%s\n", argv[2]) < 0 || fclose(f)) {
        perror(argv[1]);
        return 1;
    }
    if (argc < 5)
        return 0;
    if (strcmp(argv[3], "exec") == 0) {
        execvp(argv[4], argv + 4);
        perror("exec");
        return 1;
    }
    pid_t p;
    int st = 1;
    if (posix_spawnp(&p, argv[4], NULL, NULL, argv + 4, environ) || waitpid(p, &st, 0) != p)
        return 1;
    return st != 0;
}
C
"$cc" -o "$T/m" "$T/writer.c" && cc -o "$T/g" "$T/writer.c"
printf '#!%s\n' "$T/m" >"$T/script" && chmod 755 "$T/script"
both_ways() { # NAME CMD…: runs without a word, and both wrote
    local name=$1
    shift
    krun "$@" >"$T/out" 2>&1
    local rc=$?
    krun cat "$P/$name" >"$T/log" 2>&1
    t_check "mixed/$name" "[ $rc = 0 ] && [ ! -s $T/out ] && [ \"\$(tr '\\n' ' ' <$T/log)\" = 'one two ' ]" "code $rc: $(head -3 "$T/out" "$T/log" | tr '\n' ' ')"
    krun rm -f "$P/$name"
}
for how in exec spawn; do
    both_ways musl-$how-glibc "$T/m" "$P/musl-$how-glibc" one $how "$T/g" "$P/musl-$how-glibc" two
    both_ways glibc-$how-musl "$T/g" "$P/glibc-$how-musl" one $how "$T/m" "$P/glibc-$how-musl" two
    krun cp "$T/m" "$T/g" "$P/"
    both_ways musl-$how-glibc-in-the-volume "$T/m" "$P/musl-$how-glibc-in-the-volume" one $how "$P/g" "$P/musl-$how-glibc-in-the-volume" two
    both_ways glibc-$how-musl-in-the-volume "$T/g" "$P/glibc-$how-musl-in-the-volume" one $how "$P/m" "$P/glibc-$how-musl-in-the-volume" two
    both_ways by-shell-$how sh -c '"$0" "$1" one && "$0" "$1" two' "$T/m" "$P/by-shell-$how"
done
krun env -i "$T/m" "$P/cleared" one && krun "$P/m" "$P/cleared" two
t_check mixed/environment-cleared "[ \"\$(krun cat $P/cleared | tr '\\n' ' ')\" = 'one two ' ]"
if [ -z "$KFS_PLAIN" ]; then
    "$KFS_BIN/kfs-run" --check "$T/m" >"$T/check" 2>&1
    t_check check-says-musl "[ $? = 0 ] && grep -q 'dynamic, musl' $T/check" "$(tr '\n' ' ' <"$T/check")"
fi
kfs_done
