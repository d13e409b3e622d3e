/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/guest_load.h"

#include <stdio.h>

#include "core/base/clock.h"
#include "core/base/macros.h"

/* A sample's result is there a little after its end; on a busy host later, and after so long never. */
#define READY_NS (200 * NS_PER_MS)
#define PATIENCE_NS (3 * NS_PER_S)

static void finish(struct guest_load *l, const struct virt_load *load)
{
    uint64_t span_ms = (clock_now_ns() - l->begun_ns) / NS_PER_MS + 1;

    l->figures.disk_write_bytes_s =
        (load->written_bytes - MIN(l->written_bytes, load->written_bytes)) * 1000 / span_ms;
    l->stage = GUEST_LOAD_OVER;
}

static unsigned sample_s(const struct guest_load *l)
{
    return l->stage == GUEST_LOAD_LONG ? GUEST_LOAD_LONG_S : 1;
}

static bool is_due(const struct guest_load *l, uint64_t after_ns)
{
    return clock_now_ns() - l->sample_ns >= sample_s(l) * NS_PER_S + after_ns;
}

static void on_sampling(void *user, const struct error *err)
{
    struct guest_load *l = user;

    (void)err; /* then there is no result */
    l->asking = false;
    l->sample_ns = clock_now_ns();
}

static void sample(struct guest_load *l, enum guest_load_stage stage)
{
    l->stage = stage;
    l->asking = true;
    virt_load_start(l->virt, l->uuid, sample_s(l), on_sampling, l);
}

static void on_read(void *user, const struct error *err, const struct virt_load *load)
{
    struct guest_load *l = user;

    l->asking = false;
    if (err->code) {
        l->stage = GUEST_LOAD_OVER;
    } else if (l->stage == GUEST_LOAD_COUNTING) {
        l->written_bytes = load->written_bytes;
        l->begun_ns = clock_now_ns();
        sample(l, GUEST_LOAD_SHORT);
    } else if (!load->dirty_known) {
        if (is_due(l, PATIENCE_NS))
            finish(l, load);
    } else if (l->stage == GUEST_LOAD_SHORT) {
        l->figures.dirty_known = true;
        l->figures.dirty_bytes_s = load->dirty_bytes_s;
        sample(l, GUEST_LOAD_LONG);
    } else {
        l->figures.dirty_long_bytes = load->dirty_bytes_s * GUEST_LOAD_LONG_S;
        finish(l, load);
    }
}

static void read_load(struct guest_load *l)
{
    l->asking = true;
    virt_load_read(l->virt, l->uuid, on_read, l);
}

void guest_load_start(struct guest_load *l, struct virt *virt, const char *uuid)
{
    *l = (struct guest_load){.virt = virt, .stage = GUEST_LOAD_COUNTING};
    snprintf(l->uuid, sizeof(l->uuid), "%s", uuid);
    read_load(l);
}

bool guest_load_goes_on(struct guest_load *l)
{
    if (l->stage != GUEST_LOAD_OVER && !l->asking && is_due(l, READY_NS))
        read_load(l);
    return l->stage != GUEST_LOAD_OVER;
}
