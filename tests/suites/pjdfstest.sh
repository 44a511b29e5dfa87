#!/usr/bin/env bash
# tests/suites/pjdfstest.sh — POSIX calls, error by error, as root and as two other users (pjdfstest from crates.io)
. "$(dirname "$0")/lib.sh"
SUITE_USERS=1
suite_have() { t_root && [ -x "$SUITE_TOOLS/bin/pjdfstest" ]; }
suite_install() { t_root && suite_cargo pjdfstest 0.2.2; }
suite_run() { # SIDE DIR LOG
    cat >"$T/pjdfstest.toml" <<EOF
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
rename_ctime = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "$(id -gn nobody)"], ["daemon", "$(id -gn daemon)"]]
EOF
    "${ON[@]}" chmod 755 "$2"
    timeout -k 5 "$SUITE_LIMIT" "${ON[@]}" "$SUITE_TOOLS/bin/pjdfstest" -c "$T/pjdfstest.toml" -p "$2" -s /dev/shm >"$3" 2>&1
}
suite_cases() { # SIDE LOG
    sed -n 's/^\([a-z0-9_:]*\) *ok$/ok \1/p; s/^\([a-z0-9_:]*\) *FAILED$/fail \1/p; s/^\([a-z0-9_:]*\) *skipped$/skip \1/p' "$2"
}
suite_main "$@"
