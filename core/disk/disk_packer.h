/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mirror streams of a move, compressed (storage/mirror_pack.h) on a few threads beside the loop.
 *
 *   mirror_source_pull -> [job] -> a lane's thread: one chunk -> [job] -> stream_write
 *
 * A disk has a few pieces under way, written in the order they were pulled; a megabyte goes through one lane, the next
 * through the next, so that what lies close together finds each other. A thread takes turns between disks by the order
 * of their pieces. So it always has work while the loop writes, and little stands between the log and the link: a piece
 * is a chunk at most, there are fewer of them where the link is slow, and what is to be plain passes on the loop when
 * nothing is ahead of it.
 *
 * The level is one for all disks of the move: codec_level.h.
 */
#ifndef FERRY_CORE_DISK_PACKER_H
#define FERRY_CORE_DISK_PACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "core/disk/disk_codec.h"
#include "netlink/session.h"
#include "storage/mirror_source.h"

struct disk_packing; /* of a move */
struct disk_packer;  /* of a disk */

/* @level: 0 adapts, else fixed. @codec: as agreed with the target. */
int disk_packing_new(uv_loop_t *loop, int level, const struct disk_codec *codec,
                     struct disk_packing **ret);
/* After its disks' packers. NULL is allowed. */
void disk_packing_free(struct disk_packing *p);
/* As codec_level_look(). @moves go on here at the same time: they share the processors, and each takes less of them. */
void disk_packing_look(struct disk_packing *p, uint64_t now_ns, bool link_full, unsigned moves);
int disk_packing_level(const struct disk_packing *p);
/* CPU time of the threads. */
uint64_t disk_packing_cpu_ns(const struct disk_packing *p);

/* on_progress: pump it again, or look at its fault; not called from inside the calls below. */
int disk_packer_new(struct disk_packing *packing, void (*on_progress)(void *user), void *user,
                    struct disk_packer **ret);
/* No callbacks follow. What is under way comes back by itself. NULL is allowed. */
void disk_packer_free(struct disk_packer *p);

/* Pulls from @mirror and writes to @stream what can go now. @plain: what is pulled from now on is not to be
 * compressed, because somebody waits for it. */
void disk_packer_pump(struct disk_packer *p, struct mirror_source *mirror, struct stream *stream,
                      bool plain);
/* Compressed bytes stand there that the link did not take. */
bool disk_packer_waits(const struct disk_packer *p);

/* 0, or the negative errno it failed with: the disk's stream cannot go on. */
int disk_packer_fault(const struct disk_packer *p);
/* What was pulled and not wholly written, before compression; what was written, after it. */
uint64_t disk_packer_held_bytes(const struct disk_packer *p);
uint64_t disk_packer_sent_bytes(const struct disk_packer *p);

#endif
