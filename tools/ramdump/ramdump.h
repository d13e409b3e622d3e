/* SPDX-License-Identifier: Apache-2.0 */
/* What main.c can do with a recorded stream. */
#ifndef FERRY_TOOLS_RAMDUMP_RAMDUMP_H
#define FERRY_TOOLS_RAMDUMP_RAMDUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Prints the stream in readable form. 0 or a negative errno. */
int dump_stream(const uint8_t *data, size_t len);

struct bench_options {
    uint64_t store_bytes;
    int level;
    unsigned rounds; /* the fastest counts */
    bool json;
};

/* Encodes and decodes the stream, compares, and prints speeds and bytes beside plain zstd's. */
int bench_stream(const uint8_t *data, size_t len, const struct bench_options *options);

#endif
