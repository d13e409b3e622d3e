/* SPDX-License-Identifier: Apache-2.0 */
/* The commit protocol at the source: states and invariants are drawn in switchover.h. */
#include "core/switchover/switchover.h"

const char *switchover_source_state_name(enum switchover_source_state state)
{
    switch (state) {
    case SOURCE_MOVING:
        return "moving";
    case SOURCE_DECIDING:
        return "deciding";
    case SOURCE_RELEASING:
        return "releasing";
    case SOURCE_CHECKING:
        return "checking";
    case SOURCE_COMMITTING:
        return "committing";
    case SOURCE_COMMITTED:
        return "committed";
    case SOURCE_ABORTING:
        return "aborting";
    case SOURCE_ABORTED:
        return "aborted";
    case SOURCE_IN_DOUBT:
        return "in-doubt";
    case SOURCE_DRILLING:
        return "drilling";
    case SOURCE_FEEDING:
        return "feeding";
    }
    return "?";
}

static unsigned start_commit(struct switchover_source *s)
{
    s->state = SOURCE_COMMITTING;
    return SOURCE_SEND_COMMIT | SOURCE_JOURNAL_RELEASED;
}

static unsigned end_commit(struct switchover_source *s)
{
    s->state = SOURCE_COMMITTED;
    return SOURCE_DESTROY_DOMAIN | SOURCE_WITHDRAW | SOURCE_JOURNAL_DONE |
           (s->switched ? SOURCE_END_MIGRATION : 0); /* libvirt may still wait for its reply */
}

static unsigned start_abort(struct switchover_source *s, unsigned more)
{
    *s = (struct switchover_source){
        .state = SOURCE_ABORTING, .drill = s->drill, .witness = s->witness};
    return SOURCE_JOURNAL_ABORT | more;
}

/* Both must have had their say; a target that runs, by its operator's word, outweighs a copy that is off. */
static unsigned end_abort(struct switchover_source *s)
{
    if (!s->domain_settled || (!s->target_settled && !s->target_resumed))
        return 0;
    if (s->target_resumed && !s->domain_alive)
        return end_commit(s);
    s->state = s->target_resumed ? SOURCE_IN_DOUBT : SOURCE_ABORTED;
    return s->target_resumed ? 0 : SOURCE_JOURNAL_DONE;
}

static unsigned settle_domain(struct switchover_source *s, bool alive)
{
    s->domain_settled = true;
    s->domain_alive = alive;
    return end_abort(s);
}

/* After the decision, by the operator's word: the copy here is to run, and libvirt may have killed it. */
static unsigned start_restore(struct switchover_source *s, unsigned more)
{
    *s = (struct switchover_source){.state = SOURCE_ABORTING,
                                    .witness = s->witness,
                                    .start_wanted = true,
                                    .undoing = true,
                                    .switched = s->switched};
    return SOURCE_JOURNAL_RESTORE | more;
}

/* The target has ended it after its promise, and says so: its operator wanted that, or its copy died. The copy
 * here is the only one. */
static unsigned restore_without_target(struct switchover_source *s, unsigned more)
{
    unsigned actions = start_restore(s, more);

    s->target_settled = true;
    return actions;
}

static unsigned decide(struct switchover_source *s)
{
    if (s->drill) { /* the clone is complete, and libvirt's connection ends without its reply */
        s->state = SOURCE_DRILLING;
        return SOURCE_END_MIGRATION | SOURCE_CHECK_DOMAIN;
    }
    if ((!s->finish_ok && !s->switched) || (s->witness && !s->right_held))
        return 0;
    s->state = SOURCE_DECIDING;
    return s->switched ? SOURCE_JOURNAL_FEEDING : SOURCE_JOURNAL_COMMIT;
}

