/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that compress for milliseconds on end, beside guests that want a processor for microseconds, at once. */
#ifndef FERRY_CORE_BASE_BACKGROUND_H
#define FERRY_CORE_BASE_BACKGROUND_H

/*
 * The calling thread's share of a processor is that of @nice (1 to 19) from now on; the first call counts. Longer slices
 * (SCHED_BATCH, sched_setattr's runtime) made no difference to what a guest's writes wait: measured, left out.
 */
void background_thread(int nice);

#endif
