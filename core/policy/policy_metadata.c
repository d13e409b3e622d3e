/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policy/policy_metadata.h"

#include <errno.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

static const char WHAT[] = "read the VM's own settings";
static const char MEND[] =
    "virsh metadata DOMAIN " POLICY_METADATA_URI " --key ferry --set \"<settings policy='wan'/>\"";

static int take(struct policy_choices *c, const xmlAttr *attribute, const char *value,
                struct error *err)
{
    const char *key = (const char *)attribute->name;
    int set = attribute->ns ? -1 : policy_choices_set(c, key, value);
    int s = policy_setting_find(key);
    char allowed[POLICY_TEXT_BYTES];

    if (set == 1)
        return 0;
    if (set == 0 && s >= 0)
        return error_set(err, -EINVAL, WHAT, MEND,
                         "'%.64s' is no value of %s in its metadata: it may be %s", value, key,
                         policy_setting_allowed((enum policy_setting)s, allowed, sizeof(allowed)));
    return error_set(err, -EINVAL, WHAT, MEND,
                     set == 0 ? "'%.64s' cannot be the name of a policy in its metadata (%.64s)"
                              : "there is no setting for '%.64s' in its metadata: '%.64s'",
                     value, key);
}

static int take_all(struct policy_choices *c, xmlNodePtr root, struct error *err)
{
    int r = 0;

    if (!root || strcmp((const char *)root->name, "settings") != 0)
        return error_set(err, -EINVAL, WHAT, MEND, "its metadata for ferry is no <settings>");
    for (xmlNodePtr n = root->children; n; n = n->next) {
        if (n->type == XML_ELEMENT_NODE)
            return error_set(err, -EINVAL, WHAT, MEND,
                             "there is no setting '%.64s' in its metadata: settings are attributes",
                             (const char *)n->name);
    }
    for (const xmlAttr *a = root->properties; r == 0 && a; a = a->next) {
        xmlChar *value = xmlNodeGetContent((const xmlNode *)a);

        r = value ? take(c, a, (const char *)value, err)
                  : error_set(err, -ENOMEM, WHAT, NULL, "out of memory");
        xmlFree(value);
    }
    return r;
}

int policy_metadata_parse(const char *xml, struct policy_choices *ret, struct error *err)
{
    size_t len = strnlen(xml, POLICY_METADATA_BYTES + 1);
    struct policy_choices c = {0};
    xmlDocPtr doc;
    int r;

    if (len > POLICY_METADATA_BYTES)
        return error_set(err, -E2BIG, WHAT, MEND, "its metadata for ferry is larger than %d bytes",
                         POLICY_METADATA_BYTES);
    doc = xmlReadMemory(xml, (int)len, NULL, NULL,
                        XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (!doc)
        return error_set(err, -EINVAL, WHAT, MEND, "its metadata for ferry is no XML");
    r = take_all(&c, xmlDocGetRootElement(doc), err);
    xmlFreeDoc(doc);
    if (r == 0)
        *ret = c;
    return r;
}
