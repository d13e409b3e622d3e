/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest held back: a real mirror log, its budget, the pacer and both control laws, around a model of the
 * rest: a guest that wants to write at a rate with so many writes open, a bulk copy at the speed it is told
 * (16 requests of 256 KiB at most unacknowledged), a link with a rate and a round trip, a target disk with
 * a rate. Steps of 1 ms of simulated time; everything is drawn from a seed (FERRY_SEED=N runs just that one).
 *
 * Wanted: what link and disk sustain is used, the guest gets its share of it without swinging, no write of
 * its waits long, the log keeps to its budget, the right culprit is named; a guest that wants less is not
 * touched; and before the switchover the log is drained while the guest goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "core/base/random.h"
#include "storage/congestion.h"
#include "storage/guest_pace.h"
#include "storage/mirror_log.h"

#define MIB (UINT64_C(1) << 20)
#define STEP_NS UINT64_C(1000000)

enum {
    BULK_BYTES = 256 * 1024,
    BULK_OPEN = 8,
    DISK_BYTES_MIB = 4096,
    FLIGHTS = 1 << 14, /* steps of pulled bytes under way at a time */
    WINDOW_STEPS = 2000,
};

struct flight { /* everything pulled up to a step */
    uint64_t sent_bytes, seq, at_ns;
};

struct world {
    uint64_t random, now_ns;
    /* drawn */
    double link, disk, demand; /* bytes/s */
    uint64_t rtt_ns;
    uint32_t write_bytes;
    unsigned depth;
    /* parts */
    struct mirror_budget *budget;
    struct mirror_log *log;
    struct ack_pacer pacer;
    struct congestion *congestion;
    struct congestion_output out;
    /* state */
    unsigned guest_open, bulk_open;
    double guest_tokens, bulk_tokens, link_tokens;
    uint64_t bulk_at;
    bool copying, draining;
    struct flight flights[FLIGHTS];
    uint64_t first_flight, last_flight;
    double target_applied; /* stream bytes, fractional */
    uint64_t acks_at_ns;   /* APPLIED on its way back: so far applied at the source */
    struct flight back[FLIGHTS];
    uint64_t first_back, last_back;
    /* measured in this span */
    uint64_t guest_acked_bytes, window_acked_bytes, window_step;
    double window_least, window_most;
    uint64_t reasons[CONGESTION_REASONS];
};

static uint64_t below(struct world *w, uint64_t n)
{
    return splitmix64_next(&w->random) % n;
}

static double between(struct world *w, double least, double most)
{
    return least + (most - least) * (double)below(w, 1000001) / 1e6;
}

/* --- clients -------------------------------------------------------------------------------- */

static void acknowledged(struct world *w, bool bulk)
{
    if (bulk) {
        w->bulk_open--;
        return;
    }
    w->guest_open--;
    w->guest_acked_bytes += w->write_bytes;
    w->window_acked_bytes += w->write_bytes;
}

static void on_release(void *owner, uint64_t cookie, bool bulk, uint64_t waited_ns, uint64_t now_ns)
{
    (void)cookie;
    (void)waited_ns;
    (void)now_ns;
    acknowledged(owner, bulk);
}

static void on_room(void *owner, uint64_t now_ns)
{
    (void)owner; /* it asks again in its next step */
    (void)now_ns;
}

static bool submit(struct world *w, uint64_t offset, uint32_t length)
{
    struct mirror_log_request r = {.kind = MIRROR_LOG_WRITE, .offset = offset, .length = length};
    enum mirror_log_answer answer;

    if (!mirror_log_admit(w->log, length))
        return false;
    r.payload = malloc(length);
    assert_non_null(r.payload);
    memset(r.payload, 1, length);
    assert_int_equal(mirror_log_append(w->log, &r, w->now_ns, &answer), 0);
    if (answer == MIRROR_LOG_ACKNOWLEDGE)
        acknowledged(w, mirror_log_last_was_bulk(w->log));
    return true;
}

