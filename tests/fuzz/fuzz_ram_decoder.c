/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the RAM codec's decoder: chunks come from a peer that may be anybody's. The input is a sequence of
 * chunks; a wrong checksum would end most of them at once, so the first byte says whether to mend it by
 * encoding instead: the rest is then a stream whose chunks are damaged at the place the next bytes name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/limits.h"
#include "memory/ram_decoder.h"
#include "memory/ram_encoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* The target's disks: each block holds its number; some cannot be read. */
static int read_block(void *user, unsigned disk, uint64_t offset, uint8_t *ret_page)
{
    (void)user;
    if (disk > 1 || offset % 4096 != 0)
        abort();
    memset(ret_page, (int)(offset >> 12), 4096);
    return disk ? -EIO : 0;
}

static int ask(void *user, uint64_t number, uint8_t *ret_page)
{
    (void)user;
    memset(ret_page, (int)number, 4096);
    return number % 3 ? 0 : -EPROTO;
}

static const struct ram_reference_target_ops target_ops = {.read = read_block, .ask = ask};

static void decode(const uint8_t *data, size_t len, uint64_t store_bytes, struct buffer *out)
{
    struct ram_codec_config config = {.store_bytes = store_bytes};
    struct ram_decoder *d;
    size_t taken;

    if (ram_decoder_new(&config, &d) < 0)
        abort();
    ram_decoder_set_blocks(d, 2, &target_ops, NULL);
    for (; len > 0; data += taken, len -= taken) {
        size_t before = buffer_len(out);

        if (ram_decoder_feed(d, data, len, &taken, out) < 0) {
            if (buffer_len(out) != before)
                abort(); /* a faulty chunk delivers nothing */
            break;
        }
        if (taken == 0 || taken > len || buffer_len(out) - before > LIMIT_RAM_CHUNK_BYTES)
            abort();
    }
    ram_decoder_free(d);
}

static void damage(const uint8_t *data, size_t len)
{
    struct ram_codec_config config = {.store_bytes = 16 * 4096};
    struct buffer wire = {0}, out = {0};
    struct ram_encoder *e;
    size_t at = (size_t)data[0] << 8 | data[1];

    if (ram_encoder_new(&config, &e) < 0 || ram_encoder_feed(e, data + 3, len - 3, &wire) < 0 ||
        ram_encoder_finish(e, &wire) < 0)
        abort();
    if (buffer_len(&wire) > 0)
        wire.base[wire.head + at % buffer_len(&wire)] ^= data[2];
    decode(buffer_data(&wire), buffer_len(&wire), config.store_bytes, &out);
    if (buffer_len(&out) > len - 3 ||
        (buffer_len(&out) > 0 && memcmp(buffer_data(&out), data + 3, buffer_len(&out)) != 0))
        abort(); /* only right bytes, whatever was damaged */
    ram_encoder_free(e);
    buffer_done(&wire);
    buffer_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct buffer out = {0};

    if (len < 5)
        return 0;
    if (data[0] & 1)
        damage(data + 1, len - 1);
    else
        decode(data + 1, len - 1, 16 * 4096, &out);
    buffer_done(&out);
    return 0;
}
