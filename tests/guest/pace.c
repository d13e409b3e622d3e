/* SPDX-License-Identifier: Apache-2.0 */
#include "pace.h"

#include <time.h>

#define NS_PER_S UINT64_C(1000000000)
#define TICK_NS UINT64_C(10000000)

uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

void sleep_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

void sleep_ticks(unsigned n)
{
    sleep_until((now_ns() / TICK_NS + n) * TICK_NS);
}
