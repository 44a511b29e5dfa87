#include "tools/kfsd/arrive.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "tools/kfsd/safetensors.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PARTIAL_BYTES  (1u << 20)     /* larger ones lie in p/, with the room they will need; smaller ones in t/ */
#define STANDIN_MAX    (64ULL << 40)  /* of larger files the map itself would be large */
#define RESTARTS_MAX   16            /* each makes room in a cache directory, or strikes one out */
#define SWEEP_NS       1000000000ULL
#define LEFT_NS        2000000000ULL  /* whole, no stand-in open, and not asked for: stand-ins of an earlier kfsd are not counted */
#define FORGOTTEN_NS   60000000000ULL /* likewise if it is not whole: readers that open it again and again find what they fetched */

struct kfsd_arrival {
    struct kfsd_vol *vol;
    kfs_ino_t ino;
    uint64_t version, size_bytes, serial;
    struct kfs_fill *fill; /* NULL: it was whole from the start */
    char name[64];         /* in t/; "" when it lies in p/ */
    int read_fd;           /* O_RDONLY, of the file */
    int map_fd;            /* -1: none */
    struct kfs_arrival *map;

    /* arrive_lock */
    unsigned refs;
    bool in_table, posted, given; /* given: somebody has, or had, a stand-in of it */
    bool dropped;                 /* its file: another arrival may have one of the same name */
    struct kfsd_arrival *next;    /* other versions of the inode, in the table */
    struct kfsd_arrival *post_next;
    uint64_t used_ns;

    pthread_mutex_t finish;
    bool finished;
    int result; /* of finish */
};

/* ---- the table ---------------------------------------------------------------------------------------------------------- */

static struct kfsd_arrival *find_locked(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version)
{
    struct kfsd_arrival *x = kfs_map_get(&v->arrivals, ino);
    while (x && x->version != version)
        x = x->next;
    return x;
}

struct kfsd_arrival *kfsd_arrive_find(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version)
{
    pthread_mutex_lock(&v->arrive_lock);
    struct kfsd_arrival *x = find_locked(v, ino, version);
    if (x) {
        x->refs++;
        x->used_ns = kfs_clock_mono_ns();
    }
    pthread_mutex_unlock(&v->arrive_lock);
    return x;
}

static int insert_locked(struct kfsd_vol *v, struct kfsd_arrival *x)
{
    x->next = kfs_map_get(&v->arrivals, x->ino);
    int r = kfs_map_put(&v->arrivals, x->ino, x, NULL);
    if (r < 0)
        return r;
    x->in_table = true;
    x->refs++;
    v->arrival_count++;
    return 0;
}

/* Out of the table; its reference is the caller's to put. */
static bool remove_locked(struct kfsd_vol *v, struct kfsd_arrival *x)
{
    if (!x->in_table)
        return false;
    struct kfsd_arrival *head = kfs_map_get(&v->arrivals, x->ino), **p = &head;
    while (*p != x)
        p = &(*p)->next;
    *p = x->next;
    if (head)
        (void)kfs_map_put(&v->arrivals, x->ino, head, NULL); /* the key is there: no memory is needed */
    else
        (void)kfs_map_remove(&v->arrivals, x->ino);
    x->next = NULL;
    x->in_table = false;
    v->arrival_count--;
    return true;
}

/* Once. */
static void file_drop(struct kfsd_vol *v, struct kfsd_arrival *x)
{
    pthread_mutex_lock(&v->arrive_lock);
    bool was = x->dropped;
    x->dropped = true;
    pthread_mutex_unlock(&v->arrive_lock);
    if (was)
        return;
    if (x->name[0])
        kfs_cache_fill_abort(v->cache, x->name);
    else
        kfs_cache_partial_drop(v->cache, x->ino, x->version);
}

static void arrival_free(struct kfsd_vol *v, struct kfsd_arrival *x)
{
    kfs_fill_unref(x->fill);
    if (!x->finished && x->fill)
        file_drop(v, x);
    if (x->map)
        (void)munmap(x->map, kfs_arrival_bytes(x->size_bytes));
    const int fds[] = {x->read_fd, x->map_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&x->finish);
    free(x);
}

