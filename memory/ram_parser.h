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
 *   0x08 COMMAND        number 7, 4 bytes: u32 length, and after it so many bytes that are a package: in post-copy the
 *                       devices' state. PARTs of pages that were asked for follow, and END  <- the guest is stopped
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

/* What a call of ram_parser_next() came to. */
enum ram_item {
    RAM_ITEM_NONE,  /* the bytes are at their end amid something that may become a page's record */
    RAM_ITEM_OTHER, /* bytes of anything else */
    RAM_ITEM_PAGE,  /* a page's header is complete: the page itself follows */
    RAM_ITEM_ZERO,  /* the record of a zero page is complete */
    RAM_ITEM_PAUSE, /* a section or a command is complete: QEMU may wait for an answer now */
};

enum {
    RAM_PAGE_BYTES = 4096,
    RAM_PAGE_HEADER_BYTES = 8,
    RAM_ZERO_RECORD_BYTES = 9,                         /* that continues a block */
    RAM_RECORD_HEAD_MAX_BYTES = 8 + 1 + UINT8_MAX + 1, /* all of a record but the page's content */
    RAM_FLAG_ZERO = 0x02,
    RAM_FLAG_PAGE = 0x08,
    RAM_FLAG_CONTINUE = 0x20,
};

/* The page that the last RAM_ITEM_PAGE or RAM_ITEM_ZERO was about. */
struct ram_page {
    uint64_t number; /* offset in its block / 4096 */
    uint64_t key;    /* block and number; equal keys: the same page, but for accidents */
    bool continues;  /* the record names no block: it is the previous one's */
};

int ram_parser_new(struct ram_parser **ret);
void ram_parser_free(struct ram_parser *p);

/* Takes the next bytes of the stream, in any pieces. */
void ram_parser_feed(struct ram_parser *p, const void *data, size_t len);

/* The same up to the end of one item; returns the bytes taken, all of them unless an item ended. */
size_t ram_parser_next(struct ram_parser *p, const uint8_t *data, size_t len, enum ram_item *ret);
/* After RAM_ITEM_PAGE: the caller takes the 4096 bytes that follow itself. */
void ram_parser_take_page(struct ram_parser *p);
void ram_parser_get_page(const struct ram_parser *p, struct ram_page *ret);
/* Nothing that follows is understood: the tail has begun, or the parser is lost. */
bool ram_parser_is_opaque(const struct ram_parser *p);

/* What the next bytes are, for people. */
const char *ram_parser_awaits(const struct ram_parser *p);

/* Something unknown came: nothing after it is understood. */
bool ram_parser_is_lost(const struct ram_parser *p);
/* The offset in the stream of the opaque tail's first byte; UINT64_MAX while unknown. */
uint64_t ram_parser_tail_offset(const struct ram_parser *p);
/* The offset of the first byte of post-copy's package; UINT64_MAX: none has been seen. */
uint64_t ram_parser_package_offset(const struct ram_parser *p);
void ram_parser_get_stats(const struct ram_parser *p, struct ram_parser_stats *ret);

#endif
