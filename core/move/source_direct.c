/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that goes from QEMU to QEMU, past both ferryd: for networks that both sites trust with it (direct-memory in
 * allow =). libvirt at the target chooses the port, from its own range (migration_port_min in qemu.conf).
 *
 * What is missing then is the sight of the stream: that memory is under way, and how much of it, is what libvirt says
 * of its job a few times a second; a hold, the codec, the stun and waiting for the log cannot be (core/policy/policy_settle.h).
 * What stays is the decision: FINISH3 is held at the target until its disks are complete, its reply here until the
 * move is decided, and the copy there is paused until then. Bandwidth limits, of the move and of the link, are QEMU's
 * to keep: they are set as its speed, and so hold for memory and for what else the link carries, each by itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_source_private.h"

/* The host of "HOST:PORT" or "[HOST]:PORT". */
static void host_of(const char *address, char *buf, size_t cap)
{
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t)(colon - address) : strlen(address);

    if (len >= 2 && address[0] == '[' && address[len - 1] == ']')
        snprintf(buf, cap, "%.*s", (int)len - 2, address + 1);
    else
        snprintf(buf, cap, "%.*s", (int)len, address);
}

int source_direct_uri(const struct move_source *ms, char *buf, size_t cap, struct error *err)
{
    const struct config_peer *peer = config_peer_by_name(ms->service->config, ms->move->peer);
    char host[LINK_ADDRESS_BYTES] = "";
    bool v6;

    if (peer && peer->memory_address[0])
        snprintf(host, sizeof(host), "%s", peer->memory_address);
    else if (peer)
        host_of(peer->link.address, host, sizeof(host));
    v6 = strchr(host, ':') != NULL;
    if (!host[0] || snprintf(buf, cap, v6 ? "tcp://[%s]" : "tcp://%s", host) >= (int)cap)
        return error_set(err, -EINVAL, "find the target's host",
                         "add memory_address = HOST to its [peer] section",
                         "no address of %s is known for its memory", ms->move->peer);
    return 0;
}

void source_direct_begin(struct move_source *ms)
{
    if (ms->move->phase >= MOVE_MEMORY || ms->sw.state != SOURCE_MOVING)
        return;
    source_channels_mirrored(ms);
    move_set_phase(ms->move, MOVE_MEMORY);
}

/* The smaller of the move's limit and the link's; 0: none. */
static uint64_t speed_mib_s(const struct move_source *ms)
{
    const struct shaper *link =
        link_limits_shaper(peering_limits(ms->service->peering), ms->move->peer);
    uint64_t of_move = ms->move->shaper.rate_bytes_s, of_link = link ? link->rate_bytes_s : 0;
    uint64_t least = of_move && of_link ? MIN(of_move, of_link) : MAX(of_move, of_link);

    return least ? MAX(least >> 20, UINT64_C(1)) : 0;
}

void source_direct_tick(struct move_source *ms)
{
    uint64_t wanted = speed_mib_s(ms);

    if (!ms->direct.memory || ms->move->phase != MOVE_MEMORY || !ms->migrating ||
        (ms->direct.speed_set && wanted == ms->direct.speed_mib_s))
        return;
    ms->direct.speed_set = true;
    ms->direct.speed_mib_s = wanted;
    ms->move->pending++;
    virt_set_speed(ms->service->virt, ms->move->info.uuid, (unsigned)wanted,
                   source_channels_limit_set, ms);
}
