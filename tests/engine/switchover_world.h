/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world in which the commit protocol is tried: two sites, their journals, the words under way, and
 * libvirt as it behaves. Everything that can happen is one value of enum happening; happen() makes it
 * happen if it can. The world is small and has no pointers, so that a search can copy and hash it.
 *
 * Laws of this world, each taken from the real one:
 *   - Records become durable one after the other, in their order; a crash forgets what is not.
 *   - Words may be delayed beyond the end of their session, lost with it, doubled, and overtake each
 *     other: they are bags, not queues. A crash of the receiver ends what was on its way to it.
 *   - A session ends for each side when that side notices. The first one carries libvirt's RPC.
 *   - libvirt at the source holds the stopped copy (STOPPED). Its connection ends before it has read
 *     FINISH3's reply: it runs the copy again. It has read it: it kills the copy (GONE). It is killed
 *     itself: it finds the copy PAUSED, or runs it, and forgets why others are off (GONE, ENDED -> OFF).
 *   - A host that is restarted has nothing running; its domains are OFF.
 *   - libvirt at the target kills an incoming copy whose connection ends before FINISH3.
 *   - The witness is a key that requests change one at a time, at some moment or never; a request whose asker has
 *     crashed or lost patience may still take effect, unheard. Each side sees the witness or does not, for the
 *     whole history; and where the sites are parted, their first session is their last.
 *   - The operator is wise: says "run here" only where the other side's ferryd is down, the other copy
 *     does not run and cannot go on by itself, and this one is not older; and does not say one thing at
 *     one site and another at the other.
 *
 *   - In a drill the target's copy is a clone: it runs beside the VM, which is the source's copy at every moment.
 *
 * Planted bugs (enum bug) break one of ferry's own promises; a search that does not find them is broken.
 */
#ifndef FERRY_TESTS_ENGINE_SWITCHOVER_WORLD_H
#define FERRY_TESTS_ENGINE_SWITCHOVER_WORLD_H

#include <stdint.h>
#include <string.h>

#include "core/switchover.h"

enum copy {
    COPY_RUNNING,
    COPY_STOPPED,   /* libvirt's migration holds it */
    COPY_PAUSED,    /* nobody does */
    COPY_SUSPENDED, /* it has run, and was paused then: by a user, by a full disk */
    COPY_ENDED,     /* by itself, and libvirt knows */
    COPY_OFF,       /* and nobody knows why */
    COPY_GONE,      /* source: libvirt killed it because it migrated; target: there is none */
};

enum reply { REPLY_NONE, REPLY_UNDER_WAY, REPLY_AT_SOURCE, REPLY_RELEASED, REPLY_READ };

enum bug {
    BUG_NONE,
    BUG_COMMIT_BEFORE_READ,      /* COMMIT sent before libvirt has read the reply */
    BUG_COMMIT_BEFORE_DURABLE,   /* the reply given before the record is durable */
    BUG_PREPARED_BEFORE_DURABLE, /* FINISH3 passed before the record is durable */
    BUG_CLEAN_BEFORE_DURABLE,    /* a prepared copy destroyed before the record says so */
    BUG_OFF_IS_GONE,             /* any domain that is off counts as migrated */
    BUG_SUSPENDED_IS_PAUSED,     /* any paused domain counts as untouched */
    BUG_AUTOSTART,               /* the source's definition starts with its host during the move */
    BUG_DEAF_TO_RESUMED,   /* what a target says that runs by its operator's word is not heard */
    BUG_SILENCE_RESTARTS,  /* after its host's restart a copy starts without the target's word */
    BUG_CLONE_EARLY,       /* a drill's clone runs before the source has let the VM go on */
    BUG_DRILL_IS_MOVE,     /* the source takes a drill for a move */
    BUG_GIVEN_BEFORE_READ, /* the right given before libvirt has read the reply */
    BUG_HELD_UNHEARD,      /* a witness that does not answer counts as one that says yes */
    BUG_HELD_IS_CLAIMED, /* a target in doubt takes the abort although the source holds the right */
    BUG_GIVEN_IS_CLAIMED, /* a target in doubt runs by what it read, without having changed it */
    BUG_KEPT_UNHEARD,     /* what was given runs again before the witness has said that it may */
    BUGS,
};

enum source_record {
    SJ_MOVING,
    SJ_COMMIT,
    SJ_RELEASED,
    SJ_ABORT,
    SJ_RESTORE,
    SJ_COMMITTED,
    SJ_ABORTED,
};

/* What waits to become durable, oldest first. */
enum { PUTS_MAX = 6 };
struct puts {
    uint8_t record[PUTS_MAX];
    uint8_t count;
};

/* Words under way, counted; more than two of a kind teach nothing new. */
enum { WORDS_MAX = 2 };
struct words {
    uint8_t commit, abort; /* to the target */
    uint8_t drill;
    uint8_t ask, resumed, aborted;
};

struct budget {
    uint8_t crashes;  /* of either ferryd */
    uint8_t losses;   /* of the session, of libvirt's connection */
    uint8_t cancels;  /* by the operator, before the decision */
    uint8_t resolves; /* by the operator, in doubt */
    uint8_t reboots;  /* of the source's host, of its libvirtd */
    uint8_t deaths;   /* of a copy: the guest ends, QEMU is killed, somebody pauses it */
    uint8_t doubles;  /* of words */
};

/* Who sees the witness, and whether the sites see each other again: bits. */
enum reach {
    WITNESS_AGREED = 1 << 0,
    WITNESS_BY_SOURCE = 1 << 1,
    WITNESS_BY_TARGET = 1 << 2,
    SITES_PARTED = 1 << 3,
    VM_AUTOSTARTS = 1 << 4, /* not seen by anybody, but as good a place; so is: */
    IS_DRILL = 1 << 5,
    WITNESS_BY_BOTH = WITNESS_AGREED | WITNESS_BY_SOURCE | WITNESS_BY_TARGET,
};

struct world {
    uint8_t reach;
    uint8_t rebooted;        /* the source's host */
    uint8_t right;           /* the key at the witness */
    uint8_t asked, orphaned; /* wishes under way to it, as bits; those nobody waits for any more */
    uint8_t source_answer, target_answer; /* the key's value and one, under way back; 0 = none */
    struct switchover_source source;
    struct switchover_target target;
    uint8_t source_up, target_up;
    uint8_t source_journal, target_journal; /* enum source_record; enum switchover_target_state */
    struct puts source_puts, target_puts;
    uint8_t source_copy, target_copy;
    uint8_t source_ran;       /* since the target's copy was made: that one is old */
    uint8_t target_ran;       /* the target's copy: the source's is old */
    uint8_t source_withdrawn; /* its disks are gone */
    uint8_t target_complete;
    uint8_t rpc_source, rpc_target; /* libvirt's connection, at its two ends */
    uint8_t finish_passed, reply;
    uint8_t session, streams; /* a conversation; the one that carries RPC, memory, disks */
    uint8_t source_notices, target_notices; /* it has ended and that side does not know */
    struct words words;
    /* calls under way */
    uint8_t check_source, resume_source, start_source, withdraw;
    uint8_t resume_target, start_target, clean_target;
    uint8_t run_clone, clone_runs;
    uint8_t death_unseen;     /* of the target's copy */
    uint8_t aborted_by_death; /* the VM ended, or its host did, where it had to run: none may run */
    uint8_t word;             /* the operator's, wherever it was given: 1 source, 2 target */
    uint8_t excused;     /* somebody died or decided: the VM's memory may be lost, its disks not */
    uint8_t memory_lost; /* a copy was started from its disks */
    uint8_t bug;
    struct budget budget;
};

