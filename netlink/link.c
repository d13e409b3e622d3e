/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions of the link, the loop's turn, start and end: see link.h.
 *
 *   dialled session:   DIALLING --first WELCOME--> UP <--> (no stripe: redial) --> closed
 *   accepted session:                 HELLO ----> UP <--> (no stripe: wait)                --> closed
 */
#include "netlink/link_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"
#include "netlink/tcp_info.h"

enum { TICK_MS = 20, SEND_ROUNDS = 4 };

/* Two pings without an answer, beside four round trips. */
#define SUSPECT_NS (2 * NS_PER_S)

/* --- sessions ------------------------------------------------------------------------------ */

static void on_engine_stream(void *user, struct stream *stream)
{
    struct link_session *ls = user;

    ls->link->ops->on_stream(ls->link->user, ls, stream);
}

static void on_engine_closed(void *user, const struct error *why)
{
    struct link_session *ls = user;

    ls->closing = true;
    if (!ls->told) {
        ls->told = true;
        ls->link->ops->on_session_closed(ls->link->user, ls, why);
    }
}

static bool on_engine_packable(void *user, struct packing *packing)
{
    struct link_session *ls = user;

    /* Before the peer's greeting its window is not known. */
    return ls->link->packer && ls->was_up && packer_take(ls->link->packer, packing);
}

static const struct session_ops engine_ops = {
    .on_packable = on_engine_packable,
    .on_stream = on_engine_stream,
    .on_closed = on_engine_closed,
};

uint32_t link_first_window(const struct link_config *config)
{
    return MAX(config->window_bytes / LIMIT_SESSION_STREAMS, LIMIT_FRAME_PAYLOAD_BYTES);
}

int link_session_new(struct link *link, const struct link_peer *peer, bool initiator,
                     const uint8_t id[WIRE_ID_BYTES], uint32_t peer_window,
                     struct link_session **ret)
{
    struct session_config config = {
        .initiator = initiator,
        .window_bytes = link_first_window(&link->config),
        .window_max_bytes = MIN(link->config.window_bytes / 2, LIMIT_STREAM_WINDOW_BYTES),
        .budget_bytes = link->config.window_bytes,
        .peer_window_bytes = peer_window,
        .unsent_bytes = link->config.unsent_bytes,
    };
    struct link_session *ls;
    int r;

    if (link->session_count >= LIMIT_SESSIONS)
        return -EBUSY;
    ls = calloc(1, sizeof(*ls));
    if (!ls)
        return -ENOMEM;
    r = session_new(&ls->engine, &config, &engine_ops, ls);
    if (r < 0) {
        free(ls);
        return r;
    }
    ls->link = link;
    ls->peer = *peer;
    ls->initiator = initiator;
    ls->plan.wanted = STRIPE_PLAN_FIRST;
    ls->down_since_ns = clock_now_ns();
    memcpy(ls->id, id, WIRE_ID_BYTES);
    TAILQ_INIT(&ls->connections);
    TAILQ_INSERT_TAIL(&link->sessions, ls, entry);
    link->session_count++;
    *ret = ls;
    return 0;
}

void link_session_destroy(struct link_session *ls)
{
    struct link *link = ls->link;

    TAILQ_REMOVE(&link->sessions, ls, entry);
    link->session_count--;
    session_free(ls->engine);
    free(ls);
    if (link->ops->on_session_freed)
        link->ops->on_session_freed(link->user);
}

struct link_session *link_session_by_id(struct link *link, const uint8_t id[WIRE_ID_BYTES])
{
    struct link_session *ls;

    TAILQ_FOREACH(ls, &link->sessions, entry)
    {
        if (memcmp(ls->id, id, WIRE_ID_BYTES) == 0)
            return ls;
    }
    return NULL;
}

void link_session_fail(struct link_session *ls, enum wire_reason reason, const char *why)
{
    session_fail(ls->engine, reason, why);
    session_dispatch(ls->engine);
}