static unsigned step_moving(struct switchover_source *s, unsigned event)
{
    switch (event) {
    case SOURCE_ON_WITNESS_AGREED:
        s->witness = true;
        return 0;
    case SOURCE_ON_TARGET_PREPARED:
        s->prepared = true;
        return 0;
    case SOURCE_ON_TARGET_SWITCHED:
        if (s->drill || s->finish_ok)
            return 0;
        s->prepared = s->switched = true;
        return decide(s);
    case SOURCE_ON_FINISH_OK:
        s->finish_ok = true;
        return decide(s);
    case SOURCE_ON_RIGHT + RIGHT_HELD:
        s->right_held = true;
        return decide(s);
    case SOURCE_ON_RIGHT + RIGHT_NONE: /* the key is gone, or the target has claimed the abort */
    case SOURCE_ON_RIGHT + RIGHT_KEPT:
    case SOURCE_ON_FAILURE:
    case SOURCE_ON_TARGET_ABORTED:
        return start_abort(s, SOURCE_STOP_MIGRATION | SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT);
    default:
        return 0;
    }
}

/* The copy here is the VM, and libvirt lets it go on; the clone may run once it does. */
static unsigned step_drilling(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_DOMAIN_RUNNING:
        s->domain_alive = true;
        return SOURCE_SEND_DRILL;
    case SOURCE_ON_DOMAIN_PAUSED: /* libvirt was restarted just then, and left it so */
        return SOURCE_RESUME_DOMAIN | SOURCE_CHECK_DOMAIN;
    case SOURCE_ON_TARGET_ABORTED:
    case SOURCE_ON_TARGET_UNKNOWN:
        if (s->domain_alive) {
            s->state = SOURCE_ABORTED;
            return SOURCE_JOURNAL_DONE;
        }
        start_abort(s, 0);
        s->target_settled = true;
        return SOURCE_JOURNAL_ABORT | SOURCE_CHECK_DOMAIN;
    case SOURCE_ON_FAILURE:
    case SOURCE_ON_DOMAIN_SUSPENDED:
    case SOURCE_ON_DOMAIN_ENDED:
    case SOURCE_ON_DOMAIN_OFF:
    case SOURCE_ON_DOMAIN_GONE:
        return start_abort(s, SOURCE_STOP_MIGRATION | SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT);
    case SOURCE_ON_LINK_UP:
    case SOURCE_ON_TARGET_ASKS:
        return s->domain_alive ? SOURCE_SEND_DRILL : 0;
    default:
        return 0;
    }
}

static unsigned step_deciding(struct switchover_source *s, enum switchover_source_event event)
{
    /* Nothing else happens until the record is durable: CHECKING may end in sending COMMIT. */
    if (event == SOURCE_ON_RPC_LOST)
        s->rpc_lost = true;
    if (event == SOURCE_ON_TARGET_ABORTED)
        s->target_aborted = true;
    if (event != SOURCE_ON_COMMIT_JOURNALLED)
        return 0;
    if (s->target_aborted) /* libvirt never had the reply: it lets the VM go on here */
        return restore_without_target(s, SOURCE_STOP_MIGRATION);
    if (s->switched) { /* whatever became of libvirt's connection: it does not let the copy run */
        s->state = SOURCE_FEEDING;
        return SOURCE_SEND_COMMIT;
    }
    s->state = s->rpc_lost ? SOURCE_CHECKING : SOURCE_RELEASING;
    return s->rpc_lost ? SOURCE_CHECK_DOMAIN : SOURCE_WRITE_REPLY;
}

