#!/bin/sh
# tests/lint/shim-symbols.sh [LIB [ALLOW]] — libkfs.so imports only what preload/imports.allow names, nothing newer than GLIBC_2.17, and needs libc alone
set -eu
cd "$(dirname "$0")/../.."
lib=${1:-build/lib/libkfs.so}
allow=${2:-preload/imports.allow}
[ -e "$lib" ] || { echo "$lib is not built; run make"; exit 1; }
[ -e "$allow" ] || { echo "$allow is missing"; exit 1; }
{
    nm -D --undefined-only "$lib" | awk '{ print "U", $NF }'
    readelf -dW "$lib" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/N \1/p'
} | awk -v allow="$allow" '
    BEGIN {
        while ((getline line < allow) > 0) {
            sub(/#.*/, "", line)
            split(line, w, " ")
            if (w[1] != "") ok[w[1]] = 1
        }
    }
    $1 == "N" { if ($2 !~ /^(libc\.so(\.6)?|ld-linux.*)$/) { print "needs " $2 ": the shim may need libc alone"; n++ } next }
    {
        name = $2; version = ""
        if (i = index(name, "@")) { version = substr(name, i + 1); sub(/^@/, "", version); name = substr(name, 1, i - 1) }
        if (!(name in ok)) { print "imports " name ", which preload/imports.allow does not name"; n++ }
        if (version ~ /^GLIBC_PRIVATE/) { print "imports " name "@" version; n++ }
        if (split(version, v, /[_.]/) >= 3 && v[1] == "GLIBC" && (v[2] + 0 > 2 || v[3] + 0 > 17)) {
            print "imports " name "@" version ", newer than GLIBC_2.17"; n++
        }
    }
    END { exit n > 0 }
'
