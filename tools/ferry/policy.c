/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry policies` and `ferry policy show`; and what other commands say of policies. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/ferry/invocation.h"

json_t *invocation_setting(const char *words)
{
    const char *equals = strchr(words, '=');
    json_t *settings = json_object();
    char key[64];

    if (!equals || equals == words || (size_t)(equals - words) >= sizeof(key)) {
        fprintf(stderr, "ferry: '%s' is not KEY=VALUE; `ferry policies` lists the keys\n", words);
        json_decref(settings);
        return NULL;
    }
    snprintf(key, sizeof(key), "%.*s", (int)(equals - words), words);
    json_object_set_new(settings, key, json_string(equals + 1));
    return settings;
}

int invocation_add_policy(const struct invocation *in, json_t *request)
{
    json_t *settings = json_object();

    if (in->policy)
        json_object_set_new(request, "policy", json_string(in->policy));
    for (unsigned i = 0; i < in->setting_count; i++) {
        json_t *one = invocation_setting(in->settings[i]);

        if (!one) {
            json_decref(settings);
            json_decref(request);
            return EXIT_USAGE;
        }
        json_object_update(settings, one);
        json_decref(one);
    }
    json_object_set_new(request, "settings", settings);
    return 0;
}

static void print_policies(const struct invocation *in, const json_t *answer)
{
    const json_t *policy, *setting;
    const char *key;
    size_t i;

    (void)in;
    json_array_foreach(json_object_get(answer, "policies"), i, policy)
    {
        const json_t *says = json_object_get(policy, "settings");
        const char *base = invocation_member(policy, "based_on");
        const char *name = invocation_member(policy, "name");

        printf("%-18s %s%s%s\n", name, invocation_member(policy, "meaning"),
               base[0] && strcmp(base, name) != 0 ? "; based on " : "",
               strcmp(base, name) != 0 ? base : "");
        json_object_foreach((json_t *)says, key, setting)
            printf("%-18s   %s = %s\n", "", key, json_string_value(setting));
    }
    printf("\nWhat may be said of a move, in [policy NAME], [service], [group NAME], [vm NAME], "
           "the VM's "
           "metadata, or\nwith --set:\n");
    json_object_foreach(json_object_get(answer, "settings"), key, setting)
    {
        printf("%-24s %s\n", key, invocation_member(setting, "meaning"));
        printf("%-24s   %s; %s when nobody says\n", "", invocation_member(setting, "allowed"),
               invocation_member(setting, "default"));
    }
}

int run_policies(struct invocation *in)
{
    return invocation_show(in, "/v1/policies", print_policies);
}

static void print_policy(const json_t *answer)
{
    const json_t *policy = json_object_get(answer, "policy"), *setting;
    const char *group = invocation_member(policy, "group"), *key;

    printf("%s: policy %s (%s)%s%s\n", invocation_member(answer, "domain"),
           invocation_member(policy, "name"), invocation_member(policy, "chosen_by"),
           group[0] ? ", group " : "", group);
    json_object_foreach(json_object_get(policy, "settings"), key, setting)
        printf("  %-24s %-14s %s\n", key, invocation_member(setting, "value"),
               invocation_member(setting, "from"));
}

/* Polls until libvirt has answered. */
static int await(struct invocation *in, const char *id, json_t **ret, struct error *err)
{
    const json_t *fault;
    char path[64];
    int r;

    snprintf(path, sizeof(path), "/v1/policies/%.32s", id);
    while ((r = client_call(in->client, path, false, NULL, ret, err)) == 0 &&
           !json_is_true(json_object_get(*ret, "done"))) {
        json_decref(*ret);
        *ret = NULL;
        invocation_nap();
    }
    fault = r == 0 ? json_object_get(*ret, "error") : NULL;
    if (fault)
        r = error_set(err, (int)json_integer_value(json_object_get(fault, "code")),
                      invocation_member(fault, "what"), invocation_member(fault, "mend"), "%s",
                      invocation_member(fault, "why"));
    return r;
}

int run_policy(struct invocation *in)
{
    json_t *request = json_pack("{s:s}", "domain", in->second), *started = NULL, *answer = NULL;
    struct error err = {0};
    int r;

    if (strcmp(in->argument, "show") != 0) {
        fprintf(stderr, "usage: ferry policy show DOMAIN\n");
        json_decref(request);
        return EXIT_USAGE;
    }
    if (invocation_add_policy(in, request) != 0)
        return EXIT_USAGE;
    r = client_call(in->client, "/v1/policies", true, request, &started, &err);
    if (r == 0)
        r = await(in, invocation_member(started, "id"), &answer, &err);
    json_decref(started);
    if (r == 0 && in->json)
        invocation_print_json(answer);
    else if (r == 0)
        print_policy(answer);
    json_decref(answer);
    return r < 0 ? invocation_fail(in, &err) : 0;
}
