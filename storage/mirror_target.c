/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk of a move at the target: see mirror_target.h for states, order and memory.
 *
 * An operation goes through: queued (blocked by earlier ones that overlap), ready (in `ready`, waits for
 * a place at the disk), running, and is freed when it has taken effect. The list `operations` is the stream's
 * order of those that have not; what lies before its first is applied. SEEDs take more steps, which are in
 * mirror_target_seed.c.
 *
 * FLUSH and CLOSE overlap with everything before them and nothing after. A CLOSE has nothing to do at
 * the disk when its turn comes but the flush of the whole disk, after which the disk is done.
 */
#include "storage/mirror_target.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/wire.h"
#include "storage/disk_digest.h"
#include "storage/mirror_target_private.h"

/* The one request at the disk that is no operation of the stream; the others' cookies are their seq. */
#define COOKIE_FLUSH_AHEAD UINT64_MAX

const char *mirror_target_state_name(enum mirror_target_state state)
{
    static const char *const names[] = {"wait-open", "applying", "flushing", "done", "failed"};

    static_assert(ARRAY_SIZE(names) == MIRROR_TARGET_FAILED + 1, "every state has a name");
    return names[state];
}

static void set_state(struct mirror_target *t, enum mirror_target_state state)
{
    assert(state == MIRROR_TARGET_FAILED ? t->state < MIRROR_TARGET_DONE : state == t->state + 1);
    log_debug("disk %s at the target: %s -> %s", t->alias, mirror_target_state_name(t->state),
              mirror_target_state_name(state));
    t->state = state;
}

int mirror_target_new(struct mirror_target **ret_target, const struct mirror_target_params *params)
{
    struct mirror_target *t;
    size_t alias_len = strlen(params->alias);

    if (alias_len == 0 || alias_len > LIMIT_EXPORT_NAME_BYTES || params->size_bytes > INT64_MAX)
        return -EINVAL;
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    memcpy(t->alias, params->alias, alias_len + 1);
    t->size_bytes = params->size_bytes;
    t->in_flight_max = params->in_flight_max ? params->in_flight_max : LIMIT_WRITER_IN_FLIGHT;
    t->wake = params->wake;
    t->owner = params->owner;
    t->seeded = params->seeded;
    TAILQ_INIT(&t->operations);
    TAILQ_INIT(&t->ready);
    mirror_wire_decoder_init(&t->decoder, MIRROR_WIRE_TO_TARGET);
    *ret_target = t;
    return 0;
}

uint8_t *mirror_target_hold(struct mirror_target *t, struct operation *op)
{
    op->data = malloc(op->length);
    if (op->data) {
        t->stats.queue_bytes += op->length;
        t->stats.queue_peak_bytes = MAX(t->stats.queue_peak_bytes, t->stats.queue_bytes);
    }
    return op->data;
}

void mirror_target_let_go(struct mirror_target *t, struct operation *op)
{
    if (op->data)
        t->stats.queue_bytes -= op->length;
    free(TAKE_PTR(op->data));
    if (op->fill)
        t->stats.queue_bytes -= op->fill_bytes;
    free(TAKE_PTR(op->fill));
}

void mirror_target_drop(struct mirror_target *t, struct operation *op)
{
    TAILQ_REMOVE(&t->operations, op, link);
    t->stats.queue_operations--;
    mirror_target_let_go(t, op);
    free(op->digests);
    free(op);
}

void mirror_target_free(struct mirror_target *t)
{
    struct operation *op;

    if (!t)
        return;
    while ((op = TAILQ_FIRST(&t->operations)))
        mirror_target_drop(t, op); /* NOLINT(clang-analyzer-unix.Malloc): it unlinks */
    mirror_wire_decoder_done(&t->decoder);
    buffer_done(&t->output);
    free(t);
}

static bool is_over(const struct mirror_target *t)
{
    return t->state >= MIRROR_TARGET_DONE;
}

static void wake(struct mirror_target *t)
{
    if (t->wake)
        t->wake(t->owner, t);
}

