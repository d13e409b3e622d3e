/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's side of the emulator: a UNIX stream socket, one command a line, one JSON answer a line.
 *
 *   set rtt=100 rate=1000 loss=0.1 queue=50     any of them; milliseconds, Mbit/s, percent
 *   cut [a-to-b|b-to-a]                         lose everything, in flight too; both ways by default
 *   mend [a-to-b|b-to-a]
 *   stats                                       settings and counters of both directions
 *
 * A failed command changes nothing and answers {"error": "..."}.
 */
#ifndef FERRY_TOOLS_WAN_CONTROL_H
#define FERRY_TOOLS_WAN_CONTROL_H

#include <poll.h>

#include "tools/wan/path.h"

/* Enough for a script, a bench and an operator at once. */
#define CONTROL_CLIENTS 8
#define CONTROL_LINE_BYTES 512

struct wan {
    struct path a_to_b;
    struct path b_to_a;
    int tun_a;
    int tun_b;
    bool offload; /* wanted; it is off while packets are lost singly */
    struct path_settings settings;
};

struct control {
    int listener;
    struct control_client {
        int fd; /* -1: free */
        size_t len;
        char line[CONTROL_LINE_BYTES];
    } clients[CONTROL_CLIENTS];
};

/* Applies checked settings to both directions and the offload that goes with them. 0 or -errno. */
int wan_apply(struct wan *w, const struct path_settings *s);

/* Reads one "key=value" into *s. Returns the reason (static text) when it cannot. */
const char *wan_parse_setting(struct path_settings *s, const char *word);

/* Listens at @path, replacing a stale socket. 0 or -errno. */
int control_listen(struct control *c, const char *path);

/* Fills 1 + CONTROL_CLIENTS entries; fd -1 where there is nothing to wait for. */
void control_poll(const struct control *c, struct pollfd *fds);

/* Serves what control_poll()'s entries report. */
void control_serve(struct control *c, const struct pollfd *fds, struct wan *w);

#endif
