/* blockstore/fill.c — files that arrive: their slots, who waits for which, and what is read ahead; model: blockstore/fetch_engine.h */
#include "blockstore/fetch_engine.h"
#include "base/cleanup.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u /* runs of zeros of at least this, aligned, stay holes in the file */
#define ALL_SLOTS   128u  /* slots of one whole fill that are queued at a time: not all of a terabyte */

/* --- bytes ------------------------------------------------------------------------------------ */

int kfs_fetch_write(int fd, const void *plain, size_t len, uint64_t off)
{
    const unsigned char *buf = plain;
    size_t at = 0;
    while (at < len) {
        size_t end = at;
        while (end < len) {
            size_t n = len - end < BLOCK_BYTES ? len - end : BLOCK_BYTES;
            if (kfs_blk_is_zero(buf + end, n))
                break;
            end += n;
        }
        if (end > at) {
            int rc = kfs_blk_pwrite_all(fd, buf + at, end - at, off + at);
            if (rc < 0)
                return rc;
            at = end;
        } else {
            at += BLOCK_BYTES;
        }
    }
    return 0;
}

/* The map comes from a database: nothing in it is believed before it is checked. */
static int check_content(const struct kfs_content *c, struct kfs_err *err)
{
    bool ok = c->size_bytes <= (uint64_t)INT64_MAX;
    if (c->is_inline) {
        ok = ok && c->inline_len == c->size_bytes && c->inline_len <= KFS_INLINE_MAX && (c->inline_len == 0 || c->inline_data);
        return ok ? 0 : KFS_FAIL(err, EIO, "content map is damaged: inline bytes do not match the size; check the volume");
    }
    uint64_t end = 0;
    for (size_t i = 0; ok && i < c->extent_count; i++) {
        const struct kfs_extent *e = &c->extents[i];
        ok = e->object != 0 && e->len > 0 && e->off >= end && e->off % KFS_FRAME_BYTES == 0 && e->object_off <= (uint64_t)INT64_MAX &&
             e->off <= c->size_bytes && e->len <= c->size_bytes - e->off;
        end = ok ? e->off + e->len : end;
    }
    return ok ? 0 : KFS_FAIL(err, EIO, "content map is damaged: an extent overlaps or lies outside the file; check the volume");
}

static int fd_failed(int rc, struct kfs_err *err)
{
    return KFS_FAIL(err, -rc, "cannot fill a cache file: %s%s", strerror(-rc), rc == -ENOSPC ? "; make room where the cache directory lies" : "");
}

/* --- slots ------------------------------------------------------------------------------------ */

static uint64_t extent_frames(const struct kfs_extent *x)
{
    return (x->len + KFS_FRAME_BYTES - 1) / KFS_FRAME_BYTES;
}

