/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit protocol under every interleaving, to a depth, and under seeded chaos beyond it.
 *
 * The world: two sites with a journal each (what was journalled survives a crash), a reliable but
 * losable session between them (a loss drops what is under way; a new one can be made), and libvirt as
 * it behaves: the source's copy is stopped when FINISH3 is called; when its connection ends before the
 * reply was read it resumes the source, when it has read it it kills it; the target's copy is paused
 * until it is resumed.
 *
 * The invariants, checked after every step: never two running copies; never a state in which neither
 * copy is complete; and in every quiet end exactly one copy runs.
 *
 * FERRY_SEED reproduces one seeded history.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/switchover.h"

enum copy {
    COPY_RUNNING,
    COPY_STOPPED,
    COPY_PAUSED,
    COPY_GONE
}; /* STOPPED: libvirt's job holds it */
enum reply { REPLY_NONE, REPLY_AT_SOURCE, REPLY_RELEASED, REPLY_READ };
enum word { WORD_COMMIT, WORD_ABORT, WORD_ASK, WORD_RESUMED, WORD_ABORTED };

enum { QUEUE_MAX = 6 };

struct queue {
    uint8_t words[QUEUE_MAX];
    uint8_t count;
};

/* Everything there is; small, so that the exhaustive search can copy it. */
struct world {
    struct switchover_source source;
    struct switchover_target target;
    uint8_t source_up, target_up;
    uint8_t source_journal; /* 0 moving, 1 commit, 2 abort, 3 done */
    uint8_t
        target_journal; /* 0 receiving, 1 prepared, 2 committing, 3 done resumed, 4 aborting, 5 aborted */
    uint8_t source_copy, target_copy;
    uint8_t target_complete; /* disks and memory are there */
    uint8_t rpc_up;          /* libvirt's connection, end to end */
    uint8_t finish_passed;   /* the target's libvirtd has FINISH3 */
    uint8_t reply;
    uint8_t link_up;
    uint8_t session; /* the moves's first session still lives: streams, RPC */
    struct queue to_source, to_target;
    /* calls under way */
    uint8_t journal_commit, journal_prepared, journal_committed, resume_target, clean_target;
    uint8_t check_source, resume_source;
    uint8_t commit_before_read; /* the planted bug */
    uint8_t budget_crashes, budget_losses, budget_cancels;
};

/* --- the world's own laws ------------------------------------------------------------------ */

static void push(struct queue *q, enum word w)
{
    if (q->count < QUEUE_MAX)
        q->words[q->count++] = (uint8_t)w;
}

/* libvirt at the source when its connection ends: before the reply was read it resumes the source. */
static void end_rpc(struct world *w)
{
    if (!w->rpc_up)
        return;
    w->rpc_up = 0;
    if (w->source_copy == COPY_STOPPED && w->reply != REPLY_READ)
        w->source_copy = COPY_RUNNING;
    /* The target's libvirtd kills an incoming copy that Finish never reached. */
    if (!w->finish_passed && w->target_copy == COPY_PAUSED)
        w->target_copy = COPY_GONE;
}

static void end_session(struct world *w)
{
    w->session = 0;
    end_rpc(w);
}

static void apply_source(struct world *w, unsigned actions);
static void apply_target(struct world *w, unsigned actions);

static void source_event(struct world *w, enum switchover_source_event e)
{
    if (w->source_up)
        apply_source(w, switchover_source_step(&w->source, e));
}

static void target_event(struct world *w, enum switchover_target_event e)
{
    if (w->target_up)
        apply_target(w, switchover_target_step(&w->target, e));
}

static void apply_source(struct world *w, unsigned actions)
{
    if (actions & SOURCE_JOURNAL_COMMIT)
        w->journal_commit = 1;
    if (actions & SOURCE_JOURNAL_ABORT)
        w->source_journal = 2;
    if (actions & SOURCE_WRITE_REPLY) {
        if (w->rpc_up) {
            w->reply = REPLY_RELEASED;
            if (w->commit_before_read && w->link_up)
                push(&w->to_target, WORD_COMMIT); /* the bug that must be found */
        } else {
            source_event(w, SOURCE_ON_RPC_LOST);
        }
    }
    if (actions & SOURCE_STOP_MIGRATION)
        end_rpc(w);
    if (actions & SOURCE_RESUME_DOMAIN)
        w->resume_source = 1;
    if (actions & SOURCE_CHECK_DOMAIN)
        w->check_source = 1;
    if (actions & SOURCE_SEND_COMMIT && w->link_up)
        push(&w->to_target, WORD_COMMIT);
    if (actions & SOURCE_SEND_ABORT && w->link_up)
        push(&w->to_target, WORD_ABORT);
    if (actions & SOURCE_DESTROY_DOMAIN && w->source_copy == COPY_PAUSED)
        w->source_copy = COPY_GONE;
    if (actions & SOURCE_JOURNAL_DONE)
        w->source_journal = 3;
}

