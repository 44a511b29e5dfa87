/* Signatures: against those that AWS publishes, and what a server makes of good and bad ones. */
#include "blockstore/sigv4.h"
#include "tests/unit/kt.h"
#include <errno.h>

#define DATE "20150830T123600Z"
#define HOST "example.amazonaws.com"
#define ALNUM "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define STS                                                                                                                                          \
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4" \
    "IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Y" \
    "jc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
#define FORM "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"

/* AWS's Signature Version 4 test suite: request, and the signature it must have. */
static const struct {
    const char *name, *method, *path, *query;
    struct kfs_sigv4_header more[5];
    const char *payload, *signature;
} SUITE[] = {
    {"get-vanilla", "GET", "/", "", {{0}}, NULL, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
    {"post-vanilla", "POST", "/", "", {{0}}, NULL, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
    {"get-header-key-duplicate", "GET", "/", "", {{"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}}, NULL,
     "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
    {"get-header-value-trim", "GET", "/", "", {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}}, NULL,
     "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
    {"get-header-value-order", "GET", "/", "", {{"My-Header1", "value4"}, {"My-Header1", "value1"}, {"My-Header1", "value3"}, {"My-Header1", "value2"}}, NULL,
     "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
    {"get-vanilla-query-order-key-case", "GET", "/", "Param2=value2&Param1=value1", {{0}}, NULL,
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
    {"get-vanilla-query-order-encoded", "GET", "/", "Param-3=Value3&Param=Value2&%E1%88%B4=Value1", {{0}}, NULL,
     "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
    {"get-vanilla-query-unreserved", "GET", "/", "-._~" ALNUM "=-._~" ALNUM, {{0}}, NULL, "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
    {"get-vanilla-utf8-query", "GET", "/", "\xe1\x88\xb4=bar", {{0}}, NULL, "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
    {"get-vanilla-empty-query-key", "GET", "/", "Param1=value1", {{0}}, NULL, "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
    {"get-unreserved", "GET", "/-._~" ALNUM, "", {{0}}, NULL, "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
    {"get-utf8", "GET", "/\xe1\x88\xb4", "", {{0}}, NULL, "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
    {"get-space-unnormalized", "GET", "/example space/", "", {{0}}, NULL, "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
    {"get-slashes-unnormalized", "GET", "//example//", "", {{0}}, NULL, "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5"},
    {"post-vanilla-query", "POST", "/", "Param1=value1", {{0}}, NULL, "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
    {"post-x-www-form-urlencoded", "POST", "/", "",
     {{"Content-Type", "application/x-www-form-urlencoded"}, {"Content-Length", "13"}, {"x-amz-content-sha256", FORM}}, FORM,
     "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"},
    {"post-sts-header-before", "POST", "/", "", {{"X-Amz-Security-Token", STS}}, NULL, "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
    {"get-vanilla-with-session-token", "GET", "/", "", {{"X-Amz-Security-Token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"}}, NULL,
     "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"},
};

static const struct kfs_sigv4_keys SUITE_KEYS = {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
static const struct kfs_sigv4_scope SUITE_SCOPE = {"us-east-1", "service"};
#define SUITE_AT 1440938160 /* DATE */

TEST(aws_test_suite)
{
    for (size_t i = 0; i < sizeof SUITE / sizeof *SUITE; i++) {
        struct kfs_sigv4_header h[8] = {{"Host", HOST}, {"X-Amz-Date", DATE}};
        size_t n = 2;
        for (int k = 0; k < 5 && SUITE[i].more[k].name; k++)
            h[n++] = SUITE[i].more[k];
        struct kfs_sigv4_request r = {.method = SUITE[i].method, .path = SUITE[i].path, .query = SUITE[i].query, .headers = h, .header_count = n,
                                      .payload = SUITE[i].payload ? SUITE[i].payload : KFS_SIGV4_EMPTY};
        struct kfs_buf b;
        kfs_buf_init(&b);
        ASSERT_EQ(kfs_sigv4_sign(&r, &SUITE_SCOPE, &SUITE_KEYS, SUITE_AT, &b), 0);
        const char *s = strstr(kfs_buf_str(&b), "Signature=");
        if (!s || strcmp(s + 10, SUITE[i].signature) != 0)
            KT_FAIL("%s: '%s', but the signature is %s", SUITE[i].name, kfs_buf_str(&b), SUITE[i].signature);
        kfs_buf_release(&b);
    }
}

TEST(dates_and_hashes)
{
    char date[KFS_SIGV4_DATE_MAX], hex[65];
    struct iovec v[2] = {{(void *)(uintptr_t) "Param1=", 7}, {(void *)(uintptr_t) "value1", 6}};
    kfs_sigv4_date(SUITE_AT, date);
    ASSERT_STR(date, DATE);
    ASSERT_EQ(kfs_sigv4_hash(NULL, 0, hex), 0);
    ASSERT_STR(hex, KFS_SIGV4_EMPTY);
    ASSERT_EQ(kfs_sigv4_hash(v, 2, hex), 0);
    ASSERT_STR(hex, FORM);
}

/* The examples of the S3 documentation. */
static const struct kfs_sigv4_keys S3_KEYS = {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};
static const struct kfs_sigv4_scope S3_SCOPE = {"us-east-1", "s3"};
#define S3_AT 1369353600 /* 2013-05-24 00:00:00 */
#define S3_HOST {"host", "examplebucket.s3.amazonaws.com"}
#define S3_DATE {"x-amz-date", "20130524T000000Z"}
#define S3_PUT "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"

static const struct {
    const char *method, *path, *query;
    struct kfs_sigv4_header h[7];
    size_t count;
    const char *signature;
} EXAMPLES[] = {
    {"GET", "/test.txt", "", {S3_HOST, {"Range", "bytes=0-9"}, {"x-amz-content-sha256", KFS_SIGV4_EMPTY}, S3_DATE}, 4,
     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
    {"PUT", "/test%24file.text", "",
     {S3_HOST, {"Date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-content-sha256", S3_PUT}, S3_DATE, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}}, 5,
     "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
    {"GET", "/", "lifecycle", {S3_HOST, {"x-amz-content-sha256", KFS_SIGV4_EMPTY}, S3_DATE}, 3,
     "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
    {"GET", "/", "prefix=J&max-keys=2", {S3_HOST, {"x-amz-content-sha256", KFS_SIGV4_EMPTY}, S3_DATE}, 3,
     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
};

static bool s3_secret(void *arg, const char *access_key, const char *token, char *ret, size_t cap)
{
    const char *want = arg;
    if (strcmp(access_key, S3_KEYS.access_key) != 0 || strcmp(token, want ? want : "") != 0)
        return false;
    snprintf(ret, cap, "%s", S3_KEYS.secret);
    return true;
}

static struct kfs_sigv4_verifier verifier(time_t now)
{
    return (struct kfs_sigv4_verifier){.scope = S3_SCOPE, .now = now, .skew_s = 900, .secret = s3_secret};
}

TEST(s3_examples_are_signed_and_verified)
{
    for (size_t i = 0; i < sizeof EXAMPLES / sizeof *EXAMPLES; i++) {
        struct kfs_sigv4_header h[8];
        memcpy(h, EXAMPLES[i].h, sizeof EXAMPLES[i].h);
        struct kfs_sigv4_request r = {.method = EXAMPLES[i].method, .path = EXAMPLES[i].path, .query = EXAMPLES[i].query, .headers = h,
                                      .header_count = EXAMPLES[i].count, .payload = i == 1 ? S3_PUT : KFS_SIGV4_EMPTY};
        struct kfs_buf b;
        struct kfs_sigv4_found f;
        struct kfs_sigv4_verifier v = verifier(S3_AT + 60);
        kfs_buf_init(&b);
        ASSERT_EQ(kfs_sigv4_sign(&r, &S3_SCOPE, &S3_KEYS, S3_AT, &b), 0);
        ASSERT(strstr(kfs_buf_str(&b), EXAMPLES[i].signature));
        h[r.header_count++] = (struct kfs_sigv4_header){"Authorization", kfs_buf_str(&b)};
        ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_OK);
        ASSERT_STR(f.access_key, S3_KEYS.access_key);
        ASSERT_STR(f.region, "us-east-1");
        ASSERT_STR(f.payload, i == 1 ? S3_PUT : KFS_SIGV4_EMPTY);
        ASSERT(!f.presigned);
        kfs_buf_release(&b);
    }
}

#define PRESIGNED                                                                                                                       \
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"                  \
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"                                                          \
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"

TEST(presigned)
{
    struct kfs_sigv4_header h[] = {S3_HOST};
    struct kfs_sigv4_request r = {.method = "GET", .path = "/test.txt", .headers = h, .header_count = 1};
    struct kfs_buf b;
    struct kfs_sigv4_found f;
    struct kfs_sigv4_verifier v = verifier(S3_AT + 86400);
    kfs_buf_init(&b);
    ASSERT_EQ(kfs_sigv4_presign(&r, &S3_SCOPE, &S3_KEYS, S3_AT, 86400, &b), 0);
    ASSERT_STR(kfs_buf_str(&b), PRESIGNED);
    r.query = kfs_buf_str(&b);
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_OK);
    ASSERT(f.presigned);
    ASSERT_STR(f.payload, KFS_SIGV4_UNSIGNED);
    v.now++;
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_EXPIRED);
    v.now = S3_AT - 1000;
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_SKEWED);
    v.now = S3_AT;
    r.path = "/other.txt";
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_WRONG);
    ASSERT_EQ(kfs_sigv4_presign(&r, &S3_SCOPE, &S3_KEYS, S3_AT, 0, &b), -EINVAL);
    ASSERT_EQ(kfs_sigv4_presign(&r, &S3_SCOPE, &S3_KEYS, S3_AT, 604801, &b), -EINVAL);
    kfs_buf_release(&b);
}

TEST(session_tokens_are_part_of_the_signature)
{
    static char token[] = "tok/en+=";
    struct kfs_sigv4_keys keys = {S3_KEYS.access_key, S3_KEYS.secret, token};
    struct kfs_sigv4_header h[6] = {S3_HOST, S3_DATE, {"x-amz-content-sha256", KFS_SIGV4_UNSIGNED}, {"x-amz-security-token", token}};
    struct kfs_sigv4_request r = {.method = "PUT", .path = "/a%20b", .query = "partNumber=1&uploadId=a%2Fb", .headers = h, .header_count = 4, .payload = KFS_SIGV4_UNSIGNED};
    struct kfs_buf b;
    struct kfs_sigv4_found f;
    struct kfs_sigv4_verifier v = verifier(S3_AT);
    v.arg = token;
    kfs_buf_init(&b);
    ASSERT_EQ(kfs_sigv4_sign(&r, &S3_SCOPE, &keys, S3_AT, &b), 0);
    h[r.header_count++] = (struct kfs_sigv4_header){"authorization", kfs_buf_str(&b)};
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_OK);
    h[3].value = "another";
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_UNKNOWN_KEY);
    h[3].value = token;
    h[5] = h[4];
    h[4] = (struct kfs_sigv4_header){"x-amz-meta-added", "later"};
    r.header_count = 6;
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_MALFORMED); /* what is not signed must not count */
    kfs_buf_clear(&b);
    r.header_count = 1;
    ASSERT_EQ(kfs_sigv4_presign(&r, &S3_SCOPE, &keys, S3_AT, 60, &b), 0);
    r.query = kfs_buf_str(&b);
    ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_OK);
    kfs_buf_release(&b);
}

TEST(bad_signatures_are_refused)
{
#define GOOD                                                                                                                                     \
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, " \
    "Signature="
#define SIGNATURE "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    static const struct { const char *authorization; enum kfs_sigv4_verdict verdict; time_t at; } ROWS[] = {
        {GOOD SIGNATURE, KFS_SIGV4_OK, S3_AT},
        {GOOD SIGNATURE, KFS_SIGV4_OK, S3_AT - 900},
        {GOOD SIGNATURE, KFS_SIGV4_SKEWED, S3_AT + 901},
        {GOOD SIGNATURE, KFS_SIGV4_SKEWED, S3_AT - 901},
        {GOOD "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb42", KFS_SIGV4_WRONG, S3_AT},
        {GOOD "f0e8", KFS_SIGV4_WRONG, S3_AT},
        {GOOD, KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS4-HMAC-SHA256", KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS4-HMAC-SHA256 ", KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS AKIAIOSFODNN7EXAMPLE:abc", KFS_SIGV4_MALFORMED, S3_AT},
        {"Basic abc", KFS_SIGV4_MALFORMED, S3_AT},
        {GOOD SIGNATURE ", Signature=" SIGNATURE, KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS4-HMAC-SHA256 Credential=nobody/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=" SIGNATURE,
         KFS_SIGV4_UNKNOWN_KEY, S3_AT},
        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/eu-west-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=" SIGNATURE,
         KFS_SIGV4_WRONG_SCOPE, S3_AT},
        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130523/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=" SIGNATURE,
         KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=" SIGNATURE,
         KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=x-amz-content-sha256;x-amz-date,Signature=" SIGNATURE,
         KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;other;x-amz-content-sha256;x-amz-date,Signature=" SIGNATURE,
         KFS_SIGV4_MALFORMED, S3_AT},
        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-date,Signature=" SIGNATURE,
         KFS_SIGV4_MALFORMED, S3_AT},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct kfs_sigv4_header h[] = {S3_HOST, {"Range", "bytes=0-9"}, {"x-amz-content-sha256", KFS_SIGV4_EMPTY}, S3_DATE, {"Authorization", ROWS[i].authorization}};
        struct kfs_sigv4_request r = {.method = "GET", .path = "/test.txt", .query = "", .headers = h, .header_count = 5};
        struct kfs_sigv4_found f;
        struct kfs_sigv4_verifier v = verifier(ROWS[i].at);
        enum kfs_sigv4_verdict verdict = kfs_sigv4_verify(&r, &v, &f);
        if (verdict != ROWS[i].verdict)
            KT_FAIL("row %zu: verdict %d, not %d", i, verdict, ROWS[i].verdict);
        r.header_count = 4;
        ASSERT_EQ(kfs_sigv4_verify(&r, &v, &f), KFS_SIGV4_ANONYMOUS);
    }
    struct kfs_sigv4_header h[KFS_SIGV4_HEADERS_MAX + 1];
    for (size_t i = 0; i < sizeof h / sizeof *h; i++)
        h[i] = (struct kfs_sigv4_header)S3_HOST;
    struct kfs_sigv4_request r = {.method = "GET", .path = "/%zz", .headers = h, .header_count = 1, .payload = KFS_SIGV4_EMPTY};
    struct kfs_buf b;
    kfs_buf_init(&b);
    ASSERT_EQ(kfs_sigv4_sign(&r, &S3_SCOPE, &S3_KEYS, S3_AT, &b), -EINVAL);
    r.path = "/";
    r.header_count = KFS_SIGV4_HEADERS_MAX + 1;
    ASSERT_EQ(kfs_sigv4_sign(&r, &S3_SCOPE, &S3_KEYS, S3_AT, &b), -E2BIG);
    kfs_buf_release(&b);
}

KT_MAIN
