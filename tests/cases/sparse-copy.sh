#!/usr/bin/env bash
# tests/cases/sparse-copy.sh — field cases: holes, copies inside the volume, direct I/O, what df and du say
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Files with islands of data are copied in, inside and out. Right: same bytes, holes cost no room, questions for holes are answered as on a local disk.
both_py O32-islands <<'E'
import os, errno, subprocess
H = os.environ['H']; G = 2**27
def make(p):
    with open(p, 'wb') as f:
        f.truncate(G)
        for off in (0, 2**25 + 5000, G - 70000): f.seek(off); f.write(bytes([off % 251 + 1]) * 70000)
def same(p): return os.stat(p).st_size == G and all(os.pread(os.open(p, os.O_RDONLY), 70002, off - 1 if off else 0).strip(b'\0') == bytes([off % 251 + 1]) * 70000 for off in (0, 2**25 + 5000, G - 70000))
def small(p): return os.stat(p).st_blocks * 512 < 2**20
make(H + '/h'); make('v')
for c in ('cp H/h a', 'cp --sparse=always H/h b', 'cp v c', 'cp --sparse=always v d', 'cp v H/e', 'cp --sparse=always v H/f', 'cp --reflink=auto v g'):
    subprocess.run(c.replace('H/', H + '/').split(), check=True); p = c.split()[-1].replace('H/', H + '/'); print(c, same(p), small(p))
fd = os.open('v', os.O_RDWR)
def seek(o, w):
    try: return os.lseek(fd, o, w)
    except OSError as e: return errno.errorcode[e.errno]
for o in (0, 100000, 2**25, 2**25 + 5000, 2**26, G - 1, G, G + 1): print(o, seek(o, os.SEEK_DATA), seek(o, os.SEEK_HOLE))
os.close(fd); fd = os.open('hole', os.O_CREAT | os.O_RDWR); os.truncate('hole', G); print(seek(0, os.SEEK_DATA), seek(0, os.SEEK_HOLE), seek(5, os.SEEK_HOLE)); os.close(fd); fd = os.open('hole', os.O_RDONLY); print(seek(0, os.SEEK_DATA), os.stat('hole').st_blocks)
os.close(fd); os.remove('hole'); os.remove('v'); subprocess.run('rm -f a b c d g H/h H/e H/f'.replace('H/', H + '/').split())
E
if [ -z "$KFS_PLAIN" ] && t_wanted O32-holes-cost-nothing; then
    krun true
    k=$(du -sk "$T/vol.db.objects" | cut -f1)
    krun "$PY" -c 'import os, sys
os.chdir(sys.argv[1]); f = open("big", "wb"); f.truncate(2**33); f.seek(2**32); f.write(b"data"); f.close(); os.system("cp big big2")
print(os.stat("big2").st_size, os.stat("big2").st_blocks < 100); os.remove("big"); os.remove("big2")' "$P" >"$T/o" 2>&1
    k=$(($(du -sk "$T/vol.db.objects" | cut -f1) - k))
    t_check O32-holes-cost-nothing 'grep -q "^8589934592 True$" "$T/o" && [ "$k" -lt 4096 ]' "$(cat "$T/o"), $k KiB used"
fi

# A file of more than 4 GiB is copied by ranges. Right: every mark is where it belongs, also past 4 GiB.
both_py O33-past-four-gib <<'E'
import os
M = 2**20; src = os.open('s', os.O_CREAT | os.O_RDWR); os.ftruncate(src, 6 * 2**30); marks = [m * 512 * M + d for m in range(1, 12) for d in (-1, 0, 1)]
for k in marks: os.pwrite(src, bytes([k % 250 + 1]), k)
os.close(src); src = os.open('s', os.O_RDONLY); dst = os.open('d', os.O_CREAT | os.O_RDWR)
# data ranges are copied, holes skipped, as cp does
pos = 0
while True:
    try: a = os.lseek(src, pos, os.SEEK_DATA)
    except OSError: break
    b = os.lseek(src, a, os.SEEK_HOLE); n = a
    while n < b: n += os.copy_file_range(src, dst, b - n, n, n)
    pos = b
os.ftruncate(dst, 6 * 2**30); print([os.pread(dst, 1, k) == bytes([k % 250 + 1]) for k in marks].count(False), os.stat('d').st_size)
n = os.copy_file_range(src, dst, 8 * M, 4 * 2**30 - 1, 3 * M - 1); print(n, os.pread(dst, 4, 3 * M - 2)[1:] == os.pread(src, 3, 4 * 2**30 - 1))
os.close(dst); os.close(src); print(open('d', 'rb').seek(0, 2)); f = open('d', 'rb'); f.seek(marks[-1]); print(f.read(1) == bytes([marks[-1] % 250 + 1])); os.remove('s'); os.remove('d')
E
# Clone requests. Right: done, or always the same refusal, so that tools fall back; never an odd number.
both_py O34-clone-requests <<'E'
import fcntl, os, errno, struct, threading, subprocess
FICLONE, FICLONERANGE = 0x40049409, 0x4020940d
open('s', 'wb').write(b'x' * 100000); got = set()
def go(k):
    for i in range(50):
        a, b = os.open('s', os.O_RDONLY), os.open(f'd{k}', os.O_CREAT | os.O_WRONLY)
        for f in (lambda: fcntl.ioctl(b, FICLONE, a), lambda: fcntl.ioctl(b, FICLONERANGE, struct.pack('qQQQ', a, 0, 4096, 0))):
            try: f(); got.add('done')
            except OSError as e: got.add(errno.errorcode[e.errno])
        os.close(a); os.close(b)