enum happening {
    H_FINISH_CALL,
    H_DISKS_DONE,
    H_MEMORY_DONE,
    H_PREPARED_HEARD,
    H_FINISH_ANSWERED,
    H_FINISH_FAILS,
    H_REPLY_ARRIVES,
    H_REPLY_READ,
    H_REPLY_READ_UNSEEN,
    H_CALL_SUCCEEDS,
    H_CONFIRMED,
    H_SOURCE_DURABLE,
    H_TARGET_DURABLE,
    H_COMMIT_ARRIVES,
    H_ABORT_ARRIVES,
    H_DRILL_ARRIVES,
    H_ASK_ARRIVES,
    H_RESUMED_ARRIVES,
    H_ABORTED_ARRIVES,
    H_LATE_WORDS_LOST,
    H_TARGET_RESUMES,
    H_TARGET_STARTS,
    H_CLONE_RUNS,
    H_DRILL_DONE,
    H_TARGET_SEES_DEATH,
    H_TARGET_CLEANED,
    H_TARGET_RPC_ENDS,
    H_SOURCE_CHECKED,
    H_SOURCE_RESUMED,
    H_SOURCE_STARTED,
    H_WITHDRAWN,
    H_SOURCE_NOTICES,
    H_TARGET_NOTICES,
    H_NEW_SESSION,
    H_SOURCE_REPEATS,
    H_TARGET_ASKS,
    H_TARGET_SILENT,
    H_SOURCE_RESTARTS,
    H_TARGET_RESTARTS,
    H_SOURCE_ASKS_WITNESS,
    H_TARGET_ASKS_WITNESS,
    H_TARGET_NOTES,
    H_RIGHT_HOLD, /* a request takes effect */
    H_RIGHT_GIVE,
    H_RIGHT_KEEP,
    H_RIGHT_CLAIM,
    H_RIGHT_NOTE,
    H_SOURCE_HEARS_WITNESS,
    H_TARGET_HEARS_WITNESS,
    H_SOURCE_LOSES_PATIENCE,
    /* From here on: faults and people. They may happen, they need not. */
    H_SESSION_ENDS,
    H_RPC_BREAKS,
    H_CANCEL,
    H_SOURCE_CRASHES,
    H_TARGET_CRASHES,
    H_LIBVIRTD_DIES,
    H_LIBVIRTD_DIES_AND_RESUMES,
    H_HOST_REBOOTS,
    H_GUEST_ENDS,
    H_GUEST_SUSPENDED,
    H_TARGET_COPY_DIES,
    H_COMMIT_DOUBLED,
    H_ABORT_DOUBLED,
    H_SOURCE_RESOLVE_SOURCE,
    H_SOURCE_RESOLVE_TARGET,
    H_TARGET_RESOLVE_SOURCE,
    H_TARGET_RESOLVE_TARGET,
    H_WITNESS_ANSWER_LOST,
    H_WITNESS_REQUEST_LATE,
    HAPPENINGS,
    FIRST_FAULT = H_SESSION_ENDS,
};

static const char *happening_name(enum happening h)
{
    static const char *const names[] = {
        [H_FINISH_CALL] = "finish call",
        [H_DISKS_DONE] = "disks done",
        [H_MEMORY_DONE] = "memory done",
        [H_PREPARED_HEARD] = "prepared heard",
        [H_FINISH_ANSWERED] = "finish answered",
        [H_FINISH_FAILS] = "finish fails",
        [H_REPLY_ARRIVES] = "reply arrives",
        [H_REPLY_READ] = "reply read",
        [H_REPLY_READ_UNSEEN] = "reply read unseen",
        [H_CALL_SUCCEEDS] = "call succeeds",
        [H_CONFIRMED] = "confirmed",
        [H_SOURCE_DURABLE] = "source durable",
        [H_TARGET_DURABLE] = "target durable",
        [H_COMMIT_ARRIVES] = "commit arrives",
        [H_ABORT_ARRIVES] = "abort arrives",
        [H_DRILL_ARRIVES] = "drill arrives",
        [H_CLONE_RUNS] = "clone runs",
        [H_DRILL_DONE] = "drill done",
        [H_ASK_ARRIVES] = "ask arrives",
        [H_RESUMED_ARRIVES] = "resumed arrives",
        [H_ABORTED_ARRIVES] = "aborted arrives",
        [H_LATE_WORDS_LOST] = "late words lost",
        [H_TARGET_RESUMES] = "target resumes",
        [H_TARGET_STARTS] = "target starts",
        [H_TARGET_SEES_DEATH] = "target sees death",
        [H_TARGET_CLEANED] = "target cleaned",
        [H_TARGET_RPC_ENDS] = "target rpc ends",
        [H_SOURCE_CHECKED] = "source checked",
        [H_SOURCE_RESUMED] = "source resumed",
        [H_SOURCE_STARTED] = "source started",
        [H_WITHDRAWN] = "withdrawn",
        [H_SOURCE_NOTICES] = "source notices",
        [H_TARGET_NOTICES] = "target notices",
        [H_NEW_SESSION] = "new session",
        [H_SOURCE_REPEATS] = "source repeats",
        [H_TARGET_ASKS] = "target asks",
        [H_TARGET_SILENT] = "target silent",
        [H_SOURCE_RESTARTS] = "source restarts",
        [H_TARGET_RESTARTS] = "target restarts",
        [H_SOURCE_ASKS_WITNESS] = "source asks witness",
        [H_TARGET_ASKS_WITNESS] = "target asks witness",
        [H_TARGET_NOTES] = "target notes",
        [H_RIGHT_HOLD] = "hold takes effect",
        [H_RIGHT_GIVE] = "give takes effect",
        [H_RIGHT_KEEP] = "keep takes effect",
        [H_RIGHT_CLAIM] = "claim takes effect",
        [H_RIGHT_NOTE] = "note takes effect",
        [H_SOURCE_HEARS_WITNESS] = "source hears witness",
        [H_TARGET_HEARS_WITNESS] = "target hears witness",
        [H_SOURCE_LOSES_PATIENCE] = "source loses patience",
        [H_WITNESS_ANSWER_LOST] = "witness answer lost",
        [H_WITNESS_REQUEST_LATE] = "witness request late",
        [H_SESSION_ENDS] = "session ends",
        [H_RPC_BREAKS] = "rpc breaks",
        [H_CANCEL] = "cancel",
        [H_SOURCE_CRASHES] = "source crashes",
        [H_TARGET_CRASHES] = "target crashes",
        [H_LIBVIRTD_DIES] = "libvirtd dies",
        [H_LIBVIRTD_DIES_AND_RESUMES] = "libvirtd dies and resumes",
        [H_HOST_REBOOTS] = "host reboots",
        [H_GUEST_ENDS] = "guest ends",
        [H_GUEST_SUSPENDED] = "guest suspended",
        [H_TARGET_COPY_DIES] = "target copy dies",
        [H_COMMIT_DOUBLED] = "commit doubled",
        [H_ABORT_DOUBLED] = "abort doubled",
        [H_SOURCE_RESOLVE_SOURCE] = "source resolve source",
        [H_SOURCE_RESOLVE_TARGET] = "source resolve target",
        [H_TARGET_RESOLVE_SOURCE] = "target resolve source",
        [H_TARGET_RESOLVE_TARGET] = "target resolve target",
    };

    return names[h];
}

