#!/usr/bin/env bash
# tests/badinput/places.sh — places with little: a user namespace, nobody's uid on a read-only root, an empty /dev/shm, few descriptors
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip places "a plain directory needs no place"; kfs_done; }
R=$KFS_BIN/kfs-run
work='PY='$PY'; set -e; mkdir -p "$P/w/d"; cd "$P/w"; seq 1000 >f; cp f g; mv g d/h; cmp f d/h; ln -s f l; cat l | tail -1; ls -l d | wc -l; $PY -c "import os; os.rename(\"f\", \"f2\"); print(open(\"f2\").read(1))"; rm -r d; echo works'
want='1000
2
1
works'
ran() { # NAME
    if [ "$(cat "$T/o")" = "$want" ]; then t_pass "$1"; else t_fail "$1" "$(tail -n 2 "$T/e" | head -c 400) $(tail -n 1 "$T/o")"; fi
}
if unshare -Ur true 2>/dev/null; then
    unshare -Ur "$R" --create --at "$P=sqlite:$T/ns.db" --cache-dir "$T/nscache" -- bash -c "$work" >"$T/o" 2>"$T/e"
    ran user-namespace
    kfsd_stop TERM "$T/ns.db"
else
    t_skip user-namespace "user namespaces are not allowed here"
fi
if t_root && t_have setpriv && unshare -m true 2>/dev/null && setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$R"; then
    mkdir "$T/nobody" "$T/nobody/home" && chown -R 65534:65534 "$T/nobody"
    printf '%s\n' "run_dir = $T/nobody/run" "cache_dir = $T/nobody/cache" >"$T/nobody.conf"
    cat >"$T/bare.sh" <<'S'
mount --make-rprivate / && mount --bind "$T/nobody" "$T/nobody" && mount -o remount,ro,bind / && mount -t tmpfs -o ro,size=4k none /dev/shm || exit 90
[ "$1" != with-tmp ] || mount -t tmpfs -o mode=1777 none /tmp || exit 91
shift
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
S
    KFS_CONFIG=$T/nobody.conf HOME=/ unshare -m bash "$T/bare.sh" without-tmp "$R" --create --at "$P=sqlite:$T/nobody/v.db" -- bash -c "touch /tmp/x 2>/dev/null && echo writable; $work" >"$T/o" 2>"$T/e"
    ran nobody-on-a-read-only-root
    kfsd_stop TERM "$T/nobody/v.db"
    # The same without a configuration: a home and a /tmp to write to, as containers have.
    case $R in /tmp/*) t_skip nobody-with-defaults "KFS itself lies in /tmp" ;; *)
    env -u KFS_CONFIG HOME="$T/nobody/home" XDG_RUNTIME_DIR= unshare -m bash "$T/bare.sh" with-tmp "$R" --create --at "$P=sqlite:$T/nobody/v2.db" -- bash -c "$work" >"$T/o" 2>"$T/e"
    ran nobody-with-defaults ;;
    esac
    kfsd_stop TERM "$T/nobody/v2.db"
else
    t_skip nobody-on-a-read-only-root "needs root, setpriv and mount namespaces"
fi
"$R" --create --at "$P=$URL" -- bash -c "ulimit -n 24; $work" >"$T/o" 2>"$T/e"
ran few-descriptors
krun rm -r "$P/w"
env -i PATH="$PATH" KFS_CONFIG="$KFS_CONFIG" "$R" --create --at "$P=$URL" -- bash -c "P=$P; $work" >"$T/o" 2>"$T/e"
ran empty-environment
krun rm -r "$P/w"
(ulimit -s 256; "$R" --create --at "$P=$URL" -- bash -c "$work") >"$T/o" 2>"$T/e"
ran small-stack
krun rm -r "$P/w"
(mkdir "$T/cwd" && cd "$T/cwd" && rmdir "$T/cwd" && "$R" --create --at "$P=$URL" -- bash -c "$work") >"$T/o" 2>"$T/e"
ran removed-working-directory
krun rm -r "$P/w"
"$R" --create --at "$P=$URL" -- bash -c "$work" >"$T/o" 2>"$T/e" <&-
ran closed-stdin
krun rm -r "$P/w"
# Two volumes in one program, and one volume in two programs at once.
"$R" --create --at "/kfs-one=$URL" --at "/kfs-two=sqlite:$T/two.db" --cache-dir "$T/c2" -- bash -c 'echo 1 >/kfs-one/a; mv /kfs-one/a /kfs-two/b; cat /kfs-two/b; ln -s /kfs-two/b /kfs-one/l; cat /kfs-one/l; cd /kfs-two; cat ../kfs-one/l; cp -r /kfs-one/. /kfs-two/copy; ls /kfs-two/copy' >"$T/o" 2>"$T/e"
t_check two-volumes "[ \"\$(tr '\\n' ' ' <$T/o)\" = '1 1 1 l ' ]" "$(tr '\n' ' ' <"$T/o") $(tail -n 2 "$T/e")"
"$R" --at "/kfs-one=$URL" -- "$R" --at "/kfs-two=sqlite:$T/two.db" -- cat /kfs-one/l >"$T/o" 2>"$T/e"
t_check kfs-run-inside-kfs-run "[ \"\$(cat $T/o)\" = 1 ]" "$(tail -n 2 "$T/e")"
# --check
cc -O1 -static -o "$T/static" -xc - <<<'int main(void){return 0;}' 2>/dev/null && {
    "$R" --check "$T/static" >"$T/o" 2>&1; rc=$?
    t_check check-static "[ $rc = 1 ] && grep -qi static $T/o" "exit $rc: $(cat "$T/o")"
}
"$R" --check ls >"$T/o" 2>&1; rc=$?
t_check check-ls "[ $rc = 0 ]" "exit $rc: $(cat "$T/o")"
for s in /usr/bin/su /bin/mount /usr/bin/passwd; do
    [ -u "$s" ] || continue
    setpriv --reuid 65534 --regid 65534 --clear-groups "$R" --check "$s" >"$T/o" 2>&1; rc=$?
    t_check check-setuid "[ $rc = 1 ] && grep -qi set-*user\\\\\\|setuid $T/o" "exit $rc: $(cat "$T/o")"
    break
done
"$R" --check no-such-program >"$T/o" 2>&1; rc=$?
t_check check-missing "[ $rc = 1 ] || [ $rc = 127 ]" "exit $rc: $(cat "$T/o")"
kfs_done
