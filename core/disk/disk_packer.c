/* SPDX-License-Identifier: Apache-2.0 */
/* Mirror streams through a compressor's thread: see disk_packer.h. */
#include "core/disk/disk_packer.h"

#include <errno.h>
#include <time.h>

#include "core/base/background.h"
#include "core/base/clock.h"
#include "core/base/macros.h"
#include "core/move/codec_level.h"
#include "core/worker.h"
#include "storage/mirror_pack.h"

enum {
    PACKER_JOBS = 3,
    /* Guests come first; but no piece may pass another, so it must not starve either. */
    WORKER_NICE = 5,
    /* Not worth the way to the thread and back: a word or two. */
    PACK_LEAST_BYTES = 512,
    /* On a slow line no more is pulled than leaves soon. */
    PULL_LEAST_BYTES = 64 * 1024,
    LEVEL_LEAST = -5,
    /* Where it starts, too, because QEMU's copy starts slowly: 90 MB/s of files on one core, 0.41 of raw. Level 3 does
     * 220 MB/s at 0.43; beyond 7, speed falls steeply for little. */
    LEVEL_MOST = 7,
};

enum job_state { JOB_FREE, JOB_AT_WORK, JOB_BACK };

struct pack_job {
    struct worker_job job;
    struct disk_packer *packer;
    struct mirror_packer *engine;
    enum job_state state;
    bool plain;
    int level, result;
    uint64_t cpu_ns;
    struct buffer in, out;
};

struct disk_packing {
    struct worker *worker;
    unsigned window_log;
    bool adapts;
    struct codec_level level;
    uint64_t cpu_ns;
};

struct disk_packer {
    struct disk_packing *packing;
    struct mirror_packer *engine; /* the thread's while a job is at work */
    struct pack_job jobs[PACKER_JOBS];
    unsigned first, count; /* the oldest that is not free, and how many are not */
    unsigned at_work;
    uint64_t sent_bytes;
    void (*on_progress)(void *user);
    void *user;
    int fault;
    bool freed;
};

/* --- on the thread ------------------------------------------------------------------------- */

static void pack(struct pack_job *j)
{
    j->result = mirror_packer_pack(j->engine, j->level, j->plain, buffer_data(&j->in),
                                   buffer_len(&j->in), &j->out);
}

static void run_job(struct worker_job *job)
{
    struct pack_job *j = container_of(job, struct pack_job, job);
    uint64_t start_ns = clock_thread_cpu_ns();

    background_thread(WORKER_NICE);
    pack(j);
    j->cpu_ns = clock_thread_cpu_ns() - start_ns;
}

/* --- on the loop --------------------------------------------------------------------------- */

static void free_all(struct disk_packer *p)
{
    for (unsigned i = 0; i < PACKER_JOBS; i++) {
        buffer_done(&p->jobs[i].in);
        buffer_done(&p->jobs[i].out);
    }
    mirror_packer_free(p->engine);
    free(p);
}

static void came_back(struct pack_job *j)
{
    j->state = JOB_BACK;
    if (j->result < 0 && !j->packer->fault)
        j->packer->fault = j->result;
}

static void done_job(struct worker_job *job)
{
    struct pack_job *j = container_of(job, struct pack_job, job);
    struct disk_packer *p = j->packer;

    p->at_work--;
    if (p->freed) {
        if (p->at_work == 0)
            free_all(p);
        return;
    }
    p->packing->cpu_ns += j->cpu_ns;
    came_back(j);
    p->on_progress(p->user);
}

int disk_packing_new(uv_loop_t *loop, int level, unsigned window_log, struct disk_packing **ret)
{
    struct disk_packing *p = calloc(1, sizeof(*p));
    int r = p ? worker_new(loop, "ferry-disks", &p->worker) : -ENOMEM;

    if (r < 0) {
        free(p);
        return r;
    }
    p->window_log = window_log;
    p->adapts = level == 0;
    p->level = (struct codec_level){
        .level = level ? level : LEVEL_MOST, .least = LEVEL_LEAST, .most = LEVEL_MOST};
    *ret = p;
    return 0;
}

void disk_packing_free(struct disk_packing *p)
{
    if (!p)
        return;
    worker_retire(p->worker);
    free(p);
}

