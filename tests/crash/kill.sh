#!/usr/bin/env bash
# tests/crash/kill.sh — kfsd is killed again and again under a working program: no error, nothing lost, nothing doubled
. "$(dirname "$0")/../lib/lib.sh"
KFS_TEST_LINGER=3 kfs_volume

# under_fire NAME KILLS APPS: APPS programs work while kfsd is killed KILLS times
under_fire() {
    local name=$1 kills=$2 apps=$3 done=0 pid a pids=() bad= n
    t_wanted "$name" || return 0
    rm -f "$T/stop"
    for ((a = 0; a < apps; a++)); do
        KRUN_LIMIT=200 krun "$KFS_PROBES/crashapp" run "$P/$name-$a" "$T/stop" 0 >"$T/$name-$a.out" 2>&1 &
        pids+=($!)
    done
    while [ $done -lt "$kills" ] && kill -0 "${pids[0]}" 2>/dev/null; do
        sleep "0.$((200 + RANDOM % 700))"
        [ -z "$KFS_PLAIN" ] || { done=$((done + 1)); continue; }
        pid=$(kfsd_pid)
        [ -n "$pid" ] && kill -KILL "$pid" && kfsd_wait_gone "$pid" && done=$((done + 1))
    done
    : >"$T/stop"
    for ((a = 0; a < apps; a++)); do
        wait "${pids[$a]}" || bad="$bad program $a ended with $?: $(tail -n 1 "$T/$name-$a.out")"
    done
    if [ -n "$bad" ]; then
        t_fail "$name" "after $done kills:$bad"
        return
    fi
    t_pass "$name"
    echo "    $done kills, $(cat "$T/$name"-*.out | tr '\n' ' ')"
    for how in then after-another-kill with-an-empty-cache; do
        case $how in
        after-another-kill) kfsd_stop KILL ;;
        with-an-empty-cache) kfsd_stop TERM; rm -rf "$T/cache" ;;
        esac
        for ((a = 0; a < apps; a++)); do
            n=$(sed -n 's/^rounds //p' "$T/$name-$a.out")
            krun "$KFS_PROBES/crashapp" check "$P/$name-$a" "$n" >"$T/check" 2>&1 || bad="$bad $(tail -n 1 "$T/check")"
        done
        t_check "$name-exact-$how" "[ -z '${bad//\'/}' ]" "$bad"
    done
}
under_fire one-program 12 1
under_fire three-programs 8 3

# Killed while nobody looks: a program with a file open, a mapping, a working directory, then everything goes on.
cat >"$T/hold.py" <<'E'
import mmap, os, sys
P = sys.argv[1]
os.mkdir(P + '/hold'); os.chdir(P + '/hold')
f = open('w', 'w+b', buffering=0); f.write(b'before '); r = open('r', 'wb'); r.write(b'x' * 5000); r.close(); r = open('r', 'rb', buffering=0)
m = open('m', 'w+b'); m.truncate(10000); mm = mmap.mmap(m.fileno(), 10000); mm[0:5] = b'12345'
d = os.open('.', os.O_RDONLY); g = open('gone', 'w+b', buffering=0); g.write(b'orphan'); os.unlink('gone')
def turn():
    print('ready', flush=True); sys.stdin.readline()
turn()
f.write(b'after '); print(len(r.read())); mm[9990:9995] = b'67890'; print(os.listdir('.') == os.listdir(d)); os.mkdir('sub', dir_fd=d); open('new', 'w').write('new'); g.seek(0); print(g.read())
turn()
f.write(b'and later'); os.rename('w', 'w2'); g.write(b'!'); g.seek(0); print(g.read()); print(os.stat('m').st_size, os.getcwd()[-5:], os.path.exists('gone'))
f.close(); mm.close(); m.close(); os.close(d)
print(open('w2').read(), open('m', 'rb').read()[9990:9995])
E
if t_wanted held-over-kills; then
    mkfifo "$T/in" "$T/out"
    krun $PY "$T/hold.py" "$P" <"$T/in" >"$T/out" 2>"$T/hold.err" &
    pid=$!
    exec 8>"$T/in" 9<"$T/out"
    {
        for turn in 1 2; do
            while read -r l <&9 && [ "$l" != ready ]; do echo "$l"; done
            [ -n "$KFS_PLAIN" ] || kfsd_stop KILL
            echo >&8
        done
        cat <&9
    } >"$T/hold.out"
    exec 8>&- 9<&-
    wait $pid; rc=$?
    printf '%s\n' 5000 True "b'orphan'" "b'orphan!'" '10000 /hold False' "before after and later b'67890'" >"$T/want"
    if [ $rc = 0 ] && cmp -s "$T/want" "$T/hold.out"; then t_pass held-over-kills; else
        t_fail held-over-kills "ended with $rc"
        { diff "$T/want" "$T/hold.out"; tail -n 3 "$T/hold.err"; } | t_note 20
    fi
fi

# Writers that never close.
if t_wanted writer-killed; then
    krun bash -c 'exec 3>"$P/killed"; printf "all of it" >&3; kill -KILL $$' 2>/dev/null
    t_check writer-killed "[ \"\$(krun cat $P/killed)\" = 'all of it' ]" "holds '$(krun cat "$P/killed" 2>&1)'"
    krun bash -c 'exec 3>"$P/killed2"; printf "all of it" >&3; kill -KILL "$1" $$' - "$(kfsd_pid)" 2>/dev/null
    [ -n "$KFS_PLAIN" ] || t_check writer-killed-together-with-kfsd "[ \"\$(krun cat $P/killed2)\" = 'all of it' ]" "holds '$(krun cat "$P/killed2" 2>&1)'"
fi
# An idle kfsd ends by itself; what it leaves is whole.
if [ -z "$KFS_PLAIN" ] && t_wanted linger; then
    krun true
    pid=$(kfsd_pid)
    for ((i = 0; i < 1500; i++)); do kfsd_alive "${pid:-1}" || break; sleep 0.02; done
    t_check private-kfsd-ends-after-its-linger-time "[ -n '$pid' ] && ! kfsd_alive '$pid'"
fi
kfs_recheck
kfs_done
