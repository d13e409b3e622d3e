/* SPDX-License-Identifier: Apache-2.0 */
#include "stamp.h"

#include <stdbool.h>
#include <string.h>

#define MAGIC UINT64_C(0x7373656e74697746) /* "Fwitness" */
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* splitmix64's finisher: word i of a body is the mix of its seed plus i steps, in any order. */
uint64_t stamp_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t body_seed(uint64_t owner, uint64_t index, uint64_t number)
{
    return stamp_mix(stamp_mix(stamp_mix(owner * GOLDEN) + index) + number);
}

void stamp_fill(void *at, uint64_t owner, uint64_t index, uint64_t number, uint64_t changed)
{
    uint64_t *word = at, *body = word + STAMP_HEADER_WORDS;
    uint64_t seed = body_seed(owner, index, number), rest = body_seed(owner, index, 0);

    word[0] = MAGIC;
    word[1] = owner;
    word[2] = index;
    word[3] = number;
    word[4] = changed;
    for (uint64_t i = 0; i < changed && i < STAMP_BODY_WORDS; i++)
        body[i] = stamp_mix(seed + i * GOLDEN);
    for (uint64_t i = changed; i < STAMP_BODY_WORDS; i++) {
        uint64_t wanted = stamp_mix(rest + i * GOLDEN);

        if (body[i] != wanted)
            body[i] = wanted;
    }
}

uint64_t stamp_number(const void *at)
{
    return ((const uint64_t *)at)[3];
}

enum stamp_state stamp_check(const void *at, uint64_t owner, uint64_t index, uint64_t number)
{
    const uint64_t *word = at, *body = word + STAMP_HEADER_WORDS;
    uint64_t changed = word[4];
    uint64_t seed = body_seed(owner, index, word[3]), rest = body_seed(owner, index, 0);
    bool whole = word[0] == MAGIC && word[1] == owner && word[2] == index;

    for (uint64_t i = 0; whole && i < STAMP_BODY_WORDS; i++)
        whole = body[i] == stamp_mix((i < changed ? seed : rest) + i * GOLDEN);
    if (!whole)
        return STAMP_BAD;
    if (word[3] == number)
        return STAMP_GOOD;
    return word[3] < number ? STAMP_STALE : STAMP_NEWER;
}

uint64_t stamp_hash(uint64_t hash, const void *data, size_t len)
{
    uint64_t lane[4] = {hash ^ 1, hash ^ 2, hash ^ 3, hash ^ 4};
    uint64_t word[4];

    for (size_t at = 0; at + sizeof(word) <= len; at += sizeof(word)) {
        memcpy(word, (const char *)data + at, sizeof(word));
        for (int i = 0; i < 4; i++) {
            lane[i] = (lane[i] ^ word[i]) * GOLDEN;
            lane[i] ^= lane[i] >> 29;
        }
    }
    return stamp_mix(lane[0] + stamp_mix(lane[1] + stamp_mix(lane[2] + stamp_mix(lane[3]))));
}
