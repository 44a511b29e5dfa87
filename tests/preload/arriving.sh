#!/usr/bin/env bash
# tests/preload/arriving.sh — a large file is read while it arrives (probes/arriving.c), slowly and from a cold cache; each case must print the same as in a plain directory
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
if ! grep -aq stream_bytes "$KFS_BIN/kfsd"; then
    t_skip arriving "this kfsd gives no stand-ins (it knows no stream_bytes)"
    kfs_done
fi
printf '%s\n' "stream_bytes = 1M" "download_bytes_per_s = 40M" >>"$T/kfs.conf"
seq -f %07g 0 899999 >"$T/big"
for c in $("$KFS_PROBES/arriving" list); do
    t_wanted "$c" || continue
    rm -rf "$T/plain/a"
    mkdir "$T/plain/a"
    cp "$T/big" "$T/plain/a/big"
    timeout -k 5 120 "$KFS_PROBES/arriving" "$T/plain/a" "$c" >"$T/a.plain" 2>&1 </dev/null
    krun bash -c 'rm -rf "$1" && mkdir "$1" && cp "$2" "$1/big"' - "$P/a" "$T/big"
    kfsd_stop TERM
    rm -rf "$T/cache"
    krun "$KFS_PROBES/arriving" "$P/a" "$c" >"$T/a.kfs" 2>&1 </dev/null
    [ -n "$KFS_PLAIN" ] || "$KFS_BIN/kfs" status "$URL" --json 2>/dev/null | grep -qE '"(ARRIVAL|SETTLE)":' || t_fail "$c" "no stand-in was used"
    if cmp -s "$T/a.plain" "$T/a.kfs"; then
        t_pass "$c"
    else
        t_fail "$c" "differs from a plain directory"
        diff -a -U1 "$T/a.plain" "$T/a.kfs" | t_note 25
    fi
done
kfs_done
