/* SPDX-License-Identifier: Apache-2.0 */
/* Moves: identity, list, phases, journal. See move.h. */
#include "core/move/move.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/base/log.h"

const char *move_phase_name(enum move_phase phase)
{
    static const char *const names[MOVE_PHASES] = {
        "preparing", "copying",   "mirroring", "memory",  "stopped", "prepared",
        "drilling",  "committed", "post-copy", "resumed", "done"};

    return phase < MOVE_PHASES ? names[phase] : "?";
}

const char *move_outcome_name(enum move_outcome outcome)
{
    switch (outcome) {
    case MOVE_RUNNING:
        return "running";
    case MOVE_OUTCOME_COMMITTED:
        return "committed";
    case MOVE_OUTCOME_ABORTED:
        return "aborted";
    case MOVE_OUTCOME_IN_DOUBT:
        return "in-doubt";
    case MOVE_OUTCOME_DRILLED:
        return "drilled";
    }
    return "?";
}

enum move_outcome move_outcome_without_commit(const struct move *m)
{
    return m->rehearsal.verdict == DRILL_OPEN ? MOVE_OUTCOME_ABORTED : MOVE_OUTCOME_DRILLED;
}

/* --- the list ------------------------------------------------------------------------------ */

static void make_id(char ret[JOURNAL_ID_BYTES])
{
    uint8_t raw[4];

    if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
        memset(raw, 0, sizeof(raw)); /* a collision is refused below */
    snprintf(ret, JOURNAL_ID_BYTES, "%02x%02x%02x%02x", raw[0], raw[1], raw[2], raw[3]);
}

static void forget(struct move *m)
{
    TAILQ_REMOVE(&m->service->moves, m, entry);
    json_decref(m->past);
    json_decref(m->stun_undo);
    free(m);
}

/* Keeps the remembered past within its limit. */
static void forget_old(struct service *s)
{
    struct move *m, *next;
    unsigned count = 0;

    TAILQ_FOREACH(m, &s->moves, entry)
    count++;
    for (m = TAILQ_FIRST(&s->moves); m && count > LIMIT_MOVES_REMEMBERED; m = next) {
        next = TAILQ_NEXT(m, entry);
        if (m->finished && m->pending == 0 && !m->source && !m->target) {
            forget(m);
            count--;
        }
    }
}

int move_new(struct service *s, enum journal_role role, const char *id, const char *peer,
             struct move **ret, struct error *err)
{
    struct move *m;

    if (move_count_running(s) >= LIMIT_MOVES)
        return error_set(err, -EBUSY, "start a move", "wait for one to end", "%u moves run already",
                         LIMIT_MOVES);
    m = calloc(1, sizeof(*m));
    if (!m)
        return error_set(err, -ENOMEM, "start a move", NULL, "out of memory");
    m->service = s;
    m->role = role;
    m->created_ms = clock_wall_ms();
    m->phase_ns[MOVE_PREPARING] = clock_now_ns();
    m->downtime_ms = -1;
    boot_id(m->boot_id);
    snprintf(m->peer, sizeof(m->peer), "%s", peer);
    if (id)
        snprintf(m->id, sizeof(m->id), "%s", id);
    else
        make_id(m->id);
    if (move_find(s, m->id, role)) {
        free(m);
        return error_set(err, -EEXIST, "start a move", "try again", "its id is in use");
    }
    forget_old(s);
    TAILQ_INSERT_TAIL(&s->moves, m, entry);
    *ret = m;
    return 0;
}

struct move *move_find(struct service *s, const char *id, enum journal_role role)
{
    struct move *m;

    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (m->role == role && strcmp(m->id, id) == 0)
            return m;
    }
    return NULL;
}

struct move *move_lookup(struct service *s, const char *id)
{
    struct move *m, *found = NULL;
    size_t len = strlen(id);

    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (len == 0 || strncmp(m->id, id, len) != 0)
            continue;
        if (found && strcmp(found->id, m->id) != 0 && strcmp(m->id, id) != 0)
            return NULL;
        found = m;
    }
    return found;
}

struct move *move_of_domain(struct service *s, const char *name, const char *uuid,
                            const struct move *except)
{
    struct move *m;

    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (m != except && !m->finished &&
            (strcmp(m->info.name, name) == 0 || strcmp(m->info.uuid, uuid) == 0))
            return m;
    }
    return NULL;
}

int move_domain_is_free(struct service *s, const char *name, const char *uuid,
                        const struct move *except, struct error *err)
{
    if (!move_of_domain(s, name, uuid, except))
        return 0;
    return error_set(err, -EBUSY, "start a move", "see `ferry list`",
                     "another move of %s is not finished", name);
}

unsigned move_count_running(struct service *s)
{
    struct move *m;
    unsigned count = 0;

    TAILQ_FOREACH(m, &s->moves, entry)
    count += !m->finished;
    return count;
}

