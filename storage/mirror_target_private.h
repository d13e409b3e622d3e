/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a target disk, shared by mirror_target.c (the stream, the order, the disk) and
 * mirror_target_seed.c (what is taken from an older copy).
 */
#ifndef FERRY_STORAGE_MIRROR_TARGET_PRIVATE_H
#define FERRY_STORAGE_MIRROR_TARGET_PRIVATE_H

#include <sys/queue.h>

#include "storage/limits.h"
#include "storage/mirror_target.h"
#include "storage/mirror_wire.h"

/* AWAITING: a SEED that waits for a FILL. */
enum operation_stage { STAGE_QUEUED, STAGE_READY, STAGE_RUNNING, STAGE_AWAITING };

struct operation {
    TAILQ_ENTRY(operation) link;
    TAILQ_ENTRY(operation) ready_link;
    enum mirror_wire_type type;
    enum operation_stage stage;
    bool may_trim;
    unsigned blockers; /* earlier unfinished operations that overlap */
    uint32_t length;
    uint64_t offset;
    uint64_t seq;
    uint8_t *
        data; /* WRITE: the payload; READ, CHECK, SEED: the memory to fill, as long as it is needed */

    /* SEED */
    uint8_t *digests;
    uint8_t *fill;
    uint32_t fill_bytes;
    bool reading;    /* RUNNING: at the seed, not at the disk */
    unsigned misses; /* said so far */
    bool hinted;     /* the last of them told what the seed has */
};
TAILQ_HEAD(operation_queue, operation);

struct mirror_target {
    char alias[LIMIT_EXPORT_NAME_BYTES + 1];
    uint64_t size_bytes;
    unsigned in_flight_max;
    void (*wake)(void *owner, struct mirror_target *t);
    void *owner;
    const struct disk_writer_ops *writer_ops; /* NULL: the disk is not there yet */
    void *writer;

    bool seeded;                            /* SEEDs may come */
    bool seed_settled;                      /* it is known whether the seed can be read */
    const struct disk_writer_ops *seed_ops; /* NULL: it cannot, or not yet */
    void *seed;
    uint64_t seed_size_bytes;

    enum mirror_target_state state;
    struct error error;
    struct mirror_wire_decoder decoder;
    struct operation_queue operations, ready;
    uint64_t received_seq;
    uint64_t received_payload_bytes;
    uint64_t reported_seq; /* of the last APPLIED */
    bool closing;          /* CLOSE was received */
    bool starting;         /* start_ready() is on the stack */
    bool flush_ahead_running;
    struct buffer output; /* READ_DATA, MISS, CLOSED, ERROR; APPLIED is made when pulled */
    struct mirror_target_stats stats;
};

/* mirror_target.c */
int mirror_target_put(struct mirror_target *t, const struct mirror_wire_message *m,
                      const void *payload);
int mirror_target_fail_stream(struct mirror_target *t, const char *why);
int mirror_target_fail_disk(struct mirror_target *t, const struct operation *op, int err);
/* It leaves, and is freed. */
void mirror_target_drop(struct mirror_target *t, struct operation *op);
void mirror_target_make_ready(struct mirror_target *t, struct operation *op);
void mirror_target_go_on(struct mirror_target *t);
/* Memory for all of its extent, NULL: none; and what it holds is given back. */
uint8_t *mirror_target_hold(struct mirror_target *t, struct operation *op);
void mirror_target_let_go(struct mirror_target *t, struct operation *op);

/* mirror_target_seed.c */
/* A FILL came; 0, or the negative errno of the failure. Takes the payload. */
int mirror_target_take_fill(struct mirror_target *t, struct mirror_wire_message *m);
/* Its turn has come: 1, it is at the disk or the seed; 0, it waits for a FILL; negative errno, not taken. */
int mirror_target_start_seed(struct mirror_target *t, struct operation *op);

#endif
