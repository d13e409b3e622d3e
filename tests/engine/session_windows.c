/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credit among the streams of a session: two sessions, a round trip apart, over a line that carries what it is given.
 * Streams that took all the credit there was would leave those that come later a first window a round trip, for good.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/base/macros.h"
#include "netlink/session.h"

enum {
    ONE_WAY_MS = 50,
    FIRST_BYTES = 16 * 1024,
    MOST_BYTES = 4 * 1024 * 1024,
    UNSENT_BYTES = 512 * 1024,
    BUDGET_BYTES = 8 * 1024 * 1024,
    GREEDY = 4,
    LATER = 3,
};

struct end {
    struct session *session;
    struct stripe *stripe;
    struct buffer coming; /* what the other end sent, half a round trip ago */
};

struct pair {
    struct end a, b;
    uint64_t now_ns;
};

static void on_readable(void *user, struct stream *stream)
{
    const uint8_t *data;
    size_t n;

    (void)user;
    while ((n = stream_peek(stream, &data)) > 0)
        stream_consume(stream, n);
}

static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    (void)user;
    (void)stream;
    (void)reason;
    fail();
}

static const struct stream_ops stream_ops = {.on_readable = on_readable, .on_reset = on_reset};

static void on_stream(void *user, struct stream *stream)
{
    stream_set_ops(stream, &stream_ops, user);
    on_readable(user, stream);
}

static void on_closed(void *user, const struct error *why)
{
    (void)user;
    fail_msg("%s", why->what);
}

static const struct session_ops ops = {.on_stream = on_stream, .on_closed = on_closed};

static void end_new(struct end *e, bool initiator)
{
    struct session_config config = {.initiator = initiator,
                                    .window_bytes = FIRST_BYTES,
                                    .window_max_bytes = MOST_BYTES,
                                    .budget_bytes = BUDGET_BYTES,
                                    .peer_window_bytes = FIRST_BYTES,
                                    .unsent_bytes = UNSENT_BYTES};

    *e = (struct end){0};
    assert_int_equal(session_new(&e->session, &config, &ops, e), 0);
    assert_int_equal(session_stripe_add(e->session, NS_PER_S, &e->stripe), 0);
}

/* Half a round trip: each end gets what the other sent in the one before. */
static void step(struct pair *p)
{
    struct end *ends[] = {&p->a, &p->b};
    struct buffer sent[2] = {{0}, {0}};

    p->now_ns += ONE_WAY_MS * NS_PER_MS;
    for (unsigned i = 0; i < 2; i++) {
        struct end *e = ends[i];
        uint8_t out[WIRE_FRAME_MAX_BYTES];
        size_t n;

        session_tick(e->session, p->now_ns);
        assert_int_equal(session_stripe_feed(e->session, e->stripe, buffer_data(&e->coming),
                                             buffer_len(&e->coming), p->now_ns),
                         0);
        session_dispatch(e->session);
        while ((n = session_stripe_pull(e->session, e->stripe, out, sizeof(out), p->now_ns)) > 0)
            assert_int_equal(buffer_append(&sent[!i], out, n), 0);
        buffer_done(&e->coming);
    }
    p->a.coming = sent[0];
    p->b.coming = sent[1];
}

/* Writes all that the streams take, for so many round trips; what of the last one's bytes arrived in the last. */
static uint64_t run(struct pair *p, struct stream **streams, unsigned count, unsigned round_trips)
{
    uint8_t *data = calloc(1, MOST_BYTES);
    uint64_t before = 0;

    assert_non_null(data);
    for (unsigned i = 0; i < 2 * round_trips; i++) {
        for (unsigned k = 0; k < count; k++)
            assert_int_equal(stream_write(streams[k], data, stream_room(streams[k])), 0);
        if (i == 2 * (round_trips - 1))
            before = stream_sent_acked_bytes(streams[count - 1]);
        step(p);
    }
    free(data);
    return stream_sent_acked_bytes(streams[count - 1]) - before;
}

static void test_later_streams_find_credit(void **state)
{
    struct stream *streams[GREEDY + LATER];
    struct session_stats stats;
    struct pair p = {.now_ns = NS_PER_S};
    uint64_t carried;

    (void)state;
    end_new(&p.a, true);
    end_new(&p.b, false);
    for (unsigned i = 0; i < GREEDY; i++) {
        assert_int_equal(stream_open(p.a.session, CARE_BULK, &streams[i]), 0);
        stream_set_ops(streams[i], &stream_ops, &p.a);
    }
    run(&p, streams, GREEDY, 40);
    for (unsigned i = GREEDY; i < GREEDY + LATER; i++) {
        assert_int_equal(stream_open(p.a.session, CARE_BULK, &streams[i]), 0);
        stream_set_ops(streams[i], &stream_ops, &p.a);
        carried = run(&p, streams, i + 1, 40);
        assert_true(carried > BUDGET_BYTES / 32);
        session_get_stats(p.b.session, &stats);
        assert_in_range(stats.granted_bytes, 1, BUDGET_BYTES + (i + 1) * FIRST_BYTES);
    }
    session_free(p.a.session);
    session_free(p.b.session);
    buffer_done(&p.a.coming);
    buffer_done(&p.b.coming);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_later_streams_find_credit)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
