/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stretch of a disk is compared by: XXH3-64 of each unit of 4 KiB, XXH3-128 over these. Made to find
 * what went wrong, not what somebody forged: both sites already trust each other with the VM.
 */
#ifndef FERRY_STORAGE_DISK_DIGEST_H
#define FERRY_STORAGE_DISK_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { DISK_DIGEST_UNIT_BYTES = 4096, DISK_DIGEST_BYTES = 16 };

/* @len is that of a unit; less only at the end of a disk. */
uint64_t disk_digest_unit(const uint8_t *data, size_t len);
void disk_digest_of_units(const uint64_t *units, size_t count, uint8_t out[DISK_DIGEST_BYTES]);
/* The same from the data of at most LIMIT_CHECK_BYTES, which begin at a unit. */
void disk_digest_of_data(const uint8_t *data, uint32_t len, uint8_t out[DISK_DIGEST_BYTES]);

#endif
