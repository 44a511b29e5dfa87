/* blockstore/s3_xml.h — what an S3 server says: XML bodies and header lines; and the XML that it is sent
 *
 * What     Reads errors, listings, uploads, the results of batch deletion and of finished uploads, and temporary credentials; reads header lines. Everything
 *          comes from a far end that may be wrong or hostile.
 * Limits   A document of at most KFS_XML_BYTES_MAX, KFS_XML_DEPTH_MAX deep, KFS_XML_TEXT_MAX bytes a text; no document type, so no entities beyond XML's
 *          five. Numbers that do not fit, keys with NUL or with broken percent-encoding are damage. Namespaces and their prefixes are ignored.
 * Owner    Texts given to callbacks live during the call.
 * Threads  Any.
 * Errors   -EBADMSG not what was expected; -E2BIG over a limit; -ENOMEM; what a callback returned.
 */
#ifndef KFS_BLOCKSTORE_S3_XML_H
#define KFS_BLOCKSTORE_S3_XML_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KFS_XML_BYTES_MAX (16u << 20)
#define KFS_XML_DEPTH_MAX 12
#define KFS_XML_TEXT_MAX 8192

/* Each element, when it ends: path is "ListBucketResult/Contents/Key"; text is what stands directly in it (blanks at both ends removed). != 0 stops. */
typedef int (*kfs_xml_cb)(void *arg, const char *path, const char *text, size_t len);
int kfs_xml_each(const char *xml, size_t len, kfs_xml_cb cb, void *arg);

struct kfs_s3_error {
    char code[64], message[200], region[64], endpoint[200], request_id[64];
};
/* Fills what there is; a body that is no <Error> leaves code "". -errno: not well-formed, or over a limit. */
int kfs_s3_error_read(const char *xml, size_t len, struct kfs_s3_error *ret);

struct kfs_s3_list {
    /* each object of the page; key is decoded. May be NULL. */
    int (*object)(void *arg, const char *key, uint64_t bytes, int64_t mtime_s);
    /* each unfinished upload; may be NULL */
    int (*upload)(void *arg, const char *key, const char *upload_id, int64_t begun_s);
    /* each part of an upload; may be NULL */
    int (*part)(void *arg, unsigned number, const char *etag, uint64_t bytes);
    void *arg;
    bool truncated;           /* there is more, behind next (and next_id) */
    char next[2048], next_id[1024];
};
/* ListBucketResult, ListMultipartUploadsResult or ListPartsResult. */
int kfs_s3_list_read(const char *xml, size_t len, struct kfs_s3_list *l);

/* <InitiateMultipartUploadResult>: the upload's id. */
int kfs_s3_upload_id_read(const char *xml, size_t len, char *ret_id, size_t cap);
/* <DeleteResult>: each key that could not be deleted. */
typedef int (*kfs_s3_deleted_cb)(void *arg, const char *key, const char *code, const char *message);
int kfs_s3_deleted_read(const char *xml, size_t len, kfs_s3_deleted_cb failed, void *arg);
/* The answer to AssumeRoleWithWebIdentity. Texts that do not fit: -E2BIG. */
int kfs_s3_credentials_read(const char *xml, size_t len, char *ret_access, size_t access_cap, char *ret_secret, size_t secret_cap, char *ret_token,
                            size_t token_cap, int64_t *ret_expires_s);

/* Text of an element, escaped. */
int kfs_xml_escape(struct kfs_buf *out, const char *s);

/* "2009-10-12T17:50:30.000Z" in seconds; false: not a time. */
bool kfs_s3_time_parse(const char *s, int64_t *ret_s);

/* --- header lines of one answer ------------------------------------------------------------------- */
struct kfs_s3_head {
    int status;
    bool has_length, has_range, range_unsatisfied;
    uint64_t length;            /* Content-Length */
    uint64_t first, last, total; /* Content-Range; of an unsatisfied one only total */
    char etag[128];             /* with its quotes, as sent */
    char region[64];            /* x-amz-bucket-region */
    char request_id[64];
    char put_mark[64];          /* x-amz-meta-kfs-put */
    int64_t date_s, modified_s; /* 0: none */
    uint32_t retry_after_ms;
};
/* A status line begins anew. Lines that make no sense are left out. */
void kfs_s3_head_line(struct kfs_s3_head *h, const char *line, size_t len);

#endif
