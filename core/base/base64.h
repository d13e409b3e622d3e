/* SPDX-License-Identifier: Apache-2.0 */
/* Short binary in JSON's strings. */
#ifndef FERRY_CORE_BASE_BASE64_H
#define FERRY_CORE_BASE_BASE64_H

#include <stddef.h>
#include <sys/types.h>

enum { BASE64_DATA_MAX = 512 };

/* Of so many bytes, with the end of the string. */
#define BASE64_TEXT_BYTES(len) (((len) + 2) / 3 * 4 + 1)

/* @text has room for BASE64_TEXT_BYTES(@len); at most BASE64_DATA_MAX bytes. */
void base64_encode(char *text, const void *data, size_t len);
/* Bytes; -EPROTO: @text is no base64, or holds more than @cap bytes or BASE64_DATA_MAX. */
ssize_t base64_decode(const char *text, size_t text_len, void *data, size_t cap);

#endif
