/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and checked decoding of the link's frames: the format is drawn in wire.h. */
#include "netlink/wire.h"

#include <errno.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/wire.h"

static const uint8_t HELLO_MAGIC[8] = {'F', 'E', 'R', 'R', 'Y', 'L', 'N', 'K'};

enum { HELLO_RESUME = 0x01 };

void wire_put_header(uint8_t out[WIRE_HEADER_BYTES], const struct wire_header *h)
{
    out[0] = h->type;
    out[1] = h->flags;
    out[2] = h->care;
    out[3] = 0;
    put_be32(out + 4, h->length);
    put_be32(out + 8, h->stream);
    put_be32(out + 12, h->raw_length);
    put_be64(out + 16, h->offset);
}

static const char *data_fault(const struct wire_header *h)
{
    if (h->stream == 0)
        return "data frame without a stream";
    if (h->flags & ~(WIRE_FLAG_FIN | WIRE_FLAG_ZSTD))
        return "unknown flag";
    if (h->care >= CARE_CLASSES)
        return "unknown class of care";
    if (h->raw_length > LIMIT_FRAME_PAYLOAD_BYTES)
        return "declared size beyond the limit";
    if (h->offset > UINT64_MAX / 2)
        return "offset beyond any stream";
    if (!(h->flags & WIRE_FLAG_ZSTD) && h->raw_length != h->length)
        return "sizes of a plain frame differ";
    if ((h->flags & WIRE_FLAG_ZSTD) && (h->length == 0 || h->length >= h->raw_length))
        return "compressed frame that is not smaller";
    if (h->raw_length == 0 && !(h->flags & WIRE_FLAG_FIN))
        return "empty data frame";
    return NULL;
}

static const char *header_fault(const struct wire_header *h, uint8_t reserved)
{
    if (reserved != 0)
        return "reserved byte set";
    if (h->length > LIMIT_FRAME_PAYLOAD_BYTES)
        return "frame larger than the limit";
    if (h->type == WIRE_DATA)
        return data_fault(h);
    if (h->flags || h->care || h->raw_length)
        return "field set that this frame does not have";
    switch (h->type) {
    case WIRE_HELLO:
    case WIRE_WELCOME:
        return h->stream || h->length > WIRE_HELLO_MAX_BYTES ? "malformed greeting" : NULL;
    case WIRE_REFUSE:
    case WIRE_GOODBYE:
        return h->stream || h->length >= WIRE_TEXT_BYTES ? "malformed farewell" : NULL;
    case WIRE_ACK:
        return h->stream == 0 || h->length != 8 ? "malformed acknowledgement" : NULL;
    case WIRE_RESET:
        return h->stream == 0 || h->length ? "malformed reset" : NULL;
    case WIRE_PING:
    case WIRE_PONG:
        return h->stream || h->length ? "malformed ping" : NULL;
    default:
        return "unknown frame type";
    }
}

int wire_get_header(const uint8_t in[WIRE_HEADER_BYTES], struct wire_header *ret,
                    const char **ret_why)
{
    struct wire_header h = {
        .type = in[0],
        .flags = in[1],
        .care = in[2],
        .length = get_be32(in + 4),
        .stream = get_be32(in + 8),
        .raw_length = get_be32(in + 12),
        .offset = get_be64(in + 16),
    };
    const char *fault = header_fault(&h, in[3]);

    if (fault) {
        *ret_why = fault;
        return -EPROTO;
    }
    *ret = h;
    return 0;
}

