/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror log alone: what coalesces and what must not, what is held and when it is released, cuts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/wire.h"
#include "storage/limits.h"
#include "storage/mirror_log.h"
#include "storage/mirror_wire.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

struct fixture {
    struct mirror_budget *budget;
    struct mirror_log *log;
    uint64_t released[64];
    bool released_bulk[64];
    unsigned released_count, rooms;
};

static void on_release(void *owner, uint64_t cookie, bool bulk, uint64_t waited_ns, uint64_t now_ns)
{
    struct fixture *f = owner;

    (void)waited_ns;
    (void)now_ns;
    f->released_bulk[f->released_count] = bulk;
    f->released[f->released_count++] = cookie;
}

static void on_room(void *owner, uint64_t now_ns)
{
    (void)now_ns;
    ((struct fixture *)owner)->rooms++;
}

static const struct mirror_log_ops ops = {.release = on_release, .room = on_room};

static int begin(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(mirror_budget_new(&f->budget, MIB), 0);
    assert_int_equal(mirror_log_new(&f->log, f->budget, NULL, NULL, &ops, f), 0);
    *state = f;
    return 0;
}

static int end(void **state)
{
    struct fixture *f = *state;

    mirror_log_free(f->log);
    assert_int_equal(mirror_budget_used_bytes(f->budget), 0);
    mirror_budget_free(f->budget);
    free(f);
    return 0;
}

static enum mirror_log_answer put(struct fixture *f, enum mirror_log_kind kind, uint64_t offset,
                                  uint32_t length, uint64_t cookie)
{
    struct mirror_log_request r = {
        .kind = kind, .offset = offset, .length = length, .cookie = cookie};
    enum mirror_log_answer answer;

    if (kind == MIRROR_LOG_WRITE) {
        r.payload = malloc(length);
        assert_non_null(r.payload);
        memset(r.payload, (int)cookie | 1, length);
    }
    assert_int_equal(mirror_log_append(f->log, &r, 1000, &answer), 0);
    assert_null(r.payload);
    return answer;
}

static struct mirror_log_stats stats(const struct fixture *f)
{
    struct mirror_log_stats s;

    mirror_log_stats(f->log, &s);
    return s;
}

/* Pulls everything in pieces of @piece and returns the types in order, e.g. "WRITE ZERO". */
static void expect_stream(struct fixture *f, size_t piece, const char *expected)
{
    struct mirror_wire_decoder d;
    struct mirror_wire_message m;
    struct buffer out = {0};
    struct error e = {0};
    char seen[512] = "";
    bool complete;
    ssize_t n;

    while (mirror_log_has_unsent(f->log)) {
        size_t before = buffer_len(&out), len = mirror_log_pull(f->log, &out, piece);

        assert_true(len > 0 && len <= piece);
        assert_int_equal(buffer_len(&out), before + len);
    }
    mirror_wire_decoder_init(&d, MIRROR_WIRE_TO_TARGET);
    while (buffer_len(&out) > 0) {
        n = mirror_wire_decode(&d, buffer_data(&out), buffer_len(&out), &m, &complete, &e);
        assert_true(n > 0 && complete);
        buffer_consume(&out, (size_t)n);
        snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s%s", seen[0] ? " " : "",
                 mirror_wire_type_name(m.type));
        free(m.payload);
    }
    assert_string_equal(seen, expected);
    buffer_done(&out);
}

static void rewritten_blocks_are_sent_once(void **state)
{
    struct fixture *f = *state;

    put(f, MIRROR_LOG_WRITE, 4096, 4096, 1);
    put(f, MIRROR_LOG_WRITE, 8192, 100, 2);
    put(f, MIRROR_LOG_TRIM, 5000, 10, 3);
    put(f, MIRROR_LOG_ZERO, 4096, 4096, 4); /* covers 1 and 3 */
    put(f, MIRROR_LOG_WRITE, 8192, 99, 5);  /* not all of 2 */
    put(f, MIRROR_LOG_WRITE, 8191, 101, 6); /* 2 and 5, to the same end */
    assert_int_equal(stats(f).coalesced_entries, 4);
    assert_int_equal(stats(f).coalesced_bytes, 4096 + 100 + 99);
    assert_int_equal(stats(f).fill_bytes, 101 + 2 * LIMIT_LOG_ENTRY_OVERHEAD_BYTES);
    expect_stream(f, 7, "ZERO WRITE");
    assert_int_equal(mirror_log_applied(f->log, 2, 0), 0);
    assert_int_equal(stats(f).fill_bytes, 0);
}

