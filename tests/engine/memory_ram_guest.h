/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seeded guest whose memory is sent as QEMU sends it: rounds of pages with rewrites of every kind,
 * duplicates, zero and constant pages, noise, several blocks, XBZRLE records, commands, a tail.
 */
#ifndef FERRY_TESTS_ENGINE_MEMORY_RAM_GUEST_H
#define FERRY_TESTS_ENGINE_MEMORY_RAM_GUEST_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/base/random.h"
#include "core/base/wire.h"

enum { GUEST_PAGES_MAX = 600, GUEST_BLOCKS = 3, GUEST_PAGE = 4096 };

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *r)
{
    return splitmix64_next(&r->state);
}

static inline uint64_t random_below(struct random *r, uint64_t bound)
{
    return random_next(r) % bound;
}

struct guest {
    struct random random;
    unsigned pages; /* of the first block; the others have a tenth */
    uint8_t (*memory)[GUEST_PAGE];
    bool dirty[GUEST_PAGES_MAX];
    struct buffer stream;
};

static inline void guest_put(struct guest *g, const void *data, size_t len)
{
    if (buffer_append(&g->stream, data, len) < 0)
        abort();
}

static inline void guest_put_number(struct guest *g, uint64_t v, size_t bytes)
{
    uint8_t raw[8];

    put_be64(raw, v);
    guest_put(g, raw + 8 - bytes, bytes);
}

static inline void guest_put_name(struct guest *g, const char *name)
{
    guest_put_number(g, strlen(name), 1);
    guest_put(g, name, strlen(name));
}

static inline void guest_fill(struct guest *g, uint8_t *to, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)random_next(&g->random);
}

static inline void guest_fill_text(struct guest *g, uint8_t *to, size_t len)
{
    static const char *const words[] = {"page ", "guest ", "mirror ", "ferry ", "0000 ", "lorem "};

    for (size_t i = 0; i < len;) {
        const char *word = words[random_below(&g->random, 6)];

        for (; *word && i < len; word++)
            to[i++] = (uint8_t)*word;
    }
}

/* The guest writes to one of its pages. */
static inline void guest_write(struct guest *g, unsigned page)
{
    uint8_t *p = g->memory[page];
    size_t at = random_below(&g->random, GUEST_PAGE - 8);

    g->dirty[page] = true;
    switch (random_below(&g->random, 10)) {
    case 0:
        memset(p, 0, GUEST_PAGE);
        break;
    case 1:
        memset(p, (int)random_below(&g->random, 256), GUEST_PAGE);
        break;
    case 2:
        memcpy(p, g->memory[random_below(&g->random, g->pages)], GUEST_PAGE);
        break;
    case 3:
        guest_fill(g, p, GUEST_PAGE);
        break;
    case 4:
        guest_fill_text(g, p, GUEST_PAGE);
        break;
    case 5: /* every eighth byte: a table of counters */
        for (size_t i = at % 8; i < GUEST_PAGE; i += 8)
            p[i]++;
        break;
    case 6:
        guest_fill(g, p + at, GUEST_PAGE - at);
        break;
    case 7: /* written, but with what was there */
        break;
    default:
        p[at]++;
        p[random_below(&g->random, GUEST_PAGE)]++;
        guest_fill(g, p + at, random_below(&g->random, 8));
        break;
    }
}

static inline void guest_put_page(struct guest *g, unsigned block, unsigned page, bool named)
{
    static const char *const names[GUEST_BLOCKS] = {"pc.ram", "vga.vram", "a"};
    static const uint8_t zero[GUEST_PAGE];
    const uint8_t *p = g->memory[page];
    bool is_zero = memcmp(p, zero, GUEST_PAGE) == 0 && random_below(&g->random, 4) > 0;
    uint64_t flags = (is_zero ? 0x02 : random_below(&g->random, 50) == 0 ? 0x40 : 0x08);

    guest_put_number(g, (uint64_t)page * GUEST_PAGE | flags | (named ? 0 : 0x20), 8);
    if (named)
        guest_put_name(g, names[block]);
    if (flags == 0x02) {
        guest_put_number(g, random_below(&g->random, 40) == 0, 1);
    } else if (flags == 0x08) {
        guest_put(g, p, GUEST_PAGE);
    } else { /* what an XBZRLE record would be: a length and bytes */
        guest_put_number(g, 1, 1);
        guest_put_number(g, 100, 2);
        guest_put(g, p, 100);
    }
}

