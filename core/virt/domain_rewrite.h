/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM's XML as it is to be at the target: its networks under their names there; and a drill's clone, isolated and
 * marked, so that nothing can take it for the VM.
 */
#ifndef FERRY_CORE_DOMAIN_REWRITE_H
#define FERRY_CORE_DOMAIN_REWRITE_H

#include "core/config.h"
#include "core/virt/domain_xml.h"

/* The namespace of the mark in a clone's metadata: <drill xmlns=... move="ID" of="NAME"/>. */
#define DRILL_NAMESPACE "urn:ferry:drill:1"

struct domain_rewrite {
    struct config_networks networks;
    bool drill;
    char drill_network[64]; /* the target's isolated network; empty: links are down */
    char move_id[40];       /* of a drill */
};

/* Puts the target's names into @platform. */
void domain_platform_translate(struct domain_platform *platform,
                               const struct config_networks *networks);
/* Whether there is anything to rewrite. */
bool domain_rewrite_needed(const struct domain_rewrite *w, const struct domain_platform *platform);
/* @ret_xml is malloc'ed. */
int domain_rewrite(const char *xml, const struct domain_rewrite *w, char **ret_xml,
                   struct error *err);

/* Fails with words unless @xml is the clone of this drill: marked, and every link down or on @drill_network. */
int domain_check_clone(const char *xml, const char *move_id, const char *drill_network,
                       struct error *err);

#endif
