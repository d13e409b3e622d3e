/* SPDX-License-Identifier: Apache-2.0 */
/* The RAM codec on a worker: see ram_pipe.h. */
#include "core/move/ram_pipe.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/move/codec_level.h"
#include "core/worker.h"
#include "memory/disk_blocks.h"
#include "memory/ram_decoder.h"
#include "memory/ram_encoder.h"

enum {
    JOBS = 3,
    /* Notes of what was written to disks go to the worker in such lots, or with what it does anyway. */
    NOTES_LOT_BYTES = 64 << 10,
    /* So much waits for a worker that does not come to it, then there are no references any more. */
    NOTES_MAX_BYTES = 16 << 20,
    LEVEL_MOST = 6, /* beyond, zstd's speed falls steeply for little */
};

/* Longest that pages wait to become references; a few round trips would not be made up for. */
#define HOLD_NS (250 * NS_PER_MS)

/* Made on the worker, used on the worker, freed on the worker. */
struct engine {
    struct ram_encoder *encoder;
    struct ram_decoder *decoder;
    struct disk_blocks *blocks; /* of an encoder; NULL: no references */
    struct codec_job *job;      /* the one that runs */
};

struct codec_job {
    struct worker_job job;
    struct ram_pipe *pipe;
    struct engine *engine;
    struct ram_codec_config config;
    enum ram_pipe_kind kind;
    uint8_t *in; /* owned */
    size_t in_len, in_taken;
    bool end;     /* no more input after this */
    bool retires; /* the engine's last job */
    int level;
    int result;
    struct ram_pipe_blocks blocks;
    struct buffer notes; /* for the index */
    struct buffer made;  /* pages that became references */
    unsigned may_refer;
    struct buffer out;
    struct ram_codec_stats stats;
};

struct ram_pipe {
    struct worker *worker;
    struct engine engine;
    struct codec_job jobs[JOBS];
    struct codec_job *filling; /* collects input */
    struct codec_job *working; /* at the worker, or back; NULL: none */
    struct codec_job *ready;   /* drained */
    struct codec_job *spare;   /* while nothing is at the worker */
    bool working_is_back;
    bool opening; /* the engine is being made */
    bool end;     /* no more input will come */
    bool freed;
    struct ram_pipe_blocks blocks;
    struct buffer notes; /* since the last job was posted */
    bool notes_lost;
    uint64_t held_since_ns; /* 0: nothing waits for room for references */
    uint64_t passed_told;
    int fault;
    const struct ram_pipe_ops *ops;
    void *user;
    struct ram_pipe_stats stats;
    struct codec_level level;
    uint64_t work_ns; /* of the thread, by the clock */
};

/* --- on the worker ------------------------------------------------------------------------- */

static bool may_refer(void *user)
{
    return ((struct engine *)user)->job->may_refer > 0;
}

static void keep(void *user, uint64_t number, const uint8_t *page)
{
    struct codec_job *c = ((struct engine *)user)->job;

    (void)number; /* they come in order */
    c->may_refer--;
    if (buffer_append(&c->made, page, DISK_BLOCK_BYTES) < 0)
        c->result = -ENOMEM;
}

static const struct ram_reference_source_ops reference_ops = {.may_refer = may_refer, .keep = keep};

static int make_encoder(struct codec_job *c)
{
    struct engine *g = c->engine;
    int r = g->encoder ? 0 : ram_encoder_new(&c->config, &g->encoder);

    if (r == 0 && c->blocks.disks > 0 && !g->blocks) {
        r = disk_blocks_new(c->blocks.index_bytes, &g->blocks);
        if (r == 0)
            ram_encoder_set_blocks(g->encoder, g->blocks, &reference_ops, g);
    }
    return r;
}

static int make_decoder(struct codec_job *c)
{
    struct engine *g = c->engine;
    int r;

    if (g->decoder)
        return 0;
    r = ram_decoder_new(&c->config, &g->decoder);
    if (r == 0 && c->blocks.disks > 0)
        ram_decoder_set_blocks(g->decoder, c->blocks.disks, c->blocks.target, c->blocks.user);
    return r;
}

static int encode(struct codec_job *c)
{
    struct ram_encoder *e = c->engine->encoder;
    int r;

    if (c->engine->blocks)
        disk_blocks_take(c->engine->blocks, &c->notes);
    ram_encoder_set_level(e, c->level);
    r = ram_encoder_feed(e, c->in, c->in_len, &c->out);
    if (r == 0)
        r = c->end ? ram_encoder_finish(e, &c->out) : ram_encoder_flush(e, &c->out);
    c->in_taken = c->in_len;
    ram_encoder_get_stats(e, &c->stats);
    return r;
}

