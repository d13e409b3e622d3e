/* SPDX-License-Identifier: Apache-2.0 */
/* What config.c (the file, the whole) and config_sections.c (the settings) share. Not for others. */
#ifndef FERRY_CORE_CONFIG_PRIVATE_H
#define FERRY_CORE_CONFIG_PRIVATE_H

#include "core/config.h"

/* 1: set, 0: unusable value, -1: no such setting, -2: no such section. */
int config_set(struct config *c, const char *section, const char *key, const char *value);

#endif
