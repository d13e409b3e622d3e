/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a move needs to know of a libvirt domain's XML: name, UUID, and its disks.
 */
#ifndef FERRY_CORE_DOMAIN_XML_H
#define FERRY_CORE_DOMAIN_XML_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/limits.h"

enum { DOMAIN_NAME_BYTES = 128, DOMAIN_UUID_BYTES = 40, DISK_ALIAS_BYTES = 64 };

enum disk_format { DISK_RAW, DISK_QCOW2 };

struct domain_disk {
    char target[32];              /* "vda" */
    char alias[DISK_ALIAS_BYTES]; /* the NBD export's name: "drive-virtio-disk0" */
    char path[PATH_MAX];
    enum disk_format format;
    uint64_t size_bytes;      /* virtual size; filled by the caller from libvirt */
    uint64_t allocated_bytes; /* on the source's file system; ditto */
};

struct domain_info {
    char name[DOMAIN_NAME_BYTES];
    char uuid[DOMAIN_UUID_BYTES];
    struct domain_disk disks[LIMIT_DISKS_PER_MOVE];
    unsigned disk_count;
    unsigned skipped_count; /* empty drives that travel by themselves */
    bool has_dirty_ring;    /* KVM's: QEMU can limit how fast its vCPUs dirty memory */
};

/*
 * Reads a live domain's XML. Fails with words for what cannot move: disks that are not files, other
 * formats than raw and qcow2, shareable or read-only disks, CD-ROMs with a medium, backing files,
 * host devices. Drives without a medium are skipped.
 */
int domain_xml_parse(const char *xml, struct domain_info *ret, struct error *err);

const char *disk_format_name(enum disk_format format);
int disk_format_parse(const char *name, enum disk_format *ret);

#endif