static int decode(struct codec_job *c)
{
    struct ram_decoder *d = c->engine->decoder;
    int r = 0;

    while (r == 0 && c->in_taken < c->in_len && buffer_len(&c->out) < RAM_PIPE_OUTPUT_BYTES) {
        size_t taken;

        r = ram_decoder_feed(d, c->in + c->in_taken, c->in_len - c->in_taken, &taken, &c->out);
        c->in_taken += taken;
    }
    if (r == 0 && c->end && c->in_taken == c->in_len && !ram_decoder_is_at_boundary(d))
        r = -EPROTO; /* it ends amid a chunk */
    ram_decoder_get_stats(d, &c->stats);
    return r;
}

static void run_job(struct worker_job *job)
{
    struct codec_job *c = container_of(job, struct codec_job, job);
    int r = 0;

    if (c->retires) {
        ram_encoder_free(c->engine->encoder);
        ram_decoder_free(c->engine->decoder);
        disk_blocks_free(c->engine->blocks);
        return;
    }
    c->engine->job = c;
    c->result = c->kind == RAM_PIPE_ENCODER ? make_encoder(c) : make_decoder(c);
    if (c->result == 0)
        r = c->kind == RAM_PIPE_ENCODER ? encode(c) : decode(c);
    if (c->result == 0)
        c->result = r;
}

/* --- on the loop --------------------------------------------------------------------------- */

static void done_job(struct worker_job *job);

/* What was noted goes with the job, whose emptied memory is for the next. */
static void swap_notes(struct ram_pipe *p, struct codec_job *c)
{
    struct buffer empty = c->notes;

    empty.head = empty.tail = 0;
    c->notes = p->notes;
    p->notes = empty;
}

static void post(struct ram_pipe *p, struct codec_job *c)
{
    c->job = (struct worker_job){.run = run_job, .done = done_job};
    c->level = p->level.level;
    c->may_refer =
        p->blocks.room && !p->notes_lost && !p->freed ? p->blocks.room(p->blocks.user) : 0;
    swap_notes(p, c);
    p->working = c;
    p->working_is_back = false;
    worker_post(p->worker, &c->job);
}

/* Pages that could be references soon are not sent as they are: the line would be busy with those for longer. */
static bool holds(struct ram_pipe *p)
{
    uint64_t now_ns = clock_now_ns();

    if (p->end || !p->blocks.is_full || !p->blocks.is_full(p->blocks.user)) {
        p->held_since_ns = 0;
        return false;
    }
    if (p->held_since_ns == 0)
        p->held_since_ns = now_ns;
    return now_ns - p->held_since_ns < HOLD_NS;
}

/* Moves jobs on as far as they go: drained -> spare, back -> ready, filled -> worker. */
static void rotate(struct ram_pipe *p)
{
    struct codec_job *c = p->working;

    if (p->fault || p->opening)
        return;
    if (c && p->working_is_back && buffer_len(&p->ready->out) == 0) {
        if (c->in_taken < c->in_len) { /* a decoder's output was full: once more, for the rest */
            struct buffer empty = p->ready->out;

            p->ready->out = c->out;
            c->out = empty;
            post(p, c);
        } else {
            p->spare = p->ready;
            p->ready = c;
            p->working = NULL;
        }
    }
    if (!p->working &&
        (p->filling->in_len > 0 || (p->end && !p->filling->end) ||
         (buffer_len(&p->notes) >= NOTES_LOT_BYTES && !p->filling->end)) &&
        !holds(p)) {
        c = p->filling;
        p->filling = p->spare;
        p->spare = NULL;
        p->filling->in_len = p->filling->in_taken = 0;
        p->filling->end = c->end = p->end; /* nothing more is to be posted then */
        post(p, c);
    }
}

static void free_all(struct ram_pipe *p)
{
    for (unsigned i = 0; i < JOBS; i++) {
        free(p->jobs[i].in);
        buffer_done(&p->jobs[i].out);
        buffer_done(&p->jobs[i].notes);
        buffer_done(&p->jobs[i].made);
    }
    buffer_done(&p->notes);
    free(p);
}

static void retire(struct ram_pipe *p)
{
    struct codec_job *c = &p->jobs[0];

    if (c->retires) { /* the retiring job itself came back */
        worker_retire(p->worker);
        if (p->blocks.free)
            p->blocks.free(p->blocks.user);
        free_all(p);
        return;
    }
    c->retires = true;
    post(p, c);
}

/* Before anything of it is sent, the references are kept; what was decoded is told. */
static void account_references(struct ram_pipe *p, struct codec_job *c)
{
    size_t bytes = buffer_len(&c->made);

    if (p->blocks.made && bytes > 0)
        p->blocks.made(p->blocks.user, buffer_data(&c->made), (unsigned)(bytes / DISK_BLOCK_BYTES));
    buffer_clear(&c->made);
    if (p->blocks.passed && c->stats.operation[RAM_DISK].count > p->passed_told) {
        p->passed_told = c->stats.operation[RAM_DISK].count;
        p->blocks.passed(p->blocks.user, p->passed_told);
    }
}

