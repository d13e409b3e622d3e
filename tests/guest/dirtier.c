/* SPDX-License-Identifier: Apache-2.0 */
#include "dirtier.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "pace.h"
#include "stamp.h"

#define PAGES_PER_MIB (1024u * 1024u / STAMP_BYTES)

/* Pages rewritten under one lock: what a stats request may wait for. */
#define BATCH_PAGES 256u

static void rewrite(struct dirtier *d, uint64_t page)
{
    uint32_t generation = ++d->generations[page];

    stamp_fill(d->pages + page * STAMP_BYTES, STAMP_OWNER_MEMORY, page, generation, d->changed);
}

int dirtier_open(struct dirtier *d, uint64_t set_mib, uint64_t fill_mib)
{
    d->dirty_count = set_mib * PAGES_PER_MIB;
    d->count = d->dirty_count + fill_mib * PAGES_PER_MIB;
    d->generations = calloc(d->count + 1, sizeof(*d->generations));
    d->pages = mmap(NULL, (d->count + 1) * STAMP_BYTES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!d->generations || d->pages == MAP_FAILED)
        return -ENOMEM;
    for (uint64_t page = 0; page < d->count; page++)
        rewrite(d, page);
    return -pthread_mutex_init(&d->lock, NULL);
}

static void rewrite_batch(struct dirtier *d, uint64_t pages)
{
    pthread_mutex_lock(&d->lock);
    for (; pages > 0 && d->dirty_count > 0; pages--) {
        rewrite(d, d->next);
        d->next = (d->next + 1) % d->dirty_count;
        d->rewritten++;
    }
    pthread_mutex_unlock(&d->lock);
}

void *dirtier_run(void *dirtier)
{
    struct dirtier *d = dirtier;
    uint64_t last = now_ns();
    double owed = 0; /* pages; at most a second's worth, so that a stall is not made up for */

    for (;;) {
        uint64_t now = now_ns();
        double per_second = d->mib_per_s * PAGES_PER_MIB;

        owed += (double)(now - last) / 1e9 * per_second;
        owed = owed > per_second ? per_second : owed;
        last = now;
        while (owed >= 1) {
            uint64_t batch = owed < BATCH_PAGES ? (uint64_t)owed : BATCH_PAGES;

            rewrite_batch(d, batch);
            owed -= (double)batch;
        }
        sleep_ticks(1);
    }
    return NULL;
}

uint64_t dirtier_verify(const struct dirtier *d)
{
    uint64_t bad = 0;

    for (uint64_t page = 0; page < d->count; page++)
        bad += stamp_check(d->pages + page * STAMP_BYTES, STAMP_OWNER_MEMORY, page,
                           d->generations[page]) != STAMP_GOOD;
    return bad;
}
