/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two links on one loop, over loopback, with real TLS: who may talk to whom, what each side is told
 * when not, and that streams survive the loss of every connection, byte for byte.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "netlink/link.h"

/* One direction of one stream: bytes are a function of their place. */
struct talk {
    struct stream *stream;
    uint64_t size, written, read;
    bool said_end, heard_end, reset;
};

struct site {
    struct link *link;
    struct tls_identity *identity;
    char key[64], certificate[64];
    struct link_peer peer; /* the only one it knows; empty name: nobody */
    struct link_session *accepted;
    struct talk talk;
    bool closed;
    struct error why;
};

struct pair {
    uv_loop_t loop;
    char folder[32];
    struct site a, b; /* a dials b */
    uint16_t port;
};

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)((at * 0x9e3779b97f4a7c15u) >> 56);
}

/* --- the owner of a link ------------------------------------------------------------------- */

static bool on_find_peer(void *user, const struct tls_conn *seen, struct link_peer *ret)
{
    struct site *site = user;

    if (!site->peer.name[0] || !link_peer_is(&site->peer, seen))
        return false;
    *ret = site->peer;
    return true;
}

static void on_session(void *user, struct link_session *ls)
{
    struct site *site = user;

    site->accepted = ls;
}

static void say(struct talk *t)
{
    static uint8_t chunk[64 * 1024];

    while (t->stream && t->written < t->size && stream_room(t->stream) > 0) {
        size_t n = MIN(MIN(stream_room(t->stream), sizeof(chunk)), (size_t)(t->size - t->written));

        for (size_t i = 0; i < n; i++)
            chunk[i] = byte_at(t->written + i);
        assert_int_equal(stream_write(t->stream, chunk, n), 0);
        t->written += n;
    }
    if (t->stream && t->written == t->size && !t->said_end) {
        stream_end(t->stream);
        t->said_end = true;
    }
}

static void on_readable(void *user, struct stream *stream)
{
    struct talk *t = user;
    const uint8_t *data = NULL;
    size_t n;

    while ((n = stream_peek(stream, &data)) > 0) {
        for (size_t i = 0; i < n; i++)
            assert_int_equal(data[i], byte_at(t->read + i));
        stream_consume(stream, n);
        t->read += n;
    }
    t->heard_end = stream_at_end(stream);
}

static void on_writable(void *user, struct stream *stream)
{
    (void)stream;
    say(user);
}

static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct talk *t = user;

    (void)reason;
    assert_false(t->reset);
    t->reset = true;
    t->stream = NULL;
    stream_release(stream);
}

static const struct stream_ops stream_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_reset = on_reset};

static void on_stream(void *user, struct link_session *ls, struct stream *stream)
{
    struct site *site = user;

    (void)ls;
    assert_null(site->talk.stream);
    site->talk.stream = stream;
    stream_set_ops(stream, &stream_ops, &site->talk);
    say(&site->talk);
}

static void on_session_closed(void *user, struct link_session *ls, const struct error *why)
{
    struct site *site = user;

    (void)ls;
    assert_false(site->closed);
    site->closed = true;
    site->why = *why;
}

static const struct link_ops link_ops = {.find_peer = on_find_peer,
                                         .on_session = on_session,
                                         .on_stream = on_stream,
                                         .on_session_closed = on_session_closed};

/* --- the pair ------------------------------------------------------------------------------ */

static struct link_config config_of(const char *name)
{
    struct link_config c = {.stripes = 4,
                            .window_bytes = 512 * 1024,
                            .unsent_bytes = 256 * 1024,
                            .stripe_timeout_ns = 5 * NS_PER_S,
                            .outage_limit_ns = 30 * NS_PER_S};

    snprintf(c.site_name, sizeof(c.site_name), "%s", name);
    return c;
}

static void make_identity(struct pair *p, struct site *site, const char *name)
{
    struct error err = {0};

    snprintf(site->key, sizeof(site->key), "%s/%s.key", p->folder, name);
    snprintf(site->certificate, sizeof(site->certificate), "%s/%s.pem", p->folder, name);
    assert_int_equal(tls_identity_load(site->key, site->certificate, name, &site->identity, &err),
                     0);
}

