/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TUN device in another network namespace, as a descriptor of whole packets.
 *
 * Every packet has a struct virtio_net_hdr before it (IFF_VNET_HDR), always: checksums are never
 * computed inside the emulator. With segmentation offload the kernel hands over TCP super-packets of up
 * to 64 KiB, which costs a tenth of the CPU time; without it, single packets that can be lost singly.
 */
#ifndef FERRY_TOOLS_WAN_TUN_H
#define FERRY_TOOLS_WAN_TUN_H

#include <stdbool.h>

/* Makes the device @name in the namespace at path @netns (non-blocking; it is gone when the
 * descriptor is closed). 0 or a negative errno, with *ret_step telling what failed. */
int tun_open(const char *netns, const char *name, int *ret_fd, const char **ret_step);

/* Segmentation offload on or off, at any time. 0 or a negative errno. */
int tun_set_offload(int fd, bool segmentation);

#endif