/* Where the entries start, in units of 64 KiB, in the order in which they are sent. */
static void expect_offsets(struct fixture *f, const char *expected)
{
    struct mirror_wire_decoder d;
    struct mirror_wire_message m;
    struct buffer out = {0};
    struct error e = {0};
    char seen[512] = "";
    bool complete;

    while (mirror_log_pull(f->log, &out, 100000) > 0)
        ;
    mirror_wire_decoder_init(&d, MIRROR_WIRE_TO_TARGET);
    while (buffer_len(&out) > 0) {
        ssize_t n = mirror_wire_decode(&d, buffer_data(&out), buffer_len(&out), &m, &complete, &e);

        assert_true(n > 0 && complete);
        buffer_consume(&out, (size_t)n);
        snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s%u", seen[0] ? " " : "",
                 (unsigned)(m.offset >> 16));
        free(m.payload);
    }
    assert_string_equal(seen, expected);
    buffer_done(&out);
}

static void put_units(struct fixture *f, const unsigned *units, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put(f, MIRROR_LOG_WRITE, (uint64_t)units[i] << 16, 1u << 16, units[i]);
}

static void the_copy_goes_in_the_order_of_the_disk(void **state)
{
    struct fixture *f = *state;

    put_units(f, (const unsigned[]){0, 2, 3, 1, 5}, 5);
    put(f, MIRROR_LOG_WRITE, 900 << 16, 4096, 7); /* a guest's: keeps its place, ends no run */
    put_units(f, (const unsigned[]){6, 4}, 2);
    expect_offsets(f, "0 1 2 3 4 5 6 900");
}

static void overlap_and_answers_keep_their_order(void **state)
{
    struct fixture *f = *state;

    put_units(f, (const unsigned[]){0}, 1);
    put(f, MIRROR_LOG_WRITE, (2 << 16) - 100, 4096, 9); /* overlaps what would come first */
    put_units(f, (const unsigned[]){1, 2}, 2);
    expect_offsets(f, "0 1 1 2");
    assert_int_equal(stats(f).coalesced_entries, 0);
    put_units(f, (const unsigned[]){4}, 1);
    put(f, MIRROR_LOG_READ, 0, 512, 3);
    put_units(f, (const unsigned[]){3}, 1); /* goes on, but behind a READ */
    expect_offsets(f, "4 0 3");
    mirror_log_set_ready(f->log, true);
    put_units(f, (const unsigned[]){6, 4}, 2); /* the guest's now */
    expect_offsets(f, "6 4");
}

static void nobody_is_passed_for_ever(void **state)
{
    struct fixture *f = *state;
    struct buffer out = {0};
    unsigned passed = 0;

    put_units(f, (const unsigned[]){0}, 1);
    assert_true(mirror_log_pull(f->log, &out, 1 << 20) > 0);
    put(f, MIRROR_LOG_WRITE, 5000 << 16, 4096, 7);
    for (unsigned unit = 1; unit < 200 && passed == 0; unit++) {
        put_units(f, &unit, 1);
        buffer_clear(&out);
        assert_true(mirror_log_pull(f->log, &out, MIRROR_WIRE_HEADER_BYTES + (1 << 16)) > 0);
        if (get_be64(buffer_data(&out) + 16) >> 16 == 5000)
            passed = unit;
    }
    assert_in_range(passed, 2, 199);
    buffer_done(&out);
}

static void far_apart_regions_coalesce_too(void **state)
{
    struct fixture *f = *state;

    put(f, MIRROR_LOG_WRITE, 10, 10, 1);
    put(f, MIRROR_LOG_WRITE, 3 * MIB - 5, 10, 1);
    put(f, MIRROR_LOG_WRITE, UINT64_C(1) << 39, 10, 1);
    put(f, MIRROR_LOG_ZERO, 0, 4 * MIB, 2); /* 32 regions */
    put(f, MIRROR_LOG_ZERO, UINT64_C(1) << 38, UINT32_MAX,
        3); /* more regions than heads: covers none */
    put(f, MIRROR_LOG_ZERO, (UINT64_C(1) << 39) - 4096, UINT32_MAX, 4);
    assert_int_equal(stats(f).coalesced_entries, 3);
    expect_stream(f, 4096, "ZERO ZERO ZERO");
}