static void know(struct site *site, const struct site *other, const char *name)
{
    snprintf(site->peer.name, sizeof(site->peer.name), "%s", name);
    snprintf(site->peer.fingerprint, sizeof(site->peer.fingerprint), "%s",
             tls_identity_fingerprint(other->identity));
}

/* A free port: taken and given back, so that the link can have it a moment later. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void pair_new(struct pair *p, const struct link_config *config_a,
                     const struct link_config *config_b)
{
    struct link_config a = *config_a, b = *config_b;
    struct error err = {0};

    *p = (struct pair){.folder = "/tmp/ferry-link-XXXXXX"};
    assert_non_null(mkdtemp(p->folder));
    assert_int_equal(uv_loop_init(&p->loop), 0);
    make_identity(p, &p->a, "a");
    make_identity(p, &p->b, "b");
    know(&p->a, &p->b, "b");
    know(&p->b, &p->a, "a");
    p->port = free_port();
    snprintf(b.listen, sizeof(b.listen), "127.0.0.1:%u", p->port);
    snprintf(p->a.peer.address, sizeof(p->a.peer.address), "127.0.0.1:%u", p->port);
    assert_int_equal(link_new(&p->loop, &a, p->a.identity, &link_ops, &p->a, &p->a.link, &err), 0);
    assert_int_equal(link_new(&p->loop, &b, p->b.identity, &link_ops, &p->b, &p->b.link, &err), 0);
}

static void shut_down(struct site *site)
{
    if (site->talk.stream)
        stream_release(TAKE_PTR(site->talk.stream));
    if (site->link)
        link_shutdown(site->link);
}

static void site_free(struct site *site)
{
    link_free(site->link);
    tls_identity_free(site->identity);
    unlink(site->key);
    unlink(site->certificate);
}

static void pair_free(struct pair *p)
{
    shut_down(&p->a);
    shut_down(&p->b);
    uv_run(&p->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&p->loop), 0);
    site_free(&p->a);
    site_free(&p->b);
    rmdir(p->folder);
}

static struct link_session *dial(struct pair *p)
{
    struct link_session *ls = NULL;
    struct error err = {0};

    assert_int_equal(link_dial(p->a.link, &p->a.peer, &ls, &err), 0);
    return ls;
}

static void open_talk(struct site *site, struct link_session *ls)
{
    struct stream *stream;

    assert_int_equal(stream_open(link_session_engine(ls), CARE_RAM, &stream), 0);
    site->talk.stream = stream;
    stream_set_ops(stream, &stream_ops, &site->talk);
    say(&site->talk);
}

static void on_patience(uv_timer_t *timer)
{
    (void)timer;
    fail_msg("what the test waits for does not happen");
}

/* Runs the loop until @flag; the patience is only there so that a broken link fails and does not hang. */
static void run_until(struct pair *p, const volatile bool *flag)
{
    uv_timer_t patience;

    uv_timer_init(&p->loop, &patience);
    uv_timer_start(&patience, on_patience, 60 * 1000, 0);
    while (!*flag)
        uv_run(&p->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&patience, NULL);
    uv_run(&p->loop, UV_RUN_NOWAIT);
}

/* Shuts every connected TCP socket of this process: all connections of both links. */
static unsigned kill_connections(void)
{
    unsigned killed = 0;

    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_in peer;
        socklen_t len = sizeof(peer);

        if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.sin_family == AF_INET) {
            shutdown(fd, SHUT_RDWR);
            killed++;
        }
    }
    return killed;
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_streams_both_ways(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct link_session_info info;
    struct link_session *ls;
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    p.a.talk.size = 5000000;
    p.b.talk.size = 3000000;
    ls = dial(&p);
    open_talk(&p.a, ls); /* before it is up */
    run_until(&p, &p.a.talk.heard_end);
    run_until(&p, &p.b.talk.heard_end);
    assert_int_equal(p.a.talk.read, 3000000);
    assert_int_equal(p.b.talk.read, 5000000);
    assert_string_equal(link_session_peer(p.b.accepted), "a");
    assert_true(link_session_is_up(ls));
    link_session_get_info(ls, &info);
    assert_true(info.stats.stripes >= 1);
    assert_int_equal(info.stats.goodput_received_bytes, 3000000);
    assert_int_equal(strncmp(info.cipher, "TLS_", 4), 0); /* the names of TLS 1.3's suites */
    pair_free(&p);
}

