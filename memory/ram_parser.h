/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads along in QEMU's migration stream: where each section is, what pages went by, where RAM ends.
 *
 * The stream (big-endian; design section 3):
 *
 *   magic 0x5145564d, version 3
 *   0x07 CONFIGURATION  u32 length, machine name
 *   0x08 COMMAND        u16 command, u16 length, data
 *   0x01 START(ram)     u32 id, u8 length + "ram", u32 instance, u32 version, body, footer
 *   0x02 PART(ram)      u32 id, body, footer          (footer: 0x7e, u32 id)
 *   0x03 END(ram)       u32 id, body, footer          <- the guest is stopped when this comes
 *   the opaque tail     device sections without lengths, then the description: not parsed
 *
 * The parser is a hint, never an authority: bytes are delivered as they came, whatever it thinks. On
 * anything it does not know it is lost for good and says so; then no position is claimed any more.
 */
#ifndef FERRY_MEMORY_RAM_PARSER_H
#define FERRY_MEMORY_RAM_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ram_parser;

struct ram_parser_stats {
    uint64_t bytes; /* read so far */
    uint64_t pages; /* whole pages */
    uint64_t zero_pages;
    uint64_t xbzrle_pages;
    uint64_t total_bytes; /* guest RAM as the stream declares it; 0 = not yet seen */
    unsigned parts;       /* PART sections */
};

int ram_parser_new(struct ram_parser **ret);
void ram_parser_free(struct ram_parser *p);

/* Takes the next bytes of the stream, in any pieces. */
void ram_parser_feed(struct ram_parser *p, const void *data, size_t len);

/* Something unknown came: nothing after it is understood. */
bool ram_parser_is_lost(const struct ram_parser *p);
/* The offset in the stream of the opaque tail's first byte; UINT64_MAX while unknown. */
uint64_t ram_parser_tail_offset(const struct ram_parser *p);
void ram_parser_get_stats(const struct ram_parser *p, struct ram_parser_stats *ret);

#endif