static unsigned step_releasing(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_REPLY_READ:
        return s->target_aborted ? restore_without_target(s, 0) : start_commit(s);
    case SOURCE_ON_RPC_LOST:
        if (s->target_aborted)
            return restore_without_target(s, 0);
        s->state = SOURCE_CHECKING;
        return SOURCE_CHECK_DOMAIN;
    case SOURCE_ON_TARGET_ABORTED:
        s->target_aborted = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_checking(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_DOMAIN_RUNNING:
    case SOURCE_ON_DOMAIN_SUSPENDED:
    case SOURCE_ON_DOMAIN_ENDED:
        start_abort(s, 0);
        s->undoing = true;
        return SOURCE_JOURNAL_ABORT | settle_domain(s, event != SOURCE_ON_DOMAIN_ENDED);
    case SOURCE_ON_DOMAIN_GONE:
    case SOURCE_ON_DOMAIN_PAUSED:
    case SOURCE_ON_REPLY_READ:
        return start_commit(s);
    case SOURCE_ON_DOMAIN_OFF:
        s->state = SOURCE_IN_DOUBT;
        return 0;
    case SOURCE_ON_TARGET_RESUMED: /* only our COMMIT of an earlier life can have caused it */
        return end_commit(s);
    case SOURCE_ON_TARGET_ABORTED: /* not by our word: that is not said before it is durable */
        return restore_without_target(s, 0);
    default:
        return 0;
    }
}

static unsigned step_committing(struct switchover_source *s, unsigned event)
{
    switch (event) {
    case SOURCE_ON_TARGET_RESUMED:
    case SOURCE_ON_RIGHT + RIGHT_RESUMED:
        return end_commit(s);
    case SOURCE_ON_LINK_UP:
    case SOURCE_ON_TARGET_ASKS:
    case SOURCE_ON_RESOLVE_TARGET:
        return SOURCE_SEND_COMMIT;
    case SOURCE_ON_TARGET_ABORTED:
        return restore_without_target(s, 0);
    case SOURCE_ON_TARGET_UNKNOWN: /* it has lost its journal: what it has or runs, nobody knows */
        s->state = SOURCE_IN_DOUBT;
        return 0;
    case SOURCE_ON_RESOLVE_SOURCE:
        return start_restore(s, 0);
    default:
        return 0;
    }
}

/* The VM is the target's copy and the memory here. A target that says ABORTED then gave up before it had heard us, and has
 * never run. */
static unsigned step_feeding(struct switchover_source *s, unsigned event)
{
    switch (event) {
    case SOURCE_ON_TARGET_PULLS:
        s->pulls = true;
        return 0;
    case SOURCE_ON_FINISH_OK: /* every page is there: libvirt may give up what is here */
        return SOURCE_WRITE_REPLY;
    case SOURCE_ON_RESOLVE_SOURCE: /* never beside a copy that runs */
        return s->pulls ? 0 : step_committing(s, event);
    default:
        return step_committing(s, event);
    }
}

bool switchover_source_waits_for_witness(const struct switchover_source *s)
{
    return s->state == SOURCE_ABORTING && s->witness && s->start_wanted && !s->right_kept &&
           !s->target_settled && !s->target_resumed;
}

enum right_wish switchover_source_wish(const struct switchover_source *s)
{
    if (!s->witness)
        return RIGHT_WISH_NOTHING;
    switch (s->state) {
    case SOURCE_MOVING:
        return (s->prepared || s->finish_ok) && !s->right_held ? RIGHT_WISH_HOLD
                                                               : RIGHT_WISH_NOTHING;
    case SOURCE_COMMITTING:
    case SOURCE_FEEDING:
        return RIGHT_WISH_GIVE;
    case SOURCE_ABORTING: /* undoing: not before the record says so */
        return s->right_kept || s->undoing ? RIGHT_WISH_NOTHING : RIGHT_WISH_KEEP;
    default:
        return RIGHT_WISH_NOTHING;
    }
}

/* In ABORTING, once it may: sees to the copy here, and tells the target. */
static unsigned begin_abort(struct switchover_source *s)
{
    if (s->undoing || switchover_source_waits_for_witness(s))
        return 0;
    return (s->domain_settled ? 0 : SOURCE_CHECK_DOMAIN) |
           (s->switched && !s->domain_settled ? SOURCE_STOP_MIGRATION : 0) |
           (s->target_settled || s->target_resumed ? 0 : SOURCE_SEND_ABORT);
}

