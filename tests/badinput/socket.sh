#!/usr/bin/env bash
# tests/badinput/socket.sh — garbage on kfsd's socket: it drops the connection, lives on, and serves the others
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip socket "a plain directory has none"; kfs_done; }
cat >"$T/garbage.py" <<'E'
import random, socket, struct, sys, array, os
path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
r = random.Random(seed)
MAGIC, REQ = 0x3157464b, 144
def req(op, path=b'', path2=b'', data=b'', **k):
    f = dict(magic=MAGIC, version=1, flags=0, c0=seed + 1, c1=7, seq=r.randrange(1, 1 << 20), ino=1, ino2=1, value=0, value2=0, size=0, at=0, mt=0, ans=0, mns=0, valid=0, oflags=0, mode=0o644, umask=0o22, uid=0, gid=0, pl=len(path), p2l=len(path2), dl=len(data), res=0)
    f.update(k)
    length = k.get('length', REQ + len(path) + len(path2) + len(data))
    return struct.pack('<IHHIIQQQQQQQQqqIIIIIIIIIIII', f['magic'], f['version'], op & 0xffff, length & 0xffffffff, f['flags'], f['c0'], f['c1'], f['seq'], f['ino'], f['ino2'], f['value'], f['value2'], f['size'], f['at'], f['mt'], f['ans'], f['mns'], f['valid'], f['oflags'], f['mode'], f['umask'], f['uid'], f['gid'], f['pl'], f['p2l'], f['dl'], f['res']) + path + path2 + data
assert len(req(1)) == REQ
BIG = [0, 1, 2, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff]
def conn(hello=True):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    s.connect(path)
    if hello:
        s.send(req(1))
        s.recvmsg(70000, 4096)
    return s
def names(): return r.choice([b'', b'g', b'g/x', b'nope', b'a' * 255, b'a' * 256, b'/' * 50, b'..', b'../..', b'\0', b'g\0h', b'.', bytes(r.randrange(256) for _ in range(r.randrange(40))), b'x/' * 2000])
answered = dropped = 0
s = conn()
for i in range(count):
    kind = r.randrange(8)
    if kind == 0: m = bytes(r.randrange(256) for _ in range(r.choice([0, 1, 3, 12, 100, 143, 144, 145, 500])))
    elif kind == 1: m = req(r.randrange(0, 40), names(), names(), os.urandom(r.choice([0, 5, 100])), length=r.choice(BIG))
    elif kind == 2: m = req(r.randrange(1, 22), names(), **{r.choice(['pl', 'p2l', 'dl']): r.choice(BIG)})
    elif kind == 3: m = req(r.randrange(1, 22), magic=r.choice(BIG), version=r.choice(BIG) & 0xffff)
    elif kind == 4:
        m = bytearray(req(r.randrange(1, 22), b'g/' + names(), names(), os.urandom(20)))
        for _ in range(r.randrange(1, 6)): m[r.randrange(len(m))] = r.randrange(256)
        m = bytes(m)
    elif kind == 5: m = req(r.randrange(1, 22), names())[:r.randrange(0, REQ)]
    elif kind == 6: m = req(r.randrange(1, 22), b'g/' + names(), b'g/' + names(), os.urandom(r.choice([0, 200])), ino=r.choice([0, 1, 2, 999999, (1 << 63) - 1, (1 << 64) - 1]), ino2=r.choice([0, 1, 1 << 40]), value=r.choice(BIG + [(1 << 64) - 1]), flags=r.choice([0, 1, 2, 4, 8, 0xffffffff]), oflags=r.choice([0, 0o102, 0o2000000, 0xffffffff]), size=r.choice([0, 1 << 62, (1 << 64) - 1]), valid=r.choice([0, 32, 255, 0xffffffff]), mns=r.choice(BIG), umask=r.choice(BIG), mode=r.choice(BIG))
    else: m = req(r.randrange(1, 22), b'g/n%d' % (i % 7))
    try:
        if kind == 0 and r.random() < .3: # descriptors that nobody asked for
            s.sendmsg([m or b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0, 1]))])
        else: s.send(m)
        if r.random() < .05: s.close(); s = conn(r.random() < .8); continue
        d, anc, fl, _ = s.recvmsg(70000, 4096)
        for a in anc:
            for fd in array.array('i', a[2]): os.close(fd)
        if d: answered += 1
        else: raise ConnectionResetError
    except (ConnectionError, BrokenPipeError, OSError):
        dropped += 1
        s.close()
        s = conn(r.random() < .8)
print(answered, dropped)
E
krun bash -c 'mkdir "$P/g" "$P/keep"; seq 50000 >"$P/keep/f"; echo x >"$P/g/n1"' || t_fail set-up
pid=$(kfsd_pid)
sock=$(sed -n 's/^socket //p' "$T/vol.db.lock")
t_check socket-is-private "[ \"\$(stat -c %a '$sock')\" = 600 ] || [ \"\$(stat -c %a '${sock%/*}')\" = 700 ]" "modes $(stat -c %a "$sock" "${sock%/*}" | tr '\n' ' ')"
for seed in 1 2 3; do
    # Somebody works at the same time.
    krun bash -c 'for i in {1..30}; do cmp "$P/keep/f" <(seq 50000) || exit 1; echo $i >"$P/keep/w" || exit 1; mv "$P/keep/w" "$P/keep/v"; done' >"$T/other.out" 2>&1 &
    other=$!
    timeout 100 $PY "$T/garbage.py" "$sock" $seed 1500 >"$T/garbage.out" 2>&1
    rc=$?
    wait $other; orc=$?
    t_check garbage-$seed-answered-or-dropped "[ $rc = 0 ]" "$(tail -n 1 "$T/garbage.out")"
    t_check garbage-$seed-others-are-served "[ $orc = 0 ]" "$(tail -n 2 "$T/other.out")"
    t_check garbage-$seed-same-kfsd "[ \"\$(kfsd_pid)\" = '$pid' ]" "kfsd $pid is gone"
    pid=$(kfsd_pid)
done
# Many connections that say nothing; one that sends half of what it announces.
timeout 60 $PY - "$sock" <<'E'
import socket, sys
l = []
for i in range(300):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    try: s.connect(sys.argv[1])
    except OSError: break
    l.append(s)
print(len(l))
E
t_check silent-connections-others-are-served "krun cmp $P/keep/f <(seq 50000)"
t_check same-content-after "[ \"\$(krun ls $P/keep | tr '\\n' ' ')\" = 'f v ' ]" "$(krun ls "$P/keep" | tr '\n' ' ')"
if t_have setpriv && t_root; then
    setpriv --reuid 65534 --regid 65534 --clear-groups $PY -c 'import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    s.connect(sys.argv[1]); s.send(b"x" * 144); print("got", len(s.recv(100)))
except OSError as e: print("refused", e)' "$sock" >"$T/o" 2>&1
    t_check another-user-is-refused "grep -qE 'refused|got 0' $T/o" "$(cat "$T/o")"
fi
kfs_recheck
kfs_done
