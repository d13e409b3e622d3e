/* SPDX-License-Identifier: Apache-2.0 */
/* Pages looked at: see page_content.h. */
#include "memory/page_content.h"

#include <string.h>

#include "memory/ram_codec_format.h"
#include "memory/ram_parser.h"

enum {
    LINE_BYTES = 64,
    WORD_BYTES = 8,
    /* Spans closer than this are joined: a span costs two or three bytes by itself. */
    JOIN_BYTES = 4,
    /* Of 512 sampled bytes: random ones give a sum of squared counts of about 512 + 512^2 / 256 = 1536 with
     * a deviation of 45. x86 code gives 4000 and more, text 10000. */
    SAMPLE_STRIDE = 8,
    RANDOM_SUM_MAX = 1800,
};

static uint64_t word_at(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

bool page_content_is_constant(const uint8_t *page)
{
    return word_at(page) == word_at(page + WORD_BYTES) &&
           memcmp(page, page + WORD_BYTES, RAM_PAGE_BYTES - WORD_BYTES) == 0;
}

bool page_content_looks_random(const uint8_t *page)
{
    uint16_t count[2][256] = {0};
    unsigned sum = 0;

    /* The byte looked at moves through the word, so that tables of numbers do not pass for noise; two
     * tables, so that equal neighbours do not wait for each other. */
    for (size_t at = 0; at < RAM_PAGE_BYTES; at += 2 * SAMPLE_STRIDE) {
        size_t within = at / (2 * SAMPLE_STRIDE) % SAMPLE_STRIDE;

        count[0][page[at + within]]++;
        count[1][page[at + SAMPLE_STRIDE + within]]++;
    }
    for (size_t i = 0; i < 256; i++) {
        unsigned both = (unsigned)count[0][i] + count[1][i];

        sum += both * both;
    }
    return sum <= RANDOM_SUM_MAX;
}

static bool line_differs(const uint8_t *a, const uint8_t *b)
{
    uint64_t any = 0;

    for (size_t i = 0; i < LINE_BYTES; i += WORD_BYTES)
        any |= word_at(a + i) ^ word_at(b + i);
    return any != 0;
}

size_t page_content_differing_bytes(const uint8_t *a, const uint8_t *b)
{
    size_t n = 0;

    for (size_t at = 0; at < RAM_PAGE_BYTES; at += WORD_BYTES) {
        uint64_t x = word_at(a + at) ^ word_at(b + at);

        /* Folds each byte's bits into its lowest, and adds those up. */
        x |= x >> 4;
        x |= x >> 2;
        x |= x >> 1;
        x &= UINT64_C(0x0101010101010101);
        n += (size_t)(x * UINT64_C(0x0101010101010101) >> 56);
    }
    return n;
}

/* The first offset >= @at where the pages differ; RAM_PAGE_BYTES: nowhere. */
static size_t next_difference(const uint8_t *a, const uint8_t *b, size_t at)
{
    for (; at < RAM_PAGE_BYTES && at % LINE_BYTES != 0; at++) {
        if (a[at] != b[at])
            return at;
    }
    while (at < RAM_PAGE_BYTES && !line_differs(a + at, b + at))
        at += LINE_BYTES;
    for (; at < RAM_PAGE_BYTES; at++) {
        if (a[at] != b[at])
            return at;
    }
    return RAM_PAGE_BYTES;
}

/* The end of the span that begins at @at: what follows is equal for JOIN_BYTES. */
static size_t span_end(const uint8_t *a, const uint8_t *b, size_t at)
{
    size_t last = at;

    for (; at < RAM_PAGE_BYTES && at - last < JOIN_BYTES; at++) {
        if (a[at] != b[at])
            last = at;
    }
    return last + 1;
}

size_t page_content_write_delta(const uint8_t *base, const uint8_t *page, uint8_t *record)
{
    uint8_t spans[PAGE_DELTA_MAX_BYTES];
    size_t fill = 0, count = 0, end = 0, at = 0, head;

    while ((at = next_difference(base, page, at)) < RAM_PAGE_BYTES) {
        size_t len = span_end(base, page, at) - at;

        /* gap and length are at most two bytes each, the count too */
        if (fill + 4 + len + 2 > sizeof(spans))
            return 0;
        fill += ram_varint_put(spans + fill, at - end);
        fill += ram_varint_put(spans + fill, len);
        memcpy(spans + fill, page + at, len);
        fill += len;
        count++;
        at = end = at + len;
    }
    head = ram_varint_put(record, count);
    memcpy(record + head, spans, fill);
    return head + fill;
}

bool page_content_apply_delta(struct wire_reader *r, uint8_t *page)
{
    uint64_t count = ram_varint_get(r);
    size_t at = 0;

    for (; count > 0 && !r->bad; count--) {
        uint64_t gap = ram_varint_get(r), len = ram_varint_get(r);
        const uint8_t *bytes;

        if (gap > RAM_PAGE_BYTES - at || len == 0 || len > RAM_PAGE_BYTES - at - gap)
            return false;
        bytes = wire_bytes(r, len);
        if (!bytes)
            return false;
        at += gap;
        memcpy(page + at, bytes, len);
        at += len;
    }
    return !r->bad;
}

void page_content_xor(uint8_t *out, const uint8_t *a, const uint8_t *b)
{
    for (size_t at = 0; at < RAM_PAGE_BYTES; at += WORD_BYTES) {
        uint64_t v = word_at(a + at) ^ word_at(b + at);

        memcpy(out + at, &v, sizeof(v));
    }
}
