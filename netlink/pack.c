/* SPDX-License-Identifier: Apache-2.0 */
#include "netlink/pack.h"

#include <errno.h>
#include <stdlib.h>

#include <zstd.h>

#include "core/base/limits.h"

/* A frame's payload is at most 64 KiB: a window of that size reaches all of it, and a frame that asks for a
 * larger one is refused before anything is allocated. */
enum { WINDOW_LOG = 16 };

struct pack_writer {
    ZSTD_CCtx *zstd;
};

struct pack_reader {
    ZSTD_DCtx *zstd;
};

struct pack_writer *pack_writer_new(void)
{
    struct pack_writer *w = calloc(1, sizeof(*w));

    if (w)
        w->zstd = ZSTD_createCCtx();
    if (!w || !w->zstd) {
        free(w);
        return NULL;
    }
    ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_windowLog, WINDOW_LOG);
    ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_contentSizeFlag, 1);
    return w;
}

void pack_writer_free(struct pack_writer *w)
{
    if (!w)
        return;
    ZSTD_freeCCtx(w->zstd);
    free(w);
}

size_t pack_write(struct pack_writer *w, int level, const void *data, size_t len, void *out,
                  size_t cap)
{
    size_t n;

    if (len < 64)
        return 0;
    ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, level);
    /* Less room than the plain frame takes: a frame that does not shrink ends early. */
    n = ZSTD_compress2(w->zstd, out, cap < len - len / 16 ? cap : len - len / 16, data, len);
    return ZSTD_isError(n) ? 0 : n;
}

struct pack_reader *pack_reader_new(void)
{
    struct pack_reader *r = calloc(1, sizeof(*r));

    if (r)
        r->zstd = ZSTD_createDCtx();
    if (!r || !r->zstd) {
        free(r);
        return NULL;
    }
    ZSTD_DCtx_setParameter(r->zstd, ZSTD_d_windowLogMax, WINDOW_LOG);
    return r;
}

void pack_reader_free(struct pack_reader *r)
{
    if (!r)
        return;
    ZSTD_freeDCtx(r->zstd);
    free(r);
}

int pack_read(struct pack_reader *r, const void *packed, size_t len, void *out, size_t raw_len)
{
    size_t n;

    if (raw_len > LIMIT_FRAME_PAYLOAD_BYTES || ZSTD_getFrameContentSize(packed, len) != raw_len ||
        ZSTD_findFrameCompressedSize(packed, len) != len)
        return -EPROTO;
    n = ZSTD_decompressDCtx(r->zstd, out, raw_len, packed, len);
    return n == raw_len ? 0 : -EPROTO;
}
