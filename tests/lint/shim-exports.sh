#!/bin/sh
# tests/lint/shim-exports.sh [LIB [CALLS]] — libkfs.so defines exactly the names that calls.def says
set -eu
cd "$(dirname "$0")/../.."
lib=${1:-build/lib/libkfs.so}
calls=${2:-preload/calls.def}
[ -e "$lib" ] || { echo "$lib is not built; run make"; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
nm -D --defined-only "$lib" | awk '{ sub(/@.*/, "", $NF); print $NF }' | sort -u >"$tmp/has"
sed -n 's/^\(CALL\|HAND\|FORWARD\)([^,]*, *\([A-Za-z0-9_]*\),.*/\2/p; s/^\(VCALL\|ALIAS\)( *\([A-Za-z0-9_]*\),.*/\2/p' "$calls" | sort >"$tmp/rows"
sort -u "$tmp/rows" >"$tmp/wants"
rc=0
for name in $(uniq -d "$tmp/rows"); do echo "$name has two rows in $calls"; rc=1; done
for name in $(comm -23 "$tmp/has" "$tmp/wants"); do echo "exports $name, which has no row in $calls"; rc=1; done
for name in $(comm -13 "$tmp/has" "$tmp/wants"); do echo "does not export $name, which has a row in $calls"; rc=1; done
exit $rc
