/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References to blocks of the target's disks, over seeded guests whose memory holds what lies on their disks: what comes
 * out is what went in, although blocks change behind the index's back, cannot be read, or are asked for; and a target
 * that is told wrong bytes delivers none.
 *
 * FERRY_SEED runs one seed, FERRY_SEEDS so many.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "memory/disk_blocks.h"
#include "memory/ram_checksum.h"
#include "memory/ram_decoder.h"
#include "memory/ram_encoder.h"
#include "tests/engine/memory_ram_guest.h"

enum { DISKS = 2, BLOCKS = 200, KEPT_MAX = 64 };

/* A source, a target, and the disks as each has them. */
struct world {
    struct guest guest;
    struct random random;
    uint8_t disk[DISKS][BLOCKS][DISK_BLOCK_BYTES]; /* at the target */
    struct disk_blocks *blocks;
    struct buffer notes;
    struct ram_encoder *encoder;
    struct ram_decoder *decoder;
    struct buffer wire, out;
    uint8_t *kept; /* every page that became a reference */
    uint64_t made, passed;
    bool bounded;         /* at most KEPT_MAX are kept */
    unsigned fail_reads;  /* one in so many; 0: none */
    bool lies, cancelled; /* answers are wrong; everything is called off */
    uint64_t reads, asked, refused;
};

static uint64_t number_of(const char *name, uint64_t usual)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : usual;
}

static bool may_refer(void *user)
{
    struct world *w = user;
    bool may = !w->bounded || w->made - w->passed < KEPT_MAX;

    w->refused += !may;
    return may;
}

static void keep(void *user, uint64_t number, const uint8_t *page)
{
    struct world *w = user;

    assert_int_equal(number, w->made);
    w->kept = realloc(w->kept, (size_t)(w->made + 1) * DISK_BLOCK_BYTES);
    assert_non_null(w->kept);
    memcpy(w->kept + w->made++ * DISK_BLOCK_BYTES, page, DISK_BLOCK_BYTES);
}

static const struct ram_reference_source_ops source_ops = {.may_refer = may_refer, .keep = keep};

static int read_block(void *user, unsigned disk, uint64_t offset, uint8_t *ret_page)
{
    struct world *w = user;

    assert_in_range(disk, 0, DISKS - 1);
    w->reads++;
    if (w->cancelled)
        return -ECANCELED;
    if (offset / DISK_BLOCK_BYTES >= BLOCKS)
        return -ERANGE;
    if (w->fail_reads && random_below(&w->random, w->fail_reads) == 0)
        return -EIO;
    memcpy(ret_page, w->disk[disk][offset / DISK_BLOCK_BYTES], DISK_BLOCK_BYTES);
    return 0;
}

static int ask(void *user, uint64_t number, uint8_t *ret_page)
{
    struct world *w = user;

    if (number >= w->made)
        return -EPROTO;
    w->asked++;
    memcpy(ret_page, w->kept + number * DISK_BLOCK_BYTES, DISK_BLOCK_BYTES);
    if (w->lies)
        ret_page[random_below(&w->random, DISK_BLOCK_BYTES)] ^= 1;
    return 0;
}

static const struct ram_reference_target_ops target_ops = {.read = read_block, .ask = ask};

/* Random bytes to a random place, noted or not: the index may lag behind the disk. */
static void write_disk(struct world *w, bool noted)
{
    unsigned disk = (unsigned)random_below(&w->random, DISKS);
    uint64_t offset = random_below(&w->random, BLOCKS * DISK_BLOCK_BYTES - 20000);
    uint32_t length = 1 + (uint32_t)random_below(&w->random, 20000);
    uint8_t *at = w->disk[disk][0] + offset;

    if (random_below(&w->random, 2)) {
        offset &= ~(uint64_t)(DISK_BLOCK_BYTES - 1);
        at = w->disk[disk][0] + offset;
        length = DISK_BLOCK_BYTES * (1 + (uint32_t)random_below(&w->random, 4));
    }
    switch (random_below(&w->random, 8)) {
    case 0:
        memset(at, 0, length);
        if (noted)
            assert_int_equal(disk_notes_forget(&w->notes, disk, offset, length), 0);
        return;
    case 1:
        guest_fill_text(&w->guest, at, length);
        break;
    default:
        guest_fill(&w->guest, at, length);
        break;
    }
    if (noted)
        assert_int_equal(disk_notes_write(&w->notes, disk, offset, length, at), 0);
}

