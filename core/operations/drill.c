/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/drill.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/json_text.h"

void drill_clone_name(const char *name, const char *move_id, char ret[DOMAIN_NAME_BYTES])
{
    snprintf(ret, DOMAIN_NAME_BYTES, "%.80s.drill-%.39s", name, move_id);
}

bool drill_is_command(const char *name)
{
    for (const char *p = name; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return false;
    }
    return name[0] && name[0] != '.' && strlen(name) < DRILL_COMMAND_BYTES;
}

const char *drill_verdict_name(enum drill_verdict verdict)
{
    static const char *const names[] = {
        [DRILL_OPEN] = "open", [DRILL_PASSED] = "passed", [DRILL_FAILED] = "failed"};

    return names[verdict];
}

json_t *drill_to_json(const struct drill *d)
{
    return json_pack("{s:s, s:b, s:s, s:s, s:s, s:i, s:s%, s:s}", "command", d->command,
                     "keep_disk", d->keep_disk, "network", d->network, "verdict",
                     drill_verdict_name(d->verdict), "agent", d->agent, "exit_status",
                     d->exit_status, "output", d->output, strlen(d->output), "why", d->why);
}

int drill_from_json(const json_t *json, struct drill *ret)
{
    struct drill d = {0};
    char verdict[16] = "";

    if (!json_is_object(json))
        return -EPROTO;
    json_text_show(json, "command", JSON_TEXT_LINE, d.command, sizeof(d.command));
    if (d.command[0] && !drill_is_command(d.command))
        return -EPROTO;
    d.keep_disk = json_is_true(json_object_get(json, "keep_disk"));
    json_text_show(json, "network", JSON_TEXT_LINE, d.network, sizeof(d.network));
    json_text_show(json, "verdict", JSON_TEXT_LINE, verdict, sizeof(verdict));
    for (int v = DRILL_OPEN; v <= DRILL_FAILED; v++) {
        if (strcmp(verdict, drill_verdict_name((enum drill_verdict)v)) == 0)
            d.verdict = (enum drill_verdict)v;
    }
    json_text_show(json, "agent", JSON_TEXT_LINE, d.agent, sizeof(d.agent));
    d.exit_status = (int)json_integer_value(json_object_get(json, "exit_status")) & 0xff;
    json_text_show(json, "output", JSON_TEXT_LINES, d.output, sizeof(d.output));
    json_text_show(json, "why", JSON_TEXT_LINE, d.why, sizeof(d.why));
    *ret = d;
    return 0;
}
