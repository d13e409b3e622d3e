/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk of a move at the source: takes the requests of QEMU's mirror job (through a
 * mirror_connection), acknowledges them into the mirror log, and speaks the mirror stream to the target.
 *
 *   WAIT_CLIENT --open--> MIRRORING --DISC--> CLOSING --CLOSED from the target--> DONE
 *        |                    | lost client, broken stream, ERROR, mirror_source_fail()
 *        +----------------> FAILED <----------------+
 *
 * FLUSH is acknowledged at once: durability before the switchover is of no use, and at the switchover
 * CLOSED means applied and flushed. DISC is the close marker: QEMU sends it when the guest has stopped,
 * but also when it cancels the job: whether the move goes on is decided elsewhere.
 *
 * The owner moves the stream's bytes: mirror_source_pull() as the link has room, mirror_source_feed()
 * as it delivers. wake() says that something may have changed: bytes to pull, the state. In it the owner
 * may pull and look, and must neither feed nor free. Times are told with each call.
 */
#ifndef FERRY_STORAGE_MIRROR_SOURCE_H
#define FERRY_STORAGE_MIRROR_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "core/base/error.h"
#include "storage/mirror_budget.h"
#include "storage/mirror_check.h"
#include "storage/mirror_log.h"

struct mirror_source;

enum mirror_source_state {
    MIRROR_SOURCE_WAIT_CLIENT,
    MIRROR_SOURCE_MIRRORING,
    MIRROR_SOURCE_CLOSING,
    MIRROR_SOURCE_DONE,
    MIRROR_SOURCE_FAILED,
};

struct mirror_source_params {
    const char *export_name; /* the disk's alias, copied: "drive-virtio-disk0" */
    uint64_t size_bytes;
    struct mirror_budget *budget; /* outlives the disk */
    struct ack_pacer *pacer;    /* of the guest's acknowledgements, outlives the disk; NULL: none */
    struct mirror_spool *spool; /* outlives the disk; NULL: none */
    /* For tools: DISC ends only the connection, another may follow; mirror_source_close() ends the log. */
    bool many_clients;
    bool verify; /* the target's disk is compared with what was written: mirror_check.h */
    bool seeded; /* the target has an older copy of the disk: seed_blocks.h */
    /* A write's content (@data NULL: it is unknown), before anything becomes of it; NULL: nobody looks. */
    void (*content)(void *owner, uint64_t offset, uint32_t length, const uint8_t *data);
    void (*wake)(void *owner, struct mirror_source *m);
    void *owner;
};

int mirror_source_new(struct mirror_source **ret_source, const struct mirror_source_params *params);
/* At any state. Its connection must be freed before it. */
void mirror_source_free(struct mirror_source *m);

/* Appends at most @max_bytes of the stream to the target to @out; returns how many (0: nothing, or
 * out of memory, to be tried again). Call again until it gives 0 or the link is full. */
size_t mirror_source_pull(struct mirror_source *m, struct buffer *out, size_t max_bytes,
                          uint64_t now_ns);
bool mirror_source_has_output(const struct mirror_source *m);

/* The stream from the target; takes all. 0, or a negative errno when the disk is FAILED by it. */
int mirror_source_feed(struct mirror_source *m, const void *data, size_t len, uint64_t now_ns);

/* The job is READY (or no longer): from now on every write is a guest's. */
void mirror_source_set_ready(struct mirror_source *m, bool ready);

/* A time set by the pacer has come, or a new pace: releases what may go, of all disks of the budget. */
void mirror_source_tick(struct mirror_source *m, uint64_t now_ns);

/* Goes on with the verification, from READY on: to be called now and then. The rest is asked for at CLOSE;
 * with a difference the disk is FAILED and never DONE. No-op without verify. */
void mirror_source_verify(struct mirror_source *m);

/* Puts a FLUSH into the stream, so that little is left to flush at the switchover. */
int mirror_source_flush_ahead(struct mirror_source *m);

/* Ends the log without a DISC (many_clients). */
int mirror_source_close(struct mirror_source *m);

/* The move is over for this disk: the log is dropped; QEMU's requests, open and to come, are answered as if they
 * were carried out, until it ends its connection or that is freed. The move must not commit after that. No-op
 * when DONE or FAILED. */
void mirror_source_fail(struct mirror_source *m, const struct error *why);

enum mirror_source_state mirror_source_state(const struct mirror_source *m);
const char *mirror_source_state_name(enum mirror_source_state state);
const char *mirror_source_export_name(const struct mirror_source *m);
uint64_t mirror_source_size_bytes(const struct mirror_source *m);
const struct error *mirror_source_error(const struct mirror_source *m);

struct mirror_source_stats {
    struct mirror_log_stats log;
    uint64_t
        target_queue_bytes; /* received and not applied at the target, as of the last APPLIED */
    struct mirror_check_stats check; /* with verify */
    uint64_t writes_guest, writes_bulk;
    /* Time from a guest write's last byte to its acknowledgement; bucket i counts those < 2^i us. */
    uint64_t guest_latency_count[32];
    uint64_t guest_latency_max_us;
};
void mirror_source_stats(const struct mirror_source *m, struct mirror_source_stats *ret_stats);

#endif
