/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libvirt, as the service uses it: asynchronous calls on worker threads, answers on the loop thread.
 *
 * Queries and commands share one thread, in order. Each migration has a thread of its own, because
 * its call lasts as long as the move. A libvirtd that hangs is found by keepalive and gives errors.
 */
#ifndef FERRY_CORE_VIRT_H
#define FERRY_CORE_VIRT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/base/error.h"
#include "core/operations/check.h"
#include "core/virt/domain_rewrite.h"
#include "core/virt/domain_xml.h"
#include "core/policy/policy.h"

struct virt;

/* What libvirt says of a domain that no job of libvirt's is busy with. */
enum virt_domain_state {
    VIRT_DOMAIN_BUSY, /* a libvirt job runs on it: ask again */
    VIRT_DOMAIN_RUNNING,
    VIRT_DOMAIN_PAUSED, /* by a migration, and libvirt has nothing left to do with it */
    VIRT_DOMAIN_SWITCHED, /* by a migration in post-copy: its memory belongs to the copy at the target, until it is known that
                            * that one has never run */
    VIRT_DOMAIN_SUSPENDED, /* for another reason: by a user, by a full disk */
    VIRT_DOMAIN_ENDED,     /* shut off for its own reasons: guest shutdown, destroyed, crashed */
    VIRT_DOMAIN_OFF,  /* shut off or not known, and libvirt cannot say why (it was restarted) */
    VIRT_DOMAIN_GONE, /* shut off because it migrated */
};

struct virt_ops {
    /* A domain stopped its vCPUs because it migrates / was resumed / ended. */
    void (*on_suspended)(void *user, const char *uuid);
    void (*on_stopped)(void *user, const char *uuid);
    /* The connection to libvirtd was lost; it is made again with the next call. */
    void (*on_disconnected)(void *user);
};

struct virt_description {
    struct domain_info info;
    struct domain_platform platform;
    struct check_report report;    /* what keeps it from moving, as failures; nothing: it can */
    struct policy_choices choices; /* what its metadata says */
    bool running;                  /* active and not paused */
    bool active;
    bool persistent;
    bool autostart;
    uint64_t memory_bytes;
    uint64_t resident_bytes; /* of it, what the guest has touched, as far as the host can tell */
    unsigned long libvirt_version,
        qemu_version; /* of this host: 1000000 * major + 1000 * minor + release */
};

/* What a guest does, while it is left alone. */
struct virt_load {
    bool dirty_known;
    uint64_t dirty_bytes_s; /* of memory, by QEMU's sample */
    uint64_t written_bytes; /* to all disks, since it started */
};

/* What a host is asked for a VM that is to come. */
struct virt_host_question {
    char uuid[DOMAIN_UUID_BYTES], name[DOMAIN_NAME_BYTES]; /* neither may be there */
    struct domain_platform platform;
    uint64_t memory_bytes;                       /* that it has; 0: not known */
    unsigned long libvirt_version, qemu_version; /* of the source */
    struct check_report report;                  /* the answer */
};

struct virt_job_stats {
    bool active;
    uint64_t memory_total, memory_processed, memory_remaining; /* bytes */
    uint64_t memory_dirty_rate;                                /* pages/s */
    uint64_t memory_page_size;
    uint64_t memory_iteration;
    uint64_t disk_total, disk_processed;
};

struct virt_migration {
    char uuid[DOMAIN_UUID_BYTES];
    char destination_uri[512]; /* libvirt's RPC */
    char memory_uri[256];
    char disks_uri[256];
    bool persistent;
    bool rewritten; /* its definition is to be another there: */
    struct domain_rewrite rewrite;
    char target_name[DOMAIN_NAME_BYTES];                /* empty: its own */
    int auto_converge_initial, auto_converge_increment; /* QEMU's own throttling; 0: none */
    uint64_t xbzrle_cache_bytes;                        /* 0: no XBZRLE */
    int parallel_connections; /* of QEMU's, for memory; 0: one, PARALLEL_AUTO: a few */
    bool zero_copy;
    bool
        may_postcopy; /* it may be switched to post-copy: FINISH3 says whether the copy there runs */
    bool resume_postcopy; /* it was, and its channels were lost: new ones */
    unsigned speed_mib_s; /* of the disks' copy and of memory, to begin with; 0 = no limit */
};

int virt_new(uv_loop_t *loop, const char *uri, const struct virt_ops *ops, void *user,
             struct virt **ret);
/* Ends after the calls under way; the loop must run on. */
void virt_retire(struct virt *v);

/* Each calls back once, with err->code 0 on success. The callback's pointers live as long as it runs. */
typedef void (*virt_done_fn)(void *user, const struct error *err);
typedef void (*virt_described_fn)(void *user, const struct error *err,
                                  const struct virt_description *d);
typedef void (*virt_state_fn)(void *user, const struct error *err, enum virt_domain_state state);
typedef void (*virt_stats_fn)(void *user, const struct error *err,
                              const struct virt_job_stats *stats);
typedef void (*virt_reply_fn)(void *user, const struct error *err, const char *reply);

typedef void (*virt_choices_fn)(void *user, const struct error *err,
                                const struct policy_choices *choices);
typedef void (*virt_load_fn)(void *user, const struct error *err, const struct virt_load *load);
typedef void (*virt_host_fn)(void *user, const struct error *err,
                             const struct check_report *report);

