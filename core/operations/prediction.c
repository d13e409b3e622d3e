/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/prediction.h"

#include <math.h>

#include "core/base/macros.h"

/* Measured on the reference system (docs/benchmarks.md, operations). */
enum {
    PREPARE_ROUND_TRIPS = 5, /* dialling, the move's words, libvirt's prepare */
    /* The new QEMU above all: half a second on an idle host, two on a busy one. */
    PREPARE_WORK_MS = 1500,
    RAMP_ROUND_TRIPS = 8,   /* until the copy has found the link's rate */
    ROUNDS_ROUND_TRIPS = 6, /* of memory: each round's end is waited for */
    DOWNTIME_ROUND_TRIPS_HALVES = 3,
    DOWNTIME_WORK_MS = 70,
    ROUNDS_MAX = 30,
};

/* Of the link's rate, what the copy keeps up over a whole move; of memory and of disks, what is left by the codec. What a
 * disk holds is not looked at: real files become 0.44, and noise stays what it is. */
#define COPY_SHARE 0.9
#define MEMORY_SHARE 0.6
#define DISK_SHARE 0.44
/* So much is compressed on two processors that have other work, too (core/disk/disk_packer.c); a faster link is not filled
 * any better for it. */
#define PACKED_BYTES_S 70e6
/* Of what the stream carries (memory/stun.h): a guest that dirties more than this is held back, if that is allowed; above
 * the second rounds do not shrink; and to between these two it is held, as what may be sent again allows. */
#define ALONE_SHARE 0.55
#define CONVERGING_SHARE 0.8
#define HELD_LEAST_SHARE 0.2
#define HELD_MOST_SHARE 0.92
/* What that comes to: pages of which little has changed go as that little. */
#define RESENT_SHARE 0.5

const char *prediction_verdict_name(enum prediction_verdict verdict)
{
    static const char *const names[] = {
        [PREDICTION_UNKNOWN] = "unknown",
        [PREDICTION_CONVERGES] = "converges",
        [PREDICTION_NEEDS_STUN] = "needs stun",
        [PREDICTION_CANNOT] = "cannot converge",
    };

    return names[verdict];
}

/* A guest that rewrites a set of pages in no order: from what is dirtied in one second, and in more. */
struct working_set {
    double bytes_s; /* as a moment begins */
    double bytes;   /* in the end; 0: no end is known */
};

static struct working_set working_set(const struct prediction_input *in)
{
    double second = (double)in->dirty_bytes_s, n = in->dirty_long_s, ratio, least = 0, most = 1;

    if (second <= 0 || in->dirty_long_bytes == 0 || n <= 1)
        return (struct working_set){.bytes_s = second};
    /* A sample has its error: a set that is rewritten several times in a second cannot be told from one that is not. */
    ratio = MIN(MAX((double)in->dirty_long_bytes / second, 1.2), n * 0.95);
    /* What is not dirtied in a second, x, makes it 1 + x + x^2 + ...: it grows with x. */
    for (unsigned i = 0; i < 20; i++) {
        double x = (least + most) / 2;

        if ((1 - pow(x, n)) / (1 - x) < ratio)
            least = x;
        else
            most = x;
    }
    return (struct working_set){.bytes = second / (1 - most),
                                .bytes_s = second / (1 - most) * -log(most)};
}

static double dirtied(const struct working_set *set, double seconds)
{
    return set->bytes > 0 ? set->bytes * (1 - exp(-set->bytes_s * seconds / set->bytes))
                          : set->bytes_s * seconds;
}

/* What a guest is deprived of that may dirty only @share of what the stream carries. */
static unsigned stun_percent(const struct prediction_input *in, double stream_bytes_s, double share)
{
    double kept = in->dirty_bytes_s > 0 ? share * stream_bytes_s / (double)in->dirty_bytes_s : 1;

    return kept >= 1 ? 0 : (unsigned)(100 * (1 - kept) + 0.999);
}

/* What is left when the guest may be stopped. */
static double last_bytes(const struct prediction_input *in, double stream_bytes_s)
{
    return stream_bytes_s * (double)in->downtime_max_ms / 2 / 1000;
}

/* What a held guest may dirty of what the stream carries, so that what the policy lets be sent again suffices. */
static double held_share(const struct prediction_input *in, double stream_bytes_s)
{
    struct working_set set = working_set(in);
    double first = (double)in->memory_bytes, last = last_bytes(in, stream_bytes_s);
    double again = RESENT_SHARE * first * in->resend_percent / 100 - last;
    double share = 1 - (dirtied(&set, first / stream_bytes_s) - last) / MAX(again, 1);

    return MIN(MAX(share, HELD_LEAST_SHARE), HELD_MOST_SHARE);
}

