/* kfs gc: asks kfsd for a collection, shows how far it is, and then what came of it. */
#include "tools/kfs/kfs.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS 100000000

/* What stands behind "key": in kfsd's answer, whose first members are its own words and numbers. NULL: no such member. */
static const char *member(const struct kfs_buf *json, const char *key)
{
    char quoted[64];
    (void)snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *p = strstr(kfs_buf_str(json), quoted);
    return p ? p + strlen(quoted) : NULL;
}

static bool state_is(const struct kfs_buf *json, const char *state)
{
    const char *p = member(json, "state");
    return p && *p == '"' && strncmp(p + 1, state, strlen(state)) == 0 && p[1 + strlen(state)] == '"';
}

static unsigned long long number(const struct kfs_buf *json, const char *key)
{
    const char *p = member(json, key);
    return p ? strtoull(p, NULL, 10) : 0;
}

static void progress_show(const struct kfs_buf *json, bool last)
{
    if (!isatty(STDERR_FILENO))
        return;
    if (last) {
        (void)fputs("\r\033[K", stderr);
        return;
    }
    const char *phase = member(json, "phase");
    unsigned long long total = number(json, "total");
    (void)fprintf(stderr, "\r\033[K%.*s %llu", phase ? (int)strcspn(phase + 1, "\"") : 0, phase ? phase + 1 : "", number(json, "done"));
    if (total)
        (void)fprintf(stderr, " of %llu", total);
}

/* Until the job has ended; its last answer is left in json. */
static int job_wait(struct kfs_client *client, struct kfs_buf *json, struct kfs_err *err)
{
    char id[24];
    (void)snprintf(id, sizeof id, "%llu", number(json, "job"));
    for (;;) {
        kfs_buf_clear(json);
        int rc = kfs_client_control(client, "job", id, json, err);
        bool ended = rc < 0 || state_is(json, "done") || state_is(json, "failed");
        progress_show(json, ended);
        if (ended)
            return rc < 0 ? rc : 0;
        (void)nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

static int print_result(const struct kfs_cmd *c, const struct kfs_buf *json, struct kfs_err *err)
{
    struct kfs_buf text;
    const char *result = member(json, "result");
    if (state_is(json, "failed") || !result) {
        const char *why = member(json, "error");
        return KFS_FAIL(err, EIO, "%.*s", why ? (int)strcspn(why + 1, "\"") : 8, why ? why + 1 : "it ended");
    }
    kfs_buf_init(&text);
    size_t len = strcspn(result, "}") + 1;
    if (!c->json && kfs_show_json(result, len, &text))
        (void)fputs(kfs_buf_str(&text), stdout);
    else
        (void)printf("%.*s\n", (int)len, result);
    kfs_buf_release(&text);
    if (!c->json && !c->delete_)
        (void)puts("nothing was deleted; 'kfs gc --delete' does it");
    return 0;
}

static int gc(struct kfs_cmd *c, const char *volume, struct kfs_buf *json, struct kfs_err *err)
{
    struct kfs_endpoint e;
    struct kfs_client client;
    const struct kfs_endpoint_options o = {.linger_s = -1};
    char options[64];
    int n = snprintf(options, sizeof options, "%s%s", c->delete_ ? " delete" : "", c->full ? " full" : "");
    if (c->grace && (size_t)snprintf(options + n, sizeof options - (size_t)n, " grace=%s", c->grace) >= sizeof options - (size_t)n)
        return KFS_FAIL(err, EINVAL, "'%.50s' is not a number of seconds", c->grace);
    if (c->grace && (!*c->grace || strspn(c->grace, "0123456789") != strlen(c->grace)))
        return KFS_FAIL(err, EINVAL, "'%.50s' is not a number of seconds", c->grace);
    int rc = kfs_endpoint_resolve(&c->conf, volume, &e, err);
    if (rc == 0)
        rc = kfs_endpoint_find(&c->conf, &e, &o, &client, err);
    if (rc < 0)
        return rc;
    rc = kfs_client_control(&client, "gc", options, json, err);
    if (rc >= 0)
        rc = job_wait(&client, json, err);
    kfs_client_close(&client);
    return rc < 0 ? rc : print_result(c, json, err);
}

int kfs_cmd_gc(struct kfs_cmd *c)
{
    struct kfs_err err = {0};
    struct kfs_buf json;
    const char *volume = c->arg_count ? c->args[0] : c->volume;
    kfs_buf_init(&json);
    int rc;
    if (c->arg_count && c->volume)
        rc = KFS_FAIL(&err, EINVAL, "'%.150s' and --volume '%.150s': which one?", c->args[0], c->volume);
    else if (!volume)
        rc = KFS_FAIL(&err, EINVAL, "which volume? say 'kfs gc sqlite:/path.db'");
    else
        rc = gc(c, volume, &json, &err);
    kfs_buf_release(&json);
    if (rc < 0 && !err.code)
        (void)KFS_FAIL(&err, -rc, "%s", strerror(-rc));
    return rc < 0 ? kfs_cmd_fail(c, &err) : 0;
}
