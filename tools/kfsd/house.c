/* The housekeeper: what crashed sessions left, garbage, unfinished uploads; and collections that people ask for. */
#include "tools/common/house.h"
#include "base/clock.h"
#include "tools/kfsd/arrive.h"
#include "tools/kfsd/kfsd.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COLLECT_NS (10ULL * 1000000000)
#define UPLOADS_NS (3600ULL * 1000000000)
#define RETRY_NS (60ULL * 1000000000)     /* after a failure: the store is away */
#define ABANDONED_NS (30ULL * 1000000000) /* nobody asks for a job's state any more: it ends */

enum job_state { JOB_NONE, JOB_QUEUED, JOB_RUNNING, JOB_DONE, JOB_FAILED };

/* `lock` guards `end` and the job; the rest is the thread's, but for the atomics. */
struct kfsd_house {
    struct kfsd_vol *v;
    struct kfs_house h;
    pthread_t thread;
    bool running;
    uint64_t sweep_from;
    bool swept;       /* no earlier session is unsure; read by others once the thread has ended */
    atomic_bool halt; /* what is under way ends */

    pthread_mutex_t lock;
    pthread_cond_t work; /* monotonic clock */
    bool end;            /* the thread ends */
    struct {
        unsigned id;
        enum job_state state;
        struct kfs_gc_options gc;
        uint64_t asked_ns;
        struct kfs_gc_result result;
        struct kfs_err err;
    } job;
};

/* ---- in the background ------------------------------------------------------------------------------------------------- */

static void sweep_sessions(struct kfsd_house *k)
{
    static struct kfs_log_limit limit;
    uint64_t n = 0;
    struct kfs_err err = {0};
    int r = kfs_house_session_sweep(&k->h, k->sweep_from, &n, &err);
    k->swept = r == 0;
    if (r == 0 && n)
        kfs_log(KFS_LOG_INFO, "'%s': what a crash may have left in the store is removed (%llu ids)", k->v->v->url, (unsigned long long)n);
    if (r < 0 && r != -ECANCELED)
        kfs_log_limited(&limit, KFS_LOG_WARN, "'%s': what a crash left in the store stays for now: %s", k->v->v->url, err.msg);
}

static int64_t grace_s(void)
{
    return (int64_t)kfs_conf_number(&kfsd.conf, KFS_CONF_GC_GRACE_S);
}

/* Nanoseconds until the next time. */
static uint64_t background(struct kfsd_house *k, uint64_t *uploads_due_ns)
{
    static struct kfs_log_limit limit;
    if (!k->swept)
        sweep_sessions(k);
    uint64_t now = kfs_clock_mono_ns();
    const struct kfs_gc_options o = {.grace_s = grace_s(), .uploads = now >= *uploads_due_ns};
    struct kfs_gc_result r;
    struct kfs_err err = {0};
    int rc = kfs_house_gc(&k->h, &o, &r, &err);
    if (rc == 0 && o.uploads)
        *uploads_due_ns = now + UPLOADS_NS;
    if (rc == 0 && r.uploads)
        kfs_log(KFS_LOG_INFO, "'%s': %llu unfinished uploads aborted", k->v->v->url, (unsigned long long)r.uploads);
    if (rc < 0 && rc != -ECANCELED)
        kfs_log_limited(&limit, KFS_LOG_WARN, "'%s': garbage stays in the store for now: %s", k->v->v->url, err.msg);
    return rc < 0 || !k->swept ? RETRY_NS : COLLECT_NS;
}

