/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP client: see http.h.
 *
 * libcurl says which sockets it wants watched and when it wants to be called; both become libuv handles. What
 * has ended is collected after each call into libcurl, never from inside its callbacks, so that a request's
 * callback may start or cancel others.
 */
#include "core/switchover/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/base/limits.h"
#include "core/base/macros.h"

struct http_request {
    TAILQ_ENTRY(http_request) entry;
    struct http *http;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    size_t body_bytes;
    http_done done;
    void *user;
};

struct http {
    uv_loop_t *loop;
    CURLM *multi;
    struct http_tls tls;
    uv_timer_t timer;
    TAILQ_HEAD(, http_request) requests;
    unsigned handles; /* not closed yet; freed with the last */
};

struct watch {
    uv_poll_t poll;
    struct http *http;
    curl_socket_t socket;
};

static void handle_closed(struct http *h)
{
    if (--h->handles == 0)
        free(h);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;

    handle_closed(w->http);
    free(w);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

/* --- the end of a request ------------------------------------------------------------------ */

static void request_free(struct http_request *r)
{
    TAILQ_REMOVE(&r->http->requests, r, entry);
    curl_multi_remove_handle(r->http->multi, r->easy);
    curl_easy_cleanup(r->easy);
    curl_slist_free_all(r->headers);
    free(r->body);
    free(r);
}

void http_cancel(struct http_request *r)
{
    if (r)
        request_free(r);
}

static void explain(CURLcode code, const char *url, struct error *ret)
{
    int reason = code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT
                 : code == CURLE_COULDNT_CONNECT  ? -ECONNREFUSED
                                                  : -EIO;

    error_set(ret, reason, "ask over HTTP", NULL, "%s: %s", url, curl_easy_strerror(code));
}

static void collect(struct http *h)
{
    struct CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(h->multi, &left))) {
        struct http_request *r = NULL;
        struct error err = {0};
        const char *url = "";
        CURLcode code = msg->data.result;
        long status = 0;
        http_done done;
        void *user;
        char *body;

        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&r);
        curl_easy_getinfo(msg->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(msg->easy_handle, CURLINFO_EFFECTIVE_URL, &url);
        if (code != CURLE_OK)
            explain(code, url, &err);
        done = r->done;
        user = r->user;
        body = TAKE_PTR(r->body);
        request_free(r);
        done(user, &err, status, body ? body : "");
        free(body);
    }
}

/* --- libcurl's wishes ---------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer)
{
    struct http *h = timer->data;
    int running;

    curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(h);
}

static int on_timer_wish(CURLM *multi, long timeout_ms, void *user)
{
    struct http *h = user;

    (void)multi;
    if (timeout_ms < 0)
        uv_timer_stop(&h->timer);
    else /* at once means: soon, not from in here */
        uv_timer_start(&h->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    struct http *h = w->http;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;

    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(h->multi, w->socket, flags, &running);
    collect(h);
}

static struct watch *watch_new(struct http *h, curl_socket_t s)
{
    struct watch *w = calloc(1, sizeof(*w));

    if (!w || uv_poll_init_socket(h->loop, &w->poll, s) < 0) {
        free(w);
        return NULL;
    }
    w->http = h;
    w->socket = s;
    w->poll.data = w;
    h->handles++;
    curl_multi_assign(h->multi, s, w);
    return w;
}

static int on_socket_wish(CURL *easy, curl_socket_t s, int what, void *user, void *of_socket)
{
    struct http *h = user;
    struct watch *w = of_socket;
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w) {
            uv_poll_stop(&w->poll);
            uv_close((uv_handle_t *)&w->poll, on_watch_closed);
            curl_multi_assign(h->multi, s, NULL);
        }
        return 0;
    }
    if (!w)
        w = watch_new(h, s);
    return w && uv_poll_start(&w->poll, events, on_socket) == 0 ? 0 : -1;
}

static size_t on_body(char *data, size_t size, size_t count, void *user)
{
    struct http_request *r = user;
    size_t bytes = size * count;
    char *grown;

    if (bytes > LIMIT_WITNESS_ANSWER_BYTES - r->body_bytes ||
        !(grown = realloc(r->body, r->body_bytes + bytes + 1)))
        return 0; /* ends the request */
    memcpy(grown + r->body_bytes, data, bytes);
    r->body = grown;
    r->body_bytes += bytes;
    r->body[r->body_bytes] = '\0';
    return bytes;
}

/* --- requests ------------------------------------------------------------------------------ */

static void set_tls(CURL *easy, const struct http_tls *tls)
{
    if (tls->ca && tls->ca[0])
        curl_easy_setopt(easy, CURLOPT_CAINFO, tls->ca);
    if (tls->certificate && tls->certificate[0])
        curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->certificate);
    if (tls->key && tls->key[0])
        curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->key);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
}

int http_post(struct http *h, const char *url, const char *body, unsigned timeout_ms,
              http_done done, void *user, struct http_request **ret)
{
    struct http_request *r = calloc(1, sizeof(*r));

    if (!r || !(r->easy = curl_easy_init()) ||
        !(r->headers = curl_slist_append(NULL, "Content-Type: application/json"))) {
        if (r && r->easy)
            curl_easy_cleanup(r->easy);
        free(r);
        return -ENOMEM;
    }
    r->http = h;
    r->done = done;
    r->user = user;
    curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
    curl_easy_setopt(r->easy, CURLOPT_URL, url);
    curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(r->easy, CURLOPT_COPYPOSTFIELDS, body);
    curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(r->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(r->easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(r->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    set_tls(r->easy, &h->tls);
    TAILQ_INSERT_TAIL(&h->requests, r, entry);
    if (curl_multi_add_handle(h->multi, r->easy) != CURLM_OK) {
        request_free(r);
        return -ENOMEM;
    }
    *ret = r;
    return 0;
}

int http_new(uv_loop_t *loop, struct http_tls tls, struct http **ret)
{
    struct http *h = calloc(1, sizeof(*h));

    if (!h || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
        !(h->multi = curl_multi_init())) {
        free(h);
        return -ENOMEM;
    }
    h->loop = loop;
    h->tls = tls;
    TAILQ_INIT(&h->requests);
    uv_timer_init(loop, &h->timer);
    h->timer.data = h;
    h->handles = 1;
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket_wish);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timer_wish);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    *ret = h;
    return 0;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    while (!TAILQ_EMPTY(&h->requests))
        request_free(TAILQ_FIRST(&h->requests));
    curl_multi_cleanup(h->multi);
    uv_close((uv_handle_t *)&h->timer, on_timer_closed);
}
