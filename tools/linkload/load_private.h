/* SPDX-License-Identifier: Apache-2.0 */
/* What load.c (the two sides) and load_report.c (what they print) share. Not for others. */
#ifndef FERRY_TOOLS_LINKLOAD_LOAD_PRIVATE_H
#define FERRY_TOOLS_LINKLOAD_LOAD_PRIVATE_H

#include "netlink/shaper.h"
#include "tools/linkload/load.h"

enum { LOAD_STREAMS_MAX = 256, LOAD_ANSWERS_MAX = 65536 };

struct load;

struct load_stream {
    struct load *load;
    struct stream *stream;
    char kind;   /* 'P' payload, 'Q' questions; 0: not known yet */
    uint64_t at; /* bytes of pattern written or read */
    bool over;
};

struct load {
    const struct load_options *options;
    uv_loop_t loop;
    struct tls_identity *identity;
    struct link *link;
    struct link_session *session;
    struct load_stream streams[LOAD_STREAMS_MAX + 1];
    unsigned stream_count;
    struct pattern_block *pattern;
    uv_timer_t tick, question, deadline;
    uv_signal_t terminate;
    uv_poll_t input;
    bool listens; /* to standard input */
    struct shaper limit;
    bool sender, ending, done;
    bool wrong; /* a byte was not what it should be */
    const char *why;
    struct error closed_why;
    uint32_t *answer_us; /* round trips of the questions */
    unsigned answers;
};

uint64_t load_bytes(const struct load *l);
void load_print_tick(struct load *l);
void load_print_end(struct load *l);

#endif
