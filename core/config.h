/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: one INI file, read at start and at SIGHUP (peers, policies, seeds and log level only).
 *
 * Every setting has a default that works on a stock Debian host; every path can be set, so that two
 * sites fit one machine. An unknown section or key is an error: a typo must not become a default.
 */
#ifndef FERRY_CORE_CONFIG_H
#define FERRY_CORE_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/link/bandwidth.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/policy/policy_config.h"
#include "core/switchover/witness.h"
#include "netlink/link.h"

enum {
    CONFIG_PEERS_MAX = 64,
    CONFIG_DIRECTORIES_MAX = 16,
    CONFIG_NETWORKS_MAX = 16,
    CONFIG_SEEDS_MAX = 32
};

enum peer_permission {
    PEER_MAY_MOVE_HERE = 1 << 0,      /* it may send VMs to this site */
    PEER_MAY_MOVE_FROM_HERE = 1 << 1, /* this site's VMs may be sent to it */
    PEER_MAY_DRILL = 1 << 2,
    PEER_MAY_DIRECT_MEMORY = 1 << 3, /* memory may go to and from it without encryption */
};

/* What slows a guest down; the best that it has when that is left to ferryd. */
enum stun_actuator {
    STUN_ACTUATOR_BEST,
    STUN_ACTUATOR_DIRTY_LIMIT,   /* QEMU's, with KVM's dirty ring */
    STUN_ACTUATOR_CGROUP,        /* of the vCPUs */
    STUN_ACTUATOR_AUTO_CONVERGE, /* QEMU's, steered */
    STUN_ACTUATOR_NONE,
};

enum old_disks { OLD_DISKS_KEEP, OLD_DISKS_REMOVE };

/* What networks here are called at a peer; those that are not listed have the same name. */
struct config_networks {
    struct config_network {
        char here[64], there[64];
    } list[CONFIG_NETWORKS_MAX];
    unsigned count;
};

struct config_peer {
    struct link_peer link;
    struct config_networks networks;
    char memory_address
        [LINK_ADDRESS_BYTES]; /* of its host, for direct memory; empty: that of the link */
    char drill_network[64];   /* here, of the clones of its drills; empty: their links are down */
    unsigned permissions;     /* enum peer_permission */
    bool has_bwlimit;
    struct timetable bwlimit;
};

struct config_seed {
    char disks[192]; /* "DOMAIN/DEVICE", a pattern as of the shell */
    char path[PATH_MAX];
};

struct config {
    /* [site] */
    char name[WIRE_NAME_BYTES];
    char listen[LINK_ADDRESS_BYTES];
    char state_dir[PATH_MAX];  /* journal */
    char run_dir[PATH_MAX];    /* control socket */
    char socket_dir[PATH_MAX]; /* a folder a move, for QEMU's sockets */
    enum log_level log_level;
    char status_page[LINK_ADDRESS_BYTES]; /* a loopback address; empty: none is served */
    /* [tls] */
    char key[PATH_MAX], certificate[PATH_MAX];
    char ca[PATH_MAX], crl[PATH_MAX]; /* empty: none */
    /* [libvirt] */
    char libvirt_uri[256];
    char libvirt_socket[PATH_MAX]; /* of the local libvirtd; peers' calls are passed to it */
    char qemu_user[64];
    bool monitor; /* QMP through libvirt may be used (taints the domain `custom-monitor`) */
    /* [link] */
    struct timetable bwlimit; /* of each peer that has none of its own */
    struct link_config link;  /* its name and address are filled from [site] */
    /* [storage] */
    char directories[CONFIG_DIRECTORIES_MAX][PATH_MAX]; /* where peers may create disks */
    unsigned directory_count;
    uint64_t log_memory_bytes;
    char spool_dir[PATH_MAX]; /* empty: no spool */
    uint64_t spool_bytes;
    unsigned stall_limit_s;   /* no write of a guest waits longer: then its move aborts */
    enum old_disks old_disks; /* of a VM that has left */
    bool use_seeds;
    /* [seeds] */
    struct config_seed seeds[CONFIG_SEEDS_MAX]; /* in the order of the file */
    unsigned seed_count;
    /* [memory] */
    enum stun_actuator stun_actuator;
    unsigned switchover_deadline_s; /* a stopped guest waits no longer than this for the target */
    bool codec;                     /* offer and take the RAM codec */
    uint64_t page_store_bytes;      /* of one move's codec, at each end */
    uint64_t disk_index_bytes;      /* of one move's references, at the source; 0: none */
    /* [service], what [memory] says of a policy's settings, [policy NAME], [group NAME], [vm NAME] */
    struct policy_config policies;
    /* [drill] */
    char drill_commands[PATH_MAX]; /* the folder of what peers' drills may run here, by name */
    unsigned drill_timeout_s;      /* of a command */
    /* [witness] */
    struct witness_config witness;
    /* [peer NAME] */
    struct config_peer peers[CONFIG_PEERS_MAX];
    unsigned peer_count;
};

/* Reads @path over the defaults. A missing file is an error that says so. */
int config_load(const char *path, struct config **ret, struct error *err);
void config_free(struct config *c);

const char *stun_actuator_name(enum stun_actuator actuator);

const struct config_peer *config_peer_by_name(const struct config *c, const char *name);
/* Whoever shows this certificate. */
const struct config_peer *config_peer_by_certificate(const struct config *c,
                                                     const struct tls_conn *seen);

/* "200M", "1.5G", "4096": bytes, binary prefixes. -EINVAL. */
int config_parse_bytes(const char *text, uint64_t *ret);
/* yes, true, 1; no, false, 0. -EINVAL. */
int config_parse_bool(const char *text, bool *ret);

#endif
