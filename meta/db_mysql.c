/* meta/db_mysql.c — the MySQL protocol: MariaDB, MySQL, TiDB, OceanBase
 *
 * URL      mysql://[USER@]HOST[:PORT][,HOST2[:PORT2]…]/DATABASE[?KEY=VALUE&…]
 *            tls=off|on|verify     off (default for a loopback address), on (default elsewhere): encrypted, verify: and the server's certificate is checked
 *            ca=FILE cert=FILE key=FILE
 *            password_file=FILE    its first line is the password
 *            defaults_file=FILE    an option file of the client programs; its groups [client] and [kfs] are read
 *            socket=PATH           instead of TCP to the first host
 *            connect_timeout=S (5)  timeout=S (30): of one statement
 *            A password never stands in a URL: URLs are shown. Without password_file: $KFS_MYSQL_PASSWORD of kfsd, else the option file.
 * Hosts    Tried in order, beginning with the last one that worked. One that is read-only (a demoted primary, a replica) is passed over; when a statement says
 *          "read-only", the connection is closed, so that the next statement finds the new primary.
 * Text     Statements go as text with their parameters written in: numbers in decimal, bytes as X'…'. A hexadecimal literal means the same under every
 *          character set and SQL mode, and every server that speaks the protocol has it. Rows of one INSERT share one statement, up to BATCH_BYTES.
 * Results  Are read whole (mysql_store_result), so that other statements can run meanwhile; statements that may find many rows carry a LIMIT.
 */
#include "meta/db_ops.h"

#include "base/cleanup.h"
#include <assert.h>
#include <ctype.h>
#include <mariadb/errmsg.h>
#include <errno.h>
#include <fcntl.h>
#include <mariadb/mysql.h>
#include <mariadb/mysqld_error.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOSTS_MAX 8
#define BATCH_BYTES (512u << 10) /* of one statement's text: under every server's max_allowed_packet */
#define VALUE_MAX 2048
#define PASSWORD_MAX 512

/* Beyond those that mysqld_error.h of every client library names. */
#define TIDB_WRITE_CONFLICT 9007
#define MARIADB_STATEMENT_TIMEOUT 1969
#define MYSQL_STATEMENT_TIMEOUT 3024
#define MARIADB_CONNECTION_KILLED 1927

struct query {
    struct kfs_row row;
    MYSQL_RES *res;
    MYSQL_ROW cells;
    const unsigned long *lengths;
};

struct host {
    char name[256];
    unsigned port;
};

struct my {
    struct kfs_db db;
    MYSQL *sql; /* NULL: not connected */
    bool in_txn;
    bool opened;    /* has been connected once */
    bool exclusive; /* a claim on the database is held by each connection that we make */
    struct host hosts[HOSTS_MAX];
    unsigned host_count, host_at;
    char user[128], database[128];
    char socket[256], ca[VALUE_MAX], cert[VALUE_MAX], key[VALUE_MAX], password_file[VALUE_MAX],
        defaults_file[VALUE_MAX];
    char tls[8];
    unsigned connect_timeout_s, timeout_s;
    char engine[320];
    char *text; /* of the statement under way */
    size_t text_len, text_cap;
    struct query queries[KFS_SQL_COUNT];
};

static struct my *my(struct kfs_db *db)
{
    return (struct my *)(void *)db;
}

static struct query *query_of(struct kfs_row *row)
{
    return (struct query *)(void *)row;
}

/* --- failures ------------------------------------------------------------------------------------------------------- */

static bool is_lost(unsigned code)
{
    return code == CR_SERVER_GONE_ERROR || code == CR_SERVER_LOST || code == ER_SERVER_SHUTDOWN ||
           code == ER_NET_READ_ERROR || code == ER_NET_READ_INTERRUPTED ||
           code == MARIADB_CONNECTION_KILLED || code == CR_SERVER_LOST_EXTENDED;
}

static bool is_conflict(unsigned code, const char *state)
{
    return code == ER_LOCK_WAIT_TIMEOUT || code == ER_LOCK_DEADLOCK ||
           code == TIDB_WRITE_CONFLICT || strcmp(state, "40001") == 0;
}

static bool is_read_only(unsigned code)
{
    return code == ER_OPTION_PREVENTS_STATEMENT || code == ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION ||
           code == ER_READ_ONLY_MODE;
}

static void disconnect(struct my *m)
{
    if (m->sql)
        mysql_close(m->sql);
    m->sql = NULL;
    m->in_txn = false;
}