int link_session_attach(struct link_session *ls, struct connection *c)
{
    int r = connection_attach(c, ls->engine);

    if (r < 0)
        return r;
    ls->attached++;
    ls->was_up = true;
    ls->down_since_ns = 0;
    return 0;
}

void link_session_close(struct link_session *ls)
{
    ls->told = true;
    ls->closing = true;
    session_close(ls->engine, WIRE_REASON_NONE, "done");
}

/* --- the loop's turn ----------------------------------------------------------------------- */

static void drop_silent(struct connection *c, uint64_t silent_ns)
{
    struct error why = {0};

    error_set(&why, -ETIMEDOUT, "hear the peer", NULL, "silent for %u s",
              (unsigned)(silent_ns / NS_PER_S));
    connection_drop(c, &why);
}

/* Pings come every second, so silence has a meaning. A stripe that is silent while others speak is given up
 * soon: its frames move to the others. When all are silent the link may be away: they stay for the longer
 * timeout, while the initiator asks whether the peer can be reached (returns true for that). */
static bool watch_silence(struct link_session *ls, uint64_t now_ns)
{
    uint64_t suspect_ns = SUSPECT_NS + 4 * ls->rtt_ns;
    uint64_t timeout_ns = ls->link->config.stripe_timeout_ns;
    unsigned suspects = 0;
    struct connection *c, *next;

    TAILQ_FOREACH(c, &ls->connections, entry)
    suspects += c->stripe && session_stripe_silence_ns(c->stripe, now_ns) > suspect_ns;
    if (suspects == 0)
        return false;
    if (suspects < ls->attached)
        timeout_ns = MIN(timeout_ns, suspect_ns);
    for (c = TAILQ_FIRST(&ls->connections); c; c = next) {
        uint64_t silent_ns = c->stripe ? session_stripe_silence_ns(c->stripe, now_ns) : 0;

        next = TAILQ_NEXT(c, entry);
        if (silent_ns > timeout_ns)
            drop_silent(c, silent_ns);
    }
    return suspects == ls->attached;
}

static void tick_session(struct link_session *ls, uint64_t now_ns)
{
    bool silent = ls->attached > 0 && watch_silence(ls, now_ns);
    char why[128];

    session_tick(ls->engine, now_ns);
    if (ls->attached > 0)
        link_session_tune(ls, now_ns);
    /* It may have begun in this very turn, after @now_ns was taken. */
    if (ls->down_since_ns && !ls->patient && now_ns > ls->down_since_ns &&
        now_ns - ls->down_since_ns > ls->link->config.outage_limit_ns) {
        snprintf(why, sizeof(why), "no connection to %s for %u s", ls->peer.name,
                 (unsigned)(ls->link->config.outage_limit_ns / NS_PER_S));
        link_session_fail(ls, WIRE_REASON_OUTAGE, why);
        return;
    }
    if (!ls->initiator || !ls->was_up)
        return;
    if (silent && ls->attached > 0)
        link_probe_silence(ls, now_ns);
    else
        link_dial_again(ls, now_ns);
}

/* A closing session gives its goodbye a moment to leave, then lets go of its connections. */
static void reap_session(struct link_session *ls, uint64_t now_ns)
{
    struct error why = {
        .code = -ECONNRESET, .what = "talk to the peer", .why = "the session is over"};
    struct connection *c;
    bool pending = session_wants_output(ls->engine, now_ns);

    if (!ls->closing_since_ns)
        ls->closing_since_ns = now_ns;
    TAILQ_FOREACH(c, &ls->connections, entry)
    pending = pending || (c->stripe && buffer_len(&c->output) > 0);
    if (pending && now_ns - ls->closing_since_ns < NS_PER_S)
        return;
    while ((c = TAILQ_FIRST(&ls->connections)))
        connection_drop(c, &why);
    link_session_destroy(ls);
}

