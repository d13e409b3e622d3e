/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/base64.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

void base64_encode(char *text, const void *data, size_t len)
{
    EVP_EncodeBlock((unsigned char *)text, data, (int)len);
}

ssize_t base64_decode(const char *text, size_t text_len, void *data, size_t cap)
{
    unsigned char out[BASE64_DATA_MAX + 2]; /* OpenSSL counts the padding as bytes */
    size_t padding = 0, bytes;

    if (text_len % 4 != 0 || text_len >= BASE64_TEXT_BYTES(BASE64_DATA_MAX))
        return -EPROTO;
    while (padding < 2 && padding < text_len && text[text_len - 1 - padding] == '=')
        padding++;
    if (memchr(text, '=', text_len - padding) ||
        EVP_DecodeBlock(out, (const unsigned char *)text, (int)text_len) < (int)padding)
        return -EPROTO;
    bytes = text_len / 4 * 3 - padding;
    if (bytes > cap)
        return -EPROTO;
    memcpy(data, out, bytes);
    return (ssize_t)bytes;
}
