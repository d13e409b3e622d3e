/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a move at the source, on the loop: QEMU's NBD connections on one UNIX socket, a mirror
 * engine a disk, a stream of the link a disk. Policy lives in storage/; this only moves bytes.
 */
#ifndef FERRY_CORE_DISK_SOURCE_H
#define FERRY_CORE_DISK_SOURCE_H

#include <stdbool.h>
#include <uv.h>

#include "core/base/error.h"
#include "core/disk/disk_codec.h"
#include "netlink/session.h"
#include "storage/mirror_budget.h"
#include "storage/mirror_source.h"

struct disk_source;

struct disk_source_ops {
    /* QEMU opened its first disk: the mirror job runs. */
    void (*on_started)(void *user);
    /* QEMU said DISC on a disk: its log is closed. */
    void (*on_closing)(void *user);
    /* Everything is at the target, on its disks, and verified if that was wanted. */
    void (*on_done)(void *user);
    /* A disk failed. Called once; do not free in it. */
    void (*on_failed)(void *user, const struct error *err);
    /* The copy, or the guest before READY, writes this to the @disk-th; @data NULL: it is unknown from now on. */
    void (*on_content)(void *user, unsigned disk, uint64_t offset, uint32_t length,
                       const uint8_t *data);
};

/* @spool may be NULL. */
int disk_source_new(uv_loop_t *loop, struct mirror_budget *budget, struct mirror_spool *spool,
                    const struct disk_source_ops *ops, void *user, struct disk_source **ret);
/* The disks added from now on are verified: storage/mirror_check.h. */
void disk_source_verify(struct disk_source *d);
/* The streams of the disks added from now on are compressed; @level: 0 adapts. Once. */
int disk_source_pack(struct disk_source *d, int level, const struct disk_codec *codec);
/* Goes on with it, and drops connections that never chose a disk; now and then. @moves: as disk_packing_look(). */
void disk_source_tick(struct disk_source *d, unsigned moves);
/* The stream becomes the disk's. @seeded: the target has an older copy of the disk. */
int disk_source_add(struct disk_source *d, const char *export_name, uint64_t size_bytes,
                    bool seeded, struct stream *stream);
/* Listens for QEMU. */
int disk_source_listen(struct disk_source *d, const char *path, uid_t uid, gid_t gid,
                       struct error *err);
void disk_source_free(struct disk_source *d);

/* How many disks have had something of the copy within the last @idle_ns. */
unsigned disk_source_copying(const struct disk_source *d, uint64_t idle_ns);

/* All mirrors are READY: from now on every write is the guest's, and urgent. */
void disk_source_set_ready(struct disk_source *d);

/* What was written before that is applied at the target. */
bool disk_source_copy_is_applied(const struct disk_source *d);

bool disk_source_is_done(const struct disk_source *d);

/* The pace of the guest's acknowledgements; 0 = at once. To be repeated every now and then while not 0. */
void disk_source_set_pace(struct disk_source *d, uint64_t bytes_per_s);

/* The move is given up: every disk fails, and QEMU's requests are answered until it ends its connections. Nobody is
 * told of the failure. */
void disk_source_let_go(struct disk_source *d);
/* After that: the streams go, QEMU is answered on. */
void disk_source_detach(struct disk_source *d);
/* QEMU is still connected: to be freed then only if it does not end that by itself. */
bool disk_source_has_clients(const struct disk_source *d);

/* The logs are closed: what is left of them is what the stopped guest waits for. */
void disk_source_set_urgent(struct disk_source *d);

struct disk_source_stats {
    uint64_t in_bytes;      /* taken from QEMU, zeroes by their extent */
    uint64_t payload_bytes; /* of these, data */
    uint64_t sent_bytes;    /* into the streams */
    int pack_level;         /* of compression now; 0: none */
    uint64_t pack_cpu_ns;
    uint64_t seed_bytes;    /* applied from the target's seeds, never sent */
    uint64_t applied_bytes; /* payload applied at the target */
    uint64_t fill_bytes;    /* acknowledged and not applied */
    uint64_t fill_peak_bytes;
    uint64_t spooled_bytes,
        spooled_ever_bytes; /* of what is acknowledged, on the spool beside the fill */
    uint64_t unsent_bytes;  /* of the fill, not yet on its way */
    uint64_t target_queue_bytes;
    struct mirror_check_stats check;
    uint64_t guest_writes;
    uint64_t held_count;                                     /* acknowledgements held back, ever */
    uint64_t held_guest_now;                                 /* the guest's, now */
    uint64_t held_since_ns;                                  /* as mirror_log_stats, the earliest */
    uint64_t latency_p50_us, latency_p99_us, latency_max_us; /* acknowledgement of guest writes */
};
void disk_source_get_stats(const struct disk_source *d, struct disk_source_stats *ret);

#endif
