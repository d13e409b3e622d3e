/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that stand back: see background.h. */
#include "core/base/background.h"

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void background_thread(int nice)
{
    static _Thread_local bool done;

    if (done)
        return;
    done = true;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice);
}
