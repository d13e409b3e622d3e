/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server side of ONE client connection, as an engine: bytes in, requests to the owner,
 * completions in, bytes out. The client is QEMU's mirror job (or a tool: qemu-img, nbdcopy, ...).
 *
 *   GREETING --flags--> OPTIONS --GO / EXPORT_NAME--> TRANSMISSION --DISC--> CLOSED
 *                          |ABORT                         | protocol error, nbd_server_close()
 *                          +-----------> CLOSED <---------+
 *
 * Fixed newstyle with NO_ZEROES; options EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED_REPLY and
 * LIST/SET_META_CONTEXT (base:allocation); anything else is answered ERR_UNSUP, which a client must
 * survive. Structured replies when the client asked for them. BLOCK_STATUS is answered here: "data,
 * allocated" for the whole range is always a correct answer.
 *
 * Nothing the client says is trusted: lengths, offsets and counts are checked before they are used;
 * a bad request gets an NBD error, a broken protocol ends the connection with a reason.
 *
 * A write's payload goes straight into the memory that the request then owns. Flow control is in two
 * places: ops->admit() may refuse to take a request now (its payload has not been allocated yet),
 * and at most LIMIT_NBD_REQUESTS_IN_FLIGHT requests wait for nbd_server_complete(). In both cases
 * nbd_server_wants_input() turns false, and what was already fed waits inside.
 *
 * Callbacks may call nbd_server_complete() at once; they must not free the server. One thread.
 */
#ifndef FERRY_STORAGE_NBD_SERVER_H
#define FERRY_STORAGE_NBD_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "core/base/error.h"
#include "storage/nbd_proto.h"

struct nbd_server;

struct nbd_request {
    uint64_t cookie; /* names the request in nbd_server_complete(); unique on this connection */
    enum nbd_command command; /* READ, WRITE, FLUSH, TRIM or WRITE_ZEROES */
    uint32_t flags;           /* NBD_CMD_FLAG_*, only those valid for the command */
    uint64_t offset;          /* offset + length <= size of the export */
    uint32_t length;
    uint8_t *payload; /* WRITE: malloc'ed, @length bytes, the receiver's to free; else NULL */
};

struct nbd_export {
    uint64_t size_bytes;
    const char *description; /* may be NULL; valid during the call */
};

struct nbd_server_ops {
    /* The export of that name, for INFO: 0 or -ENOENT. Claims nothing. */
    int (*find)(void *owner, const char *name, struct nbd_export *ret_export);
    /* The same, and this connection now is the export's client: 0, -ENOENT, -EBUSY. Called once. */
    int (*open)(void *owner, const char *name, struct nbd_export *ret_export);
    /* The name of export @index, NULL beyond the last. */
    const char *(*list)(void *owner, unsigned index);
    /* May @request (no payload yet) be taken now? If not, nbd_server_resume() makes it ask again. */
    bool (*admit)(void *owner, const struct nbd_request *request);
    /* A whole request; the owner calls nbd_server_complete(cookie) once, now or later. */
    void (*request)(void *owner, struct nbd_request *request);
    /* The client said DISC after open(): nothing more will come. Its requests may still be open. */
    void (*disconnect)(void *owner);
};

int nbd_server_new(struct nbd_server **ret_server, const struct nbd_server_ops *ops, void *owner);
void nbd_server_free(struct nbd_server *s);

/*
 * Takes all @len bytes from the client. 0, or a negative errno when the connection is over: a broken
 * protocol (-EPROTO, -E2BIG), no memory, or fed after its end (-ESHUTDOWN). nbd_server_error() says why.
 * The owner feeds only while nbd_server_wants_input(), in pieces of at most some 100 KiB: what waits
 * inside is bounded by the piece.
 */
int nbd_server_feed(struct nbd_server *s, const void *data, size_t len);

/* What is to be written to the client: the owner drains it (buffer_consume). Borrowed. */
struct buffer *nbd_server_output(struct nbd_server *s);

bool nbd_server_wants_input(const struct nbd_server *s);

/* Asks admit() again for the request that was refused, and goes on with what was already fed. */
void nbd_server_resume(struct nbd_server *s);

/*
 * Ends request @cookie: @err is 0 or a negative errno, which becomes the nearest NBD error. @data
 * (READ without error, @len = the request's length) is copied. An unknown cookie is ignored: the
 * connection may have ended before. May continue parsing, hence may call ops.
 */
void nbd_server_complete(struct nbd_server *s, uint64_t cookie, int err, const void *data,
                         size_t len);

/* Ends the connection from this side: no more input; the output still holds what was said before. */
void nbd_server_close(struct nbd_server *s, const struct error *why);

/* Closed: after DISC or ABORT (no error), nbd_server_close(), or a protocol error. The owner drains
 * the output and closes the socket. */
bool nbd_server_is_closed(const struct nbd_server *s);
bool nbd_server_in_handshake(const struct nbd_server *s);
unsigned nbd_server_in_flight(const struct nbd_server *s);

/* code 0: no error. */
const struct error *nbd_server_error(const struct nbd_server *s);

#endif
