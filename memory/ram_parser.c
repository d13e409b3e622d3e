/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of QEMU's migration stream: see ram_parser.h.
 *
 * A machine of small items: each state wants a number of bytes, collects them in `item`, and is then
 * run once. Page bodies are skipped without being collected.
 */
#include "memory/ram_parser.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "core/base/limits.h"
#include "core/base/macros.h"
#include "core/base/wire.h"

enum {
    STREAM_MAGIC = 0x5145564d,
    STREAM_VERSION = 3,
    SECTION_START = 0x01,
    SECTION_PART = 0x02,
    SECTION_END = 0x03,
    SECTION_CONFIGURATION = 0x07,
    SECTION_COMMAND = 0x08,
    SECTION_FOOTER = 0x7e,
    FLAG_ZERO = RAM_FLAG_ZERO,
    FLAG_MEM_SIZE = 0x04,
    FLAG_PAGE = RAM_FLAG_PAGE,
    FLAG_EOS = 0x10,
    FLAG_CONTINUE = RAM_FLAG_CONTINUE,
    FLAG_XBZRLE = 0x40,
    FLAG_MASK = 0xfff,
    MACHINE_NAME_MAX_BYTES = 1024,
    COMMAND_PACKAGED = 7,
    PACKAGE_MAX_BYTES = 1 << 24, /* QEMU's own limit */
};

enum state {
    STATE_FILE_HEADER,
    STATE_SECTION_TYPE,
    STATE_CONFIGURATION,
    STATE_COMMAND,
    STATE_PACKAGE_LENGTH,
    STATE_START_NAME_LENGTH,
    STATE_START_NAME,
    STATE_SECTION_ID,
    STATE_PAGE_HEADER,
    STATE_BLOCK_NAME_LENGTH,
    STATE_BLOCK_NAME,
    STATE_BLOCK_SIZE,
    STATE_ZERO_BYTE,
    STATE_XBZRLE_HEADER,
    STATE_FOOTER,
    STATE_TAIL,
    STATE_LOST,
};

struct ram_parser {
    enum state state;
    uint8_t item[512];
    size_t item_fill, item_want;
    uint64_t skip_bytes; /* of a body, before the state goes on */
    enum ram_item done;  /* what the item that was run completed */
    bool pause_follows;  /* after the skipped bytes */
    uint8_t section;     /* the current section's type */
    uint32_t ram_id;
    bool ram_known;
    uint64_t page_flags, page_number;
    uint64_t block_hash;       /* of the current block's name */
    uint64_t block_bytes_left; /* of the MEM_SIZE list */
    unsigned blocks;
    uint64_t tail_offset, package_offset;
    struct ram_parser_stats stats;
};

int ram_parser_new(struct ram_parser **ret)
{
    struct ram_parser *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->state = STATE_FILE_HEADER;
    p->item_want = 8;
    p->tail_offset = p->package_offset = UINT64_MAX;
    *ret = p;
    return 0;
}

void ram_parser_free(struct ram_parser *p)
{
    free(p);
}

static void expect(struct ram_parser *p, enum state state, size_t bytes)
{
    p->state = state;
    p->item_want = bytes;
}

static void lose(struct ram_parser *p)
{
    expect(p, STATE_LOST, 0);
}

static void on_section_type(struct ram_parser *p)
{
    p->section = p->item[0];
    switch (p->section) {
    case SECTION_CONFIGURATION:
        expect(p, STATE_CONFIGURATION, 4);
        break;
    case SECTION_COMMAND:
        expect(p, STATE_COMMAND, 4);
        break;
    case SECTION_START:
        expect(p, STATE_START_NAME_LENGTH, 5);
        break;
    case SECTION_PART:
    case SECTION_END:
        expect(p, STATE_SECTION_ID, 4);
        break;
    default:
        lose(p);
    }
}

/* START: u32 id and u8 length were read; the name and two u32 follow. */
static void on_start_name(struct ram_parser *p)
{
    size_t name_len = p->item_want - 8;

    if (name_len != 3 || memcmp(p->item, "ram", 3) != 0) {
        lose(p); /* another live section: its body has no length */
        return;
    }
    p->ram_known = true;
    expect(p, STATE_PAGE_HEADER, 8);
}

static void after_block_name(struct ram_parser *p)
{
    if (p->page_flags & FLAG_ZERO) {
        p->done = RAM_ITEM_NONE;
        expect(p, STATE_ZERO_BYTE, 1);
    } else if (p->page_flags & FLAG_PAGE) {
        p->done = RAM_ITEM_PAGE;
        p->stats.pages++;
        p->skip_bytes = RAM_PAGE_BYTES;
        expect(p, STATE_PAGE_HEADER, 8);
    } else {
        expect(p, STATE_XBZRLE_HEADER, 3);
    }
}

