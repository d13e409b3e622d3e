/* SPDX-License-Identifier: Apache-2.0 */
/* TLS connections by OpenSSL: see tls.h. */
#include "netlink/tls_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

static void openssl_reason(char *buf, size_t cap)
{
    unsigned long code = ERR_get_error();

    if (code)
        snprintf(buf, cap, "%s",
                 ERR_reason_error_string(code) ? ERR_reason_error_string(code) : "TLS error");
    else
        snprintf(buf, cap, "unknown TLS error");
    ERR_clear_error();
}

int tls_conn_new(struct tls_identity *id, int fd, bool server, struct tls_conn **ret)
{
    struct tls_conn *c = calloc(1, sizeof(*c));
    BIO *socket = BIO_new_socket(fd, BIO_NOCLOSE), *gather = BIO_new(BIO_f_buffer());

    if (c)
        c->ssl = SSL_new(server ? id->server_ctx : id->client_ctx);
    if (!c || !c->ssl || !socket || !gather ||
        BIO_set_write_buffer_size(gather, TLS_SYSCALL_BYTES) != 1 || BIO_up_ref(socket) != 1) {
        BIO_free(socket);
        BIO_free(gather);
        tls_conn_free(c);
        return -ENOMEM;
    }
    SSL_set_app_data(c->ssl, c);
    SSL_set0_rbio(c->ssl, socket);
    SSL_set0_wbio(c->ssl, BIO_push(gather, socket));
    if (server)
        SSL_set_accept_state(c->ssl);
    else
        SSL_set_connect_state(c->ssl);
    *ret = c;
    return 0;
}

void tls_conn_free(struct tls_conn *c)
{
    if (!c)
        return;
    X509_free(c->peer_certificate);
    SSL_free(c->ssl);
    free(c);
}

/* The meaning of a failed OpenSSL call: -EAGAIN, 0 at an orderly end, or an error with its words. */
static int fault_of(struct tls_conn *c, int result)
{
    int saved = errno;

    c->wants_write = false;
    switch (SSL_get_error(c->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        c->wants_write = true;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        snprintf(c->why, sizeof(c->why), "%s",
                 saved ? strerror(saved) : "the peer closed the connection");
        ERR_clear_error();
        return saved ? -saved : -ECONNRESET;
    default:
        openssl_reason(c->why, sizeof(c->why));
        return -EPROTO;
    }
}

int tls_conn_handshake(struct tls_conn *c)
{
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_do_handshake(c->ssl);
    if (r != 1) {
        r = fault_of(c, r);
        return r == 0 ? -ECONNRESET : r;
    }
    c->wants_write = false;
    X509_free(c->peer_certificate);
    c->peer_certificate = SSL_get1_peer_certificate(c->ssl);
    return c->peer_certificate ? tls_fingerprint_of(c->peer_certificate, c->peer_fingerprint)
                               : -EPROTO;
}

ssize_t tls_conn_read(struct tls_conn *c, void *buf, size_t len)
{
    size_t done = 0;
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_read_ex(c->ssl, buf, len, &done);
    return r == 1 ? (ssize_t)done : fault_of(c, r);
}

ssize_t tls_conn_write(struct tls_conn *c, const void *data, size_t len)
{
    size_t done = 0;
    int r;

    ERR_clear_error();
    errno = 0;
    r = SSL_write_ex(c->ssl, data, len, &done);
    if (r == 1) {
        c->wants_write = false;
        return (ssize_t)done;
    }
    r = fault_of(c, r);
    return r == 0 ? -EPIPE : r;
}

int tls_conn_flush(struct tls_conn *c)
{
    BIO *gather = SSL_get_wbio(c->ssl);

    ERR_clear_error();
    errno = 0;
    if (BIO_wpending(gather) == 0 || BIO_flush(gather) > 0)
        return 0;
    if (BIO_should_retry(gather))
        return -EAGAIN;
    snprintf(c->why, sizeof(c->why), "%s",
             errno ? strerror(errno) : "the peer closed the connection");
    return errno ? -errno : -EPIPE;
}

bool tls_conn_has_read_ahead(const struct tls_conn *c)
{
    return SSL_has_pending(c->ssl);
}

bool tls_conn_wants_write(const struct tls_conn *c)
{
    return c->wants_write;
}

const char *tls_conn_why(const struct tls_conn *c)
{
    return c->why;
}

const char *tls_conn_peer_fingerprint(const struct tls_conn *c)
{
    return c->peer_fingerprint;
}

bool tls_conn_peer_has_name(const struct tls_conn *c, const char *name)
{
    return c->peer_certified &&
           X509_check_host(c->peer_certificate, name, 0,
                           X509_CHECK_FLAG_NO_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                           NULL) == 1;
}

const char *tls_conn_peer_doubt(const struct tls_conn *c)
{
    return c->peer_doubt;
}

const char *tls_conn_cipher(const struct tls_conn *c)
{
    return SSL_get_cipher_name(c->ssl);
}
