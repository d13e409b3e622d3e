/* SPDX-License-Identifier: Apache-2.0 */
#include "netlink/packer.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/base/macros.h"
#include "core/base/priority.h"
#include "netlink/pack.h"

enum {
    PLACES = 4,
    WORKER_NICE = 10,
    FIRST_LEVEL = 1,
};

/* How often the level is looked at. */
#define SPAN_NS (250 * NS_PER_MS)

struct place {
    uv_work_t work;
    struct packer *packer;
    struct pack_writer *writer;
    struct packing *packing; /* NULL: free */
    int level;
    size_t packed_len;
    uint64_t took_ns;
    uint8_t packed[LIMIT_FRAME_PAYLOAD_BYTES];
};

struct packer {
    uv_loop_t *loop;
    int level;
    bool adapts, abandoned;
    unsigned busy;
    uint64_t since_ns;
    struct pack_window window;
    struct place places[PLACES];
};

int pack_next_level(int level, const struct pack_window *w)
{
    unsigned offered = w->taken + w->refused;
    uint64_t capacity_ns = w->span_ns * w->places;

    if (offered == 0)
        return level;
    /* Frames went plain because the compressor was full: faster. */
    if (w->refused * 10 > offered)
        return MAX(level - 1, PACK_LEVEL_MIN);
    /* The link had nothing to send while frames were in here: faster, too. */
    if (w->starved * 2 > w->taken && w->busy_ns * 4 > capacity_ns)
        return MAX(level - 1, PACK_LEVEL_MIN);
    /* The link is what everything waits for, and the workers mostly idle: smaller. */
    if (w->starved * 5 < w->taken && w->refused == 0 && w->busy_ns * 2 < capacity_ns)
        return MIN(level + 1, PACK_LEVEL_MAX);
    return level;
}

static void adapt(struct packer *p, uint64_t now_ns)
{
    if (now_ns - p->since_ns < SPAN_NS)
        return;
    p->window.span_ns = now_ns - p->since_ns;
    p->window.places = PLACES;
    if (p->adapts)
        p->level = pack_next_level(p->level, &p->window);
    p->window = (struct pack_window){0};
    p->since_ns = now_ns;
}

static void work(uv_work_t *request)
{
    struct place *place = container_of(request, struct place, work);
    uint64_t start_ns = clock_now_ns();

    priority_background(WORKER_NICE);
    place->packed_len = pack_write(place->writer, place->level, place->packing->data,
                                   place->packing->length, place->packed, sizeof(place->packed));
    place->took_ns = clock_now_ns() - start_ns;
}

static void on_done(uv_work_t *request, int status)
{
    struct place *place = container_of(request, struct place, work);
    struct packing *packing = TAKE_PTR(place->packing);
    struct packer *p = place->packer;
    struct session *session = packing->session;

    p->busy--;
    p->window.busy_ns += place->took_ns;
    if (session && !session_wants_output(session, clock_now_ns()))
        p->window.starved++;
    session_packed(packing, place->packed, status == 0 ? place->packed_len : 0);
    if (p->abandoned && p->busy == 0)
        packer_free(p);
}

struct packer *packer_new(uv_loop_t *loop, int level)
{
    struct packer *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->loop = loop;
    p->adapts = level == 0;
    p->level = level ? level : FIRST_LEVEL;
    p->since_ns = clock_now_ns();
    for (unsigned i = 0; i < PLACES; i++) {
        p->places[i].packer = p;
        p->places[i].writer = pack_writer_new();
        if (!p->places[i].writer) {
            packer_free(p);
            return NULL;
        }
    }
    return p;
}

void packer_free(struct packer *p)
{
    if (!p)
        return;
    p->abandoned = true;
    if (p->busy > 0)
        return;
    for (unsigned i = 0; i < PLACES; i++)
        pack_writer_free(p->places[i].writer);
    free(p);
}

bool packer_take(struct packer *p, struct packing *packing)
{
    struct place *place = NULL;

    adapt(p, clock_now_ns());
    for (unsigned i = 0; i < PLACES && !place; i++) {
        if (!p->places[i].packing)
            place = &p->places[i];
    }
    if (!place || p->abandoned) {
        p->window.refused++;
        return false;
    }
    place->level = p->level;
    place->packing = packing;
    if (uv_queue_work(p->loop, &place->work, work, on_done) < 0) {
        place->packing = NULL;
        return false;
    }
    p->busy++;
    p->window.taken++;
    return true;
}

int packer_level(const struct packer *p)
{
    return p->level;
}
