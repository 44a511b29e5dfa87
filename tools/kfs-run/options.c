#include "base/cleanup.h"
#include "base/pure/path.h"
#include "tools/kfs-run/run.h"
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char HELP[] =
    "usage: kfs-run [options] --at PREFIX=VOLUME [--at ...] -- CMD [ARGS]\n"
    "       kfs-run [options] --at PREFIX=VOLUME --shell\n"
    "       kfs-run --check CMD\n"
    "\n"
    "Runs CMD so that it finds the files of a KFS volume under PREFIX. Nothing is mounted: a library is preloaded into CMD and its children.\n"
    "If no kfsd serves the volume yet, a private one is started and ends some time after its last user.\n"
    "\n"
    "  --at PREFIX=VOLUME     show VOLUME under PREFIX, an absolute path that need not exist (may be repeated)\n"
    "                         VOLUME: sqlite:PATH of a database file, mysql://USER@HOST:PORT/DATABASE of a server,\n"
    "                         or a name from the configuration file\n"
    "  --create               make a volume that does not exist yet; its objects go to PATH.objects\n"
    "  --commit=close         close() returns when the content is stored in the volume (default)\n"
    "  --commit=session       close() returns at once; kfs-run waits at the end until everything is stored\n"
    "  --shell                run $SHELL instead of a CMD\n"
    "  --check CMD            say whether CMD can be served, and if not, why; exit code 0 or 1\n"
    "  --cache-dir DIR        where a private kfsd caches content\n"
    "  --run-dir DIR          where a private kfsd puts its socket and log\n"
    "  --linger SECONDS       how long a private kfsd outlives its last user\n"
    "  --help, --version\n"
    "\n"
    "Exit code: that of CMD; 127 CMD not found, 126 CMD cannot be executed, 1 the volume cannot be used, 2 usage.\n"
    "\n"
    "Examples:\n"
    "  kfs-run --create --at /data=sqlite:$HOME/my.db -- cp -a photos /data/\n"
    "  kfs-run --at /data=sqlite:$HOME/my.db -- python3 train.py --data /data/digits\n"
    "  kfs-run --at /data=sqlite:$HOME/my.db --at /models=models --commit=session --shell\n"
    "  kfs-run --check ./train\n"
    "\n"
    "Under an outer kfs-run, its prefixes stay; --at adds to them, or replaces one of the same name.\n"
    "Look into a volume with 'kfs'; see 'kfs --help'.\n";

enum { OPT_AT = 256, OPT_CREATE, OPT_COMMIT, OPT_SHELL, OPT_CHECK, OPT_CACHE_DIR, OPT_RUN_DIR, OPT_LINGER, OPT_START, OPT_SOCKET, OPT_EXEC_ONLY, OPT_HELP, OPT_VERSION };

