/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of TLS share: a site's identity, and a handshake of two of its connections. Include it after
 * cmocka.h. */
#ifndef FERRY_TESTS_NETLINK_TLS_SITE_H
#define FERRY_TESTS_NETLINK_TLS_SITE_H

#include <errno.h>

#include "netlink/tls.h"

static inline struct tls_identity *load(const char *key, const char *certificate)
{
    struct tls_identity *id = NULL;
    struct error err = {0};
    char line[1024];

    if (tls_identity_load(key, certificate, "site", &id, &err) < 0)
        fail_msg("%s", error_line(&err, line, sizeof(line)));
    return id;
}

/* Both ends of one socket pair, until both are through. */
static inline void shake_hands(struct tls_conn *a, struct tls_conn *b)
{
    int ra = -EAGAIN, rb = -EAGAIN;

    for (int i = 0; i < 20 && (ra == -EAGAIN || rb == -EAGAIN); i++) {
        ra = ra == -EAGAIN ? tls_conn_handshake(a) : ra;
        rb = rb == -EAGAIN ? tls_conn_handshake(b) : rb;
    }
    assert_int_equal(ra, 0);
    assert_int_equal(rb, 0);
}

#endif
