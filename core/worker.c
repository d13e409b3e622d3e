/* SPDX-License-Identifier: Apache-2.0 */
/* A thread with a queue each way: see worker.h. */
#include "core/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/priority.h"

struct queue {
    struct worker_job *first, **last;
};

struct worker {
    pthread_t thread;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t posted;
    struct queue todo, finished;
    bool retired;
    bool ended; /* the thread has nothing left to do */
    uv_async_t wake;
    char name[16];
};

static void queue_init(struct queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void queue_put(struct queue *q, struct worker_job *job)
{
    job->next = NULL;
    *q->last = job;
    q->last = &job->next;
}

static struct worker_job *queue_take(struct queue *q)
{
    struct worker_job *job = q->first;

    if (job) {
        q->first = job->next;
        if (!q->first)
            q->last = &q->first;
    }
    return job;
}

static void run_measured(struct worker_job *job)
{
    uint64_t cpu_ns = clock_thread_cpu_ns(), began_ns = clock_now_ns();

    job->run(job);
    job->cpu_ns = clock_thread_cpu_ns() - cpu_ns;
    job->work_ns = clock_now_ns() - began_ns;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct worker_job *job;

    pthread_setname_np(pthread_self(), w->name);
    priority_usual(0);
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!(job = queue_take(&w->todo)) && !w->retired)
            pthread_cond_wait(&w->posted, &w->lock);
        if (!job)
            break;
        pthread_mutex_unlock(&w->lock);
        run_measured(job);
        pthread_mutex_lock(&w->lock);
        queue_put(&w->finished, job);
        uv_async_send(&w->wake);
    }
    w->ended = true;
    uv_async_send(&w->wake);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void free_on_close(uv_handle_t *handle)
{
    struct worker *w = handle->data;

    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->posted);
    free(w);
}

static void join_on_close(uv_handle_t *handle)
{
    struct worker *w = handle->data;

    pthread_join(w->thread, NULL);
    free_on_close(handle);
}

static void on_wake(uv_async_t *wake)
{
    struct worker *w = wake->data;
    struct worker_job *job;
    bool ended;

    for (;;) {
        pthread_mutex_lock(&w->lock);
        job = queue_take(&w->finished);
        ended = w->ended;
        pthread_mutex_unlock(&w->lock);
        if (!job)
            break;
        job->done(job);
    }
    if (ended && !uv_is_closing((uv_handle_t *)&w->wake))
        uv_close((uv_handle_t *)&w->wake, join_on_close);
}

int worker_new(uv_loop_t *loop, const char *name, struct worker **ret)
{
    struct worker *w = calloc(1, sizeof(*w));
    int r;

    if (!w)
        return -ENOMEM;
    snprintf(w->name, sizeof(w->name), "%s", name);
    queue_init(&w->todo);
    queue_init(&w->finished);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->posted, NULL);
    uv_async_init(loop, &w->wake, on_wake);
    w->wake.data = w;
    r = pthread_create(&w->thread, NULL, worker_main, w);
    if (r != 0) {
        uv_close((uv_handle_t *)&w->wake, free_on_close);
        return -r;
    }
    *ret = w;
    return 0;
}

void worker_post(struct worker *w, struct worker_job *job)
{
    pthread_mutex_lock(&w->lock);
    queue_put(&w->todo, job);
    pthread_cond_signal(&w->posted);
    pthread_mutex_unlock(&w->lock);
}

void worker_retire(struct worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->retired = true;
    pthread_cond_signal(&w->posted);
    pthread_mutex_unlock(&w->lock);
}
