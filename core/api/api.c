/* SPDX-License-Identifier: Apache-2.0 */
/* The control API on its UNIX socket: see api.h. */
#include "core/api/api.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/api/api_handlers.h"
#include "core/api/http_server.h"
#include "core/move/local_socket.h"
#include "core/api/metrics.h"

struct api {
    struct service *service;
    struct http_server *server;
    char path[PATH_MAX + 16];
};

static void on_request(void *user, const struct http_request *rq, struct http_answer *out)
{
    struct api *a = user;
    struct api_answer answer = {.status = 200};
    json_t *body = NULL;

    if (strcmp(rq->url, "/metrics") == 0 && strcmp(rq->method, "GET") == 0) {
        out->type = METRICS_TYPE;
        out->text = metrics_text(a->service);
        return;
    }
    if (rq->body_bytes > 0)
        body = json_loadb(rq->body, rq->body_bytes, JSON_REJECT_DUPLICATES, NULL);
    if (rq->too_large)
        api_answer_error(&answer, 413, -E2BIG, "read the request",
                         "it is larger than this API takes");
    else if (strcmp(rq->method, "POST") == 0 && rq->body_bytes > 0 && !json_is_object(body))
        api_answer_error(&answer, 400, -EINVAL, "read the request",
                         "its body is not a JSON object");
    else
        api_handle(a->service, rq->method, rq->url, body, &answer);
    json_decref(body);
    out->status = answer.status;
    out->text = json_dumps(answer.body, JSON_COMPACT);
    json_decref(answer.body);
}

int api_new(struct service *s, struct api **ret, struct error *err)
{
    struct api *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return error_set(err, -ENOMEM, "start the control API", NULL, "out of memory");
    a->service = s;
    snprintf(a->path, sizeof(a->path), "%s/ferry.sock", s->config->run_dir);
    r = local_listen_fd(a->path, 0, 0, 0660, err);
    if (r >= 0)
        r = http_server_new(s->loop, r, on_request, a, &a->server, err);
    if (r < 0) {
        free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void api_stop(struct api *a)
{
    if (!a)
        return;
    http_server_stop(a->server);
    unlink(a->path);
}

void api_free(struct api *a)
{
    free(a);
}
