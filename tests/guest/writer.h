/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The witness's disk side: synchronous 4 KiB writes with sequence numbers to a region at the start of one
 * disk (the first to be copied, so that a migration's mirror meets the writes all along), one at a time, at a set rate; what was acknowledged is remembered in memory, block by block, and
 * can be read back. A thread per disk.
 *
 * Times are the guest's: its clock stands still while it is stopped, so downtime is not in a latency.
 */
#ifndef FERRY_TESTS_GUEST_WRITER_H
#define FERRY_TESTS_GUEST_WRITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Latency buckets: 16 per power of two of microseconds, so about 6 % wide. */
#define LATENCY_BUCKETS (16 * 33)

struct latency {
    uint64_t count;
    uint64_t max_us;
    uint64_t since_ns; /* when counting began */
    uint32_t bucket[LATENCY_BUCKETS];
};

struct writer {
    unsigned disk;
    int fd;
    uint64_t bytes;  /* of the disk */
    uint64_t blocks; /* of the region */
    uint64_t
        *acknowledged; /* owned: per block, the sequence number of its last acknowledged write */
    uint64_t sequence; /* the last one given out */
    uint64_t writes;   /* acknowledged in all */
    uint64_t errors;   /* writes the disk refused */
    double per_second; /* wanted rate; 0: idle */
    struct latency latency;
    pthread_mutex_t
        lock; /* over all of the above; held during a write, so holding it means quiet */
};

struct writer_findings {
    uint64_t blocks; /* read back */
    uint64_t lost;   /* an older acknowledged write is there instead */
    uint64_t bad;    /* something else is there, or in a block never written */
    struct {         /* one that is lost or bad; only when there is one */
        unsigned disk;
        uint64_t block, acknowledged, found;
        bool whole; /* what was found is a whole block of that number */
    } first;
};

/* Opens @path; the region is its first @region_bytes. 0 or a negative errno. */
int writer_open(struct writer *w, unsigned disk, const char *path, uint64_t region_bytes);

/* pthread body. */
void *writer_run(void *writer);

/* Reads the whole region back. Needs the lock. 0 or a negative errno. */
int writer_verify(struct writer *w, struct writer_findings *f);

/* Hashes a disk from @from to @end, @chunk_bytes a chunk; calls @each for every chunk. 0 or -errno. */
int region_hash(int fd, uint64_t from, uint64_t end, uint64_t chunk_bytes,
                void (*each)(void *ctx, uint64_t hash), void *ctx);

/* Adds @from to @to; the smallest latency that @fraction of the writes did not exceed. */
void latency_add(struct latency *to, const struct latency *from);
uint64_t latency_at(const struct latency *l, double fraction);

#endif