void kfsd_arrive_put(struct kfsd_vol *v, struct kfsd_arrival *x)
{
    if (!x)
        return;
    pthread_mutex_lock(&v->arrive_lock);
    bool last = --x->refs == 0;
    pthread_mutex_unlock(&v->arrive_lock);
    if (last)
        arrival_free(v, x);
}

static void forget(struct kfsd_vol *v, struct kfsd_arrival *x)
{
    pthread_mutex_lock(&v->arrive_lock);
    bool was = remove_locked(v, x);
    pthread_mutex_unlock(&v->arrive_lock);
    if (was)
        kfsd_arrive_put(v, x);
}

/* Each arrival at this moment, referenced. Free the array; put each. */
static struct kfsd_arrival **all(struct kfsd_vol *v, size_t *ret_count)
{
    size_t n = 0, cursor = 0;
    pthread_mutex_lock(&v->arrive_lock);
    struct kfsd_arrival **list = malloc((v->arrival_count + 1) * sizeof *list), *x;
    while (list && (x = kfs_map_next(&v->arrivals, &cursor, NULL)))
        for (; x; x = x->next) {
            x->refs++;
            list[n++] = x;
        }
    pthread_mutex_unlock(&v->arrive_lock);
    *ret_count = n;
    return list;
}

/* ---- beginning ---------------------------------------------------------------------------------------------------------- */

