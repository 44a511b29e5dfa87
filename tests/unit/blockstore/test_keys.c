/* test_keys.c — keys, secrets, sealed objects */
#include "blockstore/keys.h"
#include "blockstore/store.h"
#include "tests/unit/blockstore/store_util.h"
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

static const struct kfs_secret PASS = {"correct horse\n", 14}, SAME = {"correct horse", 13}, WRONG = {"wrong horse", 11}, SHORT = {"x", 1};

static struct kfs_secret pem(bool private, int bits)
{
    static EVP_PKEY *key;
    if (!key || EVP_PKEY_bits(key) != bits) {
        EVP_PKEY_free(key);
        key = EVP_RSA_gen((unsigned)bits);
    }
    BIO *b = BIO_new(BIO_s_mem());
    ASSERT(b && key);
    ASSERT(private ? PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) : PEM_write_bio_PUBKEY(b, key));
    char *data = NULL;
    long len = BIO_get_mem_data(b, &data);
    char *copy = malloc((size_t)len);
    memcpy(copy, data, (size_t)len);
    BIO_free(b);
    return (struct kfs_secret){copy, (size_t)len};
}

TEST(keys_passphrase)
{
    struct kfs_buf rec;
    struct kfs_keyring *k = NULL;
    kfs_buf_init(&rec);
    ASSERT_EQ(kfs_keys_create(VOLUME, &SHORT, &rec, &kerr), -EINVAL);
    ASSERT_OK(kfs_keys_create(VOLUME, &PASS, &rec, &kerr), kerr);
    ASSERT(!strstr(kfs_buf_str(&rec), "horse"));
    ASSERT_EQ(kfs_keys_open(VOLUME, kfs_buf_str(&rec), &WRONG, &k, &kerr), -EKEYREJECTED);
    ASSERT(!strstr(kerr.msg, "horse"));
    ASSERT_EQ(kfs_keys_open("another", kfs_buf_str(&rec), &PASS, &k, &kerr), -EINVAL);
    ASSERT_OK(kfs_keys_open(VOLUME, kfs_buf_str(&rec), &SAME, &k, &kerr), kerr); /* with or without the line break */
    ASSERT_EQ(kfs_keyring_current(k), 1);
    ASSERT(kfs_keyring_find(k, 1) && !kfs_keyring_find(k, 0) && !kfs_keyring_find(k, 2));
    kfs_keyring_free(k);
    kfs_buf_release(&rec);
}

TEST(keys_slots_and_rotation)
{
    struct kfs_buf a, b, c;
    struct kfs_keyring *k = NULL, *k2 = NULL;
    struct kfs_secret pub = pem(false, 2048), priv = pem(true, 2048);
    kfs_buf_init(&a), kfs_buf_init(&b), kfs_buf_init(&c);
    ASSERT_OK(kfs_keys_create(VOLUME, &PASS, &a, &kerr), kerr);
    ASSERT_EQ(kfs_keys_remove_slot(VOLUME, kfs_buf_str(&a), 1, &b, &kerr), -EBUSY);
    ASSERT_EQ(kfs_keys_add_slot(VOLUME, kfs_buf_str(&a), &WRONG, &pub, &b, &kerr), -EKEYREJECTED);
    ASSERT_OK(kfs_keys_add_slot(VOLUME, kfs_buf_str(&a), &PASS, &pub, &b, &kerr), kerr);
    ASSERT_EQ(kfs_keys_open(VOLUME, kfs_buf_str(&b), &pub, &k, &kerr), -EKEYREJECTED); /* the public part opens nothing */
    ASSERT_OK(kfs_keys_open(VOLUME, kfs_buf_str(&b), &priv, &k, &kerr), kerr);
    ASSERT_OK(kfs_keys_rotate(VOLUME, kfs_buf_str(&b), &priv, &c, &kerr), kerr);
    ASSERT_OK(kfs_keys_open(VOLUME, kfs_buf_str(&c), &PASS, &k2, &kerr), kerr);
    ASSERT_EQ(kfs_keyring_current(k2), 2);
    ASSERT(memcmp(kfs_keyring_find(k2, 1), kfs_keyring_find(k, 1), KFS_KEY_BYTES) == 0);
    ASSERT(memcmp(kfs_keyring_find(k2, 2), kfs_keyring_find(k, 1), KFS_KEY_BYTES) != 0);
    kfs_keyring_free(k2);
    kfs_buf_clear(&a);
    ASSERT_OK(kfs_keys_remove_slot(VOLUME, kfs_buf_str(&c), 1, &a, &kerr), kerr);
    ASSERT_EQ(kfs_keys_open(VOLUME, kfs_buf_str(&a), &PASS, &k2, &kerr), -EKEYREJECTED);
    ASSERT_OK(kfs_keys_open(VOLUME, kfs_buf_str(&a), &priv, &k2, &kerr), kerr);
    kfs_keyring_free(k);
    kfs_keyring_free(k2);
    free((void *)(uintptr_t)pub.data);
    free((void *)(uintptr_t)priv.data);
    kfs_buf_release(&a), kfs_buf_release(&b), kfs_buf_release(&c);
}

