/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration with inih: see config.h. */
#include "core/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/base/clock.h"
#include "netlink/pack.h"

struct reader {
    struct config *config;
    struct error *err; /* first fault */
    const char *path;
    FILE *file;
    unsigned line;
};

/* --- values -------------------------------------------------------------------------------- */

int config_parse_bytes(const char *text, uint64_t *ret)
{
    static const char units[] = "KMGT";
    const char *unit;
    char *end = NULL;
    double value;
    unsigned shift = 0;

    errno = 0;
    value = strtod(text, &end);
    if (end == text || errno || !(value >= 0))
        return -EINVAL;
    unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
    }
    if (strcasecmp(end, "iB") == 0)
        end += 2;
    else if (toupper((unsigned char)*end) == 'B')
        end++;
    value *= (double)(UINT64_C(1) << shift);
    if (*end || value > 9e18)
        return -EINVAL;
    *ret = (uint64_t)value;
    return 0;
}

static bool set_string(char *to, size_t cap, const char *value)
{
    size_t len = strlen(value);

    if (len >= cap)
        return false;
    memcpy(to, value, len + 1);
    return true;
}

static bool set_path(char *to, const char *value)
{
    return value[0] == '/' && set_string(to, PATH_MAX, value);
}

static bool set_bool(bool *to, const char *value)
{
    bool yes =
        strcasecmp(value, "yes") == 0 || strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0;
    bool no =
        strcasecmp(value, "no") == 0 || strcasecmp(value, "false") == 0 || strcmp(value, "0") == 0;

    *to = yes;
    return yes || no;
}

static bool set_number(unsigned *to, const char *value, unsigned least, unsigned most)
{
    char *end = NULL;
    unsigned long n = strtoul(value, &end, 10);

    if (end == value || *end || n < least || n > most)
        return false;
    *to = (unsigned)n;
    return true;
}

static bool set_bytes(uint64_t *to, const char *value, uint64_t least, uint64_t most)
{
    uint64_t n;

    if (config_parse_bytes(value, &n) < 0 || n < least || n > most)
        return false;
    *to = n;
    return true;
}

static bool set_bytes32(uint32_t *to, const char *value, uint32_t least, uint32_t most)
{
    uint64_t n;

    if (!set_bytes(&n, value, least, most))
        return false;
    *to = (uint32_t)n;
    return true;
}

/* A site's name goes into file names, messages and metrics. */
static bool set_name(char to[WIRE_NAME_BYTES], const char *value)
{
    for (const char *p = value; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return false;
    }
    return value[0] && value[0] != '.' && set_string(to, WIRE_NAME_BYTES, value);
}

/* A DNS name, as certificates have it: without wildcards. */
static bool set_host_name(char to[TLS_NAME_BYTES], const char *value)
{
    for (const char *p = value; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return false;
    }
    return value[0] && value[0] != '.' && set_string(to, TLS_NAME_BYTES, value);
}

static bool set_directories(struct config *c, const char *value)
{
    char copy[4096], *save = NULL;

    if (!set_string(copy, sizeof(copy), value))
        return false;
    c->directory_count = 0;
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        if (c->directory_count == CONFIG_DIRECTORIES_MAX ||
            !set_path(c->directories[c->directory_count], word))
            return false;
        c->directory_count++;
    }
    return c->directory_count > 0;
}

static bool set_permissions(unsigned *to, const char *value)
{
    char copy[256], *save = NULL;

    if (!set_string(copy, sizeof(copy), value))
        return false;
    *to = 0;
    for (char *word = strtok_r(copy, " ,", &save); word; word = strtok_r(NULL, " ,", &save)) {
        if (strcmp(word, "move-here") == 0)
            *to |= PEER_MAY_MOVE_HERE;
        else if (strcmp(word, "move-from-here") == 0)
            *to |= PEER_MAY_MOVE_FROM_HERE;
        else if (strcmp(word, "drill") == 0)
            *to |= PEER_MAY_DRILL;
        else
            return false;
    }
    return true;
}

/* --- sections ------------------------------------------------------------------------------ */

/* 1: set, 0: bad value, -1: no such key. */
static int set_site(struct config *c, const char *key, const char *value)
{
    if (strcmp(key, "name") == 0)
        return set_name(c->name, value);
    if (strcmp(key, "listen") == 0)
        return set_string(c->listen, sizeof(c->listen), value);
    if (strcmp(key, "state_dir") == 0)
        return set_path(c->state_dir, value);
    if (strcmp(key, "run_dir") == 0)
        return set_path(c->run_dir, value);
    if (strcmp(key, "socket_dir") == 0)
        return set_path(c->socket_dir, value);
    if (strcmp(key, "log_level") == 0)
        return log_level_parse(value, &c->log_level) == 0;
    return -1;
}

static int set_tls(struct config *c, const char *key, const char *value)
{
    if (strcmp(key, "key") == 0)
        return set_path(c->key, value);
    if (strcmp(key, "certificate") == 0)
        return set_path(c->certificate, value);
    if (strcmp(key, "ca") == 0)
        return set_path(c->ca, value);
    if (strcmp(key, "crl") == 0)
        return set_path(c->crl, value);
    return -1;
}

