/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small HTTP server in the loop, by libmicrohttpd without threads: its epoll descriptor is watched by the loop, and
 * MHD_run() is called when it has something. The control API (api.h) and the status page (status_page.h) answer
 * through it. Loop thread.
 */
#ifndef FERRY_CORE_HTTP_SERVER_H
#define FERRY_CORE_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "core/base/error.h"

struct http_server;

struct http_request {
    const char *method, *url; /* the path, unescaped, without a query */
    const char *host;         /* the Host header; NULL: none */
    const char *body;
    size_t body_bytes;
    bool too_large; /* its body was, and is not all there */
};

struct http_answer {
    unsigned status;
    const char *type;   /* static */
    char *text;         /* malloc'ed, the server frees it; NULL: no memory, the connection ends */
    const char *policy; /* Content-Security-Policy; static, NULL: none */
};

typedef void (*http_answer_fn)(void *user, const struct http_request *rq, struct http_answer *out);

/* Serves on @listen_fd, which it owns from then on, also on failure. */
int http_server_new(uv_loop_t *loop, int listen_fd, http_answer_fn answer, void *user,
                    struct http_server **ret, struct error *err);
/* Closes everything; the memory goes when the loop has closed its handles. NULL is allowed. */
void http_server_stop(struct http_server *s);

#endif
