/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that take the detour through a compressor: whatever it takes, refuses, gives back late, in another
 * order or not smaller, the peer reads the same bytes; what the peer sends compressed is checked; nothing is
 * left behind when a stream or a session ends in between.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "core/base/random.h"
#include "netlink/pack.h"
#include "netlink/session.h"

enum { PLACES = 3, SIZE_BYTES = 3000000, WINDOW_BYTES = 1 << 20 };

struct end {
    struct session *session;
    struct stripe *stripe;
    struct stream *stream;
    uint64_t written, read;
    bool at_end, closed;
    struct error why;
};

struct rig {
    struct end a, b; /* a writes, b reads */
    struct pack_writer *writer;
    struct packing *held[PLACES];
    unsigned held_count, taken, refused;
    uint64_t random, now_ns;
    bool noise; /* incompressible */
};

static uint64_t roll(struct rig *r, uint64_t below)
{
    return splitmix64_next(&r->random) % below;
}

static uint8_t byte_at(const struct rig *r, uint64_t at)
{
    uint64_t z = (at + 1) * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    if (r->noise)
        return (uint8_t)((z ^ (z >> 27)) >> 32);
    return (uint8_t) "a page of memory; "[at % 18];
}

/* --- the compressor ------------------------------------------------------------------------ */

static bool on_packable(void *user, struct packing *packing)
{
    struct rig *r = user;

    if (r->held_count == PLACES || roll(r, 4) == 0) {
        r->refused++;
        return false;
    }
    r->held[r->held_count++] = packing;
    r->taken++;
    return true;
}

/* Gives one back, not the one that waits longest. */
static void give_back(struct rig *r)
{
    static uint8_t out[LIMIT_FRAME_PAYLOAD_BYTES];
    unsigned i;
    struct packing *packing;
    size_t len;

    if (r->held_count == 0)
        return;
    i = (unsigned)roll(r, r->held_count);
    packing = r->held[i];
    r->held[i] = r->held[--r->held_count];
    len = roll(r, 5) == 0
              ? 0
              : pack_write(r->writer, 1, packing->data, packing->length, out, sizeof(out));
    session_packed(packing, out, len);
}

/* --- the two ends -------------------------------------------------------------------------- */

static void on_readable(void *user, struct stream *stream)
{
    struct rig *r = user;
    const uint8_t *data = NULL;
    size_t n;

    while ((n = stream_peek(stream, &data)) > 0) {
        for (size_t i = 0; i < n; i++)
            assert_int_equal(data[i], byte_at(r, r->b.read + i));
        stream_consume(stream, n);
        r->b.read += n;
    }
    r->b.at_end = stream_at_end(stream);
}

static const struct stream_ops reader_ops = {.on_readable = on_readable};
static const struct stream_ops writer_ops = {.on_readable = NULL};

static void on_stream(void *user, struct stream *stream)
{
    struct rig *r = user;

    r->b.stream = stream;
    stream_set_ops(stream, &reader_ops, r);
}

static void on_closed(void *user, const struct error *why)
{
    struct rig *r = user;

    r->b.closed = true;
    r->b.why = *why;
}

static const struct session_ops ops_a = {
    .on_stream = on_stream, .on_closed = on_closed, .on_packable = on_packable};
static const struct session_ops ops_b = {.on_stream = on_stream, .on_closed = on_closed};

static void rig_new(struct rig *r, uint64_t seed, bool noise)
{
    struct session_config config = {.initiator = true,
                                    .window_bytes = WINDOW_BYTES,
                                    .peer_window_bytes = WINDOW_BYTES,
                                    .unsent_bytes = 512 * 1024};

    *r = (struct rig){
        .random = seed, .now_ns = NS_PER_S, .noise = noise, .writer = pack_writer_new()};
    assert_non_null(r->writer);
    assert_int_equal(session_new(&r->a.session, &config, &ops_a, r), 0);
    config.initiator = false;
    assert_int_equal(session_new(&r->b.session, &config, &ops_b, r), 0);
    assert_int_equal(session_stripe_add(r->a.session, r->now_ns, &r->a.stripe), 0);
    assert_int_equal(session_stripe_add(r->b.session, r->now_ns, &r->b.stripe), 0);
    assert_int_equal(stream_open(r->a.session, CARE_BULK, &r->a.stream), 0);
    stream_set_ops(r->a.stream, &writer_ops, r);
}

static void rig_free(struct rig *r)
{
    session_free(r->a.session);
    session_free(r->b.session);
    while (r->held_count > 0)
        give_back(r);
    pack_writer_free(r->writer);
}

static void say(struct rig *r)
{
    uint8_t chunk[100000];
    size_t n =
        MIN(MIN(stream_room(r->a.stream), sizeof(chunk)), (size_t)(SIZE_BYTES - r->a.written));

    if (n > 0)
        n = 1 + (size_t)roll(r, n);
    for (size_t i = 0; i < n; i++)
        chunk[i] = byte_at(r, r->a.written + i);
    if (n > 0)
        assert_int_equal(stream_write(r->a.stream, chunk, n), 0);
    r->a.written += n;
    if (r->a.written == SIZE_BYTES)
        stream_end(r->a.stream);
}

