/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: everything that lives once in a ferryd, and the list of moves.
 *
 * Thread: the loop thread, unless said otherwise.
 */
#ifndef FERRY_CORE_SERVICE_H
#define FERRY_CORE_SERVICE_H

#include <sys/queue.h>
#include <sys/types.h>
#include <uv.h>

#include "core/config.h"
#include "core/journal.h"
#include "core/link/link_probe.h"
#include "core/link/peering.h"
#include "core/move/rpc_opening.h"
#include "core/switchover/witness.h"
#include "core/virt/virt.h"
#include "core/worker.h"
#include "storage/mirror_budget.h"

struct move;
struct api;

struct check;
struct check_question;
struct policy_query;
struct evacuation;

TAILQ_HEAD(move_list, move);
TAILQ_HEAD(check_list, check);
TAILQ_HEAD(check_question_list, check_question);
TAILQ_HEAD(policy_query_list, policy_query);

struct service {
    uv_loop_t *loop;
    const char *config_path;
    struct config *config;
    struct tls_identity *identity;
    struct journal *journal;
    struct virt *virt;
    struct peering *peering;
    struct link_probes *probes;
    struct mirror_budget *budget;
    struct witness *witness;        /* NULL: none is configured */
    struct spool_file *spool;       /* NULL: none configured */
    struct rpc_opening rpc_opening; /* what libvirtd here calls first of another one */
    struct worker *files;           /* disk files: blocking file system calls */
    struct api *api;
    struct status_page *status_page;      /* NULL: none is served */
    struct move_list moves;               /* newest last: running ones and the remembered past */
    struct check_list checks;             /* of VMs here: running ones and the last few */
    struct check_question_list questions; /* peers' */
    struct policy_query_list policy_queries;
    struct evacuation *evacuation; /* the last one; NULL: none */
    uid_t qemu_uid;
    gid_t qemu_gid;
    bool stopping;
    unsigned stop_ticks;
    uv_timer_t stop_timer;
};

/* Builds everything, recovers what the journal left open. @config_path must outlive the service. */
int service_new(uv_loop_t *loop, const char *config_path, struct service **ret, struct error *err);
/* SIGHUP: peers, policies and log level are read again; a bad file changes nothing. */
int service_reload(struct service *s, struct error *err);
/* Starts the orderly end; the loop ends by itself afterwards. Moves before their decision abort. */
void service_stop(struct service *s);
void service_free(struct service *s);

/* Gives memory that moves left free back to the host, unless others are on their way. */
void service_trim_memory(struct service *s);

/* Runs @fn(arg) soon, outside of any callback of the loop's objects: where it is safe to free them. */
int service_defer(struct service *s, void (*fn)(void *arg), void *arg);

#endif
