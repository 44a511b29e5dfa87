#!/usr/bin/env bash
# tests/cases/append.sh — field cases: appending, and readers beside a writer
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Log writers append in every way. Right: all of them append, old bytes stay, the size is right at once.
both_py O20-ways-to-append <<'E'
import os, subprocess
def sh(c): subprocess.run(['bash', '-c', c], check=True)
for size in (0, 4095, 4 * 2**20 - 1, 16 * 2**20 - 1):
    old = bytes(range(256)) * (size // 256 + 1); old = old[:size]; open('f', 'wb').write(old); want = old
    def grown(name, more):
        global want; want += more; print(size, name, os.stat('f').st_size == len(want), open('f', 'rb').read() == want)
    for i in range(10): sh('echo >>f')
    grown('shell', b'\n' * 10)
    with open('f', 'a') as f: f.write('a'); f.flush(); print(os.fstat(f.fileno()).st_size - len(want), f.tell() - len(want))
    grown('a', b'a')
    with open('f', 'a+b') as f: f.seek(0); print(f.read(2) == want[:2]); f.write(b'p')
    grown('a+', b'p')
    with open('f', 'r+b') as f: f.seek(0, 2); print(f.tell() - len(want)); f.write(b'r')
    grown('r+', b'r'); sh('echo -n tee | tee -a f >/dev/null'); grown('tee', b'tee'); sh('echo -n dd | dd of=f oflag=append conv=notrunc status=none'); grown('dd', b'dd')
    fd = os.open('f', os.O_WRONLY | os.O_APPEND | os.O_SYNC); os.write(fd, b's' * 5000); os.lseek(fd, 0, 0); os.write(fd, b't'); os.close(fd); grown('sync', b's' * 5000 + b't')
    a, b = (os.open('f', os.O_WRONLY | os.O_APPEND) for i in range(2)); os.write(a, b'1'); os.write(b, b'2'); os.write(a, b'3'); os.close(a); os.write(b, b'4'); os.close(b); grown('two', b'1234')
    ps = [subprocess.Popen(['bash', '-c', f'for i in 1 2 3 4 5; do echo {k} >>f; done']) for k in range(4)]; [p.wait() for p in ps]
    tail = open('f', 'rb').read()[len(want):]; print(sorted(tail) == sorted(b''.join(b'%d\n' % k * 5 for k in range(4)))); want += tail
    try: os.pwrite(os.open('f', os.O_WRONLY), b'x', 0); print(open('f', 'rb').read(1))
    except OSError as e: print(e)
os.truncate('f', 5)
E

# A viewer follows an event file that is being written. Right: a record is there when write has returned, and only whole ones.
both_py O21-followed-event-file <<'E'
import os, struct, subprocess, sys
viewer = '''import os, struct, sys
f, n = open('ev', 'rb'), 0
for line in sys.stdin:
    assert os.stat('ev').st_size == os.fstat(f.fileno()).st_size == 124 * (n + 1), (n, os.stat('ev').st_size)
    k, = struct.unpack('I', f.read(4)); body = f.read(120); assert k == n and body == bytes([n % 251]) * 120; n += 1
    again = open('ev', 'rb'); again.seek(-1, 2); assert again.read(1) == bytes([(n - 1) % 251]); print('seen', flush=True)
print(n, flush=True)'''
w = open('ev', 'ab', buffering=0); p = subprocess.Popen([sys.executable, '-c', viewer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for n in range(300):
    w.write(struct.pack('I', n) + bytes([n % 251]) * 120); p.stdin.write('\n'); p.stdin.flush()
    if p.stdout.readline() != 'seen\n': print('bad at', n); break
    if n % 100 == 99: w.close(); w = open('ev', 'ab', buffering=0)
p.stdin.close(); print(p.stdout.read(), p.wait())
E

# A sync tool replaces the event file that a viewer holds. Right: the descriptor keeps the old file, the path shows another inode and size.
both_py O22-replaced-while-held <<'E'
import os
open('ev', 'w').write('old'); f = open('ev'); open('ev.new', 'w').write('newer'); os.rename('ev.new', 'ev'); open('ev', 'a').write('!')
a, b = os.fstat(f.fileno()), os.stat('ev'); print(a.st_ino != b.st_ino, a.st_dev == b.st_dev, a.st_size, b.st_size, a.st_nlink, b.st_nlink, f.read(), open('ev').read())
E

# A marker at the end of a file is read back by others. Right: it is there whatever the size, in this program, in others, and from an empty cache.
both_py O25-mark-at-the-end <<'E'
import os, subprocess, sys
sizes = [4095, 4096, 4097] + [m * 2**20 + d for m in (1, 4, 16) for d in (-1, 0, 1)]
held = {}
for s in sizes:
    open(f'f{s}', 'wb').write(b'small'); held[s] = open(f'f{s}', 'rb')
    with open(f'f{s}', 'wb', buffering=0) as f:
        left = s - 4
        while left > 0: n = min(left, 999983); f.write(b'\xa5' * n); left -= n
        f.write(b'PAR1')
for s in sizes:
    f = open(f'f{s}', 'rb'); f.seek(-8, 2); h = held[s]; h.seek(0, 2); end = h.tell(); h.seek(-8, 2); print(s, f.read(), end == s, h.read(), f.read(1))
    print(subprocess.run(['tail', '-c', '8', f'f{s}'], capture_output=True).stdout, os.stat(f'f{s}').st_size == s)
E

# Close-to-open between two programs. Right: size and tail are those of the last close, every time.
both_py O23-close-to-open <<'E'
import os, random, subprocess, sys
random.seed(5)
p = subprocess.Popen([sys.executable, '-c', '''import os, sys, zlib
for l in sys.stdin:
    n = os.stat('f').st_size; d = open('f', 'rb').read(); print(n, len(d), zlib.crc32(d[-4096:]), flush=True)'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
import zlib
for i in range(150):
    d = random.randbytes(random.randrange(100000)); open('f', 'wb').write(d); more = random.randbytes(32768)
    with open('f', 'ab') as f: f.write(more)
    d += more; p.stdin.write('\n'); p.stdin.flush(); r = p.stdout.readline().split()
    if r != [str(len(d)), str(len(d)), str(zlib.crc32(d[-4096:]))]: print('stale', i, r, len(d))
p.stdin.close(); p.wait(); print('done')
E

# Readers of open, idle and old files while many small ones are written. Right: no descriptor goes bad.
both_py O61-idle-descriptors <<'E'
import os, threading
n = 600
for i in range(n): open(f'r{i}', 'w').write(f'idle {i}')
fds = [os.open(f'r{i}', os.O_RDONLY) for i in range(n)]
def small(k):
    for i in range(300): open(f's{k}.{i}', 'w').write('x' * 5000)
ts = [threading.Thread(target=small, args=(k,)) for k in range(4)]; [t.start() for t in ts]
bad = sum(os.pread(fds[i % n], 100, 0) != f'idle {i % n}'.encode() for i in range(3000)); [t.join() for t in ts]
bad += sum(os.pread(fds[i], 100, 0) != f'idle {i}'.encode() or os.fstat(fds[i]).st_size != len(f'idle {i}') for i in range(n)); print(bad, len(os.listdir('.')))
for f in os.listdir('.'): os.remove(f)
E
kfs_recheck
kfs_done