static void judge(const struct prediction_input *in, double stream_bytes_s, struct prediction *p)
{
    unsigned least = stun_percent(in, stream_bytes_s, CONVERGING_SHARE);
    unsigned held;

    if (stun_percent(in, stream_bytes_s, ALONE_SHARE) > 0) {
        held = stun_percent(in, stream_bytes_s, held_share(in, stream_bytes_s));
        p->stun_percent = MAX(least, MIN(held, in->stun_max_percent));
    }
    if (!in->dirty_known)
        p->verdict = PREDICTION_UNKNOWN;
    else if (p->stun_percent == 0)
        p->verdict = PREDICTION_CONVERGES;
    else
        p->verdict = least <= in->stun_max_percent ? PREDICTION_NEEDS_STUN : PREDICTION_CANNOT;
}

/* Bytes of memory sent in all; *ret_last: what was left for the stopped guest. A guest is held back from the first round's
 * end on: each is so much of the last. */
static double memory_rounds(const struct prediction_input *in, const struct prediction *p,
                            double stream_bytes_s, double *ret_last)
{
    double stun = MIN(p->stun_percent, in->stun_max_percent) / 100.0;
    double share = stun > 0 ? (1 - stun) * (double)in->dirty_bytes_s / stream_bytes_s : 1;
    double left = (double)in->memory_bytes, sent = 0;
    struct working_set set = working_set(in);

    for (unsigned round = 0; round < ROUNDS_MAX && left > last_bytes(in, stream_bytes_s); round++) {
        sent += left;
        left = MIN(round > 0 ? share * left : left, dirtied(&set, left / stream_bytes_s));
    }
    *ret_last = left;
    return sent + left;
}

/* Of the disks, as they are. */
static double copied_bytes_s(const struct prediction_input *in)
{
    double link = COPY_SHARE * (double)in->link_bytes_s;

    return in->compressed ? MIN(link / DISK_SHARE, PACKED_BYTES_S) : link;
}

void prediction_make(const struct prediction_input *in, struct prediction *ret)
{
    double rtt_ms = (double)in->rtt_us / 1000, link = (double)in->link_bytes_s, copy, stream, last,
           memory, disk_s;
    struct prediction p = {0};

    if (in->link_bytes_s == 0) {
        *ret = p;
        return;
    }
    copy = copied_bytes_s(in) - (double)in->disk_write_bytes_s;
    stream = link / MEMORY_SHARE;
    judge(in, stream, &p);
    memory = memory_rounds(in, &p, stream, &last);
    p.known = copy > 0.05 * link; /* else the guest's writes alone fill the link */
    if (!p.known)
        p.verdict = PREDICTION_CANNOT;
    disk_s = (double)in->disk_bytes / MAX(copy, 0.05 * link);
    p.prepare_ms = PREPARE_WORK_MS + (uint64_t)(PREPARE_ROUND_TRIPS * rtt_ms);
    p.disk_ms = (uint64_t)(1000 * disk_s + (in->disk_bytes ? RAMP_ROUND_TRIPS * rtt_ms : 0));
    p.downtime_ms = DOWNTIME_WORK_MS +
                    (uint64_t)(DOWNTIME_ROUND_TRIPS_HALVES * rtt_ms / 2 + 1000 * last / stream / 4);
    p.memory_ms = (uint64_t)(1000 * memory / stream + ROUNDS_ROUND_TRIPS * rtt_ms);
    p.total_ms = p.prepare_ms + p.disk_ms + p.memory_ms + p.downtime_ms;
    p.bytes = (uint64_t)(((double)in->disk_bytes + disk_s * (double)in->disk_write_bytes_s) *
                             (in->compressed ? DISK_SHARE : 1) +
                         memory * MEMORY_SHARE);
    *ret = p;
}

json_t *prediction_to_json(const struct prediction *p)
{
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:i}", "known", p->known, "total_ms",
                     (json_int_t)p->total_ms, "prepare_ms", (json_int_t)p->prepare_ms, "disk_ms",
                     (json_int_t)p->disk_ms, "memory_ms", (json_int_t)p->memory_ms, "downtime_ms",
                     (json_int_t)p->downtime_ms, "bytes", (json_int_t)p->bytes, "verdict",
                     prediction_verdict_name(p->verdict), "stun_percent", (int)p->stun_percent);
}
