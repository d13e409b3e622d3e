/* SPDX-License-Identifier: Apache-2.0 */
/* References at the target: see target_blocks.h. */
#include "core/move/target_blocks.h"

#include <errno.h>
#include <stdlib.h>

#include "core/move/page_asker.h"
#include "storage/block_reader_nbd.h"

struct target_blocks {
    struct block_reader_nbd *reader;
    struct page_asker *asker;
};

static int read_block(void *user, unsigned disk, uint64_t offset, uint8_t *ret_page)
{
    struct target_blocks *b = user;

    return block_reader_nbd_read(b->reader, disk, offset, ret_page);
}

static int ask(void *user, uint64_t number, uint8_t *ret_page)
{
    struct target_blocks *b = user;

    return page_asker_ask(b->asker, number, ret_page);
}

static const struct ram_reference_target_ops target_ops = {.read = read_block, .ask = ask};

static void passed(void *user, uint64_t count)
{
    struct target_blocks *b = user;

    page_asker_passed(b->asker, count);
}

static void cancel(void *user)
{
    struct target_blocks *b = user;

    block_reader_nbd_cancel(b->reader);
    page_asker_cancel(b->asker);
}

static void free_it(void *user)
{
    target_blocks_free(user);
}

void target_blocks_free(struct target_blocks *b)
{
    if (!b)
        return;
    block_reader_nbd_free(b->reader);
    page_asker_free(b->asker);
    free(b);
}

int target_blocks_new(uv_loop_t *loop, const char *socket_path, const struct domain_info *info,
                      struct target_blocks **ret, struct ram_pipe_blocks *ret_pipe)
{
    struct target_blocks *b = calloc(1, sizeof(*b));
    const char *names[LIMIT_DISKS_PER_MOVE];
    int r = b ? 0 : -ENOMEM;

    for (unsigned i = 0; i < info->disk_count; i++)
        names[i] = info->disks[i].alias;
    if (r == 0)
        r = block_reader_nbd_new(socket_path, names, info->disk_count, &b->reader);
    if (r == 0)
        r = page_asker_new(loop, &b->asker);
    if (r < 0) {
        target_blocks_free(b);
        return r;
    }
    *ret_pipe = (struct ram_pipe_blocks){
        .disks = info->disk_count,
        .user = b,
        .target = &target_ops,
        .passed = passed,
        .cancel = cancel,
        .free = free_it,
    };
    *ret = b;
    return 0;
}

int target_blocks_set_stream(struct target_blocks *b, struct stream *stream)
{
    return page_asker_set_stream(b->asker, stream);
}
