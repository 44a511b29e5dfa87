#!/usr/bin/env bash
# tests/badinput/fuzz-corpus.sh — what the fuzzers start from, and what they once found: every input once (tests/fuzz)
. "$(dirname "$0")/../lib/lib.sh"
[ -z "$KFS_PLAIN" ] || { t_skip fuzz-corpus "a plain directory has none"; exit 0; }
kfs_volume
mkdir "$T/scratch"
for dir in "$KFS_TOP"/tests/fuzz/corpus/*/; do
    n=$(basename "$dir")
    t_wanted "$n" || continue
    TMPDIR=$T/scratch timeout -k 5 120 "${KFS_FUZZERS:-$KFS_TOP/build/fuzz-once}/$n" "$dir"* >"$T/$n.out" 2>&1
    rc=$?
    t_check "$n" "[ $rc = 0 ] && grep -qx '[1-9][0-9]* inputs' '$T/$n.out'" "ended with code $rc"
    [ $rc = 0 ] || t_note 20 <"$T/$n.out"
done
t_check scratch-is-removed "[ -z \"\$(ls '$T/scratch')\" ]" "$(ls "$T/scratch")"
kfs_done