static int set_libvirt(struct config *c, const char *key, const char *value)
{
    if (strcmp(key, "uri") == 0)
        return set_string(c->libvirt_uri, sizeof(c->libvirt_uri), value);
    if (strcmp(key, "socket") == 0)
        return set_path(c->libvirt_socket, value);
    if (strcmp(key, "qemu_user") == 0)
        return set_string(c->qemu_user, sizeof(c->qemu_user), value);
    if (strcmp(key, "monitor") == 0)
        return set_bool(&c->monitor, value);
    return -1;
}

static bool set_seconds(uint64_t *to_ns, const char *value, unsigned least, unsigned most)
{
    unsigned seconds = 0;

    if (!set_number(&seconds, value, least, most))
        return false;
    *to_ns = seconds * NS_PER_S;
    return true;
}

/* "auto", "off", or a level of zstd. */
static bool set_compression(struct link_config *c, const char *value)
{
    char *end = NULL;
    long level = strtol(value, &end, 10);

    c->compress = strcmp(value, "off") != 0;
    c->compression_level = 0;
    if (!c->compress || strcmp(value, "auto") == 0)
        return true;
    if (end == value || *end || level == 0 || level < PACK_LEVEL_MIN || level > PACK_LEVEL_MAX)
        return false;
    c->compression_level = (int)level;
    return true;
}

static bool set_stripes(unsigned *to, const char *value)
{
    if (strcmp(value, "auto") != 0)
        return set_number(to, value, 1, LIMIT_SESSION_STRIPES);
    *to = 0;
    return true;
}

static int set_link(struct link_config *c, const char *key, const char *value)
{
    if (strcmp(key, "stripes") == 0)
        return set_stripes(&c->stripes, value);
    if (strcmp(key, "window") == 0)
        return set_bytes32(&c->window_bytes, value, 16u << 20, 1u << 30);
    if (strcmp(key, "socket_buffer") == 0)
        return set_bytes32(&c->socket_buffer_bytes, value, 0, 256u << 20);
    if (strcmp(key, "congestion_control") == 0)
        return set_string(c->congestion_control, sizeof(c->congestion_control), value);
    if (strcmp(key, "compression") == 0)
        return set_compression(c, value);
    if (strcmp(key, "stripe_timeout_s") == 0)
        return set_seconds(&c->stripe_timeout_ns, value, 2, 600);
    if (strcmp(key, "outage_limit_s") == 0)
        return set_seconds(&c->outage_limit_ns, value, 1, 24 * 3600);
    return -1;
}

static int set_storage(struct config *c, const char *key, const char *value)
{
    if (strcmp(key, "directories") == 0)
        return set_directories(c, value);
    if (strcmp(key, "log_memory") == 0)
        return set_bytes(&c->log_memory_bytes, value, 8u << 20, UINT64_C(1) << 40);
    if (strcmp(key, "spool") == 0)
        return set_path(c->spool_dir, value);
    if (strcmp(key, "spool_size") == 0)
        return set_bytes(&c->spool_bytes, value, 16u << 20, UINT64_C(1) << 44);
    if (strcmp(key, "stall_limit_s") == 0)
        return set_number(&c->stall_limit_s, value, 1, 600);
    if (strcmp(key, "old_disks") == 0) {
        c->old_disks = strcmp(value, "remove") == 0 ? OLD_DISKS_REMOVE : OLD_DISKS_KEEP;
        return strcmp(value, "remove") == 0 || strcmp(value, "keep") == 0;
    }
    return -1;
}

static bool set_converge(enum converge *to, const char *value)
{
    static const char *const names[] = {[CONVERGE_STUN] = "stun",
                                        [CONVERGE_AUTO_CONVERGE] = "auto-converge",
                                        [CONVERGE_NONE] = "none"};

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(value, names[i]) == 0) {
            *to = (enum converge)i;
            return true;
        }
    }
    return false;
}

const char *stun_actuator_name(enum stun_actuator actuator)
{
    static const char *const names[] = {
        [STUN_ACTUATOR_BEST] = "best",     [STUN_ACTUATOR_DIRTY_LIMIT] = "dirty-limit",
        [STUN_ACTUATOR_CGROUP] = "cgroup", [STUN_ACTUATOR_AUTO_CONVERGE] = "auto-converge",
        [STUN_ACTUATOR_NONE] = "none",
    };

    return names[actuator];
}

static bool set_actuator(enum stun_actuator *to, const char *value)
{
    for (unsigned i = STUN_ACTUATOR_BEST; i < STUN_ACTUATOR_NONE; i++) {
        if (strcmp(value, stun_actuator_name((enum stun_actuator)i)) == 0) {
            *to = (enum stun_actuator)i;
            return true;
        }
    }
    return false;
}

