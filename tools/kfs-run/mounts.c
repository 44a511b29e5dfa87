#include "base/pure/path.h"
#include "tools/common/elf.h"
#include "tools/kfs-run/run.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AT_MAX 65536 /* bytes of KFS_AT; the kernel's limit for one variable is twice that */

static int outer_get(struct run_mounts *m, struct kfs_err *err)
{
    const char *cursor = getenv(KFS_ENV_AT);
    int rc = 0;
    while (cursor && m->count < KFS_MOUNTS_MAX && (rc = kfs_mounts_next(&cursor, &m->m[m->count])) == 1)
        m->count++;
    if (rc < 0)
        return KFS_FAIL(err, EINVAL, "environment variable %s is malformed; unset it", KFS_ENV_AT);
    return 0;
}

/* The place for a prefix: that of an outer one of the same name, or a new one. */
static int slot_get(struct run_mounts *m, const char *prefix, int *ret, struct kfs_err *err)
{
    for (int i = 0; i < m->count; i++) {
        const struct kfs_mount *o = &m->m[i];
        if (strcmp(o->prefix, prefix) == 0) {
            *ret = i;
            return 0;
        }
        if (!m->ours[i] && (kfs_path_under(prefix, o->prefix, o->prefix_len) || kfs_path_under(o->prefix, prefix, strlen(prefix))))
            return KFS_FAIL(err, EINVAL, "prefix '%.150s' is nested with '%.150s' of the kfs-run around this one; choose another", prefix,
                            o->prefix);
    }
    if (m->count == KFS_MOUNTS_MAX)
        return KFS_FAIL(err, EINVAL, "more than %d prefixes, those of the kfs-run around this one included", KFS_MOUNTS_MAX);
    *ret = m->count;
    return 0;
}

static int mount_fill(const struct run_options *o, const struct kfs_conf *conf, const struct run_at *at, struct kfs_mount *ret,
                      struct kfs_err *err)
{
    struct kfs_endpoint e;
    int rc = kfs_endpoint_resolve(conf, at->volume, &e, err);
    if (rc < 0)
        return rc;
    const struct kfs_endpoint_options eo = {
        .create = o->create, .cache_dir = o->cache_dir, .run_dir = o->run_dir, .linger_s = o->linger_s};
    struct kfs_client c;
    rc = kfs_endpoint_find(conf, &e, &eo, &c, err);
    if (rc < 0)
        return rc;
    kfs_client_close(&c);
    struct kfs_mount m = {.prefix_len = strlen(at->prefix), .cache_dir_len = strlen(c.hello.cache_dir)};
    if (m.cache_dir_len >= sizeof m.cache_dir)
        return KFS_FAIL(err, ENAMETOOLONG, "cache directory '%.100s...' is longer than %zu bytes; choose a shorter one with --cache-dir",
                        c.hello.cache_dir, sizeof m.cache_dir - 1);
    memcpy(m.prefix, at->prefix, m.prefix_len + 1);
    memcpy(m.cache_dir, c.hello.cache_dir, m.cache_dir_len + 1);
    memcpy(m.more_dirs, c.hello.more_dirs, sizeof m.more_dirs);
    memcpy(m.socket, e.socket, sizeof m.socket);
    memcpy(m.url, e.url, sizeof m.url);
    m.session = o->commit_given ? o->session
                                : (c.hello.flags & KFS_HELLO_SESSION) || strcmp(kfs_conf_text(conf, KFS_CONF_COMMIT), "session") == 0;
    *ret = m;
    return 0;
}

