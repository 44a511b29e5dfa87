# tests/lib/lib.sh — what the test scripts share (bash; source it, call kfs_volume, then cases, then kfs_done)
#
# What     A private volume per script, programs run on it, and the comparison with a plain directory.
# Output   One line a case on stdout: `ok NAME`, `not ok NAME  why` or `skip NAME  why`; details are indented. tests/lib/run-all counts them.
# Settings KFS_BIN (build/bin), KFS_PROBES (build/probes), KFS_TEST_ONLY (only cases whose name matches this pattern),
#          KFS_LIB (build/lib/libkfs.so; used when KFS_BIN, such as a sanitizer's build, has none beside it),
#          KFS_TEST_TRACER (a program put before each program on the volume: TRACER FILE PREFIX CACHE CMD…) and KFS_TEST_TRACE (its FILE),
#          KFS_TEST_PLAIN=1 (a plain directory takes the place of KFS: the tests test themselves), KFS_TEST_KEEP=1 (keep the temporary directory).
# Names    T temporary directory · P prefix of the volume · D the case's directory (on either side) · H a host directory of the case.

set -u
KFS_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
KFS_BIN=${KFS_BIN:-$KFS_TOP/build/bin}
KFS_PROBES=${KFS_PROBES:-$KFS_TOP/build/probes}
KFS_LIB=${KFS_LIB:-$KFS_TOP/build/lib/libkfs.so}
KFS_PLAIN=${KFS_TEST_PLAIN:-}
export LC_ALL=C TZ=UTC
unset KFS_AT KFS_RUN KFS_CONFIG KFS_FAULT
umask 022
t_failed=0
T=${KFS_TEST_T:-} # set for a script that goes on in another one's directory
PY=/usr/bin/python3
[ -x $PY ] || PY=$(command -v python3 || echo python3)

t_pass() { echo "ok $1"; }
t_fail() { t_failed=1; echo "not ok $1  ${*:2}"; }
t_skip() { echo "skip $1  ${*:2}"; }
t_note() { sed 's/^/    /' | head -n "${1:-40}"; }
t_wanted() { [[ -z ${KFS_TEST_ONLY:-} || $1 =~ ${KFS_TEST_ONLY:-} ]]; }
t_have() { command -v "$1" >/dev/null 2>&1; }
t_root() { [ "$(id -u)" = 0 ]; }
# t_check NAME 'shell condition' [why]: pass or fail on a condition
t_check() { if eval "$2"; then t_pass "$1"; else t_fail "$1" "${3:-not true: $2}"; fi; }

# kfs_volume: T, P, URL; a configuration of its own, so that nothing of the user's is touched
kfs_volume() {
    T=$(mktemp -d "${TMPDIR:-/var/tmp}/kfs-t.XXXXXX") || exit 1
    chmod 711 "$T"
    trap kfs_cleanup EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    URL=sqlite:$T/vol.db
    # A prefix that the host does not have, as long as the plain directory's name, so that lengths of absolute paths do not differ.
    if [ -n "$KFS_PLAIN" ]; then
        P=$T/other
        mkdir -p "$P"
    else
        P=/kfs-${T##*.}$(printf "%0$((${#T} + 6 - 11))d" 0 | tr 0 v)
    fi
    printf '%s\n' "cache_dir = $T/cache" "run_dir = $T/run" "linger_s = ${KFS_TEST_LINGER:-10}" >"$T/kfs.conf"
    mkdir -p "$T/run" "$T/plain"
    export KFS_CONFIG=$T/kfs.conf
    export T P URL KFS_BIN KFS_PROBES PY PROG=
    if [ -z "$KFS_PLAIN" ] && [ ! -x "$KFS_BIN/kfs-run" ]; then
        t_fail "${0##*/}" "'$KFS_BIN/kfs-run' is not built; run 'make'"
        exit 1
    fi
    [ -n "$KFS_PLAIN" ] || kfs_lend_shim "$KFS_BIN"
}

# Programs of another build variant find the shim beside them.
kfs_lend_shim() { # BIN_DIR
    local lib=${1%/bin}/lib
    [ -e "$lib/libkfs.so" ] && return 0
    mkdir -p "$lib" && ln -sfn "$(realpath "$KFS_LIB")" "$lib/libkfs.so"
}

# krun CMD…: CMD on the volume at $P. The safety net of 120 s is for hangs, not for slowness.
krun() {
    if [ -n "$KFS_PLAIN" ]; then
        timeout -k 5 "${KRUN_LIMIT:-120}" "$@"
    else
        timeout -k 5 "${KRUN_LIMIT:-120}" "$KFS_BIN/kfs-run" --create --at "$P=$URL" ${KRUN_OPTS:-} -- \
            ${KFS_TEST_TRACER:+"$KFS_TEST_TRACER" "$KFS_TEST_TRACE" "$P" "$T/cache"} "$@"
    fi
}

# Pid of the kfsd that has database $1 (default: the volume's) open; empty if none.
kfsd_pid() {
    local lock=${1:-$T/vol.db}.lock pid
    pid=$(sed -n 's/^pid \([0-9][0-9]*\)$/\1/p' "$lock" 2>/dev/null) || return 0
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = kfsd ] && kfsd_alive "$pid" && echo "$pid"
    return 0
}
kfsd_alive() { local s; s=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) && [ -n "$s" ] && [ "${s%% *}" != Z ]; }
kfsd_wait_gone() { while kfsd_alive "$1"; do sleep 0.02; done; }
# kfsd_stop SIGNAL [DB]: end the volume's kfsd and wait for its end; a TERM that takes longer than 10 s becomes a KILL
kfsd_stop() {
    local pid i
    pid=$(kfsd_pid "${2:-$T/vol.db}")
    [ -n "$pid" ] || return 0
    kill "-$1" "$pid" 2>/dev/null || return 0
    for ((i = 0; i < 500; i++)); do kfsd_alive "$pid" || return 0; sleep 0.02; done
    echo "    kfsd $pid did not end after SIG$1"
    kill -KILL "$pid" 2>/dev/null
    kfsd_wait_gone "$pid"
}
kfs_logs() { find "$T" -maxdepth 3 -name '*.log' -size +0 -exec tail -n "${1:-15}" {} + 2>/dev/null; }

