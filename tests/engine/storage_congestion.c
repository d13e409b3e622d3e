/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The congestion controller against a model: a bulk copy that runs at the speed it is given (with QEMU's
 * 16 requests of 1 MiB at most unacknowledged), a guest that writes at its own rate, a log with a budget,
 * a link with a rate and a round trip. Steps of 10 ms of simulated time.
 *
 * Wanted over links of 1 to 120 MB/s and 0 to 214 ms: the link is at least 90 % busy once started, the
 * speed does not swing by more than 2:1 in the steady state, the budget's guest share stays free, and it
 * follows when the link's rate changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage/congestion.h"

#define STEP_S 0.01
#define MIB (1024.0 * 1024.0)

enum { HISTORY = 512 };

struct model {
    double link_bytes_per_s, guest_bytes_per_s, source_disk_bytes_per_s;
    unsigned rtt_steps;
    double budget;
    /* state */
    double fill, unsent, applied;
    double delivered
        [HISTORY]; /* a ring: what left, to be applied and acknowledged a round trip later */
    unsigned at;
    double speed;
    double burst_at_s;    /* QEMU's next burst */
    double source_free_s; /* its disk has read the last one */
    uint64_t now_ns;
    /* measured */
    double bulk_in, sent, speed_least, speed_most, fill_most;
    uint64_t reports;
    enum congestion_reason reason;
};

static void model_step(struct model *m, struct congestion *c)
{
    struct congestion_output out;
    double now_s = (double)m->now_ns / 1e9, bulk = 0, room, sent;

    /* QEMU issues its 16 requests of 1 MiB at once and then pauses for as long as they should take. */
    while (m->burst_at_s <= now_s + STEP_S) {
        double speed = m->speed > 0 && m->speed < m->source_disk_bytes_per_s
                           ? m->speed
                           : m->source_disk_bytes_per_s;

        bulk += 16 * MIB;
        m->source_free_s = now_s + 16 * MIB / m->source_disk_bytes_per_s;
        m->burst_at_s = (m->burst_at_s > now_s ? m->burst_at_s : now_s) + 16 * MIB / speed;
    }
    room =
        m->budget * 3 / 4 + 16 * MIB - m->fill; /* beyond the mark, 16 requests wait unanswered */
    bulk = bulk > room ? (room > 0 ? room : 0) : bulk;
    m->fill += bulk + m->guest_bytes_per_s * STEP_S;
    m->unsent += bulk + m->guest_bytes_per_s * STEP_S;
    sent = m->link_bytes_per_s * STEP_S;
    sent = sent > m->unsent ? m->unsent : sent;
    m->unsent -= sent;
    m->delivered[m->at % HISTORY] = sent;
    m->at++;
    if (m->at > m->rtt_steps) {
        double acked = m->delivered[(m->at - 1 - m->rtt_steps) % HISTORY];

        m->fill -= acked;
        m->applied += acked;
    }
    m->now_ns += (uint64_t)(STEP_S * 1e9);
    congestion_update(c,
                      &(struct congestion_input){.now_ns = m->now_ns,
                                                 .fill_bytes = m->fill > 0 ? (uint64_t)m->fill : 0,
                                                 .budget_bytes = (uint64_t)m->budget,
                                                 .applied_bytes = (uint64_t)m->applied,
                                                 .bulk_running = true},
                      &out);
    if ((double)out.bulk_bytes_per_s > m->speed) /* a raise wakes the copy from its pause */
        m->burst_at_s = m->source_free_s;
    m->speed = (double)out.bulk_bytes_per_s;
    m->reports += out.changed;
    m->reason = out.reason;
    m->bulk_in += bulk;
    m->sent += sent;
    m->speed_least = m->speed < m->speed_least ? m->speed : m->speed_least;
    m->speed_most = m->speed > m->speed_most ? m->speed : m->speed_most;
    m->fill_most = m->fill > m->fill_most ? m->fill : m->fill_most;
}

