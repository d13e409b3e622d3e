/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of the emulated line: rate, queue, delay and loss.
 *
 *      commit        serialise at the rate         propagate for the delay         due
 *     ---------> [ queue, tail-dropped  ] ------> [ in flight, a FIFO       ] ------------>
 *
 * A packet that arrives at `now` starts onto the wire when the packets before it have left
 * (line_free_ns), takes its size divided by the rate, and comes out one delay later. The queue needs
 * no data structure of its own: its length is line_free_ns - now, and a packet that would wait longer
 * than the queue's bound is dropped. Queued and flying packets lie in one ring of bounded memory.
 *
 * Packets carry a virtio-net header (TUN_HEADER_BYTES) and may be TSO super-packets of up to 64 KiB:
 * their time on the wire is that of the segments a network card would have made of them.
 *
 * This is an engine: it knows no descriptor and no clock. Times are nanoseconds on any monotonic clock.
 */
#ifndef FERRY_TOOLS_WAN_PATH_H
#define FERRY_TOOLS_WAN_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAN_NEVER UINT64_MAX

/* The largest IP packet and the virtio-net header before it. */
#define WAN_PACKET_BYTES (65536u + 16u)

/* Memory of one direction; rate x (delay + queue) must fit. */
#define WAN_RING_BYTES_MAX (512u * 1024u * 1024u)

struct path_settings {
    double rtt_ms;       /* half of it each way */
    double rate_mbit;    /* of each direction, Ethernet framing included */
    double queue_ms;     /* the longest wait before the wire */
    double loss_percent; /* of packets, each on its own */
};

struct path_stats {
    uint64_t packets;  /* that went onto the wire; a super-packet is one */
    uint64_t segments; /* what they would be on a real wire */
    uint64_t bytes;    /* IP bytes of those segments, headers included */
    uint64_t dropped_queue;
    uint64_t dropped_loss;
    uint64_t dropped_cut;
    uint64_t dropped_memory; /* the ring was full: never with settings that were accepted */
    uint64_t dropped_device; /* at the end: the device there took it not (down, out of memory) */
};

struct path {
    uint8_t *ring; /* owned; records of struct record + packet, aligned */
    size_t cap;
    size_t head; /* oldest record */
    size_t tail; /* where the next goes */
    size_t records;
    bool has_room;         /* the reserved place is in the ring, not the scratch */
    uint64_t line_free_ns; /* when the wire has sent what it accepted */
    uint64_t delay_ns;
    uint64_t queue_ns;
    double ns_per_byte;
    double loss; /* 0 to 1 */
    uint64_t random;
    bool cut;
    struct path_stats stats;
    uint8_t scratch[WAN_PACKET_BYTES]; /* where packets go that cannot be kept */
};

/* NULL when the settings can be had, else the reason why not (static text). */
const char *path_settings_problem(const struct path_settings *s);

/* A zeroed struct path becomes usable with path_seed() and path_configure(). */
void path_seed(struct path *p, uint64_t seed);

/* Takes checked settings over, now or while packets fly. 0 or -ENOMEM, with nothing changed. */
int path_configure(struct path *p, const struct path_settings *s);
void path_done(struct path *p);

/* Room for one packet of WAN_PACKET_BYTES, then its length and the time. Never fails: a packet that
 * finds no room, no queue or a cut line is counted and forgotten. */
uint8_t *path_reserve(struct path *p);
void path_commit(struct path *p, uint64_t now_ns, size_t len);

/* The oldest packet if it is due, or NULL; it stays valid until path_pop(). On a cut line packets in
 * flight are lost too. */
const uint8_t *path_due(struct path *p, uint64_t now_ns, size_t *ret_len);
void path_pop(struct path *p);

/* When the oldest packet is due, or WAN_NEVER. */
uint64_t path_deadline(const struct path *p);

#endif