int mirror_target_put(struct mirror_target *t, const struct mirror_wire_message *m,
                      const void *payload)
{
    uint8_t *room = buffer_reserve(&t->output, MIRROR_WIRE_HEADER_BYTES + (size_t)m->length);

    if (!room)
        return -ENOMEM;
    mirror_wire_encode(m, room);
    if (m->length > 0)
        memcpy(room + MIRROR_WIRE_HEADER_BYTES, payload, m->length);
    buffer_commit(&t->output, MIRROR_WIRE_HEADER_BYTES + (size_t)m->length);
    return 0;
}

/* Requests at the disk keep their operations alive: these are freed as they complete, or by free(). */
static void drop_waiting(struct mirror_target *t)
{
    struct operation *op = TAILQ_FIRST(&t->operations), *next;

    TAILQ_INIT(&t->ready);
    for (; op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op->stage != STAGE_RUNNING)
            mirror_target_drop(t, op);
    }
}

static int fail(struct mirror_target *t, const struct error *why)
{
    char text[LIMIT_MIRROR_TEXT_BYTES];
    struct mirror_wire_message m = {.type = MIRROR_WIRE_ERROR, .offset = (uint64_t)-why->code};

    if (is_over(t))
        return t->error.code;
    t->error = *why;
    set_state(t, MIRROR_TARGET_FAILED);
    drop_waiting(t);
    mirror_wire_decoder_done(&t->decoder);
    m.length = (uint32_t)strlen(error_line(why, text, sizeof(text)));
    (void)mirror_target_put(t, &m, text); /* without memory the owner still sees the state */
    return why->code;
}

int mirror_target_fail_stream(struct mirror_target *t, const char *why)
{
    struct error e = {0};

    error_set(&e, -EPROTO, "read the mirror stream", "do both sites run the same version?", "%s",
              why);
    return fail(t, &e);
}

int mirror_target_fail_disk(struct mirror_target *t, const struct operation *op, int err)
{
    struct error e = {0};
    char what[96 + LIMIT_EXPORT_NAME_BYTES];

    snprintf(what, sizeof(what), "%s %" PRIu32 " bytes at %" PRIu64 " of disk %s",
             op ? mirror_wire_type_name(op->type) : "FLUSH", op ? op->length : 0,
             op ? op->offset : 0, t->alias);
    error_set(&e, err, what, err == -ENOSPC ? "make room in the target's storage" : NULL, "%s",
              strerror(-err));
    return fail(t, &e);
}

void mirror_target_fail(struct mirror_target *t, const struct error *why)
{
    fail(t, why);
}

/* --- the order of operations ------------------------------------------------------------------ */

static bool is_fence(const struct operation *op)
{
    return op->type == MIRROR_WIRE_FLUSH || op->type == MIRROR_WIRE_CLOSE;
}

/* Must @later wait for @earlier? Two READs too, for simplicity: nobody reads much here. */
static bool blocks(const struct operation *earlier, const struct operation *later)
{
#ifdef FERRY_TEST_NO_OVERLAP_ORDER
    /* The negative check of tests/engine/storage_mirror.c: with this it must find differing disks. */
    return is_fence(later);
#endif
    if (is_fence(later))
        return true;
    if (is_fence(earlier))
        return false;
    return earlier->offset < later->offset + later->length &&
           later->offset < earlier->offset + earlier->length;
}

void mirror_target_make_ready(struct mirror_target *t, struct operation *op)
{
    op->stage = STAGE_READY;
    TAILQ_INSERT_TAIL(&t->ready, op, ready_link);
}

static void enqueue(struct mirror_target *t, struct operation *op)
{
    struct operation *earlier;

    TAILQ_FOREACH(earlier, &t->operations, link)
    {
        if (blocks(earlier, op))
            op->blockers++;
    }
    TAILQ_INSERT_TAIL(&t->operations, op, link);
    t->stats.queue_operations++;
    if (op->blockers == 0)
        mirror_target_make_ready(t, op);
}

/* @op has taken effect: frees it, and those it blocked. */
static void finish(struct mirror_target *t, struct operation *op)
{
    struct operation *later = op;

    while ((later = TAILQ_NEXT(later, link))) {
        if (blocks(op, later) && --later->blockers == 0)
            mirror_target_make_ready(t, later);
    }
    mirror_target_drop(t, op);
    op = TAILQ_FIRST(&t->operations);
    t->stats.applied_seq = op ? op->seq - 1 : t->received_seq;
}

