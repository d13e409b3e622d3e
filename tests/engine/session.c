/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two session engines over stripes that stall, tear and come back, under seeded chaos.
 *
 * A wire is two byte pipes. When it tears, each pipe keeps a random prefix of what was under way (as TCP
 * does), what is sent afterwards vanishes, and each end learns of it in its own time. Both sides open,
 * write, read, end, reset and release streams at random, in and out of callbacks, and write and read
 * only as far as the callbacks invite them to, so that a missing event shows as a stand-still.
 *
 * Checked at every step: bytes arrive whole, once, in order; nobody closes; memory is bounded. After the
 * chaos everything must settle: every end and every reset told exactly once, and no stream left behind.
 *
 * FERRY_SEED reproduces one history, FERRY_SEEDS sets how many are played.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/base/random.h"
#include "netlink/session.h"

enum {
    WIRES_MAX = 4,
    ENDS_MAX = 48,                /* stream ends of one side in one history */
    PIPE_FULL_BYTES = 256 * 1024, /* a socket that takes no more for now */
    CALM_STEPS_MAX = 20000,
};

/* One side's hold of one stream. */
struct end {
    struct sim *sim;
    struct stream *stream; /* NULL after the release */
    uint32_t id;
    unsigned side;
    uint64_t size, written; /* what this end means to say, and has said */
    bool ended, blocked;
    uint64_t read;
    bool readable, at_end;
    bool reset_here, reset_told;
    bool long_lived;
    bool used;
};

struct wire {
    bool for_good;            /* does not come back */
    bool torn;                /* bytes sent now vanish */
    struct stripe *stripe[2]; /* NULL: this side has none now */
    struct buffer to[2];      /* bytes under way to that side */
};

struct side {
    struct session *session;
    struct end ends[ENDS_MAX];
    unsigned end_count, opened;
    unsigned closed_told;
    char closed_why[512];
};

struct sim {
    uint64_t rng, now_ns;
    struct wire wires[WIRES_MAX];
    unsigned wire_count;
    struct side sides[2];
    struct session_config config[2];
    bool calm; /* no more faults, everybody finishes */
    const char *fault;
};

static uint64_t roll(struct sim *sim, uint64_t below)
{
    return splitmix64_mix(sim->rng += 0x9e3779b97f4a7c15u) % below;
}

static bool chance(struct sim *sim, unsigned percent)
{
    return roll(sim, 100) < percent;
}

/* The byte at @at of what @side says on stream @id. */
static uint8_t byte_of(uint32_t id, unsigned side, uint64_t at)
{
    return (uint8_t)(splitmix64_mix(((uint64_t)id << 40 | (uint64_t)side << 39) + (at >> 3) + 1) >>
                     (8 * (at & 7)));
}

static void blame(struct sim *sim, const char *fault)
{
    if (!sim->fault)
        sim->fault = fault;
}

/* --- the owners of streams ----------------------------------------------------------------- */

static void let_go(struct end *e, bool reset)
{
    struct stream *stream = TAKE_PTR(e->stream);

    if (!e->reset_told && (reset || !e->ended))
        e->reset_here = true;
    if (reset)
        stream_reset(stream, WIRE_REASON_NONE);
    else
        stream_release(stream);
}

static void read_some(struct end *e)
{
    const uint8_t *data = NULL;
    size_t want = chance(e->sim, 20) ? 1 + (size_t)roll(e->sim, 200000) : 0;
    size_t n = want ? stream_peek_joined(e->stream, want, &data) : stream_peek(e->stream, &data);
    size_t take = n;

    if (n > 0 && chance(e->sim, 50))
        take = 1 + (size_t)roll(e->sim, n);
    for (size_t i = 0; i < take; i++) {
        if (data[i] != byte_of(e->id, !e->side, e->read + i)) {
            blame(e->sim, "a byte is not what was written");
            return;
        }
    }
    stream_consume(e->stream, take);
    e->read += take;
    if (take == n)
        e->readable = stream_peek(e->stream, &data) > 0;
    if (stream_at_end(e->stream))
        e->at_end = true;
}

