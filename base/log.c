#include "base/log.h"

#include "base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

static int log_fd = STDERR_FILENO;
static enum kfs_log_level log_level = KFS_LOG_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

int kfs_log_open(const char *path)
{
    int fd = STDERR_FILENO;
    if (path) {
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
        if (fd < 0)
            return -errno;
    }
    int old = __atomic_exchange_n(&log_fd, fd, __ATOMIC_ACQ_REL);
    if (old != STDERR_FILENO)
        (void)close(old);
    return 0;
}

void kfs_log_level_set(enum kfs_log_level level)
{
    __atomic_store_n(&log_level, level, __ATOMIC_RELAXED);
}

bool kfs_log_level_parse(const char *name, enum kfs_log_level *ret_level)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum kfs_log_level)i;
            return true;
        }
    return false;
}

/* Escape msg into out (room bytes); returns the bytes written, never more than room. */
static size_t escape(char *out, size_t room, const char *msg)
{
    size_t n = 0;
    for (; *msg; msg++) {
        unsigned char c = (unsigned char)*msg;
        char tmp[5];
        if (c == '\n' || c == '\\') {
            tmp[0] = '\\';
            tmp[1] = c == '\n' ? 'n' : '\\';
            tmp[2] = '\0';
        } else if (c < 0x20 || c == 0x7f) {
            (void)snprintf(tmp, sizeof tmp, "\\x%02x", c);
        } else {
            tmp[0] = (char)c;
            tmp[1] = '\0';
        }
        size_t k = strlen(tmp);
        if (n + k > room)
            break;
        memcpy(out + n, tmp, k);
        n += k;
    }
    return n;
}

__attribute__((format(printf, 3, 0))) static void log_line(enum kfs_log_level level,
                                                            uint64_t left_out, const char *fmt,
                                                            va_list ap)
{
    int saved = errno;
    char msg[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    (void)vsnprintf(msg, sizeof msg, fmt, ap);

    struct timespec now = kfs_clock_real();
    struct tm tm;
    (void)gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    int k = snprintf(line + n, sizeof line - n, ".%03ldZ %s %d ", now.tv_nsec / 1000000,
                     level_names[level], (int)getpid());
    n += (size_t)k;
    char tail[64] = "";
    if (left_out)
        (void)snprintf(tail, sizeof tail, " (%llu more like this)", (unsigned long long)left_out);
    size_t tail_len = strlen(tail);
    n += escape(line + n, sizeof line - n - tail_len - 1, msg);
    memcpy(line + n, tail, tail_len);
    n += tail_len;
    line[n++] = '\n';
    int fd = __atomic_load_n(&log_fd, __ATOMIC_ACQUIRE);
    while (write(fd, line, n) < 0 && errno == EINTR)
        ;
    errno = saved;
}

void kfs_log(enum kfs_log_level level, const char *fmt, ...)
{
    if (level > __atomic_load_n(&log_level, __ATOMIC_RELAXED))
        return;
    va_list ap;
    va_start(ap, fmt);
    log_line(level, 0, fmt, ap);
    va_end(ap);
}

void kfs_log_limited(struct kfs_log_limit *state, enum kfs_log_level level, const char *fmt, ...)
{
    if (level > __atomic_load_n(&log_level, __ATOMIC_RELAXED))
        return;
    uint64_t now = kfs_clock_mono_ns();
    uint64_t next = __atomic_load_n(&state->next_ns, __ATOMIC_RELAXED);
    /* Whoever moves next_ns forward writes the line; everybody else in this second is counted. */
    if (now < next || !__atomic_compare_exchange_n(&state->next_ns, &next, now + 1000000000u, false,
                                                   __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        (void)__atomic_add_fetch(&state->left_out, 1, __ATOMIC_RELAXED);
        return;
    }
    uint64_t left_out = __atomic_exchange_n(&state->left_out, 0, __ATOMIC_RELAXED);
    va_list ap;
    va_start(ap, fmt);
    log_line(level, left_out, fmt, ap);
    va_end(ap);
}
