#!/usr/bin/env bash
# tests/suites/git.sh — git's own tests t0000 to t3999, each in a working tree there ($SUITES/git)
. "$(dirname "$0")/lib.sh"
TESTS=${KFS_SUITE_GIT:-t[0-3][0-9][0-9][0-9]-*.sh}
SUITE_USERS=$(t_root && echo 1)
AS=()
# What root may do anyway is not tested; as nobody it is.
t_root && AS=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
export GIT_LIMIT=${KFS_SUITE_GIT_LIMIT:-1800} # seconds for one script, for hangs
suite_have() { suite_foreign git/t/test-lib.sh && [ -x "$SUITES/git/git" ]; }
suite_install() { return 1; }
suite_run() { # SIDE DIR LOG
    export GIT_OUT=$3.dir GIT_TREES=$2 TEST_OUTPUT_DIRECTORY=$3.dir
    rm -rf "$GIT_OUT"
    mkdir -p "$GIT_OUT"
    chmod 777 "$GIT_OUT"
    "${ON[@]}" chmod 777 "$2"
    # shellcheck disable=SC2086  # a pattern
    (cd "$SUITES/git/t" && ls $TESTS) >"$3"
    (cd "$SUITES/git/t" && "${AS[@]}" "${ON[@]}" xargs -a "$3" -P 2 -n 1 sh -c '
        n=${1%%-*}
        timeout -k 5 "$GIT_LIMIT" sh "./$1" --root="$GIT_TREES" --no-color >"$GIT_OUT/$n.out" 2>&1 </dev/null
        echo "exit $?" >>"$GIT_OUT/$n.out"' sh)
}
suite_cases() { # SIDE LOG
    $PY - "$2.dir" $(sed 's/-.*//' "$2") <<'EOP'
import os, re, sys
for n in sys.argv[2:]:
    path = os.path.join(sys.argv[1], n + '.out')
    text = open(path, errors='replace').read() if os.path.exists(path) else ''
    ended = re.search(r'^exit (\d+)\n\Z', text, re.M)
    planned = re.search(r'^1\.\.(\d+)( # SKIP (.*))?$', text, re.M)
    failed = False
    for m in re.finditer(r'^(not )?ok (\d+) - (.*)$', text, re.M):
        if '# TODO' in m[3] or m[1] and 'known breakage' in m[3]:
            print('skip', f'{n}.{m[2]}', ' known to fail')
        elif m[1]:
            failed = True
            print('fail', f'{n}.{m[2]}')
        else:
            print('ok', f'{n}.{m[2]}')
    for m in re.finditer(r'^ok (\d+) # skip (.*)$', text, re.M):
        print('skip', f'{n}.{m[1]}', '', m[2])
    if planned and planned[2]:
        print('skip', n, '', planned[3])
    elif not planned or not ended or (ended[1] != '0' and not failed):
        print('fail', n)
    else:
        print('ok', n)
EOP
}
suite_main "$@"