size_t wire_put_hello(uint8_t out[WIRE_HELLO_MAX_BYTES], enum wire_type type,
                      const struct wire_hello *h)
{
    size_t name_len = strnlen(h->name, WIRE_NAME_BYTES - 1);
    uint8_t *p = out + WIRE_HEADER_BYTES;
    struct wire_header header = {.type = (uint8_t)type};

    memcpy(p, HELLO_MAGIC, sizeof(HELLO_MAGIC));
    p += sizeof(HELLO_MAGIC);
    put_be16(p, h->version);
    p[2] = h->resume ? HELLO_RESUME : 0;
    p[3] = h->stripe;
    put_be32(p + 4, h->window_bytes);
    p += 8;
    memcpy(p, h->session_id, WIRE_ID_BYTES);
    memcpy(p + WIRE_ID_BYTES, h->instance_id, WIRE_ID_BYTES);
    p += 2 * WIRE_ID_BYTES;
    *p++ = (uint8_t)name_len;
    memcpy(p, h->name, name_len);
    p += name_len;
    header.length = (uint32_t)(p - out) - WIRE_HEADER_BYTES;
    wire_put_header(out, &header);
    return (size_t)(p - out);
}

int wire_get_hello(const uint8_t *payload, size_t len, struct wire_hello *ret)
{
    struct wire_reader r = wire_reader_of(payload, len);
    const uint8_t *magic = wire_bytes(&r, sizeof(HELLO_MAGIC));
    struct wire_hello h = {0};
    const uint8_t *session, *instance, *name;
    uint8_t flags, name_len;

    if (!magic || memcmp(magic, HELLO_MAGIC, sizeof(HELLO_MAGIC)) != 0)
        return -EPROTO;
    h.version = wire_u16(&r);
    if (r.bad)
        return -EPROTO;
    if (h.version != WIRE_VERSION)
        return -EPROTONOSUPPORT;
    flags = wire_u8(&r);
    h.resume = flags & HELLO_RESUME;
    h.stripe = wire_u8(&r);
    h.window_bytes = wire_u32(&r);
    session = wire_bytes(&r, WIRE_ID_BYTES);
    instance = wire_bytes(&r, WIRE_ID_BYTES);
    name_len = wire_u8(&r);
    name = wire_bytes(&r, name_len);
    if (r.bad || wire_left(&r) || name_len >= WIRE_NAME_BYTES || (flags & ~HELLO_RESUME) ||
        h.stripe >= LIMIT_SESSION_STRIPES || h.window_bytes > LIMIT_STREAM_WINDOW_BYTES)
        return -EPROTO;
    memcpy(h.session_id, session, WIRE_ID_BYTES);
    memcpy(h.instance_id, instance, WIRE_ID_BYTES);
    memcpy(h.name, name, name_len);
    *ret = h;
    return 0;
}

size_t wire_put_text(uint8_t out[WIRE_HEADER_BYTES + WIRE_TEXT_BYTES], enum wire_type type,
                     enum wire_reason reason, const char *text)
{
    size_t len = strnlen(text, WIRE_TEXT_BYTES - 1);
    struct wire_header header = {.type = (uint8_t)type, .length = (uint32_t)len, .offset = reason};

    wire_put_header(out, &header);
    memcpy(out + WIRE_HEADER_BYTES, text, len);
    return WIRE_HEADER_BYTES + len;
}

void wire_get_text(const uint8_t *payload, size_t len, char ret[WIRE_TEXT_BYTES])
{
    size_t n = MIN(len, (size_t)WIRE_TEXT_BYTES - 1);

    for (size_t i = 0; i < n; i++)
        ret[i] = payload[i] >= 0x20 && payload[i] < 0x7f ? (char)payload[i] : '?';
    ret[n] = '\0';
}

const char *wire_reason_name(uint64_t reason)
{
    switch (reason) {
    case WIRE_REASON_NONE:
        return "no reason given";
    case WIRE_REASON_VERSION:
        return "no common protocol version";
    case WIRE_REASON_UNKNOWN_SESSION:
        return "session unknown, the peer's ferryd was restarted";
    case WIRE_REASON_BUSY:
        return "too many connections";
    case WIRE_REASON_PROTOCOL:
        return "protocol violation";
    case WIRE_REASON_SHUTDOWN:
        return "the peer's ferryd is stopping";
    case WIRE_REASON_GONE:
        return "stream closed by the peer";
    case WIRE_REASON_OUTAGE:
        return "link outage";
    default:
        return "unknown reason";
    }
}