static const struct option OPTIONS[] = {
    {"at", required_argument, NULL, OPT_AT},
    {"create", no_argument, NULL, OPT_CREATE},
    {"commit", required_argument, NULL, OPT_COMMIT},
    {"shell", no_argument, NULL, OPT_SHELL},
    {"check", no_argument, NULL, OPT_CHECK},
    {"cache-dir", required_argument, NULL, OPT_CACHE_DIR},
    {"run-dir", required_argument, NULL, OPT_RUN_DIR},
    {"linger", required_argument, NULL, OPT_LINGER},
    {"start", required_argument, NULL, OPT_START},   /* for libkfs.so: make sure that a private kfsd serves this URL */
    {"socket", required_argument, NULL, OPT_SOCKET}, /* with --start: where libkfs.so expects it */
    {"exec-only", no_argument, NULL, OPT_EXEC_ONLY}, /* for kfs-run itself, see exec.c */
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

int run_at_add(struct run_options *o, const char *arg, struct kfs_err *err)
{
    const char *eq = strchr(arg, '=');
    if (!eq || eq == arg || !eq[1])
        return KFS_FAIL(err, EINVAL, "--at '%.200s' is not PREFIX=VOLUME; for example: --at /data=sqlite:/path/of/my.db", arg);
    if (o->at_count == KFS_MOUNTS_MAX)
        return KFS_FAIL(err, EINVAL, "more than %d prefixes; leave out '%.200s'", KFS_MOUNTS_MAX, arg);
    struct run_at *at = &o->at[o->at_count];
    size_t len = (size_t)(eq - arg);
    if (len >= sizeof at->prefix)
        return KFS_FAIL(err, EINVAL, "prefix '%.40s...' is %zu bytes long; at most %zu", arg, len, sizeof at->prefix - 1);
    char prefix[sizeof at->prefix], norm[sizeof at->prefix];
    (void)snprintf(prefix, sizeof prefix, "%.*s", (int)len, arg);
    if (prefix[0] != '/')
        return KFS_FAIL(err, EINVAL, "prefix '%.200s' is not absolute; begin it with '/'", prefix);
    if (kfs_path_normalise(prefix, norm, sizeof norm) < 0)
        return KFS_FAIL(err, EINVAL, "prefix '%.200s' cannot be used", prefix);
    if (strcmp(norm, "/") == 0)
        return KFS_FAIL(err, EINVAL, "prefix '%.200s' is the root directory, which cannot be a volume; choose a directory such as /data", prefix);
    if (strcmp(prefix, norm) != 0)
        return KFS_FAIL(err, EINVAL, "prefix '%.150s' is not normalised; write '%.150s'", prefix, norm);
    for (int i = 0; i < o->at_count; i++) {
        const char *other = o->at[i].prefix;
        if (strcmp(other, prefix) == 0)
            return KFS_FAIL(err, EINVAL, "prefix '%.200s' is given twice; each prefix has one volume", prefix);
        if (kfs_path_under(prefix, other, strlen(other)) || kfs_path_under(other, prefix, len))
            return KFS_FAIL(err, EINVAL, "prefixes '%.150s' and '%.150s' are nested; choose prefixes that lie beside each other", other, prefix);
    }
    (void)snprintf(at->prefix, sizeof at->prefix, "%s", prefix);
    at->volume = eq + 1;
    o->at_count++;
    return 0;
}

/* kfsd runs with another working directory. */
static int absolute_dir(const char *option, const char *dir, char **ret, struct kfs_err *err)
{
    char cwd[KFS_PATH_MAX];
    if (!*dir)
        return KFS_FAIL(err, EINVAL, "%s needs a directory", option);
    char *path = NULL;
    if (dir[0] == '/')
        path = strdup(dir);
    else if (!getcwd(cwd, sizeof cwd))
        return KFS_FAIL(err, errno, "%s '%.200s': the working directory has no path: %s; give an absolute one", option, dir, strerror(errno));
    else if (asprintf(&path, "%s/%s", cwd, dir) < 0)
        path = NULL;
    if (!path)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    free(*ret);
    *ret = path;
    return 0;
}

static int commit_set(struct run_options *o, const char *word, struct kfs_err *err)
{
    if (strcmp(word, "close") != 0 && strcmp(word, "session") != 0)
        return KFS_FAIL(err, EINVAL, "--commit cannot be '%.100s'; allowed: close, session", word);
    o->commit_given = true;
    o->session = strcmp(word, "session") == 0;
    return 0;
}

static int linger_set(struct run_options *o, const char *word, struct kfs_err *err)
{
    char *end;
    errno = 0;
    long s = strtol(word, &end, 10);
    if (end == word || *end || errno || s < 0 || s > INT_MAX)
        return KFS_FAIL(err, EINVAL, "--linger cannot be '%.100s'; allowed: a number of seconds", word);
    o->linger_s = (int)s;
    return 0;
}

static int option_set(struct run_options *o, int opt, const char *arg, struct kfs_err *err)
{
    switch (opt) {
    case OPT_AT:
        return run_at_add(o, arg, err);
    case OPT_CREATE:
        o->create = true;
        return 0;
    case OPT_COMMIT:
        return commit_set(o, arg, err);
    case OPT_CACHE_DIR:
        return absolute_dir("--cache-dir", arg, &o->cache_dir, err);
    case OPT_RUN_DIR:
        return absolute_dir("--run-dir", arg, &o->run_dir, err);
    case OPT_LINGER:
        return linger_set(o, arg, err);
    case OPT_START:
        o->mode = RUN_START;
        o->start_url = arg;
        return 0;
    case OPT_SOCKET:
        o->start_socket = arg;
        return 0;
    case OPT_SHELL:
        o->mode = RUN_SHELL;
        return 0;
    case OPT_CHECK:
        o->mode = RUN_CHECK;
        return 0;
    case OPT_EXEC_ONLY:
        o->mode = RUN_EXEC_ONLY;
        return 0;
    default:
        return -EINVAL; /* getopt has said what is wrong */
    }
}

static int arguments_check(const struct run_options *o, struct kfs_err *err)
{
    bool wants_cmd = o->mode == RUN_CMD || o->mode == RUN_CHECK || o->mode == RUN_EXEC_ONLY;
    if (wants_cmd && !o->cmd[0])
        return KFS_FAIL(err, EINVAL, o->mode == RUN_CHECK ? "--check needs a CMD" : "no CMD is given; end with: -- CMD ARGS, or say --shell");
    if (!wants_cmd && o->cmd[0])
        return KFS_FAIL(err, EINVAL, "'%.200s' is one argument too many; %s takes no CMD", o->cmd[0],
                        o->mode == RUN_SHELL ? "--shell" : "--start");
    if ((o->mode == RUN_CMD || o->mode == RUN_SHELL) && !o->at_count && !getenv(KFS_ENV_AT))
        return KFS_FAIL(err, EINVAL, "no volume is given; for example: --at /data=sqlite:%s/my.db", getenv("HOME") ? getenv("HOME") : "/path/of");
    return 0;
}

int run_options_parse(int argc, char **argv, struct run_options *ret)
{
    struct run_options o = {.linger_s = -1};
    struct kfs_err err = {0};
    int opt, rc = 0;
    while (rc == 0 && (opt = getopt_long(argc, argv, "+", OPTIONS, NULL)) != -1) {
        if (opt == OPT_HELP || opt == OPT_VERSION) {
            (void)printf("%s", opt == OPT_HELP ? HELP : "kfs-run " KFS_VERSION "\n");
            run_options_release(&o);
            return 1 + 0;
        }
        rc = option_set(&o, opt, optarg, &err);
    }
    o.cmd = argv + optind;
    if (rc == 0)
        rc = arguments_check(&o, &err);
    if (rc < 0) {
        if (err.code)
            (void)fprintf(stderr, "kfs-run: %s\n", err.msg);
        else
            (void)fprintf(stderr, "try 'kfs-run --help'\n");
        run_options_release(&o);
        return 1 + 2;
    }
    *ret = o;
    return 0;
}

void run_options_release(struct run_options *o)
{
    free(o->cache_dir);
    free(o->run_dir);
    o->cache_dir = o->run_dir = NULL;
}