static int transient(struct kfs_err *err)
{
    if (err) {
        err->code = EAGAIN;
        err->transient = true;
    }
    return -EAGAIN;
}

/* -errno of the connection's last failure, with text. */
static int fail(struct my *m, struct kfs_err *err)
{
    unsigned code = mysql_errno(m->sql);
    char what[256];
    (void)snprintf(what, sizeof what, "%s", mysql_error(m->sql));
    bool conflict = is_conflict(code, mysql_sqlstate(m->sql));
    if (is_lost(code) || is_read_only(code)) {
        disconnect(m);
        (void)KFS_FAIL(err, EAGAIN, is_lost(code) ? "lost the connection to database '%s': %s; is the server up?"
                                                  : "database '%s' is read-only: %s; name its primary in the URL",
                       m->db.name, what);
        return transient(err);
    }
    if (conflict) {
        m->in_txn = false; /* rolled back, or about to be */
        (void)KFS_FAIL(err, EAGAIN, "database '%s' asks for the transaction again: %s", m->db.name, what);
        return transient(err);
    }
    switch (code) {
    case ER_RECORD_FILE_FULL:
    case ER_DISK_FULL:
        return KFS_FAIL(err, ENOSPC, "no space left for database '%s'; free some on its server", m->db.name);
    case MARIADB_STATEMENT_TIMEOUT:
    case MYSQL_STATEMENT_TIMEOUT:
        return KFS_FAIL(err, ETIMEDOUT, "database '%s' took longer than %u s for a statement; look at its load, or raise 'timeout' in the URL",
                        m->db.name, m->timeout_s);
    case ER_NO_SUCH_TABLE:
        return KFS_FAIL(err, EIO, "database '%s' is damaged or of another program: %s", m->db.name, what);
    case ER_TABLEACCESS_DENIED_ERROR:
    case ER_COLUMNACCESS_DENIED_ERROR:
    case ER_DBACCESS_DENIED_ERROR:
        return KFS_FAIL(err, EACCES, "database '%s': %s; grant ALL on it to the user", m->db.name, what);
    case CR_OUT_OF_MEMORY:
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", m->db.name);
    default:
        return KFS_FAIL(err, EIO, "database '%s': %s (%u)", m->db.name, what, code);
    }
}

/* --- URL ------------------------------------------------------------------------------------------------------------- */

static int bad_url(const char *url, const char *what, struct kfs_err *err)
{
    return KFS_FAIL(err, EINVAL, "%s in '%s'; allowed: mysql://USER@HOST:PORT/DATABASE?tls=verify&password_file=FILE…", what, url);
}

static int take_hosts(struct my *m, const char *url, char *list, struct kfs_err *err)
{
    char *save = NULL;
    for (char *h = strtok_r(list, ",", &save); h; h = strtok_r(NULL, ",", &save)) {
        if (m->host_count == HOSTS_MAX)
            return bad_url(url, "more than 8 hosts", err);
        struct host *to = &m->hosts[m->host_count];
        to->port = 3306;
        char *end = NULL, *colon = h[0] == '[' ? strchr(h, ']') : h;
        colon = colon ? strchr(colon, ':') : NULL;
        if (colon) {
            unsigned long port = strtoul(colon + 1, &end, 10);
            if (!isdigit((unsigned char)colon[1]) || *end || port == 0 || port > 65535)
                return bad_url(url, "wrong port", err);
            to->port = (unsigned)port;
            *colon = '\0';
        }
        size_t n = strlen(h);
        if (n > 2 && h[0] == '[' && h[n - 1] == ']') {
            h[n - 1] = '\0';
            h++;
        }
        if (!*h || strlen(h) >= sizeof to->name)
            return bad_url(url, "a host name is missing or too long", err);
        strcpy(to->name, h);
        m->host_count++;
    }
    return m->host_count ? 0 : bad_url(url, "no host", err);
}

static int take_seconds(const char *text, unsigned *ret)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || n == 0 || n > 3600)
        return -EINVAL;
    *ret = (unsigned)n;
    return 0;
}

static int copy_value(char *to, size_t cap, const char *from)
{
    if (strlen(from) >= cap)
        return -EINVAL;
    strcpy(to, from);
    return 0;
}