/* The extent that has this frame of the file, or the first one behind it; extent_count: none. */
static size_t extent_from(const struct kfs_fill *f, uint64_t frame)
{
    size_t lo = 0, hi = f->content.extent_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct kfs_extent *x = &f->content.extents[mid];
        if (x->off / KFS_FRAME_BYTES + extent_frames(x) <= frame)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static size_t extent_of_slot(const struct kfs_fill *f, uint64_t slot)
{
    size_t lo = 0, hi = f->content.extent_count;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (f->slot_base[mid] <= slot)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Calls fn for each slot of frames first..last, in order, until it returns non-zero. */
typedef int slot_fn(struct kfs_fill *f, size_t extent, uint64_t slot, uint64_t frame, void *arg);
static int each_slot(struct kfs_fill *f, uint64_t first, uint64_t last, slot_fn *fn, void *arg)
{
    int rc = 0;
    for (size_t i = extent_from(f, first); rc == 0 && i < f->content.extent_count; i++) {
        uint64_t base = f->content.extents[i].off / KFS_FRAME_BYTES, end = base + extent_frames(&f->content.extents[i]);
        if (base > last)
            break;
        for (uint64_t k = first > base ? first : base; rc == 0 && k < end && k <= last; k++)
            rc = fn(f, i, f->slot_base[i] + (k - base), k, arg);
    }
    return rc;
}

static void slot_place(const struct kfs_fill *f, size_t extent, uint64_t slot, uint64_t *ret_plain, uint32_t *ret_len)
{
    const struct kfs_extent *x = &f->content.extents[extent];
    uint64_t at = (slot - f->slot_base[extent]) * KFS_FRAME_BYTES;
    *ret_plain = x->object_off + at;
    *ret_len = (uint32_t)(x->len - at < KFS_FRAME_BYTES ? x->len - at : KFS_FRAME_BYTES);
}

static int queue_slot_locked(struct kfs_fill *f, size_t extent, uint64_t slot, unsigned priority)
{
    const struct kfs_extent *x = &f->content.extents[extent];
    struct fetch_target *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->fill = f;
    t->slot = slot;
    t->frame = x->off / KFS_FRAME_BYTES + (slot - f->slot_base[extent]);
    slot_place(f, extent, slot, &t->plain_off, &t->len);
    f->slots[slot] = FETCH_SLOT_WANTED;
    f->wanted++;
    f->inner++;
    int rc = kfs_fetch_want_locked(f->e, x->object, t, priority);
    if (rc < 0) {
        f->slots[slot] = FETCH_SLOT_MISSING;
        f->wanted--;
        f->inner--;
        free(t);
    }
    return rc;
}

/* --- life ------------------------------------------------------------------------------------- */

static void fill_free(struct kfs_fill *f)
{
    if (f->fd >= 0)
        close(f->fd);
    kfs_content_release(&f->content);
    free(f->slot_base);
    free(f->slots);
    free(f->readers);
    free(f->first);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->write);
    free(f);
}

static void inner_put_locked(struct kfs_fill *f)
{
    if (--f->inner == 0)
        fill_free(f);
}

static void alls_remove_locked(struct kfs_fetch *e, struct kfs_fill *f)
{
    if (!f->in_alls)
        return;
    struct kfs_fill **p = &e->alls;
    while (*p != f)
        p = &(*p)->next_all;
    *p = f->next_all;
    if (!*p)
        e->alls_last = p;
    f->in_alls = false;
}

static void alls_add_locked(struct kfs_fetch *e, struct kfs_fill *f)
{
    if (f->in_alls)
        return;
    f->in_alls = true;
    f->next_all = NULL;
    *e->alls_last = f;
    e->alls_last = &f->next_all;
}

/* Everything is here. The descriptor goes first: one that is open for writing would forbid execve and leases. */
static void whole_locked(struct kfs_fill *f)
{
    struct kfs_fetch *e = f->e;
    __atomic_store_n(&f->whole, true, __ATOMIC_RELEASE);
    close(f->fd);
    f->fd = -1;
    alls_remove_locked(e, f);
    if (f->arrival)
        __atomic_store_n(&f->arrival->state, KFS_ARRIVAL_WHOLE, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&f->changed);
    if (f->on_whole && !f->cancelled) {
        f->calling = true;
        pthread_mutex_unlock(&e->lock);
        f->on_whole(f->arg, f);
        pthread_mutex_lock(&e->lock);
        f->calling = false;
        pthread_cond_broadcast(&f->changed);
    }
}

static void arrival_set(struct kfs_arrival *a, uint64_t frame)
{
    __atomic_fetch_or(&a->words[frame / 64], 1ULL << (frame % 64), __ATOMIC_RELEASE);
}

static void arrival_holes(struct kfs_fill *f, uint64_t from, uint64_t to)
{
    for (uint64_t k = from; k < to; k++)
        arrival_set(f->arrival, k);
}

static void arrival_begin(struct kfs_fill *f)
{
    struct kfs_arrival *a = f->arrival;
    uint64_t frames = kfs_arrival_frames(f->content.size_bytes), at = 0;
    for (size_t i = 0; i < f->content.extent_count; i++) {
        uint64_t base = f->content.extents[i].off / KFS_FRAME_BYTES;
        arrival_holes(f, at, base);
        at = base + extent_frames(&f->content.extents[i]);
    }
    arrival_holes(f, at, frames);
    a->version = KFS_ARRIVAL_VERSION;
    a->ino = f->ino;
    a->content_version = f->version;
    a->size_bytes = f->content.size_bytes;
    a->frame_count = frames;
    __atomic_store_n(&a->magic, KFS_ARRIVAL_MAGIC, __ATOMIC_RELEASE);
}

/* To nothing first: a fill that failed half-way, for lack of room say, can be tried again on the same file. */
static int file_begin(const struct kfs_content *c, int fd, struct kfs_err *err)
{
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)c->size_bytes) < 0)
        return fd_failed(-errno, err);
    int rc = c->is_inline && c->inline_len ? kfs_blk_pwrite_all(fd, c->inline_data, c->inline_len, 0) : 0;
    return rc < 0 ? fd_failed(rc, err) : 0;
}

