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
    return SOURCE_SEND_COMMIT;
}

static unsigned start_abort(struct switchover_source *s, unsigned more)
{
    s->state = SOURCE_ABORTING;
    s->domain_settled = s->target_settled = false;
    return SOURCE_JOURNAL_ABORT | more;
}

static unsigned end_abort(struct switchover_source *s)
{
    if (!s->domain_settled || !s->target_settled)
        return 0;
    s->state = SOURCE_ABORTED;
    return SOURCE_JOURNAL_DONE;
}

static unsigned step_committing(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_TARGET_RESUMED:
        s->state = SOURCE_COMMITTED;
        return SOURCE_DESTROY_DOMAIN | SOURCE_WITHDRAW | SOURCE_JOURNAL_DONE;
    case SOURCE_ON_LINK_UP:
    case SOURCE_ON_TARGET_ASKS:
        return SOURCE_SEND_COMMIT;
    case SOURCE_ON_TARGET_ABORTED: /* cannot be by the protocol: somebody resolved it there, or lost its journal */
    case SOURCE_ON_TARGET_UNKNOWN:
        s->state = SOURCE_IN_DOUBT;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_checking(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_DOMAIN_RUNNING:
        start_abort(s, 0);
        s->domain_settled = true;
        return SOURCE_JOURNAL_ABORT | SOURCE_SEND_ABORT;
    case SOURCE_ON_DOMAIN_GONE:
    case SOURCE_ON_DOMAIN_PAUSED:
        return start_commit(s);
    case SOURCE_ON_TARGET_RESUMED: /* only our COMMIT of an earlier life can have caused it */
        start_commit(s);
        return step_committing(s, event);
    default:
        return 0;
    }
}

static unsigned step_aborting(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_DOMAIN_PAUSED:
        return SOURCE_RESUME_DOMAIN | SOURCE_CHECK_DOMAIN;
    case SOURCE_ON_DOMAIN_RUNNING:
    case SOURCE_ON_DOMAIN_GONE: /* the guest shut down or was destroyed: nothing of ours */
        s->domain_settled = true;
        return end_abort(s);
    case SOURCE_ON_TARGET_ABORTED:
    case SOURCE_ON_TARGET_UNKNOWN:
        s->target_settled = true;
        return end_abort(s);
    case SOURCE_ON_LINK_UP:
    case SOURCE_ON_TARGET_ASKS:
        return s->target_settled ? 0 : SOURCE_SEND_ABORT;
    default:
        return 0;
    }
}

static unsigned step_in_doubt(struct switchover_source *s, enum switchover_source_event event)
{
    switch (event) {
    case SOURCE_ON_TARGET_RESUMED:
        s->state = SOURCE_COMMITTING;
        return step_committing(s, event);
    case SOURCE_ON_RESOLVE_SOURCE:
        return start_abort(s, SOURCE_RESUME_DOMAIN | SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT);
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
        /* Nothing else happens until the record is durable: CHECKING may end in sending COMMIT. */
        if (event == SOURCE_ON_RPC_LOST)
            s->rpc_lost = true;
        if (event != SOURCE_ON_COMMIT_JOURNALLED)
            return 0;
        s->state = s->rpc_lost ? SOURCE_CHECKING : SOURCE_RELEASING;
        return s->rpc_lost ? SOURCE_CHECK_DOMAIN : SOURCE_WRITE_REPLY;
    case SOURCE_RELEASING:
        if (event == SOURCE_ON_REPLY_READ)
            return start_commit(s);
        if (event == SOURCE_ON_RPC_LOST) {
            s->state = SOURCE_CHECKING;
            return SOURCE_CHECK_DOMAIN;
        }
        return 0;
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

unsigned switchover_source_recover(struct switchover_source *s, bool commit_journalled)
{
    *s = (struct switchover_source){0};
    if (commit_journalled) {
        s->state = SOURCE_CHECKING;
        return SOURCE_CHECK_DOMAIN;
    }
    return start_abort(s, SOURCE_CHECK_DOMAIN | SOURCE_SEND_ABORT);
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

static unsigned clean_up(struct switchover_target *t)
{
    t->state = TARGET_ABORTING;
    t->in_doubt = false;
    return TARGET_CLEAN_UP;
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
        return clean_up(t);
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
        return clean_up(t);
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
        return clean_up(t);
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
        if (event == TARGET_ON_RESUMED) {
            t->state = TARGET_RESUMED;
            return TARGET_SEND_RESUMED | TARGET_JOURNAL_DONE;
        }
        return event == TARGET_ON_RESUME_FAILED ? TARGET_RETRY_RESUME : 0;
    case TARGET_RESUMED:
        return event == TARGET_ON_COMMIT || event == TARGET_ON_LINK_UP ? TARGET_SEND_RESUMED : 0;
    case TARGET_ABORTING:
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
    case TARGET_ABORTING:
        return clean_up(t);
    }
    return 0;
}
