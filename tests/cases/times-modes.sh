#!/usr/bin/env bash
# tests/cases/times-modes.sh — field cases: times, modes, extended attributes
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# "Now" is the wall clock's. Right: within a second of it for every way to make or touch a file; a later write never has an earlier time.
both_py O27-now-is-now <<'E'
import os, subprocess, time, tarfile, io
def near(p): s = os.stat(p, follow_symlinks=False); return all(abs(t - time.time()) < 1.5 for t in (s.st_mtime, s.st_ctime)) and s.st_atime > 1e9
open('a', 'w').close(); print(near('a')); os.utime('a', (5, 5)); print(near('a'), os.stat('a').st_mtime); os.utime('a'); print(near('a')); subprocess.run(['touch', 'a', 'b']); subprocess.run(['cp', 'a', 'c'])
t = tarfile.open('t.tar', 'w'); t.add('a'); t.close(); subprocess.run(['tar', 'xmf', 't.tar', '--transform', 's/a/d/']); os.mkdir('e'); os.symlink('x', 'f'); os.mkfifo('g'); os.link('a', 'h'); os.rename('a', 'i')
print([(n, near(n)) for n in 'bcdefghi']); os.utime('b', (5, 5)); os.truncate('b', 9); print(near('b')); os.utime('e', (5, 5)); open('e/x', 'w').close(); print(near('e'))
last = 0
for i in range(200):
    open(f'e/{i}', 'w').write('x'); m = os.stat(f'e/{i}').st_mtime_ns
    if m < last: print('backwards', i, last - m)
    last = m
fd = os.open('w', os.O_CREAT | os.O_WRONLY)
for i in range(100):
    os.write(fd, b'x'); m = os.fstat(fd).st_mtime_ns
    if m < last: print('backwards', i, last - m)
    last = m
os.close(fd); m = os.stat('w').st_mtime_ns; print(m == last); time.sleep(0.05); open('late', 'w').close(); subprocess.run('find . -newer w', shell=True); os.remove('t.tar')
E

# rsync runs again and again. Right: the second run finds nothing to do, a third what changed.
if t_have rsync; then
    both -m O28-rsync 'mkdir -p "$H/src/a/b"; for i in {1..60}; do seq $i >"$H/src/a/f$i"; seq $i >"$H/src/a/b/g$i"; done; ln -s f1 "$H/src/a/l"; ln "$H/src/a/f2" "$H/src/a/b/hard"; touch -d "2020-02-02 02:02:02.123456789" "$H"/src/a/f* "$H"/src/a/b "$H/src"; touch -h -d "2020-01-01" "$H/src/a/l"; touch -d 2020-01-01 "$H"/src/a/b/[gh]*; touch -d 2020-01-02 "$H/src/a/b" "$H/src/a" "$H/src"
rsync -aHi "$H/src/" dst/ | wc -l; rsync -aHi "$H/src/" dst/; echo again; touch -d 2021-01-01 "$H/src/a/f7"; echo y >"$H/src/a/b/g1"; printf "%s\n" more >>"$H/src/a/f9"; touch -d 2021-02-02 "$H/src/a/b/g1" "$H/src/a/f9"; rsync -aHi "$H/src/" dst/; rsync -aHi "$H/src/" dst/; stat -c "%n %y" dst/a/f1 dst/a/l dst/a/b
echo z >>"$H/src/a/f3"; touch -d 2022-02-02 "$H/src/a/f3"; rsync -ai --inplace "$H/src/" dst/; echo z >>"$H/src/a/f4"; touch -d 2022-02-03 "$H/src/a/f4"; rsync -ai --append "$H/src/" dst/; rsync -aHi dst/ back/ | wc -l; rsync -aHi dst/ back/; rsync -aHic "$H/src/" back/; rm "$H/src/a/f5"; rsync -ai --delete "$H/src/" dst/; rsync -aXi "$H/src/" dst/; rsync -aHi back/ "$H/dst2/" | wc -l; rsync -aHi back/ "$H/dst2/"; diff -r dst "$H/src" && echo same; stat -c %h dst/a/f2'
else
    t_skip O28-rsync "rsync is not installed"
fi
both -m O28-nanoseconds 'touch -d "2020-02-02 02:02:02.000000001" a; touch -d "2020-02-02 02:02:02.000000002" b; find . -newer a -name "?"; [ b -nt a ] && echo newer; [ a -nt b ] || echo not; cp -p b c; [ c -nt b ] || [ c -ot b ] || echo equal; stat -c %y a b c; echo x >d; r=$(stat -c %y d); cat d >/dev/null; sleep 0.1; [ "$r" = "$(stat -c %y d)" ] && echo stays; touch -d "2020-02-02 02:02:02.000000001" d'

# Default ACLs that are half applied are worse than none. Right: refused as not supported, and copying tools go on without them.
if [ -z "$KFS_PLAIN" ] && t_wanted O29; then
    out=$(krun "$PY" - "$P" <<'E' 2>&1
import os, sys, errno, struct
os.chdir(sys.argv[1]); os.umask(0o022); os.mkdir('d', 0o755); os.chmod('d', 0o2770)
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', t, p, i) for t, p, i in ((1, 7, 0xffffffff), (2, 6, 4242), (4, 7, 0xffffffff), (16, 7, 0xffffffff), (32, 0, 0xffffffff)))
for n in ('system.posix_acl_default', 'system.posix_acl_access'):
    for f in (lambda: os.setxattr('d', n, acl), lambda: os.getxattr('d', n), lambda: os.removexattr('d', n)):
        try: f(); print('done')
        except OSError as e: print(errno.errorcode[e.errno])
os.mkdir('d/s'); os.mkdir('d/z', 0); open('d/f', 'w').close(); print(*(oct(os.stat(x).st_mode) for x in ('d', 'd/s', 'd/z', 'd/f')), os.listxattr('d'))
E
    )
    t_check O29-acls-refused-whole '[ "$(tr "\n" " " <<<"$out")" = "ENOTSUP ENOTSUP ENOTSUP ENOTSUP ENOTSUP ENOTSUP 0o42770 0o42755 0o42000 0o100644 [] " ]' "$out"
