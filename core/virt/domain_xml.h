/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a move needs to know of a libvirt domain's XML: name, UUID, its disks, and what of the target's host it
 * needs.
 */
#ifndef FERRY_CORE_DOMAIN_XML_H
#define FERRY_CORE_DOMAIN_XML_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/limits.h"
#include "core/operations/check.h"

enum {
    DOMAIN_NAME_BYTES = 128,
    DOMAIN_UUID_BYTES = 40,
    DISK_ALIAS_BYTES = 64,
    DOMAIN_NETWORKS_MAX = 16,
    DOMAIN_FILES_MAX = 8,
};

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

/* What the target's host must have, beside room. */
struct domain_platform {
    char type[16], arch[16], machine[64]; /* "kvm", "x86_64", "pc-q35-7.2" */
    char cpu[16384];                      /* the <cpu> element; empty: none */
    bool host_cpu;                        /* host-passthrough: @cpu is to be the source host's */
    struct domain_network {
        char kind[16]; /* the interface's type: "network", "bridge", "direct" */
        char name[64]; /* of what it hangs on */
    } networks[DOMAIN_NETWORKS_MAX];
    unsigned network_count;
    struct domain_file {
        char what[16]; /* "emulator", "firmware", "kernel", "initrd", "dtb" */
        char path[PATH_MAX];
    } files[DOMAIN_FILES_MAX]; /* of the host, which QEMU opens and no move brings */
    unsigned file_count;
    unsigned vcpus;
    unsigned pinned_cpus,
        pinned_nodes; /* of the host, up to the last one that it is pinned to; 0: to none */
};

/*
 * Reads a live domain's XML. Fails with words for what cannot move: disks that are not files, other
 * formats than raw and qcow2, shareable or read-only disks, CD-ROMs with a medium, backing files,
 * devices of the host. Drives without a medium are skipped.
 */
int domain_xml_parse(const char *xml, struct domain_info *ret, struct error *err);
/*
 * The same, but what cannot move becomes lines of @report ("disks", "devices"), all of it; -EINVAL only when it is
 * no domain at all. @ret has the disks that can move.
 */
int domain_xml_survey(const char *xml, struct domain_info *ret, struct domain_platform *platform,
                      struct check_report *report, struct error *err);

const char *disk_format_name(enum disk_format format);
int disk_format_parse(const char *name, enum disk_format *ret);

#endif
