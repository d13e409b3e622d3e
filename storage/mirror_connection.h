/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client connection of the local NBD endpoint: joins an nbd_server with the disk it chooses.
 *
 * The owner holds the socket: it feeds what it reads while mirror_connection_wants_input(), writes what
 * mirror_connection_output() holds, and when mirror_connection_is_closed() and the output is drained it
 * closes the socket and frees the connection. wake() says that one of these three changed without the
 * owner calling (an acknowledgement was released, the disk failed); in it the owner may look and write,
 * and must not free.
 */
#ifndef FERRY_STORAGE_MIRROR_CONNECTION_H
#define FERRY_STORAGE_MIRROR_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "core/base/error.h"
#include "storage/mirror_endpoint.h"

struct mirror_connection;

/* -EMFILE beyond LIMIT_ENDPOINT_CONNECTIONS. */
int mirror_connection_new(struct mirror_connection **ret_connection, struct mirror_endpoint *ep,
                          void (*wake)(void *owner, struct mirror_connection *c), void *owner);

/* At any time. A disk that was still mirroring to this client then FAILS, as with eof. */
void mirror_connection_free(struct mirror_connection *c);

/* Takes all bytes, in pieces of at most some 100 KiB. Negative errno: it is closed, see the error. */
int mirror_connection_feed(struct mirror_connection *c, const void *data, size_t len,
                           uint64_t now_ns);

/* The client closed its end (err 0) or the socket broke. Without a DISC before it, its disk FAILS. */
void mirror_connection_eof(struct mirror_connection *c, int err);

struct buffer *mirror_connection_output(struct mirror_connection *c);

/* To be called after the output was consumed: a READ may have waited for that. */
void mirror_connection_drained(struct mirror_connection *c, uint64_t now_ns);

bool mirror_connection_wants_input(const struct mirror_connection *c);
bool mirror_connection_is_closed(const struct mirror_connection *c);

/* Still choosing an export: the owner may drop it after some seconds. */
bool mirror_connection_in_handshake(const struct mirror_connection *c);

/* code 0 when it ended by the protocol, or has not. */
const struct error *mirror_connection_error(const struct mirror_connection *c);

/* The disk it chose; NULL before. */
struct mirror_source *mirror_connection_disk(const struct mirror_connection *c);

#endif