/* In ABORTING: what could go on here after a restart has waited for this. */
static unsigned hear_target(struct switchover_source *s, unsigned event)
{
    bool waited = switchover_source_waits_for_witness(s);

    if (s->drill && event == SOURCE_ON_TARGET_RESUMED) /* a clone is not the VM, whatever it says */
        return 0;
    if (s->restarts && event == SOURCE_ON_TARGET_SILENT) /* silence is no word */
        return 0;
    if (event == SOURCE_ON_TARGET_RESUMED)
        s->target_resumed = true;
    else if (event != SOURCE_ON_TARGET_SILENT)
        s->target_settled = true;
    if (waited)
        return begin_abort(s);
    if (!s->waits)
        return end_abort(s);
    s->waits = s->recovered = false;
    return s->target_resumed ? settle_domain(s, false) : SOURCE_CHECK_DOMAIN;
}

/* The copy here is paused or off, and is to go on: unless, after a restart, the target says that it runs. */
static unsigned go_on(struct switchover_source *s, unsigned action)
{
    if (s->target_resumed)
        return settle_domain(s, false);
    if (s->recovered && !s->target_settled && !s->drill) {
        s->waits = true;
        return 0;
    }
    return action | SOURCE_CHECK_DOMAIN;
}

static unsigned step_domain(struct switchover_source *s, enum switchover_source_event event)
{
    unsigned actions;

    switch (event) {
    case SOURCE_ON_DOMAIN_PAUSED:
        return go_on(s, SOURCE_RESUME_DOMAIN);
    case SOURCE_ON_DOMAIN_RUNNING:
    case SOURCE_ON_DOMAIN_SUSPENDED:
        return settle_domain(s, true);
    case SOURCE_ON_DOMAIN_OFF:
        if (s->restarts && !s->started && !s->target_resumed) {
            s->waits = !s->target_settled;
            s->started = s->target_settled;
            return s->started ? SOURCE_START_DOMAIN | SOURCE_CHECK_DOMAIN : 0;
        }
        /* fall through */
    case SOURCE_ON_DOMAIN_GONE:
        if (!s->start_wanted || s->started) /* it may have ended by itself */
            return settle_domain(s, false);
        actions = go_on(s, SOURCE_START_DOMAIN);
        s->started = actions & SOURCE_START_DOMAIN;
        return actions;
    case SOURCE_ON_DOMAIN_ENDED: /* the guest shut down or was destroyed: nothing of ours */
        return settle_domain(s, false);
    default:
        return 0;
    }
}

/* In ABORTING: the witness's word. A claim alone says nothing: the target's copy may still die of it. */
static unsigned hear_witness(struct switchover_source *s, enum right now)
{
    bool waited = switchover_source_waits_for_witness(s);

    if (s->undoing || s->right_kept)
        return 0;
    if (now == RIGHT_RESUMED)
        return s->target_settled || s->target_resumed ? 0
                                                      : hear_target(s, SOURCE_ON_TARGET_RESUMED);
    s->right_kept = now == RIGHT_KEPT || now == RIGHT_NONE;
    return waited && s->right_kept ? begin_abort(s) : 0;
}

static unsigned step_aborting(struct switchover_source *s, enum switchover_source_event event)
{
    if (event >= SOURCE_ON_RIGHT)
        return hear_witness(s, (enum right)(event - SOURCE_ON_RIGHT));
    switch (event) {
    case SOURCE_ON_ABORT_JOURNALLED:
        if (!s->undoing)
            return 0;
        s->undoing = false;
        return begin_abort(s);
    case SOURCE_ON_DOMAIN_PAUSED:
    case SOURCE_ON_DOMAIN_RUNNING:
    case SOURCE_ON_DOMAIN_SUSPENDED:
    case SOURCE_ON_DOMAIN_ENDED:
    case SOURCE_ON_DOMAIN_OFF:
    case SOURCE_ON_DOMAIN_GONE: /* while undoing: the answer to an older question */
        return s->undoing || switchover_source_waits_for_witness(s) ? 0 : step_domain(s, event);
    case SOURCE_ON_TARGET_ABORTED:
    case SOURCE_ON_TARGET_UNKNOWN:
    case SOURCE_ON_TARGET_RESUMED:
    case SOURCE_ON_TARGET_SILENT:
        return hear_target(s, event);
    case SOURCE_ON_RESOLVE_SOURCE: /* go on without the target's word: it will get ours when it asks */
        return switchover_source_waits_for_witness(s) ? 0
                                                      : hear_target(s, SOURCE_ON_TARGET_UNKNOWN);
    case SOURCE_ON_LINK_UP:
    case SOURCE_ON_TARGET_ASKS:
        return s->target_settled || s->undoing || switchover_source_waits_for_witness(s)
                   ? 0
                   : SOURCE_SEND_ABORT;
    default:
        return 0;
    }
}

