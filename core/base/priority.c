/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes first where processors are short: see priority.h. A nice value is a thread's on Linux, and 0 the calling one. */
#include "core/base/priority.h"

#include <stdbool.h>
#include <sys/resource.h>

#include "core/base/macros.h"

enum { FIRST_NICE = -10 };

static int usual_nice; /* what the process was started with */

void priority_background(int nice)
{
    static _Thread_local bool done;

    if (done)
        return;
    done = true;
    setpriority(PRIO_PROCESS, 0, nice);
}

void priority_first(void)
{
    int nice = getpriority(PRIO_PROCESS, 0);

    usual_nice = MAX(nice, 0);
    if (nice > FIRST_NICE)
        setpriority(PRIO_PROCESS, 0, FIRST_NICE);
}

void priority_usual(pid_t id)
{
    setpriority(PRIO_PROCESS, (id_t)id, usual_nice);
}
