/* SPDX-License-Identifier: Apache-2.0 */
/* What move_source.c (the decision), source_domain.c (the VM here) and source_channels.c (the data's way) share.
 * Not for others. */
#ifndef FERRY_CORE_MOVE_SOURCE_PRIVATE_H
#define FERRY_CORE_MOVE_SOURCE_PRIVATE_H

#include "core/disk/disk_source.h"
#include "core/move/local_socket.h"
#include "core/disk/disk_seed.h"
#include "core/disk/disk_codec.h"
#include "core/move/memory_codec.h"
#include "core/move/page_keeper.h"
#include "core/move/move.h"
#include "core/move/relay.h"
#include "core/move/rpc_opening.h"
#include "core/move/rpc_relay.h"
#include "core/move/source_stun.h"
#include "core/switchover/switchover.h"
#include "memory/ram_parser.h"
#include "memory/return_path.h"
#include "storage/congestion.h"
#include "storage/guest_care.h"

enum { SOURCE_TICK_MS = 100 };

struct move_source {
    struct move *move;
    struct service *service;
    struct switchover_source sw;
    struct link_session *ls; /* held while set */
    bool prepare_sent;       /* the target may know of this move */
    bool migrating;          /* libvirt's call is under way */
    bool settle_target;      /* the target never heard: count it as settled */
    bool reason_is_libvirts; /* the move's reason is only libvirt's echo of the cause */
    bool check_wanted, check_running, resuming;
    bool dispose_wanted;
    json_t *platform; /* for PREPARE, until it is sent; owned */
    bool rewritten;   /* the definition is to be another at the target: */
    struct domain_rewrite rewrite;
    bool disarmed;       /* the VM's autostart is taken away until the move is over */
    bool operators_word; /* the move was resolved here */
    bool job_aborted;    /* libvirt was asked to end its job */
    bool armed;          /* the witness may hold a key of this move */
    uint64_t finish_ns;  /* FINISH3's reply waits for the witness, since */
    uint64_t check_again_ns, withdraw_again_ns, rearm_again_ns, close_at_ns; /* 0 = not due */
    unsigned rearm_tries, start_tries;
    uint64_t start_again_ns; /* 0 = not due */
    uint64_t settled_ns;
    uint64_t waiting_ns, repeated_ns; /* for the target's word, since; and when it was asked for */
    uv_timer_t tick, redial;
    unsigned open_timers; /* freed when both are closed */

    /* channels */
    bool channels_open;
    struct move_paths paths;
    struct local_listener *rpc_listener, *memory_listener;
    struct rpc_opening opening; /* that was offered, and what the target replied */
    struct rpc_opening learnt;  /* what libvirtd here calls in this move */
    struct rpc_relay *rpc;
    struct relay *memory;
    struct memory_codec codec;
    struct disk_codec disk_codec;
    struct page_keeper *keeper; /* of references; NULL: there are none */
    bool may_refer;
    uint64_t memory_before, memory_wire_before; /* what earlier channels carried */
    struct ram_pipe *encoder;                   /* until the memory channel takes it */
    struct ram_parser *parser;

    /* what the policy comes to on these hosts */
    const char *no_zero_copy;   /* why this host cannot; NULL: it can */
    char no_postcopy_text[160]; /* why the target cannot take it so */
    bool limit_reached;         /* the time limit has been acted upon */
    bool suspended;             /* by it: the guest stands still until its memory is over there */
    struct source_stun stun;
    struct {
        uint64_t speed_mib_s; /* of it, as last set */
        bool speed_set;
        bool memory; /* it goes from QEMU to QEMU, past ferryd */
    } direct;        /* source_direct.c */
    struct {
        struct return_path answers; /* what the target's QEMU says back */
        uint64_t recover_at_ns;     /* the channels are gone: not before */
        uint64_t free_at_ns;        /* QEMU could not be told: not before */
        uint64_t drain_until_ns;    /* it sends the rest for nobody */
        bool asked;                 /* QEMU has been told to switch */
        bool freed;                 /* it may send pages as fast as it can */
        bool taken_back;            /* QEMU has been asked to let the copy here go on after all */
        bool taking_back;           /* it is being asked: its connections must stay */
        bool cannot_go_back;        /* QEMU could not */
        bool domain_switched; /* the copy here is stopped in post-copy, as libvirt said last */
        bool broken;          /* the channels are of no use, and kept for that alone */
    } postcopy;               /* source_postcopy.c */

