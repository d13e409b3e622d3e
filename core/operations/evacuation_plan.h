/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of an evacuation: which VM goes next, and where. Pure: no clock, no libvirt.
 *
 *   WAITING -> MOVING -> MOVED
 *      ^         |-----> IN_DOUBT
 *      |         |-----> WAITING, at the next site: this one refused it
 *      |         `-----> WAITING, once more: what failed may succeed
 *      `-- resume --- STAYS: no site took it, or it failed too often
 *
 * So many at a time (jobs) copy their disks. What a move does after that waits more than it sends, the last round trips
 * above all; so the next begins then, and gets ready meanwhile.
 *
 * First those that the operator put first, in that order; then by their policies' priority; then the shortest predicted first, so that as many as
 * possible are away when something breaks.
 */
#ifndef FERRY_CORE_EVACUATION_PLAN_H
#define FERRY_CORE_EVACUATION_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/virt/domain_xml.h"
#include "netlink/wire.h"

enum {
    EVACUATION_VMS_MAX = 512,
    EVACUATION_SITES_MAX = 8,
    EVACUATION_TRIES = 3,   /* of one VM at one site */
    EVACUATION_PAUSE_S = 5, /* before another try */
};

enum evacuation_state { VM_WAITING, VM_MOVING, VM_MOVED, VM_STAYS, VM_IN_DOUBT };

struct evacuation_vm {
    char name[DOMAIN_NAME_BYTES];
    unsigned found; /* place among those found, from 0: the order does not change it */
    enum evacuation_state state;
    bool copied;           /* its disks are, of one that is moving */
    unsigned first;        /* place among those put first, from 1; 0: none */
    unsigned priority;     /* its policy's: higher ones go first, after those put first */
    uint64_t predicted_ms; /* of its move; 0: not known */
    uint64_t bytes;        /* disks and memory: stands in for it */
    unsigned site;         /* index: where it goes next, or went */
    unsigned tries;        /* at that site */
    uint64_t not_before_ns;
    char move[40];       /* the last move's id; empty: none */
    uint64_t started_ns; /* that one */
    struct error reason; /* why it was refused or failed last */
};

struct evacuation_plan {
    char sites[EVACUATION_SITES_MAX][WIRE_NAME_BYTES];
    unsigned site_count, jobs;
    struct evacuation_vm vms[EVACUATION_VMS_MAX];
    unsigned count;
};

/* Puts the VMs into the order in which they go. */
void evacuation_order(struct evacuation_plan *p);
/* The next to start; NULL: nothing can start now. */
struct evacuation_vm *evacuation_next(struct evacuation_plan *p, uint64_t now_ns);
unsigned evacuation_count(const struct evacuation_plan *p, enum evacuation_state state);

/* What came of a move: it moved (why NULL); was refused before it began; or failed. */
void evacuation_moved(struct evacuation_vm *vm);
void evacuation_refused(struct evacuation_plan *p, struct evacuation_vm *vm,
                        const struct error *why);
void evacuation_failed(struct evacuation_plan *p, struct evacuation_vm *vm, const struct error *why,
                       uint64_t now_ns);
/* Those that stay are tried again, from the first site on. */
void evacuation_retry(struct evacuation_plan *p);

/* Until the last is away, by the predictions: of what runs (@run_ms of it is over) and what waits, over the jobs.
 * -1: not known. */
int64_t evacuation_eta_ms(const struct evacuation_plan *p, uint64_t now_ns);
const char *evacuation_state_name(enum evacuation_state state);

#endif
