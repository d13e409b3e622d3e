/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd hears of ferryd (Type=notify): ready, reloading, stopping, and that its loop still turns. Without
 * systemd, or built without libsystemd, all of it does nothing.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_SERVICE_MANAGER_H
#define FERRY_CORE_SERVICE_MANAGER_H

#include <uv.h>

/* Ready; from now on signs of life at half of the interval that WatchdogSec= asks for. */
void service_manager_ready(uv_loop_t *loop);
void service_manager_reloading(void);
void service_manager_reloaded(void);
/* The signs of life end with the process's orderly end, which has a limit of its own. */
void service_manager_stopping(void);

#endif
