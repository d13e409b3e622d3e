/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/linkload/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/random.h"

/* A prime: no frame, record or window is a multiple of it. */
#define BLOCK_BYTES ((size_t)4194301)

struct pattern_block {
    uint8_t bytes[BLOCK_BYTES];
};

static void fill_random(struct pattern_block *p)
{
    uint64_t state = 1;

    for (size_t i = 0; i < BLOCK_BYTES; i++)
        p->bytes[i] = (uint8_t)(splitmix64_next(&state) >> 32);
}

static void fill_text(struct pattern_block *p)
{
    static const char *const words[] = {"memory",  "disk", "ferry ", "write\n", "page",  "stripe ",
                                        "session", "0x7f", " = ",    "commit",  "host;", "guest "};
    uint64_t state = 2;
    size_t at = 0;

    while (at < BLOCK_BYTES) {
        uint64_t dice = splitmix64_next(&state);
        const char *word = words[dice % ARRAY_SIZE(words)];

        for (; *word && at < BLOCK_BYTES; word++)
            p->bytes[at++] = (uint8_t)*word;
        if (at < BLOCK_BYTES && dice >> 62 == 0) /* some noise: text is no single dictionary */
            p->bytes[at++] = (uint8_t)(dice >> 40);
    }
}

struct pattern_block *pattern_new(enum pattern kind)
{
    struct pattern_block *p = calloc(1, sizeof(*p));

    if (p && kind == PATTERN_RANDOM)
        fill_random(p);
    if (p && kind == PATTERN_TEXT)
        fill_text(p);
    return p;
}

void pattern_free(struct pattern_block *p)
{
    free(p);
}

const uint8_t *pattern_at(const struct pattern_block *p, uint64_t at, size_t *ret_len)
{
    size_t place = (size_t)(at % BLOCK_BYTES);

    *ret_len = BLOCK_BYTES - place;
    return p->bytes + place;
}

bool pattern_matches(const struct pattern_block *p, uint64_t at, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t run;
        const uint8_t *want = pattern_at(p, at, &run);

        run = MIN(run, len);
        if (memcmp(want, data, run) != 0)
            return false;
        at += run;
        data += run;
        len -= run;
    }
    return true;
}

bool pattern_parse(const char *word, enum pattern *ret)
{
    static const char *const words[PATTERN_COUNT] = {"random", "text", "zero"};

    for (int i = 0; i < PATTERN_COUNT; i++) {
        if (strcmp(word, words[i]) == 0) {
            *ret = (enum pattern)i;
            return true;
        }
    }
    return false;
}
