#!/bin/sh
# tests/lint/libc-symbols.sh [CALLS [LIBC]] — every function of this machine's libc has a row in calls.def or is named by libc-not-ours.list
#
# A new glibc brings new functions: one that takes a path or a descriptor wants a row, any other one a word in the list. Symbols that are private to
# glibc (GLIBC_PRIVATE) are none of ours: programs cannot bind to them.
set -eu
cd "$(dirname "$0")/../.."
calls=${1:-preload/calls.def}
libc=${2:-}
list=tests/lint/libc-not-ours.list
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
[ -n "$libc" ] || libc=$(ldd "$(command -v sh)" | sed -n 's/.*libc\.so[^ ]* => \([^ ]*\).*/\1/p')
[ -e "$libc" ] || { echo "no libc found ('$libc')"; exit 1; }

nm -D --defined-only "$libc" | awk '$2 ~ /[TWi]/ && $3 !~ /@GLIBC_PRIVATE|@@GLIBC_PRIVATE/ { sub(/@.*/, "", $3); print $3 }' | sort -u >"$tmp/has"
[ -s "$tmp/has" ] || { echo "'$libc' has no symbols"; exit 1; }
sed -n 's/^\(CALL\|HAND\|FORWARD\)([^,]*, *\([A-Za-z0-9_]*\),.*/\2/p; s/^\(VCALL\|ALIAS\|PASS\|SKIP\)( *\([A-Za-z0-9_]*\),.*/\2/p' "$calls" | sort >"$tmp/rows"
rc=0
for name in $(uniq -d "$tmp/rows"); do echo "$name has two rows in $calls"; rc=1; done
sort -u "$tmp/rows" | comm -23 "$tmp/has" - >"$tmp/left"
grep -v '^#' "$list" | tr -s ' ' '\n' | grep . >"$tmp/patterns"
grep -vxE -f "$tmp/patterns" "$tmp/left" >"$tmp/missing" || true
if [ -s "$tmp/missing" ]; then
    sed "s|\$| has neither a row in $calls nor a word in $list|" "$tmp/missing"
    rc=1
fi
# A pattern that takes in a name with a row would hide that the row went.
for name in $(sort -u "$tmp/rows" | comm -12 "$tmp/has" - | grep -xE -f "$tmp/patterns" || true); do
    echo "$name has a row in $calls, and a pattern of $list takes it in"
    rc=1
done
exit $rc
