/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API's server: see api.h. libmicrohttpd runs without threads: its epoll descriptor is
 * watched by the loop, and MHD_run() is called when it has something.
 */
#include "core/api.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <microhttpd.h>

#include "core/api_handlers.h"
#include "core/base/buffer.h"
#include "core/base/limits.h"
#include "core/base/macros.h"
#include "core/local_socket.h"

struct api {
    struct service *service;
    struct MHD_Daemon *daemon;
    int listen_fd;
    char path[PATH_MAX + 16];
    uv_poll_t poll;
    uv_timer_t timeout;
};

enum { API_CONNECTIONS_MAX = 32, API_TIMEOUT_S = 30 };

/* One request's body, collected over several calls of on_request(). */
struct request {
    struct buffer body;
    bool too_large;
};

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *type,
                             char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    enum MHD_Result r;

    if (!response) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    r = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return r;
}

static enum MHD_Result answer(struct api *a, struct MHD_Connection *connection, const char *method,
                              const char *url, struct request *rq)
{
    struct api_answer out = {.status = 200};
    json_t *body = NULL;
    char *text;

    if (strcmp(url, "/metrics") == 0 && strcmp(method, "GET") == 0) {
        text = api_metrics(a->service);
        return text ? reply(connection, 200, "text/plain; version=0.0.4", text) : MHD_NO;
    }
    if (buffer_len(&rq->body) > 0)
        body = json_loadb((const char *)buffer_data(&rq->body), buffer_len(&rq->body),
                          JSON_REJECT_DUPLICATES, NULL);
    if (rq->too_large)
        api_answer_error(&out, 413, -E2BIG, "read the request", "it is larger than this API takes");
    else if (strcmp(method, "POST") == 0 && buffer_len(&rq->body) > 0 && !json_is_object(body))
        api_answer_error(&out, 400, -EINVAL, "read the request", "its body is not a JSON object");
    else
        api_handle(a->service, method, url, body, &out);
    json_decref(body);
    text = json_dumps(out.body, JSON_COMPACT);
    json_decref(out.body);
    return text ? reply(connection, out.status, "application/json", text) : MHD_NO;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload_data,
                                  size_t *upload_data_size, void **request_cls)
{
    struct request *rq = *request_cls;

    (void)version;
    if (!rq) {
        rq = calloc(1, sizeof(*rq));
        *request_cls = rq;
        return rq ? MHD_YES : MHD_NO;
    }
    if (*upload_data_size > 0) {
        if (buffer_len(&rq->body) + *upload_data_size > LIMIT_API_BODY_BYTES ||
            buffer_append(&rq->body, upload_data, *upload_data_size) < 0)
            rq->too_large = true;
        *upload_data_size = 0;
        return MHD_YES;
    }
    return answer(cls, connection, method, url, rq);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **request_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct request *rq = *request_cls;

    (void)cls;
    (void)connection;
    (void)code;
    if (rq)
        buffer_done(&rq->body);
    free(rq);
    *request_cls = NULL;
}

static void run(struct api *a)
{
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;

    MHD_run(a->daemon);
    if (MHD_get_timeout(a->daemon, &wait_ms) == MHD_YES)
        uv_timer_start(&a->timeout, a->timeout.timer_cb, MIN(wait_ms, 1000u), 0);
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

int api_new(struct service *s, struct api **ret, struct error *err)
{
    const union MHD_DaemonInfo *info;
    struct api *a = calloc(1, sizeof(*a));

    if (!a)
        return error_set(err, -ENOMEM, "start the control API", NULL, "out of memory");
    a->service = s;
    snprintf(a->path, sizeof(a->path), "%s/ferry.sock", s->config->run_dir);
    a->listen_fd = local_listen_fd(a->path, 0, 0, 0660, err);
    if (a->listen_fd < 0) {
        int r = a->listen_fd;

        free(a);
        return r;
    }
    a->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, a, MHD_OPTION_LISTEN_SOCKET, a->listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)API_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)API_TIMEOUT_S, MHD_OPTION_NOTIFY_COMPLETED, on_completed, a, MHD_OPTION_END);
    info = a->daemon ? MHD_get_daemon_info(a->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || info->epoll_fd < 0) {
        close(a->listen_fd);
        free(a);
        return error_set(err, -EIO, "start the control API", NULL, "libmicrohttpd did not start");
    }
    uv_poll_init(s->loop, &a->poll, info->epoll_fd);
    uv_timer_init(s->loop, &a->timeout);
    a->poll.data = a->timeout.data = a;
    uv_timer_start(&a->timeout, on_timeout, 0, 0);
    uv_poll_start(&a->poll, UV_READABLE, on_poll);
    *ret = a;
    return 0;
}

void api_stop(struct api *a)
{
    if (!a)
        return;
    uv_poll_stop(&a->poll);
    uv_close((uv_handle_t *)&a->poll, NULL);
    uv_close((uv_handle_t *)&a->timeout, NULL);
    MHD_stop_daemon(a->daemon); /* closes listen_fd */
    unlink(a->path);
}

void api_free(struct api *a)
{
    free(a);
}
