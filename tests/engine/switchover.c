/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit protocol under every interleaving, to a depth, and under seeded chaos beyond it.
 *
 * The world and its laws are in switchover/. A search visits every world that can be reached with
 * a budget of faults; that is its depth: so many crashes, losses, reboots, deaths of a copy, doubled
 * words, operator's words, in any order and at any moment between any two steps of either side. Delay
 * and overtaking of words cost nothing. The budgets are listed below.
 *
 * The invariants, in every world: never two running copies; never a running copy that lacks what the
 * guest was told is durable; never a state without a complete copy; recovery run twice is recovery run
 * once. In every quiet end: exactly one copy runs (none, if the VM itself was ended), both journals are
 * closed and agree, or the move is in doubt and waits for the operator.
 *
 * The same searches over a protocol with a bug planted must find it, or they prove nothing.
 *
 * FERRY_HISTORIES=N plays N seeded histories instead of 100,000 and searches deeper, too (tools/test
 * --all: a million); FERRY_SEED=S plays that one and says what happens in it.
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
#include "tests/engine/switchover/world.h"

/* Faults are over: everything must settle. */
static const char *settle(struct world *w)
{
    memset(&w->budget, 0, sizeof(w->budget));
    for (unsigned calm = 0; calm < 200; calm++) {
        struct world before = *w;

        for (int h = 0; h < FIRST_FAULT; h++) {
            happen(w, (enum happening)h);
            if (fault_of(w))
                return fault_of(w);
        }
        if (memcmp(&before, w, sizeof(before)) == 0)
            break;
    }
    return quiet_fault_of(w);
}

/* What is done again and again while somebody waits: no progress by itself. */
static bool is_repetition(enum happening h)
{
    return h == H_SOURCE_REPEATS || h == H_TARGET_ASKS || h == H_TARGET_SILENT ||
           h == H_LATE_WORDS_LOST || (h >= H_SOURCE_ASKS_WITNESS && h <= H_SOURCE_LOSES_PATIENCE);
}

/* --- exhaustive ---------------------------------------------------------------------------- */

enum { PATH_MAX_STEPS = 512, WORLDS_MAX = 1 << 24 };

/* Worlds already explored, by a 128-bit hash in an open table. */
struct seen {
    uint64_t (*slots)[2];
    size_t size, used;
};

static void hash_world(const struct world *w, uint64_t ret[2])
{
    const unsigned char *p = (const unsigned char *)w;
    uint64_t a = 0xcbf29ce484222325u, b = 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < sizeof(*w); i++) {
        a = (a ^ p[i]) * 0x100000001b3u;
        b = (b + p[i]) * 0xbf58476d1ce4e5b9u;
        b ^= b >> 29;
    }
    ret[0] = a | 1; /* 0 marks a free slot */
    ret[1] = b;
}

static int seen_before(struct seen *s, const struct world *w)
{
    uint64_t h[2];
    size_t i;

    hash_world(w, h);
    for (i = h[1] % s->size; s->slots[i][0]; i = (i + 1) % s->size) {
        if (s->slots[i][0] == h[0] && s->slots[i][1] == h[1])
            return 1;
    }
    assert_true(++s->used < s->size / 4 * 3);
    memcpy(s->slots[i], h, sizeof(h));
    return 0;
}

struct search {
    struct seen seen;
    unsigned long worlds;
    const char *fault;
    enum happening path[PATH_MAX_STEPS];
    unsigned depth, deepest;
};

static void explore(struct search *s, const struct world *w)
{
    int moved = 0;

    if (s->fault || seen_before(&s->seen, w))
        return;
    s->worlds++;
    s->fault = fault_of(w);
    if (!s->fault)
        s->fault = recovery_fault_of(w);
    for (int h = 0; h < HAPPENINGS && !s->fault; h++) {
        struct world next = *w;

        /* What changes nothing (an answer repeated) is no progress. */
        if (!happen(&next, (enum happening)h) || memcmp(&next, w, sizeof(next)) == 0)
            continue;
        /* Faults are free not to happen. */
        moved |= h < FIRST_FAULT && !is_repetition((enum happening)h);
        assert_true(s->depth < PATH_MAX_STEPS);
        s->path[s->depth++] = (enum happening)h;
        s->deepest = MAX(s->deepest, s->depth);
        explore(s, &next);
        if (!s->fault)
            s->depth--;
    }
    if (!moved && !s->fault) { /* an end, or one repetition from going on */
        struct world end = *w;

        s->fault = settle(&end);
    }
}

