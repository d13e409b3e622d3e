/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mirror as a whole, over thousands of seeds: random overlapping writes, zeroes, trims, flushes and
 * reads, one to three disks sharing a small budget, with seeds that fail and change, a delayed link that cuts the stream anywhere, a disk
 * that completes in any order. The disks must be equal byte by byte, memory within its bound, every
 * request answered once, every read right; most sites have a spool, some of which fail; and a disk error must end
 * the move, not hang it.
 *
 * A failing seed is printed; FERRY_SEED=N runs just that one. storage_mirror_negative.c shows that the
 * comparison finds a lost order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/storage_mirror_sim.h"

static void disks_end_equal(void **state)
{
    struct sim_totals totals = {0};
    uint64_t first, count;
    static struct sim s;

    (void)state;
    sim_seeds(SIM_SEEDS_USUAL, &first, &count);
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (!sim_mirror(&s, seed, &totals))
            fail_msg("FERRY_SEED=%" PRIu64 ": %s", seed, s.failure);
    }
    print_message("%" PRIu64 " entries applied, %" PRIu64 " coalesced, %" PRIu64
                  " acknowledgements held, %" PRIu64 " bytes spooled, %" PRIu64
                  " segments read back, %" PRIu64 " bytes from seeds, %" PRIu64 " misses, %" PRIu64
                  " bytes packed to %" PRIu64 "\n",
                  totals.applied, totals.coalesced, totals.held, totals.spooled, totals.spool_reads,
                  totals.seeded, totals.missed, totals.packed_raw, totals.packed);
    if (count >= 100) {
        assert_true(totals.spooled > 0 && totals.spool_reads > 0);
        assert_true(totals.checked > 0);
        assert_true(totals.seeded > 0 && totals.missed > 0);
        assert_true(totals.packed > 0 && totals.packed < totals.packed_raw);
        assert_true(totals.held > 0);
        assert_true(totals.coalesced > 0);
    }
}

/* To the end of a move whose clients see errors, rightly. */
static void run_with_errors(struct sim *s)
{
    for (unsigned i = 0; i < SIM_STEPS_MAX && !sim_is_over(s); i++) {
        sim_step(s);
        s->failed = false;
    }
    assert_true(sim_is_over(s));
}

static bool is_humoured(const struct sim_lane *l)
{
    return mirror_source_state(l->source) == MIRROR_SOURCE_FAILED &&
           !mirror_connection_is_closed(l->connection) && (l->in_flight > 0 || !l->closed);
}

/* A client that reads is told of the failure; any other is answered until it ends its connection by itself. */
static unsigned expect_answered(struct sim *s)
{
    unsigned humoured = 0;

    for (unsigned i = 0; i < s->lane_count; i++) {
        struct sim_lane *l = &s->lanes[i];

        if (!l->negotiated || !is_humoured(l))
            continue;
        humoured++;
        for (unsigned step = 0; step < SIM_STEPS_MAX && is_humoured(l); step++) {
            sim_step(s);
            s->failed = false;
        }
        if (is_humoured(l))
            fail_msg("FERRY_SEED=%" PRIu64 ": a client is left with %u requests", s->seed,
                     l->in_flight);
    }
    return humoured;
}

/* Runs a move in which the disk fails at some request; nothing may hang, leak or be called done. */
static void a_disk_error_fails_the_move(void **state)
{
    uint64_t first, count, answered = 0;
    static struct sim s;

    (void)state;
    sim_seeds(SIM_SEEDS_USUAL / 4, &first, &count);
    for (uint64_t seed = first; seed < first + count; seed++) {
        sim_begin(&s, seed);
        s.disk_error_at = (int)sim_below(&s.random, 60);
        run_with_errors(&s);
        answered += expect_answered(&s);
        for (unsigned i = 0; i < s.lane_count; i++) {
            struct sim_lane *l = &s.lanes[i];
            bool done = mirror_source_state(l->source) == MIRROR_SOURCE_DONE;

            if (done && memcmp(l->model, l->disk, SIM_DISK_BYTES) != 0)
                fail_msg("FERRY_SEED=%" PRIu64 ": called done, and differs", seed);
            if (!done && !error_is_set(mirror_source_error(l->source)))
                fail_msg("FERRY_SEED=%" PRIu64 ": failed without a reason", seed);
        }
        sim_end(&s);
    }
    print_message("%" PRIu64 " clients of failed disks answered to their end\n", answered);
    assert_true(count < 100 || answered > 0);
}

