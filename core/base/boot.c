/* SPDX-License-Identifier: Apache-2.0 */
/* The id of this start of the host: see boot.h. */
#include "core/base/boot.h"

#include <stdio.h>

void boot_id(char ret[BOOT_ID_BYTES])
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    ret[0] = '\0';
    if (!f)
        return;
    if (fscanf(f, "%36[0-9a-f-]", ret) != 1)
        ret[0] = '\0';
    fclose(f);
}
