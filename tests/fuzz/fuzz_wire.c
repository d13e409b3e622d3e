/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the decoders of the link's first frames. What is taken must survive being written and read again.
 */
#include <stdlib.h>
#include <string.h>

#include "netlink/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_hello(const uint8_t *payload, size_t len)
{
    uint8_t frame[WIRE_HELLO_MAX_BYTES];
    struct wire_hello h, again;
    size_t n;

    if (wire_get_hello(payload, len, &h) < 0)
        return;
    if (!memchr(h.name, '\0', sizeof(h.name)) || h.stripe >= LIMIT_SESSION_STRIPES)
        abort();
    n = wire_put_hello(frame, WIRE_HELLO, &h);
    if (wire_get_hello(frame + WIRE_HEADER_BYTES, n - WIRE_HEADER_BYTES, &again) < 0 ||
        strcmp(again.name, h.name) != 0 || again.window_bytes != h.window_bytes ||
        memcmp(again.session_id, h.session_id, WIRE_ID_BYTES) != 0)
        abort();
}

static void check_header(const uint8_t *data)
{
    uint8_t raw[WIRE_HEADER_BYTES];
    const char *why = NULL;
    struct wire_header h;

    if (wire_get_header(data, &h, &why) < 0) {
        if (!why || !why[0])
            abort();
        return;
    }
    wire_put_header(raw, &h);
    if (h.length > LIMIT_FRAME_PAYLOAD_BYTES || memcmp(raw, data, sizeof(raw)) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char text[WIRE_TEXT_BYTES];

    if (len >= WIRE_HEADER_BYTES) {
        check_header(data);
        check_hello(data + WIRE_HEADER_BYTES, len - WIRE_HEADER_BYTES);
    }
    check_hello(data, len);
    wire_get_text(data, len, text);
    for (const char *p = text; *p; p++) {
        if (*p < 0x20 || *p > 0x7e)
            abort();
    }
    return 0;
}
