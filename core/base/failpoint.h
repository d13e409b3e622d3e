/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named places where a test can make this process die or stall: FERRY_FAILPOINT=NAME:kill, NAME:stop
 * (SIGSTOP) or NAME:error, several separated by commas. Compiled into test builds only.
 */
#ifndef FERRY_CORE_BASE_FAILPOINT_H
#define FERRY_CORE_BASE_FAILPOINT_H

#include <stdbool.h>

#ifdef FERRY_FAILPOINTS
/* True when the test wants an error here. */
bool failpoint(const char *name);
#else
static inline bool failpoint(const char *name)
{
    (void)name;
    return false;
}
#endif

#endif