static void world_new(struct world *w, uint64_t seed, uint64_t index_bytes)
{
    struct ram_codec_config config = {0};

    memset(w, 0, sizeof(*w));
    w->random.state = w->guest.random.state = seed;
    config.store_bytes = random_below(&w->random, 3) * 40 * GUEST_PAGE;
    w->guest.pages = 20 + (unsigned)random_below(&w->random, GUEST_PAGES_MAX - 20);
    w->guest.memory = calloc(w->guest.pages, GUEST_PAGE);
    assert_non_null(w->guest.memory);
    assert_int_equal(disk_blocks_new(index_bytes, &w->blocks), 0);
    assert_int_equal(ram_encoder_new(&config, &w->encoder), 0);
    assert_int_equal(ram_decoder_new(&config, &w->decoder), 0);
    ram_encoder_set_blocks(w->encoder, w->blocks, &source_ops, w);
    ram_decoder_set_blocks(w->decoder, DISKS, &target_ops, w);
    for (unsigned i = 0; i < 100; i++)
        write_disk(w, true);
}

static void world_free(struct world *w)
{
    guest_done(&w->guest);
    disk_blocks_free(w->blocks);
    buffer_done(&w->notes);
    ram_encoder_free(w->encoder);
    ram_decoder_free(w->decoder);
    buffer_done(&w->wire);
    buffer_done(&w->out);
    free(w->kept);
}

/* Pages of the guest become what blocks of its disks hold, or anything. */
static void touch_memory(struct world *w)
{
    for (unsigned page = 0; page < w->guest.pages; page++) {
        w->guest.dirty[page] = random_below(&w->random, 3) > 0;
        if (!w->guest.dirty[page])
            continue;
        if (random_below(&w->random, 3) > 0)
            memcpy(w->guest.memory[page],
                   w->disk[random_below(&w->random, DISKS)][random_below(&w->random, BLOCKS)],
                   GUEST_PAGE);
        else
            guest_fill(&w->guest, w->guest.memory[page], GUEST_PAGE);
    }
}

/* What the guest's stream has had since @from, through both; with disks that change in between. */
static int carry(struct world *w, size_t from)
{
    size_t len = buffer_len(&w->guest.stream);
    int r = 0;

    disk_blocks_take(w->blocks, &w->notes);
    buffer_clear(&w->notes);
    assert_int_equal(
        ram_encoder_feed(w->encoder, buffer_data(&w->guest.stream) + from, len - from, &w->wire),
        0);
    assert_int_equal(ram_encoder_flush(w->encoder, &w->wire), 0);
    for (uint64_t n = random_below(&w->random, 4); n > 0; n--)
        write_disk(w, random_below(&w->random, 2));
    while (buffer_len(&w->wire) > 0 && r == 0) {
        size_t n = MIN(buffer_len(&w->wire), (size_t)50000), taken;

        r = ram_decoder_feed(w->decoder, buffer_data(&w->wire), n, &taken, &w->out);
        if (r == 0)
            buffer_consume(&w->wire, taken);
    }
    w->passed = w->made;
    return r;
}

static int migrate(struct world *w, unsigned rounds)
{
    size_t from = 0;
    int r = 0;

    guest_put_start(&w->guest);
    for (unsigned round = 0; round < rounds && r == 0; round++) {
        touch_memory(w);
        guest_put_section(&w->guest, 0x02);
        r = carry(w, from);
        from = buffer_len(&w->guest.stream);
        write_disk(w, true);
    }
    return r;
}

static void expect_right(const struct world *w, uint64_t seed, bool all)
{
    const struct buffer *in = &w->guest.stream, *out = &w->out;

    if (buffer_len(out) > buffer_len(in) || (all && buffer_len(out) != buffer_len(in)) ||
        (buffer_len(out) > 0 && memcmp(buffer_data(out), buffer_data(in), buffer_len(out)) != 0))
        fail_msg("FERRY_SEED=%" PRIu64 ": other bytes came out", seed);
}