static void apply_target(struct world *w, unsigned actions)
{
    if (actions & TARGET_JOURNAL_PREPARED)
        w->journal_prepared = 1;
    if (actions & TARGET_PASS_FINISH && w->rpc_up) {
        w->finish_passed = 1;
        w->reply = REPLY_AT_SOURCE; /* libvirtd answers; the stream carries it */
    }
    if (actions & TARGET_JOURNAL_COMMITTED)
        w->journal_committed = 1;
    if (actions & (TARGET_RESUME_DOMAIN | TARGET_RETRY_RESUME))
        w->resume_target = 1;
    if (actions & TARGET_SEND_RESUMED && w->link_up)
        push(&w->to_source, WORD_RESUMED);
    if (actions & TARGET_SEND_ABORTED && w->link_up)
        push(&w->to_source, WORD_ABORTED);
    if (actions & TARGET_ASK_SOURCE && w->link_up)
        push(&w->to_source, WORD_ASK);
    if (actions & TARGET_CLEAN_UP) {
        w->clean_target = 1;
        w->target_journal = 4;
        end_rpc(w);
    }
    if (actions & TARGET_JOURNAL_DONE)
        w->target_journal = w->target.state == TARGET_RESUMED ? 3 : 5;
}

/* --- what can happen next ------------------------------------------------------------------ */

enum happening {
    H_FINISH_CALL,
    H_DISKS_DONE,
    H_MEMORY_DONE,
    H_PREPARED_DURABLE,
    H_REPLY_ARRIVES,
    H_COMMIT_DURABLE,
    H_REPLY_READ,
    H_REPLY_READ_UNSEEN,
    H_WORD_TO_TARGET,
    H_WORD_TO_SOURCE,
    H_COMMITTED_DURABLE,
    H_TARGET_RESUMES,
    H_TARGET_CLEANED,
    H_SOURCE_CHECKED,
    H_SOURCE_RESUMED,
    H_LINK_LOST,
    H_LINK_BACK,
    H_RPC_BREAKS,
    H_CANCEL,
    H_SOURCE_CRASHES,
    H_TARGET_CRASHES,
    H_SOURCE_RESTARTS,
    H_TARGET_RESTARTS,
    H_TARGET_ASKS,
    HAPPENINGS,
};

static void crash_source(struct world *w)
{
    w->source_up = 0;
    w->journal_commit = w->check_source = w->resume_source = 0;
    w->link_up = 0;
    w->to_source.count = w->to_target.count = 0;
    end_session(w);
}

static void crash_target(struct world *w)
{
    w->target_up = 0;
    w->journal_prepared = w->journal_committed = w->resume_target = w->clean_target = 0;
    w->link_up = 0;
    w->to_source.count = w->to_target.count = 0;
    end_session(w);
}

static void lose_link(struct world *w)
{
    w->link_up = 0;
    w->to_source.count = w->to_target.count = 0;
    end_session(w);
    source_event(w, SOURCE_ON_FAILURE); /* as core/move_source.c: only before the decision */
    target_event(w, TARGET_ON_LINK_LOST);
}

static void restart_target(struct world *w)
{
    static const enum switchover_target_state states[] = {TARGET_RECEIVING,  TARGET_PREPARED,
                                                          TARGET_COMMITTING, TARGET_RESUMED,
                                                          TARGET_ABORTING,   TARGET_ABORTED};

    w->target_up = 1;
    apply_target(w, switchover_target_recover(&w->target, states[w->target_journal]));
}

static void restart_source(struct world *w)
{
    w->source_up = 1;
    if (w->source_journal == 3) { /* finished: only answers */
        w->source.state = w->source_copy == COPY_GONE ? SOURCE_COMMITTED : SOURCE_ABORTED;
        return;
    }
    apply_source(w, switchover_source_recover(&w->source, w->source_journal == 1));
}

static enum word take(struct queue *q)
{
    enum word first = (enum word)q->words[0];