static int take_option(struct my *m, const char *key, const char *value)
{
    if (strcmp(key, "tls") == 0)
        return strcmp(value, "off") && strcmp(value, "on") && strcmp(value, "verify") ? -EINVAL : copy_value(m->tls, sizeof m->tls, value);
    if (strcmp(key, "ca") == 0)
        return copy_value(m->ca, sizeof m->ca, value);
    if (strcmp(key, "cert") == 0)
        return copy_value(m->cert, sizeof m->cert, value);
    if (strcmp(key, "key") == 0)
        return copy_value(m->key, sizeof m->key, value);
    if (strcmp(key, "password_file") == 0)
        return copy_value(m->password_file, sizeof m->password_file, value);
    if (strcmp(key, "defaults_file") == 0)
        return copy_value(m->defaults_file, sizeof m->defaults_file, value);
    if (strcmp(key, "socket") == 0)
        return copy_value(m->socket, sizeof m->socket, value);
    if (strcmp(key, "connect_timeout") == 0)
        return take_seconds(value, &m->connect_timeout_s);
    if (strcmp(key, "timeout") == 0)
        return take_seconds(value, &m->timeout_s);
    return -ENOENT;
}

static int take_options(struct my *m, const char *url, char *list, struct kfs_err *err)
{
    char *save = NULL;
    for (char *o = strtok_r(list, "&", &save); o; o = strtok_r(NULL, "&", &save)) {
        char *value = strchr(o, '=');
        if (value)
            *value++ = '\0';
        if (strncmp(o, "password", 8) == 0 && strcmp(o, "password_file"))
            return KFS_FAIL(err, EINVAL, "a password in a database URL would be shown to others; put it in a file and name that by password_file=FILE, or in "
                                         "$KFS_MYSQL_PASSWORD");
        int rc = value ? take_option(m, o, value) : -EINVAL;
        if (rc == -ENOENT)
            return KFS_FAIL(err, EINVAL, "option '%s' is unknown in '%s'; allowed: tls, ca, cert, key, password_file, defaults_file, socket, connect_timeout, timeout",
                            o, url);
        if (rc < 0)
            return KFS_FAIL(err, EINVAL, "value of option '%s' is not allowed in '%s'; see the manual of database URLs", o, url);
    }
    return 0;
}

static int parse(struct my *m, const char *url, struct kfs_err *err)
{
    kfs_auto_free char *copy = strdup(url + strlen("mysql://"));
    if (!copy)
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", url);
    char *options = strchr(copy, '?');
    if (options)
        *options++ = '\0';
    char *slash = strchr(copy, '/');
    if (!slash || !slash[1] || strlen(slash + 1) >= sizeof m->database)
        // cppcheck-suppress memleak ; kfs_auto_free
        return bad_url(url, "no name of a database", err);
    *slash = '\0';
    strcpy(m->database, slash + 1);
    for (const char *p = m->database; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != '-')
            return bad_url(url, "a name of a database has letters, digits, _ and -: wrong one", err);
    char *hosts = copy, *at = strrchr(copy, '@');
    if (at) {
        *at = '\0';
        hosts = at + 1;
        if (strchr(copy, ':')) /* the URL itself would show it once more */
            return KFS_FAIL(err, EINVAL, "a password in a database URL would be shown to others; put it in a file and name that by password_file=FILE, or in "
                                         "$KFS_MYSQL_PASSWORD");
        if (copy_value(m->user, sizeof m->user, copy) < 0)
            return bad_url(url, "name of the user is too long", err);
    }
    int rc = take_hosts(m, url, hosts, err);
    return rc < 0 || !options ? rc : take_options(m, url, options, err);
}

/* --- connecting ------------------------------------------------------------------------------------------------------- */

static int read_password(const struct my *m, char buf[PASSWORD_MAX], struct kfs_err *err)
{
    buf[0] = '\0';
    if (!m->password_file[0]) {
        const char *env = getenv("KFS_MYSQL_PASSWORD");
        if (env && copy_value(buf, PASSWORD_MAX, env) < 0)
            return KFS_FAIL(err, EINVAL, "$KFS_MYSQL_PASSWORD is too long");
        return env != NULL;
    }
    kfs_auto_fd int fd = open(m->password_file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, PASSWORD_MAX - 1);
    if (n < 0)
        return KFS_FAIL(err, errno, "cannot read password file '%s' of database '%s': %s", m->password_file, m->db.name, strerror(errno));
    buf[n] = '\0';
    buf[strcspn(buf, "\r\n")] = '\0';
    return 1;
}

