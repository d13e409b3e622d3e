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
 *   - In post-copy FINISH3 makes the target's copy run, and pages are at the source until they have been pulled. What
 *     ends libvirt's connection at the source, libvirt's own death included, leaves its copy SWITCHED: libvirt never
 *     runs it again. Only ferryd can, and only what has all its memory; nobody stops it if that is wrong.
 *     Here it always can; QEMU cannot once it has lost its connections, and then the copy stands still: less than a quiet
 *     end promises here, and against no other law.
 *   - FINISH3 that has passed may still be lost with the target's ferryd, when libvirt has not read it; then libvirt
 *     kills its incoming copy.
 *   - In a drill the target's copy is a clone: it runs beside the VM, which is the source's copy at every moment.
 *
 * Planted bugs (enum bug) break one of ferry's own promises; a search that does not find them is broken.
 */
#ifndef FERRY_TESTS_ENGINE_SWITCHOVER_WORLD_H
#define FERRY_TESTS_ENGINE_SWITCHOVER_WORLD_H

#include <stdint.h>

#include "core/switchover/switchover.h"

enum copy {
    COPY_RUNNING,
    COPY_STOPPED,   /* libvirt's migration holds it */
    COPY_PAUSED,    /* nobody does */
    COPY_SUSPENDED, /* it has run, and was paused then: by a user, by a full disk */
    COPY_ENDED,     /* by itself, and libvirt knows */
    COPY_OFF,       /* and nobody knows why */
    COPY_SWITCHED,  /* source: stopped in post-copy, and nobody watches over it */
    COPY_GONE,      /* source: libvirt killed it because it migrated; target: there is none */
};

enum reply {
    REPLY_NONE,
    REPLY_FAILED,
    REPLY_UNDER_WAY,
    REPLY_AT_SOURCE,
    REPLY_RELEASED,
    REPLY_READ
};

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
    BUG_GIVEN_IS_CLAIMED,    /* a target in doubt runs by what it read, without having changed it */
    BUG_RUNS_UNDECIDED,      /* post-copy: FINISH3 passes before COMMIT, as without ferry */
    BUG_FEED_BEFORE_DURABLE, /* COMMIT sent before the record is durable, in post-copy */
    BUG_PULL_BEFORE_DURABLE, /* FINISH3 passed before the record is durable, in post-copy */
    BUG_PULLS_IS_RESUMED,    /* the source gives its copy up while pages are outstanding */
    BUG_KEPT_UNHEARD,        /* what was given runs again before the witness has said that it may */
    BUGS,
};

enum source_record {
    SJ_MOVING,
    SJ_COMMIT,
    SJ_RELEASED,
    SJ_ABORT,
    SJ_RESTORE,
    SJ_FEEDING,
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
    uint8_t switched, pulls;
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
    IS_POSTCOPY = 1 << 6,
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
    uint8_t pages_done;       /* post-copy: nothing is outstanding any more */
    uint8_t finish_unread;    /* FINISH3 passed, and libvirt has never seen it */
    uint8_t pages_lost;       /* it never will be: the source's copy died before */
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
    H_SWITCHED_ARRIVES,
    H_PULLS_ARRIVES,
    H_TARGET_RUNS,
    H_PAGES_PULLED,
    H_TARGET_LOOKS,
    H_SOURCE_UNATTENDED,
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
    H_TARGET_CRASHES_UNREAD,
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

const char *happening_name(enum happening h);
struct world new_world(struct budget budget, unsigned reach, enum bug bug);
/* 1: it happened; 0: it cannot happen now, and nothing changed. */
int happen(struct world *w, enum happening h);
/* What is wrong with a world: at any moment; when nothing more can happen; by recovering once more. NULL: nothing. */
const char *fault_of(const struct world *w);
const char *quiet_fault_of(const struct world *w);
const char *recovery_fault_of(const struct world *w);

#endif
