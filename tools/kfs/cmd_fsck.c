#include "tools/kfs/kfs.h"
#include <errno.h>

int kfs_cmd_fsck(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    if (c->object)
        return kfs_cmd_fsck_object(c);
    (void)KFS_FAIL(&err, EINVAL, "what is to be checked? name an object with --object");
    return kfs_cmd_fail(c, &err);
}