static int slots_make(struct kfs_fill *f)
{
    size_t n = f->content.extent_count;
    f->slot_base = calloc(n + 1, sizeof *f->slot_base);
    if (!f->slot_base)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        f->slot_base[i + 1] = f->slot_base[i] + extent_frames(&f->content.extents[i]);
    f->left = f->slot_base[n];
    f->slots = calloc(f->left + 1, 1);
    return f->slots ? 0 : -ENOMEM;
}

int kfs_fill_start(struct kfs_store *s, struct kfs_content *c, kfs_ino_t ino, uint64_t version, int file_fd, struct kfs_arrival *arrival,
                   void (*on_whole)(void *arg, struct kfs_fill *f), void *arg, struct kfs_fill **ret_f, struct kfs_err *err)
{
    int rc = check_content(c, err);
    if (rc == 0)
        rc = file_begin(c, file_fd, err);
    if (rc < 0)
        return rc;
    struct kfs_fill *f = calloc(1, sizeof *f);
    if (!f)
        return KFS_FAIL(err, ENOMEM, "cannot fill a cache file: out of memory");
    *f = (struct kfs_fill){.e = s->fetch, .ino = ino, .version = version, .content = *c, .fd = -1, .arrival = arrival, .on_whole = on_whole,
                           .arg = arg, .refs = 1, .inner = 1};
    memset(c, 0, sizeof *c);
    pthread_cond_init(&f->changed, NULL);
    pthread_mutex_init(&f->write, NULL);
    f->fd = fcntl(file_fd, F_DUPFD_CLOEXEC, 3);
    if (f->fd < 0)
        rc = fd_failed(-errno, err);
    else if (slots_make(f) < 0)
        rc = KFS_FAIL(err, ENOMEM, "cannot fill a cache file: out of memory");
    struct kfs_fetch *e = s->fetch;
    pthread_mutex_lock(&e->lock);
    if (rc == 0 && f->left && (rc = kfs_fetch_start_threads_locked(e)) < 0)
        KFS_FAIL(err, -rc, "cannot start a thread: %s", strerror(-rc));
    if (rc < 0) {
        pthread_mutex_unlock(&e->lock);
        fill_free(f);
        return rc;
    }
    *ret_f = f; /* on_whole may come before return, and give f back */
    if (arrival)
        arrival_begin(f);
    if (f->left == 0)
        whole_locked(f);
    kfs_fetch_unlock(e);
    return 0;
}

struct kfs_fill *kfs_fill_ref(struct kfs_fill *f)
{
    pthread_mutex_lock(&f->e->lock);
    f->refs++;
    pthread_mutex_unlock(&f->e->lock);
    return f;
}

static void cancel_locked(struct kfs_fill *f)
{
    f->cancelled = true;
    alls_remove_locked(f->e, f);
    pthread_cond_broadcast(&f->changed);
}

