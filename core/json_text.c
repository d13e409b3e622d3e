/* SPDX-License-Identifier: Apache-2.0 */
#include "core/json_text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool is_fit(char c, unsigned kind)
{
    if ((kind & JSON_TEXT_LINES) && (c == '\n' || c == '\t'))
        return true;
    return (unsigned char)c >= 0x20 && c != 0x7f;
}

int json_text_take(const json_t *object, const char *key, unsigned kind, char *to, size_t cap)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (!text || strlen(text) >= cap || (!text[0] && !(kind & JSON_TEXT_OPTIONAL)))
        return -EPROTO;
    for (const char *p = text; *p; p++) {
        if (!is_fit(*p, kind))
            return -EPROTO;
    }
    memcpy(to, text, strlen(text) + 1);
    return 0;
}

void json_text_show(const json_t *object, const char *key, unsigned kind, char *to, size_t cap)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (!text)
        return;
    snprintf(to, cap, "%s", text);
    for (char *p = to; *p; p++) {
        if (!is_fit(*p, kind))
            *p = '?';
    }
}
