#!/usr/bin/env bash
# tests/suites/ltp-fs.sh — the Linux Test Project's list of file system tests, the long ones made short ($SUITES/ltp)
. "$(dirname "$0")/lib.sh"
. "$SUITES_HERE/ltp.inc"
SECONDS_EACH=${KFS_SUITE_SECONDS:-5}
suite_have() { suite_foreign ltp/runtest/fs && suite_foreign ltp/testcases/bin/growfiles; }
suite_run() { # SIDE DIR LOG
    # Without those of /proc and /sys, of devices, of mounts and of the host's quotas.
    ltp_tests fs '.*' 'proc.*|read_all.*|quota.*|isofs|fs_fill|binfmt.*|squashfs.*|acl_.*' |
        sed -E "s/ -L [0-9]+/ -L $SECONDS_EACH/; s/ -i [0-9]+s/ -i ${SECONDS_EACH}s/" >"$T/list"
    ltp_run "$1" "$2" "$3" "$T/list" 600
}
suite_main "$@"
