/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policy/policy_json.h"

#include <errno.h>
#include <string.h>

/* --- requests ------------------------------------------------------------------------------ */

static int take(struct policy_choices *c, const char *key, const json_t *value, struct error *err)
{
    const char *text = json_string_value(value);
    int s = policy_setting_find(key);
    char allowed[POLICY_TEXT_BYTES];

    switch (text ? policy_choices_set(c, key, text) : s < 0 ? -1 : 0) {
    case 1:
        return 0;
    case 0:
        return error_set(
            err, -EINVAL, "start a move", "`ferry policies` lists settings",
            "'%.64s' is no value of %s: it may be %s", text ? text : "", key,
            s >= 0 ? policy_setting_allowed((enum policy_setting)s, allowed, sizeof(allowed))
                   : "the name of a policy");
    default:
        return error_set(err, -EINVAL, "start a move", "`ferry policies` lists them",
                         "there is no setting '%.64s'", key);
    }
}

int policy_request_from_json(const json_t *body, struct policy_choices *ret, struct error *err)
{
    const json_t *settings = json_object_get(body, "settings");
    static const char *const beside[] = {"policy", "bwlimit"};
    struct policy_choices c = {0};
    const char *key;
    json_t *value;
    int r = 0;

    if (settings && !json_is_object(settings))
        return error_set(err, -EINVAL, "start a move", NULL, "\"settings\" must be an object");
    json_object_foreach((json_t *)settings, key, value)
    {
        r = take(&c, key, value, err);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; r == 0 && i < sizeof(beside) / sizeof(beside[0]); i++) {
        value = json_object_get(body, beside[i]);
        if (value)
            r = take(&c, beside[i], value, err);
    }
    if (json_is_true(json_object_get(body, "hold")))
        policy_choices_say(&c, POLICY_HOLD, 1);
    if (r == 0)
        *ret = c;
    return r;
}

/* --- what holds ---------------------------------------------------------------------------- */

static json_t *substitutions_to_json(const struct policy *p)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < p->substitution_count; i++) {
        const struct policy_substitution *s = &p->substitutions[i];
        char wanted[POLICY_TEXT_BYTES], taken[POLICY_TEXT_BYTES];

        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:s, s:s}", "setting", policy_setting_name(s->setting), "wanted",
                      policy_setting_format(s->setting, s->wanted, wanted, sizeof(wanted)), "taken",
                      policy_setting_format(s->setting, s->taken, taken, sizeof(taken)), "why",
                      s->why));
    }
    return list;
}

json_t *policy_to_json(const struct policy *p)
{
    char value[POLICY_TEXT_BYTES], from[3 * POLICY_NAME_BYTES];
    json_t *settings = json_object();

    for (int s = 0; s < POLICY_SETTINGS; s++)
        json_object_set_new(
            settings, policy_setting_name((enum policy_setting)s),
            json_pack(
                "{s:s, s:s}", "value",
                policy_setting_format((enum policy_setting)s, p->of[s].value, value, sizeof(value)),
                "from", policy_origin(p, (enum policy_setting)s, from, sizeof(from))));
    return json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", p->name, "chosen_by",
                     policy_chosen_by(p, from, sizeof(from)), "group", p->group, "settings",
                     settings, "substitutions", substitutions_to_json(p));
}

/* --- all of them --------------------------------------------------------------------------- */

static json_t *one_to_json(const struct policy_config *c, const char *name)
{
    json_t *says = json_object();
    char text[POLICY_TEXT_BYTES];
    uint64_t value;

    for (int s = 0; s < POLICY_SETTINGS; s++) {
        if (policy_config_value(c, name, (enum policy_setting)s, &value))
            json_object_set_new(says, policy_setting_name((enum policy_setting)s),
                                json_string(policy_setting_format((enum policy_setting)s, value,
                                                                  text, sizeof(text))));
    }
    return json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", name, "meaning",
                     policy_config_meaning(c, name), "shipped", policy_config_is_shipped(name),
                     "based_on", policy_config_base(c, name), "settings", says);
}

json_t *policies_to_json(const struct policy_config *c)
{
    json_t *list = json_array(), *settings = json_object();
    char standard[POLICY_TEXT_BYTES], allowed[POLICY_TEXT_BYTES];
    const char *name;

    for (unsigned i = 0; (name = policy_config_name(c, i)); i++)
        json_array_append_new(list, one_to_json(c, name));
    for (int n = 0; n < POLICY_SETTINGS; n++) {
        enum policy_setting s = (enum policy_setting)n;

        json_object_set_new(settings, policy_setting_name(s),
                            json_pack("{s:s, s:s, s:s}", "default",
                                      policy_setting_format(s, policy_setting_default(s), standard,
                                                            sizeof(standard)),
                                      "allowed",
                                      policy_setting_allowed(s, allowed, sizeof(allowed)),
                                      "meaning", policy_setting_meaning(s)));
    }
    return json_pack("{s:o, s:o}", "policies", list, "settings", settings);
}