fi
both O29-set-group-directory 'chmod 2770 .; mkdir a; (umask 0; mkdir b; : >f); mkdir -m 0 z; "$PY" -c "import os; os.mkdir(\"m\", 0); os.close(os.open(\"n\", os.O_CREAT, 0))"; stat -c "%a %n" . a b f z m n; chmod 755 .; chmod g-s a; stat -c %a . a'

# Copying tools ask for attributes that are not there. Right: they end with 0; an absent one is ENODATA, an unknown name space EOPNOTSUPP.
both -m O30-preserving-copies 'seq 9 >f; setfattr -n user.k -v v f 2>/dev/null || "$PY" -c "import os; os.setxattr(\"f\", \"user.k\", b\"v\")"; touch -d 2020-01-01 f; cp -p f g; echo $?; cp -a f h; echo $?; cp -a f "$H/h"; echo $?; cp -a "$H/h" i; echo $?; mv h "$H/moved"; echo $?; mv "$H/moved" j; echo $?; install -p f k; echo $?; tar --xattrs -cf - f | (mkdir x; tar --xattrs -xf - -C x); echo $?; ! command -v rsync >/dev/null || { rsync -aX f r; echo $?; rsync -aX f "$H/r"; echo $?; rsync -aX "$H/r" s; echo $?; }'
both_py O30-attribute-answers <<'E'
import os, errno, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def t(f, *a, **k):
    try: print(f.__name__, a[1:], f(*a, **k))
    except OSError as e: print(f.__name__, a[1:], errno.errorcode[e.errno])
open('f', 'w').write('x'); fd = os.open('f', os.O_RDWR)
for o in ('f', fd):
    t(os.getxattr, o, 'user.none'); t(os.removexattr, o, 'user.none'); t(os.getxattr, o, 'user.'); t(os.getxattr, o, 'trusted.'); t(os.getxattr, o, 'n' * 300); t(os.setxattr, o, 'odd.space', b'x'); t(os.getxattr, o, 'odd.space'); t(os.setxattr, o, 'user.', b'x'); t(os.setxattr, o, 'user.a', b'', os.XATTR_REPLACE)
    t(os.setxattr, o, 'user.a', b'1', os.XATTR_CREATE); t(os.setxattr, o, 'user.a', b'2', os.XATTR_CREATE); t(os.setxattr, o, 'user.e', b''); t(os.getxattr, o, 'user.e'); t(os.setxattr, o, 'user.' + 'n' * 300, b''); print(sorted(os.listxattr(o)))
    print(libc.flistxattr(fd, None, 0), libc.fgetxattr(fd, b'user.a', None, 0), libc.fgetxattr(fd, b'user.a', ctypes.create_string_buffer(1), 1)); os.setxattr(o, 'user.a', b'longer'); print(libc.fgetxattr(fd, b'user.a', ctypes.create_string_buffer(1), 1), errno.errorcode[ctypes.get_errno()], libc.flistxattr(fd, ctypes.create_string_buffer(1), 1), errno.errorcode[ctypes.get_errno()])
    os.removexattr(o, 'user.a'); os.removexattr(o, 'user.e')
os.symlink('f', 'l'); t(os.setxattr, 'l', 'user.x', b'1', follow_symlinks=False); t(os.getxattr, 'l', 'user.none', follow_symlinks=False); t(os.getxattr, 'none', 'user.x'); t(os.getxattr, 'none', 'system.posix_acl_access'); t(os.setxattr, 'none', 'odd.space', b''); t(os.getxattr, 'none', 'n' * 300); os.setxattr('l', 'user.via', b'v'); print(os.getxattr(fd, 'user.via')); os.mkdir('d'); os.setxattr('d', 'user.d', b'v'); print(os.listxattr('d'))
d = os.open('.', os.O_RDONLY); os.setxattr(d, 'user.dir', b'1'); print(os.listxattr('.')); os.removexattr('.', 'user.dir')
E

# git's way to change its configuration. Right: a read-only lock file can be written by who made it, synced and renamed over.
both_py O31-lock-write-rename <<'E'
import os
os.umask(0o077); open('config', 'w').write('old'); os.chmod('config', 0o644)
fd = os.open('config.lock', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444); os.write(fd, b'new'); os.fsync(fd); os.fchmod(fd, 0o444); os.close(fd); os.chmod('config.lock', 0o600); os.chmod('config.lock', 0o444)
os.rename('config.lock', 'config'); print(open('config').read(), oct(os.stat('config').st_mode)); r = os.open('config', os.O_RDONLY); os.fsync(r); os.fdatasync(r); d = os.open('.', os.O_RDONLY); os.fsync(d); os.fdatasync(d); os.chmod('config', 0o600); print(os.access('config', os.W_OK), os.listdir('.'))
E
kfs_recheck
kfs_done
