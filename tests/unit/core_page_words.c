/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References' words between a keeper and an asker, over two sessions in memory: a page that is asked for comes, what
 * was passed makes room, misses end it, a call for what was never referred to is an error, and a cancel frees who waits.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/wire.h"
#include "core/move/page_asker.h"
#include "core/move/page_keeper.h"
#include "core/move/page_wire.h"

enum { WINDOW_BYTES = 1 << 20 };

struct pair {
    uv_loop_t loop;
    struct session *source, *target;
    struct stripe *at_source, *at_target;
    struct stream *accepted;
    struct page_keeper *keeper;
    struct page_asker *asker;
    uint64_t now_ns;
    int fault;
    unsigned told_of_room;
};

static void on_stream(void *user, struct stream *stream)
{
    ((struct pair *)user)->accepted = stream;
}

static void on_closed(void *user, const struct error *why)
{
    (void)user;
    fail_msg("%s", why->why);
}

static const struct session_ops ops = {.on_stream = on_stream, .on_closed = on_closed};

static void on_failed(void *user, const struct error *why)
{
    ((struct pair *)user)->fault = why->code;
}

static void on_room(void *user)
{
    ((struct pair *)user)->told_of_room++;
}

static const struct page_keeper_ops keeper_ops = {.on_room = on_room, .on_failed = on_failed};

static struct session *new_session(struct pair *p, bool initiator, struct stripe **stripe)
{
    struct session_config config = {.initiator = initiator,
                                    .window_bytes = WINDOW_BYTES,
                                    .peer_window_bytes = WINDOW_BYTES,
                                    .unsent_bytes = WINDOW_BYTES};
    struct session *s;

    assert_int_equal(session_new(&s, &config, &ops, p), 0);
    assert_int_equal(session_stripe_add(s, p->now_ns, stripe), 0);
    return s;
}

static void carry(struct pair *p, struct session *from, struct stripe *out, struct session *to,
                  struct stripe *in)
{
    static uint8_t bytes[WIRE_FRAME_MAX_BYTES];
    size_t n;

    while ((n = session_stripe_pull(from, out, bytes, sizeof(bytes), p->now_ns)) > 0)
        assert_int_equal(session_stripe_feed(to, in, bytes, n, p->now_ns), 0);
}

static void turn(struct pair *p)
{
    p->now_ns += NS_PER_MS;
    uv_run(&p->loop, UV_RUN_NOWAIT);
    session_dispatch(p->source);
    session_dispatch(p->target);
    carry(p, p->source, p->at_source, p->target, p->at_target);
    carry(p, p->target, p->at_target, p->source, p->at_source);
    session_dispatch(p->source);
    session_dispatch(p->target);
}

static int begin(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));
    struct stream *stream;
    const uint8_t *label;

    assert_non_null(p);
    p->now_ns = NS_PER_S;
    assert_int_equal(uv_loop_init(&p->loop), 0);
    p->source = new_session(p, true, &p->at_source);
    p->target = new_session(p, false, &p->at_target);
    assert_int_equal(stream_open(p->source, CARE_CONTROL, &stream), 0);
    assert_int_equal(stream_write(stream, "L", 1), 0);
    assert_int_equal(page_keeper_new(stream, &keeper_ops, p, &p->keeper), 0);
    while (!p->accepted)
        turn(p);
    assert_int_equal(stream_peek(p->accepted, &label), 1);
    stream_consume(p->accepted, 1);
    assert_int_equal(page_asker_new(&p->loop, &p->asker), 0);
    *state = p;
    return 0;
}

static int end(void **state)
{
    struct pair *p = *state;

    page_keeper_free(p->keeper);
    page_asker_free(p->asker);
    uv_run(&p->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&p->loop), 0);
    session_free(p->source);
    session_free(p->target);
    free(p);
    return 0;
}

static void put(struct pair *p, unsigned count)
{
    uint8_t page[PAGE_BYTES];
    static unsigned value;

    for (unsigned i = 0; i < count; i++) {
        memset(page, (int)(value++ % 251), sizeof(page));
        page_keeper_put(p->keeper, page, 1);
    }
}

/* The decoder's thread. */
struct question {
    pthread_t thread;
    struct page_asker *asker;
    uint64_t number;
    int result;
    uint8_t page[PAGE_BYTES];
    atomic_bool done;
};

static void *ask(void *arg)
{
    struct question *q = arg;

    q->result = page_asker_ask(q->asker, q->number, q->page);
    atomic_store(&q->done, true);
    return NULL;
}

static void start(struct pair *p, struct question *q, uint64_t number)
{
    memset(q, 0, sizeof(*q));
    q->asker = p->asker;
    q->number = number;
    assert_int_equal(pthread_create(&q->thread, NULL, ask, q), 0);
}

