# tests/suites/lib.sh — what the runners of foreign test suites share (bash; source it, define suite_*, end with suite_main "$@")
#
# What     A runner runs one suite, unmodified, in a plain directory and on a volume, and turns what it prints into one line a case:
#          `ok CASE`, `fail CASE` or `skip CASE  why`, in build/suites/NAME.plain and NAME.kfs; the suite's own output is beside them (.log).
# Runner   suite_have: is the suite here? suite_install: get it (root). suite_run SIDE DIR LOG: run it in DIR; programs start with "${ON[@]}", which is
#          empty for the plain directory. suite_cases SIDE LOG: print the lines.
# Users    Suites that change their user set SUITE_USERS=1: then a kfsd for several users serves the volume.
# Own      What no registry has lies under $SUITES (see README.md): suite_foreign PATH says whether it does; without it the suite is skipped.
# Proof    While a suite runs on the volume, kfsd's counters must rise (opens, commits, stored bytes, calls), one and the same kfsd must serve from the
#          first to the last moment, no commit may fail, and the prefix must not exist on the host. Else the row is void, whatever its cases say.
#          build/suites/NAME.proof has the figures.
# Failures What fails on the volume and not in the plain directory is a failure, unless exceptions.list names it with a reason.
. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
SUITE=$(basename "$0" .sh)
SUITES_HERE=$KFS_TOP/tests/suites
SUITES_OUT=${KFS_SUITES_OUT:-$KFS_TOP/build/suites}
SUITE_TOOLS=$SUITES_OUT/tools # what a registry's client installs here
SUITE_LIMIT=${SUITE_LIMIT:-1200}
SUITE_USERS=

suite_apt() { # PACKAGE…
    t_root && t_have apt-get || return 1
    local run="env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300"
    $run install --no-install-recommends "$@" >"$SUITES_OUT/$SUITE.install" 2>&1 ||
        { $run update && $run install --no-install-recommends "$@"; } >>"$SUITES_OUT/$SUITE.install" 2>&1
}
suite_cargo() { # CRATE VERSION
    t_have cargo || return 1
    CARGO_TARGET_DIR=$SUITE_TOOLS/target cargo install --quiet --root "$SUITE_TOOLS" "$1" --version "$2" >"$SUITES_OUT/$SUITE.install" 2>&1
}

suite_foreign() { # PATH under $SUITES
    [ -n "${SUITES:-}" ] && [ -e "$SUITES/$1" ] && return 0
    echo "'$1' is looked for in the directory that SUITES names (now: '${SUITES:-}'); tests/suites/README.md says what belongs there" >"$SUITES_OUT/$SUITE.install"
    return 1
}

# What kfsd counted so far: `epoch NAME`, `opens N`, `commits N`, `stored_bytes N`, `calls N`, `failed_commits N`.
suite_counters() {
    "$KFS_BIN/kfs" status --json --volume "$URL" | "$PY" -c '
import json, sys
s = json.load(sys.stdin)
t, o = s["tiers"], s["ops"]
for k, v in (("epoch", s["kfsd"]["epoch"]), ("opens", o.get("OPEN", 0)), ("commits", s["commits"]), ("stored_bytes", s["stored_bytes"]),
             ("calls", t["shm"] + t["kernel"] + t["kfsd"]), ("failed_commits", s["failed_commits"])):
    print(k, v)'
}
suite_prove() { # BEFORE AFTER: why the run on the volume proves nothing; empty when it does. Writes NAME.proof.
    local key before after
    while read -r key before && read -r key after <&3; do
        case $key in
        epoch) [ "$before" = "$after" ] || echo "another kfsd served the end of it" ;;
        failed_commits) [ "$after" = 0 ] || echo "$after commits failed" ;;
        *)
            echo "$key $((after - before))" >>"$SUITES_OUT/$SUITE.proof"
            [ "$after" -gt "$before" ] || echo "$key did not rise ($before, then $after)"
            ;;
        esac
    done <"$1" 3<"$2"
    [ -s "$2" ] || echo "kfsd did not answer"
    [ ! -e "$P" ] || echo "'$P' exists on the host"
}

