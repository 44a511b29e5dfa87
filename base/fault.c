#include "base/fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    char name[128]; /* empty: no fault wanted */
    unsigned long passage;
    bool later_too;
    int error; /* 0: SIGKILL */
    unsigned long count;
} fault;

static pthread_once_t fault_once = PTHREAD_ONCE_INIT;

static int errno_by_name(const char *name)
{
    static const struct {
        const char *name;
        int code;
    } known[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"ENOMEM", ENOMEM},
                 {"EAGAIN", EAGAIN}, {"EINTR", EINTR},   {"EACCES", EACCES}, {"EPERM", EPERM},
                 {"ENOENT", ENOENT}, {"EROFS", EROFS},   {"EBUSY", EBUSY},   {"EMFILE", EMFILE},
                 {"ENFILE", ENFILE}, {"EPIPE", EPIPE},   {"ESTALE", ESTALE}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].code;
    return 0;
}

static void fault_read(void)
{
    const char *spec = getenv("KFS_FAULT");
    if (!spec || !*spec)
        return;
    const char *colon = strchr(spec, ':');
    size_t len = colon ? (size_t)(colon - spec) : strlen(spec);
    char *end = NULL;
    fault.passage = colon ? strtoul(colon + 1, &end, 10) : 1;
    if (end && *end == '+') {
        fault.later_too = true;
        end++;
    }
    if (end && strncmp(end, ":errno=", 7) == 0)
        fault.error = errno_by_name(end + 7);
    bool bad = len >= sizeof fault.name || fault.passage == 0 || (end && *end && fault.error == 0);
    if (bad) {
        (void)fprintf(stderr, "KFS_FAULT='%s' is not understood; write NAME:N or NAME:N:errno=EIO\n",
                      spec);
        _exit(2);
    }
    memcpy(fault.name, spec, len);
}

int kfs_fault_hit(const char *name)
{
    (void)pthread_once(&fault_once, fault_read);
    if (!fault.name[0] || strcmp(fault.name, name) != 0)
        return 0;
    unsigned long n = __atomic_add_fetch(&fault.count, 1, __ATOMIC_RELAXED);
    if (n != fault.passage && !(fault.later_too && n > fault.passage))
        return 0;
    if (fault.error)
        return -fault.error;
    (void)kill(getpid(), SIGKILL);
    for (;;)
        (void)pause();
}
