#!/usr/bin/env bash
# tests/apps/kfs-run.sh — exit codes, signals, terminal, nesting: kfs-run is not noticed, in both commit modes
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip kfs-run "about kfs-run itself"; kfs_done; }
R=$KFS_BIN/kfs-run
PYTHON=$("$KFS_TOP/tests/lib/deps" python)

code() { # NAME WANT CMD…: exit code of kfs-run, as a shell sees it
    local name=$1 want=$2 got
    shift 2
    KRUN_OPTS="${mode:+--commit=$mode}" krun "$@" >"$T/out" 2>&1
    got=$?
    [ "$got" -eq "$want" ] && t_pass "$name" || { t_fail "$name" "exit code $got instead of $want"; t_note <"$T/out"; }
}

krun sh -c 'echo hi >"$1/f"; cp /bin/true "$1/prog"; printf "#!/bin/sh\nexit 9\n" >"$1/script"; chmod +x "$1/script"' sh "$P"
for mode in close session; do
    code exit-0-$mode 0 true
    code exit-7-$mode 7 sh -c 'exit 7'
    code signal-term-$mode 143 sh -c 'kill -TERM $$'
    code signal-kill-$mode 137 sh -c 'kill -KILL $$'
    code not-found-$mode 127 nosuchprogram
    code not-found-path-$mode 127 /no/such/program
    code not-found-on-volume-$mode 127 "$P/none"
    code not-executable-$mode 126 /etc/passwd
    code not-executable-on-volume-$mode 126 "$P/f"
    code program-on-volume-$mode 0 "$P/prog"
    code script-on-volume-$mode 9 "$P/script"
    code path-on-volume-$mode 0 env PATH="$P:$PATH" "$R" --at "$P=$URL" -- prog
done

mode=session
# What is sent to kfs-run arrives at CMD.
for sig in TERM USR1 HUP INT; do
    rm -f "$T/ready"
    # A shell ignores INT and QUIT for its background jobs: python starts kfs-run with the default.
    "$PYTHON" - "$R" --commit=session --at "$P=$URL" -- sh -c "trap 'exit 21' $sig; : >'$T/ready'; while :; do sleep 0.05; done" <<'END' &
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
END
    pid=$!
    for _ in $(seq 200); do [ -e "$T/ready" ] && break; sleep 0.05; done
    kill -$sig $pid
    wait $pid
    t_check forwards-$sig "[ $? -eq 21 ]"
done

# A stopped CMD is a stopped kfs-run, and goes on with it.
cat >"$T/stop.py" <<'END'
import os, signal, sys
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
_, status = os.waitpid(pid, os.WUNTRACED)
if not os.WIFSTOPPED(status):
    sys.exit("not stopped: %x" % status)
os.kill(pid, signal.SIGCONT)
_, status = os.waitpid(pid, 0)
sys.exit(0 if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 5 else "ended with %x" % status)
END
for mode in close session; do
    timeout 60 "$PYTHON" "$T/stop.py" "$R" --commit=$mode --at "$P=$URL" -- sh -c 'kill -STOP $$; exit 5' >"$T/out" 2>&1
    t_check stop-and-continue-$mode "[ $? -eq 0 ]" "$(cat "$T/out")"
done

# (Not a shell: dash may swallow a SIGINT that comes between two commands.)
# A terminal: CMD has it, and Ctrl-C ends CMD and kfs-run by SIGINT; a CMD that catches it decides itself.
cat >"$T/ctrlc.py" <<'END'
import os, pty, sys
want, argv = sys.argv[1], sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(argv[0], argv)
seen = b""
while b"ready" not in seen:
    seen += os.read(fd, 1000)
os.write(fd, b"\x03")
try:
    while True:
        seen += os.read(fd, 1000)
except OSError:
    pass
_, status = os.waitpid(pid, 0)
got = "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "exit %d" % os.WEXITSTATUS(status)
sys.exit(0 if got == want else "%s instead of %s: %r" % (got, want, seen))
END
for mode in close session; do
    timeout 60 "$PYTHON" "$T/ctrlc.py" 'signal 2' "$R" --commit=$mode --at "$P=$URL" -- "$PYTHON" -c 'import os, time
if os.isatty(0) and os.isatty(1): print("ready", flush=True)
time.sleep(60)' >"$T/out" 2>&1
    t_check ctrl-c-$mode "[ $? -eq 0 ]" "$(cat "$T/out")"
    timeout 60 "$PYTHON" "$T/ctrlc.py" 'exit 33' "$R" --commit=$mode --at "$P=$URL" -- sh -c 'trap "exit 33" INT; echo ready; while :; do sleep 0.1; done' >"$T/out" 2>&1
    t_check ctrl-c-caught-$mode "[ $? -eq 0 ]" "$(cat "$T/out")"