/* 1: it is at the disk; 0: it is not, and no completion comes (a SEED without data). */
static int start(struct mirror_target *t, struct operation *op)
{
    const struct disk_writer_ops *ops = t->writer_ops;
    int err;

    switch (op->type) {
    case MIRROR_WIRE_SEED:
        return mirror_target_start_seed(t, op);
    case MIRROR_WIRE_WRITE:
        err = ops->write(t->writer, op->seq, op->offset, op->length, op->data);
        break;
    case MIRROR_WIRE_ZERO:
        err = ops->zero(t->writer, op->seq, op->offset, op->length, op->may_trim);
        break;
    case MIRROR_WIRE_TRIM:
        err = ops->trim(t->writer, op->seq, op->offset, op->length);
        break;
    case MIRROR_WIRE_READ:
    case MIRROR_WIRE_CHECK:
        err = ops->read(t->writer, op->seq, op->offset, op->length, op->data);
        break;
    default: /* FLUSH, CLOSE */
        err = ops->flush(t->writer, op->seq);
        break;
    }
    return err < 0 ? err : 1;
}

/* SEEDs wait until it is known whether there is one, others do not. */
static struct operation *next_ready(const struct mirror_target *t)
{
    struct operation *op;

    TAILQ_FOREACH(op, &t->ready, ready_link)
    {
        if (op->type != MIRROR_WIRE_SEED || t->seed_settled)
            break;
    }
    return op;
}

static void start_ready(struct mirror_target *t)
{
    struct operation *op;
    int err;

    if (!t->writer_ops || t->starting)
        return;
    t->starting = true;
    while (!is_over(t) && t->stats.in_flight < t->in_flight_max && (op = next_ready(t))) {
        TAILQ_REMOVE(&t->ready, op, ready_link);
        op->stage = STAGE_RUNNING;
        if (op->type == MIRROR_WIRE_CLOSE)
            set_state(t, MIRROR_TARGET_FLUSHING);
        err = start(t, op);
        if (err < 0) {
            op->stage = STAGE_QUEUED; /* no completion will come: not to be kept for one */
            mirror_target_fail_disk(t, op, err);
            break;
        }
        t->stats.in_flight += (unsigned)err;
        t->stats.in_flight_peak = MAX(t->stats.in_flight_peak, t->stats.in_flight);
    }
    t->starting = false;
}

/* --- completions ------------------------------------------------------------------------------ */

static void count_applied(struct mirror_target *t, const struct operation *op)
{
    if (op->type == MIRROR_WIRE_WRITE || op->type == MIRROR_WIRE_SEED)
        t->stats.applied_bytes += op->length;
    else if (op->type == MIRROR_WIRE_ZERO || op->type == MIRROR_WIRE_TRIM)
        t->stats.zeroed_bytes += op->length;
}

static bool is_answered(enum mirror_wire_type type)
{
    return type == MIRROR_WIRE_READ || type == MIRROR_WIRE_CHECK;
}

static int answer_read(struct mirror_target *t, const struct operation *op, int err)
{
    struct mirror_wire_message m = {.type = MIRROR_WIRE_READ_DATA, .seq = op->seq};
    uint8_t digest[DISK_DIGEST_BYTES];
    bool check = op->type == MIRROR_WIRE_CHECK;

    if (check)
        m.type = MIRROR_WIRE_DIGEST;
    if (err < 0)
        m.offset = (uint64_t)-err;
    else
        m.length = check ? sizeof(digest) : op->length;
    if (check && err == 0)
        disk_digest_of_data(op->data, op->length, digest);
    return mirror_target_put(t, &m, check ? digest : op->data);
}

static void finish_close(struct mirror_target *t, struct operation *op)
{
    struct mirror_wire_message m = {.type = MIRROR_WIRE_CLOSED, .seq = op->seq};

    if (mirror_target_put(t, &m, NULL) < 0) {
        mirror_target_fail_disk(t, op, -ENOMEM);
        return;
    }
    finish(t, op);
    assert(TAILQ_EMPTY(&t->operations));
    t->reported_seq = t->stats.applied_seq; /* CLOSED says so */
    set_state(t, MIRROR_TARGET_DONE);
}