static void job_run_locked(struct kfsd_house *k)
{
    const struct kfs_gc_options o = k->job.gc;
    struct kfs_gc_result result = {0};
    struct kfs_err err = {0};
    k->job.state = JOB_RUNNING;
    pthread_mutex_unlock(&k->lock);
    int r = kfs_house_gc(&k->h, &o, &result, &err);
    if (r == -ECANCELED)
        (void)KFS_FAIL(&err, ECANCELED, "stopped; what was done stays done, and the next run goes on from there");
    else if (r < 0 && !err.code)
        (void)KFS_FAIL(&err, -r, "%s", strerror(-r));
    pthread_mutex_lock(&k->lock);
    k->job.result = result;
    k->job.err = err;
    k->job.state = r < 0 ? JOB_FAILED : JOB_DONE;
    if (!k->end)
        atomic_store(&k->halt, false);
}

static void *house_main(void *arg)
{
    struct kfsd_house *k = arg;
    uint64_t next_ns = 0, uploads_due_ns = 0;
    pthread_mutex_lock(&k->lock);
    while (!k->end) {
        struct timespec until = {.tv_sec = (time_t)(next_ns / 1000000000), .tv_nsec = (long)(next_ns % 1000000000)};
        if (k->job.state == JOB_QUEUED) {
            job_run_locked(k);
        } else if (kfs_clock_mono_ns() >= next_ns) {
            pthread_mutex_unlock(&k->lock);
            next_ns = background(k, &uploads_due_ns);
            next_ns += kfs_clock_mono_ns();
            pthread_mutex_lock(&k->lock);
        } else {
            (void)pthread_cond_timedwait(&k->work, &k->lock, &until);
        }
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static int each_in_use(void *vol, int (*cb)(void *arg, uint64_t object), void *arg)
{
    return kfsd_arrive_each_object(vol, cb, arg);
}

int kfsd_house_start(struct kfsd_vol *v, struct kfs_err *err)
{
    struct kfsd_house *k = calloc(1, sizeof *k);
    if (!k)
        return KFS_FAIL(err, ENOMEM, "out of memory");
    k->v = v;
    k->h.meta = v->meta;
    k->h.store = v->store;
    k->h.first_object = v->first_object;
    k->h.each_in_use = each_in_use;
    k->h.arg = v;
    k->h.stop = &k->halt;
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->work, &a);
    pthread_condattr_destroy(&a);
    v->house = k;
    return kfs_house_session_begin(&k->h, v->v->unclean, &k->sweep_from, err);
}

int kfsd_house_run(struct kfsd_vol *v, struct kfs_err *err)
{
    int r = pthread_create(&v->house->thread, NULL, house_main, v->house);
    if (r)
        return KFS_FAIL(err, r, "cannot start a thread: %s", strerror(r));
    v->house->running = true;
    return 0;
}

void kfsd_house_halt(struct kfsd_vol *v)
{
    struct kfsd_house *k = v->house;
    if (!k || !k->running)
        return;
    pthread_mutex_lock(&k->lock);
    k->end = true;
    atomic_store(&k->halt, true);
    pthread_cond_signal(&k->work);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    k->running = false;
}

void kfsd_house_stop(struct kfsd_vol *v, bool clean)
{
    struct kfsd_house *k = v->house;
    if (!k)
        return;
    kfsd_house_halt(v);
    struct kfs_err err = {0};
    if (clean && k->swept && kfs_house_session_end(&k->h, &err) < 0)
        kfs_log(KFS_LOG_WARN, "'%s': %s", v->v->url, err.msg);
    pthread_cond_destroy(&k->work);
    pthread_mutex_destroy(&k->lock);
    v->house = NULL;
    free(k);
}

void kfsd_house_tick(struct kfsd_vol *v)
{
    struct kfsd_house *k = v->house;
    pthread_mutex_lock(&k->lock);
    if (k->job.state == JOB_RUNNING && kfs_clock_mono_ns() - k->job.asked_ns > ABANDONED_NS)
        atomic_store(&k->halt, true);
    pthread_mutex_unlock(&k->lock);
}

/* ---- jobs ---------------------------------------------------------------------------------------------------------------- */

static int options_parse(char *text, struct kfs_gc_options *o, struct kfs_err *err)
{
    char *save = NULL, *end;
    *o = (struct kfs_gc_options){.dry_run = true, .grace_s = grace_s()};
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        if (strcmp(w, "delete") == 0) {
            o->dry_run = false;
        } else if (strcmp(w, "full") == 0) {
            o->full = o->uploads = true;
        } else if (strncmp(w, "grace=", 6) == 0) {
            o->grace_s = strtol(w + 6, &end, 10);
            if (!isdigit((unsigned char)w[6]) || *end || o->grace_s > INT32_MAX)
                return KFS_FAIL(err, EINVAL, "'%.50s' is not a number of seconds", w + 6);
        } else {
            return KFS_FAIL(err, EINVAL, "unknown option '%.50s'; use delete, full or grace=SECONDS", w);
        }
    }
    return 0;
}

