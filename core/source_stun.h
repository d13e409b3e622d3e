/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stun at the source: the controller (memory/stun.h) beside a move's RAM rounds, and what carries out its answers.
 *
 *   IDLE --RAM begins--> ASKING (QEMU for its vCPUs' threads) --groups found--> READY --first level--> SAVING
 *                          `--none-------> NONE (downtime alone)                      --journalled--> ACTIVE
 *
 * Before the first change the groups' limits are journalled, so that a ferryd that is killed puts them back when it
 * starts. They are put back as soon as RAM rounds end, however they end.
 */
#ifndef FERRY_CORE_SOURCE_STUN_H
#define FERRY_CORE_SOURCE_STUN_H

#include "memory/stun.h"

struct move;
struct move_source;
struct vcpu_groups;

/* What the report says of it. */
struct stun_report {
    const char *actuator; /* "none", "cgroup", "auto-converge" */
    const char *verdict;
    unsigned level, max_level; /* of STUN_WHOLE */
    double level_ns;           /* sum of level x time */
    uint64_t stunned_ns;
    double cpu_taken_ns;
    uint64_t dirty_before_bytes_s, dirty_bytes_s; /* by itself; as QEMU saw it last */
};

enum source_stun_state {
    SOURCE_STUN_IDLE,
    SOURCE_STUN_ASKING,
    SOURCE_STUN_NONE,
    SOURCE_STUN_READY,
    SOURCE_STUN_SAVING,
    SOURCE_STUN_ACTIVE,
};

struct source_stun {
    enum source_stun_state state;
    struct stun control;
    struct vcpu_groups *groups;
    unsigned applied; /* level that is set */
    bool sample_asked, sample_running;
    uint64_t sampled_bytes_s;
    uint64_t begun_ns, ticked_ns;
    uint64_t used_ns;
    double used_total, used_busiest; /* by the vCPUs while nothing was taken, in processors */
};

/* Every tick while RAM rounds may run. */
void source_stun_tick(struct move_source *ms, uint64_t now_ns);
/* Whatever was taken is given back, now. */
void source_stun_end(struct move_source *ms);
void source_stun_free(struct move_source *ms);
/* After a restart: puts back what the record of @m says. */
void source_stun_recover(struct move *m);

#endif
