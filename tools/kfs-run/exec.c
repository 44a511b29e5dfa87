#include "base/cleanup.h"
#include "base/pure/path.h"
#include "tools/kfs-run/run.h"
#include <stdio.h>
#include <string.h>

static bool in_volume(const char *path, const struct run_mounts *m)
{
    char norm[KFS_PATH_MAX];
    if (path[0] != '/' || kfs_path_normalise(path, norm, sizeof norm) < 0)
        return false;
    for (int i = 0; i < m->count; i++)
        if (kfs_path_under(norm, m->m[i].prefix, m->m[i].prefix_len))
            return true;
    return false;
}

/* Could the search for CMD lead into a volume? */
static bool may_be_in_volume(const char *cmd, const struct run_mounts *m)
{
    if (strchr(cmd, '/'))
        return in_volume(cmd, m);
    const char *p = getenv("PATH");
    while (p && *p) {
        char dir[KFS_PATH_MAX];
        size_t n = strcspn(p, ":");
        if (n < sizeof dir) {
            memcpy(dir, p, n);
            dir[n] = '\0';
            if (in_volume(dir, m))
                return true;
        }
        p += n + (p[n] != '\0');
    }
    return false;
}

/* This process has no shim, so it cannot execute a file of a volume: run this program again, with the shim, to do that. */
static void exec_again(char **cmd)
{
    size_t n = 0;
    while (cmd[n])
        n++;
    kfs_auto_free char **argv = calloc(n + 4, sizeof *argv);
    char name[] = "kfs-run", only[] = "--exec-only", dashes[] = "--";
    if (!argv)
        return;
    argv[0] = name;
    argv[1] = only;
    argv[2] = dashes;
    memcpy(argv + 3, cmd, n * sizeof *argv);
    (void)execv("/proc/self/exe", argv);
}

int run_exec(char **cmd, const struct run_mounts *m)
{
    if (m && may_be_in_volume(cmd[0], m))
        exec_again(cmd);
    (void)execvp(cmd[0], cmd);
    /* A host name may still lead into a volume: a symlink, or the interpreter of a script. */
    if (m && errno == ENOENT)
        exec_again(cmd);
    int code = errno == ENOENT ? 127 : 126;
    (void)fprintf(stderr, "kfs-run: cannot run '%s': %s%s\n", cmd[0], strerror(errno),
                  code == 127 ? "" : "; 'kfs-run --check' says more");
    return code;
}
