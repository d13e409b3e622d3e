/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/wan/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "core/base/macros.h"

static int tun_create(const char *name, int *ret_fd, const char **ret_step)
{
    struct ifreq ifr = {.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)};
    _cleanup_(closep) int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    *ret_step = "open /dev/net/tun";
    if (fd < 0)
        return -errno;
    *ret_step = "create the TUN device";
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0)
        return -errno;
    *ret_fd = fd;
    fd = -1; /* NOLINT(clang-analyzer-deadcode.DeadStores): closep() reads it */
    return 0;
}

int tun_open(const char *netns, const char *name, int *ret_fd, const char **ret_step)
{
    _cleanup_(closep) int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    _cleanup_(closep) int other = open(netns, O_RDONLY | O_CLOEXEC);
    int r;

    *ret_step = "open the network namespace";
    if (own < 0 || other < 0)
        return -errno;
    *ret_step = "enter the network namespace";
    if (setns(other, CLONE_NEWNET) < 0)
        return -errno;
    r = tun_create(name, ret_fd, ret_step);
    if (setns(own, CLONE_NEWNET) < 0 && r == 0) {
        *ret_step = "return from the network namespace";
        close(*ret_fd);
        r = -errno;
    }
    return r;
}

int tun_set_offload(int fd, bool segmentation)
{
    unsigned long flags = TUN_F_CSUM;

    if (segmentation)
        flags |= TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    return ioctl(fd, TUNSETOFFLOAD, flags) < 0 ? -errno : 0;
}
