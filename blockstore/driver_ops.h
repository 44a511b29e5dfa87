/* blockstore/driver_ops.h — what one driver implements; only driver*.c include it
 *
 * Model    struct kfs_drv is the first member of the driver's own struct. Contracts: blockstore/driver.h.
 */
#ifndef KFS_BLOCKSTORE_DRIVER_OPS_H
#define KFS_BLOCKSTORE_DRIVER_OPS_H

#include "blockstore/driver.h"

struct kfs_drv_ops {
    const char *scheme; /* "file", "s3" */
    bool remote;
    int (*open)(const char *url, const struct kfs_drv_options *o, bool create, struct kfs_drv **ret_d, struct kfs_err *err);
    void (*close)(struct kfs_drv *d);
    void (*run)(struct kfs_drv *d, struct kfs_drv_req *q); /* do it in the calling thread, without done; NULL: waiting means submit and wait */
    void (*submit)(struct kfs_drv *d, struct kfs_drv_req *q);
    void (*cancel)(struct kfs_drv *d, struct kfs_drv_req *q);
    int (*delete_many)(struct kfs_drv *d, const char *const *keys, size_t count, struct kfs_err *err);
    int (*list)(struct kfs_drv *d, const char *prefix, const char *after, kfs_drv_list_cb cb, void *arg, struct kfs_err *err);
    int (*sync)(struct kfs_drv *d, struct kfs_err *err);
    int (*statfs)(struct kfs_drv *d, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes, struct kfs_err *err);
    int (*upload_begin)(struct kfs_drv *d, const char *key, struct kfs_drv_upload **ret_u, struct kfs_err *err);
    int (*upload_finish)(struct kfs_drv_upload *u, unsigned flags, struct kfs_err *err);
    void (*upload_abort)(struct kfs_drv_upload *u);
    int64_t (*upload_sweep)(struct kfs_drv *d, int64_t age_s, struct kfs_err *err);
    void (*stats)(struct kfs_drv *d, struct kfs_drv_stats *ret);
};

struct kfs_drv {
    const struct kfs_drv_ops *ops;
    char *url; /* without secrets */
};

struct kfs_drv_upload { /* first member of the driver's own */
    struct kfs_drv *drv;
    char key[KFS_DRV_KEY_MAX];
};

extern const struct kfs_drv_ops kfs_drv_file, kfs_drv_s3;

#endif