kfs_cleanup() {
    local rc=$? db
    trap - EXIT
    for db in "$T"/*.db.lock "$T"/*/*.db.lock; do
        [ -e "$db" ] && kfsd_stop TERM "${db%.lock}"
    done
    # Under a sanitizer: what it said about a private kfsd stands in kfsd's log.
    [ -z "${KFS_SAN:-}" ] || find "$T" -name '*.log' -size +0 -exec grep -hE -A20 'Sanitizer: |runtime error: ' {} + >"$T/sanitizer"
    if [ -s "$T/sanitizer" ]; then
        t_fail sanitizer "a kfsd had a report"
        t_note <"$T/sanitizer"
        rc=1
    fi
    if [ -n "${KFS_TEST_KEEP:-}" ]; then echo "    kept: $T"; else rm -rf --one-file-system "$T"; fi
    exit "$rc"
}

# both [-m] [-n] [-x NAME] [-s SHELL] NAME SCRIPT
# The same script in a plain directory and in KFS: stdout, stderr, exit code and the final trees of $D and $H must be equal.
# -m: times of files too; -n: no link counts; -x NAME: leave names NAME out of the trees; -s: shell (bash).
both() {
    local opts=() sh=bash OPTIND=1 o name script side
    while getopts mnx:s: o; do
        case $o in
        m) opts+=(-m) ;;
        n) opts+=(-n) ;;
        x) opts+=(-x "$OPTARG") ;;
        s) sh=$OPTARG ;;
        *) return 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    name=$1 script=$2
    t_wanted "$name" || return 0
    local base=$T/out/$name
    mkdir -p "$base"
    for side in plain kfs; do
        local d h run=()
        if [ $side = plain ]; then d=$T/plain/$name; else d=$P/$name; run=(krun); fi
        h=$T/host.${side:0:1}/$name
        mkdir -p "$h"
        if [ $side = plain ]; then run=(timeout -k 5 "${KRUN_LIMIT:-120}"); fi
        D=$d H=$h SIDE=$side "${run[@]}" "$sh" -c 'mkdir -p "$D" && cd "$D" || exit 99
'"$script" </dev/null >"$base/$side.out.raw" 2>"$base/$side.err.raw"
        echo "exit $?" >"$base/$side.rc"
        "${run[@]}" "$KFS_PROBES/tree" ${opts[@]+"${opts[@]}"} "$d" "$h" >"$base/$side.tree.raw" 2>&1
        local f
        for f in out err tree; do
            sed -e "s#$d#DIR#g" -e "s#$h#HOST#g" "$base/$side.$f.raw" >"$base/$side.$f"
        done
    done
    local bad=
    for f in rc out err tree; do
        if ! cmp -s "$base/plain.$f" "$base/kfs.$f"; then
            bad="$bad $f"
            diff -a -U2 --label "plain $f" --label "KFS $f" "$base/plain.$f" "$base/kfs.$f" >"$base/diff.$f"
        fi
    done
    if [ -z "$bad" ]; then
        t_pass "$name"
    else
        t_fail "$name" "differs from a plain directory in:$bad"
        for f in $bad; do t_note 30 <"$base/diff.$f"; done
    fi
}

# both_py [options of both] NAME: likewise a Python program, read from stdin (cwd: the case's directory; D and H in the environment).
both_py() {
    local name=${*: -1}
    t_wanted "$name" || return 0
    cat >"$T/$name.py"
    PROG=$T/$name.py both "${@:1:$#-1}" -x __pycache__ "$name" 'exec "$PY" "$PROG"'
}

# The whole volume again from a new kfsd after a SIGKILL, and once more with an empty cache: every byte and attribute as before.
kfs_recheck() {
    t_wanted reopen || return 0
    [ -z "$KFS_PLAIN" ] || return 0
    krun "$KFS_PROBES/tree" -m "$P" >"$T/tree.before" 2>&1
    kfsd_stop KILL
    krun "$KFS_PROBES/tree" -m "$P" >"$T/tree.killed" 2>&1
    kfsd_stop TERM
    rm -rf "$T/cache"
    krun "$KFS_PROBES/tree" -m "$P" >"$T/tree.cold" 2>&1
    if cmp -s "$T/tree.before" "$T/tree.killed" && cmp -s "$T/tree.before" "$T/tree.cold"; then
        t_pass reopen
    else
        t_fail reopen "the tree changed over SIGKILL of kfsd or the loss of the cache"
        diff -a -U1 "$T/tree.before" "$T/tree.killed" | t_note 20
        diff -a -U1 "$T/tree.before" "$T/tree.cold" | t_note 20
    fi
}
# The end of a script. However the cases went: no kfsd crashed, and no sanitizer had something to say.
kfs_done() {
    local db bad
    for db in "$T"/*.db.lock; do [ -e "$db" ] && kfsd_stop TERM "${db%.lock}"; done
    bad=$(grep -rhaE -A12 'Sanitizer|runtime error|kfsd: crash' "$T/run" "$T"/*.log 2>/dev/null | head -n 40)
    if [ -n "$bad" ]; then
        t_fail kfsd-sound "kfsd's log has:"
        t_note 40 <<<"$bad"
    fi
    [ "$t_failed" = 0 ] || kfs_logs | t_note 40
    exit "$t_failed"
}
