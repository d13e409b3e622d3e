/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a domain's XML with libxml2: see domain_xml.h. */
#include "core/virt/domain_xml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "core/base/macros.h"

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

/* --- devices ------------------------------------------------------------------------------- */

/* Devices that tie a VM to its host, and how it is freed of them. */
static const struct {
    const char *element, *part;    /* part of it; NULL: itself */
    const char *attribute, *value; /* NULL: any */
    const char *why;
} tied[] = {
    {"hostdev", NULL, NULL, NULL, "a device of the host is passed through to it"},
    {"filesystem", NULL, NULL, NULL, "a folder of the host is passed through to it"},
    {"shmem", NULL, NULL, NULL, "it shares memory with others of its host"},
    {"interface", NULL, "type", "hostdev", "a network card of the host is passed through to it"},
    {"interface", NULL, "type", "vdpa",
     "a network card of the host (vdpa) is passed through to it"},
    {"interface", NULL, "type", "vhostuser",
     "its network card is a process of the host (vhost-user)"},
    {"memory", NULL, "model", "nvdimm", "it has an NVDIMM, whose file does not move"},
    {"tpm", "backend", "type", "passthrough", "the host's TPM is passed through to it"},
    {"input", NULL, "type", "passthrough",
     "a keyboard or mouse of the host is passed through to it"},
    {"input", NULL, "type", "evdev", "a keyboard or mouse of the host is passed through to it"},
    {"video", "acceleration", "accel3d", "yes",
     "its display is drawn by the host's graphics card (accel3d)"},
};

/* The element itself, or one of that name in it, however deep. */
static xmlNodePtr part_of(xmlNodePtr node, const char *part)
{
    xmlNodePtr found = part ? child(node, part) : node;

    for (xmlNodePtr c = node->children; !found && c; c = c->next) {
        if (c->type == XML_ELEMENT_NODE)
            found = part_of(c, part);
    }
    return found;
}

static int check_device(xmlNodePtr node, struct error *err)
{
    char value[32];

    for (size_t i = 0; i < ARRAY_SIZE(tied); i++) {
        xmlNodePtr part;

        if (strcmp((const char *)node->name, tied[i].element) != 0 ||
            !(part = part_of(node, tied[i].part)))
            continue;
        if (!tied[i].attribute || (text_of(part, tied[i].attribute, value, sizeof(value)) &&
                                   strcmp(value, tied[i].value) == 0))
            return error_set(err, -ENOTSUP, "look at the VM's devices",
                             "detach it: virsh detach-device, or while it is off: virsh edit", "%s",
                             tied[i].why);
    }
    return 0;
}

/* --- what it needs of a host --------------------------------------------------------------- */

static void read_network(xmlNodePtr node, struct domain_platform *p)
{
    struct domain_network n = {0};

    text_of(node, "type", n.kind, sizeof(n.kind));
    if (text_of(child(node, "source"), strcmp(n.kind, "direct") == 0 ? "dev" : n.kind, n.name,
                sizeof(n.name)) &&
        p->network_count < DOMAIN_NETWORKS_MAX)
        p->networks[p->network_count++] = n;
}

static void read_cpu(xmlNodePtr root, struct domain_platform *p)
{
    xmlNodePtr cpu = child(root, "cpu");
    xmlBufferPtr text = xmlBufferCreate();
    char mode[32];

    text_of(cpu, "mode", mode, sizeof(mode));
    p->host_cpu = strcmp(mode, "host-passthrough") == 0;
    if (cpu && text && xmlNodeDump(text, root->doc, cpu, 0, 0) > 0 &&
        (size_t)xmlBufferLength(text) < sizeof(p->cpu))
        snprintf(p->cpu, sizeof(p->cpu), "%s", (const char *)xmlBufferContent(text));
    if (text)
        xmlBufferFree(text);
}

static void read_file(xmlNodePtr node, const char *what, struct domain_platform *p)
{
    struct domain_file f = {0};

    snprintf(f.what, sizeof(f.what), "%s", what);
    if (text_of(node, NULL, f.path, sizeof(f.path)) && f.path[0] == '/' &&
        p->file_count < DOMAIN_FILES_MAX)
        p->files[p->file_count++] = f;
}

static void read_files(xmlNodePtr root, struct domain_platform *p)
{
    xmlNodePtr os = child(root, "os");

    read_file(child(child(root, "devices"), "emulator"), "emulator", p);
    read_file(child(os, "loader"), "firmware", p);
    read_file(child(os, "kernel"), "kernel", p);
    read_file(child(os, "initrd"), "initrd", p);
    read_file(child(os, "dtb"), "dtb", p);
}

