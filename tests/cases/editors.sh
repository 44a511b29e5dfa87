#!/usr/bin/env bash
# tests/cases/editors.sh — field cases: how editors and notebooks save
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

# Right: content is right, mode and link count kept, and nothing of swap, backup or probe files is left after a clean exit.
if t_have vim; then
    both O37-vim 'export HOME=$D TERM=dumb; for b in yes no auto; do for w in writebackup nowritebackup; do for f in fsync nofsync; do printf "one\ntwo\n" >f; chmod 640 f; vim -Nu NONE -es -c "set bkc=$b $w $f" -c "%s/two/2/" -c wq f </dev/null; echo "$b $w $f $?"; cat f; stat -c "%a %h" f; ls -A; done; done; done
ln f g; vim -Nu NONE -es -c "set bkc=auto" -c "s/one/1/" -c wq f </dev/null; stat -c "%h" f; cat g; ln -s f l; vim -Nu NONE -es -c "%s/2/3/" -c wq l </dev/null; cat f; stat -c %F l; vim -Nu NONE -es -c "set backup" -c "%s/3/4/" -c wq f </dev/null; ls -A; chmod 444 f; vim -Nu NONE -es -c "%s/4/5/" -c wq! f </dev/null; cat f; stat -c %a f; vim -Nu NONE -es -c "normal ihello" -c "w new" -c "q!" </dev/null; cat new; ls -A; rm -f .viminfo'
    # A killed editor leaves its swap file; the text is recovered from it.
    both O37-vim-recovers 'export HOME=$D TERM=dumb; printf "one\n" >f; (vim -Nu NONE -n -es -c "set swapfile uc=1" -c "s/one/two/" -c preserve -c "call system(\"kill -9 \" . getpid())" f </dev/null; true) 2>/dev/null; cat f; ls -A; vim -Nu NONE -r -es -c "w! got" -c "q!" f </dev/null; cat got 2>/dev/null; rm -f .f.sw?; vim -Nu NONE -es -c "s/one/three/" -c wq f </dev/null; cat f; rm -f .viminfo; ls -A'
else
    t_skip O37-vim "vim is not installed"
fi
if t_have emacs; then
    both O37-emacs 'export HOME=$D; printf "one\n" >f; chmod 640 f; emacs -Q --batch f --eval "(progn (insert \"x\") (save-buffer))" 2>/dev/null; cat f f~; stat -c %a f; ls -A'
else
    t_skip O37-emacs "emacs is not installed"
fi
if t_have nano && t_have script; then
    both O37-nano 'export HOME=$D TERM=vt100; printf "one\n" >f; printf "x\017\r\030" | script -qec "nano -w f" /dev/null >/dev/null 2>&1; cat f; ls -A'
else
    t_skip O37-nano "nano is not installed"
fi
# The saves of those that are not installed, call by call: probe file, backup by rename or copy, write, sync, mode and owner back.
both_py O37-saves-by-hand <<'E'
import os, shutil
def start(): open('f', 'w').write('one'); os.chmod('f', 0o640); os.utime('f', (5, 5))
start(); s = os.stat('f'); fd = os.open('4913', os.O_CREAT | os.O_WRONLY | os.O_EXCL | os.O_NOFOLLOW, 0o640); os.fchown(fd, -1, s.st_gid); os.close(fd); print(oct(os.stat('4913').st_mode)); os.unlink('4913')
os.rename('f', 'f~'); fd = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640); os.write(fd, b'two'); os.fsync(fd); os.fchmod(fd, s.st_mode & 0o777); os.close(fd); print(os.stat('f').st_ino != s.st_ino, open('f').read(), open('f~').read(), os.stat('f~').st_ino == s.st_ino); os.unlink('f~')
start(); s = os.stat('f'); shutil.copy2('f', 'f~'); fd = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640); os.write(fd, b'three'); os.fsync(fd); os.close(fd); t = os.stat('f'); print(t.st_ino == s.st_ino, oct(t.st_mode), open('f').read(), open('f~').read(), os.stat('f~').st_mtime); os.unlink('f~')
os.symlink('me@host.123:1', '.#f'); print(os.readlink('.#f'), os.path.exists('.#f')); os.unlink('.#f'); fd = os.open('#f#', os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600); os.write(fd, b'auto'); os.close(fd); os.rename('#f#', 'f'); print(open('f').read(), sorted(os.listdir('.')))
E

# A notebook is saved over itself with a hidden copy as the way back. Right: attributes can be copied, and after a failure the old text is back.
both_py O38-notebook <<'E'
import os, shutil
open('nb.ipynb', 'w').write('{"cells": []}'); os.chmod('nb.ipynb', 0o664)
def save(text, fail):
    shutil.copy2('nb.ipynb', '.~nb.ipynb'); shutil.copystat('nb.ipynb', '.~nb.ipynb')
    try:
        with open('nb.ipynb', 'w') as f:
            f.write(text[:5]); f.flush()
            if fail: raise RuntimeError
            f.write(text[5:])
    except RuntimeError: os.replace('.~nb.ipynb', 'nb.ipynb')
    else: os.remove('.~nb.ipynb')
save('{"cells": [1]}', False); print(open('nb.ipynb').read(), oct(os.stat('nb.ipynb').st_mode)); m = os.stat('nb.ipynb').st_mtime_ns; save('{"cells": [2]}', True); print(open('nb.ipynb').read(), oct(os.stat('nb.ipynb').st_mode), os.stat('nb.ipynb').st_mtime_ns == m, os.listdir('.'))
E
kfs_recheck
kfs_done
