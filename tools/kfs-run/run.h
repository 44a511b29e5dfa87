/* tools/kfs-run/run.h — what the parts of kfs-run share
 *
 * What     options.c reads the command line, mounts.c turns --at into KFS_AT (finding or starting each kfsd), exec.c becomes CMD,
 *          session.c stays behind as its parent when closes are not waited for.
 * Model    Exit codes: 2 usage, 1 failure before CMD ran (or what CMD wrote could not be stored), 127 CMD not found, 126 CMD cannot be executed;
 *          otherwise CMD's own code or signal.
 */
#ifndef KFS_TOOLS_KFS_RUN_RUN_H
#define KFS_TOOLS_KFS_RUN_RUN_H

#include "base/conf.h"
#include "base/pure/mounts.h"
#include "tools/common/endpoint.h"
#include <stdbool.h>
#include <sys/types.h>

enum run_mode { RUN_CMD, RUN_SHELL, RUN_CHECK, RUN_START, RUN_EXEC_ONLY };

struct run_at {
    char prefix[sizeof((struct kfs_mount *)0)->prefix];
    const char *volume; /* as given */
};

struct run_options {
    enum run_mode mode;
    bool create;
    bool commit_given, session;
    struct run_at at[KFS_MOUNTS_MAX];
    int at_count;
    char *cache_dir, *run_dir; /* absolute, or NULL */
    const char *start_url, *start_socket;
    int linger_s; /* -1: configuration */
    char **cmd;   /* NULL-terminated; [0] NULL when none */
};

/* The mounts of this run: those of an outer kfs-run and our own. */
struct run_mounts {
    struct kfs_mount m[KFS_MOUNTS_MAX];
    bool ours[KFS_MOUNTS_MAX];
    int count;
};

/* options.c. Returns 0, or 1 + the exit code when the program ends here (help, version, usage errors). */
int run_options_parse(int argc, char **argv, struct run_options *ret);
void run_options_release(struct run_options *o);
/* "/data=URL" checked against those already there; -EINVAL + err. */
int run_at_add(struct run_options *o, const char *arg, struct kfs_err *err);

/* mounts.c */
int run_mounts_make(const struct run_options *o, const struct kfs_conf *conf, struct run_mounts *ret, struct kfs_err *err);
/* The library that programs of this libc preload. -ENOENT + err: it is not installed. */
int run_shim_find(bool musl, char *buf, size_t cap, struct kfs_err *err);
/* Put KFS_AT, KFS_RUN and LD_PRELOAD into this process's environment. musl: CMD is a program of musl. */
int run_environment_set(const struct run_mounts *m, bool musl, struct kfs_err *err);

/* exec.c: become CMD. Returns 126 or 127 after saying why. */
int run_exec(char **cmd, const struct run_mounts *m);

/* session.c: run CMD as a child, then wait until everything is stored. The exit code; ends by CMD's signal instead of returning when it had one. */
int run_session(char **cmd, const struct run_mounts *m, const struct kfs_conf *conf, const struct run_options *o);

#endif