    memmove(q->words, q->words + 1, --q->count);
    return first;
}

static void deliver_to_target(struct world *w)
{
    switch (take(&w->to_target)) {
    case WORD_COMMIT:
        target_event(w, TARGET_ON_COMMIT);
        break;
    default:
        target_event(w, TARGET_ON_ABORT);
    }
}

static void deliver_to_source(struct world *w)
{
    switch (take(&w->to_source)) {
    case WORD_RESUMED:
        source_event(w, SOURCE_ON_TARGET_RESUMED);
        break;
    case WORD_ASK:
        source_event(w, SOURCE_ON_TARGET_ASKS);
        break;
    default:
        source_event(w, SOURCE_ON_TARGET_ABORTED);
    }
}

static void check_source(struct world *w)
{
    w->check_source = 0;
    source_event(w, w->source_copy == COPY_RUNNING  ? SOURCE_ON_DOMAIN_RUNNING
                    : w->source_copy == COPY_PAUSED ? SOURCE_ON_DOMAIN_PAUSED
                                                    : SOURCE_ON_DOMAIN_GONE);
}

/* Does @h happen if it can? Returns whether it could. */
static int happen(struct world *w, enum happening h)
{
    switch (h) {
    case H_FINISH_CALL:
        if (!w->rpc_up || !w->target_up || w->target.state != TARGET_RECEIVING ||
            w->target.finish_held)
            return 0;
        w->source_copy = COPY_STOPPED;
        target_event(w, TARGET_ON_FINISH_CALL);
        return 1;
    case H_DISKS_DONE:
        if (!w->session || !w->target_up || w->target.state != TARGET_RECEIVING ||
            w->target.disks_done || w->source_copy != COPY_STOPPED)
            return 0;
        target_event(w, TARGET_ON_DISKS_DONE);
        return 1;
    case H_MEMORY_DONE:
        if (!w->session || !w->target_up || w->target.state != TARGET_RECEIVING ||
            w->target.memory_done || w->source_copy != COPY_STOPPED)
            return 0;
        target_event(w, TARGET_ON_MEMORY_DONE);
        return 1;
    case H_PREPARED_DURABLE:
        if (!w->journal_prepared)
            return 0;
        w->journal_prepared = 0;
        if (w->target.state ==
            TARGET_PREPARING) { /* an abort in between has written a later record */
            w->target_journal = 1;
            w->target_complete = 1;
        }
        target_event(w, TARGET_ON_PREPARED_JOURNALLED);
        return 1;
    case H_REPLY_ARRIVES:
        if (w->reply != REPLY_AT_SOURCE || !w->session || !w->source_up ||
            w->source.state != SOURCE_MOVING)
            return 0;
        source_event(w, SOURCE_ON_FINISH_OK);
        return 1;
    case H_COMMIT_DURABLE:
        if (!w->journal_commit)
            return 0;
        w->journal_commit = 0;
        w->source_journal = 1;
        source_event(w, SOURCE_ON_COMMIT_JOURNALLED);
        return 1;
    case H_REPLY_READ:        /* libvirt reads the reply, and ferryd sees that it did */
    case H_REPLY_READ_UNSEEN: /* ... or loses sight of it just then */
        if (w->reply != REPLY_RELEASED || !w->rpc_up)
            return 0;
        w->reply = REPLY_READ;
        w->source_copy = COPY_GONE;
        if (h == H_REPLY_READ) {
            source_event(w, SOURCE_ON_REPLY_READ);
        } else {
            w->rpc_up = 0;
            source_event(w, SOURCE_ON_RPC_LOST);
        }
        return 1;
    case H_WORD_TO_TARGET:
        if (w->to_target.count == 0 || !w->target_up)
            return 0;
        deliver_to_target(w);
        return 1;
    case H_WORD_TO_SOURCE:
        if (w->to_source.count == 0 || !w->source_up)
            return 0;
        deliver_to_source(w);
        return 1;
    case H_COMMITTED_DURABLE:
        if (!w->journal_committed)
            return 0;
        w->journal_committed = 0;
        w->target_journal = 2;
        target_event(w, TARGET_ON_COMMITTED_JOURNALLED);
        return 1;
    case H_TARGET_RESUMES:
        if (!w->resume_target)
            return 0;
        w->resume_target = 0;
        if (w->target_copy == COPY_PAUSED)
            w->target_copy = COPY_RUNNING;
        target_event(w,
                     w->target_copy == COPY_RUNNING ? TARGET_ON_RESUMED : TARGET_ON_RESUME_FAILED);
        return 1;
    case H_TARGET_CLEANED:
        if (!w->clean_target)
            return 0;
        w->clean_target = 0;
        w->target_copy = COPY_GONE;
        w->target_complete = 0;
        target_event(w, TARGET_ON_CLEANED);
        return 1;
    case H_SOURCE_CHECKED:
        if (!w->check_source || w->source_copy == COPY_STOPPED) /* libvirt's job has not ended */
            return 0;
        check_source(w);
        return 1;
    case H_SOURCE_RESUMED:
        if (!w->resume_source)
            return 0;
        w->resume_source = 0;
        if (w->source_copy == COPY_PAUSED)
            w->source_copy = COPY_RUNNING;
        return 1;
    case H_LINK_LOST:
        if (!w->link_up || w->budget_losses == 0)
            return 0;
        w->budget_losses--;
        lose_link(w);
        return 1;
    case H_LINK_BACK:
        if (w->link_up || !w->source_up || !w->target_up)
            return 0;
        w->link_up = 1;
        source_event(w, SOURCE_ON_LINK_UP);
        target_event(w, TARGET_ON_LINK_UP);
        return 1;
    case H_RPC_BREAKS: /* either libvirtd dies or closes; the source's comes back with the copy paused if it
                          had stopped it and the reply was not read */
        if (!w->rpc_up || w->budget_losses == 0)
            return 0;
        w->budget_losses--;
        if (w->source_copy == COPY_STOPPED && w->reply != REPLY_READ) {
            w->rpc_up = 0;
            w->source_copy = COPY_PAUSED;
            if (!w->finish_passed && w->target_copy == COPY_PAUSED)
                w->target_copy = COPY_GONE;
        } else {
            end_rpc(w);
        }
        source_event(w, w->source.state == SOURCE_MOVING ? SOURCE_ON_FAILURE : SOURCE_ON_RPC_LOST);
        return 1;
    case H_CANCEL:
        if (w->budget_cancels == 0 || !w->source_up || w->source.state != SOURCE_MOVING)
            return 0;
        w->budget_cancels--;
        source_event(w, SOURCE_ON_FAILURE);
        return 1;
    case H_SOURCE_CRASHES:
        if (!w->source_up || w->budget_crashes == 0)
            return 0;
        w->budget_crashes--;
        crash_source(w);
        target_event(w, TARGET_ON_LINK_LOST);
        return 1;
    case H_TARGET_CRASHES:
        if (!w->target_up || w->budget_crashes == 0)
            return 0;
        w->budget_crashes--;
        crash_target(w);
        source_event(w, SOURCE_ON_FAILURE);
        return 1;
    case H_SOURCE_RESTARTS:
        if (w->source_up)
            return 0;
        restart_source(w);
        return 1;
    case H_TARGET_RESTARTS:
        if (w->target_up)
            return 0;
        restart_target(w);
        return 1;
    case H_TARGET_ASKS: /* the timer of a prepared target in doubt */
        if (!w->target_up || !w->link_up || w->target.state != TARGET_PREPARED ||
            w->to_source.count > 0 || w->to_target.count > 0 || !w->target.in_doubt)
            return 0;
        push(&w->to_source, WORD_ASK);
        return 1;
    case HAPPENINGS:
        break;
    }
    return 0;
}

