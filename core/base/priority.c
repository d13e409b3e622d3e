/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes first where processors are short: see priority.h. */
#include "core/base/priority.h"

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/macros.h"

enum { FIRST_NICE = -10 };

static int usual_nice; /* what the process was started with */

/* A nice value is a thread's on Linux. */
static void set_nice(pid_t id, int nice)
{
    setpriority(PRIO_PROCESS, id ? (id_t)id : (id_t)syscall(SYS_gettid), nice);
}

void priority_background(int nice)
{
    static _Thread_local bool done;

    if (done)
        return;
    done = true;
    set_nice(0, nice);
}

void priority_first(void)
{
    int nice = getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));

    usual_nice = MAX(nice, 0);
    if (nice > FIRST_NICE)
        set_nice(0, FIRST_NICE);
}

void priority_usual(pid_t id)
{
    set_nice(id, usual_nice);
}
