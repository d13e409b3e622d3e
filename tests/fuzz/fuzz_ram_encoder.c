/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the RAM codec as a whole: any stream, cut anyhow, comes out as it went in. The first byte chooses the
 * cut, the store and where everything is sent at once; bit 7 puts a stream's beginning before the rest.
 */
#include <stdlib.h>
#include <string.h>

#include "memory/ram_decoder.h"
#include "memory/ram_encoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* File header, START(ram) with one block, the beginning of a PART. */
static const uint8_t beginning[] = {
    0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3, 1,    0,    0, 0, 7, 3,   'r', 'a', 'm', 0, 0, 0,    0,
    0,    0,    0,    4,    0, 0, 0, 0, 0,    0x10, 0, 4, 1, 'm', 0,   0,   0,   0, 0, 0x10, 0,
    0,    0,    0,    0,    0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 7,   2,   0,   0,   0, 7,
};

static void encode(struct ram_encoder *e, const uint8_t *data, size_t len, uint8_t how,
                   struct buffer *wire)
{
    size_t most = (how & 0x10) ? 4096 : 1 + (how & 0xf) * 13, n;

    for (; len > 0; data += n, len -= n) {
        n = len < most ? len : most;
        if (ram_encoder_feed(e, data, n, wire) < 0)
            abort();
        if ((how & 0x20) && ram_encoder_finish(e, wire) < 0)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct ram_codec_config config;
    struct buffer wire = {0}, out = {0}, in = {0};
    struct ram_encoder *e;
    struct ram_decoder *d;
    size_t taken;
    uint8_t how;

    if (len < 1)
        return 0;
    how = data[0];
    config.store_bytes = (how & 0x40) ? 0 : 8 * 4096;
    if (((how & 0x80) && buffer_append(&in, beginning, sizeof(beginning)) < 0) ||
        buffer_append(&in, data + 1, len - 1) < 0 || ram_encoder_new(&config, &e) < 0 ||
        ram_decoder_new(&config, &d) < 0)
        abort();
    encode(e, buffer_data(&in), buffer_len(&in), how, &wire);
    if (ram_encoder_finish(e, &wire) < 0)
        abort();
    while (buffer_len(&wire) > 0) {
        if (ram_decoder_feed(d, buffer_data(&wire), buffer_len(&wire), &taken, &out) < 0)
            abort();
        buffer_consume(&wire, taken);
    }
    if (buffer_len(&out) != buffer_len(&in) ||
        (buffer_len(&in) > 0 && memcmp(buffer_data(&out), buffer_data(&in), buffer_len(&in)) != 0))
        abort();
    ram_encoder_free(e);
    ram_decoder_free(d);
    buffer_done(&wire);
    buffer_done(&out);
    buffer_done(&in);
    return 0;
}
