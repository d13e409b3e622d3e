/* SPDX-License-Identifier: Apache-2.0 */
/* What an extent is compared by with a seed: fills bring a seed to the source's contents, and bad ones are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage/seed_blocks.h"

enum { UNIT = DISK_DIGEST_UNIT_BYTES };

static uint8_t wanted[SEED_EXTENT_BYTES], held[SEED_EXTENT_BYTES];
static uint8_t digests[SEED_EXTENT_BYTES / SEED_BLOCK_BYTES * SEED_DIGEST_BYTES];
static uint8_t hints[SEED_EXTENT_BYTES / UNIT * SEED_HINT_BYTES];

static const uint32_t lengths[] = {1, UNIT, SEED_BLOCK_BYTES, SEED_BLOCK_BYTES + 1,
                                   SEED_EXTENT_BYTES};

static void a_fill_of_what_differs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint32_t length = lengths[i], bytes;
        uint8_t *fill;

        memset(wanted, 7, sizeof(wanted));
        memset(held, 7, sizeof(held));
        wanted[length - 1] ^= 1;
        assert_true(seed_digest(wanted, length, digests));
        assert_false(seed_matches(held, length, digests));
        seed_hint(held, length, hints);
        fill = seed_fill_new(wanted, length, hints, &bytes);
        assert_non_null(fill);
        assert_true(bytes <= SEED_MAP_BYTES + UNIT);
        assert_true(seed_fill_is_sound(fill, bytes, length));
        assert_int_equal(seed_fill_is_whole(fill, length), length <= UNIT);
        seed_fill_apply(fill, held, length);
        assert_true(seed_matches(held, length, digests));
        free(fill);
    }
}

static void a_whole_fill(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint32_t length = lengths[i], bytes;
        uint8_t *fill = seed_fill_new(wanted, length, NULL, &bytes);

        assert_non_null(fill);
        assert_int_equal(bytes, SEED_MAP_BYTES + length);
        assert_true(seed_fill_is_whole(fill, length));
        memset(held, 0, sizeof(held));
        seed_fill_apply(fill, held, length);
        assert_memory_equal(held, wanted, length);
        free(fill);
    }
}

static void bad_fills(void **state)
{
    uint8_t fill[SEED_MAP_BYTES + 2 * UNIT] = {0};

    (void)state;
    assert_false(seed_fill_is_sound(fill, SEED_MAP_BYTES - 1, UNIT));
    assert_true(seed_fill_is_sound(fill, SEED_MAP_BYTES, UNIT));
    assert_false(seed_fill_is_sound(fill, SEED_MAP_BYTES + 1, UNIT));
    fill[0] = 1;
    assert_false(seed_fill_is_sound(fill, SEED_MAP_BYTES, UNIT));
    assert_true(seed_fill_is_sound(fill, SEED_MAP_BYTES + UNIT, UNIT));
    assert_true(seed_fill_is_sound(fill, SEED_MAP_BYTES + 5, 5));
    fill[0] = 2; /* beyond its end */
    assert_false(seed_fill_is_sound(fill, SEED_MAP_BYTES + UNIT, UNIT));
    assert_true(seed_fill_is_sound(fill, SEED_MAP_BYTES + 1, UNIT + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fill_of_what_differs),
        cmocka_unit_test(a_whole_fill),
        cmocka_unit_test(bad_fills),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
