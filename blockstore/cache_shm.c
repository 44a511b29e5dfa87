/* blockstore/cache_shm.c — the writer of the segment
 *
 * The segment is a memfd that was mapped for writing once and then sealed: F_SEAL_FUTURE_WRITE lets
 * this mapping live on and refuses every other way to write, whoever holds a descriptor and
 * whatever his rights. SHRINK and GROW are sealed so that no reader ever gets SIGBUS. When a row
 * was written last is kept in private memory: readers have no use for it, and cannot disturb it.
 */
#include "blockstore/cache_shm.h"
#include "base/pure/shm_layout.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define TABLES_OFF 4096u /* the header has a page for itself: heartbeats do not dirty rows */

enum { DENT, ATTR, LINK, LIST, TABLES };
static const size_t row_bytes[TABLES] = {sizeof(struct kfs_shm_dent), sizeof(struct kfs_shm_attr),
                                         sizeof(struct kfs_shm_link), sizeof(struct kfs_shm_list)};

/* The listings in the ring, oldest first: whoever writes over one takes its row away first. */
struct placed {
    uint64_t dir, off, bytes;
};

struct kfs_shm {
    struct kfs_shm_header *h;
    size_t bytes;
    int reader_fd;
    pthread_mutex_t lock; /* guards all below, and every row */
    uint64_t stamp;
    char *rows[TABLES];
    uint64_t buckets[TABLES];
    uint64_t *stamps[TABLES]; /* one a row */
    char *ring;
    uint64_t ring_bytes, ring_at; /* where the next listing goes */
    struct placed *placed;        /* circular */
    size_t placed_cap, placed_first, placed_count;
};

/* --- making it -------------------------------------------------------------------------------- */

static int make_memfd(size_t bytes, struct kfs_err *err)
{
    int fd = memfd_create("kfs-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return KFS_FAIL(
            err, errno,
            "cannot create shared memory (memfd_create): %s; KFS needs a kernel that permits it",
            strerror(errno));
    if (ftruncate(fd, (off_t)bytes) < 0) {
        int rc =
            KFS_FAIL(err, errno, "cannot give shared memory %zu bytes: %s", bytes, strerror(errno));
        close(fd);
        return rc;
    }
    return fd;
}

/* Nobody but the mapping h may write from here on. *ret_fd: the descriptor to pass to readers. */
static int seal(int fd, int *ret_fd, struct kfs_err *err)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) < 0)
        return KFS_FAIL(err, errno, "cannot seal shared memory: %s; KFS needs Linux 5.1 or newer",
                        strerror(errno));
    if (fchmod(fd, 0444) < 0)
        return KFS_FAIL(err, errno, "cannot make shared memory read-only: %s", strerror(errno));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*ret_fd < 0)
        return KFS_FAIL(err, errno, "cannot reopen shared memory through '%s': %s; mount /proc",
                        path, strerror(errno));
    return 0;
}

static int map_segment(struct kfs_shm *s, struct kfs_err *err)
{
    int fd = make_memfd(s->bytes, err);
    if (fd < 0)
        return fd;
    int rc = 0;
    void *p = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        rc = KFS_FAIL(err, errno, "cannot map shared memory: %s", strerror(errno));
    else
        s->h = p;
    if (rc == 0)
        rc = seal(fd, &s->reader_fd, err);
    close(fd);
    return rc;
}

static void write_header(struct kfs_shm *s, uint64_t epoch, const uint64_t rows[TABLES])
{
    uint64_t off[TABLES], at = TABLES_OFF;
    for (int t = 0; t < TABLES; t++) {
        off[t] = at;
        at += rows[t] * row_bytes[t];
        s->rows[t] = (char *)s->h + off[t];
        s->buckets[t] = rows[t] / KFS_SHM_WAYS;
    }
    s->ring = (char *)s->h + at;
    *s->h = (struct kfs_shm_header){
        .magic = KFS_SHM_MAGIC,
        .version = KFS_SHM_VERSION,
        .header_bytes = sizeof *s->h,
        .epoch = epoch,
        .dent_off = off[DENT],
        .attr_off = off[ATTR],
        .link_off = off[LINK],
        .dent_rows = rows[DENT],
        .attr_rows = rows[ATTR],
        .link_rows = rows[LINK],
        .list_off = off[LIST],
        .list_rows = rows[LIST],
        .ring_off = at,
        .ring_bytes = s->ring_bytes,
        .segment_bytes = s->bytes,
    };
}

