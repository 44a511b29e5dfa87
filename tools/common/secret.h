/* tools/common/secret.h — where the secret of an encrypted volume comes from
 *
 * What     The bytes of a passphrase or a PEM text, from the first of: key_file (an option or setting that names a file), the file that $KFS_KEY_FILE names,
 *          $KFS_PASSPHRASE, and, if `ask`, the terminal. Never from an argument: everybody on the node sees those.
 * Owner    ret belongs to the caller; kfs_secret_release wipes it.
 * Errors   -ENOKEY: there is none, with the cure; -errno of reading the file.
 */
#ifndef KFS_TOOLS_COMMON_SECRET_H
#define KFS_TOOLS_COMMON_SECRET_H

#include "base/buf.h"
#include "base/err.h"

#define KFS_ENV_KEY_FILE   "KFS_KEY_FILE"
#define KFS_ENV_PASSPHRASE "KFS_PASSPHRASE"

/* prompt: what to ask for ("passphrase of 'URL'"); NULL: never ask. twice: a new one, asked for twice. ret: initialised. */
int kfs_secret_read(const char *key_file, const char *prompt, bool twice, struct kfs_buf *ret, struct kfs_err *err);
/* From the terminal only; from this file only. */
int kfs_secret_ask(const char *prompt, bool twice, struct kfs_buf *ret, struct kfs_err *err);
int kfs_secret_file(const char *path, struct kfs_buf *ret, struct kfs_err *err);
void kfs_secret_release(struct kfs_buf *b);

#endif
