/* SPDX-License-Identifier: Apache-2.0 */
/*
 * splitmix64 (Steele, Lea, Flood 2014): a number that follows from its seed, the same everywhere. For simulations,
 * emulated losses and test patterns; never for secrets, those come from getrandom().
 */
#ifndef FERRY_CORE_BASE_RANDOM_H
#define FERRY_CORE_BASE_RANDOM_H

#include <stdint.h>

/* The mixing alone: neighbouring inputs give unrelated outputs. */
static inline uint64_t splitmix64_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The next number; @state begins as the seed. */
static inline uint64_t splitmix64_next(uint64_t *state)
{
    return splitmix64_mix(*state += UINT64_C(0x9e3779b97f4a7c15));
}

#endif
