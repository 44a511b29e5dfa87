#!/usr/bin/env bash
# tests/apps/sockets.sh — programs that meet at a socket or a FIFO in a volume
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

both -x tmp python-manager 'mkdir tmp; TMPDIR=$PWD/tmp $PY - <<EOF
import multiprocessing as m, os, socket
m.set_start_method("forkserver")
def work(d, i): d[i] = i * i
if __name__ == "__main__":
    with m.Manager() as manager:
        d = manager.dict()
        for i in range(4): work(d, i)
        print(sorted(d.items()), manager.address.startswith(os.environ["TMPDIR"]))
    from multiprocessing.connection import Listener, Client
    with Listener(os.environ["TMPDIR"] + "/s", "AF_UNIX") as l, Client(l.address) as c, l.accept() as a:
        c.send([1, 2]); print(a.recv(), l.address == os.environ["TMPDIR"] + "/s")
    print(os.path.exists(os.environ["TMPDIR"] + "/s"))
EOF'

# They go on over a new kfsd, and leave nothing behind once they are removed.
if [ -z "$KFS_PLAIN" ] && t_wanted over-a-new-kfsd; then
    cat >"$T/serve.py" <<'EOF'
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1]); s.listen()
os.mkfifo(sys.argv[2])
print('ready', flush=True)
for _ in range(2):
    c, _ = s.accept()
    c.sendall(b'socket\n')
    c.close()
    print(open(sys.argv[2]).read(), end='', flush=True)
os.unlink(sys.argv[1]); os.unlink(sys.argv[2])
EOF
    cat >"$T/ask.py" <<'EOF'
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print(s.recv(100), os.path.basename(s.getpeername()))
open(sys.argv[2], 'w').write('fifo\n')
EOF
    mkfifo "$T/served"
    krun $PY "$T/serve.py" "$P/s" "$P/p" >"$T/served" 2>&1 &
    exec 8<"$T/served"
    read -r line <&8
    t_check over-a-new-kfsd/ready '[ "$line" = ready ]' "$line"
    for life in first second; do
        krun $PY "$T/ask.py" "$P/s" "$P/p" >"$T/ask" 2>&1
        read -r line <&8
        t_check over-a-new-kfsd/$life '[ "$(cat "$T/ask")" = "b'"'socket\\\\n'"' s" ] && [ "$line" = fifo ]' "$(tail -n 1 "$T/ask") $line"
        [ $life = second ] || kfsd_stop KILL
    done
    wait
    exec 8<&-
    left=$(find "$T"/cache/*/n -mindepth 1 2>/dev/null)
    t_check over-a-new-kfsd/nothing-left '[ -z "$left" ] && [ -n "$(ls -d "$T"/cache/*/n)" ]' "$left"
fi
kfs_done
