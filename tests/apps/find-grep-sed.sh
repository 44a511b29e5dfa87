#!/usr/bin/env bash
# tests/apps/find-grep-sed.sh — findutils, grep, sed, awk on trees in the volume
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

lay='mkdir -p t/a/b t/c; for i in {1..30}; do printf "line %d\nneedle %d\nend\n" $i $((i % 7)) >t/a/f$i.txt; done; cp t/a/f1.txt t/a/b/g.c; cp t/a/f2.txt "t/c/with space"; ln -s ../a/f1.txt t/c/l; ln -s nowhere t/c/broken; : >t/empty; touch -d 2020-01-01 t/a/f1.txt; chmod 600 t/a/f2.txt; chmod +x t/a/b/g.c
'
both find "$lay"'find t | sort; find t -type f -name "*.txt" | wc -l; find t -type l -printf "%p -> %l\n" | sort; find t -empty | sort; find t -newer t/a/f1.txt -type f | wc -l; find t -perm 600; find t -size +0 -type f | wc -l; find -L t -type l; find t -maxdepth 1 | sort; find t -depth | tail -1; find t -samefile t/a/f1.txt; find t -path "*/b/*"; find t -regex ".*g\.c"; find t -links 1 -type f | wc -l; find t -name "f1*" -exec basename {} \; | sort; find t -name "*.txt" -exec cat {} + | wc; find t -type d -execdir pwd \; | sed "s#^$D##" | sort; find none; find "$D/t" -name g.c; find t -xdev -type d | wc -l; find t -inum $(stat -c %i t/empty); find t -type f -printf "%f %s %m %n\n" | sort | head -5; find . -mount -fstype none; cd t/a; find .. -name empty'
both find-changes "$lay"'find t -name "f[12]?.txt" -delete; find t | sort; find t -name "*.txt" -print0 | xargs -0 rm; find t | sort; find t -depth -exec rmdir {} \; 2>/dev/null; find t -type f -exec mv {} {}.bak \;; find t | sort; find t -delete; ls'
both grep "$lay"'grep -r needle t | sort | head -20; grep -rl "needle 3" t | sort; grep -rc needle t/a | sort | head -4; grep -n end t/a/f1.txt; grep x t; grep -r --include="*.c" line t; grep -rL "needle 0" t | sort | wc -l; grep needle none; grep -s needle none; echo $?; cd t/a && grep -h needle *.txt | sort | uniq -c; grep -q nothing f1.txt; echo $?; grep -R line ../c | sort; grep -rw 5 . | sort; grep -f <(echo "needle 2") -rl . | sort; zgrep needle f1.txt'
both sed-i "$lay"'sed -i s/needle/pin/ t/a/*.txt; grep -r pin t | wc -l; sed -i.bak "2d" t/a/f1.txt; cat t/a/f1.txt t/a/f1.txt.bak; sed -n 2p t/a/f3.txt; sed -i s/x/y/ none; sed -i s/x/y/ t; sed -i --follow-symlinks s/line/LINE/ t/c/l; cat t/a/f1.txt; stat -c %F t/c/l; sed -i s/end/END/ t/c/l; stat -c %F t/c/l; sed "w out" t/a/f4.txt; cat out; sed -s -n "\$p" t/a/f5.txt t/a/f6.txt; stat -c "%a" t/a/f2.txt; sed -e "r out" t/a/b/g.c; perl -pi -e s/END/FIN/ t/c/l; cat t/c/l; perl -i.orig -ne print t/a/f7.txt; ls t/a | wc -l'
both awk "$lay"'awk "/needle/{n[\$2]++} END{for(i=0;i<7;i++)print i, n[i]}" t/a/*.txt; awk "{print > (\"out\" NR)}" t/a/f1.txt; ls; cat out2; awk "{print | \"sort\"}" t/a/f9.txt; awk "BEGIN{while((getline l < \"t/a/f1.txt\")>0) print l}"; awk 1 none 2>&1 | tail -c 30 | wc -l'
both diff-patch "$lay"'cp -r t u; sed -i s/needle/NEEDLE/ u/a/f1?.txt; echo new >u/added; rm u/empty; diff -rN -U1 t u | sed "s/\t.*//" >p; wc -l <p; diff -rq t u | sort; (cd t && patch -p1 -s -E <../p); diff -r t u && echo equal; (cd t && patch -R -p1 -s -E <../p); diff -rq t u | wc -l; diff t/a/f1.txt none; diff -q t/a/f1.txt t/a/f2.txt; cmp t/a/f1.txt t/a/f2.txt; echo broken >bad; patch -s t/a/f1.txt <bad; patch -b -s t/a/f1.txt <<<"1c1
< line 1
---
> LINE 1"; cat t/a/f1.txt; ls t/a | grep orig; diff3 t/a/f1.txt t/a/f2.txt t/a/f3.txt | head -3; sdiff -s t/a/f1.txt t/a/f2.txt | wc -l'
kfs_recheck
kfs_done
