#!/usr/bin/env bash
# tests/demo/run.sh — the main job, end to end: an unmodified training script on an embedded volume
#
# Copies a real tree of at least 10,000 files into a fresh volume with cp and tar, stores a dataset of one small file per sample, trains from it
# with two worker processes, resumes from the checkpoint in a second run; the same on a plain directory beside it. Then kills kfsd with SIGKILL,
# empties its cache, opens the volume again and compares every byte, link, mode and time with the source.
# Ends with a table and PASS; exit code 1 on any difference.
#
# KFS_DEMO_DIR=DIR: work there and keep it. KFS_DEMO_FILES=N: at least so many files (10000). KFS_BIN: where the programs are (build/bin).
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${KFS_BIN:-$top/build/bin}
want=${KFS_DEMO_FILES:-10000}
at=/kfs-demo
unset KFS_AT KFS_RUN
export LC_ALL=C OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
umask 022

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'FAIL: %s\n' "$*"
    exit 1
}

# --- a place to work, and a kfsd that ends with it ------------------------------------------------------------------
if [ -n "${KFS_DEMO_DIR:-}" ]; then
    mkdir -p "$KFS_DEMO_DIR"
    work=$(cd "$KFS_DEMO_DIR" && mktemp -d "$PWD/run.XXXXXX")
else
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/kfs-demo.XXXXXX")
fi
url=sqlite:$work/volume.db
kfsd_pid() { "$bin/kfs" status --json "$url" | sed -n 's/.*"kfsd":{"pid":\([0-9]*\).*/\1/p'; }
lock_pid() { sed -n 's/^pid //p' "$work/volume.db.lock" 2>/dev/null || true; }
finish() {
    code=$?
    trap - EXIT
    pid=$(lock_pid)
    if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$(realpath "$bin/kfsd")" ]; then
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    fi
    if [ -n "${KFS_DEMO_DIR:-}" ]; then
        echo "kept: $work"
    else
        rm -rf "$work"
    fi
    exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

on_volume() { "$bin/kfs-run" --cache-dir "$work/cache" --run-dir "$work/run" --linger 120 --at "$at=$url" -- "$@"; }

# --- timing: the same command on both sides, @@ in its words for the directory ----------------------------------------
rows=()
now() { date +%s.%N; }
row() { rows+=("$1|$2|$3|$4|$5"); }
both() { # NAME FILES BYTES COMMAND…
    local name=$1 files=$2 bytes=$3 t0 t1 t2
    shift 3
    t0=$(now)
    "${@//@@/$work/plain}" >"$work/out.plain" 2>&1 || { tail -n 20 "$work/out.plain"; die "$name on a plain directory"; }
    t1=$(now)
    on_volume "${@//@@/$at}" >"$work/out.kfs" 2>&1 || { tail -n 20 "$work/out.kfs"; die "$name on the volume"; }
    t2=$(now)
    row "$name" "$files" "$bytes" "$(awk "BEGIN { print $t2 - $t1 }")" "$(awk "BEGIN { print $t1 - $t0 }")"
    printf '   %-34s %6.1f s, on a plain directory %6.1f s\n' "$name" "$(awk "BEGIN { print $t2 - $t1 }")" "$(awk "BEGIN { print $t1 - $t0 }")"
}
files_in() { find "$@" -type f | wc -l; }
bytes_in() { find "$@" -type f -printf '%s\n' | awk '{ n += $1 } END { print n + 0 }'; }

# --- what to copy -------------------------------------------------------------------------------------------------------
say "choosing trees of at least $want files"
python=$("$top/tests/lib/deps" python numpy sklearn) || die "no python3 with numpy and sklearn; run: tests/lib/deps demo"
copy=() packed=() count=0 packed_count=0 total=0
for tree in /usr/lib/python3 /usr/lib/python3.* /usr/include /usr/share/perl /usr/share/zoneinfo /usr/share/locale /usr/share/doc \
    /usr/share/* /usr/lib/gcc /usr/lib/git-core /usr/lib/x86_64-linux-gnu/perl* /etc; do
    [ -d "$tree" ] && [ ! -L "$tree" ] || continue
    case " ${copy[*]-} ${packed[*]-} " in *"/${tree##*/} "*) continue ;; esac # one name, one tree
    # What this user cannot read cannot be copied; what is not a file, directory or symlink is not for this job.
    [ -z "$(find "$tree" \( ! -readable -o ! -type f ! -type d ! -type l \) ! -type l -print -quit 2>/dev/null)" ] || continue
    n=$(files_in "$tree") size=$(bytes_in "$tree")
    [ "$n" -ge 100 ] && [ "$size" -le 160000000 ] && [ $((total + size)) -le 380000000 ] || continue
    if [ "$count" -lt "$want" ]; then
        copy+=("$tree") count=$((count + n)) total=$((total + size))
    elif [ "$packed_count" -lt $((want / 10)) ]; then
        packed+=("$tree") packed_count=$((packed_count + n)) total=$((total + size))
    else
        break
    fi
