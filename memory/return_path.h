/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads along in what QEMU at the target says back: u16 type, u16 length, so many bytes, all big-endian.
 *
 * Post-copy's package holds the devices' state, and behind it PING 3: PONG 3 means that QEMU has loaded all of it and has
 * only to be told to run. That is what is looked for, and nothing after it is read: what follows a recovery has no
 * lengths.
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
    bool loaded; /* PONG 3 was seen */
};

/* Starts zeroed. Takes the next bytes, in any pieces; true: PONG 3 is in them. */
bool return_path_feed(struct return_path *r, const uint8_t *data, size_t len);

#endif
