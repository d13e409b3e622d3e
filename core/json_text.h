/* SPDX-License-Identifier: Apache-2.0 */
/* Text members of JSON that a peer, a record or an operator wrote: what ends up in logs, terminals and libvirt has no
 * control characters. */
#ifndef FERRY_CORE_JSON_TEXT_H
#define FERRY_CORE_JSON_TEXT_H

#include <stddef.h>

#include <jansson.h>

enum json_text {
    JSON_TEXT_LINE = 0,
    JSON_TEXT_LINES = 1 << 0,    /* newlines and tabs may be in it */
    JSON_TEXT_OPTIONAL = 1 << 1, /* it may be empty, but not missing */
};

/* What must be right to be used: -EPROTO when it is missing, empty, too long for @cap, or has what it may not. */
int json_text_take(const json_t *object, const char *key, unsigned kind, char *to, size_t cap);
/* What is only shown: cut to fit, with '?' for what it may not have. @to stays as it is when there is none. */
void json_text_show(const json_t *object, const char *key, unsigned kind, char *to, size_t cap);

#endif