static void what_must_not_coalesce(void **state)
{
    struct fixture *f = *state;

    put(f, MIRROR_LOG_WRITE, 0, 512, 1);
    put(f, MIRROR_LOG_TRIM, 0, 512, 2); /* may leave the data as it is */
    put(f, MIRROR_LOG_READ, 0, 512, 3); /* must see what was there */
    put(f, MIRROR_LOG_WRITE, 0, 512, 4);
    assert_int_equal(stats(f).coalesced_entries, 0);
    expect_stream(f, 100000, "WRITE TRIM READ WRITE");
}

static void a_begun_entry_stays(void **state)
{
    struct fixture *f = *state;
    struct mirror_wire_decoder d;
    struct mirror_wire_message m;
    struct buffer out = {0};
    struct error e = {0};
    bool complete;

    put(f, MIRROR_LOG_WRITE, 0, 512, 1);
    assert_int_equal(mirror_log_pull(f->log, &out, 1), 1);
    put(f, MIRROR_LOG_WRITE, 0, 512, 2);
    assert_int_equal(stats(f).coalesced_entries, 0);
    assert_int_equal(mirror_log_pull(f->log, &out, 100000),
                     2 * (512 + MIRROR_WIRE_HEADER_BYTES) - 1);
    mirror_wire_decoder_init(&d, MIRROR_WIRE_TO_TARGET);
    for (uint64_t seq = 1; seq <= 2; seq++) {
        ssize_t n = mirror_wire_decode(&d, buffer_data(&out), buffer_len(&out), &m, &complete, &e);

        assert_true(n > 0 && complete);
        assert_int_equal(m.seq, seq);
        free(m.payload);
        buffer_consume(&out, (size_t)n);
    }
    buffer_done(&out);
}

static void zeroes_carry_nothing(void **state)
{
    struct fixture *f = *state;
    struct mirror_log_request r = {
        .kind = MIRROR_LOG_WRITE, .length = 65536, .payload = calloc(1, 65536)};
    enum mirror_log_answer answer;

    assert_int_equal(mirror_log_append(f->log, &r, 0, &answer), 0);
    assert_int_equal(stats(f).in_payload_bytes, 0);
    expect_stream(f, 4096, "ZERO");
}

static void acknowledgements_wait_for_room(void **state)
{
    struct fixture *f = *state;

    mirror_log_set_ready(f->log, true); /* all of it the guest's */
    for (unsigned i = 0; i < 13; i++)
        assert_int_equal(put(f, MIRROR_LOG_WRITE, i * 64 * KIB, 64 * KIB, i),
                         MIRROR_LOG_ACKNOWLEDGE);
    assert_int_equal(put(f, MIRROR_LOG_WRITE, 14 * 64 * KIB, 64 * KIB, 14), MIRROR_LOG_HOLD);
    assert_int_equal(put(f, MIRROR_LOG_WRITE, MIB, 512, 15), MIRROR_LOG_HOLD); /* not before 14 */
    assert_int_equal(stats(f).held_now, 2);
    assert_true(mirror_log_admit(f->log, 1000));
    mirror_log_unadmit(f->log, 0);
    assert_false(mirror_log_admit(f->log, 200 * KIB));
    expect_stream(f, 100000,
                  "WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE WRITE "
                  "WRITE WRITE");
    assert_int_equal(f->released_count, 0);
    assert_int_equal(mirror_log_applied(f->log, 1, 5000), 0);
    assert_int_equal(f->released_count, 2);
    assert_int_equal(f->released[0], 14);
    assert_int_equal(f->released[1], 15);
    assert_int_equal(stats(f).held_max_ns, 4000);
    assert_int_equal(f->rooms, 0);
    assert_int_equal(mirror_log_applied(f->log, 4, 5000), 0);
    assert_int_equal(f->rooms, 1);
    assert_true(mirror_log_admit(f->log, 200 * KIB));
}

