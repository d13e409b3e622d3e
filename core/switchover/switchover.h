/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit protocol of a move: two small state machines, pure. Events in, a set of actions out.
 *
 * Invariants: at any instant at most one copy can run, at least one complete copy exists, and no copy
 * runs that lacks a write which the guest was told is durable.
 *
 * The source decides; its journal is the decision. The target never runs without the source's COMMIT,
 * and the source sends COMMIT only when its own copy can never run again: libvirt has read the
 * successful FINISH3 reply (and will kill the stopped copy), or says itself that the copy migrated.
 *
 *   source                                        target
 *
 *   MOVING                                        RECEIVING
 *     | FINISH3 reply OK                            | FINISH3 held, disks done, memory done
 *     |   journal COMMIT                            |   journal PREPARED
 *   DECIDING                                      PREPARING
 *     | journalled: write the reply                 | journalled: pass FINISH3 to libvirt
 *   RELEASING ---- connection lost ---> CHECKING  PREPARED  <--- link lost: stays, asks (in doubt)
 *     | reply read                        |         | COMMIT: journal COMMITTED
 *     |   send COMMIT, journal RELEASED <-+       COMMITTING
 *   COMMITTING        gone, stopped for good        | journalled: resume the domain
 *     | RESUMED                           |       RESUMING
 *     |   withdraw, journal DONE          |         | resumed: journal, send RESUMED
 *   COMMITTED             it ran, or ended|       RESUMED
 *                                         v
 *   any failure before DECIDING --> ABORTING      any failure before PREPARED, ABORT --> ABORTING
 *                                     | target: ABORTED, source settled   | journalled: clean up, send ABORTED
 *                                   ABORTED                             ABORTED
 *
 * CHECKING: what the source's libvirt says once its own job on the domain has ended.
 *   running, or paused or ended for reasons of its own: it ran after the switchover began, or may have;
 *     the target's copy is old. The reply was not read, nothing was sent: abort.
 *   gone (off because it migrated): the reply was read: commit.
 *   paused by the migration: libvirt itself gave up deciding (it was restarted) and will not go on by
 *     itself; it has not run since, so the target's copy is whole: commit. What is left of it here is
 *     destroyed once the target runs.
 *   off, and libvirt does not know why (the host was restarted, or a transient domain is simply not
 *     there): nobody can say whether it ran in between: IN_DOUBT, until the target says that it runs or
 *     the operator decides. RELEASED in the journal keeps this rare.
 *
 * Autostart is taken from the VM during a move, so that its host's restart cannot bring an old copy back. Where
 * the move is then undone, the copy that is off because of that restart is started here (`restarts`), but not
 * before the target has said that it does not run it.
 *
 * ABORTING meets a target that says RESUMED only when an operator has resolved the move there. If the
 * copy here is off, the target is right; if it runs here, too, that is said (IN_DOUBT) and not made
 * worse. Therefore a copy that is found paused after a restart waits for the target's word, or for the
 * knowledge that there is none, before it goes on.
 *
 * With a witness (core/switchover/right.h), agreed by both sites before the move began, its key is a part of the decision:
 *   - FINISH3's reply is acted on only once the source HOLDs the right: no record, no reply before. It asks when
 *     the target says that it is prepared, beside libvirt's work. A target that has claimed the abort wins.
 *   - The source that COMMITs GIVEs the right as well: a target in doubt CLAIMs it there, and runs.
 *   - A target in doubt CLAIMs: what was never held is an abort from then on, what was given is its own, what is
 *     held stays in doubt, because the source may go either way.
 *   - The source that aborts KEEPs the right, which tells a target in doubt. Before a given copy runs here again,
 *     by the operator's word, that must have succeeded.
 * Answers come as SOURCE_ON_RIGHT, TARGET_ON_RIGHT with the key's value; what is to be asked for next is what
 * switchover_*_wish() says, as long as it says so. No answer is no event: then all is as without a witness, but
 * that a source which does not get HOLD goes no further, until its time is up and the move aborts.
 *
 * A drill is the same way with another end (`drill`, agreed before it begins). The source's journal knows no
 * decision, libvirt never gets the reply, and so the source's copy is the VM at every moment:
 *
 *   source                                        target
 *   MOVING                                        PREPARED
 *     | FINISH3 reply OK: end libvirt's connection  |
 *   DRILLING                                        |
 *     | libvirt let the copy here run: DRILL -----> | isolate it, run it as a clone
 *     |                                           DRILLING
 *     | <------ (the verdict) ABORTED ------------- | done: journal ABORTING, clean up
 *   ABORTED                                       ABORTED
 *
 * The clone is nobody's promise: whatever else happens at the target (a restart, the end of the session, any word
 * but DRILL) destroys it, COMMIT and the operator's word among them, and what it says of itself never moves the
 * source. There is no witness and no doubt: autostart stays with the source's copy, whose disks are the VM's all
 * the time.
 *
 * In post-copy (docs/protocol.md) the target's libvirt lets its copy run as soon as FINISH3 passes, and the rest of the
 * memory follows. So FINISH3 passes only after COMMIT, and COMMIT is said while the copy here is still needed:
 *
 *   source                                        target
 *   MOVING                                        RECEIVING
 *     |                                             | FINISH3 held, disks done, QEMU has loaded the devices' state
 *     |                                             |   journal SWITCHED
 *     |                                           PREPARING
 *     | <--------- prepared, switched ------------- | journalled
 *     |   journal FEEDING                         SWITCHED --- link lost, ABORT, copy lost --> ABORTING
 *   DECIDING                                        |
 *     | journalled: COMMIT -----------------------> |   journal PULLING
 *   FEEDING                                       COMMITTING
 *     |                                             | journalled: let FINISH3 pass: it runs
 *     | <--------- pulls -------------------------- PULLING
 *     |   (pages; channels lost and made again)     |
 *     | <--------- RESUMED ------------------------ | all pages are here: journal
 *     | withdraw, journal DONE                    RESUMED
 *   COMMITTED
 *
 * In FEEDING and PULLING the VM is the target's copy and the source's memory together: neither is given up, whatever
 * happens to links and ferryds, until the last page is there. libvirt at the source never lets a copy run again that
 * has switched to post-copy. A SWITCHED target has not run and needs nobody's leave to give up: there is no doubt there,
 * and what says ABORTED then has never run. The source's copy goes on after that, by our hand (SOURCE_RESUME_DOMAIN).
 * A move that may switch, and converges before it does, ends as any other: then FINISH3 leaves the copy paused.
 *
 * Every event is accepted in every state; one that means nothing there changes nothing. Recovery
 * enters with switchover_*_recover() and the same events, so running it twice is running it once.
 */
