#!/bin/bash
# Several cache directories, and directories that are full, read-only or removed: served past, used again, nothing lost.
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
C1=$T/c1 C2=$T/c2
mkdir -p "$C1" "$C2"
printf '%s\n' "cache_dir = $C1 files=40" "cache_dir = $C2" "run_dir = $T/run" "linger_s = 60" >"$T/kfs.conf"
krun sh -c 'mkdir "$1/d"; for i in $(seq 100); do head -c 20000 /dev/urandom >"$1/d/$i"; done; cp -r "$1/d" "$2/want"' sh "$P" "$T"
clean() { find "$1" -path '*/f/*' -type f 2>/dev/null | wc -l; }
same() { krun diff -r "$P/d" "$T/want" >"$T/diff" 2>&1; }
cold() { "$KFS_BIN/kfs" cache evict --volume "$URL" >/dev/null; }
cache() { "$KFS_BIN/kfs" cache --volume "$URL" --json; }

same
t_check both-directories-are-used "[ $(clean "$C1") -gt 0 ] && [ $(clean "$C2") -gt 0 ]" "$(clean "$C1") and $(clean "$C2") files"
t_check a-limit-of-files-holds "[ $(clean "$C1") -le 40 ]" "$(clean "$C1") files"
cache >"$T/json"
t_check kfs-cache-shows-them "grep -q '$C1' $T/json && grep -q '$C2' $T/json" "$(cat "$T/json")"

# A new kfsd finds them again without fetching anything.
kfsd_stop TERM
mv "$T/vol.db.objects/o" "$T/o"
t_check index-survives-a-restart same "$(head -n 2 "$T/diff")"
mv "$T/o" "$T/vol.db.objects/o"

# The second directory goes while kfsd runs.
cold
rm -rf "$C2"
t_check removed-directory-is-served-past same "$(head -n 2 "$T/diff")"
krun sh -c 'echo new >"$1/new"; cat "$1/new"' sh "$P" >"$T/out" 2>&1
t_check writes-go-on-without-it "grep -qx new $T/out" "$(cat "$T/out")"

# The first one, where files that are being written lie: nothing that was closed is lost.
cold
mv "$C1" "$T/away" # at once: one that goes file by file under a running kfsd may leave remnants, which it then refuses
t_check both-removed-reads-go-on same "$(head -n 2 "$T/diff")"
krun cat "$P/new" >"$T/out" 2>&1
t_check both-removed-nothing-lost "grep -qx new $T/out" "$(cat "$T/out")"
krun sh -c 'echo again >"$1/again"; cat "$1/again"' sh "$P" >"$T/out" 2>&1
t_check written-again-once-it-is-back "grep -qx again $T/out" "$(cat "$T/out")"
kfsd_stop TERM

# A directory in which nothing can be made or removed any more.
if t_root && chattr +i "$T/want" 2>/dev/null; then
    chattr -i "$T/want"
    trap 'rc=$?; chattr -R -i "$T/c1" "$T/c2" 2>/dev/null; (exit $rc); kfs_cleanup' EXIT
    same
    cold
    find "$C1" "$C2" -type d -exec chattr +i {} +
    t_check immutable-directories-still-read same "$(head -n 2 "$T/diff")"
    krun sh -c 'echo x >"$1/x"' sh "$P" 2>"$T/e1"
    t_check immutable-directories-refuse-writes "[ $? -ne 0 ]"
    find "$C1" "$C2" -type d -exec chattr -i {} +
    krun sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo back >"$1/x" 2>/dev/null && break; sleep 0.5; done; cat "$1/x"' sh "$P" >"$T/out"
    t_check immutable-directories-are-used-again "grep -qx back $T/out" "$(cat "$T/out")"
else
    t_skip immutable-directories "needs root and a file system with immutable directories"
fi
kfs_done
