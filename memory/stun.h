/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stun during page send: how much of the guest's CPU time is taken so that its memory converges.
 *
 * Pre-copy sends memory in rounds; each round sends what was dirtied during the one before. Rounds shrink as long
 * as the guest dirties less than the stream carries, and the guest is stopped when what remains fits the downtime
 * limit. When they do not shrink, the guest is slowed down, just enough: to KEEP of what the stream carries.
 *
 *   what a round shows             | what follows
 *   -------------------------------+-------------------------------------------------------------------
 *   it is at most KEEP of the last | nothing is taken, or less than before
 *   it is a little smaller         | the guest's own rate is known: take what exceeds KEEP of the stream's
 *   it is as large                 | the guest rewrites all it uses, and the round cannot say how fast: a sample of
 *                                  | a second does, as soon as the stunned guest does not get through all it uses
 *                                  | in it; without one, take half of what is left, and see
 *   (all the time)                 | what chance or a wrong guess took too much of is given back, and the other way
 *                                  | round: KEEP holds on the whole
 *   nothing is carried (an outage) | nothing is taken: a stunned guest gains nothing while the link is away
 *
 * The downtime limit starts low and grows to what the wanted downtime leaves after round trips and loading.
 *
 * A pure controller: no clock, no QEMU. The owner says what it sees about every 100 ms and does what it answers.
 */
#ifndef FERRY_MEMORY_STUN_H
#define FERRY_MEMORY_STUN_H

#include <stdbool.h>
#include <stdint.h>

enum { STUN_WHOLE = 1000, STUN_HISTORY = 16 };

enum stun_verdict {
    STUN_UNKNOWN,   /* the first round is not over */
    STUN_CONVERGES, /* unaided */
    STUN_NEEDED,    /* and enough */
    STUN_CANNOT,    /* the allowed maximum is not enough */
};

struct stun_config {
    unsigned max_level;            /* of STUN_WHOLE; 0: never stun */
    uint64_t downtime_ms;          /* the limit to begin with */
    uint64_t downtime_budget_ms;   /* what the guest may stand still altogether */
    uint64_t downtime_double_ns;   /* it doubles every so long; 0: it does not */
    uint64_t downtime_last_ms;     /* what it may grow to, so or when the maximum is not enough */
    uint64_t downtime_overhead_ms; /* of that, what loading and libvirt take */
};

struct stun_input {
    uint64_t now_ns, rtt_ns;
    uint64_t stream_bytes;  /* of memory, taken from QEMU so far */
    uint64_t iteration;     /* QEMU's: 1 = the first round */
    uint64_t dirty_bytes_s; /* QEMU's: of the round that ended last */
    struct stun_sample {
        unsigned number;  /* 1 = the first, 0: none yet */
        uint64_t bytes_s; /* dirtied in one second */
        unsigned left;    /* of STUN_WHOLE, what the guest kept in it */
    } sample;
};

struct stun_output {
    unsigned level; /* share of its CPU time that the guest is deprived of, of STUN_WHOLE */
    uint64_t downtime_limit_ms;
    enum stun_verdict verdict;
    bool wants_sample;      /* the rounds do not tell what the guest dirties */
    uint64_t dirty_bytes_s; /* what the guest would dirty by itself, as far as it is known */
};

struct stun {
    struct stun_config config;
    unsigned left; /* of its CPU time that the guest keeps, of STUN_WHOLE */
    /* Of dirty_bytes_s: it is known well enough to be acted upon; it may be more. */
    bool rate_known, rate_least;
    uint64_t dirty_bytes_s;
    unsigned samples; /* seen */
    unsigned guesses; /* that dirty_bytes_s is made of, up to a limit */
    uint64_t limit_ms;
    enum stun_verdict verdict;
    uint64_t begun_ns;
    uint64_t at_max_ns; /* since when the allowed maximum is not enough; 0: it is */
    /* In the seconds of samples while it was held back: dirtied, carried; and the rate of the last of them. */
    double did_bytes, carried_bytes, carried_bytes_s;
    /* The running round. */
    uint64_t iteration, round_ns, round_bytes;
    uint64_t round_dirtied; /* in the last one, bytes */
    unsigned round_left;    /* `left` when it began: the news of a round's end comes late */
    double left_ns;         /* sum of left x time */
    uint64_t seen_ns, moved_ns, moved_bytes;
    struct stun_point {
        uint64_t now_ns, stream_bytes;
    } history[STUN_HISTORY];
    unsigned history_next;
};

void stun_start(struct stun *s, const struct stun_config *config, uint64_t now_ns);
void stun_update(struct stun *s, const struct stun_input *in, struct stun_output *ret);

const char *stun_verdict_name(enum stun_verdict verdict);

#endif