/* Clients map it and cannot change it. */
static int map_make(struct kfsd_arrival *x, struct kfs_err *err)
{
    size_t bytes = kfs_arrival_bytes(x->size_bytes);
    kfs_auto_fd int fd = memfd_create("kfs-arrival", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return KFS_FAIL(err, errno, "memfd: %s", strerror(errno));
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return KFS_FAIL(err, errno, "mmap: %s", strerror(errno));
    x->map = map;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return KFS_FAIL(err, errno, "memfd: %s", strerror(errno));
    x->map_fd = kfsd_reopen(fd, O_RDONLY | O_CLOEXEC);
    return x->map_fd < 0 ? KFS_FAIL(err, -x->map_fd, "memfd: %s", strerror(-x->map_fd)) : 0;
}

static struct kfsd_arrival *arrival_new(struct kfsd_vol *v, const struct kfs_attr *a)
{
    static atomic_ullong serial;
    struct kfsd_arrival *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->vol = v;
    x->ino = a->ino;
    x->version = a->version;
    x->size_bytes = a->size_bytes;
    x->serial = atomic_fetch_add(&serial, 1) + 1;
    x->read_fd = x->map_fd = -1;
    x->refs = 1;
    x->used_ns = kfs_clock_mono_ns();
    pthread_mutex_init(&x->finish, NULL);
    return x;
}

/* For the arriver: it is whole. The fill calls this, and its last unref waits for it. */
static void on_whole(void *arg, struct kfs_fill *f)
{
    struct kfsd_arrival *x = arg;
    struct kfsd_vol *v = x->vol;
    (void)f;
    pthread_mutex_lock(&v->arrive_lock);
    if (x->refs && !x->posted) {
        x->posted = true;
        x->refs++;
        x->post_next = NULL;
        *v->arrive_last = x;
        v->arrive_last = &x->post_next;
        pthread_cond_signal(&v->arrive_work);
    }
    pthread_mutex_unlock(&v->arrive_lock);
}

static int file_make(struct kfsd_vol *v, struct kfsd_arrival *x, int *ret_fd, struct kfs_err *err)
{
    int r = x->size_bytes <= PARTIAL_BYTES ? kfs_cache_fill_begin(v->cache, x->ino, x->size_bytes, false, x->name, ret_fd, err)
                                           : kfs_cache_partial_create(v->cache, x->ino, x->version, x->size_bytes, ret_fd, err);
    if (r < 0)
        return r;
    x->read_fd = kfsd_reopen(*ret_fd, O_RDONLY | O_CLOEXEC);
    return x->read_fd < 0 ? KFS_FAIL(err, -x->read_fd, "cannot open a cache file again: %s", strerror(-x->read_fd)) : 0;
}

static bool made_room(struct kfsd_vol *v, int r, struct kfs_err *err);

/* Filling x failed with r: is its cache directory the reason? That one is then passed over for a while. */
static bool suspect(struct kfsd_vol *v, struct kfsd_arrival *x, int r)
{
    return x->name[0] ? kfs_cache_fill_suspect(v->cache, x->name, r) : kfs_cache_partial_suspect(v->cache, x->ino, x->version, r);
}

static int begin_new(struct kfsd_vol *v, struct kfsd_arrival *x, bool standin, bool post, struct kfs_content *c, struct kfs_err *err)
{
    kfs_auto_fd int fd = -1;
    x->size_bytes = c->size_bytes;
    KFS_FAULT("fill.begin");
    int r = file_make(v, x, &fd, err);
    if (r == 0 && standin)
        r = map_make(x, err);
    if (r == 0)
        r = kfs_fill_start(v->store, c, x->ino, x->version, fd, x->map, post ? on_whole : NULL, x, &x->fill, err);
    if (r < 0 && fd >= 0) {
        bool again = suspect(v, x, r);
        file_drop(v, x);
        return again ? -ERESTART : r;
    }
    return r;
}

/* Content and attributes of one moment: whoever changes them does it under pub. */
static int content_of(struct kfsd_vol *v, const struct kfs_attr *a, struct kfs_content *ret, struct kfs_err *err)
{
    struct kfs_attr now;
    pthread_mutex_lock(&v->pub);
    int r = kfs_meta_getattr(v->meta, a->ino, &now, err);
    if (r == 0 && now.version != a->version)
        r = -EAGAIN;
    if (r == 0)
        r = kfs_meta_content_get(v->meta, a->ino, ret, err);
    pthread_mutex_unlock(&v->pub);
    return r;
}

static int begin_once(struct kfsd_vol *v, const struct kfs_attr *a, unsigned flags, struct kfsd_arrival **ret, struct kfs_err *err)
{
    struct kfsd_arrival *x = kfsd_arrive_find(v, a->ino, a->version);
    if (x) {
        *ret = x;
        return 0;
    }
    struct kfs_content c = {0};
    int r = content_of(v, a, &c, err);
    if (r < 0)
        return r;
    bool standin = (flags & KFSD_ARRIVE_STANDIN || (v->stream_bytes && c.size_bytes > v->stream_bytes)) && c.size_bytes > 0 && c.size_bytes <= STANDIN_MAX;
    if (!(flags & KFSD_ARRIVE_NEIGHBOUR) && c.extent_count == 1 && c.size_bytes <= PARTIAL_BYTES)
        kfsd_neighbours_miss(v, a->ino, &c);
    x = arrival_new(v, a);
    r = x ? begin_new(v, x, standin, standin || flags & KFSD_ARRIVE_NEIGHBOUR, &c, err) : -ENOMEM;
    kfs_content_release(&c);
    if (r == 0) {
        pthread_mutex_lock(&v->arrive_lock);
        r = insert_locked(v, x);
        pthread_mutex_unlock(&v->arrive_lock);
    }
    if (r < 0)
        kfsd_arrive_put(v, x);
    else
        *ret = x;
    return r;
}

int kfsd_arrive_begin(struct kfsd_vol *v, const struct kfs_attr *a, unsigned flags, struct kfsd_arrival **ret, struct kfs_err *err)
{
    /* Inline content is written at once, and may be what a disk has no room for. */
    int r = begin_once(v, a, flags, ret, err);
    for (int i = 0; i < RESTARTS_MAX && (r == -ERESTART || made_room(v, r, err)); i++) {
        if (err)
            *err = (struct kfs_err){0};
        r = begin_once(v, a, flags, ret, err);
    }
    return r == -ERESTART ? -EIO : r;
}

/* It lies in f/ already: a map that says so. */
static int adopt_clean(struct kfsd_vol *v, const struct kfs_attr *a, int fd, struct kfsd_arrival **ret, struct kfs_err *err)
{
    struct kfsd_arrival *x = arrival_new(v, a);
    struct stat st;
    if (!x) {
        close(fd);
        return -ENOMEM;
    }
    x->read_fd = fd;
    x->finished = true;
    int r = fstat(fd, &st) < 0 ? -errno : 0;
    x->size_bytes = r < 0 ? 0 : (uint64_t)st.st_size;
    if (r == 0)
        r = x->size_bytes == 0 || x->size_bytes > STANDIN_MAX ? -EINVAL : map_make(x, err);
    if (r == 0) {
        uint64_t frames = kfs_arrival_frames(x->size_bytes);
        for (uint64_t i = 0; i < frames; i++)
            x->map->words[i / 64] |= 1ULL << (i % 64);
        x->map->magic = KFS_ARRIVAL_MAGIC;
        x->map->version = KFS_ARRIVAL_VERSION;
        x->map->ino = x->ino;
        x->map->content_version = x->version;
        x->map->size_bytes = x->size_bytes;
        x->map->frame_count = frames;
        x->map->state = KFS_ARRIVAL_WHOLE;
        pthread_mutex_lock(&v->arrive_lock);
        r = insert_locked(v, x);
        pthread_mutex_unlock(&v->arrive_lock);
    }
    if (r < 0)
        kfsd_arrive_put(v, x);
    else
        *ret = x;
    return r;
}

/* ---- ending ------------------------------------------------------------------------------------------------------------- */

/* Into f/, if it still is what the inode has. pub held. */
static int publish_locked(struct kfsd_vol *v, struct kfsd_arrival *x, struct kfs_err *err)
{
    struct kfs_attr a;
    int r = kfs_meta_getattr(v->meta, x->ino, &a, err);
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == -ENOENT || a.version != x->version || kfsd_file_is_live(v, x->ino)) {
        file_drop(v, x);
        return -EAGAIN;
    }
    (void)futimens(x->read_fd, (struct timespec[2]){{.tv_nsec = UTIME_OMIT}, {.tv_sec = a.mtime_s, .tv_nsec = a.mtime_ns}});
    r = kfs_cache_set_exec(x->read_fd, a.mode);
    KFS_FAULT("fill.before_end");
    if (r == 0)
        r = x->name[0] ? kfs_cache_fill_end(v->cache, x->name, x->ino, x->version, false, err)
                       : kfs_cache_partial_finish(v->cache, x->ino, x->version, false, err);
    if (r == 0)
        kfsd_attr_publish_locked(v, &a);
    return r;
}