void kfs_fill_unref(struct kfs_fill *f)
{
    if (!f)
        return;
    struct kfs_fetch *e = f->e;
    pthread_mutex_lock(&e->lock);
    if (--f->refs == 0) {
        cancel_locked(f);
        while (f->calling)
            pthread_cond_wait(&f->changed, &e->lock);
        inner_put_locked(f);
    }
    kfs_fetch_unlock(e);
}

void kfs_fill_cancel(struct kfs_fill *f)
{
    pthread_mutex_lock(&f->e->lock);
    cancel_locked(f);
    kfs_fetch_unlock(f->e);
}

bool kfs_fill_is_whole(const struct kfs_fill *f)
{
    return __atomic_load_n(&f->whole, __ATOMIC_ACQUIRE);
}

int kfs_fill_state(struct kfs_fill *f)
{
    pthread_mutex_lock(&f->e->lock);
    int rc = f->whole ? 1 : f->failed ? -f->err.code : 0;
    pthread_mutex_unlock(&f->e->lock);
    return rc;
}

/* --- arriving --------------------------------------------------------------------------------- */

static void waiters_tell_locked(struct kfs_fill *f, uint64_t frame, int rc, const struct kfs_err *err)
{
    bool tell = false;
    for (struct fetch_waiter *w = f->waiters; w; w = w->next) {
        if (frame < w->first || frame > w->last)
            continue;
        if (rc < 0 && w->rc == 0) {
            w->rc = rc;
            w->err = err ? *err : (struct kfs_err){0};
        }
        w->pending--;
        tell = tell || w->pending == 0 || w->rc < 0;
    }
    if (tell)
        pthread_cond_broadcast(&f->changed);
}

static void slot_failed_locked(struct kfs_fill *f, uint64_t slot, int rc, const struct kfs_err *err)
{
    f->slots[slot] = FETCH_SLOT_FAILED;
    if (f->failed++ == 0)
        f->err = err && err->code ? *err : (struct kfs_err){.code = -rc};
    if (f->arrival) {
        __atomic_store_n(&f->arrival->error, -rc, __ATOMIC_RELAXED);
        __atomic_store_n(&f->arrival->state, KFS_ARRIVAL_FAILED, __ATOMIC_RELEASE);
    }
    if (f->all)
        pthread_cond_broadcast(&f->changed);
}

void kfs_fetch_arrived_locked(struct kfs_fetch *e, struct fetch_target *t, int rc, const struct kfs_err *err)
{
    (void)e;
    struct kfs_fill *f = t->fill;
    uint64_t slot = t->slot, frame = t->frame;
    free(t);
    f->wanted--;
    if (f->cancelled) {
        f->slots[slot] = FETCH_SLOT_MISSING;
        inner_put_locked(f);
        return;
    }
    if (rc < 0) {
        slot_failed_locked(f, slot, rc, err);
    } else {
        f->slots[slot] = FETCH_SLOT_PRESENT;
        f->left--;
        if (f->arrival)
            arrival_set(f->arrival, frame);
    }
    waiters_tell_locked(f, frame, rc, err);
    if (rc == 0 && f->left == 0)
        whole_locked(f);
    inner_put_locked(f);
}

/* --- wanting ---------------------------------------------------------------------------------- */

/* A failure is forgotten when somebody tries again. */
static void forget_failure_locked(struct kfs_fill *f)
{
    if (f->arrival && __atomic_load_n(&f->arrival->state, __ATOMIC_RELAXED) == KFS_ARRIVAL_FAILED)
        __atomic_store_n(&f->arrival->state, KFS_ARRIVAL_ARRIVING, __ATOMIC_RELEASE);
}

