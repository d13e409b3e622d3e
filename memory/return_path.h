/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads along in what QEMU at the target says back: u16 type, u16 length, so many bytes, all big-endian.
 *
 *   PONG 3   Post-copy's package holds the devices' state, and behind it PING 3: QEMU has loaded all of it and has only to
 *            be told to run.
 *   SHUT     its last word: all pages are there. A source that hears it has completed its migration and cannot go back.
 *
 * What follows a recovery has no lengths, and is not read.
 */
#ifndef FERRY_MEMORY_RETURN_PATH_H
#define FERRY_MEMORY_RETURN_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct return_path {
    uint8_t item[8]; /* of a message, as far as it matters */
    size_t fill;
    size_t skip_bytes;
    uint64_t passed_bytes; /* return_path_before_shut() */
    bool loaded;           /* PONG 3 was seen */
};

enum { RETURN_PATH_END_BYTES = 1024 };

/* Starts zeroed. Takes the next bytes, in any pieces; true: PONG 3 is in them. Nothing is read after it. */
bool return_path_feed(struct return_path *r, const uint8_t *data, size_t len);
/* Starts zeroed, for another one than return_path_feed(). How many of these bytes, @offset of which came before them, may
 * pass without saying SHUT: all, or those before it. They may be offered again. */
size_t return_path_before_shut(struct return_path *r, uint64_t offset, const uint8_t *data,
                               size_t len);
/* RETURN_PATH_END_BYTES that end it for a source that has sent everything, as a target does that has failed, wherever it
 * was left: SHUT with an error, and what is no message. */
const uint8_t *return_path_end(void);

#endif
