/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire format of the link between two sites, whole.
 *
 * (The folder's name means "the net link of ferry"; it has nothing to do with Linux' netlink(7).)
 *
 * A stripe is one TCP connection under TLS 1.3. On it both sides send frames, nothing else. Every
 * integer is big-endian.
 *
 *      0        1        2        3        4                          8
 *     +--------+--------+--------+--------+--------------------------+
 *     | type   | flags  | care   | zero   | length of the payload    |
 *     +--------+--------+--------+--------+--------------------------+
 *     | stream id                         | raw length               |
 *     +-----------------------------------+--------------------------+
 *     | offset (64 bit)                                              |
 *     +--------------------------------------------------------------+
 *     | payload: `length` bytes                                      |
 *
 *   type     stream  offset                raw length    payload
 *   HELLO    0       0                     0             who I am, which session (client, first frame)
 *   WELCOME  0       0                     0             accepted (server, first frame)
 *   REFUSE   0       reason code           0             text; the connection closes after it
 *   DATA     id      first byte's offset   bytes of the stream the payload stands for; FIN, ZSTD flags
 *   ACK      id      received up to here   0             u64: the offset up to which may be sent
 *   RESET    id      reason code           0             empty; both directions of the stream are over
 *   PING     0       opaque                0             empty; answered at once by
 *   PONG     0       the ping's            0             empty
 *   GOODBYE  0       reason code           0             text; the session is over, on purpose
 *
 * A stream is one ordered sequence of bytes in each direction. Offsets count its bytes from 0; a
 * FIN counts as one byte more, so that its arrival is acknowledged like data. DATA of any stream may
 * travel on any stripe, and again on another when one is lost: the receiver orders by offset and
 * drops what it already has. So resumption and striping need nothing beyond these fields. Streams
 * open by their first DATA frame; the session's initiator numbers its streams 1, 3, 5 ..., the other
 * side 2, 4, 6 ...
 */
#ifndef FERRY_NETLINK_WIRE_H
#define FERRY_NETLINK_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/limits.h"

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER_BYTES = 24,
    WIRE_ID_BYTES = 16,    /* session and instance ids: random */
    WIRE_NAME_BYTES = 64,  /* a site's name, with its final zero */
    WIRE_TEXT_BYTES = 256, /* the text of REFUSE and GOODBYE, with its final zero */
    WIRE_HELLO_MAX_BYTES = 256,
};

#define WIRE_FRAME_MAX_BYTES (WIRE_HEADER_BYTES + LIMIT_FRAME_PAYLOAD_BYTES)

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_WELCOME = 2,
    WIRE_REFUSE = 3,
    WIRE_DATA = 4,
    WIRE_ACK = 5,
    WIRE_RESET = 6,
    WIRE_PING = 7,
    WIRE_PONG = 8,
    WIRE_GOODBYE = 9,
};

enum wire_flags {
    WIRE_FLAG_FIN = 0x01,  /* DATA: the stream ends after these bytes */
    WIRE_FLAG_ZSTD = 0x02, /* DATA: the payload is one zstd frame of `raw length` bytes */
};

/* The order of care: what must never wait comes first. */
enum care {
    CARE_CONTROL = 0, /* sites' control messages and libvirt's RPC */
    CARE_GUEST = 1,   /* guest writes that the mirror log holds */
    CARE_RAM = 2,     /* guest memory */
    CARE_BULK = 3,    /* the bulk copy of the disks */
    CARE_CLASSES = 4,
};

/* Reason codes of REFUSE, GOODBYE and RESET. */
enum wire_reason {
    WIRE_REASON_NONE = 0,
    WIRE_REASON_VERSION = 1, /* no common protocol version */
    WIRE_REASON_UNKNOWN_SESSION =
        2,                    /* resumption of a session that is not known here (a restart) */
    WIRE_REASON_BUSY = 3,     /* a cap is reached */
    WIRE_REASON_PROTOCOL = 4, /* the peer broke the protocol */
    WIRE_REASON_SHUTDOWN = 5, /* the daemon stops */
    WIRE_REASON_GONE = 6,     /* RESET: the stream is not known any more */
    WIRE_REASON_OUTAGE = 7,   /* no stripe for longer than the configured limit */
};

struct wire_header {
    uint8_t type;  /* enum wire_type */
    uint8_t flags; /* enum wire_flags */
    uint8_t care;  /* enum care; DATA only */
    uint32_t length;
    uint32_t stream;
    uint32_t raw_length;
    uint64_t offset;
};

/* The payload of HELLO and of WELCOME. */
struct wire_hello {
    uint16_t version;
    uint8_t session_id[WIRE_ID_BYTES];
    uint8_t instance_id[WIRE_ID_BYTES]; /* of this run of the daemon; a restart changes it */
    bool resume;                        /* HELLO: this session had a stripe before */
    uint8_t stripe;                     /* HELLO: this stripe's index */
    uint32_t window_bytes;              /* what may be sent on each stream before the first ACK */
    char name[WIRE_NAME_BYTES]; /* the sender's site, for messages only: the certificate decides */
};

void wire_put_header(uint8_t out[WIRE_HEADER_BYTES], const struct wire_header *h);

/*
 * Decodes and checks a header: known type and flags, reserved byte zero, lengths within their
 * limits and consistent with the type. 0, or -EPROTO with *ret_why naming the fault.
 */
int wire_get_header(const uint8_t in[WIRE_HEADER_BYTES], struct wire_header *ret,
                    const char **ret_why);

/* Writes a whole HELLO or WELCOME frame; returns its length (<= WIRE_HELLO_MAX_BYTES). */
size_t wire_put_hello(uint8_t out[WIRE_HELLO_MAX_BYTES], enum wire_type type,
                      const struct wire_hello *h);

/* Decodes the payload of a HELLO or WELCOME. 0, -EPROTO, or -EPROTONOSUPPORT for another version. */
int wire_get_hello(const uint8_t *payload, size_t len, struct wire_hello *ret);

/* Writes a whole REFUSE or GOODBYE frame; returns its length. */
size_t wire_put_text(uint8_t out[WIRE_HEADER_BYTES + WIRE_TEXT_BYTES], enum wire_type type,
                     enum wire_reason reason, const char *text);

/* The payload as printable text: anything outside ASCII becomes '?'. */
void wire_get_text(const uint8_t *payload, size_t len, char ret[WIRE_TEXT_BYTES]);

const char *wire_reason_name(uint64_t reason);

#endif