static void on_tick(uv_timer_t *timer)
{
    struct link *link = timer->data;
    uint64_t now_ns = clock_now_ns();
    struct link_session *ls, *next;

    link_listen_again(link, now_ns);
    for (ls = TAILQ_FIRST(&link->sessions); ls; ls = next) {
        next = TAILQ_NEXT(ls, entry);
        if (ls->closing)
            reap_session(ls, now_ns);
        else
            tick_session(ls, now_ns);
    }
}

static void on_output_time(uv_timer_t *timer)
{
    (void)timer; /* the loop wakes up; on_prepare() does the rest */
}

/* Every connection that has room sends a quantum. True: one of them could send more. */
static bool pump_all(struct link_session *ls)
{
    struct connection *c = TAILQ_FIRST(&ls->connections), *next;
    bool more = false;

    if (c) { /* each time another one is the first */
        TAILQ_REMOVE(&ls->connections, c, entry);
        TAILQ_INSERT_TAIL(&ls->connections, c, entry);
    }
    for (c = TAILQ_FIRST(&ls->connections); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (!(c->poll_events & UV_WRITABLE))
            more = connection_pump(c) || more;
    }
    return more;
}

/* Sending makes room, writers fill it, and it is sent again: until the sockets are full or the turn is over.
 * True: it is the turn that ended. */
static bool send_queued(struct link_session *ls, uint64_t now_ns)
{
    for (int round = 0; round < SEND_ROUNDS; round++) {
        if (!ls->closing)
            session_dispatch(ls->engine);
        if (!session_wants_output(ls->engine, now_ns))
            return false;
        if (!pump_all(ls) && !session_has_events(ls->engine))
            return false;
    }
    return true;
}

/* Runs before the loop sleeps: whatever this turn's callbacks queued leaves now. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct link *link = prepare->data;
    uint64_t now_ns = clock_now_ns(), output_ns = UINT64_MAX;
    struct link_session *ls;
    bool more = false;

    TAILQ_FOREACH(ls, &link->sessions, entry)
    {
        more = send_queued(ls, now_ns) || more;
        output_ns = MIN(output_ns, session_output_deadline(ls->engine));
    }
    if (more) {
        uv_timer_start(&link->output, on_output_time, 0, 0);
    } else if (output_ns != UINT64_MAX) {
        uint64_t wait_ns = output_ns > now_ns ? output_ns - now_ns : 0;

        uv_timer_start(&link->output, on_output_time, wait_ns / NS_PER_MS + 1, 0);
    }
}

/* --- start and end ------------------------------------------------------------------------- */

void link_config_default(struct link_config *ret)
{
    *ret = (struct link_config){
        .stripes = 4,
        .window_bytes = 128u << 20,
        .unsent_bytes = 1u << 20,
        .socket_buffer_bytes = 16u << 20,
        .congestion_control = "auto",
        .compress = true,
        .stripe_timeout_ns = 6 * NS_PER_S,
        .outage_limit_ns = 600 * NS_PER_S,
    };
}

int link_new(uv_loop_t *loop, const struct link_config *config, struct tls_identity *id,
             const struct link_ops *ops, void *user, struct link **ret, struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));
    int r = 0;

    if (!link)
        return error_set(err, -ENOMEM, "start the link", NULL, "out of memory");
    *link =
        (struct link){.loop = loop, .config = *config, .identity = id, .ops = ops, .user = user};
    link->connection_config.socket_buffer_bytes = config->socket_buffer_bytes;
    memcpy(link->connection_config.congestion_control, config->congestion_control,
           sizeof(config->congestion_control));
    TAILQ_INIT(&link->sessions);
    TAILQ_INIT(&link->pending);
    if (getrandom(link->instance_id, WIRE_ID_BYTES, 0) != WIRE_ID_BYTES)
        r = error_set(err, -EIO, "start the link", NULL, "no random numbers");
    if (r == 0 && config->compress) {
        link->packer = packer_new(loop, config->compression_level);
        if (!link->packer)
            r = error_set(err, -ENOMEM, "start the link", NULL, "out of memory");
    }
    if (r == 0 && config->listen[0]) /* last: its handles cannot be freed at once */
        r = link_listen(link, err);
    if (r < 0) {
        packer_free(link->packer);
        free(link);
        return r;
    }
    uv_prepare_init(loop, &link->prepare);
    uv_timer_init(loop, &link->tick);
    uv_timer_init(loop, &link->output);
    link->prepare.data = link->tick.data = link->output.data = link;
    uv_prepare_start(&link->prepare, on_prepare);
    uv_timer_start(&link->tick, on_tick, TICK_MS, TICK_MS);
    *ret = link;
    return 0;
}

