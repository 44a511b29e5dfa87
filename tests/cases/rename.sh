#!/usr/bin/env bash
# tests/cases/rename.sh — field cases: renaming and removing
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# A file is moved over another one of other size. Right: the name has the new size and content at once, for readers that hold the old one the old.
both_py O12-replace-any-size <<'E'
import os, hashlib, subprocess
sizes = (0, 10, 5 * 2**20, 9 * 2**20); pat = bytes(i * i % 251 for i in range(2**20)); body = [(pat[i:] + pat[:i]) * (s // 2**20) if s >= 2**20 else pat[:s] for i, s in enumerate(sizes)]
for i in range(4):
    for j in range(4):
        open('a', 'wb').write(body[i]); open('b', 'wb').write(body[j]); held = open('a', 'rb')
        ino = os.stat('b').st_ino
        if i == j: subprocess.run(['mv', '-f', 'b', 'a'])
        else: os.rename('b', 'a')
        print(i, j, os.stat('a').st_size, os.stat('a').st_ino == ino, open('a', 'rb').read() == body[j], held.read() == body[i], os.path.exists('b'))
        held.close()
        if (i, j) in ((1, 2), (2, 1), (3, 1)): os.rename('a', f'keep{i}{j}')
E

# A folder of thousands of files is renamed. Right: all children move with it, in one step.
both_py O13-big-folder <<'E'
import os
for i in range(10):
    for j in range(10):
        os.makedirs(f't/{i}/{j}')
        for k in range(5): open(f't/{i}/{j}/{k}', 'w').write(f'{i}{j}{k}')
for i in range(1100): open(f't/0/x{i}', 'w').close()
os.rename('t', 'u'); print(os.path.exists('t'), sum(len(f) for _, _, f in os.walk('u')), open('u/3/4/5').read())
os.mkdir('v'); os.rename('u', 'v'); print(len(os.listdir('v/0')), open('v/9/9/9').read())
os.mkdir('w'); open('w/x', 'w').close()
try: os.rename('v', 'w')
except OSError as e: print(e.errno)
try: os.rename('v', 'v/0/inside')
except OSError as e: print(e.errno)
print(sorted(os.listdir('.')))
E
# kfsd is killed in the middle of renames. Right: each has happened or not, no child is lost.
if [ -z "$KFS_PLAIN" ] && t_wanted O13-killed-between; then
    cat >"$T/kill.py" <<'E'
import os, sys
os.chdir(sys.argv[1]); os.makedirs('k0/d')
for i in range(100): open(f'k0/{i}', 'w').write(str(i))
print('ready', flush=True); sys.stdin.readline()
for i in range(300): os.rename(f'k{i}', f'k{i + 1}')
print(sorted(n for n in os.listdir('.') if n[0] == 'k'), len(os.listdir('k300')), all(open(f'k300/{i}').read() == str(i) for i in range(100)))
E
    mkfifo "$T/go"
    krun "$PY" "$T/kill.py" "$P" <"$T/go" >"$T/kill.out" 2>&1 &
    pid=$!
    exec 3>"$T/go"
    while ! grep -qs ready "$T/kill.out" && kill -0 $pid 2>/dev/null; do sleep 0.02; done
    echo >&3
    kill -KILL "$(kfsd_pid)"
    wait $pid
    exec 3>&-
    t_check O13-killed-between 'grep -qF "['"'k300'"'] 101 True" "$T/kill.out"' "$(tail -n 3 "$T/kill.out")"
fi

# A scratch directory is removed while a log in it is open. Right: it is gone at once, no placeholder is ever listed, the writer goes on.
both_py O14-rmtree-with-open-file <<'E'
import os, shutil, subprocess, sys
os.makedirs('d/sub'); f = open('d/log', 'w'); g = open('d/sub/old', 'w+'); f.write('one\n'); f.flush(); h = os.open('d/sub', os.O_RDONLY)
subprocess.run([sys.executable, '-c', 'import shutil; shutil.rmtree("d")'], check=True); print(os.path.exists('d'), os.listdir('.'))
f.write('two\n'); f.flush(); print(os.fstat(f.fileno()).st_size, os.fstat(f.fileno()).st_nlink, os.listdir(h)); g.write('text'); g.seek(0); print(g.read())
os.mkdir('d'); print(os.listdir('d')); f.close(); g.close(); os.close(h); print(os.listdir('d')); os.rmdir('d')
E
if [ -z "$KFS_PLAIN" ] && t_wanted O14-space-comes-back; then
    out=$(krun "$PY" - "$P" <<'E' 2>&1
import os, sys, time
os.chdir(sys.argv[1]); v = lambda: os.statvfs('.')
before = v().f_files - v().f_ffree
for n in range(5):
    f = open('leak', 'wb'); f.write(os.urandom(2**20)); os.unlink('leak'); f.write(b'x' * 2**20); f.close()
for i in range(400):  # the last close is noticed by itself
    if v().f_files - v().f_ffree == before: break
    time.sleep(0.025)
print(v().f_files - v().f_ffree - before, os.path.exists('leak'))
E
    )
    t_check O14-space-comes-back '[ "$out" = "0 False" ]' "$out"
fi

# Several programs delete one big tree at once. Right: entries that are gone already are all that they find; nothing is left; others go on.
both O15-three-removers 'mkdir t; for i in {1..40}; do mkdir -p t/$i/s; (cd t/$i && touch {1..30} s/{1..10}); done
rm -rf t 2>e1 & rm -rf t 2>e2 & rm -rf t 2>e3 & n=0; while kill -0 %1 %2 %3 2>/dev/null; do stat . >/dev/null || echo bystander; done; wait; cat e1 e2 e3; ls'
# Upload servers write a hidden name and rename it. Right: whoever sees the final name sees all of it.
both_py O16-hidden-then-final <<'E'
import os, hashlib, time
for n in range(20):
    body = os.urandom(65536); r, w = os.pipe()
    if os.fork() == 0:
        while True:
            try: f = open(f'data{n}.csv', 'rb'); break
            except FileNotFoundError: pass
        d = f.read(); os.write(w, b'%d %s' % (len(d), hashlib.md5(d).hexdigest().encode())); os._exit(0)
    with open('.in.csv.', 'wb') as f:
        for i in range(8): f.write(body)
    if os.fork() == 0: os.rename('.in.csv.', f'data{n}.csv'); os._exit(0)
    os.wait(); os.wait(); print(os.read(r, 100) == b'%d %s' % (8 * 65536, hashlib.md5(body * 8).hexdigest().encode()), os.listdir('.')); os.remove(f'data{n}.csv')
E

# A file is deleted and made anew, a directory removed and used by somebody who remembers it. Right: the next open finds the new one; nothing grows in the removed one.
both_py O24-recreated-under-a-reader <<'E'
import os, subprocess, sys
p = subprocess.Popen([sys.executable, '-c', 'import sys\nfor l in sys.stdin: print(open("cfg").read(), flush=True)'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for i in range(200):
    if i: os.unlink('cfg')
    open('cfg', 'w').write(f'content {i}' * (i % 7 + 1)); p.stdin.write('\n'); p.stdin.flush()
    if p.stdout.readline() != f'content {i}' * (i % 7 + 1) + '\n': print('stale', i)
p.stdin.close(); p.wait(); print('done')
E
both_py O19-use-of-a-removed-directory <<'E'
import os, errno, subprocess, sys
open('f', 'w').close()
code = '''import os, errno, sys
fd = os.open('d', os.O_RDONLY)
for l in sys.stdin:
    os.path.exists('d/x'), os.stat('d'); print('seen', flush=True); sys.stdin.readline()
    for f, a in ((open, ('d/x', 'w')), (os.mkdir, ('d/y',)), (os.rename, ('f', 'd/f')), (os.link, ('f', 'd/l')), (os.symlink, ('f', 'd/s'))):
        try: f(*a); print('made', a)
        except OSError as e: print(errno.errorcode[e.errno])
    for f, a in ((os.open, ('x', os.O_CREAT | os.O_WRONLY)), (os.mkdir, ('y',))):
        try: f(*a, dir_fd=fd); print('made', a)
        except OSError as e: print(errno.errorcode[e.errno])
    print('end', flush=True)'''
os.mkdir('d'); p = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
p.stdin.write('\n'); p.stdin.flush(); p.stdout.readline(); os.rmdir('d'); p.stdin.write('\n'); p.stdin.close(); print(p.stdout.read(), os.listdir('.'))
E
kfs_recheck
kfs_done
