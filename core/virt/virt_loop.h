/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libvirt's event loop on libuv: libvirt asks for handles and timers, from any thread; libuv's are
 * touched on the loop thread only.
 */
#ifndef FERRY_CORE_VIRT_LOOP_H
#define FERRY_CORE_VIRT_LOOP_H

#include <uv.h>

/* Once a process, before the first libvirt connection. */
int virt_loop_start(uv_loop_t *loop);
/* After the last connection was closed: lets the loop end. */
void virt_loop_stop(void);

#endif
