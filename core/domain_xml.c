/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a domain's XML with libxml2: see domain_xml.h. */
#include "core/domain_xml.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

static void doc_free(xmlDocPtr *doc)
{
    xmlFreeDoc(*doc);
}

static xmlNodePtr child(xmlNodePtr node, const char *name)
{
    for (xmlNodePtr c = node ? node->children : NULL; c; c = c->next) {
        if (c->type == XML_ELEMENT_NODE && strcmp((const char *)c->name, name) == 0)
            return c;
    }
    return NULL;
}

/* The attribute's (or with NULL the element's) text, cut to @cap; false when there is none. */
static bool text_of(xmlNodePtr node, const char *attribute, char *to, size_t cap)
{
    xmlChar *text = !node       ? NULL
                    : attribute ? xmlGetProp(node, (const xmlChar *)attribute)
                                : xmlNodeGetContent(node);

    to[0] = '\0';
    if (!text)
        return false;
    snprintf(to, cap, "%s", (const char *)text);
    xmlFree(text);
    return true;
}

const char *disk_format_name(enum disk_format format)
{
    return format == DISK_QCOW2 ? "qcow2" : "raw";
}

int disk_format_parse(const char *name, enum disk_format *ret)
{
    if (strcmp(name, "raw") == 0)
        *ret = DISK_RAW;
    else if (strcmp(name, "qcow2") == 0)
        *ret = DISK_QCOW2;
    else
        return -EINVAL;
    return 0;
}

static int refuse(struct error *err, const char *disk, const char *mend, const char *why)
{
    return error_set(err, -ENOTSUP, "look at the VM's disks", mend, "disk %s %s", disk, why);
}

static int read_disk_source(xmlNodePtr node, struct domain_disk *d, struct error *err)
{
    char type[32], format[32], alias[DISK_ALIAS_BYTES - 8];
    xmlNodePtr backing;

    text_of(node, "type", type, sizeof(type));
    if (strcmp(type, "file") != 0)
        return refuse(err, d->target, "only disks in files (raw, qcow2) move", "is not a file");
    text_of(child(node, "driver"), "type", format, sizeof(format));
    if (disk_format_parse(format, &d->format) < 0)
        return refuse(err, d->target, "convert it with qemu-img to raw or qcow2",
                      "has a format that cannot move");
    if (!text_of(child(node, "alias"), "name", alias, sizeof(alias)))
        return refuse(err, d->target, "start the VM first", "has no alias: the VM is not running");
    snprintf(d->alias, sizeof(d->alias), "drive-%s", alias);
    backing = child(node, "backingStore");
    if (child(backing, "source"))
        return refuse(err, d->target, "flatten it first: virsh blockpull DOMAIN DISK --wait",
                      "has a backing file");
    return 0;
}

static int read_disk(xmlNodePtr node, struct domain_info *info, struct error *err)
{
    struct domain_disk d = {0};
    char device[32] = "disk";
    bool has_source;

    text_of(child(node, "target"), "dev", d.target, sizeof(d.target));
    text_of(node, "device", device, sizeof(device));
    has_source = text_of(child(node, "source"), "file", d.path, sizeof(d.path));
    if (strcmp(device, "disk") != 0) {
        if (has_source || child(node, "source"))
            return refuse(err, d.target, "eject it: virsh change-media DOMAIN DISK --eject",
                          "is a CD-ROM or floppy with a medium in it");
        info->skipped_count++;
        return 0;
    }
    if (child(node, "shareable"))
        return refuse(err, d.target, "detach it: virsh detach-disk",
                      "is shareable: other VMs may write it");
    if (child(node, "readonly"))
        return refuse(err, d.target, "detach it: virsh detach-disk", "is read-only");
    if (info->disk_count == LIMIT_DISKS_PER_MOVE)
        return refuse(err, d.target, NULL, "is one disk too many");
    int r = read_disk_source(node, &d, err);
    if (r < 0)
        return r;
    info->disks[info->disk_count++] = d;
    return 0;
}

static int read_domain(xmlNodePtr root, struct domain_info *info, struct error *err)
{
    xmlNodePtr devices = child(root, "devices");
    char state[8];
    int r = 0;

    text_of(child(child(child(root, "features"), "kvm"), "dirty-ring"), "state", state,
            sizeof(state));
    info->has_dirty_ring = strcmp(state, "on") == 0;

    if (!text_of(child(root, "name"), NULL, info->name, sizeof(info->name)) ||
        !text_of(child(root, "uuid"), NULL, info->uuid, sizeof(info->uuid)) || !devices)
        return error_set(err, -EINVAL, "read the VM's definition", NULL,
                         "it has no name, UUID or devices");
    for (xmlNodePtr n = devices->children; n && r == 0; n = n->next) {
        if (n->type != XML_ELEMENT_NODE)
            continue;
        if (strcmp((const char *)n->name, "disk") == 0)
            r = read_disk(n, info, err);
        else if (strcmp((const char *)n->name, "hostdev") == 0)
            r = error_set(err, -ENOTSUP, "look at the VM's devices",
                          "detach it: virsh detach-device",
                          "a device of the host is passed through to it");
    }
    return r;
}

int domain_xml_parse(const char *xml, struct domain_info *ret, struct error *err)
{
    _cleanup_(doc_free) xmlDocPtr doc =
        xmlReadMemory(xml, (int)strlen(xml), "domain.xml", NULL,
                      XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    struct domain_info info = {0};
    int r;

    if (!doc)
        return error_set(err, -EINVAL, "read the VM's definition", NULL,
                         "libvirt's XML is not well-formed");
    r = read_domain(xmlDocGetRootElement(doc), &info, err);
    if (r == 0)
        *ret = info;
    return r;
}
