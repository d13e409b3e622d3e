/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the RAM codec have in common: see ram_codec.h. */
#include "memory/ram_codec.h"

#include "core/base/macros.h"

const char *ram_operation_name(enum ram_operation op)
{
    static const char *const names[] = {
        [RAM_LITERAL] = "literal",     [RAM_ZERO] = "zero",   [RAM_CONSTANT] = "constant",
        [RAM_DUPLICATE] = "duplicate", [RAM_DELTA] = "delta", [RAM_PLAIN] = "plain",
        [RAM_ZSTD] = "zstd",           [RAM_XOR] = "xor",     [RAM_DISK] = "disk",
    };

    _Static_assert(ARRAY_SIZE(names) == RAM_OPERATIONS, "every operation has a name");
    return op < RAM_OPERATIONS ? names[op] : "unknown";
}
