/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A move as both sites keep it: identity, phase, measurements, journal record, JSON views.
 *
 * The two roles are core/move/move_source.c and core/move/move_target.c. A move stays in the list after its end,
 * light, as history; its heavy half (`role`) is freed then.
 *
 *   phases:  preparing > copying > mirroring > memory > stopped > prepared > committed > resumed > done
 *   in post-copy:                                             ... > prepared > committed > post-copy > resumed > done
 *   of a drill:                                               ... > prepared > drilling > done
 */
#ifndef FERRY_CORE_MOVE_H
#define FERRY_CORE_MOVE_H

#include <jansson.h>

#include "core/base/boot.h"
#include "core/move/downtime.h"
#include "core/operations/drill.h"
#include "core/move/move_right.h"
#include "core/policy/policy_resolve.h"
#include "core/operations/prediction.h"
#include "core/move/ram_pipe.h"
#include "core/service.h"
#include "core/move/source_stun.h"
#include "netlink/shaper.h"
#include "storage/congestion.h"

enum move_phase {
    MOVE_PREPARING, /* preflight, target storage */
    MOVE_COPYING,   /* bulk copy of the disks, guest writes mirrored beside it */
    MOVE_MIRRORING, /* all mirrors READY */
    MOVE_MEMORY,    /* RAM rounds */
    MOVE_STOPPED,   /* the guest has stopped at the source: downtime runs */
    MOVE_PREPARED,  /* the target has everything and promised */
    MOVE_DRILLING,  /* of a drill: the VM runs on at the source, its clone at the target */
    MOVE_COMMITTED, /* the source has decided */
    MOVE_POSTCOPY, /* the target runs, and not all of its memory is there: losing either site now loses it */
    MOVE_RESUMED, /* the target runs */
    MOVE_DONE,    /* nothing left to do */
    MOVE_PHASES,
};

enum move_outcome {
    MOVE_RUNNING,
    MOVE_OUTCOME_COMMITTED,
    MOVE_OUTCOME_ABORTED,
    MOVE_OUTCOME_IN_DOUBT,
    MOVE_OUTCOME_DRILLED, /* a drill came to its verdict; the VM is where it was */
};

struct move_progress {
    uint64_t disk_total, disk_done;   /* virtual bytes of all disks; copied or zero */
    uint64_t disk_payload, disk_wire; /* data taken from QEMU; bytes into the link */
    int disk_pack_level;              /* of the disks' compression now; 0: none */
    uint64_t disk_pack_cpu_ns;        /* what it took */
    uint64_t disk_seed;               /* of the data, what the target had on a seed */
    uint64_t log_fill, log_peak;      /* acknowledged, not yet applied; at most in memory */
    uint64_t spooled, spooled_ever;   /* of log_fill, on the spool; all that ever was */
    uint64_t checked, unchecked;      /* compared and equal, ever; not (yet) compared */
    uint64_t bulk_speed;              /* limit set on the copy, bytes/s; 0 = none */
    const char *bulk_reason;          /* why */
    uint64_t guest_speed;     /* pace of the guest's acknowledgements, bytes/s; 0 = at once */
    const char *guest_reason; /* why */
    /* time for which either was held back, by reason */
    uint64_t copy_slowed_ms[CONGESTION_REASONS], guest_slowed_ms[CONGESTION_REASONS];
    uint64_t memory_total, memory_remaining, memory_wire, memory_stream;
    uint64_t memory_processed;   /* by QEMU's count, of the same moment as `memory_remaining` */
    bool memory_codec;           /* used: what follows holds */
    struct ram_pipe_stats codec; /* of the RAM codec's half at this site */
    uint64_t dirty_rate;         /* bytes/s */
    uint64_t iterations;
    uint64_t rtt_us;
    uint64_t link_wire; /* of the session since the move began */
    unsigned outages;
    uint64_t latency_p50_us, latency_p99_us, latency_max_us, guest_writes;
    uint64_t rate;         /* on the link, bytes/s over the last seconds */
    uint64_t payload_rate; /* of disks and memory, taken from QEMU; ditto */
};