static void exchange_with_windows(uint32_t window_a, uint32_t window_b)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct pair p;

    ca.window_bytes = window_a;
    cb.window_bytes = window_b;
    pair_new(&p, &ca, &cb);
    p.a.talk.size = p.b.talk.size = 2000000;
    open_talk(&p.a, dial(&p));
    run_until(&p, &p.a.talk.heard_end);
    run_until(&p, &p.b.talk.heard_end);
    assert_int_equal(p.a.talk.read, 2000000);
    assert_int_equal(p.b.talk.read, 2000000);
    assert_false(p.a.closed || p.b.closed);
    pair_free(&p);
}

/* Each site sets its own window; the other must keep to it from the first byte. */
static void test_windows_differ(void **state)
{
    (void)state;
    exchange_with_windows(1024 * 1024, 256 * 1024);
    exchange_with_windows(256 * 1024, 1024 * 1024);
}

static void test_reconnects_byte_exact(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct link_session_info info;
    struct link_session *ls;
    unsigned kills = 0;
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    p.a.talk.size = p.b.talk.size = 30000000;
    ls = dial(&p);
    open_talk(&p.a, ls);
    while (!p.a.talk.heard_end || !p.b.talk.heard_end) {
        if (kills < 3 && p.b.talk.read > (kills + 1) * 7000000u && link_session_is_up(ls)) {
            assert_true(kill_connections() > 0);
            kills++;
        }
        uv_run(&p.loop, UV_RUN_ONCE);
    }
    assert_int_equal(kills, 3);
    assert_int_equal(p.a.talk.read, 30000000);
    assert_int_equal(p.b.talk.read, 30000000);
    assert_false(p.a.talk.reset || p.b.talk.reset || p.a.closed || p.b.closed);
    link_session_get_info(ls, &info);
    assert_true(info.outages >= 1);
    pair_free(&p);
}

static void test_unknown_peer_is_dropped(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    memset(&p.b.peer, 0, sizeof(p.b.peer));
    dial(&p);
    run_until(&p, &p.a.closed);
    assert_null(p.b.accepted);
    assert_true(p.a.why.why[0] != '\0');
    pair_free(&p);
}

static void test_wrong_fingerprint_is_told(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    know(&p.a, &p.a, "b"); /* a expects some other key */
    dial(&p);
    run_until(&p, &p.a.closed);
    assert_int_equal(p.a.why.code, -EACCES);
    assert_non_null(strstr(p.a.why.why, tls_identity_fingerprint(p.b.identity)));
    assert_non_null(strstr(p.a.why.why, tls_identity_fingerprint(p.a.identity)));
    assert_non_null(strstr(p.a.why.mend, "ferry identity"));
    assert_null(p.b.accepted);
    pair_free(&p);
}

static void test_nobody_listens(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct link_session *ls = NULL;
    struct error err = {0};
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    snprintf(p.a.peer.address, sizeof(p.a.peer.address), "127.0.0.1:%u", free_port());
    dial(&p);
    run_until(&p, &p.a.closed);
    assert_non_null(strstr(p.a.why.why, "refused"));
    snprintf(p.a.peer.address, sizeof(p.a.peer.address), "127.0.0.1");
    assert_int_equal(link_dial(p.a.link, &p.a.peer, &ls, &err), -EINVAL);
    assert_non_null(strstr(err.mend, "host:port"));
    pair_free(&p);
}

