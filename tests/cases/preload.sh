#!/usr/bin/env bash
# tests/cases/preload.sh — field cases: ways around a preloaded library
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Runtimes that call the kernel by number, or by a ring. Right: served; or a clean error at open, never other data or an early end of file.
cat >"$T/raw.c" <<'C'
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
    char buf[100] = {0};
    struct stat st;
    long fd = syscall(SYS_openat, AT_FDCWD, "f", O_RDONLY);
    long n = syscall(SYS_read, fd, buf, 99);
    printf("%d %ld %s\n", fd >= 0, n, buf);
    printf("%ld %ld\n", syscall(SYS_newfstatat, AT_FDCWD, "f", &st, 0), (long)st.st_size);
    printf("%ld\n", syscall(SYS_unlink, "g"));
    printf("%ld\n", syscall(SYS_access, "f", R_OK));
    memset(buf, 0, sizeof buf);
    printf("%ld\n", syscall(SYS_readlink, "l", buf, 99L));
    printf("%ld %ld\n", syscall(SYS_mkdirat, AT_FDCWD, "m", 0755), syscall(SYS_rename, "m", "n"));
    printf("%ld\n", syscall(SYS_close, fd));
}
C
if t_have cc && cc -D_GNU_SOURCE -O1 -o "$T/raw" "$T/raw.c" 2>/dev/null; then
    export RAW=$T/raw
    both O40-calls-by-number 'echo text >f; : >g; ln -s f l; "$RAW"; ls'
else
    t_skip O40-calls-by-number "no C compiler"
fi
if [ -z "$KFS_PLAIN" ] && t_have node; then
    out=$(krun bash -c 'cd "$P" && echo content >uv && UV_USE_IO_URING=1 node -e "require(\"fs\").promises.readFile(\"uv\", \"utf8\").then(s => console.log(s.trim()), e => console.log(e.code))"' 2>&1)
    t_check O40-node-with-a-ring '[ "$out" = content ] || [ "$out" = ENOENT ]' "$out"
else
    t_skip O40-node-with-a-ring "node is not installed"
fi

# Static programs. Right: a plain "no such file", a hint by --check, inherited descriptors work, and nothing is written beside the volume.
if [ -z "$KFS_PLAIN" ] && t_have cc && printf '#include <stdio.h>\n#include <stdlib.h>\nint main(int c, char **v) { FILE *f = c > 1 ? fopen(v[1], v[2]) : stdin; if (!f) { perror("open"); return 1; } char b[99]; if (fgets(b, 99, f)) fputs(b, stdout); return 0; }\n' >"$T/s.c" && cc -static -o "$T/s" "$T/s.c" 2>/dev/null; then
    krun sh -c 'echo inherited >"$P/st"; "$T/s" <"$P/st"; "$T/s" "$P/st" r; "$T/s" "$P/new" w' >"$T/o" 2>&1
    t_check O41-static-program '[ "$(tr "\n" " " <"$T/o")" = "inherited open: No such file or directory open: No such file or directory " ] && [ ! -e "$P" ]' "$(cat "$T/o")"
    "$KFS_BIN/kfs-run" --check "$T/s" >"$T/o" 2>&1
    t_check O41-static-hint "[ $? = 1 ] && grep -qi static \"\$T/o\"" "$(cat "$T/o")"
else
    t_skip O41-static-program "no static libc"
fi