static bool is_loopback(const struct my *m, const struct host *h)
{
    return m->socket[0] || strcmp(h->name, "localhost") == 0 || strncmp(h->name, "127.", 4) == 0 || strcmp(h->name, "::1") == 0;
}

static const char *given(const char *text)
{
    return text[0] ? text : NULL;
}

static void set_options(struct my *m, MYSQL *sql, const struct host *h)
{
    my_bool yes = 1, no = 0;
    unsigned protocol = m->socket[0] ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP;
    (void)mysql_options(sql, MYSQL_OPT_PROTOCOL, &protocol);
    (void)mysql_options(sql, MYSQL_OPT_CONNECT_TIMEOUT, &m->connect_timeout_s);
    (void)mysql_options(sql, MYSQL_OPT_READ_TIMEOUT, &m->timeout_s);
    (void)mysql_options(sql, MYSQL_OPT_WRITE_TIMEOUT, &m->timeout_s);
    (void)mysql_options(sql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    (void)mysql_options(sql, MYSQL_OPT_LOCAL_INFILE, &(unsigned){0});
    if (m->defaults_file[0]) {
        (void)mysql_options(sql, MYSQL_READ_DEFAULT_FILE, m->defaults_file);
        (void)mysql_options(sql, MYSQL_READ_DEFAULT_GROUP, "kfs");
    }
    const char *tls = m->tls[0] ? m->tls : is_loopback(m, h) ? "off" : "on";
    if (strcmp(tls, "off") == 0)
        return;
    (void)mysql_ssl_set(sql, given(m->key), given(m->cert), given(m->ca), NULL, NULL);
    (void)mysql_options(sql, MYSQL_OPT_SSL_ENFORCE, &yes);
    (void)mysql_options(sql, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, strcmp(tls, "verify") == 0 ? &yes : &no);
}

/* What each session has set. Those that a server may not know come after, and may fail. */
static const char *const session_must[] = {
    "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION autocommit=1",
};

static int session_begin(MYSQL *sql, unsigned timeout_s)
{
    for (size_t i = 0; i < sizeof session_must / sizeof session_must[0]; i++)
        if (mysql_query(sql, session_must[i]))
            return -EIO;
    char text[96];
    (void)snprintf(text, sizeof text, "SET SESSION max_statement_time=%u", timeout_s);
    if (mysql_query(sql, text)) { /* MariaDB's; MySQL's counts milliseconds, and SELECTs alone */
        (void)snprintf(text, sizeof text, "SET SESSION max_execution_time=%u", timeout_s * 1000);
        (void)mysql_query(sql, text);
    }
    return 0;
}

/* 1, 0, or -1: it does not say. */
static int is_server_read_only(MYSQL *sql)
{
    if (mysql_query(sql, "SELECT @@global.read_only"))
        return -1;
    MYSQL_RES *res = mysql_store_result(sql);
    MYSQL_ROW row = res ? mysql_fetch_row(res) : NULL;
    int result = row && row[0] ? strcmp(row[0], "0") != 0 && strcasecmp(row[0], "off") != 0 : -1;
    mysql_free_result(res);
    return result;
}

static int connect_error(const struct my *m, const struct host *h, unsigned code, const char *what, struct kfs_err *err)
{
    int e = ECONNREFUSED;
    const char *cure = "is the server up, and the port right?";
    if (code == ER_ACCESS_DENIED_ERROR || code == ER_DBACCESS_DENIED_ERROR) {
        e = EACCES;
        cure = "check user, password and grants";
    } else if (code == ER_BAD_DB_ERROR) {
        e = ENOENT;
        cure = "create it with CREATE DATABASE, or check its name";
    } else if (code == CR_SSL_CONNECTION_ERROR) {
        e = EPROTO;
        cure = "check tls, ca, cert and key in the URL";
    } else if (code == CR_UNKNOWN_HOST) {
        e = EHOSTUNREACH;
        cure = "check the name of the host";
    }
    return KFS_FAIL(err, e, "cannot connect to database '%s' at %s:%u: %s; %s", m->db.name, h->name, h->port, what, cure);
}

/* One host. 0: connected. */
static int connect_host(struct my *m, const struct host *h, struct kfs_err *err)
{
    char password[PASSWORD_MAX];
    int has_password = read_password(m, password, err);
    if (has_password < 0)
        return has_password;
    MYSQL *sql = mysql_init(NULL);
    if (!sql) {
        explicit_bzero(password, sizeof password);
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", m->db.name);
    }
    set_options(m, sql, h);
    MYSQL *ok = mysql_real_connect(sql, h->name, given(m->user), has_password ? password : NULL, m->database, h->port, given(m->socket),
                                   CLIENT_FOUND_ROWS);
    explicit_bzero(password, sizeof password);
    int rc = 0;
    if (!ok || session_begin(sql, m->timeout_s) < 0)
        rc = connect_error(m, h, mysql_errno(sql), mysql_error(sql), err);
    else if (is_server_read_only(sql) == 1)
        rc = KFS_FAIL(err, EROFS, "database '%s' at %s:%u is read-only; name its primary in the URL", m->db.name, h->name, h->port);
    if (rc < 0) {
        mysql_close(sql);
        return rc;
    }
    m->sql = sql;
    (void)snprintf(m->engine, sizeof m->engine, "%s at %.200s:%u", mysql_get_server_info(sql), h->name, h->port);
    return 0;
}

/* One kfsd at a time has a volume open. The server gives the claim back when the connection ends; that of a connection which was lost may take the server
 * some seconds to see. */
#define CLAIM_WAIT_S 10

static int take_claim(struct my *m, struct kfs_err *err)
{
    char text[256];
    (void)snprintf(text, sizeof text, "SELECT GET_LOCK('kfs.%.50s', %d)", m->database, CLAIM_WAIT_S);
    MYSQL_RES *res = mysql_query(m->sql, text) ? NULL : mysql_store_result(m->sql);
    if (!res)
        return fail(m, err);
    MYSQL_ROW row = mysql_fetch_row(res);
    bool got = row && row[0] && strcmp(row[0], "1") == 0;
    mysql_free_result(res);
    if (got)
        return 0;
    disconnect(m);
    (void)KFS_FAIL(err, EAGAIN, "database '%s' is in use by another process; end it, or use its kfsd", m->db.name);
    return transient(err);
}

static int connect_any(struct my *m, struct kfs_err *err)
{
    int rc = -ECONNREFUSED;
    for (unsigned i = 0; i < m->host_count; i++) {
        unsigned at = (m->host_at + i) % m->host_count;
        if (err)
            *err = (struct kfs_err){0};
        rc = connect_host(m, &m->hosts[at], err);
        if (rc == 0 && m->exclusive)
            rc = take_claim(m, err);
        if (rc == 0) {
            m->host_at = at;
            return 0;
        }
    }
    return rc;
}

/* A connection that is not there, or has died unnoticed, is made again; but never inside of a transaction. */
static int connected(struct my *m, struct kfs_err *err)
{
    int rc = m->sql ? 0 : connect_any(m, err);
    if (rc < 0 && rc != -EACCES && rc != -EPROTO && m->opened)
        return transient(err); /* it was there, and will be again */
    return rc;
}

/* --- text of statements ------------------------------------------------------------------------------------------------ */

static int text_room(struct my *m, size_t more, struct kfs_err *err)
{
    if (m->text_len + more <= m->text_cap)
        return 0;
    size_t cap = m->text_cap ? m->text_cap : 4096;
    while (cap < m->text_len + more)
        cap *= 2;
    char *p = realloc(m->text, cap);
    if (!p)
        return KFS_FAIL(err, ENOMEM, "out of memory for a statement to database '%s'", m->db.name);
    m->text = p;
    m->text_cap = cap;
    return 0;
}

static int text_add(struct my *m, const char *s, size_t n, struct kfs_err *err)
{
    int rc = text_room(m, n, err);
    if (rc == 0) {
        memcpy(m->text + m->text_len, s, n);
        m->text_len += n;
    }
    return rc;
}

static int text_add_bytes(struct my *m, const unsigned char *p, size_t n, struct kfs_err *err)
{
    static const char digits[] = "0123456789abcdef";
    int rc = text_room(m, 2 * n + 3, err);
    if (rc < 0)
        return rc;
    char *to = m->text + m->text_len;
    *to++ = 'X';
    *to++ = '\'';
    for (size_t i = 0; i < n; i++) {
        *to++ = digits[p[i] >> 4];
        *to++ = digits[p[i] & 15];
    }
    *to++ = '\'';
    m->text_len += 2 * n + 3;
    return 0;
}

static int text_add_arg(struct my *m, const struct kfs_db_arg *a, struct kfs_err *err)
{
    char number[32];
    switch (a->type) {
    case KFS_DB_INT: {
        int n = snprintf(number, sizeof number, "%lld", (long long)a->number);
        return text_add(m, number, (size_t)n, err);
    }
    case KFS_DB_BLOB:
        return text_add_bytes(m, a->bytes, a->len, err);
    case KFS_DB_TEXT:
        return text_add_bytes(m, a->bytes, strlen(a->bytes), err);
    case KFS_DB_NULL:
        break;
    }
    return text_add(m, "NULL", 4, err);
}

/* From `from` to its end or `end`, each ? replaced by the next argument. */
static int text_add_template(struct my *m, const char *from, const char *end, const struct kfs_db_arg *args, size_t arg_count, struct kfs_err *err)
{
    size_t used = 0;
    int rc = 0;
    while (rc == 0 && from < end) {
        size_t n = 0;
        while (from + n < end && from[n] != '?')
            n++;
        rc = text_add(m, from, n, err);
        from += n;
        if (rc == 0 && from < end) {
            assert(used < arg_count);
            rc = text_add_arg(m, &args[used++], err);
            from++;
        }
    }
    assert(rc < 0 || used == arg_count);
    (void)arg_count;
    return rc;
}

/* Send m->text. Lost before anything was under way: once more on a new connection. */
static int send_text(struct my *m, struct kfs_err *err)
{
    bool retry = !m->in_txn;
    for (;;) {
        int rc = connected(m, err);
        if (rc < 0)
            return rc;
        if (mysql_real_query(m->sql, m->text, (unsigned long)m->text_len) == 0)
            return 0;
        bool lost = is_lost(mysql_errno(m->sql)) || is_read_only(mysql_errno(m->sql));
        if (!lost || !retry)
            return fail(m, err);
        disconnect(m);
        retry = false;
    }
}

static int build(struct my *m, enum kfs_sql id, const struct kfs_db_arg *args, size_t arg_count, struct kfs_err *err)
{
    const char *t = kfs_sql_texts[id];
    m->text_len = 0;
    return text_add_template(m, t, t + strlen(t), args, arg_count, err);
}

/* The place of "(?,…)" behind VALUES when the statement ends with it: more rows may follow. NULL: one row a statement. */
static const char *values_of(const char *text)
{
    const char *v = strstr(text, "VALUES(");
    return v && text[strlen(text) - 1] == ')' ? v + strlen("VALUES") : NULL;
}

static int my_exec_rows(struct kfs_db *base, enum kfs_sql id, const struct kfs_db_arg *args, size_t args_per_row, size_t row_count, struct kfs_err *err)
{
    struct my *m = my(base);
    const char *t = kfs_sql_texts[id], *values = row_count > 1 ? values_of(t) : NULL;
    int changed = 0;
    for (size_t i = 0; i < row_count;) {
        int rc = build(m, id, args + i * args_per_row, args_per_row, err);
        i++;
        while (rc == 0 && values && i < row_count && m->text_len < BATCH_BYTES) {
            rc = text_add(m, ",", 1, err);
            if (rc == 0)
                rc = text_add_template(m, values, t + strlen(t), args + i * args_per_row, args_per_row, err);
            i++;
        }
        if (rc == 0)
            rc = send_text(m, err);
        if (rc < 0)
            return rc;
        changed += (int)mysql_affected_rows(m->sql);
    }
    return changed;
}

/* --- rows ---------------------------------------------------------------------------------------------------------------- */

static void my_done(struct kfs_row *row)
{
    struct query *q = query_of(row);
    mysql_free_result(q->res);
    q->res = NULL;
    q->cells = NULL;
}

static int my_next(struct kfs_db *base, struct kfs_row *row, struct kfs_err *err)
{
    (void)base;
    (void)err;
    struct query *q = query_of(row);
    q->cells = mysql_fetch_row(q->res);
    q->lengths = q->cells ? mysql_fetch_lengths(q->res) : NULL;
    return q->cells != NULL;
}

static int my_first(struct kfs_db *base, enum kfs_sql id, const struct kfs_db_arg *args, size_t arg_count, struct kfs_row **ret_row, struct kfs_err *err)
{
    struct my *m = my(base);
    struct query *q = &m->queries[id];
    assert(!q->res);
    int rc = build(m, id, args, arg_count, err);
    if (rc == 0)
        rc = send_text(m, err);
    if (rc < 0)
        return rc;
    q->row.ops = &kfs_db_mysql;
    q->res = mysql_store_result(m->sql);
    if (!q->res)
        return fail(m, err);
    rc = my_next(base, &q->row, err);
    if (rc == 1)
        *ret_row = &q->row;
    else
        my_done(&q->row);
    return rc;
}

static int64_t my_int(struct kfs_row *row, int column)
{
    const char *text = query_of(row)->cells[column];
    return text ? strtoll(text, NULL, 10) : 0;
}

static const void *my_bytes(struct kfs_row *row, int column, size_t *ret_len)
{
    struct query *q = query_of(row);
    *ret_len = q->cells[column] ? q->lengths[column] : 0;
    return *ret_len ? q->cells[column] : NULL;
}

/* --- transactions -------------------------------------------------------------------------------------------------------- */

static int simple(struct my *m, const char *text, struct kfs_err *err)
{
    m->text_len = 0;
    int rc = text_add(m, text, strlen(text), err);
    return rc < 0 ? rc : send_text(m, err);
}

static int my_begin(struct kfs_db *base, struct kfs_err *err)
{
    struct my *m = my(base);
    int rc = simple(m, "START TRANSACTION", err);
    m->in_txn = rc == 0;
    return rc;
}

static void my_rollback(struct kfs_db *base)
{
    struct my *m = my(base);
    if (m->sql && mysql_query(m->sql, "ROLLBACK"))
        disconnect(m); /* which rolls back as well */
    m->in_txn = false;
}

static int my_commit(struct kfs_db *base, struct kfs_err *err)
{
    struct my *m = my(base);
    if (!m->in_txn) {
        (void)KFS_FAIL(err, EAGAIN, "the transaction on database '%s' was lost; it may run again", m->db.name);
        return transient(err);
    }
    int rc = simple(m, "COMMIT", err);
    if (rc < 0) {
        /* No connection any more: the COMMIT may have arrived. */
        m->db.outcome_unknown = m->sql == NULL;
        my_rollback(base);
    }
    m->in_txn = false;
    return rc;
}

/* --- tables --------------------------------------------------------------------------------------------------------------- */

static int my_query_int(struct kfs_db *base, const char *sql, int64_t *ret_n, struct kfs_err *err)
{
    struct my *m = my(base);
    int rc = simple(m, sql, err);
    if (rc < 0)
        return rc;
    MYSQL_RES *res = mysql_store_result(m->sql);
    if (!res)
        return fail(m, err);
    MYSQL_ROW row = mysql_fetch_row(res);
    if (row)
        *ret_n = row[0] ? strtoll(row[0], NULL, 10) : 0;
    mysql_free_result(res);
    return row ? 0 : -ENOENT;
}

static int my_identify(struct kfs_db *base, struct kfs_err *err)
{
    int64_t tables = 0, ours = 0;
    int rc = my_query_int(base, "SELECT count(*) FROM information_schema.tables WHERE table_schema=database()", &tables, err);
    if (rc >= 0)
        rc = my_query_int(base, "SELECT count(*) FROM information_schema.tables WHERE table_schema=database() AND table_name IN ('volume','inode','dentry','counter')",
                          &ours, err);
    if (rc < 0)
        return rc;
    if (tables && !ours)
        return KFS_FAIL(err, EINVAL, "database '%s' has tables of another program; name a database of its own for the volume", base->name);
    if (ours < 4)
        return 0; /* none, or those of a format that was cut off */
    int64_t volumes = 0; /* its row comes last */
    rc = my_query_int(base, "SELECT count(*) FROM volume", &volumes, err);
    return rc < 0 ? rc : volumes > 0;
}

/* DDL word by word: types by name, WITHOUT ROWID away. */
static int text_add_ddl(struct my *m, const char *from, const char *end, struct kfs_err *err)
{
    static const struct {
        const char *word, *becomes;
    } words[] = {
        {"INTEGER", "BIGINT"},       {"NAME", "VARBINARY(255)"}, {"TEXT", "VARBINARY(1024)"}, {"BLOB", "MEDIUMBLOB"},
        {"WITHOUT ROWID", ""},       {"CREATE TABLE", "CREATE TABLE IF NOT EXISTS"},
    };
    int rc = 0;
    bool quoted = false;
    while (rc == 0 && from < end) {
        size_t n = 1;
        const char *put = from;
        size_t put_len = 1;
        quoted ^= *from == '`' || *from == '\'';
        if (!quoted && isalpha((unsigned char)*from)) {
            while (from + n < end && (isalnum((unsigned char)from[n]) || from[n] == '_'))
                n++;
            put_len = n;
            for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
                size_t len = strlen(words[i].word);
                if (len >= n && from + len <= end && strncmp(from, words[i].word, len) == 0 &&
                    (from + len == end || !(isalnum((unsigned char)from[len]) || from[len] == '_'))) {
                    put = words[i].becomes;
                    put_len = strlen(put);
                    n = len;
                    break;
                }
            }
        }
        rc = text_add(m, put, put_len, err);
        from += n;
    }
    return rc;
}

