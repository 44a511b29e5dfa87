#!/bin/sh
# tests/lint/planted.sh — each check finds the violation that it is for
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
rc=0
must_fail() { # WHAT PATTERN COMMAND…
    what=$1 pattern=$2
    shift 2
    if "$@" >"$tmp/out" 2>&1; then
        echo "not found: $what"
        rc=1
    elif ! grep -q "$pattern" "$tmp/out"; then
        echo "found for another reason: $what"
        cat "$tmp/out"
        rc=1
    fi
}

mkdir -p "$tmp/t/base/pure" "$tmp/t/preload" "$tmp/t/meta" "$tmp/t/blockstore" "$tmp/t/tools"
plant() { printf '%s\n' "$2" >"$tmp/t/$1"; }
plant meta/a.c '#include "base/err.h"'
"$here/layers.sh" "$tmp/t"
plant meta/a.c '#include "blockstore/blockstore.h"'
must_fail "meta sees blockstore" 'meta may not include blockstore' "$here/layers.sh" "$tmp/t"
plant meta/a.c '#include "meta.h"'
must_fail "include not from the root" 'from the root' "$here/layers.sh" "$tmp/t"
plant meta/a.c '/* */'
plant preload/a.c '#include "base/err.h"'
must_fail "the shim sees base" 'preload may not include base' "$here/layers.sh" "$tmp/t"
plant preload/a.c '#include <pthread.h>'
must_fail "the shim uses pthread" 'not for this folder' "$here/layers.sh" "$tmp/t"

cat >"$tmp/shim.c" <<'END'
#include <stdlib.h>
#include <unistd.h>
__attribute__((visibility("default"))) void *twice(unsigned n) { return malloc(2 * n + (unsigned)getpid()); }
END
${CC:-cc} -shared -fPIC -fvisibility=hidden -nostartfiles -o "$tmp/shim.so" "$tmp/shim.c"
printf 'malloc # why\ngetpid\n' >"$tmp/allow"
echo 'CALL(void *, twice, (unsigned n), (n), ALWAYS, SERVE, "")' >"$tmp/calls"
"$here/shim-symbols.sh" "$tmp/shim.so" "$tmp/allow"
"$here/shim-exports.sh" "$tmp/shim.so" "$tmp/calls"
echo getpid >"$tmp/allow"
must_fail "an import that is not allowed" 'imports malloc' "$here/shim-symbols.sh" "$tmp/shim.so" "$tmp/allow"
echo 'CALL(int, thrice, (int n), (n), ALWAYS, SERVE, "")' >"$tmp/calls"
must_fail "an export without a row" 'exports twice' "$here/shim-exports.sh" "$tmp/shim.so" "$tmp/calls"
must_fail "a row without an export" 'does not export thrice' "$here/shim-exports.sh" "$tmp/shim.so" "$tmp/calls"
echo 'NONSENSE(int, twice)' >"$tmp/calls"
must_fail "a row that is not understood" 'not understood' "$here/compat.sh" "$tmp/calls"

mkdir "$tmp/sql"
cp "$here/../../meta/schema.sql" "$tmp/sql/"
sed 's/^SQL(GARBAGE_DROP.*/SQL(GARBAGE_DROP, "DELETE FROM garbage WHERE id=? RETURNING id")/' "$here/../../meta/sql.def" >"$tmp/sql/sql.def"
must_fail "a statement of one engine alone" 'results of changes' "$here/sql-subset.sh" "$tmp/sql"

"$here/libc-symbols.sh"
for gone in 'CALL(int, ftok,' 'PASS(write,' 'SKIP(wordexp,' 'ALIAS(__connect,'; do
    grep -vF "$gone" "$here/../../preload/calls.def" >"$tmp/calls"
    must_fail "a function of libc without a row ($gone)" "neither a row" "$here/libc-symbols.sh" "$tmp/calls"
done

# A symbol newer than the oldest glibc, and a library beside libc.
cat >"$tmp/new.c" <<'END'
#include <sys/random.h>
__attribute__((visibility("default"))) long fresh(void *p) { return getrandom(p, 1, 0); }
END
${CC:-cc} -shared -fPIC -nostartfiles -o "$tmp/new.so" "$tmp/new.c" -Wl,--no-as-needed -lm
echo getrandom >"$tmp/allow"
must_fail "a symbol version above 2.17" 'newer than' "$here/shim-symbols.sh" "$tmp/new.so" "$tmp/allow"
must_fail "a library beside libc" 'needs libm' "$here/shim-symbols.sh" "$tmp/new.so" "$tmp/allow"
exit $rc