/* --- small laws ---------------------------------------------------------------------------- */

static void world_put(struct puts *p, unsigned record)
{
    if (p->count < PUTS_MAX)
        p->record[p->count++] = (uint8_t)record;
}

static unsigned world_take(struct puts *p)
{
    unsigned first = p->record[0];

    memmove(p->record, p->record + 1, PUTS_MAX - 1);
    p->record[PUTS_MAX - 1] = 0; /* equal worlds have equal bytes */
    p->count--;
    return first;
}

static void world_say(uint8_t *word)
{
    if (*word < WORDS_MAX)
        ++*word;
}

static void run_source_copy(struct world *w)
{
    w->source_copy = COPY_RUNNING;
    w->source_ran = 1;
}

/* At the source; libvirt acts at once, its call returns. */
static void end_rpc_at_source(struct world *w)
{
    if (!w->rpc_source)
        return;
    w->rpc_source = 0;
    if (w->source_copy == COPY_STOPPED && w->reply != REPLY_READ)
        run_source_copy(w);
}

static void end_rpc_at_target(struct world *w)
{
    w->rpc_target = 0;
    if (!w->finish_passed && w->target_copy == COPY_PAUSED)
        w->target_copy = COPY_GONE;
}

static void act_source(struct world *w, unsigned actions);
static void act_target(struct world *w, unsigned actions);

static void source_event(struct world *w, enum switchover_source_event e)
{
    if (w->source_up && !(w->bug == BUG_DEAF_TO_RESUMED && e == SOURCE_ON_TARGET_RESUMED &&
                          w->source.state == SOURCE_ABORTING))
        act_source(w, switchover_source_step(&w->source, e));
}

static void target_event(struct world *w, enum switchover_target_event e)
{
    if (w->target_up)
        act_target(w, switchover_target_step(&w->target, e));
}

/* libvirt's call at the source returns with a failure. */
static void fail_call(struct world *w)
{
    source_event(w, w->source.state == SOURCE_MOVING ? SOURCE_ON_FAILURE : SOURCE_ON_RPC_LOST);
}

static void act_source(struct world *w, unsigned actions)
{
    if (actions & SOURCE_JOURNAL_COMMIT)
        world_put(&w->source_puts, SJ_COMMIT);
    if (actions & SOURCE_JOURNAL_RELEASED)
        world_put(&w->source_puts, SJ_RELEASED);
    if (actions & SOURCE_JOURNAL_ABORT)
        world_put(&w->source_puts, SJ_ABORT);
    if (actions & SOURCE_JOURNAL_RESTORE)
        world_put(&w->source_puts, SJ_RESTORE);
    if (actions & (SOURCE_STOP_MIGRATION | SOURCE_END_MIGRATION))
        end_rpc_at_source(w);
    if (actions & SOURCE_SEND_DRILL && w->session)
        world_say(&w->words.drill);
    if (actions & SOURCE_RESUME_DOMAIN)
        w->resume_source = 1;
    if (actions & SOURCE_START_DOMAIN)
        w->start_source = 1;
    if (actions & SOURCE_CHECK_DOMAIN)
        w->check_source = 1;
    if (actions & SOURCE_SEND_COMMIT && w->session)
        world_say(&w->words.commit);
    if (actions & SOURCE_SEND_ABORT && w->session)
        world_say(&w->words.abort);
    if (actions & SOURCE_WITHDRAW)
        w->withdraw = 1;
    else if (actions & SOURCE_JOURNAL_DONE)
        world_put(&w->source_puts, SJ_ABORTED);
    if (actions & SOURCE_WRITE_REPLY) {
        if (w->rpc_source) {
            w->reply = REPLY_RELEASED;
            if (w->bug == BUG_COMMIT_BEFORE_READ && w->session)
                world_say(&w->words.commit);
        } else {
            source_event(w, SOURCE_ON_RPC_LOST);
        }
    }
    if (actions & SOURCE_WRITE_REPLY && w->bug == BUG_GIVEN_BEFORE_READ)
        w->asked |= w->reach & WITNESS_AGREED ? 1 << RIGHT_WISH_GIVE : 0;
    if (actions & SOURCE_JOURNAL_COMMIT && w->bug == BUG_COMMIT_BEFORE_DURABLE)
        source_event(w, SOURCE_ON_COMMIT_JOURNALLED);
}

static void act_target(struct world *w, unsigned actions)
{
    if (actions & TARGET_JOURNAL_PREPARED)
        world_put(&w->target_puts, TARGET_PREPARED);
    if (actions & TARGET_JOURNAL_COMMITTED)
        world_put(&w->target_puts, TARGET_COMMITTING);
    if (actions & TARGET_JOURNAL_ABORTING)
        world_put(&w->target_puts, TARGET_ABORTING);
    if (actions & TARGET_JOURNAL_DONE)
        world_put(&w->target_puts, w->target.state);
    if (actions & TARGET_PASS_FINISH && w->rpc_target)
        w->finish_passed = 1;
    if (actions & (TARGET_RESUME_DOMAIN | TARGET_RETRY_RESUME))
        w->resume_target = 1;
    if (actions & TARGET_START_DOMAIN)
        w->start_target = 1;
    if (actions & TARGET_RUN_CLONE || (actions & TARGET_PASS_FINISH && w->bug == BUG_CLONE_EARLY))
        w->run_clone = 1;
    if (actions & TARGET_CLEAN_UP)
        w->clean_target = 1;
    if (actions & TARGET_SEND_RESUMED && w->session)
        world_say(&w->words.resumed);
    if (actions & TARGET_SEND_ABORTED && w->session)
        world_say(&w->words.aborted);
    if (actions & TARGET_ASK_SOURCE && w->session)
        world_say(&w->words.ask);
    if (actions & TARGET_JOURNAL_ABORTING && w->bug == BUG_CLEAN_BEFORE_DURABLE) {
        w->target_copy = COPY_GONE;
        w->target_complete = 0;
    }
    if (actions & TARGET_JOURNAL_PREPARED && w->bug == BUG_PREPARED_BEFORE_DURABLE)
        target_event(w, TARGET_ON_PREPARED_JOURNALLED);
}

/* --- crashes and returns ------------------------------------------------------------------- */

static void end_session(struct world *w)
{
    w->source_notices |= w->session & w->source_up;
    w->target_notices |= w->session & w->target_up;
    w->session = w->streams = 0;
}

