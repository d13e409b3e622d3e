/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk writer over libnbd: see disk_writer_nbd.h.
 *
 * One request of the engine becomes one or more libnbd commands (`parts_open` of them unanswered): it is
 * split when it exceeds what the server takes. All open requests are on `open`, those that ended on
 * `ended` until the owner has been told.
 *
 * There is one way out, end(): the libnbd handle is closed first, which ends all its callbacks, and only
 * then what was still open is failed. So nothing depends on what libnbd calls when a connection dies.
 * It is never called from inside a libnbd callback, and those touch nothing but the request.
 *
 * libnbd closes its socket as it dies, inside notify; a loop that still polls that number could meet
 * another file under it. So the owner polls a duplicate, which lives until free().
 *
 * The server's block sizes are not asked for: QEMU then accepts any alignment and does the
 * read-modify-write itself, so a source disk with 512 byte sectors fits on 4 KiB storage.
 */
#include "storage/disk_writer_nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <libnbd.h>

#include "storage/limits.h"

/* What zeroes are written from when the server cannot zero. */
enum { ZEROES_BYTES = 1024 * 1024 };
static const uint8_t zeroes[ZEROES_BYTES];

struct request {
    TAILQ_ENTRY(request) link; /* in open or ended */
    struct disk_writer_nbd *writer;
    uint64_t cookie;
    unsigned parts_open;
    bool issuing; /* parts are still being issued: not to be ended by a callback */
    int err;      /* the first error of a part */
};
TAILQ_HEAD(request_queue, request);

struct disk_writer_nbd {
    struct nbd_handle *nbd; /* NULL after the end */
    int poll_fd; /* a duplicate of libnbd's, so that its number stays taken until free() */
    struct disk_writer_nbd_callbacks callbacks;
    void *owner;
    char what[160]; /* for errors */
    uint64_t size_bytes;
    uint32_t request_max_bytes;
    bool read_only, can_zero, can_trim, can_flush;
    bool is_ready;
    bool disconnecting;
    bool closed_told;
    bool dispatching;
    struct request_queue open, ended;
    unsigned in_flight; /* open and ended */
    struct error error;
};

/* --- connecting ------------------------------------------------------------------------------- */

static int libnbd_error(struct error *e, const char *what)
{
    int err = nbd_get_errno();
    const char *text = nbd_get_error();

    return error_set(e, err ? -err : -EIO, what, NULL, "%s",
                     text ? text : "the NBD server closed the connection");
}

static int connect_handle(struct disk_writer_nbd *w, const struct disk_writer_nbd_params *params)
{
    uint32_t strict;

    w->nbd = nbd_create();
    if (!w->nbd || nbd_set_export_name(w->nbd, params->export_name) < 0 ||
        nbd_set_request_block_size(w->nbd, false) < 0)
        return -1;
    /* Alignment is the server's business, see above. */
    strict = nbd_get_strict_mode(w->nbd) & ~(uint32_t)LIBNBD_STRICT_ALIGN;
    if (nbd_set_strict_mode(w->nbd, strict) < 0)
        return -1;
    /* libnbd wants the arguments as execvp() does, and copies them. */
    if ((params->server
             ? nbd_aio_connect_systemd_socket_activation(w->nbd, (char **)(uintptr_t)params->server)
             : nbd_aio_connect_unix(w->nbd, params->socket_path)) < 0 ||
        nbd_aio_is_dead(w->nbd) > 0)
        return -1;
    w->poll_fd = fcntl(nbd_aio_get_fd(w->nbd), F_DUPFD_CLOEXEC, 0);
    return w->poll_fd < 0 ? -1 : 0;
}

