#include "base/pure/path.h"
#include "tools/kfs/kfs.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ask the kfsd of one volume; its JSON is appended. */
static int ask(struct kfs_cmd *c, const char *volume, const char *command, const char *argument, struct kfs_buf *json, struct kfs_err *err)
{
    struct kfs_endpoint e;
    struct kfs_client client;
    const struct kfs_endpoint_options o = {.linger_s = -1};
    int rc = kfs_endpoint_resolve(&c->conf, volume, &e, err);
    if (rc == 0)
        rc = kfs_endpoint_find(&c->conf, &e, &o, &client, err);
    if (rc < 0)
        return rc;
    struct kfs_buf answer;
    kfs_buf_init(&answer);
    rc = kfs_client_control(&client, command, argument, &answer, err);
    kfs_client_close(&client);
    if (rc >= 0)
        rc = kfs_buf_append(json, kfs_buf_str(&answer), answer.len);
    kfs_buf_release(&answer);
    return rc < 0 ? rc : 0;
}

static void print(const struct kfs_cmd *c, const struct kfs_buf *json)
{
    struct kfs_buf text;
    kfs_buf_init(&text);
    if (!c->json && kfs_show_json(kfs_buf_str(json), json->len, &text))
        (void)fputs(kfs_buf_str(&text), stdout);
    else
        (void)printf("%s%s", kfs_buf_str(json), json->len && json->data[json->len - 1] == '\n' ? "" : "\n");
    kfs_buf_release(&text);
}

static int ask_and_print(struct kfs_cmd *c, const char *volume, const char *command, const char *argument)
{
    struct kfs_err err = {0};
    struct kfs_buf json;
    kfs_buf_init(&json);
    int code = 0;
    if (ask(c, volume, command, argument, &json, &err) < 0)
        code = kfs_cmd_fail(c, &err);
    else
        print(c, &json);
    kfs_buf_release(&json);
    return code;
}

/* The volumes of KFS_AT, or else of the configuration. Strings live as long as *store and the configuration. */
static size_t volumes_list(const struct kfs_cmd *c, struct kfs_mount *store, const char **ret)
{
    size_t n = 0;
    const char *cursor = getenv(KFS_ENV_AT);
    while (cursor && n < KFS_MOUNTS_MAX && kfs_mounts_next(&cursor, &store[n]) == 1) {
        ret[n] = store[n].url;
        n++;
    }
    for (size_t i = 0; !cursor && i < c->conf.volume_count && n < KFS_MOUNTS_MAX; i++)
        ret[n++] = c->conf.volumes[i].url;
    return n;
}

int kfs_cmd_tell_volumes(struct kfs_cmd *c, const char *named, const char *command, const char *argument)
{
    static struct kfs_mount store[KFS_MOUNTS_MAX]; /* large */
    const char *volumes[KFS_MOUNTS_MAX];
    struct kfs_err err = {0};
    if (named && c->volume) {
        (void)KFS_FAIL(&err, EINVAL, "'%.150s' and --volume '%.150s': which one?", named, c->volume);
        return kfs_cmd_fail(c, &err);
    }
    if (named || c->volume)
        return ask_and_print(c, named ? named : c->volume, command, argument);
    size_t n = volumes_list(c, store, volumes);
    if (n == 0) {
        (void)KFS_FAIL(&err, EINVAL, "which volume? say --volume sqlite:/path.db, or run it under kfs-run");
        return kfs_cmd_fail(c, &err);
    }
    if (n == 1)
        return ask_and_print(c, volumes[0], command, argument);
    struct kfs_buf json;
    kfs_buf_init(&json);
    (void)kfs_buf_append_str(&json, "[");
    int code = 0;
    for (size_t i = 0; i < n; i++) {
        size_t before = json.len;
        if (json.len > 1)
            (void)kfs_buf_append_str(&json, ",\n");
        if (ask(c, volumes[i], command, argument, &json, &err) < 0) {
            code = kfs_cmd_fail(c, &err);
            json.len = before;
        }
    }
    (void)kfs_buf_append_str(&json, "]\n");
    print(c, &json);
    kfs_buf_release(&json);
    return code;
}

int kfs_cmd_ask_volumes(struct kfs_cmd *c, const char *named, const char *command)
{
    return kfs_cmd_tell_volumes(c, named, command, NULL);
}

/* PATH as programs see it -> the mount it lies in, and the rest. */
static int path_place(const char *path, struct kfs_mount *ret_m, char *ret_rel, size_t cap, struct kfs_err *err)
{
    char joined[2 * KFS_PATH_MAX], norm[KFS_PATH_MAX], cwd[KFS_PATH_MAX];
    if (path[0] == '/')
        (void)snprintf(joined, sizeof joined, "%s", path);
    else if (!getcwd(cwd, sizeof cwd))
        return KFS_FAIL(err, errno, "'%.200s': the working directory has no path: %s; give an absolute path", path, strerror(errno));
    else
        (void)snprintf(joined, sizeof joined, "%s/%s", cwd, path);
    if (kfs_path_normalise(joined, norm, sizeof norm) < 0)
        return KFS_FAIL(err, ENAMETOOLONG, "path '%.200s...' is too long", path);
    const char *cursor = getenv(KFS_ENV_AT);
    if (!cursor || !*cursor)
        return KFS_FAIL(err, EINVAL, "which volume is '%.200s' in? say --volume sqlite:/path.db, or run it under kfs-run", path);
    while (kfs_mounts_next(&cursor, ret_m) == 1) {
        if (!kfs_path_under(norm, ret_m->prefix, ret_m->prefix_len))
            continue;
        (void)snprintf(ret_rel, cap, "%s", norm[ret_m->prefix_len] ? norm + ret_m->prefix_len : "/");
        return 0;
    }
    return KFS_FAIL(err, EINVAL, "'%.250s' is in no volume; %s says which prefixes there are", norm, KFS_ENV_AT);
}

int kfs_cmd_ask_path(struct kfs_cmd *c, const char *path, const char *command)
{
    struct kfs_err err = {0};
    static struct kfs_mount m; /* large */
    char rel[KFS_PATH_MAX], norm[2 * KFS_PATH_MAX];
    if (!c->volume) {
        if (path_place(path, &m, rel, sizeof rel, &err) < 0)
            return kfs_cmd_fail(c, &err);
        return ask_and_print(c, m.url, command, rel);
    }
    if (snprintf(norm, sizeof norm, "/%s", path) >= KFS_PATH_MAX || kfs_path_normalise(norm, rel, sizeof rel) < 0) {
        (void)KFS_FAIL(&err, ENAMETOOLONG, "path '%.200s...' is too long", path);
        return kfs_cmd_fail(c, &err);
    }
    return ask_and_print(c, c->volume, command, rel);
}