static int set_memory(struct config *c, const char *key, const char *value)
{
    if (strcmp(key, "downtime_ms") == 0)
        return set_number(&c->downtime_ms, value, 1, 60000);
    if (strcmp(key, "downtime_max_ms") == 0)
        return set_number(&c->downtime_max_ms, value, 1, 60000);
    if (strcmp(key, "converge") == 0)
        return set_converge(&c->converge, value);
    if (strcmp(key, "stun_actuator") == 0)
        return set_actuator(&c->stun_actuator, value);
    if (strcmp(key, "stun_max_percent") == 0)
        return set_number(&c->stun_max_percent, value, 1, 99);
    if (strcmp(key, "switchover_deadline_s") == 0)
        return set_number(&c->switchover_deadline_s, value, 1, 3600);
    if (strcmp(key, "codec") == 0)
        return set_bool(&c->codec, value);
    if (strcmp(key, "page_store") == 0)
        return set_bytes(&c->page_store_bytes, value, 0, LIMIT_RAM_STORE_BYTES);
    return -1;
}

static bool set_endpoints(struct witness_config *c, const char *value)
{
    char copy[LIMIT_WITNESS_ENDPOINTS * WITNESS_URL_BYTES], *save = NULL;

    if (!set_string(copy, sizeof(copy), value))
        return false;
    c->endpoint_count = 0;
    for (char *word = strtok_r(copy, " ,", &save); word; word = strtok_r(NULL, " ,", &save)) {
        size_t len = strlen(word);

        if ((strncmp(word, "http://", 7) != 0 && strncmp(word, "https://", 8) != 0) ||
            c->endpoint_count == LIMIT_WITNESS_ENDPOINTS || word[len - 1] == '/' ||
            !set_string(c->endpoints[c->endpoint_count++], WITNESS_URL_BYTES, word))
            return false;
    }
    return c->endpoint_count > 0;
}

static int set_witness(struct witness_config *c, const char *key, const char *value)
{
    if (strcmp(key, "endpoints") == 0)
        return set_endpoints(c, value);
    if (strcmp(key, "ca") == 0)
        return set_path(c->ca, value);
    if (strcmp(key, "certificate") == 0)
        return set_path(c->certificate, value);
    if (strcmp(key, "key") == 0)
        return set_path(c->key, value);
    if (strcmp(key, "timeout_ms") == 0)
        return set_number(&c->timeout_ms, value, 100, 60000);
    return -1;
}

static struct config_peer *peer_of_section(struct config *c, const char *name)
{
    struct config_peer *p;

    for (unsigned i = 0; i < c->peer_count; i++) {
        if (strcmp(c->peers[i].link.name, name) == 0)
            return &c->peers[i];
    }
    if (c->peer_count == CONFIG_PEERS_MAX)
        return NULL;
    p = &c->peers[c->peer_count];
    if (!set_name(p->link.name, name))
        return NULL;
    c->peer_count++;
    return p;
}

static int set_peer(struct config_peer *p, const char *key, const char *value)
{
    if (strcmp(key, "address") == 0)
        return set_string(p->link.address, sizeof(p->link.address), value);
    if (strcmp(key, "fingerprint") == 0)
        return tls_fingerprint_parse(value, p->link.fingerprint) == 0;
    if (strcmp(key, "certificate_name") == 0)
        return set_host_name(p->link.certificate_name, value);
    if (strcmp(key, "allow") == 0)
        return set_permissions(&p->permissions, value);
    if (strcmp(key, "bwlimit") == 0) {
        p->has_bwlimit = true;
        return timetable_parse(value, &p->bwlimit) == 0;
    }
    return -1;
}

static int set_value(struct config *c, const char *section, const char *key, const char *value)
{
    if (strcmp(section, "site") == 0)
        return set_site(c, key, value);
    if (strcmp(section, "tls") == 0)
        return set_tls(c, key, value);
    if (strcmp(section, "libvirt") == 0)
        return set_libvirt(c, key, value);
    if (strcmp(section, "link") == 0 && strcmp(key, "bwlimit") == 0)
        return timetable_parse(value, &c->bwlimit) == 0;
    if (strcmp(section, "link") == 0)
        return set_link(&c->link, key, value);
    if (strcmp(section, "storage") == 0)
        return set_storage(c, key, value);
    if (strcmp(section, "memory") == 0)
        return set_memory(c, key, value);
    if (strcmp(section, "witness") == 0)
        return set_witness(&c->witness, key, value);
    if (strncmp(section, "peer ", 5) == 0) {
        struct config_peer *p = peer_of_section(c, section + 5);

        return p ? set_peer(p, key, value) : 0;
    }
    return -2;
}

static int on_entry(void *user, const char *section, const char *key, const char *value)
{
    struct reader *r = user;
    int set = set_value(r->config, section, key, value);

    if (set == 1)
        return 1;
    if (!error_is_set(r->err))
        error_set(r->err, -EINVAL, "read the configuration", "see ferry.conf(5)",
                  "%s: %s '%s' in [%s]", r->path,
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
        .downtime_ms = 30,
        .downtime_max_ms = 500,
        .converge = CONVERGE_STUN,
        .stun_max_percent = 95,
        .switchover_deadline_s = 15,
        .codec = true,
        .page_store_bytes = 256u << 20,
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
    return 0;
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