int disk_writer_nbd_new(struct disk_writer_nbd **ret_writer,
                        const struct disk_writer_nbd_params *params, struct error *e)
{
    struct disk_writer_nbd *w = calloc(1, sizeof(*w));
    int err;

    if (!w)
        return error_set(e, -ENOMEM, "connect to the target's disk", NULL, "out of memory");
    w->poll_fd = -1;
    TAILQ_INIT(&w->open);
    TAILQ_INIT(&w->ended);
    w->callbacks = *params->callbacks;
    w->owner = params->owner;
    w->size_bytes = params->size_bytes;
    w->request_max_bytes = params->request_max_bytes;
    w->read_only = params->read_only;
    snprintf(w->what, sizeof(w->what), "reach disk %s at %s", params->export_name,
             params->server ? params->server[0] : params->socket_path);
    if (connect_handle(w, params) < 0) {
        err = libnbd_error(e, w->what);
        disk_writer_nbd_free(w);
        return err;
    }
    *ret_writer = w;
    return 0;
}

static void drop_requests(struct request_queue *queue)
{
    struct request *r;

    while ((r = TAILQ_FIRST(queue))) {
        TAILQ_REMOVE(queue, r, link);
        free(r);
    }
}

void disk_writer_nbd_free(struct disk_writer_nbd *w)
{
    if (!w)
        return;
    nbd_close(w->nbd);
    closep(&w->poll_fd);
    drop_requests(&w->open);
    drop_requests(&w->ended);
    free(w);
}

/* The connection is over; w->error says why, or is clear after a disconnect. */
static void end(struct disk_writer_nbd *w)
{
    struct request *r;

    w->is_ready = false;
    nbd_close(TAKE_PTR(w->nbd));
    shutdown(w->poll_fd, SHUT_RDWR); /* the server is to see the end now, not at free() */
    while ((r = TAILQ_FIRST(&w->open))) {
        if (r->err == 0)
            r->err = w->error.code ? w->error.code : -ENOTCONN;
        TAILQ_REMOVE(&w->open, r, link);
        TAILQ_INSERT_TAIL(&w->ended, r, link);
    }
}

static void check_export(struct disk_writer_nbd *w)
{
    int64_t size = nbd_get_size(w->nbd);
    int64_t most = nbd_get_block_size(w->nbd, LIBNBD_SIZE_MAXIMUM);

    if (w->read_only && size >= 0) {
        w->size_bytes = (uint64_t)size;
    } else if (size < 0 || nbd_is_read_only(w->nbd) > 0 || (uint64_t)size != w->size_bytes) {
        error_set(&w->error, -EINVAL, w->what,
                  "the target's disk must be writable and have the source's size",
                  "%s, %" PRId64 " bytes, expected %" PRIu64,
                  nbd_is_read_only(w->nbd) > 0 ? "read-only" : "writable", size, w->size_bytes);
        end(w);
        return;
    }
    if (most <= 0 || most > (int64_t)LIMIT_NBD_WRITE_BYTES)
        most = (int64_t)LIMIT_NBD_WRITE_BYTES;
    if (w->request_max_bytes == 0 || w->request_max_bytes > most)
        w->request_max_bytes = (uint32_t)most;
    w->can_zero = nbd_can_zero(w->nbd) > 0;
    w->can_trim = nbd_can_trim(w->nbd) > 0;
    w->can_flush = nbd_can_flush(w->nbd) > 0;
    w->is_ready = true;
    w->callbacks.ready(w->owner);
}

/* --- requests --------------------------------------------------------------------------------- */

static void end_request(struct request *r)
{
    struct disk_writer_nbd *w = r->writer;

    TAILQ_REMOVE(&w->open, r, link);
    TAILQ_INSERT_TAIL(&w->ended, r, link);
}

/* From inside libnbd: only notes. 1: libnbd forgets the command. */
static int on_part(void *user_data, int *error)
{
    struct request *r = user_data;

    if (*error && r->err == 0)
        r->err = -*error;
    r->parts_open--;
    if (r->parts_open == 0 && !r->issuing)
        end_request(r);
    return 1;
}

static struct request *request_new(struct disk_writer_nbd *w, uint64_t cookie)
{
    struct request *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->writer = w;
    r->cookie = cookie;
    r->issuing = true;
    TAILQ_INSERT_TAIL(&w->open, r, link);
    w->in_flight++;
    return r;
}

