#!/usr/bin/env bash
# tests/cases/directories.sh — field cases: large listings, seeking in them
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

cat >"$T/seek.c" <<'C'
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int rest(DIR *d, char *seen, int n)
{
    struct dirent *e;
    int count = 0;
    while ((e = readdir(d))) {
        int i = e->d_name[0] == 'n' ? atoi(e->d_name + 1) : -1;
        count++;
        if (i >= 0 && i < n && seen && seen[i]++)
            printf("twice %d\n", i);
    }
    return count;
}
int main(int argc, char **argv)
{
    int n = atoi(argv[2]);
    char *seen = calloc(1, n), name[300];
    DIR *d = opendir(argv[1]);
    (void)argc;
    for (int i = 0; i < 10; i++) readdir(d);
    long at = telldir(d);
    snprintf(name, sizeof name, "%s", readdir(d)->d_name);
    int r1 = rest(d, NULL, 0);
    seekdir(d, at);
    printf("same %d\n", !strcmp(readdir(d)->d_name, name));
    int r2 = rest(d, NULL, 0);
    printf("rest %d %d\n", r1, r2);
    for (int k = 0; k < 2; k++) {
        rewinddir(d);
        memset(seen, 0, n);
        printf("all %d\n", rest(d, seen, n));
    }
    long end = telldir(d);
    seekdir(d, end);
    printf("end %d\n", rest(d, NULL, 0));
    /* two streams on one open directory share its position */
    int fd = open(argv[1], O_RDONLY | O_DIRECTORY);
    DIR *a = fdopendir(fd), *b = fdopendir(dup(fd));
    memset(seen, 0, n);
    int na = rest(a, seen, n);
    rewinddir(b);
    memset(seen, 0, n);
    printf("two %d %d\n", na, rest(b, seen, n));
    closedir(a);
    rewinddir(b);
    printf("after close %d\n", rest(b, NULL, 0));
    closedir(b);
    closedir(d);
}
C
# A reader of a large directory goes back and forth. Right: the listing ends, counts are right, no name comes twice in a pass.
if t_have cc && cc -D_GNU_SOURCE -O1 -o "$T/seek" "$T/seek.c" 2>/dev/null; then
    export SEEK=$T/seek
    both O17-seek-and-rewind 'mkdir d; "$PY" -c "
for i in range(1300): open(\"d/n%d\" % i, \"w\").close()"; "$SEEK" d 1300; ls -f d | wc -l; "$SEEK" "$D/d" 1300; mkdir e; touch e/n{0..20}; "$SEEK" e 30; rm -rf d'
else
    t_skip O17-seek-and-rewind "no C compiler"
fi
# Names come and go while a directory is read. Right: what was there all the time is seen exactly once.
both_py O17-changes-while-reading <<'E'
import os
os.mkdir('d')
for i in range(700): open(f'd/keep{i}', 'w').close()
seen = []
with os.scandir('d') as it:
    for k, e in enumerate(it):
        seen.append(e.name)
        if k % 10 == 0: open(f'd/new{k}', 'w').close(); os.unlink(f'd/new{k}')
        if k % 100 == 0: os.rename(f'd/{e.name}', f'd/{e.name}')
kept = [n for n in seen if n.startswith('keep')]; print(len(kept), len(set(kept)), len(os.listdir('d')))
for n in os.listdir('d'): os.unlink('d/' + n)  # removing what is being listed
with os.scandir('d') as it: print(list(it))
for i in range(400): open(f'd/{i}', 'w').close()
with os.scandir('d') as it:
    for e in it: os.unlink(e.path)
print(os.listdir('d')); os.rmdir('d')
E

# Tools list and look at every file. Right: kinds come with the names, a scan with stat is complete, kfsd's memory stays small.
if [ -z "$KFS_PLAIN" ] && t_wanted O18; then
    out=$(krun bash -c 'mkdir "$P/many" && cd "$P/many" && "$PY" -c "
import os
for i in range(2000): os.close(os.open(\"f%d\" % i, os.O_CREAT | os.O_WRONLY))
os.mkdir(\"dir\"); os.symlink(\"f1\", \"link\"); os.mkfifo(\"fifo\")
"; ls -f | wc -l; ls -l | wc -l; find . -type f | wc -l; "$PY" -c "
import os
k = list(os.scandir(\".\")); print(len(k), sum(e.is_file(follow_symlinks=False) for e in k), sum(e.stat(follow_symlinks=False).st_ino == e.inode() for e in k))
"' 2>&1 | tr '\n' ' ')
    t_check O18-thousands-of-files '[ "$out" = "2005 2004 2000 2003 2000 2003 " ]' "$out"
    rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$(kfsd_pid)/status")
    t_check O18-memory-of-kfsd '[ "$rss" -lt 200000 ]' "resident: $rss KiB"
    if [ -z "${KFS_TEST_TRACER:-}" ] && t_have strace && strace -V >/dev/null 2>&1; then
        krun strace -f -o "$T/trace" -e trace=sendto,sendmsg find "$P/many" -type f >"$T/names" 2>/dev/null
        n=$(grep -c 'send' "$T/trace")
        t_check O18-find-needs-no-stat '[ "$(wc -l <"$T/names")" = 2000 ] && [ "$n" -lt 300 ]' "$(wc -l <"$T/names") names with $n round trips"
    else
        t_skip O18-find-needs-no-stat "strace is not installed, or another tracer is at work"
    fi
    krun rm -rf "$P/many"
fi
kfs_recheck
kfs_done
