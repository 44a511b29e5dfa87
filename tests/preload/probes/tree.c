/* tests/preload/probes/tree.c — print trees so that two of them can be compared
 *
 * tree [-m] [-n] [-x NAME] DIR…: one line an entry: type, mode, links, owner, size, name, symlink target, hash of the content, xattrs.
 * -m: mtime in ns too (not of directories). -n: no link counts. -x NAME: leave out entries of that name.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int with_mtime, without_links;
static const char *excluded;

static void put_escaped(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c <= ' ' || c >= 127 || c == '\\')
            printf("\\%03o", c);
        else
            putchar(c);
    }
}

static int put_hash(const char *path)
{
    static unsigned char buf[1 << 16];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return printf(" open: %s", strerror(errno)), 0;
    uint64_t h = 1469598103934665603u, g = 0;
    ssize_t n;
    uint64_t total = 0;
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            h = (h ^ buf[i]) * 1099511628211u;
            g = (g << 5 | g >> 59) + buf[i];
        }
        total += (uint64_t)n;
    }
    if (n < 0)
        printf(" read: %s", strerror(errno));
    close(fd);
    printf(" %016llx%016llx/%llu", (unsigned long long)h, (unsigned long long)g, (unsigned long long)total);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void put_xattrs(const char *path)
{
    char names[4096], value[4096];
    char *list[256];
    int count = 0;
    ssize_t n = llistxattr(path, names, sizeof names);
    for (ssize_t i = 0; i < n && count < 256; i += (ssize_t)strlen(names + i) + 1)
        if (!strncmp(names + i, "user.", 5))
            list[count++] = names + i;
    qsort(list, (size_t)count, sizeof *list, by_name);
    for (int i = 0; i < count; i++) {
        ssize_t len = lgetxattr(path, list[i], value, sizeof value);
        printf(" %s=", list[i]);
        if (len >= 0)
            put_escaped(value, (size_t)len);
        else
            printf("(%s)", strerror(errno));
    }
}

static void walk(const char *path)
{
    struct stat st;
    put_escaped(path, strlen(path));
    if (lstat(path, &st)) {
        printf(" lstat: %s\n", strerror(errno));
        return;
    }
    int kind = S_ISREG(st.st_mode) ? 'f' : S_ISDIR(st.st_mode) ? 'd' : S_ISLNK(st.st_mode) ? 'l' : S_ISFIFO(st.st_mode) ? 'p' : 'o';
    printf(" %c%04o", kind, st.st_mode & 07777);
    if (!without_links)
        printf(" %lu", (unsigned long)st.st_nlink);
    printf(" %u:%u", st.st_uid, st.st_gid);
    if (kind == 'f') {
        printf(" %lld", (long long)st.st_size);
        put_hash(path);
    }
    if (kind == 'l') {
        char target[4097];
        ssize_t n = readlink(path, target, sizeof target);
        printf(" %lld -> ", (long long)st.st_size);
        put_escaped(target, n < 0 ? 0 : (size_t)n);
    }
    if (with_mtime && kind != 'd')
        printf(" @%lld.%09ld", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    put_xattrs(path);
    putchar('\n');
    if (kind != 'd')
        return;
    DIR *d = opendir(path);
    if (!d) {
        printf("  opendir: %s\n", strerror(errno));
        return;
    }
    char **names = NULL;
    size_t count = 0;
    struct dirent *e;
    errno = 0;
    while ((e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || (excluded && !strcmp(e->d_name, excluded)))
            continue;
        names = realloc(names, (count + 1) * sizeof *names);
        names[count++] = strdup(e->d_name);
    }
    if (errno)
        printf("  readdir: %s\n", strerror(errno));
    closedir(d);
    if (count)
        qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        char *child;
        if (asprintf(&child, "%s/%s", path, names[i]) < 0)
            abort();
        walk(child);
        free(child);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    int o;
    while ((o = getopt(argc, argv, "mnx:")) != -1) {
        with_mtime |= o == 'm';
        without_links |= o == 'n';
        if (o == 'x')
            excluded = optarg;
        if (o == '?')
            return 2;
    }
    for (; optind < argc; optind++)
        walk(argv[optind]);
    return fflush(stdout) != 0;
}