    /* disks */
    struct disk_source *disks;
    bool seeded[LIMIT_DISKS_PER_MOVE]; /* the target has an older copy of that disk */
    struct congestion *congestion;
    struct {
        struct guest_care law;
        uint64_t bytes_per_s; /* the copy's limit; 0: not known yet */
        uint64_t ask_at_ns;
        bool watches, asking; /* QEMU counts; it is being asked */
    } care;                   /* source_care.c */
    uint64_t bulk_speed;      /* as last set */
    unsigned bulk_sharing;    /* among so many disks */
    uint64_t held_count;      /* acknowledgements held, as of the last tick */
    uint64_t drained_bytes;   /* what the log may hold when the memory is sent */

    /* the end */
    struct downtime_marks marks;
    uv_timer_t *reply_timer;
    bool reply_released; /* waits to be read */
    bool finish_waits;   /* the FINISH3 reply is here, the disks' word not yet */
    bool prepared_waits; /* in post-copy: the target's promise is here, the same */
    bool memory_waits;   /* for the log to drain, and the disks to be compared */

    /* every tick */
    unsigned ticks;
    bool qmp_running, stats_running;
    uint64_t downtime_limit_ms; /* QEMU's, as last set */
    uint64_t wire_base;         /* the session's bytes when this move began */
    /* ring of samples for `rate` and `payload_rate` */
    uint64_t rate_bytes[16], payload_bytes[16], rate_ns[16];
};

/* move_source.c */
void move_source_step(struct move_source *ms, enum switchover_source_event event);
void move_source_fail(struct move_source *ms, const struct error *why);
void move_source_call_returned(struct move_source *ms);
/* What QEMU refuses is no reason to end a move: for the log. */
void move_source_note_qmp(const struct move_source *ms, const struct error *err);
int move_source_new(struct move *m, struct error *err);
/* Ends a move that has begun nothing yet. */
void move_source_refuse(struct move_source *ms, const struct error *why);
void move_source_set_outcome(struct move *m, enum move_outcome outcome);
/* Nothing is left to do here. */
void move_source_finish(struct move_source *ms);

/* source_start.c: asks the target to prepare itself, or refuses the move for @err. */
void move_source_prepare(struct move_source *ms, const struct error *err);

/* source_right.c: asks the witness for a key, then PREPARE. */
void source_right_arm(struct move_source *ms, const struct error *err);
void source_right_agree(struct move_source *ms, const json_t *ready);
void source_right_tick(struct move_source *ms, uint64_t now_ns);

/* source_policy.c (and see source_policy.h): what holds for this move, and what becomes of it when something cannot be had. */
int source_policy_resolve(struct move_source *ms, const struct policy_choices *metadata,
                          struct error *err);
void source_policy_settle(struct move_source *ms, const json_t *ready);

/* source_direct.c: memory that goes from QEMU to QEMU. */
/* Where to: "tcp://HOST". */
int source_direct_uri(const struct move_source *ms, char *buf, size_t cap, struct error *err);
/* libvirt's figures show that memory is under way. */
void source_direct_begin(struct move_source *ms);
void source_direct_tick(struct move_source *ms);

/* source_care.c: the copy's limit for the sake of the guest's writes. */
void source_care_begin(struct move_source *ms);
/* Bytes/s; 0: none. */
uint64_t source_care_limit(const struct move_source *ms);
void source_care_tick(struct move_source *ms, uint64_t now_ns);

/* source_limit.c: the policy's time limit. */
void source_limit_tick(struct move_source *ms, uint64_t now_ns);

