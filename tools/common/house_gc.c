/* Housekeeping: objects that nothing names. */
#include "tools/common/house.h"

#include "base/fault.h"
#include "base/map.h"
#include "blockstore/driver.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define AT_ONCE     1000          /* ids in one batch: as many as one request of an object service deletes */
#define UNKNOWN_MAX (1u << 20)    /* ids remembered while listing; more: list again after these are gone */
#define UNSURE      "objects_unsure_from"

/* --- what fills may still read -------------------------------------------------------------------------------------- */

static int in_use_add(void *arg, uint64_t object)
{
    static char there;
    return object ? kfs_map_put(arg, object, &there, NULL) : 0;
}

/* Asked after the garbage was listed: whoever reads one of those got its name before it became garbage, a whole grace time ago. */
static int in_use_read(struct kfs_house *h, struct kfs_map *m, struct kfs_err *err)
{
    kfs_map_init(m);
    if (h->each_in_use && h->each_in_use(h->arg, in_use_add, m) < 0) {
        kfs_map_release(m);
        return KFS_FAIL(err, ENOMEM, "out of memory for a list of objects in use");
    }
    return 0;
}

/* --- the garbage list ----------------------------------------------------------------------------------------------- */

static int delete_batch(struct kfs_house *h, uint64_t *ids, size_t count, struct kfs_err *err)
{
    int n = count ? kfs_meta_garbage_doom(h->meta, ids, count, err) : 0;
    if (n <= 0)
        return n;
    KFS_FAULT("gc.doomed");
    int rc = kfs_store_delete_many(h->store, ids, (size_t)n, err);
    KFS_FAULT("gc.deleted");
    if (rc == 0)
        rc = kfs_meta_garbage_forget(h->meta, ids, (size_t)n, err);
    return rc < 0 ? rc : n;
}

static int gc_listed(struct kfs_house *h, const struct kfs_gc_options *o, struct kfs_gc_result *r, struct kfs_err *err)
{
    struct kfs_meta_garbage g[AT_ONCE];
    uint64_t ids[AT_ONCE], after = 0;
    for (int n = AT_ONCE; n == AT_ONCE && !kfs_house_stopped(h);) {
        struct kfs_map used;
        size_t count = 0;
        uint64_t bytes = 0;
        n = kfs_meta_garbage_list(h->meta, o->grace_s, after, g, AT_ONCE, err);
        int rc = n <= 0 ? n : in_use_read(h, &used, err);
        if (n <= 0 || rc < 0)
            return rc;
        for (int i = 0; i < n; i++) {
            after = g[i].id;
            if (kfs_map_get(&used, g[i].id)) {
                r->in_use++;
                continue;
            }
            ids[count++] = g[i].id;
            bytes += g[i].bytes;
        }
        kfs_map_release(&used);
        rc = o->dry_run ? (int)count : delete_batch(h, ids, count, err);
        if (rc < 0)
            return rc;
        r->objects += (uint64_t)rc;
        r->bytes += bytes;
        atomic_fetch_add(&h->done, (unsigned long long)n);
    }
    return 0;
}

/* --- what is in the store ------------------------------------------------------------------------------------------- */

struct listing {
    struct kfs_house *h;
    struct kfs_gc_result *r;
    uint64_t *ids;
    size_t count, cap;
    uint64_t known;
    struct kfs_err *err;
    int rc;
};

static int listing_add(struct listing *l, uint64_t object)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 1024;
        uint64_t *more = realloc(l->ids, cap * sizeof *more);
        if (!more)
            return KFS_FAIL(l->err, ENOMEM, "out of memory for a list of objects");
        l->ids = more;
        l->cap = cap;
    }
    l->ids[l->count++] = object;
    return 0;
}

static int look_at(void *arg, uint64_t object, uint64_t bytes)
{
    struct listing *l = arg;
    if (kfs_house_stopped(l->h))
        return 1;
    l->r->listed++;
    atomic_fetch_add(&l->h->done, 1);
    if (object >= l->h->first_object)
        return 0; /* may be under way */
    int known = kfs_meta_object_known(l->h->meta, object, l->err);
    l->rc = known < 0 ? known : known ? 0 : listing_add(l, object);
    if (l->rc < 0)
        return 1;
    if (!known) {
        l->r->unknown++;
        l->r->unknown_bytes += bytes;
    }
    return l->count == UNKNOWN_MAX;
}

