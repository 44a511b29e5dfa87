/* base/log.h — one line an event, for whoever looks after kfsd
 *
 * What     `2031-05-06T07:08:09.123Z warn 4711 message`: UTC, level, process, text. To stderr until kfs_log_open names a file.
 * Model    A line is one write(2) to an append-only descriptor, so lines of several processes never mix. Control characters, newlines and
 *          backslashes of the message are escaped (\n, \x1b, \\): what a file is called cannot forge a line. Longer lines are cut at 2 KiB.
 *          The default level is info.
 * Threads  Any thread. kfs_log_open and kfs_log_level_set: at start, before other threads.
 * Blocks   On the descriptor only. errno is preserved.
 */
#ifndef KFS_BASE_LOG_H
#define KFS_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum kfs_log_level { KFS_LOG_ERROR, KFS_LOG_WARN, KFS_LOG_INFO, KFS_LOG_DEBUG };

/* Append to this file (created with mode 0600) instead of stderr. NULL: stderr again. -errno. */
int kfs_log_open(const char *path);
void kfs_log_level_set(enum kfs_log_level level);
bool kfs_log_level_parse(const char *name, enum kfs_log_level *ret_level); /* "error", "warn", "info", "debug" */

void kfs_log(enum kfs_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* At most one line per second and state; the next one that passes says how many were left out. State: static, zeroed. */
struct kfs_log_limit {
    uint64_t next_ns;
    uint64_t left_out;
};
void kfs_log_limited(struct kfs_log_limit *state, enum kfs_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
