/* SPDX-License-Identifier: Apache-2.0 */
#include "core/virt/platform_json.h"

#include <errno.h>

#include "core/json_text.h"

json_t *platform_to_json(const struct virt_description *d)
{
    const struct domain_platform *p = &d->platform;
    json_t *networks = json_array();

    for (unsigned i = 0; i < p->network_count; i++)
        json_array_append_new(networks, json_pack("{s:s, s:s}", "kind", p->networks[i].kind, "name",
                                                  p->networks[i].name));
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:I, s:I}", "type", p->type, "arch", p->arch,
                     "machine", p->machine, "cpu", p->cpu, "host_cpu", p->host_cpu, "networks",
                     networks, "libvirt", (json_int_t)d->libvirt_version, "qemu",
                     (json_int_t)d->qemu_version);
}

/* Text that ends up in libvirt's hands or in messages; lines may break in XML. */
enum { TEXT = JSON_TEXT_LINES | JSON_TEXT_OPTIONAL };

static unsigned long version(const json_t *object, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(object, key));

    return n > 0 && n < INT32_MAX ? (unsigned long)n : 0;
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
        json_array_size(networks) > DOMAIN_NETWORKS_MAX)
        return -EPROTO;
    for (size_t i = 0; i < json_array_size(networks); i++) {
        const json_t *n = json_array_get(networks, i);

        if (json_text_take(n, "kind", TEXT, p.networks[i].kind, sizeof(p.networks[i].kind)) < 0 ||
            json_text_take(n, "name", TEXT, p.networks[i].name, sizeof(p.networks[i].name)) < 0)
            return -EPROTO;
        p.network_count++;
    }
    p.host_cpu = json_is_true(json_object_get(json, "host_cpu"));
    ret->platform = p;
    ret->libvirt_version = version(json, "libvirt");
    ret->qemu_version = version(json, "qemu");
    return 0;
}