void link_shutdown(struct link *link)
{
    struct error why = {
        .code = -ESHUTDOWN, .what = "serve the peer", .why = "this ferryd is stopping"};
    struct link_session *ls;
    struct connection *c;

    link->shutting_down = true;
    TAILQ_FOREACH(ls, &link->sessions, entry)
    {
        ls->told = true;
        session_close(ls->engine, WIRE_REASON_SHUTDOWN, "stopping");
        ls->closing = true;
        TAILQ_FOREACH(c, &ls->connections, entry)
        connection_pump(c);
    }
    while ((ls = TAILQ_FIRST(&link->sessions))) {
        while ((c = TAILQ_FIRST(&ls->connections)))
            connection_drop(c, &why);
        link_session_destroy(ls);
    }
    while ((c = TAILQ_FIRST(&link->pending)))
        connection_drop(c, &why);
    link_stop_listening(link);
    packer_free(TAKE_PTR(link->packer));
    uv_close((uv_handle_t *)&link->prepare, NULL);
    uv_close((uv_handle_t *)&link->tick, NULL);
    uv_close((uv_handle_t *)&link->output, NULL);
}

void link_free(struct link *link)
{
    free(link);
}

/* --- what the owner asks ------------------------------------------------------------------- */

struct session *link_session_engine(struct link_session *ls)
{
    return ls->engine;
}

const char *link_session_peer(const struct link_session *ls)
{
    return ls->peer.name;
}

void link_session_set_user(struct link_session *ls, void *user)
{
    ls->user = user;
}

void *link_session_user(const struct link_session *ls)
{
    return ls->user;
}

void link_session_set_patient(struct link_session *ls, bool patient)
{
    ls->patient = patient;
}

bool link_session_is_up(const struct link_session *ls)
{
    return ls->attached > 0;
}

void link_session_get_info(const struct link_session *ls, struct link_session_info *ret)
{
    const struct connection *c;

    *ret = (struct link_session_info){
        .outages = ls->outages,
        .was_up = ls->was_up,
        .tcp_rtt_us = ls->rtt_ns / 1000,
        .tcp_min_rtt_us = ls->rtt_min_ns / 1000,
        .retransmits = ls->retransmits,
        .segments_out = ls->segments_out,
        .sent_bytes_s = ls->sent_bytes_s,
        .received_bytes_s = ls->received_bytes_s,
        .pacing_bytes_s = ls->pacer.rate_bytes_s,
        .capacity_bytes_s = ls->pacer.capacity_bytes_s,
        .queue_ns = ls->pacer.queue_ns,
        .pacer = pacer_state_name(ls->pacer.state),
        .compression_level = ls->link->packer ? packer_level(ls->link->packer) : 0,
    };
    session_get_stats(ls->engine, &ret->stats);
    TAILQ_FOREACH(c, &ls->connections, entry)
    {
        struct stripe_tcp_info tcp;

        if (!c->stripe)
            continue;
        tcp_info_read(c->fd, &tcp);
        memcpy(ret->congestion_control, tcp.congestion_control, sizeof(tcp.congestion_control));
        snprintf(ret->cipher, sizeof(ret->cipher), "%s", tls_conn_cipher(c->tls));
        break;
    }
}
