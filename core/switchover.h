/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit protocol of a move: two small state machines, pure. Events in, a set of actions out.
 *
 * Invariants: at any instant at most one copy can run, and at least one complete copy exists.
 *
 * The source decides; its journal is the decision. The target never runs without the source's COMMIT,
 * and the source sends COMMIT only when its own copy can never run again: libvirt has read the
 * successful FINISH3 reply (and will kill the stopped copy), or says itself that the copy is gone.
 *
 *   source                                        target
 *
 *   MOVING                                        RECEIVING
 *     | FINISH3 reply OK                            | FINISH3 held, disks done, memory done
 *     |   journal COMMIT                            |   journal PREPARED
 *   DECIDING                                      PREPARING
 *     | journalled: write the reply                 | journalled: pass FINISH3 to libvirt
 *   RELEASING ---- connection lost ---> CHECKING  PREPARED  <--- link lost: stays, asks (in doubt)
 *     | reply read                        | gone    | COMMIT: journal COMMITTED
 *     |   send COMMIT <-------------------+       COMMITTING
 *   COMMITTING <---- paused: send COMMIT, too       | journalled: resume the domain
 *     | RESUMED                           |       RESUMING
 *     |   withdraw, journal DONE          |         | resumed: journal, send RESUMED
 *   COMMITTED                     running |       RESUMED
 *                                         v
 *   any failure before DECIDING --> ABORTING      any failure before PREPARED, ABORT --> ABORTING
 *                                     | target: ABORTED, source settled   | cleaned: send ABORTED
 *                                   ABORTED                             ABORTED
 *
 * CHECKING: what the source's libvirt says once its own job on the domain has ended. Running: the
 * reply was not read, nothing was sent, abort. Gone: it was read, commit. Paused: libvirt itself gave
 * up deciding (it was restarted); our journal says COMMIT, so commit; the paused copy is destroyed once
 * the target runs.
 *
 * Every event is accepted in every state; one that means nothing there changes nothing. Recovery
 * enters with switchover_*_recover() and the same events, so running it twice is running it once.
 */
#ifndef FERRY_CORE_SWITCHOVER_H
#define FERRY_CORE_SWITCHOVER_H

#include <stdbool.h>

/* --- source -------------------------------------------------------------------------------- */

enum switchover_source_state {
    SOURCE_MOVING,
    SOURCE_DECIDING,
    SOURCE_RELEASING,
    SOURCE_CHECKING,
    SOURCE_COMMITTING,
    SOURCE_COMMITTED,
    SOURCE_ABORTING,
    SOURCE_ABORTED,
    SOURCE_IN_DOUBT,
};

enum switchover_source_event {
    SOURCE_ON_FINISH_OK, /* the target's libvirt answered FINISH3 with success */
    SOURCE_ON_FAILURE,   /* anything failed, or the operator cancelled */
    SOURCE_ON_COMMIT_JOURNALLED,
    SOURCE_ON_REPLY_READ,     /* libvirt took the last byte of the reply and is still connected */
    SOURCE_ON_RPC_LOST,       /* libvirt's connection ended */
    SOURCE_ON_DOMAIN_RUNNING, /* answers to CHECK_DOMAIN, when no libvirt job is left on the domain */
    SOURCE_ON_DOMAIN_PAUSED,
    SOURCE_ON_DOMAIN_GONE,
    SOURCE_ON_TARGET_RESUMED, /* the target's words */
    SOURCE_ON_TARGET_ABORTED,
    SOURCE_ON_TARGET_UNKNOWN, /* the target knows nothing of this move */
    SOURCE_ON_TARGET_ASKS,    /* a prepared target wants to know */
    SOURCE_ON_LINK_UP,        /* a (new) session to the target */
    SOURCE_ON_RESOLVE_SOURCE, /* the operator's explicit word: run at ... */
    SOURCE_ON_RESOLVE_TARGET,
};

