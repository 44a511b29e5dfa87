/* kfs fsck --object: one object alone, without its volume */
#include "base/cleanup.h"
#include "blockstore/keys.h"
#include "blockstore/object_verify.h"
#include "tools/common/secret.h"
#include "tools/kfs/kfs.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The record of the volume's keys: a file that was named, else that of the store around the object (DIR/o/XX/OBJECT, DIR/kfs-keys). */
static int record_read(const struct kfs_cmd *c, struct kfs_buf *ret, struct kfs_err *err)
{
    if (c->keys)
        return kfs_secret_file(c->keys, ret, err);
    char path[KFS_PATH_MAX];
    const char *slash = strrchr(c->object, '/');
    int dir = slash ? (int)(slash - c->object) + 1 : 0;
    if ((size_t)snprintf(path, sizeof path, "%.*s../../" KFS_KEYS_KEY, dir, c->object) >= sizeof path || kfs_secret_file(path, ret, NULL) < 0)
        return KFS_FAIL(err, ENOKEY, "the object is encrypted; name a copy of its store's '" KFS_KEYS_KEY "' with --keys");
    return 0;
}

static int keyring(const struct kfs_cmd *c, const struct kfs_object_report *r, struct kfs_keyring **ret, struct kfs_err *err)
{
    *ret = NULL;
    if (r->key_id == 0)
        return 0;
    struct kfs_buf record, secret;
    kfs_buf_init(&record);
    kfs_buf_init(&secret);
    int rc = record_read(c, &record, err);
    if (rc == 0)
        rc = kfs_secret_read(c->key_file, "passphrase of the volume", false, &secret, err);
    if (rc == 0)
        rc = kfs_keys_open(r->volume, kfs_buf_str(&record), &(struct kfs_secret){secret.data, secret.len}, ret, err);
    kfs_secret_release(&secret);
    kfs_buf_release(&record);
    return rc;
}

static void report(const struct kfs_cmd *c, const struct kfs_object_report *r)
{
    if (c->json)
        (void)printf("{\"ok\":true,\"key\":\"%s\",\"volume\":\"%s\",\"object\":%llu,\"format\":%u,\"bytes\":%llu,\"plain_bytes\":%llu,\"frames\":%u,"
                     "\"zstd_frames\":%llu,\"owners\":%llu,\"key_id\":%u}\n",
                     r->key, r->volume, (unsigned long long)r->object, r->version, (unsigned long long)r->bytes, (unsigned long long)r->plain_bytes,
                     r->frames, (unsigned long long)r->zstd_frames, (unsigned long long)r->owners, r->key_id);
    else
        (void)printf("object '%s' of volume '%s': whole\nformat %u, %llu bytes, %u frames of %llu files, %llu bytes of content, %llu frames compressed, %s\n",
                     r->key, r->volume, r->version, (unsigned long long)r->bytes, r->frames, (unsigned long long)r->owners,
                     (unsigned long long)r->plain_bytes, (unsigned long long)r->zstd_frames, r->key_id ? "encrypted" : "not encrypted");
}

int kfs_cmd_fsck_object(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    struct kfs_object_report r;
    struct kfs_keyring *k = NULL;
    int rc = kfs_object_peek(c->object, &r, &err);
    if (rc == 0)
        rc = keyring(c, &r, &k, &err);
    if (rc == 0)
        rc = kfs_object_verify(c->object, k, &r, &err);
    kfs_keyring_free(k);
    if (rc == 0)
        report(c, &r);
    return rc < 0 ? kfs_cmd_fail(c, &err) : 0;
}