#ifndef FERRY_CORE_SWITCHOVER_H
#define FERRY_CORE_SWITCHOVER_H

#include <stdbool.h>

#include "core/switchover/right.h"

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
    SOURCE_DRILLING,
    SOURCE_FEEDING, /* post-copy: the target runs, or is about to, on the memory here */
};

enum switchover_source_event {
    SOURCE_ON_FINISH_OK, /* the target's libvirt answered FINISH3 with success */
    SOURCE_ON_FAILURE,   /* anything failed, or the operator cancelled */
    SOURCE_ON_COMMIT_JOURNALLED,
    SOURCE_ON_ABORT_JOURNALLED, /* ABORT or RESTORE */
    SOURCE_ON_REPLY_READ, /* libvirt took the last byte of the reply and is still connected, or its
                           * migration call returned success */
    SOURCE_ON_RPC_LOST,   /* libvirt's connection ended */
    /* Answers to CHECK_DOMAIN, when no libvirt job is left on the domain. */
    SOURCE_ON_DOMAIN_RUNNING,
    SOURCE_ON_DOMAIN_PAUSED,    /* as the migration left it: it has not run since */
    SOURCE_ON_DOMAIN_SUSPENDED, /* paused for another reason: it may have run since */
    SOURCE_ON_DOMAIN_ENDED,     /* off for reasons of its own */
    SOURCE_ON_DOMAIN_OFF,       /* off or not there, and libvirt does not know why */
    SOURCE_ON_DOMAIN_GONE,      /* off, because it migrated */
    SOURCE_ON_TARGET_RESUMED,   /* the target's words */
    SOURCE_ON_TARGET_ABORTED,
    SOURCE_ON_TARGET_UNKNOWN, /* the target knows nothing of this move */
    SOURCE_ON_TARGET_ASKS,    /* a prepared target wants to know */
    SOURCE_ON_TARGET_SILENT,  /* it cannot be reached, for some seconds now */
    SOURCE_ON_LINK_UP,        /* a (new) session to the target */
    SOURCE_ON_RESOLVE_SOURCE, /* the operator's explicit word: run at ... */
    SOURCE_ON_RESOLVE_TARGET,
    SOURCE_ON_WITNESS_AGREED,  /* the key is armed, and the target counts on it */
    SOURCE_ON_TARGET_PREPARED, /* its FINISH3 is under way to an answer */
    SOURCE_ON_TARGET_SWITCHED, /* it is prepared in post-copy, its FINISH3 is held until COMMIT */
    SOURCE_ON_TARGET_PULLS,    /* it has COMMIT, and its FINISH3 has passed */
    SOURCE_ON_RIGHT,           /* the key's value, one event each, in the order of enum right */
    SOURCE_ON_RIGHT_LAST = SOURCE_ON_RIGHT + RIGHTS - 1,
};

