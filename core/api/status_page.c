/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/status_page.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/api/api_handlers.h"
#include "core/base/macros.h"
#include "core/api/http_server.h"
#include "core/api/metrics.h"
#include "core/api/status_page_html.h" /* made from status_page.html */

struct status_page {
    struct service *service;
    struct http_server *server;
};

/* What the page may do in a browser: run what is in it, and ask where it came from. */
static const char POLICY[] =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

static bool is_loopback_host(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};

    for (size_t i = 0; host && i < ARRAY_SIZE(names); i++) {
        size_t len = strlen(names[i]);

        if (strncmp(host, names[i], len) == 0 && (!host[len] || host[len] == ':'))
            return true;
    }
    return false;
}

static void refuse(struct http_answer *out, unsigned status, const char *why)
{
    out->status = status;
    out->type = "text/plain; charset=utf-8";
    out->text = strdup(why);
}

static void on_request(void *user, const struct http_request *rq, struct http_answer *out)
{
    struct status_page *p = user;
    struct api_answer answer = {.status = 200};

    if (!is_loopback_host(rq->host)) {
        refuse(out, 403, "this page is for loopback addresses\n");
    } else if (strcmp(rq->method, "GET") != 0) {
        refuse(out, 405, "this page only shows\n");
    } else if (strcmp(rq->url, "/") == 0) {
        out->type = "text/html; charset=utf-8";
        out->policy = POLICY;
        out->text = strdup((const char *)status_page_html);
    } else if (strcmp(rq->url, "/metrics") == 0) {
        out->type = METRICS_TYPE;
        out->text = metrics_text(p->service);
    } else if (strcmp(rq->url, "/v1/moves") == 0) {
        api_handle(p->service, rq->method, rq->url, NULL, &answer);
        out->status = answer.status;
        out->text = json_dumps(answer.body, JSON_COMPACT);
        json_decref(answer.body);
    } else {
        refuse(out, 404, "there is nothing at that address\n");
    }
}

int status_page_parse_address(const char *text, struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    const char *port = strrchr(text, ':');
    char *end = NULL;
    unsigned long number = port ? strtoul(port + 1, &end, 10) : 0;

    *ret = (struct sockaddr_storage){0};
    if (number == 0 || number > UINT16_MAX || *end)
        return -EINVAL;
    if (strncmp(text, "127.0.0.1:", 10) == 0 && port == text + 9) {
        v4->sin_family = AF_INET;
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        v4->sin_port = htons((uint16_t)number);
        return 0;
    }
    if (strncmp(text, "[::1]:", 6) == 0 && port == text + 5) {
        v6->sin6_family = AF_INET6;
        v6->sin6_addr = in6addr_loopback;
        v6->sin6_port = htons((uint16_t)number);
        return 0;
    }
    return -EINVAL;
}

static int listen_at(const char *address, struct error *err)
{
    struct sockaddr_storage at;
    int fd, one = 1, r = status_page_parse_address(address, &at);

    if (r < 0)
        return error_set(err, r, "serve the status page", "127.0.0.1:PORT or [::1]:PORT",
                         "'%s' is no loopback address", address);
    fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 16) < 0) {
        r = error_set(err, -errno, "serve the status page", "choose another port in [site]",
                      "%s: %s", address, strerror(errno));
        if (fd >= 0)
            close(fd);
        return r;
    }
    return fd;
}

int status_page_new(struct service *s, const char *address, struct status_page **ret,
                    struct error *err)
{
    struct status_page *p = calloc(1, sizeof(*p));
    int r = p ? listen_at(address, err)
              : error_set(err, -ENOMEM, "serve the status page", NULL, "out of memory");

    if (r >= 0) {
        p->service = s;
        r = http_server_new(s->loop, r, on_request, p, &p->server, err);
    }
    if (r < 0) {
        free(p);
        return r;
    }
    *ret = p;
    return 0;
}

void status_page_stop(struct status_page *p)
{
    if (!p)
        return;
    http_server_stop(p->server);
    free(p);
}
