/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/return_path.h"

#include "core/base/macros.h"
#include "core/base/wire.h"

enum { HEAD_BYTES = 4, SHUT = 1, PONG = 2, PONG_BYTES = 4, PING_OF_PACKAGE = 3 };

static size_t skip(struct return_path *r, size_t len)
{
    size_t n = MIN(r->skip_bytes, len);

    r->skip_bytes -= n;
    return n;
}

bool return_path_feed(struct return_path *r, const uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len && !r->loaded) {
        at += skip(r, len - at);
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

size_t return_path_before_shut(struct return_path *r, uint64_t offset, const uint8_t *data,
                               size_t len)
{
    size_t at = (size_t)MIN(r->passed_bytes - offset, (uint64_t)len);

    while (at < len) {
        at += skip(r, len - at);
        if (at == len)
            break;
        r->item[r->fill] = data[at];
        if (r->fill == 1 && get_be16(r->item) == SHUT)
            break;
        at++;
        if (++r->fill < HEAD_BYTES)
            continue;
        r->skip_bytes = get_be16(r->item + 2);
        r->fill = 0;
    }
    r->passed_bytes = MAX(r->passed_bytes, offset + at);
    return at;
}

const uint8_t *return_path_end(void)
{
    static const uint8_t end[RETURN_PATH_END_BYTES] = {0, SHUT, 0, 4, 0, 0, 0, 1};

    return end;
}
