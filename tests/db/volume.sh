#!/bin/bash
# A volume whose metadata lies on a MariaDB server: it works, its mistakes are told clearly, and neither the server's restart nor lost connections nor the end of
# kfsd lose or double anything.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/mariadb.sh"
if ! mariadb_have; then
    t_skip volume-on-mariadb "no MariaDB server is installed"
    exit 0
fi
kfs_volume
trap 'kfs_cleanup_db' EXIT
kfs_cleanup_db() {
    mariadb_stop_all
    kfs_cleanup
}
mariadb_start a || { t_fail mariadb-starts "see above"; exit 1; }
HOST=127.0.0.1:$MARIADB_PORT
mariadb_sql a "CREATE DATABASE v; CREATE DATABASE foreign_one; CREATE TABLE foreign_one.accounts(id INT); CREATE DATABASE v2;
    CREATE USER kfs@127.0.0.1 IDENTIFIED BY 'secret-word'; GRANT ALL ON v2.* TO kfs@127.0.0.1"
URL=mysql://root@$HOST/v
run() { "$KFS_BIN/kfs-run" --at "$P=$URL" -- "$@"; }
says() { # NAME STATUS TEXT COMMAND…: fails with this status and says this
    local name=$1 status=$2 text=$3
    shift 3
    "$@" >"$T/out" 2>&1 </dev/null
    local got=$?
    if [ $got = "$status" ] && grep -qF -- "$text" "$T/out"; then t_pass "$name"; else
        t_fail "$name" "status $got, wanted $status and '$text'"
        t_note 5 <"$T/out"
    fi
}

# --- mistakes
says a-store-must-be-named 2 "name one with --store" "$KFS_BIN/kfs" format "$URL"
says a-password-in-the-url-is-refused 2 "password_file=FILE" "$KFS_BIN/kfs" format --store "file:$T/o" "mysql://root:hello@$HOST/v"
says a-password-option-is-refused 2 "password_file=FILE" "$KFS_BIN/kfs" format --store "file:$T/o" "mysql://root@$HOST/v?password=hello"
grep -q hello "$T/out" && t_fail a-password-is-not-repeated || t_pass a-password-is-not-repeated
says an-unknown-option-is-named 2 "option 'colour' is unknown" "$KFS_BIN/kfs" format --store "file:$T/o" "$URL?colour=red"
says a-missing-database-is-named 1 "CREATE DATABASE" "$KFS_BIN/kfs" format --store "file:$T/o" "mysql://root@$HOST/nothere"
says a-foreign-database-is-left-alone 2 "of another program" "$KFS_BIN/kfs" format --store "file:$T/o" "mysql://root@$HOST/foreign_one"
says a-wrong-password-is-told 1 "check user, password and grants" "$KFS_BIN/kfs" format --store "file:$T/o" "mysql://kfs@$HOST/v2"
says a-server-that-is-down-is-told 1 "is the server up" "$KFS_BIN/kfs" format --store "file:$T/o" "mysql://root@127.0.0.1:1/v"
says an-empty-database-is-told 1 "is empty" "$KFS_BIN/kfs-run" --at "$P=$URL" -- true

# --- making and using
"$KFS_BIN/kfs" format --store "file:$T/objects" "$URL" >"$T/out" 2>&1 && t_pass format-on-a-server || { t_fail format-on-a-server; t_note <"$T/out"; }
says a-second-format-is-refused 1 "already holds a volume" "$KFS_BIN/kfs" format --store "file:$T/o3" "$URL"
run sh -c "mkdir -p $P/d && cp -r /etc/apt $P/d/ && diff -r /etc/apt $P/d/apt && ln -s d $P/l && mv $P/d/apt $P/a && ls $P" >"$T/out" 2>&1 &&
    t_pass files-on-a-server || { t_fail files-on-a-server; t_note <"$T/out"; }