enum {
    SOURCE_WISHES = 1 << RIGHT_WISH_HOLD | 1 << RIGHT_WISH_GIVE | 1 << RIGHT_WISH_KEEP,
    TARGET_WISHES = 1 << RIGHT_WISH_CLAIM | 1 << RIGHT_WISH_NOTE,
};

/* Their asker is gone or waits no more: they may still take effect, and nobody hears of it. */
static void orphan_wishes(struct world *w, unsigned wishes)
{
    w->orphaned |= w->asked & (uint8_t)wishes;
    w->asked &= (uint8_t)~wishes;
    if (wishes & SOURCE_WISHES)
        w->source_answer = 0;
    if (wishes & TARGET_WISHES)
        w->target_answer = 0;
}

static void crash_source(struct world *w)
{
    end_session(w);
    w->source_up = w->source_notices = 0;
    memset(&w->source_puts, 0, sizeof(w->source_puts));
    w->words.ask = w->words.resumed = w->words.aborted = 0;
    w->check_source = w->resume_source = w->start_source = w->withdraw = 0;
    orphan_wishes(w, SOURCE_WISHES);
    end_rpc_at_source(w);
}

static void crash_target(struct world *w)
{
    end_session(w);
    w->target_up = w->target_notices = 0;
    memset(&w->target_puts, 0, sizeof(w->target_puts));
    w->words.commit = w->words.abort = w->words.drill = 0;
    w->run_clone = w->clone_runs = 0;
    w->resume_target = w->start_target = w->clean_target = w->death_unseen = 0;
    orphan_wishes(w, TARGET_WISHES);
    if (w->rpc_target)
        end_rpc_at_target(w);
}

static void restart_source(struct world *w)
{
    static const enum switchover_source_record records[] = {
        [SJ_MOVING] = SOURCE_RECORD_MOVING,     [SJ_COMMIT] = SOURCE_RECORD_COMMIT,
        [SJ_RELEASED] = SOURCE_RECORD_RELEASED, [SJ_ABORT] = SOURCE_RECORD_MOVING,
        [SJ_RESTORE] = SOURCE_RECORD_RESTORE,
    };

    w->source_up = 1;
    if (w->source_journal >= SJ_COMMITTED) { /* finished: only answers */
        bool drill = w->source.drill;

        memset(&w->source, 0, sizeof(w->source));
        w->source.drill = drill;
        w->source.state = w->source_journal == SJ_COMMITTED ? SOURCE_COMMITTED : SOURCE_ABORTED;
        return;
    }
    act_source(
        w, switchover_source_recover(&w->source, records[w->source_journal], w->source.drill,
                                     w->reach & WITNESS_AGREED,
                                     w->rebooted && w->reach & VM_AUTOSTARTS && !w->source.drill));
}

static void restart_target(struct world *w)
{
    w->target_up = 1;
    act_target(w, switchover_target_recover(&w->target,
                                            (enum switchover_target_state)w->target_journal,
                                            w->target.drill, w->reach & WITNESS_AGREED));
}

static int forget_reason(int copy)
{
    return copy == COPY_GONE || copy == COPY_ENDED ? COPY_OFF : copy;
}

static void kill_libvirtd(struct world *w, int resumes)
{
    if (w->source_copy == COPY_STOPPED) {
        if (resumes && w->reply != REPLY_READ)
            run_source_copy(w);
        else
            w->source_copy = COPY_PAUSED;
    }
    w->source_copy = (uint8_t)forget_reason(w->source_copy);
    if (w->rpc_source) {
        w->rpc_source = 0;
        fail_call(w);
    }
}

static void reboot_host(struct world *w)
{
    w->rebooted = w->excused = 1;
    w->aborted_by_death |= !(w->reach & VM_AUTOSTARTS); /* else it is started again */
    w->source_copy = COPY_OFF;                          /* before libvirt could run it again */
    w->rpc_source = 0;
    if (w->source_up)
        crash_source(w);
    if (w->bug == BUG_AUTOSTART && w->source_journal < SJ_COMMITTED)
        run_source_copy(w);
    if (w->reach & VM_AUTOSTARTS && (w->source_journal == SJ_ABORTED || w->reach & IS_DRILL))
        run_source_copy(
            w); /* by libvirt: autostart is back before that record is durable, or stayed */
}

/* --- one by one ---------------------------------------------------------------------------- */

static void make_durable_at_source(struct world *w)
{
    unsigned record = world_take(&w->source_puts);

    w->source_journal = (uint8_t)record;
    if (record == SJ_COMMIT && w->bug != BUG_COMMIT_BEFORE_DURABLE)
        source_event(w, SOURCE_ON_COMMIT_JOURNALLED);
    if (record == SJ_RESTORE || record == SJ_ABORT)
        source_event(w, SOURCE_ON_ABORT_JOURNALLED);
    if (record == SJ_RESTORE && w->bug == BUG_KEPT_UNHEARD)
        source_event(w, (enum switchover_source_event)(SOURCE_ON_RIGHT + RIGHT_KEPT));
}

static void make_durable_at_target(struct world *w)
{
    unsigned record = world_take(&w->target_puts);

    w->target_journal = (uint8_t)record;
    if (record == TARGET_PREPARED && w->bug != BUG_PREPARED_BEFORE_DURABLE)
        target_event(w, TARGET_ON_PREPARED_JOURNALLED);
    if (record == TARGET_COMMITTING)
        target_event(w, TARGET_ON_COMMITTED_JOURNALLED);
    if (record == TARGET_ABORTING)
        target_event(w, TARGET_ON_ABORT_JOURNALLED);
}

static void check_source(struct world *w)
{
    static const enum switchover_source_event words[] = {
        [COPY_RUNNING] = SOURCE_ON_DOMAIN_RUNNING,
        [COPY_PAUSED] = SOURCE_ON_DOMAIN_PAUSED,
        [COPY_SUSPENDED] = SOURCE_ON_DOMAIN_SUSPENDED,
        [COPY_ENDED] = SOURCE_ON_DOMAIN_ENDED,
        [COPY_OFF] = SOURCE_ON_DOMAIN_OFF,
        [COPY_GONE] = SOURCE_ON_DOMAIN_GONE,
    };
    enum switchover_source_event e = words[w->source_copy];

    w->check_source = 0;
    if (w->bug == BUG_OFF_IS_GONE && e == SOURCE_ON_DOMAIN_OFF)
        e = SOURCE_ON_DOMAIN_GONE;
    if (w->bug == BUG_SUSPENDED_IS_PAUSED && e == SOURCE_ON_DOMAIN_SUSPENDED)
        e = SOURCE_ON_DOMAIN_PAUSED;
    source_event(w, e);
}

static void resume_target(struct world *w)
{
    w->resume_target = 0;
    if (w->target_copy == COPY_PAUSED) {
        w->target_copy = COPY_RUNNING;
        w->target_ran = 1;
    }
    target_event(w, w->target_copy == COPY_RUNNING ? TARGET_ON_RESUMED
                    : w->target_copy == COPY_OFF   ? TARGET_ON_COPY_LOST
                                                   : TARGET_ON_COPY_MISSING);
}

