/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References at the source: what the disks' mirrors send is noted for the RAM encoder's index, and what became a reference
 * is kept until the target has passed it.
 *
 * A miss costs a round trip, so only what surely lies there is referred to: blocks written before the mirrors were
 * READY, from when all of that is applied, and until the guest stops.
 */
#include <errno.h>
#include <string.h>

#include "core/move/move_source_private.h"

static unsigned room(void *user)
{
    const struct move_source *ms = user;

    return ms->keeper && ms->may_refer ? page_keeper_room(ms->keeper) : 0;
}

static bool is_full(void *user)
{
    const struct move_source *ms = user;

    return ms->keeper && ms->may_refer && page_keeper_is_full(ms->keeper);
}

static void made(void *user, const uint8_t *pages, unsigned count)
{
    struct move_source *ms = user;

    if (ms->keeper)
        page_keeper_put(ms->keeper, pages, count);
}

static struct ram_pipe *pipe_of(const struct move_source *ms)
{
    return ms->memory ? relay_pipe(ms->memory) : ms->encoder;
}

static void on_room(void *user)
{
    struct ram_pipe *pipe = pipe_of(user);

    if (pipe)
        ram_pipe_go_on(pipe);
}

static void on_keeper_failed(void *user, const struct error *why)
{
    move_source_fail(user, why);
}

static const struct page_keeper_ops keeper_ops = {.on_room = on_room,
                                                  .on_failed = on_keeper_failed};

int source_blocks_open(struct move_source *ms, struct ram_pipe_blocks *ret)
{
    struct stream *stream;
    int r = source_channels_open_stream(ms, CARE_CONTROL, "pages", NULL, &stream);

    if (r < 0)
        return r;
    r = page_keeper_new(stream, &keeper_ops, ms, &ms->keeper);
    if (r < 0) {
        stream_release(stream);
        return r;
    }
    *ret = (struct ram_pipe_blocks){
        .disks = ms->codec.references,
        .user = ms,
        .index_bytes = ms->service->config->disk_index_bytes,
        .room = room,
        .is_full = is_full,
        .made = made,
    };
    return 0;
}

void source_blocks_note(struct move_source *ms, unsigned disk, uint64_t offset, uint32_t length,
                        const uint8_t *data)
{
    struct ram_pipe *pipe = pipe_of(ms);

    if (pipe && ms->keeper)
        ram_pipe_note(pipe, disk, offset, length, data);
}

void source_blocks_tick(struct move_source *ms)
{
    ms->may_refer =
        ms->keeper && ms->move->phase == MOVE_MEMORY && disk_source_copy_is_applied(ms->disks);
    on_room(ms); /* or its time is over */
}

void source_blocks_close(struct move_source *ms)
{
    page_keeper_free(TAKE_PTR(ms->keeper));
}
