#!/usr/bin/env bash
# tests/crash/synced.sh — what fsync and its kin promise: kfsd killed, the cache lost, and the bytes are there; the writer still had the file open
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip synced "a plain directory has no daemon to lose"; exit 0; }
mkfifo "$T/hold" "$T/said"
for how in fsync fdatasync syncfs sync msync number aio_fsync; do
    t_wanted "$how" || continue
    krun "$KFS_PROBES/synced" $how "$P/$how" <"$T/hold" >"$T/said" 2>"$T/err" &
    app=$!
    exec 5>"$T/hold" 6<"$T/said"
    read -r -t 60 said <&6
    kfsd_stop KILL
    rm -rf "$T/cache"
    exec 5>&- 6<&-
    wait $app
    krun cat "$P/$how" >"$T/got" 2>>"$T/err"
    kfsd_stop TERM
    t_check "$how" "[ '$said' = durable ] && [ \"\$(cat $T/got)\" = durable ]" "it said '$said', and '$(cat "$T/got")' is there: $(head -n 2 "$T/err" | tr '\n' ' ')"
done
kfs_done