static nbd_completion_callback begin_part(struct request *r)
{
    r->parts_open++;
    return (nbd_completion_callback){.callback = on_part, .user_data = r};
}

/* @cookie is libnbd's answer to the command of begin_part(). False: stop issuing. */
static bool check_part(struct request *r, int64_t cookie)
{
    if (cookie >= 0)
        return r->err == 0;
    r->parts_open--; /* it was not taken, its callback will not come */
    if (r->err == 0)
        r->err = nbd_get_errno() ? -nbd_get_errno() : -EIO;
    return false;
}

static int finish_issuing(struct request *r)
{
    r->issuing = false;
    if (r->parts_open == 0)
        end_request(r);
    return 0;
}

enum part_kind { PART_WRITE, PART_READ, PART_ZERO, PART_ZERO_BY_WRITE, PART_TRIM };

static int64_t issue_part(struct request *r, enum part_kind kind, uint32_t flags, uint64_t offset,
                          uint32_t length, uint8_t *data)
{
    struct nbd_handle *nbd = r->writer->nbd;
    nbd_completion_callback done = begin_part(r);

    switch (kind) {
    case PART_WRITE:
        return nbd_aio_pwrite(nbd, data, length, offset, done, flags);
    case PART_READ:
        return nbd_aio_pread(nbd, data, length, offset, done, flags);
    case PART_ZERO:
        return nbd_aio_zero(nbd, length, offset, done, flags);
    case PART_ZERO_BY_WRITE:
        return nbd_aio_pwrite(nbd, zeroes, length, offset, done, flags);
    case PART_TRIM:
        return nbd_aio_trim(nbd, length, offset, done, flags);
    }
    return -1;
}

static int issue(struct disk_writer_nbd *w, uint64_t cookie, enum part_kind kind, uint32_t flags,
                 uint64_t offset, uint32_t length, uint8_t *data)
{
    uint32_t part_max = w->request_max_bytes;
    struct request *r;
    uint32_t part;

    if (!w->is_ready || w->disconnecting)
        return -ENOTCONN;
    r = request_new(w, cookie);
    if (!r)
        return -ENOMEM;
    if (kind == PART_ZERO_BY_WRITE)
        part_max = MIN(part_max, (uint32_t)ZEROES_BYTES);
    for (uint32_t at = 0; at < length; at += part) {
        part = MIN(length - at, part_max);
        if (!check_part(r, issue_part(r, kind, flags, offset + at, part, data ? data + at : NULL)))
            break;
    }
    return finish_issuing(r);
}

static int op_write(void *writer, uint64_t cookie, uint64_t offset, uint32_t length,
                    const uint8_t *data)
{
    /* issue() serves both directions; libnbd only reads from this one */
    return issue(writer, cookie, PART_WRITE, 0, offset, length, (uint8_t *)(uintptr_t)data);
}

static int op_read(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, uint8_t *data)
{
    return issue(writer, cookie, PART_READ, 0, offset, length, data);
}

static int op_zero(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, bool may_trim)
{
    struct disk_writer_nbd *w = writer;

    if (!w->can_zero)
        return issue(w, cookie, PART_ZERO_BY_WRITE, 0, offset, length, NULL);
    return issue(w, cookie, PART_ZERO, may_trim ? 0 : LIBNBD_CMD_FLAG_NO_HOLE, offset, length,
                 NULL);
}

static int op_trim(void *writer, uint64_t cookie, uint64_t offset, uint32_t length)
{
    struct disk_writer_nbd *w = writer;

    /* Only a hint: without a server that understands it there is nothing to do. */
    return issue(w, cookie, PART_TRIM, 0, offset, w->can_trim ? length : 0, NULL);
}

static int op_flush(void *writer, uint64_t cookie)
{
    struct disk_writer_nbd *w = writer;
    struct request *r;

    if (!w->is_ready || w->disconnecting)
        return -ENOTCONN;
    r = request_new(w, cookie);
    if (!r)
        return -ENOMEM;
    /* A server that offers no flush says that its completions are durable. */
    if (w->can_flush)
        check_part(r, nbd_aio_flush(w->nbd, begin_part(r), 0));
    return finish_issuing(r);
}

