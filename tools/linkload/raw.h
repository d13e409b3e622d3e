/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference: nothing but OpenSSL over TCP with the same certificates and cipher, a thread a connection,
 * blocking. What a link can carry at best when nothing is ordered, acknowledged, resumed or shared.
 */
#ifndef FERRY_TOOLS_LINKLOAD_RAW_H
#define FERRY_TOOLS_LINKLOAD_RAW_H

#include "tools/linkload/load.h"

/* Run to the end and print one JSON line. The process's exit status. */
int raw_send(const struct load_options *o);
int raw_receive(const struct load_options *o);

#endif
