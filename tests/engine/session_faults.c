/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session against a peer that is hand-made: every breach of the protocol closes it with a reason,
 * every repetition and every order that losses can make is harmless, and last words that get lost are
 * asked for again.
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

#include "core/base/clock.h"
#include "core/base/wire.h"
#include "netlink/session.h"

enum { WINDOW_BYTES = 100000, PEER = 1 /* the peer's first stream: it dialled */, OURS = 2 };

struct owner {
    struct stream *last;
    unsigned streams, readable, resets, closed;
    uint64_t reset_reason;
    char why[512];
};

struct rig {
    struct owner owner;
    struct session *session;
    struct stripe *stripe, *second;
};

/* --- the owner ----------------------------------------------------------------------------- */

static void on_readable(void *user, struct stream *stream)
{
    struct owner *o = user;

    (void)stream;
    o->readable++;
}

static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct owner *o = user;

    (void)stream;
    o->resets++;
    o->reset_reason = reason;
}

static const struct stream_ops stream_ops = {.on_readable = on_readable, .on_reset = on_reset};

static void on_stream(void *user, struct stream *stream)
{
    struct owner *o = user;

    o->streams++;
    o->last = stream;
    stream_set_ops(stream, &stream_ops, o);
}

static void on_closed(void *user, const struct error *why)
{
    struct owner *o = user;

    o->closed++;
    error_line(why, o->why, sizeof(o->why));
}

static const struct session_ops ops = {.on_stream = on_stream, .on_closed = on_closed};

static void rig_new(struct rig *rig)
{
    struct session_config config = {.initiator = false,
                                    .window_bytes = WINDOW_BYTES,
                                    .peer_window_bytes = WINDOW_BYTES,
                                    .unsent_bytes = WINDOW_BYTES};

    *rig = (struct rig){0};
    assert_int_equal(session_new(&rig->session, &config, &ops, &rig->owner), 0);
    assert_int_equal(session_stripe_add(rig->session, NS_PER_S, &rig->stripe), 0);
    assert_int_equal(session_stripe_add(rig->session, NS_PER_S, &rig->second), 0);
}

static void rig_free(struct rig *rig)
{
    session_free(rig->session);
}

/* --- the peer ------------------------------------------------------------------------------ */

static int feed_header(struct rig *rig, const struct wire_header *h, const void *payload)
{
    uint8_t frame[WIRE_FRAME_MAX_BYTES];

    wire_put_header(frame, h);
    if (h->length)
        memcpy(frame + WIRE_HEADER_BYTES, payload, h->length);
    return session_stripe_feed(rig->session, rig->stripe, frame, WIRE_HEADER_BYTES + h->length,
                               NS_PER_S);
}

static int feed_data(struct rig *rig, uint32_t stream, uint64_t offset, const char *bytes, bool fin)
{
    uint32_t len = (uint32_t)strlen(bytes);
    struct wire_header h = {
        .type = WIRE_DATA, .stream = stream, .offset = offset, .length = len, .raw_length = len};

    h.flags = fin ? WIRE_FLAG_FIN : 0;
    return feed_header(rig, &h, bytes);
}

static int feed_ack(struct rig *rig, uint32_t stream, uint64_t acked, uint64_t limit)
{
    struct wire_header h = {.type = WIRE_ACK, .stream = stream, .offset = acked, .length = 8};
    uint8_t payload[8];

    put_be64(payload, limit);
    return feed_header(rig, &h, payload);
}

static int feed_reset(struct rig *rig, uint32_t stream, uint64_t reason)
{
    struct wire_header h = {.type = WIRE_RESET, .stream = stream, .offset = reason};

    return feed_header(rig, &h, NULL);
}