int kfsd_house_gc(struct kfsd_vol *v, char *options, unsigned *ret_id, struct kfs_err *err)
{
    struct kfsd_house *k = v->house;
    struct kfs_gc_options o;
    int r = options_parse(options, &o, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&k->lock);
    if (k->job.state == JOB_QUEUED || k->job.state == JOB_RUNNING) {
        r = KFS_FAIL(err, EBUSY, "a collection that somebody asked for is under way on this volume; wait for its end");
    } else {
        *ret_id = ++k->job.id;
        k->job.state = JOB_QUEUED;
        k->job.gc = o;
        k->job.asked_ns = kfs_clock_mono_ns();
        pthread_cond_signal(&k->work);
    }
    pthread_mutex_unlock(&k->lock);
    return r;
}

static void put(struct kfs_buf *b, const char *key, uint64_t value)
{
    kfs_buf_printf(b, ",\"%s\":%llu", key, (unsigned long long)value);
}

static void put_result(struct kfs_buf *b, const struct kfs_gc_options *o, const struct kfs_gc_result *g)
{
    kfs_buf_printf(b, ",\"result\":{\"deleted\":%s", o->dry_run ? "false" : "true");
    put(b, "objects", g->objects);
    put(b, "bytes", g->bytes);
    put(b, "waiting", g->waiting);
    put(b, "waiting_bytes", g->waiting_bytes);
    put(b, "in_use", g->in_use);
    if (o->full) {
        put(b, "listed", g->listed);
        put(b, "unknown", g->unknown);
        put(b, "unknown_bytes", g->unknown_bytes);
        put(b, "uploads", g->uploads);
    }
    kfs_buf_append_str(b, "}");
}

int kfsd_house_job_show(struct kfsd_vol *v, unsigned id, struct kfs_buf *b, struct kfs_err *err)
{
    static const char *const states[] = {"none", "queued", "running", "done", "failed"};
    struct kfsd_house *k = v->house;
    pthread_mutex_lock(&k->lock);
    if (id == 0 || id != k->job.id) {
        pthread_mutex_unlock(&k->lock);
        return KFS_FAIL(err, ENOENT, "there is no job %u any more; start it again", id);
    }
    k->job.asked_ns = kfs_clock_mono_ns();
    enum job_state s = k->job.state;
    const char *phase = atomic_load(&k->h.phase);
    kfs_buf_printf(b, "{\"job\":%u,\"state\":\"%s\",\"phase\":\"%s\"", id, states[s], s == JOB_RUNNING && phase ? phase : "");
    put(b, "done", atomic_load(&k->h.done));
    put(b, "total", atomic_load(&k->h.total));
    if (s == JOB_FAILED) {
        kfs_buf_append_str(b, ",\"error\":");
        kfs_buf_json_string(b, k->job.err.msg, strlen(k->job.err.msg));
    }
    if (s == JOB_DONE || s == JOB_FAILED)
        put_result(b, &k->job.gc, &k->job.result);
    pthread_mutex_unlock(&k->lock);
    return kfs_buf_append_str(b, "}");
}