/* The source's side of the first session goes with it. */
static void source_notices(struct world *w)
{
    w->source_notices = 0;
    if (w->rpc_source) {
        end_rpc_at_source(w);
        if (w->reply != REPLY_READ)
            fail_call(w);
    }
    if (w->source.state == SOURCE_MOVING || w->source.state == SOURCE_DRILLING)
        source_event(w, SOURCE_ON_FAILURE);
}

static void target_notices(struct world *w)
{
    w->target_notices = 0;
    if (w->rpc_target)
        end_rpc_at_target(w);
    target_event(w, TARGET_ON_LINK_LOST);
}

static uint8_t word_of(enum happening h)
{
    return h == H_SOURCE_RESOLVE_SOURCE || h == H_TARGET_RESOLVE_SOURCE ? 1 : 2;
}

/* Whether an operator may say so: see the head of this file. */
static int may_resolve(const struct world *w, enum happening h)
{
    int source_in_doubt = w->source_up && (w->source.state == SOURCE_IN_DOUBT ||
                                           (w->source.state == SOURCE_COMMITTING && !w->session));
    int target_in_doubt = w->target_up && w->target.state == TARGET_PREPARED && w->target.in_doubt;

    if (w->budget.resolves == 0 || (w->word && w->word != word_of(h)))
        return 0;
    switch (h) {
    case H_SOURCE_RESOLVE_SOURCE:
        return source_in_doubt && !w->target_up && w->target_copy != COPY_RUNNING &&
               w->target_journal != TARGET_COMMITTING && !w->target_ran;
    case H_SOURCE_RESOLVE_TARGET:
        return source_in_doubt && !w->source_ran;
    case H_TARGET_RESOLVE_SOURCE:
        return target_in_doubt && !w->source_up;
    default:
        return target_in_doubt && !w->source_up && !w->source_ran && w->target_copy != COPY_GONE &&
               (w->source_copy == COPY_OFF || w->source_copy == COPY_GONE);
    }
}

static int resolve(struct world *w, enum happening h)
{
    if (!may_resolve(w, h))
        return 0;
    w->budget.resolves--;
    w->excused = 1;
    w->word = word_of(h);
    if (h == H_SOURCE_RESOLVE_SOURCE || h == H_SOURCE_RESOLVE_TARGET)
        source_event(w, h == H_SOURCE_RESOLVE_SOURCE ? SOURCE_ON_RESOLVE_SOURCE
                                                     : SOURCE_ON_RESOLVE_TARGET);
    else
        target_event(w, h == H_TARGET_RESOLVE_SOURCE ? TARGET_ON_RESOLVE_SOURCE
                                                     : TARGET_ON_RESOLVE_TARGET);
    return 1;
}

static int hear(struct world *w, uint8_t *word, int up)
{
    (void)w;
    if (*word == 0 || !up)
        return 0;
    --*word;
    return 1;
}

static int spend(uint8_t *budget)
{
    if (*budget == 0)
        return 0;
    --*budget;
    return 1;
}

/* Faults and people. */
static int befall(struct world *w, enum happening h)
{
    switch (h) {
    case H_SESSION_ENDS:
        if (!w->session || !spend(&w->budget.losses))
            return 0;
        end_session(w);
        return 1;
    case H_RPC_BREAKS: /* libvirt at the source closes its connection */
        if (!w->rpc_source || !spend(&w->budget.losses))
            return 0;
        end_rpc_at_source(w);
        fail_call(w);
        return 1;
    case H_CANCEL:
        if (!w->source_up ||
            (w->source.state != SOURCE_MOVING && w->source.state != SOURCE_DRILLING) ||
            !spend(&w->budget.cancels))
            return 0;
        source_event(w, SOURCE_ON_FAILURE);
        return 1;
    case H_SOURCE_CRASHES:
        if (!w->source_up || !spend(&w->budget.crashes))
            return 0;
        crash_source(w);
        return 1;
    case H_TARGET_CRASHES:
        if (!w->target_up || !spend(&w->budget.crashes))
            return 0;
        crash_target(w);
        return 1;
    case H_LIBVIRTD_DIES:
    case H_LIBVIRTD_DIES_AND_RESUMES:
        if (!spend(&w->budget.reboots))
            return 0;
        kill_libvirtd(w, h == H_LIBVIRTD_DIES_AND_RESUMES);
        return 1;
    case H_HOST_REBOOTS:
        if (!spend(&w->budget.reboots))
            return 0;
        reboot_host(w);
        return 1;
    case H_GUEST_ENDS:
    case H_GUEST_SUSPENDED: /* where it went on after the switchover had begun */
        if (w->source_copy != COPY_RUNNING || !w->source_ran || !spend(&w->budget.deaths))
            return 0;
        w->source_copy = h == H_GUEST_ENDS ? COPY_ENDED : COPY_SUSPENDED;
        w->aborted_by_death = 1;
        return 1;
    case H_TARGET_COPY_DIES: /* before libvirt has answered FINISH3, that is H_FINISH_FAILS */
        if ((w->target_copy != COPY_PAUSED && !(w->clone_runs && w->target_copy == COPY_RUNNING)) ||
            w->reply == REPLY_NONE || !spend(&w->budget.deaths))
            return 0;
        w->target_copy = COPY_OFF;
        w->death_unseen = w->target_up;
        w->excused = 1;
        return 1;
    case H_COMMIT_DOUBLED:
        if (w->words.commit == 0 || !spend(&w->budget.doubles))
            return 0;
        world_say(&w->words.commit);
        return 1;
    case H_ABORT_DOUBLED:
        if (w->words.abort == 0 || !spend(&w->budget.doubles))
            return 0;
        world_say(&w->words.abort);
        return 1;
    case H_WITNESS_ANSWER_LOST:
        if (!(w->source_answer | w->target_answer) || !spend(&w->budget.losses))
            return 0;
        w->source_answer = w->target_answer = 0;
        return 1;
    case H_WITNESS_REQUEST_LATE: /* its asker has lost patience, and asks again */
        if (!w->asked || !spend(&w->budget.losses))
            return 0;
        orphan_wishes(w, SOURCE_WISHES | TARGET_WISHES);
        return 1;
    default:
        return resolve(w, h);
    }
}