static inline void guest_put_footer(struct guest *g)
{
    guest_put_number(g, 0x10, 8);
    guest_put_number(g, 0x7e, 1);
    guest_put_number(g, 7, 4);
}

static inline void guest_put_ping(struct guest *g)
{
    guest_put_number(g, 0x08, 1);
    guest_put_number(g, 3, 2);
    guest_put_number(g, 4, 2);
    guest_put_number(g, random_next(&g->random), 4);
}

static inline void guest_put_section(struct guest *g, unsigned type)
{
    bool named = true;
    unsigned block = 0;

    guest_put_number(g, type, 1);
    guest_put_number(g, 7, 4);
    for (unsigned page = 0; page < g->pages; page++) {
        if (!g->dirty[page])
            continue;
        g->dirty[page] = false;
        if (random_below(&g->random, 40) == 0) {
            block = (unsigned)random_below(&g->random, GUEST_BLOCKS);
            named = true;
        }
        guest_put_page(g, block, page, named);
        named = false;
    }
    guest_put_footer(g);
}

static inline void guest_put_start(struct guest *g)
{
    guest_put_number(g, UINT64_C(0x5145564d00000003), 8);
    guest_put_number(g, 0x07, 1);
    guest_put_number(g, 6, 4);
    guest_put(g, "pc-7.2", 6);
    guest_put_number(g, 0x01, 1);
    guest_put_number(g, 7, 4);
    guest_put_name(g, "ram");
    guest_put_number(g, 4, 8);
    guest_put_number(g, (uint64_t)g->pages * GUEST_PAGE | 0x04, 8);
    guest_put_name(g, "pc.ram");
    guest_put_number(g, (uint64_t)g->pages * GUEST_PAGE, 8);
    guest_put_footer(g);
}

/* In post-copy: what is stale is discarded, the devices' state comes as a package, and then what is asked for. */
static inline void guest_put_switch(struct guest *g)
{
    uint8_t state[3000];

    guest_put_number(g, 0x08, 1);
    guest_put_number(g, 6, 2);
    guest_put_number(g, 8, 2);
    guest_put_name(g, "pc.ram\1");
    guest_put_number(g, 0x08, 1);
    guest_put_number(g, 7, 2);
    guest_put_number(g, 4, 2);
    guest_put_number(g, sizeof(state), 4);
    guest_fill(g, state, sizeof(state));
    guest_put(g, state, sizeof(state));
    guest_put_ping(g);
    for (unsigned part = 0; part < 3; part++) {
        for (unsigned page = part; page < g->pages; page += 5)
            guest_write(g, page);
        guest_put_section(g, 0x02);
    }
}

/* Makes a whole migration in g->stream; guest_done() afterwards. */
static inline void guest_migrate(struct guest *g, uint64_t seed)
{
    unsigned rounds;
    uint8_t tail[5000];

    memset(g, 0, sizeof(*g));
    g->random.state = seed;
    g->pages = 10 + (unsigned)random_below(&g->random, GUEST_PAGES_MAX - 10);
    g->memory = calloc(g->pages, GUEST_PAGE);
    if (!g->memory)
        abort();
    guest_put_start(g);
    rounds = 1 + (unsigned)random_below(&g->random, 6);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned page = 0; page < g->pages; page++) {
            g->dirty[page] = round == 0;
            if (round == 0 ? random_below(&g->random, 3) > 0 : random_below(&g->random, 2))
                guest_write(g, page);
        }
        guest_put_section(g, 0x02);
        if (random_below(&g->random, 3) == 0)
            guest_put_ping(g);
    }
    if (seed % 4 == 0)
        guest_put_switch(g);
    for (unsigned page = 0; page < g->pages / 4; page++)
        guest_write(g, page);
    guest_put_section(g, 0x03);
    guest_put_number(g, 0x04, 1);
    guest_fill_text(g, tail, sizeof(tail));
    guest_put(g, tail, random_below(&g->random, sizeof(tail)));
}

static inline void guest_done(struct guest *g)
{
    free(g->memory);
    buffer_done(&g->stream);
}

#endif
