/* SPDX-License-Identifier: Apache-2.0 */
/* libvirt's RPC frames: see rpc_tap.h. Numbers are those of libvirt's remote_protocol.x. */
#include "core/move/rpc_tap.h"

#include <errno.h>

#include "core/base/limits.h"
#include "core/base/wire.h"

enum {
    PROGRAM_KEEPALIVE = 0x6b656570,
    PROCEDURE_PREPARE3_PARAMS = 303,
    PROCEDURE_FINISH3_PARAMS = 306,
    PROCEDURE_PING = 1,
    PROCEDURE_PONG = 2,
    TYPE_MESSAGE = 2,
    MIGRATE_PAUSED = 1 << 5, /* VIR_MIGRATE_PAUSED */
};

struct rpc_tap {
    struct buffer pending;
    rpc_tap_frame_fn on_frame;
    void *user;
};

int rpc_tap_new(rpc_tap_frame_fn on_frame, void *user, struct rpc_tap **ret)
{
    struct rpc_tap *tap = calloc(1, sizeof(*tap));

    if (!tap)
        return -ENOMEM;
    tap->on_frame = on_frame;
    tap->user = user;
    *ret = tap;
    return 0;
}

void rpc_tap_free(struct rpc_tap *tap)
{
    if (!tap)
        return;
    buffer_done(&tap->pending);
    free(tap);
}

enum rpc_kind rpc_kind_of(const uint8_t *frame, size_t len)
{
    uint32_t program = get_be32(frame + RPC_AT_PROGRAM);
    uint32_t procedure = get_be32(frame + RPC_AT_PROCEDURE);
    uint32_t type = get_be32(frame + RPC_AT_TYPE);

    if (program == PROGRAM_KEEPALIVE && type == TYPE_MESSAGE)
        return procedure == PROCEDURE_PING   ? RPC_KEEPALIVE_PING
               : procedure == PROCEDURE_PONG ? RPC_KEEPALIVE_PONG
                                             : RPC_OTHER;
    if (program != RPC_PROGRAM_REMOTE || (type != RPC_TYPE_CALL && type != RPC_TYPE_REPLY))
        return RPC_OTHER;
    if (procedure == PROCEDURE_PREPARE3_PARAMS)
        return type == RPC_TYPE_CALL ? RPC_PREPARE_CALL : RPC_PREPARE_REPLY;
    if (procedure != PROCEDURE_FINISH3_PARAMS)
        return RPC_OTHER;
    if (type == RPC_TYPE_REPLY)
        return RPC_FINISH_REPLY;
    /* The call's last argument is `int cancelled`. */
    return len >= RPC_AT_BODY + 4 && get_be32(frame + len - 4) == 0 ? RPC_FINISH_CALL
                                                                    : RPC_FINISH_CANCEL;
}

int rpc_tap_feed(struct rpc_tap *tap, const void *data, size_t len)
{
    int r = buffer_append(&tap->pending, data, len);

    while (r == 0 && buffer_len(&tap->pending) >= 4) {
        const uint8_t *at = buffer_data(&tap->pending);
        uint32_t frame_len = get_be32(at);
        struct rpc_frame frame = {.data = at, .len = frame_len};

        if (frame_len < RPC_AT_BODY || frame_len > LIMIT_RPC_FRAME_BYTES)
            return -EPROTO;
        if (buffer_len(&tap->pending) < frame_len)
            break;
        frame.kind = rpc_kind_of(at, frame_len);
        frame.ok = get_be32(at + RPC_AT_STATUS) == RPC_STATUS_OK;
        r = tap->on_frame(tap->user, &frame);
        buffer_consume(&tap->pending, frame_len);
    }
    return r;
}

void rpc_finish_set_paused(uint8_t *frame, size_t len)
{
    uint8_t *flags = frame + len - 8; /* the last but one argument; `int cancelled` follows */

    if (len < RPC_AT_BODY + 8)
        return;
    put_be32(flags, get_be32(flags) | MIGRATE_PAUSED);
}

void rpc_put_keepalive_pong(uint8_t out[RPC_KEEPALIVE_FRAME_BYTES])
{
    put_be32(out + RPC_AT_LEN, RPC_KEEPALIVE_FRAME_BYTES);
    put_be32(out + RPC_AT_PROGRAM, PROGRAM_KEEPALIVE);
    put_be32(out + RPC_AT_VERSION, 1); /* protocol version */
    put_be32(out + RPC_AT_PROCEDURE, PROCEDURE_PONG);
    put_be32(out + RPC_AT_TYPE, TYPE_MESSAGE);
    put_be32(out + RPC_AT_SERIAL, 0); /* serial */
    put_be32(out + RPC_AT_STATUS, RPC_STATUS_OK);
}