enum switchover_source_action {
    SOURCE_JOURNAL_COMMIT = 1 << 0,
    SOURCE_WRITE_REPLY = 1 << 1,
    SOURCE_STOP_MIGRATION = 1 << 2, /* abort libvirt's job, close its channels; then CHECK_DOMAIN */
    SOURCE_CHECK_DOMAIN = 1 << 3,   /* wait until libvirt's job has ended, then report the domain */
    SOURCE_RESUME_DOMAIN = 1 << 4,  /* the paused one */
    SOURCE_START_DOMAIN = 1 << 5,   /* anew, from its disks: it was off */
    SOURCE_DESTROY_DOMAIN = 1 << 6, /* whatever is left of it here: the target runs */
    SOURCE_SEND_COMMIT = 1 << 7,
    SOURCE_SEND_ABORT = 1 << 8,
    SOURCE_WITHDRAW = 1 << 9, /* definition and disks of the old copy */
    SOURCE_JOURNAL_RELEASED = 1 << 10,
    SOURCE_JOURNAL_ABORT = 1 << 11,
    SOURCE_JOURNAL_RESTORE = 1 << 12,
    SOURCE_JOURNAL_DONE = 1 << 13, /* with the final state */
    SOURCE_END_MIGRATION =
        1 << 14, /* close libvirt's channels at once: it lets the copy here run */
    SOURCE_SEND_DRILL = 1 << 15,
    SOURCE_JOURNAL_FEEDING = 1 << 16, /* then SOURCE_ON_COMMIT_JOURNALLED */
};

/* What the source's journal may hold of a move that is not over. */
enum switchover_source_record {
    SOURCE_RECORD_MOVING,   /* nothing is decided; also: aborting */
    SOURCE_RECORD_COMMIT,   /* decided; whether libvirt has the reply is not known */
    SOURCE_RECORD_RELEASED, /* decided, and the copy here can never run again by itself */
    SOURCE_RECORD_FEEDING, /* decided in post-copy: the copy here is needed, and never runs again */
    SOURCE_RECORD_RESTORE, /* undone by the operator's word: the copy here is to run, from its disks if need be */
};

struct switchover_source {
    enum switchover_source_state state;
    bool drill;          /* never a decision. Set before the first event */
    bool witness;        /* agreed: the key counts */
    bool prepared;       /* MOVING: the target has said so */
    bool finish_ok;      /* MOVING: libvirt's reply is here */
    bool switched;       /* to post-copy, and the target is prepared; while it is undone, too */
    bool pulls;          /* FEEDING: the target has heard COMMIT */
    bool right_held;     /* MOVING: the witness has said so */
    bool right_kept;     /* ABORTING: the witness has had its say */
    bool rpc_lost;       /* DECIDING: libvirt's connection ended before the decision was durable */
    bool target_aborted; /* DECIDING, RELEASING: the target has ended it meanwhile */
    /* ABORTING: */
    bool
        undoing; /* the last durable record says commit: nothing is said or done until it does not */
    bool recovered;      /* after a restart: before the copy goes on, the target is heard */
    bool start_wanted;   /* a copy that is off is to be started: the operator said so */
    bool restarts;       /* the same, because its host would have: only once the target is heard */
    bool started;        /* that was tried */
    bool waits;          /* the copy here could go on, and waits for that */
    bool domain_settled; /* the copy here is as it should be */
    bool domain_alive;   /* and it runs, or may be made to. Also in DRILLING: it runs */
    bool target_settled; /* the target has cleaned up */
    bool target_resumed; /* the target runs: by its operator's word. Also in IN_DOUBT: both do */
};

/* Returns a set of enum switchover_source_action. */
unsigned switchover_source_step(struct switchover_source *s, enum switchover_source_event event);
/* Enters after a restart. @drill, @witness: as agreed before. @restarts: the host was restarted since the move began,
 * and the VM starts with its host. Returns actions. */
unsigned switchover_source_recover(struct switchover_source *s,
                                   enum switchover_source_record record, bool drill, bool witness,
                                   bool restarts);
/* What is wanted of the witness now, and again until it is no longer. */
enum right_wish switchover_source_wish(const struct switchover_source *s);
/* The copy here waits for the witness alone: nothing may be done about it before. */
bool switchover_source_waits_for_witness(const struct switchover_source *s);
const char *switchover_source_state_name(enum switchover_source_state state);

