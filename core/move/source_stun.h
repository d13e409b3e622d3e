/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stun at the source: the controller (memory/stun.h) beside a move's RAM rounds, and what carries out its answers.
 *
 *   IDLE --disks start--> ASKING (QEMU for its vCPUs' threads) --actuator chosen--> READY --first level--> SAVING
 *                           `--none------> NONE (downtime alone)                           --journalled--> ACTIVE
 *
 * The actuators, best first:
 *   dirty-limit    QEMU holds each vCPU's dirty rate, where KVM's dirty ring is on
 *   cgroup         the bandwidth of the vCPUs' cgroups
 *   auto-converge  QEMU's throttle; what it may take at most is steered, and it follows at the next round
 *
 * Before the first change what is to be undone is journalled, so that a ferryd that is killed undoes it when it
 * starts (QEMU ends auto-converge with the migration). It is undone as soon as RAM rounds end, however they end.
 */
#ifndef FERRY_CORE_SOURCE_STUN_H
#define FERRY_CORE_SOURCE_STUN_H

#include "core/config.h"
#include "memory/stun.h"

struct move;
struct move_source;
struct vcpu_groups;

/* What the report says of it. */
struct stun_report {
    enum stun_actuator actuator; /* used; BEST: none yet */
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
    enum stun_actuator actuator;
    struct vcpu_groups *vcpus;
    bool steering;    /* a command to QEMU is under way */
    bool stuck;       /* what was taken could not be put back yet */
    unsigned applied; /* level that is set */
    struct source_sample {
        uint64_t begun_ns; /* 0: none is being taken */
        uint64_t look_ns;  /* when QEMU is asked for it; 0: not yet */
        uint64_t again_ns; /* QEMU would not: not before */
        double left_ns;    /* sum of what the guest keeps x time */
        bool wanted;       /* by the controller */
        struct stun_sample last;
    } sample;
    uint64_t begun_ns, ticked_ns;
    uint64_t used_ns;
    double used_total, used_busiest; /* by the vCPUs while nothing was taken, in processors */
    double trim;                     /* of the limit, above what is to be kept */
};

/* While the disks are copied, when QEMU still takes a choice of capabilities. */
void source_stun_prepare(struct move_source *ms);
/* Every tick while RAM rounds may run. */
void source_stun_tick(struct move_source *ms, uint64_t now_ns);
/* As hard as can be, and with as much downtime as there may be, from now on. */
void source_stun_harder(struct move_source *ms);
/* Whatever was taken is given back, now. */
void source_stun_end(struct move_source *ms);
void source_stun_free(struct move_source *ms);
/* After a restart: puts back what the record of @m says. */
void source_stun_recover(struct move *m);

#endif
