/* SPDX-License-Identifier: Apache-2.0 */
/* What tls_identity.c (keys, certificates, whom to trust) and tls.c (connections) share. Not for others. */
#ifndef FERRY_NETLINK_TLS_PRIVATE_H
#define FERRY_NETLINK_TLS_PRIVATE_H

#include <openssl/ssl.h>

#include "netlink/tls.h"

/* What one read or write of the socket moves at most. */
enum { TLS_SYSCALL_BYTES = 128 * 1024 };

struct tls_identity {
    SSL_CTX *server_ctx;
    SSL_CTX *client_ctx;
    EVP_PKEY *key;
    X509 *certificate;
    bool has_ca;
    char fingerprint[TLS_FINGERPRINT_BYTES];
};

struct tls_conn {
    SSL *ssl;
    bool wants_write;
    X509 *peer_certificate;
    char peer_fingerprint[TLS_FINGERPRINT_BYTES];
    bool peer_certified;  /* by the CA of this site */
    char peer_doubt[128]; /* why not */
    char why[160];
};

int tls_fingerprint_of(X509 *cert, char ret[TLS_FINGERPRINT_BYTES]);

#endif