void disk_packing_look(struct disk_packing *p, uint64_t now_ns, bool link_full, unsigned moves)
{
    if (!p->adapts)
        return;
    p->level.most = MAX(LEVEL_MOST / (int)MAX(moves, 1u), 1);
    codec_level_look(&p->level, now_ns, p->cpu_ns, link_full);
}

int disk_packing_level(const struct disk_packing *p)
{
    return p->level.level;
}

uint64_t disk_packing_cpu_ns(const struct disk_packing *p)
{
    return p->cpu_ns;
}

int disk_packer_new(struct disk_packing *packing, void (*on_progress)(void *user), void *user,
                    struct disk_packer **ret)
{
    struct disk_packer *p = calloc(1, sizeof(*p));
    int r = p ? mirror_packer_new(&p->engine, packing->window_log) : -ENOMEM;

    if (r < 0) {
        free(p);
        return r;
    }
    p->packing = packing;
    p->on_progress = on_progress;
    p->user = user;
    for (unsigned i = 0; i < PACKER_JOBS; i++)
        p->jobs[i] = (struct pack_job){.packer = p, .engine = p->engine};
    *ret = p;
    return 0;
}

void disk_packer_free(struct disk_packer *p)
{
    if (!p)
        return;
    p->freed = true;
    if (p->at_work == 0)
        free_all(p);
}

/* It is filled. */
static void post(struct disk_packer *p, struct pack_job *j, bool plain)
{
    p->count++;
    j->job = (struct worker_job){.run = run_job, .done = done_job};
    j->plain = plain;
    j->level = p->packing->level.level;
    if (plain && p->at_work == 0) { /* in its order, and nobody else uses the engine */
        pack(j);
        came_back(j);
        return;
    }
    j->state = JOB_AT_WORK;
    p->at_work++;
    worker_post(p->packing->worker, &j->job);
}

/* Its memory is kept: the next piece is as large. */
static void empty(struct disk_packer *p, struct pack_job *j)
{
    j->in.head = j->in.tail = j->out.head = j->out.tail = 0;
    j->state = JOB_FREE;
    p->first = (p->first + 1) % PACKER_JOBS;
    p->count--;
}

/* The oldest, as long as it is back; false: the link is full, or gone. */
static bool write_out(struct disk_packer *p, struct stream *stream)
{
    while (p->count > 0 && p->jobs[p->first].state == JOB_BACK) {
        struct pack_job *j = &p->jobs[p->first];
        size_t len = buffer_len(&j->out), n = MIN(len, stream_room(stream));

        /* With no room it notes that somebody waits. */
        if (stream_write(stream, buffer_data(&j->out), n ? n : len) < 0)
            return false;
        p->sent_bytes += n;
        j->out.head += n;
        if (buffer_len(&j->out) == 0)
            empty(p, j);
    }
    return true;
}

/* The next piece to the thread; false: none, or no room. */
static bool pull(struct disk_packer *p, struct mirror_source *mirror, size_t room, bool plain)
{
    struct pack_job *j = &p->jobs[(p->first + p->count) % PACKER_JOBS];
    size_t most = MIN(MAX(room, (size_t)PULL_LEAST_BYTES), (size_t)MIRROR_CHUNK_BYTES), n;

    if (p->count == PACKER_JOBS || room == 0 || !mirror_source_has_output(mirror))
        return false;
    n = mirror_source_pull(mirror, &j->in, most, clock_now_ns());
    if (n == 0)
        return false;
    post(p, j, plain || n < PACK_LEAST_BYTES);
    return true;
}

void disk_packer_pump(struct disk_packer *p, struct mirror_source *mirror, struct stream *stream,
                      bool plain)
{
    do {
        if (p->fault || !write_out(p, stream))
            return;
    } while (pull(p, mirror, stream_room(stream), plain));
}

bool disk_packer_waits(const struct disk_packer *p)
{
    return p->count > 0 && p->jobs[p->first].state == JOB_BACK;
}

int disk_packer_fault(const struct disk_packer *p)
{
    return p->fault;
}

uint64_t disk_packer_held_bytes(const struct disk_packer *p)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < p->count; i++)
        bytes += buffer_len(&p->jobs[(p->first + i) % PACKER_JOBS].in);
    return bytes;
}

uint64_t disk_packer_sent_bytes(const struct disk_packer *p)
{
    return p->sent_bytes;
}