/* --- checks -------------------------------------------------------------------------------- */

static const char *fault_of(const struct world *w)
{
    if (w->source_copy == COPY_RUNNING && w->target_copy == COPY_RUNNING)
        return "two copies run";
    if (w->source_copy == COPY_GONE && !w->target_complete)
        return "no complete copy exists";
    return NULL;
}

static const char *quiet_fault_of(const struct world *w)
{
    int running = (w->source_copy == COPY_RUNNING) + (w->target_copy == COPY_RUNNING);

    if (running != 1)
        return "in a quiet end not exactly one copy runs";
    if (w->source_journal != 3 || (w->target_journal != 3 && w->target_journal != 5))
        return "a quiet end with open journals";
    return NULL;
}

static struct world new_world(unsigned crashes, unsigned losses, unsigned cancels)
{
    struct world w;

    memset(&w, 0, sizeof(w)); /* padding too: the search hashes the bytes */
    w.source_up = w.target_up = w.rpc_up = w.link_up = w.session = 1;
    w.target_copy = COPY_PAUSED;
    w.budget_crashes = (uint8_t)crashes;
    w.budget_losses = (uint8_t)losses;
    w.budget_cancels = (uint8_t)cancels;
    return w;
}

/* --- exhaustive ---------------------------------------------------------------------------- */

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
    assert_true(++s->used < s->size / 2);
    memcpy(s->slots[i], h, sizeof(h));
    return 0;
}

