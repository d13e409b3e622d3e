/* SPDX-License-Identifier: Apache-2.0 */
/* What move_target.c (the promise) and target_channels.c (the data's way) share. Not for others. */
#ifndef FERRY_CORE_MOVE_TARGET_PRIVATE_H
#define FERRY_CORE_MOVE_TARGET_PRIVATE_H

#include "core/disk/disk_target.h"
#include "core/operations/drill_command.h"
#include "core/disk/disk_codec.h"
#include "core/move/memory_codec.h"
#include "core/move/target_blocks.h"
#include "core/move/move.h"
#include "core/move/relay.h"
#include "core/move/rpc_opening.h"
#include "core/move/rpc_relay.h"
#include "core/switchover/switchover.h"
#include "memory/ram_parser.h"
#include "memory/return_path.h"

struct move_target {
    struct move *move;
    struct service *service;
    struct switchover_target sw;
    struct link_session *ls; /* held while set */
    bool creating;           /* disk files are being made */
    bool seeds_offered;      /* the source can use seeds */
    struct disk_seed seeds[LIMIT_DISKS_PER_MOVE];
    bool dispose_wanted;
    uint64_t clean_at_ns, resume_at_ns, ask_at_ns, dispose_at_ns; /* 0 = not due */
    uint64_t probe_at_ns;                                         /* the clone; 0 = not due */
    struct drill_command *command;                                /* of a drill, while it runs */
    uv_timer_t tick;
    unsigned ticks;
    struct downtime_target moments;

    /* channels */
    struct move_paths paths;
    struct rpc_opening opening; /* that the source offered */
    int rpc_fd; /* libvirtd's connection with that opening, until the channel takes it; -1: none */
    struct rpc_relay *rpc;
    struct relay *memory;
    struct memory_codec codec;
    struct disk_codec disk_codec;
    struct virt_host_question
        *host; /* what the VM needs of this host, until it is looked for; owned */
    json_t *codec_answer, *disk_codec_answer; /* until `ready` takes them */
    struct ram_pipe *decoder;                 /* until the memory channel takes it */
    struct target_blocks *blocks;             /* the decoder's; NULL: no references may come */
    struct ram_parser *parser;
    struct return_path answers; /* what QEMU says back, until it has loaded post-copy's package */
    bool pages_running;         /* libvirt is being asked */
    bool pages_said;            /* the source knows that it runs */
    uint64_t pages_at_ns;       /* libvirt is asked next; 0 = not due */
    bool direct_memory;         /* it comes from QEMU to QEMU: nothing of it is seen here */
    uint64_t parsed_bytes;      /* of the RAM stream, seen by the parser */
    struct disk_target *disks[LIMIT_DISKS_PER_MOVE];
    bool disk_has_stream[LIMIT_DISKS_PER_MOVE];
    unsigned disk_count;
    bool disks_done;
};

/* move_target.c */
void move_target_step(struct move_target *mt, enum switchover_target_event event);
void move_target_fail(struct move_target *mt, const struct error *why);
void move_target_call_returned(struct move_target *mt);

/* To the peer, about this move; @msg is stolen. */
void move_target_send(struct move_target *mt, json_t *msg);
void move_target_send_word(struct move_target *mt, const char *type);
void move_target_refuse(struct move_target *mt, const struct error *why);
void move_target_finish(struct move_target *mt, enum move_outcome outcome);

/* target_drill.c: a drill's wishes, from PREPARE (NULL: it is none), and what is answered to them. */
int target_drill_accept(struct move_target *mt, const json_t *wishes, struct error *err);
json_t *target_drill_answer(const struct move_target *mt);
/* Runs the clone until its verdict, TARGET_ON_DRILL_DONE. */
void target_drill_run(struct move_target *mt);
void target_drill_tick(struct move_target *mt, uint64_t now_ns);
/* Ends what belongs to the clone here, not the clone itself. */
void target_drill_stop(struct move_target *mt);

/* target_postcopy.c: the copy here runs, or is about to, and pages are at the source. */
/* Asks libvirt again and again; ends in TARGET_ON_PAGES_DONE, _COPY_LOST or _COPY_MISSING. */
void target_postcopy_watch(struct move_target *mt);
void target_postcopy_tick(struct move_target *mt, uint64_t now_ns);
void target_postcopy_say(struct move_target *mt);
/* A channel that is made again; a negative errno leaves the stream with the caller. */
int target_postcopy_add(struct move_target *mt, const char *channel, struct stream *stream);

/* target_files.c: makes the disks, then READY or a refusal. */
void target_files_create(struct move_target *mt);
/* Whether the source's QEMU may send memory to this host's without encryption. */
bool target_files_may_be_direct(const struct move_target *mt);
/* The files are the VM's, which starts with this host if it did at the source; then the move is finished. */
void target_files_adopt(struct move_target *mt);
/* @arg: the move. Channels, what is left of the VM, its files; then TARGET_ON_CLEANED. Not from inside a
 * channel's callback. */
void target_files_clean_up(void *arg);

/* target_channels.c */
int target_channels_open(struct move_target *mt, struct error *err);
/* Joins a labelled stream; a negative errno leaves it with the caller. */
int target_channels_add(struct move_target *mt, const json_t *label, struct stream *stream);
/* To libvirtd here, over that stream; a negative errno leaves it with the caller. */
int target_channels_connect_rpc(struct move_target *mt, struct stream *stream);
/* FINISH3 passes as it is: in post-copy it lets the copy run. */
void target_channels_run_finish(struct move_target *mt);
/* FINISH3 passes, and the copy stays paused. */
void target_channels_pass_finish(struct move_target *mt);
void target_channels_tick(struct move_target *mt);
/* Closes whatever is open. Not from inside a channel's own callback. */
void target_channels_close(struct move_target *mt);

#endif
