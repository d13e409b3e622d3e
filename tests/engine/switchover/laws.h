/* SPDX-License-Identifier: Apache-2.0 */
/* What happenings are made of: what libvirt, the sessions and the journals do by themselves. See world.h. */
#ifndef FERRY_TESTS_ENGINE_SWITCHOVER_LAWS_H
#define FERRY_TESTS_ENGINE_SWITCHOVER_LAWS_H

#include "tests/engine/switchover/world.h"

enum {
    SOURCE_WISHES = 1 << RIGHT_WISH_HOLD | 1 << RIGHT_WISH_GIVE | 1 << RIGHT_WISH_KEEP,
    TARGET_WISHES = 1 << RIGHT_WISH_CLAIM | 1 << RIGHT_WISH_NOTE,
};

void world_put(struct puts *p, unsigned record);
unsigned world_take(struct puts *p);
void world_say(uint8_t *word);
void run_source_copy(struct world *w);
void end_rpc_at_source(struct world *w);
void end_rpc_at_target(struct world *w);
void source_event(struct world *w, enum switchover_source_event e);
void target_event(struct world *w, enum switchover_target_event e);
void fail_call(struct world *w);
void end_session(struct world *w);
void orphan_wishes(struct world *w, unsigned wishes);
void crash_source(struct world *w);
void crash_target(struct world *w);
void restart_source(struct world *w);
void restart_target(struct world *w);
void kill_libvirtd(struct world *w, int resumes);
void reboot_host(struct world *w);

/* What a happening with the witness comes to: as happen(). */
int consult(struct world *w, enum happening h);

#endif