TEST(keys_damaged_record_is_refused)
{
    struct kfs_buf rec;
    struct kfs_keyring *k = NULL;
    kfs_buf_init(&rec);
    ASSERT_OK(kfs_keys_create(VOLUME, &PASS, &rec, &kerr), kerr);
    size_t keys = (size_t)(strstr(kfs_buf_str(&rec), "\nkey ") - kfs_buf_str(&rec));
    for (size_t i = 0; i + 1 < rec.len; i++) {
        /* scrypt for each letter would take a minute: of the long hex texts only some */
        if (i > 60 && i < keys && i % 61)
            continue;
        char was = rec.data[i];
        rec.data[i] = was == '7' ? '8' : '7';
        if (was != rec.data[i] && kfs_keys_open(VOLUME, kfs_buf_str(&rec), &PASS, &k, &kerr) == 0) {
            if (!strstr(kfs_buf_str(&rec), "slot 7") && !strstr(kfs_buf_str(&rec), "slot 17")) /* its number is a name */
                KT_FAIL("letter %zu ('%c') changed, and nobody noticed", i, was);
            kfs_keyring_free(k);
        }
        rec.data[i] = was;
    }
    static const char *const bad[] = {"", "kfs-keys 2\n", "kfs-keys 1\nvolume " VOLUME "\n", "kfs-keys 1\nvolume " VOLUME "\nslot 1 scrypt 60 8 1 00 00\n", "hello"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ASSERT_EQ(kfs_keys_open(VOLUME, bad[i], &PASS, &k, &kerr), -EINVAL);
    kfs_buf_release(&rec);
}

static void open_sealed(struct rig *r, const char *record)
{
    struct kfs_keyring *k = NULL;
    ASSERT_OK(kfs_keys_open(VOLUME, record, &PASS, &k, &kerr), kerr);
    kfs_store_close(r->s);
    struct kfs_store_options o = {.keys = k};
    ASSERT_OK(kfs_store_open_with(r->url, VOLUME, &o, &r->s, &kerr), kerr);
}

static void put_text(struct rig *r, size_t n)
{
    char *p = malloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = "a secret that shows "[i % 20];
    ASSERT_EQ(pwrite(r->fd, p, n, 0), (ssize_t)n);
    unsigned char noise[4096];
    fill_pattern(noise, sizeof noise, n);
    for (size_t at = 100000; at + 4096 < n; at += 300000)
        ASSERT_EQ(pwrite(r->fd, noise, sizeof noise, (off_t)at), 4096);
    free(p);
}

static bool file_contains(const char *path, const char *what)
{
    static char buf[16 << 20];
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, buf, sizeof buf);
    close(fd);
    return n < 0 || memmem(buf, (size_t)n, what, strlen(what)) != NULL;
}

