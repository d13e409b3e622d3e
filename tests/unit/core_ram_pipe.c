/* SPDX-License-Identifier: Apache-2.0 */
/* The codec on its thread: a stream through two pipes comes out equal and bounded; faults and early ends. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/limits.h"
#include "core/base/wire.h"
#include "core/move/memory_codec.h"
#include "core/move/ram_pipe.h"

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
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_ENCODER, &CONFIG, NULL, &c->encoder), 0);
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_DECODER, &CONFIG, NULL, &c->decoder), 0);
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
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_DECODER, &CONFIG, NULL, &p), 0);
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
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_ENCODER, &CONFIG, NULL, &p), 0);
    for (uint64_t now_ms = 1000; now_ms < 30000; now_ms += 100)
        ram_pipe_adapt(p, now_ms * 1000000, true, 1); /* the link is slow, the worker idle */
    ram_pipe_get_stats(p, &stats);
    assert_int_equal(stats.level, 6);
    for (uint64_t now_ms = 30000; now_ms < 60000; now_ms += 100)
        ram_pipe_adapt(p, now_ms * 1000000, false, 1); /* nothing to do: no reason to change */
    ram_pipe_get_stats(p, &stats);
    assert_int_equal(stats.level, 6);
    ram_pipe_adapt(p, UINT64_C(60000) * 1000000, true, 3); /* others go on beside it */
    ram_pipe_get_stats(p, &stats);
    assert_int_equal(stats.level, 2);
    ram_pipe_free(p);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* --- references ---------------------------------------------------------------------------- */

enum { BLOCKS = 512, REFERENCE_ROUNDS = 4 };

/* The target's disk, and what the source keeps; the decoder's thread reads both, which stand still by then. */
struct blocks {
    uint8_t disk[BLOCKS][4096];
    uint8_t kept[REFERENCE_ROUNDS * BLOCKS][4096];
    _Atomic unsigned made;
    uint64_t passed;
    _Atomic unsigned asked;
    unsigned freed;
    atomic_bool hangs, cancelled;
};

static unsigned blocks_room(void *user)
{
    (void)user;
    return 100;
}

static void blocks_made(void *user, const uint8_t *pages, unsigned count)
{
    struct blocks *b = user;

    assert_in_range(count, 1, 100);
    assert_true(b->made + count <= ARRAY_SIZE(b->kept));
    memcpy(b->kept[b->made], pages, (size_t)count * 4096);
    b->made += count;
}

static int blocks_read(void *user, unsigned disk, uint64_t offset, uint8_t *ret_page)
{
    struct blocks *b = user;

    while (b->hangs && !b->cancelled)
        usleep(1000);
    if (b->cancelled)
        return -ECANCELED;
    if (disk != 0 || offset / 4096 >= BLOCKS)
        return -ERANGE;
    memcpy(ret_page, b->disk[offset / 4096], 4096);
    return 0;
}

static int blocks_ask(void *user, uint64_t number, uint8_t *ret_page)
{
    struct blocks *b = user;

    if (number >= b->made) /* it was kept before it was sent */
        return -EPROTO;
    b->asked++;
    memcpy(ret_page, b->kept[number], 4096);
    return 0;
}

static const struct ram_reference_target_ops blocks_ops = {.read = blocks_read, .ask = blocks_ask};

static void blocks_passed(void *user, uint64_t count)
{
    ((struct blocks *)user)->passed = count;
}

static void blocks_cancel(void *user)
{
    ((struct blocks *)user)->cancelled = true;
}

static void blocks_free(void *user)
{
    ((struct blocks *)user)->freed++;
}

/* A stream of the blocks' content, in another order each round, as pages of one section. */
static size_t fill_with_blocks(struct chain *c, struct blocks *b)
{
    static const uint8_t start[] = {0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3, 1, 0, 0, 0, 7,
                                    3,    'r',  'a',  'm',  0, 0, 0, 0, 0, 0, 0, 4};
    uint8_t *at = c->in;

    memcpy(at, start, sizeof(start));
    at += sizeof(start);
    for (unsigned i = 0; i < REFERENCE_ROUNDS * BLOCKS; i++) {
        uint64_t page = i % BLOCKS, block = page * 37 % BLOCKS;

        put_be64(at, page * 4096 | 0x08 | (i ? 0x20 : 0));
        at += 8;
        if (i == 0) {
            memcpy(at, "\6pc.ram", 7);
            at += 7;
        }
        memcpy(at, b->disk[(block + i / BLOCKS) % BLOCKS], 4096);
        at += 4096;
    }
    put_be64(at, 0x10);
    at += 8;
    return (size_t)(at - c->in);
}

