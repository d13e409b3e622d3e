/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be told about a page's content, and the difference of two pages as a record of spans.
 *
 * A delta record (ram_codec_format.h): a varint count of spans, then for each: varint gap from the end
 * of the last one, varint length >= 1, that many bytes.
 */
#ifndef FERRY_MEMORY_PAGE_CONTENT_H
#define FERRY_MEMORY_PAGE_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/wire.h"

/* Longest record that page_content_write_delta() makes, and the most bytes that may differ for it. */
enum { PAGE_DELTA_MAX_BYTES = 1024 };

/* The page repeats its first 8 bytes. */
bool page_content_is_constant(const uint8_t *page);

/* A sample of its bytes is spread like random ones: to compress it would be wasted. */
bool page_content_looks_random(const uint8_t *page);

/* Bytes that differ, counted in 8-byte words: 0 only when the pages are equal. */
size_t page_content_differing_bytes(const uint8_t *a, const uint8_t *b);

/* Writes the record that turns @base into @page, at most PAGE_DELTA_MAX_BYTES. 0: it would be longer. */
size_t page_content_write_delta(const uint8_t *base, const uint8_t *page, uint8_t *record);

/* Applies the record at @r to @page. False: it is malformed or leaves the page. */
bool page_content_apply_delta(struct wire_reader *r, uint8_t *page);

/* out = a xor b; they may be the same. */
void page_content_xor(uint8_t *out, const uint8_t *a, const uint8_t *b);

#endif