done
[ ${#copy[@]} -gt 0 ] || die "no readable tree below /usr"
[ ${#packed[@]} -gt 0 ] || packed=("${copy[0]}")
copies=1
while [ $((count * copies)) -lt "$want" ]; do copies=$((copies + 1)); done # a small machine: the trees it has, more than once
echo "   cp -a: ${copy[*]}$([ $copies -eq 1 ] || echo " ($copies times)")"
echo "   tar:   ${packed[*]}"
find "${copy[@]}" "${packed[@]}" -type f -exec cat {} + >/dev/null # both sides find the source in memory

# --- the volume ------------------------------------------------------------------------------------------------------------
say "a fresh volume: $url"
"$bin/kfs" format "$url" --name demo >/dev/null
mkdir "$work/plain"
copied_files=$(($(files_in "${copy[@]}") * copies)) copied_bytes=$(($(bytes_in "${copy[@]}") * copies))
packed_files=$(files_in "${packed[@]}") packed_bytes=$(bytes_in "${packed[@]}")

say "filling it"
for i in $(seq $copies); do
    mkdir "$work/plain/tree$i"
    on_volume mkdir "$at/tree$i"
    both "cp -a$([ $copies -eq 1 ] || echo ", copy $i")" $((copied_files / copies)) $((copied_bytes / copies)) cp -a "${copy[@]}" "@@/tree$i"
done
both "tar, packed and unpacked" "$packed_files" "$packed_bytes" sh -c 'd=$1 && shift && mkdir "$d" && tar --format=posix -cf - -C / "$@" | tar -xpf - -C "$d"' sh \
    @@/packed "${packed[@]#/}"
both "dataset, a file per sample" 1797 $((1797 * 384)) "$python" "$top/tests/demo/digits.py" @@/digits

say "training from it"
both "train, 6 epochs" 1437 $((1437 * 384 * 6)) "$python" "$top/tests/demo/train.py" @@/digits @@/model --epochs 6
grep -q '^starting at epoch 0 of 6' "$work/out.kfs" || die "the first run did not start at epoch 0"
both "train on, 6 more from checkpoint" 1437 $((1437 * 384 * 6)) "$python" "$top/tests/demo/train.py" @@/digits @@/model --epochs 12
grep -q '^starting at epoch 6 of 12' "$work/out.kfs" || die "the second run did not resume at epoch 6"
accuracy=$(sed -n 's/^accuracy //p' "$work/out.kfs") plain_accuracy=$(sed -n 's/^accuracy //p' "$work/out.plain")
awk "BEGIN { exit !(${accuracy:-0} >= 0.9) }" || die "accuracy is ${accuracy:-missing}, below 0.9"
lines=$(on_volume cat "$at/model/log.txt" | wc -l)
[ "$lines" -eq 12 ] || die "the log has $lines lines instead of 12"
both "find, every file" $((copied_files + packed_files)) 0 sh -c 'find "$1" -type f -size +0 | wc -l' sh @@
cmp -s "$work/out.kfs" "$work/out.plain" || die "find sees $(cat "$work/out.kfs") files on the volume, $(cat "$work/out.plain") on the plain directory"

# --- the crash --------------------------------------------------------------------------------------------------------------
stats=$("$bin/kfs" stats --json --volume "$url")
tier() { printf '%s' "$stats" | sed -n 's/.*"tiers":{[^}]*"'"$1"'":\([0-9]*\).*/\1/p'; }
pid=$(kfsd_pid)
[ -n "$pid" ] || die "kfs status names no kfsd"
say "killing kfsd $pid with SIGKILL, emptying its cache, opening the volume again"
kill -9 "$pid"
on_volume true
again=$(kfsd_pid)
[ -n "$again" ] && [ "$again" != "$pid" ] || die "no new kfsd serves the volume"
"$bin/kfs" cache evict --volume "$url" >/dev/null

say "verifying every byte against the source"
list() { # types, modes, times to the nanosecond, sizes, links; owners where they could be kept
    local owner=
    [ "$(id -u)" -ne 0 ] || owner='%U:%G '
    printf 'cd "$1" && find . -type d -printf "%%y %%m %s%%T@ %%p\\n" -o -type l -printf "%%y %s%%T@ %%p -> %%l\\n" -o -printf "%%y %%m %s%%s %%n %%T@ %%p\\n" | sort' \
        "$owner" "$owner" "$owner"
}
compare() { # SOURCE COPY
    sh -c "$(list)" sh "$1" >"$work/list.source"
    on_volume sh -c "$(list)" sh "$2" >"$work/list.volume" || die "listing $2"
    diff "$work/list.source" "$work/list.volume" | head -n 20 || true
    cmp -s "$work/list.source" "$work/list.volume" || die "names, types, modes, sizes, links or times differ: $1"
    on_volume diff -r --no-dereference "$1" "$2" || die "bytes differ: $1"
    echo "   $(grep -c '^f' "$work/list.source") files, $(grep -c '^l' "$work/list.source") symlinks, $(grep -c '^d' "$work/list.source") directories: $1"
}
t0=$(now)
for i in $(seq $copies); do
    for tree in "${copy[@]}"; do compare "$tree" "$at/tree$i/${tree##*/}"; done
done
for tree in "${packed[@]}"; do compare "$tree" "$at/packed$tree"; done
on_volume diff -r "$work/plain/digits" "$at/digits" || die "the dataset differs"
on_volume cmp "$work/plain/model/checkpoint.npz" "$at/model/checkpoint.npz" || die "the checkpoint differs from that of the plain directory"
verify_s=$(awk "BEGIN { print $(now) - $t0 }")

# --- the result ------------------------------------------------------------------------------------------------------------------
say "result"
{
    echo "step|files|MB|volume s|plain s|ratio"
    for r in "${rows[@]}"; do
        IFS='|' read -r name files bytes a b <<<"$r"
        awk -v n="$name" -v f="$files" -v y="$bytes" -v a="$a" -v b="$b" 'BEGIN { printf "%s|%d|%.1f|%.1f|%.1f|%.1f\n", n, f, y / 1e6, a, b, (b > 0 ? a / b : 0) }'
    done
} | awk -F'|' '{ printf "   %-34s %8s %8s %9s %9s %7s\n", $1, $2, $3, $4, $5, $6 }'
echo
echo "   accuracy                  $accuracy (plain directory: $plain_accuracy; checkpoints are identical)"
echo "   calls served by           shared memory $(tier shm), kernel $(tier kernel), kfsd $(tier kfsd)"
echo "   verified after the crash  $((copied_files + packed_files + 1797)) files, $(((copied_bytes + packed_bytes) / 1000000)) MB from objects, $(printf %.1f "$verify_s") s"
echo
echo "PASS"
