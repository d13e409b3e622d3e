/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that can happen, one by one: see world.h. */
#include <string.h>

#include "tests/engine/switchover/laws.h"

/* --- one by one ---------------------------------------------------------------------------- */

static void make_durable_at_source(struct world *w)
{
    unsigned record = world_take(&w->source_puts);

    w->source_journal = (uint8_t)record;
    if ((record == SJ_COMMIT && w->bug != BUG_COMMIT_BEFORE_DURABLE) ||
        (record == SJ_FEEDING && w->bug != BUG_FEED_BEFORE_DURABLE))
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
    if (record == TARGET_SWITCHED)
        target_event(w, TARGET_ON_PREPARED_JOURNALLED);
    if (record == TARGET_COMMITTING ||
        (record == TARGET_PULLING && w->bug != BUG_PULL_BEFORE_DURABLE))
        target_event(w, TARGET_ON_COMMITTED_JOURNALLED);
    if (record == TARGET_ABORTING)
        target_event(w, TARGET_ON_ABORT_JOURNALLED);
}

static void check_source(struct world *w)
{
    static const enum switchover_source_event words[] = {
        [COPY_RUNNING] = SOURCE_ON_DOMAIN_RUNNING, [COPY_PAUSED] = SOURCE_ON_DOMAIN_PAUSED,
        [COPY_SWITCHED] = SOURCE_ON_DOMAIN_PAUSED, [COPY_SUSPENDED] = SOURCE_ON_DOMAIN_SUSPENDED,
        [COPY_ENDED] = SOURCE_ON_DOMAIN_ENDED,     [COPY_OFF] = SOURCE_ON_DOMAIN_OFF,
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
    int source_in_doubt =
        w->source_up &&
        (w->source.state == SOURCE_IN_DOUBT ||
         ((w->source.state == SOURCE_COMMITTING || w->source.state == SOURCE_FEEDING) &&
          !w->session));
    int target_in_doubt = w->target_up && w->target.state == TARGET_PREPARED && w->target.in_doubt;

    if (w->budget.resolves == 0 || (w->word && w->word != word_of(h)))
        return 0;
    switch (h) {
    case H_SOURCE_RESOLVE_SOURCE:
        return source_in_doubt && !w->target_up && w->target_copy != COPY_RUNNING &&
               w->target_journal != TARGET_COMMITTING && w->target_journal != TARGET_PULLING &&
               !w->target_ran;
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

static int source_hears(struct world *w, uint8_t *word, enum switchover_source_event event)
{
    if (*word == 0 || !w->source_up)
        return 0;
    --*word;
    source_event(w, event);
    return 1;
}

static int target_hears(struct world *w, uint8_t *word, enum switchover_target_event event)
{
    if (*word == 0 || !w->target_up)
        return 0;
    --*word;
    target_event(w, event);
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
    case H_TARGET_CRASHES_UNREAD:
        if (!(w->reach & IS_POSTCOPY) || !w->target_up || !w->finish_passed || w->target_ran ||
            w->target_copy != COPY_PAUSED || !spend(&w->budget.crashes))
            return 0;
        w->target_copy = COPY_GONE;
        w->excused = w->finish_unread = 1;
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
        /* It gave its memory up by itself. Where libvirt has forgotten why it is off, a restored copy is booted anew. */
        if (h == H_GUEST_ENDS && w->reach & IS_POSTCOPY)
            w->excused = 1;
        return 1;
    case H_TARGET_COPY_DIES: /* before libvirt has answered FINISH3, that is H_FINISH_FAILS */
        if ((w->target_copy != COPY_PAUSED && !(w->clone_runs && w->target_copy == COPY_RUNNING) &&
             !(w->reach & IS_POSTCOPY && w->target_copy == COPY_RUNNING &&
               w->target.state == TARGET_PULLING)) ||
            (w->reply == REPLY_NONE && !(w->reach & IS_POSTCOPY)) || !spend(&w->budget.deaths))
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
        return target_hears(w, &w->words.commit, TARGET_ON_COMMIT);
    case H_ABORT_ARRIVES:
        return target_hears(w, &w->words.abort, TARGET_ON_ABORT);
    case H_DRILL_ARRIVES:
        return target_hears(w, &w->words.drill, TARGET_ON_DRILL);
    case H_ASK_ARRIVES:
        return source_hears(w, &w->words.ask, SOURCE_ON_TARGET_ASKS);
    case H_RESUMED_ARRIVES:
        return source_hears(w, &w->words.resumed, SOURCE_ON_TARGET_RESUMED);
    case H_ABORTED_ARRIVES:
        return source_hears(w, &w->words.aborted, SOURCE_ON_TARGET_ABORTED);
    case H_SWITCHED_ARRIVES:
        return source_hears(w, &w->words.switched, SOURCE_ON_TARGET_SWITCHED);
    case H_PULLS_ARRIVES:
        return source_hears(w, &w->words.pulls,
                            w->bug == BUG_PULLS_IS_RESUMED ? SOURCE_ON_TARGET_RESUMED
                                                           : SOURCE_ON_TARGET_PULLS);
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
             w->source.state != SOURCE_FEEDING && w->source.state != SOURCE_DRILLING))
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
        w->memory_lost = w->target_complete = 1; /* its disks are */
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
        if (w->source_copy == COPY_PAUSED || w->source_copy == COPY_SWITCHED)
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
        if (w->reach & IS_POSTCOPY) {
            target_event(w, h == H_DISKS_DONE ? TARGET_ON_DISKS_DONE : TARGET_ON_SWITCHED);
            return 1;
        }
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
        if (!w->finish_passed || w->reply != REPLY_NONE ||
            (w->reach & IS_POSTCOPY ? !w->pages_done || !w->rpc_target
                                    : w->target_copy != COPY_PAUSED))
            return 0;
        w->reply = REPLY_UNDER_WAY;
        return 1;
    case H_FINISH_FAILS: /* libvirt kills its copy and says so to both */
        if (!w->finish_passed || w->reply != REPLY_NONE || w->target_ran ||
            w->target_copy != COPY_PAUSED || !spend(&w->budget.deaths))
            return 0;
        if (w->reach & IS_POSTCOPY) { /* it is defined there by then */
            w->target_copy = COPY_OFF;
            w->reply = REPLY_FAILED;
            w->excused = 1;
            end_rpc_at_source(w);
            fail_call(w);
            return 1;
        }
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
    case H_TARGET_RUNS: /* in post-copy, by libvirt's Finish */
        if (!(w->reach & IS_POSTCOPY) || !w->finish_passed || w->target_ran ||
            w->target_copy != COPY_PAUSED)
            return 0;
        w->target_copy = COPY_RUNNING;
        w->target_ran = 1;
        return 1;
    case H_PAGES_PULLED: /* over the first channels, or over new ones */
        if (!(w->reach & IS_POSTCOPY) || w->pages_done || w->target_copy != COPY_RUNNING ||
            w->memory_lost || (w->source_copy != COPY_STOPPED && w->source_copy != COPY_SWITCHED) ||
            !w->session || !w->source_up || !w->target_up || w->source.state != SOURCE_FEEDING)
            return 0;
        w->pages_done = w->target_complete = 1;
        return 1;
    case H_TARGET_LOOKS: /* as it does again and again */
        if (!w->target_up || w->target.state != TARGET_PULLING || w->start_target)
            return 0;
        if (w->target_copy == COPY_RUNNING && (w->pages_done || w->memory_lost))
            target_event(w, TARGET_ON_PAGES_DONE);
        else if (w->target_copy == COPY_OFF)
            target_event(w, TARGET_ON_COPY_LOST);
        else if (w->target_copy == COPY_GONE && !w->target.copy_missing)
            target_event(w, TARGET_ON_COPY_MISSING);
        else
            return 0;
        return 1;
    case H_SOURCE_UNATTENDED: /* libvirt sees QEMU's end although nobody asked */
        if (w->source_copy != COPY_SWITCHED || !w->pages_done)
            return 0;
        w->source_copy = COPY_GONE;
        return 1;
    default: /* libvirt's Confirm */
        if (w->reply != REPLY_READ || w->source_copy != COPY_STOPPED)
            return 0;
        w->source_copy = COPY_GONE;
        return 1;
    }
}

/* Does @h happen if it can? Returns whether it could. */
int happen(struct world *w, enum happening h)
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
    case H_TARGET_RUNS:
    case H_PAGES_PULLED:
    case H_TARGET_LOOKS:
    case H_SOURCE_UNATTENDED:
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
