/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk writer over libnbd: one connection to an NBD server on a UNIX socket (QEMU's, at the target), or to one
 * that it starts itself, to read a file that it alone can interpret (qemu-nbd: a seed).
 *
 * libnbd runs its own state machine over a socket that the owner polls: disk_writer_nbd_fd(),
 * disk_writer_nbd_wants() for the direction, disk_writer_nbd_dispatch() when it is ready. Issuing a
 * request changes the direction too, so the owner looks at wants() again after every call into the
 * writer or into the engine that uses it.
 *
 * Completions. libnbd forbids requests from inside its callbacks; so a callback only puts the request
 * on a list, and dispatch() tells the owner when libnbd has returned. A request that fails while it is
 * being issued fails the same way: owner calls disk_writer_nbd_dispatch(w, 0) when
 * disk_writer_nbd_has_completions().
 *
 * Death. When the server goes away every open request completes once with an error, and then
 * closed() comes. After closed() nothing is taken any more.
 */
#ifndef FERRY_STORAGE_DISK_WRITER_NBD_H
#define FERRY_STORAGE_DISK_WRITER_NBD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "storage/disk_writer.h"

struct disk_writer_nbd;

#define DISK_WRITER_READABLE 1u
#define DISK_WRITER_WRITABLE 2u

/* Called from dispatch() only. The owner must not free the writer in them. */
struct disk_writer_nbd_callbacks {
    /* Connected, size checked: requests are taken from now on. */
    void (*ready)(void *owner);
    /* A request ended; goes to mirror_target_complete(). */
    void (*complete)(void *owner, uint64_t cookie, int err);
    /* The connection is over: why->code 0 after disk_writer_nbd_disconnect(). Once. */
    void (*closed)(void *owner, const struct error *why);
};

struct disk_writer_nbd_params {
    const char *socket_path;
    const char *const *server; /* instead of a socket: the command of a server that takes its socket
                                  as systemd gives it; it ends with the connection. NULL at the end */
    const char *export_name;
    bool read_only;
    uint64_t size_bytes; /* what the export must have; with read_only any */
    uint32_t
        request_max_bytes; /* split larger ones; 0 = the server's maximum, 32 MiB when unsaid */
    const struct disk_writer_nbd_callbacks *callbacks;
    void *owner;
};

/* Starts to connect. -ECONNREFUSED, -ENOENT, ... with *e filled: the server is not there (yet). */
int disk_writer_nbd_new(struct disk_writer_nbd **ret_writer,
                        const struct disk_writer_nbd_params *params, struct error *e);
/* At any time; open requests are forgotten without completion. The fd is closed: stop polling before. With a
 * server of its own it waits for that to end: to be called on a thread that may. */
void disk_writer_nbd_free(struct disk_writer_nbd *w);

/* The operations; `void *writer` is the struct disk_writer_nbd. -ENOTCONN before ready and after the end. */
extern const struct disk_writer_ops disk_writer_nbd_ops;

/* -1 when the connection is over; the number stays reserved until free(), so polling may stop late. */
int disk_writer_nbd_fd(const struct disk_writer_nbd *w);
unsigned disk_writer_nbd_wants(const struct disk_writer_nbd *w);
void disk_writer_nbd_dispatch(struct disk_writer_nbd *w, unsigned ready);
/* There is something to tell, completions or the end, without the socket being ready. */
bool disk_writer_nbd_has_completions(const struct disk_writer_nbd *w);

/* Says DISC after what is in flight; closed() follows. */
void disk_writer_nbd_disconnect(struct disk_writer_nbd *w);

/* Of the export, once ready. */
uint64_t disk_writer_nbd_size_bytes(const struct disk_writer_nbd *w);

unsigned disk_writer_nbd_in_flight(const struct disk_writer_nbd *w);

#endif
