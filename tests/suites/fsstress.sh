#!/usr/bin/env bash
# tests/suites/fsstress.sh — fsstress: random calls from a seed; the tree it leaves is the same on both sides ($SUITES/ltp)
. "$(dirname "$0")/lib.sh"
OPS=${KFS_SUITE_FSSTRESS_OPS:-4000}
FSSTRESS=${SUITES:-}/ltp/testcases/bin/fsstress
suite_have() { suite_foreign ltp/testcases/bin/fsstress; }
suite_install() { return 1; }
suite_run() { # SIDE DIR LOG
    : >"$3"
    local seed
    for seed in 1 2 3 4 5 6; do
        "${ON[@]}" mkdir -p "$2/$seed"
        # One process, so that the seed alone decides what is done.
        (cd "$T" && timeout -k 5 "$SUITE_LIMIT" "${ON[@]}" "$FSSTRESS" -c -d "$2/$seed" -s $seed -n "$OPS" -p 1 -v) >"$3.$seed" 2>&1
        echo "CASE $([ $? -eq 0 ] && echo ok || echo fail) seed-$seed" >>"$3"
        "${ON[@]}" sh -c 'cd "$1" && "$2" .' sh "$2/$seed" "$KFS_PROBES/tree" >"$3.tree.$seed" 2>&1
    done
    for seed in 1 2; do
        "${ON[@]}" mkdir -p "$2/many-$seed"
        (cd "$T" && timeout -k 5 "$SUITE_LIMIT" "${ON[@]}" "$FSSTRESS" -d "$2/many-$seed" -s $seed -n "$OPS" -p 4) >"$3.many-$seed" 2>&1
        echo "CASE $([ $? -eq 0 ] && echo ok || echo fail) four-processes-$seed" >>"$3"
    done
}
suite_cases() { # SIDE LOG
    sed -n 's/^CASE //p' "$2"
    local seed
    for seed in 1 2 3 4 5 6; do
        cmp -s "$SUITES_OUT/fsstress.plain.log.tree.$seed" "$2.tree.$seed" && echo "ok tree-$seed" || echo "fail tree-$seed"
    done
}
suite_main "$@"
