/* SPDX-License-Identifier: Apache-2.0 */
/* Speeds and bytes of the codec on a recorded stream, beside zstd -1 as a pipe would use it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <zstd.h>

#include "memory/ram_decoder.h"
#include "memory/ram_encoder.h"
#include "tools/ramdump/ramdump.h"

enum { FEED_BYTES = 256 * 1024, DECODE_BYTES = 1 << 20 }; /* what core gives at a time */

struct figures {
    double encode_s, decode_s;
    size_t wire_bytes;
};

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int encode(const uint8_t *data, size_t len, const struct bench_options *o,
                  struct buffer *wire, struct ram_codec_stats *stats, double *ret_s)
{
    struct ram_codec_config config = {.store_bytes = o->store_bytes};
    struct ram_encoder *e = NULL;
    int r = ram_encoder_new(&config, &e);
    double start = cpu_seconds();

    if (r < 0)
        return r;
    ram_encoder_set_level(e, o->level);
    for (size_t n; len > 0 && r == 0; data += n, len -= n) {
        n = MIN(len, (size_t)FEED_BYTES);
        r = ram_encoder_feed(e, data, n, wire);
    }
    if (r == 0)
        r = ram_encoder_finish(e, wire);
    *ret_s = cpu_seconds() - start;
    ram_encoder_get_stats(e, stats);
    ram_encoder_free(e);
    return r;
}

/* Decodes and compares; the comparison's time is taken out of the figure. */
static int decode(const uint8_t *data, size_t len, const struct bench_options *o,
                  const struct buffer *wire, double *ret_s)
{
    struct ram_codec_config config = {.store_bytes = o->store_bytes};
    const uint8_t *at = buffer_data(wire);
    size_t left = buffer_len(wire), done = 0, taken;
    struct ram_decoder *d = NULL;
    struct buffer out = {0};
    double start, compared = 0;
    int r = ram_decoder_new(&config, &d);

    start = cpu_seconds();
    for (; left > 0 && r == 0; at += taken, left -= taken) {
        double compare;
        size_t n;

        r = ram_decoder_feed(d, at, MIN(left, (size_t)DECODE_BYTES), &taken, &out);
        compare = cpu_seconds();
        n = buffer_len(&out);
        if (r == 0 && (n > len - done || memcmp(buffer_data(&out), data + done, n) != 0))
            r = -EILSEQ;
        done += n;
        out.head = out.tail = 0;
        compared += cpu_seconds() - compare;
    }
    *ret_s = cpu_seconds() - start - compared;
    if (r == 0 && done != len)
        r = -EILSEQ;
    buffer_done(&out);
    ram_decoder_free(d);
    return r;
}

static int zstd_pipe(const uint8_t *data, size_t len, struct figures *best)
{
    size_t cap = ZSTD_compressBound(len), out_cap = ZSTD_DStreamOutSize();
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_DCtx *d = ZSTD_createDCtx();
    uint8_t *wire = malloc(cap), *out = malloc(out_cap);
    ZSTD_outBuffer to = {wire, cap, 0};
    size_t left = c && d && wire && out ? 1 : 0;
    double start;
    int r = left ? 0 : -ENOMEM;

    if (left)
        ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, 1);
    start = cpu_seconds();
    for (size_t at = 0, n; at < len && r == 0; at += n) {
        ZSTD_inBuffer from = {data + at, n = MIN(len - at, (size_t)FEED_BYTES), 0};

        while (from.pos < from.size && r == 0)
            r = ZSTD_isError(ZSTD_compressStream2(c, &to, &from, ZSTD_e_continue)) ? -EIO : 0;
    }
    while (r == 0 && left > 0) {
        ZSTD_inBuffer from = {NULL, 0, 0};

        left = ZSTD_compressStream2(c, &to, &from, ZSTD_e_end);
        r = ZSTD_isError(left) ? -EIO : 0;
    }
    best->encode_s = MIN(best->encode_s, cpu_seconds() - start);
    best->wire_bytes = to.pos;
    start = cpu_seconds();
    for (ZSTD_inBuffer from = {wire, to.pos, 0}; r == 0 && from.pos < from.size;) {
        ZSTD_outBuffer back = {out, out_cap, 0};

        r = ZSTD_isError(ZSTD_decompressStream(d, &back, &from)) ? -EIO : 0;
    }
    best->decode_s = MIN(best->decode_s, cpu_seconds() - start);
    ZSTD_freeCCtx(c);
    ZSTD_freeDCtx(d);
    free(wire);
    free(out);
    return r;
}

