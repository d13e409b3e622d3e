/* SPDX-License-Identifier: Apache-2.0 */
/* The opening of libvirt's connection, made ahead: what is offered, made, answered, and what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/wire.h"
#include "core/move/local_socket.h"
#include "core/move/rpc_opening.h"

enum { PRESUMED = 9, PREPARE = 303, HEADER = 28 };

static struct rpc_opening presumed(void)
{
    struct rpc_opening o;

    rpc_opening_presume(&o);
    assert_int_equal(o.count, PRESUMED);
    return o;
}

static struct rpc_frame frame_of(const struct rpc_opening_frame *f)
{
    return (struct rpc_frame){.data = f->bytes, .len = f->len};
}

/* The reply to a call: its head, and a word that tells which call it was. */
static void put_reply(struct rpc_opening_frame *reply, const struct rpc_opening_frame *call,
                      uint32_t word)
{
    memcpy(reply->bytes, call->bytes, HEADER);
    reply->len = HEADER + 4;
    put_be32(reply->bytes, (uint32_t)reply->len);
    put_be32(reply->bytes + 16, RPC_TYPE_REPLY);
    put_be32(reply->bytes + 24, RPC_STATUS_OK);
    put_be32(reply->bytes + HEADER, word);
}

static void put_replies(struct rpc_opening *o)
{
    for (unsigned i = 0; i < o->count; i++)
        put_reply(&o->calls[i].reply, &o->calls[i].call, i);
}

/* --- source -------------------------------------------------------------------------------- */

static void test_learns_what_is_called(void **state)
{
    struct rpc_opening o = presumed(), learnt = {0};
    struct rpc_opening_frame prepare = o.calls[1].call;
    struct rpc_frame frame;

    (void)state;
    for (unsigned i = 0; i < o.count; i++) {
        frame = frame_of(&o.calls[i].call);
        assert_false(rpc_opening_learn(&learnt, &frame));
    }
    put_be32(prepare.bytes + 12, PREPARE);
    frame = frame_of(&prepare);
    assert_true(rpc_opening_learn(&learnt, &frame));
    assert_false(rpc_opening_learn(&learnt, &frame)); /* once */
    frame = frame_of(&o.calls[0].call);
    assert_false(rpc_opening_learn(&learnt, &frame)); /* too late to belong to it */
    assert_int_equal(learnt.count, PRESUMED);
    for (unsigned i = 0; i < o.count; i++)
        assert_memory_equal(&learnt.calls[i].call, &o.calls[i].call, sizeof(o.calls[i].call));
}

static void test_learns_no_more_than_it_holds(void **state)
{
    struct rpc_opening o = presumed(), learnt = {0};
    struct rpc_frame frame = frame_of(&o.calls[1].call);
    struct rpc_frame large = {.data = (uint8_t[RPC_OPENING_FRAME_BYTES + 4]){0},
                              .len = RPC_OPENING_FRAME_BYTES + 4};

    (void)state;
    for (unsigned i = 0; i < RPC_OPENING_CALLS_MAX; i++)
        assert_false(rpc_opening_learn(&learnt, &frame));
    assert_true(rpc_opening_learn(&learnt, &frame));
    assert_int_equal(learnt.count, RPC_OPENING_CALLS_MAX);
    learnt = (struct rpc_opening){0};
    assert_true(rpc_opening_learn(&learnt, &large));
    assert_int_equal(learnt.count, 0);
}

static void test_answers_in_any_order_once(void **state)
{
    struct rpc_opening o = presumed(), other = presumed();
    json_t *replies;

    (void)state;
    put_replies(&other);
    replies = rpc_opening_replies_to_json(&other);
    rpc_opening_take_replies(&o, replies);
    json_decref(replies);
    for (unsigned n = 0; n < PRESUMED; n++) {
        unsigned i = (n * 4 + 3) % PRESUMED;
        struct rpc_opening_frame call = o.calls[i].call;
        struct rpc_frame frame = frame_of(&call);
        const struct rpc_opening_frame *reply;

        put_be32(call.bytes + 20, 1000 + n);
        reply = rpc_opening_answer(&o, &frame);
        assert_non_null(reply);
        assert_int_equal(get_be32(reply->bytes + 20), 1000 + n);
        assert_int_equal(get_be32(reply->bytes + HEADER), i);
        assert_null(rpc_opening_answer(&o, &frame));
    }
}

static void test_what_was_not_foreseen_is_not_answered(void **state)
{
    struct rpc_opening o = presumed();
    struct rpc_opening_frame call = o.calls[1].call;
    struct rpc_frame frame = frame_of(&call);

    (void)state;
    assert_null(rpc_opening_answer(&o, &frame)); /* nobody has replied */
    put_replies(&o);
    put_be32(call.bytes + HEADER, 99); /* another feature */
    assert_null(rpc_opening_answer(&o, &frame));
    call = o.calls[1].call;
    frame.len = HEADER;
    assert_null(rpc_opening_answer(&o, &frame));
}

