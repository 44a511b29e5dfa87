#!/usr/bin/env bash
# tests/apps/python.sh — python3 in the volume: modules, C extensions, files, databases, processes
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
t_have "$PY" || { t_skip python "not installed"; kfs_done; }
export PY PYTHONDONTWRITEBYTECODE= PYTHONHASHSEED=0

both -x __pycache__ py-modules 'mkdir -p pkg/sub; echo "from .a import f" >pkg/__init__.py; echo "def f(): return 42" >pkg/a.py; echo "import os; HERE = os.path.dirname(__file__)" >pkg/sub/__init__.py; echo "data" >pkg/sub/d.txt; mkdir ns; echo "v = 1" >ns/m.py
$PY -c "import pkg, pkg.sub, ns.m; print(pkg.f(), open(pkg.sub.HERE + \"/d.txt\").read(), ns.m.v, pkg.__file__)"; $PY -c "import pkg; print(pkg.f())"; ls pkg/__pycache__ | wc -l; echo "print(__name__, __file__)" >pkg/__main__.py; $PY -m pkg; $PY pkg; echo "def f(): return 43" >pkg/a.py; touch -d "now + 5 seconds" pkg/a.py; $PY -c "import pkg; print(pkg.f())"; cd /; PYTHONPATH=$D $PY -c "import pkg; print(pkg.__file__)"; cd "$D"; $PY -c "import none" 2>&1 | tail -1; $PY -m zipfile -c z.zip pkg/ && PYTHONPATH=z.zip $PY -c "import pkg; print(pkg.f())"; $PY -m compileall -q pkg; echo $?; $PY -c "import importlib.resources as r, pkg.sub; print(r.files(pkg.sub).joinpath(\"d.txt\").read_text())"; printf "#!$PY\nimport sys; print(sys.argv[1:], sys.path[0])\n" >s; chmod +x s; ./s a b; $PY s c; rm z.zip'
if $PY -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' && t_have gcc; then
    both -x __pycache__ py-extension 'cat >ext.c <<E
