/* SPDX-License-Identifier: Apache-2.0 */
/* How the two machines act on the world, and crashes: see world.h. */
#include <string.h>

#include "tests/engine/switchover/laws.h"

const char *happening_name(enum happening h)
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
        [H_SWITCHED_ARRIVES] = "switched arrives",
        [H_PULLS_ARRIVES] = "pulls arrives",
        [H_TARGET_RUNS] = "target runs",
        [H_PAGES_PULLED] = "pages pulled",
        [H_TARGET_LOOKS] = "target looks",
        [H_SOURCE_UNATTENDED] = "source unattended",
        [H_TARGET_CRASHES_UNREAD] = "target crashes, finish unread",
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

void world_put(struct puts *p, unsigned record)
{
    if (p->count < PUTS_MAX)
        p->record[p->count++] = (uint8_t)record;
}

unsigned world_take(struct puts *p)
{
    unsigned first = p->record[0];

    memmove(p->record, p->record + 1, PUTS_MAX - 1);
    p->record[PUTS_MAX - 1] = 0; /* equal worlds have equal bytes */
    p->count--;
    return first;
}

void world_say(uint8_t *word)
{
    if (*word < WORDS_MAX)
        ++*word;
}

void run_source_copy(struct world *w)
{
    w->source_copy = COPY_RUNNING;
    w->source_ran = 1;
}

/* At the source; libvirt acts at once, its call returns. */
void end_rpc_at_source(struct world *w)
{
    if (!w->rpc_source)
        return;
    w->rpc_source = 0;
    if (w->source_copy != COPY_STOPPED || w->reply == REPLY_READ)
        return;
    if (w->reach & IS_POSTCOPY)
        w->source_copy = COPY_SWITCHED;
    else
        run_source_copy(w);
}

void end_rpc_at_target(struct world *w)
{
    w->rpc_target = 0;
    if (!w->finish_passed && w->target_copy == COPY_PAUSED)
        w->target_copy = COPY_GONE;
}

static void act_source(struct world *w, unsigned actions);
static void act_target(struct world *w, unsigned actions);

void source_event(struct world *w, enum switchover_source_event e)
{
    if (w->source_up && !(w->bug == BUG_DEAF_TO_RESUMED && e == SOURCE_ON_TARGET_RESUMED &&
                          w->source.state == SOURCE_ABORTING))
        act_source(w, switchover_source_step(&w->source, e));
}

void target_event(struct world *w, enum switchover_target_event e)
{
    if (w->target_up)
        act_target(w, switchover_target_step(&w->target, e));
}

/* libvirt's call at the source returns with a failure. */
void fail_call(struct world *w)
{
    source_event(w, w->source.state == SOURCE_MOVING ? SOURCE_ON_FAILURE : SOURCE_ON_RPC_LOST);
}

static void act_source(struct world *w, unsigned actions)
{
    if (actions & SOURCE_JOURNAL_COMMIT)
        world_put(&w->source_puts, SJ_COMMIT);
    if (actions & SOURCE_JOURNAL_FEEDING)
        world_put(&w->source_puts, SJ_FEEDING);
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
    if (actions & SOURCE_JOURNAL_FEEDING && w->bug == BUG_FEED_BEFORE_DURABLE)
        source_event(w, SOURCE_ON_COMMIT_JOURNALLED);
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
    if (actions & TARGET_JOURNAL_SWITCHED)
        world_put(&w->target_puts, TARGET_SWITCHED);
    if (actions & TARGET_JOURNAL_PULLING)
        world_put(&w->target_puts, TARGET_PULLING);
    if (actions & TARGET_SEND_SWITCHED && w->session)
        world_say(&w->words.switched);
    if (actions & TARGET_SEND_PULLS && w->session)
        world_say(&w->words.pulls);
    if ((actions & (TARGET_PASS_FINISH | TARGET_RUN_FINISH) ||
         (actions & TARGET_SEND_SWITCHED && w->bug == BUG_RUNS_UNDECIDED)) &&
        w->rpc_target)
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
    if (actions & TARGET_JOURNAL_PULLING && w->bug == BUG_PULL_BEFORE_DURABLE)
        target_event(w, TARGET_ON_COMMITTED_JOURNALLED);
}

/* --- crashes and returns ------------------------------------------------------------------- */

void end_session(struct world *w)
{
    w->source_notices |= w->session & w->source_up;
    w->target_notices |= w->session & w->target_up;
    w->session = w->streams = 0;
}

/* Their asker is gone or waits no more: they may still take effect, and nobody hears of it. */
void orphan_wishes(struct world *w, unsigned wishes)
{
    w->orphaned |= w->asked & (uint8_t)wishes;
    w->asked &= (uint8_t)~wishes;
    if (wishes & SOURCE_WISHES)
        w->source_answer = 0;
    if (wishes & TARGET_WISHES)
        w->target_answer = 0;
}

void crash_source(struct world *w)
{
    end_session(w);
    w->source_up = w->source_notices = 0;
    memset(&w->source_puts, 0, sizeof(w->source_puts));
    w->words.ask = w->words.resumed = w->words.aborted = 0;
    w->words.switched = w->words.pulls = 0;
    w->check_source = w->resume_source = w->start_source = w->withdraw = 0;
    orphan_wishes(w, SOURCE_WISHES);
    end_rpc_at_source(w);
}

void crash_target(struct world *w)
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

void restart_source(struct world *w)
{
    static const enum switchover_source_record records[] = {
        [SJ_MOVING] = SOURCE_RECORD_MOVING,     [SJ_COMMIT] = SOURCE_RECORD_COMMIT,
        [SJ_RELEASED] = SOURCE_RECORD_RELEASED, [SJ_ABORT] = SOURCE_RECORD_MOVING,
        [SJ_RESTORE] = SOURCE_RECORD_RESTORE,   [SJ_FEEDING] = SOURCE_RECORD_FEEDING,
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

void restart_target(struct world *w)
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

void kill_libvirtd(struct world *w, int resumes)
{
    if (w->source_copy == COPY_STOPPED) {
        if (w->reach & IS_POSTCOPY && w->reply != REPLY_READ)
            w->source_copy = COPY_SWITCHED;
        else if (resumes && w->reply != REPLY_READ)
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

void reboot_host(struct world *w)
{
    w->rebooted = w->excused = 1;
    w->aborted_by_death |= !(w->reach & VM_AUTOSTARTS); /* else it is started again */
    w->pages_lost |= w->reach & IS_POSTCOPY && !w->pages_done;
    w->source_copy = COPY_OFF; /* before libvirt could run it again */
    w->rpc_source = 0;
    if (w->source_up)
        crash_source(w);
    if (w->bug == BUG_AUTOSTART && w->source_journal < SJ_COMMITTED)
        run_source_copy(w);
    if (w->reach & VM_AUTOSTARTS && (w->source_journal == SJ_ABORTED || w->reach & IS_DRILL))
        run_source_copy(
            w); /* by libvirt: autostart is back before that record is durable, or stayed */
}

struct world new_world(struct budget budget, unsigned reach, enum bug bug)
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
