#!/usr/bin/env bash
# tests/suites/fio.sh — fio writes with checksums and verifies them, by several engines
. "$(dirname "$0")/lib.sh"
suite_have() { t_have fio; }
suite_install() { suite_apt fio; }
suite_run() { # SIDE DIR LOG
    : >"$3"
    local engine rw direct
    for engine in sync psync vsync pvsync mmap libaio posixaio io_uring splice; do
        for rw in write randwrite; do
            echo "== $engine $rw" >>"$3"
            timeout -k 5 300 "${ON[@]}" fio --name="$engine-$rw" --directory="$2" --ioengine="$engine" --rw=$rw --bs=4k-64k --bs_unaligned=0 --size=8m \
                --iodepth=8 --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=256 --numjobs=2 --randseed=7 --fallocate=none >>"$3" 2>&1
            echo "CASE $([ $? -eq 0 ] && echo ok || echo fail) $engine-$rw" >>"$3"
        done
    done
}
suite_cases() { sed -n 's/^CASE //p' "$2"; } # SIDE LOG
suite_main "$@"
