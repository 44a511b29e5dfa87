#!/bin/bash
# Every case of the metadata's unit tests holds on a real MariaDB as it does on SQLite.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/mariadb.sh"

T=$(mktemp -d "${TMPDIR:-/var/tmp}/kfs-t.XXXXXX") || exit 1
trap 'mariadb_stop_all; rm -rf "$T"' EXIT
if ! mariadb_have; then
    t_skip meta-on-mariadb "no MariaDB server is installed"
    exit 0
fi
mariadb_start a || { t_fail mariadb-starts "see above"; exit 1; }
export KFS_TEST_MYSQL=mysql://root@127.0.0.1:$MARIADB_PORT
for unit in "${KFS_UNITS:-$KFS_TOP/build/tests}"/meta/test_*; do
    [ -x "$unit" ] && [ ! -d "$unit" ] || continue
    case $unit in *.d) continue ;; esac
    if "$unit" >"$T/out" 2>&1 </dev/null; then
        t_pass "mariadb-${unit##*/test_} ($(sed -n 's/^kt: //p' "$T/out"))"
    else
        t_fail "mariadb-${unit##*/test_}" "$(tail -n 1 "$T/out")"
        grep -v '^ok ' "$T/out" | t_note
    fi
done
exit $t_failed
