#!/usr/bin/env bash
# tests/cases/ml.sh — field cases: training jobs of many processes
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Ranks rotate old checkpoints at the same time. Right: what is gone already is all that they find.
both_py O51-rotated-checkpoints <<'E'
import os, shutil, errno
for c in range(12):
    os.makedirs(f'ck-{c:02}/opt')
    for i in range(12): open(f'ck-{c:02}/{"opt/" if i % 2 else ""}{i}.pt', 'wb').write(bytes([i]) * 500)
r, w = os.pipe()
for rank in range(12):
    if os.fork() == 0:
        odd = set()
        for round in range(3):
            for d in sorted(n for n in os.listdir('.') if n.startswith('ck-'))[:-2]:
                shutil.rmtree(d, onerror=lambda f, p, e: e[1].errno != errno.ENOENT and odd.add((f.__name__, errno.errorcode[e[1].errno], os.path.isdir(p) and len(os.listdir(p)))))
        os.write(w, (','.join(map(str, sorted(odd))) or '-').encode() + b' '); os._exit(0)
print([os.wait()[1] for i in range(12)], os.read(r, 65536), sorted(os.listdir('.')), len(os.listdir('ck-11/opt')))
E
# Ranks fill one cache of downloads with a lock a file. Right: each file is made once, no rank reads half of one.
both_py O51-shared-download-cache <<'E'
import os, fcntl, hashlib, random
os.mkdir('blobs'); os.mkdir('snap'); r, w = os.pipe(); want = {n: os.path.basename(n).encode() * 9000 for n in map(str, range(12))}
for rank in range(8):
    if os.fork() == 0:
        names = list(want); random.Random(rank).shuffle(names); made = 0
        for n in names:
            with open(f'blobs/{n}.lock', 'w') as l:
                fcntl.flock(l, fcntl.LOCK_EX)
                if not os.path.exists(f'blobs/{n}'):
                    with open(f'blobs/{n}.incomplete', 'ab') as f: f.write(want[n])
                    os.replace(f'blobs/{n}.incomplete', f'blobs/{n}'); os.symlink(f'../blobs/{n}', f'snap/{n}.t'); os.replace(f'snap/{n}.t', f'snap/{n}'); made += 1
            assert open(f'snap/{n}', 'rb').read() == want[n], n
        os.write(w, bytes([made])); os._exit(0)
print([os.wait()[1] for i in range(8)], sum(os.read(r, 8)), sorted(os.listdir('snap')), len(os.listdir('blobs')))
E
# Checkpoints are written aside and renamed while another program loads the newest. Right: it is always whole.
both_py O16-newest-checkpoint <<'E'
import os, hashlib, sys
if os.fork() == 0:
    for i in range(40):
        d = bytes([i]) * 300000; f = open('last.tmp', 'wb'); f.write(hashlib.md5(d).digest() + d); f.flush(); os.fsync(f.fileno()); f.close(); os.rename('last.tmp', 'last.pt')
    os._exit(0)
n = bad = 0; seen = -1
while seen < 39:
    try: d = open('last.pt', 'rb').read()
    except FileNotFoundError: continue
    bad += hashlib.md5(d[16:]).digest() != d[:16] or d[16] < seen; seen = d[16]; n += 1
print(bad, os.wait()[1], n > 3)
E
if "$PY" -c 'import numpy' 2>/dev/null; then
    both_py O06-numpy-maps <<'E'
import numpy as np, os
a = np.arange(300000, dtype='f4').reshape(300, 1000); np.save('a.npy', a); m = np.load('a.npy', mmap_mode='r'); print(m.sum(), m[299, 999]); w = np.load('a.npy', mmap_mode='r+'); w[0, 0] = 7; w.flush(); print(m[0, 0], np.load('a.npy')[0, 0]); c = np.load('a.npy', mmap_mode='c'); c[0, 0] = 9; print(m[0, 0])
n = np.memmap('n.dat', dtype='i8', mode='w+', shape=(50000,)); n[:] = np.arange(50000); del n; print(np.fromfile('n.dat', 'i8').sum(), os.path.getsize('n.dat')); np.savez('z.npz', a=a, b=a[0]); print(np.load('z.npz')['b'][-1]); os.remove('z.npz'); a.tofile('t'); print(np.fromfile('t', 'f4', offset=400)[0])
E
else
    t_skip O06-numpy-maps "numpy is not installed"
fi
kfs_recheck
kfs_done