static void model_run(struct model *m, struct congestion *c, double seconds)
{
    m->sent = m->bulk_in = m->speed_most = m->fill_most = 0;
    m->speed_least = 1e18;
    m->reports = 0;
    for (long step = 0; step < lround(seconds / STEP_S); step++)
        model_step(m, c);
}

static void model_init(struct model *m, struct congestion **c, double link_mb_s, unsigned rtt_ms)
{
    memset(m, 0, sizeof(*m));
    m->link_bytes_per_s = link_mb_s * 1e6;
    m->source_disk_bytes_per_s = 2e9;
    m->rtt_steps = rtt_ms / 10;
    m->budget = 256 * MIB;
    assert_int_equal(congestion_new(c), 0);
}

static void check_steady(const struct model *m, double seconds, const char *what)
{
    double busy = m->sent / (m->link_bytes_per_s * seconds);
    double swing = m->speed_most / m->speed_least;

    if (getenv("FERRY_VERBOSE"))
        print_message("%s: busy %.2f swing %.2f fill %.1f MiB, %lu reports\n", what, busy, swing,
                      m->fill_most / MIB, (unsigned long)m->reports);
    if (busy < 0.9 || swing > 2.0 || m->fill_most > m->budget * 0.75)
        fail_msg("%s: link %.0f %% busy, speed swings %.2f:1, fill up to %.1f MiB", what,
                 busy * 100, swing, m->fill_most / MIB);
}

static const double rates_mb_s[] = {1, 2, 5, 12, 30, 60, 120};
static const unsigned rtts_ms[] = {0, 20, 100, 214};

static void settles_on_every_link(void **state)
{
    struct congestion *c;
    struct model m;
    char what[64];

    (void)state;
    for (size_t r = 0; r < sizeof(rates_mb_s) / sizeof(rates_mb_s[0]); r++) {
        for (size_t d = 0; d < sizeof(rtts_ms) / sizeof(rtts_ms[0]); d++) {
            model_init(&m, &c, rates_mb_s[r], rtts_ms[d]);
            snprintf(what, sizeof(what), "%.1f MB/s, %u ms", rates_mb_s[r], rtts_ms[d]);
            /* a slow link takes long to drain what was let in before its rate was known */
            model_run(&m, c, 1.0 + 40e6 / m.link_bytes_per_s);
            model_run(&m, c, 15);
            model_run(&m, c, 30);
            check_steady(&m, 30, what);
            congestion_free(c);
        }
    }
}

static void the_link_is_busy_soon(void **state)
{
    struct congestion *c;
    struct model m;

    (void)state;
    model_init(&m, &c, 120, 100);
    model_run(&m, c, 2);
    model_run(&m, c, 5);
    if (m.sent < 0.9 * 5 * m.link_bytes_per_s)
        fail_msg("after 2 s the link was only %.0f %% busy",
                 m.sent / (5 * m.link_bytes_per_s) * 100);
    congestion_free(c);
}

static void follows_a_changing_link(void **state)
{
    static const double rates[] = {120, 10, 60, 5, 120};
    struct congestion *c;
    struct model m;

    (void)state;
    model_init(&m, &c, 120, 100);
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        m.link_bytes_per_s = rates[i] * 1e6;
        model_run(&m, c, 40);
        assert_true(m.fill_most < m.budget * 0.75); /* what the fast link left over drains first */
        model_run(&m, c, 20);
        check_steady(&m, 20, "changed");
    }
    congestion_free(c);
}

static void leaves_room_for_a_guest(void **state)
{
    struct congestion *c;
    struct model m;

    (void)state;
    model_init(&m, &c, 60, 100);
    m.guest_bytes_per_s = 30e6;
    model_run(&m, c, 20);
    model_run(&m, c, 20);
    assert_true(m.sent >= 0.9 * 20 * m.link_bytes_per_s);
    assert_true(m.bulk_in >= 0.8 * 20 * 30e6); /* and the copy has the rest */
    assert_true(m.fill_most < m.budget / 2);
    assert_int_equal(m.reason, CONGESTION_LINK);
    congestion_free(c);
}

