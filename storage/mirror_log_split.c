/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zeroes within a write: QEMU copies in requests of up to 1 MiB that may be mostly holes. Runs of zeroes of at
 * least 64 KiB become entries of their own, so that they cost nothing on the way and stay holes at the
 * target. The request is answered with its last part.
 */
#include <errno.h>
#include <string.h>

#include "storage/mirror_log_private.h"

enum { CHUNK_BYTES = 64 * 1024 };

/* The length of the run of chunks from @at on that are all zero, or all not. */
static uint32_t run_length(const struct mirror_log_request *r, uint32_t at, bool *ret_zero)
{
    uint32_t end = at;
    bool zero = false;

    while (end < r->length) {
        uint32_t len = MIN(r->length - end, (uint32_t)CHUNK_BYTES);
        bool chunk_zero = len == CHUNK_BYTES && mirror_log_is_zero(r->payload + end, len);

        if (end > at && chunk_zero != zero)
            break;
        zero = chunk_zero;
        end += len;
    }
    *ret_zero = zero;
    return end - at;
}

static int append_part(struct mirror_log *log, const struct mirror_log_request *whole, uint32_t at,
                       uint32_t length, bool zero, uint64_t now_ns)
{
    struct mirror_log_request part = *whole;
    int err;

    part.offset += at;
    part.length = length;
    part.payload = zero ? NULL : malloc(length);
    if (!zero && !part.payload)
        return -ENOMEM;
    if (zero) {
        part.kind = MIRROR_LOG_ZERO;
        part.may_trim = true;
    } else {
        memcpy(part.payload, whole->payload + at, length);
    }
    err = mirror_log_append_entry(log, &part, now_ns, NULL);
    if (err < 0)
        free(part.payload);
    return err;
}

int mirror_log_append(struct mirror_log *log, struct mirror_log_request *request, uint64_t now_ns,
                      enum mirror_log_answer *ret_answer)
{
    uint32_t at = 0, length;
    bool zero;
    int err;

    if (request->kind != MIRROR_LOG_WRITE || request->length < 2 * CHUNK_BYTES)
        return mirror_log_append_entry(log, request, now_ns, ret_answer);
    while ((length = run_length(request, at, &zero)) < request->length - at) {
        err = append_part(log, request, at, length, zero, now_ns);
        if (err < 0)
            return err;
        at += length;
    }
    /* The last part, or the whole: in the request's own memory. */
    if (at > 0) {
        memmove(request->payload, request->payload + at, length);
        request->offset += at;
        request->length = length;
    }
    return mirror_log_append_entry(log, request, now_ns, ret_answer);
}
