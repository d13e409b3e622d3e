/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of the target's disks over libnbd, waited for in short turns so that a cancel is seen: see block_reader_nbd.h. */
#include "storage/block_reader_nbd.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "core/base/clock.h"
#include "core/base/macros.h"

enum {
    /* Memory holds neighbours of a disk near each other, but in any order: windows are read whole, and this many kept. */
    WINDOW_BYTES = 256 * 1024,
    WINDOWS = 32,
    TURN_MS = 50,
    /* A QEMU that is busy is waited for: to ask the source instead would take a round trip for each block. */
    LIMIT_MS = 30000,
};

struct window {
    uint64_t number; /* of the disk's windows */
    size_t bytes;    /* 0: nothing */
    uint8_t data[WINDOW_BYTES];
};

struct block_disk {
    char *export_name;
    struct nbd_handle *nbd; /* NULL: not connected, or given up */
    bool given_up;
    uint64_t size_bytes;
    struct window *windows; /* WINDOWS of them, by their number modulo; NULL: none read yet */
};

struct block_reader_nbd {
    char *socket_path;
    atomic_bool cancelled;
    unsigned disk_count;
    struct block_disk disks[];
};

int block_reader_nbd_new(const char *socket_path, const char *const *export_names, unsigned disks,
                         struct block_reader_nbd **ret)
{
    struct block_reader_nbd *r = calloc(1, sizeof(*r) + disks * sizeof(r->disks[0]));
    bool whole;

    if (!r)
        return -ENOMEM;
    r->socket_path = strdup(socket_path);
    r->disk_count = disks;
    whole = r->socket_path;
    for (unsigned i = 0; i < disks; i++) {
        r->disks[i].export_name = strdup(export_names[i]);
        whole &= r->disks[i].export_name != NULL;
    }
    if (!whole) {
        block_reader_nbd_free(r);
        return -ENOMEM;
    }
    *ret = r;
    return 0;
}

void block_reader_nbd_free(struct block_reader_nbd *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < r->disk_count; i++) {
        nbd_close(r->disks[i].nbd);
        free(r->disks[i].windows);
        free(r->disks[i].export_name);
    }
    free(r->socket_path);
    free(r);
}

void block_reader_nbd_cancel(struct block_reader_nbd *r)
{
    atomic_store(&r->cancelled, true);
}

static int give_up(struct block_disk *d, int err)
{
    nbd_close(TAKE_PTR(d->nbd));
    d->given_up = true;
    return err;
}

/* Until it is connected (@cookie 0) or the request is answered. */
static int wait_for(struct block_reader_nbd *r, struct block_disk *d, int64_t cookie)
{
    uint64_t end_ns = clock_now_ns() + LIMIT_MS * NS_PER_MS;

    for (;;) {
        int done =
            cookie ? nbd_aio_command_completed(d->nbd, (uint64_t)cookie) : nbd_aio_is_ready(d->nbd);

        if (done > 0)
            return 0;
        if (done < 0 || nbd_aio_is_dead(d->nbd) > 0 || nbd_aio_is_closed(d->nbd) > 0)
            return -EIO;
        if (atomic_load(&r->cancelled))
            return -ECANCELED;
        if (clock_now_ns() > end_ns)
            return -ETIMEDOUT;
        if (nbd_poll(d->nbd, TURN_MS) < 0)
            return -EIO;
    }
}

static int connect_disk(struct block_reader_nbd *r, struct block_disk *d)
{
    int64_t size;
    int err;

    d->nbd = nbd_create();
    if (!d->nbd || nbd_set_export_name(d->nbd, d->export_name) < 0 ||
        nbd_aio_connect_unix(d->nbd, r->socket_path) < 0)
        return -EIO;
    err = wait_for(r, d, 0);
    if (err < 0)
        return err;
    size = nbd_get_size(d->nbd);
    if (size < 0)
        return -EIO;
    d->size_bytes = (uint64_t)size;
    return 0;
}

static int read_window(struct block_reader_nbd *r, struct block_disk *d, struct window *w,
                       uint64_t number)
{
    uint64_t offset = number * WINDOW_BYTES;
    size_t len = (size_t)MIN((uint64_t)WINDOW_BYTES, d->size_bytes - offset);
    int64_t cookie;
    int err;

    w->bytes = 0;
    cookie = nbd_aio_pread(d->nbd, w->data, len, offset, NBD_NULL_COMPLETION, 0);
    if (cookie < 0)
        return -EIO;
    err = wait_for(r, d, cookie);
    if (err < 0)
        return err;
    w->number = number;
    w->bytes = len;
    return 0;
}

int block_reader_nbd_read(struct block_reader_nbd *r, unsigned disk, uint64_t offset,
                          uint8_t ret_block[BLOCK_READER_BYTES])
{
    struct block_disk *d = &r->disks[disk];
    uint64_t number = offset / WINDOW_BYTES;
    struct window *w;
    int err = 0;

    if (atomic_load(&r->cancelled))
        return -ECANCELED;
    if (disk >= r->disk_count || d->given_up || offset % BLOCK_READER_BYTES != 0)
        return -ENODEV;
    if (!d->nbd)
        err = connect_disk(r, d);
    if (err < 0)
        return give_up(d, err);
    if (offset > d->size_bytes || d->size_bytes - offset < BLOCK_READER_BYTES)
        return -ERANGE;
    if (!d->windows)
        d->windows = calloc(WINDOWS, sizeof(d->windows[0]));
    if (!d->windows)
        return give_up(d, -ENOMEM);
    w = &d->windows[number % WINDOWS];
    if (w->number != number || offset % WINDOW_BYTES + BLOCK_READER_BYTES > w->bytes)
        err = read_window(r, d, w, number);
    if (err < 0)
        return give_up(d, err);
    memcpy(ret_block, w->data + offset % WINDOW_BYTES, BLOCK_READER_BYTES);
    return 0;
}
