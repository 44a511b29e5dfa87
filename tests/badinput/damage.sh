#!/usr/bin/env bash
# tests/badinput/damage.sh — damaged objects and full disks: an error where it belongs, never wrong bytes, nothing else lost
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip damage "a plain directory has no objects"; kfs_done; }
store=$T/vol.db.objects

# Content without repetition, so that a wrong byte shows.
krun bash -c 'for f in flip cut gone head tail empty; do openssl rand 2500000 2>/dev/null >"$P/$f" || head -c 2500000 /dev/urandom >"$P/$f"; done; echo fine >"$P/fine"; seq 100000 >"$P/other"; cp "$P"/* "$1/"' - "$T/plain" || t_fail set-up
cold() { kfsd_stop TERM; rm -rf "$T/cache"; }
# The object that holds a file's content: the one that appeared with it cannot be told apart by name, so by its bytes.
object_of() { # FILE: path of the object that contains its bytes 1000..1063
    local o pat
    pat=$(dd if="$T/plain/$1" bs=1 skip=1000 count=32 status=none | od -An -v -tx1 | tr -d ' \n')
    find "$store" -type f -size +100k | while read -r o; do
        $PY - "$o" "$pat" <<'P' && { echo "$o"; break; }
import sys
sys.exit(bytes.fromhex(sys.argv[2]) not in open(sys.argv[1], 'rb').read())
P
    done
}
# damaged NAME COMMAND(object): reading fails with EIO, shows only right bytes; with the object back all is well
damaged() {
    local name=$1 o rc
    t_wanted "$name" || return 0
    cold
    o=$(object_of "$name")
    [ -n "$o" ] || { t_fail "$name" "no object holds its content"; return; }
    cp -p "$o" "$T/saved"
    chmod u+w "$o"
    "$2" "$o"
    krun cat "$P/$name" >"$T/got" 2>"$T/e"
    rc=$?
    if [ $rc = 0 ]; then t_fail "damaged-$name" "was read without an error"
    elif ! grep -q 'Input/output error' "$T/e"; then t_fail "damaged-$name" "another error: $(cat "$T/e")"
    elif ! cmp -s -n "$(stat -c %s "$T/got")" "$T/got" "$T/plain/$name"; then t_fail "damaged-$name" "wrong bytes were given"
    else t_pass "damaged-$name"; fi
    t_check "damaged-$name-others-are-served" "[ \"\$(krun cat $P/fine)\" = fine ] && krun cat $P/other | cmp -s - $T/plain/other"
    t_check "damaged-$name-is-logged" "kfs_logs 200 | grep -q \"\$(basename '$o')\"" "the log does not name the object"
    krun stat "$P/$name" >/dev/null 2>&1
    t_check "damaged-$name-can-be-overwritten" "krun sh -c 'cp $P/other $P/new-$name && cmp $P/other $P/new-$name'"
    cp -p "$T/saved" "$o"
    cold
    t_check "restored-$name" "krun cmp $P/$name $T/plain/$name" "differs after the object came back"
}
flip() { printf '\xa5' | dd of="$1" bs=1 seek=1200000 conv=notrunc status=none; printf '\x5a' | dd of="$1" bs=1 seek=1200001 conv=notrunc status=none; }
cut_half() { truncate -s $(($(stat -c %s "$1") / 2)) "$1"; }
remove() { rm "$1"; }
head_garbled() { printf 'garbage!' | dd of="$1" bs=1 seek=66 conv=notrunc status=none; } # the header itself is needed by nobody but fsck
tail_garbled() { printf 'garbage!' | dd of="$1" bs=1 seek=$(($(stat -c %s "$1") - 20)) conv=notrunc status=none; }
empty() { truncate -s 0 "$1"; }
damaged flip flip
damaged cut cut_half
damaged gone remove
damaged head head_garbled
damaged tail tail_garbled
damaged empty empty

# A cache directory on a full disk.
if t_root && unshare -m true 2>/dev/null; then
    if t_wanted full-cache; then
        cold
        mkdir -p "$T/small"
        cat >"$T/full.sh" <<'S'