/* --- target -------------------------------------------------------------------------------- */

enum switchover_target_state {
    TARGET_RECEIVING,
    TARGET_PREPARING,
    TARGET_PREPARED,
    TARGET_DRILLING, /* the clone runs, or is about to */
    TARGET_COMMITTING,
    TARGET_RESUMING,
    TARGET_RESUMED,
    TARGET_ABORTING,
    TARGET_ABORTED,
    TARGET_SWITCHED, /* prepared in post-copy: nothing of it has run */
    TARGET_PULLING,  /* the copy runs, or is about to, and pages are at the source */
};

enum switchover_target_event {
    TARGET_ON_FINISH_CALL, /* FINISH3 of a successful perform arrived and is held */
    TARGET_ON_DISKS_DONE,  /* every log applied, every disk flushed */
    TARGET_ON_MEMORY_DONE, /* the RAM stream is delivered to its end */
    TARGET_ON_SWITCHED,    /* instead: QEMU has loaded the devices' state in post-copy */
    TARGET_ON_PAGES_DONE,  /* PULLING: nothing is outstanding any more */
    TARGET_ON_FAILURE,   /* anything failed here; the move's session ended; FINISH3 was cancelled */
    TARGET_ON_LINK_LOST, /* the session ended */
    TARGET_ON_PREPARED_JOURNALLED, /* PREPARED or SWITCHED */
    TARGET_ON_FINISH_FAILED,       /* libvirt answered FINISH3 with an error: no copy here */
    TARGET_ON_COMMIT,              /* the source's words */
    TARGET_ON_ABORT,
    TARGET_ON_DRILL,
    TARGET_ON_DRILL_DONE,           /* answer to RUN_CLONE, whatever came of it */
    TARGET_ON_COMMITTED_JOURNALLED, /* COMMITTED or PULLING */
    TARGET_ON_ABORT_JOURNALLED,
    TARGET_ON_RESUMED, /* answers to RESUME_DOMAIN and START_DOMAIN */
    TARGET_ON_RESUME_FAILED,
    TARGET_ON_COPY_LOST,    /* the paused copy is off: its QEMU died. Also without RESUME_DOMAIN */
    TARGET_ON_COPY_MISSING, /* there is no such domain at all */
    TARGET_ON_CLEANED,      /* answer to CLEAN_UP */
    TARGET_ON_LINK_UP,
    TARGET_ON_RESOLVE_SOURCE,
    TARGET_ON_RESOLVE_TARGET,
    TARGET_ON_RIGHT, /* the key's value, one event each, in the order of enum right */
    TARGET_ON_RIGHT_LAST = TARGET_ON_RIGHT + RIGHTS - 1,
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
    TARGET_JOURNAL_ABORTING = 1 << 10,
    TARGET_START_DOMAIN = 1 << 11, /* anew, from its disks, which are complete */
    TARGET_RUN_CLONE = 1 << 12,    /* if it is isolated and marked; until its verdict */
    TARGET_SEND_DRILLED = 1 << 13, /* the verdict */
    TARGET_JOURNAL_SWITCHED = 1 << 14,
    TARGET_JOURNAL_PULLING = 1 << 15,
    TARGET_SEND_SWITCHED = 1 << 16,
    TARGET_RUN_FINISH = 1 << 17, /* let FINISH3 pass as it is: the copy runs */
    TARGET_SEND_PULLS = 1 << 18,
    TARGET_WATCH_PAGES =
        1 << 19, /* ask libvirt again and again: PAGES_DONE, COPY_LOST, COPY_MISSING */
};

struct switchover_target {
    enum switchover_target_state state;
    bool drill;   /* what comes is a clone. Set before the first event, as is: */
    bool witness; /* agreed: the key counts */
    bool finish_held, disks_done, memory_done;
    bool in_doubt;     /* PREPARED without a link to the source */
    bool switched;     /* to post-copy: FINISH3 must not pass before COMMIT */
    bool copy_missing; /* RESUMING, PULLING: told to run, by the operator, what was never here */
};

unsigned switchover_target_step(struct switchover_target *t, enum switchover_target_event event);
/* Enters after a restart with the last state journalled (RECEIVING, PREPARED, COMMITTING, ABORTING,
 * SWITCHED, PULLING). */
unsigned switchover_target_recover(struct switchover_target *t,
                                   enum switchover_target_state journalled, bool drill,
                                   bool witness);
enum right_wish switchover_target_wish(const struct switchover_target *t);
const char *switchover_target_state_name(enum switchover_target_state state);

#endif