static bool rows_ok(uint64_t n)
{
    return n >= KFS_SHM_WAYS && !(n & (n - 1)) && n <= 1ULL << 32;
}

int kfs_shm_create(uint64_t epoch, const struct kfs_shm_sizes *z, struct kfs_shm **ret_s, struct kfs_err *err)
{
    const uint64_t rows[TABLES] = {z->dent_rows, z->attr_rows, z->link_rows, z->list_rows};
    struct kfs_shm *s = calloc(1, sizeof *s);
    if (!s)
        return KFS_FAIL(err, ENOMEM, "cannot create shared memory: out of memory");
    s->reader_fd = -1;
    s->bytes = TABLES_OFF;
    pthread_mutex_init(&s->lock, NULL);
    int rc = 0;
    for (int t = 0; t < TABLES && rc == 0; t++) {
        if (!rows_ok(rows[t])) {
            rc = KFS_FAIL(err, EINVAL, "%llu rows of shared memory: not a power of two from %u on",
                          (unsigned long long)rows[t], KFS_SHM_WAYS);
            break;
        }
        s->bytes += rows[t] * row_bytes[t];
        s->stamps[t] = calloc(rows[t], sizeof *s->stamps[t]);
        if (!s->stamps[t])
            rc = KFS_FAIL(err, ENOMEM, "cannot create shared memory: out of memory");
    }
    s->ring_bytes = z->ring_bytes & ~(uint64_t)63;
    s->bytes += s->ring_bytes;
    s->placed_cap = rc == 0 ? 2 * rows[LIST] : 0;
    if (rc == 0 && !(s->placed = calloc(s->placed_cap, sizeof *s->placed)))
        rc = KFS_FAIL(err, ENOMEM, "cannot create shared memory: out of memory");
    if (rc == 0)
        rc = map_segment(s, err);
    if (rc < 0) {
        kfs_shm_free(s);
        return rc;
    }
    write_header(s, epoch, rows);
    *ret_s = s;
    return 0;
}