static void on_page_header(struct ram_parser *p)
{
    uint64_t word = get_be64(p->item);
    uint64_t kind = word & FLAG_MASK & ~(uint64_t)FLAG_CONTINUE;

    p->page_flags = word & FLAG_MASK;
    p->page_number = word / RAM_PAGE_BYTES;
    if (kind == FLAG_EOS) {
        expect(p, STATE_FOOTER, 5);
    } else if (kind == FLAG_MEM_SIZE) {
        p->block_bytes_left = p->stats.total_bytes = word & ~(uint64_t)FLAG_MASK;
        p->blocks = 0;
        expect(p, p->block_bytes_left ? STATE_BLOCK_NAME_LENGTH : STATE_PAGE_HEADER,
               p->block_bytes_left ? 1 : 8);
    } else if (kind == FLAG_ZERO || kind == FLAG_PAGE || kind == FLAG_XBZRLE) {
        if (p->page_flags & FLAG_CONTINUE) {
            after_block_name(p);
        } else {
            p->done = RAM_ITEM_NONE;
            expect(p, STATE_BLOCK_NAME_LENGTH, 1);
        }
    } else {
        lose(p);
    }
}

static void on_block_name_length(struct ram_parser *p)
{
    if (p->item[0] == 0 || (p->page_flags == FLAG_MEM_SIZE && ++p->blocks > LIMIT_RAM_BLOCKS))
        lose(p);
    else
        expect(p, STATE_BLOCK_NAME, p->item[0]);
    if (p->state == STATE_BLOCK_NAME && p->page_flags != FLAG_MEM_SIZE)
        p->done = RAM_ITEM_NONE;
}

static void on_block_size(struct ram_parser *p)
{
    uint64_t bytes = get_be64(p->item);

    if (bytes > p->block_bytes_left) {
        lose(p);
        return;
    }
    p->block_bytes_left -= bytes;
    if (p->block_bytes_left)
        expect(p, STATE_BLOCK_NAME_LENGTH, 1);
    else
        expect(p, STATE_PAGE_HEADER, 8);
}

static void on_footer(struct ram_parser *p)
{
    if (p->item[0] != SECTION_FOOTER || get_be32(p->item + 1) != p->ram_id) {
        lose(p);
        return;
    }
    p->done = RAM_ITEM_PAUSE;
    if (p->section == SECTION_END) {
        p->tail_offset = p->stats.bytes;
        expect(p, STATE_TAIL, 0);
        return;
    }
    if (p->section == SECTION_PART)
        p->stats.parts++;
    expect(p, STATE_SECTION_TYPE, 1);
}

/* The wanted bytes of the current state are all in `item`. */
static void run_item(struct ram_parser *p)
{
    switch (p->state) {
    case STATE_FILE_HEADER:
        if (get_be32(p->item) != STREAM_MAGIC || get_be32(p->item + 4) != STREAM_VERSION)
            lose(p);
        else
            expect(p, STATE_SECTION_TYPE, 1);
        break;
    case STATE_SECTION_TYPE:
        on_section_type(p);
        break;
    case STATE_CONFIGURATION:
        p->skip_bytes = get_be32(p->item);
        if (p->skip_bytes > MACHINE_NAME_MAX_BYTES)
            lose(p);
        else
            expect(p, STATE_SECTION_TYPE, 1);
        break;
    case STATE_COMMAND:
        if (get_be16(p->item) == COMMAND_PACKAGED) {
            expect(p, STATE_PACKAGE_LENGTH, 4);
            break;
        }
        p->skip_bytes = get_be16(p->item + 2);
        p->pause_follows = p->skip_bytes > 0;
        p->done = p->pause_follows ? RAM_ITEM_OTHER : RAM_ITEM_PAUSE;
        expect(p, STATE_SECTION_TYPE, 1);
        break;
    case STATE_PACKAGE_LENGTH:
        p->skip_bytes = get_be32(p->item);
        if (p->skip_bytes == 0 || p->skip_bytes > PACKAGE_MAX_BYTES) {
            p->skip_bytes = 0;
            lose(p);
            break;
        }
        p->package_offset = MIN(p->package_offset, p->stats.bytes);
        p->pause_follows = true;
        expect(p, STATE_SECTION_TYPE, 1);
        break;
    case STATE_START_NAME_LENGTH:
        p->ram_id = get_be32(p->item);
        expect(p, STATE_START_NAME, (size_t)p->item[4] + 8);
        break;
    case STATE_START_NAME:
        on_start_name(p);
        break;
    case STATE_SECTION_ID:
        if (!p->ram_known || get_be32(p->item) != p->ram_id)
            lose(p);
        else
            expect(p, STATE_PAGE_HEADER, 8);
        break;
    case STATE_PAGE_HEADER:
        on_page_header(p);
        break;
    case STATE_BLOCK_NAME_LENGTH:
        on_block_name_length(p);
        break;
    case STATE_BLOCK_NAME:
        if (p->page_flags == FLAG_MEM_SIZE) {
            expect(p, STATE_BLOCK_SIZE, 8);
        } else {
            p->block_hash = XXH3_64bits(p->item, p->item_want);
            after_block_name(p);
        }
        break;
    case STATE_BLOCK_SIZE:
        on_block_size(p);
        break;
    case STATE_ZERO_BYTE:
        p->stats.zero_pages++;
        p->done = RAM_ITEM_ZERO;
        expect(p, STATE_PAGE_HEADER, 8);
        break;
    case STATE_XBZRLE_HEADER:
        p->stats.xbzrle_pages++;
        p->skip_bytes = get_be16(p->item + 1);
        expect(p, STATE_PAGE_HEADER, 8);
        break;
    case STATE_FOOTER:
        on_footer(p);
        break;
    case STATE_TAIL:
    case STATE_LOST:
        break;
    }
}

