/* SPDX-License-Identifier: Apache-2.0 */
/* The worker thread: every job runs there, comes back here, in order, also those posted before the end. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "core/worker.h"

enum { JOBS = 1000 };

struct count {
    pthread_t loop_thread;
    unsigned done;
    struct worker *worker;
};

struct job {
    struct worker_job job;
    struct count *count;
    unsigned number;
    unsigned ran; /* written there, read here: the handover must order it */
    char name[16];
};

static void run(struct worker_job *job)
{
    struct job *j = container_of(job, struct job, job);

    j->ran = j->number + 1;
    pthread_getname_np(pthread_self(), j->name, sizeof(j->name));
}

static void done(struct worker_job *job)
{
    struct job *j = container_of(job, struct job, job);
    struct count *c = j->count;

    assert_true(pthread_equal(pthread_self(), c->loop_thread));
    assert_int_equal(j->number, c->done);
    assert_int_equal(j->ran, j->number + 1);
    assert_string_equal(j->name, "ferry-test");
    c->done++;
    free(j);
}

static void post(struct count *c, struct worker *w, unsigned number)
{
    struct job *j = calloc(1, sizeof(*j));

    assert_non_null(j);
    *j = (struct job){.job = {.run = run, .done = done}, .count = c, .number = number};
    worker_post(w, &j->job);
}

static void test_jobs_come_back_in_order(void **state)
{
    struct count c = {.loop_thread = pthread_self()};
    struct worker *w;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(worker_new(&loop, "ferry-test", &w), 0);
    for (unsigned i = 0; i < JOBS; i++) {
        post(&c, w, i);
        if (i % 100 == 0)
            uv_run(&loop, UV_RUN_NOWAIT);
    }
    worker_retire(w); /* what was posted still runs */
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(c.done, JOBS);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_retired_unused(void **state)
{
    struct worker *w;
    uv_loop_t loop;

    (void)state;
    worker_retire(NULL);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(worker_new(&loop, "a-name-longer-than-fifteen", &w), 0);
    worker_retire(w);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void done_and_retire(struct worker_job *job)
{
    struct job *j = container_of(job, struct job, job);
    struct count *c = j->count;

    done(job);
    if (c->done == 1)
        post(c, c->worker, 1);
    worker_retire(c->worker);
}

/* From a job's return both more work and the end may be asked for. */
static void test_retired_from_a_job(void **state)
{
    struct count c = {.loop_thread = pthread_self()};
    struct job *j = calloc(1, sizeof(*j));
    uv_loop_t loop;

    (void)state;
    assert_non_null(j);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(worker_new(&loop, "ferry-test", &c.worker), 0);
    *j = (struct job){.job = {.run = run, .done = done_and_retire}, .count = &c};
    worker_post(c.worker, &j->job);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(c.done, 2);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void sleep_a_while(struct worker_job *job)
{
    (void)job;
    usleep(10000);
}

static void look_what_it_took(struct worker_job *job)
{
    assert_true(job->work_ns >= 10 * NS_PER_MS);
    assert_true(job->cpu_ns < job->work_ns);
}

static void test_what_a_job_took_is_known(void **state)
{
    struct worker_job job = {.run = sleep_a_while, .done = look_what_it_took};
    struct worker *w;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(worker_new(&loop, "ferry-test", &w), 0);
    worker_post(w, &job);
    worker_retire(w);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_true(job.work_ns > 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs_come_back_in_order),
        cmocka_unit_test(test_what_a_job_took_is_known),
        cmocka_unit_test(test_retired_unused),
        cmocka_unit_test(test_retired_from_a_job),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
