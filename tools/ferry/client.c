/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP over ferryd's UNIX socket: see client.h. */
#include "tools/ferry/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "core/base/buffer.h"

enum { ANSWER_MAX_BYTES = 16 * 1024 * 1024, TIMEOUT_S = 30 };

struct client {
    CURL *curl;
    char socket_path[108];
    struct buffer answer;
};

static size_t on_data(char *data, size_t size, size_t count, void *user)
{
    struct client *c = user;

    (void)size; /* always 1 */
    if (buffer_len(&c->answer) + count > ANSWER_MAX_BYTES ||
        buffer_append(&c->answer, data, count) < 0)
        return 0;
    return count;
}

int client_new(const char *socket_path, struct client **ret)
{
    struct client *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->curl = curl_easy_init();
    if (!c->curl || strlen(socket_path) >= sizeof(c->socket_path)) {
        client_free(c);
        return -EINVAL;
    }
    snprintf(c->socket_path, sizeof(c->socket_path), "%s", socket_path);
    *ret = c;
    return 0;
}

void client_free(struct client *c)
{
    if (!c)
        return;
    if (c->curl)
        curl_easy_cleanup(c->curl);
    buffer_done(&c->answer);
    free(c);
}

static int connection_fault(struct client *c, CURLcode code, struct error *err)
{
    if (access(c->socket_path, F_OK) == 0 && access(c->socket_path, W_OK) < 0)
        return error_set(err, -EACCES, "talk to ferryd",
                         "run as root, or join the group that owns the socket", "%s: %s",
                         c->socket_path, strerror(EACCES));
    return error_set(err, -ENOTCONN, "talk to ferryd",
                     "is it running? see its log: journalctl -u ferryd", "%s: %s", c->socket_path,
                     curl_easy_strerror(code));
}

static void take_error(const json_t *answer, long status, struct error *err)
{
    const json_t *e = json_object_get(answer, "error");
    const char *what = json_string_value(json_object_get(e, "what"));
    const char *why = json_string_value(json_object_get(e, "why"));
    const char *mend = json_string_value(json_object_get(e, "mend"));

    if (why)
        error_set(err, (int)json_integer_value(json_object_get(e, "code")),
                  what ? what : "talk to ferryd", mend, "%s", why);
    else
        error_set(err, -EPROTO, "talk to ferryd", NULL, "it answers with status %ld", status);
}

int client_call(struct client *c, const char *path, bool post, json_t *body, json_t **ret,
                struct error *err)
{
    char url[512];
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_t *answer;
    long status = 0;
    CURLcode code;

    json_decref(body);
    snprintf(url, sizeof(url), "http://ferryd%s", path);
    buffer_clear(&c->answer);
    curl_easy_reset(c->curl);
    curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->socket_path);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    if (post)
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, text ? text : "");
    code = curl_easy_perform(c->curl);
    free(text);
    if (code != CURLE_OK)
        return connection_fault(c, code, err);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    answer = json_loadb((const char *)buffer_data(&c->answer), buffer_len(&c->answer), 0, NULL);
    if (!answer)
        return error_set(err, -EPROTO, "talk to ferryd", NULL, "its answer is not JSON");
    if (status >= 400) {
        take_error(answer, status, err);
        json_decref(answer);
        return err->code;
    }
    *ret = answer;
    return 0;
}