static void finish(struct pair *p, struct question *q)
{
    while (!atomic_load(&q->done) && p->fault == 0)
        turn(p);
    if (p->fault)
        page_asker_cancel(p->asker);
    assert_int_equal(pthread_join(q->thread, NULL), 0);
}

static void a_page_that_is_asked_for_comes(void **state)
{
    struct pair *p = *state;
    struct question q;

    put(p, 5); /* contents 0 .. 4 */
    start(p, &q, 3);
    for (unsigned i = 0; i < 10; i++)
        turn(p); /* the stream comes later */
    assert_int_equal(page_asker_set_stream(p->asker, p->accepted), 0);
    finish(p, &q);
    assert_int_equal(q.result, 0);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
        assert_int_equal(q.page[i], 3);
    assert_int_equal(page_keeper_misses(p->keeper), 1);
    start(p, &q, 4);
    finish(p, &q);
    assert_int_equal(q.result, 0);
    assert_int_equal(q.page[0], 4);
}

static void what_is_passed_makes_room(void **state)
{
    struct pair *p = *state;
    unsigned made = 0, room, told;

    assert_int_equal(page_asker_set_stream(p->asker, p->accepted), 0);
    assert_false(page_keeper_is_full(p->keeper)); /* nothing is under way that could make room */

    /* few at first, then more and more, and never more than are kept */
    for (unsigned round = 0; round < 20; round++) {
        room = page_keeper_room(p->keeper);
        assert_in_range(room, 1, PAGES_KEPT_MAX);
        assert_true(round > 0 || room < PAGES_KEPT_MAX / 10);
        put(p, room);
        made += room;
        assert_int_equal(page_keeper_room(p->keeper), 0);
        assert_true(page_keeper_is_full(p->keeper));
        told = p->told_of_room;
        page_asker_passed(p->asker, made);
        for (unsigned i = 0; i < 10; i++)
            turn(p);
        assert_false(page_keeper_is_full(p->keeper));
        assert_true(p->told_of_room > told);
    }
    assert_int_equal(page_keeper_room(p->keeper), PAGES_KEPT_MAX);
    put(p, PAGES_KEPT_MAX);
    page_asker_passed(p->asker, made + 100);
    for (unsigned i = 0; i < 10; i++)
        turn(p);
    assert_int_equal(page_keeper_room(p->keeper), 100);
    assert_int_equal(p->fault, 0);
}

static void many_misses_end_it(void **state)
{
    struct pair *p = *state;
    struct question q;
    unsigned asked = 0;

    assert_int_equal(page_asker_set_stream(p->asker, p->accepted), 0);
    put(p, 50);
    for (; page_keeper_room(p->keeper) > 0 && asked < 50; asked++) {
        start(p, &q, asked);
        finish(p, &q);
        assert_int_equal(q.result, 0);
    }
    assert_in_range(asked, 2, 49);
    assert_false(page_keeper_is_full(p->keeper)); /* there will be no more room */
}

static void what_was_never_referred_to_is_an_error(void **state)
{
    struct pair *p = *state;
    struct question q;

    assert_int_equal(page_asker_set_stream(p->asker, p->accepted), 0);
    put(p, 3);
    start(p, &q, 3);
    finish(p, &q);
    assert_int_equal(p->fault, -EPROTO);
    assert_int_equal(q.result, -ECANCELED);
    assert_int_equal(page_keeper_room(p->keeper), 0);
}

static void more_passed_than_made_is_an_error(void **state)
{
    struct pair *p = *state;

    assert_int_equal(page_asker_set_stream(p->asker, p->accepted), 0);
    put(p, 3);
    page_asker_passed(p->asker, 4);
    for (unsigned i = 0; i < 10; i++)
        turn(p);
    assert_int_equal(p->fault, -EPROTO);
}

static void a_cancel_frees_who_waits(void **state)
{
    struct pair *p = *state;
    struct question q;

    start(p, &q, 0); /* no stream will ever come */
    for (unsigned i = 0; i < 10; i++)
        turn(p);
    page_asker_cancel(p->asker);
    assert_int_equal(pthread_join(q.thread, NULL), 0);
    assert_int_equal(q.result, -ECANCELED);
    start(p, &q, 0);
    assert_int_equal(pthread_join(q.thread, NULL), 0);
    assert_int_equal(q.result, -ECANCELED);
    assert_int_equal(page_asker_set_stream(p->asker, p->accepted), -EEXIST);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_page_that_is_asked_for_comes),
        TEST(what_is_passed_makes_room),
        TEST(many_misses_end_it),
        TEST(what_was_never_referred_to_is_an_error),
        TEST(more_passed_than_made_is_an_error),
        TEST(a_cancel_frees_who_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