/* How many frames of @type about @stream leave now, over all stripes; the last one in *ret. */
static unsigned sent(struct rig *rig, enum wire_type type, uint32_t stream, struct wire_header *ret)
{
    static uint8_t out[4 * WIRE_FRAME_MAX_BYTES];
    unsigned count = 0;

    for (int i = 0; i < 2; i++) {
        struct stripe *stripe = i ? rig->second : rig->stripe;
        size_t n;

        while (stripe &&
               (n = session_stripe_pull(rig->session, stripe, out, sizeof(out), NS_PER_S)) > 0) {
            for (size_t at = 0; at < n;) {
                struct wire_header h;
                const char *why;

                assert_int_equal(wire_get_header(out + at, &h, &why), 0);
                at += WIRE_HEADER_BYTES + h.length;
                if (h.type == type && h.stream == stream) {
                    *ret = h;
                    count++;
                }
            }
        }
    }
    return count;
}

static void expect_fault(struct rig *rig, int result, const char *words)
{
    struct wire_header h;

    assert_int_equal(result, -EPROTO);
    assert_true(session_is_closed(rig->session));
    session_dispatch(rig->session);
    session_dispatch(rig->session);
    assert_int_equal(rig->owner.closed, 1);
    if (!strstr(rig->owner.why, words))
        fail_msg("'%s' is not in '%s'", words, rig->owner.why);
    assert_true(sent(rig, WIRE_GOODBYE, 0, &h) > 0);
    assert_int_equal(h.offset, WIRE_REASON_PROTOCOL);
    assert_int_equal(feed_data(rig, PEER, 0, "late", false), 0); /* ignored from now on */
    rig_free(rig);
}

static void expect_text(struct rig *rig, const char *text)
{
    const uint8_t *data = NULL;
    size_t n = stream_peek_joined(rig->owner.last, SIZE_MAX, &data);

    assert_int_equal(n, strlen(text));
    assert_memory_equal(data, text, n);
}

/* --- breaches ------------------------------------------------------------------------------ */

static void test_header_faults(void **state)
{
    static const struct {
        struct wire_header h;
        uint8_t reserved;
        const char *words;
    } faults[] = {
        {{.type = 0}, 0, "unknown frame type"},
        {{.type = 10}, 0, "unknown frame type"},
        {{.type = 255}, 0, "unknown frame type"},
        {{.type = WIRE_PING}, 1, "reserved byte set"},
        {{.type = WIRE_DATA, .stream = PEER, .length = LIMIT_FRAME_PAYLOAD_BYTES + 1},
         0,
         "larger than the limit"},
        {{.type = WIRE_DATA, .stream = PEER, .length = 3, .raw_length = 4},
         0,
         "sizes of a plain frame differ"},
        {{.type = WIRE_DATA, .stream = PEER, .offset = UINT64_MAX, .length = 1, .raw_length = 1},
         0,
         "offset beyond"},
        {{.type = WIRE_DATA, .stream = PEER}, 0, "empty data frame"},
        {{.type = WIRE_DATA, .length = 1, .raw_length = 1}, 0, "without a stream"},
        {{.type = WIRE_DATA, .stream = PEER, .flags = 4, .length = 1, .raw_length = 1},
         0,
         "unknown flag"},
        {{.type = WIRE_DATA, .stream = PEER, .care = 4, .length = 1, .raw_length = 1},
         0,
         "class of care"},
        {{.type = WIRE_DATA, .stream = PEER, .flags = WIRE_FLAG_ZSTD, .length = 1, .raw_length = 5},
         0,
         "not what it says"},
        {{.type = WIRE_HELLO, .length = 10}, 0, "greeting inside a session"},
        {{.type = WIRE_WELCOME, .length = 10}, 0, "greeting inside a session"},
        {{.type = WIRE_REFUSE, .length = 10}, 0, "greeting inside a session"},
        {{.type = WIRE_ACK, .stream = PEER, .length = 7}, 0, "malformed acknowledgement"},
        {{.type = WIRE_ACK, .length = 8}, 0, "malformed acknowledgement"},
        {{.type = WIRE_RESET, .stream = PEER, .length = 1}, 0, "malformed reset"},
        {{.type = WIRE_PING, .stream = 3}, 0, "malformed ping"},
        {{.type = WIRE_PONG, .flags = 1}, 0, "field set that this frame does not have"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        uint8_t frame[WIRE_FRAME_MAX_BYTES + 1] = {0};
        struct rig rig;

        rig_new(&rig);
        wire_put_header(frame, &faults[i].h);
        frame[3] = faults[i].reserved;
        expect_fault(&rig,
                     session_stripe_feed(rig.session, rig.stripe, frame,
                                         WIRE_HEADER_BYTES + faults[i].h.length, NS_PER_S),
                     faults[i].words);
    }
}

static void test_data_beyond_credit(void **state)
{
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, WINDOW_BYTES - 1, "x", false),
                     0); /* the last one allowed */
    expect_fault(&rig, feed_data(&rig, PEER, WINDOW_BYTES, "x", false), "beyond the credit");
}