static int want_slot(struct kfs_fill *f, size_t extent, uint64_t slot, uint64_t frame, void *arg)
{
    struct fetch_waiter *w = arg;
    (void)frame;
    uint64_t plain;
    uint32_t len;
    switch (f->slots[slot]) {
    case FETCH_SLOT_PRESENT:
        return 0;
    case FETCH_SLOT_WANTED:
        slot_place(f, extent, slot, &plain, &len);
        kfs_fetch_raise_locked(f->e, f->content.extents[extent].object, plain, KFS_DRV_WAITING);
        w->pending++;
        return 0;
    default:
        /* Counted before it is asked for: it may fail at once. */
        w->pending++;
        return queue_slot_locked(f, extent, slot, KFS_DRV_WAITING);
    }
}

static int ahead_slot(struct kfs_fill *f, size_t extent, uint64_t slot, uint64_t frame, void *arg)
{
    (void)frame;
    (void)arg;
    return f->slots[slot] == FETCH_SLOT_MISSING ? queue_slot_locked(f, extent, slot, KFS_DRV_AHEAD) : 0;
}

static struct kfs_readahead *reader_locked(struct kfs_fill *f, uint64_t reader)
{
    if (!f->readers && !(f->readers = calloc(FETCH_READERS, sizeof *f->readers)))
        return NULL;
    struct kfs_readahead *r = f->readers;
    for (unsigned i = 0; i < FETCH_READERS; i++) {
        if (f->readers[i].reader == reader) {
            r = &f->readers[i];
            break;
        }
        if (f->readers[i].used < r->used)
            r = &f->readers[i];
    }
    if (r->reader != reader)
        *r = (struct kfs_readahead){.reader = reader};
    r->used = ++f->tick;
    return r;
}

static void read_ahead_locked(struct kfs_fill *f, uint64_t reader, uint64_t first, uint64_t last)
{
    struct kfs_readahead *r = reader ? reader_locked(f, reader) : NULL;
    struct kfs_ahead a = {0};
    if (r)
        kfs_readahead_step(r, (int64_t)first, (int64_t)last, kfs_fetch_window_locked(f->e), &a);
    int64_t frames = (int64_t)kfs_arrival_frames(f->content.size_bytes);
    for (int64_t i = 0; i < a.count; i++) {
        int64_t from = a.at + i * a.step, to = from + a.len - 1;
        if (to < 0 || from >= frames)
            break;
        if (each_slot(f, from < 0 ? 0 : (uint64_t)from, (uint64_t)to, ahead_slot, NULL) < 0)
            break;
    }
}

static void waiter_remove_locked(struct kfs_fill *f, const struct fetch_waiter *w)
{
    struct fetch_waiter **p = &f->waiters;
    while (*p != w)
        p = &(*p)->next;
    *p = w->next;
}

