/* SPDX-License-Identifier: Apache-2.0 */
/* The commit protocol at the target: states and invariants are drawn in switchover.h. */
#include "core/switchover/switchover.h"

const char *switchover_target_state_name(enum switchover_target_state state)
{
    switch (state) {
    case TARGET_RECEIVING:
        return "receiving";
    case TARGET_PREPARING:
        return "preparing";
    case TARGET_PREPARED:
        return "prepared";
    case TARGET_DRILLING:
        return "drilling";
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
    case TARGET_SWITCHED:
        return "switched";
    case TARGET_PULLING:
        return "pulling";
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
    case TARGET_ON_SWITCHED:
        t->memory_done = t->switched = true;
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
    return t->switched ? TARGET_JOURNAL_SWITCHED : TARGET_JOURNAL_PREPARED;
}

/* Nothing keeps a clone but DRILL, and that not for long. */
static unsigned step_clone(struct switchover_target *t, unsigned event)
{
    switch (event) {
    case TARGET_ON_DRILL:
        if (t->state == TARGET_DRILLING)
            return 0;
        t->state = TARGET_DRILLING;
        return TARGET_RUN_CLONE;
    case TARGET_ON_DRILL_DONE:
        return t->state == TARGET_DRILLING ? TARGET_SEND_DRILLED | give_up(t) : 0;
    case TARGET_ON_COMMIT:
    case TARGET_ON_ABORT:
    case TARGET_ON_LINK_LOST:
    case TARGET_ON_FINISH_FAILED:
    case TARGET_ON_COPY_LOST:
    case TARGET_ON_RESOLVE_SOURCE:
        return give_up(t);
    case TARGET_ON_LINK_UP:
        return TARGET_ASK_SOURCE;
    default: /* the end of a channel: the source has closed them */
        return 0;
    }
}

static unsigned step_prepared(struct switchover_target *t, unsigned event)
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
    case TARGET_ON_RIGHT + RIGHT_CLAIMED: /* given to us, and nobody can take it back */
        return start_target_commit(t);
    case TARGET_ON_RIGHT + RIGHT_KEPT:
        return give_up(t);
    default:
        return 0;
    }
}

enum right_wish switchover_target_wish(const struct switchover_target *t)
{
    return t->witness && t->state == TARGET_PREPARED && t->in_doubt ? RIGHT_WISH_CLAIM
                                                                    : RIGHT_WISH_NOTHING;
}

static unsigned step_preparing(struct switchover_target *t, enum switchover_target_event event)
{
    switch (event) {
    case TARGET_ON_PREPARED_JOURNALLED:
        t->state = t->switched ? TARGET_SWITCHED : TARGET_PREPARED;
        return t->switched ? TARGET_SEND_SWITCHED : TARGET_PASS_FINISH;
    /* FINISH3 has not been passed on, so no COMMIT can come: giving up is still safe. */
    case TARGET_ON_ABORT:
    case TARGET_ON_FAILURE:
    case TARGET_ON_LINK_LOST:
        return give_up(t);
    default:
        return 0;
    }
}

/* Nothing of it has run, and nothing runs before COMMIT: giving up needs nobody's leave. */
static unsigned step_switched(struct switchover_target *t, enum switchover_target_event event)
{
    switch (event) {
    case TARGET_ON_COMMIT:
        t->state = TARGET_COMMITTING;
        return TARGET_JOURNAL_PULLING;
    case TARGET_ON_ABORT:
    case TARGET_ON_FAILURE:
    case TARGET_ON_LINK_LOST:
    case TARGET_ON_FINISH_FAILED:
    case TARGET_ON_COPY_LOST:
    case TARGET_ON_RESOLVE_SOURCE:
        return give_up(t);
    default:
        return 0;
    }
}

/* It may have run: there is no way back, whatever is lost but the copy itself. */
static unsigned step_pulling(struct switchover_target *t, enum switchover_target_event event)
{
    switch (event) {
    case TARGET_ON_PAGES_DONE:
    case TARGET_ON_RESUMED: /* started anew, from its disks */
        t->state = TARGET_RESUMED;
        return TARGET_SEND_RESUMED | TARGET_JOURNAL_DONE;
    case TARGET_ON_COMMIT:
    case TARGET_ON_LINK_UP:
        return TARGET_SEND_PULLS;
    case TARGET_ON_COPY_LOST:
        return TARGET_START_DOMAIN;
    case TARGET_ON_COPY_MISSING:
        t->copy_missing = true;
        return 0;
    case TARGET_ON_ABORT:
    case TARGET_ON_RESOLVE_SOURCE:
        return t->copy_missing ? give_up(t) : 0;
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
        return t->drill ? step_clone(t, event) : step_prepared(t, event);
    case TARGET_DRILLING:
        return step_clone(t, event);
    case TARGET_COMMITTING:
        if (event == TARGET_ON_COMMITTED_JOURNALLED && t->switched) {
            t->state = TARGET_PULLING;
            return TARGET_RUN_FINISH | TARGET_SEND_PULLS | TARGET_WATCH_PAGES;
        }
        if (event == TARGET_ON_COMMITTED_JOURNALLED) {
            t->state = TARGET_RESUMING;
            return TARGET_RESUME_DOMAIN;
        }
        return 0;
    case TARGET_RESUMING:
        return step_resuming(t, event);
    case TARGET_SWITCHED:
        return step_switched(t, event);
    case TARGET_PULLING:
        return step_pulling(t, event);
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
                                   enum switchover_target_state journalled, bool drill,
                                   bool witness)
{
    *t = (struct switchover_target){.state = journalled, .drill = drill, .witness = witness};
    if (drill && journalled != TARGET_ABORTING && journalled != TARGET_ABORTED)
        return give_up(t); /* a clone does not outlive its ferryd */
    switch (journalled) {
    case TARGET_DRILLING: /* never written: a clone's record says PREPARED until it says ABORTING */
        return give_up(t);
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
    case TARGET_SWITCHED: /* its FINISH3 is gone with libvirt's connection, and it has not run */
        return give_up(t);
    case TARGET_PULLING:
        t->switched = true;
        return TARGET_WATCH_PAGES | TARGET_SEND_PULLS;
    case TARGET_ABORTING:
        return TARGET_CLEAN_UP;
    }
    return 0;
}