static void test_acks_of_what_was_never_sent(void **state)
{
    struct stream *st;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(stream_open(rig.session, CARE_RAM, &st), 0);
    assert_int_equal(stream_write(st, "abc", 3), 0); /* written, never cut */
    expect_fault(&rig, feed_ack(&rig, OURS, 1, WINDOW_BYTES), "never sent");

    rig_new(&rig);
    expect_fault(&rig, feed_ack(&rig, OURS, 0, WINDOW_BYTES), "never opened");

    rig_new(&rig);
    assert_int_equal(stream_open(rig.session, CARE_RAM, &st), 0);
    expect_fault(&rig, feed_ack(&rig, OURS, 0, LIMIT_STREAM_WINDOW_BYTES + 1),
                 "credit beyond the limit");
}

static void test_data_around_the_end(void **state)
{
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 0, "abc", true), 0);
    expect_fault(&rig, feed_data(&rig, PEER, 3, "d", false), "beyond the stream's end");

    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 5, "f", true),
                     0); /* early: the end is known all the same */
    expect_fault(&rig, feed_data(&rig, PEER, 0, "ab", true), "beyond the stream's end");

    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 0, "abc", false), 0);
    expect_fault(&rig, feed_data(&rig, PEER, 0, "a", true), "before data already received");

    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 5, "fgh", false), 0);
    expect_fault(&rig, feed_data(&rig, PEER, 0, "abcde", true), "before data already received");
}

static void test_streams_out_of_range(void **state)
{
    struct rig rig;

    (void)state;
    rig_new(&rig);
    expect_fault(&rig, feed_data(&rig, OURS, 0, "x", false), "never opened");

    rig_new(&rig);
    expect_fault(&rig, feed_data(&rig, 1000001, 0, "x", false), "too far ahead");

    rig_new(&rig);
    for (uint32_t i = 0; i < LIMIT_SESSION_STREAMS; i++)
        assert_int_equal(feed_data(&rig, PEER + 2 * i, 0, "x", false), 0);
    expect_fault(&rig, feed_data(&rig, PEER + 2 * LIMIT_SESSION_STREAMS, 0, "x", false),
                 "too many streams");
}

/* The peer may open ids in any order, thousands over time; each is one stream, once. */
static void test_many_streams_over_time(void **state)
{
    struct rig rig;

    (void)state;
    rig_new(&rig);
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t id = PEER + 2 * (i ^ 1);
        struct wire_header h;

        assert_int_equal(feed_data(&rig, id, 0, "x", true), 0);
        session_dispatch(rig.session);
        assert_int_equal(rig.owner.streams, i + 1);
        stream_reset(rig.owner.last, WIRE_REASON_NONE);
        assert_int_equal(sent(&rig, WIRE_RESET, id, &h), 1);
        assert_int_equal(feed_reset(&rig, id, WIRE_REASON_GONE), 0);
        assert_int_equal(feed_data(&rig, id, 0, "x", true), 0); /* a late copy */
        assert_int_equal(sent(&rig, WIRE_RESET, id, &h), 1);
        assert_int_equal(h.offset, WIRE_REASON_GONE);
    }
    session_dispatch(rig.session);
    assert_int_equal(rig.owner.streams, 5000);
    assert_int_equal(rig.owner.closed, 0);
    rig_free(&rig);
}

/* --- repetition and order ------------------------------------------------------------------ */

