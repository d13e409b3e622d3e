/* SPDX-License-Identifier: Apache-2.0 */
/* The byte queue: see buffer.h. */
#include "core/base/buffer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* An empty buffer that once grew beyond this frees its memory, so that idle objects stay small. */
enum { KEEP_BYTES = 256 * 1024, FIRST_BYTES = 512 };

void buffer_done(struct buffer *b)
{
    free(b->base);
    memset(b, 0, sizeof(*b));
}

uint8_t *buffer_reserve(struct buffer *b, size_t len)
{
    size_t live = buffer_len(b);
    size_t cap;
    uint8_t *base;

    if (b->cap - b->tail >= len && b->base)
        return b->base + b->tail;
    if (b->base && b->cap - live >= len && b->head >= live) {
        memcpy(b->base, b->base + b->head, live);
        b->head = 0;
        b->tail = live;
        return b->base + b->tail;
    }
    if (len > SIZE_MAX / 2 - live)
        return NULL;
    cap = MAX(b->cap, (size_t)FIRST_BYTES);
    while (cap < live + len)
        cap *= 2;
    base = malloc(cap);
    if (!base)
        return NULL;
    if (b->base)
        memcpy(base, b->base + b->head, live);
    free(b->base);
    *b = (struct buffer){.base = base, .head = 0, .tail = live, .cap = cap};
    return b->base + b->tail;
}

void buffer_commit(struct buffer *b, size_t len)
{
    assert(b->cap - b->tail >= len);
    b->tail += len;
}

int buffer_append(struct buffer *b, const void *data, size_t len)
{
    uint8_t *room;

    if (len == 0)
        return 0;
    room = buffer_reserve(b, len);
    if (!room)
        return -ENOMEM;
    memcpy(room, data, len);
    b->tail += len;
    return 0;
}

void buffer_consume(struct buffer *b, size_t len)
{
    assert(len <= buffer_len(b));
    b->head += len;
    if (b->head == b->tail)
        buffer_clear(b);
}

void buffer_clear(struct buffer *b)
{
    if (b->cap > KEEP_BYTES)
        buffer_done(b);
    b->head = b->tail = 0;
}
