/* SPDX-License-Identifier: Apache-2.0 */
/* The codec on its thread: a stream through two pipes comes out equal and bounded; faults and early ends. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/limits.h"
#include "core/memory_codec.h"
#include "core/ram_pipe.h"

enum { STREAM_BYTES = 24 << 20 };

static const struct ram_codec_config CONFIG = {.store_bytes = 4 << 20};

struct chain {
    struct ram_pipe *encoder, *decoder;
    uint8_t *in, *out; /* owned: STREAM_BYTES */
    size_t in_at, out_at, wire_bytes;
    size_t stop_at; /* end early here */
    int fault;
    bool damage, done;
};

/* Everything that can move, moves: as the relay does. */
static void pump(struct chain *c)
{
    const uint8_t *data;
    uint8_t *at;
    size_t n;

    while (c->in_at < STREAM_BYTES && (n = ram_pipe_room(c->encoder, &at)) > 0) {
        n = MIN(n, (size_t)(STREAM_BYTES - c->in_at));
        memcpy(at, c->in + c->in_at, n);
        ram_pipe_commit(c->encoder, n);
        c->in_at += n;
        if (c->in_at == STREAM_BYTES)
            ram_pipe_end(c->encoder);
    }
    while ((n = ram_pipe_peek(c->encoder, &data)) > 0) {
        size_t room = ram_pipe_room(c->decoder, &at);

        assert_true(n <= RAM_PIPE_INPUT_BYTES + RAM_PIPE_INPUT_BYTES / 8);
        n = MIN(n, room);
        if (n == 0)
            break;
        memcpy(at, data, n);
        if (c->damage && c->wire_bytes > 100000)
            at[n / 2] ^= 1;
        ram_pipe_consume(c->encoder, n);
        ram_pipe_commit(c->decoder, n);
        c->wire_bytes += n;
    }
    if (ram_pipe_is_at_end(c->encoder))
        ram_pipe_end(c->decoder);
    while ((n = ram_pipe_peek(c->decoder, &data)) > 0) {
        assert_true(n <= RAM_PIPE_OUTPUT_BYTES + LIMIT_RAM_CHUNK_BYTES);
        n = MIN(n, (size_t)100000);
        assert_true(c->out_at + n <= STREAM_BYTES);
        memcpy(c->out + c->out_at, data, n);
        c->out_at += n;
        ram_pipe_consume(c->decoder, n);
    }
    c->done = c->done || ram_pipe_is_at_end(c->decoder) || c->fault ||
              (c->stop_at > 0 && c->out_at >= c->stop_at);
}

static void on_progress(void *user)
{
    pump(user);
}

static void on_failed(void *user, int code)
{
    struct chain *c = user;

    c->fault = code;
    c->done = true;
}

static const struct ram_pipe_ops OPS = {.on_progress = on_progress, .on_failed = on_failed};

/* Not a migration, but pages of it all the same: what matters here is the way, not the codec. */
static void fill(uint8_t *data)
{
    uint64_t word = 1;

    for (size_t i = 0; i < STREAM_BYTES; i += 8) {
        word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
        memcpy(data + i, i % 65536 < 20000 ? (const void *)&word : "constant", 8);
    }
}

static void run_chain(struct chain *c)
{
    uv_loop_t loop;

    c->in = malloc(STREAM_BYTES);
    c->out = malloc(STREAM_BYTES);
    assert_non_null(c->in);
    assert_non_null(c->out);
    fill(c->in);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_ENCODER, &CONFIG, &c->encoder), 0);
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_DECODER, &CONFIG, &c->decoder), 0);
    ram_pipe_set_ops(c->encoder, &OPS, c);
    ram_pipe_set_ops(c->decoder, &OPS, c);
    pump(c);
    while (!c->done)
        uv_run(&loop, UV_RUN_ONCE);
    ram_pipe_free(c->encoder);
    ram_pipe_free(c->decoder);
    uv_run(&loop, UV_RUN_DEFAULT); /* ends: nothing of them stays on the loop */
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void done_chain(struct chain *c)
{
    free(c->in);
    free(c->out);
}

