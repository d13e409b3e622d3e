/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks by place and by content: see disk_blocks.h. A page_index without a store: key is the place. */
#include "memory/disk_blocks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "memory/page_content.h"
#include "memory/page_index.h"
#include "memory/ram_checksum.h"

enum { BLOCK_SHIFT = 12, DISK_SHIFT = 52, COST_BYTES = 56 };

struct disk_blocks {
    struct page_index *index;
};

static_assert((int)DISK_BLOCK_BYTES == (int)RAM_PAGE_BYTES &&
                  (int)DISK_BLOCK_BYTES == 1 << BLOCK_SHIFT,
              "a block is a page");

int disk_blocks_new(uint64_t memory_bytes, struct disk_blocks **ret)
{
    uint64_t slots = memory_bytes / COST_BYTES;
    struct disk_blocks *b;
    int r;

    if (slots > INT32_MAX)
        return -EINVAL;
    b = calloc(1, sizeof(*b));
    if (!b)
        return -ENOMEM;
    r = page_index_new((uint32_t)slots, &b->index);
    if (r < 0) {
        free(b);
        return r;
    }
    *ret = b;
    return 0;
}

void disk_blocks_free(struct disk_blocks *b)
{
    if (!b)
        return;
    page_index_free(b->index);
    free(b);
}

static uint64_t key_of(unsigned disk, uint64_t block)
{
    return (uint64_t)disk << DISK_SHIFT | block;
}

static int note(struct buffer *notes, unsigned disk, uint64_t offset, uint64_t length,
                uint64_t hash)
{
    struct disk_note n = {.offset = offset, .length = length, .hash = hash, .disk = disk};

    assert(disk < DISK_BLOCKS_DISKS_MAX);
    return buffer_append(notes, &n, sizeof(n));
}

int disk_notes_write(struct buffer *notes, unsigned disk, uint64_t offset, uint32_t length,
                     const uint8_t *data)
{
    uint64_t end = offset + length;
    int r = 0;

    for (uint64_t at = offset, next; at < end && r == 0; at = next) {
        const uint8_t *block = data + (at - offset);
        uint64_t hash = 0;

        next = MIN((at | (DISK_BLOCK_BYTES - 1)) + 1, end);
        if (next - at == DISK_BLOCK_BYTES && !page_content_is_constant(block))
            hash = ram_checksum_of_page(block); /* what is constant costs nothing to send */
        r = note(notes, disk, at, next - at, hash);
    }
    return r;
}

int disk_notes_forget(struct buffer *notes, unsigned disk, uint64_t offset, uint64_t length)
{
    return length > 0 ? note(notes, disk, offset, length, 0) : 0;
}

static void take(struct disk_blocks *b, const struct disk_note *n)
{
    uint64_t first = n->offset >> BLOCK_SHIFT, last = (n->offset + n->length - 1) >> BLOCK_SHIFT;
    uint64_t key = key_of(n->disk, first);
    uint32_t slot;

    if (n->hash == 0) {
        page_index_forget(b->index, key, last - first + 1);
        return;
    }
    slot = page_index_find_key(b->index, key);
    if (slot == PAGE_INDEX_NONE)
        slot = page_index_take(b->index);
    if (slot != PAGE_INDEX_NONE)
        page_index_put(b->index, slot, key, n->hash, false);
}

void disk_blocks_take(struct disk_blocks *b, const struct buffer *notes)
{
    const uint8_t *at = buffer_data(notes);
    struct disk_note n;

    for (size_t left = buffer_len(notes); left >= sizeof(n); left -= sizeof(n), at += sizeof(n)) {
        memcpy(&n, at, sizeof(n));
        take(b, &n);
    }
}

bool disk_blocks_find(const struct disk_blocks *b, uint64_t hash, unsigned *ret_disk,
                      uint64_t *ret_offset)
{
    uint32_t slot = page_index_find_hash(b->index, hash, PAGE_INDEX_NONE);
    uint64_t key;

    if (slot == PAGE_INDEX_NONE)
        return false;
    key = page_index_key(b->index, slot);
    *ret_disk = (unsigned)(key >> DISK_SHIFT);
    *ret_offset = (key & ((UINT64_C(1) << DISK_SHIFT) - 1)) << BLOCK_SHIFT;
    return true;
}
