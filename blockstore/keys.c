/* blockstore/keys.c — data keys and what unlocks them (docs/format.md has the record) */
#include "blockstore/keys.h"
#include "base/cleanup.h"
#include "blockstore/store.h"
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MAX      64
#define KEYS_MAX       256
#define SEALED_BYTES   (KFS_KEY_BYTES + KFS_TAG_BYTES)
#define WRAPPED_MAX    1024 /* RSA of 8192 bits */
#define SCRYPT_LOG_N   15u
#define SCRYPT_R       8u
#define SCRYPT_P       1u
#define SCRYPT_MEM_MAX (256u << 20)

struct slot {
    uint32_t number;
    bool rsa;
    uint32_t log_n, r, p;
    uint8_t salt[KFS_SALT_BYTES]; /* of RSA: the fingerprint of the public key */
    uint8_t wrapped[WRAPPED_MAX];
    size_t wrapped_len;
};

struct record {
    const char *volume;
    struct slot slots[SLOTS_MAX];
    uint32_t slot_count, key_count; /* keys have the ids 1 to key_count */
    uint8_t keys[KEYS_MAX][SEALED_BYTES];
};

struct kfs_keyring {
    uint32_t count; /* ids 1 to count */
    uint8_t keys[][KFS_KEY_BYTES];
};

const uint8_t *kfs_keyring_find(const struct kfs_keyring *k, uint32_t id)
{
    return k && id >= 1 && id <= k->count ? k->keys[id - 1] : NULL;
}

uint32_t kfs_keyring_current(const struct kfs_keyring *k)
{
    return k->count;
}

void kfs_keyring_free(struct kfs_keyring *k)
{
    if (!k)
        return;
    explicit_bzero(k->keys, k->count * sizeof k->keys[0]);
    free(k);
}

/* --- text ----------------------------------------------------------------------------------------- */

