/* SPDX-License-Identifier: Apache-2.0 */
/* Slots for pages: see page_store.h. */
#include "memory/page_store.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "core/base/limits.h"
#include "memory/ram_parser.h"

int page_store_init(struct page_store *s, uint64_t bytes)
{
    uint64_t slots = bytes / RAM_PAGE_BYTES;
    void *base;

    *s = (struct page_store){0};
    if (bytes > LIMIT_RAM_STORE_BYTES)
        return -EINVAL;
    if (slots == 0)
        return 0;
    /* Counted where the kernel counts, so that memory which is not there is found out now. Not written before it is
     * needed: 256 MiB of zeroes take half a second, in which no other thread of the process can map anything. */
    base = mmap(NULL, slots * RAM_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    if (base == MAP_FAILED)
        return -ENOMEM;
    /* One fault for 512 slots instead of one each: a tenth of the encoder's time. Only a wish. */
    (void)madvise(base, slots * RAM_PAGE_BYTES, MADV_HUGEPAGE);
    *s = (struct page_store){.base = base, .slots = (uint32_t)slots};
    return 0;
}

void page_store_done(struct page_store *s)
{
    if (s->base)
        munmap(s->base, (size_t)s->slots * RAM_PAGE_BYTES);
    *s = (struct page_store){0};
}

void page_store_put(const struct page_store *s, uint32_t slot, const uint8_t *page)
{
    uint8_t *at = page_store_at(s, slot);

#ifdef __SSE2__
    for (size_t i = 0; i < RAM_PAGE_BYTES; i += sizeof(__m128i)) {
        __m128i part;

        memcpy(&part, page + i, sizeof(part));
        _mm_stream_si128((__m128i *)(void *)(at + i), part); /* slots are page aligned */
    }
#else
    memcpy(at, page, RAM_PAGE_BYTES);
#endif
}