#include <Python.h>
static PyObject *answer(PyObject *s, PyObject *a) { (void)s; (void)a; return PyLong_FromLong(42); }
static PyMethodDef m[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef d = {PyModuleDef_HEAD_INIT, "ext", "", -1, m, 0, 0, 0, 0};
PyMODINIT_FUNC PyInit_ext(void) { return PyModule_Create(&d); }
E
gcc -shared -fPIC $($PY -c "import sysconfig; print(\"-I\" + sysconfig.get_paths()[\"include\"])") -o ext.so ext.c && $PY -c "import ext; print(ext.answer(), ext.__file__)"; cd /; PYTHONPATH=$D $PY -c "import ext; print(ext.answer())"; cd "$D"; $PY -c "import ctypes; print(ctypes.CDLL(\"./ext.so\") is not None)"; $PY -c "import multiprocessing as m, ext
def f(q): q.put(ext.answer())
q = m.get_context(\"fork\").Queue(); p = m.get_context(\"fork\").Process(target=f, args=(q,)); p.start(); print(q.get()); p.join(); print(p.exitcode)"; rm ext.so'
else
    t_skip py-extension "Python.h or gcc not installed"
fi
py() { # NAME: the program on stdin runs with the case's directory as cwd and D, H in the environment
    local name=$1
    shift
    cat >"$T/$name.py"
    PROG=$T/$name.py both "$@" -x __pycache__ "$name" '$PY "$PROG"'
}
export PROG=
py py-os <<'E'
import os, stat, errno
def t(f, *a, **k):
    try:
        r = f(*a, **k)
        print(f.__name__, a, 'ok', r if isinstance(r, (int, str, bytes, bool, list, type(None))) else type(r).__name__)
        return r
    except OSError as e:
        print(f.__name__, a, errno.errorcode[e.errno], e.filename, e.filename2)
os.makedirs('a/b/c'); t(os.makedirs, 'a/b'); os.makedirs('a/b', exist_ok=True)
for i in range(20): open(f'a/f{i}', 'w').write('x' * i)
for i in range(5): open(f'a/b/g{i}', 'w').write('y')
for top, ds, fs in os.walk('a'): ds.sort(); print(top, ds, sorted(fs))
for top, ds, fs in os.walk('a', topdown=False): print(top, sorted(ds), len(fs))
for top, ds, fs, fd in os.fwalk('a'): ds.sort(); print(top, ds, len(fs), sum(os.stat(f, dir_fd=fd).st_size for f in fs))
with os.scandir('a') as it: print(sorted((e.name, e.is_file(), e.is_dir(), e.is_symlink(), e.inode() == e.stat().st_ino, e.stat().st_size if e.is_file() else 0) for e in it))
print(sorted(os.listdir(b'a'))[:3], sorted(os.listdir(os.open('a', os.O_RDONLY)))[:3])
t(os.listdir, 'none'); t(os.mkdir, 'a'); t(os.rmdir, 'a'); t(os.remove, 'none'); t(os.rename, 'none', 'x'); t(os.replace, 'a/f1', 'a/f2'); t(os.link, 'a/f3', 'a/h'); t(os.symlink, 'f3', 'a/s'); t(os.readlink, 'a/s'); t(os.readlink, 'a/f3')
t(os.stat, 'none'); t(os.chmod, 'a/f3', 0o600); print(oct(os.stat('a/f3').st_mode), os.stat('a/f3').st_nlink)
os.utime('a/f3', ns=(1, 1_500_000_000_123_456_789)); print(os.stat('a/f3').st_mtime_ns)
t(os.truncate, 'a/f4', 2); print(os.path.getsize('a/f4')); t(os.access, 'a/f3', os.X_OK); t(os.mkfifo, 'a/p'); print(stat.S_ISFIFO(os.stat('a/p').st_mode))
fd = os.open('a/n', os.O_CREAT | os.O_RDWR | os.O_EXCL); os.write(fd, b'hello'); os.lseek(fd, 0, 0); print(os.read(fd, 9), os.pread(fd, 2, 1), os.fstat(fd).st_size); os.fsync(fd); os.ftruncate(fd, 1); os.close(fd)
t(os.open, 'a/n', os.O_CREAT | os.O_EXCL); print(os.path.realpath('a/s') == os.getcwd() + '/a/f3', os.path.exists('a/none'), os.path.isdir('a'), os.path.islink('a/s'), os.path.samefile('a/s', 'a/f3'), os.path.ismount('a'))
d = os.open('a', os.O_RDONLY); print(os.stat('f3', dir_fd=d).st_size, oct(os.stat('f3', dir_fd=d).st_mode)); os.mkdir('nd', dir_fd=d); os.rename('nd', 'nd2', src_dir_fd=d, dst_dir_fd=d); os.unlink('f5', dir_fd=d); os.rmdir('nd2', dir_fd=d); os.fchdir(d); print(os.getcwd()[-2:], sorted(os.listdir('.'))[:4]); os.chdir('..')
os.setxattr('a/f6', 'user.k', b'v'); print(os.getxattr('a/f6', 'user.k'), os.listxattr('a/f6')); os.removexattr('a/f6', 'user.k'); t(os.getxattr, 'a/f6', 'user.k')
print(os.statvfs('.').f_namemax); os.posix_fallocate(os.open('a/fa', os.O_CREAT | os.O_RDWR), 0, 5000); print(os.path.getsize('a/fa'))
open('a/' + 'z' * 255, 'w').close(); t(open, 'a/' + 'z' * 256, 'w'); open(b'a/\xff\xfe', 'w').write('odd'); print([n for n in os.listdir('a') if '\udcff' in n])
r, w = os.pipe(); f = open('a/f7', 'rb'); print(os.sendfile(w, f.fileno(), 0, 7), os.read(r, 9)); os.copy_file_range(f.fileno(), os.open('a/cfr', os.O_CREAT | os.O_WRONLY), 5, 0); print(open('a/cfr').read())
os.removedirs('a/b/c') if not os.listdir('a/b/c') else None; print(os.path.exists('a/b/c'), os.path.exists('a/b'))
E
py py-shutil -m <<'E'
import shutil, os, filecmp
os.makedirs('t/s/d'); [open(f't/f{i}', 'w').write(f'{i}' * 100 * i) for i in range(10)]; open('t/s/d/x', 'w').write('deep'); os.symlink('f1', 't/l'); os.chmod('t/f3', 0o600)
for top, ds, fs in os.walk('t'):
    for f in fs: os.utime(os.path.join(top, f), (1e9, 1.1e9 + 0.5), follow_symlinks=False)
shutil.copytree('t', 'u', symlinks=True); print(filecmp.dircmp('t', 'u').diff_files, sorted(os.listdir('u')))
shutil.copy2('t/f2', 'c2'); shutil.copy2('t/f3', 'c'); print(os.stat('c2').st_mtime, oct(os.stat('c').st_mode)); shutil.copyfile('t/f4', 'cf'); os.utime('cf', (5, 5))
shutil.move('u/s', 'moved'); shutil.move('c2', 'u/'); print(sorted(os.listdir('u'))); shutil.rmtree('u'); print(os.path.exists('u'))
H = os.environ['H']; shutil.move('moved', H + '/m'); print(open(H + '/m/d/x').read()); shutil.copytree(H + '/m', 'back'); shutil.move(H + '/m/d/x', 'x'); print(open('x').read())
for n, f in (('ar', 'zip'), ('ar', 'gztar')): p = shutil.make_archive(n, f, 't'); shutil.unpack_archive(p, 'un' + f); print(filecmp.dircmp('t', 'un' + f).diff_files); os.remove(p); shutil.rmtree('un' + f)
print(shutil.disk_usage('.').total > 0, shutil.which('none'), shutil.copymode('t/f3', 'cf'), shutil.copystat('t/f1', 'x'))
try: shutil.copyfile('t/f1', 't/f1')
except shutil.SameFileError as e: print('same file')
try: shutil.rmtree('none')
except FileNotFoundError: print('not found')
os.utime('back/d/x', (7, 7))
E
py py-pathlib <<'E'
from pathlib import Path
p = Path('a/b'); p.mkdir(parents=True); (p / 'f').write_text('text'); (p / 'g').write_bytes(b'\0\1'); print((p / 'f').read_text(), sorted(p.iterdir()), sorted(Path('.').rglob('*')), sorted(Path('.').glob('*/*')))
print((p / 'f').exists(), (p / 'n').exists(), p.is_dir(), (p / 'f').stat().st_size, p.resolve() == Path.cwd() / 'a/b'); (p / 'f').rename(p / 'h'); (p / 'h').replace('top'); Path('l').symlink_to('top'); print(Path('l').read_text(), Path('l').is_symlink(), Path('l').resolve().name, Path('l').lstat().st_size); Path('hl').hardlink_to('top'); print(Path('top').stat().st_nlink, Path('hl').samefile('top')); Path('hl').unlink(); Path('x').touch(); Path('x').touch(exist_ok=True); Path('x').chmod(0o600); print(oct(Path('x').stat().st_mode)); Path('none').unlink(missing_ok=True)
try: Path('x').touch(exist_ok=False)
except FileExistsError as e: print(e)
try: Path('a').rmdir()
except OSError as e: print(e)
try: (Path('x') / 'y').read_text()
except OSError as e: print(e)
with Path('top').open('a') as f: f.write(' more')
print(Path('top').read_text(), Path('a').owner() != '', Path('..').resolve() == Path.cwd().parent, Path(__file__).name)
E
py py-files <<'E'
import io, os, tempfile, json, pickle, csv, configparser, zipfile, tarfile, gzip, fileinput, glob, linecache, mmap, fcntl, subprocess, hashlib, shelve, logging, logging.handlers, array
with open('f', 'w') as f: print(f.write('line\n' * 1000), f.tell()); f.flush(); print(os.path.getsize('f'))
with open('f', 'r+') as f: f.seek(10); f.write('XX'); f.seek(0); print(f.readline(), f.read()[3:12]); f.truncate(50)
print(os.path.getsize('f')); print(len(open('f').readlines()), sum(1 for _ in open('f', 'rb')))
with open('f', 'ab') as f: f.write(b'end'); print(f.tell())
with open('f', 'rb', buffering=0) as f: b = bytearray(8); print(f.readinto(b), b)
for m in ('x', 'r', 'rb+', 'w+', 'z'):
    try: open('f' if m != 'r' else 'none', m).close(); print(m, 'ok')
    except Exception as e: print(m, type(e).__name__)
tempfile.tempdir = os.getcwd()
with tempfile.NamedTemporaryFile() as t: t.write(b'x'); t.flush(); print(os.path.exists(t.name), os.path.dirname(t.name) == os.getcwd())
print(os.path.exists(t.name))
with tempfile.TemporaryFile('w+') as t: t.write('abc'); t.seek(0); print(t.read(), os.fstat(t.fileno()).st_nlink)
with tempfile.TemporaryDirectory() as d: open(d + '/x', 'w').close(); print(os.listdir(d))
print(os.path.exists(d)); fd, n = tempfile.mkstemp(); os.write(fd, b'1'); os.close(fd); os.unlink(n); s = tempfile.SpooledTemporaryFile(10); s.write(b'y' * 100); s.seek(0); print(len(s.read()))
json.dump({'a': [1, 2]}, open('j', 'w')); print(json.load(open('j'))); pickle.dump(list(range(1000)), open('p', 'wb')); print(len(pickle.load(open('p', 'rb'))))
with zipfile.ZipFile('z.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.write('j'); z.writestr(zipfile.ZipInfo('in/s'), 'str' * 500)
with zipfile.ZipFile('z.zip', 'a') as z: z.writestr(zipfile.ZipInfo('late'), 'l')
with zipfile.ZipFile('z.zip') as z: print(z.namelist(), z.testzip(), z.read('late')); z.extractall('ex')
print(sorted(os.listdir('ex'))); os.remove('z.zip')
with tarfile.open('t.tgz', 'w:gz') as t: t.add('ex')
with tarfile.open('t.tgz') as t: print(sorted(t.getnames())); t.extractall('tx')
os.remove('t.tgz')
with gzip.open('g.gz', 'wt') as g: g.write('zip' * 100)
print(len(gzip.open('g.gz', 'rt').read())); os.remove('g.gz')
with open('m', 'wb') as f: f.write(b'\0' * 20000)
with open('m', 'r+b') as f:
    m = mmap.mmap(f.fileno(), 0); m[5:8] = b'map'; m[19997:20000] = b'end'; m.flush(); print(m.find(b'end'), m.size()); f.seek(5); print(f.read(3)); m.resize(30000); print(os.path.getsize('m')); m.close()
print(open('m', 'rb').read()[5:8], hashlib.sha256(open('m', 'rb').read()).hexdigest())
with open('m', 'rb') as f: m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); os.unlink('m'); print(m[5:8], len(m))
with open('lk', 'w') as f:
    fcntl.flock(f, fcntl.LOCK_EX); print(subprocess.run(['flock', '-n', 'lk', 'true']).returncode); fcntl.flock(f, fcntl.LOCK_UN); print(subprocess.run(['flock', '-n', 'lk', 'true']).returncode); fcntl.lockf(f, fcntl.LOCK_EX)
with fileinput.input('j', inplace=True) as fi:
    for l in fi: print(l.replace('a', 'b'), end='')
print(open('j').read(), sorted(glob.glob('**', recursive=True))[:6], linecache.getline('f', 2))
print(subprocess.run('cat f | head -1; pwd | tail -c 9', shell=True, capture_output=True, text=True, cwd='.').stdout); subprocess.run(['sh', '-c', 'echo out; echo err >&2'], stdout=open('so', 'w'), stderr=open('se', 'w')); print(open('so').read(), open('se').read(), subprocess.run(['cat'], stdin=open('so'), capture_output=True).stdout); print(subprocess.run(['pwd'], cwd='ex', capture_output=True).stdout[-4:])
with shelve.open('sh') as s: s['k'] = [1]
with shelve.open('sh') as s: print(dict(s))
for n in glob.glob('sh*'): os.remove(n)
h = logging.handlers.RotatingFileHandler('log', maxBytes=200, backupCount=2); lg = logging.getLogger('x'); lg.addHandler(h)
for i in range(20): lg.warning('message %d', i)
h.close(); print(sorted(glob.glob('log*')), open('log').read())
array.array('d', range(100)).tofile(open('arr', 'wb')); a = array.array('d'); a.fromfile(open('arr', 'rb'), 100); print(sum(a)); print(io.open('f', newline='').read()[:4]); os.remove('p')
E
py py-sqlite <<'E'
import sqlite3, os
for mode in ('delete', 'wal', 'truncate', 'persist', 'memory'):
    n = f'{mode}.db'; c = sqlite3.connect(n); print(c.execute(f'pragma journal_mode={mode}').fetchone()); c.execute('create table t(a integer primary key, b text)')
    with c: c.executemany('insert into t values(?, ?)', ((i, 'x' * (i % 50)) for i in range(3000)))
    d = sqlite3.connect(n); print(d.execute('select count(*), sum(length(b)) from t').fetchone())
    try:
        with c: c.execute('delete from t where a > 100'); raise ValueError
    except ValueError: pass
    print(d.execute('select count(*) from t').fetchone(), d.execute('pragma integrity_check').fetchone())
    with d: d.execute('update t set b = "y"')
    print(c.execute('select distinct b from t').fetchall(), sorted(x for x in os.listdir('.') if x.startswith(mode) and not x.endswith('-journal')))
    c.execute('begin exclusive'); d.execute('pragma busy_timeout=0')
    try: d.execute('begin immediate'); print('both?')
    except sqlite3.OperationalError as e: print(e)
    c.rollback(); pid = os.fork()
    if not pid:
        e = sqlite3.connect(n); e.execute('insert into t values(9999, "child")'); e.commit(); os._exit(0)
    os.waitpid(pid, 0); print(d.execute('select b from t where a=9999').fetchone())
    c.execute('vacuum'); c.close(); d.close(); b = sqlite3.connect(n); k = sqlite3.connect('copy.db'); b.backup(k); print(k.execute('select count(*) from t').fetchone()); k.close(); b.close(); os.remove('copy.db'); print(sorted(os.listdir('.')))
    b = sqlite3.connect(f'file:{os.getcwd()}/{n}?mode=ro', uri=True); print(b.execute('select max(a) from t').fetchone()); b.close()
    for x in os.listdir('.'): os.remove(x)
E
py py-processes <<'E'
import multiprocessing as mp, os, sys, concurrent.futures as cf
def work(i):
    with open(f'in{i}', 'rb') as f: d = f.read()
    with open(f'out{i}', 'wb') as f: f.write(d[::-1])
    return i, len(d)
def appender(k):
    with open('log', 'a') as f:
        for i in range(50): f.write(f'{k} {i}\n'); f.flush()
if __name__ == '__main__':
    for i in range(12): open(f'in{i}', 'wb').write(bytes([i]) * (i * 1000 + 1))
    f = open('in5', 'rb'); f.read(1)
    for m in ('fork', 'spawn', 'forkserver'):
        c = mp.get_context(m)
        with c.Pool(3) as p: print(m, p.map(work, range(12)))
        print(sorted(os.listdir('.'))[:3], open('out3', 'rb').read() == open('in3', 'rb').read()[::-1]); [os.remove(f'out{i}') for i in range(12)]
        ps = [c.Process(target=appender, args=(k,)) for k in range(3)]; [p.start() for p in ps]; [p.join() for p in ps]; ls = sorted(open('log').read().split('\n')); print(len(ls), [p.exitcode for p in ps]); os.remove('log')
    with cf.ThreadPoolExecutor(6) as e: print(sorted(e.map(work, range(12))))
    with cf.ProcessPoolExecutor(2) as e: print(sorted(e.map(work, range(12))))
    print(len(f.read()))
    pid = os.fork()
    if not pid: os.chdir('/'); os._exit(0)
    os.waitpid(pid, 0); print(os.path.exists('in1')); os.chdir('/'); print(os.path.exists('in1'))
E
if $PY -c 'import numpy' 2>/dev/null; then
    py py-numpy <<'E'
import numpy as np, os
a = np.arange(100000, dtype='f4').reshape(100, 1000); np.save('a.npy', a); b = np.load('a.npy', mmap_mode='r'); print(b.sum(), b.shape); np.savez('z.npz', x=a, y=b); print(np.load('z.npz')['y'][3, 4]); os.remove('z.npz')
m = np.memmap('m', dtype='i8', mode='w+', shape=(1000, 10)); m[:] = np.arange(10); m.flush(); del m; m = np.memmap('m', dtype='i8', mode='r+', shape=(1000, 10)); m[5, 5] = 99; del m; print(np.memmap('m', dtype='i8', mode='r').sum(), np.fromfile('m', 'i8')[55]); c = np.memmap('m', dtype='i8', mode='c'); c[0] = 7; print(np.fromfile('m', 'i8')[0]); a.tofile('raw'); print((np.fromfile('raw', 'f4') == a.ravel()).all()); np.savetxt('t', a[:3, :3]); print(np.loadtxt('t')); w = np.load('a.npy', mmap_mode='r+'); w[0, 0] = -1; del w; print(np.load('a.npy')[0, 0])
E
else
    t_skip py-numpy "numpy is not importable by $PY"
fi
kfs_recheck
kfs_done
