/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every named maximum in one place, with the reason for its value.
 *
 * Whatever a peer, a guest, a file or an operator controls is held against one of these before it is
 * used. What an operator may tune is in core/config.h; these are the walls behind that.
 */
#ifndef FERRY_CORE_BASE_LIMITS_H
#define FERRY_CORE_BASE_LIMITS_H

#include <stdint.h>

/* --- netlink ---------------------------------------------------------------------------------- */

/* Payload of one frame. Small enough that an urgent frame waits < 5 ms behind one at 100 Mbit/s. */
#define LIMIT_FRAME_PAYLOAD_BYTES (64u * 1024u)

/* Streams of one session: 16 moves x (2 + 16 disks), rounded up. */
#define LIMIT_SESSION_STREAMS 512u

/* Bytes a peer may send on one stream beyond what its reader has consumed; 64 MiB covers 1 Gbit/s
 * at 500 ms. Also what out-of-order frames of one stream can occupy. */
#define LIMIT_STREAM_WINDOW_BYTES (64u * 1024u * 1024u)

/* Frames of one stream that are not acknowledged, and pieces received out of order: 64 MiB in frames of
 * 8 KiB. Keeps what a peer can make us hold close to the bytes it was granted. */
#define LIMIT_STREAM_RANGES 8192u

/* Stripes of one session (design: 1 to 16). */
#define LIMIT_SESSION_STRIPES 16u

/* Sessions and not yet authenticated connections of a ferryd: 16 peers in both directions, doubled;
 * more than that is an attack or a mistake. */
#define LIMIT_SESSIONS 64u
#define LIMIT_PENDING_HANDSHAKES 64u

/* A control message (JSON) between two sites; a domain XML of 256 KiB fits with its escapes. */
#define LIMIT_CONTROL_MESSAGE_BYTES (1024u * 1024u)

/* --- storage ---------------------------------------------------------------------------------- */

/* Disks of one VM that move: what fits one PCI bus of virtio disks without multifunction. */
#define LIMIT_DISKS_PER_MOVE 16u

/* One NBD request: QEMU sends at most 32 MiB (64 MiB is the protocol's customary cap, and only for
 * zeroes); a write's payload is bounded more tightly because it is held in memory. */
#define LIMIT_NBD_WRITE_BYTES (32u * 1024u * 1024u)

/* NBD options a client may send before it must choose an export; qemu sends 4. */
#define LIMIT_NBD_OPTIONS 32u
#define LIMIT_NBD_OPTION_BYTES 8192u

/* Requests of one NBD client that wait for their reply; QEMU keeps 16. */
#define LIMIT_NBD_REQUESTS_IN_FLIGHT 64u

/* Requests in flight to the target's disk, a disk. */
#define LIMIT_WRITER_IN_FLIGHT 32u

/* --- memory ----------------------------------------------------------------------------------- */

/* RAM blocks of a guest (each memory region with pages): QEMU machines have a dozen or two. */
#define LIMIT_RAM_BLOCKS 1024u

/* What one chunk of the RAM codec decodes to, and its operations with their data: what a decoder holds
 * at a time. Encoders close a chunk at half of that. */
#define LIMIT_RAM_CHUNK_BYTES (512u * 1024u)
#define LIMIT_RAM_CONTROL_BYTES (1024u * 1024u)

/* A page store: all of a large guest's RAM. A site offers no more than its configuration says. */
#define LIMIT_RAM_STORE_BYTES (UINT64_C(1) << 40)

/* The index of what lies on the target's disks: 1.2 TiB of blocks. */
#define LIMIT_DISK_INDEX_BYTES (UINT64_C(1) << 34)

/* --- core ------------------------------------------------------------------------------------- */

/* Moves running at a time, in both roles together; bounds threads and memory. */
#define LIMIT_MOVES 16u

/* One libvirt RPC frame: VIR_NET_MESSAGE_MAX is 32 MiB in libvirt 9. */
#define LIMIT_RPC_FRAME_BYTES (32u * 1024u * 1024u)

/* A request body of the control API. */
#define LIMIT_API_BODY_BYTES (64u * 1024u)

/* One answer of the witness: a key of ours is 60 bytes, its JSON and header 500. */
#define LIMIT_WITNESS_ANSWER_BYTES (64u * 1024u)

/* Members of the witness's cluster that can be named; etcd advises 7 at most. */
#define LIMIT_WITNESS_ENDPOINTS 9u

/* Finished moves kept in memory for `list` and `show`; the journal keeps them all. */
#define LIMIT_MOVES_REMEMBERED 256u

#endif