static void carry(struct rig *r, struct end *from, struct end *to)
{
    const uint8_t *data = NULL;
    size_t n;

    for (int i = 0;
         i < 4 && (n = session_stripe_next(from->session, from->stripe, &data, r->now_ns)) > 0; i++)
        assert_int_equal(session_stripe_feed(to->session, to->stripe, data, n, r->now_ns), 0);
}

/* The writer's connection is lost and a new one joins. */
static void reconnect(struct rig *r)
{
    session_stripe_lost(r->a.session, r->a.stripe);
    session_stripe_lost(r->b.session, r->b.stripe);
    assert_int_equal(session_stripe_add(r->a.session, r->now_ns, &r->a.stripe), 0);
    assert_int_equal(session_stripe_add(r->b.session, r->now_ns, &r->b.stripe), 0);
}

static void step(struct rig *r)
{
    r->now_ns += NS_PER_MS * (1 + roll(r, 5));
    say(r);
    if (roll(r, 3) > 0)
        give_back(r);
    carry(r, &r->a, &r->b);
    carry(r, &r->b, &r->a);
    session_tick(r->a.session, r->now_ns);
    session_dispatch(r->a.session);
    session_dispatch(r->b.session);
    if (roll(r, 200) == 0)
        reconnect(r);
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_same_bytes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct session_stats stats;
        struct rig r;

        rig_new(&r, seed, seed % 4 == 0);
        for (int i = 0; i < 100000 && !r.b.at_end; i++)
            step(&r);
        assert_true(r.b.at_end);
        assert_int_equal(r.b.read, SIZE_BYTES);
        session_get_stats(r.a.session, &stats);
        assert_true(r.refused > 0);
        if (r.noise) {
            assert_int_equal(stats.packed_bytes, 0);
            assert_true(r.taken < 12); /* it gave up trying */
        } else {
            assert_true(stats.packed_raw_bytes > SIZE_BYTES / 10);
            assert_true(stats.packed_bytes < stats.packed_raw_bytes / 10);
        }
        rig_free(&r);
    }
}

/* A stream or the whole session ends while the compressor still reads its frames. */
static void test_ends_in_between(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct rig r;

        rig_new(&r, seed, false);
        for (uint64_t i = 0; i < seed % 20; i++)
            step(&r);
        while (r.held_count == 0 && r.a.written < SIZE_BYTES)
            say(&r);
        if (seed % 3 == 0)
            stream_reset(r.a.stream, WIRE_REASON_NONE);
        else if (seed % 3 == 1)
            session_close(r.a.session, WIRE_REASON_NONE, "done");
        if (seed % 2 == 0)
            give_back(&r);
        rig_free(&r); /* gives the rest back to sessions that are gone */
    }
}

static int feed_packed(struct rig *r, const void *payload, size_t len, uint32_t raw_len)
{
    static uint8_t frame[WIRE_FRAME_MAX_BYTES];
    struct wire_header h = {.type = WIRE_DATA,
                            .flags = WIRE_FLAG_ZSTD,
                            .care = CARE_BULK,
                            .stream = 1,
                            .length = (uint32_t)len,
                            .raw_length = raw_len};

    wire_put_header(frame, &h);
    memcpy(frame + WIRE_HEADER_BYTES, payload, len);
    return session_stripe_feed(r->b.session, r->b.stripe, frame, WIRE_HEADER_BYTES + len, NS_PER_S);
}

static void test_lies_about_sizes(void **state)
{
    static uint8_t raw[40000], packed[40000];
    struct pack_writer *w = pack_writer_new();
    size_t len;

    (void)state;
    len = pack_write(w, 3, raw, sizeof(raw), packed, sizeof(packed));
    assert_in_range(len, 1, 200); /* zeroes: a bomb of a factor of hundreds */
    for (int lie = 0; lie < 6; lie++) {
        uint8_t copy[sizeof(packed)];
        struct rig r;
        int result;

        memcpy(copy, packed, len);
        rig_new(&r, 1, false);
        if (lie == 0)
            result = feed_packed(&r, copy, len, sizeof(raw));
        else if (lie == 1)
            result = feed_packed(&r, copy, len, sizeof(raw) - 1);
        else if (lie == 2)
            result = feed_packed(&r, copy, len, sizeof(raw) + 1);
        else if (lie == 3)
            result = feed_packed(&r, copy, len - 1, sizeof(raw));
        else if (lie == 4)
            result = feed_packed(&r, "not zstd at all", 15, sizeof(raw));
        else {
            copy[len / 2] ^= 0x55;
            result = feed_packed(&r, copy, len, sizeof(raw));
        }
        if (lie == 0)
            assert_int_equal(result, 0);
        else if (lie < 5)
            assert_int_equal(result, -EPROTO);
        else
            assert_true(result == 0 || result == -EPROTO); /* TLS is what finds changed bits */
        rig_free(&r);
    }
    pack_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_ends_in_between),
        cmocka_unit_test(test_lies_about_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