/* Runs a stream with references; @stale blocks change before the target reads them. */
static void run_references(struct blocks *b, unsigned stale, bool hangs)
{
    struct ram_codec_config config = {0}; /* no store: every page is looked for on the disk */
    struct ram_pipe_blocks at_source = {.disks = 1,
                                        .user = b,
                                        .index_bytes = BLOCKS * 64,
                                        .room = blocks_room,
                                        .made = blocks_made};
    struct ram_pipe_blocks at_target = {.disks = 1,
                                        .user = b,
                                        .target = &blocks_ops,
                                        .passed = blocks_passed,
                                        .cancel = blocks_cancel,
                                        .free = blocks_free};
    struct chain c = {.in = malloc(STREAM_BYTES), .out = malloc(STREAM_BYTES)};
    size_t len, n;
    uint8_t *at;
    uv_loop_t loop;

    assert_non_null(c.in);
    assert_non_null(c.out);
    fill(c.in);
    for (unsigned i = 0; i < BLOCKS; i++) { /* no two alike */
        uint64_t word = i + 1;

        for (size_t k = 0; k < 4096; k += 8, word = word * UINT64_C(6364136223846793005) + 1)
            memcpy(b->disk[i] + k, &word, 8);
    }
    b->hangs = hangs;
    len = fill_with_blocks(&c, b);
    c.in_at = STREAM_BYTES; /* not by pump() */
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_ENCODER, &config, &at_source, &c.encoder), 0);
    assert_int_equal(ram_pipe_new(&loop, RAM_PIPE_DECODER, &config, &at_target, &c.decoder), 0);
    ram_pipe_set_ops(c.encoder, &OPS, &c);
    ram_pipe_set_ops(c.decoder, &OPS, &c);
    for (unsigned i = 0; i < BLOCKS; i++)
        ram_pipe_note(c.encoder, 0, i * UINT64_C(4096), 4096, b->disk[i]);
    for (unsigned i = 0; i < stale; i++)
        b->disk[i][i] ^= 1;
    for (size_t done = 0; done < len && !c.fault;) {
        n = MIN(ram_pipe_room(c.encoder, &at), len - done);
        memcpy(at, c.in + done, n);
        ram_pipe_commit(c.encoder, n);
        done += n;
        if (done == len)
            ram_pipe_end(c.encoder);
        else
            uv_run(&loop, hangs && b->made > 0 ? UV_RUN_NOWAIT : UV_RUN_ONCE);
        if (hangs && b->made > 0)
            break;
    }
    while (!c.done && !hangs)
        uv_run(&loop, UV_RUN_ONCE);
    if (!hangs) {
        assert_int_equal(c.fault, 0);
        assert_int_equal(c.out_at, len);
        assert_memory_equal(c.in, c.out, len);
        assert_int_equal(b->passed, b->made);
    }
    ram_pipe_free(c.encoder);
    ram_pipe_free(c.decoder);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(b->freed, 1);
    done_chain(&c);
}

static void test_references_pass(void **state)
{
    struct blocks *b = calloc(1, sizeof(*b));

    (void)state;
    assert_non_null(b);
    run_references(b, 0, false);
    assert_true(b->made > BLOCKS);
    assert_int_equal(b->asked, 0);
    free(b);
}

static void test_stale_references_are_asked_for(void **state)
{
    struct blocks *b = calloc(1, sizeof(*b));

    (void)state;
    assert_non_null(b);
    run_references(b, 20, false);
    assert_true(b->asked > 0 && b->asked <= REFERENCE_ROUNDS * 20);
    free(b);
}

/* The disk there does not answer, and the move ends: nothing stays behind. */
static void test_freed_while_a_disk_hangs(void **state)
{
    struct blocks *b = calloc(1, sizeof(*b));

    (void)state;
    assert_non_null(b);
    run_references(b, 0, true);
    assert_true(b->cancelled);
    free(b);
}

static void test_agreement(void **state)
{
    struct config source = {.codec = true, .page_store_bytes = 100 << 20};
    struct config target = {.codec = true, .page_store_bytes = 60 << 20};
    struct memory_codec at_source, at_target;
    json_t *offer, *answer;

    (void)state;
    offer = memory_codec_offer(&source, 512 << 20, 2);
    answer = memory_codec_answer(&target, 2, offer, &at_target);
    memory_codec_agree(&source, 512 << 20, 2, answer, &at_source);
    assert_true(at_source.used && at_target.used);
    assert_int_equal(at_source.config.store_bytes, 60 << 20);
    assert_int_equal(at_target.config.store_bytes, 60 << 20);
    assert_int_equal(at_source.references + at_target.references, 0); /* no index, no references */
    json_decref(offer);
    json_decref(answer);
    source.disk_index_bytes = 1 << 20;
    offer = memory_codec_offer(&source, 512 << 20, 2);
    answer = memory_codec_answer(&target, 2, offer, &at_target);
    memory_codec_agree(&source, 512 << 20, 2, answer, &at_source);
    assert_int_equal(at_source.references, 2);
    assert_int_equal(at_target.references, 2);
    json_object_set_new(answer, "references", json_integer(3)); /* not of the same disks */
    memory_codec_agree(&source, 512 << 20, 2, answer, &at_source);
    assert_true(at_source.used && at_source.references == 0);
    /* more than was offered is not agreed to: the peer would decide over this site's memory */
    memory_codec_agree(&source, 1 << 20, 2, answer, &at_source);
    assert_false(at_source.used);
    target.codec = false;
    assert_null(memory_codec_answer(&target, 2, offer, &at_target));
    assert_false(at_target.used);
    memory_codec_agree(&source, 0, 2, NULL, &at_source);
    assert_false(at_source.used);
    json_object_set_new(offer, "version", json_integer(2));
    target.codec = true;
    assert_null(memory_codec_answer(&target, 2, offer, &at_target));
    source.codec = false;
    assert_null(memory_codec_offer(&source, 0, 2));
    json_decref(offer);
    json_decref(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_passes),
        cmocka_unit_test(test_damage_ends_it),
        cmocka_unit_test(test_freed_at_any_time),
        cmocka_unit_test(test_levels_follow_link_and_cpu),
        cmocka_unit_test(test_references_pass),
        cmocka_unit_test(test_stale_references_are_asked_for),
        cmocka_unit_test(test_freed_while_a_disk_hangs),
        cmocka_unit_test(test_agreement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