/* Of a peer that errs, or means ill: as if it had said nothing. */
static void expect_replies_refused(json_t *replies)
{
    struct rpc_opening o = presumed();

    rpc_opening_take_replies(&o, replies);
    for (unsigned i = 0; i < o.count; i++)
        assert_int_equal(o.calls[i].reply.len, 0);
    json_decref(replies);
}

static json_t *replies_with(unsigned at, uint32_t word)
{
    struct rpc_opening o = presumed();

    put_replies(&o);
    put_be32(o.calls[PRESUMED - 1].reply.bytes + at, word);
    return rpc_opening_replies_to_json(&o);
}

static void test_replies_that_are_none(void **state)
{
    json_t *few = replies_with(24, RPC_STATUS_OK), *text = json_array();

    (void)state;
    json_array_remove(few, 3);
    for (unsigned i = 0; i < PRESUMED; i++)
        json_array_append_new(text, json_string("AAAAHCAAgIY=!"));
    expect_replies_refused(NULL);
    expect_replies_refused(json_string("x"));
    expect_replies_refused(few);
    expect_replies_refused(text);
    expect_replies_refused(replies_with(24, 1));             /* an error */
    expect_replies_refused(replies_with(16, RPC_TYPE_CALL)); /* no reply */
    expect_replies_refused(replies_with(12, PREPARE));       /* to something else */
    expect_replies_refused(replies_with(4, 0x20008087));     /* another program */
    expect_replies_refused(replies_with(0, HEADER));         /* cut short */
    expect_replies_refused(replies_with(0, 4096));
}

/* --- target -------------------------------------------------------------------------------- */

static void test_calls_over_the_link(void **state)
{
    struct rpc_opening o = presumed(), got;
    json_t *calls = rpc_opening_calls_to_json(&o);

    (void)state;
    assert_null(rpc_opening_replies_to_json(&o));
    assert_true(rpc_opening_from_json(&got, calls));
    assert_int_equal(got.count, PRESUMED);
    assert_memory_equal(got.calls, o.calls, sizeof(o.calls));
    json_decref(calls);
}

static void expect_calls_refused(json_t *calls)
{
    struct rpc_opening got;

    assert_false(rpc_opening_from_json(&got, calls));
    assert_int_equal(got.count, 0);
    json_decref(calls);
}

static json_t *calls_with(unsigned at, uint32_t word)
{
    struct rpc_opening o = presumed();

    put_be32(o.calls[PRESUMED - 1].call.bytes + at, word);
    return rpc_opening_calls_to_json(&o);
}

/* Only what asks is called on a peer's word before anything was checked. */
static void test_calls_that_are_refused(void **state)
{
    struct rpc_opening o = presumed();
    json_t *many = rpc_opening_calls_to_json(&o);

    (void)state;
    for (unsigned i = 0; i < PRESUMED; i++)
        json_array_append(many, json_array_get(many, 1));
    expect_calls_refused(many);
    expect_calls_refused(NULL);
    expect_calls_refused(json_array());
    expect_calls_refused(json_pack("[i]", 1));
    expect_calls_refused(json_pack("[s]", ""));
    expect_calls_refused(calls_with(12, PREPARE));
    expect_calls_refused(calls_with(16, RPC_TYPE_REPLY));
    expect_calls_refused(calls_with(4, 0x20008087));
    expect_calls_refused(calls_with(0, HEADER));
    expect_calls_refused(calls_with(0, 1 << 20));
}

enum manner { HONEST, SAYS_NOTHING, HANGS_UP, SAYS_ERROR, SAYS_TOO_MUCH };

struct libvirtd {
    int listener;
    enum manner manner;
    unsigned served;
    bool hurried; /* a call came before the one before it was replied to */
    char path[64];
    pthread_t thread;
};

static void *serve(void *libvirtd)
{
    struct libvirtd *d = libvirtd;
    int fd = accept(d->listener, NULL, NULL);
    struct rpc_opening_frame call, reply;
    uint8_t more;

    while (recv(fd, call.bytes, 4, MSG_WAITALL) == 4) {
        call.len = get_be32(call.bytes);
        if (recv(fd, call.bytes + 4, call.len - 4, MSG_WAITALL) != (ssize_t)call.len - 4)
            break;
        if (d->manner == SAYS_NOTHING)
            continue;
        if (d->served == 4 && d->manner == HANGS_UP)
            break;
        usleep(1000);
        d->hurried |= recv(fd, &more, 1, MSG_DONTWAIT) > 0;
        put_reply(&reply, &call, d->served);
        if (d->served == 4 && d->manner == SAYS_ERROR)
            put_be32(reply.bytes + 24, 1);
        if (d->served == 4 && d->manner == SAYS_TOO_MUCH)
            put_be32(reply.bytes, 1 << 20);
        if (send(fd, reply.bytes, reply.len, MSG_NOSIGNAL) < 0)
            break;
        d->served++;
    }
    close(fd);
    return NULL;
}

