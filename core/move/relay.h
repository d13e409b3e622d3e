/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins a UNIX socket with a stream of the link, both ways, with half-closes and backpressure: how
 * QEMU's RAM connection crosses the WAN. Bytes pass unchanged, or through the RAM codec in one direction
 * (core/move/ram_pipe.h); the owner may look, and may hold back what goes to the socket (the target keeps the
 * opaque tail until the disks are done).
 */
#ifndef FERRY_CORE_RELAY_H
#define FERRY_CORE_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/move/local_socket.h"
#include "core/move/ram_pipe.h"
#include "netlink/session.h"

struct relay;

struct relay_ops {
    /* Bytes were read from the socket, for the stream. May be NULL. */
    void (*on_sent)(void *user, const uint8_t *data, size_t len);
    /* @len bytes wait for the socket, @offset of those for it came before them: how many of them may go now? May be
     * NULL: all. Offered again, from the first undelivered byte, after relay_kick(). */
    size_t (*may_deliver)(void *user, uint64_t offset, const uint8_t *data, size_t len);
    /* The stream ended and its last byte was written to the socket. NULL: nobody counts on it, and what comes after
     * the socket's other end has closed is dropped. */
    void (*on_delivered)(void *user);
    /* Socket or stream broke. Called once; the relay does nothing any more. */
    void (*on_failed)(void *user, const struct error *err);
};

/* The stream becomes the relay's. */
int relay_new(struct stream *stream, const struct relay_ops *ops, void *user, struct relay **ret);
/* Before it starts to work: what is read from the socket is encoded, or what comes from the stream is
 * decoded, by the pipe's kind. The pipe becomes the relay's. */
void relay_set_pipe(struct relay *r, enum ram_pipe_kind kind, struct ram_pipe *pipe);
/* Starts to work: the socket's fd becomes the relay's. */
int relay_attach(struct relay *r, uv_loop_t *loop, int fd);
/* The same, to a listening path. */
int relay_connect(struct relay *r, uv_loop_t *loop, const char *path);
/* Offers held-back bytes to may_deliver() again. */
void relay_kick(struct relay *r);
/* From the socket no more than @bytes are read, until it is said again; UINT64_MAX: any. */
void relay_set_allowance(struct relay *r, uint64_t bytes);
/* While paused nothing is read from the socket: QEMU waits. */
void relay_set_paused(struct relay *r, bool paused);
/* The stream goes, the socket stays open and is not read any more: its owner has something to do before the other end
 * may see it close. NULL is allowed. */
void relay_detach(struct relay *r);
/* From now on the stream does not count any more, and what comes from the socket is thrown away after on_sent(), so that
 * its other end never waits. For good. */
void relay_discard(struct relay *r);
/* After relay_discard(): the last bytes that its other end gets. Bytes taken, or a negative errno. */
ssize_t relay_say_last(struct relay *r, const uint8_t *data, size_t len);
/* Its other end has closed it. */
bool relay_is_at_end(const struct relay *r);
/* Closes both ends (the stream is reset unless it is over). NULL is allowed. */
void relay_free(struct relay *r);

/* Read from the socket, and what became of them in the stream. */
uint64_t relay_read_bytes(const struct relay *r);
uint64_t relay_sent_bytes(const struct relay *r);
/* Taken from the stream, and what became of them in the socket. */
uint64_t relay_received_bytes(const struct relay *r);
uint64_t relay_delivered_bytes(const struct relay *r);
/* The one that was set, still the relay's; NULL: none. */
struct ram_pipe *relay_pipe(const struct relay *r);
/* Encoded output stands there because the stream takes no more. */
bool relay_waits_for_link(const struct relay *r);

#endif
