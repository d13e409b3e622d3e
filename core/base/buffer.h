/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte queue: append at the tail, consume at the head, always contiguous in memory.
 *
 * The bound is the owner's: it checks buffer_len() before it appends. Consuming is O(1); room is
 * made by moving the rest to the front when the dead space at the head exceeds what is alive.
 */
#ifndef FERRY_CORE_BASE_BUFFER_H
#define FERRY_CORE_BASE_BUFFER_H

#include <stdint.h>

#include "core/base/macros.h"

struct buffer {
    uint8_t *base; /* owned */
    size_t head;   /* bytes already consumed */
    size_t tail;   /* end of the valid bytes */
    size_t cap;
};

/* A zeroed struct buffer is a valid empty one. */
void buffer_done(struct buffer *b);

static inline size_t buffer_len(const struct buffer *b)
{
    return b->tail - b->head;
}

/* The first valid byte; buffer_len() bytes follow (none: perhaps NULL). Invalid after any other call. */
static inline const uint8_t *buffer_data(const struct buffer *b)
{
    return b->base ? b->base + b->head : NULL;
}

/* Room for @len bytes at the tail, to be filled and then buffer_commit()ed. NULL: out of memory. */
uint8_t *buffer_reserve(struct buffer *b, size_t len);
void buffer_commit(struct buffer *b, size_t len);

/* Copies @len bytes to the tail. 0 or -ENOMEM. */
int buffer_append(struct buffer *b, const void *data, size_t len);

/* Drops @len <= buffer_len() bytes at the head; an emptied large buffer gives its memory back. */
void buffer_consume(struct buffer *b, size_t len);

void buffer_clear(struct buffer *b);

#endif