/* The fill is whole. Once; later callers hear what came of it. */
static int finish(struct kfsd_vol *v, struct kfsd_arrival *x, struct kfs_err *err)
{
    pthread_mutex_lock(&x->finish);
    if (!x->finished) {
        pthread_mutex_lock(&v->pub);
        x->result = publish_locked(v, x, err);
        pthread_mutex_unlock(&v->pub);
        x->finished = x->result == 0 || x->result == -EAGAIN;
    }
    int r = x->result;
    pthread_mutex_unlock(&x->finish);
    pthread_mutex_lock(&v->arrive_lock);
    bool given = x->given;
    pthread_mutex_unlock(&v->arrive_lock);
    if (!given)
        forget(v, x);
    return r;
}

static bool is_finished(struct kfsd_arrival *x)
{
    pthread_mutex_lock(&x->finish);
    bool f = x->finished;
    pthread_mutex_unlock(&x->finish);
    return f;
}

static bool is_idle(struct kfsd_vol *v, struct kfsd_arrival *x, unsigned extra, uint64_t whole_ns, uint64_t part_ns);

/* Arrivals that are whole and that nobody uses: their descriptors keep the room of files that are evicted already. How many went. */
static unsigned drop_finished(struct kfsd_vol *v)
{
    size_t n;
    unsigned dropped = 0;
    struct kfsd_arrival **list = all(v, &n);
    for (size_t i = 0; list && i < n; i++) {
        if (is_finished(list[i]) && is_idle(v, list[i], 1, 0, 0)) {
            forget(v, list[i]);
            dropped++;
        }
        kfsd_arrive_put(v, list[i]);
    }
    free(list);
    return dropped;
}

