/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the spool (mirror_spool.c: segments, their reads and writes) and the logs that use it
 * (mirror_log_spool.c: what goes there, and when it comes back).
 */
#ifndef FERRY_STORAGE_MIRROR_SPOOL_PRIVATE_H
#define FERRY_STORAGE_MIRROR_SPOOL_PRIVATE_H

#include "storage/mirror_log_private.h"
#include "storage/mirror_spool.h"

enum segment_state { SEGMENT_FILLING, SEGMENT_WRITING, SEGMENT_WRITTEN, SEGMENT_READING };

struct mirror_segment {
    struct mirror_spool_io io; /* first: a completion finds the segment by it */
    enum segment_state state;
    uint64_t number;
    struct mirror_log *log;     /* NULL: it is gone, nobody wants this any more */
    struct entry_queue entries; /* linked by segment_link */
};

/* A segment to fill; NULL: none is free, or no memory. */
struct mirror_segment *mirror_spool_take(struct mirror_spool *s, struct mirror_log *log);
uint32_t mirror_spool_segment_bytes(const struct mirror_spool *s);
/* Writes what is filled / reads it back. 0, or a negative errno: nothing was started. */
int mirror_spool_write(struct mirror_spool *s, struct mirror_segment *segment);
int mirror_spool_read(struct mirror_spool *s, struct mirror_segment *segment);
/* Its last entry has left it: free, now or when what is under way has ended. */
void mirror_spool_release(struct mirror_spool *s, struct mirror_segment *segment);

/* mirror_log_spool.c */
void mirror_log_segment_done(struct mirror_log *log, struct mirror_segment *segment, int err,
                             uint64_t now_ns);

#endif