static void what_goes_in_comes_out(void **state)
{
    uint64_t first = number_of("FERRY_SEED", 1);
    uint64_t count = getenv("FERRY_SEED") ? 1 : number_of("FERRY_SEEDS", 150);
    uint64_t made = 0, asked = 0, refused = 0;
    static struct world w;

    (void)state;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct ram_codec_stats in, out;

        /* from an index too small for anything to one of all blocks */
        world_new(&w, seed, (seed % 5) * 110 * 56);
        w.bounded = seed % 3 == 0;
        w.fail_reads = seed % 4 == 0 ? 20 : 0;
        if (migrate(&w, 1 + (unsigned)(seed % 6)) < 0)
            fail_msg("FERRY_SEED=%" PRIu64 ": it failed", seed);
        expect_right(&w, seed, true);
        ram_encoder_get_stats(w.encoder, &in);
        ram_decoder_get_stats(w.decoder, &out);
        assert_int_equal(in.operation[RAM_DISK].count, w.made);
        assert_int_equal(out.operation[RAM_DISK].count, w.made);
        assert_int_equal(out.references_missed, w.asked);
        made += w.made;
        asked += w.asked;
        refused += w.refused;
        world_free(&w);
    }
    print_message("%" PRIu64 " references, %" PRIu64 " of them missed, %" PRIu64 " not made\n",
                  made, asked, refused);
    if (count >= 100)
        assert_true(made > 1000 && asked > 10 && asked < made / 4 && refused > 0);
}

/* Whoever answers with another page, or calls it off, gets nothing wrong delivered. */
static void lies_and_ends_deliver_nothing(void **state)
{
    unsigned faults = 0;
    static struct world w;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        int r;

        world_new(&w, seed, 1 << 20);
        w.lies = seed % 2;
        w.fail_reads = w.lies ? 5 : 0;
        w.cancelled = !w.lies;
        r = migrate(&w, 3);
        if (r < 0)
            assert_int_equal(r, w.lies ? -EBADMSG : -ECANCELED);
        faults += r < 0;
        expect_right(&w, seed, r == 0);
        world_free(&w);
    }
    assert_true(faults > 20);
}

/* A decoder that was told of no disks, or of fewer, refuses references. */
static void only_what_was_agreed(void **state)
{
    static struct world w;

    (void)state;
    for (unsigned disks = 0; disks < DISKS; disks++) {
        world_new(&w, 7, 1 << 20);
        ram_decoder_set_blocks(w.decoder, disks, disks ? &target_ops : NULL, &w);
        assert_int_equal(migrate(&w, 3), -EPROTO);
        expect_right(&w, 7, false);
        world_free(&w);
    }
}

/* The index alone: what is found is what was noted last, whatever was forgotten or pushed out. */
static void the_index_follows_the_notes(void **state)
{
    static uint8_t content[8][DISK_BLOCK_BYTES], zeroes[2 * DISK_BLOCK_BYTES];
    struct disk_blocks *b;
    struct buffer notes = {0};
    struct guest g = {.random = {5}};
    uint64_t offset, hash[8];
    unsigned disk;

    (void)state;
    assert_int_equal(disk_blocks_new(4 * 56, &b), 0);
    for (unsigned i = 0; i < 8; i++) {
        guest_fill(&g, content[i], DISK_BLOCK_BYTES);
        hash[i] = ram_checksum_of_page(content[i]);
    }
    assert_int_equal(disk_notes_write(&notes, 1, 8192, 2 * DISK_BLOCK_BYTES, content[0]), 0);
    disk_blocks_take(b, &notes);
    buffer_clear(&notes);
    assert_true(disk_blocks_find(b, hash[1], &disk, &offset));
    assert_int_equal(disk, 1);
    assert_int_equal(offset, 12288);
    /* a byte of one, and zeroes over the other */
    assert_int_equal(disk_notes_write(&notes, 1, 8193, 1, content[0]), 0);
    assert_int_equal(disk_notes_write(&notes, 1, 12288, DISK_BLOCK_BYTES, zeroes), 0);
    disk_blocks_take(b, &notes);
    buffer_clear(&notes);
    assert_false(disk_blocks_find(b, hash[0], &disk, &offset));
    assert_false(disk_blocks_find(b, hash[1], &disk, &offset));
    /* four fit; a large extent forgets them all */
    assert_int_equal(disk_notes_write(&notes, 0, 0, 6 * DISK_BLOCK_BYTES, content[2]), 0);
    disk_blocks_take(b, &notes);
    buffer_clear(&notes);
    assert_false(disk_blocks_find(b, hash[2], &disk, &offset));
    assert_true(disk_blocks_find(b, hash[7], &disk, &offset));
    assert_int_equal(disk_notes_forget(&notes, 0, 4096, UINT32_MAX), 0);
    disk_blocks_take(b, &notes);
    assert_false(disk_blocks_find(b, hash[7], &disk, &offset));
    buffer_done(&notes);
    disk_blocks_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(lies_and_ends_deliver_nothing),
        cmocka_unit_test(only_what_was_agreed),
        cmocka_unit_test(the_index_follows_the_notes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
