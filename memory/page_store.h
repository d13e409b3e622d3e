/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots for pages: what both halves of the RAM codec remember, in step.
 *
 * The memory is asked for at once, so that a move does not begin without it, and taken up as slots are used, so that a
 * small guest costs little: what is taken must be zeroed, half a second for 256 MiB. Which page lies in
 * which slot is the encoder's business (page_index.h); the decoder is told.
 */
#ifndef FERRY_MEMORY_PAGE_STORE_H
#define FERRY_MEMORY_PAGE_STORE_H

#include <stddef.h>
#include <stdint.h>

struct page_store {
    uint8_t *base;  /* owned; NULL when there are no slots */
    uint32_t slots; /* of 4096 bytes */
};

/* @bytes are rounded down to whole pages. 0, -EINVAL (too large) or -ENOMEM. */
int page_store_init(struct page_store *s, uint64_t bytes);
void page_store_done(struct page_store *s);

/* Puts a page into its slot, past the caches where the processor can: it will not be looked at soon, and
 * would only push out what zstd needs. */
void page_store_put(const struct page_store *s, uint32_t slot, const uint8_t *page);

static inline uint8_t *page_store_at(const struct page_store *s, uint32_t slot)
{
    return s->base + (size_t)slot * 4096;
}

#endif
