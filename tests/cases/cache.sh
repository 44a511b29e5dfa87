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

kfs_recheck
kfs_done
