/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One half of the RAM codec on a thread of its own: bytes in, bytes out, never blocking the loop.
 *
 *   write -> [filling] -> worker: encode or decode -> [ready] -> peek, consume
 *
 * Three jobs rotate: one collects input, one is at the worker (or back and waiting), one is drained.
 * Input is passed on as soon as the worker is free, however little it is, and a job always sends all that
 * can be sent: a quiet stream is not delayed, a busy one is worked on in larger pieces. What is held is
 * bounded: RAM_PIPE_INPUT_BYTES twice, and the output of two jobs, which end at RAM_PIPE_OUTPUT_BYTES.
 *
 * The codec itself is only touched on the worker's thread; it is made there as well, at once, because a
 * page store takes its time.
 */
#ifndef FERRY_CORE_RAM_PIPE_H
#define FERRY_CORE_RAM_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "memory/ram_codec.h"

struct ram_pipe;

enum {
    /* Of one job: a chunk's worth. More would only stand in the way of the stopped guest's last pages. */
    RAM_PIPE_INPUT_BYTES = 256 << 10,
    RAM_PIPE_OUTPUT_BYTES = 2 << 20,
};

enum ram_pipe_kind { RAM_PIPE_ENCODER, RAM_PIPE_DECODER };

struct ram_pipe_ops {
    /* There is output, or room for input, or the end. Not called from inside the calls below. */
    void (*on_progress)(void *user);
    /* The codec failed (-EPROTO, -EBADMSG, -ENOMEM ...). Called once; nothing comes after it. What failed
     * before the ops were set is told by ram_pipe_fault(). */
    void (*on_failed)(void *user, int code);
};

struct ram_pipe_stats {
    struct ram_codec_stats codec;
    uint64_t cpu_ns;
    int level; /* of an encoder */
};

/* References to blocks of the target's disks (memory/ram_codec.h), an encoder's or a decoder's half. Where nothing else is
 * said, called on the loop. */
struct ram_pipe_blocks {
    unsigned disks;
    void *user;
    /* Encoder: */
    uint64_t index_bytes;
    unsigned (*room)(void *user); /* how many references may be made now */
    /* There is hardly any, and will be soon: what is to be encoded waits, for a quarter of a second at most. Whoever says
     * so calls ram_pipe_go_on(). */
    bool (*is_full)(void *user);
    void (*made)(void *user, const uint8_t *pages,
                 unsigned count); /* these were, before they leave */
    /* Decoder: */
    const struct ram_reference_target_ops *target; /* on the decoder's thread */
    void (*passed)(void *user, uint64_t count);    /* so many were decoded */
    void (*cancel)(void *user);                    /* what runs in @target must come back at once */
    void (*free)(void *user);                      /* it does not run, and will not */
};

/* @blocks, copied; NULL: without references. */
int ram_pipe_new(uv_loop_t *loop, enum ram_pipe_kind kind, const struct ram_codec_config *config,
                 const struct ram_pipe_blocks *blocks, struct ram_pipe **ret);
void ram_pipe_set_ops(struct ram_pipe *p, const struct ram_pipe_ops *ops, void *user);
/* Of an encoder with blocks: written to a disk (@data NULL: no longer known). */
void ram_pipe_note(struct ram_pipe *p, unsigned disk, uint64_t offset, uint32_t length,
                   const uint8_t *data);
/* 0, or the negative errno it failed with. */
int ram_pipe_fault(const struct ram_pipe *p);
/* No callbacks follow. A job under way comes back by itself. NULL is allowed. */
void ram_pipe_free(struct ram_pipe *p);

/* Where to put input, and how much; 0: none now. */
size_t ram_pipe_room(struct ram_pipe *p, uint8_t **ret);
void ram_pipe_commit(struct ram_pipe *p, size_t len);
/* No more input. */
void ram_pipe_end(struct ram_pipe *p);

/* Output, valid until it is consumed or the loop turns. */
size_t ram_pipe_peek(const struct ram_pipe *p, const uint8_t **ret);
void ram_pipe_consume(struct ram_pipe *p, size_t len);
/* Everything that was put in has come out and been consumed, and there is no more. */
bool ram_pipe_is_at_end(const struct ram_pipe *p);

/* There is room for references again, or their time is over. */
void ram_pipe_go_on(struct ram_pipe *p);

/*
 * Chooses an encoder's level by what the last while showed; call it every 100 ms. @waited: output stood
 * there and the link did not take it. @moves go on here at the same time: they share the processors.
 */
void ram_pipe_adapt(struct ram_pipe *p, uint64_t now_ns, bool waited, unsigned moves);
void ram_pipe_get_stats(const struct ram_pipe *p, struct ram_pipe_stats *ret);

#endif
