/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 for stripes, and the identity of a site: the one place that knows OpenSSL.
 *
 * A site is its key. Peers know each other by the SHA-256 of the certificate ("sha256:HEX"), pinned in their
 * configuration; for that certificates are self-signed containers of the key, made on first use. Or both have
 * certificates of a CA, and know each other by the name in it. Both sides authenticate. No tickets, no
 * 0-RTT, no renegotiation: a connection is one handshake.
 */
#ifndef FERRY_NETLINK_TLS_H
#define FERRY_NETLINK_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "core/base/error.h"

struct tls_identity;
struct tls_conn;

enum {
    TLS_FINGERPRINT_BYTES = 72, /* "sha256:" + 64 hex digits + 0 */
    TLS_NAME_BYTES = 254,       /* a DNS name + 0 */
};

/*
 * Loads key and certificate from the two PEM files; makes both (key mode 0600) when neither exists.
 * @site_name becomes the certificate's common name, for people only.
 */
int tls_identity_load(const char *key_path, const char *certificate_path, const char *site_name,
                      struct tls_identity **ret, struct error *err);
void tls_identity_free(struct tls_identity *id);
/* Certificates of this CA (PEM, one or more) count from now on, unless they are on the list @crl_path ("": none). */
int tls_identity_trust(struct tls_identity *id, const char *ca_path, const char *crl_path,
                       struct error *err);
const char *tls_identity_fingerprint(const struct tls_identity *id);

/* "sha256:" and 64 hex digits, colons between pairs allowed -> the canonical form. -EINVAL otherwise. */
int tls_fingerprint_parse(const char *text, char ret[TLS_FINGERPRINT_BYTES]);

/* A connection over the nonblocking socket @fd (not owned). */
int tls_conn_new(struct tls_identity *id, int fd, bool server, struct tls_conn **ret);
void tls_conn_free(struct tls_conn *c);

/*
 * One step. 0 or a byte count when done; -EAGAIN: call again when the socket is readable
 * (or, if tls_conn_wants_write(), writable); other negative errno: the connection is over and
 * tls_conn_why() says why in words. Reading returns 0 at the peer's orderly end.
 */
int tls_conn_handshake(struct tls_conn *c);
ssize_t tls_conn_read(struct tls_conn *c, void *buf, size_t len);
ssize_t tls_conn_write(struct tls_conn *c, const void *data, size_t len);
/* What was written is gathered into large writes of the socket: this sends the rest. 0, -EAGAIN: again when
 * the socket is writable, or the connection is over. */
int tls_conn_flush(struct tls_conn *c);
/* Bytes wait inside, read from the socket and not yet given out. */
bool tls_conn_has_read_ahead(const struct tls_conn *c);
bool tls_conn_wants_write(const struct tls_conn *c);
const char *tls_conn_why(const struct tls_conn *c);

/* After the handshake: the peer's certificate, and the cipher in use. */
const char *tls_conn_peer_fingerprint(const struct tls_conn *c);
/* The CA of this site certifies that the peer has this DNS name: a subject alternative name, letter for letter. */
bool tls_conn_peer_has_name(const struct tls_conn *c, const char *name);
/* Why the CA does not certify it; "" when it does. */
const char *tls_conn_peer_doubt(const struct tls_conn *c);
const char *tls_conn_cipher(const struct tls_conn *c);

#endif