static void guest_step(struct world *w)
{
    uint64_t blocks = DISK_BYTES_MIB * MIB / w->write_bytes - 1;

    w->guest_tokens = MIN(w->guest_tokens + w->demand * 1e-3, w->demand);
    while (w->guest_tokens >= w->write_bytes && w->guest_open < w->depth) {
        /* never twice the same soon, not aligned like the copy's: nothing coalesces, nothing is guessed wrong */
        uint64_t offset = below(w, blocks) * w->write_bytes + 512;

        w->guest_open++;
        if (!submit(w, offset, w->write_bytes)) {
            w->guest_open--;
            return;
        }
        w->guest_tokens -= w->write_bytes;
    }
}

static void bulk_step(struct world *w)
{
    if (!w->copying)
        return;
    w->bulk_tokens = MIN(w->bulk_tokens + (double)w->out.bulk_bytes_per_s * 1e-3, 16.0 * MIB);
    while (w->bulk_tokens >= BULK_BYTES && w->bulk_open < BULK_OPEN) {
        w->bulk_open++;
        if (!submit(w, w->bulk_at, BULK_BYTES)) {
            w->bulk_open--;
            return;
        }
        w->bulk_at = (w->bulk_at + BULK_BYTES) % (DISK_BYTES_MIB * MIB);
        w->bulk_tokens -= BULK_BYTES;
    }
}

/* --- the way to the target ------------------------------------------------------------------- */

static void link_step(struct world *w, struct buffer *scratch)
{
    struct mirror_log_stats stats;
    struct flight *f = &w->flights[w->last_flight % FLIGHTS];

    /* As the session's window and the target's queue. */
    uint64_t window = (uint64_t)(w->link * ((double)w->rtt_ns / 1e9 + 0.1)) + 8 * MIB;

    mirror_log_stats(w->log, &stats);
    w->link_tokens = MIN(w->link_tokens + w->link * 1e-3, w->link * 5e-3 + 1);
    if ((double)stats.sent_bytes - w->target_applied > (double)window || w->link_tokens < 1 ||
        w->last_flight - w->first_flight >= FLIGHTS - 1)
        return;
    buffer_clear(scratch);
    if (mirror_log_pull(w->log, scratch, (size_t)w->link_tokens) == 0)
        return;
    w->link_tokens -= (double)buffer_len(scratch);
    mirror_log_stats(w->log, &stats);
    *f = (struct flight){.sent_bytes = stats.sent_bytes,
                         .seq = stats.sent_entries,
                         .at_ns = w->now_ns + w->rtt_ns / 2};
    w->last_flight++;
}

static void target_step(struct world *w)
{
    uint64_t arrived = 0, seq = 0;

    for (uint64_t i = w->first_flight; i < w->last_flight; i++) {
        if (w->flights[i % FLIGHTS].at_ns > w->now_ns)
            break;
        arrived = w->flights[i % FLIGHTS].sent_bytes;
    }
    if (arrived > 0)
        w->target_applied = MIN(w->target_applied + w->disk * 1e-3, (double)arrived);
    while (w->first_flight < w->last_flight &&
           (double)w->flights[w->first_flight % FLIGHTS].sent_bytes <= w->target_applied) {
        seq = w->flights[w->first_flight % FLIGHTS].seq;
        w->first_flight++;
    }
    if (seq > 0) {
        w->back[w->last_back++ % FLIGHTS] =
            (struct flight){.seq = seq, .at_ns = w->now_ns + w->rtt_ns / 2};
        assert_true(w->last_back - w->first_back < FLIGHTS);
    }
    while (w->first_back < w->last_back && w->back[w->first_back % FLIGHTS].at_ns <= w->now_ns)
        assert_int_equal(
            mirror_log_applied(w->log, w->back[w->first_back++ % FLIGHTS].seq, w->now_ns), 0);
}

static uint64_t queued_at_target(const struct world *w)
{
    uint64_t arrived = 0;

    for (uint64_t i = w->first_flight; i < w->last_flight; i++) {
        if (w->flights[i % FLIGHTS].at_ns > w->now_ns)
            break;
        arrived = w->flights[i % FLIGHTS].sent_bytes;
    }
    return (double)arrived > w->target_applied ? (uint64_t)((double)arrived - w->target_applied)
                                               : 0;
}

