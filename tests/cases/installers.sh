#!/usr/bin/env bash
# tests/cases/installers.sh — field cases: what package installers do
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Installers link from a cache into environments. Right: counts and inodes are right, every name is equal, open files can be linked.
both_py O35-many-links <<'E'
import os
os.mkdir('cache'); os.makedirs('env/lib'); open('cache/m', 'w').write('module'); f = open('cache/m', 'r+')
for i in range(500): os.link('cache/m', f'env/lib/m{i}')
s = os.stat('cache/m'); print(s.st_nlink, os.fstat(f.fileno()).st_nlink, {os.stat(f'env/lib/m{i}').st_ino == s.st_ino for i in range(500)}); f.write('MODULE'); f.close(); os.unlink('cache/m')
print(os.stat('env/lib/m7').st_nlink, {open(f'env/lib/m{i}').read() for i in range(0, 500, 50)}); [os.unlink(f'env/lib/m{i}') for i in range(499)]; print(os.stat('env/lib/m499').st_nlink, os.path.samefile('env/lib/m499', 'env/lib/m499'), os.listdir('env/lib'))
try: os.link('env', 'dirlink')
except OSError as e: print(e.errno)
fd = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(fd, b'tmp'); os.link(f'/proc/self/fd/{fd}', 'named'); print(open('named').read(), os.stat('named').st_nlink)
E
# A virtual environment on the volume, its modules linked from a cache beside it. Right: it works from both.
if "$PY" -c 'import venv, ensurepip' 2>/dev/null; then
    both -x __pycache__ O35-virtual-environment '"$PY" -m venv --without-pip e && mkdir -p cache/pkg && echo "v = 42" >cache/pkg/__init__.py && s=$(echo e/lib/python3*/site-packages) && cp -al cache/pkg "$s/" && e/bin/python -c "import pkg, sys, os; print(pkg.v, os.path.relpath(pkg.__file__, sys.prefix) == os.path.relpath(\"$s/pkg/__init__.py\", \"e\"), sys.prefix == os.path.realpath(\"e\"), sys.prefix != sys.base_prefix)"; . e/bin/activate; python -c "import pkg; print(pkg.v)"; printf "#!$D/e/bin/python\nimport pkg; print(pkg.v)\n" >e/bin/tool; chmod +x e/bin/tool; tool; stat -c %h "$s/pkg/__init__.py"; rm -rf e/lib64; rm e/bin/*ctivate* e/pyvenv.cfg e/bin/tool'
else
    t_skip O35-virtual-environment "venv is not installed"
fi

# A package unpacker makes a new file, keeps a link to the old one, renames. Right: never EXDEV inside a volume, directories with content move too.
both_py -m O36-unpack <<'E'
import os
os.makedirs('usr/lib'); os.makedirs('usr/share/doc')
for round in range(2):
    for i in range(60):
        n = f'usr/lib/f{i}'; fd = os.open(n + '.new', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0); os.posix_fallocate(fd, 0, 3000 + i); os.write(fd, bytes([round + 1]) * (3000 + i)); os.fchmod(fd, 0o755 if i % 3 else 0o644)
        os.sync_file_range(fd, 0, 0, 2) if hasattr(os, 'sync_file_range') else None; os.fsync(fd); os.close(fd); os.utime(n + '.new', ns=(10**18 + i, 10**18 + i))
        if os.path.exists(n): os.link(n, n + '.tmp')
        os.rename(n + '.new', n)
        if os.path.exists(n + '.tmp'): os.unlink(n + '.tmp')
    os.rename('usr/share', 'usr/share.old'); os.rename('usr/share.old', 'usr/share'); d = os.open('usr/lib', os.O_RDONLY | os.O_DIRECTORY); os.fsync(d); os.close(d)