void kfs_shm_free(struct kfs_shm *s)
{
    if (!s)
        return;
    if (s->h)
        munmap(s->h, s->bytes);
    if (s->reader_fd >= 0)
        close(s->reader_fd);
    for (int t = 0; t < TABLES; t++)
        free(s->stamps[t]);
    free(s->placed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int kfs_shm_reader_fd(struct kfs_shm *s)
{
    return s->reader_fd;
}

const struct kfs_shm_header *kfs_shm_header(const struct kfs_shm *s)
{
    return s->h;
}

void kfs_shm_beat(struct kfs_shm *s, uint64_t now_ns)
{
    __atomic_store_n(&s->h->beat_ns, now_ns, __ATOMIC_RELEASE);
}

/* --- rows ------------------------------------------------------------------------------------- */

/* Replace the row's payload (all but its sequence word) by that of `image`. */
static void row_write_locked(void *row, const void *image, size_t bytes)
{
    uint32_t *seq = row;
    uint32_t before = *seq; /* this thread holds the lock: nobody else writes */
    __atomic_store_n(seq, before + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)row + sizeof *seq, (const char *)image + sizeof *seq, bytes - sizeof *seq);
    __atomic_store_n(seq, before + 2, __ATOMIC_RELEASE);
}

/* What the row says, compared with the key: does it hold it? And: is it free? */
struct key {
    uint64_t hash; /* chooses the bucket */
    uint64_t ino;  /* attr, link, list: the inode; dent: the parent */
    const char *name;
    size_t len;
};

static bool row_is(int table, const void *row, const struct key *k)
{
    if (table == DENT) {
        const struct kfs_shm_dent *d = row;
        return d->state != KFS_DENT_EMPTY && d->hash == k->hash && d->parent == k->ino &&
               d->name_len == k->len && memcmp(d->name, k->name, k->len) == 0;
    }
    if (table == ATTR) {
        const struct kfs_shm_attr *a = row;
        return a->state && a->attr.ino == k->ino;
    }
    if (table == LIST) {
        const struct kfs_shm_list *l = row;
        return l->state && l->dir == k->ino;
    }
    const struct kfs_shm_link *l = row;
    return l->state && l->ino == k->ino;
}

static bool row_is_empty(int table, const void *row)
{
    if (table == DENT)
        return ((const struct kfs_shm_dent *)row)->state == KFS_DENT_EMPTY;
    if (table == ATTR)
        return ((const struct kfs_shm_attr *)row)->state == 0;
    if (table == LIST)
        return ((const struct kfs_shm_list *)row)->state == 0;
    return ((const struct kfs_shm_link *)row)->state == 0;
}

/* Write image (NULL: an empty row) where the key is; for a new key where nothing is, else over the
 * row written longest ago. */
static void put_locked(struct kfs_shm *s, int table, const struct key *k, const void *image)
{
    static const char empty[256];
    static_assert(sizeof empty >= sizeof(struct kfs_shm_link) &&
                      sizeof empty >= sizeof(struct kfs_shm_attr),
                  "the largest row");
    size_t bytes = row_bytes[table];
    uint64_t first = (k->hash & (s->buckets[table] - 1)) * KFS_SHM_WAYS, found = UINT64_MAX,
             victim = first;
    for (uint64_t i = first; i < first + KFS_SHM_WAYS; i++) {
        const char *row = s->rows[table] + i * bytes;
        if (row_is(table, row, k))
            found = i;
        uint64_t age = row_is_empty(table, row) ? 0 : s->stamps[table][i];
        s->stamps[table][i] = age;
        if (age < s->stamps[table][victim])
            victim = i;
    }
    uint64_t at = found != UINT64_MAX ? found : victim;
    if (image || found != UINT64_MAX) {
        row_write_locked(s->rows[table] + at * bytes, image ? image : empty, bytes);
        s->stamps[table][at] = image ? ++s->stamp : 0;
    }
}

static void put(struct kfs_shm *s, int table, const struct key *k, const void *image)
{
    pthread_mutex_lock(&s->lock);
    put_locked(s, table, k, image);
    pthread_mutex_unlock(&s->lock);
}

/* --- listings --------------------------------------------------------------------------------- */

static void list_drop_locked(struct kfs_shm *s, uint64_t dir)
{
    put_locked(s, LIST, &(struct key){.hash = kfs_hash_u64(dir), .ino = dir}, NULL);
}

/* A name now leads to ino (0: nowhere): a listing that says otherwise goes. */
static void list_check_locked(struct kfs_shm *s, uint64_t dir, const char *name, size_t len,
                              uint64_t ino)
{
    uint64_t listed = 0;
    int state = kfs_shm_list_find(s->h, dir, name, len, &listed);
    if (state != KFS_DENT_EMPTY && (state == KFS_DENT_PRESENT ? listed : 0) != ino)
        list_drop_locked(s, dir);
}

static const struct kfs_shm_list *list_row(const struct kfs_shm *s, uint64_t dir)
{
    uint64_t first = (kfs_hash_u64(dir) & (s->buckets[LIST] - 1)) * KFS_SHM_WAYS;
    const struct kfs_shm_list *row = (const struct kfs_shm_list *)(const void *)s->rows[LIST] + first;
    for (unsigned i = 0; i < KFS_SHM_WAYS; i++, row++)
        if (row->state && row->dir == dir)
            return row;
    return NULL;
}

/* The oldest listing of the ring goes; its row, if it still is this one's. */
static void placed_pop_locked(struct kfs_shm *s)
{
    struct placed p = s->placed[s->placed_first];
    s->placed_first = (s->placed_first + 1) % s->placed_cap;
    s->placed_count--;
    const struct kfs_shm_list *row = list_row(s, p.dir);
    if (row && row->off == p.off)
        list_drop_locked(s, p.dir);
}

/* Room for bytes in the ring, with nothing in it that a row still names. */
static uint64_t ring_take_locked(struct kfs_shm *s, uint64_t bytes)
{
    uint64_t from = s->ring_at;
    if (s->ring_bytes - from < bytes) {
        /* What lies between here and the end is the oldest there is. */
        while (s->placed_count && s->placed[s->placed_first].off >= from)
            placed_pop_locked(s);
        from = 0;
    }
    while (s->placed_count && s->placed[s->placed_first].off >= from &&
           s->placed[s->placed_first].off < from + bytes)
        placed_pop_locked(s);
    if (s->placed_count == s->placed_cap)
        placed_pop_locked(s);
    s->ring_at = from + bytes;
    return from;
}

/* The offsets that come before the records. False: the records are not what they should be. */
static bool list_index(uint32_t *index, const char *records, size_t bytes, uint32_t count)
{
    size_t at = 0, head = count * sizeof *index;
    for (uint32_t i = 0; i < count; i++) {
        struct kfs_wire_dirent e;
        if (bytes - at < sizeof e)
            return false;
        memcpy(&e, records + at, sizeof e);
        if (e.name_len > bytes - at - sizeof e)
            return false;
        index[i] = (uint32_t)(head + at);
        at += sizeof e + e.name_len;
    }
    return at == bytes;
}

bool kfs_shm_put_list(struct kfs_shm *s, uint64_t dir, const void *records, size_t bytes,
                      uint32_t count)
{
    uint64_t total = (uint64_t)count * sizeof(uint32_t) + bytes, room = (total + 7) & ~(uint64_t)7;
    if (room > s->ring_bytes / 4)
        return false;
    pthread_mutex_lock(&s->lock);
    list_drop_locked(s, dir);
    uint64_t off = ring_take_locked(s, room);
    bool ok = list_index((uint32_t *)(void *)(s->ring + off), records, bytes, count);
    if (ok) {
        if (bytes)
            memcpy(s->ring + off + (size_t)count * sizeof(uint32_t), records, bytes);
        struct kfs_shm_list row = {
            .state = 1, .dir = dir, .off = off, .bytes = (uint32_t)total, .count = count};
        s->placed[(s->placed_first + s->placed_count++) % s->placed_cap] =
            (struct placed){dir, off, room};
        put_locked(s, LIST, &(struct key){.hash = kfs_hash_u64(dir), .ino = dir}, &row);
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

void kfs_shm_drop_list(struct kfs_shm *s, uint64_t dir)
{
    pthread_mutex_lock(&s->lock);
    list_drop_locked(s, dir);
    pthread_mutex_unlock(&s->lock);
}

/* --- names, attributes, targets --------------------------------------------------------------- */

static void dent_write_locked(struct kfs_shm *s, uint64_t parent, const char *name, size_t len,
                              uint64_t ino)
{
    struct kfs_shm_dent d = {.state = ino ? KFS_DENT_PRESENT : KFS_DENT_ABSENT,
                             .name_len = (uint8_t)len,
                             .parent = parent,
                             .ino = ino,
                             .hash = kfs_shm_dent_hash(parent, name, len)};
    memcpy(d.name, name, len);
    put_locked(s, DENT, &(struct key){.hash = d.hash, .ino = parent, .name = name, .len = len}, &d);
}

void kfs_shm_put_dent(struct kfs_shm *s, uint64_t parent, const char *name, size_t len,
                      uint64_t ino)
{
    pthread_mutex_lock(&s->lock);
    list_check_locked(s, parent, name, len, ino);
    if (len <= KFS_SHM_NAME_MAX) /* longer ones were never put: there is nothing to replace */
        dent_write_locked(s, parent, name, len, ino);
    pthread_mutex_unlock(&s->lock);
}

void kfs_shm_drop_dent(struct kfs_shm *s, uint64_t parent, const char *name, size_t len)
{
    kfs_shm_drop_list(s, parent);
    if (len <= KFS_SHM_NAME_MAX)
        put(s, DENT,
            &(struct key){.hash = kfs_shm_dent_hash(parent, name, len),
                          .ino = parent,
                          .name = name,
                          .len = len},
            NULL);
}

void kfs_shm_put_attr(struct kfs_shm *s, const struct kfs_attr *a)
{
    struct kfs_shm_attr row = {.state = 1, .attr = *a};
    put(s, ATTR, &(struct key){.hash = kfs_hash_u64(a->ino), .ino = a->ino}, &row);
}

void kfs_shm_drop_attr(struct kfs_shm *s, uint64_t ino)
{
    put(s, ATTR, &(struct key){.hash = kfs_hash_u64(ino), .ino = ino}, NULL);
}

void kfs_shm_put_link(struct kfs_shm *s, uint64_t ino, const char *target, size_t len)
{
    struct key k = {.hash = kfs_hash_u64(ino), .ino = ino};
    struct kfs_shm_link row = {.state = 1, .ino = ino};
    if (len > KFS_SHM_TARGET_MAX) {
        put(s, LINK, &k, NULL);
        return;
    }
    row.target_len = (uint8_t)len;
    memcpy(row.target, target, len);
    put(s, LINK, &k, &row);
}
