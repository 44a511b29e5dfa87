#!/usr/bin/env bash
# tests/suites/sqlite-wal.sh — SQLite in WAL and rollback modes: several processes write and read one database, which is whole at the end
. "$(dirname "$0")/lib.sh"
suite_have() { t_have sqlite3; }
suite_install() { suite_apt sqlite3; }
suite_run() { # SIDE DIR LOG
    : >"$3"
    local mode
    for mode in wal delete truncate persist; do
        timeout -k 5 300 "${ON[@]}" bash -c '
            cd "$1" || exit 1
            db=$2.db
            sqlite3 $db "pragma journal_mode=$2; create table t(writer int, n int, body text);" || exit 1
            for w in 1 2 3 4; do
                (for n in $(seq 40); do
                    sqlite3 -cmd ".timeout 60000" $db "begin immediate; insert into t values($w, $n, hex(randomblob(500))); insert into t values($w, -$n, \"\"); commit;" || exit 1
                done) &
                pids="$pids $!"
            done
            for r in 1 2; do
                (for n in $(seq 40); do
                    odd=$(sqlite3 -cmd ".timeout 60000" $db "select count(*) % 2 from t") && [ "$odd" = 0 ] || exit 1
                done) &
                pids="$pids $!"
            done
            rc=0
            for p in $pids; do wait $p || rc=1; done
            [ $rc = 0 ] && [ "$(sqlite3 $db "pragma integrity_check; select count(*) from t; select count(distinct writer * 1000 + n) from t;" | tr "\n" " ")" = "ok 320 320 " ]' \
            - "$2" $mode >>"$3" 2>&1
        echo "CASE $([ $? -eq 0 ] && echo ok || echo fail) $mode" >>"$3"
    done
}
suite_cases() { sed -n 's/^CASE //p' "$2"; } # SIDE LOG
suite_main "$@"