printf 'secret-word\n' >"$T/password"
chmod 600 "$T/password"
if "$KFS_BIN/kfs" format --store "file:$T/objects2" "mysql://kfs@$HOST/v2?password_file=$T/password" >"$T/out" 2>&1 &&
    "$KFS_BIN/kfs-run" --at "$P=mysql://kfs@$HOST/v2?password_file=$T/password" -- sh -c "echo x >$P/x; cat $P/x; env" >>"$T/out" 2>&1 && ! grep -q secret-word "$T/out"; then
    t_pass password-from-a-file-never-shows
else
    t_fail password-from-a-file-never-shows
    t_note <"$T/out"
fi
if KFS_MYSQL_PASSWORD=secret-word "$KFS_BIN/kfs-run" --at "$P=mysql://kfs@$HOST/v2" -- sh -c "cat $P/x; env" >"$T/out" 2>&1 && grep -qx x "$T/out"; then
    t_pass password-from-kfsds-environment
    grep -q 'KFS_MYSQL_PASSWORD' "$T/out" && t_fail password-stays-out-of-the-program "the program's environment has it" || t_pass password-stays-out-of-the-program
else
    t_fail password-from-kfsds-environment
    t_note <"$T/out"
fi

# --- faults: a program creates, renames and removes all the time; its connections are killed, the server restarts, kfsd is killed
cat >"$T/work.py" <<'PY'
import os, sys, time
d, stop = sys.argv[1], sys.argv[2]
n = 0
while not os.path.exists(stop):
    p = f"{d}/f{n}"
    os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY))   # done twice: EEXIST
    if n % 3 == 0: os.rename(p, f"{d}/r{n}")                      # done twice: ENOENT
    if n % 5 == 1: os.unlink(p if n % 3 else f"{d}/r{n}")
    if n % 7 == 0: os.mkdir(f"{d}/d{n}")
    if n % 2 == 0 and n % 5 != 1:
        with open(f"{d}/r{n}" if n % 3 == 0 else p, "wb") as f: f.write(b"%d" % n * 3000)
    n += 1
print(n)
PY
cat >"$T/check.py" <<'PY'
import os, sys
d, n = sys.argv[1], int(sys.argv[2])
want = {}
for i in range(n):
    if i % 5 != 1: want[f"r{i}" if i % 3 == 0 else f"f{i}"] = b"%d" % i * 3000 if i % 2 == 0 else b""
    if i % 7 == 0: want[f"d{i}"] = None
have = set(os.listdir(d))
bad = [x for x in want if x not in have] + [x for x in have if x not in want]
for x, c in want.items():
    if c is not None and x in have and open(f"{d}/{x}", "rb").read() != c: bad.append("content of " + x)
print("entries", len(want), "bad", bad[:10]); sys.exit(bool(bad))
PY
faults() { # NAME COMMAND: run COMMAND some times beside the work
    local name=$1 n
    rm -f "$T/stop"
    run mkdir "$P/$name"
    run "$PY" "$T/work.py" "$P/$name" "$T/stop" >"$T/$name.n" 2>"$T/$name.err" &
    local pid=$!
    eval "$2"
    touch "$T/stop"
    if ! wait $pid; then
        t_fail "$name-no-call-fails" "$(tail -n 1 "$T/$name.err")"
        return
    fi
    n=$(cat "$T/$name.n")
    t_pass "$name-no-call-fails ($n rounds)"
    if run "$PY" "$T/check.py" "$P/$name" "$n" >"$T/out" 2>&1; then t_pass "$name-nothing-lost-nothing-twice"; else
        t_fail "$name-nothing-lost-nothing-twice"
        t_note <"$T/out"
    fi
}
kill_connections() {
    local id
    for id in $(mariadb_sql a "SELECT id FROM information_schema.processlist WHERE db='v'"); do mariadb_sql a "KILL $id" 2>/dev/null; done
}
faults connections-killed 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.2; kill_connections; done'
faults server-restarted 'for i in 1 2; do sleep 0.5; mariadb_stop a; sleep 0.3; mariadb_start a >/dev/null; done; sleep 0.5'
faults server-killed 'sleep 0.5; mariadb_kill a; mariadb_start a --innodb-flush-log-at-trx-commit=1 >/dev/null; sleep 0.5'
exit $t_failed
