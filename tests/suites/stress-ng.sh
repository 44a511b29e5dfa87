#!/usr/bin/env bash
# tests/suites/stress-ng.sh — the file system stressors of stress-ng, each for a moment, with its own verification
. "$(dirname "$0")/lib.sh"
# What needs a mount, a device or another kernel file system by name is left out.
STRESSORS=${KFS_SUITE_STRESSORS:-access chdir chmod chown copy-file dentry dir dirdeep dirmany dup dup fallocate fcntl fiemap filename flock fpunch fsize fstat
    getdent hdd inotify io iomix lease link locka lockf lockofd mknod open rename seek symlink sync-file touch utime xattr}
SECONDS_EACH=${KFS_SUITE_SECONDS:-2}
suite_have() { t_have stress-ng; }
suite_install() { suite_apt stress-ng; }
suite_run() { # SIDE DIR LOG
    : >"$3"
    local s rc
    for s in $STRESSORS; do
        echo "== $s" >>"$3"
        timeout -k 5 120 "${ON[@]}" stress-ng --"$s" 1 -t "$SECONDS_EACH" --verify --temp-path "$2" --hdd-bytes 16m --fallocate-bytes 16m \
            --iomix-bytes 16m --sync-file-bytes 4m --seek-size 4m >>"$3" 2>&1
        rc=$?
        case $rc in
        0) grep -q "$s.*skipp\|unsupported" <(sed -n "/^== $s\$/,\$p" "$3") && echo "CASE skip $s" >>"$3" || echo "CASE ok $s" >>"$3" ;;
        3 | 4) echo "CASE skip $s" >>"$3" ;;
        *) echo "CASE fail $s" >>"$3" ;;
        esac
    done
}
suite_cases() { sed -n 's/^CASE //p' "$2"; } # SIDE LOG
suite_main "$@"
