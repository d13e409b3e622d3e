/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The witness's memory side: pages that carry their own proof, rewritten in turn at a set rate. The
 * generation of each is kept apart from it, so that a page from the past is found.
 */
#ifndef FERRY_TESTS_GUEST_DIRTIER_H
#define FERRY_TESTS_GUEST_DIRTIER_H

#include <pthread.h>
#include <stdint.h>

struct dirtier {
    uint8_t *pages;        /* owned; pages * STAMP_BYTES */
    uint32_t *generations; /* owned; one a page */
    uint64_t count;        /* pages in all */
    uint64_t dirty_count;  /* the first of them, which are rewritten; the others stay as they are */
    uint64_t next;         /* the next to rewrite */
    uint64_t rewritten;    /* pages, in all */
    uint64_t changed;      /* words of a page's body that change each time */
    double mib_per_s;
    pthread_mutex_t lock; /* over all of the above */
};

/* Allocates and fills @set_mib + @fill_mib of pages. 0 or a negative errno. */
int dirtier_open(struct dirtier *d, uint64_t set_mib, uint64_t fill_mib);

/* pthread body. */
void *dirtier_run(void *dirtier);

/* Pages that are not what they must be. Needs the lock. */
uint64_t dirtier_verify(const struct dirtier *d);

#endif
