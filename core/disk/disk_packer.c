/* SPDX-License-Identifier: Apache-2.0 */
/* Mirror streams through compressors' threads: see disk_packer.h. */
#include "core/disk/disk_packer.h"

#include <errno.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "core/base/priority.h"
#include "core/move/codec_level.h"
#include "core/worker.h"
#include "storage/mirror_pack.h"

enum {
    /* So many in a row go through a lane. Twice that a lane keeps every thread busy, though pieces leave in order and take
     * different times; where the link is full, a few must do. */
    LANE_PIECES = 4,
    PACKER_JOBS = MIRROR_LANES_MOST * LANE_PIECES * 2,
    LINK_PIECES = 3,
    /* Guests come first; but no piece may pass another, so it must not starve either. */
    WORKER_NICE = 5,
    /* Not worth the way to the thread and back: a word or two. */
    PACK_LEAST_BYTES = 512,
    /* On a slow line no more is pulled than leaves soon. */
    PULL_LEAST_BYTES = 64 * 1024,
    LEVEL_LEAST = -5,
    /* Of a core, level 7 does 75 MB/s of files at 0.413 of raw, 5 does 115 MB/s at 0.423, 3 does 185 MB/s at 0.436; 4 is no
     * better than 5, and beyond 7 speed falls steeply for little. It starts with the most, because QEMU's copy starts
     * slowly. */
    LEVEL_MODEST = 5,
    LEVEL_MOST = 7,
};

enum job_state { JOB_FREE, JOB_AT_WORK, JOB_BACK };

struct pack_job {
    struct worker_job job;
    struct disk_packer *packer;
    unsigned lane;
    enum job_state state;
    bool plain;
    int level, result;
    struct buffer in, out;
};

struct disk_packing {
    uv_loop_t *loop;
    struct worker *threads[MIRROR_LANES_MOST];
    unsigned thread_count;
    unsigned lanes; /* of all disks, which share the threads */
    struct disk_codec codec;
    bool adapts;
    struct codec_level level;
    uint64_t cpu_ns, work_ns;
};

struct disk_packer {
    struct disk_packing *packing;
    struct mirror_packer *lanes[MIRROR_LANES_MOST]; /* a thread's while a job of it is at work */
    struct worker *threads[MIRROR_LANES_MOST]; /* of the lanes, for good: one lane, one thread */
    struct pack_job jobs[PACKER_JOBS];
    unsigned run; /* pieces since the lane changed */
    unsigned lane;
    unsigned first, count; /* the oldest that is not free, and how many are not */
    unsigned at_work;
    uint64_t sent_bytes;
    void (*on_progress)(void *user);
    void *user;
    int fault;
    bool freed;
};

/* --- on a thread -------------------------------------------------------------------------- */

static void pack(struct pack_job *j)
{
    j->result = mirror_packer_pack(j->packer->lanes[j->lane], j->level, j->plain,
                                   buffer_data(&j->in), buffer_len(&j->in), &j->out);
}

static void run_job(struct worker_job *job)
{
    struct pack_job *j = container_of(job, struct pack_job, job);

    priority_background(WORKER_NICE);
    pack(j);
}

/* --- on the loop --------------------------------------------------------------------------- */

static void free_all(struct disk_packer *p)
{
    for (unsigned i = 0; i < PACKER_JOBS; i++) {
        buffer_done(&p->jobs[i].in);
        buffer_done(&p->jobs[i].out);
    }
    for (unsigned i = 0; i < MIRROR_LANES_MOST; i++)
        mirror_packer_free(p->lanes[i]);
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
    p->packing->cpu_ns += job->cpu_ns;
    p->packing->work_ns += job->work_ns;
    came_back(j);
    p->on_progress(p->user);
}

int disk_packing_new(uv_loop_t *loop, int level, const struct disk_codec *codec,
                     struct disk_packing **ret)
{
    struct disk_packing *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->loop = loop;
    p->codec = *codec;
    p->adapts = level == 0;
    p->level = (struct codec_level){.level = level ? level : LEVEL_MOST,
                                    .least = LEVEL_LEAST,
                                    .modest = LEVEL_MODEST,
                                    .most = LEVEL_MOST};
    *ret = p;
    return 0;
}

void disk_packing_free(struct disk_packing *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < p->thread_count; i++)
        worker_retire(p->threads[i]);
    free(p);
}

void disk_packing_look(struct disk_packing *p, uint64_t now_ns, bool link_full, unsigned moves)
{
    unsigned threads = MAX(p->thread_count, 1u);

    if (!p->adapts)
        return;
    codec_level_look(&p->level, now_ns, p->work_ns / threads, link_full, moves);
}

int disk_packing_level(const struct disk_packing *p)
{
    return p->level.level;
}

uint64_t disk_packing_cpu_ns(const struct disk_packing *p)
{
    return p->cpu_ns;
}

/* Threads for one more disk's lanes, as long as there are processors. */
static int add_threads(struct disk_packing *p)
{
    unsigned most = MIN(disk_codec_threads(), p->lanes + p->codec.lanes);
    int r = 0;

    while (r == 0 && p->thread_count < most) {
        r = worker_new(p->loop, "ferry-disks", &p->threads[p->thread_count]);
        p->thread_count += r == 0;
    }
    return r;
}

int disk_packer_new(struct disk_packing *packing, void (*on_progress)(void *user), void *user,
                    struct disk_packer **ret)
{
    struct disk_packer *p = calloc(1, sizeof(*p));
    int r = p ? add_threads(packing) : -ENOMEM;

    for (unsigned i = 0; r == 0 && i < packing->codec.lanes; i++)
        r = mirror_packer_new(&p->lanes[i], packing->codec.window_log, i, packing->codec.lanes);
    if (r < 0) {
        disk_packer_free(p);
        return r;
    }
    for (unsigned i = 0; i < packing->codec.lanes; i++)
        p->threads[i] = packing->threads[packing->lanes++ % packing->thread_count];
    p->packing = packing;
    p->on_progress = on_progress;
    p->user = user;
    for (unsigned i = 0; i < PACKER_JOBS; i++)
        p->jobs[i] = (struct pack_job){.packer = p};
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
    struct disk_packing *packing = p->packing;

    p->count++;
    if (++p->run > LANE_PIECES) {
        p->run = 1;
        p->lane = (p->lane + 1) % packing->codec.lanes;
    }
    j->job = (struct worker_job){.run = run_job, .done = done_job};
    j->plain = plain;
    j->level = packing->level.level;
    j->lane = p->lane;
    if (plain && p->at_work == 0) { /* nothing is ahead of it, and nobody else uses the lane */
        pack(j);
        came_back(j);
        return;
    }
    j->state = JOB_AT_WORK;
    p->at_work++;
    worker_post(p->threads[j->lane], &j->job);
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
    unsigned pieces = p->packing->codec.lanes * LANE_PIECES * 2;

    if (p->count >= (disk_packer_waits(p) ? LINK_PIECES : pieces) || room == 0 ||
        !mirror_source_has_output(mirror))
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