static void write_some(struct end *e)
{
    static uint8_t chunk[128 * 1024];
    size_t room = stream_room(e->stream);
    size_t n = MIN(MIN(room, sizeof(chunk)), (size_t)(e->size - e->written));

    if (n > 1 && chance(e->sim, 50))
        n = 1 + (size_t)roll(e->sim, MIN(n, (size_t)3000));
    for (size_t i = 0; i < n; i++)
        chunk[i] = byte_of(e->id, e->side, e->written + i);
    if (n > 0 && stream_write(e->stream, chunk, n) < 0)
        blame(e->sim, "a write within the room was refused");
    e->written += n;
    if (e->written < e->size) {
        e->blocked = stream_room(e->stream) == 0;
        if (!e->blocked && chance(e->sim, 10))
            e->blocked = stream_write(e->stream, chunk, stream_room(e->stream) + 1) == -EAGAIN;
    }
}

static void on_readable(void *user, struct stream *stream)
{
    struct end *e = user;

    if (e->stream != stream || e->reset_here)
        blame(e->sim, "an event for a stream that was let go");
    e->readable = true;
    if (chance(e->sim, 30))
        read_some(e);
}

static void on_writable(void *user, struct stream *stream)
{
    struct end *e = user;

    if (e->stream != stream)
        blame(e->sim, "an event for a stream that was let go");
    e->blocked = false;
    if (chance(e->sim, 30) && !e->ended)
        write_some(e);
    if (!e->sim->calm && chance(e->sim, 1))
        let_go(e, true);
}

static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct end *e = user;

    (void)reason;
    if (e->stream != stream || e->reset_here || e->reset_told)
        blame(e->sim, "a reset told twice, or to one who did it");
    e->reset_told = true;
    if (chance(e->sim, 50))
        let_go(e, false);
}

static const struct stream_ops stream_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_reset = on_reset};

static struct end *new_end(struct sim *sim, unsigned side, struct stream *stream)
{
    struct side *s = &sim->sides[side];
    struct end *e = &s->ends[s->end_count++];

    assert_true(s->end_count <= ENDS_MAX);
    *e = (struct end){.sim = sim, .stream = stream, .side = side, .used = true};
    e->id = stream_id(stream);
    e->size = roll(sim, UINT64_C(1) << roll(sim, 19));
    return e;
}

static struct end *end_by_id(struct sim *sim, unsigned side, uint32_t id)
{
    for (unsigned i = 0; i < sim->sides[side].end_count; i++) {
        if (sim->sides[side].ends[i].id == id)
            return &sim->sides[side].ends[i];
    }
    return NULL;
}

static void accept_stream(struct sim *sim, unsigned side, struct stream *stream)
{
    struct end *other = end_by_id(sim, !side, stream_id(stream)), *e;

    if (!other || end_by_id(sim, side, stream_id(stream))) {
        blame(sim, "a stream appeared that nobody opened, or twice");
        return;
    }
    e = new_end(sim, side, stream);
    e->long_lived = other->long_lived;
    if (!e->long_lived && chance(sim, 5)) {
        let_go(e, true);
        return;
    }
    if (chance(sim, 90))
        stream_set_ops(stream, &stream_ops, e);
    else
        e->used = false; /* looked at later */
}

static void on_stream_0(void *user, struct stream *stream)
{
    accept_stream(user, 0, stream);
}

static void on_stream_1(void *user, struct stream *stream)
{
    accept_stream(user, 1, stream);
}

static void note_closed(struct sim *sim, unsigned side, const struct error *why)
{
    sim->sides[side].closed_told++;
    error_line(why, sim->sides[side].closed_why, sizeof(sim->sides[side].closed_why));
}

static void on_closed_0(void *user, const struct error *why)
{
    note_closed(user, 0, why);
}

static void on_closed_1(void *user, const struct error *why)
{
    note_closed(user, 1, why);
}

static const struct session_ops session_ops[2] = {
    {.on_stream = on_stream_0, .on_closed = on_closed_0},
    {.on_stream = on_stream_1, .on_closed = on_closed_1},
};