/* The disk is full before the cap is: clean files are the only thing that may go. True: some went, try again. */
static bool made_room(struct kfsd_vol *v, int r, struct kfs_err *err)
{
    if (r != -ENOSPC && r != -EDQUOT)
        return false;
    bool evicted = kfs_cache_evict(v->cache, 0) > 0;
    if (!drop_finished(v) && !evicted)
        return false;
    if (err)
        *err = (struct kfs_err){0};
    return true;
}

/* Filling x failed with r. True: its cache directory was the reason, and beginning anew may do better: x is out of the table. */
static bool give_up(struct kfsd_vol *v, struct kfsd_arrival *x, int r, struct kfs_err *err)
{
    pthread_mutex_lock(&v->arrive_lock);
    bool dropped = x->dropped, given = x->given;
    pthread_mutex_unlock(&v->arrive_lock);
    bool again = dropped || made_room(v, r, err) || suspect(v, x, r);
    if (again && err)
        *err = (struct kfs_err){0};
    if (!given || again) {
        forget(v, x);
        file_drop(v, x);
    }
    return again;
}

int kfsd_arrive_wait(struct kfsd_vol *v, struct kfsd_arrival *x, struct kfs_err *err)
{
    int r = 0;
    if (x->fill) {
        /* Somebody waits for all of a large file, others for single frames of theirs: those first. */
        kfs_fill_all(x->fill, NULL, 0, x->size_bytes <= PARTIAL_BYTES ? KFS_DRV_WAITING : KFS_DRV_AHEAD);
        r = kfs_fill_wait(x->fill, err);
    }
    if (r == 0)
        r = x->fill ? finish(v, x, err) : 0;
    if (r == 0 || r == -EAGAIN)
        return r;
    return give_up(v, x, r, err) ? -ERESTART : r;
}

void kfsd_arrive_ahead(struct kfsd_arrival *x)
{
    if (x->fill)
        kfs_fill_all(x->fill, NULL, 0, KFS_DRV_AHEAD);
}

int kfsd_arrive_open(struct kfsd_arrival *x, int flags)
{
    int fd = kfsd_reopen(x->read_fd, flags);
    if (fd == -EINVAL && (flags & O_DIRECT))
        fd = kfsd_reopen(x->read_fd, flags & ~O_DIRECT);
    return fd;
}

/* ---- stand-ins ---------------------------------------------------------------------------------------------------------- */

static void set_given(struct kfsd_vol *v, struct kfsd_arrival *x)
{
    pthread_mutex_lock(&v->arrive_lock);
    x->given = true;
    pthread_mutex_unlock(&v->arrive_lock);
}

int kfsd_arrive_standin(struct kfsd_vol *v, struct kfsd_arrival *x, int oflags, int *ret_fd, struct kfs_err *err)
{
    if (!x->map)
        return -EOPNOTSUPP;
    set_given(v, x);
    return kfsd_standin_make(v, x->ino, x->version, x->size_bytes, oflags, ret_fd, err);
}

