#!/usr/bin/env bash
# tests/cases/locks.sh — field cases: locks between programs of one node
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Downloaders that share a folder lock a file, write their pid and go on. Right: everybody gets in, nobody sees ENOSYS or ENOLCK.
both O01-flock-command 'flock x.lock -c "echo in"; flock -n x.lock -c "echo in again"; rm x.lock'
both_py O01-twenty-lockers <<'E'
import fcntl, os, time
def locker(i):
    while True:
        fd = os.open('x.lock', os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd); time.sleep(0.01); continue
        if os.path.exists('inside'): os._exit(2)
        open('inside', 'x').close(); os.write(fd, b'%d' % os.getpid()); open('order', 'a').write(f'{i}\n'); os.unlink('inside')
        fcntl.flock(fd, fcntl.LOCK_UN); os.close(fd); os._exit(0)
for i in range(20):
    if os.fork() == 0:
        try: locker(i)
        except BaseException as e: print(i, repr(e), flush=True); os._exit(1)
print([os.wait()[1] for i in range(20)], sorted(map(int, open('order')))); os.remove('order'); os.remove('x.lock')
E

# A lock that is granted to everybody is worse than none. Right: EWOULDBLOCK while another open holds it, granted when its last descriptor is gone.
both_py O02-exclusive <<'E'
import fcntl, os, subprocess, sys
open('a', 'w').close()
child = '''import fcntl, os, errno
fd = os.open('a', os.O_RDWR)
try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); print('got', flush=True)
except OSError as e: print(errno.errorcode[e.errno], flush=True)'''
def ask(): subprocess.run([sys.executable, '-c', child])
fd = os.open('a', os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); ask()
two = os.dup(fd); os.close(fd); ask()
os.rename('a', 'b'); os.rename('b', 'a'); ask()
w = open('a', 'w'); w.write('content'); w.close(); ask()  # a commit in between
os.close(two); ask()
# the inode's cache file changes its place between live and clean: a lock on either is the same lock
fd = os.open('a', os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX); ask(); ask(); os.close(fd); ask()
E

# Two processes that wait for each other's record lock. Right: one of them gets EDEADLK, the other goes on.
both_py O03-deadlock <<'E'
import fcntl, os, errno
fd = os.open('a', os.O_RDWR | os.O_CREAT); os.write(fd, b'x' * 300)
r1, w1 = os.pipe(); r2, w2 = os.pipe(); ro, wo = os.pipe()
def side(mine, other, tell, hear):
    f = os.open('a', os.O_RDWR)
    fcntl.lockf(f, fcntl.LOCK_EX, 1, mine); os.write(tell, b'x'); os.read(hear, 1)
    try: fcntl.lockf(f, fcntl.LOCK_EX, 1, other); os.write(wo, b'got ')
    except OSError as e: os.write(wo, errno.errorcode[e.errno].encode() + b' ')
    os._exit(0)
if os.fork() == 0: side(100, 200, w1, r2)
if os.fork() == 0: side(200, 100, w2, r1)
os.wait(); os.wait(); print(sorted(os.read(ro, 100).split()))
E

# Scientific file formats lock at open. Right: shared with shared works, exclusive is refused meanwhile, read-only descriptors may lock.
both_py O04-shared-then-exclusive <<'E'
import fcntl, os, errno
def lock(fd, how):
    try: fcntl.flock(fd, how | fcntl.LOCK_NB); return 'ok'
    except OSError as e: return errno.errorcode[e.errno]
def elsewhere(mode, how):
    r, w = os.pipe()
    if os.fork() == 0:
        os.write(w, lock(os.open('f', mode), how).encode()); os._exit(0)
    os.wait(); return os.read(r, 20).decode()
open('f', 'w').write('HDF'); os.chmod('f', 0o444)
a = os.open('f', os.O_RDONLY); print(lock(a, fcntl.LOCK_SH), elsewhere(os.O_RDONLY, fcntl.LOCK_SH), elsewhere(os.O_RDONLY, fcntl.LOCK_EX)); os.close(a)
print(elsewhere(os.O_RDONLY, fcntl.LOCK_EX)); a = os.open('f', os.O_RDONLY); print(lock(a, fcntl.LOCK_EX), elsewhere(os.O_RDONLY, fcntl.LOCK_SH)); os.close(a)
os.chmod('f', 0o644); a = os.open('f', os.O_RDWR); print(lock(a, fcntl.LOCK_EX), elsewhere(os.O_RDONLY, fcntl.LOCK_SH)); os.write(a, b'more'); os.close(a); print(elsewhere(os.O_RDWR, fcntl.LOCK_EX))
for n in range(3):  # writer, close, reader, close
    w = os.open('f', os.O_RDWR); print(lock(w, fcntl.LOCK_EX)); os.write(w, b'x' * 5000); os.close(w); r = os.open('f', os.O_RDONLY); print(lock(r, fcntl.LOCK_SH)); os.close(r)
E
if "$PY" -c 'import h5py' 2>/dev/null; then
    both_py O04-h5py <<'E'
import h5py, subprocess, sys
with h5py.File('f.h5', 'w') as f: f['x'] = list(range(1000))
r = h5py.File('f.h5', 'r'); print(sum(r['x'][:]))
try: h5py.File('f.h5', 'a'); print('opened')
except OSError: print('refused')
r.close(); h5py.File('f.h5', 'a').close(); print(subprocess.run([sys.executable, '-c', 'import h5py; print(sum(h5py.File("f.h5")["x"][:]))']).returncode)
E
else
    t_skip O04-h5py "h5py is not installed"
fi

# A wait for a lock while a timer's signals come. Right: goes on with SA_RESTART, EINTR without; no other number ever.
cat >"$T/wait.c" <<'C'
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
static void nothing(int s) { (void)s; }
int main(void)
{
    for (int kind = 0; kind < 4; kind++) {
        int restart = kind & 1, record = kind >> 1, p[2], fd = open("l", O_RDWR | O_CREAT, 0644);
        struct flock k = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (pipe(p)) return 1;
        pid_t pid = fork();
        if (pid == 0) {
            fd = open("l", O_RDWR);
            if (record ? fcntl(fd, F_SETLK, &k) : flock(fd, LOCK_EX)) printf("first: %m\n");
            if (write(p[1], "x", 1) != 1) _exit(1);
            usleep(400000);
            _exit(0);
        }
        char c;
        if (read(p[0], &c, 1) != 1) return 1;
        struct sigaction a = {.sa_handler = nothing, .sa_flags = restart ? SA_RESTART : 0};
        sigaction(SIGALRM, &a, NULL);
        struct itimerval t = {{0, 50000}, {0, 50000}}, none = {{0, 0}, {0, 0}};
        setitimer(ITIMER_REAL, &t, NULL);
        int rc = record ? fcntl(fd, F_SETLKW, &k) : flock(fd, LOCK_EX);
        int e = errno;
        setitimer(ITIMER_REAL, &none, NULL);
        printf("record %d restart %d: %s\n", record, restart, rc ? strerror(e) : "got");
        fflush(stdout);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) ;
        close(fd);
    }
}
C
if t_have cc && cc -D_GNU_SOURCE -O1 -o "$T/wait" "$T/wait.c" 2>/dev/null; then
    export WAIT=$T/wait
    both O05-signals-while-waiting '"$WAIT"'
else
    t_skip O05-signals-while-waiting "no C compiler"
fi
kfs_recheck
kfs_done
