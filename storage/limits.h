/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The named maxima that only storage/ needs, beside core/base/limits.h.
 */
#ifndef FERRY_STORAGE_LIMITS_H
#define FERRY_STORAGE_LIMITS_H

#include "core/base/limits.h"

/* What an entry of the mirror log costs beside its payload: the struct, malloc's share, the index.
 * Charged to the budget so that a flood of 512 byte writes is bounded by memory, not by payload. */
#define LIMIT_LOG_ENTRY_OVERHEAD_BYTES 256u

/* The mirror log of a site when the operator says nothing; the least that still carries one request. */
#define LIMIT_LOG_DEFAULT_BYTES (256u * 1024u * 1024u)
#define LIMIT_LOG_LEAST_BYTES (1024u * 1024u)

/* What QEMU's copy sends at once: 16 requests of 1 MiB. */
#define LIMIT_LOG_BURST_BYTES (16u * 1024u * 1024u)

/* Bytes and operations received at the target and not yet applied, a disk. 64 MiB holds the largest
 * single write twice, so that receiving goes on while it is being written. */
#define LIMIT_TARGET_QUEUE_BYTES (64u * 1024u * 1024u)
#define LIMIT_TARGET_QUEUE_OPERATIONS 1024u

/* Largest extent of a message without payload (zero, trim): what NBD's 32-bit length can say. */
#define LIMIT_MIRROR_EXTENT_BYTES UINT32_MAX

/* What one CHECK compares, and how many of a disk are under way: enough to keep the disk there busy. */
#define LIMIT_CHECK_BYTES (1024u * 1024u)
#define LIMIT_CHECKS_IN_FLIGHT 8u

/* SEEDs of a disk that are not applied yet: at least 32 MiB a round trip, 512 MiB at most. Together with what waits behind them (it
 * overlaps them) they stay well below LIMIT_TARGET_QUEUE_*, so that the FILLs they wait for are always read. */
#define LIMIT_SEEDS_IN_FLIGHT 512u
#define LIMIT_SEED_BEHIND_OPERATIONS 256u
#define LIMIT_SEED_BEHIND_BYTES (8u * 1024u * 1024u)

/* Text of an ERROR message. */
#define LIMIT_MIRROR_TEXT_BYTES 512u

/* A READ through the mirror is for tools and probes, not for speed. */
#define LIMIT_MIRROR_READ_BYTES (32u * 1024u * 1024u)

/* Read data asked for and not yet taken by the client, a connection: the largest READ always passes. */
#define LIMIT_READ_AHEAD_BYTES LIMIT_MIRROR_READ_BYTES

/* Export names: NBD's own limit is 4096, libvirt's aliases are far shorter. */
#define LIMIT_EXPORT_NAME_BYTES 255u

/* Connections to one local endpoint: one a disk, and as many again for probes. */
#define LIMIT_ENDPOINT_CONNECTIONS (2u * LIMIT_DISKS_PER_MOVE)

#endif
