/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compressor of a link: takes frames that wait for their turn, compresses them on libuv's worker threads
 * and gives them back. Its level follows what the link and the processors give at the moment.
 *
 * It is never the bottleneck: it takes no more than it has places for, and what it does not take goes plain.
 * Workers run at a lower priority than everything else on the host: guests come first.
 *
 * Thread: the loop thread; the workers see only a job's bytes and its compressor.
 */
#ifndef FERRY_NETLINK_PACKER_H
#define FERRY_NETLINK_PACKER_H

#include <uv.h>

#include "netlink/session.h"

struct packer;

/* @level: 0 adapts; else fixed (PACK_LEVEL_MIN .. PACK_LEVEL_MAX). NULL: out of memory. */
struct packer *packer_new(uv_loop_t *loop, int level);
/* Lets go; the last job that comes back frees it. */
void packer_free(struct packer *p);
/* session_ops.on_packable: true when it was taken. */
bool packer_take(struct packer *p, struct packing *packing);
int packer_level(const struct packer *p);

/* The law behind the level, apart so that it can be tested: what happened since it was last asked. */
struct pack_window {
    unsigned taken, refused; /* frames offered */
    unsigned starved;        /* frames that came back to a link with nothing else to send */
    uint64_t busy_ns;        /* of all places together */
    uint64_t span_ns;
    unsigned places;
};
/* The level that follows @level. */
int pack_next_level(int level, const struct pack_window *w);

#endif
