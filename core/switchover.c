/* SPDX-License-Identifier: Apache-2.0 */
/* The commit protocol: states and invariants are drawn in switchover.h. */
#include "core/switchover.h"

/* --- source -------------------------------------------------------------------------------- */

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
    return SOURCE_DESTROY_DOMAIN | SOURCE_WITHDRAW | SOURCE_JOURNAL_DONE;
}

static unsigned start_abort(struct switchover_source *s, unsigned more)
{
    *s = (struct switchover_source){.state = SOURCE_ABORTING};
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
    *s =
        (struct switchover_source){.state = SOURCE_ABORTING, .start_wanted = true, .undoing = true};
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

static unsigned step_committing(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_TARGET_RESUMED:
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

/* In ABORTING: what could go on here after a restart has waited for this. */
static unsigned hear_target(struct switchover_source *s, enum switchover_source_event event)
{
    if (event == SOURCE_ON_TARGET_RESUMED)
        s->target_resumed = true;
    else if (event != SOURCE_ON_TARGET_SILENT)
        s->target_settled = true;
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
    if (s->recovered && !s->target_settled) {
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

static unsigned step_aborting(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_ABORT_JOURNALLED:
        if (!s->undoing)
            return 0;
        s->undoing = false;
        return (s->domain_settled ? 0 : SOURCE_CHECK_DOMAIN) |
               (s->target_settled ? 0 : SOURCE_SEND_ABORT);
    case SOURCE_ON_DOMAIN_PAUSED:
    case SOURCE_ON_DOMAIN_RUNNING:
    case SOURCE_ON_DOMAIN_SUSPENDED:
    case SOURCE_ON_DOMAIN_ENDED:
    case SOURCE_ON_DOMAIN_OFF:
    case SOURCE_ON_DOMAIN_GONE: /* while undoing: the answer to an older question */
        return s->undoing ? 0 : step_domain(s, event);
    case SOURCE_ON_TARGET_ABORTED:
    case SOURCE_ON_TARGET_UNKNOWN:
    case SOURCE_ON_TARGET_RESUMED:
    case SOURCE_ON_TARGET_SILENT:
        return hear_target(s, event);
    case SOURCE_ON_RESOLVE_SOURCE: /* go on without the target's word: it will get ours when it asks */
        return hear_target(s, SOURCE_ON_TARGET_UNKNOWN);
    case SOURCE_ON_LINK_UP:
    case SOURCE_ON_TARGET_ASKS:
        return s->target_settled || s->undoing ? 0 : SOURCE_SEND_ABORT;
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
        return start_commit(s);
    default:
        return 0;
    }
}

unsigned switchover_source_step(struct switchover_source *s, enum switchover_source_event event)
{
    switch (s->state) {
    case SOURCE_MOVING:
        if (event == SOURCE_ON_FINISH_OK) {
            s->state = SOURCE_DECIDING;
            return SOURCE_JOURNAL_COMMIT;
        }
        if (event == SOURCE_ON_FAILURE || event == SOURCE_ON_TARGET_ABORTED)
            return start_abort(s, SOURCE_STOP_MIGRATION | SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT);
        return 0;
    case SOURCE_DECIDING:
        return step_deciding(s, event);
    case SOURCE_RELEASING:
        return step_releasing(s, event);
    case SOURCE_CHECKING:
        return step_checking(s, event);
    case SOURCE_COMMITTING:
        return step_committing(s, event);
    case SOURCE_ABORTING:
        return step_aborting(s, event);
    case SOURCE_IN_DOUBT:
        return step_in_doubt(s, event);
    case SOURCE_COMMITTED:
        return event == SOURCE_ON_TARGET_ASKS ? SOURCE_SEND_COMMIT : 0;
    case SOURCE_ABORTED:
        return event == SOURCE_ON_TARGET_ASKS ? SOURCE_SEND_ABORT : 0;
    }
    return 0;
}

unsigned switchover_source_recover(struct switchover_source *s,
                                   enum switchover_source_record record)
{
    unsigned actions;

    *s = (struct switchover_source){0};
    switch (record) {
    case SOURCE_RECORD_RELEASED:
        return start_commit(s);
    case SOURCE_RECORD_COMMIT:
        s->state = SOURCE_CHECKING;
        return SOURCE_CHECK_DOMAIN;
    case SOURCE_RECORD_RESTORE:
        start_restore(s, 0);
        s->undoing = false;
        s->recovered = true;
        return SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT;
    case SOURCE_RECORD_MOVING:
        break;
    }
    actions = start_abort(s, SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT);
    s->recovered = true;
    return actions;
}

/* --- target -------------------------------------------------------------------------------- */

const char *switchover_target_state_name(enum switchover_target_state state)
{
    switch (state) {
    case TARGET_RECEIVING:
        return "receiving";
    case TARGET_PREPARING:
        return "preparing";
    case TARGET_PREPARED:
        return "prepared";
    case TARGET_COMMITTING:
        return "committing";
    case TARGET_RESUMING:
        return "resuming";
    case TARGET_RESUMED:
        return "resumed";
    case TARGET_ABORTING:
        return "aborting";
    case TARGET_ABORTED:
        return "aborted";
    }
    return "?";
}

/* What is about to be destroyed is written down first: after a crash in the middle of it nobody may
 * take the rest for a prepared copy. */
static unsigned give_up(struct switchover_target *t)
{
    t->state = TARGET_ABORTING;
    t->in_doubt = false;
    return TARGET_JOURNAL_ABORTING;
}

static unsigned start_target_commit(struct switchover_target *t)
{
    t->state = TARGET_COMMITTING;
    t->in_doubt = false;
    return TARGET_JOURNAL_COMMITTED;
}

static unsigned step_receiving(struct switchover_target *t, enum switchover_target_event event)
{
    switch (event) {
    case TARGET_ON_FINISH_CALL:
        t->finish_held = true;
        break;
    case TARGET_ON_DISKS_DONE:
        t->disks_done = true;
        break;
    case TARGET_ON_MEMORY_DONE:
        t->memory_done = true;
        break;
    case TARGET_ON_FAILURE:
    case TARGET_ON_LINK_LOST:
    case TARGET_ON_ABORT:
    case TARGET_ON_FINISH_FAILED:
        return give_up(t);
    default:
        return 0;
    }
    if (!t->finish_held || !t->disks_done || !t->memory_done)
        return 0;
    t->state = TARGET_PREPARING;
    return TARGET_JOURNAL_PREPARED;
}

static unsigned step_prepared(struct switchover_target *t, enum switchover_target_event event)
{
    switch (event) {
    case TARGET_ON_COMMIT:
    case TARGET_ON_RESOLVE_TARGET:
        return start_target_commit(t);
    case TARGET_ON_ABORT:
    case TARGET_ON_FINISH_FAILED:
    case TARGET_ON_RESOLVE_SOURCE:
    case TARGET_ON_COPY_LOST: /* the source's may still live; if not, its disks are as complete */
        return give_up(t);
    case TARGET_ON_LINK_LOST:
        t->in_doubt = true;
        return TARGET_ASK_SOURCE;
    case TARGET_ON_LINK_UP:
        return TARGET_ASK_SOURCE;
    default:
        return 0;
    }
}

static unsigned step_preparing(struct switchover_target *t, enum switchover_target_event event)
{
    switch (event) {
    case TARGET_ON_PREPARED_JOURNALLED:
        t->state = TARGET_PREPARED;
        return TARGET_PASS_FINISH;
    /* FINISH3 has not been passed on, so no COMMIT can come: giving up is still safe. */
    case TARGET_ON_ABORT:
    case TARGET_ON_FAILURE:
    case TARGET_ON_LINK_LOST:
        return give_up(t);
    default:
        return 0;
    }
}

static unsigned step_resuming(struct switchover_target *t, enum switchover_target_event event)
{
    switch (event) {
    case TARGET_ON_RESUMED:
        t->state = TARGET_RESUMED;
        return TARGET_SEND_RESUMED | TARGET_JOURNAL_DONE;
    case TARGET_ON_RESUME_FAILED:
        return TARGET_RETRY_RESUME;
    case TARGET_ON_COPY_LOST:
        return TARGET_START_DOMAIN;
    case TARGET_ON_COPY_MISSING:
        t->copy_missing = true;
        return TARGET_RETRY_RESUME;
    case TARGET_ON_ABORT:
    case TARGET_ON_RESOLVE_SOURCE:
        return t->copy_missing ? give_up(t) : 0;
    default:
        return 0;
    }
}

unsigned switchover_target_step(struct switchover_target *t, enum switchover_target_event event)
{
    switch (t->state) {
    case TARGET_RECEIVING:
        return step_receiving(t, event);
    case TARGET_PREPARING:
        return step_preparing(t, event);
    case TARGET_PREPARED:
        return step_prepared(t, event);
    case TARGET_COMMITTING:
        if (event == TARGET_ON_COMMITTED_JOURNALLED) {
            t->state = TARGET_RESUMING;
            return TARGET_RESUME_DOMAIN;
        }
        return 0;
    case TARGET_RESUMING:
        return step_resuming(t, event);
    case TARGET_RESUMED: /* whatever the source believes: this is how it is */
        return event == TARGET_ON_COMMIT || event == TARGET_ON_ABORT || event == TARGET_ON_LINK_UP
                   ? TARGET_SEND_RESUMED
                   : 0;
    case TARGET_ABORTING:
        if (event == TARGET_ON_ABORT_JOURNALLED)
            return TARGET_CLEAN_UP;
        if (event == TARGET_ON_CLEANED) {
            t->state = TARGET_ABORTED;
            return TARGET_SEND_ABORTED | TARGET_JOURNAL_DONE;
        }
        return 0;
    case TARGET_ABORTED:
        return event == TARGET_ON_ABORT || event == TARGET_ON_COMMIT ? TARGET_SEND_ABORTED : 0;
    }
    return 0;
}

unsigned switchover_target_recover(struct switchover_target *t,
                                   enum switchover_target_state journalled)
{
    *t = (struct switchover_target){.state = journalled};
    switch (journalled) {
    case TARGET_PREPARING:
    case TARGET_PREPARED: /* FINISH3 may have been passed on: only the source knows the end */
        t->state = TARGET_PREPARED;
        t->in_doubt = true;
        return TARGET_ASK_SOURCE;
    case TARGET_COMMITTING:
    case TARGET_RESUMING:
        t->state = TARGET_RESUMING;
        return TARGET_RESUME_DOMAIN;
    case TARGET_RESUMED:
    case TARGET_ABORTED:
        return 0;
    case TARGET_RECEIVING:
        return give_up(t);
    case TARGET_ABORTING:
        return TARGET_CLEAN_UP;
    }
    return 0;
}