/* The stand-in is of an earlier kfsd, or this one has forgotten it. file lock held. */
static int begin_again(struct kfsd_vol *v, kfs_ino_t ino, uint64_t version, struct kfsd_arrival **ret, struct kfs_err *err)
{
    struct kfs_attr a;
    int r = kfs_meta_getattr(v->meta, ino, &a, err);
    if (r < 0)
        return r == -ENOENT ? -ESTALE : r;
    if (!S_ISREG(a.mode) || a.version != version)
        return -ESTALE;
    int fd = kfsd_file_is_live(v, ino) ? -ENOENT : kfs_cache_open_clean(v->cache, ino, version, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return adopt_clean(v, &a, fd, ret, err);
    r = kfsd_arrive_begin(v, &a, KFSD_ARRIVE_STANDIN, ret, err);
    return r == -EAGAIN ? -ESTALE : r;
}

/* What a request about a stand-in is about, when its client may ask. */
static int of_request(struct kfsd_req *r, uint64_t key, struct kfsd_arrival **ret)
{
    struct kfsd_vol *v = r->vol;
    kfs_ino_t ino = r->w->ino;
    uint64_t version = r->w->value;
    int rc = kfsd_standin_check(r, ino, version, key);
    if (rc < 0)
        return rc;
    struct kfsd_arrival *x = kfsd_arrive_find(v, ino, version);
    if (x && !x->map && x->fill) { /* begun without a map: it ends soon, and then there is a clean file */
        kfsd_park(true);
        rc = kfsd_arrive_wait(v, x, &r->err);
        kfsd_park(false);
        kfsd_arrive_put(v, x);
        x = NULL;
        if (rc < 0 && rc != -EAGAIN && rc != -ERESTART)
            return rc;
        rc = 0;
    }
    if (!x) {
        struct kfsd_file *f = kfsd_file_get(v, ino);
        if (!f)
            return -ENOMEM;
        pthread_mutex_lock(&f->lock);
        x = kfsd_arrive_find(v, ino, version);
        rc = x ? 0 : begin_again(v, ino, version, &x, &r->err);
        pthread_mutex_unlock(&f->lock);
        kfsd_file_put(v, f);
    }
    if (rc == 0 && !x->map)
        rc = -ESTALE;
    if (rc < 0) {
        kfsd_arrive_put(v, x);
        return rc;
    }
    set_given(v, x);
    *ret = x;
    return 0;
}

/* A kfsd that is ending wakes those who wait; its successor answers them. */
static int ended(struct kfsd_req *r, int rc)
{
    if (rc == -EINTR || rc == -ECANCELED) {
        r->drop = true;
        return -EIO;
    }
    return rc;
}

int kfsd_op_arrival(struct kfsd_req *r)
{
    struct kfsd_arrival *x;
    int rc = of_request(r, r->w->value2, &x);
    if (rc < 0)
        return ended(r, rc);
    r->fds[0] = fcntl(x->map_fd, F_DUPFD_CLOEXEC, 3);
    r->fds[1] = fcntl(x->read_fd, F_DUPFD_CLOEXEC, 3);
    rc = r->fds[0] < 0 || r->fds[1] < 0 ? -EMFILE : 0;
    (void)kfsd_conn_knows(r->conn, x->serial, true);
    kfsd_arrive_put(r->vol, x);
    return rc;
}

int kfsd_op_want(struct kfsd_req *r)
{
    struct kfsd_arrival *x;
    int rc;
    for (int i = 0;; i++) {
        rc = of_request(r, r->w->ino2, &x);
        if (rc < 0)
            return ended(r, rc);
        kfsd_park(true);
        KFS_FAULT("want.before");
        rc = x->fill ? kfs_fill_want(x->fill, r->w->ino2, r->w->value2, r->w->size_bytes, &r->err) : 0;
        kfsd_park(false);
        if (rc == 0 || i == RESTARTS_MAX || !give_up(r->vol, x, rc, &r->err))
            break;
        kfsd_arrive_put(r->vol, x);
    }
    r->rep.value = kfsd_conn_knows(r->conn, x->serial, false) ? 0 : 1;
    kfsd_arrive_put(r->vol, x);
    return ended(r, rc);
}

int kfsd_op_settle(struct kfsd_req *r)
{
    struct kfsd_vol *v = r->vol;
    struct kfsd_arrival *x;
    int rc;
    for (int i = 0;; i++) {
        rc = of_request(r, r->w->value2, &x);
        if (rc < 0)
            return ended(r, rc);
        kfsd_park(true);
        if (x->fill && !kfs_fill_is_whole(x->fill))
            kfsd_safetensors_first(x->fill, x->read_fd, x->size_bytes);
        KFS_FAULT("settle.standin");
        rc = kfsd_arrive_wait(v, x, &r->err);
        kfsd_park(false);
        if (rc != -ERESTART || i == RESTARTS_MAX)
            break;
        kfsd_arrive_put(v, x);
    }
    if (rc == -ERESTART)
        rc = -EIO;
    /* Whatever became of the inode meanwhile: the stand-in is of this content. */
    if (rc == 0 || rc == -EAGAIN)
        rc = kfsd_standin_settle(r, x, x->ino, x->version, r->w->value2, (int)kfs_wire_oflags(r->w->oflags), r->w->size_bytes & KFS_SETTLE_AGAIN,
                                 &r->fds[0]);
    struct stat st;
    if (rc == 0 && fstat(r->fds[0], &st) == 0) {
        r->rep.dev = st.st_dev;
        r->rep.cache_ino = st.st_ino;
        if (kfsd_attr_get(v, x->ino, &r->rep.attr, NULL) < 0)
            memset(&r->rep.attr, 0, sizeof r->rep.attr);
    }
    kfsd_arrive_put(v, x);
    return ended(r, rc);
}

/* ---- who still has one? --------------------------------------------------------------------------------------------------- */

/* Nobody waits in it, no answer with a stand-in of it is on its way, and none is open. extra: references of the caller's own. */
static bool is_idle(struct kfsd_vol *v, struct kfsd_arrival *x, unsigned extra, uint64_t whole_ns, uint64_t part_ns)
{
    uint64_t limit = is_finished(x) ? whole_ns : part_ns, now = kfs_clock_mono_ns();
    pthread_mutex_lock(&v->arrive_lock);
    bool idle = x->in_table && x->refs == 1 + extra && now - x->used_ns > limit;
    pthread_mutex_unlock(&v->arrive_lock);
    return idle && kfsd_standin_count(v, x->ino, x->version) == 0;
}

/* An open stand-in of this kfsd keeps its arrival in the table. */
static bool is_known(struct kfsd_vol *v, kfs_ino_t ino)
{
    pthread_mutex_lock(&v->arrive_lock);
    bool known = kfs_map_get(&v->arrivals, ino) != NULL;
    pthread_mutex_unlock(&v->arrive_lock);
    return known;
}

bool kfsd_arrive_in_use(struct kfsd_vol *v, kfs_ino_t ino)
{
    if (!is_known(v, ino))
        return false;
    size_t n;
    bool used = kfsd_standin_count(v, ino, 0) > 0;
    struct kfsd_arrival **list = all(v, &n);
    for (size_t i = 0; list && i < n; i++) {
        struct kfsd_arrival *x = list[i];
        if (x->ino == ino && x->map) {
            if (is_idle(v, x, 1, LEFT_NS, LEFT_NS))
                forget(v, x);
            else
                used = true;
        }
        kfsd_arrive_put(v, x);
    }
    free(list);
    return used || !list;
}

void kfsd_arrive_leave(struct kfsd_vol *v, kfs_ino_t ino)
{
    if (!is_known(v, ino))
        return;
    size_t n;
    struct kfsd_arrival **list = all(v, &n);
    for (size_t i = 0; list && i < n; i++) {
        struct kfsd_arrival *x = list[i];
        if (x->ino == ino && x->map && x->fill && !kfs_fill_is_whole(x->fill))
            kfs_fill_all(x->fill, NULL, 0, KFS_DRV_AHEAD);
        kfsd_arrive_put(v, x);
    }
    free(list);
}

int kfsd_arrive_each_object(struct kfsd_vol *v, int (*cb)(void *arg, uint64_t object), void *arg)
{
    size_t n;
    int r = 0;
    struct kfsd_arrival **list = all(v, &n);
    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (r == 0 && list[i]->fill)
            r = kfs_fill_each_object(list[i]->fill, cb, arg);
        kfsd_arrive_put(v, list[i]);
    }
    free(list);
    return r;
}

