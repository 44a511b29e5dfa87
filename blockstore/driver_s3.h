/* blockstore/driver_s3.h — the driver `s3`: URL, settings, and how it behaves
 *
 * URL      s3://BUCKET[/PREFIX][?NAME=VALUE&…]: e.g. s3://models/kfs?region=eu-central-1, s3://test/vol?endpoint=http://127.0.0.1:7070&profile=lab
 *          PREFIX is percent-decoded. The names are those of the settings below. A URL holds no secret: user:password@, access_key and the like are refused;
 *          credentials come as blockstore/cred.h says.
 * Settings (struct kfs_drv_options, settings: "name=value" lines; they win over the URL):
 *            endpoint   http[s]://HOST[:PORT][/PATH] of a server that is not AWS; default $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, the profile's, AWS
 *            region     default $AWS_REGION, $AWS_DEFAULT_REGION, the profile's, us-east-1; what the server says (x-amz-bucket-region) corrects it
 *            style      auto, path (HOST/BUCKET/KEY) or virtual (BUCKET.HOST/KEY); auto: virtual at AWS for buckets without a dot, else path
 *            profile    profile of AWS's files; default: see blockstore/cred.h
 *            ca_file    PEM file of the authorities that may sign the server's certificate; default the system's
 *            insecure   yes: do not check certificates (no)
 *            proxy      http[s]://HOST:PORT, without a password; default the environment's http_proxy, https_proxy, no_proxy; loopback never goes by a proxy
 *            http       auto (HTTP/2 where TLS offers it), 1, or 2
 *            payload    signed (SHA-256 of each body is in its signature: the server refuses damaged bodies) or unsigned
 *            checksum   none, or sha256 (x-amz-checksum-sha256 with each body, kept by the server); never as a trailer
 *            hedge      auto, or off: see below
 *            connect_ms how long to try to connect (5000)
 *            stall_ms   an attempt on which nothing moves for so long is given up (15000)
 *            clock_offset_s  how far the server's clock is ahead of ours at the start (0)
 *          Numbers of requests and the retry budget are fields of struct kfs_drv_options.
 * Retries  Failures below HTTP, 408, 429, 500, 502, 503, 504, 409 (conflicting operation), bodies that are short, over-long or of another range, and bodies
 *          that the server received damaged: again after a random pause below 50 ms, 100 ms, … 5 s (never less than Retry-After), until the request is older than
 *          its budget. A GET goes on behind the bytes it has, with If-Match; if the server then says that the ETag is another, it starts anew and every byte
 *          that was told already must come again the same. A conditional PUT bears a mark (x-amz-meta-kfs-put), by which its retry tells its own success from
 *          another writer's. Finishing an upload twice is told from losing it by the size of the value.
 *          At once, and once a request: 403 RequestTimeTooSkewed (the server's Date corrects our clock from then on; logged), a wrong region, refused
 *          keys when newer ones are there or can be had.
 * Limits   503, 429 and SlowDown halve the number of requests at once (twice a second at most); each success adds a fraction of one, up to the maximum. A quarter
 *          more is for requests somebody waits for, so that background work never takes every place.
 * Hedging  When the first byte of a GET takes more than twice the 95th percentile (at least 20 ms), or nothing moves in the middle of a body for four times that
 *          (at least 400 ms), a second GET goes out by another connection; what comes first counts. At most one GET in twenty, not under SlowDown, and not
 *          for the next 2000 GETs when fewer than a quarter of the last hedges came first.
 * Errors   blockstore/driver.h. In addition -ENXIO: the bucket is not there. 404 of HEAD cannot tell key from bucket: -ENOENT.
 */
#ifndef KFS_BLOCKSTORE_DRIVER_S3_H
#define KFS_BLOCKSTORE_DRIVER_S3_H

#include "blockstore/driver.h"
#include "blockstore/http.h"

struct kfs_s3_conf {
    char bucket[256], prefix[512]; /* prefix: "" or with '/' at its end */
    char endpoint[300];            /* "" : AWS */
    char region[64], profile[128];
    char ca_file[1024], proxy[300];
    bool has_region, insecure, path_style, style_set, unsigned_payload, checksum, hedge_off;
    enum kfs_http_version http;
    unsigned connect_ms, stall_ms;
    int clock_offset_s;
};

/* The URL, then the settings (may be NULL), then the environment and the profile for what is still unset. -EINVAL. */
int kfs_s3_conf_parse(const char *url, const char *settings, struct kfs_s3_conf *ret, struct kfs_err *err);

#endif