/* Comments away: what is left may be cut at semicolons. */
static char *without_comments(const char *sql)
{
    char *copy = malloc(strlen(sql) + 1), *to = copy;
    for (const char *p = sql; copy && *p;) {
        if (p[0] == '-' && p[1] == '-')
            p += strcspn(p, "\n");
        else
            *to++ = *p++;
    }
    if (copy)
        *to = '\0';
    return copy;
}

static int my_script(struct kfs_db *base, const char *sql, struct kfs_err *err)
{
    struct my *m = my(base);
    kfs_auto_free char *copy = without_comments(sql);
    if (!copy)
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", base->name);
    for (const char *p = copy; *p;) {
        size_t n = strcspn(p, ";");
        if (strspn(p, " \t\n;") < n) {
            m->text_len = 0;
            int rc = text_add_ddl(m, p, p + n, err);
            if (rc == 0)
                rc = send_text(m, err);
            if (rc < 0)
                return rc;
        }
        p += n + (p[n] == ';');
    }
    return 0;
}

static int my_create_tables(struct kfs_db *base, const char *schema, struct kfs_err *err)
{
    /* DDL ends the transaction under way, so it comes before one. */
    bool was = my(base)->in_txn;
    int rc = was ? simple(my(base), "COMMIT", err) : 0;
    my(base)->in_txn = false;
    if (rc == 0)
        rc = my_script(base, schema, err);
    return rc == 0 && was ? my_begin(base, err) : rc;
}

