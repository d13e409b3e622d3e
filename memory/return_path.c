/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/return_path.h"

#include "core/base/macros.h"
#include "core/base/wire.h"

enum { HEAD_BYTES = 4, PONG = 2, PONG_BYTES = 4, PING_OF_PACKAGE = 3 };

bool return_path_feed(struct return_path *r, const uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len && !r->loaded) {
        size_t skip = MIN(r->skip_bytes, len - at);

        r->skip_bytes -= skip;
        at += skip;
        if (at == len)
            break;
        r->item[r->fill++] = data[at++];
        if (r->fill < HEAD_BYTES)
            continue;
        if (get_be16(r->item) == PONG && get_be16(r->item + 2) == PONG_BYTES) {
            if (r->fill < HEAD_BYTES + PONG_BYTES)
                continue;
            r->loaded = get_be32(r->item + HEAD_BYTES) == PING_OF_PACKAGE;
        } else {
            r->skip_bytes = get_be16(r->item + 2);
        }
        r->fill = 0;
    }
    return r->loaded;
}