static void control_step(struct world *w)
{
    struct mirror_log_stats s;

    mirror_log_stats(w->log, &s);
    congestion_update(w->congestion,
                      &(struct congestion_input){
                          .now_ns = w->now_ns,
                          .fill_bytes = s.fill_bytes,
                          .budget_bytes = mirror_budget_plan_bytes(w->budget, 1),
                          .applied_bytes = s.applied_bytes,
                          .target_queue_bytes = queued_at_target(w),
                          .bulk_running = w->copying,
                          .unsent_bytes = s.unsent_bytes,
                          .rtt_ns = w->rtt_ns,
                          .held_count = s.held_count,
                          .held_now = s.held_guest_now,
                          .draining = w->draining,
                      },
                      &w->out);
    ack_pacer_set(&w->pacer, w->out.guest_bytes_per_s, w->now_ns);
    w->reasons[w->out.reason]++;
}

static void close_window(struct world *w)
{
    double rate = (double)w->window_acked_bytes * 1e9 / ((double)WINDOW_STEPS * STEP_NS);

    w->window_least = MIN(w->window_least, rate);
    w->window_most = MAX(w->window_most, rate);
    w->window_acked_bytes = 0;
}

static void run(struct world *w, double seconds)
{
    struct buffer scratch = {0};
    uint64_t steps = (uint64_t)(seconds * 1000);

    w->guest_acked_bytes = w->window_acked_bytes = 0;
    w->window_least = 1e18;
    w->window_most = 0;
    memset(w->reasons, 0, sizeof(w->reasons));
    for (uint64_t i = 1; i <= steps; i++) {
        w->now_ns += STEP_NS;
        guest_step(w);
        bulk_step(w);
        link_step(w, &scratch);
        target_step(w);
        mirror_log_tick(w->log, w->now_ns);
        if (i % 100 == 0)
            control_step(w);
        if (i % WINDOW_STEPS == 0)
            close_window(w);
    }
    buffer_done(&scratch);
}

/* --- worlds ---------------------------------------------------------------------------------- */

static const struct mirror_log_ops log_ops = {.release = on_release, .room = on_room};

static struct world *world_new(uint64_t seed, double demand_least, double demand_most)
{
    struct world *w = calloc(1, sizeof(*w));
    double sustained;

    assert_non_null(w);
    w->random = seed;
    w->now_ns = 1000000000;
    w->link = between(w, 2e6, 16e6);
    /* one of the two is the narrower by much */
    w->disk = below(w, 2) ? w->link * between(w, 2, 4) : w->link / between(w, 1.5, 3);
    sustained = MIN(w->link, w->disk);
    w->demand = sustained * between(w, demand_least, demand_most);
    w->rtt_ns = below(w, 215) * 1000000;
    w->write_bytes = 4096u << below(w, 5); /* up to 64 KiB */
    w->depth = 1 + (unsigned)below(w, 16);
    assert_int_equal(mirror_budget_new(&w->budget, (32 + below(w, 65)) * MIB), 0);
    assert_int_equal(mirror_log_new(&w->log, w->budget, &w->pacer, NULL, &log_ops, w), 0);
    assert_int_equal(congestion_new(&w->congestion), 0);
    w->copying = true;
    return w;
}

static void world_free(struct world *w)
{
    mirror_log_free(w->log);
    mirror_budget_free(w->budget);
    congestion_free(w->congestion);
    free(w);
}

static void describe(const struct world *w, uint64_t seed, const char *what)
{
    double sustained = MIN(w->link, w->disk);

    if (getenv("FERRY_VERBOSE"))
        print_message(
            "seed %lu %s: link %.1f disk %.1f demand %.1f MB/s, rtt %lu ms, %u x %u: guest %.2f "
            "to %.2f of what is sustained, pace %.2f\n",
            (unsigned long)seed, what, w->link / 1e6, w->disk / 1e6, w->demand / 1e6,
            (unsigned long)(w->rtt_ns / 1000000), w->depth, w->write_bytes,
            w->window_least / sustained, w->window_most / sustained,
            (double)w->out.guest_bytes_per_s / sustained);
}

