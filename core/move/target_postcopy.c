/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy at the target: COMMIT was heard, FINISH3 has passed, and pages are at the source.
 *
 * Whether they have all arrived is libvirt's word alone, asked for again and again: it is the same whether this ferryd
 * has seen the beginning or not, over whatever channels they came. A channel that broke is made again by the source; the
 * bytes then pass as they are, because the codec's halves have forgotten each other.
 */
#include <errno.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_target_private.h"

enum { WATCH_MS = 50, WATCH_RUNNING_MS = 500 };

void target_postcopy_say(struct move_target *mt)
{
    move_target_send(
        mt, json_pack("{s:s, s:b}", "type", "pulls", "running", mt->move->phase >= MOVE_POSTCOPY));
}

static void note_running(struct move_target *mt)
{
    if (mt->move->phase >= MOVE_POSTCOPY)
        return;
    move_set_phase(mt->move, MOVE_POSTCOPY);
    target_postcopy_say(mt);
}

static void on_pages(void *user, const struct error *err, enum virt_pages pages)
{
    struct move_target *mt = user;

    mt->pages_running = false;
    mt->pages_at_ns = clock_now_ns() +
                      (mt->move->phase >= MOVE_POSTCOPY ? WATCH_RUNNING_MS : WATCH_MS) * NS_PER_MS;
    if (err->code || mt->sw.state != TARGET_PULLING) {
        /* libvirtd is away, or it is over */
    } else if (pages == VIRT_PAGES_OUTSTANDING || pages == VIRT_PAGES_BROKEN) {
        note_running(mt);
    } else if (pages == VIRT_PAGES_DONE) {
        note_running(mt);
        move_set_phase(mt->move, MOVE_RESUMED);
        move_target_step(mt, TARGET_ON_PAGES_DONE);
    } else if (pages == VIRT_PAGES_OFF) {
        move_target_step(mt, TARGET_ON_COPY_LOST);
    } else if (pages == VIRT_PAGES_MISSING) {
        mt->move->outcome = MOVE_OUTCOME_IN_DOUBT;
        move_target_step(mt, TARGET_ON_COPY_MISSING);
    }
    move_target_call_returned(mt);
}

void target_postcopy_watch(struct move_target *mt)
{
    mt->pages_at_ns = clock_now_ns();
}

void target_postcopy_tick(struct move_target *mt, uint64_t now_ns)
{
    if (mt->ls && mt->move->switched)
        link_session_set_patient(mt->ls, mt->sw.state == TARGET_PULLING);
    if (mt->sw.state != TARGET_PULLING || mt->pages_running || !mt->pages_at_ns ||
        now_ns < mt->pages_at_ns)
        return;
    mt->pages_running = true;
    mt->move->pending++;
    virt_pages(mt->service->virt, mt->move->info.uuid, on_pages, mt);
}

/* --- channels that are made again ---------------------------------------------------------- */

static void on_memory_failed(void *user, const struct error *err)
{
    struct move_target *mt = user;

    log_info("move %s (%s): post-copy is interrupted: %s", mt->move->id, mt->move->info.name,
             err->why);
}

static const struct relay_ops memory_ops = {.on_failed = on_memory_failed};

int target_postcopy_add(struct move_target *mt, const char *channel, struct stream *stream)
{
    struct error err = {0};
    int r;

    if (strcmp(channel, "rpc") == 0) { /* the first of the two */
        target_channels_close(mt);
        r = move_paths_make(mt->service, &mt->paths, &err);
        return r < 0 ? r : target_channels_connect_rpc(mt, stream);
    }
    if (strcmp(channel, "ram") != 0 || mt->memory)
        return -EPROTO;
    r = relay_new(stream, &memory_ops, mt, &mt->memory);
    if (r < 0)
        return r;
    if (relay_connect(mt->memory, mt->service->loop, mt->paths.memory) < 0) /* libvirt says why */
        relay_free(TAKE_PTR(mt->memory));
    return 0;
}
