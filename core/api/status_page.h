/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status page: one page that shows the moves while they run, on loopback, for an operator's browser (through an SSH
 * tunnel, from elsewhere). Off unless [site] status_page names an address.
 *
 *   GET /           the page: status_page.html, compiled in; it loads nothing from elsewhere
 *   GET /v1/moves   as the control API has it
 *   GET /metrics    likewise, for a Prometheus on this host
 *
 * It only shows: no other method, no other address. A request must name a loopback host, so that no foreign site can
 * make a browser read it under a name of its own.
 */
#ifndef FERRY_CORE_STATUS_PAGE_H
#define FERRY_CORE_STATUS_PAGE_H

#include <sys/socket.h>

#include "core/service.h"

struct status_page;

/* "127.0.0.1:PORT" or "[::1]:PORT". -EINVAL for anything else. */
int status_page_parse_address(const char *text, struct sockaddr_storage *ret);

int status_page_new(struct service *s, const char *address, struct status_page **ret,
                    struct error *err);
/* Stops serving. NULL is allowed. */
void status_page_stop(struct status_page *p);

#endif