size_t ram_parser_next(struct ram_parser *p, const uint8_t *data, size_t len, enum ram_item *ret)
{
    size_t taken = 0;

    *ret = RAM_ITEM_NONE;
    while (taken < len && *ret == RAM_ITEM_NONE) {
        size_t n;

        if (ram_parser_is_opaque(p)) {
            n = len - taken;
            *ret = RAM_ITEM_OTHER;
        } else if (p->skip_bytes > 0) {
            n = (size_t)MIN(p->skip_bytes, (uint64_t)(len - taken));
            p->skip_bytes -= n;
            *ret = p->skip_bytes == 0 && p->pause_follows ? RAM_ITEM_PAUSE : RAM_ITEM_OTHER;
            p->pause_follows = p->pause_follows && p->skip_bytes > 0;
        } else {
            n = MIN(p->item_want - p->item_fill, len - taken);
            memcpy(p->item + p->item_fill, data + taken, n);
            p->item_fill += n;
        }
        taken += n;
        p->stats.bytes += n;
        if (p->item_fill == p->item_want && p->item_want > 0) {
            p->item_fill = 0;
            p->done = RAM_ITEM_OTHER;
            run_item(p);
            *ret = p->done;
        }
    }
    return taken;
}

void ram_parser_feed(struct ram_parser *p, const void *data, size_t len)
{
    const uint8_t *at = data;
    enum ram_item item;

    while (len > 0) {
        size_t n = ram_parser_next(p, at, len, &item);

        at += n;
        len -= n;
    }
}

void ram_parser_take_page(struct ram_parser *p)
{
    assert(p->skip_bytes == RAM_PAGE_BYTES);
    p->skip_bytes = 0;
    p->stats.bytes += RAM_PAGE_BYTES;
}

void ram_parser_get_page(const struct ram_parser *p, struct ram_page *ret)
{
    *ret = (struct ram_page){
        .number = p->page_number,
        .key = p->block_hash ^ p->page_number * UINT64_C(0x9e3779b97f4a7c15),
        .continues = p->page_flags & FLAG_CONTINUE,
    };
}

bool ram_parser_is_opaque(const struct ram_parser *p)
{
    return p->state == STATE_TAIL || p->state == STATE_LOST;
}

const char *ram_parser_awaits(const struct ram_parser *p)
{
    static const char *const names[] = {
        [STATE_FILE_HEADER] = "file header",
        [STATE_SECTION_TYPE] = "section type",
        [STATE_CONFIGURATION] = "configuration",
        [STATE_COMMAND] = "command",
        [STATE_PACKAGE_LENGTH] = "package length",
        [STATE_START_NAME_LENGTH] = "section start",
        [STATE_START_NAME] = "section name",
        [STATE_SECTION_ID] = "section id",
        [STATE_PAGE_HEADER] = "page header",
        [STATE_BLOCK_NAME_LENGTH] = "block name length",
        [STATE_BLOCK_NAME] = "block name",
        [STATE_BLOCK_SIZE] = "block size",
        [STATE_ZERO_BYTE] = "zero byte",
        [STATE_XBZRLE_HEADER] = "xbzrle header",
        [STATE_FOOTER] = "footer",
        [STATE_TAIL] = "tail",
        [STATE_LOST] = "unknown",
    };

    return p->skip_bytes > 0 ? "body" : names[p->state];
}

bool ram_parser_is_lost(const struct ram_parser *p)
{
    return p->state == STATE_LOST;
}

uint64_t ram_parser_tail_offset(const struct ram_parser *p)
{
    return p->tail_offset;
}

uint64_t ram_parser_package_offset(const struct ram_parser *p)
{
    return p->package_offset;
}

void ram_parser_get_stats(const struct ram_parser *p, struct ram_parser_stats *ret)
{
    *ret = p->stats;
}
