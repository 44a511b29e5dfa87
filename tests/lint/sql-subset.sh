#!/bin/sh
# The statements and tables keep to what every engine has: meta/db.h says what that is.
# usage: sql-subset.sh [DIRECTORY with sql.def and schema.sql]
dir=${1:-$(dirname "$0")/../../meta}
# Text of statements only: comments of either file are not SQL.
text=$(sed -n 's/^SQL([A-Z_0-9]*, *"\(.*\)")$/\1/p; s/^ *"\(.*\)")*$/\1/p; s/^#define INODE.*//p' "$dir/sql.def"
    sed 's/--.*//' "$dir/schema.sql")
bad=0
say() { # WHAT PATTERN [case]
    found=$(printf '%s\n' "$text" | grep "-n${3:-i}E" "$2" | head -n 3)
    [ -z "$found" ] && return
    echo "sql-subset: $1:"
    printf '%s\n' "$found" | sed 's/^/    /'
    bad=1
}
say 'generated keys are not in every engine the same' 'auto_?increment|serial|identity'
say 'foreign keys, triggers, procedures and sequences are not used' 'references|foreign +key|trigger|procedure|sequence|nextval'
say 'results of changes are not in every engine' 'returning'
say 'locking reads take gap locks in some engines' 'for +update|for +share|lock +in +share'
say 'insert forms of one engine alone' 'insert +or|insert +ignore|on +conflict|on +duplicate|upsert'
say 'numbered parameters are of SQLite alone' '\?[0-9]'
say 'types of one engine alone: INTEGER, NAME, TEXT, BLOB are translated' '\b(bigint|varbinary|varchar|mediumblob|datetime|unsigned|int)\b'
say 'names under a character set: names are bytes' 'collate|charset|character +set'
say 'reserved words as names need backquotes' '(^|[^`a-z_])(key|schema|rows|rank|groups|system|order|index) *(=|,|\)|TEXT|INTEGER|BLOB|NAME)' s
[ -n "$text" ] || { echo "sql-subset: no statements found in '$dir'"; bad=1; }
exit $bad