static void test_a_stream_passes(void **state)
{
    struct chain c = {0};

    (void)state;
    run_chain(&c);
    assert_int_equal(c.fault, 0);
    assert_int_equal(c.out_at, STREAM_BYTES);
    assert_memory_equal(c.in, c.out, STREAM_BYTES);
    assert_true(c.wire_bytes < STREAM_BYTES / 2);
    done_chain(&c);
}

static void test_damage_ends_it(void **state)
{
    struct chain c = {.damage = true};

    (void)state;
    run_chain(&c);
    assert_true(c.fault == -EPROTO || c.fault == -EBADMSG);
    assert_true(c.out_at < STREAM_BYTES);
    assert_memory_equal(c.in, c.out, c.out_at);
    done_chain(&c);
}

/* Freed amid work, at some moments, and before its engine was made. */
static void test_freed_at_any_time(void **state)
{
    struct ram_pipe *p;
    uv_loop_t loop;

    (void)state;
    for (size_t stop = 1; stop < 16 << 20; stop = stop * 4 + 1) {
        struct chain c = {.stop_at = stop};

        run_chain(&c);
        assert_memory_equal(c.in, c.out, c.out_at);
        done_chain(&c);
    }
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_DECODER, &CONFIG, &p), 0);
    ram_pipe_free(p);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_levels_follow_link_and_cpu(void **state)
{
    struct ram_pipe_stats stats;
    struct ram_pipe *p;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_ENCODER, &CONFIG, &p), 0);
    for (uint64_t now_ms = 1000; now_ms < 30000; now_ms += 100)
        ram_pipe_adapt(p, now_ms * 1000000, true); /* the link is slow, the worker idle */
    ram_pipe_get_stats(p, &stats);
    assert_int_equal(stats.level, 6);
    for (uint64_t now_ms = 30000; now_ms < 60000; now_ms += 100)
        ram_pipe_adapt(p, now_ms * 1000000, false); /* nothing to do: no reason to change */
    ram_pipe_get_stats(p, &stats);
    assert_int_equal(stats.level, 6);
    ram_pipe_free(p);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_agreement(void **state)
{
    struct config source = {.codec = true, .page_store_bytes = 100 << 20};
    struct config target = {.codec = true, .page_store_bytes = 60 << 20};
    struct memory_codec at_source, at_target;
    json_t *offer, *answer;

    (void)state;
    offer = memory_codec_offer(&source, 512 << 20);
    answer = memory_codec_answer(&target, offer, &at_target);
    memory_codec_agree(&source, 512 << 20, answer, &at_source);
    assert_true(at_source.used && at_target.used);
    assert_int_equal(at_source.config.store_bytes, 60 << 20);
    assert_int_equal(at_target.config.store_bytes, 60 << 20);
    /* more than was offered is not agreed to: the peer would decide over this site's memory */
    memory_codec_agree(&source, 1 << 20, answer, &at_source);
    assert_false(at_source.used);
    target.codec = false;
    assert_null(memory_codec_answer(&target, offer, &at_target));
    assert_false(at_target.used);
    memory_codec_agree(&source, 0, NULL, &at_source);
    assert_false(at_source.used);
    json_object_set_new(offer, "version", json_integer(2));
    target.codec = true;
    assert_null(memory_codec_answer(&target, offer, &at_target));
    source.codec = false;
    assert_null(memory_codec_offer(&source, 0));
    json_decref(offer);
    json_decref(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_passes),   cmocka_unit_test(test_damage_ends_it),
        cmocka_unit_test(test_freed_at_any_time), cmocka_unit_test(test_levels_follow_link_and_cpu),
        cmocka_unit_test(test_agreement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