static int bad_record(const char *what, struct kfs_err *err)
{
    return KFS_FAIL(err, EINVAL, "the volume's keys are damaged: %s; restore them from the copy '" KFS_KEYS_KEY "' in the store", what);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* How many bytes; -1: not hex, or more than cap. */
static ssize_t from_hex(const char *s, uint8_t *out, size_t cap)
{
    size_t n = strlen(s);
    if (n % 2 || n / 2 > cap)
        return -1;
    for (size_t i = 0; i < n / 2; i++) {
        int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return -1;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return (ssize_t)(n / 2);
}

static void add_hex(struct kfs_buf *b, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)kfs_buf_printf(b, "%02x", p[i]);
}

static const char *parse_slot(struct record *r, char *line)
{
    char kind[8] = "", a[2 * KFS_SALT_BYTES + 1] = "", w[2 * WRAPPED_MAX + 1] = "";
    if (r->slot_count == SLOTS_MAX)
        return "too many slots";
    struct slot *s = &r->slots[r->slot_count];
    *s = (struct slot){0};
    static_assert(KFS_SALT_BYTES == 32 && WRAPPED_MAX == 1024, "the widths in the formats below");
    if (sscanf(line, "slot %u %7s", &s->number, kind) != 2 || s->number == 0)
        return "a slot without a number";
    s->rsa = strcmp(kind, "rsa") == 0;
    int n = s->rsa ? sscanf(line, "slot %*u rsa %64s %2048s", a, w) + 3
                   : sscanf(line, "slot %*u scrypt %u %u %u %64s %2048s", &s->log_n, &s->r, &s->p, a, w);
    ssize_t len = from_hex(w, s->wrapped, sizeof s->wrapped);
    if (n != 5 || from_hex(a, s->salt, sizeof s->salt) != KFS_SALT_BYTES || len <= 0 || (!s->rsa && len != SEALED_BYTES))
        return "a slot that cannot be read";
    if (!s->rsa && (s->log_n < 10 || s->log_n > 24 || s->r < 1 || s->r > 64 || s->p < 1 || s->p > 64 ||
                    (128ULL * s->r << s->log_n) > SCRYPT_MEM_MAX))
        return "a slot with impossible costs";
    s->wrapped_len = (size_t)len;
    r->slot_count++;
    return NULL;
}

static const char *parse_key(struct record *r, const char *line)
{
    uint32_t id = 0;
    char w[2 * SEALED_BYTES + 1] = "";
    static_assert(SEALED_BYTES == 48, "the width in the format below");
    if (sscanf(line, "key %u %96s", &id, w) != 2 || id != r->key_count + 1 || id > KEYS_MAX ||
        from_hex(w, r->keys[id - 1], SEALED_BYTES) != SEALED_BYTES)
        return "a key that cannot be read";
    r->key_count++;
    return NULL;
}

static int record_parse(const char *volume_id, const char *text, struct record *r, struct kfs_err *err)
{
    const char *fault = NULL;
    unsigned version = 0;
    bool named = false;
    kfs_auto_free char *copy = strdup(text);
    char *save = NULL;
    if (!copy)
        return KFS_FAIL(err, ENOMEM, "cannot read the volume's keys: out of memory");
    *r = (struct record){.volume = volume_id};
    for (char *line = strtok_r(copy, "\n", &save); line && !fault; line = strtok_r(NULL, "\n", &save)) {
        if (version == 0) {
            if (sscanf(line, "kfs-keys %u", &version) != 1 || version == 0)
                fault = "they do not start as keys";
            else if (version > 1)
                return KFS_FAIL(err, EINVAL, "the volume's keys have format %u, this version knows 1; use a newer KFS", version);
        } else if (strncmp(line, "volume ", 7) == 0) {
            named = strcmp(line + 7, volume_id) == 0;
            if (!named)
                fault = "they belong to another volume";
        } else if (strncmp(line, "slot ", 5) == 0) {
            fault = parse_slot(r, line);
        } else if (strncmp(line, "key ", 4) == 0) {
            fault = parse_key(r, line);
        } else {
            fault = "a line of unknown meaning";
        }
    }
    if (!fault && (!named || r->slot_count == 0 || r->key_count == 0))
        fault = "they are cut off";
    return fault ? bad_record(fault, err) : 0;
}

static int record_print(const struct record *r, struct kfs_buf *b, struct kfs_err *err)
{
    (void)kfs_buf_printf(b, "kfs-keys 1\nvolume %s\n", r->volume);
    for (uint32_t i = 0; i < r->slot_count; i++) {
        const struct slot *s = &r->slots[i];
        if (s->rsa)
            (void)kfs_buf_printf(b, "slot %u rsa ", s->number);
        else
            (void)kfs_buf_printf(b, "slot %u scrypt %u %u %u ", s->number, s->log_n, s->r, s->p);
        add_hex(b, s->salt, sizeof s->salt);
        (void)kfs_buf_append_str(b, " ");
        add_hex(b, s->wrapped, s->wrapped_len);
        (void)kfs_buf_append_str(b, "\n");
    }
    for (uint32_t i = 0; i < r->key_count; i++) {
        (void)kfs_buf_printf(b, "key %u ", i + 1);
        add_hex(b, r->keys[i], SEALED_BYTES);
        (void)kfs_buf_append_str(b, "\n");
    }
    return b->failed ? KFS_FAIL(err, ENOMEM, "cannot write the volume's keys: out of memory") : 0;
}

/* --- secrets -------------------------------------------------------------------------------------- */

static bool is_pem(const struct kfs_secret *s)
{
    return s->len > 11 && memmem(s->data, s->len, "-----BEGIN ", 11) != NULL;
}

/* A passphrase without its line break. */
static size_t pass_len(const struct kfs_secret *s)
{
    size_t n = s->len;
    while (n && (s->data[n - 1] == '\n' || s->data[n - 1] == '\r'))
        n--;
    return n;
}

static int no_pem_password(char *buf, int size, int rw, void *arg)
{
    (void)buf, (void)size, (void)rw, (void)arg;
    return 0; /* never ask: kfsd has no terminal */
}

static EVP_PKEY *pem_key(const struct kfs_secret *s, bool private)
{
    BIO *b = BIO_new_mem_buf(s->data, (int)s->len);
    EVP_PKEY *k = b ? PEM_read_bio_PrivateKey(b, NULL, no_pem_password, NULL) : NULL;
    BIO_free(b);
    if (!k && !private && (b = BIO_new_mem_buf(s->data, (int)s->len))) {
        k = PEM_read_bio_PUBKEY(b, NULL, no_pem_password, NULL);
        BIO_free(b);
    }
    if (k && EVP_PKEY_base_id(k) != EVP_PKEY_RSA) {
        EVP_PKEY_free(k);
        k = NULL;
    }
    return k;
}

/* SHA-256 of the public key's DER form. */
static int fingerprint(EVP_PKEY *k, uint8_t ret[KFS_SALT_BYTES])
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(k, &der);
    int ok = len > 0 && EVP_Digest(der, (size_t)len, ret, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return ok ? 0 : -EIO;
}

/* seal: master to out; else the reverse. */
static int rsa_oaep(EVP_PKEY *k, bool seal, const uint8_t *in, size_t in_len, uint8_t *out, size_t *len)
{
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(k, NULL);
    int ok = c && (seal ? EVP_PKEY_encrypt_init(c) : EVP_PKEY_decrypt_init(c)) == 1 && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_oaep_md(c, EVP_sha256()) == 1 &&
             (seal ? EVP_PKEY_encrypt(c, out, len, in, in_len) : EVP_PKEY_decrypt(c, out, len, in, in_len)) == 1;
    EVP_PKEY_CTX_free(c);
    return ok ? 0 : -EKEYREJECTED;
}

static int scrypt_kek(const struct slot *s, const struct kfs_secret *secret, uint8_t kek[KFS_KEY_BYTES])
{
    size_t n = pass_len(secret);
    return n && EVP_PBE_scrypt(secret->data, n, s->salt, sizeof s->salt, 1ULL << s->log_n, s->r, s->p, SCRYPT_MEM_MAX + (1u << 20), kek, KFS_KEY_BYTES) == 1
               ? 0
               : -EKEYREJECTED;
}

static int slot_open(const struct record *r, const struct slot *s, const struct kfs_secret *secret, uint8_t master[KFS_KEY_BYTES])
{
    if (s->rsa != is_pem(secret))
        return -EKEYREJECTED;
    if (!s->rsa) {
        uint8_t kek[KFS_KEY_BYTES];
        int rc = scrypt_kek(s, secret, kek);
        if (rc == 0 && kfs_blk_unseal(kek, 0, r->volume, strlen(r->volume), s->wrapped, s->wrapped_len, master) < 0)
            rc = -EKEYREJECTED;
        explicit_bzero(kek, sizeof kek);
        return rc;
    }
    EVP_PKEY *k = pem_key(secret, true);
    uint8_t out[WRAPPED_MAX], print[KFS_SALT_BYTES];
    size_t len = sizeof out;
    int rc = k && fingerprint(k, print) == 0 && memcmp(print, s->salt, sizeof print) == 0 ? 0 : -EKEYREJECTED;
    if (rc == 0)
        rc = rsa_oaep(k, false, s->wrapped, s->wrapped_len, out, &len);
    if (rc == 0 && len != KFS_KEY_BYTES)
        rc = -EKEYREJECTED;
    if (rc == 0)
        memcpy(master, out, KFS_KEY_BYTES);
    explicit_bzero(out, sizeof out);
    EVP_PKEY_free(k);
    return rc;
}

static int master_open(const struct record *r, const struct kfs_secret *secret, uint8_t master[KFS_KEY_BYTES], struct kfs_err *err)
{
    for (uint32_t i = 0; i < r->slot_count; i++)
        if (slot_open(r, &r->slots[i], secret, master) == 0)
            return 0;
    return KFS_FAIL(err, EKEYREJECTED, "the %s given opens none of the volume's %u slots; give the right one",
                    is_pem(secret) ? "RSA key" : "passphrase", r->slot_count);
}

static int slot_add(struct record *r, const struct kfs_secret *secret, const uint8_t master[KFS_KEY_BYTES], struct kfs_err *err)
{
    if (r->slot_count == SLOTS_MAX)
        return KFS_FAIL(err, ENOSPC, "the volume has %d slots already; remove one", SLOTS_MAX);
    struct slot *s = &r->slots[r->slot_count];
    *s = (struct slot){.number = 1, .rsa = is_pem(secret)};
    for (uint32_t i = 0; i < r->slot_count; i++)
        if (r->slots[i].number >= s->number)
            s->number = r->slots[i].number + 1;
    if (s->rsa) {
        EVP_PKEY *k = pem_key(secret, false);
        s->wrapped_len = sizeof s->wrapped;
        int rc = k && EVP_PKEY_bits(k) >= 2048 && EVP_PKEY_size(k) <= WRAPPED_MAX && fingerprint(k, s->salt) == 0
                     ? rsa_oaep(k, true, master, KFS_KEY_BYTES, s->wrapped, &s->wrapped_len)
                     : -EINVAL;
        EVP_PKEY_free(k);
        if (rc < 0)
            return KFS_FAIL(err, EINVAL, "the PEM text holds no usable RSA key; give one of 2048 to 8192 bits, without a password of its own");
    } else {
        uint8_t kek[KFS_KEY_BYTES];
        s->log_n = SCRYPT_LOG_N;
        s->r = SCRYPT_R;
        s->p = SCRYPT_P;
        s->wrapped_len = SEALED_BYTES;
        if (pass_len(secret) < 8)
            return KFS_FAIL(err, EINVAL, "the passphrase is too short; it needs 8 characters or more");
        if (kfs_blk_random(s->salt, sizeof s->salt) < 0 || scrypt_kek(s, secret, kek) < 0 ||
            kfs_blk_seal(kek, 0, r->volume, strlen(r->volume), master, KFS_KEY_BYTES, s->wrapped) < 0)
            return KFS_FAIL(err, EIO, "cannot encrypt the volume's keys");
        explicit_bzero(kek, sizeof kek);
    }
    r->slot_count++;
    return 0;
}

static int key_add(struct record *r, const uint8_t master[KFS_KEY_BYTES], struct kfs_err *err)
{
    uint8_t key[KFS_KEY_BYTES];
    if (r->key_count == KEYS_MAX)
        return KFS_FAIL(err, ENOSPC, "the volume has %d keys already", KEYS_MAX);
    int rc = kfs_blk_random(key, sizeof key);
    if (rc == 0)
        rc = kfs_blk_seal(master, r->key_count + 1, r->volume, strlen(r->volume), key, sizeof key, r->keys[r->key_count]);
    explicit_bzero(key, sizeof key);
    if (rc < 0)
        return KFS_FAIL(err, EIO, "cannot make a key for the volume");
    r->key_count++;
    return 0;
}

/* --- the interface --------------------------------------------------------------------------------- */

int kfs_keys_create(const char *volume_id, const struct kfs_secret *secret, struct kfs_buf *ret, struct kfs_err *err)
{
    kfs_auto_free struct record *r = calloc(1, sizeof *r);
    uint8_t master[KFS_KEY_BYTES];
    if (!r || kfs_blk_random(master, sizeof master) < 0)
        return KFS_FAIL(err, ENOMEM, "cannot make keys for the volume");
    r->volume = volume_id;
    int rc = slot_add(r, secret, master, err);
    if (rc == 0)
        rc = key_add(r, master, err);
    explicit_bzero(master, sizeof master);
    return rc < 0 ? rc : record_print(r, ret, err);
}

static int opened(const char *volume_id, const char *text, const struct kfs_secret *secret, struct record *r, uint8_t master[KFS_KEY_BYTES],
                  struct kfs_err *err)
{
    int rc = r ? record_parse(volume_id, text, r, err) : KFS_FAIL(err, ENOMEM, "cannot read the volume's keys: out of memory");
    return rc < 0 ? rc : master_open(r, secret, master, err);
}

int kfs_keys_open(const char *volume_id, const char *record, const struct kfs_secret *secret, struct kfs_keyring **ret, struct kfs_err *err)
{
    kfs_auto_free struct record *r = calloc(1, sizeof *r);
    uint8_t master[KFS_KEY_BYTES];
    int rc = opened(volume_id, record, secret, r, master, err);
    if (rc < 0)
        return rc;
    struct kfs_keyring *k = calloc(1, sizeof *k + r->key_count * sizeof k->keys[0]);
    if (!k)
        rc = KFS_FAIL(err, ENOMEM, "cannot read the volume's keys: out of memory");
    for (uint32_t i = 0; rc == 0 && i < r->key_count; i++) {
        k->count = i + 1;
        if (kfs_blk_unseal(master, i + 1, volume_id, strlen(volume_id), r->keys[i], SEALED_BYTES, k->keys[i]) < 0)
            rc = bad_record("a key cannot be decrypted", err);
    }
    explicit_bzero(master, sizeof master);
    if (rc < 0) {
        kfs_keyring_free(k);
        return rc;
    }
    *ret = k;
    return 0;
}

int kfs_keys_add_slot(const char *volume_id, const char *record, const struct kfs_secret *opener, const struct kfs_secret *secret, struct kfs_buf *ret,
                      struct kfs_err *err)
{
    kfs_auto_free struct record *r = calloc(1, sizeof *r);
    uint8_t master[KFS_KEY_BYTES];
    int rc = opened(volume_id, record, opener, r, master, err);
    if (rc == 0)
        rc = slot_add(r, secret, master, err);
    explicit_bzero(master, sizeof master);
    return rc < 0 ? rc : record_print(r, ret, err);
}

int kfs_keys_remove_slot(const char *volume_id, const char *record, uint32_t slot, struct kfs_buf *ret, struct kfs_err *err)
{
    kfs_auto_free struct record *r = calloc(1, sizeof *r);
    int rc = r ? record_parse(volume_id, record, r, err) : KFS_FAIL(err, ENOMEM, "cannot read the volume's keys: out of memory");
    if (rc < 0)
        return rc;
    uint32_t i = 0;
    while (i < r->slot_count && r->slots[i].number != slot)
        i++;
    if (i == r->slot_count)
        return KFS_FAIL(err, ENOENT, "the volume has no slot %u; 'kfs key list' shows them", slot);
    if (r->slot_count == 1)
        return KFS_FAIL(err, EBUSY, "slot %u is the last one: without it nothing could be read any more; add another first", slot);
    memmove(&r->slots[i], &r->slots[i + 1], (r->slot_count - i - 1) * sizeof r->slots[0]);
    r->slot_count--;
    return record_print(r, ret, err);
}

int kfs_keys_rotate(const char *volume_id, const char *record, const struct kfs_secret *opener, struct kfs_buf *ret, struct kfs_err *err)
{
    kfs_auto_free struct record *r = calloc(1, sizeof *r);
    uint8_t master[KFS_KEY_BYTES];
    int rc = opened(volume_id, record, opener, r, master, err);
    if (rc == 0)
        rc = key_add(r, master, err);
    explicit_bzero(master, sizeof master);
    return rc < 0 ? rc : record_print(r, ret, err);
}

int kfs_keys_each(const char *volume_id, const char *record, kfs_keys_each_cb cb, void *arg, struct kfs_err *err)
{
    kfs_auto_free struct record *r = calloc(1, sizeof *r);
    int rc = r ? record_parse(volume_id, record, r, err) : KFS_FAIL(err, ENOMEM, "cannot read the volume's keys: out of memory");
    if (rc < 0)
        return rc;
    char what[100];
    for (uint32_t i = 0; i < r->slot_count; i++) {
        const struct slot *s = &r->slots[i];
        size_t n = (size_t)snprintf(what, sizeof what, "%s", s->rsa ? "rsa " : "scrypt");
        for (size_t k = 0; s->rsa && k < 16; k++)
            n += (size_t)snprintf(what + n, sizeof what - n, "%02x", s->salt[k]);
        cb(arg, s->number, what);
    }
    for (uint32_t i = 0; i < r->key_count; i++) {
        snprintf(what, sizeof what, "key %u", i + 1);
        cb(arg, 0, what);
    }
    return 0;
}
