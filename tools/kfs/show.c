/* JSON for people. A small recursive reader that writes while it reads; depth and input are bounded, because kfsd may be of another version. */
#include "base/cleanup.h"
#include "tools/kfs/kfs.h"
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 16
#define COLUMNS_MAX 16
#define ROWS_MAX 65536

struct reader {
    const char *p, *end;
    int depth;
};

static void blanks_skip(struct reader *r)
{
    while (r->p < r->end && isspace((unsigned char)*r->p))
        r->p++;
}

static bool take(struct reader *r, char c)
{
    blanks_skip(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static bool peek(struct reader *r, char c)
{
    blanks_skip(r);
    return r->p < r->end && *r->p == c;
}

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        if (!isxdigit((unsigned char)p[i]))
            return -1;
        v = v * 16 + (isdigit((unsigned char)p[i]) ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    }
    return v;
}

/* What follows a backslash. What could move the terminal's cursor stays visible as \uXXXX. */
static bool escape_take(struct reader *r, struct kfs_buf *out)
{
    if (r->p == r->end)
        return false;
    char c = *r->p++;
    if (c == '"' || c == '\\' || c == '/')
        return kfs_buf_append(out, &c, 1) == 0;
    if (c && strchr("bfnrt", c))
        return kfs_buf_printf(out, "\\%c", c) == 0;
    if (c != 'u' || r->end - r->p < 4 || hex4(r->p) < 0)
        return false;
    r->p += 4;
    return kfs_buf_printf(out, "\\u%.4s", r->p - 4) == 0;
}

static bool string_take(struct reader *r, struct kfs_buf *out)
{
    if (!take(r, '"'))
        return false;
    while (r->p < r->end && *r->p != '"') {
        char c = *r->p++;
        if (c == '\\' ? !escape_take(r, out) : kfs_buf_append(out, &c, 1) < 0)
            return false;
    }
    return take(r, '"');
}

/* A string, number, true, false or null as text. */
static bool scalar_take(struct reader *r, struct kfs_buf *out)
{
    blanks_skip(r);
    if (peek(r, '"'))
        return string_take(r, out);
    const char *start = r->p;
    while (r->p < r->end && (isalnum((unsigned char)*r->p) || (*r->p && strchr("+-.", *r->p))))
        r->p++;
    size_t n = (size_t)(r->p - start);
    if (n == 4 && memcmp(start, "true", 4) == 0)
        return kfs_buf_append_str(out, "yes") == 0;
    if (n == 5 && memcmp(start, "false", 5) == 0)
        return kfs_buf_append_str(out, "no") == 0;
    if (n == 4 && memcmp(start, "null", 4) == 0)
        return kfs_buf_append_str(out, "-") == 0;
    return n > 0 && kfs_buf_append(out, start, n) == 0;
}

static bool value_skip(struct reader *r)
{
    struct kfs_buf sink;
    kfs_buf_init(&sink);
    bool ok = r->depth < DEPTH_MAX;
    r->depth++;
    char close = peek(r, '{') ? '}' : peek(r, '[') ? ']' : '\0';
    if (!close) {
        ok = ok && scalar_take(r, &sink);
    } else {
        r->p++;
        while (ok && !peek(r, close)) {
            ok = close == ']' || (string_take(r, &sink) && take(r, ':'));
            ok = ok && value_skip(r) && (take(r, ',') || peek(r, close));
        }
        ok = ok && take(r, close);
    }
    r->depth--;
    kfs_buf_release(&sink);
    return ok;
}

static void size_add(const char *key, size_t key_len, struct kfs_buf *b, size_t from)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if ((key_len < 5 || memcmp(key + key_len - 5, "bytes", 5) != 0) && !(key_len == 4 && memcmp(key, "size", 4) == 0))
        return;
    char *end;
    double v = (double)strtoull(kfs_buf_str(b) + from, &end, 10);
    if (*end || end == kfs_buf_str(b) + from || v < 1024)
        return;
    size_t u = 0;
    for (v /= 1024; v >= 1024 && u + 1 < sizeof units / sizeof *units; u++)
        v /= 1024;
    (void)kfs_buf_printf(b, " (%.1f %s)", v, units[u]);
}

static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80; /* UTF-8 continuation bytes take no column */
    return n;
}

static void pad(struct kfs_buf *out, size_t n)
{
    while (n--)
        (void)kfs_buf_append(out, " ", 1);
}

static bool value_show(struct reader *r, size_t indent, struct kfs_buf *out);

/* ---- tables: arrays of objects -------------------------------------------------------------------------------------- */

struct table {
    char *names[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX];
    size_t columns, rows;
    char **cells; /* rows * COLUMNS_MAX, NULL: empty */
};

static void table_release(struct table *t)
{
    for (size_t i = 0; i < t->columns; i++)
        free(t->names[i]);
    for (size_t i = 0; i < t->rows * COLUMNS_MAX; i++)
        free(t->cells[i]);
    free(t->cells);
}

static bool column_find(struct table *t, const char *name, size_t *ret)
{
    for (*ret = 0; *ret < t->columns; ++*ret)
        if (strcmp(t->names[*ret], name) == 0)
            return true;
    if (t->columns == COLUMNS_MAX)
        return false;
    t->names[t->columns] = strdup(name);
    t->widths[t->columns] = width_of(name);
    return t->names[t->columns++] != NULL;
}

