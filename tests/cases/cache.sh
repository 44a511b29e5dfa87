#!/usr/bin/env bash
# tests/cases/cache.sh — field cases: the cache's limit, its disk, kfsd's memory
KFS_TEST_LINGER=3
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip cache "a plain directory has none"; kfs_done; }

# More is written and read than the cache may hold. Right: its limit is kept, what fits stays, every byte is right.
echo "cache_bytes = 16M" >>"$T/kfs.conf"
cat >"$T/fill.py" <<'E'
import hashlib, os, subprocess, sys
os.chdir(sys.argv[1]); sums = {}
def body(i): return hashlib.sha256(b'%d' % i).digest() * 65536
for i in range(24):
    d = body(i); f = open(f'f{i}', 'wb'); f.write(d); f.flush(); os.fsync(f.fileno()); f.close()
bad = [i for r in range(2) for i in range(24) if open(f'f{i}', 'rb').read() != body(i)]
held = [open(f'f{i}', 'rb') for i in range(24)]; bad += [i for i in range(24) if held[i].read() != body(i)]
print('bad', bad)
E
krun "$PY" "$T/fill.py" "$P" >"$T/o" 2>&1
for ((i = 0; i < 200; i++)); do
    k=$(du -sk "$T/cache" | cut -f1)
    [ "$k" -gt 17500 ] || break
    sleep 0.02
done
t_check O59-more-than-the-cache-holds 'grep -q "^bad \[\]$" "$T/o"' "$(cat "$T/o")"
t_check O60-limit-kept '[ "$k" -le 17500 ]' "$k KiB in the cache"

# Someone deletes the cache directory, or an empty part of it, under the running kfsd. Right: what is stored is read and new files are written, as if
# kfsd had been killed; descriptors go on; a reason is logged.
cat >"$T/lost.py" <<'E'
import os, subprocess, sys, shutil
os.chdir(sys.argv[1]); cache = sys.argv[2]; sub = sys.argv[3]; open('a', 'w').write('one' * 5000); open('b', 'w').write('two' * 5000); held = open('a')
top = [os.path.join(cache, d) for d in os.listdir(cache)][0]; shutil.rmtree(os.path.normpath(os.path.join(top, sub)))
def t(what, f):
    try: print(what, f(), end=' ')
    except OSError as e: print(what, 'error', e.errno, end=' ')
t('held', lambda: held.read() == 'one' * 5000); t('new', lambda: open('c', 'w').write('three')); t('old', lambda: open('b').read() == 'two' * 5000); t('again', lambda: open('c').read()); os.makedirs('dd', exist_ok=True); t('cd', lambda: os.chdir('dd')); t('run', lambda: subprocess.run(['cat', '../b'], capture_output=True).stdout == b'two' * 5000); t('append', lambda: open('../a', 'a').write('!')); t('size', lambda: os.stat('../a').st_size); t('list', lambda: sorted(os.listdir('..'))[:3])
E
for sub in . t w d; do
    krun sh -c 'rm -rf "$P/lost"; mkdir "$P/lost"'
    krun "$PY" "$T/lost.py" "$P/lost" "$T/cache" "$sub" >"$T/o" 2>&1
    want="held True new 5 old True again three cd None run True append 1 size 15001 list ['a', 'b', 'c'] "
    t_check "O60-removed-under-kfsd-${sub/./all}" '[ "$(cat "$T/o")" = "$want" ]' "$(tail -n 3 "$T/o")"
done
t_check O60-removal-is-logged 'grep -rq "cache directory .* was removed" "$T/run"'
kfs_recheck
kfs_done