static unsigned step_in_doubt(struct switchover_source *s, enum switchover_source_event event)
{
    if (s->target_resumed) { /* both run: the operator says which one is to be kept */
        if (event == SOURCE_ON_RESOLVE_TARGET)
            return end_commit(s);
        if (event != SOURCE_ON_RESOLVE_SOURCE)
            return 0;
        s->state = SOURCE_ABORTED;
        return SOURCE_JOURNAL_DONE;
    }
    switch (event) {
    case SOURCE_ON_TARGET_RESUMED:
        return end_commit(s);
    case SOURCE_ON_TARGET_ABORTED:
        return restore_without_target(s, 0);
    case SOURCE_ON_RESOLVE_SOURCE:
        return start_restore(s, 0);
    case SOURCE_ON_RESOLVE_TARGET:
        if (!s->switched)
            return start_commit(s);
        s->state = SOURCE_FEEDING;
        return SOURCE_SEND_COMMIT;
    default:
        return 0;
    }
}

unsigned switchover_source_step(struct switchover_source *s, enum switchover_source_event event)
{
    switch (s->state) {
    case SOURCE_MOVING:
        return step_moving(s, event);
    case SOURCE_DRILLING:
        return step_drilling(s, event);
    case SOURCE_DECIDING:
        return step_deciding(s, event);
    case SOURCE_RELEASING:
        return step_releasing(s, event);
    case SOURCE_FEEDING:
        return step_feeding(s, event);
    case SOURCE_CHECKING:
        return step_checking(s, event);
    case SOURCE_COMMITTING:
        return step_committing(s, event);
    case SOURCE_ABORTING:
        return step_aborting(s, event);
    case SOURCE_IN_DOUBT:
        return step_in_doubt(s, event);
    case SOURCE_COMMITTED:
        if (event == SOURCE_ON_FINISH_OK && s->switched) /* the target's word was faster */
            return SOURCE_WRITE_REPLY;
        return event == SOURCE_ON_TARGET_ASKS ? SOURCE_SEND_COMMIT : 0;
    case SOURCE_ABORTED:
        return event == SOURCE_ON_TARGET_ASKS ? SOURCE_SEND_ABORT : 0;
    }
    return 0;
}

unsigned switchover_source_recover(struct switchover_source *s,
                                   enum switchover_source_record record, bool drill, bool witness,
                                   bool restarts)
{
    unsigned actions;

    *s = (struct switchover_source){.drill = drill, .witness = witness};
    switch (drill ? SOURCE_RECORD_MOVING : record) {
    case SOURCE_RECORD_RELEASED:
        return start_commit(s);
    case SOURCE_RECORD_COMMIT:
        s->state = SOURCE_CHECKING;
        return SOURCE_CHECK_DOMAIN;
    case SOURCE_RECORD_FEEDING:
        s->state = SOURCE_FEEDING;
        s->switched = true;
        return SOURCE_SEND_COMMIT;
    case SOURCE_RECORD_RESTORE:
        start_restore(s, 0);
        s->undoing = false;
        s->recovered = true;
        return begin_abort(s);
    case SOURCE_RECORD_MOVING:
        break;
    }
    actions = start_abort(s, SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT);
    s->recovered = true;
    s->restarts = restarts;
    return actions;
}
