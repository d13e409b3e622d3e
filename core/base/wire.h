/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Big-endian integers in byte strings, and a reader that cannot run past its end.
 *
 * Every protocol here (ours, NBD, QEMU's stream, libvirt's RPC) is big-endian.
 */
#ifndef FERRY_CORE_BASE_WIRE_H
#define FERRY_CORE_BASE_WIRE_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void put_be16(uint8_t *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put_be32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put_be64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof(v));
}

static inline uint16_t get_be16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return be16toh(v);
}

static inline uint32_t get_be32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

static inline uint64_t get_be64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return be64toh(v);
}

/*
 * Reads a message from its start; once anything does not fit, `bad` is set and every later read
 * gives zeroes, so that a decoder checks once at its end.
 */
struct wire_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

static inline struct wire_reader wire_reader_of(const void *data, size_t len)
{
    return (struct wire_reader){.at = data, .end = (const uint8_t *)data + len};
}

/* @len bytes, or NULL (and bad) when fewer are left. */
static inline const uint8_t *wire_bytes(struct wire_reader *r, size_t len)
{
    const uint8_t *p = r->at;

    if (r->bad || (size_t)(r->end - r->at) < len) {
        r->bad = true;
        return NULL;
    }
    r->at += len;
    return p;
}

static inline uint8_t wire_u8(struct wire_reader *r)
{
    const uint8_t *p = wire_bytes(r, 1);

    return p ? *p : 0;
}

static inline uint16_t wire_u16(struct wire_reader *r)
{
    const uint8_t *p = wire_bytes(r, 2);

    return p ? get_be16(p) : 0;
}

static inline uint32_t wire_u32(struct wire_reader *r)
{
    const uint8_t *p = wire_bytes(r, 4);

    return p ? get_be32(p) : 0;
}

static inline uint64_t wire_u64(struct wire_reader *r)
{
    const uint8_t *p = wire_bytes(r, 8);

    return p ? get_be64(p) : 0;
}

static inline size_t wire_left(const struct wire_reader *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->at);
}

#endif