static void bulk_waits_longer_than_the_guest(void **state)
{
    struct fixture *f = *state;

    /* A budget as small as this leaves the copy a quarter. */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(put(f, MIRROR_LOG_WRITE, i * 64 * KIB, 64 * KIB, i),
                         MIRROR_LOG_ACKNOWLEDGE);
    assert_true(mirror_log_last_was_bulk(f->log));
    assert_int_equal(put(f, MIRROR_LOG_WRITE, 4 * 64 * KIB, 64 * KIB, 4), MIRROR_LOG_HOLD);
    assert_int_equal(put(f, MIRROR_LOG_WRITE, 5 * MIB + 512, 4096, 5), MIRROR_LOG_ACKNOWLEDGE);
    assert_false(mirror_log_last_was_bulk(f->log));
    expect_stream(f, 1 << 20, "WRITE WRITE WRITE WRITE WRITE");
    assert_int_equal(mirror_log_applied(f->log, 1, 0), 0);
    assert_int_equal(f->released_count, 1);
    assert_true(f->released_bulk[0]);
}

/* What is zero in a large write travels as such; the parts are answered as one. */
static void zeroes_within_a_write(void **state)
{
    struct fixture *f = *state;
    struct mirror_log_request r = {
        .kind = MIRROR_LOG_WRITE, .offset = 512, .length = 260 * KIB, .cookie = 9};
    enum mirror_log_answer answer = MIRROR_LOG_HOLD;

    r.payload = calloc(1, r.length);
    assert_non_null(r.payload);
    r.payload[10] = 1; /* data, zeroes, zeroes, data and a rest */
    r.payload[3 * 64 * KIB + 77] = 2;
    assert_int_equal(mirror_log_append(f->log, &r, 1000, &answer), 0);
    assert_null(r.payload);
    assert_int_equal(answer, MIRROR_LOG_ACKNOWLEDGE);
    assert_int_equal(stats(f).in_payload_bytes, (64 + 68) * KIB);
    assert_int_equal(stats(f).in_bytes, 260 * KIB);
    expect_stream(f, 1000, "WRITE ZERO WRITE");
    assert_int_equal(f->released_count, 0);
    assert_int_equal(mirror_log_applied(f->log, 3, 0), 0);
    assert_int_equal(f->released_count, 0);
}

static void marks_of_small_and_large_budgets(void **state)
{
    struct mirror_budget *b;

    (void)state;
    assert_int_equal(mirror_budget_new(&b, 256 * MIB), 0);
    assert_int_equal(mirror_budget_plan_bytes(b, 1), 256 * MIB);
    mirror_budget_set_limit(b, 64 * MIB); /* 56 for the guest, 16 below that for the copy */
    assert_int_equal(mirror_budget_plan_bytes(b, 1), 40 * MIB / 3 * 4);
    mirror_budget_set_limit(b, 8 * MIB);
    assert_int_equal(mirror_budget_plan_bytes(b, 1), 2 * MIB / 3 * 4);
    mirror_budget_free(b);
}

/* The pacer spreads the guest's acknowledgements, in order, and leaves the copy's alone. */
static void paced_acknowledgements(void **state)
{
    struct fixture *f = *state;
    struct ack_pacer pacer = {0};
    struct mirror_log *log;
    struct fixture g = {.budget = f->budget};

    assert_int_equal(mirror_log_new(&log, f->budget, &pacer, NULL, &ops, &g), 0);
    g.log = log;
    ack_pacer_set(&pacer, 4096 * 100, 1000000000); /* one in 10 ms */
    mirror_log_tick(log, 1000000000);
    assert_int_equal(put(&g, MIRROR_LOG_WRITE, 512, 4096, 1), MIRROR_LOG_ACKNOWLEDGE);
    pacer.next_ns = 1010000000; /* put() tells no time */
    assert_int_equal(put(&g, MIRROR_LOG_WRITE, 8192, 4096, 2), MIRROR_LOG_HOLD);
    assert_int_equal(put(&g, MIRROR_LOG_WRITE, 16384, 4096, 3), MIRROR_LOG_HOLD);
    assert_int_equal(stats(&g).held_guest_now, 2);
    assert_int_equal(put(&g, MIRROR_LOG_WRITE, MIB, 64 * KIB, 4), MIRROR_LOG_ACKNOWLEDGE);
    mirror_log_tick(log, 1009000000);
    assert_int_equal(g.released_count, 0);
    mirror_log_tick(log, 1011000000);
    assert_int_equal(g.released_count, 1);
    assert_int_equal(g.released[0], 2);
    ack_pacer_set(&pacer, 0, 1012000000); /* no pace any more: everything at once */
    mirror_log_tick(log, 1012000000);
    assert_int_equal(g.released_count, 2);
    assert_int_equal(stats(&g).held_guest_now, 0);
    mirror_log_free(log);
}