. "$KFS_TOP/tests/lib/lib.sh"
mount -t tmpfs -o size=4m none "$T/small" || exit 90
run() { timeout -k 5 100 "$KFS_BIN/kfs-run" --at "$P=$URL" --cache-dir "$T/small" -- "$@"; }
run cat "$P/other" | cmp -s - "$T/plain/other" && echo reads-small
run sh -c 'head -c 10000000 /dev/zero | tr "\0" x >"$P/toobig"' 2>"$T/e1"; echo "write $?"
run cat "$P/fine"
run sh -c 'rm -f "$P/toobig"; echo after >"$P/after"; cat "$P/after"'
run sh -c 'cat "$P/gone" "$P/head" "$P/tail" | cmp - "$1"' - "$T/three" && echo evicts-to-make-room
run sh -c 'truncate -s 0 "$P/x"; dd if=/dev/urandom of="$P/y" bs=1M count=8 status=none' 2>"$T/e2"; echo "write $?"
run sh -c 'echo still >"$P/z"; cat "$P/z"'
kfsd_stop TERM
S
        cat "$T/plain/gone" "$T/plain/head" "$T/plain/tail" >"$T/three"
        KFS_TOP=$KFS_TOP KFS_TEST_T=$T unshare -m bash "$T/full.sh" >"$T/full.out" 2>"$T/full.err"
        t_check full-cache-still-reads "grep -q ^reads-small $T/full.out && grep -q ^fine $T/full.out" "$(tail -n 3 "$T/full.err")"
        t_check full-cache-write-fails "! grep -q '^write 0' $T/full.out" "$(tr '\n' ' ' <"$T/full.out")"
        t_check full-cache-says-no-space "grep -qi 'no space' $T/e1" "$(cat "$T/e1")"
        t_check full-cache-goes-on-after "grep -q ^after $T/full.out && grep -q ^still $T/full.out" "$(tr '\n' ' ' <"$T/full.out")"
        t_check full-cache-makes-room "grep -q ^evicts $T/full.out" "$(tail -n 3 "$T/full.err")"
        for f in flip cut gone head tail empty other fine; do krun cmp "$P/$f" "$T/plain/$f" || echo "$f"; done >"$T/cmp" 2>&1
        t_check full-cache-lost-nothing "[ ! -s $T/cmp ]" "$(cat "$T/cmp")"
    fi
    # The store's disk is full: close or fsync reports it, and what was stored before stays.
    if t_wanted full-store; then
        cat >"$T/store.sh" <<'S'
. "$KFS_TOP/tests/lib/lib.sh"
mkdir -p "$T/sm2" && mount -t tmpfs -o size=3m none "$T/sm2" || exit 90
"$KFS_BIN/kfs" format "sqlite:$T/fs.db" --store "file:$T/sm2/o" >/dev/null || exit 91
run() { timeout -k 5 100 "$KFS_BIN/kfs-run" --at "/fs=sqlite:$T/fs.db" --cache-dir "$T/fscache" -- "$@"; }
run sh -c 'head -c 1000000 /dev/urandom >/fs/a && cp /fs/a "$1"' - "$T/a"; echo "first $?"
run dd if=/dev/urandom of=/fs/b bs=1M count=6 conv=fsync status=none 2>"$T/e3"; echo "second $?"
run cmp /fs/a "$T/a" && echo same
run sh -c 'rm -f /fs/b; head -c 500000 /dev/urandom >/fs/c && cp /fs/c "$1"' - "$T/c"; echo "third $?"
kfsd_stop TERM "$T/fs.db"; rm -rf "$T/fscache"
run cmp /fs/a "$T/a" && run cmp /fs/c "$T/c" && echo whole
kfsd_stop TERM "$T/fs.db"
S
        KFS_TOP=$KFS_TOP KFS_TEST_T=$T unshare -m bash "$T/store.sh" >"$T/store.out" 2>"$T/store.err"
        t_check full-store-is-reported "grep -q '^second [1-9]' $T/store.out && grep -qi 'no space' $T/e3" "$(tr '\n' ' ' <"$T/store.out") $(cat "$T/e3" 2>/dev/null)"
        t_check full-store-keeps-and-goes-on "grep -q ^same $T/store.out && grep -q '^third 0' $T/store.out && grep -q ^whole $T/store.out" "$(tr '\n' ' ' <"$T/store.out") $(tail -n 2 "$T/store.err")"
    fi
else
    t_skip full-cache "needs root and mount namespaces"
fi
kfs_done
