#!/usr/bin/env bash
# tests/cross/aarch64.sh — the shim for aarch64 under qemu-user: every probe in a plain directory and in KFS, whose kfsd is this machine's
#
# The emulator cannot start programs of its own architecture by execve (that needs binfmt_misc). Children of the probes are programs of this
# machine, which say that they cannot load the shim for aarch64, and see nothing of the volume but the descriptors that they inherit.
. "$(dirname "$0")/../lib/lib.sh"
lib=$KFS_TOP/build/aarch64/lib/libkfs.so probes=$KFS_TOP/build/aarch64/probes
root=${KFS_AARCH64_ROOT:-/usr/aarch64-linux-gnu}
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
if [ -n "$KFS_PLAIN" ] || [ -z "$qemu" ] || [ ! -e "$lib" ] || [ ! -d "$root/lib" ]; then
    t_skip aarch64 "needs qemu-user, a libc for aarch64 in $root, and 'make cross'"
    exit 0
fi
kfs_volume
plain() { timeout -k 5 "${KRUN_LIMIT:-120}" "$qemu" -L "$root" "$@"; }
emulated() { krun env -u LD_PRELOAD "$qemu" -L "$root" -E LD_PRELOAD="$lib" "$@"; }
case_of() { awk -v c="# case $2" '/^# case /{on = $0 == c} on' "$1"; }

left_out() { # PROBE/CASE: print why it cannot be the same here
    case $1 in
    p_hostile/unwritable_results) echo "the emulator asks for the whole buffer, a kernel for what it writes" ;;
    p_stat/old_symbols) echo "aarch64 never had these versions" ;;
    p_attr/as_another_user | p_attr/owner_of_new_files) echo "a private kfsd serves its own user alone" ;;
    p_names/symlinks_across | p_libc/freopen_calls | p_libc/working_directory | p_proc/exec_* | p_proc/descriptors_over_exec | p_proc/vfork_and_spawn | p_proc/shared_objects)
        echo "its children use the volume by name" ;;
    p_hostile/negative_sizes) echo "the emulator itself looks at sizes" ;;
    *) return 1 ;;
    esac
}

for n in p_stat p_open p_data p_dirs p_names p_attr p_libc p_proc p_hostile; do
    plain "$probes/$n" "$T/plain/$n" >"$T/$n.plain.raw" 2>&1 </dev/null
    KRUN_LIMIT=240 emulated "$probes/$n" "$P/$n" >"$T/$n.kfs.raw" 2>&1 </dev/null
    rc=$?
    sed "s#$T/plain/$n#DIR#g" "$T/$n.plain.raw" >"$T/$n.plain"
    sed -e "s#$P/$n#DIR#g" -e '/^ERROR: ld.so: object .* cannot be preloaded/d' "$T/$n.kfs.raw" >"$T/$n.kfs"
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
for s in plain kfs; do grep -a -e '^vfork' -e 'by-vfork' "$T/p_proc.$s" >"$T/vfork.$s"; done
t_check p_proc/vfork "[ -s $T/vfork.plain ] && cmp -s $T/vfork.plain $T/vfork.kfs" "$(diff "$T/vfork.plain" "$T/vfork.kfs" | head -5 | tr '\n' ' ')"
kfs_done
