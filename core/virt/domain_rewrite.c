/* SPDX-License-Identifier: Apache-2.0 */
#include "core/virt/domain_rewrite.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "core/base/macros.h"

static void doc_free(xmlDocPtr *doc)
{
    xmlFreeDoc(*doc);
}

static xmlDocPtr read_xml(const char *xml)
{
    return xmlReadMemory(xml, (int)strlen(xml), "domain.xml", NULL,
                         XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
}

static xmlNodePtr child(xmlNodePtr node, const char *name)
{
    for (xmlNodePtr c = node ? node->children : NULL; c; c = c->next) {
        if (c->type == XML_ELEMENT_NODE && strcmp((const char *)c->name, name) == 0)
            return c;
    }
    return NULL;
}

static bool attribute_is(xmlNodePtr node, const char *name, const char *wanted)
{
    xmlChar *text = node ? xmlGetProp(node, (const xmlChar *)name) : NULL;
    bool same = text && strcmp((const char *)text, wanted) == 0;

    xmlFree(text);
    return same;
}

static void set_attribute(xmlNodePtr node, const char *name, const char *value)
{
    xmlSetProp(node, (const xmlChar *)name, (const xmlChar *)value);
}

static xmlNodePtr child_or_new(xmlNodePtr node, const char *name)
{
    xmlNodePtr c = child(node, name);

    return c ? c : xmlNewChild(node, NULL, (const xmlChar *)name, NULL);
}

/* --- networks ------------------------------------------------------------------------------ */

static const char *name_there(const struct config_networks *networks, const char *name)
{
    for (unsigned i = 0; i < networks->count; i++) {
        if (strcmp(networks->list[i].here, name) == 0)
            return networks->list[i].there;
    }
    return name;
}

void domain_platform_translate(struct domain_platform *platform,
                               const struct config_networks *networks)
{
    for (unsigned i = 0; i < platform->network_count; i++) {
        char name[sizeof(platform->networks[i].name)];

        snprintf(name, sizeof(name), "%s", name_there(networks, platform->networks[i].name));
        memcpy(platform->networks[i].name, name, sizeof(name));
    }
}

bool domain_rewrite_needed(const struct domain_rewrite *w, const struct domain_platform *platform)
{
    for (unsigned i = 0; i < platform->network_count; i++) {
        const char *name = platform->networks[i].name;

        if (strcmp(name_there(&w->networks, name), name) != 0)
            return true;
    }
    return w->drill;
}

static void translate_link(xmlNodePtr node, const struct config_networks *networks)
{
    static const char *const keys[] = {"network", "bridge", "dev"};
    xmlNodePtr source = child(node, "source");

    for (size_t i = 0; source && i < ARRAY_SIZE(keys); i++) {
        xmlChar *name = xmlGetProp(source, (const xmlChar *)keys[i]);

        /* A network that is managed names its bridge, too, in a live definition: that one is its own. */
        if (name && (i != 1 || !attribute_is(node, "type", "network")))
            set_attribute(source, keys[i], name_there(networks, (const char *)name));
        else if (name)
            xmlUnsetProp(source, (const xmlChar *)keys[i]);
        xmlFree(name);
    }
}

/* --- a drill's clone ----------------------------------------------------------------------- */

static void isolate_link(xmlNodePtr node, const char *network)
{
    xmlNodePtr source = child(node, "source");

    if (!network[0]) {
        set_attribute(child_or_new(node, "link"), "state", "down");
        return;
    }
    if (source) {
        xmlUnlinkNode(source);
        xmlFreeNode(source);
    }
    set_attribute(node, "type", "network");
    set_attribute(xmlNewChild(node, NULL, (const xmlChar *)"source", NULL), "network", network);
}

static void mark(xmlNodePtr root, const char *move_id)
{
    xmlNodePtr name = child(root, "name");
    xmlChar *of = xmlNodeGetContent(name);
    xmlNodePtr drill =
        xmlNewChild(child_or_new(root, "metadata"), NULL, (const xmlChar *)"ferry:drill", NULL);

    set_attribute(drill, "xmlns:ferry", DRILL_NAMESPACE);
    set_attribute(drill, "move", move_id);
    set_attribute(drill, "of", of ? (const char *)of : "");
    xmlFree(of);
}

int domain_rewrite(const char *xml, const struct domain_rewrite *w, char **ret_xml,
                   struct error *err)
{
    _cleanup_(doc_free) xmlDocPtr doc = read_xml(xml);
    xmlNodePtr root = doc ? xmlDocGetRootElement(doc) : NULL, devices = child(root, "devices");
    xmlChar *text = NULL;
    int len = 0;

    if (!devices)
        return error_set(err, -EINVAL, "write the VM's definition for the target", NULL,
                         "libvirt's XML is not well-formed");
    for (xmlNodePtr n = devices->children; n; n = n->next) {
        if (n->type != XML_ELEMENT_NODE || strcmp((const char *)n->name, "interface") != 0)
            continue;
        translate_link(n, &w->networks);
        if (w->drill)
            isolate_link(n, w->drill_network);
    }
    if (w->drill)
        mark(root, w->move_id);
    xmlDocDumpMemory(doc, &text, &len);
    *ret_xml = text ? strdup((const char *)text) : NULL;
    xmlFree(text);
    return *ret_xml ? 0
                    : error_set(err, -ENOMEM, "write the VM's definition for the target", NULL,
                                "out of memory");
}

static bool is_marked(xmlNodePtr root, const char *move_id)
{
    for (xmlNodePtr n = child(root, "metadata") ? child(root, "metadata")->children : NULL; n;
         n = n->next) {
        if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, "drill") == 0 && n->ns &&
            strcmp((const char *)n->ns->href, DRILL_NAMESPACE) == 0 &&
            attribute_is(n, "move", move_id))
            return true;
    }
    return false;
}

int domain_check_clone(const char *xml, const char *move_id, const char *drill_network,
                       struct error *err)
{
    _cleanup_(doc_free) xmlDocPtr doc = read_xml(xml);
    xmlNodePtr root = doc ? xmlDocGetRootElement(doc) : NULL, devices = child(root, "devices");

    if (!devices || !is_marked(root, move_id))
        return error_set(err, -EPERM, "run the clone", NULL, "it is not marked as this drill's");
    for (xmlNodePtr n = devices->children; n; n = n->next) {
        if (n->type != XML_ELEMENT_NODE || strcmp((const char *)n->name, "interface") != 0 ||
            attribute_is(child(n, "link"), "state", "down"))
            continue;
        if (!drill_network[0] || !attribute_is(n, "type", "network") ||
            !attribute_is(child(n, "source"), "network", drill_network))
            return error_set(err, -EPERM, "run the clone", NULL,
                             "one of its network links is up and not on the isolated network");
    }
    return 0;
}
