/* SPDX-License-Identifier: Apache-2.0 */
/* The control API as `ferry` calls it: HTTP and JSON over ferryd's UNIX socket, by libcurl. */
#ifndef FERRY_TOOLS_FERRY_CLIENT_H
#define FERRY_TOOLS_FERRY_CLIENT_H

#include <jansson.h>

#include "core/base/error.h"

struct client;

int client_new(const char *socket_path, struct client **ret);
void client_free(struct client *c);

/*
 * One request; @body (stolen, may be NULL) makes it a POST. On success *ret is the answer (new
 * reference). -ENOTCONN: no ferryd there; -EACCES: not allowed to talk to it; else what it answered.
 */
int client_call(struct client *c, const char *path, bool post, json_t *body, json_t **ret,
                struct error *err);

#endif