static int make_with(struct libvirtd *d, enum manner manner, struct rpc_opening *o)
{
    struct error err = {0};

    *d = (struct libvirtd){.manner = manner};
    snprintf(d->path, sizeof(d->path), "/tmp/rpc-opening-%d", getpid());
    unlink(d->path);
    d->listener = local_listen_fd(d->path, getuid(), getgid(), 0600, &err);
    assert_true(d->listener >= 0);
    assert_int_equal(fcntl(d->listener, F_SETFL, 0), 0);
    assert_int_equal(pthread_create(&d->thread, NULL, serve, d), 0);
    return rpc_opening_make(o, d->path);
}

static void end(struct libvirtd *d, int fd)
{
    if (fd >= 0)
        close(fd);
    pthread_join(d->thread, NULL);
    close(d->listener);
    unlink(d->path);
}

static void test_makes_the_calls_one_by_one(void **state)
{
    struct rpc_opening o = presumed(), source = presumed();
    struct libvirtd d;
    int fd = make_with(&d, HONEST, &o);
    json_t *replies = rpc_opening_replies_to_json(&o);

    (void)state;
    assert_true(fd >= 0);
    rpc_opening_take_replies(&source, replies);
    json_decref(replies);
    for (unsigned i = 0; i < PRESUMED; i++)
        assert_int_equal(get_be32(source.calls[i].reply.bytes + HEADER), i);
    end(&d, fd);
    assert_int_equal(d.served, PRESUMED);
    assert_false(d.hurried);
}

static void test_a_libvirtd_that_does_not_play(void **state)
{
    static const struct {
        enum manner manner;
        int code;
    } cases[] = {{SAYS_NOTHING, -EAGAIN},
                 {HANGS_UP, -EPIPE},
                 {SAYS_ERROR, -EPROTO},
                 {SAYS_TOO_MUCH, -EPROTO}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rpc_opening o = presumed();
        struct libvirtd d;

        assert_int_equal(make_with(&d, cases[i].manner, &o), cases[i].code);
        assert_null(rpc_opening_replies_to_json(&o));
        end(&d, -1);
    }
}

static void test_keeps_a_connection_alive(void **state)
{
    struct rpc_opening o = presumed();
    uint8_t ping[RPC_KEEPALIVE_FRAME_BYTES], wanted[RPC_KEEPALIVE_FRAME_BYTES], got[256];
    int ends[2];

    (void)state;
    rpc_put_keepalive_pong(wanted);
    memcpy(ping, wanted, sizeof(ping));
    put_be32(ping + 12, 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(send(ends[0], ping, sizeof(ping), 0), sizeof(ping));
    assert_int_equal(send(ends[0], o.calls[0].call.bytes, HEADER, 0), HEADER);
    rpc_opening_keep_alive(ends[1]);
    assert_int_equal(recv(ends[0], got, sizeof(got), MSG_DONTWAIT), 2 * sizeof(wanted));
    assert_memory_equal(got, wanted, sizeof(wanted));
    assert_memory_equal(got + sizeof(wanted), wanted, sizeof(wanted));
    rpc_opening_keep_alive(ends[1]);
    assert_int_equal(recv(ends[0], got, sizeof(got), MSG_DONTWAIT), -1);
    assert_int_equal(recv(ends[1], got, sizeof(got), MSG_DONTWAIT), HEADER); /* not ours to take */
    close(ends[0]);
    rpc_opening_keep_alive(ends[1]);
    close(ends[1]);
}

static void test_no_libvirtd(void **state)
{
    struct rpc_opening o = presumed();

    (void)state;
    assert_int_equal(rpc_opening_make(&o, "/nowhere/virt.sock"), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_what_is_called),
        cmocka_unit_test(test_learns_no_more_than_it_holds),
        cmocka_unit_test(test_answers_in_any_order_once),
        cmocka_unit_test(test_what_was_not_foreseen_is_not_answered),
        cmocka_unit_test(test_replies_that_are_none),
        cmocka_unit_test(test_calls_over_the_link),
        cmocka_unit_test(test_calls_that_are_refused),
        cmocka_unit_test(test_makes_the_calls_one_by_one),
        cmocka_unit_test(test_a_libvirtd_that_does_not_play),
        cmocka_unit_test(test_keeps_a_connection_alive),
        cmocka_unit_test(test_no_libvirtd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
