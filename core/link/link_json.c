/* SPDX-License-Identifier: Apache-2.0 */
#include "core/link/link_json.h"

#include <string.h>

#include "core/base/macros.h"
#include "core/api/metrics.h"
#include "core/move/move.h"

static double mbit(uint64_t bytes_s)
{
    return (double)bytes_s * 8 / 1e6;
}

static double loss_percent(const struct link_session_info *info)
{
    return info->segments_out ? 100.0 * (double)info->retransmits / (double)info->segments_out : 0;
}

/* Of 1: what compressed frames take on the wire of what they stand for. */
static double packed_ratio(const struct link_session_info *info)
{
    return info->stats.packed_raw_bytes
               ? (double)info->stats.packed_bytes / (double)info->stats.packed_raw_bytes
               : 1;
}

static json_t *session_to_json(const struct link_session_info *info)
{
    return json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:i, s:s, s:s, s:i, s:I, s:I, s:I, s:f, s:f, s:s, s:f, s:i, "
        "s:f}",
        "rtt_ms", (double)info->tcp_rtt_us / 1e3, "rtt_min_ms", (double)info->tcp_min_rtt_us / 1e3,
        "goodput_sent_mbit_s", mbit(info->sent_bytes_s), "goodput_received_mbit_s",
        mbit(info->received_bytes_s), "loss_percent", loss_percent(info), "stripes",
        (int)info->stats.stripes, "congestion_control", info->congestion_control, "cipher",
        info->cipher, "outages", (int)info->outages, "wire_sent_bytes",
        (json_int_t)info->stats.wire_sent_bytes, "wire_received_bytes",
        (json_int_t)info->stats.wire_received_bytes, "resent_bytes",
        (json_int_t)info->stats.resent_bytes, "capacity_mbit_s", mbit(info->capacity_bytes_s),
        "pacing_mbit_s", mbit(info->pacing_bytes_s), "pacing_state", info->pacer, "queue_ms",
        (double)info->queue_ns / 1e6, "compression_level", info->compression_level,
        "compression_ratio", packed_ratio(info));
}

static json_t *probe_to_json(const struct link_probe_result *probe)
{
    if (!probe)
        return json_null();
    return json_pack("{s:b, s:o, s:f, s:f}", "done", probe->done, "error",
                     error_is_set(&probe->err) ? error_to_json(&probe->err) : json_null(),
                     "sent_mbit_s", mbit(probe->sent_bytes_s), "received_mbit_s",
                     mbit(probe->received_bytes_s));
}

json_t *link_to_json(struct service *s, const struct config_peer *peer)
{
    const char *name = peer->link.name;
    struct link_session *ls = peering_any(s->peering, name);
    struct link_limits *limits = peering_limits(s->peering);
    const struct shaper *shaper = link_limits_shaper(limits, name);
    struct link_session_info info;
    json_t *j, *session = json_null();

    if (ls && link_session_is_up(ls)) {
        link_session_get_info(ls, &info);
        session = session_to_json(&info);
    }
    j = json_pack("{s:s, s:s, s:s, s:b, s:f, s:s, s:o, s:o}", "site", s->config->name, "peer", name,
                  "address", peer->link.address, "connected", ls && link_session_is_up(ls),
                  "bwlimit_mbit_s", shaper ? mbit(shaper->rate_bytes_s) : 0.0, "bwlimit_source",
                  link_limits_is_manual(limits, name) ? "manual" : "timetable", "session", session,
                  "probe", probe_to_json(link_probe_result(s->probes, name)));
    return j;
}

/* --- metrics ------------------------------------------------------------------------------- */

struct metric {
    const char *name, *type, *help;
    double (*value)(const struct link_session_info *info);
};

static double rtt_seconds(const struct link_session_info *i)
{
    return (double)i->tcp_rtt_us / 1e6;
}

static double rtt_min_seconds(const struct link_session_info *i)
{
    return (double)i->tcp_min_rtt_us / 1e6;
}

static double sent_bytes(const struct link_session_info *i)
{
    return (double)i->stats.goodput_sent_bytes;
}

static double received_bytes(const struct link_session_info *i)
{
    return (double)i->stats.goodput_received_bytes;
}

static double wire_sent_bytes(const struct link_session_info *i)
{
    return (double)i->stats.wire_sent_bytes;
}

static double wire_received_bytes(const struct link_session_info *i)
{
    return (double)i->stats.wire_received_bytes;
}

static double resent_bytes(const struct link_session_info *i)
{
    return (double)i->stats.resent_bytes;
}

static double retransmits(const struct link_session_info *i)
{
    return (double)i->retransmits;
}

static double segments(const struct link_session_info *i)
{
    return (double)i->segments_out;
}

static double stripes(const struct link_session_info *i)
{
    return (double)i->stats.stripes;
}

static double outages(const struct link_session_info *i)
{
    return (double)i->outages;
}

static double queue_seconds(const struct link_session_info *i)
{
    return (double)i->queue_ns / 1e9;
}

static double capacity(const struct link_session_info *i)
{
    return (double)i->capacity_bytes_s;
}

static const struct metric metrics[] = {
    {"ferry_link_rtt_seconds", "gauge", "Round trip time now, mean of the stripes.", rtt_seconds},
    {"ferry_link_rtt_min_seconds", "gauge", "Least round trip time of the open stripes.",
     rtt_min_seconds},
    {"ferry_link_sent_bytes_total", "counter", "Payload that the peer acknowledged.", sent_bytes},
    {"ferry_link_received_bytes_total", "counter", "Payload delivered here.", received_bytes},
    {"ferry_link_wire_sent_bytes_total", "counter", "Frames sent, headers included.",
     wire_sent_bytes},
    {"ferry_link_wire_received_bytes_total", "counter", "Frames received, headers included.",
     wire_received_bytes},
    {"ferry_link_resent_bytes_total", "counter", "Payload sent once more, on another stripe.",
     resent_bytes},
    {"ferry_link_tcp_retransmits_total", "counter", "Segments that TCP sent again.", retransmits},
    {"ferry_link_tcp_segments_total", "counter", "Segments that TCP sent.", segments},
    {"ferry_link_stripes", "gauge", "Open connections.", stripes},
    {"ferry_link_outages_total", "counter", "Times without any connection.", outages},
    {"ferry_link_queue_seconds", "gauge", "Queue that stands before the line's bottleneck.",
     queue_seconds},
    {"ferry_link_capacity_bytes_per_second", "gauge", "Best rate seen lately while busy.",
     capacity},
};

static void put_metric(FILE *out, const struct service *s, const struct metric *m)
{
    metrics_put_head(out, m->name, m->type, m->help);
    for (unsigned i = 0; i < s->config->peer_count; i++) {
        const char *peer = s->config->peers[i].link.name;
        struct link_session *ls = peering_any(s->peering, peer);
        struct link_session_info info;

        if (!ls)
            continue;
        link_session_get_info(ls, &info);
        fprintf(out, "%s{peer=\"%s\"} %.9g\n", m->name, peer, m->value(&info));
    }
}

void link_put_metrics(FILE *out, const struct service *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(metrics); i++)
        put_metric(out, s, &metrics[i]);
    metrics_put_head(out, "ferry_link_up", "gauge", "Whether the peer is connected.");
    for (unsigned i = 0; i < s->config->peer_count; i++) {
        const char *peer = s->config->peers[i].link.name;
        struct link_session *ls = peering_any(s->peering, peer);

        fprintf(out, "ferry_link_up{peer=\"%s\"} %d\n", peer, ls && link_session_is_up(ls));
    }
}