static void test_goodbyes(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct link_session *ls;
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    p.a.talk.size = p.b.talk.size = 1000;
    ls = dial(&p);
    open_talk(&p.a, ls);
    run_until(&p, &p.a.talk.heard_end);
    stream_release(TAKE_PTR(p.a.talk.stream));
    link_session_close(ls);
    run_until(&p, &p.b.closed);
    assert_false(p.a.closed); /* it asked for it */
    assert_non_null(strstr(p.b.why.why, "done"));

    /* The same from the accepting side, which stops. */
    p.b.talk = (struct talk){.size = 1000};
    p.a.talk = (struct talk){.size = 1000};
    p.b.closed = false;
    open_talk(&p.a, dial(&p));
    run_until(&p, &p.a.talk.heard_end);
    link_shutdown(p.b.link);
    p.b.talk.stream = NULL; /* freed with its session */
    run_until(&p, &p.a.closed);
    assert_non_null(strstr(p.a.why.why, "stopping"));
    run_until(&p, &p.a.talk.reset);
    link_shutdown(p.a.link);
    uv_run(&p.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&p.loop), 0);
    site_free(&p.a);
    site_free(&p.b);
    rmdir(p.folder);
}

static void test_outage_has_a_limit(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    struct link_session *ls;
    struct pair p;

    (void)state;
    ca.outage_limit_ns = NS_PER_S / 2;
    pair_new(&p, &ca, &cb);
    p.a.talk.size = p.b.talk.size = 1000;
    ls = dial(&p);
    open_talk(&p.a, ls);
    run_until(&p, &p.a.talk.heard_end);
    memset(&p.b.peer, 0, sizeof(p.b.peer)); /* b turns it away from now on */
    assert_true(kill_connections() > 0);
    run_until(&p, &p.a.closed);
    assert_non_null(strstr(p.a.why.why, "no connection to b"));
    assert_true(p.a.talk.reset);
    pair_free(&p);
}

/* Connections that never greet are bounded, and do not keep a known peer out for longer than their deadline. */
static void test_listener_full(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b");
    int strangers[LIMIT_PENDING_HANDSHAKES];
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons(p.port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

        strangers[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_true(strangers[i] >= 0);
        assert_int_equal(connect(strangers[i], (struct sockaddr *)&address, sizeof(address)), 0);
        uv_run(&p.loop, UV_RUN_NOWAIT);
    }
    dial(&p);
    run_until(&p, &p.a.closed);
    assert_null(p.b.accepted);
    for (size_t i = 0; i < ARRAY_SIZE(strangers); i++)
        close(strangers[i]);
    p.a.closed = false;
    for (int i = 0; i < 100; i++)
        uv_run(&p.loop, UV_RUN_NOWAIT);
    p.a.talk.size = p.b.talk.size = 10;
    open_talk(&p.a, dial(&p));
    run_until(&p, &p.a.talk.heard_end);
    pair_free(&p);
}

static void test_listen_addresses(void **state)
{
    struct link_config ca = config_of("a"), cb = config_of("b"), busy = config_of("c");
    struct link *link = NULL;
    struct error err = {0};
    struct pair p;

    (void)state;
    pair_new(&p, &ca, &cb);
    snprintf(busy.listen, sizeof(busy.listen), "127.0.0.1:%u", p.port);
    assert_true(link_new(&p.loop, &busy, p.a.identity, &link_ops, &p.a, &link, &err) ==
                -EADDRINUSE);
    assert_non_null(strstr(err.why, "in use"));
    snprintf(busy.listen, sizeof(busy.listen), "nonsense");
    assert_int_equal(link_new(&p.loop, &busy, p.a.identity, &link_ops, &p.a, &link, &err), -EINVAL);
    snprintf(busy.listen, sizeof(busy.listen), "127.0.0.1:123456");
    assert_int_equal(link_new(&p.loop, &busy, p.a.identity, &link_ops, &p.a, &link, &err), -EINVAL);
    assert_null(link);
    pair_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_both_ways),
        cmocka_unit_test(test_windows_differ),
        cmocka_unit_test(test_reconnects_byte_exact),
        cmocka_unit_test(test_unknown_peer_is_dropped),
        cmocka_unit_test(test_wrong_fingerprint_is_told),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_goodbyes),
        cmocka_unit_test(test_outage_has_a_limit),
        cmocka_unit_test(test_listener_full),
        cmocka_unit_test(test_listen_addresses),
    };

    signal(SIGPIPE, SIG_IGN); /* as ferryd does */
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
