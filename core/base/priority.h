/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who comes first where processors are short. ferryd's loop wants one for microseconds, at once: links run dry, guests'
 * writes and whoever waits for an answer wait while it does not get one. Threads that compress want one for
 * milliseconds on end, beside guests that have more of a claim to it.
 *
 * Wishes: where the system refuses, all run as it had them.
 */
#ifndef FERRY_CORE_BASE_PRIORITY_H
#define FERRY_CORE_BASE_PRIORITY_H

#include <sys/types.h>

/*
 * The calling thread's share of a processor is that of @nice (1 to 19) from now on; the first call counts. Longer slices
 * (SCHED_BATCH, sched_setattr's runtime) made no difference to what a guest's writes wait: measured, left out.
 */
void priority_background(int nice);
/* Once, before there are other threads: the calling thread comes before others. What it starts, threads and processes,
 * does, too, until it is told otherwise. */
void priority_first(void);
/* A thread's or process's share is again what ferryd was started with; 0: the calling thread. */
void priority_usual(pid_t id);

#endif