struct search {
    struct seen seen;
    unsigned long worlds;
    const char *fault;
    enum happening path[128];
    unsigned depth;
};

static void explore(struct search *s, const struct world *w)
{
    int moved = 0;

    if (s->fault || seen_before(&s->seen, w))
        return;
    s->worlds++;
    s->fault = fault_of(w);
    for (int h = 0; h < HAPPENINGS && !s->fault; h++) {
        struct world next = *w;

        if (!happen(&next, (enum happening)h))
            continue;
        /* Faults are free to stop happening: an end is quiet when nothing else can happen. */
        moved |= h != H_LINK_LOST && h != H_RPC_BREAKS && h != H_CANCEL && h != H_SOURCE_CRASHES &&
                 h != H_TARGET_CRASHES;
        assert_true(s->depth < sizeof(s->path) / sizeof(s->path[0]));
        s->path[s->depth++] = (enum happening)h;
        explore(s, &next);
        if (!s->fault)
            s->depth--;
    }
    if (!moved && !s->fault)
        s->fault = quiet_fault_of(w);
}

static void search(struct search *s, const struct world *w)
{
    memset(s, 0, sizeof(*s));
    s->seen.size = 1u << 23;
    s->seen.slots = calloc(s->seen.size, sizeof(*s->seen.slots));
    assert_non_null(s->seen.slots);
    explore(s, w);
    free(s->seen.slots);
    if (s->fault) {
        fprintf(stderr, "%s, after:", s->fault);
        for (unsigned i = 0; i < s->depth; i++)
            fprintf(stderr, " %d", (int)s->path[i]);
        fprintf(stderr, "\n");
    }
}

static void test_all_interleavings(void **state)
{
    static const unsigned budgets[][3] = {{0, 0, 0}, {1, 0, 0}, {0, 1, 1}, {1, 1, 0},
                                          {2, 0, 1}, {1, 2, 1}, {2, 2, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
        struct world w = new_world(budgets[i][0], budgets[i][1], budgets[i][2]);
        struct search s;

        search(&s, &w);
        printf("crashes %u, losses %u, cancels %u: %lu worlds\n", budgets[i][0], budgets[i][1],
               budgets[i][2], s.worlds);
        assert_null(s.fault);
    }
}

/* A protocol that sends COMMIT before libvirt has read the reply must be caught by the same search. */
static void test_planted_bug_is_found(void **state)
{
    struct world w = new_world(1, 1, 0);
    struct search s;

    (void)state;
    w.commit_before_read = 1;
    search(&s, &w);
    assert_non_null(s.fault);
}

/* --- seeded -------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static const char *play(uint64_t seed)
{
    struct world w = new_world(6, 8, 1);
    uint64_t rng = seed;
    unsigned idle = 0;

    for (unsigned step = 0; step < 4000 && idle < 2000; step++) {
        enum happening h = (enum happening)(next_random(&rng) % HAPPENINGS);
        const char *fault;

        idle = happen(&w, h) ? 0 : idle + 1;
        if ((fault = fault_of(&w)))
            return fault;
    }
    for (unsigned calm = 0; calm < 200; calm++) { /* faults are over: everything must settle */
        int moved = 0;

        w.budget_crashes = w.budget_losses = w.budget_cancels = 0;
        for (int h = 0; h < HAPPENINGS; h++)
            moved |= happen(&w, (enum happening)h);
        if (fault_of(&w))
            return fault_of(&w);
        if (!moved)
            break;
    }
    return quiet_fault_of(&w);
}

static void test_seeded_histories(void **state)
{
    const char *one = getenv("FERRY_SEED");
    uint64_t first = one ? strtoull(one, NULL, 0) : 1, last = one ? first : 20000;

    (void)state;
    for (uint64_t seed = first; seed <= last; seed++) {
        const char *fault = play(seed);

        if (fault)
            fail_msg("FERRY_SEED=%llu: %s", (unsigned long long)seed, fault);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_interleavings),
        cmocka_unit_test(test_planted_bug_is_found),
        cmocka_unit_test(test_seeded_histories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