static void complete_operation(struct mirror_target *t, struct operation *op, int err)
{
    t->stats.in_flight--;
    if (is_over(t)) { /* failed meanwhile: it was kept only for the disk */
        mirror_target_drop(t, op);
        return;
    }
    if (is_answered(op->type))
        err = answer_read(t, op, err); /* a failed READ is the reader's trouble, not the disk's */
    if (err < 0) {
        op->stage = STAGE_QUEUED;
        mirror_target_fail_disk(t, op, err);
        return;
    }
    count_applied(t, op);
    if (op->type == MIRROR_WIRE_CLOSE)
        finish_close(t, op);
    else
        finish(t, op);
}

void mirror_target_complete(struct mirror_target *t, uint64_t cookie, int err)
{
    struct operation *op;

    if (cookie == COOKIE_FLUSH_AHEAD) {
        t->flush_ahead_running = false;
        if (err < 0)
            mirror_target_fail_disk(t, NULL, err);
    } else {
        /* At most in_flight_max run, near the head of the list: a search is cheap. */
        TAILQ_FOREACH(op, &t->operations, link)
        {
            if (op->seq == cookie && op->stage == STAGE_RUNNING && !op->reading)
                break;
        }
        if (!op)
            return;
        complete_operation(t, op, err);
    }
    mirror_target_go_on(t);
}

void mirror_target_go_on(struct mirror_target *t)
{
    start_ready(t);
    wake(t);
}

void mirror_target_flush_ahead(struct mirror_target *t)
{
    if (!t->writer_ops || t->state != MIRROR_TARGET_APPLYING || t->flush_ahead_running)
        return;
    /* One that is not taken now is only not ahead. */
    t->flush_ahead_running = t->writer_ops->flush(t->writer, COOKIE_FLUSH_AHEAD) == 0;
}

void mirror_target_set_writer(struct mirror_target *t, const struct disk_writer_ops *ops,
                              void *writer)
{
    assert(!t->writer_ops);
    t->writer_ops = ops;
    t->writer = writer;
    mirror_target_go_on(t);
}

/* --- the stream ------------------------------------------------------------------------------- */

static int take_open(struct mirror_target *t, const struct mirror_wire_message *m)
{
    struct error e = {0};

    if (t->state != MIRROR_TARGET_WAIT_OPEN)
        return mirror_target_fail_stream(t, "a second OPEN");
    if (m->length != strlen(t->alias) || memcmp(m->payload, t->alias, m->length) != 0)
        return mirror_target_fail_stream(t, "OPEN names another disk");
    if (m->offset != t->size_bytes) {
        error_set(&e, -EINVAL, "mirror a disk",
                  "the target's disk must have exactly the source's size",
                  "disk %s has %" PRIu64 " bytes at the source and %" PRIu64 " at the target",
                  t->alias, m->offset, t->size_bytes);
        return fail(t, &e);
    }
    set_state(t, MIRROR_TARGET_APPLYING);
    return 0;
}

/* Everything about a message that the decoder cannot know. NULL: good. */
static const char *judge(const struct mirror_target *t, const struct mirror_wire_message *m)
{
    if (t->state == MIRROR_TARGET_WAIT_OPEN)
        return "a message before OPEN";
    if (t->closing)
        return "a message after CLOSE";
    if (m->seq != t->received_seq + 1)
        return "a gap in the sequence";
    if (m->type == MIRROR_WIRE_CLOSE)
        return m->offset == t->received_payload_bytes ? NULL : "CLOSE counts other bytes than came";
    if (m->type == MIRROR_WIRE_FLUSH)
        return NULL;
    if (m->offset > t->size_bytes || m->length > t->size_bytes - m->offset)
        return "an extent beyond the end of the disk";
    if (m->type == MIRROR_WIRE_SEED && !t->seeded)
        return "a SEED, and there is none";
    return NULL;
}

