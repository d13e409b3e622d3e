/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's monitor, through libvirt: see virt.h. What QEMU refuses comes back from libvirt as a success that holds an error. */
#include <errno.h>
#include <string.h>

#include <jansson.h>
#include <libvirt/libvirt-qemu.h>

#include "core/base/macros.h"
#include "core/virt/virt_private.h"

int virt_monitor_ask(struct call *c, virDomainPtr dom, const char *command, char **ret_reply)
{
    _cleanup_(freep) char *reply = NULL;
    const char *why;
    json_t *json;
    int r = 0;

    if (virDomainQemuMonitorCommand(dom, command, &reply, 0) < 0)
        return virt_fault(c);
    json = json_loads(reply, 0, NULL);
    why = json_string_value(json_object_get(json_object_get(json, "error"), "desc"));
    if (why)
        r = error_set(&c->err, -EIO, c->what, "see /var/log/libvirt/qemu/ at the source",
                      "QEMU's answer to %s: %s", command, why);
    else
        *ret_reply = TAKE_PTR(reply);
    json_decref(json);
    return r;
}

static void work_qmp(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    char *reply = NULL;

    (void)conn;
    virt_monitor_ask(c, dom, c->text, &reply);
    free(c->text);
    c->text = reply;
}

void virt_qmp(struct virt *v, const char *uuid, const char *command, virt_reply_fn done, void *user)
{
    struct call *c = virt_call_new(v, uuid, "talk to QEMU's monitor", work_qmp, user);

    c->callback.reply = done;
    c->text = strdup(command);
    if (!c->text)
        abort(); /* see virt_call_new() */
    virt_post_for_reply(c);
}
