/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The witness's time: one clock, and one tick for all that happens now and then.
 *
 * What a guest at rest costs its host is its wake-ups, a third of a millisecond each on an emulated processor. So the
 * heartbeat, the dirtier and whoever waits to be told something wake up together, on the same moments of the clock.
 */
#ifndef FERRY_TESTS_GUEST_PACE_H
#define FERRY_TESTS_GUEST_PACE_H

#include <stdint.h>

/* The monotonic clock, which stands still while the guest is stopped. */
uint64_t now_ns(void);

/* To a moment of that clock; one that has passed returns at once. */
void sleep_until(uint64_t ns);

/* To the n-th from now of the ticks that all threads share, a hundred a second. */
void sleep_ticks(unsigned n);

#endif