static int gc_full(struct kfs_house *h, const struct kfs_gc_options *o, struct kfs_gc_result *r, struct kfs_err *err)
{
    struct listing l = {.h = h, .r = r, .err = err};
    int rc;
    do {
        l.count = 0;
        r->listed = 0;
        rc = kfs_store_each(h->store, look_at, &l, err);
        rc = l.rc < 0 ? l.rc : rc < 0 ? rc : 0;
        for (size_t at = 0; rc == 0 && !o->dry_run && at < l.count && !kfs_house_stopped(h); at += AT_ONCE) {
            rc = kfs_store_delete_many(h->store, l.ids + at, l.count - at < AT_ONCE ? l.count - at : AT_ONCE, err);
            KFS_FAULT("gc.unknown.deleted");
        }
    } while (rc == 0 && l.count == UNKNOWN_MAX && !o->dry_run && !kfs_house_stopped(h));
    free(l.ids);
    return rc;
}

int kfs_house_gc(struct kfs_house *h, const struct kfs_gc_options *o, struct kfs_gc_result *ret, struct kfs_err *err)
{
    struct kfs_gc_result r = {0};
    uint64_t due = 0, due_bytes = 0;
    h->phase = "garbage";
    h->done = h->total = 0;
    int rc = kfs_meta_garbage_sum(h->meta, o->grace_s, &due, &due_bytes, err);
    if (rc == 0)
        rc = kfs_meta_garbage_sum(h->meta, 0, &r.waiting, &r.waiting_bytes, err);
    h->total = due;
    r.waiting -= r.waiting < due ? r.waiting : due;
    r.waiting_bytes -= r.waiting_bytes < due_bytes ? r.waiting_bytes : due_bytes;
    if (rc == 0)
        rc = gc_listed(h, o, &r, err);
    if (rc == 0 && o->full) {
        h->phase = "listing the store";
        h->done = h->total = 0;
        rc = gc_full(h, o, &r, err);
    }
    if (rc == 0 && o->uploads && !o->dry_run) {
        h->phase = "unfinished uploads";
        int64_t n = kfs_drv_upload_sweep(kfs_store_driver(h->store), KFS_HOUSE_UPLOAD_AGE_S, err);
        r.uploads = n > 0 ? (uint64_t)n : 0;
        rc = n < 0 ? (int)n : 0;
    }
    *ret = r;
    return rc < 0 ? rc : kfs_house_stopped(h) ? -ECANCELED : 0;
}

/* --- what crashed sessions left ------------------------------------------------------------------------------------- */

static int unsure_set(struct kfs_house *h, uint64_t from, struct kfs_err *err)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)from);
    int rc = kfs_meta_setting_set(h->meta, UNSURE, text, err);
    return rc < 0 ? rc : kfs_meta_sync(h->meta, err);
}

int kfs_house_session_begin(struct kfs_house *h, bool unclean, uint64_t *ret_from, struct kfs_err *err)
{
    char text[32];
    int rc = kfs_meta_setting_get(h->meta, UNSURE, text, sizeof text, err);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    uint64_t from = rc == 0 ? strtoull(text, NULL, 10) : unclean ? 1 : 0;
    if (from == 0 || from > h->first_object)
        from = h->first_object;
    *ret_from = from;
    return unsure_set(h, from, err);
}

int kfs_house_session_sweep(struct kfs_house *h, uint64_t from, uint64_t *ret_count, struct kfs_err *err)
{
    uint64_t ids[AT_ONCE], count = 0;
    int rc = 0;
    h->phase = "left by a crash";
    h->done = 0;
    h->total = h->first_object - from;
    while (rc == 0 && from < h->first_object && !kfs_house_stopped(h)) {
        int n = kfs_meta_object_gaps(h->meta, &from, h->first_object, ids, AT_ONCE, err);
        rc = n > 0 ? kfs_store_delete_many(h->store, ids, (size_t)n, err) : n;
        KFS_FAULT("sweep.deleted");
        count += n > 0 && rc == 0 ? (uint64_t)n : 0;
        h->done = h->total - (h->first_object - from);
    }
    *ret_count = count;
    if (rc < 0 || from < h->first_object)
        return rc < 0 ? rc : -ECANCELED;
    return unsure_set(h, h->first_object, err);
}

int kfs_house_session_end(struct kfs_house *h, struct kfs_err *err)
{
    return unsure_set(h, 0, err);
}