static void check_overloaded(const struct world *w, uint64_t seed, const char *what,
                             double guest_least, double span_s)
{
    struct mirror_log_stats s;
    double sustained = MIN(w->link, w->disk);
    double guest = (double)w->guest_acked_bytes / span_s;

    mirror_log_stats(w->log, &s);
    describe(w, seed, what);
    if (guest < guest_least * sustained || guest > 1.02 * sustained)
        fail_msg("FERRY_SEED=%lu %s: the guest got %.2f of what is sustained", (unsigned long)seed,
                 what, guest / sustained);
    if (w->window_most > 2 * w->window_least)
        fail_msg("FERRY_SEED=%lu %s: the guest's rate swings between %.0f and %.0f bytes/s",
                 (unsigned long)seed, what, w->window_least, w->window_most);
    if (mirror_budget_peak_bytes(w->budget) > mirror_budget_limit_bytes(w->budget))
        fail_msg("FERRY_SEED=%lu %s: the log held more than its budget", (unsigned long)seed, what);
    if (s.held_count == 0 || s.held_max_ns > UINT64_C(5000000000))
        fail_msg("FERRY_SEED=%lu %s: %lu writes held, one for %lu ms", (unsigned long)seed, what,
                 (unsigned long)s.held_count, (unsigned long)(s.held_max_ns / 1000000));
}

static void seeds(uint64_t usual, uint64_t *ret_first, uint64_t *ret_last)
{
    const char *one = getenv("FERRY_SEED"), *many = getenv("FERRY_SEEDS");

    *ret_first = one ? strtoull(one, NULL, 0) : 1;
    *ret_last = one ? *ret_first : many ? strtoull(many, NULL, 0) : usual;
}

static uint64_t applied(const struct world *w)
{
    struct mirror_log_stats s;

    mirror_log_stats(w->log, &s);
    return s.applied_bytes;
}

static void a_guest_that_writes_too_fast(void **state)
{
    uint64_t first, last;

    (void)state;
    seeds(16, &first, &last);
    for (uint64_t seed = first; seed <= last; seed++) {
        struct world *w = world_new(seed, 1.5, 6);
        double sustained = MIN(w->link, w->disk),
               limit = (double)mirror_budget_limit_bytes(w->budget);
        enum congestion_reason culprit =
            w->disk < w->link ? CONGESTION_TARGET_DISK : CONGESTION_LINK;
        struct mirror_log_stats s;
        uint64_t before;

        run(w, 5 + 3 * limit / sustained); /* until the log is full, and then settled */
        before = applied(w);
        run(w, 30);
        check_overloaded(w, seed, "copying", 0.6, 30);
        if ((double)(applied(w) - before) < 0.9 * 30 * sustained)
            fail_msg("FERRY_SEED=%lu: only %.2f of what is sustained was used", (unsigned long)seed,
                     (double)(applied(w) - before) / 30 / sustained);
        if (w->reasons[culprit] < 250)
            fail_msg("FERRY_SEED=%lu: blamed the %s %lu times of 300", (unsigned long)seed,
                     congestion_reason_name(culprit), (unsigned long)w->reasons[culprit]);
        /* all copied: what is left drains before the switchover, and the guest goes on */
        w->copying = false;
        mirror_log_set_ready(w->log, true);
        w->draining = true;
        run(w, 10 + 2.5 * limit / sustained);
        run(w, 20);
        check_overloaded(w, seed, "draining", 0.45, 20);
        mirror_log_stats(w->log, &s);
        if ((double)s.fill_bytes > MAX(sustained * (2 * (double)w->rtt_ns / 1e9 + 0.4), 4.5e6))
            fail_msg("FERRY_SEED=%lu: %.1f MB are left before the switchover", (unsigned long)seed,
                     (double)s.fill_bytes / 1e6);
        world_free(w);
    }
}

