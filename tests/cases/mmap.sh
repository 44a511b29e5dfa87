#!/usr/bin/env bash
# tests/cases/mmap.sh — field cases: files through maps
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Weights and arrays are mapped, not read. Right: every kind of map works on every size, bytes are those of pread, length 0 is EINVAL.
both_py O06-kinds-of-maps <<'E'
import mmap, os, ctypes, errno
libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
for size in (1, 4096, 4 * 2**20 + 1):
    data = os.urandom(size) ; open('f', 'wb').write(data)
    for mode, prot in ((os.O_RDONLY, mmap.PROT_READ), (os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE)):
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            for off in (0, 65536):
                if off >= size: continue
                for length in {size - off, min(size - off, 5001)}:
                    fd = os.open('f', mode); m = mmap.mmap(fd, length, flags, prot, offset=off); os.close(fd)
                    print(size, mode, flags, off, length == size - off, m[:] == data[off:off + length])
                    if prot & mmap.PROT_WRITE:
                        m[length - 1] = data[off + length - 1] ^ 255
                        seen = os.pread(os.open('f', os.O_RDONLY), 1, off + length - 1)[0] == data[off + length - 1] ^ 255
                        print('written', seen); m[length - 1] = data[off + length - 1]
                    m.close()
    print(open('f', 'rb').read() == data)
fd = os.open('f', os.O_RDONLY); r = libc.mmap(None, 0, 1, 1, fd, 0); print(r == ctypes.c_void_p(-1).value, errno.errorcode[ctypes.get_errno()])
r = libc.mmap(None, 4096, 3, 1, fd, 0); print(r == ctypes.c_void_p(-1).value, errno.errorcode[ctypes.get_errno()])
os.truncate('big', 3 * 2**30) if os.path.exists('big') else os.truncate(os.open('big', os.O_CREAT | os.O_RDWR), 3 * 2**30)
m = mmap.mmap(os.open('big', os.O_RDWR), 3 * 2**30); m[2**31 + 5] = 7; m.flush(); print(len(m), m[0], m[2**31 + 5], m[-1]); m.close()
print(os.pread(os.open('big', os.O_RDONLY), 3, 2**31 + 4)); os.remove('big'); open('f', 'w').write('end')
E

# Many programs size a new file, map it and write its last byte. Right: the size is there at once on every descriptor, the byte at once for read.
both_py O08-size-then-map <<'E'
import mmap, os
fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); two = os.open('f', os.O_RDONLY)
os.ftruncate(fd, 10000); print(os.fstat(fd).st_size, os.fstat(two).st_size, os.stat('f').st_size)
m = mmap.mmap(fd, 10000); m[9999] = 65; print(os.pread(two, 5, 9998)); m.flush(); print(os.pread(two, 5, 9998), open('f', 'rb').read()[-2:])
os.close(fd); print(os.stat('f').st_size); m[0] = 66; m.flush(); print(open('f', 'rb').read(1)); m.close(); os.close(two); print(open('f', 'rb').read(1), os.stat('f').st_size)
f = open('g', 'w+b'); f.truncate(10000); print(os.fstat(f.fileno()).st_size); m = mmap.mmap(f.fileno(), 0); m[:] = b'z' * 10000; f.close(); m.close(); print(open('g', 'rb').read() == b'z' * 10000)
E

# Four processes map one file at once, with nothing cached, round after round. Right: always all bytes.
if [ -z "$KFS_PLAIN" ] && t_wanted O10-cold-maps; then
    cat >"$T/cold.py" <<'E'
import mmap, os, sys, hashlib, subprocess
path, kfs, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = os.urandom(2**20) * 48 + b'tail'
with open(path, 'wb') as f: f.write(data)
want = hashlib.md5(data).hexdigest(); q = len(data) // 4; quarters = [data[i * q:(i + 1) * q] for i in range(4)]
bad = 0
for n in range(rounds):
    subprocess.run([kfs, 'cache', 'evict'], check=True, stdout=subprocess.DEVNULL)
    for i in range(4):
        if os.fork() == 0:
            m = mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ)
            os._exit(0 if m[i * q:(i + 1) * q] == quarters[i] and hashlib.md5(m).hexdigest() == want else 1)
    bad += sum(os.wait()[1] != 0 for i in range(4))
print('bad', bad)
E
    out=$(krun "$PY" "$T/cold.py" "$P/cold" "$KFS_BIN/kfs" 8 2>&1)
    t_check O10-cold-maps '[ "$out" = "bad 0" ]' "$out"
fi

# A key-value store maps far more than it holds and locks records of its lock file. Right: it opens, and the room costs nothing.
both_py O11-huge-sparse-map <<'E'
import mmap, os, fcntl, struct
fd = os.open('data.mdb', os.O_RDWR | os.O_CREAT, 0o644); os.ftruncate(fd, 2**40)
m = mmap.mmap(fd, 2**40); m[0:4] = b'meta'; m[2**39:2**39 + 4] = b'page'; m.flush(); print(os.fstat(fd).st_size, os.stat('data.mdb').st_blocks < 200)
lk = os.open('lock.mdb', os.O_RDWR | os.O_CREAT, 0o644); os.ftruncate(lk, 8192); s = mmap.mmap(lk, 8192); fcntl.lockf(lk, fcntl.LOCK_EX, 1, 0)
r, w = os.pipe()
for i in range(8):
    if os.fork() == 0:
        f = os.open('data.mdb', os.O_RDONLY); v = mmap.mmap(f, 2**40, prot=mmap.PROT_READ); l = os.open('lock.mdb', os.O_RDWR)
        fcntl.lockf(l, fcntl.LOCK_EX, 1, 8 + i); t = mmap.mmap(l, 8192); t[64 * i:64 * i + 4] = struct.pack('i', i)
        os.write(w, b'+' if v[0:4] + v[2**39:2**39 + 4] == b'metapage' else b'-'); os._exit(0)
print([os.wait()[1] for i in range(8)], os.read(r, 20), [struct.unpack('i', s[64 * i:64 * i + 4])[0] for i in range(8)])
m.close(); os.ftruncate(fd, 8192); os.close(fd); print(os.stat('data.mdb').st_size, open('data.mdb', 'rb').read(4)); s.close()
E
if "$PY" -c 'import lmdb' 2>/dev/null; then
    both_py -x lock.mdb O11-lmdb <<'E'
import lmdb, os
e = lmdb.open('db', map_size=2**40)
with e.begin(write=True) as t:
    for i in range(20000): t.put(b'%08d' % i, b'v' * 100)
e.close()
for i in range(16):
    if os.fork() == 0:
        with lmdb.open('db', readonly=True, lock=True, map_size=2**40).begin() as t: os._exit(t.stat()['entries'] != 20000)
print([os.wait()[1] for i in range(16)]); os.remove('db/data.mdb')
E
else
    t_skip O11-lmdb "lmdb is not installed"
fi
kfs_recheck
kfs_done
