/* SPDX-License-Identifier: Apache-2.0 */
#include "core/virt/platform_json.h"

#include <errno.h>

#include "core/base/macros.h"
#include "core/json_text.h"

json_t *platform_to_json(const struct virt_description *d)
{
    const struct domain_platform *p = &d->platform;
    json_t *networks = json_array(), *files = json_array();

    for (unsigned i = 0; i < p->network_count; i++)
        json_array_append_new(networks, json_pack("{s:s, s:s}", "kind", p->networks[i].kind, "name",
                                                  p->networks[i].name));
    for (unsigned i = 0; i < p->file_count; i++)
        json_array_append_new(
            files, json_pack("{s:s, s:s}", "what", p->files[i].what, "path", p->files[i].path));
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "type",
                     p->type, "arch", p->arch, "machine", p->machine, "cpu", p->cpu, "host_cpu",
                     p->host_cpu, "networks", networks, "files", files, "vcpus",
                     (json_int_t)p->vcpus, "pinned_cpus", (json_int_t)p->pinned_cpus,
                     "pinned_nodes", (json_int_t)p->pinned_nodes, "memory_bytes",
                     (json_int_t)d->memory_bytes, "libvirt", (json_int_t)d->libvirt_version, "qemu",
                     (json_int_t)d->qemu_version);
}

/* Text that ends up in libvirt's hands or in messages; lines may break in XML. */
enum { TEXT = JSON_TEXT_LINES | JSON_TEXT_OPTIONAL };

/* A version, or a count; nothing and nonsense are 0. */
static unsigned number(const json_t *object, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(object, key));

    return n > 0 && n < INT32_MAX ? (unsigned)n : 0;
}

static int files_from_json(const json_t *files, struct domain_platform *p)
{
    if (json_array_size(files) > DOMAIN_FILES_MAX)
        return -EPROTO;
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *f = json_array_get(files, i);

        if (json_text_take(f, "what", TEXT, p->files[i].what, sizeof(p->files[i].what)) < 0 ||
            json_text_take(f, "path", TEXT, p->files[i].path, sizeof(p->files[i].path)) < 0 ||
            p->files[i].path[0] != '/')
            return -EPROTO;
        p->file_count++;
    }
    return 0;
}

int platform_from_json(const json_t *json, struct virt_host_question *ret)
{
    struct domain_platform p = {0};
    const json_t *networks = json_object_get(json, "networks");

    if (!json)
        return 0;
    if (json_text_take(json, "type", TEXT, p.type, sizeof(p.type)) < 0 ||
        json_text_take(json, "arch", TEXT, p.arch, sizeof(p.arch)) < 0 ||
        json_text_take(json, "machine", TEXT, p.machine, sizeof(p.machine)) < 0 ||
        json_text_take(json, "cpu", TEXT, p.cpu, sizeof(p.cpu)) < 0 ||
        json_array_size(networks) > DOMAIN_NETWORKS_MAX ||
        files_from_json(json_object_get(json, "files"), &p) < 0)
        return -EPROTO;
    for (size_t i = 0; i < json_array_size(networks); i++) {
        const json_t *n = json_array_get(networks, i);

        if (json_text_take(n, "kind", TEXT, p.networks[i].kind, sizeof(p.networks[i].kind)) < 0 ||
            json_text_take(n, "name", TEXT, p.networks[i].name, sizeof(p.networks[i].name)) < 0)
            return -EPROTO;
        p.network_count++;
    }
    p.host_cpu = json_is_true(json_object_get(json, "host_cpu"));
    p.vcpus = number(json, "vcpus");
    p.pinned_cpus = number(json, "pinned_cpus");
    p.pinned_nodes = number(json, "pinned_nodes");
    ret->platform = p;
    ret->memory_bytes = (uint64_t)MAX(json_integer_value(json_object_get(json, "memory_bytes")), 0);
    ret->libvirt_version = number(json, "libvirt");
    ret->qemu_version = number(json, "qemu");
    return 0;
}
