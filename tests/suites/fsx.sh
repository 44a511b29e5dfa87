#!/usr/bin/env bash
# tests/suites/fsx.sh — random reads, writes, mappings and truncations of one file, every byte checked (fsx from crates.io)
. "$(dirname "$0")/lib.sh"
OPS=${KFS_SUITE_OPS:-25000} # for each of the four seeds
suite_have() { [ -x "$SUITE_TOOLS/bin/fsx" ]; }
suite_install() { suite_cargo fsx 0.3.2; }
suite_run() { # SIDE DIR LOG
    cat >"$T/fsx.toml" <<EOF
flen = 1048576
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 2
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 1
punch_hole = 1
sendfile = 5
posix_fadvise = 1
copy_file_range = 5
EOF
    : >"$3"
    local seed
    for seed in 1 2 3 4; do
        if timeout -k 5 "$SUITE_LIMIT" "${ON[@]}" "$SUITE_TOOLS/bin/fsx" -f "$T/fsx.toml" -S $seed -N "$OPS" -P "$T" "$2/fsx.$seed" >>"$3" 2>&1; then
            echo "CASE ok seed-$seed" >>"$3"
        else
            echo "CASE fail seed-$seed" >>"$3"
        fi
    done
}
suite_cases() { sed -n 's/^CASE //p' "$2"; } # SIDE LOG
suite_main "$@"
