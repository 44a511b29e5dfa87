#!/usr/bin/env bash
# tests/suites/dbench.sh — a file server's load: two clients of dbench for a few seconds, with its own checks
. "$(dirname "$0")/lib.sh"
suite_have() { t_have dbench; }
suite_install() { suite_apt dbench; }
suite_run() { # SIDE DIR LOG
    : >"$3"
    local mode opts
    for mode in plain xattr sync; do
        case $mode in plain) opts= ;; xattr) opts=-x ;; sync) opts=-s ;; esac
        mkdir -p "$T/dbench"
        timeout -k 5 120 "${ON[@]}" dbench $opts -t 4 -c "$(dpkg -L dbench | grep client.txt)" -D "$2" 2 >>"$3" 2>&1
        echo "CASE $([ $? -eq 0 ] && echo ok || echo fail) $mode" >>"$3"
    done
    ! grep -q 'failed\|ERROR' "$3" && echo "CASE ok no-errors" >>"$3" || echo "CASE fail no-errors" >>"$3"
}
suite_cases() { sed -n 's/^CASE //p' "$2"; } # SIDE LOG
suite_main "$@"
