/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/http_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "core/base/buffer.h"
#include "core/base/limits.h"
#include "core/base/macros.h"

struct http_server {
    struct MHD_Daemon *daemon;
    http_answer_fn answer;
    void *user;
    uv_poll_t poll;
    uv_timer_t timeout;
    unsigned handles; /* open in the loop */
};

enum { CONNECTIONS_MAX = 32, TIMEOUT_S = 30 };

static enum MHD_Result reply(struct MHD_Connection *connection, const struct http_answer *out)
{
    struct MHD_Response *response;
    enum MHD_Result r;

    if (!out->text)
        return MHD_NO;
    response = MHD_create_response_from_buffer(strlen(out->text), out->text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(out->text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, out->type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (out->policy)
        MHD_add_response_header(response, "Content-Security-Policy", out->policy);
    r = MHD_queue_response(connection, out->status, response);
    MHD_destroy_response(response);
    return r;
}

/* One request's body, collected over several calls of on_request(). */
struct collected {
    struct buffer body;
    bool too_large;
};

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload_data,
                                  size_t *upload_data_size, void **request_cls)
{
    struct http_server *s = cls;
    struct collected *c = *request_cls;
    struct http_request rq = {.method = method, .url = url};
    struct http_answer out = {.status = 200, .type = "application/json"};

    (void)version;
    if (!c) {
        c = calloc(1, sizeof(*c));
        *request_cls = c;
        return c ? MHD_YES : MHD_NO;
    }
    if (*upload_data_size > 0) {
        if (buffer_len(&c->body) + *upload_data_size > LIMIT_API_BODY_BYTES ||
            buffer_append(&c->body, upload_data, *upload_data_size) < 0)
            c->too_large = true;
        *upload_data_size = 0;
        return MHD_YES;
    }
    rq.host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    rq.body = (const char *)buffer_data(&c->body);
    rq.body_bytes = buffer_len(&c->body);
    rq.too_large = c->too_large;
    s->answer(s->user, &rq, &out);
    return reply(connection, &out);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **request_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct collected *c = *request_cls;

    (void)cls;
    (void)connection;
    (void)code;
    if (c)
        buffer_done(&c->body);
    free(c);
    *request_cls = NULL;
}

static void run(struct http_server *s)
{
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;

    MHD_run(s->daemon);
    if (MHD_get_timeout(s->daemon, &wait_ms) == MHD_YES)
        uv_timer_start(&s->timeout, s->timeout.timer_cb, MIN(wait_ms, 1000u), 0);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

static void on_timeout(uv_timer_t *timer)
{
    run(timer->data);
}

int http_server_new(uv_loop_t *loop, int listen_fd, http_answer_fn answer, void *user,
                    struct http_server **ret, struct error *err)
{
    const union MHD_DaemonInfo *info;
    struct http_server *s = calloc(1, sizeof(*s));

    if (!s) {
        close(listen_fd);
        return error_set(err, -ENOMEM, "serve HTTP", NULL, "out of memory");
    }
    s->answer = answer;
    s->user = user;
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)TIMEOUT_S, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_END);
    info = s->daemon ? MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || info->epoll_fd < 0) {
        if (s->daemon)
            MHD_stop_daemon(s->daemon);
        else
            close(listen_fd);
        free(s);
        return error_set(err, -EIO, "serve HTTP", NULL, "libmicrohttpd did not start");
    }
    uv_poll_init(loop, &s->poll, info->epoll_fd);
    uv_timer_init(loop, &s->timeout);
    s->handles = 2;
    s->poll.data = s->timeout.data = s;
    uv_timer_start(&s->timeout, on_timeout, 0, 0);
    uv_poll_start(&s->poll, UV_READABLE, on_poll);
    *ret = s;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct http_server *s = handle->data;

    if (--s->handles == 0)
        free(s);
}

void http_server_stop(struct http_server *s)
{
    if (!s)
        return;
    uv_poll_stop(&s->poll);
    uv_close((uv_handle_t *)&s->poll, on_closed);
    uv_close((uv_handle_t *)&s->timeout, on_closed);
    MHD_stop_daemon(s->daemon); /* closes the listening socket */
}
