/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk of a move at the target: decodes the mirror stream and applies it to a disk writer.
 *
 *   WAIT_OPEN --OPEN--> APPLYING --CLOSE, all applied--> FLUSHING --flush completed--> DONE
 *       |                   | bad stream, disk error, mirror_target_fail() |
 *       +---------------> FAILED <--------------------------------------+
 *
 * Order. An operation waits for every earlier one, complete or not yet begun, whose extent overlaps
 * its own, and for nothing else: up to `in_flight_max` run at a time. Each operation counts the earlier
 * unfinished ones that block it; a completion takes itself off the count of the later ones. Because the
 * blocking relation follows the stream's order it has no cycles, so the oldest unfinished operation can
 * always run. Completions come in any order; APPLIED reports the longest prefix. A SEED may wait for data from the
 * source: mirror_wire.h has the bounds that keep this from stopping the stream.
 *
 * Memory. mirror_target_feed() takes bytes only while less than LIMIT_TARGET_QUEUE_BYTES of payload and
 * LIMIT_TARGET_QUEUE_OPERATIONS operations wait. What it did not take the owner keeps, gives no credit
 * for, and offers again at wake() (and after pull(): answers to READs count too).
 *
 * The disk may come later than the stream: nothing is applied before mirror_target_set_writer().
 */
#ifndef FERRY_STORAGE_MIRROR_TARGET_H
#define FERRY_STORAGE_MIRROR_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/buffer.h"
#include "core/base/error.h"
#include "storage/disk_writer.h"

struct mirror_target;

enum mirror_target_state {
    MIRROR_TARGET_WAIT_OPEN,
    MIRROR_TARGET_APPLYING,
    MIRROR_TARGET_FLUSHING,
    MIRROR_TARGET_DONE,
    MIRROR_TARGET_FAILED,
};

struct mirror_target_params {
    const char *alias;      /* the disk that OPEN must name, copied */
    uint64_t size_bytes;    /* and its size */
    unsigned in_flight_max; /* requests at the disk at a time; 0 = LIMIT_WRITER_IN_FLIGHT */
    bool seeded; /* the source was told of a seed: mirror_target_set_seed() will be called */
    /* Something changed without the owner calling feed(): it can take bytes again, has output, or a new
     * state. In it the owner may do anything but free. */
    void (*wake)(void *owner, struct mirror_target *t);
    void *owner;
};

int mirror_target_new(struct mirror_target **ret_target, const struct mirror_target_params *params);
/* At any state; but requests at the disk still point into its memory: the writer goes first. */
void mirror_target_free(struct mirror_target *t);

/* The disk is there: starts applying. Once. */
void mirror_target_set_writer(struct mirror_target *t, const struct disk_writer_ops *ops,
                              void *writer);

/*
 * The seed can be read: @ops->read alone is used, and its completions go to mirror_target_seed_complete().
 * @ops NULL: it cannot, or no longer; whatever it was to give comes from the source then.
 */
void mirror_target_set_seed(struct mirror_target *t, const struct disk_writer_ops *ops, void *seed,
                            uint64_t size_bytes);
void mirror_target_seed_complete(struct mirror_target *t, uint64_t cookie, int err);

/* Takes stream bytes; returns how many of @len (fewer: full, see wake), or a negative errno: FAILED. */
ssize_t mirror_target_feed(struct mirror_target *t, const void *data, size_t len);

/* The stream back to the source, as mirror_source_pull(). */
size_t mirror_target_pull(struct mirror_target *t, struct buffer *out, size_t max_bytes);
bool mirror_target_has_output(const struct mirror_target *t);

/* The completion of a request of the engine (the disk writer's owner calls it): 0 or negative errno. */
void mirror_target_complete(struct mirror_target *t, uint64_t cookie, int err);

/* Asks the disk to make durable what is applied so far, now. No-op while such a flush runs. */
void mirror_target_flush_ahead(struct mirror_target *t);

/* Fails the disk from outside (its connection broke, the move was aborted): ERROR goes to the source.
 * No-op when DONE or FAILED. */
void mirror_target_fail(struct mirror_target *t, const struct error *why);

enum mirror_target_state mirror_target_state(const struct mirror_target *t);
const char *mirror_target_state_name(enum mirror_target_state state);
const struct error *mirror_target_error(const struct mirror_target *t);

struct mirror_target_stats {
    uint64_t received_bytes; /* stream bytes taken */
    uint64_t applied_seq;
    uint64_t applied_bytes;                 /* payload of completed WRITEs */
    uint64_t zeroed_bytes;                  /* extents of completed ZEROs and TRIMs */
    uint64_t queue_bytes, queue_peak_bytes; /* payload held now, and at most */
    uint64_t seed_bytes;                    /* written from the seed, and never sent */
    uint64_t seed_misses;                   /* MISSes said */
    unsigned queue_operations;              /* received and not yet applied */
    unsigned in_flight, in_flight_peak;
};
void mirror_target_stats(const struct mirror_target *t, struct mirror_target_stats *ret_stats);

#endif
