/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration with inih: see config.h. */
#include "core/config_private.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct reader {
    struct config *config;
    struct error *err; /* first fault */
    const char *path;
    FILE *file;
    unsigned line;
};

static int on_entry(void *user, const char *section, const char *key, const char *value)
{
    struct reader *r = user;
    int set = config_set(r->config, section, key, value);
    bool choice = policy_config_owns(section) || strcmp(section, "memory") == 0;
    int setting = choice ? policy_setting_find(key) : -1;
    char allowed[POLICY_TEXT_BYTES], mend[POLICY_TEXT_BYTES + 32] = "see ferry.conf(5)";

    if (set == 1)
        return 1;
    if (set == 0 && setting >= 0)
        snprintf(mend, sizeof(mend), "it may be %s",
                 policy_setting_allowed((enum policy_setting)setting, allowed, sizeof(allowed)));
    if (!error_is_set(r->err))
        error_set(r->err, -EINVAL, "read the configuration", mend, "%s: %s '%s' in [%s]", r->path,
                  set == -2   ? "unknown section for"
                  : set == -1 ? "unknown setting"
                              : "unusable value of",
                  key, section);
    return 0;
}

/* inih takes the rest of a line that does not fit its buffer for another line: refuse it instead. */
static char *read_line(char *to, int cap, void *stream)
{
    struct reader *r = stream;
    char *line = fgets(to, cap, r->file);

    r->line++;
    if (line && strlen(line) == (size_t)cap - 1 && !strchr(line, '\n') && !error_is_set(r->err))
        error_set(r->err, -EINVAL, "read the configuration", "make it shorter",
                  "%s line %u is longer than %d bytes", r->path, r->line, cap - 2);
    return line;
}

/* --- the whole ----------------------------------------------------------------------------- */

static void set_defaults(struct config *c)
{
    *c = (struct config){
        .state_dir = "/var/lib/ferry",
        .run_dir = "/run/ferry",
        /* Where AppArmor's libvirt profile lets QEMU use sockets; see docs/operations.md. */
        .socket_dir = "/run/libvirt/ferry",
        .listen = "*:7077",
        .log_level = LOG_LEVEL_INFO,
        .key = "/etc/ferry/key.pem",
        .certificate = "/etc/ferry/certificate.pem",
        .libvirt_uri = "qemu:///system",
        .libvirt_socket = "/run/libvirt/libvirt-sock",
        .qemu_user = "libvirt-qemu",
        .monitor = true,
        .directories = {"/var/lib/libvirt/images"},
        .directory_count = 1,
        .log_memory_bytes = 256u << 20,
        .spool_bytes = UINT64_C(8) << 30,
        .stall_limit_s = 10, /* a third of what a guest's SCSI or IDE driver waits */
        .old_disks = OLD_DISKS_KEEP,
        .drill_commands = "/etc/ferry/drill.d",
        .drill_timeout_s = 600,
        .use_seeds = true,
        .switchover_deadline_s = 15,
        .codec = true,
        .page_store_bytes = 256u << 20,
        .disk_index_bytes = 64u << 20,
        .witness = {.timeout_ms = 3000},
    };
    link_config_default(&c->link);
}

static const char WHAT[] = "read the configuration";

static bool same(const char *a, const char *b)
{
    return a[0] && strcasecmp(a, b) == 0;
}

static int check_peer(const struct config *c, unsigned index, const char *path, struct error *err)
{
    const struct link_peer *p = &c->peers[index].link;

    if (!p->fingerprint[0] && !p->certificate_name[0])
        return error_set(err, -EINVAL, WHAT, "paste what `ferry identity` prints at that site",
                         "%s: [peer %s] has neither fingerprint nor certificate_name", path,
                         p->name);
    if (p->certificate_name[0] && !c->ca[0])
        return error_set(err, -EINVAL, WHAT, "name the CA that certifies it: ca = in [tls]",
                         "%s: [peer %s] has a certificate_name, but this site has no ca", path,
                         p->name);
    if (strcmp(p->name, c->name) == 0)
        return error_set(err, -EINVAL, WHAT, "remove that section",
                         "%s: [peer %s] is this site itself", path, p->name);
    for (unsigned k = 0; k < index; k++) {
        const struct link_peer *other = &c->peers[k].link;
        bool key = same(other->fingerprint, p->fingerprint);

        if (key || same(other->certificate_name, p->certificate_name))
            return error_set(err, -EINVAL, WHAT, "give each site its own key and name",
                             "%s: [peer %s] and [peer %s] have the same %s", path, other->name,
                             p->name, key ? "fingerprint" : "certificate_name");
    }
    return 0;
}

static int check_whole(const struct config *c, const char *path, struct error *err)
{

    if (!c->name[0])
        return error_set(err, -EINVAL, WHAT, "add name = SITE in [site]",
                         "%s: this site has no name", path);
    if (c->crl[0] && !c->ca[0])
        return error_set(err, -EINVAL, WHAT,
                         "add ca =, or remove crl =", "%s: [tls] has a crl and no ca", path);
    for (unsigned i = 0; i < c->peer_count; i++) {
        int r = check_peer(c, i, path, err);

        if (r < 0)
            return r;
    }
    return policy_config_check(&c->policies, path, err);
}

int config_load(const char *path, struct config **ret, struct error *err)
{
    struct config *c = malloc(sizeof(*c));
    struct error first = {0};
    struct reader reader = {.config = c, .err = &first, .path = path};
    int r;

    if (!c)
        return error_set(err, -ENOMEM, WHAT, NULL, "out of memory");
    set_defaults(c);
    reader.file = fopen(path, "re");
    r = reader.file ? ini_parse_stream(read_line, &reader, on_entry, &reader) : -1;
    if (error_is_set(&first)) {
        r = first.code;
        if (err)
            *err = first;
    } else if (r == -1) {
        r = error_set(err, -ENOENT, WHAT, "see ferry.conf(5) for an example", "%s: %s", path,
                      strerror(errno));
    } else if (r != 0) {
        r = error_set(err, -EINVAL, WHAT, NULL, "%s line %d is neither [section] nor key = value",
                      path, r);
    } else {
        r = check_whole(c, path, err);
    }
    if (reader.file)
        fclose(reader.file);
    if (r < 0) {
        free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void config_free(struct config *c)
{
    free(c);
}

const struct config_peer *config_peer_by_name(const struct config *c, const char *name)
{
    for (unsigned i = 0; i < c->peer_count; i++) {
        if (strcmp(c->peers[i].link.name, name) == 0)
            return &c->peers[i];
    }
    return NULL;
}

const struct config_peer *config_peer_by_certificate(const struct config *c,
                                                     const struct tls_conn *seen)
{
    for (unsigned i = 0; i < c->peer_count; i++) {
        if (link_peer_is(&c->peers[i].link, seen))
            return &c->peers[i];
    }
    return NULL;
}
