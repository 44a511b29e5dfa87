#!/usr/bin/env bash
# tests/badinput/arguments.sh — URLs, prefixes, databases, stores and places that cannot be used: one clear line, the right exit code, nothing lost
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip arguments "a plain directory has none"; kfs_done; }
R=$KFS_BIN/kfs-run

# says NAME CODE PATTERN CMD…: exit code CODE, nothing on stdout, one line on stderr that matches PATTERN
says() {
    local name=$1 code=$2 pattern=$3 rc
    shift 3
    t_wanted "$name" || return 0
    timeout -k 5 100 "$@" >"$T/o" 2>"$T/e" </dev/null
    rc=$?
    if ! [[ $rc =~ ^($code)$ ]]; then t_fail "$name" "exit code $rc, not $code: $(head -c 300 "$T/e")"
    elif [ -s "$T/o" ]; then t_fail "$name" "printed on stdout: $(head -c 200 "$T/o")"
    elif [ "$(grep -vc "^try '" "$T/e")" != 1 ]; then t_fail "$name" "$(wc -l <"$T/e") lines, not one: $(head -c 400 "$T/e")"
    elif ! grep -qE "$pattern" "$T/e"; then t_fail "$name" "the line does not say $pattern: $(cat "$T/e")"
    else t_pass "$name"; fi
}
krun bash -c 'echo kept >"$P/kept"; seq 100000 >"$P/big"' || t_fail set-up
kept() { t_wanted "kept-$1" || return 0; [ "$(krun cat "$P/kept" 2>&1)" = kept ] && krun cat "$P/big" | cmp -s - <(seq 100000) && t_pass "kept-$1" || t_fail "kept-$1" "content is lost: $(krun cat "$P/kept" 2>&1 | head -3)"; }

says scheme-unknown '1|2' "ftp.*(sqlite|scheme)" "$R" --at "/d=ftp://host/x" -- true
says scheme-mysql '1|2' "mysql" "$R" --at "/d=mysql://u@h:1/db/v" -- true
says scheme-missing '1|2' "novolume" "$R" --at /d=novolume -- true
says url-without-path '1|2' "sqlite:" "$R" --at /d=sqlite: -- true
says database-missing 1 "$T/none.db.*(--create|kfs format)" "$R" --at "/d=sqlite:$T/none.db" -- true
t_check database-missing-makes-none "[ ! -e $T/none.db ]"
says database-directory-missing 1 "$T/no/such" "$R" --create --at "/d=sqlite:$T/no/such/v.db" -- true
says database-is-a-directory 1 "$T/run" "$R" --at "/d=sqlite:$T/run" -- true
head -c 5000 /dev/urandom >"$T/garbage.db"
says database-is-garbage 1 "$T/garbage.db" "$R" --at "/d=sqlite:$T/garbage.db" -- true
: >"$T/empty.db"
says database-is-empty 1 "$T/empty.db" "$R" --at "/d=sqlite:$T/empty.db" -- true
sqlite3 "$T/foreign.db" 'create table t(a)'
says database-is-anothers 1 "$T/foreign.db" "$R" --at "/d=sqlite:$T/foreign.db" -- true
says prefix-relative 2 "data.*absolute" "$R" --at "data=$URL" -- true
says prefix-root 2 "root" "$R" --at "/=$URL" -- true
says prefix-nested 2 "nested" "$R" --at "/a=$URL" --at "/a/b=sqlite:$T/x.db" -- true
says prefix-twice 2 "twice" "$R" --at "/a=$URL" --at "/a=sqlite:$T/x.db" -- true
says prefix-dotted 2 "/a/../b" "$R" --at "/a/../b=$URL" -- true
says prefix-too-long 2 "long" "$R" --at "/$(printf '%05000d' 0)=$URL" -- true
says at-without-volume 2 "/a" "$R" --at /a -- true
says nested-kfs-run 2 "nested" "$R" --at "$P=$URL" -- "$R" --create --at "$P/in=sqlite:$T/x.db" -- true
says option-unknown 2 "frobnicate" "$R" --frobnicate -- true
says no-command 2 "CMD" "$R" --at "$P=$URL"
says commit-unknown 2 "sometimes" "$R" --at "$P=$URL" --commit=sometimes -- true
says program-missing 127 "no-such-program" "$R" --at "$P=$URL" -- no-such-program
says program-not-executable 126 "kfs.conf" "$R" --at "$P=$URL" -- "$T/kfs.conf"
says kfs-unknown-command 2 "frobnicate" "$KFS_BIN/kfs" frobnicate
says kfs-info-missing 1 "none" "$KFS_BIN/kfs" info --volume "$URL" /none
says kfs-format-over-existing 1 "$T/vol.db" "$KFS_BIN/kfs" format "$URL"
kept arguments

long=$T/$(printf 'x%.0s' {1..60})/$(printf 'y%.0s' {1..60})
mkdir -p "$long"
kfsd_stop TERM
says socket-path-too-long 1 "107|108|long" "$R" --at "$P=$URL" --run-dir "$long" -- true
kept socket-path-too-long

# configuration
kfsd_stop TERM
printf 'cache_dir = relative\n' >"$T/bad.conf"
says config-bad-value '1|2' "bad.conf:1.*cache_dir" env KFS_CONFIG="$T/bad.conf" "$R" --at "$P=$URL" -- true
printf '# fine\nfrobnicate = 1\n' >"$T/bad.conf"
says config-unknown-key '1|2' "bad.conf:2.*frobnicate" env KFS_CONFIG="$T/bad.conf" "$R" --at "$P=$URL" -- true
says config-missing '1|2' "$T/none.conf" env KFS_CONFIG="$T/none.conf" "$R" --at "$P=$URL" -- true
kept config

# the store
kfsd_stop TERM
store=$T/vol.db.objects
mv "$store" "$T/away"
says store-vanished 1 "$store" "$R" --at "$P=$URL" -- true
mv "$T/away" "$store"
kept store-vanished
kfsd_stop TERM
mv "$store" "$T/away"
mkdir "$store"
says store-emptied 1 "$store" "$R" --at "$P=$URL" -- true
rmdir "$store"
mv "$T/away" "$store"
kept store-emptied
"$KFS_BIN/kfs" format "sqlite:$T/second.db" >/dev/null 2>&1
kfsd_stop TERM
mv "$store" "$T/away"
cp -a "$T/second.db.objects" "$store"
says store-of-another-volume 1 "$store" "$R" --at "$P=$URL" -- true
rm -rf "$store"
mv "$T/away" "$store"
kept store-of-another-volume

# a database of a newer schema
kfsd_stop TERM
sqlite3 "$T/vol.db" 'pragma wal_checkpoint(truncate)' >/dev/null
cp "$T/vol.db" "$T/vol.saved"
table=$(sqlite3 "$T/vol.db" "select m.name from sqlite_master m, pragma_table_info(m.name) c where c.name = 'schema' limit 1")
[ -n "$table" ] && sqlite3 "$T/vol.db" "update $table set schema = schema + 1000"
sum=$(sha256sum <"$T/vol.db")
says schema-newer 1 "$T/vol.db.*(newer|version|schema)" "$R" --at "$P=$URL" -- true
[ -n "$table" ] || t_fail schema-newer-set-up "no table with a column 'schema'"
sqlite3 "$T/vol.db" "update $table set schema = schema - 1000"
kept schema-newer

# a lock of somebody else's, a stale one, garbage in it
kfsd_stop TERM
printf 'pid 1\nuid 0\nuser root\nsocket /nowhere\n' >"$T/vol.db.lock"
kept stale-lock
kfsd_stop TERM
head -c 3000 /dev/urandom >"$T/vol.db.lock"
kept garbage-lock
kfsd_stop TERM
exec 6>>"$T/vol.db.lock"
flock 6
printf 'pid %s\nuid 12345\nuser somebody\nsocket %s\ncache_dir /nowhere\nhost here\n' $$ "$T/nowhere.sock" >"$T/vol.db.lock"
says claimed-by-somebody-else 1 "somebody" "$R" --at "$P=$URL" -- true
exec 6>&-
kept claimed-by-somebody-else

# cache directories
if t_root && t_have setpriv; then
    kfsd_stop TERM
    mkdir -m 700 "$T/closed"
    chown 65534:65534 "$T" "$T/run" && chown -R 65534:65534 "$T/vol.db" "$store" "$T/cache"
    rm -f "$T/vol.db.lock" "$T/vol.db-wal" "$T/vol.db-shm"
    if setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$R"; then
        says cache-directory-unreadable 1 "$T/closed" setpriv --reuid 65534 --regid 65534 --clear-groups "$R" --at "$P=$URL" --cache-dir "$T/closed" -- true
        says cache-directory-cannot-be-made 1 "$T/closed/sub" setpriv --reuid 65534 --regid 65534 --clear-groups "$R" --at "$P=$URL" --cache-dir "$T/closed/sub" -- true
        says run-directory-unwritable 1 "$T/closed" setpriv --reuid 65534 --regid 65534 --clear-groups "$R" --at "$P=$URL" --run-dir "$T/closed" -- true
        setpriv --reuid 65534 --regid 65534 --clear-groups "$R" --at "$P=$URL" -- cat "$P/kept" >"$T/o" 2>"$T/e"
        t_check served-as-its-owner "[ \"\$(cat $T/o)\" = kept ]" "$(head -c 300 "$T/e")"
    else
        t_skip cache-directory-unreadable "uid 65534 cannot reach '$R'"
    fi
    kfsd_stop TERM
    chown -R 0:0 "$T"
    kept cache-directories
else
    t_skip cache-directory-unreadable "needs root"
fi
kfsd_stop TERM
says cache-directory-is-a-file 1 "$T/kfs.conf" "$R" --at "$P=$URL" --cache-dir "$T/kfs.conf" -- true
mkdir "$T/othercache"
"$R" --create --at "/o=sqlite:$T/second.db" --cache-dir "$T/othercache" -- sh -c 'echo x >/o/f'
says cache-directory-of-another-volume 1 "$T/othercache" "$R" --at "$P=$URL" --cache-dir "$T/othercache" -- true
kept other-cache

# no /proc
if grep -qaE '__(asan|tsan)_init' "$R"; then
    t_skip no-proc "a sanitizer needs /proc itself"
elif t_root && unshare -m true 2>/dev/null; then
    kfsd_stop TERM
    says no-proc '1|126' "/proc" unshare -m sh -c 'mount -t tmpfs none /proc && exec "$@"' - "$R" --at "$P=$URL" -- true
    kept no-proc
else
    t_skip no-proc "needs root and mount namespaces"
fi
kfs_done
