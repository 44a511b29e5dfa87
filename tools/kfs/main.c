/* kfs: look into volumes and look after them. The parts: kfs.h */
#include "tools/kfs/kfs.h"
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name, *args;
    int min, max;
    const char *summary, *help;
    int (*run)(struct kfs_cmd *c);
};
static const struct command COMMANDS[] = {
#define KFS_COMMAND(id, name, args, min, max, summary, help) {name, args, min, max, summary, help, kfs_cmd_##id},
#include "tools/kfs/commands.def"
#undef KFS_COMMAND
};
#define COMMAND_COUNT (sizeof COMMANDS / sizeof *COMMANDS)

static const char COMMON_HELP[] =
    "Options of every command:\n"
    "  --volume VOLUME   sqlite:PATH or a name from the configuration file; PATH arguments are then inside the volume, from its root\n"
    "                    default: the volumes of the kfs-run around this command; PATH arguments are then as programs see them\n"
    "  --json            print JSON: one object, or an array when it is about several volumes\n"
    "  --help\n"
    "Exit code: 0 done, 1 failed, 2 usage.\n";

enum {
    OPT_VOLUME = 256, OPT_JSON, OPT_STORE, OPT_NAME, OPT_DELETE, OPT_FULL, OPT_GRACE, OPT_ENCRYPT, OPT_KEY_FILE, OPT_NEW_KEY_FILE, OPT_OBJECT, OPT_KEYS,
    OPT_HELP, OPT_VERSION
};
static const struct option OPTIONS[] = {
    {"volume", required_argument, NULL, OPT_VOLUME}, {"json", no_argument, NULL, OPT_JSON},   {"store", required_argument, NULL, OPT_STORE},
    {"name", required_argument, NULL, OPT_NAME},     {"help", no_argument, NULL, OPT_HELP},   {"version", no_argument, NULL, OPT_VERSION},
    {"delete", no_argument, NULL, OPT_DELETE},       {"full", no_argument, NULL, OPT_FULL},   {"grace", required_argument, NULL, OPT_GRACE},
    {"encrypt", no_argument, NULL, OPT_ENCRYPT},     {"key-file", required_argument, NULL, OPT_KEY_FILE},
    {"new-key-file", required_argument, NULL, OPT_NEW_KEY_FILE}, {"object", required_argument, NULL, OPT_OBJECT},
    {"keys", required_argument, NULL, OPT_KEYS},
    {NULL, 0, NULL, 0},
};

int kfs_cmd_fail(const struct kfs_cmd *c, const struct kfs_err *err)
{
    (void)fprintf(stderr, "kfs %s: %s\n", c->name, err->msg);
    return err->code == EINVAL ? 2 : 1;
}

static void help_all(FILE *f)
{
    (void)fprintf(f, "usage: kfs COMMAND [options] [arguments]\n\nLooks into KFS volumes and looks after them.\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        (void)fprintf(f, "  %-12s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    (void)fprintf(f, "\n%s\nMore about one: kfs COMMAND --help. To use a volume: kfs-run --help.\n", COMMON_HELP);
}

static void help_one(const struct command *cmd)
{
    (void)printf("usage: kfs %s%s%s [options]\n\n%s\n%s", cmd->name, *cmd->args ? " " : "", cmd->args, cmd->help, COMMON_HELP);
}

/* The command that args begin with; *ret_words of them are its name. */
static const struct command *command_find(char **args, int count, int *ret_words)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const char *name = COMMANDS[i].name, *blank = strchr(name, ' ');
        size_t first = blank ? (size_t)(blank - name) : strlen(name);
        if (count < 1 || strlen(args[0]) != first || strncmp(args[0], name, first) != 0)
            continue;
        if (blank && (count < 2 || strcmp(args[1], blank + 1) != 0))
            continue;
        *ret_words = blank ? 2 : 1;
        return &COMMANDS[i];
    }
    return NULL;
}

