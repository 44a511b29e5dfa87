#!/usr/bin/env bash
# tests/cases/users.sh — field cases with several users: one kfsd for all of them, programs that change theirs
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
t_root && t_have setpriv || { t_skip users "needs root and setpriv"; kfs_done; }
if [ -z "$KFS_PLAIN" ]; then
    mkdir -p "$T/shared"
    chmod 755 "$T" "$T/shared"
    mkfifo "$T/ready"
    "$KFS_BIN/kfsd" --foreground --create --run-dir "$T/shared" --ready-fd 7 "$URL" 7>"$T/ready" 2>"$T/users.log" &
    read -r line <"$T/ready"
    case $line in ok*) ;; *) t_fail kfsd-for-all "$line"; kfs_done ;; esac
    if ! setpriv --reuid 65534 --regid 65534 --clear-groups test -r "$KFS_LIB"; then
        t_skip users "another user cannot reach '$KFS_LIB'"
        kfs_done
    fi
fi
export -f t_have
export AS='setpriv --reuid 65534 --regid 65534 --clear-groups' GROUP='setpriv --reuid 65533 --regid 65533 --groups 65534'

# A module cache has directories of mode 0555. Right: EACCES for what lies in them, everything else goes.
both O15-read-only-directories 'chmod 777 .; $AS mkdir -p m/a m/b && $AS touch m/a/1 m/a/2 m/b/1 && $AS chmod 555 m/a; $AS rm -rf m 2>&1 | sort; ls m m/a; $AS chmod -R u+w m; $AS rm -rf m; ls'

# A file made writable elsewhere. Right: access() and open see it at once.
both_py O26-access-after-chmod <<'E'
import os, subprocess, sys
open('nb', 'w').close()
p = subprocess.Popen([sys.executable, '-c', '''import os, sys
if os.getuid() == 0: os.setresgid(65534, 65534, 0); os.setresuid(65534, 65534, 0)
for l in sys.stdin: print(os.access('nb', os.W_OK), os.access('nb', os.R_OK), flush=True)'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for m in (0o444, 0o666, 0o400, 0o000, 0o646, 0o644, 0o602) * 5: os.chmod('nb', m); p.stdin.write('\n'); p.stdin.flush(); print(oct(m), p.stdout.readline().strip() if os.getuid() == 0 else '')
p.stdin.close(); p.wait()
E

# git's way as a plain user. Right: lock file, sync and rename over work; a stranger's file is replaced if the directory is writable.
both O31-as-a-user 'chmod 777 .; $AS "$PY" -c "
import os
os.umask(0o077); fd = os.open(\"lock\", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444); os.write(fd, b\"new\"); os.fsync(fd); os.fchmod(fd, 0o444); os.close(fd)
open(\"config\", \"w\").write(\"old\"); os.chmod(\"config\", 0o644); os.rename(\"lock\", \"config\"); print(open(\"config\").read()); r = os.open(\"config\", os.O_RDONLY); os.fsync(r)
try: open(\"config\", \"w\")
except OSError as e: print(e)
os.chmod(\"config\", 0o600); open(\"config\", \"a\").write(\"er\"); print(open(\"config\").read())"; echo x >theirs; $AS sh -c "echo y >z; mv -f z theirs"; cat theirs; chmod 1777 .; echo x >theirs2; $AS sh -c "echo y >z; mv -f z theirs2" 2>&1; ls'

# Saving as a member of the file'\''s group. Right: in place the owner stays; set-id bits go when somebody else writes.
both O37-group-member 'mkdir -m 2775 g; chgrp 65534 g; $AS sh -c "umask 002; echo one >g/f"; $GROUP sh -c "echo two >>g/f; umask 002; echo n >g/new"; stat -c "%u %g %a %n" g/*; cat g/f; chmod 6775 g/f; $GROUP sh -c "echo three >>g/f"; stat -c %a g/f; $GROUP chmod 600 g/f; $GROUP touch -d 2020-01-01 g/f; $GROUP touch g/f && echo touched; $GROUP sh -c "cp g/f g/t && mv g/t g/f"; stat -c "%u %g %a" g/f; cp -p g/f g/p; stat -c "%u %g" g/p'

# A package unpacker makes files, gives them away and sets their bits. Right: set-user bits set after the last write stay.
both O36-bits-after-the-last-write '"$PY" -c "
import os
for i in range(40):
    fd = os.open(\"x%d.new\" % i, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0); os.posix_fallocate(fd, 0, 5000); os.write(fd, b\"e\" * 5000); os.fchown(fd, i, i + 1); os.fchmod(fd, 0o4755 if i % 2 else 0o2755); os.fsync(fd); os.close(fd)
    os.utime(\"x%d.new\" % i, ns=(5, 10**18 + i)); open(\"x%d\" % i, \"w\").close(); os.link(\"x%d\" % i, \"x%d.old\" % i); os.rename(\"x%d.new\" % i, \"x%d\" % i); os.unlink(\"x%d.old\" % i)
"; stat -c "%n %a %u %g %s %Y" x*'

# An image of all users: identities change inside one process. Right: the next call is that of the new one.
both_py O42-dropped-privileges <<'E'
import os, errno
os.chmod('.', 0o777); open('root', 'w').write('secret'); os.chmod('root', 0o600); fd = os.open('root', os.O_RDONLY); open('mine', 'w').close(); os.chown('mine', 65534, 65534); os.mkdir('shut', 0o700); open('shut/f', 'w').close()
def t(f, *a):
    try: r = f(*a); print(f.__name__, a, 'ok')
    except OSError as e: print(f.__name__, a, errno.errorcode[e.errno])
def all_(): t(open, 'root'); t(os.stat, 'shut/f'); t(os.listdir, 'shut'); t(open, 'mine', 'a'); t(os.chmod, 'root', 0o600); t(os.mkdir, f'd{os.geteuid()}'); t(os.access, 'root', os.R_OK)
all_(); os.setegid(65534); os.seteuid(65534); all_(); os.seteuid(0); os.setegid(0); t(open, 'root'); os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534); all_(); print(os.read(fd, 10)); t(os.seteuid, 0); open('new', 'w').close(); print(os.stat('new').st_uid)
E
[ -n "$KFS_PLAIN" ] || kfsd_stop TERM
kfs_recheck
kfs_done