static void print_figures(const char *name, size_t len, const struct figures *f)
{
    double mib = (double)len / (1 << 20);

    printf("%-8s %8.1f MiB -> %8.2f MiB (%.4f)  encode %6.0f MiB/s  decode %6.0f MiB/s\n", name,
           mib, (double)f->wire_bytes / (1 << 20), (double)f->wire_bytes / (double)len,
           mib / f->encode_s, mib / f->decode_s);
}

static void print_operations(const struct ram_codec_stats *s)
{
    printf("%-10s %10s %12s %12s\n", "operation", "count", "stream", "wire");
    for (unsigned op = 0; op < RAM_OPERATIONS; op++) {
        if (s->operation[op].count > 0)
            printf("%-10s %10lu %12lu %12lu\n", ram_operation_name(op), s->operation[op].count,
                   s->operation[op].stream_bytes, s->operation[op].wire_bytes);
    }
    printf("store: %lu of %lu pages found; %lu chunks\n", s->store_hits, s->store_lookups,
           s->chunks);
}

static void print_json(size_t len, const struct figures *codec, const struct figures *plain,
                       const struct ram_codec_stats *s)
{
    printf("{\"bytes\": %zu, \"codec\": {\"wire_bytes\": %zu, \"encode_s\": %.6f, \"decode_s\": "
           "%.6f}, \"zstd\": {\"wire_bytes\": %zu, \"encode_s\": %.6f, \"decode_s\": %.6f}, "
           "\"operations\": {",
           len, codec->wire_bytes, codec->encode_s, codec->decode_s, plain->wire_bytes,
           plain->encode_s, plain->decode_s);
    for (unsigned op = 0; op < RAM_OPERATIONS; op++)
        printf("%s\"%s\": {\"count\": %lu, \"bytes\": %lu, \"wire_bytes\": %lu}", op ? ", " : "",
               ram_operation_name(op), s->operation[op].count, s->operation[op].stream_bytes,
               s->operation[op].wire_bytes);
    printf("}}\n");
}

int bench_stream(const uint8_t *data, size_t len, const struct bench_options *options)
{
    struct figures codec = {1e9, 1e9, 0}, plain = codec;
    struct ram_codec_stats stats = {0};
    int r = 0;

    /* Page faults are the machine's, and nobody's merit: neither the page stores' nor those of the pipe's buffers. */
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        fprintf(stderr, "ramdump: memory cannot be locked (%s): page faults are counted\n",
                strerror(errno));
    for (unsigned i = 0; i < options->rounds && r == 0; i++) {
        struct buffer wire = {0};
        double encode_s = 0, decode_s = 0;

        if (!buffer_reserve(&wire, len + len / 64 + 65536))
            return -ENOMEM;
        r = encode(data, len, options, &wire, &stats, &encode_s);
        codec.encode_s = MIN(codec.encode_s, encode_s);
        codec.wire_bytes = buffer_len(&wire);
        if (r == 0)
            r = decode(data, len, options, &wire, &decode_s);
        codec.decode_s = MIN(codec.decode_s, decode_s);
        buffer_done(&wire);
        if (r == 0)
            r = zstd_pipe(data, len, &plain);
    }
    if (r < 0)
        return r;
    if (options->json) {
        print_json(len, &codec, &plain, &stats);
        return 0;
    }
    print_figures("codec", len, &codec);
    print_figures("zstd -1", len, &plain);
    printf("codec against zstd -1: bytes %.3f, encode %.2f, decode %.2f\n",
           (double)codec.wire_bytes / (double)plain.wire_bytes, plain.encode_s / codec.encode_s,
           plain.decode_s / codec.decode_s);
    print_operations(&stats);
    return 0;
}