static void an_oversized_request_passes_alone(void **state)
{
    struct fixture *f = *state;

    assert_true(mirror_log_admit(f->log, 8 * MIB));
    assert_int_equal(put(f, MIRROR_LOG_WRITE, 0, 8 * MIB, 1), MIRROR_LOG_HOLD);
    assert_false(mirror_log_admit(f->log, 1));
    expect_stream(f, 10 * MIB, "WRITE");
    assert_int_equal(mirror_log_applied(f->log, 1, 0), 0);
    assert_int_equal(f->released_count, 1);
    assert_int_equal(f->rooms, 1);
}

static void disks_share_in_turn(void **state)
{
    struct fixture *f = *state;
    struct fixture g = {.budget = f->budget};

    assert_int_equal(mirror_log_new(&g.log, g.budget, NULL, NULL, &ops, &g), 0);
    assert_true(mirror_log_admit(f->log, 900 * KIB));
    put(f, MIRROR_LOG_WRITE, 0, 900 * KIB, 1);
    assert_false(mirror_log_admit(g.log, 500 * KIB));
    assert_false(mirror_log_admit(f->log, 1)); /* would fit, but the other is first */
    expect_stream(f, 10 * MIB, "WRITE");
    assert_int_equal(mirror_log_applied(f->log, 1, 0), 0);
    assert_int_equal(g.rooms, 1);
    assert_int_equal(f->rooms, 1);
    mirror_log_free(g.log);
}

static void applied_is_checked(void **state)
{
    struct fixture *f = *state;
    uint64_t cookie;
    uint32_t length;

    put(f, MIRROR_LOG_WRITE, 0, 10, 1);
    assert_int_equal(mirror_log_applied(f->log, 1, 0), -EPROTO); /* never sent */
    put(f, MIRROR_LOG_READ, 0, 10, 77);
    put(f, MIRROR_LOG_CLOSE, 0, 0, 0);
    expect_stream(f, 5, "WRITE READ CLOSE");
    assert_int_equal(mirror_log_close_seq(f->log), 3);
    assert_int_equal(mirror_log_applied(f->log, 4, 0), -EPROTO);
    assert_int_equal(mirror_log_applied(f->log, 2, 0), 0);
    assert_int_equal(mirror_log_applied(f->log, 1, 0), -EPROTO); /* goes back */
    assert_int_equal(mirror_log_read_cookie(f->log, 1, &cookie, &length), -ENOENT);
    assert_int_equal(mirror_log_read_cookie(f->log, 2, &cookie, &length), 0);
    assert_int_equal(cookie, 77);
    assert_int_equal(mirror_log_read_cookie(f->log, 2, &cookie, &length), -ENOENT);
    assert_false(mirror_log_is_drained(f->log));
    assert_int_equal(mirror_log_applied(f->log, 3, 0), 0);
    assert_true(mirror_log_is_drained(f->log));
}

static void nothing_after_close(void **state)
{
    struct fixture *f = *state;
    struct mirror_log_request r = {.kind = MIRROR_LOG_ZERO, .length = 1};
    enum mirror_log_answer answer;

    put(f, MIRROR_LOG_CLOSE, 0, 0, 0);
    assert_int_equal(mirror_log_append(f->log, &r, 0, &answer), -ESHUTDOWN);
    mirror_log_abandon(f->log, 0);
    assert_false(mirror_log_admit(f->log, 0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rewritten_blocks_are_sent_once),
        TEST(the_copy_goes_in_the_order_of_the_disk),
        TEST(overlap_and_answers_keep_their_order),
        TEST(nobody_is_passed_for_ever),
        TEST(far_apart_regions_coalesce_too),
        TEST(what_must_not_coalesce),
        TEST(a_begun_entry_stays),
        TEST(zeroes_carry_nothing),
        TEST(acknowledgements_wait_for_room),
        TEST(bulk_waits_longer_than_the_guest),
        TEST(paced_acknowledgements),
        TEST(zeroes_within_a_write),
        cmocka_unit_test(marks_of_small_and_large_budgets),
        TEST(an_oversized_request_passes_alone),
        TEST(disks_share_in_turn),
        TEST(applied_is_checked),
        TEST(nothing_after_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
