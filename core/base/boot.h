/* SPDX-License-Identifier: Apache-2.0 */
/* Which start of the host this is: the kernel gives each a random id. */
#ifndef FERRY_CORE_BASE_BOOT_H
#define FERRY_CORE_BASE_BOOT_H

enum { BOOT_ID_BYTES = 37 };

/* Empty when the kernel does not say. */
void boot_id(char ret[BOOT_ID_BYTES]);

#endif
