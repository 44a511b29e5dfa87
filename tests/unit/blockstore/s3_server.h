/* tests/unit/blockstore/s3_server.h — an S3 server for one test program, by tests/lib/s3-server
 *
 * Programs run from the top of the tree. The server ends with the program.
 */
#ifndef KFS_TESTS_UNIT_BLOCKSTORE_S3_SERVER_H
#define KFS_TESTS_UNIT_BLOCKSTORE_S3_SERVER_H

#include "tests/unit/kt.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define S3_ACCESS "kfsaccess"
#define S3_SECRET "kfs/secret+with=odd characters"

static char s3_dir[256];

static inline int s3_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void s3_dir_remove(void)
{
    if (s3_dir[0])
        (void)nftw(s3_dir, s3_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* One for the whole program. */
static inline const char *s3_dir_make(void)
{
    const char *base = getenv("TMPDIR");
    if (s3_dir[0])
        return s3_dir;
    snprintf(s3_dir, sizeof s3_dir, "%.200s/kfs-s3-XXXXXX", base && *base ? base : "/var/tmp");
    if (!mkdtemp(s3_dir)) {
        perror(s3_dir);
        exit(1);
    }
    atexit(s3_dir_remove);
    return s3_dir;
}

static inline int s3_free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int port = bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0 ? ntohs(a.sin_port) : 0;
    close(fd);
    return port;
}

static inline bool s3_answers(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((unsigned short)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return ok;
}

/* Start argv (NULL at the end) and wait until the port answers; its pid, or 0: it ended before that. */
static inline pid_t s3_spawn(char *const *argv, int port, const char *log)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(1);
        dup2(fd, 1);
        dup2(fd, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    while (!s3_answers(port)) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid)
            return 0;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    return pid;
}

static inline void s3_stop(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGTERM);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

static int s3_port;
static pid_t s3_pid;

static inline void s3_server_stop(void)
{
    s3_stop(s3_pid);
    s3_pid = 0;
}

/* The program's server; its port. Skips the case when there can be none. */
static inline int s3_server(void)
{
    static bool missing;
    if (missing)
        SKIP("no S3 server: see tests/lib/s3-server");
    if (s3_pid)
        return s3_port;
    int status = system("tests/lib/s3-server find >/dev/null");
    missing = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (missing)
        SKIP("no S3 server: see tests/lib/s3-server");
    setenv("S3_ACCESS", S3_ACCESS, 1);
    setenv("S3_SECRET", S3_SECRET, 1);
    char dir[300], log[300], port[16];
    snprintf(dir, sizeof dir, "%s/server", s3_dir_make());
    snprintf(log, sizeof log, "%s/server.log", s3_dir_make());
    for (int i = 0; i < 20 && !s3_pid; i++) { /* somebody else may take the port in between */
        s3_port = s3_free_port();
        snprintf(port, sizeof port, "%d", s3_port);
        char name[] = "tests/lib/s3-server", exec[] = "exec";
        char *argv[] = {name, exec, dir, port, NULL};
        s3_pid = s3_spawn(argv, s3_port, log);
    }
    if (!s3_pid)
        KT_FAIL("the S3 server does not start; see %s", log);
    atexit(s3_server_stop);
    return s3_port;
}

/* Credentials of the server in the environment, and nothing else of AWS. */
static inline void s3_environment(void)
{
    static const char *const OTHERS[] = {"AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
                                         "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                         "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http_proxy", "https_proxy"};
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        unsetenv(OTHERS[i]);
    setenv("AWS_ACCESS_KEY_ID", S3_ACCESS, 1);
    setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
}

#endif
