/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages that went to the target as references to its disks, kept at the source until the target has passed them: what
 * the target does not find, it asks for (page_wire.h).
 *
 * Each miss costs it a round trip in which the memory stands still, so references end for good when there are many.
 */
#ifndef FERRY_CORE_PAGE_KEEPER_H
#define FERRY_CORE_PAGE_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "netlink/session.h"

struct page_keeper;

/* Not for freeing the keeper in them. */
struct page_keeper_ops {
    void (*on_room)(void *user); /* pages were passed */
    void (*on_failed)(void *user,
                      const struct error *why); /* the target asked for what it cannot; once */
};

/* The stream becomes the keeper's. */
int page_keeper_new(struct stream *stream, const struct page_keeper_ops *ops, void *user,
                    struct page_keeper **ret);
void page_keeper_free(struct page_keeper *k);

/* How many more references may be made now. */
unsigned page_keeper_room(const struct page_keeper *k);
/* Hardly any, but there will be more. */
bool page_keeper_is_full(const struct page_keeper *k);
/* They were made: @count pages of 4096 bytes, at most the room there was. */
void page_keeper_put(struct page_keeper *k, const uint8_t *pages, unsigned count);
uint64_t page_keeper_misses(const struct page_keeper *k);

#endif
