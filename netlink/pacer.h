/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the queue in front of a link's bottleneck short, so that urgent bytes do not wait behind bulk.
 *
 * Several BBR connections side by side fill the bottleneck's queue: each takes the others' queue for its own
 * round trip's growth. The pacer sees the session as a whole, what all stripes deliver and by how much the
 * round trip exceeds its minimum, and caps their common sending rate just below what makes a queue stand.
 *
 *   SEARCH --a queue?--> CONFIRM --it stands--> DRAIN --it is gone--> CRUISE --now and then--> PROBE (more, for two
 *   (half again as       (less than             ^  |                  | | ^                      |  epochs: what is
 *    fast as what         what arrives,         |  |                  | | `------ no more -------'  delivered tells whether
 *    arrives)             for an epoch)         |  |                  | `-it stands: less           the cap is the line's or
 *     ^ ^                   |                   |  |                  |                             was late processors' doing)
 *     | `------ no ---------'                   |  |                  |
 *     |                                         `--|-it stays long----'
 *     `------- after a while ------ YIELD <--------' it stays though much less is sent: it is others', or the line has
 *                                   (no cap)         become longer, and what the round trip is now is where a queue begins
 *
 * Processors that are late look like a queue, too: acknowledgements come late, and what is sent falls behind. An epoch
 * in which connections ran dry again and again says nothing of the line; a first sign of a queue is looked at again.
 *
 * An engine: samples go in, a rate comes out.
 */
#ifndef FERRY_NETLINK_PACER_H
#define FERRY_NETLINK_PACER_H

#include <stdbool.h>
#include <stdint.h>

enum { PACER_HISTORY = 8 };

enum pacer_state {
    PACER_SEARCH,
    PACER_CONFIRM,
    PACER_DRAIN,
    PACER_CRUISE,
    PACER_PROBE,
    PACER_YIELD,
};

struct pacer {
    enum pacer_state state;
    uint64_t rate_bytes_s;     /* the cap; 0: none */
    uint64_t ceiling_bytes_s;  /* at which a queue stood the last time; 0: forgotten */
    uint64_t capacity_bytes_s; /* the best rate delivered lately; 0: not known */
    uint64_t queue_ns;         /* standing in the last epoch */
    /* The round trip without a queue, where that is more than TCP knows of; 0: it is not. */
    uint64_t way_ns;
    bool doubted;             /* DRAIN: of a queue that may not be of our making, */
    uint64_t drained_from_ns; /* and so long was it after the first epoch of that */
    unsigned rises, near_epochs, high_epochs, drain_epochs, signs, sign_epochs;
    uint64_t until_ns; /* YIELD */
    /* PROBE: what was delivered before it; the cap if it was in vain, which makes the next pause longer. */
    uint64_t probe_from_bytes_s, probe_back_bytes_s;
    uint64_t probe_not_before_ns, probe_pause_ns;
    unsigned probe_epochs;
    /* The running epoch. */
    uint64_t since_ns, since_bytes, least_queue_ns;
    unsigned samples, dry_samples;
    bool busy;                  /* in all of them */
    uint64_t recent_bytes_s[3]; /* of the latest epochs */
    struct pacer_point {
        uint64_t now_ns, delivered_bytes;
    } history[PACER_HISTORY]; /* a ring of the latest samples */
    unsigned history_next;
};

struct pacer_sample {
    uint64_t now_ns;
    uint64_t delivered_bytes; /* acknowledged by TCP since the session began, all stripes */
    uint64_t rtt_ns, rtt_min_ns;
    bool busy; /* more waits to be sent */
    bool dry;  /* but TCP has, or had since the last sample, nothing: a late processor */
};

/* Takes a sample, every 20 ms or so. True when the cap changed. */
bool pacer_take(struct pacer *p, const struct pacer_sample *sample);
/* The stripes are gone: what is known of the rate is kept, the running epoch is not. */
void pacer_pause(struct pacer *p);

const char *pacer_state_name(enum pacer_state state);

#endif