static void search(struct search *s, struct budget budget, unsigned reach, enum bug bug)
{
    struct world w = new_world(budget, reach, bug);

    memset(s, 0, sizeof(*s));
    s->seen.size = WORLDS_MAX;
    s->seen.slots = calloc(s->seen.size, sizeof(*s->seen.slots));
    assert_non_null(s->seen.slots);
    explore(s, &w);
    free(s->seen.slots);
}

static void print_path(const struct search *s)
{
    fprintf(stderr, "%s, after:", s->fault);
    for (unsigned i = 0; i < s->depth; i++)
        fprintf(stderr, "%s %s", i ? "," : "", happening_name(s->path[i]));
    fprintf(stderr, "\n");
}

/* How far the exhaustive search goes. */
static const struct budget depths[] = {
    {0},
    {.crashes = 1},
    {.losses = 1, .cancels = 1},
    {.crashes = 1, .losses = 1, .doubles = 1},
    {.crashes = 2, .cancels = 1},
    {.losses = 2, .reboots = 1},
    {.crashes = 1, .reboots = 1},
    {.crashes = 1, .deaths = 1},
    {.crashes = 1, .resolves = 1},
    {.crashes = 1, .deaths = 1, .reboots = 1},
    {.crashes = 2, .losses = 1},
    {.crashes = 2, .resolves = 1, .losses = 1},
};

/* And how far where there is time for it. */
static const struct budget greater_depths[] = {
    {.crashes = 2, .losses = 2, .cancels = 1, .doubles = 1},
    {.crashes = 2, .losses = 1, .resolves = 1, .deaths = 1},
    {.crashes = 2, .reboots = 1, .resolves = 1},
    {.crashes = 1, .losses = 1, .reboots = 1, .deaths = 1},
    {.crashes = 3, .losses = 1},
    {.crashes = 1, .losses = 1, .resolves = 2, .reboots = 1},
};

/* Of a VM that starts with its host. */
static const struct budget restart_depths[] = {
    {.reboots = 1},
    {.crashes = 1, .reboots = 1},
    {.crashes = 1, .reboots = 1, .resolves = 1},
    {.losses = 1, .cancels = 1, .reboots = 2},
};

/* Of a drill. */
static const struct budget drill_depths[] = {
    {0},
    {.crashes = 1, .losses = 1, .cancels = 1, .doubles = 1},
    {.crashes = 2, .losses = 1},
    {.crashes = 1, .reboots = 1, .deaths = 1},
    {.crashes = 1, .losses = 1, .resolves = 1, .deaths = 1},
};

/* Of a move that switches to post-copy. */
static const struct budget postcopy_depths[] = {
    {0},
    {.crashes = 1},
    {.losses = 1, .cancels = 1},
    {.crashes = 1, .losses = 1, .doubles = 1},
    {.crashes = 1, .cancels = 1, .losses = 1},
    {.losses = 2, .reboots = 1},
    {.crashes = 1, .deaths = 1},
    {.crashes = 1, .reboots = 1},
    {.crashes = 1, .resolves = 1, .losses = 1},
    {.crashes = 2, .losses = 1},
};

static const struct budget greater_postcopy_depths[] = {
    {.crashes = 2, .losses = 2, .cancels = 1},
    {.crashes = 1, .losses = 1, .reboots = 1, .deaths = 1},
    {.crashes = 2, .losses = 1, .resolves = 1, .deaths = 1},
    {.crashes = 3, .losses = 1},
};

/* With a witness: from both sides, from one, from none; the sites parted, or not. */
static const unsigned reaches[] = {
    WITNESS_BY_BOTH | SITES_PARTED,
    WITNESS_AGREED | WITNESS_BY_TARGET | SITES_PARTED,
    WITNESS_AGREED | WITNESS_BY_SOURCE | SITES_PARTED,
    WITNESS_AGREED | SITES_PARTED,
    WITNESS_BY_BOTH,
    WITNESS_AGREED | WITNESS_BY_TARGET,
};

static const struct budget witness_depths[] = {
    {.losses = 1},
    {.crashes = 1},
};

static const struct budget greater_witness_depths[] = {
    {.losses = 2},
    {.crashes = 1, .losses = 1, .resolves = 1},
    {.losses = 2, .reboots = 1},
    {.crashes = 1, .losses = 1, .deaths = 1},
    {.crashes = 2, .losses = 1},
    {.crashes = 2, .losses = 1, .resolves = 1},
    {.crashes = 1, .losses = 1, .reboots = 1, .resolves = 1},
};