/* One more than the last of a list as libvirt writes them: "0-3,8". */
static unsigned end_of_list(const char *list)
{
    static const char digits[] = "0123456789";
    unsigned long end = 0;

    for (const char *at = list + strcspn(list, digits); *at; at += strcspn(at, digits)) {
        end = MAX(end, MIN(strtoul(at, NULL, 10), (unsigned long)UINT16_MAX) + 1);
        at += strspn(at, digits);
    }
    return (unsigned)end;
}

/* The last processor or memory node of the host that @node or what is in it is pinned to. */
static unsigned pinned_to(xmlNodePtr node, const char *attribute)
{
    char list[512];
    unsigned end = text_of(node, attribute, list, sizeof(list)) ? end_of_list(list) : 0;

    for (xmlNodePtr c = node ? node->children : NULL; c; c = c->next) {
        if (c->type == XML_ELEMENT_NODE)
            end = MAX(end, pinned_to(c, attribute));
    }
    return end;
}

static void read_processors(xmlNodePtr root, struct domain_platform *p)
{
    xmlNodePtr vcpu = child(root, "vcpu");
    char count[16];

    text_of(vcpu, NULL, count, sizeof(count));
    p->vcpus = (unsigned)MIN(strtoul(count, NULL, 10), (unsigned long)UINT16_MAX);
    p->pinned_cpus = MAX(pinned_to(vcpu, "cpuset"), pinned_to(child(root, "cputune"), "cpuset"));
    p->pinned_nodes = pinned_to(child(root, "numatune"), "nodeset");
}

static void read_platform(xmlNodePtr root, struct domain_platform *p)
{
    xmlNodePtr type = child(child(root, "os"), "type");

    text_of(root, "type", p->type, sizeof(p->type));
    text_of(type, "arch", p->arch, sizeof(p->arch));
    text_of(type, "machine", p->machine, sizeof(p->machine));
    read_cpu(root, p);
    read_files(root, p);
    read_processors(root, p);
    for (xmlNodePtr n = child(root, "devices")->children; n; n = n->next) {
        if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, "interface") == 0)
            read_network(n, p);
    }
}

/* --- the domain ---------------------------------------------------------------------------- */

static int read_domain(xmlNodePtr root, struct domain_info *info, struct check_report *report,
                       struct error *err)
{
    xmlNodePtr devices = child(root, "devices");
    char state[8];

    text_of(child(child(child(root, "features"), "kvm"), "dirty-ring"), "state", state,
            sizeof(state));
    info->has_dirty_ring = strcmp(state, "on") == 0;

    if (!text_of(child(root, "name"), NULL, info->name, sizeof(info->name)) ||
        !text_of(child(root, "uuid"), NULL, info->uuid, sizeof(info->uuid)) || !devices)
        return error_set(err, -EINVAL, "read the VM's definition", NULL,
                         "it has no name, UUID or devices");
    if (child(root, "launchSecurity")) {
        struct error why;

        error_set(&why, -ENOTSUP, "look at the VM", "take it away while the VM is off: virsh edit",
                  "its memory is sealed by this host's processor (launchSecurity)");
        check_fail(report, "devices", &why);
    }
    for (xmlNodePtr n = devices->children; n; n = n->next) {
        struct error why = {0};

        if (n->type != XML_ELEMENT_NODE)
            continue;
        if (strcmp((const char *)n->name, "disk") == 0 && read_disk(n, info, &why) < 0)
            check_fail(report, "disks", &why);
        else if (!why.code && check_device(n, &why) < 0)
            check_fail(report, "devices", &why);
    }
    return 0;
}

int domain_xml_survey(const char *xml, struct domain_info *ret, struct domain_platform *platform,
                      struct check_report *report, struct error *err)
{
    _cleanup_(doc_free) xmlDocPtr doc =
        xmlReadMemory(xml, (int)strlen(xml), "domain.xml", NULL,
                      XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    struct domain_info info = {0};
    int r;

    if (!doc)
        return error_set(err, -EINVAL, "read the VM's definition", NULL,
                         "libvirt's XML is not well-formed");
    r = read_domain(xmlDocGetRootElement(doc), &info, report, err);
    if (r == 0 && platform)
        read_platform(xmlDocGetRootElement(doc), platform);
    if (r == 0)
        *ret = info;
    return r;
}

int domain_xml_parse(const char *xml, struct domain_info *ret, struct error *err)
{
    struct check_report report = {0};
    struct domain_info info;
    int r = domain_xml_survey(xml, &info, NULL, &report, err);

    if (r == 0 && check_first_failure(&report, err))
        r = err->code;
    if (r == 0)
        *ret = info;
    return r;
}
