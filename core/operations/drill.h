/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A drill: what is wanted of it, and what came of it. The way there is a move's (core/move/move_source.h), its end
 * core/switchover/switchover.h's; the clone's life is core/move/target_drill.c.
 */
#ifndef FERRY_CORE_DRILL_H
#define FERRY_CORE_DRILL_H

#include <jansson.h>
#include <stdbool.h>

#include "core/virt/domain_xml.h"

enum { DRILL_COMMAND_BYTES = 64, DRILL_OUTPUT_BYTES = 4096 };

enum drill_verdict {
    DRILL_OPEN, /* it has not come so far */
    DRILL_PASSED,
    DRILL_FAILED,
};

struct drill {
    char command[DRILL_COMMAND_BYTES]; /* a file of the target's folder of commands; empty: none */
    bool keep_disk;                    /* the clone's disks stay there, beside the disk's place */
    char network[64];                  /* the target's isolated one; empty: links are down */
    enum drill_verdict verdict;
    char agent[16];  /* the guest's: "answers", "silent", "none"; empty: not asked */
    int exit_status; /* of the command; 128 + signal */
    char output[DRILL_OUTPUT_BYTES]; /* the end of what it printed */
    char why[256];                   /* it failed */
};

/* The clone's name at the target: NAME.drill-ID. */
void drill_clone_name(const char *name, const char *move_id, char ret[DOMAIN_NAME_BYTES]);
/* What can be the name of a command: no path, nothing hidden. */
bool drill_is_command(const char *name);
const char *drill_verdict_name(enum drill_verdict verdict);

/* Wishes and result in one object; and back, cleaned of control characters (but the output's lines). */
json_t *drill_to_json(const struct drill *d);
/* -EPROTO: malformed. */
int drill_from_json(const json_t *json, struct drill *ret);

#endif
