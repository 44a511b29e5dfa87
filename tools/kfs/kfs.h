/* tools/kfs/kfs.h — what the parts of `kfs` share
 *
 * What     main.c reads the command line and dispatches by commands.def; volumes.c finds the volumes that a command is about;
 *          cmd_*.c do it; show.c prints JSON for people.
 * Model    kfs asks the kfsd that has the volume (a private one is started if nobody has it) and prints its JSON, as it is or readable.
 *          Only `format` and `key` touch a database themselves. Exit codes: 0 done, 1 failed, 2 usage.
 */
#ifndef KFS_TOOLS_KFS_KFS_H
#define KFS_TOOLS_KFS_KFS_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/pure/mounts.h"
#include "tools/common/endpoint.h"
#include <stdbool.h>

struct kfs_cmd {
    const char *name; /* of the command, for messages */
    bool json;
    const char *volume;      /* --volume, or NULL */
    const char *store, *volume_name; /* of format */
    bool delete_, full;              /* of gc */
    const char *grace;
    bool encrypt;                    /* of format */
    const char *key_file, *new_key_file;
    const char *object, *keys; /* of fsck */
    char **args;
    int arg_count;
    struct kfs_conf conf;
};

/* Commands: 0, 1 or 2. */
#define KFS_COMMAND(id, name, args, min, max, summary, help) int kfs_cmd_##id(struct kfs_cmd *c);
#include "tools/kfs/commands.def"
#undef KFS_COMMAND

/* Say what went wrong; the exit code: 2 for -EINVAL, else 1. */
int kfs_cmd_fail(const struct kfs_cmd *c, const struct kfs_err *err);

/* volumes.c: which volumes? `named`, else --volume, else those of KFS_AT, else those of the configuration. Asks each one's kfsd `command` and
 * prints the answers: one object, or an array of objects when there is more than one volume. */
int kfs_cmd_ask_volumes(struct kfs_cmd *c, const char *named, const char *command);
int kfs_cmd_tell_volumes(struct kfs_cmd *c, const char *named, const char *command, const char *argument);
/* The same for one PATH: inside --volume, or below a prefix of KFS_AT. */
int kfs_cmd_ask_path(struct kfs_cmd *c, const char *path, const char *command);

int kfs_cmd_fsck_object(struct kfs_cmd *c); /* cmd_object.c: `kfs fsck --object` */

/* show.c: JSON for people: "key: value" lines, tables for arrays of objects. False: not JSON. */
bool kfs_show_json(const char *json, size_t len, struct kfs_buf *out);

#endif
