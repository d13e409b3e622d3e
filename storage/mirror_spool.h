/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool: a bounded file that takes payloads of the mirror logs when memory gets short, above all while
 * the link is down. One for all logs of a site.
 *
 *   entry in memory --taken into a segment, written--> on the spool --its turn is near--> read back, sent
 *
 * The file is cut into segments of one size; a segment holds payloads of one log, written at once and
 * read back at once, and is free again when the last of them has left it (sent, or overwritten meanwhile).
 * It never holds the only copy of anything: the source's disk has it all. So after a write
 * that fails nothing more is spooled until the file is empty, and the guest is delayed as without a spool; a read
 * that fails ends the move.
 *
 * An engine: start() is to do the reading and writing, elsewhere; mirror_spool_complete() says it is done.
 */
#ifndef FERRY_STORAGE_MIRROR_SPOOL_H
#define FERRY_STORAGE_MIRROR_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

struct mirror_spool;

struct mirror_spool_io {
    bool write;
    uint32_t length;
    uint64_t offset; /* in the file */
    uint8_t *data;   /* the spool's, unchanged until the completion */
};

struct mirror_spool_ops {
    /* 0: mirror_spool_complete() follows, later, never from within. Negative errno: it does not. */
    int (*start)(void *owner, struct mirror_spool_io *io);
    /* Writing failed with @err: nothing more is spooled until the spool is empty. */
    void (*failed)(void *owner, int err);
    /* Nothing is in the file any more: it may be cut to nothing, before what is started from now on. */
    void (*emptied)(void *owner);
};

/* @limit_bytes is rounded down to whole segments. */
int mirror_spool_new(struct mirror_spool **ret_spool, uint64_t limit_bytes, uint32_t segment_bytes,
                     const struct mirror_spool_ops *ops, void *owner);
/* All logs must be gone, and everything started completed. */
void mirror_spool_free(struct mirror_spool *s);

/* @err 0 or negative errno. */
void mirror_spool_complete(struct mirror_spool *s, struct mirror_spool_io *io, int err,
                           uint64_t now_ns);

/* Reads and writes under way. */
unsigned mirror_spool_running(const struct mirror_spool *s);
uint64_t mirror_spool_limit_bytes(const struct mirror_spool *s);
/* Of the file, in whole segments; now, and at most. 0 for NULL. */
uint64_t mirror_spool_used_bytes(const struct mirror_spool *s);
uint64_t mirror_spool_peak_bytes(const struct mirror_spool *s);

#endif
