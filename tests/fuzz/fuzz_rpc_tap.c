/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the reader of libvirt's RPC: whole frames, in order, nothing lost and nothing added, whatever the
 * cut. The first byte chooses the cut, its top bit an owner who stops in the middle.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/limits.h"
#include "core/move/rpc_tap.h"

struct seen {
    const uint8_t *expected;
    size_t at, len;
    int stop;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int on_frame(void *user, const struct rpc_frame *frame)
{
    struct seen *s = user;

    if (frame->len < RPC_KEEPALIVE_FRAME_BYTES || frame->len > LIMIT_RPC_FRAME_BYTES ||
        frame->len > s->len - s->at || memcmp(frame->data, s->expected + s->at, frame->len) != 0)
        abort();
    s->at += frame->len;
    return s->stop && frame->kind != RPC_OTHER ? -ECANCELED : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct seen seen = {0};
    struct rpc_tap *tap;
    size_t most, n;

    if (len < 1)
        return 0;
    seen = (struct seen){.expected = data + 1, .len = len - 1, .stop = data[0] & 0x80};
    most = 1 + (data[0] & 0x7f);
    if (rpc_tap_new(on_frame, &seen, &tap) < 0)
        return 0;
    for (size_t at = 1; at < len; at += n) {
        n = len - at < most ? len - at : most;
        if (rpc_tap_feed(tap, data + at, n) < 0)
            break;
    }
    rpc_tap_free(tap);
    return 0;
}
