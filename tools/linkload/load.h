/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load on the link, without VMs: one side sends a known pattern on some streams and asks small urgent
 * questions beside it; the other side checks every byte and answers. Both use netlink/ exactly as ferryd does.
 *
 *   send:    dial -> streams (first byte: kind) -> pattern ... until the time or the bytes are over -> end
 *   receive: listen -> verify, count, echo -> until the session ends
 *
 * Both print a JSON line every 100 ms, and one at the end; times are the monotonic clock's, one for both.
 */
#ifndef FERRY_TOOLS_LINKLOAD_LOAD_H
#define FERRY_TOOLS_LINKLOAD_LOAD_H

#include "netlink/link.h"
#include "tools/linkload/pattern.h"

struct load_options {
    struct link_config link;
    struct link_peer peer;
    const char *folder; /* key.pem and certificate.pem */
    enum pattern pattern;
    enum care care;
    unsigned streams;
    double seconds;          /* send for this long; 0: until @bytes */
    uint64_t bytes;          /* per stream; 0: until @seconds */
    double question_after_s; /* when the questions begin */
    unsigned question_ms;    /* an urgent question every so often; 0: none */
    bool verify;             /* receive: look at each byte */
    bool stall;              /* receive: never read a payload stream */
    uint64_t limit_bytes_s;  /* send: a bandwidth limit; 0: none */
    bool listen_to_stdin;    /* send: lines "limit BYTES_S" change it meanwhile */
};

/* Runs to the end. The process's exit status. */
int load_send(const struct load_options *o);
int load_receive(const struct load_options *o);

#endif