/* The guest alone exceeds the link: the copy keeps its floor, nothing blows up. */
static void never_stops_the_copy(void **state)
{
    struct congestion *c;
    struct model m;

    (void)state;
    model_init(&m, &c, 10, 100);
    m.guest_bytes_per_s = 9.5e6;
    model_run(&m, c, 120);
    assert_true(m.speed >= 256 * 1024);
    assert_true(m.bulk_in > 0);
    congestion_free(c);
}

/* A copy that its own disk holds back must not collect a huge speed meanwhile. */
static void does_not_wind_up(void **state)
{
    struct congestion *c;
    struct model m;

    (void)state;
    model_init(&m, &c, 50, 100);
    m.source_disk_bytes_per_s = 10e6;
    model_run(&m, c, 60);
    assert_int_equal(m.reason, CONGESTION_NONE);
    assert_true(m.speed_most <= 256 * MIB);
    m.source_disk_bytes_per_s = 2e9;
    model_run(&m, c, 10);
    assert_true(m.fill_most < m.budget / 2);
    congestion_free(c);
}

/* Holes cost neither link nor log: the limit grows until they are over, and what comes behind them finds it as it was. */
static void holes_are_passed_quickly(void **state)
{
    struct congestion_input in = {.now_ns = 1, .budget_bytes = 256 << 20, .bulk_running = true};
    struct congestion_output out;
    struct congestion *c;

    (void)state;
    assert_int_equal(congestion_new(&c), 0);
    for (int i = 0; i < 30; i++, in.now_ns += 100000000, in.hole_bytes += 16 << 20)
        congestion_update(c, &in, &out);
    assert_in_range(out.bulk_bytes_per_s, 400 << 20, 512 << 20);
    for (int i = 0; i < 10; i++, in.now_ns += 100000000, in.data_bytes += 4 << 20)
        congestion_update(c, &in, &out);
    assert_true(out.bulk_bytes_per_s <= 256 << 20);
    congestion_free(c);
}

static void tells_the_reason(void **state)
{
    struct congestion *c;
    struct congestion_output out;
    struct congestion_input in = {.now_ns = 1, .budget_bytes = 256 << 20, .bulk_running = true};

    (void)state;
    assert_int_equal(congestion_new(&c), 0);
    congestion_update(c, &in, &out);
    assert_int_equal(out.reason, CONGESTION_NONE);
    assert_true(out.changed); /* the first speed is to be set */
    in.now_ns += 1000;
    congestion_update(c, &in, &out);
    assert_false(out.changed); /* too early */
    for (int i = 0; i < 30; i++) {
        in.now_ns += 100000000;
        in.applied_bytes += 500000;
        in.fill_bytes = 60 << 20;
        in.target_queue_bytes = 50 << 20;
        congestion_update(c, &in, &out);
    }
    assert_int_equal(out.reason, CONGESTION_TARGET_DISK);
    in.now_ns += 100000000;
    in.target_queue_bytes = 0;
    in.limit_bytes_per_s = 5000000;
    in.applied_bytes += 500000;
    congestion_update(c, &in, &out);
    assert_int_equal(out.reason, CONGESTION_LIMIT);
    in.now_ns += 100000000;
    in.limit_bytes_per_s = 0;
    congestion_update(c, &in, &out);
    assert_int_equal(out.reason, CONGESTION_LINK);
    assert_string_equal(congestion_reason_name(out.reason), "link");
    congestion_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settles_on_every_link),    cmocka_unit_test(the_link_is_busy_soon),
        cmocka_unit_test(follows_a_changing_link),  cmocka_unit_test(leaves_room_for_a_guest),
        cmocka_unit_test(never_stops_the_copy),     cmocka_unit_test(does_not_wind_up),
        cmocka_unit_test(holes_are_passed_quickly), cmocka_unit_test(tells_the_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
