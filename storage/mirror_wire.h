/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What crosses the WAN for one disk: two ordered byte streams of messages, one each way. The session
 * below guarantees that bytes arrive once and in order, whatever happens to connections, and carries
 * the version; so there is neither here.
 *
 * Every message starts with the same 24 bytes, big-endian:
 *
 *     0      1       2       4            8               16              24
 *     +------+-------+-------+------------+---------------+---------------+----------------
 *     | type | flags | zero  | length u32 | seq u64       | offset u64    | payload ...
 *     +------+-------+-------+------------+---------------+---------------+----------------
 *
 *   source -> target        length           seq            offset              payload
 *   1 OPEN                  of the alias     0              size of the disk    alias, not terminated
 *   2 WRITE                 of the extent    next           of the extent       `length` bytes of data
 *   3 ZERO  (flag MAY_TRIM) of the extent    next           of the extent       -
 *   4 TRIM                  of the extent    next           of the extent       -
 *   5 FLUSH                 0                next           0                   -
 *   6 READ                  of the extent    next           of the extent       -
 *   7 CLOSE                 0                next           bytes of all WRITEs -
 *   8 CHECK                 of the extent    next           of the extent       -
 *   9 SEED                  of the extent    next           of the extent       SHA-256 of each 64 KiB
 *  10 FILL                  of the payload   the SEED's     of the extent       what the seed lacks
 *
 *   target -> source
 *   65 APPLIED              0                up to here     bytes queued, not applied, at the target
 *   66 READ_DATA            of the data      the READ's     0, or errno         data, when errno is 0
 *   67 CLOSED               0                the CLOSE's    0                   -
 *   69 DIGEST               16, or 0         the CHECK's    0, or errno         digest, when errno is 0
 *   68 ERROR                of the text      0              errno               text, not terminated
 *   70 MISS                 of the payload   the SEED's     of the extent       XXH3-64 of each 4 KiB, or -
 *
 * OPEN is first and once. `seq` counts 1, 2, 3, ... over the messages 2 to 9 in the order they are
 * sent. Operations whose extents overlap take effect in that order; others in any. FLUSH takes effect
 * after everything before it. A READ, and a CHECK (which answers with the digest
 * of disk_digest.h of what the disk gives back), sees everything before it. APPLIED(n) says that all of 1..n took
 * effect (not that they are durable). CLOSE is last; CLOSED says that everything before it took effect
 * and that the disk was flushed afterwards: "disk done". ERROR is last in its direction.
 * errno values are Linux's.
 *
 * A SEED is a WRITE of at most 1 MiB whose data the target may have on an older copy of the disk; the source
 * may send it for disks of which the target said so. When the target has not, it answers MISS, with what it
 * has there or with nothing, and the source sends a FILL (both drawn in seed_blocks.h), whole after a MISS
 * with nothing. At most one more MISS, with nothing, may follow: the seed has changed. So that what waits for
 * FILLs never keeps FILLs from being read, at most LIMIT_SEEDS_IN_FLIGHT are sent and not applied, what
 * overlaps them is bounded by LIMIT_SEED_BEHIND_*, and no READ or CHECK follows before they are applied.
 *
 * The decoder is incremental: headers are checked against every bound before any memory is taken for
 * a payload, and a payload is received straight into the memory that is handed on.
 */
#ifndef FERRY_STORAGE_MIRROR_WIRE_H
#define FERRY_STORAGE_MIRROR_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/error.h"

enum { MIRROR_WIRE_HEADER_BYTES = 24 };

enum mirror_wire_type {
    MIRROR_WIRE_OPEN = 1,
    MIRROR_WIRE_WRITE = 2,
    MIRROR_WIRE_ZERO = 3,
    MIRROR_WIRE_TRIM = 4,
    MIRROR_WIRE_FLUSH = 5,
    MIRROR_WIRE_READ = 6,
    MIRROR_WIRE_CLOSE = 7,
    MIRROR_WIRE_CHECK = 8,
    MIRROR_WIRE_SEED = 9,
    MIRROR_WIRE_FILL = 10,
    MIRROR_WIRE_APPLIED = 65,
    MIRROR_WIRE_READ_DATA = 66,
    MIRROR_WIRE_CLOSED = 67,
    MIRROR_WIRE_ERROR = 68,
    MIRROR_WIRE_DIGEST = 69,
    MIRROR_WIRE_MISS = 70,
};

/* ZERO: the extent may become a hole. */
#define MIRROR_WIRE_MAY_TRIM 0x01u

struct mirror_wire_message {
    enum mirror_wire_type type;
    uint8_t flags;
    uint32_t length;
    uint64_t seq;
    uint64_t offset;
    uint8_t *payload; /* malloc'ed, the receiver's; NULL when the message has none */
};

/* How many bytes follow the header? `length`, 0, or of a SEED its digests. */
uint32_t mirror_wire_payload_bytes(const struct mirror_wire_message *m);

const char *mirror_wire_type_name(enum mirror_wire_type type);

/* The header only; the payload follows it as it is. */
void mirror_wire_encode(const struct mirror_wire_message *m, uint8_t out[MIRROR_WIRE_HEADER_BYTES]);

enum mirror_wire_direction { MIRROR_WIRE_TO_TARGET, MIRROR_WIRE_TO_SOURCE };

struct mirror_wire_decoder {
    enum mirror_wire_direction direction;
    uint8_t header[MIRROR_WIRE_HEADER_BYTES];
    size_t header_fill;
    struct mirror_wire_message message; /* being received; payload owned */
    size_t payload_fill;
};

void mirror_wire_decoder_init(struct mirror_wire_decoder *d, enum mirror_wire_direction direction);
void mirror_wire_decoder_done(struct mirror_wire_decoder *d);

/*
 * Takes bytes up to the end of at most one message. Returns how many it took (0 only when @len is 0),
 * or -EPROTO / -ENOMEM with *e filled, after which the stream cannot be read on. *ret_complete tells
 * whether *ret_message is now a whole message, whose payload is the caller's.
 */
ssize_t mirror_wire_decode(struct mirror_wire_decoder *d, const void *data, size_t len,
                           struct mirror_wire_message *ret_message, bool *ret_complete,
                           struct error *e);

/* Bytes of memory that the message under reception holds. */
size_t mirror_wire_decoder_bytes(const struct mirror_wire_decoder *d);

#endif
