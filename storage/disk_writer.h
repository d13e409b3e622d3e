/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the target engine reaches a disk: asynchronous requests, each ended once by a completion.
 *
 * A function returns 0 when the request was taken: then its completion follows, later, never from
 * within the call. A negative errno: it was not taken and no completion follows. Requests in flight at
 * the same time may take effect in any order; the engine never has two that overlap.
 */
#ifndef FERRY_STORAGE_DISK_WRITER_H
#define FERRY_STORAGE_DISK_WRITER_H

#include <stdbool.h>
#include <stdint.h>

struct disk_writer_ops {
    /* @data stays the caller's and unchanged until the completion. */
    int (*write)(void *writer, uint64_t cookie, uint64_t offset, uint32_t length,
                 const uint8_t *data);
    /* The extent reads as zeroes afterwards; with @may_trim it may become a hole. */
    int (*zero)(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, bool may_trim);
    /* A hint: the extent's contents are of no interest. */
    int (*trim)(void *writer, uint64_t cookie, uint64_t offset, uint32_t length);
    /* Everything completed before the call is durable afterwards. */
    int (*flush)(void *writer, uint64_t cookie);
    /* @data is the caller's and filled by the time of the completion. */
    int (*read)(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, uint8_t *data);
};

#endif
