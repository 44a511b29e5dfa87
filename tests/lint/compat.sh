#!/bin/sh
# tests/lint/compat.sh [CALLS] — docs/compat.md, made from preload/calls.def
set -eu
cd "$(dirname "$0")/../.."
calls=${1:-preload/calls.def}
cat <<'END'
# What KFS does with each call

Made from `preload/calls.def` by `make docs`.

*served* as on a local file system · *partly* with the difference in the note · *refused* an honest error on KFS paths · *passes* not
touched: right without help, because descriptors are the kernel's · *absent* not served.
END
awk '
    function row(name, how, note) {
        gsub(/\|/, "\\|", note); gsub(/\\"/, "\"", note)
        if (name in also) note = note (note == "" ? "" : "; ") "also " also[name]
        if (!open) { print "\n## " title "\n\n| call | | note |\n|---|---|---|"; open = 1 }
        print "| `" name "` | " how " | " note " |"
    }
    /^[A-Z]+\(/ {
        kind = $0; sub(/\(.*/, "", kind)
        rest = substr($0, length(kind) + 2)
        if (kind ~ /^(CALL|HAND|FORWARD)$/) sub(/^[^,]*, */, "", rest)
        name = rest; sub(/ *,.*/, "", name)
        note = $0; if (sub(/"\).*$/, "", note)) sub(/^.*[,(] *"/, "", note); else note = ""
    }
    FNR == NR {
        if (/^(CALL|VCALL|HAND)\(/) how[name] = / SERVE, "/ ? "served" : / PART, "/ ? "partly" : "refused"
        if (kind == "ALIAS" && /^ALIAS/) {
            target = rest; sub(/^[^,]*, */, "", target); sub(/ *,.*/, "", target)
            also[target] = also[target] (also[target] == "" ? "" : ", ") "`" name "`"
        }
        if (kind ~ /^(PASS|SKIP)$/ && /^[A-Z]/ && note ~ /^as [A-Za-z0-9_]+$/) {
            target = substr(note, 4)
            also[target] = also[target] (also[target] == "" ? "" : ", ") "`" name "`"
        }
        next
    }
    /^\/\* *-+ / { title = $0; sub(/^\/\* *-+ */, "", title); sub(/ *-* *\*\/ *$/, "", title); title = toupper(substr(title, 1, 1)) substr(title, 2); open = 0 }
    !/^[A-Z]+\(/ || kind == "ALIAS" { next }
    kind ~ /^(PASS|SKIP)$/ && note ~ /^as [A-Za-z0-9_]+$/ { next }
    kind == "PASS" { row(name, "passes", note); next }
    kind == "SKIP" { row(name, "absent", note); next }
    kind == "FORWARD" {
        target = $0; match(target, /\), *[A-Za-z0-9_]+, *\(/); target = substr(target, RSTART + 2, RLENGTH - 2); gsub(/[ ,(]/, "", target)
        row(name, how[target] == "" ? "served" : how[target], note); next
    }
    / SERVE, "/ { row(name, "served", note); next }
    / PART, "/ { row(name, "partly", note); next }
    / REFUSE, "/ { row(name, "refused", note); next }
    { print FILENAME ":" FNR ": not understood: " $0 > "/dev/stderr"; bad = 1 }
    END { exit bad }
' "$calls" "$calls"