static void search_all(const struct budget *budgets, size_t count, unsigned reach)
{
    for (size_t i = 0; i < count; i++) {
        const struct budget *b = &budgets[i];
        static struct search s;

        search(&s, *b, reach, BUG_NONE);
        if (reach & VM_AUTOSTARTS)
            printf("autostart, ");
        if (reach & IS_DRILL)
            printf("drill, ");
        if (reach & IS_POSTCOPY)
            printf("post-copy, ");
        if (reach & WITNESS_AGREED)
            printf("witness%s%s%s, ", reach & WITNESS_BY_SOURCE ? " by source" : "",
                   reach & WITNESS_BY_TARGET ? " by target" : "",
                   reach & SITES_PARTED ? ", sites parted" : "");
        printf("crashes %u, losses %u, cancels %u, resolves %u, reboots %u, deaths %u, doubles %u: "
               "%lu worlds, longest way %u steps\n",
               b->crashes, b->losses, b->cancels, b->resolves, b->reboots, b->deaths, b->doubles,
               s.worlds, s.deepest);
        if (s.fault)
            print_path(&s);
        assert_null(s.fault);
    }
}

static void test_all_interleavings(void **state)
{
    (void)state;
    search_all(depths, ARRAY_SIZE(depths), 0);
    search_all(restart_depths, ARRAY_SIZE(restart_depths), VM_AUTOSTARTS);
    if (getenv("FERRY_HISTORIES"))
        search_all(greater_depths, ARRAY_SIZE(greater_depths), 0);
}

static void test_all_interleavings_of_a_drill(void **state)
{
    (void)state;
    search_all(drill_depths, ARRAY_SIZE(drill_depths), IS_DRILL);
    search_all(restart_depths, ARRAY_SIZE(restart_depths), IS_DRILL | VM_AUTOSTARTS);
}

static void test_all_interleavings_of_post_copy(void **state)
{
    (void)state;
    search_all(postcopy_depths, ARRAY_SIZE(postcopy_depths), IS_POSTCOPY);
    search_all(witness_depths, ARRAY_SIZE(witness_depths), IS_POSTCOPY | WITNESS_BY_BOTH);
    if (getenv("FERRY_HISTORIES"))
        search_all(greater_postcopy_depths, ARRAY_SIZE(greater_postcopy_depths), IS_POSTCOPY);
}

static void test_all_interleavings_with_a_witness(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(reaches); i++) {
        search_all(witness_depths, ARRAY_SIZE(witness_depths), reaches[i]);
        if (getenv(
                "FERRY_HISTORIES")) /* where words go on and on, worlds are too many for the rest */
            search_all(greater_witness_depths,
                       reaches[i] & SITES_PARTED ? ARRAY_SIZE(greater_witness_depths) : 2,
                       reaches[i]);
    }
}

/* What it takes to meet each bug, at most. */
static void test_planted_bugs_are_found(void **state)
{
    static const struct {
        enum bug bug;
        struct budget budget;
        unsigned reach;
    } cases[] = {
        {BUG_COMMIT_BEFORE_READ, {.losses = 1}, 0},
        {BUG_COMMIT_BEFORE_DURABLE, {.crashes = 1}, 0},
        {BUG_PREPARED_BEFORE_DURABLE, {.crashes = 1}, 0},
        {BUG_CLEAN_BEFORE_DURABLE, {.crashes = 2, .resolves = 1}, 0},
        {BUG_OFF_IS_GONE, {.crashes = 1, .reboots = 1}, 0},
        {BUG_SUSPENDED_IS_PAUSED, {.crashes = 1, .deaths = 1}, 0},
        {BUG_AUTOSTART, {.reboots = 1}, 0},
        {BUG_DEAF_TO_RESUMED, {.crashes = 1, .reboots = 1, .resolves = 1}, 0},
        {BUG_SILENCE_RESTARTS, {.reboots = 1, .resolves = 1}, VM_AUTOSTARTS},
        {BUG_CLONE_EARLY, {0}, IS_DRILL},
        {BUG_DRILL_IS_MOVE, {0}, IS_DRILL},
        {BUG_GIVEN_BEFORE_READ, {.crashes = 1}, WITNESS_BY_BOTH | SITES_PARTED},
        {BUG_HELD_UNHEARD, {.losses = 2}, WITNESS_BY_BOTH | SITES_PARTED},
        {BUG_HELD_IS_CLAIMED, {.losses = 2}, WITNESS_BY_BOTH | SITES_PARTED},
        {BUG_GIVEN_IS_CLAIMED,
         {.crashes = 1, .losses = 1, .resolves = 1},
         WITNESS_BY_BOTH | SITES_PARTED},
        {BUG_RUNS_UNDECIDED, {.losses = 1}, IS_POSTCOPY},
        {BUG_FEED_BEFORE_DURABLE, {.crashes = 1}, IS_POSTCOPY},
        {BUG_PULL_BEFORE_DURABLE, {.crashes = 1}, IS_POSTCOPY},
        {BUG_PULLS_IS_RESUMED, {0}, IS_POSTCOPY},
        {BUG_KEPT_UNHEARD,
         {.crashes = 1, .losses = 1, .resolves = 1},
         WITNESS_BY_BOTH | SITES_PARTED},
    };

    (void)state;
    assert_int_equal(ARRAY_SIZE(cases), BUGS - 1);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static struct search s;

        search(&s, cases[i].budget, cases[i].reach, BUG_NONE);
        if (s.fault)
            print_path(&s);
        assert_null(s.fault);
        search(&s, cases[i].budget, cases[i].reach, cases[i].bug);
        printf("bug %d: %s after %u steps\n", (int)cases[i].bug, s.fault ? s.fault : "NOT found",
               s.depth);
        assert_non_null(s.fault);
    }
}