static int take_operation(struct mirror_target *t, struct mirror_wire_message *m)
{
    const char *bad = judge(t, m);
    struct operation *op;

    if (bad)
        return mirror_target_fail_stream(t, bad);
    op = calloc(1, sizeof(*op));
    if (op && is_answered(m->type))
        op->data = malloc(m->length);
    if (!op || (is_answered(m->type) && !op->data)) {
        free(op);
        return mirror_target_fail_disk(t, NULL, -ENOMEM);
    }
    op->type = m->type;
    op->may_trim = m->flags & MIRROR_WIRE_MAY_TRIM;
    op->offset = m->offset;
    op->length = m->length;
    op->seq = m->seq;
    if (m->type == MIRROR_WIRE_WRITE) {
        op->data = TAKE_PTR(m->payload);
        t->received_payload_bytes += m->length;
    }
    if (m->type == MIRROR_WIRE_SEED)
        op->digests = TAKE_PTR(m->payload);
    if (op->data) {
        t->stats.queue_bytes += op->length;
        t->stats.queue_peak_bytes = MAX(t->stats.queue_peak_bytes, t->stats.queue_bytes);
    }
    t->received_seq = m->seq;
    t->closing = m->type == MIRROR_WIRE_CLOSE;
    enqueue(t, op);
    return 0;
}

/* Room for whatever message comes next, also for the largest: half of the bound is kept for it. */
static bool can_take(const struct mirror_target *t)
{
    static_assert(LIMIT_NBD_WRITE_BYTES <= LIMIT_TARGET_QUEUE_BYTES / 2 &&
                      LIMIT_MIRROR_READ_BYTES <= LIMIT_TARGET_QUEUE_BYTES / 2,
                  "one message fits into half of the queue");
    return !is_over(t) && t->stats.queue_operations < LIMIT_TARGET_QUEUE_OPERATIONS &&
           t->stats.queue_bytes + buffer_len(&t->output) <= LIMIT_TARGET_QUEUE_BYTES / 2;
}

ssize_t mirror_target_feed(struct mirror_target *t, const void *data, size_t len)
{
    const uint8_t *p = data;
    struct mirror_wire_message m;
    struct error e = {0};
    size_t taken = 0;
    bool complete;
    ssize_t n;

    while (taken < len && can_take(t)) {
        n = mirror_wire_decode(&t->decoder, p + taken, len - taken, &m, &complete, &e);
        if (n < 0) {
            fail(t, &e);
            break;
        }
        taken += (size_t)n;
        if (!complete)
            continue;
        if (m.type == MIRROR_WIRE_OPEN)
            take_open(t, &m);
        else if (m.type == MIRROR_WIRE_FILL)
            mirror_target_take_fill(t, &m);
        else
            take_operation(t, &m);
        free(m.payload);
        start_ready(t);
    }
    t->stats.received_bytes += taken;
    if (t->state == MIRROR_TARGET_FAILED)
        return t->error.code;
    if (t->state == MIRROR_TARGET_DONE && taken < len)
        return -EPROTO; /* bytes behind CLOSE; the disk is done all the same */
    return (ssize_t)taken;
}

static void put_applied(struct mirror_target *t, struct buffer *out)
{
    struct mirror_wire_message m = {
        .type = MIRROR_WIRE_APPLIED, .seq = t->stats.applied_seq, .offset = t->stats.queue_bytes};
    uint8_t *room = buffer_reserve(out, MIRROR_WIRE_HEADER_BYTES);

    if (!room)
        return;
    mirror_wire_encode(&m, room);
    buffer_commit(out, MIRROR_WIRE_HEADER_BYTES);
    t->reported_seq = t->stats.applied_seq;
}

static bool applied_is_due(const struct mirror_target *t)
{
    return !is_over(t) && t->stats.applied_seq > t->reported_seq;
}

size_t mirror_target_pull(struct mirror_target *t, struct buffer *out, size_t max_bytes)
{
    size_t before = buffer_len(out);
    size_t len = MIN(max_bytes, buffer_len(&t->output));

    if (len > 0) {
        if (buffer_append(out, buffer_data(&t->output), len) < 0)
            return 0;
        buffer_consume(&t->output, len);
    }
    /* Not between the pieces of another message. */
    if (buffer_len(&t->output) == 0 && applied_is_due(t) &&
        max_bytes - len >= MIRROR_WIRE_HEADER_BYTES)
        put_applied(t, out);
    return buffer_len(out) - before;
}

bool mirror_target_has_output(const struct mirror_target *t)
{
    return buffer_len(&t->output) > 0 || applied_is_due(t);
}

enum mirror_target_state mirror_target_state(const struct mirror_target *t)
{
    return t->state;
}

const struct error *mirror_target_error(const struct mirror_target *t)
{
    return &t->error;
}

void mirror_target_stats(const struct mirror_target *t, struct mirror_target_stats *ret_stats)
{
    *ret_stats = t->stats;
}
