/* blockstore/seal.c — AES-256-GCM for frames and indexes (see blockstore/object.h) */
#include "blockstore/store.h"
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>
#include <sys/random.h>

#define NONCE_BYTES 12

int kfs_blk_random(void *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = getrandom((char *)buf + done, len - done, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    return 0;
}

int kfs_blk_object_key(const uint8_t data_key[KFS_KEY_BYTES], const uint8_t salt[KFS_SALT_BYTES],
                       uint64_t object, const char volume[KFS_VOLUME_ID_MAX + 1],
                       uint8_t ret_key[KFS_KEY_BYTES])
{
    static const char what[] = "kfs object 2";
    uint8_t info[sizeof what - 1 + sizeof object + KFS_VOLUME_ID_MAX + 1], *at = info;
    at = (uint8_t *)mempcpy(at, what, sizeof what - 1);
    at = (uint8_t *)mempcpy(at, &object, sizeof object);
    memcpy(at, volume, KFS_VOLUME_ID_MAX + 1);
    char digest[] = "SHA256";
    uint8_t key[KFS_KEY_BYTES], s[KFS_SALT_BYTES];
    memcpy(key, data_key, sizeof key); /* the parameters are not const, though nothing writes them */
    memcpy(s, salt, sizeof s);
    OSSL_PARAM p[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, sizeof key),
                      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, s, sizeof s),
                      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info),
                      OSSL_PARAM_construct_end()};
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *c = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    int ok = c && EVP_KDF_derive(c, ret_key, KFS_KEY_BYTES, p) == 1;
    EVP_KDF_CTX_free(c);
    EVP_KDF_free(kdf);
    explicit_bzero(key, sizeof key);
    return ok ? 0 : -EIO;
}

static void nonce_of(uint32_t number, uint8_t nonce[NONCE_BYTES])
{
    memset(nonce, 0, NONCE_BYTES);
    memcpy(nonce, &number, sizeof number);
}

int kfs_blk_seal(const uint8_t key[KFS_KEY_BYTES], uint32_t number, const void *aad, size_t aad_len,
                 const void *in, size_t len, void *out)
{
    uint8_t nonce[NONCE_BYTES];
    int n = 0;
    nonce_of(number, nonce);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int ok = c && EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce) == 1;
    if (ok && aad_len)
        ok = EVP_EncryptUpdate(c, NULL, &n, aad, (int)aad_len) == 1;
    ok = ok && EVP_EncryptUpdate(c, out, &n, in, (int)len) == 1 && n == (int)len &&
         EVP_EncryptFinal_ex(c, (uint8_t *)out + len, &n) == 1 &&
         EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, KFS_TAG_BYTES, (uint8_t *)out + len) == 1;
    EVP_CIPHER_CTX_free(c);
    return ok ? 0 : -EIO;
}

int kfs_blk_unseal(const uint8_t key[KFS_KEY_BYTES], uint32_t number, const void *aad,
                   size_t aad_len, const void *in, size_t sealed_len, void *out)
{
    if (sealed_len < KFS_TAG_BYTES)
        return -EIO;
    uint8_t nonce[NONCE_BYTES], tag[KFS_TAG_BYTES];
    size_t len = sealed_len - KFS_TAG_BYTES;
    int n = 0;
    nonce_of(number, nonce);
    memcpy(tag, (const uint8_t *)in + len, sizeof tag);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int ok = c && EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce) == 1;
    if (ok && aad_len)
        ok = EVP_DecryptUpdate(c, NULL, &n, aad, (int)aad_len) == 1;
    ok = ok && EVP_DecryptUpdate(c, out, &n, in, (int)len) == 1 && n == (int)len &&
         EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, KFS_TAG_BYTES, tag) == 1 &&
         EVP_DecryptFinal_ex(c, (uint8_t *)out + len, &n) == 1;
    EVP_CIPHER_CTX_free(c);
    return ok ? 0 : -EIO;
}
