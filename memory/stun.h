/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stun during page send: how much of the guest's CPU time is taken so that its memory converges.
 *
 * Pre-copy sends memory in rounds; each round sends what was dirtied during the one before. The guest is stopped when
 * what remains fits the downtime limit. A guest that dirties a share k of what the stream carries makes each round k of
 * the last, so from a round of R to a last one of L are sent, beyond L,
 *
 *     R - L              and while that goes on the guest works at k of the line's rate, whatever the order: the mean
 *     -----              of its rate is 1 - (R - L) / (what is sent), by the same sum. To hold it just below the line's
 *     1 - k              rate sends a working set a dozen times, and takes more of the guest in all than to hold it lower
 *                        for a shorter time: at k = 0.9 and twice the line's rate 5.5 (R - L) / line, at 0.5 1.5.
 *
 * So the aim follows from what may be sent again, `resend_permille` of what the first round took: k is what that buys,
 * from AIM_LEAST (a budget that is used up) to KEEP (more than enough: just what converges).
 *
 *   what a round shows             | what follows
 *   -------------------------------+-------------------------------------------------------------------
 *   the guest's own rate is within | nothing is taken
 *   the aim, or about half of what |
 *   the stream carries             |
 *   the guest's own rate is above  | take what exceeds the aim of what the stream carries
 *   it dirtied all that is used    | the round cannot say how fast: a sample of a second does, as soon as the stunned
 *                                  | guest does not get through all it uses in it; without one, take half of what
 *                                  | is left, and see
 *   (all the time)                 | what chance or a wrong guess took too much of is given back, and the other way
 *                                  | round: the aim holds on the whole
 *   nothing is carried (an outage) | nothing is taken: a stunned guest gains nothing while the link is away
 *
 * What a page costs that is sent again is not what it cost at first: a few changed bytes go as just these. So nothing is
 * taken before a MiB has been sent again, and shows it. A page that was dirtied before its turn in a round is sent again
 * in the next, unchanged, and costs nothing; such pages come in runs, in one round many and in the other few. So what
 * the stream carries is what the wire does, by what pages cost in the last rounds together.
 *
 * The downtime limit starts low, and grows to what the wanted downtime leaves after round trips and loading: step by step
 * while the guest is free, at once when it is held back, which costs it more. QEMU multiplies it by the rate of its last
 * tenth of a second, and stops the guest as soon as what is left fits: pages which cost nothing (unchanged after all) would
 * make it stop with several times what the line carries in that time. So the limit is raised at the end of a round only,
 * and that is read no faster than the line carries the dearest pages, `allowance_bytes` by `allowance_bytes`:
 *
 *      FAST ---- the round's rest is short ----> SLOW, limit low ---- SETTLE_NS ----> SLOW, limit raised
 *       ^                                                                                  |
 *       `--- SETTLE_NS --- SLOW, limit low <--- the next round's rest is long -------------'
 *
 * Where the line's rate varies, the limit is lowered by as much as its peaks are above the mean.
 *
 * A pure controller: no clock, no QEMU. The owner says what it sees about every 100 ms and does what it answers.
 */
#ifndef FERRY_MEMORY_STUN_H
#define FERRY_MEMORY_STUN_H

#include <stdbool.h>
#include <stdint.h>

enum { STUN_WHOLE = 1000, STUN_HISTORY = 16, STUN_ROUNDS = 4 };

enum stun_verdict {
    STUN_UNKNOWN,   /* the first round is not over */
    STUN_CONVERGES, /* unaided */
    STUN_NEEDED,    /* and enough */
    STUN_CANNOT,    /* the allowed maximum is not enough */
};

struct stun_config {
    unsigned max_level;       /* of STUN_WHOLE; 0: never stun */
    unsigned resend_permille; /* what may be sent again, of the first round's bytes on the wire */
    uint64_t downtime_ms;     /* the limit to begin with */
    uint64_t downtime_budget_ms;   /* what the guest may stand still altogether */
    uint64_t downtime_double_ns;   /* it doubles every so long; 0: it does not */
    uint64_t downtime_last_ms;     /* what it may grow to, so or when the maximum is not enough */
    uint64_t downtime_overhead_ms; /* of that, what loading and libvirt take */
};

struct stun_input {
    uint64_t now_ns, rtt_ns;
    uint64_t stream_bytes; /* of memory, taken from QEMU so far */
    uint64_t wire_bytes;   /* what that became */
    /* QEMU's, of one and the same moment, which may be a little past. */
    uint64_t iteration; /* 1 = the first round */
    uint64_t remaining_bytes, processed_bytes;
    struct stun_sample {
        unsigned number;  /* 1 = the first, 0: none yet */
        uint64_t bytes_s; /* dirtied in one second */
        unsigned left;    /* of STUN_WHOLE, what the guest kept in it */
    } sample;
};

struct stun_output {
    unsigned level; /* share of its CPU time that the guest is deprived of, of STUN_WHOLE */
    uint64_t downtime_limit_ms;
    uint64_t
        allowance_bytes; /* what may be read of QEMU's stream until the next update; UINT64_MAX: any */
    enum stun_verdict verdict;
    bool may_need_stun;     /* when the first round is over, it seems */
    bool wants_sample;      /* the rounds do not tell what the guest dirties */
    uint64_t dirty_bytes_s; /* what the guest would dirty by itself, as far as it is known */
};

struct stun {
    struct stun_config config;
    unsigned left; /* of its CPU time that the guest keeps, of STUN_WHOLE */
    /* Of dirty_bytes_s: it is known well enough to be acted upon; it may be more. */
    bool rate_known, rate_least;
    uint64_t dirty_bytes_s;
    uint64_t set_bytes;    /* the most that was dirtied in a round */
    unsigned aim;          /* what the guest may dirty of what is carried, of STUN_WHOLE */
    unsigned samples;      /* seen */
    uint64_t sample_bytes; /* of the last of them */
    unsigned guesses;      /* that dirty_bytes_s is made of, up to a limit */
    bool shrinks;          /* the last round was smaller than the one before, or the first */
    uint64_t limit_ms, limit_said_ms;
    bool ending;       /* the round's rest is short */
    uint64_t ended_ns; /* since when that is so, or not */
    enum stun_verdict verdict;
    uint64_t begun_ns;
    uint64_t at_max_ns; /* since when the allowed maximum is not enough; 0: it is */
    /* In the seconds of samples while it was held back: dirtied, due by the aim; and the latter of the last of them. */
    double did_bytes, due_bytes, due_bytes_s;
    /* The first round: when it ended, what it took. */
    uint64_t first_ns, first_stream, first_wire;
    uint64_t best_wire_s; /* the best rate on the wire in a second */
    /* Later ones that were long enough to tell what pages cost that are sent again: how many, and the last of them. */
    unsigned rounds;
    struct stun_round {
        uint64_t stream_bytes, wire_bytes;
    } last[STUN_ROUNDS];
    /* On the wire, of a byte of the stream that is sent again: lately, and at most; 0: not known yet. */
    double cost, dearest;
    /* By the stream, of such pages, bytes a second; 0: not known yet. */
    uint64_t carried_s;
    /* The running round. */
    uint64_t iteration, round_bytes, round_wire;
    uint64_t round_size; /* what it began with: what was dirtied in the one before */
    unsigned round_left; /* `left` when it began: the news of a round's end comes late */
    /* Of the rounds that are looked at together: since when, dirtied in them, sum of left x time. */
    uint64_t span_ns, span_bytes;
    double left_ns;
    uint64_t seen_ns, moved_ns, moved_bytes;
    uint64_t span_ms;                        /* between the last two updates */
    uint64_t told_remaining, told_processed; /* by the last update */
    struct stun_point {
        uint64_t now_ns, stream_bytes, wire_bytes;
    } history[STUN_HISTORY];
    unsigned history_next;
};

void stun_start(struct stun *s, const struct stun_config *config, uint64_t now_ns);
void stun_update(struct stun *s, const struct stun_input *in, struct stun_output *ret);

const char *stun_verdict_name(enum stun_verdict verdict);

#endif
