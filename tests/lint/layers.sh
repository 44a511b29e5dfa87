#!/bin/sh
# tests/lint/layers.sh [ROOT] — every #include "…" is allowed by layers.map; every line that is not is printed
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-$here/../..}"
find base preload meta blockstore tools -name '*.[chS]' -o -name '*.def' | sort | xargs awk '
    FNR == 1 && FILENAME ~ /layers\.map$/ { map = 1 }
    FILENAME !~ /layers\.map$/ { map = 0 }
    map {
        sub(/#.*/, "")
        if (NF < 2) next
        key = $1; sub(/:$/, "", key)
        known[key] = 1
        for (i = 2; i <= NF; i++) may[key, $i] = 1
        next
    }
    FNR == 1 { folder = FILENAME; sub(/\/[^\/]*$/, "", folder) }
    /^[ \t]*#[ \t]*include[ \t]*</ {
        h = $0; sub(/^[^<]*/, "", h); sub(/>.*/, ">", h)
        if ((h in known) && !((h, folder) in may)) bad(h " is not for this folder")
        next
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        h = $0; sub(/^[^"]*"/, "", h); sub(/".*/, "", h)
        to = h; if (!sub(/\/[^\/]*$/, "", to)) bad("\"" h "\": includes are from the root of the tree")
        else if (!(folder in known)) bad("folder " folder " is not in layers.map")
        else if (!((folder, to) in may) && !((folder, h) in may)) bad("\"" h "\": " folder " may not include " to)
    }
    function bad(why) { print FILENAME ":" FNR ": " why; n++ }
    END { exit n > 0 }
' "$here/layers.map"