static void test_repetitions_are_dropped(void **state)
{
    struct wire_header h;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 0, "abc", false), 0);
    assert_int_equal(feed_data(&rig, PEER, 0, "abc", false), 0);
    assert_int_equal(feed_data(&rig, PEER, 1, "bcd", false), 0);
    assert_int_equal(feed_data(&rig, PEER, 8, "ij", true), 0); /* early, twice, and in part */
    assert_int_equal(feed_data(&rig, PEER, 8, "ij", true), 0);
    assert_int_equal(feed_data(&rig, PEER, 9, "j", true), 0);
    assert_int_equal(feed_data(&rig, PEER, 10, "", true), 0);
    assert_int_equal(feed_data(&rig, PEER, 10, "", true), 0);
    assert_int_equal(feed_data(&rig, PEER, 6, "gh", false), 0);
    session_dispatch(rig.session);
    expect_text(&rig, "abcd");
    assert_int_equal(feed_data(&rig, PEER, 3, "defghij", false), 0); /* over all of it */
    session_dispatch(rig.session);
    expect_text(&rig, "abcdefghij");
    assert_int_equal(sent(&rig, WIRE_ACK, PEER, &h), 1);
    assert_int_equal(h.offset, 11); /* the end counts as a byte */
    stream_consume(rig.owner.last, 10);
    assert_true(stream_at_end(rig.owner.last));
    assert_int_equal(rig.owner.streams, 1);
    assert_int_equal(rig.owner.closed, 0);
    rig_free(&rig);
}

static void test_random_overlaps(void **state)
{
    static const char TEXT[] = "the quick brown fox jumps over the lazy dog and runs away";
    enum { LEN = sizeof(TEXT) - 1 };

    (void)state;
    srandom(7);
    for (int round = 0; round < 2000; round++) {
        char piece[LEN + 1];
        struct rig rig;

        rig_new(&rig);
        for (int i = 0; i < 12; i++) {
            size_t at = (size_t)random() % LEN, len = 1 + (size_t)random() % (LEN - at);

            snprintf(piece, sizeof(piece), "%.*s", (int)len, TEXT + at);
            assert_int_equal(feed_data(&rig, PEER, at, piece, at + len == LEN && random() % 2), 0);
        }
        assert_int_equal(feed_data(&rig, PEER, 0, TEXT, true), 0);
        session_dispatch(rig.session);
        expect_text(&rig, TEXT);
        rig_free(&rig);
    }
}

/* A peer that sends single bytes apart and then the whole: no recursion, nothing kept twice. */
static void test_a_comb_of_segments(void **state)
{
    static char whole[LIMIT_FRAME_PAYLOAD_BYTES];
    struct rig rig;

    (void)state;
    memset(whole, 'x', sizeof(whole) - 1);
    rig_new(&rig);
    for (uint64_t at = 2; at < sizeof(whole) - 1; at += 20)
        assert_int_equal(feed_data(&rig, PEER, at, "x", false), 0);
    assert_int_equal(feed_data(&rig, PEER, 1, whole, false), 0);
    assert_int_equal(feed_data(&rig, PEER, 0, "x", false), 0);
    session_dispatch(rig.session);
    whole[0] = 'x';
    assert_int_equal(stream_peek_joined(rig.owner.last, SIZE_MAX, &(const uint8_t *){NULL}),
                     sizeof(whole));
    rig_free(&rig);
}

/* Each piece costs more memory than its byte: their number has a limit too. */
static void test_too_many_pieces(void **state)
{
    struct rig rig;
    uint64_t at = 2;
    int r = 0;

    (void)state;
    rig_new(&rig);
    for (; r == 0 && at < 2 * LIMIT_FRAME_PAYLOAD_BYTES; at += 2)
        r = feed_data(&rig, PEER, at, "x", false);
    assert_int_equal(r, -EPROTO);
    assert_in_range(at / 2, LIMIT_STREAM_RANGES, LIMIT_STREAM_RANGES + 4);
    rig_free(&rig);
}

/* --- ends ---------------------------------------------------------------------------------- */

static unsigned streams_of(struct rig *rig)
{
    struct session_stats stats;

    session_get_stats(rig->session, &stats);
    return stats.streams;
}

