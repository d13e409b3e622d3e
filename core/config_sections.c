/* SPDX-License-Identifier: Apache-2.0 */
/* What each setting of each section may be: see config.h. */
#include "core/config_private.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "core/base/clock.h"
#include "core/api/status_page.h"
#include "netlink/pack.h"

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

int config_parse_bool(const char *value, bool *ret)
{
    bool yes =
        strcasecmp(value, "yes") == 0 || strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0;
    bool no =
        strcasecmp(value, "no") == 0 || strcasecmp(value, "false") == 0 || strcmp(value, "0") == 0;

    if (!yes && !no)
        return -EINVAL;
    *ret = yes;
    return 0;
}

static bool set_bool(bool *to, const char *value)
{
    return config_parse_bool(value, to) == 0;
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
        else if (strcmp(word, "direct-memory") == 0)
            *to |= PEER_MAY_DIRECT_MEMORY;
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
    if (strcmp(key, "status_page") == 0)
        return status_page_parse_address(value, &(struct sockaddr_storage){0}) == 0 &&
               set_string(c->status_page, sizeof(c->status_page), value);
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
    if (strcmp(key, "use_seeds") == 0)
        return set_bool(&c->use_seeds, value);
    return -1;
}

static int set_seed(struct config *c, const char *key, const char *value)
{
    struct config_seed *seed = &c->seeds[c->seed_count];

    if (!strchr(key, '/'))
        return -1;
    if (c->seed_count == CONFIG_SEEDS_MAX || !set_string(seed->disks, sizeof(seed->disks), key) ||
        !set_path(seed->path, value))
        return 0;
    c->seed_count++;
    return 1;
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

/* Settings of moves that stood in [memory] before there were policies: the service's. */
static bool is_old_choice(const char *key)
{
    static const char *const keys[] = {"downtime_ms", "downtime_max_ms", "converge",
                                       "stun_max_percent"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(key, keys[i]) == 0)
            return true;
    }
    return false;
}

static int set_memory(struct config *c, const char *key, const char *value)
{
    if (is_old_choice(key))
        return policy_choices_set(&c->policies.service, key, value);
    if (strcmp(key, "stun_actuator") == 0)
        return set_actuator(&c->stun_actuator, value);
    if (strcmp(key, "switchover_deadline_s") == 0)
        return set_number(&c->switchover_deadline_s, value, 1, 3600);
    if (strcmp(key, "codec") == 0)
        return set_bool(&c->codec, value);
    if (strcmp(key, "page_store") == 0)
        return set_bytes(&c->page_store_bytes, value, 0, LIMIT_RAM_STORE_BYTES);
    if (strcmp(key, "disk_index") == 0)
        return set_bytes(&c->disk_index_bytes, value, 0, LIMIT_DISK_INDEX_BYTES);
    return -1;
}

static int set_drill(struct config *c, const char *key, const char *value)
{
    if (strcmp(key, "commands") == 0)
        return set_path(c->drill_commands, value);
    if (strcmp(key, "timeout_s") == 0)
        return set_number(&c->drill_timeout_s, value, 1, 24 * 3600);
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

/* "HERE:THERE HERE:THERE" */
static bool set_networks(struct config_networks *n, const char *value)
{
    char copy[2048], *save = NULL;

    if (!set_string(copy, sizeof(copy), value))
        return false;
    n->count = 0;
    for (char *word = strtok_r(copy, " ,", &save); word; word = strtok_r(NULL, " ,", &save)) {
        char *colon = strchr(word, ':');

        if (!colon || colon == word || !colon[1] || n->count == CONFIG_NETWORKS_MAX)
            return false;
        *colon = '\0';
        if (!set_string(n->list[n->count].here, sizeof(n->list->here), word) ||
            !set_string(n->list[n->count].there, sizeof(n->list->there), colon + 1))
            return false;
        n->count++;
    }
    return n->count > 0;
}

/* A host name or an address, without a port; of IPv6 without brackets. */
static bool set_memory_address(char to[LINK_ADDRESS_BYTES], const char *value)
{
    for (const char *p = value; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("-_.:", *p))
            return false;
    }
    return value[0] && set_string(to, LINK_ADDRESS_BYTES, value);
}

static int set_peer(struct config_peer *p, const char *key, const char *value)
{
    if (strcmp(key, "address") == 0)
        return set_string(p->link.address, sizeof(p->link.address), value);
    if (strcmp(key, "fingerprint") == 0)
        return tls_fingerprint_parse(value, p->link.fingerprint) == 0;
    if (strcmp(key, "certificate_name") == 0)
        return set_host_name(p->link.certificate_name, value);
    if (strcmp(key, "networks") == 0)
        return set_networks(&p->networks, value);
    if (strcmp(key, "drill_network") == 0)
        return set_string(p->drill_network, sizeof(p->drill_network), value);
    if (strcmp(key, "memory_address") == 0)
        return set_memory_address(p->memory_address, value);
    if (strcmp(key, "allow") == 0)
        return set_permissions(&p->permissions, value);
    if (strcmp(key, "bwlimit") == 0) {
        p->has_bwlimit = true;
        return timetable_parse(value, &p->bwlimit) == 0;
    }
    return -1;
}

int config_set(struct config *c, const char *section, const char *key, const char *value)
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
    if (strcmp(section, "seeds") == 0)
        return set_seed(c, key, value);
    if (strcmp(section, "memory") == 0)
        return set_memory(c, key, value);
    if (strcmp(section, "drill") == 0)
        return set_drill(c, key, value);
    if (strcmp(section, "witness") == 0)
        return set_witness(&c->witness, key, value);
    if (policy_config_owns(section))
        return policy_config_set(&c->policies, section, key, value);
    if (strncmp(section, "peer ", 5) == 0) {
        struct config_peer *p = peer_of_section(c, section + 5);

        return p ? set_peer(p, key, value) : 0;
    }
    return -2;
}