# Steps of a job that clear the environment. Right: they see the volume all the same.
both O42-emptied-environments 'echo text >f; env -i /bin/cat f; env -i /bin/sh -c "cat f; env -i /bin/cat f"; env -i "$PY" -c "print(open(\"f\").read())"; "$PY" -c "
import subprocess, os
print(subprocess.run([\"/bin/cat\", \"f\"], env={}, capture_output=True)); print(subprocess.run([\"/bin/cat\", \"f\"], env={\"LD_PRELOAD\": \"\"}, capture_output=True).stdout)
p = os.posix_spawn(\"/bin/cat\", [\"cat\", \"f\"], {}); os.waitpid(p, 0); os.environ.clear(); subprocess.run([\"/bin/cat\", \"f\"]); os.execve(\"/bin/cat\", [\"cat\", \"f\"], {})"; timeout 5 cat f; echo f | xargs cat; nohup cat f 2>/dev/null; setsid -w cat f; nice cat f; (exec -c /bin/cat f); env -u LD_PRELOAD cat f; LD_PRELOAD= cat f; unset LD_PRELOAD; cat f; "$PY" -c "import subprocess; subprocess.run(\"cat f\", shell=True, env={})"; perl -e "%ENV = (); exec \"/bin/cat\", \"f\"" 2>/dev/null || cat f'
# What such a step prints of its environment beyond ours: nothing.
both O42-nothing-else-is-added 'env -i /usr/bin/env | grep -vE "^(LD_PRELOAD|KFS_)" ; env -i A=1 /usr/bin/env | grep -vE "^(LD_PRELOAD|KFS_)"'

# Other preloaded libraries. Right: they stay, in both orders and both kinds of lists; nothing recurses.
if t_have cc && printf '#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n#include <unistd.h>\n#include <fcntl.h>\nint open(const char *p, int f, ...) { int (*real)(const char *, int, int) = (int (*)(const char *, int, int))dlsym(RTLD_NEXT, "open"); return real(p, f, 0644); }\n__attribute__((constructor)) static void start(void) { dprintf(1, "other preload: started\\n"); }\n' >"$T/other.c" && cc -shared -fPIC -o "$T/other.so" "$T/other.c" -ldl 2>/dev/null; then
    export OTHER=$T/other.so EMPTY=$T/empty.so
    echo 'int kfs_test_unused_name;' | cc -shared -fPIC -x c -o "$T/empty.so" -
    both O43-two-preloads 'echo text >f; own=${LD_PRELOAD:-}; LD_PRELOAD="$own $OTHER" cat f; LD_PRELOAD="$OTHER $own" cat f; LD_PRELOAD="$OTHER:$own" cat f; LD_PRELOAD="$own:$EMPTY:$OTHER" cat f; LD_PRELOAD=$OTHER cat f; LD_PRELOAD="$OTHER" bash -c "cat f; env -i /bin/cat f"; LD_PRELOAD=$OTHER "$PY" -c "import os; os.close(os.open(\"g\", os.O_CREAT | os.O_WRONLY))"; ls'
    if [ -z "$KFS_PLAIN" ]; then
        n=0
        for list in "$T/other.so" "$T/empty.so:$T/other.so" "$T/empty.so $T/other.so"; do
            n=$((n + 1))
            LD_PRELOAD=$list krun cat "$P/O43-two-preloads/f" >"$T/o" 2>&1
            t_check "O43-before-kfs-run-$n" 'grep -q text "$T/o" && grep -q "other preload: started" "$T/o"' "$(cat "$T/o")"
        done
    fi
else
    t_skip O43-two-preloads "no C compiler"
fi
jem=$(ls /usr/lib/*/libjemalloc.so.2 2>/dev/null | head -n 1)
if [ -n "$jem" ]; then
    export JEM=$jem
    both O43-allocator 'echo text >f; own=${LD_PRELOAD:-}; LD_PRELOAD="$own $JEM" cat f; LD_PRELOAD="$JEM $own" "$PY" -c "import os; print(open(\"f\").read(), os.listdir(\".\"))"; LD_PRELOAD=$JEM sh -c "cat f | cat; (cat f)"; LD_PRELOAD="$JEM:$own" "$PY" -c "
import threading
def go():
    for i in range(50): open(\"f\").read()
ts = [threading.Thread(target=go) for i in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]; print(\"done\")"'
else
    t_skip O43-allocator "jemalloc is not installed"
fi
if t_have fakeroot; then
    both -n O43-fakeroot 'umask 022; fakeroot sh -c "echo x >f; chown 5:6 f; stat -c \"%u %g\" f; mkdir d; chown 7 d; tar cf t.tar f d; tar tvf t.tar | cut -c1-20; cp -a f g; stat -c %u g; rm t.tar; ls"; chown "$(id -u):$(id -g)" f g d'
else
    t_skip O43-fakeroot "fakeroot is not installed"
fi
if t_have cc && printf '#include <stdio.h>\n#include <stdlib.h>\nint main(void) { FILE *f = fopen("f", "r"); char *b = malloc(100); if (!f || !fgets(b, 100, f)) return 1; fputs(b, stdout); fclose(f); free(b); return 0; }\n' >"$T/a.c" && cc -fsanitize=address -static-libasan -o "$T/a" "$T/a.c" 2>/dev/null; then
    export ASANED=$T/a
    both O43-sanitized-program 'echo text >f; ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "$ASANED"; echo $?'
else
    t_skip O43-sanitized-program "no address sanitizer"
fi

# The library cannot be loaded. Right: kfs-run says so and starts nothing.
if [ -z "$KFS_PLAIN" ] && t_wanted O45; then
    mkdir -p "$T/inst/bin" "$T/inst/lib"
    cp "$KFS_BIN/kfs-run" "$KFS_BIN/kfsd" "$T/inst/bin/"
    for kind in absent empty text other-machine cut-off directory; do
        rm -rf "$T/inst/lib/libkfs.so"
        case $kind in
        empty) : >"$T/inst/lib/libkfs.so" ;;
        text) echo "not a library" >"$T/inst/lib/libkfs.so" ;;
        other-machine) "$PY" -c 'import sys; b = bytearray(open(sys.argv[1], "rb").read()); b[18:20] = b"\x16\0"; open(sys.argv[2], "wb").write(b)' "$(realpath "$KFS_LIB")" "$T/inst/lib/libkfs.so" ;;
        cut-off) head -c 60000 "$KFS_LIB" >"$T/inst/lib/libkfs.so" ;;
        directory) mkdir "$T/inst/lib/libkfs.so" ;;
        esac
        env -u LD_PRELOAD timeout 20 "$T/inst/bin/kfs-run" --create --at "$P=$URL" -- sh -c 'echo ran; echo x >"$P/ck"' >"$T/o" 2>"$T/e"
        rc=$?
        t_check "O45-library-$kind" '[ $rc = 1 ] && [ ! -s "$T/o" ] && grep -q "libkfs.so" "$T/e" && [ ! -e "$P" ]' "rc $rc $(cat "$T/o" "$T/e")"
    done
fi

# The service is off. Right: programs that touch none of its files run as without it.
if [ -z "$KFS_PLAIN" ] && t_wanted O47; then
    krun env -0 >"$T/env"
    kfsd_stop TERM
    mkdir -p "$T/loc"
    cat >"$T/off.sh" <<'E'
cd "$1" && seq 100 >a && cp -a a b && mkdir d && mv b d/ && tar cf t.tar a d && tar tf t.tar && ls -l a | cut -c1-10 && rm -r d && find . | sort && "$PY" -c '
import os, subprocess, ctypes, tempfile, glob
print(open("a").read(5), sorted(os.listdir(".")), glob.glob("*"), os.stat("a").st_size)
for f in (lambda: os.close(-1), lambda: os.fstat(-1), lambda: os.dup(-1), lambda: os.read(-1, 1), lambda: os.fsync(-1), lambda: os.ftruncate(-1, 0), lambda: os.listdir(-1), lambda: os.fchmod(-1, 0), lambda: os.fchdir(-1), lambda: os.open("x", 0, dir_fd=-1) , lambda: os.stat(""), lambda: os.open("", 0)):
    try: print(f())
    except OSError as e: print(e.errno)
libc = ctypes.CDLL(None, use_errno=True)
for n in ("open", "stat", "lstat", "access", "unlink", "rmdir", "mkdir", "chdir", "chmod", "truncate", "readlink", "statfs", "creat"):
    print(n, getattr(libc, n)(None, None, 0), ctypes.get_errno())
print(subprocess.run(["cat", "a"], capture_output=True).stdout[:4])
class aiocb(ctypes.Structure): _fields_ = [("fd", ctypes.c_int), ("op", ctypes.c_int), ("prio", ctypes.c_int), ("buf", ctypes.c_void_p), ("n", ctypes.c_size_t), ("pad", ctypes.c_char * 200)]
b = ctypes.create_string_buffer(10); cb = aiocb(os.open("a", 0), 0, 0, ctypes.addressof(b), 5); l = (ctypes.c_void_p * 1)(ctypes.addressof(cb)); print(libc.lio_listio(0, l, 1, None), libc.aio_return(ctypes.byref(cb)), b.value)
'; ! command -v gcc >/dev/null || { echo 'int main(void) { return 3; }' >x.c; gcc -o x x.c && ./x; echo $?; }
E
    mkdir -p "$T/loc/a" "$T/loc/b"
    env -u LD_PRELOAD bash "$T/off.sh" "$T/loc/a" >"$T/o" 2>&1
    mapfile -d '' -t vars <"$T/env"
    env "${vars[@]}" bash "$T/off.sh" "$T/loc/b" >"$T/o2" 2>&1
    t_check O47-service-off 'cmp -s "$T/o" "$T/o2" && [ -s "$T/o" ]' "$(diff "$T/o" "$T/o2" | head -n 6)"
    t_check O47-none-was-started '[ -z "$(kfsd_pid)" ]'
fi

# Things that libraries open by themselves, on the volume. Right: found, or a plain "not there" as docs/internals/exec.md says; never half.
both O49-loaded-from-the-volume 'echo "int f(void) { return 42; }" >l.c; ! command -v cc >/dev/null || { cc -shared -fPIC -o libl.so l.c; printf "int f(void); int main(void) { return f(); }" >m.c; cc -o m m.c -L. -ll; LD_LIBRARY_PATH=$D ./m; echo $?; LD_LIBRARY_PATH=. ./m; echo $?; "$PY" -c "import ctypes; print(ctypes.CDLL(\"$D/libl.so\").f(), ctypes.CDLL(\"./libl.so\").f())"; }; rm -f m libl.so; mkdir -p z/Odd; cp /usr/share/zoneinfo/Asia/Tokyo z/Odd/Zone 2>/dev/null && PYTHONTZPATH=$D/z "$PY" -c "import zoneinfo, datetime; print(datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo(\"Odd/Zone\")).utcoffset())"; rm -rf z'

# kfsd is killed while locks, maps and listings are in use. Right: descriptors, maps and locks stay, calls go on with its successor.
if [ -z "$KFS_PLAIN" ] && t_wanted O58; then
    cat >"$T/held.py" <<'E'
import fcntl, mmap, os, signal, subprocess, sys, threading
os.chdir(sys.argv[1]); open('lk', 'w').write('x' * 10000); fd = os.open('lk', os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); m = mmap.mmap(fd, 10000); os.mkdir('many'); [open(f'many/{i}', 'w').close() for i in range(300)]
it = os.scandir('many'); first = [next(it).name for i in range(10)]; w = open('w', 'w'); w.write('before '); w.flush(); stop = []; errors = []
def mixed():
    n = 0
    while not stop:
        try:
            open(f'mix{n % 5}', 'w').write(str(n)); assert open(f'mix{n % 5}').read() == str(n); os.listdir('many'); n += 1
        except Exception as e: errors.append(repr(e)); return
t = threading.Thread(target=mixed); t.start()
def other(): return subprocess.run([sys.executable, '-c', 'import fcntl, os\ntry: fcntl.flock(os.open("lk", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB); print("got")\nexcept OSError: print("held")'], capture_output=True, text=True).stdout.strip()
for k in range(3):
    pid = int(next(l for l in open(sys.argv[2]) if l.startswith('pid ')).split()[1]); os.kill(pid, signal.SIGKILL); m[k] = 65 + k; w.write(f'{k} '); w.flush(); open(f'after{k}', 'w').write('new'); print(other(), os.pread(fd, 1, k), open('w').read())
stop.append(1); t.join(); rest = [e.name for e in it]; print(len(set(first + rest)), len(first + rest), errors); w.close(); m.close(); os.close(fd); print(other(), open('w').read(), open('lk').read(3), sorted(n for n in os.listdir('.') if n[0] == 'a'))
E
    krun "$PY" "$T/held.py" "$P" "$T/vol.db.lock" >"$T/o" 2>&1
    t_check O58-killed-with-locks-and-maps "[ \"\$(tr '\\n' '|' <\"\$T/o\")\" = \"held b'A' before 0 |held b'B' before 0 1 |held b'C' before 0 1 2 |300 300 []|got before 0 1 2  ABC ['after0', 'after1', 'after2']|\" ]" "$(cat "$T/o")"
fi
kfs_recheck
kfs_done
