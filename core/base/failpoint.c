/* SPDX-License-Identifier: Apache-2.0 */
/* Failpoints of test builds: see failpoint.h. */
#include "core/base/failpoint.h"

#ifdef FERRY_FAILPOINTS

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"

bool failpoint(const char *name)
{
    const char *wanted = getenv("FERRY_FAILPOINT");
    size_t len = strlen(name);

    while (wanted) {
        if (strncmp(wanted, name, len) == 0 && wanted[len] == ':') {
            const char *action = wanted + len + 1;

            log_warning("failpoint %s", wanted);
            if (strncmp(action, "kill", 4) == 0)
                raise(SIGKILL);
            else if (strncmp(action, "stop", 4) == 0)
                raise(SIGSTOP);
            else if (strncmp(action, "error", 5) == 0)
                return true;
        }
        wanted = strchr(wanted, ',');
        if (wanted)
            wanted++;
    }
    return false;
}

#else
typedef int failpoint_is_not_compiled; /* ISO C wants one declaration in a file */
#endif