static void play_end(struct sim *sim, struct end *e)
{
    if (!e->used) {
        if (sim->calm || chance(sim, 20)) {
            e->used = true;
            stream_set_ops(e->stream, &stream_ops, e);
        }
        return;
    }
    if (e->reset_told) {
        if (sim->calm || chance(sim, 20))
            let_go(e, chance(sim, 50));
        return;
    }
    if (!e->ended && !e->blocked && e->written < e->size && (sim->calm || chance(sim, 60)))
        write_some(e);
    if (!e->ended && e->written == e->size && !e->long_lived && (sim->calm || chance(sim, 30))) {
        stream_end(e->stream);
        e->ended = true;
    }
    if (e->readable && (sim->calm || chance(sim, 60)))
        read_some(e);
    if (chance(sim, 5))
        stream_set_care(e->stream, (enum care)roll(sim, CARE_CLASSES));
    if (e->long_lived)
        return;
    if (e->ended && e->at_end && (sim->calm || chance(sim, 30)))
        let_go(e, false);
    else if (!sim->calm && chance(sim, 1))
        let_go(e, chance(sim, 50)); /* too early: a reset, or nobody reads any more */
}

static void open_one(struct sim *sim, unsigned side, bool long_lived)
{
    struct side *s = &sim->sides[side];
    struct stream *stream;
    struct end *e;

    assert_int_equal(stream_open(s->session, (enum care)roll(sim, CARE_CLASSES), &stream), 0);
    s->opened++;
    e = new_end(sim, side, stream);
    e->long_lived = long_lived;
    stream_set_ops(stream, &stream_ops, e);
    if (long_lived)
        e->size += 1; /* announced for sure */
    else if (chance(sim, 5))
        let_go(e, chance(sim, 50)); /* before its first byte */
}

/* --- the wires ----------------------------------------------------------------------------- */

static void join(struct sim *sim, struct wire *w, unsigned side)
{
    assert_int_equal(session_stripe_add(sim->sides[side].session, sim->now_ns, &w->stripe[side]),
                     0);
}

static void tear(struct sim *sim, struct wire *w)
{
    w->torn = true;
    for (int i = 0; i < 2; i++) {
        size_t keep = (size_t)roll(sim, buffer_len(&w->to[i]) + 1);

        w->to[i].tail = w->to[i].head + keep;
    }
}

static void learn_of_loss(struct sim *sim, struct wire *w, unsigned side)
{
    session_stripe_lost(sim->sides[side].session, TAKE_PTR(w->stripe[side]));
    buffer_clear(&w->to[side]);
}

static void change_wire(struct sim *sim, struct wire *w)
{
    if (w->torn) {
        for (unsigned i = 0; i < 2; i++) {
            if (w->stripe[i] && chance(sim, 10))
                learn_of_loss(sim, w, i);
        }
        if (!w->stripe[0] && !w->stripe[1])
            w->torn = false;
    } else if (w->for_good && !w->stripe[0] && !w->stripe[1]) {
        return;
    } else if (!w->stripe[1]) {
        buffer_clear(&w->to[0]);
        buffer_clear(&w->to[1]);
        if (sim->calm || chance(sim, 10))
            join(sim, w, 1); /* the acceptor is first: its WELCOME invites the initiator */
    } else if (!w->stripe[0]) {
        if (sim->calm || chance(sim, 30))
            join(sim, w, 0);
    } else if (!sim->calm && chance(sim, 2)) {
        tear(sim, w);
    }
}

static void send_on(struct sim *sim, struct wire *w, unsigned from)
{
    static uint8_t out[3 * WIRE_FRAME_MAX_BYTES];
    size_t n;

    if (!w->stripe[from] || buffer_len(&w->to[!from]) > PIPE_FULL_BYTES)
        return;
    n = session_stripe_pull(sim->sides[from].session, w->stripe[from], out,
                            WIRE_FRAME_MAX_BYTES + (size_t)roll(sim, 2 * WIRE_FRAME_MAX_BYTES),
                            sim->now_ns);
    if (n > 0 && !w->torn)
        assert_int_equal(buffer_append(&w->to[!from], out, n), 0);
}

