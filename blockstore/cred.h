/* blockstore/cred.h — whose keys sign S3 requests, and keeping them fresh
 *
 * What     Finds credentials where AWS's own tools look for them, reloads them before they expire, and keeps them out of logs, arguments and core files.
 * Model    Sources, first hit wins:
 *            profile named by the caller    that profile of the files below, nothing else
 *            environment                    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *            web identity                   AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME; AssumeRoleWithWebIdentity at AWS_ENDPOINT_URL_STS
 *                                           or the region's STS
 *            profile $AWS_PROFILE (default) AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials), then AWS_CONFIG_FILE (~/.aws/config): keys, or role_arn with
 *                                           web_identity_token_file
 *            container                      AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, or _FULL_URI (https, loopback or link-local), with
 *                                           AWS_CONTAINER_AUTHORIZATION_TOKEN or _TOKEN_FILE
 *            instance                       IMDSv2, unless AWS_EC2_METADATA_DISABLED=true
 *          Credentials that expire are renewed five minutes before (at a quarter of a shorter life); files are looked at again when they change; kfs_cred_refresh
 *          asks at once. A failed renewal is tried again with growing pauses, and the old keys are used meanwhile.
 * Owner    kfs_cred_get lends a snapshot until kfs_cred_put. Snapshots are pages of their own, left out of core files (MADV_DONTDUMP) and wiped when their
 *          last user puts them back.
 * Threads  Any. One thread of its own when the source can change.
 * Blocks   open: yes (files, or a request of seconds). get, put, refresh: no.
 * Errors   open: -EACCES none found or none could be had: err names what was tried and the cure; -ENOMEM. Never a secret in err or in the log.
 * Absent   credential_process, SSO, source_profile chains: named in the message when a profile asks for them.
 */
#ifndef KFS_BLOCKSTORE_CRED_H
#define KFS_BLOCKSTORE_CRED_H

#include "base/err.h"
#include "blockstore/http.h"
#include "blockstore/sigv4.h"

struct kfs_cred;

struct kfs_cred_snapshot {
    struct kfs_sigv4_keys keys; /* token "" without */
    int64_t expires_s;          /* 0: never */
    uint64_t generation;        /* rises with each change */
};
struct kfs_cred_options {
    const char *profile, *region; /* NULL: by environment; region is for STS */
    struct kfs_http_options http;
};

int kfs_cred_open(const struct kfs_cred_options *o, struct kfs_cred **ret_c, struct kfs_err *err);
void kfs_cred_close(struct kfs_cred *c); /* all snapshots are back; NULL is fine */
const struct kfs_cred_snapshot *kfs_cred_get(struct kfs_cred *c);
void kfs_cred_put(struct kfs_cred *c, const struct kfs_cred_snapshot *s);
/* Keys of this generation were refused. 1: there are newer ones; 0: being looked for, ask again soon; -1: there are no others. */
int kfs_cred_refresh(struct kfs_cred *c, uint64_t generation);
const char *kfs_cred_source(const struct kfs_cred *c); /* "the environment", "profile 'x'", …: for messages */

/* A setting of a profile ("region", "endpoint_url") in AWS's files; false: not there. profile NULL: $AWS_PROFILE or "default". */
bool kfs_cred_profile_setting(const char *profile, const char *name, char *ret, size_t cap);

/* Move the secrets of the environment out of it, so that neither /proc/PID/environ nor a core file has them. Once, at the start of a program that opens
 * drivers and starts no children who need them. */
void kfs_cred_env_take(void);

#endif