/* A byte of the target's disk changes behind everybody's back: verification finds it, unless it is
 * written over. Of a thousand such disks none may be called done. */
static void a_changed_disk_is_found(void **state)
{
    uint64_t first, count, found = 0;
    static struct sim s;

    (void)state;
    sim_seeds(SIM_SEEDS_USUAL / 2, &first, &count);
    for (uint64_t seed = first; seed < first + count; seed++) {
        uint64_t step, at;
        struct sim_lane *l;

        sim_begin_as(&s, seed, true);
        s.spool_write_error_at = -1;
        step = sim_below(&s.random, 3000);
        at = sim_below(&s.random, SIM_DISK_BYTES);
        l = &s.lanes[sim_below(&s.random, s.lane_count)];
        for (unsigned i = 0; i < SIM_STEPS_MAX && !sim_is_over(&s); i++) {
            sim_step(&s);
            /* once, where both hold the same, and before the last questions are asked */
            if (i >= step && step != UINT64_MAX && !l->closed && l->model[at] != 0 &&
                l->disk[at] == l->model[at]) {
                l->disk[at] ^= 0x10;
                step = UINT64_MAX;
            }
            s.failed = false; /* clients see errors, rightly */
        }
        assert_true(sim_is_over(&s));
        for (unsigned i = 0; i < s.lane_count; i++) {
            bool done = mirror_source_state(s.lanes[i].source) == MIRROR_SOURCE_DONE;
            bool equal = memcmp(s.lanes[i].model, s.lanes[i].disk, SIM_DISK_BYTES) == 0;

            if (done && !equal)
                fail_msg("FERRY_SEED=%" PRIu64 ": verified, and differs", seed);
            if (!done && mirror_source_error(s.lanes[i].source)->code != -EILSEQ)
                fail_msg("FERRY_SEED=%" PRIu64 ": failed with %d", seed,
                         mirror_source_error(s.lanes[i].source)->code);
            found += !done;
        }
        sim_end(&s);
    }
    print_message("%" PRIu64 " changed disks found\n", found);
    assert_true(count < 100 || found > count / 20);
}

/* What is on the spool cannot be read: the disk fails with a reason, or is right; it never hangs. */
static void a_spool_that_cannot_be_read(void **state)
{
    uint64_t first, count, failed = 0;
    static struct sim s;

    (void)state;
    sim_seeds(SIM_SEEDS_USUAL / 4, &first, &count);
    for (uint64_t seed = first; seed < first + count; seed++) {
        sim_begin(&s, seed);
        s.spool_read_error_at = (int)sim_below(&s.random, 30);
        run_with_errors(&s);
        for (unsigned i = 0; i < s.lane_count; i++) {
            struct sim_lane *l = &s.lanes[i];
            bool done = mirror_source_state(l->source) == MIRROR_SOURCE_DONE;

            failed += !done;
            if (done && memcmp(l->model, l->disk, SIM_DISK_BYTES) != 0)
                fail_msg("FERRY_SEED=%" PRIu64 ": called done, and differs", seed);
            if (!done && mirror_source_error(l->source)->code != -EIO)
                fail_msg("FERRY_SEED=%" PRIu64 ": failed with %d", seed,
                         mirror_source_error(l->source)->code);
        }
        sim_end(&s);
    }
    assert_true(count < 100 || failed > 0);
}

/* Everything is torn down in the middle, at any phase: for the leak and address sanitizers. */
static void teardown_at_any_phase(void **state)
{
    static struct sim s;

    (void)state;
    for (uint64_t seed = 1; seed <= SIM_SEEDS_USUAL / 4; seed++) {
        unsigned steps;

        sim_begin(&s, seed);
        steps = (unsigned)sim_below(&s.random, 300);
        for (unsigned i = 0; i < steps; i++)
            sim_step(&s);
        sim_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_end_equal),         cmocka_unit_test(a_disk_error_fails_the_move),
        cmocka_unit_test(a_changed_disk_is_found), cmocka_unit_test(a_spool_that_cannot_be_read),
        cmocka_unit_test(teardown_at_any_phase),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
