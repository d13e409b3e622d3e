/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the RAM decoder at the target needs for references: blocks of the VM's own new disks, and the source's word for
 * what is not there any more. As ram_pipe.h wants it; the pipe owns it.
 */
#ifndef FERRY_CORE_TARGET_BLOCKS_H
#define FERRY_CORE_TARGET_BLOCKS_H

#include "core/move/ram_pipe.h"
#include "core/virt/virt.h"
#include "netlink/session.h"

struct target_blocks;

/* The disks of @info, at the NBD server on @socket_path. Fills *ret_pipe for ram_pipe_new(), whose free() then frees it. */
int target_blocks_new(uv_loop_t *loop, const char *socket_path, const struct domain_info *info,
                      struct target_blocks **ret, struct ram_pipe_blocks *ret_pipe);
/* If no pipe has taken it. */
void target_blocks_free(struct target_blocks *b);
/* The source's `pages`; becomes its. 0, or a negative errno: not taken. */
int target_blocks_set_stream(struct target_blocks *b, struct stream *stream);

#endif