static void a_guest_that_writes_little(void **state)
{
    uint64_t first, last;

    (void)state;
    seeds(8, &first, &last);
    for (uint64_t seed = first; seed <= last; seed++) {
        struct world *w = world_new(seed, 0.05, 0.5);
        struct mirror_log_stats s;

        run(w, 60);
        mirror_log_stats(w->log, &s);
        describe(w, seed, "little");
        if (w->out.guest_bytes_per_s != 0 || (double)w->guest_acked_bytes < 0.95 * 60 * w->demand)
            fail_msg("FERRY_SEED=%lu: the guest wants little and was slowed", (unsigned long)seed);
        world_free(w);
    }
}

/* The guest stops writing so much: it is let go, and nothing is held any more. */
static void a_guest_that_calms_down(void **state)
{
    struct world *w = world_new(3, 4, 5);
    struct mirror_log_stats before, after;
    double limit = (double)mirror_budget_limit_bytes(w->budget), sustained = MIN(w->link, w->disk);

    (void)state;
    run(w, 5 + 3 * limit / sustained);
    assert_true(w->out.guest_bytes_per_s > 0);
    w->demand = sustained / 4;
    run(w, 5 + 2 * limit / sustained);
    assert_int_equal(w->out.guest_bytes_per_s, 0);
    mirror_log_stats(w->log, &before);
    run(w, 10);
    mirror_log_stats(w->log, &after);
    assert_true(after.held_count == before.held_count);
    world_free(w);
}

/* The link is cut: writes wait, the longest is known by its time, and a mended link lets them go. */
static void a_cut_shows_as_a_stall(void **state)
{
    struct world *w = world_new(5, 3, 4);
    struct mirror_log_stats s;
    double limit = (double)mirror_budget_limit_bytes(w->budget), link = w->link;

    (void)state;
    run(w, 5 + 2 * limit / MIN(w->link, w->disk));
    w->link = 0;
    run(w, 60);
    mirror_log_stats(w->log, &s);
    assert_true(s.held_guest_now > 0);
    assert_true(w->now_ns - s.held_since_ns > UINT64_C(10000000000));
    assert_true(mirror_budget_peak_bytes(w->budget) <= mirror_budget_limit_bytes(w->budget));
    w->link = link;
    run(w, 20);
    mirror_log_stats(w->log, &s);
    assert_true(w->guest_acked_bytes > 0);
    assert_true(s.held_since_ns == 0 || w->now_ns - s.held_since_ns < UINT64_C(5000000000));
    world_free(w);
}

/* Before the switchover: on a full link the guest leaves half to the log and the memory; at a slow disk only what drains
 * the log in half a minute. */
static void what_drains_the_log(void **state)
{
    struct guest_pace p = {0};
    struct guest_pace_input in = {
        .dt_s = 0.1,
        .applied_bytes_per_s = 5e6,
        .fill_bytes = 200 * MIB,
        .unsent_bytes = 100 * MIB,
        .budget_bytes = 256 * MIB,
        .rtt_ns = UINT64_C(100000000),
        .draining = true,
    };

    (void)state;
    assert_in_range(guest_pace_update(&p, &in), 2499000, 2501000);
    in.disk_bound = true;
    assert_in_range(guest_pace_update(&p, &in), 2499000, 2501000); /* too much for half a minute */
    in.fill_bytes = 49 * MIB;
    assert_in_range(guest_pace_update(&p, &in), 3300000, 3600000);
    in.fill_bytes = 8 * MIB;
    assert_in_range(guest_pace_update(&p, &in), 4499000, 4501000);
    in.disk_bound = false;
    assert_in_range(guest_pace_update(&p, &in), 2499000, 2501000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_drains_the_log),
        cmocka_unit_test(a_guest_that_writes_too_fast),
        cmocka_unit_test(a_guest_that_writes_little),
        cmocka_unit_test(a_guest_that_calms_down),
        cmocka_unit_test(a_cut_shows_as_a_stall),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