/* The names of what runs here, a line each. */
void virt_list_running(struct virt *v, virt_reply_fn done, void *user);
/* By name, or by UUID. -ESRCH: it is not running. */
void virt_describe(struct virt *v, const char *domain, virt_described_fn done, void *user);
/* What the domain's metadata says (core/policy/policy_metadata.h), running or not. -ENOENT: no such domain. */
void virt_read_choices(struct virt *v, const char *domain, virt_choices_fn done, void *user);
/* Begins to sample the guest's dirty rate, for a second; not during a migration. */
void virt_load_start(struct virt *v, const char *uuid, unsigned seconds, virt_done_fn done,
                     void *user);
void virt_load_read(struct virt *v, const char *uuid, virt_load_fn done, void *user);
/* Lines "name", "machine", "cpu", "networks", "versions". @question is copied. */
void virt_ask_host(struct virt *v, const struct virt_host_question *question, virt_host_fn done,
                   void *user);
void virt_state(struct virt *v, const char *uuid, virt_state_fn done, void *user);
void virt_job_stats(struct virt *v, const char *uuid, virt_stats_fn done, void *user);
void virt_migrate(struct virt *v, const struct virt_migration *m, virt_done_fn done, void *user);
/* Ends its migration. @stop: its disks are mirrored; the guest stands still meanwhile. */
void virt_abort_job(struct virt *v, const char *uuid, bool stop, virt_done_fn done, void *user);
/* Switches a migration that may be to post-copy: the guest stops here, and what is left of the memory follows, slowly until
 * virt_free_postcopy(). */
void virt_start_postcopy(struct virt *v, const char *uuid, virt_done_fn done, void *user);
/* As fast as it can, from now on. */
void virt_free_postcopy(struct virt *v, const char *uuid, virt_done_fn done, void *user);
/* The copy here switched to post-copy, and the one at the target has never run: lets the copy here go on, once QEMU's
 * migration has come to an end, which it is told to. While libvirt's call is under way it takes note of that, and ends its
 * job when its connection ends. @connected: QEMU's connection is still open, and the return path was ended in it.
 * -ENOTRECOVERABLE: QEMU has lost its channels, and cannot go back. */
void virt_take_back(struct virt *v, const char *uuid, bool connected, virt_done_fn done,
                    void *user);
/* Of a copy that came by post-copy. */
enum virt_pages {
    VIRT_PAGES_WAITING,     /* it does not run yet */
    VIRT_PAGES_OUTSTANDING, /* it runs, and not all of its memory is here */
    VIRT_PAGES_BROKEN,      /* the same, and what carried them has broken: it is to be made again */
    VIRT_PAGES_DONE,        /* nothing is outstanding */
    VIRT_PAGES_OFF,         /* the copy ended */
    VIRT_PAGES_MISSING,     /* there is no such domain */
};
/* Of the library, as of the host's libvirtd beside it: 1000000 * major + 1000 * minor + release. */
unsigned long virt_library_version(void);
typedef void (*virt_pages_fn)(void *user, const struct error *err, enum virt_pages pages);
void virt_pages(struct virt *v, const char *uuid, virt_pages_fn done, void *user);
void virt_set_downtime(struct virt *v, const char *uuid, unsigned downtime_ms, virt_done_fn done,
                       void *user);
/* Stops the guest's processors; its migration goes on, and lets it go on when it ends without success. */
void virt_suspend(struct virt *v, const char *uuid, virt_done_fn done, void *user);
/* Of a migration with XBZRLE. */
void virt_set_xbzrle_cache(struct virt *v, const char *uuid, uint64_t bytes, virt_done_fn done,
                           void *user);
/* Of memory; 0 = no limit. */
void virt_set_speed(struct virt *v, const char *uuid, unsigned speed_mib_s, virt_done_fn done,
                    void *user);
/* Success, too, when it runs or has run and was shut down by its guest. -ENOENT: no such domain; -ESRCH:
 * it is off for another reason. */
void virt_resume(struct virt *v, const char *uuid, virt_done_fn done, void *user);
/* Resumes a drill's clone, if it is marked as that drill's, isolated, and not defined. */
void virt_run_clone(struct virt *v, const char *name, const char *move_id, const char *network,
                    virt_done_fn done, void *user);
/* Fails when the clone does not run; the reply says what the guest's agent does: "answers", "silent", "none". */
void virt_probe_clone(struct virt *v, const char *name, virt_reply_fn done, void *user);
/* Boots a defined domain that is off. */
void virt_start(struct virt *v, const char *uuid, virt_done_fn done, void *user);
/* Whether it starts with the host. */
void virt_set_autostart(struct virt *v, const char *uuid, bool on, virt_done_fn done, void *user);
/* Stops it at once and removes its definition (with autostart); success when there is none. */
void virt_destroy(struct virt *v, const char *uuid, virt_done_fn done, void *user);
/* Removes definition and autostart of a domain that is not active; success when there is none. */
void virt_undefine(struct virt *v, const char *uuid, virt_done_fn done, void *user);
/* One QMP command through libvirt's monitor; an error also when QEMU refuses it. */
void virt_qmp(struct virt *v, const char *uuid, const char *command, virt_reply_fn done,
              void *user);

#endif
