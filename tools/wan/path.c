/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/wan/path.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/random.h"

/* What Ethernet adds to each segment: header 14, checksum 4, preamble 8, gap 12. */
#define FRAMING_BYTES 38u

#define ALIGNMENT 16u

struct record {
    uint64_t due_ns;
    uint32_t len; /* of the packet; 0: the ring goes on at its start */
    uint32_t unused;
};

static size_t record_bytes(size_t len)
{
    return (sizeof(struct record) + len + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

/* What the longest backlog needs. Framing on the wire outweighs the record around a packet in the
 * ring, so bytes on the wire bound it; the rest is for the wrap and for what is being read. */
static double ring_bytes(const struct path_settings *s)
{
    double backlog_s = (s->rtt_ms / 2 + s->queue_ms) / 1e3;

    return backlog_s * s->rate_mbit * 1e6 / 8 + 8.0 * WAN_PACKET_BYTES;
}

const char *path_settings_problem(const struct path_settings *s)
{
    /* Written so that a NaN fails too. */
    if (!(s->rtt_ms >= 0 && s->rtt_ms <= 60000))
        return "rtt must be between 0 and 60000 ms";
    if (!(s->rate_mbit >= 0.01 && s->rate_mbit <= 100000))
        return "rate must be between 0.01 and 100000 Mbit/s";
    if (!(s->queue_ms >= 0.01 && s->queue_ms <= 60000))
        return "queue must be between 0.01 and 60000 ms";
    if (!(s->loss_percent >= 0 && s->loss_percent <= 100))
        return "loss must be between 0 and 100 percent";
    if (ring_bytes(s) > WAN_RING_BYTES_MAX)
        return "rate x (rtt / 2 + queue) exceeds 512 MiB; lower one of them";
    return NULL;
}

void path_seed(struct path *p, uint64_t seed)
{
    p->random = seed;
}

/* 0 <= x < 1 */
static double next_random(struct path *p)
{
    return (double)(splitmix64_next(&p->random) >> 11) * 0x1p-53;
}

static struct record *record_at(const struct path *p, size_t offset)
{
    return (struct record *)(void *)(p->ring + offset);
}

/* The oldest record; passes the marker that ends the ring. */
static struct record *oldest(struct path *p)
{
    if (p->records == 0)
        return NULL;
    if (p->head == p->cap || record_at(p, p->head)->len == 0)
        p->head = 0;
    return record_at(p, p->head);
}

int path_configure(struct path *p, const struct path_settings *s)
{
    size_t cap = (size_t)ring_bytes(s) & ~(size_t)(ALIGNMENT - 1);

    if (cap > p->cap) {
        uint8_t *ring = aligned_alloc(ALIGNMENT, cap);
        size_t tail = 0, records = p->records;

        if (!ring)
            return -ENOMEM;
        for (struct record *r = oldest(p); r; r = oldest(p)) {
            memcpy(ring + tail, r, record_bytes(r->len));
            tail += record_bytes(r->len);
            path_pop(p);
        }
        free(p->ring);
        p->ring = ring;
        p->cap = cap;
        p->head = 0;
        p->tail = tail;
        p->records = records;
    }
    p->delay_ns = (uint64_t)(s->rtt_ms / 2 * 1e6);
    p->queue_ns = (uint64_t)(s->queue_ms * 1e6);
    p->ns_per_byte = 8e3 / s->rate_mbit;
    p->loss = s->loss_percent / 100;
    return 0;
}

void path_done(struct path *p)
{
    free(p->ring);
    p->ring = NULL;
}

/* Puts p->tail where a whole packet fits, or returns false. */
static bool make_room(struct path *p)
{
    size_t need = record_bytes(WAN_PACKET_BYTES);

    if (p->records == 0)
        p->head = p->tail = 0;
    if (p->records == 0 || p->tail > p->head) {
        if (p->cap - p->tail >= need)
            return true;
        if (p->head <= need)
            return false;
        if (p->tail < p->cap)
            record_at(p, p->tail)->len = 0;
        p->tail = 0;
        return true;
    }
    return p->head - p->tail > need;
}

uint8_t *path_reserve(struct path *p)
{
    p->has_room = make_room(p);
    return p->has_room ? p->ring + p->tail + sizeof(struct record) : p->scratch;
}

/* Headers that every segment of a super-packet repeats: IP and TCP. */
static size_t segment_header_bytes(const struct virtio_net_hdr *h, const uint8_t *ip, size_t len)
{
    size_t tcp = h->csum_start; /* from the start of the packet */

    if (!(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || tcp + 13 > len)
        return 40;
    return tcp + (size_t)(ip[tcp + 12] >> 4) * 4;
}

/* What the packet is on a real wire: IP bytes, and how many segments share them. */
static size_t wire_bytes(const uint8_t *packet, size_t len, size_t *ret_segments)
{
    struct virtio_net_hdr h;
    size_t ip_len = len - sizeof(h), header;

    memcpy(&h, packet, sizeof(h));
    *ret_segments = 1;
    if (h.gso_type == VIRTIO_NET_HDR_GSO_NONE || h.gso_size == 0)
        return ip_len;
    header = segment_header_bytes(&h, packet + sizeof(h), ip_len);
    if (ip_len <= header)
        return ip_len;
    *ret_segments = (ip_len - header + h.gso_size - 1) / h.gso_size;
    return ip_len + (*ret_segments - 1) * header;
}

void path_commit(struct path *p, uint64_t now_ns, size_t len)
{
    size_t segments, bytes;
    struct record *r;

    if (len <= sizeof(struct virtio_net_hdr))
        return;
    bytes = wire_bytes(path_reserve(p), len, &segments); /* the same place as when it was filled */
    if (p->cut) {
        p->stats.dropped_cut++;
        return;
    }
    if (p->line_free_ns < now_ns)
        p->line_free_ns = now_ns;
    if (p->line_free_ns - now_ns > p->queue_ns) {
        p->stats.dropped_queue++;
        return;
    }
    p->line_free_ns += (uint64_t)((double)(bytes + segments * FRAMING_BYTES) * p->ns_per_byte);
    p->stats.packets++;
    p->stats.segments += segments;
    p->stats.bytes += bytes;
    if (p->loss > 0 && next_random(p) < p->loss) {
        p->stats.dropped_loss++;
        return;
    }
    if (!p->has_room) {
        p->stats.dropped_memory++;
        return;
    }
    r = record_at(p, p->tail);
    *r = (struct record){.due_ns = p->line_free_ns + p->delay_ns, .len = (uint32_t)len};
    p->tail += record_bytes(len);
    p->records++;
}

const uint8_t *path_due(struct path *p, uint64_t now_ns, size_t *ret_len)
{
    for (struct record *r = oldest(p); r && r->due_ns <= now_ns; r = oldest(p)) {
        if (!p->cut) {
            *ret_len = r->len;
            return (const uint8_t *)(r + 1);
        }
        p->stats.dropped_cut++;
        path_pop(p);
    }
    return NULL;
}

void path_pop(struct path *p)
{
    p->head += record_bytes(oldest(p)->len);
    p->records--;
}

uint64_t path_deadline(const struct path *p)
{
    size_t head = p->head;

    if (p->records == 0)
        return WAN_NEVER;
    if (head == p->cap || record_at(p, head)->len == 0)
        head = 0;
    return record_at(p, head)->due_ns;
}
