/* SPDX-License-Identifier: Apache-2.0 */
#include "core/service_manager.h"

#ifdef FERRY_SYSTEMD

#include <stdbool.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#include "core/base/clock.h"

static uv_timer_t watchdog;
static bool watched;

static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    sd_notify(0, "WATCHDOG=1");
}

void service_manager_ready(uv_loop_t *loop)
{
    uint64_t interval_us = 0;

    sd_notify(0, "READY=1");
    watched = sd_watchdog_enabled(0, &interval_us) > 0;
    if (!watched)
        return;
    uv_timer_init(loop, &watchdog);
    uv_timer_start(&watchdog, on_watchdog, 0, interval_us / 1000 / 2);
}

void service_manager_reloading(void)
{
    char text[96];

    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)clock_now_ns() / 1000);
    sd_notify(0, text);
}

void service_manager_reloaded(void)
{
    sd_notify(0, "READY=1");
}

void service_manager_stopping(void)
{
    sd_notify(0, "STOPPING=1");
    if (watched)
        uv_close((uv_handle_t *)&watchdog, NULL);
    watched = false;
}

#else

void service_manager_ready(uv_loop_t *loop)
{
    (void)loop;
}

void service_manager_reloading(void)
{
}

void service_manager_reloaded(void)
{
}

void service_manager_stopping(void)
{
}

#endif
