/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool's file (storage/mirror_spool.h): made in the configured folder, unlinked at once, so that nothing
 * is left of it whatever happens; read and written by a worker.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_SPOOL_FILE_H
#define FERRY_CORE_SPOOL_FILE_H

#include <uv.h>

#include "core/base/error.h"
#include "storage/mirror_spool.h"

struct spool_file;

int spool_file_new(uv_loop_t *loop, const char *folder, uint64_t limit_bytes,
                   struct spool_file **ret, struct error *err);
/* What the logs use; NULL for NULL. */
struct mirror_spool *spool_file_spool(const struct spool_file *f);
/* No more is begun; what is under way ends in the loop. */
void spool_file_retire(struct spool_file *f);
/* After the loop has ended. */
void spool_file_free(struct spool_file *f);

#endif