static void lose_all(struct rig *rig)
{
    session_stripe_lost(rig->session, rig->stripe);
    session_stripe_lost(rig->session, rig->second);
    assert_int_equal(session_stripe_add(rig->session, NS_PER_S, &rig->stripe), 0);
    assert_int_equal(session_stripe_add(rig->session, NS_PER_S, &rig->second), 0);
}

static void test_reset_before_the_first_byte(void **state)
{
    struct wire_header h;
    struct stream *st;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(stream_open(rig.session, CARE_RAM, &st), 0);
    stream_reset(st, WIRE_REASON_BUSY);
    assert_int_equal(sent(&rig, WIRE_RESET, OURS, &h), 1);
    assert_int_equal(h.offset, WIRE_REASON_BUSY);
    lose_all(&rig);
    assert_int_equal(sent(&rig, WIRE_RESET, OURS, &h), 1); /* until it is answered */
    assert_int_equal(feed_reset(&rig, OURS, WIRE_REASON_GONE), 0);
    assert_int_equal(streams_of(&rig), 0);

    /* The same as the peer does it: its late data must not make a stream. */
    assert_int_equal(feed_reset(&rig, PEER, WIRE_REASON_BUSY), 0);
    assert_int_equal(feed_data(&rig, PEER, 0, "late", false), 0);
    session_dispatch(rig.session);
    assert_int_equal(rig.owner.streams, 0);
    assert_true(sent(&rig, WIRE_RESET, PEER, &h) >= 1);
    assert_int_equal(h.offset, WIRE_REASON_GONE);
    rig_free(&rig);
}

static void test_crossing_resets(void **state)
{
    struct wire_header h;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 0, "abc", false), 0);
    session_dispatch(rig.session);
    stream_reset(rig.owner.last, WIRE_REASON_NONE);
    assert_int_equal(sent(&rig, WIRE_RESET, PEER, &h), 1);
    assert_int_equal(feed_reset(&rig, PEER, WIRE_REASON_NONE), 0);
    assert_int_equal(streams_of(&rig), 0);
    session_dispatch(rig.session);
    assert_int_equal(rig.owner.resets, 0);
    rig_free(&rig);
}

static void test_reset_is_told_once(void **state)
{
    struct wire_header h;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 0, "abc", false), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(feed_reset(&rig, PEER, WIRE_REASON_BUSY), 0);
        session_dispatch(rig.session);
        assert_int_equal(sent(&rig, WIRE_RESET, PEER, &h), 1); /* each is answered */
        assert_int_equal(h.offset, WIRE_REASON_GONE);
    }
    assert_int_equal(rig.owner.resets, 1);
    assert_int_equal(rig.owner.reset_reason, WIRE_REASON_BUSY);
    expect_text(&rig, "abc"); /* what came before it can still be read */
    stream_release(rig.owner.last);
    assert_int_equal(streams_of(&rig), 0);
    rig_free(&rig);
}

/* More resets in one turn than answers are kept for: who misses one asks again. */
static void test_a_burst_of_resets(void **state)
{
    enum { COUNT = 100 };
    struct wire_header h;
    unsigned answered = 0;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(feed_reset(&rig, PEER + 2 * i, WIRE_REASON_NONE), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(feed_reset(&rig, PEER + 2 * i, WIRE_REASON_NONE), 0);
        answered += sent(&rig, WIRE_RESET, PEER + 2 * i, &h) > 0;
    }
    assert_int_equal(answered, COUNT);
    session_dispatch(rig.session);
    assert_int_equal(rig.owner.streams, 0);
    rig_free(&rig);
}

