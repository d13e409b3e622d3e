/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP client for small JSON documents: libcurl's multi-socket interface on the libuv loop.
 *
 * Thread: the loop thread. A request's callback runs once, never from inside http_post(), and not at all after
 * http_cancel(). Proxies of the environment are not used, redirections not followed.
 */
#ifndef FERRY_CORE_HTTP_H
#define FERRY_CORE_HTTP_H

#include <uv.h>

#include "core/base/error.h"

struct http;
struct http_request;

/* Paths of PEM files, or empty. They must outlive the client. */
struct http_tls {
    const char *ca, *certificate, *key;
};

/* @err: code 0, or why there is no answer (-ETIMEDOUT, -ECONNREFUSED, -EIO). @body: valid during the call. */
typedef void (*http_done)(void *user, const struct error *err, long status, const char *body);

int http_new(uv_loop_t *loop, struct http_tls tls, struct http **ret);
/* Cancels what is under way; the loop must run on until its handles are closed. */
void http_free(struct http *h);

/* POSTs @body (copied) as JSON. */
int http_post(struct http *h, const char *url, const char *body, unsigned timeout_ms,
              http_done done, void *user, struct http_request **ret);
/* NULL is fine. */
void http_cancel(struct http_request *r);

#endif
