/* blockstore/sigv4.h — AWS Signature Version 4: signing, and checking what somebody else signed
 *
 * What     The signature of a request as an Authorization header or as a presigned query, for a client; and the same looked at from a server's side. Pure
 *          functions: no connection, no clock, no credentials store.
 * Model    canonical request → SHA-256 → string to sign → HMAC with a key derived from (secret, date, region, service). Paths are canonical as S3 wants
 *          it: decoded and encoded once, dots and double slashes stay. Queries are sorted here, whatever order they come in. What is signed are exactly
 *          the headers given; `host` must be among them.
 * Owner    Everything passed in is borrowed. Keys and intermediate keys are wiped from the stack.
 * Threads  Any.
 * Blocks   No.
 * Errors   -E2BIG more than KFS_SIGV4_HEADERS_MAX headers or query parameters, or the result does not fit; -EINVAL a path or query that is not valid
 *          percent-encoding; -ENOMEM.
 * Absent   Chunked uploads (STREAMING-…), SigV4a, policies of browser forms.
 */
#ifndef KFS_BLOCKSTORE_SIGV4_H
#define KFS_BLOCKSTORE_SIGV4_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

#define KFS_SIGV4_HEADERS_MAX 64
#define KFS_SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"
/* SHA-256 of nothing */
#define KFS_SIGV4_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct kfs_sigv4_header {
    const char *name, *value; /* any case; values as sent */
};
struct kfs_sigv4_request {
    const char *method;
    const char *path;         /* percent-encoded as sent, from '/' up to '?' */
    const char *query;        /* as sent, without '?'; NULL or "": none */
    const struct kfs_sigv4_header *headers;
    size_t header_count;
    const char *payload; /* 64 hex digits of SHA-256, or KFS_SIGV4_UNSIGNED */
};
struct kfs_sigv4_keys {
    const char *access_key, *secret, *token; /* token: NULL or "" without */
};
struct kfs_sigv4_scope {
    const char *region, *service;
};

#define KFS_SIGV4_DATE_MAX 17 /* "20130524T000000Z" and NUL */
void kfs_sigv4_date(time_t at, char ret[KFS_SIGV4_DATE_MAX]);

/* SHA-256 in hex of what iov names. -ENOMEM. */
int kfs_sigv4_hash(const struct iovec *iov, int count, char ret_hex[65]);
/* Percent-encode s as S3 wants it; '/' stays when keep_slash. -ENOMEM. */
int kfs_sigv4_encode(struct kfs_buf *out, const char *s, size_t len, bool keep_slash);

/* The value of the Authorization header, appended to out. The request's headers include host, x-amz-date (of the same `at`) and, where the keys have a
 * token, x-amz-security-token. */
int kfs_sigv4_sign(const struct kfs_sigv4_request *r, const struct kfs_sigv4_scope *scope, const struct kfs_sigv4_keys *keys, time_t at, struct kfs_buf *out);
/* The whole query of a presigned request (what r->query has, and the signature), appended to out. expires_s: 1 … 604800. */
int kfs_sigv4_presign(const struct kfs_sigv4_request *r, const struct kfs_sigv4_scope *scope, const struct kfs_sigv4_keys *keys, time_t at, unsigned expires_s,
                      struct kfs_buf *out);

/* --- the server's side --- */
enum kfs_sigv4_verdict {
    KFS_SIGV4_OK,
    KFS_SIGV4_ANONYMOUS,   /* neither header nor query form */
    KFS_SIGV4_MALFORMED,   /* not understood: missing fields, host or x-amz-* headers not signed, … */
    KFS_SIGV4_UNKNOWN_KEY,
    KFS_SIGV4_WRONG_SCOPE, /* another region or service */
    KFS_SIGV4_WRONG,       /* the signature does not match */
    KFS_SIGV4_SKEWED,      /* signed more than skew_s away from now */
    KFS_SIGV4_EXPIRED      /* presigned, and its time is over */
};
struct kfs_sigv4_verifier {
    struct kfs_sigv4_scope scope; /* region NULL: any */
    time_t now;
    unsigned skew_s; /* 900 is what AWS allows */
    /* The secret that belongs to access_key (and to token, which is "" without): false: unknown. */
    bool (*secret)(void *arg, const char *access_key, const char *token, char *ret_secret, size_t cap);
    void *arg;
};
struct kfs_sigv4_found {
    char access_key[129];
    char region[65];
    bool presigned;
    char payload[80]; /* what the client says about the payload: hash, UNSIGNED-PAYLOAD or STREAMING-…; the caller checks the bytes against it */
};
/* r->headers are all headers received, r->payload is not used. *ret_found is filled as far as it was understood. */
enum kfs_sigv4_verdict kfs_sigv4_verify(const struct kfs_sigv4_request *r, const struct kfs_sigv4_verifier *v, struct kfs_sigv4_found *ret_found);

#endif