/* --- seeded -------------------------------------------------------------------------------- */

/* @say: prints what happens. */
static const char *play(uint64_t seed, enum bug bug, bool say)
{
    struct budget budget = {.crashes = 6,
                            .losses = 6,
                            .cancels = 1,
                            .resolves = 2,
                            .reboots = 2,
                            .deaths = 2,
                            .doubles = 3};
    uint64_t rng = seed;
    /* Half of the histories have a witness, seen by whom it may be. */
    unsigned chance = (unsigned)(splitmix64_next(&rng) % (2 * ARRAY_SIZE(reaches)));
    unsigned reach = bug >= BUG_RUNS_UNDECIDED && bug <= BUG_PULLS_IS_RESUMED ? IS_POSTCOPY
                     : bug == BUG_CLONE_EARLY || bug == BUG_DRILL_IS_MOVE     ? IS_DRILL
                     : bug >= BUG_GIVEN_BEFORE_READ  ? WITNESS_BY_BOTH | SITES_PARTED
                     : chance == ARRAY_SIZE(reaches) ? IS_DRILL
                     : chance == ARRAY_SIZE(reaches) + 1 || chance == ARRAY_SIZE(reaches) + 2
                         ? IS_POSTCOPY | (chance % 2 ? WITNESS_BY_BOTH : 0)
                     : chance < ARRAY_SIZE(reaches) ? reaches[chance]
                                                    : 0;
    struct world w =
        new_world(budget, reach | (splitmix64_next(&rng) % 2 ? VM_AUTOSTARTS : 0), bug);
    /* Some histories are calm, some wild: one in so many happenings may be a fault. */
    unsigned wild = 1u << (splitmix64_next(&rng) % 7), idle = 0;

    for (unsigned step = 0; step < 2000 && idle < 400; step++) {
        bool fault_now = splitmix64_next(&rng) % wild == 0;
        unsigned span = fault_now ? HAPPENINGS - FIRST_FAULT : FIRST_FAULT;
        enum happening h =
            (enum happening)(splitmix64_next(&rng) % span + (fault_now ? FIRST_FAULT : 0));
        const char *fault;

        idle = happen(&w, h) ? 0 : idle + 1;
        if (say && idle == 0)
            fprintf(stderr, "%s, ", happening_name(h));
        if ((fault = fault_of(&w)) || (fault = recovery_fault_of(&w)))
            return fault;
    }
    return settle(&w);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void test_seeded_histories(void **state)
{
    uint64_t one = number_of("FERRY_SEED", 0), first = one ? one : 1;
    uint64_t last = one ? one : number_of("FERRY_HISTORIES", 100000);

    (void)state;
    for (uint64_t seed = first; seed <= last; seed++) {
        const char *fault = play(seed, BUG_NONE, one != 0);

        if (fault)
            fail_msg("FERRY_SEED=%llu: %s", (unsigned long long)seed, fault);
    }
    printf("%llu histories\n", (unsigned long long)(last - first + 1));
}

enum { SEEDS_FOR_A_BUG = 1000000 };

static void test_seeds_find_planted_bugs(void **state)
{
    (void)state;
    for (int bug = BUG_NONE + 1; bug < BUGS; bug++) {
        const char *fault = NULL;
        uint64_t seed;

        for (seed = 1; seed <= SEEDS_FOR_A_BUG && !fault; seed++)
            fault = play(seed, (enum bug)bug, false);
        printf("bug %d: %s with seed %llu\n", bug, fault ? fault : "NOT found",
               (unsigned long long)seed - 1);
        assert_non_null(fault);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_interleavings),
        cmocka_unit_test(test_all_interleavings_of_a_drill),
        cmocka_unit_test(test_all_interleavings_of_post_copy),
        cmocka_unit_test(test_all_interleavings_with_a_witness),
        cmocka_unit_test(test_planted_bugs_are_found),
        cmocka_unit_test(test_seeded_histories),
        cmocka_unit_test(test_seeds_find_planted_bugs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