static void receive_on(struct sim *sim, struct wire *w, unsigned at)
{
    size_t left = buffer_len(&w->to[at]);

    if (!w->stripe[at] || left == 0)
        return;
    if (!sim->calm || chance(sim, 50))
        left = 1 + (size_t)roll(sim, left);
    while (left > 0 && !sim->fault) {
        size_t n = chance(sim, 70) ? left : 1 + (size_t)roll(sim, MIN(left, (size_t)5000));

        if (session_stripe_feed(sim->sides[at].session, w->stripe[at], buffer_data(&w->to[at]), n,
                                sim->now_ns) < 0)
            blame(sim, "a feed failed");
        buffer_consume(&w->to[at], n);
        left -= n;
        if (chance(sim, 20))
            session_dispatch(sim->sides[at].session);
    }
}

/* --- a history ----------------------------------------------------------------------------- */

static void check_bounds(struct sim *sim, unsigned side)
{
    const struct session_config *c = &sim->config[side];
    struct session_stats stats;

    session_get_stats(sim->sides[side].session, &stats);
    if (stats.buffered_bytes >
        (uint64_t)stats.streams * (c->window_bytes + c->peer_window_bytes + c->unsent_bytes))
        blame(sim, "more is buffered than the windows allow");
    if (stats.stripes > 0 && session_deadline(sim->sides[side].session) > sim->now_ns + NS_PER_S)
        blame(sim, "no deadline for the next ping");
}

static void step(struct sim *sim)
{
    sim->now_ns += (1 + roll(sim, 50)) * NS_PER_MS;
    for (unsigned i = 0; i < sim->wire_count; i++) {
        struct wire *w = &sim->wires[i];

        change_wire(sim, w);
        for (unsigned side = 0; side < 2; side++) {
            if (sim->calm || chance(sim, 70))
                receive_on(sim, w, side);
            if (sim->calm || chance(sim, 70))
                send_on(sim, w, side);
        }
    }
    for (unsigned side = 0; side < 2; side++) {
        struct side *s = &sim->sides[side];

        session_tick(s->session, sim->now_ns);
        for (unsigned i = 0; i < s->end_count; i++) {
            if (s->ends[i].stream)
                play_end(sim, &s->ends[i]);
        }
        session_dispatch(s->session);
        if (!sim->calm && s->opened < ENDS_MAX / 2 && chance(sim, 10))
            open_one(sim, side, false);
        check_bounds(sim, side);
        if (s->closed_told)
            blame(sim, "a session closed by itself");
    }
}

/* True when everything that both sides said has arrived and all but the long-lived streams are gone. */
static bool is_settled(struct sim *sim)
{
    for (unsigned i = 0; i < sim->wire_count; i++) {
        const struct wire *w = &sim->wires[i];

        if (w->torn || !w->stripe[0] != w->for_good)
            return false;
    }
    for (unsigned side = 0; side < 2; side++) {
        struct side *s = &sim->sides[side];
        struct session_stats stats;
        unsigned alive = 0;

        for (unsigned i = 0; i < s->end_count; i++) {
            const struct end *e = &s->ends[i];
            const struct end *other = end_by_id(sim, !side, e->id);

            if (!e->stream)
                continue;
            alive++;
            if (!e->long_lived || !other || e->read != other->size || !stream_is_flushed(e->stream))
                return false;
        }
        session_get_stats(s->session, &stats);
        if (stats.streams != alive)
            return false;
    }
    return true;
}