done
cat >"$T/shell.py" <<'END'
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
os.write(fd, b"cat $F; exit 4\n")
seen = b""
try:
    while True:
        seen += os.read(fd, 1000)
except OSError:
    pass
_, status = os.waitpid(pid, 0)
print(seen.decode())
sys.exit(0 if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 4 and b"hi" in seen and b"leave this shell" in seen else 1)
END
F=$P/f SHELL=/bin/sh timeout 60 "$PYTHON" "$T/shell.py" "$R" --at "$P=$URL" --shell >"$T/out" 2>&1
t_check shell "[ $? -eq 0 ]" "$(cat "$T/out")"

# The end of a session waits until everything is stored: objects are complete when kfsd is killed right then.
KRUN_OPTS=--commit=session krun sh -c 'for i in 1 2 3 4 5 6 7 8; do head -c 2000000 /dev/urandom >"$1/s$i"; done; cat "$1"/s? | sha256sum >"$2"' sh "$P" "$T/sum"
kfsd_stop KILL
rm -rf "$T/cache/"*/w
krun sh -c 'cat "$1"/s? | sha256sum' sh "$P" >"$T/sum2"
t_check session-end-stores "cmp -s '$T/sum' '$T/sum2'"

# Nested runs: prefixes add up, the same prefix is replaced, nested ones are refused.
O=/kfs-other
URL2=sqlite:$T/two.db
krun "$R" --create --at "$O=$URL2" -- sh -c 'echo two >"$2/g"; cat "$1/f" "$2/g"' sh "$P" $O >"$T/out" 2>&1
t_check nested-adds "[ \"$(tr '\n' ' ' <"$T/out")\" = 'hi two ' ]" "$(cat "$T/out")"
krun "$R" --at "$P=$URL2" -- cat "$P/g" >"$T/out" 2>&1
t_check nested-replaces "grep -qx two '$T/out'" "$(cat "$T/out")"
krun "$R" --at "$P/in=$URL2" -- true >"$T/out" 2>&1
t_check nested-prefix-refused "[ $? -eq 2 ] && grep -q nested '$T/out'" "$(cat "$T/out")"
krun "$R" --at "$O=$URL" -- true >"$T/out" 2>&1
t_check volume-twice-refused "[ $? -eq 2 ] && grep -q 'in one place' '$T/out'" "$(cat "$T/out")"
krun "$R" -- cat "$P/f" >"$T/out" 2>&1
t_check nested-without-at "grep -qx hi '$T/out'" "$(cat "$T/out")"
kfsd_stop TERM "$T/two.db"

# kfs under kfs-run finds the volume by the path.
krun "$KFS_BIN/kfs" info --json "$P/f" >"$T/out" 2>&1
t_check kfs-info-by-prefix "grep -q '\"inode\"' '$T/out'" "$(cat "$T/out")"
krun sh -c 'cd "$1" && "$2" explain f' sh "$P" "$KFS_BIN/kfs" >"$T/out" 2>&1
t_check kfs-explain-relative "grep -q 'tier' '$T/out'" "$(cat "$T/out")"
krun "$KFS_BIN/kfs" info /etc/passwd >"$T/out" 2>&1
t_check kfs-info-outside "[ $? -eq 2 ] && grep -q 'in no volume' '$T/out'" "$(cat "$T/out")"
for c in status stats flush config 'cache evict'; do
    # shellcheck disable=SC2086
    "$KFS_BIN/kfs" $c --json --volume "$URL" | "$PYTHON" -m json.tool >"$T/out" 2>&1
    t_check "kfs-json-${c// /-}" "[ $? -eq 0 ]" "$(cat "$T/out")"
done

# Every commit that changed content, and what it stored, is counted; one that changed nothing is not.
counted() { "$KFS_BIN/kfs" stats --json --volume "$URL" | sed -n 's/.*"'"$1"'":\([0-9]*\).*/\1/p'; }
commits=$(counted commits) stored=$(counted stored_bytes)
krun sh -c 'head -c 3000 /dev/zero >"$1/small"; head -c 100000 /dev/urandom >"$1/large"; cp -p "$1/large" "$1/same"; : >>"$1/large"' sh "$P"
t_check kfs-stats-commits "[ $(($(counted commits) - commits)) -eq 3 ]" "$(counted commits) commits after $commits"
t_check kfs-stats-stored-bytes "[ $(($(counted stored_bytes) - stored)) -ge 203000 ]" "$(counted stored_bytes) bytes after $stored"
kfs_done
