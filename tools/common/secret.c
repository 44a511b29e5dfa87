#include "tools/common/secret.h"
#include "base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define SECRET_MAX 65536

void kfs_secret_release(struct kfs_buf *b)
{
    if (b->data)
        explicit_bzero(b->data, b->cap);
    kfs_buf_release(b);
}

int kfs_secret_file(const char *path, struct kfs_buf *ret, struct kfs_err *err)
{
    kfs_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return KFS_FAIL(err, errno, "cannot read key file '%.200s': %s", path, strerror(errno));
    if (kfs_buf_reserve(ret, SECRET_MAX + 1) < 0) /* at once: growing would leave copies behind */
        return KFS_FAIL(err, ENOMEM, "cannot read key file '%.200s': out of memory", path);
    for (;;) {
        ssize_t n = read(fd, ret->data + ret->len, SECRET_MAX + 1 - ret->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return KFS_FAIL(err, errno, "cannot read key file '%.200s': %s", path, strerror(errno));
        if (n == 0)
            break;
        ret->len += (size_t)n;
        if (ret->len > SECRET_MAX)
            return KFS_FAIL(err, EFBIG, "key file '%.200s' is too long; give one that holds a passphrase or an RSA key", path);
    }
    ret->data[ret->len] = 0;
    return ret->len ? 0 : KFS_FAIL(err, EINVAL, "key file '%.200s' is empty; put a passphrase or an RSA key in it", path);
}

/* One line from the terminal, not shown. */
static int ask(int tty, const char *prompt, const char *again, struct kfs_buf *ret)
{
    struct termios old, quiet;
    bool is_tty = tcgetattr(tty, &old) == 0;
    dprintf(tty, "%s%s: ", prompt, again);
    if (is_tty) {
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(tty, TCSAFLUSH, &quiet);
    }
    char c;
    ssize_t n;
    int rc = kfs_buf_reserve(ret, SECRET_MAX + 1);
    while (rc == 0 && (n = read(tty, &c, 1)) == 1 && c != '\n' && ret->len < SECRET_MAX)
        ret->data[ret->len++] = c;
    if (rc == 0)
        ret->data[ret->len] = 0;
    if (is_tty) {
        (void)tcsetattr(tty, TCSAFLUSH, &old);
        dprintf(tty, "\n");
    }
    return rc;
}

int kfs_secret_ask(const char *prompt, bool twice, struct kfs_buf *ret, struct kfs_err *err)
{
    kfs_auto_fd int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (tty < 0)
        return KFS_FAIL(err, ENOKEY, "no %s; name a file with --key-file or $" KFS_ENV_KEY_FILE, prompt);
    int rc = ask(tty, prompt, "", ret);
    struct kfs_buf second;
    kfs_buf_init(&second);
    if (rc == 0 && twice) {
        rc = ask(tty, prompt, ", again", &second);
        if (rc == 0 && (second.len != ret->len || memcmp(second.data, ret->data, ret->len) != 0))
            rc = -EINVAL;
    }
    kfs_secret_release(&second);
    if (rc == -EINVAL)
        return KFS_FAIL(err, EINVAL, "the two differ; try again");
    if (rc == 0 && ret->len == 0)
        return KFS_FAIL(err, ENOKEY, "no %s was given", prompt);
    return rc;
}

int kfs_secret_read(const char *key_file, const char *prompt, bool twice, struct kfs_buf *ret, struct kfs_err *err)
{
    const char *path = key_file && *key_file ? key_file : getenv(KFS_ENV_KEY_FILE), *text = getenv(KFS_ENV_PASSPHRASE);
    if (path && *path)
        return kfs_secret_file(path, ret, err);
    if (text && *text)
        return kfs_buf_append_str(ret, text) < 0 ? KFS_FAIL(err, ENOMEM, "out of memory") : 0;
    if (prompt)
        return kfs_secret_ask(prompt, twice, ret, err);
    return KFS_FAIL(err, ENOKEY, "the volume is encrypted, and no secret is given; name a file with --key-file, key_file or $" KFS_ENV_KEY_FILE);
}