/* ---- the arriver ---------------------------------------------------------------------------------------------------------- */

static void sweep(struct kfsd_vol *v)
{
    size_t n;
    struct kfsd_arrival **list = all(v, &n);
    for (size_t i = 0; list && i < n; i++) {
        struct kfsd_arrival *x = list[i];
        pthread_mutex_lock(&v->arrive_lock);
        bool alone = !x->given && x->refs == 2;
        pthread_mutex_unlock(&v->arrive_lock);
        if (alone && x->fill && kfs_fill_state(x->fill) < 0)
            forget(v, x); /* a neighbour that could not be had */
        if (x->map && is_idle(v, x, 1, LEFT_NS, FORGOTTEN_NS)) {
            forget(v, x);
            kfsd_settle_later(v, x->ino); /* an orphan may have waited for this */
        }
        kfsd_arrive_put(v, x);
    }
    free(list);
}

static struct kfsd_arrival *next_post(struct kfsd_vol *v, bool *ret_sweep)
{
    pthread_mutex_lock(&v->arrive_lock);
    while (!v->arrive_first && !v->neighbours_due && !v->arrive_stop) {
        struct timespec until = kfs_clock_real();
        until.tv_sec += 1;
        if (!v->arrival_count)
            pthread_cond_wait(&v->arrive_work, &v->arrive_lock);
        else if (pthread_cond_timedwait(&v->arrive_work, &v->arrive_lock, &until) == ETIMEDOUT)
            break;
    }
    struct kfsd_arrival *x = v->arrive_first;
    if (x) {
        v->arrive_first = x->post_next;
        if (!v->arrive_first)
            v->arrive_last = &v->arrive_first;
        x->posted = false;
    }
    *ret_sweep = v->arrival_count > 0;
    pthread_mutex_unlock(&v->arrive_lock);
    return x;
}

