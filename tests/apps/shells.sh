#!/usr/bin/env bash
# tests/apps/shells.sh — bash and dash: redirections, globs, cd, here-documents, descriptors
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

for s in bash dash; do
    t_have $s || { t_skip "$s" "not installed"; continue; }
    both -s $s $s-redirections 'echo a >f; echo b >>f; cat <f; cat f >g 2>&1; : >e; echo x >|f; set -C; (echo y >f) 2>/dev/null; echo "kept $?"; set +C; cat f; cat <none; echo $?; echo z >no/x; echo $?; echo w >.; echo $?; echo "$D" >"$D/abs"; cat "$D/abs" | wc -l; rm abs; { echo one; echo two >&2; } >o 2>err; cat o err; ls none 2>ls.err; cat ls.err; echo r <>rw; cat rw; exec 3>three; echo to three >&3; exec 3>&-; cat three; exec 4<f; read x <&4; echo "got $x"; exec 4<&-; exec 5<>f; read y <&5; echo more >&5; exec 5>&-; cat f'
    both -s $s $s-exec 'exec >log 2>&1; echo into the log; ls none; pwd | tail -c 4; (echo subshell); sh -c "echo child"; exec >&-; exec 2>&-'
    both -s $s $s-globs 'for i in 1 2 3; do : >f$i; mkdir -p d$i; : >d$i/g$i; done; : >.hid; echo *; echo f?; echo */*; echo [fd]2; echo .h*; echo none*; echo "$D"/f*; for x in d*/g*; do echo "$x"; done; echo d[!1]; cd d1; echo ../*; echo ../d2/*; rm ../f*; echo ../*; case f1 in f*) echo match;; esac'
    both -s $s $s-cd 'mkdir -p a/b c; ln -s a/b l; cd a/b; pwd; cd ..; pwd; cd ../l; pwd; pwd -P; cd ..; pwd; cd -P l; pwd; cd "$D"; cd none; echo $?; cd a; cd -; cd l/..; pwd; cd -P l/..; pwd; cd /; cd "$D/c"; pwd; cd; cd "$D"; (cd a && pwd); pwd; cd ./a/./b/../..; pwd; CDPATH=$D/a cd b; pwd; cd /tmp; cd "$OLDPWD"; pwd; rmdir "$D/a/b"; pwd; ls; cd ..; pwd; mkdir x; cd x; rmdir ../x; : >y; echo $?; cd ..; pwd'
    both -s $s $s-here-documents 'cat <<E >f
one $HOME
two $(echo sub)
E
cat f | tail -1; while read a b; do echo "$b-$a"; done <f; cat <<-E
	tabbed
	E
n=0; while read l; do n=$((n + 1)); done <f; echo $n; big=$(seq 20000); cat <<E | wc -c
$big
E
. ./f 2>/dev/null; echo "echo sourced \$1" >s; . ./s; sh s; sh <s; x=$(cat f | wc -l); echo "$x"; x=$(cat <f | head -1 | cut -c1-3); echo $x'
    both -s $s $s-shared-offset 'seq 20 >f; { read h; echo "first $h"; sort -rn | head -2; } <f; (head -1; cat) <f | wc -l; { head -n 2; tail -n 1; } <f; (sed -n 1q; cat) <f | head -2; while read x; do echo "$x"; [ "$x" = 3 ] && break; done <f; exec 3<f; read a <&3; read b <&3; cat <&3 | head -1; echo "$a $b"; exec 3<&-; (echo 1; echo 2) >o; { echo a; sh -c "echo b"; cat f; } >p; wc -l p; { cat; echo end >>f; } <f | tail -1'
    both -s $s $s-jobs '(for i in 1 2 3; do echo $i; done >bg) & wait; cat bg; echo x | tee t1 | cat >t2; cat t1 t2; mkfifo "$H/p"; (cat "$H/p" >from) & echo through >"$H/p"; wait; cat from; rm "$H/p"; trap "echo trapped >tr" EXIT; sh -c "exit 3"; echo $?; (exit 4); echo $?; false | true; echo $?; test -f bg && [ -s bg ] && echo ok; [ -e none ] || echo absent; umask; umask 077; : >private; ls -l private | cut -c1-10; ulimit -f >/dev/null; kill -0 $$ && echo alive'
    both -s $s $s-scripts 'printf "#!/bin/%s\necho \"I am \$0 with \$*\"; cd \$(dirname \"\$0\") && pwd; exit 9\n" '$s' >run; chmod +x run; ./run a b; echo $?; "$D/run" c; PATH=$D:$PATH; run d; mkdir bin; mv run bin/tool; PATH=$D/bin:$PATH tool e; command -v tool; printf "echo plain\n" >np; chmod +x np; ./np; chmod -x np; ./np; echo $?; ./none; echo $?; ./bin; echo $?; type tool >/dev/null && echo known; hash -r'
done
both bash-only 'shopt -s globstar nullglob dotglob extglob; mkdir -p a/b/c; : >a/b/c/f; : >a/.h; echo **/*; echo none*; echo a/!(b); mapfile -t m < <(ls -d a/**); echo ${#m[@]}; cat <<<here >f; read -r x <f; echo $x; diff <(cat f) <(echo here) && echo same; exec {fd}<f; read -r -u $fd y; echo $y; exec {fd}<&-; coproc cat >cp; echo hi >&${COPROC[1]}; exec {COPROC[1]}>&-; wait; cat cp; echo &>both-out; [[ f -nt a/.h ]]; [[ -v x ]] && echo set; pushd a >/dev/null; dirs -l | sed "s#$D#D#g"; popd >/dev/null; pwd; printf -v z "%(%Y)T" 0; echo $z; compgen -f a | head; x=$(<f); echo "$x"; for f in **/f; do echo "$f"; done; echo {a..c} >br; cat br; set -o noclobber; echo n >br || echo clobber; echo y >|br; history -w hist; test -e hist && rm hist; source /dev/stdin <<<"echo from stdin"; time -p true 2>/dev/null; ls | while read -r n; do echo "[$n]"; done'
both bash-login 'export HOME=$D; echo "echo profile" >.bash_profile; bash -l -c "echo login" ; echo "alias x=y; echo rc" >.bashrc; bash --rcfile .bashrc -i -c "echo inter; cd ~; pwd" 2>/dev/null; cd ~ && pwd; ls -a; bash -c "exec -a name sh -c \"echo \\\$0\""; env HOME="$D" sh -c "cd; pwd"; echo "echo \$BASH_SOURCE" >s; bash s; bash -x s 2>trace; cat trace; bash < s; bash -s a b <<<"echo \$2"; (ulimit -n 64; cat s)'
kfs_recheck
kfs_done