int kfs_fill_want(struct kfs_fill *f, uint64_t reader, uint64_t off, uint64_t len, struct kfs_err *err)
{
    uint64_t size = f->content.size_bytes;
    if (len == 0 || off >= size)
        return 0;
    if (len > size - off)
        len = size - off;
    struct fetch_waiter w = {.first = off / KFS_FRAME_BYTES, .last = (off + len - 1) / KFS_FRAME_BYTES};
    struct kfs_fetch *e = f->e;
    pthread_mutex_lock(&e->lock);
    if (f->cancelled) {
        pthread_mutex_unlock(&e->lock);
        return -EINTR;
    }
    if (f->whole) {
        pthread_mutex_unlock(&e->lock);
        return 0;
    }
    f->inner++;
    w.next = f->waiters;
    /* cppcheck-suppress autoVariables ; out of the list before return */
    f->waiters = &w;
    forget_failure_locked(f);
    int rc = each_slot(f, w.first, w.last, want_slot, &w);
    if (rc == 0) {
        read_ahead_locked(f, reader, w.first, w.last);
        kfs_fetch_unlock(e);
        pthread_mutex_lock(&e->lock);
        while (w.pending && w.rc == 0 && !f->cancelled)
            pthread_cond_wait(&f->changed, &e->lock);
        rc = w.rc < 0 ? w.rc : w.pending ? -EINTR : 0;
    }
    waiter_remove_locked(f, &w);
    if (rc < 0 && w.rc < 0 && err && w.err.code)
        *err = w.err;
    inner_put_locked(f);
    kfs_fetch_unlock(e);
    return rc;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void refill_slot_locked(struct kfs_fill *f, size_t extent, uint64_t slot, int *ret_rc)
{
    if (f->slots[slot] == FETCH_SLOT_MISSING)
        *ret_rc = queue_slot_locked(f, extent, slot, f->all_priority);
}

static int refill_first_slot(struct kfs_fill *f, size_t extent, uint64_t slot, uint64_t frame, void *arg)
{
    (void)arg;
    int rc = 0;
    f->first_pos = frame + 1;
    refill_slot_locked(f, extent, slot, &rc);
    return rc < 0 ? rc : f->wanted >= ALL_SLOTS;
}

/* The ranges to start with, then the rest in order. */
static int refill_fill_locked(struct kfs_fill *f)
{
    int rc = 0;
    while (rc == 0 && f->first_at < f->first_count && f->wanted < ALL_SLOTS) {
        const struct kfs_range *r = &f->first[f->first_at];
        uint64_t from = r->off / KFS_FRAME_BYTES, last = (r->off + r->len - 1) / KFS_FRAME_BYTES;
        if (f->first_pos < from)
            f->first_pos = from;
        rc = f->first_pos <= last ? each_slot(f, f->first_pos, last, refill_first_slot, NULL) : 0;
        if (rc == 0) {
            f->first_at++;
            f->first_pos = 0;
        }
    }
    if (rc < 0)
        return rc;
    uint64_t end = f->slot_base[f->content.extent_count];
    size_t x = f->cursor < end ? extent_of_slot(f, f->cursor) : 0;
    for (rc = 0; rc == 0 && f->cursor < end && f->wanted < ALL_SLOTS && f->first_at == f->first_count; f->cursor++) {
        while (f->slot_base[x + 1] <= f->cursor)
            x++;
        refill_slot_locked(f, x, f->cursor, &rc);
        if (rc < 0)
            break;
    }
    return rc;
}

void kfs_fetch_refill_locked(struct kfs_fetch *e)
{
    for (struct kfs_fill *f = e->alls, *next; f; f = next) {
        next = f->next_all;
        int rc = f->wanted < ALL_SLOTS ? refill_fill_locked(f) : 0;
        if (rc < 0 && f->wanted == 0) { /* no memory, and nothing of it under way whose end would try again */
            slot_failed_locked(f, f->cursor, rc, NULL);
            alls_remove_locked(e, f);
        } else if (f->cursor >= f->slot_base[f->content.extent_count]) {
            alls_remove_locked(e, f);
        }
    }
}

static int raise_slot(struct kfs_fill *f, size_t extent, uint64_t slot, uint64_t frame, void *arg)
{
    (void)frame;
    (void)arg;
    uint64_t plain;
    uint32_t len;
    if (f->slots[slot] == FETCH_SLOT_WANTED) {
        slot_place(f, extent, slot, &plain, &len);
        kfs_fetch_raise_locked(f->e, f->content.extents[extent].object, plain, f->all_priority);
    }
    return 0;
}

void kfs_fill_all(struct kfs_fill *f, const struct kfs_range *first, size_t count, enum kfs_drv_priority p)
{
    struct kfs_range *copy = count ? malloc(count * sizeof *copy) : NULL;
    struct kfs_fetch *e = f->e;
    pthread_mutex_lock(&e->lock);
    if (f->whole || f->cancelled) {
        kfs_fetch_unlock(e);
        free(copy);
        return;
    }
    bool better = !f->all || (unsigned)p < f->all_priority;
    if (better)
        f->all_priority = (uint8_t)p;
    if (copy) {
        size_t n = 0;
        for (size_t i = 0; i < count; i++)
            if (first[i].len && first[i].off < f->content.size_bytes && first[i].len <= f->content.size_bytes - first[i].off)
                copy[n++] = first[i];
        free(f->first);
        f->first = copy;
        f->first_count = n;
        f->first_at = 0;
        f->first_pos = 0;
    }
    uint64_t slots = f->slot_base[f->content.extent_count];
    if (f->failed) {
        for (uint64_t i = 0; i < slots; i++)
            if (f->slots[i] == FETCH_SLOT_FAILED)
                f->slots[i] = FETCH_SLOT_MISSING;
        f->failed = 0;
        f->cursor = 0;
        forget_failure_locked(f);
    }
    if (!f->all)
        f->cursor = 0;
    f->all = true;
    if (better && f->wanted && slots)
        (void)each_slot(f, 0, kfs_arrival_frames(f->content.size_bytes) - 1, raise_slot, NULL);
    alls_add_locked(e, f);
    kfs_fetch_unlock(e);
}

int kfs_fill_wait(struct kfs_fill *f, struct kfs_err *err)
{
    struct kfs_fetch *e = f->e;
    pthread_mutex_lock(&e->lock);
    f->inner++;
    while (!f->whole && !f->cancelled && !f->failed)
        pthread_cond_wait(&f->changed, &e->lock);
    int rc = f->whole ? 0 : f->cancelled ? -EINTR : -f->err.code;
    if (rc < 0 && rc != -EINTR && err)
        *err = f->err;
    inner_put_locked(f);
    pthread_mutex_unlock(&e->lock);
    return rc;
}

int kfs_fill_each_object(struct kfs_fill *f, int (*cb)(void *arg, uint64_t object), void *arg)
{
    struct kfs_fetch *e = f->e;
    pthread_mutex_lock(&e->lock);
    size_t n = 0;
    uint64_t *ids = f->whole || f->cancelled ? NULL : malloc((f->content.extent_count + 1) * sizeof *ids);
    for (size_t i = 0; ids && i < f->content.extent_count; i++) {
        uint64_t k = f->slot_base[i];
        while (k < f->slot_base[i + 1] && f->slots[k] == FETCH_SLOT_PRESENT)
            k++;
        if (k < f->slot_base[i + 1])
            ids[n++] = f->content.extents[i].object;
    }
    bool enomem = !ids && !f->whole && !f->cancelled;
    pthread_mutex_unlock(&e->lock);
    int rc = enomem ? -ENOMEM : 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = cb(arg, ids[i]);
    free(ids);
    return rc;
}

/* --- the waiting form ------------------------------------------------------------------------- */

static int content_copy(const struct kfs_content *c, struct kfs_content *ret)
{
    *ret = *c;
    ret->inline_data = NULL;
    ret->extents = NULL;
    if (c->is_inline && c->inline_len && c->inline_data && c->inline_len <= KFS_INLINE_MAX) {
        ret->inline_data = malloc(c->inline_len);
        if (!ret->inline_data)
            return -ENOMEM;
        memcpy(ret->inline_data, c->inline_data, c->inline_len);
    }
    if (c->extent_count) {
        ret->extents = malloc(c->extent_count * sizeof *c->extents);
        if (!ret->extents) {
            free(ret->inline_data);
            return -ENOMEM;
        }
        memcpy(ret->extents, c->extents, c->extent_count * sizeof *c->extents);
    }
    return 0;
}

int kfs_store_fill(struct kfs_store *s, const struct kfs_content *c, int fd, struct kfs_err *err)
{
    struct kfs_content copy;
    struct kfs_fill *f = NULL;
    if (content_copy(c, &copy) < 0)
        return KFS_FAIL(err, ENOMEM, "cannot fill a cache file: out of memory");
    int rc = kfs_fill_start(s, &copy, 0, 0, fd, NULL, NULL, NULL, &f, err);
    kfs_content_release(&copy);
    if (rc == 0) {
        kfs_fill_all(f, NULL, 0, KFS_DRV_WAITING);
        rc = kfs_fill_wait(f, err);
    }
    kfs_fill_unref(f);
    if (rc < 0)
        (void)!ftruncate(fd, 0); /* nobody shall take a part for the whole */
    return rc;
}
