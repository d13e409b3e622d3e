/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the NBD server engine, shared by its three files: nbd_server.c (the object, its input
 * and its completions), nbd_handshake.c (until an export is chosen), nbd_transmission.c (after).
 */
#ifndef FERRY_STORAGE_NBD_SERVER_PRIVATE_H
#define FERRY_STORAGE_NBD_SERVER_PRIVATE_H

#include "storage/limits.h"
#include "storage/nbd_server.h"

enum nbd_server_state {
    NBD_SERVER_CLIENT_FLAGS, /* the greeting is out, the client's flags are awaited */
    NBD_SERVER_OPTIONS,
    NBD_SERVER_REQUESTS, /* a request header is next */
    NBD_SERVER_PAYLOAD,  /* the payload of `current` is being received */
    NBD_SERVER_DISCARD,  /* the payload of a refused write is being thrown away */
    NBD_SERVER_CLOSED,
};

/* A request the owner has and has not completed. */
struct nbd_pending {
    uint64_t cookie; /* ours; 0 = slot is free */
    uint64_t client_cookie;
    uint64_t offset;
    uint32_t length;
    enum nbd_command command;
};

struct nbd_server {
    const struct nbd_server_ops *ops;
    void *owner;
    enum nbd_server_state state;
    struct error error;
    struct buffer output;

    /* Input: `in` is what a piece left over, `fed` the rest of the piece being fed; in this order. */
    struct buffer in;
    const uint8_t *fed;
    size_t fed_len;
    bool running; /* the parse loop is on the stack: completions must not start another */
    bool refused; /* admit() said no; wait for resume */

    /* handshake */
    unsigned options;
    bool no_zeroes;
    bool structured;
    bool meta_allocation; /* base:allocation was set, for the export meta_name */
    char meta_name[LIMIT_EXPORT_NAME_BYTES + 1];

    /* transmission */
    uint64_t size_bytes;
    uint64_t next_serial;
    struct nbd_pending pending[LIMIT_NBD_REQUESTS_IN_FLIGHT];
    unsigned in_flight;
    struct nbd_request current; /* being received; its payload is owned */
    uint32_t payload_fill;
    struct nbd_pending
        refusal; /* the write whose payload is discarded, its discard_left and its answer */
    uint32_t discard_left;
    uint32_t refusal_error;
};

/* nbd_server.c */
/* The next @need bytes in one piece, or NULL until that many were fed. */
const uint8_t *nbd_server_peek(struct nbd_server *s, size_t need);
/* Drops @len bytes that were just peeked. */
void nbd_server_skip(struct nbd_server *s, size_t len);
/* Up to @len bytes, whatever is there, to @to (NULL: thrown away). Returns how many. */
size_t nbd_server_take(struct nbd_server *s, uint8_t *to, size_t len);
void nbd_server_fail(struct nbd_server *s, int code, const char *why);
void nbd_server_put(struct nbd_server *s, const void *data, size_t len);

/* nbd_handshake.c: one step; false when more input is needed. */
void nbd_handshake_greet(struct nbd_server *s);
bool nbd_handshake_step(struct nbd_server *s);

/* nbd_transmission.c */
uint16_t nbd_transmission_flags(const struct nbd_server *s);
bool nbd_transmission_step(struct nbd_server *s);
void nbd_transmission_reply(struct nbd_server *s, const struct nbd_pending *p, uint32_t nbd_error,
                            const void *data, size_t len);
uint32_t nbd_transmission_error(int err);

#endif
