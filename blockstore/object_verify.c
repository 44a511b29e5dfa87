#include "blockstore/object_verify.h"
#include "base/cleanup.h"
#include "blockstore/store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct image {
    const unsigned char *p;
    size_t len;
    struct kfs_store s; /* only what the readers of one object look at */
    struct kfs_blk_index *index;
};

static int image_open(const char *path, struct image *m, struct kfs_err *err)
{
    struct stat st;
    memset(m, 0, sizeof *m);
    kfs_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return KFS_FAIL(err, errno, "cannot read '%.250s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return KFS_FAIL(err, EINVAL, "'%.250s' is not a file", path);
    if (st.st_size < (off_t)(KFS_OBJECT_BYTES_MIN - 112))
        return KFS_FAIL(err, EIO, "'%.250s' is too short for an object", path);
    m->len = (size_t)st.st_size;
    void *p = mmap(NULL, m->len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return KFS_FAIL(err, errno, "cannot read '%.250s': %s", path, strerror(errno));
    m->p = p;
    m->s.url = (char *)(uintptr_t)path;
    return 0;
}

static void image_close(struct image *m)
{
    kfs_blk_index_unref(m->index);
    if (m->p)
        (void)munmap((void *)(uintptr_t)m->p, m->len);
}

static int image_peek(struct image *m, struct kfs_object_report *r, struct kfs_err *err)
{
    struct kfs_object_header h;
    struct kfs_object_trailer t;
    memset(r, 0, sizeof *r);
    memcpy(&h, m->p, sizeof h);
    r->bytes = m->len;
    if (memcmp(m->p + m->len - 8, KFS_OBJECT_END_MAGIC, 8) == 0 && m->len >= sizeof h + sizeof t) {
        memcpy(&t, m->p + m->len - sizeof t, sizeof t);
        r->version = KFS_OBJECT_VERSION;
        r->object = t.object;
        r->key_id = t.flags & KFS_OBJECT_SEALED ? t.key_id : 0;
        r->frames = t.frame_count;
        memcpy(r->volume, t.volume, sizeof t.volume);
    } else if (memcmp(m->p + m->len - 8, KFS_OBJECT1_END_MAGIC, 8) == 0) {
        r->version = 1;
        r->object = h.object;
        r->frames = h.flags;
        memcpy(r->volume, h.volume, sizeof h.volume);
    } else {
        return KFS_FAIL(err, EIO, "'%.250s' is no object, or cut off: it does not end as one", m->s.url);
    }
    r->volume[sizeof r->volume - 1] = 0;
    memcpy(m->s.volume, r->volume, sizeof m->s.volume);
    kfs_store_key(&m->s, r->object, r->key);
    return 0;
}

int kfs_object_peek(const char *path, struct kfs_object_report *ret, struct kfs_err *err)
{
    struct image m;
    int rc = image_open(path, &m, err);
    if (rc == 0)
        rc = image_peek(&m, ret, err);
    image_close(&m);
    return rc;
}

/* Header, index and trailer, and each frame. */
static int image_verify(struct image *m, struct kfs_keyring *keys, struct kfs_object_report *r, struct kfs_err *err)
{
    size_t need = 0;
    int rc = image_peek(m, r, err);
    if (rc < 0)
        return rc;
    m->s.keys = keys;
    rc = kfs_blk_index_parse(&m->s, r->object, m->p, m->len, m->len, &need, &m->index, err);
    kfs_auto_free void *plain = malloc(KFS_FRAME_BYTES);
    if (rc == 0 && !plain)
        rc = KFS_FAIL(err, ENOMEM, "cannot verify an object: out of memory");
    uint64_t last = 0;
    for (uint32_t i = 0; rc == 0 && i < m->index->count; i++) {
        const struct kfs_object_entry *e = &m->index->entries[i];
        rc = kfs_blk_frame_decode(&m->s, m->index, i, m->p + e->off, plain, err);
        r->zstd_frames += e->codec == KFS_CODEC_ZSTD;
        r->plain_bytes += e->plain_len;
        r->owners += e->ino != last || i == 0;
        last = e->ino;
    }
    return rc;
}

int kfs_object_verify(const char *path, struct kfs_keyring *keys, struct kfs_object_report *ret, struct kfs_err *err)
{
    struct image m;
    int rc = image_open(path, &m, err);
    if (rc == 0)
        rc = image_verify(&m, keys, ret, err);
    image_close(&m);
    return rc;
}

int kfs_object_each_frame(const char *path, struct kfs_keyring *keys, kfs_object_frame_cb cb, void *arg, struct kfs_err *err)
{
    struct image m;
    struct kfs_object_report r;
    int rc = image_open(path, &m, err);
    if (rc == 0)
        rc = image_verify(&m, keys, &r, err);
    for (uint32_t i = 0; rc == 0 && i < m.index->count; i++) {
        const struct kfs_object_entry *e = &m.index->entries[i];
        cb(arg, i, e->ino, e->file_off, e->plain_len, e->stored_len, e->codec == KFS_CODEC_ZSTD);
    }
    image_close(&m);
    return rc;
}
