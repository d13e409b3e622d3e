/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes a session with what a peer could send on two stripes, while its owner reads, writes, ends, resets
 * and releases streams from within the callbacks. Memory must stay within the windows whatever comes.
 *
 * The first byte chooses the owner's habits; then records: one byte (what happens next, how many bytes of
 * it), then those bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "netlink/session.h"

enum { WINDOW_BYTES = 1000 };

struct owner {
    struct session *session;
    uint8_t habits;
    unsigned events;
    unsigned closed;
    struct stream *last; /* still owned, or NULL */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void forget(struct owner *o, struct stream *stream)
{
    if (o->last == stream)
        o->last = NULL;
}

static void on_readable(void *user, struct stream *stream)
{
    struct owner *o = user;
    const uint8_t *data = NULL;
    size_t n = o->events % 2 ? stream_peek_joined(stream, 100, &data) : stream_peek(stream, &data);
    uint8_t sum = 0;

    for (size_t i = 0; i < n; i++) /* every byte must be there */
        sum = (uint8_t)(sum + data[i]);
    o->events++;
    if (o->habits & 1)
        stream_consume(stream, n);
    if (o->habits & 2 && stream_room(stream) > 0)
        stream_write(stream, &sum, 1);
    if (o->habits & 4 && o->events % 3 == 0) {
        forget(o, stream);
        stream_reset(stream, WIRE_REASON_NONE);
    } else if (o->habits & 8 && stream_at_end(stream)) {
        forget(o, stream);
        stream_end(stream);
        stream_release(stream);
    }
}

static void on_writable(void *user, struct stream *stream)
{
    struct owner *o = user;

    o->events++;
    if (o->habits & 16 && o->events % 5 == 0) {
        forget(o, stream);
        stream_release(stream);
    }
}

static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct owner *o = user;

    (void)reason;
    if (o->habits & 32) {
        forget(o, stream);
        stream_release(stream);
    }
}

static const struct stream_ops stream_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_reset = on_reset};

static void on_stream(void *user, struct stream *stream)
{
    struct owner *o = user;

    o->last = stream;
    if (!(o->habits & 64) || stream_id(stream) % 3)
        stream_set_ops(stream, &stream_ops, o);
}

static void on_closed(void *user, const struct error *why)
{
    struct owner *o = user;

    if (!why->why[0] || o->closed++)
        abort();
}

static const struct session_ops session_ops = {.on_stream = on_stream, .on_closed = on_closed};

static void check_bounds(struct session *s)
{
    struct session_stats stats;

    session_get_stats(s, &stats);
    if (stats.streams > LIMIT_SESSION_STREAMS ||
        stats.buffered_bytes > (uint64_t)stats.streams * 3 * WINDOW_BYTES)
        abort();
}

static void open_streams(struct session *s, struct owner *o)
{
    static const char text[WINDOW_BYTES / 2];
    struct stream *stream;

    for (int i = 0; i < 3; i++) {
        if (stream_open(s, (enum care)i, &stream) < 0)
            return;
        stream_set_ops(stream, &stream_ops, o);
        stream_write(stream, text, sizeof(text));
        if (i == 1)
            stream_end(stream);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t out[2 * WIRE_FRAME_MAX_BYTES];
    struct session_config config = {.window_bytes = WINDOW_BYTES,
                                    .peer_window_bytes = WINDOW_BYTES,
                                    .unsent_bytes = WINDOW_BYTES};
    struct owner o = {0};
    struct stripe *stripes[2];
    uint64_t now_ns = NS_PER_S;

    if (len < 1)
        return 0;
    o.habits = data[0];
    config.initiator = o.habits & 128;
    if (session_new(&o.session, &config, &session_ops, &o) < 0)
        return 0;
    for (int i = 0; i < 2; i++) {
        if (session_stripe_add(o.session, now_ns, &stripes[i]) < 0)
            abort();
    }
    open_streams(o.session, &o);
    for (data++, len--; len > 0;) {
        uint8_t what = *data >> 6;
        size_t n = *data & 63;

        data++;
        len--;
        n = n < len ? n : len;
        now_ns += NS_PER_S / 3;
        if (what < 2) {
            session_stripe_feed(o.session, stripes[what], data, n, now_ns);
        } else if (what == 2) {
            session_stripe_pull(o.session, stripes[n % 2], out, sizeof(out), now_ns);
            session_tick(o.session, now_ns);
            n = 0;
        } else {
            session_stripe_lost(o.session, stripes[n % 2]);
            if (session_stripe_add(o.session, now_ns, &stripes[n % 2]) < 0)
                abort();
            if (o.last && n & 2)
                stream_reset(TAKE_PTR(o.last), WIRE_REASON_NONE);
            n = 0;
        }
        session_dispatch(o.session);
        check_bounds(o.session);
        data += n;
        len -= n;
    }
    session_free(o.session);
    return 0;
}