const struct disk_writer_ops disk_writer_nbd_ops = {
    .write = op_write, .zero = op_zero, .trim = op_trim, .flush = op_flush, .read = op_read};

/* --- the loop's side -------------------------------------------------------------------------- */

int disk_writer_nbd_fd(const struct disk_writer_nbd *w)
{
    return w->nbd ? w->poll_fd : -1;
}

unsigned disk_writer_nbd_wants(const struct disk_writer_nbd *w)
{
    unsigned direction = w->nbd ? nbd_aio_get_direction(w->nbd) : 0;

    return (direction & LIBNBD_AIO_DIRECTION_READ ? DISK_WRITER_READABLE : 0) |
           (direction & LIBNBD_AIO_DIRECTION_WRITE ? DISK_WRITER_WRITABLE : 0);
}

static bool is_gone(const struct disk_writer_nbd *w)
{
    return nbd_aio_is_dead(w->nbd) > 0 || nbd_aio_is_closed(w->nbd) > 0;
}

bool disk_writer_nbd_has_completions(const struct disk_writer_nbd *w)
{
    if (w->dispatching)
        return false; /* the dispatch on the stack delivers them */
    return !TAILQ_EMPTY(&w->ended) || (!w->closed_told && (!w->nbd || is_gone(w)));
}

static void run_libnbd(struct disk_writer_nbd *w, unsigned ready)
{
    if ((ready & DISK_WRITER_READABLE & disk_writer_nbd_wants(w)) &&
        nbd_aio_notify_read(w->nbd) < 0)
        libnbd_error(&w->error, w->what);
    if ((ready & DISK_WRITER_WRITABLE & disk_writer_nbd_wants(w)) &&
        nbd_aio_notify_write(w->nbd) < 0)
        libnbd_error(&w->error, w->what);
    if (is_gone(w)) {
        if (w->disconnecting && nbd_aio_is_closed(w->nbd) > 0)
            error_clear(&w->error);
        else if (!error_is_set(&w->error))
            error_set(&w->error, -ENOTCONN, w->what, NULL, "the NBD server closed the connection");
        end(w);
    } else if (!w->is_ready && !w->disconnecting && nbd_aio_is_ready(w->nbd) > 0) {
        check_export(w);
    }
}

static void tell_completions(struct disk_writer_nbd *w)
{
    struct request *r;
    uint64_t cookie;
    int err;

    while ((r = TAILQ_FIRST(&w->ended))) {
        TAILQ_REMOVE(&w->ended, r, link);
        w->in_flight--;
        cookie = r->cookie;
        err = r->err;
        free(r);
        w->callbacks.complete(w->owner, cookie, err);
    }
}

void disk_writer_nbd_dispatch(struct disk_writer_nbd *w, unsigned ready)
{
    if (w->dispatching || w->closed_told)
        return;
    w->dispatching = true;
    if (w->nbd)
        run_libnbd(w, ready);
    tell_completions(w);
    /* What the owner issued just now may have killed the connection. */
    if (w->nbd && is_gone(w)) {
        run_libnbd(w, 0);
        tell_completions(w);
    }
    if (!w->nbd && !w->closed_told) {
        w->closed_told = true;
        w->callbacks.closed(w->owner, &w->error);
    }
    w->dispatching = false;
}

void disk_writer_nbd_disconnect(struct disk_writer_nbd *w)
{
    if (!w->nbd || w->disconnecting)
        return;
    w->disconnecting = true;
    if (!w->is_ready || nbd_aio_disconnect(w->nbd, 0) < 0)
        end(w); /* nothing to say goodbye to; closed() comes with the next dispatch */
}

uint64_t disk_writer_nbd_size_bytes(const struct disk_writer_nbd *w)
{
    return w->size_bytes;
}

unsigned disk_writer_nbd_in_flight(const struct disk_writer_nbd *w)
{
    return w->in_flight;
}
