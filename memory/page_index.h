/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which page lies in which slot of a page store, found by the page's key and by its content's hash.
 *
 * Slots are given out in order, so that pages sent in order lie in order. When all are in use a clock
 * hand looks for one to give up: a page that was rewritten since it was put here (hot) is spared once.
 * Two chained hash tables run through the slots' own records: no allocation after the start, exact
 * removal in O(1), and a bounded walk however a guest may choose its pages' content.
 */
#ifndef FERRY_MEMORY_PAGE_INDEX_H
#define FERRY_MEMORY_PAGE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

struct page_index;

#define PAGE_INDEX_NONE UINT32_MAX

int page_index_new(uint32_t slots, struct page_index **ret);
void page_index_free(struct page_index *ix);

/* The slot of the page with this key, or PAGE_INDEX_NONE. */
uint32_t page_index_find_key(const struct page_index *ix, uint64_t key);
/* The slot whose content has this hash, after @after (PAGE_INDEX_NONE: the first). */
uint32_t page_index_find_hash(const struct page_index *ix, uint64_t hash, uint32_t after);

/* A slot to put a page in; what was there is forgotten. PAGE_INDEX_NONE when there are none. */
uint32_t page_index_take(struct page_index *ix);
/* The slot now holds the page @key with content of @hash. */
void page_index_put(struct page_index *ix, uint32_t slot, uint64_t key, uint64_t hash, bool hot);
/* The pages with the @count keys from @first on are not here any more. */
void page_index_forget(struct page_index *ix, uint64_t first, uint64_t count);
/* Of a slot that was found. */
uint64_t page_index_key(const struct page_index *ix, uint32_t slot);

#endif
