/* kfs-run: run a program with KFS volumes under its prefixes. The parts: run.h */
#include "tools/common/elf.h"
#include "tools/kfs-run/run.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int complain(const struct kfs_err *err, int rc)
{
    (void)fprintf(stderr, "kfs-run: %s\n", err->msg);
    return rc == -EINVAL ? 2 : 1;
}

static int check(const char *cmd)
{
    struct kfs_elf_report r;
    struct kfs_err err = {0};
    char shim[KFS_PATH_MAX];
    kfs_elf_check(cmd, &r);
    if (r.servable && run_shim_find(r.musl, shim, sizeof shim, &err) < 0) {
        r.servable = false;
        (void)snprintf(r.advice, sizeof r.advice, "%s", err.msg);
    }
    (void)printf("%s: %s\n", cmd, r.servable ? "can be served" : "cannot be served");
    if (strcmp(r.path, cmd) != 0)
        (void)printf("  file:    %s\n", r.path);
    (void)printf("  because: %s\n", r.reason);
    if (!r.servable)
        (void)printf("  cure:    %s\n", r.advice);
    return r.servable ? 0 : 1;
}

/* For libkfs.so, whose kfsd has gone. */
static int start(const struct run_options *o, const struct kfs_conf *conf)
{
    struct kfs_err err = {0};
    struct kfs_endpoint e;
    struct kfs_client c;
    const struct kfs_endpoint_options eo = {
        .cache_dir = o->cache_dir, .run_dir = o->run_dir, .socket = o->start_socket, .linger_s = o->linger_s};
    int rc = kfs_endpoint_resolve(conf, o->start_url, &e, &err);
    if (rc == 0)
        rc = kfs_endpoint_find(conf, &e, &eo, &c, &err);
    if (rc < 0)
        return complain(&err, rc);
    kfs_client_close(&c);
    return 0;
}

static void shell_hint(const struct run_mounts *m)
{
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return;
    for (int i = 0; i < m->count; i++)
        (void)fprintf(stderr, "kfs-run: %s is %s\n", m->m[i].prefix, m->m[i].url);
    (void)fprintf(stderr, "kfs-run: leave this shell with 'exit'\n");
}

/* A program in a volume cannot be seen from here: the shim of whoever executes it looks then. */
static bool needs_musl(const char *cmd)
{
    struct kfs_elf_report r;
    kfs_elf_check(cmd, &r);
    return r.musl;
}

static int run(const struct run_options *o, const struct kfs_conf *conf)
{
    struct kfs_err err = {0};
    static struct run_mounts m; /* large */
    char sh[] = "/bin/sh", *shell = getenv("SHELL");
    char *shell_argv[] = {shell && *shell ? shell : sh, NULL};
    char **cmd = o->mode == RUN_SHELL ? shell_argv : o->cmd;
    int rc = run_mounts_make(o, conf, &m, &err);
    if (rc == 0)
        rc = run_environment_set(&m, needs_musl(cmd[0]), &err);
    if (rc < 0)
        return complain(&err, rc);
    if (o->mode == RUN_SHELL)
        shell_hint(&m);
    bool session = false;
    for (int i = 0; i < m.count; i++)
        session |= m.ours[i] && m.m[i].session;
    return session ? run_session(cmd, &m, conf, o) : run_exec(cmd, &m);
}

int main(int argc, char **argv)
{
    struct run_options o;
    int end = run_options_parse(argc, argv, &o);
    if (end)
        return end - 1;
    if (o.mode == RUN_EXEC_ONLY)
        return run_exec(o.cmd, NULL);
    if (o.mode == RUN_CHECK) {
        int code = check(o.cmd[0]);
        run_options_release(&o);
        return code;
    }
    struct kfs_conf conf;
    struct kfs_err err = {0};
    int code, rc = kfs_conf_load_default(&conf, &err);
    if (rc < 0) {
        run_options_release(&o);
        return complain(&err, rc);
    }
    char dir[KFS_PATH_MAX];
    if ((rc = kfs_program_dir(dir, sizeof dir, &err)) < 0)
        code = complain(&err, rc);
    else
        code = o.mode == RUN_START ? start(&o, &conf) : run(&o, &conf);
    kfs_conf_release(&conf);
    run_options_release(&o);
    return code;
}
