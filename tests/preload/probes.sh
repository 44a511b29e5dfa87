#!/usr/bin/env bash
# tests/preload/probes.sh — every probe (probes/p_*.c) in a plain directory and in KFS; each of its cases must print the same
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Lines of one case of a probe's output.
case_of() { awk -v c="# case $2" '/^# case /{on = $0 == c} on' "$1"; }

for probe in "$KFS_PROBES"/p_*; do
    [ -x "$probe" ] && [ -f "$probe" ] || continue
    case $probe in *.d) continue ;; esac
    n=${probe##*/}
    if [ -n "${KFS_TEST_PROBE:-}" ] && [ "$n" != "p_$KFS_TEST_PROBE" ]; then continue; fi
    timeout -k 5 120 "$probe" "$T/plain/$n" >"$T/$n.plain.raw" 2>&1 </dev/null
    KRUN_LIMIT=180 krun "$probe" "$P/$n" >"$T/$n.kfs.raw" 2>&1 </dev/null
    rc=$?
    sed "s#$T/plain/$n#DIR#g" "$T/$n.plain.raw" >"$T/$n.plain"
    sed "s#$P/$n#DIR#g" "$T/$n.kfs.raw" >"$T/$n.kfs"
    # A private kfsd serves its own user alone; programs that change theirs need one for several users.
    case $n in
    p_attr) several="as_another_user owner_of_new_files" ;;
    p_life) several=identities ;;
    *) several= ;;
    esac
    if [ -n "$several" ] && t_root && [ -z "$KFS_PLAIN" ]; then
        kfsd_stop TERM
        chmod 755 "$T"
        [ -p "$T/ready" ] || mkfifo "$T/ready"
        "$KFS_BIN/kfsd" --foreground --create --run-dir "$T/shared" --cache-dir "$T/cache2" --ready-fd 7 "sqlite:$T/users.db" 7>"$T/ready" 2>"$T/users.log" &
        read -r line <"$T/ready"
        case $line in ok*) ;; *) t_fail "$n/several-users" "kfsd: $line" ;; esac
        for c in $several; do
            KRUN_LIMIT=100 URL=sqlite:$T/users.db krun "$probe" "$P/$n" $c >"$T/users.out" 2>&1 </dev/null
            { case_of "$T/$n.kfs.raw" "" ; awk -v c="# case $c" '/^# case /{on = $0 != c} on' "$T/$n.kfs.raw"; cat "$T/users.out"; } >"$T/merged"
            mv "$T/merged" "$T/$n.kfs.raw"
        done
        kfsd_stop TERM "$T/users.db"
        sed "s#$P/$n#DIR#g" "$T/$n.kfs.raw" >"$T/$n.kfs"
    fi
    [ $rc -eq 0 ] || t_fail "$n" "ended with code $rc: $(tail -n 1 "$T/$n.kfs")"
    for c in $(sed -n 's/^# case //p' "$T/$n.plain"); do
        t_wanted "$n/$c" || continue
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
kfs_done
