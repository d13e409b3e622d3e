/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the reader of QEMU's stream (its content is the guest's). How the stream is cut must not matter.
 * Bit 7 of the first byte puts the file's header before the rest; the others choose the cut.
 */
#include <stdlib.h>
#include <string.h>

#include "memory/ram_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct ram_parser *feed(const uint8_t *data, size_t len, size_t most, int header)
{
    static const uint8_t file_header[] = {0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3};
    struct ram_parser *p;
    size_t n;

    if (ram_parser_new(&p) < 0)
        abort();
    if (header)
        ram_parser_feed(p, file_header, sizeof(file_header));
    for (; len > 0; data += n, len -= n) {
        n = len < most ? len : most;
        ram_parser_feed(p, data, n);
    }
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct ram_parser_stats a, b;
    struct ram_parser *whole, *cut;

    if (len < 1)
        return 0;
    whole = feed(data + 1, len - 1, SIZE_MAX, data[0] & 0x80);
    cut = feed(data + 1, len - 1, 1 + (data[0] & 0x7f), data[0] & 0x80);
    ram_parser_get_stats(whole, &a);
    ram_parser_get_stats(cut, &b);
    if (ram_parser_is_lost(whole) != ram_parser_is_lost(cut) ||
        ram_parser_tail_offset(whole) != ram_parser_tail_offset(cut) ||
        memcmp(&a, &b, sizeof(a)) != 0)
        abort();
    if (ram_parser_tail_offset(whole) != UINT64_MAX && ram_parser_tail_offset(whole) > a.bytes)
        abort();
    ram_parser_free(whole);
    ram_parser_free(cut);
    return 0;
}
