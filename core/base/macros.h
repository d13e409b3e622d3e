/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small macros that every file may use: cleanup attributes, visible ownership transfer, sizes.
 */
#ifndef FERRY_CORE_BASE_MACROS_H
#define FERRY_CORE_BASE_MACROS_H

#include <stddef.h>
#include <stdlib.h>
#include <sys/param.h> /* MIN, MAX */
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The object that embeds @member at @ptr. */
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Hands the pointer over and forgets it here: `list->head = TAKE_PTR(node);`. */
#define TAKE_PTR(p)                                                                                \
    __extension__({                                                                                \
        __typeof__(p) *take_pp_ = &(p);                                                            \
        __typeof__(p) take_p_ = *take_pp_;                                                         \
        *take_pp_ = NULL;                                                                          \
        take_p_;                                                                                   \
    })

/* Scope-bound release for synchronous functions: `_cleanup_(freep) char *name = NULL;`. */
#define _cleanup_(f) __attribute__((cleanup(f)))

static inline void freep(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define FERRY_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))

#endif