static void done_job(struct worker_job *job)
{
    struct codec_job *c = container_of(job, struct codec_job, job);
    struct ram_pipe *p = c->pipe;

    if (p->freed) {
        retire(p);
        return;
    }
    p->stats.cpu_ns += p->opening ? 0 : job->cpu_ns;
    p->work_ns += p->opening ? 0 : job->work_ns;
    p->stats.codec = c->stats;
    if (c->result < 0) {
        p->fault = c->result;
        if (p->ops)
            p->ops->on_failed(p->user, c->result);
        return;
    }
    p->working_is_back = true;
    account_references(p, c);
    if (p->opening) {
        p->opening = false;
        p->working = NULL;
        p->spare = c;
    }
    rotate(p);
    if (p->ops)
        p->ops->on_progress(p->user);
}

int ram_pipe_new(uv_loop_t *loop, enum ram_pipe_kind kind, const struct ram_codec_config *config,
                 const struct ram_pipe_blocks *blocks, struct ram_pipe **ret)
{
    struct ram_pipe *p = calloc(1, sizeof(*p));
    int r = p ? 0 : -ENOMEM;

    for (unsigned i = 0; r == 0 && i < JOBS; i++) {
        p->jobs[i] = (struct codec_job){
            .pipe = p,
            .engine = &p->engine,
            .config = *config,
            .kind = kind,
            .blocks = blocks ? *blocks : (struct ram_pipe_blocks){0},
            .in = malloc(RAM_PIPE_INPUT_BYTES),
        };
        r = p->jobs[i].in ? 0 : -ENOMEM;
    }
    if (r == 0)
        r = worker_new(loop, kind == RAM_PIPE_ENCODER ? "ferry-encode" : "ferry-decode",
                       &p->worker);
    if (r < 0) {
        if (p)
            free_all(p);
        return r;
    }
    if (blocks)
        p->blocks = *blocks;
    p->filling = &p->jobs[0];
    p->ready = &p->jobs[1];
    p->level = (struct codec_level){.level = RAM_LEVEL_DEFAULT,
                                    .least = RAM_LEVEL_LEAST,
                                    .modest = RAM_LEVEL_LEAST,
                                    .most = LEVEL_MOST};
    p->stats.level = RAM_LEVEL_DEFAULT;
    p->opening = true;
    post(p, &p->jobs[2]);
    *ret = p;
    return 0;
}

void ram_pipe_set_ops(struct ram_pipe *p, const struct ram_pipe_ops *ops, void *user)
{
    p->ops = ops;
    p->user = user;
}

void ram_pipe_free(struct ram_pipe *p)
{
    if (!p)
        return;
    p->freed = true;
    if (p->blocks.cancel)
        p->blocks.cancel(p->blocks.user);
    if (!p->working || p->working_is_back || p->fault)
        retire(p);
}

void ram_pipe_note(struct ram_pipe *p, unsigned disk, uint64_t offset, uint32_t length,
                   const uint8_t *data)
{
    if (p->fault || p->notes_lost)
        return;
    if (buffer_len(&p->notes) > NOTES_MAX_BYTES ||
        (data ? disk_notes_write(&p->notes, disk, offset, length, data)
              : disk_notes_forget(&p->notes, disk, offset, length)) < 0) {
        p->notes_lost = true;
        buffer_done(&p->notes);
        return;
    }
    rotate(p);
}

int ram_pipe_fault(const struct ram_pipe *p)
{
    return p->fault;
}

size_t ram_pipe_room(struct ram_pipe *p, uint8_t **ret)
{
    if (p->fault || p->end)
        return 0;
    *ret = p->filling->in + p->filling->in_len;
    return RAM_PIPE_INPUT_BYTES - p->filling->in_len;
}

void ram_pipe_commit(struct ram_pipe *p, size_t len)
{
    assert(len <= RAM_PIPE_INPUT_BYTES - p->filling->in_len);
    p->filling->in_len += len;
    rotate(p);
}

void ram_pipe_end(struct ram_pipe *p)
{
    p->end = true;
    rotate(p);
}

size_t ram_pipe_peek(const struct ram_pipe *p, const uint8_t **ret)
{
    *ret = buffer_data(&p->ready->out);
    return p->fault ? 0 : buffer_len(&p->ready->out);
}

void ram_pipe_consume(struct ram_pipe *p, size_t len)
{
    struct buffer *out = &p->ready->out;

    assert(len <= buffer_len(out));
    out->head += len;
    if (buffer_len(out) == 0) { /* its memory is kept: the next output is as large */
        out->head = out->tail = 0;
        rotate(p);
    }
}

bool ram_pipe_is_at_end(const struct ram_pipe *p)
{
    return p->end && !p->fault && !p->opening && !p->working && p->filling->end &&
           buffer_len(&p->ready->out) == 0;
}

void ram_pipe_go_on(struct ram_pipe *p)
{
    rotate(p);
}

void ram_pipe_adapt(struct ram_pipe *p, uint64_t now_ns, bool waited, unsigned moves)
{
    codec_level_look(&p->level, now_ns, p->work_ns, waited, moves);
    p->stats.level = p->level.level;
}

void ram_pipe_get_stats(const struct ram_pipe *p, struct ram_pipe_stats *ret)
{
    *ret = p->stats;
}
