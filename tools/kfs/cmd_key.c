/* kfs key: the secrets and data keys of an encrypted volume. Works on the database, while no kfsd has it. */
#include "tools/common/secret.h"
#include "tools/common/volume.h"
#include "tools/kfs/kfs.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A volume's metadata under its lock. */
struct keys {
    char path[KFS_VOLUME_URL_MAX];
    struct kfs_lock *lock;
    struct kfs_meta *meta;
    const struct kfs_meta_volume *volume;
    struct kfs_buf record, changed, secret, secret2;
};

static int keys_open(struct kfs_cmd *c, struct keys *k, struct kfs_err *err)
{
    struct kfs_endpoint e;
    memset(k, 0, sizeof *k);
    int rc = c->volume ? KFS_FAIL(err, EINVAL, "the volume is the argument; leave out --volume") : kfs_endpoint_resolve(&c->conf, c->args[0], &e, err);
    if (rc == 0)
        rc = kfs_volume_url_path(e.url, k->path, sizeof k->path, err);
    if (rc == 0)
        rc = kfs_lock_acquire(k->path, e.url, &k->lock, err);
    if (rc == 0)
        rc = kfs_meta_open(k->path, &k->meta, err);
    if (rc < 0)
        return rc;
    k->volume = kfs_meta_volume(k->meta);
    rc = kfs_volume_keys_get(k->meta, &k->record, err);
    return rc == -ENOENT ? KFS_FAIL(err, ENOENT, "volume '%.200s' is not encrypted; 'kfs format --encrypt' makes one that is", e.url) : rc;
}

static void keys_close(struct keys *k)
{
    kfs_secret_release(&k->secret);
    kfs_secret_release(&k->secret2);
    kfs_buf_release(&k->record);
    kfs_buf_release(&k->changed);
    kfs_meta_close(k->meta);
    kfs_lock_release(k->lock);
}

static int opener(const struct kfs_cmd *c, struct keys *k, struct kfs_secret *ret, struct kfs_err *err)
{
    int rc = kfs_secret_read(c->key_file, "passphrase of the volume", false, &k->secret, err);
    *ret = (struct kfs_secret){k->secret.data, k->secret.len};
    return rc;
}

static int done(struct kfs_cmd *c, struct keys *k, int rc, struct kfs_err *err)
{
    if (rc == 0 && k->changed.len)
        rc = kfs_volume_keys_set(k->meta, k->volume->store, kfs_buf_str(&k->changed), err);
    keys_close(k);
    if (rc < 0 && !err->code)
        (void)KFS_FAIL(err, -rc, "%s", strerror(-rc));
    return rc < 0 ? kfs_cmd_fail(c, err) : 0;
}

struct listing {
    struct kfs_buf *out;
    bool json, first;
};

static void list_one(void *arg, uint32_t slot, const char *what)
{
    struct listing *l = arg;
    if (l->json) {
        (void)kfs_buf_printf(l->out, "%s{\"slot\":%u,\"kind\":\"%s\"}", l->first ? "" : ",", slot, what);
        l->first = false;
    } else if (slot) {
        (void)kfs_buf_printf(l->out, "slot %-4u %s\n", slot, what);
    } else {
        (void)kfs_buf_printf(l->out, "%s\n", what);
    }
}

int kfs_cmd_key_list(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    struct keys k;
    struct kfs_buf out;
    kfs_buf_init(&out);
    struct listing l = {&out, c->json, true};
    int rc = keys_open(c, &k, &err);
    if (rc == 0)
        rc = kfs_keys_each(k.volume->id, kfs_buf_str(&k.record), list_one, &l, &err);
    if (rc == 0)
        (void)printf(c->json ? "[%s]\n" : "%s", kfs_buf_str(&out));
    kfs_buf_release(&out);
    return done(c, &k, rc, &err);
}

int kfs_cmd_key_add(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    struct keys k;
    struct kfs_secret old;
    int rc = keys_open(c, &k, &err);
    if (rc == 0)
        rc = opener(c, &k, &old, &err);
    if (rc == 0)
        rc = c->new_key_file ? kfs_secret_file(c->new_key_file, &k.secret2, &err) : kfs_secret_ask("new passphrase", true, &k.secret2, &err);
    if (rc == 0)
        rc = kfs_keys_add_slot(k.volume->id, kfs_buf_str(&k.record), &old, &(struct kfs_secret){k.secret2.data, k.secret2.len}, &k.changed, &err);
    return done(c, &k, rc, &err);
}

int kfs_cmd_key_rm(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    struct keys k;
    char *end;
    unsigned long slot = strtoul(c->args[1], &end, 10);
    int rc = keys_open(c, &k, &err);
    if (rc == 0 && (end == c->args[1] || *end || slot == 0 || slot > UINT32_MAX))
        rc = KFS_FAIL(&err, EINVAL, "'%.100s' is no slot; 'kfs key list' shows them", c->args[1]);
    if (rc == 0)
        rc = kfs_keys_remove_slot(k.volume->id, kfs_buf_str(&k.record), (uint32_t)slot, &k.changed, &err);
    return done(c, &k, rc, &err);
}

int kfs_cmd_key_rotate(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    struct keys k;
    struct kfs_secret old;
    int rc = keys_open(c, &k, &err);
    if (rc == 0)
        rc = opener(c, &k, &old, &err);
    if (rc == 0)
        rc = kfs_keys_rotate(k.volume->id, kfs_buf_str(&k.record), &old, &k.changed, &err);
    return done(c, &k, rc, &err);
}