ts = [threading.Thread(target=go, args=(k,)) for k in range(8)]; [t.start() for t in ts]; [t.join() for t in ts]; print(len(got), got <= {'done', 'ENOTSUP'})
print(subprocess.run(['cp', '--reflink=auto', 's', 'c']).returncode, os.stat('c').st_size); [os.remove(f'd{k}') for k in range(8)]
E

# Programs that bypass the page cache. Right: the open works, buffered and direct views agree, an unaligned call is refused whole or done whole.
both_py O64-direct <<'E'
import os, mmap, errno
buf = mmap.mmap(-1, 65536); buf[:] = b'd' * 65536
fd = os.open('f', os.O_CREAT | os.O_RDWR | os.O_DIRECT); print(os.pwritev(fd, [buf], 0), os.fstat(fd).st_size); b = os.open('f', os.O_RDWR); print(os.pread(b, 3, 65533)); os.pwrite(b, b'B' * 4096, 4096)
print(os.preadv(fd, [buf], 0), buf[4095:4098], buf[8191:8193]); print(open('f', 'rb').read() == buf[:])
def t(f, *a):
    try: print(f(*a))
    except OSError as e: print(errno.errorcode[e.errno])
t(os.preadv, fd, [memoryview(buf)[:100]], 0); t(os.preadv, fd, [memoryview(buf)[:4096]], 7); t(os.preadv, fd, [memoryview(buf)[1:4097]], 0); t(os.pwritev, fd, [memoryview(buf)[:100]], 0); t(os.pwritev, fd, [memoryview(buf)[:4096]], 100); print(os.preadv(fd, [buf], 65536), os.preadv(fd, [memoryview(buf)[:8192]], 61440))
os.fsync(fd); os.close(fd); os.close(b); fd = os.open('f', os.O_RDONLY | os.O_DIRECT); print(os.preadv(fd, [memoryview(buf)[:4096]], 4096), buf[0:2], os.stat('f').st_size); os.close(fd)
fd = os.open('g', os.O_CREAT | os.O_WRONLY | os.O_DIRECT | os.O_APPEND | os.O_DSYNC); print(os.writev(fd, [buf]), os.writev(fd, [memoryview(buf)[:4096]])); os.close(fd); print(os.stat('g').st_size)
E

# Counters of what is stored. Right: df's count of inodes and the walk over them agree, and du's room and the bytes written,
# also after overwriting, truncating, removing while open, killing kfsd. (df's bytes are those of the disk that the objects lie on.)
if [ -z "$KFS_PLAIN" ] && t_wanted O62; then
    cat >"$T/df.py" <<'E'
import os, sys, time
os.chdir(sys.argv[1])
def used(): s = os.statvfs('.'); return s.f_files - s.f_ffree
def say(what, data):
    for i in range(200):
        inodes = {os.lstat(os.path.join(t, n)).st_ino: os.lstat(os.path.join(t, n)).st_blocks * 512 for t, d, f in os.walk('.') for n in d + f}
        room = sum(inodes.values())
        if used() == 1 + len(inodes) and data <= room <= data + 8192 * len(inodes) + 2**20: return
        time.sleep(0.025)
    print(what, 'inodes', used(), 1 + len(inodes), 'bytes', room, data)
rest = sum(i * 300 for i in range(100, 200))
if len(sys.argv) > 2: say('after a kill', rest); sys.exit()
os.mkdir('d')
for i in range(200): open(f'd/{i}', 'wb').write(os.urandom(i * 300))
open('big', 'wb').write(os.urandom(2**23)); say('made', 2**23 + 5970000)
for i in range(50): open(f'd/{i}', 'ab').write(os.urandom(10000))
open('big', 'wb').write(os.urandom(2**22)); say('rewritten', 2**22 + 5970000 + 500000); os.truncate('big', 2**21); f = open('big', 'r+b'); f.seek(2**25); f.write(b'x'); f.close(); say('holes', 2**21 + 5970000 + 500000)
h = open('big', 'rb'); os.unlink('big'); h.close()
for i in range(100): os.unlink(f'd/{i}')
os.link('d/150', 'd/l'); say('removed', rest)
E
    whole=$URL URL=sqlite:$T/df.db
    krun "$PY" "$T/df.py" "$P" >"$T/o" 2>&1
    kfsd_stop KILL "$T/df.db"
    krun "$PY" "$T/df.py" "$P" again >>"$T/o" 2>&1
    URL=$whole
    t_check O62-counts-of-inodes-and-room '[ ! -s "$T/o" ]' "$(head -n 3 "$T/o")"
fi
kfs_recheck
kfs_done