/* What the two ferryds hear, and what they do again after a while. */
static int converse(struct world *w, enum happening h)
{
    switch (h) {
    case H_COMMIT_ARRIVES:
        if (!hear(w, &w->words.commit, w->target_up))
            return 0;
        target_event(w, TARGET_ON_COMMIT);
        return 1;
    case H_ABORT_ARRIVES:
        if (!hear(w, &w->words.abort, w->target_up))
            return 0;
        target_event(w, TARGET_ON_ABORT);
        return 1;
    case H_DRILL_ARRIVES:
        if (!hear(w, &w->words.drill, w->target_up))
            return 0;
        target_event(w, TARGET_ON_DRILL);
        return 1;
    case H_ASK_ARRIVES:
        if (!hear(w, &w->words.ask, w->source_up))
            return 0;
        source_event(w, SOURCE_ON_TARGET_ASKS);
        return 1;
    case H_RESUMED_ARRIVES:
        if (!hear(w, &w->words.resumed, w->source_up))
            return 0;
        source_event(w, SOURCE_ON_TARGET_RESUMED);
        return 1;
    case H_ABORTED_ARRIVES:
        if (!hear(w, &w->words.aborted, w->source_up))
            return 0;
        source_event(w, SOURCE_ON_TARGET_ABORTED);
        return 1;
    case H_LATE_WORDS_LOST:
        if (w->session)
            return 0;
        memset(&w->words, 0, sizeof(w->words));
        return 1;
    case H_SOURCE_NOTICES:
        if (!w->source_notices)
            return 0;
        source_notices(w);
        return 1;
    case H_TARGET_NOTICES:
        if (!w->target_notices)
            return 0;
        target_notices(w);
        return 1;
    case H_NEW_SESSION:
        if (w->reach & SITES_PARTED || w->session || !w->source_up || !w->target_up ||
            w->source_notices)
            return 0;
        w->session = 1;
        source_event(w, SOURCE_ON_LINK_UP);
        target_event(w, TARGET_ON_LINK_UP);
        return 1;
    case H_SOURCE_REPEATS: /* its timer, while it waits for the target's word */
        if (!w->source_up || !w->session || w->words.commit || w->words.abort || w->words.drill ||
            (w->source.state != SOURCE_COMMITTING && w->source.state != SOURCE_ABORTING &&
             w->source.state != SOURCE_DRILLING))
            return 0;
        source_event(w, SOURCE_ON_LINK_UP);
        return 1;
    case H_TARGET_ASKS: /* the timer of a prepared target */
        if (!w->target_up || !w->session || w->target.state != TARGET_PREPARED || w->words.ask ||
            w->words.commit || w->words.abort)
            return 0;
        world_say(&w->words.ask);
        return 1;
    case H_TARGET_SILENT:
        if (!w->source_up || w->session || w->source.state != SOURCE_ABORTING)
            return 0;
        source_event(w, w->bug == BUG_SILENCE_RESTARTS ? SOURCE_ON_TARGET_UNKNOWN
                                                       : SOURCE_ON_TARGET_SILENT);
        return 1;
    case H_SOURCE_RESTARTS:
        if (w->source_up)
            return 0;
        restart_source(w);
        return 1;
    default:
        if (w->target_up)
            return 0;
        restart_target(w);
        return 1;
    }
}

/* A request takes effect at the witness. */
static int change_right(struct world *w, enum right_wish wish)
{
    uint8_t bit = (uint8_t)(1 << wish), seen = WITNESS_BY_TARGET;
    enum right now = (enum right)w->right, after = right_after(wish, now);
    int heard = (w->asked & bit) != 0;

    if (bit & SOURCE_WISHES)
        seen = WITNESS_BY_SOURCE;
    if (!((w->asked | w->orphaned) & bit) || !(w->reach & seen))
        return 0;
    if (heard)
        w->asked &= (uint8_t)~bit;
    else
        w->orphaned &= (uint8_t)~bit;
    if (wish == RIGHT_WISH_CLAIM && w->bug == BUG_HELD_IS_CLAIMED && now == RIGHT_HELD)
        after = RIGHT_KEPT;
    if (wish == RIGHT_WISH_CLAIM && w->bug == BUG_GIVEN_IS_CLAIMED && now == RIGHT_GIVEN)
        after = now;
    w->right = (uint8_t)after;
    if (heard && bit & SOURCE_WISHES)
        w->source_answer = (uint8_t)(after + 1);
    if (heard && wish == RIGHT_WISH_CLAIM)
        w->target_answer = (uint8_t)(after + 1);
    return 1;
}

/* One question of a side at a time. */
static int ask_witness(struct world *w, int up, enum right_wish wish)
{
    uint8_t bit = (uint8_t)(1 << wish);
    int source = (bit & SOURCE_WISHES) != 0;

    if (!up || wish == RIGHT_WISH_NOTHING || w->orphaned & bit ||
        w->asked & (source ? SOURCE_WISHES : TARGET_WISHES) ||
        (source ? w->source_answer : w->target_answer))
        return 0;
    w->asked |= bit;
    return 1;
}

static int hear_witness(struct world *w, uint8_t *answer, int at_source)
{
    unsigned right = *answer - 1u;

    if (*answer == 0)
        return 0;
    *answer = 0;
    if (at_source)
        source_event(w, (enum switchover_source_event)(SOURCE_ON_RIGHT + right));
    else if (w->bug == BUG_GIVEN_IS_CLAIMED && right == RIGHT_GIVEN)
        target_event(w, (enum switchover_target_event)(TARGET_ON_RIGHT + RIGHT_CLAIMED));
    else
        target_event(w, (enum switchover_target_event)(TARGET_ON_RIGHT + right));
    return 1;
}

static int consult(struct world *w, enum happening h)
{
    switch (h) {
    case H_SOURCE_ASKS_WITNESS:
        return ask_witness(w, w->source_up, switchover_source_wish(&w->source));
    case H_TARGET_ASKS_WITNESS:
        return ask_witness(w, w->target_up, switchover_target_wish(&w->target));
    case H_TARGET_NOTES:
        if (w->right == RIGHT_RESUMED || w->right == RIGHT_NONE)
            return 0;
        return ask_witness(w, w->target_up,
                           w->target.state == TARGET_RESUMED && w->target.witness
                               ? RIGHT_WISH_NOTE
                               : RIGHT_WISH_NOTHING);
    case H_RIGHT_HOLD:
        return change_right(w, RIGHT_WISH_HOLD);
    case H_RIGHT_GIVE:
        return change_right(w, RIGHT_WISH_GIVE);
    case H_RIGHT_KEEP:
        return change_right(w, RIGHT_WISH_KEEP);
    case H_RIGHT_CLAIM:
        return change_right(w, RIGHT_WISH_CLAIM);
    case H_RIGHT_NOTE:
        return change_right(w, RIGHT_WISH_NOTE);
    case H_SOURCE_HEARS_WITNESS:
        return hear_witness(w, &w->source_answer, 1);
    case H_TARGET_HEARS_WITNESS:
        return hear_witness(w, &w->target_answer, 0);
    default: /* the guest is stopped and the witness does not answer */
        if (!w->source_up || switchover_source_wish(&w->source) != RIGHT_WISH_HOLD ||
            !w->source.finish_ok)
            return 0;
        if (w->bug == BUG_HELD_UNHEARD)
            source_event(w, (enum switchover_source_event)(SOURCE_ON_RIGHT + RIGHT_HELD));
        else
            source_event(w, SOURCE_ON_FAILURE);
        return 1;
    }
}