/* Nested values of a cell are left out: --json has them. */
static bool cell_take(struct reader *r, struct table *t, char **row)
{
    struct kfs_buf key, value;
    kfs_buf_init(&key);
    kfs_buf_init(&value);
    size_t col;
    bool ok = string_take(r, &key) && take(r, ':');
    if (ok && (peek(r, '{') || peek(r, '['))) {
        ok = value_skip(r);
    } else if (ok && column_find(t, kfs_buf_str(&key), &col)) {
        ok = scalar_take(r, &value);
        size_add(kfs_buf_str(&key), key.len, &value, 0);
        free(row[col]);
        row[col] = strdup(kfs_buf_str(&value));
        ok = ok && row[col];
        if (ok && width_of(row[col]) > t->widths[col])
            t->widths[col] = width_of(row[col]);
    } else {
        ok = ok && value_skip(r);
    }
    kfs_buf_release(&key);
    kfs_buf_release(&value);
    return ok;
}

static bool row_take(struct reader *r, struct table *t)
{
    char **cells = t->rows < ROWS_MAX ? realloc(t->cells, (t->rows + 1) * COLUMNS_MAX * sizeof *cells) : NULL;
    if (!cells)
        return false;
    t->cells = cells;
    char **row = cells + t->rows++ * COLUMNS_MAX;
    memset(row, 0, COLUMNS_MAX * sizeof *row);
    bool ok = take(r, '{');
    while (ok && !peek(r, '}'))
        ok = cell_take(r, t, row) && (take(r, ',') || peek(r, '}'));
    return ok && take(r, '}');
}

static void line_show(const struct table *t, char *const *cells, size_t indent, struct kfs_buf *out)
{
    size_t last = t->columns;
    while (last && (!cells[last - 1] || !*cells[last - 1]))
        last--;
    pad(out, indent);
    for (size_t i = 0; i < last; i++) {
        const char *s = cells[i] ? cells[i] : "";
        (void)kfs_buf_append_str(out, s);
        if (i + 1 < last)
            pad(out, t->widths[i] - width_of(s) + 2);
    }
    (void)kfs_buf_append_str(out, "\n");
}

static bool table_show(struct reader *r, size_t indent, struct kfs_buf *out)
{
    struct table t = {.columns = 0};
    bool ok = true;
    while (ok && !peek(r, ']'))
        ok = row_take(r, &t) && (take(r, ',') || peek(r, ']'));
    ok = ok && take(r, ']');
    if (ok)
        line_show(&t, t.names, indent, out);
    for (size_t i = 0; ok && i < t.rows; i++)
        line_show(&t, t.cells + i * COLUMNS_MAX, indent, out);
    table_release(&t);
    return ok;
}

/* ---- the rest ----------------------------------------------------------------------------------------------------------- */

static size_t key_width(struct reader r)
{
    size_t widest = 0;
    struct kfs_buf key;
    kfs_buf_init(&key);
    while (!peek(&r, '}')) {
        kfs_buf_clear(&key);
        if (!string_take(&r, &key) || !take(&r, ':'))
            break;
        bool nested = peek(&r, '{') || peek(&r, '[');
        if (!nested && width_of(kfs_buf_str(&key)) > widest)
            widest = width_of(kfs_buf_str(&key));
        if (!value_skip(&r) || !take(&r, ','))
            break;
    }
    kfs_buf_release(&key);
    return widest;
}

static bool member_show(struct reader *r, size_t indent, size_t width, struct kfs_buf *out)
{
    struct kfs_buf key;
    kfs_buf_init(&key);
    bool ok = string_take(r, &key) && take(r, ':');
    pad(out, ok ? indent : 0);
    (void)kfs_buf_printf(out, "%s:", kfs_buf_str(&key));
    if (ok && (peek(r, '{') || peek(r, '['))) {
        (void)kfs_buf_append_str(out, "\n");
        ok = value_show(r, indent + 2, out);
    } else if (ok) {
        size_t w = width_of(kfs_buf_str(&key));
        pad(out, (w < width ? width - w : 0) + 1);
        size_t from = out->len;
        ok = scalar_take(r, out);
        size_add(kfs_buf_str(&key), key.len, out, from);
        (void)kfs_buf_append_str(out, "\n");
    }
    kfs_buf_release(&key);
    return ok;
}

static bool object_show(struct reader *r, size_t indent, struct kfs_buf *out)
{
    size_t width = key_width(*r);
    bool ok = true;
    if (peek(r, '}')) {
        pad(out, indent);
        (void)kfs_buf_append_str(out, "(none)\n");
    }
    while (ok && !peek(r, '}'))
        ok = member_show(r, indent, width, out) && (take(r, ',') || peek(r, '}'));
    return ok && take(r, '}');
}

static bool array_show(struct reader *r, size_t indent, struct kfs_buf *out)
{
    if (indent && peek(r, '{'))
        return table_show(r, indent, out);
    bool ok = true, first = true;
    if (peek(r, ']')) {
        pad(out, indent);
        (void)kfs_buf_append_str(out, "(none)\n");
    }
    for (; ok && !peek(r, ']'); first = false) {
        if (!indent && !first)
            (void)kfs_buf_append_str(out, "\n"); /* several volumes: a blank line between them */
        ok = value_show(r, indent, out) && (take(r, ',') || peek(r, ']'));
    }
    return ok && take(r, ']');
}

static bool value_show(struct reader *r, size_t indent, struct kfs_buf *out)
{
    if (r->depth >= DEPTH_MAX)
        return false;
    r->depth++;
    bool ok;
    if (take(r, '{')) {
        ok = object_show(r, indent, out);
    } else if (take(r, '[')) {
        ok = array_show(r, indent, out);
    } else {
        pad(out, indent);
        ok = scalar_take(r, out);
        (void)kfs_buf_append_str(out, "\n");
    }
    r->depth--;
    return ok;
}

bool kfs_show_json(const char *json, size_t len, struct kfs_buf *out)
{
    struct reader r = {.p = json, .end = json + len};
    bool ok = value_show(&r, 0, out);
    blanks_skip(&r);
    return ok && r.p == r.end && !out->failed;
}
