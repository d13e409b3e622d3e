/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM says itself, in its libvirt metadata, so that it moves with the VM:
 *
 *   <settings xmlns="urn:ferry:policy:1" policy="minimal-downtime" bwlimit="100M"/>
 *
 * Attributes are settings and "policy"; elements inside are not known.
 */
#ifndef FERRY_CORE_POLICY_METADATA_H
#define FERRY_CORE_POLICY_METADATA_H

#include "core/base/error.h"
#include "core/policy/policy.h"

#define POLICY_METADATA_URI "urn:ferry:policy:1"

enum { POLICY_METADATA_BYTES = 16384 };

/* -EINVAL with words for whoever wrote it: the setting that is none, the value that cannot be. Any thread. */
int policy_metadata_parse(const char *xml, struct policy_choices *ret, struct error *err);

#endif