/* The calls of both ferryds: to the disks, to the journal, to libvirt. */
static int work(struct world *w, enum happening h)
{
    switch (h) {
    case H_SOURCE_DURABLE:
        if (w->source_puts.count == 0)
            return 0;
        make_durable_at_source(w);
        return 1;
    case H_TARGET_DURABLE:
        if (w->target_puts.count == 0)
            return 0;
        make_durable_at_target(w);
        return 1;
    case H_TARGET_RESUMES: /* libvirt's Finish holds the domain until it has answered */
        if (!w->resume_target || (w->finish_passed && w->reply == REPLY_NONE))
            return 0;
        resume_target(w);
        return 1;
    case H_TARGET_STARTS:
        if (!w->start_target)
            return 0;
        w->start_target = 0;
        w->memory_lost = 1;
        w->target_copy = COPY_RUNNING;
        w->target_ran = 1;
        target_event(w, TARGET_ON_RESUMED);
        return 1;
    case H_CLONE_RUNS:
        if (!w->run_clone)
            return 0;
        w->run_clone = 0;
        if (w->target_copy == COPY_PAUSED) {
            w->target_copy = COPY_RUNNING;
            w->clone_runs = 1;
        } else {
            target_event(w, TARGET_ON_DRILL_DONE);
        }
        return 1;
    case H_DRILL_DONE:
        if (!w->clone_runs || w->target.state != TARGET_DRILLING)
            return 0;
        target_event(w, TARGET_ON_DRILL_DONE);
        return 1;
    case H_TARGET_SEES_DEATH: /* libvirt's event; nobody repeats it for a ferryd that was down */
        if (!w->death_unseen || !w->target_up)
            return 0;
        w->death_unseen = 0;
        target_event(w, TARGET_ON_COPY_LOST);
        return 1;
    case H_TARGET_CLEANED:
        if (!w->clean_target)
            return 0;
        w->clean_target = w->target_complete = w->run_clone = w->clone_runs = 0;
        w->target_copy = COPY_GONE;
        target_event(w, TARGET_ON_CLEANED);
        return 1;
    case H_TARGET_RPC_ENDS: /* the source has closed its end, or the whole session is over */
        if (!w->rpc_target || w->rpc_source || w->target_notices || !w->target_up)
            return 0;
        end_rpc_at_target(w);
        target_event(w, TARGET_ON_FAILURE);
        return 1;
    case H_SOURCE_CHECKED: /* only when libvirt's job has ended, and nothing of ours is under way */
        if (!w->check_source || w->source_copy == COPY_STOPPED || w->resume_source ||
            w->start_source)
            return 0;
        check_source(w);
        return 1;
    case H_SOURCE_RESUMED:
        if (!w->resume_source)
            return 0;
        w->resume_source = 0;
        if (w->source_copy == COPY_PAUSED)
            run_source_copy(w);
        return 1;
    case H_SOURCE_STARTED:
        if (!w->start_source)
            return 0;
        w->start_source = 0;
        if (w->source_withdrawn) /* there is no such domain any more */
            return 1;
        w->memory_lost = 1;
        run_source_copy(w);
        return 1;
    default:
        if (!w->withdraw || w->source_copy == COPY_STOPPED)
            return 0;
        w->withdraw = 0;
        w->source_withdrawn = 1;
        w->source_copy = COPY_OFF;
        world_put(&w->source_puts, SJ_COMMITTED);
        return 1;
    }
}

/* libvirt's migration itself. */
static int migrate(struct world *w, enum happening h)
{
    switch (h) {
    case H_FINISH_CALL:
        if (!w->rpc_source || !w->rpc_target || !w->streams || w->target.finish_held ||
            w->target.state != TARGET_RECEIVING)
            return 0;
        w->source_copy = COPY_STOPPED;
        target_event(w, TARGET_ON_FINISH_CALL);
        return 1;
    case H_DISKS_DONE:
    case H_MEMORY_DONE:
        if (!w->streams || w->source_copy != COPY_STOPPED || w->target.state != TARGET_RECEIVING ||
            (h == H_DISKS_DONE ? w->target.disks_done : w->target.memory_done))
            return 0;
        /* Complete at the latest when the target says so, before it promises. */
        w->target_complete = h == H_DISKS_DONE ? w->target.memory_done : w->target.disks_done;
        target_event(w, h == H_DISKS_DONE ? TARGET_ON_DISKS_DONE : TARGET_ON_MEMORY_DONE);
        return 1;
    case H_PREPARED_HEARD: /* over the first session, ahead of the reply or not */
        if (!w->streams || !w->source_up || w->source.state != SOURCE_MOVING ||
            w->target.state != TARGET_PREPARED || !w->source.witness || w->source.prepared)
            return 0;
        source_event(w, SOURCE_ON_TARGET_PREPARED);
        return 1;
    case H_FINISH_ANSWERED:
        if (!w->finish_passed || w->reply != REPLY_NONE || w->target_copy != COPY_PAUSED)
            return 0;
        w->reply = REPLY_UNDER_WAY;
        return 1;
    case H_FINISH_FAILS: /* libvirt kills its copy and says so to both */
        if (!w->finish_passed || w->reply != REPLY_NONE || !spend(&w->budget.deaths))
            return 0;
        w->target_copy = COPY_GONE;
        w->reply = REPLY_READ;
        if (w->source_copy == COPY_STOPPED)
            run_source_copy(w);
        w->rpc_source = 0;
        target_event(w, TARGET_ON_FINISH_FAILED);
        fail_call(w);
        return 1;
    case H_REPLY_ARRIVES:
        if (w->reply != REPLY_UNDER_WAY || !w->streams || !w->source_up || !w->rpc_source)
            return 0;
        w->reply = REPLY_AT_SOURCE;
        source_event(w, SOURCE_ON_FINISH_OK);
        return 1;
    case H_REPLY_READ:        /* libvirt reads the reply, and ferryd sees that it did */
    case H_REPLY_READ_UNSEEN: /* ... or loses sight of it just then */
        if (w->reply != REPLY_RELEASED || !w->rpc_source)
            return 0;
        w->reply = REPLY_READ;
        if (h == H_REPLY_READ) {
            source_event(w, SOURCE_ON_REPLY_READ);
        } else {
            w->rpc_source = 0;
            source_event(w, SOURCE_ON_RPC_LOST);
        }
        return 1;
    case H_CALL_SUCCEEDS: /* libvirt's call at the source returns: it has read the reply */
        if (w->reply != REPLY_READ || w->source_copy != COPY_GONE || !w->source_up ||
            w->source.state != SOURCE_CHECKING)
            return 0;
        source_event(w, SOURCE_ON_REPLY_READ);
        return 1;
    default: /* libvirt's Confirm */
        if (w->reply != REPLY_READ || w->source_copy != COPY_STOPPED)
            return 0;
        w->source_copy = COPY_GONE;
        return 1;
    }
}

/* Does @h happen if it can? Returns whether it could. */
static int happen(struct world *w, enum happening h)
{
    if (h >= FIRST_FAULT)
        return befall(w, h);
    switch (h) {
    case H_FINISH_CALL:
    case H_DISKS_DONE:
    case H_MEMORY_DONE:
    case H_PREPARED_HEARD:
    case H_FINISH_ANSWERED:
    case H_FINISH_FAILS:
    case H_REPLY_ARRIVES:
    case H_REPLY_READ:
    case H_REPLY_READ_UNSEEN:
    case H_CALL_SUCCEEDS:
    case H_CONFIRMED:
        return migrate(w, h);
    case H_SOURCE_DURABLE:
    case H_TARGET_DURABLE:
    case H_TARGET_RESUMES:
    case H_TARGET_STARTS:
    case H_CLONE_RUNS:
    case H_DRILL_DONE:
    case H_TARGET_SEES_DEATH:
    case H_TARGET_CLEANED:
    case H_TARGET_RPC_ENDS:
    case H_SOURCE_CHECKED:
    case H_SOURCE_RESUMED:
    case H_SOURCE_STARTED:
    case H_WITHDRAWN:
        return work(w, h);
    case H_SOURCE_ASKS_WITNESS:
    case H_TARGET_ASKS_WITNESS:
    case H_TARGET_NOTES:
    case H_RIGHT_HOLD:
    case H_RIGHT_GIVE:
    case H_RIGHT_KEEP:
    case H_RIGHT_CLAIM:
    case H_RIGHT_NOTE:
    case H_SOURCE_HEARS_WITNESS:
    case H_TARGET_HEARS_WITNESS:
    case H_SOURCE_LOSES_PATIENCE:
        return consult(w, h);
    default:
        return converse(w, h);
    }
}