/* The peer acknowledged our end and forgot the stream; its word was lost. A ping later we ask, it answers. */
static void test_lost_last_acknowledgement(void **state)
{
    struct wire_header h;
    struct stream *st;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(stream_open(rig.session, CARE_RAM, &st), 0);
    assert_int_equal(stream_write(st, "abc", 3), 0);
    stream_end(st);
    assert_true(sent(&rig, WIRE_DATA, OURS, &h) >= 1);
    assert_int_equal(h.flags, WIRE_FLAG_FIN);
    assert_int_equal(feed_data(&rig, OURS, 0, "", true), 0);
    assert_int_equal(sent(&rig, WIRE_ACK, OURS, &h), 1);
    assert_false(stream_is_flushed(st));
    session_tick(rig.session, 3 * NS_PER_S);
    assert_int_equal(sent(&rig, WIRE_ACK, OURS, &h), 1);
    assert_int_equal(feed_reset(&rig, OURS, WIRE_REASON_GONE), 0);
    assert_true(stream_is_flushed(st));
    assert_int_equal(rig.owner.resets, 0);
    stream_release(st);
    assert_int_equal(streams_of(&rig), 0);

    /* The other way round: we are asked about a stream that we have forgotten. */
    assert_int_equal(feed_ack(&rig, OURS, 4, WINDOW_BYTES), 0);
    assert_int_equal(sent(&rig, WIRE_RESET, OURS, &h), 1);
    assert_int_equal(h.offset, WIRE_REASON_GONE);
    rig_free(&rig);
}

static void test_reset_does_not_flush(void **state)
{
    struct wire_header h;
    struct stream *st;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(stream_open(rig.session, CARE_RAM, &st), 0);
    stream_set_ops(st, &stream_ops, &rig.owner);
    assert_int_equal(stream_write(st, "abcdef", 6), 0);
    assert_true(sent(&rig, WIRE_DATA, OURS, &h) >= 1);
    assert_int_equal(feed_ack(&rig, OURS, 2, WINDOW_BYTES), 0);
    assert_int_equal(feed_reset(&rig, OURS, WIRE_REASON_BUSY), 0);
    session_dispatch(rig.session);
    assert_int_equal(rig.owner.resets, 1);
    assert_false(stream_is_flushed(st));
    assert_int_equal(stream_sent_acked_bytes(st), 2);
    assert_int_equal(stream_room(st), 0);
    assert_int_equal(stream_write(st, "x", 1), -EPIPE);
    stream_release(st);
    rig_free(&rig);
}

static void test_goodbye_ends_everything_once(void **state)
{
    struct wire_header h = {.type = WIRE_GOODBYE, .offset = WIRE_REASON_SHUTDOWN, .length = 8};
    struct stream *st;
    struct rig rig;

    (void)state;
    rig_new(&rig);
    assert_int_equal(feed_data(&rig, PEER, 0, "abc", false), 0);
    assert_int_equal(feed_header(&rig, &h, "so\nlong\xff"), 0);
    assert_int_equal(feed_header(&rig, &h, "so\nlong\xff"), 0);
    session_fail(rig.session, WIRE_REASON_OUTAGE, "too late");
    session_dispatch(rig.session);
    session_dispatch(rig.session);
    assert_int_equal(rig.owner.closed, 1);
    assert_non_null(strstr(rig.owner.why, "so?long?"));
    assert_int_equal(rig.owner.resets, 1);
    expect_text(&rig, "abc");
    assert_int_equal(stream_open(rig.session, CARE_RAM, &st), -EPIPE);
    assert_int_equal(sent(&rig, WIRE_GOODBYE, 0, &h), 0); /* no echo */
    stream_release(rig.owner.last);
    assert_int_equal(streams_of(&rig), 0);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_faults),
        cmocka_unit_test(test_data_beyond_credit),
        cmocka_unit_test(test_acks_of_what_was_never_sent),
        cmocka_unit_test(test_data_around_the_end),
        cmocka_unit_test(test_streams_out_of_range),
        cmocka_unit_test(test_many_streams_over_time),
        cmocka_unit_test(test_repetitions_are_dropped),
        cmocka_unit_test(test_random_overlaps),
        cmocka_unit_test(test_a_comb_of_segments),
        cmocka_unit_test(test_too_many_pieces),
        cmocka_unit_test(test_reset_before_the_first_byte),
        cmocka_unit_test(test_crossing_resets),
        cmocka_unit_test(test_reset_is_told_once),
        cmocka_unit_test(test_a_burst_of_resets),
        cmocka_unit_test(test_lost_last_acknowledgement),
        cmocka_unit_test(test_reset_does_not_flush),
        cmocka_unit_test(test_goodbye_ends_everything_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
