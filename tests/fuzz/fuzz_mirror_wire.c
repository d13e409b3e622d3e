/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes both readers of the mirror stream with what a peer could send: the target engine over a disk
 * that checks its bounds (bit 7 of the first byte: OPEN was sent before; the first byte of the rest, odd: there is a
 * seed), and the source engine, which has sent SEEDs, CHECKs and a CLOSE (bit 6).
 */
#include <stdlib.h>
#include <string.h>

#include "storage/mirror_source_private.h"
#include "storage/mirror_target.h"
#include "storage/mirror_wire.h"

enum { SIZE = 1 << 20 };

static uint8_t disk[SIZE];
static uint64_t cookies[64];
static bool of_seed[64];
static unsigned cookie_count;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int take(uint64_t cookie, uint64_t offset, uint32_t length)
{
    if (offset > SIZE || length > SIZE - offset || cookie_count == 64)
        abort();
    of_seed[cookie_count] = false;
    cookies[cookie_count++] = cookie;
    return 0;
}

static int on_write(void *writer, uint64_t cookie, uint64_t offset, uint32_t length,
                    const uint8_t *data)
{
    (void)writer;
    take(cookie, offset, length);
    memcpy(disk + offset, data, length);
    return 0;
}

static int on_zero(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, bool may_trim)
{
    (void)writer;
    (void)may_trim;
    return take(cookie, offset, length);
}

static int on_trim(void *writer, uint64_t cookie, uint64_t offset, uint32_t length)
{
    (void)writer;
    return take(cookie, offset, length);
}

static int on_flush(void *writer, uint64_t cookie)
{
    (void)writer;
    return take(cookie, 0, 0);
}

static int on_read(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, uint8_t *data)
{
    (void)writer;
    take(cookie, offset, length);
    memcpy(data, disk + offset, length);
    return 0;
}

static const struct disk_writer_ops writer_ops = {
    .write = on_write, .zero = on_zero, .trim = on_trim, .flush = on_flush, .read = on_read};

static int on_seed_read(void *reader, uint64_t cookie, uint64_t offset, uint32_t length,
                        uint8_t *data)
{
    on_read(reader, cookie, offset, length, data);
    of_seed[cookie_count - 1] = true;
    return 0;
}

static const struct disk_writer_ops seed_ops = {.read = on_seed_read};

static void complete_one(struct mirror_target *t)
{
    cookie_count--;
    if (of_seed[cookie_count])
        mirror_target_seed_complete(t, cookies[cookie_count], 0);
    else
        mirror_target_complete(t, cookies[cookie_count], 0);
}

static void feed_target(const uint8_t *data, size_t len, size_t most, bool open)
{
    struct mirror_target_params params = {.alias = "d", .size_bytes = SIZE, .seeded = true};
    struct mirror_wire_message m = {.type = MIRROR_WIRE_OPEN, .length = 1, .offset = SIZE};
    uint8_t head[MIRROR_WIRE_HEADER_BYTES + 1];
    struct buffer out = {0};
    struct mirror_target *t;
    ssize_t n = 0;

    cookie_count = 0;
    if (mirror_target_new(&t, &params) < 0)
        return;
    memset(disk, 0, SIZE);
    mirror_target_set_writer(t, &writer_ops, NULL);
    mirror_target_set_seed(t, len > 0 && (data[0] & 1) ? &seed_ops : NULL, NULL, SIZE / 2);
    mirror_wire_encode(&m, head);
    head[MIRROR_WIRE_HEADER_BYTES] = 'd';
    if (open)
        mirror_target_feed(t, head, sizeof(head));
    while (len > 0 && n >= 0) {
        n = mirror_target_feed(t, data, len < most ? len : most);
        if (n == 0 && cookie_count == 0)
            break;
        data += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
        while (cookie_count > (len > 0 ? 3 : 0))
            complete_one(t);
        mirror_target_pull(t, &out, 100000);
        buffer_clear(&out);
    }
    mirror_target_free(t);
    buffer_done(&out);
}

static void on_answer(void *client, uint64_t cookie, int err, const void *data, size_t len,
                      uint64_t now_ns)
{
    (void)client, (void)cookie, (void)err, (void)data, (void)len, (void)now_ns;
}

static void on_room(void *client, uint64_t now_ns)
{
    (void)client, (void)now_ns;
}

static void on_close(void *client, const struct error *why)
{
    (void)client, (void)why;
}

static const struct mirror_client_ops client_ops = {
    .complete = on_answer, .room = on_room, .close = on_close};

/* The client comes, writes what goes as SEEDs, and leaves. */
static void write_seeds(struct mirror_source *m)
{
    enum { EXTENT = 128 * 1024 };

    mirror_source_attach(m, &client_ops, NULL);
    for (uint64_t i = 0; i < 3; i++) {
        struct nbd_request r = {.command = NBD_CMD_WRITE, .offset = i * EXTENT, .length = EXTENT};

        r.payload = malloc(EXTENT);
        if (!r.payload || !mirror_source_admit(m, &r)) {
            free(r.payload);
            break;
        }
        memset(r.payload, 'a' + (int)i, EXTENT);
        mirror_source_request(m, &r, 0);
    }
    mirror_source_detach(m, NULL, 0);
}

static void feed_source(const uint8_t *data, size_t len, size_t most)
{
    struct mirror_source_params params = {.export_name = "d",
                                          .size_bytes = SIZE,
                                          .verify = true,
                                          .seeded = true,
                                          .many_clients = true};
    struct mirror_budget *budget;
    struct mirror_source *m;
    struct buffer out = {0};
    size_t piece;

    if (mirror_budget_new(&budget, 0) < 0)
        return;
    params.budget = budget;
    if (mirror_source_new(&m, &params) == 0) {
        write_seeds(m);
        mirror_source_pull(m, &out, 100000, 0);
        for (int i = 0; i < 5; i++)
            mirror_source_flush_ahead(m);
        mirror_source_close(m);
        mirror_source_pull(m, &out, 100000, 0);
        for (; len > 0; data += piece, len -= piece) {
            piece = len < most ? len : most;
            mirror_source_feed(m, data, piece, 0);
            mirror_source_pull(m, &out, 100000, 0);
            buffer_clear(&out);
        }
        mirror_source_free(m);
    }
    buffer_done(&out);
    mirror_budget_free(budget);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t most;

    if (len < 1)
        return 0;
    most = 1 + (size_t)(data[0] & 0x3f) * 29;
    if (data[0] & 0x40)
        feed_source(data + 1, len - 1, most);
    else
        feed_target(data + 1, len - 1, most, data[0] & 0x80);
    return 0;
}
