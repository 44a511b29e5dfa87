#!/usr/bin/env bash
# tests/apps/archives.sh — tar, gzip and their like, rsync
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

lay='mkdir -p t/sub/deep; for i in {1..20}; do seq $((i * 100)) >t/f$i; done; head -c 300000 /dev/zero >t/zeros; ln -s f1 t/link; ln -s /etc/hostname t/abs; ln t/f2 t/sub/hard; chmod 640 t/f3; chmod 755 t/f4; : >t/empty; mkdir t/emptydir; long=$(printf "n%.0s" {1..200}); echo long >t/$long; find t -exec touch -h -d "2021-01-02 03:04:05.678901234" {} +
'
both -m tar "$lay"'tar cf a.tar --sort=name t; mkdir x; tar xf a.tar -C x; diff -r --no-dereference t x/t && echo same; tar tvf a.tar | sort | sed "s/ *[0-9]* 20/ 20/" | head -40; tar df a.tar && echo no difference; tar czf a.tgz --sort=name t; tar xzf a.tgz -O t/f1 | head -1; mkdir y; tar xzpf a.tgz -C y --numeric-owner; echo more >t/new; tar rf a.tar t/new; tar tf a.tar | tail -1; tar uf a.tar t/f1; rm -rf x; tar xf a.tar t/sub; tar cf - t | tar xf - -C y; tar xf none.tar; tar xkf a.tar 2>&1 | wc -l; touch -d @0 t/new y/t/new; rm a.tar a.tgz; tar cf "$H/out.tar" -C "$D" y; mkdir "$H/x"; tar xf "$H/out.tar" -C "$H/x"; rm "$H/out.tar"'
both -m tar-into 'tar cf "$H/in.tar" -C /usr/share/doc --mtime=@1 --owner=0 --group=0 --sort=name bash base-files 2>/dev/null || mkdir none; tar xf "$H/in.tar"; find . | sort; rm "$H/in.tar"'
both tar-sparse 'truncate -s 50M s; echo end >>s; tar cSf s.tar s; stat -c %s s; mkdir x; tar xf s.tar -C x; cmp s x/s && echo same; k=$(du -k x/s | cut -f1); [ $k -lt 2000 ] && echo sparse; rm s.tar'
both gzip 'seq 5000 >f; touch -d 2020-01-01 f; gzip -n -k f; zcat f.gz | cmp - f && echo same; gzip -l f.gz | tail -1 | sed "s#$D##"; cp -p f g; gzip g; ls; gunzip g.gz; cmp f g && echo same; gzip -t f.gz && echo good; stat -c %y g; gzip none; gzip f; echo $?; gzip -d -c f.gz | tail -1; zgrep -c 7 f.gz; for c in bzip2 xz zstd; do command -v $c >/dev/null && { $c -q -k f; $c -q -d -c f.* 2>/dev/null | head -c 0; }; done; rm -f f.bz2 f.xz f.zst; head -c 100 f.gz >bad.gz; gunzip bad.gz 2>&1 | tail -1; ls; gzip -r . 2>/dev/null; ls; rm -f *'
both -m cpio-zip "$lay"'command -v cpio >/dev/null && { (cd t; find . | sort | cpio -o --quiet -H newc) >c.cpio; mkdir c; (cd c; cpio -id --quiet -m <../c.cpio); diff -r --no-dereference t c && echo same; rm c.cpio; }; command -v zip >/dev/null && { zip -qry z.zip t; mkdir z; unzip -q z.zip -d z; diff -r --no-dereference t z/t && echo same; rm z.zip; }; find . -exec touch -h -d @5 {} +'
if t_have rsync; then
    both -m rsync "$lay"'rsync -aH t/ u/; diff -r --no-dereference t u && echo same; rsync -aHni t/ u/; echo changed >>t/f5; touch -d 2022-02-02 t/f5; rm t/f6; rsync -ai --delete t/ u/ | grep -v "^\.d"; rsync -a "$D/t" "$H/"; rsync -a "$H/t/" v/; diff -r --no-dereference t v && echo same; rsync -rc --checksum t/ w/ --exclude="f1*" --exclude=abs --exclude=link 2>/dev/null; ls w; rsync -a --inplace t/zeros u/zeros; rsync -a --link-dest="$D/t" t/ l/; stat -c %h l/f1; rsync -aX t/f1 xx; rsync -a none y 2>&1 | head -1 | cut -c1-20; rsync -a --sparse t/zeros sp; rsync -a --partial-dir=.p --delay-updates t/ dl/; diff -r --no-dereference t dl && echo same; rsync -a --remove-source-files u/f1 moved; ls u/f1; rm -rf w'
else
    t_skip rsync "not installed"
fi
kfs_recheck
kfs_done