static void *arriver_main(void *arg)
{
    struct kfsd_vol *v = arg;
    uint64_t next_sweep = 0;
    while (!__atomic_load_n(&v->arrive_stop, __ATOMIC_ACQUIRE)) {
        bool sweep_due;
        struct kfsd_arrival *x = next_post(v, &sweep_due);
        if (x) {
            struct kfs_err err = {0};
            int r = finish(v, x, &err);
            if (r < 0 && r != -EAGAIN)
                kfs_log(KFS_LOG_WARN, "'%s': inode %llx has arrived, but cannot be kept: %s", v->v->url, (unsigned long long)x->ino,
                        err.code ? err.msg : strerror(-r));
            kfsd_arrive_put(v, x);
        } else {
            kfsd_neighbours_run(v);
        }
        uint64_t now = kfs_clock_mono_ns();
        if (sweep_due && now >= next_sweep) {
            sweep(v);
            next_sweep = now + SWEEP_NS;
        }
    }
    return NULL;
}

int kfsd_arrive_start(struct kfsd_vol *v, struct kfs_err *err)
{
    int r = pthread_create(&v->arriver, NULL, arriver_main, v);
    if (r)
        return KFS_FAIL(err, r, "cannot start a thread: %s", strerror(r));
    v->arriver_on = true;
    return 0;
}

void kfsd_arrive_cancel(struct kfsd_vol *v)
{
    size_t n;
    struct kfsd_arrival **list = all(v, &n);
    for (size_t i = 0; list && i < n; i++) {
        if (list[i]->fill && !kfs_fill_is_whole(list[i]->fill))
            kfs_fill_cancel(list[i]->fill);
        kfsd_arrive_put(v, list[i]);
    }
    free(list);
}

void kfsd_arrive_stop(struct kfsd_vol *v)
{
    pthread_mutex_lock(&v->arrive_lock);
    __atomic_store_n(&v->arrive_stop, true, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&v->arrive_work);
    pthread_mutex_unlock(&v->arrive_lock);
    if (v->arriver_on)
        pthread_join(v->arriver, NULL);
    v->arriver_on = false;
    size_t n;
    struct kfsd_arrival **list = all(v, &n), *x;
    for (size_t i = 0; list && i < n; i++) {
        forget(v, list[i]);
        kfsd_arrive_put(v, list[i]);
    }
    free(list);
    while ((x = v->arrive_first)) {
        v->arrive_first = x->post_next;
        kfsd_arrive_put(v, x);
    }
    kfs_map_release(&v->arrivals);
    kfsd_neighbours_release(v);
}
