#include "tools/common/secret.h"
#include "tools/common/volume.h"
#include "tools/kfs/kfs.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

int kfs_cmd_format(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    struct kfs_endpoint e;
    struct kfs_meta_volume v = {0};
    if (c->volume) {
        (void)KFS_FAIL(&err, EINVAL, "the volume is the argument; leave out --volume");
        return kfs_cmd_fail(c, &err);
    }
    struct kfs_buf secret;
    kfs_buf_init(&secret);
    int rc = kfs_endpoint_resolve(&c->conf, c->args[0], &e, &err);
    if (rc == 0 && c->encrypt)
        rc = kfs_secret_read(c->key_file, "passphrase of the new volume", true, &secret, &err);
    if (rc == 0)
        rc = kfs_volume_format_with(e.url, c->store, c->volume_name, c->encrypt ? &(struct kfs_secret){secret.data, secret.len} : NULL, &v, &err);
    kfs_secret_release(&secret);
    if (rc < 0 && !err.code)
        (void)KFS_FAIL(&err, -rc, "cannot make volume '%.250s': %s", e.url, strerror(-rc));
    if (rc < 0)
        return kfs_cmd_fail(c, &err);
    struct kfs_buf json, text;
    kfs_buf_init(&json);
    kfs_buf_init(&text);
    (void)kfs_buf_append_str(&json, "{\"url\":");
    (void)kfs_buf_json_string(&json, e.url, strlen(e.url));
    (void)kfs_buf_append_str(&json, ",\"id\":");
    (void)kfs_buf_json_string(&json, v.id, strlen(v.id));
    (void)kfs_buf_append_str(&json, ",\"name\":");
    (void)kfs_buf_json_string(&json, v.name, strlen(v.name));
    (void)kfs_buf_append_str(&json, ",\"store\":");
    (void)kfs_buf_json_string(&json, v.store, strlen(v.store));
    (void)kfs_buf_append_str(&json, "}\n");
    if (c->json)
        (void)fputs(kfs_buf_str(&json), stdout);
    else if (kfs_show_json(kfs_buf_str(&json), json.len, &text))
        (void)printf("%snext:  kfs-run --at /data=%s --shell\n", kfs_buf_str(&text), e.url);
    kfs_buf_release(&json);
    kfs_buf_release(&text);
    return 0;
}
