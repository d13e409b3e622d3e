/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks the source, from the RAM decoder's thread, for a page whose reference the target's disk does not hold
 * (page_wire.h), and tells it what was passed.
 *
 * The one place where a worker waits for the loop: a chunk that was begun cannot be left in its middle. It waits until
 * the answer is there or page_asker_cancel() is called, whatever happens to the link.
 */
#ifndef FERRY_CORE_PAGE_ASKER_H
#define FERRY_CORE_PAGE_ASKER_H

#include <stdint.h>

#include <uv.h>

#include "netlink/session.h"

struct page_asker;

int page_asker_new(uv_loop_t *loop, struct page_asker **ret);
/* When nobody asks any more; frees the stream, too. NULL is allowed. */
void page_asker_free(struct page_asker *a);
/* The source's stream; becomes the asker's. -EEXIST. */
int page_asker_set_stream(struct page_asker *a, struct stream *stream);
/* The first @count references were decoded. */
void page_asker_passed(struct page_asker *a, uint64_t count);
/* Who asks comes back at once, with -ECANCELED, now and from now on; the stream goes. */
void page_asker_cancel(struct page_asker *a);

/* On the decoder's thread: 0, -ECANCELED or -EPROTO. */
int page_asker_ask(struct page_asker *a, uint64_t number, uint8_t *ret_page);

#endif
