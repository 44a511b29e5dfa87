/* The commands whose answer is kfsd's. */
#include "tools/kfs/kfs.h"

int kfs_cmd_status(struct kfs_cmd *c)
{
    return kfs_cmd_ask_volumes(c, c->arg_count ? c->args[0] : NULL, "status");
}

int kfs_cmd_info(struct kfs_cmd *c)
{
    return kfs_cmd_ask_path(c, c->args[0], "info");
}

int kfs_cmd_explain(struct kfs_cmd *c)
{
    return kfs_cmd_ask_path(c, c->args[0], "explain");
}

int kfs_cmd_flush(struct kfs_cmd *c)
{
    return kfs_cmd_ask_volumes(c, NULL, "flush");
}

int kfs_cmd_evict(struct kfs_cmd *c)
{
    return kfs_cmd_ask_volumes(c, NULL, "evict");
}

int kfs_cmd_cache(struct kfs_cmd *c)
{
    return kfs_cmd_ask_volumes(c, NULL, "cache");
}

int kfs_cmd_stats(struct kfs_cmd *c)
{
    return kfs_cmd_ask_volumes(c, NULL, "stats");
}
