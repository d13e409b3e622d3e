/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk files at the target: made before a move, removed if it aborts; and what becomes of the old ones
 * at the source when it has left.
 *
 * Ownership of a half-made file is told by its marker: the file is made under the name PATH.ferry-ID
 * and then linked to PATH. PATH is removed only while it is the same file as its marker, so that
 * neither a crash nor a mistake can remove anything that a move did not make.
 *
 * Everything here blocks and runs on a worker thread.
 */
#ifndef FERRY_CORE_DISK_FILES_H
#define FERRY_CORE_DISK_FILES_H

#include "core/operations/check.h"
#include "core/config.h"
#include "core/virt/domain_xml.h"

/* Whether they could be made, as lines "storage" and "space"; makes nothing. @promised_bytes: what moves under way
 * have yet to write, wherever that is. */
void disk_files_check(const struct config *config, const struct domain_info *info,
                      uint64_t promised_bytes, struct check_report *report);
/*
 * Makes all disks of @info, empty, with exactly their sizes. Checks first that each path lies in one of
 * the configured folders, that nothing is there, and that the data would fit. On failure nothing is
 * left. -EPERM, -EEXIST, -ENOSPC, ... with words.
 */
int disk_files_create(const struct config *config, const struct domain_info *info,
                      const char *move_id, struct error *err);
/* Removes what disk_files_create() made for this move, if it is still there. */
void disk_files_remove(const struct domain_info *info, const char *move_id);
/* Puts them aside instead, complete or nearly so, as PATH.ferry-old (replacing an older one): what they hold need not
 * be sent again. */
void disk_files_keep(const struct domain_info *info, const char *move_id);
/* The move is committed: the files are the VM's; their markers, and copies kept from an earlier stay of
 * the VM here, go. */
void disk_files_adopt(const struct domain_info *info, const char *move_id);
/* Where the file is kept when the VM has left. */
void disk_files_old_path(const char *path, char ret[PATH_MAX]);
/* The VM has left for good: its files become PATH.ferry-old (replacing an older one) or go. */
void disk_files_retire(const struct domain_info *info, enum old_disks what);

#endif