suite_kfsd_for_users() {
    mkdir -p "$T/shared"
    chmod 755 "$T" "$T/shared"
    mkfifo "$T/ready"
    "$KFS_BIN/kfsd" --foreground --create --run-dir "$T/shared" --cache-dir "$T/cache2" --ready-fd 7 "$URL" 7>"$T/ready" 2>"$T/users.log" &
    local line
    read -r line <"$T/ready"
    case $line in ok*) ;; *) echo "kfsd: $line"; return 1 ;; esac
}

# Is this failure an exception? Prints the reason.
suite_exception() { # CASE
    local suite pattern reason
    while IFS=$'\t' read -r suite pattern reason; do
        [ "$suite" = "$SUITE" ] || continue
        # shellcheck disable=SC2053  # a pattern
        [[ $1 == $pattern ]] && { echo "$reason"; return 0; }
    done < <(grep -v '^#' "$SUITES_HERE/exceptions.list")
    return 1
}

suite_main() {
    mkdir -p "$SUITES_OUT"
    if ! suite_have && ! { suite_install && suite_have; }; then
        t_skip "$SUITE" "is not here and could not be installed, see $SUITES_OUT/$SUITE.install"
        rm -f "$SUITES_OUT/$SUITE".{plain,kfs}
        exit 0
    fi
    kfs_volume
    local side start holder
    rm -f "$SUITES_OUT/$SUITE.proof"
    for side in plain kfs; do
        ON=()
        local dir=$T/plain/$SUITE
        if [ $side = kfs ]; then
            dir=$P/$SUITE
            [ -z "$SUITE_USERS" ] || suite_kfsd_for_users || exit 1
            ON=("$KFS_BIN/kfs-run" --create --at "$P=$URL" --)
        fi
        "${ON[@]}" mkdir -p "$dir"
        if [ $side = kfs ]; then
            # A program that only waits keeps a private kfsd, and with it its counters, from the first moment to the last.
            mkfifo "$T/hold"
            "${ON[@]}" cat "$T/hold" &
            holder=$!
            exec 8>"$T/hold"
            suite_counters >"$T/before"
        fi
        start=$SECONDS
        suite_run $side "$dir" "$SUITES_OUT/$SUITE.$side.log" </dev/null 8>&-
        echo $((SECONDS - start)) >"$SUITES_OUT/$SUITE.$side.seconds"
        if [ $side = kfs ]; then
            "$KFS_BIN/kfs" flush --volume "$URL" >/dev/null
            suite_counters >"$T/after"
            exec 8>&-
            wait "$holder"
            suite_prove "$T/before" "$T/after" >"$T/void"
        fi
        suite_cases $side "$SUITES_OUT/$SUITE.$side.log" | LC_ALL=C sort -u >"$SUITES_OUT/$SUITE.$side"
    done
    if [ -s "$T/void" ]; then
        echo "void $(paste -sd';' "$T/void")" >>"$SUITES_OUT/$SUITE.proof"
        t_fail "$SUITE/through-the-volume" "$(paste -sd';' "$T/void")"
    else
        t_pass "$SUITE/through-the-volume"
    fi
    local word name why
    while read -r word name why; do
        case $word in
        ok) t_pass "$SUITE/$name" ;;
        skip) t_skip "$SUITE/$name" "$why" ;;
        fail)
            if grep -qxF "ok $name" "$SUITES_OUT/$SUITE.plain"; then
                if why=$(suite_exception "$name"); then t_skip "$SUITE/$name" "exception: $why"; else t_fail "$SUITE/$name" "passes in a plain directory"; fi
            else
                t_skip "$SUITE/$name" "fails in a plain directory too"
            fi
            ;;
        esac
    done <"$SUITES_OUT/$SUITE.kfs"
    # A case that was not reached on the volume is not a pass.
    comm -23 <(sed -n 's/^ok \([^ ]*\).*/\1/p' "$SUITES_OUT/$SUITE.plain" | LC_ALL=C sort) \
        <(awk '{print $2}' "$SUITES_OUT/$SUITE.kfs" | LC_ALL=C sort) | while read -r name; do t_fail "$SUITE/$name" "did not run on the volume"; echo "fail $name" >>"$SUITES_OUT/$SUITE.kfs"; done | tee "$T/missing"
    [ ! -s "$T/missing" ] || t_failed=1
    [ -s "$SUITES_OUT/$SUITE.plain" ] || t_fail "$SUITE" "ran no case in the plain directory, see $SUITES_OUT/$SUITE.plain.log"
    kfs_done
}
