#!/usr/bin/env bash
# tests/crash/gc.sh — kfsd dies in the middle of collecting garbage, or of removing what a crash left: no file misses a byte, no object stays behind
. "$(dirname "$0")/../lib/lib.sh"
FAULT_BIN=${KFS_FAULT_BIN:-$KFS_TOP/build/fault/bin}
kfs_volume
if [ -n "$KFS_PLAIN" ]; then t_skip gc "a plain directory has no kfsd"; kfs_done; fi
if [ ! -x "$FAULT_BIN/kfsd" ]; then t_skip gc "'$FAULT_BIN/kfsd' is not built; 'make V=fault bins' makes it"; kfs_done; fi
echo "gc_grace_s = 0" >>"$T/kfs.conf"

start_with() { # FAULT
    kfsd_stop TERM
    mkfifo "$T/ready"
    KFS_FAULT=$1 "$FAULT_BIN/kfsd" --create --private --run-dir "$T/run" --log "$T/fault.log" --ready-fd 7 "$URL" 7>"$T/ready" &
    disown
    read -r line <"$T/ready"
    rm "$T/ready"
    case $line in ok*) ;; *) echo "    kfsd with KFS_FAULT=$1: $line" ;; esac
    fault_pid=$(kfsd_pid)
}
# Files that share packs and files of their own, written over and removed, so that there is garbage of all kinds.
work='cd "$1" && for i in 1 2 3 4 5 6; do
    head -c $((i * 9000)) /dev/urandom >keep$i && head -c 50000 /dev/urandom >over$i && head -c 3000000 /dev/urandom >gone$i
done && sync -f . && for i in 1 2 3 4 5 6; do head -c 60000 /dev/urandom >over$i; rm gone$i; done && sha256sum keep* over* >"$2"'
gc_full() { "$KFS_BIN/kfs" gc --delete --full --grace 0 --json "$URL"; }
objects() { find "$T/vol.db.objects/o" -type f | wc -l; }

for fault in gc.doomed gc.deleted sweep.deleted commit.objects; do
    t_wanted "gc-dies-at-$fault" || continue
    # What is left by a death between objects and transaction is what the sweep finds.
    [ $fault = sweep.deleted ] && start_with commit.objects:3 || start_with "$fault:1"
    krun bash -c 'mkdir -p "$1" && '"$work" - "$P/$fault" "$T/sums" 2>"$T/err" || t_fail "gc-dies-at-$fault" "the program saw: $(tail -n 1 "$T/err")"
    [ $fault = sweep.deleted ] && start_with sweep.deleted:1
    "$KFS_BIN/kfs" gc --delete --grace 0 "$URL" >"$T/gc" 2>&1 # may lose its kfsd
    for ((i = 0; i < 100; i++)); do kfsd_alive "$fault_pid" || break; sleep 0.1; done
    died=yes
    if [ -z "$fault_pid" ] || kfsd_alive "$fault_pid"; then died=; fi
    kfsd_stop TERM
    rm -rf "$T/cache" # every byte comes from the store
    krun bash -c 'cd "$1" && sha256sum --quiet -c "$2"' - "$P/$fault" "$T/sums" >"$T/out" 2>&1
    rc=$?
    gc_full >"$T/gc" 2>&1 || rc=9
    gc_full >"$T/gc2" 2>&1 || rc=9
    kfsd_stop TERM
    rm -rf "$T/cache"
    krun bash -c 'cd "$1" && sha256sum --quiet -c "$2"' - "$P/$fault" "$T/sums" >>"$T/out" 2>&1 || rc=8
    n=$(objects)
    listed=$(sed -n 's/.*"listed":\([0-9]*\).*/\1/p' "$T/gc2")
    if [ -z "$died" ]; then t_fail "gc-dies-at-$fault" "kfsd did not get there"
    elif [ $rc != 0 ]; then t_fail "gc-dies-at-$fault" "$(tail -n 1 "$T/out") $(tail -n 1 "$T/gc")"
    elif ! grep -q '"objects":0,.*"waiting":0,.*"unknown":0,' "$T/gc2" || [ "$listed" != "$n" ]; then t_fail "gc-dies-at-$fault" "left: $(cat "$T/gc2"), $n in the store"
    else t_pass "gc-dies-at-$fault"; fi
done

# Garbage goes by itself, beside programs that write.
if t_wanted gc-beside-writers; then
    kfsd_stop TERM
    krun bash -c 'mkdir -p "$1" && cd "$1" && for r in 1 2 3 4 5 6 7 8; do for i in 1 2 3 4 5 6 7 8; do head -c $((20000 + i)) /dev/urandom >f$i || exit 1; done
        "$2" gc --delete --grace 0 "$3" >/dev/null || exit 2; done; sha256sum f* >"$4"' - "$P/beside" "$KFS_BIN/kfs" "$URL" "$T/sums" 2>"$T/err"
    rc=$?
    kfsd_stop TERM
    rm -rf "$T/cache"
    krun bash -c 'cd "$1" && sha256sum --quiet -c "$2"' - "$P/beside" "$T/sums" >"$T/out" 2>&1
    t_check gc-beside-writers "[ $rc = 0 ] && [ ! -s $T/out ]" "$rc: $(tail -n 1 "$T/err") $(tail -n 1 "$T/out")"
fi
if t_wanted gc-arguments; then
    "$KFS_BIN/kfs" gc --grace 5x "$URL" >"$T/out" 2>&1
    t_check gc-bad-grace "[ $? = 2 ] && grep -q 'not a number of seconds' $T/out" "$(cat "$T/out")"
    "$KFS_BIN/kfs" status --full "$URL" >"$T/out" 2>&1
    t_check gc-option-elsewhere "[ $? = 2 ] && grep -q \"is for 'kfs gc'\" $T/out" "$(cat "$T/out")"
    "$KFS_BIN/kfs" gc "$URL" >"$T/out" 2>&1
    t_check gc-without-delete-changes-nothing "[ $? = 0 ] && grep -q 'nothing was deleted' $T/out" "$(cat "$T/out")"
fi
kfs_done
