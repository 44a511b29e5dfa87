/* tools/common/endpoint.h — from what a user calls a volume to the kfsd that serves it
 *
 * What     Resolves a volume's URL or name, finds the kfsd that has it (the lock file beside the database says which), starts a private one when
 *          nobody has it, and talks to it: one request, one answer.
 * Model    `sqlite:PATH` is made absolute and free of symlinks, so that a volume has one spelling and one lock file. A word without ':' is a
 *          volume of the configuration file. Whoever connects has the answer to "may I?": kfsd decides by the peer's ids.
 *          A private kfsd is started detached: session of its own, no terminal, no descriptor of the caller's, environment without the shim.
 * Owner    Plain structs; struct kfs_client has a socket: kfs_client_close.
 * Threads  One at a time per struct. kfs_endpoint_find forks.
 * Blocks   Yes: kfsd's start, recovery included. Requests wait for their answer; kfsd's end ends the wait.
 * Errors   -errno + err with what, where, cure. -EINVAL is the caller's mistake (exit code 2), everything else a failure (1).
 */
#ifndef KFS_TOOLS_COMMON_ENDPOINT_H
#define KFS_TOOLS_COMMON_ENDPOINT_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/err.h"
#include "base/pure/mounts.h"
#include "base/pure/wire.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#ifndef KFS_VERSION
#define KFS_VERSION "0.1"
#endif

struct kfs_client {
    int fd; /* -1: closed */
    uint64_t client[2];
    uint64_t seq;
    struct kfs_wire_hello hello;
};

/* Where a volume is. */
struct kfs_endpoint {
    char url[1024];  /* "sqlite:/absolute/path" */
    char path[1024]; /* of the database */
    char socket[KFS_SOCKET_PATH_MAX + 1];
};

struct kfs_endpoint_options {
    bool create;           /* format a missing volume */
    const char *cache_dir; /* for a kfsd that has to be started; NULL: configuration or default. Absolute */
    const char *run_dir;   /* likewise */
    const char *socket;    /* likewise: listen here; NULL: kfsd chooses */
    int linger_s;          /* likewise; -1: configuration */
};

/* Fill url and path. conf may be NULL: then names are unknown. */
int kfs_endpoint_resolve(const struct kfs_conf *conf, const char *volume, struct kfs_endpoint *ret, struct kfs_err *err);

/* Connect to the kfsd of a resolved endpoint, starting one if nobody serves the volume. Fills e->socket and *ret_c (HELLO done). conf may be NULL. */
int kfs_endpoint_find(const struct kfs_conf *conf, struct kfs_endpoint *e, const struct kfs_endpoint_options *o,
                      struct kfs_client *ret_c, struct kfs_err *err);

/* Connect and say HELLO for this volume (NULL: the only one there). -ENOENT, -ECONNREFUSED: nobody listens. -EACCES, -EPERM: not for this user.
 * -ENODEV: serves other volumes. */
int kfs_client_open(const char *socket, const char *url, struct kfs_client *ret, struct kfs_err *err);
void kfs_client_close(struct kfs_client *c); /* NULL and closed are fine */

/* One request. path, path2: NULL or text. Answer's data goes to ret_data (may be NULL), its status is the result; err gets text only when the
 * connection failed. */
int kfs_client_call(struct kfs_client *c, enum kfs_wire_op op, kfs_ino_t ino, const char *path, const char *path2, struct kfs_buf *ret_data,
                    struct kfs_err *err);
/* CONTROL: the answer is JSON text. A failure's text comes from kfsd where it sent one. */
int kfs_client_control(struct kfs_client *c, const char *command, const char *argument, struct kfs_buf *ret_json, struct kfs_err *err);
/* Everything written so far is in the volume, durably. */
int kfs_client_sync(struct kfs_client *c, struct kfs_err *err);

/* The directory of the running program, "/usr/bin". Fails clearly when there is no /proc. */
int kfs_program_dir(char *buf, size_t cap, struct kfs_err *err);

/* LD_PRELOAD without any libkfs.so, into buf. */
void kfs_preload_without_shim(const char *preload, char *buf, size_t cap);

#endif
