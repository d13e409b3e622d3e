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

/* The stream becomes the keeper's. @on_failed: the target asked for what it cannot; once, and not for freeing in it. */
int page_keeper_new(struct stream *stream, void (*on_failed)(void *user, const struct error *why),
                    void *user, struct page_keeper **ret);
void page_keeper_free(struct page_keeper *k);

/* How many more references may be made now. */
unsigned page_keeper_room(const struct page_keeper *k);
/* They were made: @count pages of 4096 bytes, at most the room there was. */
void page_keeper_put(struct page_keeper *k, const uint8_t *pages, unsigned count);
uint64_t page_keeper_misses(const struct page_keeper *k);

#endif
