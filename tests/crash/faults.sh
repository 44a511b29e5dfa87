#!/usr/bin/env bash
# tests/crash/faults.sh — kfsd (built with fault points) dies at each of its named places; the program that works on it sees no error
. "$(dirname "$0")/../lib/lib.sh"
FAULT_BIN=${KFS_FAULT_BIN:-$KFS_TOP/build/fault/bin}
kfs_volume
if [ -n "$KFS_PLAIN" ]; then t_skip faults "a plain directory has no kfsd"; kfs_done; fi
if [ ! -x "$FAULT_BIN/kfsd" ]; then t_skip faults "'$FAULT_BIN/kfsd' is not built; 'make V=fault bins' makes it"; kfs_done; fi

# start_with FAULT: a kfsd for the volume that obeys FAULT. Programs start their later ones without it.
start_with() {
    kfsd_stop TERM
    mkfifo "$T/ready"
    KFS_FAULT=$1 "$FAULT_BIN/kfsd" --create --private --run-dir "$T/run" --cache-dir "$T/cache" --log "$T/fault.log" --ready-fd 7 "$URL" 7>"$T/ready" &
    disown
    read -r line <"$T/ready"
    rm "$T/ready"
    case $line in ok*) ;; *) echo "    kfsd with KFS_FAULT=$1: $line" ;; esac
    fault_pid=$(kfsd_pid)
}
names=$(grep -rhoE 'KFS_FAULT(_ERR)?\("[^"]+"' "$KFS_TOP"/{base,meta,blockstore,tools} --include='*.c' | sed 's/.*"\(.*\)"/\1/' | sort -u)
i=0 unreached=
for name in $names; do
    t_wanted "$name" || continue
    i=$((i + 1))
    start_with "$name:$((1 + i % 3))"
    case $name in *fill*) # reading what is not in the cache any more
        krun "$KFS_PROBES/crashapp" run "$P/f$i" "$T/none" 5 >"$T/app" 2>&1
        kfsd_stop TERM
        rm -rf "$T/cache"
        start_with "$name:$((1 + i % 3))"
        krun "$KFS_PROBES/crashapp" check "$P/f$i" 5 >"$T/app" 2>&1
        rc=$?
        if [ $rc != 0 ]; then t_fail "dies-at-$name" "the program saw: $(tail -n 1 "$T/app")"
        elif [ -n "$fault_pid" ] && kfsd_alive "$fault_pid"; then unreached="$unreached $name"
        else t_pass "dies-at-$name"; fi
        continue
        ;;
    esac
    KRUN_LIMIT=100 krun "$KFS_PROBES/crashapp" run "$P/f$i" "$T/none" 5 >"$T/app" 2>&1
    rc=$?
    reached=1
    [ -n "$fault_pid" ] && kfsd_alive "$fault_pid" && reached=
    krun "$KFS_PROBES/crashapp" check "$P/f$i" 5 >"$T/check" 2>&1
    crc=$?
    if [ $rc != 0 ]; then t_fail "dies-at-$name" "the program saw: $(tail -n 1 "$T/app")"
    elif [ $crc != 0 ]; then t_fail "dies-at-$name" "afterwards: $(tail -n 1 "$T/check")"
    elif [ -z "$reached" ]; then unreached="$unreached $name"
    else t_pass "dies-at-$name"; fi
done
[ -z "$unreached" ] || t_skip dies-at-others "not passed by this program:$unreached"

# Errors instead of deaths: the call that loses reports it, and the next try works.
error_case() { # NAME FAULT
    t_wanted "$1" || return 0
    start_with "$2"
    krun dd if=/dev/urandom of="$P/$1" bs=100k count=2 conv=fsync status=none 2>"$T/err"
    local rc=$?
    t_check "$1-is-reported" "[ $rc != 0 ] && grep -qiE 'input/output|no space' $T/err" "dd ended with $rc: $(cat "$T/err")"
    krun bash -c 'seq 50000 >"$1" && seq 50000 | cmp - "$1"' - "$P/$1" 2>"$T/err"
    rc=$?
    t_check "$1-then-works" "[ $rc = 0 ]" "$(cat "$T/err")"
}
error_case store-write-error store.object.write:1:errno=EIO
error_case store-full store.object.write:1:errno=ENOSPC
error_case store-rename-error store.object.rename:1:errno=EIO
kfsd_stop TERM
kfs_recheck
kfs_done