unsigned move_count_sending(struct service *s)
{
    struct move *m;
    unsigned count = 0;

    TAILQ_FOREACH(m, &s->moves, entry)
    count += !m->finished && m->phase < MOVE_PREPARED;
    return count;
}

bool move_is_outstanding(const struct move *m)
{
    return m->switched && m->phase >= MOVE_COMMITTED && m->phase < MOVE_RESUMED;
}

/* --- phases and reasons -------------------------------------------------------------------- */

void move_set_phase(struct move *m, enum move_phase phase)
{
    if (phase <= m->phase)
        return;
    log_info("move %s (%s): %s -> %s", m->id, m->info.name, move_phase_name(m->phase),
             move_phase_name(phase));
    m->phase = phase;
    m->phase_ns[phase] = clock_now_ns();
}

void move_set_reason(struct move *m, const struct error *why)
{
    char line[1024];

    if (error_is_set(&m->reason) || !error_is_set(why))
        return;
    m->reason = *why;
    log_warning("move %s (%s): %s", m->id, m->info.name, error_line(why, line, sizeof(line)));
}

void move_set_trouble(struct move *m, const struct error *why)
{
    char line[1024];

    if (error_is_set(why))
        log_error("move %s (%s): %s", m->id, m->info.name, error_line(why, line, sizeof(line)));
    else if (error_is_set(&m->trouble))
        log_info("move %s (%s): it could, after all: %s", m->id, m->info.name, m->trouble.what);
    m->trouble = *why;
}

bool move_is_troubled(const struct move *m)
{
    return error_is_set(&m->trouble) && !m->finished;
}

void move_set_limit(struct move *m, uint64_t rate_bytes_s)
{
    shaper_set_rate(&m->shaper, rate_bytes_s, clock_now_ns());
    m->policy.of[POLICY_BWLIMIT] =
        (struct policy_value){.value = rate_bytes_s, .level = POLICY_LEVEL_REQUEST};
}

void move_journal(struct move *m, const char *state, bool finished, void (*on_durable)(void *user))
{
    struct journal_record record = {
        .role = m->role, .finished = finished, .created_ms = m->created_ms};
    json_t *document = move_to_document(m);
    char *text = json_dumps(document, JSON_COMPACT);

    snprintf(record.id, sizeof(record.id), "%s", m->id);
    snprintf(record.state, sizeof(record.state), "%s", state);
    record.document = text;
    if (!text || journal_put(m->service->journal, &record, on_durable, m) < 0) {
        log_error("move %s: out of memory for its record; stopping", m->id);
        _exit(70); /* as in core/journal.c */
    }
    free(text);
    json_decref(document);
}

/* --- sockets ------------------------------------------------------------------------------- */

static int put_path(char to[108], const char *format, const char *a, const char *b, const char *c)
{
    return snprintf(to, 108, format, a, b, c) < 108 ? 0 : -ENAMETOOLONG;
}

int move_paths_of(const struct config *c, const struct move *m, struct move_paths *ret,
                  struct error *err)
{
    /* The ".tunnelmigrate.dest.NAME" ending is what AppArmor's libvirt profile allows QEMU to use. */
    int r = put_path(ret->folder, "%s/%s%s", c->socket_dir, m->id, "");

    if (r == 0)
        r = put_path(ret->rpc, "%s/%s/%s", c->socket_dir, m->id, "virt.sock");
    if (r == 0)
        r = put_path(ret->memory, "%s/%s/ram.tunnelmigrate.dest.%s", c->socket_dir, m->id,
                     m->info.name);
    if (r == 0)
        r = put_path(ret->disk, "%s/%s/disk.tunnelmigrate.dest.%s", c->socket_dir, m->id,
                     m->info.name);
    if (r < 0)
        return error_set(
            err, r, "choose the move's sockets", "set a shorter socket_dir, or rename the VM",
            "the paths of %s would be longer than the 107 bytes a UNIX socket may have",
            m->info.name);
    return 0;
}

int move_paths_make(struct service *s, const struct move_paths *paths, struct error *err)
{
    if ((mkdir(s->config->socket_dir, 0755) < 0 && errno != EEXIST) ||
        chmod(s->config->socket_dir, 0755) < 0)
        return error_set(err, -errno, "make the folder for QEMU's sockets", NULL, "%s: %s",
                         s->config->socket_dir, strerror(errno));
    if (mkdir(paths->folder, 0700) < 0 || chown(paths->folder, s->qemu_uid, s->qemu_gid) < 0)
        return error_set(err, -errno, "make the folder for the move's sockets", NULL, "%s: %s",
                         paths->folder, strerror(errno));
    return 0;
}

void move_paths_remove(const struct move_paths *paths)
{
    if (!paths->folder[0])
        return;
    unlink(paths->rpc);
    unlink(paths->memory);
    unlink(paths->disk);
    rmdir(paths->folder);
}
