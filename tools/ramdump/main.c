/* SPDX-License-Identifier: Apache-2.0 */
/* ramdump: looks into a recorded migration stream of QEMU, or measures the RAM codec on it. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/base/macros.h"
#include "memory/ram_encoder.h"
#include "tools/ramdump/ramdump.h"

static const char USAGE[] =
    "usage: ramdump [--bench [--store MIB] [--level N] [--rounds N] [--json]] FILE\n"
    "Prints a migration stream recorded from QEMU (migrate exec: or unix:, into a file) in "
    "readable form.\n"
    "  --bench     instead, encode and decode it: speed and bytes, beside zstd -1\n"
    "  --store     page store of each end in MiB (default 256)\n"
    "  --level     zstd's (default 1)\n"
    "  --rounds    repetitions; the fastest counts (default 3)\n"
    "  --json      one JSON document\n";

static int map_file(const char *path, uint8_t **ret_data, size_t *ret_len)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *data;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size == 0)
        return -ENODATA;
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED)
        return -errno;
    *ret_data = data;
    *ret_len = (size_t)st.st_size;
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"bench", no_argument, NULL, 'b'},
        {"store", required_argument, NULL, 's'},
        {"level", required_argument, NULL, 'l'},
        {"rounds", required_argument, NULL, 'r'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct bench_options bench = {
        .store_bytes = 256u << 20, .level = RAM_LEVEL_DEFAULT, .rounds = 3};
    bool bench_wanted = false;
    uint8_t *data = NULL;
    size_t len = 0;
    int c, r;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'b':
            bench_wanted = true;
            break;
        case 's':
            bench.store_bytes = strtoull(optarg, NULL, 10) << 20;
            break;
        case 'l':
            bench.level = atoi(optarg);
            break;
        case 'r':
            bench.rounds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'j':
            bench.json = true;
            break;
        case 'h':
            fputs(USAGE, stdout);
            return 0;
        default:
            fputs(USAGE, stderr);
            return 2;
        }
    }
    if (optind != argc - 1) {
        fputs(USAGE, stderr);
        return 2;
    }
    r = map_file(argv[optind], &data, &len);
    if (r == 0)
        r = bench_wanted ? bench_stream(data, len, &bench) : dump_stream(data, len);
    if (r < 0)
        fprintf(stderr, "ramdump: %s: %s\n", argv[optind], strerror(-r));
    return r < 0;
}
