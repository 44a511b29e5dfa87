#include "tools/kfs/kfs.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void string_put(struct kfs_buf *b, const char *key, const char *value)
{
    (void)kfs_buf_printf(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", key);
    (void)kfs_buf_json_string(b, value, strlen(value));
}

static void config_json(const struct kfs_conf *conf, struct kfs_buf *b)
{
    (void)kfs_buf_append_str(b, "{\"settings\":[");
    for (int i = 0; i < KFS_CONF_COUNT && !b->failed; i++) {
        enum kfs_conf_key key = (enum kfs_conf_key)i;
        (void)kfs_buf_append_str(b, i ? ",\n{" : "{");
        string_put(b, "key", kfs_conf_key_name(key));
        string_put(b, "value", kfs_conf_text(conf, key));
        string_put(b, "from", conf->values[key].origin ? conf->values[key].origin : "default");
        string_put(b, "meaning", kfs_conf_key_doc(key));
        (void)kfs_buf_append_str(b, "}");
    }
    (void)kfs_buf_append_str(b, "],\n\"volumes\":[");
    for (size_t i = 0; i < conf->volume_count && !b->failed; i++) {
        (void)kfs_buf_append_str(b, i ? ",\n{" : "{");
        string_put(b, "name", conf->volumes[i].name);
        string_put(b, "url", conf->volumes[i].url);
        string_put(b, "from", conf->volumes[i].origin);
        (void)kfs_buf_append_str(b, "}");
    }
    (void)kfs_buf_append_str(b, "]}\n");
}

int kfs_cmd_config(struct kfs_cmd *c)
{
    if (c->volume)
        return kfs_cmd_ask_volumes(c, NULL, "config");
    struct kfs_buf json, text;
    kfs_buf_init(&json);
    kfs_buf_init(&text);
    config_json(&c->conf, &json);
    if (!c->json && kfs_show_json(kfs_buf_str(&json), json.len, &text))
        (void)fputs(kfs_buf_str(&text), stdout);
    else
        (void)fputs(kfs_buf_str(&json), stdout);
    kfs_buf_release(&json);
    kfs_buf_release(&text);
    return 0;
}

int kfs_cmd_config_set(struct kfs_cmd *c)
{
    char line[KFS_PATH_MAX];
    if ((size_t)snprintf(line, sizeof line, "%s=%s", c->args[0], c->args[1]) >= sizeof line) {
        struct kfs_err err = {0};
        (void)KFS_FAIL(&err, EINVAL, "the value of '%.64s' is too long", c->args[0]);
        return kfs_cmd_fail(c, &err);
    }
    return kfs_cmd_tell_volumes(c, NULL, "set", line);
}
