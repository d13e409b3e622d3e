/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virEventRegisterImpl on libuv: see virt_loop.h.
 *
 * Every call of libvirt's only changes a list under a lock and wakes the loop, which then makes
 * libuv's handles match. A removed entry is freed by the loop, after its last callback.
 */
#include "core/virt/virt_loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>

#include <libvirt/libvirt.h>

struct entry {
    TAILQ_ENTRY(entry) link;
    int id;
    bool is_timer, changed, removed, started;
    int fd, events; /* libvirt's events */
    int interval_ms;
    virEventHandleCallback on_handle;
    virEventTimeoutCallback on_timeout;
    void *opaque;
    virFreeCallback free_opaque;
    union {
        uv_handle_t any;
        uv_poll_t poll;
        uv_timer_t timer;
    } uv;
};

static struct {
    uv_loop_t *loop;
    uv_async_t wake;
    pthread_mutex_t lock; /* guards the list and the wishes in its entries */
    TAILQ_HEAD(, entry) entries;
    int next_id;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int to_uv(int events)
{
    return (events & VIR_EVENT_HANDLE_READABLE ? UV_READABLE : 0) |
           (events & VIR_EVENT_HANDLE_WRITABLE ? UV_WRITABLE : 0) |
           (events & VIR_EVENT_HANDLE_HANGUP ? UV_DISCONNECT : 0);
}

static int from_uv(int status, int events)
{
    return (status < 0 ? VIR_EVENT_HANDLE_ERROR : 0) |
           (events & UV_READABLE ? VIR_EVENT_HANDLE_READABLE : 0) |
           (events & UV_WRITABLE ? VIR_EVENT_HANDLE_WRITABLE : 0) |
           (events & UV_DISCONNECT ? VIR_EVENT_HANDLE_HANGUP : 0);
}

/* --- loop thread --------------------------------------------------------------------------- */

static bool is_removed(struct entry *e)
{
    bool removed;

    pthread_mutex_lock(&state.lock);
    removed = e->removed;
    pthread_mutex_unlock(&state.lock);
    return removed;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct entry *e = poll->data;

    if (!is_removed(e))
        e->on_handle(e->id, e->fd, from_uv(status, events), e->opaque);
}

static void on_timer(uv_timer_t *timer)
{
    struct entry *e = timer->data;

    if (!is_removed(e))
        e->on_timeout(e->id, e->opaque);
}

static void on_closed(uv_handle_t *handle)
{
    struct entry *e = handle->data;

    if (e->free_opaque)
        e->free_opaque(e->opaque);
    free(e);
}

static void apply_timer(struct entry *e, int interval_ms)
{
    if (interval_ms < 0)
        uv_timer_stop(&e->uv.timer);
    else
        uv_timer_start(&e->uv.timer, on_timer, (uint64_t)interval_ms,
                       interval_ms ? (uint64_t)interval_ms : 1);
}

static void apply_handle(struct entry *e, int events)
{
    if (to_uv(events))
        uv_poll_start(&e->uv.poll, to_uv(events), on_poll);
    else
        uv_poll_stop(&e->uv.poll);
}

static void start(struct entry *e)
{
    if (e->is_timer)
        uv_timer_init(state.loop, &e->uv.timer);
    else
        uv_poll_init(state.loop, &e->uv.poll, e->fd);
    e->uv.any.data = e;
    e->started = true;
}

/* One changed entry, taken under the lock. */
static struct entry *take_changed(int *ret_wish, bool *ret_removed)
{
    struct entry *e;

    pthread_mutex_lock(&state.lock);
    TAILQ_FOREACH(e, &state.entries, link)
    {
        if (e->changed)
            break;
    }
    if (e) {
        e->changed = false;
        *ret_wish = e->is_timer ? e->interval_ms : e->events;
        *ret_removed = e->removed;
        if (e->removed)
            TAILQ_REMOVE(&state.entries, e, link);
    }
    pthread_mutex_unlock(&state.lock);
    return e;
}

static void on_wake(uv_async_t *wake)
{
    struct entry *e;
    bool removed;
    int wish;

    (void)wake;
    while ((e = take_changed(&wish, &removed))) {
        if (!e->started)
            start(e);
        if (removed)
            uv_close(&e->uv.any, on_closed);
        else if (e->is_timer)
            apply_timer(e, wish);
        else
            apply_handle(e, wish);
    }
}

/* --- any thread ---------------------------------------------------------------------------- */

static int add(struct entry *e)
{
    int id;

    pthread_mutex_lock(&state.lock);
    id = e->id = ++state.next_id;
    e->changed = true;
    TAILQ_INSERT_TAIL(&state.entries, e, link);
    pthread_mutex_unlock(&state.lock);
    uv_async_send(&state.wake);
    return id;
}

static int change(int id, bool is_timer, int wish, bool remove)
{
    struct entry *e;

    pthread_mutex_lock(&state.lock);
    TAILQ_FOREACH(e, &state.entries, link)
    {
        if (e->id == id && e->is_timer == is_timer && !e->removed)
            break;
    }
    if (e) {
        e->changed = true;
        if (remove)
            e->removed = true;
        else if (is_timer)
            e->interval_ms = wish;
        else
            e->events = wish;
    }
    pthread_mutex_unlock(&state.lock);
    uv_async_send(&state.wake);
    return e ? 0 : -1;
}

static int add_handle(int fd, int events, virEventHandleCallback callback, void *opaque,
                      virFreeCallback ff)
{
    struct entry *e = calloc(1, sizeof(*e));

    if (!e)
        return -1;
    *e = (struct entry){
        .fd = fd, .events = events, .on_handle = callback, .opaque = opaque, .free_opaque = ff};
    return add(e);
}

static void update_handle(int id, int events)
{
    change(id, false, events, false);
}

static int remove_handle(int id)
{
    return change(id, false, 0, true);
}

static int add_timeout(int interval_ms, virEventTimeoutCallback callback, void *opaque,
                       virFreeCallback ff)
{
    struct entry *e = calloc(1, sizeof(*e));

    if (!e)
        return -1;
    *e = (struct entry){.is_timer = true,
                        .interval_ms = interval_ms,
                        .on_timeout = callback,
                        .opaque = opaque,
                        .free_opaque = ff};
    return add(e);
}

static void update_timeout(int id, int interval_ms)
{
    change(id, true, interval_ms, false);
}

static int remove_timeout(int id)
{
    return change(id, true, 0, true);
}

int virt_loop_start(uv_loop_t *loop)
{
    int r = uv_async_init(loop, &state.wake, on_wake);

    if (r < 0)
        return r;
    state.loop = loop;
    TAILQ_INIT(&state.entries);
    virEventRegisterImpl(add_handle, update_handle, remove_handle, add_timeout, update_timeout,
                         remove_timeout);
    return 0;
}

void virt_loop_stop(void)
{
    struct entry *e;

    on_wake(&state.wake); /* what libvirt took back a moment ago */
    pthread_mutex_lock(&state.lock);
    TAILQ_FOREACH(e, &state.entries, link) /* and what it never took back */
    e->changed = e->removed = true;
    pthread_mutex_unlock(&state.lock);
    on_wake(&state.wake);
    uv_close((uv_handle_t *)&state.wake, NULL);
}