/* source_postcopy.c: when to switch, and what the VM needs until its last page has left. */
void source_postcopy_tick(struct move_source *ms, uint64_t now_ns);
/* The stream shows that QEMU has switched. */
void source_postcopy_switched(struct move_source *ms);
/* Its word: it has COMMIT; or it runs. */
void source_postcopy_pulls(struct move_source *ms, const json_t *msg);
/* libvirt's call ended without the last page. */
void source_postcopy_interrupted(struct move_source *ms, const struct error *err);
/* QEMU must not lose its connections: whether the target has heard COMMIT is not known. */
bool source_postcopy_keeps(const struct move_source *ms);
/* A channel is gone, or libvirt's call: in FEEDING they are made again. */
void source_postcopy_broken(struct move_source *ms);
/* Before the channels close: the target has never run, and QEMU lets the copy here go on. */
void source_postcopy_take_back(struct move_source *ms);
/* The copy here ended in FEEDING? */
void source_postcopy_check(struct move_source *ms);

/* source_hold.c: memory may be sent: now, or when the operator or the clock says so. */
void source_hold_begin(struct move_source *ms);
void source_hold_tick(struct move_source *ms);

/* source_domain.c: each ends in an event of the machine, or in one of the functions above. */
/* Takes the VM's autostart away, so that a restarted host cannot run an old copy; then PREPARE. */
void source_domain_disarm(struct move_source *ms);
/* Gives it back after a move that did not commit, and finishes the move. */
void source_domain_rearm(struct move_source *ms);
/* Reports the domain once libvirt's job on it has ended. */
void source_domain_check(struct move_source *ms);
void source_domain_stop_migration(struct move_source *ms);
void source_domain_resume(struct move_source *ms);
void source_domain_start(struct move_source *ms);
/* Removes what is left of the old copy, and finishes the move. */
void source_domain_withdraw(struct move_source *ms);
void source_domain_tick(struct move_source *ms, uint64_t now_ns);

/* source_channels.c */
/* Sockets, streams, engines; then starts libvirt's migration. */
int source_channels_open(struct move_source *ms, struct error *err);
/* In post-copy: those of RPC and memory again, and libvirt's recovery. */
int source_channels_reopen(struct move_source *ms, struct error *err);
/* Closes whatever is open. Not from inside a channel's own callback. */
void source_channels_close(struct move_source *ms);
/* The session is gone, and its streams with it; libvirt and QEMU do not see it yet. */
void source_channels_detach(struct move_source *ms);
/* The answer to a limit that was set for QEMU; user: the move's source. */
void source_channels_limit_set(void *user, const struct error *err);
/* Lets libvirt have the FINISH3 reply, and steps the machine when it was read. */
void source_channels_release_reply(struct move_source *ms);
/* The FINISH3 reply is here: goes on to the decision, once the disks are verified. */
void source_channels_finish(struct move_source *ms);
/* Every mirror is READY, and memory comes next: QEMU's limits are no longer those of the copy. */
void source_channels_mirrored(struct move_source *ms);
/* Begins to read what QEMU sends of the memory; later, when the log has to drain first. */
void source_channels_send_memory(struct move_source *ms);
void source_channels_tick(struct move_source *ms, uint64_t now_ns);
/* The downtime that QEMU is to aim at. */
void source_channels_set_downtime(struct move_source *ms, uint64_t limit_ms);
int source_channels_open_stream(struct move_source *ms, enum care care, const char *channel,
                                const char *disk, struct stream **ret);

/* source_disks.c */
int source_disks_open(struct move_source *ms, struct error *err);
void source_disks_tick(struct move_source *ms, uint64_t now_ns);
/* The log holds more, or more is to be compared, than the switchover should wait for. */
bool source_disks_must_wait(const struct move_source *ms);
unsigned source_disks_first_speed_mib_s(const struct move_source *ms);
bool source_disks_may_qmp(const struct move_source *ms);

/* source_blocks.c: references to blocks of the target's disks. Opens their stream; 0 or a negative errno. */
int source_blocks_open(struct move_source *ms, struct ram_pipe_blocks *ret);
/* A disk's mirror was given this (@data NULL: it is unknown from now on). */
void source_blocks_note(struct move_source *ms, unsigned disk, uint64_t offset, uint32_t length,
                        const uint8_t *data);
void source_blocks_tick(struct move_source *ms);
/* After or with the encoder. */
void source_blocks_close(struct move_source *ms);

#endif