static int usage(const char *name, const char *before, const char *what, const char *behind)
{
    const char *blank = name ? " " : "";
    (void)fprintf(stderr, "kfs%s%s: %s%s%s\ntry 'kfs%s%s --help'\n", blank, name ? name : "", before, what, behind, blank, name ? name : "");
    return 2;
}

static int run(const struct command *cmd, struct kfs_cmd *c)
{
    if (c->arg_count < cmd->min)
        return usage(cmd->name, "it needs ", cmd->args, "");
    if (c->arg_count > cmd->max)
        return usage(cmd->name, "'", c->args[cmd->max], "' is one argument too many");
    if ((c->store || c->volume_name) && strcmp(cmd->name, "format") != 0)
        return usage(cmd->name, "", c->store ? "--store" : "--name", " is for 'kfs format'");
    if ((c->delete_ || c->full || c->grace) && strcmp(cmd->name, "gc") != 0)
        return usage(cmd->name, "", c->delete_ ? "--delete" : c->full ? "--full" : "--grace", " is for 'kfs gc'");
    if (c->encrypt && strcmp(cmd->name, "format") != 0)
        return usage(cmd->name, "", "--encrypt", " is for 'kfs format'");
    if ((c->object || c->keys) && strcmp(cmd->name, "fsck") != 0)
        return usage(cmd->name, "", c->object ? "--object" : "--keys", " is for 'kfs fsck'");
    if (c->new_key_file && strcmp(cmd->name, "key add") != 0)
        return usage(cmd->name, "", "--new-key-file", " is for 'kfs key add'");
    struct kfs_err err = {0};
    char dir[KFS_PATH_MAX];
    if (kfs_program_dir(dir, sizeof dir, &err) < 0 || kfs_conf_load_default(&c->conf, &err) < 0) {
        int code = kfs_cmd_fail(c, &err);
        return code;
    }
    int code = cmd->run(c);
    kfs_conf_release(&c->conf);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        (void)fprintf(stderr, "kfs %s: cannot write the result: %s\n", c->name, strerror(errno));
        return 1;
    }
    return code;
}

int main(int argc, char **argv)
{
    struct kfs_cmd c = {0};
    bool help = false;
    int opt;
    while ((opt = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        switch (opt) {
        case OPT_VOLUME:
            c.volume = optarg;
            break;
        case OPT_JSON:
            c.json = true;
            break;
        case OPT_STORE:
            c.store = optarg;
            break;
        case OPT_NAME:
            c.volume_name = optarg;
            break;
        case OPT_DELETE:
            c.delete_ = true;
            break;
        case OPT_FULL:
            c.full = true;
            break;
        case OPT_GRACE:
            c.grace = optarg;
            break;
        case OPT_ENCRYPT:
            c.encrypt = true;
            break;
        case OPT_KEY_FILE:
            c.key_file = optarg;
            break;
        case OPT_NEW_KEY_FILE:
            c.new_key_file = optarg;
            break;
        case OPT_OBJECT:
            c.object = optarg;
            break;
        case OPT_KEYS:
            c.keys = optarg;
            break;
        case OPT_HELP:
            help = true;
            break;
        case OPT_VERSION:
            (void)puts("kfs " KFS_VERSION);
            return 0;
        default:
            (void)fprintf(stderr, "try 'kfs --help'\n");
            return 2;
        }
    }
    int words = 0;
    const struct command *cmd = command_find(argv + optind, argc - optind, &words);
    if (cmd && help) {
        help_one(cmd);
        return 0;
    }
    if (help || (optind < argc && strcmp(argv[optind], "help") == 0)) {
        help_all(stdout);
        return 0;
    }
    if (optind == argc) {
        help_all(stderr);
        return 2;
    }
    if (!cmd && strcmp(argv[optind], "key") == 0)
        return usage(NULL, "'key' goes with list, add, rm or rotate: ", "kfs key list URL", "");
    if (!cmd)
        return usage(NULL, "there is no command '", argv[optind], "'");
    c.name = cmd->name;
    c.args = argv + optind + words;
    c.arg_count = argc - optind - words;
    return run(cmd, &c);
}