int run_mounts_make(const struct run_options *o, const struct kfs_conf *conf, struct run_mounts *ret, struct kfs_err *err)
{
    memset(ret, 0, sizeof *ret);
    int rc = outer_get(ret, err);
    for (int i = 0; rc == 0 && i < o->at_count; i++) {
        int slot = 0;
        struct kfs_mount m;
        rc = slot_get(ret, o->at[i].prefix, &slot, err);
        if (rc == 0)
            rc = mount_fill(o, conf, &o->at[i], &m, err);
        for (int k = 0; rc == 0 && k < ret->count; k++)
            if (k != slot && strcmp(ret->m[k].url, m.url) == 0)
                rc = KFS_FAIL(err, EINVAL, "volume '%.200s' is at '%.100s' and at '%.100s'; a process sees a volume in one place", m.url,
                              ret->m[k].prefix, m.prefix);
        if (rc < 0)
            break;
        ret->m[slot] = m;
        ret->ours[slot] = true;
        ret->count += slot == ret->count;
    }
    return rc;
}

/* The library for CMD's libc, relative to this program: in the build tree (the sanitizers' trees use the plain one), or installed. */
static int shim_find(const char *dir, bool musl, char *buf, size_t cap, struct kfs_err *err)
{
    static const char *const places[] = {"../lib", "../lib/kfs", "../../lib"};
    const char *name = musl ? "libkfs-musl.so" : "libkfs.so";
    char real[KFS_PATH_MAX];
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if ((size_t)snprintf(buf, cap, "%s/%s/%s", dir, places[i], name) >= cap || !realpath(buf, real))
            continue;
        if ((size_t)snprintf(buf, cap, "%s", real) >= cap)
            continue;
        if (strpbrk(buf, ": "))
            return KFS_FAIL(err, EINVAL, "path '%.250s' holds a blank or a colon, which LD_PRELOAD cannot express; move KFS elsewhere", buf);
        return kfs_elf_library_check(buf, err);
    }
    if (musl)
        return KFS_FAIL(err, ENOENT, "libkfs-musl.so, which programs of musl need, is neither in '%.100s/../lib' nor in '%.100s/../lib/kfs'; build KFS where "
                        "musl-gcc is installed (Debian: musl-tools)", dir, dir);
    return KFS_FAIL(err, ENOENT, "libkfs.so is neither in '%.100s/../lib' nor in '%.100s/../lib/kfs'; build it with 'make', or install KFS whole", dir,
                    dir);
}

int run_shim_find(bool musl, char *buf, size_t cap, struct kfs_err *err)
{
    char dir[KFS_PATH_MAX];
    int rc = kfs_program_dir(dir, sizeof dir, err);
    return rc < 0 ? rc : shim_find(dir, musl, buf, cap, err);
}

int run_environment_set(const struct run_mounts *m, bool musl, struct kfs_err *err)
{
    char dir[KFS_PATH_MAX], shim[KFS_PATH_MAX], run[KFS_PATH_MAX + 16], preload[4 * KFS_PATH_MAX];
    int rc = kfs_program_dir(dir, sizeof dir, err);
    if (rc == 0)
        rc = shim_find(dir, musl, shim, sizeof shim, err);
    if (rc < 0)
        return rc;
    char *at = calloc(1, AT_MAX);
    if (!at)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    for (int i = 0; rc == 0 && i < m->count; i++)
        rc = kfs_mounts_append(at, AT_MAX, &m->m[i]);
    if (rc == 0)
        rc = setenv(KFS_ENV_AT, at, 1) < 0 ? -errno : 0;
    free(at);
    if (rc < 0)
        return KFS_FAIL(err, -rc, "the prefixes do not fit into the environment variable %s", KFS_ENV_AT);
    /* Appended: the sanitizers' libraries insist on being first. */
    kfs_preload_without_shim(getenv("LD_PRELOAD"), preload, sizeof preload - sizeof shim - 1);
    size_t n = strlen(preload);
    (void)snprintf(preload + n, sizeof preload - n, "%s%s", n ? ":" : "", shim);
    (void)snprintf(run, sizeof run, "%s/kfs-run", dir);
    (void)unsetenv("KFS_MYSQL_PASSWORD"); /* kfsd's; the program has no business with it */
    if (setenv("LD_PRELOAD", preload, 1) < 0 || setenv(KFS_ENV_RUN, run, 1) < 0)
        return KFS_FAIL(err, errno, "cannot set the environment: %s", strerror(errno));
    return 0;
}