TEST(sealed_objects)
{
    struct rig r;
    struct kfs_buf rec, rotated;
    char key[64], path[800];
    kfs_buf_init(&rec), kfs_buf_init(&rotated);
    rig_open(&r);
    ASSERT_OK(kfs_keys_create(VOLUME, &PASS, &rec, &kerr), kerr);
    open_sealed(&r, kfs_buf_str(&rec));
    put_text(&r, 9 << 20); /* a large object */
    rig_commit(&r, NULL);
    rig_compare(&r);
    open_sealed(&r, kfs_buf_str(&rec));
    rig_compare(&r);
    bool changed;
    ASSERT_EQ(rig_commit(&r, &changed), 0);
    ASSERT(!changed);
    ASSERT_OK(kfs_store_verify(r.s, 1, &kerr), kerr);
    kfs_store_key(r.s, 1, key);
    snprintf(path, sizeof path, "%s/store/o/%s", r.dir, key);
    ASSERT(!file_contains(path, "secret"));
    ASSERT(file_contains(path, VOLUME));
    /* a new key: what is old stays as it is, what is new has the new one */
    ASSERT_OK(kfs_keys_rotate(VOLUME, kfs_buf_str(&rec), &PASS, &rotated, &kerr), kerr);
    open_sealed(&r, kfs_buf_str(&rotated));
    ASSERT_EQ(pwrite(r.fd, "another", 7, 5), 7); /* the first frame changes: a pack */
    ASSERT_EQ(rig_commit(&r, NULL), 1);
    rig_compare(&r);
    kfs_store_key(r.s, r.next_id, key);
    snprintf(path, sizeof path, "%s/store/o/%s", r.dir, key);
    ASSERT(!file_contains(path, "secret"));
    /* without keys, or with the old ones alone */
    rig_reopen(&r);
    snprintf(path, sizeof path, "%s/copy", r.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    ASSERT_EQ(kfs_store_fill(r.s, &r.c, fd, &kerr), -ENOKEY);
    open_sealed(&r, kfs_buf_str(&rec));
    ASSERT_EQ(kfs_store_fill(r.s, &r.c, fd, &kerr), -ENOKEY);
    ASSERT(strstr(kerr.msg, "key 2"));
    close(fd);
    kfs_buf_release(&rec), kfs_buf_release(&rotated);
    rig_close(&r);
}

TEST(sealed_objects_show_every_change)
{
    struct rig r;
    struct kfs_buf rec;
    char key[64], path[800];
    static unsigned char object[1 << 16];
    kfs_buf_init(&rec);
    rig_open(&r);
    ASSERT_OK(kfs_keys_create(VOLUME, &PASS, &rec, &kerr), kerr);
    open_sealed(&r, kfs_buf_str(&rec));
    put_text(&r, 6000);
    ASSERT_EQ(rig_commit(&r, NULL), 1);
    kfs_store_key(r.s, 1, key);
    snprintf(path, sizeof path, "%s/store/o/%s", r.dir, key);
    int fd = open(path, O_RDWR);
    ssize_t n = read(fd, object, sizeof object);
    ASSERT(n > 300 && n < 6000); /* compressed */
    for (ssize_t i = 0; i < n; i++) {
        unsigned char b = object[i] ^ 1;
        ASSERT(pwrite(fd, &b, 1, i) == 1);
        if (kfs_store_verify(r.s, 1, &kerr) == 0)
            KT_FAIL("byte %zd flipped, and nobody noticed", i);
        ASSERT(pwrite(fd, &object[i], 1, i) == 1);
    }
    ASSERT_OK(kfs_store_verify(r.s, 1, &kerr), kerr);
    close(fd);
    kfs_buf_release(&rec);
    rig_close(&r);
}

KT_MAIN