struct move {
    TAILQ_ENTRY(move) entry;
    struct service *service;
    char id[JOURNAL_ID_BYTES];
    enum journal_role role;
    struct domain_info info;
    char peer[WIRE_NAME_BYTES];
    bool persistent, autostart;  /* of the domain at the source */
    char boot_id[BOOT_ID_BYTES]; /* of this site's host when the move began here */
    int64_t created_ms;          /* wall clock */
    enum move_phase phase;
    uint64_t phase_ns[MOVE_PHASES]; /* monotonic; 0 = not reached */
    uint64_t ended_ns;
    int64_t downtime_ms;            /* -1 = none measured */
    struct downtime_parts downtime; /* of which; valid when downtime_known */
    bool downtime_known;
    bool drill;  /* it never commits: its copy at the target is a clone */
    bool verify; /* the disks are compared before the decision */
    bool hold;   /* one step before the switchover, until released; see core/move/source_hold.c */
    bool held;   /* it is there now */
    bool time_limit_reached; /* of the policy: it has been acted upon */
    bool may_postcopy;       /* it may switch to post-copy */
    bool postcopy_wanted;    /* by the operator, or by the time limit */
    bool switched;           /* it has: the guest's processors went before its memory */
    unsigned recoveries;     /* of the channels, after that */
    bool refused;            /* by preflight, here or at the target: nothing was begun */
    bool finished;           /* nothing left for this site to do */
    enum move_outcome outcome;
    int64_t switchover_at_ms;      /* wall clock at which it is released; 0 = by word only */
    struct policy_choices request; /* what was asked for */
    struct policy policy;          /* what holds; at the source, once the VM is known (name[0]) */
    struct shaper shaper;          /* a limit of its own; the source's streams keep to it */
    struct drill rehearsal;        /* of a drill */
    struct error reason;
    struct error trouble;    /* what could not be done and is tried again; not in the journal */
    struct move_right right; /* the witness's word */
    struct move_progress progress;
    struct stun_report stun;
    uint64_t resident_bytes;      /* of the guest's memory, touched when the move began */
    struct prediction prediction; /* made when it began; valid when known */
    json_t *
        stun_undo; /* what vcpu_groups_undo() puts back after a restart; NULL: nothing was touched */
    unsigned pending;           /* calls under way that will come back to this object */
    struct move_source *source; /* heavy halves, one of them while it runs */
    struct move_target *target;
    json_t *past; /* a move from before this start: its last view; owned */
};

/* A new move in the list, phase PREPARING. @id NULL: make one. -EBUSY at the cap. */
int move_new(struct service *s, enum journal_role role, const char *id, const char *peer,
             struct move **ret, struct error *err);
struct move *move_find(struct service *s, const char *id, enum journal_role role);
/* By id or an unambiguous beginning of it; either role. */
struct move *move_lookup(struct service *s, const char *id);
/* The unfinished move of a domain (by UUID or name), except @except; NULL: none. */
struct move *move_of_domain(struct service *s, const char *name, const char *uuid,
                            const struct move *except);
/* 0, or -EBUSY: there is one. */
int move_domain_is_free(struct service *s, const char *name, const char *uuid,
                        const struct move *except, struct error *err);
unsigned move_count_running(struct service *s);
/* Of those, the ones whose disks and memory are still on their way. */
unsigned move_count_sending(struct service *s);

/* It runs at the target, or is about to, and pages are at the source. */
bool move_is_outstanding(const struct move *m);
/* Forward only; logs. */
void move_set_phase(struct move *m, enum move_phase phase);
const char *move_phase_name(enum move_phase phase);
const char *move_outcome_name(enum move_outcome outcome);
/* Of a move that is over without a commit: a drill that has its verdict has ended as it should. */
enum move_outcome move_outcome_without_commit(const struct move *m);
/* Notes the first reason of a failure. */
void move_set_reason(struct move *m, const struct error *why);
/* Notes, and says, what could not be done and is tried again; an error that is not set: it could, after all. */
void move_set_trouble(struct move *m, const struct error *why);
/* Whether something could not be done, and is tried again. */
bool move_is_troubled(const struct move *m);
/* A limit of its own, from now on, by the operator's word. 0: none. */
void move_set_limit(struct move *m, uint64_t rate_bytes_s);
/* Writes the move's record; see journal_put(). Stops the daemon when there is no memory for it. */
void move_journal(struct move *m, const char *state, bool finished, void (*on_durable)(void *user));

/* What `list`, `show`, `watch` and the final report give. New reference. */
json_t *move_to_json(struct move *m);
/* The journal's document, and back. */
json_t *move_to_document(struct move *m);
int move_from_document(struct move *m, const char *text, struct error *err);

/* domain_info on the wire and in the journal. */
json_t *domain_info_to_json(const struct domain_info *info);
int domain_info_from_json(const json_t *json, struct domain_info *ret);
json_t *error_to_json(const struct error *e);
void error_from_json(const json_t *json, struct error *ret);

/* The folder of a move's sockets, and the sockets in it. -ENAMETOOLONG with words. */
struct move_paths {
    char folder[108], rpc[108], memory[108], disk[108];
};
int move_paths_of(const struct config *c, const struct move *m, struct move_paths *ret,
                  struct error *err);
/* Makes the folder, owned by QEMU's user. */
int move_paths_make(struct service *s, const struct move_paths *paths, struct error *err);
void move_paths_remove(const struct move_paths *paths);

#endif