/* --- life ------------------------------------------------------------------------------------------------------------------ */

static void my_close(struct kfs_db *base)
{
    struct my *m = my(base);
    for (int i = 0; i < KFS_SQL_COUNT; i++)
        mysql_free_result(m->queries[i].res);
    disconnect(m);
    free(m->text);
    free(m->db.name);
    free(m);
}

static int my_open(const char *where, bool create, struct kfs_db **ret_db, struct kfs_err *err)
{
    (void)create; /* a database on a server is made by its administrator */
    struct my *m = calloc(1, sizeof *m);
    if (!m || !(m->db.name = strdup(where))) {
        free(m);
        return KFS_FAIL(err, ENOMEM, "out of memory for database '%s'", where);
    }
    m->db.ops = &kfs_db_mysql;
    m->connect_timeout_s = 5;
    m->timeout_s = 30;
    int rc = parse(m, where, err);
    if (rc == 0)
        rc = connect_any(m, err);
    if (rc < 0) {
        my_close(&m->db);
        return rc;
    }
    m->opened = true;
    *ret_db = &m->db;
    return 0;
}

static int my_configure(struct kfs_db *base, struct kfs_err *err)
{
    struct my *m = my(base);
    int rc = connected(m, err);
    m->exclusive = true;
    return rc < 0 ? rc : take_claim(m, err);
}

static int my_wal_fd(struct kfs_db *db, int *ret_fd, struct kfs_err *err)
{
    (void)db;
    (void)err;
    *ret_fd = -1;
    return 0;
}

static int my_sync(struct kfs_db *db, struct kfs_err *err)
{
    (void)db;
    (void)err;
    return 0;
}

static const char *my_engine(struct kfs_db *db)
{
    return my(db)->engine;
}

const struct kfs_db_ops kfs_db_mysql = {
    .open = my_open,
    .configure = my_configure,
    .close = my_close,
    .identify = my_identify,
    .create_tables = my_create_tables,
    .exec_rows = my_exec_rows,
    .first = my_first,
    .next = my_next,
    .done = my_done,
    .get_int = my_int,
    .get_bytes = my_bytes,
    .begin = my_begin,
    .commit = my_commit,
    .rollback = my_rollback,
    .script = my_script,
    .query_int = my_query_int,
    .wal_fd = my_wal_fd,
    .sync = my_sync,
    .engine = my_engine,
};