/* --- checks -------------------------------------------------------------------------------- */

/* In a drill the source's copy is the VM, and the target's never becomes more than a clone. */
static const char *drill_fault_of(const struct world *w)
{
    int counts = w->target.state == TARGET_COMMITTING || w->target.state == TARGET_RESUMING ||
                 w->target.state == TARGET_RESUMED || w->target_journal == TARGET_COMMITTING ||
                 w->target_journal == TARGET_RESUMED || w->words.resumed || w->target_ran;
    int decided = w->source_journal != SJ_MOVING && w->source_journal != SJ_ABORT &&
                  w->source_journal != SJ_ABORTED;

    for (unsigned i = 0; i < w->source_puts.count; i++)
        decided |= w->source_puts.record[i] != SJ_ABORT && w->source_puts.record[i] != SJ_ABORTED;
    if (decided || w->withdraw || w->source_withdrawn || w->reply == REPLY_RELEASED ||
        w->words.commit)
        return "a drill gives the VM up";
    if (counts)
        return "a drill's clone counts as the VM";
    if (w->target_copy == COPY_RUNNING && w->source_copy == COPY_STOPPED)
        return "a clone runs while the VM stands still";
    if (w->memory_lost)
        return "a drill costs the VM's memory";
    return NULL;
}

static const char *fault_of(const struct world *w)
{
    if (w->reach & IS_DRILL)
        return drill_fault_of(w);
    if (w->source_copy == COPY_RUNNING && w->target_copy == COPY_RUNNING)
        return "two copies run";
    if (w->target_copy == COPY_RUNNING && w->source_ran)
        return "the target runs without what the source's guest was told since";
    if (w->source_copy == COPY_RUNNING && w->target_ran)
        return "the source runs without what the target's guest was told since";
    if (w->source_withdrawn && !w->target_complete)
        return "no complete copy exists";
    if (w->memory_lost && !w->excused)
        return "the VM's memory was given up without need";
    if (w->target_copy == COPY_RUNNING && !w->target_complete)
        return "a copy runs that is not complete";
    return NULL;
}

/* A doubt that stays, although the witness is there to end it. */
static const char *witness_fault_of(const struct world *w)
{
    int asks = w->target.state == TARGET_PREPARED && w->target.in_doubt;
    int both = (w->reach & WITNESS_BY_BOTH) == WITNESS_BY_BOTH;

    if (!(w->reach & WITNESS_AGREED))
        return NULL;
    if (asks && w->reach & WITNESS_BY_TARGET && w->right != RIGHT_HELD && w->right != RIGHT_NONE)
        return "the target stays in doubt although the witness could tell";
    if (asks && both && w->source.state != SOURCE_IN_DOUBT)
        return "the target stays in doubt although both see the witness";
    if (both && w->target.state == TARGET_RESUMED && w->source.state == SOURCE_COMMITTING)
        return "the source stays in doubt although both see the witness";
    return NULL;
}

/* Where nothing more happens by itself. */
static const char *quiet_fault_of(const struct world *w)
{
    int running = (w->source_copy == COPY_RUNNING) + (w->target_copy == COPY_RUNNING);
    int doubt = w->source.state == SOURCE_IN_DOUBT ||
                (w->target.state == TARGET_PREPARED && w->target.in_doubt) ||
                switchover_source_waits_for_witness(&w->source);

    if (witness_fault_of(w))
        return witness_fault_of(w);
    if (w->reach & IS_DRILL) {
        if (doubt)
            return "a drill in doubt";
        if (w->target_copy != COPY_GONE)
            return "a drill leaves its clone behind";
        if (w->source_copy != COPY_RUNNING && !w->aborted_by_death)
            return "a drill leaves the VM standing";
        return w->source_journal == SJ_ABORTED && w->target_journal == TARGET_ABORTED
                   ? NULL
                   : "a drill's quiet end with open journals";
    }
    if (doubt) /* paused or off, until the operator's word */
        return NULL;
    if (w->reach & SITES_PARTED && w->source.state == SOURCE_COMMITTING &&
        w->target.state == TARGET_ABORTED) /* the target's word has no way to the source */
        return NULL;
    if (w->reach & SITES_PARTED && w->source.restarts &&
        w->source.waits) /* for the target's word */
        return NULL;
    if (running != 1 && !(running == 0 && w->aborted_by_death))
        return "in a quiet end not exactly one copy runs";
    if (w->reach & SITES_PARTED)
        return NULL;
    if (w->source_journal < SJ_COMMITTED ||
        (w->target_journal != TARGET_RESUMED && w->target_journal != TARGET_ABORTED))
        return "a quiet end with open journals";
    if ((w->source_journal == SJ_COMMITTED) != (w->target_journal == TARGET_RESUMED))
        return "the sites do not agree on the end";
    return NULL;
}

/* Recovery run twice equals once, for a site that is down in @w. */
static const char *recovery_fault_of(const struct world *w)
{
    struct world once = *w, twice = *w;

    if (!w->source_up) {
        restart_source(&once);
        restart_source(&twice);
        crash_source(&twice);
        restart_source(&twice);
        if (memcmp(&once, &twice, sizeof(once)) != 0)
            return "the source's recovery run twice is not the same as once";
    }
    once = twice = *w;
    if (!w->target_up) {
        restart_target(&once);
        restart_target(&twice);
        crash_target(&twice);
        restart_target(&twice);
        if (memcmp(&once, &twice, sizeof(once)) != 0)
            return "the target's recovery run twice is not the same as once";
    }
    return NULL;
}

static struct world new_world(struct budget budget, unsigned reach, enum bug bug)
{
    struct world w;

    memset(&w, 0, sizeof(w)); /* padding too: the search hashes the bytes */
    w.reach = (uint8_t)reach;
    if (reach & WITNESS_AGREED) {
        w.right = RIGHT_ARMED;
        w.target.witness = true;
        switchover_source_step(&w.source, SOURCE_ON_WITNESS_AGREED);
    }
    w.source_up = w.target_up = w.rpc_source = w.rpc_target = w.session = w.streams = 1;
    w.target.drill = reach & IS_DRILL;
    w.source.drill = reach & IS_DRILL && bug != BUG_DRILL_IS_MOVE;
    w.target_copy = COPY_PAUSED;
    w.target_journal = TARGET_RECEIVING;
    w.bug = (uint8_t)bug;
    w.budget = budget;
    return w;
}

#endif