os.rename('usr/lib', 'usr/share/lib'); print(len(os.listdir('usr/share/lib')), {os.stat(f'usr/share/lib/f{i}').st_nlink for i in range(60)}); os.symlink('share/lib', 'usr/lib'); os.utime('usr/lib', (5, 5), follow_symlinks=False); print(open('usr/lib/f7', 'rb').read(2))
E
if t_have dpkg-deb; then
    both -m O36-deb 'mkdir -p p/DEBIAN p/usr/bin p/usr/share/x; printf "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: m <m@m>\nDescription: d\n" >p/DEBIAN/control; printf "#!/bin/sh\necho hi\n" >p/usr/bin/x; chmod 4755 p/usr/bin/x; ln p/usr/bin/x p/usr/bin/y; ln -s x p/usr/bin/z; seq 5000 >p/usr/share/x/d; find p -exec touch -h -d 2020-01-01 {} +; SOURCE_DATE_EPOCH=1 dpkg-deb --root-owner-group -b p x.deb >/dev/null && dpkg-deb -x x.deb out && dpkg-deb -c x.deb | wc -l; out/usr/bin/z; dpkg-deb -f x.deb Package; mkdir -p db/info db/updates; : >db/status; : >db/available; [ "$(id -u)" != 0 ] || { dpkg --force-script-chrootless --root="$D/r" --admindir="$D/db" -i x.deb >log 2>&1; tail -n 1 log; r/usr/bin/x; dpkg --root="$D/r" --admindir="$D/db" -i x.deb >log 2>&1; dpkg --root="$D/r" --admindir="$D/db" -r x >log 2>&1; ls r; }; rm -rf db log x.deb'
else
    t_skip O36-deb "dpkg-deb is not installed"
fi
# npm links and renames whole folders; it needs no network for a package in a folder or an archive.
if t_have npm && t_have node; then
    both O35-npm 'export npm_config_cache="$D/cache" npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false HOME="$D"; mkdir -p lib app; echo "{\"name\":\"lib\",\"version\":\"1.0.0\",\"main\":\"i.js\",\"bin\":\"b.js\"}" >lib/package.json; echo "module.exports = 42" >lib/i.js; printf "#!/usr/bin/env node\nconsole.log(\"bin\")\n" >lib/b.js; (cd lib && npm pack --silent); cd app; echo "{\"name\":\"app\",\"version\":\"1.0.0\"}" >package.json; npm install --silent --offline ../lib/lib-1.0.0.tgz 2>&1 | tail -2; node -e "console.log(require(\"lib\"), require.resolve(\"lib\").startsWith(process.cwd()))"; node_modules/.bin/lib; npm ls 2>&1 | grep -c lib@1.0.0; npm uninstall --silent lib; ls; ls node_modules 2>/dev/null; cd ..; rm -rf cache .npm app/package-lock.json app/node_modules'
    both O40-node 'cat >t.mjs <<E
import fs from "fs"; import fsp from "fs/promises";
await fsp.writeFile("a", "x".repeat(100000)); console.log((await fsp.readFile("a")).length, (await fsp.stat("a")).size); await fsp.cp("a", "b"); await fsp.mkdir("d/e", { recursive: true }); await fsp.cp("d", "f", { recursive: true });
await fsp.appendFile("b", "more"); console.log(fs.statSync("b").size, fs.existsSync("f/e"), (await fsp.readdir(".")).sort().join()); await fsp.rename("b", "d/b"); const h = await fsp.open("d/b", "r+"); await h.write("HEAD", 0); await h.sync(); await h.close(); console.log(fs.readFileSync("d/b", "utf8").slice(0, 6), fs.realpathSync("d/b").endsWith("d/b"));
fs.createReadStream("a").pipe(fs.createWriteStream("c")).on("close", async () => { console.log(fs.statSync("c").size); await fsp.rm("d", { recursive: true }); try { await fsp.readFile("none"); } catch (e) { console.log(e.code, e.errno); } console.log((await fsp.lstat("a")).isFile(), await fsp.access("a").then(() => "ok")); for (const n of ["a", "c"]) fs.unlinkSync(n); const l = await Promise.all([...Array(200).keys()].map(async i => { await fsp.writeFile("p" + i, "" + i); return +(await fsp.readFile("p" + i, "utf8")); })); console.log(l.reduce((a, b) => a + b)); });
E
UV_USE_IO_URING=0 node t.mjs; rm -rf p* f'
else
    t_skip O35-npm "node or npm is not installed"
fi
kfs_recheck
kfs_done