/* What must be true of each stream once everything has settled. */
static void check_ends(struct sim *sim)
{
    for (unsigned side = 0; side < 2; side++) {
        for (unsigned i = 0; i < sim->sides[side].end_count; i++) {
            const struct end *e = &sim->sides[side].ends[i];
            const struct end *other = end_by_id(sim, !side, e->id);
            bool was_reset = e->reset_here || (other && other->reset_here);

            if (e->reset_told && !(other && other->reset_here))
                blame(sim, "a reset that nobody made");
            if (!other && !was_reset)
                blame(sim, "a stream never arrived");
            if (e->at_end && other && e->read != other->written)
                blame(sim, "an end before the last byte");
            if (!was_reset && other && !e->long_lived && e->at_end != true && e->stream)
                blame(sim, "an end was not told");
        }
    }
}

static void say_goodbye(struct sim *sim)
{
    unsigned by = (unsigned)roll(sim, 2);
    struct side *other = &sim->sides[!by];

    session_close(sim->sides[by].session, WIRE_REASON_SHUTDOWN, "good night");
    for (unsigned i = 0; i < 50; i++) {
        for (unsigned k = 0; k < sim->wire_count; k++) {
            send_on(sim, &sim->wires[k], by);
            receive_on(sim, &sim->wires[k], !by);
        }
        session_dispatch(other->session);
        session_dispatch(sim->sides[by].session);
    }
    if (other->closed_told != 1 || sim->sides[by].closed_told != 0)
        blame(sim, "the goodbye was not told once, to the other");
    else if (!strstr(other->closed_why, "good night"))
        blame(sim, "the goodbye lost its words");
    for (unsigned i = 0; i < other->end_count; i++) {
        if (other->ends[i].stream && !other->ends[i].reset_told)
            blame(sim, "the session's end was not told to a stream");
    }
}

static const char *play(uint64_t seed)
{
    static const uint32_t windows[] = {700, 5000, 70000, 300000};
    static struct sim sim;
    unsigned steps, calm;

    sim = (struct sim){.rng = seed * 0x2545f4914f6cdd1du, .now_ns = NS_PER_S};
    sim.wire_count = 1 + (unsigned)roll(&sim, WIRES_MAX);
    steps = 20 + (unsigned)roll(&sim, 400);
    for (unsigned i = 0; i < 2; i++) {
        sim.config[i].window_bytes = windows[roll(&sim, 4)];
        sim.config[i].unsent_bytes = 100 + (uint32_t)roll(&sim, 100000);
        sim.config[i].initiator = i == 0;
    }
    for (unsigned i = 0; i < 2; i++) {
        sim.config[i].peer_window_bytes = sim.config[!i].window_bytes;
        assert_int_equal(session_new(&sim.sides[i].session, &sim.config[i], &session_ops[i], &sim),
                         0);
        open_one(&sim, i, true);
    }
    for (unsigned i = 0; i < steps && !sim.fault; i++)
        step(&sim);
    sim.calm = true;
    for (unsigned i = 1; i < sim.wire_count;
         i++) { /* what was lost with these is not asked for by newcomers */
        sim.wires[i].for_good = chance(&sim, 40);
        if (sim.wires[i].for_good)
            tear(&sim, &sim.wires[i]);
    }
    for (calm = 0; calm < CALM_STEPS_MAX && !sim.fault && !is_settled(&sim); calm++)
        step(&sim);
    if (calm == CALM_STEPS_MAX)
        blame(&sim, "it does not settle: bytes, an end or a stream is stuck");
    check_ends(&sim);
    if (!sim.fault)
        say_goodbye(&sim);
    for (unsigned i = 0; i < 2; i++)
        session_free(sim.sides[i].session);
    for (unsigned i = 0; i < WIRES_MAX; i++) {
        buffer_done(&sim.wires[i].to[0]);
        buffer_done(&sim.wires[i].to[1]);
    }
    return sim.fault;
}

static void test_seeded_histories(void **state)
{
    const char *one = getenv("FERRY_SEED"), *count = getenv("FERRY_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 0) : 1;
    uint64_t last = one ? first : count ? strtoull(count, NULL, 0) : 2000;

    (void)state;
    for (uint64_t seed = first; seed <= last; seed++) {
        const char *fault = play(seed);

        if (fault)
            fail_msg("FERRY_SEED=%llu: %s", (unsigned long long)seed, fault);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeded_histories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
