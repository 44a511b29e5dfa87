# tests/lib/mariadb.sh — MariaDB servers of a test's own on loopback (bash; source it after lib.sh)
#
# mariadb_start NAME [OPTION…]  a server with its data in $T/mariadb-NAME; sets MARIADB_PORT, MARIADB_PID, MARIADB_SOCKET (of the last one started)
# mariadb_stop NAME             ends it, by pid; mariadb_kill NAME: SIGKILL. mariadb_sql NAME SQL…: run statements
# User root, no password, from 127.0.0.1 alone; the directory is private. Without a server: mariadb_have fails.

mariadb_bin() { command -v mariadbd 2>/dev/null || { [ -x /usr/sbin/mariadbd ] && echo /usr/sbin/mariadbd; }; }
mariadb_have() { [ -n "$(mariadb_bin)" ] && command -v mariadb-install-db >/dev/null; }

mariadb_free_port() {
    "$PY" -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'
}

mariadb_start() { # NAME [OPTION…]
    local name=$1 dir=$T/mariadb-$1 user= i
    shift
    if [ ! -d "$dir/data" ]; then
        mkdir -p "$dir" || return 1
        t_root && user=--user=root
        mariadb-install-db --no-defaults $user --datadir="$dir/data" --auth-root-authentication-method=normal --skip-test-db >"$dir/install.log" 2>&1 ||
            { t_note 20 <"$dir/install.log"; return 1; }
        mariadb_free_port >"$dir/port"
    fi
    MARIADB_PORT=$(cat "$dir/port") MARIADB_SOCKET=$dir/s
    "$(mariadb_bin)" --no-defaults ${user:-$(t_root && echo --user=root)} --datadir="$dir/data" --bind-address=127.0.0.1 --port="$MARIADB_PORT" \
        --socket="$MARIADB_SOCKET" --pid-file="$dir/pid" --skip-name-resolve --innodb-buffer-pool-size=64M --innodb-log-file-size=32M \
        --innodb-flush-log-at-trx-commit=2 --performance-schema=off "$@" >"$dir/log" 2>&1 &
    MARIADB_PID=$!
    echo $MARIADB_PID >"$dir/started"
    MARIADB_ALL="${MARIADB_ALL:-} $MARIADB_PID"
    for ((i = 0; i < 600; i++)); do
        mariadb --no-defaults -S "$MARIADB_SOCKET" -u root -e "SELECT 1" >/dev/null 2>&1 && return 0
        kill -0 $MARIADB_PID 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$dir/log" | t_note
    return 1
}

mariadb_sql() { mariadb --no-defaults -N -S "$T/mariadb-$1/s" -u root -e "${*:2}"; }
mariadb_end() { # NAME SIGNAL
    local pid
    pid=$(cat "$T/mariadb-$1/started") || return
    kill -"$2" "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}
mariadb_stop() { mariadb_end "$1" TERM; }
mariadb_kill() { mariadb_end "$1" KILL; }
mariadb_stop_all() {
    local pid
    for pid in ${MARIADB_ALL:-}; do
        kill -TERM "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
}
