/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A named thread that does blocking work one job after the other, and brings each back to the loop.
 *
 * Work goes over and comes back as a message: a job owns everything it needs. run() is called on the
 * worker's thread and must touch nothing but the job; done() is called on the loop thread afterwards,
 * in the order the jobs were posted, and frees the job.
 */
#ifndef FERRY_CORE_WORKER_H
#define FERRY_CORE_WORKER_H

#include <stdint.h>

#include <uv.h>

struct worker;

struct worker_job {
    void (*run)(struct worker_job *job);  /* worker thread */
    void (*done)(struct worker_job *job); /* loop thread; owns the job again */
    struct worker_job *next;              /* the worker's */
    uint64_t cpu_ns, work_ns;             /* what run() took: of a processor, and by the clock */
};

/* @name: at most 15 characters, shown by ps and gdb. */
int worker_new(uv_loop_t *loop, const char *name, struct worker **ret);
void worker_post(struct worker *w, struct worker_job *job);
/*
 * No more jobs will be posted. Those already posted still run and come back; then the worker frees
 * itself. The loop must keep running for that.
 */
void worker_retire(struct worker *w);

#endif
