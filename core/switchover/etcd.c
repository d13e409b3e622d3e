/* SPDX-License-Identifier: Apache-2.0 */
/* etcd's transactions in JSON: see etcd.h. The gateway is described in etcd's api_grpc_gateway.md. */
#include "core/switchover/etcd.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "core/base/base64.h"

enum { TEXT_MAX = 128 };

static json_t *base64(const char *text)
{
    char out[BASE64_TEXT_BYTES(TEXT_MAX)];
    size_t len = strlen(text);

    if (len > TEXT_MAX)
        return NULL;
    base64_encode(out, text, len);
    return json_string(out);
}

static int from_base64(const char *text, char value[ETCD_VALUE_BYTES])
{
    ssize_t len = base64_decode(text, strlen(text), value, ETCD_VALUE_BYTES - 1);

    if (len >= 0)
        value[len] = '\0';
    return len < 0 ? (int)len : 0;
}

static json_t *condition(const char *key, const char *before)
{
    if (!before) /* no such key */
        return json_pack("{s:s, s:s, s:o, s:s}", "target", "CREATE", "result", "EQUAL", "key",
                         base64(key), "create_revision", "0");
    return json_pack("{s:s, s:s, s:o, s:o}", "target", "VALUE", "result", "EQUAL", "key",
                     base64(key), "value", base64(before));
}

char *etcd_transaction(const char *key, const char *before, const char *after)
{
    json_t *request, *doc;
    char *text;

    if (after)
        request =
            json_pack("{s:{s:o, s:o}}", "request_put", "key", base64(key), "value", base64(after));
    else
        request = json_pack("{s:{s:o}}", "request_delete_range", "key", base64(key));
    doc = json_pack("{s:[o], s:[{s:{s:o}}]}", "success", request, "failure", "request_range", "key",
                    base64(key));
    if (after)
        json_object_set_new(doc, "compare", json_pack("[o]", condition(key, before)));
    text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(doc);
    return text;
}

int etcd_answer(const char *body, bool *ret_changed, char value[ETCD_VALUE_BYTES],
                struct error *err)
{
    json_t *doc = json_loads(body, 0, NULL);
    const json_t *response =
        json_array_get(json_object_get(doc, "responses"), 0); /* one request each way */
    const json_t *range = json_object_get(response, "response_range");
    const json_t *kv = json_array_get(json_object_get(range, "kvs"), 0);
    const char *text = json_string_value(json_object_get(kv, "value"));
    int r = 0;

    value[0] = '\0';
    if (json_is_true(json_object_get(doc, "succeeded")))
        *ret_changed = true;
    else if (!json_is_object(json_object_get(doc, "header")) || !json_is_object(range))
        r = -EPROTO;
    else
        *ret_changed = false;
    if (r == 0 && !*ret_changed && kv && (!text || from_base64(text, value) < 0))
        r = -EPROTO;
    if (r < 0)
        error_set(err, r, "ask the witness", "is it an etcd 3.4 or newer?",
                  "its answer is not one of etcd's: %.100s", body);
    json_decref(doc);
    return r;
}
