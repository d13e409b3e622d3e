/* SPDX-License-Identifier: Apache-2.0 */
/* libnbd's socket on the loop: see nbd_poll.h. */
#include "core/disk/nbd_poll.h"

#include <errno.h>
#include <stdlib.h>

struct nbd_poll {
    uv_poll_t poll; /* open until its close callback */
    struct disk_writer_nbd *nbd;
    void (*after)(void *user);
    void *user;
    int events;
};

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct nbd_poll *p = poll->data;
    unsigned ready = (events & UV_READABLE ? DISK_WRITER_READABLE : 0) |
                     (events & UV_WRITABLE ? DISK_WRITER_WRITABLE : 0);

    if (status < 0)
        ready = DISK_WRITER_READABLE;
    disk_writer_nbd_dispatch(p->nbd, ready);
    p->after(p->user);
}

int nbd_poll_new(uv_loop_t *loop, struct disk_writer_nbd *nbd, void (*after)(void *user),
                 void *user, struct nbd_poll **ret)
{
    struct nbd_poll *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    if (uv_poll_init(loop, &p->poll, disk_writer_nbd_fd(nbd)) < 0) {
        free(p);
        return -ENOMEM;
    }
    p->poll.data = p;
    p->nbd = nbd;
    p->after = after;
    p->user = user;
    *ret = p;
    return 0;
}

void nbd_poll_update(struct nbd_poll *p)
{
    unsigned wants;
    int events;

    if (!p)
        return;
    wants = disk_writer_nbd_fd(p->nbd) < 0 ? 0 : disk_writer_nbd_wants(p->nbd);
    events = (wants & DISK_WRITER_READABLE ? UV_READABLE : 0) |
             (wants & DISK_WRITER_WRITABLE ? UV_WRITABLE : 0);
    if (events == p->events)
        return;
    p->events = events;
    if (events)
        uv_poll_start(&p->poll, events, on_poll);
    else
        uv_poll_stop(&p->poll);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void nbd_poll_free(struct nbd_poll *p)
{
    if (!p)
        return;
    uv_poll_stop(&p->poll);
    uv_close((uv_handle_t *)&p->poll, on_closed);
}