enum switchover_source_action {
    SOURCE_JOURNAL_COMMIT = 1 << 0,
    SOURCE_WRITE_REPLY = 1 << 1,
    SOURCE_STOP_MIGRATION = 1 << 2, /* abort libvirt's job, close its channels; then CHECK_DOMAIN */
    SOURCE_CHECK_DOMAIN = 1 << 3,   /* wait until libvirt's job has ended, then report the domain */
    SOURCE_RESUME_DOMAIN = 1 << 4,  /* if the move found it running */
    SOURCE_DESTROY_DOMAIN = 1 << 5, /* the paused remainder of a committed move */
    SOURCE_SEND_COMMIT = 1 << 6,
    SOURCE_SEND_ABORT = 1 << 7,
    SOURCE_WITHDRAW = 1 << 8, /* definition, autostart, disks of the old copy */
    SOURCE_JOURNAL_ABORT = 1 << 9,
    SOURCE_JOURNAL_DONE = 1 << 10, /* with the final state */
};

struct switchover_source {
    enum switchover_source_state state;
    bool rpc_lost;       /* DECIDING: libvirt's connection ended before the decision was durable */
    bool domain_settled; /* ABORTING: the copy here runs (or is gone for its own reasons) */
    bool target_settled; /* ABORTING: the target has cleaned up */
};

/* Returns a set of enum switchover_source_action. */
unsigned switchover_source_step(struct switchover_source *s, enum switchover_source_event event);
/* Enters after a restart: @commit_journalled says which record was found. Returns actions. */
unsigned switchover_source_recover(struct switchover_source *s, bool commit_journalled);
const char *switchover_source_state_name(enum switchover_source_state state);

/* --- target -------------------------------------------------------------------------------- */

enum switchover_target_state {
    TARGET_RECEIVING,
    TARGET_PREPARING,
    TARGET_PREPARED,
    TARGET_COMMITTING,
    TARGET_RESUMING,
    TARGET_RESUMED,
    TARGET_ABORTING,
    TARGET_ABORTED,
};

enum switchover_target_event {
    TARGET_ON_FINISH_CALL, /* FINISH3 of a successful perform arrived and is held */
    TARGET_ON_DISKS_DONE,  /* every log applied, every disk flushed */
    TARGET_ON_MEMORY_DONE, /* the RAM stream is delivered to its end */
    TARGET_ON_FAILURE,   /* anything failed here; the move's session ended; FINISH3 was cancelled */
    TARGET_ON_LINK_LOST, /* the session ended */
    TARGET_ON_PREPARED_JOURNALLED,
    TARGET_ON_FINISH_FAILED, /* libvirt answered FINISH3 with an error: no copy here */
    TARGET_ON_COMMIT,        /* the source's words */
    TARGET_ON_ABORT,
    TARGET_ON_COMMITTED_JOURNALLED,
    TARGET_ON_RESUMED, /* answers to RESUME_DOMAIN */
    TARGET_ON_RESUME_FAILED,
    TARGET_ON_CLEANED, /* answer to CLEAN_UP */
    TARGET_ON_LINK_UP,
    TARGET_ON_RESOLVE_SOURCE,
    TARGET_ON_RESOLVE_TARGET,
};

enum switchover_target_action {
    TARGET_JOURNAL_PREPARED = 1 << 0,
    TARGET_PASS_FINISH = 1 << 1,
    TARGET_JOURNAL_COMMITTED = 1 << 2,
    TARGET_RESUME_DOMAIN = 1 << 3,
    TARGET_SEND_RESUMED = 1 << 4,
    TARGET_JOURNAL_DONE = 1 << 5,
    TARGET_CLEAN_UP = 1 << 6, /* channels, paused domain, half-made disks */
    TARGET_SEND_ABORTED = 1 << 7,
    TARGET_ASK_SOURCE = 1 << 8,
    TARGET_RETRY_RESUME = 1 << 9, /* after a pause */
};

struct switchover_target {
    enum switchover_target_state state;
    bool finish_held, disks_done, memory_done;
    bool in_doubt; /* PREPARED without a link to the source */
};

unsigned switchover_target_step(struct switchover_target *t, enum switchover_target_event event);
/* Enters after a restart with the last state journalled (RECEIVING, PREPARED, COMMITTING ...). */
unsigned switchover_target_recover(struct switchover_target *t,
                                   enum switchover_target_state journalled);
const char *switchover_target_state_name(enum switchover_target_state state);

#endif
